//! What this program is when a test has it executed: it shows what it finds.

use std::ffi::CStr;
use std::process::ExitCode;

use libc::*;

use crate::say;
use crate::signal;
use crate::sys::{sys, zeroed};

/// As the first argument: this program is run by a test, and the next word says what as.
pub const GUISE: &str = "--as";

/// The life of this program after an execve.
pub fn other_life(mut words: impl Iterator<Item = String>) -> ExitCode {
    match words.nth(1).as_deref() {
        Some("arguments") => words.for_each(|word| say!("argument {word:?}")),
        Some("count") => {
            let all: Vec<String> = words.collect();
            let bytes: usize = all.iter().map(String::len).sum();
            let variables = std::env::vars().count();
            say!("{} arguments, {bytes} bytes, {variables} variables", all.len());
        }
        Some("environment") => {
            std::env::vars_os().for_each(|(name, value)| say!("{}={}", name.display(), value.display()));
        }
        Some("signals") => show_signals(),
        Some("descriptors") => show_descriptors(),
        Some("auxiliary") => show_auxiliary(),
        Some("names") => show_names(),
        Some("ids") => show_ids(),
        Some("attributes") => show_attributes(),
        Some("threads") => show_threads(),
        Some("personality") => say!("personality: {}", sys!(SYS_personality, -1)),
        Some("trace-me") => say!("PTRACE_TRACEME: {}", sys!(SYS_ptrace, crate::tracing::TRACEME, 0, 0, 0)),
        Some("nothing") => {}
        // Until its standard input ends.
        Some("reader") => while sys!(SYS_read, 0, &mut [0u8; 1], 1).0 > 0 {},
        other => say!("nothing known: {other:?}"),
    }
    ExitCode::SUCCESS
}

fn show_descriptors() {
    for fd in 0..64 {
        let flags = sys!(SYS_fcntl, fd, F_GETFD, 0);
        if flags.ok() {
            say!("{fd}: flags {flags}, offset {}", sys!(SYS_lseek, fd, 0, SEEK_CUR));
        }
    }
}

fn show_signals() {
    say!("blocked: {}", signal::names(signal::mask(SIG_BLOCK, 0)));
    say!("pending: {}", signal::names(signal::pending()));
    for number in [SIGUSR1, SIGUSR2, SIGCHLD, SIGTERM] {
        let mut action = signal::Action { handler: 0, flags: 0, restorer: 0, mask: 0 };
        signal::action(number, None, Some(&mut action));
        say!("{}: {:#x} {:#x} {:#x}", signal::name(number), action.handler, action.flags, action.mask);
    }
}

fn show_threads() {
    let count = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    say!("threads: {count}, the first: {}", sys!(SYS_gettid) == sys!(SYS_getpid));
    say!("parent: {}", sys!(SYS_getppid).0 == sys!(SYS_getsid, 0).0);
    say!("the others' memory and pending signals: {}", signal::names(signal::pending()));
}

