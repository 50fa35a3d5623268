//! Descriptors in messages (SCM_RIGHTS, unix(7)), and what becomes of them when nobody can receive them any more.
//!
//! A Unix socket whose only references are messages, which wait in sockets of the same kind, is garbage: a cycle that
//! reference counts never free. The collector counts for each Unix socket the messages that hold it. Those with other
//! references are reachable, and so is what waits in them; the rest is emptied.
//!
//! What makes this safe is [`IN_FLIGHT`]: a message that holds Unix sockets is counted and put into its queue, or taken
//! out and uncounted, in one step under that lock. So the collector sees each such message in exactly one queue.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::unix::UnixSocket;
use crate::errno::{Errno, Result};
use crate::fs::OpenFile;
use crate::process::{Caps, Resource, Thread};
use crate::sync::{SpinGuard, SpinLock};

/// Descriptors in one message, SCM_MAX_FD.
pub const MAX: usize = 253;

/// Files that travel with a message.
pub struct Rights {
    files: Vec<Arc<OpenFile>>,
    /// Whose account they are on.
    uid: u32,
    has_sockets: bool,
}

/// A Unix socket that messages hold.
struct Flying {
    file: Weak<OpenFile>,
    messages: usize,
}

/// All messages with Unix sockets in them.
#[derive(Default)]
pub struct InFlight {
    /// What they hold, by address of the socket.
    held: BTreeMap<usize, Flying>,
    /// Sockets that such messages wait in, by address.
    holders: BTreeMap<usize, Weak<UnixSocket>>,
}

static IN_FLIGHT: SpinLock<InFlight> = SpinLock::new(InFlight { held: BTreeMap::new(), holders: BTreeMap::new() });
/// Entries of it, for those who only want to know whether there are any.
static SOCKETS: AtomicUsize = AtomicUsize::new(0);
/// Files in messages by user.
static ACCOUNTS: SpinLock<BTreeMap<u32, usize>> = SpinLock::new(BTreeMap::new());

/// The address of the Unix socket that a file is.
fn socket_address(file: &OpenFile) -> Option<usize> {
    file.ops_as::<UnixSocket>().map(|socket| core::ptr::from_ref(socket).addr())
}

impl Rights {
    /// Files that `t` sends. ETOOMANYREFS: the user has more in flight than RLIMIT_NOFILE.
    pub fn new(t: &Thread, files: Vec<Arc<OpenFile>>) -> Result<Rights> {
        let uid = t.creds().uid;
        let mut accounts = ACCOUNTS.lock();
        let count = accounts.entry(uid).or_default();
        let limit = t.rlimit(Resource::Nofile).soft;
        let privileged = t.creds().capable(Caps::SYS_RESOURCE) || t.creds().capable(Caps::SYS_ADMIN);
        if *count as u64 > limit && !privileged {
            return Err(Errno::ETOOMANYREFS);
        }
        *count += files.len();
        drop(accounts);
        let has_sockets = files.iter().any(|file| socket_address(file).is_some());
        Ok(Rights { files, uid, has_sockets })
    }

    #[cfg(test)]
    pub fn for_test(files: Vec<Arc<OpenFile>>) -> Rights {
        let has_sockets = files.iter().any(|file| socket_address(file).is_some());
        *ACCOUNTS.lock().entry(0).or_default() += files.len();
        Rights { files, uid: 0, has_sockets }
    }

    /// To be locked before the socket that the message goes to or comes from.
    pub fn has_sockets(&self) -> bool {
        self.has_sockets
    }

    /// The message is about to be put into the queue of `holder`.
    pub fn take_off(&self, in_flight: &mut InFlight, holder: &Arc<UnixSocket>) {
        for file in &self.files {
            let Some(address) = socket_address(file) else { continue };
            let flying = in_flight.held.entry(address);
            flying.or_insert_with(|| Flying { file: Arc::downgrade(file), messages: 0 }).messages += 1;
        }
        in_flight.holders.entry(Arc::as_ptr(holder).addr()).or_insert_with(|| Arc::downgrade(holder));
        SOCKETS.store(in_flight.held.len(), Ordering::Relaxed);
    }

    /// The message was taken out of its queue.
    pub fn land(&self, in_flight: &mut InFlight) {
        for address in self.files.iter().filter_map(|file| socket_address(file)) {
            if let Some(flying) = in_flight.held.get_mut(&address) {
                flying.messages -= 1;
                if flying.messages == 0 {
                    in_flight.held.remove(&address);
                }
            }
        }
        if in_flight.held.is_empty() {
            in_flight.holders.clear();
        }
        SOCKETS.store(in_flight.held.len(), Ordering::Relaxed);
    }

