//! FUTEX_WAIT_REQUEUE_PI and FUTEX_CMP_REQUEUE_PI: condition variables whose waiters are moved to a lock that lends priority.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::JoinHandle;

use libc::*;

use super::futex::{wait_on, wake};
use super::futex_pi::{done, lock, pi, priority, set_priority, shown, unlock, words};
use crate::memory::shared_words;
use crate::process::{self, child, kill, sleep_ms, sleeping_thread, tid, until_asleep, wait};
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, signal, tests};

tests! {
    to_a_free_lock, to_a_lock_with_an_owner, counts, wait_refused, requeue_refused, not_paired, plain_operations_refused,
    late_at_the_word, late_at_the_lock, clocks, interrupted_at_the_word, interrupted_at_the_lock, by_priority, lends_priority,
    waiter_owns_the_lock, dead_owner, killed_at_the_lock, between_processes, nobody_waits,
}

fn wait_for(from: &AtomicU32, to: &AtomicU32, limit: *const timespec) -> Ret {
    sys!(SYS_futex, from.as_ptr(), FUTEX_WAIT_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 0, limit, to.as_ptr(), 0)
}

fn requeue(from: &AtomicU32, to: &AtomicU32, wake: i32, count: i32, expected: u32) -> Ret {
    sys!(SYS_futex, from.as_ptr(), FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, wake, count, to.as_ptr(), expected)
}

/// A thread that waits to be requeued, and unlocks if it gets the lock.
fn waiter(from: &'static AtomicU32, to: &'static AtomicU32) -> (i32, JoinHandle<Ret>) {
    sleeping_thread(move || {
        let waited = wait_for(from, to, std::ptr::null());
        if waited.ok() {
            unlock(to);
        }
        waited
    })
}

fn after(clock: i32, nanoseconds: i64) -> timespec {
    let mut now: timespec = zeroed();
    sys!(SYS_clock_gettime, clock, &mut now);
    let all = now.tv_nsec + nanoseconds;
    timespec { tv_sec: now.tv_sec + all / 1_000_000_000, tv_nsec: all % 1_000_000_000 }
}

fn to_a_free_lock() {
    let (from, to) = (&words()[0], &words()[1]);
    for count in [0, 1] {
        let gate = Arc::new(process::Gate::new());
        let pass = gate.clone();
        let (one, thread) = sleeping_thread(move || {
            let waited = wait_for(from, to, std::ptr::null());
            pass.pass();
            unlock(to);
            waited
        });
        say!("{}, {}", requeue(from, to, 1, count, 0), shown(to, &[(one, "the waiter")]));
        gate.open();
        say!("{}, {}", done(thread), shown(to, &[]));
    }
}

fn to_a_lock_with_an_owner() {
    let (from, to) = (&words()[0], &words()[1]);
    lock(to);
    let who = [(tid(), "I")];
    let (one, two) = (waiter(from, to), waiter(from, to));
    say!("{}, {}", requeue(from, to, 1, 0, 0), shown(to, &who));
    say!("{}, {}", requeue(from, to, 1, i32::MAX, 0), shown(to, &who));
    say!("no more: {}", requeue(from, to, 1, i32::MAX, 0));
    say!("unlock: {}", unlock(to));
    say!("{} {}, {}", done(one.1), done(two.1), shown(to, &who));
}

fn counts() {
    let (from, to) = (&words()[0], &words()[1]);
    for (owned, count) in [(true, 2), (false, 2), (true, i32::MAX), (false, i32::MAX)] {
        if owned {
            lock(to);
        }
        let threads: Vec<_> = (0..5).map(|_| waiter(from, to)).collect();
        let first = requeue(from, to, 1, count, 0);
        let mut rest = Vec::new();
        if owned {
            unlock(to);
        }
        // Until all have had the lock.
        while rest.len() < 5 && !threads.iter().all(|(_, thread)| thread.is_finished()) {
            let more = requeue(from, to, 1, i32::MAX, 0).0;
            if more != 0 {
                rest.push(more);
            }
            sleep_ms(2);
        }
        let answers: Vec<i64> = threads.into_iter().map(|(_, thread)| done(thread).0).collect();
        say!("owned {owned}, {count}: {first}, rest {}; {answers:?}", rest.iter().sum::<i64>());
        to.store(0, SeqCst);
    }
}

