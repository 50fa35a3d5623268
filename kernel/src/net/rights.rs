//! Descriptors in messages (SCM_RIGHTS, unix(7)), and what becomes of them when nobody can receive them any more.
//!
//! A Unix socket whose only references are messages, which wait in sockets of the same kind, is garbage: a cycle that
//! reference counts never free. The collector counts for each Unix socket the messages that hold it. Those with other
//! references are reachable, and so is what waits in them; the rest is emptied.
//!
//! What makes this safe is [`IN_FLIGHT`]: a message that holds Unix sockets is counted and put into its queue, or taken
//! out and uncounted, in one step under that lock. So the collector sees each such message in exactly one queue.
//!
//! Whoever closes a socket does a bounded part of what follows from it. The rest is for a kernel task ([`run`]).

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::time::Duration;

use super::unix::UnixSocket;
use crate::errno::{Errno, Result};
use crate::exec::{Instant, Notify, budget, sleep_until};
use crate::fs::OpenFile;
use crate::process::{Caps, Resource, Thread};
use crate::sync::{SpinGuard, SpinLock};

/// Descriptors in one message, SCM_MAX_FD.
pub const MAX: usize = 253;

/// With more Unix sockets in messages whoever sends another one has garbage looked for (UNIX_INFLIGHT_TRIGGER_GC of Linux).
const CROWD: usize = 16_000;
/// How many files whoever buries some lets go of itself at least, and how many sockets it looks at.
const AT_ONCE: usize = 64;
/// Between collections of the task.
const PAUSE: Duration = Duration::from_millis(20);

/// Files that travel with a message. None: somebody has taken them out.
pub struct Rights(Option<Box<Parcel>>);

/// Some files; parcels make a chain without memory of its own.
struct Parcel {
    files: Vec<Arc<OpenFile>>,
    /// Whose account they are on until they have gone.
    uid: Option<u32>,
    has_sockets: bool,
    next: Option<Box<Parcel>>,
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
    /// How often messages hold a socket.
    sockets: usize,
}

static IN_FLIGHT: SpinLock<InFlight> =
    SpinLock::new(InFlight { held: BTreeMap::new(), holders: BTreeMap::new(), sockets: 0 });
/// For those who only want to know: its `sockets`, and what a collection has to look at.
static SOCKETS: AtomicUsize = AtomicUsize::new(0);
static WEIGHT: AtomicUsize = AtomicUsize::new(0);
/// Files in messages by user.
static ACCOUNTS: SpinLock<BTreeMap<u32, usize>> = SpinLock::new(BTreeMap::new());

/// The address of the Unix socket that a file is.
fn socket_address(file: &OpenFile) -> Option<usize> {
    file.ops_as::<UnixSocket>().map(|socket| core::ptr::from_ref(socket).addr())
}

impl Rights {
    /// Files that `t` sends. ETOOMANYREFS: the user has more in flight than RLIMIT_NOFILE.
    pub fn new(t: &Thread, files: Vec<Arc<OpenFile>>) -> Result<Rights> {
        if SOCKETS.load(Ordering::Relaxed) > CROWD {
            want_collection();
        }
        let uid = t.creds().uid;
        let limit = t.rlimit(Resource::Nofile).soft;
        let privileged = t.creds().capable(Caps::SYS_RESOURCE) || t.creds().capable(Caps::SYS_ADMIN);
        let mut accounts = ACCOUNTS.lock();
        let count = accounts.entry(uid).or_default();
        if *count as u64 > limit && !privileged {
            return Err(Errno::ETOOMANYREFS);
        }
        *count += files.len();
        drop(accounts);
        Ok(Rights(Some(Parcel::new(files, Some(uid)))))
    }

    #[cfg(test)]
    pub fn for_test(files: Vec<Arc<OpenFile>>, uid: u32) -> Rights {
        *ACCOUNTS.lock().entry(uid).or_default() += files.len();
        Rights(Some(Parcel::new(files, Some(uid))))
    }

    /// To be locked before the socket that the message goes to or comes from.
    pub fn has_sockets(&self) -> bool {
        self.0.as_ref().is_some_and(|parcel| parcel.has_sockets)
    }

    fn sockets(&self) -> impl Iterator<Item = (usize, &Arc<OpenFile>)> {
        let files = if self.has_sockets() { self.files() } else { &[] };
        files.iter().filter_map(|file| Some((socket_address(file)?, file)))
    }

    /// The message is about to be put into the queue of `holder`.
    pub fn take_off(&self, in_flight: &mut InFlight, holder: &Arc<UnixSocket>) {
        for (address, file) in self.sockets() {
            let flying = in_flight.held.entry(address);
            flying.or_insert_with(|| Flying { file: Arc::downgrade(file), messages: 0 }).messages += 1;
            in_flight.sockets += 1;
        }
        in_flight.holders.entry(Arc::as_ptr(holder).addr()).or_insert_with(|| Arc::downgrade(holder));
        in_flight.tell();
    }

