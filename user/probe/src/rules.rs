//! Rules of processes and signals that only show when many things happen at once, or to somebody who means harm. One line
//! a rule; every line must be the same on Linux.

use std::ffi::CString;
use std::mem::zeroed;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use libc::{c_int, c_long, pid_t, sigset_t};

/// A user that nobody else is.
const USER: u32 = 12_345;
const ROUNDS: usize = 1_000;

type Rule = (&'static str, fn() -> String);

const RULES: &[Rule] = &[
    ("who has waited has the signal", waited_has_signal),
    ("who has the signal can wait", signalled_can_wait),
    ("si_uid is the child's user", child_user),
    ("forged timer signals count", forged_timer),
    ("kill finds before it checks", kill_order),
    ("kill everybody as nobody", kill_everybody),
    ("a zombie keeps its user", zombie_user),
    ("huge affinity masks", affinity),
    ("priorities of SCHED_DEADLINE", deadline_priorities),
    ("two threads exec at once", two_execs),
    ("pidfd and parent_tid at one place", clone3_same_word),
    ("the longest timer interval", longest_interval),
    ("requeue onto itself", requeue_to_self),
    ("process time never goes back", monotonic_time),
    ("hanging up the own terminal", hang_up),
];

pub fn all() {
    for (name, rule) in RULES {
        println!("{name}: {}", rule());
    }
}

fn errno() -> c_int {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// What a system call came to: its value, or minus errno.
fn outcome(value: c_long) -> c_long {
    if value == -1 { -c_long::from(errno()) } else { value }
}

/// Runs `body` in a child; its answer is the child's status.
fn child(body: impl FnOnce() -> c_int) -> pid_t {
    // SAFETY: the child has one thread and ends by _exit.
    match unsafe { libc::fork() } {
        0 => {
            let status = body();
            // SAFETY: ends the child.
            unsafe { libc::_exit(status) }
        }
        pid => pid,
    }
}

fn status_of(pid: pid_t) -> c_int {
    let mut status = 0;
    // SAFETY: a live integer.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { -status }
}

fn become_user() {
    // SAFETY: no memory involved.
    unsafe { libc::setresuid(USER, USER, USER) };
}

fn set_of(signal: c_int) -> sigset_t {
    // SAFETY: the set is initialised before its use.
    unsafe {
        let mut set = zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        set
    }
}

fn block(signal: c_int) -> sigset_t {
    let set = set_of(signal);
    // SAFETY: a live set.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, null_mut()) };
    set
}

fn waited_has_signal() -> String {
    let set = block(libc::SIGCHLD);
    let mut missed = 0;
    for _ in 0..ROUNDS {
        let pid = child(|| 0);
        // SAFETY: live integers and sets.
        unsafe {
            while libc::waitpid(pid, null_mut(), libc::WNOHANG) == 0 {}
            let now: libc::timespec = zeroed();
            missed += usize::from(libc::sigtimedwait(&set, null_mut(), &now) != libc::SIGCHLD);
        }
    }
    format!("{missed} missed")
}

fn signalled_can_wait() -> String {
    let set = block(libc::SIGCHLD);
    let mut missed = 0;
    for _ in 0..ROUNDS {
        let pid = child(|| 0);
        // SAFETY: live sets.
        unsafe {
            libc::sigwaitinfo(&set, null_mut());
            if libc::waitpid(pid, null_mut(), libc::WNOHANG) != pid {
                missed += 1;
                libc::waitpid(pid, null_mut(), 0);
            }
        }
    }
    format!("{missed} missed")
}

fn child_user() -> String {
    let set = block(libc::SIGCHLD);
    child(|| {
        become_user();
        0
    });
    // SAFETY: live structures; both kinds of information have the field.
    unsafe {
        let (mut sent, mut waited): (libc::siginfo_t, libc::siginfo_t) = (zeroed(), zeroed());
        libc::sigwaitinfo(&set, &mut sent);
        libc::waitid(libc::P_ALL, 0, &mut waited, libc::WEXITED);
        format!("{} {}", sent.si_uid(), waited.si_uid())
    }
}

fn forged_timer() -> String {
    const SIGNAL: c_int = 40;
    let counted = child(|| {
        block(SIGNAL);
        become_user();
        // SAFETY: live structures.
        unsafe {
            let limit = libc::rlimit { rlim_cur: 5, rlim_max: 5 };
            libc::setrlimit(libc::RLIMIT_SIGPENDING, &limit);
            let mut info: libc::siginfo_t = zeroed();
            info.si_signo = SIGNAL;
            info.si_code = libc::SI_TIMER;
            (0..20).filter(|_| libc::syscall(libc::SYS_rt_sigqueueinfo, libc::getpid(), SIGNAL, &info) == 0).count()
                as c_int
        }
    });
    format!("{} queued", status_of(counted))
}

fn kill_order() -> String {
    // SAFETY: no memory involved; 999 is no signal.
    unsafe {
        let nobody = 4_000_000;
        let calls =
            [libc::kill(nobody, 999), libc::kill(libc::getpid(), 999), libc::kill(-nobody, 999), libc::kill(0, -1)];
        let last = outcome(libc::syscall(libc::SYS_tgkill, libc::getpid(), nobody, 999));
        let first = outcome(c_long::from(libc::kill(nobody, 999)));
        let own = outcome(c_long::from(libc::kill(libc::getpid(), 999)));
        format!("{calls:?} {first} {own} {last}")
    }
}

fn kill_everybody() -> String {
    let pid = child(|| {
        become_user();
        // SAFETY: signal 0 only asks.
        if unsafe { libc::kill(-1, 0) } == 0 { 0 } else { errno() }
    });
    status_of(pid).to_string()
}

fn zombie_user() -> String {
    let zombie = child(|| 0);
    // SAFETY: a live structure.
    unsafe {
        let mut info: libc::siginfo_t = zeroed();
        libc::waitid(libc::P_PID, zombie as u32, &mut info, libc::WEXITED | libc::WNOWAIT);
    }
    let asks = child(|| {
        become_user();
        // SAFETY: signal 0 only asks.
        if unsafe { libc::kill(zombie, 0) } == 0 { 0 } else { errno() }
    });
    let answer = status_of(asks);
    status_of(zombie);
    answer.to_string()
}

fn affinity() -> String {
    let mut mask = [0u64; 128];
    let mut ask = |len: u64| {
        // SAFETY: the kernel writes what it knows of, far less than the array.
        let value = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, len, mask.as_mut_ptr()) };
        if value > 0 { "fits".to_string() } else { outcome(value).to_string() }
    };
    format!("{} {} {}", ask(1 << 61), ask(1 << 29), ask(1024))
}

