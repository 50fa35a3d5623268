//! The tools that the rest needs: found where they are, installed when that is possible without
//! asking, else named in the command that installs them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

use crate::{apt, build, from_source, paths, ui};

/// The kernel's target.
pub const BARE: &str = "aarch64-unknown-none-softfloat";
/// The target of guest programs.
pub const MUSL: &str = "aarch64-unknown-linux-musl";

/// A tool of the host and the Debian package that has it.
#[derive(Clone, Copy)]
pub struct Tool {
    pub name: &'static str,
    pub package: &'static str,
    /// The only thing that needs it, if not everything does.
    pub only_for: Option<&'static str>,
}

const fn tool(name: &'static str, package: &'static str) -> Tool {
    Tool { name, package, only_for: None }
}

pub const QEMU: Tool = tool("qemu-system-aarch64", "qemu-system-arm");
pub const MKE2FS: Tool = tool("mke2fs", "e2fsprogs");
pub const E2FSCK: Tool = tool("e2fsck", "e2fsprogs");
pub const DEBUGFS: Tool = tool("debugfs", "e2fsprogs");
pub const TAR: Tool = tool("tar", "tar");
pub const XZ: Tool = Tool { only_for: Some("--kernel linux"), ..tool("xz", "xz-utils") };
pub const GDB: Tool = Tool { only_for: Some("cargo xtask gdb"), ..tool("gdb-multiarch", "gdb-multiarch") };
pub const PYTHON: Tool = Tool { only_for: Some("cargo xtask workload net"), ..tool("python3", "python3") };
pub const GIT: Tool = Tool { only_for: Some("cargo xtask workload net"), ..tool("git", "git") };
pub const OPENSSL: Tool = Tool { only_for: Some("cargo xtask workload net"), ..tool("openssl", "openssl") };
pub const IPERF3: Tool = Tool { only_for: Some("cargo xtask workload rates"), ..tool("iperf3", "iperf3") };
/// For a network of their own.
pub const IP: Tool = Tool { only_for: Some("a test of the network"), ..tool("ip", "iproute2") };
pub const UNSHARE: Tool = Tool { only_for: Some("a test of the network"), ..tool("unshare", "util-linux") };
pub const APT: Tool = tool("apt-get", "apt");
pub const DPKG_DEB: Tool = tool("dpkg-deb", "dpkg");

