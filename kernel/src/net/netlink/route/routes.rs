//! RTM_GETROUTE: the routes, and the one that a packet would take.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use linux_raw_sys::netlink as raw;
use zerocopy::IntoBytes;

use super::address::family_of;
use super::{Cursor, INET, INET6, List, NEW_ROUTE, RouteHead, must_be_zero};
use crate::errno::{Errno, Result};
use crate::net::interface::{self, LOOPBACK_INDEX, Route, TABLE_LOCAL, TABLE_MAIN};
use crate::net::netlink::message::{Attributes, Request, Writer};

const HEAD: usize = size_of::<RouteHead>();
const CLONED: u32 = raw::RTM_F_CLONED;
/// RTCF_LOCAL.
const LOCAL: u32 = 1 << 31;
const TABLES: [u32; 3] = [TABLE_MAIN as u32, TABLE_LOCAL as u32, raw::rt_class_t::RT_TABLE_DEFAULT as u32];

pub fn list(request: &Request<'_>, family: u8) -> Result<List> {
    let mut list = List::new(fill, family);
    let Ok(head) = request.head::<RouteHead>() else {
        return if request.strict { Err(Errno::EINVAL) } else { Ok(list) };
    };
    if request.strict {
        must_be_zero(request, &[head.to.into(), head.from.into(), head.tos.into(), head.flags & !CLONED])?;
        (list.table, list.protocol, list.kind) = (head.table.into(), head.protocol, head.kind);
        for (kind, data) in request.attributes(HEAD) {
            let number = data.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)).ok_or(Errno::EINVAL)?;
            match u32::from(kind) {
                kind if kind == raw::rtattr_type_t::RTA_TABLE as u32 => list.table = number,
                kind if kind == raw::rtattr_type_t::RTA_OIF as u32 => {
                    super::find(number)?;
                    list.index = number;
                    list.flags |= super::FILTERED;
                }
                _ => return Err(Errno::EINVAL),
            }
        }
        if list.table | u32::from(list.protocol) | u32::from(list.kind) != 0 {
            list.flags |= super::FILTERED;
        }
        if list.table != 0 && !TABLES.contains(&list.table) && matches!(family, INET | INET6) {
            list.errno = Some(Errno::ENOENT);
        }
    }
    if head.flags & CLONED != 0 {
        // What was learnt about single destinations: nothing is.
        list.table = u32::MAX;
    }
    Ok(list)
}

fn fill(list: &List, cursor: &mut Cursor<'_>) {
    let all = interface::routes();
    for family in [INET, INET6].into_iter().filter(|family| list.wants(*family)) {
        for route in all.iter().filter(|route| family_of(route.to.ip) == family) {
            let wanted = (list.table == 0 || list.table == u32::from(route.table))
                && (list.protocol == 0 || list.protocol == route.protocol)
                && (list.kind == 0 || list.kind == route.kind)
                && (list.index == 0 || list.index == route.index);
            if wanted && cursor.next() {
                write(cursor.out, NEW_ROUTE, list.flags, route);
                cursor.end();
            }
        }
    }
}

pub fn write(out: &mut Writer, kind: u32, flags: u32, route: &Route) {
    let Route { table, protocol, scope, kind: sort, .. } = *route;
    let family = family_of(route.to.ip);
    let head = RouteHead { family, to: route.to.prefix, from: 0, tos: 0, table, protocol, scope, kind: sort, flags: 0 };
    out.begin(kind, flags, head.as_bytes());
    put(out, route);
}

fn put(out: &mut Writer, route: &Route) {
    out.number(raw::rtattr_type_t::RTA_TABLE as u32, route.table.into());
    if route.to.prefix != 0 {
        out.ip(raw::rtattr_type_t::RTA_DST as u32, route.to.ip);
    }
    if route.metric != 0 || route.to.ip.is_ipv6() {
        out.number(raw::rtattr_type_t::RTA_PRIORITY as u32, route.metric);
    }
    if let Some(source) = route.source {
        out.ip(raw::rtattr_type_t::RTA_PREFSRC as u32, source);
    }
    if let Some(gateway) = route.gateway {
        out.ip(raw::rtattr_type_t::RTA_GATEWAY as u32, gateway);
    }
    out.number(raw::rtattr_type_t::RTA_OIF as u32, route.index);
}

/// `struct rtmsg` and its attributes, as far as they are known here.
fn parse<'a>(request: &Request<'a>) -> Result<(RouteHead, Attributes<'a>)> {
    Ok((request.head::<RouteHead>()?, request.attributes(HEAD)))
}

/// The way of a packet.
pub fn answer(request: &Request<'_>, family: u8, out: &mut Writer) -> Result<()> {
    let (head, given) = parse(request)?;
    let none: IpAddr = if family == INET { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let to = given.address(raw::rtattr_type_t::RTA_DST as u16, family)?.unwrap_or(none);
    let from = given.address(raw::rtattr_type_t::RTA_SRC as u16, family)?;
    let wanted = given.number(raw::rtattr_type_t::RTA_OIF as u16)?.unwrap_or(0);
    if given.number(raw::rtattr_type_t::RTA_IIF as u16)?.unwrap_or(0) != 0 {
        // Nothing is forwarded.
        return Err(Errno::EOPNOTSUPP);
    }
    if from.is_some_and(|from| !from.is_unspecified() && !interface::is_local(from)) {
        return Err(Errno::ENETUNREACH);
    }
    let source = interface::source_for(to)?;
    let port = interface::port_for(to)?;
    let index = port.as_ref().map_or(LOOPBACK_INDEX, |port| port.index()) as u32;
    if wanted != 0 && wanted != index {
        return Err(Errno::ENETUNREACH);
    }
    let gateway = port.as_ref().and_then(|port| port.with_settings(|settings| settings.next_hop(to)));
    let kind = match &port {
        None => raw::RTN_LOCAL,
        Some(_) if to.is_multicast() => raw::RTN_MULTICAST,
        Some(port) if port.is_broadcast(to) => raw::RTN_BROADCAST,
        Some(_) => raw::RTN_UNICAST,
    };
    let local = port.is_none();
    let route = Route {
        to: crate::net::card::Cidr { ip: to, prefix: if family == INET { 32 } else { 128 } },
        index,
        // As on Linux without rules of programs, which looks into both at once.
        table: TABLE_MAIN,
        protocol: 0,
        scope: 0,
        kind: kind as u8,
        gateway: gateway.filter(|gateway| *gateway != to),
        source: from.filter(|from| !from.is_unspecified()).or(Some(source)),
        metric: 0,
    };
    let flags = CLONED | if local { LOCAL } else { 0 };
    let Route { table, kind, .. } = route;
    let head =
        RouteHead { family, to: route.to.prefix, from: 0, tos: head.tos, table, protocol: 0, scope: 0, kind, flags };
    out.begin(NEW_ROUTE, 0, head.as_bytes());
    put(out, &route);
    out.end();
    Ok(())
}
