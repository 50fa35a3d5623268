//! User and group ids, supplementary groups, capabilities (credentials(7), capabilities(7)).

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::errno::{Errno, Result};
use crate::mm::UserPtr;
use crate::process::{Caps, Credentials, Thread, find_task};

/// "No change" in the set calls.
const KEEP: u32 = u32::MAX;
/// NGROUPS_MAX.
const MAX_GROUPS: usize = 65_536;

pub fn getuid(t: &mut Thread) -> Result<u32> {
    Ok(t.creds().uid)
}

pub fn geteuid(t: &mut Thread) -> Result<u32> {
    Ok(t.creds().euid)
}

pub fn getgid(t: &mut Thread) -> Result<u32> {
    Ok(t.creds().gid)
}

pub fn getegid(t: &mut Thread) -> Result<u32> {
    Ok(t.creds().egid)
}

pub async fn getresuid(t: &Thread, ruid: UserPtr<u32>, euid: UserPtr<u32>, suid: UserPtr<u32>) -> Result<()> {
    let creds = t.creds();
    ruid.write(t.mm(), creds.uid).await?;
    euid.write(t.mm(), creds.euid).await?;
    suid.write(t.mm(), creds.suid).await
}

pub async fn getresgid(t: &Thread, rgid: UserPtr<u32>, egid: UserPtr<u32>, sgid: UserPtr<u32>) -> Result<()> {
    let creds = t.creds();
    rgid.write(t.mm(), creds.gid).await?;
    egid.write(t.mm(), creds.egid).await?;
    sgid.write(t.mm(), creds.sgid).await
}

pub fn setuid(t: &mut Thread, uid: u32) -> Result<()> {
    let old = t.creds().clone();
    let mut new = (*old).clone();
    if uid == KEEP {
        return Err(Errno::EINVAL);
    }
    if old.capable(Caps::SETUID) {
        new.uid = uid;
        new.suid = uid;
    } else if uid != old.uid && uid != old.suid {
        return Err(Errno::EPERM);
    }
    new.euid = uid;
    new.fsuid = uid;
    commit_uids(t, &old, new);
    Ok(())
}

pub fn setgid(t: &mut Thread, gid: u32) -> Result<()> {
    let old = t.creds().clone();
    let mut new = (*old).clone();
    if gid == KEEP {
        return Err(Errno::EINVAL);
    }
    if old.capable(Caps::SETGID) {
        new.gid = gid;
        new.sgid = gid;
    } else if gid != old.gid && gid != old.sgid {
        return Err(Errno::EPERM);
    }
    new.egid = gid;
    new.fsgid = gid;
    commit(t, &old, new);
    Ok(())
}

pub fn setreuid(t: &mut Thread, ruid: u32, euid: u32) -> Result<()> {
    let old = t.creds().clone();
    let mut new = (*old).clone();
    let privileged = old.capable(Caps::SETUID);
    if ruid != KEEP {
        if !privileged && ruid != old.uid && ruid != old.euid {
            return Err(Errno::EPERM);
        }
        new.uid = ruid;
    }
    if euid != KEEP {
        if !privileged && euid != old.uid && euid != old.euid && euid != old.suid {
            return Err(Errno::EPERM);
        }
        new.euid = euid;
    }
    if ruid != KEEP || (euid != KEEP && euid != old.uid) {
        new.suid = new.euid;
    }
    new.fsuid = new.euid;
    commit_uids(t, &old, new);
    Ok(())
}

pub fn setregid(t: &mut Thread, rgid: u32, egid: u32) -> Result<()> {
    let old = t.creds().clone();
    let mut new = (*old).clone();
    let privileged = old.capable(Caps::SETGID);
    if rgid != KEEP {
        if !privileged && rgid != old.gid && rgid != old.egid {
            return Err(Errno::EPERM);
        }
        new.gid = rgid;
    }
    if egid != KEEP {
        if !privileged && egid != old.gid && egid != old.egid && egid != old.sgid {
            return Err(Errno::EPERM);
        }
        new.egid = egid;
    }
    if rgid != KEEP || (egid != KEEP && egid != old.gid) {
        new.sgid = new.egid;
    }
    new.fsgid = new.egid;
    commit(t, &old, new);
    Ok(())
}

