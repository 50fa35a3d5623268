//! Terminals, through both ends of a pty.

use libc::*;

use crate::file::{self, close, described, fstat, open, path, read, stat, write};
use crate::process::{self, Gate};
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, signal, tests};

tests! {
    defaults, lines, end_of_file, echo, echo_of_controls, erase, erase_utf8, special_characters, raw_reads,
    raw_with_minimum, raw_with_time, mode_switches, input_mapping, output_mapping, signals, signals_keep_input,
    flow_control, window_size, controlling, not_a_leader, groups, background_reads, background_writes,
    background_changes, master_closes, slave_closes, hangup_of_a_session, leader_exits, flushes, queues, bad_ioctls,
    settings, locked, packet_mode, readiness, long_lines, exclusive, device_files, dev_tty,
    stop_by_key, columns, interrupted_between_bytes
}

/// `struct termios` of the kernel.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Termios {
    input: u32,
    output: u32,
    control: u32,
    local: u32,
    line: u8,
    characters: [u8; 19],
}

fn get(fd: i32) -> Termios {
    let mut termios: Termios = zeroed();
    sys!(SYS_ioctl, fd, TCGETS, &mut termios).need();
    termios
}

/// Changes the settings of a terminal.
fn set(fd: i32, change: impl FnOnce(&mut Termios)) -> Ret {
    let mut termios = get(fd);
    change(&mut termios);
    sys!(SYS_ioctl, fd, TCSETS, &termios)
}

/// Both ends of a new pty, to which reads do not wait.
fn pty() -> (i32, i32) {
    let (master, slave) = waiting_pty();
    sys!(SYS_fcntl, master, F_SETFL, O_RDWR | O_NONBLOCK);
    sys!(SYS_fcntl, slave, F_SETFL, O_RDWR | O_NONBLOCK);
    (master, slave)
}

fn waiting_pty() -> (i32, i32) {
    let master = open(c"/dev/ptmx", O_RDWR | O_NOCTTY).fd();
    sys!(SYS_ioctl, master, TIOCSPTLCK, &0i32).need();
    (master, open(&name_of(master), O_RDWR | O_NOCTTY).fd())
}

fn name_of(master: i32) -> std::ffi::CString {
    let mut number = -1i32;
    sys!(SYS_ioctl, master, TIOCGPTN, &mut number).need();
    path(format!("/dev/pts/{number}"))
}

