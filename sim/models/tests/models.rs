//! Small programs of two or three threads. A wake that is lost is a deadlock, which shuttle reports with the schedule.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use pollux_models::exec::WaitQueue;
use pollux_models::exec::locks::{Event, Mutex, Notify, RwLock};
use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use shuttle::thread;

const RANDOM: usize = 3000;
const RANKED: usize = 3000;

fn check(model: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(model.clone(), RANDOM);
    shuttle::check_pct(model, RANKED, 3);
}

/// Polls `future` that many times, then drops it.
fn poll_and_drop<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    block_on(async move {
        let mut future = pin!(future);
        let mut left = times;
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if left <= 1 => Poll::Ready(None),
            Poll::Pending => {
                left -= 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await
    })
}

fn take(goods: &AtomicUsize) -> Option<()> {
    goods.fetch_update(SeqCst, SeqCst, |goods| goods.checked_sub(1)).ok().map(drop)
}

#[test]
fn a_condition_made_true_before_a_wake_is_seen() {
    check(|| {
        let shared = Arc::new((WaitQueue::new(), AtomicBool::new(false)));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || block_on(shared.0.wait_for(|| shared.1.load(SeqCst).then_some(()))))
            })
            .collect();
        shared.1.store(true, SeqCst);
        shared.0.wake_all();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}

#[test]
fn a_wake_spent_on_a_waiter_that_leaves_goes_to_the_next() {
    check(|| {
        let shared = Arc::new((WaitQueue::new(), AtomicUsize::new(0)));
        let patient = {
            let shared = shared.clone();
            thread::spawn(move || block_on(shared.0.wait_for_exclusive(|| take(&shared.1))))
        };
        let fickle = {
            let shared = shared.clone();
            thread::spawn(move || {
                let took = poll_and_drop(1, shared.0.wait_for_exclusive(|| take(&shared.1)));
                if took.is_some() {
                    shared.1.fetch_add(1, SeqCst);
                    shared.0.wake_one();
                }
            })
        };
        shared.1.fetch_add(1, SeqCst);
        shared.0.wake_one();
        patient.join().unwrap();
        fickle.join().unwrap();
    });
}

#[test]
fn as_many_are_served_as_goods_are_there() {
    check(|| {
        let shared = Arc::new((WaitQueue::new(), AtomicUsize::new(0)));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let shared = shared.clone();
                thread::spawn(move || block_on(shared.0.wait_for_exclusive(|| take(&shared.1))))
            })
            .collect();
        for _ in 0..2 {
            shared.1.fetch_add(1, SeqCst);
            shared.0.wake_one();
        }
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
        assert!(shared.0.is_empty());
    });
}

#[test]
fn a_mutex_excludes_and_is_given_on_by_those_who_give_up() {
    check(|| {
        let shared = Arc::new((Mutex::new(0), AtomicBool::new(false)));
        let threads: Vec<_> = (0..3)
            .map(|index| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let guard = match index {
                        0 => poll_and_drop(1, shared.0.lock()),
                        _ => Some(block_on(shared.0.lock())),
                    };
                    if let Some(mut guard) = guard {
                        assert!(!shared.1.swap(true, SeqCst), "two hold the mutex");
                        *guard += 1;
                        assert!(shared.1.swap(false, SeqCst));
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(shared.0.try_lock().is_some());
    });
}

#[test]
fn writers_exclude_readers() {
    check(|| {
        let shared = Arc::new((RwLock::new(0), AtomicUsize::new(0)));
        let writer = {
            let shared = shared.clone();
            thread::spawn(move || {
                let mut guard = block_on(shared.0.write());
                assert_eq!(shared.1.swap(100, SeqCst), 0, "a writer is not alone");
                *guard += 1;
                shared.1.store(0, SeqCst);
            })
        };
        let readers: Vec<_> = (0..2)
            .map(|times| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let guard = match times {
                        0 => Some(block_on(shared.0.read())),
                        times => poll_and_drop(times, shared.0.read()),
                    };
                    if guard.is_some() {
                        assert!(shared.1.fetch_add(1, SeqCst) < 100, "one reads while another writes");
                        shared.1.fetch_sub(1, SeqCst);
                    }
                })
            })
            .collect();
        writer.join().unwrap();
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert!(shared.0.try_write().is_some());
    });
}

#[test]
fn a_notification_reaches_one_who_waits_or_comes() {
    check(|| {
        let notify = Arc::new(Notify::new());
        let waiter = {
            let notify = notify.clone();
            thread::spawn(move || block_on(notify.wait()))
        };
        notify.notify();
        waiter.join().unwrap();
    });
}

#[test]
fn an_event_reaches_all() {
    check(|| {
        let event = Arc::new(Event::new());
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let event = event.clone();
                thread::spawn(move || block_on(event.wait()))
            })
            .collect();
        event.set();
        waiters.into_iter().for_each(|waiter| waiter.join().unwrap());
    });
}
