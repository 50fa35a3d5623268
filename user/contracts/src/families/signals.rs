//! Actions, masks and delivery of signals: sigaction(2), sigprocmask(2), sigpending(2), signal(7).

use std::sync::Mutex;
use std::sync::atomic::Ordering::SeqCst;

use libc::*;

use crate::memory::{PAGE, pages};
use crate::process::{self, Gate, child, in_child, kill, pid, until_asleep, wait, wait_for};
use crate::signal::{self, Action, bit, caught, handle, kill_self};
use crate::sys::{KERNEL, NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    default_actions, uncatchable, action_errors, action_values, unknown_flags, mask_errors, mask_operations, mask_in_a_handler, no_deferral, reset_by_delivery, pending_once, ignored_while_pending, ignored_by_default, stops_and_continues, cancelled_stops, orders_of_delivery, nested, handlers_of_a_fork, pipe_without_readers, alarm, terminal_stop_of_an_orphan,
}

fn default_actions() {
    for signal in 1..=64 {
        if signal == SIGSTOP {
            continue;
        }
        let pid = child(|| {
            // In a group of its own whose parent is in the session: stops are not for nothing.
            sys!(SYS_setpgid, 0, 0);
            signal::default(signal);
            signal::mask(SIG_SETMASK, 0);
            kill_self(signal);
            0
        });
        let status = wait_for(pid, WUNTRACED);
        say!("{}: {status}", signal::name(signal));
        if matches!(status, process::Status::Stopped(_)) {
            kill(pid, SIGKILL);
            wait(pid);
        }
    }
}

fn uncatchable() {
    for signal in [SIGKILL, SIGSTOP] {
        let name = signal::name(signal);
        say!("{name}, handler: {}", handle(signal, signal::count, 0));
        say!("{name}, ignore: {}", signal::ignore(signal));
        say!("{name}, default: {}", signal::default(signal));
        let mut old = Action { handler: 9, flags: 9, restorer: 9, mask: 9 };
        say!("{name}, ask: {} {:#x}", signal::action(signal, None, Some(&mut old)), old.handler);
    }
    signal::mask(SIG_SETMASK, u64::MAX);
    say!("all blocked: {}", signal::names(!signal::mask(SIG_BLOCK, 0)));
    let new = Action { handler: signal::count as *const () as usize, flags: 0, restorer: 0, mask: u64::MAX };
    signal::action(SIGUSR1, Some(&new), None);
    let mut old = Action { handler: 0, flags: 0, restorer: 0, mask: 0 };
    signal::action(SIGUSR1, None, Some(&mut old));
    say!("not in a handler's mask: {}", signal::names(!old.mask));
    let pid = child(|| {
        signal::mask(SIG_SETMASK, u64::MAX);
        loop {
            process::sleep_ms(100_000);
        }
    });
    until_asleep(pid);
    kill(pid, SIGSTOP);
    say!("blocked SIGSTOP: {}", wait_for(pid, WUNTRACED));
    kill(pid, SIGKILL);
    say!("blocked SIGKILL: {}", wait(pid));
}

fn action_errors() {
    let new = Action { handler: 0, flags: 0, restorer: 0, mask: 0 };
    for signal in [0, -1, 65, i32::MAX] {
        say!("{signal}: {} {}", sys!(SYS_rt_sigaction, signal, &new, 0, 8), sys!(SYS_rt_sigaction, signal, 0, 0, 8));
    }
    for size in [0, 4, 7, 9, 16, 128] {
        say!("size {size}: {}", sys!(SYS_rt_sigaction, SIGUSR1, &new, 0, size));
    }
    say!("from nowhere: {}", sys!(SYS_rt_sigaction, SIGUSR1, NOWHERE, 0, 8));
    say!("to nowhere: {}", sys!(SYS_rt_sigaction, SIGUSR1, 0, NOWHERE, 8));
    say!("to the kernel: {}", sys!(SYS_rt_sigaction, SIGUSR1, 0, KERNEL, 8));
    say!("SIGKILL from nowhere: {}", sys!(SYS_rt_sigaction, SIGKILL, NOWHERE, 0, 8));
    say!("bad size and bad signal: {}", sys!(SYS_rt_sigaction, 99, NOWHERE, 0, 9));
    signal::ignore(SIGUSR1);
    say!("set, and the old one to nowhere: {}", sys!(SYS_rt_sigaction, SIGUSR1, &new, NOWHERE, 8));
    let mut old = Action { handler: 9, flags: 9, restorer: 9, mask: 9 };
    signal::action(SIGUSR1, None, Some(&mut old));
    say!("it was set: {}", old.handler);
}

