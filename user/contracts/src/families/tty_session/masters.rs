//! The other side of the terminal, and names of terminals.

use libc::*;

use crate::file::{self, close, described, fstat, open, read, stat, write};
use crate::process::{self, Gate};
use crate::sys::{NOWHERE, sys, zeroed};
use crate::terminal::{Termios, eventually, name_of, own_group, pty, session, set, typed, waiting_pty};
use crate::{say, signal};

pub(super) fn master_closes() {
    let (master, slave) = waiting_pty();
    let name = name_of(master);
    typed(master, slave, "unread\n", 7);
    close(master);
    say!("read: {}", read(slave, 10));
    say!("again: {}", read(slave, 10));
    say!("write: {}", write(slave, "x"));
    let mut termios: Termios = zeroed();
    say!(
        "ioctl: {} {}",
        sys!(SYS_ioctl, slave, TCGETS, &mut termios),
        sys!(SYS_ioctl, slave, TIOCGWINSZ, &mut [0u16; 4])
    );
    let mut entry = pollfd { fd: slave, events: POLLIN | POLLOUT, revents: 0 };
    let now = timespec { tv_sec: 0, tv_nsec: 0 };
    say!("poll: {} {:#x}", sys!(SYS_ppoll, &mut entry, 1, &now, 0, 8), entry.revents);
    say!("open: {}", open(&name, O_RDWR | O_NOCTTY));
    say!("stat: {}", described(stat(&name)));
    say!("fstat: {}", fstat(slave).is_ok());
}

