//! RTM_NEW*, RTM_DEL*, RTM_SET*: changes of links, addresses and routes, for programs with CAP_NET_ADMIN.
//!
//! What the stack cannot do, and what the kernel has given itself, is refused with EOPNOTSUPP.

use core::net::IpAddr;

use linux_raw_sys::netlink as raw;

use super::address::{self, family_of, scope};
use super::{
    AddressHead, DEL_ADDRESS, DEL_LINK, DEL_ROUTE, INET, INET6, LinkHead, NEW_ADDRESS, NEW_LINK, NEW_ROUTE, RouteHead,
    SET_LINK, find, link, notice,
};
use crate::errno::{Errno, Result};
use crate::net::card::{Cidr, MOST_ADDRESSES, MOST_ROUTES, Port, Settings, Via};
use crate::net::interface::{self, Device, IFF_UP, LOOPBACK_ADDRESSES, QUEUE_LENGTH, TABLE_MAIN};
use crate::net::netlink::message::{Request, to_ip, to_number};
use crate::net::netlink::work::Answer;

/// More addresses than that the loopback does not get.
const MOST_OF_LOOPBACK: usize = 64;
/// IFA_F_NODAD: nothing is asked about an address anyway.
const NO_CHECK: u32 = raw::IFA_F_NODAD;
/// What IPv6 routes of programs have for a metric if none is given.
const METRIC6: u32 = 1024;
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

/// Can a machine have this address?
fn check_own(own: Cidr, device: &Device) -> Result<()> {
    let good = match own.ip {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast()),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.to_ipv4_mapped().is_some()),
    };
    let width = if own.ip.is_ipv4() { 32 } else { 128 };
    unless(own.prefix <= width, Errno::EINVAL)?;
    unless(good, if own.ip.is_ipv4() { Errno::EINVAL } else { Errno::EADDRNOTAVAIL })?;
    // The stack of a card drops what is for these.
    unless(device.is_loopback() || scope(own.ip) != raw::rt_scope_t::RT_SCOPE_HOST as u8, Errno::EOPNOTSUPP)
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
        check_own(own, &device)?;
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
    match &device.port {
        None => set_of_loopback(own, adds, replaces, &device),
        Some(port) => port.change_from_outside(&mut |settings| {
            change_list(&mut settings.addresses, own, adds, replaces, MOST_ADDRESSES)?;
            if !adds {
                settings.forget_lost();
            }
            Ok(())
        }),
    }
}

fn change_list(list: &mut alloc::vec::Vec<Cidr>, own: Cidr, adds: bool, replaces: bool, most: usize) -> Result<()> {
    let place = list.iter().position(|there| *there == own);
    match place {
        Some(_) if adds => unless(replaces, Errno::EEXIST),
        Some(place) => {
            list.remove(place);
            Ok(())
        }
        None if !adds => Err(Errno::EADDRNOTAVAIL),
        None if own.ip.is_ipv6() && list.iter().any(|there| there.ip == own.ip) => Err(Errno::EEXIST),
        None => {
            unless(list.len() < most && list.try_reserve(1).is_ok(), Errno::ENOBUFS)?;
            list.push(own);
            Ok(())
        }
    }
}

fn set_of_loopback(own: Cidr, adds: bool, replaces: bool, device: &Device) -> Result<()> {
    if LOOPBACK_ADDRESSES.contains(&own) {
        // It has these while it is up.
        return match (adds, device.up) {
            (true, true) => unless(replaces, Errno::EEXIST),
            _ => Err(Errno::EOPNOTSUPP),
        };
    }
    interface::change_loopback(&mut |list| change_list(list, own, adds, replaces, MOST_OF_LOOPBACK))?;
    let kind = if adds { NEW_ADDRESS } else { DEL_ADDRESS };
    notice::tell_address(kind, device.index as u32, &device.name, own);
    Ok(())
}

