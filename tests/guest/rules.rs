//! Rules of processes and signals, asked by a program in the guest: see `probe rules`.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use pollux_tests::lab::{options, run, text_of};
use xtask::machine::MachineOptions;

use crate::shared;

/// What Linux 6.1 answers.
const EXPECTED: &str = "\
who has waited has the signal: 0 missed
who has the signal can wait: 0 missed
si_uid is the child's user: 12345 12345
forged timer signals count: 5 queued
kill finds before it checks: [-1, -1, -1, -1] -3 -22 -3
kill everybody as nobody: 0
a zombie keeps its user: 1
huge affinity masks: -22 -22 fits
priorities of SCHED_DEADLINE: 0 0
two threads exec at once: 0 wrong
pidfd and parent_tid at one place: -22
the longest timer interval: 0 0 0
requeue onto itself: 1 1 0
process time never goes back: 0 times back
";

pub fn trials() -> Vec<Trial> {
    [2, 4].map(|smp| shared(&format!("rules::are_those_of_linux::smp_{smp}"), move || rules(smp))).into()
}

fn rules(smp: u8) -> Result<()> {
    let options = MachineOptions { smp: Some(smp), ..options() };
    let text = text_of(run(&options, &["probe", "rules"])?)?;
    for (line, expected) in text.lines().zip(EXPECTED.lines()) {
        ensure!(line == expected, "{line:?} instead of {expected:?}");
    }
    ensure!(text == EXPECTED, "{text:?}");
    Ok(())
}
