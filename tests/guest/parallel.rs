//! All processors work, at once; the machine is small when idle and quick to start.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use pollux_tests::lab::{self, options, run, text_of};
use pollux_tests::{kernel, run_script};
use xtask::machine::{KernelKind, MachineOptions};

use crate::trial;

pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        trial("parallel::two_loops_have_a_processor_each", two_loops),
        trial("parallel::every_cpu_runs_programs::smp_4", || every_cpu(4)),
        trial("parallel::every_cpu_runs_programs::smp_8", || every_cpu(8)),
        trial("parallel::a_short_stress_loses_no_memory", stress),
        trial("parallel::a_file_larger_than_memory_can_be_mapped", pressure),
        trial("parallel::who_takes_all_memory_is_ended", hogs),
        trial("parallel::the_kernel_s_own_memory_cannot_be_used_up", mappings),
        trial("parallel::pipes_cannot_take_all_of_memory", full_pipes),
    ];
    if kernel() == KernelKind::Pollux {
        trials.push(trial("parallel::pairs_on_eight_cpus_contend_for_no_lock", contention));
        trials.push(trial("size::the_image_is_below_4_mib", image_size));
        trials.push(trial("size::threads_that_wait_take_less_than_4_kib", sleepers));
        trials.push(trial("size::idle_memory_is_below_24_mib", idle_memory));
    }
    trials
}

/// Measured in the guest's processor time: what else the host does holds up both clocks.
fn two_loops() -> Result<()> {
    let options = MachineOptions { smp: Some(2), ..options() };
    let text = text_of(run(&options, &["probe", "spin", "2", "600000000"])?)?;
    let loops: Vec<(f64, f64)> = text.lines().filter_map(parse_loop).collect();
    ensure!(loops.len() == 2, "{text:?}");
    for (took, had) in loops {
        ensure!(took <= 1.2 * had, "a loop that took {took} ms had a processor for {had} ms of them");
    }
    Ok(())
}

/// Milliseconds that a loop took, and that it had a processor.
fn parse_loop(line: &str) -> Option<(f64, f64)> {
    let (took, had) = line.split_once(' ')?;
    Some((took.parse().ok()?, had.parse().ok()?))
}

/// Each CPU has a pair of processes of its own, which exchange messages through pipes, futexes, event counters and Unix sockets.
/// That a lock which all of them use is seen, shows what follows.
fn contention() -> Result<()> {
    let options = MachineOptions { smp: Some(8), ..options() };
    let text = text_of(run(&options, &["probe", "pairs", "3000"])?)?;
    let (pairs, one_pipe) = text.split_once("one pipe\n").with_context(|| format!("{text:?}"))?;
    let working = "each of 8 has made a round trip: true\n";
    ensure!(pairs == format!("pairs\n{working}"), "locks that independent pairs share:\n{pairs}");
    let contended = one_pipe.strip_prefix(working).with_context(|| format!("{text:?}"))?;
    ensure!(contended.contains("fs::pipe"), "the lock of the pipe is not among those contended:\n{contended}");
    Ok(())
}

/// A hundred thousand threads wait for one futex in 1 GiB, and are woken by one call. Under -icount a nanosecond is an instruction.
fn sleepers() -> Result<()> {
    let options = MachineOptions { mem: "1G".into(), icount: true, smp: None, ..options() };
    let text = text_of(run(&options, &["probe", "sleepers", "100000"])?)?;
    let number = |before: &str| -> Result<u64> {
        let (_, rest) = text.split_once(before).with_context(|| format!("no {before:?} in {text:?}"))?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
        Ok(digits.parse()?)
    };
    ensure!(number("waits: ")? < 4096, "{text}");
    ensure!(number("woken: ")? == 100_000 && number("the call ")? < 1500, "{text}");
    ensure!(number("left behind: ")? < 64, "{text}");
    Ok(())
}

/// Pages of the file go from memory and come back. (The disk of the machine is thrown away.)
fn pressure() -> Result<()> {
    let options = MachineOptions { smp: Some(2), mem: "64M".into(), ..options() };
    let text = text_of(run(&options, &["probe", "pressure", "96"])?)?;
    ensure!(text == "0 wrong\n", "{text:?}");
    Ok(())
}

/// ENOMEM and ENOBUFS, and a kernel that goes on.
fn full_pipes() -> Result<()> {
    let options = MachineOptions { smp: Some(2), mem: "64M".into(), ..options() };
    let text = text_of(run(&options, &["probe", "pipes"])?)?;
    ensure!(text == "12 Some(105) 65536\n", "{text:?}");
    Ok(())
}

fn hogs() -> Result<()> {
    let options = MachineOptions { smp: Some(2), mem: "128M".into(), ..options() };
    let text = text_of(run(&options, &["probe", "hogs"])?)?;
    ensure!(text == "3 killed, bystander 0x500\n", "{text:?}");
    Ok(())
}

fn mappings() -> Result<()> {
    let options = MachineOptions { smp: Some(2), mem: "64M".into(), ..options() };
    let text = text_of(run(&options, &["probe", "mappings", "24"])?)?;
    ensure!(text == "some started: true, all ended by a signal: true\n", "{text:?}");
    Ok(())
}

fn every_cpu(cpus: u8) -> Result<()> {
    let options = MachineOptions { smp: Some(cpus), ..options() };
    let script = format!("probe cpus {cpus} 6; grep '^cpu[0-9]' /proc/stat; grep -c ^processor /proc/cpuinfo");
    let text = text_of(run_script(&options, &script)?)?;
    let expected: Vec<String> = (0..cpus).map(|cpu| cpu.to_string()).collect();
    ensure!(text.lines().next() == Some(&expected.join(" ")), "getcpu: {text}");
    for cpu in 0..cpus {
        let ticks = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("cpu{cpu} ")))
            .and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
            .with_context(|| format!("/proc/stat has no cpu{cpu}: {text}"))?;
        ensure!(ticks > 10, "cpu{cpu} ran programs for {ticks} ticks only: {text}");
    }
    ensure!(text.lines().last() == Some(&cpus.to_string()), "/proc/cpuinfo: {text}");
    Ok(())
}

fn stress() -> Result<()> {
    let options = MachineOptions { smp: Some(4), ..options() };
    let machine = lab::machine(&options, "test")?;
    xtask::test::stress_on(&machine, 20, Duration::from_secs(150)).map(drop)
}

fn image_size() -> Result<()> {
    let size = lab::boot()?.kernel.metadata()?.len();
    ensure!(size < 4 << 20, "{size} bytes");
    Ok(())
}

fn idle_memory() -> Result<()> {
    let script = "{ echo 3 > /proc/sys/vm/drop_caches; } 2> /dev/null; grep MemFree /proc/meminfo";
    let text = text_of(run(&options(), &["sh", "-c", script])?)?;
    let free: u64 =
        text.split_whitespace().find_map(|word| word.parse().ok()).with_context(|| format!("no figure in {text:?}"))?;
    let used = 512 * 1024 - free;
    ensure!(used < 24 * 1024, "{used} KiB are in use");
    Ok(())
}
