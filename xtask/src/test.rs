//! `cargo xtask test` and `cargo xtask stress`.

use anyhow::Result;
use clap::Args;

use crate::machine::KernelKind;

#[derive(Args)]
pub struct Options {
    /// Kernel that the guests run
    #[arg(long, value_enum, default_value = "pollux")]
    kernel: KernelKind,
}

impl Options {
    pub fn run(self) -> Result<u8> {
        anyhow::bail!("not yet")
    }
}

#[derive(Args)]
pub struct Stress {}

impl Stress {
    pub fn run(self) -> Result<u8> {
        anyhow::bail!("not yet")
    }
}
