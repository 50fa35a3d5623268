//! Reading and writing: attempts of [`FileOps`] made into calls that wait.

use alloc::boxed::Box;

use linux_raw_sys::general as raw;

use super::{Kind, OpenFile, READ_EVENTS, WRITE_EVENTS, settled};
use crate::errno::{Errno, Result};
use crate::exec::{WaitQueue, interruptible};
use crate::fs::file::{FileOps, TryError};
use crate::fs::inotify::hooks;
use crate::fs::regular;
use crate::fs::writing::Writing;
use crate::mm::IoBuf;
use crate::net::socket::{Outgoing, Receive};
use crate::net::transfer;
use crate::process::Thread;
use crate::process::run::killable;
use crate::syscalls::{SysError, SysResult};

impl OpenFile {
    /// So many bytes have been read.
    #[inline]
    fn accessed(&self, n: usize) {
        if n > 0 {
            hooks::used(self, raw::IN_ACCESS);
        }
    }

    #[inline]
    fn modified(&self, n: usize) {
        if n > 0 {
            hooks::used(self, raw::IN_MODIFY);
        }
    }

    /// A read that need not wait; into memory of one page, or of a regular file. None: nothing was done, and nobody was told
    /// of an error.
    pub fn read_now(&self, buf: &mut IoBuf<'_>, is_in_page: bool) -> Option<Result<usize>> {
        match &self.kind {
            Kind::Regular(cache) if self.readable() => {
                let mut pos = self.pos.try_lock()?;
                let n = regular::read_now(self, cache, *pos, buf)?;
                *pos += n as u64;
                self.accessed(n);
                Some(Ok(n))
            }
            _ if is_in_page => self.at_once(self.readable(), |ops, pos| ops.try_read(self, buf, pos)),
            _ => None,
        }
    }

    /// pread64(2) of a regular file that need not wait. None: nothing was done.
    pub fn read_at_now(&self, buf: &mut IoBuf<'_>, pos: u64) -> Option<usize> {
        let Kind::Regular(cache) = &self.kind else { return None };
        let n = self.readable().then(|| regular::read_now(self, cache, pos, buf)).flatten()?;
        self.accessed(n);
        Some(n)
    }

    /// The same for a write.
    pub fn write_now(&self, buf: &mut IoBuf<'_>) -> Option<Result<usize>> {
        self.at_once(self.writable(), |ops, pos| ops.try_write(self, buf, pos))
    }

    #[inline]
    fn at_once(
        &self,
        allowed: bool,
        attempt: impl FnOnce(&dyn FileOps, u64) -> Result<usize, TryError>,
    ) -> Option<Result<usize>> {
        let Kind::Ops(ops) = &self.kind else { return None };
        if !allowed || !self.answers_at_once(&**ops) {
            return None;
        }
        if self.stream {
            return told(attempt(&**ops, 0));
        }
        let mut pos = self.pos.try_lock()?;
        let result = told(attempt(&**ops, *pos))?;
        *pos += result.unwrap_or(0) as u64;
        Some(result)
    }

    /// What a blocking read of a plain stream waits for.
    pub fn blocking_stream(&self) -> Option<(&dyn FileOps, &WaitQueue)> {
        match &self.kind {
            Kind::Ops(ops) if self.stream && self.readable() && !self.is_nonblock() => {
                self.answers_at_once(&**ops).then_some((&**ops, ops.wait_queue()?))
            }
            _ => None,
        }
    }

    /// read(2), readv(2).
    pub async fn read(&self, t: &Thread, buf: &mut IoBuf<'_>) -> SysResult<usize> {
        self.check_readable()?;
        match &self.kind {
            Kind::Regular(cache) => {
                let mut pos = self.pos.lock().await;
                check_range(*pos, buf)?;
                let n = regular::read(self, cache, *pos, buf).await?;
                *pos += n as u64;
                self.accessed(n);
                Ok(n)
            }
            Kind::Ops(ops) if self.stream => self.read_ops(t, &**ops, buf, 0).await.inspect(|n| self.accessed(*n)),
            Kind::Ops(ops) => {
                let mut pos = self.pos.lock().await;
                let n = self.read_ops(t, &**ops, buf, *pos).await?;
                *pos += n as u64;
                self.accessed(n);
                Ok(n)
            }
            Kind::Directory => Err(Errno::EISDIR.into()),
            Kind::Path => Err(Errno::EBADF.into()),
        }
    }

