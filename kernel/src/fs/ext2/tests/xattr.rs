//! Extended attributes: against a model, e2fsck and debugfs.

use alloc::collections::BTreeMap;

use super::device::debugfs_output;
use super::*;

type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

async fn check(inode: &Arc<dyn Inode>, expected: &Attributes) {
    let names = inode.list_xattr().await.unwrap();
    let mut found = Attributes::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        found.insert(name.to_vec(), inode.get_xattr(name).await.unwrap());
    }
    assert_eq!(found, *expected);
}

fn random_name(rng: &mut Rng) -> Vec<u8> {
    let prefix = ["user", "trusted", "security"][rng.below(3) as usize];
    let tail = "x".repeat([0, 1, 2, 3, 40][rng.below(5) as usize]);
    format!("{prefix}.{}{tail}", rng.below(6)).into_bytes()
}

/// Sets, replaces and removes attributes of several files, and removes files, with remounts in between.
pub(super) fn fuzz_attributes(arguments: &[&str], seed: u64) {
    let disk = TestDisk::new(mke2fs(arguments, 8 * MIB), seed);
    let what = format!("{arguments:?} seed {seed}");
    let mut files: BTreeMap<u64, Attributes> = BTreeMap::new();
    let mut refused = 0;
    for round in 0..3 {
        let (inner, mut rng) = (disk.clone(), Rng(seed * 31 + round));
        (files, refused) = run(async move {
            let fs = mount(&inner).await;
            let root = root_of(&fs);
            for _ in 0..400 {
                let id = rng.below(8);
                let file_name = format!("file{id}").into_bytes();
                let kind = if id < 2 { NewNode::Directory } else { NewNode::Symlink(b"to somewhere") };
                let kind = if id < 5 { kind } else { NewNode::Regular };
                let file = match root.lookup(&file_name).await {
                    Ok(file) => file,
                    Err(_) => root.create(&file_name, kind, ATTR).await.unwrap(),
                };
                let known = files.entry(id).or_default();
                check(&file, known).await;
                let name = random_name(&mut rng);
                match rng.below(12) {
                    0 => {
                        root.unlink(&file_name, &file).await.unwrap();
                        check(&file, known).await;
                        files.remove(&id);
                    }
                    1..=3 => {
                        let removed = file.remove_xattr(&name).await;
                        assert_eq!(removed.is_ok(), known.remove(&name).is_some());
                    }
                    _ => {
                        let len = [0, 3, 20, 70, 300, 800][rng.below(6) as usize];
                        let value = vec![rng.below(256) as u8; len];
                        match file.set_xattr(&name, &value, 0).await {
                            Ok(()) => drop(known.insert(name, value)),
                            Err(errno) => {
                                assert_eq!(errno, Errno::ENOSPC);
                                refused += 1;
                            }
                        }
                    }
                }
            }
            drop(root);
            unmount(fs).await;
            (files, refused)
        });
        check_clean(&disk.image(), &what);
    }
    assert!(refused > 0, "{what}: no file was ever full");
}

#[test]
fn attributes_in_a_block_of_1k() {
    fuzz_attributes(&["-b", "1024", "-I", "128"], 1);
}

#[test]
fn attributes_in_inodes_of_256_and_blocks_of_1k() {
    fuzz_attributes(&["-b", "1024", "-I", "256"], 2);
}

#[test]
fn attributes_in_inodes_of_512_and_blocks_of_2k() {
    fuzz_attributes(&["-b", "2048", "-I", "512", "-O", "^ext_attr"], 3);
}