pub fn setresuid(t: &mut Thread, ruid: u32, euid: u32, suid: u32) -> Result<()> {
    let old = t.creds().clone();
    let allowed = |id| id == KEEP || id == old.uid || id == old.euid || id == old.suid;
    if !old.capable(Caps::SETUID) && ![ruid, euid, suid].into_iter().all(allowed) {
        return Err(Errno::EPERM);
    }
    let mut new = (*old).clone();
    new.uid = pick(ruid, old.uid);
    new.euid = pick(euid, old.euid);
    new.suid = pick(suid, old.suid);
    new.fsuid = new.euid;
    commit_uids(t, &old, new);
    Ok(())
}

pub fn setresgid(t: &mut Thread, rgid: u32, egid: u32, sgid: u32) -> Result<()> {
    let old = t.creds().clone();
    let allowed = |id| id == KEEP || id == old.gid || id == old.egid || id == old.sgid;
    if !old.capable(Caps::SETGID) && ![rgid, egid, sgid].into_iter().all(allowed) {
        return Err(Errno::EPERM);
    }
    let mut new = (*old).clone();
    new.gid = pick(rgid, old.gid);
    new.egid = pick(egid, old.egid);
    new.sgid = pick(sgid, old.sgid);
    new.fsgid = new.egid;
    commit(t, &old, new);
    Ok(())
}

fn pick(asked: u32, old: u32) -> u32 {
    if asked == KEEP { old } else { asked }
}

/// setfsuid(2): answers the old id, changed or not.
pub fn setfsuid(t: &mut Thread, uid: u32) -> Result<u32> {
    let old = t.creds().clone();
    let allowed = [old.uid, old.euid, old.suid, old.fsuid].contains(&uid) || old.capable(Caps::SETUID);
    if uid != KEEP && allowed && uid != old.fsuid {
        let mut new = (*old).clone();
        new.fsuid = uid;
        fix_fs_caps(&old, &mut new);
        commit(t, &old, new);
    }
    Ok(old.fsuid)
}

pub fn setfsgid(t: &mut Thread, gid: u32) -> Result<u32> {
    let old = t.creds().clone();
    let allowed = [old.gid, old.egid, old.sgid, old.fsgid].contains(&gid) || old.capable(Caps::SETGID);
    if gid != KEEP && allowed {
        let mut new = (*old).clone();
        new.fsgid = gid;
        commit(t, &old, new);
    }
    Ok(old.fsgid)
}

/// capabilities(7), "Effect of user ID changes on capabilities", then publishes.
fn commit_uids(t: &mut Thread, old: &Credentials, mut new: Credentials) {
    const SECBIT_KEEP_CAPS: u32 = 1 << 4;
    const SECBIT_NO_SETUID_FIXUP: u32 = 1 << 2;
    if new.securebits & SECBIT_NO_SETUID_FIXUP == 0 {
        let was_root = old.uid == 0 || old.euid == 0 || old.suid == 0;
        let is_root = new.uid == 0 || new.euid == 0 || new.suid == 0;
        if was_root && !is_root {
            if new.securebits & SECBIT_KEEP_CAPS == 0 {
                new.cap_permitted = Caps::empty();
                new.cap_effective = Caps::empty();
            }
            new.cap_ambient = Caps::empty();
        }
        if old.euid == 0 && new.euid != 0 {
            new.cap_effective = Caps::empty();
        } else if old.euid != 0 && new.euid == 0 {
            new.cap_effective = new.cap_permitted;
        }
        fix_fs_caps(old, &mut new);
    }
    commit(t, old, new);
}

/// Publishes; who has become somebody else is not to be looked into by those he was (prctl(2), PR_SET_DUMPABLE).
fn commit(t: &mut Thread, old: &Credentials, new: Credentials) {
    let other = new.euid != old.euid || new.egid != old.egid || new.fsuid != old.fsuid || new.fsgid != old.fsgid;
    if other || !old.cap_permitted.contains(new.cap_permitted) {
        t.process().dumpable.store(0, core::sync::atomic::Ordering::Relaxed);
        t.parent_death_signal.store(0, core::sync::atomic::Ordering::Relaxed);
    }
    t.set_creds(new);
}

/// File capabilities follow the file-system uid.
fn fix_fs_caps(old: &Credentials, new: &mut Credentials) {
    let fs_caps = Caps::CHOWN
        | Caps::DAC_OVERRIDE
        | Caps::DAC_READ_SEARCH
        | Caps::FOWNER
        | Caps::FSETID
        | Caps::LINUX_IMMUTABLE
        | Caps::MKNOD
        | Caps::MAC_OVERRIDE;
    if old.fsuid == 0 && new.fsuid != 0 {
        new.cap_effective.remove(fs_caps);
    } else if old.fsuid != 0 && new.fsuid == 0 {
        new.cap_effective.insert(new.cap_permitted & fs_caps);
    }
}

