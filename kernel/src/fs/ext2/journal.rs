//! Recovery of the journal of ext3 and ext4 ("Journal (jbd2)" in the kernel documentation's `filesystems/ext4`), which
//! precedes everything else when a file system was not unmounted. Afterwards the journal is empty, and nobody here writes
//! to it.
//!
//! A transaction is a sequence of blocks with one number: descriptors, each followed by copies of the blocks that it
//! names; revocations of earlier copies; and at the end a commit. The first pass finds the last transaction that has
//! one, and the revocations; the second copies to their places what was not revoked later. Both look at each block with the
//! same suspicion: what the first has seen may not be there any more.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use smallvec::smallvec;
use zerocopy::{FromBytes, IntoBytes};

use super::checksum::{self, crc32c};
use super::features::{Features, Incompat};
use super::groups::Run;
use super::layout::{self, SuperBlock};
use super::map::Extent;
use super::volume::Volume;
use crate::errno::{Errno, Result};
use crate::exec;
use crate::fs::block::Memory;

const MAGIC: u32 = 0xc03b_3998;
const HEADER: usize = 12;
/// Kinds of blocks.
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const SUPER_V1: u32 = 3;
const SUPER_V2: u32 = 4;
const REVOKE: u32 = 5;

/// `incompat` of the journal's superblock.
const HAS_REVOKE: u32 = 1;
const WIDE: u32 = 2;
const ASYNC_COMMIT: u32 = 4;
const CSUM_V2: u32 = 8;
const CSUM_V3: u32 = 0x10;
const KNOWN: u32 = HAS_REVOKE | WIDE | ASYNC_COMMIT | CSUM_V2 | CSUM_V3;

/// Flags of a tag.
const ESCAPED: u32 = 1;
const SAME_UUID: u32 = 2;
const LAST_TAG: u32 = 8;

/// Where things are in the journal's superblock, and in a commit block.
const SUPER_SIZE: usize = 1024;
const SUPER_CHECKSUM: usize = 0xfc;
const COMMIT_CHECKSUM: usize = 16;

