//! Access to the current user address space by walking its tables (VMSAv8-64, as `pte.rs` describes), with the
//! checks that the hardware makes for an access from EL0.

use super::memory::phys_to_virt;
use super::sim::{switch_point, with};
use crate::arch::pte::{Pte, PteFlags};
use crate::arch::{Access, UserFault};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

const USER_END: u64 = 1 << 48;
const PAGE: u64 = 4096;

/// Translates for an access from EL0. Answers where the byte is; valid to the end of its 4 KiB page.
pub fn translate(addr: u64, access: Access) -> Result<*mut u8, UserFault> {
    switch_point();
    let fault = UserFault { addr, access };
    let root = with(|state| state.roots[state.cpu]);
    if addr >= USER_END || root == 0 {
        return Err(fault);
    }
    let mut table = root;
    let mut read_only = false;
    for level in 0..4 {
        let shift = 39 - 9 * level;
        let index = (addr >> shift) & 511;
        let slot = phys_to_virt(table + 8 * index).cast::<u64>();
        // SAFETY: a table in simulated RAM; the kernel may change it concurrently, as on the machine.
        let entry = Pte(unsafe { AtomicU64::from_ptr(slot) }.load(Ordering::Acquire));
        if !entry.is_valid() {
            return Err(fault);
        }
        if level < 3 && entry.is_table() {
            read_only |= entry.flags().contains(PteFlags::TABLE_READ_ONLY);
            table = entry.address();
            continue;
        }
        // A block at levels 1 and 2; at level 3 only the page encoding is valid.
        if level == 0 || (level == 3 && !entry.is_table()) || !allows(entry, read_only, access) {
            return Err(fault);
        }
        let size = 1u64 << shift;
        return Ok(phys_to_virt((entry.address() & !(size - 1)) + (addr & (size - 1))));
    }
    Err(fault)
}

fn allows(entry: Pte, read_only: bool, access: Access) -> bool {
    let flags = entry.flags();
    let accessible = flags.contains(PteFlags::USER | PteFlags::ACCESSED);
    accessible
        && match access {
            Access::Read => true,
            Access::Write => !read_only && !flags.contains(PteFlags::READ_ONLY),
            Access::Execute => !flags.contains(PteFlags::UXN),
        }
}

/// Calls `each(offset, pointer, length)` for the pieces of the range, which cross no page border.
fn pieces(
    addr: u64,
    len: usize,
    access: Access,
    mut each: impl FnMut(usize, *mut u8, usize),
) -> Result<(), (usize, UserFault)> {
    let mut done = 0;
    while done < len {
        let at = addr.wrapping_add(done as u64);
        let piece = (len - done).min((PAGE - at % PAGE) as usize);
        let pointer = translate(at, access).map_err(|fault| (done, fault))?;
        each(done, pointer, piece);
        done += piece;
    }
    Ok(())
}

/// Copies from user memory. Err gives the first address that could not be read and how many bytes were copied before it.
///
/// # Safety
/// `dst` must be valid for writes of `len` bytes and not user memory.
pub unsafe fn copy_from(dst: *mut u8, src: u64, len: usize) -> Result<(), (usize, UserFault)> {
    // SAFETY: `dst` by contract, the piece by `translate`.
    pieces(src, len, Access::Read, |done, piece, size| unsafe { dst.add(done).copy_from(piece, size) })
}

/// # Safety
/// `src` must be valid for reads of `len` bytes and not user memory.
pub unsafe fn copy_to(dst: u64, src: *const u8, len: usize) -> Result<(), (usize, UserFault)> {
    // SAFETY: `src` by contract, the piece by `translate`.
    pieces(dst, len, Access::Write, |done, piece, size| unsafe { piece.copy_from(src.add(done), size) })
}

pub fn zero(dst: u64, len: usize) -> Result<(), (usize, UserFault)> {
    // SAFETY: the piece by `translate`.
    pieces(dst, len, Access::Write, |_, piece, size| unsafe { piece.write_bytes(0, size) })
}

/// Where an aligned word is.
fn word(addr: u64, size: u64, access: Access) -> Result<*mut u8, UserFault> {
    if !addr.is_multiple_of(size) {
        return Err(UserFault { addr, access });
    }
    translate(addr, access)
}

/// Aligned, single-copy atomic (acquire).
pub fn load_u32(addr: u64) -> Result<u32, UserFault> {
    let at = word(addr, 4, Access::Read)?;
    // SAFETY: aligned and inside simulated RAM; so below.
    Ok(unsafe { AtomicU32::from_ptr(at.cast()) }.load(Ordering::Acquire))
}

pub fn load_u64(addr: u64) -> Result<u64, UserFault> {
    let at = word(addr, 8, Access::Read)?;
    // SAFETY: see `load_u32`.
    Ok(unsafe { AtomicU64::from_ptr(at.cast()) }.load(Ordering::Acquire))
}

pub fn store_u32(addr: u64, value: u32) -> Result<(), UserFault> {
    let at = word(addr, 4, Access::Write)?;
    // SAFETY: see `load_u32`.
    unsafe { AtomicU32::from_ptr(at.cast()) }.store(value, Ordering::Release);
    Ok(())
}

