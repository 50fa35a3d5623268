//! Mappings: what they show, what they refuse, and the faults they end in.

use std::sync::atomic::Ordering;

use libc::*;

use crate::file::{self, close, contents, create};
use crate::memory::{PAGE, map, map_at, pages, peek, poke, try_peek, try_poke};
use crate::process::{self, Gate};
use crate::signal;
use crate::sys::sys;
use crate::{say, tests};

tests! {
    anonymous_is_zero, shared_over_fork, private_over_fork, fixed_replaces, fixed_noreplace, partial_unmap,
    unmap_of_nothing, protection_faults, fault_records, protect_splits, protect_over_a_hole, none_and_back,
    file_private, file_shared, file_end, file_truncated_under_mapping, file_grown_under_mapping, file_offset,
    file_closed_after_mapping, write_through_read_only_descriptor, zero_device, remap_grow_and_move, remap_shrink,
    remap_fixed, remap_dontunmap, remap_shared_duplicate, advise_dontneed, advise_dontneed_file, advise_free,
    advise_dontfork, advise_wipeonfork, advise_unknown, advise_merging_and_huge_pages, resident_pages, sync_pages, break_area, break_limits,
    stack_grows, stack_limit, growsdown, lock_limits, locked_stay_over_fork, memfd_contents, memfd_seals,
    memfd_seal_write, execute_new_code, not_executable, populate, noreserve_is_large, address_space_limit, data_limit,
    fault_in_system_call, copy_on_write_many_children, shared_file_between_processes, maps_of_this, misaligned_bus,
    barrier_commands, mapping_outlives_unlink,
}

const RW: i32 = PROT_READ | PROT_WRITE;
const PRIVATE: i32 = MAP_PRIVATE | MAP_ANONYMOUS;
const SHARED: i32 = MAP_SHARED | MAP_ANONYMOUS;

fn shared_pages(count: usize) -> *mut u8 {
    map(count * PAGE, RW, SHARED, -1, 0).need() as *mut u8
}

fn unmap(at: *mut u8, length: usize) -> crate::sys::Ret {
    sys!(SYS_munmap, at, length)
}

fn protect(at: *mut u8, length: usize, protection: i32) -> crate::sys::Ret {
    sys!(SYS_mprotect, at, length, protection)
}

/// The page with this number.
fn page(of: *mut u8, number: usize) -> *mut u8 {
    of.wrapping_add(number * PAGE)
}

fn text(at: *const u8, length: usize) -> String {
    (0..length).map(|index| char::from(peek(at.wrapping_add(index)))).collect()
}

fn anonymous_is_zero() {
    let memory = pages(16);
    say!("sum: {}", (0..16 * PAGE).map(|at| u64::from(peek(memory.wrapping_add(at)))).sum::<u64>());
    poke(page(memory, 3), 7);
    unmap(memory, 16 * PAGE);
    let again = map_at(memory.cast(), 16 * PAGE, RW, PRIVATE | MAP_FIXED, -1, 0).need() as *mut u8;
    say!("mapped again at the same place: {}", peek(page(again, 3)));
    say!("a hint that is free is taken: {}", {
        unmap(again, 16 * PAGE);
        map_at(again.cast(), PAGE, RW, PRIVATE, -1, 0).need() as usize == again as usize
    });
}

fn shared_over_fork() {
    let memory = shared_pages(1);
    let status = process::in_child(|| {
        poke(memory, 42);
        0
    });
    say!("the child {status}; its parent sees {}", peek(memory));
}

fn private_over_fork() {
    let memory = pages(2);
    poke(memory, 1);
    let gate = Gate::new();
    let child = process::child(|| {
        gate.pass();
        say!("the child sees {} and {}", peek(memory), peek(page(memory, 1)));
        poke(memory, 3);
        0
    });
    poke(memory, 2);
    poke(page(memory, 1), 2);
    gate.open();
    process::wait(child);
    say!("its parent sees {} and {}", peek(memory), peek(page(memory, 1)));
}

fn fixed_replaces() {
    let memory = pages(3);
    (0..3).for_each(|number| poke(page(memory, number), 9));
    let middle = map_at(page(memory, 1).cast(), PAGE, RW, PRIVATE | MAP_FIXED, -1, 0);
    say!("at the place asked for: {}", middle.0 as usize == page(memory, 1) as usize);
    say!("{} {} {}", peek(memory), peek(page(memory, 1)), peek(page(memory, 2)));
    say!("not aligned: {}", map_at(memory.wrapping_add(1).cast(), PAGE, RW, PRIVATE | MAP_FIXED, -1, 0));
    say!("at 0: {}", map_at(std::ptr::null_mut(), PAGE, RW, PRIVATE | MAP_FIXED, -1, 0).ok_or_error());
    say!("in the kernel's half: {}", map_at(crate::sys::KERNEL, PAGE, RW, PRIVATE | MAP_FIXED, -1, 0));
    say!("beyond all addresses: {}", map_at((1usize << 48) as *mut _, PAGE, RW, PRIVATE | MAP_FIXED, -1, 0));
}

