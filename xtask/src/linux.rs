//! Debian's kernel for arm64, to compare Pollux with: the same images, the same QEMU.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use object::{Object, ObjectSection};

use crate::apt::{self, Apt};
use crate::cpio::Archive;
use crate::{build, paths, provision, ui};

const META_PACKAGE: &str = "linux-image-cloud-arm64";
/// What it takes to reach the root, and what contracts are recorded about; on Debian these are modules.
const MODULES: [&str; 12] = [
    "virtio_mmio",
    "virtio_pci",
    "virtio_blk",
    "virtio_rng",
    "crc32c_generic",
    "ext4",
    "virtio_net",
    "loop",
    "overlay",
    "tcp_diag",
    "udp_diag",
    "unix_diag",
];

/// A kernel that QEMU can boot.
pub struct Linux {
    pub image: PathBuf,
    pub initramfs: PathBuf,
}

/// Gets it, and makes an initramfs for it.
pub fn prepare() -> Result<Linux> {
    let init = build::user_program("pollux-init", "initramfs")?;
    let folder = paths::out().join("linux");
    fs::create_dir_all(&folder)?;
    let tree = folder.join("tree");
    if !tree.is_dir() {
        unpack(&tree)?;
    }
    let linux = Linux { image: kernel_of(&tree)?, initramfs: folder.join("initramfs.cpio") };
    let newer =
        |a: &Path, b: &Path| -> Result<bool> { Ok(fs::metadata(a)?.modified()? > fs::metadata(b)?.modified()?) };
    let contents = folder.join("initramfs.modules");
    let modules = MODULES.join("\n");
    let current = linux.initramfs.is_file() && fs::read_to_string(&contents).is_ok_and(|list| list == modules);
    if !current || newer(&init, &linux.initramfs)? || newer(&linux.image, &linux.initramfs)? {
        let _step = ui::step("Making the initramfs for Linux");
        let new = folder.join("initramfs.new");
        fs::write(&new, initramfs(&tree, &init)?)?;
        fs::rename(new, &linux.initramfs)?;
        fs::write(contents, modules)?;
    }
    Ok(linux)
}

fn unpack(tree: &Path) -> Result<()> {
    let apt = Apt::new()?;
    let package = apt.dependency(META_PACKAGE, "linux-image-")?;
    let files = apt.fetch(&[package], &[])?;
    let _step = ui::step("Unpacking Linux");
    let new = tree.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    fs::create_dir_all(&new)?;
    for file in files {
        apt::unpack(&file, &new)?;
    }
    fs::rename(new, tree)?;
    Ok(())
}

fn kernel_of(tree: &Path) -> Result<PathBuf> {
    fs::read_dir(tree.join("boot"))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz")))
        .context("the package has no kernel in /boot")
}

fn initramfs(tree: &Path, init: &Path) -> Result<Vec<u8>> {
    let mut modules = Modules::default();
    find_modules(tree, &mut modules.paths)?;
    for name in MODULES {
        modules.add(name)?;
    }
    let mut archive = Archive::default();
    for folder in ["dev", "proc", "newroot", "modules"] {
        archive.dir(folder);
    }
    archive.device("dev/console", 0o600, 5, 1);
    archive.device("dev/null", 0o666, 1, 3);
    archive.file("init", 0o755, &fs::read(init)?);
    let order: String = modules.order.iter().map(|(name, _)| format!("{name}.ko\n")).collect();
    archive.file("modules/order", 0o644, order.as_bytes());
    for (name, contents) in &modules.order {
        archive.file(&format!("modules/{name}.ko"), 0o644, contents);
    }
    Ok(archive.finish())
}

#[derive(Default)]
struct Modules {
    /// Where each is.
    paths: BTreeMap<String, PathBuf>,
    seen: BTreeSet<String>,
    /// In the order in which they can be loaded.
    order: Vec<(String, Vec<u8>)>,
}

impl Modules {
    /// Adds a module after what it depends on. One that is built into the kernel has no file.
    fn add(&mut self, name: &str) -> Result<()> {
        let name = name.replace('-', "_");
        let Some(path) = self.paths.get(&name) else {
            return Ok(());
        };
        if !self.seen.insert(name.clone()) {
            return Ok(());
        }
        let contents = read_module(path)?;
        for dependency in dependencies(&contents)? {
            self.add(&dependency)?;
        }
        self.order.push((name, contents));
        Ok(())
    }
}

fn find_modules(folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            find_modules(&path, found)?;
        } else if let Some((stem, "ko" | "ko.xz")) = name.split_once('.') {
            found.insert(stem.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn read_module(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return Ok(fs::read(path)?);
    }
    let output = provision::XZ.command()?.arg("-dc").arg(path).output()?;
    anyhow::ensure!(output.status.success(), "xz cannot unpack {}", path.display());
    Ok(output.stdout)
}

/// What the module's `.modinfo` says that must be loaded before.
fn dependencies(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module).context("a module is not an ELF file")?;
    let Some(section) = file.section_by_name(".modinfo") else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in section.data()?.split(|byte| *byte == 0) {
        let entry = String::from_utf8_lossy(entry);
        if let Some(list) = entry.strip_prefix("depends=") {
            names.extend(list.split(',').map(str::to_string));
        } else if let Some(list) = entry.strip_prefix("softdep=pre: ") {
            names.extend(list.split(' ').map(str::to_string));
        }
    }
    names.retain(|name| !name.is_empty());
    Ok(names)
}
