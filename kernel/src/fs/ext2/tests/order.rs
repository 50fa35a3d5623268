//! What is on the disk whenever power goes: the order of writes, and what a volume says about itself.

use super::*;
use crate::fs::ext2::layout::STATE_CLEAN;

/// A synced file whose root, or leaf, of extents is full gets one more: at its end, in the middle, in front. Power goes after
/// each request of the write-back.
#[test]
fn extents_that_were_synced_survive_the_growth_of_their_tree() {
    const START: u64 = 4_000_000 & !8191;
    let place = |index: u64| START + index * 8192;
    let byte = |index: u64| index as u8 | 1;
    // Four in the root; 84 in a block of 1 KiB.
    for count in [4, 84] {
        let disk = TestDisk::new(mke2fs(&["-t", "ext4", "-O", "^has_journal", "-b", "1024"], 4 * MIB), count);
        let inner = disk.clone();
        run(async move {
            let fs = mount(&inner).await;
            let file = root_of(&fs).create(b"file", NewNode::Regular, ATTR).await.unwrap();
            for index in 0..count {
                write(&file, place(index), &[byte(index); 4096]).await.unwrap();
            }
            drop(file);
            unmount(fs).await;
        });
        let image = disk.image();
        for (new, requests) in [place(count), place(count / 2) - 4096, START - 8192]
            .into_iter()
            .flat_map(|new| (1..9).map(move |requests| (new, requests)))
        {
            let what = format!("{count} extents and one at {new}, {requests} requests");
            let disk = TestDisk::new(image.clone(), new + requests);
            let inner = disk.clone();
            run(async move {
                let fs = mount(&inner).await;
                let file = root_of(&fs).lookup(b"file").await.unwrap();
                write(&file, new, &[2; 4096]).await.unwrap();
                file.page_cache().unwrap().write_back(0..u64::MAX).await.unwrap();
                inner.cut_after(requests);
                let _ = file.sync(false).await;
            });
            let image = repair_after_cut(&disk.image_after_power_cut(&mut Rng(new + requests * 77)), &what);
            let disk = TestDisk::new(image, 1);
            run(async move {
                let fs = mount(&disk).await;
                let data = read(&root_of(&fs).lookup(b"file").await.unwrap()).await.unwrap();
                for index in 0..count {
                    let piece = data.get(place(index) as usize..place(index) as usize + 4096);
                    assert!(
                        piece.is_some_and(|piece| piece.iter().all(|b| *b == byte(index))),
                        "{what}: extent {index}"
                    );
                }
            });
        }
    }
}

/// The same when the front of leaves is punched out of a tree: what is left is found, and nothing is asked.
#[test]
fn extents_that_were_synced_survive_the_pruning_of_their_tree() {
    const MODE: u32 = linux_raw_sys::general::FALLOC_FL_PUNCH_HOLE | linux_raw_sys::general::FALLOC_FL_KEEP_SIZE;
    for (count, gone) in [(6, 0..2), (400, 0..3), (400, 50..200)] {
        let disk = TestDisk::new(mke2fs(&["-t", "ext4", "-O", "^has_journal", "-b", "1024"], 4 * MIB), count);
        let inner = disk.clone();
        run(async move {
            let fs = mount(&inner).await;
            let file = root_of(&fs).create(b"file", NewNode::Regular, ATTR).await.unwrap();
            for index in 0..count {
                write(&file, index * 8192, &[index as u8 | 1; 4096]).await.unwrap();
            }
            drop(file);
            unmount(fs).await;
        });
        let image = disk.image();
        for (requests, seed) in (1..9).flat_map(|requests| (0..3).map(move |seed| (requests, seed))) {
            let what = format!("{gone:?} of {count} extents, {requests} requests");
            let disk = TestDisk::new(image.clone(), requests);
            let (inner, bytes) = (disk.clone(), gone.start * 8192..gone.end * 8192);
            run(async move {
                let fs = mount(&inner).await;
                let file = root_of(&fs).lookup(b"file").await.unwrap();
                file.allocate(MODE, bytes.start, bytes.end - bytes.start).await.unwrap();
                inner.cut_after(requests);
                let _ = file.sync(false).await;
            });
            let image = repair_after_cut(&disk.image_after_power_cut(&mut Rng(seed * 5 + requests * 77)), &what);
            let (disk, gone) = (TestDisk::new(image, 1), gone.clone());
            run(async move {
                let fs = mount(&disk).await;
                let data = read(&root_of(&fs).lookup(b"file").await.unwrap()).await.unwrap();
                for index in (0..count).filter(|index| !gone.contains(index)) {
                    let piece = &data[index as usize * 8192..index as usize * 8192 + 4096];
                    assert!(piece.iter().all(|b| *b == index as u8 | 1), "{what}: extent {index}");
                }
            });
        }
    }
}

