//! Power-off, reboot, halt; and the death of init.

use alloc::sync::Arc;

use super::root;
use crate::arch;
use crate::process::{Process, State};

/// What reboot(2) asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    PowerOff,
    Restart,
    Halt,
}

/// Makes the disks clean and stops the machine.
pub async fn shutdown(how: How) -> ! {
    root::make_clean().await;
    match how {
        How::PowerOff => {
            log::info!("Power down");
            arch::power_off()
        }
        How::Restart => {
            log::info!("Restarting system");
            arch::reboot()
        }
        How::Halt => {
            log::info!("System halted");
            arch::halt()
        }
    }
}

/// Process 1 must not end; Linux's words, which tools look for.
pub fn init_exited(init: &Arc<Process>) {
    let status = match *init.state.lock() {
        State::Zombie(status) => status.wait_status(),
        _ => 0,
    };
    panic!("not syncing: Attempted to kill init! exitcode={status:#010x}");
}
