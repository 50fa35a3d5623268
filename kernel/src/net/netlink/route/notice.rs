//! RTNLGRP_*: what those are told who listen to changes, like `ip monitor`.

use alloc::vec::Vec;

use linux_raw_sys::netlink as raw;

use super::{DEL_ADDRESS, DEL_ROUTE, INET, NEW_ADDRESS, NEW_LINK, NEW_ROUTE, address, find, link, routes};
use crate::net::card::{Cidr, Port, Settings};
use crate::net::interface::{self, Device, Route};
use crate::net::netlink::notify;

/// The flags of an interface have changed.
pub fn tell_link(index: i32) {
    if let Ok(device) = find(index as u32) {
        notify(raw::rtnetlink_groups::RTNLGRP_LINK as u32, &mut |out| {
            link::write(out, NEW_LINK, 0, &device, u32::MAX);
        });
    }
}

fn tell_address(kind: u32, index: u32, name: &str, own: Cidr) {
    let group = match address::family_of(own.ip) {
        INET => raw::rtnetlink_groups::RTNLGRP_IPV4_IFADDR,
        _ => raw::rtnetlink_groups::RTNLGRP_IPV6_IFADDR,
    };
    notify(group as u32, &mut |out| address::write(out, kind, 0, (index, name), own));
}

/// The loopback has an address more, or one less.
pub fn tell_address_of(adds: bool, device: &Device, own: Cidr) {
    tell_address(if adds { NEW_ADDRESS } else { DEL_ADDRESS }, device.index as u32, &device.name, own);
}

fn tell_route(kind: u32, route: &Route) {
    let group = match address::family_of(route.to.ip) {
        INET => raw::rtnetlink_groups::RTNLGRP_IPV4_ROUTE,
        _ => raw::rtnetlink_groups::RTNLGRP_IPV6_ROUTE,
    };
    notify(group as u32, &mut |out| routes::write(out, kind, 0, route));
}

/// The settings of a card have changed: which addresses and routes are new, and which are gone.
pub fn tell_settings(port: &Port, before: &Settings, after: &Settings) {
    let index = port.index() as u32;
    let all = |settings: &Settings| {
        let mut all = Vec::new();
        interface::of_settings(index, settings, &mut all);
        all
    };
    let (old, new) = (all(before), all(after));
    for own in before.addresses.iter().filter(|own| !after.addresses.contains(own)) {
        tell_address(DEL_ADDRESS, index, port.name(), *own);
    }
    for own in after.addresses.iter().filter(|own| !before.addresses.contains(own)) {
        tell_address(NEW_ADDRESS, index, port.name(), *own);
    }
    old.iter().filter(|route| !new.contains(route)).for_each(|route| tell_route(DEL_ROUTE, route));
    new.iter().filter(|route| !old.contains(route)).for_each(|route| tell_route(NEW_ROUTE, route));
}
