//! What the VFS asks of an inode.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::ops::Range;

use linux_raw_sys::general as raw;

use super::change::{self, Node};
use super::inode::{OverlayInode, own};
use super::rename::Rename;
use super::to_the_end;
use crate::errno::{Errno, Result};
use crate::fs::dentry::Name;
use crate::fs::file::FileOps;
use crate::fs::inode::{
    DeviceId, DirSink, FileSystem, FileType, Inode, Metadata, NewAttr, NewNode, RenameFlags, SetAttr,
};
use crate::fs::inode_flags::InodeFlags;
use crate::fs::op::Op;
use crate::fs::path::Path;
use crate::fs::state::InodeState;
use crate::fs::tmpfs;
use crate::mm::{IoBuf, PageCache};
use crate::process::Thread;

impl OverlayInode {
    /// EOPNOTSUPP for attributes that are the overlay's own.
    fn check_private(&self, name: &[u8]) -> Result<()> {
        if self.instance()?.is_private(name) { Err(Errno::EOPNOTSUPP) } else { Ok(()) }
    }

    async fn list_shown(&self) -> Result<Vec<u8>> {
        let fs = self.instance()?;
        let names = self.real().list_xattr().await?;
        let mut shown = Vec::new();
        for name in names.split_inclusive(|&byte| byte == 0).filter(|name| !fs.is_private(name)) {
            shown.extend_from_slice(name);
        }
        Ok(shown)
    }

    async fn set_real_xattr(self: Arc<Self>, name: Vec<u8>, value: Option<Vec<u8>>, flags: u32) -> Result<()> {
        if value.is_none() && self.upper().is_none() {
            // What is not there need not be copied to be removed.
            self.real().get_xattr(&name).await?;
        }
        self.copy_up().await?;
        let inode = self.real();
        let _guard = inode.state().lock.lock().await;
        inode.state().set_no_capabilities(false);
        match value {
            Some(value) => inode.set_xattr(&name, &value, flags).await,
            None => inode.remove_xattr(&name).await,
        }
    }

    async fn read_merged(&self, cookie: u64, sink: &mut dyn DirSink) -> Result<()> {
        let (this, fs) = (self.shared()?, self.instance()?);
        let mut listing = self.listing.lock().await;
        if cookie == 0 || listing.is_new() {
            listing.update(fs.entries(&this).await?).await;
        }
        let own = self.shown().ino;
        let parent = self.parent().map_or(own, |parent| parent.shown().ino);
        listing.read(cookie, own, parent, sink);
        Ok(())
    }
}

fn changed<T: Send + 'static>(
    change: Result<impl Future<Output = Result<T>> + Send + 'static>,
) -> Op<'static, Result<T>> {
    match change {
        Ok(change) => Op::boxed(to_the_end(change)),
        Err(errno) => Op::ready(Err(errno)),
    }
}

impl Inode for OverlayInode {
    fn metadata(&self) -> Metadata {
        self.shown()
    }

