//! Names: walks, changes, the cache, against a model and case by case.

mod content;
mod writers;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::general as raw;

use super::change;
use super::*;
use crate::mm::IoBuf;
pub(super) use crate::mm::test_util::poll_once;
use crate::mm::test_util::run as block_on;
use crate::process::{Caps, Credentials};

pub(super) struct World {
    fs: FsContext,
    creds: Credentials,
    files: FdTable,
}

impl World {
    pub(super) fn new() -> Self {
        let tmp = tmpfs::TmpFs::new("tmpfs", b"test", tmpfs::Options { size: Some(1 << 24), ..Default::default() });
        World::of(tmp)
    }

    pub(super) fn of(of: Arc<dyn FileSystem>) -> Self {
        let root = Dentry::new_root(of.root());
        let mount = Mount::new(of, root.clone(), MountFlags::RELATIME);
        let fs = FsContext::new(Path { mount, dentry: root });
        World { fs, creds: Credentials::root(), files: FdTable::new() }
    }

    pub(super) fn ctx(&self) -> Ctx<'_> {
        Ctx { fs: &self.fs, creds: &self.creds, files: &self.files, thread: None }
    }

    pub(super) async fn mkdir(&self, path: &str) -> Result<()> {
        change::create(self.ctx(), AT_FDCWD, path.as_bytes(), NewNode::Directory, 0o755).await.map(drop)
    }

    pub(super) async fn symlink(&self, target: &str, path: &str) -> Result<()> {
        change::create(self.ctx(), AT_FDCWD, path.as_bytes(), NewNode::Symlink(target.as_bytes()), 0o777)
            .await
            .map(drop)
    }

    pub(super) async fn open(&self, path: &str, flags: u32) -> Result<Arc<OpenFile>> {
        match open(self.ctx(), AT_FDCWD, path.as_bytes(), How::new(flags, 0o644)).await {
            Ok(file) => Ok(file),
            Err(crate::syscalls::SysError::Errno(errno)) => Err(errno),
            Err(_) => Err(Errno::EINTR),
        }
    }

    pub(super) async fn create(&self, path: &str) -> Result<()> {
        self.open(path, raw::O_CREAT | raw::O_EXCL | raw::O_WRONLY).await.map(drop)
    }

    pub(super) async fn unlink(&self, path: &str) -> Result<()> {
        change::unlink(self.ctx(), AT_FDCWD, path.as_bytes()).await
    }

    pub(super) async fn rmdir(&self, path: &str) -> Result<()> {
        change::rmdir(self.ctx(), AT_FDCWD, path.as_bytes()).await
    }

    pub(super) async fn rename(&self, old: &str, new: &str, flags: RenameFlags) -> Result<()> {
        change::rename(self.ctx(), (AT_FDCWD, old.as_bytes()), (AT_FDCWD, new.as_bytes()), flags).await
    }

    pub(super) async fn find(&self, path: &str, flags: Flags) -> Result<Path> {
        lookup(self.ctx(), AT_FDCWD, path.as_bytes(), flags).await
    }

    pub(super) async fn ino(&self, path: &str) -> Result<u64> {
        Ok(self.find(path, Flags::FOLLOW).await?.inode().metadata().ino)
    }

    pub(super) async fn list(&self, path: &str) -> Vec<String> {
        struct Names(Vec<String>);
        impl DirSink for Names {
            fn entry(&mut self, _: u64, _: u64, _: FileType, name: &[u8]) -> bool {
                self.0.push(String::from_utf8_lossy(name).into_owned());
                true
            }
        }
        let mut names = Names(Vec::new());
        let place = self.find(path, Flags::FOLLOW).await.unwrap();
        place.inode().read_dir(0, &mut names).await.unwrap();
        names.0.retain(|name| name != "." && name != "..");
        names.0.sort();
        names.0
    }
}

