//! futex(2) and futex_waitv(2): waits and wakes.

use std::ptr::null;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use libc::*;

use crate::file::create;
use crate::memory::{self, PAGE, pages, shared_words};
use crate::process::{self, child, kill, sleeping_thread, until_asleep, wait};
use crate::signal;
use crate::sys::{KERNEL, NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    wait_refused, wake_counts, wake_refused, relative_timeouts, absolute_timeouts, bitsets, private_or_shared, shared_file, two_mappings, copies_of_a_page, interrupted, interrupted_with_time, stopped_while_it_waits, unknown_operations, vector, vector_refused, word_goes_away, pi_locks,
}

/// Words of a page of this process, which threads share.
pub(super) fn words() -> &'static [AtomicU32; 64] {
    // SAFETY: a page that stays mapped, larger than the array, zero at first.
    unsafe { &*pages(1).cast() }
}

fn futex(word: &AtomicU32, operation: i32, value: i32) -> Ret {
    sys!(SYS_futex, word.as_ptr(), operation, value, null::<u8>())
}

pub(super) fn wait_on(word: &AtomicU32, value: i32) -> Ret {
    futex(word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, value)
}

pub(super) fn wake(word: &AtomicU32, count: i32) -> Ret {
    futex(word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count)
}

fn time(seconds: i64, nanoseconds: i64) -> timespec {
    timespec { tv_sec: seconds, tv_nsec: nanoseconds }
}

/// So many threads that wait for a word; each answers what its wait came to.
fn waiters(word: &'static AtomicU32, count: usize) -> Vec<std::thread::JoinHandle<Ret>> {
    (0..count).map(|_| sleeping_thread(move || wait_on(word, 0)).1).collect()
}

fn outcomes(threads: Vec<std::thread::JoinHandle<Ret>>) -> String {
    let all: Vec<String> =
        threads.into_iter().filter_map(|thread| thread.join().ok()).map(|ret| ret.to_string()).collect();
    all.join(" ")
}

fn wait_refused() {
    let word = &words()[0];
    say!("another value: {}", wait_on(word, 1));
    say!("shared: {}", futex(word, FUTEX_WAIT, 1));
    let at = word.as_ptr() as usize;
    for offset in 1..4 {
        say!("{offset} off: {}", sys!(SYS_futex, at + offset, FUTEX_WAIT, 1, 0));
    }
    say!("null: {}", sys!(SYS_futex, 0, FUTEX_WAIT, 0, 0));
    say!("unmapped: {}", sys!(SYS_futex, NOWHERE, FUTEX_WAIT, 0, 0));
    say!("unmapped, private: {}", sys!(SYS_futex, NOWHERE, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, 0));
    say!("the kernel's: {}", sys!(SYS_futex, KERNEL, FUTEX_WAIT, 0, 0));
    let page = pages(1);
    sys!(SYS_mprotect, page, PAGE, PROT_NONE);
    say!("not to be read: {}", sys!(SYS_futex, page, FUTEX_WAIT, 1, 0));
    sys!(SYS_mprotect, page, PAGE, PROT_READ);
    say!("only to be read: {}", sys!(SYS_futex, page, FUTEX_WAIT, 1, 0));
    say!("private: {}", sys!(SYS_futex, page, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 1, 0));
    say!("unaligned in the kernel: {}", sys!(SYS_futex, KERNEL as usize + 1, FUTEX_WAIT, 1, 0));
    say!("bitset 0: {}", sys!(SYS_futex, word.as_ptr(), FUTEX_WAIT_BITSET, 1, 0, 0, 0));
    say!("bitset 0 and unaligned: {}", sys!(SYS_futex, at + 1, FUTEX_WAIT_BITSET, 1, 0, 0, 0));
}

fn wake_counts() {
    let word = &words()[0];
    say!("nobody: {}", wake(word, 1));
    let threads = waiters(word, 3);
    say!("wake 1: {}", wake(word, 1));
    say!("wake i32::MAX: {}", wake(word, i32::MAX));
    say!("again: {}", wake(word, i32::MAX));
    say!("the waits: {}", outcomes(threads));
    let threads = waiters(word, 2);
    say!("wake 0: {}", wake(word, 0));
    say!("wake -1: {}", wake(word, -1));
    say!("the rest: {}", wake(word, i32::MAX));
    say!("the waits: {}", outcomes(threads));
    let threads = waiters(word, 1);
    say!("another word: {}", wake(&words()[1], 1));
    word.store(7, SeqCst);
    say!("the value does not matter to a wake: {}", wake(word, 1));
    say!("the wait: {}", outcomes(threads));
}

