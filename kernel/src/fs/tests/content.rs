//! Content of files in memory, and its limits.

use super::*;
use crate::exec;
use crate::fs::memfd;
use crate::fs::state::Seals;

#[test]
fn content_of_tmpfs_files() {
    block_on(async {
        let w = World::new();
        let file = w.open("/f", raw::O_CREAT | raw::O_RDWR).await.unwrap();
        let cache = file.inode().page_cache().unwrap().clone();
        let data: Vec<u8> = (0..10_000u32).map(|i| (i % 251) as u8).collect();
        let n = cache.write(5000, 0, &mut IoBuf::kernel(&data)).await.unwrap();
        assert_eq!(n, data.len());
        file.inode().set_attr(SetAttr { size: Some(15_000), ..Default::default() }).await.unwrap();
        let mut back = vec![1; 20_000];
        let n = regular::read(&file, &cache, 0, &mut IoBuf::kernel_mut(&mut back)).await.unwrap();
        assert_eq!(n, 15_000);
        assert!(back[..5000].iter().all(|byte| *byte == 0));
        assert_eq!(back[5000..15_000], data[..]);
        regular::truncate(None, file.path(), 6000).await.unwrap();
        regular::truncate(None, file.path(), 9000).await.unwrap();
        let n = regular::read(&file, &cache, 0, &mut IoBuf::kernel_mut(&mut back)).await.unwrap();
        assert_eq!(n, 9000);
        assert_eq!(back[5000..6000], data[..1000]);
        assert!(back[6000..9000].iter().all(|byte| *byte == 0));
    });
}

#[test]
fn a_full_tmpfs_says_so_and_recovers() {
    block_on(async {
        let w = World::new();
        let file = w.open("/f", raw::O_CREAT | raw::O_RDWR).await.unwrap();
        let inode = file.inode().clone();
        assert_eq!(inode.prepare_write(0, 1 << 24).await, Ok(()));
        let bytes = vec![1; 1 << 24];
        assert_eq!(inode.page_cache().unwrap().write(0, 0, &mut IoBuf::kernel(&bytes)).await, Ok(1 << 24));
        assert_eq!(inode.prepare_write(1 << 24, 1).await, Err(Errno::ENOSPC));
        // Nobody looks for each of so many pages.
        assert_eq!(inode.allocate(0, 0, 1 << 62).await, Err(Errno::ENOSPC));
        assert_eq!(inode.allocate(0, 0, 1 << 24).await, Ok(()));
        drop((file, inode));
        w.unlink("/f").await.unwrap();
        let file = w.open("/g", raw::O_CREAT | raw::O_RDWR).await.unwrap();
        assert_eq!(file.inode().prepare_write(0, 4096).await, Ok(()));
    });
}

#[test]
fn a_tree_deeper_than_the_stack_goes_with_its_instance() {
    let fs = tmpfs::TmpFs::new("tmpfs", b"test", tmpfs::Options { inodes: Some(0), ..Default::default() });
    let attr = NewAttr { perm: 0o755, uid: 0, gid: 0 };
    block_on(async move {
        let mut dir = fs.root_inode().unwrap().clone();
        let mut all = vec![Arc::downgrade(&dir)];
        for _ in 0..50_000 {
            for name in [&b"file"[..], b"or this"] {
                all.push(Arc::downgrade(&dir.make_child(name, NewNode::Regular, attr).unwrap()));
            }
            dir = dir.make_child(b"deeper", NewNode::Directory, attr).unwrap();
            all.push(Arc::downgrade(&dir));
        }
        drop(dir);
        drop(fs);
        assert!(all.iter().any(|inode| inode.strong_count() > 0));
        while all.iter().any(|inode| inode.strong_count() > 0) {
            exec::yield_now().await;
        }
    });
}