/// Only for images with programs that are built from Debian's sources.
pub const DPKG_SOURCE: Tool = Tool { only_for: Some("recipes with a source"), ..tool("dpkg-source", "dpkg-dev") };
pub const ARM64_GCC: Tool =
    Tool { only_for: Some("recipes with a source"), ..tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu") };
/// Its headers: the compiler comes without.
pub const ARM64_LIBC: Tool = Tool {
    only_for: Some("recipes with a source"),
    ..tool("/usr/aarch64-linux-gnu/include/stdio.h", "libc6-dev-arm64-cross")
};
pub const MAKE: Tool = Tool { only_for: Some("recipes with a source"), ..tool("make", "make") };

/// Only where rustup's is missing.
pub const LLD: Tool = tool("ld.lld", "lld");

/// All of them, for `doctor`.
pub const TOOLS: [Tool; 19] = [
    QEMU,
    MKE2FS,
    E2FSCK,
    DEBUGFS,
    TAR,
    XZ,
    GDB,
    PYTHON,
    GIT,
    OPENSSL,
    IPERF3,
    IP,
    UNSHARE,
    APT,
    DPKG_DEB,
    DPKG_SOURCE,
    ARM64_GCC,
    ARM64_LIBC,
    MAKE,
];

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

/// Makes sure of all that building and running guests takes, so that what is missing is named at once.
pub fn need_for_guests() -> Result<()> {
    let mut packages: Vec<_> =
        [QEMU, MKE2FS, DEBUGFS, TAR].iter().filter(|tool| tool.find().is_none()).map(|tool| tool.package).collect();
    let targets = || anyhow::Ok(has_target(BARE)? && has_target(MUSL)?);
    if !rustup_is_here() && !targets()? {
        packages.extend(from_source::missing_packages()?);
    }
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() { Ok(()) } else { install(&packages) }
}

/// The command that installs packages by hand.
pub fn by_hand(packages: &[&str]) -> String {
    let install = format!("apt-get update && apt-get install -y --no-install-recommends {}", packages.join(" "));
    if rustix::process::geteuid().is_root() { install } else { format!("sudo sh -c '{install}'") }
}

/// Installs packages of the host's own distribution.
pub fn install(packages: &[&str]) -> Result<()> {
    let names = packages.join(", ");
    let by_hand = by_hand(packages);
    if APT.find().is_none() {
        bail!(
            "missing: {names} (names of Debian packages). This is not a Debian or Ubuntu system, so install \
             by its own means what `{by_hand}` would install there"
        );
    }
    let Some(become_root) = privilege() else {
        bail!("missing: {names}. To install, type:\n\n    {by_hand}\n");
    };
    let apt = |arguments: &[&str]| {
        let mut words = become_root.clone();
        words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C", "apt-get"].map(OsString::from));
        words.extend(arguments.iter().map(OsString::from));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        apt::run(&mut command)
    };
    let _step = ui::step(format!("Installing {names}"));
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    // The package lists may be missing or too old for what the archive has now.
    apt(&arguments).or_else(|_| apt(&["update"]).and_then(|()| apt(&arguments))).map_err(|error| {
        anyhow!("cannot install {names}: {error:#}\nWhen that is mended, try again, or type:\n\n    {by_hand}\n")
    })
}

/// Whether packages can be installed without asking anybody.
pub fn may_install() -> bool {
    APT.find().is_some() && privilege().is_some()
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
    pub(crate) cargo: Option<PathBuf>,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
}

impl Toolchain {
    /// A cargo command with a subcommand such as `build`, and all that it takes for the target.
    pub fn command(&self, subcommand: &str) -> Command {
        let mut command = build::cargo(self.cargo.as_deref());
        command.arg(subcommand).args(&self.arguments);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// Makes sure that programs can be built for a target.
pub fn rust_target(triple: &str) -> Result<Toolchain> {
    if has_target(triple)? {
        return Ok(Toolchain::default());
    }
    let by_rustup = rustup_add(&["target", "add", triple]);
    if by_rustup.is_ok() && has_target(triple)? {
        return Ok(Toolchain::default());
    }
    from_source::toolchain(triple).map_err(|error| match by_rustup {
        Err(first) if rustup_is_here() => {
            error.context(format!("{first:#}\nand Rust's target {triple} cannot be built from source either"))
        }
        _ => error,
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

pub(crate) fn rustc() -> Command {
    let mut command = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
    command.current_dir(paths::root());
    command
}

pub fn rustup_is_here() -> bool {
    find_program("rustup").is_some()
}

/// Asks rustup for something, for the toolchain that the workspace pins.
pub fn rustup_add(arguments: &[&str]) -> Result<()> {
    let shown = format!("rustup {}", arguments.join(" "));
    let rustup = find_program("rustup").with_context(|| format!("there is no rustup for `{shown}`"))?;
    let _step = ui::step(shown.clone());
    let output = Command::new(rustup).args(arguments).current_dir(paths::root()).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let why = said.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or(said.trim());
    bail!("`{shown}` failed: {why}")
}

/// Whether the cargo in use has this subcommand of a component, such as clippy.
pub fn has_component(subcommand: &str) -> bool {
    let version = build::cargo(None).args([subcommand, "--version"]).stdin(Stdio::null()).output();
    version.is_ok_and(|output| output.status.success())
}

/// The subcommands of cargo that are components of the toolchain.
pub const COMPONENTS: [(&str, &str); 2] = [("fmt", "rustfmt"), ("clippy", "clippy")];

/// Makes sure of all components of the toolchain.
pub fn rust_components() -> Result<()> {
    let missing: Vec<_> =
        COMPONENTS.iter().filter(|(subcommand, _)| !has_component(subcommand)).map(|(_, name)| *name).collect();
    if missing.is_empty() {
        Ok(())
    } else if rustup_is_here() {
        rustup_add(&[&["component", "add"][..], &missing].concat())
    } else {
        install(&missing.into_iter().map(from_source::component_package).collect::<Vec<_>>())
    }
}