fn wake_refused() {
    let word = &words()[0];
    let at = word.as_ptr() as usize;
    say!("unaligned: {}", sys!(SYS_futex, at + 2, FUTEX_WAKE, 1));
    say!("unmapped: {}", sys!(SYS_futex, NOWHERE, FUTEX_WAKE, 1));
    say!("4096, unmapped: {}", sys!(SYS_futex, 4096, FUTEX_WAKE, 1));
    say!("4096, unmapped, private: {}", sys!(SYS_futex, 4096, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1));
    say!("the kernel's: {}", sys!(SYS_futex, KERNEL, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1));
    say!("bitset 0: {}", sys!(SYS_futex, at, FUTEX_WAKE_BITSET, 1, 0, 0, 0));
    let page = pages(1);
    sys!(SYS_mprotect, page, PAGE, PROT_READ);
    say!("only to be read: {}", sys!(SYS_futex, page, FUTEX_WAKE, 1));
    sys!(SYS_mprotect, page, PAGE, PROT_NONE);
    say!("not to be read: {}", sys!(SYS_futex, page, FUTEX_WAKE, 1));
    say!("not to be read, private: {}", sys!(SYS_futex, page, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1));
}

fn relative_timeouts() {
    let word = &words()[0];
    let wait = |limit: &timespec, value: i32| sys!(SYS_futex, word.as_ptr(), FUTEX_WAIT, value, limit);
    say!("none: {}", wait(&time(0, 0), 0));
    say!("none, another value: {}", wait(&time(0, 0), 1));
    say!("below zero: {}", wait(&time(-1, 0), 0));
    say!("nanoseconds below zero: {}", wait(&time(0, -1), 0));
    say!("a billion nanoseconds: {}", wait(&time(0, 1_000_000_000), 0));
    say!("bad time and another value: {}", wait(&time(-1, 0), 1));
    say!("bad place: {}", sys!(SYS_futex, word.as_ptr(), FUTEX_WAIT, 0, NOWHERE));
    say!("bad place and another value: {}", sys!(SYS_futex, word.as_ptr(), FUTEX_WAIT, 1, NOWHERE));
    let (mut start, mut end): (timespec, timespec) = (zeroed(), zeroed());
    sys!(SYS_clock_gettime, CLOCK_MONOTONIC, &mut start);
    say!("20 ms: {}", wait(&time(0, 20_000_000), 0));
    sys!(SYS_clock_gettime, CLOCK_MONOTONIC, &mut end);
    let passed = (end.tv_sec - start.tv_sec) * 1_000_000_000 + end.tv_nsec - start.tv_nsec;
    say!("not earlier: {}", passed >= 20_000_000);
    let (_, thread) = sleeping_thread(move || sys!(SYS_futex, word.as_ptr(), FUTEX_WAIT, 0, &time(i64::MAX, 0)));
    say!("for ever, woken: {} {}", futex(word, FUTEX_WAKE, 1), thread.join().unwrap_or(Ret(-1)));
}

fn absolute_timeouts() {
    let word = &words()[0];
    let wait = |limit: &timespec, flags: i32| {
        sys!(SYS_futex, word.as_ptr(), FUTEX_WAIT_BITSET | flags, 0, limit, 0, FUTEX_BITSET_MATCH_ANY)
    };
    say!("long ago: {}", wait(&time(0, 0), 0));
    say!("long ago, real time: {}", wait(&time(1, 0), FUTEX_CLOCK_REALTIME));
    say!("below zero: {}", wait(&time(-1, 0), 0));
    say!("a billion: {}", wait(&time(0, 1_000_000_000), FUTEX_CLOCK_REALTIME));
    for (name, clock, flag) in [("monotonic", CLOCK_MONOTONIC, 0), ("real time", CLOCK_REALTIME, FUTEX_CLOCK_REALTIME)]
    {
        let (mut limit, mut end): (timespec, timespec) = (zeroed(), zeroed());
        sys!(SYS_clock_gettime, clock, &mut limit);
        limit.tv_nsec += 20_000_000;
        if limit.tv_nsec >= 1_000_000_000 {
            limit.tv_nsec -= 1_000_000_000;
            limit.tv_sec += 1;
        }
        let ret = wait(&limit, flag);
        sys!(SYS_clock_gettime, clock, &mut end);
        say!("{name}: {ret}, not earlier: {}", (end.tv_sec, end.tv_nsec) >= (limit.tv_sec, limit.tv_nsec));
    }
    say!("FUTEX_WAIT with the real time's clock: {}", {
        sys!(SYS_futex, word.as_ptr(), FUTEX_WAIT | FUTEX_CLOCK_REALTIME, 0, &time(0, 0))
    });
    say!("FUTEX_WAKE with it: {}", futex(word, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1));
}

