//! Waiting for signals: sigsuspend(2), sigtimedwait(2).

use libc::*;

use super::signals::{install, note_mask, seen};
use crate::process::{self, child, in_child, kill, pid, until_asleep, wait};
use crate::signal::{self, bit, caught, handle, kill_self};
use crate::sys::{NOWHERE, sys, zeroed};
use crate::{say, tests};

tests! {
    suspend, suspend_errors, waits, wait_errors, blocked_and_ignored,
}

fn suspend() {
    install(SIGUSR1, note_mask, 0, 0);
    signal::mask(SIG_SETMASK, bit(SIGUSR1) | bit(SIGTERM));
    kill_self(SIGUSR1);
    let set = bit(SIGHUP);
    say!("a pending one: {}", sys!(SYS_rt_sigsuspend, &set, 8));
    say!("{}", seen());
    say!("after it: {}", signal::names(signal::mask(SIG_BLOCK, 0)));
    let parent = pid();
    let helper = child(|| {
        until_asleep(parent);
        kill(parent, SIGCHLD);
        process::sleep_ms(10);
        until_asleep(parent);
        kill(parent, SIGUSR1);
        0
    });
    install(SIGUSR1, note_mask, SA_RESTART, 0);
    say!("an ignored one does not end it: {}", sys!(SYS_rt_sigsuspend, &set, 8));
    say!("{}", seen());
    wait(helper);
    let status = in_child(|| {
        signal::default(SIGUSR1);
        signal::block(SIGUSR1);
        kill_self(SIGUSR1);
        sys!(SYS_rt_sigsuspend, &0u64, 8);
        0
    });
    say!("one that kills: {status}");
}

fn suspend_errors() {
    let set = 0u64;
    for size in [0, 4, 9, 128] {
        say!("size {size}: {}", sys!(SYS_rt_sigsuspend, &set, size));
    }
    say!("from nowhere: {}", sys!(SYS_rt_sigsuspend, NOWHERE, 8));
}

fn waits() {
    signal::mask(SIG_BLOCK, bit(SIGUSR1) | bit(SIGUSR2) | bit(40));
    let set = bit(SIGUSR1) | bit(SIGUSR2) | bit(40);
    say!("nothing: {}", signal::take(set, 0).0);
    say!("nothing for 10 ms: {}", signal::take(set, 10).0);
    kill_self(40);
    kill_self(SIGUSR2);
    kill_self(SIGUSR1);
    for _ in 0..3 {
        say!("taken: {}", signal::take(set, 0).0);
    }
    kill_self(SIGUSR1);
    say!("not asked for: {}", signal::take(bit(SIGUSR2), 0).0);
    say!("taken: {}", signal::take(u64::MAX, 0).0);
    let victim = child(|| {
        say!("not blocked: {}", signal::take(bit(SIGTERM), 10_000).0);
        0
    });
    until_asleep(victim);
    kill(victim, SIGTERM);
    say!("it kills: {}", wait(victim));
    let parent = pid();
    handle(SIGTERM, signal::count, 0);
    let helper = child(|| {
        until_asleep(parent);
        kill(parent, SIGTERM);
        0
    });
    say!("not blocked, with a handler: {}, handled {}", signal::take(bit(SIGTERM), 10_000).0, caught());
    wait(helper);
    handle(SIGHUP, signal::count, SA_RESTART);
    let helper = child(|| {
        until_asleep(parent);
        kill(parent, SIGHUP);
        0
    });
    say!("another one comes: {}, handled {}", signal::take(bit(SIGUSR1), 10_000).0, caught());
    wait(helper);
    let helper = child(|| {
        until_asleep(parent);
        kill(parent, SIGWINCH);
        0
    });
    say!("an ignored one: {}", signal::take(bit(SIGUSR1), 50).0);
    wait(helper);
    let (ret, _) = signal::take(bit(SIGKILL) | bit(SIGSTOP), 0);
    say!("SIGKILL is not waited for: {ret}");
}

fn wait_errors() {
    let set = bit(SIGUSR1);
    let call = |set: usize, info: usize, time: &timespec, size: usize| sys!(SYS_rt_sigtimedwait, set, info, time, size);
    let now: timespec = zeroed();
    let at = &raw const set as usize;
    signal::block(SIGUSR1);
    say!("good: {}", call(at, 0, &now, 8));
    say!("size 4: {}", call(at, 0, &now, 4));
    say!("size 16: {}", call(at, 0, &now, 16));
    say!("set nowhere: {}", call(8, 0, &now, 8));
    say!("below zero: {}", call(at, 0, &timespec { tv_sec: -1, tv_nsec: 0 }, 8));
    say!("a billion: {}", call(at, 0, &timespec { tv_sec: 0, tv_nsec: 1_000_000_000 }, 8));
    say!("time nowhere: {}", sys!(SYS_rt_sigtimedwait, at, 0, NOWHERE, 8));
    kill_self(SIGUSR1);
    say!("information to nowhere: {}", call(at, 8, &now, 8));
    say!("it is gone: {}", signal::names(signal::pending()));
    kill_self(SIGUSR1);
    say!("bad time, though one waits: {}", call(at, 0, &timespec { tv_sec: -1, tv_nsec: 0 }, 8));
    say!("it is there: {}", signal::names(signal::pending()));
}

fn blocked_and_ignored() {
    signal::block(SIGUSR1);
    signal::ignore(SIGUSR1);
    let parent = pid();
    let helper = child(|| {
        until_asleep(parent);
        kill(parent, SIGUSR1);
        0
    });
    say!("who waits for an ignored one gets it: {}", signal::take(bit(SIGUSR1), 2000).0);
    wait(helper);
}
