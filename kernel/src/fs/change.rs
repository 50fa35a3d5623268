//! Changes of names: create, link, remove, rename. Each checks what Linux checks, in Linux's order.
//!
//! The parent directory's async mutex is held over the change. A rename between directories also takes the file system's
//! rename lock, which keeps the shape of the tree while the two directories' order is found out. A directory that is
//! removed or replaced is locked after its parent, so nothing is created in it meanwhile. The changes themselves are made
//! by [`super::names`].

use alloc::sync::Arc;

use super::dentry::Dentry;
use super::inode::{Inode, NewAttr, NewNode, RenameFlags};
use super::inode_flags;
use super::mount::Writing;
use super::names::{self, Name};
use super::path::Path;
use super::perm;
use super::walk::{self, Ctx, Flags, Last, Special, Walker};
use crate::errno::{Errno, Result};
use crate::process::Caps;

/// Mode and owner of a new node: umask applied, group and set-group-ID inherited from a set-group-ID directory.
pub fn new_attr(ctx: Ctx<'_>, dir: &dyn Inode, perm: u32, is_dir: bool) -> NewAttr {
    let meta = dir.metadata();
    let mut perm = (perm & 0o7777 & !ctx.fs.umask()) as u16;
    let mut gid = ctx.creds.fsgid;
    if meta.perm & 0o2000 != 0 {
        gid = meta.gid;
        if is_dir {
            perm |= 0o2000;
        } else if perm & 0o2010 == 0o2010 && !ctx.creds.in_group(gid) && !ctx.creds.capable(Caps::FSETID) {
            perm &= !0o2000;
        }
    }
    NewAttr { perm, uid: ctx.creds.fsuid, gid }
}

/// mkdirat, mknodat, symlinkat: a new node at `path`. Capabilities for devices are the caller's business.
pub async fn create(ctx: Ctx<'_>, dirfd: i32, path: &[u8], node: NewNode<'_>, perm: u32) -> Result<Path> {
    let mut walker = Walker::new(ctx, dirfd, path, Flags::empty())?;
    let Last::Name { name, slash } = walker.to_last().await? else { return Err(Errno::EEXIST) };
    let dir = &walker.at;
    let writing = dir.mount.writing().await;
    let _guard = dir.inode().state().lock.lock().await;
    check_absent(&dir.dentry, name.bytes()).await?;
    if slash && !matches!(node, NewNode::Directory) {
        return Err(Errno::ENOENT);
    }
    let dentry = create_locked(ctx, dir, name.bytes(), node, perm, Writing::outcome(&writing)).await?;
    Ok(Path { mount: dir.mount.clone(), dentry })
}

async fn check_absent(dir: &Arc<Dentry>, name: &[u8]) -> Result<()> {
    if walk::entry_locked(dir, name).await?.is_some() { Err(Errno::EEXIST) } else { Ok(()) }
}

/// Makes a name that was seen not to be there. The directory is locked; `writing` is what came of becoming a writer.
pub async fn create_locked(
    ctx: Ctx<'_>,
    dir: &Path,
    name: &[u8],
    node: NewNode<'_>,
    perm: u32,
    writing: Result<()>,
) -> Result<Arc<Dentry>> {
    let attr = check_create(ctx, dir, &node, perm, writing)?;
    names::make(&dir.dentry, name, node, attr).await
}

/// May a node be made in the locked directory? Answers with which attributes.
pub(super) fn check_create(
    ctx: Ctx<'_>,
    dir: &Path,
    node: &NewNode<'_>,
    perm: u32,
    writing: Result<()>,
) -> Result<NewAttr> {
    if dir.dentry.is_dead() {
        return Err(Errno::ENOENT);
    }
    writing?;
    perm::check_modify(ctx.creds, dir)?;
    Ok(match node {
        NewNode::Symlink(_) => NewAttr { perm: 0o777, ..new_attr(ctx, &**dir.inode(), 0, false) },
        _ => new_attr(ctx, &**dir.inode(), perm, matches!(node, NewNode::Directory)),
    })
}

/// linkat(2): `path` becomes another name of what `old` is.
pub async fn link(ctx: Ctx<'_>, old: &Path, dirfd: i32, path: &[u8]) -> Result<()> {
    let mut walker = Walker::new(ctx, dirfd, path, Flags::empty())?;
    let Last::Name { name, slash } = walker.to_last().await? else { return Err(Errno::EEXIST) };
    let dir = &walker.at;
    let writing = dir.mount.writing().await;
    let _guard = dir.inode().state().lock.lock().await;
    check_absent(&dir.dentry, name.bytes()).await?;
    if slash {
        return Err(Errno::ENOENT);
    }
    Writing::outcome(&writing)?;
    if !Arc::ptr_eq(&old.mount, &dir.mount) {
        return Err(Errno::EXDEV);
    }
    perm::check_link(ctx.creds, &**old.inode())?;
    if dir.dentry.is_dead() {
        return Err(Errno::ENOENT);
    }
    perm::check_modify(ctx.creds, dir)?;
    inode_flags::check_bound(&**old.inode())?;
    if old.dentry.is_dir() {
        return Err(Errno::EPERM);
    }
    names::link(&dir.dentry, name.bytes(), old.inode()).await
}

