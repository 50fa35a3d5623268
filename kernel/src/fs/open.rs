//! open(2): from a path to an open file description.

use alloc::sync::Arc;

use linux_raw_sys::general as raw;

use super::change;
use super::change_now::{Purpose, Spot};
use super::dentry::{self, Cached, Dentry};
use super::inode::{FileType, Inode, NewNode};
use super::inode_flags::{self, InodeFlags};
use super::inotify::hooks;
use super::mount::{Mount, MountFlags, Writing};
use super::open_file::{Kind, OpenFile, plain_kind};
use super::path::Path;
use super::perm::{self, Want};
use super::state::Hold;
use super::walk::{self, Ctx, Flags, Last, Walker};
use super::{anon, devfs, pipe, regular};
use crate::errno::{Errno, Result};
use crate::syscalls::SysResult;

/// What openat2(2) asks for.
#[derive(Clone, Copy, Debug)]
pub struct How {
    /// O_*.
    pub flags: u32,
    /// Permission bits of a file that is created.
    pub mode: u32,
    /// RESOLVE_*, as walk flags.
    pub resolve: Flags,
}

impl How {
    pub fn new(flags: u32, mode: u32) -> Self {
        How { flags, mode, resolve: Flags::empty() }
    }

    pub(super) fn has(&self, flags: u32) -> bool {
        self.flags & flags == flags
    }

    /// What must be permitted to open an existing file.
    fn want(&self) -> Want {
        let mut want = match self.flags & raw::O_ACCMODE {
            raw::O_RDONLY => Want::READ,
            raw::O_WRONLY => Want::WRITE,
            // 3 is for ioctls only, but wants both.
            _ => Want::READ | Want::WRITE,
        };
        want.set(Want::WRITE, want.contains(Want::WRITE) || self.has(raw::O_TRUNC));
        want
    }

    pub(super) fn walk_flags(&self) -> Flags {
        let mut flags = self.resolve;
        flags.set(Flags::FOLLOW, !self.has(raw::O_NOFOLLOW));
        flags.set(Flags::DIRECTORY, self.has(raw::O_DIRECTORY));
        flags
    }

    /// What an open file of this kind holds.
    pub(super) fn hold(&self, kind: FileType) -> Hold {
        let write = self.flags & raw::O_ACCMODE != raw::O_RDONLY;
        if kind == FileType::Regular && write { Hold::Writer } else { Hold::None }
    }

    /// O_DIRECT is for those files that have an alignment for it.
    pub(super) fn check_direct(&self, place: &Path) -> Result<()> {
        let has_it = || place.dentry.kind() == FileType::BlockDevice || place.inode().direct_alignment().is_some();
        if self.has(raw::O_DIRECT) && !has_it() { Err(Errno::EINVAL) } else { Ok(()) }
    }
}

pub(super) const TMPFILE: u32 = raw::O_TMPFILE & !raw::O_DIRECTORY;

/// Opens `path`, creating it if asked to.
pub async fn open(ctx: Ctx<'_>, dirfd: i32, path: &[u8], mut how: How) -> SysResult<Arc<OpenFile>> {
    if how.has(raw::O_PATH) {
        how.flags &= raw::O_PATH | raw::O_DIRECTORY | raw::O_NOFOLLOW | raw::O_CLOEXEC;
        let place = walk::lookup(ctx, dirfd, path, how.walk_flags()).await?;
        return Ok(path_only(place, &how));
    }
    if how.has(TMPFILE) {
        check_unnamed(&how)?;
        let dir = walk::lookup(ctx, dirfd, path, how.walk_flags()).await?;
        let file = open_unnamed(ctx, dir, how).await?;
        hooks::used(&file, raw::IN_OPEN);
        return Ok(file);
    }
    if how.has(raw::O_CREAT | raw::O_DIRECTORY) {
        return Err(Errno::EINVAL.into());
    }
    let (place, made) = if how.has(raw::O_CREAT) {
        find_or_create(ctx, dirfd, path, &how).await?
    } else {
        (walk::lookup(ctx, dirfd, path, how.walk_flags()).await?, None)
    };
    // Who has made the file can open it: the mount has had a writer ever since.
    let file = open_place(ctx, place, &how, made.is_some()).await?;
    drop(made);
    hooks::used(&file, raw::IN_OPEN);
    Ok(file)
}

