//! The connections of a card with other machines: which segment is for which, and which of them have something to do.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use core::net::IpAddr;
use core::time::Duration;

use smoltcp::wire::IpProtocol;

use super::Frame;
use super::frame::{Pair, Quoted};
use super::numbers::Ends;
use super::past::Pasts;
use super::recovery::Said;
use super::stream::{Origin, Stream};
use super::wire::Wire;
use crate::errno::Errno;
use crate::exec::Instant;
use crate::mm::frames;
use crate::net::inet::tcp::{self, TcpSocket};

/// Connections that are served before others get their turn.
const SERVED: usize = 64;
/// Segments of one connection before others get their turn.
const SEGMENTS: usize = 32;
/// Segments before what has become free in the stack's buffer is filled up.
const BURST: usize = 8;
const SOONEST: Duration = Duration::from_millis(1);
/// Connections with other machines, those of them that others have begun and not finished, and those in TIME-WAIT that have to
/// stay whole: beyond that the oldest of these goes.
const MOST: usize = 4096;
const MOST_HALF_OPEN: usize = 128;
const MOST_WHOLE: usize = 256;
/// From so many on a new one has less memory.
const MANY: usize = 256;
const MANY_HALF_OPEN: usize = 16;

#[derive(Default)]
pub struct Connections {
    streams: BTreeMap<u64, Stream>,
    by_pair: BTreeMap<PairKey, u64>,
    half_open: BTreeSet<u64>,
    /// In TIME-WAIT: what is left of them, and those of which more has to be kept.
    pasts: Pasts,
    whole: BTreeSet<u64>,
    /// How far the numbers of those came that are over.
    ends: Ends,
    last_id: u64,
    /// Streams with work: each once.
    ready: VecDeque<u64>,
    timers: BTreeSet<(Instant, u64)>,
}

pub type PairKey = (IpAddr, u16, IpAddr, u16);

pub fn key((local, remote): Pair) -> PairKey {
    (local.ip, local.port, remote.ip, remote.port)
}