/// Checksums of group descriptors, whose volumes nobody mounts when they are wrong, while several write and sync.
#[test]
fn whenever_power_goes_the_volume_can_be_mounted() {
    for seed in 1..12u64 {
        let arguments = ["-t", "ext4", "-O", "^has_journal", "-b", "1024", "-g", "512"];
        let disk = TestDisk::new(mke2fs(&arguments, 4 * MIB), seed);
        let inner = disk.clone();
        run(async move {
            let fs = mount(&inner).await;
            fs.sync().await.unwrap();
            inner.cut_after(1 + Rng(seed * 13 + 1).below(150));
            let done = Arc::new(core::sync::atomic::AtomicU64::new(0));
            for worker in 0..4u64 {
                let (fs, inner, done) = (fs.clone(), inner.clone(), done.clone());
                exec::spawn("worker", async move {
                    let mut rng = Rng(seed * 1000 + worker * 7 + 1);
                    let root = root_of(&fs);
                    let mut step = 0;
                    while inner.has_power() && step < 400 {
                        step += 1;
                        let name = format!("{worker}-{}", rng.below(12)).into_bytes();
                        if let Ok(file) = root.lookup(&name).await {
                            let _ = match rng.below(2) {
                                0 => root.unlink(&name, &file).await,
                                _ => file.sync(false).await,
                            };
                        } else if let Ok(file) = root.create(&name, NewNode::Regular, ATTR).await {
                            let _ = write(&file, 0, &vec![1; 1 + rng.below(9000) as usize]).await;
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }
            while done.load(Ordering::Relaxed) < 4 {
                exec::yield_now().await;
            }
        });
        let image = disk.image_after_power_cut(&mut Rng(seed));
        let cut = TestDisk::new(image.clone(), seed);
        run(async move { assert!(try_mount(&cut, true).await.is_ok(), "seed {seed}") });
        repair_after_cut(&image, &format!("seed {seed}"));
    }
}

/// The disk says that the volume is in use before anything else of it changes.
#[test]
fn what_may_have_changed_is_not_marked_clean() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024"], 4 * MIB), 3);
    run(async move {
        let fs = mount(&disk).await;
        for seed in 1..9 {
            let image = disk.image_after_power_cut(&mut Rng(seed));
            assert_eq!(image[1024 + 58] & STATE_CLEAN as u8, 0);
        }
        unmount(fs).await;
        assert_eq!(disk.image_after_power_cut(&mut Rng(1))[1024 + 58] & STATE_CLEAN as u8, 1);
    });
}

/// What went read-only because of an error is written all the same when it is sealed, with the error; and once only.
#[test]
fn what_went_read_only_by_itself_is_sealed() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024"], 4 * MIB), 5);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        fs.sync().await.unwrap();
        fs.volume.set_error_policy(true);
        root.set_attr(SetAttr { perm: Some(0o711), ..SetAttr::default() }).await.unwrap();
        fs.volume.corrupt(format_args!("as a test has it"));
        assert!(fs.read_only());
        unmount(fs.clone()).await;
        let requests = inner.requests.load(Ordering::Relaxed);
        unmount(fs).await;
        assert_eq!(inner.requests.load(Ordering::Relaxed), requests);
    });
    let state = disk.image()[1024 + 58];
    assert_eq!(state & (STATE_CLEAN | crate::fs::ext2::layout::STATE_ERRORS) as u8, 2);
    run(async move {
        let fs = try_mount(&disk, true).await.unwrap();
        assert_eq!(root_of(&fs).metadata().perm, 0o711);
    });
}

