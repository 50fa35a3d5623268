//! mmap(2) and mremap(2) at the edges: the end of the address space, limits, and holes under private copies.

use libc::*;

use crate::file::{close, create, unlink};
use crate::memory::{PAGE, map, map_at, pages, peek, poke, try_peek, try_poke};
use crate::process::{as_plain_user, in_child};
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! { past_the_end, refused_over_another, limits_of_locks, holes_under_copies, kept_and_moved, full_in_memory }

/// Where the address space of a program ends, with 48 bits.
const END: usize = 1 << 48;
const PRIVATE: i32 = MAP_PRIVATE | MAP_ANONYMOUS;

fn limit(resource: impl Into<i64>, bytes: usize) {
    let limit = rlimit64 { rlim_cur: bytes as u64, rlim_max: bytes as u64 };
    sys!(SYS_prlimit64, 0, resource.into(), &limit, 0).need();
}

fn remap(at: *mut u8, old: usize, new: usize, flags: i32) -> Ret {
    sys!(SYS_mremap, at, old, new, flags, 0)
}

fn past_the_end() {
    let last = (END - PAGE) as *mut u8;
    let fixed = PRIVATE | MAP_FIXED | MAP_NORESERVE;
    say!("the last page: {}", map_at(last.cast(), PAGE, PROT_READ | PROT_WRITE, fixed, -1, 0).ok_or_error());
    poke(last, 7);
    say!("longer: {}", remap(last, PAGE, 2 * PAGE, 0));
    say!("by a gigabyte: {}", remap(last, PAGE, 1 << 30, 0));
    say!("by all there is: {}", remap(last, PAGE, END, 0));
    let moved = remap(last, PAGE, 2 * PAGE, MREMAP_MAYMOVE);
    say!("elsewhere: {}, below: {}", moved.ok_or_error(), (moved.0 as usize) < END - PAGE);
    say!("with what was there: {}", peek(moved.0 as *const u8));
    say!("two pages there: {}", map_at(last.cast(), 2 * PAGE, PROT_READ, fixed, -1, 0).ok_or_error());
}

/// What is refused leaves what it would have replaced.
fn refused_over_another() {
    in_child(|| {
        let at = pages(2);
        poke(at, 5);
        limit(RLIMIT_AS, 64 << 20);
        let fixed = PRIVATE | MAP_FIXED;
        say!("too long: {}", map_at(at.cast(), 256 << 20, PROT_READ | PROT_WRITE, fixed, -1, 0).ok_or_error());
        say!("what was there: {}", peek(at));
        say!("as long: {}", map_at(at.cast(), 2 * PAGE, PROT_READ | PROT_WRITE, fixed, -1, 0).ok_or_error());
        say!("new: {}", peek(at));
        0
    });
    in_child(|| {
        let at = pages(2);
        poke(at, 5);
        limit(RLIMIT_MEMLOCK, 4 * PAGE);
        as_plain_user(|| {
            let locked = PRIVATE | MAP_FIXED | MAP_LOCKED;
            say!("too much locked: {}", map_at(at.cast(), 8 * PAGE, PROT_READ, locked, -1, 0).ok_or_error());
            say!("what was there: {}", peek(at));
        });
        0
    });
}

fn limits_of_locks() {
    in_child(|| {
        limit(RLIMIT_MEMLOCK, 4 * PAGE);
        let locked = |count: usize| map(count * PAGE, PROT_READ, PRIVATE | MAP_LOCKED, -1, 0).ok_or_error();
        say!("root: {} {}", locked(2), locked(64));
        as_plain_user(|| say!("a user: {} {}", locked(2), locked(64)));
        limit(RLIMIT_MEMLOCK, 0);
        say!("root, without a limit's worth: {}", locked(64));
        as_plain_user(|| say!("a user, the same: {}", locked(1)));
        0
    });
}

/// A hole takes the file's pages, not the copies that private mappings have made.
fn holes_under_copies() {
    let memory = sys!(SYS_memfd_create, c"x", 0).fd();
    sys!(SYS_ftruncate, memory, 4 * PAGE).need();
    let disk = create(c"/root/file", &"x".repeat(4 * PAGE));
    for (name, fd) in [("memory", memory), ("disk", disk)] {
        let shared = map(4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0).need() as *mut u8;
        (0..4).for_each(|index| poke(shared.wrapping_add(index * PAGE), 1));
        let private = map(4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0).need() as *mut u8;
        poke(private, 2);
        peek(private.wrapping_add(PAGE));
        let punch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        say!("{name}: {}", sys!(SYS_fallocate, fd, punch, 0, 2 * PAGE));
        let bytes = |at: *mut u8| [0, 1, 2].map(|index| peek(at.wrapping_add(index * PAGE)));
        say!("shared: {:?}, private: {:?}", bytes(shared), bytes(private));
        say!("shorter: {}", sys!(SYS_ftruncate, fd, 2 * PAGE));
        let first = try_peek(private);
        say!("a copy: {first}, another page: {}", try_peek(private.wrapping_add(3 * PAGE)));
        say!("none: {}", sys!(SYS_ftruncate, fd, 0));
        say!("a copy: {}", try_peek(private));
        close(fd);
    }
    unlink(c"/root/file");
}

/// MREMAP_DONTUNMAP leaves a mapping behind, which counts.
fn kept_and_moved() {
    in_child(|| {
        let length = 8 << 20;
        let at = map(length, PROT_READ | PROT_WRITE, PRIVATE, -1, 0).need() as *mut u8;
        poke(at, 9);
        let status = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let size = status.split_whitespace().next().and_then(|word| word.parse::<usize>().ok()).unwrap_or(0);
        limit(RLIMIT_AS, size * PAGE + length / 2);
        say!("too much: {}", remap(at, length, length, MREMAP_MAYMOVE | MREMAP_DONTUNMAP).ok_or_error());
        say!("still there: {}", peek(at));
        say!("moved: {}", remap(at, length, length, MREMAP_MAYMOVE).0 as usize == at as usize);
        0
    });
}

/// A file system in memory that is full has no page for a mapping either.
fn full_in_memory() {
    in_child(|| {
        crate::file::mkdir(c"/root/m").need();
        sys!(SYS_mount, c"none", c"/root/m", c"tmpfs", 0, c"size=16k").need();
        let fd = create(c"/root/m/file", "x");
        sys!(SYS_ftruncate, fd, 64 * PAGE).need();
        let at = map(64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0).need() as *mut u8;
        let touched =
            |count: usize| (0..count).map(|index| try_poke(at.wrapping_add(index * PAGE))).collect::<Vec<_>>();
        say!("{:?}", touched(6));
        say!("looked at: {}", try_peek(at.wrapping_add(9 * PAGE)));
        say!("a hole: {}", sys!(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 * PAGE));
        say!("{:?}", [8, 9, 10].map(|index| try_poke(at.wrapping_add(index * PAGE))));
        say!("written: {}", sys!(SYS_pwrite64, fd, c"abc", 3, 20 * PAGE));
        0
    });
    say!("{}", sys!(SYS_umount2, c"/root/m", 0));
    crate::file::rmdir(c"/root/m");
}
