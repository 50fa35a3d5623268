//! Threads that are moved from CPU to CPU, and wake each other all at once.

use super::Setup;
use super::futex::{count_signals, run_threads, style};
use crate::user::{Program, U, program};

const NR_SETSCHEDULER: u64 = 119;
const NR_SETAFFINITY: u64 = 122;
const NR_GETAFFINITY: u64 = 123;
const NR_YIELD: u64 = 124;
const NR_GETCPU: u64 = 168;
const SCHED_OTHER: u64 = 0;
const SCHED_FIFO: u64 = 1;

/// Words of the shared page.
const BARRIER: u64 = 384;

/// Runs where it said it would; the machine has up to four CPUs.
async fn check_place(u: U, mask: u64) {
    let cpu = u.scratch(4);
    assert_eq!(u.call(NR_GETCPU, &[cpu, 0, 0]).await, 0);
    let cpu = u.load(cpu).await;
    assert!(mask >> cpu & 1 == 1, "on CPU {cpu} with the mask {mask:#x}");
}

async fn move_to(u: U, mask: u64) {
    let word = u.place(&mask.to_le_bytes()).await;
    assert_eq!(u.call(NR_SETAFFINITY, &[0, 8, word]).await, 0);
    check_place(u, mask).await;
}

/// One that does not yield for others when it is woken, and is not moved in favour of them.
async fn set_policy(u: U, policy: u64) {
    let priority = u.place(&(if policy == SCHED_FIFO { 1 + u.random(3) as u32 } else { 0 }).to_le_bytes()).await;
    assert_eq!(u.call(NR_SETSCHEDULER, &[0, policy, priority]).await, 0);
}

pub fn moves(setup: &mut Setup) -> Program {
    let style = style(&mut setup.rng, false);
    let workers = setup.rng.range(2, 9);
    let rounds = setup.rng.range(3, 30);
    let signals = *setup.rng.pick(&[0, 0, 20]);
    let real_time = setup.rng.one_in(3);
    let body = move |page: u64, all: u64| {
        program(move |u| async move {
            let mut mask = u64::MAX;
            for _ in 0..rounds {
                match u.random(6) {
                    0 | 1 => {
                        let wanted = 1 + u.random(15);
                        mask = if wanted & all == 0 { all } else { wanted & all };
                        move_to(u, mask).await;
                    }
                    2 => assert_eq!(u.call(NR_YIELD, &[]).await, 0),
                    3 => u.work(20_000).await,
                    4 if real_time => set_policy(u, if u.random(2) == 0 { SCHED_FIFO } else { SCHED_OTHER }).await,
                    _ => u.pause(10_000).await,
                }
                u.barrier(page + BARRIER, workers as u32, style).await;
                check_place(u, mask).await;
            }
            0
        })
    };
    program(move |u| async move {
        let page = u.map(4096, true).await;
        count_signals(u, page, true).await;
        let word = u.scratch(8);
        assert_eq!(u.call(NR_GETAFFINITY, &[0, 8, word]).await, 8);
        let all = u.load64(word).await;
        run_threads(u, page, workers, signals, move |_| body(page, all)).await;
        0
    })
}
