//! Socket options of the level IPPROTO_TCP: tcp(7).
//!
//! On the loopback those of keep-alive, times and congestion change nothing that a program could see, as on Linux.

use alloc::vec::Vec;
use core::time::Duration;

use linux_raw_sys::net as raw;
use zerocopy::IntoBytes;

use super::KeepAlive;
use crate::errno::{Errno, Result};
use crate::net::inet::IPPROTO_TCP;
use crate::net::inet::options::{int, within};
use crate::net::limits;

pub const SOL_TCP: u32 = IPPROTO_TCP as u32;

/// An option of TCP that is a number: its first value, and what it may be. A switch is 0 or 1, whatever is given.
struct Number {
    option: u32,
    first: i32,
    range: core::ops::RangeInclusive<i32>,
}

const NUMBERS: [Number; 8] = [
    Number { option: raw::TCP_NODELAY, first: 0, range: 0..=1 },
    Number { option: raw::TCP_CORK, first: 0, range: 0..=1 },
    Number { option: raw::TCP_KEEPIDLE, first: 7200, range: 1..=32_767 },
    Number { option: raw::TCP_KEEPINTVL, first: 75, range: 1..=32_767 },
    Number { option: raw::TCP_KEEPCNT, first: 9, range: 1..=127 },
    Number { option: raw::TCP_SYNCNT, first: 6, range: 1..=127 },
    Number { option: raw::TCP_QUICKACK, first: 1, range: 0..=1 },
    Number { option: raw::TCP_USER_TIMEOUT, first: 0, range: 0..=i32::MAX },
];

/// What TCP_MAXSEG may be besides 0 (TCP_MIN_MSS and MAX_TCP_WINDOW of Linux).
const SEGMENTS: core::ops::RangeInclusive<i32> = 88..=32_767;
/// Seconds that TCP_DEFER_ACCEPT counts in, as retries of a SYN: 1, 3, 7, 15, … up to 120 more each.
const FIRST_RETRY: i32 = 1;
const LAST_RETRY: i32 = 120;
const RETRIES: i32 = 255;
/// TCP_FIN_TIMEOUT_MAX, seconds.
const MAX_END_TIME: i32 = 120;
/// Half of SOCK_MIN_RCVBUF of Linux.
const LEAST_CLAMP: u32 = 1152;
/// TCP_CA_NAME_MAX.
const NAME_SIZE: usize = 16;
/// What there is to choose from, and the default first. Within the machine nothing is ever congested.
const ALGORITHMS: [&str; 2] = ["cubic", "reno"];

#[derive(Clone, Copy)]
pub struct TcpOptions {
    numbers: [i32; NUMBERS.len()],
    algorithm: &'static str,
    /// TCP_MAXSEG; 0: none is wanted.
    pub segment: i32,
    /// TCP_DEFER_ACCEPT, seconds.
    defer: i32,
    /// TCP_LINGER2, seconds; 0: as others; negative: none.
    linger: i32,
    /// The least clamp is half of the least receive buffer.
    clamp: i32,
    /// As the program has given it.
    unsent_low: i32,
}

/// As many seconds as it takes until so many retries have been made (secs_to_retrans and retrans_to_secs of Linux).
fn whole_retries(seconds: i32) -> i32 {
    if seconds <= 0 {
        return 0;
    }
    let (mut sum, mut time) = (FIRST_RETRY, FIRST_RETRY);
    for _ in 1..RETRIES {
        if seconds <= sum {
            break;
        }
        time = (time * 2).min(LAST_RETRY);
        sum += time;
    }
    sum
}

impl TcpOptions {
    pub fn new() -> Self {
        TcpOptions {
            numbers: NUMBERS.map(|number| number.first),
            algorithm: ALGORITHMS[0],
            segment: 0,
            defer: 0,
            linger: 0,
            clamp: 0,
            unsent_low: 0,
        }
    }

    fn number(&self, option: u32) -> u32 {
        let mut all = NUMBERS.iter().zip(self.numbers);
        all.find(|(number, _)| number.option == option).map_or(0, |(_, value)| value.max(0) as u32)
    }

