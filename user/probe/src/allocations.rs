//! System calls that must not use the kernel's heap: `probe allocations`. Everything runs on one processor.

use std::fs;
use std::ptr::null_mut;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;

use libc::*;

const TIMES: u64 = 1000;

fn asked() -> u64 {
    fs::read_to_string("/proc/pollux/allocations").ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Allocations of each call of `body`, rounded down: now and then something else allocates.
fn row(name: &str, mut body: impl FnMut()) {
    body();
    let before = asked();
    let reading = asked() - before;
    let start = asked();
    (0..TIMES).for_each(|_| body());
    let each = (asked() - start).saturating_sub(reading) / (TIMES / 10);
    println!("{name}: {}.{}", each / 10, each % 10);
}

fn pipe_ends() -> (i32, i32) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    unsafe { pipe(ends.as_mut_ptr()) };
    (ends[0], ends[1])
}

fn read_byte(fd: i32) {
    let mut byte = 0u8;
    // SAFETY: room for a byte.
    unsafe { read(fd, (&raw mut byte).cast(), 1) };
}

fn write_byte(fd: i32) {
    // SAFETY: a byte to be written.
    unsafe { write(fd, b"x".as_ptr().cast(), 1) };
}

fn futex(word: &AtomicU32, operation: i32, value: u32, time: *const timespec) {
    // SAFETY: word and time are there for the call.
    unsafe { syscall(SYS_futex, word.as_ptr(), operation | FUTEX_PRIVATE_FLAG, value, time) };
}

fn nap() {
    let time = timespec { tv_sec: 0, tv_nsec: 1000 };
    // SAFETY: the time is there for the call.
    unsafe { nanosleep(&time, null_mut()) };
}

pub fn all() {
    let cpu = 1u64;
    // SAFETY: a mask of eight bytes.
    unsafe { syscall(SYS_sched_setaffinity, 0, 8, &cpu) };
    files();
    waits();
    polls();
    // SAFETY: it has no arguments.
    row("sched_yield", || {
        let _ = unsafe { sched_yield() };
    });
    row("nanosleep", nap);
}

fn files() {
    let (reading, writing) = pipe_ends();
    row("write and read, pipe", || {
        write_byte(writing);
        read_byte(reading);
    });
    fs::write("/tmp/probe.file", [7; 4096]).expect("a file");
    // SAFETY: the path is a string.
    let file = unsafe { open(c"/tmp/probe.file".as_ptr(), O_RDWR) };
    let mut page = [0u8; 4096];
    // SAFETY: room for a page; so below.
    row("pread, a page of a file", || {
        let _ = unsafe { pread(file, page.as_mut_ptr().cast(), 4096, 0) };
    });
    row("pwrite, a page of a file", || {
        let _ = unsafe { pwrite(file, page.as_ptr().cast(), 4096, 0) };
    });
    let (there, back) = (pipe_ends(), pipe_ends());
    std::thread::spawn(move || {
        loop {
            read_byte(there.0);
            write_byte(back.1);
        }
    });
    row("ping-pong through pipes", || {
        write_byte(there.1);
        read_byte(back.0);
    });
}

fn waits() {
    static WORD: AtomicU32 = AtomicU32::new(0);
    static ANSWER: AtomicU32 = AtomicU32::new(0);
    row("futex wake", || futex(&WORD, FUTEX_WAKE, 1, null_mut()));
    row("futex wait, another value", || futex(&WORD, FUTEX_WAIT, 1, null_mut()));
    let time = timespec { tv_sec: 0, tv_nsec: 1000 };
    row("futex wait, until late", || futex(&WORD, FUTEX_WAIT, 0, &time));
    std::thread::spawn(|| {
        for turn in 0.. {
            while WORD.load(SeqCst) == turn {
                futex(&WORD, FUTEX_WAIT, turn, null_mut());
            }
            ANSWER.store(turn + 1, SeqCst);
            futex(&ANSWER, FUTEX_WAKE, 1, null_mut());
        }
    });
    row("ping-pong through futexes", || {
        let turn = WORD.fetch_add(1, SeqCst);
        futex(&WORD, FUTEX_WAKE, 1, null_mut());
        while ANSWER.load(SeqCst) == turn {
            futex(&ANSWER, FUTEX_WAIT, turn, null_mut());
        }
    });
}

fn polls() {
    let pipes: Vec<(i32, i32)> = (0..16).map(|_| pipe_ends()).collect();
    let set = |count: usize| -> Vec<pollfd> {
        pipes[..count].iter().map(|ends| pollfd { fd: ends.0, events: POLLIN, revents: 0 }).collect()
    };
    for count in [1, 4, 16] {
        let mut fds = set(count);
        // SAFETY: a set of so many descriptors; so below.
        row(&format!("poll of {count}, nothing, at once"), || {
            let _ = unsafe { poll(fds.as_mut_ptr(), count as u64, 0) };
        });
        let time = timespec { tv_sec: 0, tv_nsec: 1000 };
        row(&format!("poll of {count}, until late"), || {
            // SAFETY: as above.
            unsafe { ppoll(fds.as_mut_ptr(), count as u64, &time, null_mut()) };
        });
    }
    // SAFETY: it has no pointers.
    let epoll = unsafe { epoll_create1(0) };
    for ends in &pipes {
        let mut event = epoll_event { events: EPOLLIN as u32, u64: 1 };
        // SAFETY: the event is there for the call.
        unsafe { epoll_ctl(epoll, EPOLL_CTL_ADD, ends.0, &mut event) };
    }
    let mut events = [epoll_event { events: 0, u64: 0 }; 16];
    // SAFETY: room for so many events; so below.
    let wait =
        |limit: i32, events: &mut [epoll_event; 16]| unsafe { epoll_wait(epoll, events.as_mut_ptr(), 16, limit) };
    row("epoll_wait, nothing, at once", || {
        wait(0, &mut events);
    });
    row("epoll_wait, until late", || {
        wait(1, &mut events);
    });
    let (_, first) = pipes[0];
    row("epoll_wait, one ready", || {
        write_byte(first);
        wait(-1, &mut events);
        read_byte(pipes[0].0);
    });
    let asks = pipe_ends();
    std::thread::spawn(move || {
        loop {
            read_byte(asks.0);
            write_byte(first);
        }
    });
    row("epoll_wait, woken", || {
        write_byte(asks.1);
        wait(-1, &mut events);
        read_byte(pipes[0].0);
    });
    let mut fds = set(16);
    row("poll of 16, woken", || {
        write_byte(asks.1);
        // SAFETY: a set of so many descriptors.
        unsafe { poll(fds.as_mut_ptr(), 16, -1) };
        read_byte(pipes[0].0);
    });
    let last = pipes[15].0;
    row("select of 16, woken", || {
        write_byte(asks.1);
        // SAFETY: a set has no pointers; all of the descriptors are in it.
        let mut set: fd_set = unsafe { std::mem::zeroed() };
        for ends in &pipes {
            // SAFETY: as above.
            unsafe { FD_SET(ends.0, &mut set) };
        }
        // SAFETY: the set is there for the call.
        unsafe { select(last + 1, &mut set, null_mut(), null_mut(), null_mut()) };
        read_byte(pipes[0].0);
    });
}
