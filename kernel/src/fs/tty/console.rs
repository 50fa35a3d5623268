//! The serial console: ttyAMA0 on the PL011, and what /dev/console and /dev/tty mean.
//!
//! Received bytes go from the interrupt into a ring; one kernel task takes them from there through the line
//! discipline, so the interrupt neither allocates nor waits for a lock.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;
use crossbeam_queue::ArrayQueue;
use linux_raw_sys::general as raw;

use super::terminal::{Tty, TtyDriver};
use super::termios::Termios;
use crate::arch;
use crate::exec::{self, WaitQueue};
use crate::fs::inode::DeviceId;
use crate::sync::{Lazy, Once};
use crate::sysrq;

pub const TTY_AMA0: DeviceId = DeviceId::new(204, 64);
pub const DEV_TTY: DeviceId = DeviceId::new(5, 0);
pub const DEV_CONSOLE: DeviceId = DeviceId::new(5, 1);

/// Bytes between the interrupt and the discipline; more are lost, like in a UART without flow control.
const RING: usize = 4096;

static CONSOLE: Once<Arc<Tty>> = Once::new();
static RECEIVED: Lazy<ArrayQueue<u8>> = Lazy::new(|| ArrayQueue::new(RING));
/// Woken when a byte came, and when there is room for input again.
static INPUT: WaitQueue = WaitQueue::new();

struct Serial;

impl TtyDriver for Serial {
    /// The UART drains faster than anybody types; a host that does not read its side stops the virtual CPU anyway.
    fn write(&self, bytes: &[u8]) -> usize {
        arch::console::write(bytes);
        bytes.len()
    }

    fn input_wanted(&self) {
        if !RECEIVED.is_empty() {
            INPUT.wake_all();
        }
    }

    /// What the PL011 driver of Linux raises on open.
    fn modem_lines(&self) -> Option<u32> {
        Some(raw::TIOCM_DTR | raw::TIOCM_RTS)
    }

    /// Rate and frame of the wire stay as firmware set them up; what is asked for is remembered only. Mark and space parity
    /// are refused, as Linux's driver does.
    fn adjust(&self, termios: &mut Termios) {
        termios.cflag &= !raw::CMSPAR;
    }
}

/// ttyAMA0. Input begins when it is asked for first: by the first open.
pub fn tty() -> &'static Arc<Tty> {
    CONSOLE.call_once(|| {
        let tty = Tty::new(TTY_AMA0, "ttyAMA0".to_string(), Box::new(Serial), Termios::serial());
        start_input(tty.clone());
        tty
    })
}

fn start_input(tty: Arc<Tty>) {
    Lazy::force(&RECEIVED);
    exec::spawn("ttyAMA0", async move {
        loop {
            INPUT.wait_for(|| (!RECEIVED.is_empty() && tty.lock().discipline.has_room()).then_some(())).await;
            tty.receive(|| RECEIVED.pop());
            exec::budget().await;
        }
    });
    if let Some(irq) = arch::machine().uart.and_then(|uart| uart.irq) {
        arch::console::enable_rx(irq, received, sysrq::key_after_break);
    }
}

fn received(byte: u8) {
    let _ = RECEIVED.push(byte);
    INPUT.wake_all();
}
