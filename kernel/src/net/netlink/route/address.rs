//! RTM_GETADDR: the addresses of interfaces.

use core::net::IpAddr;

use linux_raw_sys::netlink as raw;
use zerocopy::IntoBytes;

use super::{AddressHead, Cursor, FILTERED, INET, INET6, Lifetimes, List, NEW_ADDRESS, find, must_be_zero};
use crate::errno::{Errno, Result};
use crate::net::card::Cidr;
use crate::net::interface::{self, LOOPBACK_INDEX};
use crate::net::netlink::message::{Request, Writer};

pub const HEAD: usize = size_of::<AddressHead>();
const FOREVER: u32 = u32::MAX;
/// IFAPROT_KERNEL_*: why the kernel has given the address.
const FROM_LOOPBACK: u8 = 1;
const FROM_ROUTER: u8 = 2;
const FROM_LINK: u8 = 3;

pub fn list(request: &Request<'_>, family: u8) -> Result<List> {
    let mut list = List::new(fill, family);
    if request.strict {
        let head = request.head::<AddressHead>()?;
        must_be_zero(request, &[head.prefix.into(), head.flags.into(), head.scope.into()])?;
        if request.attributes(HEAD).next().is_some() {
            return Err(Errno::EINVAL);
        }
        if head.index != 0 {
            list.index = head.index;
            list.flags |= FILTERED;
            list.errno = find(head.index).err();
        }
    }
    Ok(list)
}

pub fn family_of(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { INET } else { INET6 }
}

fn fill(list: &List, cursor: &mut Cursor<'_>) {
    let devices = interface::devices();
    for family in [INET, INET6].into_iter().filter(|family| list.wants(*family)) {
        for device in devices.iter().filter(|device| list.index == 0 || device.index as u32 == list.index) {
            for own in device.addresses.iter().filter(|own| family_of(own.ip) == family) {
                if cursor.next() {
                    write(cursor.out, NEW_ADDRESS, list.flags, (device.index as u32, &device.name), *own);
                    cursor.end();
                }
            }
        }
    }
}

/// One address of IPv6.
pub fn answer(request: &Request<'_>, out: &mut Writer) -> Result<()> {
    let head = request.head::<AddressHead>()?;
    let attributes = request.attributes(HEAD);
    let given = attributes.address(raw::IFA_LOCAL as u16, INET6)?;
    let ip = given.or(attributes.address(raw::IFA_ADDRESS as u16, INET6)?).ok_or(Errno::EINVAL)?;
    for device in interface::devices() {
        if head.index != 0 && head.index != device.index as u32 {
            continue;
        }
        if let Some(own) = device.addresses.iter().find(|own| own.ip == ip) {
            write(out, NEW_ADDRESS, 0, (device.index as u32, &device.name), *own);
            out.end();
            return Ok(());
        }
    }
    Err(Errno::EADDRNOTAVAIL)
}

/// RT_SCOPE_*.
pub fn scope(ip: IpAddr) -> u8 {
    let scope = match ip {
        IpAddr::V4(ip) if ip.is_loopback() => raw::rt_scope_t::RT_SCOPE_HOST,
        IpAddr::V6(ip) if ip.is_loopback() => raw::rt_scope_t::RT_SCOPE_HOST,
        IpAddr::V6(ip) if ip.is_unicast_link_local() => raw::rt_scope_t::RT_SCOPE_LINK,
        _ => raw::rt_scope_t::RT_SCOPE_UNIVERSE,
    };
    scope as u8
}

/// An address of the interface with this index and name.
pub fn write(out: &mut Writer, kind: u32, flags: u32, (index, name): (u32, &str), own: Cidr) {
    let scope = scope(own.ip);
    // What a router has advertised can go again.
    let permanent = own.ip.is_ipv4() || scope != raw::rt_scope_t::RT_SCOPE_UNIVERSE as u8;
    let bits = if permanent { raw::IFA_F_PERMANENT } else { 0 };
    let head = AddressHead { family: family_of(own.ip), prefix: own.prefix, flags: bits as u8, scope, index };
    out.begin(kind, flags, head.as_bytes());
    out.ip(raw::IFA_ADDRESS as u32, own.ip);
    if own.ip.is_ipv4() {
        out.ip(raw::IFA_LOCAL as u32, own.ip);
        if let Some(broadcast) = own.broadcast().filter(|_| index != LOOPBACK_INDEX as u32) {
            out.ip(raw::IFA_BROADCAST as u32, broadcast.into());
        }
        out.text(raw::IFA_LABEL as u32, name);
    }
    out.number(raw::IFA_FLAGS as u32, bits);
    if own.ip.is_ipv6() {
        let from = match own.ip {
            ip if ip.is_loopback() => FROM_LOOPBACK,
            _ if permanent => FROM_LINK,
            _ => FROM_ROUTER,
        };
        out.byte(raw::IFA_PROTO as u32, from);
    }
    let lifetimes = Lifetimes { preferred: FOREVER, valid: FOREVER, created: 0, updated: 0 };
    out.attribute(raw::IFA_CACHEINFO as u32, lifetimes.as_bytes());
}
