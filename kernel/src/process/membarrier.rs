//! membarrier(2): makes every CPU execute a full memory barrier.
//!
//! A tiny real-time task is run on each CPU. When it has run there, whatever user thread that CPU was running has passed
//! through the kernel, which orders its memory accesses before and after.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicUsize, Ordering, fence};

use crate::arch;
use crate::exec::{self, CpuMask, Entity, SchedParams, SchedPolicy, WaitQueue};

struct Progress {
    remaining: AtomicUsize,
    done: WaitQueue,
}

pub async fn all_cpus() {
    fence(Ordering::SeqCst);
    let cpus = arch::cpu_count();
    let progress = Arc::new(Progress { remaining: AtomicUsize::new(cpus), done: WaitQueue::new() });
    for cpu in 0..cpus {
        let params = SchedParams { policy: SchedPolicy::Fifo(99), nice: 0, affinity: CpuMask::of(cpu) };
        let progress = progress.clone();
        exec::spawn_entity(Entity::new(params), async move {
            fence(Ordering::SeqCst);
            if progress.remaining.fetch_sub(1, Ordering::SeqCst) == 1 {
                progress.done.wake_all();
            }
        });
    }
    progress.done.wait_for(|| (progress.remaining.load(Ordering::SeqCst) == 0).then_some(())).await
}
