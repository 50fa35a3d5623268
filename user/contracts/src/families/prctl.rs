//! prctl(2) and personality(2): attributes of processes.

use std::sync::atomic::Ordering::SeqCst;

use libc::*;

use crate::file::{self, open};
use crate::memory::{pages, poke, shared_words};
use crate::process::{self, Gate, Status, child, comm, in_child, prctl_of, wait};
use crate::signal;
use crate::sys::sys;
use crate::{say, tests};

tests! {
    names, subreaper, prctl_errors, timer_slack, dumpable, death_of_the_parent, personality_values,
}

fn death_of_the_parent() {
    let words = shared_words();
    let done = Gate::new();
    let run = |how: fn() -> i32, signal: usize| {
        let ready = Gate::new();
        let parent = child(|| {
            signal::block(SIGUSR1);
            child(|| {
                say!("PR_SET_PDEATHSIG: {}", prctl_of(PR_SET_PDEATHSIG, [signal, 0, 0, 0]));
                how();
                ready.open();
                let (taken, info) = signal::take(signal::bit(SIGUSR1), if signal == 0 { 50 } else { 5_000 });
                say!("taken: {taken}, code {}", info.si_code);
                done.open();
                0
            });
            ready.pass();
            0
        });
        wait(parent);
        done.pass();
    };
    run(|| 0, SIGUSR1 as usize);
    run(|| 0, 0);
    say!("changed ids forget it:");
    let _ = words;
    in_child(|| {
        prctl_of(PR_SET_PDEATHSIG, [SIGUSR1 as usize, 0, 0, 0]);
        sys!(SYS_setresuid, 1000, 1000, 1000);
        let mut number = 9i32;
        prctl_of(PR_GET_PDEATHSIG, [&raw mut number as usize, 0, 0, 0]);
        say!("setresuid: {number}");
        0
    });
    in_child(|| {
        prctl_of(PR_SET_PDEATHSIG, [SIGUSR1 as usize, 0, 0, 0]);
        sys!(SYS_setresuid, -1, 0, -1);
        let mut number = 9i32;
        prctl_of(PR_GET_PDEATHSIG, [&raw mut number as usize, 0, 0, 0]);
        say!("setresuid to what it is: {number}");
        0
    });
    say!("signal 65: {}", prctl_of(PR_SET_PDEATHSIG, [65, 0, 0, 0]));
    say!("signal -1: {}", prctl_of(PR_SET_PDEATHSIG, [usize::MAX, 0, 0, 0]));
    say!("get to nowhere: {}", prctl_of(PR_GET_PDEATHSIG, [8, 0, 0, 0]));
}

fn names() {
    let set = |name: &std::ffi::CStr| prctl_of(PR_SET_NAME, [name.as_ptr() as usize, 0, 0, 0]);
    say!("set: {}", set(c"short"));
    say!("get: {}", comm());
    say!("too long: {}", set(c"0123456789abcdefghij"));
    say!("get: {}", comm());
    say!("empty: {}", set(c""));
    say!("get: {:?}", comm());
    set(c"a b)c (d\ne");
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_else(|error| error.to_string());
    say!("comm: {:?}", read("/proc/self/comm"));
    let stat = read("/proc/self/stat");
    say!("stat: {:?}", stat.split_once(' ').map_or("", |(_, rest)| &rest[..rest.find(" R").unwrap_or(0)]));
    say!("status: {:?}", read("/proc/self/status").lines().next());
    say!("write comm: {:?}", std::fs::write("/proc/self/comm", "written\nmore than sixteen bytes"));
    say!("get: {:?}", comm());
    say!("from nowhere: {}", prctl_of(PR_SET_NAME, [8, 0, 0, 0]));
    say!("to nowhere: {}", prctl_of(PR_GET_NAME, [8, 0, 0, 0]));
    let page = pages(2);
    sys!(SYS_munmap, page.wrapping_add(4096), 4096);
    for at in 4090..4096 {
        poke(page.wrapping_add(at), b'x');
    }
    say!("no end before the mapping's: {}", prctl_of(PR_SET_NAME, [page as usize + 4090, 0, 0, 0]));
    poke(page.wrapping_add(4095), 0);
    say!("an end just there: {}", prctl_of(PR_SET_NAME, [page as usize + 4090, 0, 0, 0]));
    say!("get: {:?}", comm());
}

