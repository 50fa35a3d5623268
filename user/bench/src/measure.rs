//! The clock, the loop, and how a row ends without a value.

use crate::sys;

/// How rows are run.
pub struct Bench {
    /// How many times the usual count.
    pub scale: u64,
    /// The clock counts instructions: idle time is worth nothing, and jumps.
    pub counting: bool,
}

/// Why a row has no value.
pub enum Stop {
    /// The kernel does not have the system call.
    Absent,
    /// Anything else.
    Failed(String),
}

pub type Result<T = ()> = std::result::Result<T, Stop>;

impl Stop {
    pub fn failed<T>(why: impl Into<String>) -> Result<T> {
        Err(Stop::Failed(why.into()))
    }
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a live structure.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

impl Bench {
    /// The cost of one `operation`, from `count` of them after a tenth as many to warm up.
    pub fn per_operation(&self, count: u64, mut operation: impl FnMut() -> Result) -> Result<f64> {
        let count = self.count(count);
        for _ in 0..self.warm_up(count) {
            operation()?;
        }
        let start = now();
        for _ in 0..count {
            operation()?;
        }
        Ok((now() - start) as f64 / count as f64)
    }

    /// The cost of one `operation` in which others take part. They must be there already, waiting.
    pub fn per_exchange(&self, count: u64, operation: impl FnMut() -> Result) -> Result<f64> {
        self.level()?;
        self.per_operation(count, operation)
    }

    /// Gives this process and all that wait the same standing with the scheduler. One that remembers
    /// who has run how much, like Linux's, lets the one who is behind pre-empt the other at each
    /// wake, or does not, for the whole row, and that differs from run to run by 5 %. Here everybody
    /// waits while another process runs for so long that they are all equally far behind.
    pub fn level(&self) -> Result {
        if !self.counting {
            return Ok(());
        }
        let other = sys::fork()?;
        if other == 0 {
            loop {
                std::hint::spin_loop();
            }
        }
        sys::sleep_ms(10);
        sys::kill(other);
        sys::wait(other).map(drop)
    }

    /// As often as the row says, times the scale.
    pub fn count(&self, count: u64) -> u64 {
        count * self.scale
    }

    /// How many operations go before those that [`Bench::per_operation`] measures.
    pub fn warm_up(&self, count: u64) -> u64 {
        count.div_ceil(10)
    }

    /// All operations of [`Bench::per_operation`], for a peer that must take part in each.
    pub fn all(&self, count: u64) -> u64 {
        let count = self.count(count);
        count + self.warm_up(count)
    }

    /// For operations that need preparation which must not count: `round` prepares, calls what it
    /// is given with what is to be measured, and cleans up. The cost of one of the `operations` of
    /// a round, from `rounds` of them after one to warm up.
    pub fn per_round(
        &self,
        rounds: u64,
        operations: u64,
        mut round: impl FnMut(&mut Stopwatch) -> Result,
    ) -> Result<f64> {
        round(&mut Stopwatch { total: 0 })?;
        let mut watch = Stopwatch { total: 0 };
        let rounds = self.count(rounds);
        for _ in 0..rounds {
            round(&mut watch)?;
        }
        // What one reading of the clock adds.
        let clock = sys::clock_cost() * rounds;
        Ok(watch.total.saturating_sub(clock) as f64 / (rounds * operations) as f64)
    }
}

/// Adds up the times of pieces of work.
pub struct Stopwatch {
    total: u64,
}

impl Stopwatch {
    pub fn time<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let start = now();
        let result = work();
        self.total += now() - start;
        result
    }
}
