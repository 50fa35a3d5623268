//! What many waiting threads cost: `probe sleepers COUNT`.

use std::fs;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use libc::*;

/// What the threads share: the word that they wait for first, how many have been woken, and the word that they wait for then.
#[repr(C, align(64))]
struct Shared {
    gate: AtomicU32,
    woken: AtomicU32,
    end: AtomicU32,
}

static SHARED: Shared = Shared { gate: AtomicU32::new(0), woken: AtomicU32::new(0), end: AtomicU32::new(0) };

#[cfg(target_arch = "aarch64")]
unsafe extern "C" {
    fn probe_sleeper(shared: *const Shared) -> i64;
}

// A thread without a stack: all that it needs is in registers. It waits for the gate, counts itself, waits for the end.
#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".globl probe_sleeper",
    "probe_sleeper:",
    "mov x9, x0",
    // clone(VM | FS | FILES | SIGHAND | THREAD | SYSVSEM), the stack pointer as it is.
    "mov x0, #0x0f00",
    "movk x0, #0x0005, lsl #16",
    "mov x1, xzr",
    "mov x2, xzr",
    "mov x3, xzr",
    "mov x4, xzr",
    "mov x8, #220",
    "svc 0",
    "cbz x0, 1f",
    "ret",
    // futex(&gate, FUTEX_WAIT_PRIVATE, 0, null)
    "1: mov x0, x9",
    "mov x1, #128",
    "mov x2, xzr",
    "mov x3, xzr",
    "mov x8, #98",
    "svc 0",
    "add x10, x9, #4",
    "2: ldxr w11, [x10]",
    "add w11, w11, #1",
    "stxr w12, w11, [x10]",
    "cbnz w12, 2b",
    "add x0, x9, #8",
    "mov x1, #128",
    "mov x2, xzr",
    "mov x3, xzr",
    "mov x8, #98",
    "svc 0",
    "mov x0, xzr",
    "mov x8, #93",
    "svc 0",
);

#[cfg(not(target_arch = "aarch64"))]
unsafe fn probe_sleeper(_: *const Shared) -> i64 {
    -i64::from(ENOSYS)
}

fn free_memory() -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("MemFree:")).unwrap_or_default();
    let kib: i64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
    kib << 10
}

/// Objects in use by class of the kernel's heap (slabinfo(5)).
fn objects() -> Vec<(String, i64)> {
    let text = fs::read_to_string("/proc/slabinfo").unwrap_or_default();
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_string(), words.next()?.parse().ok()?))
    };
    text.lines().skip(2).filter_map(parse).collect()
}

/// What each thread has of these, as far as it has any.
fn show_objects(before: &[(String, i64)], count: u64) {
    for ((name, used), (_, was)) in objects().iter().zip(before) {
        let tenths = (used - was) * 10 / count as i64;
        if tenths > 0 {
            eprintln!("{name}: {}.{} each", tenths / 10, tenths % 10);
        }
    }
}

fn wake(word: &AtomicU32) -> i64 {
    // SAFETY: the word is static.
    unsafe { syscall(SYS_futex, word.as_ptr(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, i32::MAX) }
}

/// Threads of the machine: those that run, and all.
fn threads() -> (u64, u64) {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut numbers = text.split(' ').nth(3).unwrap_or_default().split('/').filter_map(|part| part.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Waits until nobody else runs: all threads are asleep.
fn until_quiet() {
    let mut quiet = 0;
    while quiet < 3 {
        std::thread::sleep(Duration::from_millis(20));
        quiet = if threads().0 == 1 { quiet + 1 } else { 0 };
    }
}

/// A real-time priority.
static FIRST: i32 = 1;

/// Bytes and nanoseconds per thread, on three lines. Under -icount, a nanosecond is an instruction.
pub fn run(count: u64) {
    for (file, value) in [("pid_max", 4_194_304), ("threads-max", 1_000_000)] {
        if let Err(error) = fs::write(format!("/proc/sys/kernel/{file}"), value.to_string()) {
            println!("{file}: {error}");
        }
    }
    let (before, heap, at_first) = (free_memory(), objects(), threads().1);
    let start = Instant::now();
    for index in 0..count {
        // SAFETY: the thread uses no memory but what is shared for it.
        let tid = unsafe { probe_sleeper(&SHARED) };
        if tid < 0 {
            println!("thread {index}: error {}", -tid);
            return;
        }
    }
    let made = start.elapsed();
    until_quiet();
    let each = (before - free_memory()) / count as i64;
    show_objects(&heap, count);
    println!("memory of a thread that waits: {each} bytes");
    // So that those who are woken wait until the call has ended.
    // SAFETY: the priority is there for the call.
    unsafe { syscall(SYS_sched_setscheduler, 0, SCHED_FIFO, &raw const FIRST) };
    SHARED.gate.store(1, SeqCst);
    let start = Instant::now();
    let woken = wake(&SHARED.gate);
    let call = start.elapsed();
    while u64::from(SHARED.woken.load(SeqCst)) < count {
        std::thread::sleep(Duration::from_micros(200));
    }
    let all = start.elapsed();
    let per = |time: Duration| time.as_nanos() as u64 / count;
    println!("made: {} ns each", per(made));
    println!("woken: {woken}; the call {} ns each, until all have run {} ns each", per(call), per(all));
    until_quiet();
    SHARED.end.store(1, SeqCst);
    let start = Instant::now();
    wake(&SHARED.end);
    while threads().1 > at_first {
        std::thread::sleep(Duration::from_micros(200));
    }
    println!("ended: {} ns each", per(start.elapsed()));
    let left = (before - free_memory()) / count as i64;
    println!("left behind: {left} bytes each");
}