#[test]
fn paths_are_walked_as_path_resolution_says() {
    block_on(async {
        let w = World::new();
        w.mkdir("/a").await.unwrap();
        w.mkdir("/a/b").await.unwrap();
        w.create("/a/f").await.unwrap();
        let root = w.ino("/").await.unwrap();
        let a = w.ino("/a").await.unwrap();
        for path in ["/..", "/../..", "/a/..", "/a/b/../..", ".", "./a/../"] {
            assert_eq!(w.ino(path).await, Ok(root), "{path}");
        }
        for path in ["//a//", "/a/.", "/a/b/..", "a"] {
            assert_eq!(w.ino(path).await, Ok(a), "{path}");
        }
        assert_eq!(w.ino("").await, Err(Errno::ENOENT));
        assert_eq!(w.ino("/x").await, Err(Errno::ENOENT));
        assert_eq!(w.ino("/x/y").await, Err(Errno::ENOENT));
        assert_eq!(w.ino("/a/f/").await, Err(Errno::ENOTDIR));
        assert_eq!(w.ino("/a/f/x").await, Err(Errno::ENOTDIR));
        assert_eq!(w.ino("/a/f/..").await, Err(Errno::ENOTDIR));
        assert_eq!(w.ino(&"n".repeat(256)).await, Err(Errno::ENAMETOOLONG));
        assert_eq!(w.ino(&"n".repeat(255)).await, Err(Errno::ENOENT));
        w.fs.set_cwd(w.find("/a/b", Flags::empty()).await.unwrap());
        assert_eq!(w.ino("../f").await, w.ino("/a/f").await);
        assert_eq!(w.fs.cwd().display(None), b"/a/b");
    });
}

#[test]
fn symbolic_links_are_followed_where_they_should() {
    block_on(async {
        let w = World::new();
        w.mkdir("/d").await.unwrap();
        w.create("/d/f").await.unwrap();
        w.symlink("d", "/rel").await.unwrap();
        w.symlink("/d/f", "/abs").await.unwrap();
        w.symlink("rel", "/twice").await.unwrap();
        w.symlink("rel/", "/slash").await.unwrap();
        w.symlink("loop", "/loop").await.unwrap();
        w.symlink("nowhere", "/dangling").await.unwrap();
        let (d, f) = (w.ino("/d").await, w.ino("/d/f").await);
        for path in ["/rel", "/twice", "/rel/", "/twice/.", "/slash", "/slash/"] {
            assert_eq!(w.ino(path).await, d, "{path}");
        }
        for path in ["/abs", "/rel/f", "/twice/f", "/slash/f", "/rel/../abs"] {
            assert_eq!(w.ino(path).await, f, "{path}");
        }
        let link = w.find("/rel", Flags::empty()).await.unwrap();
        assert_eq!(link.dentry.kind(), FileType::Symlink);
        let dir = w.find("/rel/", Flags::empty()).await.unwrap();
        assert_eq!(dir.dentry.kind(), FileType::Directory);
        assert_eq!(w.ino("/loop").await, Err(Errno::ELOOP));
        assert_eq!(w.ino("/dangling").await, Err(Errno::ENOENT));
        assert_eq!(w.ino("/abs/").await, Err(Errno::ENOTDIR));
        assert_eq!(w.open("/rel", raw::O_NOFOLLOW).await.err(), Some(Errno::ELOOP));
        assert!(w.open("/rel", raw::O_NOFOLLOW | raw::O_PATH).await.unwrap().is_path());
        // O_CREAT creates what a dangling link points to; with O_EXCL it does not follow.
        assert_eq!(w.create("/dangling").await, Err(Errno::EEXIST));
        w.open("/dangling", raw::O_CREAT | raw::O_WRONLY).await.unwrap();
        assert!(w.ino("/nowhere").await.is_ok());
        for hop in 0..41 {
            w.symlink(&format!("hop{}", hop + 1), &format!("/hop{hop}")).await.unwrap();
        }
        w.create("/hop41").await.unwrap();
        assert_eq!(w.ino("/hop0").await, Err(Errno::ELOOP));
        assert!(w.ino("/hop1").await.is_ok());
    });
}

