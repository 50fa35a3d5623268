//! execve(2) and execveat(2): what a new program finds, and what is refused.

use std::ffi::{CStr, CString};
use std::ptr::null;

use libc::*;

use crate::file::{self, close, create, open};
use crate::memory::{PAGE, pages, poke};
use crate::process::{self, Status, as_user, child, in_child, wait};
use crate::signal;
use crate::sys::{KERNEL, NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    arguments, environment, no_arguments, bad_pointers, long_strings, many_strings, stack_limit_and_strings, not_programs, not_permitted, broken_headers, small_program, paths, descriptors, signals, execveat_paths, execveat_flags, by_a_thread, of_threads, names, attributes, timers, memory_is_new, failed_call_changes_nothing, interpreter_missing,
}

pub(super) fn c(text: &str) -> CString {
    CString::new(text).unwrap_or_default()
}

/// execve with these words.
pub(super) fn exec_with(path: &CStr, words: &[&CStr], variables: &[&CStr]) -> Ret {
    let list = |strings: &[&CStr]| {
        let mut list: Vec<*const c_char> = strings.iter().map(|string| string.as_ptr()).collect();
        list.push(null());
        list
    };
    sys!(SYS_execve, path, &list(words)[..], &list(variables)[..])
}

/// Runs this program in a child, in one of its guises; the path it is called by and more words may follow.
pub(super) fn run_as(path: &CStr, guise: &CStr, more: &[&CStr]) -> Status {
    in_child(|| exec_as(path, guise, more).errno())
}

fn exec_as(path: &CStr, guise: &CStr, more: &[&CStr]) -> Ret {
    let mut words = vec![c"contracts", c"--as", guise];
    words.extend(more);
    exec_with(path, &words, &[])
}

pub(super) const SELF: &CStr = c"/proc/self/exe";

/// What an execve that should fail comes to.
pub(super) fn refused(path: &CStr) -> String {
    match in_child(|| exec_with(path, &[c"x"], &[]).errno()) {
        Status::Exited(errno) => Ret(-i64::from(errno)).to_string(),
        other => other.to_string(),
    }
}

pub(super) fn write_file(path: &CStr, contents: &[u8], mode: u32) {
    let fd = open(path, O_CREAT | O_RDWR | O_TRUNC).fd();
    sys!(SYS_write, fd, contents, contents.len());
    sys!(SYS_fchmod, fd, mode);
    close(fd);
}

/// A copy of this program, which may have another owner and mode.
pub(super) fn copy_of_self(path: &CStr, owner: (u32, u32), mode: u32) {
    let name = path.to_str().unwrap_or_default();
    if std::fs::copy("/proc/self/exe", name).is_err() {
        say!("no copy");
    }
    sys!(SYS_fchownat, AT_FDCWD, path, owner.0, owner.1, 0);
    sys!(SYS_fchmodat, AT_FDCWD, path, mode);
}

fn arguments() {
    let argv = [c"contracts".as_ptr(), c"--as".as_ptr(), c"arguments".as_ptr(), c"one".as_ptr(), null()];
    let envp = [null::<u8>()];
    say!("not there: {}", sys!(SYS_execve, c"/nowhere", &argv, &envp));
    sys!(SYS_execve, c"/proc/self/exe", &argv, &envp);
}

fn environment() {
    let words = [c"contracts", c"--as", c"environment"];
    for variables in [&[][..], &[c"A=1", c"B=", c"A=2"], &[c"no sign", c"=x", c"Z=y"]] {
        say!("{} variables:", variables.len());
        in_child(|| exec_with(SELF, &words, variables).errno());
    }
    in_child(|| {
        let list: Vec<*const c_char> = words.iter().map(|word| word.as_ptr()).chain([null()]).collect();
        say!("none at all:");
        sys!(SYS_execve, SELF, &list[..], 0).errno()
    });
}

