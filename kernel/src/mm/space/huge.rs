//! Which anonymous memory is mapped in blocks of 2 MiB, and the faults that do it (transparent huge pages, Linux's
//! Documentation/admin-guide/mm/transhuge.rst).
//!
//! A write to a part of a mapping where nothing is yet gets a whole block, if all of it is inside the mapping and policy
//! allows. Reads map the page of zeros as ever. Nothing makes blocks of single pages later: there is no khugepaged.

use core::ops::Range;
use core::sync::atomic::{AtomicU8, Ordering};

use super::super::addr::{PAGE, USER_END};
use super::super::frames;
use super::super::frames::page::Pfn;
use super::super::frames::{Block, is_sole_block};
use super::blocks::{BLOCK, block_down};
use super::fault::page_flags;
use super::tables::Leaf;
use super::tlb::Gather;
use super::types::Limits;
use super::vma::{Backing, Prot, Vma, VmaFlags};
use crate::arch::pte::{Pte, PteFlags};
use crate::arch::{Access, paging};
use crate::errno::{Errno, Result};
use crate::exec;

/// /sys/kernel/mm/transparent_hugepage/enabled: which mappings get blocks.
pub const ENABLED: Choice = Choice { names: &["always", "madvise", "never"], value: &ENABLED_VALUE };
/// /sys/kernel/mm/transparent_hugepage/defrag: whose faults make room for a block by giving up cached pages.
pub const DEFRAG: Choice =
    Choice { names: &["always", "defer", "defer+madvise", "madvise", "never"], value: &DEFRAG_VALUE };

static ENABLED_VALUE: AtomicU8 = AtomicU8::new(NEVER);
static DEFRAG_VALUE: AtomicU8 = AtomicU8::new(DEFRAG_MADVISE);

const ALWAYS: u8 = 0;
const MADVISE: u8 = 1;
const NEVER: u8 = 2;
const DEFRAG_ALWAYS: u8 = 0;
const DEFRAG_DEFER_MADVISE: u8 = 2;
const DEFRAG_MADVISE: u8 = 3;

/// What a block is, in bytes.
pub const SIZE: u64 = BLOCK;

/// Below so much memory blocks would waste too much of it (bytes); what Linux has.
const SMALL: u64 = 512 << 20;

/// A setting with names for its values.
pub struct Choice {
    pub names: &'static [&'static str],
    value: &'static AtomicU8,
}

impl Choice {
    pub fn get(&self) -> usize {
        self.value.load(Ordering::Relaxed) as usize
    }

    pub fn set(&self, name: &[u8]) -> Result<()> {
        let name = name.strip_suffix(b"\n").unwrap_or(name);
        let found = self.names.iter().position(|known| known.as_bytes() == name);
        self.value.store(found.ok_or(Errno::EINVAL)? as u8, Ordering::Relaxed);
        Ok(())
    }
}

/// What policy is at boot. To be called when it is known how much memory there is.
pub fn init() {
    let small = frames::total_frames() as u64 * PAGE < SMALL;
    ENABLED_VALUE.store(if small { NEVER } else { ALWAYS }, Ordering::Relaxed);
    DEFRAG_VALUE.store(DEFRAG_MADVISE, Ordering::Relaxed);
}

/// May memory of this mapping be in blocks?
pub(super) fn may_have_blocks(vma: &Vma, limits: &Limits) -> bool {
    const NOT: VmaFlags = VmaFlags::SHARED
        .union(VmaFlags::SPECIAL)
        .union(VmaFlags::NO_HUGE)
        .union(VmaFlags::GROWSDOWN)
        .union(VmaFlags::STACK)
        // Faults are told of page by page.
        .union(VmaFlags::WATCHED);
    let policy = ENABLED_VALUE.load(Ordering::Relaxed);
    (policy == ALWAYS || policy == MADVISE && vma.flags.contains(VmaFlags::HUGE))
        && matches!(vma.backing, Backing::Anonymous)
        && !vma.flags.intersects(NOT)
        // Pages are made ready for instruction fetch one by one.
        && !vma.prot.contains(Prot::EXEC)
        && !limits.no_blocks.load(Ordering::Relaxed)
}

