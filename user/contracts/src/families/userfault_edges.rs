//! Page faults that a program handles, where mappings grow, handlers meet, or whoever faults is not a program's
//! instruction.

use std::thread;

use libc::*;

use super::userfault::{
    MINOR, MISSING, UNREGISTER, USER_MODE_ONLY, ZEROPAGE, call, copy, fill, message, page_of, polled, reader, ready,
    register, twice,
};
use crate::file::{close, open, read_at};
use crate::memory::{PAGE, map, map_at, pages, peek, poke};
use crate::process::{self, Gate, child, in_child, until_asleep, wait};
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    grown, grown_and_closed, a_stack, two_handlers, taken_off_by_another, many_ranges, order_of_checks, modes_that_stay,
    minor_and_absent, not_for_the_kernel, locked_pages, from_outside, signals_from_outside, looked_at, at_the_end,
    a_thread_that_ends, without_a_program, killed_while_it_fills, switched_to_nonblocking, one_of_two_pages,
}

fn unregister(fd: i32, start: *mut u8, length: usize) -> Ret {
    call(fd, UNREGISTER, &mut [start as u64, length as u64])
}

/// A watched page with free space behind it.
fn with_space_behind(fd: i32) -> *mut u8 {
    let start = pages(2);
    sys!(SYS_munmap, start.wrapping_add(PAGE), PAGE).need();
    say!("register: {}", register(fd, start, PAGE, MISSING));
    start
}

fn grown() {
    let fd = ready(0, 0);
    let start = with_space_behind(fd);
    let same = sys!(SYS_mremap, start, PAGE, 2 * PAGE, 0).0 as u64 == start as u64;
    say!("grown where it is: {same}");
    let waits = reader(start.wrapping_add(PAGE));
    say!("{}", message(fd, start));
    say!("copy: {}", copy(fd, start.wrapping_add(PAGE), page_of(b'g'), PAGE, 0));
    say!("it has read: {}", waits.join().unwrap() as char);
}

fn grown_and_closed() {
    let fd = ready(0, 0);
    let start = with_space_behind(fd);
    sys!(SYS_mremap, start, PAGE, 2 * PAGE, 0).need();
    close(fd);
    say!("nobody watches it: {} {}", peek(start), peek(start.wrapping_add(PAGE)));
    let status = in_child(|| i32::from(peek(start.wrapping_add(PAGE))));
    say!("nor in a child: {status}");
}

fn a_stack() {
    const ROOM: usize = 512;
    let room = map(ROOM * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0).need() as *mut u8;
    // What cannot be touched may be near a stack, and keeps away what could be.
    sys!(SYS_munmap, room.wrapping_add((ROOM - 4) * PAGE), 4 * PAGE).need();
    let stack = room.wrapping_add((ROOM - 2) * PAGE);
    let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED;
    map_at(stack.cast(), 2 * PAGE, PROT_READ | PROT_WRITE, flags, -1, 0).need();
    let fd = ready(0, 0);
    say!("register: {}", register(fd, stack, 2 * PAGE, MISSING));
    let below = stack.wrapping_sub(PAGE);
    let waits = reader(below);
    say!("{}", message(fd, below));
    say!("copy: {}", copy(fd, below, page_of(b's'), PAGE, 0));
    say!("it has read: {}", waits.join().unwrap() as char);
}

fn two_handlers() {
    let (one, other) = (ready(0, 0), ready(0, 0));
    let start = pages(2);
    let second = start.wrapping_add(PAGE);
    say!("one: {}", register(one, start, PAGE, MISSING));
    say!("other: {}", register(other, second, PAGE, MISSING));
    say!("one takes both: {}", register(one, start, 2 * PAGE, MISSING));
    say!("other takes both: {}", register(other, start, 2 * PAGE, MISSING));
    let waits = reader(second);
    say!("the second page is the other's: {}", message(other, start));
    say!("copy over both: {}", copy(one, start, page_of(b'b'), 2 * PAGE, 0));
    say!("copy of one's own: {}", copy(one, start, page_of(b'o'), PAGE, 0));
    say!("copy for the other: {}", copy(one, second, page_of(b'x'), PAGE, 1));
    say!("zeros, by the other: {}", fill(other, ZEROPAGE, second, PAGE, 0));
    say!("woken: {}", call(other, 0x8010_aa02, &mut [second as u64, PAGE as u64]));
    say!("it has read: {}", waits.join().unwrap() as char);
}

