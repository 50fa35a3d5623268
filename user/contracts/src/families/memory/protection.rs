//! Who may access memory, and what a fault tells.

use std::sync::atomic::Ordering;

use libc::*;

use super::{PRIVATE, RW, memfd, page, protect, unmap};
use crate::file::{self, create};
use crate::memory::{PAGE, map, map_at, pages, peek, poke, try_peek, try_poke};
use crate::sys::sys;
use crate::{process, say, signal};

pub(super) fn protection_faults() {
    for (name, protection) in
        [("none", PROT_NONE), ("read", PROT_READ), ("write", PROT_WRITE), ("read, write", RW), ("execute", PROT_EXEC)]
    {
        let memory = pages(1);
        protect(memory, PAGE, protection);
        say!("{name}: read {}, write {}", try_peek(memory), try_poke(memory));
    }
}

/// Reads or writes in a child with a handler and says what the handler got.
fn record(what: &str, memory: *mut u8, access: impl FnOnce()) {
    process::in_child(|| {
        extern "C" fn report(signal: i32, info: *const siginfo_t, _: *mut c_void) {
            signal::count(signal, info, std::ptr::null_mut());
            let base = BASE.load(Ordering::SeqCst);
            let code = signal::LAST_CODE.load(Ordering::SeqCst);
            let offset = signal::LAST_ADDRESS.load(Ordering::SeqCst).wrapping_sub(base) as i64;
            say!("  {}, code {code}, at {offset:#x}", signal::name(signal));
            process::exit(0);
        }
        static BASE: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        BASE.store(memory as u64, Ordering::SeqCst);
        say!("{what}:");
        signal::handle(SIGSEGV, report, 0);
        signal::handle(SIGBUS, report, 0);
        access();
        say!("  nothing");
        0
    });
}

pub(super) fn fault_records() {
    let memory = pages(3);
    record("write to read-only", memory, || {
        protect(memory, PAGE, PROT_READ);
        poke(memory.wrapping_add(5), 1);
    });
    record("read of a hole", memory, || {
        unmap(page(memory, 1), PAGE);
        peek(page(memory, 1).wrapping_add(4095));
    });
    record("read of PROT_NONE", memory, || {
        protect(page(memory, 2), PAGE, PROT_NONE);
        peek(page(memory, 2));
    });
    record("write beyond a file's end", memory, || {
        let fd = create(c"f", "short");
        map_at(memory.cast(), 3 * PAGE, RW, MAP_SHARED | MAP_FIXED, fd, 0).need();
        poke(page(memory, 1).wrapping_add(16), 1);
    });
    record("null", std::ptr::null_mut(), || {
        peek(std::ptr::null());
    });
}

pub(super) fn protect_splits() {
    let memory = pages(5);
    say!("{}", protect(page(memory, 1), PAGE, PROT_READ));
    say!("{}", protect(page(memory, 3), PAGE, PROT_NONE));
    let all: Vec<String> = (0..5).map(|number| try_poke(page(memory, number))).collect();
    say!("writes: {}", all.join(", "));
    say!("all writable again: {}", protect(memory, 5 * PAGE, RW));
    let all: Vec<String> = (0..5).map(|number| try_poke(page(memory, number))).collect();
    say!("writes: {}", all.join(", "));
}

pub(super) fn protect_over_a_hole() {
    let memory = pages(4);
    unmap(page(memory, 2), PAGE);
    say!("over a hole: {}", protect(memory, 4 * PAGE, PROT_READ));
    say!("what is before it has changed: {}", try_poke(memory));
    say!("what is after it has not: {}", try_poke(page(memory, 3)));
    say!("length 0: {}", protect(memory, 0, PROT_READ));
    say!("not aligned: {}", protect(memory.wrapping_add(1), PAGE, PROT_READ));
    say!("unknown bits: {}", protect(memory, PAGE, 0x100));
    say!("PROT_GROWSDOWN of what does not: {}", protect(memory, PAGE, PROT_READ | 0x0100_0000));
}

pub(super) fn none_and_back() {
    let memory = pages(1);
    poke(memory, 77);
    protect(memory, PAGE, PROT_NONE);
    say!("closed: {}", try_peek(memory));
    protect(memory, PAGE, PROT_READ);
    say!("open: {}", peek(memory));
}

/// `mov w0, #value; ret`.
fn code(value: u32) -> [u32; 2] {
    [0x5280_0000 | value << 5, 0xd65f_03c0]
}