impl Connections {
    /// Those whose time has come have work.
    pub fn ring_timers(&mut self, now: Instant) {
        self.pasts.turn(now);
        self.ends.turn(now);
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.remove(&(at, id));
            self.enqueue(id);
        }
    }

    /// A neighbour has answered. They do so seldom, so nobody keeps account of who waits for which.
    pub fn retry(&mut self) {
        let waiting = self.streams.iter_mut().filter_map(|(id, stream)| stream.enqueue().then_some(*id));
        self.ready.extend(waiting);
    }

    pub fn due(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.pasts.due()].into_iter().flatten().min()
    }

    pub fn enqueue(&mut self, id: u64) {
        if self.streams.get_mut(&id).is_some_and(Stream::enqueue) {
            self.ready.push_back(id);
        }
    }

    /// Lets those that have work send. True: there are more, and there is room for them in the card.
    pub fn turn(&mut self, wire: &mut Wire) -> bool {
        let mut left = SERVED;
        while left > 0 && !wire.phy.starved {
            let Some(id) = self.ready.pop_front() else { return false };
            left -= usize::from(self.serve(wire, id));
        }
        !wire.phy.starved && !self.ready.is_empty()
    }

    /// Nothing is left of any connection, but for TIME-WAIT.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.half_open.is_empty() && self.streams.values().all(Stream::is_past)
    }

    /// Connections, and how many of them are in the queue.
    #[cfg(test)]
    pub fn counts(&self) -> (usize, usize) {
        (self.streams.len(), self.ready.len())
    }

    /// Those in TIME-WAIT.
    #[cfg(test)]
    pub fn past(&self) -> usize {
        self.pasts.count()
    }

    /// A segment of TCP has come. Given back: it is for none of them.
    pub fn segment(
        &mut self,
        wire: &mut Wire,
        mut frame: Frame,
        pair: Pair,
        (begins, resets): (bool, bool),
        said: Said,
    ) -> Option<Frame> {
        let mut found = self.by_pair.get(&key(pair)).copied();
        if found.is_none() && self.pasts.hear(pair, frame.bytes(), &wire.phy, wire.now) {
            wire.port.card().recycle(frame.0);
            return None;
        }
        if begins {
            found = found.filter(|id| !self.make_way(wire, *id));
            if found.is_none() {
                match self.answer(wire, pair) {
                    Ok(id) => found = id.inspect(|_| self.pasts.end(key(pair))),
                    Err(_) => {
                        wire.port.card().recycle(frame.0);
                        return None;
                    }
                }
            }
        }
        // One that is over hears nothing more, so the answer is that there is none, without numbers of its own.
        let stream = found.and_then(|id| self.streams.get_mut(&id)).filter(|stream| begins || !stream.is_over());
        let Some(stream) = stream else { return Some(frame) };
        let said = stream.numbers.arrive(frame.bytes_mut(), said);
        stream.heard(wire, &said);
        if stream.hides(wire, &said) {
            wire.port.card().recycle(frame.0);
            return None;
        }
        stream.make_amends(wire, &said);
        stream.feed(wire, frame);
        if stream.settle() {
            found.iter().for_each(|id| _ = self.half_open.remove(id));
        }
        stream.note_reset(resets);
        stream.recover(wire, said);
        if stream.enqueue() {
            self.ready.extend(found);
        }
        None
    }

    /// A connection for a SYN, if somebody listens. An error: it is not answered, as if it were lost.
    fn answer(&mut self, wire: &mut Wire, pair: Pair) -> Result<Option<u64>, Errno> {
        let (local, remote) = pair;
        let Some(listener) = tcp::find_listener(local, remote, wire.port.index()) else { return Ok(None) };
        if !listener.has_backlog() {
            return Err(Errno::EAGAIN);
        }
        if self.half_open.len() >= MOST_HALF_OPEN
            && let Some(oldest) = self.half_open.first().copied()
        {
            self.end(oldest, wire.now);
        }
        let stand_in = TcpSocket::stand_in(local, remote, None);
        let stream = self.make(wire, pair, stand_in, Origin::Answered(Arc::downgrade(&listener)))?;
        self.half_open.insert(stream);
        Ok(Some(stream))
    }

    fn make(&mut self, wire: &mut Wire, pair: Pair, stand_in: Arc<TcpSocket>, origin: Origin) -> Result<u64, Errno> {
        if self.streams.len() >= MOST {
            let oldest = self.whole.first().copied().ok_or(Errno::ENOBUFS)?;
            self.end(oldest, wire.now);
        }
        self.last_id += 1;
        let id = self.last_id;
        let little = self.streams.len() >= MANY || self.half_open.len() >= MANY_HALF_OPEN || !frames::has_spare();
        let numbers = self.ends.numbers(pair, wire.now);
        let stream = Stream::new(wire, pair, numbers, stand_in, origin, id, little)?;
        self.by_pair.insert(key(pair), id);
        self.streams.insert(id, stream);
        Ok(id)
    }

    /// A program has begun one.
    pub fn connect(&mut self, wire: &mut Wire, stand_in: Arc<TcpSocket>) {
        let Some(pair) = stand_in.ends() else { return };
        if let Some(id) = self.by_pair.get(&key(pair)).copied()
            && !self.make_way(wire, id)
        {
            return stand_in.fail_peer(Errno::EADDRNOTAVAIL);
        }
        self.pasts.end(key(pair));
        match self.make(wire, pair, stand_in.clone(), Origin::Begun) {
            Ok(id) => self.enqueue(id),
            Err(errno) => stand_in.fail_peer(errno),
        }
    }

    /// Ends a connection that may give its place to another one between the same ends. False: it keeps it.
    fn make_way(&mut self, wire: &mut Wire, id: u64) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return true };
        if stream.is_given_up() {
            // The other machine is to hear of it before it hears of the next one.
            stream.pump(wire);
            stream.flush(wire);
        } else if stream.is_over() {
            // If it was not reset it resets the other one.
            stream.flush(wire);
        } else if !stream.is_past() {
            return false;
        }
        self.end(id, wire.now);
        true
    }

    /// False: it is not there any more.
    fn serve(&mut self, wire: &mut Wire, id: u64) -> bool {
        let Connections { streams, timers, half_open, pasts, whole, .. } = self;
        let Some(stream) = streams.get_mut(&id) else { return false };
        if let Some(at) = stream.timer.take() {
            timers.remove(&(at, id));
        }
        stream.begin_turn();
        wire.routed |= stream.is_routed();
        let mut left = SEGMENTS;
        stream.recover_from_silence(wire);
        loop {
            stream.pump(wire);
            let sent = (0..BURST.min(left)).take_while(|_| stream.send(wire)).count();
            left -= sent;
            if sent < BURST || left == 0 {
                break;
            }
        }
        if !wire.phy.starved && left > 0 {
            stream.keep_going(wire);
        }
        if !stream.is_half_open() {
            half_open.remove(&id);
        }
        if wire.phy.starved {
            // Behind those that have not had their turn.
            stream.enqueue();
            self.ready.push_back(id);
        } else if stream.is_over() {
            self.end(id, wire.now);
        } else if let Some(last_word) = stream.last_word() {
            pasts.add(stream.pair(), last_word, wire.now);
            self.end(id, wire.now);
        } else if left == 0 {
            stream.enqueue();
            self.ready.push_back(id);
        } else {
            if let Some(at) = stream.due(wire) {
                // What the stack wants now and has not done is not done by asking again at once.
                let at = at.max(wire.now.saturating_add(SOONEST));
                stream.timer = Some(at);
                timers.insert((at, id));
            }
            if stream.is_past() && whole.insert(id) && whole.len() > MOST_WHOLE {
                let oldest = whole.first().copied();
                oldest.into_iter().for_each(|id| self.end(id, wire.now));
            }
        }
        true
    }

    /// The connection is over, or has to be.
    fn end(&mut self, id: u64, now: Instant) {
        let Some(mut stream) = self.streams.remove(&id) else { return };
        if let Some(at) = stream.timer.take() {
            self.timers.remove(&(at, id));
        }
        self.half_open.remove(&id);
        self.whole.remove(&id);
        self.by_pair.remove(&key(stream.pair()));
        stream.note_end(&mut self.ends, now);
        stream.conclude();
    }

    pub fn unreachable(&mut self, quoted: &Quoted) {
        let Quoted { protocol, pair, number, errno } = *quoted;
        if protocol == IpProtocol::Tcp
            && let Some(id) = self.by_pair.get(&key(pair)).copied()
            && self.streams.get_mut(&id).is_some_and(|stream| stream.give_up(number, errno))
        {
            self.enqueue(id);
        }
    }
}
