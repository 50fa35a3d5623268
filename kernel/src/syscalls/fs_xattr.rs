//! Extended attributes, xattr(7).

use alloc::vec::Vec;

use linux_raw_sys::general as raw;

use crate::errno::{Errno, Result};
use crate::fs::capabilities;
use crate::fs::inode_flags;
use crate::fs::inotify::hooks;
use crate::fs::perm::{self, Want};
use crate::fs::xattr::{self, Space};
use crate::fs::{FileType, Flags, Path};
use crate::mm::{UserPtr, UserStr, read_cstr};
use crate::process::{Caps, Thread};

use super::fs_open::lookup_cwd;

/// XATTR_NAME_MAX and XATTR_SIZE_MAX of linux/limits.h.
const NAME_MAX: usize = 255;
const SIZE_MAX: usize = 65536;

async fn read_name(t: &Thread, name: UserPtr<u8>) -> Result<UserStr> {
    match read_cstr(t.mm(), name.addr(), NAME_MAX + 1).await {
        Ok(name) if name.is_empty() => Err(Errno::ERANGE),
        Err(Errno::ENAMETOOLONG) => Err(Errno::ERANGE),
        other => other,
    }
}

/// Who may read or change attributes of which kind.
fn check(t: &Thread, path: &Path, name: &[u8], write: bool) -> Result<()> {
    if write {
        inode_flags::check_bound(&**path.inode())?;
    }
    let meta = path.inode().metadata();
    let privileged = t.creds().capable(Caps::SYS_ADMIN);
    match xattr::split(name) {
        Some((Space::Security, _)) if name == capabilities::NAME => {
            let may = !write || t.creds().capable(Caps::SETFCAP);
            return if may { Ok(()) } else { Err(Errno::EPERM) };
        }
        Some((Space::Security, _)) => return if privileged || !write { Ok(()) } else { Err(Errno::EPERM) },
        // POSIX ACLs, as on a mount without them.
        Some((Space::System, _)) => return Err(Errno::EOPNOTSUPP),
        Some((Space::Trusted, _)) if privileged => return Ok(()),
        Some((Space::Trusted, _)) => return Err(if write { Errno::EPERM } else { Errno::ENODATA }),
        Some((Space::User, _)) => {
            if !matches!(meta.kind, FileType::Regular | FileType::Directory) {
                return Err(if write { Errno::EPERM } else { Errno::ENODATA });
            }
            let sticky = meta.kind == FileType::Directory && meta.perm & 0o1000 != 0;
            if write && sticky && !perm::is_owner(t.creds(), &meta) {
                return Err(Errno::EPERM);
            }
        }
        None => {}
    }
    perm::check(t.creds(), &**path.inode(), if write { Want::WRITE } else { Want::READ })
}

/// Copies an answer out: its length alone if the buffer has size 0; ERANGE if it is too small.
async fn answer(t: &Thread, bytes: Vec<u8>, buf: UserPtr<u8>, size: u64) -> Result<usize> {
    if size == 0 {
        return Ok(bytes.len());
    }
    if bytes.len() as u64 > size {
        return Err(Errno::ERANGE);
    }
    buf.write_bytes(t.mm(), &bytes).await?;
    Ok(bytes.len())
}

pub(crate) async fn set(
    t: &Thread,
    path: &Path,
    name: UserPtr<u8>,
    value: UserPtr<u8>,
    size: u64,
    flags: u32,
) -> Result<()> {
    let _writing = path.mount.writing().await?;
    if flags & !(raw::XATTR_CREATE | raw::XATTR_REPLACE) != 0 {
        return Err(Errno::EINVAL);
    }
    let name = read_name(t, name).await?;
    if size > SIZE_MAX as u64 {
        return Err(Errno::E2BIG);
    }
    let value = value.read_slice(t.mm(), size as usize, SIZE_MAX).await?;
    let gives_capabilities = *name == *capabilities::NAME;
    if gives_capabilities && !value.is_empty() {
        capabilities::check_new(&value)?;
    }
    check(t, path, &name, true)?;
    let _guard = path.inode().state().lock.lock().await;
    if gives_capabilities {
        path.inode().state().set_no_capabilities(false);
    }
    path.inode().set_xattr(&name, &value, flags).await?;
    hooks::changed(path, raw::IN_ATTRIB);
    Ok(())
}

