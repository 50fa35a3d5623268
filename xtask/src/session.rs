//! One program in a guest: the host's end of [`pollux_wire`].

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use pollux_wire::{Decoder, Event as Wire, Exit, Frame, HOST_CHUNK, Request, WINDOW};

use crate::guest::{Event, Guest};
use crate::machine::Machine;
use crate::refusal::Refusal;

/// Status for a run that took too long, as of timeout(1).
pub const TIMED_OUT: i32 = 124;
/// Status for a kernel that died.
pub const DIED: i32 = 125;

/// An image whose first program is not ours never greets.
const GREETING: Duration = Duration::from_secs(180);
/// From the exit of the program to that of QEMU.
const POWER_OFF: Duration = Duration::from_secs(30);
/// From the word "panic" to the end of what the kernel says about it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Where the program's input comes from.
pub enum Input {
    None,
    Bytes(Vec<u8>),
    /// This process's standard input.
    Host,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program ended and the machine switched itself off.
    Exit(Exit),
    TimedOut,
    /// The kernel died, or something else went wrong on the way; what that was.
    Died(String),
}

impl Outcome {
    /// Why there is nothing more of it, in words.
    pub fn reason(&self) -> String {
        match self {
            Outcome::TimedOut => "no end".into(),
            Outcome::Died(why) => why.clone(),
            Outcome::Exit(exit) => format!("{exit:?}"),
        }
    }

    /// The status for the host.
    pub fn status(&self) -> i32 {
        match self {
            Outcome::Exit(exit) => exit.status(),
            Outcome::TimedOut => TIMED_OUT,
            Outcome::Died(_) => DIED,
        }
    }
}

/// A run: what to do, and where its output goes.
pub struct Session<'a> {
    pub request: Request,
    pub input: Input,
    pub stdout: &'a mut dyn Write,
    pub stderr: &'a mut dyn Write,
    /// Gets the records of system calls, if the request is for a trace.
    pub trace: &'a mut dyn Write,
    /// Gets the kernel's log as it comes.
    pub log: &'a mut dyn Write,
    pub timeout: Option<Duration>,
    /// It took too long, too, if the program prints nothing for so long.
    pub silence: Option<Duration>,
    /// So long after the program's first output QEMU is killed, as if the plug were pulled; the run took too long.
    pub plug: Option<Duration>,
    pub log_level: u8,
}

/// A finished run with its output caught.
#[derive(Debug)]
pub struct Output {
    pub outcome: Outcome,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// The kernel's log.
    pub log: Vec<u8>,
}

/// Runs a program and catches all it says.
pub fn capture(machine: &Machine, request: Request, input: Input, timeout: Duration) -> Result<Output> {
    let mut stderr = Vec::new();
    let output = watch(machine, request, input, timeout, &mut stderr)?;
    Ok(Output { stderr, ..output })
}

/// The same for one whose standard error is looked at while it runs.
pub fn watch(
    machine: &Machine,
    request: Request,
    input: Input,
    timeout: Duration,
    stderr: &mut dyn Write,
) -> Result<Output> {
    let (mut stdout, mut log) = (Vec::new(), Vec::new());
    let outcome = Session {
        request,
        input,
        stdout: &mut stdout,
        stderr,
        trace: &mut io::sink(),
        log: &mut log,
        timeout: Some(timeout),
        silence: None,
        plug: None,
        log_level: 6,
    }
    .run(machine)?;
    Ok(Output { outcome, stdout, stderr: Vec::new(), log })
}

