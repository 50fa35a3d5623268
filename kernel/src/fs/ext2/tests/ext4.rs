//! What ext3 and ext4 add: extents, checksums, groups that were never used.

use super::device::debugfs_output;
use super::*;
use crate::fs::ext2::features::Family;

/// Features of ext4 without a journal, with checksums of all metadata and with none.
const EXT4: &[&str] = &["-t", "ext4", "-O", "^has_journal"];

fn with<'a>(base: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [base, more].concat()
}

#[test]
fn random_operations_on_ext4_with_1k_blocks() {
    fuzz(&with(EXT4, &["-b", "1024"]), 24 * MIB, 400, 60_000, 41);
}

#[test]
fn random_operations_on_ext4_with_4k_blocks() {
    fuzz(&with(EXT4, &["-b", "4096"]), 48 * MIB, 400, 200_000, 42);
}

#[test]
fn random_operations_on_ext4_with_many_groups() {
    fuzz(&with(EXT4, &["-b", "1024", "-g", "1024"]), 24 * MIB, 400, 60_000, 43);
}

#[test]
fn random_operations_on_ext4_as_mke2fs_makes_it() {
    fuzz(&["-t", "ext4"], 48 * MIB, 400, 200_000, 44);
}

#[test]
fn random_operations_on_ext3() {
    fuzz(&["-t", "ext3", "-b", "1024"], 32 * MIB, 400, 60_000, 45);
}

#[test]
fn random_operations_on_ext4_with_checksums_of_groups_only() {
    let features = "^has_journal,^metadata_csum,uninit_bg,^64bit";
    fuzz(&["-t", "ext4", "-O", features, "-b", "1024", "-g", "2048"], 24 * MIB, 300, 60_000, 46);
}

#[test]
fn random_operations_on_ext4_without_checksums() {
    let features = "^has_journal,^metadata_csum,^uninit_bg,^flex_bg,^extra_isize";
    fuzz(&["-t", "ext4", "-O", features, "-b", "2048", "-I", "128"], 24 * MIB, 300, 60_000, 47);
}

#[test]
fn random_operations_on_ext4_with_a_seed_of_its_own_and_meta_groups() {
    let features = "^has_journal,metadata_csum_seed,meta_bg,^resize_inode";
    fuzz(&["-t", "ext4", "-O", features, "-b", "1024", "-g", "512"], 24 * MIB, 300, 60_000, 48);
}

/// Every second block of a file, from its end to its start: no two extents join, until the gaps are filled.
#[test]
fn a_tree_of_extents_grows_and_shrinks() {
    for features in ["^has_journal", "^has_journal,^metadata_csum"] {
        let disk = TestDisk::new(mke2fs(&["-t", "ext4", "-O", features, "-b", "1024"], 16 * MIB), 51);
        let inner = disk.clone();
        run(async move {
            let fs = mount(&inner).await;
            let root = root_of(&fs);
            let file = root.create(b"file", NewNode::Regular, ATTR).await.unwrap();
            // Blocks of 4 KiB, because that is what pages are.
            for index in (0..1000u64).rev() {
                write(&file, index * 8192, &[index as u8 | 1; 4096]).await.unwrap();
                if index % 50 == 0 {
                    fs.sync().await.unwrap();
                }
            }
            unmount(fs).await;
        });
        check_clean(&disk.image(), "alternate blocks");
        assert!(debugfs_output(&disk.image(), "ex file").contains(" 2/ 2"), "two levels below the root");
        let inner = disk.clone();
        run(async move {
            let fs = mount(&inner).await;
            let file = root_of(&fs).lookup(b"file").await.unwrap();
            let data = read(&file).await.unwrap();
            for (index, pair) in data.chunks(8192).enumerate() {
                assert!(pair[..4096].iter().all(|&byte| byte == index as u8 | 1), "{index}");
                assert!(pair[4096..].iter().all(|&byte| byte == 0), "{index}");
            }
            for index in 300..600u64 {
                write(&file, index * 8192 + 4096, &[9; 4096]).await.unwrap();
            }
            // Holes in the middle of extents, and of the tree.
            let mode = linux_raw_sys::general::FALLOC_FL_PUNCH_HOLE | linux_raw_sys::general::FALLOC_FL_KEEP_SIZE;
            fs.sync().await.unwrap();
            for (from, len) in [(400 * 8192, 4096), (100 * 8192, 150 * 8192), (450 * 8192 + 100, 20_000), (0, 8192)] {
                file.allocate(mode, from, len).await.unwrap();
            }
            unmount(fs).await;
        });
        check_clean(&disk.image(), "holes");
        let inner = disk.clone();
        run(async move {
            let fs = mount(&inner).await;
            let root = root_of(&fs);
            let file = root.lookup(b"file").await.unwrap();
            let data = read(&file).await.unwrap();
            let is = |at: usize, len: usize, byte: u8| data[at..at + len].iter().all(|&b| b == byte);
            assert!(is(400 * 8192, 4096, 0) && is(400 * 8192 + 4096, 4096, 9) && is(100 * 8192, 150 * 8192, 0));
            assert!(is(0, 8192, 0) && is(450 * 8192, 100, 450u32 as u8 | 1) && is(450 * 8192 + 100, 20_000, 0));
            assert!(is(99 * 8192, 4096, 99) && is(250 * 8192, 4096, 251));
            for size in [700 * 8192 + 5000, 350 * 8192, 10_000, 0] {
                file.set_attr(SetAttr { size: Some(size), ..SetAttr::default() }).await.unwrap();
                assert_eq!(read(&file).await.unwrap().len() as u64, size);
            }
            assert_eq!(file.metadata().blocks, 0);
            write(&file, 0, b"again").await.unwrap();
            drop(file);
            unmount(fs).await;
        });
        check_clean(&disk.image(), "cut");
    }
}

