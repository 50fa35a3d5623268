//! `cargo xtask`: see [`xtask::cli`].

use std::io;
use std::process::ExitCode;

/// Of a program that SIGPIPE ends.
const NOBODY_READS: u8 = 128 + 13;

fn main() -> ExitCode {
    match xtask::cli::Cli::from_arguments().run() {
        Ok(status) => ExitCode::from(status),
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::from(NOBODY_READS)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
