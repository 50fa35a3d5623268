//! The buddy system: free blocks of 2^order frames, in lists threaded through the `Page` array.

use core::sync::atomic::Ordering;

use super::page::{Pfn, page};

/// Largest block: 2^(ORDERS-1) frames, 16 MiB.
pub(crate) const ORDERS: usize = 13;

/// From this order on a block is large: 128 KiB.
pub(crate) const LARGE: usize = 5;

const NIL: u32 = 0;

/// Free memory. Frame 0 is never handed in, so 0 ends the lists.
pub(crate) struct Buddy {
    heads: [Pfn; ORDERS],
    /// Bounds of RAM: buddies outside have no `Page`.
    first: Pfn,
    end: Pfn,
    free: usize,
    /// Of these, frames in large blocks.
    large: usize,
}

impl Buddy {
    pub const fn new() -> Self {
        Buddy { heads: [NIL; ORDERS], first: 0, end: 0, free: 0, large: 0 }
    }

    pub fn set_bounds(&mut self, first: Pfn, end: Pfn) {
        self.first = first;
        self.end = end;
    }

    /// Free frames.
    pub fn free_frames(&self) -> usize {
        self.free
    }

    /// Free frames in large blocks.
    pub fn large_frames(&self) -> usize {
        self.large
    }

    /// Takes a block, aligned to its size.
    pub fn alloc(&mut self, order: usize) -> Option<Pfn> {
        self.alloc_below(order, ORDERS)
    }

    /// The same, out of a block whose order is less than `end`.
    pub fn alloc_below(&mut self, order: usize, end: usize) -> Option<Pfn> {
        let mut at = (order..end).find(|&at| self.heads[at] != NIL)?;
        let pfn = self.heads[at];
        self.unlink(pfn, at);
        if at >= LARGE {
            // What is left of it, down to the smallest that is large, still is.
            self.large -= 1 << order.max(LARGE);
        }
        while at > order {
            at -= 1;
            self.link(pfn + (1 << at), at);
        }
        page(pfn).reset();
        self.free -= 1 << order;
        Some(pfn)
    }

    /// Gives a block back and joins it with its free buddies.
    pub fn free(&mut self, mut pfn: Pfn, mut order: usize) {
        self.free += 1 << order;
        let given = order;
        while order < ORDERS - 1 {
            let buddy = pfn ^ (1 << order);
            if buddy < self.first || buddy >= self.end || !page(buddy).is_free(order as u32) {
                break;
            }
            self.unlink(buddy, order);
            page(buddy).reset();
            pfn &= !(1 << order);
            order += 1;
        }
        self.link(pfn, order);
        if order >= LARGE {
            // What it was joined with beyond the smallest that is large was so before.
            self.large += 1 << given.max(LARGE);
        }
    }

    /// Gives back any range of frames, in blocks as large as alignment allows.
    pub fn free_range(&mut self, mut pfn: Pfn, end: Pfn) {
        while pfn < end {
            let by_alignment = pfn.trailing_zeros() as usize;
            let by_length = (end - pfn).ilog2() as usize;
            let order = by_alignment.min(by_length).min(ORDERS - 1);
            self.free(pfn, order);
            pfn += 1 << order;
        }
    }

    fn link(&mut self, pfn: Pfn, order: usize) {
        let head = self.heads[order];
        if head != NIL {
            set_prev(head, pfn);
        }
        set_links(pfn, NIL, head);
        page(pfn).set_free(order as u32);
        self.heads[order] = pfn;
    }

    fn unlink(&mut self, pfn: Pfn, order: usize) {
        let (prev, next) = links(pfn);
        if prev == NIL {
            self.heads[order] = next;
        } else {
            let (before, _) = links(prev);
            set_links(prev, before, next);
        }
        if next != NIL {
            set_prev(next, prev);
        }
    }
}

fn links(pfn: Pfn) -> (Pfn, Pfn) {
    let data = page(pfn).data.load(Ordering::Relaxed);
    ((data >> 32) as u32, data as u32)
}

fn set_links(pfn: Pfn, prev: Pfn, next: Pfn) {
    page(pfn).data.store((prev as u64) << 32 | next as u64, Ordering::Relaxed);
}

fn set_prev(pfn: Pfn, prev: Pfn) {
    let (_, next) = links(pfn);
    set_links(pfn, prev, next);
}