    /// pread64(2), preadv(2): does not touch the position.
    pub async fn read_at(&self, t: &Thread, buf: &mut IoBuf<'_>, pos: u64) -> SysResult<usize> {
        if !self.seekable() {
            return Err(if self.is_path() { Errno::EBADF } else { Errno::ESPIPE }.into());
        }
        self.check_readable()?;
        check_range(pos, buf)?;
        let n = match &self.kind {
            Kind::Regular(cache) => regular::read(self, cache, pos, buf).await?,
            Kind::Ops(ops) => self.read_ops(t, &**ops, buf, pos).await?,
            _ => return Err(Errno::EISDIR.into()),
        };
        self.accessed(n);
        Ok(n)
    }

    /// write(2), writev(2).
    pub async fn write(&self, t: &Thread, buf: &mut IoBuf<'_>) -> SysResult<usize> {
        self.check_writable()?;
        match &self.kind {
            Kind::Regular(cache) => {
                let mut pos = self.pos.lock().await;
                check_range(*pos, buf)?;
                let append = self.flags() & raw::O_APPEND != 0;
                let (n, end) = regular::write(self, t, cache, (!append).then_some(*pos), buf).await?;
                *pos = end;
                self.modified(n);
                Ok(n)
            }
            Kind::Ops(ops) if self.stream => self.write_ops(t, &**ops, buf, 0).await.inspect(|n| self.modified(*n)),
            Kind::Ops(ops) => {
                let mut pos = self.pos.lock().await;
                let n = self.write_ops(t, &**ops, buf, *pos).await?;
                *pos += n as u64;
                self.modified(n);
                Ok(n)
            }
            _ => Err(Errno::EBADF.into()),
        }
    }

    /// pwritev2(2) with RWF_APPEND, to a regular file.
    pub async fn append(&self, t: &Thread, buf: &mut IoBuf<'_>, keep_position: bool) -> SysResult<usize> {
        self.check_writable()?;
        let Kind::Regular(cache) = &self.kind else { return Err(Errno::EINVAL.into()) };
        let mut pos = self.pos.lock().await;
        let (n, end) = regular::write(self, t, cache, None, buf).await?;
        if !keep_position {
            *pos = end;
        }
        self.modified(n);
        Ok(n)
    }

    /// pwrite64(2), pwritev(2). With O_APPEND Linux appends whatever the offset (pwrite(2), BUGS).
    pub async fn write_at(&self, t: &Thread, buf: &mut IoBuf<'_>, pos: u64) -> SysResult<usize> {
        if !self.seekable() {
            return Err(if self.is_path() { Errno::EBADF } else { Errno::ESPIPE }.into());
        }
        self.check_writable()?;
        check_range(pos, buf)?;
        let n = match &self.kind {
            Kind::Regular(cache) => {
                let append = self.flags() & raw::O_APPEND != 0;
                regular::write(self, t, cache, (!append).then_some(pos), buf).await?.0
            }
            Kind::Ops(ops) => self.write_ops(t, &**ops, buf, pos).await?,
            _ => return Err(Errno::EBADF.into()),
        };
        self.modified(n);
        Ok(n)
    }

