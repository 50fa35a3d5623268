//! mount, umount2, pivot_root.

use alloc::vec::Vec;

use linux_raw_sys::general as raw;

use super::fs_open::{lookup_cwd, read_path};
use crate::errno::{Errno, Result};
use crate::fs::mount::{self as table, Manner, Type};
use crate::fs::{self, AT_FDCWD, Ctx, Flags, MountFlags, MountRequest, Path, configure};
use crate::mm::{PAGE_SIZE, UserPtr};
use crate::process::{Caps, Thread};

/// Flags that concern the mount, not the file system.
fn mount_flags(flags: u32) -> MountFlags {
    let mut mount = MountFlags::from_bits_truncate(flags);
    // MS_RELATIME is the default (mount(2)).
    if !mount.intersects(MountFlags::NOATIME | MountFlags::STRICTATIME) {
        mount |= MountFlags::RELATIME;
    }
    mount
}

/// The options page: up to a page, without what follows its NUL.
async fn read_data(t: &Thread, data: UserPtr<u8>) -> Result<Vec<u8>> {
    match data.non_null() {
        None => Ok(Vec::new()),
        Some(data) => match crate::mm::read_cstr(t.mm(), data.addr(), PAGE_SIZE).await {
            Ok(text) => Ok(text.to_vec()),
            // It need not end: then what there is up to the end of memory counts (mount(2) copies a page at most).
            Err(Errno::EFAULT) => {
                let mut text = alloc::vec![0; PAGE_SIZE - data.addr() as usize % PAGE_SIZE];
                data.read_bytes(t.mm(), &mut text).await?;
                Ok(text)
            }
            Err(errno) => Err(errno),
        },
    }
}

