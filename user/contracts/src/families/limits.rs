//! Resource limits: getrlimit(2), prlimit(2), and what happens at each.

use libc::*;

use crate::file::{self, create, open};
use crate::memory::{self, PAGE, pages};
use crate::process::{self, as_user, become_user, child, in_child, kill, wait};
use crate::signal::{self, bit};
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    errors, raised_and_lowered, of_another_process, of_another_users, descriptors, file_size, address_space, data,
    stack, processor_time, processes, processes_that_change_hands, memory_locked, priorities, inherited_and_kept, infinite_values, core_files,
}

fn get(resource: u32) -> String {
    let mut limit: rlimit = zeroed();
    match sys!(SYS_prlimit64, 0, resource, 0, &mut limit) {
        ret if ret.ok() => format!("{} {}", shown(limit.rlim_cur), shown(limit.rlim_max)),
        error => error.to_string(),
    }
}

fn shown(value: u64) -> String {
    if value == RLIM_INFINITY { "infinity".into() } else { value.to_string() }
}

fn set(resource: u32, soft: u64, hard: u64) -> Ret {
    sys!(SYS_prlimit64, 0, resource, &rlimit { rlim_cur: soft, rlim_max: hard }, 0)
}

const NOFILE: u32 = 7;
const FSIZE: u32 = 1;
const CPU: u32 = 0;
const DATA: u32 = 2;
const STACK: u32 = 3;
const CORE: u32 = 4;
const NPROC: u32 = 6;
const MEMLOCK: u32 = 8;
const AS: u32 = 9;
const NICE: u32 = 13;
const RTPRIO: u32 = 14;

fn errors() {
    let mut limit: rlimit = zeroed();
    for resource in [16, 99, u32::MAX] {
        say!("{resource}: {}", sys!(SYS_prlimit64, 0, resource, 0, &mut limit));
        say!(
            "getrlimit: {}, setrlimit: {}",
            sys!(SYS_getrlimit, resource, &mut limit),
            sys!(SYS_setrlimit, resource, &limit)
        );
    }
    say!("from nowhere: {}", sys!(SYS_prlimit64, 0, NOFILE, NOWHERE, 0));
    say!("to nowhere: {}", sys!(SYS_prlimit64, 0, NOFILE, 0, NOWHERE));
    say!("get to nowhere: {}", sys!(SYS_getrlimit, NOFILE, NOWHERE));
    say!("set from nowhere: {}", sys!(SYS_setrlimit, NOFILE, NOWHERE));
    say!("soft above hard: {}", set(NOFILE, 11, 10));
    say!("neither: {}", sys!(SYS_prlimit64, 0, NOFILE, 0, 0));
    say!("neither, of no resource: {}", sys!(SYS_prlimit64, 0, 99, 0, 0));
    say!("nobody: {}", sys!(SYS_prlimit64, 4_000_000, NOFILE, 0, &mut limit));
    say!("-1: {}", sys!(SYS_prlimit64, -1, NOFILE, 0, &mut limit));
}

fn raised_and_lowered() {
    in_child(|| {
        say!("lower: {}, {}", set(NOFILE, 10, 20), get(NOFILE));
        say!("soft to hard: {}, {}", set(NOFILE, 20, 20), get(NOFILE));
        say!("hard up, as root: {}, {}", set(NOFILE, 20, 40), get(NOFILE));
        become_user(1000);
        say!("hard up, as a user: {}, {}", set(NOFILE, 20, 41), get(NOFILE));
        say!("soft up to it: {}, {}", set(NOFILE, 40, 40), get(NOFILE));
        say!("hard down: {}, {}", set(NOFILE, 5, 30), get(NOFILE));
        say!("and back: {}", set(NOFILE, 5, 40));
        say!("to 0: {}, {}", set(NOFILE, 0, 0), get(NOFILE));
        0
    });
    in_child(|| {
        let mut old: rlimit = zeroed();
        let new = rlimit { rlim_cur: 33, rlim_max: 44 };
        set(NOFILE, 11, 22);
        say!("old and new at once: {}", sys!(SYS_prlimit64, 0, NOFILE, &new, &mut old));
        say!("{} {}, now {}", old.rlim_cur, old.rlim_max, get(NOFILE));
        say!("beyond nr_open: {}", set(NOFILE, 1 << 30, 1 << 30));
        say!("infinity: {}", set(NOFILE, RLIM_INFINITY, RLIM_INFINITY));
        0
    });
}

