//! ptrace(2): who may trace whom, what the requests refuse, and the end of it.

use libc::*;

use crate::process::{self, Gate, Status, as_user, child, in_child, kill, sleeper};
use crate::signal;
use crate::sys::{KERNEL, NOWHERE, Ret, sys, zeroed};
use crate::tracing::*;
use crate::tracing::{ptrace, wait};
use crate::{say, tests};

tests! {
    trace_me, trace_me_twice, nobody, not_traced, unknown_requests, needs_a_stop, attach, attach_refused, attach_by_user,
    attach_undumpable, attach_stopped, attach_own_parent, attach_in_a_circle, seize, seize_options_refused, options_refused, detach, detach_with_stop, detach_signals, kill_request,
    killed_in_a_stop, tracer_ends, tracer_kills, other_thread_of_tracer, state_shown, bad_signals, bad_pointers, trace_me_untraced_parent,
    zombie_first_to_tracer, parent_waits_meanwhile, dead_attach,
}

fn trace_me() {
    let pid = tracee(|| 7);
    say!("then: {}", resume(CONT, pid, 0));
    say!("gone: {}", ptrace!(CONT, pid, 0, 0));
}

fn trace_me_twice() {
    let pid = child(|| {
        ptrace!(TRACEME, 0, 0, 0).need();
        say!("again: {}", ptrace!(TRACEME, 0, 0, 0));
        0
    });
    say!("{}", wait(pid));
}

fn nobody() {
    for request in [ATTACH, SEIZE, CONT, DETACH, KILL, INTERRUPT, PEEKDATA, SETOPTIONS, 12345] {
        say!(
            "{request:#x}: {}, {}, {}",
            ptrace!(request, 4_000_000, 0, 0),
            ptrace!(request, 0, 0, 0),
            ptrace!(request, -1, 0, 0)
        );
    }
    say!("with an address: {}", ptrace!(SEIZE, 4_000_000, 1, 0));
}

fn not_traced() {
    let pid = sleeper();
    for request in [CONT, DETACH, KILL, INTERRUPT, LISTEN, PEEKDATA, SETOPTIONS, GETREGSET, 12345] {
        say!("{request:#x}: {}", ptrace!(request, pid, 0, 0));
    }
    say!("oneself: {}, attach: {}", ptrace!(CONT, process::pid(), 0, 0), ptrace!(ATTACH, process::pid(), 0, 0));
    end(pid);
}

fn unknown_requests() {
    let pid = tracee(|| 0);
    for request in [3, 6, 12, 13, 14, 15, 18, 33, 34, 99, 0x4210, 0x4299, -1] {
        say!("{request:#x}: {}", ptrace!(request, pid, 0, 0));
    }
    end(pid);
}

fn needs_a_stop() {
    let pid = tracee(idle);
    ptrace!(CONT, pid, 0, 0).need();
    for request in [CONT, DETACH, PEEKDATA, SETOPTIONS, GETSIGINFO, LISTEN, 12345] {
        say!("{request:#x} while it runs: {}", ptrace!(request, pid, 0, 0));
    }
    say!("only seized ones: {}", ptrace!(INTERRUPT, pid, 0, 0));
    end(pid);
}

fn attach() {
    let pid = sleeper();
    say!("attach: {}", ptrace!(ATTACH, pid, 0, 0));
    say!("{}, {}", wait(pid), info(pid));
    say!("again: {}", ptrace!(ATTACH, pid, 0, 0));
    let other = in_child(|| {
        say!("by another: {}, and seize: {}", ptrace!(ATTACH, pid, 0, 0), ptrace!(SEIZE, pid, 0, 0));
        say!("not its tracer: {}", ptrace!(CONT, pid, 0, 0));
        0
    });
    say!("{other}; detach: {}", ptrace!(DETACH, pid, 0, 0));
    say!("runs: {}, {}", news(pid), ptrace!(DETACH, pid, 0, 0));
    end(pid);
}

