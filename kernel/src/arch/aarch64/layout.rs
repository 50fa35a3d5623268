//! The kernel half of the address space (TTBR1, 48 bits).
//!
//! ```text
//! 0xffff_0000_0000_0000  all RAM, at LINEAR + physical address     RW NX (the kernel's text and rodata: R NX)
//! 0xffff_8000_0000_0000  device registers, at MMIO + physical      device, RW NX
//! 0xffff_ffff_4000_0000  kernel stacks, one slot per CPU; the lower half of each slot is the guard
//! 0xffff_ffff_8000_0000  the kernel image                          text RX, rodata R, data RW NX
//! 0xffff_ffff_c000_0000  the device tree, only until the linear map is there
//! ```

pub const PAGE_SIZE: u64 = 4096;
pub const BLOCK_SIZE: u64 = 2 << 20;

pub const LINEAR: u64 = 0xffff_0000_0000_0000;
/// Physical addresses that [`LINEAR`] and [`MMIO`] can show.
pub const PHYS_LIMIT: u64 = 1 << 47;
pub const MMIO: u64 = 0xffff_8000_0000_0000;
/// Devices live below this, so that the MMIO window ends below the stacks.
pub const MMIO_LIMIT: u64 = 1 << 46;
pub const STACKS: u64 = 0xffff_ffff_4000_0000;
pub const KERNEL: u64 = 0xffff_ffff_8000_0000;
pub const EARLY_DTB: u64 = 0xffff_ffff_c000_0000;

/// Of one kernel stack. A power of two: bit `STACK_SIZE` of the stack pointer tells stack (1) from guard (0).
pub const STACK_SIZE: u64 = 128 << 10;
pub const STACK_SLOT: u64 = 2 * STACK_SIZE;

/// First address after the user half.
pub const USER_END: u64 = 1 << 48;

/// Top of `cpu`'s kernel stack.
pub const fn stack_top(cpu: usize) -> u64 {
    STACKS + (cpu as u64 + 1) * STACK_SLOT
}
