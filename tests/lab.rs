//! Kernels and images for tests, and runs of one program.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use pollux_wire::{Exit, Request};
use xtask::image::{self, Image};
use xtask::machine::{Boot, KernelKind, Machine, MachineOptions};
use xtask::paths;
use xtask::refusal::PortTaken;
use xtask::session::{self, Input, Outcome, Output};

/// The kernel under test.
pub fn kernel() -> KernelKind {
    match std::env::var("POLLUX_TEST_KERNEL").as_deref() {
        Ok("linux") => KernelKind::Linux,
        _ => KernelKind::Pollux,
    }
}

/// Whether transcripts are written instead of compared.
pub fn recording() -> bool {
    std::env::var_os("POLLUX_TEST_RECORD").is_some()
}

/// The kernel, built once for all tests of this process.
pub fn boot() -> Result<Boot> {
    static BOOT: OnceLock<Result<Boot, String>> = OnceLock::new();
    BOOT.get_or_init(|| Boot::prepare(kernel()).map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))
}

/// Where the tests keep their images.
fn folder() -> PathBuf {
    paths::out().join("tests")
}

/// An image that no guest has ever written to, built once for all tests of this process.
pub fn pristine(name: &str) -> Result<Image> {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = built.get(name) {
        return Ok(Image { path: path.clone(), init: Some(INIT.into()) });
    }
    xtask::ui::silence();
    let image = image::build(name, &folder())?;
    built.insert(name.to_string(), image.path.clone());
    Ok(image)
}

/// The first program of all our images.
pub const INIT: &str = "/sbin/init";

/// A copy of an image, for a test that wants to keep what its guest writes.
pub fn copy_of(name: &str, test: &str) -> Result<PathBuf> {
    let copy = folder().join(format!("{test}.ext2"));
    // Most of an image is empty and should take no room.
    let status = Command::new("cp").arg("--sparse=always").arg(pristine(name)?.path).arg(&copy).status()?;
    ensure!(status.success(), "cp could not make {}", copy.display());
    Ok(copy)
}

/// Options with which nothing that a guest writes is kept.
pub fn options() -> MachineOptions {
    MachineOptions { kernel: kernel(), snapshot: true, smp: Some(2), ..MachineOptions::default() }
}

/// A machine with a pristine image.
pub fn machine(options: &MachineOptions, image: &str) -> Result<Machine> {
    Machine::new(options, boot()?, pristine(image)?)
}

/// Runs a program of the image `test`, 60 s at most. An error if the kernel dies or it takes too
/// long, with the end of the kernel's log.
pub fn run(options: &MachineOptions, argv: &[&str]) -> Result<Output> {
    run_on(&machine(options, "test")?, argv, b"", Duration::from_secs(60))
}

/// Gives a script to the guest's shell.
pub fn run_script(options: &MachineOptions, script: &str) -> Result<Output> {
    run(options, &["sh", "-c", script])
}

/// Runs a program in this machine.
pub fn run_on(machine: &Machine, argv: &[&str], input: &[u8], limit: Duration) -> Result<Output> {
    let request = Request { argv: argv.iter().map(|word| word.as_bytes().to_vec()).collect(), ..Request::default() };
    let output = session::capture(machine, request, Input::Bytes(input.to_vec()), limit)?;
    let log = || {
        let log = String::from_utf8_lossy(&output.log).replace('\r', "");
        let lines: Vec<_> = log.lines().collect();
        format!(
            "stdout: {}\nstderr: {}\nend of the kernel's log:\n{}",
            end_of(&output.stdout),
            end_of(&output.stderr),
            lines[lines.len().saturating_sub(40)..].join("\n")
        )
    };
    match &output.outcome {
        Outcome::Exit(_) => Ok(output),
        Outcome::Died(why) if PortTaken::is(why) => Err(PortTaken.into()),
        Outcome::TimedOut => Err(anyhow!("no end within {limit:?}")).with_context(log),
        Outcome::Died(why) => Err(anyhow!("{why}")).with_context(log),
    }
}

fn end_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(2000)..]).into_owned()
}

/// The standard output of a program that must succeed.
pub fn text_of(output: Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.outcome == Outcome::Exit(Exit::Code(0)),
        "{:?}, stdout {text:?}, stderr {:?}",
        output.outcome,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(text)
}
