//! Process groups and sessions: setpgid(2), setsid(2), kill(2) of groups, orphaned groups.

use std::sync::atomic::Ordering::SeqCst;

use libc::*;

use crate::memory::shared_words;
use crate::process::{
    self, Gate, Status, as_user, child, exit, in_child, kill, pid, sleeper, until_asleep, wait, wait_for,
};
use crate::signal;
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    setpgid_errors, setpgid_of_a_child, setpgid_after_exec, setpgid_of_a_leader, getpgid_and_getsid, setsid_rules,
    inherited, zombie_groups, kill_group, kill_own_group, kill_nobody, kill_permissions_of_a_group,
    orphaned_group_with_a_stop, orphaned_by_setpgid, stop_signals_in_an_orphaned_group, kill_everybody_as_user,
    left_in_the_middle,
}

fn pgid(pid: i32) -> Ret {
    sys!(SYS_getpgid, pid)
}

fn setpgid(pid: i32, group: i32) -> Ret {
    sys!(SYS_setpgid, pid, group)
}

/// A child in a group of its own, which waits for its end.
fn leader() -> i32 {
    let pid = sleeper();
    setpgid(pid, 0);
    pid
}

fn end(pid: i32) -> Status {
    kill(pid, SIGKILL);
    wait(pid)
}

fn setpgid_errors() {
    say!("group below zero: {}", setpgid(0, -1));
    say!("process below zero: {}", setpgid(-1, 0));
    say!("both: {}", setpgid(-1, -1));
    say!("no such process: {}", setpgid(4_000_000, 0));
    say!("init: {}", setpgid(1, 0));
    say!("the parent: {}", setpgid(sys!(SYS_getppid).0 as i32, 0));
    say!("a session's leader: {}", setpgid(0, 0));
    let status = in_child(|| {
        say!("no such group: {}", setpgid(0, 4_000_000));
        say!("a group of another session: {}", setpgid(0, 1));
        say!("its own: {}", setpgid(0, 0));
        say!("again: {}", setpgid(0, 0));
        say!("and by its name: {}", setpgid(pid(), pid()));
        say!("it leads: {}", pgid(0).0 as i32 == pid());
        say!("back to the parent's: {}", setpgid(0, sys!(SYS_getppid).0 as i32));
        say!("it leads: {}", pgid(0).0 as i32 == pid());
        0
    });
    say!("{status}");
}

fn setpgid_of_a_child() {
    let first = sleeper();
    let second = sleeper();
    say!("a child's own group: {}", setpgid(first, first));
    say!("the other joins: {}", setpgid(second, first));
    say!("joined: {}", pgid(second).0 as i32 == first);
    say!("back: {}", setpgid(second, pid()));
    say!("a group that is a process, but no group: {}", setpgid(first, second));
    let status = in_child(|| {
        say!("a sibling: {}", setpgid(first, 0));
        0
    });
    say!("{status}");
    let grandparent = child(|| {
        let grandchild = sleeper();
        say!("grandchild's, by its parent: {}", setpgid(grandchild, 0));
        end(grandchild);
        0
    });
    wait(grandparent);
    end(first);
    say!("a zombie is still moved: {}", {
        kill(second, SIGKILL);
        let mut info: siginfo_t = crate::sys::zeroed();
        sys!(SYS_waitid, P_PID, second, &mut info, WEXITED | WNOWAIT, 0);
        setpgid(second, 0)
    });
    wait(second);
    say!("when it has been waited for: {}", setpgid(second, 0));
}

fn setpgid_after_exec() {
    let path = c"/bin/sleep";
    let pid = child(|| {
        let argv = [c"sleep".as_ptr(), c"1000".as_ptr(), std::ptr::null()];
        sys!(SYS_execve, path, &argv, 0);
        1
    });
    for _ in 0..2000 {
        if std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim() == "sleep" {
            break;
        }
        process::sleep_ms(2);
    }
    say!("a child after its execve: {}", setpgid(pid, pid));
    say!("even to the group it is in: {}", setpgid(pid, sys!(SYS_getpgid, 0).0 as i32));
    say!("{}", end(pid));
}

