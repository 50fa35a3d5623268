//! `cargo xtask`: see [`xtask::cli`].

use std::io;
use std::process::ExitCode;

fn main() -> ExitCode {
    match xtask::cli::Cli::from_arguments().run() {
        Ok(status) => ExitCode::from(status),
        Err(error) if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) => {
            ExitCode::from(xtask::ui::NOBODY_READS)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