    fn fs(&self) -> Arc<dyn FileSystem> {
        match self.instance_if_any() {
            Some(fs) => fs,
            None => tmpfs::gone(),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn device(&self) -> DeviceId {
        self.shown_device()
    }

    fn state(&self) -> &InodeState {
        self.vfs_state()
    }

    /// What the layers have binds who works through the overlay, too; also what it was copied up from had.
    fn obeyed_flags(&self) -> InodeFlags {
        self.real().obeyed_flags() | self.vfs_state().flags()
    }

    fn kind(&self) -> FileType {
        self.kind_now()
    }

    fn size(&self) -> u64 {
        self.real().size()
    }

    /// The links of a lower file stay as they are.
    fn is_unlinked(&self) -> bool {
        self.is_removed() || self.real().is_unlinked()
    }

    fn set_attr(&self, attr: SetAttr) -> Op<'_, Result<()>> {
        if let Some(upper) = self.upper() {
            return upper.inode().set_attr(attr);
        }
        // Reading leaves no trace in lower layers.
        if attr.ctime.is_none() && attr.size.is_none() {
            return Op::ready(Ok(()));
        }
        changed(self.shared().map(|this| async move {
            this.copy_up_to(attr.size.unwrap_or(u64::MAX)).await?;
            this.real().set_attr(attr).await
        }))
    }

    fn grants(&self, thread: &Thread) -> bool {
        self.real().grants(thread)
    }

    fn lookup<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<Arc<dyn Inode>>> {
        Op::boxed(async move {
            let (this, fs) = (self.shared()?, self.instance()?);
            // A change that nobody waits for any more may be under way.
            let _lock = self.lock.lock().await;
            Ok(fs.find(&this, name).await? as Arc<dyn Inode>)
        })
    }

    fn create<'a>(&'a self, name: &'a [u8], node: NewNode<'a>, attr: NewAttr) -> Op<'a, Result<Arc<dyn Inode>>> {
        let parts = || Ok((self.shared()?, Node::of(node)?));
        changed(parts().map(|(this, node)| change::create(this, Name::from_slice(name), node, attr)))
    }

    fn link<'a>(&'a self, name: &'a [u8], target: &'a Arc<dyn Inode>) -> Op<'a, Result<()>> {
        let parts = || Ok((self.shared()?, own(target)?));
        changed(parts().map(|(this, target)| change::link(this, Name::from_slice(name), target)))
    }

    fn unlink<'a>(&'a self, name: &'a [u8], target: &'a Arc<dyn Inode>) -> Op<'a, Result<()>> {
        let parts = || Ok((self.shared()?, own(target)?));
        changed(parts().map(|(this, target)| change::unlink(this, Name::from_slice(name), target)))
    }

    fn rename<'a>(
        &'a self,
        old_name: &'a [u8],
        moved: &'a Arc<dyn Inode>,
        new_dir: &'a Arc<dyn Inode>,
        new_name: &'a [u8],
        replaced: Option<&'a Arc<dyn Inode>>,
        flags: RenameFlags,
    ) -> Op<'a, Result<()>> {
        let rename = || {
            let replaced = replaced.map(own).transpose()?;
            let (old_name, new_name) = (Name::from_slice(old_name), Name::from_slice(new_name));
            let (old_dir, new_dir, moved) = (self.shared()?, own(new_dir)?, own(moved)?);
            Ok(Rename { old_dir, old_name, moved, new_dir, new_name, replaced, flags }.run())
        };
        changed(rename())
    }

    fn read_dir<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Op<'a, Result<()>> {
        if !self.is_dir() {
            return Op::ready(Err(Errno::ENOTDIR));
        }
        Op::boxed(self.read_merged(cookie, sink))
    }

    fn read_link(&self) -> Op<'_, Result<Vec<u8>>> {
        self.real().read_link()
    }

    fn read_link_for(&self, thread: &Thread) -> Option<Result<Vec<u8>>> {
        self.real().read_link_for(thread)
    }

    fn magic_link(&self, thread: &Thread) -> Option<Result<Path>> {
        self.real().magic_link(thread)
    }

    fn page_cache(&self) -> Option<&Arc<PageCache>> {
        self.real().page_cache()
    }

    fn is_layered(&self) -> bool {
        true
    }

    fn prepare_write(&self, offset: u64, len: u64) -> Op<'_, Result<()>> {
        self.real().prepare_write(offset, len)
    }

    fn give_up_write(&self, bytes: Range<u64>) {
        self.real().give_up_write(bytes);
    }

    fn read_through<'a>(&'a self, pos: u64, buf: &'a mut IoBuf<'_>) -> Op<'a, Result<usize>> {
        self.real().read_through(pos, buf)
    }

    /// What is opened to be written is copied first.
    fn open<'a>(&'a self, flags: u32, thread: &'a Thread) -> Op<'a, Result<Option<Arc<dyn FileOps>>>> {
        let writes = flags & raw::O_ACCMODE != raw::O_RDONLY || flags & raw::O_TRUNC != 0;
        if self.upper().is_some() || !writes || self.kind_now() != FileType::Regular {
            return self.real().open(flags, thread);
        }
        Op::boxed(async move {
            let this = self.shared()?;
            to_the_end(async move { this.copy_up().await }).await?;
            self.real().open(flags, thread).await
        })
    }

    /// A lower layer may be read-only, and has nothing to store.
    fn sync(&self, data_only: bool) -> Op<'_, Result<()>> {
        match self.upper() {
            Some(upper) => upper.inode().sync(data_only),
            None => Op::ready(Ok(())),
        }
    }

    fn next_data(&self, offset: u64) -> Op<'_, Result<Option<Range<u64>>>> {
        self.real().next_data(offset)
    }

    fn direct_alignment(&self) -> Option<u64> {
        self.real().direct_alignment()
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Op<'_, Result<()>> {
        match self.upper() {
            Some(upper) => upper.inode().allocate(mode, offset, len),
            None => Op::ready(Err(Errno::EBADF)),
        }
    }

    fn get_xattr<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<Vec<u8>>> {
        match self.check_private(name) {
            Ok(()) => self.real().get_xattr(name),
            Err(errno) => Op::ready(Err(errno)),
        }
    }

    fn set_xattr<'a>(&'a self, name: &'a [u8], value: &'a [u8], flags: u32) -> Op<'a, Result<()>> {
        let parts = || self.check_private(name).and_then(|()| self.shared());
        changed(parts().map(|this| this.set_real_xattr(name.to_vec(), Some(value.to_vec()), flags)))
    }

    fn list_xattr(&self) -> Op<'_, Result<Vec<u8>>> {
        Op::boxed(self.list_shown())
    }

    fn remove_xattr<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<()>> {
        let parts = || self.check_private(name).and_then(|()| self.shared());
        changed(parts().map(|this| this.set_real_xattr(name.to_vec(), None, 0)))
    }
}