/// Somebody makes it writable while somebody else seals it: the one after the other.
#[test]
fn a_volume_is_either_writable_or_marked_clean() {
    for seed in 1..6u64 {
        let disk = TestDisk::new(mke2fs(&["-b", "1024"], 4 * MIB), seed);
        run(async move {
            let fs = mount(&disk).await;
            let root = root_of(&fs);
            let done = Arc::new(core::sync::atomic::AtomicU64::new(0));
            for read_only in [true, false, true, false] {
                let (fs, done) = (fs.clone(), done.clone());
                exec::spawn("remount", async move {
                    fs.set_read_only(read_only).await.unwrap();
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }
            for step in 0.. {
                let _ = root.create(format!("{step}").as_bytes(), NewNode::Regular, ATTR).await;
                exec::yield_now().await;
                if done.load(Ordering::Relaxed) == 4 {
                    break;
                }
            }
            let clean = fs.volume.superblock.lock().state.get() & STATE_CLEAN != 0;
            assert_eq!(clean, fs.read_only(), "seed {seed}");
        });
    }
}

/// A volume that says it is clean is not changed any more, whoever has begun something.
#[test]
fn what_is_marked_clean_is_complete_and_stays_so() {
    for seed in 1..9u64 {
        let disk = TestDisk::new(mke2fs(&["-b", "1024"], 4 * MIB), seed);
        let inner = disk.clone();
        let image = run(async move {
            let fs = mount(&inner).await;
            let done = Arc::new(core::sync::atomic::AtomicU64::new(0));
            for worker in 0..4u64 {
                let (fs, done) = (fs.clone(), done.clone());
                exec::spawn("worker", async move {
                    let root = root_of(&fs);
                    for step in 0.. {
                        let name = format!("{worker}-{step}").into_bytes();
                        match root.create(&name, NewNode::Directory, ATTR).await {
                            Ok(dir) if step % 3 == 0 => drop(root.unlink(&name, &dir).await),
                            Ok(dir) => {
                                let file = dir.create(b"file", NewNode::Regular, ATTR).await;
                                if let Ok(file) = file {
                                    let _ = write(&file, 0, &[3; 3000]).await;
                                    let _ = dir.unlink(b"file", &file).await;
                                }
                            }
                            Err(Errno::EROFS) => break,
                            Err(errno) => panic!("{errno:?}"),
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                });
            }
            for _ in 0..Rng(seed * 7 + 1).below(400) {
                exec::yield_now().await;
            }
            fs.set_read_only(true).await.unwrap();
            let image = inner.image();
            while done.load(Ordering::Relaxed) < 4 {
                exec::yield_now().await;
            }
            for _ in 0..200 {
                exec::yield_now().await;
            }
            assert_eq!(fs.volume.buffers.dirty_count(), 0);
            let _ = fs.volume.write_metadata().await;
            assert!(inner.image() == image, "seed {seed}: changed after it was marked clean");
            image
        });
        assert_eq!(image[1024 + 58] & STATE_CLEAN as u8, 1);
        // Inodes that lost their names in the end may still be on the list.
        check_clean(&preen(&image).unwrap(), "clean");
    }
}

/// A hole that was synced is filled, with blocks of somebody's deleted file, while others sync: whenever power goes, there is
/// either nothing or what was written.
#[test]
fn what_others_have_deleted_is_never_seen() {
    for (kind, seed) in [["ext2", "1024"], ["ext4", "1024"], ["ext4", "4096"]].into_iter().zip([1u64, 100, 200]) {
        let arguments = ["-t", kind[0], "-O", "^has_journal", "-b", kind[1]];
        let disk = TestDisk::new(mke2fs(&arguments, 4 * MIB), seed);
        let inner = disk.clone();
        run(async move {
            let fs = mount(&inner).await;
            let root = root_of(&fs);
            let secret = root.create(b"secret", NewNode::Regular, ATTR).await.unwrap();
            write(&secret, 0, &vec![0xaa; 2 * MIB]).await.unwrap();
            fs.sync().await.unwrap();
            root.unlink(b"secret", &secret).await.unwrap();
            drop(secret);
            let file = root.create(b"file", NewNode::Regular, ATTR).await.unwrap();
            write(&file, 60_000, &[1]).await.unwrap();
            drop((file, root));
            unmount(fs).await;
        });
        let image = disk.image();
        for cut in (1..36).step_by(3) {
            let what = format!("{kind:?}, power goes after {cut} requests");
            let disk = TestDisk::new(image.clone(), seed + cut);
            let inner = disk.clone();
            run(async move {
                let fs = mount(&inner).await;
                let file = root_of(&fs).lookup(b"file").await.unwrap();
                inner.cut_after(cut);
                let other = fs.clone();
                exec::spawn("other", async move {
                    for _ in 0..4 {
                        let _ = other.sync().await;
                        exec::yield_now().await;
                    }
                });
                for at in [3145, 30_000, 50_000] {
                    let _ = write(&file, at, &[2; 5000]).await;
                    let _ = file.sync(false).await;
                }
            });
            let image = repair_after_cut(&disk.image_after_power_cut(&mut Rng(seed + cut * 77)), &what);
            let disk = TestDisk::new(image, 1);
            run(async move {
                let fs = mount(&disk).await;
                let data = read(&root_of(&fs).lookup(b"file").await.unwrap()).await.unwrap();
                let seen = data.iter().position(|byte| ![0, 1, 2].contains(byte));
                assert_eq!((data.len(), seen), (60_001, None), "{what}");
            });
        }
    }
}

/// Who waits for a write-back is killed, and somebody else writes the same pages: they get blocks once.
#[test]
fn a_write_back_that_nobody_waits_for_goes_on() {
    for (kind, polls) in ["ext2", "ext4"].into_iter().flat_map(|kind| (1..12).map(move |polls| (kind, polls))) {
        let arguments = ["-t", kind, "-O", "^has_journal", "-b", "1024"];
        let disk = TestDisk::new(mke2fs(&arguments, 4 * MIB), polls);
        let inner = disk.clone();
        run(async move {
            let fs = mount(&inner).await;
            let file = root_of(&fs).create(b"file", NewNode::Regular, ATTR).await.unwrap();
            let content = [polls as u8; 50_000];
            write(&file, 30_000, &content).await.unwrap();
            let cache = file.page_cache().unwrap().clone();
            let mut given_up = alloc::boxed::Box::pin(cache.write_back(0..u64::MAX));
            for _ in 0..polls {
                if poll_once(given_up.as_mut()).await {
                    break;
                }
                exec::yield_now().await;
            }
            drop(given_up);
            file.sync(false).await.unwrap();
            assert_eq!(read(&file).await.unwrap()[30_000..], content);
            drop((file, cache));
            unmount(fs).await;
        });
        check_clean(&disk.image(), &format!("{kind}, {polls} polls"));
    }
}

/// What others are storing counts as not stored, also for who seals the volume.
#[test]
fn who_stores_everything_waits_for_what_others_store() {
    for kind in ["ext2", "ext4"] {
        let disk = TestDisk::new(mke2fs(&["-t", kind, "-O", "^has_journal", "-b", "1024"], 4 * MIB), 1);
        run(async move {
            let fs = mount(&disk).await;
            let file = root_of(&fs).create(b"file", NewNode::Regular, ATTR).await.unwrap();
            write(&file, 0, &[7; 50_000]).await.unwrap();
            let cache = file.page_cache().unwrap().clone();
            let mut others = alloc::boxed::Box::pin(cache.write_back(0..u64::MAX));
            assert!(!poll_once(others.as_mut()).await);
            assert!(cache.dirty_count() == 0 && cache.has_unstored());
            let volume = fs.volume.clone();
            let mut all = alloc::boxed::Box::pin(volume.write_data());
            assert!(!poll_once(all.as_mut()).await, "{kind}: it did not wait");
            others.await.unwrap();
            assert!(!cache.has_unstored());
            all.await.unwrap();
            drop((file, cache));
            unmount(fs).await;
        });
    }
}

/// Whether it is over.
async fn poll_once(mut future: core::pin::Pin<&mut (impl Future + ?Sized)>) -> bool {
    core::future::poll_fn(|context| core::task::Poll::Ready(future.as_mut().poll(context).is_ready())).await
}
