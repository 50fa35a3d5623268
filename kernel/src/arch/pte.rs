//! VMSAv8-64 descriptors for a 4 KiB granule, 48-bit addresses, stage 1, EL1&0 (Arm ARM D8.3).
//! Pure bit arithmetic, so the host build uses the same format for its simulated tables.

use bitflags::bitflags;

/// A translation-table descriptor at any level.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Pte(pub u64);

bitflags! {
    /// Bits of a descriptor other than the output address.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct PteFlags: u64 {
        const VALID = 1 << 0;
        /// Table (levels 0–2) or page (level 3); clear means block at levels 1–2.
        const TABLE = 1 << 1;
        /// MAIR index 0: normal write-back memory. Index 1: device nGnRE. Index 2: normal non-cacheable.
        const ATTR_DEVICE = 1 << 2;
        const ATTR_UNCACHED = 2 << 2;
        /// AP[1]: accessible from EL0.
        const USER = 1 << 6;
        /// AP[2]: read-only.
        const READ_ONLY = 1 << 7;
        const INNER_SHAREABLE = 3 << 8;
        const ACCESSED = 1 << 10;
        const NOT_GLOBAL = 1 << 11;
        const PXN = 1 << 53;
        const UXN = 1 << 54;
        /// Software: the page belongs to a private mapping, so a write to it while it is shared copies it.
        const SW_PRIVATE = 1 << 55;
        /// Software: written to since the flag was last cleared.
        const SW_DIRTY = 1 << 56;
        /// Software: the frame is not counted by the mapping (zero page, vDSO, device).
        const SW_UNCOUNTED = 1 << 57;
        /// Table descriptors only: every page below is read-only (APTable[1]).
        const TABLE_READ_ONLY = 1 << 62;
    }
}

const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

impl Pte {
    pub const EMPTY: Pte = Pte(0);

    pub const fn new(address: u64, flags: PteFlags) -> Pte {
        Pte((address & ADDRESS) | flags.bits())
    }

    pub const fn address(self) -> u64 {
        self.0 & ADDRESS
    }

    pub const fn flags(self) -> PteFlags {
        PteFlags::from_bits_truncate(self.0 & !ADDRESS)
    }

    pub const fn is_valid(self) -> bool {
        self.0 & 1 != 0
    }

    /// True for a table descriptor; meaningful at levels 0–2 only.
    pub const fn is_table(self) -> bool {
        self.0 & 3 == 3
    }

    /// True for a block descriptor, at levels 1–2.
    pub const fn is_block(self) -> bool {
        self.0 & 3 == 1
    }
}
