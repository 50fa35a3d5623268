//! A place in the tree of all mounts, and its text.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::dentry::Dentry;
use super::inode::Inode;
use super::mount::{self, Mount};
use crate::errno::Result;

/// Longest path of a system call, with its NUL.
pub const PATH_MAX: usize = 4096;

/// A dentry as seen through a mount.
#[derive(Clone)]
pub struct Path {
    pub mount: Arc<Mount>,
    pub dentry: Arc<Dentry>,
}

impl PartialEq for Path {
    fn eq(&self, other: &Path) -> bool {
        Arc::ptr_eq(&self.dentry, &other.dentry) && Arc::ptr_eq(&self.mount, &other.mount)
    }
}

impl Path {
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.dentry.inode()
    }

    /// What is seen at `child`, an entry of this directory: the root of what is mounted on it.
    pub(super) fn entered(self, child: Arc<Dentry>) -> Path {
        let mut place = Path { dentry: child, ..self };
        if place.dentry.is_mount_point() {
            mount::descend(&mut place);
        }
        place
    }

    /// Brings the attributes up to date, where others change them, too.
    pub async fn refresh(&self) -> Result<()> {
        if self.dentry.is_shared() { self.inode().refresh().await } else { Ok(()) }
    }

    /// The text that d_path gives, cut at its front if it is longer than [`PATH_MAX`]: absolute from `root` (or from the root of the namespace); what is not below it
    /// starts at its own top, and what its mount does not show is "/". Nameless objects answer their label ("pipe:\[7\]"); removed names end in " (deleted)".
    pub fn display(&self, root: Option<&Path>) -> Vec<u8> {
        if self.mount.is_internal() {
            return self.dentry.name().to_vec();
        }
        let (mut text, _) = self.build(root);
        if self.dentry.is_dead() {
            text.extend_from_slice(b" (deleted)");
        }
        text
    }

    /// The text, only if this is `root` or below it.
    pub fn display_below(&self, root: &Path) -> Option<Vec<u8>> {
        let (text, reached) = self.build(Some(root));
        reached.then_some(text)
    }

    fn build(&self, root: Option<&Path>) -> (Vec<u8>, bool) {
        let mut backwards: Vec<u8> = Vec::new();
        let mut at = self.clone();
        let reached = loop {
            if root.is_some_and(|root| at == *root) {
                break true;
            }
            if Arc::ptr_eq(&at.dentry, at.mount.root()) {
                match at.mount.place() {
                    Some(place) => {
                        at = place;
                        continue;
                    }
                    None => break root.is_none(),
                }
            }
            let (parent, name) = at.dentry.parent_and_name();
            backwards.extend(name.iter().rev());
            backwards.push(b'/');
            if backwards.len() > PATH_MAX {
                break false;
            }
            match parent {
                Some(parent) => at.dentry = parent,
                // It is not below what the mount shows.
                None => {
                    backwards.clear();
                    break false;
                }
            }
        };
        if backwards.is_empty() {
            backwards.push(b'/');
        }
        backwards.reverse();
        (backwards, reached)
    }

    /// Is this `other` or below it, through mounts?
    pub fn is_below(&self, other: &Path) -> bool {
        let mut at = self.clone();
        loop {
            if Arc::ptr_eq(&at.mount, &other.mount) {
                return other.dentry.is_ancestor_of(&at.dentry);
            }
            match at.mount.place() {
                Some(place) => at = place,
                None => return false,
            }
        }
    }

    /// One step up; stays at `root` and at the root of the namespace.
    pub(super) fn up(&mut self, root: &Path) {
        if *self == *root {
            return;
        }
        let mut at = self.clone();
        if !mount::ascend(&mut at) {
            return;
        }
        // Climbing through mount points may pass the root directory itself.
        if let Some(parent) = at.dentry.parent() {
            at.dentry = parent;
        }
        mount::descend(&mut at);
        *self = at;
    }
}

/// The path of a dentry in its file system, "//deleted" behind it if it has been removed (proc_pid_mountinfo(5)).
pub fn inside(dentry: &Arc<Dentry>) -> Vec<u8> {
    let mut backwards = Vec::new();
    let mut at = dentry.clone();
    while backwards.len() <= PATH_MAX {
        let (Some(parent), name) = at.parent_and_name() else { break };
        backwards.extend(name.iter().rev());
        backwards.push(b'/');
        at = parent;
    }
    if backwards.is_empty() {
        backwards.push(b'/');
    }
    backwards.reverse();
    if dentry.is_dead() {
        backwards.extend_from_slice(b"//deleted");
    }
    backwards
}
