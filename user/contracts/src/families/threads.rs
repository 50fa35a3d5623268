//! Threads of a process: what each has for itself, how they end, signals to one of them.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};

use libc::*;

use crate::file::{self, open};
use crate::memory::{pages, shared_words};
use crate::process::{self, Gate, child, in_child, kill, pid, sleeping_thread, tid, until_asleep, wait, wait_for};
use crate::signal;
use crate::sys::{KERNEL, NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    exit_of_one, exit_of_all, exit_of_all_while_they_wait, fatal_signal, tgkill_rules, tkill_rules, signals_of_a_thread,
    signals_of_the_process, who_takes_a_signal, own_attributes, shared_attributes, own_ids, names, stop_all,
    fork_in_a_thread, clear_tid, listed, leader_goes_first, sigqueue_to_a_thread, many,
}

/// Sleeps until a signal comes, and says what pause answers.
fn pause() -> Ret {
    sys!(SYS_ppoll, 0, 0, 0, 0, 8)
}

fn threads_of(process: i32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/task")).map_or(0, Iterator::count)
}

fn exit_of_one() {
    let status = in_child(|| {
        let word: &'static AtomicU32 = &shared_words()[0];
        let (id, _) = sleeping_thread(move || {
            sys!(SYS_futex, word.as_ptr(), FUTEX_WAIT, 0, 0);
            sys!(SYS_exit, 9)
        });
        say!("threads: {}", threads_of(pid()));
        sys!(SYS_futex, word.as_ptr(), FUTEX_WAKE, 1);
        while process::state(id) != '-' {
            process::sleep_ms(1);
        }
        say!("threads: {}", threads_of(pid()));
        say!("a signal to it: {}", sys!(SYS_tgkill, pid(), id, 0));
        say!("it cannot be waited for: {}", sys!(SYS_wait4, id, 0, __WALL, 0));
        3
    });
    say!("its status is not the process's: {status}");
}

fn exit_of_all() {
    let pid = child(|| {
        sleeping_thread(|| process::sleep_ms(100_000));
        std::thread::spawn(|| process::exit(6));
        loop {
            process::sleep_ms(100_000);
        }
    });
    say!("exit_group in a thread: {}", wait(pid));
    let pid = child(|| {
        let looping = std::thread::spawn(|| {
            loop {
                std::hint::black_box(0);
            }
        });
        let _ = looping;
        7
    });
    say!("with a thread that never calls the kernel: {}", wait(pid));
}

fn exit_of_all_while_they_wait() {
    let pid = child(|| {
        let pipe = file::pipe();
        sleeping_thread(move || file::read(pipe[0], 1));
        sleeping_thread(|| sys!(SYS_futex, shared_words()[0].as_ptr(), FUTEX_WAIT, 0, 0));
        sleeping_thread(|| sys!(SYS_rt_sigsuspend, &u64::MAX, 8));
        sleeping_thread(|| {
            let waiting = child(|| {
                loop {
                    process::sleep_ms(100_000);
                }
            });
            wait(waiting)
        });
        8
    });
    say!("{}", wait(pid));
}

fn fatal_signal() {
    let victim = child(|| {
        sleeping_thread(|| process::sleep_ms(100_000));
        sys!(SYS_exit, 0);
        0
    });
    while process::state(victim) != 'Z' {
        process::sleep_ms(1);
    }
    say!("to a process whose leader has gone: {}", kill(victim, SIGTERM));
    say!("{}", wait(victim));
    let victim = child(|| {
        signal::default(SIGSEGV);
        sys!(SYS_sigaltstack, &stack_t { ss_sp: std::ptr::null_mut(), ss_flags: SS_DISABLE, ss_size: 0 }, 0);
        std::thread::spawn(|| crate::memory::peek(8 as *const u8));
        loop {
            process::sleep_ms(100_000);
        }
    });
    say!("a fault in a thread: {}", wait(victim));
    let victim = child(|| {
        let (id, _) = sleeping_thread(|| process::sleep_ms(100_000));
        sys!(SYS_tgkill, pid(), id, SIGTERM);
        loop {
            process::sleep_ms(100_000);
        }
    });
    say!("a signal to a thread: {}", wait(victim));
}

