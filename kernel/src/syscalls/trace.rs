//! Traces of system calls, for `cargo xtask trace`.
//!
//! A thread that is watched for this ([`RECORDED`](crate::process::ptrace::watch::RECORDED)) makes its system calls through [`call`], which writes a record of each; children
//! and other threads that it makes inherit that. A record is a line of fields with tabs between them: thread, start, name, arguments, result, polls, and how long the
//! call ran and waited. Times are nanoseconds, which are instructions under `-icount shift=0`.

use alloc::string::String;
use core::fmt::Write;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::time::Duration;
use linux_raw_sys::general as raw;

use super::table::{self, TABLE};
use crate::errno::Errno;
use crate::exec::Instant;
use crate::mm::{UserPtr, read_cstr};
use crate::process::{Thread, trace};
use crate::signal;

/// Longest part of a string that is shown.
const SHOWN: usize = 64;

/// Makes the system call that the registers ask for, and a record of it.
pub async fn call(t: &mut Thread) {
    trace::wait_for_room(t).await;
    let mut record = Record::new(t).await;
    record.resume();
    let done = table::dispatch_now(t);
    record.pause(false);
    if !done {
        let mut future = pin!(table::dispatch(t));
        // What answers at once has been polled, so to say, by the attempt.
        record.polls -= 1;
        poll_fn(|cx| {
            record.resume();
            let poll = future.as_mut().poll(cx);
            record.pause(poll.is_pending());
            poll
        })
        .await;
    }
    record.finish(t);
}

/// A call under way. Dropped unfinished, it is written with `?` as the result.
struct Record {
    tid: u32,
    number: u64,
    args: String,
    result: String,
    start: Instant,
    /// Since when it runs, or waits.
    since: Instant,
    waits: bool,
    polls: u32,
    ran: Duration,
    waited: Duration,
}

impl Record {
    async fn new(t: &Thread) -> Record {
        let number = t.regs.x[8];
        let args = arguments(t, number).await;
        let start = Instant::now();
        Record {
            tid: t.tid(),
            number,
            args,
            result: String::from("?"),
            start,
            since: start,
            waits: false,
            polls: 0,
            ran: Duration::ZERO,
            waited: Duration::ZERO,
        }
    }

    #[inline]
    fn resume(&mut self) {
        let now = Instant::now();
        if self.waits {
            self.waited += now.saturating_since(self.since);
        }
        self.since = now;
        self.polls += 1;
    }

    fn pause(&mut self, waits: bool) {
        let now = Instant::now();
        self.ran += now.saturating_since(self.since);
        self.since = now;
        self.waits = waits;
    }

    fn finish(mut self, t: &Thread) {
        if t.exit.is_some() || signal::fatal_pending(t) {
            // exit(2) does not return, and neither does what a fatal signal ends.
            return;
        }
        let value = t.regs.x[0];
        self.result.clear();
        let _ = match Errno::from_ret(value) {
            _ if t.restart.is_some() => write!(self.result, "-EINTR, or made again"),
            Some(errno) => write!(self.result, "-{}", errno.name()),
            None if value > u64::from(u32::MAX) || matches!(table::name(self.number), "brk" | "mmap" | "mremap") => {
                write!(self.result, "{value:#x}")
            }
            None => write!(self.result, "{value}"),
        };
    }
}

impl Drop for Record {
    #[inline]
    fn drop(&mut self) {
        let mut line = String::new();
        let _ = write!(line, "{}\t{}\t", self.tid, self.start.as_nanos());
        let _ = match table::name(self.number) {
            "?" => write!(line, "syscall_{}", self.number),
            name => line.write_str(name),
        };
        let (ran, waited) = (self.ran.as_nanos(), self.waited.as_nanos());
        let _ = writeln!(line, "\t{}\t{}\t{}\t{ran}\t{waited}", self.args, self.result, self.polls);
        trace::push(line);
    }
}

