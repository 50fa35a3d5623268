//! The command line of `cargo xtask`.

use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};
use pollux_wire::Request;

use crate::image::Image;
use crate::machine::{KernelKind, Machine, MachineOptions};
use crate::session::{Input, Outcome, Session};
use crate::{
    bench, build, check, contract, doctor, interactive, miri, out, outln, paths, power_cut, provision, sim, test,
    trace, ui, workload,
};

/// Builds Pollux and its images, runs them in QEMU, and tests them.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    /// From the process's arguments. Those who forget the `--` before a program are told.
    pub fn from_arguments() -> Cli {
        Cli::try_parse().unwrap_or_else(|error| {
            let program = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::String(word)) if !word.starts_with('-') => Some(word),
                _ => None,
            };
            let takes_one = std::env::args().nth(1).is_some_and(|command| matches!(&*command, "qemu" | "trace"));
            match program.filter(|_| error.kind() == ErrorKind::UnknownArgument && takes_one) {
                Some(program) => {
                    eprintln!("error: the program for the guest stands behind --, as in: -- {program}");
                    std::process::exit(error.exit_code())
                }
                None => error.exit(),
            }
        })
    }
}

#[derive(Subcommand)]
enum Command {
    /// Boot: an interactive shell, or one program whose output and status become xtask's
    Qemu(Qemu),
    /// Build the kernel image, target/pollux/Image
    Build,
    /// Build a root file system from images/NAME.toml
    Image(ImageCommand),
    /// Run the host's tests, then the tests that drive guests
    Test(test::Options),
    /// Compare what programs may rely on with Linux, one behaviour at a time
    Contract(contract::Options),
    /// Fork, exec, pipe and write files for minutes, and see whether the memory comes back
    Stress(test::Stress),
    /// Run programs that load the kernel and check it, also beside Linux
    Workload(workload::Options),
    /// Pull the plug of a guest that commits to git, again and again, and see what is left on its disk
    PowerCut(power_cut::Options),
    /// Measure what single operations of the kernel cost, also compared with Linux
    Bench(bench::Options),
    /// Run the kernel on simulated machines, in which a seed decides what happens when
    Sim(sim::Options),
    /// Run host tests of the kernel under Miri, which finds undefined behaviour and data races
    Miri(miri::Options),
    /// Show the system calls of a program in a guest, or count them
    Trace(trace::Trace),
    /// Check formatting, lints and documentation
    Check,
    /// Boot with a debugger attached to the kernel
    Gdb(Gdb),
    /// Tell which tools are here and which are missing
    Doctor,
}

#[derive(Args)]
struct Qemu {
    #[command(flatten)]
    machine: MachineOptions,
    /// Recipe (a name), or a file with a root file system (a path)
    #[arg(long, value_name = "NAME|FILE", default_value = "busybox")]
    image: String,
    /// Give up after this time, with status 124: seconds, or with a unit (90s, 5m)
    #[arg(long, value_name = "TIME", value_parser = parse_time, requires = "command")]
    timeout: Option<Duration>,
    /// Set a variable for the program
    #[arg(long, value_name = "NAME=VALUE", requires = "command")]
    env: Vec<String>,
    /// Directory in the guest to run the program in
    #[arg(long, value_name = "DIR", requires = "command")]
    cwd: Option<String>,
    /// Show the kernel's messages, too
    #[arg(short, long)]
    verbose: bool,
    /// Print QEMU's command line and start nothing; what it names is built first
    #[arg(long)]
    dry_run: bool,
    /// The program and its arguments. Status: its own; 128+n after signal n; 124 after --timeout;
    /// 125 if the kernel died, or QEMU did not start
    #[arg(last = true, value_name = "CMD")]
    command: Vec<std::ffi::OsString>,
}

#[derive(Args)]
struct ImageCommand {
    #[arg(default_value = "busybox")]
    name: String,
    /// Name the recipes and end
    #[arg(long, conflicts_with = "name")]
    list: bool,
}

#[derive(Args)]
struct Gdb {
    #[command(flatten)]
    machine: MachineOptions,
    /// Recipe (a name), or a file with a root file system (a path)
    #[arg(long, value_name = "NAME|FILE", default_value = "busybox")]
    image: String,
    /// TCP port of QEMU's debugger interface
    #[arg(long, default_value_t = 1234, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Only start QEMU, and wait for a debugger
    #[arg(long)]
    server: bool,
}

