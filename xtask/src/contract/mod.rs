//! `cargo xtask contract`: what programs may rely on, compared with Linux.
//!
//! * [`suite`] runs `user/contracts` in a guest: each test has a name (`family.behaviour`) and a transcript.
//! * [`transcripts`]: those of Linux are in `tests/contracts/FAMILY.txt`.
//! * [`known`]: differences that there is a reason for are in `tests/contracts/known.toml`.
//! * [`mod@verdict`] holds a run against both.

pub mod known;
pub mod suite;
pub mod transcripts;
pub mod verdict;

use std::io::IsTerminal;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};

use crate::bench::name_of;
use crate::image::Image;
use crate::machine::{Boot, KernelKind, Machine, MachineOptions};
use crate::{out, outln, paths, provision, ui};
use transcripts::Transcripts;
use verdict::Verdict;

/// Where the transcripts of Linux are.
const FOLDER: &str = "tests/contracts";

#[derive(Args)]
pub struct Options {
    /// Only tests whose names contain one of these
    filter: Vec<String>,
    /// Kernel that must behave as recorded
    #[arg(long, value_enum, default_value = "pollux", conflicts_with = "record")]
    kernel: Kernels,
    /// Processors of the guest
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    smp: u8,
    /// Run the tests on Linux, and write its transcripts down
    #[arg(long)]
    record: bool,
    /// Name the tests and end
    #[arg(long, conflicts_with_all = ["kernel", "smp", "record"])]
    list: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kernels {
    Pollux,
    Linux,
    Both,
}

impl Kernels {
    fn each(self) -> &'static [KernelKind] {
        match self {
            Kernels::Pollux => &[KernelKind::Pollux],
            Kernels::Linux => &[KernelKind::Linux],
            Kernels::Both => &[KernelKind::Linux, KernelKind::Pollux],
        }
    }
}

impl Options {
    pub fn run(self) -> Result<u8> {
        if self.list {
            let recorded = recorded()?;
            let names: Vec<_> = recorded.keys().filter(|name| is_wanted(name, &self.filter)).collect();
            self.ensure_some(!names.is_empty())?;
            names.iter().for_each(|name| outln!("{name}"));
            return Ok(0);
        }
        provision::need_for_guests()?;
        if self.record {
            let found = self.found(KernelKind::Linux)?;
            let count = found.len();
            transcripts::record(&paths::root().join(FOLDER), found, self.filter.is_empty())?;
            outln!("{count} transcripts of Linux written to {FOLDER}");
            return Ok(0);
        }
        let mut failed = false;
        for kernel in self.kernel.each() {
            let verdict = verdict(*kernel, self.found(*kernel)?, &self.filter)?;
            out!("{}", verdict.shown(std::io::stdout().is_terminal()));
            outln!("{}: {}", name_of(*kernel), verdict.summary());
            failed |= verdict.failed() > 0;
        }
        Ok(u8::from(failed))
    }

    fn found(&self, kernel: KernelKind) -> Result<Transcripts> {
        let options = MachineOptions { kernel, smp: Some(self.smp), snapshot: true, ..MachineOptions::default() };
        let machine = Machine::new(&options, Boot::prepare(kernel)?, Image::find("test")?)?;
        let step = ui::step(format!("Contracts of {}", name_of(kernel)));
        let found = suite::run(&machine, &self.filter, &step)?;
        self.ensure_some(!found.is_empty())?;
        Ok(found)
    }

    fn ensure_some(&self, some: bool) -> Result<()> {
        ensure!(some, "no test has a name that contains {}", self.filter.join(" or "));
        Ok(())
    }
}

/// The transcripts of Linux in the tree.
pub fn recorded() -> Result<Transcripts> {
    transcripts::read(&paths::root().join(FOLDER))
}

/// Holds what a kernel showed against what is recorded. Differences that are known are those of Pollux.
pub fn verdict(kernel: KernelKind, found: Transcripts, filter: &[String]) -> Result<Verdict> {
    let known = match kernel {
        KernelKind::Pollux => known::read(&paths::root().join(FOLDER).join("known.toml"))?,
        KernelKind::Linux => known::Known::new(),
    };
    let recorded = recorded()?.into_iter().filter(|(name, _)| is_wanted(name, filter)).collect();
    let known = known.into_iter().filter(|(name, _)| is_wanted(name, filter)).collect();
    Ok(Verdict::new(&recorded, &found, &known))
}

fn is_wanted(name: &str, filter: &[String]) -> bool {
    filter.is_empty() || filter.iter().any(|part| name.contains(part.as_str()))
}
