//! A mounted volume: superblock, caches, and operations that run to their end.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use zerocopy::FromBytes;

use super::Ext2;
use super::buffers::Buffers;
use super::checksum::{self, Sums};
use super::features::{Compat, RoCompat};
use super::groups::{Groups, Run};
use super::inodes::InodeTable;
use super::layout::{self, Layout, SuperBlock};
use super::node::Node;
use super::order::Order;
use super::orphans::Orphan;
use crate::errno::{Errno, Result};
use crate::exec::{self, Mutex, Notify, WaitQueue};
use crate::fs::block::{BlockDevice, SECTOR_SIZE};
use crate::fs::inode::{DeviceId, StatFs};
use crate::fs::inode_flags::InodeFlags;
use crate::fs::op::BoxFuture;
use crate::sync::{Once, SpinLock};
use crate::time::Timespec;

/// Dirty metadata blocks at which those who make more have to wait for write-back.
const DIRTY_LIMIT: usize = 1024;
/// How often who was promised nothing waits for what is held back, while others take it.
const TRIES: u32 = 3;
/// `errors` in the superblock: go on read-only.
const ERRORS_READ_ONLY: u16 = 2;

/// What a volume needs of its surroundings; tests bring their own.
#[derive(Clone, Copy)]
pub struct Host {
    pub spawn: fn(BoxFuture<'static, ()>),
    pub now: fn() -> Timespec,
}

pub struct Volume {
    pub layout: Layout,
    pub sums: Sums,
    pub device: Arc<dyn BlockDevice>,
    pub buffers: Buffers,
    pub groups: Groups,
    pub host: Host,
    id: DeviceId,
    source: Vec<u8>,
    /// Blocks that can never hold data.
    overhead: u32,
    pub(super) superblock: SpinLock<SuperBlock>,
    pub(super) superblock_dirty: AtomicBool,
    /// It has to be on the disk before the blocks that need what it says.
    pub(super) superblock_first: AtomicBool,
    /// Since the last flush something was written that others are going to lead to.
    pub(super) unflushed: AtomicBool,
    /// `state` of the superblock as it was found; what a clean unmount restores.
    pub(super) found_state: u16,
    /// Features that may be mounted but not written.
    pub(super) must_read_only: bool,
    read_only_on_error: AtomicBool,
    user_attributes: AtomicBool,
    /// What all inodes obey besides their own flags: how the volume was mounted.
    syncs: AtomicU32,
    pub(super) read_only: AtomicBool,
    /// Held while the volume is made writable or sealed. Whether all of it is on the disk and nothing can change.
    pub(super) complete: Mutex<bool>,
    pub(super) inodes: SpinLock<InodeTable>,
    pub(super) dirty_nodes: SpinLock<BTreeMap<u32, Arc<Node>>>,
    /// The directory, if there is one.
    pub(super) lost_found: SpinLock<Option<Arc<Node>>>,
    /// In which order names and inodes get on the disk.
    pub(super) order: Order,
    /// Held over write-back: what is on its way is not dirty any more, so another sync would overlook it; and two writes of
    /// one block must not be under way together.
    pub(super) writing: Mutex<()>,
    /// Unlinked inodes that are in use.
    pub(super) orphans: SpinLock<BTreeMap<u32, Orphan>>,
    /// One writer of the superblock at a time.
    pub(super) superblock_lock: Mutex<()>,
    /// Unlinked inodes that are being freed now, and changes that are going on; and who waits for the end of either, or of a write
    /// to new blocks.
    deletions: AtomicUsize,
    changes: AtomicUsize,
    pub(super) settled: WaitQueue,
    /// Everything is written, and nothing of the file system may change.
    pub(super) sealed: AtomicBool,
    /// Nothing is written any more: the device is for the next mount.
    pub(super) ended: AtomicBool,
    /// How the VFS knows the volume.
    mounted: Once<Weak<Ext2>>,
    /// Something is dirty: for the task that writes back in time.
    pub(super) dirty: Arc<Notify>,
}

impl Volume {
    /// Reads superblock and group descriptors. The volume is read-only until [`Volume::set_read_only`] says otherwise.
    pub async fn open(device: Arc<dyn BlockDevice>, id: DeviceId, source: Vec<u8>, host: Host) -> Result<Arc<Volume>> {
        let bytes = device.read_bytes(layout::SUPER_SECTOR, layout::SUPER_SIZE).await?;
        let sb = SuperBlock::read_from_bytes(&bytes).map_err(|_| Errno::EIO)?;
        let layout = Layout::new(&sb)?;
        if u64::from(layout.blocks) * layout.sectors_per_block() > device.sectors() {
            log::error!("ext2: the file system is larger than its device");
            return Err(Errno::EINVAL);
        }
        let must_read_only = layout.features.check()?;
        if layout.features.metadata_csum()
            && sb.checksum.get() != checksum::crc32c(!0, &bytes[..checksum::SUPER_COVERED])
        {
            log::error!("ext2: the checksum of the superblock is wrong");
            return Err(Errno::EINVAL);
        }
        // What the journal is going to replace may contradict itself.
        let needs_recovery = layout.features.needs_recovery();
        let sums = if needs_recovery { Sums::None } else { Sums::of(&sb) };
        let buffers = Buffers::new(device.clone(), layout.block_size);
        let groups = Groups::load(&layout, &buffers, sums).await?;
        Ok(Arc::new(Volume {
            overhead: overhead(&layout).await,
            found_state: sb.state.get(),
            must_read_only: must_read_only || needs_recovery,
            read_only_on_error: AtomicBool::new(sb.errors.get() == ERRORS_READ_ONLY),
            user_attributes: AtomicBool::new(true),
            syncs: AtomicU32::new(0),
            layout,
            sums,
            device,
            buffers,
            groups,
            host,
            id,
            source,
            superblock: SpinLock::new(sb),
            superblock_dirty: AtomicBool::new(false),
            superblock_first: AtomicBool::new(false),
            unflushed: AtomicBool::new(false),
            read_only: AtomicBool::new(true),
            complete: Mutex::new(true),
            inodes: SpinLock::default(),
            dirty_nodes: SpinLock::default(),
            lost_found: SpinLock::default(),
            order: Order::default(),
            writing: Mutex::new(()),
            orphans: SpinLock::default(),
            superblock_lock: Mutex::new(()),
            deletions: AtomicUsize::new(0),
            changes: AtomicUsize::new(0),
            settled: WaitQueue::new(),
            sealed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            mounted: Once::new(),
            dirty: Arc::new(Notify::new()),
        }))
    }

