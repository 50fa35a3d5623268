//! Which file is really run: `#!` lines (execve(2), "Interpreter scripts").

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::Request;
use super::args::Strings;
use crate::errno::{Errno, Result};
use crate::fs::{self, OpenFile};
use crate::mm::IoBuf;
use crate::process::Thread;
use crate::syscalls::SysError;

/// BINPRM_BUF_SIZE: how much of a file is looked at to recognise its kind, in bytes.
const HEAD: usize = 256;
/// Nested interpreters before ELOOP.
const MAX_DEPTH: usize = 5;

/// An ELF file, ready to be loaded, with the arguments it gets.
pub struct Program {
    pub file: Arc<OpenFile>,
    pub head: Vec<u8>,
    /// AT_EXECFN.
    pub name: Vec<u8>,
    /// Whose last component is the name of the command; the file's if it was called without one.
    pub comm: Vec<u8>,
    pub argv: Strings,
    pub envp: Strings,
}

impl Program {
    /// The command name: the last component of the name it was called by.
    pub fn comm(&self) -> &[u8] {
        self.comm.rsplit(|byte| *byte == b'/').next().unwrap_or(&self.comm)
    }
}

/// Opens an executable by path, as execve(2) does; `keep`: see [`fs::open_exec`].
pub async fn open(t: &Thread, path: &[u8], keep: bool) -> Result<Arc<OpenFile>> {
    fs::open_exec(fs::Ctx::of(t), fs::AT_FDCWD, path, fs::Flags::FOLLOW, keep).await
}

/// Reads from `pos` of a regular file until `buf` is full or the file ends.
pub async fn read_file(t: &Thread, file: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        let mut rest = IoBuf::kernel_mut(&mut buf[done..]);
        match file.read_at(t, &mut rest, pos + done as u64).await {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(SysError::Errno(errno)) => return Err(errno),
            Err(SysError::Restart(_)) => return Err(Errno::EINTR),
        }
    }
    Ok(done)
}

pub async fn resolve(t: &Thread, request: Request) -> Result<Program> {
    let Request { mut file, name, mut argv, envp, name_vanishes, nameless } = request;
    let comm = if nameless { file.path().dentry.name().to_vec() } else { name.clone() };
    if argv.count() == 0 {
        // Linux gives a program at least an empty argv[0].
        argv = Strings::from_slices(&[b""]);
    }
    let mut script = name.clone();
    for _ in 0..=MAX_DEPTH {
        let head = read_head(t, &file).await?;
        if !head.starts_with(b"#!") {
            return Ok(Program { file, head, name, comm, argv, envp });
        }
        if name_vanishes {
            return Err(Errno::ENOENT);
        }
        let (interpreter, argument) = parse_line(&head)?;
        let mut strings: Vec<&[u8]> = vec![interpreter];
        strings.extend(argument);
        strings.push(&script);
        argv.replace_first(&strings);
        file = open(t, interpreter, true).await?;
        script = interpreter.to_vec();
    }
    Err(Errno::ELOOP)
}

async fn read_head(t: &Thread, file: &OpenFile) -> Result<Vec<u8>> {
    let mut head = vec![0; HEAD];
    let len = read_file(t, file, &mut head, 0).await?;
    head.truncate(len);
    Ok(head)
}

/// The interpreter and its optional single argument.
fn parse_line(head: &[u8]) -> Result<(&[u8], Option<&[u8]>)> {
    let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let body = &head[2..];
    let newline = body.iter().position(|byte| *byte == b'\n');
    // Without an end of line the last byte of a full head does not count.
    let line = &body[..newline.unwrap_or(body.len().min(HEAD - 3))];
    // A NUL ends the name, and there is one behind the end of a short file.
    let nul =
        line.iter().position(|byte| *byte == 0).or((newline.is_none() && head.len() < HEAD).then_some(line.len()));
    let line = &line[..nul.unwrap_or(line.len())];
    let complete = newline.is_some() || nul.is_some();
    let Some(start) = line.iter().position(|byte| !blank(byte)) else {
        // Linux takes a name that a NUL makes empty for the working directory.
        return Err(if nul.is_some() { Errno::EACCES } else { Errno::ENOEXEC });
    };
    let line = &line[start..];
    let end = line.iter().position(blank);
    if end.is_none() && !complete {
        // The name itself is cut off: running a prefix of it would run something else.
        return Err(Errno::ENOEXEC);
    }
    let (name, rest) = line.split_at(end.unwrap_or(line.len()));
    let rest = rest.iter().position(|byte| !blank(byte)).map(|from| &rest[from..]);
    let argument = rest.map(|rest| {
        let end = rest.iter().rposition(|byte| !blank(byte)).map_or(0, |last| last + 1);
        &rest[..end]
    });
    Ok((name, argument))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreter_lines() {
        assert_eq!(parse_line(b"#!/bin/sh\n").unwrap(), (&b"/bin/sh"[..], None));
        assert_eq!(parse_line(b"#! /bin/awk -f  \nx").unwrap(), (&b"/bin/awk"[..], Some(&b"-f"[..])));
        assert_eq!(parse_line(b"#!/bin/x a b\n").unwrap(), (&b"/bin/x"[..], Some(&b"a b"[..])));
        assert_eq!(parse_line(b"#!\n"), Err(Errno::ENOEXEC));
        assert_eq!(parse_line(b"#!/bin/sh").unwrap(), (&b"/bin/sh"[..], None));
        assert_eq!(parse_line(b"#!/bin/sh\0 -x\n").unwrap(), (&b"/bin/sh"[..], None));
        assert_eq!([&b"#!"[..], b"#! ", b"#!\0\n"].map(parse_line), [Err(Errno::EACCES); 3]);
        assert_eq!(parse_line(&[b"#!".as_slice(), &[b' '; HEAD]].concat()[..HEAD]), Err(Errno::ENOEXEC));
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        let mut head = b"#!/".to_vec();
        head.resize(HEAD, b'x');
        assert_eq!(parse_line(&head), Err(Errno::ENOEXEC));
    }
}