pub async fn mount(
    t: &Thread,
    source: UserPtr<u8>,
    target: UserPtr<u8>,
    fs_type: UserPtr<u8>,
    flags: u64,
    data: UserPtr<u8>,
) -> Result<()> {
    let mut flags = flags as u32;
    // The magic number that old programs put into the upper half.
    if flags & 0xffff_0000 == 0xc0ed_0000 {
        flags &= 0xffff;
    }
    let at = lookup_cwd(t, target, Flags::FOLLOW).await?;
    if !t.creds().capable(Caps::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    if flags & raw::MS_REMOUNT != 0 {
        let data = read_data(t, data).await?;
        return remount(&at, flags, &data).await;
    }
    if flags & raw::MS_BIND != 0 {
        let from = lookup_cwd(t, source, Flags::FOLLOW).await?;
        return table::bind(&from, at, flags & raw::MS_REC != 0).await;
    }
    if flags & (raw::MS_SHARED | raw::MS_PRIVATE | raw::MS_SLAVE | raw::MS_UNBINDABLE) != 0 {
        return change_type(&at, flags).await;
    }
    if flags & raw::MS_MOVE != 0 {
        let from = lookup_cwd(t, source, Flags::FOLLOW).await?;
        return table::move_mount(&from, at).await;
    }
    let fs_type = read_path(t, fs_type.non_null().ok_or(Errno::EINVAL)?).await?;
    let source = match source.non_null() {
        Some(source) => read_path(t, source).await?,
        None => Default::default(),
    };
    let mut data = read_data(t, data).await?;
    if fs::needs_device(&fs_type) {
        say_syncs(&mut data, flags, b"");
    }
    let device = device_of(t, &source).await;
    let request = MountRequest {
        source: &source,
        device: device.unwrap_or(None),
        read_only: flags & raw::MS_RDONLY != 0,
        data: &data,
        ctx: Ctx::of(t),
    };
    let read_only = request.read_only;
    let fs = fs::new_instance(&fs_type, request).await.map_err(|errno| match device {
        // A device was wanted, and there is not even a file.
        Err(missing) if errno == Errno::ENOTBLK => missing,
        _ => errno,
    })?;
    let instance = table::take_up(fs, read_only).await?;
    table::mount(instance, at, mount_flags(flags)).await
}

/// Puts MS_SYNCHRONOUS and MS_DIRSYNC in front of the options of a file system on a device, as what they are called there;
/// `otherwise` is what is said without the first.
fn say_syncs(data: &mut Vec<u8>, flags: u32, otherwise: &[u8]) {
    let first = if flags & raw::MS_SYNCHRONOUS != 0 { &b"sync,"[..] } else { otherwise };
    let second = if flags & raw::MS_DIRSYNC != 0 { &b"dirsync,"[..] } else { b"" };
    data.splice(0..0, [first, second].concat());
}

/// The block device that a source names, if it is one; an error if it names nothing, and EACCES if devices do not count
/// where it is.
pub(super) async fn device_of(t: &Thread, source: &[u8]) -> Result<Option<fs::DeviceId>> {
    let place = fs::lookup(Ctx::of(t), AT_FDCWD, source, Flags::FOLLOW).await?;
    let meta = place.inode().metadata();
    match meta.kind {
        fs::FileType::BlockDevice if place.mount.flags().contains(MountFlags::NODEV) => Err(Errno::EACCES),
        fs::FileType::BlockDevice => Ok(Some(meta.rdev)),
        _ => Ok(None),
    }
}

/// What says when access times are kept.
const TIMES: MountFlags =
    MountFlags::NOATIME.union(MountFlags::NODIRATIME).union(MountFlags::RELATIME).union(MountFlags::STRICTATIME);

/// MS_REMOUNT: with MS_BIND it changes this mount only, without it the file system, too.
async fn remount(at: &Path, flags: u32, data: &[u8]) -> Result<()> {
    if !alloc::sync::Arc::ptr_eq(&at.dentry, at.mount.root()) {
        return Err(Errno::EINVAL);
    }
    let new = mount_flags(flags);
    let keeps_times = !MountFlags::from_bits_truncate(flags).intersects(TIMES);
    let (set, kept) = if keeps_times { (new.difference(TIMES), TIMES) } else { (new, MountFlags::empty()) };
    if flags & raw::MS_BIND != 0 {
        return table::change_flags(at, false, set, kept.complement(), None).await;
    }
    let read_only = new.contains(MountFlags::RDONLY);
    let mut data = data.to_vec();
    if fs::needs_device(at.mount.fs().type_name().as_bytes()) {
        // Whether changes of names are stored at once stays as it is.
        say_syncs(&mut data, flags & !raw::MS_DIRSYNC, b"async,");
    }
    let change = async || table::replace_flags(&at.mount, |old| old.intersection(kept) | set).await;
    configure::reconfigure(at.mount.instance(), Some(read_only), &data, change).await
}

/// Unmounting the root means making its file system read-only (`do_umount_root` in Linux).
async fn unmount_root(at: &Path) -> Result<()> {
    configure::reconfigure(at.mount.instance(), Some(true), b"", async || ()).await
}

/// The type of MS_SHARED and its like; EINVAL for several, or none.
pub fn propagation_type(kinds: u32) -> Result<Type> {
    match kinds {
        raw::MS_SHARED => Ok(Type::Shared),
        raw::MS_SLAVE => Ok(Type::Slave),
        raw::MS_PRIVATE => Ok(Type::Private),
        raw::MS_UNBINDABLE => Ok(Type::Unbindable),
        _ => Err(Errno::EINVAL),
    }
}

async fn change_type(at: &Path, flags: u32) -> Result<()> {
    let new = propagation_type(flags & !(raw::MS_REC | raw::MS_SILENT))?;
    let none = MountFlags::empty();
    table::change_flags(at, flags & raw::MS_REC != 0, none, none, Some(new)).await
}

pub async fn umount2(t: &Thread, target: UserPtr<u8>, flags: u32) -> Result<()> {
    let known = raw::MNT_FORCE | raw::MNT_DETACH | raw::MNT_EXPIRE | raw::UMOUNT_NOFOLLOW;
    if flags & !known != 0 || flags & raw::MNT_EXPIRE != 0 && flags & (raw::MNT_FORCE | raw::MNT_DETACH) != 0 {
        return Err(Errno::EINVAL);
    }
    let walk = if flags & raw::UMOUNT_NOFOLLOW != 0 { Flags::empty() } else { Flags::FOLLOW };
    let at = lookup_cwd(t, target, walk).await?;
    if !t.creds().capable(Caps::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let manner = match flags & (raw::MNT_DETACH | raw::MNT_EXPIRE) {
        raw::MNT_DETACH => Manner::Lazy,
        raw::MNT_EXPIRE if at == t.fs().root() => return Err(Errno::EINVAL),
        raw::MNT_EXPIRE => Manner::Expire,
        _ => Manner::Refuse,
    };
    if at == t.fs().root() && manner != Manner::Lazy && at.mount.place().is_none() {
        return unmount_root(&at).await;
    }
    if let Some(fs) = table::unmount(&at, manner).await? {
        drop(at);
        table::end(fs).await;
    }
    Ok(())
}

pub async fn pivot_root(t: &Thread, new_root: UserPtr<u8>, put_old: UserPtr<u8>) -> Result<()> {
    if !t.creds().capable(Caps::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let walk = Flags::FOLLOW | Flags::DIRECTORY;
    let new = lookup_cwd(t, new_root, walk).await?;
    let put_old = lookup_cwd(t, put_old, walk).await?;
    let old = t.fs().root();
    table::pivot_root(&new, put_old, &old).await?;
    crate::fs::move_roots(&old, &new);
    Ok(())
}
