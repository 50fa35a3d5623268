//! Access to the current user address space (TTBR0) with fix-ups: a fault makes the access stop, never trap.
//! Addresses outside the user half are refused like unmapped ones.

use super::layout::USER_END;
use super::{emulate, paging};
use crate::arch::{Access, UserFault};
use core::arch::global_asm;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicUsize, Ordering};

global_asm!(include_str!("uaccess.s"));

#[repr(C)]
struct Outcome {
    value: u64,
    faulted: u64,
}

unsafe extern "C" {
    static __uaccess_start: u8;
    static __uaccess_end: u8;
    fn uaccess_copy(dst: u64, src: u64, len: usize) -> usize;
    fn uaccess_zero(dst: u64, len: usize, zva: usize) -> usize;
    fn uaccess_string(dst: *mut u8, src: u64, max: usize) -> Outcome;
    fn uaccess_load_u32(address: u64) -> Outcome;
    fn uaccess_load_u64(address: u64) -> Outcome;
    fn uaccess_store_u32(address: u64, value: u32) -> Outcome;
    fn uaccess_store_u64(address: u64, value: u64) -> Outcome;
    fn uaccess_cmpxchg_u32(address: u64, old: u32, new: u32) -> Outcome;
}

/// Whether an instruction of the kernel belongs to the routines with fix-ups.
pub(super) fn covers(pc: u64) -> bool {
    (&raw const __uaccess_start as u64..&raw const __uaccess_end as u64).contains(&pc)
}

const MSR_PAN_0: u32 = 0xd500_409f;
const MSR_PAN_1: u32 = 0xd500_419f;
const NOP: u32 = 0xd503_201f;

/// The CPU has no PAN: what would switch it becomes a NOP. Only while the kernel's text is still writable.
pub(super) fn patch_out_pan() {
    let start = &raw const __uaccess_start as *mut u32;
    let words = (&raw const __uaccess_end as usize - start as usize) / 4;
    for i in 0..words {
        // SAFETY: inside the section, which the boot tables map writable; nobody runs it yet.
        unsafe {
            let word = start.add(i);
            if matches!(word.read_volatile(), MSR_PAN_0 | MSR_PAN_1) {
                word.write_volatile(NOP);
            }
        }
    }
    paging::sync_icache(start.cast(), words * 4);
}

/// Bytes of `[addr, addr + len)` that lie in the user half.
#[inline(always)]
fn reachable(addr: u64, len: usize) -> usize {
    if addr >= USER_END { 0 } else { len.min((USER_END - addr) as usize) }
}

/// What a transfer of `len` bytes at `addr` answers, `done` of which were made.
#[inline(always)]
fn conclude(addr: u64, len: usize, done: usize, access: Access) -> Result<(), (usize, UserFault)> {
    if done == len {
        return Ok(());
    }
    Err((done, UserFault { addr: addr.wrapping_add(done as u64), access }))
}

/// Copies from user memory. Err gives the first address that could not be read and how many bytes were copied before it.
///
/// # Safety
/// `dst` must be valid for writes of `len` bytes and not user memory.
#[inline]
pub unsafe fn copy_from(dst: *mut u8, src: u64, len: usize) -> Result<(), (usize, UserFault)> {
    let reach = reachable(src, len);
    // SAFETY: `dst` by contract; the source is user memory, where faults are fixed up.
    let left = unsafe { uaccess_copy(dst as u64, src, reach) };
    conclude(src, len, reach - left, Access::Read)
}

/// Copies to user memory; see [`copy_from`].
///
/// # Safety
/// `src` must be valid for reads of `len` bytes and not user memory.
#[inline]
pub unsafe fn copy_to(dst: u64, src: *const u8, len: usize) -> Result<(), (usize, UserFault)> {
    let reach = reachable(dst, len);
    // SAFETY: as in `copy_from`, the other way round.
    let left = unsafe { uaccess_copy(dst, src as u64, reach) };
    conclude(dst, len, reach - left, Access::Write)
}

