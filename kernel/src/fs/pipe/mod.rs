//! Pipes and FIFOs: pipe(7), fifo(7).
//!
//! A [`Pipe`] is a byte [`ring`] behind one spinlock and one wait queue. Readers wait for [`Events::IN`], writers for
//! [`Events::OUT`]; a side is woken only when the other could have made it wait. An open end is a [`PipeEnd`], which
//! counts itself in and out.
//!
//! Most pipes are plain, and their reads and writes look at one field of the state to know it. What is rare goes another
//! way: [`packets`], what is held for a splice ([`hold`]), and writers that want signals ([`sigio`]).
//!
//! [`end`]: opening, and what an open end answers as a file.

mod end;
mod hold;
mod packets;
pub mod ring;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as raw;

pub use self::end::{PipeEnd, of_file, open_fifo, open_pair, reopen, set_size};
pub use self::hold::{Claim, Loan};
pub use self::packets::Cut;
use self::packets::{Cuts, Packets};
pub use self::ring::Ring;
use super::file::{Events, TryError};
use super::open_file::OpenFile;
use super::sigio;
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::mm::{IoBuf, PAGE_SIZE};
use crate::sync::{SpinGuard, SpinLock};

/// Writes of up to this many bytes are atomic (POSIX).
pub const PIPE_BUF: usize = 4096;
/// Default capacity, bytes.
const CAPACITY: usize = 64 * 1024;
/// /proc/sys/fs/pipe-max-size: what F_SETPIPE_SZ allows everybody.
pub const MAX_CAPACITY: usize = 1024 * 1024;
/// What nobody gets: for more, Linux finds no memory that it could keep the pages' places in.
const MOST_CAPACITY: usize = 256 << 20;
const FIONREAD: u32 = 0x541b;

bitflags::bitflags! {
    /// Why a read is not that of a plain pipe.
    #[derive(Clone, Copy, PartialEq, Eq)]
    struct Odd: u8 {
        /// The first bytes are being moved elsewhere ([`Loan`]): nobody else may take them.
        const LENT = 1;
        const PACKETS = 2;
        /// A writer may want signals.
        const TOLD = 4;
    }
}

struct State {
    ring: Ring,
    odd: Odd,
    /// Made for the first writer with O_DIRECT.
    packets: Option<Box<Packets>>,
    readers: u32,
    /// The same, but 0 while there are packets or a [`Claim`]: writes to a plain pipe that somebody reads look no further.
    plain_readers: u32,
    /// Bytes of room that a [`Claim`] holds; nobody else may write meanwhile.
    claimed: usize,
    writers: u32,
    /// Ends that were ever opened, so that a FIFO's opener sees a partner that came and went.
    readers_seen: u64,
    writers_seen: u64,
}

pub struct Pipe {
    state: SpinLock<State>,
    queue: WaitQueue,
}

const READABLE: u32 = Events::IN.union(Events::RDNORM).bits();
const WRITABLE: u32 = Events::OUT.union(Events::WRNORM).bits();

impl State {
    fn count_readers(&mut self) {
        self.plain_readers = if self.packets.is_some() || self.claimed > 0 { 0 } else { self.readers };
    }

    fn writable(&self) -> bool {
        match &self.packets {
            _ if self.claimed > 0 => false,
            Some(packets) => packets.writable(&self.ring),
            None => self.ring.room() >= PIPE_BUF,
        }
    }

    fn room(&self) -> usize {
        self.packets.as_ref().map_or(self.ring.room(), |packets| packets.room(&self.ring))
    }

    /// A copy of the first bytes, and where they are cut.
    fn copy(&self, max: usize) -> Result<(Vec<u8>, Cuts)> {
        let bytes = self.ring.peek(max)?;
        let plain = || Cuts::from_slice(&[Cut { len: bytes.len(), packet: false }]);
        let cuts = self.packets.as_ref().map_or_else(plain, |packets| packets.cuts(bytes.len()));
        Ok((bytes, cuts))
    }

    fn make_packets(&mut self) {
        if self.packets.is_none() {
            self.packets = Some(Box::new(Packets::new(self.ring.len())));
            self.odd |= Odd::PACKETS;
            self.count_readers();
        }
    }

    fn read(&mut self, buf: &mut IoBuf<'_>) -> Result<usize, TryError> {
        match &mut self.packets {
            Some(packets) => packets.read(&mut self.ring, buf),
            None => self.ring.read(buf),
        }
    }
}

