//! How soon a connection goes on after segments have been lost.

use alloc::sync::Arc;
use core::time::Duration;

use smoltcp::wire::{ArpOperation, TcpPacket, TcpSeqNumber};

use super::super::Settings;
use super::super::configure::Method;
use super::super::neighbours::Neighbours;
use super::super::recovery::{Acknowledgement, MOST_SINGLE, Recovery};
use super::hostile::{arp, listener, segment, segment_with};
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
    socket: Arc<dyn FileOps>,
}

impl Peer {
    fn tells(&mut self, ack: Option<TcpSeqNumber>, window: u16) {
        let segment = segment(&self.net, self.addresses, (4000, self.port), ack, window);
        self.net.arrive(segment);
        self.net.pass(Duration::from_millis(2));
    }

    /// The program sends as much.
    fn is_sent(&mut self, len: usize) {
        assert_eq!(send(self.socket.as_socket().unwrap(), &pattern(len)), len);
        self.net.pass(Duration::from_millis(2));
    }

    /// The machine that all packets to it go to first tells where it is.
    fn answers_who_it_is(&mut self) {
        let reply = arp(&self.net, ArpOperation::Reply, self.net.machine(9), self.addresses.1);
        self.net.arrive(reply);
        self.net.pass(Duration::from_millis(2));
    }
}

/// A program has sent it a segment, from this number on, and has more.
fn begun(seed: u64) -> (Peer, TcpSeqNumber) {
    let net = Net::new(seed, Faults::default());
    let other = net.machine(9);
    begun_with(net, other, 200_000)
}

/// A program has sent this machine so much, from this number on.
fn begun_with(mut net: Net, other: Ipv4Addr, len: usize) -> (Peer, TcpSeqNumber) {
    net.kept = Some(vec![]);
    let (own, near) = (net.machine(1), net.machine(9));
    let (listener, port) = listener();
    net.arrive(arp(&net, ArpOperation::Reply, near, own));
    net.arrive(segment(&net, (other, own), (4000, port), None, 1000));
    net.pass(Duration::from_millis(2));
    let first = sent(&mut net)[0].1;
    net.arrive(segment(&net, (other, own), (4000, port), Some(first), 3000));
    net.pass(Duration::from_millis(2));
    let (socket, _) = listener.take_connection().unwrap();
    let mut peer = Peer { net, addresses: (other, own), port, socket };
    peer.is_sent(len);
    assert_eq!(sent(&mut peer.net), [(first, first + 1460)]);
    (peer, first)
}

/// It takes all that it is sent until so many segments are on their way at a time.
fn flight_of(peer: &mut Peer, first: TcpSeqNumber, segments: usize) -> Vec<(TcpSeqNumber, TcpSeqNumber)> {
    let mut flight = vec![(first, first + 1460)];
    while flight.len() < segments {
        let ends: Vec<_> = flight.drain(..).map(|(_, end)| end).collect();
        for end in ends {
            peer.tells(Some(end), 65_000);
            flight.extend(sent(&mut peer.net));
        }
    }
    flight
}

#[test]
fn the_window_is_cut_once_for_all_losses_of_a_flight() {
    let (mut peer, first) = begun(141);
    let flight = flight_of(&mut peer, first, 20);
    for _ in 0..3 {
        peer.tells(Some(flight[0].0), 65_000);
    }
    assert_eq!(sent(&mut peer.net), [flight[0]]);
    // Each of these tells of the next one that is lost.
    for lost in [4, 8, 12, 16] {
        peer.tells(Some(flight[lost].0), 65_000);
        assert_eq!(sent(&mut peer.net), [flight[lost]]);
    }
    peer.tells(Some(flight[flight.len() - 1].1), 65_000);
    let next = sent(&mut peer.net).len();
    assert!((flight.len() / 2 - 1..=flight.len() / 2 + 1).contains(&next), "{next} of {}", flight.len());
}

