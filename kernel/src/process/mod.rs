//! process
#![allow(clippy::missing_panics_doc)]
pub mod creds;
pub mod limits;
use alloc::sync::Arc;
pub use creds::{Caps, Credentials};
pub use limits::{Limit, Limits, Resource};

/// A user thread. (The full definition follows; see the names below.)
pub struct Thread;

impl Thread {
    pub fn mm(&self) -> &Arc<crate::mm::AddressSpace> {
        unimplemented!()
    }
    pub fn files(&self) -> &Arc<crate::fs::FdTable> {
        unimplemented!()
    }
    pub fn fs(&self) -> &Arc<crate::fs::FsContext> {
        unimplemented!()
    }
    pub fn creds(&self) -> &Arc<Credentials> {
        unimplemented!()
    }
    pub fn rlimit(&self, _: Resource) -> Limit {
        unimplemented!()
    }
}

impl crate::exec::Interrupts for Thread {
    fn pending(&self) -> bool {
        unimplemented!()
    }
}
