//! [`Tty`]: a terminal, whatever is behind it: the line discipline, the session that it controls, who waits for it.

mod settings;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use linux_raw_sys::general as raw;

use super::discipline::{Discipline, Effects};
use super::job;
use super::output::MAX_EXPANSION;
use super::termios::{Termios, WinSize};
use crate::arch::UserFault;
use crate::errno::Result;
use crate::exec::WaitQueue;
use crate::fs::file::{Events, TryError};
use crate::fs::inode::DeviceId;
use crate::fs::sigio;
use crate::mm::IoBuf;
use crate::process::{Pid, Session};
use crate::sync::{SpinGuard, SpinLock};

/// Echo that the driver does not take yet is kept up to this length; then it is lost, as on Linux.
const ECHO_LIMIT: usize = 4096;
/// Bytes of input processed, and of output copied from user memory, under one hold of the lock.
const CHUNK: usize = 256;
/// Signals that one call of `receive` sends at most.
const SIGNAL_LIMIT: usize = 16;
/// Echo that one call of `receive` makes, about: one byte may have a whole line shown again.
const MAX_ECHO: usize = 8 * ECHO_LIMIT;
/// A write call goes around the loop of `OpenFile` (and its budget) at least this often, in bytes.
const WRITE_LIMIT: usize = 4096;

/// What is behind a terminal.
pub trait TtyDriver: Send + Sync {
    /// Takes what fits; answers how much. Called under the terminal's lock: must not call back, and must wake nobody, for with
    /// a wake may end the last reference to a file of this very terminal.
    fn write(&self, bytes: &[u8]) -> usize;
    /// How much `write` would take now.
    fn room(&self) -> usize {
        usize::MAX
    }
    /// Taken but not yet transmitted (TIOCOUTQ).
    fn pending(&self) -> usize {
        0
    }
    /// Drops what is pending.
    fn flush_output(&self) {}
    /// There is room for input again.
    fn input_wanted(&self) {}
    /// The last open file of the terminal was closed, or the first one opened. Under the terminal's lock, like `write`.
    fn opened(&self, _is_open: bool) {}
    /// The terminal's lock was given back: wakes those whom `write` and `opened` concern.
    fn settled(&self) {}
    /// Something that packet mode tells of: TIOCPKT_* bits. Under the terminal's lock, like `write`.
    fn note(&self, _status: u32) {}
    /// There is no other side any more.
    fn is_gone(&self) -> bool {
        false
    }
    /// Behind it is a file, not a line.
    fn is_pty(&self) -> bool {
        false
    }
    /// The modem lines as TIOCMGET gives them, if there are any.
    fn modem_lines(&self) -> Option<u32> {
        None
    }
    /// A change of settings that the device must not or cannot follow is undone here.
    fn adjust(&self, _termios: &mut Termios) {}
}

pub struct Tty {
    id: DeviceId,
    name: String,
    driver: Box<dyn TtyDriver>,
    state: SpinLock<State>,
    /// Readers, writers and pollers, by poll events.
    queue: WaitQueue,
}

/// Everything that changes. The lock is held for short stretches, never while signals are sent.
pub struct State {
    pub discipline: Discipline,
    /// Echo that the driver could not take yet; it goes out before anything else.
    echo: VecDeque<u8>,
    pub winsize: WinSize,
    /// The session it is the controlling terminal of.
    pub session: Weak<Session>,
    /// The foreground process group; 0 = none.
    pub foreground: Pid,
    /// TIOCEXCL.
    pub exclusive: bool,
    /// A writer has turned away for want of room.
    lacked_room: bool,
    /// What `note` was last told of stopped output.
    told_stopped: bool,
    /// Counts hang-ups: files opened before the last one are dead.
    generation: u32,
    opens: usize,
}

impl State {
    pub fn foreground_group(&self) -> Option<job::Group> {
        let session = self.session.upgrade()?;
        (self.foreground != 0).then_some(job::Group { session, pgid: self.foreground })
    }
}

