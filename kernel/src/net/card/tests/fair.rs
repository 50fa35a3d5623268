//! Who could fill the card lets others send, too.

use super::lasting::connect;
use super::wire::{Faults, Net};
use super::*;

/// What nobody sends (local experiments, IEEE 802).
const LOCAL: u16 = 0x88b6;
/// How many turns are not long.
const SOON: usize = 20;

#[test]
fn frames_without_end_let_datagrams_and_connections_go() {
    let mut net = Net::new(160, Faults::default());
    let (connection, there) = connect(&mut net);
    let room = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 6000]);
    let hears = net.sockets.add(udp::Socket::new(room(), room()));
    net.sockets.get_mut::<udp::Socket>(hears).bind(53).unwrap();
    let index = interface::devices().iter().find(|device| device.mac == net.mac()).unwrap().index;
    let frames = LinkSocket::new(Type::Raw, LOCAL);
    let datagrams = UdpSocket::new(AF_INET);
    datagrams.connect_as(net.at(53)).unwrap();
    net.set_room(4);
    let frame = [&[2, 0, 0, 0, 9, 8, 2, 0, 0, 0, 9, 9][..], &LOCAL.to_be_bytes(), &[0; 60]].concat();
    let pour = || {
        let mut message = Outgoing { target: Target::Link(Name::new(LOCAL, index)), ..Outgoing::plain() };
        while frames.try_send(&mut IoBuf::kernel(&frame), &mut message).is_ok() {}
    };
    pour();
    net.step();
    send(&*datagrams, b"datagram");
    send(&*connection, b"bytes");
    let mut turns = 0;
    net.until("both have come", |net| {
        pour();
        turns += 1;
        net.tcp(there).can_recv() && net.sockets.get_mut::<udp::Socket>(hears).can_recv()
    });
    assert!(turns < SOON, "{turns} turns");
    frames.released();
}

#[test]
fn a_connection_that_always_has_more_lets_others_send() {
    let mut net = Net::new(161, Faults::default());
    let (much, takes) = connect(&mut net);
    let (little, there) = connect(&mut net);
    net.set_room(2);
    let data = pattern(30_000);
    let take = |net: &mut Net| {
        send(&*much, &data);
        let waits = net.tcp(takes).recv_queue();
        net.tcp(takes).recv_slice(&mut vec![0; waits]).unwrap();
    };
    // Until its window is wide.
    for _ in 0..200 {
        take(&mut net);
        net.step();
    }
    send(&*little, b"bytes");
    let mut turns = 0;
    net.until("it has come", |net| {
        take(net);
        turns += 1;
        net.tcp(there).can_recv()
    });
    assert!(turns < SOON, "{turns} turns");
}
