//! The on-disk format of ext2 ("The Second Extended File System", Dave Poirier; ext4 layout in the kernel
//! documentation's `filesystems/ext4`). All numbers are little-endian.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::features::{Compat, Features, Incompat, RoCompat};
use crate::errno::{Errno, Result};

pub const MAGIC: u16 = 0xef53;
/// The superblock is 1024 bytes at byte 1024 of the device, whatever the block size.
pub const SUPER_SECTOR: u64 = 2;
pub const SUPER_SIZE: usize = 1024;

pub const ROOT_INO: u32 = 2;
/// Inode and size of revision 0.
pub const GOOD_OLD_FIRST_INO: u32 = 11;
pub const GOOD_OLD_INODE_SIZE: u16 = 128;

/// `state`: unmounted cleanly; errors seen.
pub const STATE_CLEAN: u16 = 1;
pub const STATE_ERRORS: u16 = 2;

/// Links to an inode: of ext2 and ext3, and of file systems with extents.
pub const LINK_MAX: u32 = 32_000;
pub const LINK_MAX_EXT4: u32 = 65_000;
pub const NAME_MAX: usize = 255;

#[repr(C)]
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SuperBlock {
    pub inodes_count: U32,
    pub blocks_count: U32,
    pub reserved_blocks: U32,
    pub free_blocks: U32,
    pub free_inodes: U32,
    pub first_data_block: U32,
    pub log_block_size: U32,
    pub log_frag_size: U32,
    pub blocks_per_group: U32,
    pub frags_per_group: U32,
    pub inodes_per_group: U32,
    pub mount_time: U32,
    pub write_time: U32,
    pub mount_count: U16,
    pub max_mount_count: U16,
    pub magic: U16,
    pub state: U16,
    pub errors: U16,
    pub minor_revision: U16,
    pub last_check: U32,
    pub check_interval: U32,
    pub creator_os: U32,
    pub revision: U32,
    pub def_resuid: U16,
    pub def_resgid: U16,
    pub first_ino: U32,
    pub inode_size: U16,
    pub block_group: U16,
    pub compat: U32,
    pub incompat: U32,
    pub ro_compat: U32,
    pub uuid: [u8; 16],
    pub volume_name: [u8; 16],
    pub last_mounted: [u8; 64],
    pub algorithms: U32,
    pub prealloc_blocks: u8,
    pub prealloc_dir_blocks: u8,
    pub reserved_gdt_blocks: U16,
    pub journal_uuid: [u8; 16],
    pub journal_inum: U32,
    pub journal_dev: U32,
    /// Head of the list of unlinked inodes that were in use, chained through `dtime`.
    pub last_orphan: U32,
    pub hash_seed: [U32; 4],
    pub def_hash_version: u8,
    pub journal_backup_type: u8,
    pub desc_size: U16,
    pub default_mount_opts: U32,
    pub first_meta_bg: U32,
    pub made: U32,
    pub journal_blocks: [U32; 17],
    pub blocks_high: U32,
    pub reserved_high: U32,
    pub free_high: U32,
    pub min_extra_size: U16,
    pub want_extra_size: U16,
    pub flags: U32,
    pub raid_stride: U16,
    pub mmp_interval: U16,
    pub mmp_block: [U32; 2],
    pub raid_stripe_width: U32,
    pub log_groups_per_flex: u8,
    pub checksum_type: u8,
    pub pad: U16,
    pub middle: [u8; 248],
    pub checksum_seed: U32,
    pub rest: [u8; 392],
    pub checksum: U32,
}

const _: () = assert!(core::mem::offset_of!(SuperBlock, blocks_high) == 0x150);
const _: () = assert!(core::mem::offset_of!(SuperBlock, checksum_seed) == 0x270);
const _: () = assert!(core::mem::offset_of!(SuperBlock, checksum) == 0x3fc);

const _: () = assert!(size_of::<SuperBlock>() == SUPER_SIZE);

