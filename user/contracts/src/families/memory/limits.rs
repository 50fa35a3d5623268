//! How much there may be: brk(2), stacks, limits, locked memory.

use libc::*;

use super::{PRIVATE, RW, SHARED, advise, page, remap, unmap};
use crate::memory::{PAGE, map, map_at, pages, peek, poke, try_peek};
use crate::sys::sys;
use crate::tracing::status_line;
use crate::{process, say};

pub(super) fn break_area() {
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

pub(super) fn break_limits() {
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

pub(super) fn stack_grows() {
    say!("4 MiB deep: {}", dig(256));
}

pub(super) fn stack_limit() {
    let limit = [1u64 << 20, 1 << 20];
    say!("1 MiB: {}", sys!(SYS_prlimit64, 0, RLIMIT_STACK, &limit, 0));
    say!("half of it: {}", process::in_child(|| i32::from(dig(32) != 32)));
    say!("4 MiB: {}", process::in_child(|| i32::from(dig(256) != 256)));
}

pub(super) fn growsdown() {
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

pub(super) fn lock_limits() {
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

/// The vDSO is the kernel's, and in memory anyway.
pub(super) fn locked_vdso() {
    // SAFETY: it asks what the kernel has told at the start.
    let vdso = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) } as usize;
    let locked = || status_line(std::process::id() as i32, "VmLck");
    say!("mlock: {}, {}", sys!(SYS_mlock, vdso, PAGE), locked());
    let memory = pages(2);
    say!("mlock of others: {}, {}", sys!(SYS_mlock, memory, PAGE), locked());
    say!("again: {}, {}", sys!(SYS_mlock2, vdso, PAGE, 1), locked());
    say!("munlock: {}, {}", sys!(SYS_munlock, vdso, PAGE), locked());
}

pub(super) fn locked_stay_over_fork() {
    let memory = pages(1);
    sys!(SYS_mlock, memory, PAGE);
    poke(memory, 7);
    process::in_child(|| {
        say!("a child: {}; MADV_DONTNEED {}", peek(memory), advise(memory, PAGE, MADV_DONTNEED));
        0
    });
}

/// Which pages of a range are there, and how its mapping is locked.
fn locked(at: *mut u8, count: usize) -> String {
    let mut there = vec![0u8; count];
    sys!(SYS_mincore, at, count * PAGE, there.as_mut_ptr()).need();
    let there: String = there.iter().map(|page| if page & 1 != 0 { 'x' } else { '.' }).collect();
    format!("{there} {}", locks(at))
}

/// What smaps says of the locks of a mapping.
fn locks(at: *mut u8) -> String {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let mut inside = false;
    for line in text.lines() {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        if let Some((start, end)) = range
            && let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16))
        {
            inside = (start..end).contains(&(at as usize));
        }
        if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
            let locks: Vec<_> = flags.split_whitespace().filter(|flag| ["lo", "lf"].contains(flag)).collect();
            return locks.join(" ");
        }
    }
    "none".into()
}

/// What is locked as it is touched is not made present, whatever makes or moves it later.
pub(super) fn locked_on_fault() {
    // A page in front of each, so that mappings are not joined.
    let guarded = |flags: i32| {
        let at = map(5 * PAGE, PROT_NONE, PRIVATE, -1, 0).need() as *mut u8;
        map_at(page(at, 1).cast(), 4 * PAGE, RW, PRIVATE | MAP_FIXED | flags, -1, 0).need() as *mut u8
    };
    let memory = guarded(0);
    say!("mlock2: {} {}", sys!(SYS_mlock2, memory, 4 * PAGE, 1), locked(memory, 4));
    poke(page(memory, 1), 1);
    say!("touched: {}", locked(memory, 4));
    say!("populated: {} {}", advise(memory, 2 * PAGE, 23), locked(memory, 4));
    say!("in part: {} {}", sys!(SYS_mlock, memory, 3 * PAGE), locked(memory, 3));
    say!("the rest: {}", locked(page(memory, 3), 1));
    say!("and again: {} {}", sys!(SYS_mlock2, memory, 4 * PAGE, 1), locked(memory, 4));
    let grown = remap(memory, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE, memory).need() as *mut u8;
    say!("grown: {}", locked(grown, 8));
    say!("munlock: {} {}", sys!(SYS_munlock, grown, 8 * PAGE), locked(grown, 8));
    let start = sys!(SYS_brk, 0).0;
    say!("mlockall: {}", sys!(SYS_mlockall, MCL_FUTURE | 4));
    say!("what was there: {}", locked(grown, 8));
    say!("new: {}", locked(guarded(0), 4));
    say!("MAP_LOCKED: {}", locked(guarded(MAP_LOCKED), 4));
    say!("MAP_POPULATE: {}", locked(guarded(MAP_POPULATE), 4));
    sys!(SYS_brk, start + 4 * PAGE as i64);
    let first = (start as usize).next_multiple_of(PAGE) as *mut u8;
    say!("brk: {}", locked(first, 3));
    process::in_child(|| {
        say!("a child: {} {}", locks(first), locked(guarded(0), 4));
        0
    });
    say!("MCL_FUTURE alone: {} {}", sys!(SYS_mlockall, MCL_FUTURE), locked(guarded(0), 4));
    say!("munlockall: {} {}", sys!(SYS_munlockall), locked(guarded(0), 4));
    let early = guarded(0);
    poke(early, 1);
    say!("MCL_CURRENT: {} {}", sys!(SYS_mlockall, MCL_CURRENT | 4), locked(early, 4));
    say!("not what comes: {}", locked(guarded(0), 4));
    say!("MCL_CURRENT alone: {} {}", sys!(SYS_mlockall, MCL_CURRENT), locked(early, 4));
}