pub fn store_u64(addr: u64, value: u64) -> Result<(), UserFault> {
    let at = word(addr, 8, Access::Write)?;
    // SAFETY: see `load_u32`.
    unsafe { AtomicU64::from_ptr(at.cast()) }.store(value, Ordering::Release);
    Ok(())
}

/// Atomic compare-and-exchange (acquire-release); answers the value that was there.
pub fn cmpxchg_u32(addr: u64, old: u32, new: u32) -> Result<u32, UserFault> {
    let at = word(addr, 4, Access::Write)?;
    // SAFETY: see `load_u32`.
    let cell = unsafe { AtomicU32::from_ptr(at.cast()) };
    Ok(cell.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).unwrap_or_else(|found| found))
}

/// Bytes before the first NUL, up to `max`, into `dst`; Ok(n) with n == max means no NUL found.
/// The first n bytes of `dst` are set, of an error too.
pub fn copy_string(dst: &mut [MaybeUninit<u8>], src: u64) -> Result<usize, (usize, UserFault)> {
    for (i, slot) in dst.iter_mut().enumerate() {
        let at = translate(src.wrapping_add(i as u64), Access::Read).map_err(|fault| (i, fault))?;
        // SAFETY: one byte inside simulated RAM.
        let byte = unsafe { AtomicU8::from_ptr(at) }.load(Ordering::Relaxed);
        if byte == 0 {
            return Ok(i);
        }
        slot.write(byte);
    }
    Ok(dst.len())
}

#[cfg(test)]
mod tests {
    use super::super::memory::RAM;
    use super::super::paging::{phys_to_virt, set_user_root};
    use super::*;

    /// Tables and one page at the end of RAM, which is not given to the kernel.
    fn with_page(slot: u64, flags: PteFlags, table_flags: PteFlags) -> u64 {
        let base = RAM.end - (slot + 1) * 0x8000;
        let at = |page: u64| base + page * PAGE;
        let user = 0x12_3456_7000u64;
        for level in 0..4u64 {
            let slot = phys_to_virt(at(level) + 8 * (user >> (39 - 9 * level) & 511)).cast::<u64>();
            let kind = PteFlags::VALID | PteFlags::TABLE;
            let extra = if level == 3 { flags } else { table_flags };
            // SAFETY: the pages are this test's own.
            unsafe { slot.write(Pte::new(at(level + 1), kind | extra).0) };
        }
        set_user_root(at(0), 1);
        user
    }

    #[test]
    fn a_copy_stops_at_the_end_of_the_mapping() {
        let user = with_page(0, PteFlags::USER | PteFlags::ACCESSED, PteFlags::empty());
        let data = [7u8; 100];
        // SAFETY: both buffers are ours.
        unsafe {
            assert_eq!(copy_to(user, data.as_ptr(), 100), Ok(()));
            let (done, fault) = copy_to(user + 4000, data.as_ptr(), 100).unwrap_err();
            assert_eq!((done, fault.addr, fault.access), (96, user + 4096, Access::Write));
            let mut back = [0u8; 100];
            assert_eq!(copy_from(back.as_mut_ptr(), user, 100), Ok(()));
            assert_eq!(back, data);
        }
    }

    #[test]
    fn permissions_are_those_of_the_user() {
        let user = with_page(1, PteFlags::USER | PteFlags::ACCESSED | PteFlags::READ_ONLY, PteFlags::empty());
        assert_eq!(load_u32(user), Ok(0));
        assert!(store_u32(user, 1).is_err());
        let user = with_page(2, PteFlags::USER | PteFlags::ACCESSED, PteFlags::TABLE_READ_ONLY);
        assert!(load_u64(user).is_ok());
        assert!(cmpxchg_u32(user, 0, 1).is_err());
        let user = with_page(3, PteFlags::ACCESSED, PteFlags::empty());
        assert!(load_u64(user).is_err());
        let user = with_page(4, PteFlags::USER, PteFlags::empty());
        assert!(load_u64(user).is_err());
    }

    #[test]
    fn strings_and_words() {
        let user = with_page(5, PteFlags::USER | PteFlags::ACCESSED, PteFlags::empty());
        // SAFETY: the buffer is ours.
        assert_eq!(unsafe { copy_to(user + 4088, c"seven77".as_ptr().cast(), 8) }, Ok(()));
        let mut buffer = [MaybeUninit::new(0); 16];
        assert_eq!(copy_string(&mut buffer, user + 4088), Ok(7));
        // SAFETY: all were set at first.
        let set = buffer.map(|byte| unsafe { byte.assume_init() });
        assert_eq!(&set[..7], b"seven77");
        assert_eq!(copy_string(&mut buffer[..3], user + 4088), Ok(3));
        assert_eq!(store_u32(user + 4092, u32::MAX), Ok(()));
        assert_eq!(copy_string(&mut buffer, user + 4088).unwrap_err().0, 8);
        assert_eq!(cmpxchg_u32(user + 4092, u32::MAX, 5), Ok(u32::MAX));
        assert_eq!(load_u32(user + 4092), Ok(5));
        assert!(load_u32(user + 2).is_err());
    }
}