fn bitsets() {
    let word = &words()[0];
    let start = |bits: u32| {
        sleeping_thread(move || sys!(SYS_futex, word.as_ptr(), FUTEX_WAIT_BITSET, 0, null::<u8>(), 0, bits)).1
    };
    let wake = |count: i32, bits: u32| sys!(SYS_futex, word.as_ptr(), FUTEX_WAKE_BITSET, count, 0, 0, bits);
    let threads = vec![start(1), start(2), start(6)];
    say!("no bit of theirs: {}", wake(9, 8));
    say!("bit 4: {}", wake(9, 4));
    say!("bits 1 and 8: {}", wake(9, 9));
    say!("any: {}", wake(9, u32::MAX));
    say!("the waits: {}", outcomes(threads));
    let threads = vec![start(1), start(2)];
    say!("FUTEX_WAKE wakes any: {}", futex(word, FUTEX_WAKE, 9));
    say!("the waits: {}", outcomes(threads));
}

fn private_or_shared() {
    let shared = shared_words();
    let run = |name: &str, wait_flag: i32, wake_flag: i32| {
        let pid = child(|| {
            let limit = time(if wait_flag | wake_flag != 0 { 0 } else { 10 }, 200_000_000);
            i32::from(sys!(SYS_futex, shared[0].as_ptr(), FUTEX_WAIT | wait_flag, 0, &limit).errno() == ETIMEDOUT)
        });
        until_asleep(pid);
        let woken = futex(&shared[0], FUTEX_WAKE | wake_flag, 1);
        say!("{name}: woke {woken}, {}", wait(pid));
    };
    run("both shared", 0, 0);
    run("both private", FUTEX_PRIVATE_FLAG, FUTEX_PRIVATE_FLAG);
    run("the wait private", FUTEX_PRIVATE_FLAG, 0);
    run("the wake private", 0, FUTEX_PRIVATE_FLAG);
    let word = &words()[0];
    let (_, thread) = sleeping_thread(move || futex(word, FUTEX_WAIT, 0));
    say!("a shared wait on private memory, a private wake: {}", wake(word, 1));
    say!("a shared wake: {}", futex(word, FUTEX_WAKE, 1));
    say!("the wait: {}", thread.join().unwrap_or(Ret(-1)));
}

fn shared_file() {
    let fd = create(c"f", "");
    sys!(SYS_ftruncate, fd, 8192);
    let map = || memory::map(8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0).need() as *mut u8;
    let mine = map();
    let pid = child(|| {
        // At another address, in another process.
        pages(3);
        let theirs = map();
        i32::from(!sys!(SYS_futex, theirs.wrapping_add(4100), FUTEX_WAIT, 0, &time(10, 0)).ok())
    });
    until_asleep(pid);
    say!("another offset: {}", sys!(SYS_futex, mine.wrapping_add(4), FUTEX_WAKE, 1));
    say!("another word of the page: {}", sys!(SYS_futex, mine.wrapping_add(4096), FUTEX_WAKE, 1));
    say!("the same: {}", sys!(SYS_futex, mine.wrapping_add(4100), FUTEX_WAKE, 1));
    say!("{}", wait(pid));
}

fn two_mappings() {
    let fd = create(c"f", "");
    sys!(SYS_ftruncate, fd, 4096);
    let map = |flags: i32| memory::map(4096, PROT_READ | PROT_WRITE, flags, fd, 0).need() as *mut u8;
    let (one, two, private) = (map(MAP_SHARED) as usize, map(MAP_SHARED) as usize, map(MAP_PRIVATE));
    let (_, thread) = sleeping_thread(move || sys!(SYS_futex, one, FUTEX_WAIT, 0, 0));
    say!("a private mapping of it: {}", sys!(SYS_futex, private, FUTEX_WAKE, 1));
    say!("the other, private wake: {}", sys!(SYS_futex, two, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1));
    say!("the other: {}", sys!(SYS_futex, two, FUTEX_WAKE, 1));
    say!("the wait: {}", thread.join().unwrap_or(Ret(-1)));
}

