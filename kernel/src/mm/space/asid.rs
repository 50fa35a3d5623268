//! Which space is current on which CPU, and address-space identifiers with generations.
//!
//! A space gets a 16-bit ASID when it first runs. When all are used up the generation is advanced: every TLB is flushed
//! once, spaces that are running keep their number, all others get a new one when they next run.

use alloc::sync::Arc;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};

use super::super::local::{Local, LocalCell};
use super::AddressSpace;
use crate::arch::{MAX_CPUS, PerCpu, paging};
use crate::sync::SpinLock;

const ASIDS: usize = 1 << 16;
const ASID_MASK: u64 = ASIDS as u64 - 1;

/// Generation in the upper 48 bits; starts at 1, so that a context of 0 is of no generation.
static GENERATION: AtomicU64 = AtomicU64::new(1 << 16);

/// The context (generation and ASID) that each CPU runs; 0 since the last roll-over, until it switches.
static ACTIVE: PerCpu<AtomicU64> = PerCpu::new([const { AtomicU64::new(0) }; MAX_CPUS]);

struct Allocator {
    used: [u64; ASIDS / 64],
    /// Where the search for a free one goes on.
    next: usize,
    /// What each CPU ran at the last roll-over.
    reserved: [u64; MAX_CPUS],
}

static ALLOCATOR: SpinLock<Allocator> =
    // ASID 0 belongs to the empty table.
    SpinLock::new(Allocator {
        used: {
            let mut used = [0; ASIDS / 64];
            used[0] = 1;
            used
        },
        next: 1,
        reserved: [0; MAX_CPUS],
    });

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
    let asid = context_for(space);
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

fn context_for(space: &AddressSpace) -> u16 {
    let context = space.context.load(Ordering::Relaxed);
    let generation = GENERATION.load(Ordering::Acquire);
    // A roll-over on another CPU sets ACTIVE to 0 after it has advanced the generation: then go the slow way.
    //
    //   this CPU                              roll-over
    //   read GENERATION: still the old one    advance GENERATION
    //   swap ACTIVE: not 0, keep ASID   or    swap ACTIVE with 0: reserves what it finds
    if (context ^ generation) >> 16 == 0 && ACTIVE.get().swap(context, Ordering::AcqRel) != 0 {
        return context as u16;
    }
    let mut allocator = ALLOCATOR.lock();
    let mut context = space.context.load(Ordering::Relaxed);
    if (context ^ GENERATION.load(Ordering::Relaxed)) >> 16 != 0 {
        context = allocator.renew(context);
        space.context.store(context, Ordering::Relaxed);
        // Before the tables are walked with it: see `Gather::flush`.
        paging::publish();
    }
    ACTIVE.get().store(context, Ordering::Release);
    context as u16
}

impl Allocator {
    /// A context of the current generation for a space that had `old`.
    fn renew(&mut self, old: u64) -> u64 {
        let generation = GENERATION.load(Ordering::Relaxed);
        if old != 0 {
            let renewed = generation | (old & ASID_MASK);
            // It was running at the roll-over: the number is still its own.
            let mut reserved = false;
            for slot in self.reserved.iter_mut().filter(|slot| **slot == old) {
                *slot = renewed;
                reserved = true;
            }
            if reserved || self.take((old & ASID_MASK) as usize) {
                return renewed;
            }
        }
        if let Some(asid) = self.find_free() {
            return generation | asid;
        }
        let generation = self.roll_over();
        // At most MAX_CPUS numbers are reserved: there are free ones.
        generation | self.find_free().unwrap_or(0)
    }

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

    fn roll_over(&mut self) -> u64 {
        let generation = GENERATION.fetch_add(1 << 16, Ordering::AcqRel) + (1 << 16);
        self.used = [0; ASIDS / 64];
        self.used[0] = 1;
        self.next = 1;
        for (cpu, active) in ACTIVE.iter().enumerate() {
            let mut context = active.swap(0, Ordering::AcqRel);
            if context == 0 {
                // It has not switched since the roll-over before.
                context = self.reserved[cpu];
            }
            self.take((context & ASID_MASK) as usize);
            self.reserved[cpu] = context;
        }
        paging::flush_all();
        generation
    }
}
