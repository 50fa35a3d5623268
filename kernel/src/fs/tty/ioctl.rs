//! ioctl_tty(2).

use alloc::sync::Arc;
use linux_raw_sys::general as raw;
use linux_raw_sys::ioctl as cmds;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::job;
use super::terminal::Tty;
use super::termios::{Termios, WinSize};
use crate::errno::{Errno, Result};
use crate::fs::open_file::OpenFile;
use crate::mm::UserPtr;
use crate::process::{Caps, Thread};

/// Whose file the call came through. A pty's master answers for its slave, without job control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    Terminal,
    Master,
}

// Arguments of TCXONC and TCFLSH (asm-generic/termbits.h).
const TCOOFF: u64 = 0;
const TCOON: u64 = 1;
const TCIOFF: u64 = 2;
const TCION: u64 = 3;
const TCIFLUSH: u64 = 0;
pub const TCOFLUSH: u64 = 1;
pub const TCIOFLUSH: u64 = 2;

/// `_IO('T', 0x41)`; linux-raw-sys lacks it.
pub const TIOCGPTPEER: u32 = 0x5441;

struct Call<'a> {
    tty: &'a Arc<Tty>,
    thread: &'a Thread,
    arg: u64,
    side: Side,
}

impl Call<'_> {
    async fn put<T: IntoBytes + Immutable>(&self, value: T) -> Result<u64> {
        UserPtr::<T>::new(self.arg).write(self.thread.mm(), value).await?;
        Ok(0)
    }

    async fn get<T: FromBytes>(&self) -> Result<T> {
        UserPtr::<T>::new(self.arg).read(self.thread.mm()).await
    }

    /// Changes are for the foreground.
    async fn admit(&self) -> Result<()> {
        match self.side {
            Side::Terminal => job::admit(self.thread, self.tty, raw::SIGTTOU).await,
            Side::Master => Ok(()),
        }
    }

    fn is_master(&self) -> bool {
        self.side == Side::Master
    }
}