#[test]
fn nothing_is_given_up_because_the_gateway_has_to_be_asked_for() {
    let net = Net::with(142, Faults::default(), |own| {
        let (addresses, gateway) = (vec![own.cidr()], Some(own.network_of(9)));
        Method::Static(Settings { addresses, gateway, ..Settings::default() })
    });
    let (mut peer, first) = begun_with(net, Ipv4Addr::new(192, 0, 2, 9), 1460);
    let now = first + 1460;
    peer.tells(Some(now), 3000);
    peer.answers_who_it_is();
    peer.net.pass(Duration::from_millis(59_200));
    sent(&mut peer.net);
    peer.is_sent(2920);
    assert_eq!(sent(&mut peer.net).len(), 2);
    // Now the stack has forgotten the gateway.
    peer.net.pass(Duration::from_millis(900));
    for _ in 0..4 {
        peer.tells(Some(now), 3000);
    }
    assert_eq!(sent(&mut peer.net), []);
    peer.answers_who_it_is();
    peer.net.pass(Duration::from_millis(1200));
    assert!(sent(&mut peer.net).contains(&(now, now + 1460)));
}

#[test]
fn what_was_acknowledged_long_ago_is_no_news() {
    let (mut peer, first) = begun(143);
    let flight = flight_of(&mut peer, first, 8);
    peer.tells(Some(flight[1].0), 65_000);
    // A segment that is broken; then some that come late.
    let mut broken = segment(&peer.net, peer.addresses, (4000, peer.port), Some(flight[2].0), 65_000);
    broken[51] ^= 1;
    peer.net.arrive(broken);
    for _ in 0..5 {
        peer.tells(Some(flight[0].0), 65_000);
    }
    sent(&mut peer.net);
    peer.tells(Some(flight[3].0), 65_000);
    let again = sent(&mut peer.net);
    assert!(!again.contains(&flight[3]), "{again:?}");
}

#[test]
fn a_closed_window_is_asked_about_though_something_is_lost() {
    let (mut peer, first) = begun(144);
    peer.tells(Some(first), 0);
    peer.net.pass(Duration::from_secs(30));
    sent(&mut peer.net);
    peer.net.pass(Duration::from_secs(100));
    let asked = sent(&mut peer.net);
    assert!(asked.contains(&(first, first + 1)), "{asked:?}");
    // The segment after which it was closed goes at once when it is open.
    peer.tells(Some(first), 3000);
    assert!(sent(&mut peer.net).contains(&(first, first + 1460)));
}

#[test]
fn a_window_that_was_closed_by_what_has_data_is_asked_about() {
    let (mut peer, first) = begun(146);
    let (addresses, ports) = (peer.addresses, (4000, peer.port));
    let segment = segment_with(&peer.net, addresses, ports, Some(first), 0, 0, b"data");
    peer.net.arrive(segment);
    peer.net.pass(Duration::from_secs(30));
    sent(&mut peer.net);
    peer.net.pass(Duration::from_secs(100));
    let asked = sent(&mut peer.net);
    assert!(asked.contains(&(first, first + 1)), "{asked:?}");
    let segment = segment_with(&peer.net, addresses, ports, Some(first), 3000, 4, b"");
    peer.net.arrive(segment);
    peer.net.pass(Duration::from_millis(2));
    assert!(sent(&mut peer.net).contains(&(first, first + 1460)));
}

/// What was said of it found no buffer in the card.
#[test]
fn a_window_that_was_closed_by_what_fills_a_gap_is_asked_about() {
    let (mut peer, first) = begun(147);
    let (addresses, ports) = (peer.addresses, (4000, peer.port));
    for (place, room) in [(4, 16), (0, 0)] {
        peer.net.set_room(room);
        peer.net.arrive(segment_with(&peer.net, addresses, ports, Some(first), 0, place, b"data"));
        peer.net.pass(Duration::from_millis(2));
    }
    peer.net.set_room(16);
    peer.net.pass(Duration::from_secs(30));
    sent(&mut peer.net);
    peer.net.pass(Duration::from_secs(100));
    let asked = sent(&mut peer.net);
    assert!(asked.contains(&(first, first + 1)), "{asked:?}");
}

/// As on Linux, where what is sent again serves as a question whether the window is still closed.
#[test]
fn a_closed_window_does_not_hide_losses() {
    let (mut peer, first) = begun(145);
    for _ in 0..4 {
        peer.tells(Some(first), 0);
    }
    assert_eq!(sent(&mut peer.net), [(first, first + 1460)]);
}

