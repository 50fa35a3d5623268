//! ptrace(2): signals on their way to a tracee, stops of whole processes, and what wait(2) says of them.

use libc::*;

use crate::process::{self, Status, kill};
use crate::signal;
use crate::sys::{Ret, sys, zeroed};
use crate::tracing::*;
use crate::tracing::{ptrace, wait};
use crate::{say, tests};

tests! {
    signal_suppressed, signal_passed, signal_changed, information_changed, ignored_signals_told, blocked_when_resumed, fatal_signal,
    masks, queues, group_stop, group_stop_seized, listen, listen_refused, interrupt_pending, waitid_tells, wait_reports_once, wait_without_options, wait_no_wait,
    tracer_signalled, tracer_not_signalled, continue_while_stopped, stop_cancelled, interrupted_calls, by_exec_of_kill, stop_of_a_group,
}

fn signal_suppressed() {
    let pid = tracee(|| {
        signal::kill_self(SIGTERM);
        3
    });
    say!("{}", resume(CONT, pid, 0));
    say!("{}", info(pid));
    say!("without it: {}", resume(CONT, pid, 0));
}

fn signal_passed() {
    let pid = tracee(|| {
        signal::handle(SIGUSR1, signal::count, 0);
        signal::kill_self(SIGUSR1);
        signal::caught()
    });
    say!("{}", resume(CONT, pid, 0));
    say!("with it: {}", resume(CONT, pid, SIGUSR1));
}

fn signal_changed() {
    let pid = tracee(|| {
        signal::handle(SIGUSR2, signal::count, 0);
        signal::kill_self(SIGTERM);
        signal::caught() * 10 + signal::LAST_CODE.load(std::sync::atomic::Ordering::SeqCst)
    });
    say!("{}", resume(CONT, pid, 0));
    say!("as another: {}", resume(CONT, pid, SIGUSR2));
}

fn information_changed() {
    let pid = tracee(|| {
        signal::handle(SIGUSR2, signal::count, 0);
        signal::kill_self(SIGUSR2);
        -signal::LAST_CODE.load(std::sync::atomic::Ordering::SeqCst)
    });
    say!("{}, {}", resume(CONT, pid, 0), info(pid));
    let mut changed: siginfo_t = zeroed();
    changed.si_signo = SIGUSR2;
    changed.si_code = -33;
    say!("set: {}", ptrace!(SETSIGINFO, pid, 0, &changed));
    say!("{}", resume(CONT, pid, SIGUSR2));
}

fn ignored_signals_told() {
    let pid = tracee(|| {
        signal::ignore(SIGUSR1);
        signal::kill_self(SIGUSR1);
        signal::kill_self(SIGWINCH);
        4
    });
    say!("{}", resume(CONT, pid, 0));
    say!("{}", resume(CONT, pid, SIGUSR1));
    say!("{}", resume(CONT, pid, SIGWINCH));
}

fn blocked_when_resumed() {
    let pid = tracee(|| {
        signal::block(SIGUSR2);
        signal::kill_self(SIGUSR1);
        i32::from(signal::pending() == signal::bit(SIGUSR2))
    });
    say!("{}", resume(CONT, pid, 0));
    say!("as one that is blocked: {}", resume(CONT, pid, SIGUSR2));
}

fn fatal_signal() {
    let pid = tracee(|| {
        signal::kill_self(SIGTERM);
        0
    });
    say!("{}", resume(CONT, pid, 0));
    say!("{}", resume(CONT, pid, SIGTERM));
    let pid = tracee(idle);
    ptrace!(CONT, pid, 0, 0).need();
    kill(pid, SIGKILL);
    say!("of SIGKILL nobody is asked: {}", wait(pid));
}

fn masks() {
    let pid = tracee(|| {
        let blocked = signal::mask(SIG_BLOCK, 0);
        i32::from(blocked == signal::bit(SIGUSR1) | signal::bit(SIGTERM))
    });
    let mut mask = !0u64;
    say!("{}, {}", ptrace!(GETSIGMASK, pid, 8, &mut mask), signal::names(mask));
    let set = signal::bit(SIGUSR1) | signal::bit(SIGTERM) | signal::bit(SIGKILL) | signal::bit(SIGSTOP);
    say!("{}", ptrace!(SETSIGMASK, pid, 8, &set));
    ptrace!(GETSIGMASK, pid, 8, &mut mask).need();
    say!("{}", signal::names(mask));
    say!("sizes: {}, {}", ptrace!(GETSIGMASK, pid, 4, &mut mask), ptrace!(SETSIGMASK, pid, 16, &set));
    say!("{}", resume(CONT, pid, 0));
    let pid = tracee(|| {
        sys!(SYS_rt_sigsuspend, &signal::bit(SIGUSR2), 8);
        0
    });
    ptrace!(CONT, pid, 0, 0).need();
    process::until_asleep(pid);
    kill(pid, SIGWINCH);
    say!("{}", wait(pid));
    ptrace!(GETSIGMASK, pid, 8, &mut mask).need();
    say!("in sigsuspend: {}", signal::names(mask));
    end(pid);
}

