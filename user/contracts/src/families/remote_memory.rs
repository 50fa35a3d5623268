//! Memory of other processes: process_vm_readv(2), process_vm_writev(2), process_madvise(2), process_mrelease(2).

use libc::*;

use crate::memory::{PAGE, map, pages, peek, poke};
use crate::process::{self, Gate, child, kill, wait};
use crate::sys::{KERNEL, NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    read, write, pieces, partial, rights_of_pages, refused, order_of_checks, not_permitted, oneself, the_dead,
    advise, advise_refused, release, release_refused,
}

fn piece(base: *const u8, len: usize) -> iovec {
    iovec { iov_base: base.cast_mut().cast(), iov_len: len }
}

fn readv(pid: i32, local: &[iovec], remote: &[iovec]) -> Ret {
    sys!(SYS_process_vm_readv, pid, local, local.len(), remote, remote.len(), 0)
}

fn writev(pid: i32, local: &[iovec], remote: &[iovec]) -> Ret {
    sys!(SYS_process_vm_writev, pid, local, local.len(), remote, remote.len(), 0)
}

fn fill(at: *mut u8, text: &str) {
    text.bytes().enumerate().for_each(|(index, byte)| poke(at.wrapping_add(index), byte));
}

fn text(at: *const u8, length: usize) -> String {
    (0..length).map(|index| char::from(peek(at.wrapping_add(index)))).collect()
}

/// A child that fills a page that it has where the caller has one, then waits, and says what is there.
fn other(memory: *mut u8, gates: &[Gate; 2]) -> i32 {
    let pid = child(|| {
        fill(memory, "the memory of the child");
        gates[0].open();
        gates[1].pass();
        say!("the child has {:?}", text(memory, 23));
        0
    });
    gates[0].pass();
    pid
}

fn read() {
    let memory = pages(2);
    fill(memory, "what the parent has here");
    let gates = [Gate::new(), Gate::new()];
    let pid = other(memory, &gates);
    let mut buffer = [0u8; 23];
    say!("read: {}", readv(pid, &[piece(buffer.as_mut_ptr(), 23)], &[piece(memory, 23)]));
    say!("{:?}, here {:?}", String::from_utf8_lossy(&buffer), text(memory, 8));
    let untouched = memory.wrapping_add(PAGE);
    say!("never touched: {}", readv(pid, &[piece(buffer.as_mut_ptr(), 23)], &[piece(untouched, 23)]));
    say!("{:?}", &buffer[..3]);
    gates[1].open();
    wait(pid);
}

fn write() {
    let memory = pages(2);
    fill(memory, "what the parent has here");
    let gates = [Gate::new(), Gate::new()];
    let pid = other(memory, &gates);
    let from = "written";
    say!("write: {}", writev(pid, &[piece(from.as_ptr(), 7)], &[piece(memory.wrapping_add(4), 7)]));
    say!("the parent has {:?}", text(memory, 24));
    gates[1].open();
    wait(pid);
}

fn pieces() {
    let memory = pages(4);
    let gates = [Gate::new(), Gate::new()];
    let pid = other(memory, &gates);
    let mut buffer = [b'.'; 30];
    let at = |offset: usize| memory.wrapping_add(offset);
    let local = |buffer: &mut [u8; 30]| {
        let base = buffer.as_mut_ptr();
        [piece(base, 3), piece(base.wrapping_add(5), 0), piece(base.wrapping_add(6), 10)]
    };
    let remote = [piece(at(4), 6), piece(at(0), 3), piece(NOWHERE as *const u8, 0), piece(at(11), 2)];
    say!("{}", readv(pid, &local(&mut buffer), &remote));
    say!("{:?}", String::from_utf8_lossy(&buffer));
    say!("more than there is room: {}", readv(pid, &local(&mut buffer)[..1], &remote));
    say!("more than is asked for: {}", readv(pid, &local(&mut buffer), &remote[1..2]));
    say!("over pages: {}", readv(pid, &[piece(at(PAGE), 3 * PAGE - 10)], &[piece(at(5), 3 * PAGE - 10)]));
    gates[1].open();
    wait(pid);
}

