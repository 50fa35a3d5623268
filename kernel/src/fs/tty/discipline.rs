//! The line discipline N_TTY as a plain state machine: bytes in, effects out. termios(3) describes what it does; where
//! that is silent it does what Linux's N_TTY shows.
//!
//! The input queue holds finished lines first (`ready` entries), then the line being edited. Without ICANON the split
//! has no meaning and every entry can be read.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use linux_raw_sys::general as raw;

use super::output::{Cursor, is_control, is_word, tab_width, to_lower};
use super::termios::Termios;

/// Entries of the input queue; the last one is kept free for the end of a line.
pub const INPUT_LIMIT: usize = 4096;
/// IXOFF: the other side is told to stop above, and to go on below these fill levels.
const STOP_LEVEL: usize = INPUT_LIMIT - 128;
const START_LEVEL: usize = 128;

/// One byte of input. The low 8 bits are the byte.
type Entry = u16;
/// The entry ends a line.
const LINE_END: Entry = 0x100;
/// The entry is the VEOF character: it ends the line and is not itself read. Comes with `LINE_END`.
const END_OF_FILE: Entry = 0x200;

/// What a received byte asks the terminal to do, in this order.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be sent to the foreground process group.
    pub signal: Option<u32>,
    /// Output that was not yet transmitted is to be dropped (a signal without NOFLSH).
    pub flush_output: bool,
    /// Output was stopped (^S), or shall go on (^Q): then the echo goes out before what follows is looked at.
    pub stop: Option<bool>,
    /// Bytes for the driver, output processing done.
    pub echo: Vec<u8>,
    /// There may be more to read now.
    pub readable: bool,
    /// Lines that were finished.
    pub lines: usize,
}

#[derive(Debug)]
pub struct Discipline {
    termios: Termios,
    queue: VecDeque<Entry>,
    ready: usize,
    pub cursor: Cursor,
    /// Where the cursor is without the echo that was not sent yet.
    shown: Cursor,
    /// The next byte is taken literally (VLNEXT).
    literal_next: bool,
    /// Between the `\` and `/` of ECHOPRT.
    erasing: bool,
    /// Output is stopped by VSTOP or TCXONC.
    pub stopped: bool,
    /// It was TCXONC, which alone can undo it.
    held: bool,
    /// The other side was sent VSTOP because of IXOFF.
    throttled: bool,
}

impl Discipline {
    pub fn new(termios: Termios) -> Self {
        Discipline {
            termios,
            queue: VecDeque::new(),
            ready: 0,
            cursor: Cursor::default(),
            shown: Cursor::default(),
            literal_next: false,
            erasing: false,
            stopped: false,
            held: false,
            throttled: false,
        }
    }

    pub fn termios(&self) -> &Termios {
        &self.termios
    }

    /// Lines are made here, and not by who types (EXTPROC).
    fn canonical(&self) -> bool {
        self.termios.local(raw::ICANON) && !self.termios.local(raw::EXTPROC)
    }

    /// An end of file that was typed as all there is, where lines are made elsewhere: takes it.
    pub fn take_typed_end(&mut self) -> bool {
        let termios = &self.termios;
        let applies = termios.local(raw::ICANON) && termios.local(raw::EXTPROC) && self.queue.len() == 1;
        let ends = applies && self.queue.front().is_some_and(|entry| termios.is_special(raw::VEOF, *entry as u8));
        if ends {
            self.queue.clear();
        }
        ends
    }

    /// Installs new settings. What is in the queue when canonical mode begins counts as a finished line.
    /// Answers true when stopped output may go on because IXON went away.
    pub fn set_termios(&mut self, new: Termios) -> bool {
        let switched = (self.termios.lflag ^ new.lflag) & (raw::ICANON | raw::EXTPROC) != 0;
        self.termios = new;
        if switched {
            self.queue.iter_mut().for_each(|entry| *entry &= 0xff);
            self.ready = 0;
            self.erasing = false;
            self.literal_next = false;
            if self.canonical()
                && let Some(last) = self.queue.back_mut()
            {
                *last |= LINE_END;
                self.ready = self.queue.len();
            }
        }
        let resumed = self.stopped && !self.held && !new.input(raw::IXON);
        if resumed {
            self.stopped = false;
        }
        resumed
    }

    /// Can another byte be taken? If not it stays in the driver's buffer.
    pub fn has_room(&self) -> bool {
        // A canonical line that is too long must still be ended or edited, so its bytes are taken and dropped.
        self.queue.len() < INPUT_LIMIT - 1 || (self.canonical() && self.ready == 0)
    }

    pub fn flush_input(&mut self) {
        self.queue.clear();
        self.ready = 0;
        self.literal_next = false;
        self.erasing = false;
    }