/// May `victim` be taken out of `dir`?
fn check_delete(ctx: Ctx<'_>, dir: &Path, victim: &Arc<Dentry>) -> Result<()> {
    perm::check_modify(ctx.creds, dir)?;
    inode_flags::check_not_append_only(&**dir.inode())?;
    perm::check_sticky(ctx.creds, &**dir.inode(), &**victim.inode())?;
    inode_flags::check_bound(&**victim.inode())
}

/// unlinkat(2) without AT_REMOVEDIR.
pub async fn unlink(ctx: Ctx<'_>, dirfd: i32, path: &[u8]) -> Result<()> {
    let mut walker = Walker::new(ctx, dirfd, path, Flags::empty())?;
    let Last::Name { name, slash } = walker.to_last().await? else { return Err(Errno::EISDIR) };
    let dir = &walker.at;
    let _writing = dir.mount.writing().await?;
    let _guard = dir.inode().state().lock.lock().await;
    let victim = walk::child_locked(&dir.dentry, name.bytes()).await?;
    check_unlink(ctx, dir, &victim, slash)?;
    names::remove(&dir.dentry, name.bytes(), &victim).await
}

/// What unlink(2) asks of a name in the locked directory.
pub(super) fn check_unlink(ctx: Ctx<'_>, dir: &Path, victim: &Arc<Dentry>, slash: bool) -> Result<()> {
    if slash {
        return Err(if victim.is_dir() { Errno::EISDIR } else { Errno::ENOTDIR });
    }
    check_delete(ctx, dir, victim)?;
    if victim.is_dir() {
        return Err(Errno::EISDIR);
    }
    if victim.is_mount_point() { Err(Errno::EBUSY) } else { Ok(()) }
}

/// unlinkat(2) with AT_REMOVEDIR.
pub async fn rmdir(ctx: Ctx<'_>, dirfd: i32, path: &[u8]) -> Result<()> {
    let mut walker = Walker::new(ctx, dirfd, path, Flags::empty())?;
    let name = match walker.to_last().await? {
        Last::Name { name, .. } => name,
        Last::Here(Special::Top) => return Err(Errno::EBUSY),
        Last::Here(Special::Dot) => return Err(Errno::EINVAL),
        Last::Here(Special::DotDot) => return Err(Errno::ENOTEMPTY),
    };
    let dir = &walker.at;
    let _writing = dir.mount.writing().await?;
    let _guard = dir.inode().state().lock.lock().await;
    let victim = walk::child_locked(&dir.dentry, name.bytes()).await?;
    check_rmdir(ctx, dir, &victim)?;
    names::remove(&dir.dentry, name.bytes(), &victim).await
}

/// What rmdir(2) asks of a name in the locked directory.
pub(super) fn check_rmdir(ctx: Ctx<'_>, dir: &Path, victim: &Arc<Dentry>) -> Result<()> {
    check_delete(ctx, dir, victim)?;
    if !victim.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    if victim.is_mount_point() { Err(Errno::EBUSY) } else { Ok(()) }
}

/// What RENAME_WHITEOUT leaves (rename(2)) is a character device 0/0 of the caller's.
pub fn whiteout_attr() -> NewAttr {
    let (uid, gid) = perm::current_ids();
    NewAttr { perm: 0, uid, gid }
}

