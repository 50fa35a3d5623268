//! The end: message, registers, backtrace with names, all CPUs stopped. xtask looks for "Kernel panic - ".

use super::layout::{KERNEL, STACKS};
use super::trap::KernelFrame;
use super::{console, cpu_id, halt, irq, symbols};
use core::arch::asm;
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicUsize, Ordering};

struct Out;

impl Write for Out {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for (i, line) in text.split('\n').enumerate() {
            if i > 0 {
                console::write_forced(b"\r\n");
            }
            console::write_forced(line.as_bytes());
        }
        Ok(())
    }
}

/// 0, or 1 + the number of the CPU that panicked first.
static PANICKED: AtomicUsize = AtomicUsize::new(0);

/// Stops the CPU if another one has panicked.
#[inline]
pub(super) fn obey() {
    let first = PANICKED.load(Ordering::Relaxed);
    if first != 0 && first != cpu_id() + 1 {
        halt()
    }
}

/// For the panic handler of the image.
pub fn panic(info: &PanicInfo<'_>) -> ! {
    begin();
    let _ = write!(Out, "\nKernel panic - {}", info.message());
    if let Some(at) = info.location() {
        let _ = write!(Out, "\nat {}:{}", at.file(), at.line());
    }
    let fp: u64;
    // SAFETY: a register read.
    unsafe { asm!("mov {}, x29", out(reg) fp, options(nomem, nostack, preserves_flags)) };
    end(fp)
}

/// An exception that the kernel cannot survive.
pub fn kernel_exception(frame: &KernelFrame, what: &str) -> ! {
    begin();
    let _ = write!(Out, "\nKernel panic - {what}\nat {}", symbols::Name(frame.pc));
    let _ = write!(Out, "\nESR {:#010x}  FAR {:#018x}  SPSR {:#x}", frame.esr, frame.far, frame.pstate);
    let _ = write!(Out, "\npc  {:016x}  sp  {:016x}", frame.pc, frame.sp);
    for (i, value) in frame.x.iter().enumerate() {
        let _ = write!(Out, "{}x{i:<2} {value:016x}", if i % 4 == 0 { "\n" } else { "  " });
    }
    end(frame.x[29])
}

/// Stops the other CPUs; a panic within a panic, or on a second CPU, ends here.
fn begin() {
    let me = cpu_id() + 1;
    match PANICKED.compare_exchange(0, me, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => irq::stop_others(),
        Err(first) if first == me => {
            console::write_forced(b"\r\npanic within a panic\r\n");
            halt()
        }
        Err(_) => halt(),
    }
}

fn end(fp: u64) -> ! {
    let _ = write!(Out, "\nCPU {}, {} ms after boot. Backtrace:", cpu_id(), super::now_ns() / 1_000_000);
    backtrace(fp);
    let _ = write!(Out, "\n---[ end Kernel panic ]---\n");
    halt()
}

/// Follows the chain of frame records (x29, x30) as far as it makes sense.
fn backtrace(mut fp: u64) {
    for _ in 0..64 {
        let on_stack = (STACKS..KERNEL + (64 << 20)).contains(&fp);
        if !on_stack || !fp.is_multiple_of(8) {
            return;
        }
        // SAFETY: an aligned address in stack or image. A wild one would fault into "panic within a panic".
        let (next, lr) = unsafe { ((fp as *const u64).read_volatile(), (fp as *const u64).add(1).read_volatile()) };
        if lr == 0 {
            return;
        }
        // The call is the instruction before the return address.
        let _ = write!(Out, "\n  {}", symbols::Name(lr.wrapping_sub(4)));
        if next <= fp {
            return;
        }
        fp = next;
    }
}
