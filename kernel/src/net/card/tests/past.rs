//! Connections in TIME-WAIT, and who has missed their end.

use alloc::sync::Arc;
use core::time::Duration;

use smoltcp::wire::{ArpOperation, TcpPacket, TcpSeqNumber};

use super::hostile::{arp, changed, listener, segment, segment_with};
use super::wire::{Faults, Net};
use super::*;

/// A machine that the test makes the segments of.
struct Peer {
    net: Net,
    port: u16,
    /// What it acknowledges.
    ack: TcpSeqNumber,
}

impl Peer {
    /// From this byte on: what the segment says is what `change` makes of one that only acknowledges.
    fn tells(&mut self, first: usize, data: &[u8], change: impl FnOnce(&mut TcpPacket<&mut [u8]>)) {
        let addresses = (self.net.machine(9), self.net.machine(1));
        let ports = (4000, self.port);
        let segment = segment_with(&self.net, addresses, ports, Some(self.ack), 1000, first, data);
        self.net.arrive(changed(addresses, segment, change));
    }

    /// What the machine has sent since, and until so much later: flags, number, what it acknowledges.
    fn hears(&mut self, time: Duration) -> Vec<(u8, TcpSeqNumber, TcpSeqNumber)> {
        self.net.pass(time);
        let kept = self.net.kept.replace(vec![]).unwrap_or_default();
        let segments = kept.iter().filter(|frame| frame[12..14] == [8, 0] && frame[23] == 6);
        let heard = segments.map(|frame| {
            let segment = TcpPacket::new_checked(&frame[34..]).unwrap();
            (frame[47], segment.seq_number(), segment.ack_number())
        });
        heard.collect()
    }

    fn is_past(&self) -> bool {
        let connections = self.net.engine.connections();
        assert_eq!(connections.counts().0, 0);
        connections.past() == 1
    }
}

/// The number of its first byte.
const NEXT: TcpSeqNumber = TcpSeqNumber(1001);
const FIN_ACK: u8 = 0x11;
const ACK: u8 = 0x10;
const SOON: Duration = Duration::from_millis(2);
/// More than is between two answers.
const LATER: Duration = Duration::from_millis(600);

/// A connection that a program has.
fn connected(seed: u64) -> (Peer, Arc<dyn FileOps>) {
    let mut net = Net::new(seed, Faults::default());
    net.kept = Some(vec![]);
    let addresses = (net.machine(9), net.machine(1));
    let (listener, port) = listener();
    net.arrive(arp(&net, ArpOperation::Reply, addresses.0, addresses.1));
    net.arrive(segment(&net, addresses, (4000, port), None, 1000));
    let mut peer = Peer { net, port, ack: TcpSeqNumber(0) };
    peer.ack = peer.hears(SOON)[0].1 + 1;
    peer.tells(0, &[], |_| ());
    peer.hears(SOON);
    let (socket, _) = listener.take_connection().map_err(|_| ()).unwrap();
    (peer, socket)
}

/// One in TIME-WAIT: the machine has ended it first, and said last what is given back.
fn past(seed: u64) -> (Peer, Vec<(u8, TcpSeqNumber, TcpSeqNumber)>) {
    let (mut peer, socket) = connected(seed);
    socket.released();
    assert_eq!(peer.hears(SOON), [(FIN_ACK, peer.ack, NEXT)]);
    peer.ack += 1;
    peer.tells(0, &[], |segment| segment.set_fin(true));
    let last_word = peer.hears(SOON);
    assert_eq!(last_word, [(ACK, peer.ack, NEXT + 1)]);
    assert!(peer.is_past());
    (peer, last_word)
}

#[test]
fn ends_that_cross_are_acknowledged_again() {
    let (mut peer, socket) = connected(180);
    socket.released();
    assert_eq!(peer.hears(SOON), [(FIN_ACK, peer.ack, NEXT)]);
    // It has not come there when this leaves.
    peer.tells(0, &[], |segment| segment.set_fin(true));
    let last_word = peer.hears(SOON);
    peer.ack += 1;
    assert_eq!(last_word, [(ACK, peer.ack, NEXT + 1)]);
    // What it says is lost, and the end comes again, with an acknowledgement of the other one.
    peer.tells(1, &[], |_| ());
    assert_eq!(peer.hears(SOON), []);
    assert!(peer.is_past());
    peer.tells(0, &[], |segment| segment.set_fin(true));
    assert_eq!(peer.hears(SOON), last_word);
    assert!(peer.is_past());
}

/// RFC 1337.
#[test]
fn what_is_past_is_ended_by_a_reset_that_is_of_now() {
    let (mut peer, _) = past(181);
    for first in [0, 2, 999, i32::MAX as usize] {
        peer.tells(first, &[], |segment| segment.set_rst(true));
        assert_eq!(peer.hears(SOON), []);
        assert!(peer.is_past(), "{first}");
    }
    peer.tells(1, &[], |segment| segment.set_rst(true));
    assert_eq!(peer.hears(SOON), []);
    assert!(!peer.is_past());
}

#[test]
fn what_is_past_answers_nobody_without_pause_but_who_has_data() {
    let (mut peer, last_word) = past(182);
    let fin = |segment: &mut TcpPacket<&mut [u8]>| segment.set_fin(true);
    (0..3).for_each(|_| peer.tells(0, &[], fin));
    assert_eq!(peer.hears(LATER), last_word);
    peer.tells(0, &[], fin);
    assert_eq!(peer.hears(SOON), last_word);
    (0..3).for_each(|_| peer.tells(0, b"data", fin));
    assert_eq!(peer.hears(LATER), last_word.repeat(3));
    // There is nothing to say to who knows it all.
    peer.tells(1, &[], |_| ());
    assert_eq!(peer.hears(LATER), []);
    // A SYN that came late.
    peer.tells(0, &[], |segment| {
        segment.set_seq_number(NEXT - 500);
        segment.set_syn(true);
        segment.set_ack(false);
    });
    assert_eq!(peer.hears(LATER), last_word);
    assert!(peer.is_past());
}

#[test]
fn what_is_past_stays_as_long_after_the_last_that_was_heard_of_it() {
    let (mut peer, last_word) = past(183);
    peer.hears(Duration::from_secs(50));
    peer.tells(0, &[], |segment| segment.set_fin(true));
    assert_eq!(peer.hears(Duration::from_secs(50)), last_word);
    assert!(peer.is_past());
    peer.hears(Duration::from_secs(15));
    assert!(!peer.is_past());
}
