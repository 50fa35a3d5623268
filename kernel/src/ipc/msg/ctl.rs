//! msgctl(2), and what /proc/sysvipc/msg shows.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::{BYTES, MAX_BYTES, MESSAGES, Queue, REGISTRY};
use crate::errno::{Errno, Result};
use crate::ipc::ids::{self, Change, Perm, READ};
use crate::ipc::line::Served;
use crate::process::{Caps, Credentials, Pid};

/// IPC_STAT.
pub struct Status {
    pub perm: Perm,
    pub stime: i64,
    pub rtime: i64,
    pub ctime: i64,
    pub bytes: usize,
    pub messages: usize,
    pub max_bytes: usize,
    pub sender: Pid,
    pub receiver: Pid,
}

/// MSG_INFO: what is used, and the highest place in the table.
pub struct Info {
    pub queues: usize,
    pub messages: usize,
    pub bytes: usize,
    pub highest: usize,
}

pub fn info() -> Info {
    Info {
        queues: REGISTRY.used(),
        messages: MESSAGES.load(Ordering::Relaxed),
        bytes: BYTES.load(Ordering::Relaxed),
        highest: REGISTRY.highest(),
    }
}

impl Queue {
    fn status(&self) -> Option<Status> {
        let state = self.state.lock();
        let status = Status {
            perm: state.perm,
            stime: state.stime,
            rtime: state.rtime,
            ctime: state.ctime,
            bytes: state.bytes,
            messages: state.messages.len(),
            max_bytes: state.max_bytes,
            sender: state.sender,
            receiver: state.receiver,
        };
        (!state.removed).then_some(status)
    }
}

/// All queues.
pub fn all() -> Vec<Status> {
    REGISTRY.all().iter().filter_map(|queue| queue.status()).collect()
}

/// IPC_STAT by id, MSG_STAT and MSG_STAT_ANY by place in the table. `creds`: whose right to read counts.
pub fn status(creds: Option<&Credentials>, id: i32, by_place: bool) -> Result<Status> {
    let queue = if by_place { REGISTRY.at(id)? } else { REGISTRY.get(id)? };
    let status = queue.status().ok_or(Errno::EIDRM)?;
    if let Some(creds) = creds {
        status.perm.check(creds, READ)?;
    }
    Ok(status)
}

/// IPC_SET: owner, mode, and bytes. Who waits looks again whether it may, and whether there is room.
pub fn set_owner(creds: &Credentials, id: i32, change: &Change, max_bytes: u64) -> Result<()> {
    let queue = REGISTRY.get(id)?;
    let mut served = Served::default();
    let mut state = queue.state.lock();
    state.perm.check_owner(creds)?;
    if max_bytes > MAX_BYTES.load(Ordering::Relaxed) as u64 && !creds.capable(Caps::SYS_RESOURCE) {
        return Err(Errno::EPERM);
    }
    state.check_valid()?;
    state.perm.set(change)?;
    state.max_bytes = usize::try_from(max_bytes).unwrap_or(usize::MAX);
    state.ctime = ids::now();
    state.expel(&mut served);
    drop(state);
    served.wake(queue.receiver_queue());
    queue.wake_senders(u64::MAX);
    Ok(())
}

/// IPC_RMID: messages are lost, and whoever waits fails with EIDRM.
pub fn remove(creds: &Credentials, id: i32) -> Result<()> {
    let queue = REGISTRY.get(id)?;
    let mut state = queue.state.lock();
    state.perm.check_owner(creds)?;
    state.check_valid()?;
    state.removed = true;
    let messages = state.clear();
    drop(state);
    REGISTRY.remove(id);
    queue.receiver_queue().wake_all();
    queue.wake_senders(u64::MAX);
    drop(messages);
    Ok(())
}
