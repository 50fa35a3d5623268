//! The file system on a disk that is late, fails, and loses power.
//!
//! Each worker has a directory of its own and knows what is in it. Power goes at a random moment; e2fsck must then repair the
//! image, with no question but about names, and everything that a worker had synced and not touched since must be there: of files
//! that have changed since, what is before the first byte that did. And no file may show what its worker has not written.

mod image;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use self::image::{BLOCK_SIZES, Kind, State, check, check_kept, check_origin, contents, images};
use super::Setup;
use crate::disk::{self, Habits};
use crate::machine;
use crate::rng::Rng;
use crate::user::{Program, Sys, U, errno, program};

const NR_SETXATTR: u64 = 5;
const NR_GETXATTR: u64 = 8;
const NR_REMOVEXATTR: u64 = 14;
const NR_MKDIRAT: u64 = 34;
const NR_UNLINKAT: u64 = 35;
const NR_UMOUNT2: u64 = 39;
const NR_MOUNT: u64 = 40;
const NR_FTRUNCATE: u64 = 46;
const NR_OPENAT: u64 = 56;
const NR_PREAD64: u64 = 67;
const NR_PWRITE64: u64 = 68;
const NR_SYNC: u64 = 81;
const NR_FSYNC: u64 = 82;
const NR_RENAMEAT2: u64 = 276;
const AT_FDCWD: u64 = -100i64 as u64;
const O_RDWR: u64 = 2;
const O_CREAT: u64 = 0o100;
const EIO: Sys = -5;
const ENODATA: Sys = -61;
const ENOSPC: Sys = -28;
const EROFS: Sys = -30;

const PIECE: u64 = 12_000;
const LONGEST: u64 = 40_000;

type Files = BTreeMap<String, Vec<u8>>;
/// By file and name.
type Attributes = BTreeMap<(String, String), Vec<u8>>;

/// What one worker knows.
#[derive(Default)]
struct Model {
    files: Files,
    /// Names that are on the disk for sure.
    named: BTreeSet<String>,
    /// Content that is.
    synced: Files,
    /// Of files that have changed since: what is before the first byte that did.
    kept: Files,
    attributes: Attributes,
    /// Those that are on the disk for sure.
    synced_attributes: Attributes,
}

impl Model {
    /// The file is about to change from this byte on.
    fn touch(&mut self, path: &str, from: u64) {
        if let Some(content) = self.synced.remove(path) {
            self.kept.insert(path.into(), content);
        }
        if let Some(content) = self.kept.get_mut(path) {
            content.truncate(from as usize);
        }
    }

    /// The name is about to come, change its meaning, or go.
    fn touch_name(&mut self, path: &str) {
        self.synced.remove(path);
        self.kept.remove(path);
        self.named.remove(path);
        self.synced_attributes.retain(|(of, _), _| of != path);
    }

    /// The file has gone, or has another name.
    fn move_attributes(&mut self, from: &str, to: Option<&str>) {
        self.attributes.retain(|(of, _), _| Some(of.as_str()) != to);
        let (moved, rest): (Attributes, _) =
            std::mem::take(&mut self.attributes).into_iter().partition(|((of, _), _)| of == from);
        self.attributes = rest;
        if let Some(to) = to {
            self.attributes.extend(moved.into_iter().map(|((_, name), value)| ((to.into(), name), value)));
        }
    }

    fn all_synced(&mut self) {
        self.synced = self.files.clone();
        self.kept.clear();
        self.named = self.files.keys().cloned().collect();
        self.synced_attributes = self.attributes.clone();
    }
}

type Models = Rc<RefCell<BTreeMap<String, Model>>>;

pub fn prepare() {
    images(Kind::Ext2);
    images(Kind::Ext4);
}

impl U {
    async fn path_call(self, number: u64, path: &str, rest: &[u64]) -> Sys {
        let path = self.place_str(path).await;
        self.call(number, &[&[AT_FDCWD, path], rest].concat()).await
    }

    async fn mount(self, kind: Kind) {
        let dir = self.path_call(NR_MKDIRAT, "/mnt", &[0o755]).await;
        assert_eq!(dir, 0);
        assert_eq!(self.path_call(NR_MKDIRAT, "/dev", &[0o755]).await, 0);
        let (dev, devtmpfs) = (self.place_str("/dev").await, self.place_str("devtmpfs").await);
        assert_eq!(self.call(NR_MOUNT, &[devtmpfs, dev, devtmpfs, 0, 0]).await, 0);
        let (disk, mnt, name) =
            (self.place_str("/dev/vda").await, self.place_str("/mnt").await, self.place_str(kind.name()).await);
        loop {
            match self.call(NR_MOUNT, &[disk, mnt, name, 0, 0]).await {
                0 => return,
                EIO => {}
                other => panic!("mount: {}", errno(other)),
            }
        }
    }
}

