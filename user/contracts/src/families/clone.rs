//! vfork(2), clone(2), clone3(2): what is shared, what is stored, what is refused.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, Ordering::SeqCst};

use libc::*;

use crate::file::{close, open};
use crate::memory::{pages, shared_words};
use crate::process::{self, Gate, as_user, child, clone_here, clone_on, kill, wait};
use crate::signal;
use crate::sys::{KERNEL, NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    share_files, share_directory, share_handlers, invalid_flags, own_stack, stores_ids, clear_tid_wakes, exit_signals, clone_parent, clone3_sizes, clone3_rules, clone3_chosen_ids, clear_handlers, vfork_waits_for_exec, vfork_waits_for_exit, vfork_killed,
}

static STEPS: AtomicI32 = AtomicI32::new(0);

extern "C" fn exec_true(gate: usize) -> i32 {
    // SAFETY: the gate outlives the child: its parent waits for it.
    unsafe { &*(gate as *const Gate) }.pass();
    STEPS.store(1, SeqCst);
    let argv = [c"true".as_ptr(), std::ptr::null()];
    sys!(SYS_execve, c"/bin/nothing", &argv, 0);
    STEPS.store(2, SeqCst);
    sys!(SYS_execve, c"/bin/true", &argv, 0);
    9
}

extern "C" fn exit_five(gate: usize) -> i32 {
    // SAFETY: as above.
    unsafe { &*(gate as *const Gate) }.pass();
    STEPS.store(1, SeqCst);
    sys!(SYS_dup3, 1, 40, 0);
    sys!(SYS_chdir, c"/");
    5
}

/// Has somebody else open the gate when this process sleeps.
fn open_when_asleep(gate: &Gate) -> i32 {
    let parent = sys!(SYS_getpid).0 as i32;
    child(|| {
        for _ in 0..5000 {
            // A parent of a vfork child waits where no signal reaches it.
            if matches!(process::state(parent), 'S' | 'D') {
                break;
            }
            process::sleep_ms(1);
        }
        gate.open();
        0
    })
}

fn vfork_waits_for_exec() {
    let gate = Gate::new();
    let opener = open_when_asleep(&gate);
    let mut stack = vec![0u8; 65536];
    let pid =
        clone_on(CLONE_VM | CLONE_VFORK | SIGCHLD, &mut stack, [null_mut(); 2], exec_true, &raw const gate as usize);
    say!("memory is shared, and the parent comes after: {}", STEPS.load(SeqCst));
    say!("{}", wait(pid.need() as i32));
    wait(opener);
}

fn vfork_waits_for_exit() {
    let gate = Gate::new();
    let opener = open_when_asleep(&gate);
    let mut stack = vec![0u8; 65536];
    let pid =
        clone_on(CLONE_VM | CLONE_VFORK | SIGCHLD, &mut stack, [null_mut(); 2], exit_five, &raw const gate as usize);
    say!("memory is shared, and the parent comes after: {}", STEPS.load(SeqCst));
    say!("{}", wait(pid.need() as i32));
    say!("descriptors are not shared: {}", sys!(SYS_fcntl, 40, F_GETFD, 0));
    let mut path = [0u8; 64];
    say!("nor is the directory: {}", sys!(SYS_getcwd, &mut path, 64));
    wait(opener);
    let pid = clone_here(CLONE_VFORK | SIGCHLD, null_mut(), null_mut()).need() as i32;
    if pid == 0 {
        process::sleep_ms(20);
        STEPS.store(77, SeqCst);
        process::exit(6);
    }
    say!("with memory of its own: {}", STEPS.load(SeqCst));
    wait(pid);
}

fn vfork_killed() {
    let gate = Gate::new();
    let told = Gate::new();
    let outer = child(|| {
        let mut stack = vec![0u8; 65536];
        told.open();
        clone_on(CLONE_VM | CLONE_VFORK | SIGCHLD, &mut stack, [null_mut(); 2], exit_five, &raw const gate as usize);
        0
    });
    told.pass();
    for _ in 0..5000 {
        if matches!(process::state(outer), 'S' | 'D') {
            break;
        }
        process::sleep_ms(1);
    }
    signal::handle(SIGUSR1, signal::count, 0);
    kill(outer, SIGKILL);
    say!("SIGKILL reaches a parent that waits for vfork: {}", wait(outer));
    gate.open();
}

