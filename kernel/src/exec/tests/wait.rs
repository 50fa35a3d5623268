use super::Manual;
use crate::exec::test_util::{block_on, run_until_idle};
use crate::exec::{Interrupts, WaitEntry, WaitQueue, interruptible, spawn};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use core::task::{Poll, Waker};
use std::sync::Arc;
use std::vec::Vec;

fn take(n: &AtomicUsize) -> Option<()> {
    n.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).ok().map(|_| ())
}

#[test]
fn a_waiter_registers_on_every_poll() {
    let (queue, items) = (WaitQueue::new(), AtomicUsize::new(0));
    let mut waiter = Manual::new(queue.wait_for(|| take(&items)));
    assert!(waiter.poll().is_pending());
    for wakes in 1..4 {
        assert_eq!(queue.wake_all(), 1);
        assert_eq!(waiter.wakes(), wakes);
        assert_eq!(queue.wake_all(), 0);
        assert!(waiter.poll().is_pending());
    }
    items.store(1, SeqCst);
    assert!(waiter.poll().is_ready());
    assert!(queue.is_empty());
}

#[test]
fn exclusive_wakes_are_first_come_first_served() {
    let (queue, items) = (WaitQueue::new(), AtomicUsize::new(0));
    let mut waiters: Vec<_> = (0..4).map(|_| Manual::new(queue.wait_for_exclusive(|| take(&items)))).collect();
    waiters.iter_mut().for_each(|waiter| assert!(waiter.poll().is_pending()));
    for i in 0..4 {
        items.fetch_add(1, SeqCst);
        assert_eq!(queue.wake_one(), 1);
        assert_eq!(
            waiters.iter().map(Manual::wakes).collect::<Vec<_>>(),
            (0..4).map(|j| usize::from(j <= i)).collect::<Vec<_>>()
        );
        assert!(waiters[i].poll().is_ready());
    }
}

#[test]
fn shared_waiters_are_woken_with_exclusive_ones() {
    let queue = WaitQueue::new();
    let mut exclusive: Vec<_> = (0..3).map(|_| Manual::new(queue.wait_for_exclusive(|| None::<()>))).collect();
    let mut shared: Vec<_> = (0..20).map(|_| Manual::new(queue.wait_for(|| None::<()>))).collect();
    exclusive.iter_mut().chain(&mut []).for_each(|waiter| assert!(waiter.poll().is_pending()));
    shared.iter_mut().for_each(|waiter| assert!(waiter.poll().is_pending()));
    assert_eq!(queue.wake_one(), 21);
    assert_eq!(exclusive.iter().map(Manual::wakes).sum::<usize>(), 1);
    assert_eq!(shared.iter().map(Manual::wakes).sum::<usize>(), 20);
    assert_eq!(queue.wake_all(), 2);
}

#[test]
fn a_mask_selects_waiters() {
    let queue = WaitQueue::new();
    let mut reader = Manual::new(queue.wait_for_mask(1, || None::<()>));
    let mut writer = Manual::new(queue.wait_for_mask(4, || None::<()>));
    assert!(reader.poll().is_pending() && writer.poll().is_pending());
    assert_eq!(queue.wake(usize::MAX, 4), 1);
    assert_eq!((reader.wakes(), writer.wakes()), (0, 1));
}

#[test]
fn a_spent_wake_is_passed_on_when_its_waiter_is_dropped() {
    let (queue, items) = (WaitQueue::new(), AtomicUsize::new(0));
    // Dropped after any number of polls, before or after the wake: the item is never lost.
    for polls in 0..3 {
        for woken in [false, true] {
            items.store(0, SeqCst);
            let mut first = Manual::new(queue.wait_for_exclusive(|| take(&items)));
            let mut second = Manual::new(queue.wait_for_exclusive(|| take(&items)));
            (0..polls).for_each(|_| assert!(first.poll().is_pending()));
            assert!(second.poll().is_pending());
            if woken {
                items.store(1, SeqCst);
                queue.wake_one();
                drop(first);
            } else {
                drop(first);
                items.store(1, SeqCst);
                queue.wake_one();
            }
            assert_eq!(second.wakes(), 1, "polls {polls}, woken {woken}");
            assert!(second.poll().is_ready());
            drop(second);
            assert!(queue.is_empty());
        }
    }
}

