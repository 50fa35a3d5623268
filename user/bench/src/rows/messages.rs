//! Pipes, FIFOs and event counters: to and fro, and in bulk.

use super::{Row, row};
use crate::measure::{Bench, Result};
use crate::peer::{Kind, Peer};
use crate::sys;

pub const ROWS: &[Row] = &[
    row("pipe_create_close", pipe_create_close),
    row("pipe_pingpong_processes", |bench| pipe_ping_pong(bench, Kind::Process)),
    row("pipe_pingpong_threads", |bench| pipe_ping_pong(bench, Kind::Thread)),
    row("fifo_pingpong_processes", fifo_ping_pong),
    row("eventfd_pingpong_processes", |bench| eventfd_ping_pong(bench, Kind::Process)),
    row("eventfd_pingpong_threads", |bench| eventfd_ping_pong(bench, Kind::Thread)),
    row("pipe_throughput_64k_processes", |bench| pipe_throughput(bench, Kind::Process)),
    row("pipe_throughput_64k_threads", |bench| pipe_throughput(bench, Kind::Thread)),
];

const PING_PONGS: u64 = 2_000;

/// Where one party reads, and where it writes.
#[derive(Clone, Copy)]
pub struct Ends {
    pub from: i32,
    pub to: i32,
}

/// Two parties that send a message of so many bytes to and fro: the cost of one round trip.
pub fn ping_pong<const BYTES: usize>(bench: &Bench, kind: Kind, here: Ends, there: Ends) -> Result<f64> {
    ping_pong_on::<BYTES>(bench, kind, here, there, None)
}

/// The same with the other party on a CPU of its choice, or wherever this one may be.
pub fn ping_pong_on<const BYTES: usize>(
    bench: &Bench,
    kind: Kind,
    here: Ends,
    there: Ends,
    cpu: Option<usize>,
) -> Result<f64> {
    let all = bench.all(PING_PONGS);
    let peer = Peer::start(kind, move || {
        cpu.map_or(Ok(()), sys::pin)?;
        let mut message = [0; BYTES];
        for _ in 0..all {
            sys::read_exact(there.from, &mut message)?;
            sys::write_all(there.to, &message)?;
        }
        Ok(())
    })?;
    let mut message = [1; BYTES];
    let result = bench.per_exchange(PING_PONGS, || {
        sys::write_all(here.to, &message)?;
        sys::read_exact(here.from, &mut message)
    });
    peer.join()?;
    result
}

/// One party sends blocks of 64 KiB to the other: the cost of one. The count takes in what waits
/// in the middle, because the receiver acknowledges the last byte.
pub fn throughput(bench: &Bench, kind: Kind, here: Ends, there: Ends) -> Result<f64> {
    const BLOCK: usize = 64 * 1024;
    const ROUNDS: u64 = 4;
    const BLOCKS: u64 = 32;
    let all = bench.count(ROUNDS) + 1;
    let peer = Peer::start(kind, move || {
        let mut block = vec![0; BLOCK];
        for _ in 0..all {
            for _ in 0..BLOCKS {
                sys::read_exact(there.from, &mut block)?;
            }
            sys::write_all(there.to, b"k")?;
        }
        Ok(())
    })?;
    let block = vec![1; BLOCK];
    bench.level()?;
    let result = bench.per_round(ROUNDS, BLOCKS, |watch| {
        watch.time(|| {
            for _ in 0..BLOCKS {
                sys::write_all(here.to, &block)?;
            }
            sys::read_exact(here.from, &mut [0])
        })
    });
    peer.join()?;
    result
}

/// Two channels, one each way, as two parties see them.
pub fn two_pipes() -> Result<(Ends, Ends)> {
    let (near_from, far_to) = sys::pipe()?;
    let (far_from, near_to) = sys::pipe()?;
    Ok((Ends { from: near_from, to: near_to }, Ends { from: far_from, to: far_to }))
}

fn pipe_create_close(bench: &Bench) -> Result<f64> {
    bench.per_operation(5_000, || {
        let (reader, writer) = sys::pipe()?;
        sys::close(reader);
        sys::close(writer);
        Ok(())
    })
}

fn pipe_ping_pong(bench: &Bench, kind: Kind) -> Result<f64> {
    let (here, there) = two_pipes()?;
    ping_pong::<1>(bench, kind, here, there)
}

fn fifo_ping_pong(bench: &Bench) -> Result<f64> {
    let make = |path: &std::ffi::CStr| -> Result<i32> {
        let mode = (libc::S_IFIFO | 0o600) as usize;
        sys::call("mknodat", libc::SYS_mknodat, [libc::AT_FDCWD as usize, path.as_ptr() as usize, mode, 0])?;
        // Open for both, so that nobody waits for the other side.
        let fifo = sys::open(path, libc::O_RDWR);
        sys::unlink(path)?;
        fifo
    };
    let (to, fro) = (make(c"/tmp/bench.to")?, make(c"/tmp/bench.fro")?);
    ping_pong::<1>(bench, Kind::Process, Ends { from: fro, to }, Ends { from: to, to: fro })
}

fn eventfd_ping_pong(bench: &Bench, kind: Kind) -> Result<f64> {
    let make = || sys::call("eventfd2", libc::SYS_eventfd2, [0, 0]).map(|fd| fd as i32);
    let (to, fro) = (make()?, make()?);
    ping_pong::<8>(bench, kind, Ends { from: fro, to }, Ends { from: to, to: fro })
}

fn pipe_throughput(bench: &Bench, kind: Kind) -> Result<f64> {
    let (here, there) = two_pipes()?;
    throughput(bench, kind, here, there)
}
