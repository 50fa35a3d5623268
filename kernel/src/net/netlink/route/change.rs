//! RTM_NEW*, RTM_DEL*, RTM_SET*: changes of links, addresses and routes, for programs with CAP_NET_ADMIN.
//!
//! What the stack cannot do, and what the kernel has given itself, is refused with EOPNOTSUPP.

use core::net::IpAddr;

use linux_raw_sys::netlink as raw;

use super::address::{self, scope};
use super::{
    AddressHead, DEL_ADDRESS, DEL_LINK, DEL_ROUTE, INET, INET6, LinkHead, NEW_ADDRESS, NEW_LINK, NEW_ROUTE, RouteHead,
    SET_LINK, find, link,
};
use crate::errno::{Errno, Result};
use crate::net::card::Cidr;
use crate::net::interface::change::{self, Wanted};
use crate::net::interface::{IFF_UP, QUEUE_LENGTH, TABLE_MAIN};
use crate::net::netlink::message::{Request, to_ip, to_number};
use crate::net::netlink::work::Answer;

/// IFA_F_NODAD: nothing is asked about an address anyway.
const NO_CHECK: u32 = raw::IFA_F_NODAD;
const UNICAST: u8 = raw::RTN_UNICAST as u8;
const FOREVER: [u8; 8] = [0xff; 8];

pub fn handle(request: &Request<'_>, family: u8) -> Result<Answer> {
    match u32::from(request.header.kind) {
        NEW_LINK | SET_LINK => set_link(request)?,
        DEL_LINK => {
            link::named(request)?;
            return Err(Errno::EOPNOTSUPP);
        }
        NEW_ADDRESS | DEL_ADDRESS if matches!(family, INET | INET6) => set_address(request, family)?,
        NEW_ROUTE | DEL_ROUTE if matches!(family, INET | INET6) => set_route(request, family)?,
        _ => return Err(Errno::EOPNOTSUPP),
    }
    Ok(Answer::Done)
}

fn unless(done: bool, errno: Errno) -> Result<()> {
    if done { Ok(()) } else { Err(errno) }
}

/// Up or down; everything else an interface has must stay as it is.
fn set_link(request: &Request<'_>) -> Result<()> {
    let head = request.head::<LinkHead>()?;
    let device = match link::named(request) {
        // A new one is wanted.
        Err(Errno::ENODEV | Errno::EINVAL) if request.has(raw::NLM_F_CREATE) => return Err(Errno::EOPNOTSUPP),
        Err(Errno::EINVAL) if u32::from(request.header.kind) == NEW_LINK => return Err(Errno::ENODEV),
        device => device?,
    };
    if request.has(raw::NLM_F_EXCL) {
        return Err(Errno::EEXIST);
    }
    for (kind, data) in request.attributes(size_of::<LinkHead>()) {
        let number = data.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        let same = match u32::from(kind) {
            kind if kind == raw::IFLA_IFNAME as u32 => {
                data.split(|byte| *byte == 0).next() == Some(device.name.as_bytes())
            }
            kind if kind == raw::IFLA_MTU as u32 => number.ok_or(Errno::ERANGE)? == device.mtu as u32,
            kind if kind == raw::IFLA_TXQLEN as u32 => number.ok_or(Errno::ERANGE)? == QUEUE_LENGTH as u32,
            kind if kind == raw::IFLA_GROUP as u32 => number.ok_or(Errno::ERANGE)? == 0,
            kind if kind == raw::IFLA_ADDRESS as u32 => data == device.mac,
            kind => kind == raw::IFLA_EXT_MASK as u32 || kind == raw::IFLA_ALT_IFNAME as u32,
        };
        unless(same, Errno::EOPNOTSUPP)?;
    }
    if head.flags == 0 && head.change == 0 {
        return Ok(());
    }
    // No mask stands for all flags, of which most follow from others.
    let mask = if head.change == 0 { IFF_UP as u32 } else { head.change };
    let changed = (head.flags ^ device.flags()) & mask;
    unless(changed & !(IFF_UP as u32) == 0, Errno::EOPNOTSUPP)?;
    if changed != 0 {
        device.set_up(head.flags & IFF_UP as u32 != 0);
    }
    Ok(())
}