pub(super) fn slave_closes() {
    let (master, slave) = pty();
    let name = name_of(master);
    write(slave, "last words");
    say!("something to read: {}", eventually(master));
    write(slave, "unread");
    close(slave);
    say!("what was written: {}", eventually(master));
    say!("then: {}", read(master, 10));
    let mut entry = pollfd { fd: master, events: POLLIN | POLLOUT, revents: 0 };
    let now = timespec { tv_sec: 0, tv_nsec: 0 };
    say!("poll: {} {:#x}", sys!(SYS_ppoll, &mut entry, 1, &now, 0, 8), entry.revents);
    let again = open(&name, O_RDWR | O_NOCTTY | O_NONBLOCK).fd();
    say!("opened again: {}", read(master, 10));
    write(again, "new");
    say!("works: {}", eventually(master));
    let unopened = open(c"/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK).fd();
    say!("never opened: {}", read(unopened, 10));
    entry.fd = unopened;
    sys!(SYS_ppoll, &mut entry, 1, &now, 0, 8);
    say!("poll: {:#x}", entry.revents);
}

pub(super) fn hangup_of_a_session() {
    let (master, slave) = waiting_pty();
    let (ready, done) = (Gate::new(), Gate::new());
    let leader = process::child(|| {
        sys!(SYS_setsid);
        sys!(SYS_ioctl, slave, TIOCSCTTY, 0);
        close(master);
        signal::mask(SIG_BLOCK, signal::bit(SIGHUP) | signal::bit(SIGCONT));
        let member = process::child(|| {
            sys!(SYS_setpgid, 0, 0);
            ready.open();
            let (taken, _) = signal::take(signal::bit(SIGHUP), 5000);
            i32::from(taken.0 == i64::from(SIGHUP))
        });
        ready.pass();
        signal::block(SIGTTOU);
        sys!(SYS_ioctl, slave, TIOCSPGRP, &member);
        done.open();
        let (taken, _) = signal::take(signal::bit(SIGHUP), 5000);
        say!("the leader: {}", signal::name(taken.0 as i32));
        let (taken, _) = signal::take(signal::bit(SIGCONT), 5000);
        say!("and: {}", signal::name(taken.0 as i32));
        say!("the foreground group: {}", process::wait(member));
        say!("the terminal is gone: {} {}", open(c"/dev/tty", O_RDWR), read(slave, 10));
        0
    });
    done.pass();
    close(slave);
    close(master);
    process::wait(leader);
}

pub(super) fn leader_exits() {
    let (master, slave) = pty();
    let done = Gate::new();
    let leader = process::child(|| {
        sys!(SYS_setsid);
        sys!(SYS_ioctl, slave, TIOCSCTTY, 0);
        let ready = Gate::new();
        process::child(|| {
            signal::mask(SIG_BLOCK, signal::bit(SIGHUP) | signal::bit(SIGCONT));
            ready.open();
            let (taken, _) = signal::take(signal::bit(SIGHUP), 5000);
            say!("the foreground: {}", signal::name(taken.0 as i32));
            while open(c"/dev/tty", O_RDWR).ok() {
                process::sleep_ms(1);
            }
            say!("its descriptor: {} {}", read(slave, 10), write(slave, "x"));
            let mut group = 0i32;
            say!("TIOCGPGRP: {}", sys!(SYS_ioctl, slave, TIOCGPGRP, &mut group));
            done.open();
            0
        });
        ready.pass();
        0
    });
    done.pass();
    say!("the leader: {}", process::wait(leader));
    say!("this end: {} {}", read(slave, 10), write(slave, "y"));
    let again = open(&name_of(master), O_RDWR | O_NOCTTY);
    say!("opened again: {} {}", again.ok_or_error(), write(again.fd(), "new"));
    say!("all: {}", eventually(master));
}

pub(super) fn locked() {
    let master = open(c"/dev/ptmx", O_RDWR | O_NOCTTY).fd();
    let name = name_of(master);
    let mut state = 9i32;
    say!("at first: {} {state}", sys!(SYS_ioctl, master, TIOCGPTLCK, &mut state));
    say!("is locked: {state}");
    say!("open: {}", open(&name, O_RDWR | O_NOCTTY));
    say!("TIOCGPTPEER: {}", sys!(SYS_ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY));
    sys!(SYS_ioctl, master, TIOCSPTLCK, &0i32);
    say!("unlocked: {}", open(&name, O_RDWR | O_NOCTTY).ok_or_error());
    let peer = sys!(SYS_ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
    say!("TIOCGPTPEER: {}", peer.ok_or_error());
    say!("it is the slave: {}", fstat(peer.fd()).map(|stat| stat.st_rdev) == stat(&name).map(|stat| stat.st_rdev));
    sys!(SYS_ioctl, master, TIOCSPTLCK, &1i32);
    say!("locked again: {}", open(&name, O_RDWR | O_NOCTTY));
    say!("TIOCSPTLCK, bad pointer: {}", sys!(SYS_ioctl, master, TIOCSPTLCK, NOWHERE));
}

pub(super) fn packet_mode() {
    let (master, slave) = pty();
    let mut mode = 9i32;
    say!("on: {}", sys!(SYS_ioctl, master, TIOCPKT, &1i32));
    say!("is on: {} {}", sys!(SYS_ioctl, master, TIOCGPKT, &mut mode), mode);
    write(slave, "data");
    say!("data: {}", eventually(master));
    say!("nothing: {}", read(master, 10));
    sys!(SYS_ioctl, slave, TCFLSH, TCIOFLUSH);
    say!("flushed: {}", eventually(master));
    set(slave, |termios| termios.input &= !IXON);
    say!("no flow control: {}", eventually(master));
    set(slave, |termios| termios.input |= IXON);
    say!("flow control: {}", eventually(master));
    let mut entry = pollfd { fd: master, events: POLLIN | POLLPRI, revents: 0 };
    let now = timespec { tv_sec: 0, tv_nsec: 0 };
    sys!(SYS_ioctl, slave, TCXONC, TCOOFF);
    sys!(SYS_ppoll, &mut entry, 1, &now, 0, 8);
    say!("stopped: {:#x} {}", entry.revents, eventually(master));
    sys!(SYS_ioctl, slave, TCXONC, TCOON);
    say!("started: {}", eventually(master));
    say!("off: {}", sys!(SYS_ioctl, master, TIOCPKT, &0i32));
    write(slave, "plain");
    say!("plain: {}", eventually(master));
    say!("of the slave: {}", sys!(SYS_ioctl, slave, TIOCPKT, &1i32));
}

pub(super) fn exclusive() {
    let (master, slave) = pty();
    let name = name_of(master);
    sys!(SYS_fchmodat, AT_FDCWD, name.as_c_str(), 0o666);
    let mut state = 9i32;
    say!("on: {}", sys!(SYS_ioctl, slave, TIOCEXCL, 0));
    say!("is on: {} {state}", sys!(SYS_ioctl, slave, TIOCGEXCL, &mut state));
    say!("{state}");
    say!("root: {}", open(&name, O_RDWR | O_NOCTTY).ok_or_error());
    process::as_plain_user(|| say!("a user: {}", open(&name, O_RDWR | O_NOCTTY).ok_or_error()));
    say!("off: {}", sys!(SYS_ioctl, slave, TIOCNXCL, 0));
    process::as_plain_user(|| say!("a user: {}", open(&name, O_RDWR | O_NOCTTY).ok_or_error()));
}

pub(super) fn device_files() {
    let (master, slave) = pty();
    let name = name_of(master);
    let stat = stat(&name).unwrap_or_else(|_| zeroed());
    say!("slave: mode {:o}, owner {}, links {}", stat.st_mode, stat.st_uid, stat.st_nlink);
    say!("device: major {}", libc::major(stat.st_rdev));
    let master_stat = fstat(master).unwrap_or_else(|_| zeroed());
    say!("master: mode {:o}, device {}:{}", master_stat.st_mode, libc::major(master_stat.st_rdev), {
        libc::minor(master_stat.st_rdev)
    });
    process::as_plain_user(|| {
        let master = open(c"/dev/ptmx", O_RDWR | O_NOCTTY).fd();
        let stat = file::stat(&name_of(master)).unwrap_or_else(|_| zeroed());
        say!("a user's: mode {:o}, owner {}", stat.st_mode, stat.st_uid);
        say!("another's: {}", open(&name, O_RDWR | O_NOCTTY));
    });
    say!(
        "link of the slave: {}",
        std::fs::read_link(format!("/proc/self/fd/{slave}"))
            .is_ok_and(|link| { link.to_string_lossy() == name.to_string_lossy() })
    );
    say!("create in it: {}", open(c"/dev/pts/x", O_CREAT | O_RDWR));
    say!("remove: {}", file::unlink(&name));
    say!("a number that is not there: {}", open(c"/dev/pts/9999", O_RDWR | O_NOCTTY));
}

pub(super) fn dev_tty() {
    let (master, slave) = pty();
    session(slave, || {
        let tty = open(c"/dev/tty", O_RDWR).fd();
        say!("write: {} {}", write(tty, "by name"), eventually(master));
        let stat = fstat(tty).unwrap_or_else(|_| zeroed());
        say!("device: {}:{}", libc::major(stat.st_rdev), libc::minor(stat.st_rdev));
        let mut group = 0i32;
        say!("TIOCGPGRP: {} {}", sys!(SYS_ioctl, tty, TIOCGPGRP, &mut group), group == own_group());
        typed(master, slave, "in\n", 3);
        say!("read: {}", read(tty, 10));
        process::in_child(|| {
            say!("a child: {}", open(c"/dev/tty", O_RDWR).ok_or_error());
            sys!(SYS_setsid);
            say!("in a session of its own: {}", open(c"/dev/tty", O_RDWR));
            say!("what was open works on: {}", write(tty, "x"));
            0
        });
        let field = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let number = field.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(4)).unwrap_or_default().to_string();
        let device = fstat(slave).map_or(0, |stat| stat.st_rdev);
        say!("/proc/self/stat has it: {}", number == device.to_string());
    });
}