pub fn zero(dst: u64, len: usize) -> Result<(), (usize, UserFault)> {
    let reach = reachable(dst, len);
    // SAFETY: user memory.
    let left = unsafe { uaccess_zero(dst, reach, zva_size()) };
    conclude(dst, len, reach - left, Access::Write)
}

/// DC ZVA's block size, looked up once; `usize::MAX` before that.
fn zva_size() -> usize {
    static SIZE: AtomicUsize = AtomicUsize::new(usize::MAX);
    let size = SIZE.load(Ordering::Relaxed);
    if size != usize::MAX {
        return size;
    }
    let size = emulate::zva_size();
    let size = if size < 16 { 0 } else { size };
    SIZE.store(size, Ordering::Relaxed);
    size
}

/// Refuses what is not user memory, and what is not aligned: an exclusive access would fault on it for ever.
#[inline(always)]
fn check(addr: u64, size: u64, access: Access) -> Result<(), UserFault> {
    if addr < USER_END && addr.is_multiple_of(size) { Ok(()) } else { Err(UserFault { addr, access }) }
}

#[inline(always)]
fn outcome(result: Outcome, addr: u64, access: Access) -> Result<u64, UserFault> {
    if result.faulted == 0 { Ok(result.value) } else { Err(UserFault { addr, access }) }
}

/// Aligned, single-copy atomic (acquire).
#[inline]
pub fn load_u32(addr: u64) -> Result<u32, UserFault> {
    check(addr, 4, Access::Read)?;
    // SAFETY: user memory; so below.
    outcome(unsafe { uaccess_load_u32(addr) }, addr, Access::Read).map(|value| value as u32)
}

#[inline]
pub fn load_u64(addr: u64) -> Result<u64, UserFault> {
    check(addr, 8, Access::Read)?;
    // SAFETY: see `load_u32`.
    outcome(unsafe { uaccess_load_u64(addr) }, addr, Access::Read)
}

/// Aligned, single-copy atomic (release).
#[inline]
pub fn store_u32(addr: u64, value: u32) -> Result<(), UserFault> {
    check(addr, 4, Access::Write)?;
    // SAFETY: see `load_u32`.
    outcome(unsafe { uaccess_store_u32(addr, value) }, addr, Access::Write).map(|_| ())
}

#[inline]
pub fn store_u64(addr: u64, value: u64) -> Result<(), UserFault> {
    check(addr, 8, Access::Write)?;
    // SAFETY: see `load_u32`.
    outcome(unsafe { uaccess_store_u64(addr, value) }, addr, Access::Write).map(|_| ())
}

/// Atomic compare-and-exchange (acquire-release); answers the value that was there, or any but `old` if others kept it from
/// succeeding: the caller looks again.
#[inline]
pub fn cmpxchg_u32(addr: u64, old: u32, new: u32) -> Result<u32, UserFault> {
    check(addr, 4, Access::Write)?;
    // SAFETY: see `load_u32`.
    outcome(unsafe { uaccess_cmpxchg_u32(addr, old, new) }, addr, Access::Write).map(|value| value as u32)
}

/// Bytes before the first NUL, up to `max`, into `dst`; Ok(n) with n == max means no NUL found.
/// The first n bytes of `dst` are set, of an error too; those after them may change.
pub fn copy_string(dst: &mut [MaybeUninit<u8>], src: u64) -> Result<usize, (usize, UserFault)> {
    let reach = reachable(src, dst.len());
    // SAFETY: `dst` is writable for `reach` bytes, the source is user memory.
    let result = unsafe { uaccess_string(dst.as_mut_ptr().cast(), src, reach) };
    let count = result.value as usize;
    if result.faulted != 0 || (count == reach && reach < dst.len()) {
        return Err((count, UserFault { addr: src.wrapping_add(count as u64), access: Access::Read }));
    }
    Ok(count)
}
