//! mprotect(2): rights that come and go, and where mappings begin and end then.

use libc::*;

use crate::file::{close, open, write};
use crate::memory::{self, PAGE, map, peek};
use crate::process::{Status, in_child};
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    there_and_back, neighbours, parts_of_parts, both_sides, with_other_changes, moved_whole, forked, nothing_at_all, faults,
    without_writing, limits, across_holes, large,
}

const RW: i32 = PROT_READ | PROT_WRITE;

fn protect(area: *mut u8, from: usize, pages: usize, rights: i32) -> Ret {
    sys!(SYS_mprotect, area as usize + from * PAGE, pages * PAGE, rights)
}

/// What /proc/self/maps has of `pages` pages: first page, number of pages and rights of each mapping.
fn listed(area: *mut u8, pages: usize) -> String {
    let text = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let place = |hex: &str| usize::from_str_radix(hex, 16).ok();
    let lines = text.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (place(start)?.max(area as usize), place(end)?.min(area as usize + pages * PAGE));
        (start < end).then(|| format!("{}+{} {}", (start - area as usize) / PAGE, (end - start) / PAGE, &rest[..4]))
    });
    lines.collect::<Vec<_>>().join(", ")
}

/// Pages with others around them that no mapping joins.
fn alone(pages: usize) -> *mut u8 {
    let area = memory::pages(pages + 2);
    protect(area, 0, 1, PROT_NONE);
    protect(area, pages + 1, 1, PROT_NONE);
    area.wrapping_add(PAGE)
}

fn there_and_back() {
    let area = alone(4);
    for round in 0..3 {
        say!("{round}: {}", protect(area, 1, 1, PROT_READ));
        say!("{}", listed(area, 4));
        say!("{}", protect(area, 1, 1, RW));
        say!("{}", listed(area, 4));
    }
    for _ in 0..100 {
        protect(area, 1, 1, PROT_READ);
        protect(area, 1, 1, RW);
    }
    say!("{}", listed(area, 4));
}

fn neighbours() {
    let area = alone(6);
    for first in 1..4 {
        protect(area, first, 1, PROT_READ);
        protect(area, first, 1, RW);
        protect(area, first, 1, PROT_READ);
        protect(area, first + 1, 1, PROT_READ);
        say!("{first}: {}", listed(area, 6));
        protect(area, first, 1, RW);
        protect(area, first + 1, 1, PROT_NONE);
        protect(area, first + 1, 1, RW);
        say!("{}", listed(area, 6));
    }
}

fn parts_of_parts() {
    let area = alone(9);
    protect(area, 2, 5, PROT_READ);
    protect(area, 2, 5, RW);
    say!("{}", protect(area, 4, 1, PROT_READ));
    say!("{}", listed(area, 9));
    protect(area, 4, 1, RW);
    say!("{}", protect(area, 3, 3, PROT_READ));
    say!("{}", listed(area, 9));
    protect(area, 3, 3, RW);
    say!("{} {}", protect(area, 0, 9, PROT_READ), listed(area, 9));
}

fn both_sides() {
    let area = alone(5);
    protect(area, 0, 2, PROT_READ);
    protect(area, 3, 2, PROT_READ);
    say!("{}", listed(area, 5));
    protect(area, 2, 1, PROT_READ);
    say!("{}", listed(area, 5));
    protect(area, 2, 1, RW);
    say!("{}", listed(area, 5));
}

