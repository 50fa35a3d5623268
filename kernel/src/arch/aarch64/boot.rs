//! From `boot.s` to the generic kernel: final page tables, console, this CPU's registers.
//!
//! ```text
//! _head (boot.s, MMU off) → primary_high → primary_init  on the boot stack, boot tables
//!                                        → primary_main  on CPU 0's guarded stack, final tables → crate::boot::start
//! secondary_entry (boot.s) → secondary_high → secondary_main → what start_secondary_cpus was given
//! ```

use super::layout::{self, BLOCK_SIZE, LINEAR, PAGE_SIZE, STACK_SIZE, STACK_SLOT};
use super::{console, cpu, devtree, smp, tables, timer};
use crate::arch::pte::PteFlags;
use core::arch::global_asm;
use core::ops::Range;

/// Attribute 0: normal write-back; 1: device nGnRE; 2: normal non-cacheable (see `pte.rs`).
const MAIR: u64 = 0x44_04_ff;
/// 48-bit halves of 4 KiB pages, write-back inner-shareable walks, 16-bit ASIDs from TTBR0, top byte ignored in
/// the user half (as Linux does). IPS is added by `boot.s`.
const TCR: u64 = 16 | 1 << 8 | 1 << 10 | 3 << 12 | 16 << 16 | 1 << 24 | 1 << 26 | 3 << 28 | 2 << 30 | 1 << 36 | 1 << 37;
/// RES1 bits of Armv8.0 except SPAN (23): exceptions set PAN.
const SCTLR_OFF: u64 = 1 << 11 | 1 << 20 | 1 << 22 | 1 << 28 | 1 << 29;
/// MMU, caches, SP alignment checks at both levels; EL0 may use DC ZVA, CTR_EL0, cache maintenance and WFE.
/// WFI at EL0 traps.
const SCTLR_ON: u64 = SCTLR_OFF | 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 18 | 1 << 26;
/// EL1 is AArch64; pointer authentication does not trap.
const HCR_EL2: u64 = 1 << 31 | 1 << 40 | 1 << 41;

const TEXT_BLOCK: u64 = tables::TEXT.union(PteFlags::NOT_GLOBAL).bits();
/// Until the final tables are active: readable, writable, executable.
const EARLY_BLOCK: u64 = tables::DATA.difference(PteFlags::PXN).bits();

global_asm!(
    include_str!("boot.s"),
    MAIR = const MAIR,
    TCR = const TCR,
    SCTLR_OFF = const SCTLR_OFF,
    SCTLR_ON = const SCTLR_ON,
    HCR_EL2 = const HCR_EL2,
    TEXT_BLOCK = const TEXT_BLOCK,
    EARLY_BLOCK = const EARLY_BLOCK,
    STACK_SIZE = const STACK_SIZE,
    STACK_SLOT = const STACK_SLOT,
    STACK_TOP_0 = const layout::stack_top(0),
    primary_init = sym primary_init,
    primary_main = sym primary_main,
    secondary_main = sym secondary_main,
);

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __image_end: u8;
    static boot_stack: u8;
}

/// Runs on the boot tables: replaces them. `dtb` and `image` are physical addresses, `epoch` the counter at entry.
extern "C" fn primary_init(dtb: u64, image: u64, epoch: u64) {
    tables::set_image_base(image);
    cpu::init(0);
    cpu::patch_text();
    timer::init(epoch);
    let end = tables::image_to_phys(&raw const __image_end as u64).next_multiple_of(PAGE_SIZE);
    let early = devtree::read_early(dtb, image..end);
    map_image();
    smp::map_stack(0, tables::image_to_phys(&raw const boot_stack as u64));
    for bank in &early.memory {
        map_linear(bank.clone());
    }
    // SAFETY: image and boot stack are mapped as before, and TTBR0 holds the identity map.
    unsafe { tables::activate() };
    super::paging::set_user_root(0, 0);
    super::paging::flush_all();
    console::init();
}

extern "C" fn primary_main() -> ! {
    crate::boot::start()
}

extern "C" fn secondary_main(cpu: usize) -> ! {
    cpu::init(cpu);
    super::paging::set_user_root(0, 0);
    super::paging::flush_all();
    smp::secondary_online(cpu)
}

/// The image at its link address, by section.
fn map_image() {
    let start = &raw const __image_start as u64;
    let text_end = &raw const __text_end as u64;
    let rodata_end = &raw const __rodata_end as u64;
    let end = (&raw const __image_end as u64).next_multiple_of(PAGE_SIZE);
    let map = |range: Range<u64>, flags| {
        tables::map(range.start, tables::image_to_phys(range.start), range.end - range.start, flags)
    };
    map(start..text_end, tables::TEXT);
    map(text_end..rodata_end, tables::RODATA);
    map(rodata_end..end, tables::DATA);
}

/// A bank of RAM in the linear map; what is text or read-only data in the image is read-only here, too.
fn map_linear(bank: Range<u64>) {
    let start = bank.start.next_multiple_of(PAGE_SIZE);
    let end = bank.end.min(layout::PHYS_LIMIT) & !(PAGE_SIZE - 1);
    let read_only = tables::image_base()..tables::image_to_phys(&raw const __rodata_end as u64);
    const { assert!(BLOCK_SIZE.is_power_of_two()) };
    let map = |start: u64, end: u64, flags| {
        if start < end {
            tables::map(LINEAR + start, start, end - start, flags);
        }
    };
    map(start, end.min(read_only.start), tables::DATA);
    map(start.max(read_only.start), end.min(read_only.end), tables::RODATA);
    map(start.max(read_only.end), end, tables::DATA);
}
