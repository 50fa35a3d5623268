//! /proc/sys: what can be asked of sysctl(8), and set where that has an effect.

use core::sync::atomic::Ordering;

use super::node::{Static, StaticKind};
use super::sysvipc;
use super::text::{Text, put, put_uuid};
use super::text_file::parse;
use crate::drivers::random;
use crate::errno::{Errno, Result};
use crate::fs::fd_table::NR_OPEN;
use crate::fs::inotify::limits;
use crate::fs::perm::protected;
use crate::fs::{dentry, epoll, mount, pipe, tty, userfault};
use crate::net::inet::ip;
use crate::net::limits as net_limits;
use crate::process::{Caps, Credentials, table};
use crate::sync::Once;
use crate::{boot, exec, mm, sysrq, uts};

pub static ENTRIES: &[Static] =
    &[Static::dir("fs", FS), Static::dir("kernel", KERNEL), Static::dir("net", NET), Static::dir("vm", VM)];

/// One of [`protected`], which may be up to so much.
macro_rules! protection {
    ($name:literal, $level:ident, $max:literal) => {
        setting(
            $name,
            |out| put!(out, "{}\n", protected::$level.load(Ordering::Relaxed)),
            |bytes, _| {
                let level = Some(number(bytes)?).filter(|level| *level <= $max).ok_or(Errno::EINVAL)?;
                protected::$level.store(level, Ordering::Relaxed);
                Ok(())
            },
        )
    };
}

static FS: &[Static] = &[
    Static::dir("epoll", EPOLL),
    Static::dir("inotify", INOTIFY),
    setting(
        "mount-max",
        |out| put!(out, "{}\n", mount::MAX_MOUNTS.load(Ordering::Relaxed)),
        |bytes, _| {
            let max = number(bytes)?;
            mount::MAX_MOUNTS.store(Some(max).filter(|max| *max > 0).ok_or(Errno::EINVAL)?, Ordering::Relaxed);
            Ok(())
        },
    ),
    Static::dir("mqueue", sysvipc::MQUEUE),
    Static::text("nr_open", |out| put!(out, "{NR_OPEN}\n")),
    protection!("protected_fifos", FIFOS, 2),
    protection!("protected_hardlinks", HARDLINKS, 1),
    protection!("protected_regular", REGULAR, 2),
    protection!("protected_symlinks", SYMLINKS, 1),
    Static::text("pipe-max-size", |out| put!(out, "{}\n", pipe::MAX_CAPACITY)),
];

static EPOLL: &[Static] = &[setting(
    "max_user_watches",
    |out| put!(out, "{}\n", epoll::limits::user_watches()),
    |bytes, _| number(bytes).map(epoll::limits::set_user_watches),
)];

static INOTIFY: &[Static] = &[
    setting(
        "max_queued_events",
        |out| put!(out, "{}\n", limits::QUEUED_EVENTS.load(Ordering::Relaxed)),
        |bytes, _| number(bytes).map(|limit| limits::QUEUED_EVENTS.store(limit, Ordering::Relaxed)),
    ),
    setting(
        "max_user_instances",
        |out| put!(out, "{}\n", limits::USER_INSTANCES.load(Ordering::Relaxed)),
        |bytes, _| number(bytes).map(|limit| limits::USER_INSTANCES.store(limit, Ordering::Relaxed)),
    ),
    setting(
        "max_user_watches",
        |out| put!(out, "{}\n", limits::user_watches()),
        |bytes, _| number(bytes).map(limits::set_user_watches),
    ),
];

static KERNEL: &[Static] = &[
    Static::text("cap_last_cap", |out| put!(out, "{}\n", 63 - Caps::all().bits().leading_zeros())),
    setting(
        "domainname",
        |out| put_line(out, &uts::domainname()),
        |bytes, creds| set_name(bytes, creds, uts::set_domainname),
    ),
    setting(
        "hostname",
        |out| put_line(out, &uts::hostname()),
        |bytes, creds| set_name(bytes, creds, uts::set_hostname),
    ),
    sysvipc::MSGMAX,
    sysvipc::MSGMNB,
    sysvipc::MSGMNI,
    Static::text("ngroups_max", |out| put!(out, "65536\n")),
    Static::text("osrelease", |out| put!(out, "{}\n", uts::RELEASE)),
    Static::text("ostype", |out| put!(out, "{}\n", uts::SYSNAME)),
    Static::text("overflowgid", |out| put!(out, "65534\n")),
    Static::text("overflowuid", |out| put!(out, "65534\n")),
    setting("pid_max", |out| put!(out, "{}\n", table::pid_max()), |bytes, _| table::set_pid_max(parse(bytes)?)),
    Static::dir("pty", PTY),
    Static::dir("random", RANDOM),
    setting("sched_rt_period_us", |out| put!(out, "{}\n", exec::rt_bandwidth().0), set_rt_period),
    setting("sched_rt_runtime_us", show_rt_runtime, set_rt_runtime),
    sysvipc::SEM,
    sysvipc::SHM_RMID_FORCED,
    sysvipc::SHMALL,
    sysvipc::SHMMAX,
    sysvipc::SHMMNI,
    setting("sysrq", |out| put!(out, "{}\n", sysrq::mask()), |bytes, _| set_sysrq(bytes)),
    Static::text("tainted", |out| put!(out, "0\n")),
    setting(
        "threads-max",
        |out| put!(out, "{}\n", boot::threads_max()),
        |bytes, _| boot::set_threads_max(parse(bytes)?),
    ),
    Static::text("version", |out| put!(out, "{}\n", uts::VERSION)),
];

static NET: &[Static] = &[Static::dir("core", CORE), Static::dir("ipv4", IPV4)];

