//! Contract tests: what a program may rely on, shown one behaviour at a time.
//!
//! `contracts [--list] [--after NAME] [--timeout SECONDS] [PART OF A NAME…]` runs tests and prints what each saw: a line
//! `== family.behaviour`, then its transcript. Transcripts have return values, errors, contents and signals in them, but
//! no addresses, process ids or times, so they are the same on each run; `cargo xtask contract` compares those of Pollux
//! with those of Linux.
//!
//! * [`families`] has the tests, a file a family. A test is a function that calls [`say!`].
//! * [`mod@sys`] is the door to the kernel and names what comes back; [`process`], [`signal`], [`memory`] and
//!   [`mod@file`] are what many tests need; [`terminal`] has ptys.
//! * [`inet`] is about sockets on the loopback, [`netlink`] about messages to the kernel and from it.
//! * [`ring`] is a small library for io_uring.
//! * [`guise`] is what this program does when a test executes it.
//! * [`tracing`] traces threads.
//! * [`runner`] gives each test a process, an empty directory and a time limit, and clears away what it leaves behind.

mod families;
mod file;
mod guise;
mod inet;
mod memory;
mod message;
mod netlink;
mod process;
mod ring;
mod runner;
mod signal;
mod sys;
mod terminal;
mod tracing;
mod urgent;

use std::process::ExitCode;

/// One behaviour.
pub struct Test {
    pub name: &'static str,
    pub run: fn(),
}

/// The tests of a family: functions by their names.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub const TESTS: &[$crate::Test] = &[$($crate::Test { name: stringify!($name), run: $name }),*];
    };
}

/// Writes a line of the transcript.
#[macro_export]
macro_rules! say {
    ($($argument:tt)*) => { $crate::runner::line(&format!($($argument)*)) };
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1).peekable();
    // What tests of execve run.
    if words.peek().is_some_and(|word| word == guise::GUISE) {
        return guise::other_life(words);
    }
    match runner::Options::parse(words) {
        Some(options) => options.run(),
        None => {
            eprintln!("usage: contracts [--list] [--after NAME] [--timeout SECONDS] [PART OF A NAME…]");
            ExitCode::from(2)
        }
    }
}
