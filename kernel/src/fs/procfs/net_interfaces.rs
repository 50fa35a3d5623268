//! /proc/PID/net: what is known of interfaces, neighbours and routes (proc(5)).

use alloc::format;
use core::fmt::Write;
use core::net::{IpAddr, Ipv4Addr};
use core::sync::atomic::Ordering;

use super::net::put_padded;
use super::text::{Text, put};
use crate::exec::Instant;
use crate::net::card::solicited;
use crate::net::inet::groups::joined;
use crate::net::interface::{self, Device};

const ROUTE_HEADER: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT";
const ROUTE_WIDTH: usize = 127;
/// RTF_UP, RTF_GATEWAY.
const UP: u32 = 1;
const GATEWAY: u32 = 2;
const HOST_ROUTE: u32 = 4;
/// Scopes of IPv6 addresses: of the machine, of the link, of the site (RFC 3879), everywhere.
const HOST: u8 = 0x10;
const LINK: u8 = 0x20;
const SITE: u8 = 0x40;
const GLOBAL: u8 = 0;
/// IFA_F_PERMANENT.
const PERMANENT: u8 = 0x80;

/// MAF_LOADED, MAF_NOREPORT.
const LOADED: u32 = 4;
const NOT_REPORTED: u32 = 8;

/// What goes through the loopback is not counted: there are no packets.
pub fn devices(out: &mut Text) {
    put!(out, "Inter-|   Receive                                                |  Transmit\n");
    put!(out, " face |bytes    packets errs drop fifo frame compressed multicast");
    put!(out, "|bytes    packets errs drop fifo colls carrier compressed\n");
    for device in interface::devices() {
        let mut counted = [0; 5];
        if let Some(port) = &device.port {
            let counters = &port.counters;
            let all = [
                &counters.received_bytes,
                &counters.received,
                &counters.sent_bytes,
                &counters.sent,
                &counters.sent_dropped,
            ];
            counted = all.map(|counter| counter.load(Ordering::Relaxed));
        }
        let [received_bytes, received, sent_bytes, sent, dropped] = counted;
        put!(
            out,
            "{:>6}: {received_bytes:7} {received:7} {:4} {:4} {:4} {:5} {:10} {:9} ",
            device.name,
            0,
            0,
            0,
            0,
            0,
            0
        );
        put!(out, "{sent_bytes:8} {sent:7} {:4} {dropped:4} {:4} {:5} {:7} {:10}\n", 0, 0, 0, 0, 0);
    }
}

/// The groups of an interface, and how many are members: the machine itself always is one of some.
fn groups_of(device: &Device, v4: bool) -> impl Iterator<Item = (IpAddr, u32)> {
    // What there is no memory for is left out.
    let mut all = joined::joined_on(device.index).unwrap_or_default();
    let solicited = device.addresses.iter().filter_map(|own| match own.ip {
        IpAddr::V6(ip) => Some(IpAddr::V6(solicited(ip))),
        IpAddr::V4(_) => None,
    });
    for group in solicited.chain(joined::ALWAYS) {
        if let Some((_, users)) = all.iter_mut().find(|(other, _)| *other == group) {
            *users += 1;
        } else if all.try_reserve(1).is_ok() {
            all.push((group, 1));
        }
    }
    all.into_iter().filter(move |(group, _)| group.is_ipv4() == v4)
}

/// Nobody who asks is known, and what is still to be reported is not shown.
pub fn groups(out: &mut Text) {
    put!(out, "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n");
    for device in interface::devices() {
        let count = groups_of(&device, true).count();
        put!(out, "{}\t{:<10}: {count:5} {:>7}\n", device.index, device.name, "V3");
        for (group, users) in groups_of(&device, true) {
            let IpAddr::V4(group) = group else { continue };
            put!(out, "\t\t\t\t{:08X} {users:5} 0:00000000\t\t0\n", u32::from_ne_bytes(group.octets()));
        }
    }
}

