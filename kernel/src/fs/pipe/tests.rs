use alloc::sync::Arc;
use alloc::vec::Vec;
use core::pin::pin;
use core::task::Poll;
use std::sync::Mutex;

use super::*;
use crate::exec::spawn;
use crate::exec::test_util::{block_on, run_until_idle};
use crate::fs::file::FileOps;
use crate::fs::open_file::{READ_EVENTS, WRITE_EVENTS, settled};
use crate::fs::tests::poll_once;

async fn read(pipe: &Pipe, buf: &mut [u8]) -> Result<usize, TryError> {
    let mut buf = IoBuf::kernel_mut(buf);
    pipe.queue.wait_for_mask(READ_EVENTS.bits(), || settled(pipe.try_read(&mut buf))).await
}

/// As `OpenFile::write` does it.
async fn write(pipe: &Pipe, data: &[u8]) -> Result<usize, TryError> {
    let mut buf = IoBuf::kernel(data);
    while !buf.is_empty() {
        pipe.queue.wait_for_mask(WRITE_EVENTS.bits(), || settled(pipe.try_write(&mut buf, None))).await?;
    }
    Ok(data.len())
}

fn random(seed: &mut u64, below: usize) -> usize {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*seed >> 33) as usize % below
}

#[test]
fn every_byte_comes_through_in_order() {
    let (reader, writer) = Pipe::pair();
    let total = 3_000_000;
    let got = Arc::new(Mutex::new(Vec::new()));
    let sink = got.clone();
    spawn("reader", async move {
        let mut seed = 1;
        loop {
            let mut buf = vec![0; 1 + random(&mut seed, 20_000)];
            match read(reader.pipe(), &mut buf).await.unwrap() {
                0 => break,
                n => sink.lock().unwrap().extend_from_slice(&buf[..n]),
            }
        }
    });
    spawn("writer", async move {
        let (mut seed, mut sent) = (2, 0usize);
        while sent < total {
            let len = (1 + random(&mut seed, 30_000)).min(total - sent);
            let data: Vec<u8> = (sent..sent + len).map(|i| (i % 253) as u8).collect();
            write(writer.pipe(), &data).await.unwrap();
            sent += len;
        }
    });
    run_until_idle();
    let got = got.lock().unwrap();
    assert_eq!(got.len(), total);
    assert!(got.iter().enumerate().all(|(i, byte)| *byte == (i % 253) as u8));
}

#[test]
fn short_writes_are_not_torn() {
    let (reader, writer) = Pipe::pair();
    for id in 0..4u8 {
        let pipe = writer.pipe().clone();
        let end = PipeEnd::new(pipe, false, true);
        spawn("writer", async move {
            for round in 0..200 {
                let len = 1 + (round * 37 + id as usize * 11) % PIPE_BUF;
                let mut record = vec![id; len.max(3)];
                let len = record.len() as u16;
                record[1..3].copy_from_slice(&len.to_le_bytes());
                write(end.pipe(), &record).await.unwrap();
            }
        });
    }
    drop(writer);
    let all = block_on(async move {
        let mut all = Vec::new();
        let mut buf = [0; 777];
        loop {
            match read(reader.pipe(), &mut buf).await.unwrap() {
                0 => return all,
                n => all.extend_from_slice(&buf[..n]),
            }
        }
    });
    let (mut at, mut records) = (0, 0);
    while at < all.len() {
        let id = all[at];
        let len = u16::from_le_bytes([all[at + 1], all[at + 2]]) as usize;
        assert!(id < 4 && all[at + 3..at + len].iter().all(|byte| *byte == id), "torn at {at}");
        at += len;
        records += 1;
    }
    assert_eq!(records, 800);
}

#[test]
fn ends_that_go_away_are_noticed() {
    let (reader, writer) = Pipe::pair();
    write_now(&writer, b"last");
    assert_eq!(reader.ready(), Events::IN | Events::RDNORM);
    drop(writer);
    assert_eq!(reader.ready(), Events::IN | Events::RDNORM | Events::HUP);
    let mut buf = [0; 10];
    assert_eq!(reader.pipe().try_read(&mut IoBuf::kernel_mut(&mut buf)), Ok(4));
    assert_eq!(reader.pipe().try_read(&mut IoBuf::kernel_mut(&mut buf)), Ok(0));
    assert_eq!(reader.ready(), Events::HUP);

    let (reader, writer) = Pipe::pair();
    drop(reader);
    assert_eq!(writer.ready(), Events::OUT | Events::WRNORM | Events::ERR);
    assert_eq!(writer.pipe().try_write(&mut IoBuf::kernel(b"x"), None), Err(TryError::Failed(Errno::EPIPE)));
}

fn write_now(end: &PipeEnd, data: &[u8]) {
    assert_eq!(end.pipe().try_write(&mut IoBuf::kernel(data), None), Ok(data.len()));
}

