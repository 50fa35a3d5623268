//! What a name stands for: a look into one layer after the other, from above.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::OverlayFs;
use super::inode::{Lower, Number, OverlayInode, Parts, Place};
use super::listing::{Entry, Found, Merge, Seen};
use crate::errno::{Errno, Result};
use crate::exec::budget;
use crate::fs::dentry::{self, Cached, Dentry, Name};
use crate::fs::inode::{DeviceId, DirSink, FileType, Inode};
use crate::fs::inode_flags::InodeFlags;
use crate::fs::perm::{self, Want};
use crate::fs::walk;

/// Stands for "nothing here, and do not look below".
pub fn is_whiteout(found: &Dentry) -> bool {
    found.kind() == FileType::CharDevice && found.inode().metadata().rdev == DeviceId::default()
}

impl OverlayFs {
    pub fn next_number(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// A name in a directory of a layer, for the mounter. Nothing: None.
    pub async fn child(&self, dir: &Arc<Dentry>, name: &[u8]) -> Result<Option<Arc<Dentry>>> {
        perm::check_search(&self.mounter, &**dir.inode())?;
        let found = match dentry::cached(dir, name) {
            Cached::Found(found) => Ok(found),
            Cached::Nothing => return Ok(None),
            Cached::Unknown => walk::lookup_child(dir, name).await,
        };
        match found {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Has a lower layer something of this name, which the upper one must hide?
    pub async fn is_below(&self, dir: &OverlayInode, name: &[u8]) -> Result<bool> {
        for lower in &dir.lower {
            match self.child(&lower.dentry, name).await {
                Ok(Some(found)) => return Ok(!is_whiteout(&found)),
                Ok(None) | Err(Errno::ENAMETOOLONG) => {}
                // Perhaps.
                Err(_) => return Ok(true),
            }
        }
        Ok(false)
    }

    /// A layer cannot be seen within another: what is below it would be there twice.
    fn check_trap(&self, found: &Dentry) -> Result<()> {
        let roots = self.layers().map(|layer| &layer.root);
        let mut traps = roots.chain(self.upper.iter().map(|upper| upper.work.dir()));
        if traps.any(|trap| Arc::ptr_eq(trap.inode(), found.inode())) { Err(Errno::ELOOP) } else { Ok(()) }
    }

    /// Looks into the layers.
    async fn parts(&self, dir: &OverlayInode, name: &[u8]) -> Result<Parts> {
        let bound = InodeFlags::empty();
        let mut parts = Parts { upper: None, lower: Vec::new(), number: None, place: None, impure: false, bound };
        let layers = dir.lower.iter().map(|lower| (&lower.dentry, Some(lower.group)));
        for (layer, group) in dir.upper().map(|upper| (upper, None)).into_iter().chain(layers) {
            let Some(found) = self.child(layer, name).await? else { continue };
            let below_directory = parts.upper.is_some() || !parts.lower.is_empty();
            if is_whiteout(&found) || below_directory && !found.is_dir() {
                break;
            }
            self.check_whole(&found).await?;
            let goes_on = found.is_dir() && {
                self.check_trap(&found)?;
                !self.is_opaque(&found).await?
            };
            match group {
                None => parts.upper = Some(found),
                Some(group) => parts.lower.push(Lower { dentry: found, group }),
            }
            if !goes_on {
                break;
            }
        }
        Ok(parts)
    }

    /// What the name stands for; ENOENT.
    pub async fn find(&self, dir: &Arc<OverlayInode>, name: &[u8]) -> Result<Arc<OverlayInode>> {
        let mut parts = self.parts(dir, name).await?;
        let lower = parts.lower.first();
        // Copies of a file with several names in a lower layer become different files, so they are different already.
        let alone = |lower: &Lower| lower.dentry.is_dir() || self.upper.is_none() || links(&lower.dentry) == 1;
        let key = match (&parts.upper, lower) {
            (Some(upper), _) => Some(upper.inode().clone()),
            (None, Some(lower)) if alone(lower) => Some(lower.dentry.inode().clone()),
            (None, Some(_)) => None,
            (None, None) => return Err(Errno::ENOENT),
        };
        if let Some(known) = key.as_ref().and_then(|key| self.table.get(key)) {
            return Ok(known);
        }
        parts.number = match (&parts.upper, lower) {
            (Some(upper), None) => self.origin(upper).await?,
            (_, Some(lower)) if alone(lower) => {
                Some(Number { ino: lower.dentry.inode().metadata().ino, group: lower.group })
            }
            _ => None,
        };
        if let Some(upper) = parts.upper.as_ref().filter(|upper| upper.is_dir()) {
            parts.impure = self.is_impure(upper).await?;
        }
        if let Some(upper) = &parts.upper {
            parts.bound = self.bound(upper).await?;
        }
        let is_dir = parts.upper.as_ref().or(lower.map(|lower| &lower.dentry)).is_some_and(|found| found.is_dir());
        if is_dir || parts.upper.is_none() {
            parts.place = Some(Place { parent: dir.clone(), name: Name::from_slice(name) });
        }
        let new = OverlayInode::new(self, parts).ok_or(Errno::ENOENT)?;
        Ok(match key {
            Some(key) => self.table.insert(&key, new),
            None => new,
        })
    }

    /// What was just made in the upper layer.
    pub fn made(&self, dir: &Arc<OverlayInode>, name: &[u8], upper: Arc<Dentry>) -> Result<Arc<OverlayInode>> {
        let place = upper.is_dir().then(|| Place { parent: dir.clone(), name: Name::from_slice(name) });
        let key = upper.inode().clone();
        let bound = InodeFlags::empty();
        let parts = Parts { upper: Some(upper), lower: Vec::new(), number: None, place, impure: false, bound };
        let new = OverlayInode::new(self, parts).ok_or(Errno::ESTALE)?;
        Ok(self.table.insert(&key, new))
    }

    /// Reads a directory in all layers.
    pub async fn merge(&self, dir: &OverlayInode) -> Result<Seen> {
        let mut merge = Merge::default();
        for layer in dir.upper().into_iter().chain(dir.lower.iter().map(|lower| &lower.dentry)) {
            perm::check(&self.mounter, &**layer.inode(), Want::READ)?;
            let is_upper = dir.upper().is_some_and(|upper| Arc::ptr_eq(upper, layer));
            merge.layer();
            let mut reading = Reading::of(layer.inode());
            loop {
                let mut found = reading.more().await?;
                if found.is_empty() {
                    break;
                }
                for found in &mut found {
                    found.renumbered = is_upper && dir.is_impure();
                    if found.entry.kind == FileType::CharDevice {
                        let device = self.child(layer, &found.entry.name).await?;
                        found.whiteout = device.is_some_and(|device| is_whiteout(&device));
                    }
                    budget().await;
                }
                merge.add(found);
            }
        }
        Ok(merge.finish().await)
    }

    /// The same with numbers that agree with stat(2), where those of the layers do.
    pub async fn entries(&self, dir: &Arc<OverlayInode>) -> Result<Seen> {
        let mut seen = self.merge(dir).await?;
        for ((_, name), shown) in &mut seen {
            if shown.ask
                && self.one_file_system
                && let Ok(inode) = self.find(dir, name).await
            {
                shown.ino = inode.shown().ino;
            }
            budget().await;
        }
        Ok(seen)
    }
}

fn links(found: &Dentry) -> u32 {
    found.inode().metadata().nlink
}

/// A number of entries that are read in one go.
const ROOM: usize = 256;

struct Collected {
    found: Vec<Found>,
    left: usize,
    next: u64,
}

impl DirSink for Collected {
    fn entry(&mut self, ino: u64, next: u64, kind: FileType, name: &[u8]) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        self.next = next;
        if name != b"." && name != b".." {
            let entry = Entry { ino, kind, name: Name::from_slice(name) };
            self.found.push(Found { entry, whiteout: false, renumbered: false });
        }
        true
    }
}

/// Reads a directory of a layer piece by piece.
pub struct Reading<'a> {
    dir: &'a Arc<dyn Inode>,
    next: u64,
}

impl<'a> Reading<'a> {
    pub fn of(dir: &'a Arc<dyn Inode>) -> Self {
        Reading { dir, next: 0 }
    }

    /// The next entries; none at the end.
    pub async fn more(&mut self) -> Result<Vec<Found>> {
        loop {
            let mut piece = Collected { found: Vec::new(), left: ROOM, next: self.next };
            self.dir.read_dir(self.next, &mut piece).await?;
            let at_end = piece.next == self.next || piece.left == ROOM;
            self.next = piece.next;
            if at_end || !piece.found.is_empty() {
                return Ok(piece.found);
            }
        }
    }
}

/// All entries of a directory of a layer.
pub async fn read_all(dir: &Arc<dyn Inode>) -> Result<Vec<Found>> {
    let mut all = Vec::new();
    let mut reading = Reading::of(dir);
    loop {
        let piece = reading.more().await?;
        if piece.is_empty() {
            return Ok(all);
        }
        all.try_reserve(piece.len()).map_err(|_| Errno::ENOMEM)?;
        all.extend(piece);
        budget().await;
    }
}