/// Everything a terminal understands; ENOTTY for the rest.
pub async fn terminal(tty: &Arc<Tty>, file: &OpenFile, thread: &Thread, cmd: u32, arg: u64, side: Side) -> Result<u64> {
    let call = Call { tty, thread, arg, side };
    match cmd {
        cmds::TCGETS | cmds::TCGETS2 | cmds::TCSETS..=cmds::TCSETSF => settings(&call, cmd).await,
        cmds::TCSETS2 | cmds::TCSETSW2 | cmds::TCSETSF2 => settings(&call, cmd).await,
        cmds::TIOCGSOFTCAR | cmds::TIOCSSOFTCAR => settings(&call, cmd).await,
        cmds::TCSBRK | cmds::TCSBRKP | cmds::TCXONC | cmds::TCFLSH | cmds::TIOCSBRK | cmds::TIOCCBRK => {
            line_control(&call, cmd).await
        }
        cmds::TIOCSCTTY => {
            let readable = file.flags() & raw::O_ACCMODE != raw::O_WRONLY;
            job::set_controlling(thread, tty, arg == 1, readable).map(|()| 0)
        }
        cmds::TIOCNOTTY => job::give_up(thread, tty).map(|()| 0),
        cmds::TIOCGPGRP => call.put(job::foreground(thread, tty, call.is_master())?).await,
        cmds::TIOCSPGRP => set_foreground(&call).await,
        cmds::TIOCGSID => call.put(job::session_id(thread, tty, call.is_master())?).await,
        cmds::TIOCVHANGUP => {
            if !thread.creds().capable(Caps::SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            job::hang_up(tty);
            Ok(0)
        }
        cmds::TIOCSTI => Err(Errno::EIO), // dev.tty.legacy_tiocsti = 0
        // A master answers it itself.
        TIOCGPTPEER => Err(Errno::EIO),
        _ => properties(&call, cmd).await,
    }
}

async fn settings(call: &Call<'_>, cmd: u32) -> Result<u64> {
    let tty = call.tty;
    match cmd {
        cmds::TCGETS => {
            let mut bytes = [0; Termios::SIZE];
            bytes.copy_from_slice(&tty.termios().to_bytes()[..Termios::SIZE]);
            return call.put(bytes).await;
        }
        cmds::TCGETS2 => return call.put(tty.termios().to_bytes()).await,
        cmds::TIOCGSOFTCAR => return call.put(u32::from(tty.termios().cflag & raw::CLOCAL != 0)).await,
        _ => {}
    }
    call.admit().await?;
    let flush = matches!(cmd, cmds::TCSETSF | cmds::TCSETSF2);
    let termios = match cmd {
        cmds::TCSETS2 | cmds::TCSETSW2 | cmds::TCSETSF2 => Termios::from_bytes2(&call.get().await?),
        cmds::TIOCSSOFTCAR => {
            let on = call.get::<u32>().await? != 0;
            let mut termios = tty.termios();
            termios.cflag = termios.cflag & !raw::CLOCAL | if on { raw::CLOCAL } else { 0 };
            termios
        }
        _ => Termios::from_bytes(&call.get().await?),
    };
    tty.set_termios(termios, flush);
    Ok(0)
}

/// Breaks, flow control and flushing. Output is transmitted at once, so there is never anything to drain.
async fn line_control(call: &Call<'_>, cmd: u32) -> Result<u64> {
    call.admit().await?;
    let tty = call.tty;
    match (cmd, call.arg) {
        (cmds::TCXONC, TCOOFF) => tty.set_stopped(true),
        (cmds::TCXONC, TCOON) => tty.set_stopped(false),
        (cmds::TCXONC, TCIOFF) => tty.send_special(raw::VSTOP),
        (cmds::TCXONC, TCION) => tty.send_special(raw::VSTART),
        (cmds::TCFLSH, TCIFLUSH) => tty.flush(true, false),
        (cmds::TCFLSH, TCOFLUSH) => tty.flush(false, true),
        (cmds::TCFLSH, TCIOFLUSH) => tty.flush(true, true),
        (cmds::TCXONC | cmds::TCFLSH, _) => return Err(Errno::EINVAL),
        // tcdrain(3). A break cannot be sent by what is behind our terminals; Linux's pty ignores it as well.
        _ => {}
    }
    Ok(0)
}

async fn set_foreground(call: &Call<'_>) -> Result<u64> {
    call.admit().await.map_err(|_| Errno::ENOTTY)?;
    let pgid = call.get::<i32>().await?;
    job::set_foreground(call.thread, call.tty, pgid).map(|()| 0)
}

async fn properties(call: &Call<'_>, cmd: u32) -> Result<u64> {
    let tty = call.tty;
    match cmd {
        cmds::TIOCGWINSZ => {
            let size = tty.lock().winsize;
            call.put(size.to_bytes()).await
        }
        cmds::TIOCSWINSZ => {
            let size = WinSize::from_bytes(&call.get().await?);
            tty.set_winsize(size);
            Ok(0)
        }
        cmds::FIONREAD => {
            let available = tty.lock().discipline.available();
            call.put(available as u32).await
        }
        cmds::TIOCOUTQ => call.put(tty.driver().pending() as u32).await,
        cmds::TIOCEXCL | cmds::TIOCNXCL => {
            tty.lock().exclusive = cmd == cmds::TIOCEXCL;
            Ok(0)
        }
        cmds::TIOCGEXCL => {
            let exclusive = tty.lock().exclusive;
            call.put(u32::from(exclusive)).await
        }
        cmds::TIOCGETD => call.put(0u32).await,
        cmds::TIOCSETD => {
            call.admit().await?;
            // N_TTY is the only discipline.
            if call.get::<u32>().await? == 0 { Ok(0) } else { Err(Errno::EINVAL) }
        }
        cmds::TIOCMGET => {
            let lines = tty.driver().modem_lines().ok_or(Errno::ENOTTY)?;
            call.put(lines).await
        }
        cmds::TIOCGDEV => call.put(tty.id().encode() as u32).await,
        _ => Err(Errno::ENOTTY),
    }
}
