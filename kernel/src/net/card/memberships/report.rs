//! What is told of groups: a frame with a report, of IGMP (RFC 3376, 4.2; RFC 2236; RFC 1112) or MLD (RFC 3810, 5.2; RFC 2710).

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::{ETHERNET_HEADER, MTU};
use super::{HOP_HEADER, ICMPV6, IGMP, Version};
use crate::net::inet::ip::packet::{checksum, pseudo_checksum, put};

/// Who listens to reports, and to those who leave in the older versions: all routers that know the protocol, all routers.
const REPORTS4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 22);
const ROUTERS4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 2);
const REPORTS6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
const ROUTERS6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// Types of messages.
const REPORT4: u8 = 0x22;
const FIRST_REPORT4: u8 = 0x12;
const SECOND_REPORT4: u8 = 0x16;
const SECOND_LEAVE4: u8 = 0x17;
const REPORT6: u8 = 143;
const OLD_REPORT6: u8 = 131;
const OLD_LEAVE6: u8 = 132;
/// Bytes before a message: the headers of IPv4, with an option, and of IPv6.
const HEADER4: usize = 24;
const HEADER6: usize = 40 + HOP_HEADER;
/// Of the newest versions' reports, before their records.
const HEAD: usize = 8;

/// What is said of a group: the types of records.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Record {
    Is = 2,
    Left = 3,
    Joined = 4,
}

/// A message, and to whom it goes.
pub struct Report {
    v4: bool,
    version: Version,
    to: IpAddr,
    message: Vec<u8>,
    records: u16,
}

impl Report {
    pub fn new(v4: bool, version: Version) -> Report {
        let to = if v4 { REPORTS4.into() } else { REPORTS6.into() };
        let mut message = Vec::new();
        if version == Version::Newest {
            message.extend_from_slice(&[if v4 { REPORT4 } else { REPORT6 }, 0, 0, 0, 0, 0, 0, 0]);
        }
        Report { v4, version, to, message, records: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// The older versions speak of one group at a time.
    pub fn is_full(&self) -> bool {
        let (header, record) = if self.v4 { (HEADER4, 4 + 4) } else { (HEADER6, 4 + 16) };
        let most = if self.version == Version::Newest { (MTU - header - HEAD) / record } else { 1 };
        usize::from(self.records) >= most
    }

    /// The way it goes: in IPv6 neighbours speak with each other by their addresses on the link.
    pub fn towards(&self) -> IpAddr {
        if self.v4 { self.to } else { REPORTS6.into() }
    }

    /// Tells of a group of its family, as long as it is not full.
    pub fn add(&mut self, group: IpAddr, record: Record) {
        let message = &mut self.message;
        let kind = match (self.version, group, record) {
            (Version::Newest, ..) => {
                message.extend_from_slice(&[record as u8, 0, 0, 0]);
                None
            }
            // It knows nobody who leaves.
            (Version::First, IpAddr::V4(_), Record::Left) => return,
            (Version::First, IpAddr::V4(_), _) => Some((FIRST_REPORT4, group)),
            (_, IpAddr::V4(_), Record::Left) => Some((SECOND_LEAVE4, ROUTERS4.into())),
            (_, IpAddr::V4(_), _) => Some((SECOND_REPORT4, group)),
            (_, IpAddr::V6(_), Record::Left) => Some((OLD_LEAVE6, ROUTERS6.into())),
            (_, IpAddr::V6(_), _) => Some((OLD_REPORT6, group)),
        };
        if let Some((kind, to)) = kind {
            self.to = to;
            message.push(kind);
            message.resize(if self.v4 { 4 } else { HEAD }, 0);
        }
        match group {
            IpAddr::V4(group) => message.extend_from_slice(&group.octets()),
            IpAddr::V6(group) => message.extend_from_slice(&group.octets()),
        }
        self.records += 1;
    }

    /// From this address, or from none before there is one (RFC 3376, 4.2.13; RFC 3810, 5.2.13).
    pub fn frame(mut self, mac: [u8; 6], from: Option<IpAddr>) -> Vec<u8> {
        if self.version == Version::Newest {
            put(&mut self.message, HEAD - 2, self.records);
        }
        match (self.to, from) {
            (IpAddr::V4(to), Some(IpAddr::V4(from))) => self.frame4(mac, from, to),
            (IpAddr::V4(to), _) => self.frame4(mac, Ipv4Addr::UNSPECIFIED, to),
            (IpAddr::V6(to), Some(IpAddr::V6(from))) => self.frame6(mac, from, to),
            (IpAddr::V6(to), _) => self.frame6(mac, Ipv6Addr::UNSPECIFIED, to),
        }
    }

    fn frame4(mut self, mac: [u8; 6], from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
        let sum = checksum(&[&self.message]);
        put(&mut self.message, 2, sum);
        let len = (HEADER4 + self.message.len()) as u16;
        // Precedence for control of the network, one hop, and the option that makes routers look (RFC 2113).
        let start = [&[0x46, 0xc0], &len.to_be_bytes()[..], &[0, 0, 0x40, 0, 1, IGMP, 0, 0]];
        let ends = [from.octets(), to.octets(), [0x94, 4, 0, 0]];
        let mut header = [start.concat(), ends.concat()].concat();
        let sum = checksum(&[&header]);
        put(&mut header, 10, sum);
        let [_, b, c, d] = to.octets();
        [&[1, 0, 0x5e, b & 0x7f, c, d][..], &mac, &[8, 0], &header, &self.message].concat()
    }

    fn frame6(mut self, mac: [u8; 6], from: Ipv6Addr, to: Ipv6Addr) -> Vec<u8> {
        let sum = pseudo_checksum(from.into(), to.into(), ICMPV6, &self.message);
        put(&mut self.message, 2, sum);
        let len = (HOP_HEADER + self.message.len()) as u16;
        let [.., a, b, c, d] = to.octets();
        let mut frame = Vec::with_capacity(ETHERNET_HEADER + HEADER6 + self.message.len());
        for part in [&[0x33, 0x33, a, b, c, d][..], &mac, &[0x86, 0xdd]] {
            frame.extend_from_slice(part);
        }
        // One hop, and behind the header the option that makes routers look (RFC 2711).
        for part in [&[0x60, 0, 0, 0][..], &len.to_be_bytes(), &[0, 1], &from.octets(), &to.octets()] {
            frame.extend_from_slice(part);
        }
        frame.extend_from_slice(&[ICMPV6, 0, 5, 2, 0, 0, 1, 0]);
        frame.extend_from_slice(&self.message);
        frame
    }
}
