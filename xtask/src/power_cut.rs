//! `cargo xtask power-cut`: a guest commits to git, replaces and syncs files, and at some moment its QEMU is killed. Then
//! `e2fsck -p` must be content without a question, `e2fsck -fn` with what it left, and the next guest must find all that was
//! reported synced. The disk goes on from round to round, with all that the cuts did to it.
//!
//! What the device had confirmed survives QEMU; what writes that it had not confirmed leave is the simulation's subject
//! (`cargo xtask sim ext2`).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use pollux_wire::Request;

use crate::image::Image;
use crate::machine::{Boot, KernelKind, Machine, MachineOptions};
use crate::provision::{self, E2FSCK};
use crate::session::{Input, Outcome, Session};
use crate::{outln, paths, ui};

const SCRIPT: &str = include_str!("power_cut.sh");
/// From the start of QEMU to the end of what it looks for.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Args)]
pub struct Options {
    /// So often the plug is pulled
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// At most so long after the guest has looked at its disk, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 12_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    longest: u64,
    /// Decides when, and what the guests write [default: the time of day]
    #[arg(long)]
    seed: Option<u64>,
    /// Processors of the guest
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=8))]
    smp: u8,
}

/// What was seen of all rounds.
#[derive(Debug, Default, PartialEq)]
pub struct Seen {
    pub commits: u32,
    pub files: u32,
}

impl Options {
    pub fn run(self) -> Result<u8> {
        provision::need_for_guests()?;
        provision::need(&[E2FSCK])?;
        let boot = Boot::prepare(KernelKind::Pollux)?;
        let folder = paths::out().join("power-cut");
        fs::create_dir_all(&folder)?;
        let disk = folder.join("disk.ext2");
        let image = Image::find("git")?;
        ui::run_quietly(Command::new("cp").arg("--sparse=always").arg(image.path).arg(&disk))?;
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let seed = self.seed.unwrap_or(time.as_secs());
        let step = ui::step(format!("Pulling the plug {} times, seed {seed}", self.rounds));
        let seen = rounds(&boot, &disk, seed, self.rounds, self.smp, Duration::from_millis(self.longest), &step)?;
        drop(step);
        outln!(
            "{} cuts, seed {seed}: {} commits and {} files were synced, none of them is lost; e2fsck -p asked nothing",
            self.rounds,
            seen.commits,
            seen.files
        );
        Ok(0)
    }
}

/// Pulls the plug so often. A disk that is damaged stays as the cut left it, next to the other, named `.damaged`.
pub fn rounds(
    boot: &Boot,
    disk: &Path,
    seed: u64,
    rounds: u32,
    smp: u8,
    longest: Duration,
    step: &ui::Step,
) -> Result<Seen> {
    let mut state = State::default();
    for round in 0..rounds {
        let random = mix(seed.wrapping_add(round.into()));
        let plug = Duration::from_millis(random % longest.as_millis().max(1) as u64);
        step.detail(format!("Round {} of {rounds}, {} commits synced", round + 1, state.commits));
        let at = || format!("round {} of seed {seed}, {} ms after the start of its work", round + 1, plug.as_millis());
        work(boot, disk, smp, random, plug, &mut state).with_context(at)?;
        repair(disk).with_context(at)?;
    }
    let seen = Seen { commits: state.commits, files: state.files };
    // What the last round has synced.
    work(boot, disk, smp, 0, Duration::ZERO, &mut state).context("after the last round")?;
    repair(disk).context("after the last round")?;
    Ok(seen)
}

/// What guests have reported synced.
#[derive(Default)]
struct State {
    /// The last commit, and the hash of its tree's archive.
    commit: Option<(String, String)>,
    /// The hashes of files by their names.
    hashes: BTreeMap<String, String>,
    commits: u32,
    files: u32,
    /// In this round: that all was there, or what was not.
    verified: bool,
    lost: Option<String>,
    line: Vec<u8>,
}

