//! Open ends of pipes: how they come to be, and what they answer as files.

use alloc::sync::Arc;
use core::any::Any;

use linux_raw_sys::general as raw;

use super::{FIONREAD, Odd, Pipe};
use crate::errno::{Errno, Result};
use crate::exec::{WaitQueue, interruptible};
use crate::fs::anon::{self, Label};
use crate::fs::file::{Events, FileOps, TryError};
use crate::fs::op::Op;
use crate::fs::open_file::{Kind, OpenFile};
use crate::fs::sigio;
use crate::fs::state::Hold;
use crate::mm::{IoBuf, UserPtr};
use crate::process::{Caps, Thread};
use crate::syscalls::SysResult;

/// One open end; FIFOs opened for reading and writing are both.
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    read: bool,
    write: bool,
    /// Writers that had been seen when this reader came: without a new one there is no hang-up to report.
    writers_before: u64,
}

impl PipeEnd {
    pub(super) fn new(pipe: Arc<Pipe>, read: bool, write: bool) -> Arc<PipeEnd> {
        PipeEnd::open(pipe, read, write).0
    }

    /// A new end. If nobody has the other side open: how many partners there ever were, one more of which must come.
    /// That is told in the same step in which the other side learns of this one: it may be gone at once.
    pub(super) fn open(pipe: Arc<Pipe>, read: bool, write: bool) -> (Arc<PipeEnd>, Option<u64>) {
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
