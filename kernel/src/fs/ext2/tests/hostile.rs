//! Images that somebody has made to be mounted here, or that a disk has damaged.

use super::device::debugfs_output;
use super::*;

fn number(text: &str, after: &str) -> usize {
    let rest = text.split(after).nth(1).unwrap_or_else(|| panic!("{after} in {text}"));
    rest.trim_start().split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// A bitmap that says that everything is free: no block of somebody else is given out, and it gets no good checksum.
#[test]
fn a_damaged_bitmap_is_not_used() {
    for arguments in [&["-b", "1024"][..], &["-t", "ext4", "-O", "^has_journal", "-b", "1024"]] {
        for inodes in [false, true] {
            let mut image = mke2fs(arguments, 4 * MIB);
            let text = debugfs_output(&image, "stats");
            let bitmap = number(&text, if inodes { "inode bitmap at" } else { "block bitmap at" }) * 1024;
            if inodes && arguments.len() == 2 {
                continue;
            }
            image[bitmap..bitmap + 512].fill(0);
            let before = image.clone();
            let disk = TestDisk::new(image, 1);
            let inner = disk.clone();
            run(async move {
                let fs = mount(&inner).await;
                let root = root_of(&fs);
                let result = match root.create(b"file", NewNode::Regular, ATTR).await {
                    Ok(file) => {
                        let _ = write(&file, 0, &[1; 5000]).await;
                        file.sync(false).await
                    }
                    Err(errno) => Err(errno),
                };
                assert_eq!(result, Err(Errno::EIO));
                // It is the only group.
                assert_eq!((fs.volume.groups.free_blocks(), fs.volume.groups.free_inodes()), (0, 0));
                let state = fs.volume.superblock.lock().state.get();
                assert!(state & crate::fs::ext2::layout::STATE_ERRORS != 0);
                let _ = fs.set_read_only(true).await;
            });
            assert!(disk.image()[bitmap..bitmap + 1024] == before[bitmap..bitmap + 1024], "{arguments:?}");
        }
    }
}

/// The file system can be mounted for writing all the same, and files stay.
#[test]
fn a_list_of_orphans_that_makes_no_sense_is_given_up() {
    let image = mke2fs(&["-b", "1024"], 4 * MIB);
    let image = super::device::debugfs_session(&image, &[5; 3000], &["write FILE file", "write FILE other"]);
    let orphan = |more: &[&str]| {
        let commands = ["kill_file other", "unlink other", "sif <13> links_count 0", "ssv last_orphan 13"];
        debugfs(&image, &[&commands[2..], more].concat())
    };
    // It leads to itself; to where no inode is; to one that is free.
    for next in ["13", "1700000000", "40", "2"] {
        let disk = TestDisk::new(orphan(&[&format!("sif <13> dtime {next}")]), 4);
        run(async move {
            let fs = mount(&disk).await;
            assert!(!fs.read_only());
            let root = root_of(&fs);
            assert!(read(&root.lookup(b"file").await.unwrap()).await.unwrap() == [5; 3000]);
            assert_eq!(root.lookup(b"other").await.err(), Some(Errno::ENOENT), "dtime {next}");
            let state = fs.volume.superblock.lock().state.get();
            assert!(state & crate::fs::ext2::layout::STATE_ERRORS != 0, "dtime {next}");
        });
    }
}

/// Behind the end of a file that was being made shorter is nothing to be seen when it grows.
#[test]
fn the_rest_of_a_block_is_zeroed_for_who_was_being_made_shorter() {
    let image = mke2fs(&["-b", "1024"], 4 * MIB);
    let image = super::device::debugfs_session(
        &image,
        &[5; 3000],
        &["write FILE file", "sif file size 1500", "ssv last_orphan 12"],
    );
    let disk = TestDisk::new(image, 4);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let file = root_of(&fs).lookup(b"file").await.unwrap();
        file.set_attr(SetAttr { size: Some(3000), ..SetAttr::default() }).await.unwrap();
        let data = read(&file).await.unwrap();
        assert!(data[..1500] == [5; 1500] && data[1500..] == [0; 1500]);
        drop(file);
        unmount(fs).await;
    });
    check_clean(&disk.image(), "made shorter");
}

/// Five levels of nodes, each with one child so often as there is room; nothing in the leaf is to be freed.
#[test]
fn a_tree_of_shared_nodes_is_given_up() {
    let image = mke2fs(&["-t", "ext4", "-O", "^has_journal,^metadata_csum", "-b", "1024"], 4 * MIB);
    let image = super::device::debugfs_session(&image, &[5; 6 * 1024], &["write FILE nodes", "write FILE file"]);
    let text = debugfs_output(&image, "blocks nodes");
    let blocks: Vec<u32> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let inode = debugfs_output(&image, "imap file");
    let (block, offset) = (number(&inode, "located at block"), inode.split("offset 0x").nth(1).unwrap().trim());
    let at = block * 1024
        + usize::from_str_radix(offset.split(|c: char| !c.is_ascii_hexdigit()).next().unwrap(), 16).unwrap();
    let mut image = image;
    let header = |count: u16, max: u16, depth: u16| {
        [0xf30a, count, max, depth, 0, 0].into_iter().flat_map(u16::to_le_bytes).collect::<Vec<u8>>()
    };
    let entry = |key: u32, block: u32| [key, block, 0].into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>();
    for depth in 0..5usize {
        let mut node = header(if depth == 0 { 1 } else { 84 }, 84, depth as u16);
        match depth {
            0 => node.extend([2_000_000, 1, blocks[5]].into_iter().flat_map(u32::to_le_bytes)),
            _ => (0..84).for_each(|key| node.extend(entry(key, blocks[depth - 1]))),
        }
        let to = blocks[depth] as usize * 1024;
        image[to..to + node.len()].copy_from_slice(&node);
    }
    let root = [header(4, 4, 5), (0..4).flat_map(|key| entry(key, blocks[4])).collect()].concat();
    image[at + 40..at + 100].copy_from_slice(&root);
    image[at + 4..at + 8].copy_from_slice(&(1u32 << 31).to_le_bytes());
    let disk = TestDisk::new(image, 4);
    run(async move {
        let fs = mount(&disk).await;
        let file = root_of(&fs).lookup(b"file").await.unwrap();
        let mode = linux_raw_sys::general::FALLOC_FL_PUNCH_HOLE | linux_raw_sys::general::FALLOC_FL_KEEP_SIZE;
        assert_eq!(file.allocate(mode, 0, 400 << 20).await, Err(Errno::EIO));
    });
}

/// Each name of it would cost memory, as often as the block is in the map.
#[test]
fn a_directory_that_has_a_block_twice_is_refused() {
    let image = mke2fs(&["-b", "1024"], 4 * MIB);
    let image = debugfs(&image, &["mkdir d"]);
    let block = debugfs_output(&image, "blocks d");
    let block = block.split_whitespace().next().unwrap();
    let image = debugfs(&image, &[&format!("sif d block[1] {block}"), "sif d size 2048", "sif d blocks 4"]);
    run(async move {
        let fs = mount(&TestDisk::new(image, 4)).await;
        let dir = root_of(&fs).lookup(b"d").await.unwrap();
        assert_eq!(dir.lookup(b"x").await.err(), Some(Errno::EIO));
    });
}
