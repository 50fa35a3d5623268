//! Input bytes and settings in; echo, what reads return, and signals out.

use super::*;
use std::string::{String, ToString};

/// A terminal with the serial defaults, changed by `change`.
struct Terminal {
    discipline: Discipline,
    echo: Vec<u8>,
    signals: Vec<u32>,
}

impl Terminal {
    fn new(change: impl FnOnce(&mut Termios)) -> Self {
        let mut termios = Termios::serial();
        change(&mut termios);
        Terminal { discipline: Discipline::new(termios), echo: Vec::new(), signals: Vec::new() }
    }

    fn type_in(&mut self, input: &[u8]) -> &mut Self {
        for &byte in input {
            let mut fx = Effects::default();
            self.discipline.receive(byte, &mut fx);
            self.signals.extend(fx.signal);
            self.echo.extend(fx.echo);
            self.discipline.echo_sent();
        }
        self
    }

    fn read(&mut self, len: usize) -> Option<Vec<u8>> {
        if !self.discipline.readable(1) {
            return None;
        }
        let mut out = vec![0; len];
        let n = self.discipline.peek(&mut out);
        self.discipline.consume(n, &mut self.echo);
        out.truncate(n);
        Some(out)
    }

    fn reads(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(bytes) = self.read(100) {
            all.push(show(&bytes));
        }
        all
    }
}