fn copies_of_a_page() {
    // After fork the pages are the same ones until somebody writes, but the words are different ones.
    let word = &words()[0];
    word.store(0, SeqCst);
    let pid = child(|| i32::from(futex_until(word, 200_000_000).errno() == ETIMEDOUT));
    until_asleep(pid);
    say!("a copy: {}", futex(word, FUTEX_WAKE, 1));
    say!("{}", wait(pid));
    // A page that has not been touched.
    let word = &words()[0];
    say!("an untouched page: {}", wait_on(word, 1));
    let (_, thread) = sleeping_thread(move || wait_on(&words()[1], 0));
    say!("woken through another page: {}", wake(word, 1));
    drop(thread);
}

fn futex_until(word: &AtomicU32, nanoseconds: i64) -> Ret {
    sys!(SYS_futex, word.as_ptr(), FUTEX_WAIT, 0, &time(0, nanoseconds))
}

/// Has a child send a signal to this process when it sleeps, and wake the word when it sleeps again.
fn disturb(signal: i32, word: &'static AtomicU32, restarts: bool) -> i32 {
    let parent = sys!(SYS_getpid).0 as i32;
    child(move || {
        until_asleep(parent);
        kill(parent, signal);
        if restarts {
            process::sleep_ms(20);
            until_asleep(parent);
            futex(word, FUTEX_WAKE, 1);
        }
        0
    })
}

fn interrupted() {
    let word = &shared_words()[0];
    signal::handle(SIGUSR1, signal::count, 0);
    let pid = disturb(SIGUSR1, word, false);
    say!("without SA_RESTART: {}, handlers: {}", futex(word, FUTEX_WAIT, 0), signal::caught());
    wait(pid);
    signal::handle(SIGUSR1, signal::count, SA_RESTART);
    let pid = disturb(SIGUSR1, word, true);
    say!("with SA_RESTART: {}, handlers: {}", futex(word, FUTEX_WAIT, 0), signal::caught());
    wait(pid);
    signal::ignore(SIGUSR1);
    let pid = disturb(SIGUSR1, word, true);
    say!("ignored: {}", futex(word, FUTEX_WAIT, 0));
    wait(pid);
}

fn interrupted_with_time() {
    let word = &shared_words()[0];
    let wait_long = || sys!(SYS_futex, word.as_ptr(), FUTEX_WAIT, 0, &time(20, 0));
    for (name, flags) in [("without SA_RESTART", 0), ("with SA_RESTART", SA_RESTART)] {
        signal::handle(SIGUSR1, signal::count, flags);
        let pid = disturb(SIGUSR1, word, false);
        say!("{name}: {}, handlers: {}", wait_long(), signal::caught());
        wait(pid);
    }
    let mut limit: timespec = zeroed();
    sys!(SYS_clock_gettime, CLOCK_MONOTONIC, &mut limit);
    limit.tv_sec += 20;
    let pid = disturb(SIGUSR1, word, false);
    let ret = sys!(SYS_futex, word.as_ptr(), FUTEX_WAIT_BITSET, 0, &limit, 0, u32::MAX);
    say!("absolute: {ret}");
    wait(pid);
    signal::default(SIGWINCH);
    let pid = disturb(SIGWINCH, word, true);
    say!("a signal that does nothing: {}", wait_long());
    wait(pid);
}

fn stopped_while_it_waits() {
    let word = &shared_words()[0];
    let pid = child(|| i32::from(!sys!(SYS_futex, word.as_ptr(), FUTEX_WAIT, 0, &time(20, 0)).ok()));
    until_asleep(pid);
    kill(pid, SIGSTOP);
    say!("{}", process::wait_for(pid, WUNTRACED));
    kill(pid, SIGCONT);
    say!("{}", process::wait_for(pid, WCONTINUED));
    // It waits again as soon as it is found asleep.
    while process::state(pid) != 'S' || futex(word, FUTEX_WAKE, 1).0 == 0 {
        process::sleep_ms(1);
    }
    say!("on with the wait, then woken: {}", wait(pid));
}