/// The lower three bits of all that a worker writes; never zero.
fn tag_of(dir: &str) -> u8 {
    dir.bytes().last().unwrap_or_default() % 7 + 1
}

/// One worker: random operations on its directory.
struct Worker {
    u: U,
    dir: String,
    models: Models,
    rng: Rng,
    /// The disk fails now and then.
    errors: bool,
    buffer: u64,
}

impl Worker {
    fn model<R>(&self, access: impl FnOnce(&mut Model) -> R) -> R {
        access(self.models.borrow_mut().entry(self.dir.clone()).or_default())
    }

    fn random_path(&mut self) -> String {
        let sub = if self.rng.one_in(3) { "/sub" } else { "" };
        format!("{}{sub}/file{}", self.dir, self.rng.below(6))
    }

    /// Checks an answer. False if the disk failed, which is no fault of the kernel; then nothing is known.
    fn went_well(&self, what: &str, answer: Sys) -> bool {
        assert!(answer >= 0 || self.errors && matches!(answer, EIO | EROFS | ENOSPC), "{what}: {}", errno(answer));
        answer >= 0
    }

    async fn open(&self, path: &str, flags: u64) -> Option<u64> {
        let fd = self.u.path_call(NR_OPENAT, &format!("/mnt{path}"), &[flags, 0o644]).await;
        if fd == -2 {
            assert!(self.errors || !self.model(|model| model.files.contains_key(path)), "{path} is gone");
            return None;
        }
        self.went_well("open", fd).then_some(fd as u64)
    }

    async fn step(&mut self) {
        let path = self.random_path();
        let choice = self.rng.below(16);
        machine::trace(format!("worker: {choice} {path}"));
        match choice {
            0..=4 => self.write(&path).await,
            5 => self.truncate(&path).await,
            6 => self.rename(&path).await,
            7 => self.unlink(&path).await,
            8 => self.read(&path).await,
            9 | 10 => self.fsync(&path).await,
            11 | 12 => self.set_attribute(&path).await,
            13 => self.remove_attribute(&path).await,
            14 => self.get_attribute(&path).await,
            _ => {
                let synced = self.u.call(NR_SYNC, &[]).await;
                assert_eq!(synced, 0);
                // sync(2) has no way to tell that something went wrong.
                if !self.errors {
                    self.model(Model::all_synced);
                }
            }
        }
    }

    async fn write(&mut self, path: &str) {
        let (pos, len) = (self.rng.below(LONGEST), self.rng.range(1, PIECE));
        self.model(|model| match model.files.contains_key(path) {
            true => model.touch(path, pos),
            false => model.touch_name(path),
        });
        let Some(fd) = self.open(path, O_RDWR | O_CREAT).await else { return };
        self.model(|model| {
            model.files.entry(path.into()).or_default();
        });
        let start = self.rng.next();
        let tag = tag_of(&self.dir);
        let bytes: Vec<u8> = (0..len).map(|at| ((start.wrapping_add(at * 7) >> (at % 5)) as u8) << 3 | tag).collect();
        self.u.write_bytes(self.buffer, &bytes).await;
        let written = self.u.call(NR_PWRITE64, &[fd, self.buffer, len, pos]).await;
        if self.went_well("write", written) {
            let (from, to) = (pos as usize, pos as usize + written as usize);
            self.model(|model| {
                let content = model.files.entry(path.into()).or_default();
                content.resize(content.len().max(to), 0);
                content[from..to].copy_from_slice(&bytes[..to - from]);
            });
        }
        self.u.close(fd).await;
    }

    async fn truncate(&mut self, path: &str) {
        let len = self.rng.below(LONGEST);
        self.model(|model| model.touch(path, len));
        let Some(fd) = self.open(path, O_RDWR).await else { return };
        if self.went_well("truncate", self.u.call(NR_FTRUNCATE, &[fd, len]).await) {
            self.model(|model| model.files.entry(path.into()).or_default().resize(len as usize, 0));
        }
        self.u.close(fd).await;
    }

    async fn rename(&mut self, from: &str) {
        let to = self.random_path();
        self.model(|model| {
            model.touch_name(from);
            model.touch_name(&to);
        });
        let (old, new) = (format!("/mnt{from}"), format!("/mnt{to}"));
        let (old, new) = (self.u.place_str(&old).await, self.u.place_str(&new).await);
        let answer = self.u.call(NR_RENAMEAT2, &[AT_FDCWD, old, AT_FDCWD, new, 0]).await;
        let exists = self.model(|model| model.files.contains_key(from));
        if answer == -2 {
            assert!(self.errors || !exists, "{from} is gone");
        } else if self.went_well("rename", answer) {
            self.model(|model| {
                if let Some(content) = model.files.remove(from) {
                    if from != to {
                        model.move_attributes(from, Some(&to));
                    }
                    model.files.insert(to, content);
                }
            });
        }
    }

