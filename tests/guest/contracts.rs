//! What programs may rely on: see `cargo xtask contract`. One guest runs all of them; each is a test here.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow, ensure};
use libtest_mimic::Trial;
use pollux_tests::lab::{kernel, machine, options};
use xtask::contract::verdict::{Finding, Verdict};
use xtask::contract::{recorded, suite, verdict};
use xtask::ui;

use crate::trial;

type Run = OnceLock<Result<Verdict, String>>;

pub fn trials() -> Vec<Trial> {
    let run = Arc::new(Run::new());
    let names: BTreeSet<String> = recorded().map(|all| all.into_keys().collect()).unwrap_or_default();
    let each = names.iter().map(|name| {
        let (run, name) = (run.clone(), name.clone());
        trial(&format!("contract::{name}"), move || {
            let finding = of(&run)?.findings.get(&name).context("the test is gone")?;
            ensure!(!finding.failed(), "{}", finding.shown());
            Ok(())
        })
    });
    let (run, all) = (run.clone(), names.clone());
    let rest = trial("contracts::are_all_recorded", move || {
        let new: Vec<&String> = of(&run)?.findings.keys().filter(|name| !all.contains(*name)).collect();
        ensure!(new.is_empty() && !all.is_empty(), "{new:?}: {}", Finding::NotRecorded.shown());
        Ok(())
    });
    each.chain([rest]).collect()
}

/// The run of this process.
fn of(run: &Run) -> Result<&Verdict> {
    let once = || -> Result<Verdict> {
        let found = suite::run(&machine(&options(), "test")?, &[], &ui::step("Contracts"))?;
        verdict(kernel(), found, &[])
    };
    run.get_or_init(|| once().map_err(|error| format!("{error:#}"))).as_ref().map_err(|error| anyhow!("{error}"))
}
