//! Pseudo-terminals, for the tests of terminals.

use libc::*;

use crate::file::{open, path, write};
use crate::process;
use crate::say;
use crate::sys::{Ret, sys, zeroed};

/// `struct termios` of the kernel.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]

pub struct Termios {
    pub input: u32,
    pub output: u32,
    pub control: u32,
    pub local: u32,
    pub line: u8,
    pub characters: [u8; 19],
}

pub fn get(fd: i32) -> Termios {
    let mut termios: Termios = zeroed();
    sys!(SYS_ioctl, fd, TCGETS, &mut termios).need();
    termios
}

/// Changes the settings of a terminal.
pub fn set(fd: i32, change: impl FnOnce(&mut Termios)) -> Ret {
    let mut termios = get(fd);
    change(&mut termios);
    sys!(SYS_ioctl, fd, TCSETS, &termios)
}

/// Both ends of a new pty, to which reads do not wait.
pub fn pty() -> (i32, i32) {
    let (master, slave) = waiting_pty();
    sys!(SYS_fcntl, master, F_SETFL, O_RDWR | O_NONBLOCK);
    sys!(SYS_fcntl, slave, F_SETFL, O_RDWR | O_NONBLOCK);
    (master, slave)
}

pub fn waiting_pty() -> (i32, i32) {
    let master = open(c"/dev/ptmx", O_RDWR | O_NOCTTY).fd();
    sys!(SYS_ioctl, master, TIOCSPTLCK, &0i32).need();
    (master, open(&name_of(master), O_RDWR | O_NOCTTY).fd())
}

pub fn name_of(master: i32) -> std::ffi::CString {
    let mut number = -1i32;
    sys!(SYS_ioctl, master, TIOCGPTN, &mut number).need();
    path(format!("/dev/pts/{number}"))
}

/// Runs `body` in a child that leads a session of its own with the slave as its terminal.
pub fn session(slave: i32, body: impl FnOnce()) -> process::Status {
    process::in_child(|| {
        sys!(SYS_setsid).need();
        let taken = sys!(SYS_ioctl, slave, TIOCSCTTY, 0);
        if !taken.ok() {
            say!("no terminal: {taken}");
        }
        body();
        0
    })
}

/// What arrives at the other end takes a moment on some kernels, and may come in parts: reads until no more comes.
pub fn eventually(fd: i32) -> String {
    let mut all = Vec::new();
    let mut patience = 5000;
    loop {
        let mut entry = pollfd { fd, events: POLLIN, revents: 0 };
        let time = timespec { tv_sec: patience / 1000, tv_nsec: patience % 1000 * 1_000_000 };
        sys!(SYS_ppoll, &mut entry, 1, &time, 0, 8);
        if entry.revents & POLLIN == 0 {
            break;
        }
        let mut buffer = [0u8; 1000];
        match sys!(SYS_read, fd, &mut buffer, 1000) {
            Ret(length @ 1..) => all.extend_from_slice(&buffer[..length as usize]),
            other => return format!("{:?} {other}", String::from_utf8_lossy(&all)),
        }
        patience = 60;
    }
    format!("{:?}", String::from_utf8_lossy(&all))
}

/// Writes to the master, and lets the line discipline have it: until the slave has `count` bytes to read.
pub fn typed(master: i32, slave: i32, text: &str, count: i32) {
    write(master, text);
    for _ in 0..1000 {
        let mut ready = 0i32;
        sys!(SYS_ioctl, slave, FIONREAD, &mut ready);
        if ready >= count {
            break;
        }
        process::sleep_ms(1);
    }
}

pub fn raw(slave: i32, minimum: u8, time: u8) {
    set(slave, |termios| {
        termios.local &= !(ICANON | ECHO);
        termios.characters[VMIN] = minimum;
        termios.characters[VTIME] = time;
    });
}

pub fn own_group() -> i32 {
    sys!(SYS_getpgid, 0).0 as i32
}
