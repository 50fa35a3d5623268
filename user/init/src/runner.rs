//! The guest's end of [`pollux_wire`]: runs one program for the host, with pipes for its
//! standard streams, and carries the streams over the console.

use std::collections::VecDeque;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pollux_wire::{Decoder, Event, Exit, Frame, GUEST_CHUNK, Request};

use crate::sys;

/// Serves the host until its program has ended.
pub fn serve(nonce: &str) {
    let served = sys::open_console().and_then(|tty| {
        sys::make_raw(tty.as_raw_fd())?;
        let mut runner = Runner { tty, decoder: Decoder::default(), request: Vec::new(), started: None, exit: None };
        runner.send(&Frame::Hello(nonce.to_string()))?;
        runner.run()
    });
    if let Err(error) = served {
        // Kernel messages and this one go the same way.
        sys::write_console(format!("init: the console fails: {error}\r\n").as_bytes());
    }
}

struct Runner {
    tty: OwnedFd,
    decoder: Decoder,
    request: Vec<u8>,
    started: Option<Program>,
    exit: Option<Exit>,
}

/// The running program, as init sees it.
struct Program {
    pid: i32,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    /// Input that the pipe did not take yet; a frame's size on the wire is acknowledged with its
    /// last byte.
    pending: VecDeque<(Vec<u8>, usize)>,
    /// The host has no more input.
    ended: bool,
    /// Its system calls are recorded.
    trace: bool,
}

/// How often the records of system calls are fetched, in milliseconds.
const TRACE_PERIOD: u64 = 20;

