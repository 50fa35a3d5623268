//! /proc/PID/stat, statm and status.

use core::sync::atomic::Ordering;

use super::subject::Subject;
use super::text::{PidStat, Text, put, put_list, put_status_kb, ticks, trim_nul};
use crate::arch;
use crate::errno::Result;
use crate::exec::SchedPolicy;
use crate::fs::tty;
use crate::mm::SpaceStats;
use crate::process::{Resource, State, Task, Usage};

const PAGE_KIB: u64 = crate::mm::PAGE_SIZE as u64 / 1024;

/// Usage of the thread, or of the whole process.
fn usage(subject: &Subject) -> Usage {
    match &subject.thread {
        Some(task) => task.usage(),
        None => subject.process.usage(),
    }
}

fn policy_number(policy: SchedPolicy) -> u32 {
    match policy {
        SchedPolicy::Other => 0,
        SchedPolicy::Fifo(_) => 1,
        SchedPolicy::Rr(_) => 2,
        SchedPolicy::Batch => 3,
        SchedPolicy::Idle => 5,
    }
}

/// (priority as stat shows it, rt_priority): the first with what is lent to the task, the second its own.
fn priorities(task: &Task) -> (i64, u32) {
    let shown = match task.entity.active_policy().rt_priority() {
        0 => 20 + i64::from(task.entity.nice()),
        priority => -1 - i64::from(priority),
    };
    (shown, task.entity.policy().rt_priority().into())
}

pub fn stat(subject: &Subject, may_look: bool, out: &mut Text) -> Result<()> {
    let process = &subject.process;
    let comm = subject.comm();
    let usage = usage(subject);
    let children = *process.reaped_children.lock();
    let terminal = tty::job::controlling_tty(process);
    let mut stat = PidStat {
        pid: subject.id(),
        comm: trim_nul(&comm),
        state: subject.run_state(),
        ppid: process.ppid.load(Ordering::Relaxed),
        pgrp: process.pgid.load(Ordering::Relaxed),
        session: process.session.read().sid,
        tty: terminal.as_ref().map_or(0, |tty| tty.id().encode() as i32),
        tpgid: terminal.map_or(-1, |tty| tty.lock().foreground as i32),
        min_faults: usage.min_faults,
        child_min_faults: children.min_faults,
        maj_faults: usage.maj_faults,
        child_maj_faults: children.maj_faults,
        utime: ticks(usage.utime),
        stime: ticks(usage.stime),
        child_utime: ticks(children.utime),
        child_stime: ticks(children.stime),
        priority: 20,
        threads: process.thread_count(),
        start: ticks(subject.thread.as_ref().map_or(process.start, |task| task.start).as_nanos()),
        rss_limit: process.limits.get(Resource::Rss).soft,
        exit_signal: process.exit_signal.load(Ordering::Relaxed),
        ..PidStat::default()
    };
    if let State::Zombie(status) = *process.state.lock() {
        stat.exit_code = status.wait_status();
    }
    if let Ok(task) = subject.task() {
        let (ignored, caught) = process.handlers.read().ignored_and_caught();
        let pending = task.sig.pending() | process.sig.pending();
        stat.signals = [pending.0, task.sig.blocked().0, ignored.0, caught.0];
        (stat.priority, stat.rt_priority) = priorities(&task);
        stat.nice = i64::from(task.entity.nice());
        stat.policy = policy_number(task.entity.policy());
        stat.cpu = task.entity.last_cpu();
        fill_memory(&mut stat, &task, may_look);
    }
    stat.put(out);
    Ok(())
}

/// Sizes are for everybody, addresses are not.
fn fill_memory(stat: &mut PidStat<'_>, task: &Task, may_look: bool) {
    let Some(mm) = task.handles().mm else { return };
    let sizes = mm.stats();
    stat.vsize = sizes.total * PAGE_KIB * 1024;
    stat.rss = sizes.resident;
    if !may_look {
        stat.code = (1, 1);
        return;
    }
    let meta = mm.meta();
    stat.code = (meta.start_code, meta.end_code);
    stat.start_stack = meta.start_stack;
    stat.data = (meta.start_data, meta.end_data);
    stat.args = (meta.arg_start, meta.arg_end);
    stat.env = (meta.env_start, meta.env_end);
}

/// Sizes of its memory; none for a zombie.
fn sizes(subject: &Subject) -> Option<SpaceStats> {
    subject.task().ok()?.handles().mm.map(|mm| mm.stats())
}

pub fn statm(subject: &Subject, out: &mut Text) -> Result<()> {
    let s = sizes(subject).unwrap_or_default();
    let shared = s.resident.saturating_sub(s.resident_anon);
    put!(out, "{} {} {} {} 0 {} 0\n", s.total, s.resident, shared, s.exe, s.data + s.stack);
    Ok(())
}