impl Pipe {
    pub fn new() -> Arc<Pipe> {
        let ring = Ring::new(CAPACITY);
        let state = State {
            ring,
            odd: Odd::empty(),
            packets: None,
            readers: 0,
            plain_readers: 0,
            claimed: 0,
            writers: 0,
            readers_seen: 0,
            writers_seen: 0,
        };
        Arc::new(Pipe { state: SpinLock::new(state), queue: WaitQueue::new() })
    }

    /// Both ends.
    pub fn pair() -> (Arc<PipeEnd>, Arc<PipeEnd>) {
        let pipe = Pipe::new();
        (PipeEnd::new(pipe.clone(), true, false), PipeEnd::new(pipe, false, true))
    }

    pub fn len(&self) -> usize {
        self.state.lock().ring.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub fn try_read(&self, buf: &mut IoBuf<'_>) -> Result<usize, TryError> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut state = self.state.lock();
        if !state.odd.is_empty() {
            return self.read_odd(state, buf);
        }
        if state.ring.is_empty() {
            return if state.writers == 0 { Ok(0) } else { Err(TryError::WouldBlock) };
        }
        let writers_waited = state.ring.room() < PIPE_BUF;
        let n = state.ring.read(buf)?;
        drop(state);
        if writers_waited {
            self.queue.wake(usize::MAX, WRITABLE);
        }
        Ok(n)
    }

    #[cold]
    fn read_odd(&self, mut state: SpinGuard<'_, State>, buf: &mut IoBuf<'_>) -> Result<usize, TryError> {
        if state.odd.contains(Odd::LENT) {
            return Err(TryError::WouldBlock);
        }
        if state.ring.is_empty() {
            return if state.writers == 0 { Ok(0) } else { Err(TryError::WouldBlock) };
        }
        let n = state.read(buf)?;
        drop(state);
        self.queue.wake(usize::MAX, WRITABLE | sigio::OUT);
        Ok(n)
    }

    /// `file` is the one that is written to, if it is one.
    #[inline]
    pub fn try_write(&self, buf: &mut IoBuf<'_>, file: Option<&OpenFile>) -> Result<usize, TryError> {
        let len = buf.remaining();
        if len == 0 {
            return Ok(0);
        }
        let mut state = self.state.lock();
        // What was begun as one atomic write stays one: a long write's rest may be split.
        let atomic = len + buf.done() <= PIPE_BUF;
        if state.plain_readers == 0 {
            return self.write_odd(state, buf, atomic, file);
        }
        let room = state.ring.room();
        if room == 0 || atomic && room < len {
            return Err(TryError::WouldBlock);
        }
        let n = state.ring.write(buf, atomic)?;
        drop(state);
        self.written();
        Ok(n)
    }

    #[inline]
    fn written(&self) {
        if !self.queue.is_empty() {
            self.queue.wake(usize::MAX, READABLE | sigio::IN);
        }
    }

    #[cold]
    fn write_odd(
        &self,
        mut state: SpinGuard<'_, State>,
        buf: &mut IoBuf<'_>,
        atomic: bool,
        file: Option<&OpenFile>,
    ) -> Result<usize, TryError> {
        if state.readers == 0 {
            return Err(TryError::Failed(Errno::EPIPE));
        }
        if state.claimed > 0 {
            return Err(TryError::WouldBlock);
        }
        let State { ring, packets, .. } = &mut *state;
        let Some(packets) = packets else { return Err(TryError::WouldBlock) };
        let n = if file.is_some_and(|file| file.flags() & raw::O_DIRECT != 0) {
            packets.write(ring, buf)?
        } else {
            packets.write_plain(ring, buf, atomic)?
        };
        drop(state);
        self.written();
        Ok(n)
    }

    /// A writer has O_DIRECT: from now on its writes are packets.
    pub fn begin_packets(&self) {
        self.state.lock().make_packets();
    }

    /// Reads bytes, whether packets or not: what a packet has beyond them stays (vmsplice).
    pub fn try_take(&self, buf: &mut IoBuf<'_>) -> Result<usize, TryError> {
        let mut state = self.state.lock();
        if state.packets.is_none() || state.odd.contains(Odd::LENT) || state.ring.is_empty() {
            drop(state);
            return self.try_read(buf);
        }
        let n = state.ring.read(buf)?;
        if let Some(packets) = &mut state.packets {
            packets.consumed(n);
        }
        drop(state);
        self.queue.wake(usize::MAX, WRITABLE | sigio::OUT);
        Ok(n)
    }

    /// A copy of up to `max` bytes that stay in the pipe (tee), and where they are cut. Empty at the end.
    pub fn peek(&self, max: usize) -> Result<(Vec<u8>, Cuts), TryError> {
        let state = self.state.lock();
        if state.odd.contains(Odd::LENT) || state.ring.is_empty() && state.writers > 0 {
            return Err(TryError::WouldBlock);
        }
        Ok(state.copy(max)?)
    }

    /// Takes in what comes from another pipe, cut as it was there: as much of it as there is room for.
    pub fn put(&self, bytes: &[u8], cuts: &[Cut]) -> Result<usize, TryError> {
        let mut state = self.state.lock();
        if state.readers == 0 {
            return Err(Errno::EPIPE.into());
        }
        if state.claimed > 0 {
            return Err(TryError::WouldBlock);
        }
        if cuts.iter().any(|cut| cut.packet) {
            state.make_packets();
        }
        let State { ring, packets, .. } = &mut *state;
        let mut buf = IoBuf::kernel(bytes);
        let mut done = 0;
        for cut in cuts {
            let result = match packets {
                Some(packets) => packets.put(ring, &mut buf, *cut),
                None if ring.room() == 0 => Err(TryError::WouldBlock),
                None => ring.write(&mut buf, false),
            };
            match result {
                Ok(n) => done += n,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
            if result != Ok(cut.len) {
                break;
            }
        }
        drop(state);
        self.written();
        Ok(done)
    }

    /// Could `put` take in something that begins so? An answer that is an error counts, too.
    pub fn has_place(&self, cut: Cut) -> bool {
        let state = self.state.lock();
        let place = match &state.packets {
            Some(packets) if cut.packet => packets.writable(&state.ring),
            None if cut.packet => Packets::new(state.ring.len()).writable(&state.ring),
            _ => state.room() > 0,
        };
        state.readers == 0 || state.claimed == 0 && place
    }

    /// Room for up to `max` bytes that nobody else can take.
    #[inline]
    pub fn claim(&self, max: usize) -> Result<Claim<'_>, TryError> {
        let mut state = self.state.lock();
        if state.readers == 0 {
            return Err(Errno::EPIPE.into());
        }
        let room = state.room().min(max);
        if room == 0 || state.claimed > 0 {
            return Err(TryError::WouldBlock);
        }
        state.claimed = room;
        state.count_readers();
        Ok(Claim { pipe: self, room })
    }

    /// Up to `max` bytes to be moved elsewhere (splice). None at the end.
    #[inline]
    pub fn lend(&self, max: usize) -> Result<Option<Loan<'_>>, TryError> {
        let mut state = self.state.lock();
        if state.odd.contains(Odd::LENT) {
            return Err(TryError::WouldBlock);
        }
        if state.ring.is_empty() {
            return if state.writers == 0 { Ok(None) } else { Err(TryError::WouldBlock) };
        }
        let (bytes, cuts) = state.copy(max)?;
        state.odd |= Odd::LENT;
        Ok(Some(Loan { pipe: self, bytes, cuts, taken: 0 }))
    }

