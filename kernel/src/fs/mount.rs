//! The mount table: which file system covers which directory.
//!
//! There is one mount namespace. A mount's place is a path in another mount; the root mount has none. Mounts on the same
//! path stack: the later one is mounted on the root of the earlier one.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use super::dentry::{self, Dentry};
use super::inode::{FileSystem, FileType};
use super::inotify;
use super::op::Op;
use super::path::Path;
use crate::errno::{Errno, Result};
use crate::sync::{RwSpinLock, SpinLock};

bitflags::bitflags! {
    /// Per-mount options, with the bits of mount(2)'s MS_*.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct MountFlags: u32 {
        const RDONLY = 1;
        const NOSUID = 2;
        const NODEV = 4;
        const NOEXEC = 8;
        const NOSYMFOLLOW = 256;
        const NOATIME = 1024;
        const NODIRATIME = 2048;
        const RELATIME = 1 << 21;
        const STRICTATIME = 1 << 24;
    }
}

pub struct Mount {
    id: u64,
    fs: Arc<dyn FileSystem>,
    root: Arc<Dentry>,
    flags: AtomicU32,
    place: SpinLock<Option<Path>>,
    /// Files that are open for writing through it.
    writers: AtomicUsize,
    /// For pipes, sockets and the like: in no namespace.
    internal: bool,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(20);
static TABLE: RwSpinLock<Vec<Arc<Mount>>> = RwSpinLock::new(Vec::new());

impl Mount {
    pub fn new(fs: Arc<dyn FileSystem>, root: Arc<Dentry>, flags: MountFlags) -> Arc<Mount> {
        Mount::make(fs, root, flags, false)
    }

    pub(crate) fn new_internal(fs: Arc<dyn FileSystem>, root: Arc<Dentry>) -> Arc<Mount> {
        Mount::make(fs, root, MountFlags::empty(), true)
    }

    fn make(fs: Arc<dyn FileSystem>, root: Arc<Dentry>, flags: MountFlags, internal: bool) -> Arc<Mount> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let (flags, place) = (AtomicU32::new(flags.bits()), SpinLock::new(None));
        Arc::new(Mount { id, fs, root, flags, place, writers: AtomicUsize::new(0), internal })
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    pub fn fs(&self) -> &Arc<dyn FileSystem> {
        &self.fs
    }

    pub fn root(&self) -> &Arc<Dentry> {
        &self.root
    }

    pub fn is_internal(&self) -> bool {
        self.internal
    }

    pub fn flags(&self) -> MountFlags {
        MountFlags::from_bits_truncate(self.flags.load(Ordering::Relaxed))
    }

    pub fn set_flags(&self, flags: MountFlags) {
        self.flags.store(flags.bits(), Ordering::Relaxed);
    }

    /// Where it is mounted; None for the root of the namespace and for mounts in none.
    pub fn place(&self) -> Option<Path> {
        self.place.lock().clone()
    }

