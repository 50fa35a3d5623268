//! Changes that programs want of addresses and routes, by netlink or with ioctls.
//!
//! What the stack cannot do, and what the kernel has given itself, is refused with EOPNOTSUPP.

use alloc::vec::Vec;
use core::net::IpAddr;

use linux_raw_sys::netlink as raw;

use super::{Device, LOOPBACK_ADDRESSES, Route};
use crate::errno::{Errno, Result};
use crate::net::card::{Cidr, MOST_ADDRESSES, MOST_ROUTES, Port, Settings, Via};
use crate::net::netlink;

/// More addresses than that the loopback does not get.
const MOST_OF_LOOPBACK: usize = 64;
/// What IPv6 routes of programs have for a metric if none is given.
const METRIC6: u32 = 1024;

fn unless(done: bool, errno: Errno) -> Result<()> {
    if done { Ok(()) } else { Err(errno) }
}

/// Can a machine have this address?
pub fn check_own(own: Cidr, device: &Device) -> Result<()> {
    let good = match own.ip {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast()),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast() || ip.to_ipv4_mapped().is_some()),
    };
    let width = if own.ip.is_ipv4() { 32 } else { 128 };
    unless(own.prefix <= width, Errno::EINVAL)?;
    unless(good, if own.ip.is_ipv4() { Errno::EINVAL } else { Errno::EADDRNOTAVAIL })?;
    // The stack of a card drops what is for these.
    unless(device.is_loopback() || !super::is_loopback(own.ip), Errno::EOPNOTSUPP)
}

/// Gives an interface an address, or takes one away. An address that is there already is an error unless it `replaces` itself.
pub fn change_address(device: &Device, own: Cidr, adds: bool, replaces: bool) -> Result<()> {
    match &device.port {
        None => set_of_loopback(own, adds, replaces, device),
        Some(port) => port.change_from_outside(&mut |settings| {
            change_list(&mut settings.addresses, own, adds, replaces, MOST_ADDRESSES)?;
            if !adds {
                settings.forget_lost();
            }
            Ok(())
        }),
    }
}

/// Another IPv4 address takes the place of the first one of an interface, or none does.
pub fn exchange_address(device: &Device, old: Option<Cidr>, new: Option<Cidr>) -> Result<()> {
    if let Some(new) = new {
        check_own(new, device)?;
    }
    let Some(port) = &device.port else {
        // It has its own while it is up.
        return unless(new == LOOPBACK_ADDRESSES.first().copied(), Errno::EOPNOTSUPP);
    };
    port.change_from_outside(&mut |settings| {
        let list = &mut settings.addresses;
        let place = list.iter().position(|there| Some(*there) == old);
        if let Some(place) = place {
            list.remove(place);
        }
        if let Some(new) = new {
            change_list(list, new, true, false, MOST_ADDRESSES)?;
        }
        settings.forget_lost();
        Ok(())
    })
}

fn change_list(list: &mut Vec<Cidr>, own: Cidr, adds: bool, replaces: bool, most: usize) -> Result<()> {
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
    super::change_loopback(&mut |list| change_list(list, own, adds, replaces, MOST_OF_LOOPBACK))?;
    netlink::tell_address_of(adds, device, own);
    Ok(())
}

/// What is said about a route.
pub struct Wanted {
    pub to: Cidr,
    pub gateway: Option<IpAddr>,
    /// The interface (0: whichever leads there).
    pub index: u32,
    pub metric: Option<u32>,
    pub protocol: u8,
}

/// Adds a route of which `asks` says how: NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE.
pub fn add_route(wanted: &Wanted, asks: impl Fn(u32) -> bool) -> Result<()> {
    let fits = |index: u32| wanted.index == 0 || wanted.index == index;
    let Some(gateway) = wanted.gateway else {
        unless(super::devices().iter().any(|device| fits(device.index as u32)), Errno::ENODEV)?;
        // To a network of a card: the only one there is follows from its address.
        let there = |route: &Route| route.to == wanted.to && fits(route.index);
        let exists = super::routes().iter().any(there) && asks(raw::NLM_F_EXCL);
        return Err(if exists { Errno::EEXIST } else { Errno::EOPNOTSUPP });
    };
    let is_one = match gateway {
        IpAddr::V4(ip) => !ip.is_multicast() && !ip.is_broadcast() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_multicast() && !ip.is_unspecified(),
    };
    unless(is_one, Errno::EINVAL)?;
    let near = |port: &Port| port.with_settings(|settings| settings.is_near(gateway) && !settings.is_own(gateway));
    let port = super::cards().into_iter().find(|port| fits(port.index() as u32) && near(port));
    let port = port.ok_or(Errno::ENETUNREACH)?;
    unless(port.is_up(), Errno::ENETDOWN)?;
    let metric = wanted.metric.unwrap_or(if gateway.is_ipv6() { METRIC6 } else { 0 });
    let via = Via { to: wanted.to, gateway, protocol: wanted.protocol, metric };
    port.change_from_outside(&mut |settings| put_route(settings, via, &asks))
}

/// ESRCH: there is no such route.
pub fn forget_route(wanted: &Wanted) -> Result<()> {
    let mut answer = Err(Errno::ESRCH);
    for port in super::cards().iter().filter(|port| wanted.index == 0 || wanted.index == port.index() as u32) {
        answer = port.change_from_outside(&mut |settings| take_route(settings, wanted));
        if answer.is_ok() {
            break;
        }
    }
    answer
}

/// To each place there is one route.
fn put_route(settings: &mut Settings, via: Via, asks: &impl Fn(u32) -> bool) -> Result<()> {
    let everywhere = via.to.prefix == 0;
    let told = match via.to.ip {
        IpAddr::V4(_) => settings.gateway.is_some(),
        IpAddr::V6(_) => settings.gateway6.is_some(),
    };
    let exists = settings.routes.iter().any(|route| route.to == via.to)
        || settings.addresses.iter().any(|own| own.network() == via.to.ip && own.prefix == via.to.prefix)
        || everywhere && told;
    unless(!exists || !asks(raw::NLM_F_EXCL), Errno::EEXIST)?;
    unless(!exists || asks(raw::NLM_F_REPLACE), Errno::EOPNOTSUPP)?;
    unless(exists || asks(raw::NLM_F_CREATE), Errno::ENOENT)?;
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

fn take_route(settings: &mut Settings, wanted: &Wanted) -> Result<()> {
    let fits = |gateway: IpAddr| wanted.gateway.is_none_or(|wanted| wanted == gateway);
    let is_it = |route: &Via| {
        route.to == wanted.to && fits(route.gateway) && wanted.metric.is_none_or(|metric| metric == route.metric)
    };
    if let Some(place) = settings.routes.iter().position(is_it) {
        settings.routes.remove(place);
        return Ok(());
    }
    let told = match wanted.to.ip {
        IpAddr::V4(_) => settings.gateway.map(IpAddr::V4),
        IpAddr::V6(_) => settings.gateway6.map(IpAddr::V6),
    };
    if wanted.to.prefix == 0 && told.is_some_and(fits) {
        forget_gateway(settings, wanted.to.ip);
        return Ok(());
    }
    // That of an address goes with it.
    let own = settings.addresses.iter().any(|own| own.network() == wanted.to.ip && own.prefix == wanted.to.prefix);
    Err(if own { Errno::EOPNOTSUPP } else { Errno::ESRCH })
}