/// Runs `body` in a child that leads a session of its own with the slave as its terminal.
fn session(slave: i32, body: impl FnOnce()) -> process::Status {
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
fn eventually(fd: i32) -> String {
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
fn typed(master: i32, slave: i32, text: &str, count: i32) {
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

fn raw(slave: i32, minimum: u8, time: u8) {
    set(slave, |termios| {
        termios.local &= !(ICANON | ECHO);
        termios.characters[VMIN] = minimum;
        termios.characters[VTIME] = time;
    });
}

fn own_group() -> i32 {
    sys!(SYS_getpgid, 0).0 as i32
}

fn defaults() {
    let (master, slave) = pty();
    for (what, fd) in [("slave", slave), ("master", master)] {
        let termios = get(fd);
        say!("{what}: input {:o} output {:o}", termios.input, termios.output);
        say!("control {:o} local {:o} line {}", termios.control, termios.local, termios.line);
        say!("characters {:?}", termios.characters);
    }
    let mut size = [9u16; 4];
    say!("size: {} {size:?}", sys!(SYS_ioctl, slave, TIOCGWINSZ, &mut size));
    say!("a new one starts afresh: {}", {
        set(slave, |termios| termios.local = 0);
        let (_, other) = pty();
        get(other).local != 0
    });
    say!("discipline: {}", {
        let mut line = 9i32;
        sys!(SYS_ioctl, slave, TIOCGETD, &mut line);
        line
    });
}

fn lines() {
    let (master, slave) = pty();
    write(master, "abc");
    say!("no line yet: {}", read(slave, 10));
    typed(master, slave, "d\n", 5);
    say!("a line: {}", read(slave, 10));
    typed(master, slave, "one\ntwo\nthr", 8);
    say!("one at a time: {} {} {}", read(slave, 100), read(slave, 100), read(slave, 100));
    typed(master, slave, "ee\nlong line\n", 16);
    say!("in pieces: {} {} {}", read(slave, 3), read(slave, 100), read(slave, 4));
    say!("the rest: {}", read(slave, 100));
    say!("read of nothing: {}", read(slave, 0));
    typed(master, slave, "\n", 1);
    say!("an empty line: {}", read(slave, 100));
    say!("carriage return: {}", {
        typed(master, slave, "cr\r", 3);
        read(slave, 100)
    });
}

fn end_of_file() {
    let (master, slave) = waiting_pty();
    write(master, "\x04");
    say!("alone: {}", read(slave, 10));
    write(master, "abc\x04");
    say!("after text: {}", read(slave, 10));
    write(master, "\x04\x04next\n");
    say!("twice: {} {} {}", read(slave, 10), read(slave, 10), read(slave, 10));
    write(master, "abc\x04");
    say!("read just the text: {}", read(slave, 3));
    write(master, "more\n");
    say!("no end in between: {}", read(slave, 10));
    write(master, "line\n\x04");
    say!("after a line: {} {}", read(slave, 10), read(slave, 10));
    set(slave, |termios| termios.characters[VEOF] = b'!');
    write(master, "other!");
    say!("another character: {}", read(slave, 10));
    set(slave, |termios| termios.characters[VEOF] = 0);
    write(master, "\x04x\n");
    say!("none: {}", read(slave, 10));
    set(slave, |termios| {
        termios.characters[VEOL] = b';';
        termios.characters[VEOL2] = b',';
    });
    write(master, "a;b,c\n");
    say!("ends of lines: {} {} {}", read(slave, 10), read(slave, 10), read(slave, 10));
}

fn echo() {
    let (master, slave) = pty();
    typed(master, slave, "hello\n", 6);
    say!("echo: {}", eventually(master));
    write(slave, "out\n");
    say!("output: {}", eventually(master));
    set(slave, |termios| termios.local &= !ECHO);
    typed(master, slave, "hidden\n", 13);
    say!("no echo: {}", read(master, 100));
    set(slave, |termios| termios.local |= ECHONL);
    typed(master, slave, "hidden\n", 20);
    say!("only the new line: {}", eventually(master));
    set(slave, |termios| {
        termios.local |= ECHO;
        termios.output &= !OPOST;
    });
    typed(master, slave, "raw\n", 24);
    say!("without OPOST: {}", eventually(master));
    raw(slave, 1, 0);
    set(slave, |termios| termios.local |= ECHO);
    typed(master, slave, "x\r", 26);
    say!("not canonical: {}", eventually(master));
}

fn echo_of_controls() {
    let (master, slave) = pty();
    set(slave, |termios| termios.local &= !ISIG);
    typed(master, slave, "\x01\x1b\x7e\t\n", 5);
    say!("ECHOCTL: {}", eventually(master));
    set(slave, |termios| termios.local &= !ECHOCTL);
    typed(master, slave, "\x01\x1b\n", 8);
    say!("without: {}", eventually(master));
    set(slave, |termios| termios.local |= ECHOCTL);
    typed(master, slave, "a\x04", 9);
    say!("the end of a file: {}", eventually(master));
    session(slave, || {
        signal::ignore(SIGINT);
        set(slave, |termios| termios.local |= ISIG);
        write(master, "\x03");
        say!("a signal's: {}", eventually(master));
    });
}

fn erase() {
    let (master, slave) = pty();
    typed(master, slave, "abx\x7fc\n", 4);
    say!("one: {}", read(slave, 10));
    say!("echo: {}", eventually(master));
    typed(master, slave, "ab\x7f\x7f\x7f\x7fc\n", 2);
    say!("more than there is: {} {}", read(slave, 10), eventually(master));
    typed(master, slave, "gone\x15kept\n", 5);
    say!("the line: {} {}", read(slave, 10), eventually(master));
    typed(master, slave, "two words\x17one\n", 8);
    say!("a word: {} {}", read(slave, 20), eventually(master));
    typed(master, slave, "a  b  \x17c\n", 5);
    say!("with spaces: {} {}", read(slave, 20), eventually(master));
    typed(master, slave, "a\x01\x7fb\n", 3);
    say!("a control character: {} {}", read(slave, 20), eventually(master));
    typed(master, slave, "a\tb\x7f\x7fc\n", 3);
    say!("a tab: {} {}", read(slave, 20), eventually(master));
    set(slave, |termios| termios.local &= !ECHOE);
    typed(master, slave, "ab\x7fc\n", 3);
    say!("without ECHOE: {} {}", read(slave, 20), eventually(master));
    set(slave, |termios| termios.local = (termios.local | ECHOE) & !ECHOKE);
    typed(master, slave, "gone\x15x\n", 2);
    say!("without ECHOKE: {} {}", read(slave, 20), eventually(master));
    set(slave, |termios| termios.local &= !(ECHOK | ECHOE));
    typed(master, slave, "gone\x15x\n", 2);
    say!("without ECHOK: {} {}", read(slave, 20), eventually(master));
    set(slave, |termios| termios.local |= ECHOPRT | ECHOE);
    typed(master, slave, "abc\x7f\x7fd\n", 3);
    say!("ECHOPRT: {} {}", read(slave, 20), eventually(master));
    set(slave, |termios| termios.local &= !IEXTEN);
    typed(master, slave, "a b\x17\n", 5);
    say!("without IEXTEN: {}", read(slave, 20));
}

fn erase_utf8() {
    let (master, slave) = pty();
    set(slave, |termios| termios.input |= IUTF8);
    typed(master, slave, "a\u{e4}\u{20ac}\x7fb\n", 5);
    say!("one character: {}", read(slave, 20));
    say!("echo: {}", eventually(master));
    set(slave, |termios| termios.input &= !IUTF8);
    typed(master, slave, "\u{e4}\x7f\n", 2);
    let mut bytes = [0u8; 4];
    let ret = sys!(SYS_read, slave, &mut bytes, 4);
    say!("without IUTF8, a byte: {ret} {bytes:?}");
}

fn special_characters() {
    let (master, slave) = pty();
    session(slave, || {
        signal::ignore(SIGINT);
        typed(master, slave, "\x16\x03a\x16\x7fb\n", 5);
        say!("taken literally: {} {}", read(slave, 20), eventually(master));
    });
    typed(master, slave, "ab\x12c\n", 4);
    say!("reprint: {} {}", read(slave, 20), eventually(master));
    set(slave, |termios| termios.characters[VERASE] = b'#');
    typed(master, slave, "ab#c\x7f\n", 4);
    say!("another character to erase: {}", read(slave, 20));
    eventually(master);
    set(slave, |termios| termios.characters[VERASE] = 0);
    typed(master, slave, "ab#\n", 4);
    say!("none: {}", read(slave, 20));
}

fn raw_reads() {
    let (master, slave) = pty();
    raw(slave, 1, 0);
    say!("nothing: {}", read(slave, 10));
    typed(master, slave, "ab\x7f\x04\r\n", 6);
    say!("as it comes: {}", read(slave, 10));
    typed(master, slave, "12345", 5);
    say!("in pieces: {} {}", read(slave, 2), read(slave, 10));
    set(slave, |termios| {
        termios.input = 0;
        termios.output = 0;
        termios.local = 0;
    });
    typed(master, slave, "\r\x03\x11\x13\x16", 5);
    say!("with all off: {}", read(slave, 10));
    write(slave, "\n\t");
    say!("output: {}", eventually(master));
}

fn raw_with_minimum() {
    let (master, slave) = waiting_pty();
    raw(slave, 3, 0);
    let child = process::child(|| {
        say!("three: {}", read(slave, 10));
        0
    });
    process::until_asleep(child);
    write(master, "12");
    process::sleep_ms(20);
    process::until_asleep(child);
    let still = process::try_wait(child).is_none();
    write(master, "3");
    process::wait(child);
    say!("two were not enough: {still}");
    write(master, "45");
    say!("a shorter read: {}", {
        let child = process::child(|| {
            let text = read(slave, 2);
            say!("two: {text}");
            0
        });
        process::wait(child)
    });
    sys!(SYS_fcntl, slave, F_SETFL, O_RDWR | O_NONBLOCK);
    typed(master, slave, "6", 1);
    say!("O_NONBLOCK does not wait for three: {}", read(slave, 10));
    raw(slave, 0, 0);
    say!("minimum and time of zero, O_NONBLOCK: {}", read(slave, 10));
    sys!(SYS_fcntl, slave, F_SETFL, O_RDWR);
    say!("without it: {}", read(slave, 10));
}

fn raw_with_time() {
    let (master, slave) = waiting_pty();
    raw(slave, 0, 1);
    let before = std::time::Instant::now();
    say!("a tenth of a second: {}", read(slave, 10));
    say!("no earlier: {}", before.elapsed().as_millis() >= 90);
    typed(master, slave, "ab", 2);
    say!("at once: {}", read(slave, 10));
    raw(slave, 5, 1);
    typed(master, slave, "abc", 3);
    let before = std::time::Instant::now();
    say!("the time between bytes: {}", read(slave, 10));
    say!("no earlier: {}", before.elapsed().as_millis() >= 90);
    typed(master, slave, "12345678", 8);
    say!("all of it: {}", read(slave, 10));
    let child = process::child(|| {
        say!("the first byte is waited for: {}", read(slave, 10));
        0
    });
    process::until_asleep(child);
    write(master, "x");
    process::wait(child);
}

fn mode_switches() {
    let (master, slave) = pty();
    typed(master, slave, "line\npart", 5);
    raw(slave, 1, 0);
    say!("canonical to raw: {}", read(slave, 20));
    typed(master, slave, "raw", 3);
    set(slave, |termios| termios.local |= ICANON);
    say!("raw to canonical: {}", read(slave, 20));
    typed(master, slave, "!\n", 1);
    say!("with a line's end: {}", read(slave, 20));
    say!("after: {}", read(slave, 20));
    write(master, "pending");
    let mut termios = get(slave);
    termios.local &= !ICANON;
    process::sleep_ms(20);
    say!("TCSETSF: {}", sys!(SYS_ioctl, slave, TCSETSF, &termios));
    say!("has thrown it away: {}", read(slave, 20));
    say!("TCSETSW: {}", sys!(SYS_ioctl, slave, TCSETSW, &termios));
}

fn input_mapping() {
    let (master, slave) = pty();
    raw(slave, 1, 0);
    let show = |what: &str, flags: u32| {
        set(slave, |termios| termios.input = flags);
        typed(master, slave, "A\rb\n\x11", 1);
        process::sleep_ms(10);
        say!("{what}: {}", read(slave, 20));
    };
    show("none", 0);
    show("ICRNL", ICRNL);
    show("INLCR", INLCR);
    show("IGNCR", IGNCR);
    show("IGNCR and ICRNL", IGNCR | ICRNL);
    show("both ways", ICRNL | INLCR);
    show("IUCLC", IUCLC);
    set(slave, |termios| termios.local |= IEXTEN);
    show("IUCLC with IEXTEN", IUCLC);
    show("IXON", IXON);
    set(slave, |termios| termios.input = ISTRIP);
    sys!(SYS_write, master, &[0xc1u8, 0xe2], 2);
    say!("ISTRIP: {}", eventually(slave));
}

fn output_mapping() {
    let (master, slave) = pty();
    let show = |what: &str, flags: u32| {
        set(slave, |termios| termios.output = flags);
        let ret = write(slave, "a\tB\r\nc\r");
        say!("{what}: {ret} {}", eventually(master));
    };
    show("none", 0);
    show("OPOST", OPOST);
    show("ONLCR without OPOST", ONLCR);
    show("ONLCR", OPOST | ONLCR);
    show("OCRNL", OPOST | OCRNL);
    show("OLCUC", OPOST | OLCUC);
    show("XTABS", OPOST | XTABS);
    show("ONLRET", OPOST | ONLRET);
    show("ONOCR", OPOST | ONOCR);
    set(slave, |termios| termios.output = OPOST | ONOCR);
    write(slave, "\r");
    say!("ONOCR in the first column: {}", read(master, 10));
}

fn signals() {
    let (master, slave) = pty();
    for (key, number) in [("\x03", SIGINT), ("\x1c", SIGQUIT), ("\x1a", SIGTSTP)] {
        session(slave, || {
            signal::handle(number, signal::count, 0);
            write(master, "lost");
            signal::block(number);
            write(master, key);
            let (taken, info) = signal::take(signal::bit(number), 5000);
            say!("{}: {}, code {}", signal::name(number), taken.0 == i64::from(number), info.si_code);
            typed(master, slave, "kept\n", 5);
            say!("input before it is gone: {}", read(slave, 20));
        });
    }
    session(slave, || {
        let [reader, writer] = file::pipe();
        let other = process::child(|| {
            sys!(SYS_setpgid, 0, 0);
            signal::block(SIGINT);
            sys!(SYS_write, writer, "x", 1);
            let (taken, _) = signal::take(signal::bit(SIGINT), 5000);
            i32::from(taken.0 == i64::from(SIGINT))
        });
        read(reader, 1);
        signal::block(SIGTTOU);
        signal::block(SIGINT);
        say!("to the foreground: {}", sys!(SYS_ioctl, slave, TIOCSPGRP, &other));
        write(master, "\x03");
        say!("it got it: {}", process::wait(other));
        say!("the background did not: {}", signal::names(signal::pending()));
    });
    set(slave, |termios| termios.local &= !ISIG);
    typed(master, slave, "\x03\n", 2);
    say!("without ISIG: {}", read(slave, 20));
}

fn signals_keep_input() {
    let (master, slave) = pty();
    set(slave, |termios| termios.local |= NOFLSH);
    session(slave, || {
        signal::block(SIGINT);
        write(master, "kept ");
        write(master, "\x03");
        signal::take(signal::bit(SIGINT), 5000);
        typed(master, slave, "all\n", 9);
        say!("NOFLSH: {}", read(slave, 20));
    });
    eventually(master);
    session(slave, || {
        let child = process::child(|| {
            signal::handle(SIGINT, signal::count, 0);
            sys!(SYS_fcntl, slave, F_SETFL, O_RDWR);
            let text = read(slave, 10);
            say!("a read is interrupted: {text}, caught {}", signal::caught());
            0
        });
        signal::ignore(SIGINT);
        process::until_asleep(child);
        write(master, "\x03");
        process::wait(child);
    });
}

fn flow_control() {
    let (master, slave) = pty();
    write(master, "\x13");
    process::sleep_ms(20);
    say!("stopped by ^S: {}", write(slave, "held"));
    say!("nothing comes: {}", read(master, 10));
    write(master, "\x11");
    process::sleep_ms(20);
    write(slave, "on");
    say!("started by ^Q: {}", eventually(master));
    say!("TCXONC stop: {}", sys!(SYS_ioctl, slave, TCXONC, TCOOFF));
    say!("write: {}", write(slave, "x"));
    say!("TCXONC start: {} {}", sys!(SYS_ioctl, slave, TCXONC, TCOON), write(slave, "go"));
    say!("then: {}", eventually(master));
    say!("TCIOFF sends a ^S: {} {}", sys!(SYS_ioctl, slave, TCXONC, TCIOFF), eventually(master));
    say!("TCION sends a ^Q: {} {}", sys!(SYS_ioctl, slave, TCXONC, TCION), eventually(master));
    say!("unknown: {}", sys!(SYS_ioctl, slave, TCXONC, 7));
    set(slave, |termios| termios.input |= IXANY);
    write(master, "\x13");
    process::sleep_ms(20);
    say!("stopped: {}", write(slave, "held"));
    typed(master, slave, "any\n", 4);
    say!("IXANY: {}", write(slave, "go on"));
    set(slave, |termios| termios.input &= !IXON);
    raw(slave, 1, 0);
    read(slave, 100);
    typed(master, slave, "\x13\x11", 2);
    say!("without IXON: {}", read(slave, 10));
}

fn window_size() {
    let (master, slave) = pty();
    session(slave, || {
        signal::block(SIGWINCH);
        let size = [24u16, 80, 0, 0];
        say!("set by the slave: {}", sys!(SYS_ioctl, slave, TIOCSWINSZ, &size));
        say!("signal: {}", signal::names(signal::pending()));
        signal::take(signal::bit(SIGWINCH), 0);
        let mut seen = [0u16; 4];
        say!("seen by the master: {} {seen:?}", sys!(SYS_ioctl, master, TIOCGWINSZ, &mut seen));
        say!("{seen:?}");
        say!("the same again: {} {}", sys!(SYS_ioctl, master, TIOCSWINSZ, &size), signal::names(signal::pending()));
        let size = [50u16, 132, 7, 8];
        say!("by the master: {} {}", sys!(SYS_ioctl, master, TIOCSWINSZ, &size), signal::names(signal::pending()));
        sys!(SYS_ioctl, slave, TIOCGWINSZ, &mut seen);
        say!("seen by the slave: {seen:?}");
        say!("bad pointer: {} {}", sys!(SYS_ioctl, slave, TIOCSWINSZ, NOWHERE), {
            sys!(SYS_ioctl, slave, TIOCGWINSZ, NOWHERE)
        });
    });
    say!("of a pipe: {}", sys!(SYS_ioctl, file::pipe()[0], TIOCGWINSZ, &mut [0u16; 4]));
    say!("of a file: {}", sys!(SYS_ioctl, file::create(c"f", ""), TIOCGWINSZ, &mut [0u16; 4]));
    say!("of /dev/null: {}", sys!(SYS_ioctl, 0, TIOCGWINSZ, &mut [0u16; 4]));
}

fn controlling() {
    let (master, slave) = pty();
    let name = name_of(master);
    say!("no terminal: {}", open(c"/dev/tty", O_RDWR));
    say!("TIOCNOTTY without one: {}", sys!(SYS_ioctl, slave, TIOCNOTTY, 0));
    process::in_child(|| {
        sys!(SYS_setsid);
        let mut group = 0i32;
        say!("TIOCGPGRP before: {}", sys!(SYS_ioctl, slave, TIOCGPGRP, &mut group));
        say!("opened with O_NOCTTY: {}", open(&name, O_RDWR | O_NOCTTY).ok_or_error());
        say!("/dev/tty: {}", open(c"/dev/tty", O_RDWR));
        say!("opened without: {}", open(&name, O_RDWR).ok_or_error());
        say!("/dev/tty: {}", open(c"/dev/tty", O_RDWR).ok_or_error());
        say!("TIOCGPGRP: {} own {}", sys!(SYS_ioctl, slave, TIOCGPGRP, &mut group), group == own_group());
        let mut sid = 0i32;
        say!("TIOCGSID: {} own {}", sys!(SYS_ioctl, slave, TIOCGSID, &mut sid), sid == sys!(SYS_getpid).0 as i32);
        say!("TIOCSCTTY again: {}", sys!(SYS_ioctl, slave, TIOCSCTTY, 0));
        let (_, other) = pty();
        say!("a second one: {}", sys!(SYS_ioctl, other, TIOCSCTTY, 0));
        signal::ignore(SIGHUP);
        say!("TIOCNOTTY: {}", sys!(SYS_ioctl, slave, TIOCNOTTY, 0));
        say!("/dev/tty: {}", open(c"/dev/tty", O_RDWR));
        say!("another then: {}", sys!(SYS_ioctl, other, TIOCSCTTY, 0));
        0
    });
    say!("of a file: {}", sys!(SYS_ioctl, 0, TIOCSCTTY, 0));
}

fn not_a_leader() {
    let (_master, slave) = pty();
    let (ready, go) = (Gate::new(), Gate::new());
    process::in_child(|| {
        say!("not a leader: {}", sys!(SYS_ioctl, slave, TIOCSCTTY, 0));
        0
    });
    let holder = process::child(|| {
        sys!(SYS_setsid);
        sys!(SYS_ioctl, slave, TIOCSCTTY, 0);
        ready.open();
        go.pass();
        0
    });
    ready.pass();
    process::in_child(|| {
        sys!(SYS_setsid);
        say!("another's terminal: {}", sys!(SYS_ioctl, slave, TIOCSCTTY, 0));
        let mut value = 0i32;
        say!("TIOCGPGRP of another's: {}", sys!(SYS_ioctl, slave, TIOCGPGRP, &mut value));
        say!("TIOCGSID of another's: {}", sys!(SYS_ioctl, slave, TIOCGSID, &mut value));
        say!("TIOCSPGRP of another's: {}", sys!(SYS_ioctl, slave, TIOCSPGRP, &own_group()));
        say!("stolen by root: {}", sys!(SYS_ioctl, slave, TIOCSCTTY, 1));
        0
    });
    go.open();
    process::wait(holder);
    process::in_child(|| {
        sys!(SYS_setsid);
        process::become_user(1000);
        say!("a user steals nothing: {}", sys!(SYS_ioctl, slave, TIOCSCTTY, 1).ok_or_error());
        0
    });
}

fn groups() {
    let (master, slave) = pty();
    session(slave, || {
        let set_group = |group: i32| sys!(SYS_ioctl, slave, TIOCSPGRP, &group);
        signal::ignore(SIGTTOU);
        let (ready, go) = (Gate::new(), Gate::new());
        let child = process::child(|| {
            sys!(SYS_setpgid, 0, 0);
            ready.open();
            go.pass();
            0
        });
        ready.pass();
        say!("a child's: {}", set_group(child));
        let mut group = 0i32;
        sys!(SYS_ioctl, slave, TIOCGPGRP, &mut group);
        say!("it is: {}", group == child);
        sys!(SYS_ioctl, master, TIOCGPGRP, &mut group);
        say!("as the master says: {}", group == child);
        say!("back: {}", set_group(own_group()));
        say!("one that is not there: {}", set_group(4_000_000));
        say!("negative: {}", set_group(-5));
        say!("another session's: {}", set_group(sys!(SYS_getppid).0 as i32));
        say!("bad pointer: {}", sys!(SYS_ioctl, slave, TIOCSPGRP, NOWHERE));
        say!("by the master: {}", sys!(SYS_ioctl, master, TIOCSPGRP, &own_group()));
        go.open();
        process::wait(child);
    });
}

/// A background group of a session: a child whose parent stays in the foreground.
fn background(body: impl FnOnce()) -> i32 {
    let ready = Gate::new();
    let child = process::child(|| {
        ready.pass();
        body();
        0
    });
    sys!(SYS_setpgid, child, child);
    ready.open();
    child
}

fn background_reads() {
    let (master, slave) = waiting_pty();
    session(slave, || {
        let child = background(|| say!("read in the end: {}", read(slave, 10)));
        say!("a read: {}", process::wait_for(child, WUNTRACED));
        signal::ignore(SIGTTOU);
        sys!(SYS_ioctl, slave, TIOCSPGRP, &child);
        process::kill(child, SIGCONT);
        write(master, "input\n");
        say!("then: {}", process::wait(child));
        sys!(SYS_ioctl, slave, TIOCSPGRP, &own_group());
        let child = background(|| {
            signal::ignore(SIGTTIN);
            say!("ignored: {}", read(slave, 10));
        });
        process::wait(child);
        let child = background(|| {
            signal::block(SIGTTIN);
            say!("blocked: {}", read(slave, 10));
        });
        process::wait(child);
        let child = background(|| {
            signal::handle(SIGTTIN, signal::count, 0);
            let text = read(slave, 10);
            say!("caught: {text} {}", signal::caught());
        });
        process::wait(child);
        let child = background(|| {
            let mut ready = 0i32;
            say!("asking is allowed: {} {}", sys!(SYS_ioctl, slave, FIONREAD, &mut ready), get(slave).line);
        });
        process::wait(child);
    });
    session(slave, || {
        let (go, done) = (Gate::new(), Gate::new());
        // A group whose members' parents are all in it or in other sessions.
        process::in_child(|| {
            background(|| {
                go.pass();
                say!("an orphan: {}", read(slave, 10));
                done.open();
            });
            0
        });
        go.open();
        done.pass();
    });
}

fn background_writes() {
    let (master, slave) = waiting_pty();
    session(slave, || {
        let child = background(|| say!("allowed without TOSTOP: {}", write(slave, "b")));
        process::wait(child);
        set(slave, |termios| termios.local |= TOSTOP);
        let child = background(|| say!("written in the end: {}", write(slave, "b")));
        say!("TOSTOP: {}", process::wait_for(child, WUNTRACED));
        signal::ignore(SIGTTOU);
        sys!(SYS_ioctl, slave, TIOCSPGRP, &child);
        process::kill(child, SIGCONT);
        say!("then: {}", process::wait(child));
        sys!(SYS_ioctl, slave, TIOCSPGRP, &own_group());
        let child = background(|| say!("ignored: {}", write(slave, "b")));
        process::wait(child);
        signal::default(SIGTTOU);
        let child = background(|| {
            signal::block(SIGTTOU);
            say!("blocked: {}", write(slave, "b"));
        });
        process::wait(child);
        let child = background(|| {
            signal::handle(SIGTTOU, signal::count, 0);
            let ret = write(slave, "b");
            say!("caught: {ret} {}", signal::caught());
        });
        process::wait(child);
        say!("the foreground: {}", write(slave, "f"));
    });
    say!("all: {}", eventually(master));
}

fn background_changes() {
    let (_master, slave) = waiting_pty();
    session(slave, || {
        for (what, command) in [("TCSETS", TCSETS), ("TCFLSH", TCFLSH), ("TIOCSPGRP", TIOCSPGRP), ("TCSBRK", TCSBRK)] {
            let child = background(|| {
                let mut termios = get(slave);
                let group = own_group();
                let ret = match command {
                    TIOCSPGRP => sys!(SYS_ioctl, slave, command, &group),
                    TCSETS => sys!(SYS_ioctl, slave, command, &mut termios),
                    TCSBRK => sys!(SYS_ioctl, slave, command, 1),
                    _ => sys!(SYS_ioctl, slave, command, 0),
                };
                say!("{what} in the end: {ret}");
            });
            say!("{what}: {}", process::wait_for(child, WUNTRACED));
            process::kill(child, SIGKILL);
            process::wait(child);
        }
        let child = background(|| {
            signal::ignore(SIGTTOU);
            let termios = get(slave);
            say!("ignored: {}", sys!(SYS_ioctl, slave, TCSETS, &termios));
        });
        process::wait(child);
        let child = background(|| {
            let size = [1u16, 2, 3, 4];
            say!("the size: {}", sys!(SYS_ioctl, slave, TIOCSWINSZ, &size));
        });
        process::wait(child);
    });
}

fn master_closes() {
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

fn slave_closes() {
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

fn hangup_of_a_session() {
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

fn leader_exits() {
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

fn flushes() {
    let (master, slave) = pty();
    set(slave, |termios| termios.local &= !ECHO);
    let flush = |fd: i32, queue: i32| sys!(SYS_ioctl, fd, TCFLSH, queue);
    typed(master, slave, "input\n", 6);
    say!("input: {} {}", flush(slave, TCIFLUSH), read(slave, 10));
    write(slave, "output");
    process::sleep_ms(10);
    say!("the slave's output: {}", flush(slave, TCOFLUSH));
    say!("what the master reads: {}", read(master, 10));
    typed(master, slave, "more\n", 5);
    say!("the master's output: {} {}", flush(master, TCOFLUSH), read(slave, 10));
    say!("both: {} {}", flush(slave, TCIOFLUSH), flush(master, TCIOFLUSH));
    say!("unknown: {} {}", flush(slave, 3), flush(slave, -1));
    say!("TCSBRK: {} {}", sys!(SYS_ioctl, slave, TCSBRK, 1), sys!(SYS_ioctl, slave, TCSBRKP, 0));
}

fn queues() {
    let (master, slave) = pty();
    let count = |fd: i32, command: Ioctl| {
        let mut value = -1i32;
        let ret = sys!(SYS_ioctl, fd, command, &mut value);
        if ret.ok() { value.to_string() } else { ret.to_string() }
    };
    set(slave, |termios| termios.local &= !ECHO);
    say!("empty: {} {} {} {}", count(slave, FIONREAD), count(slave, TIOCOUTQ), count(master, FIONREAD), {
        count(master, TIOCOUTQ)
    });
    typed(master, slave, "line\n", 5);
    say!("a line: {}", count(slave, FIONREAD));
    write(master, "part");
    process::sleep_ms(10);
    say!("a part does not count: {}", count(slave, FIONREAD));
    raw(slave, 1, 0);
    say!("raw: {}", count(slave, FIONREAD));
    write(slave, "12345\n");
    process::sleep_ms(10);
    say!("for the master: {}", count(master, FIONREAD));
    say!("bad pointer: {}", sys!(SYS_ioctl, slave, FIONREAD, NOWHERE));
}

fn bad_ioctls() {
    let (master, slave) = pty();
    say!("unknown: {} {}", sys!(SYS_ioctl, slave, 0x54ff, 0), sys!(SYS_ioctl, master, 0x54ff, 0));
    say!("bad pointers: {} {} {}", sys!(SYS_ioctl, slave, TCGETS, NOWHERE), sys!(SYS_ioctl, slave, TCSETS, NOWHERE), {
        sys!(SYS_ioctl, slave, TIOCGPGRP, NOWHERE)
    });
    let mut number = 0i32;
    say!("TIOCGPTN of the slave: {}", sys!(SYS_ioctl, slave, TIOCGPTN, &mut number));
    say!("TIOCSPTLCK of the slave: {}", sys!(SYS_ioctl, slave, TIOCSPTLCK, &number));
    say!("TIOCGPTN, bad pointer: {}", sys!(SYS_ioctl, master, TIOCGPTN, NOWHERE));
    say!("TIOCMGET: {}", sys!(SYS_ioctl, slave, TIOCMGET, &mut number));
    say!("TIOCSSERIAL: {}", sys!(SYS_ioctl, slave, TIOCGSERIAL, &mut [0u8; 128]));
    say!("TIOCSETD unknown: {}", sys!(SYS_ioctl, slave, TIOCSETD, &99i32).ok());
    say!("TIOCSETD the same: {}", sys!(SYS_ioctl, slave, TIOCSETD, &0i32));
    say!("TIOCGEXCL: {} {number}", sys!(SYS_ioctl, slave, TIOCGEXCL, &mut number));
    say!("an O_PATH: {}", sys!(SYS_ioctl, open(&name_of(master), O_PATH).fd(), TCGETS, &mut [0u8; 64]));
    say!("mmap: {}", crate::memory::map(4096, PROT_READ, MAP_SHARED, slave, 0));
    say!("pread and lseek: {} {}", file::read_at(slave, 1, 0), sys!(SYS_lseek, slave, 0, SEEK_SET));
    say!("fsync: {}", sys!(SYS_fsync, slave));
    say!("ftruncate: {}", sys!(SYS_ftruncate, slave, 0));
}

fn settings() {
    let (master, slave) = pty();
    let before = get(slave);
    say!("set by the master: {}", {
        let mut termios = before;
        termios.local &= !ECHO;
        sys!(SYS_ioctl, master, TCSETS, &termios)
    });
    say!("seen by the slave: {}", get(slave).local & ECHO);
    set(slave, |termios| {
        termios.input = u32::MAX;
        termios.local = u32::MAX;
    });
    say!("all bits: input {:o} local {:o}", get(slave).input, get(slave).local);
    set(slave, |termios| termios.control = B9600 | CS7 | PARENB | CSTOPB | HUPCL | CLOCAL);
    say!("control: {:o}", get(slave).control);
    set(slave, |termios| termios.characters = [b'z'; 19]);
    say!("characters: {:?}", get(slave).characters);
    sys!(SYS_ioctl, slave, TCSETS, &before);
    say!("back: {}", get(slave) == before);
    let second = open(&name_of(master), O_RDWR | O_NOCTTY).fd();
    set(second, |termios| termios.output = 0);
    say!("one terminal for both: {:o}", get(slave).output);
    close(slave);
    close(second);
    let again = open(&name_of(master), O_RDWR | O_NOCTTY).fd();
    say!("kept over the last close: {:o}", get(again).output);
}

fn locked() {
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

fn packet_mode() {
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

fn readiness() {
    let (master, slave) = pty();
    let ready = |fd: i32| {
        let mut entry = pollfd { fd, events: POLLIN | POLLOUT | POLLPRI, revents: 0 };
        let now = timespec { tv_sec: 0, tv_nsec: 0 };
        sys!(SYS_ppoll, &mut entry, 1, &now, 0, 8);
        format!("{:#x}", entry.revents)
    };
    set(slave, |termios| termios.local &= !ECHO);
    say!("at first: {} {}", ready(master), ready(slave));
    write(master, "part");
    process::sleep_ms(10);
    say!("a part of a line: {}", ready(slave));
    typed(master, slave, "\n", 5);
    say!("a line: {}", ready(slave));
    read(slave, 2);
    say!("partly read: {}", ready(slave));
    read(slave, 10);
    say!("read: {}", ready(slave));
    typed(master, slave, "\x04", 0);
    process::sleep_ms(10);
    say!("an end: {} {} {}", ready(slave), read(slave, 10), ready(slave));
    raw(slave, 3, 0);
    typed(master, slave, "x", 1);
    say!("a byte of three: {}", ready(slave));
    typed(master, slave, "yz", 3);
    say!("three: {}", ready(slave));
    raw(slave, 3, 1);
    read(slave, 10);
    typed(master, slave, "x", 1);
    say!("a byte, with a time: {}", ready(slave));
    write(slave, "out");
    process::sleep_ms(10);
    say!("for the master: {}", ready(master));
    let child = process::child(|| {
        let mut entry = pollfd { fd: slave, events: POLLIN, revents: 0 };
        let ret = sys!(SYS_ppoll, &mut entry, 1, 0, 0, 8);
        say!("woken: {ret} {:#x}", entry.revents);
        0
    });
    read(slave, 10);
    process::until_asleep(child);
    write(master, "abc");
    process::wait(child);
}

fn long_lines() {
    let (master, slave) = pty();
    set(slave, |termios| termios.local &= !ECHO);
    let text = "l".repeat(5000);
    write(master, &text);
    typed(master, slave, "\n", 4096);
    let mut buffer = vec![0u8; 8000];
    let ret = sys!(SYS_read, slave, &mut buffer[..], 8000);
    say!("a line of 5000: {ret}, ends in {:?}", char::from(buffer[(ret.0.max(1) - 1) as usize]));
    say!("the rest: {}", read(slave, 10));
    typed(master, slave, "next\n", 5);
    say!("the next: {}", read(slave, 10));
}

fn exclusive() {
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

fn device_files() {
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

fn dev_tty() {
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

fn stop_by_key() {
    let (master, slave) = waiting_pty();
    session(slave, || {
        signal::ignore(SIGTTOU);
        let child = background(|| {
            say!("a line: {}", read(slave, 10));
        });
        sys!(SYS_ioctl, slave, TIOCSPGRP, &child);
        process::until_asleep(child);
        if process::state(child) == 'T' {
            // It had read before it was in the foreground.
            process::kill(child, SIGCONT);
            process::until_asleep(child);
        }
        write(master, "\x1a");
        say!("^Z: {}", process::wait_for(child, WUNTRACED));
        sys!(SYS_ioctl, slave, TIOCSPGRP, &own_group());
        process::kill(child, SIGCONT);
        say!("continued in the background: {}", process::wait_for(child, WUNTRACED));
        sys!(SYS_ioctl, slave, TIOCSPGRP, &child);
        process::kill(child, SIGCONT);
        write(master, "done\n");
        say!("in the foreground: {}", process::wait(child));
    });
}

fn columns() {
    let (master, slave) = pty();
    set(slave, |termios| termios.output |= XTABS);
    write(slave, "ab\tc\n\td\x08e\tf\n");
    say!("tabs to columns: {}", eventually(master));
    set(slave, |termios| termios.local |= ECHO);
    write(slave, "prompt> ");
    eventually(master);
    typed(master, slave, "a\t\x7f\n", 2);
    say!("a tab erased behind a prompt: {}", eventually(master));
}

/// A timed read that a signal ends answers what it has taken already.
fn interrupted_between_bytes() {
    let (master, slave) = waiting_pty();
    raw(slave, 10, 100);
    let pid = process::child(|| {
        signal::handle(SIGUSR1, signal::count, SA_RESTART);
        say!("{}", read(slave, 20));
        0
    });
    process::until_asleep(pid);
    write(master, "abc");
    // Until the line discipline has had it, which Linux does at its leisure, and the reader.
    process::sleep_ms(50);
    let mut left = 3i32;
    sys!(SYS_ioctl, slave, FIONREAD, &mut left);
    process::until_asleep(pid);
    process::kill(pid, SIGUSR1);
    say!("left: {left}, {}", process::wait(pid));
}