    /// Everything that was to be shown has been sent.
    pub fn echo_sent(&mut self) {
        self.shown = self.cursor;
    }

    // ---- Reading ----

    /// Bytes that FIONREAD tells.
    pub fn available(&self) -> usize {
        if self.canonical() {
            self.queue.iter().take(self.ready).filter(|&&entry| entry & END_OF_FILE == 0).count()
        } else {
            self.queue.len()
        }
    }

    /// Would a read get something (an end of file included)? Without ICANON, at least `min` bytes are wanted.
    pub fn readable(&self, min: usize) -> bool {
        if self.canonical() { self.ready > 0 } else { self.queue.len() >= min.max(1) }
    }

    /// Copies what can be read, up to the end of a line, without taking it.
    pub fn peek(&self, out: &mut [u8]) -> usize {
        let limit = if self.canonical() { self.ready } else { self.queue.len() };
        let mut n = 0;
        for (slot, &entry) in out.iter_mut().zip(self.queue.iter().take(limit)) {
            if entry & END_OF_FILE != 0 {
                break;
            }
            *slot = entry as u8;
            n += 1;
            if entry & LINE_END != 0 {
                break;
            }
        }
        n
    }

    /// Takes `n` bytes that were peeked. Answers whether that finished a line: nothing more belongs to this read.
    /// An end of file right after the bytes goes with them; that is also how a read of nothing takes it.
    pub fn consume(&mut self, n: usize, echo: &mut Vec<u8>) -> bool {
        let mut ended = false;
        for _ in 0..n {
            let Some(entry) = self.queue.pop_front() else { break };
            ended = entry & LINE_END != 0;
            self.ready = self.ready.saturating_sub(1);
        }
        if !ended && self.queue.front().is_some_and(|entry| entry & END_OF_FILE != 0) {
            self.queue.pop_front();
            self.ready = self.ready.saturating_sub(1);
            ended = true;
        }
        if self.throttled && self.queue.len() < START_LEVEL {
            self.throttled = false;
            echo.extend(self.termios.special(raw::VSTART));
        }
        ended
    }

    // ---- Receiving ----

    /// A break condition on the line.
    pub fn receive_break(&mut self, fx: &mut Effects) {
        if self.termios.input(raw::IGNBRK) {
            return;
        }
        if self.termios.input(raw::BRKINT) {
            return self.signal(raw::SIGINT, None, fx);
        }
        if self.termios.input(raw::PARMRK) {
            self.put(0xff, fx);
            self.put(0, fx);
        }
        self.put(0, fx);
    }

    pub fn receive(&mut self, byte: u8, fx: &mut Effects) {
        self.receive_processed(byte, fx);
        if self.termios.input(raw::IXOFF) && !self.throttled && self.queue.len() > STOP_LEVEL {
            self.throttled = true;
            fx.echo.extend(self.termios.special(raw::VSTOP));
        }
    }

    fn receive_processed(&mut self, byte: u8, fx: &mut Effects) {
        let termios = self.termios;
        let lowers = termios.input(raw::IUCLC) && termios.local(raw::IEXTEN);
        if termios.local(raw::EXTPROC) && !termios.input(raw::ISTRIP) && !lowers {
            return self.put(byte, fx);
        }
        let mut c = if termios.input(raw::ISTRIP) { byte & 0x7f } else { byte };
        if lowers {
            c = to_lower(c);
        }
        if core::mem::take(&mut self.literal_next) {
            return self.ordinary(c, false, fx);
        }
        if termios.input(raw::IXON) {
            if termios.is_special(raw::VSTART, c) {
                return self.set_stopped(false, fx);
            }
            if termios.is_special(raw::VSTOP, c) {
                return self.set_stopped(true, fx);
            }
        }
        if termios.local(raw::ISIG) {
            let signals = [(raw::VINTR, raw::SIGINT), (raw::VQUIT, raw::SIGQUIT), (raw::VSUSP, raw::SIGTSTP)];
            if let Some(&(_, signal)) = signals.iter().find(|(index, _)| termios.is_special(*index, c)) {
                return self.signal(signal, Some(c), fx);
            }
        }
        if self.stopped && termios.input(raw::IXON) && termios.input(raw::IXANY) {
            self.set_stopped(false, fx);
        }
        let mut mapped = false;
        match c {
            b'\r' if termios.input(raw::IGNCR) => return,
            b'\r' if termios.input(raw::ICRNL) => {
                c = b'\n';
                mapped = true;
            }
            b'\n' if termios.input(raw::INLCR) => c = b'\r',
            _ => {}
        }
        if self.canonical() && self.edit(c, fx) {
            return;
        }
        self.ordinary(c, mapped, fx);
    }

