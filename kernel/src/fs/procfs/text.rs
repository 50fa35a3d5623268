//! Text in the formats of proc(5): plain data in, bytes out.

use alloc::vec::Vec;
use core::fmt::{self, Write};

use crate::errno::{Errno, Result};
use crate::mm::frames;

/// Bytes in one piece of memory.
const PIECE: usize = 64 * 1024;
/// Longest text, bytes.
const LIMIT: usize = 32 << 20;

/// A growing text, in pieces: programs decide how long some are, and memory has no long stretches. What it has no room for
/// is left out, and [`Text::check`] tells.
#[derive(Default)]
pub struct Text {
    /// Each as long as [`PIECE`].
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
    cut: bool,
}

impl Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.bytes(s.as_bytes());
        Ok(())
    }
}

/// `write!` to a [`Text`].
macro_rules! put {
    ($text:expr, $($arg:tt)*) => {{
        let _ = core::fmt::Write::write_fmt($text, format_args!($($arg)*));
    }};
}
pub(in crate::fs) use put;

impl Text {
    pub fn bytes(&mut self, mut bytes: &[u8]) -> &mut Self {
        while !bytes.is_empty() && !self.cut {
            let (now, rest) = bytes.split_at(bytes.len().min(PIECE - self.last.len()));
            let begins = self.last.is_empty() && !self.full.is_empty();
            if self.last.try_reserve(now.len()).is_err() || self.size() >= LIMIT || begins && !frames::has_spare() {
                self.cut = true;
                break;
            }
            self.last.extend_from_slice(now);
            bytes = rest;
            if self.last.len() == PIECE {
                match self.full.try_reserve(1) {
                    Ok(()) => self.full.push(core::mem::take(&mut self.last)),
                    Err(_) => self.cut = true,
                }
            }
        }
        self
    }

    pub fn push(&mut self, byte: u8) {
        self.bytes(&[byte]);
    }

    /// Bytes so far.
    pub fn size(&self) -> usize {
        self.full.len() * PIECE + self.last.len()
    }

    /// ENOMEM if something was left out.
    pub fn check(&self) -> Result<()> {
        if self.cut { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// What begins at byte `from`, in pieces.
    pub fn pieces(&self, from: usize) -> impl Iterator<Item = &[u8]> {
        let mut skip = from % PIECE;
        self.full.iter().chain([&self.last]).skip(from / PIECE).map(move |piece| {
            let start = core::mem::take(&mut skip);
            piece.get(start..).unwrap_or(&[])
        })
    }

    /// Bytes of `text` with those in `special`, the backslash among them, as octal escapes (seq_escape).
    pub fn escaped(&mut self, text: &[u8], special: &[u8]) -> &mut Self {
        for &byte in text {
            if special.contains(&byte) {
                let digit = |shift: u8| b'0' + ((byte >> shift) & 7);
                self.bytes(&[b'\\', digit(6), digit(3), digit(0)]);
            } else {
                self.push(byte);
            }
        }
        self
    }
}

/// Nanoseconds to USER_HZ ticks.
pub const fn ticks(nanos: u64) -> u64 {
    nanos / 10_000_000
}

/// A name without the NUL padding of comm.
pub fn trim_nul(name: &[u8]) -> &[u8] {
    name.split(|&byte| byte == 0).next().unwrap_or(&[])
}

/// What `State:` and the third field of stat say.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RunState {
    Running,
    #[default]
    Sleeping,
    /// In a wait that no signal ends.
    Waiting,
    Stopped,
    /// By its tracer.
    Traced,
    Zombie,
    Dead,
}

impl RunState {
    pub const fn letter(self) -> char {
        match self {
            RunState::Running => 'R',
            RunState::Sleeping => 'S',
            RunState::Waiting => 'D',
            RunState::Stopped => 'T',
            RunState::Traced => 't',
            RunState::Zombie => 'Z',
            RunState::Dead => 'X',
        }
    }

    pub const fn describe(self) -> &'static str {
        match self {
            RunState::Running => "R (running)",
            RunState::Sleeping => "S (sleeping)",
            RunState::Waiting => "D (disk sleep)",
            RunState::Stopped => "T (stopped)",
            RunState::Traced => "t (tracing stop)",
            RunState::Zombie => "Z (zombie)",
            RunState::Dead => "X (dead)",
        }
    }
}

/// proc_pid_stat(5). Times in ticks, `vsize` and `rss_limit` in bytes, `rss` in pages.
#[derive(Default)]
pub struct PidStat<'a> {
    pub pid: u32,
    pub comm: &'a [u8],
    pub state: RunState,
    pub ppid: u32,
    pub pgrp: u32,
    pub session: u32,
    pub tty: i32,
    pub tpgid: i32,
    pub flags: u32,
    pub min_faults: u64,
    pub child_min_faults: u64,
    pub maj_faults: u64,
    pub child_maj_faults: u64,
    pub utime: u64,
    pub stime: u64,
    pub child_utime: u64,
    pub child_stime: u64,
    pub priority: i64,
    pub nice: i64,
    pub threads: usize,
    pub start: u64,
    pub vsize: u64,
    pub rss: u64,
    pub rss_limit: u64,
    /// start_code, end_code, start_stack; 1, 1, 0 for who may not know.
    pub code: (u64, u64),
    pub start_stack: u64,
    /// Pending, blocked, ignored, caught: the first 31 signals.
    pub signals: [u64; 4],
    pub exit_signal: u32,
    pub cpu: usize,
    pub rt_priority: u32,
    pub policy: u32,
    pub data: (u64, u64),
    pub brk: u64,
    pub args: (u64, u64),
    pub env: (u64, u64),
    pub exit_code: u32,
}

