//! The page cache over a disk in memory.

mod truncate;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::task::Poll;
use core::time::Duration;

use super::super::addr::{PAGE, PAGE_SIZE};
use super::super::test_util::{Rng, anonymous, run};
use super::super::uaccess::UserPtr;
use super::super::{AddressSpace, IoBuf, MapFlags, Prot, Toucher, space};
use super::*;
use crate::errno::Errno;
use crate::exec;
use crate::sync::SpinLock;

/// A file on a disk that takes a few polls for everything.
struct Disk {
    data: SpinLock<Vec<u8>>,
    size: AtomicU64,
    reads: AtomicUsize,
    writes: AtomicUsize,
    broken: AtomicBool,
    starved: AtomicBool,
    device: AtomicU64,
}

impl Disk {
    async fn delay(&self) -> Result<()> {
        for _ in 0..3 {
            exec::yield_now().await;
        }
        if self.starved.load(Ordering::Relaxed) {
            return Err(Errno::ENOMEM);
        }
        if self.broken.load(Ordering::Relaxed) { Err(Errno::EIO) } else { Ok(()) }
    }
}

impl PageIo for Disk {
    fn device(&self) -> u64 {
        self.device.load(Ordering::Relaxed)
    }

    fn read_pages<'a>(&'a self, first: u64, pages: &'a [CachePage]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.delay().await?;
            for (index, page) in pages.iter().enumerate() {
                assert_eq!(page.index(), first + index as u64);
                page.frame().zero(0..PAGE_SIZE);
                let data = self.data.lock();
                let start = (page.index() * PAGE) as usize;
                if start < data.len() {
                    page.frame().copy_in(0, &data[start..]);
                }
            }
            Ok(())
        })
    }

    fn write_pages<'a>(&'a self, first: u64, pages: &'a [CachePage]) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.writes.fetch_add(1, Ordering::Relaxed);
            self.delay().await?;
            for (index, page) in pages.iter().enumerate() {
                assert_eq!(page.index(), first + index as u64);
                let mut data = self.data.lock();
                let start = (page.index() * PAGE) as usize;
                let end = (start + PAGE_SIZE).min(self.size.load(Ordering::Relaxed) as usize);
                if start < end {
                    let len = data.len().max(end);
                    data.resize(len, 0);
                    page.frame().copy_out(0, &mut data[start..end]);
                }
            }
            Ok(())
        })
    }
}

struct File {
    disk: Arc<Disk>,
    cache: Arc<PageCache>,
}

impl File {
    fn new(data: Vec<u8>) -> Arc<File> {
        let disk = Arc::new(Disk {
            size: AtomicU64::new(data.len() as u64),
            data: SpinLock::new(data),
            reads: AtomicUsize::new(0),
            writes: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
            starved: AtomicBool::new(false),
            device: AtomicU64::new(1),
        });
        let io: Arc<dyn PageIo> = disk.clone();
        Arc::new(File { cache: PageCache::new(Arc::downgrade(&io)), disk })
    }

    fn size(&self) -> u64 {
        self.disk.size.load(Ordering::Relaxed)
    }

    async fn read(&self, pos: u64, len: usize) -> Result<Vec<u8>> {
        let mut data = vec![0xee; len];
        let n = self.cache.read(pos, self.size(), &mut IoBuf::kernel_mut(&mut data)).await?;
        data.truncate(n);
        Ok(data)
    }

    async fn write(&self, pos: u64, data: &[u8]) -> Result<usize> {
        let n = self.cache.write(pos, self.size(), &mut IoBuf::kernel(data)).await?;
        self.disk.size.fetch_max(pos + n as u64, Ordering::Relaxed);
        Ok(n)
    }

    async fn truncate(&self, size: u64) {
        let shorter = size < self.size();
        self.disk.size.store(size, Ordering::Relaxed);
        let len = self.disk.data.lock().len();
        self.disk.data.lock().truncate(size.min(len as u64) as usize);
        if shorter {
            self.cache.truncate(size).await;
        }
    }
}