fn wait_refused() {
    let (from, to) = (&words()[0], &words()[1]);
    let call = |from: usize, value: u32, to: usize| {
        sys!(SYS_futex, from, FUTEX_WAIT_REQUEUE_PI | FUTEX_PRIVATE_FLAG, value, 0, to, 0)
    };
    let (a, b) = (from.as_ptr() as usize, to.as_ptr() as usize);
    say!("the same word: {}", call(a, 0, a));
    say!("another value: {}", call(a, 1, b));
    say!("unaligned: {} {}", call(a + 1, 0, b), call(a, 0, b + 2));
    say!("nowhere: {}", call(NOWHERE as usize, 0, b));
    // That the lock is nowhere is seen when it is wanted.
    say!("another value, to nowhere: {}", call(a, 1, NOWHERE as usize));
    let bad = timespec { tv_sec: 0, tv_nsec: -1 };
    say!("bad time: {}", wait_for(from, to, &bad));
    say!("a time nowhere: {}", sys!(SYS_futex, a, FUTEX_WAIT_REQUEUE_PI, 0, NOWHERE, b, 0));
    let long_ago = timespec { tv_sec: 0, tv_nsec: 0 };
    say!("long ago: {}", wait_for(from, to, &long_ago));
    // The same word by two addresses.
    let fd = crate::file::create(c"f", "");
    sys!(SYS_ftruncate, fd, 4096);
    let map = || crate::memory::map(4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0).need() as usize;
    let (one, two) = (map(), map());
    say!("by two addresses: {}", sys!(SYS_futex, one, FUTEX_WAIT_REQUEUE_PI, 0, 0, two, 0));
    say!("and another value: {}", sys!(SYS_futex, one, FUTEX_WAIT_REQUEUE_PI, 1, 0, two, 0));
    say!("requeue: {}", sys!(SYS_futex, one, FUTEX_CMP_REQUEUE_PI, 1, 1, two, 0));
}

fn requeue_refused() {
    let (from, to) = (&words()[0], &words()[1]);
    say!("the same word: {}", requeue(from, from, 1, 1, 0));
    say!(
        "wake 0: {}, 2: {}, -1: {}",
        requeue(from, to, 0, 1, 0),
        requeue(from, to, 2, 1, 0),
        requeue(from, to, -1, 1, 0)
    );
    say!("move -1: {}", requeue(from, to, 1, -1, 0));
    say!("another value: {}", requeue(from, to, 1, 1, 7));
    let call = |from: usize, to: usize| sys!(SYS_futex, from, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 1, 1, to, 0);
    let (a, b) = (from.as_ptr() as usize, to.as_ptr() as usize);
    say!("unaligned: {} {}", call(a + 1, b), call(a, b + 1));
    say!("nowhere: {} {}", call(NOWHERE as usize, b), call(a, NOWHERE as usize));
    let other = sys!(SYS_futex, a, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 1, 1, NOWHERE, 7);
    say!("another value, to nowhere: {other}");
    say!("a clock: {}", sys!(SYS_futex, a, FUTEX_CMP_REQUEUE_PI | FUTEX_CLOCK_REALTIME, 1, 1, b, 0));
}

fn not_paired() {
    let words = words();
    let (from, to, other) = (&words[0], &words[1], &words[2]);
    let one = waiter(from, to);
    say!("to another lock: {}", requeue(from, other, 1, 1, 0));
    say!("to the right one: {}, {}", requeue(from, to, 1, 1, 0), done(one.1));
    to.store(0, SeqCst);
    let (_, plain) = sleeping_thread(|| wait_on(from, 0));
    say!("a plain waiter: {}", requeue(from, to, 1, 1, 0));
    say!("{} {}", wake(from, 1), done(plain));
    // The lock has plain waiters.
    let one = waiter(from, to);
    let (_, plain) = sleeping_thread(|| wait_on(to, 0));
    say!("a lock with a plain waiter: {}", requeue(from, to, 1, 1, 0));
    say!("{} {}", wake(to, 1), done(plain));
    say!("then: {}, {}", requeue(from, to, 1, 1, 0), done(one.1));
    // The word names nobody.
    let one = waiter(from, to);
    to.store(3_999_999, SeqCst);
    say!("a lock of nobody: {}", requeue(from, to, 1, 1, 0));
    to.store(0, SeqCst);
    say!("then: {}, {}", requeue(from, to, 1, 1, 0), done(one.1));
}

fn plain_operations_refused() {
    let (from, to) = (&words()[0], &words()[1]);
    let one = waiter(from, to);
    let call = |operation: i32| sys!(SYS_futex, from.as_ptr(), operation | FUTEX_PRIVATE_FLAG, 1, 1, to.as_ptr(), 0);
    say!("wake: {}", wake(from, 1));
    say!("requeue: {}", call(FUTEX_REQUEUE));
    say!("compare and requeue: {}", call(FUTEX_CMP_REQUEUE));
    say!("wake op: {}", call(FUTEX_WAKE_OP));
    say!("lock: {}", lock(from));
    say!("then: {}, {}", requeue(from, to, 1, 1, 0), done(one.1));
}