/// A group descriptor.
#[repr(C)]
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GroupDesc {
    pub block_bitmap: U32,
    pub inode_bitmap: U32,
    pub inode_table: U32,
    pub free_blocks: U16,
    pub free_inodes: U16,
    pub used_dirs: U16,
    /// See [`group_flags`].
    pub flags: U16,
    pub exclude_bitmap: U32,
    pub block_bitmap_checksum: U16,
    pub inode_bitmap_checksum: U16,
    /// Inodes at the end of the table that have never been used; their blocks may hold anything.
    pub unused_inodes: U16,
    pub checksum: U16,
}

/// The second half of a group descriptor of 64 bytes. What counts blocks or inodes of a group is 0 here, because a group
/// has no more than 32,768, and so is what would be a block behind 2^32.
#[repr(C)]
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct GroupDescHigh {
    pub block_bitmap: U32,
    pub inode_bitmap: U32,
    pub inode_table: U32,
    pub free_blocks: U16,
    pub free_inodes: U16,
    pub used_dirs: U16,
    pub unused_inodes: U16,
    pub exclude_bitmap: U32,
    pub block_bitmap_checksum: U16,
    pub inode_bitmap_checksum: U16,
    pub reserved: U32,
}

/// Blocks that a group has at least, the last one apart; mke2fs makes none with less.
const GROUP_MIN: u32 = 256;

pub const DESC_HIGH_SIZE: usize = size_of::<GroupDescHigh>();
const _: () = assert!(DESC_HIGH_SIZE == 32);

/// `flags` of a group descriptor: bitmaps that were never written.
pub mod group_flags {
    pub const INODES_UNINIT: u16 = 1;
    pub const BLOCKS_UNINIT: u16 = 2;
}

pub const DESC_SIZE: usize = size_of::<GroupDesc>();
const _: () = assert!(DESC_SIZE == 32);

/// The part of an inode that every revision has.
#[repr(C)]
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawInode {
    pub mode: U16,
    pub uid: U16,
    pub size: U32,
    pub atime: U32,
    pub ctime: U32,
    pub mtime: U32,
    pub dtime: U32,
    pub gid: U16,
    pub links: U16,
    /// In units of 512 bytes.
    pub blocks: U32,
    pub flags: U32,
    pub osd1: U32,
    pub block: [U32; 15],
    pub generation: U32,
    pub file_acl: U32,
    /// High half of the size of regular files.
    pub size_high: U32,
    pub faddr: U32,
    pub blocks_high: U16,
    pub file_acl_high: U16,
    pub uid_high: U16,
    pub gid_high: U16,
    pub checksum: U16,
    pub reserved: U16,
}

pub const RAW_INODE_SIZE: usize = size_of::<RawInode>();
const _: () = assert!(RAW_INODE_SIZE == 128);

/// What follows in inodes of 160 bytes and more, if `size` says so.
#[repr(C)]
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RawExtra {
    /// Bytes of the inode that are in use behind the first 128.
    pub size: U16,
    pub checksum_high: U16,
    pub ctime: U32,
    pub mtime: U32,
    pub atime: U32,
    pub btime: U32,
    pub btime_extra: U32,
    pub version_high: U32,
    pub project: U32,
}

pub const RAW_EXTRA_SIZE: usize = size_of::<RawExtra>();
/// What `size` must be at least for all times to be there.
pub const EXTRA_WITH_TIMES: u16 = 24;

