//! Attaching and detaching System V shared memory: shmat(2), shmdt(2).

use libc::*;

use super::shm::{EXEC, KEY, RDONLY, REMAP, RND, after, attached, attaches, new, remove, room, shmat, shmdt, shmget};
use super::sysv::CREATE;
use crate::memory::{PAGE, pages, peek, poke, try_peek, try_poke};
use crate::process::{self, Gate, as_plain_user, child, in_child, sleep_ms, wait};
use crate::sys::sys;
use crate::{say, tests};

tests! {
    attach, attach_where, attach_refused, read_only, executable, fork_shares, exec_detaches, exit_detaches, detach, detach_in_parts, detach_others, unmap, remap, protect, advice, beyond_the_end, maps,
}

fn attach() {
    let id = new(2);
    let at = attached(id);
    say!("zeros: {} {}", peek(at), peek(after(at, 1)));
    let other = attached(id);
    say!("another place: {}", at != other);
    poke(at, 7);
    poke(after(other, 1), 8);
    say!("one memory: {} {}", peek(other), peek(after(at, 1)));
    say!("attaches: {}", attaches(id));
    say!("detach: {} {}", shmdt(at), shmdt(other));
    say!("attaches: {}", attaches(id));
    let again = attached(id);
    say!("it stays: {} {}", peek(again), peek(after(again, 1)));
    shmdt(again);
    remove(id);
}

fn attach_where() {
    let id = new(2);
    let at = room(8);
    say!("there: {}", shmat(id, at, 0).0 as usize == at as usize);
    say!("taken: {}", shmat(id, at, 0));
    say!("half taken: {}", shmat(id, after(at, 1), 0));
    say!("beside it: {}", shmat(id, after(at, 2), 0).0 as usize == after(at, 2) as usize);
    say!("not a page: {}", shmat(id, at.wrapping_add(5 * PAGE + 1), 0));
    say!("rounded: {}", shmat(id, at.wrapping_add(5 * PAGE + 4095), RND).0 as usize == after(at, 5) as usize);
    poke(at, 5);
    say!("in place of another: {}", shmat(id, after(at, 1), REMAP).0 as usize == after(at, 1) as usize);
    say!("its bytes: {} {}", peek(at), peek(after(at, 1)));
    say!("attaches: {}", attaches(id));
    say!("none in place of: {}", shmat(id, std::ptr::null_mut(), REMAP));
    say!("rounded to none: {}", shmat(id, 5 as *mut u8, REMAP | RND));
    remove(id);
}

fn attach_refused() {
    let id = new(1);
    say!("the kernel's half: {}", shmat(id, 0xffff_0000_0000_0000_usize as *mut u8, 0));
    say!("beyond the end: {}", shmat(id, 0x0001_0000_0000_0000_usize as *mut u8, 0));
    as_plain_user(|| say!("the lowest page: {}", shmat(id, 0x1000 as *mut u8, 0)));
    say!("unknown flags: {}", shmat(id, std::ptr::null_mut(), 1).ok_or_error());
    say!("detach nothing: {}", shmdt(pages(1)));
    say!("detach no page: {}", shmdt(3 as *mut u8));
    say!("detach null: {}", shmdt(std::ptr::null_mut()));
    remove(id);
}

fn read_only() {
    let id = new(1);
    let at = attached(id);
    poke(at, 3);
    let reader = shmat(id, std::ptr::null_mut(), RDONLY).need() as *mut u8;
    say!("read: {}", peek(reader));
    say!("write: {}", try_poke(reader));
    say!("made writable: {}", sys!(SYS_mprotect, reader, PAGE, PROT_READ | PROT_WRITE));
    say!("the other: {}", sys!(SYS_mprotect, at, PAGE, PROT_READ));
    remove(id);
}

fn executable() {
    let id = new(1);
    let at = shmat(id, std::ptr::null_mut(), EXEC).need() as *mut u8;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let line = maps.lines().find(|line| line.starts_with(&format!("{:x}-", at as usize))).unwrap_or_default();
    say!("{}", line.split_whitespace().nth(1).unwrap_or_default());
    let plain = attached(id);
    say!("later: {}", sys!(SYS_mprotect, plain, PAGE, PROT_READ | PROT_EXEC));
    remove(id);
}

fn fork_shares() {
    let id = new(1);
    let at = attached(id);
    poke(at, 1);
    in_child(|| {
        say!("child: {}, attaches {}", peek(at), attaches(id));
        poke(at, 2);
        0
    });
    say!("parent: {}, attaches {}", peek(at), attaches(id));
    remove(id);
}

fn exec_detaches() {
    let id = new(1);
    let _at = attached(id);
    let gate = Gate::new();
    let pid = child(|| {
        gate.pass();
        let (path, guise) = (c"/proc/self/exe", c"--as");
        let words = [path.as_ptr(), guise.as_ptr(), c"nothing".as_ptr(), std::ptr::null()];
        sys!(SYS_execve, path, &words, &[0usize; 1]);
        9
    });
    say!("attaches: {}", attaches(id));
    gate.open();
    say!("{}, attaches: {}", wait(pid), attaches(id));
    remove(id);
}

