//! What the device tree says about the machine.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

/// A memory-mapped device: physical base, size in bytes, and interrupt (GIC INTID) if it has one.
#[derive(Clone, Copy, Debug)]
pub struct MmioDevice {
    pub base: u64,
    pub size: u64,
    pub irq: Option<u32>,
}

/// A PCIe host bridge with memory-mapped configuration space (ECAM).
#[derive(Clone, Debug)]
pub struct PciHost {
    pub ecam: Range<u64>,
    /// 32-bit and 64-bit memory windows: (PCI address, CPU address, size).
    pub windows: Vec<(u64, u64, u64)>,
    /// Interrupts of INTA–INTD by slot: `irqs[(device + pin - 1) % 4]` with pin 1–4 (INTIDs).
    pub irqs: [u32; 4],
    pub bus_end: u8,
}

#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub model: String,
    /// RAM as given by firmware, before anything is reserved.
    pub memory: Vec<Range<u64>>,
    /// Parts of `memory` that must not be handed out: kernel image, device tree, initrd, /reserved-memory.
    pub reserved: Vec<Range<u64>>,
    pub cmdline: String,
    pub initrd: Option<Range<u64>>,
    pub virtio_mmio: Vec<MmioDevice>,
    pub pci: Option<PciHost>,
    pub uart: Option<MmioDevice>,
    pub rtc: Option<MmioDevice>,
    /// Seed from firmware for the random pool.
    pub rng_seed: Vec<u8>,
    pub cpu_count: usize,
}
