//! inotify(7): files whose changes others are told of.
//!
//! * [`hooks`] are what the VFS calls when something happened to a file. While nobody watches anything they are one load.
//! * [`watch`] ties an inode to an instance. The inode has a list of its watches, and what any of them wants as one
//!   word.
//! * [`Inotify`] is an instance: its watches by number, and the events that were not read. [`limits`]: how many of all that
//!   a user may have.
//!
//! A watch holds its inode, and the instance its watches; the inode's list holds them, too, until they are taken off: when the
//! watch is removed, the file is gone or unmounted, or the instance closed.
//!
//! Locks: an instance's state, then an inode's list of watches. Neither is held when an inode or a watch may be dropped.

pub mod hooks;
pub mod limits;
mod queue;
mod watch;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::fmt::Write;
use core::sync::atomic::Ordering;

use linux_raw_sys::general as raw;

use self::limits::Account;
use self::queue::{Event, Queue};
pub use self::watch::List;
use self::watch::{Watch, Watches};
use super::file::{Events, FileOps, TryError};
use super::inode::{FileSystem, Inode};
use super::op::Op;
use super::open_file::OpenFile;
use super::sigio;
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::mm::{IoBuf, UserPtr};
use crate::process::Thread;
use crate::sync::SpinLock;

/// Events that can be asked for (IN_ALL_EVENTS).
const ALL_EVENTS: u32 = raw::IN_ACCESS
    | raw::IN_MODIFY
    | raw::IN_ATTRIB
    | raw::IN_CLOSE_WRITE
    | raw::IN_CLOSE_NOWRITE
    | raw::IN_OPEN
    | raw::IN_MOVED_FROM
    | raw::IN_MOVED_TO
    | raw::IN_CREATE
    | raw::IN_DELETE
    | raw::IN_DELETE_SELF
    | raw::IN_MOVE_SELF;
/// What stays with a watch besides events.
const WATCH_FLAGS: u32 = raw::IN_EXCL_UNLINK | raw::IN_ONESHOT;
/// All that inotify_add_watch(2) knows.
pub const KNOWN: u32 = ALL_EVENTS
    | WATCH_FLAGS
    | raw::IN_UNMOUNT
    | raw::IN_Q_OVERFLOW
    | raw::IN_IGNORED
    | raw::IN_ONLYDIR
    | raw::IN_DONT_FOLLOW
    | raw::IN_MASK_ADD
    | raw::IN_MASK_CREATE
    | raw::IN_ISDIR;

const FIONREAD: u32 = 0x541b;

/// All instances, for unmounts.
static INSTANCES: SpinLock<Vec<Weak<Inotify>>> = SpinLock::new(Vec::new());

struct State {
    watches: BTreeMap<i32, Arc<Watch>>,
    /// The number that was given last.
    last: i32,
    queue: Queue,
}

pub struct Inotify {
    state: SpinLock<State>,
    readers: WaitQueue,
    account: Account,
    this: Weak<Inotify>,
}

impl Inotify {
    /// inotify_init1(2) by a user; EMFILE if it has too many.
    pub fn new(uid: u32) -> Result<Arc<Inotify>> {
        let account = Account::open(uid)?;
        let queue = Queue::new(limits::QUEUED_EVENTS.load(Ordering::Relaxed));
        let instance = Arc::new_cyclic(|this| Inotify {
            state: SpinLock::new(State { watches: BTreeMap::new(), last: 0, queue }),
            readers: WaitQueue::new(),
            account,
            this: this.clone(),
        });
        let mut instances = INSTANCES.lock();
        instances.retain(|instance| instance.strong_count() > 0);
        instances.push(Arc::downgrade(&instance));
        drop(instances);
        Ok(instance)
    }

    /// inotify_add_watch(2): watches an inode, or changes what is wanted of it. Answers the watch's number.
    pub fn watch(&self, inode: &Arc<dyn Inode>, mask: u32) -> Result<i32> {
        let wanted = mask & (ALL_EVENTS | WATCH_FLAGS);
        let mut state = self.state.lock();
        if let Some(watch) = Watches::of(inode).find(&self.this) {
            if mask & raw::IN_MASK_CREATE != 0 {
                return Err(Errno::EEXIST);
            }
            watch.change(wanted, mask & raw::IN_MASK_ADD != 0);
            return Ok(watch.wd());
        }
        // As on Linux the number is spent even if there is no room.
        let wd = state.next_number();
        state.last = wd;
        self.account.add_watch()?;
        let watch = Watch::new(wd, self.this.clone(), inode.clone(), wanted);
        state.watches.insert(wd, watch.clone());
        watch.attach();
        Ok(wd)
    }

