//! Which space is current on which CPU, and address-space identifiers with generations.
//!
//! A space gets a 16-bit ASID when it first runs. When all are used up the generation is advanced: spaces that are running keep
//! their number, all others get a new one when they next run, and each CPU empties its TLB before it takes one of the new
//! generation.
//!
//! It has to do so itself, and then. A broadcast at the roll-over is not enough: whatever TTBR0_EL1 leads to may come into a TLB
//! at any time, speculatively (Arm ARM D8, Translation Lookaside Buffers). So until a CPU has written the register, it may walk the
//! tables of the space before, and note what it finds with that one's ASID, which by then may be somebody else's:
//!
//! ```text
//!   CPU that switches from P to N              roll-over on another CPU
//!   ACTIVE = N's                               reserves N's number; P's is free
//!                                              broadcast
//!   a walk with P's number fills its TLB
//!   TTBR0 = N's                                P's number is given to Q
//!   later: TTBR0 = Q's, with P's translations
//! ```
//! Here that CPU finds 0 in ACTIVE at its next switch, goes the slow way, and empties its TLB while TTBR0 has N's number,
//! which is still N's. Until then it runs nothing but N. Linux does the same (`tlb_flush_pending` in arch/arm64/mm/context.c).

use alloc::sync::Arc;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use super::super::local::{Local, LocalCell};
use super::AddressSpace;
use crate::arch::{MAX_CPUS, PerCpu, cpu_id, paging};
use crate::sync::SpinLock;

const ASIDS: usize = 1 << 16;
const ASID_MASK: u64 = ASIDS as u64 - 1;

/// Who has which number.
struct Numbers {
    /// Generation in the upper 48 bits; starts at 1, so that a context of 0 is of no generation.
    generation: AtomicU64,
    /// The context (generation and ASID) that each CPU runs; 0 since the last roll-over, until it switches.
    active: PerCpu<AtomicU64>,
    allocator: SpinLock<Allocator>,
}

struct Allocator {
    used: [u64; ASIDS / 64],
    /// Where the search for a free one goes on.
    next: usize,
    /// What each CPU ran at the last roll-over.
    reserved: [u64; MAX_CPUS],
    /// CPUs that have not emptied their TLBs since.
    stale: [bool; MAX_CPUS],
}

static NUMBERS: Numbers = Numbers::new();

static CURRENT: Local<Option<Arc<AddressSpace>>> = Local::new([const { LocalCell::new(None) }; MAX_CPUS]);

/// Makes `space` current on this CPU.
#[inline]
pub(super) fn activate(space: &Arc<AddressSpace>) {
    let switch = CURRENT.with(|current| match current {
        Some(current) => !ptr::eq(Arc::as_ptr(current), Arc::as_ptr(space)),
        None => true,
    });
    if switch {
        switch_to(space);
    }
}

fn switch_to(space: &Arc<AddressSpace>) {
    let asid = NUMBERS.context_for(&space.context);
    paging::set_user_root(space.root, asid);
    let previous = CURRENT.with(|current| current.replace(space.clone()));
    // Outside of the closure: this may free the space, and its root is not in use here any more.
    drop(previous);
}

pub(super) fn deactivate() {
    if let Some(previous) = CURRENT.with(Option::take) {
        paging::set_user_root(0, 0);
        drop(previous);
    }
}

/// Is `space` the one that this CPU runs?
pub(super) fn is_current(space: &AddressSpace) -> bool {
    CURRENT.with(|current| current.as_ref().is_some_and(|current| ptr::eq(Arc::as_ptr(current), space)))
}

impl Numbers {
    const fn new() -> Self {
        // ASID 0 belongs to the empty table.
        let mut used = [0; ASIDS / 64];
        used[0] = 1;
        Numbers {
            generation: AtomicU64::new(1 << 16),
            active: PerCpu::new([const { AtomicU64::new(0) }; MAX_CPUS]),
            allocator: SpinLock::new(Allocator { used, next: 1, reserved: [0; MAX_CPUS], stale: [false; MAX_CPUS] }),
        }
    }