fn late_at_the_word() {
    let (from, to) = (&words()[0], &words()[1]);
    let limit = after(CLOCK_MONOTONIC, 30_000_000);
    say!("{}", wait_for(from, to, &limit));
    let now = after(CLOCK_MONOTONIC, 0);
    say!("not earlier: {}", (now.tv_sec, now.tv_nsec) >= (limit.tv_sec, limit.tv_nsec));
    say!("nobody is left: {}, {}", requeue(from, to, 1, 1, 0), shown(to, &[]));
}

fn late_at_the_lock() {
    let (from, to) = (&words()[0], &words()[1]);
    lock(to);
    let (_, thread) = sleeping_thread(|| {
        let limit = after(CLOCK_MONOTONIC, 300_000_000);
        wait_for(from, to, &limit)
    });
    say!("{}", requeue(from, to, 1, 1, 0));
    say!("{}, {}", done(thread), shown(to, &[(tid(), "I")]));
    say!("{}, {}", unlock(to), shown(to, &[]));
}

fn clocks() {
    let (from, to) = (&words()[0], &words()[1]);
    for (name, clock, flag) in [("monotonic", CLOCK_MONOTONIC, 0), ("real time", CLOCK_REALTIME, FUTEX_CLOCK_REALTIME)]
    {
        let limit = after(clock, 20_000_000);
        let operation = FUTEX_WAIT_REQUEUE_PI | FUTEX_PRIVATE_FLAG | flag;
        let late = sys!(SYS_futex, from.as_ptr(), operation, 0, &limit, to.as_ptr(), 0);
        let now = after(clock, 0);
        say!("{name}: {late}, not earlier: {}", (now.tv_sec, now.tv_nsec) >= (limit.tv_sec, limit.tv_nsec));
    }
}

fn until_caught() {
    while signal::CAUGHT.load(SeqCst) == 0 {
        sleep_ms(1);
    }
}

fn interrupted_at_the_word() {
    let (from, to) = (&words()[0], &words()[1]);
    for (name, flags) in [("without SA_RESTART", 0), ("with SA_RESTART", SA_RESTART)] {
        signal::handle(SIGUSR1, signal::count, flags);
        let (one, thread) = waiter(from, to);
        sys!(SYS_tgkill, process::pid(), one, SIGUSR1);
        until_caught();
        until_asleep(one);
        say!("{name}: {}", requeue(from, to, 1, 1, 0));
        say!("{}, handlers: {}", done(thread), signal::caught());
        to.store(0, SeqCst);
    }
}

fn interrupted_at_the_lock() {
    let (from, to) = (&words()[0], &words()[1]);
    for (name, flags) in [("without SA_RESTART", 0), ("with SA_RESTART", SA_RESTART)] {
        signal::handle(SIGUSR1, signal::count, flags);
        lock(to);
        let (one, thread) = waiter(from, to);
        requeue(from, to, 1, 1, 0);
        until_asleep(one);
        sys!(SYS_tgkill, process::pid(), one, SIGUSR1);
        say!("{name}: {}, handlers: {}", done(thread), signal::caught());
        say!("{}, {}", unlock(to), shown(to, &[]));
    }
}

fn by_priority() {
    let (from, to) = (&words()[0], &words()[1]);
    set_priority(0, SCHED_FIFO, 90).need();
    lock(to);
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let threads = [10, 30, 0, 20].map(|value| {
        let order = order.clone();
        sleeping_thread(move || {
            if value != 0 {
                set_priority(0, SCHED_FIFO, value).need();
            } else {
                set_priority(0, SCHED_OTHER, 0).need();
            }
            let waited = wait_for(from, to, std::ptr::null());
            order.lock().expect("no panics").push(value);
            unlock(to);
            waited
        })
        .1
    });
    say!("{}", requeue(from, to, 1, 1, 0));
    // The two most urgent ones have been moved.
    unlock(to);
    while order.lock().expect("no panics").len() < 2 {
        sleep_ms(1);
    }
    lock(to);
    say!("{}", requeue(from, to, 1, 9, 0));
    unlock(to);
    let _ = threads.map(done);
    say!("{:?}", order.lock().expect("no panics"));
}

