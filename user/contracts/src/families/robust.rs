//! Robust futexes: get_robust_list(2), set_robust_list(2), and what a dead owner leaves.

use std::ptr::null;

use libc::*;

use crate::memory::{self};
use crate::process::{self, child, in_child, kill, until_asleep, wait};
use crate::sys::{NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    owner_dies, lists_of_execve, pending_entry, list_calls, whose_list,
}

fn time(seconds: i64, nanoseconds: i64) -> timespec {
    timespec { tv_sec: seconds, tv_nsec: nanoseconds }
}

/// `struct robust_list_head` with one entry, whose futex comes right behind.
#[repr(C)]
struct Robust {
    next: usize,
    offset: isize,
    pending: usize,
    entry: usize,
    word: u32,
    other_entry: usize,
    other_word: u32,
}

/// A head in shared memory with both entries in its list.
fn robust() -> *mut Robust {
    let at = memory::shared_page().cast::<Robust>();
    let word = std::mem::offset_of!(Robust, word) as isize - std::mem::offset_of!(Robust, entry) as isize;
    // SAFETY: a page of its own.
    unsafe {
        (*at).next = &raw const (*at).entry as usize;
        (*at).entry = &raw const (*at).other_entry as usize;
        (*at).other_entry = at as usize;
        (*at).offset = word;
    }
    at
}

fn robust_words(at: *mut Robust, tid: u32) -> String {
    let shown = |word: u32| {
        format!(
            "{}{}{}",
            if word & FUTEX_WAITERS != 0 { "WAITERS " } else { "" },
            if word & FUTEX_OWNER_DIED != 0 { "OWNER_DIED " } else { "" },
            match word & FUTEX_TID_MASK {
                0 => "nobody",
                owner if owner == tid => "the owner",
                _ => "another",
            }
        )
    };
    // SAFETY: as above.
    unsafe {
        let (one, two) = ((&raw const (*at).word).read_volatile(), (&raw const (*at).other_word).read_volatile());
        format!("{}, {}", shown(one), shown(two))
    }
}

fn set_robust_list(at: *const Robust) -> Ret {
    sys!(SYS_set_robust_list, at, 24)
}

fn owner_dies() {
    let at = robust();
    let gate = process::Gate::new();
    let ready = process::Gate::new();
    let run = |value: fn(u32) -> (u32, u32), how: fn()| {
        let pid = child(|| {
            let (one, two) = value(sys!(SYS_gettid).0 as u32);
            // SAFETY: as above.
            unsafe { ((*at).word, (*at).other_word) = (one, two) };
            set_robust_list(at);
            ready.open();
            gate.pass();
            how();
            0
        });
        ready.pass();
        let words = at as usize + std::mem::offset_of!(Robust, word);
        // SAFETY: as above.
        let held = unsafe { (words as *const u32).read_volatile() };
        let waiter = child(|| i32::from(!sys!(SYS_futex, words, FUTEX_WAIT, held, &time(1, 0)).ok()));
        until_asleep(waiter);
        gate.open();
        wait(pid);
        say!("{}; woken: {}", robust_words(at, pid as u32), sys!(SYS_futex, words, FUTEX_WAKE, 1).0 == 0);
        wait(waiter);
    };
    run(|tid| (tid | FUTEX_WAITERS, tid), || {});
    run(|tid| (tid, tid | FUTEX_WAITERS), || {});
    run(|tid| (tid + 1, 0), || {});
    run(|tid| (tid | FUTEX_WAITERS, tid | FUTEX_OWNER_DIED), || process::exit(1));
    run(
        |tid| (tid | FUTEX_WAITERS, tid),
        || {
            kill(sys!(SYS_getpid).0 as i32, SIGKILL);
        },
    );
}

fn lists_of_execve() {
    let at = robust();
    let pid = child(|| {
        let tid = sys!(SYS_gettid).0 as u32;
        // SAFETY: as above.
        unsafe { ((*at).word, (*at).other_word) = (tid, tid | FUTEX_WAITERS) };
        set_robust_list(at);
        let argv = [c"true".as_ptr(), null()];
        sys!(SYS_execve, c"/bin/nothing", &argv, 0);
        say!("a failed execve: {}", robust_words(at, tid));
        sys!(SYS_execve, c"/bin/true", &argv, 0);
        1
    });
    say!("{}", wait(pid));
    say!("execve: {}", robust_words(at, pid as u32));
}