fn unknown_operations() {
    let word = &words()[0];
    for operation in [2, 14, 15, 64, 127] {
        say!("{operation}: {}", futex(word, operation, 1));
    }
    say!("FUTEX_WAIT and bit 9: {}", futex(word, FUTEX_WAIT | 512, 1));
    say!("FUTEX_WAIT and bit 31: {}", futex(word, FUTEX_WAIT | i32::MIN, 1));
    say!("-1: {}", futex(word, -1, 1));
}

/// `struct futex_waitv`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Waiter {
    value: u64,
    address: u64,
    flags: u32,
    reserved: u32,
}

const SIZE_U32: u32 = 2;

fn waitv(list: &[Waiter], flags: u32, limit: *const timespec, clock: i32) -> Ret {
    sys!(SYS_futex_waitv, list.as_ptr(), list.len(), flags, limit, clock)
}

fn vector() {
    let words = words();
    let private = SIZE_U32 | FUTEX_PRIVATE_FLAG as u32;
    let waiter = move |index: usize, value: u64| Waiter {
        value,
        address: words[index].as_ptr() as u64,
        flags: private,
        reserved: 0,
    };
    for index in [0, 2] {
        let (_, thread) =
            sleeping_thread(move || waitv(&[waiter(0, 0), waiter(1, 0), waiter(2, 0)], 0, null(), CLOCK_MONOTONIC));
        say!("wake {index}: {}, the wait: {}", wake(&words[index], 1), thread.join().unwrap_or(Ret(-1)));
    }
    say!("one differs: {}", waitv(&[waiter(0, 0), waiter(1, 5)], 0, null(), CLOCK_MONOTONIC));
    say!("long ago: {}", waitv(&[waiter(0, 0)], 0, &time(0, 0), CLOCK_MONOTONIC));
    say!("long ago, real time: {}", waitv(&[waiter(0, 0)], 0, &time(0, 0), CLOCK_REALTIME));
    say!("nobody is left in a queue: {}", wake(&words[0], 9));
    let (_, thread) = sleeping_thread(move || waitv(&[waiter(3, 0), waiter(3, 0)], 0, null(), CLOCK_MONOTONIC));
    say!("the same word twice: {}", wake(&words[3], 9).0 >= 1);
    say!("the wait: {}", thread.join().is_ok_and(Ret::ok));
}

fn vector_refused() {
    let words = words();
    let good = Waiter { value: 0, address: words[0].as_ptr() as u64, flags: SIZE_U32, reserved: 0 };
    let past = time(0, 0);
    let one = |waiter: Waiter| waitv(&[waiter], 0, &past, CLOCK_MONOTONIC);
    say!("good: {}", one(good));
    say!("none: {}", waitv(&[], 0, &past, CLOCK_MONOTONIC));
    say!("128: {}", waitv(&[good; 128], 0, &past, CLOCK_MONOTONIC));
    say!("129: {}", waitv(&[good; 129], 0, &past, CLOCK_MONOTONIC));
    say!("flags: {}", waitv(&[good], 1, &past, CLOCK_MONOTONIC));
    say!("another clock: {}", waitv(&[good], 0, &past, CLOCK_BOOTTIME));
    say!("another clock without time: {}", waitv(&[Waiter { value: 1, ..good }], 0, null(), CLOCK_BOOTTIME));
    say!("bad time: {}", waitv(&[good], 0, &time(0, -1), CLOCK_MONOTONIC));
    say!("time nowhere: {}", waitv(&[good], 0, NOWHERE.cast(), CLOCK_MONOTONIC));
    say!("list nowhere: {}", sys!(SYS_futex_waitv, NOWHERE, 1, 0, &past, CLOCK_MONOTONIC));
    say!("no list: {}", sys!(SYS_futex_waitv, 0, 1, 0, &past, CLOCK_MONOTONIC));
    say!("no size: {}", one(Waiter { flags: 0, ..good }));
    say!("size 64: {}", one(Waiter { flags: 3, ..good }));
    say!("another flag: {}", one(Waiter { flags: SIZE_U32 | 4, ..good }));
    say!("reserved: {}", one(Waiter { reserved: 1, ..good }));
    say!("unaligned: {}", one(Waiter { address: good.address + 1, ..good }));
    say!("nowhere: {}", one(Waiter { address: 8, ..good }));
    say!("a value of more than 32 bits: {}", one(Waiter { value: 1 << 32, ..good }));
    say!("the second is bad: {}", waitv(&[good, Waiter { reserved: 1, ..good }], 0, &past, CLOCK_MONOTONIC));
}

