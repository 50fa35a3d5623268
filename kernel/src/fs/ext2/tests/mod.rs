//! The file system against images made by mke2fs, a model of what files should hold, and e2fsck's judgement.

mod device;
mod ext4;
mod hostile;
mod journal;
mod mapped;
mod model;
mod mounts;
mod names;
mod order;
mod whiteouts;
mod xattr;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use self::device::{TestDisk, check_clean, debugfs, mke2fs, optimize_directories, preen, repair, repair_after_cut};
use self::model::{ATTR, Kind, Model, list, read, walk, write};
use super::volume::Host;
use super::{Ext2, How, mount_on};
use crate::arch;
use crate::errno::{Errno, Result};
use crate::exec;
use crate::fs::inode::{DeviceId, FileSystem, FileType, Inode, NewNode, RenameFlags, SetAttr};
use crate::mm::IoBuf;
use crate::mm::page_cache::failure::Known;
use crate::mm::test_util::{Rng, run};
use crate::time::Timespec;

const MIB: usize = 1 << 20;

fn now() -> Timespec {
    Timespec::from_nanos(1_700_000_000_123_456_789 + arch::now_ns())
}

async fn try_mount(disk: &Arc<TestDisk>, read_only: bool) -> Result<Arc<Ext2>> {
    let host = Host { spawn: |future| exec::spawn("ext2", future), now };
    let how = How { read_only, ..How::default() };
    mount_on(disk.clone(), DeviceId::new(254, 0), b"/dev/vda".to_vec(), how, host).await
}

async fn mount(disk: &Arc<TestDisk>) -> Arc<Ext2> {
    try_mount(disk, false).await.unwrap()
}

async fn unmount(fs: Arc<Ext2>) {
    fs.set_read_only(true).await.unwrap();
}

fn root_of(fs: &Ext2) -> Arc<dyn Inode> {
    fs.root()
}

/// A directory with two parents could be its own ancestor: locks would be taken twice, and walks have no end.
#[test]
fn a_second_name_of_a_directory_is_refused() {
    let image = mke2fs(&["-b", "1024"], 4 * MIB);
    let image = debugfs(&image, &["mkdir a", "mkdir a/b", "ln a a/b/up", "ln a/b a/b/self", "ln / a/root", "ln / me"]);
    let disk = TestDisk::new(image, 8);
    run(async move {
        let fs = mount(&disk).await;
        let root = root_of(&fs);
        let a = root.lookup(b"a").await.unwrap();
        let b = a.lookup(b"b").await.unwrap();
        for (dir, name) in [(&b, &b"up"[..]), (&b, b"self"), (&a, b"root"), (&root, b"me")] {
            assert_eq!(dir.lookup(name).await.err(), Some(Errno::EIO));
        }
        // What moves has a new parent.
        let flags = RenameFlags::empty();
        a.rename(b"b", &b, &root, b"moved", None, flags).await.unwrap();
        assert!(root.lookup(b"moved").await.is_ok());
        assert_eq!(a.lookup(b"b").await.err(), Some(Errno::ENOENT));
    });
}

/// Block 14 of the inode leads to a block that leads to itself, 256 times, on three levels.
#[test]
fn a_map_that_leads_to_itself_is_given_up() {
    let image = mke2fs(&["-b", "1024"], 4 * MIB);
    let disk = TestDisk::new(image, 9);
    let inner = disk.clone();
    let block = Arc::new(crate::sync::SpinLock::new(0));
    let found = block.clone();
    run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        for name in [&b"victim"[..], b"loop"] {
            let file = root.create(name, NewNode::Regular, ATTR).await.unwrap();
            write(&file, 0, &[7; 1024]).await.unwrap();
        }
        fs.sync().await.unwrap();
        let victim = fs.volume.inode(12).await.unwrap();
        *found.lock() = victim.node.state.lock().block[0];
        drop((root, victim));
        unmount(fs).await;
    });
    let block: u32 = *block.lock();
    let mut image = disk.image();
    for slot in image[block as usize * 1024..][..1024].chunks_exact_mut(4) {
        slot.copy_from_slice(&block.to_le_bytes());
    }
    let image = debugfs(&image, &[&format!("sif loop block[TIND] {block}"), "sif loop size 20000000"]);
    let disk = TestDisk::new(image, 10);
    run(async move {
        let fs = mount(&disk).await;
        let root = root_of(&fs);
        let file = root.lookup(b"loop").await.unwrap();
        root.unlink(b"loop", &file).await.unwrap();
        drop(file);
        fs.volume.no_deletions().await;
        let state = fs.volume.superblock.lock().state.get();
        assert!(state & super::layout::STATE_ERRORS != 0, "{state:#x}");
    });
}

