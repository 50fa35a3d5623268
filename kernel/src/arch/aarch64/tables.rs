//! The kernel's own translation tables: built once at boot, afterwards only new device mappings are added.
//! Table pages come from a fixed pool inside the image, so mapping needs neither heap nor linear map.

use super::layout::{BLOCK_SIZE, KERNEL, PAGE_SIZE};
use crate::arch::pte::{Pte, PteFlags};
use crate::sync::SpinLock;
use core::sync::atomic::{AtomicU64, Ordering};

const POOL_PAGES: usize = 48;
const GIB: u64 = 1 << 30;

#[repr(C, align(4096))]
struct Table([Pte; 512]);

struct Pool {
    pages: [Table; POOL_PAGES],
    used: usize,
}

/// Protects every kernel table, the root included.
static POOL: SpinLock<Pool> = SpinLock::new(Pool { pages: [const { Table([Pte::EMPTY; 512]) }; POOL_PAGES], used: 0 });

/// Physical address of the image.
static IMAGE_BASE: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    static mut kernel_l0: Table;
    static empty_root: Table;
    fn switch_kernel_root(root: u64, image: u64);
}

/// Kernel data: normal memory, never executable.
pub const DATA: PteFlags = PteFlags::VALID
    .union(PteFlags::INNER_SHAREABLE)
    .union(PteFlags::ACCESSED)
    .union(PteFlags::PXN)
    .union(PteFlags::UXN);
pub const RODATA: PteFlags = DATA.union(PteFlags::READ_ONLY);
pub const TEXT: PteFlags = RODATA.difference(PteFlags::PXN);
pub const DEVICE: PteFlags = DATA.difference(PteFlags::INNER_SHAREABLE).union(PteFlags::ATTR_DEVICE);

pub fn set_image_base(pa: u64) {
    IMAGE_BASE.store(pa, Ordering::Relaxed);
}

pub fn image_base() -> u64 {
    IMAGE_BASE.load(Ordering::Relaxed)
}

/// Physical address of something inside the kernel image.
pub fn image_to_phys(va: u64) -> u64 {
    va - KERNEL + image_base()
}

/// Root to load into TTBR0 when there is no user address space.
pub fn empty_root_phys() -> u64 {
    image_to_phys(&raw const empty_root as u64)
}

/// Maps `[va, va + size)` to `[pa, pa + size)` with the largest blocks that fit. What is mapped already stays as it is.
pub fn map(va: u64, pa: u64, size: u64, flags: PteFlags) {
    debug_assert!((va | pa | size).is_multiple_of(PAGE_SIZE));
    let mut pool = POOL.lock();
    let mut done = 0;
    while done < size {
        let at = va + done;
        let left = size - done;
        let aligned = at | (pa + done);
        let (level, step) = if aligned.is_multiple_of(GIB) && left >= GIB {
            (1, GIB)
        } else if aligned.is_multiple_of(BLOCK_SIZE) && left >= BLOCK_SIZE {
            (2, BLOCK_SIZE)
        } else {
            (3, PAGE_SIZE)
        };
        if let Some(entry) = pool.entry(at, level)
            && !entry.is_valid()
        {
            let kind = if level == 3 { PteFlags::TABLE } else { PteFlags::empty() };
            *entry = Pte::new(pa + done, flags | kind);
        }
        done += step;
    }
    super::paging::publish();
}

/// Makes the tables built so far the kernel's, in place of those of `boot.s`.
///
/// # Safety
/// Code, stack and everything in use must be mapped as before; TTBR0 must hold the identity map.
pub unsafe fn activate() {
    let root = image_to_phys(&raw const kernel_l0 as u64);
    // SAFETY: by the contract of this function.
    unsafe { switch_kernel_root(root, image_base()) }
}

impl Pool {
    /// The descriptor for `va` at `level`, making tables on the way; none if a block maps it at a higher level.
    fn entry(&mut self, va: u64, level: u32) -> Option<&mut Pte> {
        let mut table = &raw mut kernel_l0;
        for at in 0..level {
            // SAFETY: `table` is the root or a page of the pool, both behind the lock this method is called under.
            let entry = unsafe { &mut (*table).0[index(va, at)] };
            if !entry.is_valid() {
                *entry = Pte::new(self.fresh(), PteFlags::VALID | PteFlags::TABLE);
            } else if !entry.is_table() {
                return None;
            }
            table = (entry.address() - image_base() + KERNEL) as *mut Table;
        }
        // SAFETY: as above.
        Some(unsafe { &mut (*table).0[index(va, level)] })
    }

    /// Physical address of an empty table.
    fn fresh(&mut self) -> u64 {
        assert!(self.used < POOL_PAGES, "no table page left for a kernel mapping");
        self.used += 1;
        image_to_phys(&raw const self.pages[self.used - 1] as u64)
    }
}

const fn index(va: u64, level: u32) -> usize {
    (va >> (39 - 9 * level)) as usize & 511
}
