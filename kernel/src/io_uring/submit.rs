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
use crate::exec::{self, MutexGuard};
use crate::mm::{IoVecs, frames};
use crate::process::{Credentials, Thread};
use crate::time::UserTimespec;

/// The submission side of a ring.
#[derive(Clone, Copy, Default)]
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

impl Chain {
    /// Room for one more entry; EAGAIN without memory. How many there are is the program's choice.
    fn reserve(&mut self) -> Result<()> {
        if self.entries.len() < self.entries.capacity() {
            return Ok(());
        }
        if !frames::has_spare() || self.entries.try_reserve(1).is_err() {
            return Err(Errno::EAGAIN);
        }
        Ok(())
    }
}

/// Who submits. When it is over, which is also when the thread is killed, what has not been begun is in the ring as before.
struct Turn<'a> {
    ring: &'a Ring,
    submission: MutexGuard<'a, Submission>,
    /// What the submission was before the chain that is being put together.
    kept: Submission,
    chain: Chain,
}

impl<'a> Turn<'a> {
    fn new(ring: &'a Ring, submission: MutexGuard<'a, Submission>) -> Turn<'a> {
        Turn { ring, kept: *submission, submission, chain: Chain::default() }
    }

    /// What was taken up to here is begun, or answered.
    fn settle(&mut self) {
        self.kept = *self.submission;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.submission = self.kept;
        self.ring.rings.store(at::SQ_HEAD, self.kept.head, Release);
        // One word for all that completed at once.
        self.ring.tell_eventfd(false);
        self.ring.wake_waiters();
    }
}

impl Ring {
    /// Submits up to `wanted` entries; answers how many were consumed.
    ///
    /// A chain for which there is no memory stays in the ring, all of it: what is left of a chain must not run by itself.
    pub async fn submit(self: &Arc<Self>, t: &Thread, wanted: u32) -> Result<u32> {
        let submission = match self.submission.try_lock() {
            Some(submission) => submission,
            None => self.submission.lock().await,
        };
        let mut turn = Turn::new(self, submission);
        let available = self.rings.load(at::SQ_TAIL, Acquire).wrapping_sub(turn.submission.head);
        let wanted = wanted.min(available).min(self.sq_entries);
        // Entries that were looked at, and those of them that are begun or answered.
        let (mut seen, mut taken) = (0, 0);
        let mut result = Ok(());
        while seen < wanted {
            let Some(sqe) = self.next_entry(&mut turn.submission) else { break };
            let begins_later = !turn.chain.entries.is_empty() || sqe.waits_to_begin() || self.is_draining();
            let fetched = match ops::points_to(&sqe, begins_later) {
                Some(what) => ops::fetch(t, &sqe, what).await,
                None => Ok(Fetched::default()),
            };
            result = self.submit_one(t, &mut turn, sqe, fetched);
            if result == Err(Errno::EAGAIN) {
                break;
            }
            seen += 1;
            if turn.chain.entries.is_empty() {
                turn.settle();
                taken = seen;
            }
            if result.is_err() && !self.setup.contains(Setup::SUBMIT_ALL) {
                break;
            }
            if seen < wanted {
                exec::budget().await;
            }
        }
        if result != Err(Errno::EAGAIN) {
            // The last link may be missing.
            let chain = core::mem::take(&mut turn.chain);
            result = self.begin(t, chain);
            if result.is_ok() {
                turn.settle();
                taken = seen;
            }
        }
        drop(turn);
        if taken == 0 && result == Err(Errno::EAGAIN) { Err(Errno::EAGAIN) } else { Ok(taken) }
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
        let index = self.index_at(submission.head)?;
        let mut sqe = Sqe::default();
        self.sqes.copy_out(index * SQE_SIZE, sqe.as_mut_bytes());
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
        let index = self.index_at(submission.head);
        submission.head = submission.head.wrapping_add(1);
        let Some(index) = index else {
            self.rings.add(at::SQ_DROPPED, 1);
            return None;
        };
        let size = if self.setup.contains(Setup::SQE128) { 2 * SQE_SIZE } else { SQE_SIZE };
        let mut sqe = Sqe::default();
        self.sqes.copy_out(index * size, sqe.as_mut_bytes());
        Some(sqe)
    }

    /// Where the entry is that the program has put here; None if that leads nowhere.
    #[inline(always)]
    fn index_at(&self, head: u32) -> Option<usize> {
        let slot = head & (self.sq_entries - 1);
        let index = self.rings.load(self.array_at + 4 * slot as usize, Relaxed);
        (index < self.sq_entries).then_some(index as usize)
    }

    /// Begins an entry, or adds it to the chain that is being put together. An error: it cannot be begun, which its completion
    /// says, too; except EAGAIN, without memory.
    fn submit_one(self: &Arc<Self>, t: &Thread, turn: &mut Turn<'_>, sqe: Sqe, fetched: Result<Fetched>) -> Result<()> {
        let Turn { submission, chain, .. } = turn;
        let single = chain.entries.is_empty() && !sqe.is_linked();
        let (fetched, found) = match fetched {
            Ok(fetched) => (fetched, Ok(())),
            Err(Errno::EAGAIN) => return Err(Errno::EAGAIN),
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
        chain.reserve()?;
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

    /// Begins a chain, or completes it if something is wrong with it; EAGAIN without memory for it.
    fn begin(self: &Arc<Self>, t: &Thread, chain: Chain) -> Result<()> {
        if chain.entries.iter().any(|entry| entry.error.is_some()) {
            self.refuse(&chain.entries);
            return Ok(());
        }
        let Some(first) = chain.entries.first() else { return Ok(()) };
        let (at_once, creds) = (!first.sqe.has(Flags::ASYNC), first.creds.clone());
        let request = Request::new(self, t, &first.sqe)?;
        self.insert(&request)?;
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