fn fixed_noreplace() {
    let memory = pages(3);
    let flags = PRIVATE | MAP_FIXED_NOREPLACE;
    say!("over a mapping: {}", map_at(page(memory, 1).cast(), PAGE, RW, flags, -1, 0));
    say!("over its end: {}", map_at(page(memory, 2).cast(), 4 * PAGE, RW, flags, -1, 0));
    unmap(page(memory, 1), PAGE);
    say!("in the hole: {}", map_at(page(memory, 1).cast(), PAGE, RW, flags, -1, 0).ok_or_error());
}

fn partial_unmap() {
    let memory = pages(5);
    (0..5).for_each(|number| poke(page(memory, number), number as u8 + 1));
    say!("the middle: {}", unmap(page(memory, 2), PAGE));
    say!("left: {}, right: {}", peek(page(memory, 1)), peek(page(memory, 3)));
    say!("the hole: {}", try_peek(page(memory, 2)));
    say!("the head with a length of one byte: {}", unmap(memory, 1));
    say!("the head: {}, the next: {}", try_peek(memory), peek(page(memory, 1)));
    say!("all of it, holes too: {}", unmap(memory, 5 * PAGE));
    say!("the tail: {}", try_peek(page(memory, 4)));
}

fn unmap_of_nothing() {
    let memory = pages(1);
    unmap(memory, PAGE);
    say!("again: {}", unmap(memory, PAGE));
    say!("length 0: {}", unmap(memory, 0));
    say!("not aligned: {}", unmap(memory.wrapping_add(8), PAGE));
    say!("too long: {}", unmap(memory, usize::MAX & !4095));
    say!("the kernel's: {}", sys!(SYS_munmap, crate::sys::KERNEL, PAGE));
}

