//! madvise(MADV_REMOVE), and remap_file_pages(2).

use libc::*;

use super::{PRIVATE, RW, SHARED, advise, memfd, page, protect, unmap};
use crate::file::{self, create};
use crate::memory::{PAGE, map, pages, peek, poke, try_poke};
use crate::say;
use crate::sys::sys;

const REMOVE: i32 = 9;

/// The first bytes of the pages.
fn firsts(memory: *mut u8, count: usize) -> Vec<u8> {
    (0..count).map(|number| peek(page(memory, number))).collect()
}

fn numbered(memory: *mut u8, count: usize) {
    (0..count).for_each(|number| poke(page(memory, number), number as u8 + 1));
}

pub(super) fn advise_remove() {
    let fd = memfd(MFD_ALLOW_SEALING);
    sys!(SYS_ftruncate, fd, 6 * PAGE);
    let shared = map(6 * PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    let anonymous = map(6 * PAGE, RW, SHARED, -1, 0).need() as *mut u8;
    for (name, memory) in [("a memfd", shared), ("shared memory", anonymous)] {
        numbered(memory, 6);
        say!("{name}: {} {:?}", advise(page(memory, 1), 2 * PAGE, REMOVE), firsts(memory, 6));
        say!("not aligned: {}", advise(memory.wrapping_add(1), PAGE, REMOVE));
        say!("half a page: {} {:?}", advise(page(memory, 3), 10, REMOVE), firsts(memory, 6));
    }
    say!("blocks: {}", file::fstat(fd).map_or(0, |stat| stat.st_blocks));
    protect(page(shared, 4), PAGE, PROT_READ);
    say!("read-only: {}", advise(page(shared, 4), PAGE, REMOVE));
    unmap(page(shared, 1), PAGE);
    say!("over a hole: {} {}", advise(shared, 3 * PAGE, REMOVE), peek(shared));
    say!("private: {}", advise(pages(1), PAGE, REMOVE));
    say!("of a file, private: {}", advise(map(PAGE, RW, MAP_PRIVATE, fd, 0).need() as *mut u8, PAGE, REMOVE));
    sys!(SYS_mlock, shared, PAGE);
    say!("locked: {}", advise(shared, PAGE, REMOVE));
    unmap(shared, 6 * PAGE);
    let disk = create(c"f", &"x".repeat(4 * PAGE));
    let memory = map(4 * PAGE, RW, MAP_SHARED, disk, 0).need() as *mut u8;
    say!("on a disk: {} {:?}", advise(page(memory, 1), PAGE, REMOVE), firsts(memory, 4));
    let sealed = memfd(MFD_ALLOW_SEALING);
    sys!(SYS_ftruncate, sealed, PAGE);
    let memory = map(PAGE, RW, MAP_SHARED, sealed, 0).need() as *mut u8;
    say!("sealed: {} {}", sys!(SYS_fcntl, sealed, F_ADD_SEALS, 0x10), advise(memory, PAGE, REMOVE));
}

/// There is nothing to be read: holes of memory objects stay holes.
pub(super) fn ahead_of_holes() {
    let fd = memfd(0);
    sys!(SYS_ftruncate, fd, 6 * PAGE);
    for (name, flags) in [("shared", MAP_SHARED), ("private", MAP_PRIVATE)] {
        let memory = map(6 * PAGE, RW, flags, fd, 0).need() as *mut u8;
        let answer = advise(memory, 6 * PAGE, MADV_WILLNEED);
        say!("{name}: {answer}, blocks: {}", file::fstat(fd).map_or(0, |stat| stat.st_blocks));
    }
}

pub(super) fn holes_in_sealed_files() {
    const PUNCH: i32 = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    for (name, seal) in [("shrink", F_SEAL_SHRINK), ("grow", F_SEAL_GROW), ("write", F_SEAL_WRITE), ("future", 0x10)] {
        let fd = memfd(MFD_ALLOW_SEALING);
        sys!(SYS_ftruncate, fd, 3 * PAGE);
        let sealed = sys!(SYS_fcntl, fd, F_ADD_SEALS, seal);
        let punch = sys!(SYS_fallocate, fd, PUNCH, 0, PAGE);
        let within = sys!(SYS_fallocate, fd, 0, 0, 2 * PAGE);
        let beyond = sys!(SYS_fallocate, fd, 0, 0, 5 * PAGE);
        let kept = sys!(SYS_fallocate, fd, FALLOC_FL_KEEP_SIZE, 0, 5 * PAGE);
        say!("{name}: {sealed}, a hole {punch}, within {within}, beyond {beyond}, size kept {kept}");
    }
}

pub(super) fn remap_file() {
    let remap = |at: *mut u8, length: usize, prot: i32, offset: usize, flags: i32| {
        sys!(SYS_remap_file_pages, at, length, prot, offset, flags)
    };
    let fd = memfd(0);
    sys!(SYS_ftruncate, fd, 6 * PAGE);
    let memory = map(6 * PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    numbered(memory, 6);
    say!("the last page first: {} {:?}", remap(memory, PAGE, 0, 5, 0), firsts(memory, 6));
    say!("two: {} {:?}", remap(page(memory, 2), 2 * PAGE, 0, 0, 0), firsts(memory, 6));
    say!("over parts of one: {} {:?}", remap(memory, 6 * PAGE, 0, 0, 0), firsts(memory, 6));
    say!("not aligned: {} {:?}", remap(memory.wrapping_add(100), PAGE + 100, 0, 3, 0), firsts(memory, 6));
    say!("behind the end: {}", remap(page(memory, 5), PAGE, 0, 100, 0));
    say!("MAP_NONBLOCK: {} {:?}", remap(memory, PAGE, 0, 0, MAP_NONBLOCK), firsts(memory, 5));
    say!("other flags: {}", remap(memory, PAGE, 0, 1, MAP_PRIVATE | MAP_ANONYMOUS));
    say!("rights: {}", remap(memory, PAGE, PROT_READ, 0, 0));
    say!("nothing: {} {}", remap(memory, 0, 0, 0, 0), remap(memory, 100, 0, 0, 0));
    say!("too far: {}", remap(memory, PAGE, 0, usize::MAX, 0));
    say!("far: {}", remap(memory, PAGE, 0, usize::MAX >> 12, 0));
    say!("private: {}", remap(map(PAGE, RW, PRIVATE, -1, 0).need() as *mut u8, PAGE, 0, 0, 0));
    say!("not mapped: {}", remap(std::ptr::null_mut(), PAGE, 0, 0, 0));
    say!("more than is mapped: {}", remap(page(memory, 4), 400 * PAGE, 0, 0, 0));
    protect(page(memory, 1), PAGE, PROT_READ);
    say!("of different rights: {}", remap(memory, 3 * PAGE, 0, 0, 0));
    say!("rights stay: {} {}", remap(page(memory, 1), PAGE, 0, 4, 0), try_poke(page(memory, 1)));
    let anonymous = map(3 * PAGE, RW, SHARED, -1, 0).need() as *mut u8;
    numbered(anonymous, 3);
    say!("shared memory: {} {:?}", remap(anonymous, PAGE, 0, 2, 0), firsts(anonymous, 3));
    let segment = sys!(SYS_shmget, IPC_PRIVATE, 3 * PAGE, 0o600).need();
    let attached = sys!(SYS_shmat, segment, 0, 0).need() as *mut u8;
    sys!(SYS_shmctl, segment, IPC_RMID, 0);
    numbered(attached, 3);
    say!("a segment: {} {:?}", remap(attached, PAGE, 0, 2, 0), firsts(attached, 3));
    say!("detached: {}", sys!(SYS_shmdt, attached));
}
