//! What becomes of a volume when its mounts go.

use super::*;
use crate::fs::MountFlags;
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
