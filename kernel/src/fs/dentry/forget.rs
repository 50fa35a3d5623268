//! Forgetting the names of a file system that is unmounted.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::{Bucket, CACHE, COUNT, Dentry, Entry, Target, bucket, hash, position};
use crate::fs::inode::{FileSystem, Inode};
use crate::sync::SpinLock;

impl Entry {
    /// The directory it is in, if it holds that.
    fn directory(&self) -> Option<Arc<Dentry>> {
        if let Target::Dentry(dentry) = &self.target { dentry.parent() } else { None }
    }
}

/// Takes every unused entry of one file system out of the cache, leaves first (umount); with them those of file systems
/// that were in use when they were unmounted, and are not any more.
pub async fn forget_fs(fs: &Arc<dyn FileSystem>) {
    let gone: Arc<dyn FileSystem> = crate::fs::tmpfs::gone();
    let is_over = |inode: &Arc<dyn Inode>| {
        let of = inode.fs();
        Arc::ptr_eq(&of, fs) || Arc::ptr_eq(&of, &gone)
    };
    for bucket in &CACHE {
        for entry in take_over(bucket, is_over) {
            let mut next = entry.directory();
            drop(entry);
            // A directory was perhaps only waiting for this.
            while let Some(dir) = next {
                next = dir.parent();
                if !is_over(&dir.inode) || !take_unused(&dir) {
                    break;
                }
                crate::exec::budget().await;
            }
        }
        crate::exec::budget().await;
    }
}

/// Takes out of a bucket what leads to inodes that are over and have no user.
fn take_over(bucket: &SpinLock<Bucket>, is_over: impl Fn(&Arc<dyn Inode>) -> bool) -> Vec<Entry> {
    let mut victims: Vec<Entry> = Vec::new();
    // Somebody else may let go of a directory while it is looked at, so it goes outside of the lock.
    let mut looked_at: SmallVec<[Arc<Dentry>; 8]> = SmallVec::new();
    let mut entries = bucket.lock();
    let mut i = 0;
    while let Some(entry) = entries.get(i) {
        let goes = match &entry.target {
            Target::Dentry(d) => Arc::strong_count(d) == 1 && is_over(&d.inode),
            Target::Nothing(parent) => parent.upgrade().is_none_or(|parent| {
                let goes = is_over(&parent.inode);
                looked_at.push(parent);
                goes
            }),
            Target::Shared(dentry) => dentry.strong_count() == 0,
        };
        if goes {
            victims.push(entries.swap_remove(i));
        } else {
            i += 1;
        }
    }
    drop(entries);
    COUNT.fetch_sub(victims.len(), Ordering::Relaxed);
    victims
}

/// Takes a dentry that only the caller and the cache hold out of the cache; answers whether that was so.
fn take_unused(dentry: &Arc<Dentry>) -> bool {
    let (Some(parent), name) = dentry.parent_and_name() else { return false };
    let hash = hash(Arc::as_ptr(&parent), &name);
    let mut entries = bucket(hash).lock();
    let Some(at) = position(&entries, hash, Arc::as_ptr(&parent), &name) else { return false };
    let is_unused = |entry: &Entry| match &entry.target {
        Target::Dentry(found) => Arc::ptr_eq(found, dentry) && Arc::strong_count(dentry) == 2,
        _ => false,
    };
    if !entries.get(at).is_some_and(is_unused) {
        return false;
    }
    let entry = entries.swap_remove(at);
    drop(entries);
    drop(entry);
    COUNT.fetch_sub(1, Ordering::Relaxed);
    true
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use super::*;

    #[test]
    fn a_deep_chain_of_names_is_forgotten() {
        let fs: Arc<dyn FileSystem> = crate::fs::tmpfs::TmpFs::new("tmpfs", b"none", Default::default());
        let root = Dentry::new_root(fs.root());
        let mut dir = root.clone();
        for _ in 0..5000 {
            insert_nothing(&dir, b"file");
            dir = insert(&dir, b"dir", fs.root());
        }
        let used = dir.parent().unwrap();
        let forget = |fs: &Arc<dyn FileSystem>| {
            let fs = fs.clone();
            crate::mm::test_util::run(async move { forget_fs(&fs).await });
        };
        let depth = || {
            let (mut at, mut depth) = (root.clone(), 0);
            while let Cached::Found(next) = cached(&at, b"dir") {
                (at, depth) = (next, depth + 1);
            }
            depth
        };
        forget(&fs);
        assert_eq!(depth(), 5000);
        drop(dir);
        let weak = Arc::downgrade(&used);
        drop(used);
        forget(&fs);
        assert_eq!((depth(), weak.strong_count()), (0, 0));
    }
}
