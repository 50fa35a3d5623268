//! What a program may do: set-id bits, and the capabilities of the user, of the thread and of the file (capabilities(7),
//! "Transformation of capabilities during execve()").

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use crate::errno::{Errno, Result};
use crate::fs::capabilities::{self, FileCaps};
use crate::fs::{Metadata, MountFlags, OpenFile};
use crate::process::creds::{Caps, Credentials};
use crate::process::task::{Task, Thread};
use crate::process::{Process, table};

/// Who a program is.
pub struct Rights {
    pub creds: Credentials,
    /// AT_SECURE: it has rights that whoever called it does not have.
    pub secure: bool,
    /// The file gives rights: what personality(2) says about the address space does not count for it.
    pub raised: bool,
}

/// What a file may add to the rights of whoever runs it.
struct Given {
    euid: Option<u32>,
    egid: Option<u32>,
    caps: Option<FileCaps>,
}

/// Who runs the program, and how.
struct Caller<'a> {
    creds: &'a Credentials,
    /// Do other processes share its working directory and root? They could move them under the program.
    shares_directories: &'a dyn Fn() -> bool,
    /// Somebody traces it who may not do so with programs that have more rights.
    traced: bool,
}

/// What running `file` makes of the thread's credentials.
pub async fn of(t: &Thread, file: &OpenFile) -> Result<Rights> {
    let given = if file.path().mount.flags().contains(MountFlags::NOSUID) {
        Given { euid: None, egid: None, caps: None }
    } else {
        let caps = capabilities::of(file.inode()).await?;
        let meta = file.inode().metadata();
        let (euid, egid) = if t.creds().no_new_privs { (None, None) } else { set_id(&meta) };
        Given { euid, egid, caps }
    };
    let traced = t.is_traced_unsafely();
    Caller { creds: t.creds(), shares_directories: &|| shares_directories(t), traced }.run(&given)
}

/// While it lives nobody attaches to the process, which is about to have more rights: who wants to waits.
pub struct Gaining(Arc<Process>);

impl Drop for Gaining {
    fn drop(&mut self) {
        if self.0.gains_rights.fetch_sub(1, Ordering::Release) == 1 {
            self.0.exit_wait.wake_all();
        }
    }
}

/// What was found about a program that is given rights still holds until the program has them: who has attached meanwhile
/// has taken them away.
pub async fn settle(t: &Thread, file: &OpenFile, mut rights: Rights) -> Result<(Rights, Option<Gaining>)> {
    if !rights.raised {
        return Ok((rights, None));
    }
    let gaining = {
        let _table = table::lock();
        t.process().gains_rights.fetch_add(1, Ordering::Relaxed);
        Gaining(t.process().clone())
    };
    if t.is_traced_unsafely() {
        rights = of(t, file).await?;
    }
    Ok((rights, Some(gaining)))
}

/// The ids that the file's set-id bits give.
fn set_id(meta: &Metadata) -> (Option<u32>, Option<u32>) {
    const SETUID: u16 = 0o4000;
    const SETGID: u16 = 0o2000;
    const GROUP_EXEC: u16 = 0o010;
    let user = meta.perm & SETUID != 0;
    let group = meta.perm & (SETGID | GROUP_EXEC) == SETGID | GROUP_EXEC;
    (user.then_some(meta.uid), group.then_some(meta.gid))
}

/// Do other processes use the same root and working directory?
fn shares_directories(t: &Thread) -> bool {
    let uses = |task: &Arc<Task>| task.lock_handles().fs.as_ref().is_some_and(|fs| Arc::ptr_eq(fs, t.fs()));
    let own = t.process().threads.lock().iter().filter(|task| uses(task)).count();
    // Each thread has two references; more may be somebody who looks at them for a moment.
    Arc::strong_count(t.fs()) > 2 * own
        && table::processes().any(|process| process.pid != t.process().pid && process.threads.lock().iter().any(&uses))
}

const SECBIT_NOROOT: u32 = 1;
const SECBIT_KEEP_CAPS: u32 = 1 << 4;

