//! What the VFS asks of an inode.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::Ordering;

use linux_raw_sys::general as raw;

use super::calls::entries;
use super::inode::{P9Inode, Place};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::fs::file::FileOps;
use crate::fs::inode::{
    DeviceId, DirSink, FileSystem, FileType, Inode, Metadata, NewAttr, NewNode, RenameFlags, SetAttr,
};
use crate::fs::op::Op;
use crate::fs::{InodeState, tmpfs};
use crate::mm::{IoBuf, PageCache};
use crate::process::Thread;

/// How much of a directory is asked for at once, bytes.
const READ_DIR: usize = 32 * 1024;
/// O_CREAT and O_EXCL of Tlcreate, which are those of most machines.
const CREATE_NEW: u32 = 0o100 | 0o200 | 2;

/// The set-user-ID and set-group-ID bits.
const SET_ID: u16 = 0o6000;

/// What is to be made, of one's own.
enum New {
    Regular,
    Directory,
    Symlink(Vec<u8>),
    Special(FileType, DeviceId),
}

impl From<NewNode<'_>> for New {
    fn from(node: NewNode<'_>) -> New {
        match node {
            NewNode::Regular => New::Regular,
            NewNode::Directory => New::Directory,
            NewNode::Symlink(target) => New::Symlink(target.to_vec()),
            NewNode::CharDevice(id) => New::Special(FileType::CharDevice, id),
            NewNode::BlockDevice(id) => New::Special(FileType::BlockDevice, id),
            NewNode::Fifo => New::Special(FileType::Fifo, DeviceId::default()),
            NewNode::Socket => New::Special(FileType::Socket, DeviceId::default()),
        }
    }
}

impl P9Inode {
    async fn child(&self, name: &[u8]) -> Result<Arc<P9Inode>> {
        let fid = self.fid().walk(Some(name)).await?;
        self.session.inode(fid, Some(Place { dir: self.id, name: name.to_vec() })).await
    }

    async fn make(self: Arc<Self>, name: Vec<u8>, node: New, attr: NewAttr) -> Result<Arc<P9Inode>> {
        let dir = self.fid();
        let mut opened = None;
        match node {
            New::Regular => {
                let fid = dir.walk(None).await?;
                let (qid, unit) = fid.lcreate(&name, CREATE_NEW, attr.perm, attr.gid).await?;
                opened = Some((fid, qid, unit));
            }
            New::Directory => dir.mkdir(&name, attr.perm, attr.gid).await?,
            New::Symlink(target) => dir.symlink(&name, &target, attr.gid).await?,
            New::Special(kind, device) => {
                dir.mknod(&name, kind.mode_bits() | u32::from(attr.perm), device, attr.gid).await?;
            }
        }
        self.change(|_| ());
        let child = self.child(&name).await?;
        // Unless somebody else has put something else in its place.
        if let Some((fid, qid, unit)) = opened
            && child.is(qid)
        {
            child.keep_open(fid, unit, true, true);
        }
        child.give_to(attr).await;
        Ok(child)
    }

    /// New files belong to whom the server works for. One that may give them away is asked to.
    async fn give_to(&self, attr: NewAttr) {
        let is_owned = |meta: Metadata| (meta.uid, meta.gid) == (attr.uid, attr.gid);
        if is_owned(self.metadata()) || !self.session.gives_away.load(Ordering::Relaxed) {
            return;
        }
        let change = SetAttr { uid: Some(attr.uid), gid: Some(attr.gid), ..SetAttr::default() };
        let mut given = self.set_attr(change).await.and(self.ask().await);
        if given.is_ok() && attr.perm & SET_ID != 0 && self.kind != FileType::Symlink {
            // A change of the owner has taken them away.
            given = self.set_attr(SetAttr { perm: Some(attr.perm), ..SetAttr::default() }).await;
        }
        if given.is_err() || !is_owned(self.metadata()) {
            self.session.gives_away.store(false, Ordering::Relaxed);
        }
    }

