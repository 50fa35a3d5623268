//! /proc/PID/pagemap.

use libc::*;

use crate::file::{close, create, open, path};
use crate::memory::{PAGE, map, map_at, pages, peek, poke};
use crate::process::{self, Gate, as_plain_user, child, in_child, wait};
use crate::sys::{NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    untouched, read_and_written, discarded, copies, a_file, private_file, shared_memory, rights, holes, the_end, unaligned,
    positions, bad_buffer, frames, frames_of_a_user, opened_by_root, of_a_child, of_another_user, of_a_zombie, writing,
}

const RW: i32 = PROT_READ | PROT_WRITE;

fn open_map(pid: i32) -> Ret {
    open(&path(format!("/proc/{pid}/pagemap")), O_RDONLY)
}

fn own() -> i32 {
    open(c"/proc/self/pagemap", O_RDONLY).fd()
}

fn position(at: *const u8) -> i64 {
    (at as usize / PAGE * 8) as i64
}

fn words(fd: i32, at: *const u8, count: usize) -> Vec<u64> {
    let mut words = vec![7u64; count];
    let ret = sys!(SYS_pread64, fd, words.as_mut_ptr(), 8 * count, position(at));
    words.truncate(usize::try_from(ret.0).unwrap_or(0) / 8);
    words
}

fn frame(word: u64) -> u64 {
    word & ((1 << 55) - 1)
}

/// Without the frame.
fn shown(word: u64) -> String {
    let bits = [(63, "present"), (62, "swapped"), (61, "file"), (57, "protected"), (56, "exclusive"), (55, "dirty")];
    let names: Vec<_> = bits.iter().filter(|(bit, _)| word >> bit & 1 != 0).map(|(_, name)| *name).collect();
    if names.is_empty() { "nothing".into() } else { names.join(" ") }
}

fn all(fd: i32, at: *const u8, count: usize) -> String {
    words(fd, at, count).into_iter().map(shown).collect::<Vec<_>>().join(", ")
}

fn page(at: *mut u8, index: usize) -> *mut u8 {
    at.wrapping_add(index * PAGE)
}

fn untouched() {
    let fd = own();
    say!("{}", all(fd, pages(3), 3));
    let file = create(c"f", &"x".repeat(2 * PAGE));
    let mapped = map(2 * PAGE, PROT_READ, MAP_SHARED, file, 0).need() as *mut u8;
    say!("a file: {}", all(fd, mapped, 2));
}

fn read_and_written() {
    let (fd, at) = (own(), pages(4));
    peek(at);
    poke(page(at, 1), 1);
    peek(page(at, 2));
    poke(page(at, 2), 1);
    say!("{}", all(fd, at, 4));
}

fn discarded() {
    let (fd, at) = (own(), pages(2));
    poke(at, 1);
    sys!(SYS_madvise, at, PAGE, MADV_DONTNEED).need();
    say!("{}", all(fd, at, 2));
}

fn copies() {
    let (fd, at) = (own(), pages(2));
    poke(at, 1);
    poke(page(at, 1), 1);
    say!("before: {}", all(fd, at, 2));
    let gates = [Gate::new(), Gate::new(), Gate::new(), Gate::new()];
    let pid = child(|| {
        say!("the child: {}", all(own(), at, 2));
        gates[0].open();
        gates[1].pass();
        poke(at, 2);
        say!("written by the child: {}", all(own(), at, 2));
        gates[2].open();
        gates[3].pass();
        0
    });
    gates[0].pass();
    say!("the parent: {}", all(fd, at, 2));
    gates[1].open();
    gates[2].pass();
    say!("and then: {}", all(fd, at, 2));
    gates[3].open();
    wait(pid);
    say!("after: {}", all(fd, at, 2));
}

fn a_file() {
    let fd = own();
    let file = create(c"f", "text");
    let view = || map(PAGE, PROT_READ, MAP_SHARED, file, 0).need() as *mut u8;
    let (one, other) = (view(), view());
    peek(one);
    say!("one: {}", all(fd, one, 1));
    peek(other);
    say!("both: {}, {}", all(fd, one, 1), all(fd, other, 1));
    sys!(SYS_munmap, other, PAGE).need();
    say!("one again: {}", all(fd, one, 1));
}

fn private_file() {
    let fd = own();
    let file = create(c"f", "text");
    let at = map(PAGE, RW, MAP_PRIVATE, file, 0).need() as *mut u8;
    peek(at);
    say!("read: {}", all(fd, at, 1));
    poke(at, 1);
    say!("written: {}", all(fd, at, 1));
}

fn shared_memory() {
    let fd = own();
    let file = sys!(SYS_memfd_create, c"shared", 0).fd();
    sys!(SYS_ftruncate, file, 2 * PAGE).need();
    let view = || map(2 * PAGE, RW, MAP_SHARED, file, 0).need() as *mut u8;
    let (one, other) = (view(), view());
    poke(one, 1);
    say!("one: {}", all(fd, one, 2));
    say!("other: {}", all(fd, other, 2));
    peek(other);
    say!("both: {}, {}", all(fd, one, 1), all(fd, other, 1));
    say!("the same frame: {}", frame(words(fd, one, 1)[0]) == frame(words(fd, other, 1)[0]));
}

fn rights() {
    let (fd, at) = (own(), pages(2));
    poke(at, 1);
    sys!(SYS_mprotect, at, 2 * PAGE, PROT_NONE).need();
    say!("{}", all(fd, at, 2));
}

