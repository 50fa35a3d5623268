//! Groups: who hears what, and what the network is told.

use core::net::Ipv6Addr;

use linux_raw_sys::net as raw;

use super::super::configure::Method;
use super::super::{Cidr, Settings};
use super::hostile::{THEIR_MAC, datagram, packet};
use super::*;
use crate::net::inet::AF_INET6;
use crate::net::inet::ip::packet::{checksum, pseudo_checksum};

pub(super) const GROUP: Ipv4Addr = Ipv4Addr::new(239, 77, 0, 9);
pub(super) const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0x77, 9);
const NEAR: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
pub(super) const THERE: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
pub(super) const SOL_IP: u32 = 0;
pub(super) const SOL_IPV6: u32 = 41;

pub(super) fn index(net: &Net) -> i32 {
    interface::port_of(net.own).unwrap().index()
}

/// A card with addresses of both families.
pub(super) fn net(seed: u64) -> Net {
    let near = Cidr { ip: NEAR.into(), prefix: 64 };
    let net = Net::with(seed, Faults::default(), |own| {
        Method::Static(Settings { addresses: vec![own.cidr(), near], ..Settings::default() })
    });
    let mut net = net;
    net.pass(Duration::from_millis(10));
    net.kept = Some(Vec::new());
    net
}

pub(super) fn listening(family: u16) -> (alloc::sync::Arc<UdpSocket>, u16) {
    let socket = UdpSocket::new(family);
    socket.bind_as(0, Endpoint::any(family)).unwrap();
    let name = socket.local_address();
    (socket, u16::from_be_bytes([name[2], name[3]]))
}

pub(super) fn request(net: &Net) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&GROUP.octets());
    bytes[8..].copy_from_slice(&index(net).to_ne_bytes());
    bytes
}

fn request6(net: &Net) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..16].copy_from_slice(&GROUP6.octets());
    bytes[16..].copy_from_slice(&index(net).to_ne_bytes());
    bytes
}

/// The messages of IGMP and MLD that were sent: to whom, and what.
pub(super) fn told(net: &mut Net) -> Vec<(IpAddr, Vec<u8>)> {
    let frames = net.kept.replace(Vec::new()).unwrap();
    frames.iter().filter_map(|frame| message(frame)).collect()
}

fn message(frame: &[u8]) -> Option<(IpAddr, Vec<u8>)> {
    let packet = &frame[14..];
    match frame[12..14] {
        [8, 0] if packet[9] == 2 => {
            assert_eq!((packet[0], packet[8], checksum(&[&packet[..24]])), (0x46, 1, 0));
            assert_eq!(packet[20..24], [0x94, 4, 0, 0]);
            assert_eq!(frame[..4], [1, 0, 0x5e, packet[17] & 0x7f]);
            assert_eq!(checksum(&[&packet[24..]]), 0);
            let to = Ipv4Addr::new(packet[16], packet[17], packet[18], packet[19]);
            Some((to.into(), packet[24..].to_vec()))
        }
        [0x86, 0xdd] if packet[6] == 0 => {
            let ends = [8, 24].map(|at| IpAddr::from(*packet[at..].first_chunk::<16>().unwrap()));
            assert_eq!((packet[7], &packet[40..48]), (1, &[58, 0, 5, 2, 0, 0, 1, 0][..]));
            assert_eq!((&frame[..2], &frame[2..6]), (&[0x33, 0x33][..], &packet[36..40]));
            assert_eq!(pseudo_checksum(ends[0], ends[1], 58, &packet[48..]), 0);
            assert_eq!(ends[0], IpAddr::V6(NEAR));
            Some((ends[1], packet[48..].to_vec()))
        }
        _ => None,
    }
}

fn report(record: u8) -> Vec<u8> {
    let [a, b, c, d] = GROUP.octets();
    vec![0x22, 0, 0, 0, 0, 0, 0, 1, record, 0, 0, 0, a, b, c, d]
}

