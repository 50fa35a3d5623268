//! The memory routines that the compiler calls; see `mem.s`.

core::arch::global_asm!(include_str!("mem.s"));
