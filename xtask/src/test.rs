//! `cargo xtask test` and `cargo xtask stress`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use pollux_wire::{Exit, Request};

use crate::image::Image;
use crate::machine::{KernelKind, Machine, MachineOptions};
use crate::provision::{DEBUGFS, E2FSCK, MKE2FS};
use crate::session::{self, Input, Outcome};
use crate::{build, outln, paths, provision};

#[derive(Args)]
pub struct Options {
    /// Kernel that the guests run. With linux, only the tests that drive guests run: that checks
    /// the tests
    #[arg(long, value_enum, default_value = "pollux")]
    kernel: KernelKind,
    /// Write down what Linux shows, for comparison with Pollux
    #[arg(long, requires = "kernel")]
    record: bool,
    /// Only the tests that run on the host
    #[arg(long, conflicts_with = "guest")]
    host: bool,
    /// Only the tests that drive guests
    #[arg(long)]
    guest: bool,
    /// Only guest tests whose names contain this
    filter: Option<String>,
}

/// How many tests went well, and how many did not.
#[derive(Default, Debug, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
}

impl Options {
    pub fn run(self) -> Result<u8> {
        let mut tally = Tally::default();
        let filtered = self.filter.is_some();
        if !self.guest && !filtered && self.kernel == KernelKind::Pollux {
            // The tests of ext2 make and check file systems.
            provision::need(&[MKE2FS, E2FSCK, DEBUGFS])?;
            let mut cargo = build::cargo(None);
            cargo.args(["test", "--locked", "--no-fail-fast", "--workspace"]);
            cargo.args(["--exclude", "pollux-tests"]);
            tally.run(&mut cargo)?;
            tally.count(crate::sim::test()?);
        }
        if !self.host {
            provision::need_for_guests()?;
            let before = tally.passed + tally.failed;
            let mut cargo = build::cargo(None);
            cargo.args(["test", "--locked", "--package", "pollux-tests", "--test", "guest", "--"]);
            cargo.args(&self.filter);
            cargo.env("POLLUX_XTASK", std::env::current_exe()?);
            let kernel = self.kernel.to_possible_value().context("a kernel without a name")?;
            cargo.env("POLLUX_TEST_KERNEL", kernel.get_name());
            if self.record {
                cargo.env("POLLUX_TEST_RECORD", "1");
            }
            tally.run(&mut cargo)?;
            if let (Some(filter), true) = (&self.filter, before == tally.passed + tally.failed) {
                bail!("no guest test has a name that contains {filter:?}");
            }
        }
        outln!("{} passed, {} failed", tally.passed, tally.failed);
        Ok(u8::from(tally.failed > 0))
    }
}

impl Tally {
    /// Runs `cargo test`, shows what it says and adds up its results. A run that fails without
    /// naming a test, for instance because something does not compile, counts as one failure.
    fn run(&mut self, cargo: &mut Command) -> Result<()> {
        let before = self.failed;
        let mut child = cargo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            self.add(&line);
            outln!("{line}");
        }
        if !child.wait()?.success() && self.failed == before {
            self.failed += 1;
        }
        Ok(())
    }

    /// Adds something that is one test.
    fn count(&mut self, good: bool) {
        *(if good { &mut self.passed } else { &mut self.failed }) += 1;
    }

    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|result| result.split_once(". ")) else {
            return;
        };
        for count in counts.split("; ") {
            match count.split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

#[derive(Args)]
pub struct Stress {
    #[command(flatten)]
    machine: MachineOptions,
    /// How long
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
}

impl Stress {
    pub fn run(self) -> Result<u8> {
        provision::need_for_guests()?;
        let mut options = self.machine;
        options.snapshot = true;
        options.smp.get_or_insert(4);
        let machine = Machine::prepare(&options, Image::find("test")?)?;
        let seconds = self.minutes * 60;
        let limit = Duration::from_secs(seconds + seconds / 2 + 120);
        outln!("{}", stress_on(&machine, seconds, limit)?);
        Ok(0)
    }
}

/// Free memory must return to within so many hundredths of what it was.
const LOST_PERCENT: i64 = 1;

/// Runs `tests/stress/mixed.sh`; an error if anything goes wrong in it or memory is lost.
pub fn stress_on(machine: &Machine, seconds: u64, limit: Duration) -> Result<String> {
    let script = std::fs::read(paths::root().join("tests/stress/mixed.sh"))?;
    let seconds = seconds.to_string();
    let argv = ["sh", "-s", &seconds, "4"].map(|word| word.as_bytes().to_vec());
    let request = Request { argv: argv.into(), ..Request::default() };
    let output = session::capture(machine, request, Input::Bytes(script), limit)?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.outcome == Outcome::Exit(Exit::Code(0)) && output.stderr.is_empty(),
        "{:?}\nstdout: {text}\nstderr: {}\nkernel's log:\n{}",
        output.outcome,
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.log)
    );
    let figure = |name: &str| -> Result<i64> {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            .with_context(|| format!("no figure {name:?} in {text:?}"))
    };
    let (before, after, rounds) = (figure("before")?, figure("after")?, figure("rounds")?);
    ensure!(text.lines().count() == 3 && rounds > 0, "something went wrong in it:\n{text}");
    ensure!(
        before - after <= before * LOST_PERCENT / 100,
        "{before} KiB were free before, {after} KiB after {rounds} rounds"
    );
    Ok(format!("{rounds} rounds, free memory {before} KiB before and {after} KiB after"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut tally = Tally::default();
        tally.add("test result: ok. 4 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        tally.add("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured");
        tally.add("test something ... ok");
        assert_eq!(tally, Tally { passed: 5, failed: 2 });
    }
}
