//! What the tests that drive guests have in common: the kernel under test, fresh images, runs of
//! one program ([`run`]) and a terminal session on the console ([`Console`]).
//!
//! `cargo xtask test` sets the environment: `POLLUX_TEST_KERNEL` (`pollux` or `linux`),
//! `POLLUX_TEST_RECORD` (write down what this kernel does instead of comparing) and
//! `POLLUX_XTASK` (the program to start).

pub mod console;
pub mod lab;
pub mod transcript;

pub use console::Console;
pub use lab::{kernel, recording, run, run_on, run_script};
