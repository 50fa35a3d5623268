//! What processes share by name: System V semaphores, message queues and shared memory (sysvipc(7)), and POSIX message
//! queues (mq_overview(7)).
//!
//! * [`ids`]: the names of System V objects (keys and ids), and who may do what to them.
//! * [`mod@line`]: those who wait for what others do in their place: a semaphore operation, a message.
//! * [`memory`]: how much of the kernel's heap may be taken.
//! * [`sem`], with the undo lists of its processes; [`msg`]; [`shm`]; [`mqueue`], with its file system.
//!
//! An object is behind one spinlock. Whoever changes it serves those who wait in its line, under the lock, and wakes them
//! after it: who wakes has what it waited for, and nobody comes between. So a newcomer overtakes those only who could not
//! have gone on, and a hand-over costs one switch.
//!
//! Why no wake is lost: a waiter joins the line under the lock in the moment in which it found that it must wait, and
//! looks for its result, under the lock, after its node is in the wait queue. Whoever serves it stores the result under
//! the lock and then wakes the queue. If the look came first, the node was in the queue before the wake (see
//! [`crate::exec::WaitQueue`]); if the result came first, the look finds it.
//!
//! Locks: a registry ([`ids`]) → an object → wait queues. A list of undos is a leaf, an object's lock is taken after it
//! was released.

pub mod ids;
mod line;
mod memory;
pub mod mqueue;
pub mod msg;
pub mod sem;
pub mod shm;

pub use memory::buffer;