pub mod inode_flags {
    /// The directory has a hash tree; its blocks are still a valid linear directory.
    pub const INDEX: u32 = 0x1000;
    /// `blocks` counts blocks of the file system, not of 512 bytes.
    pub const HUGE_FILE: u32 = 0x4_0000;
    /// The map is a tree of extents.
    pub const EXTENTS: u32 = 0x8_0000;
    /// Flags that new nodes take from their directory (FL_INHERITED).
    pub const INHERITED: u32 = 0x0001 | 0x0002 | 0x0004 | 0x0008 | 0x0040 | 0x0080 | 0x0400 | 0x8000 | 0x1_0000;
    /// Flags for directories only.
    pub const NOT_FOR_FILES: u32 = 0x1_0000 | 0x2_0000 | 0x2000_0000 | 0x4000_0000;
    pub const FOR_OTHERS: u32 = 0x0040 | 0x0080;
    /// Flags that ioctl_iflags(2) shows (FL_USER_VISIBLE), takes (FL_USER_MODIFIABLE), and can change here.
    pub const VISIBLE: u32 = TAKEN | 0x0f00 | INDEX | 0x10_0000 | 0x1000_0000;
    pub const TAKEN: u32 = SETTABLE | JOURNAL_DATA | EXTENTS | 0x40_0000 | 0x0200_0000 | 0x6000_0000;
    pub const SETTABLE: u32 = 0x00ff | 0x8000 | 0x1_0000 | 0x2_0000;
    /// Without a journal it is neither kept nor refused.
    pub const JOURNAL_DATA: u32 = 0x4000;
}

/// Numbers that follow from the superblock and never change while mounted.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Bytes.
    pub block_size: usize,
    pub blocks: u32,
    pub first_data_block: u32,
    pub blocks_per_group: u32,
    pub inodes_per_group: u32,
    pub inodes: u32,
    pub groups: u32,
    pub inode_size: usize,
    pub first_ino: u32,
    pub file_type: bool,
    pub features: Features,
    /// Bytes of a group descriptor: 32 or 64.
    pub desc_size: usize,
    meta_bg: Option<u32>,
    sparse_super: bool,
    pub reserved_desc_blocks: u32,
}

impl Layout {
    pub fn new(sb: &SuperBlock) -> Result<Layout> {
        let old = sb.revision.get() == 0;
        let log = sb.log_block_size.get();
        if sb.magic.get() != MAGIC || log > 2 {
            return Err(Errno::EINVAL);
        }
        let block_size = 1024usize << log;
        let bits = block_size as u32 * 8;
        let features = Features::of(sb);
        let inode_size = if old { GOOD_OLD_INODE_SIZE } else { sb.inode_size.get() } as usize;
        let (blocks, first) = (sb.blocks_count.get(), sb.first_data_block.get());
        let (per_group, inodes_per_group) = (sb.blocks_per_group.get(), sb.inodes_per_group.get());
        let sound = inode_size.is_power_of_two()
            && (RAW_INODE_SIZE..=block_size).contains(&inode_size)
            && (GROUP_MIN..=bits).contains(&per_group)
            && (1..=bits).contains(&inodes_per_group)
            && first == u32::from(block_size == 1024)
            && blocks > first
            // More than 2^32 blocks are not for us.
            && (!features.wide_blocks() || sb.blocks_high.get() == 0);
        let desc_size = if features.wide_blocks() { usize::from(sb.desc_size.get()) } else { DESC_SIZE };
        let sound = sound && (desc_size == DESC_SIZE || desc_size == DESC_SIZE + DESC_HIGH_SIZE);
        if !sound {
            return Err(Errno::EINVAL);
        }
        let groups = (blocks - first).div_ceil(per_group);
        let inodes = sb.inodes_count.get();
        if u64::from(groups) * u64::from(inodes_per_group) != u64::from(inodes) {
            return Err(Errno::EINVAL);
        }
        Ok(Layout {
            block_size,
            blocks,
            first_data_block: first,
            blocks_per_group: per_group,
            inodes_per_group,
            inodes,
            groups,
            inode_size,
            first_ino: if old { GOOD_OLD_FIRST_INO } else { sb.first_ino.get().max(GOOD_OLD_FIRST_INO) },
            file_type: features.incompat.contains(Incompat::FILETYPE),
            meta_bg: features.incompat.contains(Incompat::META_BG).then(|| sb.first_meta_bg.get()),
            sparse_super: features.ro_compat.contains(RoCompat::SPARSE_SUPER),
            reserved_desc_blocks: if features.compat.contains(Compat::RESIZE_INODE) {
                sb.reserved_gdt_blocks.get().into()
            } else {
                0
            },
            features,
            desc_size,
        })
    }

