//! The simulator's command line; usually called by `cargo xtask sim`.

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Parser;
use pollux_sim::machine::Config;
use pollux_sim::run::{Campaign, Tally, Verdict, run_known, run_seed, show_failure, traced};
use pollux_sim::scenario::{self, Scenario};

#[global_allocator]
static HEAP: pollux_sim::heap::Heap = pollux_sim::heap::Heap;

/// Runs the kernel on simulated machines, one for each seed.
#[derive(Parser)]
#[command(name = "cargo xtask sim", max_term_width = 100)]
struct Options {
    /// Run this seed only, and twice: the trace must be the same
    #[arg(long)]
    seed: Option<u64>,
    /// Switch points after which a run counts as endless
    #[arg(long, default_value_t = 3_000_000)]
    steps: u64,
    /// Run new seeds for so long
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Run at most so many seeds
    #[arg(long, default_value_t = u64::MAX)]
    seeds: u64,
    /// The first seed; else the time of day decides
    #[arg(long)]
    first: Option<u64>,
    /// CPUs of each machine; else the seed decides
    #[arg(long, default_value_t = 0)]
    cpus: usize,
    /// Name the scenarios and end
    #[arg(long)]
    list: bool,
    /// Run the seeds in this file, which failed once, and no others
    #[arg(long, value_name = "FILE")]
    known: Option<std::path::PathBuf>,
    /// With --seed: print the whole trace, also of a run that goes well
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Only these scenarios
    scenarios: Vec<String>,
}

const COMMAND: &str = "cargo xtask sim";

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Options) -> Result<bool> {
    if options.list {
        scenario::ALL.iter().for_each(|scenario| println!("{:14} {}", scenario.name, scenario.about));
        return Ok(true);
    }
    let mut scenarios: Vec<&Scenario> = Vec::new();
    for name in &options.scenarios {
        scenarios.push(scenario::find(name).with_context(|| format!("no scenario {name:?}: see --list"))?);
    }
    if scenarios.is_empty() {
        scenarios = scenario::ALL.iter().collect();
    }
    let config = Config { seed: 0, steps: options.steps, cpus: options.cpus, memory: 64, keep_trace: false };
    if let Some(path) = &options.known {
        let list = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        return Ok(show(&run_known(&list, &config)?));
    }
    match options.seed {
        Some(seed) => replay(&scenarios, &Config { seed, ..config }, options.trace),
        None => campaign(scenarios, config, options),
    }
}

fn replay(scenarios: &[&Scenario], config: &Config, trace: bool) -> Result<bool> {
    let mut good = true;
    for scenario in scenarios {
        let (first, second) = (run_seed(scenario, config)?, run_seed(scenario, config)?);
        if trace {
            print!("{}", traced(scenario, config)?);
        }
        let hash = |verdict: &Verdict| match verdict {
            Verdict::Passed(outcome) => outcome.hash,
            Verdict::Failed { hash, .. } => *hash,
        };
        if hash(&first) != hash(&second) {
            println!(
                "{} seed {}: two runs differ: {:016x}, {:016x}",
                scenario.name,
                config.seed,
                hash(&first),
                hash(&second)
            );
            good = false;
        }
        match first {
            Verdict::Passed(outcome) => println!(
                "{} seed {}: passed after {} steps and {:.3} ms, trace hash {:016x}",
                scenario.name,
                config.seed,
                outcome.points,
                outcome.time as f64 / 1e6,
                outcome.hash
            ),
            Verdict::Failed { why, .. } => {
                show_failure(scenario, config.seed, &why, COMMAND);
                good = false;
            }
        }
    }
    Ok(good)
}

fn campaign(scenarios: Vec<&Scenario>, config: Config, options: &Options) -> Result<bool> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let first = options.first.unwrap_or(clock * 100_000);
    let time = Duration::from_secs_f64(options.minutes * 60.0);
    println!("seeds from {first} on, for {time:?}");
    let tally = Campaign { scenarios, config, first, time, most: options.seeds }.run()?;
    Ok(show(&tally))
}

fn show(tally: &Tally) -> bool {
    println!(
        "{} seeds passed, {} failed; {} steps, {:.1} s of virtual time",
        tally.passed,
        tally.failed.len(),
        tally.points,
        tally.time as f64 / 1e9
    );
    for (name, seed, why) in &tally.failed {
        if let Some(scenario) = scenario::find(name) {
            show_failure(scenario, *seed, why, COMMAND);
        }
    }
    tally.failed.is_empty()
}
