//! What becomes of a volume when its mounts go.

use alloc::boxed::Box;
use core::future::{Future, poll_fn};
use core::task::Poll;

use super::*;
use crate::fs::MountFlags;
use crate::fs::configure::reconfigure;
use crate::fs::mount::{self, Instance};

#[test]
fn a_volume_is_written_back_when_its_last_mount_goes() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024"], 4 * MIB), 1);
    let inner = disk.clone();
    run(async move {
        let instance = Instance::of(super::mount(&inner).await);
        let mounts = [(); 2].map(|()| mount::detached(instance.clone(), MountFlags::empty()));
        drop(instance);
        let file = mounts[0].root().inode().create(b"file", NewNode::Regular, ATTR).await.unwrap();
        write(&file, 0, &[7; 5000]).await.unwrap();
        drop(file);
        let [first, second] = mounts;
        drop(first);
        for _ in 0..1000 {
            exec::yield_now().await;
        }
        assert!(!second.fs().read_only());
        drop(second);
    });
    check_clean(&disk.image(), "after the last mount");
    let inner = disk.clone();
    run(async move {
        let fs = super::mount(&inner).await;
        let file = root_of(&fs).lookup(b"file").await.unwrap();
        assert_eq!(read(&file).await.unwrap(), [7; 5000]);
    });
}

/// Fills the disk with directories and a file, which it answers.
async fn fill(root: &Arc<dyn Inode>) -> Arc<dyn Inode> {
    let file = root.create(b"file", NewNode::Regular, ATTR).await.unwrap();
    let mut end = 0;
    while write(&file, end, &[1; 8192]).await.is_ok() {
        end += 8192;
    }
    file.sync(false).await.unwrap();
    let mut count = 0;
    let full = loop {
        match root.create(format!("{count}").as_bytes(), NewNode::Directory, ATTR).await {
            Ok(_) => count += 1,
            Err(errno) => break errno,
        }
    };
    assert_eq!(full, Errno::ENOSPC);
    file
}

/// On a full disk, what was unlinked just now makes room for a directory.
#[test]
fn a_new_directory_waits_for_what_was_unlinked() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024"], 4 * MIB), 6);
    run(async move {
        let fs = mount(&disk).await;
        let root = root_of(&fs);
        let file = fill(&root).await;
        root.unlink(b"file", &file).await.unwrap();
        drop(file);
        assert!(fs.volume.is_deleting());
        root.create(b"more", NewNode::Directory, ATTR).await.map(drop).unwrap();
    });
}

/// So does a block of attributes.
#[test]
fn attributes_wait_for_what_was_unlinked() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024"], 4 * MIB), 6);
    run(async move {
        let fs = mount(&disk).await;
        let root = root_of(&fs);
        let other = root.create(b"other", NewNode::Regular, ATTR).await.unwrap();
        let file = fill(&root).await;
        assert_eq!(other.set_xattr(b"user.name", &[1; 500], 0).await, Err(Errno::ENOSPC));
        root.unlink(b"file", &file).await.unwrap();
        drop(file);
        assert!(fs.volume.is_deleting());
        assert_eq!(other.set_xattr(b"user.name", &[1; 500], 0).await, Ok(()));
    });
}

/// What was reserved for a write that has ended early is there for others.
#[test]
fn a_write_that_ends_early_gives_back_what_it_has_reserved() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024"], 4 * MIB), 6);
    run(async move {
        let fs = mount(&disk).await;
        let file = root_of(&fs).create(b"file", NewNode::Regular, ATTR).await.unwrap();
        write(&file, 8192, &[1; 4096]).await.unwrap();
        let before = fs.statfs().free;
        file.prepare_write(0, 1 << 20).await.unwrap();
        assert!(fs.statfs().free < before - 1000);
        file.give_up_write(0..1 << 20);
        assert_eq!(fs.statfs().free, before);
        file.prepare_write(0, 1 << 20).await.unwrap();
        file.give_up_write(1..1 << 20);
        assert_eq!(fs.statfs().free, before - 4);
    });
}