/// While the neighbours are alike again, something else changes.
fn with_other_changes() {
    let again = || {
        let area = alone(7);
        (0..7).for_each(|page| memory::poke(area.wrapping_add(page * PAGE), 1));
        protect(area, 3, 1, PROT_READ);
        protect(area, 3, 1, RW);
        area
    };
    let area = again();
    say!("munmap: {} {}", sys!(SYS_munmap, area as usize + 3 * PAGE, PAGE), listed(area, 7));
    let area = again();
    say!("around: {} {}", sys!(SYS_munmap, area as usize + 2 * PAGE, 3 * PAGE), listed(area, 7));
    let area = again();
    let fixed =
        memory::map_at(area.wrapping_add(3 * PAGE).cast(), PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    say!("mmap: {} {}", fixed.0 as usize == area as usize + 3 * PAGE, listed(area, 7));
    let area = again();
    say!("madvise: {}", sys!(SYS_madvise, area as usize + 2 * PAGE, 2 * PAGE, MADV_DONTFORK));
    say!("{}", listed(area, 7));
    let area = again();
    say!("mlock: {} {}", sys!(SYS_mlock, area as usize + 3 * PAGE, PAGE), listed(area, 7));
    say!("munlock: {} {}", sys!(SYS_munlock, area as usize, 7 * PAGE), listed(area, 7));
}

/// mremap(2) moves what one mapping covers.
fn moved_whole() {
    let area = alone(5);
    protect(area, 2, 1, PROT_READ);
    say!("of two: {}", sys!(SYS_mremap, area, 5 * PAGE, 6 * PAGE, MREMAP_MAYMOVE));
    protect(area, 2, 1, RW);
    memory::poke(area.wrapping_add(2 * PAGE), 7);
    let moved = sys!(SYS_mremap, area, 5 * PAGE, 6 * PAGE, MREMAP_MAYMOVE);
    let there = moved.need() as *mut u8;
    say!("{} {}", listed(there, 6), peek(there.wrapping_add(2 * PAGE)));
}

fn forked() {
    let area = alone(5);
    memory::poke(area.wrapping_add(2 * PAGE), 7);
    protect(area, 2, 1, PROT_READ);
    protect(area, 2, 1, RW);
    in_child(|| {
        say!("{}", listed(area, 5));
        protect(area, 2, 1, PROT_READ);
        say!("{} {}", listed(area, 5), peek(area.wrapping_add(2 * PAGE)));
        0
    });
    say!("{}", listed(area, 5));
}

fn nothing_at_all() {
    let area = alone(3);
    say!("{} {}", protect(area, 1, 0, PROT_READ), listed(area, 3));
    say!("{}", sys!(SYS_mprotect, area as usize + 1, PAGE, PROT_READ));
    say!("{} {}", sys!(SYS_mprotect, area as usize + PAGE, 1, PROT_READ), listed(area, 3));
    say!("{}", sys!(SYS_mprotect, area as usize + PAGE, PAGE, 0x10));
    say!("{}", sys!(SYS_mprotect, area as usize + PAGE, usize::MAX, PROT_READ));
    say!("{}", sys!(SYS_mprotect, area as usize + PAGE, PAGE, RW | PROT_GROWSDOWN));
    say!("{}", listed(area, 3));
}

/// How a child ends that does this.
fn end_of(child: impl FnOnce()) -> Status {
    in_child(|| {
        child();
        0
    })
}

fn faults() {
    let area = alone(4);
    for page in 0..4 {
        memory::poke(area.wrapping_add(page * PAGE), page as u8 + 1);
    }
    let second = area.wrapping_add(PAGE);
    for rights in [PROT_READ, RW, PROT_NONE, PROT_READ, PROT_NONE, RW] {
        protect(area, 1, 1, rights);
        say!("{rights}: read {}, write {}", end_of(|| _ = peek(second)), end_of(|| memory::poke(second, 9)));
        say!(
            "beside: {} {}",
            end_of(|| memory::poke(area, 9)),
            end_of(|| memory::poke(area.wrapping_add(2 * PAGE), 9))
        );
    }
    say!("{}", peek(second));
}

/// What is open for reading only.
fn without_writing() {
    let fd = open(c"file", O_RDWR | O_CREAT).fd();
    write(fd, &"t".repeat(3 * PAGE));
    let readable = open(c"file", O_RDONLY).fd();
    let area = map(3 * PAGE, PROT_READ, MAP_SHARED, readable, 0).need() as *mut u8;
    say!("{} {}", protect(area, 1, 1, RW), protect(area, 0, 3, RW));
    say!("{} {}", protect(area, 1, 1, PROT_NONE), protect(area, 1, 1, RW));
    say!("{} {}", protect(area, 1, 1, PROT_READ), protect(area, 1, 1, RW));
    say!("{}", listed(area, 3));
    let private = map(3 * PAGE, PROT_READ, MAP_PRIVATE, readable, 0).need() as *mut u8;
    say!("{} {}", protect(private, 1, 1, RW), end_of(|| memory::poke(private.wrapping_add(PAGE), 1)));
    say!("{} {}", protect(private, 1, 1, PROT_READ), end_of(|| memory::poke(private.wrapping_add(PAGE), 1)));
    close(readable);
    close(fd);
}

/// RLIMIT_DATA counts what can be written; 0 is none, but for brk(2).
fn limits() {
    let area = alone(4);
    protect(area, 1, 1, PROT_READ);
    for (soft, hard) in [(0, RLIM_INFINITY), (1, RLIM_INFINITY), (0, 1)] {
        in_child(|| {
            let limit = rlimit { rlim_cur: soft, rlim_max: hard };
            let done = [
                sys!(SYS_prlimit64, 0, RLIMIT_DATA as i64, &limit, 0),
                protect(area, 1, 1, RW),
                protect(area, 1, 1, PROT_NONE),
                protect(area, 2, 1, PROT_READ),
                protect(area, 2, 1, RW),
                Ret(map(PAGE, RW, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0).0.min(0)),
                Ret(map(PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0).0.min(0)),
                Ret(map(PAGE, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0).0.min(0)),
            ];
            let end = sys!(SYS_brk, 0).0;
            let grown = sys!(SYS_brk, end + (1 << 20)).0 > end;
            let limit = rlimit { rlim_cur: hard, rlim_max: hard };
            if hard > 1 {
                sys!(SYS_prlimit64, 0, RLIMIT_DATA as i64, &limit, 0);
            }
            done.iter().for_each(|ret| say!("{ret}"));
            say!("heap: {grown}");
            0
        });
        say!("{}", listed(area, 4));
    }
}

fn across_holes() {
    let area = alone(6);
    sys!(SYS_munmap, area as usize + 3 * PAGE, PAGE);
    say!("{} {}", protect(area, 2, 3, PROT_READ), listed(area, 6));
    say!("{} {}", protect(area, 3, 1, PROT_READ), protect(area, 3, 2, PROT_READ));
    say!("{}", listed(area, 6));
    say!("{} {}", protect(area, 2, 1, RW), listed(area, 6));
    say!("{} {}", protect(area, 4, 1, PROT_READ), listed(area, 6));
}

/// Over the borders of page tables, and of what may be one block.
fn large() {
    const BLOCK: usize = 512;
    let area = memory::pages(4 * BLOCK);
    let aligned = ((area as usize).next_multiple_of(BLOCK * PAGE)) as *mut u8;
    let place = |page: usize| aligned.wrapping_add(page * PAGE);
    for page in (0..2 * BLOCK).step_by(64) {
        memory::poke(place(page), 1 + (page / 64) as u8);
    }
    for (from, pages) in [(BLOCK - 1, 2), (0, BLOCK), (BLOCK - 1, 1), (1, 2 * BLOCK - 2), (0, 2 * BLOCK)] {
        for rights in [PROT_READ, RW, PROT_READ, PROT_NONE, RW] {
            protect(aligned, from, pages, rights);
        }
        say!("{from}+{pages}: {}", listed(aligned, 2 * BLOCK));
        memory::poke(place(from), 99);
        memory::poke(place(from + pages - 1), 99);
    }
    protect(aligned, 0, BLOCK, PROT_READ);
    protect(aligned, 0, BLOCK, RW);
    protect(aligned, 0, BLOCK, PROT_READ);
    say!("{}", end_of(|| memory::poke(place(BLOCK - 1), 1)));
    say!("{}", (0..2 * BLOCK).step_by(64).map(|page| u32::from(peek(place(page)))).sum::<u32>());
}
