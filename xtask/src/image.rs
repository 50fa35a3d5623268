//! From a recipe to an ext2 file, without root and without mounting: a tree is laid out in a
//! folder, `mke2fs -d` copies it, and `debugfs` adds what an ordinary user cannot make: device
//! nodes, and owners other than himself.

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, bail, ensure};

use crate::apt::{self, Apt};
use crate::provision::{DEBUGFS, MKE2FS};
use crate::recipe::{Mode, Recipe};
use crate::{build, paths, provision, source_build, ui};

/// Part of every stamp: counts the changes of this file that alter images.
const BUILDER: u32 = 1;

/// Devices that exist before init mounts a /dev: name, mode, major, minor.
const DEVICES: [(&str, u32, u32, u32); 4] =
    [("console", 0o600, 5, 1), ("null", 0o666, 1, 3), ("tty", 0o666, 5, 0), ("ttyAMA0", 0o600, 204, 64)];

/// A root file system that can be booted.
pub struct Image {
    pub path: PathBuf,
    /// Its first program; `None` leaves the choice to the kernel.
    pub init: Option<String>,
}

impl Image {
    /// A recipe by its name, built if need be, or a file that somebody else made.
    pub fn find(name: &str) -> Result<Image> {
        if name.contains(['/', '.']) {
            let path = PathBuf::from(name);
            ensure!(path.exists(), "there is no image file {name}");
            ensure!(path.is_file(), "{name} is not a file with a root file system");
            ensure!(
                is_ext(&path).with_context(|| format!("{name} cannot be read"))?,
                "{name} holds no ext2 file system: `cargo xtask image NAME` makes one"
            );
            return Ok(Image { path, init: None });
        }
        build(name, &paths::out().join("images"))
    }
}

