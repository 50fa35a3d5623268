//! What wait(2) finds of tracees.

use alloc::sync::Arc;

use arrayvec::ArrayVec;

use super::Trace;
use crate::process::exit::ExitStatus;
use crate::process::table::TURN;
use crate::process::{Process, Task};

/// A change of a tracee.
pub enum News {
    /// A thread that was not the first of its process has ended.
    Dead(ExitStatus),
    /// Signal, flags and event.
    Stopped(u32),
}

impl Task {
    /// Some of those whom it traces, by the numbers of the bonds: the first ones from `number` on.
    pub fn tracees(&self, number: u64) -> ArrayVec<(u64, Arc<Task>), TURN> {
        let tracees = self.bonds.tracees.lock();
        tracees.range(number..).take(TURN).map(|(number, task)| (*number, task.clone())).collect()
    }
}

impl Trace {
    /// A stop that has not been reported is, if `consume` says so.
    pub fn news(&self, process: &Process, consume: bool) -> Option<News> {
        let mut bond = self.bond.lock();
        if let Some(status) = bond.dead {
            drop(bond);
            return Some(News::Dead(process.group_exit.lock().unwrap_or(status)));
        }
        let report = if consume { bond.report.take() } else { bond.report };
        report.map(News::Stopped)
    }

    /// None: the bond has ended.
    pub fn tracee(&self) -> Option<Arc<Task>> {
        self.tracer.bonds.tracees.lock().get(&self.number).cloned()
    }

    pub fn is_dead(&self) -> bool {
        self.bond.lock().dead.is_some()
    }
}

impl Process {
    /// Who traces the first thread.
    pub fn tracer(&self) -> Option<Arc<Task>> {
        self.leader_trace.lock().as_ref().map(|trace| trace.tracer.clone())
    }

    /// The first thread, which may have ended, if it is traced.
    pub fn traced_leader(&self) -> Option<Arc<Task>> {
        self.leader_trace.lock().clone()?.tracee()
    }
}