/// What a request says about a route.
struct Wanted {
    to: Cidr,
    gateway: Option<IpAddr>,
    /// The interface (0: whichever leads there).
    index: u32,
    metric: Option<u32>,
    protocol: u8,
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
    let fits = |port: &Port| wanted.index == 0 || wanted.index == port.index() as u32;
    if u32::from(request.header.kind) == DEL_ROUTE {
        let mut answer = Err(Errno::ESRCH);
        for port in interface::cards().iter().filter(|port| fits(port)) {
            answer = port.change_from_outside(&mut |settings| forget_route(settings, &wanted));
            if answer.is_ok() {
                break;
            }
        }
        return answer;
    }
    let Some(gateway) = wanted.gateway else {
        if wanted.index != 0 {
            find(wanted.index)?;
        }
        // To a network of a card: the only one there is follows from its address.
        let there = |route: &interface::Route| route.to == wanted.to && fits_index(wanted.index, route.index);
        let exists = interface::routes().iter().any(there) && request.has(raw::NLM_F_EXCL);
        return Err(if exists { Errno::EEXIST } else { Errno::EOPNOTSUPP });
    };
    let is_one = match gateway {
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unspecified(),
    };
    unless(is_one, Errno::EINVAL)?;
    let near = |port: &Port| port.with_settings(|settings| settings.is_near(gateway) && !settings.is_own(gateway));
    let port = interface::cards().into_iter().find(|port| fits(port) && near(port));
    let port = port.ok_or(Errno::ENETUNREACH)?;
    unless(port.is_up(), Errno::ENETDOWN)?;
    let metric = wanted.metric.unwrap_or(if family == INET6 { METRIC6 } else { 0 });
    let via = Via { to: wanted.to, gateway, protocol: wanted.protocol, metric };
    port.change_from_outside(&mut |settings| add_route(settings, via, request))
}

fn fits_index(wanted: u32, index: u32) -> bool {
    wanted == 0 || wanted == index
}

/// To each place there is one route.
fn add_route(settings: &mut Settings, via: Via, request: &Request<'_>) -> Result<()> {
    let everywhere = via.to.prefix == 0;
    let told = match via.to.ip {
        IpAddr::V4(_) => settings.gateway.is_some(),
        IpAddr::V6(_) => settings.gateway6.is_some(),
    };
    let exists = settings.routes.iter().any(|route| route.to == via.to)
        || settings.addresses.iter().any(|own| own.network() == via.to.ip && own.prefix == via.to.prefix)
        || everywhere && told;
    unless(!exists || !request.has(raw::NLM_F_EXCL), Errno::EEXIST)?;
    unless(!exists || request.has(raw::NLM_F_REPLACE), Errno::EOPNOTSUPP)?;
    unless(exists || request.has(raw::NLM_F_CREATE), Errno::ENOENT)?;
    settings.routes.retain(|route| route.to != via.to);
    unless(settings.routes.len() < MOST_ROUTES, Errno::ENOBUFS)?;
    if everywhere {
        forget_gateway(settings, via.to.ip);
    }
    settings.routes.push(via);
    Ok(())
}

fn forget_gateway(settings: &mut Settings, family: IpAddr) {
    match family {
        IpAddr::V4(_) => settings.gateway = None,
        IpAddr::V6(_) => settings.gateway6 = None,
    }
}

fn forget_route(settings: &mut Settings, wanted: &Wanted) -> Result<()> {
    let fits = |gateway: IpAddr| wanted.gateway.is_none_or(|wanted| wanted == gateway);
    let is_it = |route: &Via| {
        route.to == wanted.to && fits(route.gateway) && wanted.metric.is_none_or(|metric| metric == route.metric)
    };
    if let Some(place) = settings.routes.iter().position(is_it) {
        settings.routes.remove(place);
        return Ok(());
    }
    let told = match family_of(wanted.to.ip) {
        INET => settings.gateway.map(IpAddr::V4),
        _ => settings.gateway6.map(IpAddr::V6),
    };
    if wanted.to.prefix == 0 && told.is_some_and(fits) {
        forget_gateway(settings, wanted.to.ip);
        return Ok(());
    }
    // That of an address goes with it.
    let own = settings.addresses.iter().any(|own| own.network() == wanted.to.ip && own.prefix == wanted.to.prefix);
    Err(if own { Errno::EOPNOTSUPP } else { Errno::ESRCH })
}
