//! Signals for many: a process group, or everybody (kill(2)).
//!
//! All that are there when such a signal is sent get it, as if all at once. But there may be very many, so each is signalled
//! under the table's lock of its own, and processes are made meanwhile. Those of one that has had the signal are later than it.
//! Those of one that the walk is still to come to would not be there had it come in time: who makes one of them gives it the
//! signal itself ([`Table::due_to_children`]). So a walk visits nobody who was not there at its beginning, however fast they
//! become more. Nor does anybody get away: who leaves a group that the walk is still to find it in has the signal first
//! ([`Table::catch_up`]).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use arrayvec::ArrayVec;

use super::creds::Credentials;
use super::process::Process;
use super::session::Session;
use super::table::{self, Pid, Table};
use crate::arch::{self, MAX_CPUS};
use crate::errno::{Errno, Result};
use crate::signal::{self, Effects, SigInfo, SigSet};

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
    /// Its number may be 0, or none of a signal: there is nothing to be given.
    info: SigInfo,
    /// What kill(2) would answer if nobody else came.
    result: Result<()>,
    /// The first that it has not come to: a place in the group, or a pid.
    next: u64,
    /// The last place that had been given when it began.
    last: u64,
}

/// Nobody waits for anything during a walk, so there is at most one on each CPU.
pub(super) type Walks = ArrayVec<Walk, MAX_CPUS>;

/// What is to be done after signals have become pending, without locks.
#[must_use]
#[derive(Default)]
pub struct Overtaken<'a>(ArrayVec<Effects<'a>, MAX_CPUS>);

impl Overtaken<'_> {
    pub fn apply(self) {
        self.0.into_iter().for_each(Effects::apply);
    }
}

impl Walk {
    fn is_to_come_to(&self, process: &Process) -> bool {
        let place = process.group_place.load(Ordering::Relaxed);
        match self.whom {
            Whom::Group(pgid) => {
                process.pgid.load(Ordering::Relaxed) == pgid && (self.next..=self.last).contains(&place)
            }
            Whom::Everybody => {
                u64::from(process.pid) >= self.next
                    && process.born.load(Ordering::Relaxed) <= self.last
                    && !self.reach.excludes(process)
            }
        }
    }

    /// Whether the process gets something from it when it comes.
    fn gives(&self, process: &Process) -> bool {
        signal::is_valid(self.info.signo)
            && self.reach.check(process, self.info.signo()).is_ok()
            && !signal::discards(process, &self.info)
    }

    /// A group has been signalled if one of it has been, and of everybody those do not count who may not be.
    fn signal<'a>(&mut self, process: &'a Arc<Process>) -> Option<Effects<'a>> {
        let (sent, effects) = self.send(process);
        let everybody = self.whom == Whom::Everybody;
        self.result = match sent {
            Err(Errno::EPERM) if everybody => self.result.or(Ok(())),
            sent if everybody || self.result.is_err() => sent,
            _ => self.result,
        };
        effects
    }

    fn send<'a>(&self, process: &'a Arc<Process>) -> (Result<()>, Option<Effects<'a>>) {
        let (signo, info) = (self.info.signo, self.info);
        if signo != 0 && !signal::is_valid(signo) {
            return (Err(Errno::EINVAL), None);
        }
        let allowed = self.reach.check(process, info.signo());
        if signo == 0 || allowed.is_err() {
            return (allowed, None);
        }
        let (sent, effects) = signal::post_with_others(process, info);
        (sent, Some(effects))
    }
}

impl Table {
    /// Signals that `maker` is still to get with many others, so that a child it makes now gets them, too.
    pub(super) fn due_to_children(&self, maker: &Process) -> SigSet {
        let mut due = SigSet::EMPTY;
        for walk in self.walks.iter().filter(|walk| walk.is_to_come_to(maker) && walk.gives(maker)) {
            due.insert(walk.info.signo());
        }
        due
    }

    /// The process is about to leave its group: what it is still to get with that comes now.
    pub(super) fn catch_up<'a>(&mut self, process: &'a Arc<Process>) -> Overtaken<'a> {
        let ahead = |walk: &&mut Walk| walk.whom != Whom::Everybody && walk.is_to_come_to(process);
        Overtaken(self.walks.iter_mut().filter(ahead).filter_map(|walk| walk.signal(process)).collect())
    }

    /// Answers the number of the walk, and the last place that has been given.
    fn begin_walk(&mut self, whom: Whom, reach: &Reach, info: SigInfo) -> Option<(u64, u64)> {
        if self.walks.is_full() {
            return None;
        }
        self.last_walk += 1;
        let (number, last) = (self.last_walk, self.last_place);
        let (reach, result) = (reach.clone(), Err(Errno::ESRCH));
        self.walks.push(Walk { number, whom, reach, info, result, next: 0, last });
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

    fn walk(&mut self, number: u64) -> Option<&mut Walk> {
        self.walks.iter_mut().find(|walk| walk.number == number)
    }

    fn end_walk(&mut self, number: u64) -> Option<Walk> {
        let at = self.walks.iter().position(|walk| walk.number == number)?;
        Some(self.walks.swap_remove(at))
    }
}

