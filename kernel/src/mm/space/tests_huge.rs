//! Blocks of 2 MiB: nobody sees that they are there, and what they hold is given back.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use std::sync::{Mutex, MutexGuard};

use super::super::addr::PAGE;
use super::super::frames::is_sole_block;
use super::super::frames::page::{Pfn, page};
use super::super::stats;
use super::super::test_util::{Rng, anonymous, run};
use super::super::uaccess::UserPtr;
use super::blocks::BLOCK;
use super::*;
use crate::arch::Access;
use crate::errno::Errno;

const RW: Prot = Prot::READ.union(Prot::WRITE);
const HUGE: u32 = 14;
const DONTNEED: u32 = 4;
const BLOCK_PAGES: u64 = BLOCK / PAGE;

/// One test at a time has blocks: the counter of all is then its own. Only what asks for blocks gets them.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    huge::ENABLED.set(b"madvise\n").unwrap();
    guard
}

fn huge_pages() -> u64 {
    stats::HUGE.sum()
}

/// A space with `blocks` blocks that may be huge at the answered address.
async fn space_with_blocks(blocks: u64) -> (Arc<AddressSpace>, u64) {
    let space = AddressSpace::new().unwrap();
    let addr = 16 * BLOCK;
    space.mmap(anonymous(addr, blocks * BLOCK, RW, MapFlags::FIXED)).await.unwrap();
    space.madvise(addr, blocks * BLOCK, HUGE).await.unwrap();
    space.activate();
    (space, addr)
}

async fn load(space: &Arc<AddressSpace>, addr: u64) -> Result<u64> {
    space.activate();
    UserPtr::<u64>::new(addr).read(space).await
}

async fn store(space: &Arc<AddressSpace>, addr: u64, value: u64) -> Result<()> {
    space.activate();
    UserPtr::<u64>::new(addr).write(space, value).await
}

#[test]
fn the_first_write_maps_a_block_where_one_fits() {
    let _alone = alone();
    run(async {
        let (space, addr) = space_with_blocks(2).await;
        store(&space, addr + 5 * PAGE, 7).await.unwrap();
        assert_eq!(huge_pages(), BLOCK_PAGES);
        assert_eq!(space.stats().resident_anon, BLOCK_PAGES);
        assert_eq!(load(&space, addr + BLOCK - 8).await, Ok(0));
        // A page is there already: no block comes to it.
        assert_eq!(load(&space, addr + BLOCK).await, Ok(0));
        store(&space, addr + BLOCK + PAGE, 1).await.unwrap();
        assert_eq!(space.stats().resident_anon, BLOCK_PAGES + 1);
        // Not wholly inside the mapping, not asked for, not anonymous for long: pages.
        for (at, len) in [(64 * BLOCK + PAGE, 2 * BLOCK - 2 * PAGE), (80 * BLOCK, BLOCK)] {
            space.mmap(anonymous(at, len, RW, MapFlags::FIXED)).await.unwrap();
            store(&space, at, 1).await.unwrap();
        }
        assert_eq!(huge_pages(), BLOCK_PAGES);
        space.teardown().await;
        assert_eq!(huge_pages(), 0);
        AddressSpace::deactivate();
    });
}

#[test]
fn policy_decides() {
    let _alone = alone();
    run(async {
        let first_touch = |space: Arc<AddressSpace>, at: u64| async move {
            space.mmap(anonymous(at, BLOCK, RW, MapFlags::FIXED)).await.unwrap();
            store(&space, at, 1).await.unwrap();
            let resident = space.stats().resident;
            space.munmap(at, BLOCK).await.unwrap();
            resident
        };
        let (space, addr) = space_with_blocks(1).await;
        huge::ENABLED.set(b"never").unwrap();
        store(&space, addr, 1).await.unwrap();
        assert_eq!(space.stats().resident, 1);
        space.munmap(addr, BLOCK).await.unwrap();
        huge::ENABLED.set(b"always\n").unwrap();
        // Alone by itself: other tests do not mind blocks.
        assert_eq!(first_touch(space.clone(), 64 * BLOCK).await, BLOCK_PAGES);
        space.limits.no_blocks.store(true, Ordering::Relaxed);
        assert_eq!(first_touch(space.clone(), 66 * BLOCK).await, 1);
        assert!(huge::ENABLED.set(b"sometimes").is_err());
        huge::ENABLED.set(b"madvise").unwrap();
        AddressSpace::deactivate();
    });
}

