//! System V shared memory: shmget(2), shmat(2), shmdt(2), shmctl(2).

use libc::*;

use super::sysv::{CREATE, EXCLUSIVE, INFO, PRIVATE, Perm, REMOVE, SET, STAT, lines_of};
use crate::memory::{PAGE, pages, peek, poke, try_peek, try_poke};
use crate::process::{self, Gate, as_plain_user, child, in_child, sleep_ms, wait};
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    get, get_refused, sizes, huge_pages, attach, attach_where, attach_refused, read_only, executable, fork_shares,
    exec_detaches, exit_detaches, detach, detach_in_parts, detach_others, unmap, remap, protect, removed_and_attached,
    removed_unattached, attach_removed, stat, stat_by_place, info, times, permissions, change_owner, lock, maps, proc_file,
    settings, remove_forced, advice, beyond_the_end,
}

const SHM_LOCK: i32 = 11;
const SHM_UNLOCK: i32 = 12;
const SHM_STAT: i32 = 13;
const SHM_INFO: i32 = 14;
const SHM_STAT_ANY: i32 = 15;
const RDONLY: i32 = 0o10000;
const RND: i32 = 0o20000;
const REMAP: i32 = 0o40000;
const EXEC: i32 = 0o100000;
const HUGETLB: i32 = 0o4000;
const KEY: i32 = 0x5e3a_0002;

#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Status {
    perm: Perm,
    size: u64,
    atime: i64,
    dtime: i64,
    ctime: i64,
    cpid: i32,
    lpid: i32,
    attaches: u64,
    unused: [u64; 2],
}

fn shmget(key: i32, size: usize, flags: i32) -> Ret {
    sys!(SYS_shmget, key, size, flags)
}

fn new(pages: usize) -> i32 {
    shmget(PRIVATE, pages * PAGE, 0o600).need() as i32
}

fn shmat(id: i32, at: *mut u8, flags: i32) -> Ret {
    sys!(SYS_shmat, id, at, flags)
}

fn attached(id: i32) -> *mut u8 {
    shmat(id, std::ptr::null_mut(), 0).need() as *mut u8
}

fn shmdt(at: *mut u8) -> Ret {
    sys!(SYS_shmdt, at)
}

fn ctl(id: i32, command: i32, arg: usize) -> Ret {
    sys!(SYS_shmctl, id, command, arg)
}

fn remove(id: i32) -> Ret {
    ctl(id, REMOVE, 0)
}

fn stat_of(id: i32) -> Result<Status, Ret> {
    let mut status: Status = zeroed();
    let ret = ctl(id, STAT, &raw mut status as usize);
    if ret.ok() { Ok(status) } else { Err(ret) }
}

fn attaches(id: i32) -> String {
    stat_of(id).map_or_else(|error| error.to_string(), |status| status.attaches.to_string())
}

/// Room for so many pages where nothing is mapped.
fn room(count: usize) -> *mut u8 {
    let at = pages(count);
    sys!(SYS_munmap, at, count * PAGE);
    at
}

fn after(at: *mut u8, pages: usize) -> *mut u8 {
    at.wrapping_add(pages * PAGE)
}

fn get() {
    let first = shmget(KEY, 5000, CREATE | 0o640);
    say!("new: {}", first.ok_or_error());
    say!("smaller: {}", shmget(KEY, 1, 0) == first);
    say!("0: {}", shmget(KEY, 0, CREATE) == first);
    say!("larger: {}", shmget(KEY, 5001, 0));
    say!("exclusive: {}", shmget(KEY, 5000, CREATE | EXCLUSIVE));
    let id = first.need() as i32;
    say!("remove: {}", remove(id));
    say!("again: {}", remove(id));
    say!("by key: {}", shmget(KEY, 0, 0));
}

fn get_refused() {
    say!("no key: {}", shmget(KEY, 1, 0));
    say!("0 bytes: {}", shmget(KEY, 0, CREATE));
    say!("0 bytes private: {}", shmget(PRIVATE, 0, 0));
    say!("all of memory: {}", shmget(PRIVATE, usize::MAX, 0));
    say!("less than the limit: {}", shmget(PRIVATE, 1 << 60, 0o600));
    for id in [-1, 0x7fff_ffff, 32767] {
        let nowhere = std::ptr::null_mut();
        say!("{id}: {} {} {}", remove(id), shmat(id, nowhere, 0), ctl(id, SHM_LOCK, 0));
    }
    say!("commands: {} {} {}", ctl(0, 10, 0), ctl(0, 16, 0), ctl(0, -1, 0));
}

fn sizes() {
    for size in [1, 4096, 4097] {
        let id = shmget(PRIVATE, size, 0o600).need() as i32;
        let at = attached(id);
        let last = at.wrapping_add(size.next_multiple_of(PAGE) - 1);
        say!("{size}: told {:?}", stat_of(id).map(|status| status.size).ok());
        say!("  the last byte of the last page: {}", try_poke(last));
        shmdt(at);
        remove(id);
    }
}

