//! Who may signal whom, and what reaches everybody (kill(2)).

use std::ptr::null_mut;
use std::sync::atomic::Ordering::SeqCst;

use libc::*;

use crate::process::{self, Gate, child, clone_here, in_child, kill, until_asleep, wait};
use crate::signal;
use crate::sys::{Ret, sys, zeroed};
use crate::tracing::idle;
use crate::{say, tests};

tests! {
    permissions, continue_in_the_session, init_is_protected, signals_of_a_group_leader, groups_that_fork,
    groups_that_fork_with_few_ids,
}

fn permissions() {
    let gate = Gate::new();
    let run = |name: &str, target: fn(), sender: fn()| {
        let victim = child(|| {
            sys!(SYS_setsid);
            target();
            gate.open();
            loop {
                process::sleep_ms(100_000);
            }
        });
        gate.pass();
        let status = in_child(|| {
            sender();
            let all = [0, SIGTERM, SIGCONT]
                .map(|signal| if signal == SIGTERM { kill(victim, 0) } else { kill(victim, signal) });
            let queued = {
                let mut info: siginfo_t = zeroed();
                info.si_code = SI_QUEUE;
                sys!(SYS_rt_sigqueueinfo, victim, 0, &info)
            };
            say!("{name}: {} {}, tgkill {}, sigqueue {queued}", all[0], all[2], sys!(SYS_tgkill, victim, victim, 0));
            0
        });
        let _ = status;
        kill(victim, SIGKILL);
        wait(victim);
    };
    fn ids(real: u32, effective: u32, saved: u32) {
        sys!(SYS_setresuid, real, effective, saved);
    }
    run("root to root", || {}, || {});
    run("root to a user", || ids(1000, 1000, 1000), || {});
    run("a user to root", || {}, || ids(1000, 1000, 1000));
    run("a user to itself", || ids(1000, 1000, 1000), || ids(1000, 1000, 1000));
    run("a user to another", || ids(2000, 2000, 2000), || ids(1000, 1000, 1000));
    run("to one whose effective id it is", || ids(2000, 1000, 2000), || ids(1000, 1000, 1000));
    run("to one whose saved id it is", || ids(2000, 2000, 1000), || ids(1000, 1000, 1000));
    run("to one whose real id it is", || ids(1000, 2000, 2000), || ids(1000, 1000, 1000));
    run("by the effective id alone", || ids(1000, 1000, 1000), || ids(2000, 1000, 2000));
    run("by the real id alone", || ids(1000, 1000, 1000), || ids(1000, 2000, 2000));
    run("by the saved id alone", || ids(1000, 1000, 1000), || ids(2000, 2000, 1000));
}

fn continue_in_the_session() {
    let pid = child(|| {
        process::become_user(2000);
        loop {
            process::sleep_ms(100_000);
        }
    });
    until_asleep(pid);
    process::as_user(1000, || {
        say!("another user's process of the session: {}", kill(pid, 0));
        say!("SIGCONT: {}", kill(pid, SIGCONT));
        say!("SIGTERM: {}", kill(pid, SIGTERM));
        say!("SIGCONT to the group: {}", kill(0, SIGCONT));
        sys!(SYS_setsid);
        say!("SIGCONT from another session: {}", kill(pid, SIGCONT));
        0
    });
    kill(pid, SIGKILL);
    wait(pid);
}

fn init_is_protected() {
    say!("signal 0: {}", kill(1, 0));
    say!("SIGKILL: {}", kill(1, SIGKILL));
    say!("SIGSTOP: {}", kill(1, SIGSTOP));
    say!("SIGSEGV: {}", kill(1, SIGSEGV));
    say!("a real-time one: {}", kill(1, 64));
    process::sleep_ms(20);
    say!("it lives: {}", kill(1, 0));
    say!("it is not stopped: {}", process::state(1) != 'T');
}

fn signals_of_a_group_leader() {
    // A session's leader that ends takes nobody along when it has no terminal.
    let words = crate::memory::shared_words();
    let gate = Gate::new();
    let leader = child(|| {
        sys!(SYS_setsid);
        words[0].store(
            child(|| {
                gate.open();
                loop {
                    process::sleep_ms(100_000);
                }
            }) as u32,
            SeqCst,
        );
        gate.pass();
        0
    });
    say!("{}", wait(leader));
    let member = words[0].load(SeqCst) as i32;
    process::sleep_ms(10);
    say!("its member lives: {}", kill(member, 0));
    kill(member, SIGKILL);
}

extern "C" fn end_well(_: i32, _: *const siginfo_t, _: *mut c_void) {
    process::exit(0)
}

/// A child as the kernel makes it: a library's fork holds signals back meanwhile, which then come too late for the child.
fn bare_child(body: impl FnOnce() -> i32) {
    if clone_here(SIGCHLD, null_mut(), null_mut()).need() == 0 {
        process::exit(body());
    }
}

/// Processes of one group make children all the time, and the group gets a signal that ends each of them. Answers whether all
/// of them are gone then.
fn ends_a_group_that_forks(number: i32, delay: i64) -> bool {
    let forks = || {
        for _ in 0..25 {
            bare_child(idle);
        }
        idle()
    };
    let leader = child(|| {
        sys!(SYS_setsid);
        signal::handle(SIGUSR1, end_well, 0);
        (0..3).for_each(|_| bare_child(forks));
        idle()
    });
    process::sleep_ms(delay);
    let sent = (0..1000).any(|_| {
        process::sleep_ms(1);
        kill(-leader, number).ok()
    });
    for _ in 0..2000 {
        match sys!(SYS_wait4, -1, 0, WNOHANG, 0) {
            Ret(0) => process::sleep_ms(1),
            Ret(1..) => {}
            _ => return sent,
        }
    }
    kill(-leader, SIGKILL);
    false
}

fn groups_that_fork() {
    // The group's orphans are to be waited for here.
    sys!(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0).need();
    for number in [SIGKILL, SIGUSR1] {
        let all = (0..10).all(|round| ends_a_group_that_forks(number, round));
        say!("{}: nobody is left: {all}", signal::name(number));
    }
}

/// Children have smaller ids than their parents now and then.
fn groups_that_fork_with_few_ids() {
    const MAX: &str = "/proc/sys/kernel/pid_max";
    let before = std::fs::read_to_string(MAX).unwrap_or_default();
    say!("few ids: {}", std::fs::write(MAX, "700").is_ok());
    groups_that_fork();
    say!("as before: {}", std::fs::write(MAX, before.trim()).is_ok());
}