fn attach_refused() {
    let (tid, thread) = process::sleeping_thread(|| process::sleep_ms(300));
    say!("of one's own process: {}, {}", ptrace!(ATTACH, tid, 0, 0), ptrace!(SEIZE, tid, 0, 0));
    let _ = thread.join();
}

fn attach_by_user() {
    let root = sleeper();
    let gate = Gate::new();
    let user = child(|| {
        process::become_user(1000);
        // Who has changed its ids hides its memory.
        sys!(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
        gate.open();
        idle()
    });
    gate.pass();
    as_user(1000, || {
        say!("root's: {}, {}", ptrace!(ATTACH, root, 0, 0), ptrace!(SEIZE, root, 0, 0));
        say!("own: {}", ptrace!(SEIZE, user, 0, 0));
        0
    });
    as_user(1001, || {
        say!("another's: {}", ptrace!(SEIZE, user, 0, 0));
        0
    });
    say!("by root: {}", ptrace!(SEIZE, user, 0, 0));
    end(root);
    end(user);
}

fn attach_undumpable() {
    let gate = Gate::new();
    let hidden = child(|| {
        process::become_user(1000);
        sys!(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
        gate.open();
        idle()
    });
    gate.pass();
    as_user(1000, || {
        say!("by the same user: {}", ptrace!(SEIZE, hidden, 0, 0));
        0
    });
    say!("by root: {}", ptrace!(SEIZE, hidden, 0, 0));
    end(hidden);
}

fn attach_stopped() {
    let pid = sleeper();
    kill(pid, SIGSTOP);
    say!("{}", process::wait_for(pid, WUNTRACED));
    say!("attach: {}, at once {}", ptrace!(ATTACH, pid, 0, 0), news(pid));
    say!("{}", info(pid));
    say!("on: {}, {}", resume(CONT, pid, 0), info(pid));
    say!("detach: {}", ptrace!(DETACH, pid, 0, 0));
    process::until_asleep(pid);
    say!("its state: {}", process::state(pid));
    end(pid);
    let pid = sleeper();
    kill(pid, SIGSTOP);
    process::wait_for(pid, WUNTRACED);
    say!("seize: {}, {}", ptrace!(SEIZE, pid, 0, 0), news(pid));
    say!("{}", info(pid));
    end(pid);
}

fn attach_own_parent() {
    let gates = [Gate::new(), Gate::new()];
    let pid = child(|| {
        let parent = sys!(SYS_getppid).0 as i32;
        say!("seize the parent: {}", ptrace!(SEIZE, parent, 0, 0));
        gates[0].open();
        gates[1].pass();
        say!("detached by the end");
        0
    });
    gates[0].pass();
    say!("traced by its child: {}", status_line(process::pid(), "TracerPid") == pid.to_string());
    gates[1].open();
    say!("{}", process::wait(pid));
    say!("traced by {}", status_line(process::pid(), "TracerPid"));
}

fn attach_in_a_circle() {
    let gates = [Gate::new(), Gate::new()];
    let parent = process::pid();
    let pid = child(|| {
        say!("the child traces the parent: {}", ptrace!(SEIZE, parent, 0, 0));
        gates[0].open();
        gates[1].pass();
        0
    });
    gates[0].pass();
    say!("and the parent the child: {}", ptrace!(SEIZE, pid, 0, 0));
    gates[1].open();
    say!("{}", wait(pid));
}

fn seize() {
    let pid = sleeper();
    say!("seize: {}, and nothing happens: {}", ptrace!(SEIZE, pid, 0, TRACE_EXIT), news(pid));
    say!("interrupt: {}, {}", ptrace!(INTERRUPT, pid, 0, 0), wait(pid));
    say!("{}", info(pid));
    say!("detach: {}", ptrace!(DETACH, pid, 0, 0));
    end(pid);
}

fn seize_options_refused() {
    let pid = sleeper();
    say!("with an address: {}", ptrace!(SEIZE, pid, 8, 0));
    for option in [0x100usize, 1 << 22, 1 << 31, 1 << 40] {
        say!("{option:#x}: {}", ptrace!(SEIZE, pid, 0, option));
    }
    end(pid);
}

fn options_refused() {
    let pid = tracee(|| 0);
    for option in [0usize, 0xff, EXITKILL, 0x100, 1 << 22, 1 << 31, 1 << 40] {
        say!("{option:#x}: {}", ptrace!(SETOPTIONS, pid, 0, option));
    }
    say!("by the old number: {}", ptrace!(21, pid, 0, 1));
    end(pid);
}

fn detach() {
    let pid = tracee(|| 3);
    say!("detach: {}", ptrace!(DETACH, pid, 0, 0));
    say!("{}", process::wait(pid));
}

fn detach_with_stop() {
    let pid = tracee(|| 4);
    say!("detach with SIGSTOP: {}", ptrace!(DETACH, pid, 0, SIGSTOP));
    say!("{}", process::wait_for(pid, WUNTRACED));
    say!("its state: {}", process::state(pid));
    kill(pid, SIGCONT);
    say!("{}", process::wait(pid));
}

fn detach_signals() {
    let pid = tracee(idle);
    say!("with SIGTERM: {}, {}", ptrace!(DETACH, pid, 0, SIGTERM), process::wait(pid));
}

fn kill_request() {
    let pid = tracee(idle);
    say!("kill: {}, {}", ptrace!(KILL, pid, 0, 0), wait(pid));
    let pid = tracee(idle);
    ptrace!(CONT, pid, 0, 0).need();
    say!("one that runs: {}, {}", ptrace!(KILL, pid, 0, 0), wait(pid));
}

fn killed_in_a_stop() {
    let pid = tracee(|| 0);
    say!("kill: {}, {}", kill(pid, SIGKILL), wait(pid));
    let pid = tracee(|| 0);
    say!("SIGTERM waits: {}, {}", kill(pid, SIGTERM), news(pid));
    say!("on: {}", resume(CONT, pid, 0));
    end(pid);
}

fn tracer_ends() {
    let gate = Gate::new();
    let pid = child(|| {
        gate.pass();
        5
    });
    say!("the tracer {}", in_child(|| ptrace!(SEIZE, pid, 0, 0).0 as i32));
    gate.open();
    say!("the tracee {}", process::wait(pid));
    let pid = sleeper();
    in_child(|| {
        ptrace!(ATTACH, pid, 0, 0).need();
        wait(pid);
        say!("stopped: {}", process::state(pid));
        0
    });
    process::until_asleep(pid);
    say!("goes on: {}, traced by {}", process::state(pid), status_line(pid, "TracerPid"));
    end(pid);
}

fn tracer_kills() {
    let pid = sleeper();
    say!("the tracer {}", in_child(|| ptrace!(SEIZE, pid, 0, EXITKILL).0 as i32));
    say!("the tracee {}", process::wait(pid));
}

fn other_thread_of_tracer() {
    let pid = tracee(|| 6);
    let thread = std::thread::spawn(move || {
        say!("another thread: {}, {}", ptrace!(CONT, pid, 0, 0), ptrace!(PEEKDATA, pid, 0, 0));
        say!("it may wait: {}", news(pid));
    });
    let _ = thread.join();
    say!("{}", resume(CONT, pid, 0));
    // A thread that traces, and ends: its tracee is free.
    let pid = sleeper();
    let thread = std::thread::spawn(move || {
        say!("attach: {}", ptrace!(ATTACH, pid, 0, 0));
        say!("{}", wait(pid));
    });
    let _ = thread.join();
    // Whoever joins it comes back a little before its end.
    for _ in 0..2000 {
        if status_line(pid, "TracerPid") == "0" {
            break;
        }
        process::sleep_ms(1);
    }
    say!("the thread has ended: {}, traced by {}", ptrace!(CONT, pid, 0, 0), status_line(pid, "TracerPid"));
    end(pid);
}

fn state_shown() {
    let pid = tracee(idle);
    say!(
        "{}, by its tracer: {}",
        status_line(pid, "State"),
        status_line(pid, "TracerPid") == process::pid().to_string()
    );
    say!("parent: {}", status_line(pid, "PPid") == process::pid().to_string());
    ptrace!(CONT, pid, 0, 0).need();
    process::until_asleep(pid);
    say!("{}", status_line(pid, "State"));
    end(pid);
}

fn bad_signals() {
    let pid = tracee(|| 0);
    for request in [CONT, SYSCALL, SINGLESTEP, DETACH] {
        say!(
            "{request}: {}, {}, {}",
            ptrace!(request, pid, 0, 65),
            ptrace!(request, pid, 0, -1),
            ptrace!(request, pid, 0, 1u64 << 32)
        );
    }
    say!("still stopped: {}", resume(CONT, pid, 0));
}

fn bad_pointers() {
    let pid = tracee(|| 0);
    for at in [NOWHERE, KERNEL] {
        say!(
            "message: {}, info: {}, {}",
            ptrace!(GETEVENTMSG, pid, 0, at),
            ptrace!(GETSIGINFO, pid, 0, at),
            ptrace!(SETSIGINFO, pid, 0, at)
        );
        say!("mask: {}, {}", ptrace!(GETSIGMASK, pid, 8, at), ptrace!(SETSIGMASK, pid, 8, at));
        say!("registers: {}, {}", ptrace!(GETREGSET, pid, GENERAL, at), ptrace!(SETREGSET, pid, GENERAL, at));
        say!("word: {}, {}", ptrace!(PEEKDATA, pid, at, 0), ptrace!(POKEDATA, pid, at, 0));
        say!("call: {}, signals: {}", ptrace!(GET_SYSCALL_INFO, pid, 80, at), ptrace!(PEEKSIGINFO, pid, at, 0));
    }
    end(pid);
}

fn trace_me_untraced_parent() {
    let gate = Gate::new();
    // The parent of this one is gone when it asks.
    let middle = child(|| {
        child(|| {
            gate.pass();
            say!("of an orphan: {}", ptrace!(TRACEME, 0, 0, 0));
            gate.open();
            0
        });
        0
    });
    process::wait(middle);
    gate.open();
    process::sleep_ms(50);
    gate.pass();
}

fn zombie_first_to_tracer() {
    let gate = Gate::new();
    let pid = child(|| {
        gate.pass();
        9
    });
    let told = Gate::new();
    let tracer = child(|| {
        ptrace!(SEIZE, pid, 0, 0).need();
        told.open();
        gate.open();
        let mut info: siginfo_t = zeroed();
        sys!(SYS_waitid, P_PID, pid, &mut info, WEXITED | WNOWAIT | WALL, 0).need();
        told.open();
        gate.pass();
        say!("the tracer: {}", wait(pid));
        0
    });
    told.pass();
    told.pass();
    say!("the parent for now: {}", news(pid));
    gate.open();
    process::wait(tracer);
    say!("the parent: {}", process::wait(pid));
}

fn parent_waits_meanwhile() {
    signal::handle(SIGCHLD, signal::count, 0);
    let pid = sleeper();
    let tracer = in_child(|| {
        ptrace!(ATTACH, pid, 0, 0).need();
        wait(pid);
        0
    });
    say!("{tracer}; a stop for the tracer is not the parent's: {}", news(pid));
    end(pid);
    // The end of the tracer and of the child.
    say!("SIGCHLD: {}", signal::caught() > 0);
}

fn dead_attach() {
    let pid = child(|| 0);
    let mut info: siginfo_t = zeroed();
    sys!(SYS_waitid, P_PID, pid, &mut info, WEXITED | WNOWAIT, 0).need();
    say!("{}, {}", ptrace!(ATTACH, pid, 0, 0), ptrace!(SEIZE, pid, 0, 0));
    say!("{}, {}", ptrace!(CONT, pid, 0, 0), ptrace!(KILL, pid, 0, 0));
    say!("{}", process::wait(pid) == Status::Exited(0));
    say!("{}", ptrace!(ATTACH, pid, 0, 0) == Ret(i64::from(-ESRCH)));
}
