//! Signal-driven I/O: O_ASYNC, and whom the signals of a file are for (fcntl(2), "Managing signals").
//!
//! A file with O_ASYNC has entries of its own in the wait queue of what it stands for, one for each kind of news. They
//! listen to bits above those of poll ([`IN`] and the others), which who has such news adds to its wake. So files without
//! O_ASYNC cost nothing. Wakers run without locks, which sending signals needs.

use alloc::sync::{Arc, Weak};
use alloc::task::Wake;

use linux_raw_sys::general as raw;
use smallvec::SmallVec;

use super::open_file::OpenFile;
use crate::errno::{Errno, Result};
use crate::exec::{WaitEntry, WaitQueue};
use crate::process::{Credentials, Pid, Process, Session, Task, Thread, table};
use crate::signal::{self, SigInfo};
use crate::sync::SpinLock;

/// There is something to read.
pub const IN: u32 = 1 << 17;
/// Something can be written.
pub const OUT: u32 = 1 << 18;
/// An error came.
pub const ERR: u32 = 1 << 19;
/// The other side hung up.
pub const HUP: u32 = 1 << 20;
/// Something urgent came.
pub const URG: u32 = 1 << 21;
/// Wakes everybody, and sends no signal.
pub const QUIET: u32 = !(IN | OUT | ERR | HUP | URG);

/// POLL_* of sigaction(2) and the events of poll that go with it.
fn record(news: u32) -> (i32, u32) {
    match news {
        IN => (1, raw::POLLIN | raw::POLLRDNORM),
        OUT => (2, raw::POLLOUT | raw::POLLWRNORM | raw::POLLWRBAND),
        ERR => (4, raw::POLLERR),
        URG => (5, raw::POLLPRI | raw::POLLRDBAND),
        _ => (6, raw::POLLHUP | raw::POLLERR),
    }
}

/// F_OWNER_* of fcntl(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnerKind {
    Thread = 0,
    Process = 1,
    Group = 2,
}

impl OwnerKind {
    pub fn from_raw(kind: i32) -> Option<OwnerKind> {
        [OwnerKind::Thread, OwnerKind::Process, OwnerKind::Group].into_iter().find(|known| *known as i32 == kind)
    }
}

/// Those whom an id meant when it was given: it may come to mean others.
#[derive(Clone)]
enum Target {
    Nobody,
    Thread(Weak<Task>),
    Process(Weak<Process>),
    /// The process of a thread that is not its first: it gets signals, but F_GETOWN does not find it.
    ProcessOf(Weak<Task>),
    Group(Pid, Weak<Session>),
}

impl Target {
    /// ESRCH if nobody has that id, as whatever.
    fn find(kind: OwnerKind, id: Pid) -> Result<Target> {
        let table = table::lock();
        let target = match kind {
            OwnerKind::Group => table.group(id).next().map(|member| {
                let session = Arc::downgrade(&member.session.read());
                Target::Group(id, session)
            }),
            OwnerKind::Thread => table.task(id).map(|task| Target::Thread(Arc::downgrade(task))),
            OwnerKind::Process => table.process(id).map(|process| Target::Process(Arc::downgrade(process))),
        };
        let by_thread = || match kind {
            OwnerKind::Process => table.task(id).map(|task| Target::ProcessOf(Arc::downgrade(task))),
            _ => None,
        };
        let as_another = || table.is_taken(id).then_some(Target::Nobody);
        target.or_else(by_thread).or_else(as_another).ok_or(Errno::ESRCH)
    }