/// Is there the superblock of an ext2, ext3 or ext4?
fn is_ext(path: &Path) -> Result<bool> {
    let mut magic = [0; 2];
    match fs::File::open(path)?.read_exact_at(&mut magic, 1024 + 56) {
        Ok(()) => Ok(magic == [0x53, 0xef]),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Builds the image of a recipe in this folder, unless it is there and up to date.
pub fn build(name: &str, folder: &Path) -> Result<Image> {
    let recipe = Recipe::load(&paths::recipes(), name)?;
    provision::need(&[MKE2FS, DEBUGFS])?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let inputs = Inputs::gather(&recipe)?;
    let path = folder.join(format!("{name}.ext2"));
    let stamp = folder.join(format!("{name}.stamp"));
    let init = Some(recipe.init.clone());
    let recorded = fs::read_to_string(&stamp).unwrap_or_default();
    let (hash, made) = recorded.split_once(' ').unwrap_or_default();
    let wanted = format!("{:016x}", inputs.hash(&recipe)?);
    if path.is_file() && hash == wanted {
        return Ok(Image { path, init });
    }
    if path.is_file() && !hash.is_empty() && modified(&path)? != made {
        let old = folder.join(format!("{name}.ext2.old"));
        fs::rename(&path, &old)?;
        ui::say(format!(
            "The recipe {name} or its programs have changed: new image. The old one, which guests \
             have written to, is now {}",
            old.display()
        ));
    }
    let step = ui::step(format!("Making the image {name}"));
    let tree = folder.join(format!("{name}.tree"));
    let _ = fs::remove_dir_all(&tree);
    inputs.lay_out(&recipe, &tree, &step)?;
    step.detail(format!("Making the image {name}: file system"));
    let new = folder.join(format!("{name}.ext2.new"));
    let _ = fs::remove_file(&new);
    make_file_system(&tree, &new, &recipe.size)?;
    fs::remove_dir_all(&tree)?;
    fs::rename(&new, &path)?;
    fs::write(&stamp, format!("{wanted} {}", modified(&path)?))?;
    Ok(Image { path, init })
}

fn modified(path: &Path) -> Result<String> {
    let since = fs::metadata(path)?.modified()?.duration_since(UNIX_EPOCH)?;
    Ok(since.as_nanos().to_string())
}

/// What goes into an image, apart from the recipe itself.
struct Inputs {
    packages: Vec<PathBuf>,
    programs: Vec<PathBuf>,
    /// Folders that were built from sources.
    built: Vec<PathBuf>,
}

impl Inputs {
    fn gather(recipe: &Recipe) -> Result<Inputs> {
        let programs = recipe
            .programs
            .iter()
            .map(|program| build::user_program(&program.package, &program.bin))
            .collect::<Result<_>>()?;
        let packages = if recipe.packages.is_empty() && recipe.packages_with_dependencies.is_empty() {
            Vec::new()
        } else {
            Apt::new()?.fetch(&recipe.packages, &recipe.packages_with_dependencies)?
        };
        let built =
            recipe.sources.iter().map(|source| source_build::build(source, &packages)).collect::<Result<_>>()?;
        Ok(Inputs { packages, programs, built })
    }

    fn hash(&self, recipe: &Recipe) -> Result<u64> {
        let mut hasher = DefaultHasher::new();
        BUILDER.hash(&mut hasher);
        format!("{recipe:?}").hash(&mut hasher);
        let sources = recipe.files.iter().filter_map(|file| file.source.as_ref());
        let sources = sources.map(|source| paths::recipes().join(source));
        for path in self.programs.iter().cloned().chain(sources) {
            read(&path)?.hash(&mut hasher);
        }
        for named in self.packages.iter().chain(&self.built) {
            named.file_name().hash(&mut hasher);
        }
        Ok(hasher.finish())
    }

    fn lay_out(&self, recipe: &Recipe, tree: &Path, step: &ui::Step) -> Result<()> {
        merged_usr(tree)?;
        for folder in ["dev", "etc", "proc", "root", "run", "sys", "tmp", "var"] {
            make_dir(&tree.join(folder), Mode(0o755))?;
        }
        make_dir(&tree.join("root"), Mode(0o700))?;
        make_dir(&tree.join("tmp"), Mode(0o1777))?;
        make_link("/run", &tree.join("var/run"))?;
        for package in &self.packages {
            let name = package.file_name().unwrap_or_default().to_string_lossy();
            step.detail(format!("Unpacking {name}"));
            apt::unpack(package, tree)?;
        }
        trust(tree)?;
        for dir in &recipe.dirs {
            make_dir(&inside(tree, &dir.path)?, dir.mode)?;
        }
        if !recipe.users.is_empty() {
            put(&tree.join("etc/passwd"), recipe.passwd().as_bytes(), Mode(0o644))?;
            put(&tree.join("etc/group"), recipe.group().as_bytes(), Mode(0o644))?;
        }
        if let Some(hostname) = &recipe.hostname {
            put(&tree.join("etc/hostname"), format!("{hostname}\n").as_bytes(), Mode(0o644))?;
        }
        for (program, built) in recipe.programs.iter().zip(&self.programs) {
            put(&inside(tree, &program.path)?, &read(built)?, Mode(0o755))?;
        }
        for (source, built) in recipe.sources.iter().zip(&self.built) {
            let target = inside(tree, &source.path)?;
            fs::create_dir_all(target.parent().unwrap_or(&target))?;
            ui::run_quietly(Command::new("cp").arg("-a").arg(built).arg(&target))?;
        }
        for file in &recipe.files {
            let contents = match (&file.text, &file.source) {
                (Some(text), None) => text.clone().into_bytes(),
                (None, Some(source)) => read(&paths::recipes().join(source))?,
                _ => bail!("{}: give either text or source", file.path),
            };
            put(&inside(tree, &file.path)?, &contents, file.mode)?;
        }
        for link in &recipe.links {
            make_link(&link.target, &inside(tree, &link.path)?)?;
        }
        if let Some(applets) = &recipe.applets {
            let binary = read(&inside(tree, &applets.of)?)?;
            let dir = inside(tree, &applets.dir)?;
            for name in applet_names(&binary)? {
                let link = dir.join(&name);
                // `init` here is ours, and Linux looks for /bin/init, too.
                if fs::symlink_metadata(&link).is_err() && name != "init" && name != "linuxrc" {
                    make_link(&applets.of, &link)?;
                }
            }
        }
        Ok(())
    }
}

/// What update-ca-certificates(8) does when ca-certificates is installed: whom programs trust, in one file.
fn trust(tree: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(tree.join("usr/share/ca-certificates/mozilla")) else { return Ok(()) };
    let mut certificates: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    certificates.sort();
    let mut bundle = Vec::new();
    for certificate in certificates {
        bundle.extend(read(&certificate)?);
    }
    put(&tree.join("etc/ssl/certs/ca-certificates.crt"), &bundle, Mode(0o644))
}

/// `/bin` and the like as links into `/usr`, as Debian has them.
fn merged_usr(tree: &Path) -> Result<()> {
    for folder in ["bin", "sbin", "lib"] {
        fs::create_dir_all(tree.join("usr").join(folder))?;
        symlink(format!("usr/{folder}"), tree.join(folder))?;
    }
    Ok(())
}

/// The place of a guest's absolute path in the tree.
fn inside(tree: &Path, path: &str) -> Result<PathBuf> {
    match path.strip_prefix('/') {
        Some(rest) if !rest.split('/').any(|part| part == "..") => Ok(tree.join(rest)),
        _ => bail!("{path:?} in a recipe is not an absolute path without `..`"),
    }
}

fn make_dir(path: &Path, mode: Mode) -> Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, Permissions::from_mode(mode.0))?;
    Ok(())
}

