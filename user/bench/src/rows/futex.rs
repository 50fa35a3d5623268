//! Futexes, and what the C library builds on them.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::{Row, row};
use crate::measure::{Bench, Result};
use crate::peer::{Kind, Peer, Shared};
use crate::sys;

pub const ROWS: &[Row] = &[
    row("futex_wake_uncontended", wake_uncontended),
    row("futex_wait_wrong_value", wait_wrong_value),
    row("futex_pingpong_threads", |bench| ping_pong(bench, Kind::Thread, None)),
    row("futex_pingpong_processes", |bench| ping_pong(bench, Kind::Process, None)),
    row("condvar_pingpong", condvar),
];

fn futex(word: &AtomicU32, operation: i32, value: u32) -> isize {
    sys::raw(libc::SYS_futex, [word.as_ptr() as usize, operation as usize, value as usize, 0, 0, 0])
}

fn wake_uncontended(bench: &Bench) -> Result<f64> {
    let word = AtomicU32::new(0);
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    bench.per_operation(20_000, || sys::expect(futex(&word, operation, 1) == 0, "a wake woke somebody"))
}

fn wait_wrong_value(bench: &Bench) -> Result<f64> {
    let word = AtomicU32::new(0);
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    bench.per_operation(20_000, || {
        sys::expect(futex(&word, operation, 1) == -libc::EAGAIN as isize, "a wait for the wrong value")
    })
}

/// Two words, each of which one party waits for.
struct Turns {
    there: AtomicU32,
    back: AtomicU32,
}

fn pass(word: &AtomicU32, private: i32) {
    word.store(1, SeqCst);
    futex(word, libc::FUTEX_WAKE | private, 1);
}

fn take(word: &AtomicU32, private: i32) {
    while word.swap(0, SeqCst) == 0 {
        futex(word, libc::FUTEX_WAIT | private, 0);
    }
}

/// The other party on a CPU of its own, or wherever this one may be.
pub fn ping_pong(bench: &Bench, kind: Kind, cpu: Option<usize>) -> Result<f64> {
    const COUNT: u64 = 2_000;
    let turns = Shared::new(Turns { there: AtomicU32::new(0), back: AtomicU32::new(0) })?.0;
    let private = if kind == Kind::Thread { libc::FUTEX_PRIVATE_FLAG } else { 0 };
    let all = bench.all(COUNT);
    let peer = Peer::start(kind, move || {
        cpu.map_or(Ok(()), sys::pin)?;
        for _ in 0..all {
            take(&turns.there, private);
            pass(&turns.back, private);
        }
        Ok(())
    })?;
    let result = bench.per_exchange(COUNT, || {
        pass(&turns.there, private);
        take(&turns.back, private);
        Ok(())
    });
    peer.join()?;
    result
}

/// A lock and a condition of the C library.
struct Monitor {
    lock: std::cell::UnsafeCell<libc::pthread_mutex_t>,
    condition: std::cell::UnsafeCell<libc::pthread_cond_t>,
    turn: AtomicU32,
}

// SAFETY: the C library's own rules; the rest is atomic.
unsafe impl Sync for Monitor {}

impl Monitor {
    fn new() -> Monitor {
        Monitor {
            lock: libc::PTHREAD_MUTEX_INITIALIZER.into(),
            condition: libc::PTHREAD_COND_INITIALIZER.into(),
            turn: AtomicU32::new(0),
        }
    }

    /// Waits for the turn `mine`, and gives it to the other.
    fn take_turn(&self, mine: u32) {
        // SAFETY: both were initialised, and live as long as the monitor.
        unsafe {
            libc::pthread_mutex_lock(self.lock.get());
            while self.turn.load(SeqCst) != mine {
                libc::pthread_cond_wait(self.condition.get(), self.lock.get());
            }
            self.turn.store(1 - mine, SeqCst);
            libc::pthread_cond_signal(self.condition.get());
            libc::pthread_mutex_unlock(self.lock.get());
        }
    }
}

fn condvar(bench: &Bench) -> Result<f64> {
    const COUNT: u64 = 2_000;
    let monitor = Shared::new(Monitor::new())?.0;
    let all = bench.all(COUNT);
    let peer = Peer::start(Kind::Thread, move || {
        (0..all).for_each(|_| monitor.take_turn(1));
        Ok(())
    })?;
    let result = bench.per_exchange(COUNT, || {
        monitor.take_turn(0);
        Ok(())
    });
    peer.join()?;
    result
}
