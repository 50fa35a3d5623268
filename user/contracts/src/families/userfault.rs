//! Page faults that a program handles.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use libc::*;

use crate::file::{close, pipe};
use crate::memory::{PAGE, map, pages, peek, poke};
use crate::process::{self, as_plain_user, child, in_child, until_asleep, wait};
use crate::sys::{NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    beginning, registering, copying, copying_refused, zeros_and_waking,
    shared_memory, minor_faults, faults_of_system_calls, privileges, sigbus,
    left_behind, signals, the_end, reading_and_polling,
}

const API: u32 = 0xc018_aa3f;
const REGISTER: u32 = 0xc020_aa00;
pub(super) const UNREGISTER: u32 = 0x8010_aa01;
const WAKE: u32 = 0x8010_aa02;
const COPY: u32 = 0xc028_aa03;
pub(super) const ZEROPAGE: u32 = 0xc020_aa04;
const CONTINUE: u32 = 0xc020_aa07;
pub(super) const MISSING: u64 = 1;
pub(super) const MINOR: u64 = 4;
const SIGBUS_FEATURE: u64 = 1 << 7;
pub(super) const USER_MODE_ONLY: i32 = 1;

pub(super) fn call(fd: i32, command: u32, words: &mut [u64]) -> Ret {
    sys!(SYS_ioctl, fd, command as usize, words.as_mut_ptr())
}

fn begin(fd: i32, features: u64) -> Ret {
    call(fd, API, &mut [0xaa, features, 0])
}

/// A descriptor that is ready for ranges.
pub(super) fn ready(flags: i32, features: u64) -> i32 {
    let fd = sys!(SYS_userfaultfd, flags).fd();
    begin(fd, features).need();
    fd
}

pub(super) fn register(fd: i32, start: *mut u8, length: usize, mode: u64) -> String {
    let mut words = [start as u64, length as u64, mode, 7];
    let ret = call(fd, REGISTER, &mut words);
    format!("{ret} {:#x}", words[3])
}

/// With the word in which the kernel tells how far it came.
pub(super) fn copy(fd: i32, to: *mut u8, from: *const u8, length: usize, mode: u64) -> String {
    let mut words = [to as u64, from as u64, length as u64, mode, 7];
    let ret = call(fd, COPY, &mut words);
    format!("{ret} {}", words[4] as i64)
}

pub(super) fn fill(fd: i32, command: u32, start: *mut u8, length: usize, mode: u64) -> String {
    let mut words = [start as u64, length as u64, mode, 7];
    let ret = call(fd, command, &mut words);
    format!("{ret} {}", words[3] as i64)
}

fn wake(fd: i32, start: *mut u8, length: usize) -> Ret {
    call(fd, WAKE, &mut [start as u64, length as u64])
}

/// Waits for a message: its event, its flags, and the page counted from `base`.
pub(super) fn message(fd: i32, base: *mut u8) -> String {
    let mut words = [0u64; 4];
    let ret = sys!(SYS_read, fd, &mut words, 32);
    if ret.0 != 32 {
        return ret.to_string();
    }
    let offset = words[2].wrapping_sub(base as u64);
    format!("event {:#x} flags {} page {} at {}", words[0], words[1], offset / PAGE as u64, offset % PAGE as u64)
}

pub(super) fn page_of(byte: u8) -> *mut u8 {
    let page = pages(1);
    for index in 0..PAGE {
        poke(page.wrapping_add(index), byte);
    }
    page
}

pub(super) fn reader(at: *mut u8) -> JoinHandle<u8> {
    let at = at as usize;
    thread::spawn(move || peek(at as *const u8))
}

fn writer(at: *mut u8, byte: u8) -> JoinHandle<()> {
    let at = at as usize;
    thread::spawn(move || poke(at as *mut u8, byte))
}

pub(super) fn polled(fd: i32) -> String {
    let mut poll = pollfd { fd, events: POLLIN | POLLOUT, revents: 0 };
    let ret = sys!(SYS_ppoll, &mut poll, 1, &timespec { tv_sec: 0, tv_nsec: 0 }, 0, 0);
    format!("{ret} {:#x}", poll.revents)
}

