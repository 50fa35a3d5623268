//! Several CPUs: conversations between two of them, and how much they get in each other's way. Only by time.

use std::ffi::CStr;
use std::ptr;

use super::messages::{Ends, ping_pong_on, two_pipes};
use super::{Row, futex, row};
use crate::measure::{Bench, Result, Stop, median, now};
use crate::peer::{Kind, Peer};
use crate::sys;

pub const BY_TIME: &[Row] = &[
    row("futex_pingpong_threads_across", |bench| futex_across(bench, Kind::Thread)),
    row("futex_pingpong_processes_across", |bench| futex_across(bench, Kind::Process)),
    row("pipe_pingpong_threads_across", |bench| pipe_across(bench, Kind::Thread)),
    row("pipe_pingpong_processes_across", |bench| pipe_across(bench, Kind::Process)),
    row("pipe_pingpong_one_cpu", |bench| pairs(bench, 1)),
    row("pipe_pingpong_two_pairs", |bench| pairs(bench, 2)),
    row("hackbench_10_groups", hackbench),
];

/// The calling thread goes to the first CPU; answers where the other one has to go.
fn apart() -> Result<Option<usize>> {
    sys::expect(sys::cpus() > 1, "there is one CPU only: --smp 2")?;
    sys::pin(0)?;
    Ok(Some(1))
}

fn futex_across(bench: &Bench, kind: Kind) -> Result<f64> {
    futex::ping_pong(bench, kind, apart()?)
}

fn pipe_across(bench: &Bench, kind: Kind) -> Result<f64> {
    let (here, there) = two_pipes()?;
    ping_pong_on::<1>(bench, kind, here, there, apart()?)
}

/// So many pairs that have nothing to do with each other, each on a CPU of its own: the time in which every pair makes one
/// round trip. What it is more than with one pair is what CPUs cost each other.
fn pairs(bench: &Bench, count: usize) -> Result<f64> {
    const PARTS: usize = 7;
    const ROUND_TRIPS: u64 = 2_000;
    sys::expect(sys::cpus() >= count, "there are too few CPUs: --smp 2")?;
    let round_trips = bench.count(ROUND_TRIPS);
    let (start, starter) = sys::pipe()?;
    let (end, ender) = sys::pipe()?;
    let leader = |cpu: usize| {
        Peer::start(Kind::Process, move || {
            sys::pin(cpu)?;
            let (here, there) = two_pipes()?;
            let partner = Peer::start(Kind::Process, move || echo(there, round_trips * PARTS as u64))?;
            for _ in 0..PARTS {
                sys::read_exact(start, &mut [0])?;
                for _ in 0..round_trips {
                    sys::write_all(here.to, b"x")?;
                    sys::read_exact(here.from, &mut [0])?;
                }
                sys::write_all(ender, b"x")?;
            }
            partner.join()
        })
    };
    let leaders = (0..count).map(leader).collect::<Result<Vec<_>>>()?;
    let mut costs = Vec::with_capacity(PARTS);
    for _ in 0..PARTS {
        let begin = now();
        for _ in 0..count {
            sys::write_all(starter, b"x")?;
        }
        for _ in 0..count {
            sys::read_exact(end, &mut [0])?;
        }
        costs.push((now() - begin) as f64 / round_trips as f64);
    }
    leaders.into_iter().try_for_each(Peer::join)?;
    // The first part warms up.
    costs.remove(0);
    Ok(median(costs))
}

fn echo(ends: Ends, count: u64) -> Result {
    let mut message = [0];
    (0..count).try_for_each(|_| {
        sys::read_exact(ends.from, &mut message)?;
        sys::write_all(ends.to, &message)
    })
}

/// Ten groups of twenty senders and twenty receivers, of rt-tests: the time of one message by its own clock, which does not
/// include starting the 400 processes.
fn hackbench(bench: &Bench) -> Result<f64> {
    const LOOPS: u64 = 20;
    const MESSAGES: u64 = 10 * 20 * 20;
    let loops = bench.count(LOOPS);
    let words = ["hackbench", "-g", "10", "-l", &loops.to_string()].map(|word| format!("{word}\0"));
    let text = output_of(c"/usr/bin/hackbench", &words)?;
    let seconds = text.lines().find_map(|line| line.strip_prefix("Time: ")?.trim().parse::<f64>().ok());
    let Some(seconds) = seconds else { return Stop::failed(format!("hackbench said {text:?}")) };
    Ok(seconds * 1e9 / (loops * MESSAGES) as f64)
}

/// What a program prints that must end well. The words end with a NUL.
fn output_of(path: &CStr, words: &[String]) -> Result<String> {
    let (reader, writer) = sys::pipe()?;
    let mut pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    pointers.push(ptr::null());
    let child = sys::fork()?;
    if child == 0 {
        sys::raw(libc::SYS_dup3, [writer as usize, 1, 0]);
        let environment = [ptr::null::<u8>()];
        sys::raw(libc::SYS_execve, [path.as_ptr() as usize, pointers.as_ptr() as usize, environment.as_ptr() as usize]);
        sys::exit(127);
    }
    sys::close(writer);
    let text = sys::read_to_end(reader);
    sys::close(reader);
    sys::wait_well(child)?;
    Ok(text)
}
