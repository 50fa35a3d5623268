//! Objects of a tmpfs.

mod dir;
mod ops;
mod remains;

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use self::dir::{AFTER_DOTS, Dir};
use self::remains::Remains;
use super::TmpFs;
use crate::errno::{Errno, Result};
use crate::fs::change::whiteout_attr;
use crate::fs::handle::Handle;
use crate::fs::inode::{
    Attributes, DeviceId, DirSink, FileSystem, FileType, Inode, Metadata, NewAttr, NewNode, RenameFlags, SetAttr,
};
use crate::fs::inode_flags::InodeFlags;
use crate::fs::op::Op;
use crate::fs::state::InodeState;
use crate::fs::xattr::{self, Space};
use crate::mm::{PAGE_SIZE, PageCache};
use crate::sync::{SpinLock, lock_both};
use crate::time::Timespec;

/// Space that `df` counts for a name.
const ENTRY_SIZE: u64 = 20;
/// Largest value of an extended attribute (XATTR_SIZE_MAX is 64 KiB), and of all names together.
const XATTR_ROOM: usize = 64 * 1024;

struct Attr {
    common: Attributes,
    nlink: u32,
    size: u64,
}

impl Attr {
    /// Changed at this time.
    fn touch(&mut self, now: Timespec) {
        self.common.mtime = now;
        self.common.ctime = now;
    }
}

enum Content {
    File { cache: Arc<PageCache>, charged: AtomicU64 },
    Dir(SpinLock<Dir>),
    Link(Vec<u8>),
    Special(FileType, DeviceId),
}

pub struct TmpInode {
    /// Weak, because the instance holds its root. Whoever reaches an inode through a path holds the instance.
    fs: Weak<TmpFs>,
    ino: u64,
    born: Timespec,
    attr: SpinLock<Attr>,
    content: Content,
    xattrs: SpinLock<BTreeMap<Vec<u8>, Vec<u8>>>,
    state: InodeState,
    this: Weak<TmpInode>,
    /// Somebody has a handle of it.
    handed_out: AtomicBool,
}

/// So many pages are looked at between two looks at the clock.
const SOME: u64 = 64;

/// How many pages of the range are there. The range may be far longer than any memory.
async fn present_in(cache: &PageCache, pages: &Range<u64>) -> u64 {
    let mut count = 0;
    let mut next = cache.next_present(pages.start);
    while let Some(page) = next.filter(|page| *page < pages.end) {
        count += 1;
        if count % SOME == 0 {
            crate::exec::budget().await;
        }
        next = cache.next_present(page + 1);
    }
    count
}

/// Does the text of a symbolic link take a page (SHORT_SYMLINK_LEN in Linux's mm/shmem.c, the NUL included)?
pub(super) fn is_long_link(text: &[u8]) -> bool {
    text.len() + 1 > 128
}

impl TmpInode {
    pub(super) fn make(fs: &Arc<TmpFs>, node: NewNode<'_>, attr: NewAttr) -> Arc<TmpInode> {
        let (content, nlink, size) = match node {
            NewNode::Regular => (Content::File { cache: PageCache::memory(), charged: AtomicU64::new(0) }, 1, 0),
            NewNode::Directory => (Content::Dir(SpinLock::default()), 2, 2 * ENTRY_SIZE),
            NewNode::Symlink(text) => (Content::Link(text.into()), 1, text.len() as u64),
            NewNode::CharDevice(device) => (Content::Special(FileType::CharDevice, device), 1, 0),
            NewNode::BlockDevice(device) => (Content::Special(FileType::BlockDevice, device), 1, 0),
            NewNode::Fifo => (Content::Special(FileType::Fifo, DeviceId::default()), 1, 0),
            NewNode::Socket => (Content::Special(FileType::Socket, DeviceId::default()), 1, 0),
        };
        let attr = Attr { common: Attributes::new(attr), nlink, size };
        let inode = Arc::new_cyclic(|this| TmpInode {
            fs: Arc::downgrade(fs),
            ino: fs.number(),
            born: attr.common.ctime,
            attr: SpinLock::new(attr),
            content,
            xattrs: SpinLock::new(BTreeMap::new()),
            state: InodeState::default(),
            this: this.clone(),
            handed_out: AtomicBool::new(false),
        });
        if let Content::Dir(dir) = &inode.content {
            // The root is its own parent.
            dir.lock().parent = Arc::downgrade(&inode);
        }
        inode
    }

    pub(super) fn ino(&self) -> u64 {
        self.ino
    }

    pub(super) fn weak(&self) -> Weak<TmpInode> {
        self.this.clone()
    }

    fn instance(&self) -> Arc<TmpFs> {
        self.fs.upgrade().unwrap_or_else(super::gone)
    }