/// Random operations with remounts in between; everything must be found again and e2fsck must be content.
fn fuzz(arguments: &[&str], size: usize, steps: u64, big: u64, seed: u64) {
    let disk = TestDisk::new(mke2fs(arguments, size), seed);
    let what = format!("{arguments:?} seed {seed}");
    for round in 0..3 {
        // What the last round has left in the cache: several tests at once would fill the memory, and find nobody to end for it.
        crate::mm::page_cache::reclaim(usize::MAX);
        let inner = disk.clone();
        let mut rng = Rng(seed.wrapping_mul(31).wrapping_add(round) | 1);
        // Each round starts from what the last one left.
        static MODELS: std::sync::Mutex<Vec<(u64, Model)>> = std::sync::Mutex::new(Vec::new());
        run(async move {
            let fs = mount(&inner).await;
            let root = root_of(&fs);
            let known = MODELS.lock().unwrap().iter().position(|(of, _)| *of == seed);
            let mut model = match known {
                Some(index) => MODELS.lock().unwrap().swap_remove(index).1,
                None => Model::new(&list(&root).await),
            };
            model.verify(&root, 0).await;
            for _ in 0..steps {
                model.random_step(&root, &mut rng, big).await.unwrap();
                if rng.below(100) == 0 {
                    fs.sync().await.unwrap();
                }
            }
            model.verify(&root, 0).await;
            drop(root);
            unmount(fs).await;
            MODELS.lock().unwrap().push((seed, model));
        });
        check_clean(&disk.image(), &what);
    }
}

#[test]
fn random_operations_on_1k_blocks() {
    fuzz(&["-b", "1024", "-I", "128"], 24 * MIB, 400, 60_000, 11);
}

#[test]
fn random_operations_on_2k_blocks_and_many_groups() {
    fuzz(&["-b", "2048", "-g", "1024", "-O", "^resize_inode"], 32 * MIB, 400, 100_000, 12);
}

#[test]
fn random_operations_on_4k_blocks() {
    fuzz(&["-b", "4096", "-I", "256"], 48 * MIB, 400, 200_000, 13);
}

#[test]
fn random_operations_on_revision_0() {
    fuzz(&["-r", "0", "-b", "1024"], 16 * MIB, 200, 50_000, 14);
}

#[test]
fn a_full_disk_stays_sound_and_serves_again() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024", "-N", "64", "-m", "0"], 2 * MIB), 3);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        let free = fs.statfs().free;
        let file = root.create(b"fill", NewNode::Regular, ATTR).await.unwrap();
        let mut pos = 0;
        let full = loop {
            match write(&file, pos, &[7; 10_000]).await {
                Ok(()) => pos += 10_000,
                Err(errno) => break errno,
            }
        };
        assert_eq!(full, Errno::ENOSPC);
        assert!(pos > free * 1024 * 8 / 10, "{pos} of {free} KiB");
        fs.sync().await.unwrap();
        assert_eq!(read(&file).await.unwrap(), vec![7; pos as usize]);
        let mut count = 0;
        let full = loop {
            match root.create(format!("f{count}").as_bytes(), NewNode::Directory, ATTR).await {
                Ok(_) => count += 1,
                Err(errno) => break errno,
            }
        };
        assert_eq!(full, Errno::ENOSPC);
        root.unlink(b"fill", &file).await.unwrap();
        drop(file);
        fs.volume.no_deletions().await;
        let again = root.create(b"again", NewNode::Regular, ATTR).await.unwrap();
        write(&again, 0, &[9; 100_000]).await.unwrap();
        drop((root, again));
        unmount(fs).await;
    });
    check_clean(&disk.image(), "full disk");
}