impl PageSource for File {
    fn cache(&self) -> &Arc<PageCache> {
        &self.cache
    }
    fn file_size(&self) -> u64 {
        self.size()
    }
    fn name(&self) -> String {
        "/file".into()
    }
    fn dev_ino(&self) -> (u64, u64) {
        (1, 2)
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 + at / PAGE_SIZE) as u8).collect()
}

#[test]
fn a_file_reads_as_what_was_written() {
    run(async {
        let mut rng = Rng(99);
        let mut model = pattern(100_000);
        let file = File::new(model.clone());
        for round in 0..600 {
            let pos = rng.below(130_000);
            let len = rng.below(if round % 4 == 0 { 40_000 } else { 300 }) as usize;
            match rng.below(12) {
                0..=3 => {
                    let from = (pos as usize).min(model.len());
                    let to = (from + len).min(model.len());
                    assert_eq!(file.read(pos, len).await.unwrap(), model[from..to]);
                }
                4..=8 => {
                    let data: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
                    assert_eq!(file.write(pos, &data).await, Ok(len));
                    if len > 0 {
                        let end = (pos as usize + len).max(model.len());
                        model.resize(end, 0);
                        model[pos as usize..pos as usize + len].copy_from_slice(&data);
                    }
                }
                9 => {
                    file.truncate(pos).await;
                    model.resize(pos as usize, 0);
                }
                10 => file.cache.write_back(0..u64::MAX).await.unwrap(),
                _ => file.cache.invalidate(0..u64::MAX),
            }
            assert_eq!(file.size(), model.len() as u64);
        }
        file.cache.write_back(0..u64::MAX).await.unwrap();
        assert_eq!(file.cache.dirty_count(), 0);
        file.cache.invalidate(0..u64::MAX);
        assert_eq!(file.cache.page_count(), 0);
        assert_eq!(file.read(0, 1 << 20).await.unwrap(), model);
    });
}

/// For tests that call `sync_all`: a test's machine knows nothing of rounds on others.
fn one_round_at_a_time() -> std::sync::MutexGuard<'static, ()> {
    static ROUNDS: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ROUNDS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Who is killed in the middle of sync(2) must not keep others' pages from being stored.
#[test]
fn a_sync_that_is_given_up_forgets_no_file() {
    let _alone = one_round_at_a_time();
    run(async {
        let files: Vec<_> = (0..3).map(|_| File::new(Vec::new())).collect();
        for file in &files {
            file.write(0, &[7; 100]).await.unwrap();
        }
        for polls in 0..12 {
            let mut sync = Box::pin(sync_all());
            for _ in 0..polls {
                let once = poll_fn(|cx| Poll::Ready(sync.as_mut().poll(cx).is_ready()));
                if once.await {
                    break;
                }
                exec::yield_now().await;
            }
            drop(sync);
        }
        sync_all().await.unwrap();
        for file in &files {
            assert_eq!(file.cache.dirty_count(), 0);
        }
    });
}

/// Files of others are neither stored with those of a device nor do their errors count.
#[test]
fn files_of_one_device_are_stored_by_themselves() {
    let _alone = one_round_at_a_time();
    run(async {
        let files: Vec<_> = (0..6).map(|_| File::new(Vec::new())).collect();
        for (index, file) in files.iter().enumerate() {
            // Device numbers that no other test has.
            file.disk.device.store(1000 + index as u64 % 2, Ordering::Relaxed);
            file.disk.broken.store(index % 2 == 0, Ordering::Relaxed);
            file.write(0, &[7; 100]).await.unwrap();
        }
        assert_eq!(sync_device(1001).await, Ok(()));
        let dirty = || files.iter().map(|file| file.cache.dirty_count()).collect::<Vec<_>>();
        assert_eq!(dirty(), [1, 0, 1, 0, 1, 0]);
        assert_eq!(sync_device(1000).await, Err(Errno::EIO));
        assert_eq!(dirty(), [0; 6]);
    });
}

