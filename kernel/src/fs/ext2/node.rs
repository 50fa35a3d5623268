//! The in-memory inode, and its way from and to the inode table.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::sync::atomic::{AtomicU32, Ordering};

use smallvec::SmallVec;
use zerocopy::FromBytes;

use super::checksum::Sums;
use super::dir::DirIndex;
use super::features::RoCompat;
use super::layout::{
    EXTRA_WITH_TIMES, Layout, RAW_EXTRA_SIZE, RAW_INODE_SIZE, ROOT_INO, RawExtra, RawInode, inode_flags,
};
use super::ranges::Ranges;
use super::volume::Volume;
use crate::errno::{Errno, Result};
use crate::exec::{Mutex, RwLock};
use crate::fs::inode::{DeviceId, FileType, Metadata};
use crate::sync::SpinLock;
use crate::time::Timespec;

pub const DIRECT: usize = 12;
pub const POINTERS: usize = 15;
/// Longest target that fits in place of the block pointers, with the NUL that others may expect.
pub const FAST_SYMLINK_MAX: usize = POINTERS * 4 - 1;

/// Where blocks are missing: the first one, and the one after the last.
pub type Holes = SmallVec<[(u64, u64); 1]>;

pub struct NodeState {
    pub perm: u16,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub nlink: u32,
    /// Allocated space including indirect blocks, in units of 512 bytes.
    pub sectors: u64,
    pub flags: u32,
    pub generation: u32,
    /// Block of extended attributes, or 0.
    pub file_acl: u32,
    /// Block pointers; the target of a short symbolic link; the number of a device.
    pub block: [u32; POINTERS],
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    pub btime: Option<Timespec>,
    /// Time of deletion in seconds; for an orphan the next one's number.
    pub dtime: u32,
    /// Where a write that is under way will end: its pages may be written back before `size` says that they count.
    pub write_end: u64,
    /// Blocks whose data waits for write-back, which will allocate them; counted in [`super::groups::Groups`].
    pub reserved: Ranges,
    /// Of these, what the last write has added.
    pub added: Holes,
    /// Blocks whose data is on its way to new blocks, which the map leads to when it has arrived.
    pub coming: Ranges,
    /// The next logical block of a sequential file, and where it would best go.
    pub goal: (u64, u32),
    pub dirty: bool,
}

impl NodeState {
    /// Indirect blocks that write-back will add for the reserved blocks of a file without gaps, so that its size on the
    /// device is known before it is written. `per`: pointers in a block.
    fn indirect_to_come(&self, per: u64) -> u64 {
        const DIRECT: u64 = 12;
        if self.flags & inode_flags::EXTENTS != 0 {
            return 0;
        }
        let count_from = |start| self.reserved.count_from(start) + self.coming.count_from(start);
        let far = count_from(DIRECT + per);
        let first = self.block[12] == 0 && count_from(DIRECT) > 0;
        let second = if far == 0 { 0 } else { u64::from(self.block[13] == 0) + far.div_ceil(per) };
        u64::from(first) + second
    }
}

/// One inode of a mounted volume; there is at most one `Node` for an inode number.
pub struct Node {
    pub volume: Arc<Volume>,
    pub(super) me: Weak<Node>,
    pub ino: u32,
    pub kind: FileType,
    /// Directories: the directory whose names lead here; 0 as long as nobody has come that way.
    pub(super) parent: AtomicU32,
    pub state: SpinLock<NodeState>,
    /// Held shared to look blocks up, exclusively to add or remove some.
    pub map_lock: RwLock<()>,
    /// Held shared while pages are written to blocks of the file, exclusively to wait for that.
    pub writes: RwLock<()>,
    /// Directories: held over a change of names. Two of them are locked in the order of their inode numbers.
    pub names_lock: Mutex<()>,
    /// Directories: where the names are. Loaded by the first use.
    pub dir: SpinLock<Option<Box<DirIndex>>>,
}

