//! IP packets as bytes: headers and checksums.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;

use zerocopy::FromBytes;

use super::super::{IPPROTO_ICMP, IPPROTO_ICMPV6};
use crate::errno::{Errno, Result};

/// Bytes of a header without options.
pub const HEADER4: usize = 20;
pub const HEADER6: usize = 40;
/// The longest packet and, for IPv6, the longest behind the header.
pub const LONGEST: usize = 65_535;

/// Types of ICMP and ICMPv6.
pub const ECHO_REPLY: u8 = 0;
pub const ECHO: u8 = 8;
pub const ECHO6: u8 = 128;
pub const ECHO_REPLY6: u8 = 129;

/// A packet that has come.
#[derive(Clone, Copy)]
pub struct Arrived<'a> {
    /// With its header.
    pub whole: &'a [u8],
    pub payload: &'a [u8],
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: u8,
    pub hops: u8,
    /// Type of service, traffic class.
    pub class: u8,
    /// The interface.
    pub index: i32,
}

impl<'a> Arrived<'a> {
    /// None: it is not all there, damaged, or a fragment.
    pub fn parse(packet: &'a [u8], index: i32) -> Option<Arrived<'a>> {
        match packet.first()? >> 4 {
            4 => Self::parse4(packet, index),
            6 => Self::parse6(packet, index),
            _ => None,
        }
    }

    fn parse4(packet: &'a [u8], index: i32) -> Option<Arrived<'a>> {
        let header = packet.first_chunk::<HEADER4>()?;
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let own = usize::from(header[0] & 15) * 4;
        // More fragments, or not the first one.
        let is_fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
        if is_fragment || own < HEADER4 {
            return None;
        }
        let whole = packet.get(..len)?;
        if checksum(&[whole.get(..own)?]) != 0 {
            return None;
        }
        let ip =
            |at: usize| <[u8; 4]>::read_from_prefix(header.get(at..)?).ok().map(|(octets, _)| IpAddr::from(octets));
        Some(Arrived {
            whole,
            payload: whole.get(own..)?,
            from: ip(12)?,
            to: ip(16)?,
            protocol: header[9],
            hops: header[8],
            class: header[1],
            index,
        })
    }

    fn parse6(packet: &'a [u8], index: i32) -> Option<Arrived<'a>> {
        let header = packet.first_chunk::<HEADER6>()?;
        let len = HEADER6 + usize::from(u16::from_be_bytes([header[4], header[5]]));
        let whole = packet.get(..len)?;
        let ip =
            |at: usize| <[u8; 16]>::read_from_prefix(header.get(at..)?).ok().map(|(octets, _)| IpAddr::from(octets));
        Some(Arrived {
            whole,
            payload: whole.get(HEADER6..)?,
            from: ip(8)?,
            to: ip(24)?,
            protocol: header[6],
            hops: header[7],
            class: header[0] << 4 | header[1] >> 4,
            index,
        })
    }

    /// The type of a message of ICMP or ICMPv6 that came whole.
    pub fn message(&self) -> Option<u8> {
        let good = match self.protocol {
            IPPROTO_ICMP if self.from.is_ipv4() => checksum(&[self.payload]) == 0,
            IPPROTO_ICMPV6 if self.from.is_ipv6() => self.checksum_with_ends() == 0,
            _ => false,
        };
        self.payload.first().copied().filter(|_| good && self.payload.len() >= 8)
    }

    /// What is 0 if the payload has a checksum over it and both addresses that is right.
    pub fn checksum_with_ends(&self) -> u16 {
        pseudo_checksum(self.from, self.to, self.protocol, self.payload)
    }
}

/// Both addresses and how much of which protocol: what the checksums of IPv6 cover besides the payload.
pub fn pseudo_checksum(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> u16 {
    let (IpAddr::V6(from), IpAddr::V6(to)) = (from, to) else { return 0 };
    let mut rest = [0; 8];
    rest[..4].copy_from_slice(&(payload.len() as u32).to_be_bytes());
    rest[7] = protocol;
    checksum(&[&from.octets(), &to.octets(), &rest, payload])
}

/// That of RFC 1071, over pieces of even lengths but for the last.
pub fn checksum(pieces: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for piece in pieces {
        let (pairs, odd) = piece.as_chunks::<2>();
        sum += pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum::<u64>();
        sum += odd.first().map_or(0, |byte| u64::from(*byte) << 8);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Puts a number into a packet.
pub fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes.iter_mut().skip(at).zip(value.to_be_bytes()).for_each(|(to, from)| *to = from);
}

/// What goes into the header of a packet.
#[derive(Clone, Copy)]
pub struct Head {
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: u8,
    pub hops: u8,
    pub class: u8,
    /// Of IPv4.
    pub ident: u16,
}

impl Head {
    /// A packet with this payload. EMSGSIZE: it is too long.
    pub fn before(&self, payload: &[u8]) -> Result<Box<[u8]>> {
        let own = if self.to.is_ipv4() { HEADER4 } else { HEADER6 };
        let most = if self.to.is_ipv4() { LONGEST - HEADER4 } else { LONGEST };
        if payload.len() > most {
            return Err(Errno::EMSGSIZE);
        }
        let mut packet = Vec::new();
        packet.try_reserve_exact(own + payload.len()).map_err(|_| Errno::ENOBUFS)?;
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                packet.extend([0x45, self.class]);
                packet.extend(((own + payload.len()) as u16).to_be_bytes());
                packet.extend(self.ident.to_be_bytes());
                packet.extend([0, 0, self.hops, self.protocol, 0, 0]);
                packet.extend(from.octets());
                packet.extend(to.octets());
                let sum = checksum(&[&packet]);
                put(&mut packet, 10, sum);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                packet.extend([0x60 | self.class >> 4, self.class << 4, 0, 0]);
                packet.extend((payload.len() as u16).to_be_bytes());
                packet.extend([self.protocol, self.hops]);
                packet.extend(from.octets());
                packet.extend(to.octets());
            }
            _ => return Err(Errno::EINVAL),
        }
        packet.extend_from_slice(payload);
        Ok(packet.into_boxed_slice())
    }
}
