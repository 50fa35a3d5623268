//! Overlays of directories of a tmpfs: the same changes as on a plain tmpfs give the same tree, also after another mount.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as raw;

use super::mounting;
use crate::errno::{Errno, Result};
use crate::fs::inode::{FileType, Inode, RenameFlags, SetAttr};
use crate::fs::tests::World;
use crate::fs::walk::Flags;
use crate::fs::{MountRequest, change, regular};
use crate::mm::test_util::run as block_on;

async fn mount(on: &World, data: &str) -> Result<World> {
    let request =
        MountRequest { source: b"none", device: None, read_only: false, data: data.as_bytes(), ctx: on.ctx() };
    Ok(World::of(mounting::mount(request).await?))
}

const LAYERS: &str = "lowerdir=/l:/k,upperdir=/u,workdir=/w";

async fn layers() -> World {
    let base = World::new();
    for name in ["/l", "/k", "/u", "/w"] {
        base.mkdir(name).await.unwrap();
    }
    base
}

/// Everything below a directory, but for what an overlay shows otherwise.
async fn tree(of: &World, path: &str, out: &mut Vec<String>) {
    for name in of.list(if path.is_empty() { "/" } else { path }).await {
        let at = format!("{path}/{name}");
        let meta = of.find(&at, Flags::empty()).await.unwrap().inode().metadata();
        let links = if meta.kind == FileType::Directory { 0 } else { meta.nlink };
        let size = if meta.kind == FileType::Regular { meta.size } else { 0 };
        out.push(format!("{at} {:?} {:o} {links} {size}", meta.kind, meta.perm));
        if meta.kind == FileType::Directory {
            Box::pin(tree(of, &at, out)).await;
        }
    }
}

async fn whole(of: &World) -> Vec<String> {
    let mut out = Vec::new();
    tree(of, "", &mut out).await;
    out
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn path(&mut self) -> String {
        let mut path = String::new();
        for _ in 0..=self.below(3) {
            path.push('/');
            path.push(char::from(b'a' + self.below(4) as u8));
        }
        path
    }
}

#[derive(Debug)]
enum Step {
    Create(String),
    Mkdir(String),
    Symlink(String),
    Unlink(String),
    Rmdir(String),
    Rename(String, String, RenameFlags),
    Link(String, String),
    Resize(String, u64),
    Chmod(String, u16),
}

impl Step {
    fn roll(dice: &mut Dice) -> Step {
        let flags = [RenameFlags::empty(), RenameFlags::NOREPLACE, RenameFlags::EXCHANGE];
        match dice.below(12) {
            0 | 1 => Step::Create(dice.path()),
            2 | 3 => Step::Mkdir(dice.path()),
            4 => Step::Symlink(dice.path()),
            5 => Step::Unlink(dice.path()),
            6 => Step::Rmdir(dice.path()),
            7 | 8 => Step::Rename(dice.path(), dice.path(), flags[dice.below(3) as usize]),
            9 => Step::Link(dice.path(), dice.path()),
            10 => Step::Resize(dice.path(), dice.below(10_000)),
            _ => Step::Chmod(dice.path(), dice.below(0o1000) as u16),
        }
    }

    async fn take(&self, on: &World) -> Result<()> {
        match self {
            Step::Create(path) => on.create(path).await,
            Step::Mkdir(path) => on.mkdir(path).await,
            Step::Symlink(path) => on.symlink("somewhere", path).await,
            Step::Unlink(path) => on.unlink(path).await,
            Step::Rmdir(path) => on.rmdir(path).await,
            Step::Rename(old, new, flags) => on.rename(old, new, *flags).await,
            Step::Link(old, new) => {
                let old = on.find(old, Flags::empty()).await?;
                change::link(on.ctx(), &old, crate::fs::AT_FDCWD, new.as_bytes()).await
            }
            Step::Resize(path, size) => {
                let place = on.find(path, Flags::empty()).await?;
                match place.dentry.kind() {
                    FileType::Regular => regular::truncate(None, &place, *size).await,
                    _ => Err(Errno::EINVAL),
                }
            }
            Step::Chmod(path, perm) => {
                let place = on.find(path, Flags::empty()).await?;
                let attr = SetAttr { perm: Some(*perm), ctime: Some(crate::fs::now()), ..SetAttr::default() };
                place.inode().set_attr(attr).await
            }
        }
    }

