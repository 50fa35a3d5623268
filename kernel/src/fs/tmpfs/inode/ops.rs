//! What the VFS asks of an inode.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use linux_raw_sys::general::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE};

use super::*;
use crate::fs::SizeAndTimes;

impl Inode for TmpInode {
    fn metadata(&self) -> Metadata {
        let attr = self.attr.lock();
        let rdev = match &self.content {
            Content::Special(_, device) => *device,
            _ => DeviceId::default(),
        };
        let blocks = match &self.content {
            Content::File { cache, .. } => cache.page_count() as u64 * (PAGE_SIZE as u64 / 512),
            Content::Link(text) if is_long_link(text) => PAGE_SIZE as u64 / 512,
            _ => 0,
        };
        Metadata {
            ino: self.ino,
            kind: self.kind(),
            perm: attr.common.perm,
            nlink: attr.nlink,
            uid: attr.common.uid,
            gid: attr.common.gid,
            rdev,
            size: attr.size,
            block_size: PAGE_SIZE as u32,
            blocks,
            atime: attr.common.atime,
            mtime: attr.common.mtime,
            ctime: attr.common.ctime,
            btime: Some(self.born),
        }
    }

    fn fs(&self) -> Arc<dyn FileSystem> {
        self.instance()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn state(&self) -> &InodeState {
        &self.state
    }

    fn flags(&self) -> Option<u32> {
        matches!(self.content, Content::File { .. } | Content::Dir(_)).then(|| self.state.flags().bits())
    }

    fn set_flags(&self, flags: u32) -> Op<'_, Result<()>> {
        let known = InodeFlags::BINDING | InodeFlags::NODUMP | InodeFlags::NOATIME;
        let Some(flags) = InodeFlags::from_bits(flags).filter(|flags| known.contains(*flags)) else {
            return Op::ready(Err(Errno::EOPNOTSUPP));
        };
        self.state.set_flags(flags);
        self.attr.lock().common.ctime = crate::fs::now();
        Op::ready(Ok(()))
    }

    fn kind(&self) -> FileType {
        match &self.content {
            Content::File { .. } => FileType::Regular,
            Content::Dir(_) => FileType::Directory,
            Content::Link(_) => FileType::Symlink,
            Content::Special(kind, _) => *kind,
        }
    }

    fn size(&self) -> u64 {
        self.attr.lock().size
    }

    fn seek_end(&self) -> Result<u64> {
        if self.dir().is_ok() { Err(Errno::EINVAL) } else { Ok(self.size()) }
    }

    fn size_and_times(&self) -> SizeAndTimes {
        let attr = self.attr.lock();
        let times = &attr.common;
        SizeAndTimes { size: attr.size, atime: times.atime, mtime: times.mtime, ctime: times.ctime }
    }