fn subreaper() {
    let number = |reaper: bool| {
        let words = shared_words();
        let ready = Gate::new();
        in_child(|| {
            if reaper {
                prctl_of(PR_SET_CHILD_SUBREAPER, [1, 0, 0, 0]);
            }
            words[1].store(sys!(SYS_getpid).0 as u32, SeqCst);
            let middle = child(|| {
                let parent = sys!(SYS_getpid).0;
                child(|| {
                    while sys!(SYS_getppid).0 == parent {
                        process::sleep_ms(1);
                    }
                    words[0].store(sys!(SYS_getppid).0 as u32, SeqCst);
                    ready.open();
                    5
                });
                0
            });
            wait(middle);
            ready.pass();
            i32::from(words[0].load(SeqCst) == words[1].load(SeqCst)) + if reaper { wait_any() } else { 0 }
        })
    };
    say!("without: {}", number(false));
    say!("with: {}", number(true));
    prctl_of(PR_SET_CHILD_SUBREAPER, [7, 0, 0, 0]);
    let mut value = 0i32;
    prctl_of(PR_GET_CHILD_SUBREAPER, [&raw mut value as usize, 0, 0, 0]);
    say!("set to 7: {value}");
    say!("get to nowhere: {}", prctl_of(PR_GET_CHILD_SUBREAPER, [8, 0, 0, 0]));
}

/// The status of any child, times ten.
fn wait_any() -> i32 {
    match wait(-1) {
        Status::Exited(value) => value * 10,
        _ => 200,
    }
}

fn prctl_errors() {
    say!("unknown 0: {}", prctl_of(0, [0; 4]));
    say!("unknown 999: {}", prctl_of(999, [0; 4]));
    say!("unknown -1: {}", prctl_of(-1, [0; 4]));
    say!("PR_SET_KEEPCAPS 2: {}", prctl_of(PR_SET_KEEPCAPS, [2, 0, 0, 0]));
    say!(
        "PR_CAPBSET_READ 0, 40, 41, 64, -1: {} {} {} {} {}",
        prctl_of(PR_CAPBSET_READ, [0; 4]),
        prctl_of(PR_CAPBSET_READ, [40, 0, 0, 0]),
        prctl_of(PR_CAPBSET_READ, [41, 0, 0, 0]),
        prctl_of(PR_CAPBSET_READ, [64, 0, 0, 0]),
        prctl_of(PR_CAPBSET_READ, [usize::MAX, 0, 0, 0])
    );
    say!("PR_SET_NO_NEW_PRIVS 0: {}", prctl_of(PR_SET_NO_NEW_PRIVS, [0; 4]));
    say!("with a third argument: {}", prctl_of(PR_SET_NO_NEW_PRIVS, [1, 1, 0, 0]));
    say!("get with an argument: {}", prctl_of(PR_GET_NO_NEW_PRIVS, [1, 0, 0, 0]));
    say!("set: {}, get: {}", prctl_of(PR_SET_NO_NEW_PRIVS, [1, 0, 0, 0]), prctl_of(PR_GET_NO_NEW_PRIVS, [0; 4]));
    say!("PR_SET_TIMING: {} {}", prctl_of(PR_SET_TIMING, [0; 4]), prctl_of(PR_SET_TIMING, [1, 0, 0, 0]));
    say!("PR_GET_TIMING: {}", prctl_of(PR_GET_TIMING, [0; 4]));
    say!("PR_GET_UNALIGN: {}", prctl_of(PR_GET_UNALIGN, [0; 4]));
    say!("PR_GET_FPEMU: {}", prctl_of(PR_GET_FPEMU, [0; 4]));
    say!("PR_GET_ENDIAN: {}", prctl_of(PR_GET_ENDIAN, [0; 4]));
    say!("PR_GET_TSC: {}", prctl_of(PR_GET_TSC, [0; 4]));
    say!("PR_TASK_PERF_EVENTS_DISABLE: {}", prctl_of(PR_TASK_PERF_EVENTS_DISABLE, [0; 4]));
    say!("PR_GET_SECCOMP: {}", prctl_of(PR_GET_SECCOMP, [0; 4]));
    say!("PR_GET_THP_DISABLE: {}", prctl_of(PR_GET_THP_DISABLE, [0; 4]));
    say!("with an argument: {}", prctl_of(PR_GET_THP_DISABLE, [1, 0, 0, 0]));
    say!("PR_SET_MM without a known field: {}", prctl_of(PR_SET_MM, [99, 0, 0, 0]));
    say!("PR_CAP_AMBIENT 9: {}", prctl_of(PR_CAP_AMBIENT, [9, 0, 0, 0]));
    say!("PR_SVE_GET_VL: {}", prctl_of(51, [0; 4]));
}