#[test]
fn others_read_what_we_write_and_we_what_they_write() {
    for inode_size in ["128", "256"] {
        let image = mke2fs(&["-b", "1024", "-I", inode_size], 4 * MIB);
        let long = "l".repeat(200);
        let set = format!("ea_set f user.theirs {long}");
        let image = debugfs(&image, &["mkdir f", "ea_set f user.short hello", &set, "ea_set f trusted.t 1"]);
        let disk = TestDisk::new(image, 5);
        let inner = disk.clone();
        let value = long.clone();
        run(async move {
            let fs = mount(&inner).await;
            let file = root_of(&fs).lookup(b"f").await.unwrap();
            assert_eq!(file.get_xattr(b"user.short").await.unwrap(), b"hello");
            assert_eq!(file.get_xattr(b"user.theirs").await.unwrap(), value.as_bytes());
            assert_eq!(file.get_xattr(b"trusted.t").await.unwrap(), b"1");
            file.set_xattr(b"user.short", b"good day", 0).await.unwrap();
            file.set_xattr(b"user.ours", value.to_uppercase().as_bytes(), 0).await.unwrap();
            file.remove_xattr(b"trusted.t").await.unwrap();
            drop(file);
            unmount(fs).await;
        });
        check_clean(&disk.image(), inode_size);
        let image = disk.image();
        let get = |name| debugfs_output(&image, &format!("ea_get f {name}"));
        assert!(
            get("user.short").contains("\"good day\"") && !debugfs_output(&image, "ea_list f").contains("trusted.t")
        );
        assert!(get("user.theirs").contains(&long) && get("user.ours").contains(&long.to_uppercase()));
    }
}

/// Number of the block of a file's attributes, and how many inodes it says it has.
fn block_of(image: &[u8], file: &str) -> (u32, u32) {
    let text = debugfs_output(image, &format!("stat {file}"));
    let block = text.split("File ACL: ").nth(1).and_then(|rest| rest.split_whitespace().next());
    let block: u32 = block.unwrap().parse().unwrap();
    let count = image[block as usize * 1024 + 4..][..4].try_into().unwrap();
    (block, u32::from_le_bytes(count))
}

/// Three files with one block of attributes, as Linux leaves them that have the same.
fn image_with_shared_block() -> Vec<u8> {
    let image = mke2fs(&["-b", "1024", "-I", "128"], 4 * MIB);
    let image =
        debugfs(&image, &["mkdir a", "ea_set a user.one first", "ea_set a user.two second", "mkdir b", "mkdir c"]);
    let (block, _) = block_of(&image, "a");
    let share = |name: &str| [format!("sif {name} file_acl {block}"), format!("sif {name} blocks 4")];
    let commands: Vec<String> = ["b", "c"].into_iter().flat_map(share).collect();
    let mut image = debugfs(&image, &commands.iter().map(String::as_str).collect::<Vec<_>>());
    image[block as usize * 1024 + 4] = 3;
    check_clean(&image, "as it was made");
    image
}

#[test]
fn a_shared_block_is_copied_before_it_changes() {
    let image = image_with_shared_block();
    let (shared, _) = block_of(&image, "a");
    let disk = TestDisk::new(image, 6);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        let b = root.lookup(b"b").await.unwrap();
        b.set_xattr(b"user.one", b"changed", 0).await.unwrap();
        let c = root.lookup(b"c").await.unwrap();
        assert_eq!(c.get_xattr(b"user.one").await.unwrap(), b"first");
        assert_eq!(b.get_xattr(b"user.two").await.unwrap(), b"second");
        root.unlink(b"c", &c).await.unwrap();
        drop((root, b, c));
        fs.volume.no_deletions().await;
        unmount(fs).await;
    });
    let image = disk.image();
    check_clean(&image, "one changed, one gone");
    assert_eq!(block_of(&image, "a"), (shared, 1));
    assert_ne!(block_of(&image, "b").0, shared);
}