/// Opens what has been found already, without a name (open_by_handle_at(2)).
pub async fn open_found(ctx: Ctx<'_>, place: Path, mut how: How) -> SysResult<Arc<OpenFile>> {
    if how.has(raw::O_PATH) {
        how.flags &= raw::O_PATH | raw::O_DIRECTORY | raw::O_NOFOLLOW | raw::O_CLOEXEC;
    }
    let unnamed = how.has(TMPFILE);
    if unnamed {
        check_unnamed(&how)?;
    } else if how.has(raw::O_CREAT | raw::O_DIRECTORY) {
        return Err(Errno::EINVAL.into());
    }
    if how.has(raw::O_DIRECTORY) && !place.dentry.is_dir() {
        return Err(Errno::ENOTDIR.into());
    }
    if how.has(raw::O_PATH) {
        return Ok(path_only(place, &how));
    }
    if !unnamed && how.has(raw::O_CREAT | raw::O_EXCL) {
        return Err(Errno::EEXIST.into());
    }
    let file = if unnamed { open_unnamed(ctx, place, how).await? } else { open_place(ctx, place, &how, false).await? };
    hooks::used(&file, raw::IN_OPEN);
    Ok(file)
}

fn path_only(place: Path, how: &How) -> Arc<OpenFile> {
    OpenFile::new(place, Kind::Path, raw::O_PATH | how.flags & (raw::O_DIRECTORY | raw::O_NOFOLLOW), Hold::None)
}

/// A descriptor's worth of a place (O_PATH). With `tree` it is the root of a detached tree of mounts, which goes with it.
pub fn open_path(place: Path, tree: bool) -> Arc<OpenFile> {
    OpenFile::new(place, Kind::Path, raw::O_PATH, if tree { Hold::Tree } else { Hold::None })
}

/// Opens what `place` is, which was just `created` or must be checked.
pub async fn open_place(ctx: Ctx<'_>, place: Path, how: &How, created: bool) -> SysResult<Arc<OpenFile>> {
    if !created {
        check_open(ctx, &place, how)?;
    }
    let kind = place.dentry.kind();
    let hold = HoldGuard::new(&place, how.hold(kind)).await?;
    if !created && how.has(raw::O_TRUNC) && kind == FileType::Regular {
        // Truncation excludes running programs even for O_RDONLY.
        let _truncating = HoldGuard::new(&place, Hold::Writer).await?;
        regular::truncate(ctx.thread, &place, 0).await?;
    }
    let inode = place.inode();
    let kind = open_kind(ctx, inode, kind, how.flags).await?;
    how.check_direct(&place)?;
    let hold = hold.keep();
    Ok(opened(place, kind, how, hold))
}

pub(super) fn opened(place: Path, kind: Kind, how: &How, hold: Hold) -> Arc<OpenFile> {
    OpenFile::new(place, kind, status_flags(how.flags), hold)
}

/// The flags that stay with the description (F_GETFL).
fn status_flags(flags: u32) -> u32 {
    flags & !(raw::O_CREAT | raw::O_EXCL | raw::O_NOCTTY | raw::O_TRUNC | raw::O_CLOEXEC)
}

/// A hold on the inode of a place, and on its mount if it is one for writing. Given back unless the open file takes it over.
pub(super) struct HoldGuard<'a> {
    place: &'a Path,
    hold: Hold,
}

impl<'a> HoldGuard<'a> {
    async fn new(place: &'a Path, hold: Hold) -> Result<Self> {
        let writing = match hold {
            Hold::Writer => Some(place.mount.writing().await?),
            _ => None,
        };
        HoldGuard::with(place, hold, writing)
    }

    /// A hold for writing takes over that its maker is a writer of the mount.
    pub fn with(place: &'a Path, hold: Hold, writing: Option<Writing<&Mount>>) -> Result<Self> {
        place.inode().state().take(hold)?;
        if hold == Hold::Writer {
            writing.into_iter().for_each(Writing::keep);
        }
        Ok(HoldGuard { place, hold })
    }

    pub fn keep(mut self) -> Hold {
        core::mem::replace(&mut self.hold, Hold::None)
    }
}

impl Drop for HoldGuard<'_> {
    fn drop(&mut self) {
        self.place.inode().state().release(self.hold);
        if self.hold == Hold::Writer {
            self.place.mount.stop_writing();
        }
    }
}

async fn open_kind(ctx: Ctx<'_>, inode: &Arc<dyn Inode>, kind: FileType, flags: u32) -> SysResult<Kind> {
    if let Some(thread) = ctx.thread
        && let Some(ops) = inode.open(flags, thread).await?
    {
        return Ok(Kind::Ops(ops));
    }
    if let Some(kind) = plain_kind(inode) {
        return Ok(kind);
    }
    let thread = ctx.thread.ok_or(Errno::ENXIO)?;
    match kind {
        FileType::CharDevice | FileType::BlockDevice => {
            let device = devfs::device(kind, inode.metadata().rdev).ok_or(Errno::ENXIO)?;
            Ok(Kind::Ops(crate::exec::interruptible(thread, device.open(flags, thread)).await??))
        }
        FileType::Fifo => {
            if let Some(pipe) = anon::pipe_of(&**inode) {
                return Ok(Kind::Ops(pipe::reopen(pipe, flags)?));
            }
            Ok(Kind::Ops(pipe::open_fifo(thread, inode.state().fifo(), flags).await?))
        }
        // Sockets, and nameless files that nothing but their descriptor leads to.
        _ => Err(Errno::ENXIO.into()),
    }
}