#[test]
fn large_and_sparse_files_use_every_level_of_the_map() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024"], 16 * MIB), 4);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        let file = root.create(b"sparse", NewNode::Regular, ATTR).await.unwrap();
        let places = [0u64, 12 << 10, 300 << 10, (12 + 256 + 70_000) << 10, 3 << 30];
        for (index, place) in places.iter().enumerate() {
            write(&file, *place, &[index as u8 + 1; 1024]).await.unwrap();
        }
        fs.sync().await.unwrap();
        let meta = file.metadata();
        assert_eq!(meta.size, (3 << 30) + 1024);
        // Five blocks of data and those of pointers; the last two share the root of the third level.
        assert_eq!(meta.blocks, 2 * (5 + 1 + 2 + 3 + 2));
        let limit = fs.volume.layout.max_file_blocks(false) * 1024;
        assert_eq!(write(&file, limit, b"x").await, Err(Errno::EFBIG));
        drop((root, file));
        unmount(fs).await;
    });
    check_clean(&disk.image(), "sparse");
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        let file = root.lookup(b"sparse").await.unwrap();
        file.set_attr(SetAttr { size: Some(300 << 10), ..SetAttr::default() }).await.unwrap();
        fs.sync().await.unwrap();
        assert_eq!(file.metadata().blocks, 2 * (2 + 1));
        let data = read(&file).await.unwrap();
        assert!(data[..1024] == [1; 1024] && data[12 << 10..13 << 10] == [2; 1024]);
        drop((root, file));
        unmount(fs).await;
    });
    check_clean(&disk.image(), "sparse, cut");
}

#[test]
fn thousands_of_names_in_one_directory() {
    let disk = TestDisk::new(mke2fs(&["-b", "4096", "-N", "8000"], 24 * MIB), 5);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        let dir = root.create(b"many", NewNode::Directory, ATTR).await.unwrap();
        for index in 0..5000 {
            dir.create(format!("name-{index}").as_bytes(), NewNode::Regular, ATTR).await.unwrap();
        }
        for index in (0..5000).step_by(2) {
            let name = format!("name-{index}").into_bytes();
            let target = dir.lookup(&name).await.unwrap();
            dir.unlink(&name, &target).await.unwrap();
        }
        assert_eq!(list(&dir).await.len(), 2502);
        assert_eq!(dir.lookup(b"name-4").await.err(), Some(Errno::ENOENT));
        assert_eq!(dir.lookup(b"name-5").await.unwrap().kind(), FileType::Regular);
        drop((root, dir));
        unmount(fs).await;
    });
    check_clean(&disk.image(), "many names");
}

#[test]
fn directories_with_a_hash_tree_are_read_and_made_linear() {
    let commands: Vec<String> = (0..300).map(|index| format!("mkdir /sub/directory-number-{index}")).collect();
    let mut commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    commands.insert(0, "mkdir /sub");
    let image = debugfs(&mke2fs(&["-b", "1024", "-O", "dir_index"], 8 * MIB), &commands[..60]);
    // e2fsck -D builds the hash tree.
    let disk = TestDisk::new(optimize_directories(&image), 6);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        let sub = root.lookup(b"sub").await.unwrap();
        assert_eq!(list(&sub).await.len(), 2 + 59);
        for index in 0..40 {
            sub.create(format!("new-{index}").as_bytes(), NewNode::Regular, ATTR).await.unwrap();
        }
        assert_eq!(list(&sub).await.len(), 2 + 59 + 40);
        drop((root, sub));
        unmount(fs).await;
    });
    check_clean(&disk.image(), "hash tree");
}

