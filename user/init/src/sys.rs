//! The system calls that init needs and the standard library does not offer. Every `unsafe` of
//! init but one is here; all of it is plain libc with arguments made on the spot.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicI32, Ordering};

pub const NO_SUID: libc::c_ulong = libc::MS_NOSUID;
pub const NO_EXEC: libc::c_ulong = libc::MS_NOEXEC;
pub const REMOUNT: libc::c_ulong = libc::MS_REMOUNT;
pub const READ_ONLY: libc::c_ulong = libc::MS_RDONLY;

/// How to leave the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    PowerOff,
    Restart,
}

/// The last signal with which `poweroff`, `halt` or `reboot` asked for an end.
static ASKED: AtomicI32 = AtomicI32::new(0);

extern "C" fn note(signal: libc::c_int) {
    if signal != libc::SIGCHLD {
        ASKED.store(signal, Ordering::Relaxed);
    }
}

/// Blocks the signals that init acts upon, but for [`wait`].
pub fn catch_signals() {
    // SAFETY: the handler only stores to an atomic; the structures are fully initialised.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note as extern "C" fn(libc::c_int) as usize;
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut blocked);
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2, libc::SIGINT] {
            libc::sigaction(signal, &action, std::ptr::null_mut());
            libc::sigaddset(&mut blocked, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &blocked, std::ptr::null_mut());
    }
}

/// Waits until one of `fds` is ready or a signal came; `None` waits for ever.
pub fn wait(fds: &mut [libc::pollfd], milliseconds: Option<u64>) -> io::Result<()> {
    let timeout =
        milliseconds.map(|ms| libc::timespec { tv_sec: (ms / 1000) as _, tv_nsec: (ms % 1000 * 1_000_000) as _ });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), |timeout| timeout as *const _);
    // SAFETY: pointers and length come from live Rust values; an all-zero set is the empty set.
    let ready = unsafe {
        let none: libc::sigset_t = std::mem::zeroed();
        libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout, &none)
    };
    if ready < 0 {
        // What was ready before the signal is not known.
        fds.iter_mut().for_each(|fd| fd.revents = 0);
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return Err(error);
        }
    }
    Ok(())
}

/// What `poweroff`, `halt` or `reboot` asked for, if any did. The signals are busybox's.
pub fn wish() -> Option<Wish> {
    match ASKED.load(Ordering::Relaxed) {
        0 => None,
        libc::SIGTERM | libc::SIGINT => Some(Wish::Restart),
        _ => Some(Wish::PowerOff),
    }
}

/// Whether init still has children.
#[derive(PartialEq, Eq)]
pub enum Children {
    None,
    Some,
}

/// Takes one dead child without waiting: its id and status.
pub fn reap() -> Result<Option<(i32, i32)>, Children> {
    let mut status = 0;
    // SAFETY: `status` is a live integer.
    match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
        0 => Ok(None),
        pid if pid > 0 => Ok(Some((pid, status))),
        _ => Err(Children::None),
    }
}

/// Takes all dead children and tells whether live ones remain.
pub fn reap_all() -> Children {
    loop {
        match reap() {
            Ok(Some(_)) => {}
            Ok(None) => return Children::Some,
            Err(none) => return none,
        }
    }
}

/// Waits until no child remains, at most this long.
pub fn wait_for_all(milliseconds: u64) -> bool {
    const STEP: u64 = 20;
    for _ in 0..milliseconds / STEP {
        if reap_all() == Children::None {
            return true;
        }
        let _ = wait(&mut [], Some(STEP));
    }
    reap_all() == Children::None
}

pub fn mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong, data: &str) -> io::Result<()> {
    let [source, target, kind, data] = [source, target, kind, data].map(|text| c_string(text.as_ref()));
    // SAFETY: four live C strings.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast()) })
        .map(drop)
}

pub fn set_host_name(name: &str) {
    // SAFETY: pointer and length of a live string.
    unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
}

pub fn kill_all(signal: i32) {
    // SAFETY: no memory involved.
    unsafe { libc::kill(-1, signal) };
}

pub fn sync() {
    // SAFETY: no memory involved.
    unsafe { libc::sync() };
}

pub fn reboot(wish: Wish) -> ! {
    // SAFETY: no memory involved.
    unsafe {
        libc::reboot(match wish {
            Wish::PowerOff => libc::RB_POWER_OFF,
            Wish::Restart => libc::RB_AUTOBOOT,
        });
    }
    // Process 1 must not end, or the kernel panics and hides what happened.
    loop {
        let _ = wait(&mut [], None);
    }
}

/// Opens the terminal that the kernel uses as its console. The device itself is preferred to
/// `/dev/console`, which cannot become a controlling terminal by being opened.
pub fn open_console() -> io::Result<OwnedFd> {
    let command_line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let named = command_line
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("console="))
        .filter_map(|value| value.split(',').next())
        .next_back()
        .map(|name| format!("/dev/{name}"));
    let open = |path: &str| {
        let path = c_string(path.as_ref());
        // SAFETY: a live C string, and a descriptor that nobody else owns.
        unsafe {
            check(libc::open(path.as_ptr(), libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC))
                .map(|fd| OwnedFd::from_raw_fd(fd))
        }
    };
    named.map_or_else(|| open("/dev/console"), |path| open(&path).or_else(|_| open("/dev/console")))
}