fn share_files() {
    let here = open(c"/dev/null", O_RDONLY).fd();
    let pid = clone_here(CLONE_FILES | SIGCHLD, null_mut(), null_mut()).need() as i32;
    if pid == 0 {
        close(here);
        sys!(SYS_dup3, 1, 33, O_CLOEXEC);
        process::exit(0);
    }
    wait(pid);
    say!("closed by the child: {}", sys!(SYS_fcntl, here, F_GETFD, 0));
    say!("opened by the child: {}", sys!(SYS_fcntl, 33, F_GETFD, 0));
    let pid = clone_here(CLONE_FILES | SIGCHLD, null_mut(), null_mut()).need() as i32;
    if pid == 0 {
        say!("unshare: {}", sys!(SYS_unshare, CLONE_FILES));
        close(33);
        process::exit(0);
    }
    wait(pid);
    say!("after unshare: {}", sys!(SYS_fcntl, 33, F_GETFD, 0));
    let pid = clone_here(CLONE_FILES | SIGCHLD, null_mut(), null_mut()).need() as i32;
    if pid == 0 {
        let argv = [c"true".as_ptr(), std::ptr::null()];
        sys!(SYS_execve, c"/bin/true", &argv, 0);
        process::exit(1);
    }
    say!("a child that shares and execs: {}", wait(pid));
    say!("close-on-exec was in a table of its own: {}", sys!(SYS_fcntl, 33, F_GETFD, 0));
}

fn share_directory() {
    sys!(SYS_mkdirat, AT_FDCWD, c"d", 0o755);
    let run = |flags: i32| {
        let pid = clone_here(flags | SIGCHLD, null_mut(), null_mut()).need() as i32;
        if pid == 0 {
            sys!(SYS_chdir, c"d");
            sys!(SYS_umask, 0o77);
            process::exit(0);
        }
        wait(pid);
        let mut path = [0u8; 64];
        let length = sys!(SYS_getcwd, &mut path, 64).need() as usize;
        let umask = sys!(SYS_umask, 0o22).0;
        format!("{} {umask:o}", String::from_utf8_lossy(&path[..length - 1]))
    };
    say!("own: {}", run(0));
    say!("CLONE_FS: {}", run(CLONE_FS));
}

extern "C" fn change_handlers(_: usize) -> i32 {
    signal::ignore(SIGUSR1);
    signal::block(SIGUSR2);
    0
}

fn share_handlers() {
    let mut stack = vec![0u8; 65536];
    for (name, flags) in [("CLONE_VM", CLONE_VM), ("CLONE_VM | CLONE_SIGHAND", CLONE_VM | CLONE_SIGHAND)] {
        signal::handle(SIGUSR1, signal::count, 0);
        let pid = clone_on(flags | SIGCHLD, &mut stack, [null_mut(); 2], change_handlers, 0);
        wait(pid.need() as i32);
        signal::kill_self(SIGUSR1);
        say!("{name}: handled {}, blocked {}", signal::caught(), signal::names(signal::mask(SIG_BLOCK, 0)));
    }
}

fn invalid_flags() {
    for (name, flags) in [
        ("CLONE_THREAD", CLONE_THREAD),
        ("CLONE_THREAD | CLONE_VM", CLONE_THREAD | CLONE_VM),
        ("CLONE_SIGHAND", CLONE_SIGHAND),
        ("CLONE_THREAD | CLONE_SIGHAND", CLONE_THREAD | CLONE_SIGHAND),
        ("CLONE_NEWNS | CLONE_FS", CLONE_NEWNS | CLONE_FS),
        ("CLONE_NEWUSER | CLONE_FS", CLONE_NEWUSER | CLONE_FS),
        ("CLONE_PIDFD | CLONE_DETACHED", CLONE_PIDFD | CLONE_DETACHED),
        ("CLONE_PIDFD | CLONE_PARENT_SETTID", CLONE_PIDFD | CLONE_PARENT_SETTID),
        (
            "CLONE_PIDFD | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM",
            CLONE_PIDFD | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM,
        ),
    ] {
        let mut word = 0i32;
        let ret = clone_here(flags | SIGCHLD, &mut word, null_mut());
        if ret.0 == 0 {
            process::exit(0);
        }
        say!("{name}: {}", ret.ok_or_error());
    }
    // What is obsolete or only a hint.
    for (name, flags) in [
        ("CLONE_DETACHED", CLONE_DETACHED),
        ("CLONE_UNTRACED", CLONE_UNTRACED),
        ("CLONE_PTRACE", CLONE_PTRACE),
        ("CLONE_IO", CLONE_IO),
        ("CLONE_SYSVSEM", CLONE_SYSVSEM),
    ] {
        let ret = clone_here(flags | SIGCHLD, null_mut(), null_mut());
        if ret.0 == 0 {
            process::exit(3);
        }
        say!("{name}: {}", wait(ret.need() as i32));
    }
}

