//! [`Ext2Inode`], what the VFS holds: the node and its page cache. The last drop after the last unlink frees the node.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::future::Future;
use core::ops::Range;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use linux_raw_sys::general::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE};

use super::map::Extent;
use super::names::Content;
use super::node::Node;
use super::rename::Rename;
use super::xattr::area::Name;
use crate::errno::{Errno, Result};
use crate::fs::InodeState;
use crate::fs::handle::{self, Handle};
use crate::fs::inode::{
    DirSink, FileSystem, FileType, Inode, Metadata, NewAttr, NewNode, RenameFlags, SetAttr, SizeAndTimes,
};
use crate::fs::inode_flags::InodeFlags;
use crate::fs::op::Op;
use crate::fs::tmpfs;
use crate::mm::{PAGE_SIZE, PageCache, PageIo};

/// What O_DIRECT wants positions, lengths and addresses to be multiples of: the sectors of the device.
const DIRECT_ALIGNMENT: u64 = 512;

pub struct Ext2Inode {
    pub node: Arc<Node>,
    /// Regular files.
    pub(super) cache: Option<Arc<PageCache>>,
    pub(super) vfs: InodeState,
}

impl Drop for Ext2Inode {
    fn drop(&mut self) {
        if self.node.state.lock().nlink == 0 {
            let (node, cache) = (self.node.clone(), self.cache.take());
            let volume = node.volume.clone();
            volume.deletion_begins();
            if volume.read_only() {
                volume.abandon(&node);
                return volume.deletion_ended();
            }
            (volume.host.spawn)(Box::pin(async move {
                volume.delete(node, cache).await;
                volume.deletion_ended();
            }));
        }
    }
}

impl Ext2Inode {
    pub fn new(node: Arc<Node>) -> Arc<Ext2Inode> {
        let weak: Weak<Node> = Arc::downgrade(&node);
        let cache = (node.kind == FileType::Regular).then(|| PageCache::new(weak as Weak<dyn PageIo>));
        let inode = Ext2Inode { node, cache, vfs: InodeState::default() };
        inode.obey();
        Arc::new(inode)
    }

    /// Changes of names in the directory have to be stored, which takes time.
    fn syncs_names(&self) -> bool {
        self.vfs.flags().intersects(InodeFlags::SYNC | InodeFlags::DIRSYNC)
    }

    pub async fn write_data(&self) -> Result<()> {
        match &self.cache {
            Some(cache) if cache.has_unstored() => cache.write_back(0..u64::MAX).await,
            _ => Ok(()),
        }
    }

    /// Nothing is lost if it leaves memory: not dirty, no page dirty or mapped.
    pub fn is_idle(&self) -> bool {
        let unused = self.cache.as_ref().is_none_or(|cache| Arc::strong_count(cache) == 1 && !cache.has_unstored());
        let period = self.node.volume.order.period();
        let has_gone = || self.node.with_index(|index| index.has_gone(period)).unwrap_or(false);
        unused && !self.node.state.lock().dirty && Arc::strong_count(&self.node) == 1 && !has_gone()
    }

    /// Changes the size of a regular file; what is cut off is freed.
    async fn resize(node: Arc<Node>, cache: Arc<PageCache>, attr: SetAttr, size: u64) -> Result<()> {
        let volume = node.volume.clone();
        let _change = volume.begin_change().await?;
        let old = node.state.lock().size;
        if size >= old {
            node.update(|state| apply(state, &attr));
            return Ok(());
        }
        node.update(|state| apply(state, &attr));
        // Also zeroes the rest of the last page, which must read as zeros when the file grows again.
        cache.truncate(size).await;
        let keep = size.div_ceil(volume.layout.block_size as u64);
        // Pages that have left the cache may still be on their way to the blocks that are about to be free.
        let _writes = node.writes.write().await;
        let _map = node.map_lock.write().await;
        node.drop_reservations(keep);
        node.free_blocks_from(keep).await
    }

