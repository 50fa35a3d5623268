//! What wait(2) finds of tracees.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Trace;
use crate::process::exit::ExitStatus;
use crate::process::{Process, Task};

/// A change of a tracee.
pub enum News {
    /// A thread that was not the first of its process has ended.
    Dead(ExitStatus),
    /// Signal, flags and event.
    Stopped(u32),
}

impl Task {
    /// Whom it traces.
    pub fn tracees(&self) -> Vec<Arc<Task>> {
        self.bonds.tracees.lock().clone()
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

    pub fn is_dead(&self) -> bool {
        self.bond.lock().dead.is_some()
    }
}

impl Process {
    /// Who traces the first thread.
    pub fn tracer(&self) -> Option<Arc<Task>> {
        self.leader_tracer.lock().clone()
    }

    /// The first thread, which may have ended, if it is traced.
    pub fn traced_leader(&self) -> Option<Arc<Task>> {
        let tracer = self.tracer()?;
        let tracees = tracer.bonds.tracees.lock();
        tracees.iter().find(|task| core::ptr::eq(&**task.process(), self) && task.is_leader()).cloned()
    }
}