#[test]
fn resolve_flags_confine_the_walk() {
    block_on(async {
        let w = World::new();
        w.mkdir("/box").await.unwrap();
        w.mkdir("/box/in").await.unwrap();
        w.symlink("/box/in", "/box/abs").await.unwrap();
        w.symlink("../..", "/box/in/out").await.unwrap();
        w.fs.set_cwd(w.find("/box", Flags::empty()).await.unwrap());
        let beneath = Flags::FOLLOW | Flags::BENEATH;
        assert!(w.find("in/..", beneath).await.is_ok());
        assert_eq!(w.find("..", beneath).await.err(), Some(Errno::EXDEV));
        assert_eq!(w.find("abs", beneath).await.err(), Some(Errno::EXDEV));
        assert_eq!(w.find("in/out", beneath).await.err(), Some(Errno::EXDEV));
        assert_eq!(w.find("/box", beneath).await.err(), Some(Errno::EXDEV));
        let in_root = Flags::FOLLOW | Flags::IN_ROOT;
        let top = w.find("..", in_root).await.unwrap();
        assert_eq!(top.display(None), b"/box");
        assert_eq!(w.find("/in", in_root).await.unwrap().display(None), b"/box/in");
        assert_eq!(w.find("abs", in_root).await.err(), Some(Errno::ENOENT));
        assert_eq!(w.find("abs", Flags::FOLLOW | Flags::NO_SYMLINKS).await.err(), Some(Errno::ELOOP));
    });
}

/// The directory in which the walk is goes elsewhere while a name in it is looked up.
#[test]
fn a_walk_does_not_leave_its_directory_with_one_that_is_moved() {
    block_on(async {
        let w = World::new();
        for path in ["/box", "/box/in", "/box/in/sub"] {
            w.mkdir(path).await.unwrap();
        }
        w.fs.set_cwd(w.find("/box", Flags::empty()).await.unwrap());
        let moved = w.find("/box/in", Flags::empty()).await.unwrap().dentry;
        let ways = [("in/sub/../..", Errno::EAGAIN), ("in/sub/../../in", Errno::EAGAIN), ("in/sub", Errno::EXDEV)];
        for (flag, (path, errno)) in
            [Flags::BENEATH, Flags::IN_ROOT].into_iter().flat_map(|flag| ways.map(|way| (flag, way)))
        {
            dentry::forget(&moved, b"sub");
            let guard = moved.inode().state().lock.lock().await;
            let mut walk = core::pin::pin!(w.find(path, flag));
            assert!(poll_once(walk.as_mut()).await.is_pending());
            w.rename("/box/in", "/out", RenameFlags::empty()).await.unwrap();
            drop(guard);
            assert_eq!(walk.await.err(), Some(errno), "{path} {flag:?}");
            w.rename("/out", "/box/in", RenameFlags::empty()).await.unwrap();
            assert!(w.find("in/sub/..", flag).await.is_ok());
        }
    });
}