#[test]
fn a_neighbour_is_cached_as_long_as_the_stack_keeps_it() {
    let (mut known, now) = (Neighbours::default(), Instant::from_nanos(1));
    let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
    let later = |seconds| now.saturating_add(Duration::from_secs(seconds));
    known.heard(ip(1), [2; 6], now);
    assert!(known.is_cached(ip(1), later(59)) && !known.is_cached(ip(1), later(60)) && !known.is_cached(ip(2), now));
    known.refresh(ip(1), later(50));
    assert!(known.is_cached(ip(1), later(109)));
    known.ask(ip(1), later(51));
    assert!(!known.is_cached(ip(1), later(52)));
    (1..=64).for_each(|last| _ = known.heard(ip(last), [2; 6], later(53)));
    assert!(known.is_cached(ip(1), later(53)));
    known.heard(ip(65), [2; 6], later(54));
    assert!(!known.is_cached(ip(1), later(54)));
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
                recovery.ask(now.saturating_add(Duration::from_secs(9)));
                let mut left = 512;
                let count = recovery.amends(&acknowledges(TcpSeqNumber(ack), 60_000), &mut left).count();
                assert_eq!(left + count, 512);
            }
        }
    }
}

/// However many flights end in a turn, of which each was cut as often as can be, and however short their segments are.
#[test]
fn the_amends_of_a_turn_are_bounded() {
    let mut left = MOST_SINGLE;
    let mut end_of = |sent: i32, len: i32| {
        let (mut recovery, now) = (Recovery::default(), Instant::from_nanos(1));
        (0..=sent / len).for_each(|i| recovery.sent(TcpSeqNumber(i * len), now));
        recovery.heard_other(now);
        for ack in [0, 0, 0, 0, sent - 10 * len] {
            if recovery.heard(acknowledges(TcpSeqNumber(ack), 60_000), now) {
                recovery.note_cut();
            }
        }
        recovery.amends(&acknowledges(TcpSeqNumber(sent), 60_000), &mut left).count()
    };
    let counts = [end_of(58_400, 1460), end_of(58_400, 1460), end_of(60_000, 100), end_of(58_400, 1460)];
    assert!(counts[0] == counts[1] && (150..=250).contains(&counts[0]) && counts[3] == 0, "{counts:?}");
    assert_eq!(counts.iter().sum::<usize>(), MOST_SINGLE);
}

#[test]
fn questions_take_their_time() {
    let (mut recovery, now) = begun_at(TcpSeqNumber(1000));
    recovery.heard(acknowledges(TcpSeqNumber(0), 60_000), now);
    let first = recovery.due().unwrap();
    assert!(first.saturating_since(now) >= Duration::from_millis(200));
    assert!(recovery.is_due(first));
    recovery.ask(first);
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

/// Its window is closed by segments with data, and what opens it gets lost.
#[test]
fn who_sends_and_reads_now_and_then_is_sent_everything() {
    for seed in 200..240 {
        let mut net = Net::new(seed, Faults::default());
        let (socket, there) = connect(&mut net);
        net.faults = Faults { lost: 20, repeated: 5, swapped: 10, silent: false };
        let data = pattern(200_000);
        let (mut sent, mut said, mut got, mut back) = (0, 0, Vec::new(), Vec::new());
        let mut reads_at = net.now;
        let end = net.now.saturating_add(Duration::from_secs(900));
        net.until("all has come", |net| {
            assert!(net.now < end, "seed {seed}: {} and {} of {}", got.len(), back.len(), data.len());
            sent += send(&*socket, &data[sent..data.len().min(sent + 100_000)]);
            // With each segment there is something to say.
            let chunk = data.len().min(said + 100);
            if net.tcp(there).can_send() {
                said += net.tcp(there).send_slice(&data[said..chunk]).unwrap();
            }
            if net.now >= reads_at {
                let mut bytes = [0; 30_000];
                while net.tcp(there).can_recv() {
                    let len = net.tcp(there).recv_slice(&mut bytes).unwrap();
                    got.extend_from_slice(&bytes[..len]);
                }
                reads_at = net.now.saturating_add(Duration::from_millis(700));
            }
            while let Some(bytes) = receive(&*socket).unwrap() {
                back.extend(bytes);
            }
            got.len() == data.len()
        });
        assert!(got == data && data.starts_with(&back));
    }
}