    async fn unlink(&mut self, path: &str) {
        self.model(|model| model.touch_name(path));
        let answer = self.u.path_call(NR_UNLINKAT, &format!("/mnt{path}"), &[0]).await;
        let exists = self.model(|model| model.files.contains_key(path));
        if answer == -2 {
            assert!(self.errors || !exists, "{path} is gone");
        } else if self.went_well("unlink", answer) {
            self.model(|model| {
                model.files.remove(path);
                model.move_attributes(path, None);
            });
        }
    }

    async fn read(&mut self, path: &str) {
        let Some(fd) = self.open(path, O_RDWR).await else { return };
        let pos = self.rng.below(LONGEST);
        let n = self.u.call(NR_PREAD64, &[fd, self.buffer, PIECE, pos]).await;
        if self.went_well("read", n) {
            let bytes = self.u.read_bytes(self.buffer, n as usize).await;
            let expected = self.model(|model| model.files.get(path).cloned().unwrap_or_default());
            let from = expected.len().min(pos as usize);
            let expected = &expected[from..expected.len().min(from + PIECE as usize)];
            assert!(
                self.errors || bytes == expected,
                "{path} at {pos}: {} bytes, or others, not {}",
                n,
                expected.len()
            );
        }
        self.u.close(fd).await;
    }

    /// A name, and the arguments that each call on it begins with.
    async fn attribute(&mut self, path: &str) -> ((String, String), [u64; 2]) {
        let name = format!("user.{}", self.rng.below(4));
        let arguments = [self.u.place_str(&format!("/mnt{path}")).await, self.u.place_str(&name).await];
        ((path.to_owned(), name), arguments)
    }

    async fn set_attribute(&mut self, path: &str) {
        let (key, [at, name]) = self.attribute(path).await;
        self.model(|model| model.synced_attributes.remove(&key));
        let value = vec![self.rng.below(256) as u8 | 1; *self.rng.pick(&[1, 30, 200])];
        self.u.write_bytes(self.buffer, &value).await;
        let answer = self.u.call(NR_SETXATTR, &[at, name, self.buffer, value.len() as u64, 0]).await;
        if self.there(path, answer) && self.went_well("setxattr", answer) {
            self.model(|model| model.attributes.insert(key, value));
        }
    }

    async fn remove_attribute(&mut self, path: &str) {
        let (key, [at, name]) = self.attribute(path).await;
        self.model(|model| model.synced_attributes.remove(&key));
        let answer = self.u.call(NR_REMOVEXATTR, &[at, name]).await;
        if !self.there(path, answer) {
            return;
        }
        let known = self.model(|model| model.attributes.contains_key(&key));
        if answer == ENODATA {
            assert!(self.errors || !known, "{key:?} is gone");
        } else if self.went_well("removexattr", answer) {
            self.model(|model| model.attributes.remove(&key));
        }
    }

    async fn get_attribute(&mut self, path: &str) {
        let (key, [at, name]) = self.attribute(path).await;
        let answer = self.u.call(NR_GETXATTR, &[at, name, self.buffer, PIECE]).await;
        if !self.there(path, answer) {
            return;
        }
        let known = self.model(|model| model.attributes.get(&key).cloned());
        if answer == ENODATA {
            assert!(self.errors || known.is_none(), "{key:?} is gone");
        } else if self.went_well("getxattr", answer) {
            let value = self.u.read_bytes(self.buffer, answer as usize).await;
            assert!(self.errors || known == Some(value), "{key:?} has another value");
        }
    }

    /// Whether the file of a call on a path is there, which it must be if it is known.
    fn there(&self, path: &str, answer: Sys) -> bool {
        let known = self.model(|model| model.files.contains_key(path));
        assert!(answer != -2 || self.errors || !known, "{path} is gone");
        answer != -2
    }

    async fn fsync(&mut self, path: &str) {
        let Some(fd) = self.open(path, O_RDWR).await else { return };
        if self.went_well("fsync", self.u.call(NR_FSYNC, &[fd]).await) && !self.errors {
            self.model(|model| {
                if model.named.contains(path)
                    && let Some(content) = model.files.get(path)
                {
                    model.synced.insert(path.into(), content.clone());
                    model.kept.remove(path);
                    let known = model.attributes.iter().filter(|((of, _), _)| of == path);
                    let known: Vec<_> = known.map(|(key, value)| (key.clone(), value.clone())).collect();
                    model.synced_attributes.extend(known);
                }
            });
        }
        self.u.close(fd).await;
    }
}