async fn arguments(t: &Thread, number: u64) -> String {
    let mut text = String::new();
    let Ok(index) = TABLE.binary_search_by_key(&number, |entry| u64::from(entry.number)) else {
        return text;
    };
    let entry = &TABLE[index];
    for (index, ((name, kind), &value)) in entry.args.iter().zip(&t.regs.x).enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        if is_string(entry.name, name, kind) && value != 0 {
            match read_cstr(t.mm(), value, 4096).await {
                Ok(string) => quote(&mut text, &string, string.len()),
                Err(_) => drop(write!(text, "{value:#x}")),
            }
        } else if *name == "buf" && matches!(entry.name, "write" | "pwrite64") {
            let len = t.regs.x[2] as usize;
            let mut bytes = [0; SHOWN];
            let shown = &mut bytes[..len.min(SHOWN)];
            match UserPtr::<u8>::new(value).read_bytes(t.mm(), shown).await {
                Ok(()) => quote(&mut text, shown, len),
                Err(_) => drop(write!(text, "{value:#x}")),
            }
        } else {
            scalar(&mut text, entry.name, name, kind, value);
        }
    }
    text
}

/// Is this argument the address of a string that the call reads?
fn is_string(call: &str, name: &str, kind: &str) -> bool {
    let names = ["path", "old", "new", "target", "source", "fs_type", "new_root", "put_old", "name"];
    (kind.starts_with("UserPtr") && kind.contains("u8") && names.contains(&name))
        || (name == "path" && matches!(call, "execve" | "execveat"))
}

fn scalar(text: &mut String, call: &str, name: &str, kind: &str, value: u64) {
    let flags = match (call, name) {
        ("openat", "flags") => OPEN,
        ("mmap" | "mprotect", "prot") => PROT,
        ("mmap", "flags") => MAP,
        _ => &[],
    };
    let _ = if !flags.is_empty() {
        if call == "openat" && value as u32 & raw::O_ACCMODE == 0 {
            text.push_str("O_RDONLY");
            if value != 0 {
                text.push('|');
            }
        }
        if value != 0 || call != "openat" {
            named(text, flags, value as u32);
        }
        Ok(())
    } else if name.ends_with("dirfd") && value as i32 == raw::AT_FDCWD {
        text.write_str("AT_FDCWD")
    } else {
        match kind {
            "i32" => write!(text, "{}", value as i32),
            "u32" if name == "mode" => write!(text, "0{:o}", value as u32),
            "u32" if name.contains("flags") => write!(text, "{:#x}", value as u32),
            "u32" => write!(text, "{}", value as u32),
            "i64" => write!(text, "{}", value as i64),
            "u64" | "usize" if matches!(name, "len" | "size" | "count" | "old_len" | "new_len" | "offset") => {
                write!(text, "{value}")
            }
            _ if value == 0 && kind.starts_with("UserPtr") => text.write_str("NULL"),
            _ => write!(text, "{value:#x}"),
        }
    };
}

const OPEN: &[(&str, u32)] = &[
    ("O_WRONLY", raw::O_WRONLY),
    ("O_RDWR", raw::O_RDWR),
    ("O_CREAT", raw::O_CREAT),
    ("O_EXCL", raw::O_EXCL),
    ("O_NOCTTY", raw::O_NOCTTY),
    ("O_TRUNC", raw::O_TRUNC),
    ("O_APPEND", raw::O_APPEND),
    ("O_NONBLOCK", raw::O_NONBLOCK),
    ("O_SYNC", raw::O_SYNC),
    ("O_DSYNC", raw::O_DSYNC),
    ("O_DIRECTORY", raw::O_DIRECTORY),
    ("O_NOFOLLOW", raw::O_NOFOLLOW),
    ("O_DIRECT", raw::O_DIRECT),
    ("O_LARGEFILE", raw::O_LARGEFILE),
    ("O_NOATIME", raw::O_NOATIME),
    ("O_CLOEXEC", raw::O_CLOEXEC),
    ("O_PATH", raw::O_PATH),
];

