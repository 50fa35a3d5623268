//! Pages that could not be stored, of which somebody must be told who did not store them himself: the flusher did, or a
//! sync(2), or a writer of something else. As Linux has it (errseq_t): each open file is told once of each failure since it
//! was opened, and one of which nobody was told also by a file that is opened later.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::errno::{Errno, Result};

/// Failures of all files so far.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// The last failure of a cache.
#[derive(Default)]
pub struct Failure {
    /// Its number; 0: there was none.
    number: AtomicU64,
    told: AtomicBool,
}

impl Failure {
    pub(super) fn note(&self) {
        self.told.store(false, Ordering::Relaxed);
        self.number.fetch_max(COUNT.fetch_add(1, Ordering::Relaxed) + 1, Ordering::AcqRel);
    }
}

/// What somebody knows of failures.
pub struct Known(AtomicU64);

impl Known {
    /// For who comes now.
    #[inline]
    pub fn now() -> Known {
        Known(AtomicU64::new(COUNT.load(Ordering::Relaxed)))
    }

    /// EIO if there is something to be told.
    pub fn check(&self, failure: &Failure) -> Result<()> {
        let number = failure.number.load(Ordering::Acquire);
        if number == 0 {
            return Ok(());
        }
        let news = self.0.fetch_max(number, Ordering::AcqRel) < number;
        if news | !failure.told.swap(true, Ordering::AcqRel) { Err(Errno::EIO) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_told_once() {
        let (one, failure) = (Known::now(), Failure::default());
        assert_eq!(one.check(&failure), Ok(()));
        failure.note();
        let late = Known::now();
        assert_eq!(one.check(&failure), Err(Errno::EIO));
        assert_eq!(one.check(&failure), Ok(()));
        assert_eq!(late.check(&failure), Ok(()));
        failure.note();
        let unborn = Known::now();
        assert_eq!(unborn.check(&failure), Err(Errno::EIO));
        assert_eq!((one.check(&failure), late.check(&failure)), (Err(Errno::EIO), Err(Errno::EIO)));
        assert_eq!((unborn.check(&failure), one.check(&failure)), (Ok(()), Ok(())));
    }
}
