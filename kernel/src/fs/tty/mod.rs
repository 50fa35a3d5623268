//! Terminals, tty(4) and termios(3).
//!
//! * [`discipline`] and [`output`] are N_TTY as plain state machines: line editing, echo, signals, output processing.
//! * [`terminal::Tty`] puts a lock, wait queues and a driver around them. [`TtyFile`] is an open one.
//! * [`job`] ties terminals to sessions and foreground groups and asks them for permission.
//! * [`console`] is the serial line; [`pty`] are pairs whose other end is a file.
//!
//! Input comes from interrupts or a pty's master through `Tty::receive`; what it causes (echo, wake-ups, signals)
//! happens there. Reads and writes are the non-waiting attempts of `FileOps`.
//!
//! Lock order: a terminal's state, then a session's slot for its terminal, or a pty's output. Signals are sent, and the
//! process table is locked, with none of them held.

pub mod console;
pub mod devpts;
mod discipline;
mod file;
mod ioctl;
pub mod job;
mod output;
pub mod pty;
mod terminal;
mod termios;

use alloc::boxed::Box;
use alloc::sync::Arc;
use linux_raw_sys::general as raw;

pub use file::{TtyFile, Via};
pub use job::{hang_up_controlling, session_leader_exit};
pub use terminal::{Tty, TtyDriver};

use crate::errno::{Errno, Result};
use crate::fs::devfs;
use crate::fs::file::FileOps;
use crate::fs::inode::{DeviceId, FileType};
use crate::fs::op::Op;
use crate::process::{Caps, Thread};

/// Opens the terminal device `id`; ENXIO if there is none.
pub fn open(id: DeviceId, flags: u32, thread: &Thread) -> Result<Arc<dyn FileOps>> {
    match id {
        console::DEV_TTY => {
            let tty = job::controlling_tty(thread.process()).ok_or(Errno::ENXIO)?;
            Ok(TtyFile::open(tty, Via::Device))
        }
        console::DEV_CONSOLE => Ok(TtyFile::open(console::tty().clone(), Via::Console)),
        console::TTY_AMA0 => {
            check_exclusive(console::tty(), thread)?;
            Ok(opened(TtyFile::open(console::tty().clone(), Via::Device), flags, thread))
        }
        pty::PTMX => Ok(pty::Pty::open_master(thread)?),
        DeviceId { major: pty::SLAVE_MAJOR, minor } => {
            let pty = pty::find(minor).ok_or(Errno::EIO)?;
            let tty = pty.slave()?;
            check_exclusive(tty, thread)?;
            let file = TtyFile::open(tty.clone(), Via::Device);
            // The master may have gone since it was looked for, and then there was no open slave to hang up.
            pty.slave()?;
            Ok(opened(file, flags, thread))
        }
        _ => Err(Errno::ENXIO),
    }
}

/// EBUSY for terminals that were made exclusive (TIOCEXCL).
fn check_exclusive(tty: &Tty, thread: &Thread) -> Result<()> {
    if tty.lock().exclusive && !thread.creds().capable(Caps::SYS_ADMIN) { Err(Errno::EBUSY) } else { Ok(()) }
}

/// An open terminal may become the controlling one of the session.
fn opened(file: Arc<TtyFile>, flags: u32, thread: &Thread) -> Arc<dyn FileOps> {
    if flags & raw::O_NOCTTY == 0 && flags & raw::O_ACCMODE != raw::O_WRONLY {
        job::acquire_on_open(thread, file.tty());
    }
    file
}

/// Registers the terminal devices and devpts.
pub fn init() {
    // Its options are looked at together.
    crate::fs::register_fs_type(
        "devpts",
        false,
        |_| Ok(()),
        |request| Op::ready(devpts::filesystem(request.source, request.data)),
    );
    let devices = [
        ("console", console::DEV_CONSOLE, 0o600),
        ("tty", console::DEV_TTY, 0o666),
        ("ttyAMA0", console::TTY_AMA0, 0o600),
        ("ptmx", pty::PTMX, 0o666),
    ];
    for (name, id, perm) in devices {
        let open: devfs::Factory = Box::new(move |flags, thread| Op::ready(open(id, flags, thread)));
        devfs::register(name, id, FileType::CharDevice, perm, open);
    }
}
