//! The executor's wait queues and locks, used by kernel tasks that are cancelled at any time.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use pollux_kernel::exec::{self, Instant, Mutex, RwLock, WaitQueue};

use super::Setup;
use crate::machine;
use crate::rng::Rng;
use crate::user::{Program, U, program};

/// A deadline within `most` ns; often there is none.
fn deadline(rng: &mut Rng, most: u64) -> Option<Instant> {
    let delay = Duration::from_nanos(rng.below(most));
    (!rng.one_in(3)).then(|| Instant::now().saturating_add(delay))
}

/// A wait that is given up at the deadline without being polled again: what happens to every future that is dropped at an
/// await. A deaf one does not even notice before that it was woken.
async fn fickle<T>(limit: Option<Instant>, deaf: bool, wait: impl Future<Output = T>) -> Option<T> {
    let mut wait = pin!(wait);
    let mut sleep = pin!(exec::sleep_until(limit.unwrap_or(Instant::NEVER)));
    let mut polled = false;
    poll_fn(|cx| match sleep.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(None),
        Poll::Pending if polled && deaf && limit.is_some() => Poll::Pending,
        Poll::Pending => {
            polled = true;
            wait.as_mut().poll(cx).map(Some)
        }
    })
    .await
}

/// Lets kernel tasks work, and waits until `done` says that all have ended: they must within a virtual second.
async fn await_tasks(u: U, what: &str, done: impl Fn() -> bool) {
    let end = u.now() + 1_000_000_000;
    while !done() {
        let time = u.place_words(&[0, 100_000]).await;
        u.call(101, &[time, 0]).await;
        assert!(u.now() < end, "deadlock: {what}");
    }
}

struct Store {
    queue: WaitQueue,
    goods: AtomicUsize,
}

impl Store {
    fn put(&self) {
        self.goods.fetch_add(1, Ordering::SeqCst);
        self.queue.wake_one();
    }

    fn take(&self) -> Option<()> {
        let one_less = |goods: usize| goods.checked_sub(1);
        self.goods.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).ok().map(drop)
    }
}

/// As many goods, wakes, and consumers who want one each: all of them must be served, although others queue with them,
/// give up, or put back what they got.
pub fn wait_queue(setup: &mut Setup) -> Program {
    let consumers = setup.rng.range(1, 12) as usize;
    let others = setup.rng.range(1, 5) as usize;
    program(move |u| async move {
        let store = Arc::new(Store { queue: WaitQueue::new(), goods: AtomicUsize::new(0) });
        let running = Arc::new(AtomicUsize::new(consumers + others));
        for index in 0..consumers + others {
            let (store, running, mut rng) = (store.clone(), running.clone(), machine::split_rng());
            exec::spawn("consumer", async move {
                if index < consumers {
                    store.queue.wait_for_exclusive(|| store.take()).await;
                } else {
                    for _ in 0..rng.below(10) {
                        let wait = store.queue.wait_for_exclusive(|| store.take());
                        let limit = Instant::now().saturating_add(Duration::from_nanos(rng.below(20_000)));
                        if fickle(Some(limit), rng.one_in(2), wait).await.is_some() {
                            store.put();
                        }
                    }
                }
                running.fetch_sub(1, Ordering::SeqCst);
            });
        }
        for _ in 0..consumers {
            u.pause(10_000).await;
            let store = store.clone();
            exec::spawn("producer", async move { store.put() });
        }
        await_tasks(u, "goods are there that nobody takes", || running.load(Ordering::SeqCst) == 0).await;
        assert_eq!(store.goods.load(Ordering::SeqCst), 0);
        0
    })
}

/// Mutex and reader-writer lock, with waits that are given up.
pub fn locks(setup: &mut Setup) -> Program {
    let tasks = setup.rng.range(2, 7) as usize;
    let rounds = setup.rng.range(3, 20);
    program(move |u| async move {
        let (mutex, lock) = (Arc::new(Mutex::new(0u64)), Arc::new(RwLock::new(0u64)));
        let alone = Arc::new(AtomicBool::new(false));
        let running = Arc::new(AtomicUsize::new(tasks));
        for _ in 0..tasks {
            let (mutex, lock, alone, running) = (mutex.clone(), lock.clone(), alone.clone(), running.clone());
            let mut rng = machine::split_rng();
            exec::spawn("locker", async move {
                for _ in 0..rounds {
                    match rng.below(3) {
                        0 => {
                            let Some(mut guard) = fickle(deadline(&mut rng, 5_000), rng.one_in(2), mutex.lock()).await
                            else {
                                continue;
                            };
                            assert!(!alone.swap(true, Ordering::SeqCst), "two hold the mutex");
                            exec::yield_now().await;
                            *guard += 1;
                            assert!(alone.swap(false, Ordering::SeqCst));
                        }
                        1 => {
                            let Some(mut guard) = fickle(deadline(&mut rng, 5_000), rng.one_in(2), lock.write()).await
                            else {
                                continue;
                            };
                            let before = *guard;
                            exec::yield_now().await;
                            *guard += 1;
                            assert_eq!(*guard, before + 1, "two write");
                        }
                        _ => {
                            let Some(guard) = fickle(deadline(&mut rng, 5_000), rng.one_in(2), lock.read()).await
                            else {
                                continue;
                            };
                            let before = *guard;
                            exec::yield_now().await;
                            assert_eq!(*guard, before, "one reads while another writes");
                        }
                    }
                }
                running.fetch_sub(1, Ordering::SeqCst);
            });
        }
        await_tasks(u, "tasks wait for locks", || running.load(Ordering::SeqCst) == 0).await;
        assert!(mutex.try_lock().is_some() && lock.try_write().is_some(), "a lock that nobody holds is taken");
        0
    })
}