impl NodeState {
    /// Behind this nothing of the file matters.
    pub fn content_end(&self) -> u64 {
        self.size.max(self.write_end)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Those of writes that failed.
        self.volume.groups.unreserve(self.state.lock().reserved.len());
    }
}

impl Node {
    /// Changes the inode; it will be written back.
    pub fn update<R>(self: &Arc<Self>, change: impl FnOnce(&mut NodeState) -> R) -> R {
        let (result, newly_dirty) = {
            let mut state = self.state.lock();
            let result = change(&mut state);
            let newly_dirty = !core::mem::replace(&mut state.dirty, true);
            if newly_dirty {
                // Whoever finds it dirty must be able to count on the next write-back.
                self.volume.note_dirty(self);
            }
            (result, newly_dirty)
        };
        if newly_dirty {
            self.volume.dirty.notify();
        }
        result
    }

    /// A directory has one parent, or the tree would be none: walks would not end, and a directory's lock could be
    /// taken by somebody who holds it already. The root has none.
    pub fn is_child_of(&self, parent: u32) -> bool {
        if self.ino == ROOT_INO {
            return false;
        }
        match self.parent.compare_exchange(0, parent, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => true,
            Err(known) => known == parent,
        }
    }

    /// The handle, for calls that come without it.
    pub fn me(&self) -> Option<Arc<Node>> {
        self.me.upgrade()
    }

    pub fn metadata(&self) -> Metadata {
        let state = self.state.lock();
        let rdev = match self.kind {
            FileType::CharDevice | FileType::BlockDevice => decode_device(&state.block),
            _ => DeviceId::default(),
        };
        Metadata {
            ino: self.ino.into(),
            kind: self.kind,
            perm: state.perm,
            nlink: state.nlink,
            uid: state.uid,
            gid: state.gid,
            rdev,
            size: state.size,
            block_size: crate::mm::PAGE_SIZE as u32,
            blocks: state.sectors
                + (state.reserved.len()
                    + state.coming.len()
                    + state.indirect_to_come(self.volume.layout.block_size as u64 / 4))
                    * self.volume.layout.sectors_per_block(),
            atime: state.atime,
            mtime: state.mtime,
            ctime: state.ctime,
            btime: state.btime,
        }
    }

    /// A symbolic link that is kept in the inode.
    pub fn is_fast_symlink(&self) -> bool {
        let state = self.state.lock();
        let xattr = if state.file_acl != 0 { self.volume.layout.sectors_per_block() } else { 0 };
        self.kind == FileType::Symlink && state.sectors == xattr
    }

    /// Writes the inode into its block of the inode table (in memory) if it has changed.
    pub async fn store(&self) -> Result<()> {
        if !self.state.lock().dirty {
            return Ok(());
        }
        let volume = &self.volume;
        let (block, offset) = volume.inode_position(self.ino)?;
        let buffer = volume.buffers.read(block).await?;
        {
            let mut state = self.state.lock();
            state.dirty = false;
            if self.kind == FileType::Regular && state.size > i32::MAX as u64 {
                volume.need_feature(RoCompat::LARGE_FILE);
            }
            buffer.modify(|data| {
                let raw = &mut data[offset..offset + volume.layout.inode_size];
                encode(self.kind, &state, volume.layout.features.huge_file(), raw);
                volume.sums.seal_inode(self.ino, raw);
            });
        }
        Ok(())
    }
}

impl Volume {
    /// What an inode's place in the table says.
    pub fn decode(&self, raw: &[u8], ino: u32) -> Result<(FileType, NodeState)> {
        decode(raw, ino, &self.layout, self.sums)
    }
}