fn beginning() {
    let fd = sys!(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK).fd();
    say!("flags: {:o}, close-on-exec {}", sys!(SYS_fcntl, fd, F_GETFL, 0).0, sys!(SYS_fcntl, fd, F_GETFD, 0));
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).map(|path| path.display().to_string());
    say!("link: {}", link.unwrap_or_default());
    say!("unknown flags: {}", sys!(SYS_userfaultfd, 2));
    say!("read before: {}, polled {}", message(fd, std::ptr::null_mut()), polled(fd));
    say!("a range before: {}", register(fd, pages(1), PAGE, MISSING));
    let mut words = [0xab, 0, 5];
    say!("another version: {} {words:?}", call(fd, API, &mut words));
    say!("then: {words:?}");
    let mut words = [0xaa, 1 << 40, 5];
    say!("an unknown feature: {}", call(fd, API, &mut words));
    say!("then: {words:?}");
    let mut words = [0xaa, 0, 5];
    say!("as it is: {}, calls {:#x}", call(fd, API, &mut words), words[2]);
    let has = |bit: u64| words[1] >> bit & 1;
    say!("shared memory {}, SIGBUS {}, threads {}, minor {}", has(5), has(7), has(8), has(10));
    say!("exact addresses {}, write protection {}", has(11), has(0));
    let mut words = [0xaa, 0, 5];
    say!("again: {}", call(fd, API, &mut words));
    say!("then: {words:?}");
    say!("no memory: {}", sys!(SYS_ioctl, fd, API as usize, NOWHERE));
    say!("an unknown call: {}", call(fd, 0xaa55, &mut [0; 4]));
    say!("write: {}, lseek: {}", sys!(SYS_write, fd, "x", 1), sys!(SYS_lseek, fd, 0, SEEK_SET));
}

fn registering() {
    let fd = ready(O_NONBLOCK, 0);
    let start = pages(4);
    for (what, mode) in [("none", 0), ("unknown", 8), ("write protection", 2), ("minor", MINOR)] {
        say!("mode {what}: {}", register(fd, start, PAGE, mode));
    }
    say!("not at a page: {}", register(fd, start.wrapping_add(1), PAGE, MISSING));
    say!("no whole pages: {}", register(fd, start, 100, MISSING));
    say!("nothing: {}", register(fd, start, 0, MISSING));
    say!("below all mappings: {}", register(fd, std::ptr::null_mut(), PAGE, MISSING));
    say!("above user memory: {}", register(fd, (1u64 << 60) as *mut u8, PAGE, MISSING));
    sys!(SYS_munmap, start.wrapping_add(3 * PAGE), PAGE);
    say!("not mapped: {}", register(fd, start.wrapping_add(3 * PAGE), PAGE, MISSING));
    let file = sys!(SYS_openat, AT_FDCWD, c"f", O_RDWR | O_CREAT, 0o600).fd();
    sys!(SYS_ftruncate, file, PAGE).need();
    let mapped = map(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0).need() as *mut u8;
    say!("a file: {}", register(fd, mapped, PAGE, MISSING));
    say!("three pages: {}", register(fd, start, 3 * PAGE, MISSING));
    say!("again: {}", register(fd, start, 3 * PAGE, MISSING));
    let other = ready(O_NONBLOCK, 0);
    say!("by another: {}", register(other, start.wrapping_add(PAGE), PAGE, MISSING));
    let range = |first: usize, count: usize| [start.wrapping_add(first * PAGE) as u64, (count * PAGE) as u64];
    say!("unregister the middle: {}", call(fd, UNREGISTER, &mut range(1, 1)));
    say!("by another: {}", register(other, start.wrapping_add(PAGE), PAGE, MISSING));
    say!("unregister what is not: {}", call(fd, UNREGISTER, &mut range(3, 1)));
    say!("unregister a file: {}", call(fd, UNREGISTER, &mut [mapped as u64, PAGE as u64]));
    say!("the middle for one's own: {}", fill(fd, ZEROPAGE, start.wrapping_add(PAGE), PAGE, 0));
    say!("read there: {}", peek(start.wrapping_add(PAGE)));
}

