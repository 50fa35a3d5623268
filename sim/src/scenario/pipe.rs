//! Pipes: every byte arrives once and in order.

use super::Setup;
use crate::user::{Program, U, errno, program};

const NR_FCNTL: u64 = 25;
const NR_CLOSE: u64 = 57;
const NR_PIPE2: u64 = 59;
const NR_READ: u64 = 63;
const NR_WRITE: u64 = 64;
const NR_SPLICE: u64 = 76;
const NR_KILL: u64 = 129;
const NR_SOCKETPAIR: u64 = 199;
const NR_WAIT4: u64 = 260;
const AF_UNIX: u64 = 1;
const SOCK_STREAM: u64 = 1;
const EINTR: i64 = -4;
const EAGAIN: i64 = -11;
const SIGKILL: u64 = 9;
const SIGUSR1: u64 = 10;
const F_SETPIPE_SZ: u64 = 1031;
const SPLICE_F_NONBLOCK: u64 = 2;

/// The byte at a position of a stream.
fn byte_at(stream: u64, pos: u64) -> u8 {
    ((pos * 167 + stream * 41) ^ (pos >> 7)) as u8
}

impl U {
    pub async fn pipe(self) -> (u64, u64) {
        let fds = self.scratch(8);
        let answer = self.call(NR_PIPE2, &[fds, 0]).await;
        assert!(answer == 0, "pipe: {}", errno(answer));
        (self.load(fds).await.into(), self.load(fds + 4).await.into())
    }

    /// The end that is read and the one that is written of a pipe of this capacity, or else of a pair of Unix sockets.
    async fn way(self, capacity: Option<u64>) -> (u64, u64) {
        let Some(capacity) = capacity else {
            let fds = self.scratch(8);
            assert_eq!(self.call(NR_SOCKETPAIR, &[AF_UNIX, SOCK_STREAM, 0, fds]).await, 0, "socketpair");
            return (self.load(fds).await.into(), self.load(fds + 4).await.into());
        };
        let (reader, writer) = self.pipe().await;
        assert!(self.call(NR_FCNTL, &[writer, F_SETPIPE_SZ, capacity]).await > 0, "F_SETPIPE_SZ");
        (reader, writer)
    }

    pub async fn close(self, fd: u64) {
        assert_eq!(self.call(NR_CLOSE, &[fd]).await, 0, "close of {fd}");
    }

    /// Writes all of it, whatever interrupts.
    pub async fn write_all(self, fd: u64, addr: u64, len: u64) {
        let mut done = 0;
        while done < len {
            match self.call(NR_WRITE, &[fd, addr + done, len - done]).await {
                EINTR => {}
                n if n > 0 => done += n as u64,
                other => panic!("write: {}", errno(other)),
            }
        }
    }

    /// Waits for a child; answers its status.
    pub async fn wait_for(self, pid: i64) -> u32 {
        let status = self.scratch(4);
        loop {
            match self.call(NR_WAIT4, &[pid as u64, status, 0, 0]).await {
                EINTR => {}
                answer => {
                    assert!(answer == pid, "wait4({pid}): {}", errno(answer));
                    return self.load(status).await;
                }
            }
        }
    }
}

/// One writer, one reader, pieces of any size; either side is interrupted.
pub fn stream(setup: &mut Setup) -> Program {
    let total = setup.rng.range(1, 200_000);
    let piece = *setup.rng.pick(&[100, 5_000, 70_000, 200_000]);
    let signals = *setup.rng.pick(&[0, 20, 80]);
    let restart = if setup.rng.one_in(2) { 0x1000_0000 } else { 0 };
    program(move |u| async move {
        u.handle(SIGUSR1 as i32, restart, |u, _| async move { u.pause(2000).await }).await;
        let (reader, writer) = u.pipe().await;
        let child = u
            .fork(program(move |u| async move {
                u.close(reader).await;
                produce(u, writer, piece, total).await
            }))
            .await;
        let consumer = u
            .fork(program(move |u| async move {
                u.close(writer).await;
                consume(u, reader, piece, total).await
            }))
            .await;
        u.close(reader).await;
        u.close(writer).await;
        for _ in 0..signals {
            u.pause(30_000).await;
            u.call(NR_KILL, &[if u.random(2) == 0 { child } else { consumer } as u64, SIGUSR1]).await;
        }
        assert_eq!(u.wait_for(child).await, 0);
        assert_eq!(u.wait_for(consumer).await, 0);
        0
    })
}

/// Writes a stream in pieces.
async fn produce(u: U, writer: u64, piece: u64, total: u64) -> i32 {
    let buffer = u.map(piece, false).await;
    let mut pos = 0;
    while pos < total {
        let len = (1 + u.random(piece)).min(total - pos);
        let bytes: Vec<u8> = (pos..pos + len).map(|pos| byte_at(0, pos)).collect();
        u.write_bytes(buffer, &bytes).await;
        u.write_all(writer, buffer, len).await;
        pos += len;
    }
    0
}

/// Reads it to its end.
async fn consume(u: U, reader: u64, piece: u64, total: u64) -> i32 {
    let buffer = u.map(piece, false).await;
    let mut pos = 0;
    loop {
        match u.call(NR_READ, &[reader, buffer, 1 + u.random(piece)]).await {
            0 => break,
            EINTR => {}
            n if n > 0 => {
                let bytes = u.read_bytes(buffer, n as usize).await;
                let wrong = (pos..).zip(&bytes).find(|(pos, byte)| byte_at(0, *pos) != **byte);
                assert!(wrong.is_none(), "byte {wrong:?} of the stream is wrong");
                pos += n as u64;
            }
            other => panic!("read: {}", errno(other)),
        }
    }
    assert_eq!(pos, total, "bytes read until the end");
    0
}

