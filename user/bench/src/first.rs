//! The first program of the machine that `cargo xtask bench boot` starts. Its very first
//! instruction is what the host waits for, so it does nothing.

#![no_main]

/// What the C library's start-up code calls.
#[unsafe(no_mangle)]
pub extern "C" fn main() -> i32 {
    loop {
        // SAFETY: no memory involved.
        unsafe { libc::pause() };
    }
}
