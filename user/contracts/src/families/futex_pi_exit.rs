//! Locks that lend priority whose owners end: with and without robust lists, by exit, execve and SIGKILL.

use std::mem::offset_of;
use std::ptr::null;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

use libc::*;

use super::futex_pi::{chain, done, lock, priority, set_priority, shown, unlock, words};
use crate::memory::{self, shared_words};
use crate::process::{self, Status, child, kill, sleeping_thread, tid, until_asleep, wait};
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    owner_ends, owner_ends_with_more_waiters, nobody_waits, owner_is_killed, owner_calls_execve, several_locks, end_in_a_chain,
    robust_with_a_waiter, robust_without, robust_pending, robust_and_killed, waiter_is_killed,
}

fn owner_ends() {
    let word = &words()[0];
    let gate = Arc::new(process::Gate::new());
    let pass = gate.clone();
    let (owner, first) = sleeping_thread(move || {
        let locked = lock(word);
        pass.pass();
        locked
    });
    let (other, second) = sleeping_thread(move || {
        let locked = lock(word);
        say!("the lock: {locked}, {}", shown(word, &[(tid(), "I")]));
        say!("unlock: {}, {}", unlock(word), shown(word, &[(tid(), "I")]));
        locked
    });
    say!("{}", shown(word, &[(owner, "the owner"), (other, "the other")]));
    gate.open();
    done(first);
    done(second);
}

fn owner_ends_with_more_waiters() {
    let word = &words()[0];
    let gate = Arc::new(process::Gate::new());
    let pass = gate.clone();
    let (_, first) = sleeping_thread(move || {
        lock(word);
        pass.pass();
        Ret(0)
    });
    let waiters = [10, 30, 20].map(|value| {
        sleeping_thread(move || {
            set_priority(0, SCHED_FIFO, value).need();
            let locked = lock(word);
            say!("{value}: {locked}, {}", shown(word, &[(tid(), "I")]));
            unlock(word)
        })
    });
    gate.open();
    done(first);
    let _ = waiters.map(|(_, thread)| done(thread));
}

fn nobody_waits() {
    let word = &words()[0];
    let owner = std::thread::spawn(move || {
        lock(word);
        Ret(tid().into())
    });
    let owner = done(owner).0 as i32;
    say!("{}", shown(word, &[(owner, "the owner")]));
    say!("{}, {}", lock(word), shown(word, &[(owner, "the owner")]));
}

fn shared_lock(word: &AtomicU32) -> Ret {
    sys!(SYS_futex, word.as_ptr(), FUTEX_LOCK_PI, 0, 0)
}

fn owner_is_killed() {
    let word = &shared_words()[0];
    let owner = child(|| {
        shared_lock(word);
        process::sleep_ms(100_000);
        0
    });
    until_asleep(owner);
    let waiter = child(|| {
        say!("{}, {}", shared_lock(word), shown(word, &[(tid(), "I")]));
        0
    });
    until_asleep(waiter);
    kill(owner, SIGKILL);
    say!("{}, {}", wait(owner), wait(waiter));
    say!("of the next: {}", shared_lock(word));
}

fn owner_calls_execve() {
    let word = &shared_words()[0];
    let gate = process::Gate::new();
    let owner = child(|| {
        shared_lock(word);
        gate.pass();
        let argv = [c"true".as_ptr(), null()];
        sys!(SYS_execve, c"/bin/true", &argv, 0);
        1
    });
    until_asleep(owner);
    let waiter = child(|| {
        say!("{}, {}", shared_lock(word), shown(word, &[(tid(), "I")]));
        0
    });
    until_asleep(waiter);
    gate.open();
    say!("{}, {}", wait(owner), wait(waiter));
}

fn several_locks() {
    let words = words();
    let gate = Arc::new(process::Gate::new());
    let pass = gate.clone();
    let (_, owner) = sleeping_thread(move || {
        for word in &words[..4] {
            lock(word);
        }
        pass.pass();
        Ret(0)
    });
    let waiters = [0, 1, 2].map(|index| {
        sleeping_thread(move || {
            let locked = lock(&words[index]);
            say!("{}", shown(&words[index], &[(tid(), "I")]));
            process::sleep_ms(1);
            locked
        })
        .1
    });
    gate.open();
    done(owner);
    let answers = waiters.map(|thread| done(thread).0);
    say!("{answers:?}, {}", lock(&words[3]));
}

