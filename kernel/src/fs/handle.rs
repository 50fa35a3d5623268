//! Handles: names for inodes that stay when files are renamed (name_to_handle_at(2), open_by_handle_at(2)).

use alloc::sync::Arc;
use alloc::vec::Vec;

use arrayvec::ArrayVec;

use super::dentry::{self, Dentry, Name};
use super::inode::{DirSink, FileType, Inode};
use super::mount::Mount;
use super::path::{PATH_MAX, Path};
use super::walk;
use crate::errno::{Errno, Result};

/// What a file system tells an inode by: a type of its own, and words that mean something to it alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handle {
    pub kind: i32,
    pub words: ArrayVec<u32, WORDS_MAX>,
}

/// MAX_HANDLE_SZ, in words.
pub const WORDS_MAX: usize = 32;
/// FILEID_INO32_GEN (include/linux/exportfs.h): the number of the inode and its generation; the first one that Linux's tmpfs
/// uses for its own, too.
pub const INO_GENERATION: i32 = 1;
/// The same, with the directory behind it.
pub const INO_GENERATION_PARENT: i32 = 2;

/// What a handle stands for, as seen through a mount. ESTALE if it is not there any more.
pub async fn find(mount: &Arc<Mount>, handle: &Handle) -> Result<Path> {
    let inode = mount.fs().inode_of(handle).await.map_err(|errno| match errno {
        Errno::ENOMEM | Errno::EINTR => errno,
        _ => Errno::ESTALE,
    })?;
    let top = top_of(mount.root());
    let dentry = if Arc::ptr_eq(&inode, top.inode()) {
        top
    } else if inode.kind() == FileType::Directory {
        directory(&top, &inode).await?
    } else {
        // Without a name that is known it stands for itself.
        let known = dentry::known_name(&inode, &top).await;
        known.unwrap_or_else(|| Dentry::new_root(inode))
    };
    Ok(Path { mount: mount.clone(), dentry })
}

/// The root of the tree of names that a dentry is in.
fn top_of(dentry: &Arc<Dentry>) -> Arc<Dentry> {
    let mut top = dentry.clone();
    while let Some(parent) = top.parent() {
        top = parent;
    }
    top
}

/// The dentry of a directory: its name is looked for in the directory above, that one's in the next, and then all are walked
/// down.
async fn directory(top: &Arc<Dentry>, inode: &Arc<dyn Inode>) -> Result<Arc<Dentry>> {
    let mut names: Vec<Name> = Vec::new();
    let mut at = inode.clone();
    while !Arc::ptr_eq(&at, top.inode()) {
        if names.len() >= PATH_MAX / 2 {
            return Err(Errno::ESTALE);
        }
        let parent = at.parent().await?;
        names.push(name_of(&*parent, at.metadata().ino).await?);
        at = parent;
    }
    let mut dentry = top.clone();
    for name in names.iter().rev() {
        dentry = walk::lookup_child(&dentry, name).await?;
    }
    // Somebody may have moved one of them meanwhile.
    if Arc::ptr_eq(dentry.inode(), inode) { Ok(dentry) } else { Err(Errno::ESTALE) }
}

/// Entries that are looked at between two looks at the clock.
const SOME: usize = 64;

/// Looks for an entry of a directory.
struct Search<F> {
    is_wanted: F,
    found: Option<(u64, Name)>,
    next: u64,
    seen: usize,
}

impl<F: FnMut(u64, &[u8]) -> bool + Send> DirSink for Search<F> {
    fn entry(&mut self, ino: u64, next: u64, _kind: FileType, name: &[u8]) -> bool {
        if (self.is_wanted)(ino, name) {
            self.found = Some((ino, Name::from_slice(name)));
            return false;
        }
        self.next = next;
        self.seen += 1;
        self.seen < SOME
    }
}

async fn search(directory: &dyn Inode, is_wanted: impl FnMut(u64, &[u8]) -> bool + Send) -> Result<(u64, Name)> {
    let mut search = Search { is_wanted, found: None, next: 0, seen: 0 };
    loop {
        directory.read_dir(search.next, &mut search).await?;
        if let Some(found) = search.found {
            return Ok(found);
        }
        if search.seen < SOME {
            return Err(Errno::ESTALE);
        }
        search.seen = 0;
        crate::exec::budget().await;
    }
}

async fn name_of(directory: &dyn Inode, ino: u64) -> Result<Name> {
    let (_, name) = search(directory, |other, name| other == ino && name != b"." && name != b"..").await?;
    Ok(name)
}

/// The number of the directory above, as the directory itself says it.
pub async fn number_of_parent(directory: &dyn Inode) -> Result<u64> {
    let (ino, _) = search(directory, |_, name| name == b"..").await?;
    Ok(ino)
}