    pub(super) fn count_writer(&self, opened: bool) {
        if opened {
            self.writers.fetch_add(1, Ordering::Relaxed);
        } else {
            self.writers.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Is a file of its file system open for writing, through whichever mount?
    pub fn has_writers(&self) -> bool {
        let counted = |mount: &Mount| mount.writers.load(Ordering::Relaxed) > 0;
        counted(self) || TABLE.read().iter().any(|mount| Arc::ptr_eq(&mount.fs, &self.fs) && counted(mount))
    }

    /// EROFS if the mount or its file system may not be written.
    pub fn check_writable(&self) -> Result<()> {
        if self.flags().contains(MountFlags::RDONLY) || self.fs.read_only() { Err(Errno::EROFS) } else { Ok(()) }
    }
}

/// The mount that covers `path`, if any (only the one directly on it).
pub fn mounted_on(path: &Path) -> Option<Arc<Mount>> {
    if !path.dentry.is_mount_point() {
        return None;
    }
    TABLE.read().iter().find(|m| m.place.lock().as_ref() == Some(path)).cloned()
}

/// Steps from a mount point to the root of what is mounted there, through all layers. True if it moved.
pub fn descend(path: &mut Path) -> bool {
    let mut moved = false;
    while let Some(mount) = mounted_on(path) {
        *path = Path { dentry: mount.root.clone(), mount };
        moved = true;
    }
    moved
}

/// Steps from a mount's root to its mount point, through all layers. False at the root of the namespace.
pub fn ascend(path: &mut Path) -> bool {
    while Arc::ptr_eq(&path.dentry, &path.mount.root) {
        match path.mount.place() {
            Some(place) => *path = place,
            None => return false,
        }
    }
    true
}

/// Makes `fs` the root of the namespace, below what was there; answers its root.
pub fn mount_root(fs: Arc<dyn FileSystem>, flags: MountFlags) -> Path {
    let root = Dentry::new_root(fs.root());
    let mount = Mount::new(fs, root.clone(), flags);
    TABLE.write().insert(0, mount.clone());
    Path { mount, dentry: root }
}

/// The root of the namespace.
pub fn root() -> Option<Path> {
    let mount = TABLE.read().iter().find(|m| m.place.lock().is_none()).cloned()?;
    Some(Path { dentry: mount.root.clone(), mount })
}

/// Puts a new mount on `at`, on top of what is mounted there.
pub fn attach(mount: Arc<Mount>, mut at: Path) -> Result<()> {
    descend(&mut at);
    check_place(&mount, &at)?;
    at.dentry.add_mount();
    if at.mount.fs.volatile_names() {
        dentry::pin(&at.dentry);
    }
    *mount.place.lock() = Some(at);
    TABLE.write().push(mount);
    Ok(())
}

/// Mounts a file system on a directory.
pub fn mount(fs: Arc<dyn FileSystem>, at: Path, flags: MountFlags) -> Result<Arc<Mount>> {
    let root = Dentry::new_root(fs.root());
    let mount = Mount::new(fs, root, flags);
    attach(mount.clone(), at)?;
    Ok(mount)
}

/// A second view of a tree (MS_BIND); with `recursive` of everything mounted below it, too.
pub fn bind(source: &Path, at: Path, recursive: bool) -> Result<()> {
    if source.dentry.is_dir() != at.dentry.is_dir() {
        return Err(Errno::ENOTDIR);
    }
    let copy = Mount::new(source.mount.fs.clone(), source.dentry.clone(), source.mount.flags());
    let below: Vec<Arc<Mount>> = if recursive { mounts_below(source) } else { Vec::new() };
    attach(copy.clone(), at)?;
    // Parents come before children in the table, so a copied parent is known when its child's turn comes.
    let mut copies = vec![(source.mount.clone(), copy)];
    for mount in below {
        let Some(place) = mount.place() else { continue };
        let Some(parent) = copies.iter().find(|(old, _)| Arc::ptr_eq(old, &place.mount)).map(|(_, new)| new.clone())
        else {
            continue;
        };
        let child = Mount::new(mount.fs.clone(), mount.root.clone(), mount.flags());
        attach(child.clone(), Path { mount: parent, dentry: place.dentry })?;
        copies.push((mount, child));
    }
    Ok(())
}

/// Mounts whose place is at or below `top` (not counting `top`'s own mount), parents first.
fn mounts_below(top: &Path) -> Vec<Arc<Mount>> {
    let all: Vec<Arc<Mount>> = TABLE.read().clone();
    let mut found: Vec<Arc<Mount>> = Vec::new();
    for mount in all {
        let Some(place) = mount.place() else { continue };
        let in_found = found.iter().any(|m| Arc::ptr_eq(m, &place.mount));
        if in_found || (Arc::ptr_eq(&place.mount, &top.mount) && top.dentry.is_ancestor_of(&place.dentry)) {
            found.push(mount);
        }
    }
    found
}

/// MS_MOVE: the mount at `source` goes to `at`.
pub fn move_mount(source: &Path, at: Path) -> Result<()> {
    let mount = &source.mount;
    if !Arc::ptr_eq(&mount.root, &source.dentry) || mount.place().is_none() {
        return Err(Errno::EINVAL);
    }
    let mut up = at.clone();
    loop {
        if Arc::ptr_eq(&up.mount, mount) {
            return Err(Errno::ELOOP);
        }
        match up.mount.place() {
            Some(place) => up = place,
            None => break,
        }
    }
    let mut top = at.clone();
    descend(&mut top);
    check_place(mount, &top)?;
    detach(mount);
    attach(mount.clone(), at)
}

/// May the mount be put there?
fn check_place(mount: &Mount, at: &Path) -> Result<()> {
    let dir = mount.root.kind() == FileType::Directory;
    if dir != at.dentry.is_dir() {
        return Err(if dir { Errno::ENOTDIR } else { Errno::EINVAL });
    }
    if at.dentry.is_dead() { Err(Errno::ENOENT) } else { Ok(()) }
}

/// Takes the mount out of the table.
fn detach(mount: &Arc<Mount>) {
    TABLE.write().retain(|m| !Arc::ptr_eq(m, mount));
    let place = mount.place.lock().take();
    if let Some(place) = place {
        place.dentry.remove_mount();
        if place.mount.fs.volatile_names() && !place.dentry.is_mount_point() {
            dentry::unpin(&place.dentry);
        }
    }
}

/// umount2(2) of the mount whose root is `at`. Lazily (MNT_DETACH) it goes with everything below it, in use or not.
/// Answers the file system to be synced if this was its last mount.
pub fn unmount(at: &Path, lazy: bool) -> Result<Option<Arc<dyn FileSystem>>> {
    let mount = &at.mount;
    if !Arc::ptr_eq(&mount.root, &at.dentry) {
        return Err(Errno::EINVAL);
    }
    if mount.place().is_none() {
        return Err(if lazy { Errno::EINVAL } else { Errno::EBUSY });
    }
    let below = mounts_below(&Path { mount: mount.clone(), dentry: mount.root.clone() });
    if lazy {
        for child in below.iter().rev() {
            detach(child);
        }
    } else if !below.is_empty() || in_use(mount) {
        return Err(Errno::EBUSY);
    }
    detach(mount);
    let last = !TABLE.read().iter().any(|m| Arc::ptr_eq(&m.fs, &mount.fs));
    if last {
        inotify::unmounted(&mount.fs);
        dentry::forget_fs(&mount.fs);
        return Ok(Some(mount.fs.clone()));
    }
    Ok(None)
}

/// Open files, working directories and programs hold the mount through their paths: two references are the table's
/// and the caller's.
fn in_use(mount: &Arc<Mount>) -> bool {
    Arc::strong_count(mount) > 2
}

/// pivot_root(2): the mount at `new` becomes the root of the namespace, the old root goes to `put_old`.
pub fn pivot_root(new: &Path, put_old: &Path, root: &Path) -> Result<()> {
    let (new_mount, old_mount) = (&new.mount, &root.mount);
    if Arc::ptr_eq(new_mount, old_mount) || Arc::ptr_eq(&put_old.mount, old_mount) && root == put_old {
        return Err(Errno::EBUSY);
    }
    if !Arc::ptr_eq(&new_mount.root, &new.dentry) || !Arc::ptr_eq(&old_mount.root, &root.dentry) {
        return Err(Errno::EINVAL);
    }
    if !Arc::ptr_eq(&put_old.mount, new_mount) {
        return Err(Errno::EINVAL);
    }
    if old_mount.place().is_some() || new_mount.place().is_none() {
        return Err(Errno::EINVAL);
    }
    check_place(old_mount, put_old)?;
    detach(new_mount);
    TABLE.write().retain(|m| !Arc::ptr_eq(m, old_mount));
    TABLE.write().insert(0, new_mount.clone());
    attach(old_mount.clone(), put_old.clone())
}

/// All mounts of the namespace, parents before children.
pub fn all() -> Vec<Arc<Mount>> {
    TABLE.read().clone()
}

/// sync(2): every mounted file system.
pub fn sync_all() -> Op<'static, Result<()>> {
    Op::boxed(async {
        let mut done: Vec<Arc<dyn FileSystem>> = Vec::new();
        let mut result = Ok(());
        for mount in all() {
            if !done.iter().any(|fs| Arc::ptr_eq(fs, &mount.fs)) {
                done.push(mount.fs.clone());
                result = result.and(mount.fs.sync().await);
            }
        }
        result
    })
}

fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => {
                out.extend_from_slice(&[b'\\', b'0' + (byte >> 6), b'0' + ((byte >> 3) & 7), b'0' + (byte & 7)]);
            }
            _ => out.push(byte),
        }
    }
}