    async fn read_ops(&self, t: &Thread, ops: &dyn FileOps, buf: &mut IoBuf<'_>, pos: u64) -> SysResult<usize> {
        interruptible(t, ops.admit(self, t, false)).await??;
        if ops.has_limits() && !buf.is_empty() {
            let socket = crate::net::socket::of_file(self)?;
            return Ok(Box::pin(transfer::receive(t, self, socket, buf, 0)).await?.len);
        }
        let wanted = buf.remaining();
        let read = match ops.read(self, buf, pos) {
            // What has positions is there, or will soon be.
            Some(op) if ops.seekable() => Some(killable(t, op).await.map_err(SysError::from)),
            Some(op) => Some(interruptible(t, op).await.map_err(SysError::from)),
            None => None,
        };
        match (read, wanted - buf.remaining()) {
            // What is in the buffer has been taken from the file and would be lost.
            (Some(Err(_)), done @ 1..) => return Ok(done),
            (Some(read), _) => return Ok(read??),
            (None, _) => {}
        }
        loop {
            let attempt = match ops.wait_queue() {
                Some(queue) if !self.is_nonblock() => {
                    let attempt = || settled(ops.try_read(self, buf, pos));
                    interruptible(t, queue.wait_for_mask(READ_EVENTS.bits(), attempt)).await?
                }
                _ => ops.try_read(self, buf, pos),
            };
            match attempt {
                Ok(n) => return Ok(n + self.read_on(ops, buf, pos + n as u64).await),
                Err(TryError::WouldBlock) => return Err(Errno::EAGAIN.into()),
                Err(TryError::Fault(fault)) => {
                    buf.take_fault();
                    buf.fault_in(&fault).await?;
                }
                Err(TryError::Failed(errno)) => return Err(errno.into()),
            }
        }
    }

    /// Goes on with a read that only a page fault cut short; what was read counts, whatever happens now.
    pub async fn read_on(&self, ops: &dyn FileOps, buf: &mut IoBuf<'_>, pos: u64) -> usize {
        let mut more = 0;
        while let Some(fault) = buf.take_fault() {
            if buf.fault_in(&fault).await.is_err() {
                break;
            }
            // An error of a socket is for the next call.
            let attempt = match ops.as_socket() {
                Some(socket) => socket
                    .try_receive(buf, Receive { goes_on: true, nonblock: true, ..Receive::default() })
                    .map(|got| got.len),
                None => ops.try_read(self, buf, pos + more as u64),
            };
            match attempt {
                Ok(n) => more += n,
                Err(_) => break,
            }
        }
        more
    }

    /// Blocking writes go on until everything is written; what was written before an error counts.
    async fn write_ops(&self, t: &Thread, ops: &dyn FileOps, buf: &mut IoBuf<'_>, pos: u64) -> SysResult<usize> {
        interruptible(t, ops.admit(self, t, true)).await??;
        if ops.has_limits() {
            let socket = crate::net::socket::of_file(self)?;
            let mut message = Outgoing::plain();
            return Box::pin(transfer::send(t, self, socket, buf, &mut message, 0)).await;
        }
        if let Some(op) = ops.write(self, buf, pos) {
            return Ok(interruptible(t, op).await??);
        }
        let mut writing = Writing::new(true, ops.sigpipe());
        loop {
            let at = pos + writing.done() as u64;
            let attempt = match ops.wait_queue() {
                Some(queue) if !self.is_nonblock() => {
                    let attempt = || settled(ops.try_write(self, buf, at));
                    let wait = queue.wait_for_mask(WRITE_EVENTS.bits(), attempt);
                    interruptible(t, wait).await.map_err(SysError::from)
                }
                _ => Ok(ops.try_write(self, buf, at)),
            };
            if let Some(answer) = writing.after(t, buf, attempt).await {
                return answer;
            }
        }
    }
}

/// What an attempt came to for good. Errors of a socket are told once, so another attempt would not find them again; EPIPE stays, and
/// comes with a signal, and for memory a write waits.
#[inline]
fn told(attempt: Result<usize, TryError>) -> Option<Result<usize>> {
    match attempt {
        Ok(n) => Some(Ok(n)),
        Err(TryError::Failed(errno)) if errno != Errno::EPIPE && errno != Errno::ENOMEM => Some(Err(errno)),
        Err(_) => None,
    }
}

/// No transfer goes beyond the largest offset (rw_verify_area of Linux): EINVAL.
fn check_range(pos: u64, buf: &IoBuf<'_>) -> Result<()> {
    match pos.checked_add(buf.remaining() as u64) {
        Some(end) if end <= i64::MAX as u64 => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}