    /// The ASID with which this CPU is to run a space, now.
    fn context_for(&self, of: &AtomicU64) -> u16 {
        let context = of.load(Ordering::Relaxed);
        let active = self.active.get();
        let before = active.load(Ordering::Relaxed);
        let current = (context ^ self.generation.load(Ordering::Acquire)) >> 16 == 0;
        // A roll-over on another CPU sets ACTIVE to 0 after it has advanced the generation: then go the slow way. What it has
        // reserved for this CPU stays what this CPU runs, so 0 is not overwritten here.
        //
        //   this CPU                              roll-over
        //   read GENERATION: still the old one    advance GENERATION
        //   exchange ACTIVE: not 0, keep ASID or  swap ACTIVE with 0: reserves what it finds
        let fast = current && before != 0;
        if fast && active.compare_exchange(before, context, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            return context as u16;
        }
        let mut allocator = self.allocator.lock();
        let mut context = of.load(Ordering::Relaxed);
        if (context ^ self.generation.load(Ordering::Relaxed)) >> 16 != 0 {
            context = self.renew(&mut allocator, context);
            of.store(context, Ordering::Relaxed);
            // Before the tables are walked with it: see `Gather::flush`.
            paging::publish();
        }
        if core::mem::take(&mut allocator.stale[cpu_id()]) {
            paging::flush_local();
        }
        active.store(context, Ordering::Release);
        context as u16
    }

    /// A context of the current generation for a space that had `old`.
    fn renew(&self, allocator: &mut Allocator, old: u64) -> u64 {
        let generation = self.generation.load(Ordering::Relaxed);
        if old != 0 {
            let renewed = generation | (old & ASID_MASK);
            // It was running at the roll-over: the number is still its own.
            let mut reserved = false;
            for slot in allocator.reserved.iter_mut().filter(|slot| **slot == old) {
                *slot = renewed;
                reserved = true;
            }
            if reserved || allocator.take((old & ASID_MASK) as usize) {
                return renewed;
            }
        }
        if let Some(asid) = allocator.find_free() {
            return generation | asid;
        }
        let generation = self.roll_over(allocator);
        // At most MAX_CPUS numbers are reserved: there are free ones.
        generation | allocator.find_free().unwrap_or(0)
    }

    fn roll_over(&self, allocator: &mut Allocator) -> u64 {
        let generation = self.generation.fetch_add(1 << 16, Ordering::AcqRel) + (1 << 16);
        allocator.used = [0; ASIDS / 64];
        allocator.used[0] = 1;
        allocator.next = 1;
        for (cpu, active) in self.active.iter().enumerate() {
            let mut context = active.swap(0, Ordering::AcqRel);
            if context == 0 {
                // It has not switched since the roll-over before.
                context = allocator.reserved[cpu];
            }
            allocator.take((context & ASID_MASK) as usize);
            allocator.reserved[cpu] = context;
        }
        allocator.stale = [true; MAX_CPUS];
        generation
    }
}

impl Allocator {
    fn take(&mut self, asid: usize) -> bool {
        let bit = 1 << (asid % 64);
        let word = &mut self.used[asid / 64];
        let free = *word & bit == 0;
        *word |= bit;
        free
    }

    fn find_free(&mut self) -> Option<u64> {
        let word = (self.next / 64..ASIDS / 64).find(|&word| self.used[word] != u64::MAX)?;
        let asid = word * 64 + self.used[word].trailing_ones() as usize;
        self.take(asid);
        self.next = asid;
        Some(asid as u64)
    }
}

#[cfg(test)]
mod tests {
    use alloc::boxed::Box;
    use alloc::vec::Vec;
    use std::collections::BTreeMap;