fn no_arguments() {
    // A program without argv[0] is given an empty one; this one then runs nothing of its own, as its usage says.
    write_file(c"script", b"#!/bin/echo inter\n", 0o755);
    for (name, list) in [("an empty list", Some([null::<c_char>()])), ("none at all", None)] {
        say!("{name}:");
        in_child(|| {
            let at = list.as_ref().map_or(null(), |list| list.as_ptr());
            sys!(SYS_execve, c"script", at, 0).errno()
        });
    }
    let status = in_child(|| {
        write_file(c"count", &counting_program(), 0o755);
        sys!(SYS_execve, c"count", 0, 0).errno()
    });
    say!("argc of a program without any: {status}");
}

fn bad_pointers() {
    let argv = [c"x".as_ptr(), null()];
    say!("no path: {}", sys!(SYS_execve, 0, &argv, 0));
    say!("path nowhere: {}", sys!(SYS_execve, NOWHERE, &argv, 0));
    say!("path in the kernel: {}", sys!(SYS_execve, KERNEL, &argv, 0));
    say!("argv nowhere: {}", sys!(SYS_execve, SELF, NOWHERE, 0));
    say!("envp nowhere: {}", sys!(SYS_execve, SELF, &argv, NOWHERE));
    let bad = [c"x".as_ptr(), NOWHERE.cast_const().cast(), null()];
    say!("a string nowhere: {}", sys!(SYS_execve, SELF, &bad, 0));
    say!("a variable nowhere: {}", sys!(SYS_execve, SELF, &argv, &bad));
    let page = pages(2);
    sys!(SYS_munmap, page.wrapping_add(PAGE), PAGE);
    poke(page.wrapping_add(PAGE - 1), b'x');
    let open_end = [page.wrapping_add(PAGE - 1).cast_const().cast(), null::<c_char>()];
    say!("a string without an end: {}", sys!(SYS_execve, SELF, &open_end, 0));
    let last = page.wrapping_add(PAGE - 8).cast::<usize>();
    // SAFETY: the last words of a page of this process.
    unsafe { last.write(c"x".as_ptr() as usize) };
    say!("a list without an end: {}", sys!(SYS_execve, SELF, last, 0));
    say!("no such file comes first: {}", sys!(SYS_execve, c"/nowhere", NOWHERE, NOWHERE));
}

fn long_strings() {
    for length in [131_070, 131_071, 131_072, 200_000] {
        let word = c(&"x".repeat(length));
        let status = run_as(SELF, c"count", &[&word]);
        say!("an argument of {length}: {}", shown(status));
    }
    for length in [131_071, 131_072] {
        let variable = c(&format!("V={}", "x".repeat(length - 2)));
        let status = in_child(|| exec_with(SELF, &[c"contracts", c"--as", c"count"], &[&variable]).errno());
        say!("a variable of {length}: {}", shown(status));
    }
    let path = c(&format!("./{}", "x".repeat(4094)));
    say!("a path of 4096: {}", refused(&path));
}

/// The status that a child ends with that has only run another.
pub(super) fn ended(status: Status) -> i32 {
    match status {
        Status::Exited(value) => value,
        _ => 255,
    }
}

/// Status 0, or the errno.
pub(super) fn shown(status: Status) -> String {
    match status {
        Status::Exited(0) => "ok".into(),
        Status::Exited(errno) => Ret(-i64::from(errno)).to_string(),
        other => other.to_string(),
    }
}

fn many_strings() {
    let word = c(&"x".repeat(99));
    for count in [1_000, 15_000, 25_000] {
        let words = vec![word.as_c_str(); count];
        say!("{count} of 100 bytes: {}", shown(run_as(SELF, c"count", &words)));
    }
    let empty = vec![c""; 100_000];
    say!("100000 empty ones: {}", shown(run_as(SELF, c"count", &empty)));
}

