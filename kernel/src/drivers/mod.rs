//! Device drivers.
//!
//! [`probe`] walks the device tree's virtio-mmio slots and the PCI bus in the order in which Linux numbers devices
//! (ascending address, ascending device number), starts a driver for each device it knows, and registers disks with
//! [`crate::fs::block`]. Interrupt lines may be shared: [`irq`] calls every device of a line.

pub mod irq;
pub mod pci;
pub mod random;
pub mod virtio;

pub use virtio::rng;

/// Finds and starts all devices. Needs the frame allocator and the heap; runs once, on the boot CPU.
pub fn probe() {
    virtio::probe_mmio();
    pci::probe();
    if rng::present() {
        crate::exec::spawn("hwrng", async {
            let mut seed = [0; 64];
            let len = rng::read(&mut seed).await;
            random::mix(seed.get(..len).unwrap_or(&[]));
        });
    }
}
