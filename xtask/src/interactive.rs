//! The guest's console on the host's terminal.

use std::io::{self, IsTerminal, Read, Write};
use std::process::ChildStdin;
use std::sync::mpsc::{Receiver, Sender, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use pollux_wire::{Decoder, Event as Wire, Exit, Frame};
use rustix::termios::{self, OptionalActions, Termios};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::guest::{Event, Guest};
use crate::machine::Machine;
use crate::refusal::Refusal;
use crate::session::{DIED, is_panic};

/// Ctrl-], as with telnet.
const ESCAPE: u8 = 0x1d;
/// Ctrl-D, and how often it comes when the input has ended.
const END: u8 = 4;
const END_AGAIN: Duration = Duration::from_secs(2);
const HELP: &str = "Ctrl-] q leaves (and switches the machine off at once), Ctrl-] Ctrl-] sends Ctrl-]";

/// Gives the terminal to the guest until the machine is off. Returns the status for the host.
pub fn run(machine: &Machine, log_level: u8) -> Result<i32> {
    let mut guest = machine.start(log_level, &init_args())?;
    if io::stdin().is_terminal() {
        eprintln!("{HELP}");
    }
    let terminal = RawTerminal::enter();
    let signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    forward_signals(signals, guest.sender.clone());
    let (awake, is_awake) = sync_channel(1);
    if let Some(console) = guest.take_console() {
        forward_input(console, guest.sender.clone(), is_awake);
    }
    let status = relay(&guest, &awake);
    drop(terminal);
    drop(guest);
    status
}

/// What init should know of the terminal.
fn init_args() -> Vec<String> {
    let mut args = vec!["--status".to_string()];
    if let Ok(size) = termios::tcgetwinsize(io::stdout())
        && size.ws_col > 0
    {
        args.extend(["--winsize".into(), format!("{}x{}", size.ws_col, size.ws_row)]);
    }
    if let Ok(term) = std::env::var("TERM")
        && term.chars().all(|c| c.is_ascii_alphanumeric() || "-+.".contains(c))
        && !term.is_empty()
    {
        args.extend(["--term".into(), term]);
    }
    args
}

/// A kernel that sets its UART up empties it, so piped input waits until the guest has written something; for a guest
/// that writes nothing it waits so long.
const SILENT: Duration = Duration::from_secs(10);

/// How long after its end QEMU's messages may take.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Shows what the guest writes, until it is gone. Tells when it has begun.
fn relay(guest: &Guest, awake: &SyncSender<()>) -> Result<i32> {
    let mut decoder = Decoder::default();
    let mut exit = None;
    let mut panicked = false;
    let mut refusal = Refusal::default();
    let mut line = Vec::new();
    let mut stdout = io::stdout().lock();
    while let Ok(event) = guest.events.recv() {
        match event {
            Event::Console(bytes) => {
                let _ = awake.try_send(());
                refusal.guest_spoke();
                let mut shown = Vec::with_capacity(bytes.len());
                for byte in bytes {
                    match decoder.push(byte) {
                        Wire::Plain(byte) => shown.push(byte),
                        Wire::Frame(Frame::Exit(status), _) => exit = Some(status),
                        _ => {}
                    }
                }
                for byte in &shown {
                    line.push(*byte);
                    if *byte == b'\n' {
                        panicked |= is_panic(&line);
                        line.clear();
                    }
                }
                stdout.write_all(&shown)?;
                stdout.flush()?;
            }
            Event::Qemu(bytes) => {
                refusal.hear(&bytes);
                io::stderr().write_all(&bytes)?;
            }
            Event::Leave(status) => return Ok(status.into()),
            Event::End => break,
            Event::Input(_) => {}
        }
    }
    // What QEMU said last may still be on the way.
    while let Ok(Event::Qemu(bytes)) = guest.events.recv_timeout(LAST_WORDS) {
        refusal.hear(&bytes);
        io::stderr().write_all(&bytes)?;
    }
    if let Some(reason) = refusal.reason() {
        eprintln!("xtask: {reason}");
        return Ok(DIED);
    }
    Ok(if panicked { DIED } else { exit.map_or(0, Exit::status) })
}

fn forward_signals(mut signals: Signals, sender: Sender<Event>) {
    thread::spawn(move || {
        for signal in signals.forever() {
            if sender.send(Event::Leave(128 + signal as u8)).is_err() {
                return;
            }
        }
    });
}

fn forward_input(mut console: ChildStdin, sender: Sender<Event>, awake: Receiver<()>) {
    let terminal = io::stdin().is_terminal();
    thread::spawn(move || {
        if !terminal {
            let _ = awake.recv_timeout(SILENT);
        }
        let mut keys = Keys::default();
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = io::stdin().lock().read(&mut buffer) {
            let (bytes, leave) =
                if terminal { keys.take(&buffer[..length]) } else { (buffer[..length].to_vec(), false) };
            if console.write_all(&bytes).and_then(|()| console.flush()).is_err() {
                return;
            }
            if leave {
                let _ = sender.send(Event::Leave(0));
                return;
            }
        }
        // The end of the input is that of the guest's terminal, which ends a shell; one may stand behind another. It is
        // not closed, or QEMU would take no notice of the guest's end.
        while console.write_all(&[END]).and_then(|()| console.flush()).is_ok() {
            thread::sleep(END_AGAIN);
        }
    });
}

/// Finds the escape key in what is typed.
#[derive(Default)]
struct Keys {
    escaped: bool,
}

impl Keys {
    /// What to send on, and whether to leave.
    fn take(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut bytes = Vec::new();
        for byte in typed {
            match (std::mem::take(&mut self.escaped), *byte) {
                (false, ESCAPE) => self.escaped = true,
                (true, b'q') => return (bytes, true),
                (true, b'?') => eprint!("\r\n{HELP}\r\n"),
                (true, ESCAPE) | (false, _) => bytes.push(*byte),
                (true, _) => bytes.extend([ESCAPE, *byte]),
            }
        }
        (bytes, false)
    }
}

/// The terminal in raw mode; dropped, it is as it was.
struct RawTerminal(Option<Termios>);

impl RawTerminal {
    fn enter() -> RawTerminal {
        let saved = termios::tcgetattr(io::stdin()).ok();
        if let Some(saved) = &saved {
            let mut raw = saved.clone();
            raw.make_raw();
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw);
            // Also when something here panics.
            let restored = saved.clone();
            let default = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &restored);
                default(info);
            }));
        }
        RawTerminal(saved)
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(saved) = &self.0 {
            let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, saved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_escape_key_leaves_and_can_be_sent() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"ab\x03"), (b"ab\x03".to_vec(), false));
        assert_eq!(keys.take(b"\x1d\x1d"), (b"\x1d".to_vec(), false));
        assert_eq!(keys.take(b"\x1dx"), (b"\x1dx".to_vec(), false));
        assert_eq!(keys.take(b"x\x1d"), (b"x".to_vec(), false));
        assert_eq!(keys.take(b"q"), (b"".to_vec(), true));
    }
}