impl State {
    fn hear(&mut self, line: &str) {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["@@", "commit", commit, archive] => {
                self.commit = Some((commit.into(), archive.into()));
                self.commits += 1;
            }
            ["@@", "forget", name] => drop(self.hashes.remove(name)),
            ["@@", "file", hash, name] => {
                self.hashes.insert(name.into(), hash.into());
                self.files += 1;
            }
            ["@@", "verified"] => self.verified = true,
            ["@@", "lost", ref what @ ..] => self.lost = Some(what.join(" ")),
            _ => {}
        }
    }

    /// The arguments of the script.
    fn arguments(&self, seed: u64) -> [String; 4] {
        let files: Vec<String> = self.hashes.iter().map(|(name, hash)| format!("{hash}  {name}")).collect();
        let (commit, archive) = self.commit.clone().unwrap_or_default();
        [(seed % (1 << 31)).to_string(), commit, files.join("\n"), archive]
    }
}

impl Write for State {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.hear(&String::from_utf8_lossy(&line));
            } else {
                self.line.push(*byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One boot, until the plug is pulled.
fn work(boot: &Boot, disk: &Path, smp: u8, seed: u64, plug: Duration, state: &mut State) -> Result<()> {
    let options = MachineOptions { smp: Some(smp), mem: "512M".into(), ..MachineOptions::default() };
    let image = Image { path: disk.into(), init: Some("/sbin/init".into()) };
    let machine = Machine::new(&options, boot.clone(), image)?;
    (state.verified, state.lost) = (false, None);
    state.line.clear();
    let argv = ["sh", "-s", "--"].map(String::from).into_iter().chain(state.arguments(seed));
    let (mut stderr, mut log) = (Vec::new(), Vec::new());
    let outcome = Session {
        request: Request { argv: argv.map(String::into_bytes).collect(), ..Request::default() },
        input: Input::Bytes(SCRIPT.into()),
        stdout: state,
        stderr: &mut stderr,
        trace: &mut io::sink(),
        log: &mut log,
        timeout: Some(PATIENCE),
        silence: None,
        plug: Some(plug),
        log_level: 5,
    }
    .run(&machine)?;
    let said = || format!("{}\n{}", String::from_utf8_lossy(&stderr), String::from_utf8_lossy(&log));
    if let Some(lost) = &state.lost {
        bail!("the guest misses what was synced: {lost}\n{}", said());
    }
    ensure!(outcome == Outcome::TimedOut, "the guest did not work until its end: {}\n{}", outcome.reason(), said());
    ensure!(state.verified, "the guest did not get to its work within {} s\n{}", PATIENCE.as_secs(), said());
    Ok(())
}

/// Has e2fsck repair the disk without a question.
fn repair(disk: &Path) -> Result<()> {
    let kept: PathBuf = disk.with_extension("damaged");
    ui::run_quietly(Command::new("cp").arg("--sparse=always").arg(disk).arg(&kept))?;
    let run = |how: &str| {
        let output = Command::new(E2FSCK.path()?).arg(how).arg(disk).output()?;
        anyhow::Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let (status, text) = run("-p")?;
    // e2fsck(8): 1 says that errors were corrected.
    ensure!(matches!(status, 0 | 1), "e2fsck -p: {status} (the disk is {})\n{text}", kept.display());
    let (after, rest) = run("-fn")?;
    ensure!(after == 0, "e2fsck -fn after -p: {after} (the disk is {})\n{rest}", kept.display());
    fs::remove_file(kept)?;
    Ok(())
}

/// SplitMix64 (Steele, Lea, Flood 2014): numbers that a seed decides.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_is_not_asked_for() {
        let mut state = State::default();
        state.write_all(b"@@ verified\n@@ commit aa bb\n@@ file h1 one\n@@ file h2 two\n@@ forget o").unwrap();
        assert_eq!(state.arguments(7), ["7", "aa", "h1  one\nh2  two", "bb"].map(String::from));
        state.write_all(b"ne\n@@ lost much of it\n").unwrap();
        assert_eq!(state.arguments(7)[2], "h2  two");
        assert_eq!((state.verified, state.lost.as_deref()), (true, Some("much of it")));
        assert_eq!((state.commits, state.files), (1, 2));
    }
}