fn word_goes_away() {
    let page = pages(1) as usize;
    let (_, thread) = sleeping_thread(move || sys!(SYS_futex, page, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, &time(10, 0)));
    sys!(SYS_munmap, page, PAGE);
    say!(
        "a private word that is unmapped is still a key: {}",
        sys!(SYS_futex, page, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1)
    );
    say!("the wait: {}", thread.join().unwrap_or(Ret(-1)));
    say!("a shared one is not: {}", sys!(SYS_futex, page, FUTEX_WAKE, 1));
    let page = pages(1) as usize;
    let (_, thread) = sleeping_thread(move || sys!(SYS_futex, page, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0, &time(10, 0)));
    sys!(SYS_mremap, page, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, pages(1));
    say!("moved away: {}", sys!(SYS_futex, page, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1));
    say!("the wait: {}", thread.join().unwrap_or(Ret(-1)));
}

fn pi(word: &AtomicU32, operation: i32) -> Ret {
    sys!(SYS_futex, word.as_ptr(), operation | FUTEX_PRIVATE_FLAG, 0, null::<u8>())
}

fn pi_locks() {
    let word = &words()[0];
    let own = sys!(SYS_gettid).0 as u32;
    say!("lock: {}", pi(word, FUTEX_LOCK_PI));
    say!("the word: {}", word.load(SeqCst) == own);
    say!("again: {}", pi(word, FUTEX_LOCK_PI));
    say!("try: {}", pi(word, FUTEX_TRYLOCK_PI));
    let (_, thread) = sleeping_thread(move || {
        let locked = pi(word, FUTEX_LOCK_PI);
        (locked, word.load(SeqCst) == sys!(SYS_gettid).0 as u32, pi(word, FUTEX_UNLOCK_PI))
    });
    say!("somebody waits: {}", word.load(SeqCst) == own | FUTEX_WAITERS);
    say!("unlock: {}", pi(word, FUTEX_UNLOCK_PI));
    let (locked, owns, unlocked) = thread.join().unwrap_or((Ret(-1), false, Ret(-1)));
    say!("the other: {locked} {owns} {unlocked}");
    say!("free: {}", word.load(SeqCst));
    say!("unlock what is free: {}", pi(word, FUTEX_UNLOCK_PI));
    say!("try: {}", pi(word, FUTEX_TRYLOCK_PI));
    let other = std::thread::spawn(move || {
        let limit = time(1, 0);
        let timed = sys!(SYS_futex, word.as_ptr(), FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, &limit);
        (pi(word, FUTEX_TRYLOCK_PI), pi(word, FUTEX_UNLOCK_PI), timed)
    });
    let (tried, unlocked, timed) = other.join().unwrap_or((Ret(-1), Ret(-1), Ret(-1)));
    say!("another thread, try: {tried}, unlock: {unlocked}, until long ago: {timed}");
    // Locks of owners that died.
    let word = &words()[0];
    word.store(4_000_000 - 1, SeqCst);
    say!("an owner that is not there: {}", pi(word, FUTEX_LOCK_PI));
    say!("try: {}", pi(word, FUTEX_TRYLOCK_PI));
    word.store(FUTEX_OWNER_DIED, SeqCst);
    say!("an owner that died: {}", pi(word, FUTEX_LOCK_PI));
    say!("the word: {}", word.load(SeqCst) == sys!(SYS_gettid).0 as u32 | FUTEX_OWNER_DIED);
    say!("unlock: {}", pi(word, FUTEX_UNLOCK_PI));
    say!("the word: {}", word.load(SeqCst));
    // What is refused.
    let at = words()[0].as_ptr() as usize;
    for (name, operation) in [("LOCK", FUTEX_LOCK_PI), ("TRYLOCK", FUTEX_TRYLOCK_PI), ("UNLOCK", FUTEX_UNLOCK_PI)] {
        say!("{name}, unaligned: {}", sys!(SYS_futex, at + 1, operation, 0, 0));
        say!("{name}, nowhere: {}", sys!(SYS_futex, 8, operation, 0, 0));
        say!("{name}, with a clock: {}", sys!(SYS_futex, at, operation | FUTEX_CLOCK_REALTIME, 0, 0));
    }
    say!("bad time: {}", sys!(SYS_futex, at, FUTEX_LOCK_PI, 0, &time(-1, 0)));
}
