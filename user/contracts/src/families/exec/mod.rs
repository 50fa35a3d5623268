//! execve(2) and execveat(2): what a new program finds, and what is refused.

mod changes;
mod programs;

use std::ffi::{CStr, CString};
use std::ptr::null;

use libc::*;

use self::changes::{
    attributes, by_a_thread, descriptors, failed_call_changes_nothing, memory_is_new, names, of_threads, signals,
    timers,
};
use self::programs::{broken_headers, interpreter_missing, not_permitted, not_programs, small_program};
use crate::file::{self, close, open};
use crate::memory::{PAGE, pages, poke};
use crate::process::{Status, in_child};
use crate::sys::{KERNEL, NOWHERE, Ret, sys};
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

fn paths() {
    write_file(c"f", &small(), 0o755);
    sys!(SYS_symlinkat, c"f", AT_FDCWD, c"link");
    sys!(SYS_symlinkat, c"loop", AT_FDCWD, c"loop");
    sys!(SYS_symlinkat, c"nothing", AT_FDCWD, c"dangling");
    for path in [c"f", c"./f", c"link", c"loop", c"dangling", c"f/", c"f/x", c"nothing/x", c"", c"link/."] {
        say!("{path:?}: {}", in_child(|| exec_with(path, &[c"f"], &[]).errno()));
    }
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
