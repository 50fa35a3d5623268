//! Debian packages for the guest, without root and without touching the host's own packages: apt
//! works in a folder of ours, for arm64, with the sources that the machine is set up with. It
//! checks every download against the archive's signature.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::{paths, provision, ui};

/// A private apt.
pub struct Apt {
    state: PathBuf,
    packages: PathBuf,
    /// Whether it knows of source packages, too. Their lists are long.
    sources: bool,
}

impl Apt {
    /// Sets up its folder. Uses no network.
    pub fn new() -> Result<Apt> {
        Apt::in_folder("apt", false)
    }

    /// One that knows of source packages. Uses no network either.
    pub fn for_sources() -> Result<Apt> {
        Apt::in_folder("apt-sources", true)
    }

    fn in_folder(name: &str, sources: bool) -> Result<Apt> {
        provision::need(&[provision::APT, provision::DPKG_DEB, provision::TAR])?;
        let apt = Apt { state: paths::out().join(name), packages: paths::out().join("packages"), sources };
        for folder in ["lists/partial", "cache/archives/partial", "sources.list.d", "preferences.d", "dpkg", "log"] {
            fs::create_dir_all(apt.state.join(folder))?;
        }
        fs::create_dir_all(&apt.packages)?;
        fs::write(apt.state.join("dpkg/status"), "")?;
        fs::write(apt.state.join("apt.conf"), apt.configuration())?;
        Ok(apt)
    }

