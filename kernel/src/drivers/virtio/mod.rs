//! Virtio devices over MMIO (legacy and modern) and PCI.
//!
//! The public `virtio-drivers` crate speaks the transports and the rings; the device drivers are our own, because they
//! have to be driven by interrupts, to carry scatter-gather lists and to flush without waiting in place.

mod blk;
mod hal;
mod net;
mod net_header;
mod p9;
pub mod rng;

use core::ptr::NonNull;

use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};
use virtio_drivers::transport::{DeviceType, SomeTransport, Transport};

use crate::arch;

pub use hal::KernelHal;

const MAGIC: u32 = 0x7472_6976;

/// Starts the devices behind the virtio-mmio slots. An empty slot has device type 0.
pub fn probe_mmio() {
    for slot in &arch::machine().virtio_mmio {
        let base = arch::paging::map_mmio(slot.base, slot.size);
        let Some(header) = NonNull::new(base.cast::<VirtIOHeader>()) else { continue };
        // SAFETY: the device tree says that a virtio-mmio transport is here, and the mapping is never removed.
        // Offset 0 is the magic number, offset 8 the device type (virtio 1.1, 4.2.2).
        let (magic, kind) = unsafe { (base.cast::<u32>().read_volatile(), base.cast::<u32>().add(2).read_volatile()) };
        if magic != MAGIC || kind == 0 {
            continue;
        }
        // SAFETY: as above; nobody else uses the region.
        match unsafe { MmioTransport::new(header, slot.size as usize) } {
            Ok(transport) => start(transport.into(), slot.irq),
            Err(error) => log::warn!("virtio-mmio {:#x}: {error}", slot.base),
        }
    }
}

/// Starts the driver for a device, if there is one; otherwise the device stays in reset.
pub fn start(transport: SomeTransport<'static>, irq: Option<u32>) {
    let kind = transport.device_type();
    let result = match kind {
        DeviceType::Block => blk::start(transport, irq),
        DeviceType::_9P => p9::start(transport, irq),
        DeviceType::EntropySource => rng::start(transport, irq),
        DeviceType::Network => net::start(transport, irq),
        _ => return,
    };
    if let Err(error) = result {
        log::warn!("virtio {kind:?}: {error}");
    }
}
