//! Pending signals: a standard signal is pending once, real-time signals queue up (signal(7)).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::info::{SI_KERNEL, SI_USER, SigInfo};
use super::set::{SIGRTMIN, SigSet};
use crate::errno::{Errno, Result};
use crate::sync::SpinLock;

/// Signals waiting for a thread or a process.
#[derive(Default)]
pub(super) struct Queue {
    set: SigSet,
    /// In order of arrival. A signal in `set` without an entry here has lost its information to a shortage.
    entries: Vec<Entry>,
}

struct Entry {
    info: SigInfo,
    /// The user whose RLIMIT_SIGPENDING it counts against.
    charged: Option<u32>,
}

/// Who pays for a queued real-time signal: real user id and RLIMIT_SIGPENDING of the receiver.
#[derive(Clone, Copy)]
pub(super) struct Account {
    pub uid: u32,
    pub limit: u64,
}

/// Queued real-time signals and timers of each real user.
static QUEUED: SpinLock<BTreeMap<u32, u64>> = SpinLock::new(BTreeMap::new());

impl Account {
    #[inline]
    fn charge(self) -> bool {
        let mut queued = QUEUED.lock();
        let count = queued.entry(self.uid).or_default();
        let fits = *count < self.limit;
        *count += u64::from(fits);
        fits
    }
}

/// Room for one signal, paid for in advance: what a POSIX timer has.
pub struct Reservation(u32);

impl Reservation {
    /// EAGAIN if the user `uid` has `limit` signals queued or reserved already.
    pub fn new(uid: u32, limit: u64) -> Result<Reservation> {
        if (Account { uid, limit }).charge() { Ok(Reservation(uid)) } else { Err(Errno::EAGAIN) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        uncharge(self.0);
    }
}

#[inline]
fn uncharge(uid: u32) {
    let mut queued = QUEUED.lock();
    if let Some(count) = queued.get_mut(&uid) {
        *count -= 1;
        if *count == 0 {
            queued.remove(&uid);
        }
    }
}

impl Queue {
    pub const fn new() -> Self {
        Queue { set: SigSet::EMPTY, entries: Vec::new() }
    }

    pub fn set(&self) -> SigSet {
        self.set
    }

    /// Adds a signal. When a real-time signal does not fit the receiver's limit, one sent with information (sigqueue, F_SETSIG)
    /// is refused with EAGAIN, and one sent by kill becomes pending without information. A timer's signal is in the queue
    /// once, and beside others of its number: each of them makes its own timer go on.
    pub fn push(&mut self, info: SigInfo, account: impl FnOnce() -> Account) -> Result<()> {
        let signo = info.signo();
        let pending = match info.is_timer() {
            true => self.of_timer(info.timer_id()).is_some(),
            false => signo < SIGRTMIN && self.set.contains(signo),
        };
        if pending {
            return Ok(());
        }
        let mut charged = None;
        if signo >= SIGRTMIN && !info.is_timer() {
            let account = account();
            if account.charge() {
                charged = Some(account.uid);
            } else if info.code != SI_USER && info.code != SI_KERNEL {
                return Err(Errno::EAGAIN);
            } else {
                self.set.insert(signo);
                return Ok(());
            }
        }
        if self.entries.try_reserve(1).is_err() {
            charged.into_iter().for_each(uncharge);
            if info.code < 0 {
                return Err(Errno::EAGAIN);
            }
        } else {
            self.entries.push(Entry { info, charged });
        }
        self.set.insert(signo);
        Ok(())
    }

    fn of_timer(&mut self, id: i32) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.info.is_timer() && entry.info.timer_id() == id)
    }

    /// A timer is deleted while its signal may be pending: the signal stays, and keeps the room that was the timer's.
    /// The room is given back if there is no such signal.
    pub fn outlive_timer(&mut self, id: i32, room: Reservation) -> Option<Reservation> {
        match self.of_timer(id) {
            Some(entry) if entry.charged.is_none() => {
                entry.charged = Some(room.0);
                core::mem::forget(room);
                None
            }
            _ => Some(room),
        }
    }

    /// Takes the first signal of `wanted`.
    pub fn pop(&mut self, wanted: SigSet) -> Option<SigInfo> {
        let signo = (self.set & wanted).first()?;
        let mut of_kind = self.entries.iter().enumerate().filter(|(_, entry)| entry.info.signo() == signo);
        let first = of_kind.next().map(|(index, _)| index);
        let more = of_kind.next().is_some();
        if !more {
            self.set.remove(signo);
        }
        Some(match first {
            Some(index) => {
                let entry = self.entries.remove(index);
                entry.charged.into_iter().for_each(uncharge);
                entry.info
            }
            None => SigInfo::user(signo, 0, 0),
        })
    }

    /// The signal at this place of the queue, which stays there.
    pub fn nth(&self, index: usize) -> Option<SigInfo> {
        self.entries.get(index).map(|entry| entry.info)
    }

    /// Forgets all signals of `set`.
    pub fn flush(&mut self, set: SigSet) {
        if (self.set & set).is_empty() {
            return;
        }
        self.set = self.set.without(set);
        self.entries.retain(|entry| {
            let keep = !set.contains(entry.info.signo());
            if !keep {
                entry.charged.into_iter().for_each(uncharge);
            }
            keep
        });
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.flush(SigSet::ALL);
    }
}