impl Cli {
    /// Does it, and returns the status for the shell.
    pub fn run(self) -> Result<u8> {
        match self.command {
            Command::Qemu(qemu) => qemu.run(),
            Command::Build => {
                let kernel = build::kernel()?;
                let size = kernel.image.metadata()?.len();
                outln!("{} ({} KiB)", kernel.image.display(), size.div_ceil(1024));
                Ok(0)
            }
            Command::Image(ImageCommand { list: true, .. }) => {
                out!("{}", crate::recipe::list(&paths::recipes())?);
                Ok(0)
            }
            Command::Image(image) => {
                let image = crate::image::build(&image.name, &paths::out().join("images"))?;
                outln!("{}", image.path.display());
                Ok(0)
            }
            Command::Test(options) => options.run(),
            Command::Contract(options) => options.run(),
            Command::Stress(stress) => stress.run(),
            Command::Workload(options) => options.run(),
            Command::PowerCut(options) => options.run(),
            Command::Bench(options) => options.run(),
            Command::Sim(options) => options.run(),
            Command::Miri(options) => options.run(),
            Command::Trace(trace) => trace.run(),
            Command::Check => check::run().map(|()| 0),
            Command::Gdb(gdb) => gdb.run(),
            Command::Doctor => doctor::run(),
        }
    }
}

impl Qemu {
    fn run(self) -> Result<u8> {
        if !self.command.is_empty() && !self.verbose {
            ui::silence();
        }
        provision::need_for_guests()?;
        let machine = Machine::prepare(&self.machine, Image::find(&self.image)?)?;
        if self.dry_run {
            outln!("{}", ui::shown(&machine.shown(7)?));
            return Ok(0);
        }
        let status = if self.command.is_empty() {
            interactive::run(&machine, if self.verbose { 7 } else { 4 })?
        } else {
            self.run_command(&machine)?
        };
        Ok(status as u8)
    }

    fn run_command(self, machine: &Machine) -> Result<i32> {
        let env = self.env.iter().map(|pair| {
            let (name, value) =
                pair.split_once('=').filter(|(name, _)| !name.is_empty()).context("--env takes NAME=VALUE")?;
            Ok((name.into(), value.into()))
        });
        let request = Request {
            env: env.collect::<Result<_>>()?,
            cwd: self.cwd.unwrap_or_default().into_bytes(),
            argv: self.command.into_iter().map(OsStringExt::into_vec).collect(),
            trace: false,
        };
        let mut log = Log { kept: Vec::new(), shown: self.verbose };
        let outcome = Session {
            request,
            input: Input::Host,
            stdout: &mut io::stdout(),
            stderr: &mut io::stderr(),
            trace: &mut io::sink(),
            log: &mut log,
            timeout: self.timeout,
            silence: None,
            plug: None,
            log_level: if self.verbose { 7 } else { 6 },
        }
        .run(machine)?;
        match &outcome {
            Outcome::Exit(_) => {}
            Outcome::TimedOut => {
                log.show();
                eprintln!("xtask: no end within {:?}", self.timeout.unwrap_or_default());
            }
            Outcome::Died(why) => {
                log.show();
                eprintln!("xtask: {why}");
            }
        }
        Ok(outcome.status())
    }
}

/// The kernel's messages: kept for the case that something goes wrong.
struct Log {
    kept: Vec<u8>,
    shown: bool,
}

impl Log {
    fn show(&self) {
        if !self.shown {
            eprintln!("{}", String::from_utf8_lossy(&self.kept).replace('\r', ""));
        }
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.shown {
            io::stderr().write_all(bytes)?;
        } else {
            self.kept.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Gdb {
    fn run(self) -> Result<u8> {
        ensure!(
            self.machine.kernel == KernelKind::Pollux && self.machine.kernel_file.is_none(),
            "only Pollux's own symbols are here: leave --kernel and --kernel-file away"
        );
        provision::need_for_guests()?;
        provision::need(&[provision::GDB])?;
        let kernel = build::kernel()?;
        let mut machine = Machine::prepare(&self.machine, Image::find(&self.image)?)?;
        machine.debugger = Some(self.port);
        let connect = format!("target remote 127.0.0.1:{}", self.port);
        eprintln!("In another terminal: gdb-multiarch {} -ex '{connect}'", kernel.elf.display());
        if self.server {
            return Ok(interactive::run(&machine, 7)? as u8);
        }
        let mut guest = machine.start(7, &[])?;
        // The console's input stays open, or QEMU would see its end.
        let _console = guest.take_console();
        // Ctrl-C is the debugger's: it stops the guest. A handler, which the debugger does not inherit.
        let _interrupts = signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::default())?;
        let status = provision::GDB
            .command()?
            .arg(&kernel.elf)
            .args(["-q", "-ex", "set confirm off", "-ex", &connect])
            .status()?;
        Ok(u8::from(!status.success()))
    }
}

/// `90`, `90s`, `5m`, `0.5s`.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60.0),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    number
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * unit).ok())
        .filter(|time| !time.is_zero())
        .ok_or_else(|| format!("{text:?} is not a time such as 90, 90s or 5m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn times_have_units() {
        assert_eq!(parse_time("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_time("0.5s"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("5m"), Ok(Duration::from_secs(300)));
        assert!(parse_time("-1").is_err());
        assert!(parse_time("0").is_err());
        assert!(parse_time("soon").is_err());
    }
}
