//! Moving data between files inside the kernel: sendfile, splice, tee, copy_file_range.
//!
//! Data goes through a kernel buffer of one piece at a time. What comes from a pipe is lent, and taken out only when it was
//! written, so that nothing is lost when the other side stops, and nobody else gets it meanwhile.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as raw;
use linux_raw_sys::net::MSG_DONTWAIT;

use super::inode_flags::InodeFlags;
use super::open_file::{Kind, OpenFile, READ_EVENTS, WRITE_EVENTS, settled};
use super::pipe::{self, Cut, Pipe};
use super::writing::{Sigpipe, Writing};
use super::{Events, TryError};
use crate::errno::{Errno, Result};
use crate::exec::{budget, interruptible};
use crate::mm::IoBuf;
use crate::net::transfer;
use crate::process::Thread;
use crate::signal::fatal_pending;
use crate::syscalls::{SysError, SysResult};

/// The largest piece.
const PIECE: usize = 64 * 1024;

fn buffer(len: usize) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// What is moved where. A position of None is the file's own.
pub struct Ends<'a> {
    pub input: &'a Arc<OpenFile>,
    pub in_pos: Option<u64>,
    pub output: &'a Arc<OpenFile>,
    pub out_pos: Option<u64>,
    pub nonblock: bool,
}

impl Ends<'_> {
    /// Some files can be read and written by programs, but not moved from or to inside the kernel.
    fn check(&self) -> Result<()> {
        let from = !self.input.is_dir() && self.input.ops().is_none_or(|ops| ops.splices_from());
        let to = self.output.ops().is_none_or(|ops| ops.splices_to());
        let appends = self.output.flags() & raw::O_APPEND != 0 && self.output.ops().is_none();
        if from && to && !appends { Ok(()) } else { Err(Errno::EINVAL) }
    }

    async fn read_input(&mut self, t: &Thread, piece: &mut [u8]) -> SysResult<usize> {
        let mut buf = IoBuf::kernel_mut(piece);
        if self.nonblock
            && let Ok(socket) = crate::net::socket::of_file(self.input)
        {
            return Ok(transfer::receive(t, self.input, socket, &mut buf, MSG_DONTWAIT).await?.len);
        }
        match &mut self.in_pos {
            Some(pos) => {
                let n = self.input.read_at(t, &mut buf, *pos).await?;
                *pos += n as u64;
                Ok(n)
            }
            None => self.input.read(t, &mut buf).await,
        }
    }

    async fn write_output(&mut self, t: &Thread, piece: &[u8]) -> SysResult<usize> {
        let mut buf = IoBuf::kernel(piece);
        match &mut self.out_pos {
            Some(pos) => {
                let n = self.output.write_at(t, &mut buf, *pos).await?;
                *pos += n as u64;
                Ok(n)
            }
            None => self.output.write(t, &mut buf).await,
        }
    }

    /// Moves the input, if it has a position, back by what could not be written.
    async fn unread(&mut self, count: usize) {
        match &mut self.in_pos {
            Some(pos) => *pos -= count as u64,
            None if !self.input.seekable() => {}
            None => {
                let mut pos = self.input.pos().lock().await;
                *pos = pos.saturating_sub(count as u64);
            }
        }
    }

    /// From a file with a position to anything.
    async fn copy(&mut self, t: &Thread, count: u64) -> SysResult<usize> {
        let mut piece = buffer(count.min(PIECE as u64) as usize)?;
        let mut done = 0;
        while (done as u64) < count {
            let want = (count - done as u64).min(PIECE as u64) as usize;
            let n = match self.read_input(t, piece.get_mut(..want).unwrap_or(&mut [])).await {
                Ok(0) => break,
                Ok(n) => n,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            };
            let written = match self.write_output(t, piece.get(..n).unwrap_or(&[])).await {
                Ok(written) => written,
                Err(error) => {
                    self.unread(n).await;
                    if done > 0 {
                        break;
                    }
                    return Err(error);
                }
            };
            done += written;
            if written < n {
                self.unread(n - written).await;
                break;
            }
            // Who is killed waits for no more than this.
            if fatal_pending(t.task()) {
                break;
            }
            budget().await;
        }
        Ok(done)
    }
}

/// sendfile(2): answers the count and the input position after it.
pub async fn sendfile(
    t: &Thread,
    output: &Arc<OpenFile>,
    input: &Arc<OpenFile>,
    pos: Option<u64>,
    count: u64,
) -> SysResult<(usize, u64)> {
    input.check_readable()?;
    output.check_writable()?;
    if pos.is_some() && !input.seekable() {
        return Err(Errno::ESPIPE.into());
    }
    let mut ends = Ends { input, in_pos: pos, output, out_pos: None, nonblock: false };
    if !input.seekable() {
        return Err(Errno::EINVAL.into());
    }
    ends.check()?;
    let n = ends.copy(t, count.min(crate::mm::MAX_RW_COUNT as u64)).await?;
    Ok((n, ends.in_pos.unwrap_or(0)))
}

