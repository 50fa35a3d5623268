//! Locks that lend priority: deadlocks, what is refused, and limits of time.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

use libc::*;

use super::futex::{wait_on, wake};
use super::futex_pi::{done, lock, pi, priority, set_priority, shown, unlock, words};
use crate::memory::{PAGE, pages, shared_words};
use crate::process::{self, child, kill, sleeping_thread, tid, until_asleep, wait};
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

const FUTEX_LOCK_PI2: i32 = 13;

tests! {
    deadlock_of_two, deadlock_of_three, no_deadlock_after_all, between_processes, words_that_do_not_fit,
    words_changed_under_waiters, mixed_with_plain_waits, plain_operations_on_waiters, bad_addresses, bad_times, limits_of_time,
    clocks, private_and_shared, mutexes_of_the_library,
}

fn time(seconds: i64, nanoseconds: i64) -> timespec {
    timespec { tv_sec: seconds, tv_nsec: nanoseconds }
}

fn timed(word: &AtomicU32, operation: i32, limit: &timespec) -> Ret {
    sys!(SYS_futex, word.as_ptr(), operation | FUTEX_PRIVATE_FLAG, 0, limit)
}

fn after(clock: i32, nanoseconds: i64) -> timespec {
    let mut now: timespec = zeroed();
    sys!(SYS_clock_gettime, clock, &mut now);
    let all = now.tv_nsec + nanoseconds;
    time(now.tv_sec + all / 1_000_000_000, all % 1_000_000_000)
}

fn deadlock_of_two() {
    let (one, two) = (&words()[0], &words()[1]);
    lock(one);
    let other = sleeping_thread(|| {
        lock(two);
        let locked = lock(one);
        unlock(one);
        unlock(two);
        locked
    });
    say!("{}, {}", lock(two), shown(two, &[(other.0, "the other")]));
    say!("try: {}", pi(two, FUTEX_TRYLOCK_PI));
    unlock(one);
    say!("the other: {}", done(other.1));
    say!("now: {}", lock(two));
}

fn deadlock_of_three() {
    let words = words();
    lock(&words[10]);
    let ring: Vec<_> = (11..14)
        .map(|index| {
            sleeping_thread(move || {
                lock(&words[index]);
                let locked = lock(&words[index - 1]);
                unlock(&words[index - 1]);
                unlock(&words[index]);
                locked
            })
        })
        .collect();
    say!("through three others: {}", lock(&words[13]));
    say!("through one: {}", lock(&words[11]));
    say!("with a limit: {}", timed(&words[12], FUTEX_LOCK_PI, &time(1, 0)));
    unlock(&words[10]);
    ring.into_iter().for_each(|(_, thread)| say!("{}", done(thread)));
}

fn no_deadlock_after_all() {
    let (one, two) = (&words()[0], &words()[1]);
    lock(one);
    let gate = Arc::new(process::Gate::new());
    let pass = gate.clone();
    let (_, thread) = sleeping_thread(move || {
        lock(two);
        let mut limit: timespec = zeroed();
        limit.tv_sec = 1;
        let late = sys!(SYS_futex, one.as_ptr(), FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, &limit);
        pass.pass();
        unlock(two);
        late
    });
    let waiter = sleeping_thread(move || {
        let locked = lock(two);
        unlock(two);
        locked
    });
    gate.open();
    say!("{} {}", done(thread), done(waiter.1));
    say!("{}", lock(two));
}

fn between_processes() {
    let word = &shared_words()[0];
    let call = |operation: i32| sys!(SYS_futex, word.as_ptr(), operation, 0, 0);
    say!("{}", call(FUTEX_LOCK_PI));
    let gate = process::Gate::new();
    let other = child(|| {
        set_priority(0, SCHED_FIFO, 25).need();
        let locked = call(FUTEX_LOCK_PI);
        gate.pass();
        say!("the other: {locked}, unlock: {}", call(FUTEX_UNLOCK_PI));
        0
    });
    until_asleep(other);
    let who = [(tid(), "I"), (other, "the other")];
    say!("{}, {}", shown(word, &who), priority(tid()));
    say!("{}, {}", call(FUTEX_UNLOCK_PI), shown(word, &who));
    gate.open();
    say!("{}", wait(other));
}