    /// The id, as long as it means the same; else 0.
    fn id(&self) -> Pid {
        let table = table::lock();
        match self {
            Target::Nobody | Target::ProcessOf(_) => 0,
            Target::Thread(task) => {
                let task = task.upgrade();
                task.map_or(0, |task| {
                    table.task(task.tid()).filter(|now| Arc::ptr_eq(now, &task)).map_or(0, |_| task.tid())
                })
            }
            Target::Process(process) => {
                let process = process.upgrade();
                let lives =
                    |process: &Arc<Process>| table.process(process.pid).is_some_and(|now| Arc::ptr_eq(now, process));
                process.filter(lives).map_or(0, |process| process.pid)
            }
            Target::Group(id, session) => {
                // All of a group are of one session.
                let lives = table.group(*id).next().is_some_and(|member| is_session(member, session));
                if lives { *id } else { 0 }
            }
        }
    }

    /// Calls `tell` for each process, with the thread if it is for one.
    fn each(&self, tell: impl Fn(&Arc<Process>, Option<&Arc<Task>>)) {
        match self {
            Target::Nobody => {}
            Target::Thread(task) => {
                if let Some(task) = task.upgrade() {
                    tell(task.process(), Some(&task));
                }
            }
            Target::Process(process) => {
                if let Some(process) = process.upgrade() {
                    tell(&process, None);
                }
            }
            Target::ProcessOf(task) => {
                if let Some(task) = task.upgrade() {
                    tell(task.process(), None);
                }
            }
            Target::Group(id, session) => {
                table::members(*id).filter(|member| is_session(member, session)).for_each(|member| tell(&member, None));
            }
        }
    }
}

fn is_session(process: &Process, session: &Weak<Session>) -> bool {
    core::ptr::eq(Arc::as_ptr(&process.session.read()), session.as_ptr())
}

#[derive(Clone)]
struct State {
    kind: OwnerKind,
    target: Target,
    /// Of who named the owner.
    uid: u32,
    euid: u32,
    /// F_SETSIG; 0 is a SIGIO that says nothing.
    signal: u8,
}

/// Whom the signals of an open file are for.
pub struct Owner(SpinLock<State>);

impl Owner {
    fn new() -> Self {
        Owner(SpinLock::new(State { kind: OwnerKind::Thread, target: Target::Nobody, uid: 0, euid: 0, signal: 0 }))
    }

    /// F_SETOWN, F_SETOWN_EX; id 0 is nobody.
    pub fn set(&self, creds: &Credentials, kind: OwnerKind, id: i32) -> Result<()> {
        let id = Pid::try_from(id).map_err(|_| Errno::ESRCH)?;
        let target = if id == 0 { Target::Nobody } else { Target::find(kind, id)? };
        let mut state = self.0.lock();
        if id != 0 {
            (state.uid, state.euid) = (creds.uid, creds.euid);
        }
        state.kind = kind;
        let old = core::mem::replace(&mut state.target, target);
        drop(state);
        drop(old);
        Ok(())
    }

    /// F_GETOWN_EX.
    pub fn get(&self) -> (OwnerKind, i32) {
        let state = self.0.lock().clone();
        (state.kind, state.target.id() as i32)
    }

    /// F_GETOWNER_UIDS.
    pub fn uids(&self) -> [u32; 2] {
        let state = self.0.lock();
        [state.uid, state.euid]
    }

    pub fn signal(&self) -> u8 {
        self.0.lock().signal
    }

    pub fn set_signal(&self, signal: u8) {
        self.0.lock().signal = signal;
    }

    fn is_nobody(&self) -> bool {
        matches!(self.0.lock().target, Target::Nobody)
    }

    /// Sends SIGURG, O_ASYNC or not. False if there is no owner.
    pub fn urge(&self) -> bool {
        let state = self.0.lock().clone();
        state.target.each(|process, task| {
            if state.may_reach(process, task) {
                let _ = send(process, task, SigInfo::kernel(raw::SIGURG as u8));
            }
        });
        !matches!(state.target, Target::Nobody)
    }