fn word(data: &[u8], at: usize) -> u32 {
    data.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn set_word(data: &mut [u8], at: usize, value: u32) {
    if let Some(bytes) = data.get_mut(at..at + 4) {
        bytes.copy_from_slice(&value.to_be_bytes());
    }
}

/// CRC-32C of a block in which the checksum itself counts as zero.
fn sum_without(seed: u32, data: &[u8], at: usize) -> u32 {
    let (before, rest) = data.split_at(at.min(data.len()));
    crc32c(crc32c(crc32c(seed, before), &[0; 4]), rest.get(4..).unwrap_or(&[]))
}

/// Numbers of transactions go in a circle.
fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

/// A block that was copied to the journal.
struct Tag {
    block: u64,
    flags: u32,
    checksum: u32,
}

struct Journal {
    volume: Arc<Volume>,
    /// Where the journal's blocks are.
    runs: Vec<(u32, Run)>,
    /// The same in the order in which they are on the device.
    by_place: Vec<Run>,
    block_size: usize,
    /// Its first block after the superblock, and how many there are.
    first: u32,
    len: u32,
    incompat: u32,
    seed: u32,
}

/// Blocks behind a damaged one in which its transaction may have been committed: 1 GiB of the usual size. A transaction takes
/// at most a quarter of the journal.
const MAX_TRANSACTION: u32 = 1 << 18;

/// What a block of the journal is.
enum Piece {
    /// Copies of these blocks follow.
    Descriptor(Vec<Tag>),
    Revocation(Vec<u64>),
    Commit,
    /// It looks like one of these, and has a wrong checksum.
    Damaged,
    /// Nothing of the transaction that was expected.
    Foreign,
}

/// Blocks, with the number of the last transaction that revokes them.
type Revoked = BTreeMap<u64, u32>;

/// So many may be revoked: they take some 40 MB.
const MAX_REVOKED: usize = 1 << 20;

/// Where a pass begins.
#[derive(Clone, Copy)]
struct Start {
    block: u32,
    sequence: u32,
}

/// Brings a volume into the state that its journal describes. The volume that was opened for it is of no use afterwards.
pub async fn recover(volume: &Arc<Volume>) -> Result<()> {
    if volume.device.read_only() {
        log::error!("ext2: the journal needs recovery, and the device cannot be written (try noload)");
        return Err(Errno::EROFS);
    }
    let (journal, mut head) = Journal::open(volume).await?;
    let start = Start { block: word(&head, 28), sequence: word(&head, 24) };
    if start.block != 0 {
        let mut revoked = BTreeMap::new();
        let end = journal.scan(start, &mut revoked).await?;
        let count = journal.replay(start, end, &revoked).await?;
        log::info!("ext2: recovery complete: {count} blocks of {} transactions", end.wrapping_sub(start.sequence));
        volume.device.flush().await?;
        journal.empty(&mut head, end.wrapping_add(1)).await?;
    }
    settle_superblock(volume, word(&head, 32) != 0).await
}

/// The superblock, of which there may have been a copy in the journal, says that there is nothing to do any more.
async fn settle_superblock(volume: &Arc<Volume>, failed: bool) -> Result<()> {
    let mut bytes = volume.device.read_bytes(layout::SUPER_SECTOR, layout::SUPER_SIZE).await?;
    let sb = SuperBlock::mut_from_bytes(&mut bytes).map_err(|_| Errno::EIO)?;
    sb.incompat.set(sb.incompat.get() & !Incompat::RECOVER.bits());
    if failed {
        sb.state.set(sb.state.get() | layout::STATE_ERRORS);
    }
    if Features::of(sb).metadata_csum() {
        let sum = crc32c(!0, &sb.as_bytes()[..checksum::SUPER_COVERED]);
        sb.checksum.set(sum);
    }
    volume.device.write(layout::SUPER_SECTOR, smallvec![Memory::Bytes(bytes)]).await?;
    volume.device.flush().await
}

/// Follows the map of the journal's inode: its runs with the block of the journal that each begins with, and in the order in
/// which they are on the device.
async fn find_blocks(volume: &Arc<Volume>, ino: u32) -> Result<(Vec<(u32, Run)>, Vec<Run>)> {
    let (block, offset) = volume.inode_position(ino)?;
    let buffer = volume.buffers.read(block).await?;
    let raw = offset..offset + volume.layout.inode_size;
    let (kind, state) = buffer.with(|data| volume.decode(&data[raw], ino)).map_err(|errno| match errno {
        Errno::ESTALE => Errno::EUCLEAN,
        other => other,
    })?;
    let end = (state.size / volume.layout.block_size as u64).min(volume.layout.blocks.into()) as u32;
    let node = volume.node(ino, kind, state);
    let mut runs: Vec<(u32, Run)> = Vec::new();
    let mut at = 0;
    while at < end {
        exec::budget().await;
        let Extent::Blocks(run) = node.lookup_block(at.into(), end - at).await? else {
            log::error!("ext2: the journal has a hole");
            return Err(Errno::EINVAL);
        };
        runs.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        runs.push((at, run));
        at += run.len;
    }
    let mut by_place: Vec<Run> = Vec::new();
    by_place.try_reserve_exact(runs.len()).map_err(|_| Errno::ENOMEM)?;
    by_place.extend(runs.iter().map(|(_, run)| *run));
    by_place.sort_unstable_by_key(|run| run.start);
    if by_place.windows(2).any(|pair| pair[0].start + pair[0].len > pair[1].start) {
        log::error!("ext2: the journal has a block twice");
        return Err(Errno::EUCLEAN);
    }
    Ok((runs, by_place))
}

impl Journal {
    /// The journal and its superblock.
    async fn open(volume: &Arc<Volume>) -> Result<(Journal, Box<[u8]>)> {
        let ino = volume.superblock.lock().journal_inum.get();
        if ino == 0 {
            log::error!("ext2: the journal is on another device");
            return Err(Errno::EINVAL);
        }
        let block_size = volume.layout.block_size;
        let (runs, by_place) = find_blocks(volume, ino).await?;
        let volume = volume.clone();
        let mut journal = Journal { volume, runs, by_place, block_size, first: 1, len: 1, incompat: 0, seed: 0 };
        let head = journal.read(0).await?;
        let kind = word(&head, 4);
        journal.first = word(&head, 20);
        journal.len = word(&head, 16);
        let blocks = journal.runs.last().map_or(0, |(first, run)| first + run.len);
        let sound = word(&head, 0) == MAGIC
            && (kind == SUPER_V1 || kind == SUPER_V2)
            && word(&head, 12) as usize == block_size
            && (1..journal.len).contains(&journal.first)
            && journal.len <= blocks
            && (word(&head, 28) == 0 || (journal.first..journal.len).contains(&word(&head, 28)));
        if !sound {
            log::error!("ext2: the journal's superblock makes no sense");
            return Err(Errno::EINVAL);
        }
        if kind == SUPER_V2 {
            journal.incompat = word(&head, 40);
        }
        if journal.incompat & !KNOWN != 0 {
            log::error!("ext2: unsupported features of the journal ({:#x})", journal.incompat & !KNOWN);
            return Err(Errno::EINVAL);
        }
        if journal.incompat & ASYNC_COMMIT != 0 && !journal.has_checksums() {
            // A commit may be there before its blocks are, and only the old kind of checksums would tell.
            log::error!("ext2: the journal has asynchronous commits without checksums (try e2fsck)");
            return Err(Errno::EINVAL);
        }
        if journal.has_checksums() {
            journal.seed = crc32c(!0, &head[48..64]);
            if word(&head, SUPER_CHECKSUM) != sum_without(!0, &head[..SUPER_SIZE], SUPER_CHECKSUM) {
                log::error!("ext2: the checksum of the journal's superblock is wrong");
                return Err(Errno::EINVAL);
            }
        }
        Ok((journal, head))
    }

    fn has_checksums(&self) -> bool {
        self.incompat & (CSUM_V2 | CSUM_V3) != 0
    }

    fn sector(&self, block: u32) -> Result<u64> {
        let at = self.runs.partition_point(|(first, _)| *first <= block);
        let (first, run) = at.checked_sub(1).and_then(|at| self.runs.get(at)).ok_or(Errno::EIO)?;
        let offset = block - first;
        if offset >= run.len {
            return Err(Errno::EIO);
        }
        Ok(u64::from(run.start + offset) * self.volume.layout.sectors_per_block())
    }

    async fn read(&self, block: u32) -> Result<Box<[u8]>> {
        self.volume.device.read_bytes(self.sector(block)?, self.block_size).await
    }

    /// The block so many behind another, in the circle that they are.
    fn after(&self, block: u32, count: u32) -> u32 {
        self.first + (block - self.first + count) % (self.len - self.first)
    }

    /// The checksum at the end of descriptors and revocations.
    fn has_sound_tail(&self, data: &[u8]) -> bool {
        let at = self.block_size - 4;
        !self.has_checksums() || word(data, at) == sum_without(self.seed, data, at)
    }

    fn is_sound_commit(&self, data: &[u8]) -> bool {
        !self.has_checksums() || word(data, COMMIT_CHECKSUM) == sum_without(self.seed, data, COMMIT_CHECKSUM)
    }

    /// Bytes of a tag.
    fn tag_size(&self) -> usize {
        if self.incompat & CSUM_V3 != 0 {
            return 16;
        }
        8 + if self.incompat & CSUM_V2 != 0 { 2 } else { 0 } + if self.incompat & WIDE != 0 { 4 } else { 0 }
    }

    /// What a descriptor names.
    fn tags(&self, data: &[u8]) -> Vec<Tag> {
        let size = self.tag_size();
        let end = self.block_size - if self.has_checksums() { 4 } else { 0 };
        let mut tags = Vec::new();
        let mut at = HEADER;
        while at + size <= end {
            let low = u64::from(word(data, at));
            // Fields of 16 bits share a word: checksum, then flags.
            let second = word(data, at + 4);
            let (flags, checksum) = match self.incompat & CSUM_V3 {
                0 => (second & 0xffff, second >> 16),
                _ => (second, word(data, at + 12)),
            };
            let high = if self.incompat & WIDE != 0 { u64::from(word(data, at + 8)) << 32 } else { 0 };
            tags.push(Tag { block: low | high, flags, checksum });
            at += size + if flags & SAME_UUID == 0 { 16 } else { 0 };
            if flags & LAST_TAG != 0 {
                break;
            }
        }
        tags
    }

    /// Numbers of the blocks that a revocation names.
    fn revoked(&self, data: &[u8]) -> Vec<u64> {
        let size = if self.incompat & WIDE != 0 { 8 } else { 4 };
        let room = self.block_size - if self.has_checksums() { 4 } else { 0 };
        let end = (word(data, HEADER) as usize).min(room);
        let records = data.get(HEADER + 4..end).unwrap_or(&[]).chunks_exact(size);
        records.map(|record| record.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))).collect()
    }

    /// What the block is, if it belongs to this transaction.
    async fn look(&self, block: u32, sequence: u32) -> Result<Piece> {
        let data = self.read(block).await?;
        if word(&data, 0) != MAGIC || word(&data, 8) != sequence {
            return Ok(Piece::Foreign);
        }
        Ok(match word(&data, 4) {
            DESCRIPTOR if self.has_sound_tail(&data) => Piece::Descriptor(self.tags(&data)),
            REVOKE if self.has_sound_tail(&data) => Piece::Revocation(self.revoked(&data)),
            COMMIT if self.is_sound_commit(&data) => Piece::Commit,
            DESCRIPTOR | REVOKE | COMMIT => Piece::Damaged,
            _ => Piece::Foreign,
        })
    }

    /// Finds the first transaction that is not complete, and what complete ones revoke: blocks, with the number of the last
    /// transaction that does.
    async fn scan(&self, start: Start, revoked: &mut Revoked) -> Result<u32> {
        let Start { mut block, mut sequence } = start;
        let mut seen = 0;
        let mut pending = Vec::new();
        while seen < self.len {
            exec::budget().await;
            let count = match self.look(block, sequence).await? {
                Piece::Descriptor(tags) => {
                    tags.iter().try_for_each(|tag| self.check_target(tag.block))?;
                    1 + tags.len() as u32
                }
                Piece::Revocation(blocks) => {
                    pending.try_reserve(blocks.len()).map_err(|_| Errno::ENOMEM)?;
                    pending.extend(blocks);
                    1
                }
                Piece::Commit => {
                    revoked.extend(pending.drain(..).map(|block| (block, sequence)));
                    sequence = sequence.wrapping_add(1);
                    1
                }
                Piece::Damaged => {
                    self.must_be_the_end(block, seen, sequence).await?;
                    break;
                }
                Piece::Foreign => break,
            };
            if revoked.len() + pending.len() > MAX_REVOKED {
                return Err(Errno::ENOMEM);
            }
            block = self.after(block, count);
            seen = seen.saturating_add(count);
        }
        Ok(sequence)
    }

    /// A block with a wrong checksum is what a power cut leaves of the last transaction, which counts for nothing then. If that
    /// or a later one has been committed all the same, what was synced is in a journal that nobody can read: nothing is
    /// touched, and e2fsck has to decide.
    async fn must_be_the_end(&self, mut block: u32, seen: u32, sequence: u32) -> Result<()> {
        for _ in seen..self.len.min(seen.saturating_add(MAX_TRANSACTION)) {
            exec::budget().await;
            block = self.after(block, 1);
            let data = self.read(block).await?;
            let commit = word(&data, 0) == MAGIC && word(&data, 4) == COMMIT && !is_before(word(&data, 8), sequence);
            if commit && self.is_sound_commit(&data) {
                log::error!("ext2: transaction {sequence} of the journal is damaged (try e2fsck)");
                return Err(Errno::EUCLEAN);
            }
        }
        Ok(())
    }

    /// Copies the blocks of all transactions before `end` to their places; answers how many. What the first pass has seen must
    /// still be there.
    async fn replay(&self, start: Start, end: u32, revoked: &Revoked) -> Result<u64> {
        let Start { mut block, mut sequence } = start;
        let (mut seen, mut copied) = (0, 0);
        while is_before(sequence, end) {
            exec::budget().await;
            let mut count = 1;
            match self.look(block, sequence).await? {
                Piece::Descriptor(tags) if seen < self.len => {
                    for tag in tags {
                        let from = self.after(block, count);
                        count += 1;
                        // Revoked by this transaction or a later one.
                        if revoked.get(&tag.block).is_some_and(|by| !is_before(*by, sequence)) {
                            continue;
                        }
                        self.copy(from, &tag, sequence).await?;
                        copied += 1;
                    }
                }
                Piece::Commit if seen < self.len => sequence = sequence.wrapping_add(1),
                Piece::Revocation(_) if seen < self.len => {}
                _ => {
                    log::error!("ext2: the journal changes while it is read");
                    return Err(Errno::EIO);
                }
            }
            block = self.after(block, count);
            seen = seen.saturating_add(count);
        }
        Ok(copied)
    }

    /// Refuses blocks that there are not, and those of the journal: it must not change while it is carried out. The file
    /// system may be larger than its superblock says, which may be in the journal too.
    fn check_target(&self, block: u64) -> Result<()> {
        let volume = &self.volume;
        let per_block = volume.layout.sectors_per_block();
        let there = block.checked_add(1).and_then(|end| end.checked_mul(per_block));
        let own = |run: &Run| (u64::from(run.start)..u64::from(run.start) + u64::from(run.len)).contains(&block);
        let at = self.by_place.partition_point(|run| u64::from(run.start) <= block);
        if there.is_none_or(|end| end > volume.device.sectors())
            || at.checked_sub(1).is_some_and(|at| own(&self.by_place[at]))
        {
            log::error!("ext2: the journal has a copy of block {block}, where none can be");
            return Err(Errno::EIO);
        }
        Ok(())
    }

    async fn copy(&self, from: u32, tag: &Tag, sequence: u32) -> Result<()> {
        let mut data = self.read(from).await?;
        if self.has_checksums() {
            let sum = crc32c(crc32c(self.seed, &sequence.to_be_bytes()), &data);
            let known = if self.incompat & CSUM_V3 != 0 { sum } else { sum & 0xffff };
            if known != tag.checksum {
                log::error!("ext2: the copy of block {} in the journal is damaged", tag.block);
                return Err(Errno::EIO);
            }
        }
        if tag.flags & ESCAPED != 0 {
            // It began with the magic number of the journal's own blocks.
            set_word(&mut data, 0, MAGIC);
        }
        self.check_target(tag.block)?;
        let sector = tag.block * self.volume.layout.sectors_per_block();
        self.volume.device.write(sector, smallvec![Memory::Bytes(data)]).await
    }

    /// Says that nothing is in the journal, and with which number it goes on.
    async fn empty(&self, head: &mut [u8], sequence: u32) -> Result<()> {
        set_word(head, 24, sequence);
        set_word(head, 28, 0);
        if self.has_checksums() {
            let sum = sum_without(!0, &head[..SUPER_SIZE], SUPER_CHECKSUM);
            set_word(head, SUPER_CHECKSUM, sum);
        }
        let memory = smallvec![Memory::Bytes((&*head).into())];
        self.volume.device.write(self.sector(0)?, memory).await?;
        self.volume.device.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_transactions_go_in_a_circle() {
        assert!(is_before(1, 2) && !is_before(2, 2) && !is_before(3, 2));
        assert!(is_before(u32::MAX, 0) && !is_before(0, u32::MAX));
    }

    #[test]
    fn a_checksum_does_not_cover_itself() {
        let mut data = [7; 64];
        let sum = sum_without(1, &data, 20);
        set_word(&mut data, 20, sum);
        assert_eq!(sum_without(1, &data, 20), sum);
        data[40] = 0;
        assert_ne!(sum_without(1, &data, 20), sum);
    }
}
