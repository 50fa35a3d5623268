//! The virtual machine: QEMU's command line from what the user wants.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::guest::Guest;
use crate::image::Image;
use crate::network::{self, Forward};
use crate::provision::QEMU;
use crate::share::{self, Share};
use crate::wire::{self, Faults};
use crate::{build, linux};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KernelKind {
    /// The kernel of this workspace
    Pollux,
    /// Debian's kernel, for comparison
    Linux,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bus {
    Mmio,
    Pci,
}

/// The machine's options, shared by all commands that run guests.
#[derive(Args, Clone, Debug)]
pub struct MachineOptions {
    /// Kernel to boot
    #[arg(long, value_enum, default_value = "pollux")]
    pub kernel: KernelKind,
    /// Processors, 1 to 8 [default: as many as the host has, at most 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub smp: Option<u8>,
    /// Memory, at least 64M
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = parse_memory)]
    pub mem: String,
    /// Version of the interrupt controller
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u8).range(2..=3))]
    pub gic: u8,
    /// Where the virtio devices are
    #[arg(long, value_enum, default_value = "mmio")]
    pub bus: Bus,
    /// Count instructions: one per nanosecond of virtual time, on one processor, repeatable
    #[arg(long)]
    pub icount: bool,
    /// Start the kernel at EL2
    #[arg(long)]
    pub virtualization: bool,
    /// More words for the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "", allow_hyphen_values = true)]
    pub append: String,
    /// Leave the network card away (--icount does, too)
    #[arg(long, conflicts_with = "forward")]
    pub no_net: bool,
    /// Lead a port of the host, on its loopback unless an address is given, to one of the guest
    #[arg(long, value_name = "[tcp:|udp:]HOST:GUEST")]
    pub forward: Vec<Forward>,
    /// Make the network a bad one: percent of loss, reorder, duplicate and corrupt, a delay in ms, a seed, control=PORT
    #[arg(long, value_name = "NAME=VALUE,...", conflicts_with = "no_net")]
    pub faults: Option<Faults>,
    /// Leave the image as it is: what the guest writes is lost at the end
    #[arg(long)]
    pub snapshot: bool,
    /// Show a folder of the host in the guest as /mnt/TAG, without a tag as /mnt/host; ":ro" for reading only
    #[arg(long, value_name = "[TAG=]DIR[:ro]")]
    pub share: Vec<Share>,
    /// Use this kernel image instead of building one
    #[arg(long, value_name = "FILE", conflicts_with = "kernel")]
    pub kernel_file: Option<PathBuf>,
    /// More arguments for QEMU, split at blanks
    #[arg(long, value_name = "ARGS", default_value = "", allow_hyphen_values = true)]
    pub qemu: String,
}

impl Default for MachineOptions {
    /// For what measures and compares: without a network card.
    fn default() -> Self {
        MachineOptions {
            kernel: KernelKind::Pollux,
            smp: None,
            mem: "512M".into(),
            gic: 3,
            bus: Bus::Mmio,
            icount: false,
            virtualization: false,
            append: String::new(),
            no_net: true,
            forward: Vec::new(),
            faults: None,
            snapshot: false,
            share: Vec::new(),
            kernel_file: None,
            qemu: String::new(),
        }
    }
}

/// `512M`, `2G`, `512` (MiB, as for QEMU).
fn parse_memory(text: &str) -> Result<String, String> {
    let (number, unit) = match text.strip_suffix(['g', 'G']) {
        Some(number) => (number, 1024),
        None => (text.strip_suffix(['m', 'M']).unwrap_or(text), 1),
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(64..=255_000) => Ok(text.into()),
        _ => Err("not a size from 64M to 249G".into()),
    }
}

/// Linux's Documentation/arch/arm64/booting: the magic number at 56.
fn is_arm64_image(file: &Path) -> Result<bool> {
    let mut magic = [0; 4];
    let read = File::open(file).and_then(|file| file.read_exact_at(&mut magic, 56));
    match read {
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => {
            Err(error).with_context(|| format!("{} cannot be read", file.display()))
        }
        read => Ok(read.is_ok() && magic == *b"ARM\x64"),
    }
}

/// What QEMU boots.
#[derive(Clone, Debug)]
pub struct Boot {
    pub kernel: PathBuf,
    pub initramfs: Option<PathBuf>,
}

impl Boot {
    /// Builds the kernel, or gets Linux.
    pub fn prepare(kind: KernelKind) -> Result<Boot> {
        Ok(match kind {
            KernelKind::Pollux => Boot { kernel: build::kernel()?.image, initramfs: None },
            KernelKind::Linux => {
                let linux = linux::prepare()?;
                Boot { kernel: linux.image, initramfs: Some(linux.initramfs) }
            }
        })
    }
}

/// A machine that only has to be switched on.
pub struct Machine {
    options: MachineOptions,
    boot: Boot,
    image: Image,
    /// Wait for a debugger on this TCP port.
    pub debugger: Option<u16>,
}

impl Machine {
    /// A machine with these options, its kernel, and its root file system.
    pub fn new(options: &MachineOptions, boot: Boot, image: Image) -> Result<Machine> {
        ensure!(
            !(options.icount && options.smp.is_some_and(|smp| smp > 1)),
            "--icount counts the instructions of one processor: leave --smp away"
        );
        share::check(&options.share, options.kernel)?;
        ensure!(
            !options.icount || options.forward.is_empty(),
            "with --icount there is no network card: leave --forward away"
        );
        ensure!(
            !options.icount || options.faults.is_none(),
            "with --icount there is no network card: leave --faults away"
        );
        Ok(Machine { options: options.clone(), boot, image, debugger: None })
    }

