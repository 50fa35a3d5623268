//! Times as the ABI has them.

use core::ops::Add;
use core::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::errno::{Errno, Result};

pub(super) const NANOS: u64 = 1_000_000_000;

/// Seconds and nanoseconds, `struct timespec`; `nsec` is always below 1,000,000,000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Timespec {
    pub sec: i64,
    pub nsec: u32,
}

impl Timespec {
    pub const fn from_nanos(nanos: u64) -> Self {
        Timespec { sec: (nanos / NANOS) as i64, nsec: (nanos % NANOS) as u32 }
    }

    /// Times before the epoch are 0, those beyond 584 years the greatest number.
    pub fn to_nanos(self) -> u64 {
        u64::try_from(self.sec).map_or(0, |sec| sec.saturating_mul(NANOS).saturating_add(self.nsec as u64))
    }

    /// As a length of time; negative ones are zero.
    pub fn to_duration(self) -> Duration {
        Duration::from_nanos(self.to_nanos())
    }
}

impl Add<Duration> for Timespec {
    type Output = Timespec;

    fn add(self, d: Duration) -> Timespec {
        let nsec = self.nsec + d.subsec_nanos();
        Timespec {
            sec: self.sec.saturating_add(d.as_secs() as i64).saturating_add((nsec / 1_000_000_000) as i64),
            nsec: nsec % 1_000_000_000,
        }
    }
}

/// `struct timespec` from or for user space, not checked.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UserTimespec {
    pub sec: i64,
    pub nsec: i64,
}

impl UserTimespec {
    /// EINVAL for negative times and for nanoseconds that make a second.
    pub fn validate(self) -> Result<Timespec> {
        if self.sec < 0 || !(0..NANOS as i64).contains(&self.nsec) {
            return Err(Errno::EINVAL);
        }
        Ok(Timespec { sec: self.sec, nsec: self.nsec as u32 })
    }
}

impl From<Timespec> for UserTimespec {
    fn from(time: Timespec) -> Self {
        UserTimespec { sec: time.sec, nsec: time.nsec as i64 }
    }
}

impl UserTimespec {
    pub fn from_nanos(nanos: u64) -> Self {
        Timespec::from_nanos(nanos).into()
    }
}

/// `struct timeval`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UserTimeval {
    pub sec: i64,
    pub usec: i64,
}

impl UserTimeval {
    pub fn from_nanos(nanos: u64) -> Self {
        UserTimeval { sec: (nanos / NANOS) as i64, usec: (nanos % NANOS / 1000) as i64 }
    }

    /// EINVAL for negative times and for microseconds that make a second.
    pub fn validate(self) -> Result<Timespec> {
        if self.sec < 0 || !(0..1_000_000).contains(&self.usec) {
            return Err(Errno::EINVAL);
        }
        Ok(Timespec { sec: self.sec, nsec: self.usec as u32 * 1000 })
    }
}

/// `struct itimerval`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UserItimerval {
    pub interval: UserTimeval,
    pub value: UserTimeval,
}

/// `struct itimerspec`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UserItimerspec {
    pub interval: UserTimespec,
    pub value: UserTimespec,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validation_is_linux_s() {
        assert!(UserTimespec { sec: 0, nsec: 1_000_000_000 }.validate().is_err());
        assert!(UserTimespec { sec: -1, nsec: 0 }.validate().is_err());
        assert!(UserTimespec { sec: 0, nsec: -1 }.validate().is_err());
        assert_eq!(UserTimespec { sec: 2, nsec: 5 }.validate().unwrap().to_nanos(), 2_000_000_005);
        assert!(UserTimeval { sec: 0, usec: 1_000_000 }.validate().is_err());
        assert_eq!(UserTimeval { sec: 1, usec: 7 }.validate().unwrap(), Timespec { sec: 1, nsec: 7000 });
    }

    #[test]
    fn sums_carry_and_saturate() {
        let sum = Timespec { sec: 1, nsec: 999_999_999 } + Duration::from_nanos(2);
        assert_eq!(sum, Timespec { sec: 2, nsec: 1 });
        assert_eq!(Timespec { sec: i64::MAX, nsec: 0 }.to_nanos(), u64::MAX);
        assert_eq!(Timespec { sec: -5, nsec: 0 }.to_nanos(), 0);
        assert_eq!((Timespec { sec: i64::MAX, nsec: 999_999_999 } + Duration::from_secs(1)).sec, i64::MAX);
    }

    #[test]
    fn nanoseconds_split() {
        assert_eq!(UserTimeval::from_nanos(1_500_000_999), UserTimeval { sec: 1, usec: 500_000 });
        assert_eq!(Timespec::from_nanos(u64::MAX).to_nanos(), u64::MAX);
    }
}
