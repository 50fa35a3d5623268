//! Locks that lend priority (FUTEX_LOCK_PI and its kin in futex(2)): who owns them, who is next, whose priority counts.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use libc::*;

use crate::memory::shared_words;
use crate::process::{self, child, kill, sleep_ms, sleeping_thread, tid, until_asleep, wait};
use crate::sys::{Ret, sys, zeroed};
use crate::{say, signal, tests};

tests! {
    take_and_release, try_lock, handed_over, served_by_priority, served_by_age, lent_and_given_back, best_of_several_locks,
    own_policy_stays, along_a_chain, along_a_long_chain, waiter_gets_another_priority, owner_gets_another_priority,
    round_robin_owner, passed_to_the_next_owner, timeout_takes_it_back, killed_waiter_takes_it_back, passes_a_spinner,
    interrupted,
}

pub(super) fn words() -> &'static [AtomicU32; 64] {
    super::futex::words()
}

pub(super) fn pi(word: &AtomicU32, operation: i32) -> Ret {
    sys!(SYS_futex, word.as_ptr(), operation | FUTEX_PRIVATE_FLAG, 0, 0)
}

pub(super) fn lock(word: &AtomicU32) -> Ret {
    pi(word, FUTEX_LOCK_PI)
}

pub(super) fn unlock(word: &AtomicU32) -> Ret {
    pi(word, FUTEX_UNLOCK_PI)
}

/// A word in terms of its owner: `who` names some threads.
pub(super) fn shown(word: &AtomicU32, who: &[(i32, &str)]) -> String {
    let value = word.load(SeqCst);
    let flag = |bit: u32, name: &'static str| if value & bit != 0 { name } else { "" };
    let owner = (value & FUTEX_TID_MASK).cast_signed();
    let name = match who.iter().find(|(tid, _)| *tid == owner) {
        Some((_, name)) => *name,
        None if owner == 0 => "nobody",
        None => "another",
    };
    format!("{name}{}{}", flag(FUTEX_WAITERS, " WAITERS"), flag(FUTEX_OWNER_DIED, " OWNER_DIED"))
}

pub(super) fn set_priority(tid: i32, policy: i32, priority: i32) -> Ret {
    sys!(SYS_sched_setscheduler, tid, policy, &priority)
}

/// The priority by which a thread is scheduled, as /proc/PID/stat has it: 20 for those that are not real-time, −1 − n for
/// real-time priority n.
pub(super) fn priority(tid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{tid}/stat")).unwrap_or_default();
    let field = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(15));
    field.and_then(|field| field.parse().ok()).unwrap_or(99)
}

/// A thread with a real-time priority (0: without) that locks and unlocks; it answers what the lock said.
fn locker(word: &'static AtomicU32, value: i32, order: Order) -> (i32, JoinHandle<Ret>) {
    sleeping_thread(move || {
        set_priority(0, if value == 0 { SCHED_OTHER } else { SCHED_FIFO }, value).need();
        let locked = lock(word);
        order.note(value);
        unlock(word);
        locked
    })
}

/// Who came when.
#[derive(Clone, Default)]
struct Order(Arc<Mutex<Vec<i32>>>);

impl Order {
    fn note(&self, value: i32) {
        self.0.lock().expect("no panics").push(value);
    }

    fn shown(&self) -> String {
        format!("{:?}", self.0.lock().expect("no panics"))
    }
}

/// What a thread that was started for it came to.
pub(super) fn done(thread: JoinHandle<Ret>) -> Ret {
    thread.join().unwrap_or(Ret(-1))
}

fn take_and_release() {
    let word = &words()[0];
    let me = [(tid(), "I")];
    say!("lock: {}, {}", lock(word), shown(word, &me));
    say!("again: {}, {}", lock(word), shown(word, &me));
    say!("unlock: {}, {}", unlock(word), shown(word, &me));
    say!("again: {}, {}", unlock(word), shown(word, &me));
    word.store(FUTEX_WAITERS, SeqCst);
    say!("a word that only has waiters: {}, {}", lock(word), shown(word, &me));
    word.store(FUTEX_WAITERS | tid().cast_unsigned(), SeqCst);
    say!("waiters that are not there: {}, {}", unlock(word), shown(word, &me));
    word.store(FUTEX_OWNER_DIED, SeqCst);
    say!("a dead owner's: {}, {}", lock(word), shown(word, &me));
    say!("again: {}", lock(word));
    say!("unlock: {}, {}", unlock(word), shown(word, &me));
    word.store(FUTEX_OWNER_DIED | FUTEX_WAITERS, SeqCst);
    say!("with waiters: {}, {}", lock(word), shown(word, &me));
}

