//! Socket options of the levels IPPROTO_IP and IPPROTO_IPV6: ip(7), ipv6(7).
//!
//! Those here do on the loopback what Linux does there: nothing that a program could see. Those that would need more are
//! refused (ENOPROTOOPT).

use alloc::vec::Vec;

use linux_raw_sys::net as raw;
use zerocopy::{FromBytes, IntoBytes};

use super::AF_INET6;
use super::told::Told;
use crate::errno::{Errno, Result};
use crate::net::socket::{Common, Type};

pub const SOL_IP: u32 = raw::IPPROTO_IP as u32;
pub const SOL_IPV6: u32 = raw::IPPROTO_IPV6 as u32;

/// IP_DEFTTL, and the hop limit of IPv6.
pub const HOPS: i32 = 64;
/// IP_PMTUDISC_WANT: the default; IP_PMTUDISC_OMIT is the last.
const DISCOVER_WANT: i32 = 1;
const DISCOVER_DO: i32 = 2;
const DISCOVER_PROBE: i32 = 3;
const DISCOVER_LAST: i32 = 5;
/// The bits of a type of service that say something of congestion: a stream keeps its own.
const ECN: i32 = 3;

/// What was given: four bytes, or one for options of IP.
pub fn int(value: &[u8], short: bool) -> Result<i32> {
    match i32::read_from_prefix(value) {
        Ok((int, _)) => Ok(int),
        Err(_) if short => value.first().map(|byte| i32::from(*byte)).ok_or(Errno::EINVAL),
        Err(_) => Err(Errno::EINVAL),
    }
}

pub fn within(value: i32, range: core::ops::RangeInclusive<i32>) -> Result<i32> {
    if range.contains(&value) { Ok(value) } else { Err(Errno::EINVAL) }
}

#[derive(Clone, Copy)]
pub struct IpOptions {
    /// IP_TOS, IP_TTL, IP_MTU_DISCOVER.
    tos: i32,
    hops: i32,
    discover: i32,
    /// IPV6_TCLASS, IPV6_UNICAST_HOPS, IPV6_MTU_DISCOVER.
    class: i32,
    hops6: i32,
    discover6: i32,
    /// IPV6_V6ONLY.
    pub only_v6: bool,
    pub told: Told,
}

impl IpOptions {
    pub fn new() -> Self {
        IpOptions {
            tos: 0,
            hops: HOPS,
            discover: DISCOVER_WANT,
            class: 0,
            hops6: HOPS,
            discover6: DISCOVER_WANT,
            only_v6: false,
            told: Told::default(),
        }
    }

    /// Whether packets may be cut into fragments on their way out (ip_sk_ignore_df of Linux).
    pub fn fragments(&self, v4: bool) -> bool {
        let discover = if v4 { self.discover } else { self.discover6 };
        discover < DISCOVER_DO || discover == DISCOVER_LAST
    }

    /// Whether a size that the network has told counts, which are those below IP_PMTUDISC_PROBE.
    pub fn heeds_size(&self, v4: bool) -> bool {
        (if v4 { self.discover } else { self.discover6 }) < DISCOVER_PROBE
    }

    /// Whether it wants to know how large packets may be: all but IP_PMTUDISC_DONT.
    pub fn discovers(&self, v4: bool) -> bool {
        (if v4 { self.discover } else { self.discover6 }) != 0
    }

    pub fn get(&self, common: &Common, level: u32, option: u32) -> Result<Vec<u8>> {
        if let Some(value) = self.told.get(common, level, option) {
            return Ok(value.as_bytes().to_vec());
        }
        let value = match (level, option) {
            (SOL_IP, raw::IP_TOS) => self.tos,
            (SOL_IP, raw::IP_TTL) => self.hops,
            (SOL_IP, raw::IP_MTU_DISCOVER) => self.discover,
            // Raw sockets have it; all others can ask.
            (SOL_IP, raw::IP_HDRINCL) => 0,
            (SOL_IPV6, _) if common.family != AF_INET6 => return Err(Errno::EOPNOTSUPP),
            (SOL_IPV6, raw::IPV6_TCLASS) => self.class,
            (SOL_IPV6, raw::IPV6_UNICAST_HOPS) => self.hops6,
            (SOL_IPV6, raw::IPV6_MTU_DISCOVER) => self.discover6,
            (SOL_IPV6, raw::IPV6_V6ONLY) => self.only_v6.into(),
            (SOL_IP | SOL_IPV6, _) => return Err(Errno::ENOPROTOOPT),
            _ => return Err(Errno::EOPNOTSUPP),
        };
        Ok(value.as_bytes().to_vec())
    }

    /// IP_TTL or IPV6_UNICAST_HOPS.
    pub fn hops(&self, v4: bool) -> u8 {
        if v4 { self.hops as u8 } else { self.hops6 as u8 }
    }

    /// IP_TOS or IPV6_TCLASS.
    pub fn class(&self, v4: bool) -> u8 {
        if v4 { self.tos as u8 } else { self.class as u8 }
    }

    pub fn set(&mut self, common: &Common, level: u32, option: u32, value: &[u8], bound: bool) -> Result<()> {
        if let Some(answer) = self.told.set(common, level, option, value) {
            return answer;
        }
        match (level, option) {
            (SOL_IP, raw::IP_TOS) => {
                let tos = int(value, true)? & 0xff;
                self.tos = if common.kind == Type::Stream { tos & !ECN | self.tos & ECN } else { tos };
            }
            (SOL_IP, raw::IP_TTL) => {
                let hops = int(value, true)?;
                self.hops = if hops == -1 { HOPS } else { within(hops, 1..=255)? };
            }
            (SOL_IP, raw::IP_MTU_DISCOVER) => self.discover = within(int(value, true)?, 0..=DISCOVER_LAST)?,
            (SOL_IPV6, _) if common.family != AF_INET6 => return Err(Errno::ENOPROTOOPT),
            (SOL_IPV6, raw::IPV6_TCLASS) => self.class = within(int(value, false)?, -1..=255)?.max(0),
            (SOL_IPV6, raw::IPV6_UNICAST_HOPS) => {
                let hops = within(int(value, false)?, -1..=255)?;
                self.hops6 = if hops == -1 { HOPS } else { hops };
            }
            (SOL_IPV6, raw::IPV6_MTU_DISCOVER) => self.discover6 = within(int(value, false)?, 0..=DISCOVER_LAST)?,
            (SOL_IPV6, raw::IPV6_V6ONLY) => {
                let only = int(value, false)? != 0;
                if bound {
                    return Err(Errno::EINVAL);
                }
                self.only_v6 = only;
            }
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }
}