impl PidStat<'_> {
    pub fn put(&self, out: &mut Text) {
        put!(out, "{} (", self.pid);
        out.bytes(self.comm);
        put!(out, ") {} {} {} {} ", self.state.letter(), self.ppid, self.pgrp, self.session);
        put!(out, "{} {} {} ", self.tty, self.tpgid, self.flags);
        put!(out, "{} {} ", self.min_faults, self.child_min_faults);
        put!(out, "{} {} ", self.maj_faults, self.child_maj_faults);
        put!(out, "{} {} {} {} ", self.utime, self.stime, self.child_utime, self.child_stime);
        put!(out, "{} {} {} 0 {} ", self.priority, self.nice, self.threads, self.start);
        put!(out, "{} {} {} ", self.vsize, self.rss, self.rss_limit);
        // Then kstkesp and kstkeip, 0 for processes that are not exiting.
        put!(out, "{} {} {} 0 0 ", self.code.0, self.code.1, self.start_stack);
        for set in self.signals {
            put!(out, "{} ", set & 0x7fff_ffff);
        }
        // wchan, nswap, cnswap.
        put!(out, "0 0 0 {} {} {} {} ", self.exit_signal, self.cpu, self.rt_priority, self.policy);
        // Block I/O delay and guest times.
        put!(out, "0 0 0 {} {} {} ", self.data.0, self.data.1, self.brk);
        put!(out, "{} {} {} {} ", self.args.0, self.args.1, self.env.0, self.env.1);
        put!(out, "{}\n", self.exit_code);
    }
}

/// One line of proc_pid_maps(5).
pub struct MapLine<'a> {
    pub start: u64,
    pub end: u64,
    pub read: bool,
    pub write: bool,
    pub exec: bool,
    pub shared: bool,
    pub offset: u64,
    pub device: (u32, u32),
    pub ino: u64,
    pub name: &'a [u8],
}

/// Where the name of a mapping begins.
const MAP_NAME_COLUMN: usize = 73;

impl MapLine<'_> {
    pub fn put(&self, out: &mut Text) {
        let begin = out.size();
        let flag = |on: bool, letter: char| if on { letter } else { '-' };
        put!(out, "{:08x}-{:08x} ", self.start, self.end);
        put!(out, "{}{}{}", flag(self.read, 'r'), flag(self.write, 'w'), flag(self.exec, 'x'));
        put!(out, "{} {:08x} ", if self.shared { 's' } else { 'p' }, self.offset);
        put!(out, "{:02x}:{:02x} {} ", self.device.0, self.device.1, self.ino);
        if !self.name.is_empty() {
            while out.size() < begin + MAP_NAME_COLUMN {
                out.push(b' ');
            }
            out.escaped(self.name, b"\n");
        }
        out.push(b'\n');
    }
}

/// "Label:     value kB" as in /proc/meminfo: the value ends in column 24.
pub fn put_meminfo(out: &mut Text, label: &str, bytes: u64) {
    let width = 23_usize.saturating_sub(label.len()).max(8);
    put!(out, "{label}:{:>width$} kB\n", bytes / 1024);
}

/// "VmSize:\t    1234 kB" as in /proc/PID/status.
pub fn put_status_kb(out: &mut Text, label: &str, kib: u64) {
    put!(out, "{label}:\t{kib:>8} kB\n");
}

/// A set of numbers below 64 as ranges: "0-3,7".
pub fn put_list(out: &mut Text, mask: u64) {
    let mut bit = 0;
    let mut first = true;
    while bit < 64 {
        if mask & (1 << bit) == 0 {
            bit += 1;
            continue;
        }
        let start = bit;
        while bit + 1 < 64 && mask & (1 << (bit + 1)) != 0 {
            bit += 1;
        }
        if !core::mem::take(&mut first) {
            out.push(b',');
        }
        put!(out, "{start}");
        if bit > start {
            put!(out, "-{bit}");
        }
        bit += 1;
    }
}

/// Seconds and hundredths.
pub fn put_seconds(out: &mut Text, nanos: u64) {
    put!(out, "{}.{:02}", nanos / 1_000_000_000, nanos / 10_000_000 % 100);
}

/// CPU times of one `cpu` line of /proc/stat, nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTimes {
    pub user: u64,
    pub nice: u64,
    pub system: u64,
    pub idle: u64,
    pub irq: u64,
}

