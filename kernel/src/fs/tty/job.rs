//! Job control: sessions, their controlling terminal, and foreground groups (credentials(7), tcsetpgrp(3)).
//!
//! A session points to its terminal (`Session::tty`) and the terminal to its session; both change only here, the
//! terminal's lock taken first.

use alloc::sync::{Arc, Weak};
use core::any::Any;
use core::sync::atomic::Ordering;
use linux_raw_sys::general as raw;

use super::terminal::Tty;
use crate::errno::{Errno, Result};
use crate::exec;
use crate::process::{self, Caps, Pid, Process, Reach, Session, Thread, Whom};
use crate::signal::{self, SigInfo};

/// What job control says to a process that wants to use a terminal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Go,
    /// EIO: stopping an orphaned group would stop it for ever.
    Refuse,
    /// The group was sent this signal, which will stop or kill it, or run a handler.
    Signalled,
}

/// A group that a terminal signals. A number alone would not do: once the group has gone it may come to name another one, in a
/// session that has nothing to do with this terminal.
#[derive(Clone)]
pub struct Group {
    pub session: Arc<Session>,
    pub pgid: Pid,
}

impl Group {
    /// Sends a signal to every process of the group. A group that has gone needs none.
    pub fn signal(&self, signal: u32) {
        let reach = Reach::Session(self.session.clone());
        let _ = process::signal_many(Whom::Group(self.pgid), &reach, SigInfo::kernel(signal as u8));
    }
}

fn signal_process(process: &Arc<Process>, signal: u32) {
    let _ = signal::send_to_process(process, SigInfo::kernel(signal as u8));
}

/// The controlling terminal of a process.
pub fn controlling_tty(process: &Process) -> Option<Arc<Tty>> {
    let tty = process.session.read().tty.lock().clone()?;
    tty.downcast::<Tty>().ok()
}

pub fn is_controlling(process: &Process, tty: &Arc<Tty>) -> bool {
    controlling_tty(process).is_some_and(|own| Arc::ptr_eq(&own, tty))
}

fn is_leader(process: &Process) -> bool {
    process.session.read().sid == process.pid
}

/// May `thread` read (SIGTTIN) or change (SIGTTOU) its terminal? Only the foreground group may, of those that have
/// it as controlling terminal.
pub fn check(thread: &Thread, tty: &Arc<Tty>, signal: u32) -> Verdict {
    let process = thread.process();
    if !is_controlling(process, tty) {
        return Verdict::Go;
    }
    let group = process.pgid.load(Ordering::Relaxed);
    let foreground = tty.lock().foreground;
    if foreground == 0 || foreground == group {
        return Verdict::Go;
    }
    let signo = signal as u8;
    if thread.sig.blocked().contains(signo) || process.handlers.read().is_set_to_ignore(signo) {
        return if signal == raw::SIGTTIN { Verdict::Refuse } else { Verdict::Go };
    }
    if process::table::lock().is_orphaned_group(group) {
        return Verdict::Refuse;
    }
    let _ = signal::send_to_group(group, SigInfo::kernel(signo));
    Verdict::Signalled
}

/// Like [`check`], for use in futures that are awaited interruptibly: the signal ends the call. If it does not reach this thread,
/// because another one handles it or a SIGCONT has cancelled it, the question is asked again, as by Linux.
pub async fn admit(thread: &Thread, tty: &Arc<Tty>, signal: u32) -> Result<()> {
    loop {
        match check(thread, tty, signal) {
            Verdict::Go => return Ok(()),
            Verdict::Refuse => return Err(Errno::EIO),
            Verdict::Signalled => exec::yield_now().await,
        }
    }
}

/// Ties terminal and session together; the caller's group comes to the foreground. False if another session was faster,
/// or another thread of the leader with another terminal.
fn attach(process: &Process, tty: &Arc<Tty>) -> bool {
    let session = process.session.read().clone();
    let mut state = tty.lock();
    let mut slot = session.tty.lock();
    if state.session.strong_count() != 0 || slot.as_ref().is_some_and(|any| (**any).is::<Tty>()) {
        return false;
    }
    state.session = Arc::downgrade(&session);
    state.foreground = process.pgid.load(Ordering::Relaxed);
    let any: Arc<dyn Any + Send + Sync> = tty.clone();
    let former = slot.replace(any);
    drop(slot);
    drop(state);
    drop(former);
    true
}

/// A session loses its terminal, and the terminal its session.
fn detach(session: &Session) {
    let Some(any) = session.tty.lock().take() else { return };
    let Ok(tty) = any.downcast::<Tty>() else { return };
    let mut state = tty.lock();
    if core::ptr::eq(state.session.as_ptr(), session) {
        state.session = Weak::new();
        state.foreground = 0;
    }
}

/// open(2) without O_NOCTTY by a session leader that has no terminal takes one that is free.
pub fn acquire_on_open(thread: &Thread, tty: &Arc<Tty>) {
    let process = thread.process();
    if is_leader(process) && controlling_tty(process).is_none() && tty.session().is_none() {
        attach(process, tty);
    }
}

