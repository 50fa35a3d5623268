//! What routers and switches are told of the groups that sockets have joined: the host's part of IGMPv3 (RFC 3376) and MLDv2 (RFC 3810),
//! and of IGMPv2 (RFC 2236) and MLDv1 (RFC 2710) where somebody asks in these.
//!
//! Whoever joins or leaves says so, twice, because it may be lost; whoever is asked answers after a random time. Sources are not told
//! apart: of each group all are wanted.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use super::ETHERNET_HEADER;
use super::wire::Wire;
use crate::drivers::random;
use crate::exec::Instant;
use crate::net::inet::groups::joined;
use crate::net::inet::ip::packet::{checksum, pseudo_checksum, put};

const IGMP: u8 = 2;
const ICMPV6: u8 = 58;
/// Who listens to reports, and to those who leave in the older versions: all routers that know the protocol, all routers.
const REPORTS4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const ROUTERS4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
const REPORTS6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
const ROUTERS6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Types of messages.
const QUERY4: u8 = 0x11;
const REPORT4: u8 = 0x22;
const OLD_REPORT4: u8 = 0x16;
const OLD_LEAVE4: u8 = 0x17;
const QUERY6: u8 = 130;
const REPORT6: u8 = 143;
const OLD_REPORT6: u8 = 131;
const OLD_LEAVE6: u8 = 132;
/// How often a change is told (the robustness variable), and within which time again.
const TOLD: u8 = 2;
const AGAIN: Duration = Duration::from_secs(1);
/// How long one who asks in an older version is remembered: twice as long as he waits between two questions, and for answers.
const OLDER: Duration = Duration::from_secs(260);
/// Reports in a turn.
const REPORTS: usize = 16;
/// Groups that are told of, those among them that were left.
const MOST: usize = 2 * joined::MOST;
const HOP_HEADER: usize = 8;
const HEADER4: usize = 24;
const HEADER6: usize = 40 + HOP_HEADER;
/// The bytes of questions.
const QUERY6_SIZE: usize = 24;
const OLD_QUERY4: usize = 8;

struct Membership {
    group: IpAddr,
    /// Nobody here is a member any more.
    left: bool,
    /// How often the change is still to be told.
    changes: u8,
    at: Option<Instant>,
}

/// What a report says of a group: the types of records.
#[derive(Clone, Copy)]
enum Record {
    Is = 2,
    Left = 3,
    Joined = 4,
}

#[derive(Default)]
pub struct Memberships {
    /// In the order of the groups.
    known: Vec<Membership>,
    /// Until when who asks does so in the older version: of IPv4, of IPv6.
    older: [Option<Instant>; 2],
    /// When what has been joined is to be looked at.
    stale: Option<Instant>,
    was_up: bool,
}

impl Memberships {
    /// Sockets have joined groups, or left them.
    pub fn changed(&mut self) {
        self.stale = Some(Instant::BOOT);
    }

    /// True: there is more to tell at once.
    pub fn turn(&mut self, wire: &mut Wire) -> bool {
        let up = wire.port.is_up();
        if up != self.was_up {
            // Nobody there knows of any yet.
            self.was_up = up;
            self.known.clear();
            self.stale = up.then_some(Instant::BOOT);
        }
        if !up {
            self.stale = None;
            return false;
        }
        if self.stale.is_some_and(|at| at <= wire.now) {
            self.look(wire);
        }
        let now = wire.now;
        for _ in 0..REPORTS {
            let Some(place) = self.known.iter().position(|known| known.at.is_some_and(|at| at <= now)) else {
                return false;
            };
            self.report(wire, place);
        }
        true
    }

    pub fn due(&self) -> Option<Instant> {
        self.known.iter().filter_map(|membership| membership.at).chain(self.stale).min()
    }

    #[inline(never)]
    fn look(&mut self, wire: &Wire) {
        // Again, if there is no memory.
        self.stale = Some(wire.now.saturating_add(AGAIN));
        let Ok(joined) = joined::joined_on(wire.port.index()) else { return };
        if self.known.try_reserve(joined.len()).is_err() {
            return;
        }
        self.stale = None;
        let at = Some(wire.now);
        for known in self.known.iter_mut().filter(|known| !known.left) {
            if joined.binary_search_by(|(group, _)| group.cmp(&known.group)).is_err() {
                (known.left, known.changes, known.at) = (true, TOLD, at);
            }
        }
        if self.known.len() + joined.len() > MOST {
            // Who joins and leaves faster than can be told is not told of.
            self.known.retain(|known| !known.left);
        }
        for group in joined.into_iter().map(|(group, _)| group).filter(|group| is_told(*group)) {
            match self.known.binary_search_by(|known| known.group.cmp(&group)) {
                Ok(place) => {
                    if let Some(known) = self.known.get_mut(place).filter(|known| known.left) {
                        (known.left, known.changes, known.at) = (false, TOLD, at);
                    }
                }
                Err(place) => self.known.insert(place, Membership { group, left: false, changes: TOLD, at }),
            }
        }
    }