fn queues() {
    let pid = tracee(|| {
        signal::block(SIGUSR1);
        signal::block(SIGUSR2);
        signal::kill_self(SIGUSR1);
        kill(process::pid(), SIGUSR2);
        signal::kill_self(SIGTERM);
        0
    });
    say!("{}", resume(CONT, pid, 0));
    let mut infos: [siginfo_t; 4] = zeroed();
    for (offset, flags, count) in [(0u64, 0u64, 4u64), (0, 1, 4), (1, 0, 4), (0, 0, 0), (0, 2, 1), (0, 0, 0x8000_0000)]
    {
        let ret = ptrace!(PEEKSIGINFO, pid, &[offset, flags | count << 32], &mut infos);
        let found = if ret.0 > 0 { signal::name(infos[0].si_signo) } else { String::new() };
        say!("from {offset}, flags {flags}, {count:#x}: {ret} {found}");
    }
    end(pid);
}

fn group_stop() {
    let pid = tracee(|| {
        signal::kill_self(SIGTSTP);
        6
    });
    // A group that nobody could continue is not stopped by SIGTSTP, so SIGSTOP it is.
    say!("{}, {}", resume(CONT, pid, 0), info(pid));
    say!("{}, {}", resume(CONT, pid, SIGSTOP), info(pid));
    say!("its state: {}", process::state(pid));
    say!("on: {}", resume(CONT, pid, 0));
}

fn group_stop_seized() {
    let pid = process::sleeper();
    ptrace!(SEIZE, pid, 0, 0).need();
    kill(pid, SIGSTOP);
    say!("{}, {}", wait(pid), info(pid));
    say!("{}, {}", resume(CONT, pid, SIGSTOP), info(pid));
    kill(pid, SIGCONT);
    say!("nothing yet: {}", news(pid));
    say!("{}, {}", resume(CONT, pid, 0), info(pid));
    say!("{}, {}", resume(CONT, pid, 0), info(pid));
    end(pid);
}

fn listen() {
    let pid = process::sleeper();
    ptrace!(SEIZE, pid, 0, 0).need();
    kill(pid, SIGSTOP);
    wait(pid);
    say!("{}", resume(CONT, pid, SIGSTOP));
    say!("listen: {}, {}", ptrace!(LISTEN, pid, 0, 0), news(pid));
    say!("not to be changed: {}, {}", ptrace!(CONT, pid, 0, 0), ptrace!(GETSIGINFO, pid, 0, 0));
    say!("its state: {}", process::state(pid));
    say!("interrupt: {}, {}, {}", ptrace!(INTERRUPT, pid, 0, 0), wait(pid), info(pid));
    ptrace!(LISTEN, pid, 0, 0).need();
    kill(pid, SIGCONT);
    say!("continued: {}, {}", wait(pid), info(pid));
    say!("{}", resume(CONT, pid, 0));
    end(pid);
}

fn listen_refused() {
    let pid = tracee(|| 0);
    say!("attached: {}, {}", ptrace!(LISTEN, pid, 0, 0), ptrace!(INTERRUPT, pid, 0, 0));
    end(pid);
    let pid = process::sleeper();
    ptrace!(SEIZE, pid, 0, 0).need();
    kill(pid, SIGUSR1);
    wait(pid);
    say!("for a signal: {}", ptrace!(LISTEN, pid, 0, 0));
    end(pid);
}

fn interrupt_pending() {
    let pid = process::sleeper();
    ptrace!(SEIZE, pid, 0, 0).need();
    ptrace!(INTERRUPT, pid, 0, 0).need();
    say!("{}", wait(pid));
    say!("in a stop: {}, {}, nothing new: {}", ptrace!(INTERRUPT, pid, 0, 0), ptrace!(INTERRUPT, pid, 0, 0), news(pid));
    say!("but then: {}", resume(CONT, pid, 0));
    ptrace!(CONT, pid, 0, 0).need();
    process::until_asleep(pid);
    say!("once: {}", news(pid));
    end(pid);
}

fn waitid_tells() {
    let pid = tracee(|| {
        signal::kill_self(SIGUSR1);
        0
    });
    ptrace!(SETOPTIONS, pid, 0, TRACE_EXIT).need();
    let look = |options: i32| {
        let mut info: siginfo_t = zeroed();
        let ret = sys!(SYS_waitid, P_PID, pid, &mut info, options, 0);
        // SAFETY: of a child, or zero.
        let (status, child) = unsafe { (info.si_status(), info.si_pid() == pid) };
        say!("{ret}: signal {}, code {}, status {status:#x}, {child}", info.si_signo, info.si_code);
    };
    ptrace!(CONT, pid, 0, 0).need();
    look(WSTOPPED);
    ptrace!(CONT, pid, 0, 0).need();
    look(WSTOPPED);
    ptrace!(CONT, pid, 0, 0).need();
    look(WEXITED);
}