    /// fallocate(2) PUNCH_HOLE: what is whole pages is freed, the rest zeroed.
    async fn punch(node: Arc<Node>, cache: Arc<PageCache>, bytes: Range<u64>) -> Result<()> {
        const PAGE: u64 = PAGE_SIZE as u64;
        let volume = node.volume.clone();
        let _change = volume.begin_change().await?;
        let size = node.state.lock().size;
        if bytes.start >= size {
            return Ok(());
        }
        // Up to the end, the last page counts as whole.
        let end = if bytes.end >= size { size.next_multiple_of(PAGE) } else { bytes.end };
        let pages = cache.zero_ends(size, bytes.start..end).await;
        cache.punch(pages.clone()).await;
        {
            // No page that gets dirty now is to go to blocks that are about to be free.
            let _writes = node.writes.write().await;
            let _map = node.map_lock.write().await;
            let per_page = PAGE / volume.layout.block_size as u64;
            let blocks = pages.start * per_page..pages.end * per_page;
            let dropped = node.state.lock().reserved.remove(blocks.clone());
            volume.groups.unreserve(dropped);
            node.free_blocks(blocks).await?;
        }
        // A page that was read in meanwhile has what was there before.
        cache.punch(pages).await;
        let now = volume.now();
        node.update(|state| {
            state.mtime = now;
            state.ctime = now;
        });
        Ok(())
    }

    /// See [`Inode::next_data`].
    async fn find_data(node: &Node, offset: u64) -> Result<Option<Range<u64>>> {
        let block_size = node.volume.layout.block_size as u64;
        // A size may say more than any map has.
        let size = node.state.lock().size;
        let end = size.div_ceil(block_size).min(node.max_blocks());
        let mut block = offset / block_size;
        let _map = node.map_lock.read().await;
        while block < end {
            match node.lookup_block(block, (end - block).min(1 << 20) as u32).await? {
                Extent::Blocks(run) => return Ok(Some(block * block_size..(block + u64::from(run.len)) * block_size)),
                Extent::Hole(len) => block += u64::from(len),
            }
            crate::exec::budget().await;
        }
        Ok(None)
    }

    async fn sync_now(node: Arc<Node>, cache: Option<Arc<PageCache>>) -> Result<()> {
        let mut result = Ok(());
        if let Some(cache) = cache {
            result = cache.write_back(0..u64::MAX).await;
        }
        let volume = &node.volume;
        // The inode alone is no use without the maps, bitmaps and names that lead to it.
        volume.write_metadata().await.and(result)
    }
}

fn apply(state: &mut super::node::NodeState, attr: &SetAttr) {
    if let Some(perm) = attr.perm {
        state.perm = perm & 0o7777;
    }
    state.uid = attr.uid.unwrap_or(state.uid);
    state.gid = attr.gid.unwrap_or(state.gid);
    if let Some(size) = attr.size {
        state.size = size;
        state.write_end = 0;
    }
    let storable = |time| super::node::storable(time, state.btime.is_some());
    state.atime = attr.atime.map_or(state.atime, storable);
    state.mtime = attr.mtime.map_or(state.mtime, storable);
    state.ctime = attr.ctime.unwrap_or(state.ctime);
}

/// Polls `make()` once; if it has to wait, answers it anew as a boxed future. For operations whose first part has no
/// effect before it waits.
fn try_now<'a, T, F: Future<Output = T> + Send + 'a>(make: impl Fn() -> F) -> Op<'a, T> {
    {
        let first = pin!(make());
        if let Poll::Ready(value) = first.poll(&mut Context::from_waker(Waker::noop())) {
            return Op::ready(value);
        }
    }
    Op::boxed(make())
}

fn ours(inode: &Arc<dyn Inode>) -> Result<Arc<Ext2Inode>> {
    let any: Arc<dyn Any + Send + Sync> = inode.clone();
    any.downcast::<Ext2Inode>().map_err(|_| Errno::EXDEV)
}

impl Inode for Ext2Inode {
    fn metadata(&self) -> Metadata {
        self.node.metadata()
    }

    fn size(&self) -> u64 {
        self.node.state.lock().size
    }

    fn size_and_times(&self) -> SizeAndTimes {
        let state = self.node.state.lock();
        SizeAndTimes { size: state.size, atime: state.atime, mtime: state.mtime, ctime: state.ctime }
    }

    fn fs(&self) -> Arc<dyn FileSystem> {
        match self.node.volume.mounted() {
            Some(mounted) => mounted,
            None => tmpfs::gone(),
        }
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn state(&self) -> &InodeState {
        &self.vfs
    }

    fn kind(&self) -> FileType {
        self.node.kind
    }

    fn set_attr(&self, attr: SetAttr) -> Op<'_, Result<()>> {
        let volume = &self.node.volume;
        if volume.read_only() {
            return Op::ready(Err(Errno::EROFS));
        }
        let Some(size) = attr.size else {
            self.node.update(|state| apply(state, &attr));
            return Op::ready(Ok(()));
        };
        let Some(cache) = &self.cache else {
            let errno = if self.node.kind == FileType::Directory { Errno::EISDIR } else { Errno::EINVAL };
            return Op::ready(Err(errno));
        };
        if size > self.node.max_blocks() * volume.layout.block_size as u64 {
            return Op::ready(Err(Errno::EFBIG));
        }
        {
            let mut grown = false;
            self.node.update(|state| {
                grown = size >= state.size;
                if grown {
                    apply(state, &attr);
                }
            });
            if grown {
                // A write that ended early has reserved more than it needs.
                self.node.drop_reservations(size.div_ceil(volume.layout.block_size as u64));
                return Op::ready(Ok(()));
            }
        }
        let (node, cache) = (self.node.clone(), cache.clone());
        Op::boxed(volume.run_to_end(Self::resize(node, cache, attr, size)))
    }