fn stack_limit_and_strings() {
    let word = c(&"x".repeat(999));
    for (limit, count) in [(1 << 20, 200), (1 << 20, 300), (128 << 10, 100), (128 << 10, 140), (64 << 20, 6500)] {
        let status = in_child(|| {
            let value = rlimit { rlim_cur: limit, rlim_max: RLIM_INFINITY };
            sys!(SYS_setrlimit, RLIMIT_STACK, &value);
            exec_as(SELF, c"count", &vec![word.as_c_str(); count]).errno()
        });
        say!("a stack of {limit}, {count} strings of 1000: {}", shown(status));
    }
}

fn not_programs() {
    for (name, contents) in
        [("empty", &b""[..]), ("text", b"echo hello\n"), ("ELF's first letters", b"\x7fELF"), ("zeros", &[0; 200])]
    {
        write_file(c"f", contents, 0o755);
        say!("{name}: {}", refused(c"./f"));
    }
    say!("a directory: {}", refused(c"."));
    say!("a device: {}", refused(c"/dev/null"));
    sys!(SYS_mknodat, AT_FDCWD, c"fifo", S_IFIFO | 0o755, 0);
    say!("a fifo: {}", refused(c"fifo"));
    sys!(SYS_mknodat, AT_FDCWD, c"socket", S_IFSOCK | 0o755, 0);
    say!("a socket: {}", refused(c"socket"));
    say!("a link of /proc to a pipe: {}", refused(&c(&format!("/proc/self/fd/{}", file::pipe()[0]))));
}

fn not_permitted() {
    sys!(SYS_mkdirat, AT_FDCWD, c"locked", 0o700);
    write_file(c"locked/f", &small(), 0o755);
    for (name, mode) in [
        ("nobody's", 0o644),
        ("others'", 0o001),
        ("the owner's", 0o100),
        ("the group's", 0o010),
        ("all but read", 0o111),
    ] {
        write_file(c"f", &small(), mode);
        let root = refused(c"./f");
        as_user(1000, || {
            say!("{name}, mode {mode:o}: root {root}, a user {}", refused(c"./f"));
            0
        });
    }
    as_user(1000, || {
        say!("in a locked directory: {}", refused(c"locked/f"));
        0
    });
    write_file(c"g", &small(), 0o654);
    sys!(SYS_fchownat, AT_FDCWD, c"g", 1000, 1000, 0);
    as_user(1000, || {
        say!("the owner's lack of a right counts: {}", refused(c"./g"));
        0
    });
}

/// A program of a few instructions: an ELF header, one segment, the code.
pub(super) fn program(code: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let half = |bytes: &mut Vec<u8>, value: u16| bytes.extend_from_slice(&value.to_le_bytes());
    let word = |bytes: &mut Vec<u8>, value: u32| bytes.extend_from_slice(&value.to_le_bytes());
    let long = |bytes: &mut Vec<u8>, value: u64| bytes.extend_from_slice(&value.to_le_bytes());
    // ET_EXEC, EM_AARCH64.
    half(&mut bytes, 2);
    half(&mut bytes, 183);
    word(&mut bytes, 1);
    // Entry, program headers, no section headers.
    long(&mut bytes, 0x40_0000 + 120);
    long(&mut bytes, 64);
    long(&mut bytes, 0);
    word(&mut bytes, 0);
    for value in [64, 56, 1, 64, 0, 0] {
        half(&mut bytes, value);
    }
    // PT_LOAD, to read and execute.
    word(&mut bytes, 1);
    word(&mut bytes, 5);
    let size = 120 + 4 * code.len() as u64;
    for value in [0, 0x40_0000, 0x40_0000, size, size, 4096] {
        long(&mut bytes, value);
    }
    code.iter().for_each(|instruction| word(&mut bytes, *instruction));
    bytes
}

/// `exit(42)`.
pub(super) fn small() -> Vec<u8> {
    // mov x0, #42; mov x8, #93; svc 0
    program(&[0xd280_0540, 0xd280_0ba8, 0xd400_0001])
}

/// `exit(argc)`.
fn counting_program() -> Vec<u8> {
    // ldr x0, [sp]; mov x8, #93; svc 0
    program(&[0xf940_03e0, 0xd280_0ba8, 0xd400_0001])
}

