//! io_uring: one entry submitted, and its completion waited for, by one call.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{Row, row};
use crate::measure::{Bench, Result};
use crate::peer::{Kind, Peer};
use crate::sys;

pub const ROWS: &[Row] =
    &[row("io_uring_nop", nop), row("io_uring_read_4k", read), row("io_uring_pipe_pingpong", ping_pong)];

const SETUP: i64 = 425;
const ENTER: i64 = 426;
const GETEVENTS: usize = 1;
const NOP: u8 = 0;
const READ: u8 = 22;
const WRITE: u8 = 23;
const ENTRIES: usize = 8;

/// A ring of which one entry is used at a time.
struct Ring {
    fd: usize,
    /// Of the submissions and the completions: head, tail, and where the array is.
    sq_tail: &'static AtomicU32,
    cq_head: &'static AtomicU32,
    cq_tail: &'static AtomicU32,
    cqes: *const [u64; 2],
    sqes: *mut [u64; 8],
}

/// Moves into the process or thread that uses it.
struct Address(*mut u8);

impl Address {
    fn word(&self, offset: u32) -> &'static AtomicU32 {
        // SAFETY: within the mapping of the ring, which stays.
        unsafe { &*self.0.add(offset as usize).cast() }
    }
}

impl Ring {
    fn new() -> Result<Ring> {
        let mut params = [0u32; 30];
        let fd = sys::call("io_uring_setup", SETUP, [ENTRIES, params.as_mut_ptr() as usize])?;
        let map = |length: usize, offset: usize| {
            let access = (libc::PROT_READ | libc::PROT_WRITE) as usize;
            sys::call("mmap", libc::SYS_mmap, [0, length, access, libc::MAP_SHARED as usize, fd, offset])
        };
        let rings = Address(map(4096, 0)? as *mut u8);
        let sqes = map(4096, 0x1000_0000)? as *mut [u64; 8];
        let array = params[16];
        for slot in 0..ENTRIES as u32 {
            rings.word(array + 4 * slot).store(slot, Ordering::Relaxed);
        }
        Ok(Ring {
            fd,
            sq_tail: rings.word(params[11]),
            cq_head: rings.word(params[20]),
            cq_tail: rings.word(params[21]),
            cqes: rings.word(params[25]).as_ptr().cast(),
            sqes,
        })
    }

    /// Submits an entry, waits for it, and answers its result.
    fn run(&self, opcode: u8, fd: i32, buffer: *mut u8, length: usize, offset: u64) -> Result<i32> {
        let tail = self.sq_tail.load(Ordering::Relaxed);
        let entry = [u64::from(opcode) | (fd as u32 as u64) << 32, offset, buffer as u64, length as u64, 1, 0, 0, 0];
        // SAFETY: one of the entries, which the kernel reads when it is told.
        unsafe { self.sqes.add(tail as usize % ENTRIES).write_volatile(entry) };
        self.sq_tail.store(tail.wrapping_add(1), Ordering::Release);
        let taken = sys::call("io_uring_enter", ENTER, [self.fd, 1, 1, GETEVENTS, 0, 0])?;
        sys::expect(taken == 1, "the entry was taken")?;
        let head = self.cq_head.load(Ordering::Relaxed);
        sys::expect(self.cq_tail.load(Ordering::Acquire) != head, "there is a completion")?;
        // SAFETY: one of the completions, of which there are twice as many as entries.
        let [_, result] = unsafe { self.cqes.add(head as usize % (2 * ENTRIES)).read_volatile() };
        self.cq_head.store(head.wrapping_add(1), Ordering::Release);
        Ok(result as i32)
    }
}

fn nop(bench: &Bench) -> Result<f64> {
    let ring = Ring::new()?;
    bench.per_operation(5_000, || sys::expect(ring.run(NOP, -1, std::ptr::null_mut(), 0, 0)? == 0, "nothing is done"))
}

fn read(bench: &Bench) -> Result<f64> {
    let ring = Ring::new()?;
    let file = sys::open(c"/tmp/bench.uring", libc::O_CREAT | libc::O_RDWR | libc::O_TRUNC)?;
    sys::unlink(c"/tmp/bench.uring")?;
    let mut buffer = vec![1u8; 4096];
    sys::write_all(file, &buffer)?;
    let at = buffer.as_mut_ptr();
    let result =
        bench.per_operation(2_000, || sys::expect(ring.run(READ, file, at, 4096, 0)? == 4096, "a page is read"));
    sys::close(file);
    result
}

/// A round trip of a byte through two pipes, both sides by io_uring.
fn ping_pong(bench: &Bench) -> Result<f64> {
    const PING_PONGS: u64 = 2_000;
    let (near_from, far_to) = sys::pipe()?;
    let (far_from, near_to) = sys::pipe()?;
    let all = bench.all(PING_PONGS);
    let move_byte = |ring: &Ring, opcode: u8, fd: i32, byte: &mut u8| {
        sys::expect(ring.run(opcode, fd, byte, 1, u64::MAX)? == 1, "a byte is moved")
    };
    let peer = Peer::start(Kind::Process, move || {
        let ring = Ring::new()?;
        let mut byte = 0;
        for _ in 0..all {
            move_byte(&ring, READ, far_from, &mut byte)?;
            move_byte(&ring, WRITE, far_to, &mut byte)?;
        }
        Ok(())
    })?;
    let ring = Ring::new()?;
    let mut byte = 1;
    let result = bench.per_exchange(PING_PONGS, || {
        move_byte(&ring, WRITE, near_to, &mut byte)?;
        move_byte(&ring, READ, near_from, &mut byte)
    });
    peer.join()?;
    result
}