fn action_values() {
    let mut old = Action { handler: 9, flags: 9, restorer: 9, mask: 9 };
    say!("at first: {}", signal::action(SIGUSR1, None, Some(&mut old)));
    say!("{} {:#x} {:#x} {:#x}", old.handler, old.flags, old.restorer, old.mask);
    let flags = (SA_RESTART | SA_NODEFER | SA_SIGINFO | SA_ONSTACK | SA_NOCLDSTOP | SA_NOCLDWAIT) as u64 & 0xffff_ffff;
    let new = Action { handler: 0x1234, flags, restorer: 0x5678, mask: bit(SIGUSR2) | bit(64) };
    signal::action(SIGUSR1, Some(&new), None);
    signal::action(SIGUSR1, Some(&Action { handler: 1, ..new }), Some(&mut old));
    say!("{:#x} {:#x} {:#x} {}", old.handler, old.flags, old.restorer, signal::names(old.mask));
    signal::action(SIGUSR1, None, Some(&mut old));
    say!("{:#x} {:#x} {:#x} {}", old.handler, old.flags, old.restorer, signal::names(old.mask));
    let mut twice = new;
    let place: *mut Action = &mut twice;
    say!("new and old at one place: {}", sys!(SYS_rt_sigaction, SIGUSR1, place, place, 8));
    say!("{:#x}", twice.handler);
}

fn unknown_flags() {
    let mut old = Action { handler: 0, flags: 0, restorer: 0, mask: 0 };
    for flags in [0x400u64, 0x800, 0x0400_0000, 0x1_0000_0000, 1 << 63, 0xffff_ffff] {
        let new = Action { handler: 0x1000, flags, restorer: 0, mask: 0 };
        let set = signal::action(SIGUSR1, Some(&new), None);
        signal::action(SIGUSR1, None, Some(&mut old));
        say!("{flags:#x}: {set}, {:#x}", old.flags);
    }
}

fn mask_errors() {
    let set = bit(SIGUSR1);
    for how in [-1, 3, 4, 99] {
        say!("how {how}: {}", sys!(SYS_rt_sigprocmask, how, &set, 0, 8));
        say!("without a set: {}", sys!(SYS_rt_sigprocmask, how, 0, 0, 8));
    }
    for size in [0, 4, 9, 128] {
        say!("size {size}: {}", sys!(SYS_rt_sigprocmask, SIG_BLOCK, &set, 0, size));
    }
    say!("from nowhere: {}", sys!(SYS_rt_sigprocmask, SIG_BLOCK, NOWHERE, 0, 8));
    say!("to nowhere: {}", sys!(SYS_rt_sigprocmask, SIG_BLOCK, 0, NOWHERE, 8));
    say!("set, and the old one to nowhere: {}", sys!(SYS_rt_sigprocmask, SIG_BLOCK, &set, NOWHERE, 8));
    say!("it was set: {}", signal::names(signal::mask(SIG_BLOCK, 0)));
    let mut place = 0u64;
    for size in [0, 1, 4, 8, 9] {
        say!("pending, size {size}: {}", sys!(SYS_rt_sigpending, &mut place, size));
    }
    say!("pending, to nowhere: {}", sys!(SYS_rt_sigpending, NOWHERE, 8));
}

fn mask_operations() {
    let shown = || signal::names(signal::mask(SIG_BLOCK, 0));
    say!("at first: {}", shown());
    signal::mask(SIG_SETMASK, bit(SIGUSR1) | bit(SIGTERM));
    say!("set: {}", shown());
    say!("block answers: {}", signal::names(signal::mask(SIG_BLOCK, bit(SIGUSR2) | bit(SIGTERM))));
    say!("then: {}", shown());
    signal::mask(SIG_UNBLOCK, bit(SIGTERM) | bit(SIGHUP));
    say!("unblock: {}", shown());
    let mut both = bit(40);
    let place: *mut u64 = &mut both;
    sys!(SYS_rt_sigprocmask, SIG_SETMASK, place, place, 8);
    say!("old and new at one place: {} {}", signal::names(both), shown());
}

static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub(super) fn seen() -> String {
    SEEN.lock().map(|mut seen| seen.drain(..).collect::<Vec<_>>().join(", ")).unwrap_or_default()
}

