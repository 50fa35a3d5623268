//! Who is told of urgent data: pollers, and by signals.

use libc::*;

use super::super::sigio::{F_SETSIG, TOLD, fcntl, switch};
use super::{events, now, sockets, urge, urgent};
use crate::file::{read, write};
use crate::sys::{sys, zeroed};
use crate::urgent as both;
use crate::{process, say, signal};

pub(super) fn ready() {
    let [a, b] = sockets();
    say!("at first: {}", events(b));
    urge(a, "!");
    say!("urgent: {}", events(b));
    urgent(b);
    say!("taken: {}", events(b));
    say!("read: {} {}", now(b), events(b));
    write(a, "x");
    urge(a, "?");
    write(a, "y");
    say!("bytes around: {}", events(b));
    read(b, 10);
    say!("before the mark: {}", events(b));
    read(b, 10);
    say!("past it: {}", events(b));
}

pub(super) fn select_waits() {
    let [a, b] = sockets();
    let child = process::child(|| {
        let mut set = zeroed::<[u64; 16]>();
        set[b as usize / 64] |= 1 << (b % 64);
        say!("select: {}", sys!(SYS_pselect6, b + 1, 0, 0, &mut set, 0, 0));
        let mut entry = pollfd { fd: b, events: POLLPRI, revents: 0 };
        say!("poll: {} {:#x}", sys!(SYS_ppoll, &mut entry, 1, 0, 0, 8), entry.revents);
        0
    });
    process::until_asleep(child);
    write(a, "bytes");
    process::sleep_ms(20);
    say!("asleep: {}", process::state(child));
    urge(a, "!");
    process::wait(child);
}

pub(super) fn epoll_waits() {
    both::epoll_waits(sockets());
}

fn wait_for_signals() -> String {
    let set = signal::bit(SIGURG) | signal::bit(TOLD) | signal::bit(SIGIO);
    let mut all = Vec::new();
    loop {
        let (ret, info) = signal::take(set, 20);
        if !ret.ok() {
            break;
        }
        // SAFETY: a `siginfo_t` is 128 bytes, in which si_band is at 16.
        let band = unsafe { std::ptr::from_ref(&info).cast::<u8>().add(16).cast::<i64>().read() };
        let kernel = info.si_code == SI_KERNEL;
        let told = if kernel { "kernel".into() } else { format!("{} {band:#x}", info.si_code) };
        all.push(format!("{} {told}", signal::name(info.si_signo)));
    }
    format!("[{}]", all.join(", "))
}

fn block_all() {
    for number in [SIGURG, SIGIO, TOLD] {
        signal::block(number);
    }
}

pub(super) fn signals() {
    block_all();
    let [a, b] = sockets();
    urge(a, "1");
    say!("no owner: {}", wait_for_signals());
    fcntl(b, F_SETOWN, process::pid());
    urge(a, "2");
    say!("an owner: {}", wait_for_signals());
    write(a, "bytes");
    say!("bytes: {}", wait_for_signals());
    switch(b, true);
    urge(a, "3");
    say!("asynchronous: {}", wait_for_signals());
    fcntl(b, F_SETOWN, 0);
    urge(a, "4");
    say!("nobody: {}", wait_for_signals());
}

pub(super) fn queued_signals() {
    block_all();
    let [a, b] = sockets();
    fcntl(b, F_SETOWN, process::pid());
    fcntl(b, F_SETSIG, TOLD);
    urge(a, "1");
    say!("a signal of one's own: {}", wait_for_signals());
    switch(b, true);
    urge(a, "2");
    say!("asynchronous: {}", wait_for_signals());
}

pub(super) fn no_owner() {
    block_all();
    let [a, b] = sockets();
    let child = process::child(|| {
        process::sleep_ms(10_000);
        0
    });
    fcntl(b, F_SETOWN, child);
    urge(a, "!");
    say!("the child is asked: {}", wait_for_signals());
    process::kill(child, SIGKILL);
    process::wait(child);
    urge(a, "!");
    say!("it is gone: {}", wait_for_signals());
}
