//! The benchmarks run, and no operation has become dearer than the figures in the tree say.

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use pollux_tests::{kernel, lab};
use xtask::bench::results::{Report, Runs, Unit};
use xtask::bench::suite::Suite;
use xtask::bench::{BASELINE, baseline};
use xtask::machine::{KernelKind, MachineOptions};
use xtask::{paths, ui};

use crate::trial;

pub fn trials() -> Vec<Trial> {
    // Counted instructions: what else the host does has no influence.
    vec![trial("bench::no_operation_costs_more_than_recorded", compare)]
}

fn compare() -> Result<()> {
    let options = MachineOptions { icount: true, snapshot: true, kernel: kernel(), ..MachineOptions::default() };
    let machine = lab::machine(&options, "bench")?;
    let suite = Suite { filter: Vec::new(), scale: 1, counting: true };
    let mut runs = Runs::default();
    runs.add(suite.run(&machine, &ui::step("Measuring"))?);
    // Whichever kernel it is, nothing may fail on it.
    let report = Report::new(vec![(KernelKind::Pollux, runs)], Unit::Instructions, 1, "", String::new())?;
    let failed: Vec<_> = report.failed().collect();
    ensure!(failed.is_empty(), "{failed:#?}");
    ensure!(report.lines.len() > 80, "only {} rows", report.lines.len());
    if kernel() == KernelKind::Pollux {
        let recorded = std::fs::read_to_string(paths::root().join(BASELINE))?;
        let verdict = baseline::compare(&recorded, &report, true)?;
        ensure!(!verdict.failed(), "{verdict}if that is worth it: cargo xtask bench --record-baseline {BASELINE}");
    }
    Ok(())
}