pub(super) fn noreserve_is_large() {
    let memory = map(64 << 30, RW, PRIVATE | MAP_NORESERVE, -1, 0);
    say!("64 GiB: {}", memory.ok_or_error());
    let memory = memory.need() as *mut u8;
    poke(memory.wrapping_add(63 << 30), 1);
    say!("a byte in it: {}", peek(memory.wrapping_add(63 << 30)));
    say!("PROT_NONE, 1 TiB: {}", map(1 << 40, PROT_NONE, PRIVATE | MAP_NORESERVE, -1, 0).ok_or_error());
}

pub(super) fn address_space_limit() {
    let limit = [64u64 << 20, 64 << 20];
    say!("setrlimit: {}", sys!(SYS_prlimit64, 0, RLIMIT_AS, &limit, 0));
    say!("128 MiB: {}", map(128 << 20, RW, PRIVATE, -1, 0));
    say!("1 MiB: {}", map(1 << 20, RW, PRIVATE, -1, 0).ok_or_error());
    let memory = pages(1);
    say!("mremap: {}", remap(memory, PAGE, 128 << 20, MREMAP_MAYMOVE, memory));
    say!("over what is there: {}", map_at(memory.cast(), PAGE, RW, PRIVATE | MAP_FIXED, -1, 0).ok_or_error());
}

pub(super) fn data_limit() {
    let limit = [16u64 << 20, 16 << 20];
    say!("setrlimit: {}", sys!(SYS_prlimit64, 0, RLIMIT_DATA, &limit, 0));
    say!("private, writable: {}", map(64 << 20, RW, PRIVATE, -1, 0));
    say!("private, read-only: {}", map(64 << 20, PROT_READ, PRIVATE, -1, 0).ok_or_error());
    say!("shared: {}", map(64 << 20, RW, SHARED, -1, 0).ok_or_error());
}

/// What is made writable later counts, too.
pub(super) fn data_limit_of_mprotect() {
    let memory = map(64 << 20, PROT_READ, PRIVATE, -1, 0).need() as *mut u8;
    let shared = map(64 << 20, PROT_READ, SHARED, -1, 0).need() as *mut u8;
    let limit = [16u64 << 20, 16 << 20];
    say!("setrlimit: {}", sys!(SYS_prlimit64, 0, RLIMIT_DATA, &limit, 0));
    say!("all: {}", sys!(SYS_mprotect, memory, 64 << 20, RW));
    say!("8 MiB: {}", sys!(SYS_mprotect, memory, 8 << 20, RW));
    say!("8 MiB more: {}", sys!(SYS_mprotect, memory.wrapping_add(8 << 20), 8 << 20, RW));
    say!("those again: {}", sys!(SYS_mprotect, memory, 8 << 20, RW));
    let next = memory.wrapping_add(32 << 20);
    sys!(SYS_mprotect, next, 4 << 20, PROT_NONE).need();
    say!("two mappings: {}", sys!(SYS_mprotect, memory, 36 << 20, RW));
    say!("less, and elsewhere: {}", sys!(SYS_mprotect, memory, 8 << 20, PROT_READ));
    say!("8 MiB: {}", sys!(SYS_mprotect, next, 8 << 20, RW));
    say!("read-only: {}", sys!(SYS_mprotect, memory, 64 << 20, PROT_READ | PROT_EXEC));
    say!("shared: {}", sys!(SYS_mprotect, shared, 64 << 20, RW));
    let space = [1u64 << 20, 1 << 20];
    sys!(SYS_prlimit64, 0, RLIMIT_AS, &space, 0).need();
    say!("no room in the address space either: {}", sys!(SYS_mprotect, memory, 64 << 20, RW));
}

/// Pages of their own kind in one mapping until there can be no more mappings.
pub(super) fn most_mappings() {
    const COUNT: usize = 70_000;
    let memory = map(COUNT * PAGE, PROT_READ, PRIVATE | MAP_NORESERVE, -1, 0).need() as *mut u8;
    let cut = (1..COUNT).step_by(2).map(|index| page(memory, index)).find(|&at| advise(at, PAGE, MADV_DONTFORK).0 < 0);
    let Some(at) = cut else { return say!("no end") };
    say!("near the limit: {}", (65_400..65_530).contains(&((at as usize - memory as usize) / PAGE)));
    // What is of its own kind already, and where nothing has been cut yet.
    let (odd, last) = (page(memory, 1), page(memory, COUNT - 9));
    say!("in the middle: {}", advise(last, PAGE, MADV_DONTFORK));
    say!("of another kind: {} {}", advise(last, PAGE, MADV_WIPEONFORK), advise(last, PAGE, MADV_HUGEPAGE));
    say!("locked: {} {}", sys!(SYS_mlock, last, PAGE), sys!(SYS_mlock2, last, PAGE, 1));
    say!("protected: {}", sys!(SYS_mprotect, last, PAGE, PROT_NONE));
    say!("one that is cut off: {} {}", advise(odd, PAGE, MADV_DONTDUMP), sys!(SYS_mlock2, odd, PAGE, 1));
    say!("unlocked: {}", sys!(SYS_munlock, odd, PAGE));
    say!("like the rest again: {}", advise(odd, PAGE, MADV_DOFORK));
    say!("now in the middle: {}", advise(last, PAGE, MADV_DONTFORK));
}
