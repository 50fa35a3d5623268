//! Pseudo-terminals, pty(7): a terminal (the slave) whose other end is a file (the master).
//!
//! Lock order: the slave's state, then `Link::output`. The master never holds `output` when it calls the slave.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use linux_raw_sys::general as raw;
use linux_raw_sys::ioctl as cmds;

use super::terminal::{Tty, TtyDriver};
use super::termios::Termios;
use super::{devpts, ioctl, job};
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::fs::file::{Events, FileOps, TryError};
use crate::fs::inode::DeviceId;
use crate::fs::op::Op;
use crate::fs::open_file::OpenFile;
use crate::fs::{self, Ctx, How, Path, mount, sigio};
use crate::mm::{IoBuf, UserPtr};
use crate::process::{Pid, Thread};
use crate::sync::SpinLock;

/// UNIX98_PTY_SLAVE_MAJOR; the minor is the number in /dev/pts.
pub const SLAVE_MAJOR: u32 = 136;
/// /dev/ptmx.
pub const PTMX: DeviceId = DeviceId::new(5, 2);
/// kernel.pty.max.
pub const MAX_PTYS: u32 = 4096;
/// Output of the slave that the master has not read.
const OUTPUT_LIMIT: usize = 64 * 1024;
/// Bytes that one attempt of a write to the master moves.
const WRITE_LIMIT: usize = 4096;
const CHUNK: usize = 256;

/// What a slave and its master share.
struct Link {
    output: SpinLock<VecDeque<u8>>,
    /// The master's readers, writers and pollers.
    queue: WaitQueue,
    /// Events that they have to be woken for as soon as the slave's lock is free.
    news: AtomicU32,
    master_open: AtomicBool,
    /// A writer to the master has turned away for want of room.
    lacked_room: AtomicBool,
    /// The slave was open once and is not any more: the master reads EIO.
    slave_closed: AtomicBool,
    /// TIOCSPTLCK.
    locked: AtomicBool,
    /// TIOCPKT: reads of the master say what they are.
    packet: AtomicBool,
    /// TIOCPKT_* that the master has not read.
    status: AtomicU32,
}

/// The number of a pty, which nobody else gets as long as its terminal is open or controls a session.
struct Index(u32);

static INDICES: SpinLock<BTreeSet<u32>> = SpinLock::new(BTreeSet::new());

impl Index {
    fn new() -> Result<Index> {
        let mut taken = INDICES.lock();
        let index = (0..MAX_PTYS).find(|index| !taken.contains(index)).ok_or(Errno::ENOSPC)?;
        taken.insert(index);
        Ok(Index(index))
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        INDICES.lock().remove(&self.0);
    }
}

/// A pty as /dev/pts sees it.
pub struct Pty {
    pub index: u32,
    /// Owner of the node: who opened the master (ids, then the mode).
    pub uid: AtomicU32,
    pub gid: AtomicU32,
    pub perm: AtomicU32,
    tty: Arc<Tty>,
    link: Arc<Link>,
}

/// Living ptys, by number; a master's end takes its entry out.
static PTYS: SpinLock<BTreeMap<u32, Weak<Pty>>> = SpinLock::new(BTreeMap::new());