fn show(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// (what, change of settings, typed, echo, reads)
type Case = (&'static str, fn(&mut Termios), &'static [u8], &'static [u8], &'static [&'static str]);

const CASES: &[Case] = &[
    ("a line", |_| {}, b"abc\r", b"abc\r\n", &["abc\\n"]),
    ("two lines are two reads", |_| {}, b"a\nb\n", b"a\r\nb\r\n", &["a\\n", "b\\n"]),
    ("an unfinished line is not read", |_| {}, b"abc", b"abc", &[]),
    ("erase", |_| {}, b"abx\x7fc\n", b"abx\x08 \x08c\r\n", &["abc\\n"]),
    ("erase of nothing", |_| {}, b"\x7f\x7fa\n", b"a\r\n", &["a\\n"]),
    ("erase of a control character", |_| {}, b"a\x01\x7fb\n", b"a^A\x08 \x08\x08 \x08b\r\n", &["ab\\n"]),
    ("erase of a tab", |_| {}, b"ab\t\x7fc\n", b"ab\t\x08\x08\x08\x08\x08\x08c\r\n", &["abc\\n"]),
    ("erase stops at the start of the line", |_| {}, b"a\n\x7fb\n", b"a\r\nb\r\n", &["a\\n", "b\\n"]),
    ("erase without ECHOE", |t| t.lflag &= !raw::ECHOE, b"ab\x7f\n", b"ab^?\r\n", &["a\\n"]),
    ("ECHOPRT", |t| t.lflag |= raw::ECHOPRT, b"abc\x7f\x7fd\n", b"abc\\cb/d\r\n", &["ad\\n"]),
    (
        "word erase",
        |_| {},
        b"one two  \x17x\n",
        b"one two  \x08 \x08\x08 \x08\x08 \x08\x08 \x08\x08 \x08x\r\n",
        &["one x\\n"],
    ),
    ("kill", |_| {}, b"ab\x15c\n", b"ab\x08 \x08\x08 \x08c\r\n", &["c\\n"]),
    ("kill without ECHOKE", |t| t.lflag &= !raw::ECHOKE, b"ab\x15c\n", b"ab^U\r\nc\r\n", &["c\\n"]),
    ("kill without ECHO", |t| t.lflag &= !raw::ECHO, b"ab\x15c\n", b"", &["c\\n"]),
    ("end of file at the start of a line", |_| {}, b"\x04", b"", &[""]),
    ("end of file pushes a line", |_| {}, b"abc\x04d\n", b"abcd\r\n", &["abc", "d\\n"]),
    ("literal next", |_| {}, b"\x16\x03\n", b"^\x08^C\r\n", &["\\x03\\n"]),
    ("literal next takes the erase character", |_| {}, b"a\x16\x7f\n", b"a^\x08^?\r\n", &["a\\x7f\\n"]),
    ("reprint", |_| {}, b"ab\x12c\n", b"ab^R\r\nabc\r\n", &["abc\\n"]),
    ("no echo", |t| t.lflag &= !raw::ECHO, b"pw\n", b"", &["pw\\n"]),
    ("ECHONL", |t| t.lflag = t.lflag & !raw::ECHO | raw::ECHONL, b"pw\n", b"\r\n", &["pw\\n"]),
    ("no ECHOCTL", |t| t.lflag &= !raw::ECHOCTL, b"\x01\n", b"\x01\r\n", &["\\x01\\n"]),
    ("IGNCR", |t| t.iflag |= raw::IGNCR, b"a\r\n", b"a\r\n", &["a\\n"]),
    ("no ICRNL", |t| t.iflag &= !raw::ICRNL, b"a\r\n", b"a^M\r\n", &["a\\r\\n"]),
    ("INLCR", |t| t.iflag = t.iflag & !raw::ICRNL | raw::INLCR, b"a\n", b"a^M", &[]),
    ("ISTRIP", |t| t.iflag |= raw::ISTRIP, b"\xe1\n", b"a\r\n", &["a\\n"]),
    ("IUCLC", |t| t.iflag |= raw::IUCLC, b"ABc\n", b"abc\r\n", &["abc\\n"]),
    ("EOL", |t| t.cc[raw::VEOL as usize] = b';', b"a;b;", b"a;b;", &["a;", "b;"]),
    ("UTF-8 erase", |t| t.iflag |= raw::IUTF8, b"a\xc3\xa4\x7f\n", b"a\xc3\xa4\x08 \x08\r\n", &["a\\n"]),
    ("byte erase", |_| {}, b"\xc3\xa4\x7f\n", b"\xc3\xa4\x08 \x08\r\n", &["\\xc3\\n"]),
    ("no OPOST", |t| t.oflag &= !raw::OPOST, b"a\n", b"a\n", &["a\\n"]),
    ("raw", |t| t.lflag = 0, b"a\x03\x7f\x04\x15", b"", &["a\\x03\\x7f\\x04\\x15"]),
    ("raw with echo", |t| t.lflag = raw::ECHO, b"ab", b"ab", &["ab"]),
    ("raw maps CR too", |t| t.lflag = 0, b"\r", b"", &["\\n"]),
    ("PARMRK doubles 0xff", |t| t.iflag |= raw::PARMRK, b"\xff\n", b"\xff\r\n", &["\\xff\\xff\\n"]),
    ("flow control is not read", |_| {}, b"a\x13b\x11\n", b"ab\r\n", &["ab\\n"]),
    ("no IXON", |t| t.iflag &= !raw::IXON, b"\x13\n", b"^S\r\n", &["\\x13\\n"]),
];

#[test]
fn cases() {
    for (what, change, typed, echo, reads) in CASES {
        let mut terminal = Terminal::new(change);
        terminal.type_in(typed);
        assert_eq!(show(&terminal.echo), show(echo), "echo: {what}");
        assert_eq!(terminal.reads(), *reads, "reads: {what}");
        assert_eq!(terminal.signals, [], "{what}");
    }
}

#[test]
fn signals_flush_the_input_unless_noflsh() {
    let mut terminal = Terminal::new(|_| {});
    terminal.type_in(b"abc\x03d\n");
    assert_eq!(terminal.signals, [raw::SIGINT]);
    assert_eq!(show(&terminal.echo), show(b"abc^Cd\r\n"));
    assert_eq!(terminal.reads(), ["d\\n"]);

    let mut terminal = Terminal::new(|t| t.lflag |= raw::NOFLSH);
    terminal.type_in(b"abc\x1cd\x1a\n");
    assert_eq!(terminal.signals, [raw::SIGQUIT, raw::SIGTSTP]);
    assert_eq!(terminal.reads(), ["abcd\\n"]);

    let mut terminal = Terminal::new(|t| t.lflag &= !raw::ISIG);
    terminal.type_in(b"\x03\n");
    assert_eq!(terminal.signals, []);
    assert_eq!(terminal.reads(), ["\\x03\\n"]);
}

#[test]
fn short_reads_go_on_in_the_line_and_swallow_an_end_of_file_that_follows() {
    let mut terminal = Terminal::new(|_| {});
    terminal.type_in(b"abcdef\nxy\x04z\n");
    assert_eq!(terminal.read(4).as_deref(), Some(&b"abcd"[..]));
    assert_eq!(terminal.read(4).as_deref(), Some(&b"ef\n"[..]));
    assert_eq!(terminal.read(2).as_deref(), Some(&b"xy"[..]));
    assert_eq!(terminal.read(4).as_deref(), Some(&b"z\n"[..]));
    assert_eq!(terminal.read(4), None);
}

#[test]
fn a_line_is_limited_but_can_be_ended() {
    let mut terminal = Terminal::new(|t| t.iflag |= raw::IMAXBEL);
    for _ in 0..5000 {
        assert!(terminal.discipline.has_room());
        terminal.type_in(b"x");
    }
    assert_eq!(terminal.echo.iter().filter(|&&c| c == 7).count(), 5000 - (INPUT_LIMIT - 1));
    terminal.type_in(b"\n");
    assert!(!terminal.discipline.has_room());
    assert_eq!(terminal.discipline.available(), INPUT_LIMIT);
    let line = terminal.read(10_000).unwrap();
    assert_eq!((line.len(), line.last()), (INPUT_LIMIT, Some(&b'\n')));
}

#[test]
fn canonical_mode_and_back() {
    let mut terminal = Terminal::new(|t| t.lflag &= !raw::ICANON);
    terminal.type_in(b"ab");
    let mut termios = *terminal.discipline.termios();
    termios.lflag |= raw::ICANON;
    terminal.discipline.set_termios(termios);
    assert_eq!(terminal.reads(), ["ab"]);
    terminal.type_in(b"cd\x04");
    termios.lflag &= !raw::ICANON;
    terminal.discipline.set_termios(termios);
    assert_eq!(terminal.reads(), ["cd\\x00"]);
}

#[test]
fn flow_control() {
    let mut terminal = Terminal::new(|t| t.iflag |= raw::IXANY);
    terminal.type_in(b"\x13");
    assert!(terminal.discipline.stopped);
    terminal.type_in(b"a");
    assert!(!terminal.discipline.stopped);

    let mut terminal = Terminal::new(|t| {
        t.iflag |= raw::IXOFF;
        t.lflag = 0;
    });
    terminal.type_in(&[b'x'; STOP_LEVEL + 2]);
    assert_eq!(terminal.echo, [0x13]);
    terminal.read(INPUT_LIMIT);
    assert_eq!(terminal.echo, [0x13, 0x11]);
}

#[test]
fn output_processing() {
    #[allow(clippy::type_complexity, reason = "a table of cases")]
    let cases: &[(fn(&mut Termios), &[u8], &[u8], usize)] = &[
        (|_| {}, b"ab\n", b"ab\r\n", 0),
        (|t| t.oflag |= raw::XTABS, b"ab\tc", b"ab      c", 9),
        (|_| {}, b"ab\tc", b"ab\tc", 9),
        (|t| t.oflag = raw::OPOST | raw::OCRNL, b"a\r", b"a\n", 1),
        (|t| t.oflag = raw::OPOST | raw::ONOCR, b"\ra\r", b"a\r", 0),
        (|t| t.oflag = raw::OPOST | raw::ONLRET, b"a\n", b"a\n", 0),
        (|t| t.oflag = raw::OPOST, b"a\n", b"a\n", 1),
        (|t| t.oflag |= raw::OLCUC, b"abC", b"ABC", 3),
        (|_| {}, b"abc\x08\x08", b"abc\x08\x08", 1),
    ];
    for (change, written, expected, column) in cases {
        let mut termios = Termios::serial();
        change(&mut termios);
        let (mut cursor, mut out) = (Cursor::default(), Vec::new());
        for &byte in *written {
            cursor.post(&termios, byte).emit(&mut |bytes| out.extend_from_slice(bytes));
        }
        assert_eq!(show(&out), show(expected));
        assert_eq!(cursor.column, *column, "{}", show(written));
    }
}
