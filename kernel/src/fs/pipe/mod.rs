//! Pipes and FIFOs: pipe(7), fifo(7).
//!
//! A [`Pipe`] is a byte [`ring`] behind one spinlock and one wait queue. Readers wait for [`Events::IN`], writers for
//! [`Events::OUT`]; a side is woken only when the other could have made it wait. An open end is a [`PipeEnd`], which
//! counts itself in and out.
//!
//! Most pipes are plain, and their reads and writes look at one field of the state to know it. What is rare goes another
//! way: [`packets`], [`Loan`]s, and writers that want signals ([`sigio`]).

mod packets;
pub mod ring;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use linux_raw_sys::general as raw;

pub use self::packets::Cut;
use self::packets::{Cuts, Packets};
pub use self::ring::Ring;
use super::anon::{self, Label};
use super::file::{Events, FileOps, TryError};
use super::op::Op;
use super::open_file::{Kind, OpenFile};
use super::sigio;
use super::state::Hold;
use crate::errno::{Errno, Result};
use crate::exec::{WaitQueue, interruptible};
use crate::mm::{IoBuf, PAGE_SIZE, UserPtr};
use crate::process::{Caps, Thread};
use crate::sync::{SpinGuard, SpinLock};
use crate::syscalls::SysResult;

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

/// The first bytes of a pipe while they are moved elsewhere. Readers wait for the end of it, which takes what was moved
/// out of the pipe and leaves the rest.
pub struct Loan<'a> {
    pipe: &'a Pipe,
    bytes: Vec<u8>,
    cuts: Cuts,
    taken: usize,
}

impl Loan<'_> {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// So many of them have been moved.
    pub fn settle(mut self, taken: usize) {
        self.taken = taken;
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        let taken = self.taken.min(self.bytes.len());
        state.ring.consume(taken);
        if let Some(packets) = &mut state.packets {
            packets.consumed(taken);
        }
        state.odd -= Odd::LENT;
        drop(state);
        self.pipe.queue.wake(usize::MAX, sigio::QUIET | if taken > 0 { sigio::OUT } else { 0 });
    }
}

/// Room in a pipe for something that is being fetched: so nothing is fetched in vain.
pub struct Claim<'a> {
    pipe: &'a Pipe,
    room: usize,
}

impl Claim<'_> {
    pub fn room(&self) -> usize {
        self.room
    }

    /// Writes it, as bytes.
    pub fn write(self, bytes: &[u8]) -> Result<usize, TryError> {
        let mut state = self.pipe.state.lock();
        if state.readers == 0 {
            return Err(Errno::EPIPE.into());
        }
        let State { ring, packets, .. } = &mut *state;
        let mut buf = IoBuf::kernel(bytes);
        let n = match packets {
            Some(packets) => packets.write_plain(ring, &mut buf, false)?,
            None => ring.write(&mut buf, false)?,
        };
        drop(state);
        self.pipe.written();
        Ok(n)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        state.claimed = 0;
        state.count_readers();
        drop(state);
        self.pipe.queue.wake(usize::MAX, WRITABLE);
    }
}

/// One open end; FIFOs opened for reading and writing are both.
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    read: bool,
    write: bool,
    /// Writers that had been seen when this reader came: without a new one there is no hang-up to report.
    writers_before: u64,
}

impl PipeEnd {
    fn new(pipe: Arc<Pipe>, read: bool, write: bool) -> Arc<PipeEnd> {
        PipeEnd::open(pipe, read, write).0
    }

    /// A new end. If nobody has the other side open: how many partners there ever were, one more of which must come.
    /// That is told in the same step in which the other side learns of this one: it may be gone at once.
    fn open(pipe: Arc<Pipe>, read: bool, write: bool) -> (Arc<PipeEnd>, Option<u64>) {
        let mut state = pipe.state.lock();
        let alone = state.writers == 0;
        let writers_before = if read && alone { state.writers_seen } else { u64::MAX };
        state.readers += u32::from(read);
        state.readers_seen += u64::from(read);
        state.writers += u32::from(write);
        state.writers_seen += u64::from(write);
        state.count_readers();
        let (others, seen) =
            if read { (state.writers, state.writers_seen) } else { (state.readers, state.readers_seen) };
        drop(state);
        // Openers of the other side of a FIFO wait for this.
        pipe.queue.wake(usize::MAX, sigio::QUIET);
        (Arc::new(PipeEnd { pipe, read, write, writers_before }), (others == 0).then_some(seen))
    }

    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        state.readers -= u32::from(self.read);
        state.writers -= u32::from(self.write);
        state.count_readers();
        let hang_up = state.readers == 0 || state.writers == 0;
        drop(state);
        if hang_up {
            self.pipe.queue.wake_all();
        }
    }
}