fn exit_detaches() {
    let id = new(1);
    for killed in [false, true] {
        let gate = Gate::new();
        let pid = child(|| {
            let _at = attached(id);
            gate.open();
            if killed {
                sleep_ms(100_000);
            }
            sleep_ms(20);
            0
        });
        gate.pass();
        say!("attaches: {}", attaches(id));
        if killed {
            process::kill(pid, SIGKILL);
        }
        say!("{}, attaches: {}", wait(pid), attaches(id));
    }
    remove(id);
}

fn detach() {
    let id = new(3);
    let at = attached(id);
    say!("the middle: {}", shmdt(after(at, 1)));
    say!("the start: {}", shmdt(at));
    say!("again: {}", shmdt(at));
    say!("it is gone: {}", try_peek(at));
    remove(id);
}

fn detach_in_parts() {
    let id = new(5);
    let at = attached(id);
    sys!(SYS_munmap, after(at, 1), PAGE);
    sys!(SYS_munmap, after(at, 3), PAGE);
    say!("attaches: {}", attaches(id));
    say!("the second part alone: {}", shmdt(after(at, 2)));
    say!("all: {}, attaches: {}", shmdt(at), attaches(id));
    let at = attached(id);
    sys!(SYS_munmap, at, PAGE);
    say!("without its start: {}, attaches: {}", shmdt(at), attaches(id));
    remove(id);
}

fn detach_others() {
    let id = new(2);
    let at = room(6);
    shmat(id, at, 0).need();
    shmat(id, after(at, 2), 0).need();
    shmat(id, after(at, 4), 0).need();
    say!("the one in the middle: {}, attaches: {}", shmdt(after(at, 2)), attaches(id));
    say!("the others: {} {}", try_peek(at), try_peek(after(at, 4)));
    say!("the first: {}, attaches: {}", shmdt(at), attaches(id));
    remove(id);
}

fn unmap() {
    let id = new(4);
    let at = attached(id);
    say!("a hole: {}, attaches {}", sys!(SYS_munmap, after(at, 1), PAGE), attaches(id));
    say!("the end: {}, attaches {}", sys!(SYS_munmap, after(at, 2), 2 * PAGE), attaches(id));
    say!("the rest: {}, attaches {}", sys!(SYS_munmap, at, PAGE), attaches(id));
    remove(id);
}

fn remap() {
    let id = new(2);
    let at = attached(id);
    poke(after(at, 1), 9);
    let target = room(4);
    let moved = sys!(SYS_mremap, at, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, target);
    say!("moved: {}, attaches {}", moved.0 as usize == target as usize, attaches(id));
    say!("{}, the old place: {}", peek(after(target, 1)), try_peek(at));
    say!("a second: {}", sys!(SYS_mremap, target, 0, 2 * PAGE, MREMAP_MAYMOVE).ok_or_error());
    say!("attaches {}", attaches(id));
    say!("detach: {}, attaches {}", shmdt(target), attaches(id));
    remove(id);
}

fn protect() {
    let id = new(3);
    let at = attached(id);
    say!("the middle: {}, attaches {}", sys!(SYS_mprotect, after(at, 1), PAGE, PROT_READ), attaches(id));
    say!("detach: {}, attaches {}", shmdt(at), attaches(id));
    remove(id);
}

fn advice() {
    let id = new(2);
    let at = attached(id);
    poke(at, 5);
    say!("DONTNEED: {}, {}", sys!(SYS_madvise, at, PAGE, MADV_DONTNEED), peek(at));
    say!("DONTFORK: {}", sys!(SYS_madvise, at, 2 * PAGE, MADV_DONTFORK));
    in_child(|| {
        say!("in a child: attaches {}", attaches(id));
        0
    });
    remove(id);
}

fn beyond_the_end() {
    let id = new(1);
    let at = shmat(id, room(4), 0).need() as *mut u8;
    say!("longer: {}", sys!(SYS_mremap, at, PAGE, 2 * PAGE, 0).0 as usize == at as usize);
    say!("its second page: {}", try_peek(after(at, 1)));
    remove(id);
}

fn maps() {
    let id = shmget(KEY, 2 * PAGE, CREATE | 0o600).need() as i32;
    let at = attached(id);
    let shown = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let line = maps.lines().find(|line| line.starts_with(&format!("{:x}-", at as usize))).unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let inode = words.get(4).is_some_and(|word| *word == id.to_string());
        let rest: Vec<&str> =
            words.iter().skip(1).enumerate().filter(|(at, _)| *at != 3).map(|(_, word)| *word).collect();
        format!("{rest:?}, the inode is the id: {inode}")
    };
    say!("{}", shown());
    remove(id);
    say!("removed: {}", shown());
}