fn try_lock() {
    let word = &words()[0];
    let me = [(tid(), "I")];
    say!("free: {}, {}", pi(word, FUTEX_TRYLOCK_PI), shown(word, &me));
    say!("mine: {}, {}", pi(word, FUTEX_TRYLOCK_PI), shown(word, &me));
    let other = std::thread::spawn(|| pi(word, FUTEX_TRYLOCK_PI));
    say!("another's: {}, {}", done(other), shown(word, &me));
    let other = std::thread::spawn(|| unlock(word));
    say!("another's, unlock: {}, {}", done(other), shown(word, &me));
    say!("unlock: {}, {}", unlock(word), shown(word, &me));
    word.store(FUTEX_OWNER_DIED, SeqCst);
    say!("a dead owner's: {}, {}", pi(word, FUTEX_TRYLOCK_PI), shown(word, &me));
}

fn handed_over() {
    let word = &words()[0];
    lock(word);
    let gate = Arc::new(process::Gate::new());
    let pass = gate.clone();
    let (other, thread) = sleeping_thread(move || {
        let locked = lock(word);
        pass.pass();
        unlock(word);
        locked
    });
    let who = [(tid(), "I"), (other, "the other")];
    say!("somebody waits: {}", shown(word, &who));
    say!("try: {}", pi(word, FUTEX_TRYLOCK_PI));
    say!("unlock: {}, {}", unlock(word), shown(word, &who));
    say!("unlock again: {}", unlock(word));
    let (_, third) = sleeping_thread(move || lock(word));
    say!("a third: {}", shown(word, &who));
    say!("try: {}, {}", pi(word, FUTEX_TRYLOCK_PI), shown(word, &who));
    gate.open();
    say!("{} {}", done(thread), done(third));
}

fn served_by_priority() {
    let word = &words()[0];
    let order = Order::default();
    set_priority(0, SCHED_FIFO, 90).need();
    lock(word);
    let threads = [10, 30, 0, 20, 5].map(|value| locker(word, value, order.clone()).1);
    unlock(word);
    let answers: Vec<String> = threads.map(|thread| done(thread).to_string()).into();
    say!("{}: {}", order.shown(), answers.join(" "));
    say!("at the end: {}", shown(word, &[]));
}

fn served_by_age() {
    let word = &words()[0];
    let order = Order::default();
    lock(word);
    let threads: Vec<JoinHandle<Ret>> = [1, 2, 3, 4]
        .map(|index| {
            let order = order.clone();
            sleeping_thread(move || {
                // Nice values do not count.
                sys!(SYS_setpriority, PRIO_PROCESS, tid(), 4 - index * 3);
                let locked = lock(word);
                order.note(index);
                unlock(word);
                locked
            })
            .1
        })
        .into();
    unlock(word);
    for thread in threads {
        done(thread);
    }
    say!("{}", order.shown());
}

fn lent_and_given_back() {
    let word = &words()[0];
    lock(word);
    say!("alone: {}", priority(tid()));
    let order = Order::default();
    let low = locker(word, 0, order.clone());
    say!("one without real-time priority waits: {}", priority(tid()));
    let middle = locker(word, 20, order.clone());
    say!("one with 20: {}", priority(tid()));
    let high = locker(word, 40, order.clone());
    say!("one with 40: {}", priority(tid()));
    let lower = locker(word, 30, order);
    say!("one with 30: {}", priority(tid()));
    say!("theirs: {} {} {}", priority(low.0), priority(middle.0), priority(high.0));
    unlock(word);
    say!("given back: {}", priority(tid()));
    let _ = [low, middle, high, lower].map(|(_, thread)| done(thread));
}

fn best_of_several_locks() {
    let words = words();
    let order = Order::default();
    for word in &words[..3] {
        lock(word);
    }
    let threads = [(0, 10), (1, 30), (2, 20)].map(|(index, value)| {
        let started = locker(&words[index], value, order.clone());
        say!("{value}: {}", priority(tid()));
        started
    });
    for index in [0, 1, 2] {
        unlock(&words[index]);
        say!("without lock {index}: {}", priority(tid()));
    }
    let _ = threads.map(|(_, thread)| done(thread));
}

