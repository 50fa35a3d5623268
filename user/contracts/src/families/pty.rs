//! Pseudo-terminals: packet mode, lines that are made elsewhere (EXTPROC), and the two ends.

use libc::*;

use crate::file::{close, open, read, write};
use crate::process;
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::terminal::{eventually, get, name_of, pty, raw, session, set, typed, waiting_pty};
use crate::{say, signal, tests};

tests! {
    packets_of_data, switching, flushes, stop_and_go, flow_settings, stop_settings_add_up, signals_flush, last_close,
    polled, one_status_first, settings_of_external_lines, external_lines, external_end_of_file, external_and_back,
    waiting_reader_of_a_closed_master, reader_of_a_closed_master, numbers_stay, peer, peer_without_a_name, peer_locked,
}

const EXTPROC: u32 = 0o200000;
const TIOCGPKT: u32 = 0x8004_5438;
const TIOCGPTPEER: i32 = 0x5441;

fn packet_mode(master: i32, on: i32) -> Ret {
    sys!(SYS_ioctl, master, TIOCPKT, &on)
}

/// What the master reads next: the first byte as a number, and the rest as text. It waits a moment for it.
fn packet(master: i32) -> String {
    let mut entry = pollfd { fd: master, events: POLLIN, revents: 0 };
    let time = timespec { tv_sec: 0, tv_nsec: 60_000_000 };
    sys!(SYS_ppoll, &mut entry, 1, &time, 0, 8);
    let mut buffer = [0u8; 200];
    match sys!(SYS_read, master, &mut buffer, 200) {
        Ret(length @ 1..) => {
            let (first, rest) = buffer[..length as usize].split_at(1);
            format!("{:#x} {:?}", first[0], String::from_utf8_lossy(rest))
        }
        ret => ret.to_string(),
    }
}

fn packets_of_data() {
    let (master, slave) = pty();
    packet_mode(master, 1);
    say!("nothing: {}", packet(master));
    write(slave, "output\n");
    say!("output: {}", packet(master));
    write(slave, "more");
    process::sleep_ms(20);
    say!("of one byte: {}", read(master, 1));
    say!("of two: {}", read(master, 2));
    say!("the rest: {}", packet(master));
    typed(master, slave, "in\n", 3);
    say!("an echo: {}", packet(master));
    say!("a write is as before: {}", read(slave, 10));
    write(slave, "abc");
    process::sleep_ms(20);
    let mut count = -1i32;
    say!("FIONREAD: {} {count}", sys!(SYS_ioctl, master, FIONREAD, &mut count));
    say!("{count}");
}

fn switching() {
    let (master, slave) = pty();
    let mode = || {
        let mut on = -1i32;
        format!("{} {on}", sys!(SYS_ioctl, master, TIOCGPKT, &mut on)) + &format!(" {on}")
    };
    say!("at first: {}", mode());
    say!("on: {} {}", packet_mode(master, 7), mode());
    write(slave, "x");
    process::sleep_ms(20);
    say!("off: {} {}", packet_mode(master, 0), mode());
    say!("plain: {}", eventually(master));
    say!("bad pointers: {} {}", sys!(SYS_ioctl, master, TIOCPKT, NOWHERE), sys!(SYS_ioctl, master, TIOCGPKT, NOWHERE));
    say!("of the slave: {} {}", packet_mode(slave, 1), sys!(SYS_ioctl, slave, TIOCGPKT, &mut 0i32));
    sys!(SYS_ioctl, slave, TCFLSH, TCIOFLUSH);
    packet_mode(master, 1);
    say!("what was before is not told: {}", packet(master));
    sys!(SYS_ioctl, slave, TCFLSH, TCIOFLUSH);
    packet_mode(master, 1);
    say!("on again keeps it: {}", packet(master));
    sys!(SYS_ioctl, slave, TCFLSH, TCIOFLUSH);
    packet_mode(master, 0);
    packet_mode(master, 1);
    say!("off and on loses it: {}", packet(master));
}

