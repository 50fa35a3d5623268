//! Points in time.

use core::time::Duration;

use super::hw;

/// Nanoseconds since boot (CLOCK_MONOTONIC without offsets).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(u64);

impl Instant {
    pub const BOOT: Instant = Instant(0);
    /// Later than anything that will be waited for.
    pub const NEVER: Instant = Instant(u64::MAX);

    #[inline]
    pub fn now() -> Self {
        Instant(hw::now_ns())
    }

    pub const fn from_nanos(nanos: u64) -> Self {
        Instant(nanos)
    }

    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    pub fn checked_add(self, d: Duration) -> Option<Self> {
        let nanos = u64::try_from(d.as_nanos()).ok()?;
        self.0.checked_add(nanos).map(Instant)
    }

    /// Overlong waits end at [`Instant::NEVER`].
    pub fn saturating_add(self, d: Duration) -> Self {
        self.checked_add(d).unwrap_or(Instant::NEVER)
    }

    pub fn checked_sub(self, d: Duration) -> Option<Self> {
        let nanos = u64::try_from(d.as_nanos()).ok()?;
        self.0.checked_sub(nanos).map(Instant)
    }

    /// Zero if `earlier` is in fact later.
    pub const fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}