fn timer_slack() {
    say!("at first: {}", prctl_of(PR_GET_TIMERSLACK, [0; 4]));
    say!("set: {}", prctl_of(PR_SET_TIMERSLACK, [777, 0, 0, 0]));
    in_child(|| {
        say!("a child's: {}", prctl_of(PR_GET_TIMERSLACK, [0; 4]));
        prctl_of(PR_SET_TIMERSLACK, [888, 0, 0, 0]);
        prctl_of(PR_SET_TIMERSLACK, [0, 0, 0, 0]);
        say!("zero takes its parent's: {}", prctl_of(PR_GET_TIMERSLACK, [0; 4]));
        0
    });
    prctl_of(PR_SET_TIMERSLACK, [0, 0, 0, 0]);
    say!("zero: {}", prctl_of(PR_GET_TIMERSLACK, [0; 4]));
    let thread = std::thread::spawn(|| {
        prctl_of(PR_SET_TIMERSLACK, [999, 0, 0, 0]);
    });
    let _ = thread.join();
    say!("another thread's is its own: {}", prctl_of(PR_GET_TIMERSLACK, [0; 4]));
}

fn dumpable() {
    say!("at first: {}", prctl_of(PR_GET_DUMPABLE, [0; 4]));
    say!("2: {}, 3: {}", prctl_of(PR_SET_DUMPABLE, [2, 0, 0, 0]), prctl_of(PR_SET_DUMPABLE, [3, 0, 0, 0]));
    in_child(|| {
        sys!(SYS_setresuid, 1000, 1000, 1000);
        say!("after setresuid: {}", prctl_of(PR_GET_DUMPABLE, [0; 4]));
        say!("owner of its files: {}", file::stat(c"/proc/self/environ").map_or(-1, |stat| i64::from(stat.st_uid)));
        say!("its maps: {}", open(c"/proc/self/maps", O_RDONLY).ok_or_error());
        prctl_of(PR_SET_DUMPABLE, [1, 0, 0, 0]);
        say!("now: {}", file::stat(c"/proc/self/environ").map_or(-1, |stat| i64::from(stat.st_uid)));
        0
    });
    in_child(|| {
        sys!(SYS_setresuid, 0, 0, 0);
        say!("after setresuid to what it is: {}", prctl_of(PR_GET_DUMPABLE, [0; 4]));
        0
    });
    in_child(|| {
        sys!(SYS_setresgid, -1, 7, -1);
        say!("after setresgid: {}", prctl_of(PR_GET_DUMPABLE, [0; 4]));
        0
    });
}

fn personality_values() {
    let ask = || format!("{:#x}", sys!(SYS_personality, 0xffff_ffff_u32).0);
    say!("at first: {}", ask());
    say!("ADDR_NO_RANDOMIZE: {:#x}", sys!(SYS_personality, 0x004_0000).0);
    say!("then: {}", ask());
    say!("everything: {:#x}", sys!(SYS_personality, 0x0fff_ffff).0);
    say!("then: {}", ask());
    sys!(SYS_personality, 0);
    say!("back: {}", ask());
    sys!(SYS_personality, 8);
    say!("PER_LINUX32: {}", ask());
}
