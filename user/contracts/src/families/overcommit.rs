//! Which mappings are refused because there can never be so much memory (proc_sys_vm(5), overcommit_memory).

use libc::*;

use crate::file::{close, contents, open, write};
use crate::memory::{map, map_at};
use crate::process::as_plain_user;
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! { heuristic, always, setting }

const MODE: &std::ffi::CStr = c"/proc/sys/vm/overcommit_memory";
/// More than any guest has, and little in an address space.
const LARGE: usize = 1 << 40;
const PRIVATE: i32 = MAP_PRIVATE | MAP_ANONYMOUS;
const SHARED: i32 = MAP_SHARED | MAP_ANONYMOUS;
const WRITABLE: i32 = PROT_READ | PROT_WRITE;

fn set_mode(text: &str) -> String {
    let fd = open(MODE, O_WRONLY);
    if !fd.ok() {
        return fd.to_string();
    }
    let said = write(fd.fd(), text).to_string();
    close(fd.fd());
    said
}

/// Whether it was done; what was mapped goes again.
fn tried(mapped: Ret) -> String {
    if !mapped.ok() {
        return mapped.to_string();
    }
    sys!(SYS_munmap, mapped.0, LARGE);
    "done".into()
}

fn mappings() {
    say!("writable: {}", tried(map(LARGE, WRITABLE, PRIVATE, -1, 0)));
    say!("without reserve: {}", tried(map(LARGE, WRITABLE, PRIVATE | MAP_NORESERVE, -1, 0)));
    say!("read-only: {}", tried(map(LARGE, PROT_READ, PRIVATE, -1, 0)));
    say!("shared: {}", tried(map(LARGE, WRITABLE, SHARED, -1, 0)));
    say!("shared and read-only: {}", tried(map(LARGE, PROT_READ, SHARED, -1, 0)));
    say!("shared without reserve: {}", tried(map(LARGE, WRITABLE, SHARED | MAP_NORESERVE, -1, 0)));
    let none = map(LARGE, PROT_NONE, PRIVATE, -1, 0);
    say!("made writable: {}", sys!(SYS_mprotect, none.0, LARGE, WRITABLE));
    say!("a part of it: {}", sys!(SYS_mprotect, none.0, 1 << 20, WRITABLE));
    let over = map_at(none.0 as *mut c_void, LARGE, WRITABLE, PRIVATE | MAP_FIXED, -1, 0);
    say!("in its place: {}", if over.ok() { "done".into() } else { over.to_string() });
    tried(none);
    let none = map(LARGE, PROT_NONE, PRIVATE | MAP_NORESERVE, -1, 0);
    say!("made writable without reserve: {}", sys!(SYS_mprotect, none.0, LARGE, WRITABLE));
    tried(none);
    let small = map(1 << 20, WRITABLE, PRIVATE, -1, 0);
    say!("grown: {}", tried(sys!(SYS_mremap, small.0, 1 << 20, LARGE, MREMAP_MAYMOVE, 0)));
    let heap = sys!(SYS_brk, 0).0;
    say!("heap: {}", sys!(SYS_brk, heap + LARGE as i64).0 - heap);
}

fn heuristic() {
    say!("mode: {}", contents(MODE).trim());
    mappings();
}

fn always() {
    say!("mode 1: {}", set_mode("1"));
    mappings();
    say!("mode 0: {}", set_mode("0"));
}

fn setting() {
    for text in ["3", "-1", "x", "1\n"] {
        say!("{text:?}: {}", set_mode(text));
    }
    say!("mode: {}", contents(MODE).trim());
    as_plain_user(|| say!("a user: {}", set_mode("0")));
    say!("mode 0: {}", set_mode("0"));
}
