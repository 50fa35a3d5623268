//! The tests that drive a guest. Each boots a machine of its own and has a time limit.

mod bench;
mod busybox;
mod commands;
mod contracts;
mod debian;
mod disk;
mod loops;
mod network;
mod offloads;
mod parallel;
mod rules;
mod share;
mod terminal;
mod trace;
mod workloads;

use std::process::ExitCode;
use std::sync::RwLock;

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};

/// Tests that measure time hold it alone; all others share it.
static MACHINE_ROOM: RwLock<()> = RwLock::new(());

fn main() -> ExitCode {
    if let Some(code) = offloads::inside() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // Each guest keeps more than one of the host's processors busy.
    arguments.test_threads.get_or_insert(2);
    let trials = [
        commands::trials(),
        terminal::trials(),
        trace::trials(),
        disk::trials(),
        loops::trials(),
        share::trials(),
        network::trials(),
        offloads::trials(),
        busybox::trials(),
        debian::trials(),
        parallel::trials(),
        rules::trials(),
        contracts::trials(),
        workloads::trials(),
        bench::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}

/// A test that runs beside others.
fn shared(name: &str, body: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let _guard = MACHINE_ROOM.read();
        body().map_err(|error| format!("{error:#}").into())
    })
}

/// A test that measures, and so runs alone.
fn alone(name: &str, body: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        let _guard = MACHINE_ROOM.write();
        body().map_err(|error| format!("{error:#}").into())
    })
}