impl Caller<'_> {
    fn run(&self, given: &Given) -> Result<Rights> {
        let old = self.creds;
        let mut new = old.clone();
        new.euid = given.euid.unwrap_or(old.euid);
        new.egid = given.egid.unwrap_or(old.egid);
        let mut effective = self.permit(&mut new, given)?;
        if self.is_root(&new, given.caps.is_some()) {
            new.cap_permitted = old.cap_bounding | old.cap_inheritable;
            effective |= new.euid == 0;
        }
        let gained = !old.cap_permitted.contains(new.cap_permitted);
        let raised = given.euid.is_some() || given.egid.is_some() || gained;
        let is_set_id = |new: &Credentials| new.euid != old.uid || new.egid != old.gid;
        let set_id = is_set_id(&new);
        if (set_id || gained) && (old.no_new_privs || self.traced || (self.shares_directories)()) {
            if !old.capable(Caps::SETUID) || old.no_new_privs {
                (new.euid, new.egid) = (new.uid, new.gid);
            }
            new.cap_permitted &= old.cap_permitted;
        }
        (new.suid, new.fsuid) = (new.euid, new.euid);
        (new.sgid, new.fsgid) = (new.egid, new.egid);
        if given.caps.is_some() || set_id {
            new.cap_ambient = Caps::empty();
        }
        new.cap_permitted |= new.cap_ambient;
        new.cap_effective = if effective { new.cap_permitted } else { new.cap_ambient };
        new.securebits &= !SECBIT_KEEP_CAPS;
        let grew = !new.cap_ambient.contains(new.cap_permitted);
        let secure = set_id || new.uid != 0 && (effective || grew);
        Ok(Rights { creds: new, secure, raised })
    }

    /// What the file's capabilities permit; answers whether they are effective from the start. EPERM: the program
    /// knows nothing of capabilities, and would not get all that it needs.
    fn permit(&self, new: &mut Credentials, given: &Given) -> Result<bool> {
        new.cap_permitted = Caps::empty();
        let Some(caps) = given.caps else { return Ok(false) };
        new.cap_permitted = caps.permitted & self.creds.cap_bounding | caps.inheritable & self.creds.cap_inheritable;
        if caps.effective && !new.cap_permitted.contains(caps.permitted) {
            return Err(Errno::EPERM);
        }
        Ok(caps.effective)
    }

    /// The program has all capabilities because it is root's.
    fn is_root(&self, new: &Credentials, has_caps: bool) -> bool {
        if new.securebits & SECBIT_NOROOT != 0 {
            return false;
        }
        // The capabilities of a set-user-ID-root program are all that it gets.
        let limited = has_caps && new.uid != 0 && new.euid == 0;
        !limited && (new.euid == 0 || new.uid == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Given = Given { euid: None, egid: None, caps: None };

    fn user(uid: u32) -> Credentials {
        let ids = Credentials { uid, euid: uid, suid: uid, fsuid: uid, ..Credentials::root() };
        Credentials { cap_permitted: Caps::empty(), cap_effective: Caps::empty(), ..ids }
    }

    fn run(creds: &Credentials, given: &Given) -> Result<Rights> {
        Caller { creds, shares_directories: &|| false, traced: false }.run(given)
    }

    fn raw(effective: bool) -> Given {
        let caps = FileCaps { permitted: Caps::NET_RAW, inheritable: Caps::empty(), effective };
        Given { caps: Some(caps), ..NOTHING }
    }

    #[test]
    fn a_file_gives_its_capabilities() {
        let rights = run(&user(1000), &raw(true)).ok().unwrap();
        assert_eq!((rights.creds.cap_permitted, rights.creds.cap_effective), (Caps::NET_RAW, Caps::NET_RAW));
        assert!(rights.secure && rights.raised);
        let rights = run(&user(1000), &raw(false)).ok().unwrap();
        assert_eq!((rights.creds.cap_permitted, rights.creds.cap_effective), (Caps::NET_RAW, Caps::empty()));
        assert!(rights.secure);
        let rights = run(&user(1000), &NOTHING).ok().unwrap();
        assert_eq!(rights.creds.cap_permitted, Caps::empty());
        assert!(!rights.secure && !rights.raised);
    }

    #[test]
    fn it_gives_none_that_the_bounding_set_lacks() {
        let bound = Credentials { cap_bounding: Caps::all() - Caps::NET_RAW, ..user(1000) };
        assert_eq!(run(&bound, &raw(true)).err(), Some(Errno::EPERM));
        assert_eq!(run(&bound, &raw(false)).ok().unwrap().creds.cap_permitted, Caps::empty());
    }

    #[test]
    fn who_wants_no_new_privileges_gets_none() {
        let careful = Credentials { no_new_privs: true, ..user(1000) };
        let rights = run(&careful, &raw(true)).ok().unwrap();
        assert_eq!(rights.creds.cap_permitted, Caps::empty());
    }

    #[test]
    fn who_shares_directories_gets_no_rights_of_others() {
        let creds = user(1000);
        let set_id = Given { euid: Some(0), ..NOTHING };
        let alone = run(&creds, &set_id).ok().unwrap().creds;
        assert_eq!((alone.euid, alone.cap_effective), (0, Caps::all()));
        let shared = Caller { creds: &creds, shares_directories: &|| true, traced: false }.run(&set_id).ok().unwrap();
        assert_eq!((shared.creds.euid, shared.creds.cap_effective), (1000, Caps::empty()));
    }

    #[test]
    fn a_set_user_id_program_of_root_has_no_more_than_its_capabilities() {
        let both = Given { euid: Some(0), ..raw(true) };
        let rights = run(&user(1000), &both).ok().unwrap();
        assert_eq!((rights.creds.euid, rights.creds.cap_effective), (0, Caps::NET_RAW));
        let rights = run(&Credentials::root(), &raw(true)).ok().unwrap();
        assert_eq!(rights.creds.cap_effective, Caps::all());
    }
}
