//! What a terminal makes of input and output, through both ends of a pty.

use libc::*;

use crate::file::{self, close, open, read, write};
use crate::process;
use crate::sys::{NOWHERE, sys};
use crate::terminal::{eventually, get, name_of, pty, raw, session, set, typed, waiting_pty};
use crate::{say, signal, tests};

tests! {
    defaults, lines, end_of_file, echo, echo_of_controls, erase, erase_utf8, special_characters, raw_reads, raw_with_minimum, raw_with_time, mode_switches, input_mapping, output_mapping, flow_control, flushes, queues, bad_ioctls, settings, readiness, long_lines, columns, interrupted_between_bytes,
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
