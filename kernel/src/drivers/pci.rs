//! PCI: configuration space through ECAM, placement of memory BARs, INTx routing.
//!
//! Firmware may have left the bus unconfigured (QEMU without firmware does), so every memory BAR that is outside of
//! the host's windows is placed here. Only bus 0 is scanned: bridges are not entered.

use core::ptr::NonNull;

use virtio_drivers::transport::pci::bus::{
    BarInfo, Command, ConfigurationAccess, DeviceFunction, MemoryBarType, PciRoot,
};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};

use super::virtio::{self, KernelHal};
use crate::arch::{self, PciHost};

const INTERRUPT_LINE_OFFSET: u8 = 0x3c;
/// Configuration space of the 256 functions of one bus.
const BUS_ECAM_SIZE: u64 = 1 << 20;
const MMIO_PAGE: u64 = 4096;

/// Configuration space of bus 0.
#[derive(Clone, Copy)]
struct Ecam(NonNull<u32>);

impl Ecam {
    fn register(&self, function: DeviceFunction, offset: u8) -> Option<NonNull<u32>> {
        if function.bus != 0 || !function.valid() {
            return None;
        }
        let byte = ((function.device as usize) << 15) | ((function.function as usize) << 12) | (offset as usize & 0xfc);
        // SAFETY: device < 32 and function < 8, so the offset is inside the 1 MiB that is mapped.
        Some(unsafe { self.0.byte_add(byte) })
    }
}

impl ConfigurationAccess for Ecam {
    fn read_word(&self, function: DeviceFunction, offset: u8) -> u32 {
        // SAFETY: a mapped configuration register; reads of them have no effect on memory.
        self.register(function, offset).map_or(u32::MAX, |register| unsafe { register.read_volatile() })
    }

    fn write_word(&mut self, function: DeviceFunction, offset: u8, data: u32) {
        if let Some(register) = self.register(function, offset) {
            // SAFETY: a mapped configuration register; the devices' DMA is off until their drivers set it up.
            unsafe { register.write_volatile(data) }
        }
    }

    unsafe fn unsafe_clone(&self) -> Self {
        *self
    }
}

/// Hands out addresses for BARs from the host's windows.
struct Windows {
    /// Next free and end address on the PCI side.
    free: alloc::vec::Vec<(u64, u64)>,
}

impl Windows {
    fn new(host: &PciHost) -> Windows {
        // Address 0 means "not placed" in a BAR, so it is never handed out.
        let mut free = alloc::vec::Vec::new();
        for &(pci, _, size) in &host.windows {
            let window = (pci.max(MMIO_PAGE), pci.saturating_add(size));
            free.insert(free.partition_point(|other| *other < window), window);
        }
        Windows { free }
    }

    fn contains(&self, host: &PciHost, address: u64, size: u64) -> bool {
        address != 0
            && host.windows.iter().any(|&(pci, _, len)| address >= pci && address + size <= pci.saturating_add(len))
    }

    fn take(&mut self, size: u64, limit: u64) -> Option<u64> {
        // A page at least, so that two devices never share one.
        let align = size.max(MMIO_PAGE).next_power_of_two();
        for (next, end) in &mut self.free {
            let address = next.checked_next_multiple_of(align)?;
            let after = address.checked_add(align)?;
            if after <= *end && after <= limit {
                *next = after;
                return Some(address);
            }
        }
        None
    }
}

/// Translates an address on the PCI bus to the CPU's view.
pub fn bus_to_cpu(address: u64) -> u64 {
    let Some(host) = &arch::machine().pci else { return address };
    let window = host.windows.iter().find(|&&(pci, _, size)| address >= pci && address - pci < size);
    window.map_or(address, |&(pci, cpu, _)| cpu + (address - pci))
}

/// Finds and starts the virtio devices of bus 0, in ascending device order.
pub fn probe() {
    let Some(host) = &arch::machine().pci else { return };
    let size = (host.ecam.end - host.ecam.start).min(BUS_ECAM_SIZE);
    if size < BUS_ECAM_SIZE {
        log::warn!("pci: configuration space of {size} bytes is less than one bus");
        return;
    }
    let Some(base) = NonNull::new(arch::paging::map_mmio(host.ecam.start, size).cast::<u32>()) else { return };
    let ecam = Ecam(base);
    let mut root = PciRoot::new(ecam);
    let mut windows = Windows::new(host);
    let found: alloc::vec::Vec<_> = root.enumerate_bus(0).collect();
    for (function, info) in found {
        if virtio_device_type(&info).is_none() {
            continue;
        }
        place_bars(&mut root, &mut windows, host, function);
        let irq = interrupt(&ecam, host, function);
        match PciTransport::new::<KernelHal, _>(&mut root, function) {
            Ok(transport) => virtio::start(transport.into(), irq),
            Err(error) => log::warn!("pci {function}: {error}"),
        }
    }
}

fn interrupt(ecam: &Ecam, host: &PciHost, function: DeviceFunction) -> Option<u32> {
    let pin = (ecam.read_word(function, INTERRUPT_LINE_OFFSET) >> 8) & 0xff;
    (1..=4).contains(&pin).then(|| host.irqs[(function.device as usize + pin as usize - 1) % 4])
}

fn place_bars(root: &mut PciRoot<Ecam>, windows: &mut Windows, host: &PciHost, function: DeviceFunction) {
    let mut index = 0;
    while index < 6 {
        let info = root.bar_info(function, index).ok().flatten();
        if let Some(BarInfo::Memory { address_type, address, size, .. }) = &info
            && *size != 0
            && !windows.contains(host, *address, *size)
        {
            let wide = *address_type == MemoryBarType::Width64;
            match windows.take(*size, if wide { u64::MAX } else { 1 << 32 }) {
                Some(place) if wide => root.set_bar_64(function, index, place),
                Some(place) => root.set_bar_32(function, index, place as u32),
                None => log::warn!("pci {function}: no room for BAR {index} of {size} bytes"),
            }
        }
        index += if info.is_some_and(|info| info.takes_two_entries()) { 2 } else { 1 };
    }
    root.set_command(function, Command::MEMORY_SPACE | Command::BUS_MASTER);
}