fn small_program() {
    write_file(c"f", &small(), 0o755);
    say!("{}", in_child(|| exec_with(c"./f", &[c"f"], &[]).errno()));
    // Registers at the start: x0 is 0.
    write_file(c"f", &program(&[0xd280_0ba8, 0xd400_0001]), 0o755);
    say!("x0 at the start: {}", in_child(|| exec_with(c"./f", &[c"f"], &[]).errno()));
    // and x0, sp, #15
    write_file(c"f", &program(&[0x9100_03e1, 0x9240_0c20, 0xd280_0ba8, 0xd400_0001]), 0o755);
    say!("the stack pointer's last bits: {}", in_child(|| exec_with(c"./f", &[c"f"], &[]).errno()));
    write_file(c"f", &counting_program(), 0o755);
    say!("argc: {}", in_child(|| exec_with(c"./f", &[c"f", c"g", c"h"], &[]).errno()));
    // mov x0, x30 and x29, which must be zero.
    write_file(c"f", &program(&[0xaa1d_03c0, 0xd280_0ba8, 0xd400_0001]), 0o755);
    say!("frame and link: {}", in_child(|| exec_with(c"./f", &[c"f"], &[]).errno()));
    // fmov x0, d31
    write_file(c"f", &program(&[0x9e66_03e0, 0xd280_0ba8, 0xd400_0001]), 0o755);
    say!("a vector register: {}", in_child(|| exec_with(c"./f", &[c"f"], &[]).errno()));
}

fn broken_headers() {
    let with = |changes: &[(usize, &[u8])]| {
        let mut bytes = small();
        for (at, value) in changes {
            bytes[*at..*at + value.len()].copy_from_slice(value);
        }
        write_file(c"f", &bytes, 0o755);
        refused(c"./f")
    };
    say!("another first letter: {}", with(&[(0, b"\x7e")]));
    say!("type 1: {}", with(&[(16, &[1])]));
    say!("type 4: {}", with(&[(16, &[4])]));
    say!("another machine: {}", with(&[(18, &[62])]));
    say!("program headers of another size: {}", with(&[(54, &[55])]));
    say!("no program headers: {}", with(&[(56, &[0])]));
    say!("too many program headers: {}", with(&[(56, &[0xff, 0xff])]));
    say!("program headers after the end: {}", with(&[(32, &[0, 0, 1])]));
    say!("cut within the header: {}", {
        write_file(c"f", &small()[..63], 0o755);
        refused(c"./f")
    });
    say!("cut within the program headers: {}", {
        write_file(c"f", &small()[..100], 0o755);
        refused(c"./f")
    });
}

fn interpreter_missing() {
    // PT_INTERP in the place of the code, before the segment.
    let with = |name: &[u8], size: u64| {
        let mut bytes = small();
        bytes[56] = 2;
        let mut header = Vec::new();
        header.extend_from_slice(&3u32.to_le_bytes());
        header.extend_from_slice(&4u32.to_le_bytes());
        for value in [0x200u64, 0x40_0200, 0x40_0200, size, size, 1] {
            header.extend_from_slice(&value.to_le_bytes());
        }
        bytes.splice(120..120, header);
        bytes.resize(0x200, 0);
        bytes.extend_from_slice(name);
        write_file(c"f", &bytes, 0o755);
        refused(c"./f")
    };
    say!("not there: {}", with(b"/nowhere\0", 9));
    say!("a directory: {}", with(b"/bin\0", 5));
    say!("text: {}", {
        write_file(c"text", b"hello, this is no program and long enough to be looked at as a header of one.", 0o755);
        with(b"./text\0", 7)
    });
    say!("not to be run: {}", {
        write_file(c"locked", b"x", 0o644);
        with(b"./locked\0", 9)
    });
    say!("a name without an end: {}", with(b"/nowhere", 8));
    say!("a name of one: {}", with(b"\0", 1));
    say!("too long a name: {}", with(b"/nowhere\0", 5000));
}