#[test]
fn attributes_that_were_synced_survive_the_copy_of_their_block() {
    for seed in 1..12 {
        let disk = TestDisk::new(image_with_shared_block(), seed);
        let inner = disk.clone();
        run(async move {
            let fs = mount(&inner).await;
            let root = root_of(&fs);
            for name in [&b"a"[..], b"b"] {
                let file = root.lookup(name).await.unwrap();
                file.set_xattr(b"user.new", &[b'n'; 100], 0).await.unwrap();
            }
            inner.cut_after(1 + seed);
            let _ = fs.volume.write_metadata().await;
        });
        // That a block is shared by less inodes than it says is nothing that e2fsck repairs unasked.
        let disk = TestDisk::new(repair(&disk.image_after_power_cut(&mut Rng(seed))), seed);
        run(async move {
            let fs = mount(&disk).await;
            for name in [&b"a"[..], b"b", b"c"] {
                let file = root_of(&fs).lookup(name).await.unwrap();
                assert_eq!(file.get_xattr(b"user.one").await.unwrap(), b"first");
                assert_eq!(file.get_xattr(b"user.two").await.unwrap(), b"second");
            }
        });
    }
}

/// Values grow and shrink, so that attributes move between inode and block, come and go; power goes in the middle of it.
#[test]
fn attributes_that_were_synced_survive_their_moves() {
    for seed in 1..20u64 {
        let disk = TestDisk::new(mke2fs(&["-b", "1024", "-I", "256", "-O", "^ext_attr"], 4 * MIB), seed);
        let inner = disk.clone();
        let known = run(async move {
            let fs = mount(&inner).await;
            let root = root_of(&fs);
            let mut files = Vec::new();
            for name in [&b"a"[..], b"b", b"c"] {
                files.push(root.create(name, NewNode::Regular, ATTR).await.unwrap());
            }
            let mut rng = Rng(seed * 31 + 7);
            // What was synced of each file, and what it may be by now.
            let mut known = vec![BTreeMap::<Vec<u8>, Vec<Option<Vec<u8>>>>::new(); 3];
            fs.sync().await.unwrap();
            inner.cut_after(1 + rng.below(80));
            while inner.has_power() {
                let index = rng.below(3) as usize;
                let name = format!("user.{}", rng.below(4)).into_bytes();
                let value = (rng.below(5) > 0).then(|| vec![rng.below(256) as u8; [5, 40, 100][rng.below(3) as usize]]);
                let done = match &value {
                    Some(value) => files[index].set_xattr(&name, value, 0).await,
                    None => files[index].remove_xattr(&name).await,
                };
                assert!(matches!(done, Ok(()) | Err(Errno::ENODATA | Errno::ENOSPC)), "{done:?}");
                if done.is_ok() {
                    known[index].entry(name).or_insert_with(|| vec![None]).push(value);
                }
                match rng.below(6) {
                    0 => {
                        fs.sync().await.unwrap();
                        if inner.has_power() {
                            known
                                .iter_mut()
                                .flat_map(|of| of.values_mut())
                                .for_each(|values| drop(values.drain(..values.len() - 1)));
                        }
                    }
                    1 => drop(fs.volume.write_metadata().await),
                    _ => {}
                }
            }
            known
        });
        let image = preen(&disk.image_after_power_cut(&mut Rng(seed)));
        let image = image.unwrap_or_else(|text| panic!("seed {seed}: e2fsck asks:\n{text}"));
        let disk = TestDisk::new(image, seed);
        run(async move {
            let fs = mount(&disk).await;
            for (file, known) in [&b"a"[..], b"b", b"c"].into_iter().zip(known) {
                let file = root_of(&fs).lookup(file).await.unwrap();
                for (name, values) in known {
                    let value = match file.get_xattr(&name).await {
                        Ok(value) => Some(value),
                        Err(errno) => {
                            assert_eq!(errno, Errno::ENODATA);
                            None
                        }
                    };
                    assert!(values.contains(&value), "seed {seed}: {:?}, one of {values:?}", value);
                }
            }
        });
    }
}