fn words_that_do_not_fit() {
    let word = &words()[0];
    for (name, value) in [
        ("nobody with this id", 3_999_999),
        ("the greatest id", FUTEX_TID_MASK),
        ("nobody with this id, and waiters", 3_999_999 | FUTEX_WAITERS),
        ("and died", 3_999_999 | FUTEX_OWNER_DIED),
    ] {
        for (call, operation) in [("lock", FUTEX_LOCK_PI), ("try", FUTEX_TRYLOCK_PI), ("unlock", FUTEX_UNLOCK_PI)] {
            word.store(value, SeqCst);
            say!("{name}, {call}: {}, {}", pi(word, operation), shown(word, &[(3_999_999, "the id")]));
        }
    }
    // A process that has ended and was not waited for has no threads.
    let zombie = child(|| 0);
    while process::state(zombie) != 'Z' {
        process::sleep_ms(1);
    }
    word.store(zombie.cast_unsigned(), SeqCst);
    say!("a zombie: {}, {}", lock(word), shown(word, &[(zombie, "the zombie")]));
    wait(zombie);
    say!("and gone: {}", lock(word));
    // Another process has never heard of the word.
    let sleeper = process::sleeper();
    word.store(sleeper.cast_unsigned(), SeqCst);
    let limit = after(CLOCK_REALTIME, 50_000_000);
    say!("another process: {}, {}", timed(word, FUTEX_LOCK_PI, &limit), shown(word, &[(sleeper, "that")]));
    let (_, thread) = sleeping_thread(move || (lock(word), shown(word, &[(tid(), "I")])));
    kill(sleeper, SIGKILL);
    say!("it dies: {:?}", thread.join().map(|(ret, word)| (ret.0, word)).unwrap_or_default());
}

fn words_changed_under_waiters() {
    let word = &words()[0];
    let start = || {
        word.store(0, SeqCst);
        lock(word);
        sleeping_thread(move || {
            let locked = timed(word, FUTEX_LOCK_PI, &after(CLOCK_REALTIME, 300_000_000));
            unlock(word);
            locked
        })
    };
    let me = tid().cast_unsigned();
    for (name, value) in [
        ("free", 0),
        ("dead", FUTEX_OWNER_DIED),
        ("dead, with waiters", FUTEX_OWNER_DIED | FUTEX_WAITERS),
        ("another's", (process::pid().cast_unsigned() + 1000) | FUTEX_WAITERS),
        ("without waiters", me),
        ("dead with an owner", me | FUTEX_OWNER_DIED),
    ] {
        let (_, thread) = start();
        word.store(value, SeqCst);
        let third = std::thread::spawn(|| timed(word, FUTEX_LOCK_PI, &time(1, 0)));
        say!("{name}: a third's lock: {}", done(third));
        say!("{name}: unlock: {}", unlock(word));
        say!("{name}: the waiter: {}", done(thread));
    }
}

fn mixed_with_plain_waits() {
    let word = &words()[0];
    let (_, thread) = sleeping_thread(move || wait_on(word, 0));
    say!("lock: {}", lock(word));
    say!("try: {}", pi(word, FUTEX_TRYLOCK_PI));
    word.store(tid().cast_unsigned(), SeqCst);
    say!("lock what is mine: {}", lock(word));
    say!("unlock: {}", unlock(word));
    say!("wake: {}", wake(word, 1));
    say!("the wait: {}", done(thread));
    say!("unlock: {}", unlock(word));
}

fn plain_operations_on_waiters() {
    let words = words();
    let (word, other) = (&words[0], &words[1]);
    lock(word);
    let (_, thread) = sleeping_thread(move || {
        let locked = lock(word);
        unlock(word);
        locked
    });
    say!("wake: {}, {}", wake(word, 1), wake(word, i32::MAX));
    let call = |operation: i32, value3: u32| {
        sys!(SYS_futex, word.as_ptr(), operation | FUTEX_PRIVATE_FLAG, 1, 1, other.as_ptr(), value3)
    };
    say!("requeue: {}", call(FUTEX_REQUEUE, 0));
    say!("compare and requeue: {}", call(FUTEX_CMP_REQUEUE, word.load(SeqCst)));
    say!("wake op: {}", call(FUTEX_WAKE_OP, 0));
    say!("a wake of one bit: {}", sys!(SYS_futex, word.as_ptr(), FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, 1, 0, 0, 1));
    say!("of another word: {}", wake(&words[2], 1));
    unlock(word);
    say!("the other: {}", done(thread));
    say!("wake: {}", wake(word, 1));
}