    /// inotify_rm_watch(2).
    pub fn remove(&self, wd: i32) -> Result<()> {
        let mut state = self.state.lock();
        let watch = state.watches.remove(&wd).ok_or(Errno::EINVAL)?;
        // In one step: who adds a watch for this inode must not find the one that goes.
        watch.detach();
        drop(state);
        self.account.remove_watch();
        self.push(Event::new(wd, raw::IN_IGNORED, 0, None));
        Ok(())
    }

    fn push(&self, event: Event) {
        let added = self.state.lock().queue.push(event);
        if added {
            self.readers.wake(usize::MAX, (Events::IN | Events::RDNORM).bits() | sigio::IN);
        }
    }

    /// A file system goes away.
    fn unmounted(&self, fs: &Arc<dyn FileSystem>) {
        let of_fs = |watch: &&Arc<Watch>| Arc::ptr_eq(&watch.inode().fs(), fs);
        let watches: Vec<_> = self.state.lock().watches.values().filter(of_fs).cloned().collect();
        for watch in watches {
            let mask = raw::IN_UNMOUNT | hooks::is_dir(watch.inode().kind());
            self.push(Event::new(watch.wd(), mask, 0, None));
            let _ = self.remove(watch.wd());
        }
    }
}

impl State {
    /// Numbers go up, and begin again when they have come to the end.
    fn next_number(&self) -> i32 {
        let free = |wd: &i32| !self.watches.contains_key(wd);
        let next = self.last.checked_add(1).unwrap_or(1);
        (next..=i32::MAX).chain(1..next).find(free).unwrap_or(1)
    }
}

/// The last mount of a file system was taken away.
pub fn unmounted(fs: &Arc<dyn FileSystem>) {
    let instances: Vec<_> = INSTANCES.lock().iter().filter_map(Weak::upgrade).collect();
    for instance in instances {
        instance.unmounted(fs);
    }
}

impl FileOps for Inotify {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn try_read(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        self.state.lock().queue.read(buf)
    }

    fn ready(&self) -> Events {
        if self.state.lock().queue.is_empty() { Events::empty() } else { Events::IN | Events::RDNORM }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.readers)
    }

    fn news(&self) -> u32 {
        sigio::IN
    }

    fn ignores_seek(&self) -> bool {
        true
    }

    fn splices_from(&self) -> bool {
        false
    }

    fn splices_to(&self) -> bool {
        false
    }

    /// The newest watch first, as on Linux; without file handles, which there are not.
    fn info(&self) -> String {
        let watches: Vec<Arc<Watch>> = self.state.lock().watches.values().rev().cloned().collect();
        let mut out = String::new();
        for watch in watches {
            let inode = watch.inode();
            let device = inode.device();
            let device = device.major << 20 | device.minor;
            // Who has a million watches need not see all of them when memory is short.
            if out.try_reserve(100).is_err() {
                break;
            }
            let (wd, ino, mask) = (watch.wd(), inode.metadata().ino, watch.mask());
            let _ = writeln!(out, "inotify wd:{wd:x} ino:{ino:x} sdev:{device:x} mask:{mask:x} ignored_mask:0 ");
        }
        out
    }

    fn ioctl<'a>(&'a self, _file: &'a OpenFile, thread: &'a Thread, cmd: u32, arg: u64) -> Op<'a, Result<u64>> {
        if cmd != FIONREAD {
            return Op::ready(Err(Errno::ENOTTY));
        }
        let size = self.state.lock().queue.size() as i32;
        Op::boxed(async move {
            UserPtr::<i32>::new(arg).write(thread.mm(), size).await?;
            Ok(0)
        })
    }
}

impl Drop for Inotify {
    fn drop(&mut self) {
        for watch in core::mem::take(&mut self.state.get_mut().watches).into_values() {
            watch.detach();
            self.account.remove_watch();
        }
    }
}
