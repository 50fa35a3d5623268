//! Address spaces against models.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use proptest::prelude::*;

use super::super::addr::PAGE;
use super::super::test_util::{Rng, anonymous, run, space_with};
use super::super::uaccess::UserPtr;
use super::*;
use crate::arch::Access;
use crate::errno::Errno;

const RW: Prot = Prot::READ.union(Prot::WRITE);

fn vma(end: u64, prot: Prot) -> Vma {
    Vma::new(end, prot, VmaFlags::empty(), Backing::Anonymous)
}

#[derive(Clone, Debug)]
enum MapOp {
    Insert(u64, u64, u32),
    Remove(u64, u64),
    Protect(u64, u64, u32),
}

fn map_op() -> impl Strategy<Value = MapOp> {
    let range = (0u64..60, 1u64..12);
    prop_oneof![
        (range.clone(), 0u32..8).prop_map(|((at, len), prot)| MapOp::Insert(at, len, prot)),
        range.clone().prop_map(|(at, len)| MapOp::Remove(at, len)),
        (range, 0u32..8).prop_map(|((at, len), prot)| MapOp::Protect(at, len, prot)),
    ]
}

proptest! {
    #[test]
    fn the_vma_map_is_like_an_array_of_pages(ops in prop::collection::vec(map_op(), 1..60)) {
        let mut map = VmaMap::default();
        let mut model = [None; 80];
        for op in ops {
            match op {
                MapOp::Insert(at, len, prot) => {
                    map.remove(at * PAGE..(at + len) * PAGE, |_, _| ());
                    map.insert(at * PAGE, vma((at + len) * PAGE, Prot::from_bits_truncate(prot)));
                    model[at as usize..(at + len) as usize].fill(Some(prot));
                }
                MapOp::Remove(at, len) => {
                    let mut removed = 0;
                    map.remove(at * PAGE..(at + len) * PAGE, |start, vma| removed += (vma.end - start) / PAGE);
                    let pages = &mut model[at as usize..(at + len) as usize];
                    prop_assert_eq!(removed, pages.iter().flatten().count() as u64);
                    pages.fill(None);
                }
                MapOp::Protect(at, len, prot) => {
                    map.update(at * PAGE..(at + len) * PAGE, |_, vma| {
                        vma.prot = Prot::from_bits_truncate(prot);
                        true
                    });
                    for page in model[at as usize..(at + len) as usize].iter_mut().flatten() {
                        *page = prot;
                    }
                }
            }
            for (page, expected) in model.iter().enumerate() {
                let found = map.find(page as u64 * PAGE + 5).map(|(_, vma)| vma.prot.bits());
                prop_assert_eq!(found, *expected);
            }
            prop_assert_eq!(map.total(), model.iter().flatten().count() as u64 * PAGE);
            let all: Vec<_> = map.iter().map(|(start, vma)| (start, vma.end, vma.prot)).collect();
            for pair in all.windows(2) {
                prop_assert!(pair[0].1 <= pair[1].0, "overlap");
                prop_assert!(pair[0].1 < pair[1].0 || pair[0].2 != pair[1].2, "neighbours not joined");
            }
        }
    }
}

/// What a page of the model is: rights and the value of its first and last byte.
type Page = Option<(Prot, u8)>;

/// Pages around borders of tables of each level, so that sharing at each level is exercised.
const BASES: [u64; 4] = [0x1000_0000_0000 - 8 * PAGE, 0x4000_0000 - 8 * PAGE, 0x60_0000 - 8 * PAGE, 0x80_0000];
const EACH: u64 = 16;
const PAGES: u64 = EACH * BASES.len() as u64;

fn address(page: u64) -> u64 {
    BASES[(page / EACH) as usize] + page % EACH * PAGE
}

struct Model {
    space: Arc<AddressSpace>,
    pages: Vec<Page>,
}

