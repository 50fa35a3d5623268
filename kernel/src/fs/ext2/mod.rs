//! The second extended file system, read and write, asynchronous throughout; and what the third and the fourth have made of
//! it, but for writing a journal.
//!
//! ```text
//!   VFS ── Inode ──▶ inode ──▶ names ──▶ dir ──┐
//!                      │                        ├──▶ map ──▶ groups ──▶ buffers ──▶ block device
//!   page cache ─ PageIo ─▶ file ────────────────┘                          ▲             ▲
//!                      └──────────── data ─────────────────────────────────┼─────────────┘
//!   flusher, sync ──▶ writeback ─ node::store ─────────────────────────────┘
//! ```
//!
//! * [`volume::Volume`] is a mounted device, [`node::Node`] an inode in memory (one per number), [`inode::Ext2Inode`]
//!   the VFS's handle to it with the page cache, found in `inodes`. `layout` and `dirent` are the format.
//! * Metadata lives in the buffer cache (`buffers`), file content in the page cache. Blocks for content are reserved by
//!   write(2) and allocated by write-back (`file`).
//! * A file's blocks are found through block pointers (`map`) or extents ([`extents`]). With [`checksum`]s, blocks get theirs when they
//!   are written; groups may say that their bitmaps have never been (`bitmaps`). [`features`] says what we know.
//! * Names come, go and lead elsewhere by `dir_change`, for `names` and `rename`, and for `at_once` where neither has to wait.
//! * What a journal has to say is carried out before anything else (`journal`).
//! * Unlinked inodes that are in use are known (`orphans`), and on a list on disk when the volume is marked clean.
//! * Extended attributes are in the inode or a block of theirs (`xattr`).
//! * Every change runs to its end once it has begun, even if the task that asked for it is killed
//!   ([`volume::Volume::run_to_end`]).
//!
//! Locks, in order. Async: a volume's `complete` → two directories' `names_lock` by inode number → a node's `writes` → its `map_lock` → the
//! volume's `writing` → its `order.removal`. Spin: orphans → a node's state → what is held back → a bitmap's buffer → groups → another buffer → the
//! index of the buffers; the tables of inodes and of dirty nodes and what `order` knows are leaves. No spinlock is held over an await, and the compiler
//! sees to that.
//!
//! No journal is written: a crash leaves what e2fsck repairs without a question, with everything in place that was synced. For
//! that write-back keeps an order (`writeback`, of names and inodes `order` with the help of `lost_found`), and what is freed stays out of use until the disk knows it (`held`).

mod at_once;
mod bitmaps;
mod bits;
mod buffers;
mod checksum;
mod dir;
mod dir_change;
mod dirent;
mod extents;
mod features;
mod file;
mod free_inodes;
mod groups;
mod held;
mod inode;
mod inodes;
mod journal;
mod layout;
mod lost_found;
mod map;
mod names;
mod node;
mod order;
mod orphans;
mod own_flags;
mod ranges;
mod rename;
#[cfg(test)]
mod tests;
mod transfer;
mod volume;
mod writeback;
mod xattr;

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;

use self::features::Family;
use self::inode::Ext2Inode;
use self::volume::{Host, Volume};
use super::MountRequest;
use super::block::BlockDevice;
use super::handle::Handle;
use super::inode::{DeviceId, FileSystem, Inode, StatFs};
use super::inode_flags::InodeFlags;
use super::op::Op;
use crate::errno::{Errno, Result};
use crate::exec;

/// How long changed metadata stays in memory only.
const WRITE_BACK_AFTER: Duration = Duration::from_secs(5);

/// A mounted ext2.
pub struct Ext2 {
    volume: Arc<Volume>,
    family: Family,
    root: Arc<Ext2Inode>,
    rename_lock: exec::Mutex<()>,
}

/// Makes the types known to mount(2), in the order in which Linux has them.
pub fn init() {
    let check = |option: &[u8]| parse_options(option).map(drop);
    super::register_fs_type("ext3", true, check, |request| Op::boxed(mount_as(Family::Ext3, request)));
    super::register_fs_type("ext2", true, check, |request| Op::boxed(mount_as(Family::Ext2, request)));
    super::register_fs_type("ext4", true, check, |request| Op::boxed(mount_as(Family::Ext4, request)));
}

async fn mount_as(family: Family, request: MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    let id = request.device.ok_or(Errno::ENOTBLK)?;
    let options = parse_options(request.data)?;
    let device = super::block::claim(id).await?;
    let how = How { family: Some(family), read_only: request.read_only, no_recovery: options.no_recovery };
    let fs = mount_shared(device, id, request.source.to_vec(), how).await?;
    options.apply(&fs.volume);
    Ok(fs)
}