/// Also behind the end of the file, from within a block.
#[test]
fn a_write_behind_the_end_gives_back_its_first_block() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024"], 4 * MIB), 12);
    run(async move {
        let fs = mount(&disk).await;
        let file = root_of(&fs).create(b"file", NewNode::Regular, ATTR).await.unwrap();
        write(&file, 0, &[1; 100]).await.unwrap();
        let before = fs.statfs().free;
        for at in [100, 1024, 4196, 5000, 10_000] {
            file.prepare_write(at, 4096).await.unwrap();
            file.give_up_write(at..at + 4096);
            assert_eq!(fs.statfs().free, before, "at {at}");
        }
    });
}

/// Or the disk would count as mounted for ever.
#[test]
fn a_mount_that_fails_keeps_nothing_of_the_disk() {
    let image = debugfs(&mke2fs(&["-b", "1024"], 4 * MIB), &["sif <2> mode 0100644"]);
    let disk = TestDisk::new(image, 13);
    run(async move {
        let before = Arc::strong_count(&disk);
        for read_only in [true, false] {
            assert_eq!(try_mount(&disk, read_only).await.err(), Some(Errno::EINVAL));
            exec::yield_now().await;
            assert_eq!(Arc::strong_count(&disk), before);
        }
    });
}

/// A file without a name is freed by its last user, for which the volume must be writable.
#[test]
fn a_volume_with_a_removed_file_in_use_stays_writable() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024"], 4 * MIB), 4);
    run(async move {
        let instance = Instance::of(mount(&disk).await);
        let root = instance.fs().root();
        let file = root.create(b"file", NewNode::Regular, ATTR).await.unwrap();
        write(&file, 0, &[1; 100_000]).await.unwrap();
        root.unlink(b"file", &file).await.unwrap();
        let to_read_only = || reconfigure(&instance, Some(true), b"", async || ());
        assert_eq!(to_read_only().await, Err(Errno::EBUSY));
        drop(file);
        assert_eq!(to_read_only().await, Ok(()));
        check_clean(&disk.image(), "after the removal");
    });
}

/// Who is killed while it writes, or tries it another way, leaves neither space nor bytes behind.
#[test]
fn a_write_that_is_given_up_leaves_nothing() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024"], 8 * MIB), 14);
    run(async move {
        let fs = mount(&disk).await;
        let root = root_of(&fs);
        let file = root.create(b"file", NewNode::Regular, ATTR).await.unwrap();
        write(&file, 0, &[1; 5000]).await.unwrap();
        file.sync(false).await.unwrap();
        let cache = file.page_cache().unwrap().clone();
        let (free, sectors) = (fs.statfs().free, file.metadata().blocks);
        for polls in 1..40 {
            // Its first page has to be read.
            cache.invalidate(0..u64::MAX);
            let data = vec![2; 300_000];
            let mut buf = IoBuf::kernel(&data);
            let mut writing = Box::pin(crate::fs::regular::write_kernel(&file, &cache, 4500, &mut buf));
            let mut done = false;
            for _ in 0..polls {
                done |= poll_fn(|cx| Poll::Ready(writing.as_mut().poll(cx).is_ready())).await;
                if done {
                    break;
                }
                exec::yield_now().await;
            }
            drop(writing);
            if done {
                assert!(polls > 2);
                return;
            }
            // What was begun is put right by a task.
            for _ in 0..20 {
                exec::yield_now().await;
            }
            drop(file.state().lock.lock().await);
            assert_eq!((fs.statfs().free, file.metadata().blocks), (free, sectors), "polls {polls}");
            assert_eq!(file.metadata().size, 5000);
            file.set_attr(SetAttr { size: Some(400_000), ..SetAttr::default() }).await.unwrap();
            let content = read(&file).await.unwrap();
            assert!(content[5000..].iter().all(|byte| *byte == 0), "polls {polls}");
            file.set_attr(SetAttr { size: Some(5000), ..SetAttr::default() }).await.unwrap();
        }
        panic!("it never ended");
    });
}