fn bad_addresses() {
    let page = pages(2) as usize;
    sys!(SYS_munmap, page + PAGE, PAGE);
    for (name, operation) in
        [("lock", FUTEX_LOCK_PI), ("lock 2", FUTEX_LOCK_PI2), ("try", FUTEX_TRYLOCK_PI), ("unlock", FUTEX_UNLOCK_PI)]
    {
        let call = |at: usize, flags: i32| sys!(SYS_futex, at, operation | flags, 0, 0);
        say!("{name}, unaligned: {} {}", call(page + 1, 0), call(page + 2, FUTEX_PRIVATE_FLAG));
        say!("{name}, nowhere: {} {}", call(NOWHERE as usize, 0), call(NOWHERE as usize, FUTEX_PRIVATE_FLAG));
        say!("{name}, null: {}", call(0, 0));
        say!("{name}, behind the end: {}", call(page + PAGE, FUTEX_PRIVATE_FLAG));
        say!("{name}, real time: {}", call(page, FUTEX_CLOCK_REALTIME));
        sys!(SYS_futex, page, FUTEX_UNLOCK_PI, 0, 0);
    }
    for value in [0, 5, tid()] {
        // SAFETY: the page is there.
        unsafe { (page as *mut i32).write_volatile(value) };
        sys!(SYS_mprotect, page, PAGE, PROT_READ);
        let call = |operation: i32| sys!(SYS_futex, page, operation | FUTEX_PRIVATE_FLAG, 0, 0);
        let (locked, tried, unlocked) = (call(FUTEX_LOCK_PI), call(FUTEX_TRYLOCK_PI), call(FUTEX_UNLOCK_PI));
        let name = if value == tid() {
            "mine"
        } else if value == 0 {
            "free"
        } else {
            "another's"
        };
        say!("only to be read, {name}: {locked} {tried} {unlocked}");
        sys!(SYS_mprotect, page, PAGE, PROT_READ | PROT_WRITE);
    }
}

fn bad_times() {
    let word = &words()[0];
    for (name, limit) in [("below zero", time(-1, 0)), ("a billion", time(0, 1_000_000_000)), ("negative", time(0, -1))]
    {
        let answers = [FUTEX_LOCK_PI, FUTEX_LOCK_PI2, FUTEX_TRYLOCK_PI, FUTEX_UNLOCK_PI]
            .map(|operation| timed(word, operation, &limit));
        say!("{name}: {} {} {} {}", answers[0], answers[1], answers[2], answers[3]);
        word.store(0, SeqCst);
    }
    let nowhere = |operation: i32| sys!(SYS_futex, word.as_ptr(), operation, 0, NOWHERE);
    say!("nowhere: {} {} {}", nowhere(FUTEX_LOCK_PI), nowhere(FUTEX_LOCK_PI2), nowhere(FUTEX_TRYLOCK_PI));
}

fn limits_of_time() {
    let word = &words()[0];
    say!("free, long ago: {}", timed(word, FUTEX_LOCK_PI, &time(0, 0)));
    let other = std::thread::spawn(|| {
        let long_ago = timed(word, FUTEX_LOCK_PI, &time(0, 0));
        let limit = after(CLOCK_REALTIME, 30_000_000);
        let late = timed(word, FUTEX_LOCK_PI, &limit);
        let now = after(CLOCK_REALTIME, 0);
        say!("long ago: {long_ago}, in 30 ms: {late}");
        say!("not earlier: {}", (now.tv_sec, now.tv_nsec) >= (limit.tv_sec, limit.tv_nsec));
        late
    });
    done(other);
    say!("{}", shown(word, &[(tid(), "I")]));
    let (_, thread) = sleeping_thread(|| timed(word, FUTEX_LOCK_PI, &after(CLOCK_REALTIME, 20_000_000_000)));
    say!("unlock: {}", unlock(word));
    say!("in time: {}", done(thread));
}