fn setpgid_of_a_leader() {
    let gate = Gate::new();
    let ready = Gate::new();
    let pid = child(|| {
        sys!(SYS_setsid);
        ready.open();
        gate.pass();
        0
    });
    ready.pass();
    say!("a child that leads a session: {}", setpgid(pid, 0));
    say!("into its parent's group: {}", setpgid(pid, sys!(SYS_getpgid, 0).0 as i32));
    gate.open();
    say!("{}", wait(pid));
}

fn getpgid_and_getsid() {
    say!("own group, both ways: {}", pgid(0) == pgid(pid()));
    say!("a session's leader leads a group: {}", pgid(0).0 as i32 == pid());
    say!("own session: {}", sys!(SYS_getsid, 0).0 as i32 == pid());
    say!("nobody's group: {}", pgid(4_000_000));
    say!("nobody's session: {}", sys!(SYS_getsid, 4_000_000));
    say!("below zero: {} {}", pgid(-1), sys!(SYS_getsid, -1));
    say!("init's can be seen: {} {}", pgid(1), sys!(SYS_getsid, 1));
    as_user(1000, || {
        say!("by a user too: {} {}", pgid(1), sys!(SYS_getsid, 1));
        0
    });
    let zombie = child(|| 0);
    let mut info: siginfo_t = crate::sys::zeroed();
    sys!(SYS_waitid, P_PID, zombie, &mut info, WEXITED | WNOWAIT, 0);
    say!("a zombie's: {} {}", pgid(zombie) == pgid(0), sys!(SYS_getsid, zombie) == sys!(SYS_getsid, 0));
    wait(zombie);
    say!("gone: {} {}", pgid(zombie), sys!(SYS_getsid, zombie));
}

fn setsid_rules() {
    say!("by a leader: {}", sys!(SYS_setsid));
    in_child(|| {
        let parent = sys!(SYS_getppid).0;
        say!("the parent's session: {}", sys!(SYS_getsid, 0).0 == parent);
        say!("a new one: {}", sys!(SYS_setsid).0 as i32 == pid());
        say!("session and group: {} {}", sys!(SYS_getsid, 0).0 as i32 == pid(), pgid(0).0 as i32 == pid());
        say!("again: {}", sys!(SYS_setsid));
        say!("joining the old group: {}", setpgid(0, parent as i32));
        0
    });
    in_child(|| {
        setpgid(0, 0);
        say!("by a group's leader: {}", sys!(SYS_setsid));
        0
    });
    in_child(|| {
        // The group that carries this process's id lives on in the child.
        setpgid(0, 0);
        let member = sleeper();
        setpgid(0, sys!(SYS_getppid).0 as i32);
        say!("who led a group that has members: {}", sys!(SYS_setsid));
        end(member);
        say!("and has none: {}", sys!(SYS_setsid).ok_or_error());
        0
    });
}

fn inherited() {
    in_child(|| {
        setpgid(0, 0);
        let own = pid();
        in_child(|| {
            say!("a child has its parent's group: {}", pgid(0).0 as i32 == own);
            say!("and session: {}", sys!(SYS_getsid, 0).0 as i32 != own);
            0
        });
        0
    });
}

fn zombie_groups() {
    let zombie = child(|| 0);
    let mut info: siginfo_t = crate::sys::zeroed();
    setpgid(zombie, 0);
    sys!(SYS_waitid, P_PID, zombie, &mut info, WEXITED | WNOWAIT, 0);
    setpgid(zombie, 0);
    say!("a zombie alone in its group gets signals: {}", kill(-zombie, 0));
    say!("SIGKILL: {}", kill(-zombie, SIGKILL));
    let member = sleeper();
    say!("somebody joins: {}", setpgid(member, zombie));
    wait(zombie);
    say!("its leader is gone, the group is there: {}", kill(-zombie, 0));
    say!("its id: {}", pgid(member).0 as i32 == zombie);
    let other = sleeper();
    say!("somebody else joins: {}", setpgid(other, zombie));
    end(member);
    say!("still there: {}", kill(-zombie, 0));
    end(other);
    say!("no more: {}", kill(-zombie, 0));
}