/// copy_file_range(2).
pub async fn copy_file_range(t: &Thread, ends: &mut Ends<'_>, len: u64) -> SysResult<usize> {
    match (ends.input.kind(), ends.output.kind()) {
        (Kind::Regular(_), Kind::Regular(_)) => {}
        (Kind::Directory, _) | (_, Kind::Directory) => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    ends.input.check_readable()?;
    ends.output.check_writable()?;
    if ends.output.flags() & raw::O_APPEND != 0 {
        return Err(Errno::EBADF.into());
    }
    if !Arc::ptr_eq(&ends.input.inode().fs(), &ends.output.inode().fs()) {
        return Err(Errno::EXDEV.into());
    }
    if ends.output.inode().obeyed_flags().contains(InodeFlags::IMMUTABLE) {
        return Err(Errno::EPERM.into());
    }
    let from = ends.in_pos.unwrap_or(ends.input.position());
    let to = ends.out_pos.unwrap_or(ends.output.position());
    if from.checked_add(len).is_none() || to.checked_add(len).is_none() {
        return Err(Errno::EOVERFLOW.into());
    }
    let room = (i64::MAX as u64).checked_sub(to).filter(|room| *room > 0).ok_or(Errno::EFBIG)?;
    ends.input.refresh().await?;
    let len = len.min(ends.input.inode().size().saturating_sub(from)).min(room);
    let same = Arc::ptr_eq(ends.input.inode(), ends.output.inode());
    if same && from < to + len && to < from + len {
        return Err(Errno::EINVAL.into());
    }
    ends.copy(t, len.min(crate::mm::MAX_RW_COUNT as u64)).await
}

/// Waits, unless `nonblock`, until an attempt on the pipe settles.
async fn settle<T>(
    t: &Thread,
    pipe: &Pipe,
    events: Events,
    nonblock: bool,
    mut attempt: impl FnMut() -> Result<T, TryError>,
) -> SysResult<T> {
    let result = if nonblock {
        attempt()
    } else {
        interruptible(t, pipe.wait_queue().wait_for_mask(events.bits(), || settled(attempt()))).await?
    };
    result.map_err(settled_error)
}

/// splice(2).
pub async fn splice(t: &Thread, ends: &mut Ends<'_>, len: u64) -> SysResult<usize> {
    ends.input.check_readable()?;
    ends.output.check_writable()?;
    let (in_pipe, out_pipe) = (pipe::of_file(ends.input).cloned(), pipe::of_file(ends.output).cloned());
    if in_pipe.is_some() && ends.in_pos.is_some() || out_pipe.is_some() && ends.out_pos.is_some() {
        return Err(Errno::ESPIPE.into());
    }
    ends.check()?;
    let no_position = |file: &OpenFile, pos: Option<u64>| pos.is_some() && !file.seekable();
    if no_position(ends.input, ends.in_pos) || no_position(ends.output, ends.out_pos) || ends.input.is_dir() {
        return Err(Errno::EINVAL.into());
    }
    let max = len.min(PIECE as u64) as usize;
    match (in_pipe, out_pipe) {
        (Some(from), Some(to)) if Arc::ptr_eq(&from, &to) => Err(Errno::EINVAL.into()),
        (Some(from), Some(to)) => {
            let nonblock = (ends.nonblock || ends.input.is_nonblock(), ends.nonblock || ends.output.is_nonblock());
            pipe_to_pipe(t, &from, &to, max, nonblock, false).await
        }
        (Some(from), None) => {
            let nonblock = ends.nonblock || ends.input.is_nonblock();
            let Some(loan) = settle(t, &from, READ_EVENTS, nonblock, || from.lend(max)).await? else { return Ok(0) };
            let n = ends.write_output(t, loan.bytes()).await?;
            loan.settle(n);
            Ok(n)
        }
        (None, Some(to)) => {
            let nonblock = ends.nonblock || ends.output.is_nonblock();
            let claim = with_sigpipe(t, settle(t, &to, WRITE_EVENTS, nonblock, || to.claim(max)).await)?;
            let mut piece = buffer(claim.room())?;
            let n = ends.read_input(t, &mut piece).await?;
            // There is room for it.
            let result = claim.write(piece.get(..n).unwrap_or(&[]));
            ends.unread(n - result.as_ref().map_or(0, |written| *written)).await;
            with_sigpipe(t, result.map_err(settled_error))
        }
        (None, None) => Err(Errno::EINVAL.into()),
    }
}

/// Who writes to a pipe that nobody reads gets a signal.
fn with_sigpipe<T>(t: &Thread, result: SysResult<T>) -> SysResult<T> {
    if matches!(result, Err(SysError::Errno(Errno::EPIPE))) {
        super::raise(t, raw::SIGPIPE);
    }
    result
}

fn settled_error(error: TryError) -> SysError {
    match error {
        TryError::Failed(errno) => errno.into(),
        _ => Errno::EAGAIN.into(),
    }
}

/// Moves, or if `stays` copies. Neither pipe's bytes are held while the other is waited for.
async fn pipe_to_pipe(
    t: &Thread,
    from: &Pipe,
    to: &Pipe,
    max: usize,
    (nonblock_in, nonblock_out): (bool, bool),
    stays: bool,
) -> SysResult<usize> {
    loop {
        // Something to be moved, before anything else: at the end of the input nobody waits for room.
        if settle(t, from, READ_EVENTS, nonblock_in, || from.at_end()).await? {
            return Ok(0);
        }
        let (attempt, first) = if stays { copy_now(from, to, max) } else { move_now(from, to, max) };
        match (attempt, first) {
            (Err(TryError::WouldBlock), Some(_)) if nonblock_out => return Err(Errno::EAGAIN.into()),
            (Err(TryError::WouldBlock), Some(first)) => {
                let place = || to.has_place(first).then_some(()).ok_or(TryError::WouldBlock);
                settle(t, to, WRITE_EVENTS, false, place).await?;
            }
            // Others were faster.
            (Err(TryError::WouldBlock), None) => {}
            (attempt, _) => return with_sigpipe(t, attempt.map_err(settled_error)),
        }
        budget().await;
    }
}

/// An attempt of `pipe_to_pipe`, and what there was to move first.
type Attempt = (Result<usize, TryError>, Option<Cut>);

fn move_now(from: &Pipe, to: &Pipe, max: usize) -> Attempt {
    let loan = match from.lend(max) {
        Ok(Some(loan)) => loan,
        Ok(None) => return (Ok(0), None),
        Err(error) => return (Err(error), None),
    };
    let first = loan.cuts().first().copied();
    let attempt = to.put(loan.bytes(), loan.cuts());
    loan.settle(*attempt.as_ref().unwrap_or(&0));
    (attempt, first)
}

fn copy_now(from: &Pipe, to: &Pipe, max: usize) -> Attempt {
    match from.peek(max) {
        Ok((bytes, _)) if bytes.is_empty() => (Ok(0), None),
        Ok((bytes, cuts)) => (to.put(&bytes, &cuts), cuts.first().copied()),
        Err(error) => (Err(error), None),
    }
}

/// vmsplice(2), by copying: what there is room for, or what is there, once there is any.
pub async fn vmsplice(t: &Thread, file: &OpenFile, buf: &mut IoBuf<'_>, nonblock: bool) -> SysResult<usize> {
    let pipe = pipe::of_file(file).ok_or(Errno::EBADF)?;
    let write = file.writable();
    let events = if write { WRITE_EVENTS } else { READ_EVENTS };
    let mut moving = Writing::new(false, Sigpipe::Always);
    loop {
        let mut attempt = || if write { pipe.try_write(buf, None) } else { pipe.try_take(buf) };
        let result = if nonblock || file.is_nonblock() {
            Ok(attempt())
        } else {
            let wait = pipe.wait_queue().wait_for_mask(events.bits(), || settled(attempt()));
            interruptible(t, wait).await.map_err(SysError::from)
        };
        if let Some(answer) = moving.after(t, buf, result).await {
            return answer;
        }
    }
}

/// tee(2).
pub async fn tee(
    t: &Thread,
    input: &Arc<OpenFile>,
    output: &Arc<OpenFile>,
    len: u64,
    nonblock: bool,
) -> SysResult<usize> {
    input.check_readable()?;
    output.check_writable()?;
    let (Some(from), Some(to)) = (pipe::of_file(input), pipe::of_file(output)) else {
        return Err(Errno::EINVAL.into());
    };
    if Arc::ptr_eq(from, to) {
        return Err(Errno::EINVAL.into());
    }
    let max = len.min(PIECE as u64) as usize;
    let nonblock = (nonblock || input.is_nonblock(), nonblock || output.is_nonblock());
    pipe_to_pipe(t, from, to, max, nonblock, true).await
}
