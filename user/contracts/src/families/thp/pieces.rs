//! Parts of huge pages: what is done to them, other memory does not notice.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use libc::*;

use super::*;
use crate::file::{open, path, pipe, read_at, write};
use crate::memory::{pages, try_peek, try_poke};
use crate::process::{self, Gate, in_child};
use crate::say;

pub(super) fn copies() {
    let at = filled(2);
    let (wrote, go) = (Gate::new(), Gate::new());
    let child = process::child(|| {
        say!("child: {} wrong, {}", wrong(at, 2 * BLOCK), usage(at));
        poke(page(at, 7), 255);
        say!("child: {} wrong, {}", wrong(at, 2 * BLOCK), usage(at));
        wrote.open();
        go.pass();
        say!("child: {} wrong, of its own {}", wrong(at, 2 * BLOCK), peek(page(at, 7)));
        0
    });
    wrote.pass();
    say!("parent: {} wrong, {}", wrong(at, 2 * BLOCK), usage(at));
    for index in [6, 7, 600] {
        poke(page(at, index), 254);
    }
    say!("parent: {} wrong", wrong(at, 2 * BLOCK));
    go.open();
    say!("{}", process::wait(child));
}

pub(super) fn a_copy_that_is_gone() {
    let at = filled(1);
    say!("{}", in_child(|| wrong(at, BLOCK) as i32));
    touch_all(at, BLOCK);
    say!("{} {} wrong", usage(at), wrong(at, BLOCK));
}

pub(super) fn hole_in_the_middle() {
    let at = filled(3);
    unmap(page(at, 700), PAGE);
    say!("below: {} {} wrong", usage(at), wrong(at, 700 * PAGE));
    say!("above: {}", usage(page(at, 701)));
    say!("next to it: {} {}", peek(page(at, 699)), peek(page(at, 701)));
    say!("in it: {} {}", try_peek(page(at, 700)), try_poke(page(at, 700)));
    unmap(page(at, 1024), BLOCK);
    say!("a whole one: {}", usage(page(at, 701)));
}

pub(super) fn rights_in_the_middle() {
    let at = filled(1);
    say!("to read: {}", protect(page(at, 100), 3 * PAGE, PROT_READ));
    say!("{} / {}", usage(at), usage(page(at, 100)));
    say!("writes: {} {} {}", try_poke(page(at, 99)), try_poke(page(at, 100)), try_poke(page(at, 103)));
    say!("none: {}", protect(page(at, 101), PAGE, PROT_NONE));
    say!("reads: {} {} {}", try_peek(page(at, 100)), try_peek(page(at, 101)), try_peek(page(at, 102)));
    say!("again: {} {} wrong", protect(at, BLOCK, RW), wrong(at, BLOCK));
    touch_all(at, BLOCK);
    say!("{}", usage(at));
}

pub(super) fn rights_of_all() {
    let at = filled(2);
    say!("to read: {} {}", protect(at, BLOCK, PROT_READ), usage(at));
    say!("{} {} {} wrong", try_poke(at), try_poke(page(at, 512)), wrong(at, 2 * BLOCK));
    say!("none: {}", protect(at, BLOCK, PROT_NONE));
    say!("{}", try_peek(page(at, 1)));
    say!("all: {} {}", protect(at, 2 * BLOCK, RW), usage(at));
    touch_all(at, 2 * BLOCK);
    say!("{} {} wrong", usage(at), wrong(at, 2 * BLOCK));
}

pub(super) fn dropped_in_the_middle() {
    let at = filled(1);
    say!("{} {}", advise(page(at, 3), PAGE, MADV_DONTNEED), usage(at));
    say!("{} {} {}", peek(page(at, 2)), peek(page(at, 3)), peek(page(at, 4)));
    poke(page(at, 3), 3);
    say!("{} {} wrong", usage(at), wrong(at, BLOCK));
}

pub(super) fn dropped_and_touched() {
    let _policy = policy_is("madvise");
    let at = huge(1);
    for _ in 0..3 {
        touch_all(at, BLOCK);
        say!("{}", usage(at));
        say!("{} {}", advise(at, BLOCK, MADV_DONTNEED), usage(at));
    }
    say!("{}", peek(page(at, 9)));
}

