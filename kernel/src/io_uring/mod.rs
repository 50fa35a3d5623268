//! io_uring(7): rings in shared memory through which programs ask for system calls and learn of their ends.
//!
//! There are no worker threads: an entry is the future of the system call that it stands for.
//!
//! ```text
//!  program        ring (shared pages)          kernel
//!    fills ─────▶ entries ──── io_uring_enter ────▶ submit: done at once ──────────────┐
//!                                                     │ else                           │
//!                                                  Request, polled once ── Ready ──────┤
//!                                                     │ Pending: its waker             │
//!                                                     ▼                                ▼
//!    takes ◀───── completions ◀──────────────── polled by who waits in          Ring::complete
//!                                               io_uring_enter, or by the driver
//! ```
//!
//! * [`abi`]: structures and flags. [`ring`]: [`Ring`] and its completions. [`mod@file`]: the descriptor.
//! * [`submit`]: taking entries; [`request`]: those that wait, who polls them, and how they end; [`ops`]: what they do.
//! * [`mod@enter`], [`mod@register`]: the system calls of these names. [`tasks`]: what threads have to do with rings.
//!
//! A request holds the address space, descriptors, directory and credentials that its thread had, and acts for the thread
//! (`Thread::acting`). It ends before the thread does, and when the ring is closed: its last descriptor and mapping are gone.
//!
//! Locks: `Ring::submission` sleeps, and is held while requests are polled for the first time. All others are spinlocks, and
//! most of them leaves:
//!
//! ```text
//!  Requests::all ──▶ Requests::ready, held           room for a request that comes
//!                └─▶ Request::file, timer, events …  what entries under way are asked when one is looked for
//!  Requests::held ──▶ Requests::ready                a request that is cancelled need not be held back
//!  Registered::eventfd ──▶ Ring::completions         have any come?
//! ```
//!
//! Files are dropped without any of them: the last reference closes the file, which may do anything.

mod abi;
mod enter;
mod file;
mod ops;
mod register;
mod request;
mod ring;
mod submit;
mod tasks;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

use linux_raw_sys::general as raw;

pub use abi::Params;
pub use enter::{enter, enter_now};
pub use tasks::{TaskRings, leave};

use self::abi::Setup;
use self::file::RingFile;
use self::ring::Ring;
use crate::errno::{Errno, Result};
use crate::fs::OpenFile;
use crate::process::Thread;
use crate::syscalls::SysResult;

/// io_uring_setup(2): answers the descriptor, and in `params` what the ring is like.
pub fn setup(t: &Thread, entries: u32, params: &mut Params) -> Result<i32> {
    if params.resv != [0; 3] {
        return Err(Errno::EINVAL);
    }
    let setup = Setup::from_bits(params.flags).ok_or(Errno::EINVAL)?;
    params.sq_entries = entries;
    let deferred = setup.contains(Setup::DEFER_TASKRUN);
    // Nobody polls the entries of a ring without being asked to: IORING_SETUP_SQPOLL is not there.
    if setup.intersects(Setup::SQPOLL | Setup::SQ_AFF)
        || setup.contains(Setup::TASKRUN_FLAG) && !setup.intersects(Setup::COOP_TASKRUN | Setup::DEFER_TASKRUN)
        || deferred && !setup.contains(Setup::SINGLE_ISSUER)
    {
        return Err(Errno::EINVAL);
    }
    if setup.contains(Setup::ATTACH_WQ) {
        // There are no workers to be shared, but the descriptor must be right.
        let other = t.files().get(params.wq_fd as i32).map_err(|_| Errno::ENXIO)?;
        ops::ring_of(&other).ok_or(Errno::EINVAL)?;
    }
    let ring = Ring::new(t, params, setup)?;
    tasks::note_setup(t.task());
    let file = OpenFile::new_anon("[io_uring]", Arc::new(RingFile { ring: ring.clone() }), raw::O_RDWR);
    t.files().install(file, true)
}

/// Does the file stand for a ring?
pub fn is_ring(file: &OpenFile) -> bool {
    ops::ring_of(file).is_some()
}

/// What the first `most` requests of a ring do, and how many there are in all; None if the file is no ring.
pub fn requests_of(file: &OpenFile, most: usize) -> Option<(Vec<Doing>, usize)> {
    let ring = ops::ring_of(file)?;
    let mut requests = Vec::with_capacity(most);
    let mut at = 0;
    while requests.len() < most
        && let Some(request) = ring.find_from(&mut at, |_| true)
    {
        let name = ops::Op::name(request.opcode.load(Relaxed));
        requests.push((name, request.file.lock().clone()));
        at += 1;
    }
    Some((requests, ring.request_count()))
}

/// The name of an operation, and its file.
pub type Doing = (&'static str, Option<Arc<OpenFile>>);

/// io_uring_register(2).
pub async fn register(t: &Thread, fd: i32, opcode: u32, arg: u64, count: u32) -> SysResult<i32> {
    if !register::is_known(opcode) {
        return Err(Errno::EINVAL.into());
    }
    let file = t.files().get_io(fd)?;
    let ring = ops::ring_of(&file).ok_or(Errno::EOPNOTSUPP)?;
    register::register(ring, t, opcode, arg, count).await
}
