//! Files that are written through mappings.

use alloc::boxed::Box;

use linux_raw_sys::general as raw;

use super::*;
use crate::fs::file_source::FileSource;
use crate::fs::tests::{World, poll_once};
use crate::mm::{AddressSpace, MapFlags, MmapRequest, PAGE_SIZE, Prot, UserPtr};

const PAGE: u64 = PAGE_SIZE as u64;
const MS_SYNC: u32 = 4;

/// A new file of two pages, and an address space, the current one, in which it is mapped at the answered place.
async fn mapped(fs: &Arc<Ext2>) -> (Arc<dyn Inode>, Arc<AddressSpace>, u64) {
    let world = World::of(fs.clone());
    let file = world.open("/file", raw::O_RDWR | raw::O_CREAT).await.unwrap();
    let inode = file.inode().clone();
    write(&inode, 0, &[1; 2 * PAGE_SIZE]).await.unwrap();
    let cache = inode.page_cache().unwrap().clone();
    let space = AddressSpace::new().unwrap();
    let source: Arc<dyn crate::mm::PageSource> = FileSource::new(&file, &cache);
    let (len, prot) = (2 * PAGE, Prot::READ | Prot::WRITE);
    let request = MmapRequest { addr: 0, len, prot, flags: MapFlags::SHARED, source: Some(source), offset: 0 };
    let addr = space.mmap(request).await.unwrap();
    space.activate();
    (inode, space, addr)
}

async fn leave(space: Arc<AddressSpace>) {
    space.teardown().await;
    AddressSpace::deactivate();
}

/// msync(2) does what fsync(2) does: power may go when it has answered.
#[test]
fn what_was_synced_by_way_of_a_mapping_is_on_the_disk() {
    let disk = TestDisk::new(mke2fs(&["-b", "1024"], 4 * MIB), 11);
    let inner = disk.clone();
    run(async move {
        let fs = mount(&inner).await;
        let (_inode, space, addr) = mapped(&fs).await;
        let flushes = async |byte: u8| {
            UserPtr::new(addr).write(&space, byte).await.unwrap();
            let before = inner.flushes.load(Ordering::Relaxed);
            space.msync(addr, PAGE, MS_SYNC).await.unwrap();
            inner.flushes.load(Ordering::Relaxed) - before
        };
        assert_eq!(flushes(2).await, 2, "a new file, whose data go first");
        assert_eq!(flushes(3).await, 1, "data only");
        leave(space).await;
    });
    let image = repair_after_cut(&disk.image_after_power_cut(&mut Rng(5)), "after msync");
    let disk = TestDisk::new(image, 12);
    run(async move {
        let fs = mount(&disk).await;
        let file = root_of(&fs).lookup(b"file").await.unwrap();
        assert_eq!(read(&file).await.unwrap()[..2], [3, 1]);
    });
}

/// Who stores pages is killed before, while and after they are taken out of the mappings: what is written there then is noticed.
#[test]
fn a_write_back_that_is_given_up_leaves_no_mapping_that_is_written_to_unnoticed() {
    for polls in 1..6 {
        let disk = TestDisk::new(mke2fs(&["-b", "1024"], 4 * MIB), polls);
        run(async move {
            let fs = mount(&disk).await;
            // Before the other one in the list, so that there is a turn between.
            let _first = AddressSpace::new().unwrap();
            let (inode, space, addr) = mapped(&fs).await;
            let byte = UserPtr::<u8>::new(addr);
            byte.write(&space, 2).await.unwrap();
            let mut given_up = Box::pin(inode.page_cache().unwrap().write_back(0..u64::MAX));
            for _ in 0..polls {
                // So long that each look at the clock ends its turn.
                arch::sim::advance(1_000_000_000);
                if poll_once(given_up.as_mut()).await.is_ready() {
                    break;
                }
            }
            drop(given_up);
            for value in [3, 4] {
                byte.write(&space, value).await.unwrap();
                assert!(inode.page_cache().unwrap().dirty_count() > 0, "{polls} polls: {value}");
                inode.sync(false).await.unwrap();
            }
            inode.page_cache().unwrap().forget(0..u64::MAX).await;
            assert_eq!(read(&inode).await.unwrap()[0], 4);
            leave(space).await;
        });
    }
}