/// May it, and is it large enough?
pub(super) fn is_eligible(range: Range<u64>, vma: &Vma, limits: &Limits) -> bool {
    range.start.next_multiple_of(BLOCK) + BLOCK <= range.end && may_have_blocks(vma, limits)
}

/// Where a new mapping of that length should start at a multiple of, so that all of it can be blocks.
pub(super) fn alignment(len: u64, backing: &Backing) -> u64 {
    let wanted = len != 0 && len.is_multiple_of(BLOCK) && len < USER_END / 2;
    let enabled = ENABLED_VALUE.load(Ordering::Relaxed) != NEVER;
    if wanted && enabled && matches!(backing, Backing::Anonymous) { BLOCK } else { PAGE }
}

/// A block of zeros that a fault could use.
#[derive(Clone, Copy)]
pub(super) struct Wish {
    /// The program has asked for blocks.
    asked: bool,
    /// Cached pages are given up for it.
    reclaim: bool,
}

/// What a fault can do with a whole block.
pub(super) enum Found {
    Done,
    /// It is for a single page.
    Page,
    Wish(Wish),
}

/// None if there is none to spare. Not to be awaited with a lock: it takes its time.
pub(super) async fn make_block(wish: Wish) -> Option<Block> {
    let mut block = Block::alloc(wish.asked, wish.reclaim)?;
    while block.clear_more() {
        exec::budget().await;
    }
    Some(block)
}

/// What a fault at `addr` can do with the whole block: `above` is the entry for that. `supply` is what came of a wish.
#[cold]
#[allow(clippy::too_many_arguments)]
pub(super) fn fault(
    vma: &Vma,
    start: u64,
    above: Leaf,
    addr: u64,
    access: Access,
    limits: &Limits,
    supply: &mut Option<Option<Block>>,
    gather: &mut Gather,
) -> Found {
    let at = block_down(addr);
    if at < start || vma.end - at < BLOCK {
        return Found::Page;
    }
    let old = above.get();
    if old.is_table() {
        return Found::Page;
    }
    if !old.is_valid() {
        if access != Access::Write || !may_have_blocks(vma, limits) {
            return Found::Page;
        }
        return match supply {
            None => Found::Wish(wish(vma)),
            Some(block) => block.take().map_or(Found::Page, |block| map_block(vma, above, block)),
        };
    }
    if vma.prot.contains(Prot::EXEC) {
        return Found::Page;
    }
    let mut flags = page_flags(vma) - PteFlags::TABLE;
    let read_only = old.flags().contains(PteFlags::READ_ONLY);
    if access == Access::Write && read_only && !is_sole_block((old.address() / PAGE) as Pfn) {
        return Found::Page;
    }
    // Else the TLB knew an older state.
    if access == Access::Write || !read_only {
        flags -= PteFlags::READ_ONLY;
    }
    above.change(Pte::new(old.address(), flags));
    gather.note_walk(addr);
    Found::Done
}

fn wish(vma: &Vma) -> Wish {
    let asked = vma.flags.contains(VmaFlags::HUGE);
    let reclaim = match DEFRAG_VALUE.load(Ordering::Relaxed) {
        DEFRAG_ALWAYS => true,
        DEFRAG_DEFER_MADVISE | DEFRAG_MADVISE => asked,
        _ => false,
    };
    Wish { asked, reclaim }
}

fn map_block(vma: &Vma, above: Leaf, block: Block) -> Found {
    let flags = page_flags(vma) - PteFlags::TABLE - PteFlags::READ_ONLY;
    above.fill(Pte::new(block.into_raw() as u64 * PAGE, flags));
    paging::publish();
    Found::Done
}
