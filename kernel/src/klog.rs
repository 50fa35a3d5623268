//! The kernel log: a ring of records for syslog(2) and /dev/kmsg, and what of it goes to the console.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::arch;
use crate::exec::WaitQueue;
use crate::sync::SpinLock;

/// One message.
#[derive(Clone, Debug)]
pub struct Record {
    pub sequence: u64,
    /// syslog(3) level, 0 (emergency) to 7 (debug); for what programs write, plus eight times their facility.
    pub level: u8,
    /// Nanoseconds since boot.
    pub time: u64,
    pub text: String,
}

/// How much text is kept, bytes.
pub const CAPACITY: usize = 128 << 10;

struct Ring {
    records: VecDeque<Record>,
    bytes: usize,
    next: u64,
    /// Records before this are hidden from syslog(2) READ_ALL (SYSLOG_ACTION_CLEAR).
    cleared: u64,
}

static RING: SpinLock<Ring> = SpinLock::new(Ring { records: VecDeque::new(), bytes: 0, next: 0, cleared: 0 });
static HEAP_READY: AtomicBool = AtomicBool::new(false);
static CONSOLE_LEVEL: AtomicU8 = AtomicU8::new(7);
/// Woken when a record is added.
pub static WAIT: WaitQueue = WaitQueue::new();

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = match record.level() {
                log::Level::Error => 3,
                log::Level::Warn => 4,
                log::Level::Info => 6,
                log::Level::Debug | log::Level::Trace => 7,
            };
            print(level, record.args());
        }
    }

    fn flush(&self) {}
}

/// Routes the `log` macros here. The ring is filled from `heap_ready` on.
pub fn init() {
    let _ = log::set_logger(&Logger);
    log::set_max_level(log::LevelFilter::Info);
}

pub fn heap_ready() {
    HEAP_READY.store(true, Ordering::Relaxed);
}

/// Messages with a level number below this are shown on the console.
pub fn set_console_level(level: u8) {
    CONSOLE_LEVEL.store(level, Ordering::Relaxed);
}

pub fn console_level() -> u8 {
    CONSOLE_LEVEL.load(Ordering::Relaxed)
}

/// Adds a message; also the way in for /dev/kmsg writers.
pub fn print(level: u8, args: &core::fmt::Arguments<'_>) {
    print_if(level < CONSOLE_LEVEL.load(Ordering::Relaxed), level, args);
}

/// The longest message that a program may write to /dev/kmsg, bytes.
pub const LONGEST_WRITTEN: usize = 992;

/// What a program writes to /dev/kmsg: `<priority>text`, where the priority is a level and, times eight, a facility
/// (Documentation/ABI/testing/dev-kmsg). That of a program is never 0, which is the kernel's.
pub fn write(text: &str) {
    const WARNING: u8 = 4;
    const USER: u8 = 1 << 3;
    let prefix = text.strip_prefix('<').and_then(|rest| rest.split_once('>'));
    let (priority, text) = match prefix.and_then(|(number, rest)| Some((number.parse::<u32>().ok()? as u8, rest))) {
        Some((priority, rest)) if priority < USER => (priority | USER, rest),
        Some(found) => found,
        None => (WARNING | USER, text),
    };
    let text = text.strip_suffix('\n').unwrap_or(text);
    print_if(priority & 7 < CONSOLE_LEVEL.load(Ordering::Relaxed), priority, &format_args!("{text}"));
}

/// Adds a message that is shown on the console whatever its level (LEVEL_INFO).
pub fn print_always(args: &core::fmt::Arguments<'_>) {
    print_if(true, 6, args);
}

fn print_if(shown: bool, level: u8, args: &core::fmt::Arguments<'_>) {
    let time = arch::now_ns();
    if shown {
        let _ = write!(Console, "[{:5}.{:06}] {}\r\n", time / 1_000_000_000, time / 1000 % 1_000_000, args);
    }
    if HEAP_READY.load(Ordering::Relaxed) {
        store(level, time, format!("{args}"));
    }
}

fn store(level: u8, time: u64, text: String) {
    let mut ring = RING.lock();
    let sequence = ring.next;
    ring.next += 1;
    ring.bytes += text.len();
    ring.records.push_back(Record { sequence, level, time, text });
    while ring.bytes > CAPACITY {
        match ring.records.pop_front() {
            Some(old) => ring.bytes -= old.text.len(),
            None => break,
        }
    }
    drop(ring);
    WAIT.wake_all();
}

/// The first record with at least this sequence number.
pub fn record_from(sequence: u64) -> Option<Record> {
    let ring = RING.lock();
    let first = ring.records.front()?.sequence;
    ring.records.get(sequence.saturating_sub(first) as usize).cloned()
}

/// Sequence number of the next record, and of the first not cleared.
pub fn bounds() -> (u64, u64) {
    let ring = RING.lock();
    (ring.cleared, ring.next)
}

/// The last records that fit `max` bytes, as syslog(2) gives them: `<level>[seconds] text` lines.
pub fn tail(max: usize) -> Vec<u8> {
    let ring = RING.lock();
    let mut lines = Vec::new();
    let mut total = 0;
    for record in ring.records.iter().rev().take_while(|record| record.sequence >= ring.cleared) {
        let seconds = record.time / 1_000_000_000;
        let line = format!("<{}>[{:5}.{:06}] {}\n", record.level, seconds, record.time / 1000 % 1_000_000, record.text);
        total += line.len();
        if total > max {
            break;
        }
        lines.push(line);
    }
    lines.iter().rev().flat_map(|line| line.bytes()).collect()
}

pub fn clear() {
    let mut ring = RING.lock();
    ring.cleared = ring.next;
}

/// The boot console, for messages that must not wait.
pub struct Console;

impl Write for Console {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        arch::console::write(s.as_bytes());
        Ok(())
    }
}
