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

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};

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

/// A test; others run beside it, so none measures by the host's clock.
fn trial(name: &str, body: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || body().map_err(|error| format!("{error:#}").into()))
}