    /// The message was taken out of its queue.
    pub fn land(&self, in_flight: &mut InFlight) {
        for (address, _) in self.sockets() {
            if let Some(flying) = in_flight.held.get_mut(&address) {
                in_flight.sockets -= 1;
                flying.messages -= 1;
                if flying.messages == 0 {
                    in_flight.held.remove(&address);
                }
            }
        }
        if in_flight.held.is_empty() {
            in_flight.holders.clear();
        }
        in_flight.tell();
    }

    pub fn files(&self) -> &[Arc<OpenFile>] {
        self.0.as_ref().map_or(&[], |parcel| &parcel.files)
    }

    /// The files, for their receiver.
    pub fn into_files(mut self) -> Vec<Arc<OpenFile>> {
        let Some(mut parcel) = self.0.take() else { return Vec::new() };
        parcel.leave_account(parcel.files.len());
        core::mem::take(&mut parcel.files)
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        let Some(parcel) = self.0.take() else { return };
        BURIALS.lock().grave.add(parcel);
        work_a_little();
    }
}

impl InFlight {
    fn tell(&self) {
        SOCKETS.store(self.sockets, Ordering::Relaxed);
        WEIGHT.store(self.sockets + self.holders.len(), Ordering::Relaxed);
    }
}

pub fn lock() -> SpinGuard<'static, InFlight> {
    IN_FLIGHT.lock()
}

impl Parcel {
    fn new(files: Vec<Arc<OpenFile>>, uid: Option<u32>) -> Box<Parcel> {
        let has_sockets = files.iter().any(|file| socket_address(file).is_some());
        Box::new(Parcel { files, uid, has_sockets, next: None })
    }

    /// So many files are not in a message any more, nor where messages end.
    fn leave_account(&self, files: usize) {
        let Some(uid) = self.uid else { return };
        let mut accounts = ACCOUNTS.lock();
        if let Some(count) = accounts.get_mut(&uid) {
            *count = count.saturating_sub(files);
            if *count == 0 {
                accounts.remove(&uid);
            }
        }
    }

    /// Answers how many files have gone.
    fn let_go(mut self) -> usize {
        let files = core::mem::take(&mut self.files);
        let count = files.len();
        drop(files);
        self.leave_account(count);
        count
    }

    /// The same for sockets of the collector's, which are emptied; they go later.
    fn empty(self: Box<Self>) -> usize {
        let count = self.files.len();
        for socket in self.files.iter().filter_map(|file| file.ops_as::<UnixSocket>()) {
            socket.empty();
        }
        BURIALS.lock().grave.add(self);
        count
    }
}

/// A chain of parcels, the last one first.
struct Pile(Option<Box<Parcel>>);

impl Pile {
    fn add(&mut self, mut parcel: Box<Parcel>) {
        parcel.next = self.0.take();
        self.0 = Some(parcel);
    }

    /// A file of the collector's.
    fn add_file(&mut self, file: Arc<OpenFile>) {
        match &mut self.0 {
            Some(first) if first.files.len() < MAX => first.files.push(file),
            _ => {
                let mut files = Vec::with_capacity(MAX);
                files.push(file);
                self.add(Box::new(Parcel { files, uid: None, has_sockets: false, next: None }));
            }
        }
    }

    fn take(&mut self) -> Option<Box<Parcel>> {
        let mut parcel = self.0.take()?;
        self.0 = parcel.next.take();
        Some(parcel)
    }

    fn add_all(&mut self, mut other: Pile) {
        while let Some(parcel) = other.take() {
            self.add(parcel);
        }
    }
}

/// What is to be let go of. One CPU at a time does it, a part at a time: a socket in a message in a socket in a message …
/// must not become a recursion, and two collectors would each take the other's references for those of somebody who can
/// still receive.
struct Burials {
    grave: Pile,
    /// Sockets that the last collection has found, to be emptied.
    garbage: Pile,
    /// A socket has gone since the last collection began.
    orphans: bool,
    at_work: bool,
}

static BURIALS: SpinLock<Burials> =
    SpinLock::new(Burials { grave: Pile(None), garbage: Pile(None), orphans: false, at_work: false });
/// There is something for the task.
static WANTED: Notify = Notify::new();

/// What is to be done next, outside the lock.
enum Duty {
    Drop(Box<Parcel>),
    Empty(Box<Parcel>),
    Collect,
}

/// How a part of the work has ended.
#[derive(PartialEq, Eq)]
enum Part {
    /// There is nothing left; or somebody else is at it, who sees to what is left.
    Done,
    More,
    /// That was much, and there may be more, but not at once.
    Collected,
}

impl Burials {
    /// The next duty of the one at work. One collection after a burial does for all sockets that have gone in it.
    fn next(&mut self, collects: bool) -> Option<Duty> {
        if let Some(parcel) = self.grave.take() {
            // It may have been the last that led to a cycle.
            self.orphans |= parcel.has_sockets;
            return Some(Duty::Drop(parcel));
        }
        if let Some(parcel) = self.garbage.take() {
            return Some(Duty::Empty(parcel));
        }
        if SOCKETS.load(Ordering::Relaxed) == 0 {
            self.orphans = false;
        }
        (collects && core::mem::take(&mut self.orphans)).then_some(Duty::Collect)
    }