    /// The same below another directory.
    async fn take_in(&self, dir: &str, on: &World) -> Result<()> {
        let at = |path: &String| format!("{dir}{path}");
        match self {
            Step::Create(path) => Step::Create(at(path)),
            Step::Mkdir(path) => Step::Mkdir(at(path)),
            Step::Symlink(path) => Step::Symlink(at(path)),
            _ => return Ok(()),
        }
        .take(on)
        .await
    }
}

async fn random_changes(seed: u64) {
    let mut dice = Dice(seed);
    let (base, plain) = (layers().await, World::new());
    // Names in the lower layers; where both have one, or a file is in the way of a directory, only the upper is built.
    for _ in 0..30 {
        let step = Step::roll(&mut dice);
        if matches!(step, Step::Create(_) | Step::Mkdir(_) | Step::Symlink(_)) && step.take(&plain).await.is_ok() {
            let layer = if dice.below(2) == 0 { "/l" } else { "/k" };
            if step.take_in(layer, &base).await.is_err() {
                // Its parent is in the other one.
                step.take_in(if layer == "/l" { "/k" } else { "/l" }, &base).await.unwrap();
            }
        }
    }
    let lower = (base.list("/l").await, base.list("/k").await);
    let mut overlay = mount(&base, LAYERS).await.unwrap();
    for round in 0..8 {
        assert_eq!(whole(&overlay).await, whole(&plain).await, "seed {seed}, round {round}");
        for _ in 0..40 {
            let step = Step::roll(&mut dice);
            let got = step.take(&overlay).await;
            // Directories of lower layers cannot be moved.
            if got == Err(Errno::EXDEV) {
                continue;
            }
            assert_eq!(got, step.take(&plain).await, "seed {seed}: {step:?}");
        }
        assert!(base.list("/w/work").await.len() <= 1, "seed {seed}: {:?}", base.list("/w/work").await);
        assert_eq!(whole(&overlay).await, whole(&plain).await, "seed {seed}, after round {round}");
        if dice.below(2) == 0 {
            overlay = mount(&base, LAYERS).await.unwrap();
        }
    }
    assert_eq!(lower, (base.list("/l").await, base.list("/k").await));
}

#[test]
fn changes_are_those_of_a_plain_file_system() {
    block_on(async {
        for seed in 1..60 {
            random_changes(seed * 0x9e37_79b9).await;
        }
    });
}

#[test]
fn numbers_survive_copying_up_and_mounting() {
    block_on(async {
        let base = layers().await;
        base.mkdir("/l/d").await.unwrap();
        base.create("/l/d/f").await.unwrap();
        let overlay = mount(&base, LAYERS).await.unwrap();
        let before = (overlay.ino("/d").await, overlay.ino("/d/f").await);
        overlay.open("/d/f", raw::O_WRONLY | raw::O_TRUNC).await.unwrap();
        assert!(base.find("/u/d/f", Flags::empty()).await.is_ok());
        assert_eq!((overlay.ino("/d").await, overlay.ino("/d/f").await), before);
        let again = mount(&base, LAYERS).await.unwrap();
        assert_eq!((again.ino("/d").await, again.ino("/d/f").await), before);
        assert_ne!(base.ino("/u/d/f").await, before.1);
    });
}

#[test]
fn one_inode_for_all_names() {
    block_on(async {
        let base = layers().await;
        base.create("/l/f").await.unwrap();
        let overlay = mount(&base, LAYERS).await.unwrap();
        Step::Link("/f".into(), "/g".into()).take(&overlay).await.unwrap();
        let inode = overlay.find("/f", Flags::empty()).await.unwrap().inode().clone();
        // The cache of names may forget one of them at any time.
        let root = overlay.find("/", Flags::empty()).await.unwrap();
        crate::fs::dentry::forget(&root.dentry, b"g");
        let other = overlay.find("/g", Flags::empty()).await.unwrap().inode().clone();
        assert!(Arc::ptr_eq(&inode, &other));
    });
}

#[test]
fn a_deep_chain_of_parents_is_let_go_of() {
    block_on(async {
        let base = layers().await;
        let overlay = mount(&base, LAYERS).await.unwrap();
        let mut dir: Arc<dyn Inode> = overlay.find("/", Flags::empty()).await.unwrap().inode().clone();
        let attr = crate::fs::NewAttr { perm: 0o755, uid: 0, gid: 0 };
        for _ in 0..8_000 {
            dir = dir.create(b"d", crate::fs::NewNode::Directory, attr).await.unwrap();
        }
        drop(dir);
    });
}