pub(super) fn note(text: String) {
    if let Ok(mut seen) = SEEN.try_lock() {
        seen.push(text);
    }
}

pub(super) extern "C" fn note_mask(signal: i32, _: *const siginfo_t, context: *mut c_void) {
    let before = signal::context(context).mask;
    note(format!(
        "{}: blocked {}, before {}",
        signal::name(signal),
        signal::names(signal::mask(SIG_BLOCK, 0)),
        signal::names(before)
    ));
}

pub(super) fn install(signal: i32, handler: signal::Handler, flags: i32, mask: u64) {
    let flags = (flags | SA_SIGINFO) as u32 as u64;
    signal::action(signal, Some(&Action { handler: handler as usize, flags, restorer: 0, mask }), None);
}

fn mask_in_a_handler() {
    install(SIGUSR1, note_mask, 0, bit(SIGTERM) | bit(SIGUSR2));
    kill_self(SIGUSR1);
    say!("{}", seen());
    signal::block(SIGHUP);
    kill_self(SIGUSR1);
    say!("{}", seen());
    say!("after it: {}", signal::names(signal::mask(SIG_BLOCK, 0)));
    install(SIGUSR1, note_mask, SA_NODEFER, bit(SIGUSR1));
    kill_self(SIGUSR1);
    say!("SA_NODEFER and in its own mask: {}", seen());
    install(SIGUSR1, unblock_more, 0, 0);
    kill_self(SIGUSR1);
    say!("what a handler changes in its context stays: {}", signal::names(signal::mask(SIG_BLOCK, 0)));
}

extern "C" fn unblock_more(_: i32, _: *const siginfo_t, context: *mut c_void) {
    signal::context(context).mask |= bit(SIGALRM) | bit(SIGKILL);
    signal::block(SIGVTALRM);
}

static DEPTH: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(0);

extern "C" fn again(signal: i32, _: *const siginfo_t, _: *mut c_void) {
    let depth = DEPTH.fetch_add(1, SeqCst);
    note(format!("in {depth}"));
    if depth < 2 {
        kill_self(signal);
    }
    note(format!("out {depth}"));
}

fn no_deferral() {
    install(SIGUSR1, again, 0, 0);
    kill_self(SIGUSR1);
    say!("deferred: {}", seen());
    DEPTH.store(0, SeqCst);
    install(SIGUSR1, again, SA_NODEFER, 0);
    kill_self(SIGUSR1);
    say!("SA_NODEFER: {}", seen());
}

fn reset_by_delivery() {
    handle(SIGUSR1, signal::count, SA_RESETHAND);
    let mut old = Action { handler: 0, flags: 0, restorer: 0, mask: 0 };
    signal::action(SIGUSR1, None, Some(&mut old));
    say!("before: {}", old.handler != 0);
    kill_self(SIGUSR1);
    signal::action(SIGUSR1, None, Some(&mut old));
    say!("caught {}, then {} {:#x}", caught(), old.handler, old.flags & !0x0400_0000);
    in_child(|| 0);
    let status = in_child(|| {
        kill_self(SIGUSR1);
        0
    });
    say!("the second: {status}");
    let status = in_child(|| {
        handle(SIGUSR1, again, SA_RESETHAND);
        kill_self(SIGUSR1);
        0
    });
    say!("sent in its handler: {status}");
    handle(SIGCHLD, signal::count, SA_RESETHAND);
    in_child(|| 0);
    say!("caught {}", caught());
}

fn pending_once() {
    handle(SIGUSR1, signal::count, 0);
    signal::block(SIGUSR1);
    for _ in 0..5 {
        kill_self(SIGUSR1);
    }
    kill(pid(), SIGUSR1);
    say!("pending: {}", signal::names(signal::pending()));
    signal::unblock(SIGUSR1);
    say!("to the thread and to the process: {}", caught());
    handle(40, signal::count, 0);
    signal::block(40);
    for _ in 0..5 {
        kill_self(40);
    }
    signal::unblock(40);
    say!("a real-time one: {}", caught());
}

