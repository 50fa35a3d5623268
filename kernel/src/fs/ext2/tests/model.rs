//! What a tree of files should look like, and the same operations on the real one and on the model.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::errno::{Errno, Result};
use crate::fs::inode::{DirSink, FileType, Inode, NewAttr, NewNode, RenameFlags, SetAttr};
use crate::fs::op::BoxFuture;
use crate::mm::IoBuf;
use crate::mm::test_util::Rng;

pub const ATTR: NewAttr = NewAttr { perm: 0o644, uid: 1000, gid: 70_000 };

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    File(Vec<u8>),
    Dir(BTreeMap<Vec<u8>, u32>),
    Link(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Thing {
    pub kind: Kind,
    pub names: u32,
    /// The step of the last change.
    pub changed: u64,
    /// Of a file: so much from its beginning has not changed since the last sync.
    pub kept: usize,
}

#[derive(Clone)]
pub struct Model {
    pub things: BTreeMap<u32, Thing>,
    next: u32,
    pub step: u64,
}

pub struct Names(pub Vec<(Vec<u8>, FileType, u64)>);

impl DirSink for Names {
    fn entry(&mut self, ino: u64, _next: u64, kind: FileType, name: &[u8]) -> bool {
        let _ = ino;
        self.0.push((name.to_vec(), kind, ino));
        true
    }
}

pub async fn list(dir: &Arc<dyn Inode>) -> Vec<(Vec<u8>, FileType, u64)> {
    let mut names = Names(Vec::new());
    dir.read_dir(0, &mut names).await.unwrap();
    names.0
}

pub async fn write(inode: &Arc<dyn Inode>, pos: u64, data: &[u8]) -> Result<()> {
    inode.prepare_write(pos, data.len() as u64).await?;
    let size = inode.metadata().size;
    let cache = inode.page_cache().unwrap();
    let n = cache.write(pos, size, &mut IoBuf::kernel(data)).await?;
    assert_eq!(n, data.len());
    let end = pos + n as u64;
    inode.set_attr(SetAttr { size: (end > size).then_some(end), ..SetAttr::default() }).await
}

pub async fn read(inode: &Arc<dyn Inode>) -> Result<Vec<u8>> {
    let size = inode.metadata().size;
    let mut data = vec![0xaa; size as usize];
    let cache = inode.page_cache().unwrap();
    let mut pos = 0;
    while pos < size {
        let n = cache.read(pos, size, &mut IoBuf::kernel_mut(&mut data[pos as usize..])).await?;
        assert!(n > 0);
        pos += n as u64;
    }
    Ok(data)
}

impl Model {
    pub fn new(root: &[(Vec<u8>, FileType, u64)]) -> Model {
        let mut names = BTreeMap::new();
        let mut things = BTreeMap::new();
        // mke2fs makes lost+found.
        for (index, (name, kind, _)) in root.iter().filter(|(name, ..)| name != b"." && name != b"..").enumerate() {
            assert_eq!(*kind, FileType::Directory);
            names.insert(name.clone(), 1000 + index as u32);
            let thing = Thing { kind: Kind::Dir(BTreeMap::new()), names: 1, changed: 0, kept: 0 };
            things.insert(1000 + index as u32, thing);
        }
        things.insert(0, Thing { kind: Kind::Dir(names), names: 1, changed: 0, kept: 0 });
        Model { things, next: 1, step: 0 }
    }

    fn dir(&mut self, id: u32) -> &mut BTreeMap<Vec<u8>, u32> {
        match &mut self.things.get_mut(&id).unwrap().kind {
            Kind::Dir(names) => names,
            other => panic!("{other:?}"),
        }
    }

    /// Everything is on the disk.
    pub fn synced(&mut self) {
        for thing in self.things.values_mut() {
            if let Kind::File(content) = &thing.kind {
                thing.kept = content.len();
            }
        }
    }

    /// The file changes from here on.
    fn keep(&mut self, id: u32, to: usize) {
        let thing = self.things.get_mut(&id).unwrap();
        thing.kept = thing.kept.min(to);
    }

    fn touch(&mut self, id: u32) {
        self.things.get_mut(&id).unwrap().changed = self.step;
    }

    /// A random directory by its path.
    fn random_dir(&self, rng: &mut Rng) -> (Vec<Vec<u8>>, u32) {
        let (mut path, mut id) = (Vec::new(), 0);
        loop {
            let Kind::Dir(names) = &self.things[&id].kind else { unreachable!() };
            let dirs: Vec<_> = names
                .iter()
                .filter(|(name, child)| {
                    matches!(self.things[child].kind, Kind::Dir(_)) && name.as_slice() != b"lost+found"
                })
                .collect();
            if dirs.is_empty() || rng.below(3) == 0 {
                return (path, id);
            }
            let (name, child) = dirs[rng.below(dirs.len() as u64) as usize];
            path.push(name.clone());
            id = *child;
        }
    }

    fn random_name(&self, rng: &mut Rng, dir: u32) -> Option<(Vec<u8>, u32)> {
        let Kind::Dir(names) = &self.things[&dir].kind else { unreachable!() };
        let names: Vec<_> = names.iter().filter(|(name, _)| name.as_slice() != b"lost+found").collect();
        if names.is_empty() {
            return None;
        }
        let (name, id) = names[rng.below(names.len() as u64) as usize];
        Some((name.clone(), *id))
    }

    fn is_below(&self, id: u32, top: u32) -> bool {
        if id == top {
            return true;
        }
        let Kind::Dir(names) = &self.things[&top].kind else { return false };
        names.values().any(|&child| self.is_below(id, child))
    }

    fn drop_name(&mut self, id: u32) {
        let thing = self.things.get_mut(&id).unwrap();
        thing.names -= 1;
        thing.changed = self.step;
        if thing.names == 0 {
            self.things.remove(&id);
        }
    }

    fn add(&mut self, dir: u32, name: &[u8], kind: Kind) -> u32 {
        let id = self.next;
        self.next += 1;
        let changed = self.step;
        self.things.insert(id, Thing { kind, names: 1, changed, kept: 0 });
        self.dir(dir).insert(name.to_vec(), id);
        id
    }

    /// One random operation on both. ENOSPC ends an operation without effect on names; content then is not compared.
    pub async fn random_step(&mut self, root: &Arc<dyn Inode>, rng: &mut Rng, big: u64) -> Result<()> {
        self.step += 1;
        let (path, dir_id) = self.random_dir(rng);
        let dir = walk(root, &path).await;
        let name = random_new_name(rng);
        match rng.below(100) {
            0..20 => self.make_file(&dir, dir_id, &name, rng, big).await,
            20..28 => {
                let result = dir.create(&name, NewNode::Directory, NewAttr { perm: 0o755, ..ATTR }).await;
                if self.agreed_new(dir_id, &name, result.err())? {
                    self.add(dir_id, &name, Kind::Dir(BTreeMap::new()));
                }
                Ok(())
            }
            28..33 => {
                let target = vec![b'x'; 1 + rng.below(120) as usize];
                let result = dir.create(&name, NewNode::Symlink(&target), ATTR).await;
                if self.agreed_new(dir_id, &name, result.err())? {
                    self.add(dir_id, &name, Kind::Link(target));
                }
                Ok(())
            }
            33..60 => self.change_file(&dir, dir_id, rng, big).await,
            60..80 => self.unlink(&dir, dir_id, rng).await,
            80..93 => self.rename(root, (&dir, dir_id), rng).await,
            _ => {
                let Some((old, id)) = self.random_name(rng, dir_id) else { return Ok(()) };
                if matches!(self.things[&id].kind, Kind::Dir(_)) {
                    return Ok(());
                }
                let target = dir.lookup(&old).await.unwrap();
                let result = dir.link(&name, &target).await;
                if self.agreed_new(dir_id, &name, result.err())? {
                    self.dir(dir_id).insert(name, id);
                    self.things.get_mut(&id).unwrap().names += 1;
                    self.touch(id);
                }
                Ok(())
            }
        }
    }

    /// Whether a name that did not exist has been made; EEXIST must have been expected.
    fn agreed_new(&mut self, dir: u32, name: &[u8], error: Option<Errno>) -> Result<bool> {
        let exists = self.dir(dir).contains_key(name);
        match error {
            None => {
                assert!(!exists);
                Ok(true)
            }
            Some(Errno::EEXIST) => {
                assert!(exists);
                Ok(false)
            }
            Some(errno) => Err(errno),
        }
    }

    async fn make_file(
        &mut self,
        dir: &Arc<dyn Inode>,
        dir_id: u32,
        name: &[u8],
        rng: &mut Rng,
        big: u64,
    ) -> Result<()> {
        let result = dir.create(name, NewNode::Regular, ATTR).await;
        if !self.agreed_new(dir_id, name, result.as_ref().err().copied())? {
            return Ok(());
        }
        let id = self.add(dir_id, name, Kind::File(Vec::new()));
        let inode = result?;
        if rng.below(2) == 0 {
            self.write_some(&inode, id, rng, big).await?;
        }
        Ok(())
    }

    async fn write_some(&mut self, inode: &Arc<dyn Inode>, id: u32, rng: &mut Rng, big: u64) -> Result<()> {
        let len = match rng.below(4) {
            0 => 1 + rng.below(100),
            1 => 1 + rng.below(5000),
            2 => 4096,
            _ => 1 + rng.below(big / 4),
        } as usize;
        let pos = match rng.below(8) {
            0 => rng.below(big * 40),
            1 | 2 => inode.metadata().size,
            3 => rng.below(big) & !4095,
            _ => rng.below(big),
        };
        let byte = rng.next() as u8;
        let data: Vec<u8> = (0..len).map(|index| byte.wrapping_add((index / 7) as u8) | 1).collect();
        write(inode, pos, &data).await?;
        let Kind::File(content) = &mut self.things.get_mut(&id).unwrap().kind else { unreachable!() };
        let end = pos as usize + len;
        if content.len() < end {
            content.resize(end, 0);
        }
        content[pos as usize..end].copy_from_slice(&data);
        self.keep(id, pos as usize);
        self.touch(id);
        Ok(())
    }

    async fn change_file(&mut self, dir: &Arc<dyn Inode>, dir_id: u32, rng: &mut Rng, big: u64) -> Result<()> {
        let Some((name, id)) = self.random_name(rng, dir_id) else { return Ok(()) };
        let inode = dir.lookup(&name).await.unwrap();
        let Kind::File(content) = &mut self.things.get_mut(&id).unwrap().kind else { return Ok(()) };
        match rng.below(6) {
            0 => {
                let size = match rng.below(3) {
                    0 => 0,
                    1 => rng.below(content.len() as u64 + 1),
                    _ => rng.below(big * 2),
                };
                content.resize(size as usize, 0);
                self.keep(id, size as usize);
                self.touch(id);
                inode.set_attr(SetAttr { size: Some(size), ..SetAttr::default() }).await
            }
            1 => {
                assert!(read(&inode).await? == *content, "content of {:?}", String::from_utf8_lossy(&name));
                Ok(())
            }
            2 => inode.sync(false).await,
            _ => self.write_some(&inode, id, rng, big).await,
        }
    }

    async fn unlink(&mut self, dir: &Arc<dyn Inode>, dir_id: u32, rng: &mut Rng) -> Result<()> {
        let Some((name, id)) = self.random_name(rng, dir_id) else { return Ok(()) };
        let full = matches!(&self.things[&id].kind, Kind::Dir(names) if !names.is_empty());
        let target = dir.lookup(&name).await.unwrap();
        match dir.unlink(&name, &target).await {
            Err(Errno::ENOTEMPTY) => assert!(full),
            Err(errno) => return Err(errno),
            Ok(()) => {
                assert!(!full);
                self.dir(dir_id).remove(&name);
                self.drop_name(id);
                // An open file stays usable.
                let gone = !self.things.contains_key(&id);
                if gone && rng.below(3) == 0 && target.kind() == FileType::Regular {
                    write(&target, 5000, b"still here").await?;
                    let data = read(&target).await?;
                    assert!(data[5000..].starts_with(b"still here"));
                }
            }
        }
        Ok(())
    }

    async fn rename(&mut self, root: &Arc<dyn Inode>, old: (&Arc<dyn Inode>, u32), rng: &mut Rng) -> Result<()> {
        let Some((old_name, id)) = self.random_name(rng, old.1) else { return Ok(()) };
        let (path, new_id) = self.random_dir(rng);
        if self.is_below(new_id, id) {
            return Ok(());
        }
        let new_dir = walk(root, &path).await;
        let new_name = if rng.below(2) == 0 {
            self.random_name(rng, new_id).map_or_else(|| random_new_name(rng), |(name, _)| name)
        } else {
            random_new_name(rng)
        };
        let replaced_id = self.dir(new_id).get(&new_name).copied();
        let moved = old.0.lookup(&old_name).await.unwrap();
        let mut flags = RenameFlags::empty();
        if let Some(replaced) = replaced_id {
            let dirs = |id| matches!(self.things[&id].kind, Kind::Dir(_));
            if replaced == id {
                return Ok(());
            }
            if rng.below(3) == 0 && !self.is_below(old.1, replaced) {
                flags = RenameFlags::EXCHANGE;
            } else if dirs(replaced) != dirs(id) {
                return Ok(());
            }
        }
        let replaced = match replaced_id {
            Some(_) => Some(new_dir.lookup(&new_name).await.unwrap()),
            None => None,
        };
        let full = replaced_id
            .is_some_and(|replaced| matches!(&self.things[&replaced].kind, Kind::Dir(names) if !names.is_empty()));
        match old.0.rename(&old_name, &moved, &new_dir, &new_name, replaced.as_ref(), flags).await {
            Err(Errno::ENOTEMPTY) => {
                assert!(full);
                return Ok(());
            }
            Err(errno) => return Err(errno),
            Ok(()) => {}
        }
        if flags.contains(RenameFlags::EXCHANGE) {
            let other = replaced_id.unwrap();
            self.dir(new_id).insert(new_name, id);
            self.dir(old.1).insert(old_name, other);
            self.touch(other);
        } else {
            assert!(!full);
            self.dir(old.1).remove(&old_name);
            self.dir(new_id).insert(new_name, id);
            if let Some(replaced) = replaced_id {
                self.drop_name(replaced);
            }
        }
        self.touch(id);
        Ok(())
    }

    /// Compares a directory and all below it.
    pub fn verify<'a>(&'a self, dir: &'a Arc<dyn Inode>, id: u32) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Kind::Dir(names) = &self.things[&id].kind else { unreachable!() };
            let found = list(dir).await;
            let found: BTreeMap<Vec<u8>, FileType> = found.into_iter().map(|(name, kind, _)| (name, kind)).collect();
            let mut expected: Vec<&[u8]> = names.keys().map(Vec::as_slice).collect();
            expected.extend([&b"."[..], b".."]);
            expected.sort_unstable();
            assert_eq!(found.keys().map(Vec::as_slice).collect::<Vec<_>>(), expected);
            let subdirs = names.values().filter(|id| matches!(self.things[id].kind, Kind::Dir(_))).count();
            assert_eq!(dir.metadata().nlink as usize, 2 + subdirs);
            for (name, id) in names {
                let inode = dir.lookup(name).await.unwrap();
                let (thing, meta) = (&self.things[id], inode.metadata());
                assert_eq!(found[name], meta.kind);
                match &thing.kind {
                    Kind::Dir(_) => self.verify(&inode, *id).await,
                    Kind::File(content) => {
                        assert_eq!(meta.size as usize, content.len());
                        assert_eq!((meta.nlink, meta.uid, meta.gid, meta.perm), (thing.names, 1000, 70_000, 0o644));
                        let data = read(&inode).await.unwrap();
                        if let Some(at) = data.iter().zip(content).position(|(a, b)| a != b) {
                            panic!("{} differs at {at} of {}", String::from_utf8_lossy(name), content.len());
                        }
                    }
                    Kind::Link(target) => assert_eq!(inode.read_link().await.unwrap(), *target),
                }
            }
        })
    }
}

fn random_new_name(rng: &mut Rng) -> Vec<u8> {
    let len = if rng.below(4) == 0 { 1 + rng.below(200) } else { 1 + rng.below(12) };
    let mut name = format!("{:x}", rng.below(400)).into_bytes();
    name.resize(name.len().max(len as usize), b'n');
    name
}

pub async fn walk(root: &Arc<dyn Inode>, path: &[Vec<u8>]) -> Arc<dyn Inode> {
    let mut at = root.clone();
    for name in path {
        at = at.lookup(name).await.unwrap();
    }
    at
}
