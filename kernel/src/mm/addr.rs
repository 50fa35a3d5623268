//! Addresses as types, and the geometry of pages and of the user half.

use core::fmt;
use core::ops::{Add, Sub};

pub const PAGE_SHIFT: u32 = 12;
pub const PAGE_SIZE: usize = 1 << PAGE_SHIFT;
pub(crate) const PAGE: u64 = PAGE_SIZE as u64;

/// First address that no user mapping reaches: TASK_SIZE for 48-bit virtual addresses.
pub const USER_END: u64 = 1 << 48;

/// Linux's MAX_RW_COUNT: no single transfer is longer.
pub const MAX_RW_COUNT: usize = 0x7fff_f000;

pub const fn page_down(addr: u64) -> u64 {
    addr & !(PAGE - 1)
}

/// Rounds up to a page border; `None` when that overflows.
pub const fn page_up(addr: u64) -> Option<u64> {
    match addr.checked_add(PAGE - 1) {
        Some(sum) => Some(page_down(sum)),
        None => None,
    }
}

/// Drops the tag in the top byte, which EL0 accesses ignore (TBI).
pub const fn untag(addr: u64) -> u64 {
    if addr & (1 << 55) == 0 { addr & 0x00ff_ffff_ffff_ffff } else { addr }
}

/// Do the bytes lie in one page? A page fault stops a transfer of them before its first byte or not at all.
#[inline]
pub const fn within_page(addr: u64, len: u64) -> bool {
    len <= PAGE_SIZE as u64 && addr % PAGE_SIZE as u64 + len <= PAGE_SIZE as u64
}

/// True if `len` bytes at `addr` lie in the user half.
pub const fn access_ok(addr: u64, len: u64) -> bool {
    match addr.checked_add(len) {
        Some(end) => end <= USER_END,
        None => false,
    }
}

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            pub const fn get(self) -> u64 {
                self.0
            }
            pub const fn is_page_aligned(self) -> bool {
                self.0 & (PAGE - 1) == 0
            }
            pub const fn page_down(self) -> Self {
                $name(page_down(self.0))
            }
            pub const fn page_offset(self) -> usize {
                (self.0 & (PAGE - 1)) as usize
            }
        }

        impl Add<u64> for $name {
            type Output = Self;
            fn add(self, bytes: u64) -> Self {
                $name(self.0.wrapping_add(bytes))
            }
        }

        impl Sub<$name> for $name {
            type Output = u64;
            fn sub(self, other: Self) -> u64 {
                self.0.wrapping_sub(other.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// A physical address.
    PhysAddr
}
address! {
    /// A user virtual address.
    VirtAddr
}