fn deadline_priorities() -> String {
    // SAFETY: no memory involved.
    unsafe { format!("{} {}", libc::sched_get_priority_max(6), libc::sched_get_priority_min(6)) }
}

fn two_execs() -> String {
    let (Ok(program), Ok(word)) = (CString::new("/proc/self/exe"), CString::new("seven")) else {
        return "no strings".into();
    };
    let exec = move || {
        let argv = [word.as_ptr(), null()];
        // SAFETY: a terminated list of live strings.
        unsafe { libc::execv(program.as_ptr(), argv.as_ptr()) };
    };
    let mut wrong = 0;
    for _ in 0..100 {
        let exec = exec.clone();
        let pid = child(move || {
            static GO: AtomicU32 = AtomicU32::new(0);
            let race = move |exec: &dyn Fn()| {
                GO.fetch_add(1, Ordering::SeqCst);
                while GO.load(Ordering::SeqCst) < 2 {}
                exec();
            };
            let other = exec.clone();
            let thread = thread::spawn(move || race(&other));
            race(&exec);
            let _ = thread.join();
            1
        });
        wrong += u32::from(status_of(pid) != 7);
    }
    format!("{wrong} wrong")
}

fn clone3_same_word() -> String {
    let mut word = 0u64;
    let mut args = [0u64; 11];
    args[0] = (libc::CLONE_PIDFD | libc::CLONE_PARENT_SETTID) as u64;
    args[1] = &raw mut word as u64;
    args[3] = args[1];
    args[4] = libc::SIGCHLD as u64;
    // SAFETY: a copy like fork's, which ends at once if there is one.
    unsafe {
        let value = libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args));
        if value == 0 {
            libc::_exit(0);
        }
        outcome(value).min(0).to_string()
    }
}