impl Session<'_> {
    /// Runs the program in a freshly started machine.
    pub fn run(self, machine: &Machine) -> Result<Outcome> {
        let nonce = format!("{:x}", std::process::id());
        let init_args = ["--runner".to_string(), nonce.clone()];
        let guest = machine.start(self.log_level, &init_args)?;
        let start = Instant::now();
        let (permits, permitted) = sync_channel(1);
        let mut run = Run {
            deadline: self.timeout.map(|timeout| start + timeout),
            session: self,
            guest,
            nonce,
            decoder: Decoder::default(),
            queue: VecDeque::new(),
            outstanding: 0,
            greeted: None,
            heard: start,
            pulled: None,
            permits,
            permitted: Some(permitted),
            exit: None,
            panic: None,
            refusal: Refusal::default(),
            tail: Vec::new(),
            damaged: 0,
        };
        let greeting = start + GREETING;
        loop {
            let limits = [
                run.deadline,
                run.greeted.is_none().then_some(greeting),
                run.panic,
                run.exit.map(|(_, since)| since + POWER_OFF),
                run.silent_at(),
                run.pulled,
            ];
            let limit = limits.into_iter().flatten().min();
            if let Some(outcome) = run.step(limit)? {
                return Ok(outcome);
            }
        }
    }
}

struct Run<'a> {
    session: Session<'a>,
    guest: Guest,
    deadline: Option<Instant>,
    nonce: String,
    decoder: Decoder,
    /// Encoded frames that wait for room in the window.
    queue: VecDeque<Vec<u8>>,
    outstanding: usize,
    greeted: Option<Instant>,
    /// When the program printed something.
    heard: Instant,
    /// When the plug is pulled.
    pulled: Option<Instant>,
    /// Lets the thread that reads the host's input read once more.
    permits: SyncSender<()>,
    permitted: Option<Receiver<()>>,
    exit: Option<(Exit, Instant)>,
    /// When to stop listening to a kernel that panics.
    panic: Option<Instant>,
    refusal: Refusal,
    /// The line of the log that is being written.
    tail: Vec<u8>,
    damaged: usize,
}

