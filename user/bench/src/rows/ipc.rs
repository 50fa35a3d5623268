//! System V and POSIX messages and semaphores between processes.

use super::{Row, row};
use crate::measure::{Bench, Result};
use crate::peer::{Kind, Peer};
use crate::sys;

pub const ROWS: &[Row] = &[
    row("sem_pingpong_processes", sem_ping_pong),
    row("msg_pingpong_processes", msg_ping_pong),
    row("mqueue_pingpong_processes", mqueue_ping_pong),
];

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

/// One queue, two types of messages: each party receives one and sends the other.
fn msg_ping_pong(bench: &Bench) -> Result<f64> {
    let queue = sys::call("msgget", libc::SYS_msgget, [libc::IPC_PRIVATE as usize, 0o600])?;
    let send = move |kind: i64| {
        let message = [kind, 0];
        sys::call("msgsnd", libc::SYS_msgsnd, [queue, message.as_ptr() as usize, 1, 0]).map(drop)
    };
    let receive = move |kind: i64| {
        let mut message = [0i64; 2];
        let place = message.as_mut_ptr() as usize;
        sys::call("msgrcv", libc::SYS_msgrcv, [queue, place, 1, kind as usize, 0]).map(drop)
    };
    let all = bench.all(PING_PONGS);
    let peer = Peer::start(Kind::Process, move || {
        for _ in 0..all {
            receive(1)?;
            send(2)?;
        }
        Ok(())
    })?;
    let result = bench.per_exchange(PING_PONGS, || {
        send(1)?;
        receive(2)
    });
    let joined = peer.join();
    sys::call("msgctl", libc::SYS_msgctl, [queue, IPC_RMID, 0])?;
    joined.and(result)
}

/// Two queues, one each way.
fn mqueue_ping_pong(bench: &Bench) -> Result<f64> {
    let make = |name: &std::ffi::CStr| -> Result<usize> {
        let attributes = [0i64, 10, 8, 0, 0, 0, 0, 0];
        let flags = (libc::O_CREAT | libc::O_RDWR) as usize;
        let arguments = [name.as_ptr() as usize, flags, 0o600, attributes.as_ptr() as usize];
        let queue = sys::call("mq_open", libc::SYS_mq_open, arguments)?;
        sys::call("mq_unlink", libc::SYS_mq_unlink, [name.as_ptr() as usize])?;
        Ok(queue)
    };
    let (to, fro) = (make(c"bench.to")?, make(c"bench.fro")?);
    let send = move |queue: usize| {
        let byte = 1u8;
        sys::call("mq_timedsend", libc::SYS_mq_timedsend, [queue, &raw const byte as usize, 1, 0, 0]).map(drop)
    };
    let receive = move |queue: usize| {
        let mut message = [0u8; 8];
        let place = message.as_mut_ptr() as usize;
        sys::call("mq_timedreceive", libc::SYS_mq_timedreceive, [queue, place, 8, 0, 0]).map(drop)
    };
    let all = bench.all(PING_PONGS);
    let peer = Peer::start(Kind::Process, move || {
        for _ in 0..all {
            receive(to)?;
            send(fro)?;
        }
        Ok(())
    })?;
    let result = bench.per_exchange(PING_PONGS, || {
        send(to)?;
        receive(fro)
    });
    peer.join()?;
    result
}
