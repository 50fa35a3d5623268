//! Copies of what is about to be changed.
//!
//! A copy is made in the work directory, with content, attributes and times, stored, and then moved to its place in one
//! step: nobody sees half of it, now or after a crash. Parents are copied before; those that are there stay as they are.

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use super::inode::OverlayInode;
use super::work::locked_child;
use super::{OverlayFs, Upper};
use crate::errno::{Errno, Result};
use crate::exec::budget;
use crate::fs::dentry::Dentry;
use crate::fs::inode::{FileType, Inode, Metadata, NewAttr, NewNode, RenameFlags, SetAttr};
use crate::fs::inode_flags::InodeFlags;
use crate::fs::names::Name;
use crate::fs::perm::{self, Want};
use crate::fs::regular;
use crate::fs::xattr::{self, Space};
use crate::mm::{IoBuf, PageCache};

/// How much is copied at once.
const PIECE: usize = 64 * 1024;

impl OverlayInode {
    /// Makes sure that it is in the upper layer.
    pub async fn copy_up(self: &Arc<Self>) -> Result<()> {
        self.copy_up_to(u64::MAX).await
    }

    /// The same; of the content only so much.
    pub async fn copy_up_to(self: &Arc<Self>, size: u64) -> Result<()> {
        if self.upper().is_some() {
            return Ok(());
        }
        let fs = self.instance()?;
        let upper = fs.writable()?;
        let mut missing = vec![self.clone()];
        while let Some(parent) = missing.last().and_then(|inode| inode.parent()).filter(|dir| dir.upper().is_none()) {
            missing.push(parent);
        }
        while let Some(inode) = missing.pop() {
            let _lock = inode.lock.lock().await;
            if inode.upper().is_none() {
                fs.copy_up_locked(upper, &inode, size).await?;
            }
        }
        Ok(())
    }
}

impl OverlayFs {
    async fn copy_up_locked(&self, upper: &Upper, inode: &Arc<OverlayInode>, size: u64) -> Result<()> {
        let (parent, name) = inode.parent_and_name().ok_or(Errno::ESTALE)?;
        if inode.is_removed() {
            // The name is a whiteout's. So Linux says it, too.
            return Err(Errno::EEXIST);
        }
        let to = parent.upper_now()?;
        perm::check(&self.mounter, &**inode.real(), Want::READ)?;
        inode.real().refresh().await?;
        let meta = inode.real().metadata();
        let made = self.make_copy(upper, inode, &meta, size).await?;
        let installed = self.install_copy(upper, inode, &made, &parent, Name { dir: to, name: &name }).await;
        if installed.is_err() {
            upper.work.discard(&made).await;
            return installed;
        }
        let key = made.inode().clone();
        inode.vfs_state().set_flags(inode.real().obeyed_flags() & InodeFlags::BINDING);
        inode.set_upper(made);
        self.table.insert(&key, inode.clone());
        Ok(())
    }

    async fn install_copy(
        &self,
        upper: &Upper,
        inode: &OverlayInode,
        made: &Arc<Dentry>,
        parent: &OverlayInode,
        to: Name<'_>,
    ) -> Result<()> {
        if inode.lower_number().is_some() {
            self.make_impure(parent).await?;
        }
        let dir = to.dir.inode();
        let before = dir.metadata();
        upper.work.install(made, to, None, RenameFlags::empty()).await?;
        // Nothing has changed in the directory, as far as anybody sees.
        let times = SetAttr { atime: Some(before.atime), mtime: Some(before.mtime), ..SetAttr::default() };
        let _ = dir.set_attr(times).await;
        Ok(())
    }

    /// The whole copy, in the work directory.
    async fn make_copy(&self, upper: &Upper, inode: &OverlayInode, meta: &Metadata, size: u64) -> Result<Arc<Dentry>> {
        let text = match meta.kind {
            FileType::Symlink => inode.real().read_link().await?,
            _ => Vec::new(),
        };
        let node = match meta.kind {
            FileType::Regular => NewNode::Regular,
            FileType::Directory => NewNode::Directory,
            FileType::Symlink => NewNode::Symlink(&text),
            FileType::CharDevice => NewNode::CharDevice(meta.rdev),
            FileType::BlockDevice => NewNode::BlockDevice(meta.rdev),
            FileType::Fifo => NewNode::Fifo,
            FileType::Socket => NewNode::Socket,
        };
        let made = upper.work.make(node, NewAttr { perm: meta.perm, uid: meta.uid, gid: meta.gid }).await?;
        match self.fill_copy(inode, meta, &made, size).await {
            Ok(()) => Ok(made),
            Err(errno) => {
                upper.work.discard(&made).await;
                Err(errno)
            }
        }
    }