fn put_code(memory: *mut u8, value: u32) {
    for (at, byte) in code(value).iter().flat_map(|word| word.to_le_bytes()).enumerate() {
        poke(memory.wrapping_add(at), byte);
    }
}

#[cfg(target_arch = "aarch64")]
fn run_code(memory: *mut u8) -> i32 {
    // SAFETY: the page holds the two instructions of `code`, or the fault that the test wants; data is cleaned and the
    // instruction cache invalidated as the Arm manual says (B2.4.4).
    unsafe {
        std::arch::asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb", in(reg) memory);
        let function: extern "C" fn() -> i32 = std::mem::transmute(memory);
        function()
    }
}

#[cfg(not(target_arch = "aarch64"))]
fn run_code(_: *mut u8) -> i32 {
    0
}

pub(super) fn execute_new_code() {
    let memory = pages(1);
    put_code(memory, 42);
    protect(memory, PAGE, PROT_READ | PROT_EXEC);
    say!("runs: {}", run_code(memory));
    protect(memory, PAGE, RW);
    put_code(memory, 43);
    protect(memory, PAGE, PROT_READ | PROT_EXEC);
    say!("changed, runs: {}", run_code(memory));
    let all = map(PAGE, RW | PROT_EXEC, PRIVATE, -1, 0).need() as *mut u8;
    put_code(all, 44);
    say!("writable and executable at once: {}", run_code(all));
    let fd = memfd(0);
    sys!(SYS_ftruncate, fd, PAGE);
    let writer = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    let runner = map(PAGE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0).need() as *mut u8;
    put_code(writer, 45);
    say!("mapped twice: {}", run_code(runner));
}

pub(super) fn not_executable() {
    let memory = pages(1);
    put_code(memory, 42);
    say!("not executable: {}", process::in_child(|| run_code(memory)));
    record("its record", memory, || {
        run_code(memory);
    });
    let only = pages(1);
    put_code(only, 42);
    protect(only, PAGE, PROT_EXEC);
    say!("only executable: {}", process::in_child(|| run_code(only)));
}

pub(super) fn fault_in_system_call() {
    let [reader, writer] = file::pipe();
    let memory = pages(2);
    say!("write from a fresh page: {}", sys!(SYS_write, writer, memory, 10));
    say!("read into a fresh page: {}", sys!(SYS_read, reader, page(memory, 1), 10));
    protect(memory, PAGE, PROT_READ);
    sys!(SYS_write, writer, memory, 10);
    say!("read into a read-only page: {}", sys!(SYS_read, reader, memory, 10));
    say!("what waits is still there: {}", sys!(SYS_read, reader, page(memory, 1), 10));
    let fd = create(c"f", "short");
    let beyond = map(2 * PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    say!("write from behind a file's end: {}", sys!(SYS_write, writer, page(beyond, 1), 10));
    sys!(SYS_write, writer, memory, 10);
    say!("read into it: {}", sys!(SYS_read, reader, page(beyond, 1), 10));
    protect(memory, PAGE, PROT_NONE);
    say!("write from PROT_NONE: {}", sys!(SYS_write, writer, memory, 10));
}

pub(super) fn misaligned_bus() {
    let memory = pages(2);
    let word = memory.wrapping_add(PAGE - 2).cast::<u32>();
    // SAFETY: four bytes in a mapping of two pages; plain loads need no alignment on arm64.
    unsafe { word.write_unaligned(0x1234_5678) };
    // SAFETY: as above.
    say!("over two pages: {:#x}", unsafe { word.read_unaligned() });
    record("an exclusive load off its boundary", memory, || {
        #[cfg(target_arch = "aarch64")]
        // SAFETY: an address in the mapping; that it is not aligned is the point.
        unsafe {
            std::arch::asm!("ldxr {1}, [{0}]", "clrex", in(reg) memory.wrapping_add(1), out(reg) _);
        }
    });
}

pub(super) fn barrier_commands() {
    let call = |command: i32, flags: u32| sys!(SYS_membarrier, command, flags, 0);
    say!("GLOBAL: {}", call(1, 0));
    say!("PRIVATE_EXPEDITED before registration: {}", call(8, 0));
    say!("registration: {}", call(16, 0));
    say!("PRIVATE_EXPEDITED: {}", call(8, 0));
    say!("GLOBAL_EXPEDITED: {} {}", call(4, 0), call(2, 0));
    say!("SYNC_CORE: {} {}", call(64, 0), call(32, 0));
    say!("unknown: {}", call(1 << 20, 0));
    say!("flags: {}", call(0, 1));
}
