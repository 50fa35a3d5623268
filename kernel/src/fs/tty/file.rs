//! An open terminal.

use alloc::sync::Arc;
use core::any::Any;
use core::time::Duration;
use linux_raw_sys::general as raw;

use super::terminal::Tty;
use super::{ioctl, job};
use crate::errno::{Errno, Result};
use crate::exec::{self, Instant, WaitQueue};
use crate::fs::file::{Events, FileOps, TryError};
use crate::fs::op::Op;
use crate::fs::open_file::OpenFile;
use crate::fs::sigio;
use crate::mm::IoBuf;
use crate::process::{Pid, Thread};

/// Which name the terminal was opened by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Via {
    /// Its own device, or /dev/tty.
    Device,
    /// /dev/console: no job control for reads and writes, and hang-ups pass it by.
    Console,
}

pub struct TtyFile {
    tty: Arc<Tty>,
    via: Via,
    generation: u32,
}

impl TtyFile {
    pub fn open(tty: Arc<Tty>, via: Via) -> Arc<TtyFile> {
        let generation = tty.open();
        Arc::new(TtyFile { tty, via, generation })
    }

    pub fn tty(&self) -> &Arc<Tty> {
        &self.tty
    }

    pub fn hung_up(&self) -> bool {
        self.via == Via::Device && self.tty.hung_up(self.generation)
    }

    fn check_alive(&self) -> Result<()> {
        if self.hung_up() { Err(Errno::EIO) } else { Ok(()) }
    }

    /// A raw read with VTIME (termios(3), non-canonical mode): with VMIN the clock runs between bytes, without it from the
    /// start of the call.
    async fn timed_read(&self, file: &OpenFile, buf: &mut IoBuf<'_>, min: usize, tenths: u64) -> Result<usize> {
        let pause = Duration::from_millis(tenths * 100);
        let minimum = min.min(buf.remaining()).max(1);
        let mut total = 0;
        loop {
            match self.try_read_now(file, buf, true) {
                // A hang-up.
                Ok(0) => return Ok(total),
                Ok(n) => total += n,
                Err(TryError::Fault(_)) if total > 0 => return Ok(total),
                Err(TryError::Fault(fault)) => {
                    buf.fault_in(&fault).await?;
                    continue;
                }
                Err(TryError::Failed(errno)) => return if total > 0 { Ok(total) } else { Err(errno) },
                Err(TryError::WouldBlock) => {}
            }
            if total >= minimum || buf.is_empty() {
                return Ok(total);
            }
            if total == 0 && is_nonblocking(file) {
                return Err(Errno::EAGAIN);
            }
            let deadline = (min == 0 || total > 0).then(|| Instant::now().saturating_add(pause));
            let readable = self.tty.queue().wait_for_mask((Events::IN | Events::HUP).bits(), || {
                (self.hung_up() || self.tty.lock().discipline.readable(1)).then_some(())
            });
            if exec::timeout(deadline, readable).await.is_err() {
                return Ok(total);
            }
        }
    }

    fn try_read_now(&self, file: &OpenFile, buf: &mut IoBuf<'_>, any: bool) -> Result<usize, TryError> {
        if self.hung_up() {
            // It was not when the call began (see `read`): who waits for a pty whose master goes is told so, on Linux too.
            return if self.tty.driver().is_gone() { Err(Errno::EIO.into()) } else { Ok(0) };
        }
        self.tty.try_read(buf, any || is_nonblocking(file))
    }
}

fn is_nonblocking(file: &OpenFile) -> bool {
    file.flags() & raw::O_NONBLOCK != 0
}

impl Drop for TtyFile {
    fn drop(&mut self) {
        self.tty.close();
    }
}

impl FileOps for TtyFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn admit<'a>(&'a self, _file: &'a OpenFile, thread: &'a Thread, write: bool) -> Op<'a, Result<()>> {
        if self.via == Via::Console || (write && !self.tty.termios().local(raw::TOSTOP)) {
            return Op::ready(Ok(()));
        }
        let signal = if write { raw::SIGTTOU } else { raw::SIGTTIN };
        match job::check(thread, &self.tty, signal) {
            job::Verdict::Go => Op::ready(Ok(())),
            job::Verdict::Refuse => Op::ready(Err(Errno::EIO)),
            job::Verdict::Signalled => Op::boxed(async move {
                exec::yield_now().await;
                job::admit(thread, &self.tty, signal).await
            }),
        }
    }

    fn try_read(&self, file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        self.try_read_now(file, buf, false)
    }

    fn try_write(&self, file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        self.check_alive()?;
        let result = self.tty.try_write(buf);
        if result == Err(TryError::WouldBlock) && is_nonblocking(file) {
            self.tty.lacks_room();
        }
        result
    }

    fn read<'a>(&'a self, file: &'a OpenFile, buf: &'a mut IoBuf<'_>, _pos: u64) -> Option<Op<'a, Result<usize>>> {
        if self.hung_up() {
            return Some(Op::ready(Ok(0)));
        }
        let termios = self.tty.termios();
        let tenths = termios.time_tenths();
        if termios.local(raw::ICANON) || tenths == 0 || buf.is_empty() {
            return None;
        }
        Some(Op::boxed(self.timed_read(file, buf, termios.min(), tenths)))
    }

    fn ready(&self) -> Events {
        match self.via {
            Via::Device => self.tty.ready(Some(self.generation)),
            Via::Console => self.tty.ready(None),
        }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(self.tty.queue())
    }

    fn news(&self) -> u32 {
        if self.hung_up() { 0 } else { sigio::IN | sigio::OUT }
    }

    fn foreground(&self) -> Option<Pid> {
        Some(self.tty.lock().foreground)
    }

    fn ioctl<'a>(&'a self, file: &'a OpenFile, thread: &'a Thread, cmd: u32, arg: u64) -> Op<'a, Result<u64>> {
        if self.hung_up() {
            let errno = if cmd == linux_raw_sys::ioctl::TIOCSPGRP { Errno::ENOTTY } else { Errno::EIO };
            return Op::ready(Err(errno));
        }
        Op::boxed(ioctl::terminal(&self.tty, file, thread, cmd, arg, ioctl::Side::Terminal))
    }
}