fn copying() {
    let fd = ready(0, 0);
    let start = pages(4);
    say!("register: {}", register(fd, start, 4 * PAGE, MISSING));
    let waits = reader(start.wrapping_add(PAGE + 5));
    say!("read: {}", message(fd, start));
    say!("copy: {}", copy(fd, start.wrapping_add(PAGE), page_of(b'a'), PAGE, 0));
    say!("it has read: {}", waits.join().unwrap() as char);
    let waits = writer(start.wrapping_add(2 * PAGE), b'w');
    say!("write: {}", message(fd, start));
    say!("copy: {}", copy(fd, start.wrapping_add(2 * PAGE), page_of(b'b'), PAGE, 0));
    waits.join().unwrap();
    let at = |index: usize| peek(start.wrapping_add(index)) as char;
    say!("it has written: {} {}", at(2 * PAGE), at(2 * PAGE + 1));
    say!("before anybody asks: {}", copy(fd, start, page_of(b'c'), PAGE, 0));
    say!("it is there: {}", at(0));
    say!("again: {}", copy(fd, start, page_of(b'd'), PAGE, 0));
    say!("still: {}", at(0));
    sys!(SYS_madvise, start, PAGE, MADV_DONTNEED).need();
    let waits = reader(start);
    say!("dropped: {}", message(fd, start));
    say!("copy: {}", copy(fd, start, page_of(b'e'), PAGE, 0));
    say!("it has read: {}", waits.join().unwrap() as char);
}

fn copying_refused() {
    let fd = ready(O_NONBLOCK, 0);
    let start = pages(4);
    let from = pages(4);
    say!("not registered: {}", copy(fd, start, from, PAGE, 0));
    register(fd, start, 4 * PAGE, MISSING);
    say!("unknown mode: {}", copy(fd, start, from, PAGE, 4));
    say!("protected: {}", copy(fd, start, from, PAGE, 2));
    say!("not at a page: {}", copy(fd, start.wrapping_add(1), from, PAGE, 0));
    say!("from within a page: {}", copy(fd, start, from.wrapping_add(1), PAGE, 0));
    say!("no length: {}", copy(fd, start, from, 0, 0));
    say!("from nowhere: {}", copy(fd, start.wrapping_add(PAGE), NOWHERE as *const u8, PAGE, 0));
    say!("over the end of the mapping: {}", copy(fd, start.wrapping_add(2 * PAGE), from, 3 * PAGE, 0));
    say!("the third: {}", fill(fd, ZEROPAGE, start.wrapping_add(2 * PAGE), PAGE, 0));
    say!("up to the third: {}", copy(fd, start.wrapping_add(PAGE), from, 3 * PAGE, 0));
    say!("from the third: {}", copy(fd, start.wrapping_add(2 * PAGE), from, 2 * PAGE, 0));
    say!("continue private memory: {}", fill(fd, CONTINUE, start.wrapping_add(3 * PAGE), PAGE, 0));
}

fn zeros_and_waking() {
    let fd = ready(0, 0);
    let start = pages(2);
    register(fd, start, 2 * PAGE, MISSING);
    let waits = reader(start);
    say!("{}", message(fd, start));
    say!("without waking: {}", fill(fd, ZEROPAGE, start, PAGE, 1));
    process::sleep_ms(50);
    say!("waits: {}", !waits.is_finished());
    say!("wake the other page: {}", wake(fd, start.wrapping_add(PAGE), PAGE));
    process::sleep_ms(50);
    say!("waits: {}", !waits.is_finished());
    say!("wake: {}", wake(fd, start, 2 * PAGE));
    say!("it has read: {}", waits.join().unwrap());
    say!("again: {}", fill(fd, ZEROPAGE, start, PAGE, 0));
    poke(start, 9);
    say!("it can be written: {}", peek(start));
    say!("unknown mode: {}", fill(fd, ZEROPAGE, start, PAGE, 2));
    say!("wake nothing: {}", wake(fd, start, 0));
    let waits = reader(start.wrapping_add(PAGE));
    say!("{}", message(fd, start));
    say!("woken without a page: {}", wake(fd, start, 2 * PAGE));
    say!("it asks again: {}", message(fd, start));
    say!("unregister: {}", call(fd, UNREGISTER, &mut [start as u64, 2 * PAGE as u64]));
    say!("it has read: {}", waits.join().unwrap());
}

/// Two mappings of the same memory.
pub(super) fn twice(length: usize) -> (i32, *mut u8, *mut u8) {
    let file = sys!(SYS_memfd_create, c"shared", 0).fd();
    sys!(SYS_ftruncate, file, length).need();
    let view = || map(length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0).need() as *mut u8;
    (file, view(), view())
}

