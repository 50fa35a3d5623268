//! What can stand behind a file descriptor besides page-cache files and directories.

use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;

use super::op::Op;
use super::open_file::OpenFile;
use super::sigio::Owner;
use super::writing::Sigpipe;
use crate::arch::UserFault;
use crate::errno::{Errno, Result};
use crate::exec::{WaitEntry, WaitQueue};
use crate::mm::{IoBuf, PageSource, Special};
use crate::net::socket::Socket;
use crate::process::{Pid, Thread};

bitflags::bitflags! {
    /// Readiness, with poll(2)'s bits (the same values as epoll's).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Events: u32 {
        const IN = 0x001;
        const PRI = 0x002;
        const OUT = 0x004;
        const ERR = 0x008;
        const HUP = 0x010;
        const NVAL = 0x020;
        const RDNORM = 0x040;
        const RDBAND = 0x080;
        const WRNORM = 0x100;
        const WRBAND = 0x200;
        const MSG = 0x400;
        const RDHUP = 0x2000;
    }
}

/// Why a non-waiting attempt did not finish.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TryError {
    /// Not ready: wait on the wait queue for the matching events and try again (or EAGAIN for O_NONBLOCK).
    WouldBlock,
    /// User memory has to be faulted in, outside of every lock; then try again.
    Fault(UserFault),
    Failed(Errno),
}

impl From<Errno> for TryError {
    fn from(errno: Errno) -> Self {
        TryError::Failed(errno)
    }
}

impl From<UserFault> for TryError {
    fn from(fault: UserFault) -> Self {
        TryError::Fault(fault)
    }
}

/// Operations behind an open file. Readiness files implement the `try_` calls, `ready` and `wait_queue`; the generic
/// loops of [`OpenFile`] make blocking, O_NONBLOCK, timeouts, poll and epoll of them. Files that must await something
/// other than readiness (block devices, other processes' memory) answer `Some` from `read`/`write`.
///
/// `pos` is the file position for seekable files; streams ignore it. A `try_` call that moved some bytes answers their
/// count, even if it met a fault or would block after them.
pub trait FileOps: Send + Sync + Any {
    fn as_any(&self) -> &dyn Any;
    /// The socket that it is, if it is one.
    fn as_socket(&self) -> Option<&dyn Socket> {
        None
    }

    fn try_read(&self, _file: &OpenFile, _buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        Err(TryError::Failed(Errno::EINVAL))
    }
    fn try_write(&self, _file: &OpenFile, _buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        Err(TryError::Failed(Errno::EINVAL))
    }
    /// Replaces `try_read` for files that need to await I/O.
    fn read<'a>(&'a self, _file: &'a OpenFile, _buf: &'a mut IoBuf<'_>, _pos: u64) -> Option<Op<'a, Result<usize>>> {
        None
    }
    fn write<'a>(&'a self, _file: &'a OpenFile, _buf: &'a mut IoBuf<'_>, _pos: u64) -> Option<Op<'a, Result<usize>>> {
        None
    }

    /// `try_read` and `try_write` are all there is to reading and writing: no `admit`, `read` or `write` of its own; and
    /// a `try_write` of up to PIPE_BUF bytes that are present takes all of them or none. Then what can be done at
    /// once is done without a future. And `ready` takes no lock but the file's own: it is asked under the table's.
    fn is_plain(&self) -> bool {
        false
    }

    /// The same but for `ready`, and asked before each call, of files that are not plain.
    fn answers_at_once(&self) -> bool {
        false
    }

    /// Awaited, interruptibly, before the first attempt of every read or write call, O_NONBLOCK or not: a terminal's
    /// job control sends SIGTTIN or SIGTTOU to a background group and then waits for the signal to end the call
    /// (which is restarted when the group is continued).
    fn admit<'a>(&'a self, _file: &'a OpenFile, _thread: &'a Thread, _write: bool) -> Op<'a, Result<()>> {
        Op::ready(Ok(()))
    }

    /// The events that hold now.
    fn ready(&self) -> Events {
        Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM
    }
    /// Woken, with the events as key, whenever `ready` may have gained events. None: always ready (poll never waits;
    /// epoll answers EPERM).
    fn wait_queue(&self) -> Option<&WaitQueue> {
        None
    }
    /// Takes an entry out of the queue that `wait_queue` answered when it was put there.
    fn unwatch(&self, entry: &Arc<WaitEntry>) {
        if let Some(queue) = self.wait_queue() {
            queue.remove(entry);
        }
    }

    /// What it sends signals about with O_ASYNC: bits of [`super::sigio`], with which `wait_queue` is then woken. 0: it sends
    /// none.
    fn news(&self) -> u32 {
        0
    }
    /// From now on somebody wants those signals, or another.
    fn told(&self) {}
    /// Signals of the file it stands for are for this owner.
    fn owned(&self, _owner: &Arc<Owner>) {}
    /// A terminal's foreground group, or 0 if it has none: whom its signals are for, unless somebody is named.
    fn foreground(&self) -> Option<Pid> {
        None
    }

    /// Reads and writes have deadlines or a least length of their own: they are made through [`crate::net::transfer`].
    fn has_limits(&self) -> bool {
        false
    }
    fn sigpipe(&self) -> Sigpipe {
        Sigpipe::Always
    }

    /// There is something to read at all. False: EINVAL whatever is asked for.
    fn can_read(&self) -> bool {
        true
    }

    /// Has a position: lseek, pread and pwrite work. False: they answer ESPIPE.
    fn seekable(&self) -> bool {
        false
    }
    /// lseek answers 0 and does nothing (/dev/null and its like, and some that have no position).
    fn ignores_seek(&self) -> bool {
        false
    }
    /// splice(2) and sendfile(2) can move data from it.
    fn splices_from(&self) -> bool {
        true
    }
    /// The same, to it.
    fn splices_to(&self) -> bool {
        true
    }
    /// SEEK_END's base.
    fn size(&self) -> Option<u64> {
        None
    }
    /// What /proc/PID/fdinfo/N says besides the usual: whole lines.
    fn info(&self) -> String {
        String::new()
    }
    /// ioctl(2) beyond the generic FIONBIO, FIOCLEX, FIONCLEX, FIOASYNC. Awaited interruptibly, like `admit`.
    fn ioctl<'a>(&'a self, _file: &'a OpenFile, _thread: &'a Thread, _cmd: u32, _arg: u64) -> Op<'a, Result<u64>> {
        Op::ready(Err(Errno::ENOTTY))
    }
    /// What mmap(2) maps; None: ENODEV.
    fn page_source(&self, _file: &Arc<OpenFile>) -> Option<Arc<dyn PageSource>> {
        None
    }
    /// Pages of the kernel that mmap(2) maps at `offset` instead. `file` is to live as long as the mapping.
    fn shared_pages(&self, _file: &Arc<OpenFile>, _offset: u64) -> Option<Result<Arc<Special>>> {
        None
    }
    /// close(2) of one descriptor by a process (there may be others): POSIX locks, tty hang-ups.
    fn flush(&self) {}
    /// The last descriptor of an open file is closed, and no call uses it any more.
    fn released(&self) {}
    /// May close(2) of the last descriptor have to wait ([`FileOps::linger`])?
    fn lingers(&self) -> bool {
        false
    }
    /// After `released`, if it `lingers`: close(2) waits for this. Nobody is told what came of it.
    fn linger<'a>(&'a self, _thread: &'a Thread) -> Op<'a, ()> {
        Op::ready(())
    }
    fn sync(&self) -> Op<'_, Result<()>> {
        Op::ready(Err(Errno::EINVAL))
    }
}