pub fn decode(raw: &[u8], ino: u32, layout: &Layout, sums: Sums) -> Result<(FileType, NodeState)> {
    let (base, tail) = RawInode::read_from_prefix(raw).map_err(|_| Errno::EIO)?;
    let extra = RawExtra::read_from_prefix(tail).ok().map(|(extra, _)| extra);
    let extra = extra.filter(|extra| extra.size.get() >= EXTRA_WITH_TIMES);
    let mode = u32::from(base.mode.get());
    if mode == 0 {
        return Err(Errno::ESTALE);
    }
    if !sums.verify_inode(ino, raw) {
        log::error!("ext2: the checksum of inode {ino} is wrong");
        return Err(Errno::EIO);
    }
    if base.file_acl_high.get() != 0 {
        log::error!("ext2: inode {ino} has attributes in no block");
        return Err(Errno::EIO);
    }
    let mut sectors = u64::from(base.blocks.get());
    let mut flags = base.flags.get();
    if layout.features.huge_file() {
        sectors |= u64::from(base.blocks_high.get()) << 32;
        if flags & inode_flags::HUGE_FILE != 0 {
            flags &= !inode_flags::HUGE_FILE;
            sectors = sectors.saturating_mul(layout.sectors_per_block());
        }
    }
    if flags & inode_flags::EXTENTS != 0 && !layout.features.extents() {
        log::error!("ext2: inode {ino} has extents");
        return Err(Errno::EIO);
    }
    let Some(kind) = FileType::from_mode(mode) else {
        log::error!("ext2: inode {ino} has mode {mode:#o}");
        return Err(Errno::EIO);
    };
    let mut size = u64::from(base.size.get());
    if kind == FileType::Regular {
        size |= u64::from(base.size_high.get()) << 32;
    }
    if size > i64::MAX as u64 {
        log::error!("ext2: inode {ino} has size {size}");
        return Err(Errno::EIO);
    }
    let time = |seconds: u32, bits: Option<u32>| decode_time(seconds, bits);
    let state = NodeState {
        perm: (mode & 0o7777) as u16,
        uid: u32::from(base.uid.get()) | u32::from(base.uid_high.get()) << 16,
        gid: u32::from(base.gid.get()) | u32::from(base.gid_high.get()) << 16,
        size,
        nlink: base.links.get().into(),
        sectors,
        flags,
        generation: base.generation.get(),
        file_acl: base.file_acl.get(),
        block: base.block.map(|pointer| pointer.get()),
        atime: time(base.atime.get(), extra.as_ref().map(|extra| extra.atime.get())),
        mtime: time(base.mtime.get(), extra.as_ref().map(|extra| extra.mtime.get())),
        ctime: time(base.ctime.get(), extra.as_ref().map(|extra| extra.ctime.get())),
        btime: extra.as_ref().map(|extra| time(extra.btime.get(), Some(extra.btime_extra.get()))),
        dtime: base.dtime.get(),
        write_end: 0,
        reserved: Ranges::default(),
        added: Holes::new(),
        coming: Ranges::default(),
        goal: (0, 0),
        dirty: false,
    };
    Ok((kind, state))
}

/// Overlays the inode on what is in the table, so that fields nobody here knows stay as they are.
fn encode(kind: FileType, state: &NodeState, huge_file: bool, raw: &mut [u8]) {
    let Some((base_bytes, tail)) = raw.split_at_mut_checked(RAW_INODE_SIZE) else { return };
    let Ok(base) = RawInode::mut_from_bytes(base_bytes) else { return };
    base.mode.set((kind.mode_bits() | u32::from(state.perm)) as u16);
    base.uid.set(state.uid as u16);
    base.uid_high.set((state.uid >> 16) as u16);
    base.gid.set(state.gid as u16);
    base.gid_high.set((state.gid >> 16) as u16);
    base.size.set(state.size as u32);
    if kind == FileType::Regular {
        base.size_high.set((state.size >> 32) as u32);
    }
    base.links.set(state.nlink as u16);
    base.blocks.set(state.sectors as u32);
    if huge_file {
        base.blocks_high.set((state.sectors >> 32) as u16);
    }
    base.flags.set(state.flags);
    base.generation.set(state.generation);
    base.file_acl.set(state.file_acl);
    base.dtime.set(state.dtime);
    for (to, from) in base.block.iter_mut().zip(state.block) {
        to.set(from);
    }
    base.atime.set(state.atime.sec as u32);
    base.mtime.set(state.mtime.sec as u32);
    base.ctime.set(state.ctime.sec as u32);
    let Some(extra) = tail.get_mut(..RAW_EXTRA_SIZE).and_then(|bytes| RawExtra::mut_from_bytes(bytes).ok()) else {
        return;
    };
    if extra.size.get() < EXTRA_WITH_TIMES {
        return;
    }
    extra.atime.set(extra_time(state.atime));
    extra.mtime.set(extra_time(state.mtime));
    extra.ctime.set(extra_time(state.ctime));
    if let Some(btime) = state.btime {
        extra.btime.set(btime.sec as u32);
        extra.btime_extra.set(extra_time(btime));
    }
}

