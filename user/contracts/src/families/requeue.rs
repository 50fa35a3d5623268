//! futex(2): waiters moved from one word to another, and FUTEX_WAKE_OP.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use libc::*;

use super::futex::{wait_on, wake, words};
use crate::memory::{PAGE, pages};
use crate::process::sleeping_thread;
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    requeue, compare_and_requeue, requeue_refused, wake_op_operations, wake_op_comparisons, wake_op_refused,
}

/// So many threads that wait for a word; each answers what its wait came to.
fn waiters(word: &'static AtomicU32, count: usize) -> Vec<std::thread::JoinHandle<Ret>> {
    (0..count).map(|_| sleeping_thread(move || wait_on(word, 0)).1).collect()
}

fn outcomes(threads: Vec<std::thread::JoinHandle<Ret>>) -> String {
    let all: Vec<String> =
        threads.into_iter().filter_map(|thread| thread.join().ok()).map(|ret| ret.to_string()).collect();
    all.join(" ")
}

fn requeue() {
    let words = words();
    let (from, to) = (&words[0], &words[1]);
    let call = |wake: i32, move_: i32| {
        sys!(SYS_futex, from.as_ptr(), FUTEX_REQUEUE | FUTEX_PRIVATE_FLAG, wake, move_, to.as_ptr(), 0)
    };
    say!("nobody: {}", call(1, 1));
    let threads = waiters(from, 5);
    say!("wake 1, move 2: {}", call(1, 2));
    say!("at the second: {}", wake(to, 9));
    say!("at the first: {}", wake(from, 1));
    say!("move all: {}", call(0, i32::MAX));
    say!("at the first: {}", wake(from, 9));
    say!("at the second: {}", wake(to, 9));
    say!("the waits: {}", outcomes(threads));
}

fn compare_and_requeue() {
    let words = words();
    let (from, to) = (&words[0], &words[1]);
    let call = |wake: i32, move_: i32, value: u32| {
        sys!(SYS_futex, from.as_ptr(), FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG, wake, move_, to.as_ptr(), value)
    };
    let threads = waiters(from, 4);
    say!("another value: {}", call(1, 1, 5));
    say!("wake 1, move 1: {}", call(1, 1, 0));
    say!("wake 0, move 1: {}", call(0, 1, 0));
    from.store(5, SeqCst);
    say!("the first has changed: {}", call(1, 1, 0));
    say!("the new value: {}", call(1, 0, 5));
    say!("at the second: {}", wake(to, 9));
    say!("the waits: {}", outcomes(threads));
    from.store(0, SeqCst);
    let threads = waiters(from, 1);
    let itself = sys!(SYS_futex, from.as_ptr(), FUTEX_CMP_REQUEUE | FUTEX_PRIVATE_FLAG, 0, 9, from.as_ptr(), 0);
    say!("to itself: {itself}");
    say!("then: {}", wake(from, 9));
    say!("the wait: {}", outcomes(threads));
}

fn requeue_refused() {
    let words = words();
    let at = words[0].as_ptr() as usize;
    for (name, operation) in [("REQUEUE", FUTEX_REQUEUE), ("CMP_REQUEUE", FUTEX_CMP_REQUEUE)] {
        let call = |from: usize, wake: i32, move_: i32, to: usize| sys!(SYS_futex, from, operation, wake, move_, to, 0);
        say!("{name}, wake -1: {}", call(at, -1, 0, at + 4));
        say!("{name}, move -1: {}", call(at, 0, -1, at + 4));
        say!("{name}, first unaligned: {}", call(at + 1, 0, 0, at + 4));
        say!("{name}, second unaligned: {}", call(at, 0, 0, at + 5));
        say!("{name}, first nowhere: {}", call(8, 0, 0, at));
        say!("{name}, second nowhere: {}", call(at, 0, 0, 8));
    }
}

/// FUTEX_OP of futex(2).
fn encoded(operation: u32, argument: u32, comparison: u32, with: u32) -> u32 {
    operation << 28 | comparison << 24 | (argument & 0xfff) << 12 | with & 0xfff
}

fn wake_op_operations() {
    let words = words();
    let (first, second) = (&words[0], &words[1]);
    let call = |value: u32| sys!(SYS_futex, first.as_ptr(), FUTEX_WAKE_OP, 1, 1, second.as_ptr(), value);
    for (name, operation, argument) in [
        ("set 7", 0, 7),
        ("add 3", 1, 3),
        ("add -1", 1, 0xfff),
        ("or 0x30", 2, 0x30),
        ("and not 0x11", 3, 0x11),
        ("xor 0x7ff", 4, 0x7ff),
        ("set 1 << 5", 8, 5),
        ("or 1 << 31", 10, 31),
        ("xor 1 << 0", 12, 0),
    ] {
        second.store(0x55, SeqCst);
        say!("{name}: {}, {:#x}", call(encoded(operation, argument, 0, 0)), second.load(SeqCst));
    }
}

fn wake_op_comparisons() {
    let words = words();
    let (first, second) = (&words[0], &words[1]);
    let names = ["==", "!=", "<", "<=", ">", ">="];
    for (index, name) in names.iter().enumerate() {
        let mut line = String::new();
        for old in [1i32, 2, 3, -1] {
            second.store(0, SeqCst);
            let threads: Vec<_> = waiters(first, 1).into_iter().chain(waiters(second, 1)).collect();
            second.store(old as u32, SeqCst);
            let value = encoded(0, 0, index as u32, 2);
            let operation = FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG;
            let woken = sys!(SYS_futex, first.as_ptr(), operation, 1, 1, second.as_ptr(), value);
            line.push_str(&format!(" {woken}"));
            wake(second, 1);
            outcomes(threads);
        }
        say!("1, 2, 3, -1 {name} 2:{line}");
    }
}

fn wake_op_refused() {
    let words = words();
    let at = words[0].as_ptr() as usize;
    let call = |first: usize, second: usize, value: u32| sys!(SYS_futex, first, FUTEX_WAKE_OP, 1, 1, second, value);
    for operation in 5..8 {
        say!("operation {operation}: {}", call(at, at + 4, encoded(operation, 0, 0, 0)));
    }
    for comparison in [6, 15] {
        say!("comparison {comparison}: {}", call(at, at + 4, encoded(0, 9, comparison, 0)));
    }
    say!("the word after these: {}", words[1].load(SeqCst));
    say!("first unaligned: {}", call(at + 1, at + 4, 0));
    say!("second unaligned: {}", call(at, at + 6, 0));
    say!("second nowhere: {}", call(at, 8, 0));
    let page = pages(1);
    sys!(SYS_mprotect, page, PAGE, PROT_READ);
    say!("second only to be read: {}", call(at, page as usize, 0));
}