extern "C" fn look_at_stack(place: usize) -> i32 {
    let here = 0u8;
    let at = &raw const here as usize;
    i32::from((place..place + 65536).contains(&at))
}

fn own_stack() {
    let mut stack = vec![0u8; 65536];
    let place = stack.as_ptr() as usize;
    let pid = clone_on(CLONE_VM | SIGCHLD, &mut stack, [null_mut(); 2], look_at_stack, place);
    say!("CLONE_VM, the child is on its stack: {}", wait(pid.need() as i32));
    let pid = clone_on(SIGCHLD, &mut stack, [null_mut(); 2], look_at_stack, place);
    say!("a copy: {}", wait(pid.need() as i32));
    let pid = clone_on(CLONE_VM | CLONE_VFORK | SIGCHLD, &mut stack, [null_mut(); 2], look_at_stack, place);
    say!("CLONE_VFORK: {}", wait(pid.need() as i32));
}

fn stores_ids() {
    let words = shared_words();
    let word = |index: usize| words[index].as_ptr().cast::<i32>();
    let start = |flags: i32, parent: *mut i32, child: *mut i32| {
        let pid = clone_here(flags | SIGCHLD, parent, child).need() as i32;
        if pid == 0 {
            words[8].store(words[0].load(SeqCst), SeqCst);
            words[9].store(words[1].load(SeqCst), SeqCst);
            process::exit(0);
        }
        wait(pid);
        pid
    };
    let pid = start(CLONE_PARENT_SETTID | CLONE_CHILD_SETTID, word(0), word(1));
    say!("in the parent: {}", words[0].load(SeqCst) as i32 == pid);
    say!("before the child runs: {} {}", words[8].load(SeqCst) as i32 == pid, words[9].load(SeqCst) as i32 == pid);
    let own = pages(1).cast::<i32>();
    let pid = start(CLONE_CHILD_SETTID, null_mut(), own);
    // SAFETY: a page of this process.
    say!("in private memory it is the child's: {} {}", unsafe { *own }, pid > 0);
    start(CLONE_PARENT_SETTID | CLONE_CHILD_SETTID, NOWHERE.cast(), KERNEL.cast());
    say!("bad places are passed over");
}

fn clear_tid_wakes() {
    let words = shared_words();
    let gate = Gate::new();
    let pid = clone_here(CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | SIGCHLD, null_mut(), words[0].as_ptr().cast());
    let pid = pid.need() as i32;
    if pid == 0 {
        gate.pass();
        process::exit(0);
    }
    // CLEARTID is for those who share memory: alone, nobody could see it in private memory.
    while words[0].load(SeqCst) == 0 {
        process::sleep_ms(1);
    }
    gate.open();
    wait(pid);
    say!("cleared in shared memory, by a child with memory of its own: {}", words[0].load(SeqCst) == 0);
    let mut stack = vec![0u8; 65536];
    let mut word = 1i32;
    let flags = CLONE_VM | CLONE_CHILD_CLEARTID | SIGCHLD;
    let place: *mut i32 = &mut word;
    let opener = open_when_asleep(&gate);
    let pid = clone_on(flags, &mut stack, [null_mut(), place], exit_five, &raw const gate as usize).need() as i32;
    let time = timespec { tv_sec: 10, tv_nsec: 0 };
    say!("futex: {}", sys!(SYS_futex, place, FUTEX_WAIT, 1, &time));
    // SAFETY: a live integer that the kernel has changed.
    say!("the word: {}", unsafe { place.read_volatile() });
    say!("{}", wait(pid));
    wait(opener);
}

