//! What routers and switches are told of the groups that sockets have joined: the host's part of IGMPv3 (RFC 3376) and MLDv2 (RFC 3810),
//! and of the older versions (RFC 1112, RFC 2236, RFC 2710) where somebody asks in these.
//!
//! Whoever joins or leaves says so, twice, because it may be lost; whoever is asked answers after a random time. Sources are not told
//! apart: of each group all are wanted.
//!
//! * [`question`]: what somebody asks. [`report`]: what is told.

mod question;
mod report;

use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use self::question::{Heard, Question};
use self::report::{Record, Report};
use super::frame::IGMP;
use super::wire::Wire;
use crate::drivers::random;
use crate::exec::Instant;
use crate::net::inet::groups::joined;
use crate::net::interface;

const ICMPV6: u8 = 58;
/// Bytes of the shortest header for each hop, of which longer ones are multiples.
const HOP_HEADER: usize = 8;
/// How often a change is told (the robustness variable), and within which time again.
const TOLD: u8 = 2;
const AGAIN: Duration = Duration::from_secs(1);
/// How long one who asks in an older version is remembered: twice as long as he waits between two questions, and for answers.
const OLDER: Duration = Duration::from_secs(260);
/// Reports in a turn.
const REPORTS: usize = 16;
/// Groups that are told of, those among them that were left.
const MOST: usize = 2 * joined::MOST;
/// What has been joined is looked at once in this time.
const LOOKS: Duration = Duration::from_millis(10);

/// Of IGMP; MLD has no first one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    First,
    Second,
    Newest,
}

struct Membership {
    group: IpAddr,
    /// Nobody here is a member any more.
    left: bool,
    /// How often the change is still to be told.
    changes: u8,
    at: Option<Instant>,
}

impl Membership {
    fn new(group: IpAddr, now: Instant) -> Membership {
        Membership { group, left: false, changes: TOLD, at: Some(now) }
    }

    fn change(&mut self, left: bool, now: Instant) {
        (self.left, self.changes, self.at) = (left, TOLD, Some(now));
    }

    fn is_due(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| at <= now)
    }

    fn record(&self) -> Record {
        match (self.changes, self.left) {
            (0, false) => Record::Is,
            (_, true) => Record::Left,
            (_, false) => Record::Joined,
        }
    }

    /// It has been told.
    fn note_told(&mut self, now: Instant) {
        self.changes = self.changes.saturating_sub(1);
        self.at = (self.changes > 0).then(|| now.saturating_add(within(AGAIN)));
    }

    /// Somebody asks, and may be answered within this time: not later than he has asked before.
    fn ask(&mut self, most: Duration, now: Instant) {
        if !self.left && self.at.is_none_or(|at| at > now.saturating_add(most)) {
            self.at = Some(now.saturating_add(within(most)));
        }
    }

    /// Nobody needs to be told of it any more.
    fn is_over(&self) -> bool {
        self.left && self.at.is_none()
    }
}

/// How somebody asks of a family, and what he is still owed.
#[derive(Default)]
struct Asked {
    /// Until when somebody asks in the first version, and in the second.
    until: [Option<Instant>; 2],
    /// When a question about all groups is to be answered, in the newest one.
    answer: Option<Instant>,
    /// The last group that the answer has had.
    after: Option<IpAddr>,
}

impl Asked {
    fn version(&self, now: Instant) -> Version {
        let is_there = |until: Option<Instant>| until.is_some_and(|until| until > now);
        match self.until.map(is_there) {
            [true, _] => Version::First,
            [_, true] => Version::Second,
            _ => Version::Newest,
        }
    }

    fn hear(&mut self, version: Version, now: Instant) {
        let until = Some(now.saturating_add(OLDER));
        match version {
            Version::First => self.until[0] = until,
            Version::Second => self.until[1] = until,
            Version::Newest => {}
        }
    }
}

#[derive(Default)]
pub struct Memberships {
    /// In the order of the groups.
    known: Vec<Membership>,
    /// Of IPv4, of IPv6.
    asked: [Asked; 2],
    /// When the first of the known ones is to be told, at the earliest.
    next: Option<Instant>,
    /// When what has been joined is to be looked at, and when it was.
    stale: Option<Instant>,
    looked: Option<Instant>,
    was_up: bool,
}

impl Memberships {
    /// Sockets have joined groups, or left them.
    pub fn changed(&mut self) {
        self.stale = Some(self.looked.map_or(Instant::BOOT, |at| at.saturating_add(LOOKS)));
    }

    /// True: there is more to tell at once.
    pub fn turn(&mut self, wire: &mut Wire) -> bool {
        let up = wire.port.is_up();
        if up != self.was_up {
            // Nobody there knows of any yet.
            *self = Memberships { was_up: up, stale: Some(Instant::BOOT), ..Memberships::default() };
        }
        if !up {
            self.stale = None;
            return false;
        }
        if self.stale.is_some_and(|at| at <= wire.now) {
            self.look(wire);
        }
        let mut room = REPORTS;
        if self.next.is_some_and(|at| at <= wire.now) {
            self.tell(wire, &mut room);
        }
        for family in 0..self.asked.len() {
            if self.asked[family].answer.is_some_and(|at| at <= wire.now) {
                self.answer(wire, family, &mut room);
            }
        }
        room == 0
    }

    pub fn due(&self) -> Option<Instant> {
        let [v4, v6] = &self.asked;
        [self.next, self.stale, v4.answer, v6.answer].into_iter().flatten().min()
    }

