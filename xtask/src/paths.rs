//! Where things are in the workspace.

use std::path::{Path, PathBuf};

/// The root of the workspace.
pub fn root() -> PathBuf {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// Cargo's output.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Everything that is made here and is not cargo's: kernel image, root file systems, downloads.
pub fn out() -> PathBuf {
    root().join("target/pollux")
}

/// The recipes of root file systems.
pub fn recipes() -> PathBuf {
    root().join("images")
}
