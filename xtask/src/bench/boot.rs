//! Counts the instructions of booting, from the machine's reset, which is a few instructions of
//! QEMU's before the kernel's entry, to the first instruction of the first program.
//!
//! No clock can tell: when the machine waits for its disk, virtual time jumps. QEMU itself counts
//! the instructions that it executes, and tells the count while it records a run. So the run is
//! recorded, a debugger stops it where the program begins, and QEMU is asked.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use object::Object;

use super::name_of;
use super::text::figure;
use crate::guest::Guest;
use crate::image::Image;
use crate::machine::{Boot, KernelKind, Machine, MachineOptions};
use crate::{build, outln, paths, ui};

/// How much of Linux' count Pollux may need.
const LIMIT: f64 = 1.15;
const PATIENCE: Duration = Duration::from_secs(180);

/// Instructions that a kernel has executed.
struct Count {
    /// Until the first program of the initramfs began, if there is one.
    initramfs: Option<u64>,
    /// Until the first program of the root file system began.
    init: u64,
}

/// Measures and prints; the status tells whether Pollux keeps to the limit.
pub fn run(against_linux: bool) -> Result<u8> {
    let pollux = measure(KernelKind::Pollux)?;
    outln!("instructions from power-on to the first one of the first program");
    outln!("Pollux {:>14}", figure(pollux.init as f64));
    if !against_linux {
        return Ok(0);
    }
    let linux = measure(KernelKind::Linux)?;
    outln!("Linux  {:>14}", figure(linux.init as f64));
    let mut ratio = pollux.init as f64 / linux.init as f64;
    outln!("ratio  {ratio:>14.4}");
    if let Some(initramfs) = linux.initramfs {
        outln!(
            "Linux  {:>14}  to the first one of its initramfs, which loads the disk's driver",
            figure(initramfs as f64)
        );
        ratio = pollux.init as f64 / initramfs as f64;
        outln!("ratio  {ratio:>14.4}");
    }
    if ratio > LIMIT {
        eprintln!("Pollux may need at most {LIMIT} times as many");
    }
    Ok(u8::from(ratio > LIMIT))
}

fn measure(kind: KernelKind) -> Result<Count> {
    let image = Image { path: Image::find("bench")?.path, init: Some("/sbin/bench-first".into()) };
    let init = entry(&build::user_program("pollux-bench", "bench-first")?)?;
    let initramfs = match kind {
        KernelKind::Linux => Some(entry(&build::user_program("pollux-init", "initramfs")?)?),
        KernelKind::Pollux => None,
    };
    let options = MachineOptions { kernel: kind, icount: true, snapshot: true, ..MachineOptions::default() };
    let machine = Machine::new(&options, Boot::prepare(kind)?, image)?;
    let _step = ui::step(format!("Booting {}", name_of(kind)));
    let folder = paths::out().join(format!("boot.{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let count = measure_in(&folder, &machine, init, initramfs);
    fs::remove_dir_all(&folder)?;
    count
}

fn entry(program: &Path) -> Result<u64> {
    let data = fs::read(program)?;
    Ok(object::File::parse(&*data)?.entry())
}

fn measure_in(folder: &Path, machine: &Machine, init: u64, initramfs: Option<u64>) -> Result<Count> {
    let (debugger, control) = (folder.join("gdb"), folder.join("qmp"));
    let mut qemu = machine.command(4, &[])?;
    let socket = |path: &Path| format!("unix:{},server=on,wait=off", path.display());
    qemu.arg("-S").arg("-gdb").arg(socket(&debugger)).arg("-qmp").arg(socket(&control));
    qemu.args(["-icount", &format!("rr=record,rrfile={}", folder.join("record").display())]);
    let mut guest = Guest::start(qemu)?;
    let _console = guest.take_console();
    let mut control = Control::connect(&control)?;
    let mut debugger = Debugger { stream: connect(&debugger)? };
    let mut run_to = |address: u64| -> Result<u64> {
        debugger.run_to(address)?;
        control.instructions()
    };
    let initramfs = initramfs.map(&mut run_to).transpose()?;
    Ok(Count { initramfs, init: run_to(init)? })
}

/// Waits for QEMU to listen.
fn connect(path: &Path) -> Result<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(error) if start.elapsed() > Duration::from_secs(20) => {
                return Err(error).context("QEMU does not listen");
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// QEMU's machine protocol: one JSON object a line.
struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    fn connect(path: &Path) -> Result<Control> {
        let mut control = Control { stream: BufReader::new(connect(path)?) };
        control.line()?;
        control.ask("qmp_capabilities")?;
        Ok(control)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "QEMU has ended");
        Ok(line)
    }

    fn ask(&mut self, command: &str) -> Result<String> {
        writeln!(self.stream.get_mut(), "{{\"execute\": \"{command}\"}}")?;
        loop {
            let line = self.line()?;
            // In between come events.
            if line.contains("\"return\"") {
                return Ok(line);
            }
            ensure!(!line.contains("\"error\""), "QEMU refuses {command}: {line}");
        }
    }

    /// How many have been executed so far.
    fn instructions(&mut self) -> Result<u64> {
        let answer = self.ask("query-replay")?;
        let digits = answer.split_once("\"icount\":").map(|(_, rest)| rest.trim_start());
        let digits = digits.and_then(|rest| rest.split(|byte: char| !byte.is_ascii_digit()).next());
        digits.and_then(|digits| digits.parse().ok()).with_context(|| format!("no count in {answer}"))
    }
}

/// The little that is needed of gdb's remote protocol.
struct Debugger {
    stream: UnixStream,
}

impl Debugger {
    /// Lets the machine run until an instruction at this address is next.
    fn run_to(&mut self, address: u64) -> Result<()> {
        let place = format!("1,{address:x},4");
        self.ask(&format!("Z{place}"))?;
        let stopped = self.ask("c")?;
        ensure!(stopped.starts_with("T05"), "the machine did not get there: {stopped}");
        self.ask(&format!("z{place}"))?;
        Ok(())
    }

    fn ask(&mut self, command: &str) -> Result<String> {
        let sum = command.bytes().fold(0u8, u8::wrapping_add);
        write!(self.stream, "${command}#{sum:02x}")?;
        while self.byte()? != b'$' {}
        let mut answer = String::new();
        loop {
            match self.byte()? {
                b'#' => break,
                byte => answer.push(byte.into()),
            }
        }
        let _sum = (self.byte()?, self.byte()?);
        self.stream.write_all(b"+")?;
        if answer.is_empty() || answer.starts_with('E') {
            bail!("QEMU's debugger refuses {command}: {answer:?}");
        }
        Ok(answer)
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).context("QEMU's debugger is silent")?;
        Ok(byte[0])
    }
}
