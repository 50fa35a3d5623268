//! Moving data between files inside the kernel: sendfile, splice, tee, copy_file_range.
//!
//! Data goes through a kernel buffer of one piece at a time. What comes from a pipe is looked at first and taken out
//! only when it was written, so that nothing is lost when the other side stops.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as raw;

use super::open_file::{Kind, OpenFile, READ_EVENTS, WRITE_EVENTS, settled};
use super::pipe::{self, Pipe};
use super::{Events, TryError};
use crate::errno::{Errno, Result};
use crate::exec::{budget, interruptible};
use crate::mm::IoBuf;
use crate::process::Thread;
use crate::syscalls::SysResult;

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
    async fn read_input(&mut self, t: &Thread, piece: &mut [u8]) -> SysResult<usize> {
        let mut buf = IoBuf::kernel_mut(piece);
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

    /// Moves the input back by what could not be written.
    async fn unread(&mut self, count: usize) {
        match &mut self.in_pos {
            Some(pos) => *pos -= count as u64,
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
    if !input.seekable() || input.is_dir() || output.flags() & raw::O_APPEND != 0 && output.ops().is_none() {
        return Err(Errno::EINVAL.into());
    }
    let mut ends = Ends { input, in_pos: pos, output, out_pos: None, nonblock: false };
    let n = ends.copy(t, count.min(crate::mm::MAX_RW_COUNT as u64)).await?;
    Ok((n, ends.in_pos.unwrap_or(0)))
}

/// copy_file_range(2).
pub async fn copy_file_range(t: &Thread, ends: &mut Ends<'_>, len: u64) -> SysResult<usize> {
    ends.input.check_readable()?;
    ends.output.check_writable()?;
    if ends.output.flags() & raw::O_APPEND != 0 {
        return Err(Errno::EBADF.into());
    }
    match (ends.input.kind(), ends.output.kind()) {
        (Kind::Regular(_), Kind::Regular(_)) => {}
        (Kind::Directory, _) | (_, Kind::Directory) => return Err(Errno::EISDIR.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    let same = Arc::ptr_eq(ends.input.inode(), ends.output.inode());
    if same {
        let from = ends.in_pos.unwrap_or(ends.input.position());
        let to = ends.out_pos.unwrap_or(ends.output.position());
        if from < to.saturating_add(len) && to < from.saturating_add(len) {
            return Err(Errno::EINVAL.into());
        }
    }
    ends.copy(t, len.min(crate::mm::MAX_RW_COUNT as u64)).await
}

/// Up to `max` bytes that are in the pipe; waits for some. Empty at the end.
async fn peek(t: &Thread, pipe: &Pipe, max: usize, nonblock: bool) -> SysResult<Vec<u8>> {
    let attempt = if nonblock {
        pipe.peek(max)
    } else {
        let look = || settled(pipe.peek(max));
        interruptible(t, pipe.wait_queue().wait_for_mask(READ_EVENTS.bits(), look)).await?
    };
    match attempt {
        Ok(bytes) => Ok(bytes),
        Err(TryError::Failed(errno)) => Err(errno.into()),
        Err(_) => Err(Errno::EAGAIN.into()),
    }
}

/// Waits until something can be written to the pipe behind `file`; answers the room.
async fn room(t: &Thread, pipe: &Pipe, file: &OpenFile, nonblock: bool) -> SysResult<usize> {
    let look = || {
        let ready = file.ready();
        (ready.intersects(Events::OUT | Events::ERR)).then(|| pipe.capacity().saturating_sub(pipe.len()))
    };
    if nonblock {
        return look().ok_or(Errno::EAGAIN.into());
    }
    Ok(interruptible(t, pipe.wait_queue().wait_for_mask(WRITE_EVENTS.bits(), look)).await?)
}

/// splice(2).
pub async fn splice(t: &Thread, ends: &mut Ends<'_>, len: u64) -> SysResult<usize> {
    ends.input.check_readable()?;
    ends.output.check_writable()?;
    let (in_pipe, out_pipe) = (pipe::of_file(ends.input).cloned(), pipe::of_file(ends.output).cloned());
    if in_pipe.is_some() && ends.in_pos.is_some() || out_pipe.is_some() && ends.out_pos.is_some() {
        return Err(Errno::ESPIPE.into());
    }
    let max = len.min(PIECE as u64) as usize;
    match (in_pipe, out_pipe) {
        (Some(from), Some(to)) if Arc::ptr_eq(&from, &to) => Err(Errno::EINVAL.into()),
        (Some(from), to) => {
            if to.is_none() && ends.output.flags() & raw::O_APPEND != 0 && ends.output.ops().is_none() {
                return Err(Errno::EINVAL.into());
            }
            let nonblock = ends.nonblock || ends.input.is_nonblock();
            let bytes = peek(t, &from, max, nonblock).await?;
            let bytes = match to {
                Some(to) => {
                    let room = room(t, &to, ends.output, ends.nonblock).await?;
                    bytes.get(..bytes.len().min(room.max(1))).unwrap_or(&[]).to_vec()
                }
                None => bytes,
            };
            if bytes.is_empty() {
                return Ok(0);
            }
            let n = ends.write_output(t, &bytes).await?;
            from.consume(n);
            Ok(n)
        }
        (None, Some(to)) => {
            let room = room(t, &to, ends.output, ends.nonblock || ends.output.is_nonblock()).await?;
            let mut piece = buffer(max.min(room.max(1)))?;
            let n = ends.read_input(t, &mut piece).await?;
            ends.write_output(t, piece.get(..n).unwrap_or(&[])).await
        }
        (None, None) => Err(Errno::EINVAL.into()),
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
    let bytes = peek(t, from, len.min(PIECE as u64) as usize, nonblock || input.is_nonblock()).await?;
    if bytes.is_empty() {
        return Ok(0);
    }
    let room = room(t, to, output, nonblock || output.is_nonblock()).await?;
    let mut buf = IoBuf::kernel(bytes.get(..bytes.len().min(room.max(1))).unwrap_or(&[]));
    output.write(t, &mut buf).await
}
