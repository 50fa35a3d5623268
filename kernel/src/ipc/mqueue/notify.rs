//! mq_notify(3): who is told of the first message in an empty queue.

use alloc::sync::{Arc, Weak};

use super::Queue;
use crate::errno::{Errno, Result};
use crate::process::{self, Pid, Process, Thread};
use crate::signal::{self, SigInfo};

/// How to be told: SIGEV_NONE, SIGEV_SIGNAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Not,
    /// With this sigev_value. Signal 0 is none.
    Signal {
        signo: u8,
        value: u64,
    },
}

/// A process that is to be told once.
pub(super) struct Registration {
    process: Weak<Process>,
    pub pid: Pid,
    pub how: How,
    /// The address space of the program that asked: another one of the same process is not told.
    space: u64,
}

/// Registers the calling process (EBUSY if one is registered), or with None takes its registration back.
pub fn notify(t: &Thread, queue: &Queue, how: Option<How>) -> Result<()> {
    let pid = t.process().pid;
    let mut state = queue.state.lock();
    match how {
        None => {
            if state.registered.as_ref().is_some_and(|registered| registered.pid == pid) {
                state.registered = None;
                state.used = crate::fs::now();
            }
        }
        Some(_) if state.registered.is_some() => return Err(Errno::EBUSY),
        Some(how) => {
            let process = Arc::downgrade(t.process());
            state.registered = Some(Registration { process, pid, how, space: t.mm().id() });
            state.used = crate::fs::now();
        }
    }
    Ok(())
}

impl Registration {
    /// `t` has sent the message.
    pub fn tell(self, t: &Thread) {
        let How::Signal { signo, value } = self.how else { return };
        let Some(process) = self.process.upgrade().filter(|_| signo != 0) else { return };
        let space = process.any_thread().and_then(|task| task.handles().mm).map(|mm| mm.id());
        if space == Some(self.space) {
            // A full signal queue loses it, as on Linux.
            let _ = signal::send_to_process(&process, SigInfo::message(signo, t.process().pid, t.creds().uid, value));
        }
    }
}

impl Queue {
    /// A process closes a descriptor of the queue: it is no longer registered.
    pub(super) fn closed(&self) {
        let pid = process::with_current(|task| task.map(|task| task.process().pid));
        let mut state = self.state.lock();
        if state.registered.as_ref().is_some_and(|registered| Some(registered.pid) == pid) {
            state.registered = None;
        }
    }

    /// What is read from its file.
    pub(super) fn text(&self) -> alloc::string::String {
        let state = self.state.lock();
        let (notify, signo, pid) = match &state.registered {
            None => (0, 0, 0),
            Some(Registration { how: How::Not, pid, .. }) => (1, 0, *pid),
            Some(Registration { how: How::Signal { signo, .. }, pid, .. }) => (0, *signo, *pid),
        };
        format!("QSIZE:{:<10} NOTIFY:{notify:<5} SIGNO:{signo:<5} NOTIFY_PID:{pid:<6}\n", state.bytes)
    }
}