    fn set_attr(&self, new: SetAttr) -> Op<'_, Result<()>> {
        let mut attr = self.attr.lock();
        attr.common.set(&new);
        let Some(size) = new.size else { return Op::ready(Ok(())) };
        let shrinks = size < attr.size;
        attr.size = size;
        drop(attr);
        match &self.content {
            Content::File { cache, .. } if shrinks => Op::boxed(async move {
                cache.truncate(size).await;
                self.settle_charge();
                Ok(())
            }),
            _ => Op::ready(Ok(())),
        }
    }

    fn handle(&self) -> Option<Handle> {
        self.handed_out.store(true, Ordering::Relaxed);
        Some(self.instance().hand_out(self))
    }

    fn parent(&self) -> Op<'_, Result<Arc<dyn Inode>>> {
        let parent = || self.dir()?.lock().parent.upgrade().ok_or(Errno::ESTALE);
        Op::ready(parent().map(|parent| parent as Arc<dyn Inode>))
    }

    fn lookup<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<Arc<dyn Inode>>> {
        Op::ready(self.child(name).map(|child| child as Arc<dyn Inode>))
    }

    fn create<'a>(&'a self, name: &'a [u8], node: NewNode<'a>, attr: NewAttr) -> Op<'a, Result<Arc<dyn Inode>>> {
        Op::ready(self.make_child(name, node, attr).map(|child| child as Arc<dyn Inode>))
    }

    fn create_unnamed(&self, attr: NewAttr) -> Op<'_, Result<Arc<dyn Inode>>> {
        Op::ready(self.instance().new_file(attr).map(|inode| {
            self.pass_flags_to(&inode);
            inode as Arc<dyn Inode>
        }))
    }

    fn link<'a>(&'a self, name: &'a [u8], target: &'a Arc<dyn Inode>) -> Op<'a, Result<()>> {
        let link = || {
            let target = own(target)?.this.upgrade().ok_or(Errno::EXDEV)?;
            let mut attr = target.attr.lock();
            target.state.check_link(attr.nlink)?;
            if attr.nlink == 0 {
                target.instance().nameless.fetch_sub(1, Ordering::Relaxed);
            } else {
                target.instance().take_inode()?;
            }
            attr.nlink += 1;
            attr.common.ctime = crate::fs::now();
            drop(attr);
            self.enter(self.dir()?, name, &target).inspect_err(|_| target.dropped_name(crate::fs::now()))
        };
        Op::ready(link())
    }

    fn unlink<'a>(&'a self, name: &'a [u8], target: &'a Arc<dyn Inode>) -> Op<'a, Result<()>> {
        Op::ready(own(target).and_then(|target| self.unlink_now(name, target)))
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
            let (moved, new_dir, replaced) = (own(moved)?, own(new_dir)?, replaced.map(own).transpose()?);
            self.rename_now(old_name, moved, new_dir, new_name, replaced, flags)
        };
        Op::ready(rename())
    }

    fn read_dir<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Op<'a, Result<()>> {
        Op::ready(self.read_dir_now(cookie, sink))
    }

    fn read_link(&self) -> Op<'_, Result<Vec<u8>>> {
        Op::ready(match &self.content {
            Content::Link(text) => Ok(text.clone()),
            _ => Err(Errno::EINVAL),
        })
    }

    fn page_cache(&self) -> Option<&Arc<PageCache>> {
        match &self.content {
            Content::File { cache, .. } => Some(cache),
            _ => None,
        }
    }

    fn prepare_write(&self, offset: u64, len: u64) -> Op<'_, Result<()>> {
        let Content::File { cache, charged } = &self.content else { return Op::ready(Err(Errno::EINVAL)) };
        let (first, end) = (offset / PAGE_SIZE as u64, offset.saturating_add(len).div_ceil(PAGE_SIZE as u64));
        let missing = (first..end).filter(|index| cache.lookup(*index).is_none()).count() as u64;
        Op::ready(self.charge(cache, charged, missing))
    }

    fn give_up_write(&self, _bytes: Range<u64>) {
        self.settle_charge();
    }

    fn next_data(&self, offset: u64) -> Op<'_, Result<Option<Range<u64>>>> {
        const PAGE: u64 = PAGE_SIZE as u64;
        let Content::File { cache, .. } = &self.content else { return Op::ready(Ok(None)) };
        let page = cache.next_present(offset / PAGE).filter(|page| page * PAGE < self.size());
        Op::ready(Ok(page.map(|page| page * PAGE..(page + 1) * PAGE)))
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> Op<'_, Result<()>> {
        const PUNCH: u32 = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        let Content::File { cache, charged } = &self.content else { return Op::ready(Err(Errno::ENODEV)) };
        let Some(end) = offset.checked_add(len) else { return Op::ready(Err(Errno::EFBIG)) };
        match mode {
            0 | FALLOC_FL_KEEP_SIZE => Op::boxed(self.provide(cache, charged, offset..end, mode == 0)),
            PUNCH => Op::boxed(async move {
                let pages = cache.zero_ends(self.size(), offset..end).await;
                cache.punch(pages).await;
                self.settle_charge();
                self.touch();
                Ok(())
            }),
            _ => Op::ready(Err(Errno::EOPNOTSUPP)),
        }
    }

    fn get_xattr<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<Vec<u8>>> {
        if let Err(errno) = check_xattr(name) {
            return Op::ready(Err(errno));
        }
        Op::ready(self.xattrs.lock().get(name).cloned().ok_or(Errno::ENODATA))
    }

    fn set_xattr<'a>(&'a self, name: &'a [u8], value: &'a [u8], flags: u32) -> Op<'a, Result<()>> {
        const CREATE: u32 = 1;
        const REPLACE: u32 = 2;
        if let Err(errno) = check_xattr(name) {
            return Op::ready(Err(errno));
        }
        let mut xattrs = self.xattrs.lock();
        let exists = xattrs.contains_key(name);
        if exists && flags & CREATE != 0 {
            return Op::ready(Err(Errno::EEXIST));
        }
        if !exists && flags & REPLACE != 0 {
            return Op::ready(Err(Errno::ENODATA));
        }
        let used: usize =
            xattrs.iter().filter(|(key, _)| **key != name).map(|(key, value)| key.len() + value.len()).sum();
        if used + name.len() + value.len() > XATTR_ROOM {
            return Op::ready(Err(Errno::ENOSPC));
        }
        xattrs.insert(name.into(), value.into());
        drop(xattrs);
        self.attr.lock().common.ctime = crate::fs::now();
        Op::ready(Ok(()))
    }

    fn list_xattr(&self) -> Op<'_, Result<Vec<u8>>> {
        let mut names = Vec::new();
        for name in self.xattrs.lock().keys() {
            names.extend_from_slice(name);
            names.push(0);
        }
        Op::ready(Ok(names))
    }

    fn remove_xattr<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<()>> {
        if let Err(errno) = check_xattr(name) {
            return Op::ready(Err(errno));
        }
        let removed = self.xattrs.lock().remove(name);
        Op::ready(if removed.is_some() { Ok(()) } else { Err(Errno::ENODATA) })
    }
}