    pub fn nodelay(&self) -> bool {
        self.number(raw::TCP_NODELAY) != 0
    }

    pub fn corked(&self) -> bool {
        self.number(raw::TCP_CORK) != 0
    }

    /// TCP_WINDOW_CLAMP, bytes; 0: none.
    pub fn clamp(&self) -> u32 {
        self.clamp as u32
    }

    /// TCP_NOTSENT_LOWAT, bytes; 0: none.
    pub fn unsent_low(&self) -> u32 {
        self.unsent_low as u32
    }

    pub fn keep_alive(&self) -> KeepAlive {
        let seconds = |option| Duration::from_secs(self.number(option).into());
        KeepAlive {
            idle: seconds(raw::TCP_KEEPIDLE),
            interval: seconds(raw::TCP_KEEPINTVL),
            count: self.number(raw::TCP_KEEPCNT),
        }
    }

    /// 0: none.
    pub fn user_timeout_ms(&self) -> u32 {
        self.number(raw::TCP_USER_TIMEOUT)
    }

    pub fn user_timeout(&self) -> Option<Duration> {
        let milliseconds = self.user_timeout_ms();
        (milliseconds != 0).then(|| Duration::from_millis(milliseconds.into()))
    }

    /// What a connection has from its listener.
    pub fn inherit(&self) -> Self {
        TcpOptions { defer: 0, ..*self }
    }

    /// How long a connection that no program has any more waits for the other side's end. None: not at all.
    pub fn end_time(&self) -> Option<Duration> {
        (self.linger >= 0).then(|| Duration::from_secs(self.end_seconds() as u64))
    }

    /// As getsockopt(2) tells it.
    fn end_seconds(&self) -> i32 {
        if self.linger == 0 { limits::FIN_TIME.get() as i32 } else { self.linger }
    }

    /// How long a connection waits for its first bytes until accept(2) answers it.
    pub fn deferral(&self) -> Option<Duration> {
        (self.defer > 0).then(|| Duration::from_secs(self.defer as u64))
    }

    pub fn get(&self, option: u32) -> Result<Vec<u8>> {
        match option {
            raw::TCP_DEFER_ACCEPT => Ok(self.defer.as_bytes().to_vec()),
            raw::TCP_WINDOW_CLAMP => Ok(self.clamp.as_bytes().to_vec()),
            raw::TCP_NOTSENT_LOWAT => Ok(self.unsent_low.as_bytes().to_vec()),
            raw::TCP_LINGER2 => Ok(self.end_seconds().as_bytes().to_vec()),
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

    /// `fresh`: the socket is not connected.
    pub fn set(&mut self, option: u32, value: &[u8], fresh: bool) -> Result<()> {
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
        match option {
            raw::TCP_MAXSEG => {
                self.segment = if value == 0 { 0 } else { within(value, SEGMENTS)? };
                return Ok(());
            }
            raw::TCP_DEFER_ACCEPT => {
                self.defer = whole_retries(value);
                return Ok(());
            }
            raw::TCP_WINDOW_CLAMP => {
                if value == 0 && !fresh {
                    return Err(Errno::EINVAL);
                }
                // A negative one is a huge one.
                self.clamp = if value == 0 { 0 } else { (value as u32).clamp(LEAST_CLAMP, i32::MAX as u32) as i32 };
                return Ok(());
            }
            raw::TCP_NOTSENT_LOWAT => {
                self.unsent_low = value;
                return Ok(());
            }
            raw::TCP_LINGER2 => {
                self.linger = value.clamp(-1, MAX_END_TIME);
                return Ok(());
            }
            _ => {}
        }
        let mut all = NUMBERS.iter().zip(&mut self.numbers);
        let (number, place) = all.find(|(number, _)| number.option == option).ok_or(Errno::ENOPROTOOPT)?;
        *place = if number.range == (0..=1) { (value != 0).into() } else { within(value, number.range.clone())? };
        Ok(())
    }
}