/// Sends a signal to many; 0 only asks. Answers as kill(2) does.
pub fn signal_many(whom: Whom, reach: &Reach, info: SigInfo) -> Result<()> {
    let (number, last) = loop {
        let begun = table::lock().begin_walk(whom, reach, info);
        match begun {
            Some(begun) => break begun,
            None => arch::spin_hint(),
        }
    };
    loop {
        let mut table = table::lock();
        let Some(process) = table.step(number) else {
            let ended = table.end_walk(number);
            drop(table);
            return ended.map_or(Err(Errno::ESRCH), |walk| walk.result);
        };
        if whom == Whom::Everybody && (reach.excludes(&process) || process.born.load(Ordering::Relaxed) > last) {
            continue;
        }
        let effects = table.walk(number).and_then(|walk| walk.signal(&process));
        drop(table);
        if let Some(effects) = effects {
            effects.apply();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::test_util::process;
    use crate::signal::{SIGTERM, SIGUSR1};

    const GROUP: Pid = 40;

    /// A table with a group of these, and a signal on its way to it that has come to nobody yet.
    fn walk_to(members: &[&Arc<Process>], signo: u8) -> (Table, u64) {
        let mut table = Table::default();
        members.iter().for_each(|process| table.add_process((*process).clone(), 0));
        let info = SigInfo::user(signo, 0, 0);
        let (number, _) = table.begin_walk(Whom::Group(GROUP), &Reach::All, info).unwrap();
        (table, number)
    }

    /// Goes on with it for at most so many; what kill(2) would answer.
    fn go_on(table: &mut Table, number: u64, most: usize) -> Result<()> {
        for _ in 0..most {
            let Some(process) = table.step(number) else { break };
            drop(table.walk(number).and_then(|walk| walk.signal(&process)));
        }
        table.walk(number).unwrap().result
    }

    fn has_got(process: &Process, signo: u8) -> bool {
        process.sig.pending().contains(signo)
    }

    #[test]
    fn who_leaves_a_group_has_its_signal_before() {
        let [(first, _first), (second, _second), (third, _third)] = [41, 42, 43].map(|pid| process(pid, GROUP));
        let (mut table, number) = walk_to(&[&first, &second, &third], SIGUSR1);
        assert_eq!(go_on(&mut table, number, 1), Ok(()));
        assert!(has_got(&first, SIGUSR1) && !has_got(&third, SIGUSR1));
        assert_eq!(table.set_group(&first, 50).0.len(), 0);
        assert_eq!(table.set_group(&third, 50).0.len(), 1);
        assert!(has_got(&third, SIGUSR1) && !has_got(&second, SIGUSR1));
        assert_eq!(go_on(&mut table, number, 9), Ok(()));
        assert!(has_got(&second, SIGUSR1));
    }

    #[test]
    fn a_group_that_all_leave_has_been_signalled() {
        let (only, _task) = process(41, GROUP);
        let (mut table, number) = walk_to(&[&only], SIGUSR1);
        drop(table.set_group(&only, 41));
        assert_eq!(go_on(&mut table, number, 9), Ok(()));
    }

    #[test]
    fn who_comes_meanwhile_does_not_get_it() {
        let [(member, _member), (late, _late)] = [(41, GROUP), (42, 7)].map(|(pid, pgid)| process(pid, pgid));
        let (mut table, number) = walk_to(&[&member, &late], SIGUSR1);
        drop(table.set_group(&late, GROUP));
        drop(table.set_group(&late, 7));
        assert_eq!(go_on(&mut table, number, 9), Ok(()));
        assert!(has_got(&member, SIGUSR1) && !has_got(&late, SIGUSR1));
    }

    #[test]
    fn what_a_maker_would_ignore_is_not_for_its_children() {
        let [(init, _init), (other, _other)] = [1, 41].map(|pid| process(pid, GROUP));
        let (table, _) = walk_to(&[&init, &other], SIGTERM);
        assert!(table.due_to_children(&init).is_empty());
        assert!(table.due_to_children(&other).contains(SIGTERM));
    }
}