/// renameat2(2).
pub async fn rename(
    ctx: Ctx<'_>,
    (old_fd, old_path): (i32, &[u8]),
    (new_fd, new_path): (i32, &[u8]),
    flags: RenameFlags,
) -> Result<()> {
    check_flags(flags)?;
    let mut old_walker = Walker::new(ctx, old_fd, old_path, Flags::empty())?;
    let old_last = old_walker.to_last().await?;
    let mut new_walker = Walker::new(ctx, new_fd, new_path, Flags::empty())?;
    let new_last = new_walker.to_last().await?;
    let (old_dir, new_dir) = (&old_walker.at, &new_walker.at);
    if !Arc::ptr_eq(&old_dir.mount, &new_dir.mount) {
        return Err(Errno::EXDEV);
    }
    let Last::Name { name: old_name, slash: old_slash } = old_last else { return Err(Errno::EBUSY) };
    let Last::Name { name: new_name, slash: new_slash } = new_last else {
        return Err(if flags.contains(RenameFlags::NOREPLACE) { Errno::EEXIST } else { Errno::EBUSY });
    };
    let _writing = old_dir.mount.writing().await?;
    let fs = old_dir.mount.fs();
    let _guards = names::lock_pair(&**fs, &old_dir.dentry, &new_dir.dentry).await;
    let source = walk::child_locked(&old_dir.dentry, old_name.bytes()).await?;
    let target = match walk::child_locked(&new_dir.dentry, new_name.bytes()).await {
        Ok(target) => Some(target),
        Err(Errno::ENOENT) => None,
        Err(errno) => return Err(errno),
    };
    let slashes = [old_slash, new_slash];
    let ends = Ends { old_dir, new_dir, source: &source, target: target.as_ref(), flags, slashes };
    if !ends.check(ctx)? {
        return Ok(());
    }
    let from = Name { dir: &old_dir.dentry, name: old_name.bytes() };
    let to = Name { dir: &new_dir.dentry, name: new_name.bytes() };
    names::rename(from, &source, to, target.as_ref(), flags).await
}

pub(super) fn check_flags(flags: RenameFlags) -> Result<()> {
    let others = RenameFlags::NOREPLACE | RenameFlags::WHITEOUT;
    let fits = !flags.contains(RenameFlags::EXCHANGE) || !flags.intersects(others);
    if fits { Ok(()) } else { Err(Errno::EINVAL) }
}

/// What a rename is about. Both directories are locked.
pub(super) struct Ends<'a> {
    pub old_dir: &'a Path,
    pub new_dir: &'a Path,
    pub source: &'a Arc<Dentry>,
    pub target: Option<&'a Arc<Dentry>>,
    pub flags: RenameFlags,
    /// Do the old and the new path end in one?
    pub slashes: [bool; 2],
}

impl Ends<'_> {
    /// False: both are names of the same, and nothing is to be done.
    pub fn check(&self, ctx: Ctx<'_>) -> Result<bool> {
        let exchange = self.exchanges();
        if self.flags.contains(RenameFlags::NOREPLACE) && self.target.is_some() {
            return Err(Errno::EEXIST);
        }
        if exchange && self.target.is_none() {
            return Err(Errno::ENOENT);
        }
        let [old_slash, new_slash] = self.slashes;
        if !self.source.is_dir() && (old_slash || new_slash && !exchange) {
            return Err(Errno::ENOTDIR);
        }
        if exchange && new_slash && !self.target.is_some_and(|target| target.is_dir()) {
            return Err(Errno::ENOTDIR);
        }
        self.check_loops()?;
        if self.target.is_some_and(|target| Arc::ptr_eq(target.inode(), self.source.inode())) {
            return Ok(false);
        }
        self.check_rights(ctx)?;
        Ok(true)
    }

    fn within_one(&self) -> bool {
        Arc::ptr_eq(&self.old_dir.dentry, &self.new_dir.dentry)
    }

    fn exchanges(&self) -> bool {
        self.flags.contains(RenameFlags::EXCHANGE)
    }

    /// A directory can neither become its own descendant nor replace its ancestor.
    fn check_loops(&self) -> Result<()> {
        if self.within_one() {
            return Ok(());
        }
        if self.source.is_ancestor_of(&self.new_dir.dentry) {
            return Err(Errno::EINVAL);
        }
        if self.target.is_some_and(|target| target.is_ancestor_of(&self.old_dir.dentry)) {
            return Err(if self.exchanges() { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        Ok(())
    }

    fn check_rights(&self, ctx: Ctx<'_>) -> Result<()> {
        check_delete(ctx, self.old_dir, self.source)?;
        match self.target {
            None if self.new_dir.dentry.is_dead() => return Err(Errno::ENOENT),
            None if self.within_one() => {}
            None => perm::check_modify(ctx.creds, self.new_dir)?,
            Some(target) => {
                check_delete(ctx, self.new_dir, target)?;
                if !self.exchanges() && self.source.is_dir() != target.is_dir() {
                    return Err(if target.is_dir() { Errno::EISDIR } else { Errno::ENOTDIR });
                }
            }
        }
        if !self.within_one() {
            // The ".." of a moved directory is written.
            let moved = [Some(self.source), self.target.filter(|_| self.exchanges())];
            for dir in moved.into_iter().flatten().filter(|dentry| dentry.is_dir()) {
                perm::check(ctx.creds, &**dir.inode(), perm::Want::WRITE)?;
            }
        }
        if self.source.is_mount_point() || self.target.is_some_and(|target| target.is_mount_point()) {
            return Err(Errno::EBUSY);
        }
        Ok(())
    }
}
