//! The interrupt controller, version 2 or 3, on top of `arm-gic`.
//!
//! `arm-gic` sets up distributor and redistributors. Its GICv2 driver wants `&mut` even for the banked CPU
//! interface and knows no interrupt targets, so those few registers are accessed here (docs/decisions/010-interrupt-controller.md).

use super::machine::{GicInfo, GicRegs};
use super::{cpu_id, paging};
use crate::arch::MAX_CPUS;
use crate::sync::SpinLock;
use arm_gic::gicv2::GicV2;
use arm_gic::gicv3::{GicCpuInterface, GicV3, SgiTarget, SgiTargetGroup};
use arm_gic::{IntId, InterruptGroup, Trigger, UniqueMmioPointer};
use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

pub struct Gic {
    kind: Kind,
    lines: usize,
    mpidrs: [AtomicU64; MAX_CPUS],
}

enum Kind {
    V2 { distributor: SpinLock<Shared<GicV2<'static>>>, gicd: usize, gicc: usize, targets: [AtomicU8; MAX_CPUS] },
    V3 { gic: SpinLock<Shared<GicV3<'static>>>, redistributors: [AtomicUsize; MAX_CPUS] },
}

/// The drivers hold raw pointers to registers, which every CPU may access.
struct Shared<T>(T);
// SAFETY: the pointers are to memory-mapped registers of the machine, valid on every CPU for ever.
unsafe impl<T> Send for Shared<T> {}

/// Offsets of GICv2 registers (Arm IHI 0048).
mod v2 {
    pub const GICD_ITARGETSR: usize = 0x800;
    pub const GICD_SGIR: usize = 0xf00;
    pub const GICC_CTLR: usize = 0x00;
    pub const GICC_PMR: usize = 0x04;
    pub const GICC_IAR: usize = 0x0c;
    pub const GICC_EOIR: usize = 0x10;
}

impl Gic {
    pub fn new(info: &GicInfo) -> Gic {
        let gicd = paging::map_mmio(info.distributor.start, info.distributor.end - info.distributor.start);
        let (kind, lines) = match &info.regs {
            GicRegs::V2(cpu) => new_v2(gicd, paging::map_mmio(cpu.start, cpu.end - cpu.start)),
            GicRegs::V3(redist) => {
                new_v3(gicd, paging::map_mmio(redist.start, redist.end - redist.start), info.cpu_count)
            }
        };
        Gic { kind, lines, mpidrs: [const { AtomicU64::new(0) }; MAX_CPUS] }
    }

    /// INTIDs from 0 to here exist.
    pub fn lines(&self) -> usize {
        self.lines
    }

    pub fn set_cpu_mpidr(&self, cpu: usize, mpidr: u64) {
        self.mpidrs[cpu].store(mpidr, Ordering::Relaxed);
        let Kind::V3 { gic, redistributors } = &self.kind else { return };
        let mut gic = gic.lock();
        let found = (0..).map_while(|index| Some((index, gic.0.gicr_typer(index).ok()?.core_mpidr())));
        for (index, core) in found {
            if core == mpidr {
                redistributors[cpu].store(index, Ordering::Relaxed);
                return;
            }
        }
        log::error!("no redistributor for CPU {cpu} (MPIDR {mpidr:#x})");
    }

    /// To be called on `cpu` itself: opens its interface and enables `private` interrupts.
    pub fn init_cpu(&self, cpu: usize, private: &[u32]) {
        match &self.kind {
            Kind::V2 { distributor, gicd, gicc, targets } => {
                // Each CPU reads its own bit in the targets of the private interrupts.
                // SAFETY: registers of the GIC, see `new_v2`; so below.
                let own = unsafe { ((gicd + v2::GICD_ITARGETSR) as *const u32).read_volatile() };
                targets[cpu].store((own | own >> 8 | own >> 16 | own >> 24) as u8, Ordering::Relaxed);
                for &intid in private {
                    // SGIs are enabled for good in some implementations: refusal is no error.
                    let _ = distributor.lock().0.enable_interrupt(intid_of(intid), true);
                }
                // SAFETY: as above.
                unsafe {
                    ((gicc + v2::GICC_PMR) as *mut u32).write_volatile(0xff);
                    ((gicc + v2::GICC_CTLR) as *mut u32).write_volatile(1);
                }
            }
            Kind::V3 { gic, redistributors } => {
                let index = redistributors[cpu].load(Ordering::Relaxed);
                let mut gic = gic.lock();
                gic.0.init_cpu(index);
                for &intid in private {
                    if let Err(error) = gic.0.enable_interrupt(intid_of(intid), Some(index), true) {
                        log::error!("interrupt {intid}: {error:?}");
                    }
                }
                GicCpuInterface::set_priority_mask(0xff);
                GicCpuInterface::enable_group1(true);
            }
        }
    }

    /// Answers the raw acknowledge value, to be given back to [`Gic::end`].
    #[inline]
    pub fn acknowledge(&self) -> u32 {
        match &self.kind {
            // SAFETY: a banked register of this CPU's interface.
            Kind::V2 { gicc, .. } => unsafe { ((gicc + v2::GICC_IAR) as *const u32).read_volatile() },
            Kind::V3 { .. } => {
                let intid = GicCpuInterface::get_and_acknowledge_interrupt(InterruptGroup::Group1);
                // SAFETY: a barrier: the handler's accesses come after the acknowledgement.
                unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
                intid.map_or(1023, |intid| intid.raw_value())
            }
        }
    }

    #[inline]
    pub fn end(&self, token: u32) {
        match &self.kind {
            // SAFETY: as in `acknowledge`.
            Kind::V2 { gicc, .. } => unsafe { ((gicc + v2::GICC_EOIR) as *mut u32).write_volatile(token) },
            Kind::V3 { .. } => GicCpuInterface::end_interrupt(intid_of(token), InterruptGroup::Group1),
        }
    }

    pub fn send_sgi(&self, cpu: usize, sgi: u32) {
        // SAFETY: a barrier: what was written before is visible to the CPU that takes the interrupt.
        unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) };
        match &self.kind {
            Kind::V2 { gicd, targets, .. } => {
                let target = targets[cpu].load(Ordering::Relaxed) as u32;
                // SAFETY: a write-only register that needs no lock.
                unsafe { ((gicd + v2::GICD_SGIR) as *mut u32).write_volatile(target << 16 | sgi) }
            }
            Kind::V3 { .. } => {
                let mpidr = self.mpidrs[cpu].load(Ordering::Relaxed);
                // CPUs beyond 16 per cluster would need the range selector; MAX_CPUS is below that.
                let target = SgiTarget::List {
                    affinity3: (mpidr >> 32) as u8,
                    affinity2: (mpidr >> 16) as u8,
                    affinity1: (mpidr >> 8) as u8,
                    target_list: 1 << (mpidr & 15),
                };
                let _ = GicCpuInterface::send_sgi(IntId::sgi(sgi), target, SgiTargetGroup::CurrentGroup1);
                // SAFETY: a barrier: the SGI leaves now.
                unsafe { asm!("isb", options(nostack, preserves_flags)) };
            }
        }
    }