/// Clears the place of a new inode and claims the part behind the first 128 bytes.
pub fn format(raw: &mut [u8]) {
    raw.fill(0);
    if let Some(tail) = raw.get_mut(RAW_INODE_SIZE..RAW_INODE_SIZE + RAW_EXTRA_SIZE)
        && let Ok(extra) = RawExtra::mut_from_bytes(tail)
    {
        extra.size.set(RAW_EXTRA_SIZE as u16);
    }
}

/// Two bits of the extra word continue the signed 32-bit seconds, thirty are nanoseconds.
fn decode_time(seconds: u32, extra: Option<u32>) -> Timespec {
    let extra = extra.unwrap_or(0);
    let sec = i64::from(seconds as i32) + (i64::from(extra & 3) << 32);
    Timespec { sec, nsec: (extra >> 2).min(999_999_999) }
}

/// A time as the inode can keep it: the nearest one, as Linux has it. `extended`: the inode has the extra words.
pub fn storable(time: Timespec, extended: bool) -> Timespec {
    let (first, last) = (i64::from(i32::MIN), i64::from(i32::MAX) + if extended { 3 << 32 } else { 0 });
    match time.sec {
        sec if sec < first => Timespec { sec: first, nsec: 0 },
        sec if sec >= last => Timespec { sec: last, nsec: 0 },
        sec => Timespec { sec, nsec: if extended { time.nsec } else { 0 } },
    }
}

fn extra_time(time: Timespec) -> u32 {
    let epoch = ((time.sec - i64::from(time.sec as i32)) >> 32) as u32 & 3;
    epoch | (time.nsec << 2)
}

/// Linux keeps small device numbers in the first pointer (8 bits each), others in the second.
pub fn decode_device(block: &[u32; POINTERS]) -> DeviceId {
    let (old, new) = (block[0], block[1]);
    if old != 0 {
        DeviceId::new((old >> 8) & 0xff, old & 0xff)
    } else {
        DeviceId::new((new >> 8) & 0xfff, (new & 0xff) | ((new >> 12) & 0xf_ff00))
    }
}

pub fn encode_device(id: DeviceId) -> [u32; POINTERS] {
    let mut block = [0; POINTERS];
    if id.major < 256 && id.minor < 256 {
        block[0] = id.major << 8 | id.minor;
    } else {
        block[1] = (id.minor & 0xff) | (id.major & 0xfff) << 8 | (id.minor & !0xff) << 12;
    }
    block
}

/// The flags that a new node takes from its directory.
pub fn inherited_flags(parent: u32, kind: FileType) -> u32 {
    let flags = parent & inode_flags::INHERITED;
    match kind {
        FileType::Directory => flags,
        FileType::Regular => flags & !inode_flags::NOT_FOR_FILES,
        _ => flags & inode_flags::FOR_OTHERS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_and_after_2038_survive() {
        for sec in [-1, -2_000_000_000, 0, 1_700_000_000, 2_147_483_648, 5_000_000_000, 15_000_000_000] {
            let time = Timespec { sec, nsec: 123_456_789 };
            assert_eq!(decode_time(time.sec as u32, Some(extra_time(time))), time);
        }
    }

    #[test]
    fn device_numbers_survive() {
        for id in [DeviceId::new(5, 1), DeviceId::new(254, 16), DeviceId::new(300, 5), DeviceId::new(8, 70_000)] {
            assert_eq!(decode_device(&encode_device(id)), id);
        }
    }
}
