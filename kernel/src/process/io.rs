//! What processes have read and written: /proc/PID/io (proc(5)).

use core::sync::atomic::{AtomicU64, Ordering};

use super::process::Process;
use super::task::Task;

/// Calls that read or write, and the bytes that they moved, of one thread, which alone changes them.
#[derive(Default)]
pub struct IoCounts {
    reads: AtomicU64,
    read: AtomicU64,
    writes: AtomicU64,
    written: AtomicU64,
}

#[inline]
fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

impl IoCounts {
    /// A call has read so many bytes.
    #[inline]
    pub fn count_read(&self, bytes: usize) {
        add(&self.reads, 1);
        add(&self.read, bytes as u64);
    }

    #[inline]
    pub fn count_write(&self, bytes: usize) {
        add(&self.writes, 1);
        add(&self.written, bytes as u64);
    }
}

/// The sums: calls, bytes, and bytes from and to storage.
#[derive(Clone, Copy, Default, Debug)]
pub struct IoUsage {
    pub reads: u64,
    pub read: u64,
    pub writes: u64,
    pub written: u64,
    /// As [`crate::exec::Storage`] has it.
    pub storage: [u64; 3],
}

impl IoUsage {
    pub fn add(&mut self, other: &IoUsage) {
        self.reads += other.reads;
        self.read += other.read;
        self.writes += other.writes;
        self.written += other.written;
        for (sum, bytes) in self.storage.iter_mut().zip(other.storage) {
            *sum += bytes;
        }
    }
}

impl Task {
    pub fn io_usage(&self) -> IoUsage {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IoUsage {
            reads: value(&self.io.reads),
            read: value(&self.io.read),
            writes: value(&self.io.writes),
            written: value(&self.io.written),
            storage: self.entity.storage(),
        }
    }
}

impl Process {
    /// A child was waited for: what it has done counts as its parent's now.
    pub(super) fn adopt_io(&self, child: &Process) {
        let usage = child.io_usage();
        self.dead_io.lock().add(&usage);
    }

    /// Of all threads, living and dead, and of children that were waited for.
    pub fn io_usage(&self) -> IoUsage {
        // A thread changes from one to the other under the lock of the list.
        let threads = self.threads.lock();
        let mut sum = *self.dead_io.lock();
        for task in threads.iter() {
            sum.add(&task.io_usage());
        }
        sum
    }
}
