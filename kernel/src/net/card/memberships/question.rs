//! What somebody asks of groups: IGMP (RFC 3376, 4.1 and 7.1), MLD (RFC 3810, 5.1 and 8.1).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use super::{HOP_HEADER, ICMPV6, IGMP, Version};
use crate::net::inet::ip::packet::{checksum, pseudo_checksum};

const QUERY4: u8 = 0x11;
const QUERY6: u8 = 130;
/// Bytes of the older versions' questions; the newest one has four more at least.
const OLD_SIZE4: usize = 8;
const OLD_SIZE6: usize = 24;
const MORE: usize = 4;
/// How long answers to the first version of IGMP may take, which does not say it.
const FIRST_TIME: Duration = Duration::from_secs(10);
/// The header of IPv6.
const HEADER6: usize = 40;
/// Options of a header for each hop: padding of one byte, and what makes routers look, for MLD (RFC 2711).
const PADDING: u8 = 0;
const ROUTER_ALERT: [u8; 4] = [5, 2, 0, 0];

pub struct Question {
    pub v4: bool,
    pub version: Version,
    /// How long the answer may take.
    pub most: Duration,
    /// None: all.
    pub group: Option<IpAddr>,
}

/// What has come.
pub enum Heard {
    /// None of these protocols.
    Other,
    /// No question, or a broken one.
    Nothing,
    Question(Question),
}

/// Of a packet of IP.
pub fn read(packet: &[u8]) -> Heard {
    if let Some(message) = igmp(packet) {
        return question4(message).map_or(Heard::Nothing, Heard::Question);
    }
    match mld(packet) {
        Some(message) => question6(packet, message).map_or(Heard::Nothing, Heard::Question),
        None => Heard::Other,
    }
}

fn igmp(packet: &[u8]) -> Option<&[u8]> {
    let header = packet.first_chunk::<20>().filter(|header| header[0] >> 4 == 4 && header[9] == IGMP)?;
    let end = usize::from(u16::from_be_bytes([header[2], header[3]]));
    Some(packet.get(usize::from(header[0] & 15) * 4..end).unwrap_or(&[]))
}

fn question4(message: &[u8]) -> Option<Question> {
    let head = message.first_chunk::<OLD_SIZE4>().filter(|head| head[0] == QUERY4)?;
    let version = match (message.len(), head[1]) {
        (OLD_SIZE4, 0) => Version::First,
        (OLD_SIZE4, _) => Version::Second,
        (len, _) if len >= OLD_SIZE4 + MORE => Version::Newest,
        _ => return None,
    };
    if checksum(&[message]) != 0 {
        return None;
    }
    let tenths = |count: u32| Duration::from_millis(u64::from(count) * 100);
    let most = match version {
        Version::First => FIRST_TIME,
        Version::Second => tenths(head[1].into()),
        Version::Newest => tenths(expand(head[1].into(), 8)),
    };
    let group = Ipv4Addr::new(head[4], head[5], head[6], head[7]);
    let group = (!group.is_unspecified()).then_some(IpAddr::V4(group));
    Some(Question { v4: true, version, most, group })
}

/// A question of MLD, behind a header for each hop and nothing else.
fn mld(packet: &[u8]) -> Option<&[u8]> {
    let header = packet.first_chunk::<{ HEADER6 + HOP_HEADER }>()?;
    if header[0] >> 4 != 6 || header[6] != 0 || header[HEADER6] != ICMPV6 {
        return None;
    }
    let start = HEADER6 + HOP_HEADER * (1 + usize::from(header[HEADER6 + 1]));
    let end = HEADER6 + usize::from(u16::from_be_bytes([header[4], header[5]]));
    packet.get(start..end).filter(|message| message.first() == Some(&QUERY6))
}

fn question6(packet: &[u8], message: &[u8]) -> Option<Question> {
    let head = message.first_chunk::<OLD_SIZE6>()?;
    let version = match message.len() {
        OLD_SIZE6 => Version::Second,
        len if len >= OLD_SIZE6 + MORE => Version::Newest,
        _ => return None,
    };
    let [from, to] = [8, 24].map(|at| packet.get(at..).and_then(|rest| rest.first_chunk::<16>()).copied());
    let (from, to) = (Ipv6Addr::from(from?), Ipv6Addr::from(to?));
    // From a neighbour, and meant for routers on its way.
    let sound = from.is_unicast_link_local() && packet.get(7) == Some(&1) && alerts(packet);
    if !sound || pseudo_checksum(from.into(), to.into(), ICMPV6, message) != 0 {
        return None;
    }
    let code = u16::from_be_bytes([head[4], head[5]]);
    let millis = if version == Version::Second { code.into() } else { expand(code.into(), 16) };
    let group = Ipv6Addr::from(head[8..].first_chunk::<16>().copied().unwrap_or_default());
    let group = (!group.is_unspecified()).then_some(IpAddr::V6(group));
    Some(Question { v4: false, version, most: Duration::from_millis(millis.into()), group })
}

/// Does the header for each hop have the option that makes routers look?
fn alerts(packet: &[u8]) -> bool {
    let Some(header) = packet.get(HEADER6..) else { return false };
    let len = header.get(1).map_or(0, |len| HOP_HEADER * (1 + usize::from(*len)));
    let mut options = header.get(2..len).unwrap_or(&[]);
    while let Some(kind) = options.first() {
        if options.starts_with(&ROUTER_ALERT) {
            return true;
        }
        let len = if *kind == PADDING { 1 } else { 2 + options.get(1).copied().map_or(0, usize::from) };
        options = options.get(len..).unwrap_or(&[]);
    }
    false
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