/// The last owner of a chain ends without a word: priorities come to the next.
fn end_in_a_chain() {
    let words = words();
    let (threads, gate) = chain(words, 3);
    let (_, high) = sleeping_thread(|| {
        set_priority(0, SCHED_FIFO, 21).need();
        let locked = lock(&words[2]);
        unlock(&words[2]);
        locked
    });
    say!("{}", threads.iter().map(|(tid, _)| priority(*tid).to_string()).collect::<Vec<_>>().join(" "));
    gate.open();
    say!("{}", done(high));
    threads.into_iter().for_each(|(_, thread)| say!("{}", done(thread)));
}

/// `struct robust_list_head` with one entry of a lock that lends priority, whose word comes right behind.
#[repr(C)]
struct Robust {
    next: usize,
    offset: isize,
    pending: usize,
    entry: usize,
    word: AtomicU32,
}

fn robust() -> &'static mut Robust {
    // SAFETY: a page of its own that stays.
    let it = unsafe { &mut *memory::shared_page().cast::<Robust>() };
    it.offset = offset_of!(Robust, word) as isize - offset_of!(Robust, entry) as isize;
    let at = std::ptr::from_ref(it) as usize;
    // The lowest bit says what kind of lock it is.
    it.next = (at + offset_of!(Robust, entry)) | 1;
    it.entry = at;
    it
}

fn set_list(it: &Robust) {
    sys!(SYS_set_robust_list, it, 24).need();
}

/// Lets a child end that has a lock in its list, another waiting for it; says what that finds.
fn robust_end(waits: bool, end: fn() -> i32) {
    let it = robust();
    let word = &it.word;
    let gate = process::Gate::new();
    let owner = child(|| {
        set_list(it);
        shared_lock(word);
        gate.pass();
        end()
    });
    until_asleep(owner);
    let waiter = waits.then(|| {
        let pid = child(|| {
            say!("{}, {}", shared_lock(word), shown(word, &[(tid(), "I")]));
            say!("{}, {}", sys!(SYS_futex, word.as_ptr(), FUTEX_UNLOCK_PI, 0, 0), shown(word, &[(tid(), "I")]));
            0
        });
        until_asleep(pid);
        pid
    });
    gate.open();
    let status = wait(owner);
    let waited = waiter.map_or(Status::Exited(0), wait);
    say!("{status}, {waited}; the word: {}", shown(word, &[(owner, "the owner")]));
    say!("the next: {}, {}", shared_lock(word), shown(word, &[(tid(), "I")]));
}

fn robust_with_a_waiter() {
    robust_end(true, || 0);
}

fn robust_without() {
    robust_end(false, || 0);
}

fn robust_and_killed() {
    robust_end(true, || {
        kill(process::pid(), SIGKILL);
        0
    });
}

fn robust_pending() {
    for (name, value) in [("free", 0), ("mine", 1), ("mine, with waiters", 2), ("another's", 3)] {
        let it = robust();
        let pid = child(|| {
            it.pending = it.next;
            it.next = std::ptr::from_ref(it) as usize;
            set_list(it);
            let tid = tid().cast_unsigned();
            it.word.store([0, tid, tid | FUTEX_WAITERS, tid + 1][value], SeqCst);
            0
        });
        wait(pid);
        say!("{name}: {}", shown(&it.word, &[(pid, "the owner")]));
    }
}

fn waiter_is_killed() {
    let word = &shared_words()[0];
    shared_lock(word);
    let run = || {
        let pid = child(|| {
            shared_lock(word);
            0
        });
        until_asleep(pid);
        pid
    };
    let (one, two) = (run(), run());
    kill(one, SIGKILL);
    say!("{}", wait(one));
    say!("{}", sys!(SYS_futex, word.as_ptr(), FUTEX_UNLOCK_PI, 0, 0));
    // The second gets the lock and ends with it.
    say!("{}", wait(two));
    say!("{}, {}", shared_lock(word), shown(word, &[(two, "the second")]));
}