fn partial() {
    let memory = pages(8);
    sys!(SYS_munmap, memory.wrapping_add(2 * PAGE), PAGE);
    let gates = [Gate::new(), Gate::new()];
    let pid = other(memory, &gates);
    let buffer = pages(4);
    let all = [piece(buffer, 4 * PAGE)];
    let at = |offset: usize| memory.wrapping_add(offset);
    say!("up to a hole: {}", readv(pid, &all, &[piece(at(100), 3 * PAGE)]));
    say!("a hole: {}", readv(pid, &all, &[piece(at(2 * PAGE), 10)]));
    say!("a good one, a hole: {}", readv(pid, &all, &[piece(memory, 10), piece(at(2 * PAGE), 10), piece(memory, 10)]));
    say!("written: {}", writev(pid, &all, &[piece(at(PAGE + 100), 2 * PAGE)]));
    sys!(SYS_munmap, buffer.wrapping_add(PAGE), PAGE);
    say!("into a hole: {}", readv(pid, &all, &[piece(memory, 2 * PAGE)]));
    say!("out of one: {}", writev(pid, &all, &[piece(memory, 2 * PAGE)]));
    let hole = [piece(buffer.wrapping_add(PAGE), 10)];
    say!("only a hole: {} {}", readv(pid, &hole, &[piece(memory, 10)]), writev(pid, &hole, &[piece(memory, 10)]));
    say!("the kernel's: {}", readv(pid, &all, &[piece(KERNEL as *const u8, 10)]));
    say!("into the kernel: {}", readv(pid, &[piece(KERNEL as *const u8, 10)], &[piece(memory, 10)]));
    gates[1].open();
    wait(pid);
}

fn rights_of_pages() {
    let memory = pages(3);
    let at = |page: usize| memory.wrapping_add(page * PAGE);
    sys!(SYS_mprotect, at(1), PAGE, PROT_READ);
    sys!(SYS_mprotect, at(2), PAGE, PROT_NONE);
    let gates = [Gate::new(), Gate::new()];
    let pid = other(memory, &gates);
    let buffer = pages(1);
    for (page, what) in ["read and write", "read-only", "none"].iter().enumerate() {
        let (local, remote) = ([piece(buffer, 8)], [piece(at(page), 8)]);
        say!("{what}: {} {}", readv(pid, &local, &remote), writev(pid, &local, &remote));
    }
    gates[1].open();
    wait(pid);
}

fn refused() {
    let memory = pages(1);
    let one = [piece(memory, 8)];
    let many = vec![piece(memory, 1); 1025];
    let pid = process::pid();
    say!("flags: {}", sys!(SYS_process_vm_readv, pid, &one, 1, &one, 1, 1));
    say!("too many: {} {}", readv(pid, &many, &one), readv(pid, &one, &many));
    say!("1024: {}", readv(pid, &many[1..], &one));
    say!("none: {} {} {}", readv(pid, &[], &one), readv(pid, &one, &[]), readv(pid, &[], &[]));
    say!("empty ones: {} {}", readv(pid, &[piece(memory, 0)], &one), readv(pid, &one, &[piece(memory, 0)]));
    say!("negative: {}", readv(pid, &[piece(memory, usize::MAX)], &one));
    say!("negative: {}", readv(pid, &one, &[piece(memory, usize::MAX)]));
    say!("bad pointers: {}", sys!(SYS_process_vm_readv, pid, NOWHERE, 1, &one, 1, 0));
    say!("bad pointers: {}", sys!(SYS_process_vm_readv, pid, &one, 1, NOWHERE, 1, 0));
    for pid in [0, -1, i32::MAX, i32::MIN] {
        say!("{pid}: {} {}", readv(pid, &one, &one), writev(pid, &one, &one));
    }
}

fn order_of_checks() {
    let one = [piece(pages(1), 8)];
    say!("nobody, nothing to move: {} {}", readv(i32::MAX, &[], &one), readv(i32::MAX, &one, &[]));
    say!("nobody, bad pointer: {}", sys!(SYS_process_vm_readv, i32::MAX, &one, 1, NOWHERE, 1, 0));
    say!("nobody, no local pieces, bad remote: {}", sys!(SYS_process_vm_readv, i32::MAX, 0, 0, NOWHERE, 1, 0));
    say!("nobody, flags: {}", sys!(SYS_process_vm_readv, i32::MAX, 0, 0, 0, 0, 1));
}

fn not_permitted() {
    let memory = pages(1);
    let one = [piece(memory, 8)];
    let parent = process::pid();
    process::as_plain_user(|| {
        say!("root's: {} {}", readv(parent, &one, &one), writev(parent, &one, &one));
        say!("init's: {}", readv(1, &one, &one));
        let gates = [Gate::new(), Gate::new()];
        // Who has changed his ids may not be looked into.
        let pid = other(memory, &gates);
        say!("not dumpable: {}", readv(pid, &one, &one));
        gates[1].open();
        wait(pid);
        sys!(SYS_prctl, PR_SET_DUMPABLE, 1);
        let gates = [Gate::new(), Gate::new()];
        let pid = other(memory, &gates);
        say!("one's own child: {}", readv(pid, &one, &one));
        gates[1].open();
        wait(pid);
    });
}

fn oneself() {
    let memory = pages(2);
    fill(memory, "0123456789");
    let pid = process::pid();
    say!("read: {}", readv(pid, &[piece(memory.wrapping_add(PAGE), 10)], &[piece(memory, 10)]));
    say!("{:?}", text(memory.wrapping_add(PAGE), 10));
    sys!(SYS_prctl, PR_SET_DUMPABLE, 0);
    process::as_plain_user(|| {
        sys!(SYS_prctl, PR_SET_DUMPABLE, 0);
        let pid = process::pid();
        say!("not dumpable: {}", readv(pid, &[piece(memory, 10)], &[piece(memory, 10)]));
    });
}