fn push_flags(out: &mut Vec<u8>, mount: &Mount) {
    let flags = mount.flags();
    let read_only = flags.contains(MountFlags::RDONLY) || mount.fs.read_only();
    out.extend_from_slice(if read_only { b"ro" } else { b"rw" });
    for (flag, name) in [
        (MountFlags::NOSUID, &b",nosuid"[..]),
        (MountFlags::NODEV, b",nodev"),
        (MountFlags::NOEXEC, b",noexec"),
        (MountFlags::NOATIME, b",noatime"),
        (MountFlags::NODIRATIME, b",nodiratime"),
        (MountFlags::RELATIME, b",relatime"),
        (MountFlags::NOSYMFOLLOW, b",nosymfollow"),
    ] {
        if flags.contains(flag) {
            out.extend_from_slice(name);
        }
    }
}

/// The text of /proc/mounts as a process with this root directory sees it.
pub fn proc_mounts(root: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for mount in all() {
        let Some(place) = mount_path(&mount, root) else { continue };
        push_escaped(&mut out, &mount.fs.source());
        out.push(b' ');
        push_escaped(&mut out, &place);
        out.push(b' ');
        out.extend_from_slice(mount.fs.type_name().as_bytes());
        out.push(b' ');
        push_flags(&mut out, &mount);
        out.extend_from_slice(&mount.fs.options());
        out.extend_from_slice(b" 0 0\n");
    }
    out
}