fn make_link(target: &str, path: &Path) -> Result<()> {
    let _ = fs::remove_file(path);
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    symlink(target, path).with_context(|| format!("cannot make the link {}", path.display()))
}

fn put(path: &Path, contents: &[u8], mode: Mode) -> Result<()> {
    let _ = fs::remove_file(path);
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    fs::write(path, contents).with_context(|| format!("cannot write {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(mode.0))?;
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The names of busybox's applets. The program cannot be asked, as it is not for this machine,
/// but it holds them in order, each with a NUL behind, and an empty one last.
fn applet_names(busybox: &[u8]) -> Result<Vec<String>> {
    const FIRST: &[u8] = b"\0[\0[[\0";
    let start = busybox
        .windows(FIRST.len())
        .position(|window| window == FIRST)
        .context("there is no table of applets in this busybox")?;
    busybox[start + 1..]
        .split(|byte| *byte == 0)
        .take_while(|name| !name.is_empty() && name.iter().all(u8::is_ascii_graphic))
        .map(|name| Ok(String::from_utf8(name.to_vec())?))
        .collect()
}

fn make_file_system(tree: &Path, image: &Path, size: &str) -> Result<()> {
    // 4 KiB blocks also for small images: block and page are one. No indexed directories, no
    // reserve to grow: plain ext2 that every driver reads and writes.
    ui::run_quietly(
        MKE2FS
            .command()?
            .args(["-q", "-F", "-t", "ext2", "-b", "4096", "-I", "256", "-m", "0"])
            .args(["-O", "^resize_inode,^dir_index", "-E", "root_owner=0:0", "-d"])
            .arg(tree)
            .arg(image)
            .arg(size),
    )?;
    let mut script = String::new();
    for (name, mode, major, minor) in DEVICES {
        writeln!(script, "cd /dev\nmknod {name} c {major} {minor}")?;
        writeln!(script, "set_inode_field {name} mode 0{:o}\ncd /", 0o20000 | mode)?;
    }
    chown_to_root(tree, "", &mut script)?;
    let file = image.with_extension("debugfs");
    fs::write(&file, script)?;
    let result = ui::run_quietly(DEBUGFS.command()?.arg("-w").arg("-f").arg(&file).arg(image));
    fs::remove_file(&file)?;
    result
}

/// `mke2fs -d` keeps the owners of the tree: whoever has built it.
fn chown_to_root(folder: &Path, inside: &str, script: &mut String) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.path().symlink_metadata()?;
        let path = format!("{inside}/{}", entry.file_name().to_string_lossy());
        if metadata.uid() != 0 {
            writeln!(script, "set_inode_field \"{path}\" uid 0")?;
        }
        if metadata.gid() != 0 {
            writeln!(script, "set_inode_field \"{path}\" gid 0")?;
        }
        if metadata.is_dir() {
            chown_to_root(&entry.path(), &path, script)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn applets_are_read_from_the_binary() {
        let names = applet_names(b"\x7fELF..\0no\0[\0[[\0acpid\0zcat\0\0other\0").unwrap();
        assert_eq!(names, ["[", "[[", "acpid", "zcat"]);
        assert!(applet_names(b"nothing").is_err());
    }

    #[test]
    fn recipes_cannot_leave_the_tree() {
        assert!(inside(Path::new("/t"), "/a/../../b").is_err());
        assert!(inside(Path::new("/t"), "a").is_err());
        assert_eq!(inside(Path::new("/t"), "/a/b").unwrap(), Path::new("/t/a/b"));
    }
}
