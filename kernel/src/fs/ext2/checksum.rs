//! Checksums of metadata ("Checksums" in the kernel documentation's `filesystems/ext4`): CRC-32C with the feature
//! metadata_csum, CRC-16 of group descriptors alone with the older gdt_csum.

use crc::{Algorithm, Crc, Table};

use crate::arch;

use super::layout::{DESC_SIZE, GroupDesc, RAW_EXTRA_SIZE, RAW_INODE_SIZE, RawExtra, SuperBlock};
use zerocopy::FromBytes;

/// Without inversion at either end: the format chains them by hand.
const CASTAGNOLI: Algorithm<u32> = Algorithm {
    width: 32,
    poly: 0x1edc_6f41,
    init: 0,
    refin: true,
    refout: true,
    xorout: 0,
    check: 0x58e3_fa20,
    residue: 0,
};
const ANSI: Algorithm<u16> =
    Algorithm { width: 16, poly: 0x8005, init: 0, refin: true, refout: true, xorout: 0, check: 0xbb3d, residue: 0 };

/// For CPUs that lack the instruction for it, a small one: it is part of the kernel's image.
#[cfg(target_os = "none")]
type Tables = Table<1>;
#[cfg(not(target_os = "none"))]
type Tables = Table<16>;

static CRC32C: Crc<u32, Tables> = Crc::<u32, Tables>::new(&CASTAGNOLI);
static CRC16: Crc<u16> = Crc::<u16>::new(&ANSI);

pub fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    arch::crc32c(seed, bytes).unwrap_or_else(|| {
        let mut digest = CRC32C.digest_with_initial(seed.reverse_bits());
        digest.update(bytes);
        digest.finalize()
    })
}

fn crc16(seed: u16, bytes: &[u8]) -> u16 {
    let mut digest = CRC16.digest_with_initial(seed.reverse_bits());
    digest.update(bytes);
    digest.finalize()
}

/// Bytes at the end of a directory block: an entry without inode, of a type that there is not, and the checksum.
pub const DIR_TAIL: usize = 12;
const DIR_TAIL_TYPE: u8 = 0xde;

/// Which checksum a block has. Seeds are of the inode that owns the block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Seal {
    #[default]
    None,
    Directory(u32),
    Extents(u32),
    /// A block of attributes, by its number.
    Attributes(u32, u32),
    /// A bitmap of the group, of inodes or of blocks: its checksum is in the group's descriptor.
    Bitmap {
        group: u32,
        inodes: bool,
    },
    /// So many group descriptors from this one on, each with its own.
    Descriptors {
        first: u32,
        count: u32,
        wide: bool,
        sums: Sums,
    },
}

/// Where an extent block has its checksum: behind as many extents as it has room for.
fn extent_tail(data: &[u8]) -> Option<usize> {
    let max = u16::from_le_bytes([*data.get(4)?, *data.get(5)?]);
    let at = 12 + 12 * usize::from(max);
    (at + 4 <= data.len()).then_some(at)
}

impl Seal {
    pub fn is_of_descriptors(self) -> bool {
        matches!(self, Seal::Descriptors { .. })
    }

    /// Where the checksum is in the block, and what it should be.
    fn compute(self, data: &[u8]) -> Option<(usize, u32)> {
        match self {
            Seal::None | Seal::Bitmap { .. } | Seal::Descriptors { .. } => None,
            Seal::Directory(seed) => {
                let end = data.len().checked_sub(DIR_TAIL)?;
                Some((end + 8, crc32c(seed, &data[..end])))
            }
            Seal::Extents(seed) => {
                let at = extent_tail(data)?;
                Some((at, crc32c(seed, &data[..at])))
            }
            Seal::Attributes(seed, block) => {
                let sum = crc32c(seed, &u64::from(block).to_le_bytes());
                let sum = crc32c(sum, data.get(..16)?);
                Some((16, crc32c(crc32c(sum, &[0; 4]), data.get(20..)?)))
            }
        }
    }

    pub fn apply(self, data: &mut [u8]) {
        if let Seal::Descriptors { first, count, wide, sums } = self {
            let size = if wide { DESC_SIZE * 2 } else { DESC_SIZE };
            for (group, raw) in (first..first + count).zip(data.chunks_exact_mut(size)) {
                let sum = sums.descriptor(group, raw);
                if let Ok((desc, _)) = GroupDesc::mut_from_prefix(raw) {
                    desc.checksum.set(sum);
                }
            }
        } else if let Some((at, sum)) = self.compute(data)
            && let Some(slot) = data.get_mut(at..at + 4)
        {
            slot.copy_from_slice(&sum.to_le_bytes());
        }
    }

    pub fn verify(self, data: &[u8]) -> bool {
        match self {
            Seal::None | Seal::Bitmap { .. } | Seal::Descriptors { .. } => true,
            Seal::Directory(_) if !has_dir_tail(data) => false,
            _ => self.compute(data).is_some_and(|(at, sum)| data.get(at..at + 4) == Some(&sum.to_le_bytes()[..])),
        }
    }
}

fn has_dir_tail(data: &[u8]) -> bool {
    let at = data.len().saturating_sub(DIR_TAIL);
    data.get(at..at + 8).is_some_and(|tail| tail == [0, 0, 0, 0, DIR_TAIL as u8, 0, 0, DIR_TAIL_TYPE])
}

/// Makes the end of a directory block a place for its checksum.
pub fn write_dir_tail(data: &mut [u8]) {
    let at = data.len().saturating_sub(DIR_TAIL);
    if let Some(tail) = data.get_mut(at..) {
        tail.copy_from_slice(&[0, 0, 0, 0, DIR_TAIL as u8, 0, 0, DIR_TAIL_TYPE, 0, 0, 0, 0]);
    }
}