fn paths() {
    write_file(c"f", &small(), 0o755);
    sys!(SYS_symlinkat, c"f", AT_FDCWD, c"link");
    sys!(SYS_symlinkat, c"loop", AT_FDCWD, c"loop");
    sys!(SYS_symlinkat, c"nothing", AT_FDCWD, c"dangling");
    for path in [c"f", c"./f", c"link", c"loop", c"dangling", c"f/", c"f/x", c"nothing/x", c"", c"link/."] {
        say!("{path:?}: {}", in_child(|| exec_with(path, &[c"f"], &[]).errno()));
    }
}

fn descriptors() {
    let fd = create(c"f", "0123456789");
    sys!(SYS_lseek, fd, 5, SEEK_SET);
    sys!(SYS_dup3, fd, 20, O_CLOEXEC);
    sys!(SYS_dup3, fd, 21, 0);
    sys!(SYS_dup3, fd, 40, O_CLOEXEC);
    sys!(SYS_dup3, fd, 41, 0);
    sys!(SYS_fcntl, 41, F_SETFD, FD_CLOEXEC);
    sys!(SYS_fcntl, 41, F_SETFD, 0);
    exec_as(SELF, c"descriptors", &[]);
}

fn signals() {
    signal::handle(SIGUSR1, signal::count, SA_RESTART | SA_NODEFER);
    signal::ignore(SIGUSR2);
    signal::ignore(SIGCHLD);
    signal::handle(SIGTERM, signal::count, SA_NOCLDWAIT);
    signal::mask(SIG_BLOCK, signal::bit(SIGHUP) | signal::bit(SIGUSR1) | signal::bit(40));
    signal::kill_self(SIGHUP);
    signal::kill_self(40);
    process::kill(sys!(SYS_getpid).0 as i32, SIGUSR1);
    exec_as(SELF, c"signals", &[]);
}

fn execveat_paths() {
    let call = |fd: i32, path: &CStr, flags: i32| {
        let status = in_child(|| {
            let words = [c"contracts".as_ptr(), c"--as".as_ptr(), c"names".as_ptr(), null()];
            sys!(SYS_execveat, fd, path, &words, 0, flags).errno()
        });
        shown(status)
    };
    copy_of_self(c"copy", (0, 0), 0o755);
    sys!(SYS_mkdirat, AT_FDCWD, c"d", 0o755);
    let here = open(c".", O_RDONLY | O_DIRECTORY).fd();
    let fd = open(c"copy", O_RDONLY).fd();
    let path_fd = open(c"copy", O_PATH).fd();
    let secret = open(c"copy", O_RDONLY | O_CLOEXEC).fd();
    say!("relative: {}", call(here, c"copy", 0));
    say!("at the directory: {}", call(AT_FDCWD, c"copy", 0));
    say!("absolute, whatever the descriptor: {}", call(-1, SELF, 0));
    say!("a descriptor: {}", call(fd, c"", AT_EMPTY_PATH));
    say!("O_PATH: {}", call(path_fd, c"", AT_EMPTY_PATH));
    say!("O_CLOEXEC: {}", call(secret, c"", AT_EMPTY_PATH));
    say!("without AT_EMPTY_PATH: {}", call(fd, c"", 0));
    say!("a directory: {}", call(here, c"", AT_EMPTY_PATH));
    say!("closed: {}", call(99, c"", AT_EMPTY_PATH));
    say!("closed, relative: {}", call(99, c"copy", 0));
    say!("a file as directory: {}", call(fd, c"copy", 0));
}