#[test]
fn a_copy_and_its_original_write_apart() {
    let _alone = alone();
    run(async {
        let (space, addr) = space_with_blocks(2).await;
        store(&space, addr, 1).await.unwrap();
        store(&space, addr + BLOCK, 2).await.unwrap();
        let child = space.fork().unwrap();
        // The write cuts up one block, and only for the writer.
        store(&child, addr + 3 * PAGE, 9).await.unwrap();
        assert_eq!(huge_pages(), 2 * BLOCK_PAGES);
        assert_eq!(load(&space, addr + 3 * PAGE).await, Ok(0));
        assert_eq!(load(&child, addr).await, Ok(1));
        assert_eq!(child.stats().resident, 2 * BLOCK_PAGES);
        store(&child, addr + BLOCK, 3).await.unwrap();
        child.teardown().await;
        // What is left has one owner: it is written to in place.
        let frame = |space: &AddressSpace| space.inner.lock().tables.peek(addr).unwrap().address();
        let before = frame(&space);
        store(&space, addr, 4).await.unwrap();
        assert_eq!(frame(&space), before);
        assert_eq!(load(&space, addr + BLOCK).await, Ok(2));
        assert_eq!(huge_pages(), 2 * BLOCK_PAGES);
        space.teardown().await;
        assert_eq!(huge_pages(), 0);
        AddressSpace::deactivate();
    });
}

#[test]
fn whole_blocks_move_and_change_rights_as_such() {
    let _alone = alone();
    run(async {
        let (space, addr) = space_with_blocks(3).await;
        for block in 0..3 {
            store(&space, addr + block * BLOCK, block + 1).await.unwrap();
        }
        space.mprotect(addr + BLOCK, BLOCK, Prot::READ, false).await.unwrap();
        assert_eq!(store(&space, addr + BLOCK, 9).await, Err(Errno::EFAULT));
        space.mprotect(addr + BLOCK, BLOCK, RW, false).await.unwrap();
        let request = MremapRequest { addr, old_len: 3 * BLOCK, new_len: 3 * BLOCK, flags: 3, new_addr: 64 * BLOCK };
        assert_eq!(space.mremap(request).await, Ok(64 * BLOCK));
        assert_eq!(huge_pages(), 3 * BLOCK_PAGES);
        for block in 0..3 {
            assert_eq!(load(&space, 64 * BLOCK + block * BLOCK).await, Ok(block + 1));
        }
        // The middle one goes as a whole, of the others a page each.
        space.munmap(65 * BLOCK, BLOCK).await.unwrap();
        assert_eq!(huge_pages(), 2 * BLOCK_PAGES);
        space.madvise(64 * BLOCK + PAGE, PAGE, DONTNEED).await.unwrap();
        space.munmap(67 * BLOCK - PAGE, PAGE).await.unwrap();
        assert_eq!(huge_pages(), 0);
        assert_eq!(space.stats().resident, 2 * BLOCK_PAGES - 2);
        let mut there = [9; 3];
        space.residency(64 * BLOCK, &mut there).unwrap();
        assert_eq!(there, [1, 0, 1]);
        // Executable memory is in pages.
        space.mprotect(64 * BLOCK, BLOCK, Prot::READ | Prot::EXEC, false).await.unwrap();
        assert_eq!(load(&space, 64 * BLOCK).await, Ok(1));
        space.teardown().await;
        AddressSpace::deactivate();
    });
}

#[test]
fn a_block_across_two_mappings_is_cut_up_before_one_of_them_writes() {
    let _alone = alone();
    run(async {
        let (space, addr) = space_with_blocks(1).await;
        store(&space, addr, 1).await.unwrap();
        let child = space.fork().unwrap();
        child.teardown().await;
        // Locking splits the mapping, not the block; the block is read-only since the fork, or not.
        space.mlock(addr, PAGE, true, true).await.unwrap();
        assert_eq!(huge_pages(), BLOCK_PAGES);
        space.mprotect(addr + BLOCK / 2, PAGE, Prot::READ, false).await.unwrap();
        store(&space, addr + 8, 2).await.unwrap();
        assert_eq!(store(&space, addr + BLOCK / 2, 2).await, Err(Errno::EFAULT));
        assert_eq!(space.handle_fault(addr + BLOCK / 2, Access::Write).await.unwrap_err().code, 2);
        space.teardown().await;
        AddressSpace::deactivate();
    });
}