    fn dir(&self) -> Result<&SpinLock<Dir>> {
        match &self.content {
            Content::Dir(dir) => Ok(dir),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// Creates an entry. EEXIST if the name is not free.
    pub fn make_child(&self, name: &[u8], node: NewNode<'_>, attr: NewAttr) -> Result<Arc<TmpInode>> {
        let dir = self.dir()?;
        let child = self.instance().new_inode(node, attr)?;
        self.pass_flags_to(&child);
        self.enter(dir, name, &child)?;
        Ok(child)
    }

    fn pass_flags_to(&self, child: &TmpInode) {
        child.state.set_flags(self.state.flags() & (InodeFlags::NODUMP | InodeFlags::NOATIME));
    }

    pub fn child(&self, name: &[u8]) -> Result<Arc<TmpInode>> {
        self.dir()?.lock().get(name).cloned().ok_or(Errno::ENOENT)
    }

    /// Takes an entry out, whatever it is (a device that was unplugged).
    pub fn remove_child(&self, name: &[u8]) -> Result<()> {
        let child = self.child(name)?;
        self.leave(self.dir()?, name, &child, crate::fs::now())
    }

    /// EEXIST: somebody has the name, perhaps only now. Devices come and go without the lock that directories have for calls.
    fn enter(&self, dir: &SpinLock<Dir>, name: &[u8], child: &Arc<TmpInode>) -> Result<()> {
        child.adopted_by(self);
        let entered = dir.lock().insert(name, child.clone());
        entered.map_err(|_| Errno::EEXIST)?;
        self.gained(child, crate::fs::now());
        Ok(())
    }

    /// ENOENT: the name means another one by now.
    fn leave(&self, dir: &SpinLock<Dir>, name: &[u8], child: &TmpInode, now: Timespec) -> Result<()> {
        let removed = dir.lock().remove(name, child).ok_or(Errno::ENOENT)?;
        self.lost(child, now);
        drop(removed);
        Ok(())
    }

    fn adopted_by(&self, parent: &TmpInode) {
        if let Content::Dir(dir) = &self.content {
            dir.lock().parent = parent.this.clone();
        }
    }

    /// What an entry more makes of the attributes of the directory.
    fn gained(&self, child: &TmpInode, now: Timespec) {
        let mut attr = self.attr.lock();
        attr.nlink += u32::from(child.is_dir());
        attr.size += ENTRY_SIZE;
        attr.touch(now);
    }

    fn lost(&self, child: &TmpInode, now: Timespec) {
        let mut attr = self.attr.lock();
        attr.nlink = attr.nlink.saturating_sub(u32::from(child.is_dir()));
        attr.size = attr.size.saturating_sub(ENTRY_SIZE);
        attr.touch(now);
    }

    fn is_dir(&self) -> bool {
        matches!(self.content, Content::Dir(_))
    }

    /// One name less; a directory loses its own "." too.
    fn dropped_name(&self, now: Timespec) {
        let mut attr = self.attr.lock();
        let names = if self.is_dir() { 2 } else { 1 };
        attr.nlink = attr.nlink.saturating_sub(names);
        attr.common.ctime = now;
        if attr.nlink == 0 {
            self.instance().nameless.fetch_add(1, Ordering::Relaxed);
        } else if !self.is_dir() {
            self.instance().free_inode();
        }
    }

    fn check_empty(&self) -> Result<()> {
        match &self.content {
            Content::Dir(dir) if !dir.lock().is_empty() => Err(Errno::ENOTEMPTY),
            _ => Ok(()),
        }
    }

    pub(super) fn set_nameless(&self) {
        self.attr.lock().nlink = 0;
        self.instance().nameless.fetch_add(1, Ordering::Relaxed);
    }

    fn unlink_now(&self, name: &[u8], target: &TmpInode) -> Result<()> {
        target.check_empty()?;
        let now = crate::fs::now();
        self.leave(self.dir()?, name, target, now)?;
        target.dropped_name(now);
        Ok(())
    }

    fn rename_now(
        &self,
        old_name: &[u8],
        moved: &TmpInode,
        new_dir: &TmpInode,
        new_name: &[u8],
        replaced: Option<&TmpInode>,
        flags: RenameFlags,
    ) -> Result<()> {
        let (from, to) = (self.dir()?, new_dir.dir()?);
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let whiteout = match flags.contains(RenameFlags::WHITEOUT) {
            true => Some(self.whiteout()?),
            false => None,
        };
        if let Some(replaced) = replaced.filter(|_| !exchange) {
            replaced.check_empty()?;
        }
        let same = core::ptr::eq(self, new_dir);
        let dropped = {
            // Under both locks: who reads a directory sees it before or after that.
            let (mut from, mut to) = if same {
                (from.lock(), None)
            } else {
                let (from, to) = lock_both(from, to);
                (from, Some(to))
            };
            let Some(entry) = from.remove(old_name, moved) else { return Err(Errno::ENOENT) };
            let target = to.as_deref_mut().unwrap_or(&mut *from);
            let taken = replaced.map(|replaced| target.remove(new_name, replaced));
            let entered = match taken {
                Some(None) => Err(entry),
                _ => target.insert(new_name, entry),
            };
            if let Err(entry) = entered {
                from.put_back(old_name, entry);
                return Err(Errno::EEXIST);
            }
            let (back, dropped) = match exchange {
                true => (taken.flatten(), None),
                false => (whiteout.clone(), taken.flatten()),
            };
            if let Some(back) = back {
                from.put_back(old_name, back);
            }
            dropped
        };
        drop(dropped);
        let now = crate::fs::now();
        if !same {
            moved.adopted_by(new_dir);
            self.lost(moved, now);
            new_dir.gained(moved, now);
        }
        if let Some(replaced) = replaced {
            new_dir.lost(replaced, now);
            if !exchange {
                replaced.dropped_name(now);
            }
        }
        if let Some(back) = if exchange { replaced } else { whiteout.as_deref() } {
            back.adopted_by(self);
            self.gained(back, now);
        }
        if same {
            self.attr.lock().touch(now);
        }
        moved.attr.lock().common.ctime = now;
        Ok(())
    }

    fn whiteout(&self) -> Result<Arc<TmpInode>> {
        self.instance().new_inode(NewNode::CharDevice(DeviceId::default()), whiteout_attr())
    }

    fn read_dir_now(&self, mut cookie: u64, sink: &mut dyn DirSink) -> Result<()> {
        let dir = self.dir()?.lock();
        if cookie == 0 {
            if !sink.entry(self.ino, 1, FileType::Directory, b".") {
                return Ok(());
            }
            cookie = 1;
        }
        if cookie == 1 {
            let parent = dir.parent.upgrade().map_or(self.ino, |parent| parent.ino);
            if !sink.entry(parent, AFTER_DOTS, FileType::Directory, b"..") {
                return Ok(());
            }
            cookie = AFTER_DOTS;
        }
        for (place, entry) in dir.after(cookie) {
            if !sink.entry(entry.inode.ino, place, entry.inode.kind(), &entry.name) {
                break;
            }
        }
        Ok(())
    }

    /// Lets go of a whole tree (when its instance goes).
    fn drop_entries(&mut self) {
        if let Content::Dir(dir) = &mut self.content {
            Remains::default().drop_all(dir.get_mut());
        }
    }

    /// Takes room for `missing` more pages. The file is locked.
    fn charge(&self, cache: &PageCache, charged: &AtomicU64, missing: u64) -> Result<()> {
        if missing == 0 {
            return Ok(());
        }
        // An earlier write may have ended before it made the pages that it was charged for.
        let more = (cache.page_count() as u64).saturating_add(missing).saturating_sub(charged.load(Ordering::Acquire));
        self.instance().charge(more)?;
        charged.fetch_add(more, Ordering::AcqRel);
        Ok(())
    }

    /// Makes the pages of `bytes`, zero where there are none.
    async fn provide(&self, cache: &PageCache, charged: &AtomicU64, bytes: Range<u64>, grow: bool) -> Result<()> {
        let pages = bytes.start / PAGE_SIZE as u64..bytes.end.div_ceil(PAGE_SIZE as u64);
        let present = present_in(cache, &pages).await;
        self.charge(cache, charged, (pages.end - pages.start).saturating_sub(present))?;
        // The caller may be killed here, too.
        let unfinished = scopeguard::guard((), |()| self.settle_charge());
        for page in pages {
            cache.get(page, 0).await?;
            crate::exec::budget().await;
        }
        scopeguard::ScopeGuard::into_inner(unfinished);
        if grow {
            let mut attr = self.attr.lock();
            attr.size = attr.size.max(bytes.end);
        }
        self.touch();
        Ok(())
    }

    fn touch(&self) {
        let now = crate::fs::now();
        self.attr.lock().touch(now);
    }

    /// Pages behind the new end are gone: gives their room back.
    fn settle_charge(&self) {
        if let Content::File { cache, charged } = &self.content {
            let present = cache.page_count() as u64;
            let before = charged.fetch_min(present, Ordering::AcqRel);
            self.instance().release(before.saturating_sub(present));
        }
    }
}

impl Drop for TmpInode {
    fn drop(&mut self) {
        self.drop_entries();
        let Some(fs) = self.fs.upgrade() else { return };
        if *self.handed_out.get_mut() {
            fs.handed_out.lock().remove(&self.ino);
        }
        match &self.content {
            Content::File { charged, .. } => fs.release(charged.load(Ordering::Relaxed)),
            Content::Link(text) if is_long_link(text) => fs.release(1),
            _ => {}
        }
        fs.inode_gone(self.attr.get_mut().nlink == 0);
    }
}

/// Refuses attributes that tmpfs has not: nothing would limit the memory that those of users take (nor has Linux 6.1 any
/// here).
fn check_xattr(name: &[u8]) -> Result<()> {
    match xattr::split(name) {
        Some((Space::Trusted | Space::Security, b"")) => Err(Errno::EINVAL),
        Some((Space::Trusted | Space::Security, _)) => Ok(()),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

fn own(inode: &Arc<dyn Inode>) -> Result<&TmpInode> {
    inode.as_any().downcast_ref().ok_or(Errno::EXDEV)
}
