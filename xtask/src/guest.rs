//! A running QEMU: its console as a stream of events, and its end.

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::ui;
use crate::wire::Wire;

/// What happens while a guest runs.
pub enum Event {
    /// It wrote to its console.
    Console(Vec<u8>),
    /// QEMU itself complained.
    Qemu(Vec<u8>),
    /// QEMU has closed the console: it is about to end.
    End,
    /// Input of the host; empty at its end.
    Input(Vec<u8>),
    /// The user, or a signal, wants to leave.
    Leave(u8),
}

/// A QEMU process. Dropped, it is killed.
pub struct Guest {
    child: Child,
    console: Option<ChildStdin>,
    pub events: Receiver<Event>,
    pub sender: Sender<Event>,
    /// What its card is connected by, unless that is QEMU's own affair.
    wire: Option<Wire>,
}

impl Guest {
    /// Switches a machine on.
    pub fn start(mut qemu: Command) -> Result<Guest> {
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // In a group of its own: the terminal's Ctrl-C is for xtask, which then ends QEMU.
        qemu.process_group(0);
        // SAFETY: one system call between fork and exec, without any memory.
        unsafe {
            qemu.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
        }
        let mut child = qemu.spawn().with_context(|| format!("cannot run {}", ui::shown(&qemu)))?;
        let (sender, events) = channel();
        let console = child.stdin.take();
        if let Some(output) = child.stdout.take() {
            read_into(output, sender.clone(), Event::Console, Some(Event::End));
        }
        if let Some(errors) = child.stderr.take() {
            read_into(errors, sender.clone(), Event::Qemu, None);
        }
        Ok(Guest { child, console, events, sender, wire: None })
    }

    /// The same with a wire, which ends with it.
    pub fn with_wire(mut self, wire: Wire) -> Guest {
        self.wire = Some(wire);
        self
    }

    /// Writes to the console. A guest that is gone shows elsewhere.
    pub fn write(&mut self, bytes: &[u8]) {
        if let Some(console) = &mut self.console {
            let _ = console.write_all(bytes).and_then(|()| console.flush());
        }
    }

    /// The writing end of the console, for a thread of its own.
    pub fn take_console(&mut self) -> Option<ChildStdin> {
        self.console.take()
    }

    /// QEMU's process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for QEMU to end by itself; tells whether it did.
    pub fn wait(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_into(
    mut stream: impl Read + Send + 'static,
    sender: Sender<Event>,
    event: fn(Vec<u8>) -> Event,
    last: Option<Event>,
) {
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            if sender.send(event(buffer[..length].to_vec())).is_err() {
                return;
            }
        }
        last.map(|last| sender.send(last));
    });
}