    /// Sends the signal for some news about descriptor `fd`.
    fn tell(&self, fd: i32, news: u32) {
        let state = self.0.lock().clone();
        if news == URG && state.signal == 0 {
            // SIGURG has said it.
            return;
        }
        let (code, band) = record(news);
        state.target.each(|process, task| {
            if !state.may_reach(process, task) {
                return;
            }
            // One that finds no room in a queue becomes a plain SIGIO, so that the program learns of it.
            let told = state.signal != 0 && send(process, task, SigInfo::io(state.signal, code, band, fd)).is_ok();
            if !told {
                let _ = send(process, task, SigInfo::kernel(raw::SIGIO as u8));
            }
        });
    }
}

fn send(process: &Arc<Process>, task: Option<&Arc<Task>>, info: SigInfo) -> Result<()> {
    match task {
        Some(task) => signal::send_to_task(task, info),
        None => signal::send_to_process(process, info),
    }
}

impl State {
    fn may_reach(&self, process: &Process, task: Option<&Arc<Task>>) -> bool {
        let creds = task.map(|task| task.shared_creds()).or_else(|| process.creds());
        creds.is_some_and(|creds| self.may_signal(&creds))
    }

    fn may_signal(&self, theirs: &Credentials) -> bool {
        self.euid == 0 || [self.uid, self.euid].iter().any(|uid| *uid == theirs.uid || *uid == theirs.suid)
    }
}

/// What an open file has of all this, once it is used.
pub struct Signals {
    owner: Arc<Owner>,
    /// In the wait queue, while O_ASYNC is on.
    entries: SpinLock<SmallVec<[Arc<WaitEntry>; 5]>>,
}

impl Signals {
    pub(super) fn new() -> Self {
        Signals { owner: Arc::new(Owner::new()), entries: SpinLock::new(SmallVec::new()) }
    }

    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    pub(super) fn shared_owner(&self) -> &Arc<Owner> {
        &self.owner
    }

    /// The file goes away.
    pub(super) fn leave(&mut self, queue: Option<&WaitQueue>) {
        let entries = core::mem::take(self.entries.get_mut());
        if let Some(queue) = queue {
            for entry in &entries {
                queue.remove(entry);
            }
        }
    }
}

/// Tells the owner of one kind of news.
struct Bell {
    owner: Arc<Owner>,
    fd: i32,
    news: u32,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.owner.tell(self.fd, self.news);
    }
}

/// Switches O_ASYNC, if it is not so already. `fd`: what the signals will say. ENOTTY if the file has nothing to tell.
pub fn switch(t: &Thread, file: &OpenFile, fd: i32, on: bool) -> Result<()> {
    if (file.flags() & raw::FASYNC != 0) == on {
        return Ok(());
    }
    let ops = file.ops().filter(|ops| !on || ops.news() != 0).ok_or(Errno::ENOTTY)?;
    let queue = ops.wait_queue().ok_or(Errno::ENOTTY)?;
    let signals = file.signals();
    let mut entries = signals.entries.lock();
    if !on && entries.is_empty() {
        // open(2) has set the flag, which has no effect; as on Linux it then stays.
        return Ok(());
    }
    file.set_async(on);
    for entry in core::mem::take(&mut *entries) {
        queue.remove(&entry);
    }
    if !on {
        return Ok(());
    }
    for news in [IN, OUT, ERR, HUP, URG].into_iter().filter(|news| ops.news() & news != 0) {
        let bell = Arc::new(Bell { owner: signals.owner.clone(), fd, news });
        let entry = WaitEntry::new(bell.into(), news);
        queue.add(&entry);
        entries.push(entry);
    }
    drop(entries);
    ops.told();
    // A terminal's news are for its foreground, unless somebody has said otherwise.
    if let Some(group) = ops.foreground().filter(|_| signals.owner.is_nobody()) {
        let (kind, id) = if group == 0 { (OwnerKind::Process, t.process().pid) } else { (OwnerKind::Group, group) };
        let _ = signals.owner.set(t.creds(), kind, id as i32);
    }
    Ok(())
}