fn clocks() {
    let word = &words()[0];
    lock(word);
    let other = std::thread::spawn(|| {
        // The monotonic time is long ago as a time of day.
        let monotonic = after(CLOCK_MONOTONIC, 50_000_000);
        say!("LOCK_PI, monotonic: {}", timed(word, FUTEX_LOCK_PI, &monotonic));
        say!("not waited: {}", {
            let now = after(CLOCK_MONOTONIC, 0);
            (now.tv_sec, now.tv_nsec) < (monotonic.tv_sec, monotonic.tv_nsec)
        });
        for (name, clock, flag) in
            [("monotonic", CLOCK_MONOTONIC, 0), ("real time", CLOCK_REALTIME, FUTEX_CLOCK_REALTIME)]
        {
            let limit = after(clock, 30_000_000);
            let late = timed(word, FUTEX_LOCK_PI2 | flag, &limit);
            let now = after(clock, 0);
            let waited = (now.tv_sec, now.tv_nsec) >= (limit.tv_sec, limit.tv_nsec);
            say!("LOCK_PI2, {name}: {late}, not earlier: {waited}");
        }
        Ret(0)
    });
    done(other);
    say!("mine: {}", timed(word, FUTEX_LOCK_PI2 | FUTEX_CLOCK_REALTIME, &time(0, 0)));
    say!("try, real time: {}", pi(word, FUTEX_TRYLOCK_PI | FUTEX_CLOCK_REALTIME));
}

fn private_and_shared() {
    let word = &words()[0];
    lock(word);
    let (other, thread) = sleeping_thread(move || timed(word, FUTEX_LOCK_PI, &after(CLOCK_REALTIME, 200_000_000)));
    // To the kernel another lock, which nobody waits for.
    let shared = sys!(SYS_futex, word.as_ptr(), FUTEX_UNLOCK_PI, 0, 0);
    say!("a shared unlock: {shared}, {}", shown(word, &[(tid(), "I"), (other, "the other")]));
    say!("the wait: {}", done(thread));
}

/// POSIX mutexes with PTHREAD_PRIO_INHERIT.
fn mutexes_of_the_library() {
    let make = |kind: i32, robust: bool| {
        let at = pages(1).cast::<pthread_mutex_t>();
        let mut attributes: pthread_mutexattr_t = zeroed();
        // SAFETY: the library's own calls on a mutex in a page of its own, which stays.
        unsafe {
            pthread_mutexattr_init(&mut attributes);
            let inherit = pthread_mutexattr_setprotocol(&mut attributes, PTHREAD_PRIO_INHERIT);
            pthread_mutexattr_settype(&mut attributes, kind);
            if robust {
                pthread_mutexattr_setrobust(&mut attributes, PTHREAD_MUTEX_ROBUST);
            }
            say!("protocol: {inherit}, made: {}", pthread_mutex_init(at, &attributes));
        }
        at as usize
    };
    // SAFETY: as above; so are the others.
    let lock = |at: usize| unsafe { pthread_mutex_lock(at as *mut pthread_mutex_t) };
    let try_lock = |at: usize| unsafe { pthread_mutex_trylock(at as *mut pthread_mutex_t) };
    let unlock = |at: usize| unsafe { pthread_mutex_unlock(at as *mut pthread_mutex_t) };
    let plain = make(PTHREAD_MUTEX_NORMAL, false);
    say!("{} {}", lock(plain), try_lock(plain) == EBUSY);
    let (_, waiter) = sleeping_thread(move || {
        set_priority(0, SCHED_FIFO, 12).need();
        (lock(plain), unlock(plain))
    });
    process::sleep_ms(1);
    while priority(tid()) != -13 {
        process::sleep_ms(1);
    }
    say!("unlock: {}, {:?}, then {}", unlock(plain), waiter.join().unwrap_or_default(), priority(tid()));
    let checked = make(PTHREAD_MUTEX_ERRORCHECK, false);
    say!("{} {} {} {}", lock(checked), lock(checked) == EDEADLK, unlock(checked), unlock(checked) == EPERM);
    let robust = make(PTHREAD_MUTEX_NORMAL, true);
    let owner = std::thread::spawn(move || lock(robust));
    say!("the owner: {}", owner.join().unwrap_or(-1));
    say!("after its end: {}", lock(robust) == EOWNERDEAD);
    // SAFETY: as above.
    let consistent = unsafe { pthread_mutex_consistent(robust as *mut pthread_mutex_t) };
    say!("consistent: {consistent}, {} {}", unlock(robust), lock(robust));
}
