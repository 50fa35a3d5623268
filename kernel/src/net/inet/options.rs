//! Socket options of the levels IPPROTO_IP, IPPROTO_IPV6 and IPPROTO_TCP: ip(7), ipv6(7), tcp(7).
//!
//! Those here do on the loopback what Linux does there: nothing that a program could see. Those that would need more are
//! refused (ENOPROTOOPT).

use alloc::vec::Vec;
use core::time::Duration;

use linux_raw_sys::net as raw;
use zerocopy::{FromBytes, IntoBytes};

use super::tcp::KeepAlive;
use super::told::Told;
use super::{AF_INET6, IPPROTO_TCP};
use crate::errno::{Errno, Result};
use crate::net::socket::{Common, Type};

pub const SOL_IP: u32 = raw::IPPROTO_IP as u32;
pub const SOL_IPV6: u32 = raw::IPPROTO_IPV6 as u32;
pub const SOL_TCP: u32 = IPPROTO_TCP as u32;

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
fn int(value: &[u8], short: bool) -> Result<i32> {
    match i32::read_from_prefix(value) {
        Ok((int, _)) => Ok(int),
        Err(_) if short => value.first().map(|byte| i32::from(*byte)).ok_or(Errno::EINVAL),
        Err(_) => Err(Errno::EINVAL),
    }
}

fn within(value: i32, range: core::ops::RangeInclusive<i32>) -> Result<i32> {
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

/// An option of TCP that is a number: its first value, and what it may be. A switch is 0 or 1, whatever is given.
struct Number {
    option: u32,
    first: i32,
    range: core::ops::RangeInclusive<i32>,
}

const NUMBERS: [Number; 7] = [
    Number { option: raw::TCP_NODELAY, first: 0, range: 0..=1 },
    Number { option: raw::TCP_CORK, first: 0, range: 0..=1 },
    Number { option: raw::TCP_KEEPIDLE, first: 7200, range: 1..=32_767 },
    Number { option: raw::TCP_KEEPINTVL, first: 75, range: 1..=32_767 },
    Number { option: raw::TCP_KEEPCNT, first: 9, range: 1..=127 },
    Number { option: raw::TCP_SYNCNT, first: 6, range: 1..=127 },
    Number { option: raw::TCP_USER_TIMEOUT, first: 0, range: 0..=i32::MAX },
];

/// sizeof(struct tcp_info) of Linux 6.1.
const INFO_SIZE: usize = 240;
/// TCP_CA_NAME_MAX.
const NAME_SIZE: usize = 16;
/// What there is to choose from, and the default first. Within the machine nothing is ever congested.
const ALGORITHMS: [&str; 2] = ["cubic", "reno"];

#[derive(Clone, Copy)]
pub struct TcpOptions {
    numbers: [i32; NUMBERS.len()],
    algorithm: &'static str,
}

impl TcpOptions {
    pub fn new() -> Self {
        TcpOptions { numbers: NUMBERS.map(|number| number.first), algorithm: ALGORITHMS[0] }
    }

    fn number(&self, option: u32) -> u32 {
        let mut all = NUMBERS.iter().zip(self.numbers);
        all.find(|(number, _)| number.option == option).map_or(0, |(_, value)| value.max(0) as u32)
    }

    pub fn nodelay(&self) -> bool {
        self.number(raw::TCP_NODELAY) != 0
    }

    pub fn keep_alive(&self) -> KeepAlive {
        let seconds = |option| Duration::from_secs(self.number(option).into());
        KeepAlive {
            idle: seconds(raw::TCP_KEEPIDLE),
            interval: seconds(raw::TCP_KEEPINTVL),
            count: self.number(raw::TCP_KEEPCNT),
        }
    }

    pub fn user_timeout(&self) -> Option<Duration> {
        let milliseconds = self.number(raw::TCP_USER_TIMEOUT);
        (milliseconds != 0).then(|| Duration::from_millis(milliseconds.into()))
    }

    /// `state`: the connection's, for TCP_INFO.
    pub fn get(&self, option: u32, state: u8) -> Result<Vec<u8>> {
        match option {
            raw::TCP_INFO => {
                let mut info = vec![0; INFO_SIZE];
                if let Some(first) = info.first_mut() {
                    *first = state;
                }
                Ok(info)
            }
            raw::TCP_CONGESTION => {
                let mut name = self.algorithm.as_bytes().to_vec();
                name.resize(NAME_SIZE, 0);
                Ok(name)
            }
            _ => {
                let mut all = NUMBERS.iter().zip(self.numbers);
                let (_, value) = all.find(|(number, _)| number.option == option).ok_or(Errno::ENOPROTOOPT)?;
                Ok(value.as_bytes().to_vec())
            }
        }
    }

    pub fn set(&mut self, option: u32, value: &[u8]) -> Result<()> {
        if option == raw::TCP_CONGESTION {
            let given = value.get(..value.len().min(NAME_SIZE - 1)).unwrap_or(value);
            let name = given.split(|byte| *byte == 0).next().unwrap_or(given);
            if given.is_empty() {
                return Err(Errno::EINVAL);
            }
            let known = ALGORITHMS.into_iter().find(|known| known.as_bytes() == name);
            self.algorithm = known.ok_or(Errno::ENOENT)?;
            return Ok(());
        }
        let value = int(value, false)?;
        let mut all = NUMBERS.iter().zip(&mut self.numbers);
        let (number, place) = all.find(|(number, _)| number.option == option).ok_or(Errno::ENOPROTOOPT)?;
        *place = if number.range == (0..=1) { (value != 0).into() } else { within(value, number.range.clone())? };
        Ok(())
    }
}