    /// Whether a reader would find the end, once one would find anything.
    pub fn at_end(&self) -> Result<bool, TryError> {
        let state = self.state.lock();
        match state.ring.is_empty() {
            _ if state.odd.contains(Odd::LENT) => Err(TryError::WouldBlock),
            true if state.writers > 0 => Err(TryError::WouldBlock),
            empty => Ok(empty),
        }
    }

    pub fn capacity(&self) -> usize {
        self.state.lock().ring.capacity()
    }

    /// F_SETPIPE_SZ; answers the new capacity.
    pub fn set_capacity(&self, bytes: usize, privileged: bool) -> Result<usize> {
        if bytes > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let capacity = bytes.max(PIPE_BUF).next_power_of_two();
        let mut state = self.state.lock();
        if capacity > MAX_CAPACITY && capacity > state.ring.capacity() && !privileged {
            return Err(Errno::EPERM);
        }
        if capacity > MOST_CAPACITY {
            return Err(Errno::ENOMEM);
        }
        let used = state.packets.as_ref().map_or(state.ring.len(), |packets| packets.pages() * PAGE_SIZE);
        if used + state.claimed > capacity {
            return Err(Errno::EBUSY);
        }
        state.ring.set_capacity(capacity)?;
        drop(state);
        self.queue.wake(usize::MAX, WRITABLE);
        Ok(capacity)
    }

    pub fn wait_queue(&self) -> &WaitQueue {
        &self.queue
    }
}