/// What the checksums of a volume begin with, by the features that it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sums {
    None,
    /// Of group descriptors only.
    Groups(u16),
    All(u32),
}

impl Sums {
    pub fn of(sb: &SuperBlock) -> Sums {
        use super::features::{Features, Incompat, RoCompat};
        let features = Features::of(sb);
        if features.metadata_csum() {
            let stored = features.incompat.contains(Incompat::CHECKSUM_SEED);
            Sums::All(if stored { sb.checksum_seed.get() } else { crc32c(!0, &sb.uuid) })
        } else if features.ro_compat.contains(RoCompat::GDT_CSUM) {
            Sums::Groups(crc16(!0, &sb.uuid))
        } else {
            Sums::None
        }
    }

    /// What the checksums of one inode and of its blocks begin with.
    pub fn of_inode(self, ino: u32, generation: u32) -> Option<u32> {
        let Sums::All(seed) = self else { return None };
        Some(crc32c(crc32c(seed, &ino.to_le_bytes()), &generation.to_le_bytes()))
    }

    pub fn directory(self, ino: u32, generation: u32) -> Seal {
        self.of_inode(ino, generation).map_or(Seal::None, Seal::Directory)
    }

    pub fn extents(self, ino: u32, generation: u32) -> Seal {
        self.of_inode(ino, generation).map_or(Seal::None, Seal::Extents)
    }

    pub fn attributes(self, block: u32) -> Seal {
        match self {
            Sums::All(seed) => Seal::Attributes(seed, block),
            _ => Seal::None,
        }
    }

    /// Of a bitmap, if bitmaps have any.
    pub fn bitmap(self, bits: &[u8]) -> Option<u32> {
        match self {
            Sums::All(seed) => Some(crc32c(seed, bits)),
            _ => None,
        }
    }

    /// Of a group descriptor, whose own field does not count.
    pub fn descriptor(self, group: u32, bytes: &[u8]) -> u16 {
        const AT: usize = core::mem::offset_of!(GroupDesc, checksum);
        let (Some(before), Some(after)) = (bytes.get(..AT), bytes.get(AT + 2..)) else { return 0 };
        let number = group.to_le_bytes();
        match self {
            Sums::None => 0,
            Sums::Groups(seed) => crc16(crc16(crc16(seed, &number), before), after),
            Sums::All(seed) => {
                let sum = crc32c(crc32c(seed, &number), before);
                crc32c(crc32c(sum, &[0; 2]), after) as u16
            }
        }
    }

    /// The two halves of an inode's checksum; the second only if the inode has a place for it.
    fn inode(self, ino: u32, raw: &[u8]) -> Option<(u16, Option<u16>)> {
        const LOW: usize = 124;
        const HIGH: usize = RAW_INODE_SIZE + core::mem::offset_of!(RawExtra, checksum_high);
        let generation = raw.get(100..104)?.try_into().map(u32::from_le_bytes).ok()?;
        let mut sum = self.of_inode(ino, generation)?;
        sum = crc32c(crc32c(sum, raw.get(..LOW)?), &[0; 2]);
        let has_high = has_high(raw);
        if has_high {
            sum = crc32c(crc32c(sum, raw.get(LOW + 2..HIGH)?), &[0; 2]);
            sum = crc32c(sum, raw.get(HIGH + 2..)?);
        } else {
            sum = crc32c(sum, raw.get(LOW + 2..)?);
        }
        Some((sum as u16, has_high.then_some((sum >> 16) as u16)))
    }

    pub fn seal_inode(self, ino: u32, raw: &mut [u8]) {
        let Some((low, high)) = self.inode(ino, raw) else { return };
        raw[124..126].copy_from_slice(&low.to_le_bytes());
        if let Some(high) = high {
            raw[130..132].copy_from_slice(&high.to_le_bytes());
        }
    }

    pub fn verify_inode(self, ino: u32, raw: &[u8]) -> bool {
        match self.inode(ino, raw) {
            None => true,
            Some((low, high)) => {
                raw.get(124..126) == Some(&low.to_le_bytes()[..])
                    && high.is_none_or(|high| raw.get(130..132) == Some(&high.to_le_bytes()[..]))
            }
        }
    }
}

fn has_high(raw: &[u8]) -> bool {
    let extra = raw.get(RAW_INODE_SIZE..RAW_INODE_SIZE + RAW_EXTRA_SIZE);
    extra.and_then(|bytes| RawExtra::ref_from_bytes(bytes).ok()).is_some_and(|extra| extra.size.get() >= 4)
}

/// Bytes of the superblock that its checksum covers.
pub const SUPER_COVERED: usize = core::mem::offset_of!(SuperBlock, checksum);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_the_known_ones() {
        assert_eq!(!crc32c(!0, b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(crc32c(!0, b"1234"), b"56789"), crc32c(!0, b"123456789"));
        assert_eq!(crc16(0, b"123456789"), 0xbb3d);
        assert_eq!(crc16(crc16(0xffff, b"1234"), b"56789"), crc16(0xffff, b"123456789"));
    }

    #[test]
    fn a_sealed_directory_block_is_sound_until_it_changes() {
        let mut data = [0; 1024];
        let seal = Seal::Directory(7);
        assert!(!seal.verify(&data));
        write_dir_tail(&mut data);
        seal.apply(&mut data);
        assert!(seal.verify(&data));
        data[5] ^= 1;
        assert!(!seal.verify(&data));
    }
}