fn holes() {
    let (fd, at) = (own(), pages(5));
    for index in 0..5 {
        poke(page(at, index), 1);
    }
    sys!(SYS_munmap, page(at, 1), 2 * PAGE).need();
    say!("{}", all(fd, at, 5));
    say!("below everything: {}", all(fd, std::ptr::null(), 2));
    let large = map(64 << 20, RW, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0).need() as *mut u8;
    sys!(SYS_madvise, large, 64 << 20, MADV_NOHUGEPAGE).need();
    poke(page(large, 16383), 1);
    let found = words(fd, large, 16384);
    say!("a large one: {} words, {} present", found.len(), found.iter().filter(|word| **word != 0).count());
}

fn the_end() {
    let fd = own();
    let last = ((1u64 << 48) - PAGE as u64) as *const u8;
    say!("the last page: {} words", words(fd, last, 4).len());
    let mut word = [0u64; 2];
    for at in [(1u64 << 48) / PAGE as u64 * 8, 1 << 50, 1 << 60, i64::MAX as u64 - 7] {
        say!("at {at:#x}: {}", sys!(SYS_pread64, fd, &mut word, 16, at));
    }
    say!("negative: {}", sys!(SYS_pread64, fd, &mut word, 16, -8));
}

fn unaligned() {
    let fd = own();
    let at = position(pages(1));
    let mut words = [0u64; 4];
    for (length, offset) in [(7, 0), (12, 0), (8, 4), (16, 1), (0, 0), (0, 4), (4, 4)] {
        say!("{length} bytes at {offset}: {}", sys!(SYS_pread64, fd, &mut words, length, at + offset));
    }
}

fn positions() {
    let (fd, at) = (own(), pages(3));
    poke(page(at, 1), 1);
    say!("seek: {}", sys!(SYS_lseek, fd, position(at), SEEK_SET).0 == position(at));
    let mut words = [0u64; 2];
    say!("read: {} {}", sys!(SYS_read, fd, &mut words, 16), shown(words[1]));
    say!("then: {}", sys!(SYS_lseek, fd, 0, SEEK_CUR).0 == position(at) + 16);
    say!("the end: {}", sys!(SYS_lseek, fd, 0, SEEK_END));
    say!("the size: {}", crate::file::fstat(fd).map_or(-1, |stat| stat.st_size));
}

fn bad_buffer() {
    let fd = own();
    say!("{}", sys!(SYS_pread64, fd, NOWHERE, 8, position(pages(1))));
}

fn frames() {
    let (fd, at) = (own(), pages(3));
    poke(at, 1);
    peek(page(at, 1));
    let found = words(fd, at, 3);
    say!("known: {:?}", found.iter().map(|word| frame(*word) != 0).collect::<Vec<_>>());
    say!("different: {}", frame(found[0]) != frame(found[1]));
    let moved = map_at(std::ptr::null_mut(), PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0).need();
    sys!(SYS_mremap, at, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, moved).need();
    say!("moved with its page: {}", words(fd, moved as *const u8, 1) == found[..1]);
}

fn frames_of_a_user() {
    as_plain_user(|| {
        // SAFETY: it only says that others of this user may look.
        unsafe { prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) };
        let at = pages(1);
        poke(at, 1);
        let found = words(own(), at, 1);
        say!("{} {}", shown(found[0]), frame(found[0]));
    });
}

fn opened_by_root() {
    let (fd, at) = (own(), pages(1));
    poke(at, 1);
    let status = process::as_user(1000, || i32::from(frame(words(fd, at, 1)[0]) != 0));
    say!("read by a user, known: {status}");
}

fn of_a_child() {
    let at = pages(2);
    let gates = [Gate::new(), Gate::new()];
    let pid = child(|| {
        poke(at, 1);
        gates[0].open();
        gates[1].pass();
        0
    });
    gates[0].pass();
    let fd = open_map(pid).fd();
    say!("the child's: {}", all(fd, at, 2));
    say!("its thread's: {}", all(open(&path(format!("/proc/{pid}/task/{pid}/pagemap")), O_RDONLY).fd(), at, 2));
    gates[1].open();
    wait(pid);
    say!("after its end: {}", sys!(SYS_pread64, fd, &mut [0u64; 2], 16, position(at)));
    say!("after its end, unaligned: {}", sys!(SYS_pread64, fd, &mut [0u64; 2], 15, position(at)));
    close(fd);
}

fn of_another_user() {
    let pid = process::sleeper();
    as_plain_user(|| say!("of root: {}", open_map(pid)));
    sys!(SYS_kill, pid, SIGKILL).need();
    wait(pid);
}

fn of_a_zombie() {
    let pid = child(|| 0);
    while process::state(pid) != 'Z' {
        process::sleep_ms(1);
    }
    let fd = open_map(pid);
    say!("open: {}", fd.0 >= 0);
    say!("read: {}", sys!(SYS_pread64, fd.0, &mut [0u64; 2], 16, 0));
    wait(pid);
}

fn writing() {
    let mode = crate::file::stat(c"/proc/self/pagemap").map_or(0, |stat| stat.st_mode);
    say!("mode: {mode:o}");
    say!("open for it: {}", open(c"/proc/self/pagemap", O_RDWR).0 >= 0);
    let fd = open(c"/proc/self/pagemap", O_WRONLY);
    say!("write: {}", sys!(SYS_pwrite64, fd.0, &[0u64], 8, 0));
    say!(
        "a user: {}",
        in_child(|| {
            sys!(SYS_setuid, 1000).need();
            open(c"/proc/self/pagemap", O_RDWR).errno()
        })
    );
}
