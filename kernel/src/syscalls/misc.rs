//! The system as a whole: names, resources, power.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use crate::boot::{self, How};
use crate::errno::{Errno, Result};
use crate::fs::tty;
use crate::mm::{self, UserPtr};
use crate::process::{self, Caps, Limit, Resource, Thread};
use crate::{arch, exec, klog, uts};

pub async fn uname(t: &Thread, buf: UserPtr<u8>) -> Result<()> {
    buf.write_bytes(t.mm(), &uts::utsname()).await
}

async fn read_name(t: &Thread, name: UserPtr<u8>, len: i32) -> Result<([u8; uts::NAME_MAX], usize)> {
    if !t.creds().capable(Caps::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let len = usize::try_from(len).ok().filter(|len| *len <= uts::NAME_MAX).ok_or(Errno::EINVAL)?;
    let mut bytes = [0; uts::NAME_MAX];
    name.read_bytes(t.mm(), &mut bytes[..len]).await?;
    Ok((bytes, len))
}

pub async fn sethostname(t: &Thread, name: UserPtr<u8>, len: i32) -> Result<()> {
    let (bytes, len) = read_name(t, name, len).await?;
    uts::set_hostname(&bytes[..len])
}

pub async fn setdomainname(t: &Thread, name: UserPtr<u8>, len: i32) -> Result<()> {
    let (bytes, len) = read_name(t, name, len).await?;
    uts::set_domainname(&bytes[..len])
}

pub fn vhangup(t: &mut Thread) -> Result<()> {
    if !t.creds().capable(Caps::SYS_TTY_CONFIG) {
        return Err(Errno::EPERM);
    }
    tty::hang_up_controlling(t.process());
    Ok(())
}

/// `struct sysinfo` of sysinfo(2), in 64-bit words: uptime, loads, memory in bytes, processes.
pub async fn sysinfo(t: &Thread, info: UserPtr<u64>) -> Result<()> {
    /// Loads are given with 16 fraction bits.
    const SI_LOAD_SHIFT: u32 = 16;
    let memory = mm::meminfo();
    let loads = exec::load_average();
    let mut words = [0u64; 14];
    words[0] = arch::now_ns() / 1_000_000_000;
    for (word, load) in words[1..4].iter_mut().zip(loads) {
        *word = load << (SI_LOAD_SHIFT - exec::LOAD_SHIFT);
    }
    words[4] = memory.total;
    words[5] = memory.free;
    words[7] = memory.buffers;
    words[10] = (process::table::thread_count() as u64).min(u16::MAX as u64);
    // Bytes 80–87 hold procs (16 bits) and padding; totalhigh and freehigh are 0; mem_unit at byte 104.
    words[13] = 1;
    info.write_slice(t.mm(), &words).await
}

pub async fn getrusage(t: &Thread, who: i32, usage: UserPtr<[u64; 18]>) -> Result<()> {
    const RUSAGE_SELF: i32 = 0;
    const RUSAGE_CHILDREN: i32 = -1;
    const RUSAGE_THREAD: i32 = 1;
    let mut answer = match who {
        RUSAGE_SELF => t.process().usage(),
        RUSAGE_CHILDREN => *t.process().reaped_children.lock(),
        RUSAGE_THREAD => t.usage(),
        _ => return Err(Errno::EINVAL),
    };
    if who != RUSAGE_CHILDREN {
        let peak = t.mm().stats().resident_peak * (mm::PAGE_SIZE as u64 / 1024);
        answer.max_rss = answer.max_rss.max(peak);
    }
    usage.write(t.mm(), answer.to_rusage()).await
}

pub async fn getcpu(t: &Thread, cpu: UserPtr<u32>, node: UserPtr<u32>) -> Result<()> {
    if let Some(cpu) = cpu.non_null() {
        cpu.write(t.mm(), arch::cpu_id() as u32).await?;
    }
    if let Some(node) = node.non_null() {
        node.write(t.mm(), 0).await?;
    }
    Ok(())
}

pub async fn getrlimit(t: &Thread, resource: u32, out: UserPtr<[u64; 2]>) -> Result<()> {
    let resource = Resource::from_raw(resource).ok_or(Errno::EINVAL)?;
    let limit = t.rlimit(resource);
    out.write(t.mm(), [limit.soft, limit.hard]).await
}

pub async fn setrlimit(t: &Thread, resource: u32, new: UserPtr<[u64; 2]>) -> Result<()> {
    let resource = Resource::from_raw(resource).ok_or(Errno::EINVAL)?;
    let [soft, hard] = new.read(t.mm()).await?;
    set_limit(t, t.process(), resource, Limit { soft, hard })
}

pub async fn prlimit64(
    t: &Thread,
    pid: i32,
    resource: u32,
    new: UserPtr<[u64; 2]>,
    old: UserPtr<[u64; 2]>,
) -> Result<()> {
    let resource = Resource::from_raw(resource).ok_or(Errno::EINVAL)?;
    let new = match new.non_null() {
        Some(new) => Some(new.read(t.mm()).await?),
        None => None,
    };
    let target = if pid == 0 {
        t.process().clone()
    } else {
        let pid = u32::try_from(pid).map_err(|_| Errno::ESRCH)?;
        process::find_task(pid).ok_or(Errno::ESRCH)?.process().clone()
    };
    if target.pid != t.process().pid && !may_change_limits_of(t, &target) {
        return Err(Errno::EPERM);
    }
    let before = target.limits.get(resource);
    if let Some([soft, hard]) = new {
        set_limit(t, &target, resource, Limit { soft, hard })?;
    }
    if let Some(old) = old.non_null() {
        old.write(t.mm(), [before.soft, before.hard]).await?;
    }
    Ok(())
}

/// prlimit(2), "Permissions": all real ids equal, or CAP_SYS_RESOURCE.
fn may_change_limits_of(t: &Thread, target: &process::Process) -> bool {
    let Some(task) = target.any_thread() else { return false };
    let (own, other) = (t.creds(), task.shared_creds());
    let same = [other.uid, other.euid, other.suid].iter().all(|uid| *uid == own.uid)
        && [other.gid, other.egid, other.sgid].iter().all(|gid| *gid == own.gid);
    same || own.capable(Caps::SYS_RESOURCE)
}

fn set_limit(t: &Thread, target: &Arc<process::Process>, resource: Resource, new: Limit) -> Result<()> {
    /// fs.nr_open: no process may have more descriptors than this.
    const NR_OPEN: u64 = 1 << 20;
    if new.soft > new.hard {
        return Err(Errno::EINVAL);
    }
    if resource == Resource::Nofile && new.hard > NR_OPEN {
        return Err(Errno::EPERM);
    }
    if new.hard > target.limits.get(resource).hard && !t.creds().capable(Caps::SYS_RESOURCE) {
        return Err(Errno::EPERM);
    }
    target.limits.set(resource, new);
    target.publish_limit(resource, new);
    Ok(())
}

pub fn personality(t: &mut Thread, persona: u32) -> Result<u32> {
    use core::sync::atomic::Ordering::Relaxed;
    const QUERY: u32 = 0xffff_ffff;
    let personality = &t.personality;
    let old = personality.load(Relaxed);
    if persona != QUERY {
        personality.store(persona, Relaxed);
    }
    Ok(old)
}

pub async fn membarrier(t: &Thread, command: i32, flags: u32, _cpu: i32) -> Result<u32> {
    const QUERY: i32 = 0;
    const GLOBAL: i32 = 1;
    const GLOBAL_EXPEDITED: i32 = 1 << 1;
    const REGISTER_GLOBAL_EXPEDITED: i32 = 1 << 2;
    const PRIVATE_EXPEDITED: i32 = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;
    const PRIVATE_EXPEDITED_SYNC_CORE: i32 = 1 << 5;
    const REGISTER_PRIVATE_EXPEDITED_SYNC_CORE: i32 = 1 << 6;
    const SUPPORTED: i32 = GLOBAL
        | GLOBAL_EXPEDITED
        | REGISTER_GLOBAL_EXPEDITED
        | PRIVATE_EXPEDITED
        | REGISTER_PRIVATE_EXPEDITED
        | PRIVATE_EXPEDITED_SYNC_CORE
        | REGISTER_PRIVATE_EXPEDITED_SYNC_CORE;
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    match command {
        QUERY => Ok(SUPPORTED as u32),
        REGISTER_GLOBAL_EXPEDITED | REGISTER_PRIVATE_EXPEDITED | REGISTER_PRIVATE_EXPEDITED_SYNC_CORE => {
            t.mm().barriers.fetch_or(command as u32, Ordering::Relaxed);
            Ok(0)
        }
        // Each private command has the bit of its registration next to it.
        PRIVATE_EXPEDITED | PRIVATE_EXPEDITED_SYNC_CORE
            if t.mm().barriers.load(Ordering::Relaxed) & (command << 1) as u32 == 0 =>
        {
            Err(Errno::EPERM)
        }
        // Whoever comes back from the kernel has synchronised its instructions, too.
        GLOBAL | GLOBAL_EXPEDITED | PRIVATE_EXPEDITED | PRIVATE_EXPEDITED_SYNC_CORE => {
            process::membarrier::all_cpus().await;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// Restartable sequences are not there yet. Every glibc program asks at its start, so this is not worth a log line.
pub fn rseq(_t: &mut Thread, _area: u64, _len: u32, _flags: u32, _signature: u32) -> Result<()> {
    Err(Errno::ENOSYS)
}

pub async fn reboot(t: &Thread, magic1: u32, magic2: u32, command: u32, _arg: u64) -> Result<()> {
    const MAGIC1: u32 = 0xfee1_dead;
    const MAGIC2: [u32; 4] = [672_274_793, 85_072_278, 369_367_448, 537_993_216];
    const RESTART: u32 = 0x0123_4567;
    const RESTART2: u32 = 0xa1b2_c3d4;
    const HALT: u32 = 0xcdef_0123;
    const CAD_ON: u32 = 0x89ab_cdef;
    const CAD_OFF: u32 = 0;
    const POWER_OFF: u32 = 0x4321_fedc;
    if !t.creds().capable(Caps::SYS_BOOT) {
        return Err(Errno::EPERM);
    }
    if magic1 != MAGIC1 || !MAGIC2.contains(&magic2) {
        return Err(Errno::EINVAL);
    }
    let how = match command {
        RESTART | RESTART2 => How::Restart,
        HALT => How::Halt,
        POWER_OFF => How::PowerOff,
        // Ctrl-Alt-Del: there is no such key; both settings are as good as done.
        CAD_ON | CAD_OFF => return Ok(()),
        _ => return Err(Errno::EINVAL),
    };
    boot::shutdown(how).await
}

/// syslog(2) on the kernel log.
pub async fn syslog(t: &Thread, action: i32, buf: UserPtr<u8>, len: i32) -> Result<usize> {
    const CLOSE: i32 = 0;
    const OPEN: i32 = 1;
    const READ_ALL: i32 = 3;
    const READ_CLEAR: i32 = 4;
    const CLEAR: i32 = 5;
    const CONSOLE_OFF: i32 = 6;
    const CONSOLE_ON: i32 = 7;
    const CONSOLE_LEVEL: i32 = 8;
    const SIZE_BUFFER: i32 = 10;
    let privileged = t.creds().capable(Caps::SYSLOG) || t.creds().capable(Caps::SYS_ADMIN);
    if !privileged && !matches!(action, READ_ALL | SIZE_BUFFER) {
        return Err(Errno::EPERM);
    }
    match action {
        CLOSE | OPEN => Ok(0),
        READ_ALL | READ_CLEAR => {
            let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
            if buf.is_null() {
                return Err(Errno::EINVAL);
            }
            let text = klog::tail(len);
            buf.write_bytes(t.mm(), &text).await?;
            if action == READ_CLEAR {
                klog::clear();
            }
            Ok(text.len())
        }
        CLEAR => {
            klog::clear();
            Ok(0)
        }
        CONSOLE_OFF => {
            klog::set_console_level(1);
            Ok(0)
        }
        CONSOLE_ON => {
            klog::set_console_level(7);
            Ok(0)
        }
        CONSOLE_LEVEL => {
            if !(1..=8).contains(&len) {
                return Err(Errno::EINVAL);
            }
            klog::set_console_level(len as u8);
            Ok(0)
        }
        SIZE_BUFFER => Ok(klog::CAPACITY),
        // Reading record by record with a shared position (READ, SIZE_UNREAD) is left to /dev/kmsg.
        _ => Err(Errno::EINVAL),
    }
}
