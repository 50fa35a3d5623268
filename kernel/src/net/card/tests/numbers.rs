//! The numbers of connections that follow each other between the same ends.

use core::time::Duration;

use smoltcp::wire::{ArpOperation, TcpPacket, TcpSeqNumber};

use super::hostile::{arp, changed, listener, segment};
use super::wire::{Faults, Net};
use super::*;

/// Segments that the machine has sent: a connection's.
fn sent(net: &mut Net) -> Vec<Vec<u8>> {
    let kept = net.kept.replace(vec![]).unwrap_or_default();
    kept.into_iter()
        .filter(|frame| frame[12..14] == [8, 0] && frame[23] == 6)
        .map(|frame| frame[34..].to_vec())
        .collect()
}

/// Where it begins, and what follows it.
fn numbers(segment: &[u8]) -> (u32, u32) {
    let segment = TcpPacket::new_checked(segment).unwrap();
    let first = segment.seq_number().0 as u32;
    (first, first.wrapping_add(segment.segment_len() as u32))
}

fn ahead(first: u32, before: u32) -> i32 {
    first.wrapping_sub(before) as i32
}

/// Of RFC 9293, 3.10.7.4: else the SYN is one of the old connection's.
#[test]
fn who_has_missed_an_end_hears_that_the_next_connection_is_another_one() {
    let mut net = Net::new(37, Faults::default());
    let own = Endpoint { ip: net.own, port: 41_001 };
    let mut last: Option<u32> = None;
    // The last ones send more than the clock moves meanwhile.
    for round in 0..15 {
        let len = if round < 12 { 10_000 } else { 2_000_000 };
        let there = net.add_tcp();
        net.tcp(there).listen(80).unwrap();
        let socket = TcpSocket::new(AF_INET);
        socket.bind_as(0, own).unwrap();
        net.kept = Some(vec![]);
        let begun = net.now;
        socket.begin_as(0, net.own, net.at(80)).unwrap();
        net.until("it is connected", |_| !socket.is_connecting());
        assert_eq!(error(&*socket), None);
        let (data, mut bytes, mut given, mut got) = (pattern(len), [0; 20_000], 0, 0);
        net.until("it is there", |net| {
            given += send(&*socket, &data[given..data.len().min(given + 100_000)]);
            if net.tcp(there).can_recv() {
                got += net.tcp(there).recv_slice(&mut bytes).unwrap();
            }
            got == len
        });
        net.pass(Duration::from_millis(20));
        assert!(net.now.saturating_since(begun) < Duration::from_secs(4));
        let segments: Vec<_> = sent(&mut net).iter().map(|segment| numbers(segment)).collect();
        let first = segments[0].0;
        let ahead = last.map_or(1, |last| ahead(first, last));
        assert!(ahead > 0, "{round}: {ahead}");
        let lengths = segments.iter().map(|(_, end)| end.wrapping_sub(first));
        last = Some(first.wrapping_add(lengths.max().unwrap()));
        // From seconds to hours; who has reset the other one begins anew at once.
        net.faults.lost = 100;
        *socket.common().linger.lock() = (true, 0);
        socket.released();
        net.pass(if round < 11 { Duration::from_secs(2 << round) } else { Duration::from_millis(20) });
        net.faults.lost = 0;
        net.tcp(there).abort();
        net.pass(Duration::from_millis(20));
    }
}

/// A program that listens, and the number of the answer to a SYN from port 4000 of machine 9.
fn half_open(net: &mut Net) -> (alloc::sync::Arc<TcpSocket>, u16, u32) {
    let addresses = (net.machine(9), net.machine(1));
    let (listener, port) = listener();
    net.kept = Some(vec![]);
    net.arrive(arp(net, ArpOperation::Reply, addresses.0, addresses.1));
    net.arrive(segment(net, addresses, (4000, port), None, 1000));
    net.pass(Duration::from_millis(2));
    let answer = sent(net).remove(0);
    (listener, port, numbers(&answer).0)
}

#[test]
fn a_connection_that_begins_with_the_reset_of_another_one_has_numbers_of_its_own() {
    let mut net = Net::new(170, Faults::default());
    let addresses = (net.machine(9), net.machine(1));
    let (listener, port, first) = half_open(&mut net);
    let ack = Some(TcpSeqNumber(first as i32) + 1);
    let reset = segment(&net, addresses, (4000, port), ack, 1000);
    net.arrive(changed(addresses, reset, |segment| segment.set_rst(true)));
    net.arrive(segment(&net, addresses, (4000, port), None, 1000));
    net.pass(Duration::from_millis(2));
    let answers = sent(&mut net);
    assert_eq!(answers.len(), 1);
    let (second, end) = numbers(&answers[0]);
    // A second would be 250,000.
    assert!((1..100_000).contains(&ahead(second, first)), "{first} {second}");
    assert!(listener.take_connection().is_err());
    net.arrive(segment(&net, addresses, (4000, port), Some(TcpSeqNumber(end as i32)), 1000));
    net.pass(Duration::from_millis(2));
    let (accepted, _) = listener.take_connection().map_err(|_| ()).unwrap();
    assert_eq!(send(accepted.as_socket().unwrap(), b"bytes"), 5);
    net.pass(Duration::from_millis(2));
    assert_eq!(sent(&mut net).iter().map(|segment| numbers(segment)).collect::<Vec<_>>(), [(end, end.wrapping_add(5))]);
}

/// RFC 9293, 3.5.2.
#[test]
fn what_comes_after_a_reset_is_answered_as_if_there_had_been_no_connection() {
    for (round, begins) in [true, false].into_iter().enumerate() {
        let mut net = Net::new(171, Faults::default());
        let addresses = (net.machine(9), net.machine(1));
        let (listener, port, first) = half_open(&mut net);
        let next = TcpSeqNumber(first as i32) + 1;
        net.arrive(segment(&net, addresses, (4000, port), Some(next), 1000));
        net.pass(Duration::from_millis(2));
        let (_accepted, _) = listener.take_connection().map_err(|_| ()).unwrap();
        listener.released();
        sent(&mut net);
        let reset = segment(&net, addresses, (4000, port), Some(next), 1000);
        net.arrive(changed(addresses, reset, |segment| segment.set_rst(true)));
        let without = segment(&net, addresses, (4000, port), None, 1000);
        net.arrive(changed(addresses, without, |segment| {
            segment.set_syn(begins);
            segment.set_fin(!begins);
        }));
        // With an acknowledgement it is its number.
        net.arrive(segment(&net, addresses, (4000, port), Some(next), 1000));
        net.pass(Duration::from_millis(2));
        let answers = sent(&mut net);
        let answers: Vec<_> = answers.iter().map(|bytes| TcpPacket::new_checked(&bytes[..]).unwrap()).collect();
        assert!(answers.iter().all(|answer| answer.rst()), "{round}");
        assert_eq!(answers.iter().map(|answer| answer.seq_number()).collect::<Vec<_>>(), [TcpSeqNumber(0), next]);
        assert!(!begins || answers[0].ack() && answers[0].ack_number() == TcpSeqNumber(1001));
    }
}
