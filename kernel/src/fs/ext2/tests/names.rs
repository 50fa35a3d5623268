//! Names and inodes: whenever power goes, e2fsck has nothing to ask, and a sync takes no more flushes than that needs.

use super::*;
use crate::fs::ext2::names::Content;
use crate::fs::inode::NewAttr;

type Path = Vec<Vec<u8>>;

/// Random changes of names in a few directories.
struct Names {
    rng: Rng,
    dirs: Vec<(Path, Arc<dyn Inode>)>,
    /// Renames too.
    moves: bool,
    /// What was removed last.
    removed: Vec<u8>,
}

const DIR: NewAttr = NewAttr { perm: 0o755, ..ATTR };

impl Names {
    fn name(&mut self) -> Vec<u8> {
        if !self.removed.is_empty() && self.rng.below(4) == 0 {
            return self.removed.clone();
        }
        let mut name = format!("{:x}", self.rng.below(40)).into_bytes();
        let len = [1, 3, 20, 120][self.rng.below(4) as usize];
        name.resize(name.len().max(len), b'n');
        name
    }

    /// A name that is there, and what it leads to.
    async fn some(&mut self, dir: &Arc<dyn Inode>) -> Option<(Vec<u8>, Arc<dyn Inode>)> {
        let names = list(dir).await;
        let names: Vec<_> =
            names.into_iter().filter(|(n, ..)| ![&b"."[..], b"..", b"lost+found", b"base"].contains(&&n[..])).collect();
        if names.is_empty() {
            return None;
        }
        let name = names[self.rng.below(names.len() as u64) as usize].0.clone();
        let target = dir.lookup(&name).await.ok()?;
        Some((name, target))
    }

    async fn step(&mut self) {
        let at = self.rng.below(self.dirs.len() as u64) as usize;
        let (path, dir) = self.dirs[at].clone();
        let name = self.name();
        match self.rng.below(100) {
            0..30 => {
                if let Ok(file) = dir.create(&name, NewNode::Regular, ATTR).await
                    && self.rng.below(2) == 0
                {
                    let _ = write(&file, 0, &vec![1; 1 + self.rng.below(5000) as usize]).await;
                }
            }
            30..42 if self.dirs.len() < 14 => {
                if let Ok(made) = dir.create(&name, NewNode::Directory, DIR).await {
                    self.dirs.push(([path, vec![name]].concat(), made));
                }
            }
            30..62 => {
                if let Some((name, target)) = self.some(&dir).await
                    && dir.unlink(&name, &target).await.is_ok()
                {
                    self.removed.clone_from(&name);
                    let gone = [path, vec![name]].concat();
                    self.dirs.retain(|(path, _)| *path != gone);
                }
            }
            62..66 if !path.is_empty() => self.remove_all(&path, &dir).await,
            62..78 => {
                if let Some((_, target)) = self.some(&dir).await
                    && target.kind() == FileType::Regular
                {
                    let other = self.rng.below(self.dirs.len() as u64) as usize;
                    let _ = self.dirs[other].1.link(&name, &target).await;
                }
            }
            78..90 if self.moves => self.rename(&dir, name).await,
            78..95 => {
                if let Some((_, target)) = self.some(&dir).await {
                    let _ = target.sync(false).await;
                }
            }
            _ => {}
        }
    }

    async fn rename(&mut self, dir: &Arc<dyn Inode>, mut new: Vec<u8>) {
        let Some((old, moved)) = self.some(dir).await else { return };
        if moved.kind() == FileType::Directory {
            return;
        }
        let to = match self.rng.below(2) {
            0 => dir.clone(),
            _ => self.dirs[self.rng.below(self.dirs.len() as u64) as usize].1.clone(),
        };
        let mut replaced = None;
        if self.rng.below(2) == 0
            && let Some((name, there)) = self.some(&to).await
            && there.kind() != FileType::Directory
            && there.metadata().ino != moved.metadata().ino
        {
            (new, replaced) = (name, Some(there));
        }
        let mut flags = RenameFlags::empty();
        if replaced.is_some() && self.rng.below(5) == 0 {
            flags = RenameFlags::EXCHANGE;
        }
        if dir.rename(&old, &moved, &to, &new, replaced.as_ref(), flags).await.is_ok() {
            self.removed = old;
        }
    }

    /// rm -r
    async fn remove_all(&mut self, path: &[Vec<u8>], dir: &Arc<dyn Inode>) {
        let mut below: Vec<_> = self.dirs.iter().filter(|(other, _)| other.starts_with(path)).cloned().collect();
        below.sort_by_key(|(path, _)| core::cmp::Reverse(path.len()));
        self.dirs.retain(|(other, _)| !other.starts_with(path));
        let _ = dir;
        for (path, dir) in &below {
            for (name, kind, _) in list(dir).await {
                if kind == FileType::Regular {
                    let target = dir.lookup(&name).await.unwrap();
                    let _ = dir.unlink(&name, &target).await;
                }
            }
            let parent = walk(&self.dirs[0].1, &path[..path.len() - 1]).await;
            let _ = parent.unlink(path.last().unwrap(), dir).await;
        }
    }
}