fn remap(at: *mut u8, old: usize, new: usize, to: *mut u8) -> Ret {
    let flags = if to.is_null() { MREMAP_MAYMOVE } else { MREMAP_MAYMOVE | MREMAP_FIXED };
    sys!(SYS_mremap, at, old, new, flags, to)
}

pub(super) fn moved() {
    let (at, to) = (filled(2), aligned(2));
    say!("{}", remap(at, 2 * BLOCK, 2 * BLOCK, to).0 == to as i64);
    say!("{} {} wrong {}", usage(to), wrong(to, 2 * BLOCK), flag(to));
    say!("left: {}", try_peek(at));
    let other = aligned(1);
    say!("half of it: {}", remap(page(to, 512), BLOCK, BLOCK, other).0 == other as i64);
    say!("{} / {}, {}", usage(to), usage(other), peek(page(other, 1)));
}

pub(super) fn moved_askew() {
    let (at, to) = (filled(2), page(aligned(3), 3));
    say!("{}", remap(at, 2 * BLOCK, 2 * BLOCK, to).0 == to as i64);
    say!("{} {} wrong", usage(to), wrong(to, 2 * BLOCK));
    say!("part: {}", remap(page(to, 5), 600 * PAGE, 600 * PAGE, at).0 == at as i64);
    say!("{} {} {}", usage(at), peek(at), peek(page(at, 599)));
}

pub(super) fn grown_and_shrunk() {
    let at = filled(1);
    let to = remap(at, BLOCK, 4 * BLOCK, std::ptr::null_mut()).need() as *mut u8;
    say!("{} wrong, {} beyond", wrong(to, BLOCK), peek(page(to, 512)));
    say!("shorter: {}", remap(to, 4 * BLOCK, BLOCK / 2, std::ptr::null_mut()).0 == to as i64);
    say!("{} {} wrong", smaps(to, "Rss"), wrong(to, BLOCK / 2));
    say!("cut off: {}", try_peek(page(to, 256)));
}

pub(super) fn locked_in_part() {
    let _policy = policy_is("madvise");
    let at = huge(2);
    say!("{}", sys!(SYS_mlock, page(at, 100), 600 * PAGE));
    touch_all(at, 2 * BLOCK);
    say!("dropped: {} {}", advise(at, BLOCK, MADV_DONTNEED), advise(page(at, 200), PAGE, MADV_DONTNEED));
    say!("{} {} {}", peek(page(at, 99)), peek(page(at, 100)), peek(page(at, 699)));
    say!("{}", sys!(SYS_munlock, at, 2 * BLOCK));
    say!("dropped: {} {}", advise(at, BLOCK, MADV_DONTNEED), peek(page(at, 100)));
}

pub(super) fn faults_after_a_split() {
    let at = filled(1);
    unmap(page(at, 511), PAGE);
    protect(page(at, 510), PAGE, PROT_READ).need();
    let [reader, writer] = pipe();
    write(writer, "text");
    say!("read into it: {}", sys!(SYS_read, reader, page(at, 510), 4));
    say!("up to the border: {}", sys!(SYS_read, reader, page(at, 510).wrapping_sub(2), 2));
    say!("written from: {}", sys!(SYS_write, writer, page(at, 511).wrapping_sub(100), 200));
    say!("beyond: {}", sys!(SYS_write, writer, page(at, 511), 1));
}

pub(super) fn executable() {
    let at = filled(1);
    for value in [7u32, 8] {
        protect(at, BLOCK, RW).need();
        let start = at.cast::<u32>().wrapping_add(1000);
        // mov w0, #value; ret
        let code = [0x5280_0000 | value << 5, 0xd65f_03c0];
        for (index, instruction) in code.iter().enumerate() {
            // SAFETY: inside of the mapping.
            unsafe { start.add(index).write_volatile(*instruction) };
        }
        say!("{}", protect(at, BLOCK, PROT_READ | PROT_EXEC));
        // SAFETY: the function above, made known to instruction fetch.
        let result = unsafe {
            std::arch::asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb", in(reg) start);
            let function: extern "C" fn() -> u32 = std::mem::transmute(start);
            function()
        };
        say!("{result}");
    }
}