fn of_another_process() {
    let gate = process::Gate::new();
    let ready = process::Gate::new();
    let pid = child(|| {
        ready.open();
        gate.pass();
        say!("there: {}", get(NOFILE));
        0
    });
    ready.pass();
    let mut old: rlimit = zeroed();
    let new = rlimit { rlim_cur: 77, rlim_max: 88 };
    say!("set: {}", sys!(SYS_prlimit64, pid, NOFILE, &new, 0));
    say!("get: {} {}", sys!(SYS_prlimit64, pid, NOFILE, 0, &mut old), old.rlim_cur);
    gate.open();
    wait(pid);
    say!("gone: {}", sys!(SYS_prlimit64, pid, NOFILE, 0, &mut old));
}

fn of_another_users() {
    let mut old: rlimit = zeroed();
    as_user(1000, || {
        say!("init's: {}", sys!(SYS_prlimit64, 1, NOFILE, 0, &mut old));
        say!("its own by its id: {}", sys!(SYS_prlimit64, sys!(SYS_getpid).0, NOFILE, 0, &mut old));
        let pid = child(|| {
            loop {
                process::sleep_ms(100_000);
            }
        });
        say!("a child's: {}", sys!(SYS_prlimit64, pid, NOFILE, 0, &mut old));
        kill(pid, SIGKILL);
        wait(pid);
        0
    });
}

fn descriptors() {
    let first = open(c"/dev/null", O_RDONLY).fd();
    set(NOFILE, 10, 20);
    let mut last = 0;
    let refused = loop {
        let ret = open(c"/dev/null", O_RDONLY);
        if !ret.ok() {
            break ret;
        }
        last = ret.0;
    };
    say!("open: up to {last}, then {refused}");
    say!("dup: {}", sys!(SYS_dup, first));
    say!("pipe: {}", sys!(SYS_pipe2, &mut [0i32; 2], 0));
    say!("socket: {}", sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0));
    say!("dup3 to the limit: {}", sys!(SYS_dup3, first, 10, 0));
    say!("dup3 below it: {}", sys!(SYS_dup3, first, 9, 0));
    say!("F_DUPFD from the limit: {}", sys!(SYS_fcntl, first, F_DUPFD, 10));
    say!("F_DUPFD from below: {}", sys!(SYS_fcntl, first, F_DUPFD, 9));
    say!("lower than what is open: {}", set(NOFILE, 5, 20));
    say!("those stay: {}", sys!(SYS_fcntl, 9, F_GETFD, 0));
    say!("epoll: {}", sys!(SYS_epoll_create1, 0));
    say!("more again: {}, {}", set(NOFILE, 12, 20), open(c"/dev/null", O_RDONLY));
    let mut entries = [pollfd { fd: -1, events: 0, revents: 0 }; 30];
    let now: timespec = zeroed();
    say!("ppoll of more entries: {}", sys!(SYS_ppoll, &mut entries, 30, &now, 0, 8));
}

fn file_size() {
    let fd = create(c"f", "");
    set(FSIZE, 100, 200);
    signal::block(SIGXFSZ);
    let text = "x".repeat(80);
    say!("80: {}", file::write(fd, &text));
    say!("80 more, cut: {}", file::write(fd, &text));
    say!("pending: {}", signal::names(signal::pending()));
    say!("beyond: {}", file::write(fd, &text));
    say!("taken: {}", signal::take(bit(SIGXFSZ), 0).0);
    say!("nothing: {}", file::write(fd, ""));
    say!("pwrite within: {}", sys!(SYS_pwrite64, fd, "y", 1, 5));
    say!("pwrite beyond: {}", sys!(SYS_pwrite64, fd, "y", 1, 100));
    say!("ftruncate to it: {}", sys!(SYS_ftruncate, fd, 100));
    say!("ftruncate beyond: {}", sys!(SYS_ftruncate, fd, 101));
    say!("pending: {}", signal::names(signal::pending()));
    signal::take(bit(SIGXFSZ), 0);
    let [_, writer] = file::pipe();
    say!("a pipe has no size: {}", file::write(writer, &"x".repeat(300)));
    let status = in_child(|| {
        signal::unblock(SIGXFSZ);
        file::write(fd, &text);
        file::write(fd, &text);
        0
    });
    say!("unblocked: {status}");
    let status = in_child(|| {
        signal::unblock(SIGXFSZ);
        signal::ignore(SIGXFSZ);
        say!("ignored: {}", file::write(fd, &text));
        0
    });
    say!("{status}");
}