/// TIOCSCTTY; `force` is its argument 1, `readable` says that the file is open for reading.
pub fn set_controlling(thread: &Thread, tty: &Arc<Tty>, force: bool, readable: bool) -> Result<()> {
    let process = thread.process();
    let owner = tty.session();
    if is_leader(process) && owner.as_ref().is_some_and(|session| session.sid == process.pid) {
        return Ok(());
    }
    if !is_leader(process) || controlling_tty(process).is_some() {
        return Err(Errno::EPERM);
    }
    let admin = thread.creds().capable(Caps::SYS_ADMIN);
    if let Some(owner) = owner {
        if !(force && admin) {
            return Err(Errno::EPERM);
        }
        detach(&owner);
    }
    if !readable && !admin {
        return Err(Errno::EPERM);
    }
    if attach(process, tty) { Ok(()) } else { Err(Errno::EPERM) }
}

/// TIOCNOTTY: a leader gives the terminal up for its whole session. (Members share the leader's terminal: they can not
/// leave it on their own, setsid(2) is the way.)
pub fn give_up(thread: &Thread, tty: &Arc<Tty>) -> Result<()> {
    let process = thread.process();
    if !is_controlling(process, tty) {
        return Err(Errno::ENOTTY);
    }
    if !is_leader(process) {
        return Err(Errno::EPERM);
    }
    let foreground = tty.lock().foreground_group();
    detach(&process.session.read().clone());
    if let Some(foreground) = foreground {
        foreground.signal(raw::SIGHUP);
        foreground.signal(raw::SIGCONT);
    }
    Ok(())
}

/// What a session that lost its terminal by a hang-up remembers in its slot: the group that was in the foreground, which
/// is told when the leader ends, too.
struct FormerForeground(Pid);

/// The terminal went away (vhangup(2), the end of a pty's master). The leader is told, and what it does about its jobs
/// is its affair.
pub fn hang_up(tty: &Tty) {
    let (session, foreground) = tty.hang_up();
    let Some(session) = session else { return };
    let former = session.tty.lock().replace(Arc::new(FormerForeground(foreground)));
    drop(former);
    if let Some(leader) = process::find(session.sid) {
        signal_process(&leader, raw::SIGHUP);
        signal_process(&leader, raw::SIGCONT);
    }
}

/// vhangup(2).
pub fn hang_up_controlling(process: &Process) {
    if let Some(tty) = controlling_tty(process) {
        hang_up(&tty);
    }
}

/// A session leader ends (disassociate_ctty): the foreground group is told, and the terminal is free for the next session. A
/// line is hung up; a pty's master goes on reading what others still write.
pub fn session_leader_exit(process: &Arc<Process>) {
    let session = process.session.read().clone();
    if let Some(tty) = controlling_tty(process) {
        let foreground = tty.lock().foreground_group();
        detach(&session);
        if !tty.driver().is_pty() {
            tty.hang_up();
        }
        if let Some(foreground) = foreground {
            foreground.signal(raw::SIGHUP);
        }
        return;
    }
    let former = session.tty.lock().take();
    if let Some(FormerForeground(pgid)) = former.as_ref().and_then(|any| any.downcast_ref()) {
        let group = Group { session, pgid: *pgid };
        group.signal(raw::SIGHUP);
        group.signal(raw::SIGCONT);
    }
}

/// TIOCGPGRP: the foreground group, 0 if there is none.
pub fn foreground(thread: &Thread, tty: &Arc<Tty>, is_master: bool) -> Result<Pid> {
    if !is_master && !is_controlling(thread.process(), tty) {
        return Err(Errno::ENOTTY);
    }
    Ok(tty.lock().foreground)
}

/// TIOCSPGRP; job control has been asked.
pub fn set_foreground(thread: &Thread, tty: &Arc<Tty>, pgid: i32) -> Result<()> {
    let process = thread.process();
    let session = process.session.read().clone();
    if !is_controlling(process, tty) {
        return Err(Errno::ENOTTY);
    }
    let pgid = Pid::try_from(pgid).map_err(|_| Errno::EINVAL)?;
    let table = process::table::lock();
    // Linux looks for an id first, and for a group of that id only then.
    let member = table.group(pgid).next().or_else(|| table.process(pgid)).ok_or(Errno::ESRCH)?;
    if member.session.read().sid != session.sid {
        return Err(Errno::EPERM);
    }
    drop(table);
    tty.lock().foreground = pgid;
    Ok(())
}

/// TIOCGSID.
pub fn session_id(thread: &Thread, tty: &Arc<Tty>, is_master: bool) -> Result<Pid> {
    if !is_master && !is_controlling(thread.process(), tty) {
        return Err(Errno::ENOTTY);
    }
    tty.session().map(|session| session.sid).ok_or(Errno::ENOTTY)
}