fn pending_entry() {
    let at = robust();
    let run = |word: fn(u32) -> u32| {
        let pid = child(|| {
            // SAFETY: as above.
            unsafe {
                (*at).next = at as usize;
                (*at).pending = &raw const (*at).entry as usize;
                (*at).word = word(sys!(SYS_gettid).0 as u32);
                (*at).other_word = 0;
            }
            set_robust_list(at);
            0
        });
        wait(pid);
        say!("{}", robust_words(at, pid as u32));
    };
    run(|tid| tid);
    run(|_| 0);
    run(|tid| tid + 1);
    let endless = child(|| {
        // SAFETY: as above. A list that leads to itself and never back to the head.
        unsafe {
            (*at).pending = 0;
            (*at).next = &raw const (*at).entry as usize;
            (*at).entry = (*at).next;
            (*at).word = sys!(SYS_gettid).0 as u32;
        }
        set_robust_list(at);
        0
    });
    say!("an endless list: {}", wait(endless));
    say!("{}", robust_words(at, endless as u32));
    let bad = child(|| {
        set_robust_list(std::ptr::dangling::<Robust>());
        0
    });
    say!("a list nowhere: {}", wait(bad));
}

fn list_calls() {
    let at = robust();
    say!("set, 24 bytes: {}", sys!(SYS_set_robust_list, at, 24));
    say!("23: {}, 25: {}", sys!(SYS_set_robust_list, at, 23), sys!(SYS_set_robust_list, at, 25));
    let (mut head, mut size) = (0usize, 0usize);
    say!("get: {}", sys!(SYS_get_robust_list, 0, &mut head, &mut size));
    say!("the same: {} {size}", head == at as usize);
    say!("by the own id: {}", sys!(SYS_get_robust_list, sys!(SYS_gettid).0, &mut head, &mut size));
    say!("nobody: {}", sys!(SYS_get_robust_list, 4_000_000, &mut head, &mut size));
    say!("-1: {}", sys!(SYS_get_robust_list, -1, &mut head, &mut size));
    say!("to nowhere: {}", sys!(SYS_get_robust_list, 0, NOWHERE, &mut size));
    say!("size to nowhere: {}", sys!(SYS_get_robust_list, 0, &mut head, NOWHERE));
    in_child(|| {
        head = 9;
        sys!(SYS_get_robust_list, 0, &mut head, &mut size);
        say!("a child has none: {head}");
        0
    });
    process::as_user(1000, || {
        say!("init's, by a user: {}", sys!(SYS_get_robust_list, 1, &mut head, &mut size));
        0
    });
}

/// Asks for the list of a thread.
fn list_of(tid: i32) -> Ret {
    let (mut head, mut size) = (0usize, 0usize);
    sys!(SYS_get_robust_list, tid, &mut head, &mut size)
}

/// A process of a user and a group into which others may look, asleep.
fn sleeper(user: u32, group: u32) -> i32 {
    let pid = child(|| {
        sys!(SYS_setresgid, group, group, group).need();
        sys!(SYS_setresuid, user, user, user).need();
        sys!(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0).need();
        process::sleep_ms(100_000);
        0
    });
    until_asleep(pid);
    pid
}

fn whose_list() {
    let [same, other_group, other_user] =
        [(1000, 1000), (1000, 1001), (1001, 1000)].map(|(user, group)| sleeper(user, group));
    say!("root: {} {} {}", list_of(same), list_of(other_group), list_of(other_user));
    process::as_plain_user(|| {
        say!(
            "the same user: {}, another group: {}, another user: {}",
            list_of(same),
            list_of(other_group),
            list_of(other_user)
        );
    });
    // The real ids count, not the others.
    in_child(|| {
        sys!(SYS_setresgid, 1000, 1000, 1000).need();
        sys!(SYS_setresuid, 1000, 1001, 1001).need();
        say!("with its real ids: {}, with its effective ones: {}", list_of(same), list_of(other_user));
        0
    });
    in_child(|| {
        let (thread, _handle) = process::sleeping_thread(|| process::sleep_ms(100_000));
        // Of this thread alone.
        sys!(SYS_setresuid, 1000, 1001, 1001).need();
        say!("of a thread of its own process: {}", list_of(thread));
        0
    });
    for pid in [same, other_group, other_user] {
        kill(pid, SIGKILL);
        wait(pid);
    }
}