fn own_policy_stays() {
    let word = &words()[0];
    lock(word);
    let waiter = locker(word, 50, Order::default());
    let mut value = -1;
    sys!(SYS_sched_getparam, 0, &mut value);
    say!("policy {}, priority {value}, nice {}", sys!(SYS_sched_getscheduler, 0), sys!(SYS_getpriority, 0, 0));
    say!("scheduled by {}", priority(tid()));
    let mut stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
    stat = stat.split_off(stat.rfind(')').unwrap_or(0));
    let fields: Vec<&str> = stat.split(' ').collect();
    say!("rt_priority {}, policy {}", fields[38], fields[39]);
    let child = child(|| {
        say!("a child is scheduled by {}", priority(tid()));
        0
    });
    wait(child);
    unlock(word);
    done(waiter.1);
}

/// A chain of threads, each with a lock and waiting for the one before it. Answers them, the last owner first, and a gate that
/// lets that one go.
pub(super) fn chain(
    words: &'static [AtomicU32; 64],
    length: usize,
) -> (Vec<(i32, JoinHandle<Ret>)>, Arc<process::Gate>) {
    let gate = Arc::new(process::Gate::new());
    let pass = gate.clone();
    let mut threads = vec![sleeping_thread(move || {
        lock(&words[0]);
        pass.pass();
        unlock(&words[0])
    })];
    for index in 1..length {
        threads.push(sleeping_thread(move || {
            lock(&words[index]);
            let locked = lock(&words[index - 1]);
            unlock(&words[index - 1]);
            unlock(&words[index]);
            locked
        }));
    }
    (threads, gate)
}

fn along_a_chain() {
    let words = words();
    let (threads, gate) = chain(words, 3);
    let shown = |threads: &[(i32, JoinHandle<Ret>)]| {
        let all: Vec<String> = threads.iter().map(|(tid, _)| priority(*tid).to_string()).collect();
        all.join(" ")
    };
    say!("{}", shown(&threads));
    let last = locker(&words[2], 33, Order::default());
    say!("one with 33 waits for the last lock: {}", shown(&threads));
    let other = locker(&words[1], 44, Order::default());
    say!("one with 44 for the second: {}", shown(&threads));
    gate.open();
    say!("all: {} {}", done(last.1), done(other.1));
    threads.into_iter().for_each(|(_, thread)| say!("{}", done(thread)));
}

fn along_a_long_chain() {
    let words = words();
    let (threads, gate) = chain(words, 40);
    let last = locker(&words[39], 77, Order::default());
    let boosted = threads.iter().filter(|(tid, _)| priority(*tid) == -78).count();
    say!("lent to {boosted}");
    gate.open();
    say!("{}", done(last.1));
    let answers: Vec<Ret> = threads.into_iter().map(|(_, thread)| done(thread)).collect();
    say!("all: {}", answers.iter().all(|ret| ret.0 == 0));
}

fn waiter_gets_another_priority() {
    let words = words();
    let order = Order::default();
    set_priority(0, SCHED_FIFO, 10).need();
    lock(&words[0]);
    let (one, two) = (locker(&words[0], 20, order.clone()), locker(&words[0], 30, order.clone()));
    say!("{}", priority(tid()));
    set_priority(one.0, SCHED_FIFO, 40).need();
    say!("the first gets 40: {}", priority(tid()));
    set_priority(two.0, SCHED_RR, 50).need();
    say!("the second gets 50: {}", priority(tid()));
    set_priority(two.0, SCHED_OTHER, 0).need();
    say!("and loses it: {}", priority(tid()));
    set_priority(one.0, SCHED_FIFO, 5).need();
    say!("the first gets 5: {}", priority(tid()));
    unlock(&words[0]);
    let _ = [one, two].map(|(_, thread)| done(thread));
    say!("{}", order.shown());
}

fn owner_gets_another_priority() {
    let word = &words()[0];
    lock(word);
    let waiter = locker(word, 30, Order::default());
    for (policy, value) in [(SCHED_FIFO, 20), (SCHED_FIFO, 40), (SCHED_RR, 10), (SCHED_IDLE, 0), (SCHED_OTHER, 0)] {
        say!("{policy} {value}: {}, {}", set_priority(0, policy, value), priority(tid()));
    }
    sys!(SYS_setpriority, PRIO_PROCESS, 0, 7);
    say!("nice 7: {}", priority(tid()));
    set_priority(0, SCHED_RR, 15).need();
    unlock(word);
    say!("given back: {}", priority(tid()));
    done(waiter.1);
}

fn round_robin_owner() {
    let word = &words()[0];
    set_priority(0, SCHED_RR, 3).need();
    lock(word);
    let waiter = locker(word, 8, Order::default());
    say!("{}, policy {}", priority(tid()), sys!(SYS_sched_getscheduler, 0));
    unlock(word);
    say!("{}", priority(tid()));
    done(waiter.1);
}

