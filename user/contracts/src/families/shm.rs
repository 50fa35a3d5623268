//! System V shared memory: shmget(2), shmat(2), shmdt(2), shmctl(2).

use libc::*;

use super::sysv::{self, CREATE, EXCLUSIVE, INFO, PRIVATE, Perm, REMOVE, SET, STAT, lines_of};
use crate::memory::{PAGE, pages, peek, poke, try_poke};
use crate::process::{self, as_plain_user, in_child};
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
get, get_refused, sizes, huge_pages,     removed_and_attached,
removed_unattached, attach_removed, stat, stat_by_place, info, times, permissions, change_owner, lock, proc_file,
settings, remove_forced, }

const SHM_LOCK: i32 = 11;
const SHM_UNLOCK: i32 = 12;
const SHM_STAT: i32 = 13;
const SHM_INFO: i32 = 14;
const SHM_STAT_ANY: i32 = 15;
pub(super) const RDONLY: i32 = 0o10000;
pub(super) const RND: i32 = 0o20000;
pub(super) const REMAP: i32 = 0o40000;
pub(super) const EXEC: i32 = 0o100000;
const HUGETLB: i32 = 0o4000;
pub(super) const KEY: i32 = 0x5e3a_0002;

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

pub(super) fn shmget(key: i32, size: usize, flags: i32) -> Ret {
    sys!(SYS_shmget, key, size, flags)
}

pub(super) fn new(pages: usize) -> i32 {
    shmget(PRIVATE, pages * PAGE, 0o600).need() as i32
}

pub(super) fn shmat(id: i32, at: *mut u8, flags: i32) -> Ret {
    sys!(SYS_shmat, id, at, flags)
}

pub(super) fn attached(id: i32) -> *mut u8 {
    shmat(id, std::ptr::null_mut(), 0).need() as *mut u8
}

pub(super) fn shmdt(at: *mut u8) -> Ret {
    sys!(SYS_shmdt, at)
}

fn ctl(id: i32, command: i32, arg: usize) -> Ret {
    sys!(SYS_shmctl, id, command, arg)
}

pub(super) fn remove(id: i32) -> Ret {
    ctl(id, REMOVE, 0)
}

fn stat_of(id: i32) -> Result<Status, Ret> {
    let mut status: Status = zeroed();
    let ret = ctl(id, STAT, &raw mut status as usize);
    if ret.ok() { Ok(status) } else { Err(ret) }
}

pub(super) fn attaches(id: i32) -> String {
    stat_of(id).map_or_else(|error| error.to_string(), |status| status.attaches.to_string())
}

/// Room for so many pages where nothing is mapped.
pub(super) fn room(count: usize) -> *mut u8 {
    let at = pages(count);
    sys!(SYS_munmap, at, count * PAGE);
    at
}

pub(super) fn after(at: *mut u8, pages: usize) -> *mut u8 {
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
    sysv::stat_by_place(new(1), ctl, [SHM_STAT, SHM_STAT_ANY]);
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