    fn configuration(&self) -> String {
        let state = self.state.display();
        // The machine's own hooks (cleaning of caches, lists for desktop tools) must not run.
        format!(
            r#"APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Sandbox::User "root";
APT::Install-Recommends "false";
APT::Get::AllowUnauthenticated "false";
Acquire::Languages "none";
Dir::State "{state}";
Dir::State::lists "{state}/lists";
Dir::State::status "{state}/dpkg/status";
Dir::Cache "{state}/cache";
Dir::Log "{state}/log";
Dir::Etc::sourcelist "{state}/sources.list";
Dir::Etc::sourceparts "{state}/sources.list.d";
Dir::Etc::preferences "{state}/preferences";
Dir::Etc::preferencesparts "{state}/preferences.d";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
"#
        )
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.state.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    /// Copies the machine's sources; a source for one foreign architecture is made one for ours.
    fn copy_sources(&self) -> Result<()> {
        let mut found = false;
        let folder = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
        let files = folder.map(|entry| entry.path()).chain([PathBuf::from("/etc/apt/sources.list")]);
        for file in files {
            let known = file.extension().is_some_and(|e| e == "list" || e == "sources");
            let (true, Ok(text)) = (known, fs::read_to_string(&file)) else {
                continue;
            };
            let target = if file.ends_with("sources.list") {
                self.state.join("sources.list")
            } else {
                self.state.join("sources.list.d").join(file.file_name().unwrap_or_default())
            };
            found |= text.contains("deb");
            let text = for_any_architecture(&text);
            fs::write(target, if self.sources { with_sources(&text) } else { text })?;
        }
        if !found {
            bail!("this machine has no apt sources, so there is nowhere to get arm64 packages from");
        }
        Ok(())
    }

    /// Fetches the package lists. One broken source does not spoil the others: what is missing
    /// shows when a package is not found.
    fn update(&self) -> Result<()> {
        self.copy_sources()?;
        let _step = ui::step("Fetching the arm64 package lists");
        let output = self.command("apt-get").arg("update").stdin(Stdio::null()).output()?;
        let lists = fs::read_dir(self.state.join("lists"))?;
        let any = lists.flatten().any(|e| e.file_name().to_string_lossy().contains("_Packages"));
        ensure!(any, "cannot fetch the lists of arm64 packages: {}", complaint(&output));
        Ok(())
    }

    /// Tries with the lists at hand, and once more with fresh ones.
    fn with_lists<T>(&self, attempt: impl Fn() -> Result<T>) -> Result<T> {
        if self.state.join("updated").exists()
            && let Ok(result) = attempt()
        {
            return Ok(result);
        }
        self.update()?;
        fs::write(self.state.join("updated"), "")?;
        attempt()
    }

    /// The files of these packages, and of all that those of the second list depend on. What was
    /// downloaded once is taken as it is.
    pub fn fetch(&self, alone: &[String], closed: &[String]) -> Result<Vec<PathBuf>> {
        let mut hasher = DefaultHasher::new();
        (alone, closed).hash(&mut hasher);
        let record = self.packages.join(format!("{:016x}.list", hasher.finish()));
        let recorded = fs::read_to_string(&record).unwrap_or_default();
        let files: Vec<_> = recorded.lines().map(|name| self.packages.join(name)).collect();
        if !files.is_empty() && files.iter().all(|file| file.is_file()) {
            return Ok(files);
        }
        let names = self.with_lists(|| self.download(alone, closed))?;
        fs::write(&record, names.join("\n"))?;
        Ok(names.iter().map(|name| self.packages.join(name)).collect())
    }

    fn download(&self, alone: &[String], closed: &[String]) -> Result<Vec<String>> {
        let incoming = self.packages.join("incoming");
        let _ = fs::remove_dir_all(&incoming);
        fs::create_dir_all(incoming.join("partial"))?;
        let _step = ui::step(format!("Downloading {}", [alone, closed].concat().join(", ")));
        if !closed.is_empty() {
            let archives = format!("Dir::Cache::archives={}", incoming.display());
            let mut command = self.command("apt-get");
            command.args(["-y", "--download-only", "-o", &archives, "install"]).args(closed);
            run(&mut command)?;
        }
        if !alone.is_empty() {
            let mut command = self.command("apt-get");
            run(command.arg("download").args(alone).current_dir(&incoming))?;
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&incoming)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".deb") {
                fs::rename(entry.path(), self.packages.join(&name))?;
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Unpacks a source package, with Debian's patches, into a new folder below this one, and tells which.
    pub fn source(&self, package: &str, into: &Path) -> Result<PathBuf> {
        provision::need(&[provision::DPKG_SOURCE])?;
        self.with_lists(|| {
            let _step = ui::step(format!("Downloading the source of {package}"));
            let _ = fs::remove_dir_all(into);
            fs::create_dir_all(into)?;
            run(self.command("apt-get").args(["source", package]).current_dir(into))
        })?;
        let folders = fs::read_dir(into)?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
        folders.last().with_context(|| format!("the source of {package} has no folder"))
    }

    /// The package that a meta package depends on, by the start of its name.
    pub fn dependency(&self, package: &str, prefix: &str) -> Result<String> {
        self.with_lists(|| {
            let text = ui::read(self.command("apt-cache").args(["depends", package]))?;
            text.lines()
                .filter_map(|line| line.trim().strip_prefix("Depends: "))
                .find(|name| name.starts_with(prefix))
                .map(str::to_string)
                .with_context(|| format!("{package} depends on no {prefix}*"))
        })
    }
}

/// Runs apt-get; an error is its own complaint.
pub fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", ui::shown(command)))?;
    ensure!(output.status.success(), "apt-get failed: {}", complaint(&output));
    Ok(())
}

/// The line that says why, of all that it has said.
fn complaint(output: &Output) -> String {
    let said = [&output.stderr[..], &output.stdout].map(String::from_utf8_lossy).join("\n");
    let marked = ["E: ", "W: "].iter().find_map(|mark| said.lines().find_map(|line| line.strip_prefix(mark)));
    marked.unwrap_or(said.trim()).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn for_any_architecture(sources: &str) -> String {
    let lines = sources.lines().filter(|line| !line.starts_with("Architectures:"));
    lines
        .map(|line| {
            let words = line.split(' ').filter_map(|word| {
                let bare = word.trim_start_matches('[').trim_end_matches(']');
                if !bare.starts_with("arch=") {
                    return Some(word);
                }
                match (word.starts_with('['), word.ends_with(']')) {
                    (true, false) => Some("["),
                    (false, true) => Some("]"),
                    _ => None,
                }
            });
            words.collect::<Vec<_>>().join(" ") + "\n"
        })
        .collect()
}

/// Adds the source packages of each source that has programs.
fn with_sources(sources: &str) -> String {
    let line = |line: &str| match line.strip_prefix("deb ") {
        Some(rest) => format!("{line}\ndeb-src {rest}\n"),
        None if line.trim_end() == "Types: deb" => "Types: deb deb-src\n".into(),
        None => format!("{line}\n"),
    };
    sources.lines().map(line).collect()
}

/// Unpacks a package over a tree. `dpkg-deb -x` would replace the links of a merged-usr tree.
pub fn unpack(package: &Path, tree: &Path) -> Result<()> {
    let mut dpkg = provision::DPKG_DEB.command()?;
    let mut dpkg = dpkg.arg("--fsys-tarfile").arg(package).stdout(Stdio::piped()).spawn()?;
    let stream = dpkg.stdout.take().context("no output of dpkg-deb")?;
    let tar = provision::TAR
        .command()?
        .args(["--extract", "--keep-directory-symlink", "--no-same-owner", "--preserve-permissions"])
        .arg("--directory")
        .arg(tree)
        .stdin(stream)
        .status()?;
    if !(dpkg.wait()?.success() && tar.success()) {
        bail!("cannot unpack {}; delete it to have it downloaded again", package.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_lose_their_architecture() {
        assert_eq!(for_any_architecture("deb [arch=amd64] http://h/ s main"), "deb http://h/ s main\n");
        assert_eq!(
            for_any_architecture("deb [arch=amd64 signed-by=/k] http://h/ s main"),
            "deb [ signed-by=/k] http://h/ s main\n"
        );
        assert_eq!(for_any_architecture("Types: deb\nArchitectures: amd64\n"), "Types: deb\n");
    }

    #[test]
    fn sources_of_programs_become_sources_of_sources() {
        let text = "# deb\nTypes: deb\nSuites: s\ndeb http://h/ s main\n";
        let expected = "# deb\nTypes: deb deb-src\nSuites: s\ndeb http://h/ s main\ndeb-src http://h/ s main\n";
        assert_eq!(with_sources(text), expected);
    }
}
