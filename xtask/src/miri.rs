//! `cargo xtask miri`: host tests of the kernel under Miri, which finds undefined behaviour and data races.

use std::process::Command;

use anyhow::Result;
use clap::Args;

use crate::{paths, provision, ui};

#[derive(Args)]
pub struct Options {
    /// Only tests whose names contain one of these; else those of the modules that Miri is fast enough for
    filters: Vec<String>,
}

/// Wait queues, locks, timers; futexes. Tests that play many milliseconds or move many bytes take it hours.
const MODULES: &[&str] = &["exec::tests::wait", "exec::tests::locks", "exec::tests::time", "futex::"];

/// Simulated RAM is reached by addresses, tests read environment and clock, and their machines are never freed.
const FLAGS: &str = "-Zmiri-permissive-provenance -Zmiri-disable-isolation -Zmiri-ignore-leaks";

impl Options {
    pub fn run(self) -> Result<u8> {
        need_miri()?;
        let mut cargo = rustup_run("cargo");
        cargo.args(["miri", "test", "--locked", "--package", "pollux-kernel", "--lib", "--"]);
        if self.filters.is_empty() {
            cargo.args(MODULES);
        }
        Ok(u8::from(!cargo.args(&self.filters).status()?.success()))
    }
}

/// The environment describes the toolchain of xtask itself, which would be called again.
fn rustup_run(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", program]).current_dir(paths::root());
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command.env("MIRIFLAGS", FLAGS).env("CARGO_TARGET_DIR", paths::target().join("miri"));
    command
}

fn need_miri() -> Result<()> {
    let works = rustup_run("cargo").args(["miri", "--version"]).output().is_ok_and(|output| output.status.success());
    if works {
        return Ok(());
    }
    let _step = ui::step("Installing Miri");
    let profile = ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "miri,rust-src"];
    provision::rustup_add(&profile)
}
