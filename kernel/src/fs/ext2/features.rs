//! Features of a file system: what we know, what we may write, and as which type it can be mounted.

use super::layout::SuperBlock;
use crate::errno::{Errno, Result};

bitflags::bitflags! {
    /// Features that a driver need not know.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Compat: u32 {
        const HAS_JOURNAL = 0x4;
        const EXT_ATTR = 0x8;
        const RESIZE_INODE = 0x10;
        /// Copies of the superblock are in two groups of its choice.
        const SPARSE_SUPER2 = 0x200;
        const _ = !0;
    }
}

bitflags::bitflags! {
    /// Features that a driver must know to read the file system.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Incompat: u32 {
        const FILETYPE = 0x2;
        /// The journal has to be replayed.
        const RECOVER = 0x4;
        const META_BG = 0x10;
        const EXTENTS = 0x40;
        const WIDE_BLOCKS = 0x80;
        const FLEX_BG = 0x200;
        const CHECKSUM_SEED = 0x2000;
        const _ = !0;
    }
}

bitflags::bitflags! {
    /// Features that a driver must know to write the file system.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct RoCompat: u32 {
        const SPARSE_SUPER = 0x1;
        const LARGE_FILE = 0x2;
        const BTREE_DIR = 0x4;
        const HUGE_FILE = 0x8;
        const GDT_CSUM = 0x10;
        const DIR_NLINK = 0x20;
        const EXTRA_ISIZE = 0x40;
        const METADATA_CSUM = 0x400;
        const _ = !0;
    }
}

impl Incompat {
    /// Of ext2 and ext3.
    const OLD: Incompat = Incompat::FILETYPE.union(Incompat::META_BG);
    const KNOWN: Incompat = Incompat::OLD
        .union(Incompat::RECOVER)
        .union(Incompat::EXTENTS)
        .union(Incompat::WIDE_BLOCKS)
        .union(Incompat::FLEX_BG)
        .union(Incompat::CHECKSUM_SEED);
}

impl RoCompat {
    /// Of ext2 and ext3.
    const OLD: RoCompat = RoCompat::SPARSE_SUPER.union(RoCompat::LARGE_FILE).union(RoCompat::BTREE_DIR);
    const KNOWN: RoCompat = RoCompat::OLD
        .union(RoCompat::EXTRA_ISIZE)
        .union(RoCompat::HUGE_FILE)
        .union(RoCompat::GDT_CSUM)
        .union(RoCompat::DIR_NLINK)
        .union(RoCompat::METADATA_CSUM);
}

/// Names under which file systems of this family are mounted. The format is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    Ext2,
    Ext3,
    Ext4,
}

impl Family {
    pub fn name(self) -> &'static str {
        match self {
            Family::Ext2 => "ext2",
            Family::Ext3 => "ext3",
            Family::Ext4 => "ext4",
        }
    }
}

/// What the superblock says; nothing for revision 0.
#[derive(Clone, Copy, Debug)]
pub struct Features {
    pub compat: Compat,
    pub incompat: Incompat,
    pub ro_compat: RoCompat,
}

impl Features {
    pub fn of(sb: &SuperBlock) -> Features {
        let old = sb.revision.get() == 0;
        let field = |value: u32| if old { 0 } else { value };
        Features {
            compat: Compat::from_bits_retain(field(sb.compat.get())),
            incompat: Incompat::from_bits_retain(field(sb.incompat.get())),
            ro_compat: RoCompat::from_bits_retain(field(sb.ro_compat.get())),
        }
    }

    pub fn has_journal(&self) -> bool {
        self.compat.contains(Compat::HAS_JOURNAL)
    }

    pub fn needs_recovery(&self) -> bool {
        self.incompat.contains(Incompat::RECOVER)
    }

    pub fn extents(&self) -> bool {
        self.incompat.contains(Incompat::EXTENTS)
    }

    pub fn wide_blocks(&self) -> bool {
        self.incompat.contains(Incompat::WIDE_BLOCKS)
    }

    pub fn huge_file(&self) -> bool {
        self.ro_compat.contains(RoCompat::HUGE_FILE)
    }

    pub fn metadata_csum(&self) -> bool {
        self.ro_compat.contains(RoCompat::METADATA_CSUM)
    }

    /// Group descriptors have checksums, and say which bitmaps have never been written.
    pub fn group_checksums(&self) -> bool {
        self.ro_compat.intersects(RoCompat::METADATA_CSUM | RoCompat::GDT_CSUM)
    }

    /// The type that the file system was made as.
    pub fn family(&self) -> Family {
        let old = Incompat::OLD.contains(self.incompat - Incompat::RECOVER)
            // Inodes of 256 bytes were there before they had a feature.
            && RoCompat::OLD.union(RoCompat::EXTRA_ISIZE).contains(self.ro_compat);
        match (old, self.has_journal()) {
            (true, false) => Family::Ext2,
            (true, true) => Family::Ext3,
            (false, _) => Family::Ext4,
        }
    }

    /// Whether it can be mounted as this type, as Linux has it: ext2 takes an ext3 that was unmounted cleanly, ext3 wants a
    /// journal, ext4 takes all.
    pub fn fits(&self, family: Family) -> bool {
        match family {
            Family::Ext2 => self.family() != Family::Ext4 && !self.needs_recovery(),
            Family::Ext3 => self.family() == Family::Ext3,
            Family::Ext4 => true,
        }
    }

    /// Says whether the volume may only be read; refuses features that change the format.
    pub fn check(&self) -> Result<bool> {
        let unknown = self.incompat.difference(Incompat::KNOWN);
        if !unknown.is_empty() {
            log::error!("ext2: cannot mount because of unsupported features ({:#x})", unknown.bits());
            return Err(Errno::EINVAL);
        }
        let unknown = self.ro_compat.difference(RoCompat::KNOWN);
        // Who does not know where the copies are would give their blocks to files.
        let moved = self.compat.contains(Compat::SPARSE_SUPER2);
        if !unknown.is_empty() || moved {
            let compat = if moved { Compat::SPARSE_SUPER2.bits() } else { 0 };
            log::warn!("ext2: read-only because of unsupported features ({:#x}, {compat:#x})", unknown.bits());
        }
        Ok(!unknown.is_empty() || moved)
    }
}