/// The slave's view of the master.
struct SlaveDriver(Arc<Link>, #[expect(dead_code, reason = "keeps the number")] Index);

impl TtyDriver for SlaveDriver {
    fn write(&self, bytes: &[u8]) -> usize {
        if !self.0.master_open.load(Ordering::Acquire) {
            return bytes.len();
        }
        let mut output = self.0.output.lock();
        let taken = bytes.len().min(OUTPUT_LIMIT.saturating_sub(output.len()));
        output.extend(&bytes[..taken]);
        drop(output);
        if taken > 0 {
            self.0.news.fetch_or((Events::IN | Events::RDNORM).bits() | sigio::IN, Ordering::Relaxed);
        }
        taken
    }

    fn room(&self) -> usize {
        OUTPUT_LIMIT.saturating_sub(self.0.output.lock().len())
    }

    fn input_wanted(&self) {
        let lacked = self.0.lacked_room.load(Ordering::Relaxed) && self.0.lacked_room.swap(false, Ordering::Relaxed);
        let events = (Events::OUT | Events::WRNORM).bits();
        self.0.queue.wake(usize::MAX, if lacked { events | sigio::OUT } else { events });
    }

    fn opened(&self, is_open: bool) {
        self.0.slave_closed.store(!is_open, Ordering::Release);
        if !is_open {
            self.0.news.fetch_or(sigio::QUIET, Ordering::Relaxed);
        }
    }

    fn settled(&self) {
        if self.0.news.load(Ordering::Relaxed) != 0 {
            let news = self.0.news.swap(0, Ordering::Relaxed);
            self.0.queue.wake(usize::MAX, news);
        }
    }

    fn note(&self, status: u32) {
        // Of these pairs one bit takes the place of the other.
        const PAIRS: [u32; 2] = [raw::TIOCPKT_STOP | raw::TIOCPKT_START, raw::TIOCPKT_NOSTOP | raw::TIOCPKT_DOSTOP];
        if !self.0.packet.load(Ordering::Acquire) {
            return;
        }
        let cleared: u32 = PAIRS.into_iter().filter(|pair| pair & status != 0).sum();
        let change = |old: u32| Some(old & !cleared | status);
        let _ = self.0.status.fetch_update(Ordering::AcqRel, Ordering::Relaxed, change);
        self.0.news.fetch_or((Events::IN | Events::RDNORM | Events::PRI).bits(), Ordering::Relaxed);
    }

    fn is_gone(&self) -> bool {
        !self.0.master_open.load(Ordering::Acquire)
    }

    fn is_pty(&self) -> bool {
        true
    }

    /// A pty has no line: 8 bits, no parity (pty_set_termios).
    fn adjust(&self, termios: &mut Termios) {
        termios.cflag = termios.cflag & !(raw::CSIZE | raw::PARENB) | raw::CS8 | raw::CREAD;
    }
}

/// All living ptys, by number.
pub fn all() -> Vec<Arc<Pty>> {
    PTYS.lock().values().filter_map(Weak::upgrade).collect()
}

pub fn find(index: u32) -> Option<Arc<Pty>> {
    PTYS.lock().get(&index)?.upgrade()
}

impl Pty {
    /// Opens /dev/ptmx: a new pair, the slave locked.
    pub fn open_master(thread: &Thread) -> Result<Arc<PtyMaster>> {
        let link = Arc::new(Link {
            output: SpinLock::new(VecDeque::new()),
            queue: WaitQueue::new(),
            news: AtomicU32::new(0),
            master_open: AtomicBool::new(true),
            lacked_room: AtomicBool::new(false),
            slave_closed: AtomicBool::new(false),
            locked: AtomicBool::new(true),
            packet: AtomicBool::new(false),
            status: AtomicU32::new(0),
        });
        let number = Index::new()?;
        let index = number.0;
        let id = DeviceId::new(SLAVE_MAJOR, index);
        let driver = Box::new(SlaveDriver(link.clone(), number));
        let tty = Tty::new(id, format!("pts/{index}"), driver, Termios::pty_slave());
        let creds = thread.creds();
        let (gid, perm) = super::devpts::defaults();
        let pty = Arc::new(Pty {
            index,
            uid: AtomicU32::new(creds.fsuid),
            gid: AtomicU32::new(gid.unwrap_or(creds.fsgid)),
            perm: AtomicU32::new(perm),
            tty,
            link,
        });
        PTYS.lock().insert(index, Arc::downgrade(&pty));
        Ok(Arc::new(PtyMaster { pty }))
    }

    /// The terminal, for an open of the slave: EIO while it is locked or after the master has gone.
    pub fn slave(&self) -> Result<&Arc<Tty>> {
        let usable = !self.link.locked.load(Ordering::Acquire) && self.link.master_open.load(Ordering::Acquire);
        if usable { Ok(&self.tty) } else { Err(Errno::EIO) }
    }

    pub fn device(&self) -> DeviceId {
        self.tty.id()
    }
}

/// The open master.
pub struct PtyMaster {
    pty: Arc<Pty>,
}

impl Drop for PtyMaster {
    fn drop(&mut self) {
        PTYS.lock().remove(&self.pty.index);
        self.pty.link.master_open.store(false, Ordering::Release);
        self.pty.link.output.lock().clear();
        job::hang_up(&self.pty.tty);
    }
}

impl PtyMaster {
    /// TIOCGPTPEER: a descriptor of the slave, with these flags of open(2). It is found without a path: on the devpts that
    /// the master was opened in, or on another; EIO if none is mounted.
    async fn open_peer(&self, file: &OpenFile, thread: &Thread, flags: u32) -> Result<u64> {
        let own = &file.path().mount;
        let mount = if devpts::is_instance(own.fs()) {
            own.clone()
        } else {
            mount::find(|mount| devpts::is_instance(mount.fs())).ok_or(Errno::EIO)?
        };
        let place = Path { dentry: devpts::slave(mount.root(), &self.pty), mount };
        // Whoever has the master may have the slave.
        let granted = true;
        let opened = fs::open::open_place(Ctx::of(thread), place, &How::new(flags & !raw::O_CREAT, 0), granted).await;
        let file = opened.map_err(|_| Errno::EIO)?;
        Ok(thread.files().install(file, flags & raw::O_CLOEXEC != 0)? as u64)
    }

    pub fn index(&self) -> u32 {
        self.pty.index
    }

    async fn control(&self, file: &OpenFile, thread: &Thread, cmd: u32, arg: u64) -> Result<u64> {
        let mm = thread.mm();
        let link = &self.pty.link;
        match cmd {
            cmds::TIOCGPTN => UserPtr::<u32>::new(arg).write(mm, self.pty.index).await?,
            cmds::TIOCSPTLCK => {
                let lock = UserPtr::<u32>::new(arg).read(mm).await? != 0;
                link.locked.store(lock, Ordering::Release);
            }
            cmds::TIOCGPTLCK => {
                let locked = link.locked.load(Ordering::Acquire);
                UserPtr::<u32>::new(arg).write(mm, u32::from(locked)).await?;
            }
            ioctl::TIOCGPTPEER => return self.open_peer(file, thread, arg as u32).await,
            cmds::FIONREAD => {
                let available = link.output.lock().len() as u32;
                UserPtr::<u32>::new(arg).write(mm, available).await?;
            }
            cmds::TIOCSIG => {
                let signal = u32::try_from(arg).map_err(|_| Errno::EINVAL)?;
                if ![raw::SIGINT, raw::SIGQUIT, raw::SIGTSTP].contains(&signal) {
                    return Err(Errno::EINVAL);
                }
                let foreground = self.pty.tty.lock().foreground_group();
                if let Some(group) = foreground {
                    group.signal(signal);
                }
            }
            cmds::TIOCGPKT => {
                let packet = link.packet.load(Ordering::Acquire);
                UserPtr::<u32>::new(arg).write(mm, u32::from(packet)).await?;
            }
            cmds::TIOCPKT => {
                let on = UserPtr::<u32>::new(arg).read(mm).await? != 0;
                if on && !link.packet.load(Ordering::Acquire) {
                    link.status.store(0, Ordering::Release);
                }
                link.packet.store(on, Ordering::Release);
            }
            // The master's own input, which is what the slave has written. Its output is the slave's input at once.
            cmds::TCFLSH if arg <= ioctl::TCIOFLUSH => {
                if arg != ioctl::TCOFLUSH {
                    link.output.lock().clear();
                    self.pty.tty.output_wanted();
                }
            }
            // The master controls nobody.
            cmds::TIOCSCTTY => return Err(Errno::ENOTTY),
            _ => return ioctl::terminal(&self.pty.tty, file, thread, cmd, arg, ioctl::Side::Master).await,
        }
        Ok(0)
    }
}

impl FileOps for PtyMaster {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn try_read(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        let link = &self.pty.link;
        // Asked first: what the slave wrote before it was closed is in the queue then.
        let closed = link.slave_closed.load(Ordering::Acquire);
        let packet = link.packet.load(Ordering::Acquire) && !buf.is_empty();
        let news = packet && link.status.load(Ordering::Acquire) != 0;
        let status = if news { link.status.swap(0, Ordering::AcqRel) } else { 0 };
        // None if another reader was faster.
        if status != 0 {
            return buf.copy_to(&[status as u8]).map_err(|fault| {
                link.status.fetch_or(status, Ordering::AcqRel);
                fault.into()
            });
        }
        let mut output = link.output.lock();
        if output.is_empty() && !buf.is_empty() {
            drop(output);
            return Err(if closed { TryError::Failed(Errno::EIO) } else { TryError::WouldBlock });
        }
        let header = if packet { buf.copy_to(&[raw::TIOCPKT_DATA as u8])? } else { 0 };
        let mut total = 0;
        while !output.is_empty() && !buf.is_empty() {
            match buf.copy_to(output.as_slices().0) {
                Ok(copied) => {
                    output.drain(..copied);
                    total += copied;
                }
                Err(fault) if total == 0 => {
                    buf.rewind(header);
                    return Err(fault.into());
                }
                Err(_) => {
                    // Going on behind the page would begin another packet.
                    if packet {
                        buf.take_fault();
                    }
                    break;
                }
            }
        }
        drop(output);
        if total > 0 {
            self.pty.tty.output_wanted();
        }
        Ok(header + total)
    }

    fn try_write(&self, file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        let mut total = 0;
        while !buf.is_empty() && total < WRITE_LIMIT {
            let mut chunk = [0; CHUNK];
            let copied = match buf.copy_from(&mut chunk) {
                Ok(copied) => copied,
                Err(fault) if total == 0 => return Err(fault.into()),
                Err(_) => break,
            };
            let mut bytes = chunk[..copied].iter();
            let taken = self.pty.tty.receive(|| bytes.next().copied());
            total += taken;
            if taken < copied {
                buf.rewind(copied - taken);
                break;
            }
        }
        if total > 0 || buf.is_empty() {
            return Ok(total);
        }
        if file.is_nonblock() {
            self.pty.link.lacked_room.store(true, Ordering::Relaxed);
        }
        Err(TryError::WouldBlock)
    }

    fn ready(&self) -> Events {
        let link = &self.pty.link;
        let mut events = Events::empty();
        // Asked first, as in `try_read`.
        if link.slave_closed.load(Ordering::Acquire) {
            events |= Events::HUP;
        }
        if !link.output.lock().is_empty() {
            events |= Events::IN | Events::RDNORM;
        }
        if link.packet.load(Ordering::Acquire) && link.status.load(Ordering::Acquire) != 0 {
            events |= Events::IN | Events::RDNORM | Events::PRI;
        }
        if self.pty.tty.lock().discipline.has_room() {
            events |= Events::OUT | Events::WRNORM;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.pty.link.queue)
    }

    fn news(&self) -> u32 {
        sigio::IN | sigio::OUT
    }

    /// The master is nobody's terminal.
    fn foreground(&self) -> Option<Pid> {
        Some(0)
    }

    fn ioctl<'a>(&'a self, file: &'a OpenFile, thread: &'a Thread, cmd: u32, arg: u64) -> Op<'a, Result<u64>> {
        Op::boxed(self.control(file, thread, cmd, arg))
    }
}