    /// Tells of one group what is to be told now.
    #[inline(never)]
    fn report(&mut self, wire: &mut Wire, place: usize) {
        let Some(membership) = self.known.get_mut(place) else { return };
        let group = membership.group;
        let record = match membership {
            Membership { changes: 0, .. } => Record::Is,
            Membership { left: true, .. } => Record::Left,
            Membership { left: false, .. } => Record::Joined,
        };
        membership.changes = membership.changes.saturating_sub(1);
        membership.at = (membership.changes > 0).then(|| wire.now.saturating_add(within(AGAIN)));
        if membership.left && membership.at.is_none() {
            self.known.remove(place);
        }
        let older = self.older[usize::from(group.is_ipv6())].is_some_and(|until| until > wire.now);
        let mac = wire.port.card().mac();
        let source = wire.settings.source_for(group);
        let frame = match (group, source) {
            (IpAddr::V4(group), Some(IpAddr::V4(from))) => report4(mac, from, group, record, older),
            // Before there is an address (RFC 3376, 4.2.13; RFC 3810, 5.2.13).
            (IpAddr::V4(group), _) => report4(mac, Ipv4Addr::UNSPECIFIED, group, record, older),
            (IpAddr::V6(group), _) => {
                let near = wire.settings.source_for(REPORTS6.into());
                let from = if let Some(IpAddr::V6(own)) = near { own } else { Ipv6Addr::UNSPECIFIED };
                report6(mac, from, group, record, older)
            }
        };
        wire.phy.repeat(&frame);
    }

    /// A packet of IP has come, which is perhaps a question. False: it is not of this protocol.
    #[inline(never)]
    pub fn hear(&mut self, packet: &[u8], now: Instant) -> bool {
        let Some(question) = question4(packet).or_else(|| question6(packet)) else { return false };
        if let Some(Question { v4, older, most, group }) = question {
            if older {
                self.older[usize::from(!v4)] = Some(now.saturating_add(OLDER));
            }
            for membership in &mut self.known {
                let own = membership.group;
                let asked = own.is_ipv4() == v4 && group.is_none_or(|group| group == own);
                if asked && !membership.left {
                    let at = now.saturating_add(within(most));
                    membership.at = Some(membership.at.map_or(at, |before| before.min(at)));
                }
            }
        }
        true
    }
}

/// Those of which every machine is one, and those that do not leave it, nobody is told of (RFC 3376, 6; RFC 3810, 6).
fn is_told(group: IpAddr) -> bool {
    let stays = matches!(group, IpAddr::V6(group) if group.segments()[0] & 0xf < 2);
    !(stays || joined::ALWAYS.contains(&group))
}

/// Some time up to this.
fn within(most: Duration) -> Duration {
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(if nanos == 0 { 0 } else { random::u64() % nanos })
}

struct Question {
    v4: bool,
    older: bool,
    /// How long the answer may take.
    most: Duration,
    /// None: all.
    group: Option<IpAddr>,
}

/// None: it is no IGMP. Some of None: it is no question.
#[expect(clippy::option_option, reason = "said above")]
fn question4(packet: &[u8]) -> Option<Option<Question>> {
    let header = packet.first_chunk::<20>().filter(|header| header[0] >> 4 == 4 && header[9] == IGMP)?;
    let end = usize::from(u16::from_be_bytes([header[2], header[3]]));
    let message = packet.get(usize::from(header[0] & 15) * 4..end).unwrap_or(&[]);
    let Some(head) = message.first_chunk::<OLD_QUERY4>() else { return Some(None) };
    if head[0] != QUERY4 || checksum(&[message]) != 0 {
        return Some(None);
    }
    let older = message.len() == OLD_QUERY4;
    let tenths = if older { u32::from(head[1]) } else { expand(head[1].into(), 8) };
    // Version 1 says nothing of time.
    let tenths = if older && tenths == 0 { 100 } else { tenths };
    let group = Ipv4Addr::new(head[4], head[5], head[6], head[7]);
    let group = (!group.is_unspecified()).then_some(IpAddr::V4(group));
    Some(Some(Question { v4: true, older, most: Duration::from_millis(u64::from(tenths) * 100), group }))
}

