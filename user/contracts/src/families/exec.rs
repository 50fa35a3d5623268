//! execve(2): what a new program finds, and what is refused.

use std::process::ExitCode;

use crate::{say, tests};

/// As the first argument: this program is run by a test, and the next word says what as.
pub const GUISE: &str = "--as";

/// The life of this program after an execve.
pub fn other_life(mut words: impl Iterator<Item = String>) -> ExitCode {
    match words.nth(1).as_deref() {
        Some("arguments") => words.for_each(|word| say!("argument {word:?}")),
        other => say!("nothing known: {other:?}"),
    }
    ExitCode::SUCCESS
}

tests! { arguments }

fn arguments() {
    let argv = [c"contracts".as_ptr(), c"--as".as_ptr(), c"arguments".as_ptr(), c"one".as_ptr(), std::ptr::null()];
    let envp = [std::ptr::null::<u8>()];
    say!("not there: {}", crate::sys::sys!(SYS_execve, c"/nowhere", &argv, &envp));
    crate::sys::sys!(SYS_execve, c"/proc/self/exe", &argv, &envp);
}
