//! busybox's applets do what they do on Linux: each case of `tests/busybox/*.sh` is a test.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result, anyhow, ensure};
use libtest_mimic::Trial;
use pollux_tests::transcript::{self, Case};
use pollux_tests::{kernel, recording};
use xtask::machine::KernelKind;
use xtask::paths;

use crate::trial;

/// A script and its only run, which the first of its cases causes.
struct Family {
    name: String,
    cases: Vec<Case>,
    results: OnceLock<Result<Results, String>>,
}

type Results = (BTreeMap<String, String>, Option<String>);

pub fn trials() -> Vec<Trial> {
    let mut names: Vec<String> = fs::read_dir(folder())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".sh")?.to_string()))
        .collect();
    names.sort();
    names.into_iter().flat_map(family).collect()
}

fn folder() -> PathBuf {
    paths::root().join("tests/busybox")
}

fn expected(name: &str) -> PathBuf {
    folder().join("expected").join(format!("{name}.txt"))
}

fn family(name: String) -> Vec<Trial> {
    let text = fs::read_to_string(folder().join(format!("{name}.sh"))).unwrap_or_default();
    let cases = transcript::cases(&text);
    let family = Arc::new(Family { name, cases, results: OnceLock::new() });
    let cases = family.cases.clone();
    cases
        .into_iter()
        .map(|case| {
            let family = family.clone();
            let name = format!("busybox::{}::{}", family.name, case.name.replace(' ', "_"));
            trial(&name, move || family.check(&case))
        })
        .collect()
}

impl Family {
    fn results(&self) -> Result<&Results> {
        let results = self.results.get_or_init(|| {
            let (transcripts, error) = transcript::run(&self.cases).map_err(|error| format!("{error:#}"))?;
            if recording() && kernel() == KernelKind::Linux {
                transcript::record(&expected(&self.name), &self.cases, &transcripts)
                    .map_err(|error| format!("{error:#}"))?;
            }
            Ok((transcripts, error.map(|error| format!("{error:#}"))))
        });
        results.as_ref().map_err(|error| anyhow!("{error}"))
    }

    fn check(&self, case: &Case) -> Result<()> {
        let (transcripts, error) = self.results()?;
        let why = error.as_deref().unwrap_or("it says nothing");
        let actual = transcripts.get(&case.name).with_context(|| format!("no result: {why}"))?;
        let recorded = fs::read_to_string(expected(&self.name))
            .context("nothing recorded; run `cargo xtask test --kernel linux --record`")?;
        let recorded = transcript::parse(&recorded);
        let linux = recorded.get(&case.name).context("not recorded on Linux")?;
        ensure!(linux == actual, "{}", transcript::difference(linux, actual));
        Ok(())
    }
}