fn flushes() {
    let (master, slave) = pty();
    packet_mode(master, 1);
    for (name, queue) in [("TCIFLUSH", TCIFLUSH), ("TCOFLUSH", TCOFLUSH), ("TCIOFLUSH", TCIOFLUSH)] {
        sys!(SYS_ioctl, slave, TCFLSH, queue);
        say!("{name}: {}", packet(master));
        sys!(SYS_ioctl, master, TCFLSH, queue);
        say!("{name} by the master: {}", packet(master));
    }
    let termios = get(slave);
    sys!(SYS_ioctl, slave, TCSETSF, &termios);
    say!("TCSETSF: {}", packet(master));
    sys!(SYS_ioctl, slave, TCSETS, &termios);
    say!("TCSETS: {}", packet(master));
}

fn stop_and_go() {
    let (master, slave) = pty();
    packet_mode(master, 1);
    let control = |action: i32| sys!(SYS_ioctl, slave, TCXONC, action);
    control(TCOOFF);
    say!("TCOOFF: {}", packet(master));
    control(TCOOFF);
    say!("again: {}", packet(master));
    control(TCOON);
    say!("TCOON: {}", packet(master));
    control(TCOON);
    say!("again: {}", packet(master));
    control(TCOOFF);
    control(TCOON);
    say!("both: {}", packet(master));
    write(master, "\x13");
    say!("a stop character: {}", packet(master));
    write(slave, "held");
    say!("output: {}", packet(master));
    write(master, "\x11");
    say!("a start character: {}", packet(master));
    write(master, "\x11");
    say!("another: {}", packet(master));
}

fn flow_settings() {
    let (master, slave) = pty();
    packet_mode(master, 1);
    set(slave, |termios| termios.input &= !IXON);
    say!("without IXON: {}", packet(master));
    set(slave, |termios| termios.input |= IXON);
    say!("with it: {}", packet(master));
    set(slave, |termios| termios.characters[VSTOP] = b's');
    say!("another stop character: {}", packet(master));
    set(slave, |termios| termios.characters[VSTOP] = 0x13);
    say!("the usual: {}", packet(master));
    set(slave, |termios| termios.local &= !ECHO);
    say!("something else: {}", packet(master));
    set(master, |termios| termios.input &= !IXON);
    say!("by the master: {}", packet(master));
}

fn stop_settings_add_up() {
    let (master, slave) = pty();
    packet_mode(master, 1);
    set(slave, |termios| termios.input &= !IXON);
    sys!(SYS_ioctl, slave, TCFLSH, TCIOFLUSH);
    sys!(SYS_ioctl, slave, TCXONC, TCOOFF);
    say!("three in one: {}", packet(master));
    set(slave, |termios| termios.input |= IXON);
    set(slave, |termios| termios.input &= !IXON);
    say!("the last counts: {}", packet(master));
    sys!(SYS_ioctl, slave, TCXONC, TCOON);
    set(slave, |termios| termios.input |= IXON);
    write(master, "\x13");
    say!("stopped: {}", packet(master));
    set(slave, |termios| termios.input &= !IXON);
    say!("no flow control any more, so it goes on: {}", packet(master));
}

fn signals_flush() {
    let (master, slave) = pty();
    packet_mode(master, 1);
    session(slave, || {
        signal::ignore(SIGINT);
        write(master, "\x03");
        say!("a signal: {}", packet(master));
        say!("its echo: {}", packet(master));
        set(slave, |termios| termios.local |= NOFLSH);
        write(master, "\x03");
        say!("NOFLSH: {}", packet(master));
    });
}

fn last_close() {
    let (master, slave) = pty();
    packet_mode(master, 1);
    let copy = sys!(SYS_dup, slave).fd();
    close(slave);
    say!("one of two: {}", packet(master));
    write(copy, "last");
    close(copy);
    say!("the last: {}", packet(master));
    say!("then: {}", packet(master));
    say!("then: {}", packet(master));
}

