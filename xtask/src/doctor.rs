//! `cargo xtask doctor`: what is here, what is missing, and what to type.

use anyhow::Result;

use crate::provision::{self, BARE, MUSL, TOOLS};

/// Reports; status 1 if something is missing.
pub fn run() -> Result<u8> {
    let mut missing = Vec::new();
    for tool in TOOLS {
        match tool.find() {
            Some(path) => println!("ok       {} ({})", tool.name, path.display()),
            None => {
                println!("missing  {} (Debian package {})", tool.name, tool.package);
                missing.push(tool.package);
            }
        }
    }
    let mut targets = 0;
    for triple in [BARE, MUSL] {
        let here = provision::has_target(triple)?;
        println!("{}  Rust target {triple}", if here { "ok     " } else { "missing" });
        targets += usize::from(!here);
    }
    missing.dedup();
    if !missing.is_empty() {
        println!("\nto install what is missing: sudo apt-get install {}", missing.join(" "));
    }
    if targets > 0 {
        println!("\nto install the Rust targets: rustup target add {BARE} {MUSL}");
    }
    Ok(u8::from(!missing.is_empty() || targets > 0))
}