fn execveat_flags() {
    write_file(c"f", &small(), 0o755);
    sys!(SYS_symlinkat, c"f", AT_FDCWD, c"link");
    let call = |fd: i32, path: &CStr, flags: i32| match in_child(|| {
        sys!(SYS_execveat, fd, path, &[c"f".as_ptr(), null()], 0, flags).errno()
    }) {
        Status::Exited(42) => "runs".to_string(),
        other => shown(other),
    };
    say!("a link: {}", call(AT_FDCWD, c"link", 0));
    say!("a link, AT_SYMLINK_NOFOLLOW: {}", call(AT_FDCWD, c"link", AT_SYMLINK_NOFOLLOW));
    say!("a file, AT_SYMLINK_NOFOLLOW: {}", call(AT_FDCWD, c"f", AT_SYMLINK_NOFOLLOW));
    say!("unknown flags: {} {}", call(AT_FDCWD, c"f", 1), call(AT_FDCWD, c"f", 0x10000));
    say!("unknown flags and no file: {}", call(AT_FDCWD, c"nothing", 1));
    say!("AT_EMPTY_PATH with a path: {}", call(AT_FDCWD, c"f", AT_EMPTY_PATH));
    say!("AT_EMPTY_PATH at the directory: {}", call(AT_FDCWD, c"", AT_EMPTY_PATH));
    let pipe = file::pipe()[0];
    say!("a pipe: {}", call(pipe, c"", AT_EMPTY_PATH));
    let memory = sys!(SYS_memfd_create, c"name", 0).fd();
    let bytes = small();
    sys!(SYS_write, memory, &bytes[..], bytes.len());
    say!("a file in memory: {}", call(memory, c"", AT_EMPTY_PATH));
    sys!(SYS_fchmod, memory, 0o600);
    say!("not to be run: {}", call(memory, c"", AT_EMPTY_PATH));
}

fn by_a_thread() {
    let pid = child(|| {
        std::thread::spawn(|| {
            signal::block(SIGUSR1);
            signal::block(SIGUSR2);
            signal::kill_self(SIGUSR1);
            process::kill(sys!(SYS_getpid).0 as i32, SIGUSR2);
            exec_as(SELF, c"threads", &[])
        });
        loop {
            signal::block(SIGUSR2);
            process::sleep_ms(100_000);
        }
    });
    say!("{}", wait(pid));
    let pid = child(|| {
        std::thread::spawn(|| {
            let leader = sys!(SYS_getpid).0 as i32;
            while process::state(leader) != 'Z' {
                process::sleep_ms(1);
            }
            // What /proc has of a leader that has ended is no program.
            exec_as(c"/usr/bin/contracts", c"threads", &[])
        });
        sys!(SYS_exit, 3);
        0
    });
    say!("after the leader: {}", wait(pid));
}

fn of_threads() {
    let pid = child(|| {
        for _ in 0..3 {
            process::sleeping_thread(|| process::sleep_ms(100_000));
        }
        let pipe = file::pipe();
        process::sleeping_thread(move || file::read(pipe[0], 1));
        std::thread::spawn(|| {
            loop {
                std::hint::black_box(0);
            }
        });
        say!("a failed call leaves them: {}", exec_with(c"/nowhere", &[c"x"], &[]));
        say!("threads: {}", std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count));
        exec_as(SELF, c"threads", &[]).errno()
    });
    say!("{}", wait(pid));
}

fn names() {
    copy_of_self(c"a-name-longer-than-fifteen", (0, 0), 0o755);
    sys!(SYS_symlinkat, c"a-name-longer-than-fifteen", AT_FDCWD, c"link");
    for path in [c"./a-name-longer-than-fifteen", c"./link", c"/var/contract/./link"] {
        run_as(path, c"names", &[c"more"]);
    }
    say!("removed while it runs:");
    in_child(|| {
        let fd = open(c"a-name-longer-than-fifteen", O_PATH).fd();
        sys!(SYS_unlinkat, AT_FDCWD, c"a-name-longer-than-fifteen", 0);
        let words = [c"contracts".as_ptr(), c"--as".as_ptr(), c"names".as_ptr(), null()];
        sys!(SYS_execveat, fd, c"", &words, 0, AT_EMPTY_PATH).errno()
    });
}