#[test]
fn unlinked_open_files_are_freed_by_the_next_who_looks() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024"], 8 * MIB), 7);
    let inner = disk.clone();
    let image = run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        let mut open = Vec::new();
        for name in [&b"a"[..], b"b", b"c", b"d"] {
            let file = root.create(name, NewNode::Regular, ATTR).await.unwrap();
            write(&file, 0, &[1; 50_000]).await.unwrap();
            open.push(file.clone());
            root.unlink(name, &file).await.unwrap();
        }
        let temporary = root.create_unnamed(ATTR).await.unwrap();
        write(&temporary, 0, b"named later").await.unwrap();
        // What open(2) does for O_TMPFILE without O_EXCL.
        temporary.state().set_linkable();
        root.link(b"named", &temporary).await.unwrap();
        // One in the middle of the list goes.
        open.remove(1);
        for _ in 0..200 {
            exec::yield_now().await;
        }
        fs.sync().await.unwrap();
        assert_eq!(fs.volume.orphans.lock().len(), 3);
        let crashed = inner.image();
        // With all of them in use, as at a shutdown.
        unmount(fs.clone()).await;
        let image = inner.image();
        // One is let go of, and freed when there is a chance.
        open.remove(0);
        fs.set_read_only(false).await.unwrap();
        assert_eq!(fs.volume.orphans.lock().len(), 2);
        drop((root, open));
        (crashed, image)
    });
    let (crashed, image) = image;
    check_clean(&preen(&crashed).unwrap(), "repaired orphans");
    let disk = TestDisk::new(image, 8);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        assert_eq!(list(&root).await.len(), 4);
        assert_eq!(read(&root.lookup(b"named").await.unwrap()).await.unwrap(), b"named later");
        drop(root);
        unmount(fs).await;
    });
    let image = disk.image();
    assert_eq!(image[1024 + 58] & 1, 1);
    check_clean(&image, "orphans freed by the mount");
}

#[test]
fn a_power_cut_keeps_what_was_synced() {
    power_cuts(&["-b", "1024", "-I", "256"], 1..12);
}

fn power_cuts(arguments: &[&str], seeds: core::ops::Range<u64>) {
    let (compared, grown) = seeds.map(|seed| power_cut(arguments, seed)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    assert!(compared > 10 && grown > 0, "{compared}, {grown}");
}

/// Power is cut in the middle of random operations, and e2fsck repairs the image: what was synced is there.
fn power_cut(arguments: &[&str], seed: u64) -> (usize, usize) {
    let disk = TestDisk::new(mke2fs(arguments, 16 * MIB), seed);
    let inner = disk.clone();
    let (model, synced) = run(async move {
        let mut rng = Rng(seed * 77 + 1);
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        let mut model = Model::new(&list(&root).await);
        let mut synced = (model.clone(), 0);
        fs.sync().await.unwrap();
        inner.cut_after(50 + Rng(seed * 91 + 5).below(1500));
        for step in 0..300 {
            model.random_step(&root, &mut rng, 40_000).await.unwrap();
            if step % 50 == 20 {
                fs.sync().await.unwrap();
                if inner.has_power() {
                    model.synced();
                    synced = (model.clone(), model.step);
                }
            } else if step % 17 == 0 {
                let _ = fs.volume.write_metadata().await;
            }
            if !inner.has_power() {
                break;
            }
        }
        (model, synced)
    });
    let image = disk.image_after_power_cut(&mut Rng(seed));
    let image = repair_after_cut(&image, &format!("{arguments:?}, seed {seed}"));
    let disk = TestDisk::new(image, seed);
    run(async move {
        let fs = mount(&disk).await;
        let root = root_of(&fs);
        check_synced(&root, &synced.0, &model, synced.1).await
    })
}

/// Files that were not touched since the last sync hold what they held, and others what they held before the first byte that
/// was; if they have the same name in the same directories. Answers how many there were of each kind.
async fn check_synced(root: &Arc<dyn Inode>, then: &Model, now: &Model, step: u64) -> (usize, usize) {
    let mut stack = vec![(Vec::new(), 0)];
    let (mut compared, mut grown) = (0, 0);
    while let Some((path, id)) = stack.pop() {
        let (Kind::Dir(before), Some(Kind::Dir(after))) =
            (&then.things[&id].kind, now.things.get(&id).map(|t| &t.kind))
        else {
            continue;
        };
        for (name, child) in before {
            let same = after.get(name) == Some(child) && now.things.get(child).is_some_and(|t| t.changed <= step);
            let mut path: Vec<Vec<u8>> = path.clone();
            path.push(name.clone());
            match &then.things[child].kind {
                Kind::Dir(_) if after.get(name) == Some(child) => stack.push((path, *child)),
                Kind::File(content) if same => {
                    let inode = walk(root, &path).await;
                    assert!(read(&inode).await.unwrap() == *content, "{:?}", String::from_utf8_lossy(name));
                    compared += 1;
                }
                Kind::File(content) if after.get(name) == Some(child) && now.things[child].kept > 0 => {
                    let kept = now.things[child].kept.min(content.len());
                    let data = read(&walk(root, &path).await).await.unwrap();
                    assert!(data.get(..kept) == Some(&content[..kept]), "{:?}", String::from_utf8_lossy(name));
                    grown += 1;
                }
                _ => {}
            }
        }
    }
    (compared, grown)
}

#[test]
fn a_dropped_operation_is_finished_all_the_same() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024"], 8 * MIB), 9);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        for polls in 0..40 {
            let name = format!("dir-{polls}").into_bytes();
            let mut operation = root.create(&name, NewNode::Directory, ATTR);
            let mut left = polls;
            let finished = core::future::poll_fn(|cx| {
                let polled = core::pin::Pin::new(&mut operation).poll(cx);
                if polled.is_ready() || left == 0 {
                    return core::task::Poll::Ready(polled.is_ready());
                }
                left -= 1;
                core::task::Poll::Pending
            });
            let finished = finished.await;
            drop(operation);
            for _ in 0..100 {
                exec::yield_now().await;
            }
            let made = root.lookup(&name).await.is_ok();
            assert!(made, "after {polls} polls (finished: {finished})");
        }
        drop(root);
        unmount(fs).await;
    });
    check_clean(&disk.image(), "dropped operations");
}