impl Model {
    /// A byte as the program reads it.
    async fn load(&self, addr: u64) -> Result<u8> {
        self.space.activate();
        UserPtr::<u8>::new(addr).read(&self.space).await
    }

    async fn store(&self, addr: u64, value: u8) -> Result<()> {
        self.space.activate();
        UserPtr::<u8>::new(addr).write(&self.space, value).await
    }

    async fn check(&self, page: u64) {
        let expected = match self.pages[page as usize] {
            Some((prot, value)) if !prot.is_empty() => Ok(value),
            _ => Err(Errno::EFAULT),
        };
        assert_eq!(self.load(address(page)).await, expected, "page {page}");
        assert_eq!(self.load(address(page) + PAGE - 1).await, expected, "page {page}");
        let mut byte = [0];
        let remote = self.space.read_remote(address(page) + PAGE - 1, &mut byte, Toucher::Call).await.map(|_| byte[0]);
        assert_eq!(remote, expected);
    }

    /// A random range within one base.
    fn range(rng: &mut Rng) -> (u64, u64) {
        let base = rng.below(BASES.len() as u64) * EACH;
        let from = rng.below(EACH);
        (base + from, 1 + rng.below(EACH - from))
    }

    async fn step(&mut self, rng: &mut Rng) {
        let (first, len) = Self::range(rng);
        let (addr, bytes) = (address(first), len * PAGE);
        let slice = first as usize..(first + len) as usize;
        let prot = Prot::from_bits_truncate(rng.below(4) as u32);
        match rng.below(10) {
            0 | 1 => {
                self.space.mmap(anonymous(addr, bytes, RW, MapFlags::FIXED)).await.unwrap();
                self.pages[slice].fill(Some((RW, 0)));
            }
            2 => {
                self.space.munmap(addr, bytes).await.unwrap();
                self.pages[slice].fill(None);
            }
            3 => {
                let result = self.space.mprotect(addr, bytes, prot, false).await;
                let hole = self.pages[slice.clone()].iter().position(Option::is_none);
                assert_eq!(result.is_ok(), hole.is_none());
                let end = hole.map_or(slice.end, |hole| slice.start + hole);
                for page in self.pages[slice.start..end].iter_mut().flatten() {
                    page.0 = prot;
                }
            }
            4 => {
                let result = self.space.madvise(addr, bytes, 4).await;
                assert_eq!(result.is_ok(), self.pages[slice.clone()].iter().all(Option::is_some));
                for page in self.pages[slice].iter_mut().flatten() {
                    page.1 = 0;
                }
            }
            5 => self.remap(first, len, rng).await,
            _ => {
                for page in slice {
                    let value = rng.below(255) as u8 + 1;
                    let at = address(page as u64);
                    let wrote = self.store(at, value).await.is_ok();
                    assert_eq!(self.store(at + PAGE - 1, value).await.is_ok(), wrote);
                    let writable = self.pages[page].is_some_and(|(prot, _)| prot.contains(Prot::WRITE));
                    assert_eq!(wrote, writable, "page {page}");
                    if let (true, Some(state)) = (wrote, &mut self.pages[page]) {
                        state.1 = value;
                    }
                }
            }
        }
    }

    /// Moves a range onto another base, with mremap(2).
    async fn remap(&mut self, first: u64, len: u64, rng: &mut Rng) {
        let other = (first / EACH + 1 + rng.below(BASES.len() as u64 - 1)) % BASES.len() as u64 * EACH;
        let to = other + rng.below(EACH - len + 1);
        let request = MremapRequest {
            addr: address(first),
            old_len: len * PAGE,
            new_len: len * PAGE,
            flags: 3,
            new_addr: address(to),
        };
        let moved: Vec<Page> = self.pages[first as usize..(first + len) as usize].to_vec();
        let whole = moved[0].is_some() && moved.iter().all(|page| page.map(|p| p.0) == moved[0].map(|p| p.0));
        let result = self.space.mremap(request).await;
        assert_eq!(result, if whole { Ok(address(to)) } else { Err(Errno::EFAULT) });
        if whole {
            self.pages[first as usize..(first + len) as usize].fill(None);
            self.pages[to as usize..(to + len) as usize].copy_from_slice(&moved);
        }
    }
}

