//! mremap(2) and madvise(2).

use libc::*;

use super::{PRIVATE, RW, advise, page, protect, remap, shared_pages, text, unmap};
use crate::file::create;
use crate::memory::{PAGE, map, map_at, pages, peek, poke, try_peek};
use crate::say;
use crate::sys::sys;

pub(super) fn remap_grow_and_move() {
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

pub(super) fn remap_shrink() {
    let memory = pages(4);
    (0..4).for_each(|number| poke(page(memory, number), number as u8 + 1));
    say!("in place: {}", remap(memory, 4 * PAGE, 2 * PAGE, 0, memory).0 as usize == memory as usize);
    say!("{} {} {}", peek(memory), peek(page(memory, 1)), try_peek(page(memory, 2)));
    say!("to nothing: {}", remap(memory, 2 * PAGE, 0, 0, memory));
    say!("more than there is: {}", remap(memory, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE, memory));
}

pub(super) fn remap_fixed() {
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

pub(super) fn remap_dontunmap() {
    let memory = pages(1);
    poke(memory, 9);
    let moved = remap(memory, PAGE, PAGE, MREMAP_MAYMOVE | 4, std::ptr::null_mut()).need() as *mut u8;
    say!("moved {}, the old place {}", peek(moved), peek(memory));
    say!("with another length: {}", remap(moved, PAGE, 2 * PAGE, MREMAP_MAYMOVE | 4, std::ptr::null_mut()));
}

pub(super) fn remap_shared_duplicate() {
    let memory = shared_pages(1);
    poke(memory, 9);
    let twin = remap(memory, 0, PAGE, MREMAP_MAYMOVE, std::ptr::null_mut()).need() as *mut u8;
    poke(twin, 10);
    say!("shared: {}", peek(memory));
    say!("of private memory: {}", remap(pages(1), 0, PAGE, MREMAP_MAYMOVE, std::ptr::null_mut()));
}

pub(super) fn advise_dontneed() {
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

pub(super) fn advise_dontneed_file() {
    let fd = create(c"f", "file");
    let memory = map(PAGE, RW, MAP_PRIVATE, fd, 0).need() as *mut u8;
    poke(memory, b'F');
    say!("{} {:?}", advise(memory, PAGE, MADV_DONTNEED), text(memory, 4));
    let shared = map(PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    poke(shared, b'S');
    say!("shared: {} {:?}", advise(shared, PAGE, MADV_DONTNEED), text(shared, 4));
    say!("MADV_REMOVE of private memory: {}", advise(pages(1), PAGE, MADV_REMOVE));
}

pub(super) fn advise_free() {
    let memory = pages(1);
    poke(memory, 5);
    say!("{}", advise(memory, PAGE, MADV_FREE));
    poke(memory, 6);
    say!("written afterwards: {}", peek(memory));
    say!("shared: {}", advise(shared_pages(1), PAGE, MADV_FREE));
}

pub(super) fn advise_dontfork() {
    let memory = pages(2);
    poke(memory, 5);
    say!("{}", advise(memory, PAGE, MADV_DONTFORK));
    say!("a child: {}, and the next page: {}", try_peek(memory), try_peek(page(memory, 1)));
    say!("{}", advise(memory, PAGE, MADV_DOFORK));
    say!("a child: {}", try_peek(memory));
}

pub(super) fn advise_wipeonfork() {
    let memory = pages(1);
    poke(memory, 5);
    say!("{}", advise(memory, PAGE, 18));
    say!("a child: {}, this process: {}", try_peek(memory), peek(memory));
    say!("shared: {}", advise(shared_pages(1), PAGE, 18));
    say!("MADV_KEEPONFORK: {}, a child: {}", advise(memory, PAGE, 19), try_peek(memory));
}

pub(super) fn advise_unknown() {
    let memory = pages(1);
    for advice in [0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 17, 20, 21, 22, 23, 26, 99, 102, -1] {
        say!("{advice}: {}", advise(memory, PAGE, advice));
    }
    say!("length 0, unknown: {}", advise(memory, 0, 99));
    say!("length 0: {}", advise(memory, 0, MADV_NORMAL));
}

pub(super) fn advise_huge_pages() {
    let memory = pages(1);
    say!("{} {}", advise(memory, PAGE, MADV_HUGEPAGE), advise(memory, PAGE, MADV_NOHUGEPAGE));
}

pub(super) fn advise_merging() {
    let memory = pages(1);
    for advice in [MADV_MERGEABLE, MADV_UNMERGEABLE] {
        say!("{advice}: {}", advise(memory, PAGE, advice));
    }
}

pub(super) fn resident_pages() {
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