    /// Finds out what has been joined and left.
    #[inline(never)]
    fn look(&mut self, wire: &Wire) {
        let now = wire.now;
        // Again, if there is no memory.
        self.stale = Some(now.saturating_add(AGAIN));
        let Ok(joined) = joined::joined_on(wire.port.index()) else { return };
        let mut known = Vec::new();
        if known.try_reserve_exact(MOST.min(self.known.len() + joined.len())).is_err() {
            return;
        }
        (self.stale, self.looked) = (None, Some(now));
        // Who joins and leaves faster than can be told is not told of.
        let mut room_for_left = MOST.saturating_sub(joined.len());
        let joined = joined.into_iter().map(|(group, _)| group);
        let mut joined = joined.filter(|group| is_told(*group)).peekable();
        let mut keep = |mut old: Membership, is_joined: bool, known: &mut Vec<Membership>| {
            if old.left == is_joined {
                old.change(!is_joined, now);
            }
            if is_joined || room_for_left > 0 {
                room_for_left -= usize::from(!is_joined);
                known.push(old);
            }
        };
        for old in core::mem::take(&mut self.known) {
            while let Some(new) = joined.next_if(|new| *new < old.group) {
                known.push(Membership::new(new, now));
            }
            let is_joined = joined.next_if_eq(&old.group).is_some();
            keep(old, is_joined, &mut known);
        }
        known.extend(joined.map(|new| Membership::new(new, now)));
        self.known = known;
        self.note_next();
    }

    fn note_next(&mut self) {
        self.next = self.known.iter().filter_map(|known| known.at).min();
    }

    /// Tells of the groups whose time has come, as long as there is room in this turn.
    #[inline(never)]
    fn tell(&mut self, wire: &mut Wire, room: &mut usize) {
        let mut place = 0;
        loop {
            let rest = self.known.get(place..).unwrap_or(&[]);
            let Some(others) = rest.iter().position(|known| known.is_due(wire.now)) else { break };
            if *room == 0 {
                return;
            }
            let Some(end) = self.tell_from(wire, place + others) else { return };
            (place, *room) = (end, *room - 1);
        }
        self.known.retain(|known| !known.is_over());
        self.note_next();
    }

    /// Tells of one, and of those behind it that are in the same report. Answers up to which; none if the card has no room.
    fn tell_from(&mut self, wire: &mut Wire, place: usize) -> Option<usize> {
        let (now, asked) = (wire.now, &self.asked);
        let rest = self.known.get_mut(place..)?;
        let v4 = rest.first()?.group.is_ipv4();
        let mut report = Report::new(v4, asked[usize::from(!v4)].version(now));
        let mut count = 0;
        for known in rest.iter().take_while(|known| known.group.is_ipv4() == v4) {
            if report.is_full() {
                break;
            }
            count += 1;
            if known.is_due(now) {
                report.add(known.group, known.record());
            }
        }
        if !send(wire, report) {
            return None;
        }
        rest.iter_mut().take(count).filter(|known| known.is_due(now)).for_each(|known| known.note_told(now));
        Some(place + count)
    }

    /// Goes on to answer a question about all groups of a family.
    #[inline(never)]
    fn answer(&mut self, wire: &mut Wire, family: usize, room: &mut usize) {
        let v4 = family == 0;
        let asked = &mut self.asked[family];
        while *room > 0 {
            let start = self.known.partition_point(|known| match asked.after {
                Some(after) => known.group <= after,
                None => !v4 && known.group.is_ipv4(),
            });
            let mut report = Report::new(v4, asked.version(wire.now));
            let mut last = None;
            for known in self.known.iter().skip(start).take_while(|known| known.group.is_ipv4() == v4) {
                if report.is_full() {
                    break;
                }
                if !known.left {
                    report.add(known.group, Record::Is);
                    last = Some(known.group);
                }
            }
            if last.is_none() {
                (asked.answer, asked.after) = (None, None);
                return;
            }
            if !send(wire, report) {
                return;
            }
            (asked.after, *room) = (last, *room - 1);
        }
    }

    /// A packet of IP has come, which is perhaps a question. False: it is not of this protocol.
    #[inline(never)]
    pub fn hear(&mut self, packet: &[u8], now: Instant) -> bool {
        let Question { v4, version, most, group } = match question::read(packet) {
            Heard::Question(question) => question,
            heard => return matches!(heard, Heard::Nothing),
        };
        let asked = &mut self.asked[usize::from(!v4)];
        asked.hear(version, now);
        match group {
            // One answer for all, and no other while that is still to come (RFC 3376, 5.2; RFC 3810, 6.2).
            None if asked.version(now) == Version::Newest => {
                let at = now.saturating_add(within(most));
                asked.answer = Some(asked.answer.map_or(at, |before| before.min(at)));
            }
            None => self.known.iter_mut().filter(|known| known.group.is_ipv4() == v4).for_each(|k| k.ask(most, now)),
            Some(group) => {
                let place = self.known.binary_search_by(|known| known.group.cmp(&group)).ok();
                if let Some(known) = place.and_then(|place| self.known.get_mut(place)) {
                    known.ask(most, now);
                }
            }
        }
        if group.is_some() || self.asked[usize::from(!v4)].version(now) != Version::Newest {
            self.note_next();
        }
        true
    }
}

/// False: the card has no room.
fn send(wire: &mut Wire, report: Report) -> bool {
    if report.is_empty() {
        return true;
    }
    let towards = report.towards();
    let from = wire.settings.source_for(towards);
    let frame = report.frame(wire.port.card().mac(), from);
    wire.phy.send_own(&frame)
}

/// Those of which every machine is one, and those that do not leave it, nobody is told of (RFC 3376, 6; RFC 3810, 6).
fn is_told(group: IpAddr) -> bool {
    !(interface::stays_here(group) || joined::ALWAYS.contains(&group))
}

/// Some time up to this.
fn within(most: Duration) -> Duration {
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(if nanos == 0 { 0 } else { random::u64() % nanos })
}
