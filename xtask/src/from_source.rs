//! Rust's targets without rustup: Debian's compiler has only that of the host, but the source of the standard library
//! comes with it, and cargo builds it along (`-Zbuild-std`). Guest programs need a C library besides, which is Debian's
//! musl for arm64.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::apt::{self, Apt};
use crate::provision::{self, BARE, LLD, Toolchain};
use crate::{paths, ui};

/// One of Debian's Rusts, by the names of its packages.
struct Debian {
    compiler: &'static str,
    cargo: &'static str,
    source: &'static str,
    rustfmt: &'static str,
    clippy: &'static str,
}

/// The one for web browsers is new also in an old Debian, so it comes first.
const DEBIANS: [Debian; 2] = [
    Debian {
        compiler: "rustc-web",
        cargo: "cargo-web",
        source: "rust-web-src",
        rustfmt: "rustfmt-web",
        clippy: "rust-web-clippy",
    },
    Debian { compiler: "rustc", cargo: "cargo", source: "rust-src", rustfmt: "rustfmt", clippy: "rust-clippy" },
];

impl Debian {
    /// The one that is installed, or else the first.
    fn choose() -> &'static Debian {
        DEBIANS.iter().find(|debian| is_installed(debian.compiler)).unwrap_or(&DEBIANS[0])
    }
}

/// What the standard library asks of an unwinder.
const UNWINDER: [&str; 5] = ["Backtrace", "GetIP", "GetIPInfo", "GetCFA", "FindEnclosingFunction"];

/// A toolchain that builds the standard library for a target.
pub fn toolchain(triple: &str) -> Result<Toolchain> {
    let mut toolchain = compiler()?;
    let lld = LLD.path()?;
    let mut set = |name: String, value: OsString| toolchain.env.push((name.into(), value));
    // What is unstable here is unstable in name only: rustc's own builds use it.
    set("RUSTC_BOOTSTRAP".into(), "1".into());
    let target = triple.to_uppercase().replace('-', "_");
    set(format!("CARGO_TARGET_{target}_LINKER"), lld.into());
    if triple == BARE {
        toolchain.arguments.push("-Zbuild-std=core,alloc,compiler_builtins".into());
        toolchain.arguments.push("-Zbuild-std-features=compiler-builtins-mem".into());
    } else {
        set(format!("CARGO_TARGET_{target}_RUSTFLAGS"), link_with_musl()?);
        toolchain.arguments.push("-Zbuild-std=std,panic_abort".into());
        toolchain.arguments.push("-Zbuild-std-features=".into());
    }
    Ok(toolchain)
}

/// The packages that [`toolchain`] would have to install.
pub fn missing_packages() -> Result<Vec<&'static str>> {
    let mut packages = Vec::new();
    if LLD.find().is_none() {
        packages.push(LLD.package);
    }
    if !has_source(&own_sysroot()?) && !has_source(Path::new(SYSROOT)) {
        let debian = Debian::choose();
        packages.extend([debian.compiler, debian.cargo, debian.source].iter().filter(|name| !is_installed(name)));
    }
    Ok(packages)
}

/// Debian's package for a component such as clippy.
pub fn component_package(name: &str) -> &'static str {
    let debian = Debian::choose();
    if name == "clippy" { debian.clippy } else { debian.rustfmt }
}

/// A cargo whose compiler has the source: the one in use, or Debian's.
fn compiler() -> Result<Toolchain> {
    let missing = missing_packages()?;
    if !missing.is_empty() {
        provision::install(&missing)?;
    }
    if has_source(&own_sysroot()?) {
        return Ok(Toolchain::default());
    }
    let debian = Path::new(SYSROOT);
    ensure!(has_source(debian), "Debian's source of Rust is not where it should be");
    Ok(Toolchain {
        cargo: Some(debian.join("bin/cargo")),
        arguments: Vec::new(),
        env: vec![("RUSTC".into(), debian.join("bin/rustc").into())],
    })
}

/// Where Debian's compilers are.
const SYSROOT: &str = "/usr";

fn own_sysroot() -> Result<PathBuf> {
    Ok(PathBuf::from(ui::read(provision::rustc().args(["--print", "sysroot"]))?.trim()))
}

fn has_source(sysroot: &Path) -> bool {
    sysroot.join("lib/rustlib/src/rust/library/Cargo.lock").is_file()
}

fn is_installed(package: &str) -> bool {
    ui::run_quietly(Command::new("dpkg-query").args(["--status", package])).is_ok()
}

/// The compiler's flags that put a program together with Debian's musl: start files, libc.a, fixed addresses.
fn link_with_musl() -> Result<OsString> {
    let folder = musl()?;
    let file = |name: &str| folder.join(name).display().to_string();
    let mut flags = vec![
        "-Clink-self-contained=no".to_string(),
        "-Crelocation-model=static".into(),
        format!("-Lnative={}", folder.display()),
    ];
    flags.extend(["crt1.o", "crti.o", "crtn.o"].map(|name| format!("-Clink-arg={}", file(name))));
    // The standard library names an unwinder for its backtraces. In programs that abort on panic these are empty:
    // a harmless function that calls nothing back stands in.
    flags.push("-Clink-arg=--undefined=getpid".into());
    flags.extend(UNWINDER.map(|name| format!("-Clink-arg=--defsym=_Unwind_{name}=getpid")));
    ensure!(!folder.display().to_string().contains(' '), "{} contains a blank", folder.display());
    Ok(flags.join(" ").into())
}

fn musl() -> Result<PathBuf> {
    let tree = paths::out().join("musl");
    let folder = tree.join("usr/lib/aarch64-linux-musl");
    if !folder.join("libunwind.a").is_file() {
        let _ = fs::remove_dir_all(&tree);
        fs::create_dir_all(&tree)?;
        for package in Apt::new()?.fetch(&["musl-dev".to_string()], &[])? {
            apt::unpack(&package, &tree)?;
        }
        ensure!(folder.join("libc.a").is_file(), "musl-dev has no libc.a");
        // It is asked for by name, but nothing is taken from it: see UNWINDER.
        fs::write(folder.join("libunwind.a"), b"!<arch>\n").context("cannot write libunwind.a")?;
    }
    Ok(folder)
}
