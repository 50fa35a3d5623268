//! /proc/sysvipc, and the limits of IPC in /proc/sys (sysvipc(7), proc(5)).

use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::node::Static;
use super::sys::setting;
use super::text::{Text, put};
use crate::errno::{Errno, Result};
use crate::ipc::{ids, mqueue, msg, sem, shm};
use crate::mm::PAGE_SIZE;
use crate::process::{Caps, Credentials};

pub static ENTRIES: &[Static] =
    &[Static::text("msg", queues), Static::text("sem", semaphores), Static::text("shm", segments)];

/// A number that may be set within a range.
macro_rules! limit {
    ($name:literal, $limit:path, $range:expr) => {
        setting($name, |out| put_limit(out, &$limit), |bytes, creds| store_within(&$limit, $range, bytes, creds))
    };
}

// What of /proc/sys/kernel is about IPC.
pub const MSGMAX: Static = limit!("msgmax", msg::MAX_SIZE, 0..=INT_MAX);
pub const MSGMNB: Static = limit!("msgmnb", msg::MAX_BYTES, 0..=INT_MAX);
pub const MSGMNI: Static = limit!("msgmni", msg::MAX_QUEUES, 0..=ids::MAX_OBJECTS);
pub const SEM: Static = setting("sem", show_sem, store_sem);
pub const SHMALL: Static = setting(
    "shmall",
    |out| put!(out, "{}\n", shm::MAX_PAGES.load(Ordering::Relaxed)),
    |bytes, creds| written_number(bytes, creds).map(|pages: u64| shm::MAX_PAGES.store(pages, Ordering::Relaxed)),
);
pub const SHMMAX: Static = setting(
    "shmmax",
    |out| put!(out, "{}\n", shm::MAX_SIZE.load(Ordering::Relaxed)),
    |bytes, creds| written_number(bytes, creds).map(|size: u64| shm::MAX_SIZE.store(size, Ordering::Relaxed)),
);
pub const SHMMNI: Static = limit!("shmmni", shm::MAX_SEGMENTS, 0..=ids::MAX_OBJECTS);
pub const SHM_RMID_FORCED: Static = setting(
    "shm_rmid_forced",
    |out| put!(out, "{}\n", u8::from(shm::is_remove_forced())),
    |bytes, creds| {
        let value: u32 = written_number(bytes, creds)?;
        if value > 1 {
            return Err(Errno::EINVAL);
        }
        shm::force_remove(value == 1);
        Ok(())
    },
);

fn semaphores(out: &mut Text) {
    put!(out, "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n");
    for status in sem::all() {
        let ids::Perm { key, id, uid, gid, cuid, cgid, mode } = status.perm;
        put!(out, "{key:>10} {id:>10}  {mode:>4o} {:>10} ", status.count);
        put!(out, "{uid:>5} {gid:>5} {cuid:>5} {cgid:>5} {:>10} {:>10}\n", status.otime, status.ctime);
    }
}

/// /proc/sys/fs/mqueue.
pub static MQUEUE: &[Static] = &[
    limit!("msg_default", mqueue::DEFAULT_MESSAGES, MESSAGES),
    limit!("msg_max", mqueue::MAX_MESSAGES, MESSAGES),
    limit!("msgsize_default", mqueue::DEFAULT_SIZE, SIZES),
    limit!("msgsize_max", mqueue::MAX_SIZE, SIZES),
    limit!("queues_max", mqueue::MAX_QUEUES, 0..=INT_MAX),
];

const MESSAGES: RangeInclusive<usize> = 1..=mqueue::HARD_MAX_MESSAGES as usize;
const SIZES: RangeInclusive<usize> = 128..=mqueue::HARD_MAX_SIZE as usize;
const INT_MAX: usize = i32::MAX as usize;

fn put_limit(out: &mut Text, limit: &AtomicUsize) {
    put!(out, "{}\n", limit.load(Ordering::Relaxed));
}

fn queues(out: &mut Text) {
    put!(out, "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid");
    put!(out, "      stime      rtime      ctime\n");
    for status in msg::all() {
        let ids::Perm { key, id, uid, gid, cuid, cgid, mode } = status.perm;
        put!(out, "{key:>10} {id:>10}  {mode:>4o}  {:>10} {:>10} ", status.bytes, status.messages);
        put!(out, "{:>5} {:>5} {uid:>5} {gid:>5} {cuid:>5} {cgid:>5} ", status.sender, status.receiver);
        put!(out, "{:>10} {:>10} {:>10}\n", status.stime, status.rtime, status.ctime);
    }
}

fn segments(out: &mut Text) {
    put!(out, "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid");
    put!(out, "      atime      dtime      ctime                   rss                  swap\n");
    for status in shm::all() {
        let ids::Perm { key, id, uid, gid, cuid, cgid, mode } = status.perm;
        put!(out, "{key:>10} {id:>10}  {mode:>4o} {:>21} {:>5} {:>5}  ", status.size, status.cpid, status.lpid);
        put!(out, "{:>5} {uid:>5} {gid:>5} {cuid:>5} {cgid:>5} ", status.attaches);
        put!(out, "{:>10} {:>10} {:>10} ", status.atime, status.dtime, status.ctime);
        put!(out, "{:>21} {:>21}\n", status.resident * PAGE_SIZE as u64, 0);
    }
}

fn show_sem(out: &mut Text) {
    let [in_a_set, in_all, in_a_call, sets] = &sem::LIMITS;
    let value = |limit: &AtomicUsize| limit.load(Ordering::Relaxed);
    put!(out, "{}\t{}\t{}\t{}\n", value(in_a_set), value(in_all), value(in_a_call), value(sets));
}

/// Sets as many as were written, in their order; what follows is not looked at.
fn store_sem(bytes: &[u8], creds: &Credentials) -> Result<()> {
    let text = written(bytes, creds)?;
    if text.is_empty() {
        return Err(Errno::EINVAL);
    }
    for ((index, limit), word) in sem::LIMITS.iter().enumerate().zip(text.split_ascii_whitespace()) {
        let value = word.parse::<i32>().ok().and_then(|value| usize::try_from(value).ok()).ok_or(Errno::EINVAL)?;
        if index == sem::SETS && value > ids::MAX_OBJECTS {
            return Err(Errno::ERANGE);
        }
        limit.store(value, Ordering::Relaxed);
    }
    Ok(())
}

fn written_number<T: core::str::FromStr>(bytes: &[u8], creds: &Credentials) -> Result<T> {
    written(bytes, creds)?.parse().map_err(|_| Errno::EINVAL)
}

/// EINVAL for what is not in `range`.
fn store_within(limit: &AtomicUsize, range: RangeInclusive<usize>, bytes: &[u8], creds: &Credentials) -> Result<()> {
    let value = written_number(bytes, creds)?;
    if !range.contains(&value) {
        return Err(Errno::EINVAL);
    }
    limit.store(value, Ordering::Relaxed);
    Ok(())
}

/// What somebody who may has written.
fn written<'a>(bytes: &'a [u8], creds: &Credentials) -> Result<&'a str> {
    if !creds.capable(Caps::SYS_ADMIN) && creds.euid != 0 {
        return Err(Errno::EPERM);
    }
    let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    Ok(text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0'))
}