fn ignored_while_pending() {
    signal::block(SIGUSR1);
    kill_self(SIGUSR1);
    kill(pid(), SIGUSR1);
    say!("pending: {}", signal::names(signal::pending()));
    signal::ignore(SIGUSR1);
    say!("ignored: {}", signal::names(signal::pending()));
    handle(SIGUSR1, signal::count, 0);
    signal::unblock(SIGUSR1);
    say!("caught: {}", caught());
    signal::block(SIGCHLD);
    kill_self(SIGCHLD);
    say!("one that its default ignores: {}", signal::names(signal::pending()));
    signal::default(SIGCHLD);
    say!("default set again: {}", signal::names(signal::pending()));
    signal::ignore(SIGUSR2);
    signal::block(SIGUSR2);
    kill_self(SIGUSR2);
    say!("blocked and ignored: {}", signal::names(signal::pending()));
    handle(SIGUSR2, signal::count, 0);
    signal::unblock(SIGUSR2);
    say!("with a handler by now: {}", caught());
}

fn ignored_by_default() {
    for signal in [SIGCHLD, SIGURG, SIGWINCH] {
        signal::block(signal);
        kill_self(signal);
        say!("{}, blocked: {}", signal::name(signal), signal::names(signal::pending()));
        say!("taken: {}", signal::take(bit(signal), 0).0);
    }
    kill_self(SIGURG);
    signal::unblock(SIGURG);
    say!("unblocked: {}", signal::names(signal::pending()));
}

fn stops_and_continues() {
    signal::block(SIGTSTP);
    kill_self(SIGTSTP);
    say!("a stop waits: {}", signal::names(signal::pending()));
    kill_self(SIGCONT);
    say!("SIGCONT takes it away: {}", signal::names(signal::pending()));
    signal::block(SIGCONT);
    kill_self(SIGCONT);
    say!("SIGCONT waits: {}", signal::names(signal::pending()));
    kill_self(SIGTTIN);
    say!("a stop takes it away, its own stop has no effect on an orphan: {}", signal::names(signal::pending()));
    signal::ignore(SIGTSTP);
    kill_self(SIGCONT);
    kill_self(SIGTSTP);
    say!("even one that is ignored: {}", signal::names(signal::pending()));
    handle(SIGCONT, signal::count, 0);
    signal::unblock(SIGCONT);
    kill_self(SIGCONT);
    say!("SIGCONT handled: {}", caught());
}

fn cancelled_stops() {
    let gate = Gate::new();
    let pid = child(|| {
        sys!(SYS_setpgid, 0, 0);
        signal::block(SIGTSTP);
        kill_self(SIGTSTP);
        gate.open();
        signal::take(bit(SIGUSR1), 100);
        kill_self(SIGCONT);
        signal::unblock(SIGTSTP);
        5
    });
    gate.pass();
    say!("a stop that SIGCONT took away: {}", wait_for(pid, WUNTRACED));
    let pid = child(|| {
        sys!(SYS_setpgid, 0, 0);
        handle(SIGTSTP, signal::count, 0);
        kill_self(SIGTSTP);
        caught()
    });
    say!("a stop with a handler does not stop: {}", wait_for(pid, WUNTRACED));
    let pid = child(|| {
        sys!(SYS_setpgid, 0, 0);
        signal::block(SIGTSTP);
        kill_self(SIGTSTP);
        signal::unblock(SIGTSTP);
        6
    });
    say!("unblocked: {}", wait_for(pid, WUNTRACED));
    kill(pid, SIGCONT);
    say!("then: {}", wait(pid));
}

extern "C" fn note_signal(signal: i32, _: *const siginfo_t, _: *mut c_void) {
    note(signal::name(signal));
}

fn orders_of_delivery() {
    let all = [SIGTERM, SIGHUP, SIGUSR2, 40, SIGUSR1, 35, SIGCHLD];
    let mut set = 0;
    for signal in all {
        install(signal, note_signal, 0, u64::MAX);
        set |= bit(signal);
    }
    signal::mask(SIG_BLOCK, set);
    for signal in all {
        kill_self(signal);
    }
    signal::mask(SIG_UNBLOCK, set);
    say!("one after the other: {}", seen());
    for signal in all {
        install(signal, note_signal, 0, 0);
    }
    signal::mask(SIG_BLOCK, set);
    for signal in all {
        kill_self(signal);
    }
    signal::mask(SIG_UNBLOCK, set);
    say!("frames upon frames: {}", seen());
    signal::mask(SIG_BLOCK, set);
    kill(pid(), SIGHUP);
    kill_self(SIGUSR1);
    kill(pid(), 35);
    kill_self(40);
    signal::mask(SIG_UNBLOCK, set);
    say!("the process's and the thread's: {}", seen());
    install(SIGUSR2, note_signal, 0, u64::MAX);
    signal::mask(SIG_BLOCK, set);
    for signal in [SIGUSR2, SIGHUP] {
        kill_self(signal);
    }
    signal::mask(SIG_UNBLOCK, set);
    say!("one that blocks the other: {}", seen());
}

