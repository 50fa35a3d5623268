//! Interrupt lines with any number of devices on them.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::arch;
use crate::sync::SpinLock;

/// A device that interrupts. The service routine quiets the device and completes what it has finished; it must do
/// nothing, and must be cheap, if another device of the line was the cause.
pub trait Interrupt: Send + Sync {
    fn service(&self);
}

struct Line {
    intid: u32,
    devices: Vec<Arc<dyn Interrupt>>,
}

static LINES: SpinLock<Vec<Line>> = SpinLock::new(Vec::new());

/// Calls `device` for every interrupt on line `intid`.
pub fn attach(intid: u32, device: Arc<dyn Interrupt>) {
    let mut lines = LINES.lock();
    if let Some(line) = lines.iter_mut().find(|line| line.intid == intid) {
        line.devices.push(device);
        return;
    }
    lines.push(Line { intid, devices: vec![device] });
    drop(lines);
    arch::irq::register(intid, 0, service, intid as usize);
}

fn service(intid: usize) {
    let mut index = 0;
    // The lock is not held over the service routine, which wakes tasks.
    while let Some(device) = nth(intid, index) {
        device.service();
        index += 1;
    }
}

fn nth(intid: usize, index: usize) -> Option<Arc<dyn Interrupt>> {
    let lines = LINES.lock();
    let line = lines.iter().find(|line| line.intid as usize == intid)?;
    line.devices.get(index).cloned()
}