/// The checks of Linux's may_open and do_open.
pub(super) fn check_open(ctx: Ctx<'_>, place: &Path, how: &How) -> Result<()> {
    let kind = place.dentry.kind();
    let want = how.want();
    if kind == FileType::Directory {
        if how.has(raw::O_CREAT) || want.contains(Want::WRITE) {
            return Err(Errno::EISDIR);
        }
    } else if how.has(raw::O_DIRECTORY) {
        return Err(Errno::ENOTDIR);
    }
    let flags = place.mount.flags();
    match kind {
        FileType::Symlink => return Err(Errno::ELOOP),
        FileType::CharDevice | FileType::BlockDevice if flags.contains(MountFlags::NODEV) => {
            return Err(Errno::EACCES);
        }
        FileType::Regular if want.contains(Want::WRITE) => place.mount.check_writable()?,
        _ => {}
    }
    let inode = &**place.inode();
    perm::check(ctx.creds, inode, want).or_else(|errno| ctx.granted(inode, errno))?;
    if inode.obeyed_flags().contains(InodeFlags::APPEND)
        && (want.contains(Want::WRITE) && !how.has(raw::O_APPEND) || how.has(raw::O_TRUNC))
    {
        return Err(Errno::EPERM);
    }
    if how.has(raw::O_NOATIME) && !perm::is_owner(ctx.creds, &place.inode().metadata()) {
        return Err(Errno::EPERM);
    }
    Ok(())
}

/// A file was made, and its maker is still a writer of the mount.
type Made = Option<Writing<Arc<Mount>>>;

/// O_CREAT.
async fn find_or_create(ctx: Ctx<'_>, dirfd: i32, path: &[u8], how: &How) -> Result<(Path, Made)> {
    if how.resolve.is_empty()
        && let Some(Ok(Spot { dir, name, slash: false })) = Spot::find(ctx, dirfd, path, Purpose::Look)
        && let Some(found) = find_or_create_in(ctx, dir, name, how).await
    {
        return found;
    }
    let mut walker = Walker::new(ctx, dirfd, path, how.resolve)?;
    loop {
        let Last::Name { name, slash } = walker.to_last().await? else {
            // "/", "." and ".." are there.
            return Err(if how.has(raw::O_EXCL) { Errno::EEXIST } else { Errno::EISDIR });
        };
        if slash {
            return Err(Errno::EISDIR);
        }
        let child = match walker.child(name.bytes()).await {
            Ok(child) => child,
            Err(Errno::ENOENT) => match create(ctx, &walker.at, name.bytes(), how).await? {
                (dentry, None) => dentry,
                (dentry, made) => return Ok((Path { mount: walker.at.mount, dentry }, made)),
            },
            Err(errno) => return Err(errno),
        };
        if how.has(raw::O_EXCL) {
            return Err(Errno::EEXIST);
        }
        if child.kind() == FileType::Symlink && !how.has(raw::O_NOFOLLOW) {
            walker.follow_last(&child).await?;
            if walker.arrived() {
                walker.check_end()?;
                return Ok((walker.at, None));
            }
            continue;
        }
        perm::check_reuse(ctx.creds, &**walker.at.inode(), &**child.inode())?;
        walker.step(child)?;
        walker.check_end()?;
        return Ok((walker.at, None));
    }
}

/// The same in a directory that is found already, which is asked once. None: a symbolic link has the name, to be followed, or
/// the directory does not tell the cache of its names.
async fn find_or_create_in(ctx: Ctx<'_>, dir: Path, name: &[u8], how: &How) -> Option<Result<(Path, Made)>> {
    if dir.inode().fs().volatile_names() {
        return None;
    }
    let child = match dentry::cached(&dir.dentry, name) {
        Cached::Found(child) => child,
        Cached::Nothing | Cached::Unknown => match create(ctx, &dir, name, how).await {
            Ok((child, None)) => child,
            Ok((dentry, made)) => return Some(Ok((Path { dentry, ..dir }, made))),
            Err(errno) => return Some(Err(errno)),
        },
    };
    if how.has(raw::O_EXCL) {
        return Some(Err(Errno::EEXIST));
    }
    let followed = child.kind() == FileType::Symlink && !how.has(raw::O_NOFOLLOW);
    if followed {
        return None;
    }
    let checked = perm::check_reuse(ctx.creds, &**dir.inode(), &**child.inode());
    Some(checked.map(|()| (dir.entered(child), None)))
}