    pub fn sectors_per_block(&self) -> u64 {
        (self.block_size / crate::fs::block::SECTOR_SIZE) as u64
    }

    pub fn group_first_block(&self, group: u32) -> u32 {
        self.first_data_block + group * self.blocks_per_group
    }

    /// Blocks of a group; the last may be short.
    pub fn group_blocks(&self, group: u32) -> u32 {
        self.blocks_per_group.min(self.blocks - self.group_first_block(group))
    }

    pub fn group_of_block(&self, block: u32) -> u32 {
        (block - self.first_data_block) / self.blocks_per_group
    }

    pub fn group_of_inode(&self, ino: u32) -> u32 {
        (ino - 1) / self.inodes_per_group
    }

    /// Where an inode has its first block if it can be chosen: in its own group.
    pub fn home(&self, ino: u32) -> u32 {
        self.group_first_block(self.group_of_inode(ino)).max(self.first_data_block + 1)
    }

    /// True for a block number that can hold data.
    pub fn valid_block(&self, block: u32) -> bool {
        block > self.first_data_block && block < self.blocks
    }

    pub fn descs_per_block(&self) -> u32 {
        (self.block_size / self.desc_size) as u32
    }

    /// Block numbers in one indirect block.
    pub fn pointers_per_block(&self) -> u64 {
        (self.block_size / 4) as u64
    }

    /// Where the `index`th block of group descriptors is.
    pub fn desc_block(&self, index: u32) -> u32 {
        match self.meta_bg {
            Some(first_meta) if index >= first_meta => {
                let group = index * self.descs_per_block();
                self.group_first_block(group) + u32::from(self.has_super(group))
            }
            _ => self.first_data_block + 1 + index,
        }
    }

    /// Whether the group begins with a copy of the superblock.
    pub fn has_super(&self, group: u32) -> bool {
        let power_of = |base: u32| {
            let mut power = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        !self.sparse_super || group <= 1 || power_of(3) || power_of(5) || power_of(7)
    }

    /// Blocks with group descriptors behind a copy of the superblock, those kept free for more of them included.
    pub fn desc_blocks_of(&self, group: u32) -> u32 {
        let all = self.groups.div_ceil(self.descs_per_block());
        match self.meta_bg {
            Some(first_meta) if group >= first_meta.saturating_mul(self.descs_per_block()) => {
                // Each set of groups has its one block in its first, second and last.
                let place = group % self.descs_per_block();
                u32::from(place <= 1 || place == self.descs_per_block() - 1)
            }
            Some(first_meta) if self.has_super(group) => first_meta.min(all),
            None if self.has_super(group) => all + self.reserved_desc_blocks,
            _ => 0,
        }
    }

    pub fn link_max(&self) -> u32 {
        if self.features.extents() { LINK_MAX_EXT4 } else { LINK_MAX }
    }

    /// Bytes of a directory block that hold entries: with checksums there is one at the end.
    pub fn dir_area(&self) -> usize {
        self.block_size - if self.features.metadata_csum() { super::checksum::DIR_TAIL } else { 0 }
    }

    /// Logical blocks of the largest file: limited by the map and by the count of an inode's blocks.
    pub fn max_file_blocks(&self, extents: bool) -> u64 {
        let n = self.pointers_per_block();
        let by_map = if extents { u32::MAX.into() } else { 12 + n + n * n + n * n * n };
        let count = if self.features.huge_file() { (1 << 48) - 1 } else { u64::from(u32::MAX) };
        // The map's own blocks count too; they are less than one in 200.
        let by_count = (count / self.sectors_per_block()) / 201 * 200;
        by_map.min(by_count)
    }
}