fn report6(record: u8) -> Vec<u8> {
    [&[143, 0, 0, 0, 0, 0, 0, 1, record, 0, 0, 0][..], &GROUP6.octets()].concat()
}

pub(super) fn without_sum(messages: Vec<(IpAddr, Vec<u8>)>) -> Vec<(IpAddr, Vec<u8>)> {
    let clear = |(to, mut bytes): (IpAddr, Vec<u8>)| {
        bytes[2..4].fill(0);
        (to, bytes)
    };
    messages.into_iter().map(clear).collect()
}

pub(super) fn ask(net: &Net, to: Ipv4Addr, question: Vec<u8>) {
    ask_as(net, net.machine(2), to, question);
}

pub(super) fn ask_as(net: &Net, from: Ipv4Addr, to: Ipv4Addr, mut question: Vec<u8>) {
    let sum = checksum(&[&question]);
    question[2..4].copy_from_slice(&sum.to_be_bytes());
    net.arrive(packet(net, from, to, 2.into(), question.len(), |room| room.copy_from_slice(&question)));
}

pub(super) fn ask6(net: &Net, from: Ipv6Addr, to: Ipv6Addr, question: Vec<u8>) {
    ask6_behind(net, from, to, &[5, 2, 0, 0, 1, 0], question);
}

/// With these options.
pub(super) fn ask6_behind(net: &Net, from: Ipv6Addr, to: Ipv6Addr, options: &[u8], mut question: Vec<u8>) {
    let sum = pseudo_checksum(from.into(), to.into(), 58, &question);
    question[2..4].copy_from_slice(&sum.to_be_bytes());
    let [.., a, b, c, d] = to.octets();
    let mut frame = [&[0x33, 0x33, a, b, c, d][..], &THEIR_MAC.0, &[0x86, 0xdd]].concat();
    let len = 2 + options.len() + question.len();
    frame.extend([&[0x60, 0, 0, 0, 0, len as u8, 0, 1][..], &from.octets(), &to.octets()].concat());
    frame.extend([&[58, options.len() as u8 / 8][..], options, &question].concat());
    net.arrive(frame);
}