/// Random programs in several spaces that fork from each other see exactly what they wrote.
#[test]
fn spaces_that_fork_are_independent() {
    for seed in 1..=24 {
        run(Box::pin(async move {
            let mut rng = Rng(seed * 0x9e37_79b9);
            let first = Model { space: AddressSpace::new().unwrap(), pages: vec![None; PAGES as usize] };
            let mut models = vec![first];
            for _ in 0..250 {
                let which = rng.below(models.len() as u64) as usize;
                match rng.below(12) {
                    0 if models.len() < 5 => {
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
            }
            for model in &models {
                for page in 0..PAGES {
                    model.check(page).await;
                }
                let resident = model.space.stats().resident;
                assert!(resident <= model.pages.iter().flatten().count() as u64);
            }
            AddressSpace::deactivate();
        }));
    }
}

#[test]
fn faults_say_why() {
    run(async {
        let (space, addr) = space_with(4 * PAGE).await;
        space.mprotect(addr + PAGE, PAGE, Prot::READ, false).await.unwrap();
        space.mprotect(addr + 2 * PAGE, PAGE, Prot::empty(), false).await.unwrap();
        let code =
            |result: Result<(), FaultSignal>| result.err().map(|signal| (signal.signo, signal.code, signal.addr));
        assert_eq!(code(space.handle_fault(addr + 5, Access::Write).await), None);
        assert_eq!(code(space.handle_fault(addr + PAGE + 5, Access::Read).await), None);
        assert_eq!(code(space.handle_fault(addr + PAGE + 5, Access::Write).await), Some((11, 2, addr + PAGE + 5)));
        assert_eq!(code(space.handle_fault(addr + 2 * PAGE, Access::Read).await), Some((11, 2, addr + 2 * PAGE)));
        assert_eq!(code(space.handle_fault(addr, Access::Execute).await), Some((11, 2, addr)));
        assert_eq!(code(space.handle_fault(addr + 4 * PAGE, Access::Read).await), Some((11, 1, addr + 4 * PAGE)));
        assert_eq!(code(space.handle_fault(!0xfff, Access::Read).await), Some((11, 1, !0xfff)));
    });
}

#[test]
fn read_faults_share_the_zero_page() {
    run(async {
        let (space, addr) = space_with(100 * PAGE).await;
        space.activate();
        for page in 0..100 {
            assert_eq!(UserPtr::<u64>::new(addr + page * PAGE).read(&space).await, Ok(0));
        }
        assert_eq!(space.stats().resident, 0);
        UserPtr::<u64>::new(addr + PAGE).write(&space, 7).await.unwrap();
        assert_eq!(UserPtr::<u64>::new(addr).read(&space).await, Ok(0));
        assert_eq!(UserPtr::<u64>::new(addr + PAGE).read(&space).await, Ok(7));
        assert_eq!(space.stats().resident, 1);
    });
}

#[test]
fn the_only_owner_of_a_page_keeps_it_on_write() {
    run(async {
        let (space, addr) = space_with(PAGE).await;
        space.activate();
        UserPtr::<u64>::new(addr).write(&space, 1).await.unwrap();
        let frame = |space: &AddressSpace| space.inner.lock().tables.peek(addr).unwrap().address();
        let before = frame(&space);
        let child = space.fork().unwrap();
        UserPtr::<u64>::new(addr).write(&space, 2).await.unwrap();
        let copied = frame(&space);
        assert_ne!(copied, before);
        drop(child);
        let child = space.fork().unwrap();
        drop(child);
        UserPtr::<u64>::new(addr).write(&space, 3).await.unwrap();
        assert_eq!(frame(&space), copied);
    });
}

#[test]
fn fork_copies_the_root_only() {
    run(async {
        let (space, addr) = space_with(64 << 20).await;
        for page in 0..(64 << 20) / PAGE {
            space.handle_fault(addr + page * PAGE, Access::Write).await.unwrap();
        }
        assert_eq!(space.stats().resident, (64 << 20) / PAGE);
        // Other tests make tables meanwhile: the least of several attempts is this fork's own.
        let mut made = u64::MAX;
        for _ in 0..50 {
            let tables = super::super::stats::TABLES.sum();
            let child = space.fork().unwrap();
            made = made.min(super::super::stats::TABLES.sum().saturating_sub(tables));
            child.teardown().await;
        }
        assert!(made <= 8, "{made} table pages");
        let child = space.fork().unwrap();
        assert_eq!(child.stats().resident, space.stats().resident);
        child.activate();
        UserPtr::<u64>::new(addr + (32 << 20)).write(&child, 1).await.unwrap();
        assert_eq!(child.stats().resident, space.stats().resident);
        child.teardown().await;
        assert_eq!(child.stats().resident, 0);
        AddressSpace::deactivate();
    });
}

#[test]
fn mappings_are_placed_from_the_top_down_and_reuse_holes() {
    run(async {
        let space = AddressSpace::new().unwrap();
        space.set_layout(super::super::addr::USER_END, 8 << 20, 0);
        let a = space.mmap(anonymous(0, 3 * PAGE, RW, MapFlags::empty())).await.unwrap();
        let b = space.mmap(anonymous(0, 2 * PAGE, RW, MapFlags::empty())).await.unwrap();
        let c = space.mmap(anonymous(0, PAGE, RW, MapFlags::empty())).await.unwrap();
        assert_eq!((b, c), (a - 2 * PAGE, a - 3 * PAGE));
        assert_eq!(space.inner.lock().vmas.len(), 1);
        space.munmap(b, 2 * PAGE).await.unwrap();
        assert_eq!(space.mmap(anonymous(0, 2 * PAGE, RW, MapFlags::empty())).await, Ok(b));
        space.munmap(a, PAGE).await.unwrap();
        assert_eq!(space.mmap(anonymous(0, 2 * PAGE, RW, MapFlags::empty())).await, Ok(c - 2 * PAGE));
        assert_eq!(space.mmap(anonymous(0, PAGE, RW, MapFlags::empty())).await, Ok(a));
        let hint = 0x5555_0000_0000;
        assert_eq!(space.mmap(anonymous(hint + 5, PAGE, RW, MapFlags::empty())).await, Ok(hint));
        let again = anonymous(hint, PAGE, RW, MapFlags::FIXED_NOREPLACE);
        assert_eq!(space.mmap(again).await, Err(Errno::EEXIST));
        space.limits.address_space.store(12 * PAGE, Ordering::Relaxed);
        assert_eq!(space.mmap(anonymous(0, 8 * PAGE, RW, MapFlags::empty())).await, Err(Errno::ENOMEM));
    });
}

#[test]
fn the_address_space_can_be_filled_up() {
    run(async {
        let space = AddressSpace::new().unwrap();
        let huge = || anonymous(0, 1 << 44, Prot::empty(), MapFlags::NORESERVE);
        let mut count = 0;
        while space.mmap(huge()).await.is_ok() {
            count += 1;
        }
        assert_eq!(count, 15);
        assert!(space.mmap(anonymous(0, PAGE, RW, MapFlags::empty())).await.is_ok());
    });
}

#[test]
fn stacks_grow_down_to_their_limit_and_not_into_others() {
    run(async {
        let space = AddressSpace::new().unwrap();
        let top = 0x7000_0000_0000;
        space.limits.stack.store(1 << 20, Ordering::Relaxed);
        let flags = MapFlags::FIXED | MapFlags::GROWSDOWN;
        space.mmap(anonymous(top - 2 * PAGE, 2 * PAGE, RW, flags)).await.unwrap();
        assert!(space.handle_fault(top - 200 * PAGE, Access::Write).await.is_ok());
        assert!(space.handle_fault(top - 256 * PAGE, Access::Write).await.is_ok());
        assert_eq!(space.handle_fault(top - 257 * PAGE, Access::Write).await.unwrap_err().code, 1);
        space.limits.stack.store(64 << 20, Ordering::Relaxed);
        space.mmap(anonymous(top - 1000 * PAGE, PAGE, RW, MapFlags::FIXED)).await.unwrap();
        assert!(space.handle_fault(top - 700 * PAGE, Access::Write).await.is_ok());
        assert_eq!(space.handle_fault(top - 800 * PAGE, Access::Write).await.unwrap_err().code, 1);
    });
}

#[test]
fn brk_moves_and_forgets() {
    run(async {
        let space = AddressSpace::new().unwrap();
        let start = 0x1234_5678;
        space.set_brk_start(start);
        assert_eq!(space.brk(0).await, start);
        assert_eq!(space.brk(start + 3 * PAGE).await, start + 3 * PAGE);
        space.activate();
        UserPtr::<u8>::new(start + PAGE).write(&space, 9).await.unwrap();
        assert_eq!(space.brk(start).await, start);
        assert_eq!(space.brk(start + 2 * PAGE).await, start + 2 * PAGE);
        assert_eq!(UserPtr::<u8>::new(start + PAGE).read(&space).await, Ok(0));
        assert_eq!(space.brk(start - 1).await, start + 2 * PAGE);
        assert_eq!(space.brk(u64::MAX).await, start + 2 * PAGE);
        space.mmap(anonymous(start.next_multiple_of(PAGE) + 5 * PAGE, PAGE, RW, MapFlags::FIXED)).await.unwrap();
        assert_eq!(space.brk(start + 9 * PAGE).await, start + 2 * PAGE);
    });
}

#[test]
fn mremap_grows_moves_and_shrinks() {
    run(async {
        let (space, addr) = space_with(4 * PAGE).await;
        space.activate();
        for page in 0..4 {
            UserPtr::<u64>::new(addr + page * PAGE).write(&space, page + 1).await.unwrap();
        }
        let request = |addr, old, new, flags, to| MremapRequest {
            addr,
            old_len: old * PAGE,
            new_len: new * PAGE,
            flags,
            new_addr: to,
        };
        // Just below the mapping base something else is above: it must move.
        space.mmap(anonymous(addr + 4 * PAGE, PAGE, Prot::READ, MapFlags::FIXED)).await.unwrap();
        assert_eq!(space.mremap(request(addr, 4, 8, 0, 0)).await, Err(Errno::ENOMEM));
        let moved = space.mremap(request(addr, 4, 1024, 1, 0)).await.unwrap();
        assert_eq!(moved % (2 << 20), addr % (2 << 20));
        for page in 0..4 {
            assert_eq!(UserPtr::<u64>::new(moved + page * PAGE).read(&space).await, Ok(page + 1));
            assert_eq!(UserPtr::<u64>::new(addr + page * PAGE).read(&space).await, Err(Errno::EFAULT));
        }
        assert_eq!(UserPtr::<u64>::new(moved + 4 * PAGE).read(&space).await, Ok(0));
        assert_eq!(space.mremap(request(moved, 1024, 2, 1, 0)).await, Ok(moved));
        assert_eq!(UserPtr::<u64>::new(moved + 2 * PAGE).read(&space).await, Err(Errno::EFAULT));
        // In place again.
        assert_eq!(space.mremap(request(moved, 2, 3, 0, 0)).await, Ok(moved));
        assert_eq!(UserPtr::<u64>::new(moved + 2 * PAGE).read(&space).await, Ok(0));
        // The old place stays, empty.
        let kept = space.mremap(request(moved, 2, 2, 5, 0)).await.unwrap();
        assert_eq!(UserPtr::<u64>::new(kept + PAGE).read(&space).await, Ok(2));
        assert_eq!(UserPtr::<u64>::new(moved + PAGE).read(&space).await, Ok(0));
        assert_eq!(space.mremap(request(moved, 2, 2, 8, 0)).await, Err(Errno::EINVAL));
        assert_eq!(space.mremap(request(moved + 1, 2, 2, 1, 0)).await, Err(Errno::EINVAL));
        assert_eq!(space.mremap(request(0x10_0000, 2, 2, 1, 0)).await, Err(Errno::EFAULT));
    });
}

#[test]
fn shared_memory_is_one_for_all_copies() {
    run(async {
        let space = AddressSpace::new().unwrap();
        let mut request = anonymous(0, 4 * PAGE, RW, MapFlags::empty());
        request.flags = MapFlags::SHARED | MapFlags::ANONYMOUS;
        let addr = space.mmap(request).await.unwrap();
        let child = space.fork().unwrap();
        child.activate();
        UserPtr::<u32>::new(addr + 8).write(&child, 5).await.unwrap();
        space.activate();
        assert_eq!(UserPtr::<u32>::new(addr + 8).read(&space).await, Ok(5));
        UserPtr::<u32>::new(addr + 8).write(&space, 6).await.unwrap();
        child.activate();
        assert_eq!(UserPtr::<u32>::new(addr + 8).read(&child).await, Ok(6));
        assert_eq!(space.futex_key(addr + 8, false), child.futex_key(addr + 8, false));
        assert_ne!(space.futex_key(addr + 8, true), child.futex_key(addr + 8, true));
        child.madvise(addr, PAGE, 4).await.unwrap();
        assert_eq!(UserPtr::<u32>::new(addr + 8).read(&child).await, Ok(6));
        AddressSpace::deactivate();
    });
}

#[test]
fn locked_memory_is_present_and_limited() {
    run(async {
        let (space, addr) = space_with(8 * PAGE).await;
        space.limits.memlock.store(4 * PAGE, Ordering::Relaxed);
        assert_eq!(space.mlock(addr, 5 * PAGE, false, false).await, Err(Errno::ENOMEM));
        assert_eq!(space.mlock(addr + 1, 2 * PAGE, false, false).await, Ok(()));
        assert_eq!(space.stats().resident, 3);
        assert_eq!(space.stats().locked, 3);
        assert_eq!(space.madvise(addr, PAGE, 4).await, Err(Errno::EINVAL));
        assert_eq!(space.munlock(addr, 8 * PAGE).await, Ok(()));
        assert_eq!(space.stats().locked, 0);
        assert_eq!(space.inner.lock().vmas.len(), 1);
        let mut resident = [9; 4];
        space.residency(addr, &mut resident).unwrap();
        assert_eq!(resident, [1, 1, 1, 0]);
    });
}

#[test]
fn wipe_and_dont_fork_are_obeyed() {
    run(async {
        let (space, addr) = space_with(3 * PAGE).await;
        space.activate();
        for page in 0..3 {
            UserPtr::<u64>::new(addr + page * PAGE).write(&space, 1).await.unwrap();
        }
        space.madvise(addr, PAGE, 10).await.unwrap();
        space.madvise(addr + PAGE, PAGE, 18).await.unwrap();
        let child = space.fork().unwrap();
        child.activate();
        let seen = |page: u64| UserPtr::<u64>::new(addr + page * PAGE);
        assert_eq!(seen(0).read(&child).await, Err(Errno::EFAULT));
        assert_eq!(seen(1).read(&child).await, Ok(0));
        assert_eq!(seen(2).read(&child).await, Ok(1));
        space.activate();
        assert_eq!(seen(1).read(&space).await, Ok(1));
        AddressSpace::deactivate();
    });
}