fn the_dead() {
    let one = [piece(pages(1), 8)];
    let pid = child(|| 0);
    while process::state(pid) != 'Z' {
        process::sleep_ms(5);
    }
    say!("a zombie: {} {}", readv(pid, &one, &one), writev(pid, &one, &one));
    wait(pid);
    say!("gone: {}", readv(pid, &one, &one));
}

fn pidfd(pid: i32) -> i32 {
    sys!(SYS_pidfd_open, pid, 0).fd()
}

fn advise_it(fd: i32, pieces: &[iovec], advice: i32) -> Ret {
    sys!(SYS_process_madvise, fd, pieces, pieces.len(), advice, 0)
}

fn advise() {
    let memory = pages(4);
    let gates = [Gate::new(), Gate::new()];
    let pid = other(memory, &gates);
    let fd = pidfd(pid);
    let at = |page: usize| memory.wrapping_add(page * PAGE);
    for (name, advice) in [("COLD", 20), ("PAGEOUT", 21), ("WILLNEED", 3)] {
        let two = [piece(at(0), PAGE), piece(at(2), 2 * PAGE)];
        say!("{name}: {} {}", advise_it(fd, &two, advice), advise_it(fd, &[], advice));
        say!("not whole pages: {}", advise_it(fd, &[piece(at(0), 10)], advice));
        say!("not aligned: {}", advise_it(fd, &[piece(memory.wrapping_add(1), PAGE)], advice));
    }
    sys!(SYS_close, fd);
    gates[1].open();
    wait(pid);
}

fn advise_refused() {
    let memory = pages(1);
    let one = [piece(memory, PAGE)];
    let own = pidfd(process::pid());
    say!("oneself: {}", advise_it(own, &one, 20));
    for advice in [0, 1, 4, 8, 9, 10, 14, 16, 100, -1] {
        say!("{advice}: {}", advise_it(own, &one, advice));
    }
    say!("flags: {}", sys!(SYS_process_madvise, own, &one, 1, 20, 1));
    say!("no pidfd: {} {}", advise_it(0, &one, 20), advise_it(60, &one, 20));
    say!("no pidfd, bad advice: {}", advise_it(0, &one, 4));
    say!("bad pointer: {}", sys!(SYS_process_madvise, own, NOWHERE, 1, 20, 0));
    say!("too many: {}", sys!(SYS_process_madvise, own, &one, 1025, 20, 0));
    let hole = pages(2);
    sys!(SYS_munmap, hole, PAGE);
    say!("a hole: {}", advise_it(own, &[piece(hole, PAGE)], 20));
    say!("a good one, a hole: {}", advise_it(own, &[piece(memory, PAGE), piece(hole, PAGE)], 20));
    let dead = child(|| 0);
    let fd = pidfd(dead);
    while process::state(dead) != 'Z' {
        process::sleep_ms(5);
    }
    say!("a zombie: {}", advise_it(fd, &one, 20));
    wait(dead);
    say!("gone: {}", advise_it(fd, &one, 20));
    let parent = process::pid();
    process::as_plain_user(|| {
        say!("not permitted: {}", advise_it(pidfd(parent), &one, 20));
        say!("oneself: {}", advise_it(pidfd(process::pid()), &one, 20));
    });
}

fn release() {
    // What is killed holds much, so that its end takes a while.
    let memory = map(64 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0).need() as *mut u8;
    let gate = Gate::new();
    let pid = child(|| {
        (0..64 << 20).step_by(PAGE).for_each(|at| poke(memory.wrapping_add(at), 1));
        gate.open();
        process::sleep_ms(100_000);
        0
    });
    gate.pass();
    let fd = pidfd(pid);
    say!("alive: {}", sys!(SYS_process_mrelease, fd, 0));
    kill(pid, SIGKILL);
    // It may have ended already.
    let released = sys!(SYS_process_mrelease, fd, 0);
    say!("killed: {}", released.0 == 0 || released.errno() == ESRCH);
    say!("{}", wait(pid));
    say!("gone: {}", sys!(SYS_process_mrelease, fd, 0));
}

fn release_refused() {
    let own = pidfd(process::pid());
    say!("oneself: {}", sys!(SYS_process_mrelease, own, 0));
    say!("flags: {} {}", sys!(SYS_process_mrelease, own, 1), sys!(SYS_process_mrelease, 60, 1));
    say!("no pidfd: {} {}", sys!(SYS_process_mrelease, 0, 0), sys!(SYS_process_mrelease, 60, 0));
    let dead = child(|| 0);
    let fd = pidfd(dead);
    while process::state(dead) != 'Z' {
        process::sleep_ms(5);
    }
    say!("a zombie: {}", sys!(SYS_process_mrelease, fd, 0));
    wait(dead);
}