fn tgkill_rules() {
    let call = |group: i32, thread: i32, signal: i32| sys!(SYS_tgkill, group, thread, signal);
    say!("oneself: {}", call(pid(), tid(), 0));
    say!("group 0: {}", call(0, tid(), 0));
    say!("group -1: {}", call(-1, tid(), 0));
    say!("thread 0: {}", call(pid(), 0, 0));
    say!("thread -1: {}", call(pid(), -1, 0));
    say!("nobody: {}", call(pid(), 4_000_000, 0));
    say!("a thread of another group: {}", call(pid(), 1, 0));
    say!("another group: {}", call(1, tid(), 0));
    say!("bad signal: {} {}", call(pid(), tid(), 65), call(pid(), tid(), -1));
    say!("bad signal to nobody: {}", call(pid(), 4_000_000, 65));
    process::as_user(1000, || {
        say!("init, by a user: {}", call(1, 1, 0));
        say!("init with a bad signal: {}", call(1, 1, 65));
        0
    });
    let zombie = child(|| 0);
    let mut info: siginfo_t = zeroed();
    sys!(SYS_waitid, P_PID, zombie, &mut info, WEXITED | WNOWAIT, 0);
    say!("a zombie: {}", call(zombie, zombie, 0));
    say!("SIGTERM: {}", call(zombie, zombie, SIGTERM));
    wait(zombie);
    say!("gone: {}", call(zombie, zombie, 0));
}

fn tkill_rules() {
    let call = |thread: i32, signal: i32| sys!(SYS_tkill, thread, signal);
    say!("oneself: {}", call(tid(), 0));
    say!("0: {}", call(0, 0));
    say!("-1: {}", call(-1, 0));
    say!("nobody: {}", call(4_000_000, 0));
    say!("bad signal: {} {}", call(tid(), 65), call(tid(), -1));
    signal::block(SIGUSR1);
    say!("blocked: {}", call(tid(), SIGUSR1));
    let (ret, info) = signal::take(signal::bit(SIGUSR1), 1000);
    // SAFETY: the fields of a signal that was sent.
    let (sender, user) = unsafe { (info.si_pid(), info.si_uid()) };
    say!("taken: {ret}, code {}, own: {}, user {user}", info.si_code, sender == pid());
}

fn signals_of_a_thread() {
    signal::block(SIGUSR1);
    let (id, thread) = sleeping_thread(|| {
        let woken = pause_blocked();
        (woken, signal::names(signal::pending()))
    });
    sys!(SYS_tgkill, pid(), id, SIGUSR1);
    say!("pending for the other: {}", signal::names(signal::pending()));
    say!("taken here: {}", signal::take(signal::bit(SIGUSR1), 20).0);
    WAKE.store(1, SeqCst);
    sys!(SYS_futex, WAKE.as_ptr(), FUTEX_WAKE, 1);
    let (woken, pending) = thread.join().unwrap_or_default();
    say!("there: {woken}, pending {pending}");
}

static WAKE: AtomicU32 = AtomicU32::new(0);

fn pause_blocked() -> String {
    sys!(SYS_futex, WAKE.as_ptr(), FUTEX_WAIT, 0, 0).to_string()
}

fn signals_of_the_process() {
    signal::block(SIGUSR1);
    let (_, thread) = sleeping_thread(|| {
        pause_blocked();
        let pending = signal::names(signal::pending());
        (pending, signal::take(signal::bit(SIGUSR1), 1000).0)
    });
    kill(pid(), SIGUSR1);
    say!("pending here: {}", signal::names(signal::pending()));
    WAKE.store(1, SeqCst);
    sys!(SYS_futex, WAKE.as_ptr(), FUTEX_WAKE, 1);
    let (pending, taken) = thread.join().unwrap_or((String::new(), Ret(-1)));
    say!("there: {pending}, taken there: {taken}");
    say!("pending here: {}", signal::names(signal::pending()));
}

