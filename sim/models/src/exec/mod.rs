//! The files of `kernel/src/exec` that need nothing but locks and atomics.

#[path = "../../../../kernel/src/exec/list.rs"]
pub mod list;
#[path = "../../../../kernel/src/exec/locks.rs"]
pub mod locks;
#[path = "../../../../kernel/src/exec/semaphore.rs"]
pub mod semaphore;
#[path = "../../../../kernel/src/exec/wait.rs"]
pub mod wait;

pub use wait::WaitQueue;
