//! From the machine to the first process.

use crate::arch;
use core::fmt::Write;

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        arch::console::write(text.as_bytes());
        Ok(())
    }
}

/// Entered on CPU 0 with console, clock and memory map ready; no heap yet.
pub fn start() -> ! {
    let (usable, reserved) = arch::early_memory();
    let _ = write!(Console, "Pollux\r\nusable {usable:x?}\r\nreserved {reserved:x?}\r\n");
    arch::power_off()
}