fn address_space() {
    in_child(|| {
        let used = {
            let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
            statm.split(' ').next().and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE as u64
        };
        say!("set: {}", set(AS, used + (4 << 20), RLIM_INFINITY));
        let map = |length: usize| memory::map(length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        say!("8 MiB: {}", map(8 << 20).ok_or_error());
        let first = map(1 << 20);
        say!("1 MiB: {}", first.ok_or_error());
        say!("made larger: {}", sys!(SYS_mremap, first.0, 1 << 20, 16 << 20, MREMAP_MAYMOVE).ok_or_error());
        let old = sys!(SYS_brk, 0).0;
        say!("brk: {}", sys!(SYS_brk, old + (16 << 20)).0 == old);
        say!("over what is mapped: {}", {
            sys!(SYS_mmap, first.0, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0).ok_or_error()
        });
        0
    });
}

fn data() {
    in_child(|| {
        say!("set: {}", set(DATA, PAGE as u64, RLIM_INFINITY));
        let old = sys!(SYS_brk, 0).0;
        say!("brk: {}", sys!(SYS_brk, old + (1 << 20)).0 == old);
        let map = |flags: i32, protection: i32| memory::map(1 << 20, protection, flags | MAP_ANONYMOUS, -1, 0);
        say!("private, to write: {}", map(MAP_PRIVATE, PROT_READ | PROT_WRITE).ok_or_error());
        say!("private, to read: {}", map(MAP_PRIVATE, PROT_READ).ok_or_error());
        say!("shared: {}", map(MAP_SHARED, PROT_READ | PROT_WRITE).ok_or_error());
        0
    });
}

fn stack() {
    // The main thread's stack grows down to its limit, and no further.
    fn deep(left: usize) -> u8 {
        let block = std::hint::black_box([left as u8; 16_384]);
        if left == 0 { block[0] } else { deep(left - 1).wrapping_add(block[left % 16_384]) }
    }
    let run = |limit: u64, depth: usize| {
        in_child(|| {
            set(STACK, limit, RLIM_INFINITY);
            signal::default(SIGSEGV);
            sys!(SYS_sigaltstack, &stack_t { ss_sp: std::ptr::null_mut(), ss_flags: SS_DISABLE, ss_size: 0 }, 0);
            deep(depth);
            0
        })
    };
    say!("1 MiB of a limit of 4: {}", run(4 << 20, 64));
    say!("3 MiB of a limit of 1: {}", run(1 << 20, 192));
    say!("12 MiB of a limit of 16: {}", run(16 << 20, 768));
}

fn processor_time() {
    let spin = || {
        loop {
            std::hint::black_box(0);
        }
    };
    let status = in_child(|| {
        set(CPU, 1, 5);
        spin()
    });
    say!("the soft limit: {status}");
    let status = in_child(|| {
        set(CPU, 1, 1);
        spin()
    });
    say!("the hard limit: {status}");
    let status = in_child(|| {
        signal::block(SIGXCPU);
        set(CPU, 1, RLIM_INFINITY);
        let (ret, info) = loop {
            let taken = signal::take(bit(SIGXCPU), 0);
            if taken.0.ok() {
                break taken;
            }
        };
        say!("taken: {ret}, code {}", info.si_code);
        0
    });
    say!("{status}");
}

fn processes() {
    in_child(|| {
        become_user(50_001);
        say!("set: {}", set(NPROC, 3, 3));
        let mut pids = Vec::new();
        let refused = loop {
            let ret = process::clone_here(SIGCHLD, std::ptr::null_mut(), std::ptr::null_mut());
            if ret.0 == 0 {
                loop {
                    process::sleep_ms(100_000);
                }
            }
            if !ret.ok() {
                break ret;
            }
            pids.push(ret.0 as i32);
        };
        say!("beside itself: {}, then {refused}", pids.len());
        let first = pids[0];
        kill(first, SIGKILL);
        wait(first);
        let again = process::clone_here(SIGCHLD, std::ptr::null_mut(), std::ptr::null_mut());
        if again.0 == 0 {
            process::exit(0);
        }
        say!("one less: {}", again.ok_or_error());
        0
    });
    in_child(|| {
        set(NPROC, 0, 0);
        say!("root is not held to it: {}", in_child(|| 4));
        0
    });
}

/// Sleepers that have become this user's are counted, in other processes too, until they end.
fn processes_that_change_hands() {
    const USER: u32 = 50_002;
    let theirs: Vec<i32> = (0..3)
        .map(|_| {
            let ready = process::Gate::new();
            let pid = process::child(|| {
                become_user(USER);
                ready.open();
                loop {
                    process::sleep_ms(100_000);
                }
            });
            ready.pass();
            pid
        })
        .collect();
    let room = |when: &str| {
        in_child(|| {
            set(NPROC, 6, 6);
            become_user(USER);
            let mut made = Vec::new();
            loop {
                let ret = process::clone_here(SIGCHLD, std::ptr::null_mut(), std::ptr::null_mut());
                if ret.0 == 0 {
                    loop {
                        process::sleep_ms(100_000);
                    }
                }
                if !ret.ok() {
                    say!("{when}: {} more, then {ret}", made.len());
                    break;
                }
                made.push(ret.0 as i32);
            }
            for pid in made {
                kill(pid, SIGKILL);
                wait(pid);
            }
            0
        });
    };
    room("beside three");
    kill(theirs[0], SIGKILL);
    wait(theirs[0]);
    room("beside two");
    for pid in &theirs[1..] {
        kill(*pid, SIGKILL);
        wait(*pid);
    }
    room("alone");
    room("alone again");
}

fn memory_locked() {
    in_child(|| {
        become_user(1000);
        let page = pages(4);
        say!("set: {}", set(MEMLOCK, 2 * PAGE as u64, 2 * PAGE as u64));
        say!("two pages: {}", sys!(SYS_mlock, page, 2 * PAGE));
        say!("the same again: {}", sys!(SYS_mlock, page, 2 * PAGE));
        say!("a third: {}", sys!(SYS_mlock, page.wrapping_add(2 * PAGE), PAGE));
        say!("MAP_LOCKED: {}", {
            memory::map(PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0).ok_or_error()
        });
        say!("after munlock: {} {}", sys!(SYS_munlock, page, PAGE), sys!(SYS_mlock, page.wrapping_add(2 * PAGE), PAGE));
        say!("mlockall: {}", sys!(SYS_mlockall, MCL_CURRENT));
        sys!(SYS_munlockall);
        say!("a limit of 0: {} {}", set(MEMLOCK, 0, 0), sys!(SYS_mlock, page, 1));
        0
    });
}

fn priorities() {
    in_child(|| {
        say!("NICE 25: {}, RTPRIO 10: {}", set(NICE, 25, 25), set(RTPRIO, 10, 10));
        become_user(1000);
        say!("nice -5: {}", sys!(SYS_setpriority, PRIO_PROCESS, 0, -5));
        say!("nice -6: {}", sys!(SYS_setpriority, PRIO_PROCESS, 0, -6));
        say!("priority 10: {}", sys!(SYS_sched_setscheduler, 0, SCHED_FIFO, &10i32));
        say!("priority 11: {}", sys!(SYS_sched_setscheduler, 0, SCHED_FIFO, &11i32));
        say!("lower: {}", sys!(SYS_sched_setscheduler, 0, SCHED_RR, &5i32));
        say!("none: {}", sys!(SYS_sched_setscheduler, 0, SCHED_OTHER, &0i32));
        0
    });
}

fn inherited_and_kept() {
    set(CORE, 11, 22);
    in_child(|| {
        say!("a child's: {}", get(CORE));
        set(CORE, 1, 2);
        0
    });
    say!("the parent's: {}", get(CORE));
    let text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with("Max core") || line.starts_with("Limit"));
    lines.for_each(|line| say!("{line}"));
}

fn infinite_values() {
    in_child(|| {
        say!("set: {}, {}", set(CORE, RLIM_INFINITY, RLIM_INFINITY), get(CORE));
        say!("almost: {}, {}", set(CORE, RLIM_INFINITY - 1, RLIM_INFINITY - 1), get(CORE));
        say!("soft infinite, hard not: {}", set(CORE, RLIM_INFINITY, 5));
        0
    });
}

fn core_files() {
    set(CORE, 0, 0);
    let status = in_child(|| {
        signal::kill_self(SIGABRT);
        0
    });
    say!("{status}");
    say!("no file: {}", open(c"core", O_RDONLY));
}