    pub fn id(&self) -> DeviceId {
        self.id
    }

    pub fn source(&self) -> &[u8] {
        &self.source
    }

    pub(super) fn set_mounted(&self, mounted: &Arc<Ext2>) {
        self.mounted.call_once(|| Arc::downgrade(mounted));
    }

    /// None once the last mount is gone. Names that the cache still knows may outlive it.
    pub fn mounted(&self) -> Option<Arc<Ext2>> {
        self.mounted.get().and_then(Weak::upgrade)
    }

    pub fn now(&self) -> Timespec {
        (self.host.now)()
    }

    pub fn read_only(&self) -> bool {
        self.read_only.load(Ordering::SeqCst)
    }

    /// For every operation that changes something, which holds the answer until its end: refuses, or waits until there is
    /// not too much unwritten metadata.
    pub async fn begin_change(&self) -> Result<Change<'_>> {
        let change = self.count_change();
        if self.read_only() {
            return Err(Errno::EROFS);
        }
        if self.has_much_to_write() {
            self.write_metadata_if(Volume::has_much_to_write).await?;
        }
        Ok(change)
    }

    /// The same without waiting. None: it would have to.
    pub fn begin_change_now(&self) -> Option<Result<Change<'_>>> {
        let change = self.count_change();
        if self.read_only() {
            return Some(Err(Errno::EROFS));
        }
        (!self.has_much_to_write()).then_some(Ok(change))
    }

    fn has_much_to_write(&self) -> bool {
        self.buffers.dirty_count() > DIRTY_LIMIT || self.order.is_pressing()
    }

    /// A change that nobody can refuse, because it was promised. Whoever wants to seal the volume waits for its end.
    pub fn count_change(&self) -> Change<'_> {
        self.changes.fetch_add(1, Ordering::SeqCst);
        Change(self)
    }

    /// Waits until the changes that are going on have ended.
    pub async fn no_changes(&self) {
        self.settled.wait_for(|| (self.changes.load(Ordering::SeqCst) == 0).then_some(())).await
    }

    /// See [`Groups::alloc_blocks`]. If there is no space but for what is held back, it waits until that is on the disk.
    pub async fn alloc_blocks(&self, goal: u32, want: u32, promised: bool) -> Result<Run> {
        let alloc = async || self.groups.alloc_blocks(&self.layout, &self.buffers, goal, want, promised).await;
        let mut result = alloc().await;
        let mut tries = 0;
        while result == Err(Errno::ENOSPC) && self.groups.holds_blocks() && (promised || tries < TRIES) {
            tries += 1;
            if self.write_metadata().await.is_err() {
                // That others cannot be written is not what was asked.
                break;
            }
            result = alloc().await;
        }
        self.tell_damage();
        result
    }

    /// The same for an inode.
    pub async fn alloc_inode(&self, parent: u32, directory: bool) -> Result<u32> {
        let alloc = async || self.groups.alloc_inode(&self.layout, &self.buffers, parent, directory).await;
        let mut result = alloc().await;
        let mut tries = 0;
        while result == Err(Errno::ENOSPC) && self.groups.holds_inodes() && tries < TRIES {
            tries += 1;
            if self.write_metadata().await.is_err() {
                break;
            }
            result = alloc().await;
        }
        self.tell_damage();
        result
    }

    /// Whoever found no space, and holds no lock, may find some now: waits once until what was unlinked is free, because
    /// unlink(2) does not.
    pub async fn awaits_space(&self, waited: &mut bool) -> bool {
        if core::mem::replace(waited, true) {
            return false;
        }
        self.no_deletions().await;
        true
    }

    pub async fn free_run(&self, run: Run) -> Result<()> {
        let result = self.groups.free_run(&self.layout, &self.buffers, run).await;
        self.tell_damage();
        result
    }

    pub async fn free_inode(&self, ino: u32, directory: bool) -> Result<()> {
        let result = self.groups.free_inode(&self.layout, &self.buffers, ino, directory).await;
        self.tell_damage();
        result
    }

    fn tell_damage(&self) {
        if self.groups.damage.load(Ordering::Relaxed) && self.groups.damage.swap(false, Ordering::Relaxed) {
            self.corrupt(format_args!("a group is damaged"));
        }
    }

    /// The structures on disk contradict each other: says so, and follows the superblock's policy.
    pub fn corrupt(&self, what: fmt::Arguments<'_>) {
        log::error!("ext2 on {}: {what}", alloc::string::String::from_utf8_lossy(&self.source));
        let mut sb = self.superblock.lock();
        let state = sb.state.get() | layout::STATE_ERRORS;
        sb.state.set(state);
        self.superblock_dirty.store(true, Ordering::Release);
        if self.read_only_on_error.load(Ordering::Relaxed) && !self.read_only.swap(true, Ordering::SeqCst) {
            log::error!("ext2: remounted read-only");
        }
    }

    /// Marks a feature that others must know to write what is going to be on the volume.
    pub fn need_feature(&self, feature: RoCompat) {
        let mut sb = self.superblock.lock();
        let features = sb.ro_compat.get();
        if sb.revision.get() != 0 && features & feature.bits() == 0 {
            sb.ro_compat.set(features | feature.bits());
            self.superblock_first.store(true, Ordering::Release);
        }
    }

    /// The same for a feature that others need not know.
    pub fn need_compat(&self, feature: Compat) {
        let mut sb = self.superblock.lock();
        let features = sb.compat.get();
        if features & feature.bits() == 0 {
            sb.compat.set(features | feature.bits());
            self.superblock_first.store(true, Ordering::Release);
        }
    }

    /// A format without features and without attributes.
    pub fn is_revision_0(&self) -> bool {
        self.superblock.lock().revision.get() == 0
    }

    pub fn set_last_orphan(&self, ino: u32) {
        self.superblock.lock().last_orphan.set(ino);
        self.superblock_dirty.store(true, Ordering::Release);
    }

    pub fn last_orphan(&self) -> u32 {
        self.superblock.lock().last_orphan.get()
    }

    /// Block and byte of an inode in the inode table.
    pub fn inode_position(&self, ino: u32) -> Result<(u32, usize)> {
        let layout = &self.layout;
        if ino == 0 || ino > layout.inodes {
            return Err(Errno::EIO);
        }
        let index = ((ino - 1) % layout.inodes_per_group) as usize;
        let per_block = layout.block_size / layout.inode_size;
        let table = self.groups.inode_table(layout.group_of_inode(ino))?;
        Ok((table + (index / per_block) as u32, index % per_block * layout.inode_size))
    }

    /// Whether two inodes are in one sector of the table, which is written whole or not at all.
    #[inline]
    pub(super) fn are_together(&self, a: u32, b: u32) -> bool {
        let sector = |ino| self.inode_position(ino).ok().map(|(block, offset)| (block, offset / SECTOR_SIZE));
        sector(a) == sector(b)
    }

    /// See [`Order::unnamed`]. `last`: the inode has no link any more.
    pub(super) fn unnamed(&self, ino: u32, dir: u32, last: bool) {
        self.order.unnamed(ino, dir, || last && self.are_together(ino, dir));
    }

    pub(super) fn deletion_begins(&self) {
        self.deletions.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn deletion_ended(&self) {
        if self.deletions.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.settled.wake_all();
        }
    }

    pub fn is_deleting(&self) -> bool {
        self.deletions.load(Ordering::Acquire) != 0
    }

    /// Waits until what was unlinked and let go of is free.
    pub async fn no_deletions(&self) {
        self.settled.wait_for(|| (self.deletions.load(Ordering::Acquire) == 0).then_some(())).await
    }

    /// The mount option "errors=": what to do when the volume contradicts itself.
    pub fn set_error_policy(&self, read_only: bool) {
        self.read_only_on_error.store(read_only, Ordering::Relaxed);
    }

    /// The mount option "user_xattr".
    pub fn set_user_attributes(&self, there: bool) {
        self.user_attributes.store(there, Ordering::Relaxed);
    }

    pub fn syncs(&self) -> InodeFlags {
        InodeFlags::from_bits_truncate(self.syncs.load(Ordering::Relaxed))
    }

    pub(super) fn set_syncs(&self, flags: InodeFlags) {
        self.syncs.store(flags.bits(), Ordering::Relaxed);
    }

    pub fn has_user_attributes(&self) -> bool {
        self.user_attributes.load(Ordering::Relaxed)
    }

    pub fn statfs(&self) -> StatFs {
        let sb = self.superblock.lock();
        let free = self.groups.available_blocks();
        let id = |at: usize| sb.uuid[at..at + 4].iter().fold(0u32, |id, &byte| id << 8 | u32::from(byte));
        StatFs {
            magic: layout::MAGIC.into(),
            block_size: self.layout.block_size as u64,
            blocks: u64::from(self.layout.blocks - self.overhead.min(self.layout.blocks)),
            free,
            available: free.saturating_sub(sb.reserved_blocks.get().into()),
            files: self.layout.inodes.into(),
            files_free: self.groups.free_inodes(),
            name_max: layout::NAME_MAX as u64,
            fsid: [id(0) ^ id(8), id(4) ^ id(12)],
        }
    }

    /// Runs an operation to its end even if whoever waits for it goes away: a change of several structures must not
    /// stop half-way.
    pub fn run_to_end<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> exec::RunToEnd<T> {
        exec::run_to_end(self.host.spawn, future)
    }
}

/// A change that is going on.
pub struct Change<'a>(&'a Volume);

impl Drop for Change<'_> {
    fn drop(&mut self) {
        if self.0.changes.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.read_only() {
            self.0.settled.wake_all();
        }
    }
}

async fn overhead(layout: &Layout) -> u32 {
    let descs = u64::from(layout.groups.div_ceil(layout.descs_per_block()));
    let table = (layout.inodes_per_group as usize * layout.inode_size).div_ceil(layout.block_size) as u64;
    let mut copies = 0;
    for group in 0..layout.groups {
        copies += u64::from(layout.has_super(group));
        exec::budget().await;
    }
    // Tables that overlap, as no sound volume's do, may add up to more than there is.
    let sum = u64::from(layout.first_data_block) + copies * (1 + descs) + u64::from(layout.groups) * (2 + table);
    sum.min(layout.blocks.into()) as u32
}
