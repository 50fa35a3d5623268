//! Clocks and the types of time(7).

use core::ops::Add;
use core::time::Duration;

/// Seconds and nanoseconds, `struct timespec`; `nsec` is always below 1,000,000,000.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Timespec {
    pub sec: i64,
    pub nsec: u32,
}

impl Timespec {
    pub const fn from_nanos(nanos: u64) -> Self {
        Timespec { sec: (nanos / 1_000_000_000) as i64, nsec: (nanos % 1_000_000_000) as u32 }
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

/// Interval and POSIX timers of a process.
#[derive(Default)]
pub struct ProcessTimers;