fn set_address(request: &Request<'_>, family: u8) -> Result<()> {
    let head = request.head::<AddressHead>()?;
    let given = request.attributes(address::HEAD);
    let local = given.address(raw::IFA_LOCAL as u16, family)?;
    let peer = given.address(raw::IFA_ADDRESS as u16, family)?;
    let adds = u32::from(request.header.kind) == NEW_ADDRESS;
    let ip = match family {
        INET if adds => local.ok_or(Errno::EINVAL)?,
        _ => local.or(peer).ok_or(Errno::EINVAL)?,
    };
    let device = find(head.index)?;
    let own = Cidr { ip, prefix: head.prefix };
    if adds {
        change::check_own(own, &device)?;
        // Nothing that would make another address of it: no other end, no lifetime, no name of its own.
        let broadcast = own.broadcast().filter(|_| !device.is_loopback()).map(IpAddr::V4);
        for (kind, data) in given {
            let usual = match u32::from(kind) {
                kind if kind == raw::IFA_LOCAL as u32 => true,
                kind if kind == raw::IFA_ADDRESS as u32 => peer == Some(ip),
                kind if kind == raw::IFA_BROADCAST as u32 => Some(to_ip(data, family)?) == broadcast,
                kind if kind == raw::IFA_LABEL as u32 => {
                    data.split(|byte| *byte == 0).next() == Some(device.name.as_bytes())
                }
                kind if kind == raw::IFA_FLAGS as u32 => to_number(data)? & !(NO_CHECK | raw::IFA_F_PERMANENT) == 0,
                kind if kind == raw::IFA_CACHEINFO as u32 => data.first_chunk() == Some(&FOREVER),
                _ => false,
            };
            unless(usual, Errno::EOPNOTSUPP)?;
        }
        let usual = family == INET6 || head.scope == scope(ip) || device.addresses.contains(&own);
        unless(usual, Errno::EOPNOTSUPP)?;
    }
    let replaces = !request.has(raw::NLM_F_EXCL) && request.has(raw::NLM_F_REPLACE);
    change::change_address(&device, own, adds, replaces)
}

fn parse_route(request: &Request<'_>, family: u8) -> Result<Wanted> {
    let head = request.head::<RouteHead>()?;
    let adds = u32::from(request.header.kind) == NEW_ROUTE;
    let given = request.attributes(size_of::<RouteHead>());
    let (mut to, mut gateway, mut index, mut metric) = (None, None, 0, None);
    let mut table = u32::from(head.table);
    for (kind, data) in given {
        match u32::from(kind) {
            kind if kind == raw::rtattr_type_t::RTA_DST as u32 => to = Some(to_ip(data, family)?),
            kind if kind == raw::rtattr_type_t::RTA_GATEWAY as u32 => gateway = Some(to_ip(data, family)?),
            kind if kind == raw::rtattr_type_t::RTA_OIF as u32 => index = to_number(data)?,
            kind if kind == raw::rtattr_type_t::RTA_PRIORITY as u32 => metric = Some(to_number(data)?),
            kind if kind == raw::rtattr_type_t::RTA_TABLE as u32 => table = to_number(data)?,
            // Whether it is there or not, a route that goes says only what it is to.
            _ if !adds => {}
            _ => return Err(Errno::EOPNOTSUPP),
        }
    }
    let none = if family == INET { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let to = Cidr { ip: to.unwrap_or(none), prefix: head.to };
    let width = if family == INET { 32 } else { 128 };
    unless(head.to <= width && (family == INET6 || to.network() == to.ip), Errno::EINVAL)?;
    let to = Cidr { ip: to.network(), ..to };
    unless(table == 0 || table == TABLE_MAIN.into(), Errno::EOPNOTSUPP)?;
    unless(head.tos == 0 && head.from == 0, Errno::EOPNOTSUPP)?;
    unless(head.kind == UNICAST || !adds && head.kind == 0, Errno::EOPNOTSUPP)?;
    Ok(Wanted { to, gateway, index, metric, protocol: head.protocol })
}

fn set_route(request: &Request<'_>, family: u8) -> Result<()> {
    let wanted = parse_route(request, family)?;
    if u32::from(request.header.kind) == DEL_ROUTE {
        return change::forget_route(&wanted);
    }
    change::add_route(&wanted, |flag| request.has(flag))
}