#[test]
fn what_was_only_allocated_reads_as_zeros_and_can_be_written() {
    let image = mke2fs(&with(EXT4, &["-b", "4096"]), 16 * MIB);
    let image = debugfs_session_of(&image);
    let disk = TestDisk::new(image, 52);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let file = root_of(&fs).lookup(b"file").await.unwrap();
        let blocks = file.metadata().blocks;
        let mut expected = read(&file).await.unwrap();
        assert!(expected.len() == 100 * 4096 && expected[4096..].iter().all(|&byte| byte == 0));
        for (at, len) in [(50 * 4096 + 7, 100), (60 * 4096, 8192), (49 * 4096, 4096), (99 * 4096, 4096)] {
            write(&file, at, &vec![at as u8 | 1; len]).await.unwrap();
            expected[at as usize..at as usize + len].fill(at as u8 | 1);
            fs.sync().await.unwrap();
        }
        file.page_cache().unwrap().invalidate(0..u64::MAX);
        assert!(read(&file).await.unwrap() == expected);
        // The blocks were there; the tree takes one more than its root has room for.
        assert_eq!(file.metadata().blocks, blocks + 8);
        unmount(fs).await;
    });
    check_clean(&disk.image(), "written");
}

/// A file of 100 blocks of which all but the first were never written.
fn debugfs_session_of(image: &[u8]) -> Vec<u8> {
    let commands = ["write FILE file", "fallocate file 0 99", "sif file size 409600"];
    let image = super::device::debugfs_session(image, &[7; 4096], &commands);
    check_clean(&image, "as it was made");
    image
}

#[test]
fn hash_trees_with_checksums_are_read_and_made_linear() {
    let commands: Vec<String> = (0..400).map(|index| format!("mknod directory-entry-number-{index} p")).collect();
    let mut commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    commands.splice(0..0, ["mkdir sub", "cd sub"]);
    let image = mke2fs(&with(EXT4, &["-b", "1024"]), 8 * MIB);
    let image = super::device::debugfs_session(&image, b"", &commands);
    let disk = TestDisk::new(optimize_directories(&image), 53);
    assert!(debugfs_output(&disk.image(), "htree_dump /sub").contains("Root node dump"));
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let sub = root_of(&fs).lookup(b"sub").await.unwrap();
        assert_eq!(list(&sub).await.len(), 2 + 400);
        let name = b"directory-entry-number-77";
        let target = sub.lookup(name).await.unwrap();
        sub.unlink(name, &target).await.unwrap();
        drop(target);
        for index in 0..100 {
            sub.create(format!("n{index}").as_bytes(), NewNode::Regular, ATTR).await.unwrap();
        }
        assert_eq!(list(&sub).await.len(), 2 + 399 + 100);
        drop(sub);
        unmount(fs).await;
    });
    check_clean(&disk.image(), "hash tree");
    run(async move {
        let fs = mount(&disk).await;
        let sub = root_of(&fs).lookup(b"sub").await.unwrap();
        assert_eq!(list(&sub).await.len(), 2 + 399 + 100);
        for index in 0..400 {
            let found = sub.lookup(format!("directory-entry-number-{index}").as_bytes()).await;
            assert_eq!(found.is_ok(), index != 77);
        }
    });
}