pub(super) fn reached_from_outside() {
    let at = filled(2);
    let here = pages(4);
    let child = process::sleeper();
    let piece = |at: *mut u8| iovec { iov_base: at.cast(), iov_len: 3 * PAGE };
    let (mine, there) = ([piece(here)], [piece(page(at, 511).wrapping_add(8))]);
    let last = |index: usize| page(here, index).wrapping_sub(8);
    let read = || sys!(SYS_process_vm_readv, child, mine.as_slice(), 1, there.as_slice(), 1, 0);
    let write = || sys!(SYS_process_vm_writev, child, mine.as_slice(), 1, there.as_slice(), 1, 0);
    say!("read: {} {} {}", read(), peek(last(1)), peek(last(2)));
    poke(last(1), 78);
    say!("write: {}", write());
    say!("here: {} wrong", wrong(at, 2 * BLOCK));
    poke(last(1), 0);
    say!("back: {} {} {}", read(), peek(last(1)), peek(last(2)));
    process::kill(child, SIGKILL);
    process::wait(child);
}

pub(super) fn written_through_proc() {
    let at = filled(1);
    protect(page(at, 4), PAGE, PROT_READ).need();
    let fd = open(&path("/proc/self/mem"), O_RDWR).fd();
    say!("{}", sys!(SYS_pwrite64, fd, "text", 4, page(at, 3)));
    say!("{}", read_at(fd, 4, page(at, 3) as i64));
    say!("{} {}", peek(page(at, 2)), peek(page(at, 4)));
}

pub(super) fn wiped_on_fork() {
    let at = filled(3);
    advise(page(at, 100), BLOCK, MADV_WIPEONFORK).need();
    advise(page(at, 1000), PAGE, MADV_DONTFORK).need();
    let status = in_child(|| {
        let see = |index| peek(page(at, index));
        say!("child: {} {} {} {} {}", see(99), see(100), see(611), see(612), see(1001));
        0
    });
    say!("{status}");
    say!("{}", in_child(|| i32::from(peek(page(at, 1000)))));
    say!("{} wrong", wrong(at, 3 * BLOCK));
}

/// Writes to a page of a block while another thread cuts that up; `round` is odd then. Answers how many were lost.
fn count_lost(cell: &AtomicU32, round: &AtomicU32, stop: &AtomicBool) -> u32 {
    let (mut lost, mut last) = (0, (0, 0));
    while !stop.load(Ordering::Acquire) {
        let now = round.load(Ordering::Acquire);
        let value = cell.fetch_add(1, Ordering::Relaxed);
        // Both this and the write before were in the same odd round, in which nobody else writes there.
        if now == last.0 && now % 2 == 1 && now == round.load(Ordering::Acquire) && value != last.1 {
            lost += 1;
        }
        last = (now, value + 1);
    }
    lost
}

pub(super) fn split_under_threads() {
    const ROUNDS: usize = 40;
    let _policy = policy_is("madvise");
    let at = huge(1);
    let (stop, round) = (AtomicBool::new(false), AtomicU32::new(0));
    let lost: Vec<_> = std::thread::scope(|scope| {
        let writers = [1, 200, 510].map(|index| {
            // SAFETY: inside of the mapping, which stays.
            let cell = unsafe { &*page(at, index).cast::<AtomicU32>() };
            let (stop, round) = (&stop, &round);
            scope.spawn(move || count_lost(cell, round, stop))
        });
        for _ in 0..ROUNDS {
            advise(at, BLOCK, MADV_DONTNEED).need();
            poke(at, 1);
            round.fetch_add(1, Ordering::AcqRel);
            for index in [3, 300, 509] {
                advise(page(at, index), PAGE, MADV_DONTNEED).need();
                protect(page(at, index), PAGE, PROT_READ).need();
                protect(page(at, index), PAGE, RW).need();
            }
            sys!(SYS_sched_yield);
            round.fetch_add(1, Ordering::AcqRel);
        }
        stop.store(true, Ordering::Release);
        writers.into_iter().map(|thread| thread.join().unwrap_or(u32::MAX)).collect()
    });
    say!("lost: {lost:?}");
}
