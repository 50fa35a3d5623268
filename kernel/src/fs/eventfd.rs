//! eventfd(2): a counter to wait for.

use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;

use super::file::{Events, FileOps, TryError};
use super::open_file::OpenFile;
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::mm::IoBuf;
use crate::sync::SpinLock;

pub struct EventFd {
    count: SpinLock<u64>,
    semaphore: bool,
    queue: WaitQueue,
}

/// The largest value; the one above it is never reached.
const MAX: u64 = u64::MAX - 1;

impl EventFd {
    pub fn new(initial: u32, semaphore: bool) -> Arc<EventFd> {
        Arc::new(EventFd { count: SpinLock::new(initial as u64), semaphore, queue: WaitQueue::new() })
    }

    /// Adds to the counter from inside the kernel; stops at the maximum.
    pub fn signal(&self, by: u64) {
        let mut count = self.count.lock();
        *count = count.saturating_add(by).min(MAX);
        drop(count);
        self.wake(Events::IN | Events::RDNORM);
    }

    /// After the count has changed under its lock: who waits has looked at it, under the lock, since it is in the queue.
    fn wake(&self, events: Events) {
        if !self.queue.is_empty() {
            self.queue.wake(usize::MAX, events.bits());
        }
    }
}

impl FileOps for EventFd {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn info(&self) -> String {
        format!("eventfd-count: {:16x}\n", *self.count.lock())
    }

    fn ignores_seek(&self) -> bool {
        true
    }

    fn splices_to(&self) -> bool {
        false
    }

    fn is_plain(&self) -> bool {
        true
    }

    fn try_read(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        if buf.remaining() < 8 {
            return Err(Errno::EINVAL.into());
        }
        let mut count = self.count.lock();
        let value = match *count {
            0 => return Err(TryError::WouldBlock),
            _ if self.semaphore => 1,
            all => all,
        };
        copy_whole(buf, &value.to_ne_bytes())?;
        *count -= value;
        drop(count);
        self.wake(Events::OUT | Events::WRNORM);
        Ok(8)
    }

    fn try_write(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        if buf.remaining() < 8 {
            return Err(Errno::EINVAL.into());
        }
        let mut bytes = [0; 8];
        take_whole(buf, &mut bytes)?;
        let value = u64::from_ne_bytes(bytes);
        if value == u64::MAX {
            return Err(Errno::EINVAL.into());
        }
        let mut count = self.count.lock();
        if MAX - *count < value {
            drop(count);
            buf.rewind(8);
            return Err(TryError::WouldBlock);
        }
        *count += value;
        drop(count);
        // What does not fit eight bytes is not looked at.
        buf.limit(0);
        self.wake(Events::IN | Events::RDNORM);
        Ok(8)
    }

    fn ready(&self) -> Events {
        let count = *self.count.lock();
        let mut events = Events::empty();
        if count > 0 {
            events |= Events::IN;
        }
        if count < MAX {
            events |= Events::OUT;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }
}

/// Copies all of a small record to the reader, or nothing: a fault in the middle is undone.
pub fn copy_whole(buf: &mut IoBuf<'_>, bytes: &[u8]) -> Result<(), TryError> {
    let mut done = 0;
    while done < bytes.len() {
        match buf.copy_to(bytes.get(done..).unwrap_or(&[])) {
            Ok(0) => return Err(Errno::EINVAL.into()),
            Ok(n) => done += n,
            Err(fault) => {
                buf.rewind(done);
                return Err(fault.into());
            }
        }
    }
    Ok(())
}

/// The same from a writer.
pub fn take_whole(buf: &mut IoBuf<'_>, bytes: &mut [u8]) -> Result<(), TryError> {
    let mut done = 0;
    while done < bytes.len() {
        match buf.copy_from(bytes.get_mut(done..).unwrap_or(&mut [])) {
            Ok(0) => return Err(Errno::EINVAL.into()),
            Ok(n) => done += n,
            Err(fault) => {
                buf.rewind(done);
                return Err(fault.into());
            }
        }
    }
    Ok(())
}