#[test]
fn what_is_dirty_is_stored_in_time_or_when_it_is_wanted() {
    run(async {
        let files: &'static rounds::Files = Box::leak(Box::new(rounds::Files::new()));
        exec::spawn("flush", files.flush());
        let file = File::new(Vec::new());
        let io: Arc<dyn PageIo> = file.disk.clone();
        let dirty_after = async |seconds| {
            exec::sleep_until(exec::Instant::now().saturating_add(Duration::from_secs(seconds))).await;
            file.cache.dirty_count()
        };
        for wanted in [false, true] {
            // In a list of its own: other tests have no part in it.
            file.cache.listed.store(true, Ordering::Relaxed);
            file.write(0, &[7; 2 * PAGE_SIZE]).await.unwrap();
            files.push(rounds::DirtyFile::new(file.cache.clone(), io.clone()));
            assert_eq!(dirty_after(29).await, 2);
            if wanted {
                files.want();
                assert_eq!(dirty_after(0).await, 2);
                assert_eq!(dirty_after(1).await, 0);
            } else {
                assert_eq!(dirty_after(2).await, 0);
            }
            assert_eq!(*file.disk.data.lock(), [7; 2 * PAGE_SIZE]);
        }
    });
}

#[test]
fn what_could_not_be_stored_for_want_of_memory_stays_dirty() {
    let _alone = one_round_at_a_time();
    run(async {
        let file = File::new(Vec::new());
        file.write(0, &[7; 2 * PAGE_SIZE]).await.unwrap();
        file.disk.starved.store(true, Ordering::Relaxed);
        assert_eq!(file.cache.write_back(0..u64::MAX).await, Err(Errno::ENOMEM));
        assert_eq!(file.cache.dirty_count(), 2);
        file.disk.starved.store(false, Ordering::Relaxed);
        file.cache.write_back(0..u64::MAX).await.unwrap();
        assert_eq!(*file.disk.data.lock(), [7; 2 * PAGE_SIZE]);
    });
}

