//! Locks of the C library that lend priority or survive their owners (pthread_mutexattr_setprotocol(3),
//! pthread_mutexattr_setrobust(3)), and what its other locks and cancelling make of futexes.

mod cancel;
mod others;

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread::JoinHandle;

use libc::*;

use self::cancel::{cancel_in_a_condition, cancel_is_held_off, cancel_while_blocked, no_cancel_in_a_lock};
use self::others::{barrier, barrier_of_processes, readers_and_writers, semaphore};
use super::futex_pi::{priority, set_priority};
use crate::memory;
use crate::process::{Gate, child, kill, sleep_ms, sleeping_thread, tid, until_asleep, wait};
use crate::sys::{errno_name, sys, zeroed};
use crate::{say, tests};

tests! {
    kinds, errors, robust_owner_dies, robust_process_dies, not_recoverable, robust_waiter_inherits, robust_held_by_many,
    lends_priority, robust_and_lending, timed_by_both_clocks, timed_while_lending, condition_with_lending,
    condition_times_out, condition_of_a_dead_owner, readers_and_writers, barrier, barrier_of_processes, semaphore,
    cancel_while_blocked, cancel_in_a_condition, cancel_is_held_off, no_cancel_in_a_lock,
}

/// The constants of musl and glibc.
const INHERIT: i32 = 1;
const ROBUST: i32 = 1;
const SHARED: i32 = 1;

unsafe extern "C" {
    fn pthread_mutexattr_setrobust(attributes: *mut pthread_mutexattr_t, robust: i32) -> i32;
    fn pthread_mutexattr_setprotocol(attributes: *mut pthread_mutexattr_t, protocol: i32) -> i32;
    fn pthread_mutex_consistent(mutex: *mut pthread_mutex_t) -> i32;
    fn pthread_mutex_timedlock(mutex: *mut pthread_mutex_t, time: *const timespec) -> i32;
    fn pthread_cond_timedwait(cond: *mut pthread_cond_t, mutex: *mut pthread_mutex_t, time: *const timespec) -> i32;
}

fn shown(result: i32) -> String {
    if result == 0 { "0".into() } else { errno_name(result) }
}

/// What threads and processes share: as long as the test runs.
struct Shared<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: only the C library touches what is inside.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn new() -> &'static Shared<T> {
        const { assert!(size_of::<T>() <= 4096) };
        // SAFETY: a page of its own, that stays.
        unsafe { &*memory::shared_page().cast() }
    }

    fn at(&self) -> *mut T {
        self.0.get().cast()
    }
}

type Mutex = Shared<pthread_mutex_t>;

/// What a mutex is like.
#[derive(Clone, Copy, Default)]
struct Like {
    kind: i32,
    robust: bool,
    lends: bool,
    shared: bool,
}

const ROBUST_ONE: Like = Like { kind: PTHREAD_MUTEX_NORMAL, robust: true, lends: false, shared: false };
const LENDING: Like = Like { kind: PTHREAD_MUTEX_NORMAL, robust: false, lends: true, shared: false };
const BOTH: Like = Like { robust: true, ..LENDING };

impl Like {
    fn of(self, kind: i32) -> Like {
        Like { kind, ..self }
    }

    fn shared(self) -> Like {
        Like { shared: true, ..self }
    }

    fn mutex(self) -> &'static Mutex {
        let mutex = Mutex::new();
        let mut attributes: pthread_mutexattr_t = zeroed();
        // SAFETY: valid pointers.
        let result = unsafe {
            pthread_mutexattr_init(&mut attributes);
            let kind = pthread_mutexattr_settype(&mut attributes, self.kind);
            let robust = if self.robust { pthread_mutexattr_setrobust(&mut attributes, ROBUST) } else { 0 };
            let lends = if self.lends { pthread_mutexattr_setprotocol(&mut attributes, INHERIT) } else { 0 };
            let shared = if self.shared { pthread_mutexattr_setpshared(&mut attributes, SHARED) } else { 0 };
            [kind, robust, lends, shared, pthread_mutex_init(mutex.at(), &attributes)]
        };
        if result != [0; 5] {
            say!("no such mutex: {:?}", result.map(shown));
        }
        mutex
    }
}

impl Mutex {
    fn lock(&self) -> i32 {
        // SAFETY: it was made.
        unsafe { pthread_mutex_lock(self.at()) }
    }

    fn try_lock(&self) -> i32 {
        // SAFETY: as above.
        unsafe { pthread_mutex_trylock(self.at()) }
    }