/// Creates a regular file unless somebody else did meanwhile.
async fn create(ctx: Ctx<'_>, dir: &Path, name: &[u8], how: &How) -> Result<(Arc<Dentry>, Made)> {
    let writing = Writing::begin(dir.mount.clone()).await;
    let _guard = dir.inode().state().lock.lock().await;
    if let Some(dentry) = walk::entry_locked(&dir.dentry, name).await? {
        return Ok((dentry, None));
    }
    match change::create_locked(ctx, dir, name, NewNode::Regular, how.mode, Writing::outcome(&writing)).await {
        // Where others change the directory, too, somebody may have come first even so.
        Err(Errno::EEXIST) if dir.dentry.is_shared() && !how.has(raw::O_EXCL) => {
            Ok((walk::child_locked(&dir.dentry, name).await?, None))
        }
        created => Ok((created?, Some(writing?))),
    }
}

/// What O_TMPFILE wants of the other flags.
fn check_unnamed(how: &How) -> Result<()> {
    if how.has(raw::O_DIRECTORY) && how.want().contains(Want::WRITE) { Ok(()) } else { Err(Errno::EINVAL) }
}

/// O_TMPFILE: a file without a name in a directory.
async fn open_unnamed(ctx: Ctx<'_>, dir: Path, how: How) -> Result<Arc<OpenFile>> {
    let writing = Writing::begin(dir.mount.clone()).await?;
    perm::check_modify(ctx.creds, &dir)?;
    let attr = change::new_attr(ctx, &**dir.inode(), how.mode, false);
    let inode = dir.inode().create_unnamed(attr).await?;
    if !how.has(raw::O_EXCL) {
        inode.state().set_linkable();
    }
    let kind = plain_kind(&inode).ok_or(Errno::EOPNOTSUPP)?;
    let name = format!("#{}", inode.metadata().ino);
    let dentry = Dentry::new(Some(dir.dentry.clone()), name.as_bytes(), inode);
    dentry.set_dead();
    let flags = status_flags(how.flags & !raw::O_DIRECTORY);
    let place = Path { mount: dir.mount, dentry };
    let hold = HoldGuard::new(&place, Hold::Writer).await?.keep();
    drop(writing);
    Ok(OpenFile::new(place, kind, flags, hold))
}

/// Opens a program for execve(2): a regular file with execute permission, not on a noexec mount, that nobody has open for
/// writing. With `keep` nobody can open it so either, as long as it is open or mapped.
pub async fn open_exec(ctx: Ctx<'_>, dirfd: i32, path: &[u8], flags: Flags, keep: bool) -> Result<Arc<OpenFile>> {
    let place = walk::lookup(ctx, dirfd, path, flags).await?;
    match place.dentry.kind() {
        FileType::Symlink => return Err(Errno::ELOOP),
        FileType::Regular => {}
        _ => return Err(Errno::EACCES),
    }
    if place.mount.flags().contains(MountFlags::NOEXEC) {
        return Err(Errno::EACCES);
    }
    perm::check(ctx.creds, &**place.inode(), Want::EXEC)?;
    let kind = plain_kind(place.inode()).ok_or(Errno::EACCES)?;
    let hold = HoldGuard::new(&place, Hold::Program).await?;
    let hold = if keep {
        hold.keep()
    } else {
        drop(hold);
        Hold::None
    };
    let file = OpenFile::new(place, kind, raw::O_RDONLY, hold);
    hooks::used(&file, raw::IN_OPEN);
    // The program is looked at next.
    hooks::used(&file, raw::IN_ACCESS);
    Ok(file)
}

/// truncate(2).
pub async fn truncate(ctx: Ctx<'_>, path: &[u8], size: u64) -> Result<()> {
    let place = walk::lookup(ctx, walk::AT_FDCWD, path, Flags::FOLLOW).await?;
    match place.dentry.kind() {
        FileType::Directory => return Err(Errno::EISDIR),
        FileType::Regular => {}
        _ => return Err(Errno::EINVAL),
    }
    place.mount.check_writable()?;
    perm::check(ctx.creds, &**place.inode(), Want::WRITE)?;
    inode_flags::check_not_append_only(&**place.inode())?;
    let _writing = HoldGuard::new(&place, Hold::Writer).await?;
    regular::truncate(ctx.thread, &place, size).await
}
