//! Kernel stacks, and starting the other CPUs through PSCI.

use super::layout::{LINEAR, STACK_SIZE, STACK_SLOT, STACKS, stack_top};
use super::{irq, machine, paging, psci, tables};
use crate::arch::MAX_CPUS;
use aarch64_cpu::asm::{sev, wfe};
use alloc::alloc::{Layout, alloc};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use spin::Once;

/// Physical address of each CPU's stack.
static STACK_PHYS: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];
static ONLINE: AtomicUsize = AtomicUsize::new(1);
static ENTRY: Once<fn(usize) -> !> = Once::new();

unsafe extern "C" {
    static secondary_entry: u8;
}

/// CPUs that are online.
#[inline]
pub fn cpu_count() -> usize {
    ONLINE.load(Ordering::Relaxed)
}

/// Maps `STACK_SIZE` bytes at `pa` as `cpu`'s stack; the guard below stays unmapped.
pub fn map_stack(cpu: usize, pa: u64) {
    STACK_PHYS[cpu].store(pa, Ordering::Relaxed);
    tables::map(stack_top(cpu) - STACK_SIZE, pa, STACK_SIZE, tables::DATA);
}

pub fn stack_to_phys(va: u64) -> u64 {
    let slot = (va - STACKS) / STACK_SLOT;
    STACK_PHYS[slot as usize].load(Ordering::Relaxed) + (va - STACKS) % STACK_SLOT - STACK_SIZE
}

/// Starts all other CPUs, one after the other; each calls `entry(cpu)` on its own kernel stack.
/// A CPU that firmware refuses to start is left out.
pub fn start_secondary_cpus(entry: fn(usize) -> !) {
    ENTRY.call_once(|| entry);
    let start = tables::image_to_phys(&raw const secondary_entry as u64);
    for &mpidr in &machine::mpidrs()[1..] {
        let cpu = cpu_count();
        if !provide_stack(cpu) {
            log::error!("no memory for the stack of CPU {cpu}");
            return;
        }
        irq::set_cpu_mpidr(cpu, mpidr);
        if let Err(error) = psci::cpu_on(mpidr, start, cpu as u64) {
            log::warn!("CPU with MPIDR {mpidr:#x} does not start: {error:?}");
            continue;
        }
        while cpu_count() == cpu {
            wfe();
        }
    }
}

/// Makes a stack for `cpu`, which it keeps, unless one is left from a CPU that did not start.
fn provide_stack(cpu: usize) -> bool {
    if STACK_PHYS[cpu].load(Ordering::Relaxed) != 0 {
        return true;
    }
    let Ok(layout) = Layout::from_size_align(STACK_SIZE as usize, 4096) else { return false };
    // SAFETY: the layout is not empty.
    let stack = unsafe { alloc(layout) };
    if stack.is_null() {
        return false;
    }
    debug_assert!(stack as u64 >= LINEAR);
    map_stack(cpu, paging::virt_to_phys(stack));
    true
}

/// The end of a secondary CPU's set-up.
pub fn secondary_online(cpu: usize) -> ! {
    irq::init_cpu(cpu);
    ONLINE.store(cpu + 1, Ordering::Release);
    sev();
    ENTRY.get().expect("started by start_secondary_cpus")(cpu)
}