/// A worker's life.
fn worker(dir: String, models: Models, rng: Rng, steps: u64, errors: bool) -> Program {
    program(move |u| async move {
        let buffer = u.map(PIECE, false).await;
        let mut worker = Worker { u, dir, models, rng, errors, buffer };
        for _ in 0..steps {
            worker.step().await;
            if worker.rng.one_in(4) {
                u.pause(300_000).await;
            }
        }
        0
    })
}

/// Workers, then the end: unmounted in peace, unless power has gone before.
fn work(setup: &mut Setup, models: &Models, kind: Kind, errors: bool) -> Program {
    let workers = setup.rng.range(1, 5);
    let steps = setup.rng.range(5, 60);
    let mut rngs: Vec<Rng> = (0..workers).map(|_| setup.rng.split()).collect();
    let models = models.clone();
    program(move |u| async move {
        u.mount(kind).await;
        let mut children = Vec::new();
        for (index, rng) in rngs.drain(..).enumerate() {
            let dir = format!("/worker{index}");
            for path in [format!("/mnt{dir}"), format!("/mnt{dir}/sub")] {
                let made = u.path_call(NR_MKDIRAT, &path, &[0o755]).await;
                assert!(made == 0 || errors, "mkdir: {}", errno(made));
                if made != 0 {
                    return 0;
                }
            }
            children.push(u.fork(worker(dir, models.clone(), rng, steps, errors)).await);
        }
        for child in children {
            assert_eq!(u.wait_for(child).await, 0);
        }
        let mnt = u.place_str("/mnt").await;
        let unmounted = u.call(NR_UMOUNT2, &[mnt, 0]).await;
        assert!(unmounted == 0 || errors, "umount: {}", errno(unmounted));
        0
    })
}

fn choose_disk(setup: &mut Setup, kind: Kind, fail_one_in: u64) {
    let which = setup.rng.below(2) as usize;
    let delay = *setup.rng.pick(&[1_000, 50_000, 1_000_000]);
    // Blocks arrive as a whole: without a journal, nothing could make up for half a block of a directory.
    let habits = Habits { delay, fail_one_in, unit: BLOCK_SIZES[which] / 512 };
    setup.disk = Some((&images(kind)[which], habits));
}

pub fn power_cut(setup: &mut Setup) -> Program {
    power_cut_on(setup, Kind::Ext2)
}

pub fn power_cut_on_ext4(setup: &mut Setup) -> Program {
    power_cut_on(setup, Kind::Ext4)
}

fn power_cut_on(setup: &mut Setup, kind: Kind) -> Program {
    let models = Models::default();
    choose_disk(setup, kind, 0);
    let main = work(setup, &models, kind, false);
    let cut = setup.rng.range(1, 60) * setup.rng.range(1, 4000) * 1000;
    setup.afterwards = Some(Box::new(move |ended| {
        let (image, clean) = if ended { (disk::image(), true) } else { (disk::image_after_power_cut(), false) };
        let expected = |model: &Model| if clean { model.attributes.clone() } else { model.synced_attributes.clone() };
        let names: Vec<_> = models.borrow().values().flat_map(|model| expected(model).into_keys()).collect();
        let (found, attributes) = contents(&image, if clean { State::Clean } else { State::Cut }, &names);
        for (dir, model) in models.borrow().iter() {
            check_origin(&found, dir, |byte| byte & 7 == tag_of(dir));
            for (key, value) in &expected(model) {
                assert!(attributes.get(key) == Some(value), "{key:?} is {:?}, not {value:?}", attributes.get(key));
            }
            if !clean {
                check_kept(&found, &model.kept);
            }
            check(&found, if clean { &model.files } else { &model.synced }, if clean { "unmounted" } else { "synced" });
        }
    }));
    program(move |u| async move {
        machine::after(cut, machine::stop);
        main(u).await
    })
}

/// Requests fail: programs get errors, nothing panics or hangs, and what is on the disk can be repaired.
pub fn errors(setup: &mut Setup) -> Program {
    let models = Models::default();
    let often = *setup.rng.pick(&[10, 50, 300]);
    // What could not be written stays in memory.
    setup.may_lose = i64::MAX;
    choose_disk(setup, Kind::Ext2, often);
    let main = work(setup, &models, Kind::Ext2, true);
    setup.afterwards = Some(Box::new(|_| drop(contents(&disk::image(), State::Damaged, &[]))));
    main
}