    async fn fill_copy(&self, inode: &OverlayInode, meta: &Metadata, made: &Arc<Dentry>, size: u64) -> Result<()> {
        let (from, to) = (inode.real(), made.inode());
        self.copy_attributes(from, to).await?;
        if let Some(number) = inode.lower_number() {
            self.set_origin(made, number).await?;
        }
        self.copy_flags(from, made).await?;
        if meta.kind == FileType::Regular
            && let (Some(source), Some(sink)) = (from.page_cache(), to.page_cache())
        {
            copy_content(from, source, to, sink, size.min(meta.size)).await?;
        }
        let (uid, gid, perm) = (Some(meta.uid), Some(meta.gid), Some(meta.perm));
        let (atime, mtime) = (Some(meta.atime), Some(meta.mtime));
        let perm = perm.filter(|_| meta.kind != FileType::Symlink);
        to.set_attr(SetAttr { perm, uid, gid, atime, mtime, ctime: Some(crate::fs::now()), size: None }).await?;
        if let Some(cache) = to.page_cache() {
            cache.write_back(0..u64::MAX).await?;
        }
        if meta.kind == FileType::Regular { to.sync(false).await } else { Ok(()) }
    }

    /// The copy itself is not bound: that would be in the way of the overlay.
    async fn copy_flags(&self, from: &Arc<dyn Inode>, made: &Arc<Dentry>) -> Result<()> {
        let flags = from.obeyed_flags();
        self.set_bound(made, flags & InodeFlags::BINDING).await?;
        let copied = flags & (InodeFlags::SYNC | InodeFlags::NOATIME);
        let to = made.inode();
        if let Some(own) = to.flags().filter(|_| !copied.is_empty()) {
            let _guard = to.state().lock.lock().await;
            match to.set_flags(own | copied.bits()).await {
                Err(Errno::EOPNOTSUPP) => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Extended attributes but for the overlay's own. Those of users stay behind where the upper layer has none.
    async fn copy_attributes(&self, from: &Arc<dyn Inode>, to: &Arc<dyn Inode>) -> Result<()> {
        let names = match from.list_xattr().await {
            Err(Errno::EOPNOTSUPP) => return Ok(()),
            names => names?,
        };
        for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty() && !self.is_private(name)) {
            let value = match from.get_xattr(name).await {
                Err(Errno::ENODATA) => continue,
                value => value?,
            };
            let _guard = to.state().lock.lock().await;
            to.state().set_no_capabilities(false);
            match to.set_xattr(name, &value, 0).await {
                Err(Errno::EOPNOTSUPP) if !matches!(xattr::split(name), Some((Space::Security, _))) => {}
                result => result?,
            }
        }
        Ok(())
    }
}

/// Copies so many bytes; holes stay holes.
async fn copy_content(
    from: &Arc<dyn Inode>,
    source: &Arc<PageCache>,
    to: &Arc<dyn Inode>,
    sink: &Arc<PageCache>,
    size: u64,
) -> Result<()> {
    if !source.is_memory() {
        // What is only in memory may have no place on the device yet, and look like a hole.
        source.write_back(0..u64::MAX).await?;
    }
    let mut piece = Vec::new();
    piece.try_reserve_exact(PIECE).map_err(|_| Errno::ENOMEM)?;
    piece.resize(PIECE, 0);
    let _guard = to.state().lock.lock().await;
    let mut at = 0;
    while at < size {
        let Some(data) = from.next_data(at).await? else { break };
        at = at.max(data.start);
        let end = data.end.min(size);
        while at < end {
            let len = PIECE.min((end - at) as usize);
            let Some(room) = piece.get_mut(..len) else { break };
            let mut room = IoBuf::kernel_mut(room);
            let n = match source.is_of_shared_file() {
                true => from.read_through(at, &mut room).await?,
                false => source.read(at, size, &mut room).await?,
            };
            let mut left = IoBuf::kernel(piece.get(..n).unwrap_or(&[]));
            if left.is_empty() {
                return Err(Errno::EIO);
            }
            while !left.is_empty() {
                match regular::write_step(to, sink, at, &mut left, true).await? {
                    0 => return Err(Errno::EIO),
                    n => at += n as u64,
                }
            }
            budget().await;
        }
    }
    if to.size() < size {
        to.set_attr(SetAttr { size: Some(size), ..SetAttr::default() }).await?;
    }
    Ok(())
}

/// What is at a name in the upper layer, for the mounter, who may change it.
pub async fn upper_child(fs: &OverlayFs, dir: &Arc<Dentry>, name: &[u8]) -> Result<Option<Arc<Dentry>>> {
    perm::check(&fs.mounter, &**dir.inode(), Want::WRITE | Want::EXEC)?;
    let _guard = dir.inode().state().lock.lock().await;
    locked_child(dir, name).await
}