fn taken_off_by_another() {
    let (one, other) = (ready(0, 0), ready(0, 0));
    let start = pages(2);
    register(one, start, PAGE, MISSING);
    register(other, start.wrapping_add(PAGE), PAGE, MISSING);
    let waits = reader(start.wrapping_add(PAGE));
    say!("{}", message(other, start));
    say!("one ends both: {}", unregister(one, start, 2 * PAGE));
    say!("it has read: {}", waits.join().unwrap());
}

fn many_ranges() {
    const COUNT: usize = 20_000;
    let memory = map(COUNT * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0).need() as *mut u8;
    let fd = ready(O_NONBLOCK, 0);
    let mut failed = 0;
    for index in 0..COUNT {
        let words = &mut [memory.wrapping_add(index * PAGE) as u64, PAGE as u64, MISSING, 0];
        failed += u32::from(call(fd, 0xc020_aa00, words).0 < 0);
    }
    say!("page by page: {failed} refused");
    let all = format!("{:x}-{:x} ", memory as usize, memory as usize + COUNT * PAGE);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    say!("one mapping: {}", maps.contains(&all));
    say!("taken off: {}", unregister(fd, memory, COUNT * PAGE));
}

fn order_of_checks() {
    let (fd, other) = (ready(O_NONBLOCK, 0), ready(O_NONBLOCK, 0));
    let highest = ((1u64 << 48) - PAGE as u64) as *mut u8;
    say!("above all mappings: {}", register(fd, highest, PAGE, MISSING));
    say!("taken off there: {}", unregister(fd, highest, PAGE));
    let hole = pages(3);
    sys!(SYS_munmap, hole.wrapping_add(PAGE), PAGE).need();
    say!("between mappings: {}", register(fd, hole.wrapping_add(PAGE), PAGE, MISSING));
    say!("taken off there: {}", unregister(fd, hole.wrapping_add(PAGE), PAGE));
    let start = pages(2);
    let file = sys!(SYS_openat, AT_FDCWD, c"f", O_RDWR | O_CREAT, 0o600).fd();
    sys!(SYS_ftruncate, file, PAGE).need();
    let second = start.wrapping_add(PAGE);
    map_at(second.cast(), PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, file, 0).need();
    say!("the first by another: {}", register(other, start, PAGE, MISSING));
    say!("that, then a file: {}", register(fd, start, 2 * PAGE, MISSING));
    say!("taken off: {}", unregister(fd, start, 2 * PAGE));
    say!("one's own, then a file: {}", register(other, start, 2 * PAGE, MISSING));
}

fn modes_that_stay() {
    let fd = ready(0, 0);
    let (_, watched, view) = twice(PAGE);
    say!("both: {}", register(fd, watched, PAGE, MISSING | MINOR));
    say!("one of them: {}", register(fd, watched, PAGE, MISSING));
    poke(view, b'v');
    let waits = reader(watched);
    say!("{}", message(fd, watched));
    say!("continue: {}", fill(fd, 0xc020_aa07, watched, PAGE, 0));
    say!("it has read: {}", waits.join().unwrap() as char);
}

fn minor_and_absent() {
    let fd = ready(O_NONBLOCK, 0);
    let (_, watched, view) = twice(2 * PAGE);
    register(fd, watched, 2 * PAGE, MINOR);
    say!("a page that is nowhere: {}", peek(watched));
    poke(watched.wrapping_add(PAGE), b'w');
    say!("written: {}", peek(view.wrapping_add(PAGE)) as char);
    say!("told: {}", message(fd, watched));
}