/// Writes to the console, whatever becomes of it.
pub fn write_console(bytes: &[u8]) {
    if let Ok(console) = open_console() {
        let _ = write_all(console.as_raw_fd(), bytes);
    }
}

/// Puts the terminal into the mode of a plain byte stream.
pub fn make_raw(tty: RawFd) -> io::Result<()> {
    // SAFETY: `termios` is plain data that tcgetattr fills.
    unsafe {
        let mut termios: libc::termios = std::mem::zeroed();
        check(libc::tcgetattr(tty, &mut termios))?;
        libc::cfmakeraw(&mut termios);
        check(libc::tcsetattr(tty, libc::TCSANOW, &termios)).map(drop)
    }
}

pub fn set_window_size(tty: RawFd, (columns, rows): (u16, u16)) {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the ioctl reads a live structure.
    unsafe { libc::ioctl(tty, libc::TIOCSWINSZ as _, &size) };
}

/// A pipe; both ends are closed by exec.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: an array of two, and descriptors that nobody else owns.
    unsafe {
        check(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

pub fn set_nonblocking(fd: RawFd) -> io::Result<()> {
    // SAFETY: no memory involved.
    unsafe {
        let flags = check(libc::fcntl(fd, libc::F_GETFL))?;
        check(libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK)).map(drop)
    }
}

pub fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length of a live slice.
    check_size(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) })
}

pub fn write(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length of a live slice.
    check_size(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })
}

pub fn write_all(fd: RawFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(fd, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What a child does between fork and exec.
pub struct Child<'a> {
    pub argv: &'a [CString],
    /// The program, when it is not `argv[0]`.
    pub program: Option<&'a OsStr>,
    pub stdio: [RawFd; 3],
    /// Make standard input the controlling terminal, with the child in its foreground.
    pub controlling_tty: bool,
    pub env: &'a [(Vec<u8>, Vec<u8>)],
    pub cwd: Option<&'a OsStr>,
    /// Have the kernel record its system calls.
    pub trace: bool,
}

/// Runs a program in a session of its own. An error of exec comes back as an error.
pub fn spawn(child: &Child) -> io::Result<i32> {
    let (report, reporter) = pipe()?;
    let argv: Vec<_> = child.argv.iter().map(|arg| arg.as_ptr()).chain([std::ptr::null()]).collect();
    let program = child.program.map_or_else(|| child.argv[0].clone(), c_string);
    // SAFETY: init has one thread, so the child of fork may do anything; it ends in exec or _exit.
    let pid = unsafe {
        let pid = check(libc::fork())?;
        if pid == 0 {
            let error = become_child(child, &program, &argv);
            let number = error.raw_os_error().unwrap_or(libc::EINVAL);
            let _ = write_all(reporter.as_raw_fd(), &number.to_le_bytes());
            libc::_exit(127);
        }
        pid
    };
    drop(reporter);
    let mut number = [0; 4];
    loop {
        return match read(report.as_raw_fd(), &mut number) {
            Ok(4) => Err(io::Error::from_raw_os_error(i32::from_le_bytes(number))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            _ => Ok(pid),
        };
    }
}

/// The child's side of [`spawn`]: returns only with an error.
fn become_child(child: &Child, program: &CString, argv: &[*const libc::c_char]) -> io::Error {
    let attempt = || -> io::Result<()> {
        // SAFETY: see `spawn`; `argv` ends with a null pointer and outlives the call.
        unsafe {
            check(libc::setsid())?;
            for (target, fd) in child.stdio.iter().enumerate() {
                check(libc::dup2(*fd, target as RawFd))?;
            }
            if child.controlling_tty {
                // Without a controlling terminal the shell still works, without job control.
                libc::ioctl(0, libc::TIOCSCTTY as _, 0);
                libc::tcsetpgrp(0, libc::getpid());
            }
            for (name, value) in child.env {
                std::env::set_var(OsStr::from_bytes(name), OsStr::from_bytes(value));
            }
            if let Some(cwd) = child.cwd {
                std::env::set_current_dir(cwd)?;
            }
            for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2, libc::SIGINT, libc::SIGPIPE] {
                libc::signal(signal, libc::SIG_DFL);
            }
            let none: libc::sigset_t = std::mem::zeroed();
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            if child.trace {
                std::fs::write("/proc/self/trace", "1")?;
            }
            libc::execvp(program.as_ptr(), argv.as_ptr());
        }
        Err(io::Error::last_os_error())
    };
    attempt().err().unwrap_or_else(|| io::ErrorKind::Other.into())
}

/// The text as a C string; whatever follows a NUL is lost.
pub fn c_string(text: &OsStr) -> CString {
    let bytes = text.as_bytes();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    CString::new(&bytes[..end]).unwrap_or_default()
}

pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_size(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
