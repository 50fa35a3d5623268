//! Signals for many: a process group, or everybody (kill(2)).
//!
//! All that are there when such a signal is sent get it, as if all at once. But there may be very many, so each is signalled
//! under the table's lock of its own, and processes are made meanwhile. Those of one that has had the signal are later than it.
//! Those of one that the walk is still to come to would not be there had it come in time: who makes one of them gives it the
//! signal itself ([`Table::due_to_children`]). So a walk visits nobody who was not there at its beginning, however fast they
//! become more.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use arrayvec::ArrayVec;

use super::creds::Credentials;
use super::process::Process;
use super::session::Session;
use super::table::{self, Pid, Table};
use crate::arch::{self, MAX_CPUS};
use crate::errno::{Errno, Result};
use crate::signal::{self, SigInfo, SigSet};
use crate::sync::SpinGuard;

/// Who is to be signalled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    Group(Pid),
    /// All but the first process and the sender's.
    Everybody,
}

/// Whom of these the sender reaches.
#[derive(Clone)]
pub enum Reach {
    All,
    /// A terminal its own session.
    Session(Arc<Session>),
    /// A process whom its credentials let it signal.
    By(Arc<Process>, Arc<Credentials>),
}

impl Reach {
    fn check(&self, target: &Process, signo: u8) -> Result<()> {
        match self {
            Reach::All => Ok(()),
            Reach::Session(session) if Arc::ptr_eq(&target.session.read(), session) => Ok(()),
            Reach::Session(_) => Err(Errno::EPERM),
            Reach::By(sender, creds) => signal::may_signal(sender, creds, target, signo),
        }
    }

    fn excludes(&self, target: &Process) -> bool {
        target.pid == 1 || matches!(self, Reach::By(sender, _) if sender.pid == target.pid)
    }
}

/// A signal that is on its way to many.
pub(super) struct Walk {
    number: u64,
    whom: Whom,
    reach: Reach,
    /// 0: there is nothing to be given.
    signo: u8,
    /// The first that it has not come to: a place in the group, or a pid.
    next: u64,
    /// The last place that had been given when it began.
    last: u64,
}

/// Nobody waits for anything during a walk, so there is at most one on each CPU.
pub(super) type Walks = ArrayVec<Walk, MAX_CPUS>;

impl Walk {
    fn is_to_come_to(&self, process: &Process) -> bool {
        let place = process.group_place.load(Ordering::Relaxed);
        let ahead = match self.whom {
            Whom::Group(pgid) => {
                process.pgid.load(Ordering::Relaxed) == pgid && (self.next..=self.last).contains(&place)
            }
            Whom::Everybody => {
                u64::from(process.pid) >= self.next
                    && process.born.load(Ordering::Relaxed) <= self.last
                    && !self.reach.excludes(process)
            }
        };
        ahead && self.reach.check(process, self.signo).is_ok()
    }
}

impl Table {
    /// Signals that `maker` is still to get with many others, so that a child it makes now gets them, too.
    pub(super) fn due_to_children(&self, maker: &Process) -> SigSet {
        let mut due = SigSet::EMPTY;
        for walk in self.walks.iter().filter(|walk| walk.signo != 0 && walk.is_to_come_to(maker)) {
            due.insert(walk.signo);
        }
        due
    }

    /// Answers the number of the walk, and the last place that has been given.
    fn begin_walk(&mut self, whom: Whom, reach: &Reach, signo: u8) -> Option<(u64, u64)> {
        if self.walks.is_full() {
            return None;
        }
        self.last_walk += 1;
        let (number, last) = (self.last_walk, self.last_place);
        self.walks.push(Walk { number, whom, reach: reach.clone(), signo, next: 0, last });
        Some((number, last))
    }

    /// The next one that the walk comes to; when there is none, the walk has ended.
    fn step(&mut self, number: u64) -> Option<Arc<Process>> {
        let Table { walks, nodes, groups, .. } = self;
        let walk = walks.iter_mut().find(|walk| walk.number == number)?;
        match walk.whom {
            Whom::Group(pgid) => {
                let (place, pid) =
                    groups.get(&pgid)?.range(walk.next..).next().filter(|(place, _)| **place <= walk.last)?;
                walk.next = place + 1;
                nodes.get(pid).map(|node| node.process.clone())
            }
            Whom::Everybody => {
                let (pid, node) = nodes.range(Pid::try_from(walk.next).ok()?..).next()?;
                walk.next = u64::from(*pid) + 1;
                Some(node.process.clone())
            }
        }
    }

    fn end_walk(&mut self, number: u64) -> Option<Walk> {
        let at = self.walks.iter().position(|walk| walk.number == number)?;
        Some(self.walks.swap_remove(at))
    }
}

/// Sends a signal to many; 0 only asks. Answers as kill(2) does: a group has been signalled if one of it has been, and of
/// everybody those do not count who may not be.
pub fn signal_many(whom: Whom, reach: &Reach, info: SigInfo) -> Result<()> {
    let signo = if signal::is_valid(info.signo) { info.signo() } else { 0 };
    let (number, last) = loop {
        let begun = table::lock().begin_walk(whom, reach, signo);
        match begun {
            Some(begun) => break begun,
            None => arch::spin_hint(),
        }
    };
    let mut result = Err(Errno::ESRCH);
    loop {
        let mut table = table::lock();
        let Some(process) = table.step(number) else {
            let ended = table.end_walk(number);
            drop(table);
            drop(ended);
            return result;
        };
        let everybody = whom == Whom::Everybody;
        if everybody && (reach.excludes(&process) || process.born.load(Ordering::Relaxed) > last) {
            continue;
        }
        let sent = signal_one(&process, reach, info, table);
        result = match sent {
            Err(Errno::EPERM) if everybody => result.or(Ok(())),
            sent if everybody || result.is_err() => sent,
            _ => result,
        };
    }
}

fn signal_one(process: &Arc<Process>, reach: &Reach, info: SigInfo, table: SpinGuard<Table>) -> Result<()> {
    if info.signo != 0 && !signal::is_valid(info.signo) {
        return Err(Errno::EINVAL);
    }
    reach.check(process, info.signo())?;
    if info.signo == 0 {
        return Ok(());
    }
    let (sent, effects) = signal::post_with_others(process, info);
    drop(table);
    effects.apply();
    sent
}
