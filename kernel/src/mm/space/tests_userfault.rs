//! Watched mappings, as far as that can be told without a handler of its own process.

use alloc::boxed::Box;
use alloc::sync::{Arc, Weak};
use core::ops::Range;
use core::sync::atomic::{AtomicU32, Ordering};

use super::super::addr::PAGE;
use super::super::page_cache::BoxFuture;
use super::super::test_util::{run, space_with};
use super::*;
use crate::arch::Access;

/// Answers every fault with a page of sevens, and counts.
#[derive(Default)]
struct Sevens {
    space: SpinLock<Option<Arc<AddressSpace>>>,
    reports: AtomicU32,
    wakes: AtomicU32,
}

impl FaultHandler for Sevens {
    fn report<'a>(&'a self, report: Report, must_wait: Box<dyn Fn() -> bool + Send + 'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            assert!(must_wait());
            self.reports.fetch_add(1, Ordering::Relaxed);
            let space = self.space.lock().clone();
            match space {
                Some(space) => {
                    space.fill_page(report.addr & !(PAGE - 1), Fill::Bytes(&[7; PAGE as usize])).await.unwrap();
                    Outcome::Again
                }
                None => Outcome::Refused,
            }
        })
    }

    fn wake(&self, _: Range<u64>) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }
}

fn handler(space: Option<&Arc<AddressSpace>>) -> (Arc<Sevens>, Arc<Watcher>) {
    let sevens = Arc::new(Sevens { space: SpinLock::new(space.cloned()), ..Sevens::default() });
    let weak: Weak<Sevens> = Arc::downgrade(&sevens);
    (sevens, Watcher::new(weak))
}

const MISSING: VmaFlags = VmaFlags::WATCH_MISSING;

async fn byte_at(space: &AddressSpace, addr: u64) -> Result<u8> {
    let mut byte = [0];
    space.read_remote(addr, &mut byte, Toucher::Call).await.map(|_| byte[0])
}

#[test]
fn a_watched_mapping_grows_with_its_watcher() {
    run(async {
        let (space, addr) = space_with(2 * PAGE).await;
        space.munmap(addr + PAGE, PAGE).await.unwrap();
        let (sevens, watcher) = handler(Some(&space));
        space.watch_faults(addr..addr + PAGE, MISSING, &watcher).unwrap();
        let grow = MremapRequest { addr, old_len: PAGE, new_len: 2 * PAGE, flags: 0, new_addr: 0 };
        assert_eq!(space.mremap(grow).await, Ok(addr));
        assert_eq!(byte_at(&space, addr + PAGE).await, Ok(7));
        assert_eq!(sevens.reports.load(Ordering::Relaxed), 1);
        space.forget_watcher(&watcher);
        assert_eq!(byte_at(&space, addr).await, Ok(0));
        assert!(space.inner.lock().vmas.iter().all(|(_, vma)| vma.watcher.is_none()));
        *sevens.space.lock() = None;
    });
}

#[test]
fn pages_that_are_watched_one_by_one_are_one_mapping() {
    run(async {
        const COUNT: u64 = 1000;
        let (space, addr) = space_with(COUNT * PAGE).await;
        let (_sevens, watcher) = handler(None);
        for page in 0..COUNT {
            let at = addr + page * PAGE;
            space.watch_faults(at..at + PAGE, MISSING, &watcher).unwrap();
        }
        assert_eq!(space.inner.lock().vmas.len(), 1);
        // Besides the mapping, and whoever asks, nothing holds it.
        assert_eq!(Arc::strong_count(&watcher), 2);
        space.unwatch_faults(addr..addr + COUNT * PAGE).unwrap();
        assert_eq!(Arc::strong_count(&watcher), 1);
    });
}

#[test]
fn neighbours_of_two_watchers_stay_apart() {
    run(async {
        let (space, addr) = space_with(2 * PAGE).await;
        let ((one, first), (other, second)) = (handler(None), handler(None));
        space.watch_faults(addr..addr + PAGE, MISSING, &first).unwrap();
        space.watch_faults(addr + PAGE..addr + 2 * PAGE, MISSING, &second).unwrap();
        let both = addr..addr + 2 * PAGE;
        assert_eq!(space.watch_faults(both.clone(), MISSING, &first), Err(Errno::EBUSY));
        assert_eq!(space.check_watched(&both), Err(Errno::ENOENT));
        assert_eq!(byte_at(&space, addr + PAGE).await, Err(Errno::EFAULT));
        assert_eq!((one.reports.load(Ordering::Relaxed), other.reports.load(Ordering::Relaxed)), (0, 1));
        space.unwatch_faults(both).unwrap();
        assert_eq!((one.wakes.load(Ordering::Relaxed), other.wakes.load(Ordering::Relaxed)), (1, 1));
        assert_eq!(byte_at(&space, addr + PAGE).await, Ok(0));
    });
}

#[test]
fn rights_that_come_back_leave_one_watched_mapping() {
    run(async {
        let (space, addr) = space_with(2 * PAGE).await;
        let both = addr..addr + 2 * PAGE;
        let (_sevens, watcher) = handler(None);
        assert_eq!(space.handle_fault(addr, Access::Write).await, Ok(()));
        space.watch_faults(both.clone(), MISSING, &watcher).unwrap();
        for rights in [Prot::empty(), Prot::READ | Prot::WRITE] {
            assert_eq!(space.mprotect_now(addr + PAGE, PAGE, rights), Some(Ok(())));
        }
        assert_eq!(space.check_watched(&both), Ok(()));
        assert_eq!(space.inner.lock().vmas.len(), 1);
    });
}

#[test]
fn copies_and_onlookers_ask_nobody() {
    run(async {
        let (space, addr) = space_with(PAGE).await;
        let (sevens, watcher) = handler(Some(&space));
        space.watch_faults(addr..addr + PAGE, MISSING, &watcher).unwrap();
        let mut byte = [1];
        assert_eq!(space.read_remote(addr, &mut byte, Toucher::Onlooker).await, Err(Errno::EFAULT));
        let copy = space.fork().unwrap();
        assert_eq!(byte_at(&copy, addr).await, Ok(0));
        assert_eq!(sevens.reports.load(Ordering::Relaxed), 0);
        assert_eq!(copy.handle_fault(addr, Access::Write).await, Ok(()));
        *sevens.space.lock() = None;
    });
}

#[test]
fn a_space_that_is_torn_down_has_nobody_to_watch() {
    run(async {
        let (space, addr) = space_with(PAGE).await;
        let (_sevens, watcher) = handler(None);
        space.watch_faults(addr..addr + PAGE, MISSING, &watcher).unwrap();
        space.teardown().await;
        assert_eq!(space.check_watched(&(addr..addr + PAGE)), Err(Errno::ESRCH));
        assert_eq!(space.unwatch_faults(addr..addr + PAGE), Err(Errno::ENOMEM));
        assert_eq!(Arc::strong_count(&watcher), 1);
    });
}