fn piece(base: *const u8, len: usize) -> iovec {
    iovec { iov_base: base.cast_mut().cast(), iov_len: len }
}

fn read_of(pid: i32, at: *const u8) -> Ret {
    let mut buffer = [0u8; 3];
    sys!(SYS_process_vm_readv, pid, &[piece(buffer.as_mut_ptr(), 3)], 1, &[piece(at, 3)], 1, 0)
}

fn write_of(pid: i32, at: *const u8) -> Ret {
    let buffer = [7u8; 3];
    sys!(SYS_process_vm_writev, pid, &[piece(buffer.as_ptr(), 3)], 1, &[piece(at, 3)], 1, 0)
}

fn not_for_the_kernel() {
    let fd = ready(USER_MODE_ONLY | O_NONBLOCK, 0);
    let start = pages(2);
    say!("register: {}", register(fd, start, 2 * PAGE, MISSING));
    say!("mlock: {}", sys!(SYS_mlock, start, PAGE));
    say!("populate: {} {}", sys!(SYS_madvise, start, PAGE, 22), sys!(SYS_madvise, start, PAGE, 23));
    say!("process_vm_readv: {}", read_of(process::pid(), start));
    say!("process_vm_writev: {}", write_of(process::pid(), start));
    let memory = open(c"/proc/self/mem", O_RDWR).fd();
    say!("/proc/self/mem: {} {}", read_at(memory, 3, start as i64), sys!(SYS_pwrite64, memory, "abc", 3, start));
    say!("told: {}", message(fd, start));
}

extern "C" fn nothing(_: c_int) {}

fn handle_usr1() {
    // SAFETY: the handler does nothing.
    unsafe { signal(SIGUSR1, nothing as extern "C" fn(c_int) as usize) };
}

fn locked_pages() {
    handle_usr1();
    let fd = ready(0, 0);
    let start = pages(3);
    register(fd, start, 3 * PAGE, MISSING);
    let at = start as usize;
    let (tid, waits) = process::sleeping_thread(move || sys!(SYS_mlock, at, 3 * PAGE));
    say!("{}", message(fd, start));
    sys!(SYS_tgkill, process::pid(), tid, SIGUSR1).need();
    process::sleep_ms(50);
    say!("waits: {}", !waits.is_finished());
    for index in 0..3 {
        if index > 0 {
            say!("{}", message(fd, start));
        }
        say!("zeros: {}", fill(fd, ZEROPAGE, start.wrapping_add(index * PAGE), PAGE, 0));
    }
    say!("mlock: {}", waits.join().unwrap());
}

fn from_outside() {
    let fd = ready(0, 0);
    let start = pages(2);
    register(fd, start, 2 * PAGE, MISSING);
    let (pid, at) = (process::pid(), start as usize);
    let waits = thread::spawn(move || read_of(pid, at as *const u8));
    say!("{}", message(fd, start));
    say!("copy: {}", copy(fd, start, page_of(b'r'), PAGE, 0));
    say!("it has read: {}", waits.join().unwrap());
    let waits = thread::spawn(move || write_of(pid, (at + PAGE) as *const u8));
    say!("{}", message(fd, start));
    say!("zeros: {}", fill(fd, ZEROPAGE, start.wrapping_add(PAGE), PAGE, 0));
    say!("it has written: {}, {}", waits.join().unwrap(), peek(start.wrapping_add(PAGE)));
}

fn signals_from_outside() {
    handle_usr1();
    let fd = ready(0, 0);
    let start = pages(2);
    register(fd, start, 2 * PAGE, MISSING);
    let (pid, at) = (process::pid(), start as usize);
    let (tid, waits) = process::sleeping_thread(move || read_of(pid, at as *const u8));
    say!("{}", message(fd, start));
    sys!(SYS_tgkill, process::pid(), tid, SIGUSR1).need();
    process::sleep_ms(50);
    say!("waits: {}", !waits.is_finished());
    say!("zeros: {}", fill(fd, ZEROPAGE, start, PAGE, 0));
    say!("it has read: {}", waits.join().unwrap());
    let other = child(move || read_of(pid, (at + PAGE) as *const u8).0 as i32);
    say!("{}", message(fd, start));
    until_asleep(other);
    sys!(SYS_kill, other, SIGKILL).need();
    say!("killed: {}", wait(other));
}