#[test]
fn wrong_checksums_are_errors() {
    let image = mke2fs(&with(EXT4, &["-b", "1024"]), 8 * MIB);
    let image = super::device::debugfs_session(&image, &[7; 5000], &["mkdir d", "write FILE d/f"]);
    let number = |command: &str, part: usize| -> usize {
        let text = debugfs_output(&image, command);
        let word = text.lines().next().and_then(|line| line.split_whitespace().nth(part)).unwrap();
        word.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap()
    };
    let inode = {
        let text = debugfs_output(&image, "imap d/f");
        let at =
            |after: &str| text.split(after).nth(1).unwrap().split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap();
        at("located at block ").parse::<usize>().unwrap() * 1024 + usize::from_str_radix(at("offset 0x"), 16).unwrap()
    };
    let directory = number("blocks d", 0) * 1024;
    let try_with = |at: usize| {
        let mut image = image.clone();
        image[at] ^= 1;
        run(async move {
            let fs = try_mount(&TestDisk::new(image, 54), false).await?;
            let d = root_of(&fs).lookup(b"d").await?;
            let f = d.lookup(b"f").await?;
            read(&f).await.map(|data| data.len())
        })
    };
    assert_eq!(try_with(0), Ok(5000));
    // The label; the count of free blocks of the first group; a time of the inode; free space of the directory.
    assert_eq!(try_with(1024 + 120), Err(Errno::EINVAL));
    assert_eq!(try_with(2048 + 12), Err(Errno::EINVAL));
    assert_eq!(try_with(inode + 8), Err(Errno::EIO));
    assert_eq!(try_with(directory + 900), Err(Errno::EIO));
}

#[test]
fn ext4_keeps_what_was_synced() {
    for (seed, features) in
        [(60, "^has_journal"), (70, "has_journal"), (80, "^has_journal,^metadata_csum"), (90, "^has_journal,^64bit")]
    {
        power_cuts(&["-t", "ext4", "-O", features, "-b", "1024"], seed..seed + 6);
    }
}

#[test]
fn a_full_ext4_stays_sound() {
    let disk = TestDisk::new(mke2fs(&with(EXT4, &["-b", "1024", "-m", "0"]), 2 * MIB), 55);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        let file = root.create(b"fill", NewNode::Regular, ATTR).await.unwrap();
        // Every second page, so that the map needs much room.
        let mut pos = 0;
        while write(&file, pos, &[7; 1024]).await.is_ok() {
            pos += 8192;
        }
        fs.sync().await.unwrap();
        assert_eq!(read(&file).await.unwrap().len() as u64, pos - 8192 + 1024);
        root.unlink(b"fill", &file).await.unwrap();
        drop(file);
        fs.volume.no_deletions().await;
        let again = root.create(b"again", NewNode::Regular, ATTR).await.unwrap();
        write(&again, 0, &[9; 100_000]).await.unwrap();
        drop((root, again));
        unmount(fs).await;
    });
    check_clean(&disk.image(), "full");
}

#[test]
fn each_is_mounted_as_what_it_is() {
    let try_as = |arguments: &[&str], family| {
        let image = mke2fs(arguments, 8 * MIB);
        run(async move {
            let host = Host { spawn: |future| exec::spawn("ext2", future), now };
            let how = How { family, ..How::default() };
            let fs = mount_on(TestDisk::new(image, 1), DeviceId::new(254, 0), Vec::new(), how, host).await?;
            let name = fs.type_name();
            unmount(fs).await;
            Ok(name)
        })
    };
    let refused = Err(Errno::EINVAL);
    for (kind, as_ext2, as_ext3) in
        [("ext2", Ok("ext2"), refused), ("ext3", Ok("ext2"), Ok("ext3")), ("ext4", refused, refused)]
    {
        assert_eq!(try_as(&["-t", kind, "-b", "1024"], None), Ok(kind));
        assert_eq!(try_as(&["-t", kind, "-b", "1024"], Some(Family::Ext2)), as_ext2);
        assert_eq!(try_as(&["-t", kind, "-b", "1024"], Some(Family::Ext3)), as_ext3);
        assert_eq!(try_as(&["-t", kind, "-b", "1024"], Some(Family::Ext4)), Ok("ext4"));
    }
}

#[test]
fn attributes_have_checksums() {
    super::xattr::fuzz_attributes(&with(EXT4, &["-b", "1024"]), 56);
}
