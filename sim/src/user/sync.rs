//! What a C library builds on futexes: mutex (0 free, 1 taken, 2 taken and waited for), condition variable, barrier.
//! After U. Drepper, "Futexes Are Tricky".

use super::calls::{EAGAIN, EINTR, ETIMEDOUT, Sys, U};

const NR_FUTEX: u64 = 98;
const PRIVATE: u64 = 128;
const WAIT: u64 = 0;
const WAKE: u64 = 1;
const CMP_REQUEUE: u64 = 4;
pub const ALL: u64 = i32::MAX as u64;

/// How waits of a primitive are made.
#[derive(Clone, Copy)]
pub struct Style {
    /// Between processes: no FUTEX_PRIVATE_FLAG.
    pub shared: bool,
    /// Every second wait ends after up to so many ns, and is made again; 0: none does.
    pub timeout: u64,
}

impl Style {
    fn flag(self) -> u64 {
        if self.shared { 0 } else { PRIVATE }
    }
}

impl U {
    /// FUTEX_WAIT. What ends it without a wake is no error.
    pub async fn futex_wait(self, addr: u64, value: u32, style: Style) -> Sys {
        let timeout = match style.timeout {
            most if most > 0 && self.random(2) == 0 => self.place_words(&[0, self.random(most)]).await,
            _ => 0,
        };
        let answer = self.call(NR_FUTEX, &[addr, WAIT | style.flag(), value.into(), timeout]).await;
        assert!(matches!(answer, 0 | EAGAIN | EINTR | ETIMEDOUT), "futex wait: {answer}");
        assert!(answer != ETIMEDOUT || timeout != 0);
        answer
    }

    pub async fn futex_wake(self, addr: u64, count: u64, style: Style) -> Sys {
        let woken = self.call(NR_FUTEX, &[addr, WAKE | style.flag(), count]).await;
        assert!(woken >= 0 && woken as u64 <= count, "futex wake: {woken}");
        woken
    }

    pub async fn mutex_lock(self, addr: u64, style: Style) {
        let mut found = self.compare_exchange(addr, 0, 1).await;
        if found == 0 {
            return;
        }
        if found != 2 {
            found = self.swap(addr, 2).await;
        }
        while found != 0 {
            self.futex_wait(addr, 2, style).await;
            found = self.swap(addr, 2).await;
        }
    }

    /// Takes a mutex, or gives up if that takes longer than up to `most` ns (pthread_mutex_timedlock(3)).
    pub async fn mutex_timed_lock(self, addr: u64, most: u64, style: Style) -> bool {
        let mut found = self.compare_exchange(addr, 0, 1).await;
        while found != 0 {
            found = self.swap(addr, 2).await;
            if found == 0 {
                break;
            }
            let timeout = self.place_words(&[0, self.random(most)]).await;
            if self.call(NR_FUTEX, &[addr, WAIT | style.flag(), 2, timeout]).await == ETIMEDOUT {
                return false;
            }
        }
        true
    }

    /// Takes a mutex that others wait for.
    async fn mutex_lock_contended(self, addr: u64, style: Style) {
        while self.swap(addr, 2).await != 0 {
            self.futex_wait(addr, 2, style).await;
        }
    }

    pub async fn mutex_unlock(self, addr: u64, style: Style) {
        if self.update(addr, |old| old.wrapping_sub(1)).await != 1 {
            self.store(addr, 0).await;
            self.futex_wake(addr, 1, style).await;
        }
    }

    /// Waits on a condition variable (a counter) with its mutex taken. May return without a signal.
    pub async fn condvar_wait(self, condvar: u64, mutex: u64, style: Style) {
        let seen = self.load(condvar).await;
        self.mutex_unlock(mutex, style).await;
        self.futex_wait(condvar, seen, style).await;
        self.mutex_lock_contended(mutex, style).await;
    }

    pub async fn condvar_signal(self, condvar: u64, style: Style) {
        self.add(condvar, 1).await;
        self.futex_wake(condvar, 1, style).await;
    }

    /// Wakes one waiter and moves the others to the mutex, which the caller holds.
    pub async fn condvar_broadcast(self, condvar: u64, mutex: u64, style: Style) {
        loop {
            let value = self.add(condvar, 1).await.wrapping_add(1);
            let op = CMP_REQUEUE | style.flag();
            let answer = self.call(NR_FUTEX, &[condvar, op, 1, ALL, mutex, value.into()]).await;
            assert!(answer >= 0 || answer == EAGAIN, "requeue: {answer}");
            if answer >= 0 {
                return;
            }
        }
    }

    /// Waits until `count` threads have come. `barrier`: arrived so far, then the generation.
    pub async fn barrier(self, barrier: u64, count: u32, style: Style) {
        let generation = self.load(barrier + 4).await;
        if self.add(barrier, 1).await + 1 == count {
            self.store(barrier, 0).await;
            self.add(barrier + 4, 1).await;
            self.futex_wake(barrier + 4, ALL, style).await;
            return;
        }
        while self.load(barrier + 4).await == generation {
            self.futex_wait(barrier + 4, generation, style).await;
        }
    }

    /// Waits for the end of a thread that was made with this word.
    pub async fn join(self, tid_word: u64) {
        loop {
            match self.load(tid_word).await {
                0 => return,
                // CLONE_CHILD_CLEARTID wakes without the private flag (clone(2)).
                tid => self.futex_wait(tid_word, tid, Style { shared: true, timeout: 0 }).await,
            };
        }
    }
}
