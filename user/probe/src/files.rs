//! Rules of files that programs seldom meet: one line each, the same on Linux.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Result, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::ptr::null;

type Rule = (&'static str, fn() -> Result<String>);

const RULES: &[Rule] = &[
    ("a program that runs is not written", running_program),
    ("a program that is written does not run", written_program),
    ("a script that is written does not run", written_script),
    ("a memfd runs while it is open", memfd_program),
    ("seeking where positions mean nothing", seek_devices),
    ("nothing is written to a broken pipe", empty_write),
    ("names of /proc cannot be made", names_of_proc),
];

pub fn all() {
    for (name, rule) in RULES {
        println!("{name}: {}", rule().unwrap_or_else(|error| format!("failed: {error}")));
    }
}

/// The errno of an operation, 0 if it succeeded.
fn errno_of<T>(result: Result<T>) -> i32 {
    result.err().map_or(0, |error| error.raw_os_error().unwrap_or(-1))
}

/// A copy of this program.
fn copy(path: &str) -> Result<()> {
    let _ = fs::remove_file(path);
    fs::copy("/proc/self/exe", path)?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o755))
}

fn writing(path: &str) -> Result<File> {
    OpenOptions::new().append(true).open(path)
}

fn running_program() -> Result<String> {
    let path = "/tmp/probe.running";
    copy(path)?;
    let mut child = Command::new(path).arg("wait").stdin(Stdio::piped()).spawn()?;
    let mut answers = vec![
        errno_of(writing(path)),
        errno_of(OpenOptions::new().read(true).custom_flags(libc::O_TRUNC).open(path)),
        // SAFETY: a string that ends in NUL.
        match unsafe { libc::truncate(c"/tmp/probe.running".as_ptr(), 0) } {
            0 => 0,
            _ => errno_of::<()>(Err(std::io::Error::last_os_error())),
        },
        errno_of(File::open(path)),
    ];
    drop(child.stdin.take());
    child.wait()?;
    answers.push(errno_of(writing(path)));
    fs::remove_file(path)?;
    Ok(format!("{answers:?}"))
}

fn written_program() -> Result<String> {
    let path = "/tmp/probe.written";
    copy(path)?;
    let file = writing(path)?;
    let busy = errno_of(Command::new(path).arg("nothing").status());
    drop(file);
    let run = Command::new(path).arg("true").status()?;
    fs::remove_file(path)?;
    Ok(format!("{busy} {run}"))
}

fn written_script() -> Result<String> {
    let path = "/tmp/probe.script";
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o755).open(path)?;
    file.write_all(b"#!/usr/bin/probe wait\n")?;
    let busy = errno_of(Command::new(path).status());
    drop(file);
    // Once its interpreter runs, the script itself is free.
    let mut child = Command::new(path).stdin(Stdio::piped()).spawn()?;
    let free = errno_of(writing(path));
    drop(child.stdin.take());
    child.wait()?;
    fs::remove_file(path)?;
    Ok(format!("{busy} {free}"))
}

fn memfd_program() -> Result<String> {
    // SAFETY: a string that ends in NUL; the descriptor is ours.
    let mut file = unsafe { File::from_raw_fd(libc::memfd_create(c"probe".as_ptr(), 0)) };
    file.write_all(&fs::read("/proc/self/exe")?)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let run = Command::new(&path).arg("true").status()?;
    let again = OpenOptions::new().write(true).open(&path)?;
    let busy = errno_of(Command::new(&path).arg("true").status());
    drop(again);
    Ok(format!("{run} {busy}"))
}

fn seek_devices() -> Result<String> {
    let mut answers = Vec::new();
    for path in ["/dev/null", "/dev/zero", "/dev/full", "/dev/urandom"] {
        let mut file = File::open(path)?;
        file.read_exact(&mut [0; 10]).or_else(|error| if path == "/dev/null" { Ok(()) } else { Err(error) })?;
        let at = [SeekFrom::Start(77), SeekFrom::Current(5), SeekFrom::End(-9)].map(|to| file.seek(to).ok());
        answers.push(format!("{at:?}"));
    }
    answers.dedup();
    Ok(answers.join(" "))
}

fn empty_write() -> Result<String> {
    let mut fds = [0; 2];
    // SAFETY: the descriptors are ours; nothing is read from the null pointer.
    unsafe {
        libc::pipe(fds.as_mut_ptr());
        drop(OwnedFd::from_raw_fd(fds[0]));
        let writer = OwnedFd::from_raw_fd(fds[1]);
        Ok(format!("{}", libc::write(writer.as_raw_fd(), null(), 0)))
    }
}

fn names_of_proc() -> Result<String> {
    let answers: Vec<i32> = ["/proc/x", "/proc/1/x", "/proc/self/fd/x", "/proc/sys/x", "/sys/x", "/dev/pts/x"]
        .into_iter()
        .flat_map(|path| {
            [errno_of(fs::create_dir(path)), errno_of(OpenOptions::new().append(true).create(true).open(path))]
        })
        .collect();
    Ok(format!("{answers:?}"))
}