    pub fn files(&self) -> &[Arc<OpenFile>] {
        &self.files
    }

    /// The files, for their receiver.
    pub fn into_files(mut self) -> Vec<Arc<OpenFile>> {
        self.leave_account();
        core::mem::take(&mut self.files)
    }

    #[inline]
    fn leave_account(&self) {
        let mut accounts = ACCOUNTS.lock();
        if let Some(count) = accounts.get_mut(&self.uid) {
            *count = count.saturating_sub(self.files.len());
            if *count == 0 {
                accounts.remove(&self.uid);
            }
        }
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        if self.files.is_empty() {
            return;
        }
        self.leave_account();
        bury(core::mem::take(&mut self.files));
    }
}

pub fn lock() -> SpinGuard<'static, InFlight> {
    IN_FLIGHT.lock()
}

/// What is to be let go of. One CPU at a time does it, whoever comes first, and takes along what others bring meanwhile:
/// a socket in a message in a socket in a message … must not become a recursion, and two collectors would each take the
/// other's references for those of somebody who can still receive.
struct Burials {
    grave: VecDeque<Arc<OpenFile>>,
    /// A socket has gone since the last collection began.
    orphans: bool,
    at_work: bool,
}

static BURIALS: SpinLock<Burials> = SpinLock::new(Burials { grave: VecDeque::new(), orphans: false, at_work: false });

/// What is to be done next, outside the lock.
enum Duty {
    Drop(Arc<OpenFile>),
    Collect,
}

impl Burials {
    /// The next duty of the one at work, who is released when there is none.
    fn next(&mut self) -> Option<Duty> {
        if let Some(file) = self.grave.pop_front() {
            return Some(Duty::Drop(file));
        }
        // One collection after a burial does for all sockets that have gone in it.
        self.at_work = core::mem::take(&mut self.orphans);
        self.at_work.then_some(Duty::Collect)
    }
}

fn bury(files: Vec<Arc<OpenFile>>) {
    BURIALS.lock().grave.extend(files);
    work();
}

/// Empties the queues of sockets that only garbage leads to. To be called without locks, whenever a socket is gone.
pub fn collect() {
    if SOCKETS.load(Ordering::Relaxed) == 0 {
        return;
    }
    BURIALS.lock().orphans = true;
    work();
}

fn work() {
    if core::mem::replace(&mut BURIALS.lock().at_work, true) {
        return;
    }
    loop {
        // Not in the loop's condition, which would hold the lock.
        let duty = BURIALS.lock().next();
        match duty {
            Some(Duty::Drop(file)) => drop(file),
            Some(Duty::Collect) => empty(unreachable()),
            None => break,
        }
    }
}

fn empty(garbage: Vec<Arc<OpenFile>>) {
    for socket in garbage.iter().filter_map(|file| file.ops_as::<UnixSocket>()) {
        socket.empty();
    }
    BURIALS.lock().grave.extend(garbage);
}

/// Waits until no thread is at work: tests run side by side.
#[cfg(test)]
pub fn settle() {
    collect();
    while BURIALS.lock().at_work {
        std::thread::yield_now();
    }
}

fn unreachable() -> Vec<Arc<OpenFile>> {
    let mut in_flight = IN_FLIGHT.lock();
    // References that are taken here are dropped after the lock: each may be the last by then.
    let mut reached = Vec::new();
    let mut candidates = BTreeMap::new();
    for (address, flying) in &in_flight.held {
        let Some(file) = flying.file.upgrade() else { continue };
        // One reference is ours.
        if Arc::strong_count(&file) - 1 > flying.messages {
            reached.push(file);
        } else {
            candidates.insert(*address, file);
        }
    }
    in_flight.holders.retain(|_, holder| holder.strong_count() > 0);
    let mut holders: BTreeMap<usize, Vec<Arc<UnixSocket>>> = BTreeMap::new();
    for holder in in_flight.holders.values().filter_map(Weak::upgrade) {
        holders.entry(holder.owner()).or_default().push(holder);
    }
    // Each owner gets in here once: at the start, or when it stops being a candidate.
    let mut reachable: Vec<usize> = holders.keys().filter(|owner| !candidates.contains_key(owner)).copied().collect();
    while let Some(owner) = reachable.pop() {
        for holder in holders.get(&owner).into_iter().flatten() {
            holder.for_each_right(&mut |file| {
                let Some(address) = socket_address(file) else { return };
                if let Some(file) = candidates.remove(&address) {
                    reached.push(file);
                    reachable.push(address);
                }
            });
        }
    }
    drop(in_flight);
    bury(reached);
    candidates.into_values().collect()
}