    fn unlock(&self) -> i32 {
        // SAFETY: as above.
        unsafe { pthread_mutex_unlock(self.at()) }
    }

    fn consistent(&self) -> i32 {
        // SAFETY: as above.
        unsafe { pthread_mutex_consistent(self.at()) }
    }

    /// By the clock of the time of day.
    fn lock_until(&self, time: &timespec) -> i32 {
        // SAFETY: as above.
        unsafe { pthread_mutex_timedlock(self.at(), time) }
    }
}

/// So many milliseconds from now.
fn soon(clock: i32, milliseconds: i64) -> timespec {
    let mut now: timespec = zeroed();
    sys!(SYS_clock_gettime, clock, &mut now).need();
    let nanoseconds = now.tv_nsec + milliseconds * 1_000_000;
    timespec {
        tv_sec: now.tv_sec + nanoseconds.div_euclid(1_000_000_000),
        tv_nsec: nanoseconds.rem_euclid(1_000_000_000),
    }
}

fn gates() -> (&'static Gate, &'static Gate) {
    (Box::leak(Box::new(Gate::new())), Box::leak(Box::new(Gate::new())))
}

fn done<T>(thread: JoinHandle<T>) -> T {
    thread.join().expect("no panics")
}

/// In another thread.
fn elsewhere<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
    done(std::thread::spawn(body))
}

fn kinds() {
    for (name, like) in [("robust", ROBUST_ONE), ("lending", LENDING), ("both", BOTH)] {
        for (kind_name, kind) in [
            ("normal", PTHREAD_MUTEX_NORMAL),
            ("checking", PTHREAD_MUTEX_ERRORCHECK),
            ("recursive", PTHREAD_MUTEX_RECURSIVE),
        ] {
            let mutex = like.of(kind).mutex();
            let first = mutex.lock();
            let again = mutex.try_lock();
            let other = elsewhere(|| (mutex.try_lock(), mutex.lock_until(&soon(CLOCK_REALTIME, 5))));
            let given = [mutex.unlock(), if again == 0 { mutex.unlock() } else { 0 }].map(shown);
            let (tried, timed) = (shown(other.0), shown(other.1));
            say!("{name} {kind_name}: {}, again {}, another {tried} {timed}, {given:?}", shown(first), shown(again));
        }
    }
}

fn errors() {
    for (name, like) in [("robust", ROBUST_ONE), ("lending", LENDING), ("both", BOTH)] {
        let mutex = like.of(PTHREAD_MUTEX_ERRORCHECK).mutex();
        say!("{name}, not locked: {}", shown(mutex.unlock()));
        say!("nothing to mend: {}", shown(mutex.consistent()));
        mutex.lock();
        say!("twice: {}", shown(mutex.lock()));
        say!("another's: {}", shown(elsewhere(|| mutex.unlock())));
        say!("mine: {}", shown(mutex.unlock()));
    }
}

fn robust_owner_dies() {
    for (name, like) in [("robust", ROBUST_ONE), ("both", BOTH)] {
        let mutex = like.mutex();
        say!("{name}, the owner: {}", shown(elsewhere(|| mutex.lock())));
        say!("the next: {}", shown(mutex.lock()));
        say!("mended: {} {}", shown(mutex.consistent()), shown(mutex.unlock()));
        say!("as new: {} {}", shown(mutex.lock()), shown(mutex.unlock()));
        elsewhere(|| mutex.lock());
        say!("tried: {}", shown(mutex.try_lock()));
        say!("mended: {} {}", shown(mutex.consistent()), shown(mutex.unlock()));
    }
}

fn robust_process_dies() {
    for (name, like) in [("robust", ROBUST_ONE.shared()), ("both", BOTH.shared())] {
        let mutex = like.mutex();
        let locked = Gate::new();
        let owner = child(|| {
            mutex.lock();
            locked.open();
            sleep_ms(100_000);
            0
        });
        locked.pass();
        say!("{name}, held: {}", shown(mutex.try_lock()));
        let waiter = child(|| {
            let locked = mutex.lock();
            let mended = mutex.consistent();
            mutex.unlock();
            say!("the waiter: {}, {}", shown(locked), shown(mended));
            0
        });
        until_asleep(waiter);
        kill(owner, SIGKILL);
        wait(owner);
        wait(waiter);
        say!("afterwards: {} {}", shown(mutex.lock()), shown(mutex.unlock()));
    }
}

