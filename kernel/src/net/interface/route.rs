//! The routes that follow from the addresses and gateways of interfaces, as Linux shows them.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use linux_raw_sys::netlink as raw;

use super::device::{LOOPBACK_INDEX, devices};
use crate::net::card::{Cidr, Settings};

/// RT_TABLE_*.
pub const TABLE_MAIN: u8 = raw::rt_class_t::RT_TABLE_MAIN as u8;
pub const TABLE_LOCAL: u8 = raw::rt_class_t::RT_TABLE_LOCAL as u8;
/// RTPROT_*.
const BY_KERNEL: u8 = raw::RTPROT_KERNEL as u8;
const BY_BOOT: u8 = raw::RTPROT_BOOT as u8;
const BY_ROUTER: u8 = raw::RTPROT_RA as u8;
/// RT_SCOPE_*.
const LINK: u8 = raw::rt_scope_t::RT_SCOPE_LINK as u8;
const HOST: u8 = raw::rt_scope_t::RT_SCOPE_HOST as u8;
/// Metrics of IPv6: what the kernel and what routers have said.
const METRIC6: u32 = 256;
const METRIC_ROUTER: u32 = 1024;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    pub to: Cidr,
    pub index: u32,
    /// RT_TABLE_*, RTPROT_*, RT_SCOPE_*, RTN_*.
    pub table: u8,
    pub protocol: u8,
    pub scope: u8,
    pub kind: u8,
    pub gateway: Option<IpAddr>,
    pub source: Option<IpAddr>,
    /// 0: none.
    pub metric: u32,
}

impl Route {
    fn new(index: u32, ip: IpAddr, prefix: u8) -> Route {
        Route {
            to: Cidr { ip, prefix },
            index,
            table: TABLE_MAIN,
            protocol: BY_KERNEL,
            scope: 0,
            kind: raw::RTN_UNICAST as u8,
            gateway: None,
            source: None,
            metric: 0,
        }
    }

    fn local(self, kind: u32, scope: u8) -> Route {
        Route { table: TABLE_LOCAL, kind: kind as u8, scope, ..self }
    }
}

/// All of them.
pub fn routes() -> Vec<Route> {
    let mut all = Vec::new();
    for device in devices().iter().filter(|device| device.up) {
        match &device.port {
            None => of_addresses(LOOPBACK_INDEX as u32, &device.addresses, &mut all),
            Some(port) => of_settings(device.index as u32, &port.settings(), &mut all),
        }
    }
    all
}

/// Those of a card with these settings.
pub fn of_settings(index: u32, settings: &Settings, all: &mut Vec<Route>) {
    all.extend(settings.routes.iter().map(|via| Route {
        gateway: Some(via.gateway),
        protocol: via.protocol,
        metric: via.metric,
        ..Route::new(index, via.to.ip, via.to.prefix)
    }));
    all.extend(settings.gateway.map(|gateway| Route {
        gateway: Some(gateway.into()),
        protocol: BY_BOOT,
        ..Route::new(index, Ipv4Addr::UNSPECIFIED.into(), 0)
    }));
    all.extend(settings.gateway6.map(|gateway| Route {
        gateway: Some(gateway.into()),
        protocol: BY_ROUTER,
        metric: METRIC_ROUTER,
        ..Route::new(index, Ipv6Addr::UNSPECIFIED.into(), 0)
    }));
    of_addresses(index, &settings.addresses, all);
}

fn of_addresses(index: u32, addresses: &[Cidr], all: &mut Vec<Route>) {
    for own in addresses {
        match own.ip {
            IpAddr::V4(ip) => add4(index, own, ip, all),
            IpAddr::V6(_) => {
                if own.prefix < 128 {
                    all.push(Route { metric: METRIC6, ..Route::new(index, own.network(), own.prefix) });
                }
                all.push(Route::new(index, own.ip, 128).local(raw::RTN_LOCAL as u32, 0));
            }
        }
    }
    if index != LOOPBACK_INDEX as u32 && addresses.iter().any(|own| own.ip.is_ipv6()) {
        let groups = Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0);
        let route = Route { metric: METRIC6, ..Route::new(index, groups.into(), 8) };
        all.push(route.local(raw::RTN_MULTICAST as u32, 0));
    }
}

fn add4(index: u32, own: &Cidr, ip: Ipv4Addr, all: &mut Vec<Route>) {
    let source = Some(own.ip);
    let network = Route { source, ..Route::new(index, (ip & own.mask()).into(), own.prefix) };
    if own.prefix < 32 {
        all.push(match index == LOOPBACK_INDEX as u32 {
            true => network.local(raw::RTN_LOCAL as u32, HOST),
            false => Route { scope: LINK, ..network },
        });
    }
    all.push(Route { source, ..Route::new(index, own.ip, 32) }.local(raw::RTN_LOCAL as u32, HOST));
    if let Some(broadcast) = own.broadcast() {
        let route = Route { source, ..Route::new(index, broadcast.into(), 32) };
        all.push(route.local(raw::RTN_BROADCAST as u32, LINK));
    }
}
