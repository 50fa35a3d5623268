//! The firmware's power interface (Arm DEN 0022), called the way the device tree says.

use super::devtree;
use smccc::psci::error::Error;
use smccc::{Hvc, Smc, psci};

macro_rules! call {
    ($function:ident $args:tt) => {
        if devtree::early().psci_by_smc { psci::$function::<Smc> $args } else { psci::$function::<Hvc> $args }
    };
}

pub fn cpu_on(mpidr: u64, entry: u64, context: u64) -> Result<(), Error> {
    call!(cpu_on(mpidr, entry, context))
}

pub fn power_off() -> ! {
    let _ = call!(system_off());
    super::halt()
}

pub fn reboot() -> ! {
    let _ = call!(system_reset());
    super::halt()
}