const KINDS: [&[&str]; 5] = [
    &["-b", "1024", "-I", "128"],
    &["-b", "2048", "-g", "1024", "-O", "^resize_inode"],
    &["-b", "4096", "-I", "256"],
    &["-t", "ext4", "-O", "^has_journal", "-b", "1024", "-g", "1024"],
    &["-t", "ext4", "-O", "^has_journal", "-b", "4096"],
];

/// Blocks arrive whole: what is torn within one is another matter.
fn block_size(arguments: &[&str]) -> usize {
    let at = arguments.iter().position(|argument| *argument == "-b").unwrap();
    arguments[at + 1].parse().unwrap()
}

fn cut(arguments: &[&str], image: &[u8], seed: u64, moves: bool) {
    let disk = TestDisk::new(image.to_vec(), seed);
    let inner = disk.clone();
    let long_names = block_size(arguments) / 50;
    run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        let base = root.create(b"base", NewNode::Directory, DIR).await.unwrap();
        if seed.is_multiple_of(2) {
            // So many blocks that e2fsck looks for names that are in two.
            for dir in [&root, &base] {
                for name in 0..long_names {
                    let name = format!("{name:x}-{:n<100}", "").into_bytes();
                    dir.create(&name, NewNode::Regular, ATTR).await.unwrap();
                }
            }
        }
        fs.sync().await.unwrap();
        inner.cut_after(20 + Rng(seed * 91 + 5).below(700));
        let done = Arc::new(core::sync::atomic::AtomicBool::new(false));
        let (other, ended) = (fs.clone(), done.clone());
        // Changes go on while it is written back.
        exec::spawn("writer", async move {
            let mut rng = Rng(seed * 5 + 3);
            while !ended.load(Ordering::Relaxed) {
                for _ in 0..rng.below(300) {
                    exec::yield_now().await;
                }
                let _ = other.volume.write_metadata().await;
            }
            ended.store(false, Ordering::Relaxed);
        });
        let left = Arc::new(core::sync::atomic::AtomicU64::new(2));
        for (worker, base) in (0..).zip([root, base]) {
            let (fs, inner, left) = (fs.clone(), inner.clone(), left.clone());
            exec::spawn("names", async move {
                let rng = Rng(seed * 77 + worker * 9 + 1);
                let dirs = vec![(Vec::new(), base)];
                let mut names = Names { rng, dirs, moves, removed: Vec::new() };
                for step in 0..400 {
                    names.step().await;
                    if step % 90 == 60 {
                        let _ = fs.sync().await;
                    }
                    if step % 3 == 0 {
                        exec::yield_now().await;
                    }
                    if !inner.has_power() {
                        break;
                    }
                }
                left.fetch_sub(1, Ordering::Relaxed);
            });
        }
        while left.load(Ordering::Relaxed) > 0 {
            exec::yield_now().await;
        }
        done.store(true, Ordering::Relaxed);
        while done.load(Ordering::Relaxed) {
            exec::yield_now().await;
        }
    });
    for what in 0..3 {
        let image = disk.image_after_cut_of(block_size(arguments), &mut Rng(seed * 3 + what + 1));
        if let Err(text) = preen(&image) {
            panic!("{arguments:?}, seed {seed}: e2fsck asks:\n{text}");
        }
    }
}

/// POLLUX_SEEDS: from which on, and how many.
fn seeds(count: u64) -> core::ops::Range<u64> {
    let given = std::env::var("POLLUX_SEEDS").ok();
    let given = given.and_then(|text| text.split_once('+').map(|(a, b)| (a.parse().unwrap(), b.parse().unwrap())));
    let (first, count): (u64, u64) = given.unwrap_or((1, count));
    first..first + count
}

fn cuts(kinds: core::ops::Range<usize>, moves: bool) {
    for arguments in &KINDS[kinds] {
        let image = mke2fs(arguments, 8 * MIB);
        seeds(5).for_each(|seed| cut(arguments, &image, seed, moves));
    }
}

#[test]
fn no_inode_is_without_its_name_on_ext2() {
    cuts(0..3, false);
}

#[test]
fn no_inode_is_without_its_name_on_ext4() {
    cuts(3..5, false);
}

#[test]
fn no_inode_is_without_its_name_when_names_move() {
    cuts(0..5, true);
}