impl FileOps for PipeEnd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn is_plain(&self) -> bool {
        true
    }

    fn try_read(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        self.pipe.try_read(buf)
    }

    fn try_write(&self, file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        self.pipe.try_write(buf, Some(file))
    }

    fn ready(&self) -> Events {
        let state = self.pipe.state.lock();
        let mut events = Events::empty();
        if self.read {
            if !state.ring.is_empty() && !state.odd.contains(Odd::LENT) {
                events |= Events::IN | Events::RDNORM;
            }
            if state.writers == 0 && state.writers_seen != self.writers_before {
                events |= Events::HUP;
            }
        }
        if self.write {
            if state.writable() {
                events |= Events::OUT | Events::WRNORM;
            }
            if state.readers == 0 {
                events |= Events::ERR;
            }
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.pipe.queue)
    }

    fn news(&self) -> u32 {
        (if self.read { sigio::IN } else { 0 }) | if self.write { sigio::OUT } else { 0 }
    }

    fn told(&self) {
        if self.write {
            self.pipe.state.lock().odd |= Odd::TOLD;
        }
    }

    fn ioctl<'a>(&'a self, _file: &'a OpenFile, thread: &'a Thread, cmd: u32, arg: u64) -> Op<'a, Result<u64>> {
        if cmd != FIONREAD {
            return Op::ready(Err(Errno::ENOTTY));
        }
        Op::boxed(async move {
            let len = self.pipe.len() as i32;
            UserPtr::<i32>::new(arg).write(thread.mm(), len).await?;
            Ok(0)
        })
    }
}

/// pipe2(2): the reading and the writing end. `flags`: O_NONBLOCK, and O_DIRECT, which is the writer's.
pub fn open_pair(flags: u32) -> (Arc<OpenFile>, Arc<OpenFile>) {
    let (reader, writer) = Pipe::pair();
    let place = anon::place(Label::Pipe(reader.pipe()));
    let status = flags & raw::O_NONBLOCK;
    let direct = flags & raw::O_DIRECT;
    if direct != 0 {
        writer.pipe().begin_packets();
    }
    let read_file = OpenFile::new(place.clone(), Kind::Ops(reader), raw::O_RDONLY | status, Hold::None);
    let write_file = OpenFile::new(place, Kind::Ops(writer), raw::O_WRONLY | status | direct, Hold::None);
    (read_file, write_file)
}

/// The pipe behind a file, if it is one.
pub fn of_file(file: &OpenFile) -> Option<&Arc<Pipe>> {
    file.ops_as::<PipeEnd>().map(PipeEnd::pipe)
}

/// F_SETPIPE_SZ.
pub fn set_size(t: &Thread, file: &OpenFile, bytes: u64) -> Result<u64> {
    let pipe = of_file(file).ok_or(Errno::EBADF)?;
    let bytes = u32::try_from(bytes).map_err(|_| Errno::EINVAL)? as usize;
    Ok(pipe.set_capacity(bytes, t.creds().capable(Caps::SYS_RESOURCE))? as u64)
}

/// Opens a pipe without a name again, through /proc/PID/fd: it never waits, unlike a FIFO's open.
pub fn reopen(pipe: Arc<Pipe>, flags: u32) -> Result<Arc<dyn FileOps>> {
    match flags & raw::O_ACCMODE {
        raw::O_RDONLY => Ok(PipeEnd::new(pipe, true, false)),
        raw::O_WRONLY => Ok(PipeEnd::new(pipe, false, true)),
        raw::O_RDWR => Ok(PipeEnd::new(pipe, true, true)),
        _ => Err(Errno::EINVAL),
    }
}

/// Opens a FIFO: a blocking open waits for the other side (fifo(7)).
pub async fn open_fifo(t: &Thread, pipe: Arc<Pipe>, flags: u32) -> SysResult<Arc<dyn FileOps>> {
    let (read, write) = match flags & raw::O_ACCMODE {
        raw::O_RDONLY => (true, false),
        raw::O_WRONLY => (false, true),
        raw::O_RDWR => return Ok(PipeEnd::new(pipe, true, true)),
        _ => return Err(Errno::EINVAL.into()),
    };
    if flags & raw::O_NONBLOCK != 0 {
        if write && pipe.state.lock().readers == 0 {
            return Err(Errno::ENXIO.into());
        }
        return Ok(PipeEnd::new(pipe, read, write));
    }
    let (end, partners) = PipeEnd::open(pipe.clone(), read, write);
    if let Some(seen) = partners {
        let partner = || {
            let state = pipe.state.lock();
            let now = if read { state.writers_seen } else { state.readers_seen };
            (now != seen).then_some(())
        };
        interruptible(t, pipe.queue.wait_for(partner)).await?;
    }
    Ok(end)
}
