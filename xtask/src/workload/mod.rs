//! `cargo xtask workload`: programs of others that load a kernel and check what it answers, on Pollux and beside it on Linux.
//!
//! * [`list`]: `workloads/NAME.toml` says what to run, in which image, and how one can tell that it went well.
//! * [`guest`] runs the entries of a workload in as few boots as it can: one that hangs, or takes the machine with it,
//!   costs the others nothing but another boot.
//! * [`server`]: what entries talk to over the network.
//! * [`mod@verdict`] says what is wrong with what was seen, and what of that Linux does not show.
//! * [`rate`]: what entries say that they did in a second.
//! * [`table`] shows it.

pub mod guest;
pub mod list;
pub mod rate;
pub mod server;
pub mod table;
pub mod verdict;

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::bench::{name_of, versions};
use crate::image::Image;
use crate::machine::{Boot, KernelKind, Machine, MachineOptions};
use crate::provision::E2FSCK;
use crate::{document, out, outln, paths, provision, ui};
use list::Workload;
use server::Network;
use table::Measure;
use verdict::Row;

/// Where what the programs printed is kept.
const FOLDER: &str = "target/pollux/workloads";
/// What the table of rates is called in a document.
const RATES: &str = "rates";

#[derive(Args)]
pub struct Options {
    /// Only these: a workload (stress-ng) or entries of it (stress-ng.futex, git-tests.t3*)
    names: Vec<String>,
    /// Run them on this kernel, too: only what fails on Pollux and not there counts
    #[arg(long, value_enum, value_name = "KERNEL")]
    against: Option<Reference>,
    /// How long each entry runs, where that can be chosen [default: as its workload says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: Option<u32>,
    /// Processors of the guest
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=8))]
    smp: u8,
    /// Count instructions, on one processor, instead of time
    #[arg(long, conflicts_with = "smp")]
    instructions: bool,
    /// Put the table into this document, between the lines `<!-- figures -->` and
    /// `<!-- end of figures -->`
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Put what was done in a second into this document, between the lines `<!-- rates -->` and
    /// `<!-- end of rates -->`
    #[arg(long, value_name = "FILE", conflicts_with = "instructions")]
    rates: Option<PathBuf>,
    /// Have e2fsck look at the disk after each workload, a copy of the image that keeps what was written
    #[arg(long)]
    fsck: bool,
    /// Run what is for a long time, mixed work that ends well after as long as you like, for so many minutes: `net --soak 60`
    #[arg(long, value_name = "MINUTES", conflicts_with_all = ["seconds", "instructions"], value_parser = parse_minutes)]
    soak: Option<u32>,
    /// Only tell what there is
    #[arg(long, conflicts_with_all = ["against", "markdown", "rates"])]
    list: bool,
}

/// A kernel to compare with.
#[derive(Clone, Copy, ValueEnum)]
enum Reference {
    /// Debian's kernel
    Linux,
}