#[test]
fn a_blocked_writer_goes_on_after_a_read_and_a_blocked_reader_after_a_write() {
    let (reader, writer) = Pipe::pair();
    write_now(&writer, &vec![7; CAPACITY]);
    let pipe = writer.pipe().clone();
    let done = Arc::new(Mutex::new(false));
    let flag = done.clone();
    spawn("writer", async move {
        write(&pipe, &[8; 100]).await.unwrap();
        *flag.lock().unwrap() = true;
    });
    run_until_idle();
    assert!(!*done.lock().unwrap());
    let mut buf = [0; 99];
    assert_eq!(reader.pipe().try_read(&mut IoBuf::kernel_mut(&mut buf)), Ok(99));
    run_until_idle();
    assert!(!*done.lock().unwrap());
    assert_eq!(reader.pipe().try_read(&mut IoBuf::kernel_mut(&mut buf[..1])), Ok(1));
    run_until_idle();
    assert!(*done.lock().unwrap());
}

/// A reader that is dropped after any number of polls takes nothing with it.
#[test]
fn dropped_readers_lose_no_bytes() {
    for polls in 0..4 {
        block_on(async move {
            let (reader, writer) = Pipe::pair();
            let mut buf = [0; 8];
            {
                let mut future = pin!(read(reader.pipe(), &mut buf));
                for poll in 0..polls {
                    assert!(poll_once(future.as_mut()).await.is_pending());
                    if poll == 2 {
                        write_now(&writer, b"abc");
                    }
                }
            }
            if polls < 3 {
                write_now(&writer, b"abc");
            }
            let mut future = pin!(read(reader.pipe(), &mut buf));
            assert_eq!(poll_once(future.as_mut()).await, Poll::Ready(Ok(3)));
        });
    }
}

#[test]
fn capacity_can_be_changed_around_the_content() {
    let (reader, writer) = Pipe::pair();
    let mut buf = [0; 5000];
    write_now(&writer, &[1; 3000]);
    assert_eq!(reader.pipe().try_read(&mut IoBuf::kernel_mut(&mut buf[..1000])), Ok(1000));
    write_now(&writer, &[2; 2000]);
    assert_eq!(writer.pipe().set_capacity(4000, false), Ok(4096));
    assert_eq!(writer.ready(), Events::empty());
    assert_eq!(reader.pipe().try_read(&mut IoBuf::kernel_mut(&mut buf)), Ok(4000));
    assert!(buf[..2000].iter().all(|b| *b == 1) && buf[2000..4000].iter().all(|b| *b == 2));
    assert_eq!(writer.pipe().set_capacity(2 << 20, false), Err(Errno::EPERM));
    assert_eq!(writer.pipe().set_capacity(1 << 20, false), Ok(1 << 20));
    write_now(&writer, &vec![3; 1 << 20]);
    assert_eq!(writer.pipe().set_capacity(1 << 16, true), Err(Errno::EBUSY));
}

#[test]
fn a_fifo_reader_sees_no_hang_up_before_the_first_writer() {
    let pipe = Pipe::new();
    let reader = PipeEnd::new(pipe.clone(), true, false);
    assert_eq!(reader.ready(), Events::empty());
    let writer = PipeEnd::new(pipe, false, true);
    drop(writer);
    assert_eq!(reader.ready(), Events::HUP);
}

/// splice(2) takes what it moved; until then nobody else gets it, and afterwards it is there again or gone for all.
#[test]
fn what_is_lent_is_nobody_elses() {
    let (reader, writer) = Pipe::pair();
    write_now(&writer, b"abcdef");
    let loan = reader.pipe().lend(4).unwrap().unwrap();
    assert_eq!(loan.bytes(), b"abcd");
    assert!(matches!(reader.pipe().lend(4), Err(TryError::WouldBlock)));
    assert!(!reader.ready().contains(Events::IN));
    let got = Arc::new(Mutex::new(None));
    let (sink, pipe) = (got.clone(), reader.pipe().clone());
    spawn("reader", async move {
        let mut buf = [0; 8];
        let n = read(&pipe, &mut buf).await.unwrap();
        *sink.lock().unwrap() = Some(buf[..n].to_vec());
    });
    run_until_idle();
    assert!(got.lock().unwrap().is_none());
    loan.settle(3);
    run_until_idle();
    assert_eq!(got.lock().unwrap().as_deref(), Some(&b"def"[..]));
    write_now(&writer, b"xy");
    drop(reader.pipe().lend(8).unwrap());
    assert_eq!(reader.pipe().try_read(&mut IoBuf::kernel_mut(&mut [0; 8])), Ok(2));
    drop(writer);
    assert!(reader.pipe().lend(8).unwrap().is_none());
}

/// Whoever opens a side learns in the same step whether it has a partner, who may be gone at once.
#[test]
fn a_partner_that_was_there_need_not_stay() {
    let pipe = Pipe::new();
    let (writer, partners) = PipeEnd::open(pipe.clone(), false, true);
    assert_eq!(partners, Some(0), "it waits for the first reader");
    let (reader, partners) = PipeEnd::open(pipe.clone(), true, false);
    assert_eq!(partners, None, "the writer is there");
    drop((writer, reader));
    let (_reader, partners) = PipeEnd::open(pipe, true, false);
    assert_eq!(partners, Some(1), "it waits for the second writer");
}
