//! Questions about groups, and what they bring about.

use core::net::Ipv6Addr;

use linux_raw_sys::net as raw;

use super::hostile::datagram;
use super::memberships::{
    GROUP, GROUP6, SOL_IP, SOL_IPV6, THERE, ask, ask_as, ask6, ask6_behind, index, listening, net, request, told,
    without_sum,
};
use super::*;
use crate::net::inet::AF_INET6;

const ALL: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

fn question(most: u8) -> Vec<u8> {
    vec![0x11, most, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Sockets in so many groups, each in 20, from the card's first on.
fn crowd(net: &Net, first: u8, groups: u8) -> Vec<alloc::sync::Arc<UdpSocket>> {
    let join = |number: u8| {
        let socket = UdpSocket::new(AF_INET);
        for last in number * 20..(number + 1) * 20 {
            let mut bytes = request(net);
            bytes[..4].copy_from_slice(&[239, first, 7, last]);
            socket.set_ip_option(SOL_IP, raw::IP_ADD_MEMBERSHIP, &bytes).unwrap();
        }
        socket
    };
    (0..groups / 20).map(join).collect()
}

/// The groups and records of reports of the newest version.
fn records(messages: &[(IpAddr, Vec<u8>)]) -> Vec<(u8, [u8; 4])> {
    let of = |(_, message): &(IpAddr, Vec<u8>)| {
        assert_eq!((message[0], usize::from(message[7]) * 8 + 8), (0x22, message.len()));
        message[8..].chunks(8).map(|record| (record[0], *record[4..].first_chunk().unwrap())).collect::<Vec<_>>()
    };
    messages.iter().flat_map(of).collect()
}

#[test]
fn one_question_has_one_answer_with_all_groups() {
    let mut net = net(11);
    let sockets = crowd(&net, 1, 200);
    net.pass(Duration::from_secs(4));
    let joined = told(&mut net);
    assert_eq!(records(&joined).iter().filter(|(kind, _)| *kind == 4).count(), 400);
    // Who asks again meanwhile is answered with the same.
    for _ in 0..3 {
        ask(&net, ALL, question(20));
        net.pass(Duration::from_millis(1));
    }
    net.pass(Duration::from_secs(3));
    let answers = told(&mut net);
    assert_eq!(answers.len(), 2, "183 go into a frame");
    let groups: Vec<_> = (0..200).map(|last| (2, [239, 1, 7, last])).collect();
    assert_eq!(records(&answers), groups);
    drop(sockets.into_iter().map(|socket| socket.released()).collect::<Vec<_>>());
    net.pass(Duration::from_secs(4));
    assert_eq!(records(&told(&mut net)).iter().filter(|(kind, _)| *kind == 3).count(), 400);
}

#[test]
fn who_joins_before_and_behind_what_is_known_is_told_of() {
    let mut net = net(12);
    let middle = crowd(&net, 5, 20);
    net.pass(Duration::from_secs(3));
    told(&mut net);
    let (before, behind) = (crowd(&net, 4, 20), crowd(&net, 6, 20));
    middle[0].released();
    net.pass(Duration::from_secs(3));
    let mut seen = records(&told(&mut net));
    seen.sort_unstable();
    let of = |kind: u8, second: u8| (0..20).flat_map(move |last| [(kind, [239, second, 7, last]); 2]);
    assert_eq!(seen, of(3, 5).chain(of(4, 4)).chain(of(4, 6)).collect::<Vec<_>>());
    // What was left is not known any more.
    ask(&net, ALL, question(10));
    net.pass(Duration::from_secs(2));
    assert_eq!(records(&told(&mut net)).len(), 40);
    before.into_iter().chain(behind).for_each(|socket| socket.released());
}

#[test]
fn switches_without_an_address_may_ask() {
    let mut net = net(13);
    let (socket, port) = listening(AF_INET);
    socket.set_ip_option(SOL_IP, raw::IP_ADD_MEMBERSHIP, &request(&net)).unwrap();
    net.pass(Duration::from_secs(3));
    told(&mut net);
    ask_as(&net, Ipv4Addr::UNSPECIFIED, ALL, question(10));
    net.pass(Duration::from_secs(2));
    assert_eq!(told(&mut net).len(), 1);
    // But send nothing else.
    net.arrive(datagram(&net, (Ipv4Addr::UNSPECIFIED, GROUP), (1000, port), b"news"));
    net.pass(Duration::from_millis(10));
    assert_eq!(receive(&*socket), Ok(None));
}

#[test]
fn the_first_version_knows_nobody_who_leaves() {
    let mut net = net(14);
    let (socket, _) = listening(AF_INET);
    socket.set_ip_option(SOL_IP, raw::IP_ADD_MEMBERSHIP, &request(&net)).unwrap();
    net.pass(Duration::from_secs(3));
    told(&mut net);
    ask(&net, ALL, vec![0x11, 0, 0, 0, 0, 0, 0, 0]);
    net.pass(Duration::from_secs(11));
    let report = [&[0x12, 0, 0, 0][..], &GROUP.octets()].concat();
    assert_eq!(without_sum(told(&mut net)), [(GROUP.into(), report)]);
    socket.released();
    net.pass(Duration::from_secs(3));
    assert_eq!(told(&mut net), []);
}

#[test]
fn questions_of_wrong_lengths_or_not_for_routers_are_none() {
    let mut net = net(15);
    let (socket, _) = listening(AF_INET6);
    let join = [&GROUP6.octets()[..], &index(&net).to_ne_bytes()].concat();
    socket.set_ip_option(SOL_IPV6, raw::IPV6_ADD_MEMBERSHIP, &join).unwrap();
    socket.set_ip_option(SOL_IP, raw::IP_ADD_MEMBERSHIP, &request(&net)).unwrap();
    net.pass(Duration::from_secs(3));
    told(&mut net);
    let question6 = |len: usize| {
        let mut message = vec![0; len];
        (message[0], message[5]) = (130, 100);
        message
    };
    for len in [25, 27] {
        ask6(&net, THERE, ALL6, question6(len));
    }
    ask6_behind(&net, THERE, ALL6, &[1, 4, 0, 0, 0, 0], question6(28));
    for len in [9, 11] {
        ask(&net, ALL, question(1)[..len].to_vec());
    }
    net.pass(Duration::from_secs(3));
    assert_eq!(told(&mut net), []);
    // Padding may come first, and there may be more of it.
    ask6_behind(&net, THERE, ALL6, &[0, 1, 5, 0, 0, 0, 0, 0, 5, 2, 0, 0, 0, 0], question6(28));
    net.pass(Duration::from_secs(1));
    assert_eq!(told(&mut net).len(), 1);
}

#[test]
fn what_finds_no_room_in_the_card_is_told_later() {
    let mut net = net(16);
    let (socket, _) = listening(AF_INET);
    net.set_room(0);
    socket.set_ip_option(SOL_IP, raw::IP_ADD_MEMBERSHIP, &request(&net)).unwrap();
    let next = net.engine.turn(net.now);
    assert!(!next.more && next.at.is_none_or(|at| at > net.now), "the card rings");
    net.pass(Duration::from_secs(5));
    assert_eq!(told(&mut net), []);
    net.set_room(8);
    net.pass(Duration::from_secs(3));
    assert_eq!(records(&told(&mut net)), [(4, GROUP.octets()); 2]);
}

/// RFC 4443, 2.4; RFC 4291, 2.7.
#[test]
fn what_comes_for_a_group_that_nobody_wants_is_not_answered() {
    let mut net = net(17);
    let (socket, port) = listening(AF_INET6);
    let arrive = |net: &mut Net, to: Ipv6Addr, port: u16| {
        let udp = [&[3, 232][..], &port.to_be_bytes(), &[0, 10, 0, 0, b'h', b'i']].concat();
        let sum = crate::net::inet::ip::packet::pseudo_checksum(THERE.into(), to.into(), 17, &udp);
        let mut frame =
            [&[0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 77, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 10, 17, 64][..]].concat();
        frame.extend([&THERE.octets()[..], &to.octets(), &udp[..6], &sum.to_be_bytes(), &udp[8..]].concat());
        net.arrive(frame);
        net.pass(Duration::from_millis(10));
    };
    arrive(&mut net, ALL6, port.wrapping_add(1));
    assert_eq!(net.kept.replace(Vec::new()).unwrap(), Vec::<Vec<u8>>::new());
    arrive(&mut net, ALL6, port);
    assert_eq!(receive(&*socket), Ok(Some(b"hi".to_vec())));
    // Of a machine of its own, from another one.
    arrive(&mut net, Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 1), port);
    assert_eq!(receive(&*socket), Ok(None));
}
