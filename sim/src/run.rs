//! Running seeds: each in a process of its own, forked from one that has done nothing yet, because the kernel's state is in
//! statics. Two workers share the seeds of a campaign.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::machine::{Config, Outcome};
use crate::scenario::{self, Scenario};
use crate::trace::Trace;

/// Host time that one seed may take before it counts as hanging, seconds.
const HANG: u32 = 60;
const WORKERS: u64 = 2;
/// Lines of the trace that are shown.
const SHOWN: usize = 80;

/// What a run of a seed came to.
pub enum Verdict {
    Passed(Outcome),
    Failed { why: String, hash: u64 },
}

/// Where a run's trace is written, for the process that runs it.
static REPORT: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();

fn report_path(scenario: &str, seed: u64) -> PathBuf {
    std::env::temp_dir().join(format!("pollux-sim-{scenario}-{seed}.trace"))
}

/// Writes the report of a run that failed, and ends its process.
pub fn report_failure(why: &str, threads: &str, hash: u64, points: u64, trace: &Trace) -> ! {
    let text = format!("{why}\nafter {points} steps, trace hash {hash:016x}\nthreads:\n{threads}\n");
    if let Some(path) = REPORT.get() {
        let _ = std::fs::write(path, text.clone() + &trace.tail(usize::MAX));
    } else {
        eprintln!("{text}{}", trace.tail(SHOWN));
    }
    let first = why.lines().next().unwrap_or_default();
    print!("FAIL {hash:016x} {first}");
    exit_now(1)
}

/// Ends the process without running destructors: the kernel's statics are in no state for them.
fn exit_now(status: i32) -> ! {
    let _ = std::io::stdout().flush();
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}

/// Runs one seed in a child process.
pub fn run_seed(scenario: &Scenario, config: &Config) -> Result<Verdict> {
    (scenario.prepare)();
    let (mut reader, writer) = pipe()?;
    // SAFETY: this process has one thread, so the child is in no way halfway through anything.
    match unsafe { libc::fork() } {
        -1 => bail!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            drop(reader);
            child(scenario, config, writer)
        }
        pid => {
            drop(writer);
            let mut text = String::new();
            reader.read_to_string(&mut text)?;
            let mut status = 0;
            // SAFETY: `status` is ours.
            unsafe { libc::waitpid(pid, &mut status, 0) };
            verdict(scenario, config, &text, status)
        }
    }
}

/// Runs a seed once more, for its whole trace.
pub fn traced(scenario: &Scenario, config: &Config) -> Result<String> {
    run_seed(scenario, &Config { keep_trace: true, ..config.clone() })?;
    Ok(std::fs::read_to_string(report_path(scenario.name, config.seed))?)
}

fn pipe() -> Result<(File, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for two.
    if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        bail!("pipe: {}", std::io::Error::last_os_error());
    }
    // SAFETY: two new descriptors that nobody else owns.
    unsafe { Ok((File::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1]))) }
}

/// The process of one seed. Its standard output is the pipe.
fn child(scenario: &Scenario, config: &Config, writer: OwnedFd) -> ! {
    use std::os::fd::AsRawFd;
    // SAFETY: plain system calls on descriptors that we own.
    unsafe {
        libc::dup2(writer.as_raw_fd(), 1);
        libc::alarm(HANG);
    }
    let _ = REPORT.set(report_path(scenario.name, config.seed));
    let (scenario, config) = (*scenario, config.clone());
    crate::heap::begin();
    std::panic::set_hook(Box::new(|info| crate::machine::fail(info.to_string())));
    let outcome = scenario::run(&scenario, config.clone());
    if config.keep_trace {
        let _ = std::fs::write(report_path(scenario.name, config.seed), crate::machine::full_trace());
    }
    print!("PASS {:016x} {} {}", outcome.hash, outcome.points, outcome.time);
    exit_now(0)
}

fn verdict(scenario: &Scenario, config: &Config, text: &str, status: i32) -> Result<Verdict> {
    let mut words = text.split(' ');
    let (word, hash) = (words.next(), words.next().and_then(|hash| u64::from_str_radix(hash, 16).ok()));
    match (word, hash) {
        (Some("PASS"), Some(hash)) => {
            let mut number = || words.next().and_then(|word| word.parse().ok()).context("a broken report");
            Ok(Verdict::Passed(Outcome { hash, points: number()?, time: number()?, stopped: false }))
        }
        (Some("FAIL"), Some(hash)) => Ok(Verdict::Failed { why: words.collect::<Vec<_>>().join(" "), hash }),
        _ => {
            let signal = status & 0x7f;
            let why = match signal {
                libc::SIGALRM => format!("it hangs: no end after {HANG} s"),
                _ => format!("its process ended with status {status:#x} ({} seed {})", scenario.name, config.seed),
            };
            Ok(Verdict::Failed { why, hash: 0 })
        }
    }
}

