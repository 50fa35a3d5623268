//! The tools that the rest needs: found where they are, installed when that is possible without
//! asking, else named in the command that installs them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{build, paths, ui};

/// The kernel's target.
pub const BARE: &str = "aarch64-unknown-none-softfloat";
/// The target of guest programs.
pub const MUSL: &str = "aarch64-unknown-linux-musl";

/// A tool of the host and the Debian package that has it.
#[derive(Clone, Copy)]
pub struct Tool {
    pub name: &'static str,
    pub package: &'static str,
}

pub const QEMU: Tool = Tool { name: "qemu-system-aarch64", package: "qemu-system-arm" };
pub const MKE2FS: Tool = Tool { name: "mke2fs", package: "e2fsprogs" };
pub const E2FSCK: Tool = Tool { name: "e2fsck", package: "e2fsprogs" };
pub const DEBUGFS: Tool = Tool { name: "debugfs", package: "e2fsprogs" };
pub const TAR: Tool = Tool { name: "tar", package: "tar" };
pub const XZ: Tool = Tool { name: "xz", package: "xz-utils" };
pub const GDB: Tool = Tool { name: "gdb-multiarch", package: "gdb-multiarch" };
pub const APT: Tool = Tool { name: "apt-get", package: "apt" };
pub const DPKG_DEB: Tool = Tool { name: "dpkg-deb", package: "dpkg" };

/// All of them, for `doctor`.
pub const TOOLS: [Tool; 9] = [QEMU, MKE2FS, E2FSCK, DEBUGFS, TAR, XZ, GDB, APT, DPKG_DEB];

impl Tool {
    /// Where it is. Ordinary users of Debian lack the sbin folders in PATH.
    pub fn find(self) -> Option<PathBuf> {
        find_program(self.name)
    }

    /// Where it is, after installing it if need be.
    pub fn path(self) -> Result<PathBuf> {
        need(&[self])?;
        self.find().with_context(|| format!("package {} is installed, but has no {}", self.package, self.name))
    }

    /// A command that runs it.
    pub fn command(self) -> Result<Command> {
        self.path().map(Command::new)
    }
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Makes sure that all of them are there.
pub fn need(tools: &[Tool]) -> Result<()> {
    let mut packages: Vec<_> = tools.iter().filter(|tool| tool.find().is_none()).map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() { Ok(()) } else { install(&packages) }
}

/// Installs packages of the host's own distribution.
pub fn install(packages: &[&str]) -> Result<()> {
    let by_hand = format!("apt-get update && apt-get install -y {}", packages.join(" "));
    if APT.find().is_none() {
        bail!(
            "missing: {}. This is not a Debian or Ubuntu system, so install by its own means what \
             `{by_hand}` would install there",
            packages.join(", ")
        );
    }
    let Some(become_root) = privilege() else {
        bail!("missing: {}. To install, type:\n\n    sudo sh -c '{by_hand}'\n", packages.join(", "));
    };
    let apt = |arguments: &[&str]| {
        let mut words = become_root.clone();
        words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"].map(OsString::from));
        words.extend(arguments.iter().map(OsString::from));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        ui::run_quietly(&mut command)
    };
    let _step = ui::step(format!("Installing {}", packages.join(", ")));
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    // The package lists may be missing or too old for what the archive has now.
    apt(&arguments)
        .or_else(|_| apt(&["update"]).and_then(|()| apt(&arguments)))
        .with_context(|| format!("cannot install by myself. Type:\n\n    sudo sh -c '{by_hand}'\n"))
}

/// The words that run a command as root without a question: none for root, or sudo.
fn privilege() -> Option<Vec<OsString>> {
    if rustix::process::geteuid().is_root() {
        return Some(Vec::new());
    }
    let sudo = find_program("sudo")?;
    let allowed = Command::new(&sudo)
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    allowed.then(|| vec![sudo.into(), "-n".into()])
}

/// How cargo is to be called to build for a target.
#[derive(Default)]
pub struct Toolchain {
    arguments: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
}

impl Toolchain {
    /// Adds what it takes to a cargo command.
    pub fn apply(&self, command: &mut Command) {
        command.args(&self.arguments);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
    }
}

/// Makes sure that programs can be built for a target.
pub fn rust_target(triple: &str) -> Result<Toolchain> {
    if has_target(triple)? {
        return Ok(Toolchain::default());
    }
    let rustup = rustup_add(&["target", "add", triple]);
    if rustup.is_ok() && has_target(triple)? {
        return Ok(Toolchain::default());
    }
    crate::provision::from_source(triple).map_err(|error| {
        let by_rustup = rustup.err().map_or_else(String::new, |error| format!("{error:#}\n"));
        error.context(format!("{by_rustup}Rust's target {triple} is missing"))
    })
}

/// Whether the compiler in use has the target's standard library.
pub fn has_target(triple: &str) -> Result<bool> {
    let folder = ui::read(rustc().args(["--print", "target-libdir", "--target", triple]))?;
    let mut entries = match std::fs::read_dir(folder.trim()) {
        Ok(entries) => entries,
        Err(_) => return Ok(false),
    };
    Ok(entries.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))))
}

fn rustc() -> Command {
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
    command.current_dir(paths::root());
    command
}

/// Asks rustup for something, for the toolchain that the workspace pins.
pub fn rustup_add(arguments: &[&str]) -> Result<()> {
    let shown = format!("rustup {}", arguments.join(" "));
    let rustup =
        find_program("rustup").with_context(|| format!("rustup is not installed, or `{shown}` would get it"))?;
    let _step = ui::step(shown.clone());
    ui::run_quietly(Command::new(rustup).args(arguments).current_dir(paths::root()))
        .with_context(|| format!("`{shown}` failed; repeat it when the network is back"))
}

/// A component of the toolchain, such as clippy.
pub fn rust_component(program: &str, component: &str) -> Result<()> {
    let works = build::cargo()
        .args([program, "--version"])
        .stdin(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success());
    if works { Ok(()) } else { rustup_add(&["component", "add", component]) }
}

/// Without a prebuilt standard library, it is built from the compiler's source.
fn from_source(triple: &str) -> Result<Toolchain> {
    let sysroot = ui::read(rustc().args(["--print", "sysroot"]))?;
    let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/Cargo.lock");
    if !source.is_file() {
        bail!("its source ({}) is not installed either", source.display());
    }
    bail!("building {triple} from source is not supported")
}