fn passed_to_the_next_owner() {
    let word = &words()[0];
    let gate = Arc::new(process::Gate::new());
    lock(word);
    let pass = gate.clone();
    let (second, thread) = sleeping_thread(move || {
        set_priority(0, SCHED_FIFO, 20).need();
        let locked = lock(word);
        pass.pass();
        unlock(word);
        locked
    });
    let third = locker(word, 10, Order::default());
    unlock(word);
    until_asleep(second);
    say!("the second has it: {}, the first: {}", priority(second), priority(tid()));
    let fourth = locker(word, 40, Order::default());
    say!("one with 40 comes: {}", priority(second));
    gate.open();
    say!("{} {} {}", done(thread), done(third.1), done(fourth.1));
}

fn timeout_takes_it_back() {
    let word = &words()[0];
    lock(word);
    let high = std::thread::spawn(|| {
        set_priority(0, SCHED_FIFO, 60).need();
        let mut limit: timespec = zeroed();
        sys!(SYS_clock_gettime, CLOCK_REALTIME, &mut limit);
        limit.tv_sec += 1;
        sys!(SYS_futex, word.as_ptr(), FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, &limit)
    });
    while priority(tid()) != -61 {
        sleep_ms(5);
    }
    let low = locker(word, 4, Order::default());
    say!("{}", done(high));
    say!("then: {}, {}", priority(tid()), shown(word, &[(tid(), "I")]));
    unlock(word);
    say!("{}", done(low.1));
}

fn killed_waiter_takes_it_back() {
    let word = &shared_words()[0];
    sys!(SYS_futex, word.as_ptr(), FUTEX_LOCK_PI, 0, 0);
    let waiter = child(|| {
        set_priority(0, SCHED_FIFO, 70).need();
        sys!(SYS_futex, word.as_ptr(), FUTEX_LOCK_PI, 0, 0);
        0
    });
    until_asleep(waiter);
    say!("{}", priority(tid()));
    kill(waiter, SIGKILL);
    say!("{}", wait(waiter));
    say!("{}, {}", priority(tid()), shown(word, &[(tid(), "I")]));
    say!("unlock: {}, {}", sys!(SYS_futex, word.as_ptr(), FUTEX_UNLOCK_PI, 0, 0), shown(word, &[]));
}

/// On one processor: an owner without priority, one that computes with a middle one, and one that waits with a high one.
fn passes_a_spinner() {
    let word = &words()[0];
    let (go, stop) = (&words()[8], &words()[9]);
    sys!(SYS_sched_setaffinity, 0, 8, &1u64).need();
    set_priority(0, SCHED_FIFO, 50).need();
    let owner = std::thread::spawn(|| {
        set_priority(0, SCHED_OTHER, 0).need();
        let locked = lock(word);
        while go.load(SeqCst) == 0 {
            std::hint::spin_loop();
        }
        unlock(word);
        locked
    });
    while word.load(SeqCst) == 0 {
        sleep_ms(1);
    }
    let high = sleeping_thread(move || {
        set_priority(0, SCHED_FIFO, 40).need();
        let locked = lock(word);
        stop.store(1, SeqCst);
        locked
    });
    let spinner = std::thread::spawn(|| {
        set_priority(0, SCHED_FIFO, 30).need();
        let mut now: timespec = zeroed();
        sys!(SYS_clock_gettime, CLOCK_MONOTONIC, &mut now);
        let end = now.tv_sec + 20;
        while stop.load(SeqCst) == 0 && now.tv_sec < end {
            sys!(SYS_clock_gettime, CLOCK_MONOTONIC, &mut now);
        }
        Ret(i64::from(stop.load(SeqCst)))
    });
    go.store(1, SeqCst);
    say!("the spinner was stopped: {}", done(spinner) == Ret(1));
    say!("the owner: {}, the high one: {}", done(owner), done(high.1));
}

fn interrupted() {
    let word = &words()[0];
    for (name, flags) in [("without SA_RESTART", 0), ("with SA_RESTART", SA_RESTART)] {
        signal::handle(SIGUSR1, signal::count, flags);
        lock(word);
        let (other, thread) = sleeping_thread(|| {
            let locked = lock(word);
            unlock(word);
            locked
        });
        sys!(SYS_tgkill, process::pid(), other, SIGUSR1);
        while signal::CAUGHT.load(SeqCst) == 0 {
            sleep_ms(1);
        }
        until_asleep(other);
        say!("{name}: {}", shown(word, &[(tid(), "I")]));
        unlock(word);
        say!("{}, handlers: {}", done(thread), signal::caught());
    }
}