#[test]
fn pages_may_be_written_back_before_the_size_is_known() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024"], 8 * MIB), 12);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        let file = root.create(b"file", NewNode::Regular, ATTR).await.unwrap();
        let cache = file.page_cache().unwrap();
        let data: Vec<u8> = (0..40_000u32).map(|index| (index / 3) as u8 | 1).collect();
        // The second piece begins in the middle of a page, and of a block.
        for (pos, end) in [(0, 10_300), (10_300, 40_000)] {
            file.prepare_write(pos, end - pos).await.unwrap();
            let piece = &data[pos as usize..end as usize];
            cache.write(pos, pos, &mut IoBuf::kernel(piece)).await.unwrap();
            cache.write_back(0..u64::MAX).await.unwrap();
            cache.invalidate(0..u64::MAX);
            file.set_attr(SetAttr { size: Some(end), ..SetAttr::default() }).await.unwrap();
        }
        assert_eq!(cache.page_count(), 0);
        assert!(read(&file).await.unwrap() == data);
        drop((root, file));
        unmount(fs).await;
    });
    check_clean(&disk.image(), "early write-back");
}

#[test]
fn unknown_features_are_refused() {
    let image = mke2fs(&["-b", "1024"], 4 * MIB);
    let mount_with = |at: usize, bit: u8, read_only: bool| {
        let mut image = image.clone();
        image[1024 + at] |= bit;
        run(async move { try_mount(&TestDisk::new(image, 1), read_only).await.err() })
    };
    // Compression; quotas, which must be kept right by who writes.
    assert_eq!(mount_with(96, 0x01, false), Some(Errno::EINVAL));
    assert_eq!(mount_with(101, 0x01, false), Some(Errno::EROFS));
    assert_eq!(mount_with(101, 0x01, true), None);
}

#[test]
fn write_errors_are_reported() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024"], 4 * MIB), 10);
    run(async move {
        let fs = mount(&disk).await;
        let file = root_of(&fs).create(b"file", NewNode::Regular, ATTR).await.unwrap();
        write(&file, 0, &[1; 5000]).await.unwrap();
        disk.fail_writes.store(true, Ordering::Relaxed);
        assert_eq!(file.sync(false).await, Err(Errno::EIO));
        disk.fail_writes.store(false, Ordering::Relaxed);
        file.sync(false).await.unwrap();
        assert_eq!(read(&file).await.unwrap(), [1; 5000]);
        // Of what somebody else could not store those who have the file are told.
        let (cache, known) = (file.page_cache().unwrap().clone(), Known::now());
        write(&file, 0, &[2; 5000]).await.unwrap();
        disk.fail_writes.store(true, Ordering::Relaxed);
        assert_eq!(cache.write_back(0..u64::MAX).await, Err(Errno::EIO));
        disk.fail_writes.store(false, Ordering::Relaxed);
        assert_eq!(file.sync(false).await, Ok(()));
        assert_eq!((known.check(cache.failure()), known.check(cache.failure())), (Err(Errno::EIO), Ok(())));
    });
}