impl Runner {
    fn run(&mut self) -> io::Result<()> {
        while self.exit.is_none() {
            let mut fds = [libc::pollfd { fd: -1, events: 0, revents: 0 }; 4];
            fds[0] = libc::pollfd { fd: self.tty.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            if let Some(program) = &self.started {
                program.poll_for(&mut fds[1..]);
            }
            let trace = self.started.as_ref().is_some_and(|program| program.trace);
            sys::wait(&mut fds, trace.then_some(TRACE_PERIOD))?;
            if fds[0].revents != 0 {
                self.receive()?;
            }
            if self.started.is_some() {
                self.serve_program(&fds[1..])?;
            }
            if trace {
                self.send_trace()?;
            }
            self.reap()?;
            if sys::wish().is_some() {
                self.exit.get_or_insert(Exit::Code(0));
            }
        }
        if self.started.as_ref().is_some_and(|program| program.trace) {
            self.send_trace()?;
        }
        let exit = self.exit.unwrap_or(Exit::Code(0));
        self.send(&Frame::Exit(exit))
    }

    fn send(&self, frame: &Frame) -> io::Result<()> {
        sys::write_all(self.tty.as_raw_fd(), &frame.encode())
    }

    /// Takes what the host has sent.
    fn receive(&mut self) -> io::Result<()> {
        let mut buffer = [0; 1024];
        let length = match sys::read(self.tty.as_raw_fd(), &mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        for byte in &buffer[..length] {
            if let Event::Frame(frame, size) = self.decoder.push(*byte) {
                self.take(frame, size)?;
            }
        }
        Ok(())
    }

    fn take(&mut self, frame: Frame, size: usize) -> io::Result<()> {
        match (frame, &mut self.started) {
            (Frame::Stdin(data), Some(program)) if program.stdin.is_some() => {
                program.pending.push_back((data, size));
                return Ok(());
            }
            (Frame::StdinEnd, Some(program)) => program.ended = true,
            (Frame::Request(piece), None) => self.request.extend_from_slice(&piece),
            (Frame::Start, None) => self.start()?,
            _ => {}
        }
        self.send(&Frame::Ack(size as u32))
    }

    fn start(&mut self) -> io::Result<()> {
        let Some(request) = Request::decode(&self.request).filter(|r| !r.argv.is_empty()) else {
            self.send(&Frame::Stderr(b"init: this is not a request\n".to_vec()))?;
            self.exit = Some(Exit::Code(125));
            return Ok(());
        };
        match Program::start(&request) {
            Ok(program) => self.started = Some(program),
            Err(error) => {
                let name = String::from_utf8_lossy(&request.argv[0]);
                self.send(&Frame::Stderr(format!("init: {name}: {error}\n").into_bytes()))?;
                // The statuses that a shell uses.
                let missing = error.kind() == io::ErrorKind::NotFound;
                self.exit = Some(Exit::Code(if missing { 127 } else { 126 }));
            }
        }
        Ok(())
    }

    /// Moves data between the program's pipes and the host.
    fn serve_program(&mut self, fds: &[libc::pollfd]) -> io::Result<()> {
        let Some(program) = &mut self.started else {
            return Ok(());
        };
        let acknowledged = program.feed();
        let mut frames: Vec<Frame> = acknowledged.into_iter().map(|size| Frame::Ack(size as u32)).collect();
        if fds[1].revents != 0 {
            frames.extend(read_pipe(&mut program.stdout)?.map(Frame::Stdout));
        }
        if fds[2].revents != 0 {
            frames.extend(read_pipe(&mut program.stderr)?.map(Frame::Stderr));
        }
        frames.iter().try_for_each(|frame| self.send(frame))
    }

    /// Sends the records that have come since the last time.
    fn send_trace(&self) -> io::Result<()> {
        loop {
            let records = std::fs::read("/proc/pollux/trace")?;
            if records.is_empty() {
                return Ok(());
            }
            records.chunks(GUEST_CHUNK).try_for_each(|part| self.send(&Frame::Trace(part.to_vec())))?;
        }
    }

    /// Takes dead children; with the program itself the session ends, once its output is sent.
    fn reap(&mut self) -> io::Result<()> {
        while let Ok(Some((pid, status))) = sys::reap() {
            let Some(program) = self.started.as_mut().filter(|program| program.pid == pid) else {
                continue;
            };
            self.exit = Some(crate::exit_of(status));
            let mut stdout = program.stdout.take();
            let mut stderr = program.stderr.take();
            while let Some(data) = read_pipe(&mut stdout)? {
                self.send(&Frame::Stdout(data))?;
            }
            while let Some(data) = read_pipe(&mut stderr)? {
                self.send(&Frame::Stderr(data))?;
            }
        }
        Ok(())
    }
}

impl Program {
    fn start(request: &Request) -> io::Result<Program> {
        let cwd = Path::new(OsStr::from_bytes(&request.cwd));
        if !request.cwd.is_empty() && !cwd.is_dir() {
            let why = format!("cannot change to the directory {}", cwd.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        let argv: Vec<CString> = request.argv.iter().map(|arg| sys::c_string(OsStr::from_bytes(arg))).collect();
        let (stdin_read, stdin_write) = sys::pipe()?;
        let (stdout_read, stdout_write) = sys::pipe()?;
        let (stderr_read, stderr_write) = sys::pipe()?;
        for end in [&stdin_write, &stdout_read, &stderr_read] {
            sys::set_nonblocking(end.as_raw_fd())?;
        }
        let pid = sys::spawn(&sys::Child {
            argv: &argv,
            program: None,
            stdio: [stdin_read.as_raw_fd(), stdout_write.as_raw_fd(), stderr_write.as_raw_fd()],
            controlling_tty: false,
            env: &request.env,
            cwd: (!request.cwd.is_empty()).then(|| OsStr::from_bytes(&request.cwd)),
            trace: request.trace,
        })?;
        Ok(Program {
            pid,
            stdin: Some(stdin_write),
            stdout: Some(stdout_read),
            stderr: Some(stderr_read),
            pending: VecDeque::new(),
            ended: false,
            trace: request.trace,
        })
    }

    /// What to wait for: room in the standard input, something in the other two.
    fn poll_for(&self, fds: &mut [libc::pollfd]) {
        let raw = |fd: &Option<OwnedFd>| fd.as_ref().map_or(-1, |fd| fd.as_raw_fd());
        let stdin: RawFd = if self.pending.is_empty() { -1 } else { raw(&self.stdin) };
        fds[0] = libc::pollfd { fd: stdin, events: libc::POLLOUT, revents: 0 };
        fds[1] = libc::pollfd { fd: raw(&self.stdout), events: libc::POLLIN, revents: 0 };
        fds[2] = libc::pollfd { fd: raw(&self.stderr), events: libc::POLLIN, revents: 0 };
    }

    /// Gives the program as much of its input as it takes; returns the sizes of the frames that
    /// are used up.
    fn feed(&mut self) -> Vec<usize> {
        let mut done = Vec::new();
        while let (Some(stdin), Some((data, size))) = (&self.stdin, self.pending.front_mut()) {
            match sys::write(stdin.as_raw_fd(), data) {
                Ok(written) if written < data.len() => drop(data.drain(..written)),
                Ok(_) => {
                    done.push(*size);
                    self.pending.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    // Nobody reads any more: the rest is for the bin.
                    done.extend(self.pending.drain(..).map(|(_, size)| size));
                    self.stdin = None;
                }
            }
        }
        if self.ended && self.pending.is_empty() {
            self.stdin = None;
        }
        done
    }
}

/// Reads once; at the end the pipe is closed.
fn read_pipe(pipe: &mut Option<OwnedFd>) -> io::Result<Option<Vec<u8>>> {
    let Some(fd) = pipe else { return Ok(None) };
    let mut buffer = vec![0; GUEST_CHUNK];
    match sys::read(fd.as_raw_fd(), &mut buffer) {
        Ok(0) => {
            *pipe = None;
            Ok(None)
        }
        Ok(length) => {
            buffer.truncate(length);
            Ok(Some(buffer))
        }
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}