/// A failure as people want to see it.
pub fn show_failure(scenario: &Scenario, seed: u64, why: &str, command: &str) {
    println!("\nFAILED {} seed {seed}: {why}", scenario.name);
    let path = report_path(scenario.name, seed);
    if let Ok(report) = std::fs::read_to_string(&path) {
        let lines: Vec<&str> = report.lines().collect();
        let head = lines.iter().position(|line| line.contains("  time  cpu")).unwrap_or(0);
        lines[..head].iter().for_each(|line| println!("{line}"));
        println!("the end of {} lines in {}:", lines.len(), path.display());
        lines[head..].iter().skip((lines.len() - head).saturating_sub(SHOWN)).for_each(|line| println!("{line}"));
    }
    println!("replay: {command} --seed {seed} {}", scenario.name);
}

/// Runs seeds that failed once: lines of a scenario, a seed, and why it was remembered. Answers how many pass, and those
/// that do not.
pub fn run_known(list: &str, config: &Config) -> Result<Tally> {
    let mut tally = Tally::default();
    for line in list.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap_or_default();
        let scenario = scenario::find(name).with_context(|| format!("no scenario {name:?}"))?;
        let seed = words.next().and_then(|word| word.parse().ok()).with_context(|| format!("no seed in {line:?}"))?;
        match run_seed(scenario, &Config { seed, ..config.clone() })? {
            Verdict::Passed(outcome) => tally.pass(&outcome),
            Verdict::Failed { why, .. } => tally.failed.push((name.into(), seed, why)),
        }
    }
    Ok(tally)
}

/// Seeds of several scenarios, in turn.
pub struct Campaign<'a> {
    pub scenarios: Vec<&'a Scenario>,
    pub config: Config,
    /// The first seed.
    pub first: u64,
    pub time: Duration,
    pub most: u64,
}

/// What a campaign came to.
#[derive(Default, Debug)]
pub struct Tally {
    pub passed: u64,
    pub failed: Vec<(String, u64, String)>,
    pub points: u64,
    /// Virtual time, ns.
    pub time: u64,
}

impl Campaign<'_> {
    /// Runs until time or seeds are used up, or something fails.
    pub fn run(&self) -> Result<Tally> {
        self.scenarios.iter().for_each(|scenario| (scenario.prepare)());
        let mut readers = Vec::new();
        for worker in 0..WORKERS {
            let (reader, writer) = pipe()?;
            // SAFETY: as in `run_seed`.
            match unsafe { libc::fork() } {
                -1 => bail!("fork: {}", std::io::Error::last_os_error()),
                0 => {
                    let done = self.work(worker, &mut File::from(writer));
                    exit_now(i32::from(done.is_err()))
                }
                _ => readers.push(BufReader::new(reader)),
            }
        }
        let mut tally = Tally::default();
        for reader in readers {
            for line in reader.lines() {
                tally.add(&line?)?;
            }
        }
        // SAFETY: no pointer is passed.
        while unsafe { libc::wait(std::ptr::null_mut()) } > 0 {}
        Ok(tally)
    }

    /// Every second seed.
    fn work(&self, worker: u64, to: &mut File) -> Result<()> {
        let begin = Instant::now();
        let mut number = worker;
        while number < self.most && begin.elapsed() < self.time {
            let scenario = self.scenarios[(number % self.scenarios.len() as u64) as usize];
            let seed = self.first + number;
            let config = Config { seed, ..self.config.clone() };
            match run_seed(scenario, &config)? {
                Verdict::Passed(outcome) => writeln!(to, "PASS {} {}", outcome.points, outcome.time)?,
                Verdict::Failed { why, .. } => {
                    writeln!(to, "FAIL {} {seed} {why}", scenario.name)?;
                    return Ok(());
                }
            }
            number += WORKERS;
        }
        Ok(())
    }
}

impl Tally {
    fn pass(&mut self, outcome: &Outcome) {
        self.passed += 1;
        self.points += outcome.points;
        self.time += outcome.time;
    }

    fn add(&mut self, line: &str) -> Result<()> {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().context("a broken line from a worker");
        match word()? {
            "PASS" => {
                self.passed += 1;
                self.points += word()?.parse::<u64>()?;
                self.time += word()?.parse::<u64>()?;
            }
            _ => self.failed.push((word()?.into(), word()?.parse()?, word()?.into())),
        }
        Ok(())
    }
}