/// A write of content needs no more than it did; names have one or two to wait for.
#[test]
fn a_sync_flushes_as_often_as_the_order_needs() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024"], 4 * MIB), 5);
    run(async move {
        let fs = mount(&disk).await;
        let root = root_of(&fs);
        let flushes = async |inode: &Arc<dyn Inode>| {
            let before = disk.flushes.load(Ordering::Relaxed);
            inode.sync(false).await.unwrap();
            disk.flushes.load(Ordering::Relaxed) - before
        };
        let empty = root.create(b"empty", NewNode::Regular, ATTR).await.unwrap();
        assert_eq!(flushes(&empty).await, 2, "create");
        let file = root.create(b"file", NewNode::Regular, ATTR).await.unwrap();
        write(&file, 0, &[1; 1000]).await.unwrap();
        assert_eq!(flushes(&file).await, 2, "create and write, which needs one for the data");
        write(&file, 0, &[2; 1000]).await.unwrap();
        assert_eq!(flushes(&file).await, 1, "write");
        write(&file, 1000, &[2; 1000]).await.unwrap();
        assert_eq!(flushes(&file).await, 2, "write to a new block");
        root.rename(b"file", &file, &root, b"other", None, RenameFlags::empty()).await.unwrap();
        assert_eq!(flushes(&file).await, 2, "rename");
        root.unlink(b"empty", &empty).await.unwrap();
        assert_eq!(flushes(&file).await, 2, "unlink");
        let new = root.create(b"new", NewNode::Regular, ATTR).await.unwrap();
        assert_eq!(flushes(&new).await, 2, "create");
        root.rename(b"new", &new, &root, b"other", Some(&file), RenameFlags::empty()).await.unwrap();
        assert_eq!(flushes(&new).await, 4, "rename to a name that is there");
        let short = root.create(b"short", NewNode::Regular, ATTR).await.unwrap();
        root.unlink(b"short", &short).await.unwrap();
        assert_eq!(flushes(&new).await, 2, "create and unlink");
    });
}

#[test]
fn an_inode_that_cannot_be_stored_keeps_nothing_else_from_the_disk() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024", "-g", "1024"], 4 * MIB), 7);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        let file = root.create(b"file", NewNode::Regular, ATTR).await.unwrap();
        let dir = root.create(b"dir", NewNode::Directory, DIR).await.unwrap();
        fs.sync().await.unwrap();
        let (block, _) = fs.volume.inode_position(file.metadata().ino as u32).unwrap();
        fs.volume.buffers.forget(block, 1);
        inner.bad_sector.store(u64::from(block) * 2, Ordering::Relaxed);
        file.set_attr(SetAttr { perm: Some(0o600), ..SetAttr::default() }).await.unwrap();
        for name in 0..200 {
            let new = dir.create(format!("{name}").as_bytes(), NewNode::Directory, DIR).await;
            new.map(drop).or_else(|errno| if errno == Errno::EIO { Ok(()) } else { Err(errno) }).unwrap();
        }
        assert_eq!(fs.sync().await, Err(Errno::EIO));
        // As if they had to make room for others.
        fs.volume.buffers.forget_clean();
        inner.bad_sector.store(u64::MAX, Ordering::Relaxed);
        fs.sync().await.unwrap();
        drop((root, file, dir));
        unmount(fs).await;
    });
    check_clean(&disk.image(), "after reads that failed");
}

/// Inodes and blocks that are taken or were once, and inodes in memory.
fn taken(fs: &Ext2) -> [u64; 4] {
    let groups = &fs.volume.groups;
    let unused = groups.group(0, |group| Some(group.desc.unused_inodes.get())).unwrap();
    [unused.into(), groups.free_inodes(), groups.free_blocks(), fs.volume.live_inodes().len() as u64]
}

/// Makes so many that one has to wait, which takes nothing.
async fn make_until_one_waits(fs: &Ext2, kind: FileType) {
    root_of(fs).create(b"first", NewNode::Regular, ATTR).await.unwrap();
    for number in 0..64 {
        let before = taken(fs);
        let name = format!("{number}").into_bytes();
        match fs.root.node.create_now(&name, Content::Plain(kind), ATTR) {
            Some(made) => drop(made.unwrap()),
            None => return assert_eq!(taken(fs), before, "{kind:?}, after {number}"),
        }
    }
    panic!("none of them waits");
}

/// Of the inode table a block is not in memory, or no block is free for a directory.
#[test]
fn what_cannot_be_made_at_once_takes_nothing() {
    let disk = TestDisk::new(mke2fs(&["-t", "ext4", "-O", "^has_journal", "-b", "1024"], 8 * MIB), 8);
    run(async move {
        let fs = mount(&disk).await;
        make_until_one_waits(&fs, FileType::Regular).await;
        unmount(fs).await;
    });
    let disk = TestDisk::new(mke2fs(&["-b", "4096", "-m", "0"], 2 * MIB), 9);
    run(async move {
        let fs = mount(&disk).await;
        let fill = root_of(&fs).create(b"fill", NewNode::Regular, ATTR).await.unwrap();
        let mut pos = 0;
        while fs.volume.groups.available_blocks() > 30 && write(&fill, pos, &[7; 4096]).await.is_ok() {
            pos += 4096;
        }
        make_until_one_waits(&fs, FileType::Directory).await;
        drop(fill);
        unmount(fs).await;
    });
}
