//! How soon a connection goes on after segments have been lost.

use core::time::Duration;

use smoltcp::wire::{ArpOperation, TcpPacket, TcpSeqNumber};

use super::super::recovery::{Acknowledgement, Recovery};
use super::hostile::{arp, listener, segment};
use super::lasting::connect;
use super::wire::{Faults, Net};
use super::*;
use crate::exec::Instant;

const LOSSES: Faults = Faults { lost: 1, repeated: 1, swapped: 1, silent: false };

/// How long it takes until the other machine has all of this, if nothing but waiting takes time.
fn time_of(net: &mut Net, data: &[u8]) -> Duration {
    let (socket, there) = connect(net);
    let began = net.now;
    let (mut sent, mut got) = (0, Vec::new());
    net.until("all has come", |net| {
        sent += send(&*socket, &data[sent..data.len().min(sent + 100_000)]);
        let mut bytes = [0; 4096];
        while net.tcp(there).can_recv() {
            let len = net.tcp(there).recv_slice(&mut bytes).unwrap();
            got.extend_from_slice(&bytes[..len]);
        }
        got.len() >= data.len()
    });
    assert!(got == data);
    net.now.saturating_since(began)
}

#[test]
fn losses_are_made_good_without_a_time_out() {
    let mut total = Duration::ZERO;
    for seed in 60..70 {
        let mut net = Net::new(seed, LOSSES);
        let time = time_of(&mut net, &pattern(2_000_000));
        total += time;
    }
    assert!(total < Duration::from_secs(4), "{total:?}");
}

/// The segments of TCP that the machine has sent meanwhile: where they begin and end.
fn sent(net: &mut Net) -> Vec<(TcpSeqNumber, TcpSeqNumber)> {
    let kept = net.kept.replace(vec![]).unwrap_or_default();
    let segments = kept.iter().filter(|frame| frame[12..14] == [8, 0] && frame[23] == 6);
    let ends = segments.map(|frame| {
        let segment = TcpPacket::new_checked(&frame[34..]).unwrap();
        (segment.seq_number(), segment.seq_number() + segment.segment_len())
    });
    ends.collect()
}

/// A machine that the test makes the segments of.
struct Peer {
    net: Net,
    addresses: (Ipv4Addr, Ipv4Addr),
    port: u16,
}

impl Peer {
    fn tells(&mut self, ack: Option<TcpSeqNumber>, window: u16) {
        let segment = segment(&self.net, self.addresses, (4000, self.port), ack, window);
        self.net.arrive(segment);
        self.net.pass(Duration::from_millis(2));
    }
}

/// A program has sent it a segment, from this number on, and has more.
fn begun(seed: u64) -> (Peer, TcpSeqNumber) {
    let mut net = Net::new(seed, Faults::default());
    net.kept = Some(vec![]);
    let (own, other) = (net.machine(1), net.machine(9));
    let (listener, port) = listener();
    net.arrive(arp(&net, ArpOperation::Reply, other, own));
    let mut peer = Peer { net, addresses: (other, own), port };
    peer.tells(None, 1000);
    let first = sent(&mut peer.net)[0].1;
    peer.tells(Some(first), 3000);
    let (socket, _) = listener.take_connection().unwrap();
    assert_eq!(send(socket.as_socket().unwrap(), &pattern(20_000)), 20_000);
    peer.net.pass(Duration::from_millis(2));
    assert_eq!(sent(&mut peer.net), [(first, first + 1460)]);
    (peer, first)
}

#[test]
fn what_is_sent_again_stays_in_the_window() {
    let (mut peer, first) = begun(140);
    // A gap that there is room for is filled at once.
    for window in [3000; 4] {
        peer.tells(Some(first), window);
    }
    assert!(sent(&mut peer.net).contains(&(first, first + 1460)));
    // For this one there is not: who takes only the first bytes of a segment gets those again after a time-out.
    for window in [1000; 5] {
        peer.tells(Some(first + 1460), window);
    }
    assert_eq!(sent(&mut peer.net), [(first + 1460, first + 2460)]);
    peer.net.pass(Duration::from_secs(5));
    let again = sent(&mut peer.net);
    assert!(!again.is_empty() && again.iter().all(|segment| *segment == (first + 1460, first + 2460)), "{again:?}");
}

/// What is known of a connection of which everything up to this number has been sent, after a segment that says nothing.
fn begun_at(sent: TcpSeqNumber) -> (Recovery, Instant) {
    let (mut recovery, now) = (Recovery::default(), Instant::from_nanos(1));
    recovery.sent(sent, now);
    recovery.heard_other(now);
    (recovery, now)
}

fn acknowledges(ack: TcpSeqNumber, window: u16) -> Acknowledgement {
    Acknowledgement { seq: TcpSeqNumber(5), ack, window }
}

/// Numbers that are nowhere near what was sent, one of them as far away as can be.
#[test]
fn acknowledgements_of_anything_are_survived() {
    for first in [0, 1000, i32::MAX, i32::MIN, -1000] {
        for distance in [1 << 30, i32::MAX, i32::MIN, i32::MIN + 1, -1, -(1 << 30), 0] {
            let (mut recovery, now) = begun_at(TcpSeqNumber(first));
            for ack in [first.wrapping_add(distance), first.wrapping_sub(10), first.wrapping_add(distance)] {
                recovery.heard(acknowledges(TcpSeqNumber(ack), 60_000), now);
                recovery.due();
                recovery.is_silent(now.saturating_add(Duration::from_secs(9)));
            }
        }
    }
}

#[test]
fn questions_take_their_time() {
    let (mut recovery, now) = begun_at(TcpSeqNumber(1000));
    recovery.heard(acknowledges(TcpSeqNumber(0), 60_000), now);
    let first = recovery.due().unwrap();
    assert!(first.saturating_since(now) >= Duration::from_millis(200));
    assert!(recovery.is_silent(first));
    assert!(recovery.due().unwrap().saturating_since(first) >= Duration::from_millis(200));
}

/// Who asks whether we are there, or have room again, is answered.
#[test]
fn only_what_may_tell_of_a_gap_is_hidden() {
    for (ack, hidden) in [(1000, false), (400, true)] {
        let (mut recovery, now) = begun_at(TcpSeqNumber(1000));
        let heard = acknowledges(TcpSeqNumber(ack), 100);
        recovery.heard(heard, now);
        assert_eq!(recovery.is_to_be_hidden(&heard), hidden);
    }
}

/// Both may wait for the other one to read.
#[test]
fn nothing_stops_two_that_wait_for_each_other() {
    for seed in 100..140 {
        let mut net = Net::new(seed, Faults::default());
        let (socket, there) = connect(&mut net);
        net.faults = FAULTS;
        exchange(&mut net, &*socket, there, &pattern(100_000));
        socket.released();
    }
}