fn huge_pages() {
    say!("{}", shmget(PRIVATE, 2 << 20, 0o600 | HUGETLB));
    as_plain_user(|| say!("another user: {}", shmget(PRIVATE, 2 << 20, 0o600 | HUGETLB)));
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

fn removed_and_attached() {
    let id = shmget(KEY, PAGE, CREATE | 0o600).need() as i32;
    let at = attached(id);
    poke(at, 4);
    say!("remove: {}", remove(id));
    let status = stat_of(id);
    say!("{:?}", status.map(|status| (status.perm.key, format!("{:o}", status.perm.mode), status.attaches)).ok());
    say!("by key: {}", shmget(KEY, 0, 0));
    let other = shmget(KEY, PAGE, CREATE | 0o600).need() as i32;
    say!("a new one: {}", other != id);
    say!("again: {}", remove(id));
    say!("it lives: {}", peek(at));
    in_child(|| i32::from(peek(at)));
    say!("after a child: {}", attaches(id));
    say!("detach: {}", shmdt(at));
    say!("gone: {}", attaches(id));
    remove(other);
}

fn removed_unattached() {
    let id = new(1);
    shmdt(attached(id));
    say!("{}, {}", remove(id), attaches(id));
}

fn attach_removed() {
    let id = new(1);
    let at = attached(id);
    poke(at, 6);
    remove(id);
    let other = attached(id);
    say!("by its id: {}, attaches {}", peek(other), attaches(id));
    shmdt(at);
    say!("one left: {}", attaches(id));
    shmdt(other);
    say!("none: {}", shmat(id, std::ptr::null_mut(), 0));
}

fn stat() {
    let id = shmget(KEY, 6000, CREATE | 0o1654).need() as i32;
    let Ok(status) = stat_of(id) else { return };
    let perm = status.perm;
    say!("key {:#x}, ids {} {} {} {}, mode {:o}", perm.key, perm.uid, perm.gid, perm.cuid, perm.cgid, perm.mode);
    say!("size {}, attaches {}, maker {}", status.size, status.attaches, status.cpid == process::pid());
    say!("last {}, times {} {} {}", status.lpid, status.atime, status.dtime, status.ctime > 1_000_000_000);
    say!("to nowhere: {}", ctl(id, STAT, NOWHERE as usize));
    remove(id);
}

fn stat_by_place() {
    let id = new(1);
    let place = id & 0x7fff;
    let mut found: Status = zeroed();
    say!("{}", ctl(place, SHM_STAT, &raw mut found as usize).0 as i32 == id);
    as_plain_user(|| {
        let mut found: Status = zeroed();
        say!("another user: {}", ctl(place, SHM_STAT, &raw mut found as usize));
        say!("any: {}", ctl(place, SHM_STAT_ANY, &raw mut found as usize).0 as i32 == id);
        say!("by id: {}", ctl(id, STAT, &raw mut found as usize));
    });
    remove(id);
    say!("none: {}", ctl(place, SHM_STAT, &raw mut found as usize));
}

fn info() {
    let id = new(3);
    let at = attached(id);
    poke(at, 1);
    let mut words = [1u64; 9];
    say!("a place: {}", ctl(0, INFO, words.as_mut_ptr() as usize).ok());
    say!("{words:?}");
    let mut used = [0u64; 6];
    say!("a place: {}", ctl(0, SHM_INFO, used.as_mut_ptr() as usize).ok());
    say!("{used:?}");
    shmdt(at);
    remove(id);
}

fn times() {
    let id = new(1);
    let shown = || {
        let Ok(status) = stat_of(id) else { return "gone".into() };
        let who = match status.lpid {
            0 => "nobody",
            pid if pid == process::pid() => "own",
            _ => "another",
        };
        format!("attached {}, detached {}, by {who}", status.atime > 0, status.dtime > 0)
    };
    say!("{}", shown());
    let at = attached(id);
    say!("attach: {}", shown());
    shmdt(at);
    say!("detach: {}", shown());
    let _at = attached(id);
    in_child(|| 0);
    say!("a child's end: {}", shown());
    remove(id);
}

fn permissions() {
    for mode in [0o600, 0o604, 0o602, 0o606, 0o607] {
        let id = shmget(KEY, PAGE, CREATE | mode).need() as i32;
        as_plain_user(|| {
            let with = |flags| shmat(id, std::ptr::null_mut(), flags).ok_or_error();
            say!("{mode:o}: {} {} {} {}", with(0), with(RDONLY), with(EXEC), with(RDONLY | EXEC));
            say!(
                "  get {} {}, remove {}",
                shmget(KEY, 0, 0o4).ok_or_error(),
                shmget(KEY, 0, 0o2).ok_or_error(),
                remove(id)
            );
        });
        remove(id);
    }
}

fn change_owner() {
    let id = new(1);
    let Ok(mut new) = stat_of(id) else { return };
    (new.perm.uid, new.perm.gid, new.perm.mode, new.size) = (1000, 7, 0o7440, 1);
    say!("{}", ctl(id, SET, &raw const new as usize));
    say!("{:?}", stat_of(id).map(|now| (now.perm.uid, now.perm.gid, format!("{:o}", now.perm.mode), now.size)).ok());
    as_plain_user(|| {
        say!("write: {}", shmat(id, std::ptr::null_mut(), 0));
        say!("read: {}", shmat(id, std::ptr::null_mut(), RDONLY).ok_or_error());
        say!("from nowhere: {}", ctl(id, SET, NOWHERE as usize));
        say!("remove: {}", remove(id));
    });
}

fn lock() {
    let id = new(2);
    let mode = || stat_of(id).map(|status| format!("{:o}", status.perm.mode)).unwrap_or_default();
    say!("lock: {}, {}", ctl(id, SHM_LOCK, 0), mode());
    say!("again: {}, {}", ctl(id, SHM_LOCK, 0), mode());
    say!("unlock: {}, {}", ctl(id, SHM_UNLOCK, 0), mode());
    as_plain_user(|| {
        say!("another's: {} {}", ctl(id, SHM_LOCK, 0), ctl(id, SHM_UNLOCK, 0));
        let own = new(2);
        say!("own: {}", ctl(own, SHM_LOCK, 0));
        let limit = rlimit { rlim_cur: 3 * PAGE as u64, rlim_max: 3 * PAGE as u64 };
        sys!(SYS_setrlimit, RLIMIT_MEMLOCK, &limit);
        let second = new(2);
        say!("beyond the limit: {}", ctl(second, SHM_LOCK, 0));
        say!("unlock and lock: {} {}", ctl(own, SHM_UNLOCK, 0), ctl(second, SHM_LOCK, 0));
        sys!(SYS_setrlimit, RLIMIT_MEMLOCK, &rlimit { rlim_cur: 0, rlim_max: 0 });
        say!("limit 0: {} {}", ctl(own, SHM_LOCK, 0), ctl(second, SHM_UNLOCK, 0));
        remove(own);
        remove(second);
    });
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

fn proc_file() {
    let id = shmget(KEY, 6000, CREATE | 0o640).need() as i32;
    let at = attached(id);
    poke(at, 1);
    lines_of("shm", KEY);
    shmdt(at);
    remove(id);
}

fn settings() {
    let path = |name: &str| format!("/proc/sys/kernel/{name}");
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
    let write = |name: &str, text: &str| std::fs::write(path(name), text).map_err(|error| error.raw_os_error()).err();
    for name in ["shmmax", "shmall", "shmmni", "shm_rmid_forced"] {
        say!("{name}: {:?}", read(name));
    }
    say!("shmmax 8192: {:?} {:?}", write("shmmax", "8192\n"), read("shmmax"));
    say!("two pages: {}", shmget(PRIVATE, 8193, 0o600));
    write("shmmax", "18446744073692774399");
    say!("shmall 3: {:?}", write("shmall", "3"));
    let id = new(2);
    say!("two pages more: {}", shmget(PRIVATE, 2 * PAGE, 0o600));
    write("shmall", "18446744073692774399");
    say!("shmmni 1: {:?}", write("shmmni", "1"));
    say!("one more: {}", shmget(PRIVATE, PAGE, 0o600));
    for text in ["-1", "32769", "x"] {
        say!("shmmni {text}: {:?}", write("shmmni", text));
    }
    write("shmmni", "4096");
    say!("forced 2: {:?}", write("shm_rmid_forced", "2"));
    remove(id);
    as_plain_user(|| say!("another user: {:?}", write("shmmax", "1")));
}

fn remove_forced() {
    let set = |on: &str| std::fs::write("/proc/sys/kernel/shm_rmid_forced", on).is_ok();
    let orphans = || {
        let page = crate::memory::shared_words();
        in_child(|| {
            page[0].store(new(1) as u32, std::sync::atomic::Ordering::SeqCst);
            0
        });
        page[0].load(std::sync::atomic::Ordering::SeqCst) as i32
    };
    let (before, own, used) = (orphans(), new(1), orphans());
    let at = attached(used);
    say!("before: {} {} {}", attaches(before), attaches(own), attaches(used));
    say!("on: {}", set("1"));
    say!("then: {} {} {}", attaches(before), attaches(own), attaches(used));
    say!("a maker's end: {}", attaches(orphans()));
    shmdt(at);
    say!("last detach: {}", attaches(used));
    shmdt(attached(own));
    say!("of one's own: {}", attaches(own));
    set("0");
    let after = orphans();
    say!("off: {}", attaches(after));
    [own, after].into_iter().for_each(|id| _ = remove(id));
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