/// How a volume is to be mounted.
#[derive(Clone, Copy, Default)]
struct How {
    /// None: as what it was made.
    family: Option<Family>,
    read_only: bool,
    /// The journal stays as it is, and what would be in it is not seen.
    no_recovery: bool,
}

/// What the options string of mount(2) says, if it does.
#[derive(Default)]
struct Options {
    read_only_on_error: Option<bool>,
    user_attributes: Option<bool>,
    no_recovery: bool,
    /// MS_SYNCHRONOUS and MS_DIRSYNC: on or off.
    syncs: [Option<bool>; 2],
}

impl Options {
    fn apply(&self, volume: &Volume) {
        let (mut set, mut kept) = (InodeFlags::empty(), InodeFlags::all());
        for (flag, wanted) in [InodeFlags::SYNC, InodeFlags::DIRSYNC].into_iter().zip(self.syncs) {
            kept.set(flag, wanted.is_none());
            set.set(flag, wanted == Some(true));
        }
        if kept != InodeFlags::all() {
            volume.change_syncs(kept, set);
        }
        if let Some(read_only) = self.read_only_on_error {
            volume.set_error_policy(read_only);
        }
        if let Some(there) = self.user_attributes {
            volume.set_user_attributes(there);
        }
    }
}

fn parse_options(data: &[u8]) -> Result<Options> {
    let mut options = Options::default();
    for option in data.split(|&byte| byte == b',').filter(|option| !option.is_empty()) {
        match option {
            b"errors=continue" => options.read_only_on_error = Some(false),
            b"errors=remount-ro" => options.read_only_on_error = Some(true),
            b"user_xattr" => options.user_attributes = Some(true),
            b"nouser_xattr" => options.user_attributes = Some(false),
            b"sync" => options.syncs[0] = Some(true),
            b"async" => options.syncs[0] = Some(false),
            b"dirsync" => options.syncs[1] = Some(true),
            b"noload" | b"norecovery" => options.no_recovery = true,
            // What is the case anyway.
            b"bsddf" | b"nocheck" | b"check=none" | b"nogrpid" | b"sysvgroups" | b"noacl" => {}
            _ => {
                log::warn!("ext2: unknown mount option {}", alloc::string::String::from_utf8_lossy(option));
                return Err(Errno::EINVAL);
            }
        }
    }
    Ok(options)
}

/// Mounts the file system on `device`. `id` is the device's number and `source` its name for /proc/mounts.
/// EROFS if it can only be mounted read-only, and that was not asked for.
pub async fn mount(
    device: Arc<dyn BlockDevice>,
    id: DeviceId,
    source: Vec<u8>,
    read_only: bool,
) -> Result<Arc<dyn FileSystem>> {
    Ok(mount_shared(device, id, source, How { read_only, ..How::default() }).await?)
}

/// Two mounts of one device are the same file system: two would not know of each other's changes.
async fn mount_shared(device: Arc<dyn BlockDevice>, id: DeviceId, source: Vec<u8>, how: How) -> Result<Arc<Ext2>> {
    /// The volumes outlive their mounts a little.
    type Mounted = (DeviceId, Weak<Ext2>, Weak<Volume>);
    static MOUNTED: exec::Mutex<Vec<Mounted>> = exec::Mutex::new(Vec::new());

    let mut mounted = MOUNTED.lock().await;
    mounted.retain(|(.., volume)| volume.strong_count() > 0);
    for volume in mounted.iter().filter(|(other, ..)| *other == id).filter_map(|(.., volume)| volume.upgrade()) {
        if volume.ended.load(Ordering::Acquire) {
            // What it was still writing must not come after what we write.
            drop(volume.complete.lock().await);
            drop(volume.writing.lock().await);
        }
    }
    if let Some(fs) = mounted.iter().filter(|(other, ..)| *other == id).find_map(|(_, fs, _)| fs.upgrade()) {
        // Whether it may be read-only or not is settled when it is taken up: it may be about to end.
        return if how.family.is_none_or(|family| family == fs.family) { Ok(fs) } else { Err(Errno::EBUSY) };
    }
    let host = Host { spawn: |future| exec::spawn("ext2", future), now: super::now };
    let fs = mount_on(device, id, source, how, host).await?;
    let volume = Arc::downgrade(&fs.volume);
    mounted.push((id, Arc::downgrade(&fs), volume.clone()));
    exec::spawn("ext2-flush", async move {
        while let Some(volume) = volume.upgrade() {
            flush_in_time(volume).await;
        }
    });
    Ok(fs)
}