fn longest_interval() -> String {
    // SAFETY: live structures.
    unsafe {
        let mut event: libc::sigevent = zeroed();
        event.sigev_notify = libc::SIGEV_NONE;
        let mut timer: c_int = 0;
        let made = libc::syscall(libc::SYS_timer_create, libc::CLOCK_REALTIME, &mut event, &mut timer);
        let mut setting: libc::itimerspec = zeroed();
        setting.it_value.tv_nsec = 1;
        setting.it_interval.tv_sec = i64::MAX;
        let set = libc::syscall(libc::SYS_timer_settime, timer, libc::TIMER_ABSTIME, &setting, null_mut::<u8>());
        let got = libc::syscall(libc::SYS_timer_gettime, timer, &mut setting);
        libc::syscall(libc::SYS_timer_delete, timer);
        format!("{made} {set} {got}")
    }
}

fn requeue_to_self() -> String {
    const CMP_REQUEUE: c_int = 4 | 128;
    static WORD: AtomicU32 = AtomicU32::new(0);
    let waiter = thread::spawn(|| {
        // SAFETY: a static word; no timeout.
        unsafe { libc::syscall(libc::SYS_futex, WORD.as_ptr(), 128, 0, null::<u8>()) }
    });
    // Until the other thread sleeps.
    thread::sleep(Duration::from_millis(200));
    // SAFETY: a static word.
    let (moved, woken) = unsafe {
        let moved = libc::syscall(libc::SYS_futex, WORD.as_ptr(), CMP_REQUEUE, 0, 10usize, WORD.as_ptr(), 0);
        (moved, libc::syscall(libc::SYS_futex, WORD.as_ptr(), 1 | 128, 10))
    };
    format!("{moved} {woken} {:?}", waiter.join().unwrap_or(-1))
}

fn monotonic_time() -> String {
    let done = AtomicBool::new(false);
    let process_time = || {
        // SAFETY: a live structure.
        let time = unsafe {
            let mut time: libc::timespec = zeroed();
            libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time);
            time
        };
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    };
    let mut back = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                let _ = thread::spawn(|| super::count(20_000)).join();
            }
            done.store(true, Ordering::Relaxed);
        });
        let mut last = 0;
        while !done.load(Ordering::Relaxed) {
            let now = process_time();
            back += u32::from(now < last);
            last = now;
        }
    });
    format!("{back} times back")
}

/// A session of its own at a pseudo-terminal, then vhangup(2).
fn hang_up() -> String {
    let status = status_of(child(|| {
        // SAFETY: live integers and structures; strings end in NUL.
        unsafe {
            libc::setsid();
            let without = libc::vhangup();
            let mut slave = 0;
            let mut master = 0;
            libc::openpty(&mut master, &mut slave, null_mut(), null(), null());
            libc::ioctl(slave, libc::TIOCSCTTY, 0);
            let set = block(libc::SIGHUP);
            let hung_up = libc::vhangup();
            let now: libc::timespec = zeroed();
            let told = libc::sigtimedwait(&set, null_mut(), &now) == libc::SIGHUP;
            let broken = outcome(libc::write(slave, [0u8; 1].as_ptr().cast(), 1) as c_long) == -c_long::from(libc::EIO);
            let gone = libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR) == -1;
            become_user();
            let refused = outcome(c_long::from(libc::vhangup())) == -c_long::from(libc::EPERM);
            [without == 0, hung_up == 0, told, broken, gone, refused]
                .iter()
                .fold(0, |bits, ok| bits << 1 | c_int::from(*ok))
        }
    }));
    format!("{status:06b}")
}
