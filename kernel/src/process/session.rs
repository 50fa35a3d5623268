//! Sessions (setsid(2)) and their controlling terminal.

use alloc::sync::Arc;
use core::any::Any;

use super::table::Pid;
use crate::sync::SpinLock;

/// A session; lives as long as a process of it does.
pub struct Session {
    pub sid: Pid,
    /// The controlling terminal; the tty layer knows the type.
    pub tty: SpinLock<Option<Arc<dyn Any + Send + Sync>>>,
}

impl Session {
    pub fn new(sid: Pid) -> Arc<Session> {
        Arc::new(Session { sid, tty: SpinLock::new(None) })
    }
}