#[test]
fn errors_of_create_and_remove_are_linux_s() {
    block_on(async {
        let w = World::new();
        w.mkdir("/d").await.unwrap();
        w.create("/f").await.unwrap();
        assert_eq!(w.mkdir("/d").await, Err(Errno::EEXIST));
        assert_eq!(w.mkdir("/").await, Err(Errno::EEXIST));
        assert_eq!(w.mkdir("/d/.").await, Err(Errno::EEXIST));
        assert_eq!(w.mkdir("/d/e/").await, Ok(()));
        assert_eq!(w.mkdir("/f/x").await, Err(Errno::ENOTDIR));
        assert_eq!(w.create("/new/").await, Err(Errno::EISDIR));
        assert_eq!(w.open("/d", raw::O_CREAT | raw::O_RDWR).await.err(), Some(Errno::EISDIR));
        assert_eq!(w.open("/d", raw::O_WRONLY).await.err(), Some(Errno::EISDIR));
        assert_eq!(w.open("/f", raw::O_DIRECTORY).await.err(), Some(Errno::ENOTDIR));
        assert_eq!(w.symlink("x", "/link/").await, Err(Errno::ENOENT));
        assert_eq!(w.unlink("/d").await, Err(Errno::EISDIR));
        assert_eq!(w.unlink("/").await, Err(Errno::EISDIR));
        assert_eq!(w.unlink("/f/").await, Err(Errno::ENOTDIR));
        assert_eq!(w.rmdir("/f").await, Err(Errno::ENOTDIR));
        assert_eq!(w.rmdir("/d").await, Err(Errno::ENOTEMPTY));
        assert_eq!(w.rmdir("/d/.").await, Err(Errno::EINVAL));
        assert_eq!(w.rmdir("/d/e/..").await, Err(Errno::ENOTEMPTY));
        assert_eq!(w.rmdir("/").await, Err(Errno::EBUSY));
        w.fs.set_cwd(w.find("/d/e", Flags::empty()).await.unwrap());
        assert_eq!(w.rmdir("/d/e").await, Ok(()));
        assert_eq!(w.create("x").await, Err(Errno::ENOENT));
        assert_eq!(w.mkdir("x").await, Err(Errno::ENOENT));
        assert_eq!(w.fs.cwd().display(None), b"/d/e (deleted)");
    });
}

#[test]
fn errors_of_rename_are_linux_s() {
    block_on(async {
        let w = World::new();
        let none = RenameFlags::empty();
        for dir in ["/a", "/a/b", "/c", "/full", "/full/x"] {
            w.mkdir(dir).await.unwrap();
        }
        w.create("/f").await.unwrap();
        w.create("/g").await.unwrap();
        assert_eq!(w.rename("/a", "/a/b/c", none).await, Err(Errno::EINVAL));
        assert_eq!(w.rename("/a/b", "/a", none).await, Err(Errno::ENOTEMPTY));
        assert_eq!(w.rename("/a", "/f", none).await, Err(Errno::ENOTDIR));
        assert_eq!(w.rename("/f", "/a", none).await, Err(Errno::EISDIR));
        assert_eq!(w.rename("/c", "/full", none).await, Err(Errno::ENOTEMPTY));
        assert_eq!(w.rename("/f/", "/h", none).await, Err(Errno::ENOTDIR));
        assert_eq!(w.rename("/nothing", "/h", none).await, Err(Errno::ENOENT));
        assert_eq!(w.rename("/a/.", "/h", none).await, Err(Errno::EBUSY));
        assert_eq!(w.rename("/f", "/g", RenameFlags::NOREPLACE).await, Err(Errno::EEXIST));
        assert_eq!(w.rename("/f", "/h", RenameFlags::EXCHANGE).await, Err(Errno::ENOENT));
        let (f, c) = (w.ino("/f").await, w.ino("/c").await);
        assert_eq!(w.rename("/f", "/c", RenameFlags::EXCHANGE).await, Ok(()));
        assert_eq!((w.ino("/c").await, w.ino("/f").await), (f, c));
        assert_eq!(w.rename("/c", "/g", none).await, Ok(()));
        assert_eq!((w.ino("/g").await, w.ino("/c").await), (f, Err(Errno::ENOENT)));
        assert_eq!(w.rename("/f", "/a/b", none).await, Ok(()));
        assert_eq!(w.ino("/a/b").await, c);
        assert_eq!(w.ino("/a/b/..").await, w.ino("/a").await);
    });
}