fn exit_signals() {
    for signal in [SIGUSR1, 0, SIGCHLD, 64] {
        let set = if signal == 0 { signal::bit(SIGCHLD) } else { signal::bit(signal) };
        signal::mask(SIG_BLOCK, set);
        let pid = clone_here(signal, null_mut(), null_mut()).need() as i32;
        if pid == 0 {
            process::exit(3);
        }
        let (taken, info) = signal::take(set, if signal == 0 { 50 } else { 10_000 });
        let mut status = 0i32;
        say!("{signal}: took {taken}, code {}", info.si_code);
        say!("wait: {}", Ret(sys!(SYS_wait4, pid, &mut status, __WALL, 0).0 - i64::from(pid)));
    }
    let ret = clone_here(65, null_mut(), null_mut());
    if ret.0 == 0 {
        process::exit(0);
    }
    say!("signal 65: {}", ret.ok_or_error());
    let ret = clone_here(255, null_mut(), null_mut());
    if ret.0 == 0 {
        process::exit(0);
    }
    say!("signal 255: {}", ret.ok_or_error());
    signal::block(SIGCHLD);
    signal::block(SIGUSR1);
    let pid = clone_here(SIGUSR1, null_mut(), null_mut()).need() as i32;
    if pid == 0 {
        let argv = [c"true".as_ptr(), std::ptr::null()];
        sys!(SYS_execve, c"/bin/true", &argv, 0);
    }
    let (taken, _) = signal::take(signal::bit(SIGCHLD) | signal::bit(SIGUSR1), 10_000);
    say!("execve makes it SIGCHLD: {taken}");
    wait(pid);
}

fn clone_parent() {
    let words = shared_words();
    let outer = child(|| {
        let pid = clone_here(CLONE_PARENT | SIGUSR1, null_mut(), null_mut()).need() as i32;
        if pid == 0 {
            words[1].store(sys!(SYS_getppid).0 as u32, SeqCst);
            process::exit(4);
        }
        words[0].store(pid as u32, SeqCst);
        say!("not its own: {:?}", process::try_wait(pid).map(|status| status.to_string()));
        0
    });
    say!("{}", wait(outer));
    say!("the other: {}", wait(words[0].load(SeqCst) as i32));
    say!("has its creator's parent: {}", i64::from(words[1].load(SeqCst)) == sys!(SYS_getpid).0);
}

/// `struct clone_args`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct Args {
    pub flags: u64,
    pub pidfd: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: u64,
    pub stack: u64,
    pub stack_size: u64,
    pub tls: u64,
    pub set_tid: u64,
    pub set_tid_size: u64,
    pub cgroup: u64,
    pub more: [u64; 4],
}

fn clone3(args: &Args, size: usize) -> String {
    let ret = sys!(SYS_clone3, args, size);
    if ret.0 == 0 {
        process::exit(0);
    }
    if ret.ok() && args.exit_signal != 0 {
        wait(ret.0 as i32);
    }
    ret.ok_or_error()
}

fn clone3_sizes() {
    let args = Args { exit_signal: SIGCHLD as u64, ..Args::default() };
    for size in [0, 8, 63, 64, 72, 80, 88, 96, 120] {
        say!("{size}: {}", clone3(&args, size));
    }
    let more = Args { more: [0, 1, 0, 0], ..args };
    say!("96 of more: {}", clone3(&more, 96));
    say!("104, not zero: {}", clone3(&more, 104));
    let page = pages(2);
    // SAFETY: two pages, far more than the arguments.
    unsafe { page.cast::<Args>().write(args) };
    let long = |size: usize| {
        let ret = sys!(SYS_clone3, page, size);
        if ret.0 == 0 {
            process::exit(0);
        }
        ret.ok_or_error()
    };
    say!("a page: {}", long(4096));
    say!("more than a page: {}", long(4097));
    say!("no memory: {}", sys!(SYS_clone3, NOWHERE, 64));
    say!("no memory and too short: {}", sys!(SYS_clone3, NOWHERE, 8));
    say!("no memory and too long: {}", sys!(SYS_clone3, NOWHERE, 8192));
    say!("half in memory: {}", sys!(SYS_clone3, page.wrapping_add(8192 - 32), 64));
}

