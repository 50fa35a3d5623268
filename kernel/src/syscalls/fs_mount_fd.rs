//! Mounting by descriptors: fsopen, fsconfig, fsmount, fspick, move_mount, open_tree, mount_setattr.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as raw;

use super::fs_mount::{device_of, propagation_type};
use super::fs_open::read_path;
use crate::errno::{Errno, Result};
use crate::fs::configure::Configuration;
use crate::fs::mount::Type;
use crate::fs::open::open_path;
use crate::fs::{self, AT_FDCWD, Ctx, Flags, Mount, MountFlags, OpenFile, Path, mount as table};
use crate::mm::{PAGE_SIZE, UserPtr, UserStr, read_cstr};
use crate::process::{Caps, Thread};

const ATIME: u32 = raw::MOUNT_ATTR__ATIME;
/// MOUNT_ATTR_* but for MOUNT_ATTR_IDMAP, by what they are here. Those of access times are one value.
const ATTRIBUTES: [(u32, MountFlags); 6] = [
    (raw::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
    (raw::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
    (raw::MOUNT_ATTR_NODEV, MountFlags::NODEV),
    (raw::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
    (raw::MOUNT_ATTR_NODIRATIME, MountFlags::NODIRATIME),
    (raw::MOUNT_ATTR_NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
];

fn may_mount(t: &Thread) -> Result<()> {
    if t.creds().capable(Caps::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

/// A string of less than `size` bytes; EINVAL if it is longer.
async fn read_text(t: &Thread, text: UserPtr<u8>, size: usize) -> Result<UserStr> {
    read_cstr(t.mm(), text.addr(), size).await.map_err(|errno| match errno {
        Errno::ENAMETOOLONG => Errno::EINVAL,
        other => other,
    })
}

/// The flags for attributes; EINVAL for unknown ones.
fn flags_of(attributes: u32) -> Result<MountFlags> {
    let mut flags = atime_flags(attributes)?;
    let mut left = attributes & !ATIME;
    for (attribute, flag) in ATTRIBUTES {
        flags.set(flag, attributes & attribute != 0);
        left &= !attribute;
    }
    if left == 0 { Ok(flags) } else { Err(Errno::EINVAL) }
}

fn atime_flags(attributes: u32) -> Result<MountFlags> {
    match attributes & ATIME {
        raw::MOUNT_ATTR_RELATIME => Ok(MountFlags::RELATIME),
        raw::MOUNT_ATTR_NOATIME => Ok(MountFlags::NOATIME),
        raw::MOUNT_ATTR_STRICTATIME => Ok(MountFlags::STRICTATIME),
        _ => Err(Errno::EINVAL),
    }
}

fn walk_flags(follow: bool, empty: bool) -> Flags {
    let mut walk = Flags::empty();
    walk.set(Flags::FOLLOW, follow);
    walk.set(Flags::EMPTY, empty);
    walk
}

async fn find(t: &Thread, dirfd: i32, path: UserPtr<u8>, walk: Flags) -> Result<Path> {
    let path = read_path(t, path).await?;
    fs::lookup(Ctx::of(t), dirfd, &path, walk).await
}

fn configuration(t: &Thread, fd: i32) -> Result<Arc<OpenFile>> {
    let file = t.files().get_io(fd)?;
    if file.ops_as::<Configuration>().is_some() { Ok(file.clone()) } else { Err(Errno::EINVAL) }
}

fn install(t: &Thread, configuration: Arc<Configuration>, cloexec: bool) -> Result<i32> {
    t.files().install(OpenFile::new_anon("[fscontext]", configuration, raw::O_RDWR), cloexec)
}

pub async fn fsopen(t: &Thread, name: UserPtr<u8>, flags: u32) -> Result<i32> {
    may_mount(t)?;
    if flags & !raw::FSOPEN_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let name = read_text(t, name, PAGE_SIZE).await?;
    install(t, Configuration::create(&name)?, flags != 0)
}

pub async fn fspick(t: &Thread, dirfd: i32, path: UserPtr<u8>, flags: u32) -> Result<i32> {
    const KNOWN: u32 =
        raw::FSPICK_CLOEXEC | raw::FSPICK_SYMLINK_NOFOLLOW | raw::FSPICK_NO_AUTOMOUNT | raw::FSPICK_EMPTY_PATH;
    may_mount(t)?;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let walk = walk_flags(flags & raw::FSPICK_SYMLINK_NOFOLLOW == 0, flags & raw::FSPICK_EMPTY_PATH != 0);
    let at = find(t, dirfd, path, walk).await?;
    if !Arc::ptr_eq(&at.dentry, at.mount.root()) {
        return Err(Errno::EINVAL);
    }
    install(t, Configuration::pick(at.mount.instance().clone())?, flags & raw::FSPICK_CLOEXEC != 0)
}

/// What a command of fsconfig(2) wants of its other arguments.
fn check_arguments(command: u32, key: bool, value: bool, aux: i32) -> Result<()> {
    use raw::fsconfig_command as config;
    const BINARY_MAX: i32 = 1 << 20;
    let sound = match command {
        c if c == config::FSCONFIG_SET_FLAG as u32 => key && !value && aux == 0,
        c if c == config::FSCONFIG_SET_STRING as u32 => key && value && aux == 0,
        c if c == config::FSCONFIG_SET_BINARY as u32 => key && value && (1..=BINARY_MAX).contains(&aux),
        c if c == config::FSCONFIG_SET_PATH as u32 || c == config::FSCONFIG_SET_PATH_EMPTY as u32 => {
            key && value && (aux == AT_FDCWD || aux >= 0)
        }
        c if c == config::FSCONFIG_SET_FD as u32 => key && !value && aux >= 0,
        c if c == config::FSCONFIG_CMD_CREATE as u32 || c == config::FSCONFIG_CMD_RECONFIGURE as u32 => {
            !key && !value && aux == 0
        }
        _ => return Err(Errno::EOPNOTSUPP),
    };
    if sound { Ok(()) } else { Err(Errno::EINVAL) }
}

pub async fn fsconfig(t: &Thread, fd: i32, command: u32, key: UserPtr<u8>, value: UserPtr<u8>, aux: i32) -> Result<()> {
    use raw::fsconfig_command as config;
    const KEY_MAX: usize = 256;
    if fd < 0 {
        return Err(Errno::EINVAL);
    }
    check_arguments(command, key.non_null().is_some(), value.non_null().is_some(), aux)?;
    let file = configuration(t, fd)?;
    let configuration = file.ops_as::<Configuration>().ok_or(Errno::EINVAL)?;
    if command == config::FSCONFIG_CMD_CREATE as u32 {
        may_mount(t)?;
        return configuration.make(Ctx::of(t), async |source: &[u8]| device_of(t, source).await).await;
    }
    if command == config::FSCONFIG_CMD_RECONFIGURE as u32 {
        may_mount(t)?;
        return configuration.change().await;
    }
    let key = read_text(t, key, KEY_MAX).await?;
    if command == config::FSCONFIG_SET_FLAG as u32 {
        return configuration.set(&key, None).await;
    }
    if command == config::FSCONFIG_SET_STRING as u32 {
        let value = read_text(t, value, KEY_MAX).await?;
        return configuration.set(&key, Some(&value)).await;
    }
    Err(configuration.refuse_other())
}

pub async fn fsmount(t: &Thread, fd: i32, flags: u32, attributes: u32) -> Result<i32> {
    may_mount(t)?;
    if flags & !raw::FSMOUNT_CLOEXEC != 0 {
        return Err(Errno::EINVAL);
    }
    let mount_flags = flags_of(attributes)?;
    let file = configuration(t, fd)?;
    let configuration = file.ops_as::<Configuration>().ok_or(Errno::EINVAL)?;
    let mount = table::detached(configuration.take().await?, mount_flags);
    t.files().install(open_tree_file(mount), flags & raw::FSMOUNT_CLOEXEC != 0)
}

/// The descriptor that a detached tree belongs to.
fn open_tree_file(mount: Arc<Mount>) -> Arc<OpenFile> {
    let dentry = mount.root().clone();
    open_path(Path { mount, dentry }, true)
}

pub async fn move_mount(
    t: &Thread,
    from_fd: i32,
    from: UserPtr<u8>,
    to_fd: i32,
    to: UserPtr<u8>,
    flags: u32,
) -> Result<()> {
    const KNOWN: u32 = raw::MOVE_MOUNT__MASK;
    may_mount(t)?;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let has = |flag: u32| flags & flag != 0;
    let walk = walk_flags(has(raw::MOVE_MOUNT_F_SYMLINKS), has(raw::MOVE_MOUNT_F_EMPTY_PATH));
    let from = find(t, from_fd, from, walk).await?;
    let walk = walk_flags(has(raw::MOVE_MOUNT_T_SYMLINKS), has(raw::MOVE_MOUNT_T_EMPTY_PATH));
    let to = find(t, to_fd, to, walk).await?;
    if has(raw::MOVE_MOUNT_SET_GROUP) {
        // There are no groups of mounts that share what happens to them.
        return Err(Errno::EINVAL);
    }
    table::move_mount(&from, to).await
}

pub async fn open_tree(t: &Thread, dirfd: i32, path: UserPtr<u8>, flags: u32) -> Result<i32> {
    const PATH_FLAGS: u32 = raw::AT_EMPTY_PATH | raw::AT_NO_AUTOMOUNT | raw::AT_RECURSIVE | raw::AT_SYMLINK_NOFOLLOW;
    let (clone, recursive) = (flags & raw::OPEN_TREE_CLONE != 0, flags & raw::AT_RECURSIVE != 0);
    if flags & !(PATH_FLAGS | raw::OPEN_TREE_CLONE | raw::OPEN_TREE_CLOEXEC) != 0 || recursive && !clone {
        return Err(Errno::EINVAL);
    }
    if clone {
        may_mount(t)?;
    }
    let walk = walk_flags(flags & raw::AT_SYMLINK_NOFOLLOW == 0, flags & raw::AT_EMPTY_PATH != 0);
    let at = find(t, dirfd, path, walk).await?;
    let file = if clone { open_tree_file(table::copy_tree(&at, recursive).await?) } else { open_path(at, false) };
    t.files().install(file, flags & raw::OPEN_TREE_CLOEXEC != 0)
}

/// A change of the flags of mounts.
struct Change {
    set: MountFlags,
    clear: MountFlags,
    propagation: Option<Type>,
}

/// `struct mount_attr`: what to set, what to clear, the propagation; None if that is nothing.
fn decode(words: [u64; 4]) -> Result<Option<Change>> {
    let [set, clear, propagation, _] = words;
    if [set, clear, propagation] == [0; 3] {
        return Ok(None);
    }
    let [set, clear, propagation] =
        [set, clear, propagation].map(|word| u32::try_from(word).map_err(|_| Errno::EINVAL));
    let (set, clear) = (set?, clear?);
    let propagation = Some(propagation?).filter(|kinds| *kinds != 0).map(propagation_type).transpose()?;
    let mut change = Change { set: flags_of(set & !ATIME)?, clear: flags_of(clear & !ATIME)?, propagation };
    let times = MountFlags::RELATIME | MountFlags::NOATIME | MountFlags::STRICTATIME;
    change.set -= times;
    change.clear -= times;
    match clear & ATIME {
        0 if set & ATIME != 0 => return Err(Errno::EINVAL),
        0 => {}
        ATIME => {
            change.clear |= times;
            change.set |= atime_flags(set)?;
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(Some(change))
}

pub async fn mount_setattr(
    t: &Thread,
    dirfd: i32,
    path: UserPtr<u8>,
    flags: u32,
    attr: UserPtr<u8>,
    size: u64,
) -> Result<()> {
    const KNOWN: u32 = raw::AT_EMPTY_PATH | raw::AT_RECURSIVE | raw::AT_SYMLINK_NOFOLLOW | raw::AT_NO_AUTOMOUNT;
    if flags & !KNOWN != 0 {
        return Err(Errno::EINVAL);
    }
    let words = read_attr(t, attr, size).await?;
    let Some(change) = decode(words)? else { return Ok(()) };
    let walk = walk_flags(flags & raw::AT_SYMLINK_NOFOLLOW == 0, flags & raw::AT_EMPTY_PATH != 0);
    let at = find(t, dirfd, path, walk).await?;
    table::change_flags(&at, flags & raw::AT_RECURSIVE != 0, change.set, change.clear, change.propagation).await
}

/// Reads a `struct mount_attr`, whose later versions may be longer.
async fn read_attr(t: &Thread, attr: UserPtr<u8>, size: u64) -> Result<[u64; 4]> {
    const SIZE: usize = 32;
    let size = usize::try_from(size).map_err(|_| Errno::E2BIG)?;
    if size > PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    if size < SIZE {
        return Err(Errno::EINVAL);
    }
    may_mount(t)?;
    let bytes: Vec<u8> = attr.read_slice(t.mm(), size, PAGE_SIZE).await?;
    let (known, later) = bytes.split_at_checked(SIZE).ok_or(Errno::EINVAL)?;
    if later.iter().any(|&byte| byte != 0) {
        return Err(Errno::E2BIG);
    }
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(known.chunks_exact(8)) {
        *word = bytes.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
    }
    Ok(words)
}
