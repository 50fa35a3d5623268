//! What an image has of programs that Debian packages no binary of: a script next to the recipes builds it for arm64 from
//! the source of a package, on the host, with Debian's cross compiler.
//!
//! The script runs in the unpacked source with Debian's patches. It finds `CC` and `AR`, the headers and libraries for
//! arm64 below `SYSROOT`, the number of processors in `JOBS`, and leaves what the image is to have in the empty folder
//! `DEST`. What was built once stays in `target/pollux/sources`, until the script or the version changes.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::apt::{self, Apt};
use crate::recipe::Source;
use crate::{paths, provision, ui};

/// The folder with what was built. `packages` are those of the image: what is built is to fit to them.
pub fn build(source: &Source, packages: &[PathBuf]) -> Result<PathBuf> {
    let script = paths::recipes().join(&source.script);
    let text = fs::read(&script).with_context(|| format!("cannot read {}", script.display()))?;
    let wanted = version(&source.package, packages);
    let mut hasher = DefaultHasher::new();
    (&text, &wanted, &source.needs).hash(&mut hasher);
    let folder = paths::out().join("sources");
    let built = folder.join(format!("{}-{:016x}", source.package, hasher.finish()));
    if built.is_dir() {
        return Ok(built);
    }
    provision::need(&[provision::ARM64_GCC, provision::ARM64_LIBC, provision::MAKE])?;
    let unpacked = Apt::for_sources()?.source(&wanted, &folder.join("unpacked"))?;
    let sysroot = folder.join("sysroot");
    let new = folder.join("new");
    for empty in [&sysroot, &new] {
        let _ = fs::remove_dir_all(empty);
        fs::create_dir_all(empty)?;
    }
    if !source.needs.is_empty() {
        for package in Apt::new()?.fetch(&source.needs, &[])? {
            apt::unpack(&package, &sysroot)?;
        }
    }
    let step = ui::step(format!("Building {} from its source", source.package));
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let log = folder.join(format!("{}.log", source.package));
    let output = fs::File::create(&log)?;
    let mut sh = Command::new("sh");
    sh.arg("-eu").arg(&script).current_dir(&unpacked);
    sh.env("CC", provision::ARM64_GCC.path()?).env("AR", "aarch64-linux-gnu-ar").env("SYSROOT", &sysroot);
    sh.env("DEST", &new).env("JOBS", jobs.to_string()).env("LC_ALL", "C").env_remove("MAKEFLAGS");
    let status = sh.stdin(std::process::Stdio::null()).stdout(output.try_clone()?).stderr(output).status()?;
    ensure!(status.success(), "{} cannot be built from its source; {} says why", source.package, log.display());
    drop(step);
    fs::rename(&new, &built)?;
    for done in [folder.join("unpacked"), sysroot] {
        fs::remove_dir_all(done)?;
    }
    Ok(built)
}

/// The package, with its version if the image has it: `git=1:2.39.5-0+deb12u3`.
fn version(package: &str, packages: &[PathBuf]) -> String {
    let version = packages.iter().find_map(|file| version_in(package, file));
    version.map_or(package.to_string(), |version| format!("{package}={version}"))
}

/// The version that the name of a package's file says: `git_1%3a2.39.5-0+deb12u3_arm64.deb`.
fn version_in(package: &str, file: &Path) -> Option<String> {
    let rest = file.file_name()?.to_str()?.strip_prefix(package)?.strip_prefix('_')?;
    // A version rebuilt without a change of the source ends in +bN.
    let version = rest.split('_').next()?.replace("%3a", ":");
    let rebuilt = version.rsplit_once("+b").filter(|(_, number)| number.bytes().all(|digit| digit.is_ascii_digit()));
    Some(rebuilt.map_or(version.clone(), |(version, _)| version.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_have_the_version_of_the_package() {
        let files =
            ["/p/git-man_1%3a2.1_all.deb", "/p/git_1%3a2.39.5-0+deb12u3_arm64.deb", "/p/zlib1g_1.2+b1_arm64.deb"];
        let files = files.map(PathBuf::from);
        assert_eq!(version("git", &files), "git=1:2.39.5-0+deb12u3");
        assert_eq!(version("zlib1g", &files), "zlib1g=1.2");
        assert_eq!(version("bash", &files), "bash");
    }
}