fn not_recoverable() {
    for (name, like) in [("robust", ROBUST_ONE), ("both", BOTH)] {
        let mutex = like.mutex();
        elsewhere(|| mutex.lock());
        let first = mutex.lock();
        let (_, waiter) = sleeping_thread(|| mutex.lock());
        say!("{name}: {}, not mended: {}", shown(first), shown(mutex.unlock()));
        say!("who waited: {}", shown(done(waiter)));
        say!("the next: {} {}", shown(mutex.lock()), shown(mutex.try_lock()));
        say!("too late: {}", shown(mutex.consistent()));
    }
}

fn robust_waiter_inherits() {
    for (name, like) in [("robust", ROBUST_ONE), ("both", BOTH)] {
        let mutex = like.mutex();
        let (gate, held) = gates();
        let owner = std::thread::spawn(|| {
            mutex.lock();
            held.open();
            gate.pass();
        });
        held.pass();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                // The first finds it orphaned, and dies with it; and so on.
                sleeping_thread(|| mutex.lock()).1
            })
            .collect();
        gate.open();
        done(owner);
        let mut all: Vec<String> = waiters.into_iter().map(|waiter| shown(done(waiter))).collect();
        all.sort();
        say!("{name}: {all:?}");
    }
}

fn robust_held_by_many() {
    const COUNT: usize = 40;
    let mutexes: Vec<_> =
        (0..COUNT).map(|index| if index % 2 == 0 { ROBUST_ONE.mutex() } else { BOTH.mutex() }).collect();
    let theirs = mutexes.clone();
    elsewhere(move || theirs.iter().for_each(|mutex| _ = mutex.lock()));
    let orphaned = mutexes.iter().filter(|mutex| mutex.lock() == EOWNERDEAD).count();
    let mended = mutexes.iter().filter(|mutex| mutex.consistent() == 0 && mutex.unlock() == 0).count();
    say!("orphaned: {orphaned}, mended: {mended}");
}

/// A thread of SCHED_FIFO that takes a lock and gives it back, asleep.
fn urgent(mutex: &'static Mutex, level: i32) -> JoinHandle<i32> {
    sleeping_thread(move || {
        set_priority(0, SCHED_FIFO, level).need();
        let locked = mutex.lock();
        mutex.unlock();
        locked
    })
    .1
}

fn lends_priority() {
    let mutex = LENDING.mutex();
    mutex.lock();
    say!("alone: {}", priority(tid()));
    let one = urgent(mutex, 10);
    say!("one waits: {}", priority(tid()));
    let two = urgent(mutex, 30);
    say!("two wait: {}", priority(tid()));
    say!("unlock: {}, {}", shown(mutex.unlock()), priority(tid()));
    say!("they: {} {}", shown(done(two)), shown(done(one)));
}

fn robust_and_lending() {
    let mutex = BOTH.mutex();
    let (gate, held) = gates();
    let owner = std::thread::spawn(|| {
        mutex.lock();
        held.open();
        gate.pass();
        priority(tid())
    });
    held.pass();
    let low = urgent(mutex, 10);
    let (_, high) = sleeping_thread(|| {
        set_priority(0, SCHED_FIFO, 20).need();
        let locked = mutex.lock();
        let own = priority(tid());
        (locked, own, mutex.consistent(), mutex.unlock())
    });
    gate.open();
    say!("the owner had {}", done(owner));
    let (locked, own, mended, unlocked) = done(high);
    say!("the first: {} with {own}, {} {}", shown(locked), shown(mended), shown(unlocked));
    say!("the second: {}", shown(done(low)));
}

fn timed_by_both_clocks() {
    for (name, like) in [("robust", ROBUST_ONE), ("lending", LENDING), ("both", BOTH)] {
        let mutex = like.mutex();
        say!("{name}, free: {}", shown(mutex.lock_until(&soon(CLOCK_REALTIME, 5))));
        // With nanoseconds below 0 a lending one of musl would wait for ever.
        let late =
            elsewhere(|| [soon(CLOCK_REALTIME, 5), soon(CLOCK_REALTIME, -5)].map(|time| mutex.lock_until(&time)));
        say!("held: {:?}", late.map(shown));
        mutex.unlock();
    }
    // The other clock is that of conditions.
    for (name, clock) in [("time of day", CLOCK_REALTIME), ("monotonic", CLOCK_MONOTONIC)] {
        let (mutex, condition) = (LENDING.mutex(), Condition::with(clock));
        mutex.lock();
        let before = soon(clock, 0);
        let waited = condition.wait_until(mutex, &soon(clock, 10));
        let after = soon(clock, 0);
        let passed = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1_000_000;
        say!("{name}: {}, at least 10 ms: {}, not long: {}", shown(waited), passed >= 10, passed < 5000);
        mutex.unlock();
    }
}