async fn splice_until_end(u: U, from: u64, to: u64, piece: u64) -> i32 {
    loop {
        let flags = if u.random(3) == 0 { SPLICE_F_NONBLOCK } else { 0 };
        match u.call(NR_SPLICE, &[from, 0, to, 0, 1 + u.random(piece), flags]).await {
            0 => return 0,
            EINTR => {}
            EAGAIN => u.pause(10_000).await,
            n => assert!(n > 0, "splice: {}", errno(n)),
        }
    }
}

/// What comes through a pipe is spliced into another, or into a Unix socket or out of one, by several who are interrupted and killed:
/// nothing is lost, nor changes its place.
pub fn spliced(setup: &mut Setup) -> Program {
    let total = setup.rng.range(1, 60_000);
    let piece = *setup.rng.pick(&[100, 5_000, 20_000]);
    let (splicers, kills) = (setup.rng.range(1, 4), setup.rng.range(0, 6));
    let mut sizes = [0; 2].map(|_| Some(*setup.rng.pick(&[4096, 8192, 65_536])));
    if let Some(size) = sizes.get_mut(setup.rng.range(0, 3) as usize) {
        *size = None;
    }
    let signals = *setup.rng.pick(&[0, 20]);
    program(move |u| async move {
        u.handle(SIGUSR1 as i32, 0, |u, _| async move { u.pause(2000).await }).await;
        let (first_out, first_in) = u.way(sizes[0]).await;
        let (second_out, second_in) = u.way(sizes[1]).await;
        let writer = u
            .fork(program(move |u| async move {
                for fd in [first_out, second_out, second_in] {
                    u.close(fd).await;
                }
                produce(u, first_in, piece, total).await
            }))
            .await;
        u.close(first_in).await;
        let reader = u
            .fork(program(move |u| async move {
                u.close(first_out).await;
                u.close(second_in).await;
                consume(u, second_out, piece, total).await
            }))
            .await;
        u.close(second_out).await;
        let splicer = || program(move |u| splice_until_end(u, first_out, second_in, piece));
        let mut splicing = Vec::new();
        for _ in 0..splicers {
            splicing.push(u.fork(splicer()).await);
        }
        for turn in 0..signals + kills {
            u.pause(20_000).await;
            let at = u.random(splicing.len() as u64) as usize;
            if turn < signals {
                u.call(NR_KILL, &[splicing[at] as u64, SIGUSR1]).await;
                continue;
            }
            u.call(NR_KILL, &[splicing[at] as u64, SIGKILL]).await;
            u.wait_for(splicing[at]).await;
            splicing[at] = u.fork(splicer()).await;
        }
        u.close(first_out).await;
        u.close(second_in).await;
        for child in splicing.into_iter().chain([writer, reader]) {
            assert_eq!(u.wait_for(child).await, 0);
        }
        0
    })
}

/// Records of up to PIPE_BUF bytes are atomic (pipe(7)): writers do not mix, readers that ask for one get one. All
/// records have one size, so that they never lie across two reads.
pub fn records(setup: &mut Setup) -> Program {
    let size = *setup.rng.pick(&[8, 64, 512, 2048, 4096]);
    let (writers, readers) = (setup.rng.range(1, 5), setup.rng.range(1, 4));
    let count = setup.rng.range(2, 30);
    program(move |u| async move {
        let seen = u.map(writers * count * 4, true).await;
        let (reader, writer) = u.pipe().await;
        let mut children = Vec::new();
        for stream in 0..writers {
            let body = program(move |u| async move {
                u.close(reader).await;
                let buffer = u.map(size, false).await;
                for number in 0..count {
                    let mut record: Vec<u8> = (0..size).map(|pos| byte_at(stream, number * size + pos)).collect();
                    record[..4].copy_from_slice(&((stream * count + number) as u32).to_le_bytes());
                    u.write_bytes(buffer, &record).await;
                    assert_eq!(u.call(NR_WRITE, &[writer, buffer, size]).await, size as i64, "an atomic write");
                }
                0
            });
            children.push(u.fork(body).await);
        }
        for _ in 0..readers {
            let body = program(move |u| async move {
                u.close(writer).await;
                let buffer = u.map(size, false).await;
                loop {
                    let n = u.call(NR_READ, &[reader, buffer, size]).await;
                    if n == 0 {
                        return 0;
                    }
                    assert_eq!(n, size as i64, "a whole record");
                    let record = u.read_bytes(buffer, size as usize).await;
                    let id = u32::from_le_bytes([record[0], record[1], record[2], record[3]]);
                    let (stream, number) = (u64::from(id) / count, u64::from(id) % count);
                    assert!(stream < writers, "record {id}");
                    let right = (4..size).all(|pos| record[pos as usize] == byte_at(stream, number * size + pos));
                    assert!(right, "record {number} of writer {stream} is mixed up");
                    assert_eq!(u.add(seen + 4 * u64::from(id), 1).await, 0, "record {id} came twice");
                    u.pause(3000).await;
                }
            });
            children.push(u.fork(body).await);
        }
        u.close(reader).await;
        u.close(writer).await;
        for child in children {
            assert_eq!(u.wait_for(child).await, 0);
        }
        for id in 0..writers * count {
            assert_eq!(u.load(seen + 4 * id).await, 1, "record {id} never came");
        }
        0
    })
}