impl Run<'_> {
    /// When a program that prints nothing has taken too long.
    fn silent_at(&self) -> Option<Instant> {
        let silence = self.session.silence.filter(|_| self.greeted.is_some() && self.exit.is_none())?;
        Some(self.heard + silence)
    }

    /// Handles one event, or the end of the patience.
    fn step(&mut self, limit: Option<Instant>) -> Result<Option<Outcome>> {
        let now = Instant::now();
        let patience = limit.map_or(Duration::from_secs(3600), |limit| limit.saturating_duration_since(now));
        match self.guest.events.recv_timeout(patience) {
            Ok(Event::Console(bytes)) => {
                self.refusal.guest_spoke();
                self.console(&bytes)?;
            }
            Ok(Event::Qemu(bytes)) => {
                self.refusal.hear(&bytes);
                self.log(&bytes)?;
            }
            Ok(Event::Input(data)) => {
                if data.is_empty() {
                    self.queue.push_back(Frame::StdinEnd.encode());
                } else {
                    self.send_chunks(&data, Frame::Stdin);
                }
                self.pump();
            }
            Ok(Event::End | Event::Leave(_)) | Err(RecvTimeoutError::Disconnected) => {
                return Ok(Some(self.ended()));
            }
            Err(RecvTimeoutError::Timeout) => return Ok(self.out_of_patience()),
        }
        Ok(None)
    }

    /// QEMU is gone.
    fn ended(&mut self) -> Outcome {
        self.guest.wait(Duration::from_secs(5));
        // What it said last may still be on the way.
        while let Ok(Event::Qemu(bytes)) = self.guest.events.recv_timeout(Duration::from_millis(50)) {
            self.refusal.hear(&bytes);
            let _ = self.log(&bytes);
        }
        match self.exit {
            Some((exit, _)) if self.panic.is_none() => Outcome::Exit(exit),
            _ if self.panic.is_some() => Outcome::Died("the kernel panicked".into()),
            _ => Outcome::Died(
                self.refusal.reason().unwrap_or_else(|| "the machine stopped before the program had ended".into()),
            ),
        }
    }

    fn out_of_patience(&mut self) -> Option<Outcome> {
        let now = Instant::now();
        let passed = |limit: Option<Instant>| limit.is_some_and(|limit| now >= limit);
        if passed(self.panic) {
            Some(Outcome::Died("the kernel panicked".into()))
        } else if passed(self.exit.map(|(_, since)| since + POWER_OFF)) {
            Some(Outcome::Died("the program has ended, but the machine did not switch off".into()))
        } else if passed(self.deadline) || passed(self.silent_at()) || passed(self.pulled) {
            Some(Outcome::TimedOut)
        } else if self.greeted.is_none() {
            Some(Outcome::Died(format!(
                "the guest's init did not answer within {} s; running commands needs an image \
                 whose first program is pollux-init",
                GREETING.as_secs()
            )))
        } else {
            None
        }
    }

    fn console(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut plain = Vec::new();
        for byte in bytes {
            match self.decoder.push(*byte) {
                Wire::None => {}
                Wire::Plain(byte) => plain.push(byte),
                Wire::Frame(frame, _) => self.frame(frame)?,
                Wire::Damaged => {
                    self.damaged += 1;
                    plain.extend_from_slice(b"\r\n[xtask: a damaged frame]\r\n");
                }
            }
        }
        self.log(&plain)
    }

    fn frame(&mut self, frame: Frame) -> io::Result<()> {
        match frame {
            Frame::Hello(nonce) if nonce == self.nonce && self.greeted.is_none() => {
                self.greeted = Some(Instant::now());
                self.heard = Instant::now();
                let request = self.session.request.encode();
                self.send_chunks(&request, Frame::Request);
                self.queue.push_back(Frame::Start.encode());
                self.start_input();
            }
            Frame::Ack(size) => self.outstanding = self.outstanding.saturating_sub(size as usize),
            Frame::Stdout(data) => {
                self.heard = Instant::now();
                self.pulled = self.pulled.or(self.session.plug.map(|plug| self.heard + plug));
                self.session.stdout.write_all(&data)?;
                self.session.stdout.flush()?;
            }
            Frame::Stderr(data) => {
                self.heard = Instant::now();
                self.session.stderr.write_all(&data)?;
                self.session.stderr.flush()?;
            }
            Frame::Trace(data) => self.session.trace.write_all(&data)?,
            Frame::Exit(exit) => self.exit = Some((exit, Instant::now())),
            _ => {}
        }
        self.pump();
        Ok(())
    }

    fn start_input(&mut self) {
        match std::mem::replace(&mut self.session.input, Input::None) {
            Input::None => self.queue.push_back(Frame::StdinEnd.encode()),
            Input::Bytes(bytes) => {
                self.send_chunks(&bytes, Frame::Stdin);
                self.queue.push_back(Frame::StdinEnd.encode());
            }
            Input::Host => {
                let (Some(permitted), sender) = (self.permitted.take(), self.guest.sender.clone()) else {
                    return;
                };
                thread::spawn(move || {
                    let mut buffer = [0; 8 * HOST_CHUNK];
                    while permitted.recv().is_ok() {
                        let length = io::stdin().lock().read(&mut buffer).unwrap_or(0);
                        if sender.send(Event::Input(buffer[..length].to_vec())).is_err() || length == 0 {
                            return;
                        }
                    }
                });
            }
        }
    }

    fn send_chunks(&mut self, data: &[u8], frame: fn(Vec<u8>) -> Frame) {
        self.queue.extend(data.chunks(HOST_CHUNK).map(|chunk| frame(chunk.to_vec()).encode()));
    }

    /// Sends what fits into the window.
    fn pump(&mut self) {
        while let Some(next) = self.queue.front() {
            if self.outstanding > 0 && self.outstanding + next.len() > WINDOW {
                return;
            }
            self.outstanding += next.len();
            self.guest.write(next);
            self.queue.pop_front();
        }
        if self.greeted.is_some() {
            let _ = self.permits.try_send(());
        }
    }

    /// Keeps the log, and watches out for the last words of a kernel.
    fn log(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.session.log.write_all(bytes)?;
        for byte in bytes {
            if *byte != b'\n' {
                self.tail.push(*byte);
                continue;
            }
            if self.panic.is_none() && is_panic(&self.tail) {
                self.panic = Some(Instant::now() + LAST_WORDS);
            }
            self.tail.clear();
        }
        Ok(())
    }
}

/// Whether a line of the log says that the kernel gives up.
pub fn is_panic(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line).to_lowercase();
    line.contains("kernel panic")
}