fn polled() {
    let (master, slave) = pty();
    packet_mode(master, 1);
    let ready = || {
        let mut entry = pollfd { fd: master, events: POLLIN | POLLPRI | POLLOUT, revents: 0 };
        let now = timespec { tv_sec: 0, tv_nsec: 20_000_000 };
        sys!(SYS_ppoll, &mut entry, 1, &now, 0, 8);
        format!("{:#x}", entry.revents)
    };
    say!("nothing: {}", ready());
    sys!(SYS_ioctl, slave, TCFLSH, TCIFLUSH);
    say!("a status: {}", ready());
    packet(master);
    write(slave, "x");
    process::sleep_ms(20);
    say!("data: {}", ready());
    packet(master);
    let child = process::child(|| {
        let mut entry = pollfd { fd: master, events: POLLPRI, revents: 0 };
        sys!(SYS_ppoll, &mut entry, 1, 0, 0, 8);
        say!("one that waits: {:#x}", entry.revents);
        0
    });
    process::until_asleep(child);
    sys!(SYS_ioctl, slave, TCFLSH, TCIFLUSH);
    process::wait(child);
}

fn one_status_first() {
    let (master, slave) = pty();
    packet_mode(master, 1);
    write(slave, "data");
    process::sleep_ms(20);
    sys!(SYS_ioctl, slave, TCXONC, TCOOFF);
    say!("the status first: {}", packet(master));
    say!("then data: {}", packet(master));
    sys!(SYS_ioctl, slave, TCXONC, TCOON);
    say!("into bad memory: {}", sys!(SYS_read, master, NOWHERE, 10));
}

fn settings_of_external_lines() {
    let (master, slave) = pty();
    set(slave, |termios| termios.local |= EXTPROC);
    say!("before packet mode: {:#o}", get(slave).local & EXTPROC);
    packet_mode(master, 1);
    set(slave, |termios| termios.local &= !ECHO);
    say!("a change: {}", packet(master));
    set(slave, |_| {});
    say!("no change: {}", packet(master));
    set(slave, |termios| termios.local &= !EXTPROC);
    say!("switched off: {}", packet(master));
    set(slave, |termios| termios.local |= ECHO);
    say!("then: {}", packet(master));
    set(slave, |termios| termios.local |= EXTPROC);
    say!("switched on: {}", packet(master));
}

fn external_lines() {
    let (master, slave) = pty();
    set(slave, |termios| termios.local |= EXTPROC);
    typed(master, slave, "no line", 7);
    say!("no line is waited for: {}", read(slave, 100));
    typed(master, slave, "a\x7fb\x15c\x13\x03\r", 8);
    say!("no character means anything: {}", read(slave, 100));
    say!("no echo: {}", packet(master));
    write(slave, "out\n");
    say!("output as ever: {}", eventually(master));
    typed(master, slave, "one\ntwo\n", 8);
    say!("several lines at once: {}", read(slave, 100));
    raw(slave, 3, 0);
    typed(master, slave, "xy", 2);
    let mut entry = pollfd { fd: slave, events: POLLIN, revents: 0 };
    let now = timespec { tv_sec: 0, tv_nsec: 0 };
    sys!(SYS_ppoll, &mut entry, 1, &now, 0, 8);
    say!("VMIN: {:#x} {}", entry.revents, read(slave, 10));
}

fn external_end_of_file() {
    let (master, slave) = pty();
    set(slave, |termios| termios.local |= EXTPROC);
    typed(master, slave, "\x04", 1);
    say!("alone: {}", read(slave, 10));
    typed(master, slave, "x\x04", 2);
    say!("with others: {}", read(slave, 10));
    typed(master, slave, "y\x04", 2);
    say!("left over: {} {}", read(slave, 1), read(slave, 10));
}

fn external_and_back() {
    let (master, slave) = pty();
    set(slave, |termios| termios.local |= EXTPROC);
    typed(master, slave, "left", 4);
    set(slave, |termios| termios.local &= !EXTPROC);
    say!("what is there is a line: {}", read(slave, 100));
    typed(master, slave, "an ", 0);
    process::sleep_ms(20);
    set(slave, |termios| termios.local |= EXTPROC);
    say!("a line that was begun: {}", read(slave, 100));
}

