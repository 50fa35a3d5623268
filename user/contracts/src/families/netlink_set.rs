//! Changes of the loopback: rtnetlink(7).

use std::net::Ipv4Addr;

use libc::*;

use crate::inet;
use crate::netlink::*;
use crate::sys::sys;
use crate::{process, say, tests};

tests! {
    add_address, of_ip6, wrong_addresses, usable, down_and_up, other_links, wrong_routes, gone_routes, told, told_of_links, not_allowed,
}

const CREATE: i32 = NLM_F_CREATE | NLM_F_EXCL;
const REPLACE: i32 = NLM_F_CREATE | NLM_F_REPLACE;
const NEW_ADDRESS: u16 = RTM_NEWADDR;
const DEL_ADDRESS: u16 = RTM_DELADDR;
const IFADDR_GROUP: i32 = 5;
const LINK_GROUP: i32 = 1;

fn address_of(family: i32, ip: &[u8], prefix: u8) -> Vec<u8> {
    let mut body = address_head(family, prefix, LO);
    body.extend(attribute(IFA_LOCAL, ip));
    body
}

fn own(last: u8) -> Vec<u8> {
    address_of(AF_INET, &[10, 77, 1, last], 24)
}

fn listed(fd: i32, family: i32, ip: &[u8]) -> usize {
    let answers = ask(fd, &message(RTM_GETADDR, DUMP, &address_head(family, 0, 0)));
    answers.iter().filter(|answer| answer.attribute(8, IFA_ADDRESS).as_deref() == Some(ip)).count()
}

fn add_address() {
    let fd = route();
    let there = || listed(fd, AF_INET, &[10, 77, 1, 1]);
    say!("add: {} {}", outcome(fd, NEW_ADDRESS, CREATE, &own(1)), there());
    say!("again: {} {}", outcome(fd, NEW_ADDRESS, CREATE, &own(1)), there());
    say!("replace: {} {}", outcome(fd, NEW_ADDRESS, REPLACE, &own(1)), there());
    let other = address_of(AF_INET, &[10, 77, 1, 1], 16);
    say!("with another prefix: {} {}", outcome(fd, NEW_ADDRESS, CREATE, &other), there());
    say!("remove: {} {}", outcome(fd, DEL_ADDRESS, 0, &other), there());
    say!("remove: {} {}", outcome(fd, DEL_ADDRESS, 0, &own(1)), there());
    say!("remove again: {}", outcome(fd, DEL_ADDRESS, 0, &own(1)));
}

