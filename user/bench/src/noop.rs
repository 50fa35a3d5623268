//! The smallest program that there is, to be executed by rows about exec.

#![no_main]

/// What the C library's start-up code calls.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    0
}
