//! Taking entries from the ring of submissions (io_uring_enter(2)): links, draining, and what becomes of an entry.
//!
//! An entry that can be answered at once is: nothing is allocated for it ([`super::ops::at_once`]). Others become a
//! [`Request`], polled once before the next entry is looked at, so that what need not wait completes in order. Linked entries
//! are one request, which runs one after another.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use smallvec::SmallVec;
use zerocopy::IntoBytes;

use super::abi::{Flags, Outcome, SQE_SIZE, Setup, Sqe, at};
use super::ops;
use super::request::Request;
use super::ring::{Ring, Tell};
use super::tasks;
use crate::errno::{Errno, Result};
use crate::exec;
use crate::mm::IoVecs;
use crate::process::{Credentials, Thread};
use crate::time::UserTimespec;

/// The submission side of a ring.
#[derive(Default)]
pub struct Submission {
    /// What the kernel has come to; programs cannot be trusted with theirs.
    head: u32,
    /// The next chain drains: an entry in the middle of the last one wanted it.
    drain_next: bool,
    /// IOSQE_CQE_SKIP_SUCCESS was used, after which nothing can be drained.
    no_draining: bool,
}

/// An entry that was looked at, and what it has to know when it is begun, which may be later.
pub struct Entry {
    pub sqe: Sqe,
    /// Why it cannot be begun.
    pub error: Option<Errno>,
    pub creds: Arc<Credentials>,
    pub fetched: Fetched,
}

/// What an entry points to, read while the program is in io_uring_enter(2) (IORING_FEAT_SUBMIT_STABLE).
#[derive(Default)]
pub struct Fetched {
    pub time: Option<UserTimespec>,
    pub vector: Option<Box<IoVecs>>,
}

/// Entries that are begun one after another.
#[derive(Default)]
struct Chain {
    entries: SmallVec<[Entry; 1]>,
    drain: bool,
}

impl Ring {
    /// Submits up to `wanted` entries; answers how many were consumed.
    pub async fn submit(self: &Arc<Self>, t: &Thread, wanted: u32) -> Result<u32> {
        let mut submission = match self.submission.try_lock() {
            Some(submission) => submission,
            None => self.submission.lock().await,
        };
        let available = self.rings.load(at::SQ_TAIL, Acquire).wrapping_sub(submission.head);
        let wanted = wanted.min(available).min(self.sq_entries);
        let mut taken = 0;
        let mut no_memory = false;
        let mut chain = Chain::default();
        while taken < wanted {
            let Some(sqe) = self.next_entry(&mut submission) else { break };
            let begins_later = !chain.entries.is_empty() || sqe.waits_to_begin() || self.is_draining();
            let fetched = match ops::points_to(&sqe, begins_later) {
                Some(what) => ops::fetch(t, &sqe, what).await,
                None => Ok(Fetched::default()),
            };
            let result = self.submit_one(t, &mut submission, &mut chain, sqe, fetched);
            if result == Err(Errno::EAGAIN) {
                // It stays.
                submission.head = submission.head.wrapping_sub(1);
                no_memory = true;
                break;
            }
            taken += 1;
            if result.is_err() && !self.setup.contains(Setup::SUBMIT_ALL) {
                break;
            }
            if taken < wanted {
                exec::budget().await;
            }
        }
        if !chain.entries.is_empty() {
            // The last link is missing.
            let _ = self.begin(t, core::mem::take(&mut chain));
        }
        self.rings.store(at::SQ_HEAD, submission.head, Release);
        drop(submission);
        // One word for all that completed at once.
        self.tell_eventfd(false);
        self.wake_waiters();
        if taken == 0 && no_memory { Err(Errno::EAGAIN) } else { Ok(taken) }
    }

    /// Submits one entry of the simplest kind, if that is what comes next and it need not wait; else does nothing.
    pub fn submit_now(self: &Arc<Self>, t: &Thread) -> Option<()> {
        let unusual = Setup::IOPOLL.union(Setup::SQE128);
        let mut submission = self.submission.try_lock()?;
        let available = self.rings.load(at::SQ_TAIL, Acquire) != submission.head;
        if !available
            || submission.drain_next
            || self.setup.intersects(unusual)
            || self.registered.is_restricted()
            || self.is_draining()
        {
            return None;
        }
        let slot = submission.head & (self.sq_entries - 1);
        let index = self.rings.load(self.array_at + 4 * slot as usize, Relaxed);
        if index >= self.sq_entries {
            return None;
        }
        let mut sqe = Sqe::default();
        self.sqes.copy_out(index as usize * SQE_SIZE, sqe.as_mut_bytes());
        if sqe.flags & !Flags::FIXED_FILE.bits() != 0 || sqe.ioprio != 0 || sqe.personality != 0 {
            return None;
        }
        let outcome = ops::at_once(self, t, &sqe)?;
        submission.head = submission.head.wrapping_add(1);
        self.rings.store(at::SQ_HEAD, submission.head, Release);
        drop(submission);
        self.complete(sqe.user_data, outcome, Tell::Later);
        self.tell_eventfd(false);
        self.wake_waiters();
        Some(())
    }