fn wait_reports_once() {
    let pid = tracee(|| 0);
    say!("told already: {}", news(pid));
    kill(pid, SIGUSR1);
    say!("still: {}", news(pid));
    say!("{}, {}", resume(CONT, pid, 0), news(pid));
    end(pid);
}

fn wait_without_options() {
    let pid = process::sleeper();
    ptrace!(ATTACH, pid, 0, 0).need();
    let mut status = 0i32;
    say!(
        "by plain wait: {}, {}",
        sys!(SYS_wait4, -1, &mut status, 0, 0).0 == i64::from(pid),
        Status::from_wait(status)
    );
    end(pid);
}

fn wait_no_wait() {
    let pid = process::sleeper();
    ptrace!(ATTACH, pid, 0, 0).need();
    for options in [WSTOPPED | WNOWAIT, WSTOPPED, WSTOPPED | WNOHANG, WEXITED | WNOHANG, WCONTINUED | WNOHANG] {
        let mut info: siginfo_t = zeroed();
        let ret = sys!(SYS_waitid, P_PID, pid, &mut info, options, 0);
        say!("{options:#x}: {ret}, code {}", info.si_code);
    }
    end(pid);
}

fn tracer_signalled() {
    signal::block(SIGCHLD);
    let pid = tracee(|| {
        signal::kill_self(SIGUSR1);
        0
    });
    let set = signal::bit(SIGCHLD);
    signal::take(set, 1000);
    say!("{}", resume(CONT, pid, 0));
    let (ret, info) = signal::take(set, 1000);
    // SAFETY: SIGCHLD has them.
    let (status, child) = unsafe { (info.si_status(), info.si_pid() == pid) };
    say!("{}, code {}, status {status}, the child: {child}", signal::name(ret.0 as i32), info.si_code);
    end(pid);
}

fn tracer_not_signalled() {
    let quiet = signal::Action {
        handler: signal::count as *const () as usize,
        flags: (SA_NOCLDSTOP | SA_SIGINFO).cast_unsigned().into(),
        restorer: 0,
        mask: 0,
    };
    signal::action(SIGCHLD, Some(&quiet), None);
    let pid = tracee(|| 0);
    say!("{}", signal::caught());
    say!("{}, {}", resume(CONT, pid, 0), signal::caught());
}

fn continue_while_stopped() {
    let pid = tracee(idle);
    kill(pid, SIGCONT);
    say!("in a stop for a signal: {}", news(pid));
    say!("{}", resume(CONT, pid, SIGSTOP));
    end(pid);
}

fn stop_cancelled() {
    let pid = tracee(|| {
        signal::kill_self(SIGSTOP);
        0
    });
    say!("{}", resume(CONT, pid, 0));
    // It undoes the stop that the tracer lets through.
    kill(pid, SIGCONT);
    say!("{}", resume(CONT, pid, SIGSTOP));
    end(pid);
}

fn interrupted_calls() {
    let pid = tracee(|| {
        let mut bytes = [0u8; 1];
        let mut ends = [0i32; 2];
        sys!(SYS_pipe2, &mut ends, 0).need();
        signal::handle(SIGUSR1, signal::count, 0);
        let ret = sys!(SYS_read, ends[0], &mut bytes, 1);
        if ret == Ret(i64::from(-EINTR)) { 44 } else { 0 }
    });
    ptrace!(CONT, pid, 0, 0).need();
    process::until_asleep(pid);
    kill(pid, SIGUSR2);
    say!("{}", wait(pid));
    let before = registers(pid);
    say!("the call is about to be made again: {}, in a call: {}", before.x[0] < 100, call(pid));
    ptrace!(CONT, pid, 0, 0).need();
    process::until_asleep(pid);
    kill(pid, SIGUSR1);
    wait(pid);
    say!("the same place: {}", registers(pid).pc == before.pc);
    say!("{}", resume(CONT, pid, SIGUSR1));
}

fn by_exec_of_kill() {
    let pid = tracee(|| {
        kill(process::pid(), SIGUSR1);
        0
    });
    say!("{}, {}", resume(CONT, pid, 0), info(pid));
    end(pid);
}

fn stop_of_a_group() {
    let pid = process::sleeper();
    ptrace!(SEIZE, pid, 0, 0).need();
    kill(pid, SIGSTOP);
    wait(pid);
    resume(CONT, pid, SIGSTOP);
    say!("detached in the stop: {}", ptrace!(DETACH, pid, 0, 0));
    process::until_asleep(pid);
    say!("it stays stopped: {}", process::state(pid));
    kill(pid, SIGCONT);
    for _ in 0..1000 {
        if process::state(pid) == 'S' {
            break;
        }
        process::sleep_ms(1);
    }
    say!("and goes on: {}", process::state(pid));
    end(pid);
}
