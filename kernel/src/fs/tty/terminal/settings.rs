//! What the calls of ioctl_tty(2) and poll(2) ask of a terminal, and set.

use linux_raw_sys::general as raw;

use super::super::output::MAX_EXPANSION;
use super::super::termios::{Termios, WinSize};
use super::Tty;
use crate::fs::file::Events;

impl Tty {
    /// The events that hold now, for a file of that generation if it can be hung up.
    pub fn ready(&self, generation: Option<u32>) -> Events {
        let state = self.lock();
        if generation.is_some_and(|generation| state.generation != generation) {
            return Events::IN | Events::OUT | Events::ERR | Events::HUP | Events::RDNORM | Events::WRNORM;
        }
        let termios = state.discipline.termios();
        let minimum = if termios.time_tenths() == 0 { termios.min() } else { 1 };
        let mut events = Events::empty();
        if state.discipline.readable(minimum) {
            events |= Events::IN | Events::RDNORM;
        }
        if !state.discipline.stopped && self.driver.room() >= MAX_EXPANSION {
            events |= Events::OUT | Events::WRNORM;
        }
        events
    }

    pub fn termios(&self) -> Termios {
        *self.lock().discipline.termios()
    }

    /// tcsetattr(3); `flush_input` for TCSAFLUSH.
    pub fn set_termios(&self, mut termios: Termios, flush_input: bool) {
        self.driver.adjust(&mut termios);
        let mut state = self.lock();
        if flush_input {
            state.discipline.flush_input();
            self.driver.note(raw::TIOCPKT_FLUSHREAD);
        }
        self.note_settings(state.discipline.termios(), &termios);
        state.discipline.set_termios(termios);
        self.note_flow(&mut state);
        self.drain_echo(&mut state);
        drop(state);
        self.driver.settled();
        // What is readable or writable may have changed.
        self.wake(Events::IN | Events::RDNORM | Events::OUT | Events::WRNORM);
        self.driver.input_wanted();
    }

    /// Settings that packet mode tells of: whether ^S and ^Q stop and start, and all of them if another makes the lines.
    fn note_settings(&self, old: &Termios, new: &Termios) {
        let by_keys = |termios: &Termios| {
            termios.input(raw::IXON) && termios.is_special(raw::VSTOP, 0x13) && termios.is_special(raw::VSTART, 0x11)
        };
        if by_keys(old) != by_keys(new) {
            self.driver.note(if by_keys(new) { raw::TIOCPKT_DOSTOP } else { raw::TIOCPKT_NOSTOP });
        }
        if old.local(raw::EXTPROC) || new.local(raw::EXTPROC) {
            self.driver.note(raw::TIOCPKT_IOCTL);
        }
    }

    /// TCXONC's TCOOFF and TCOON.
    pub fn set_stopped(&self, stopped: bool) {
        let mut state = self.lock();
        state.discipline.hold(stopped);
        self.note_flow(&mut state);
        self.drain_echo(&mut state);
        drop(state);
        self.driver.settled();
        if !stopped {
            self.wake(Events::OUT | Events::WRNORM);
        }
    }

    /// TCXONC's TCIOFF and TCION: asks the other side to stop or go on.
    pub fn send_special(&self, index: u32) {
        let mut state = self.lock();
        if let Some(byte) = state.discipline.termios().special(index) {
            self.put_echo(&mut state, &[byte]);
        }
        drop(state);
        self.driver.settled();
    }

    pub fn flush(&self, input: bool, output: bool) {
        let mut state = self.lock();
        if input {
            state.discipline.flush_input();
            self.driver.note(raw::TIOCPKT_FLUSHREAD);
        }
        if output {
            state.echo.clear();
            self.driver.flush_output();
            self.driver.note(raw::TIOCPKT_FLUSHWRITE);
        }
        drop(state);
        self.driver.settled();
        if input {
            self.driver.input_wanted();
        }
        if output {
            self.wake(Events::OUT | Events::WRNORM);
        }
    }

    /// TIOCSWINSZ: a change is told to the foreground group.
    pub fn set_winsize(&self, winsize: WinSize) {
        let mut state = self.lock();
        let changed = core::mem::replace(&mut state.winsize, winsize) != winsize;
        let foreground = state.foreground_group();
        drop(state);
        if changed && let Some(group) = foreground {
            group.signal(raw::SIGWINCH);
        }
    }
}