    fn set_stopped(&mut self, stopped: bool, fx: &mut Effects) {
        if !self.held {
            self.stopped = stopped;
            fx.stop = Some(stopped);
        }
    }

    /// TCXONC's TCOOFF and TCOON; the latter does not undo what a key has done.
    pub fn hold(&mut self, on: bool) {
        if self.held != on {
            self.held = on;
            self.stopped = on;
        }
    }

    /// The terminal is closed or hung up.
    pub fn go_on(&mut self) {
        self.held = false;
        self.stopped = false;
    }

    fn signal(&mut self, signal: u32, typed: Option<u8>, fx: &mut Effects) {
        fx.signal = Some(signal);
        if !self.termios.local(raw::NOFLSH) {
            fx.flush_output = true;
            fx.echo.clear();
            self.cursor = self.shown;
            self.flush_input();
        }
        if self.stopped && self.termios.input(raw::IXON) {
            self.set_stopped(false, fx);
        }
        if let Some(c) = typed
            && self.termios.local(raw::ECHO)
        {
            self.echo_char(c, fx);
        }
    }

    /// The characters that mean something in canonical mode. Answers false if `c` is none of them.
    fn edit(&mut self, c: u8, fx: &mut Effects) -> bool {
        let termios = self.termios;
        let extended = termios.local(raw::IEXTEN);
        let echo = termios.local(raw::ECHO);
        if termios.is_special(raw::VERASE, c) {
            self.erase(Erase::Character, fx);
        } else if termios.is_special(raw::VKILL, c) {
            self.kill(c, fx);
        } else if extended && termios.is_special(raw::VWERASE, c) {
            self.erase(Erase::Word, fx);
        } else if extended && termios.is_special(raw::VLNEXT, c) {
            self.literal_next = true;
            if echo {
                self.finish_erasing(fx);
                if termios.local(raw::ECHOCTL) {
                    self.echo_raw(b"^\x08", fx);
                }
            }
        } else if extended && echo && termios.is_special(raw::VREPRINT, c) {
            self.reprint(c, fx);
        } else if c == b'\n' {
            if termios.local(raw::ECHO | raw::ECHONL) {
                self.echo_raw(b"\n", fx);
            }
            self.end_line(Entry::from(c) | LINE_END, fx);
        } else if termios.is_special(raw::VEOF, c) {
            self.end_line(LINE_END | END_OF_FILE, fx);
        } else if termios.is_special(raw::VEOL, c) || (extended && termios.is_special(raw::VEOL2, c)) {
            if echo {
                if self.queue.len() == self.ready {
                    self.cursor.line = self.cursor.column;
                }
                self.echo_char(c, fx);
            }
            if termios.input(raw::PARMRK) && c == 0xff {
                self.put(0xff, fx);
            }
            self.end_line(Entry::from(c) | LINE_END, fx);
        } else {
            return false;
        }
        true
    }

    /// A byte without a meaning of its own. `mapped`: a newline that was typed as a carriage return, which is shown as
    /// one in raw mode, too.
    fn ordinary(&mut self, c: u8, mapped: bool, fx: &mut Effects) {
        let full = self.queue.len() >= INPUT_LIMIT - 1;
        if full && self.termios.input(raw::IMAXBEL) {
            fx.echo.push(0x07);
        }
        if self.termios.local(raw::ECHO) && !full {
            self.finish_erasing(fx);
            if mapped {
                self.echo_raw(b"\n", fx);
            } else {
                if self.queue.len() == self.ready {
                    self.cursor.line = self.cursor.column;
                }
                self.echo_char(c, fx);
            }
        }
        if self.termios.input(raw::PARMRK) && c == 0xff {
            self.put(c, fx);
        }
        self.put(c, fx);
    }

    fn put(&mut self, c: u8, fx: &mut Effects) {
        if self.queue.len() < INPUT_LIMIT - 1 {
            self.queue.push_back(Entry::from(c));
            fx.readable |= !self.canonical();
        }
    }

    fn end_line(&mut self, entry: Entry, fx: &mut Effects) {
        if self.queue.len() < INPUT_LIMIT {
            self.queue.push_back(entry);
        } else if let Some(last) = self.queue.back_mut() {
            *last = entry;
        }
        self.ready = self.queue.len();
        fx.readable = true;
        fx.lines += 1;
    }

    // ---- Editing ----

