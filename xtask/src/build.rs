//! Building our own crates for the guest.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::provision::{self, BARE, MUSL};
use crate::{flat, ksyms, paths, ui};

/// A kernel that has been built.
pub struct Kernel {
    /// With symbols, for the debugger.
    pub elf: PathBuf,
    /// What QEMU boots.
    pub image: PathBuf,
}

/// Builds the kernel and its flat image.
pub fn kernel() -> Result<Kernel> {
    let elf = cargo_build(BARE, "release", "pollux-kernel", "pollux")?;
    let image = paths::out().join("Image");
    let flat = fs::read(&elf)
        .map_err(anyhow::Error::from)
        .and_then(|elf| {
            let mut image = flat::from_elf(&elf)?;
            ksyms::fill(&elf, &mut image)?;
            Ok(image)
        })
        .with_context(|| format!("cannot make an Image of {}", elf.display()))?;
    fs::create_dir_all(paths::out())?;
    write_if_changed(&image, &flat)?;
    Ok(Kernel { elf, image })
}

/// Builds a program for images, static and stripped.
pub fn user_program(package: &str, bin: &str) -> Result<PathBuf> {
    cargo_build(MUSL, "user", package, bin)
}

fn cargo_build(triple: &str, profile: &str, package: &str, bin: &str) -> Result<PathBuf> {
    let toolchain = provision::rust_target(triple)?;
    let _step = ui::step_if_long(format!("Building {package}"));
    let mut command = toolchain.command("build");
    command.args(["--quiet", "--locked", "--target", triple, "--profile", profile]);
    command.args(["-p", package, "--bin", bin]).arg("--target-dir").arg(paths::target());
    ui::run_openly(&mut command)?;
    Ok(paths::target().join(triple).join(profile).join(bin))
}

/// Cargo, as it was called for xtask itself, or another one.
pub fn cargo(other: Option<&Path>) -> Command {
    let own = || std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut command = Command::new(other.map_or_else(own, OsString::from));
    command.current_dir(paths::root());
    // These describe xtask, not what is built now; build scripts would see them change.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name.as_ref());
        }
    }
    command
}

/// Leaves the time stamp alone when nothing is new.
pub fn write_if_changed(path: &Path, contents: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == contents) {
        return Ok(());
    }
    fs::write(path, contents).with_context(|| format!("cannot write {}", path.display()))
}