/// Whoever closes the last descriptor is not kept long; the memory comes back all the same.
#[test]
fn a_large_file_that_goes_is_freed_by_and_by() {
    block_on(async {
        let w = World::new();
        let file = w.open("/f", raw::O_CREAT | raw::O_RDWR).await.unwrap();
        let cache = file.inode().page_cache().unwrap().clone();
        let bytes = vec![1; 8 << 20];
        assert_eq!(cache.write(0, 0, &mut IoBuf::kernel(&bytes)).await, Ok(bytes.len()));
        w.unlink("/f").await.unwrap();
        let last = cache.lookup(2047).unwrap();
        drop((file, cache));
        assert_eq!(last.frame().page().refs(), 2);
        while last.frame().page().refs() > 1 {
            exec::yield_now().await;
        }
    });
}

#[test]
fn a_tmpfs_is_charged_once_for_a_page_and_not_for_holes() {
    let world = World::new();
    block_on(async move {
        let file = world.open("/file", raw::O_RDWR | raw::O_CREAT).await.unwrap();
        let inode = file.inode();
        let used = || {
            let st = inode.fs().statfs();
            st.blocks - st.free
        };
        // Writes that came to nothing, as after a fault.
        for _ in 0..10 {
            inode.prepare_write(0, 8192).await.unwrap();
        }
        assert_eq!(used(), 2);
        inode.set_attr(SetAttr { size: Some(1 << 20), ..SetAttr::default() }).await.unwrap();
        let mut bytes = vec![1; 1 << 20];
        let cache = inode.page_cache().unwrap();
        assert_eq!(cache.read(0, 1 << 20, &mut IoBuf::kernel_mut(&mut bytes)).await, Ok(1 << 20));
        assert!(bytes.iter().all(|byte| *byte == 0));
        assert_eq!((cache.page_count(), used()), (0, 2));
    });
}

/// Who punches a hole is killed. Whoever locks the file then, to write to it or to seal it, finds the hole complete, and what was
/// there is not charged any more.
#[test]
fn a_hole_that_nobody_waits_for_is_made_before_others_change_the_file() {
    const SIZE: u64 = 4 << 20;
    for polls in 1..4 {
        let world = World::new();
        block_on(async move {
            let file = world.open("/file", raw::O_RDWR | raw::O_CREAT).await.unwrap();
            let inode = file.inode();
            let cache = inode.page_cache().unwrap();
            inode.allocate(0, 0, SIZE).await.unwrap();
            let before = inode.size_and_times().mtime;
            let mut punch = alloc::boxed::Box::pin(regular::punch(inode, 0, SIZE));
            for _ in 0..polls {
                // So long that each look at the clock ends its turn.
                crate::arch::sim::advance(1_000_000_000);
                assert!(poll_once(punch.as_mut()).await.is_pending());
            }
            drop(punch);
            assert!(cache.page_count() > 0);
            let _lock = inode.state().lock.lock().await;
            let st = inode.fs().statfs();
            assert_eq!((cache.page_count(), st.blocks - st.free), (0, 0));
            assert_ne!(inode.size_and_times().mtime, before);
        });
    }
}

/// What a loop device writes to a memfd.
#[test]
fn the_kernel_s_own_writes_honour_seals() {
    block_on(async {
        let write = async |seals: Seals, pos: u64| {
            let file = memfd::create(&Credentials::root(), b"x", 0o600, true).unwrap();
            let cache = file.inode().page_cache().unwrap().clone();
            regular::truncate(None, file.path(), 6000).await.unwrap();
            file.inode().state().add_seals(seals.bits(), Some(&cache)).unwrap();
            let mut buf = IoBuf::kernel(&[7; 4096]);
            let result = regular::write_kernel(file.inode(), &cache, pos, &mut buf).await;
            (result, buf.remaining(), file.inode().size())
        };
        assert_eq!(write(Seals::SHRINK, 4096).await, (Ok(4096), 0, 8192));
        assert_eq!(write(Seals::WRITE, 0).await, (Err(Errno::EPERM), 4096, 6000));
        assert_eq!(write(Seals::FUTURE_WRITE, 0).await, (Err(Errno::EPERM), 4096, 6000));
        assert_eq!(write(Seals::GROW, 1024).await, (Ok(4096), 0, 6000));
        assert_eq!(write(Seals::GROW, 2048).await, (Ok(2048), 2048, 6000));
        assert_eq!(write(Seals::GROW, 4096).await, (Err(Errno::EPERM), 4096, 6000));
    });
}