/// A number of [`limits`](crate::net::limits).
macro_rules! limit {
    ($name:literal, $limit:ident) => {
        setting(
            $name,
            |out| put!(out, "{}\n", net_limits::$limit.get()),
            |bytes, _| net_limits::$limit.set(parse(bytes)?),
        )
    };
}

static CORE: &[Static] = &[
    limit!("rmem_default", RECEIVE_DEFAULT),
    limit!("rmem_max", RECEIVE_MAX),
    limit!("somaxconn", BACKLOG_MAX),
    limit!("wmem_default", SEND_DEFAULT),
    limit!("wmem_max", SEND_MAX),
];

static IPV4: &[Static] = &[
    setting(
        "ping_group_range",
        |out| {
            let (first, last) = ip::group_range();
            put!(out, "{first}\t{last}\n");
        },
        |bytes, _| ip::set_group_range(bytes),
    ),
    limit!("tcp_fin_timeout", FIN_TIME),
];

static PTY: &[Static] = &[
    Static::text("max", |out| put!(out, "{}\n", tty::pty::MAX_PTYS)),
    Static::text("nr", |out| put!(out, "{}\n", tty::pty::all().len())),
];

static RANDOM: &[Static] = &[
    Static::text("boot_id", |out| put_uuid(out, *BOOT_ID.call_once(random_uuid))),
    // The generator is seeded once and for all (random(7)): there is always as much as the pool holds.
    Static::text("entropy_avail", |out| put!(out, "256\n")),
    Static::text("poolsize", |out| put!(out, "256\n")),
    Static::text("uuid", |out| put_uuid(out, random_uuid())),
];

static VM: &[Static] = &[
    Static { name: "drop_caches", perm: 0o200, kind: StaticKind::Setting(|_| {}, |bytes, _| drop_caches(bytes)) },
    Static::text("max_map_count", |out| put!(out, "{}\n", mm::space::MAX_MAPPINGS)),
    // As many as could be had of those that were asked for: none.
    setting("nr_hugepages", |out| put!(out, "0\n"), |bytes, _| number(bytes).map(drop)),
    setting(
        "overcommit_memory",
        |out| put!(out, "{}\n", mm::overcommit::mode()),
        |bytes, _| mm::overcommit::set_mode(parse(bytes)?),
    ),
    setting(
        "unprivileged_userfaultfd",
        |out| put!(out, "{}\n", u8::from(userfault::UNPRIVILEGED.load(Ordering::Relaxed))),
        set_unprivileged_userfaultfd,
    ),
];

static BOOT_ID: Once<[u8; 16]> = Once::new();

pub(super) const fn setting(
    name: &'static str,
    show: fn(&mut Text),
    store: fn(&[u8], &Credentials) -> Result<()>,
) -> Static {
    Static { name, perm: 0o644, kind: StaticKind::Setting(show, store) }
}

fn random_uuid() -> [u8; 16] {
    let mut bytes = [0; 16];
    random::fill(&mut bytes);
    bytes
}

fn put_line(out: &mut Text, line: &[u8]) {
    out.bytes(line).bytes(b"\n");
}

/// A number that is not negative and fits an int.
fn number(bytes: &[u8]) -> Result<usize> {
    let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    text.trim_ascii().parse().ok().filter(|number| *number <= i32::MAX as usize).ok_or(Errno::EINVAL)
}

/// proc(5): 1 drops clean pages of files, 2 names and inodes, 3 both; 4 is about a message that is not made here.
fn drop_caches(bytes: &[u8]) -> Result<()> {
    let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    let what: u32 = text.trim_ascii().parse().map_err(|_| Errno::EINVAL)?;
    if !(1..=4).contains(&what) {
        return Err(Errno::EINVAL);
    }
    if what & 2 != 0 {
        dentry::shrink(usize::MAX);
    }
    if what & 1 != 0 {
        mm::page_cache::reclaim(usize::MAX);
    }
    Ok(())
}

fn show_rt_runtime(out: &mut Text) {
    match exec::rt_bandwidth().1 {
        Some(runtime) => put!(out, "{runtime}\n"),
        None => put!(out, "-1\n"),
    }
}

fn set_rt_period(bytes: &[u8], _: &Credentials) -> Result<()> {
    let period = u64::try_from(parse(bytes)?).map_err(|_| Errno::EINVAL)?;
    exec::set_rt_bandwidth(period, exec::rt_bandwidth().1).then_some(()).ok_or(Errno::EINVAL)
}

/// -1: no limit.
fn set_rt_runtime(bytes: &[u8], _: &Credentials) -> Result<()> {
    let runtime = match parse(bytes)? {
        -1 => None,
        runtime => Some(u64::try_from(runtime).map_err(|_| Errno::EINVAL)?),
    };
    exec::set_rt_bandwidth(exec::rt_bandwidth().0, runtime).then_some(()).ok_or(Errno::EINVAL)
}

fn set_unprivileged_userfaultfd(bytes: &[u8], _: &Credentials) -> Result<()> {
    match parse(bytes)? {
        value @ 0..=1 => userfault::UNPRIVILEGED.store(value == 1, Ordering::Relaxed),
        _ => return Err(Errno::EINVAL),
    }
    Ok(())
}

fn set_sysrq(bytes: &[u8]) -> Result<()> {
    sysrq::set_mask(i32::try_from(parse(bytes)?).map_err(|_| Errno::EINVAL)?);
    Ok(())
}

/// Sets a name from the first line that was written; longer ones are cut, as sysctl strings are.
fn set_name(bytes: &[u8], creds: &Credentials, set: fn(&[u8]) -> Result<()>) -> Result<()> {
    if !creds.capable(Caps::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let line = bytes.split(|&byte| byte == b'\n' || byte == 0).next().unwrap_or(&[]);
    set(&line[..line.len().min(uts::NAME_MAX)])
}
