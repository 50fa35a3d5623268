//! A process, an empty directory and a time limit for each test.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::process::{self, Status};
use crate::sys::{Ret, sys};
use crate::{Test, families, signal};

/// Where tests run: on the root file system, a fresh directory each.
const PLACE: &str = "/var/contract";

/// What the command line asks for.
pub struct Options {
    list: bool,
    /// Leave out this test and all before it.
    after: Option<String>,
    timeout: Duration,
    names: Vec<String>,
}

impl Options {
    pub fn parse(mut words: impl Iterator<Item = String>) -> Option<Options> {
        let mut options = Options { list: false, after: None, timeout: Duration::from_secs(20), names: Vec::new() };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => options.list = true,
                "--after" => options.after = Some(words.next()?),
                "--timeout" => options.timeout = Duration::from_secs(words.next()?.parse().ok()?),
                _ if word.starts_with('-') => return None,
                _ => options.names.push(word),
            }
        }
        Some(options)
    }

    pub fn run(self) -> ExitCode {
        // Orphans of tests become children of this process, which can so clear them away.
        sys!(SYS_prctl, libc::PR_SET_CHILD_SUBREAPER, 1);
        signal::default(libc::SIGPIPE);
        let tests = families::FAMILIES
            .iter()
            .flat_map(|(family, tests)| tests.iter().map(move |test| (format!("{family}.{}", test.name), test)));
        let mut waiting = self.after.is_some();
        for (name, test) in tests {
            if waiting {
                waiting = self.after.as_ref() != Some(&name);
                continue;
            }
            if !self.names.is_empty() && !self.names.iter().any(|part| name.contains(part.as_str())) {
                continue;
            }
            if self.list {
                println!("{name}");
                continue;
            }
            // The last name in there is that of a test that the machine did not survive.
            eprintln!("{name}");
            let transcript = self.transcript(test);
            print!("== {name}\n{transcript}");
            let _ = std::io::stdout().flush();
        }
        ExitCode::SUCCESS
    }

    /// Runs a test. How it ended is the last line, if it did not just return.
    fn transcript(&self, test: &Test) -> String {
        let mut ends = [0i32; 2];
        sys!(SYS_pipe2, &mut ends, 0);
        let [reader, writer] = ends;
        let pid = process::child(|| {
            sys!(SYS_close, reader);
            prepare(writer);
            (test.run)();
            0
        });
        sys!(SYS_close, writer);
        let end = Instant::now() + self.timeout;
        let mut text = Vec::new();
        let ended = read_until(reader, pid, end, &mut text);
        if ended.is_none() {
            process::kill(-pid, libc::SIGKILL);
            process::kill(pid, libc::SIGKILL);
        }
        let status = ended.unwrap_or_else(|| {
            process::wait(pid);
            Status::Lost
        });
        clear_away();
        // What others of the test have written until now.
        drain(reader, &mut text);
        sys!(SYS_close, reader);
        let mut transcript = readable(&text);
        match status {
            Status::Exited(0) => {}
            Status::Lost => transcript.push_str("-- no end in time\n"),
            other => transcript.push_str(&format!("-- {other}\n")),
        }
        transcript
    }
}

/// The process of a test: a session of its own, nothing open but the transcript, an empty directory.
fn prepare(transcript: i32) {
    sys!(SYS_setsid);
    let null = sys!(SYS_openat, libc::AT_FDCWD, c"/dev/null", libc::O_RDONLY).fd();
    sys!(SYS_dup3, null, 0, 0);
    sys!(SYS_dup3, transcript, 1, 0);
    sys!(SYS_dup3, transcript, 2, 0);
    for fd in 3..32 {
        sys!(SYS_close, fd);
    }
    sys!(SYS_umask, 0o22);
    sys!(SYS_chdir, c"/");
    unmount_all();
    let _ = fs::remove_dir_all(PLACE);
    let made = fs::DirBuilder::new().recursive(true).mode(0o777).create(PLACE);
    sys!(SYS_fchmodat, libc::AT_FDCWD, c"/var/contract", 0o777);
    if made.is_err() || std::env::set_current_dir(PLACE).is_err() {
        line("no place to run");
        process::exit(99);
    }
}

/// Takes away what an earlier test has mounted in its directory.
fn unmount_all() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|place| place.starts_with(PLACE));
    for place in places.collect::<Vec<_>>().into_iter().rev() {
        if let Ok(place) = CString::new(place) {
            sys!(SYS_umount2, place.as_c_str(), libc::MNT_DETACH);
        }
    }
}

/// Writes a line to the transcript, in one piece.
pub fn line(text: &str) {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(b'\n');
    let mut rest = &bytes[..];
    while let Ret(written @ 1..) = sys!(SYS_write, 1, rest, rest.len()) {
        rest = &rest[written as usize..];
        if rest.is_empty() {
            break;
        }
    }
}

/// Takes what the test writes until its process ends, and how it ends; none: it takes too long.
fn read_until(reader: i32, pid: i32, end: Instant, text: &mut Vec<u8>) -> Option<Status> {
    while Instant::now() < end {
        drain(reader, text);
        if let Some(status) = process::try_wait(pid) {
            return Some(status);
        }
        let mut entry = libc::pollfd { fd: reader, events: libc::POLLIN, revents: 0 };
        let pause = libc::timespec { tv_sec: 0, tv_nsec: 5_000_000 };
        sys!(SYS_ppoll, &mut entry, 1, &pause, 0, 8);
        if entry.revents & libc::POLLHUP != 0 {
            // Nothing comes any more; only the end is waited for.
            sys!(SYS_nanosleep, &pause, 0);
        }
    }
    None
}

fn drain(reader: i32, text: &mut Vec<u8>) {
    let mut buffer = [0u8; 4096];
    loop {
        let mut entry = libc::pollfd { fd: reader, events: libc::POLLIN, revents: 0 };
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        sys!(SYS_ppoll, &mut entry, 1, &now, 0, 8);
        if entry.revents & libc::POLLIN == 0 {
            return;
        }
        match sys!(SYS_read, reader, &mut buffer[..], buffer.len()) {
            Ret(length @ 1..) => text.extend_from_slice(&buffer[..length as usize]),
            _ => return,
        }
    }
}

/// Ends all processes that a test has left behind.
fn clear_away() {
    let this = std::process::id().to_string();
    loop {
        let mut found = false;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            // PID (NAME) STATE PPID …, and a name may have brackets in it.
            let parent = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
            if parent == Some(this.as_str()) {
                found = true;
                process::kill(pid, libc::SIGKILL);
                process::wait(pid);
            }
        }
        if !found {
            return;
        }
    }
}

/// A transcript as lines of plain text, none of which looks like the name of a test.
fn readable(text: &[u8]) -> String {
    let mut out = String::new();
    for line in String::from_utf8_lossy(text).lines() {
        if line.starts_with("==") {
            out.push('\\');
        }
        for character in line.chars() {
            match character {
                '\t' | ' '..='~' => out.push(character),
                other if other as u32 > 0x9f => out.push(other),
                other => out.extend(other.escape_default()),
            }
        }
        out.push('\n');
    }
    out
}
