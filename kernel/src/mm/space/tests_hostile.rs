//! What programs ask for that means harm, or nothing.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::super::addr::{PAGE, USER_END};
use super::super::test_util::{anonymous, poll_once, run, space_with};
use super::super::uaccess::UserPtr;
use super::{AddressSpace, MapFlags, MremapRequest, Prot};
use crate::arch::{Access, sim};
use crate::errno::Errno;
use crate::mm::BoxFuture;

const RW: Prot = Prot::READ.union(Prot::WRITE);

/// So much that its rights are changed piece by piece.
const MUCH: u64 = 10_000 * PAGE;

/// A current space with written pages, of which a change of rights has begun: all but the last are to be for reading only.
async fn half_changed(shared: bool) -> (Arc<AddressSpace>, u64, BoxFuture<'static, ()>) {
    let space = AddressSpace::new().unwrap();
    let mut request = anonymous(0, MUCH, RW, MapFlags::empty());
    if shared {
        request.flags = MapFlags::ANONYMOUS | MapFlags::SHARED;
    }
    let addr = space.mmap(request).await.unwrap();
    space.activate();
    for page in 0..MUCH / PAGE {
        UserPtr::new(addr + page * PAGE).write(&space, 1u8).await.unwrap();
    }
    let other = space.clone();
    let mut protect: BoxFuture<'static, ()> =
        Box::pin(async move { other.mprotect(addr, MUCH - PAGE, Prot::READ, false).await.unwrap() });
    // So long that each look at the clock ends its turn.
    sim::advance(1_000_000_000);
    assert!(poll_once(protect.as_mut()).await.is_pending());
    (space, addr, protect)
}

/// Others move a part meanwhile.
#[test]
fn nothing_moves_with_rights_that_were_taken_away() {
    for given_up in [false, true] {
        run(async move {
            let (space, addr, protect) = half_changed(false).await;
            let addr = addr + MUCH - 2 * PAGE;
            let mut moved =
                Box::pin(space.mremap(MremapRequest { addr, old_len: PAGE, new_len: 2 * PAGE, flags: 1, new_addr: 0 }));
            if given_up {
                drop(protect);
            } else {
                assert!(poll_once(moved.as_mut()).await.is_pending());
                protect.await;
            }
            let moved = moved.await.unwrap();
            assert_eq!(UserPtr::new(moved).write(&space, 2u8).await, Err(Errno::EFAULT));
            assert_eq!(UserPtr::new(moved).read(&space).await, Ok(1u8));
            AddressSpace::deactivate();
        });
    }
}

/// Others copy the space meanwhile. Pages that the copy shares are as they are in the tables, once it has tables of its own.
#[test]
fn nothing_is_copied_with_rights_that_were_taken_away() {
    for given_up in [false, true] {
        run(async move {
            let (space, addr, protect) = half_changed(true).await;
            assert_eq!(space.fork().err(), Some(Errno::EAGAIN));
            let mut copy = Box::pin(space.fork_after_change());
            if given_up {
                drop(protect);
            } else {
                assert!(poll_once(copy.as_mut()).await.is_pending());
                protect.await;
            }
            let copy = copy.await.unwrap();
            copy.activate();
            let write = async |page: u64| UserPtr::new(addr + page * PAGE).write(&copy, 2u8).await;
            assert_eq!(write(MUCH / PAGE - 1).await, Ok(()));
            assert_eq!(write(MUCH / PAGE - 2).await, Err(Errno::EFAULT));
            copy.teardown().await;
            AddressSpace::deactivate();
        });
    }
}

#[test]
fn kernel_accesses_do_not_know_tags() {
    run(async {
        let (space, addr) = space_with(PAGE).await;
        space.activate();
        let tagged = UserPtr::<u64>::new(addr | 0x5a << 56);
        // User code may use it, and the page comes; the kernel's own access would fail again and again.
        assert_eq!(space.handle_fault(tagged.addr(), Access::Write).await, Ok(()));
        assert_eq!(tagged.read(&space).await, Err(Errno::EFAULT));
        assert_eq!(tagged.write(&space, 1).await, Err(Errno::EFAULT));
        AddressSpace::deactivate();
    });
}