fn show_ids() {
    let (mut r, mut e, mut s) = (0u32, 0u32, 0u32);
    sys!(SYS_getresuid, &mut r, &mut e, &mut s);
    say!("user {r} {e} {s}, file system {}", sys!(SYS_setfsuid, -1));
    sys!(SYS_getresgid, &mut r, &mut e, &mut s);
    say!("group {r} {e} {s}, file system {}", sys!(SYS_setfsgid, -1));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().filter(|line| line.starts_with("Cap")).for_each(|line| say!("{line}"));
    // SAFETY: asks the auxiliary vector.
    say!("secure: {}", unsafe { getauxval(AT_SECURE) });
    say!("dumpable: {}", sys!(SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0));
    say!("no new privileges: {}", sys!(SYS_prctl, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
}

fn show_names() {
    let link = std::fs::read_link("/proc/self/exe").map(|path| path.display().to_string()).unwrap_or_default();
    let read = |path: &str| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    // SAFETY: AT_EXECFN is a string of this process's.
    let called = unsafe { CStr::from_ptr(getauxval(AT_EXECFN) as *const c_char) };
    say!("executable {link:?}, called {called:?}, name {:?}", read("/proc/self/comm").unwrap_or_default());
    say!("command line {:?}", read("/proc/self/cmdline").unwrap_or_default());
}

fn show_auxiliary() {
    // SAFETY: asks the auxiliary vector.
    let value = |kind: c_ulong| unsafe { getauxval(kind) };
    for (name, kind) in [
        ("PAGESZ", AT_PAGESZ),
        ("CLKTCK", AT_CLKTCK),
        ("PHENT", AT_PHENT),
        ("FLAGS", AT_FLAGS),
        ("UID", AT_UID),
        ("EUID", AT_EUID),
        ("GID", AT_GID),
        ("EGID", AT_EGID),
        ("SECURE", AT_SECURE),
        ("BASE", AT_BASE),
    ] {
        say!("{name}: {}", value(kind));
    }
    // SAFETY: strings and bytes of this process's.
    unsafe {
        say!("PLATFORM: {:?}", CStr::from_ptr(value(AT_PLATFORM) as *const c_char));
        say!("EXECFN: {:?}", CStr::from_ptr(value(AT_EXECFN) as *const c_char));
        let random = std::slice::from_raw_parts(value(AT_RANDOM) as *const u8, 16);
        say!("RANDOM: {}", random.iter().any(|byte| *byte != random[0]));
    }
    say!("headers, entry, vDSO: {} {} {}", value(AT_PHDR) != 0, value(AT_ENTRY) != 0, value(AT_SYSINFO_EHDR) != 0);
    say!("HWCAP has FP and ASIMD: {}", value(AT_HWCAP) & 3);
    say!("MINSIGSTKSZ: {}", value(51) >= 4688);
    let order: Vec<u64> = std::fs::read("/proc/self/auxv")
        .unwrap_or_default()
        .chunks_exact(16)
        .map(|pair| u64::from_le_bytes(pair[..8].try_into().unwrap_or_default()))
        .filter(|kind| ![27, 28].contains(kind))
        .collect();
    say!("kinds: {order:?}");
}

fn show_attributes() {
    say!("umask: {:o}", sys!(SYS_umask, 0).0);
    let mut path = [0u8; 64];
    let length = sys!(SYS_getcwd, &mut path, 64).need() as usize;
    say!("directory: {}", String::from_utf8_lossy(&path[..length - 1]));
    say!("nice: {}", 20 - sys!(SYS_getpriority, PRIO_PROCESS, 0).0);
    say!("timer slack: {}", sys!(SYS_prctl, PR_GET_TIMERSLACK, 0, 0, 0, 0));
    say!("keep capabilities: {}", sys!(SYS_prctl, PR_GET_KEEPCAPS, 0, 0, 0, 0));
    say!("dumpable: {}", sys!(SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0));
    say!("no new privileges: {}", sys!(SYS_prctl, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    let mut number = 9i32;
    sys!(SYS_prctl, PR_GET_PDEATHSIG, &mut number, 0, 0, 0);
    say!("signal at the parent's death: {number}");
    sys!(SYS_prctl, PR_GET_CHILD_SUBREAPER, &mut number, 0, 0, 0);
    say!("subreaper: {number}");
    say!("personality: {:#x}", sys!(SYS_personality, 0xffff_ffff_u32).0);
    let mut limit: rlimit = zeroed();
    sys!(SYS_getrlimit, RLIMIT_NOFILE, &mut limit);
    say!("limit: {} {}", limit.rlim_cur, limit.rlim_max);
    let mut interval: itimerval = zeroed();
    sys!(SYS_getitimer, ITIMER_REAL, &mut interval);
    say!("interval timer: {}", interval.it_value.tv_sec > 900);
    let mut setting: itimerspec = zeroed();
    say!("timer 0: {}", sys!(SYS_timer_gettime, 0, &mut setting));
    say!("scheduler: {}", sys!(SYS_sched_getscheduler, 0));
    let mut cpus = [0u64; 16];
    sys!(SYS_sched_getaffinity, 0, 128, &mut cpus);
    say!("affinity: {:#x}", cpus[0]);
    let mut time: tms = zeroed();
    sys!(SYS_times, &mut time);
    let (mut head, mut size) = (1usize, 0usize);
    sys!(SYS_get_robust_list, 0, &mut head, &mut size);
    say!("robust list: {head}");
}
