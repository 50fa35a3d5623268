//! Mappings.

use std::ffi::c_void;
use std::sync::atomic::AtomicU32;

use libc::{MAP_ANONYMOUS, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE};

use crate::process::{self, Status};
use crate::sys::{Ret, sys};

pub const PAGE: usize = 4096;

/// An anonymous private mapping of so many pages, to read and write.
pub fn pages(count: usize) -> *mut u8 {
    map(count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0).need() as *mut u8
}

/// An anonymous page that children share.
pub fn shared_page() -> *mut u8 {
    map(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0).need() as *mut u8
}

/// The first words of a new page that children share.
pub fn shared_words() -> &'static [AtomicU32; 64] {
    // SAFETY: a page that stays mapped, larger than the array, zero at first.
    unsafe { &*shared_page().cast() }
}

pub fn map(length: usize, protection: i32, flags: i32, fd: i32, offset: i64) -> Ret {
    map_at(std::ptr::null_mut(), length, protection, flags, fd, offset)
}

pub fn map_at(at: *mut c_void, length: usize, protection: i32, flags: i32, fd: i32, offset: i64) -> Ret {
    sys!(SYS_mmap, at, length, protection, flags, fd, offset)
}

/// Reads a byte wherever it is; the test knows what becomes of it.
pub fn peek(at: *const u8) -> u8 {
    // SAFETY: an address that the test has mapped, or a fault that it wants.
    unsafe { at.read_volatile() }
}

pub fn poke(at: *mut u8, value: u8) {
    // SAFETY: as above.
    unsafe { at.write_volatile(value) }
}

/// What becomes of a process that reads there.
pub fn try_peek(at: *const u8) -> String {
    attempt(|| i32::from(peek(at)))
}

/// What becomes of a process that writes there. A private page stays as it is for this process.
pub fn try_poke(at: *mut u8) -> String {
    attempt(|| {
        poke(at, 1);
        0
    })
}

fn attempt(access: impl FnOnce() -> i32) -> String {
    match process::in_child(access) {
        Status::Exited(value) => value.to_string(),
        other => other.to_string(),
    }
}