    /// Takes the next entry; None if the program's index leads nowhere, which is counted.
    fn next_entry(&self, submission: &mut Submission) -> Option<Sqe> {
        let slot = submission.head & (self.sq_entries - 1);
        submission.head = submission.head.wrapping_add(1);
        let index = self.rings.load(self.array_at + 4 * slot as usize, Relaxed);
        if index >= self.sq_entries {
            self.rings.add(at::SQ_DROPPED, 1);
            return None;
        }
        let size = if self.setup.contains(Setup::SQE128) { 2 * SQE_SIZE } else { SQE_SIZE };
        let mut sqe = Sqe::default();
        self.sqes.copy_out(index as usize * size, sqe.as_mut_bytes());
        Some(sqe)
    }

    /// Begins an entry, or adds it to the chain that is being put together. An error: it cannot be begun, which its completion
    /// says, too.
    fn submit_one(
        self: &Arc<Self>,
        t: &Thread,
        submission: &mut Submission,
        chain: &mut Chain,
        sqe: Sqe,
        fetched: Result<Fetched>,
    ) -> Result<()> {
        let single = chain.entries.is_empty() && !sqe.is_linked();
        let (fetched, found) = match fetched {
            Ok(fetched) => (fetched, Ok(())),
            Err(errno) => (Fetched::default(), Err(errno)),
        };
        let mut checked = self.check(t, submission, chain, &sqe).and(found);
        if single
            && checked.is_ok()
            && !chain.drain
            && !sqe.has(Flags::ASYNC)
            && !self.is_draining()
            && let Some(outcome) = ops::at_once(self, t, &sqe)
        {
            if outcome.failed || !sqe.has(Flags::CQE_SKIP) {
                self.complete(sqe.user_data, outcome, Tell::Later);
            }
            return Ok(());
        }
        let creds = match self.creds_of(t, &sqe) {
            Ok(creds) => creds,
            Err(errno) => {
                checked = checked.and(Err(errno));
                t.creds().clone()
            }
        };
        chain.entries.push(Entry { sqe, error: checked.err(), creds, fetched });
        if sqe.is_linked() {
            return Ok(());
        }
        let begun = self.begin(t, core::mem::take(chain));
        // A single entry that is wrong ends the submission, as does the last of a chain.
        checked.and(begun)
    }

    /// Everything that can be said against an entry before it is begun.
    fn check(&self, t: &Thread, submission: &mut Submission, chain: &mut Chain, sqe: &Sqe) -> Result<()> {
        ops::known(sqe.opcode)?;
        let flags = Flags::from_bits(sqe.flags).ok_or(Errno::EINVAL)?;
        if flags.contains(Flags::BUFFER_SELECT) && !ops::selects_buffers(sqe.opcode) {
            return Err(Errno::EOPNOTSUPP);
        }
        submission.no_draining |= flags.contains(Flags::CQE_SKIP);
        if flags.contains(Flags::IO_DRAIN) {
            if submission.no_draining {
                return Err(Errno::EOPNOTSUPP);
            }
            // In the middle of a chain: the whole of it waits, and so does what comes after it.
            submission.drain_next |= !chain.entries.is_empty();
            chain.drain = true;
        } else if chain.entries.is_empty() && core::mem::take(&mut submission.drain_next) {
            chain.drain = true;
        }
        self.registered.allows(sqe)?;
        if sqe.ioprio != 0 && !ops::uses_priority(sqe.opcode) {
            return Err(Errno::EINVAL);
        }
        if self.setup.contains(Setup::IOPOLL) && !ops::can_be_polled(sqe.opcode) {
            return Err(Errno::EINVAL);
        }
        self.creds_of(t, sqe)?;
        let before = chain.entries.last().map(|entry| entry.sqe.opcode);
        ops::check(self, t, sqe, before)
    }

    /// The credentials of an entry.
    fn creds_of(&self, t: &Thread, sqe: &Sqe) -> Result<Arc<Credentials>> {
        match sqe.personality {
            0 => Ok(t.creds().clone()),
            id => self.registered.personality(id),
        }
    }

    fn begin(self: &Arc<Self>, t: &Thread, chain: Chain) -> Result<()> {
        if chain.entries.iter().any(|entry| entry.error.is_some()) {
            self.refuse(&chain.entries);
            return Ok(());
        }
        let Some(first) = chain.entries.first() else { return Ok(()) };
        let (at_once, creds) = (!first.sqe.has(Flags::ASYNC), first.creds.clone());
        let made = Request::new(self, t).and_then(|request| self.insert(&request).map(|()| request));
        let request = match made {
            Ok(request) => request,
            Err(errno) if chain.entries.len() == 1 => return Err(errno),
            Err(_) => {
                self.refuse(&chain.entries);
                return Ok(());
            }
        };
        let thread = t.acting(creds, request.clone());
        tasks::note_use(self, t.task());
        request.set_body(ops::run(request.clone(), thread, chain.entries));
        self.start(&request, chain.drain, at_once);
        t.mm().activate();
        Ok(())
    }

    /// A chain with an entry that is wrong: nothing of it is begun.
    fn refuse(&self, entries: &[Entry]) {
        let mut silent = false;
        for (index, entry) in entries.iter().enumerate() {
            let errno = entry.error.unwrap_or(Errno::ECANCELED);
            if index == 0 || !silent {
                self.complete(entry.sqe.user_data, Outcome::of(-errno.get()), Tell::Later);
            }
            // What follows one that is silent about its success is silent, too, when it fails (io_uring_enter(2)).
            silent = silent || index == 0 && entry.sqe.has(Flags::CQE_SKIP);
        }
    }
}
