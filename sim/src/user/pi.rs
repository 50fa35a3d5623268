//! What a C library builds on futexes that lend priority, and on robust lists.

use super::calls::{EAGAIN, ETIMEDOUT, Sys, U};
use super::sync::ALL;

const NR_FUTEX: u64 = 98;
const PRIVATE: u64 = 128;
const WAIT: u64 = 0;
const WAKE: u64 = 1;
const UNLOCK_PI: u64 = 7;
const TRYLOCK_PI: u64 = 8;
const WAIT_REQUEUE_PI: u64 = 11;
const CMP_REQUEUE_PI: u64 = 12;
const LOCK_PI2: u64 = 13;

pub const WAITERS: u32 = 0x8000_0000;
pub const OWNER_DIED: u32 = 0x4000_0000;
pub const TID_MASK: u32 = 0x3fff_ffff;

pub const ESRCH: Sys = -3;
pub const EDEADLK: Sys = -35;

impl U {
    /// A point up to `most` ns from now on the monotonic clock, for a call; 0 for none.
    async fn deadline(self, most: u64) -> u64 {
        if most == 0 {
            return 0;
        }
        let at = self.now() + self.random(most);
        self.place_words(&[at / 1_000_000_000, at % 1_000_000_000]).await
    }

    /// Takes a lock that lends priority; gives up after up to `most` ns if that is not 0. Answers what the kernel would.
    pub async fn pi_lock(self, addr: u64, most: u64, shared: bool) -> Sys {
        if self.compare_exchange(addr, 0, self.tid()).await == 0 {
            return 0;
        }
        let flag = if shared { 0 } else { PRIVATE };
        let deadline = self.deadline(most).await;
        self.call(NR_FUTEX, &[addr, LOCK_PI2 | flag, 0, deadline]).await
    }

    pub async fn pi_try_lock(self, addr: u64, shared: bool) -> Sys {
        let flag = if shared { 0 } else { PRIVATE };
        self.call(NR_FUTEX, &[addr, TRYLOCK_PI | flag]).await
    }

    pub async fn pi_unlock(self, addr: u64, shared: bool) {
        let me = self.tid();
        if self.compare_exchange(addr, me, 0).await != me {
            let flag = if shared { 0 } else { PRIVATE };
            let mut answer = EAGAIN;
            // Somebody has announced that he will wait, in that moment.
            while answer == EAGAIN {
                answer = self.call(NR_FUTEX, &[addr, UNLOCK_PI | flag]).await;
            }
            assert!(answer == 0, "unlock: {answer}");
        }
    }

    /// Waits on a condition variable (a counter) with its lock taken, until up to `most` ns have passed if that is not 0.
    pub async fn pi_condvar_wait(self, condvar: u64, lock: u64, most: u64) {
        let seen = self.load(condvar).await;
        self.pi_unlock(lock, false).await;
        let deadline = self.deadline(most).await;
        let args = [condvar, WAIT_REQUEUE_PI | PRIVATE, seen.into(), deadline, lock];
        let answer = self.call(NR_FUTEX, &args).await;
        if answer != 0 {
            assert!(answer == EAGAIN || answer == ETIMEDOUT && most != 0, "wait to be requeued: {answer}");
            let locked = self.pi_lock(lock, 0, false).await;
            assert!(locked == 0, "lock after a wait: {locked}");
        }
        let word = self.load(lock).await;
        assert!(word & TID_MASK == self.tid(), "the lock is not mine after a wait: {word:#x}");
    }

    /// Lets one waiter (or all) go on.
    pub async fn pi_condvar_wake(self, condvar: u64, lock: u64, all: bool) {
        loop {
            let value = self.add(condvar, 1).await.wrapping_add(1);
            let args = [condvar, CMP_REQUEUE_PI | PRIVATE, 1, if all { ALL } else { 0 }, lock, value.into()];
            let answer = self.call(NR_FUTEX, &args).await;
            assert!(answer >= 0 || answer == EAGAIN, "requeue: {answer}");
            if answer >= 0 {
                return;
            }
        }
    }

    /// Announces a robust list without entries, whose words come 16 bytes before the entries.
    pub async fn robust_list(self, head: u64) {
        self.store64(head, head).await;
        self.store64(head + 8, (-16i64) as u64).await;
        self.store64(head + 16, 0).await;
        assert_eq!(self.call(99, &[head, 24]).await, 0);
    }

    /// Takes a robust lock, the only one of the thread. True if its owner died.
    pub async fn robust_lock(self, head: u64, word: u64, pi: bool) -> bool {
        let entry = (word + 16) | u64::from(pi);
        self.store64(head + 16, entry).await;
        let mut waiters = 0;
        let died = loop {
            let seen = self.load(word).await;
            if pi {
                let answer = if seen == 0 && self.compare_exchange(word, 0, self.tid()).await == 0 {
                    0
                } else {
                    self.call(NR_FUTEX, &[word, LOCK_PI2]).await
                };
                assert!(answer == 0, "robust lock: {answer}");
                break self.load(word).await & OWNER_DIED != 0;
            }
            if seen & TID_MASK == 0 {
                if self.compare_exchange(word, seen, self.tid() | waiters | seen & WAITERS).await == seen {
                    break seen & OWNER_DIED != 0;
                }
            } else if self.compare_exchange(word, seen, seen | WAITERS).await == seen {
                self.call(NR_FUTEX, &[word, WAIT, (seen | WAITERS).into()]).await;
                waiters = WAITERS;
            }
        };
        self.store64(word + 16, head).await;
        self.store64(head, entry).await;
        self.store64(head + 16, 0).await;
        died
    }

    pub async fn robust_unlock(self, head: u64, word: u64, pi: bool) {
        self.store64(head + 16, (word + 16) | u64::from(pi)).await;
        self.store64(head, head).await;
        if pi {
            self.pi_unlock(word, true).await;
        } else if self.swap(word, 0).await & WAITERS != 0 {
            self.call(NR_FUTEX, &[word, WAKE, 1]).await;
        }
        self.store64(head + 16, 0).await;
    }
}