fn clone3_rules() {
    let base = Args { exit_signal: SIGCHLD as u64, ..Args::default() };
    let stack = pages(4) as u64;
    let thread = (CLONE_THREAD | CLONE_SIGHAND | CLONE_VM) as u64;
    let cases: &[(&str, Args)] = &[
        ("signal 65", Args { exit_signal: 65, ..base }),
        ("signal 1 << 32", Args { exit_signal: 1 << 32, ..base }),
        ("signal in the flags", Args { flags: SIGCHLD as u64, exit_signal: 0, ..base }),
        ("CLONE_DETACHED", Args { flags: CLONE_DETACHED as u64, ..base }),
        ("bit 34", Args { flags: 1 << 34, ..base }),
        ("bit 63", Args { flags: 1 << 63, ..base }),
        ("a stack without size", Args { stack, ..base }),
        ("a size without stack", Args { stack_size: 4096, ..base }),
        ("a stack out of reach", Args { stack: 1 << 60, stack_size: 4096, ..base }),
        ("a thread with a signal", Args { flags: thread, ..base }),
        ("CLONE_PARENT with a signal", Args { flags: CLONE_PARENT as u64, ..base }),
        ("CLONE_SIGHAND and CLEAR", Args { flags: (CLONE_SIGHAND | CLONE_VM) as u64 | 1 << 32, ..base }),
        ("CLEAR alone", Args { flags: 1 << 32, ..base }),
        ("CLONE_INTO_CGROUP of nothing", Args { flags: 1 << 33, cgroup: 99, ..base }),
        ("CLONE_PIDFD to nowhere", Args { flags: CLONE_PIDFD as u64, pidfd: 8, ..base }),
        ("CLONE_PIDFD to the kernel", Args { flags: CLONE_PIDFD as u64, pidfd: KERNEL as u64, ..base }),
        ("plain", base),
    ];
    for (name, args) in cases {
        say!("{name}: {}", clone3(args, 88));
    }
    say!("no child is left: {}", wait(-1));
}

fn clone3_chosen_ids() {
    let base = Args { exit_signal: SIGCHLD as u64, ..Args::default() };
    let ids = [30_001i32, 30_002];
    let place = &raw const ids as u64;
    say!("an id without a list: {}", clone3(&Args { set_tid_size: 1, ..base }, 88));
    say!("a list without size: {}", clone3(&Args { set_tid: place, ..base }, 88));
    say!("too many: {}", clone3(&Args { set_tid: place, set_tid_size: 33, ..base }, 88));
    let call = |id: i32| {
        let ret = sys!(SYS_clone3, &Args { set_tid: &raw const id as u64, set_tid_size: 1, ..base }, 88);
        if ret.0 == 0 {
            process::exit(i32::from(sys!(SYS_getpid).0 != i64::from(id)));
        }
        let status = ret.ok().then(|| wait(ret.0 as i32).to_string());
        format!("{ret} {}", status.unwrap_or_default())
    };
    say!("30001: {}", call(30_001));
    say!("again: {}", call(30_001));
    say!("0: {}", call(0));
    say!("-1: {}", call(-1));
    say!("too large: {}", call(i32::MAX));
    say!("taken: {}", call(1));
    as_user(1000, || {
        say!("by a user: {}", call(30_003));
        0
    });
    say!("two levels: {}", clone3(&Args { set_tid: place, set_tid_size: 2, ..base }, 88));
    say!("nowhere: {}", clone3(&Args { set_tid: 8, set_tid_size: 1, ..base }, 88));
}

fn clear_handlers() {
    signal::handle(SIGUSR1, signal::count, SA_NODEFER);
    signal::ignore(SIGUSR2);
    signal::block(SIGHUP);
    let args = Args { flags: 1 << 32, exit_signal: SIGCHLD as u64, ..Args::default() };
    let ret = sys!(SYS_clone3, &args, 88);
    if ret.0 == 0 {
        let mut old = signal::Action { handler: 9, flags: 9, restorer: 0, mask: 0 };
        signal::action(SIGUSR1, None, Some(&mut old));
        say!("a handled signal: {:#x} {:#x}", old.handler, old.flags);
        signal::action(SIGUSR2, None, Some(&mut old));
        say!("an ignored one: {:#x}", old.handler);
        say!("blocked: {}", signal::names(signal::mask(SIG_BLOCK, 0)));
        signal::kill_self(SIGUSR1);
        process::exit(0);
    }
    say!("{}", wait(ret.need() as i32));
}
