//! Simulated RAM: one zeroed allocation of the process, of which the operating system backs what is touched.

use core::ops::Range;
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::sync::OnceLock;

/// Where RAM lies, physically.
pub const RAM: Range<u64> = 0x4000_0000..0x5000_0000;
/// What the kernel may hand out: the rest is for tests of the seam itself.
pub const USABLE: Range<u64> = RAM.start..RAM.end - (1 << 20);
pub const RESERVED: Range<u64> = USABLE.end..RAM.end;
const SIZE: u64 = RAM.end - RAM.start;

fn base() -> usize {
    static BASE: OnceLock<usize> = OnceLock::new();
    *BASE.get_or_init(|| {
        // Aligned by hand: for an aligned layout the allocator would write the zeros itself, page by page.
        const ALIGN: usize = 2 << 20;
        let layout = Layout::from_size_align(SIZE as usize + ALIGN, 16).expect("constant layout");
        // SAFETY: the layout is not empty. Never freed.
        let memory = unsafe { alloc_zeroed(layout) };
        if memory.is_null() {
            handle_alloc_error(layout)
        }
        (memory as usize).next_multiple_of(ALIGN)
    })
}

/// Where physical memory is visible to the kernel.
pub fn phys_to_virt(pa: u64) -> *mut u8 {
    assert!((RAM.start..=RAM.end).contains(&pa), "{pa:#x} is not RAM");
    (base() + (pa - RAM.start) as usize) as *mut u8
}

/// Inverse of [`phys_to_virt`].
pub fn virt_to_phys(va: *const u8) -> u64 {
    let offset = (va as usize).wrapping_sub(base()) as u64;
    assert!(offset <= SIZE, "{va:?} is not in simulated RAM");
    RAM.start + offset
}

/// There are no devices: the registers read as zero and remember what is written.
pub fn map_mmio(_pa: u64, size: u64) -> *mut u8 {
    vec![0u64; size.div_ceil(8) as usize].leak().as_mut_ptr().cast()
}
