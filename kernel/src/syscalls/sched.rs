//! Scheduling: policies, priorities, affinity (sched(7)).

use alloc::sync::Arc;
use core::sync::atomic::Ordering::Relaxed;

use crate::arch;
use crate::errno::{Errno, Result};
use crate::exec::{self, CpuMask, SchedPolicy};
use crate::futex;
use crate::mm::UserPtr;
use crate::process::{self, Caps, Resource, Task, Thread};

const SCHED_OTHER: u32 = 0;
const SCHED_FIFO: u32 = 1;
const SCHED_RR: u32 = 2;
const SCHED_BATCH: u32 = 3;
const SCHED_IDLE: u32 = 5;
const SCHED_DEADLINE: u32 = 6;
const RESET_ON_FORK: u32 = 0x4000_0000;
/// The slice of SCHED_RR, nanoseconds (sched_rr_timeslice_ms).
const RR_INTERVAL: u64 = 100_000_000;
/// What is answered for the fair class: its base slice, nanoseconds.
const FAIR_INTERVAL: u64 = 3_000_000;

pub fn sched_yield(_t: &mut Thread) -> Result<()> {
    exec::give_way();
    Ok(())
}

fn target(t: &Thread, pid: i32) -> Result<Arc<Task>> {
    match pid {
        0 => Ok(t.task().clone()),
        ..0 => Err(Errno::EINVAL),
        _ => process::find_task(pid as u32).ok_or(Errno::ESRCH),
    }
}

fn policy_number(policy: SchedPolicy) -> u32 {
    match policy {
        SchedPolicy::Other => SCHED_OTHER,
        SchedPolicy::Fifo(_) => SCHED_FIFO,
        SchedPolicy::Rr(_) => SCHED_RR,
        SchedPolicy::Batch => SCHED_BATCH,
        SchedPolicy::Idle => SCHED_IDLE,
    }
}

fn policy_from(number: u32, priority: u32) -> Result<SchedPolicy> {
    let real_time = (1..=99).contains(&priority);
    match number {
        SCHED_FIFO if real_time => Ok(SchedPolicy::Fifo(priority as u8)),
        SCHED_RR if real_time => Ok(SchedPolicy::Rr(priority as u8)),
        SCHED_OTHER if priority == 0 => Ok(SchedPolicy::Other),
        SCHED_BATCH if priority == 0 => Ok(SchedPolicy::Batch),
        SCHED_IDLE if priority == 0 => Ok(SchedPolicy::Idle),
        _ => Err(Errno::EINVAL),
    }
}

/// Same user, or CAP_SYS_NICE.
fn is_owner(t: &Thread, task: &Task) -> bool {
    let owner = task.shared_creds();
    let creds = t.creds();
    creds.euid == owner.euid || creds.euid == owner.uid || creds.capable(Caps::SYS_NICE)
}

/// Has no capability that the caller lacks, or the caller has CAP_SYS_NICE.
fn is_no_stronger(t: &Thread, task: &Task) -> bool {
    t.creds().capable(Caps::SYS_NICE) || t.creds().cap_permitted.contains(task.shared_creds().cap_permitted)
}

fn may_schedule(t: &Thread, task: &Task) -> bool {
    is_owner(t, task) && is_no_stronger(t, task)
}

/// What sched(7) has of privileges and limits.
fn check_policy(t: &Thread, task: &Task, policy: SchedPolicy, reset: bool) -> Result<()> {
    if t.creds().capable(Caps::SYS_NICE) {
        return Ok(());
    }
    let allowed = task.rlimit(Resource::Rtprio).soft;
    let old = task.entity.policy();
    let changes = policy_number(policy) != policy_number(old);
    let raises = policy.rt_priority() > old.rt_priority() && u64::from(policy.rt_priority()) > allowed;
    let real_time = policy.is_rt() && ((changes && allowed == 0) || raises);
    let leaves_idle =
        old == SchedPolicy::Idle && policy != SchedPolicy::Idle && !may_raise(t, task, task.entity.nice());
    let unsets = task.reset_on_fork.load(Relaxed) && !reset;
    if real_time || leaves_idle || unsets || !may_schedule(t, task) { Err(Errno::EPERM) } else { Ok(()) }
}

fn set_policy(t: &Thread, task: &Arc<Task>, policy: SchedPolicy, reset: bool) -> Result<()> {
    check_policy(t, task, policy, reset)?;
    task.reset_on_fork.store(reset, Relaxed);
    task.entity.set_policy(policy);
    futex::pi::priority_changed(task);
    Ok(())
}

pub async fn sched_setscheduler(t: &Thread, pid: i32, policy: i32, param: UserPtr<i32>) -> Result<()> {
    if policy < 0 || param.is_null() || pid < 0 {
        return Err(Errno::EINVAL);
    }
    let priority = param.read(t.mm()).await?;
    let task = target(t, pid)?;
    let reset = policy as u32 & RESET_ON_FORK != 0;
    set_policy(t, &task, policy_from(policy as u32 & !RESET_ON_FORK, priority as u32)?, reset)
}