    /// Routes a shared interrupt to `cpu` and enables it.
    pub fn enable(&self, intid: u32, cpu: usize, edge: bool) {
        let id = intid_of(intid);
        let trigger = if edge { Trigger::Edge } else { Trigger::Level };
        match &self.kind {
            Kind::V2 { distributor, gicd, targets, .. } => {
                let mut distributor = distributor.lock();
                distributor.0.set_trigger(id, trigger);
                // SAFETY: byte-accessible registers of the distributor, under its lock.
                unsafe {
                    let target = (gicd + v2::GICD_ITARGETSR + intid as usize) as *mut u8;
                    target.write_volatile(targets[cpu].load(Ordering::Relaxed));
                }
                if let Err(error) = distributor.0.enable_interrupt(id, true) {
                    log::error!("interrupt {intid}: {error:?}");
                }
            }
            Kind::V3 { gic, .. } => {
                let mut gic = gic.lock();
                let mpidr = self.mpidrs[cpu].load(Ordering::Relaxed);
                let result = gic.0.set_trigger(id, None, trigger);
                let result = result.and_then(|()| gic.0.distributor().set_routing(id, Some(mpidr)));
                if let Err(error) = result.and_then(|()| gic.0.enable_interrupt(id, None, true)) {
                    log::error!("interrupt {intid}: {error:?}");
                }
            }
        }
    }

    pub fn disable(&self, intid: u32) {
        let id = intid_of(intid);
        match &self.kind {
            Kind::V2 { distributor, .. } => {
                let _ = distributor.lock().0.enable_interrupt(id, false);
            }
            Kind::V3 { gic, redistributors } => {
                let index = redistributors[cpu_id()].load(Ordering::Relaxed);
                let _ = gic.lock().0.enable_interrupt(id, Some(index), false);
            }
        }
    }
}

fn new_v2(gicd: *mut u8, gicc: *mut u8) -> (Kind, usize) {
    // SAFETY: the device tree says that a GICv2 is there; mapped as device memory for good. The registers that
    // this file accesses itself are not touched by the driver after `setup`.
    let mut driver = unsafe { GicV2::new(gicd.cast(), gicc.cast()) };
    driver.setup();
    // With security extensions seen from the non-secure side, bit 0 is what enables group 1.
    driver.enable_group0(true);
    let lines = driver.typer().num_irqs() as usize;
    let kind = Kind::V2 {
        distributor: SpinLock::new(Shared(driver)),
        gicd: gicd as usize,
        gicc: gicc as usize,
        targets: [const { AtomicU8::new(0) }; MAX_CPUS],
    };
    (kind, lines.min(1020))
}

fn new_v3(gicd: *mut u8, gicr: *mut u8, cpu_count: usize) -> (Kind, usize) {
    let gicd = NonNull::new(gicd.cast()).expect("mapped");
    let gicr = NonNull::new(gicr.cast()).expect("mapped");
    // SAFETY: as in `new_v2`, for a GICv3.
    let driver = unsafe { GicV3::new(UniqueMmioPointer::new(gicd), gicr, cpu_count) };
    let mut driver = driver.expect("GICv3 without redistributors");
    driver.setup(0);
    let lines = 32 + driver.typer().num_spis() as usize;
    let kind =
        Kind::V3 { gic: SpinLock::new(Shared(driver)), redistributors: [const { AtomicUsize::new(0) }; MAX_CPUS] };
    (kind, lines.min(1020))
}

fn intid_of(raw: u32) -> IntId {
    // IntId has no constructor from a raw number of unknown kind.
    match raw {
        0..16 => IntId::sgi(raw),
        16..32 => IntId::ppi(raw - 16),
        _ => IntId::spi((raw - 32).min(IntId::MAX_SPI_COUNT - 1)),
    }
}