#[cfg(test)]
mod tests {
    use super::super::info::SI_TIMER;
    use super::super::set::*;
    use super::*;

    fn account(uid: u32, limit: u64) -> impl Fn() -> Account {
        move || Account { uid, limit }
    }

    fn queued(signo: u8, value: u64) -> SigInfo {
        let mut info = SigInfo::user(signo, 1, 0);
        info.code = super::super::info::SI_QUEUE;
        info.fields[1] = value;
        info
    }

    #[test]
    fn standard_signals_are_pending_once() {
        let mut queue = Queue::new();
        queue.push(SigInfo::user(SIGUSR1, 5, 0), account(1, 0)).unwrap();
        queue.push(SigInfo::user(SIGUSR1, 6, 0), account(1, 0)).unwrap();
        assert_eq!(queue.pop(SigSet::ALL).unwrap().sender().0, 5);
        assert!(queue.pop(SigSet::ALL).is_none());
    }

    #[test]
    fn real_time_signals_queue_in_order_and_low_numbers_go_first() {
        let mut queue = Queue::new();
        for (signo, value) in [(40, 1), (40, 2), (35, 3)] {
            queue.push(queued(signo, value), account(2, 10)).unwrap();
        }
        let order: Vec<u64> = core::iter::from_fn(|| queue.pop(SigSet::ALL)).map(|info| info.value()).collect();
        assert_eq!(order, [3, 1, 2]);
        assert!(queue.set().is_empty());
    }

    #[test]
    fn the_limit_refuses_sigqueue_but_not_kill() {
        let mut queue = Queue::new();
        queue.push(queued(40, 1), account(3, 1)).unwrap();
        assert_eq!(queue.push(queued(40, 2), account(3, 1)), Err(Errno::EAGAIN));
        queue.push(SigInfo::user(41, 9, 0), account(3, 1)).unwrap();
        assert_eq!(queue.pop(SigSet::of(&[41])).unwrap().sender(), (0, 0));
        drop(queue);
        let mut queue = Queue::new();
        queue.push(queued(40, 1), account(3, 1)).unwrap();
    }

    #[test]
    fn only_a_real_timer_s_signal_is_free() {
        let mut queue = Queue::new();
        queue.push(SigInfo::timer(40, 1, 0, 7), account(5, 0)).unwrap();
        let forged = SigInfo::from_user(&SigInfo::timer(40, 1, 0, 7).to_user()).unwrap();
        assert_eq!(queue.push(forged, account(5, 0)), Err(Errno::EAGAIN));
    }

    #[test]
    fn a_timer_s_signal_is_queued_once_and_beside_others() {
        let mut queue = Queue::new();
        queue.push(SigInfo::user(SIGALRM, 5, 0), account(6, 0)).unwrap();
        for id in [1, 2, 1, 2] {
            queue.push(SigInfo::timer(SIGALRM, id, 0, 0), account(6, 0)).unwrap();
        }
        queue.push(SigInfo::user(SIGALRM, 5, 0), account(6, 0)).unwrap();
        let order: Vec<i32> = core::iter::from_fn(|| queue.pop(SigSet::ALL)).map(|info| info.code).collect();
        assert_eq!(order, [0, SI_TIMER, SI_TIMER]);
    }

    #[test]
    fn the_pending_signal_of_a_deleted_timer_goes_on_counting() {
        let mut queue = Queue::new();
        let reserve = || Reservation::new(7, 1).ok();
        queue.push(SigInfo::timer(40, 1, 0, 0), account(7, 0)).unwrap();
        assert!(queue.outlive_timer(1, reserve().unwrap()).is_none());
        assert!(reserve().is_none(), "timers made and deleted in a loop would fill memory");
        queue.pop(SigSet::ALL).unwrap();
        let room = reserve().unwrap();
        assert!(queue.outlive_timer(1, room).is_some());
        assert!(reserve().is_some());
    }

    #[test]
    fn flush_and_wanted_sets() {
        let mut queue = Queue::new();
        queue.push(SigInfo::user(SIGTSTP, 1, 0), account(4, 0)).unwrap();
        queue.push(SigInfo::user(SIGTERM, 1, 0), account(4, 0)).unwrap();
        queue.flush(SigSet::STOPS);
        assert_eq!(queue.set(), SigSet::of(&[SIGTERM]));
        assert!(queue.pop(SigSet::of(&[SIGUSR1])).is_none());
    }
}