    fn flags(&self) -> Option<u32> {
        self.shown_flags()
    }

    fn set_flags(&self, flags: u32) -> Op<'_, Result<()>> {
        self.set_shown_flags(flags)
    }

    fn generation(&self) -> Option<u32> {
        let has = matches!(self.node.kind, FileType::Regular | FileType::Directory);
        has.then(|| self.node.state.lock().generation)
    }

    fn handle(&self) -> Option<Handle> {
        let words = [self.node.ino, self.node.state.lock().generation];
        Some(Handle { kind: handle::INO_GENERATION, words: words.into_iter().collect() })
    }

    fn parent(&self) -> Op<'_, Result<Arc<dyn Inode>>> {
        Op::boxed(async {
            let ino = handle::number_of_parent(self).await?;
            let parent: Arc<dyn Inode> = self.node.volume.inode(ino as u32).await?;
            Ok(parent)
        })
    }

    fn lookup<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<Arc<dyn Inode>>> {
        try_now(move || async move {
            let found = self.node.find_name(name).await?.ok_or(Errno::ENOENT)?;
            let inode = match self.node.volume.inode(found.ino).await {
                // Unlinked since the name was read.
                Err(Errno::ESTALE) => return Err(Errno::ENOENT),
                other => other?,
            };
            if inode.node.kind == FileType::Directory && !inode.node.is_child_of(self.node.ino) {
                let (ino, dir) = (found.ino, self.node.ino);
                self.node.volume.corrupt(format_args!("directory {ino} has a second name, in directory {dir}"));
                return Err(Errno::EIO);
            }
            let inode: Arc<dyn Inode> = inode;
            Ok(inode)
        })
    }

    fn create<'a>(&'a self, name: &'a [u8], new: NewNode<'a>, attr: NewAttr) -> Op<'a, Result<Arc<dyn Inode>>> {
        if !self.syncs_names()
            && let Some(made) = self.node.create_now(name, Content::from(new), attr)
        {
            return Op::ready(made.map(|inode| inode as Arc<dyn Inode>));
        }
        let (node, name) = (self.node.clone(), name.to_vec());
        let target: Vec<u8> = if let NewNode::Symlink(target) = new { target.to_vec() } else { Vec::new() };
        let content: Content<'static> = match Content::from(new) {
            Content::Plain(kind) => Content::Plain(kind),
            Content::Device(kind, id) => Content::Device(kind, id),
            Content::Symlink(_) => Content::Symlink(b""),
        };
        Op::boxed(self.node.volume.run_to_end(async move {
            let content = if let Content::Symlink(_) = content { Content::Symlink(&target) } else { content };
            let mut waited = false;
            loop {
                match node.create(&name, content, attr).await {
                    Err(Errno::ENOSPC) if node.volume.awaits_space(&mut waited).await => {}
                    result => return result.map(|inode| inode as Arc<dyn Inode>),
                }
            }
        }))
    }

    fn create_unnamed(&self, attr: NewAttr) -> Op<'_, Result<Arc<dyn Inode>>> {
        let node = self.node.clone();
        Op::boxed(self.node.volume.run_to_end(async move {
            let mut waited = false;
            loop {
                match node.create_unnamed(attr).await {
                    Err(Errno::ENOSPC) if node.volume.awaits_space(&mut waited).await => {}
                    result => return result.map(|inode| inode as Arc<dyn Inode>),
                }
            }
        }))
    }

    fn link<'a>(&'a self, name: &'a [u8], target: &'a Arc<dyn Inode>) -> Op<'a, Result<()>> {
        let (node, name) = (self.node.clone(), name.to_vec());
        let target = match ours(target) {
            Ok(target) => target,
            Err(errno) => return Op::ready(Err(errno)),
        };
        Op::boxed(self.node.volume.run_to_end(async move {
            let mut waited = false;
            loop {
                match node.link(&name, &target).await {
                    Err(Errno::ENOSPC) if node.volume.awaits_space(&mut waited).await => {}
                    result => return result,
                }
            }
        }))
    }

    fn unlink<'a>(&'a self, name: &'a [u8], target: &'a Arc<dyn Inode>) -> Op<'a, Result<()>> {
        let target = match ours(target) {
            Ok(target) => target,
            Err(errno) => return Op::ready(Err(errno)),
        };
        if !self.syncs_names()
            && let Some(result) = self.node.unlink_now(name, &target)
        {
            return Op::ready(result);
        }
        let (node, name) = (self.node.clone(), name.to_vec());
        Op::boxed(self.node.volume.run_to_end(async move { node.unlink(&name, &target).await }))
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
        let within_one = new_dir.as_any().downcast_ref::<Ext2Inode>().is_some_and(|dir| core::ptr::eq(dir, self));
        if within_one
            && !self.syncs_names()
            && replaced.is_none()
            && (flags - RenameFlags::NOREPLACE).is_empty()
            && let Some(moved) = moved.as_any().downcast_ref()
            && let Some(result) = self.node.rename_now(old_name, moved, new_name)
        {
            return Op::ready(result);
        }
        let arguments = || {
            Ok(Rename {
                old_name: old_name.to_vec(),
                moved: ours(moved)?,
                new_dir: ours(new_dir)?,
                new_name: new_name.to_vec(),
                replaced: replaced.map(ours).transpose()?,
                flags,
                whiteout: flags.contains(RenameFlags::WHITEOUT).then(crate::fs::change::whiteout_attr),
            })
        };
        let rename = match arguments() {
            Ok(rename) => rename,
            Err(errno) => return Op::ready(Err(errno)),
        };
        let node = self.node.clone();
        Op::boxed(self.node.volume.run_to_end(async move {
            let mut waited = false;
            loop {
                match node.rename(&rename).await {
                    Err(Errno::ENOSPC) if node.volume.awaits_space(&mut waited).await => {}
                    result => return result,
                }
            }
        }))
    }

    fn read_dir<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Op<'a, Result<()>> {
        Op::boxed(self.node.list(cookie, sink))
    }

    fn read_link(&self) -> Op<'_, Result<Vec<u8>>> {
        try_now(|| self.node.read_link())
    }

    fn page_cache(&self) -> Option<&Arc<PageCache>> {
        self.cache.as_ref()
    }

    fn prepare_write(&self, offset: u64, len: u64) -> Op<'_, Result<()>> {
        try_now(move || self.node.reserve(offset, len))
    }

    fn give_up_write(&self, bytes: Range<u64>) {
        self.node.give_up(bytes);
    }

    fn next_data(&self, offset: u64) -> Op<'_, Result<Option<Range<u64>>>> {
        Op::boxed(Self::find_data(&self.node, offset))
    }

    fn direct_alignment(&self) -> Option<u64> {
        self.cache.as_ref().map(|_| DIRECT_ALIGNMENT)
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Op<'_, Result<()>> {
        let Some(cache) = self.cache.clone().filter(|_| mode == FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE) else {
            return Op::ready(Err(Errno::EOPNOTSUPP));
        };
        let punch = Self::punch(self.node.clone(), cache, offset..offset.saturating_add(len));
        Op::boxed(self.node.volume.run_to_end(punch))
    }

    fn get_xattr<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<Vec<u8>>> {
        try_now(move || async move { self.node.attribute(Name::parse(name)?).await })
    }

    fn set_xattr<'a>(&'a self, name: &'a [u8], value: &'a [u8], flags: u32) -> Op<'a, Result<()>> {
        let (node, name, value) = (self.node.clone(), name.to_vec(), value.to_vec());
        Op::boxed(self.node.volume.run_to_end(async move {
            let mut waited = false;
            loop {
                match node.change_attribute(Name::parse(&name)?, Some(&value), flags).await {
                    Err(Errno::ENOSPC) if node.volume.awaits_space(&mut waited).await => {}
                    result => return result,
                }
            }
        }))
    }

    fn list_xattr(&self) -> Op<'_, Result<Vec<u8>>> {
        try_now(|| self.node.attribute_names())
    }

    fn remove_xattr<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<()>> {
        let (node, name) = (self.node.clone(), name.to_vec());
        Op::boxed(self.node.volume.run_to_end(async move { node.change_attribute(Name::parse(&name)?, None, 0).await }))
    }

    fn sync(&self, _data_only: bool) -> Op<'_, Result<()>> {
        let (node, cache) = (self.node.clone(), self.cache.clone());
        Op::boxed(self.node.volume.run_to_end(Self::sync_now(node, cache)))
    }
}
