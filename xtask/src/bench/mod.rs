//! `cargo xtask bench`: what single operations cost on Pollux, and on Linux.
//!
//! * [`suite`] runs `user/bench` in a guest and reads what it prints.
//! * [`results`] makes one figure of several runs, and compares two kernels.
//! * [`text`] and [`page`] show it: as a table for a terminal or a document, as a page with bars.
//! * [`baseline`] holds figures against those in the tree.
//! * [`boot`] counts the instructions of booting.

pub mod baseline;
pub mod boot;
pub mod page;
pub mod results;
pub mod suite;
pub mod text;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::image::Image;
use crate::machine::{Boot, KernelKind, Machine, MachineOptions};
use crate::provision::QEMU;
use crate::{out, outln, paths, ui};
use results::{Report, Runs, Unit};

/// Where the figures of Pollux are that no row may exceed by much.
pub const BASELINE: &str = "tests/bench/baseline.tsv";

#[derive(Args)]
pub struct Options {
    /// Only rows whose names contain one of these
    filter: Vec<String>,
    /// A kernel to compare with; the same programs on the same image
    #[arg(long, value_enum, value_name = "KERNEL")]
    against: Option<KernelKind>,
    /// Measure time, and not instructions: on several CPUs, each run followed by one of the other
    /// kernel. Quiet machines only
    #[arg(long)]
    wall: bool,
    /// Processors, with --wall [default: as many as the host has, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8), requires = "wall")]
    smp: Option<u8>,
    /// How often each kernel is booted and measured; the median counts [default: 2, with --wall 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..))]
    runs: Option<u8>,
    /// Repeat each operation so many times as often as usual
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    scale: u32,
    /// Write a page with bar charts that needs no other file
    #[arg(long, value_name = "FILE", requires = "against")]
    html: Option<PathBuf>,
    /// Put the table into this document, between the lines `<!-- figures -->` and
    /// `<!-- end of figures -->`, with --wall `<!-- figures by time, 2 CPUs -->`
    #[arg(long, value_name = "FILE", requires = "against")]
    markdown: Option<PathBuf>,
    /// Fail if a row costs more than 5 % more than this file says
    #[arg(long, value_name = "FILE", conflicts_with_all = ["wall", "scale"])]
    baseline: Option<PathBuf>,
    /// Write the figures down for --baseline
    #[arg(long, value_name = "FILE", conflicts_with_all = ["wall", "scale", "filter"])]
    record_baseline: Option<PathBuf>,
    /// Count the instructions from the entry of the kernel to the first one of the first program
    #[arg(long, conflicts_with_all = ["filter", "wall", "html", "markdown", "baseline", "record_baseline", "scale"])]
    boot: bool,
    /// Name the rows and end
    #[arg(long, exclusive = true)]
    list: bool,
}

impl Options {
    pub fn run(self) -> Result<u8> {
        if self.list {
            let file = paths::root().join(BASELINE);
            let recorded = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            baseline::names(&recorded).for_each(|name| outln!("{name}"));
            return Ok(0);
        }
        QEMU.path()?;
        if self.boot {
            return boot::run(self.against.is_some());
        }
        ensure!(self.against != Some(KernelKind::Pollux), "Pollux is measured anyway: --against linux");
        // Before the measurement, which takes its time.
        let read = |file: &PathBuf| fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()));
        let document = self.markdown.as_ref().map(read).transpose()?;
        let recorded = self.baseline.as_ref().map(read).transpose()?;
        for file in [&self.html, &self.record_baseline].into_iter().flatten() {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            ensure!(folder.is_none_or(Path::is_dir), "the folder of {} is not there: make it first", file.display());
        }
        let report = self.measure()?;
        ensure!(!report.lines.is_empty(), "no row is called like {}", self.filter.join(" or "));
        out!("{}", text::table(&report));
        if let Some(file) = &self.html {
            write(file, &page::page(&report))?;
        }
        if let (Some(file), Some(old)) = (&self.markdown, document) {
            write(file, &text::into_document(&old, &report)?)?;
        }
        if let Some(file) = &self.record_baseline {
            write(file, &baseline::encode(&report)?)?;
        }
        let mut failed = report.failed().next().is_some();
        if let Some(recorded) = recorded {
            let verdict = baseline::compare(&recorded, &report, self.filter.is_empty())?;
            out!("{verdict}");
            failed |= verdict.failed();
        }
        Ok(u8::from(failed))
    }

    fn measure(&self) -> Result<Report> {
        let kinds: Vec<_> = [KernelKind::Pollux].into_iter().chain(self.against).collect();
        let image = Image::find("bench")?;
        let machines = kinds
            .iter()
            .map(|kind| Ok((*kind, self.machine(*kind, Boot::prepare(*kind)?, &image)?)))
            .collect::<Result<Vec<_>>>()?;
        let suite = suite::Suite { filter: self.filter.clone(), scale: self.scale, counting: !self.wall };
        let runs = self.runs.unwrap_or(if self.wall { 5 } else { 2 });
        let mut measured: Vec<_> = kinds.iter().map(|kind| (*kind, Runs::default())).collect();
        for run in 1..=runs {
            for ((kind, machine), (_, results)) in machines.iter().zip(&mut measured) {
                let step = ui::step(format!("Run {run} of {runs} on {}", name_of(*kind)));
                results.add(suite.run(machine, &step)?);
            }
        }
        let unit = match &machines[0].1 {
            machine if self.wall => Unit::Nanoseconds { processors: machine.processors() },
            _ => Unit::Instructions,
        };
        let goals = fs::read_to_string(paths::root().join("tests/bench/goals.tsv"))?;
        Report::new(measured, unit, runs, &goals, versions(&kinds)?)
    }

    fn machine(&self, kind: KernelKind, boot: Boot, image: &Image) -> Result<Machine> {
        let options = MachineOptions {
            kernel: kind,
            smp: self.smp,
            icount: !self.wall,
            snapshot: true,
            ..MachineOptions::default()
        };
        Machine::new(&options, boot, Image { path: image.path.clone(), init: image.init.clone() })
    }
}

/// A kernel's name for people.
pub fn name_of(kind: KernelKind) -> &'static str {
    match kind {
        KernelKind::Pollux => "Pollux",
        KernelKind::Linux => "Linux",
    }
}

/// What was compared with what, in words.
pub fn versions(kinds: &[KernelKind]) -> Result<String> {
    let qemu = ui::read(QEMU.command()?.arg("--version"))?;
    let qemu = qemu.split_whitespace().nth(3).unwrap_or("of unknown version");
    let mut text = "Pollux".to_string();
    if kinds.contains(&KernelKind::Linux) {
        let kernel = Boot::prepare(KernelKind::Linux)?.kernel;
        let name = kernel.file_name().unwrap_or_default().to_string_lossy().into_owned();
        text += &format!(", Debian's Linux {}", name.trim_start_matches("vmlinuz-"));
    }
    Ok(format!("{text}, QEMU {qemu} (TCG, cortex-a72)"))
}

fn write(file: &std::path::Path, text: &str) -> Result<()> {
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    ui::say(format!("{} is written", file.display()));
    Ok(())
}