pub fn groups6(out: &mut Text) {
    for device in interface::devices() {
        for (group, users) in groups_of(&device, false) {
            let IpAddr::V6(ip) = group else { continue };
            let stays = ip.segments()[0] & 0xf < 2;
            let is_told = !(stays || joined::ALWAYS.contains(&group));
            let flags = if is_told { 0 } else { NOT_REPORTED } | if stays { 0 } else { LOADED };
            put!(out, "{:<4} {:<15} {:032x} {users:5} {flags:08X} 0\n", device.index, device.name, ip.to_bits());
        }
    }
}

/// Address, index, length of the prefix, scope, flags, name.
pub fn addresses6(out: &mut Text) {
    for device in interface::devices() {
        for own in &device.addresses {
            let IpAddr::V6(ip) = own.ip else { continue };
            let scope = match ip {
                _ if ip.is_loopback() => HOST,
                _ if ip.is_unicast_link_local() => LINK,
                _ if ip.segments()[0] & 0xffc0 == 0xfec0 => SITE,
                _ => GLOBAL,
            };
            let flags = if matches!(scope, HOST | LINK) { PERMANENT } else { 0 };
            ip.octets().iter().for_each(|byte| put!(out, "{byte:02x}"));
            put!(out, " {:02x} {:02x} {scope:02x} {flags:02x} {:>8}\n", device.index, own.prefix, device.name);
        }
    }
}

fn word(ip: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(ip.octets())
}

/// Routes of IPv4. Those of the machine's own addresses are in the local table, which is not shown here.
pub fn routes(out: &mut Text) {
    put_padded(out, ROUTE_HEADER, ROUTE_WIDTH);
    let none = Ipv4Addr::UNSPECIFIED;
    for port in interface::cards() {
        let settings = port.settings();
        let default = settings.gateway.map(|gateway| (none, gateway, UP | GATEWAY, none, 0));
        let vias = settings.routes.iter().filter_map(|via| match (via.to.ip, via.gateway) {
            (IpAddr::V4(to), IpAddr::V4(gateway)) => {
                let host = if via.to.prefix == 32 { HOST_ROUTE } else { 0 };
                Some((to, gateway, UP | GATEWAY | host, via.to.mask(), via.metric))
            }
            _ => None,
        });
        let links = settings.addresses.iter().filter_map(|own| match own.ip {
            IpAddr::V4(ip) => Some((ip & own.mask(), none, UP, own.mask(), 0)),
            IpAddr::V6(_) => None,
        });
        for (to, gateway, flags, mask, metric) in vias.chain(default).chain(links) {
            let (name, to, gateway, mask) = (port.name(), word(to), word(gateway), word(mask));
            let line = format!("{name}\t{to:08X}\t{gateway:08X}\t{flags:04X}\t0\t0\t{metric}\t{mask:08X}\t0\t0\t0");
            put_padded(out, &line, ROUTE_WIDTH);
        }
    }
}

/// Neighbours of IPv4.
pub fn neighbours(out: &mut Text) {
    put!(out, "IP address       HW type     Flags       HW address            Mask     Device\n");
    for port in interface::cards() {
        for known in port.neighbours(Instant::now()) {
            let IpAddr::V4(ip) = known.ip else { continue };
            let mac = known.mac.map(|byte| format!("{byte:02x}")).join(":");
            put!(out, "{:<16} 0x{:<10x}0x{:<10x}{mac}     *        {}\n", format!("{ip}"), 1, 2, port.name());
        }
    }
}

/// What the kernel was told by DHCP or its command line, as Linux shows it (Documentation/admin-guide/nfs/nfsroot.rst): programs
/// read name servers from it if /etc/resolv.conf leads here.
pub fn told(out: &mut Text) {
    let mut text = alloc::string::String::new();
    for port in interface::cards() {
        let settings = port.settings();
        let how = if settings.told_by.is_some() { "#PROTO: DHCP" } else { "#MANUAL" };
        let _ = writeln!(text, "{how}");
        for server in &settings.servers {
            let _ = writeln!(text, "nameserver {server}");
        }
        if let Some(server) = settings.told_by {
            let _ = writeln!(text, "bootserver {server}");
        }
    }
    put!(out, "{text}");
}