fn shared_memory() {
    let fd = ready(0, 0);
    let (_, watched, other) = twice(3 * PAGE);
    say!("register: {}", register(fd, watched, 3 * PAGE, MISSING));
    let waits = reader(watched);
    say!("{}", message(fd, watched));
    say!("copy: {}", copy(fd, watched, page_of(b's'), PAGE, 0));
    say!("it has read: {}", waits.join().unwrap() as char);
    say!("the other sees: {}", peek(other) as char);
    poke(other.wrapping_add(PAGE), b'o');
    say!("there by the other: {}", peek(watched.wrapping_add(PAGE)) as char);
    say!("copy over it: {}", copy(fd, watched.wrapping_add(PAGE), page_of(b'x'), PAGE, 0));
    say!("zeros: {}", fill(fd, ZEROPAGE, watched.wrapping_add(2 * PAGE), PAGE, 0));
    say!("read: {}", peek(watched.wrapping_add(2 * PAGE)));
}

fn minor_faults() {
    let fd = ready(0, 0);
    let (_, watched, other) = twice(2 * PAGE);
    say!("register: {}", register(fd, watched, 2 * PAGE, MINOR));
    poke(other, b'm');
    let waits = reader(watched);
    say!("{}", message(fd, watched));
    poke(other, b'n');
    say!("continue: {}", fill(fd, CONTINUE, watched, PAGE, 0));
    say!("it has read: {}", waits.join().unwrap() as char);
    say!("again: {}", fill(fd, CONTINUE, watched, PAGE, 0));
    say!("nothing there: {}", fill(fd, CONTINUE, watched.wrapping_add(PAGE), PAGE, 0));
    say!("unknown mode: {}", fill(fd, CONTINUE, watched.wrapping_add(PAGE), PAGE, 4));
}

fn faults_of_system_calls() {
    let fd = ready(0, 0);
    let start = pages(2);
    register(fd, start, 2 * PAGE, MISSING);
    let [from, to] = pipe();
    let at = start as usize;
    let waits = thread::spawn(move || sys!(SYS_write, to, at, 3));
    say!("write(2): {}", message(fd, start));
    say!("copy: {}", copy(fd, start, page_of(b'k'), PAGE, 0));
    say!("it has written: {}", waits.join().unwrap());
    say!("{:?}", crate::file::read(from, 3));
    sys!(SYS_write, to, "abc", 3);
    let waits = thread::spawn(move || sys!(SYS_read, from, at + PAGE, 3));
    say!("read(2): {}", message(fd, start));
    say!("zeros: {}", fill(fd, ZEROPAGE, start.wrapping_add(PAGE), PAGE, 0));
    say!("it has read: {}, {}", waits.join().unwrap(), peek(start.wrapping_add(PAGE + 2)) as char);
}

fn privileges() {
    let setting = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").unwrap_or_default();
    say!("vm.unprivileged_userfaultfd: {}", setting.trim());
    as_plain_user(|| {
        say!("a user: {}", sys!(SYS_userfaultfd, 0));
        say!("and unknown flags: {}", sys!(SYS_userfaultfd, 2));
        let fd = sys!(SYS_userfaultfd, USER_MODE_ONLY | O_NONBLOCK).fd();
        say!("for user mode: {}", begin(fd, 0));
        let start = pages(2);
        say!("register: {}", register(fd, start, 2 * PAGE, MISSING));
        let [_, to] = pipe();
        say!("a system call: {}", sys!(SYS_write, to, start, 3));
        say!("told: {}", message(fd, start));
        let waits = reader(start);
        while polled(fd) != "1 0x1" {
            process::sleep_ms(1);
        }
        say!("an instruction: {}", message(fd, start));
        say!("copy: {}", copy(fd, start, page_of(b'u'), PAGE, 0));
        say!("it has read: {}", waits.join().unwrap() as char);
    });
}

fn sigbus() {
    let status = in_child(|| {
        let fd = ready(O_NONBLOCK, SIGBUS_FEATURE);
        let start = pages(2);
        register(fd, start, PAGE, MISSING);
        let [_, to] = pipe();
        say!("a system call: {}", sys!(SYS_write, to, start, 3));
        say!("told: {}", message(fd, start));
        i32::from(peek(start))
    });
    say!("an instruction: {status}");
}