/// The text of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
pub fn proc_mountinfo(root: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for mount in all() {
        let Some(place) = mount_path(&mount, root) else { continue };
        let parent = mount.place().map_or(mount.id, |p| p.mount.id);
        let dev = mount.fs.device();
        out.extend_from_slice(format!("{} {} {}:{} ", mount.id, parent, dev.major, dev.minor).as_bytes());
        let inside = Path {
            mount: Mount::new(mount.fs.clone(), fs_top(&mount.root), MountFlags::empty()),
            dentry: mount.root.clone(),
        };
        push_escaped(&mut out, &inside.display(None));
        out.push(b' ');
        push_escaped(&mut out, &place);
        out.push(b' ');
        push_flags(&mut out, &mount);
        out.extend_from_slice(b" - ");
        out.extend_from_slice(mount.fs.type_name().as_bytes());
        out.push(b' ');
        push_escaped(&mut out, &mount.fs.source());
        out.extend_from_slice(if mount.fs.read_only() { b" ro" } else { b" rw" });
        out.extend_from_slice(&mount.fs.options());
        out.push(b'\n');
    }
    out
}

fn fs_top(dentry: &Arc<Dentry>) -> Arc<Dentry> {
    let mut top = dentry.clone();
    while let Some(parent) = top.parent() {
        top = parent;
    }
    top
}

/// Where a mount is seen from `root`; None if it is not below it.
fn mount_path(mount: &Arc<Mount>, root: &Path) -> Option<Vec<u8>> {
    let at = Path { mount: mount.clone(), dentry: mount.root.clone() };
    at.display_below(root)
}
