//! Arguments that nobody passes by accident, and what they must not do to the kernel.

use libc::*;

use crate::memory::{PAGE, map, map_at, pages};
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    tagged_pointers, map_arguments, map_hints, protect_arguments, advice_arguments, lock_arguments, remap_arguments,
}

/// A length that wraps when it is rounded up to pages.
const WRAPS: usize = usize::MAX;
/// Aligned, and in no mapping.
const HOLE: usize = 0x5000_0000;
const RW: i32 = PROT_READ | PROT_WRITE;
const ANONYMOUS: i32 = MAP_PRIVATE | MAP_ANONYMOUS;

/// With a tag in the top byte, which loads and stores ignore.
fn tagged(address: usize) -> usize {
    address | 0x5a << 56
}

/// System calls that copy refuse tags, those that only name a range drop them.
fn tagged_pointers() {
    let page = pages(1) as usize;
    let at = tagged(page);
    say!("uname: {}", sys!(SYS_uname, at));
    say!("clock_gettime: {}", sys!(SYS_clock_gettime, 0, at));
    say!("getcwd: {}", sys!(SYS_getcwd, at, 100));
    say!("getrandom: {}", sys!(SYS_getrandom, at, 16, 0));
    say!("openat: {}", sys!(SYS_openat, AT_FDCWD, at, 0));
    say!("execve: {}", sys!(SYS_execve, c"/proc/self/exe", at, 0));
    say!("futex wait, wake: {}, {}", sys!(SYS_futex, at, 128, 1), sys!(SYS_futex, at, 1, 1));
    say!("mprotect: {}", sys!(SYS_mprotect, at, PAGE, RW));
    say!("madvise: {}", sys!(SYS_madvise, at, PAGE, MADV_DONTNEED));
    say!("mlock: {}, munlock: {}", sys!(SYS_mlock, at, PAGE), sys!(SYS_munlock, at, PAGE));
    say!("mincore: {}", sys!(SYS_mincore, at, PAGE, page));
    say!("msync: {}", sys!(SYS_msync, at, PAGE, MS_SYNC));
    say!("mremap: {}", sys!(SYS_mremap, at, PAGE, PAGE, 0).0 as usize == page);
    say!("mmap, fixed: {}", map_at(at as *mut _, PAGE, RW, ANONYMOUS | MAP_FIXED, -1, 0));
    let heap = sys!(SYS_brk, 0).0 as usize;
    say!("brk: {}", sys!(SYS_brk, tagged(heap + PAGE)).0 as usize == heap);
    say!("munmap: {}", sys!(SYS_munmap, at, PAGE));
}

fn map_arguments() {
    let anonymous = |length: usize, flags: i32, offset: usize| map(length, RW, flags, -1, offset as i64).ok_or_error();
    say!("length: {}, {}", anonymous(0, ANONYMOUS, 0), anonymous(WRAPS, ANONYMOUS, 0));
    say!("more than there is: {}", anonymous(1 << 46, ANONYMOUS, 0));
    say!("the whole address space: {}", anonymous(1 << 48, ANONYMOUS | MAP_NORESERVE, 0));
    say!("no type: {}", anonymous(PAGE, MAP_ANONYMOUS, 0));
    say!("MAP_SHARED_VALIDATE: {}", anonymous(PAGE, MAP_SHARED_VALIDATE | MAP_ANONYMOUS, 0));
    say!("shared stack: {}", anonymous(PAGE, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN, 0));
    say!("offset: {}, {}", anonymous(PAGE, ANONYMOUS, 1), anonymous(PAGE, ANONYMOUS, !(PAGE - 1)));
    let fixed = |at: usize, length: usize| map_at(at as *mut _, length, RW, ANONYMOUS | MAP_FIXED, -1, 0).ok_or_error();
    say!("fixed: {}, {}, {}", fixed(HOLE + 1, PAGE), fixed(1 << 48, PAGE), fixed((1 << 48) - PAGE, 2 * PAGE));
    let fd = sys!(SYS_openat, AT_FDCWD, c"/proc/self/exe", O_RDONLY).fd();
    say!("of a file, to write, shared: {}", map(PAGE, RW, MAP_SHARED, fd, 0));
    say!("beyond all files: {}, {}", file(fd, i64::MAX as usize & !(PAGE - 1)), file(fd, !(PAGE - 1)));
    say!("descriptor: {}", file(-1, 0));
    say!("munmap: {}, {}", sys!(SYS_munmap, HOLE, WRAPS), sys!(SYS_munmap, HOLE + 1, PAGE));
    say!("munmap of nothing: {}, {}", sys!(SYS_munmap, HOLE, PAGE), sys!(SYS_munmap, HOLE, 0));
}