extern "C" fn send_other(signal: i32, _: *const siginfo_t, _: *mut c_void) {
    note(format!("{} begins", signal::name(signal)));
    if signal == SIGUSR1 {
        kill_self(SIGUSR2);
    }
    note(format!("{} ends", signal::name(signal)));
}

fn nested() {
    install(SIGUSR1, send_other, 0, 0);
    install(SIGUSR2, send_other, 0, 0);
    kill_self(SIGUSR1);
    say!("{}", seen());
    install(SIGUSR1, send_other, 0, bit(SIGUSR2));
    kill_self(SIGUSR1);
    say!("held back: {}", seen());
}

fn handlers_of_a_fork() {
    handle(SIGUSR1, signal::count, 0);
    let pid = child(|| {
        signal::default(SIGUSR1);
        signal::ignore(SIGUSR2);
        0
    });
    wait(pid);
    kill_self(SIGUSR1);
    say!("a child's changes are its own: {}", caught());
    let mut old = Action { handler: 9, flags: 0, restorer: 0, mask: 0 };
    signal::action(SIGUSR2, None, Some(&mut old));
    say!("the other: {}", old.handler);
}

fn pipe_without_readers() {
    let [reader, writer] = crate::file::pipe();
    sys!(SYS_close, reader);
    handle(SIGPIPE, signal::count, SA_RESTART);
    say!("write: {}, caught {}", crate::file::write(writer, "x"), caught());
    say!("code: {}", signal::LAST_CODE.load(SeqCst));
    signal::ignore(SIGPIPE);
    say!("ignored: {}", crate::file::write(writer, "x"));
    signal::block(SIGPIPE);
    signal::default(SIGPIPE);
    say!("blocked: {}, pending {}", crate::file::write(writer, "x"), signal::names(signal::pending()));
    let status = in_child(|| {
        signal::unblock(SIGPIPE);
        crate::file::write(writer, "x");
        0
    });
    say!("default: {status}");
}

fn alarm() {
    let mut interval: itimerval = zeroed();
    interval.it_value.tv_usec = 10_000;
    let parent = pid();
    let status = in_child(|| {
        sys!(SYS_setitimer, ITIMER_REAL, &interval, 0);
        loop {
            process::sleep_ms(1000);
        }
    });
    say!("without a handler: {status}");
    signal::block(SIGALRM);
    sys!(SYS_setitimer, ITIMER_REAL, &interval, 0);
    let (ret, info) = signal::take(bit(SIGALRM), 10_000);
    say!("taken: {ret}, code {}", info.si_code);
    let _ = parent;
    interval.it_interval.tv_usec = 5_000;
    sys!(SYS_setitimer, ITIMER_REAL, &interval, 0);
    for _ in 0..3 {
        say!("again: {}", signal::take(bit(SIGALRM), 10_000).0);
    }
    let status = in_child(|| {
        handle(SIGVTALRM, signal::count, 0);
        let mut busy: itimerval = zeroed();
        busy.it_value.tv_usec = 10_000;
        sys!(SYS_setitimer, ITIMER_VIRTUAL, &busy, 0);
        while signal::CAUGHT.load(SeqCst) == 0 {}
        0
    });
    say!("ITIMER_VIRTUAL: {status}");
    let status = in_child(|| {
        let mut busy: itimerval = zeroed();
        busy.it_value.tv_usec = 10_000;
        sys!(SYS_setitimer, ITIMER_PROF, &busy, 0);
        loop {
            std::hint::black_box(0);
        }
    });
    say!("ITIMER_PROF: {status}");
}

fn terminal_stop_of_an_orphan() {
    let page = pages(1);
    let _ = (page, PAGE);
    let status = in_child(|| {
        sys!(SYS_setsid);
        handle(SIGTSTP, signal::count, 0);
        kill_self(SIGTSTP);
        say!("a handler runs all the same: {}", caught());
        signal::default(SIGTSTP);
        kill_self(SIGTSTP);
        say!("the default does nothing");
        let result: Ret = kill_self(SIGTTOU);
        say!("{result}");
        0
    });
    say!("{status}");
}
