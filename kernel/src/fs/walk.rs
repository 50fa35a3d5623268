//! From path text to a place in the tree: path_resolution(7).
//!
//! What the cache of names can answer alone, [`lookup_now`] does. A [`Walker`] goes from component to component. Names in the cache cost no allocation and no wait; the others are
//! looked up in the file system. Texts of symbolic links are kept on a small stack, so that nesting needs no recursion.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::context::FsContext;
use super::dentry::{self, Cached, Dentry, NAME_MAX};
use super::fd_table::FdTable;
use super::inode::{FileType, Inode};
use super::mount::{self, MountFlags};
use super::path::Path;
use super::perm;
use super::walk_now::{lookup_now, skip_known};
use crate::errno::{Errno, Result};
use crate::process::{Credentials, Thread};

/// Symbolic links that one resolution may follow, MAXSYMLINKS of Linux.
const MAX_LINKS: u32 = 40;

pub const AT_FDCWD: i32 = -100;

bitflags::bitflags! {
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Flags: u32 {
        /// Follow a symbolic link in the last component.
        const FOLLOW = 1;
        /// The result must be a directory.
        const DIRECTORY = 2;
        /// An empty path means the directory descriptor itself (AT_EMPTY_PATH).
        const EMPTY = 4;
        // openat2(2).
        const NO_XDEV = 0x100;
        const NO_MAGIC_LINKS = 0x200;
        const NO_SYMLINKS = 0x400;
        const BENEATH = 0x800;
        const IN_ROOT = 0x1000;
        const CACHED = 0x2000;
    }
}

/// Whose walk it is.
#[derive(Clone, Copy)]
pub struct Ctx<'a> {
    pub fs: &'a FsContext,
    pub creds: &'a Credentials,
    pub files: &'a FdTable,
    /// For the magic links of /proc.
    pub thread: Option<&'a Thread>,
}

impl<'a> Ctx<'a> {
    pub fn of(thread: &'a Thread) -> Self {
        Ctx { fs: thread.fs(), creds: thread.creds(), files: thread.files(), thread: Some(thread) }
    }

    pub(super) fn check_search(&self, dir: &dyn Inode) -> Result<()> {
        perm::check_search(self.creds, dir).or_else(|errno| self.granted(dir, errno))
    }

    pub fn granted(&self, dir: &dyn Inode, errno: Errno) -> Result<()> {
        if self.thread.is_some_and(|thread| dir.grants(thread)) { Ok(()) } else { Err(errno) }
    }
}

/// The last component of a path, not yet looked up.
pub enum Last<'p> {
    /// A name in the walker's directory; `slash`: it was followed by one.
    Name { name: Comp<'p>, slash: bool },
    /// "/", "." or "..": the walker already stands there.
    Here(Special),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Special {
    /// "/", or where a magic link led.
    Top,
    Dot,
    DotDot,
}

#[derive(Clone)]
enum Text<'p> {
    Borrowed(&'p [u8]),
    Owned(Arc<[u8]>),
}

impl Text<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Text::Borrowed(bytes) => bytes,
            Text::Owned(bytes) => bytes,
        }
    }
}

/// One component of a path.
pub struct Comp<'p> {
    text: Text<'p>,
    start: usize,
    end: usize,
}

impl Comp<'_> {
    pub fn bytes(&self) -> &[u8] {
        self.text.bytes().get(self.start..self.end).unwrap_or(&[])
    }
}

struct Segment<'p> {
    text: Text<'p>,
    at: usize,
}

impl Segment<'_> {
    /// Skips slashes; answers whether there were any.
    fn skip_slashes(&mut self) -> bool {
        let rest = self.text.bytes().get(self.at..).unwrap_or(&[]);
        let slashes = rest.iter().take_while(|byte| **byte == b'/').count();
        self.at += slashes;
        slashes > 0
    }

    fn is_empty(&self) -> bool {
        self.at >= self.text.bytes().len()
    }
}