impl Tty {
    pub fn new(id: DeviceId, name: String, driver: Box<dyn TtyDriver>, termios: Termios) -> Arc<Tty> {
        Arc::new(Tty {
            id,
            name,
            driver,
            state: SpinLock::new(State {
                discipline: Discipline::new(termios),
                echo: VecDeque::new(),
                winsize: WinSize::default(),
                session: Weak::new(),
                foreground: 0,
                exclusive: false,
                lacked_room: false,
                told_stopped: false,
                generation: 0,
                opens: 0,
            }),
            queue: WaitQueue::new(),
        })
    }

    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// "ttyAMA0", "pts/0".
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn driver(&self) -> &dyn TtyDriver {
        &*self.driver
    }

    pub fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    pub fn lock(&self) -> SpinGuard<'_, State> {
        self.state.lock()
    }

    /// The session it controls.
    pub fn session(&self) -> Option<Arc<Session>> {
        self.lock().session.upgrade()
    }

    fn wake(&self, events: Events) {
        self.queue.wake(usize::MAX, events.bits());
    }

    // ---- Opening and closing ----

    /// One more open file; answers the generation that it belongs to.
    pub fn open(&self) -> u32 {
        let mut state = self.lock();
        state.opens += 1;
        if state.opens == 1 {
            self.driver.opened(true);
        }
        let generation = state.generation;
        drop(state);
        self.driver.settled();
        generation
    }

    pub fn close(&self) {
        let mut state = self.lock();
        state.opens = state.opens.saturating_sub(1);
        if state.opens == 0 {
            state.exclusive = false;
            state.discipline.go_on();
            state.told_stopped = false;
            state.discipline.flush_input();
            self.driver.opened(false);
            drop(state);
            self.driver.settled();
            self.driver.input_wanted();
        }
    }

    /// The files of `generation` were hung up.
    pub fn hung_up(&self, generation: u32) -> bool {
        self.lock().generation != generation
    }

    /// Every open file becomes dead and the session loses its terminal. Answers that session and the foreground
    /// group, for the signals.
    pub fn hang_up(&self) -> (Option<Arc<Session>>, Pid) {
        let mut state = self.lock();
        state.generation = state.generation.wrapping_add(1);
        state.discipline.flush_input();
        state.discipline.go_on();
        state.told_stopped = false;
        state.echo.clear();
        self.driver.note(raw::TIOCPKT_FLUSHREAD | raw::TIOCPKT_FLUSHWRITE);
        let session = core::mem::take(&mut state.session).upgrade();
        let foreground = core::mem::take(&mut state.foreground);
        drop(state);
        self.driver.settled();
        self.wake(Events::all());
        self.driver.input_wanted();
        (session, foreground)
    }

    // ---- Input ----

    /// Processes received bytes as long as there is room for them, and up to a number of signals, each of which goes to all
    /// processes of a group, and of bytes to echo. Answers how many it took. Echo goes out when all have been
    /// looked at: a signal among them drops what was to be echoed before it.
    pub fn receive(&self, mut next: impl FnMut() -> Option<u8>) -> usize {
        let mut total = 0;
        let (mut signals, mut echoed) = (0, 0);
        loop {
            let mut fx = Effects::default();
            let mut state = self.lock();
            let mut taken = 0;
            // The effects of a signal and of flow control come before those of the bytes after it.
            while taken < CHUNK
                && fx.echo.len() < ECHO_LIMIT
                && fx.signal.is_none()
                && fx.stop.is_none()
                && state.discipline.has_room()
            {
                let Some(byte) = next() else { break };
                state.discipline.receive(byte, &mut fx);
                taken += 1;
            }
            total += taken;
            if fx.flush_output {
                state.echo.clear();
                self.driver.flush_output();
                self.driver.note(raw::TIOCPKT_FLUSHREAD | raw::TIOCPKT_FLUSHWRITE);
            }
            self.note_flow(&mut state);
            let room = ECHO_LIMIT - state.echo.len().min(ECHO_LIMIT);
            state.echo.extend(fx.echo.iter().take(room));
            signals += usize::from(fx.signal.is_some());
            echoed += fx.echo.len();
            let enough = signals == SIGNAL_LIMIT || echoed >= MAX_ECHO;
            let full = taken == CHUNK || fx.echo.len() >= ECHO_LIMIT;
            if taken == 0 || full || fx.stop == Some(false) || enough {
                self.drain_echo(&mut state);
            }
            let foreground = fx.signal.and_then(|_| state.foreground_group());
            drop(state);
            self.driver.settled();
            if taken == 0 {
                return total;
            }
            self.after_input(&fx, foreground);
            if enough {
                return total;
            }
        }
    }

    /// Output was stopped, or goes on.
    fn note_flow(&self, state: &mut State) {
        let stopped = state.discipline.stopped;
        if core::mem::replace(&mut state.told_stopped, stopped) != stopped {
            self.driver.note(if stopped { raw::TIOCPKT_STOP } else { raw::TIOCPKT_START });
        }
    }

    fn after_input(&self, fx: &Effects, foreground: Option<job::Group>) {
        let mut events = Events::empty();
        if fx.readable {
            events |= Events::IN | Events::RDNORM;
        }
        if fx.stop == Some(false) || fx.flush_output {
            events |= Events::OUT | Events::WRNORM;
        }
        if !events.is_empty() {
            self.wake(events);
        }
        // As on Linux there is a signal for each line, or for what came at once in raw mode.
        for _ in 0..fx.lines.max(usize::from(fx.readable)) {
            self.queue.wake(usize::MAX, sigio::IN);
        }
        if let (Some(signal), Some(group)) = (fx.signal, foreground) {
            group.signal(signal);
        }
    }

    /// Sends echo, after what waits already.
    fn put_echo(&self, state: &mut State, echo: &[u8]) {
        let room = ECHO_LIMIT - state.echo.len().min(ECHO_LIMIT);
        state.echo.extend(echo.iter().take(room));
        self.drain_echo(state);
    }

    fn drain_echo(&self, state: &mut State) {
        while !state.discipline.stopped && !state.echo.is_empty() {
            let sent = self.driver.write(state.echo.as_slices().0);
            state.echo.drain(..sent);
            if sent == 0 {
                break;
            }
        }
        if state.echo.is_empty() {
            state.discipline.echo_sent();
        }
    }

    /// The driver has room for output again.
    pub fn output_wanted(&self) {
        let mut state = self.lock();
        self.drain_echo(&mut state);
        let lacked = core::mem::take(&mut state.lacked_room);
        drop(state);
        self.driver.settled();
        let events = (Events::OUT | Events::WRNORM).bits();
        self.queue.wake(usize::MAX, if lacked { events | sigio::OUT } else { events });
    }

    /// A write that does not wait was cut short: there will be a signal when there is room.
    pub fn lacks_room(&self) {
        self.lock().lacked_room = true;
    }

    /// How many bytes a read must find before it goes ahead, and whether it may answer nothing at once.
    fn read_minimum(termios: &Termios, wanted: usize, nonblocking: bool) -> (usize, bool) {
        let canonical = termios.local(raw::ICANON);
        let (min, time) = (termios.min(), termios.time_tenths());
        let poll_only = !canonical && min == 0 && time == 0;
        let minimum = if canonical || nonblocking || time > 0 { 1 } else { min.min(wanted).max(1) };
        (minimum, poll_only)
    }

    /// One attempt of read(2).
    pub fn try_read(&self, buf: &mut IoBuf<'_>, nonblocking: bool) -> Result<usize, TryError> {
        let mut state = self.lock();
        let (minimum, poll_only) = Self::read_minimum(state.discipline.termios(), buf.remaining(), nonblocking);
        if buf.is_empty() || (poll_only && !state.discipline.readable(1)) {
            return Ok(0);
        }
        if !state.discipline.readable(minimum) {
            return Err(TryError::WouldBlock);
        }
        if state.discipline.take_typed_end() {
            return Ok(0);
        }
        let mut total = 0;
        let mut echo = Vec::new();
        loop {
            let mut chunk = [0; CHUNK];
            let room = buf.remaining().min(CHUNK);
            let peeked = state.discipline.peek(&mut chunk[..room]);
            let copied = match copy_whole(buf, &chunk[..peeked]) {
                Ok(copied) => copied,
                Err(fault) if total == 0 => return Err(fault.into()),
                Err(_) => break,
            };
            total += copied;
            // Nothing peeked: an end of file stands first, and `consume` takes it.
            let ended = if peeked == 0 || copied > 0 { state.discipline.consume(copied, &mut echo) } else { true };
            if ended || copied < peeked || peeked == 0 || buf.is_empty() || !state.discipline.readable(1) {
                break;
            }
        }
        self.put_echo(&mut state, &echo);
        drop(state);
        self.driver.settled();
        self.driver.input_wanted();
        Ok(total)
    }

    // ---- Output ----

    /// One attempt of write(2).
    pub fn try_write(&self, buf: &mut IoBuf<'_>) -> Result<usize, TryError> {
        let mut total = 0;
        while !buf.is_empty() && total < WRITE_LIMIT {
            let mut chunk = [0; CHUNK];
            let copied = match buf.copy_from(&mut chunk) {
                Ok(copied) => copied,
                Err(fault) if total == 0 => return Err(fault.into()),
                Err(_) => break,
            };
            let written = self.write_chunk(&chunk[..copied]);
            total += written;
            if written < copied {
                buf.rewind(copied - written);
                break;
            }
            if copied == 0 {
                break;
            }
        }
        if total == 0 && !buf.is_empty() { Err(TryError::WouldBlock) } else { Ok(total) }
    }

    /// Processes and sends what the driver has room for; answers how many bytes of `bytes` that was.
    pub fn write_chunk(&self, bytes: &[u8]) -> usize {
        let taken = self.process_output(bytes);
        self.driver.settled();
        taken
    }

    fn process_output(&self, bytes: &[u8]) -> usize {
        let mut state = self.lock();
        self.drain_echo(&mut state);
        if state.discipline.stopped || !state.echo.is_empty() {
            return 0;
        }
        let room = self.driver.room();
        let termios = *state.discipline.termios();
        let mut out = ArrayVec::<u8, { CHUNK * MAX_EXPANSION }>::new();
        let mut taken = 0;
        for &byte in bytes.iter().take(CHUNK) {
            // What does not fit after processing must not be half sent.
            let needed = if termios.output(raw::OPOST) { MAX_EXPANSION.min(expansion(byte)) } else { 1 };
            if out.len() + needed > room {
                break;
            }
            state.discipline.cursor.post(&termios, byte).emit(&mut |bytes| {
                let _ = out.try_extend_from_slice(bytes);
            });
            taken += 1;
        }
        self.driver.write(&out);
        state.discipline.echo_sent();
        taken
    }
}

/// Copies all of `bytes`, or nothing and answers the fault that is in the way: a line is not torn at a page's end.
fn copy_whole(buf: &mut IoBuf<'_>, bytes: &[u8]) -> Result<usize, UserFault> {
    let copied = buf.copy_to(bytes)?;
    if copied < bytes.len() && !buf.is_empty() {
        match buf.copy_to(&bytes[copied..]) {
            Ok(rest) => return Ok(copied + rest),
            Err(fault) => {
                buf.rewind(copied);
                return Err(fault);
            }
        }
    }
    Ok(copied)
}

/// Most bytes that `byte` becomes in output processing.
fn expansion(byte: u8) -> usize {
    match byte {
        b'\t' => MAX_EXPANSION,
        b'\n' => 2,
        _ => 1,
    }
}