    use super::*;
    use crate::arch::sim;
    use crate::mm::test_util::Rng;

    const CPUS: usize = 3;

    /// CPUs with TLBs that fill themselves whenever they can.
    struct Machine {
        numbers: Box<Numbers>,
        spaces: Vec<AtomicU64>,
        /// ASID and space that TTBR0 has.
        root: [(u16, usize); CPUS],
        /// Whose translations each CPU knows, by ASID.
        tlb: [BTreeMap<u16, usize>; CPUS],
        flushed: [usize; CPUS],
    }

    impl Machine {
        fn new(spaces: usize) -> Machine {
            Machine {
                numbers: Box::new(Numbers::new()),
                spaces: (0..spaces).map(|_| AtomicU64::new(0)).collect(),
                root: [(0, usize::MAX); CPUS],
                tlb: Default::default(),
                flushed: sim::flushes()[..CPUS].try_into().unwrap(),
            }
        }

        /// Any CPU may walk its tables at any time.
        fn fill(&mut self) {
            for cpu in 0..CPUS {
                let (asid, space) = self.root[cpu];
                let known = *self.tlb[cpu].entry(asid).or_insert(space);
                assert_eq!(known, space, "CPU {cpu}: ASID {asid}");
            }
        }

        /// The first half of a switch: what is to be written to TTBR0.
        fn choose(&mut self, cpu: usize, space: usize) -> (u16, usize) {
            sim::set_cpu(cpu, CPUS);
            let asid = self.numbers.context_for(&self.spaces[space]);
            for (cpu, count) in sim::flushes().into_iter().enumerate().take(CPUS) {
                if count != core::mem::replace(&mut self.flushed[cpu], count) {
                    self.tlb[cpu].clear();
                }
            }
            self.fill();
            (asid, space)
        }

        fn switch(&mut self, cpu: usize, space: usize) {
            self.root[cpu] = self.choose(cpu, space);
            self.fill();
        }

        /// This CPU runs one space more than there are numbers.
        fn roll_over(&mut self, cpu: usize) {
            let before = self.numbers.generation.load(Ordering::Relaxed);
            sim::set_cpu(cpu, CPUS);
            let mut allocator = self.numbers.allocator.lock();
            allocator.used = [u64::MAX; ASIDS / 64];
            drop(allocator);
            let space = self.spaces.len();
            self.spaces.push(AtomicU64::new(0));
            self.switch(cpu, space);
            assert_ne!(self.numbers.generation.load(Ordering::Relaxed), before);
        }
    }

    /// A CPU has chosen what it runs next, and has not told its TTBR0, when the numbers are used up elsewhere.
    #[test]
    fn a_number_that_a_cpu_still_walks_with_is_not_known_to_it_later() {
        let mut machine = Machine::new(3);
        machine.switch(0, 0);
        machine.switch(1, 1);
        machine.switch(2, 2);
        let next = machine.choose(1, 2);
        machine.roll_over(0);
        // Space 1's number is free, and CPU 1 has walked with it.
        machine.root[1] = next;
        for space in 3..10 {
            machine.spaces.push(AtomicU64::new(0));
            machine.switch(0, space);
            machine.switch(1, space);
        }
    }

    #[test]
    fn no_cpu_confuses_spaces_whenever_numbers_are_used_up() {
        for seed in 1..200 {
            let mut rng = Rng(seed);
            let mut machine = Machine::new(12);
            let mut half = [None; CPUS];
            for _ in 0..200 {
                let cpu = rng.below(CPUS as u64) as usize;
                let space = rng.below(machine.spaces.len() as u64) as usize;
                match half[cpu].take() {
                    Some(chosen) => {
                        machine.root[cpu] = chosen;
                        machine.fill();
                    }
                    None if rng.below(8) == 0 => machine.roll_over(cpu),
                    None => half[cpu] = Some(machine.choose(cpu, space)),
                }
            }
        }
    }
}
