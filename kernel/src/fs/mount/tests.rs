//! Changes of the tree of mounts beside others.

use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::task::Poll;

use super::*;
use crate::fs::dentry::Doomed;
use crate::fs::inode::{NewAttr, NewNode};
use crate::fs::tmpfs::TmpFs;
use crate::mm::test_util::run;

async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

fn root_of_new(flags: MountFlags) -> Path {
    mount_root(TmpFs::new("tmpfs", b"test", Default::default()), flags)
}

/// A file in the root of a mount.
async fn file_in(root: &Path, name: &[u8]) -> Path {
    let attr = NewAttr { perm: 0o644, uid: 0, gid: 0 };
    let inode = root.inode().create(name, NewNode::Regular, attr).await.unwrap();
    Path { mount: root.mount.clone(), dentry: super::super::dentry::insert(&root.dentry, name, inode) }
}

/// A file that somebody tries in vain to remove can be mounted on.
#[test]
fn who_mounts_on_a_file_waits_for_its_removal() {
    run(async {
        let root = root_of_new(MountFlags::empty());
        let (source, place) = (file_in(&root, b"source").await, file_in(&root, b"place").await);
        let dir = root.inode().clone();
        let guard = dir.state().lock.lock().await;
        let doomed = Doomed::new(&place.dentry).unwrap();
        let mut binding = pin!(bind(&source, place.clone(), false));
        assert!(poll_once(binding.as_mut()).await.is_pending());
        drop(doomed);
        drop(guard);
        assert_eq!(binding.await, Ok(()));
        assert!(mounted_on(&place).is_some());
    });
}

/// Whether a mount becomes read-only is known before somebody writes through it.
#[test]
fn writers_wait_for_the_flags_of_their_mount() {
    run(async {
        let root = root_of_new(MountFlags::empty());
        for (flags, outcome) in [(MountFlags::empty(), Ok(())), (MountFlags::RDONLY, Err(Errno::EROFS))] {
            let changes = CHANGES.lock().await;
            let held = root.mount.writers.hold().unwrap();
            let mut writing = pin!(root.mount.writing());
            assert!(poll_once(writing.as_mut()).await.is_pending());
            root.mount.set_flags(flags);
            drop(held);
            drop(changes);
            assert_eq!(Writing::outcome(&writing.await), outcome);
        }
    });
}

/// A file system that takes its time to be stored.
struct Slow {
    tree: Arc<TmpFs>,
    stored: AtomicBool,
}

impl FileSystem for Slow {
    fn type_name(&self) -> &'static str {
        "slow"
    }

    fn source(&self) -> alloc::vec::Vec<u8> {
        self.tree.source()
    }

    fn root(&self) -> Arc<dyn crate::fs::inode::Inode> {
        self.tree.root()
    }

    fn device(&self) -> crate::fs::inode::DeviceId {
        self.tree.device()
    }

    fn statfs(&self) -> crate::fs::inode::StatFs {
        self.tree.statfs()
    }

    fn set_read_only(&self, _read_only: bool) -> Op<'_, Result<()>> {
        Op::boxed(async {
            for _ in 0..3 {
                exec::yield_now().await;
            }
            self.stored.store(true, Ordering::Relaxed);
            Ok(())
        })
    }
}

fn is_known(fs: &Arc<dyn FileSystem>) -> bool {
    file_systems().iter().any(|known| Arc::ptr_eq(known, fs))
}

/// What is being unmounted is stored, also when nobody waits for it any more, and until then sync(2) and power-off know of it.
#[test]
fn what_ends_is_known_until_it_is_stored() {
    run(async {
        for waited in [false, true] {
            let tree = TmpFs::new("tmpfs", b"test", Default::default());
            let slow = Arc::new(Slow { tree, stored: AtomicBool::new(false) });
            let fs: Arc<dyn FileSystem> = slow.clone();
            let instance = Instance::of(fs.clone());
            assert!(is_known(&fs) && is_mounted(&fs));
            if waited {
                let ending = instance.end_if_last().unwrap();
                drop(instance);
                // Who waits for it is killed.
                assert!(poll_once(pin!(end(ending))).await.is_pending());
            } else {
                drop(instance);
            }
            assert!(!is_mounted(&fs));
            while !slow.stored.load(Ordering::Relaxed) {
                assert!(is_known(&fs), "waited {waited}");
                exec::yield_now().await;
            }
            // It can be mounted again, as one.
            let again = Instance::of(fs.clone());
            assert!(Arc::ptr_eq(&again, &Instance::of(fs.clone())));
            assert_eq!(file_systems().iter().filter(|known| Arc::ptr_eq(known, &fs)).count(), 1);
        }
    });
}
