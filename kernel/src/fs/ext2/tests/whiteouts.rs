//! RENAME_WHITEOUT.

use super::*;

#[test]
fn a_whiteout_takes_the_old_place_or_nothing_moves() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024", "-N", "64"], 4 * MIB), 3);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let root = root_of(&fs);
        let dir = root.create(b"dir", NewNode::Directory, ATTR).await.unwrap();
        let mut moved = 0;
        let full = loop {
            let (old, new) = (format!("old{moved}").into_bytes(), format!("new{moved}").into_bytes());
            let file = match root.create(&old, NewNode::Regular, ATTR).await {
                Ok(file) => file,
                Err(errno) => break errno,
            };
            let target = if moved % 2 == 0 { &dir } else { &root };
            if let Err(errno) = root.rename(&old, &file, target, &new, None, RenameFlags::WHITEOUT).await {
                // There was an inode for the file, and none for the whiteout.
                assert_eq!(root.lookup(&old).await.unwrap().metadata().ino, file.metadata().ino);
                assert_eq!(target.lookup(&new).await.err(), Some(Errno::ENOENT));
                break errno;
            }
            assert_eq!(target.lookup(&new).await.unwrap().metadata().ino, file.metadata().ino);
            let left = root.lookup(&old).await.unwrap().metadata();
            assert_eq!((left.kind, left.rdev, left.nlink), (FileType::CharDevice, DeviceId::default(), 1));
            moved += 1;
        };
        assert_eq!(full, Errno::ENOSPC);
        assert!(moved > 10);
        let left = root.lookup(b"old0").await.unwrap();
        root.unlink(b"old0", &left).await.unwrap();
        drop((root, dir, left));
        fs.volume.no_deletions().await;
        unmount(fs).await;
    });
    check_clean(&disk.image(), "whiteouts");
}
