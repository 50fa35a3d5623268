//! `cargo xtask check`: what must hold before a change goes in.

use anyhow::{Context, Result};

use crate::outln;
use crate::provision::{self, BARE, MUSL, Toolchain};
use crate::ui;

/// Runs all checks, and stops at the first that fails.
pub fn run() -> Result<()> {
    provision::rust_components()?;
    let deny = ["--", "-D", "warnings"];
    cargo("formatting", &["fmt", "--all", "--check"], None)?;
    let host = ["clippy", "--workspace", "--all-targets", "--locked", "--quiet"];
    cargo("lints (host)", &[&host[..], &deny].concat(), None)?;
    let kernel = ["clippy", "-p", "pollux-kernel", "--locked", "--quiet", "--target", BARE];
    cargo("lints (kernel)", &[&kernel[..], &deny].concat(), Some(BARE))?;
    let user = [
        "clippy",
        "-p",
        "pollux-init",
        "-p",
        "pollux-probe",
        "-p",
        "pollux-bench",
        "--package",
        "pollux-contracts",
        "--locked",
        "--quiet",
        "--target",
        MUSL,
    ];
    cargo("lints (guest programs)", &[&user[..], &deny].concat(), Some(MUSL))?;
    let docs = ["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"];
    cargo("documentation", &[&docs[..], &["--quiet"]].concat(), None)?;
    outln!("all checks passed");
    Ok(())
}

fn cargo(what: &str, arguments: &[&str], target: Option<&str>) -> Result<()> {
    let _step = ui::step(format!("Checking {what}"));
    let toolchain = target.map_or_else(|| Ok(Toolchain::default()), provision::rust_target)?;
    let (subcommand, rest) = arguments.split_first().context("no subcommand")?;
    let mut command = toolchain.command(subcommand);
    command.args(rest).env("RUSTDOCFLAGS", "-D warnings");
    ui::run_openly(&mut command).with_context(|| format!("{what}: see above"))
}