pub struct Walker<'a, 'p> {
    ctx: Ctx<'a>,
    flags: Flags,
    /// The directory the walk may not leave: the process's root, or the start for RESOLVE_IN_ROOT and RESOLVE_BENEATH.
    root: Path,
    /// Where the walk stands.
    pub at: Path,
    main: Segment<'p>,
    links: Vec<Segment<'p>>,
    followed: u32,
}

impl<'a, 'p> Walker<'a, 'p> {
    /// Prepares the walk of a path that is not empty.
    pub fn new(ctx: Ctx<'a>, dirfd: i32, path: &'p [u8], flags: Flags) -> Result<Self> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let absolute = path.first() == Some(&b'/');
        if absolute && flags.contains(Flags::BENEATH) {
            return Err(Errno::EXDEV);
        }
        let scoped = flags.intersects(Flags::BENEATH | Flags::IN_ROOT);
        let root = ctx.fs.root();
        let at = if absolute && !scoped { root.clone() } else { start_of(ctx, dirfd)? };
        let root = if scoped { at.clone() } else { root };
        let main = Segment { text: Text::Borrowed(path), at: 0 };
        Ok(Walker { ctx, flags, root, at, main, links: Vec::new(), followed: 0 })
    }

    /// Takes the next component off the text: the component, whether it is the last, and whether a slash follows it.
    fn next(&mut self) -> Option<(Comp<'p>, bool, bool)> {
        loop {
            let top = self.links.last_mut().unwrap_or(&mut self.main);
            top.skip_slashes();
            if !top.is_empty() {
                break;
            }
            self.links.pop()?;
        }
        let top = self.links.last_mut().unwrap_or(&mut self.main);
        let start = top.at;
        let rest = top.text.bytes().get(start..).unwrap_or(&[]);
        top.at += rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
        let comp = Comp { text: top.text.clone(), start, end: top.at };
        let mut slash = false;
        for segment in self.links.iter_mut().rev().chain(core::iter::once(&mut self.main)) {
            slash |= segment.skip_slashes();
            if !segment.is_empty() {
                return Some((comp, false, slash));
            }
        }
        Some((comp, true, slash))
    }

    /// Walks up to, not into, the last component. Afterwards `at` is the directory it is in (searchable).
    pub async fn to_last(&mut self) -> Result<Last<'p>> {
        self.skip_known();
        loop {
            let Some((comp, last, slash)) = self.next() else { return Ok(Last::Here(Special::Top)) };
            if !self.at.dentry.is_dir() {
                return Err(Errno::ENOTDIR);
            }
            self.ctx.check_search(&**self.at.inode())?;
            let special = match comp.bytes() {
                b"." => Special::Dot,
                b".." => {
                    self.up()?;
                    Special::DotDot
                }
                _ if last => return Ok(Last::Name { name: comp, slash }),
                name => {
                    let child = self.child(name).await?;
                    self.enter(child).await?;
                    continue;
                }
            };
            if last {
                return Ok(Last::Here(special));
            }
        }
    }

    /// Goes over what of the path is in the cache, unless it is not known yet where that may lead.
    fn skip_known(&mut self) {
        let anywhere = (Flags::FOLLOW | Flags::DIRECTORY | Flags::EMPTY).contains(self.flags);
        if anywhere && self.links.is_empty() {
            let rest = self.main.text.bytes().get(self.main.at..).unwrap_or(&[]);
            self.main.at += skip_known(self.ctx, &mut self.at, rest);
        }
    }

    fn up(&mut self) -> Result<()> {
        if self.flags.contains(Flags::BENEATH) && self.at == self.root {
            return Err(Errno::EXDEV);
        }
        let mount = self.at.mount.clone();
        self.at.up(&self.root);
        self.check_xdev(&mount)?;
        // Who moves a directory out of the root meanwhile must not let the walk out. As on Linux it may be tried again.
        if self.is_inside() { Ok(()) } else { Err(Errno::EAGAIN) }
    }

    /// Is the walk where it may be?
    fn is_inside(&self) -> bool {
        !self.flags.intersects(Flags::BENEATH | Flags::IN_ROOT) || self.at.is_below(&self.root)
    }

    /// The walk has come to its end: what it has found may have been moved out of the directory that it may not leave.
    pub fn check_end(&self) -> Result<()> {
        if self.is_inside() { Ok(()) } else { Err(Errno::EXDEV) }
    }

    fn check_xdev(&self, before: &Arc<mount::Mount>) -> Result<()> {
        let crossed = self.flags.contains(Flags::NO_XDEV) && !Arc::ptr_eq(before, &self.at.mount);
        if crossed { Err(Errno::EXDEV) } else { Ok(()) }
    }

    /// The entry `name` of the directory at which the walk stands; mounts on it are not entered.
    pub async fn child(&self, name: &[u8]) -> Result<Arc<Dentry>> {
        match dentry::cached(&self.at.dentry, name) {
            Cached::Found(dentry) => Ok(dentry),
            Cached::Nothing => Err(Errno::ENOENT),
            Cached::Unknown if self.flags.contains(Flags::CACHED) => Err(Errno::EAGAIN),
            Cached::Unknown => lookup_child(&self.at.dentry, name).await,
        }
    }

    /// Goes to a middle component: through mounts and symbolic links.
    async fn enter(&mut self, child: Arc<Dentry>) -> Result<()> {
        if child.kind() == FileType::Symlink {
            return self.follow(&child).await;
        }
        self.step(child)
    }

    /// Makes `child` the place of the walk, or the root of what is mounted on it.
    #[inline]
    pub fn step(&mut self, child: Arc<Dentry>) -> Result<()> {
        self.at.dentry = child;
        if self.at.dentry.is_mount_point() {
            let mount = self.at.mount.clone();
            mount::descend(&mut self.at);
            self.check_xdev(&mount)?;
        }
        Ok(())
    }

    /// Nothing is left of the path (after a magic link).
    pub fn arrived(&mut self) -> bool {
        self.main.skip_slashes();
        self.main.is_empty() && self.links.iter().all(Segment::is_empty)
    }

    /// Follows the last component of a path, a symbolic link.
    pub async fn follow_last(&mut self, link: &Arc<Dentry>) -> Result<()> {
        perm::check_follow(self.ctx.creds, &**self.at.inode(), &**link.inode())?;
        self.follow(link).await
    }

    /// Follows a symbolic link in the current directory: its text is walked next, or a magic link is jumped through.
    async fn follow(&mut self, link: &Arc<Dentry>) -> Result<()> {
        self.followed += 1;
        let refused =
            self.flags.contains(Flags::NO_SYMLINKS) || self.at.mount.flags().contains(MountFlags::NOSYMFOLLOW);
        if self.followed > MAX_LINKS || refused {
            return Err(Errno::ELOOP);
        }
        if let Some(target) = self.ctx.thread.and_then(|thread| link.inode().magic_link(thread)) {
            if self.flags.contains(Flags::NO_MAGIC_LINKS) {
                return Err(Errno::ELOOP);
            }
            if self.flags.intersects(Flags::BENEATH | Flags::IN_ROOT) {
                return Err(Errno::EXDEV);
            }
            let mount = self.at.mount.clone();
            self.at = target?;
            return self.check_xdev(&mount);
        }
        let text = match self.ctx.thread.and_then(|thread| link.inode().read_link_for(thread)) {
            Some(text) => text?,
            None => link.inode().read_link().await?,
        };
        match text.first() {
            None => return Err(Errno::ENOENT),
            Some(b'/') if self.flags.contains(Flags::BENEATH) => return Err(Errno::EXDEV),
            Some(b'/') => {
                let mount = self.at.mount.clone();
                self.at = self.root.clone();
                self.check_xdev(&mount)?;
            }
            Some(_) => {}
        }
        // What is used up below must not grow the stack.
        while self.links.last().is_some_and(Segment::is_empty) {
            self.links.pop();
        }
        self.links.push(Segment { text: Text::Owned(text.into()), at: 0 });
        Ok(())
    }
}

