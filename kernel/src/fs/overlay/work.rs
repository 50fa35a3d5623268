//! The work directory: where things are put together before they get their name, and taken apart after they have lost it.

use alloc::sync::Arc;
use alloc::vec;
use core::sync::atomic::{AtomicU64, Ordering};

use super::lookup::read_all;
use crate::errno::{Errno, Result};
use crate::exec::{Mutex, budget};
use crate::fs::dentry::Dentry;
use crate::fs::inode::{DeviceId, FileSystem, FileType, Inode, NewAttr, NewNode, RenameFlags};
use crate::fs::names::{self, Name};
use crate::fs::walk;

pub struct Work {
    fs: Arc<dyn FileSystem>,
    dir: Arc<Dentry>,
    next: AtomicU64,
    /// A whiteout of which others are further names.
    whiteout: Mutex<Option<Arc<Dentry>>>,
    /// Of whiteouts.
    owner: (u32, u32),
}

/// The entry of a locked directory, if there is one.
pub async fn locked_child(dir: &Arc<Dentry>, name: &[u8]) -> Result<Option<Arc<Dentry>>> {
    match walk::child_locked(dir, name).await {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Both nothing, or both the same file.
pub fn is_same(a: Option<&Arc<Dentry>>, b: Option<&Arc<Dentry>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => Arc::ptr_eq(a.inode(), b.inode()),
        (a, b) => a.is_none() && b.is_none(),
    }
}

impl Work {
    /// `fs` is the upper layer's.
    pub fn new(fs: Arc<dyn FileSystem>, dir: Arc<Dentry>, owner: (u32, u32)) -> Work {
        Work { fs, dir, next: AtomicU64::new(0), whiteout: Mutex::new(None), owner }
    }

    pub fn dir(&self) -> &Arc<Dentry> {
        &self.dir
    }

    pub fn fs(&self) -> &dyn FileSystem {
        &*self.fs
    }

    fn name(&self) -> alloc::string::String {
        format!("#{:x}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    pub async fn make(&self, node: NewNode<'_>, attr: NewAttr) -> Result<Arc<Dentry>> {
        let _guard = self.dir.inode().state().lock.lock().await;
        if self.dir.is_dead() {
            return Err(Errno::ENOENT);
        }
        loop {
            let name = self.name();
            // Somebody else may have made one.
            if locked_child(&self.dir, name.as_bytes()).await?.is_none() {
                return names::make(&self.dir, name.as_bytes(), node, attr).await;
            }
        }
    }

    /// One more name for what is in the upper layer.
    pub async fn link(&self, inode: &Arc<dyn Inode>) -> Result<Arc<Dentry>> {
        let _guard = self.dir.inode().state().lock.lock().await;
        if self.dir.is_dead() {
            return Err(Errno::ENOENT);
        }
        loop {
            let name = self.name();
            if locked_child(&self.dir, name.as_bytes()).await?.is_none() {
                names::link(&self.dir, name.as_bytes(), inode).await?;
                return walk::child_locked(&self.dir, name.as_bytes()).await;
            }
        }
    }

    /// All whiteouts are one file, for as long as that can have more names.
    pub async fn whiteout(&self) -> Result<Arc<Dentry>> {
        let mut shared = self.whiteout.lock().await;
        let first = match shared.take().filter(|whiteout| !whiteout.is_dead()) {
            Some(first) => first,
            None => {
                let attr = NewAttr { perm: 0, uid: self.owner.0, gid: self.owner.1 };
                self.make(NewNode::CharDevice(DeviceId::default()), attr).await?
            }
        };
        match self.link(first.inode()).await {
            Ok(other) => {
                *shared = Some(first);
                Ok(other)
            }
            // Then it is the last of its kind.
            Err(_) => Ok(first),
        }
    }

    /// Moves what is in the work directory to a name, where `there` is now; ESTALE if it is something else.
    pub async fn install(
        &self,
        made: &Arc<Dentry>,
        to: Name<'_>,
        there: Option<&Arc<Dentry>>,
        flags: RenameFlags,
    ) -> Result<()> {
        let _guards = names::lock_pair(&*self.fs, &self.dir, to.dir).await;
        let target = locked_child(to.dir, to.name).await?;
        if to.dir.is_dead() || made.is_dead() || !is_same(target.as_ref(), there) {
            return Err(Errno::ESTALE);
        }
        if target.as_ref().is_some_and(|target| target.is_mount_point()) {
            return Err(Errno::EBUSY);
        }
        let name = made.name();
        names::rename(Name { dir: &self.dir, name: &name }, made, to, target.as_ref(), flags).await
    }

    /// Moves something into the work directory, to be discarded.
    pub async fn fetch(&self, from: Name<'_>, there: &Arc<Dentry>) -> Result<()> {
        let _guards = names::lock_pair(&*self.fs, &self.dir, from.dir).await;
        let source = locked_child(from.dir, from.name).await?;
        if self.dir.is_dead() || !is_same(source.as_ref(), Some(there)) {
            return Err(Errno::ESTALE);
        }
        let name = self.name();
        let to = Name { dir: &self.dir, name: name.as_bytes() };
        let target = locked_child(&self.dir, name.as_bytes()).await?;
        names::rename(from, there, to, target.as_ref(), RenameFlags::empty()).await
    }

    /// Removes what is in the work directory and nobody needs. What cannot be removed goes with the next mount.
    pub async fn discard(&self, victim: &Arc<Dentry>) {
        if let Err(errno) = remove_tree(&self.dir, victim.clone()).await {
            log::warn!("overlay: a remainder in the work directory: {errno:?}");
        }
    }
}

/// Removes a file or a directory with all that is in it.
pub async fn remove_tree(dir: &Arc<Dentry>, victim: Arc<Dentry>) -> Result<()> {
    let mut left = vec![(dir.clone(), victim, false)];
    while let Some((parent, victim, emptied)) = left.pop() {
        if victim.kind() == FileType::Directory && !emptied {
            let entries = read_all(victim.inode()).await?;
            left.push((parent, victim.clone(), true));
            for found in entries {
                let _guard = victim.inode().state().lock.lock().await;
                if let Some(child) = locked_child(&victim, &found.entry.name).await? {
                    left.push((victim.clone(), child, false));
                }
            }
        } else {
            if victim.is_mount_point() {
                return Err(Errno::EBUSY);
            }
            let name = victim.name();
            let _guard = parent.inode().state().lock.lock().await;
            names::remove(&parent, &name, &victim).await?;
        }
        budget().await;
    }
    Ok(())
}
