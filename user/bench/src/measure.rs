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
    /// The cost of one `operation`, from `count` of them after a tenth as many to warm up: the median of [`PARTS`] parts.
    /// Where instructions are counted, a wait for the disk takes the clock to the next timer, whenever that is; it is in
    /// one part then, and not in the result.
    pub fn per_operation(&self, count: u64, mut operation: impl FnMut() -> Result) -> Result<f64> {
        let count = self.count(count);
        for _ in 0..self.warm_up(count) {
            operation()?;
        }
        let parts = PARTS.min(count).max(1);
        let mut costs = Vec::with_capacity(parts as usize);
        for part in 0..parts {
            let size = count * (part + 1) / parts - count * part / parts;
            let start = now();
            for _ in 0..size {
                operation()?;
            }
            costs.push((now() - start) as f64 / size as f64);
        }
        Ok(median(costs))
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

    /// Instructions, not time.
    pub fn counting(&self) -> bool {
        self.counting
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
    /// a round, the median of `rounds` of them after one to warm up.
    pub fn per_round(
        &self,
        rounds: u64,
        operations: u64,
        mut round: impl FnMut(&mut Stopwatch) -> Result,
    ) -> Result<f64> {
        round(&mut Stopwatch { total: 0 })?;
        // What one reading of the clock adds.
        let clock = sys::clock_cost();
        let mut costs = Vec::new();
        for _ in 0..self.count(rounds) {
            let mut watch = Stopwatch { total: 0 };
            round(&mut watch)?;
            costs.push(watch.total.saturating_sub(clock) as f64 / operations as f64);
        }
        Ok(median(costs))
    }
}

/// Into how many parts operations are divided.
const PARTS: u64 = 5;

pub fn median(mut costs: Vec<f64>) -> f64 {
    costs.sort_by(f64::total_cmp);
    let middle = costs.len() / 2;
    match costs.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => costs[middle],
        _ => (costs[middle - 1] + costs[middle]) / 2.0,
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
