//! Handing the CPU over.

use super::{Row, row};
use crate::measure::{Bench, Result};
use crate::peer::{Kind, Peer};
use crate::sys;

pub const ROWS: &[Row] = &[
    row("sched_yield_alone", |bench| bench.per_operation(10_000, yield_cpu)),
    row("sched_yield_processes", |bench| yield_between(bench, Kind::Process)),
    row("sched_yield_threads", |bench| yield_between(bench, Kind::Thread)),
    row("ring_2_processes", |bench| ring(bench, 2)),
    row("ring_8_processes", |bench| ring(bench, 8)),
    row("ring_16_processes", |bench| ring(bench, 16)),
];

fn yield_cpu() -> Result {
    sys::call("sched_yield", libc::SYS_sched_yield, []).map(drop)
}

/// Two that yield to each other on one CPU: the cost of one call, with what it leads to.
fn yield_between(bench: &Bench, kind: Kind) -> Result<f64> {
    const COUNT: u64 = 5_000;
    sys::pin(0)?;
    let (start, starter) = sys::pipe()?;
    let all = bench.all(COUNT);
    let peer = Peer::start(kind, move || {
        sys::read_exact(start, &mut [0])?;
        (0..all).try_for_each(|_| yield_cpu())
    })?;
    bench.level()?;
    sys::write_all(starter, b"x")?;
    let result = bench.per_operation(COUNT, yield_cpu);
    peer.join()?;
    // Both have called as often.
    result.map(|cost| cost / 2.0)
}

/// So many processes in a ring, each with a pipe to the next, and one byte that goes round: the
/// cost of one hop.
fn ring(bench: &Bench, size: u64) -> Result<f64> {
    const HOPS: u64 = 4_000;
    let rounds = HOPS / size;
    let all = bench.all(rounds);
    let pipes = (0..size).map(|_| sys::pipe()).collect::<Result<Vec<_>>>()?;
    let station = |index: usize| (pipes[index].0, pipes[(index + 1) % pipes.len()].1);
    let peers = (1..pipes.len()).map(|index| {
        let (from, to) = station(index);
        Peer::start(Kind::Process, move || {
            let mut token = [0];
            (0..all).try_for_each(|_| {
                sys::read_exact(from, &mut token)?;
                sys::write_all(to, &token)
            })
        })
    });
    let peers = peers.collect::<Result<Vec<_>>>()?;
    let (from, to) = station(0);
    let mut token = [1];
    let result = bench.per_exchange(rounds, || {
        sys::write_all(to, &token)?;
        sys::read_exact(from, &mut token)
    });
    peers.into_iter().try_for_each(Peer::join)?;
    result.map(|cost| cost / size as f64)
}
