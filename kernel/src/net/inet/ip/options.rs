//! The options that only raw sockets have: raw(7), ipv6(7).

use alloc::vec::Vec;

use linux_raw_sys::net as raw;
use zerocopy::{FromBytes, IntoBytes};

use super::super::options::{SOL_IP, SOL_IPV6};
use super::super::{AF_INET6, IPPROTO_ICMP, IPPROTO_ICMPV6};
use super::packet::Arrived;
use crate::errno::{Errno, Result};
use crate::net::socket::{Common, Type};

const SOL_ICMPV6: u32 = IPPROTO_ICMPV6 as u32;
const SOL_RAW: u32 = 255;
/// Of SOL_RAW; of SOL_ICMPV6.
const ICMP_FILTER: u32 = 1;
const ICMP6_FILTER: u32 = 1;
/// IPPROTO_RAW: programs write the headers.
const WRITTEN: u8 = 255;
/// Where the checksum of ICMPv6 is.
const CHECKSUM_OF_ICMP6: u16 = 2;
/// Bytes of the largest filter.
const FILTER: usize = 32;

fn int(value: &[u8]) -> Result<i32> {
    i32::read_from_prefix(value).map(|(int, _)| int).map_err(|_| Errno::EINVAL)
}

/// What only raw sockets have.
#[derive(Clone, Copy)]
pub struct RawOptions {
    /// IP_HDRINCL: programs write the header of IPv4.
    pub with_header: bool,
    /// IPV6_CHECKSUM: where the checksum is that the kernel computes and looks at.
    pub checksum: Option<u16>,
    /// Types of messages that are not wanted: ICMP_FILTER has 32 of them, ICMP6_FILTER all.
    filter: [u8; FILTER],
}

impl RawOptions {
    pub fn new(family: u16, protocol: u8) -> Self {
        let is_icmp6 = family == AF_INET6 && protocol == IPPROTO_ICMPV6;
        RawOptions {
            with_header: protocol == WRITTEN,
            checksum: is_icmp6.then_some(CHECKSUM_OF_ICMP6),
            filter: [0; FILTER],
        }
    }

    /// How long the filter for messages of this protocol is.
    fn filter_size(level: u32, option: u32, common: &Common) -> Option<usize> {
        let v6 = common.family == AF_INET6;
        match (level, option) {
            (SOL_RAW, ICMP_FILTER) if !v6 && common.protocol == IPPROTO_ICMP => Some(4),
            (SOL_ICMPV6, ICMP6_FILTER) if v6 && common.protocol == IPPROTO_ICMPV6 => Some(FILTER),
            _ => None,
        }
    }

    /// Why there is no such option at one of the levels of raw sockets.
    fn refusal(common: &Common, level: u32, option: u32) -> Option<Errno> {
        let v6 = common.family == AF_INET6;
        match (level, option) {
            (SOL_RAW, ICMP_FILTER) if !v6 => Some(Errno::EOPNOTSUPP),
            (SOL_ICMPV6, _) if v6 && common.protocol != IPPROTO_ICMPV6 => Some(Errno::EOPNOTSUPP),
            // Those of AF_INET6 know nothing of IPv4.
            (SOL_IP, _) if v6 => Some(Errno::ENOPROTOOPT),
            (SOL_RAW, _) => Some(Errno::ENOPROTOOPT),
            (SOL_ICMPV6, _) if v6 => Some(Errno::ENOPROTOOPT),
            _ => None,
        }
    }

    pub fn filters(&self, packet: &Arrived<'_>) -> bool {
        let most = match packet.protocol {
            IPPROTO_ICMP if packet.to.is_ipv4() => 32,
            IPPROTO_ICMPV6 if packet.to.is_ipv6() => 256,
            _ => return false,
        };
        // Those that are cut short have no type.
        let Some(kind) = packet.payload.first().copied().filter(|_| packet.payload.len() >= 8 || most > 32) else {
            return true;
        };
        let word =
            self.filter.as_chunks::<4>().0.get(usize::from(kind / 32)).map_or(0, |word| u32::from_ne_bytes(*word));
        usize::from(kind) < most && word & 1 << (kind % 32) != 0
    }

    /// None: it is none of these.
    pub fn get(&self, common: &Common, level: u32, option: u32) -> Option<Result<Vec<u8>>> {
        if common.kind != Type::Raw {
            return None;
        }
        if let Some(size) = Self::filter_size(level, option, common) {
            return Some(Ok(self.filter.get(..size).unwrap_or(&[]).to_vec()));
        }
        let value = match (level, option) {
            (SOL_IP, raw::IP_HDRINCL) if common.family != AF_INET6 => i32::from(self.with_header),
            (SOL_RAW | SOL_IPV6, raw::IPV6_CHECKSUM) if common.family == AF_INET6 => {
                self.checksum.map_or(-1, i32::from)
            }
            _ => return Self::refusal(common, level, option).map(Err),
        };
        Some(Ok(value.as_bytes().to_vec()))
    }

    pub fn set(&mut self, common: &Common, level: u32, option: u32, value: &[u8]) -> Option<Result<()>> {
        if common.kind != Type::Raw {
            return None;
        }
        if let Some(size) = Self::filter_size(level, option, common) {
            self.filter.iter_mut().zip(value.iter().take(size)).for_each(|(to, from)| *to = *from);
            return Some(Ok(()));
        }
        Some(match (level, option) {
            (SOL_IP, raw::IP_HDRINCL) if common.family != AF_INET6 => {
                let on = int(value).or(value.first().map(|byte| i32::from(*byte)).ok_or(Errno::EINVAL));
                on.map(|on| self.with_header = on != 0)
            }
            (SOL_RAW | SOL_IPV6, raw::IPV6_CHECKSUM) if common.family == AF_INET6 => {
                self.set_checksum(common, level, value)
            }
            _ => return Self::refusal(common, level, option).map(Err),
        })
    }

    /// RFC 3542: an even place, or none. That of ICMPv6 is not to be changed, but Linux lets it at one of the levels.
    fn set_checksum(&mut self, common: &Common, level: u32, value: &[u8]) -> Result<()> {
        let place = int(value)?;
        if common.protocol == IPPROTO_ICMPV6 && level == SOL_IPV6 || place > 0 && place & 1 != 0 {
            return Err(Errno::EINVAL);
        }
        self.checksum = if place < 0 { None } else { Some(u16::try_from(place).map_err(|_| Errno::EINVAL)?) };
        Ok(())
    }
}