    async fn list(&self, mut cookie: u64, sink: &mut dyn DirSink) -> Result<()> {
        let open = self.opened(false).await?;
        loop {
            let data = open.fid.readdir(cookie, READ_DIR.min(open.unit)).await?;
            let mut reader = entries(&data);
            if reader.is_empty() {
                return Ok(());
            }
            while !reader.is_empty() {
                let entry = reader.entry()?;
                if !sink.entry(entry.qid.path, entry.next, entry.kind, entry.name) {
                    return Ok(());
                }
                cookie = entry.next;
            }
            exec::budget().await;
        }
    }

    async fn store(self: Arc<Self>, data_only: bool) -> Result<()> {
        // What nobody has opened here cannot have been changed from here.
        let open = match self.is_open_for(true) {
            true => self.opened(true).await?,
            false if self.is_open_for(false) => self.opened(false).await?,
            false => return Ok(()),
        };
        open.fid.fsync(data_only).await
    }

    /// Runs to its end even if nobody waits for it any more.
    fn whole<T, F>(&self, change: impl FnOnce(Arc<P9Inode>) -> F) -> Op<'static, Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        match self.me.upgrade() {
            Some(me) => Op::boxed(exec::run_to_end(|future| exec::spawn("9p", future), change(me))),
            None => Op::ready(Err(Errno::EIO)),
        }
    }
}

fn ours(inode: &Arc<dyn Inode>) -> Result<Arc<P9Inode>> {
    inode.as_any().downcast_ref::<P9Inode>().and_then(|inode| inode.me.upgrade()).ok_or(Errno::EXDEV)
}

fn as_inode(inode: Arc<P9Inode>) -> Arc<dyn Inode> {
    inode
}

impl Inode for P9Inode {
    fn metadata(&self) -> Metadata {
        P9Inode::metadata(self)
    }

    fn fs(&self) -> Arc<dyn FileSystem> {
        match self.session.mounted.lock().upgrade() {
            Some(fs) => fs,
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
        self.kind
    }

    fn size(&self) -> u64 {
        P9Inode::size(self)
    }

    fn refresh(&self) -> Op<'_, Result<()>> {
        if self.is_fresh() { Op::ready(Ok(())) } else { Op::boxed(self.ask()) }
    }