fn attributes() {
    sys!(SYS_umask, 0o27);
    sys!(SYS_mkdirat, AT_FDCWD, c"d", 0o755);
    sys!(SYS_chdir, c"d");
    sys!(SYS_setpriority, PRIO_PROCESS, 0, 7);
    for (option, value) in [
        (PR_SET_NO_NEW_PRIVS, 1),
        (PR_SET_TIMERSLACK, 12345),
        (PR_SET_KEEPCAPS, 1),
        (PR_SET_DUMPABLE, 0),
        (PR_SET_PDEATHSIG, SIGUSR1 as usize),
        (PR_SET_CHILD_SUBREAPER, 1),
    ] {
        sys!(SYS_prctl, option, value, 0, 0, 0);
    }
    let limit = rlimit { rlim_cur: 100, rlim_max: 200 };
    sys!(SYS_setrlimit, RLIMIT_NOFILE, &limit);
    sys!(SYS_personality, 0x004_0000);
    let mut interval: itimerval = zeroed();
    interval.it_value.tv_sec = 1000;
    sys!(SYS_setitimer, ITIMER_REAL, &interval, 0);
    let mut event: sigevent = zeroed();
    event.sigev_notify = SIGEV_NONE;
    let mut timer = 0i32;
    sys!(SYS_timer_create, CLOCK_MONOTONIC, &mut event, &mut timer);
    sys!(SYS_sched_setaffinity, 0, 8, &1u64);
    sys!(SYS_sched_setscheduler, 0, SCHED_BATCH, &0i32);
    sys!(SYS_set_robust_list, pages(1), 24);
    exec_as(SELF, c"attributes", &[]);
}

fn timers() {
    // An alarm goes on, and its signal comes to the new program, which has no handler any more.
    let status = in_child(|| {
        signal::handle(SIGALRM, signal::count, 0);
        let mut interval: itimerval = zeroed();
        interval.it_value.tv_usec = 50_000;
        sys!(SYS_setitimer, ITIMER_REAL, &interval, 0);
        exec_with(c"/bin/sleep", &[c"sleep", c"100"], &[]).errno()
    });
    say!("an alarm: {status}");
}

fn memory_is_new() {
    let shared = crate::memory::shared_words();
    let status = in_child(|| {
        shared[0].store(1, std::sync::atomic::Ordering::SeqCst);
        let at = pages(1);
        let where_ = c(&format!("{:x}", at as usize));
        let _ = where_;
        exec_as(SELF, c"nothing", &[]).errno()
    });
    say!("{status}, shared memory stays with its others: {}", shared[0].load(std::sync::atomic::Ordering::SeqCst));
    let stack = stack_t { ss_sp: pages(4).cast(), ss_flags: 0, ss_size: 16384 };
    sys!(SYS_sigaltstack, &stack, 0);
    // add x1, sp, #-64; mov x0, #0; mov x8, #132; svc 0; ldr w0, [x1, #8]
    let code = [0xd101_03ff, 0x9100_03e1, 0xd280_0000, 0xd280_1088, 0xd400_0001, 0xb940_0be0, 0xd280_0ba8, 0xd400_0001];
    write_file(c"f", &program(&code), 0o755);
    say!("the alternate stack is gone: {}", in_child(|| exec_with(c"./f", &[c"f"], &[]).errno()));
}

fn failed_call_changes_nothing() {
    signal::handle(SIGUSR1, signal::count, 0);
    let fd = sys!(SYS_fcntl, 1, F_DUPFD_CLOEXEC, 30).fd();
    sys!(SYS_prctl, PR_SET_NAME, c"before", 0, 0, 0);
    write_file(c"f", b"text", 0o755);
    for path in [c"/nowhere", c"./f", c"/dev/null", c"."] {
        say!("{path:?}: {}", exec_with(path, &[c"x"], &[]));
    }
    signal::kill_self(SIGUSR1);
    say!("handlers: {}", signal::caught());
    say!("descriptors: {}", sys!(SYS_fcntl, fd, F_GETFD, 0));
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap_or_default();
    say!("name: {}", comm.trim());
}