/// Three values in one place: each padded, they are more than there is room for.
#[test]
fn a_damaged_list_of_attributes_is_not_thrown_away() {
    let image = mke2fs(&["-b", "1024", "-I", "256"], 4 * MIB);
    let commands = ["mknod a p", "ea_set a user.a x", "ea_set a user.b y", "ea_set a user.c z"];
    let mut damaged = debugfs(&image, &commands);
    let at = damaged.windows(4).position(|bytes| bytes == [0, 0, 2, 0xea]).unwrap();
    for entry in [at + 4, at + 24, at + 44] {
        damaged[entry + 2..entry + 4].fill(0);
        damaged[entry + 8..entry + 12].copy_from_slice(&30u32.to_le_bytes());
    }
    let disk = TestDisk::new(damaged.clone(), 5);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let file = root_of(&fs).lookup(b"a").await.unwrap();
        assert_eq!(file.set_xattr(b"user.b", b"new", 0).await, Err(Errno::EIO));
        assert_eq!(file.remove_xattr(b"user.b").await, Err(Errno::EIO));
        drop(file);
        unmount(fs).await;
    });
    assert!(disk.image()[at..at + 96] == damaged[at..at + 96], "it was thrown away");
}

#[test]
fn a_full_disk_and_a_failing_one_leave_attributes_as_they_were() {
    let disk = TestDisk::new(image_with_shared_block(), 7);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        let (a, b) = (root.lookup(b"a").await.unwrap(), root.lookup(b"b").await.unwrap());
        let before = a.metadata().blocks;
        inner.fail_writes.store(true, Ordering::Relaxed);
        a.set_xattr(b"user.one", b"later", 0).await.unwrap();
        assert_eq!(a.sync(false).await, Err(Errno::EIO));
        inner.fail_writes.store(false, Ordering::Relaxed);
        a.sync(false).await.unwrap();
        assert_eq!(a.get_xattr(b"user.one").await.unwrap(), b"later");
        let fill = root.create(b"fill", NewNode::Regular, ATTR).await.unwrap();
        let mut pos = 0;
        while write(&fill, pos, &[7; 1024]).await.is_ok() {
            pos += 1024;
        }
        fs.sync().await.unwrap();
        while fs.volume.groups.available_blocks() > 0 {
            root.create(format!("d{}", fs.volume.groups.free_blocks()).as_bytes(), NewNode::Directory, ATTR)
                .await
                .unwrap();
        }
        let empty = root.create(b"empty", NewNode::Regular, ATTR).await.unwrap();
        assert_eq!(empty.set_xattr(b"user.a", b"x", 0).await, Err(Errno::ENOSPC));
        assert_eq!(b.set_xattr(b"user.one", b"no room", 0).await, Err(Errno::ENOSPC));
        assert_eq!(b.get_xattr(b"user.one").await.unwrap(), b"first");
        assert_eq!(a.metadata().blocks, before);
        drop((root, a, b, fill, empty));
        unmount(fs).await;
    });
    check_clean(&disk.image(), "full disk");
}

#[test]
fn blocks_that_hold_no_attributes_are_refused() {
    let image = image_with_shared_block();
    let (block, _) = block_of(&image, "a");
    for (at, value) in [(0, 7), (8, 2), (34, 255), (35, 255), (36, 1), (40, 255), (41, 255)] {
        let mut image = image.clone();
        image[block as usize * 1024 + at] = value;
        let disk = TestDisk::new(image, 8);
        run(async move {
            let fs = mount(&disk).await;
            let root = root_of(&fs);
            let a = root.lookup(b"a").await.unwrap();
            assert_eq!(a.list_xattr().await, Err(Errno::EIO), "byte {at}");
            assert_eq!(a.set_xattr(b"user.new", b"x", 0).await, Err(Errno::EIO), "byte {at}");
            root.unlink(b"a", &a).await.unwrap();
            drop(a);
            fs.volume.no_deletions().await;
        });
    }
}

#[test]
fn revision_0_has_no_attributes() {
    let disk = TestDisk::new(mke2fs(&["-r", "0", "-b", "1024"], 4 * MIB), 9);
    run(async move {
        let fs = mount(&disk).await;
        let root = root_of(&fs);
        assert_eq!(root.set_xattr(b"user.a", b"x", 0).await, Err(Errno::EOPNOTSUPP));
        assert_eq!(root.get_xattr(b"user.a").await, Err(Errno::ENODATA));
        assert_eq!(root.list_xattr().await.unwrap(), []);
    });
}