/// The same of MLD, whose messages come from neighbours, behind an option for routers.
#[expect(clippy::option_option, reason = "said above")]
fn question6(packet: &[u8]) -> Option<Option<Question>> {
    let header = packet.first_chunk::<HEADER6>()?;
    let is_message = header[0] >> 4 == 6 && header[6] == 0 && header[40] == ICMPV6 && header[41] == 0;
    let end = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    let message = packet.get(HEADER6..end).filter(|_| is_message)?;
    let head = message.first_chunk::<QUERY6_SIZE>().filter(|head| head[0] == QUERY6)?;
    let [from, to] = [8, 24].map(|at| Ipv6Addr::from(packet[at..].first_chunk::<16>().copied().unwrap_or_default()));
    let sound = from.is_unicast_link_local() && header[7] == 1;
    if !sound || pseudo_checksum(from.into(), to.into(), ICMPV6, message) != 0 {
        return Some(None);
    }
    let older = message.len() == QUERY6_SIZE;
    let code = u16::from_be_bytes([head[4], head[5]]);
    let millis = if older { code.into() } else { expand(code.into(), 16) };
    let group = Ipv6Addr::from(head[8..].first_chunk::<16>().copied().unwrap_or_default());
    let group = (!group.is_unspecified()).then_some(IpAddr::V6(group));
    Some(Some(Question { v4: false, older, most: Duration::from_millis(millis.into()), group }))
}

/// A number of so many bits that stands for a larger one if its first bit is set: then it has three of exponent, and the mantissa behind
/// them, of `width - 4` bits (RFC 3376, 4.1.1; RFC 3810, 5.1.3).
fn expand(code: u32, width: u32) -> u32 {
    if code >> (width - 1) == 0 {
        return code;
    }
    let mantissa = width - 4;
    let shift = (code >> mantissa & 7) + 3;
    (code & ((1 << mantissa) - 1) | 1 << mantissa) << shift
}

/// A frame for a group, with room for so many bytes behind its header.
fn frame(mac: [u8; 6], to: [u8; 6], kind: [u8; 2], len: usize) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET_HEADER + len);
    for part in [&to[..], &mac, &kind] {
        frame.extend_from_slice(part);
    }
    frame
}

fn report4(mac: [u8; 6], from: Ipv4Addr, group: Ipv4Addr, record: Record, older: bool) -> Vec<u8> {
    let [a, b, c, d] = group.octets();
    let (to, mut message) = match (older, record) {
        (false, _) => (REPORTS4, concat(&[&[REPORT4, 0, 0, 0, 0, 0, 0, 1, record as u8, 0, 0, 0, a, b, c, d]])),
        (true, Record::Left) => (ROUTERS4, concat(&[&[OLD_LEAVE4, 0, 0, 0, a, b, c, d]])),
        (true, _) => (group, concat(&[&[OLD_REPORT4, 0, 0, 0, a, b, c, d]])),
    };
    let sum = checksum(&[&message]);
    put(&mut message, 2, sum);
    let len = (HEADER4 + message.len()) as u16;
    // Precedence for control of the network, one hop, and the option that makes routers look (RFC 2113).
    let mut header = concat(&[&[0x46, 0xc0], &len.to_be_bytes(), &[0, 0, 0x40, 0, 1, IGMP, 0, 0]]);
    for part in [from.octets(), to.octets(), [0x94, 4, 0, 0]] {
        header.extend_from_slice(&part);
    }
    let sum = checksum(&[&header]);
    put(&mut header, 10, sum);
    let [_, b, c, d] = to.octets();
    let mut frame = frame(mac, [1, 0, 0x5e, b & 0x7f, c, d], [8, 0], len.into());
    frame.extend_from_slice(&header);
    frame.extend_from_slice(&message);
    frame
}

fn report6(mac: [u8; 6], from: Ipv6Addr, group: Ipv6Addr, record: Record, older: bool) -> Vec<u8> {
    let bytes = group.octets();
    let (to, mut message) = match (older, record) {
        (false, _) => (REPORTS6, concat(&[&[REPORT6, 0, 0, 0, 0, 0, 0, 1, record as u8, 0, 0, 0], &bytes])),
        (true, Record::Left) => (ROUTERS6, concat(&[&[OLD_LEAVE6, 0, 0, 0, 0, 0, 0, 0], &bytes])),
        (true, _) => (group, concat(&[&[OLD_REPORT6, 0, 0, 0, 0, 0, 0, 0], &bytes])),
    };
    let sum = pseudo_checksum(from.into(), to.into(), ICMPV6, &message);
    put(&mut message, 2, sum);
    let len = (HOP_HEADER + message.len()) as u16;
    let [.., a, b, c, d] = to.octets();
    let mut frame = frame(mac, [0x33, 0x33, a, b, c, d], [0x86, 0xdd], 40 + usize::from(len));
    // One hop, and behind the header the option that makes routers look (RFC 2711).
    for part in [&[0x60, 0, 0, 0][..], &len.to_be_bytes(), &[0, 1], &from.octets(), &to.octets()] {
        frame.extend_from_slice(part);
    }
    frame.extend_from_slice(&[ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
    frame.extend_from_slice(&message);
    frame
}

fn concat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}