#[test]
fn permissions_count_for_others() {
    block_on(async {
        let mut w = World::new();
        w.mkdir("/private").await.unwrap();
        w.create("/private/f").await.unwrap();
        w.mkdir("/sticky").await.unwrap();
        w.create("/sticky/f").await.unwrap();
        w.create("/readable").await.unwrap();
        for (path, perm) in [("/private", 0o700), ("/sticky", 0o1777)] {
            let place = w.find(path, Flags::empty()).await.unwrap();
            attr::chmod(&w.creds, &place, perm).await.unwrap();
        }
        w.creds =
            Credentials { uid: 5, euid: 5, fsuid: 5, fsgid: 5, cap_effective: Caps::empty(), ..Credentials::root() };
        assert!(w.ino("/private").await.is_ok());
        assert_eq!(w.ino("/private/f").await, Err(Errno::EACCES));
        assert_eq!(w.ino("/private/nothing").await, Err(Errno::EACCES));
        assert_eq!(w.open("/readable", raw::O_RDWR).await.err(), Some(Errno::EACCES));
        assert!(w.open("/readable", raw::O_RDONLY).await.is_ok());
        assert_eq!(w.create("/sticky/mine").await, Ok(()));
        assert_eq!(w.unlink("/sticky/f").await, Err(Errno::EPERM));
        assert_eq!(w.unlink("/sticky/mine").await, Ok(()));
        let place = w.find("/readable", Flags::empty()).await.unwrap();
        assert_eq!(attr::chmod(&w.creds, &place, 0o777).await, Err(Errno::EPERM));
        assert_eq!(attr::chown(&w.creds, &place, Some(5), None).await, Err(Errno::EPERM));
    });
}

/// A tree of names in the simplest form: path → is it a directory.
type Model = BTreeMap<String, bool>;

fn parent_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn parent_error(model: &Model, path: &str) -> Option<Errno> {
    let mut prefix = String::new();
    for part in parent_of(path).split('/').filter(|part| !part.is_empty()) {
        prefix = format!("{prefix}/{part}");
        match model.get(&prefix) {
            None => return Some(Errno::ENOENT),
            Some(false) => return Some(Errno::ENOTDIR),
            Some(true) => {}
        }
    }
    None
}

fn has_children(model: &Model, path: &str) -> bool {
    let prefix = format!("{path}/");
    model.keys().any(|key| key.starts_with(&prefix))
}

fn model_rename(model: &mut Model, old: &str, new: &str) -> Result<()> {
    if let Some(errno) = parent_error(model, old).or_else(|| parent_error(model, new)) {
        return Err(errno);
    }
    let dir = *model.get(old).ok_or(Errno::ENOENT)?;
    if new.starts_with(&format!("{old}/")) {
        return Err(Errno::EINVAL);
    }
    if old.starts_with(&format!("{new}/")) {
        return Err(Errno::ENOTEMPTY);
    }
    if old == new {
        return Ok(());
    }
    match model.get(new) {
        Some(true) if !dir => return Err(Errno::EISDIR),
        Some(false) if dir => return Err(Errno::ENOTDIR),
        Some(true) if has_children(model, new) => return Err(Errno::ENOTEMPTY),
        _ => {}
    }
    let moved: Vec<(String, bool)> = model
        .iter()
        .filter(|(key, _)| *key == old || key.starts_with(&format!("{old}/")))
        .map(|(key, dir)| (format!("{new}{}", &key[old.len()..]), *dir))
        .collect();
    model.retain(|key, _| key != old && !key.starts_with(&format!("{old}/")));
    model.extend(moved);
    Ok(())
}

