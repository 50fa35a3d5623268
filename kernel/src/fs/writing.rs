//! How a write call is made of attempts: what files and sockets have in common.

use alloc::boxed::Box;
use core::time::Duration;

use linux_raw_sys::general::SIGPIPE;

use super::file::TryError;
use crate::errno::Errno;
use crate::exec::{Instant, budget, interruptible, sleep_until};
use crate::mm::IoBuf;
use crate::mm::page_cache::relieve;
use crate::process::Thread;
use crate::syscalls::{SysError, SysResult};

/// When a write that fails with EPIPE raises SIGPIPE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sigpipe {
    Never,
    /// Sockets: what was sent before is the answer, and no sign of anything else.
    IfNothingWritten,
    /// Pipes.
    Always,
}

/// A write call that is made of attempts. What was written before an error counts.
pub struct Writing {
    /// Goes on until everything is written.
    whole: bool,
    sigpipe: Sigpipe,
    done: usize,
    /// How often it has waited for memory.
    waits: usize,
}

/// For how many breaths a write waits for memory.
const WAITS: usize = 100;
const BREATH: Duration = Duration::from_millis(10);

async fn wait_for_memory() {
    if !relieve().await {
        sleep_until(Instant::now().saturating_add(BREATH)).await;
    }
}

impl Writing {
    pub fn new(whole: bool, sigpipe: Sigpipe) -> Self {
        Writing { whole, sigpipe, done: 0, waits: 0 }
    }

    /// Bytes written so far.
    pub fn done(&self) -> usize {
        self.done
    }

    /// What comes of an attempt (the outer error: a signal ended the wait for it): the call's answer, or another attempt.
    pub async fn after(
        &mut self,
        t: &Thread,
        buf: &mut IoBuf<'_>,
        attempt: SysResult<Result<usize, TryError>>,
    ) -> Option<SysResult<usize>> {
        let error: SysError = match attempt {
            Ok(Ok(n)) => {
                self.done += n;
                if !self.whole || n == 0 || buf.is_empty() {
                    return Some(Ok(self.done));
                }
                budget().await;
                return None;
            }
            Ok(Err(TryError::Fault(fault))) => match buf.fault_in(&fault).await {
                Ok(()) => return None,
                Err(errno) => errno.into(),
            },
            Ok(Err(TryError::WouldBlock)) => Errno::EAGAIN.into(),
            // Cached pages are given up or stored first. Else what pipes and sockets hold has filled memory: its readers get
            // time to take some of it, as they do while Linux looks for a page. That is not told to the writer, unless
            // nobody reads.
            Ok(Err(TryError::Failed(Errno::ENOMEM))) if self.waits < WAITS => {
                self.waits += 1;
                match Box::pin(interruptible(t, wait_for_memory())).await {
                    Ok(()) => return None,
                    Err(interrupted) => interrupted.into(),
                }
            }
            Ok(Err(TryError::Failed(errno))) => {
                if errno == Errno::EPIPE && self.raises_sigpipe() {
                    super::raise(t, SIGPIPE);
                }
                errno.into()
            }
            Err(interrupted) => interrupted,
        };
        Some(if self.done > 0 { Ok(self.done) } else { Err(error) })
    }

    fn raises_sigpipe(&self) -> bool {
        match self.sigpipe {
            Sigpipe::Never => false,
            Sigpipe::IfNothingWritten => self.done == 0,
            Sigpipe::Always => true,
        }
    }
}