fn of_ip6() {
    let fd = route();
    let ip = [0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let body = address_of(AF_INET6, &ip, 64);
    say!("add: {} {}", outcome(fd, NEW_ADDRESS, CREATE, &body), listed(fd, AF_INET6, &ip));
    say!("again: {}", outcome(fd, NEW_ADDRESS, CREATE, &body));
    say!("another prefix: {}", outcome(fd, NEW_ADDRESS, CREATE, &address_of(AF_INET6, &ip, 128)));
    say!("remove: {} {}", outcome(fd, DEL_ADDRESS, 0, &body), listed(fd, AF_INET6, &ip));
    say!("remove again: {}", outcome(fd, DEL_ADDRESS, 0, &body));
    say!("of all: {}", outcome(fd, NEW_ADDRESS, CREATE, &address_of(AF_INET6, &[0xff; 16], 64)));
    say!("none: {}", outcome(fd, NEW_ADDRESS, CREATE, &address_of(AF_INET6, &[0; 16], 64)));
}

fn wrong_addresses() {
    let fd = route();
    say!("a prefix: {}", outcome(fd, NEW_ADDRESS, CREATE, &address_of(AF_INET, &[10, 77, 1, 1], 33)));
    say!("no address: {}", outcome(fd, NEW_ADDRESS, CREATE, &address_head(AF_INET, 24, LO)));
    say!("short: {}", outcome(fd, NEW_ADDRESS, CREATE, &address_of(AF_INET, &[10, 77], 24)));
    let mut body = own(1);
    body[4..8].copy_from_slice(&4711u32.to_ne_bytes());
    say!("no link: {} {}", outcome(fd, NEW_ADDRESS, CREATE, &body), outcome(fd, DEL_ADDRESS, 0, &body));
    say!("a family: {}", outcome(fd, NEW_ADDRESS, CREATE, &address_of(AF_UNIX, &[10, 77, 1, 1], 24)));
    say!("head only: {}", outcome(fd, NEW_ADDRESS, CREATE, &[AF_INET as u8, 24]));
    say!("there already: {}", outcome(fd, NEW_ADDRESS, CREATE, &address_of(AF_INET, &[127, 0, 0, 1], 8)));
}

/// A whole network of IPv4 is the machine's then.
fn usable() {
    let fd = route();
    let ip = |last: u8| u32::from(Ipv4Addr::new(10, 77, 1, last));
    say!("before: {}", inet::bind(inet::socket(SOCK_STREAM), ip(9), 0));
    outcome(fd, NEW_ADDRESS, CREATE, &own(1));
    let listener = inet::socket(SOCK_STREAM);
    say!("bind: {} {}", inet::bind(listener, ip(9), 0), inet::own_name(listener));
    inet::listen(listener, 1).need();
    let client = inet::socket(SOCK_STREAM);
    say!("connect: {} {}", inet::connect(client, ip(9), inet::port(listener)), inet::peer_name(client));
    outcome(fd, DEL_ADDRESS, 0, &own(1));
    say!("after: {}", inet::bind(inet::socket(SOCK_STREAM), ip(9), 0));
}

fn flags(fd: i32) -> u32 {
    let answers = ask(fd, &message(RTM_GETLINK, REQUEST, &link_head(LO, 0, 0)));
    answers.first().map_or(0, |link| u32::from_ne_bytes(link.body[8..12].try_into().unwrap_or_default()))
}

fn down_and_up() {
    let fd = route();
    let set = |kind: u16, flags: i32| outcome(fd, kind, 0, &link_head(LO, flags as u32, IFF_UP as u32));
    say!("{:x}", flags(fd));
    say!("down: {} {:x}", set(RTM_NEWLINK, 0), flags(fd));
    say!("up: {} {:x}", set(RTM_SETLINK, IFF_UP), flags(fd));
    say!("nothing: {}", outcome(fd, RTM_NEWLINK, 0, &link_head(LO, 0, 0)));
    let mut body = link_head(0, 0, 0);
    body.extend(attribute(IFLA_IFNAME, b"lo\0"));
    say!("by name: {}", outcome(fd, RTM_NEWLINK, 0, &body));
    let mut body = link_head(LO, 0, 0);
    body.extend(attribute(IFLA_MTU, &65_536u32.to_ne_bytes()));
    say!("the same mtu: {}", outcome(fd, RTM_NEWLINK, 0, &body));
}

fn other_links() {
    let fd = route();
    say!("index: {}", outcome(fd, RTM_NEWLINK, 0, &link_head(4711, 0, 0)));
    say!(
        "none: {} {}",
        outcome(fd, RTM_NEWLINK, 0, &link_head(0, 0, 0)),
        outcome(fd, RTM_SETLINK, 0, &link_head(0, 0, 0))
    );
    let mut named = link_head(0, 0, 0);
    named.extend(attribute(IFLA_IFNAME, b"nosuch\0"));
    say!("name: {} {}", outcome(fd, RTM_NEWLINK, 0, &named), outcome(fd, RTM_SETLINK, 0, &named));
    say!("a new one: {}", outcome(fd, RTM_NEWLINK, CREATE, &named));
    say!("there already: {}", outcome(fd, RTM_NEWLINK, CREATE, &link_head(LO, 0, 0)));
    say!(
        "remove: {} {}",
        outcome(fd, RTM_DELLINK, 0, &link_head(LO, 0, 0)),
        outcome(fd, RTM_DELLINK, 0, &link_head(4711, 0, 0))
    );
}

fn route_to(ip: [u8; 4], prefix: u8, gateway: Option<[u8; 4]>, index: u32) -> Vec<u8> {
    let mut body = route_head(AF_INET, prefix, RT_TABLE_MAIN, 4, 0, RTN_UNICAST);
    if prefix != 0 {
        body.extend(attribute(RTA_DST, &ip));
    }
    if let Some(gateway) = gateway {
        body.extend(attribute(RTA_GATEWAY, &gateway));
    }
    if index != 0 {
        body.extend(attribute(RTA_OIF, &index.to_ne_bytes()));
    }
    body
}

fn wrong_routes() {
    let fd = route();
    let add = |body: &[u8]| outcome(fd, RTM_NEWROUTE, CREATE, body);
    say!("a gateway: {}", add(&route_to([10, 99, 0, 0], 16, Some([203, 0, 113, 1]), 0)));
    say!("a link: {}", add(&route_to([10, 99, 0, 0], 16, Some([203, 0, 113, 1]), 4711)));
    say!("a prefix: {}", add(&route_to([10, 99, 0, 0], 33, Some([203, 0, 113, 1]), 0)));
    say!("bits: {}", add(&route_to([10, 99, 0, 1], 16, Some([203, 0, 113, 1]), 0)));
    say!("short: {}", add(&[AF_INET as u8, 0, 0, 0]));
}

fn gone_routes() {
    let fd = route();
    let remove = |body: &[u8]| outcome(fd, RTM_DELROUTE, 0, body);
    say!("{}", remove(&route_to([10, 99, 0, 0], 16, None, 0)));
    say!("{}", remove(&route_to([10, 99, 0, 0], 16, Some([203, 0, 113, 1]), 0)));
    say!("a link: {}", remove(&route_to([10, 99, 0, 0], 16, None, 4711)));
}

fn told() {
    let (fd, listener) = (route(), route());
    set(listener, NETLINK_ADD_MEMBERSHIP, IFADDR_GROUP).need();
    outcome(fd, NEW_ADDRESS, CREATE, &own(2));
    outcome(fd, DEL_ADDRESS, 0, &own(2));
    say!("without a port: {}", all(listener).len());
    sys!(SYS_bind, listener, &address(0, 1 << (IFADDR_GROUP - 1)), 12).need();
    outcome(fd, NEW_ADDRESS, CREATE, &own(2));
    outcome(fd, DEL_ADDRESS, 0, &own(2));
    let mut from = [0u32; 3];
    let (mut bytes, mut length) = (vec![0u8; 4096], 12);
    let mut parts = Vec::new();
    loop {
        let at = bytes.as_mut_slice().as_ptr();
        let ret = sys!(SYS_recvfrom, listener, at, 4096, MSG_DONTWAIT, &mut from, &mut length);
        if !ret.ok() {
            break;
        }
        for news in split(&bytes[..ret.0 as usize]) {
            let ip = news.attribute(8, IFA_LOCAL);
            parts.push(format!("{} {:x} {:?} from {} {:x}", news.kind, news.flags, ip, from[1], from[2]));
        }
    }
    parts.iter().for_each(|part| say!("{part}"));
}

fn told_of_links() {
    let (fd, listener) = (route(), route());
    sys!(SYS_bind, listener, &address(0, 1 << (LINK_GROUP - 1)), 12).need();
    outcome(fd, RTM_NEWLINK, 0, &link_head(LO, 0, IFF_UP as u32));
    outcome(fd, RTM_NEWLINK, 0, &link_head(LO, IFF_UP as u32, IFF_UP as u32));
    let up = |link: &Message| u32::from(link.body[8]) & IFF_UP as u32;
    say!("{:?}", all(listener).iter().map(|link| (link.kind, up(link))).collect::<Vec<_>>());
}

fn not_allowed() {
    process::as_plain_user(|| {
        let fd = route();
        say!("{}", outcome(fd, NEW_ADDRESS, CREATE, &own(1)));
        say!("{}", outcome(fd, RTM_NEWROUTE, CREATE, &route_to([10, 99, 0, 0], 16, None, LO)));
        say!("{}", outcome(fd, RTM_NEWLINK, 0, &link_head(LO, 0, IFF_UP as u32)));
        say!("{}", outcome(fd, RTM_DELLINK, 0, &link_head(4711, 0, 0)));
    });
    // A socket of somebody who may, used by one who may not.
    let fd = route();
    process::as_plain_user(|| say!("handed on: {}", outcome(fd, RTM_NEWLINK, 0, &link_head(LO, 0, IFF_UP as u32))));
}