impl Options {
    pub fn run(self) -> Result<u8> {
        let all = list::for_soak(list::all(&paths::root().join("workloads"))?, self.soak.is_some());
        if self.list && self.names.is_empty() {
            out!("{}", table::list(&all));
            return Ok(0);
        }
        let chosen = list::choose(all, &self.names)?;
        if self.list {
            out!("{}", table::list(&chosen));
            return Ok(0);
        }
        // Before the runs, which take their time.
        for (file, mark) in self.documents() {
            with_table(file, mark, "")?;
        }
        provision::need_for_guests()?;
        provision::need(if self.fsck { &[E2FSCK] } else { &[] })?;
        let (rows, damage) = self.rows(chosen)?;
        let kinds = self.kernels();
        let versions = versions(&kinds)?;
        let (head, measure) = match self.instructions {
            true => (format!("{versions}, instructions on 1 CPU"), Measure::Instructions),
            false => (format!("{versions}, {} CPUs", self.smp), Measure::Time),
        };
        out!("{}", table::text(&head, measure, &rows, std::io::stdout().is_terminal()));
        for (file, mark) in self.documents() {
            let table = match mark {
                RATES => table::rates_markdown(&head, &rows),
                _ => table::markdown(&head, measure, &rows),
            };
            fs::write(file, with_table(file, mark, &table)?)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        for Damage { after, found } in &damage {
            outln!("e2fsck -fn after {after}:\n{found}");
        }
        let summary = verdict::summary(&rows);
        if !damage.is_empty() {
            bail!("e2fsck finds fault with {} disks; {summary}", damage.len());
        }
        if rows.iter().any(Row::failed) {
            bail!("{summary}; what was printed is in {FOLDER}");
        }
        outln!("{summary}");
        Ok(0)
    }

    /// Documents that get a table, and between which marks.
    fn documents(&self) -> impl Iterator<Item = (&Path, &'static str)> {
        let all = [(&self.markdown, document::FIGURES), (&self.rates, RATES)];
        all.into_iter().filter_map(|(file, mark)| Some((file.as_deref()?, mark)))
    }

    fn kernels(&self) -> Vec<KernelKind> {
        [KernelKind::Pollux].into_iter().chain(self.against.map(|Reference::Linux| KernelKind::Linux)).collect()
    }

    /// Runs all of it, one workload after the other. Also answers what e2fsck finds.
    fn rows(&self, chosen: Vec<Workload>) -> Result<(Vec<Row>, Vec<Damage>)> {
        if let Some(workload) = chosen.iter().find(|workload| self.instructions && workload.has_network()) {
            bail!("instructions are counted without a network, which {} needs: leave it away", workload.name);
        }
        let folder = paths::root().join(FOLDER);
        let boots =
            self.kernels().into_iter().map(|kind| Ok((kind, Boot::prepare(kind)?))).collect::<Result<Vec<_>>>()?;
        let (mut rows, mut damage) = (Vec::new(), Vec::new());
        for workload in chosen {
            let mut workload = workload.lasting(self.seconds.or(self.soak));
            let mut seen = Vec::new();
            for (kind, boot) in &boots {
                let kind = *kind;
                let mut image = Image::find(&workload.image)?;
                if self.fsck {
                    image = copied(image, &folder)?;
                }
                let disk = image.path.clone();
                // For each kernel anew: what one has sent there the other does not find.
                let found = Network::with(&mut workload, |network, workload| {
                    let timed = || MachineOptions { smp: Some(self.smp), ..network.options() };
                    let options = MachineOptions {
                        kernel: kind,
                        mem: workload.mem.clone(),
                        snapshot: !self.fsck,
                        ..if self.instructions { counting() } else { timed() }
                    };
                    let image = Image { path: image.path.clone(), init: image.init.clone() };
                    let machine = Machine::new(&options, boot.clone(), image)?;
                    let step = ui::step(format!("{} on {}", workload.name, name_of(kind)));
                    guest::run(&machine, workload, &step)
                });
                let found = found.with_context(|| format!("{} on {}", workload.name, name_of(kind)))?;
                for (entry, seen) in workload.entries.iter().zip(&found) {
                    keep(&folder.join(name_of(kind).to_lowercase()), &workload.full_name(entry), seen)?;
                }
                seen.push(found);
                if self.fsck {
                    let after = format!("{} on {}", workload.name, name_of(kind));
                    damage.extend(check(&disk)?.map(|found| Damage { after, found }));
                }
            }
            rows.extend(verdict::rows(&workload, seen));
        }
        Ok((rows, damage))
    }
}

/// What e2fsck would change of a disk.
struct Damage {
    /// Which workload, on which kernel.
    after: String,
    found: String,
}

/// An image that guests may change.
fn copied(image: Image, folder: &Path) -> Result<Image> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let path = folder.join("disk.ext2");
    ui::run_quietly(Command::new("cp").arg("--sparse=always").arg(&image.path).arg(&path))?;
    Ok(Image { path, ..image })
}

/// What e2fsck says of a disk that it would change.
fn check(disk: &Path) -> Result<Option<String>> {
    let output = E2FSCK.command()?.arg("-fn").arg(disk).output()?;
    let text = || String::from_utf8_lossy(&output.stdout).into_owned();
    Ok((!output.status.success()).then(text))
}

/// The document with a table.
fn with_table(file: &Path, mark: &str, table: &str) -> Result<String> {
    let old = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    document::put(&old, mark, table).with_context(|| format!("{} cannot take the table", file.display()))
}

/// Minutes as seconds.
fn parse_minutes(text: &str) -> Result<u32, String> {
    let seconds = text.parse::<f64>().ok().map(|minutes| minutes * 60.0);
    match seconds.filter(|seconds| (1.0..=86_400.0).contains(seconds)) {
        Some(seconds) => Ok(seconds as u32),
        None => Err("not a number of minutes from 0.02 to 1440".into()),
    }
}

/// A machine that counts instructions.
pub fn counting() -> MachineOptions {
    MachineOptions {
        icount: true,
        snapshot: true,
        no_net: true,
        // Else waiting for the disk would let all time-outs pass.
        qemu: "-icount sleep=on".into(),
        ..MachineOptions::default()
    }
}

/// Writes down what an entry printed, and what the kernel did meanwhile.
fn keep(folder: &Path, name: &str, seen: &guest::Seen) -> Result<()> {
    let file = folder.join(format!("{name}.txt"));
    let text = format!("{}\n-- kernel --\n{}\n", seen.output, seen.log.join("\n"));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(&file, text))
        .with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provision::{DEBUGFS, MKE2FS};

    #[test]
    fn e2fsck_tells_of_damage_only() {
        let folder = std::env::temp_dir().join(format!("pollux-fsck-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("image");
        let run = |command: &mut Command| assert!(command.output().unwrap().status.success());
        run(MKE2FS.command().unwrap().args(["-q", "-t", "ext2"]).arg(&path).arg("1M"));
        let image = copied(Image { path, init: None }, &folder).unwrap();
        assert_eq!(check(&image.path).unwrap(), None);
        run(DEBUGFS.command().unwrap().args(["-w", "-R", "clri lost+found"]).arg(&image.path));
        assert!(check(&image.path).unwrap().unwrap().contains("lost+found"));
        fs::remove_dir_all(folder).unwrap();
    }
}