pub(crate) async fn get(t: &Thread, path: &Path, name: UserPtr<u8>, buf: UserPtr<u8>, size: u64) -> Result<usize> {
    let name = read_name(t, name).await?;
    check(t, path, &name, false)?;
    let value = path.inode().get_xattr(&name).await?;
    let value = if *name == *capabilities::NAME { capabilities::shown(value)? } else { value };
    answer(t, value, buf, size).await
}

async fn list(t: &Thread, path: &Path, buf: UserPtr<u8>, size: u64) -> Result<usize> {
    let names = match path.inode().list_xattr().await {
        Err(Errno::EOPNOTSUPP) => Vec::new(),
        names => names?,
    };
    let privileged = t.creds().capable(Caps::SYS_ADMIN);
    let mut shown = Vec::new();
    for name in names.split_inclusive(|byte| *byte == 0).filter(|name| privileged || !name.starts_with(b"trusted.")) {
        shown.extend_from_slice(name);
    }
    answer(t, shown, buf, size).await
}

async fn remove(t: &Thread, path: &Path, name: UserPtr<u8>) -> Result<()> {
    let _writing = path.mount.writing().await?;
    let name = read_name(t, name).await?;
    check(t, path, &name, true)?;
    let _guard = path.inode().state().lock.lock().await;
    path.inode().remove_xattr(&name).await?;
    hooks::changed(path, raw::IN_ATTRIB);
    Ok(())
}

pub async fn setxattr(
    t: &Thread,
    path: UserPtr<u8>,
    name: UserPtr<u8>,
    value: UserPtr<u8>,
    size: u64,
    flags: u32,
) -> Result<()> {
    set(t, &lookup_cwd(t, path, Flags::FOLLOW).await?, name, value, size, flags).await
}

pub async fn lsetxattr(
    t: &Thread,
    path: UserPtr<u8>,
    name: UserPtr<u8>,
    value: UserPtr<u8>,
    size: u64,
    flags: u32,
) -> Result<()> {
    set(t, &lookup_cwd(t, path, Flags::empty()).await?, name, value, size, flags).await
}

pub async fn fsetxattr(
    t: &Thread,
    fd: i32,
    name: UserPtr<u8>,
    value: UserPtr<u8>,
    size: u64,
    flags: u32,
) -> Result<()> {
    set(t, t.files().get_io(fd)?.path(), name, value, size, flags).await
}

pub async fn getxattr(t: &Thread, path: UserPtr<u8>, name: UserPtr<u8>, buf: UserPtr<u8>, size: u64) -> Result<usize> {
    get(t, &lookup_cwd(t, path, Flags::FOLLOW).await?, name, buf, size).await
}

pub async fn lgetxattr(t: &Thread, path: UserPtr<u8>, name: UserPtr<u8>, buf: UserPtr<u8>, size: u64) -> Result<usize> {
    get(t, &lookup_cwd(t, path, Flags::empty()).await?, name, buf, size).await
}

pub async fn fgetxattr(t: &Thread, fd: i32, name: UserPtr<u8>, buf: UserPtr<u8>, size: u64) -> Result<usize> {
    get(t, t.files().get_io(fd)?.path(), name, buf, size).await
}

pub async fn listxattr(t: &Thread, path: UserPtr<u8>, buf: UserPtr<u8>, size: u64) -> Result<usize> {
    list(t, &lookup_cwd(t, path, Flags::FOLLOW).await?, buf, size).await
}

pub async fn llistxattr(t: &Thread, path: UserPtr<u8>, buf: UserPtr<u8>, size: u64) -> Result<usize> {
    list(t, &lookup_cwd(t, path, Flags::empty()).await?, buf, size).await
}

pub async fn flistxattr(t: &Thread, fd: i32, buf: UserPtr<u8>, size: u64) -> Result<usize> {
    list(t, t.files().get_io(fd)?.path(), buf, size).await
}

pub async fn removexattr(t: &Thread, path: UserPtr<u8>, name: UserPtr<u8>) -> Result<()> {
    remove(t, &lookup_cwd(t, path, Flags::FOLLOW).await?, name).await
}

pub async fn lremovexattr(t: &Thread, path: UserPtr<u8>, name: UserPtr<u8>) -> Result<()> {
    remove(t, &lookup_cwd(t, path, Flags::empty()).await?, name).await
}

pub async fn fremovexattr(t: &Thread, fd: i32, name: UserPtr<u8>) -> Result<()> {
    remove(t, t.files().get_io(fd)?.path(), name).await
}