    fn has_work(&self) -> bool {
        self.grave.0.is_some() || self.garbage.0.is_some() || self.orphans
    }
}

fn want_collection() {
    BURIALS.lock().orphans = true;
    WANTED.notify();
}

/// Empties the queues of sockets that only garbage leads to. To be called without locks, whenever a socket is gone.
pub fn collect() {
    if SOCKETS.load(Ordering::Relaxed) == 0 {
        return;
    }
    BURIALS.lock().orphans = true;
    work_a_little();
}

/// Programs see the effect, so what is little is done at once.
fn work_a_little() {
    if work(AT_ONCE) != Part::Done {
        WANTED.notify();
    }
}

/// Does a part of what is to be done, if nobody else is at it; collects if not more than `most` must be looked at.
fn work(most: usize) -> Part {
    if core::mem::replace(&mut BURIALS.lock().at_work, true) {
        return Part::Done;
    }
    let (mut done, mut collected) = (0, false);
    while done < AT_ONCE && !collected {
        let weight = WEIGHT.load(Ordering::Relaxed);
        // Not in the loop's condition, which would hold the lock.
        let duty = BURIALS.lock().next(weight <= most);
        match duty {
            Some(Duty::Drop(parcel)) => done += parcel.let_go(),
            Some(Duty::Empty(parcel)) => done += parcel.empty(),
            Some(Duty::Collect) => {
                find_garbage();
                collected = weight > AT_ONCE;
                done += 1 + weight;
            }
            None => break,
        }
    }
    let mut burials = BURIALS.lock();
    burials.at_work = false;
    match burials.has_work() {
        _ if collected => Part::Collected,
        true => Part::More,
        false => Part::Done,
    }
}

/// The kernel task that does what is too much for those who close sockets.
pub async fn run() {
    loop {
        match work(usize::MAX) {
            Part::Done => WANTED.wait().await,
            Part::More => budget().await,
            Part::Collected => {
                // What the collection has found goes first.
                while work(0) == Part::More && has_garbage() {
                    budget().await;
                }
                sleep_until(Instant::now().saturating_add(PAUSE)).await;
            }
        }
    }
}

fn has_garbage() -> bool {
    BURIALS.lock().garbage.0.is_some()
}

/// Waits until there is nothing left: tests run side by side.
#[cfg(test)]
pub fn settle() {
    collect();
    loop {
        work(usize::MAX);
        let burials = BURIALS.lock();
        if !burials.at_work && !burials.has_work() {
            return;
        }
        drop(burials);
        std::thread::yield_now();
    }
}

/// How many files are on an account.
#[cfg(test)]
pub fn on_account(uid: u32) -> usize {
    ACCOUNTS.lock().get(&uid).copied().unwrap_or(0)
}

/// A collection: leaves what is unreachable in the list of garbage.
fn find_garbage() {
    let mut in_flight = IN_FLIGHT.lock();
    // References that are taken here are dropped after the lock: each may be the last by then.
    let mut reached = Pile(None);
    let mut candidates = BTreeMap::new();
    for (address, flying) in &in_flight.held {
        let Some(file) = flying.file.upgrade() else { continue };
        // One reference is ours.
        if Arc::strong_count(&file) - 1 > flying.messages {
            reached.add_file(file);
        } else {
            candidates.insert(*address, file);
        }
    }
    in_flight.holders.retain(|_, holder| holder.strong_count() > 0);
    in_flight.tell();
    // By their owners; no list here has to be in one piece, as there may be very many.
    let mut holders: BTreeMap<(usize, usize), Arc<UnixSocket>> = BTreeMap::new();
    for holder in in_flight.holders.values().filter_map(Weak::upgrade) {
        holders.insert((holder.owner(), Arc::as_ptr(&holder).addr()), holder);
    }
    // Each owner gets in here once: at the start, or when it stops being a candidate.
    let mut reachable = BTreeSet::new();
    // Not collected, which would make a list of them first.
    for (owner, _) in holders.keys().filter(|(owner, _)| !candidates.contains_key(owner)) {
        reachable.insert(*owner);
    }
    while let Some(owner) = reachable.pop_first() {
        for (_, holder) in holders.range((owner, 0)..=(owner, usize::MAX)) {
            holder.for_each_right(&mut |rights| {
                for (address, _) in rights.sockets() {
                    if let Some(file) = candidates.remove(&address) {
                        reached.add_file(file);
                        reachable.insert(address);
                    }
                }
            });
        }
    }
    drop(in_flight);
    let mut garbage = Pile(None);
    candidates.into_values().for_each(|file| garbage.add_file(file));
    let mut burials = BURIALS.lock();
    burials.grave.add_all(reached);
    burials.garbage.add_all(garbage);
}