#[test]
fn hints_are_rounded_down_and_never_an_error() {
    run(async {
        let (space, _) = space_with(PAGE).await;
        let near = async |hint| space.mmap(anonymous(hint, PAGE, RW, MapFlags::empty())).await;
        assert_eq!(near(0x30_0000_0123).await, Ok(0x30_0000_0000));
        assert_eq!(near(0x1000).await, Ok(super::map::MMAP_MIN_ADDR));
        for hint in [1, u64::MAX, USER_END, USER_END - 1, 1 << 63] {
            assert!(near(hint).await.is_ok_and(|at| at < USER_END), "{hint:#x}");
        }
    });
}

#[test]
fn what_cannot_be_populated_says_why() {
    run(async {
        let (space, addr) = space_with(4 * PAGE).await;
        space.mprotect(addr, PAGE, Prot::empty(), false).await.unwrap();
        space.mprotect(addr + PAGE, PAGE, Prot::READ, false).await.unwrap();
        space.munmap(addr + 3 * PAGE, PAGE).await.unwrap();
        let populate = async |page: u64, advice| space.madvise(addr + page * PAGE, PAGE, advice).await;
        assert_eq!(populate(0, 22).await, Err(Errno::EINVAL));
        assert_eq!((populate(1, 22).await, populate(1, 23).await), (Ok(()), Err(Errno::EINVAL)));
        assert_eq!((populate(2, 23).await, populate(3, 23).await), (Ok(()), Err(Errno::ENOMEM)));
        assert_eq!(space.mlock(addr, PAGE, false, false).await, Err(Errno::ENOMEM));
        // Cold is no hint for what is locked.
        assert_eq!((populate(0, 20).await, populate(2, 20).await), (Err(Errno::EINVAL), Ok(())));
    });
}

#[test]
fn mappings_grow_within_their_limits() {
    run(async {
        let (space, addr) = space_with(2 * PAGE).await;
        space.limits.data.store(3 * PAGE, Ordering::Relaxed);
        let grow = async |to| {
            let request = MremapRequest { addr, old_len: 2 * PAGE, new_len: to, flags: 1, new_addr: 0 };
            space.mremap(request).await
        };
        assert_eq!(grow(4 * PAGE).await, Err(Errno::ENOMEM));
        space.limits.data.store(u64::MAX, Ordering::Relaxed);
        assert_eq!(grow(1 << 46).await, Err(Errno::ENOMEM));
        // A locked mapping that leaves its place behind leaves no lock there.
        space.mlock(addr, 2 * PAGE, false, false).await.unwrap();
        let request = MremapRequest { addr, old_len: 2 * PAGE, new_len: 2 * PAGE, flags: 5, new_addr: 0 };
        let moved = space.mremap(request).await.unwrap();
        assert!(moved != addr);
        assert_eq!(space.stats().locked, 2);
        // The stack's growth counts as address space.
        space.limits.address_space.store(space.inner.lock().vmas.total() + 2 * PAGE, Ordering::Relaxed);
        let stack = anonymous(0x40_0000_0000, PAGE, RW, MapFlags::FIXED | MapFlags::GROWSDOWN);
        let bottom = space.mmap(stack).await.unwrap();
        assert_eq!(space.handle_fault(bottom - PAGE, Access::Write).await, Ok(()));
        assert!(space.handle_fault(bottom - 2 * PAGE, Access::Write).await.is_err());
    });
}

/// The tables have no more bits of an address: behind the end they would begin again.
#[test]
fn nothing_grows_past_the_end() {
    run(async {
        let (space, addr) = space_with(PAGE).await;
        let last = anonymous(USER_END - PAGE, PAGE, RW, MapFlags::FIXED | MapFlags::NORESERVE);
        let last = space.mmap(last).await.unwrap();
        for new_len in [2 * PAGE, addr + 2 * PAGE, USER_END] {
            let request = MremapRequest { addr: last, old_len: PAGE, new_len, flags: 0, new_addr: 0 };
            assert_eq!(space.mremap(request).await, Err(Errno::ENOMEM), "{new_len:#x}");
        }
        assert!(space.handle_fault(USER_END + addr, Access::Write).await.is_err());
        assert!(space.inner.lock().tables.peek(addr).is_none());
    });
}
