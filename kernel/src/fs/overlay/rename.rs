//! rename(2) in the upper layer, with what it takes to hide lower ones.

use alloc::sync::Arc;

use super::OverlayFs;
use super::change::{check_empty, taken_away};
use super::copy_up::upper_child;
use super::inode::OverlayInode;
use super::lookup::{Reading, is_whiteout};
use super::work::{is_same, locked_child};
use crate::errno::{Errno, Result};
use crate::exec::MutexGuard;
use crate::fs::dentry::{Dentry, Name as Text};
use crate::fs::inode::{FileSystem, NewAttr, NewNode, RenameFlags};
use crate::fs::names::{self, Name};

/// What is moved where.
pub struct Rename {
    pub old_dir: Arc<OverlayInode>,
    pub old_name: Text,
    pub moved: Arc<OverlayInode>,
    pub new_dir: Arc<OverlayInode>,
    pub new_name: Text,
    /// What has the new name.
    pub replaced: Option<Arc<OverlayInode>>,
    pub flags: RenameFlags,
}

impl Rename {
    fn exchange(&self) -> bool {
        self.flags.contains(RenameFlags::EXCHANGE)
    }

    /// What has the new name and goes.
    fn victim(&self) -> Option<&Arc<OverlayInode>> {
        self.replaced.as_ref().filter(|_| !self.exchange())
    }

    /// What has the new name and gets the old one.
    fn other(&self) -> Option<&Arc<OverlayInode>> {
        self.replaced.as_ref().filter(|_| self.exchange())
    }

