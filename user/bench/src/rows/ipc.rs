//! System V and POSIX messages and semaphores between processes.

use super::{Row, row};
use crate::measure::{Bench, Result};
use crate::peer::{Kind, Peer};
use crate::sys;

pub const ROWS: &[Row] = &[row("sem_pingpong_processes", sem_ping_pong)];

const PING_PONGS: u64 = 2_000;
const IPC_RMID: usize = 0;

/// Two semaphores: each party waits for one and raises the other.
fn sem_ping_pong(bench: &Bench) -> Result<f64> {
    let set = sys::call("semget", libc::SYS_semget, [libc::IPC_PRIVATE as usize, 2, 0o600])?;
    let operate = move |index: u16, delta: i16| {
        let operation = libc::sembuf { sem_num: index, sem_op: delta, sem_flg: 0 };
        sys::call("semop", libc::SYS_semop, [set, &raw const operation as usize, 1]).map(drop)
    };
    let all = bench.all(PING_PONGS);
    let peer = Peer::start(Kind::Process, move || {
        for _ in 0..all {
            operate(0, -1)?;
            operate(1, 1)?;
        }
        Ok(())
    })?;
    let result = bench.per_exchange(PING_PONGS, || {
        operate(0, 1)?;
        operate(1, -1)
    });
    let joined = peer.join();
    sys::call("semctl", libc::SYS_semctl, [set, 0, IPC_RMID, 0])?;
    joined.and(result)
}