fn kill_group() {
    let one = leader();
    let two = sleeper();
    let three = sleeper();
    setpgid(two, one);
    say!("two in a group: {}", kill(-one, SIGTERM));
    say!("{}, {}", wait(one), wait(two));
    say!("not the third: {:?}", process::try_wait(three).map(|status| status.to_string()));
    say!("an empty group: {}", kill(-one, SIGTERM));
    say!("a process that leads no group: {}", kill(-three, SIGTERM));
    say!("a bad signal to a group: {}", kill(-three, 65));
    setpgid(three, 0);
    say!("now: {} {} {}", kill(-three, 65), kill(-three, -1), kill(-three, 64));
    say!("{}", wait(three));
    say!("the most negative process: {}", kill(i32::MIN, 0));
}

fn kill_own_group() {
    let words = shared_words();
    let parent = child(|| {
        setpgid(0, 0);
        signal::handle(SIGUSR1, signal::count, 0);
        let gate = Gate::new();
        let inner = child(|| {
            let before = signal::block(SIGUSR1);
            gate.open();
            let (taken, info) = signal::take(signal::bit(SIGUSR1), 10_000);
            // SAFETY: the field of a signal that was sent.
            let sender = unsafe { info.si_pid() };
            words[0].store(taken.0 as u32, SeqCst);
            words[1].store(u32::from(sender == sys!(SYS_getppid).0 as i32), SeqCst);
            signal::mask(SIG_SETMASK, before);
            0
        });
        gate.pass();
        say!("kill(0): {}", kill(0, SIGUSR1));
        say!("handled before it returns: {}", signal::caught());
        say!("the child: {}", wait(inner));
        0
    });
    say!("{}", wait(parent));
    say!("the child took {} from its parent: {}", words[0].load(SeqCst), words[1].load(SeqCst));
    say!("this process, of another group, has none: {}", signal::names(signal::pending()));
    in_child(|| {
        setpgid(0, 0);
        say!("kill(0) with a bad signal: {}", kill(0, 65));
        say!("kill(0, 0): {}", kill(0, 0));
        0
    });
}

fn kill_nobody() {
    say!("no such process: {}", kill(4_000_000, 0));
    say!("and no such signal: {}", kill(4_000_000, 99));
    say!("own process, no such signal: {} {} {}", kill(pid(), 65), kill(pid(), -1), kill(pid(), i32::MAX));
    say!("own process, none: {}", kill(pid(), 0));
    let zombie = child(|| 0);
    let mut info: siginfo_t = crate::sys::zeroed();
    sys!(SYS_waitid, P_PID, zombie, &mut info, WEXITED | WNOWAIT, 0);
    say!("a zombie: {} {}", kill(zombie, 0), kill(zombie, SIGKILL));
    wait(zombie);
    say!("waited for: {}", kill(zombie, 0));
    as_user(1000, || {
        say!("init, as a user: {}", kill(1, 0));
        say!("a bad signal to init: {}", kill(1, 99));
        0
    });
}

fn kill_permissions_of_a_group() {
    let roots = leader();
    let users = child(|| {
        process::become_user(1000);
        loop {
            process::sleep_ms(100_000);
        }
    });
    until_asleep(users);
    as_user(1000, || {
        say!("a group of root's: {}", kill(-roots, SIGTERM));
        0
    });
    setpgid(users, roots);
    as_user(1000, || {
        say!("a group with one process of one's own: {}", kill(-roots, SIGTERM));
        0
    });
    say!("it: {}", wait(users));
    say!("root's: {:?}", process::try_wait(roots).map(|status| status.to_string()));
    end(roots);
    as_user(1000, || {
        say!("a group that is not there: {}", kill(-roots, SIGTERM));
        0
    });
}

/// What a process of an orphaned group has got, by the bits of its answer: 1 SIGHUP, 2 SIGCONT.
extern "C" fn note(signal: i32, _: *const siginfo_t, _: *mut c_void) {
    signal::CAUGHT.fetch_or(if signal == SIGHUP { 1 } else { 2 }, SeqCst);
}