pub fn status(subject: &Subject, out: &mut Text) -> Result<()> {
    let process = &subject.process;
    put!(out, "Name:\t");
    for &byte in trim_nul(&subject.comm()) {
        match byte {
            b'\n' => out.bytes(b"\\n"),
            b'\\' => out.bytes(b"\\\\"),
            _ => out.bytes(&[byte]),
        };
    }
    out.bytes(b"\n");
    let task = subject.task().ok();
    if let Some(fs) = task.as_ref().and_then(|task| task.handles().fs) {
        put!(out, "Umask:\t{:04o}\n", fs.umask());
    }
    put!(out, "State:\t{}\n", subject.run_state().describe());
    put!(out, "Tgid:\t{}\nNgid:\t0\nPid:\t{}\n", process.pid, subject.id());
    put!(out, "PPid:\t{}\n", process.ppid.load(Ordering::Relaxed));
    let trace = task.as_ref().and_then(|task| task.trace());
    put!(out, "TracerPid:\t{}\n", trace.map_or(0, |trace| trace.tracer.tid()));
    if let Some(task) = &task {
        put_ids(out, task);
    }
    put!(out, "NStgid:\t{}\nNSpid:\t{}\n", process.pid, subject.id());
    let (pgid, sid) = (process.pgid.load(Ordering::Relaxed), process.session.read().sid);
    put!(out, "NSpgid:\t{pgid}\nNSsid:\t{sid}\n");
    if let Some(sizes) = sizes(subject) {
        put_sizes(out, &sizes);
        put!(out, "THP_enabled:\t{}\n", u8::from(!sizes.no_blocks));
    }
    put!(out, "Threads:\t{}\n", process.thread_count());
    put_signals(subject, out, task.as_deref());
    if let Some(task) = &task {
        put_rights(out, task);
        let usage = usage(subject);
        put!(out, "voluntary_ctxt_switches:\t{}\n", usage.nvcsw);
        put!(out, "nonvoluntary_ctxt_switches:\t{}\n", usage.nivcsw);
    }
    Ok(())
}

fn put_ids(out: &mut Text, task: &Task) {
    let creds = task.shared_creds();
    put!(out, "Uid:\t{}\t{}\t{}\t{}\n", creds.uid, creds.euid, creds.suid, creds.fsuid);
    put!(out, "Gid:\t{}\t{}\t{}\t{}\n", creds.gid, creds.egid, creds.sgid, creds.fsgid);
    put!(out, "FDSize:\t{}\nGroups:\t", task.handles().files.map_or(0, |files| files.capacity()));
    for group in creds.groups.iter() {
        put!(out, "{group} ");
    }
    if creds.groups.is_empty() {
        put!(out, " ");
    }
    put!(out, "\n");
}

fn put_sizes(out: &mut Text, s: &SpaceStats) {
    let shmem = s.resident.saturating_sub(s.resident_anon + s.resident_file);
    for (label, pages) in [
        ("VmPeak", s.peak),
        ("VmSize", s.total),
        ("VmLck", s.locked),
        ("VmPin", 0),
        ("VmHWM", s.resident_peak),
        ("VmRSS", s.resident),
        ("RssAnon", s.resident_anon),
        ("RssFile", s.resident_file),
        ("RssShmem", shmem),
        ("VmData", s.data),
        ("VmStk", s.stack),
        ("VmExe", s.exe),
        ("VmLib", s.lib),
        ("VmPTE", s.tables),
        ("VmSwap", 0),
    ] {
        put_status_kb(out, label, pages * PAGE_KIB);
    }
}

fn put_signals(subject: &Subject, out: &mut Text, task: Option<&Task>) {
    let process = &subject.process;
    let (ignored, caught) = process.handlers.read().ignored_and_caught();
    let (own, blocked) = task.map_or((0, 0), |task| (task.sig.pending().0, task.sig.blocked().0));
    let queued = (process.sig.pending().0 | own).count_ones();
    put!(out, "SigQ:\t{queued}/{}\n", process.limits.get(Resource::Sigpending).soft);
    for (label, set) in [
        ("SigPnd", own),
        ("ShdPnd", process.sig.pending().0),
        ("SigBlk", blocked),
        ("SigIgn", ignored.0),
        ("SigCgt", caught.0),
    ] {
        put!(out, "{label}:\t{set:016x}\n");
    }
}

fn put_rights(out: &mut Text, task: &Task) {
    let creds = task.shared_creds();
    for (label, caps) in [
        ("CapInh", creds.cap_inheritable),
        ("CapPrm", creds.cap_permitted),
        ("CapEff", creds.cap_effective),
        ("CapBnd", creds.cap_bounding),
        ("CapAmb", creds.cap_ambient),
    ] {
        put!(out, "{label}:\t{:016x}\n", caps.bits());
    }
    put!(out, "NoNewPrivs:\t{}\nSeccomp:\t0\nSeccomp_filters:\t0\n", u32::from(creds.no_new_privs));
    let online = u64::MAX >> (64 - arch::cpu_count().clamp(1, 64));
    let allowed = task.entity.affinity().0 & online;
    put!(out, "Cpus_allowed:\t{allowed:x}\nCpus_allowed_list:\t");
    put_list(out, allowed);
    put!(out, "\nMems_allowed:\t1\nMems_allowed_list:\t0\n");
}