static RAN_IN: AtomicI32 = AtomicI32::new(0);

extern "C" fn note_thread(_: i32, _: *const siginfo_t, _: *mut c_void) {
    RAN_IN.store(sys!(SYS_gettid).0 as i32, SeqCst);
}

fn who_takes_a_signal() {
    signal::handle(SIGUSR1, note_thread, 0);
    let (id, thread) = sleeping_thread(pause);
    signal::block(SIGUSR1);
    kill(pid(), SIGUSR1);
    say!("the one that does not block it: {}", thread.join().unwrap_or(Ret(0)));
    say!("it ran there: {}", RAN_IN.load(SeqCst) == id);
    let (id, thread) = sleeping_thread(|| {
        let before = signal::mask(SIG_BLOCK, 0);
        (signal::names(before), pause())
    });
    kill(pid(), SIGUSR1);
    say!("all block it: {}", signal::names(signal::pending()));
    sys!(SYS_tgkill, pid(), id, SIGUSR1);
    say!("pending for the process, and for the thread");
    signal::unblock(SIGUSR1);
    say!("unblocked here, it ran here: {}", RAN_IN.load(SeqCst) == tid());
    say!("the other still sleeps: {}", process::state(id));
    signal::handle(SIGUSR2, note_thread, 0);
    sys!(SYS_tgkill, pid(), id, SIGUSR2);
    let (blocked, woken) = thread.join().unwrap_or((String::new(), Ret(0)));
    say!("blocked there: {blocked}, woken by another: {woken}, it ran there: {}", RAN_IN.load(SeqCst) == id);
}