    fn kill(&mut self, c: u8, fx: &mut Effects) {
        let termios = self.termios;
        if self.queue.len() == self.ready {
            return;
        }
        if !termios.local(raw::ECHO) {
            self.queue.truncate(self.ready);
        } else if [raw::ECHOK, raw::ECHOKE, raw::ECHOE].iter().all(|&flag| termios.local(flag)) {
            self.erase(Erase::Line, fx);
        } else {
            self.queue.truncate(self.ready);
            self.finish_erasing(fx);
            self.echo_char(c, fx);
            if termios.local(raw::ECHOK) {
                self.echo_raw(b"\n", fx);
            }
        }
    }

    fn erase(&mut self, what: Erase, fx: &mut Effects) {
        let mut in_word = false;
        while self.queue.len() > self.ready {
            let Some(size) = self.last_character() else { break };
            let first = self.queue.len() - size;
            let lead = self.queue[first] as u8;
            if what == Erase::Word {
                if is_word(lead) {
                    in_word = true;
                } else if in_word {
                    break;
                }
            }
            if self.termios.local(raw::ECHO) {
                self.echo_erased(what, first, fx);
            }
            self.queue.truncate(first);
            if what == Erase::Character {
                break;
            }
        }
        if self.queue.len() == self.ready && self.termios.local(raw::ECHO) {
            self.finish_erasing(fx);
        }
    }

    /// Bytes of the last character of the line being edited, if it is whole.
    fn last_character(&self) -> Option<usize> {
        let mut size = 0;
        for &entry in self.queue.iter().skip(self.ready).rev() {
            size += 1;
            if !super::output::is_continuation(&self.termios, entry as u8) {
                return Some(size);
            }
        }
        None
    }

    /// Shows that the character at `first`, the last one, goes away.
    fn echo_erased(&mut self, what: Erase, first: usize, fx: &mut Effects) {
        let termios = self.termios;
        let lead = self.queue[first] as u8;
        if termios.local(raw::ECHOPRT) {
            if !core::mem::replace(&mut self.erasing, true) {
                self.echo_raw(b"\\", fx);
            }
            self.echo_char(lead, fx);
            for i in first + 1..self.queue.len() {
                self.echo_raw(&[self.queue[i] as u8], fx);
            }
        } else if what == Erase::Character && !termios.local(raw::ECHOE) {
            if let Some(c) = termios.special(raw::VERASE) {
                self.echo_char(c, fx);
            }
        } else if lead == b'\t' {
            let width = tab_width(self.column_at(first));
            fx.echo.extend((0..width).map(|_| 0x08));
            self.cursor.column = self.cursor.column.saturating_sub(width);
        } else {
            if is_control(lead) && termios.local(raw::ECHOCTL) {
                self.echo_raw(b"\x08 \x08", fx);
            }
            if !is_control(lead) || termios.local(raw::ECHOCTL) {
                self.echo_raw(b"\x08 \x08", fx);
            }
        }
    }

    /// The column at which the echo of the queue's entry `end` begins.
    fn column_at(&self, end: usize) -> usize {
        self.queue.range(self.ready..end).fold(self.cursor.line, |column, &entry| {
            let c = entry as u8;
            column
                + if c == b'\t' {
                    tab_width(column)
                } else if is_control(c) {
                    if self.termios.local(raw::ECHOCTL) { 2 } else { 0 }
                } else {
                    usize::from(!super::output::is_continuation(&self.termios, c))
                }
        })
    }

    fn reprint(&mut self, c: u8, fx: &mut Effects) {
        self.finish_erasing(fx);
        self.echo_char(c, fx);
        self.echo_raw(b"\n", fx);
        self.cursor.line = self.cursor.column;
        for i in self.ready..self.queue.len() {
            self.echo_char(self.queue[i] as u8, fx);
        }
    }

    // ---- Echo ----

    fn finish_erasing(&mut self, fx: &mut Effects) {
        if core::mem::take(&mut self.erasing) {
            self.echo_raw(b"/", fx);
        }
    }

    /// One character as it is shown: control characters as ^X when ECHOCTL is on.
    fn echo_char(&mut self, c: u8, fx: &mut Effects) {
        if self.termios.local(raw::ECHOCTL) && is_control(c) && c != b'\t' {
            fx.echo.extend([b'^', c ^ 0x40]);
            self.cursor.column += 2;
        } else if c == 0xff {
            fx.echo.push(c);
            self.cursor.column += 1;
        } else {
            self.echo_raw(&[c], fx);
        }
    }

    fn echo_raw(&mut self, bytes: &[u8], fx: &mut Effects) {
        for &byte in bytes {
            self.cursor.post(&self.termios, byte).emit(&mut |out| fx.echo.extend_from_slice(out));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Erase {
    Character,
    Word,
    Line,
}

#[cfg(test)]
#[path = "discipline_tests.rs"]
mod tests;