pub fn sched_getscheduler(t: &mut Thread, pid: i32) -> Result<u32> {
    let task = target(t, pid)?;
    let flag = if task.reset_on_fork.load(Relaxed) { RESET_ON_FORK } else { 0 };
    Ok(policy_number(task.entity.policy()) | flag)
}

pub async fn sched_setparam(t: &Thread, pid: i32, param: UserPtr<i32>) -> Result<()> {
    if param.is_null() || pid < 0 {
        return Err(Errno::EINVAL);
    }
    let priority = param.read(t.mm()).await?;
    let task = target(t, pid)?;
    let policy = policy_from(policy_number(task.entity.policy()), priority as u32)?;
    set_policy(t, &task, policy, task.reset_on_fork.load(Relaxed))
}

pub async fn sched_getparam(t: &Thread, pid: i32, param: UserPtr<i32>) -> Result<()> {
    if param.is_null() {
        return Err(Errno::EINVAL);
    }
    let priority = target(t, pid)?.entity.policy().rt_priority();
    param.write(t.mm(), priority as i32).await
}

pub fn sched_get_priority_max(_t: &mut Thread, policy: i32) -> Result<u32> {
    priority_range(policy).map(|range| range.1)
}

pub fn sched_get_priority_min(_t: &mut Thread, policy: i32) -> Result<u32> {
    priority_range(policy).map(|range| range.0)
}

fn priority_range(policy: i32) -> Result<(u32, u32)> {
    match policy as u32 {
        SCHED_FIFO | SCHED_RR => Ok((1, 99)),
        SCHED_OTHER | SCHED_BATCH | SCHED_IDLE | SCHED_DEADLINE => Ok((0, 0)),
        _ => Err(Errno::EINVAL),
    }
}

pub async fn sched_rr_get_interval(t: &Thread, pid: i32, interval: UserPtr<[u64; 2]>) -> Result<()> {
    let task = target(t, pid)?;
    let nanos = match task.entity.policy() {
        SchedPolicy::Rr(_) => RR_INTERVAL,
        SchedPolicy::Fifo(_) => 0,
        _ => FAIR_INTERVAL,
    };
    interval.write(t.mm(), [nanos / 1_000_000_000, nanos % 1_000_000_000]).await
}

/// Bytes of the mask that the kernel handles: one word.
const MASK_BYTES: usize = 8;

pub async fn sched_setaffinity(t: &Thread, pid: i32, len: usize, mask: UserPtr<u8>) -> Result<()> {
    let mut bytes = [0; MASK_BYTES];
    let len = (len as u32 as usize).min(MASK_BYTES);
    mask.read_bytes(t.mm(), &mut bytes[..len]).await?;
    let task = target(t, pid).map_err(|_| Errno::ESRCH)?;
    if !may_schedule(t, &task) {
        return Err(Errno::EPERM);
    }
    let wanted = CpuMask(u64::from_le_bytes(bytes)).and(exec::online());
    if wanted.is_empty() {
        return Err(Errno::EINVAL);
    }
    task.entity.set_affinity(wanted);
    if process::is_current(&task) && !wanted.has(arch::cpu_id()) {
        exec::yield_now().await;
    }
    Ok(())
}

pub async fn sched_getaffinity(t: &Thread, pid: i32, len: usize, mask: UserPtr<u8>) -> Result<usize> {
    // An unsigned int in the ABI.
    let len = len as u32;
    if len.wrapping_mul(8) < arch::cpu_count() as u32 || !len.is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    let task = target(t, pid).map_err(|_| Errno::ESRCH)?;
    let bytes = task.entity.affinity().and(exec::online()).0.to_le_bytes();
    mask.write_bytes(t.mm(), &bytes).await?;
    Ok(MASK_BYTES)
}

const PRIO_PROCESS: i32 = 0;
const PRIO_PGRP: i32 = 1;
const PRIO_USER: i32 = 2;

/// What is done with a thread that is named. There may be very many: they are not collected.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&Arc<Task>) -> Result<()>;

/// Visits the threads that setpriority's `which` and `who` name, until there is an error; ESRCH if there are none.
pub(super) fn for_targets(t: &Thread, which: i32, who: i32, visit: Visit<'_>) -> Result<()> {
    let who_id = who as u32;
    match which {
        PRIO_PROCESS if who == 0 => visit(t.task()),
        PRIO_PROCESS => visit(&process::find_task(who_id).ok_or(Errno::ESRCH)?),
        PRIO_PGRP => {
            let pgid = if who == 0 { t.process().pgid.load(Relaxed) } else { who_id };
            let mut found = Err(Errno::ESRCH);
            for member in process::table::members(pgid) {
                for task in member.tasks() {
                    found = visit(&task);
                    found?;
                }
            }
            found
        }
        PRIO_USER => for_user(if who == 0 { t.creds().uid } else { who_id }, visit),
        _ => Err(Errno::EINVAL),
    }
}