const PROT: &[(&str, u32)] =
    &[("PROT_READ", raw::PROT_READ), ("PROT_WRITE", raw::PROT_WRITE), ("PROT_EXEC", raw::PROT_EXEC)];

const MAP: &[(&str, u32)] = &[
    ("MAP_SHARED_VALIDATE", raw::MAP_SHARED_VALIDATE),
    ("MAP_SHARED", raw::MAP_SHARED),
    ("MAP_PRIVATE", raw::MAP_PRIVATE),
    ("MAP_FIXED", raw::MAP_FIXED),
    ("MAP_ANONYMOUS", raw::MAP_ANONYMOUS),
    ("MAP_FIXED_NOREPLACE", raw::MAP_FIXED_NOREPLACE),
    ("MAP_NORESERVE", raw::MAP_NORESERVE),
    ("MAP_POPULATE", raw::MAP_POPULATE),
    ("MAP_STACK", raw::MAP_STACK),
];

/// The names of the bits, and what remains as a number.
fn named(text: &mut String, flags: &[(&str, u32)], value: u32) {
    let mut rest = value;
    let mut separator = "";
    for (name, bits) in flags {
        if rest & bits == *bits {
            rest &= !bits;
            text.push_str(separator);
            text.push_str(name);
            separator = "|";
        }
    }
    if rest != 0 || separator.is_empty() {
        let _ = write!(text, "{separator}{rest:#x}");
    }
}

/// The start of a string that has `len` bytes, with escapes.
fn quote(text: &mut String, bytes: &[u8], len: usize) {
    text.push('"');
    for byte in bytes.iter().take(SHOWN) {
        let _ = match byte {
            b'\'' => text.write_char('\''),
            _ => write!(text, "{}", byte.escape_ascii()),
        };
    }
    text.push_str(if len > SHOWN { "\"..." } else { "\"" });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(call: &str, name: &str, kind: &str, value: u64) -> String {
        let mut text = String::new();
        scalar(&mut text, call, name, kind, value);
        text
    }

    #[test]
    fn arguments_are_shown_by_their_types() {
        let create = u64::from(raw::O_WRONLY | raw::O_CREAT | 1 << 31);
        assert_eq!(shown("openat", "flags", "u32", create), "O_WRONLY|O_CREAT|0x80000000");
        assert_eq!(shown("openat", "flags", "u32", 0), "O_RDONLY");
        assert_eq!(shown("openat", "flags", "u32", u64::from(raw::O_CLOEXEC)), "O_RDONLY|O_CLOEXEC");
        assert_eq!(shown("mmap", "prot", "u32", 3), "PROT_READ|PROT_WRITE");
        assert_eq!(shown("mmap", "prot", "u32", 0), "0x0");
        assert_eq!(shown("openat", "dirfd", "i32", -100i64 as u64), "AT_FDCWD");
        assert_eq!(shown("openat", "mode", "u32", 0o644), "0644");
        assert_eq!(shown("wait4", "pid", "i32", u64::MAX), "-1");
        assert_eq!(shown("wait4", "rusage", "UserPtr<u8>", 0), "NULL");
    }

    #[test]
    fn strings_are_escaped_and_cut() {
        let mut text = String::new();
        quote(&mut text, b"a\tb\"\n\xff", 6);
        assert_eq!(text, r#""a\tb\"\n\xff""#);
        text.clear();
        quote(&mut text, &[b'x'; 100], 100);
        assert_eq!(text.len(), SHOWN + 5);
    }

    #[test]
    fn the_table_has_the_types_that_traces_know() {
        let path = TABLE.iter().find(|entry| entry.name == "openat").unwrap().args[1];
        assert!(is_string("openat", path.0, path.1), "{path:?}");
    }
}
