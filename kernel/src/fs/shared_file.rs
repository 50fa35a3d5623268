//! Regular files that others than this kernel change: what is written goes to where they are stored at once.

use linux_raw_sys::general as raw;

use super::attr::without_set_id;
use super::inode::SetAttr;
use super::inotify::hooks;
use super::open_file::OpenFile;
use super::regular::{check_place, clears_set_id, room_at};
use crate::errno::Result;
use crate::mm::IoBuf;
use crate::process::Thread;

/// As [`super::regular::write`].
pub async fn write(file: &OpenFile, t: &Thread, pos: Option<u64>, buf: &mut IoBuf<'_>) -> Result<(usize, u64)> {
    let inode = file.inode();
    let guard = inode.state().lock.lock().await;
    let pos = match pos {
        Some(pos) => pos,
        None => {
            inode.refresh().await?;
            inode.size()
        }
    };
    check_place(file, pos, buf)?;
    if buf.is_empty() {
        return Ok((0, pos));
    }
    buf.limit(usize::try_from(room_at(t, pos)?).unwrap_or(usize::MAX));
    if clears_set_id(inode, t) {
        let perm = without_set_id(&inode.metadata());
        inode.set_attr(SetAttr { perm, ctime: Some(super::now()), ..SetAttr::default() }).await?;
        hooks::changed(file.path(), raw::IN_ATTRIB);
    }
    let written = inode.write_through(pos, buf).await?;
    drop(guard);
    if file.flags() & (raw::O_SYNC | raw::O_DSYNC) != 0 {
        inode.sync(file.flags() & raw::O_SYNC != raw::O_SYNC).await?;
    }
    Ok((written, pos + written as u64))
}