/// The directory that relative paths start from.
pub(super) fn start_of(ctx: Ctx<'_>, dirfd: i32) -> Result<Path> {
    if dirfd == AT_FDCWD {
        return Ok(ctx.fs.cwd());
    }
    let file = ctx.files.get(dirfd)?;
    if !file.path().dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    Ok(file.path().clone())
}

/// Looks a name up in the file system and notes the answer in the cache.
pub(super) async fn lookup_child(dir: &Arc<Dentry>, name: &[u8]) -> Result<Arc<Dentry>> {
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if dir.inode().fs().volatile_names() {
        let inode = dir.inode().lookup(name).await?;
        return Ok(Dentry::new(Some(dir.clone()), name, inode));
    }
    let _guard = dir.inode().state().lock.lock().await;
    child_locked(dir, name).await
}

/// The same, with the directory's lock held.
pub(super) async fn child_locked(dir: &Arc<Dentry>, name: &[u8]) -> Result<Arc<Dentry>> {
    if let Some(child) = entry_locked(dir, name).await? {
        return Ok(child);
    }
    if !dir.inode().fs().volatile_names() && !dir.is_dead() {
        dentry::insert_nothing(dir, name);
    }
    Err(Errno::ENOENT)
}

/// The same for those who are about to make the name if nothing has it, which is not noted.
pub(super) async fn entry_locked(dir: &Arc<Dentry>, name: &[u8]) -> Result<Option<Arc<Dentry>>> {
    match dentry::cached(dir, name) {
        Cached::Found(dentry) => return Ok(Some(dentry)),
        Cached::Nothing => return Ok(None),
        Cached::Unknown => {}
    }
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    match dir.inode().lookup(name).await {
        Ok(inode) if dir.inode().fs().volatile_names() => Ok(Some(Dentry::new(Some(dir.clone()), name, inode))),
        Ok(inode) => Ok(Some(dentry::insert(dir, name, inode))),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Resolves a path to an existing object.
pub async fn lookup(ctx: Ctx<'_>, dirfd: i32, path: &[u8], flags: Flags) -> Result<Path> {
    match lookup_now(ctx, dirfd, path, flags) {
        Some(result) => result,
        None => walk(ctx, dirfd, path, flags).await,
    }
}

async fn walk(ctx: Ctx<'_>, dirfd: i32, path: &[u8], flags: Flags) -> Result<Path> {
    if path.is_empty() && flags.contains(Flags::EMPTY) {
        return at_descriptor(ctx, dirfd);
    }
    let mut walker = Walker::new(ctx, dirfd, path, flags)?;
    let mut slashed = false;
    loop {
        match walker.to_last().await? {
            Last::Here(_) => break,
            Last::Name { name, slash } => {
                slashed |= slash;
                let child = walker.child(name.bytes()).await?;
                if child.kind() == FileType::Symlink && (slashed || flags.contains(Flags::FOLLOW)) {
                    walker.follow_last(&child).await?;
                    continue;
                }
                walker.step(child)?;
                break;
            }
        }
    }
    walker.check_end()?;
    if (slashed || flags.contains(Flags::DIRECTORY)) && !walker.at.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    Ok(walker.at)
}

/// AT_EMPTY_PATH: the object behind the descriptor.
pub(super) fn at_descriptor(ctx: Ctx<'_>, dirfd: i32) -> Result<Path> {
    if dirfd == AT_FDCWD {
        return Ok(ctx.fs.cwd());
    }
    Ok(ctx.files.get(dirfd)?.path().clone())
}