pub async fn getgroups(t: &Thread, size: i32, list: UserPtr<u32>) -> Result<usize> {
    let groups = t.creds().groups.clone();
    if size < 0 {
        return Err(Errno::EINVAL);
    }
    if size > 0 {
        if groups.len() > size as usize {
            return Err(Errno::EINVAL);
        }
        list.write_slice(t.mm(), &groups).await?;
    }
    Ok(groups.len())
}

pub async fn setgroups(t: &mut Thread, size: i32, list: UserPtr<u32>) -> Result<()> {
    if !t.creds().capable(Caps::SETGID) {
        return Err(Errno::EPERM);
    }
    if size < 0 || size as usize > MAX_GROUPS {
        return Err(Errno::EINVAL);
    }
    let mut groups: Vec<u32> = list.read_slice(t.mm(), size as usize, MAX_GROUPS).await?;
    if groups.contains(&KEEP) {
        return Err(Errno::EINVAL);
    }
    groups.sort_unstable();
    let mut new = (**t.creds()).clone();
    new.groups = Arc::from(groups);
    t.set_creds(new);
    Ok(())
}

const CAP_VERSION_1: u32 = 0x1998_0330;
const CAP_VERSION_2: u32 = 0x2007_1026;
const CAP_VERSION_3: u32 = 0x2008_0522;

/// Number of 32-bit words per set for a header's version; an unknown version is answered with the preferred one.
async fn cap_words(t: &Thread, header: UserPtr<[u32; 2]>, data_is_null: bool) -> Result<Option<(usize, u32)>> {
    let [version, pid] = header.read(t.mm()).await?;
    match version {
        CAP_VERSION_1 => Ok(Some((1, pid))),
        CAP_VERSION_2 | CAP_VERSION_3 => Ok(Some((2, pid))),
        _ => {
            header.cast::<u32>().write(t.mm(), CAP_VERSION_3).await?;
            if data_is_null { Ok(None) } else { Err(Errno::EINVAL) }
        }
    }
}

pub async fn capget(t: &Thread, header: UserPtr<[u32; 2]>, data: UserPtr<u32>) -> Result<()> {
    let Some((words, pid)) = cap_words(t, header, data.is_null()).await? else { return Ok(()) };
    if (pid as i32) < 0 {
        return Err(Errno::EINVAL);
    }
    let creds =
        if pid == 0 || pid == t.tid() { t.creds().clone() } else { find_task(pid).ok_or(Errno::ESRCH)?.shared_creds() };
    if data.is_null() {
        return Ok(());
    }
    let sets = [creds.cap_effective.bits(), creds.cap_permitted.bits(), creds.cap_inheritable.bits()];
    let mut out = [0u32; 6];
    for (index, set) in sets.iter().enumerate() {
        out[index] = *set as u32;
        out[index + 3] = (*set >> 32) as u32;
    }
    data.write_slice(t.mm(), &out[..3 * words]).await
}

pub async fn capset(t: &mut Thread, header: UserPtr<[u32; 2]>, data: UserPtr<u32>) -> Result<()> {
    let Some((words, pid)) = cap_words(t, header, false).await? else { return Err(Errno::EINVAL) };
    if pid != 0 && pid != t.tid() {
        return Err(Errno::EPERM);
    }
    let raw = data.read_slice(t.mm(), 3 * words, 6).await?;
    let word = |index: usize| raw.get(index).copied().unwrap_or(0) as u64;
    let set = |index: usize| Caps::from_bits_truncate(word(index) | word(index + 3) << 32);
    let (effective, permitted, inheritable) = (set(0), set(1), set(2));
    let old = t.creds();
    let may_inherit = old.cap_inheritable | if old.capable(Caps::SETPCAP) { Caps::all() } else { old.cap_permitted };
    if !may_inherit.contains(inheritable)
        || !(old.cap_inheritable | old.cap_bounding).contains(inheritable)
        || !old.cap_permitted.contains(permitted)
        || !permitted.contains(effective)
    {
        return Err(Errno::EPERM);
    }
    let mut new = (**old).clone();
    new.cap_effective = effective;
    new.cap_permitted = permitted;
    new.cap_inheritable = inheritable;
    new.cap_ambient &= permitted & inheritable;
    t.set_creds(new);
    Ok(())
}
