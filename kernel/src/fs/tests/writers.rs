//! Changes that are under way while the file system is to become read-only.

use alloc::boxed::Box;
use core::pin::{Pin, pin};

use super::*;
use crate::fs::configure::reconfigure;

async fn to_read_only(w: &World, read_only: bool) -> Result<()> {
    let instance = w.fs.root().mount.instance().clone();
    reconfigure(&instance, Some(read_only), b"", async || ()).await
}

/// What has begun counts as a writer until it has ended.
#[test]
fn a_change_that_waits_keeps_the_file_system_writable() {
    block_on(async {
        let w = World::new();
        w.mkdir("/d").await.unwrap();
        for name in ["/d/old", "/d/moved"] {
            w.create(name).await.unwrap();
        }
        // The lookup waits for nothing.
        assert_eq!(w.ino("/d/file").await, Err(Errno::ENOENT));
        let flags = RenameFlags::empty();
        let changes: [op::BoxFuture<'_, Result<()>>; 5] = [
            Box::pin(w.mkdir("/d/new")),
            Box::pin(w.create("/d/file")),
            Box::pin(w.unlink("/d/old")),
            Box::pin(w.rename("/d/moved", "/d/there", flags)),
            Box::pin(w.symlink("nowhere", "/d/link")),
        ];
        for mut change in changes {
            let dir = w.find("/d", Flags::empty()).await.unwrap();
            let locked = dir.inode().state().lock.lock().await;
            assert!(poll_once(Pin::new(&mut change)).await.is_pending());
            assert_eq!(to_read_only(&w, true).await, Err(Errno::EBUSY));
            drop(locked);
            assert_eq!(change.await, Ok(()));
            assert_eq!(to_read_only(&w, true).await, Ok(()));
            assert_eq!(to_read_only(&w, false).await, Ok(()));
        }
        assert_eq!(w.list("/d").await, ["file", "link", "new", "there"]);
    });
}

/// A file that is made can be opened by its maker, or none is made.
#[test]
fn a_file_is_made_and_opened_or_neither() {
    block_on(async {
        let w = World::new();
        w.mkdir("/d").await.unwrap();
        assert_eq!(w.ino("/d/file").await, Err(Errno::ENOENT));
        let dir = w.find("/d", Flags::empty()).await.unwrap();
        let locked = dir.inode().state().lock.lock().await;
        let mut opening = pin!(w.open("/d/file", raw::O_CREAT | raw::O_EXCL | raw::O_WRONLY));
        assert!(poll_once(opening.as_mut()).await.is_pending());
        assert_eq!(to_read_only(&w, true).await, Err(Errno::EBUSY));
        drop(locked);
        let file = opening.await.unwrap();
        assert_eq!(to_read_only(&w, true).await, Err(Errno::EBUSY));
        drop(file);
        assert_eq!(to_read_only(&w, true).await, Ok(()));
        assert_eq!(w.create("/d/other").await, Err(Errno::EROFS));
        assert_eq!(w.list("/d").await, ["file"]);
        assert_eq!(to_read_only(&w, false).await, Ok(()));
        assert_eq!(w.create("/d/other").await, Ok(()));
    });
}
