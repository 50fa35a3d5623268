//! inotify(7).

use linux_raw_sys::general as raw;

use super::fs_open::lookup_cwd;
use crate::errno::{Errno, Result};
use crate::fs::inotify::{Inotify, KNOWN};
use crate::fs::perm::{self, Want};
use crate::fs::{Ctx, Flags, OpenFile};
use crate::mm::UserPtr;
use crate::process::Thread;

pub fn inotify_init1(t: &Thread, flags: u32) -> Result<i32> {
    if flags & !(raw::IN_CLOEXEC | raw::IN_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let instance = Inotify::new(t.creds().euid)?;
    let file = OpenFile::new_anon("inotify", instance, raw::O_RDONLY | flags & raw::IN_NONBLOCK);
    t.files().install(file, flags & raw::IN_CLOEXEC != 0)
}

pub async fn inotify_add_watch(t: &Thread, fd: i32, path: UserPtr<u8>, mask: u32) -> Result<i32> {
    if mask & !KNOWN != 0 || mask == 0 {
        return Err(Errno::EINVAL);
    }
    let file = t.files().get_io(fd)?;
    let both = raw::IN_MASK_ADD | raw::IN_MASK_CREATE;
    let instance = file.ops_as::<Inotify>().filter(|_| mask & both != both).ok_or(Errno::EINVAL)?;
    let mut flags = Flags::empty();
    flags.set(Flags::FOLLOW, mask & raw::IN_DONT_FOLLOW == 0);
    flags.set(Flags::DIRECTORY, mask & raw::IN_ONLYDIR != 0);
    let place = lookup_cwd(t, path, flags).await?;
    let inode = place.inode();
    let ctx = Ctx::of(t);
    perm::check(t.creds(), &**inode, Want::READ).or_else(|errno| ctx.granted(&**inode, errno))?;
    instance.watch(inode, mask)
}

pub fn inotify_rm_watch(t: &Thread, fd: i32, wd: i32) -> Result<()> {
    let file = t.files().get_io(fd)?;
    file.ops_as::<Inotify>().ok_or(Errno::EINVAL)?.remove(wd)
}
