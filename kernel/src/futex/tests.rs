//! Scenarios: who is woken, in which order, and what a waiter that goes away leaves behind.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::future::Future;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};
use core::time::Duration;

use super::mark::{self, Mark};
use super::wait::{Attempt, Outcome, key_of};
use super::*;
use crate::errno::Errno;
use crate::exec::test_util::block_on;
use crate::mm::{AddressSpace, MapFlags, MmapRequest, Prot, UserPtr};
use crate::time::Deadline;

/// An address space with a page of words that are 0, current on the machine of the test.
async fn space() -> (Arc<AddressSpace>, u64) {
    crate::mm::test_util::init();
    let mm = AddressSpace::new().unwrap();
    let flags = MapFlags::ANONYMOUS | MapFlags::PRIVATE;
    let request = MmapRequest { addr: 0, len: 4096, prot: Prot::READ | Prot::WRITE, flags, source: None, offset: 0 };
    let at = mm.mmap(request).await.unwrap();
    mm.activate();
    (mm, at)
}

async fn space_in_memory() -> (Arc<AddressSpace>, u64) {
    let (mm, at) = space().await;
    UserPtr::<u32>::new(at).write(&mm, 0).await.unwrap();
    (mm, at)
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A waiter that is polled by hand.
struct Hand {
    attempt: Pin<Box<Attempt<'static>>>,
    wakes: Arc<Wakes>,
}

fn private(addr: u64) -> Word {
    Word { addr, private: true }
}

impl Hand {
    async fn new(mm: &AddressSpace, addr: u64, expected: u32, bitset: u32) -> Hand {
        let request = WaitRequest { word: private(addr), expected, bitset };
        let attempt = Box::pin(Attempt::new(key_of(mm, request.word).await.unwrap(), request, None));
        Hand { attempt, wakes: Arc::default() }
    }

    /// A waiter that waits.
    async fn waiting(mm: &AddressSpace, addr: u64) -> Hand {
        let mut hand = Hand::new(mm, addr, 0, ANY).await;
        assert_eq!(hand.poll(), Poll::Pending);
        hand
    }

    fn poll(&mut self) -> Poll<Outcome> {
        let waker = Waker::from(self.wakes.clone());
        self.attempt.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn is_woken(&mut self) -> bool {
        self.poll() == Poll::Ready(Outcome::Woken)
    }
}

#[test]
fn another_value_does_not_wait() {
    block_on(async {
        let (mm, at) = space_in_memory().await;
        let mut hand = Hand::new(&mm, at, 1, ANY).await;
        assert_eq!(hand.poll(), Poll::Ready(Outcome::Differs));
        assert_eq!(wake(&mm, private(at), 1, ANY).await, Ok(0));
    });
}

#[test]
fn an_absent_word_is_brought_in_outside_the_lock() {
    block_on(async {
        let (mm, at) = space().await;
        let mut hand = Hand::new(&mm, at, 0, ANY).await;
        let Poll::Ready(Outcome::Absent(fault)) = hand.poll() else { panic!("not absent") };
        mm.fault_in(fault).await.unwrap();
        assert_eq!(hand.poll(), Poll::Pending);
    });
}

#[test]
fn the_oldest_is_woken_first() {
    block_on(async {
        let (mm, at) = space_in_memory().await;
        let mut first = Hand::waiting(&mm, at).await;
        let mut second = Hand::waiting(&mm, at).await;
        let mut elsewhere = Hand::waiting(&mm, at + 4).await;
        assert_eq!(wake(&mm, private(at), 1, ANY).await, Ok(1));
        assert_eq!(first.wakes.0.load(Ordering::Relaxed), 1);
        assert!(first.is_woken() && !second.is_woken() && !elsewhere.is_woken());
        assert_eq!(wake(&mm, private(at), i32::MAX, ANY).await, Ok(1));
        assert!(second.is_woken() && !elsewhere.is_woken());
    });
}

#[test]
fn bitsets_select() {
    block_on(async {
        let (mm, at) = space_in_memory().await;
        let mut one = Hand::new(&mm, at, 0, 1).await;
        let mut two = Hand::new(&mm, at, 0, 2).await;
        assert!(one.poll().is_pending() && two.poll().is_pending());
        assert_eq!(wake(&mm, private(at), 5, 2).await, Ok(1));
        assert!(two.is_woken() && !one.is_woken());
        assert_eq!(wake(&mm, private(at), 1, 0).await, Err(Errno::EINVAL));
    });
}

#[test]
fn dropped_at_each_poll_count() {
    block_on(async {
        let (mm, at) = space_in_memory().await;
        // Never polled.
        drop(Hand::new(&mm, at, 0, ANY).await);
        assert_eq!(wake(&mm, private(at), 1, ANY).await, Ok(0));
        // Polled once: it waited, and leaves no trace.
        drop(Hand::waiting(&mm, at).await);
        assert_eq!(wake(&mm, private(at), 1, ANY).await, Ok(0));
        // Woken, but never told: the next one gets the wake.
        let first = Hand::waiting(&mm, at).await;
        let mut second = Hand::waiting(&mm, at).await;
        assert_eq!(wake(&mm, private(at), 1, ANY).await, Ok(1));
        drop(first);
        assert!(second.is_woken());
        // Woken and told: the wake is used up.
        let mut third = Hand::waiting(&mm, at).await;
        let mut fourth = Hand::waiting(&mm, at).await;
        assert_eq!(wake(&mm, private(at), 1, ANY).await, Ok(1));
        assert!(third.is_woken());
        drop(third);
        assert!(!fourth.is_woken());
    });
}

#[test]
fn requeued_waiters_wait_for_the_other_word() {
    block_on(async {
        let (mm, at) = space_in_memory().await;
        let (from, to) = (private(at), private(at + 64));
        let mut hands = [Hand::waiting(&mm, at).await, Hand::waiting(&mm, at).await, Hand::waiting(&mm, at).await];
        assert_eq!(requeue(&mm, from, to, 1, 2, Some(1)).await, Err(Errno::EAGAIN));
        assert_eq!(requeue(&mm, from, to, 1, 2, Some(0)).await, Ok(3));
        assert!(hands[0].is_woken() && !hands[1].is_woken());
        assert_eq!(wake(&mm, from, 9, ANY).await, Ok(0));
        assert_eq!(wake(&mm, to, 1, ANY).await, Ok(1));
        assert!(hands[1].is_woken() && !hands[2].is_woken());
        // One that goes away after it was moved leaves the bucket it was moved to.
        drop(hands);
        assert_eq!(wake(&mm, to, 9, ANY).await, Ok(0));
        assert_eq!(requeue(&mm, from, to, -1, 0, None).await, Err(Errno::EINVAL));
    });
}

#[test]
fn many_waiters_are_woken_in_batches() {
    block_on(async {
        let (mm, at) = space_in_memory().await;
        let mut hands = alloc::vec::Vec::new();
        for _ in 0..50 {
            hands.push(Hand::waiting(&mm, at).await);
        }
        assert_eq!(requeue(&mm, private(at), private(at + 8), 20, 10, None).await, Ok(30));
        assert_eq!(wake(&mm, private(at), 40, ANY).await, Ok(20));
        assert_eq!(wake(&mm, private(at + 8), 40, ANY).await, Ok(10));
        assert!(hands.iter_mut().all(Hand::is_woken));
    });
}

#[test]
fn wake_op_changes_the_word_and_tests_its_old_value() {
    block_on(async {
        let (mm, at) = space_in_memory().await;
        let mut first = Hand::waiting(&mm, at).await;
        let mut second = Hand::waiting(&mm, at + 4).await;
        // Add 5; also wake the second if it was greater than 0.
        let op = WakeOp(1 << 28 | 4 << 24 | 5 << 12);
        assert_eq!(wake_op(&mm, private(at), private(at + 4), 1, 1, op).await, Ok(1));
        assert!(first.is_woken() && !second.is_woken());
        assert_eq!(wake_op(&mm, private(at), private(at + 4), 1, 1, op).await, Ok(1));
        assert!(second.is_woken());
        assert_eq!(UserPtr::<u32>::new(at + 4).read(&mm).await, Ok(10));
    });
}

#[test]
fn deadlines_end_waits_and_wakes_win() {
    block_on(async {
        let (mm, at) = space_in_memory().await;
        let request = WaitRequest { word: private(at), expected: 0, bitset: ANY };
        let key = key_of(&mm, request.word).await.unwrap();
        let deadline = Deadline::after(Duration::from_millis(5));
        assert_eq!(deadline.until(Attempt::new(key, request, None)).await, None);
        assert!(deadline.is_past());
        assert_eq!(wake(&mm, private(at), 1, ANY).await, Ok(0));
        let past = Deadline { at: 0, ..deadline };
        assert_eq!(past.until(core::future::ready(7)).await, Some(7));
    });
}

#[test]
fn bad_words_are_refused() {
    block_on(async {
        let (mm, at) = space_in_memory().await;
        assert_eq!(wake(&mm, private(at + 1), 1, ANY).await, Err(Errno::EINVAL));
        assert_eq!(wake(&mm, private(1 << 52), 1, ANY).await, Err(Errno::EFAULT));
    });
}

#[test]
fn a_wake_of_many_reaches_those_who_were_there() {
    block_on(async {
        let (mm, at) = space_in_memory().await;
        let key = key_of(&mm, private(at)).await.unwrap();
        let mut ones = Vec::new();
        let mut twos = Vec::new();
        for _ in 0..50 {
            for (bitset, hands) in [(1, &mut ones), (2, &mut twos)] {
                let mut hand = Hand::new(&mm, at, 0, bitset).await;
                assert_eq!(hand.poll(), Poll::Pending);
                hands.push(hand);
            }
        }
        {
            let mut mark = pin!(Mark::new(key));
            let mut woken = mark::wake_some(mark.as_mut(), key, 60, 2);
            assert!(woken < 50 && mark.is_set());
            // In its way: one who goes, and one who comes.
            ones.truncate(40);
            let mut late = Hand::new(&mm, at, 0, 2).await;
            assert_eq!(late.poll(), Poll::Pending);
            while mark.is_set() {
                woken += mark::wake_some(mark.as_mut(), key, 60 - woken, 2);
            }
            assert_eq!((woken, late.poll()), (50, Poll::Pending));
        }
        assert!(twos.iter_mut().all(Hand::is_woken) && !ones.iter_mut().any(Hand::is_woken));
        {
            // Given up half-way.
            let mut mark = pin!(Mark::new(key));
            assert_eq!(mark::wake_some(mark.as_mut(), key, 60, 1), 16);
            assert!(mark.is_set());
        }
        assert_eq!(wake(&mm, private(at), i32::MAX, ANY).await, Ok(24));
        assert!(ones.iter_mut().all(Hand::is_woken));
    });
}
