//! Interrupts: servicing what is pending, sleeping until something is, and the handlers of devices.

use super::gic::Gic;
use super::{cpu_id, machine, timer};
use aarch64_cpu::registers::{MPIDR_EL1, Readable};
use alloc::boxed::Box;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Once;

/// What arch calls when an interrupt of its own kind is serviced.
pub struct Hooks {
    /// This CPU's timer expired.
    pub timer: fn(),
    /// Another CPU called [`send_ipi`].
    pub ipi: fn(),
}

/// Software-generated interrupts.
const SGI_IPI: u32 = 0;
const SGI_STOP: u32 = 1;

#[derive(Clone, Copy)]
struct Handler {
    call: fn(usize),
    arg: usize,
}

static HOOKS: Once<Hooks> = Once::new();
static GIC: Once<Gic> = Once::new();
/// By INTID, as many as the distributor has.
static HANDLERS: Once<Box<[Once<Handler>]>> = Once::new();

const NO_HOOKS: Hooks = Hooks { timer: || {}, ipi: || {} };

pub fn set_hooks(hooks: Hooks) {
    HOOKS.call_once(|| hooks);
}

pub(super) fn hooks() -> &'static Hooks {
    HOOKS.get().unwrap_or(&NO_HOOKS)
}

/// Finds the interrupt controller and sets it up, for CPU 0 as well.
pub(super) fn init() {
    let gic = GIC.call_once(|| Gic::new(machine::gic_info()));
    HANDLERS.call_once(|| (0..gic.lines()).map(|_| Once::new()).collect());
    gic.set_cpu_mpidr(0, MPIDR_EL1.get() & machine::MPIDR_MASK);
    init_cpu(0);
}

/// Tells who `cpu` is before it starts.
pub(super) fn set_cpu_mpidr(cpu: usize, mpidr: u64) {
    gic().set_cpu_mpidr(cpu, mpidr);
}

/// Opens this CPU to interrupts: inter-processor ones and its timer's.
pub(super) fn init_cpu(cpu: usize) {
    gic().init_cpu(cpu, &[SGI_IPI, SGI_STOP, machine::timer_intid()]);
}

fn gic() -> &'static Gic {
    GIC.get().expect("interrupt controller not set up")
}

/// Services every interrupt pending on this CPU, then returns.
#[inline]
pub fn service_pending() {
    if is_pending() {
        service();
    }
}

/// Whether an interrupt is pending on this CPU.
#[inline(always)]
pub fn is_pending() -> bool {
    let isr: u64;
    // SAFETY: a register read.
    unsafe { asm!("mrs {}, isr_el1", out(reg) isr, options(nomem, nostack, preserves_flags)) };
    isr != 0
}

/// Bits of the interrupt acknowledge register: an INTID, and with GICv2 the sending CPU above it.
const INTID: u32 = 0x3ff;
/// INTIDs from here on mean: nothing.
const SPECIAL: u32 = 1020;

#[cold]
#[inline(never)]
fn service() {
    let Some(gic) = GIC.get() else { return };
    loop {
        let token = gic.acknowledge();
        let intid = token & INTID;
        if intid >= SPECIAL {
            return;
        }
        dispatch(intid);
        gic.end(token);
    }
}

fn dispatch(intid: u32) {
    if intid == machine::timer_intid() {
        timer::interrupt();
    } else if intid == SGI_IPI {
        (hooks().ipi)();
    } else if intid == SGI_STOP {
        super::halt();
    } else if let Some(handler) = HANDLERS.get().and_then(|all| all.get(intid as usize)).and_then(|one| one.get()) {
        (handler.call)(handler.arg);
    } else {
        log::warn!("interrupt {intid} on CPU {} has no handler: disabled", cpu_id());
        gic().disable(intid);
    }
}

/// Sleeps (WFI) until an interrupt is pending on this CPU; returns at once if one is. Does not service it.
#[inline]
pub fn wait() {
    // SAFETY: a hint. The ISB makes earlier timer writes count.
    unsafe { asm!("isb", "dsb sy", "wfi", options(nostack, preserves_flags)) }
}

/// Makes `cpu` leave user mode or WFI and call its `ipi` hook. Repeated sends may coalesce.
#[inline]
pub fn send_ipi(cpu: usize) {
    gic().send_sgi(cpu, SGI_IPI);
}

/// Routes device interrupt `intid` to `cpu` and calls `handler(arg)` for each occurrence. Level-triggered
/// sources must be quieted by the handler. One handler per line: `drivers::irq` shares lines.
pub fn register(intid: u32, cpu: usize, handler: fn(usize), arg: usize) {
    let slot = HANDLERS.get().and_then(|all| all.get(intid as usize));
    let Some(slot) = slot else {
        log::error!("interrupt {intid} does not exist here");
        return;
    };
    if slot.is_completed() {
        log::error!("interrupt {intid} has a handler already");
        return;
    }
    slot.call_once(|| Handler { call: handler, arg });
    gic().enable(intid, cpu, is_edge(intid));
}

static EDGE: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];

/// Remembers that the device tree calls `intid` edge-triggered.
pub(super) fn set_edge(intid: u32) {
    if let Some(word) = EDGE.get(intid as usize / 64) {
        word.fetch_or(1 << (intid % 64), Ordering::Relaxed);
    }
}

fn is_edge(intid: u32) -> bool {
    EDGE.get(intid as usize / 64).is_some_and(|word| word.load(Ordering::Relaxed) & 1 << (intid % 64) != 0)
}

/// Stops all other CPUs (panic). Those that spin see it themselves (`spin_hint`).
pub(super) fn stop_others() {
    if let Some(gic) = GIC.get() {
        for cpu in (0..super::cpu_count()).filter(|&cpu| cpu != cpu_id()) {
            gic.send_sgi(cpu, SGI_STOP);
        }
    }
}