fn left_behind() {
    let fd = ready(O_NONBLOCK, 0);
    let start = pages(4);
    register(fd, start, 4 * PAGE, MISSING);
    say!("a child is not watched: {}", in_child(|| i32::from(peek(start))));
    let moved = sys!(SYS_mremap, start, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, pages(1)).need() as *mut u8;
    say!("nor what has moved: {}", peek(moved));
    sys!(SYS_mmap, start.wrapping_add(PAGE), PAGE, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0).need();
    say!("nor what is new: {}", peek(start.wrapping_add(PAGE)));
    say!("copy there: {}", copy(fd, start.wrapping_add(PAGE), page_of(1), PAGE, 0));
    say!("what has stayed: {}", copy(fd, start.wrapping_add(2 * PAGE), page_of(b'z'), PAGE, 0));
    say!("it is there: {}", peek(start.wrapping_add(2 * PAGE)) as char);
    let memory = pages(1);
    let fd = ready(O_NONBLOCK, 0);
    register(fd, memory, PAGE, MISSING);
    close(fd);
    say!("closed: {}", peek(memory));
}

static HANDLED: AtomicU32 = AtomicU32::new(0);

extern "C" fn note(_: c_int) {
    HANDLED.fetch_add(1, Ordering::SeqCst);
}

fn signals() {
    let fd = ready(0, 0);
    let start = pages(2);
    register(fd, start, 2 * PAGE, MISSING);
    // SAFETY: the handler only adds to an atomic.
    unsafe { signal(SIGUSR1, note as extern "C" fn(c_int) as usize) };
    let at = start as usize;
    let (tid, waits) = process::sleeping_thread(move || peek(at as *const u8));
    say!("{}", message(fd, start));
    sys!(SYS_tgkill, process::pid(), tid, SIGUSR1).need();
    say!("it asks again: {}", message(fd, start));
    say!("the handler has run: {}", HANDLED.load(Ordering::SeqCst));
    say!("copy: {}", copy(fd, start, page_of(b'h'), PAGE, 0));
    say!("it has read: {}", waits.join().unwrap() as char);
    let pid = child(|| {
        let fd = ready(0, 0);
        register(fd, start, 2 * PAGE, MISSING);
        i32::from(peek(start.wrapping_add(PAGE)))
    });
    until_asleep(pid);
    sys!(SYS_kill, pid, SIGKILL).need();
    say!("killed while it waits: {}", wait(pid));
    let pid = child(|| {
        let fd = ready(0, 0);
        register(fd, start, 2 * PAGE, MISSING);
        let [_, to] = pipe();
        sys!(SYS_write, to, start.wrapping_add(PAGE), 3).0 as i32
    });
    until_asleep(pid);
    sys!(SYS_kill, pid, SIGKILL).need();
    say!("and in a system call: {}", wait(pid));
}

fn the_end() {
    let fd = ready(0, 0);
    let start = pages(1);
    register(fd, start, PAGE, MISSING);
    let waits = reader(start);
    say!("{}", message(fd, start));
    say!("close: {}", close(fd));
    say!("it has read: {}", waits.join().unwrap());
}

fn reading_and_polling() {
    let fd = ready(O_NONBLOCK, 0);
    let start = pages(2);
    register(fd, start, 2 * PAGE, MISSING);
    let mut words = [0u64; 8];
    say!("nothing: {} {}", sys!(SYS_read, fd, &mut words, 64), polled(fd));
    say!("less than a message: {}", sys!(SYS_read, fd, &mut words, 31));
    let waits = [reader(start), reader(start.wrapping_add(PAGE))];
    while sys!(SYS_ppoll, &mut pollfd { fd, events: POLLIN, revents: 0 }, 1, 0, 0, 0).0 != 1 {}
    say!("polled: {}", polled(fd));
    process::sleep_ms(100);
    say!("both: {}", sys!(SYS_read, fd, &mut words, 64));
    say!("nothing: {} {}", sys!(SYS_read, fd, &mut words, 64), polled(fd));
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    let lines = info.lines().filter(|line| line.starts_with("pending") || line.starts_with("total"));
    say!("{:?}", lines.collect::<Vec<_>>());
    say!("zeros: {}", fill(fd, ZEROPAGE, start, 2 * PAGE, 0));
    say!("{:?}", waits.map(|thread| thread.join().unwrap()));
    let blocking = ready(0, 0);
    say!("one whose reads wait: {}", polled(blocking));
}