/// The same for all threads with this real user ID.
pub(super) fn for_user(uid: u32, visit: Visit<'_>) -> Result<()> {
    let mut found = Err(Errno::ESRCH);
    for task in process::tasks().filter(|task| task.shared_creds().uid == uid) {
        found = visit(&task);
        found?;
    }
    found
}

/// getpriority(2): the raw call answers 20 − nice.
pub fn getpriority(t: &mut Thread, which: i32, who: i32) -> Result<u32> {
    let mut highest = i8::MAX;
    for_targets(t, which, who, &mut |task| {
        highest = highest.min(task.entity.nice());
        Ok(())
    })?;
    Ok((20 - i32::from(highest)) as u32)
}

/// setpriority(2): goes on after one that it may not change, and tells of the last of them.
pub fn setpriority(t: &mut Thread, which: i32, who: i32, nice: i32) -> Result<()> {
    let nice = nice.clamp(-20, 19) as i8;
    let mut answer = Ok(());
    for_targets(t, which, who, &mut |task| {
        if let Err(errno) = set_nice(t, task, nice) {
            answer = Err(errno);
        }
        Ok(())
    })?;
    answer
}

fn set_nice(t: &Thread, task: &Task, nice: i8) -> Result<()> {
    if !is_owner(t, task) {
        return Err(Errno::EPERM);
    }
    if nice < task.entity.nice() && !may_raise(t, task, nice) {
        return Err(Errno::EACCES);
    }
    if !is_no_stronger(t, task) {
        return Err(Errno::EPERM);
    }
    task.entity.set_nice(nice);
    Ok(())
}

fn may_raise(t: &Thread, task: &Task, nice: i8) -> bool {
    let limit = task.rlimit(Resource::Nice).soft;
    (20 - i64::from(nice)) as u64 <= limit || t.creds().capable(Caps::SYS_NICE)
}

/// `struct sched_attr`, first version, 48 bytes: size, policy, flags (64), nice, priority, three 64-bit deadlines.
const ATTR_SIZE: u32 = 48;

/// With the utilization clamps that came later: what a caller with another size is told.
const ATTR_SIZE_NOW: u32 = 56;

pub async fn sched_getattr(t: &Thread, pid: i32, attr: UserPtr<u8>, size: u32, flags: u32) -> Result<()> {
    if attr.is_null() || pid < 0 || flags != 0 || !(ATTR_SIZE..=crate::mm::PAGE_SIZE as u32).contains(&size) {
        return Err(Errno::EINVAL);
    }
    let task = target(t, pid)?;
    let policy = task.entity.policy();
    let mut out = [0u8; ATTR_SIZE as usize];
    out[0..4].copy_from_slice(&ATTR_SIZE.to_le_bytes());
    out[4..8].copy_from_slice(&policy_number(policy).to_le_bytes());
    out[8] = u8::from(task.reset_on_fork.load(Relaxed));
    let nice = if policy.is_rt() { 0 } else { task.entity.nice() };
    out[16..20].copy_from_slice(&i32::from(nice).to_le_bytes());
    out[20..24].copy_from_slice(&u32::from(policy.rt_priority()).to_le_bytes());
    attr.write_bytes(t.mm(), &out).await
}

pub async fn sched_setattr(t: &Thread, pid: i32, attr: UserPtr<u32>, flags: u32) -> Result<()> {
    const RESET: u64 = 0x01;
    const KEEP_POLICY: u64 = 0x08;
    const KEEP_PARAMS: u64 = 0x10;
    const KNOWN_FLAGS: u64 = 0x7f;
    if attr.is_null() || pid < 0 || flags != 0 {
        return Err(Errno::EINVAL);
    }
    let size = match attr.read(t.mm()).await? {
        0 => ATTR_SIZE,
        size => size,
    };
    if !(ATTR_SIZE..=crate::mm::PAGE_SIZE as u32).contains(&size) {
        attr.write(t.mm(), ATTR_SIZE_NOW).await?;
        return Err(Errno::E2BIG);
    }
    let words = attr.read_slice(t.mm(), 6, 6).await?;
    let [_, policy, flags_low, flags_high, nice, priority] = words[..] else { return Err(Errno::EINVAL) };
    let attr_flags = u64::from(flags_low) | u64::from(flags_high) << 32;
    if attr_flags & !KNOWN_FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let task = target(t, pid)?;
    let number = if attr_flags & KEEP_POLICY != 0 { policy_number(task.entity.policy()) } else { policy };
    if attr_flags & KEEP_PARAMS != 0 {
        return Ok(());
    }
    let policy = policy_from(number, priority)?;
    let reset = attr_flags & RESET != 0;
    if policy.is_rt() || policy == SchedPolicy::Idle {
        return set_policy(t, &task, policy, reset);
    }
    let nice = (nice as i32).clamp(-20, 19) as i8;
    if nice < task.entity.nice() && !may_raise(t, &task, nice) {
        return Err(Errno::EPERM);
    }
    set_policy(t, &task, policy, reset)?;
    task.entity.set_nice(nice);
    Ok(())
}