    fn set_attr(&self, attr: SetAttr) -> Op<'_, Result<()>> {
        // An access is the server's to note; what others do not want of it comes with a change time.
        let only_access = attr.ctime.is_none() && attr.perm.or(attr.size.map(|_| 0)).is_none() && attr.mtime.is_none();
        if only_access && attr.uid.or(attr.gid).is_none() {
            return Op::ready(Ok(()));
        }
        Op::boxed(P9Inode::set_attr(self, attr))
    }

    fn lookup<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<Arc<dyn Inode>>> {
        if self.kind != FileType::Directory {
            return Op::ready(Err(Errno::ENOTDIR));
        }
        Op::boxed(async move { self.child(name).await.map(as_inode) })
    }

    fn create<'a>(&'a self, name: &'a [u8], node: NewNode<'a>, attr: NewAttr) -> Op<'a, Result<Arc<dyn Inode>>> {
        let (name, node) = (name.to_vec(), New::from(node));
        self.whole(move |me| async move { me.make(name, node, attr).await.map(as_inode) })
    }

    fn link<'a>(&'a self, name: &'a [u8], target: &'a Arc<dyn Inode>) -> Op<'a, Result<()>> {
        let (name, target) = (name.to_vec(), ours(target));
        self.whole(move |me| async move {
            let target = target?;
            me.fid().link(&name, &target.fid()).await?;
            me.change(|_| ());
            target.change(|meta| meta.nlink = meta.nlink.saturating_add(1));
            Ok(())
        })
    }

    fn unlink<'a>(&'a self, name: &'a [u8], target: &'a Arc<dyn Inode>) -> Op<'a, Result<()>> {
        let (name, target) = (name.to_vec(), ours(target));
        self.whole(move |me| async move {
            let target = target?;
            me.fid().unlinkat(&name, target.kind == FileType::Directory).await?;
            me.change(|_| ());
            target.lost_name();
            Ok(())
        })
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
        if !flags.is_empty() {
            // The protocol has no flags; Linux has the same answer.
            return Op::ready(Err(Errno::EINVAL));
        }
        let (old_name, new_name) = (old_name.to_vec(), new_name.to_vec());
        let (moved, new_dir, replaced) = (ours(moved), ours(new_dir), replaced.map(ours).transpose());
        self.whole(move |me| async move {
            let (moved, new_dir, replaced) = (moved?, new_dir?, replaced?);
            me.fid().renameat(&old_name, &new_dir.fid(), &new_name).await?;
            me.change(|_| ());
            new_dir.change(|_| ());
            moved.moved_to(&new_dir, &new_name);
            if let Some(replaced) = replaced {
                replaced.lost_name();
            }
            Ok(())
        })
    }

    fn read_dir<'a>(&'a self, cookie: u64, sink: &'a mut dyn DirSink) -> Op<'a, Result<()>> {
        if self.kind != FileType::Directory {
            return Op::ready(Err(Errno::ENOTDIR));
        }
        Op::boxed(self.list(cookie, sink))
    }

    fn read_link(&self) -> Op<'_, Result<Vec<u8>>> {
        if self.kind != FileType::Symlink {
            return Op::ready(Err(Errno::EINVAL));
        }
        Op::boxed(async move { self.fid().readlink().await })
    }

    fn page_cache(&self) -> Option<&Arc<PageCache>> {
        self.cache.as_ref()
    }

    fn read_through<'a>(&'a self, pos: u64, buf: &'a mut IoBuf<'_>) -> Op<'a, Result<usize>> {
        Op::boxed(self.read_at(pos, buf))
    }

    fn write_through<'a>(&'a self, pos: u64, buf: &'a mut IoBuf<'_>) -> Op<'a, Result<usize>> {
        Op::boxed(self.write_at(pos, buf))
    }

    /// The server is asked to open the file, so that it can say no, and so that the file is there when its name is not.
    fn open<'a>(&'a self, flags: u32, _thread: &'a Thread) -> Op<'a, Result<Option<Arc<dyn FileOps>>>> {
        let write = flags & raw::O_ACCMODE != raw::O_RDONLY;
        let read = flags & raw::O_ACCMODE != raw::O_WRONLY;
        let plain = matches!(self.kind, FileType::Regular | FileType::Directory);
        if !plain || (!write || self.is_open_for(true)) && (!read || self.is_open_for(false)) {
            return Op::ready(Ok(None));
        }
        Op::boxed(async move {
            if write {
                self.opened(true).await?;
            }
            if read {
                self.opened(false).await?;
            }
            Ok(None)
        })
    }

    fn sync(&self, data_only: bool) -> Op<'_, Result<()>> {
        self.whole(move |me| me.store(data_only))
    }

    fn get_xattr<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<Vec<u8>>> {
        Op::boxed(async move { self.fid().attribute(name).await })
    }

    fn set_xattr<'a>(&'a self, name: &'a [u8], value: &'a [u8], flags: u32) -> Op<'a, Result<()>> {
        if value.is_empty() {
            // To the server this would mean to remove it.
            return Op::ready(Err(Errno::EOPNOTSUPP));
        }
        self.change_attribute(name, value, flags)
    }

    fn list_xattr(&self) -> Op<'_, Result<Vec<u8>>> {
        Op::boxed(async move { self.fid().attribute(b"").await })
    }

    fn remove_xattr<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<()>> {
        self.change_attribute(name, b"", REPLACE)
    }
}

/// XATTR_REPLACE of setxattr(2).
const REPLACE: u32 = 2;

impl P9Inode {
    fn change_attribute(&self, name: &[u8], value: &[u8], flags: u32) -> Op<'static, Result<()>> {
        let (name, value) = (name.to_vec(), value.to_vec());
        self.whole(move |me| async move {
            me.change(|_| ());
            me.fid().set_attribute(&name, &value, flags).await
        })
    }
}