#[test]
fn who_joins_and_leaves_says_so_twice_and_answers_questions() {
    let mut net = net(1);
    let (one, _) = listening(AF_INET);
    let (two, _) = listening(AF_INET);
    one.set_ip_option(SOL_IP, raw::IP_ADD_MEMBERSHIP, &request(&net)).unwrap();
    two.set_ip_option(SOL_IP, raw::IP_ADD_MEMBERSHIP, &request(&net)).unwrap();
    net.pass(Duration::from_secs(3));
    let reports: IpAddr = "224.0.0.22".parse().unwrap();
    assert_eq!(without_sum(told(&mut net)), vec![(reports, report(4)); 2]);
    // A question to all, in the third version, within 2 s; one about another group; a broken one.
    ask(&net, Ipv4Addr::new(224, 0, 0, 1), vec![0x11, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    net.pass(Duration::from_secs(3));
    assert_eq!(without_sum(told(&mut net)), [(reports, report(2))]);
    ask(&net, Ipv4Addr::new(239, 1, 1, 1), vec![0x11, 20, 0, 0, 239, 1, 1, 1, 0, 0, 0, 0]);
    ask(&net, Ipv4Addr::new(224, 0, 0, 1), vec![0x11, 20, 0, 0]);
    net.pass(Duration::from_secs(3));
    assert_eq!(told(&mut net), []);
    // In the second one: answered, and left, as in that.
    ask(&net, GROUP, [&[0x11, 5, 0, 0][..], &GROUP.octets()].concat());
    net.pass(Duration::from_secs(1));
    let old = |kind: u8| [&[kind, 0, 0, 0][..], &GROUP.octets()].concat();
    assert_eq!(without_sum(told(&mut net)), [(GROUP.into(), old(0x16))]);
    one.released();
    net.pass(Duration::from_secs(3));
    assert_eq!(told(&mut net), []);
    two.set_ip_option(SOL_IP, raw::IP_DROP_MEMBERSHIP, &request(&net)).unwrap();
    net.pass(Duration::from_secs(3));
    let routers = "224.0.0.2".parse().unwrap();
    assert_eq!(without_sum(told(&mut net)), vec![(routers, old(0x17)); 2]);
    // Nobody asks in that any more.
    net.pass(Duration::from_secs(300));
    two.set_ip_option(SOL_IP, raw::IP_ADD_MEMBERSHIP, &request(&net)).unwrap();
    net.pass(Duration::from_secs(3));
    two.released();
    net.pass(Duration::from_secs(3));
    let records: Vec<_> = told(&mut net).iter().map(|(_, message)| message[8]).collect();
    assert_eq!(records, [4, 4, 3, 3]);
}

#[test]
fn neighbours_of_the_sixth_version_are_told_too() {
    let mut net = net(2);
    let (socket, _) = listening(AF_INET6);
    socket.set_ip_option(SOL_IPV6, raw::IPV6_ADD_MEMBERSHIP, &request6(&net)).unwrap();
    net.pass(Duration::from_secs(3));
    let reports: IpAddr = "ff02::16".parse().unwrap();
    assert_eq!(without_sum(told(&mut net)), vec![(reports, report6(4)); 2]);
    let all = "ff02::1".parse().unwrap();
    let question = |old: bool| [&[130, 0, 0, 0, 3, 0xe8, 0, 0][..], &[0; 16], if old { &[] } else { &[0; 4] }].concat();
    ask6(&net, THERE, all, question(false));
    net.pass(Duration::from_secs(3));
    assert_eq!(without_sum(told(&mut net)), [(reports, report6(2))]);
    // Neighbours have such addresses.
    ask6(&net, "2001:db8::1".parse().unwrap(), all, question(false));
    net.pass(Duration::from_secs(3));
    assert_eq!(told(&mut net), []);
    ask6(&net, THERE, all, question(true));
    net.pass(Duration::from_secs(3));
    let old = |kind: u8| [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &GROUP6.octets()].concat();
    assert_eq!(without_sum(told(&mut net)), [(GROUP6.into(), old(131))]);
    socket.released();
    net.pass(Duration::from_secs(3));
    let routers = "ff02::2".parse().unwrap();
    assert_eq!(without_sum(told(&mut net)), vec![(routers, old(132)); 2]);
}

#[test]
fn what_comes_for_a_group_reaches_all_who_want_it_once_it_is_joined() {
    let mut net = net(3);
    let (member, port) = listening(AF_INET);
    let (own_only, _) = (UdpSocket::new(AF_INET), 0);
    own_only.set_ip_option(SOL_IP, raw::IP_MULTICAST_ALL, &[0]).unwrap();
    let there = net.machine(2);
    let arrive = |net: &mut Net| {
        net.arrive(datagram(net, (there, GROUP), (1000, port), b"news"));
        net.pass(Duration::from_millis(10));
        receive(&*member)
    };
    assert_eq!(arrive(&mut net), Ok(None));
    own_only.set_ip_option(SOL_IP, raw::IP_ADD_MEMBERSHIP, &request(&net)).unwrap();
    assert_eq!(arrive(&mut net), Ok(Some(b"news".to_vec())));
    member.set_ip_option(SOL_IP, raw::IP_MULTICAST_ALL, &[0]).unwrap();
    assert_eq!(arrive(&mut net), Ok(None));
    member.set_ip_option(SOL_IP, raw::IP_ADD_MEMBERSHIP, &request(&net)).unwrap();
    assert_eq!(arrive(&mut net), Ok(Some(b"news".to_vec())));
    // A broadcast is for all.
    net.arrive(datagram(&net, (there, net.machine(255)), (1000, port), b"to all"));
    net.pass(Duration::from_millis(10));
    assert_eq!(receive(&*member), Ok(Some(b"to all".to_vec())));
    member.released();
    own_only.released();
    assert_eq!(arrive(&mut net), Ok(None));
}

fn sent(net: &mut Net, port: u16) -> usize {
    net.pass(Duration::from_millis(10));
    let frames = net.kept.replace(Vec::new()).unwrap();
    let ports = |frame: &[u8]| match frame[12..14] {
        [8, 0] if frame[23] == 17 => Some([frame[36], frame[37]]),
        [0x86, 0xdd] if frame[20] == 17 => Some([frame[56], frame[57]]),
        _ => None,
    };
    frames.iter().filter(|frame| ports(frame) == Some(port.to_be_bytes())).count()
}

#[test]
fn what_goes_to_a_group_comes_back_for_those_here() {
    let mut net = net(4);
    for (family, group, level) in [(AF_INET, IpAddr::V4(GROUP), SOL_IP), (AF_INET6, IpAddr::V6(GROUP6), SOL_IPV6)] {
        let (member, port) = listening(family);
        let out = UdpSocket::new(family);
        let (interface, loops, hops, join) = match level {
            SOL_IP => (raw::IP_MULTICAST_IF, raw::IP_MULTICAST_LOOP, raw::IP_MULTICAST_TTL, raw::IP_ADD_MEMBERSHIP),
            _ => (raw::IPV6_MULTICAST_IF, raw::IPV6_MULTICAST_LOOP, raw::IPV6_MULTICAST_HOPS, raw::IPV6_ADD_MEMBERSHIP),
        };
        let through = if level == SOL_IP { request(&net).to_vec() } else { index(&net).to_ne_bytes().to_vec() };
        out.set_ip_option(level, interface, &through).unwrap();
        let to = Endpoint { ip: group, port };
        let go = || {
            let mut message = Outgoing { target: Target::Inet(to), ..Outgoing::plain() };
            assert!(out.try_send(&mut IoBuf::kernel(b"news"), &mut message).is_ok());
            receive(&*member)
        };
        let news = Ok(Some(b"news".to_vec()));
        assert_eq!((go(), sent(&mut net, port)), (Ok(None), 1));
        let joined = if level == SOL_IP { request(&net).to_vec() } else { request6(&net).to_vec() };
        member.set_ip_option(level, join, &joined).unwrap();
        assert_eq!((go(), sent(&mut net, port)), (news.clone(), 1));
        out.set_ip_option(level, loops, &0i32.to_ne_bytes()).unwrap();
        assert_eq!((go(), sent(&mut net, port)), (Ok(None), 1));
        out.set_ip_option(level, loops, &1i32.to_ne_bytes()).unwrap();
        out.set_ip_option(level, hops, &0i32.to_ne_bytes()).unwrap();
        assert_eq!((go(), sent(&mut net, port)), (news, 0));
    }
}

#[test]
fn a_card_that_was_down_tells_again() {
    let mut net = net(5);
    let (socket, _) = listening(AF_INET6);
    socket.set_ip_option(SOL_IP, raw::IP_ADD_MEMBERSHIP, &request(&net)).unwrap();
    net.pass(Duration::from_secs(3));
    assert_eq!(told(&mut net).len(), 2);
    let (port, request) = (interface::port_of(net.own).unwrap(), request6(&net));
    port.set_up(false);
    net.pass(Duration::from_secs(3));
    assert_eq!(told(&mut net), []);
    socket.set_ip_option(SOL_IPV6, raw::IPV6_ADD_MEMBERSHIP, &request).unwrap();
    let next = net.engine.turn(net.now);
    assert!(!next.more && next.at.is_none_or(|at| at > net.now), "nothing is due");
    port.set_up(true);
    net.pass(Duration::from_secs(3));
    assert_eq!(told(&mut net).len(), 4);
}