fn own_attributes() {
    let thread = std::thread::spawn(|| {
        signal::block(SIGUSR1);
        sys!(SYS_setpriority, PRIO_PROCESS, 0, 5);
        sys!(SYS_sched_setaffinity, 0, 8, &1u64);
        let stack = stack_t { ss_sp: pages(4).cast(), ss_flags: 0, ss_size: 16384 };
        sys!(SYS_sigaltstack, &stack, 0);
        sys!(SYS_prctl, PR_SET_PDEATHSIG, SIGUSR2, 0, 0, 0);
        sys!(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        sys!(SYS_personality, 0x004_0000);
    });
    let mut before: stack_t = zeroed();
    sys!(SYS_sigaltstack, 0, &mut before);
    let mut cpus = [0u64; 2];
    sys!(SYS_sched_getaffinity, 0, 8, &mut cpus);
    let _ = thread.join();
    say!("mask: {}", signal::names(signal::mask(SIG_BLOCK, 0)));
    say!("nice: {}", 20 - sys!(SYS_getpriority, PRIO_PROCESS, 0).0);
    let mut now = [0u64; 2];
    sys!(SYS_sched_getaffinity, 0, 8, &mut now);
    say!("affinity is as it was: {}", now == cpus);
    let mut stack: stack_t = zeroed();
    sys!(SYS_sigaltstack, 0, &mut stack);
    say!("alternate stack is as it was: {}", stack.ss_sp == before.ss_sp && stack.ss_flags == before.ss_flags);
    let mut number = 9i32;
    sys!(SYS_prctl, PR_GET_PDEATHSIG, &mut number, 0, 0, 0);
    say!("signal at the parent's death: {number}");
    say!("no new privileges: {}", sys!(SYS_prctl, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    say!("personality: {:#x}", sys!(SYS_personality, 0xffff_ffff_u32).0);
}

fn shared_attributes() {
    sys!(SYS_mkdirat, AT_FDCWD, c"d", 0o755);
    let thread = std::thread::spawn(|| {
        sys!(SYS_umask, 0o77);
        sys!(SYS_chdir, c"d");
        signal::handle(SIGUSR1, signal::count, 0);
        sys!(SYS_dup3, 1, 50, 0);
        let limit = rlimit { rlim_cur: 99, rlim_max: 100 };
        sys!(SYS_setrlimit, RLIMIT_NOFILE, &limit);
        let mut interval: itimerval = zeroed();
        interval.it_value.tv_sec = 1000;
        sys!(SYS_setitimer, ITIMER_REAL, &interval, 0);
        sys!(SYS_setpgid, 0, 0);
        let mut timer = 0i32;
        let mut event: sigevent = zeroed();
        event.sigev_notify = SIGEV_NONE;
        sys!(SYS_timer_create, CLOCK_MONOTONIC, &mut event, &mut timer);
        sys!(SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        sys!(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
        timer
    });
    let timer = thread.join().unwrap_or(-1);
    say!("umask: {:o}", sys!(SYS_umask, 0o22).0);
    let mut path = [0u8; 64];
    let length = sys!(SYS_getcwd, &mut path, 64).need() as usize;
    say!("directory: {}", String::from_utf8_lossy(&path[..length - 1]));
    signal::kill_self(SIGUSR1);
    say!("handlers: {}", signal::caught());
    say!("descriptors: {}", sys!(SYS_fcntl, 50, F_GETFD, 0));
    let mut limit: rlimit = zeroed();
    sys!(SYS_getrlimit, RLIMIT_NOFILE, &mut limit);
    say!("limits: {} {}", limit.rlim_cur, limit.rlim_max);
    let mut interval: itimerval = zeroed();
    sys!(SYS_getitimer, ITIMER_REAL, &mut interval);
    say!("interval timers: {}", interval.it_value.tv_sec > 900);
    let mut setting: itimerspec = zeroed();
    say!("timers: {}", sys!(SYS_timer_gettime, timer, &mut setting));
    let mut number = 9i32;
    sys!(SYS_prctl, PR_GET_CHILD_SUBREAPER, &mut number, 0, 0, 0);
    say!("subreaper: {number}");
    say!("dumpable: {}", sys!(SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0));
}

fn own_ids() {
    let thread = std::thread::spawn(|| {
        sys!(SYS_setresgid, 1000, 1000, 1000);
        sys!(SYS_setresuid, 1000, 1000, 1000);
        say!("the thread: {} {}", sys!(SYS_getuid), sys!(SYS_getgid));
        say!("kill by it of its own process: {}", kill(pid(), 0));
        say!("tgkill of the leader: {}", sys!(SYS_tgkill, pid(), pid(), 0));
        say!("kill of the parent: {}", kill(sys!(SYS_getppid).0 as i32, 0));
    });
    let _ = thread.join();
    say!("the process: {} {}", sys!(SYS_getuid), sys!(SYS_getgid));
}

fn names() {
    let named = |id: i32| std::fs::read_to_string(format!("/proc/self/task/{id}/comm")).unwrap_or_default();
    sys!(SYS_prctl, PR_SET_NAME, c"leader", 0, 0, 0);
    let (id, thread) = sleeping_thread(|| {
        sys!(SYS_prctl, PR_SET_NAME, c"other", 0, 0, 0);
        pause_blocked();
        let mut name = [0u8; 16];
        sys!(SYS_prctl, PR_GET_NAME, &mut name, 0, 0, 0);
        String::from_utf8_lossy(&name).trim_end_matches('\0').to_string()
    });
    say!("each its own: {:?} {:?}", named(tid()), named(id));
    say!("the process's: {:?}", std::fs::read_to_string("/proc/self/comm").unwrap_or_default());
    say!("written by another thread: {:?}", std::fs::write(format!("/proc/self/task/{id}/comm"), "given"));
    WAKE.store(1, SeqCst);
    sys!(SYS_futex, WAKE.as_ptr(), FUTEX_WAKE, 1);
    say!("its own word: {}", thread.join().unwrap_or_default());
    let (id, _) = sleeping_thread(|| process::sleep_ms(100_000));
    say!("a new thread has its maker's: {:?}", named(id));
}

fn stop_all() {
    let words = shared_words();
    let stopped = child(|| {
        std::thread::spawn(|| {
            loop {
                words[0].fetch_add(1, SeqCst);
            }
        });
        let (id, _) = sleeping_thread(|| process::sleep_ms(100_000));
        words[1].store(id as u32, SeqCst);
        loop {
            process::sleep_ms(100_000);
        }
    });
    while words[1].load(SeqCst) == 0 {
        process::sleep_ms(1);
    }
    kill(stopped, SIGSTOP);
    say!("{}", wait_for(stopped, WUNTRACED));
    let count = words[0].load(SeqCst);
    process::sleep_ms(20);
    say!("nobody goes on: {}", words[0].load(SeqCst) == count);
    let state = |id: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{stopped}/task/{id}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('-')
    };
    say!("states: {} {}", process::state(stopped), state(words[1].load(SeqCst)));
    kill(stopped, SIGCONT);
    say!("{}", wait_for(stopped, WCONTINUED));
    while words[0].load(SeqCst) == count {
        process::sleep_ms(1);
    }
    say!("they go on");
    kill(stopped, SIGKILL);
    say!("{}", wait(stopped));
}

fn fork_in_a_thread() {
    let thread = std::thread::spawn(|| {
        in_child(|| {
            say!("a thread's child has one: {}", threads_of(pid()));
            say!("it leads: {}", pid() == tid());
            say!("its parent: {}", sys!(SYS_getppid).0 == sys!(SYS_getpgid, 0).0);
            4
        })
    });
    say!("{}", thread.join().map_or_else(|_| String::new(), |status| status.to_string()));
}

fn clear_tid() {
    let word: &'static AtomicU32 = &shared_words()[0];
    word.store(7, SeqCst);
    let (id, thread) = sleeping_thread(move || {
        let answer = sys!(SYS_set_tid_address, word.as_ptr());
        let mut place = 0usize;
        let asked = sys!(SYS_prctl, PR_GET_TID_ADDRESS, &mut place, 0, 0, 0);
        say!(
            "PR_GET_TID_ADDRESS: {} {}",
            asked.errno() == EINVAL || asked.ok(),
            place == 0 || place == word.as_ptr() as usize
        );
        pause_blocked();
        let answers = (answer.0 as i32 == tid(), 0);
        // Without the library's own word it could not be joined.
        say!("set_tid_address: {}", answers.0);
        sys!(SYS_exit, 0);
    });
    let _ = (id, thread);
    WAKE.store(1, SeqCst);
    sys!(SYS_futex, WAKE.as_ptr(), FUTEX_WAKE, 1);
    let limit = timespec { tv_sec: 10, tv_nsec: 0 };
    let woken = sys!(SYS_futex, word.as_ptr(), FUTEX_WAIT, 7, &limit);
    say!("woken, or too late: {}", woken.ok() || woken.errno() == EAGAIN);
    say!("the word: {}", word.load(SeqCst));
    for bad in [NOWHERE, KERNEL] {
        let status = in_child(|| {
            sys!(SYS_set_tid_address, bad);
            0
        });
        say!("a bad word: {status}");
    }
}

fn listed() {
    let (id, _) = sleeping_thread(|| process::sleep_ms(100_000));
    let exists = |path: String| std::fs::metadata(path).is_ok();
    say!("in the process's task: {}", exists(format!("/proc/self/task/{id}")));
    say!("by its id, unlisted: {}", exists(format!("/proc/{id}/status")));
    let listed = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    say!("not in /proc: {}", listed.into_iter().all(|entry| entry.file_name().to_str() != Some(&id.to_string())));
    let status = std::fs::read_to_string(format!("/proc/self/task/{id}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().parse::<i32>().unwrap_or(-1)
    };
    say!("Tgid: {}, Pid: {}", field("Tgid:") == pid(), field("Pid:") == id);
    say!("Threads: {}", field("Threads:"));
    say!("another's task: {}", exists("/proc/self/task/1".into()));
    say!(
        "thread-self: {}",
        std::fs::read_link("/proc/thread-self").is_ok_and(|path| path.ends_with(tid().to_string()))
    );
    say!("kill by a thread's id reaches the process: {}", kill(id, 0));
    say!("getpgid by it: {}", sys!(SYS_getpgid, id) == sys!(SYS_getpgid, 0));
    say!("setpgid by it: {}", sys!(SYS_setpgid, id, 0));
    say!("as a group: {}", kill(-id, 0));
}

fn leader_goes_first() {
    let words = shared_words();
    let done: &'static Gate = Box::leak(Box::new(Gate::new()));
    let process = child(|| {
        let leader = pid();
        let fd = open(c"/dev/null", O_RDONLY).fd();
        std::thread::spawn(move || {
            while process::state(leader) != 'Z' {
                process::sleep_ms(1);
            }
            say!("memory and descriptors: {}", sys!(SYS_fcntl, fd, F_GETFD, 0));
            say!("tgkill of the leader: {}", sys!(SYS_tgkill, leader, leader, 0));
            say!("fork: {}", in_child(|| 2));
            say!("own /proc/self: {}", std::fs::read_link("/proc/self").is_ok());
            words[0].store(1, SeqCst);
            done.open();
            loop {
                process::sleep_ms(100_000);
            }
        });
        sys!(SYS_exit, 3);
        0
    });
    done.pass();
    let mut info: siginfo_t = zeroed();
    say!("wait: {}", sys!(SYS_waitid, P_PID, process, &mut info, WEXITED | WNOHANG, 0));
    // SAFETY: zero, or the record of a child.
    say!("nobody: {}", unsafe { info.si_pid() });
    kill(process, SIGTERM);
    say!("{}", wait(process));
}

fn sigqueue_to_a_thread() {
    let call = |group: i32, thread: i32, signal: i32, code: i32| {
        let mut info: siginfo_t = zeroed();
        info.si_signo = signal;
        info.si_code = code;
        sys!(SYS_rt_tgsigqueueinfo, group, thread, signal, &info)
    };
    signal::block(SIGUSR1);
    let (id, _) = sleeping_thread(|| process::sleep_ms(100_000));
    say!("SI_QUEUE to oneself: {}", call(pid(), tid(), SIGUSR1, SI_QUEUE));
    say!("taken: {}", signal::take(signal::bit(SIGUSR1), 0).1.si_code);
    say!("SI_USER to oneself: {}", call(pid(), tid(), SIGUSR1, SI_USER));
    say!("taken: {}", signal::take(signal::bit(SIGUSR1), 0).1.si_code);
    say!("SI_USER to another thread: {}", call(pid(), id, SIGUSR1, SI_USER));
    say!("SI_TKILL to another thread: {}", call(pid(), id, SIGUSR1, SI_TKILL));
    say!("SI_QUEUE: {}", call(pid(), id, SIGUSR1, SI_QUEUE));
    say!("group 0: {}, thread 0: {}", call(0, id, SIGUSR1, SI_QUEUE), call(pid(), 0, SIGUSR1, SI_QUEUE));
    say!("another group: {}", call(1, id, SIGUSR1, SI_QUEUE));
    say!("bad signal: {}", call(pid(), id, 65, SI_QUEUE));
    say!("nowhere: {}", sys!(SYS_rt_tgsigqueueinfo, pid(), id, SIGUSR1, NOWHERE));
}

fn many() {
    let status = in_child(|| {
        let total: &'static AtomicU32 = &shared_words()[0];
        let threads: Vec<_> = (0..100)
            .map(|index| {
                std::thread::spawn(move || {
                    total.fetch_add(index, SeqCst);
                })
            })
            .collect();
        for thread in threads {
            let _ = thread.join();
        }
        say!("sum of a hundred: {}", total.load(SeqCst));
        // Who is joined has cleared its id, and may have a little to do before it is gone.
        for _ in 0..2000 {
            if threads_of(pid()) == 1 {
                break;
            }
            crate::process::sleep_ms(1);
        }
        say!("left: {}", threads_of(pid()));
        until_asleep(1);
        0
    });
    say!("{status}");
}
