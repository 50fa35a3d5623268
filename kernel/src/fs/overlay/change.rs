//! Names that come and go: create, link, unlink.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::OverlayFs;
use super::copy_up::upper_child;
use super::inode::OverlayInode;
use super::lookup::is_whiteout;
use super::work::{is_same, locked_child};
use crate::errno::{Errno, Result};
use crate::fs::dentry::{Dentry, Name as Text};
use crate::fs::inode::{DeviceId, Inode, NewAttr, NewNode, RenameFlags};
use crate::fs::names::{self, Name};

/// A [`NewNode`] that can be kept.
pub enum Node {
    Symlink(Vec<u8>),
    Other(NewNode<'static>),
}

impl Node {
    /// EPERM for whiteouts: those are the overlay's.
    pub fn of(node: NewNode<'_>) -> Result<Node> {
        Ok(Node::Other(match node {
            NewNode::Symlink(text) => return Ok(Node::Symlink(text.to_vec())),
            NewNode::CharDevice(device) if device == DeviceId::default() => return Err(Errno::EPERM),
            NewNode::CharDevice(device) => NewNode::CharDevice(device),
            NewNode::BlockDevice(device) => NewNode::BlockDevice(device),
            NewNode::Regular => NewNode::Regular,
            NewNode::Directory => NewNode::Directory,
            NewNode::Fifo => NewNode::Fifo,
            NewNode::Socket => NewNode::Socket,
        }))
    }

    fn borrowed(&self) -> NewNode<'_> {
        match self {
            Node::Symlink(text) => NewNode::Symlink(text),
            Node::Other(node) => *node,
        }
    }
}

/// The name is free, or a whiteout's.
async fn free_name(fs: &OverlayFs, dir: &Arc<Dentry>, name: &[u8]) -> Result<Option<Arc<Dentry>>> {
    let there = upper_child(fs, dir, name).await?;
    match &there {
        // Somebody has put it there behind the overlay's back.
        Some(there) if !is_whiteout(there) => Err(Errno::ESTALE),
        _ => Ok(there),
    }
}

pub async fn create(dir: Arc<OverlayInode>, name: Text, node: Node, attr: NewAttr) -> Result<Arc<dyn Inode>> {
    dir.copy_up().await?;
    let fs = dir.instance()?;
    let work = &fs.writable()?.work;
    let _lock = dir.lock.lock().await;
    let to = Name { dir: dir.upper_now()?, name: &name };
    let made = match free_name(&fs, to.dir, to.name).await? {
        None => {
            let _guard = to.dir.inode().state().lock.lock().await;
            if locked_child(to.dir, to.name).await?.is_some() {
                return Err(Errno::ESTALE);
            }
            names::make(to.dir, to.name, node.borrowed(), attr).await?
        }
        Some(whiteout) => {
            let made = work.make(node.borrowed(), attr).await?;
            let result = replace_whiteout(&fs, &made, to, &whiteout).await;
            if result.is_err() {
                work.discard(&made).await;
            }
            result?;
            made
        }
    };
    Ok(fs.made(&dir, &name, made)?)
}

/// Moves what was made to where a whiteout is.
async fn replace_whiteout(fs: &OverlayFs, made: &Arc<Dentry>, to: Name<'_>, whiteout: &Arc<Dentry>) -> Result<()> {
    let work = &fs.writable()?.work;
    if !made.is_dir() {
        return work.install(made, to, Some(whiteout), RenameFlags::empty()).await;
    }
    fs.set_opaque(made).await?;
    work.install(made, to, Some(whiteout), RenameFlags::EXCHANGE).await?;
    work.discard(whiteout).await;
    Ok(())
}

pub async fn link(dir: Arc<OverlayInode>, name: Text, target: Arc<OverlayInode>) -> Result<()> {
    target.copy_up().await?;
    dir.copy_up().await?;
    let fs = dir.instance()?;
    let work = &fs.writable()?.work;
    let _lock = dir.lock.lock().await;
    let to = Name { dir: dir.upper_now()?, name: &name };
    let inode = target.upper_now()?.inode();
    if target.lower_number().is_some() {
        fs.make_impure(&dir).await?;
    }
    match free_name(&fs, to.dir, to.name).await? {
        None => {
            let _guard = to.dir.inode().state().lock.lock().await;
            if locked_child(to.dir, to.name).await?.is_some() {
                return Err(Errno::ESTALE);
            }
            names::link(to.dir, to.name, inode).await
        }
        Some(whiteout) => {
            let made = work.link(inode).await?;
            let result = replace_whiteout(&fs, &made, to, &whiteout).await;
            if result.is_err() {
                work.discard(&made).await;
            }
            result
        }
    }
}

/// Nothing is seen in the directory, which is locked.
pub async fn check_empty(fs: &OverlayFs, dir: &OverlayInode) -> Result<()> {
    if fs.merge(dir).await?.is_empty() { Ok(()) } else { Err(Errno::ENOTEMPTY) }
}

pub async fn unlink(dir: Arc<OverlayInode>, name: Text, target: Arc<OverlayInode>) -> Result<()> {
    let fs = dir.instance()?;
    fs.writable()?;
    if target.is_dir() {
        // Before anything is copied.
        check_empty(&fs, &target).await?;
    }
    dir.copy_up().await?;
    let _lock = dir.lock.lock().await;
    let _target = target.lock.lock().await;
    if target.is_dir() {
        check_empty(&fs, &target).await?;
    }
    let at = Name { dir: dir.upper_now()?, name: &name };
    let there = upper_child(&fs, at.dir, at.name).await?;
    if !is_same(there.as_ref(), target.upper()) {
        return Err(Errno::ESTALE);
    }
    if fs.is_below(&dir, &name).await? {
        whiteout(&fs, at, there.as_ref()).await?;
    } else if let Some(there) = &there {
        remove(&fs, at, there).await?;
    }
    taken_away(&fs, &target);
    Ok(())
}

/// The last of its names is gone, or one of several.
pub fn taken_away(fs: &OverlayFs, target: &OverlayInode) {
    let last = target.is_dir() || target.upper().is_none() || target.real().metadata().nlink == 0;
    if last {
        target.set_removed();
        fs.table.forget(target);
    }
}

/// Puts a whiteout in the place of what is there.
async fn whiteout(fs: &OverlayFs, at: Name<'_>, there: Option<&Arc<Dentry>>) -> Result<()> {
    let work = &fs.writable()?.work;
    let whiteout = work.whiteout().await?;
    let dir = there.filter(|there| there.is_dir());
    let flags = if dir.is_some() { RenameFlags::EXCHANGE } else { RenameFlags::empty() };
    if let Err(errno) = work.install(&whiteout, at, there, flags).await {
        work.discard(&whiteout).await;
        return Err(errno);
    }
    if let Some(dir) = dir {
        work.discard(dir).await;
    }
    Ok(())
}

/// Removes what only the upper layer has. In a directory there may still be whiteouts.
async fn remove(fs: &OverlayFs, at: Name<'_>, there: &Arc<Dentry>) -> Result<()> {
    if there.is_dir() {
        let work = &fs.writable()?.work;
        work.fetch(at, there).await?;
        work.discard(there).await;
        return Ok(());
    }
    let _guard = at.dir.inode().state().lock.lock().await;
    if !is_same(locked_child(at.dir, at.name).await?.as_ref(), Some(there)) {
        return Err(Errno::ESTALE);
    }
    names::remove(at.dir, at.name, there).await
}
