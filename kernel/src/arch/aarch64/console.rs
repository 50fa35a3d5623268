//! The PL011 of the device tree's `stdout-path`: polled output, and input by interrupt.

use super::{devtree, irq, paging};
use crate::sync::SpinLock;
use arm_pl011_uart::{DataBits, Error, Interrupts, LineConfig, Parity, StopBits, Uart, UniqueMmioPointer};
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use spin::Once;

static UART: SpinLock<Option<Uart<'static>>> = SpinLock::new(None);
static RX_HANDLER: Once<fn(u8)> = Once::new();
/// Is given the byte after a break first, and says whether it was for it.
static BREAK_HANDLER: Once<fn(u8) -> bool> = Once::new();
/// Until when (ns) a byte counts as the one after a break.
static BREAK_UNTIL: AtomicU64 = AtomicU64::new(0);
/// How long one may take to type that byte: as on Linux.
const BREAK_TIME: u64 = 5_000_000_000;

/// UARTCR, and its bit that enables the UART.
const CONTROL: usize = 0x30;
const UARTEN: u32 = 1;

/// Finds and maps the UART. If firmware has set it up it stays so, else it gets 115200 8n1 from the usual clock.
pub fn init() {
    let Some(regs) = &devtree::early().uart else { return };
    let base = paging::map_mmio(regs.start, regs.end - regs.start);
    // SAFETY: a register of the PL011 just mapped.
    let enabled = unsafe { base.add(CONTROL).cast::<u32>().read_volatile() } & UARTEN != 0;
    let mut uart = uart_at(base);
    if let Some(uart) = uart.as_mut().filter(|_| !enabled) {
        let line = LineConfig { data_bits: DataBits::Bits8, parity: Parity::None, stop_bits: StopBits::One };
        let _ = uart.enable(line, 115_200, 24_000_000);
    }
    *UART.lock() = uart;
}

fn uart_at(base: *mut u8) -> Option<Uart<'static>> {
    let regs = NonNull::new(base.cast())?;
    // SAFETY: the device tree says that a PL011 is there; it is mapped as device memory for good. The console is
    // its only user.
    Some(Uart::new(unsafe { UniqueMmioPointer::new(regs) }))
}

/// Writes to the boot console, polling; usable from the first line of the generic kernel on, and in a panic.
pub fn write(bytes: &[u8]) {
    if let Some(uart) = UART.lock().as_mut() {
        for &byte in bytes {
            put(uart, byte);
        }
    }
}

/// For the panic handler: writes even if another CPU, or this one, is in the middle of [`write`].
pub fn write_forced(bytes: &[u8]) {
    if UART.try_lock().is_none() {
        // SAFETY: the holder is this CPU or one that is about to be stopped; at worst characters mix.
        unsafe { UART.force_unlock() };
    }
    write(bytes);
}

fn put(uart: &mut Uart<'_>, byte: u8) {
    while uart.is_tx_fifo_full() {
        core::hint::spin_loop();
    }
    uart.write_word(byte);
}

/// Calls `handler` with each byte received, in interrupt context on CPU 0, but for those after a break that `break_key` takes.
/// `intid` is the UART's interrupt.
pub fn enable_rx(intid: u32, handler: fn(u8), break_key: fn(u8) -> bool) {
    RX_HANDLER.call_once(|| handler);
    BREAK_HANDLER.call_once(|| break_key);
    irq::register(intid, 0, |_| receive(), 0);
    if let Some(uart) = UART.lock().as_mut() {
        // The time-out interrupt covers bytes that do not fill the FIFO to its level.
        uart.set_interrupt_masks(Interrupts::RXI | Interrupts::RTI);
    }
    receive();
}

/// Acknowledges before it reads: a byte that comes after the last look raises the interrupt again.
fn receive() {
    if let Some(uart) = UART.lock().as_mut() {
        uart.clear_interrupts(Interrupts::RXI | Interrupts::RTI | Interrupts::OEI);
    }
    // The lock is not held over the handler: it may echo.
    while let Some(byte) = next_byte() {
        let after_break = super::now_ns() < BREAK_UNTIL.swap(0, Relaxed);
        if after_break && BREAK_HANDLER.get().is_some_and(|take| take(byte)) {
            continue;
        }
        if let Some(handler) = RX_HANDLER.get() {
            handler(byte);
        }
    }
}

fn next_byte() -> Option<u8> {
    let mut guard = UART.lock();
    let uart = guard.as_mut()?;
    loop {
        match uart.read_word() {
            Ok(byte) => return byte,
            Err(Error::Break) => BREAK_UNTIL.store(super::now_ns() + BREAK_TIME, Relaxed),
            // The word is lost.
            Err(_) => {}
        }
    }
}
