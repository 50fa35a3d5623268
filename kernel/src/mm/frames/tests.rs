use super::super::test_util::{Rng, init};
use super::buddy::{Buddy, ORDERS};
use super::*;
use alloc::vec::Vec;

/// A buddy of its own over `pages` frames, which must be a power of two.
fn buddy(pages: usize) -> (Buddy, FrameRun) {
    let run = alloc_contiguous(pages).unwrap();
    let mut buddy = Buddy::new();
    buddy.set_bounds(run.first, run.first + pages as u32);
    buddy.free_range(run.first, run.first + pages as u32);
    (buddy, run)
}

#[test]
fn blocks_are_aligned_disjoint_and_join_again() {
    init();
    let (mut buddy, run) = buddy(1024);
    let mut rng = Rng(42);
    let mut live: Vec<(Pfn, usize)> = Vec::new();
    for _ in 0..20_000 {
        if rng.below(2) == 0 {
            let order = rng.below(6) as usize;
            if let Some(pfn) = buddy.alloc(order) {
                assert_eq!(pfn % (1 << order), 0);
                assert!(pfn >= run.first && pfn + (1 << order) <= run.first + 1024);
                assert!(live.iter().all(|&(other, o)| pfn + (1 << order) <= other || other + (1 << o) <= pfn));
                live.push((pfn, order));
            }
        } else if !live.is_empty() {
            let index = rng.below(live.len() as u64) as usize;
            let (pfn, order) = live.swap_remove(index);
            buddy.free(pfn, order);
        }
        let used: usize = live.iter().map(|(_, order)| 1 << order).sum();
        assert_eq!(buddy.free_frames(), 1024 - used);
        assert!(buddy.large_frames() <= buddy.free_frames() && buddy.large_frames().is_multiple_of(1 << LARGE));
    }
    for (pfn, order) in live {
        buddy.free(pfn, order);
    }
    assert_eq!(buddy.large_frames(), 1024);
    assert_eq!(buddy.alloc(10), Some(run.first));
}

#[test]
fn large_blocks_are_left_to_who_may_break_them() {
    init();
    let run = alloc_contiguous(1024).unwrap();
    let mut buddy = Buddy::new();
    buddy.set_bounds(run.first, run.first + 1024);
    buddy.free(run.first, 10);
    assert_eq!((buddy.large_frames(), buddy.alloc_below(0, LARGE)), (1024, None));
    // What is left of the block that is broken is small but for its upper half, and so on.
    let one = buddy.alloc(0).unwrap();
    assert_eq!((buddy.free_frames(), buddy.large_frames()), (1023, 1024 - 32));
    let others: Vec<Pfn> = core::iter::from_fn(|| buddy.alloc_below(0, LARGE)).collect();
    assert_eq!((others.len(), buddy.free_frames(), buddy.large_frames()), (31, 992, 992));
    for order in [LARGE, LARGE + 1] {
        let block = buddy.alloc(order).unwrap();
        assert_eq!(buddy.large_frames(), 992 - (1 << order));
        buddy.free(block, order);
    }
    others.into_iter().chain([one]).for_each(|pfn| buddy.free(pfn, 0));
    assert_eq!((buddy.large_frames(), buddy.alloc(10)), (1024, Some(run.first)));
}

#[test]
fn the_last_owner_frees() {
    init();
    let frame = alloc_zeroed().unwrap();
    assert!(frame.bytes().iter().all(|&byte| byte == 0));
    frame.copy_in(4090, b"abcdefgh");
    assert_eq!(&frame.bytes()[4090..], b"abcdef");
    let other = frame.clone();
    assert_eq!(frame.page().refs(), 2);
    drop(frame);
    assert_eq!(other.page().refs(), 1);
}

#[test]
fn odd_runs_give_their_tail_back() {
    init();
    let runs: Vec<FrameRun> = (1..40).map(|pages| alloc_contiguous(pages).unwrap()).collect();
    for (index, a) in runs.iter().enumerate() {
        assert_eq!(a.pages(), index + 1);
        for b in &runs[..index] {
            assert!(a.first + a.count <= b.first || b.first + b.count <= a.first);
        }
    }
    assert!(alloc_order(ORDERS).is_err());
}

#[test]
fn reserved_pieces_are_left_out() {
    let mut found = Vec::new();
    for_each_free(&[0x1000..0x9000, 0x20000..0x30000], &[0x2800..0x3100, 0x8000..0x21000], &mut |range| {
        found.push(range);
    });
    assert_eq!(found, [0x1000..0x2000, 0x4000..0x8000, 0x21000..0x30000]);
}
