//! name_to_handle_at, open_by_handle_at.

use alloc::sync::Arc;

use linux_raw_sys::general as raw;

use super::SysResult;
use super::fs_open::{how_of, read_path};
use super::fs_stat::at_flags;
use crate::errno::{Errno, Result};
use crate::fs::handle::{self, Handle, WORDS_MAX};
use crate::fs::mount::Mount;
use crate::fs::{self, AT_FDCWD, Ctx, open};
use crate::mm::UserPtr;
use crate::process::{Caps, Thread};

/// `struct file_handle`: handle_bytes and handle_type, then the bytes.
type Header = [u32; 2];
const HEADER: u64 = size_of::<Header>() as u64;
/// MAX_HANDLE_SZ.
const BYTES_MAX: usize = WORDS_MAX * 4;
/// What Linux answers as the type of a handle for which there is no room (FILEID_INVALID).
const INVALID: u32 = 0xff;

pub async fn name_to_handle_at(
    t: &Thread,
    dirfd: i32,
    path: UserPtr<u8>,
    to: UserPtr<Header>,
    mount_id: UserPtr<i32>,
    flags: u32,
) -> Result<()> {
    let walk = at_flags(flags, raw::AT_SYMLINK_FOLLOW | raw::AT_EMPTY_PATH)?;
    let path = read_path(t, path).await?;
    let place = fs::lookup(Ctx::of(t), dirfd, &path, walk).await?;
    let handle = place.inode().handle().ok_or(Errno::EOPNOTSUPP)?;
    let [room, _] = to.read(t.mm()).await?;
    if room as usize > BYTES_MAX {
        return Err(Errno::EINVAL);
    }
    let bytes = handle.words.len() as u32 * 4;
    mount_id.write(t.mm(), place.mount.id() as i32).await?;
    if bytes > room {
        to.write(t.mm(), [bytes, INVALID]).await?;
        return Err(Errno::EOVERFLOW);
    }
    to.byte_add(HEADER).cast().write_slice(t.mm(), &handle.words).await?;
    to.write(t.mm(), [bytes, handle.kind as u32]).await
}

pub async fn open_by_handle_at(t: &Thread, mount_fd: i32, from: UserPtr<Header>, flags: u32) -> SysResult<i32> {
    if !t.creds().capable(Caps::DAC_READ_SEARCH) {
        return Err(Errno::EPERM.into());
    }
    let [bytes, kind] = from.read(t.mm()).await?;
    if bytes == 0 || bytes as usize > BYTES_MAX {
        return Err(Errno::EINVAL.into());
    }
    let mut words = [0; WORDS_MAX];
    let whole = bytes as usize / 4;
    let mut all = [0; BYTES_MAX];
    from.byte_add(HEADER).cast::<u8>().read_bytes(t.mm(), &mut all[..bytes as usize]).await?;
    for (word, bytes) in words.iter_mut().zip(all.as_chunks().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    let handle = Handle { kind: kind as i32, words: words.into_iter().take(whole).collect() };
    let place = handle::find(&mount_of(t, mount_fd)?, &handle).await?;
    if !t.files().has_room() {
        return Err(Errno::EMFILE.into());
    }
    let file = open::open_found(Ctx::of(t), place, how_of(flags, 0)).await?;
    Ok(t.files().install(file, flags & raw::O_CLOEXEC != 0)?)
}

fn mount_of(t: &Thread, fd: i32) -> Result<Arc<Mount>> {
    if fd == AT_FDCWD {
        return Ok(t.fs().cwd().mount);
    }
    Ok(t.files().get_io(fd)?.path().mount.clone())
}