    /// What Linux checks before it copies anything: directories of lower layers stay where they are.
    async fn check(&self, fs: &OverlayFs) -> Result<()> {
        if self.flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::EINVAL);
        }
        let movable = |inode: &Arc<OverlayInode>| !inode.is_dir() || inode.is_pure();
        if !movable(&self.moved) || !self.other().is_none_or(movable) {
            return Err(Errno::EXDEV);
        }
        match self.victim().filter(|victim| victim.is_dir()) {
            Some(victim) => check_empty(fs, victim).await,
            None => Ok(()),
        }
    }

    pub async fn run(self) -> Result<()> {
        let fs = self.old_dir.instance()?;
        fs.writable()?;
        self.check(&fs).await?;
        self.old_dir.copy_up().await?;
        self.moved.copy_up().await?;
        self.new_dir.copy_up().await?;
        if let Some(other) = self.other() {
            other.copy_up().await?;
        }
        let _tree = fs.moving.lock().await;
        let _dirs = self.lock_dirs().await?;
        let _victim = match self.victim() {
            Some(victim) => Some(victim.lock.lock().await),
            None => None,
        };
        if let Some(victim) = self.victim().filter(|victim| victim.is_dir()) {
            check_empty(&fs, victim).await?;
        }
        self.prepare(&fs).await?;
        self.perform(&fs).await?;
        self.settle(&fs);
        Ok(())
    }

    /// The ancestor first. The tree keeps its shape meanwhile.
    async fn lock_dirs(&self) -> Result<(MutexGuard<'_, ()>, Option<MutexGuard<'_, ()>>)> {
        let (a, b) = (&self.old_dir, &self.new_dir);
        if Arc::ptr_eq(a, b) {
            return Ok((a.lock.lock().await, None));
        }
        let b_first = b.upper_now()?.is_ancestor_of(a.upper_now()?);
        let (first, second) = if b_first { (b, a) } else { (a, b) };
        let first = first.lock.lock().await;
        Ok((first, Some(second.lock.lock().await)))
    }

    /// A directory hides what lower layers have where it goes; files that keep the number of a lower one are noted.
    async fn prepare(&self, fs: &OverlayFs) -> Result<()> {
        let arrivals = [(Some(&self.moved), &self.new_dir), (self.other(), &self.old_dir)];
        for (inode, dir) in arrivals.into_iter().filter_map(|(inode, dir)| Some((inode?, dir))) {
            if inode.is_dir() && dir.is_merged() {
                fs.set_opaque(inode.upper_now()?).await?;
            }
            if inode.lower_number().is_some() {
                fs.make_impure(dir).await?;
            }
        }
        Ok(())
    }

    async fn perform(&self, fs: &OverlayFs) -> Result<()> {
        let work = &fs.writable()?.work;
        let from = Name { dir: self.old_dir.upper_now()?, name: &self.old_name };
        let to = Name { dir: self.new_dir.upper_now()?, name: &self.new_name };
        let source = self.moved.upper_now()?;
        let mut there = upper_child(fs, to.dir, to.name).await?;
        let on_whiteout = there.as_ref().is_some_and(|there| is_whiteout(there));
        let expected = self.replaced.as_ref().and_then(|replaced| replaced.upper());
        if !on_whiteout && !is_same(there.as_ref(), expected) {
            return Err(Errno::ESTALE);
        }
        if let Some(dir) = there.as_ref().filter(|there| there.is_dir() && !self.exchange()) {
            there = Some(emptied(fs, to, dir).await?);
        }
        let hides = !self.exchange() && fs.is_below(&self.old_dir, &self.old_name).await?;
        let trades = on_whiteout && (hides || source.is_dir());
        let flags = match (self.exchange() || trades, hides) {
            (true, _) => RenameFlags::EXCHANGE,
            (false, true) => RenameFlags::WHITEOUT,
            (false, false) => RenameFlags::empty(),
        };
        self.rename_upper(work.fs(), from, to, there.as_ref(), flags).await?;
        if trades && !hides {
            // The whiteout has come to the old name, where it hides nothing.
            let _guard = from.dir.inode().state().lock.lock().await;
            if let Some(whiteout) = locked_child(from.dir, from.name).await?.filter(|there| is_whiteout(there)) {
                names::remove(from.dir, from.name, &whiteout).await?;
            }
        }
        Ok(())
    }

    async fn rename_upper(
        &self,
        fs: &dyn FileSystem,
        from: Name<'_>,
        to: Name<'_>,
        there: Option<&Arc<Dentry>>,
        flags: RenameFlags,
    ) -> Result<()> {
        let _guards = names::lock_pair(fs, from.dir, to.dir).await;
        // Of a file with several names this may be another.
        let source = locked_child(from.dir, from.name).await?;
        let target = locked_child(to.dir, to.name).await?;
        let is_moved = is_same(source.as_ref(), self.moved.upper());
        if from.dir.is_dead() || to.dir.is_dead() || !is_moved || !is_same(target.as_ref(), there) {
            return Err(Errno::ESTALE);
        }
        let source = source.ok_or(Errno::ESTALE)?;
        if source.is_mount_point() || target.as_ref().is_some_and(|target| target.is_mount_point()) {
            return Err(Errno::EBUSY);
        }
        names::rename(from, &source, to, target.as_ref(), flags).await
    }

    fn settle(&self, fs: &OverlayFs) {
        if let Some(victim) = self.victim() {
            taken_away(fs, victim);
        }
        self.moved.moved(&self.new_dir, &self.new_name);
        if let Some(other) = self.other() {
            other.moved(&self.old_dir, &self.old_name);
        }
    }
}

/// An upper directory in which nothing is seen, in the place of one in which there may be whiteouts.
async fn emptied(fs: &OverlayFs, at: Name<'_>, dir: &Arc<Dentry>) -> Result<Arc<Dentry>> {
    if Reading::of(dir.inode()).more().await?.is_empty() {
        return Ok(dir.clone());
    }
    let work = &fs.writable()?.work;
    let meta = dir.inode().metadata();
    let empty = work.make(NewNode::Directory, NewAttr { perm: meta.perm, uid: meta.uid, gid: meta.gid }).await?;
    let result = match fs.set_opaque(&empty).await {
        Ok(()) => work.install(&empty, at, Some(dir), RenameFlags::EXCHANGE).await,
        error => error,
    };
    if let Err(errno) = result {
        work.discard(&empty).await;
        return Err(errno);
    }
    work.discard(dir).await;
    Ok(empty)
}