fn waiting_reader_of_a_closed_master() {
    let (master, slave) = waiting_pty();
    let child = process::child(|| {
        close(master);
        say!("it waited: {}", read(slave, 10));
        say!("again: {}", read(slave, 10));
        0
    });
    process::until_asleep(child);
    close(master);
    process::wait(child);
}

fn reader_of_a_closed_master() {
    let (master, slave) = waiting_pty();
    close(master);
    say!("a read: {}", read(slave, 10));
    say!("a write: {}", write(slave, "x"));
    raw_or_error(slave);
    let mut count = -1i32;
    say!("FIONREAD: {}", sys!(SYS_ioctl, slave, FIONREAD, &mut count));
    let file = sys!(SYS_fcntl, slave, F_SETFL, O_NONBLOCK);
    say!("without waiting: {file} {}", read(slave, 10));
}

fn raw_or_error(slave: i32) {
    let mut termios: crate::terminal::Termios = zeroed();
    say!("TCGETS: {}", sys!(SYS_ioctl, slave, TCGETS, &mut termios));
}

fn numbers_stay() {
    let (master, slave) = pty();
    let name = name_of(master);
    close(master);
    let (other, _) = pty();
    say!("a number that a slave has: {}", name_of(other) == name);
    say!("leads nowhere: {}", open(&name, O_RDWR | O_NOCTTY));
    close(slave);
    process::sleep_ms(50);
    let (third, _) = pty();
    say!("when that is closed, too: {}", name_of(third) == name);
}

fn peer() {
    let master = open(c"/dev/ptmx", O_RDWR | O_NOCTTY).fd();
    sys!(SYS_ioctl, master, TIOCSPTLCK, &0i32).need();
    let slave = sys!(SYS_ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK).fd();
    say!("flags: {:o} {}", sys!(SYS_fcntl, slave, F_GETFL, 0).0 & 0xffff, sys!(SYS_fcntl, slave, F_GETFD, 0));
    write(slave, "hello");
    say!("it is the other end: {}", eventually(master));
    let link = std::fs::read_link(format!("/proc/self/fd/{slave}")).unwrap_or_default();
    say!(
        "named as it is: {}",
        Some(link.as_os_str()) == std::str::from_utf8(name_of(master).as_bytes()).ok().map(|s| s.as_ref())
    );
    let reader = sys!(SYS_ioctl, master, TIOCGPTPEER, O_RDONLY | O_NOCTTY).fd();
    say!("to read only: {}", write(reader, "x"));
    say!("of a slave: {}", sys!(SYS_ioctl, slave, TIOCGPTPEER, O_RDWR));
}

fn peer_without_a_name() {
    let master = open(c"/dev/ptmx", O_RDWR | O_NOCTTY).fd();
    sys!(SYS_ioctl, master, TIOCSPTLCK, &0i32).need();
    let status = process::as_user(1000, || {
        let slave = sys!(SYS_ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
        say!(
            "a user who could not open it by its name: {} {}",
            open(&name_of(master), O_RDWR | O_NOCTTY),
            slave.ok_or_error()
        );
        0
    });
    say!("{status}");
    crate::file::mkdir(c"empty");
    process::in_child(|| {
        sys!(SYS_chroot, c"empty").need();
        say!("where there is no /dev: {}", sys!(SYS_ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY).ok_or_error());
        0
    });
}

fn peer_locked() {
    let master = open(c"/dev/ptmx", O_RDWR | O_NOCTTY).fd();
    say!("locked: {}", sys!(SYS_ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY));
    sys!(SYS_ioctl, master, TIOCSPTLCK, &0i32).need();
    let status = session(open(&name_of(master), O_RDWR | O_NOCTTY).fd(), || {
        say!("with a terminal already: {}", sys!(SYS_ioctl, master, TIOCGPTPEER, O_RDWR).ok_or_error());
    });
    say!("{status}");
}
