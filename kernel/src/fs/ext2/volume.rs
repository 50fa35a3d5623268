//! A mounted volume: superblock, caches, the table of inodes in memory, and writing everything back.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::task::{Context, Poll};

use hashbrown::HashMap;
use smallvec::smallvec;
use zerocopy::{FromBytes, IntoBytes};

use super::Ext2;
use super::buffers::Buffers;
use super::groups::Groups;
use super::inode::Ext2Inode;
use super::layout::{self, Incompat, Layout, RoCompat, SuperBlock};
use super::node::{self, Node, NodeState};
use crate::errno::{Errno, Result};
use crate::exec::{Mutex, Notify, RwLock, WaitQueue};
use crate::fs::block::{BlockDevice, Memory};
use crate::fs::inode::{DeviceId, FileType, StatFs};
use crate::fs::op::BoxFuture;
use crate::sync::{Once, SpinLock};
use crate::time::Timespec;

/// Inodes kept in memory while nobody uses them.
const IDLE_INODES: usize = 8192;
/// Dirty metadata blocks at which those who make more have to wait for write-back.
const DIRTY_LIMIT: usize = 1024;
/// `errors` in the superblock: go on read-only.
const ERRORS_READ_ONLY: u16 = 2;

/// What a volume needs of its surroundings; tests bring their own.
#[derive(Clone, Copy)]
pub struct Host {
    pub spawn: fn(BoxFuture<'static, ()>),
    pub now: fn() -> Timespec,
}

/// An inode in the table.
enum Slot {
    /// With a name: kept while memory allows.
    Live(Arc<Ext2Inode>),
    /// Without a name, alive as long as somebody uses it.
    Unlinked(Weak<Ext2Inode>),
}

#[derive(Default)]
struct InodeTable {
    slots: HashMap<u32, Slot>,
    /// Candidates for eviction, oldest first.
    clock: VecDeque<u32>,
}

pub struct Volume {
    pub layout: Layout,
    pub device: Arc<dyn BlockDevice>,
    pub buffers: Buffers,
    pub groups: Groups,
    pub host: Host,
    id: DeviceId,
    source: Vec<u8>,
    /// Blocks that can never hold data.
    overhead: u32,
    superblock: SpinLock<SuperBlock>,
    superblock_dirty: AtomicBool,
    /// `state` of the superblock as it was found; what a clean unmount restores.
    found_state: u16,
    /// Features that may be mounted but not written.
    must_read_only: bool,
    read_only_on_error: AtomicBool,
    read_only: AtomicBool,
    inodes: SpinLock<InodeTable>,
    dirty_nodes: SpinLock<BTreeMap<u32, Arc<Node>>>,
    /// Unlinked inodes that are in use, in the order of the list on disk from its end to its head.
    pub(super) orphans: SpinLock<Vec<Arc<Node>>>,
    /// One writer of the superblock at a time.
    superblock_lock: Mutex<()>,
    /// Unlinked inodes that are being freed now, and who waits for that.
    deletions: AtomicUsize,
    deleted: WaitQueue,
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
        let must_read_only = check_features(&sb)?;
        let buffers = Buffers::new(device.clone(), layout.block_size);
        let groups = Groups::load(&layout, &buffers).await?;
        Ok(Arc::new(Volume {
            overhead: overhead(&layout),
            found_state: sb.state.get(),
            must_read_only,
            read_only_on_error: AtomicBool::new(sb.errors.get() == ERRORS_READ_ONLY),
            layout,
            device,
            buffers,
            groups,
            host,
            id,
            source,
            superblock: SpinLock::new(sb),
            superblock_dirty: AtomicBool::new(false),
            read_only: AtomicBool::new(true),
            inodes: SpinLock::default(),
            dirty_nodes: SpinLock::default(),
            orphans: SpinLock::default(),
            superblock_lock: Mutex::new(()),
            deletions: AtomicUsize::new(0),
            deleted: WaitQueue::new(),
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

    pub fn mounted(&self) -> Arc<Ext2> {
        self.mounted.get().and_then(Weak::upgrade).expect("the VFS holds the mount of every inode it uses")
    }

    pub fn now(&self) -> Timespec {
        (self.host.now)()
    }

    pub fn read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }

    /// For every operation that changes something: refuses, or waits until there is not too much unwritten metadata.
    pub async fn begin_change(&self) -> Result<()> {
        if self.read_only() {
            return Err(Errno::EROFS);
        }
        if self.buffers.dirty_count() > DIRTY_LIMIT {
            self.write_metadata().await?;
        }
        Ok(())
    }

    /// The structures on disk contradict each other: says so, and follows the superblock's policy.
    pub fn corrupt(&self, what: fmt::Arguments<'_>) {
        log::error!("ext2 on {}: {what}", alloc::string::String::from_utf8_lossy(&self.source));
        let mut sb = self.superblock.lock();
        let state = sb.state.get() | layout::STATE_ERRORS;
        sb.state.set(state);
        self.superblock_dirty.store(true, Ordering::Release);
        if self.read_only_on_error.load(Ordering::Relaxed) && !self.read_only.swap(true, Ordering::AcqRel) {
            log::error!("ext2: remounted read-only");
        }
    }

    /// Marks a feature that others must know to write what is on the volume now.
    pub fn need_feature(&self, feature: RoCompat) {
        let mut sb = self.superblock.lock();
        let features = sb.ro_compat.get();
        if sb.revision.get() != 0 && features & feature.bits() == 0 {
            sb.ro_compat.set(features | feature.bits());
            self.superblock_dirty.store(true, Ordering::Release);
        }
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

    /// The inode, from memory or from disk.
    pub async fn inode(self: &Arc<Self>, ino: u32) -> Result<Arc<Ext2Inode>> {
        if let Some(found) = self.cached_inode(ino) {
            return found;
        }
        let reserved = ino != layout::ROOT_INO && ino < self.layout.first_ino;
        if reserved || ino > self.layout.inodes {
            self.corrupt(format_args!("a name leads to inode {ino}"));
            return Err(Errno::EIO);
        }
        let (block, offset) = self.inode_position(ino)?;
        let buffer = self.buffers.read(block).await?;
        // Decoded under the lock of the table: if the inode is not in there, its block is up to date.
        let mut table = self.inodes.lock();
        if let Some(found) = table.get(ino) {
            return found;
        }
        let size = self.layout.inode_size;
        let (kind, state) = buffer.with(|data| node::decode(&data[offset..offset + size], ino))?;
        if state.nlink == 0 {
            return Err(Errno::ESTALE);
        }
        let inode = Ext2Inode::new(self.node(ino, kind, state));
        table.insert(ino, Slot::Live(inode.clone()));
        Ok(inode)
    }

    fn cached_inode(&self, ino: u32) -> Option<Result<Arc<Ext2Inode>>> {
        self.inodes.lock().get(ino)
    }

    pub fn node(self: &Arc<Self>, ino: u32, kind: FileType, state: NodeState) -> Arc<Node> {
        Arc::new_cyclic(|me| Node {
            volume: self.clone(),
            me: me.clone(),
            ino,
            kind,
            state: SpinLock::new(state),
            map_lock: RwLock::new(()),
            writes: RwLock::new(()),
            names_lock: Mutex::new(()),
            dir: SpinLock::new(None),
        })
    }

    /// Enters a new inode.
    pub fn adopt(&self, inode: &Arc<Ext2Inode>) {
        self.inodes.lock().insert(inode.node.ino, Slot::Live(inode.clone()));
    }

    /// The inode has lost its last name: it lives as long as somebody uses it.
    pub fn release_when_unused(&self, inode: &Arc<Ext2Inode>) {
        let slot = Slot::Unlinked(Arc::downgrade(inode));
        let old = self.inodes.lock().slots.insert(inode.node.ino, slot);
        drop(old);
    }

    /// The inode is about to become free.
    pub fn disown(&self, ino: u32) {
        let old = self.inodes.lock().slots.remove(&ino);
        drop(old);
    }

    /// The type of an inode, for directories that do not say it.
    pub async fn kind_of(&self, ino: u32) -> Result<FileType> {
        if let Some(Ok(inode)) = self.cached_inode(ino) {
            return Ok(inode.node.kind);
        }
        let (block, offset) = self.inode_position(ino)?;
        let buffer = self.buffers.read(block).await?;
        let size = self.layout.inode_size;
        buffer.with(|data| node::decode(&data[offset..offset + size], ino)).map(|(kind, _)| kind)
    }

    pub fn note_dirty(&self, node: &Arc<Node>) {
        self.dirty_nodes.lock().insert(node.ino, node.clone());
        self.dirty.notify();
    }

    fn live_inodes(&self) -> Vec<Arc<Ext2Inode>> {
        let table = self.inodes.lock();
        let live = table.slots.values().filter_map(|slot| match slot {
            Slot::Live(inode) => Some(inode.clone()),
            Slot::Unlinked(inode) => inode.upgrade(),
        });
        live.collect()
    }

    /// Writes dirty file content, which allocates its blocks.
    pub async fn write_data(&self) -> Result<()> {
        let mut result = Ok(());
        for inode in self.live_inodes() {
            if let Err(errno) = inode.write_data().await {
                result = Err(errno);
            }
        }
        result
    }

    /// Writes inodes, directories, maps, bitmaps and superblock. Not to be dropped before it ends.
    pub async fn write_metadata(&self) -> Result<()> {
        let nodes = core::mem::take(&mut *self.dirty_nodes.lock());
        let mut result = Ok(());
        for node in nodes.into_values() {
            if let Err(errno) = node.store().await {
                log::error!("ext2: inode {} could not be written: {errno:?}", node.ino);
                self.dirty_nodes.lock().insert(node.ino, node);
                result = Err(errno);
            }
        }
        if self.buffers.dirty_count() > 0 {
            // The free counts in the superblock go with the bitmaps.
            self.superblock_dirty.store(true, Ordering::Release);
        }
        result = self.buffers.write_back().await.and(result);
        if self.superblock_dirty.load(Ordering::Acquire) {
            result = self.write_superblock().await.and(result);
        }
        result
    }

    async fn write_superblock(&self) -> Result<()> {
        let _one = self.superblock_lock.lock().await;
        self.superblock_dirty.store(false, Ordering::Release);
        let bytes: Box<[u8]> = {
            let mut sb = self.superblock.lock();
            sb.free_blocks.set(self.groups.free_blocks() as u32);
            sb.free_inodes.set(self.groups.free_inodes() as u32);
            sb.write_time.set(self.now().sec as u32);
            sb.as_bytes().into()
        };
        let result = self.device.write(layout::SUPER_SECTOR, smallvec![Memory::Bytes(bytes)]).await;
        if result.is_err() {
            self.superblock_dirty.store(true, Ordering::Release);
        }
        result
    }

    /// Everything that was written so far is on stable storage afterwards. Not to be dropped before it ends.
    pub async fn sync_all(&self) -> Result<()> {
        let mut result = self.write_data().await;
        if !self.read_only() {
            self.superblock_dirty.store(true, Ordering::Release);
        }
        result = self.write_metadata().await.and(result);
        self.device.flush().await.and(result)
    }

    /// Makes the volume writable, which marks it as in use; or read-only, with everything written and marked clean.
    pub async fn set_read_only(self: &Arc<Self>, read_only: bool) -> Result<()> {
        if read_only {
            let was = self.read_only.swap(true, Ordering::AcqRel);
            self.no_deletions().await;
            if was && self.buffers.dirty_count() == 0 {
                return Ok(());
            }
            let mut result = self.sync_all().await;
            {
                let mut sb = self.superblock.lock();
                let errors = sb.state.get() & layout::STATE_ERRORS;
                let clean = if errors == 0 { self.found_state & layout::STATE_CLEAN } else { 0 };
                sb.state.set((self.found_state & !layout::STATE_CLEAN) | errors | clean);
            }
            result = self.write_superblock().await.and(result);
            return self.device.flush().await.and(result);
        }
        if !self.read_only() {
            return Ok(());
        }
        if self.device.read_only() || self.must_read_only {
            return Err(Errno::EROFS);
        }
        {
            let mut sb = self.superblock.lock();
            let state = sb.state.get();
            if state & layout::STATE_CLEAN == 0 || state & layout::STATE_ERRORS != 0 {
                log::warn!("ext2: the file system was not unmounted cleanly: e2fsck is recommended");
            }
            sb.state.set(state & !layout::STATE_CLEAN);
            let mounts = sb.mount_count.get();
            sb.mount_count.set(mounts.wrapping_add(1));
            sb.mount_time.set(self.now().sec as u32);
        }
        self.write_superblock().await?;
        self.read_only.store(false, Ordering::Release);
        self.delete_orphans().await
    }

    pub(super) fn deletion_begins(&self) {
        self.deletions.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn deletion_ended(&self) {
        if self.deletions.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.deleted.wake_all();
        }
    }

    /// Waits until what was unlinked and let go of is free.
    pub async fn no_deletions(&self) {
        self.deleted.wait_for(|| (self.deletions.load(Ordering::Acquire) == 0).then_some(())).await
    }

    /// The mount option "errors=": what to do when the volume contradicts itself.
    pub fn set_error_policy(&self, read_only: bool) {
        self.read_only_on_error.store(read_only, Ordering::Relaxed);
    }

    /// Drops the cached inodes, which hold the volume and keep it alive. For unmounting.
    pub fn forget_inodes(&self) {
        let table = core::mem::take(&mut *self.inodes.lock());
        drop(table);
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
    pub fn run_to_end<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> RunToEnd<T> {
        RunToEnd { future: Some(Box::pin(future)), begun: false, spawn: self.host.spawn }
    }
}

impl InodeTable {
    fn get(&self, ino: u32) -> Option<Result<Arc<Ext2Inode>>> {
        match self.slots.get(&ino)? {
            Slot::Live(inode) => Some(Ok(inode.clone())),
            Slot::Unlinked(inode) => Some(inode.upgrade().ok_or(Errno::ESTALE)),
        }
    }

    fn insert(&mut self, ino: u32, slot: Slot) {
        self.slots.insert(ino, slot);
        self.clock.push_back(ino);
        // Looks at a few of the oldest only. References are given out under the lock of this table, so one that is
        // the only one stays so while we look.
        for _ in 0..4 {
            if self.slots.len() <= IDLE_INODES {
                return;
            }
            let Some(ino) = self.clock.pop_front() else { return };
            match self.slots.get(&ino) {
                Some(Slot::Live(inode)) if Arc::strong_count(inode) == 1 && inode.is_idle() => {
                    self.slots.remove(&ino);
                }
                Some(_) => self.clock.push_back(ino),
                None => {}
            }
        }
    }
}

/// Says whether the volume may only be read; refuses features that change the format.
fn check_features(sb: &SuperBlock) -> Result<bool> {
    if sb.revision.get() == 0 {
        return Ok(false);
    }
    let unknown = Incompat::from_bits_retain(sb.incompat.get()).difference(Incompat::KNOWN);
    if !unknown.is_empty() {
        log::error!("ext2: cannot mount because of unsupported features ({:#x})", unknown.bits());
        return Err(Errno::EINVAL);
    }
    let unknown = RoCompat::from_bits_retain(sb.ro_compat.get()).difference(RoCompat::KNOWN);
    if !unknown.is_empty() {
        log::warn!("ext2: read-only because of unsupported features ({:#x})", unknown.bits());
    }
    Ok(!unknown.is_empty())
}

fn overhead(layout: &Layout) -> u32 {
    let descs = layout.groups.div_ceil(layout.descs_per_block());
    let table = (layout.inodes_per_group as usize * layout.inode_size).div_ceil(layout.block_size) as u32;
    let copies = (0..layout.groups).filter(|&group| layout.has_super(group)).count() as u32;
    layout.first_data_block + copies * (1 + descs) + layout.groups * (2 + table)
}

/// The future of [`Volume::run_to_end`]: if it is dropped after its first poll, a task finishes the work.
pub struct RunToEnd<T: Send + 'static> {
    future: Option<BoxFuture<'static, T>>,
    begun: bool,
    spawn: fn(BoxFuture<'static, ()>),
}

impl<T: Send> Future for RunToEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.begun = true;
        let Some(future) = &mut self.future else { return Poll::Pending };
        let result = core::task::ready!(future.as_mut().poll(cx));
        self.future = None;
        Poll::Ready(result)
    }
}

impl<T: Send + 'static> Drop for RunToEnd<T> {
    fn drop(&mut self) {
        if let Some(future) = self.future.take()
            && self.begun
        {
            (self.spawn)(Box::pin(async move {
                future.await;
            }));
        }
    }
}