fn protection_faults() {
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

fn fault_records() {
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

fn protect_splits() {
    let memory = pages(5);
    say!("{}", protect(page(memory, 1), PAGE, PROT_READ));
    say!("{}", protect(page(memory, 3), PAGE, PROT_NONE));
    let all: Vec<String> = (0..5).map(|number| try_poke(page(memory, number))).collect();
    say!("writes: {}", all.join(", "));
    say!("all writable again: {}", protect(memory, 5 * PAGE, RW));
    let all: Vec<String> = (0..5).map(|number| try_poke(page(memory, number))).collect();
    say!("writes: {}", all.join(", "));
}

fn protect_over_a_hole() {
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

fn none_and_back() {
    let memory = pages(1);
    poke(memory, 77);
    protect(memory, PAGE, PROT_NONE);
    say!("closed: {}", try_peek(memory));
    protect(memory, PAGE, PROT_READ);
    say!("open: {}", peek(memory));
}

fn file_private() {
    let fd = create(c"f", "original contents");
    let memory = map(PAGE, RW, MAP_PRIVATE, fd, 0).need() as *mut u8;
    say!("{:?}", text(memory, 17));
    poke(memory, b'O');
    say!("after a write to memory: {:?}, the file {}", text(memory, 8), contents(c"f"));
    sys!(SYS_pwrite64, fd, "ORIG", 4, 0);
    say!("after a write to the file: {:?}", text(memory, 8));
    let fresh = map(PAGE, RW, MAP_PRIVATE, fd, 0).need() as *mut u8;
    say!("another mapping: {:?}", text(fresh, 8));
}

fn file_shared() {
    let fd = create(c"f", "original contents");
    let memory = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    poke(memory, b'O');
    say!("the file: {}", contents(c"f"));
    sys!(SYS_pwrite64, fd, "RIG", 3, 1);
    say!("memory: {:?}", text(memory, 8));
    let other = map(PAGE, PROT_READ, MAP_SHARED, fd, 0).need() as *mut u8;
    poke(memory.wrapping_add(9), b'C');
    say!("another mapping: {:?}", text(other, 17));
    poke(memory.wrapping_add(100), b'x');
    say!("a write behind the end: {}", contents(c"f"));
}

fn file_end() {
    let fd = create(c"f", "five!");
    let memory = map(2 * PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    say!("the rest of the last page: {} {}", peek(memory.wrapping_add(5)), peek(memory.wrapping_add(4095)));
    say!("the page after it: {}", try_peek(page(memory, 1)));
    let empty = create(c"empty", "");
    let memory = map(PAGE, RW, MAP_SHARED, empty, 0).need() as *mut u8;
    say!("an empty file: {}", try_peek(memory));
    say!("an offset behind the end: {}", map(PAGE, RW, MAP_SHARED, fd, 1 << 20).ok_or_error());
}

fn file_truncated_under_mapping() {
    let fd = create(c"f", &"x".repeat(3 * PAGE));
    let shared = map(3 * PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    let private = map(3 * PAGE, RW, MAP_PRIVATE, fd, 0).need() as *mut u8;
    (0..3).for_each(|number| poke(page(private, number), b'p'));
    (0..3).for_each(|number| assert!(peek(page(shared, number)) == b'x'));
    sys!(SYS_ftruncate, fd, PAGE + 10);
    say!("within: {:?}", text(page(shared, 1), 10));
    say!("the tail of the last page: {}", peek(page(shared, 1).wrapping_add(10)));
    say!("beyond, shared: {}", try_peek(page(shared, 2)));
    say!("beyond, a private copy: {}", try_peek(page(private, 2)));
    say!("within, a private copy: {}", try_peek(page(private, 1)));
}

fn file_grown_under_mapping() {
    let fd = create(c"f", "x");
    let memory = map(2 * PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    poke(memory.wrapping_add(3), b'!');
    sys!(SYS_ftruncate, fd, 2 * PAGE);
    say!("now there: {}", try_peek(page(memory, 1)));
    poke(page(memory, 1), b'y');
    say!("what was written behind the end: {}", file::read_at(fd, 5, 0));
    say!("the file: {}", file::read_at(fd, 2, PAGE as i64));
}

fn file_offset() {
    let fd = create(c"f", &("a".repeat(PAGE) + &"b".repeat(PAGE)));
    let memory = map(PAGE, PROT_READ, MAP_PRIVATE, fd, PAGE as i64).need() as *mut u8;
    say!("the second page: {:?}", text(memory, 3));
    say!("not a multiple of the page: {}", map(PAGE, PROT_READ, MAP_PRIVATE, fd, 512));
    say!("negative: {}", map(PAGE, PROT_READ, MAP_PRIVATE, fd, -4096));
    say!("length 0: {}", map(0, PROT_READ, MAP_PRIVATE, fd, 0));
    say!("neither shared nor private: {}", map(PAGE, PROT_READ, 0, fd, 0));
    say!("validated: {}", map(PAGE, PROT_READ, MAP_SHARED_VALIDATE, fd, 0).ok_or_error());
    say!("validated, unknown flag: {}", map(PAGE, PROT_READ, MAP_SHARED_VALIDATE | 1 << 25, fd, 0));
    say!("a size of huge pages: {}", map(PAGE, PROT_READ, MAP_SHARED_VALIDATE | 1 << 27, fd, 0).ok_or_error());
    say!("huge: {}", map(usize::MAX & !4095, PROT_READ, MAP_PRIVATE, fd, 0));
}

fn file_closed_after_mapping() {
    let fd = create(c"f", "still there");
    let memory = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    close(fd);
    say!("{:?}", text(memory, 11));
    poke(memory, b'S');
    say!("{}", contents(c"f"));
}

fn mapping_outlives_unlink() {
    let fd = create(c"f", "without a name");
    let memory = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    close(fd);
    say!("unlink: {}", sys!(SYS_unlinkat, AT_FDCWD, c"f", 0));
    poke(memory, b'W');
    say!("{:?}", text(memory, 14));
}

fn write_through_read_only_descriptor() {
    close(create(c"f", "contents"));
    let fd = file::open(c"f", O_RDONLY).fd();
    say!("shared, to write: {}", map(PAGE, RW, MAP_SHARED, fd, 0));
    let memory = map(PAGE, PROT_READ, MAP_SHARED, fd, 0).need() as *mut u8;
    say!("made writable later: {}", protect(memory, PAGE, RW));
    let private = map(PAGE, PROT_READ, MAP_PRIVATE, fd, 0).need() as *mut u8;
    say!("a private one: {}", protect(private, PAGE, RW));
    let writer = file::open(c"f", O_WRONLY).fd();
    say!("from a descriptor only to write: {}", map(PAGE, PROT_WRITE, MAP_SHARED, writer, 0));
}

fn zero_device() {
    let fd = file::open(c"/dev/zero", O_RDWR).fd();
    let memory = map(PAGE, RW, MAP_PRIVATE, fd, 0).need() as *mut u8;
    say!("private: {}", peek(memory));
    poke(memory, 5);
    let shared = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    process::in_child(|| {
        poke(shared, 6);
        poke(memory, 6);
        0
    });
    say!("after a child's writes: private {}, shared {}", peek(memory), peek(shared));
}

fn remap(at: *mut u8, old: usize, new: usize, flags: i32, to: *mut u8) -> crate::sys::Ret {
    sys!(SYS_mremap, at, old, new, flags, to)
}

fn remap_grow_and_move() {
    let memory = pages(4);
    (0..2).for_each(|number| poke(page(memory, number), number as u8 + 1));
    unmap(page(memory, 2), 2 * PAGE);
    let grown = remap(memory, 2 * PAGE, 3 * PAGE, 0, memory);
    say!("in place: {}", grown.0 as usize == memory as usize);
    say!("contents: {} {} {}", peek(memory), peek(page(memory, 1)), peek(page(memory, 2)));
    map_at(page(memory, 3).cast(), PAGE, RW, PRIVATE | MAP_FIXED, -1, 0);
    // Two neighbours with the same rights are one mapping; this one has others.
    protect(page(memory, 3), PAGE, PROT_READ);
    say!("no room: {}", remap(memory, 3 * PAGE, 8 * PAGE, 0, memory));
    let moved = remap(memory, 3 * PAGE, 8 * PAGE, MREMAP_MAYMOVE, memory).need() as *mut u8;
    say!("moved: {}, contents: {} {} {}", moved != memory, peek(moved), peek(page(moved, 1)), peek(page(moved, 7)));
    say!("the old place: {}", try_peek(memory));
}

fn remap_shrink() {
    let memory = pages(4);
    (0..4).for_each(|number| poke(page(memory, number), number as u8 + 1));
    say!("in place: {}", remap(memory, 4 * PAGE, 2 * PAGE, 0, memory).0 as usize == memory as usize);
    say!("{} {} {}", peek(memory), peek(page(memory, 1)), try_peek(page(memory, 2)));
    say!("to nothing: {}", remap(memory, 2 * PAGE, 0, 0, memory));
    say!("more than there is: {}", remap(memory, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE, memory));
}

fn remap_fixed() {
    let memory = pages(2);
    let target = pages(2);
    poke(memory, 1);
    poke(target, 2);
    say!("without MAYMOVE: {}", remap(memory, PAGE, PAGE, MREMAP_FIXED, target));
    say!("onto itself: {}", remap(memory, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, page(memory, 1)));
    let moved = remap(memory, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target);
    say!("there: {}, contents {}", moved.0 as usize == target as usize, peek(target));
    say!("the old place: {}", try_peek(memory));
    say!("unknown flag: {}", remap(target, PAGE, PAGE, 64, target));
}

fn remap_dontunmap() {
    let memory = pages(1);
    poke(memory, 9);
    let moved = remap(memory, PAGE, PAGE, MREMAP_MAYMOVE | 4, std::ptr::null_mut()).need() as *mut u8;
    say!("moved {}, the old place {}", peek(moved), peek(memory));
    say!("with another length: {}", remap(moved, PAGE, 2 * PAGE, MREMAP_MAYMOVE | 4, std::ptr::null_mut()));
}

fn remap_shared_duplicate() {
    let memory = shared_pages(1);
    poke(memory, 9);
    let twin = remap(memory, 0, PAGE, MREMAP_MAYMOVE, std::ptr::null_mut()).need() as *mut u8;
    poke(twin, 10);
    say!("shared: {}", peek(memory));
    say!("of private memory: {}", remap(pages(1), 0, PAGE, MREMAP_MAYMOVE, std::ptr::null_mut()));
}

fn advise(at: *mut u8, length: usize, advice: i32) -> crate::sys::Ret {
    sys!(SYS_madvise, at, length, advice)
}

fn advise_dontneed() {
    let memory = pages(3);
    (0..3).for_each(|number| poke(page(memory, number), 1));
    say!("{}", advise(page(memory, 1), PAGE, MADV_DONTNEED));
    say!("{} {} {}", peek(memory), peek(page(memory, 1)), peek(page(memory, 2)));
    let shared = shared_pages(1);
    poke(shared, 8);
    say!("shared: {}, {}", advise(shared, PAGE, MADV_DONTNEED), peek(shared));
    unmap(page(memory, 1), PAGE);
    poke(page(memory, 2), 4);
    say!("over a hole: {}", advise(memory, 3 * PAGE, MADV_DONTNEED));
    say!("what is behind it: {}", peek(page(memory, 2)));
    sys!(SYS_mlock, page(memory, 2), PAGE);
    say!("locked: {}", advise(page(memory, 2), PAGE, MADV_DONTNEED));
}

fn advise_dontneed_file() {
    let fd = create(c"f", "file");
    let memory = map(PAGE, RW, MAP_PRIVATE, fd, 0).need() as *mut u8;
    poke(memory, b'F');
    say!("{} {:?}", advise(memory, PAGE, MADV_DONTNEED), text(memory, 4));
    let shared = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    poke(shared, b'S');
    say!("shared: {} {:?}", advise(shared, PAGE, MADV_DONTNEED), text(shared, 4));
    say!("MADV_REMOVE of private memory: {}", advise(pages(1), PAGE, MADV_REMOVE));
}

fn advise_free() {
    let memory = pages(1);
    poke(memory, 5);
    say!("{}", advise(memory, PAGE, MADV_FREE));
    poke(memory, 6);
    say!("written afterwards: {}", peek(memory));
    say!("shared: {}", advise(shared_pages(1), PAGE, MADV_FREE));
}

fn advise_dontfork() {
    let memory = pages(2);
    poke(memory, 5);
    say!("{}", advise(memory, PAGE, MADV_DONTFORK));
    say!("a child: {}, and the next page: {}", try_peek(memory), try_peek(page(memory, 1)));
    say!("{}", advise(memory, PAGE, MADV_DOFORK));
    say!("a child: {}", try_peek(memory));
}

fn advise_wipeonfork() {
    let memory = pages(1);
    poke(memory, 5);
    say!("{}", advise(memory, PAGE, 18));
    say!("a child: {}, this process: {}", try_peek(memory), peek(memory));
    say!("shared: {}", advise(shared_pages(1), PAGE, 18));
    say!("MADV_KEEPONFORK: {}, a child: {}", advise(memory, PAGE, 19), try_peek(memory));
}

fn advise_unknown() {
    let memory = pages(1);
    for advice in [0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 20, 21, 22, 23, 26, 99, 102, -1] {
        say!("{advice}: {}", advise(memory, PAGE, advice));
    }
    say!("length 0, unknown: {}", advise(memory, 0, 99));
    say!("length 0: {}", advise(memory, 0, MADV_NORMAL));
}

fn advise_merging_and_huge_pages() {
    let memory = pages(1);
    for advice in [MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_HUGEPAGE, MADV_NOHUGEPAGE] {
        say!("{advice}: {}", advise(memory, PAGE, advice));
    }
}

fn resident_pages() {
    let memory = pages(4);
    poke(page(memory, 2), 1);
    let mut vector = [9u8; 4];
    say!("mincore: {}", sys!(SYS_mincore, memory, 4 * PAGE, &mut vector));
    say!("{vector:?}");
    unmap(page(memory, 1), PAGE);
    say!("over a hole: {}", sys!(SYS_mincore, memory, 4 * PAGE, &mut vector));
    say!("not aligned: {}", sys!(SYS_mincore, memory as usize + 1, PAGE, &mut vector));
    say!("length 0: {}", sys!(SYS_mincore, memory, 0, &mut vector));
}

fn sync_pages() {
    let fd = create(c"f", "contents");
    let memory = map(2 * PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    poke(memory, b'C');
    say!("MS_SYNC: {}", sys!(SYS_msync, memory, PAGE, MS_SYNC));
    say!("MS_ASYNC | MS_INVALIDATE: {}", sys!(SYS_msync, memory, PAGE, MS_ASYNC | MS_INVALIDATE));
    say!("both: {}", sys!(SYS_msync, memory, PAGE, MS_SYNC | MS_ASYNC));
    say!("none: {}", sys!(SYS_msync, memory, PAGE, 0));
    say!("unknown: {}", sys!(SYS_msync, memory, PAGE, 8));
    say!("not aligned: {}", sys!(SYS_msync, memory as usize + 1, PAGE, MS_SYNC));
    unmap(page(memory, 1), PAGE);
    say!("over a hole: {}", sys!(SYS_msync, memory, 2 * PAGE, MS_SYNC));
    sys!(SYS_mlock, memory, PAGE);
    say!("MS_INVALIDATE of locked pages: {}", sys!(SYS_msync, memory, PAGE, MS_INVALIDATE));
}

fn break_area() {
    let start = sys!(SYS_brk, 0).0;
    let grown = sys!(SYS_brk, start + 3 * PAGE as i64 + 5).0;
    say!("grown by {}", grown - start);
    let memory = start as *mut u8;
    let last = memory.wrapping_add(3 * PAGE);
    poke(last, 3);
    say!("the last byte's page: {}", peek(last));
    say!("shrunk by {}", grown - sys!(SYS_brk, start + PAGE as i64).0);
    say!("gone: {}", try_peek(last));
    sys!(SYS_brk, grown);
    say!("back, empty: {}", peek(last));
    say!("below its start nothing happens: {}", sys!(SYS_brk, start - (1 << 20)).0 == grown);
    say!("into the kernel neither: {}", sys!(SYS_brk, crate::sys::KERNEL).0 == grown);
}

fn break_limits() {
    let start = sys!(SYS_brk, 0).0;
    let limit = [1u64 << 20, 1 << 20];
    say!("setrlimit: {}", sys!(SYS_prlimit64, 0, RLIMIT_DATA, &limit, 0));
    say!("4 MiB: {}", sys!(SYS_brk, start + (4 << 20)).0 - start);
    let obstacle = map_at((start as usize + (16 << 20)) as *mut _, PAGE, PROT_NONE, PRIVATE | MAP_FIXED, -1, 0);
    say!("an obstacle: {}", obstacle.ok_or_error());
    say!("beyond it: {}", sys!(SYS_brk, start + (32 << 20)).0 - start);
}

#[inline(never)]
fn dig(depth: usize) -> usize {
    let room = std::hint::black_box([depth as u8; 16 * 1024]);
    if depth == 0 { usize::from(room[0]) } else { dig(depth - 1) + usize::from(room[1] == depth as u8) }
}

fn stack_grows() {
    say!("4 MiB deep: {}", dig(256));
}

fn stack_limit() {
    let limit = [1u64 << 20, 1 << 20];
    say!("1 MiB: {}", sys!(SYS_prlimit64, 0, RLIMIT_STACK, &limit, 0));
    say!("half of it: {}", process::in_child(|| i32::from(dig(32) != 32)));
    say!("4 MiB: {}", process::in_child(|| i32::from(dig(256) != 256)));
}

fn growsdown() {
    let memory = pages(512);
    unmap(memory, 512 * PAGE);
    let top = page(memory, 510);
    let flags = PRIVATE | MAP_GROWSDOWN | MAP_FIXED;
    map_at(top.cast(), 2 * PAGE, RW, flags, -1, 0).need();
    poke(top.wrapping_sub(1), 3);
    say!("one page down: {}", peek(top.wrapping_sub(1)));
    poke(page(memory, 300), 4);
    say!("far down: {}", peek(page(memory, 300)));
    say!("shared: {}", map(PAGE, RW, SHARED | MAP_GROWSDOWN, -1, 0));
}

fn lock_limits() {
    let memory = pages(64);
    say!("mlock: {}", sys!(SYS_mlock, memory, 64 * PAGE));
    say!("munlock: {}", sys!(SYS_munlock, memory, 64 * PAGE));
    say!("mlock2, unknown flag: {}", sys!(SYS_mlock2, memory, PAGE, 2));
    say!("mlock2 ONFAULT: {}", sys!(SYS_mlock2, memory, PAGE, 1));
    say!("mlockall of nothing: {}", sys!(SYS_mlockall, 0));
    say!("mlockall, unknown: {}", sys!(SYS_mlockall, 8));
    say!("MCL_ONFAULT alone: {}", sys!(SYS_mlockall, 4));
    process::in_child(|| {
        let limit = [8 * PAGE as u64, 8 * PAGE as u64];
        sys!(SYS_prlimit64, 0, RLIMIT_MEMLOCK, &limit, 0);
        sys!(SYS_setuid, 1000);
        say!("a user, within the limit: {}", sys!(SYS_mlock, memory, 8 * PAGE));
        say!("one page more: {}", sys!(SYS_mlock, page(memory, 8), PAGE));
        say!("the same again: {}", sys!(SYS_mlock, memory, 8 * PAGE));
        say!("MAP_LOCKED: {}", map(PAGE, RW, PRIVATE | MAP_LOCKED, -1, 0));
        say!("mlockall: {}", sys!(SYS_mlockall, MCL_CURRENT));
        0
    });
    process::in_child(|| {
        let limit = [0u64, 0];
        sys!(SYS_prlimit64, 0, RLIMIT_MEMLOCK, &limit, 0);
        sys!(SYS_setuid, 1000);
        say!("a user with nothing: {}", sys!(SYS_mlock, memory, PAGE));
        say!("munlock: {}", sys!(SYS_munlock, memory, PAGE));
        0
    });
}

fn locked_stay_over_fork() {
    let memory = pages(1);
    sys!(SYS_mlock, memory, PAGE);
    poke(memory, 7);
    process::in_child(|| {
        say!("a child: {}; MADV_DONTNEED {}", peek(memory), advise(memory, PAGE, MADV_DONTNEED));
        0
    });
}

fn memfd(flags: u32) -> i32 {
    sys!(SYS_memfd_create, c"contract", flags).fd()
}

fn memfd_contents() {
    let fd = memfd(0);
    say!("{}", file::described(file::fstat(fd)));
    file::write(fd, "in memory");
    let memory = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    say!("{:?}", text(memory, 9));
    poke(memory, b'I');
    say!("{}", file::read_at(fd, 20, 0));
    say!("close-on-exec: {}", sys!(SYS_fcntl, memfd(MFD_CLOEXEC), F_GETFD, 0));
    let mut name = [0u8; 64];
    let path = std::ffi::CString::new(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    let length = sys!(SYS_readlinkat, AT_FDCWD, path.as_c_str(), &mut name, 64).0.max(0) as usize;
    say!("its name: {}", String::from_utf8_lossy(&name[..length]));
    say!("unknown flag: {}", sys!(SYS_memfd_create, c"x", 0x80));
    let long = std::ffi::CString::new("n".repeat(250)).unwrap_or_default();
    say!("a name of 250: {}", sys!(SYS_memfd_create, long.as_c_str(), 0));
    say!("of 249: {}", sys!(SYS_memfd_create, long.as_c_str()[1..].as_ptr(), 0).ok_or_error());
}

fn memfd_seals() {
    let seals = |fd: i32| sys!(SYS_fcntl, fd, F_GET_SEALS, 0);
    let add = |fd: i32, seals: i32| sys!(SYS_fcntl, fd, F_ADD_SEALS, seals);
    let plain = memfd(0);
    say!("without MFD_ALLOW_SEALING: {}, add {}", seals(plain), add(plain, F_SEAL_GROW));
    let fd = memfd(MFD_ALLOW_SEALING);
    say!("with: {}", seals(fd));
    file::write(fd, "0123456789");
    say!("F_SEAL_SHRINK: {}, ftruncate {}", add(fd, F_SEAL_SHRINK), sys!(SYS_ftruncate, fd, 5));
    say!("growing: {}", sys!(SYS_ftruncate, fd, 20));
    say!("F_SEAL_GROW: {}, ftruncate {}", add(fd, F_SEAL_GROW), sys!(SYS_ftruncate, fd, 30));
    sys!(SYS_lseek, fd, 15, SEEK_SET);
    say!("a write over the end: {}", file::write(fd, "0123456789"));
    say!("unknown seal: {}", add(fd, 0x100));
    say!("F_SEAL_SEAL: {}, another {}", add(fd, F_SEAL_SEAL), add(fd, F_SEAL_WRITE));
    say!("in all: {}", seals(fd));
}

fn memfd_seal_write() {
    let fd = memfd(MFD_ALLOW_SEALING);
    file::write(fd, "0123456789");
    let add = |seals: i32| sys!(SYS_fcntl, fd, F_ADD_SEALS, seals);
    let memory = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    say!("with a writable mapping: {}", add(F_SEAL_WRITE));
    unmap(memory, PAGE);
    say!("without: {}", add(F_SEAL_WRITE));
    say!("write: {}", file::write(fd, "x"));
    say!("shared, to write: {}", map(PAGE, RW, MAP_SHARED, fd, 0));
    let reader = map(PAGE, PROT_READ, MAP_SHARED, fd, 0);
    say!("shared, to read: {}", reader.ok_or_error());
    say!("made writable: {}", protect(reader.0 as *mut u8, PAGE, RW));
    say!("private: {}", map(PAGE, RW, MAP_PRIVATE, fd, 0).ok_or_error());
    let future = memfd(MFD_ALLOW_SEALING);
    file::write(future, "0123456789");
    let memory = map(PAGE, RW, MAP_SHARED, future, 0).need() as *mut u8;
    say!("F_SEAL_FUTURE_WRITE: {}", sys!(SYS_fcntl, future, F_ADD_SEALS, 0x10));
    poke(memory, b'!');
    say!("the old mapping writes: {}", file::read_at(future, 3, 0));
    say!("write: {}", file::write(future, "x"));
    say!("a new mapping: {}", map(PAGE, RW, MAP_SHARED, future, 0));
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

fn execute_new_code() {
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

fn not_executable() {
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

fn populate() {
    let memory = map(8 * PAGE, RW, PRIVATE | MAP_POPULATE, -1, 0).need() as *mut u8;
    let mut vector = [0u8; 8];
    sys!(SYS_mincore, memory, 8 * PAGE, &mut vector);
    say!("MAP_POPULATE: {vector:?}");
    let memory = pages(8);
    say!("MADV_POPULATE_WRITE: {}", advise(memory, 4 * PAGE, 23));
    sys!(SYS_mincore, memory, 8 * PAGE, &mut vector);
    say!("{vector:?}");
    protect(memory, PAGE, PROT_READ);
    say!("of read-only memory: {}", advise(memory, PAGE, 23));
    say!("MADV_POPULATE_READ of it: {}", advise(memory, PAGE, 22));
    unmap(page(memory, 2), PAGE);
    say!("over a hole: {}", advise(memory, 4 * PAGE, 22));
}

fn noreserve_is_large() {
    let memory = map(64 << 30, RW, PRIVATE | MAP_NORESERVE, -1, 0);
    say!("64 GiB: {}", memory.ok_or_error());
    let memory = memory.need() as *mut u8;
    poke(memory.wrapping_add(63 << 30), 1);
    say!("a byte in it: {}", peek(memory.wrapping_add(63 << 30)));
    say!("PROT_NONE, 1 TiB: {}", map(1 << 40, PROT_NONE, PRIVATE | MAP_NORESERVE, -1, 0).ok_or_error());
}

fn address_space_limit() {
    let limit = [64u64 << 20, 64 << 20];
    say!("setrlimit: {}", sys!(SYS_prlimit64, 0, RLIMIT_AS, &limit, 0));
    say!("128 MiB: {}", map(128 << 20, RW, PRIVATE, -1, 0));
    say!("1 MiB: {}", map(1 << 20, RW, PRIVATE, -1, 0).ok_or_error());
    let memory = pages(1);
    say!("mremap: {}", remap(memory, PAGE, 128 << 20, MREMAP_MAYMOVE, memory));
    say!("over what is there: {}", map_at(memory.cast(), PAGE, RW, PRIVATE | MAP_FIXED, -1, 0).ok_or_error());
}

fn data_limit() {
    let limit = [16u64 << 20, 16 << 20];
    say!("setrlimit: {}", sys!(SYS_prlimit64, 0, RLIMIT_DATA, &limit, 0));
    say!("private, writable: {}", map(64 << 20, RW, PRIVATE, -1, 0));
    say!("private, read-only: {}", map(64 << 20, PROT_READ, PRIVATE, -1, 0).ok_or_error());
    say!("shared: {}", map(64 << 20, RW, SHARED, -1, 0).ok_or_error());
}

fn fault_in_system_call() {
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

fn copy_on_write_many_children() {
    let memory = pages(32);
    (0..32).for_each(|number| poke(page(memory, number), number as u8));
    let children: Vec<i32> = (0..4u8)
        .map(|child| {
            process::child(|| {
                for number in 0..32 {
                    let at = page(memory, number);
                    if peek(at) != number as u8 {
                        return 1;
                    }
                    poke(at, 100 + child);
                }
                i32::from((0..32).any(|number| peek(page(memory, number)) != 100 + child))
            })
        })
        .collect();
    for child in children {
        say!("a child {}", process::wait(child));
    }
    say!("unchanged: {}", (0..32).all(|number| peek(page(memory, number)) == number as u8));
}

fn shared_file_between_processes() {
    close(create(c"f", &"\0".repeat(PAGE)));
    let gate = [Gate::new(), Gate::new()];
    let child = process::child(|| {
        let fd = file::open(c"f", O_RDWR).fd();
        let memory = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
        gate[0].pass();
        say!("the child sees {}", peek(memory));
        poke(memory, 2);
        gate[1].open();
        0
    });
    let fd = file::open(c"f", O_RDWR).fd();
    let memory = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    poke(memory, 1);
    gate[0].open();
    gate[1].pass();
    say!("its parent sees {}", peek(memory));
    process::wait(child);
}

fn maps_of_this() {
    let fd = create(c"mapped", &"x".repeat(2 * PAGE));
    let base = pages(8);
    let at = |number: usize| page(base, number).cast();
    map_at(at(1), PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, PAGE as i64);
    map_at(at(3), PAGE, RW, MAP_SHARED | MAP_FIXED, fd, 0);
    protect(page(base, 5), PAGE, PROT_NONE);
    protect(page(base, 6), PAGE, PROT_READ | PROT_EXEC);
    unmap(page(base, 7), PAGE);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let range = fields.next().and_then(|range| range.split_once('-')).unwrap_or_default();
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap_or(0).wrapping_sub(base as u64) / PAGE as u64;
        let (start, end) = (number(range.0), number(range.1));
        if start < 7 && end <= 8 {
            let (rights, offset) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
            say!("{start}-{end} {rights} {offset} {}", fields.nth(2).unwrap_or("-"));
        }
    }
}

fn misaligned_bus() {
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

fn barrier_commands() {
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
