//! The device tree with a heap at hand: [`Machine`] for the generic kernel, and what only this folder needs.

use super::devtree::{self, cells, enabled, number, regs};
use super::layout::PAGE_SIZE;
use super::{irq, paging};
use crate::arch::{MAX_CPUS, Machine, MmioDevice, PciHost};
use aarch64_cpu::registers::{MPIDR_EL1, Readable};
use alloc::string::ToString;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use spin::Once;

/// The affinity fields of MPIDR_EL1.
pub const MPIDR_MASK: u64 = 0xff_00ff_ffff;

pub struct GicInfo {
    pub distributor: Range<u64>,
    pub regs: GicRegs,
    pub cpu_count: usize,
}

pub enum GicRegs {
    /// The CPU interface.
    V2(Range<u64>),
    /// The redistributors.
    V3(Range<u64>),
}

static MACHINE: Once<Machine> = Once::new();
static GIC: Once<GicInfo> = Once::new();
static MPIDRS: Once<Vec<u64>> = Once::new();
/// The usual number unless the device tree differs.
static TIMER_INTID: AtomicU32 = AtomicU32::new(27);
/// Where the PL031 is mapped; 0 for none.
static RTC: AtomicUsize = AtomicUsize::new(0);

/// The machine; available from [`init_devices`] on.
pub fn machine() -> &'static Machine {
    MACHINE.get().expect("arch::init_devices has not run")
}

pub fn gic_info() -> &'static GicInfo {
    GIC.get().expect("no interrupt controller in the device tree")
}

/// Of every CPU that may be started, the boot CPU first.
pub fn mpidrs() -> &'static [u64] {
    MPIDRS.get().map_or(&[], Vec::as_slice)
}

#[inline]
pub fn timer_intid() -> u32 {
    TIMER_INTID.load(Ordering::Relaxed)
}

/// The second step of starting, once the heap works: describes the machine, sets up interrupts and the clock.
pub fn init_devices() {
    let early = devtree::early();
    assert!(!early.dtb.is_empty(), "no device tree");
    // SAFETY: the tree lies in RAM that is reserved, and RAM is in the linear map. It was validated before.
    let fdt = unsafe { Fdt::from_raw_unchecked(paging::phys_to_virt(early.dtb.start)) };
    MPIDRS.call_once(|| read_cpus(&fdt));
    let devices = Devices::read(&fdt);
    let machine = MACHINE.call_once(|| read_machine(&fdt, &devices, early));
    if let Some(info) = read_gic(&devices) {
        GIC.call_once(|| info);
    }
    if let Some(intid) = read_timer(&devices) {
        TIMER_INTID.store(intid, Ordering::Relaxed);
    }
    if let Some(rtc) = &machine.rtc {
        RTC.store(paging::map_mmio(rtc.base, rtc.size.max(PAGE_SIZE)) as usize, Ordering::Relaxed);
    }
    irq::init();
}

/// Seconds since 1970 from the battery-backed clock, if there is one.
pub fn rtc_seconds() -> Option<u64> {
    let base = RTC.load(Ordering::Relaxed);
    // SAFETY: RTCDR of the PL031, mapped for good.
    (base != 0).then(|| unsafe { (base as *const u32).read_volatile() } as u64)
}

fn read_machine(fdt: &Fdt<'static>, devices: &Devices, early: &devtree::Early) -> Machine {
    let chosen = fdt.find_node("/chosen");
    let string = |node: &FdtNode<'static>, name: &str| {
        let value = node.property(name).and_then(|property| property.value_as::<&str>().ok());
        value.unwrap_or_default().to_string()
    };
    let mut virtio_mmio = Vec::<MmioDevice>::new();
    for device in devices.compatible("virtio,mmio").filter_map(device) {
        virtio_mmio.insert(virtio_mmio.partition_point(|other| other.base < device.base), device);
    }
    let bytes = |name: &str| {
        let property = chosen.and_then(|chosen| chosen.property(name));
        property.and_then(|seed| seed.value_as::<&'static [u8]>().ok()).unwrap_or(&[])
    };
    Machine {
        model: string(&fdt.root(), "model"),
        memory: early.memory.to_vec(),
        reserved: early.reserved.to_vec(),
        cmdline: chosen.map(|chosen| string(&chosen, "bootargs")).unwrap_or_default(),
        initrd: early.initrd.clone(),
        virtio_mmio,
        pci: devices.compatible("pci-host-ecam-generic").find_map(|node| read_pci(devices, node)),
        uart: early.uart.as_ref().and_then(|uart| {
            devices.compatible("arm,pl011").filter_map(device).find(|device| device.base == uart.start)
        }),
        rtc: devices.compatible("arm,pl031").find_map(device),
        rng_seed: [bytes("rng-seed"), bytes("kaslr-seed")].concat(),
        cpu_count: mpidrs().len(),
    }
}

/// The nodes directly below the root or one bus below it, with their `compatible`: walking the tree is slow.
struct Devices(Vec<(FdtNode<'static>, &'static [u8])>);