#[test]
fn a_wake_that_comes_after_the_condition_was_met_goes_to_the_next() {
    let (queue, items) = (WaitQueue::new(), AtomicUsize::new(0));
    let mut first = Manual::new(queue.wait_for_exclusive(|| {
        // The second item arrives, and its wake hits this waiter, while this waiter takes the first one unwoken.
        let got = take(&items);
        if got.is_some() {
            items.fetch_add(1, SeqCst);
            queue.wake_one();
        }
        got
    }));
    let mut second = Manual::new(queue.wait_for_exclusive(|| take(&items)));
    assert!(first.poll().is_pending() && second.poll().is_pending());
    items.store(1, SeqCst);
    assert!(first.poll().is_ready());
    assert_eq!(second.wakes(), 1);
}

#[test]
fn an_entry_stays_and_is_woken_again_and_again() {
    let queue = WaitQueue::new();
    let count = Arc::new(super::Count::default());
    let entries: Vec<_> = (0..20).map(|_| WaitEntry::new(Waker::from(count.clone()), 1)).collect();
    entries.iter().for_each(|entry| assert!(queue.add(entry)));
    assert!(!queue.add(&entries[0]));
    for round in 1..4 {
        assert_eq!(queue.wake(0, 1), 20);
        assert_eq!(queue.wake(0, 2), 0);
        assert_eq!(count.0.load(SeqCst), 20 * round);
    }
    assert!(queue.remove(&entries[7]));
    assert!(!queue.remove(&entries[7]));
    assert_eq!(queue.wake_all(), 19);
    assert_eq!(Arc::strong_count(&entries[7]), 1);
    assert_eq!(Arc::strong_count(&entries[8]), 2);
    drop(queue);
    assert_eq!(Arc::strong_count(&entries[8]), 1);
    assert!(WaitQueue::new().add(&entries[8]));
}

#[test]
fn an_entry_without_other_owners_lives_until_its_queue_goes() {
    let queue = WaitQueue::new();
    let count = Arc::new(super::Count::default());
    assert!(queue.add(&WaitEntry::new(Waker::from(count.clone()), 1)));
    assert_eq!(queue.wake_all(), 1);
    drop(queue);
    assert_eq!(Arc::strong_count(&count), 1);
}

struct Killed(AtomicBool);

impl Interrupts for Killed {
    fn pending(&self) -> bool {
        self.0.load(SeqCst)
    }
}

#[test]
fn interruption_ends_a_wait_but_loses_to_what_is_ready() {
    let (queue, items, who) = (WaitQueue::new(), AtomicUsize::new(0), Killed(AtomicBool::new(false)));
    let mut waiter = Manual::new(interruptible(&who, queue.wait_for(|| take(&items))));
    assert!(waiter.poll().is_pending());
    who.0.store(true, SeqCst);
    assert!(matches!(waiter.poll(), Poll::Ready(Err(_))));
    drop(waiter);
    items.store(1, SeqCst);
    let mut waiter = Manual::new(interruptible(&who, queue.wait_for(|| take(&items))));
    assert!(matches!(waiter.poll(), Poll::Ready(Ok(()))));
}

#[test]
fn tasks_wait_for_each_other() {
    let queue = Arc::new(WaitQueue::new());
    let turn = Arc::new(AtomicUsize::new(0));
    for me in 0..3 {
        let (queue, turn) = (queue.clone(), turn.clone());
        spawn("player", async move {
            for _ in 0..100 {
                queue.wait_for(|| (turn.load(SeqCst) % 3 == me).then_some(())).await;
                turn.fetch_add(1, SeqCst);
                queue.wake_all();
            }
        });
    }
    run_until_idle();
    assert_eq!(turn.load(SeqCst), 300);
    assert_eq!(block_on(async { 7 }), 7);
}

#[test]
fn a_wake_looks_at_each_waiter_once() {
    let queue = WaitQueue::new();
    let mut readers: Vec<_> = (0..300).map(|_| Manual::new(queue.wait_for_mask(1, || None::<()>))).collect();
    let mut writers: Vec<_> = (0..300).map(|_| Manual::new(queue.wait_for_mask(4, || None::<()>))).collect();
    readers.iter_mut().chain(&mut []).for_each(|waiter| assert!(waiter.poll().is_pending()));
    writers.iter_mut().for_each(|waiter| assert!(waiter.poll().is_pending()));
    let mut looks = 0;
    // Those who came last stand first, in the way of the others.
    let woken = queue.wake_where(usize::MAX, |_, mask| {
        looks += 1;
        mask == 1
    });
    assert_eq!(woken, 300);
    assert!(looks <= 601, "{looks} looks");
    assert_eq!(queue.wake_all(), 300);
    assert!(queue.is_empty());
}