fn timed_while_lending() {
    let mutex = LENDING.mutex();
    mutex.lock();
    let (_, waiter) = sleeping_thread(|| {
        set_priority(0, SCHED_FIFO, 10).need();
        mutex.lock_until(&soon(CLOCK_REALTIME, 200))
    });
    say!("it waits: {}", priority(tid()));
    say!("it gives up: {}, {}", shown(done(waiter)), priority(tid()));
    say!("unlock: {}", shown(mutex.unlock()));
}

type Condition = Shared<pthread_cond_t>;

impl Condition {
    fn with(clock: i32) -> &'static Condition {
        let condition = Condition::new();
        let mut attributes: pthread_condattr_t = zeroed();
        // SAFETY: valid pointers.
        unsafe {
            pthread_condattr_init(&mut attributes);
            pthread_condattr_setclock(&mut attributes, clock);
            pthread_cond_init(condition.at(), &attributes);
        }
        condition
    }

    fn wait(&self, mutex: &Mutex) -> i32 {
        // SAFETY: they were made.
        unsafe { pthread_cond_wait(self.at(), mutex.at()) }
    }

    fn wait_until(&self, mutex: &Mutex, time: &timespec) -> i32 {
        // SAFETY: as above.
        unsafe { pthread_cond_timedwait(self.at(), mutex.at(), time) }
    }

    fn signal(&self) -> i32 {
        // SAFETY: as above.
        unsafe { pthread_cond_signal(self.at()) }
    }

    fn broadcast(&self) -> i32 {
        // SAFETY: as above.
        unsafe { pthread_cond_broadcast(self.at()) }
    }
}

fn condition_with_lending() {
    let (mutex, condition) = (LENDING.mutex(), Condition::with(CLOCK_MONOTONIC));
    static TURNS: AtomicU32 = AtomicU32::new(0);
    let waiters: Vec<_> = (1..=4)
        .map(|level| {
            sleeping_thread(move || {
                set_priority(0, SCHED_FIFO, level).need();
                mutex.lock();
                let mut woken = 0;
                while TURNS.load(SeqCst) == 0 {
                    woken = condition.wait(mutex);
                }
                TURNS.fetch_sub(1, SeqCst);
                mutex.unlock();
                woken
            })
            .1
        })
        .collect();
    mutex.lock();
    TURNS.store(1, SeqCst);
    say!("one: {}", shown(condition.signal()));
    mutex.unlock();
    while TURNS.load(SeqCst) > 0 {
        sleep_ms(1);
    }
    mutex.lock();
    TURNS.store(3, SeqCst);
    say!("all: {}", shown(condition.broadcast()));
    mutex.unlock();
    let all: Vec<String> = waiters.into_iter().map(|waiter| shown(done(waiter))).collect();
    say!("they: {all:?}");
}

fn condition_times_out() {
    for (name, like) in [("robust", ROBUST_ONE), ("lending", LENDING), ("both", BOTH)] {
        let (mutex, condition) = (like.mutex(), Condition::with(CLOCK_MONOTONIC));
        mutex.lock();
        let waited = condition.wait_until(mutex, &soon(CLOCK_MONOTONIC, 5));
        say!("{name}: {}, it has the lock: {}", shown(waited), shown(elsewhere(|| mutex.try_lock())));
        say!("past: {}", shown(condition.wait_until(mutex, &soon(CLOCK_MONOTONIC, -5))));
        mutex.unlock();
    }
}

fn condition_of_a_dead_owner() {
    for (name, like) in [("robust", ROBUST_ONE), ("both", BOTH)] {
        let (mutex, condition) = (like.mutex(), Condition::with(CLOCK_MONOTONIC));
        let (_, waiter) = sleeping_thread(move || {
            mutex.lock();
            let woken = condition.wait(mutex);
            (woken, mutex.consistent(), mutex.unlock())
        });
        elsewhere(|| {
            mutex.lock();
            condition.signal();
        });
        let (woken, mended, unlocked) = done(waiter);
        say!("{name}: {}, {}, {}", shown(woken), shown(mended), shown(unlocked));
    }
}