async fn mount_on(
    device: Arc<dyn BlockDevice>,
    id: DeviceId,
    source: Vec<u8>,
    how: How,
    host: Host,
) -> Result<Arc<Ext2>> {
    let mut volume = Volume::open(device.clone(), id, source.clone(), host).await?;
    let features = volume.layout.features;
    let family = how.family.unwrap_or(features.family());
    if !features.fits(family) {
        log::error!("{}: this is an {}", family.name(), features.family().name());
        return Err(Errno::EINVAL);
    }
    if features.needs_recovery() && how.no_recovery {
        log::warn!("{}: the journal is not recovered", family.name());
        if !how.read_only {
            return Err(Errno::EINVAL);
        }
    } else if features.needs_recovery() {
        journal::recover(&volume).await?;
        volume = Volume::open(device, id, source, host).await?;
    }
    let root = match find_root(&volume, how.read_only).await {
        Ok(root) => root,
        Err(errno) => {
            volume.let_go();
            return Err(errno);
        }
    };
    let fs = Arc::new(Ext2 { volume: volume.clone(), family, root, rename_lock: exec::Mutex::new(()) });
    volume.set_mounted(&fs);
    Ok(fs)
}

async fn find_root(volume: &Arc<Volume>, read_only: bool) -> Result<Arc<Ext2Inode>> {
    if !read_only {
        volume.set_read_only(false).await?;
    }
    let root = volume.inode(layout::ROOT_INO).await?;
    if root.node.kind == super::inode::FileType::Directory { Ok(root) } else { Err(Errno::EINVAL) }
}

/// Waits for something to be dirty and writes it a few seconds later. Holds the volume only weakly while it waits.
async fn flush_in_time(volume: Arc<Volume>) {
    let dirty = volume.dirty.clone();
    let weak = Arc::downgrade(&volume);
    drop(volume);
    dirty.wait().await;
    exec::sleep_until(exec::Instant::now().saturating_add(WRITE_BACK_AFTER)).await;
    if let Some(volume) = weak.upgrade()
        && !volume.ended.load(Ordering::Acquire)
        && let Err(errno) = volume.write_metadata().await
    {
        log::error!("ext2: write-back failed: {errno:?}");
    }
}

impl Drop for Ext2 {
    fn drop(&mut self) {
        // The last mount is gone.
        self.volume.let_go();
        self.volume.device.fs_ended();
        self.volume.dirty.notify();
    }
}

impl FileSystem for Ext2 {
    fn type_name(&self) -> &'static str {
        self.family.name()
    }

    fn source(&self) -> Vec<u8> {
        self.volume.source().to_vec()
    }

    fn rename_lock(&self) -> &exec::Mutex<()> {
        &self.rename_lock
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn changes_at_once(&self) -> bool {
        true
    }

    fn makes_directories_at_once(&self) -> bool {
        !self.volume.layout.features.extents()
    }

    fn device(&self) -> DeviceId {
        self.volume.id()
    }

    fn statfs(&self) -> StatFs {
        self.volume.statfs()
    }

    fn read_only(&self) -> bool {
        self.volume.read_only()
    }

    fn inode_of<'a>(&'a self, handle: &'a Handle) -> Op<'a, Result<Arc<dyn Inode>>> {
        Op::boxed(async {
            let inode: Arc<dyn Inode> = self.volume.inode_of(handle).await?;
            Ok(inode)
        })
    }

    fn set_read_only(&self, read_only: bool) -> Op<'_, Result<()>> {
        let volume = self.volume.clone();
        Op::boxed(self.volume.run_to_end(async move { volume.set_read_only(read_only).await }))
    }

    fn has_removed(&self) -> Op<'_, bool> {
        Op::boxed(async {
            self.volume.no_deletions().await;
            !self.volume.orphans.lock().is_empty()
        })
    }

    fn syncs(&self) -> InodeFlags {
        self.volume.syncs()
    }

    fn reconfigure(&self, options: &[u8]) -> Result<()> {
        let options = parse_options(options)?;
        if options.syncs[1].is_some() {
            // A remount cannot change it.
            return Err(Errno::EINVAL);
        }
        options.apply(&self.volume);
        Ok(())
    }

    fn sync(&self) -> Op<'_, Result<()>> {
        let volume = self.volume.clone();
        Op::boxed(self.volume.run_to_end(async move { volume.sync_all().await }))
    }
}