#[test]
fn populating_and_reaching_in_from_outside() {
    let _alone = alone();
    run(async {
        let (space, addr) = space_with_blocks(2).await;
        space.madvise(addr, 2 * BLOCK, 23).await.unwrap();
        assert_eq!(huge_pages(), 2 * BLOCK_PAGES);
        let other = space.fork().unwrap();
        let text = [5; 3 * PAGE as usize];
        assert_eq!(other.write_remote(addr + BLOCK - PAGE - 7, &text, Toucher::Call).await, Ok(text.len()));
        let mut found = [0; 3 * PAGE as usize];
        other.read_remote(addr + BLOCK - PAGE - 7, &mut found, Toucher::Call).await.unwrap();
        assert!(found == text);
        space.read_remote(addr + BLOCK - PAGE - 7, &mut found, Toucher::Call).await.unwrap();
        assert!(found.iter().all(|&byte| byte == 0));
        AddressSpace::deactivate();
    });
}

/// What a page of the model is: rights, the value of its first word, whether blocks were asked for.
type State = Option<(Prot, u64, bool)>;

/// At the border of a table, one block off it, and not aligned.
const BASES: [u64; 3] = [0x4000_0000 - BLOCK, 0x8000_0000, 0xc000_0000 + 7 * PAGE];
const EACH: u64 = 3 * BLOCK_PAGES;
const PAGES: u64 = EACH * BASES.len() as u64;

fn address(page: u64) -> u64 {
    BASES[(page / EACH) as usize] + page % EACH * PAGE
}

#[derive(Clone)]
struct Model {
    space: Arc<AddressSpace>,
    pages: Vec<State>,
}

impl Model {
    /// A random range within one base; its ends are often where blocks end.
    fn range(rng: &mut Rng) -> (u64, u64) {
        let base = rng.below(BASES.len() as u64) * EACH;
        let mut end = || match rng.below(3) {
            0 => rng.below(EACH + 1),
            1 => rng.below(4) * BLOCK_PAGES,
            _ => (rng.below(4) * BLOCK_PAGES + rng.below(3)).saturating_sub(1).min(EACH),
        };
        let (a, b) = (end(), end());
        let (from, to) = (a.min(b), a.max(b));
        if from == to { (base + from.min(EACH - 1), 1) } else { (base + from, to - from) }
    }

    async fn step(&mut self, rng: &mut Rng) {
        let (first, len) = Self::range(rng);
        let (addr, bytes) = (address(first), len * PAGE);
        let slice = first as usize..(first + len) as usize;
        let mapped = self.pages[slice.clone()].iter().all(Option::is_some);
        match rng.below(16) {
            0 | 1 => {
                self.space.mmap(anonymous(addr, bytes, RW, MapFlags::FIXED)).await.unwrap();
                self.space.madvise(addr, bytes, HUGE).await.unwrap();
                self.pages[slice].fill(Some((RW, 0, true)));
            }
            2 => {
                self.space.munmap(addr, bytes).await.unwrap();
                self.pages[slice].fill(None);
            }
            3 => {
                let prots = [RW, RW, RW, Prot::READ, Prot::READ, Prot::empty(), RW | Prot::EXEC];
                let prot = prots[rng.below(7) as usize];
                assert_eq!(self.space.mprotect(addr, bytes, prot, false).await.is_ok(), mapped);
                let end =
                    self.pages[slice.clone()].iter().position(Option::is_none).map_or(slice.end, |at| slice.start + at);
                self.pages[slice.start..end].iter_mut().flatten().for_each(|page| page.0 = prot);
            }
            4 => {
                assert_eq!(self.space.madvise(addr, bytes, DONTNEED).await.is_ok(), mapped);
                self.pages[slice].iter_mut().flatten().for_each(|page| page.1 = 0);
            }
            5 => {
                let wanted = rng.below(4) > 0;
                assert_eq!(self.space.madvise(addr, bytes, if wanted { HUGE } else { HUGE + 1 }).await.is_ok(), mapped);
                self.pages[slice].iter_mut().flatten().for_each(|page| page.2 = wanted);
            }
            6 => self.remap(first, len, rng).await,
            _ => {
                for _ in 0..6 {
                    self.write(first + rng.below(len), rng.next()).await;
                }
            }
        }
    }

    async fn write(&mut self, page: u64, value: u64) {
        let wrote = store(&self.space, address(page), value).await.is_ok();
        let state = &mut self.pages[page as usize];
        assert_eq!(wrote, state.is_some_and(|(prot, ..)| prot.contains(Prot::WRITE)), "page {page}");
        if let (true, Some(state)) = (wrote, state) {
            state.1 = value;
        }
    }