fn file(fd: i32, offset: usize) -> Ret {
    map(PAGE, PROT_READ, MAP_PRIVATE, fd, offset as i64)
}

fn map_hints() {
    let near = |hint: usize| map_at(hint as *mut _, PAGE, RW, ANONYMOUS, -1, 0).need() as usize;
    say!("free: {:#x}", near(0x30_0000_0000));
    say!("taken: {}", near(0x30_0000_0000) == 0x30_0000_0000);
    say!("not aligned: {:#x}", near(0x31_0000_0123));
    say!("too low: {:#x}", near(0x1000));
    for hint in [1, usize::MAX, 1 << 48, 1 << 63, tagged(0x32_0000_0000)] {
        say!("{hint:#x}: {}", near(hint) < 1 << 48);
    }
}

fn protect_arguments() {
    let at = pages(2) as usize;
    let protect = |at: usize, length: usize, protection: i32| sys!(SYS_mprotect, at, length, protection);
    say!("for atomics: {}", protect(at, PAGE, RW | 8));
    say!("unknown bits: {}", protect(at, PAGE, RW | 0x40));
    say!("not aligned: {}", protect(at + 1, PAGE, RW));
    say!("length: {}, {}", protect(at, 0, RW), protect(at, WRAPS, RW));
    say!("nothing there: {}", protect(HOLE, PAGE, RW));
    say!("grows down: {}, up: {}", protect(at, PAGE, RW | PROT_GROWSDOWN), protect(at, PAGE, RW | PROT_GROWSUP));
    sys!(SYS_munmap, at + PAGE, PAGE);
    say!("up to a hole: {}", protect(at, 2 * PAGE, PROT_READ));
    say!("what is before it changed: {}", sys!(SYS_getrandom, at, 1, 0));
}

fn advice_arguments() {
    let at = pages(4) as usize;
    let advise = |at: usize, length: usize, advice: i32| sys!(SYS_madvise, at, length, advice);
    say!("unknown: {}, {}", advise(at, PAGE, 99), advise(at, WRAPS, 99));
    say!("length: {}, {}", advise(at, 0, MADV_DONTNEED), advise(at, WRAPS, MADV_DONTNEED));
    say!("not aligned: {}", advise(at + 1, PAGE, MADV_DONTNEED));
    say!("nothing there: {}", advise(HOLE, PAGE, MADV_DONTNEED));
    sys!(SYS_mprotect, at, PAGE, PROT_NONE);
    sys!(SYS_mprotect, at + PAGE, PAGE, PROT_READ);
    for (what, page) in [("no access", 0), ("read only", 1), ("writable", 2)] {
        let page = at + page * PAGE;
        say!(
            "populate, {what}: {}, {}",
            advise(page, PAGE, MADV_POPULATE_READ),
            advise(page, PAGE, MADV_POPULATE_WRITE)
        );
    }
    say!("populate nothing: {}", advise(HOLE, PAGE, MADV_POPULATE_READ));
    let fd = sys!(SYS_openat, AT_FDCWD, c"short", O_RDWR | O_CREAT, 0o600).fd();
    let beyond = map(PAGE, RW, MAP_SHARED, fd, 0).need() as usize;
    say!("populate beyond the end of a file: {}", advise(beyond, PAGE, MADV_POPULATE_WRITE));
    let locked = at + 3 * PAGE;
    sys!(SYS_mlock, locked, PAGE);
    let refused =
        [MADV_DONTNEED, MADV_FREE, MADV_COLD, MADV_PAGEOUT, MADV_WILLNEED].map(|advice| advise(locked, PAGE, advice));
    say!("locked: {}", refused.map(|answer| answer.to_string()).join(" "));
    say!("free of a file: {}", advise(beyond, PAGE, MADV_FREE));
    say!("wipe a file on fork: {}", advise(beyond, PAGE, MADV_WIPEONFORK));
    say!("msync: {}, {}", sys!(SYS_msync, at, PAGE, 8), sys!(SYS_msync, at, PAGE, MS_SYNC | MS_ASYNC));
    say!(
        "msync of nothing: {}, of locked: {}",
        sys!(SYS_msync, HOLE, PAGE, MS_SYNC),
        sys!(SYS_msync, locked, PAGE, MS_INVALIDATE)
    );
    say!("msync, length: {}", sys!(SYS_msync, at, WRAPS, MS_SYNC));
}