fn orphaned_group_with_a_stop() {
    let words = shared_words();
    let gate = Gate::new();
    let done = Gate::new();
    let parent = child(|| {
        let pid = child(|| {
            setpgid(0, 0);
            signal::handle(SIGHUP, note, 0);
            signal::handle(SIGCONT, note, 0);
            signal::kill_self(SIGSTOP);
            words[0].store(signal::caught() as u32, SeqCst);
            done.open();
            0
        });
        say!("its child: {}", wait_for(pid, WUNTRACED));
        let other = child(|| {
            setpgid(0, pid);
            signal::handle(SIGHUP, note, 0);
            signal::handle(SIGCONT, note, 0);
            gate.open();
            while signal::CAUGHT.load(SeqCst) != 3 {
                process::sleep_ms(2);
            }
            done.open();
            0
        });
        gate.pass();
        let _ = other;
        0
    });
    say!("the parent that held the group in the session: {}", wait(parent));
    done.pass();
    done.pass();
    say!("what the stopped one got: {}", words[0].load(SeqCst));
}

fn orphaned_by_setpgid() {
    // Nobody is stopped: an orphaned group gets nothing.
    let words = shared_words();
    let gate = Gate::new();
    let done = Gate::new();
    let parent = child(|| {
        child(|| {
            setpgid(0, 0);
            signal::handle(SIGHUP, note, 0);
            signal::handle(SIGCONT, note, 0);
            gate.open();
            while sys!(SYS_getppid).0 as u32 == words[1].load(SeqCst) {
                process::sleep_ms(2);
            }
            process::sleep_ms(20);
            words[0].store(signal::caught() as u32, SeqCst);
            done.open();
            0
        });
        words[1].store(pid() as u32, SeqCst);
        gate.pass();
        0
    });
    say!("{}", wait(parent));
    done.pass();
    say!("without a stop: {}", words[0].load(SeqCst));
}

fn stop_signals_in_an_orphaned_group() {
    let status = in_child(|| {
        sys!(SYS_setsid);
        // This session has only this group, whose parent is elsewhere: orphaned.
        for signal in [SIGTSTP, SIGTTIN, SIGTTOU] {
            say!("{}: {}", signal::name(signal), signal::kill_self(signal));
        }
        say!("on it goes");
        let stopped = child(|| {
            signal::kill_self(SIGSTOP);
            7
        });
        say!("SIGSTOP: {}", wait_for(stopped, WUNTRACED));
        kill(stopped, SIGCONT);
        say!("{}", wait(stopped));
        exit(3)
    });
    say!("{status}");
}

fn kill_everybody_as_user() {
    let gate = Gate::new();
    let friend = child(|| {
        process::become_user(54_321);
        gate.open();
        loop {
            process::sleep_ms(100_000);
        }
    });
    gate.pass();
    let status = as_user(54_322, || {
        say!("nobody that may be signalled: {}", kill(-1, 0));
        say!("SIGKILL: {}", kill(-1, SIGKILL));
        say!("bad signal: {}", kill(-1, 65));
        0
    });
    say!("{status}");
    let status = as_user(54_321, || {
        say!("one that may be: {}", kill(-1, SIGTERM));
        say!("not the caller itself");
        0
    });
    say!("{status}");
    say!("the other: {}", wait(friend));
}

/// Members leave as soon as one of them has been signalled: the others have been, too, or are before they are gone.
fn left_in_the_middle() {
    const MEMBERS: usize = 12;
    let (mut left, mut signalled) = (0, 0);
    for round in 0..10 {
        let words = shared_words();
        let status = in_child(|| {
            setpgid(0, 0);
            signal::handle(SIGUSR1, signal::count, 0);
            let members: Vec<i32> = (0..MEMBERS)
                .map(|_| {
                    child(|| {
                        words[0].fetch_add(1, SeqCst);
                        while words[1].load(SeqCst) == 0 {
                            words[1].fetch_max(signal::CAUGHT.load(SeqCst) as u32, SeqCst);
                        }
                        let gone = if round % 2 == 0 { setpgid(0, 0) } else { sys!(SYS_setsid) };
                        words[2].fetch_add(u32::from(gone.ok()), SeqCst);
                        signal::caught()
                    })
                })
                .collect();
            while words[0].load(SeqCst) < MEMBERS as u32 {
                process::sleep_ms(1);
            }
            kill(0, SIGUSR1);
            members.into_iter().filter(|member| wait(*member).to_string() == "exited with 1").count() as i32
        });
        left += words[2].load(SeqCst);
        signalled += usize::from(status.to_string() == format!("exited with {MEMBERS}"));
    }
    say!("left: {left}; rounds in which each had the signal: {signalled}");
}