/// `label` is "cpu " (with its two spaces in the end) or "cpu0".
pub fn put_cpu_times(out: &mut Text, label: &str, t: &CpuTimes) {
    put!(out, "{label} {} {} {} ", ticks(t.user), ticks(t.nice), ticks(t.system));
    // iowait is idle time for us; softirq, steal, guest and guest_nice are not there.
    put!(out, "{} 0 {} 0 0 0 0\n", ticks(t.idle), ticks(t.irq));
}

/// One line of proc_pid_limits(5); `None` is unlimited.
pub fn put_limit(out: &mut Text, name: &str, soft: Option<u64>, hard: Option<u64>, unit: &str) {
    put!(out, "{name:<25} ");
    for value in [soft, hard] {
        match value {
            Some(value) => put!(out, "{value:<20} "),
            None => put!(out, "{:<20} ", "unlimited"),
        }
    }
    put!(out, "{unit:<10}\n");
}

/// A version-4 UUID from random bytes.
pub fn put_uuid(out: &mut Text, mut bytes: [u8; 16]) {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    for (i, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&i) {
            out.push(b'-');
        }
        put!(out, "{byte:02x}");
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    fn text(fill: impl FnOnce(&mut Text)) -> String {
        let mut out = Text::default();
        fill(&mut out);
        out.check().unwrap();
        String::from_utf8(out.pieces(0).flatten().copied().collect()).unwrap()
    }

    #[test]
    fn long_texts_are_in_pieces() {
        let mut out = Text::default();
        let line: Vec<u8> = (0..250).collect();
        for _ in 0..2000 {
            out.bytes(&line);
        }
        assert_eq!(out.size(), 500_000);
        for from in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 499_999, 500_000, 600_000] {
            let rest: Vec<u8> = out.pieces(from).flatten().copied().collect();
            assert_eq!(rest.len(), 500_000_usize.saturating_sub(from));
            assert!(rest.iter().zip(from..).all(|(byte, at)| usize::from(*byte) == at % 250));
        }
        while out.check().is_ok() {
            assert!(out.bytes(&line).size() < LIMIT + PIECE);
        }
        assert!(out.size() >= LIMIT);
        assert_eq!(out.check(), Err(Errno::ENOMEM));
    }

    #[test]
    fn pid_stat_has_52_fields() {
        let stat = PidStat {
            pid: 42,
            comm: b"a b) c\n",
            ppid: 1,
            pgrp: 42,
            session: 7,
            tty: 52288,
            tpgid: 42,
            rss_limit: u64::MAX,
            signals: [0, 1 << 40 | 2, 0, 0],
            exit_code: 9,
            ..PidStat::default()
        };
        let line = text(|out| stat.put(out));
        assert!(line.starts_with("42 (a b) c\n) S 1 42 7 52288 42 0 "), "{line}");
        assert!(line.ends_with(" 9\n"));
        let after = line.trim_end().rsplit_once(')').unwrap().1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        assert_eq!(fields.len(), 50);
        assert_eq!(fields[25 - 3], "18446744073709551615");
        assert_eq!(fields[32 - 3], "2");
    }

    #[test]
    fn map_lines_align_their_names() {
        let mut line = MapLine {
            start: 0x400000,
            end: 0x5f1000,
            read: true,
            write: false,
            exec: true,
            shared: false,
            offset: 0x1000,
            device: (254, 0),
            ino: 12,
            name: b"/bin/busybox",
        };
        let with_name = text(|out| line.put(out));
        assert_eq!(with_name.find('/'), Some(73));
        assert!(with_name.starts_with("00400000-005f1000 r-xp 00001000 fe:00 12      "), "{with_name}");
        line.name = b"";
        assert_eq!(text(|out| line.put(out)), "00400000-005f1000 r-xp 00001000 fe:00 12 \n");
    }

    #[test]
    fn memory_lines() {
        assert_eq!(text(|out| put_meminfo(out, "MemTotal", 505_852 << 10)), "MemTotal:         505852 kB\n");
        assert_eq!(text(|out| put_meminfo(out, "Inactive(anon)", 0)), "Inactive(anon):        0 kB\n");
        assert_eq!(text(|out| put_status_kb(out, "VmRSS", 1234)), "VmRSS:\t    1234 kB\n");
    }

    #[test]
    fn lists_times_limits() {
        for (mask, list) in [(0, ""), (1, "0"), (0xf, "0-3"), (0x8b, "0-1,3,7"), (u64::MAX, "0-63")] {
            assert_eq!(text(|out| put_list(out, mask)), list);
        }
        assert_eq!(text(|out| put_seconds(out, 61_050_000_000)), "61.05");
        assert_eq!(
            text(|out| put_limit(out, "Max open files", Some(1024), None, "files")),
            "Max open files            1024                 unlimited            files     \n"
        );
        let times = CpuTimes { user: 10_000_000, idle: 30_000_000, ..CpuTimes::default() };
        assert_eq!(text(|out| put_cpu_times(out, "cpu0", &times)), "cpu0 1 0 0 3 0 0 0 0 0 0\n");
    }

    #[test]
    fn uuids_are_of_version_4() {
        let uuid = text(|out| put_uuid(out, [0xff; 16]));
        assert_eq!(uuid, "ffffffff-ffff-4fff-bfff-ffffffffffff\n");
    }
}