fn lock_arguments() {
    let at = pages(2) as usize;
    sys!(SYS_mprotect, at, PAGE, PROT_NONE);
    say!("no access: {}", sys!(SYS_mlock, at, PAGE));
    say!("length: {}, {}", sys!(SYS_mlock, at, 0), sys!(SYS_mlock, at, WRAPS));
    say!("nothing there: {}, {}", sys!(SYS_mlock, HOLE, PAGE), sys!(SYS_munlock, HOLE, PAGE));
    say!("not aligned: {}", sys!(SYS_mlock, at + PAGE + 1, 1));
    say!("mlock2: {}, {}", sys!(SYS_mlock2, at, PAGE, 1), sys!(SYS_mlock2, at, PAGE, 2));
    say!("mlockall: {}, {}, {}", sys!(SYS_mlockall, 0), sys!(SYS_mlockall, MCL_ONFAULT), sys!(SYS_mlockall, 8));
    let many = pages(4096) as usize;
    say!("more than the limit, as root: {}", sys!(SYS_mlock, many, 4096 * PAGE));
    say!("everything: {}", sys!(SYS_mlockall, MCL_CURRENT | MCL_FUTURE));
    say!("and what comes: {}", map(4096 * PAGE, RW, ANONYMOUS, -1, 0).ok_or_error());
    sys!(SYS_munlockall);
    say!("mincore: {}, {}", sys!(SYS_mincore, at + 1, PAGE, many), sys!(SYS_mincore, at, WRAPS, many));
    say!("mincore of nothing: {}, to nowhere: {}", sys!(SYS_mincore, HOLE, PAGE, many), sys!(SYS_mincore, at, PAGE, 8));
}

fn remap_arguments() {
    let at = pages(2) as usize;
    let remap = |old: usize, new: usize, flags: i32, to: usize| sys!(SYS_mremap, at, old, new, flags, to).ok_or_error();
    say!("flags: {}, {}", remap(PAGE, PAGE, 8, 0), remap(PAGE, PAGE, MREMAP_FIXED, 0));
    say!("dontunmap and grow: {}", remap(PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0));
    say!("new length: {}, {}", remap(PAGE, 0, 0, 0), remap(PAGE, WRAPS, MREMAP_MAYMOVE, 0));
    say!("old length: {}, {}", remap(0, PAGE, MREMAP_MAYMOVE, 0), remap(WRAPS, PAGE, MREMAP_MAYMOVE, 0));
    let fixed = |to: usize| remap(PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    say!("onto itself: {}, not aligned: {}, outside: {}", fixed(at), fixed(HOLE + 1), fixed(1 << 48));
    say!("not aligned: {}", sys!(SYS_mremap, at + 1, PAGE, PAGE, 0));
    say!("nothing there: {}", sys!(SYS_mremap, HOLE, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
    say!("more than there is: {}", remap(2 * PAGE, 1 << 46, MREMAP_MAYMOVE, 0));
    sys!(SYS_setrlimit, RLIMIT_DATA, &rlimit { rlim_cur: 64 << 20, rlim_max: RLIM_INFINITY });
    say!("more than RLIMIT_DATA: {}", remap(2 * PAGE, 128 << 20, MREMAP_MAYMOVE, 0));
}
