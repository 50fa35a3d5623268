//! Signals and fork: a child comes before what its maker has got, or after what that makes of it.
//!
//! A fork begins when nothing is pending, and no signal for its maker alone holds it up from then on, however often there is one.
//! A signal for many processes (kill(2) of a group) that comes meanwhile would have come to the child had it been there; so it
//! is the child's, too, without saying who sent it.

use super::info::SigInfo;
use super::queue::Account;
use super::set::{SIGCONT, SIGKILL, SigSet};
use super::state::Shared;
use super::{fatal_pending, is_signalled};
use crate::process::{Process, Task};

/// A fork from its beginning until the child belongs to its parent and group.
pub struct Fork<'a>(&'a Task);

impl<'a> Fork<'a> {
    /// None: something has come for the thread, or for its process, though another thread is to take it. It is to be acted on
    /// first.
    pub fn begin(maker: &'a Task) -> Option<Self> {
        let process = maker.process();
        let mut shared = process.sig.lock();
        let mut local = maker.sig.lock();
        maker.update_pending(&local);
        if is_signalled(maker) || process.is_dying() {
            return None;
        }
        shared.forks += 1;
        local.for_child = Some(SigSet::EMPTY);
        drop(local);
        drop(shared);
        Some(Fork(maker))
    }

    /// The signals that the child is to begin with, with those that are `due` to it. None: the maker ends. The child is there
    /// for others from now on: the table's lock is held.
    pub fn complete(&self, due: SigSet) -> Option<SigSet> {
        let got = self.0.sig.lock().for_child.unwrap_or_default() | due;
        let ends = fatal_pending(self.0) || self.0.process().is_dying() || got.contains(SIGKILL);
        (!ends).then_some(got)
    }
}

impl Drop for Fork<'_> {
    fn drop(&mut self) {
        let mut shared = self.0.process().sig.lock();
        self.0.sig.lock().for_child = None;
        shared.forks -= 1;
    }
}

/// Notes a signal for many; `pending`: it has not been discarded, so that a child is to get it.
pub(super) fn note<'a>(shared: &Shared, threads: impl Iterator<Item = &'a Task>, signo: u8, pending: bool) {
    if shared.forks == 0 {
        return;
    }
    for task in threads {
        if let Some(set) = &mut task.sig.lock().for_child {
            // A stop and what undoes it are not there together.
            if signo == SIGCONT {
                *set = set.without(SigSet::STOPS);
            } else if SigSet::STOPS.contains(signo) {
                *set = set.without(SigSet::CONT);
            }
            if pending {
                set.insert(signo);
            }
        }
    }
}

/// Makes signals pending for a new process, whose first thread is `task`.
pub(super) fn begin_with(process: &Process, task: &Task, mut signals: SigSet) {
    let mut shared = process.sig.lock();
    let local = task.sig.lock();
    while let Some(signo) = signals.first() {
        signals.remove(signo);
        let account = || Account { uid: task.shared_creds().uid, limit: 0 };
        // Without room it is pending without information.
        let _ = shared.pending.push(SigInfo::user(signo, 0, 0), account);
    }
    process.sig.publish(&shared);
    task.update_pending(&local);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::test_util::process;
    use crate::signal::{SIGCHLD, SIGSTOP, SIGTERM, post_with_others};

    /// What a child begins with if these come to its maker's group meanwhile. None: the maker ends.
    fn got(pid: u32, signals: &[u8]) -> Option<SigSet> {
        let (process, task) = process(pid, 40);
        let fork = Fork::begin(&task).unwrap();
        for signo in signals {
            let (sent, effects) = post_with_others(&process, SigInfo::user(*signo, 0, 0));
            sent.unwrap();
            drop(effects);
        }
        fork.complete(SigSet::EMPTY)
    }

    #[test]
    fn a_child_gets_what_came_for_the_group() {
        assert!(got(41, &[SIGTERM]).is_some_and(|set| set.contains(SIGTERM)));
        assert!(got(41, &[SIGSTOP]).is_some_and(|set| set.contains(SIGSTOP)));
        assert_eq!(got(41, &[SIGSTOP, SIGCONT]), Some(SigSet::EMPTY));
    }

    #[test]
    fn what_its_maker_ignores_is_nothing_to_a_child() {
        assert_eq!(got(41, &[SIGCHLD]), Some(SigSet::EMPTY));
        assert_eq!(got(1, &[SIGTERM, SIGKILL, SIGSTOP]), Some(SigSet::EMPTY));
    }
}