#[test]
fn a_random_life_of_names_matches_the_model() {
    block_on(async {
        let w = World::new();
        let mut model = Model::new();
        let mut seed = 0x1234_5678_9abc_def0_u64;
        let mut random = move |below: usize| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) as usize % below
        };
        for step in 0..6000 {
            let mut name = |depth: usize| {
                let parts: Vec<&str> = (0..=random(depth)).map(|_| ["a", "b", "c"][random(3)]).collect();
                format!("/{}", parts.join("/"))
            };
            let (path, other) = (name(3), name(3));
            let (want, got) = match random(6) {
                0 | 1 => {
                    let want = match parent_error(&model, &path) {
                        Some(errno) => Err(errno),
                        None if model.contains_key(&path) => Err(Errno::EEXIST),
                        None => {
                            model.insert(path.clone(), true);
                            Ok(())
                        }
                    };
                    (want, w.mkdir(&path).await)
                }
                2 => {
                    let want = match parent_error(&model, &path) {
                        Some(errno) => Err(errno),
                        None if model.contains_key(&path) => Err(Errno::EEXIST),
                        None => {
                            model.insert(path.clone(), false);
                            Ok(())
                        }
                    };
                    (want, w.create(&path).await)
                }
                3 => {
                    let want = match (parent_error(&model, &path), model.get(&path)) {
                        (Some(errno), _) => Err(errno),
                        (None, None) => Err(Errno::ENOENT),
                        (None, Some(true)) => Err(Errno::EISDIR),
                        (None, Some(false)) => {
                            model.remove(&path);
                            Ok(())
                        }
                    };
                    (want, w.unlink(&path).await)
                }
                4 => {
                    let want = match (parent_error(&model, &path), model.get(&path)) {
                        (Some(errno), _) => Err(errno),
                        (None, None) => Err(Errno::ENOENT),
                        (None, Some(false)) => Err(Errno::ENOTDIR),
                        (None, Some(true)) if has_children(&model, &path) => Err(Errno::ENOTEMPTY),
                        (None, Some(true)) => {
                            model.remove(&path);
                            Ok(())
                        }
                    };
                    (want, w.rmdir(&path).await)
                }
                _ => {
                    let want = model_rename(&mut model, &path, &other);
                    (want, w.rename(&path, &other, RenameFlags::empty()).await)
                }
            };
            assert_eq!(want, got, "step {step}: {path} {other}");
            if step % 50 == 0 {
                check_tree(&w, &model).await;
                dentry::shrink(random(64));
            }
        }
    });
}

async fn check_tree(w: &World, model: &Model) {
    let dirs = core::iter::once("").chain(model.iter().filter(|(_, dir)| **dir).map(|(path, _)| path.as_str()));
    for dir in dirs {
        let want: Vec<&str> = model
            .keys()
            .filter(|key| parent_of(key) == dir)
            .filter_map(|key| key.rsplit_once('/').map(|(_, name)| name))
            .collect();
        assert_eq!(w.list(&format!("{dir}/")).await, want, "{dir}");
        let place = w.find(&format!("{dir}/."), Flags::empty()).await.unwrap();
        let subdirs = model.iter().filter(|(key, is_dir)| **is_dir && parent_of(key) == dir).count() as u32;
        assert_eq!(place.inode().metadata().nlink, 2 + subdirs, "{dir}");
    }
}

#[test]
fn a_dropped_creation_leaves_no_wrong_cache_entry() {
    /// A directory whose `create` waits for ever after it has made the file.
    struct Slow(Arc<tmpfs::TmpInode>, InodeState);
    impl Inode for Slow {
        fn metadata(&self) -> Metadata {
            self.0.metadata()
        }
        fn fs(&self) -> Arc<dyn FileSystem> {
            self.0.fs()
        }
        fn as_any(&self) -> &dyn core::any::Any {
            self
        }
        fn state(&self) -> &InodeState {
            &self.1
        }
        fn lookup<'a>(&'a self, name: &'a [u8]) -> Op<'a, Result<Arc<dyn Inode>>> {
            self.0.lookup(name)
        }
        fn create<'a>(&'a self, name: &'a [u8], node: NewNode<'a>, attr: NewAttr) -> Op<'a, Result<Arc<dyn Inode>>> {
            Op::boxed(async move {
                self.0.create(name, node, attr).await?;
                core::future::pending().await
            })
        }
    }
    block_on(async {
        let tmp = tmpfs::TmpFs::new("tmpfs", b"test", Default::default());
        let dir = tmp.root_inode().unwrap().clone();
        let root = Dentry::new_root(Arc::new(Slow(dir, InodeState::default())));
        let mount = Mount::new(tmp, root.clone(), MountFlags::empty());
        let fs = FsContext::new(Path { mount, dentry: root });
        let w = World { fs, ..World::new() };
        assert_eq!(w.ino("/f").await, Err(Errno::ENOENT));
        {
            let mut creation = core::pin::pin!(w.create("/f"));
            assert!(poll_once(creation.as_mut()).await.is_pending());
        }
        assert!(w.ino("/f").await.is_ok());
    });
}
