//! Processes for host tests.

use alloc::sync::Arc;

use super::creds::Credentials;
use super::limits::Limits;
use super::process::{NewProcess, Process};
use super::session::Session;
use super::table::Pid;
use super::task::{Handles, Task};
use crate::arch::FpRegs;
use crate::signal::{SIGCHLD, SigHandlers, TaskSignals};
use crate::{exec, mm};

/// A process with one thread, which is in no table.
pub fn process(pid: Pid, pgid: Pid) -> (Arc<Process>, Arc<Task>) {
    mm::test_util::init();
    let process = Process::new(NewProcess {
        pid,
        creator: 0,
        pgid,
        session: Session::new(0),
        handlers: Arc::new(SigHandlers::new()),
        limits: Limits::initial(100),
        exit_signal: SIGCHLD.into(),
    });
    let mm = Some(mm::AddressSpace::new().unwrap());
    let handles = Handles { mm, files: None, fs: None, creds: Arc::new(Credentials::root()) };
    let entity = exec::Entity::new(Default::default());
    let task = Task::new(pid, process.clone(), entity, TaskSignals::new(), handles, [0; 16], FpRegs::default());
    task.join(&mut process.threads.lock());
    (process, task)
}
