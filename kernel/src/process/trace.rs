//! The records of traced system calls, from the threads that make them to a reader of /proc/pollux/trace.
//!
//! A write to /proc/PID/trace makes a thread a traced one; `syscalls::trace` makes the records.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use core::fmt::Write;
use core::time::Duration;

use super::run;
use super::task::Thread;
use crate::exec::{self, Instant, WaitQueue};
use crate::sync::SpinLock;

/// Bytes of records that wait for a reader.
const CAPACITY: usize = 1 << 20;
/// How long a traced call waits for a slow reader.
const PATIENCE: Duration = Duration::from_secs(2);

static RECORDS: SpinLock<Records> = SpinLock::new(Records::new());
/// Woken when a reader has made room.
static ROOM: WaitQueue = WaitQueue::new();

struct Records {
    lines: VecDeque<Box<str>>,
    bytes: usize,
    lost: u64,
    /// Nobody has read for so long that nobody waits for it any more.
    abandoned: bool,
}

impl Records {
    const fn new() -> Self {
        Records { lines: VecDeque::new(), bytes: 0, lost: 0, abandoned: false }
    }

    fn push(&mut self, line: String) {
        if self.bytes + line.len() > CAPACITY || self.lines.try_reserve(1).is_err() {
            self.lost += 1;
            return;
        }
        self.bytes += line.len();
        self.lines.push_back(line.into_boxed_str());
    }

    /// Takes up to `max` bytes and the line that passes that; at the end a line `lost`, with the number of records for
    /// which there was no room.
    fn take(&mut self, max: usize, mut sink: impl FnMut(&str)) {
        let mut taken = 0;
        while taken < max
            && let Some(line) = self.lines.pop_front()
        {
            taken += line.len();
            self.bytes -= line.len();
            sink(&line);
        }
        if self.lines.is_empty() && self.lost > 0 {
            let mut line = String::new();
            let _ = writeln!(line, "lost\t{}", core::mem::take(&mut self.lost));
            sink(&line);
        }
        self.abandoned = false;
    }
}

/// Adds a record, a whole line. Without room it is lost, and counted.
pub fn push(line: String) {
    RECORDS.lock().push(line);
}

/// Takes about `max` bytes of records, in whole lines.
pub fn take(max: usize, sink: impl FnMut(&str)) {
    RECORDS.lock().take(max, sink);
    ROOM.wake_all();
}

/// Rather than lose records, a traced call waits a while for the reader.
pub async fn wait_for_room(t: &Thread) {
    let room = || {
        let records = RECORDS.lock();
        (records.abandoned || records.bytes < CAPACITY / 2).then_some(())
    };
    if room().is_none() {
        let deadline = Instant::now().saturating_add(PATIENCE);
        if exec::timeout(Some(deadline), run::killable(t, ROOM.wait_for(room))).await.is_err() {
            RECORDS.lock().abandoned = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn taken(records: &mut Records, max: usize) -> String {
        let mut text = String::new();
        records.take(max, |line| text.push_str(line));
        text
    }

    #[test]
    fn records_come_out_in_order_and_whole() {
        let mut records = Records::new();
        ["one\n", "two\n", "three\n"].into_iter().for_each(|line| records.push(line.to_string()));
        assert_eq!(taken(&mut records, 5), "one\ntwo\n");
        assert_eq!(taken(&mut records, 5), "three\n");
        assert_eq!(taken(&mut records, 5), "");
    }

    #[test]
    fn lost_records_are_counted() {
        let mut records = Records::new();
        let line = "x".repeat(CAPACITY / 2);
        (0..5).for_each(|_| records.push(line.clone()));
        assert_eq!(taken(&mut records, usize::MAX).len(), CAPACITY + "lost\t3\n".len());
        assert_eq!(taken(&mut records, usize::MAX), "");
    }
}