impl Devices {
    fn read(fdt: &Fdt<'static>) -> Devices {
        let all = fdt.root().children().flat_map(|node| core::iter::once(node).chain(node.children()));
        let named = all.filter_map(|node| Some((node, node.property("compatible")?.value_as().ok()?)));
        Devices(named.collect())
    }

    /// Enabled nodes of that kind.
    fn compatible(&self, kind: &'static str) -> impl Iterator<Item = FdtNode<'static>> {
        let of_kind =
            self.0.iter().filter(move |(_, kinds)| kinds.split(|&byte| byte == 0).any(|k| k == kind.as_bytes()));
        of_kind.map(|(node, _)| *node).filter(enabled)
    }
}

fn device(node: FdtNode<'static>) -> Option<MmioDevice> {
    let range = regs(node).next()?;
    Some(MmioDevice { base: range.start, size: range.end - range.start, irq: interrupts(&node).next() })
}

/// The INTIDs of a node's `interrupts` (three cells each: kind, number, trigger).
fn interrupts(node: &FdtNode<'static>) -> impl Iterator<Item = u32> {
    let all: Vec<u32> = cells(node, "interrupts").collect();
    let count = all.len() / 3;
    (0..count).map(move |i| intid(&all[3 * i..3 * i + 3]))
}

fn intid(specifier: &[u32]) -> u32 {
    let intid = specifier[1].saturating_add(if specifier[0] == 0 { 32 } else { 16 });
    // Bits 0 and 1: rising or falling edge.
    if specifier[2] & 3 != 0 {
        irq::set_edge(intid);
    }
    intid
}

fn read_cpus(fdt: &Fdt<'static>) -> Vec<u64> {
    let boot = MPIDR_EL1.get() & MPIDR_MASK;
    let mut all = vec![boot];
    let nodes = fdt.find_node("/cpus").into_iter().flat_map(|cpus| cpus.children());
    for node in nodes.filter(|node| node.name_without_address() == "cpu" && enabled(node)) {
        // The ID has one or two cells; a CPU has no size.
        let id = cells(&node, "reg").fold(0, |id, cell| id << 32 | cell as u64) & MPIDR_MASK;
        if id != boot && all.len() < MAX_CPUS {
            all.push(id);
        }
    }
    all
}

fn read_gic(devices: &Devices) -> Option<GicInfo> {
    let v3 = devices.compatible("arm,gic-v3").next();
    let is_v2 = |kind| devices.compatible(kind).next();
    let node = v3.or_else(|| is_v2("arm,cortex-a15-gic")).or_else(|| is_v2("arm,gic-400"))?;
    let mut regs = regs(node);
    let distributor = regs.next()?;
    let second = regs.next()?;
    let regs = if v3.is_some() { GicRegs::V3(second) } else { GicRegs::V2(second) };
    Some(GicInfo { distributor, regs, cpu_count: mpidrs().len() })
}

/// INTID of the virtual timer, the third of the timer node's interrupts.
fn read_timer(devices: &Devices) -> Option<u32> {
    let node = devices.compatible("arm,armv8-timer").next()?;
    interrupts(&node).nth(2)
}

fn read_pci(devices: &Devices, node: FdtNode<'static>) -> Option<PciHost> {
    let ecam = regs(node).next()?;
    let bus_end = cells(&node, "bus-range").nth(1).unwrap_or(255).min(255) as u8;
    let ranges: Vec<u32> = cells(&node, "ranges").collect();
    let pair = |high: u32, low: u32| (high as u64) << 32 | low as u64;
    // Child address (3 cells: kind, high, low), CPU address (2), size (2). Kinds 2 and 3: 32- and 64-bit memory.
    let windows = ranges.chunks_exact(7).filter(|range| range[0] >> 24 & 3 >= 2);
    let windows = windows.map(|r| (pair(r[1], r[2]), pair(r[3], r[4]), pair(r[5], r[6]))).collect();
    Some(PciHost { ecam, windows, irqs: pci_irqs(devices, &node), bus_end })
}

/// From `interrupt-map`: (device, pin) to interrupt, turning by one from slot to slot.
fn pci_irqs(devices: &Devices, node: &FdtNode<'static>) -> [u32; 4] {
    let mut irqs = [0; 4];
    let map: Vec<u32> = cells(node, "interrupt-map").collect();
    // Child address (3), pin (1), phandle of the controller (1), its address (so many cells), specifier (3).
    let parent = devices.compatible("arm,gic-v3").chain(devices.compatible("arm,cortex-a15-gic")).next();
    let parent_cells = parent.and_then(|gic| number(&gic, "#address-cells")).unwrap_or(0) as usize;
    for entry in map.chunks_exact(8 + parent_cells.min(2)) {
        let slot = entry[0] as usize >> 11 & 31;
        let pin = entry[3] as usize;
        if (1..=4).contains(&pin) {
            irqs[(slot + pin - 1) % 4] = intid(&entry[entry.len() - 3..]);
        }
    }
    irqs
}