fn lends_priority() {
    let (from, to) = (&words()[0], &words()[1]);
    lock(to);
    let (one, thread) = sleeping_thread(|| {
        set_priority(0, SCHED_FIFO, 35).need();
        let waited = wait_for(from, to, std::ptr::null());
        unlock(to);
        waited
    });
    say!("before: {}", priority(tid()));
    requeue(from, to, 1, 1, 0);
    say!("after: {}", priority(tid()));
    set_priority(one, SCHED_FIFO, 45).need();
    say!("more: {}", priority(tid()));
    unlock(to);
    say!("{}, {}", done(thread), priority(tid()));
}

fn waiter_owns_the_lock() {
    let (from, to) = (&words()[0], &words()[1]);
    let (one, thread) = sleeping_thread(|| {
        lock(to);
        let limit = after(CLOCK_MONOTONIC, 300_000_000);
        let waited = wait_for(from, to, &limit);
        unlock(to);
        waited
    });
    say!("{}, {}", requeue(from, to, 1, 1, 0), shown(to, &[(one, "the waiter")]));
    say!("{}", done(thread));
}

fn dead_owner() {
    let (from, to) = (&words()[0], &words()[1]);
    to.store(FUTEX_OWNER_DIED, SeqCst);
    let (_, thread) = sleeping_thread(|| {
        let waited = wait_for(from, to, std::ptr::null());
        say!("{}", shown(to, &[(tid(), "the waiter")]));
        waited
    });
    let requeued = requeue(from, to, 1, 0, 0);
    let waited = done(thread);
    say!("{requeued} {waited}");
    // One that ends while another waits after a requeue.
    to.store(0, SeqCst);
    let gate = Arc::new(process::Gate::new());
    let pass = gate.clone();
    let (_, owner) = sleeping_thread(move || {
        lock(to);
        pass.pass();
        Ret(0)
    });
    let (_, thread) = sleeping_thread(|| {
        let waited = wait_for(from, to, std::ptr::null());
        say!("{}", shown(to, &[(tid(), "the waiter")]));
        waited
    });
    say!("{}", requeue(from, to, 1, 0, 0));
    gate.open();
    say!("{} {}", done(owner), done(thread));
}

fn killed_at_the_lock() {
    let words = shared_words();
    let call = |operation: i32, value: u32, value2: usize, value3: u32| {
        sys!(SYS_futex, words[0].as_ptr(), operation, value, value2, words[1].as_ptr(), value3)
    };
    let on_lock = |operation: i32| sys!(SYS_futex, words[1].as_ptr(), operation, 0, 0);
    on_lock(FUTEX_LOCK_PI);
    for requeued in [false, true] {
        let one = child(|| {
            set_priority(0, SCHED_FIFO, 15).need();
            call(FUTEX_WAIT_REQUEUE_PI, 0, 0, 0);
            0
        });
        until_asleep(one);
        if requeued {
            say!("{}, {}", call(FUTEX_CMP_REQUEUE_PI, 1, 1, 0), priority(tid()));
        }
        kill(one, SIGKILL);
        say!("{}, {}", wait(one), priority(tid()));
    }
    say!("nobody is left: {}", call(FUTEX_CMP_REQUEUE_PI, 1, 1, 0));
    say!("{}, {}", on_lock(FUTEX_UNLOCK_PI), shown(&words[1], &[]));
}

fn between_processes() {
    let words = shared_words();
    let wait_shared = || sys!(SYS_futex, words[0].as_ptr(), FUTEX_WAIT_REQUEUE_PI, 0, 0, words[1].as_ptr(), 0);
    let on_lock = |operation: i32| sys!(SYS_futex, words[1].as_ptr(), operation, 0, 0);
    let run = || {
        let pid = child(|| {
            let waited = wait_shared();
            i32::from(!waited.ok() || !on_lock(FUTEX_UNLOCK_PI).ok())
        });
        until_asleep(pid);
        pid
    };
    let (one, two) = (run(), run());
    say!("private: {}", requeue(&words[0], &words[1], 1, 9, 0));
    say!("{}", sys!(SYS_futex, words[0].as_ptr(), FUTEX_CMP_REQUEUE_PI, 1, 9, words[1].as_ptr(), 0));
    say!("{}, {}", wait(one), wait(two));
    say!("{}, {}", on_lock(FUTEX_LOCK_PI), shown(&words[1], &[(tid(), "I")]));
}

fn nobody_waits() {
    let (from, to) = (&words()[0], &words()[1]);
    say!("{}, {}", requeue(from, to, 1, 1, 0), shown(to, &[]));
    to.store(3_999_999, SeqCst);
    say!("a lock of nobody: {}, {}", requeue(from, to, 1, 1, 0), to.load(SeqCst));
    say!("try: {}", pi(to, FUTEX_TRYLOCK_PI));
}