/// Files of /proc that show memory never ask a handler.
fn looked_at() {
    let fd = ready(O_NONBLOCK, 0);
    let start = pages(1);
    register(fd, start, PAGE, MISSING);
    let memory = open(c"/proc/self/mem", O_RDWR).fd();
    say!("read: {}", read_at(memory, 3, start as i64));
    say!("write: {}", sys!(SYS_pwrite64, memory, "abc", 3, start));
    say!("told: {}", message(fd, start));
}

fn at_the_end() {
    let status = in_child(|| {
        let fd = ready(0, 0);
        let start = pages(1);
        register(fd, start, PAGE, MISSING);
        sys!(SYS_set_robust_list, start, 24).need();
        3
    });
    say!("a list of robust futexes where nobody answers: {status}");
}

fn a_thread_that_ends() {
    let fd = ready(O_NONBLOCK, 0);
    let start = pages(1);
    register(fd, start, PAGE, MISSING);
    let at = start as usize;
    thread::spawn(move || sys!(SYS_set_robust_list, at, 24).need()).join().unwrap();
    say!("ended, told: {}", message(fd, start));
}

fn without_a_program() {
    let gates = [Gate::new(), Gate::new()];
    let pid = child(|| {
        let fd = ready(O_NONBLOCK, 0);
        let start = pages(2);
        register(fd, start, PAGE, MISSING);
        let parent = process::pid();
        child(|| {
            let held = open(&crate::file::path(format!("/proc/{parent}/mem")), O_RDONLY).fd();
            gates[0].open();
            gates[1].pass();
            say!("copy: {}", copy(fd, start, page_of(b'c'), PAGE, 0));
            say!("zeros: {}", fill(fd, ZEROPAGE, start, PAGE, 0));
            say!("register: {}", register(fd, start.wrapping_add(PAGE), PAGE, MISSING));
            say!("unregister: {}", unregister(fd, start, PAGE));
            close(held);
            gates[0].open();
            0
        });
        gates[0].pass();
        0
    });
    say!("the program: {}", wait(pid));
    gates[1].open();
    gates[0].pass();
}

fn killed_while_it_fills() {
    let pid = child(|| {
        let length = 128 << 30;
        let start = map(length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0).need() as *mut u8;
        let fd = ready(0, 0);
        register(fd, start, length, MISSING);
        fill(fd, ZEROPAGE, start, length, 0);
        0
    });
    process::sleep_ms(100);
    sys!(SYS_kill, pid, SIGKILL).need();
    process::sleep_ms(1000);
    say!("killed: {:?}", process::try_wait(pid).map(|status| status.to_string()));
}

fn switched_to_nonblocking() {
    let fd = ready(0, 0);
    say!("at first: {}", polled(fd));
    sys!(SYS_fcntl, fd, F_SETFL, O_NONBLOCK).need();
    say!("then: {}", polled(fd));
    sys!(SYS_fcntl, fd, F_SETFL, 0).need();
    say!("and again: {}", polled(fd));
}

fn one_of_two_pages() {
    let fd = ready(0, 0);
    let start = pages(2);
    register(fd, start, 2 * PAGE, MISSING);
    let first: Vec<_> = (0..3).map(|index| reader(start.wrapping_add(index))).collect();
    let second = reader(start.wrapping_add(PAGE));
    for _ in 0..4 {
        message(fd, start);
    }
    say!("zeros for one: {}", fill(fd, ZEROPAGE, start, PAGE, 0));
    say!("they have read: {:?}", first.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>());
    process::sleep_ms(20);
    say!("the other waits: {}", !second.is_finished());
    say!("zeros for the other: {}", fill(fd, ZEROPAGE, start.wrapping_add(PAGE), PAGE, 0));
    say!("it has read: {}", second.join().unwrap());
}