#[test]
fn many_readers_share_one_read() {
    run(async {
        let file = File::new(pattern(3 * PAGE_SIZE));
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..10 {
            let (file, done) = (file.clone(), done.clone());
            exec::spawn("reader", async move {
                assert_eq!(file.read(5000, 10).await.unwrap(), pattern(3 * PAGE_SIZE)[5000..5010]);
                done.fetch_add(1, Ordering::Relaxed);
            });
        }
        while done.load(Ordering::Relaxed) < 10 {
            exec::yield_now().await;
        }
        assert_eq!(file.disk.reads.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn sequential_reads_read_ahead() {
    run(async {
        let len = 512 * PAGE_SIZE;
        let file = File::new(pattern(len));
        for page in 0..512 {
            assert_eq!(file.read(page * PAGE, 1).await.unwrap().len(), 1);
        }
        let reads = file.disk.reads.load(Ordering::Relaxed);
        assert!(reads < 20, "{reads}");
    });
}

#[test]
fn a_read_that_is_given_up_leaves_no_trace() {
    run(async {
        for polls in 1..6 {
            let file = File::new(pattern(PAGE_SIZE));
            {
                let mut future = Box::pin(file.read(0, 10));
                let mut left = polls;
                poll_fn(|context| {
                    if future.as_mut().poll(context).is_ready() {
                        return Poll::Ready(());
                    }
                    left -= 1;
                    if left == 0 { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
            }
            assert_eq!(file.read(0, 10).await.unwrap(), pattern(10));
        }
    });
}

#[test]
fn errors_are_reported_and_not_remembered() {
    run(async {
        let file = File::new(pattern(PAGE_SIZE));
        file.disk.broken.store(true, Ordering::Relaxed);
        assert_eq!(file.read(0, 10).await, Err(Errno::EIO));
        assert_eq!(file.cache.page_count(), 0);
        file.disk.broken.store(false, Ordering::Relaxed);
        assert_eq!(file.read(0, 10).await.unwrap(), pattern(10));
    });
}

fn map(file: &Arc<File>, flags: MapFlags) -> super::super::MmapRequest {
    let mut request = anonymous(0, 4 * PAGE, Prot::READ | Prot::WRITE, MapFlags::empty());
    request.flags = flags;
    request.source = Some(file.clone());
    request
}

#[test]
fn mappings_and_calls_see_the_same_file() {
    run(async {
        let file = File::new(pattern(3 * PAGE_SIZE - 100));
        let space = AddressSpace::new().unwrap();
        space.activate();
        let shared = space.mmap(map(&file, MapFlags::SHARED)).await.unwrap();
        let private = space.mmap(map(&file, MapFlags::PRIVATE)).await.unwrap();
        let byte = |addr: u64| UserPtr::<u8>::new(addr);
        assert_eq!(byte(shared + 20).read(&space).await, Ok(pattern(30)[20]));
        assert_eq!(byte(private + 20).read(&space).await, Ok(pattern(30)[20]));
        file.write(20, &[200]).await.unwrap();
        assert_eq!(byte(shared + 20).read(&space).await, Ok(200));
        assert_eq!(byte(private + 20).read(&space).await, Ok(200));
        byte(shared + 21).write(&space, 201).await.unwrap();
        assert_eq!(file.read(20, 2).await.unwrap(), [200, 201]);
        assert_eq!(byte(private + 21).read(&space).await, Ok(201));
        byte(private + 22).write(&space, 7).await.unwrap();
        assert_ne!(file.read(22, 1).await.unwrap(), [7]);
        byte(shared + 23).write(&space, 99).await.unwrap();
        assert_eq!(byte(private + 22).read(&space).await, Ok(7));
        // Behind the end: the rest of the last page is zeros, what follows is SIGBUS.
        assert_eq!(byte(shared + 3 * PAGE - 1).read(&space).await, Ok(0));
        assert_eq!(byte(shared + 3 * PAGE).read(&space).await, Err(Errno::EFAULT));
        let signal = space.handle_fault(shared + 3 * PAGE, crate::arch::Access::Write).await.unwrap_err();
        assert_eq!((signal.signo, signal.code), (7, 2));
        // Stored pages become clean, and dirty again by the next write through the mapping.
        space.msync(shared, PAGE, 4).await.unwrap();
        assert_eq!(file.cache.dirty_count(), 0);
        assert_eq!(file.disk.data.lock()[21], 201);
        byte(shared + 21).write(&space, 202).await.unwrap();
        assert_eq!(file.cache.dirty_count(), 1);
        file.truncate(10).await;
        assert_eq!(byte(shared + 9).read(&space).await, Ok(pattern(10)[9]));
        assert_eq!(byte(shared + 20).read(&space).await, Ok(0));
        assert_eq!(byte(shared + PAGE).read(&space).await, Err(Errno::EFAULT));
        assert_eq!(file.cache.map_count(), 2);
        space.teardown().await;
        assert_eq!(file.cache.map_count(), 0);
        AddressSpace::deactivate();
    });
}

#[test]
fn reads_into_user_memory_fault_it_in() {
    run(async {
        let data = pattern(40_000);
        let file = File::new(data.clone());
        let space = AddressSpace::new().unwrap();
        space.activate();
        let addr = space.mmap(anonymous(0, 40_960, Prot::READ | Prot::WRITE, MapFlags::empty())).await.unwrap();
        let mut buf = IoBuf::user(&space, addr + 3, 60_000).unwrap();
        assert_eq!(file.cache.read(0, 40_000, &mut buf).await, Ok(40_000));
        let mut back = vec![0; 40_000];
        assert_eq!(space.read_remote(addr + 3, &mut back, Toucher::Call).await, Ok(40_000));
        assert_eq!(back, data);
        // Up to the hole behind the mapping.
        let mut buf = IoBuf::user(&space, addr + 40_960 - 10, 100).unwrap();
        assert_eq!(file.cache.read(0, 40_000, &mut buf).await, Ok(10));
        assert_eq!(file.cache.read(0, 40_000, &mut buf).await, Err(Errno::EFAULT));
        // A file written from its own mapping, page by page not yet present.
        let other = File::new(Vec::new());
        let from = space.mmap(map(&file, MapFlags::SHARED)).await.unwrap();
        let mut buf = IoBuf::user(&space, from, 4 * PAGE).unwrap();
        assert_eq!(other.cache.write(100, 0, &mut buf).await, Ok(4 * PAGE_SIZE));
        AddressSpace::deactivate();
    });
}

#[test]
fn iovecs_are_gathered_and_rewound() {
    run(async {
        let (space, addr) = super::super::test_util::space_with(4 * PAGE).await;
        space.activate();
        let segments = [(0, 5), (10, 0), (PAGE - 2, 4), (100, 3)];
        let segments = segments.map(|(at, len)| super::super::IoVec { base: addr + at, len });
        UserPtr::<u8>::new(addr + 2 * PAGE).write_slice(&space, &[0; 64]).await.unwrap();
        UserPtr::new(addr + 2 * PAGE).write_slice(&space, &segments).await.unwrap();
        let vecs = super::super::import_iovec(&space, addr + 2 * PAGE, 4).await.unwrap();
        let mut buf = IoBuf::user_iovec(&space, vecs);
        assert_eq!(buf.remaining(), 12);
        while !buf.is_empty() {
            let done = buf.done();
            match buf.copy_to(&b"hello, world"[done..]) {
                Ok(_) => {}
                Err(fault) => buf.fault_in(&fault).await.unwrap(),
            }
        }
        for back in [1, 3, 6, 8, 12] {
            buf.rewind(back);
            let mut text = vec![0; back];
            assert_eq!(buf.copy_from(&mut text), Ok(back));
            assert_eq!(text, b"hello, world"[12 - back..]);
        }
        assert_eq!(super::super::import_iovec(&space, addr, 1025).await.unwrap_err(), Errno::EINVAL);
        AddressSpace::deactivate();
    });
}

#[test]
fn dirty_files_are_held_until_they_are_stored() {
    let _alone = one_round_at_a_time();
    run(async {
        let file = File::new(Vec::new());
        let disk = Arc::downgrade(&file.disk);
        file.write(0, &[1, 2, 3]).await.unwrap();
        drop(file);
        let data = disk.upgrade().expect("dirty, so still held");
        sync_all().await.unwrap();
        assert_eq!(*data.data.lock(), [1, 2, 3]);
        drop(data);
        assert!(disk.upgrade().is_none());
    });
}

#[test]
fn idle_pages_are_reclaimed_and_dirty_ones_are_not() {
    run(async {
        let file = File::new(pattern(64 * PAGE_SIZE));
        file.read(0, 64 * PAGE_SIZE).await.unwrap();
        file.write(5 * PAGE, &[9]).await.unwrap();
        let held = file.cache.lookup(6).unwrap();
        // The first round takes the marks of use away. (Not `reclaim`, which would disturb the tests beside this one.)
        let freed: usize = (0..3).map(|_| file.cache.sweep(1000).0).sum();
        assert_eq!(file.cache.page_count(), 2);
        assert_eq!(freed, 62);
        assert!(file.cache.lookup(5).is_some());
        drop(held);
    });
}

#[test]
fn mapped_pages_can_be_taken_away_and_come_back() {
    run(async {
        let file = File::new(pattern(4 * PAGE_SIZE));
        let space = AddressSpace::new().unwrap();
        space.activate();
        let private = space.mmap(map(&file, MapFlags::PRIVATE)).await.unwrap();
        let byte = |page: u64| UserPtr::<u8>::new(private + page * PAGE);
        byte(0).write(&space, 77).await.unwrap();
        for page in 1..4 {
            byte(page).read(&space).await.unwrap();
        }
        assert_eq!(space.stats().resident_file, 3);
        space::unmap_files(|| space.stats().resident_file == 0).await;
        assert_eq!((space.stats().resident_file, space.stats().resident_anon), (0, 1));
        assert_eq!(byte(0).read(&space).await, Ok(77));
        assert_eq!(byte(1).read(&space).await, Ok(pattern(PAGE_SIZE + 1)[PAGE_SIZE]));
        AddressSpace::deactivate();
    });
}

#[test]
fn a_file_that_is_getting_shorter_is_not_mapped_beyond_its_end() {
    run(async {
        let file = File::new(pattern(4 * PAGE_SIZE));
        file.read(0, 4 * PAGE_SIZE).await.unwrap();
        // Half-way through truncation: the size is known, the pages are still here.
        file.disk.size.store(2 * PAGE, Ordering::Relaxed);
        let space = AddressSpace::new().unwrap();
        space.activate();
        let shared = space.mmap(map(&file, MapFlags::SHARED)).await.unwrap();
        UserPtr::<u8>::new(shared).read(&space).await.unwrap();
        assert_eq!(space.stats().resident_file, 2);
        AddressSpace::deactivate();
    });
}