    /// Moves a range onto another base, with mremap(2); often to where blocks can stay whole.
    async fn remap(&mut self, first: u64, len: u64, rng: &mut Rng) {
        let other = (first / EACH + 1 + rng.below(BASES.len() as u64 - 1)) % BASES.len() as u64 * EACH;
        let same = other + first % EACH;
        let to = if rng.below(2) == 0 { same } else { other + rng.below(EACH - len + 1) };
        let request = MremapRequest {
            addr: address(first),
            old_len: len * PAGE,
            new_len: len * PAGE,
            flags: 3,
            new_addr: address(to),
        };
        let moved: Vec<State> = self.pages[first as usize..(first + len) as usize].to_vec();
        let kind = |page: &State| page.map(|(prot, _, huge)| (prot, huge));
        let whole = moved[0].is_some() && moved.iter().all(|page| kind(page) == kind(&moved[0]));
        let result = self.space.mremap(request).await;
        assert_eq!(result, if whole { Ok(address(to)) } else { Err(Errno::EFAULT) });
        if whole {
            self.pages[first as usize..(first + len) as usize].fill(None);
            self.pages[to as usize..(to + len) as usize].copy_from_slice(&moved);
        }
    }

    async fn check(&self, page: u64) {
        let expected = match self.pages[page as usize] {
            Some((prot, value, _)) if !prot.is_empty() => Ok(value),
            _ => Err(Errno::EFAULT),
        };
        assert_eq!(load(&self.space, address(page)).await, expected, "page {page}");
        let mut word = [0; 8];
        let remote =
            self.space.read_remote(address(page), &mut word, Toucher::Call).await.map(|_| u64::from_le_bytes(word));
        assert_eq!(remote, expected, "page {page}");
    }

    /// No other space is there: each page and block has one owner, and the counters are right.
    fn check_owners(&self) {
        let inner = self.space.inner.lock();
        let mut resident = 0;
        for base in BASES {
            let mut at = base;
            while at < base + EACH * PAGE {
                let Some(pte) = inner.tables.peek(at) else {
                    at += PAGE;
                    continue;
                };
                let pfn = (pte.address() / PAGE) as Pfn;
                if inner.tables.same_until(at) > at + PAGE && at.is_multiple_of(BLOCK) {
                    assert!(is_sole_block(pfn));
                }
                if !pte.flags().contains(crate::arch::pte::PteFlags::SW_UNCOUNTED) {
                    assert_eq!(page(pfn).refs(), 1, "{at:#x}");
                    resident += 1;
                }
                at += PAGE;
            }
        }
        let (mut counted, mut in_blocks) = (0, 0);
        inner.tables.each_present(0..super::super::addr::USER_END, &mut |present| {
            counted += u64::from(!present.is_lent());
            in_blocks += u64::from(present.in_block);
        });
        assert_eq!(counted, resident);
        assert_eq!(inner.tables.resident().anon, resident);
        assert_eq!(in_blocks, huge_pages());
    }
}

/// Random programs in spaces that fork from each other see exactly what they wrote, and give everything back.
#[test]
fn blocks_are_like_pages() {
    let _alone = alone();
    let mut sum = 0;
    for seed in 1..=40 {
        sum += run(Box::pin(async move {
            let mut rng = Rng(seed * 0x9e37_79b9);
            let space = AddressSpace::new().unwrap();
            for base in BASES {
                space.mmap(anonymous(base, EACH * PAGE, RW, MapFlags::FIXED)).await.unwrap();
                space.madvise(base, EACH * PAGE, HUGE).await.unwrap();
            }
            let mut models = vec![Model { space, pages: vec![Some((RW, 0, true)); PAGES as usize] }];
            for page in (0..PAGES).step_by(BLOCK_PAGES as usize) {
                models[0].write(page, seed).await;
            }
            let mut sum = 0;
            for _ in 0..150 {
                let which = rng.below(models.len() as u64) as usize;
                match rng.below(12) {
                    0 if models.len() < 3 => {
                        let space = models[which].space.fork().unwrap();
                        let pages = models[which].pages.clone();
                        models.push(Model { space, pages });
                    }
                    1 if models.len() > 1 => {
                        let gone = models.swap_remove(which);
                        if rng.below(2) == 0 {
                            gone.space.teardown().await;
                        }
                    }
                    _ => models[which].step(&mut rng).await,
                }
                let which = rng.below(models.len() as u64) as usize;
                for _ in 0..8 {
                    models[which].check(rng.below(PAGES)).await;
                }
                sum += huge_pages() / BLOCK_PAGES;
            }
            for model in &models {
                for page in 0..PAGES {
                    model.check(page).await;
                }
            }
            AddressSpace::deactivate();
            models.truncate(1);
            models[0].check_owners();
            models[0].space.teardown().await;
            assert_eq!(huge_pages(), 0);
            sum
        }));
    }
    // It was about blocks: some were there most of the time.
    assert!(sum >= 40 * 100, "{sum}");
}