    /// The same, with a kernel that is built or fetched first.
    pub fn prepare(options: &MachineOptions, image: Image) -> Result<Machine> {
        // Before anything is built for it.
        share::check(&options.share, options.kernel)?;
        QEMU.path()?;
        let boot = match &options.kernel_file {
            Some(file) => {
                ensure!(file.is_file(), "there is no kernel image {}", file.display());
                ensure!(is_arm64_image(file)?, "{} is not an arm64 Image", file.display());
                Boot { kernel: file.clone(), initramfs: None }
            }
            None => Boot::prepare(options.kernel)?,
        };
        Machine::new(options, boot, image)
    }

    /// Its clock is the number of instructions.
    pub fn counts_instructions(&self) -> bool {
        self.options.icount
    }

    /// How many it has.
    pub fn processors(&self) -> usize {
        let host = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        match self.options.smp {
            _ if self.options.icount => 1,
            Some(smp) => smp.into(),
            None => host,
        }
    }

    /// Switches it on. `log_level` is the kernel's; `init_args` go to the first program. The console is QEMU's standard input
    /// and output.
    pub fn start(&self, log_level: u8, init_args: &[String]) -> Result<Guest> {
        let qemu = self.command(log_level, init_args)?;
        match &self.options.faults {
            Some(faults) => wire::start(qemu, faults),
            None => Guest::start(qemu),
        }
    }

    /// QEMU's command line, for who only shows it.
    pub fn shown(&self, log_level: u8) -> Result<Command> {
        let mut qemu = self.command(log_level, &[])?;
        if self.options.faults.is_some() {
            wire::add_shown(&mut qemu);
        }
        Ok(qemu)
    }

    /// QEMU's command line, without the ends of a wire.
    pub fn command(&self, log_level: u8, init_args: &[String]) -> Result<Command> {
        let options = &self.options;
        let mut qemu = QEMU.command()?;
        let el2 = if options.virtualization { ",virtualization=on" } else { "" };
        qemu.args(["-M", &format!("virt,gic-version={}{el2}", options.gic)]);
        qemu.args(["-cpu", "cortex-a72", "-m", &options.mem]);
        qemu.args(["-smp", &self.processors().to_string()]);
        qemu.args(["-nodefaults", "-display", "none", "-no-reboot", "-monitor", "none"]);
        qemu.args(["-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"]);
        if options.icount {
            // One instruction takes one nanosecond, idle time is skipped, and nothing that
            // changes from run to run gets in.
            qemu.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
            qemu.args(["-seed", "1", "-rtc", "base=2024-01-01T00:00:00,clock=vm"]);
        } else {
            qemu.args(["-accel", "tcg,thread=multi"]);
        }
        self.add_devices(&mut qemu);
        qemu.arg("-kernel").arg(&self.boot.kernel);
        if let Some(initramfs) = &self.boot.initramfs {
            qemu.arg("-initrd").arg(initramfs);
        }
        qemu.args(["-append", &self.command_line(log_level, init_args)]);
        if let Some(port) = self.debugger {
            qemu.args(["-S", "-gdb", &format!("tcp:127.0.0.1:{port}")]);
        }
        qemu.args(options.qemu.split_whitespace());
        Ok(qemu)
    }

    fn add_devices(&self, qemu: &mut Command) {
        let suffix = match self.options.bus {
            Bus::Mmio => "device",
            Bus::Pci => "pci",
        };
        let snapshot = if self.options.snapshot { "on" } else { "off" };
        let file = self.image.path.display().to_string().replace(',', ",,");
        qemu.args(["-global", "virtio-mmio.force-legacy=false"]);
        if !self.options.icount {
            qemu.args(["-object", "rng-random,filename=/dev/urandom,id=entropy"]);
            qemu.args(["-device", &format!("virtio-rng-{suffix},rng=entropy")]);
        }
        qemu.args([
            "-drive",
            &format!("if=none,id=root,format=raw,snapshot={snapshot},file={file}"),
            "-device",
            &format!("virtio-blk-{suffix},drive=root"),
        ]);
        share::add_devices(&self.options.share, self.options.bus, qemu);
        if self.has_network() {
            network::add(qemu, self.options.bus, &self.options.forward, self.options.faults.is_some());
        }
    }

    /// What comes over a network is never the same twice.
    fn has_network(&self) -> bool {
        !self.options.no_net && !self.options.icount
    }

    fn command_line(&self, log_level: u8, init_args: &[String]) -> String {
        let mut words = vec!["console=ttyAMA0".to_string(), "root=/dev/vda".into(), "rw".into()];
        if let Some(init) = &self.image.init {
            words.push(format!("init={init}"));
        }
        words.push(format!("loglevel={log_level}"));
        if self.options.kernel == KernelKind::Linux {
            // Without this a panic waits for ever; with -no-reboot it ends QEMU.
            words.push("panic=-1".into());
            if self.options.icount {
                words.extend(["nokaslr".into(), "norandmaps".into()]);
            }
        }
        words.extend(self.options.append.split_whitespace().map(str::to_string));
        // Before --exec, which takes all that follows.
        let network = network::init_args(self.options.kernel).filter(|_| self.has_network()).into_iter().flatten();
        let init_args: Vec<String> =
            share::init_args(&self.options.share).chain(network).chain(init_args.iter().cloned()).collect();
        if !init_args.is_empty() && !words.iter().any(|word| word == "--") {
            words.push("--".into());
        }
        words.extend(init_args);
        words.join(" ")
    }
}
