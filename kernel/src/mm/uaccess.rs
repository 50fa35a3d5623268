//! Typed access to the memory of the polled thread (docs/design.md 11: its address space is the current one).
//!
//! The fast path is one call into `arch::user`: no lock, no suspension. On a fault the future awaits
//! [`AddressSpace::fault_in`] and goes on where the copy stopped.

use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr;

use alloc::vec::Vec;
use smallvec::SmallVec;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::space::AddressSpace;
use crate::arch::{self, Access, UserFault};
use crate::errno::{Errno, Result};

/// A string from user space, without its NUL; short ones need no allocation.
pub type UserStr = SmallVec<[u8; SHORT]>;
/// Bytes of a string that need no memory of their own.
const SHORT: usize = 128;

/// The address of a `T` in user memory. Null is an address like any other; see [`UserPtr::is_null`].
#[repr(transparent)]
pub struct UserPtr<T>(pub u64, PhantomData<fn(T) -> T>);

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for UserPtr<T> {}

impl<T> fmt::Debug for UserPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl<T> From<u64> for UserPtr<T> {
    fn from(addr: u64) -> Self {
        UserPtr::new(addr)
    }
}

impl<T> UserPtr<T> {
    pub const fn new(addr: u64) -> Self {
        UserPtr(addr, PhantomData)
    }

    pub const fn addr(self) -> u64 {
        self.0
    }

    pub const fn is_null(self) -> bool {
        self.0 == 0
    }

    /// None for a null pointer: for optional arguments.
    pub fn non_null(self) -> Option<Self> {
        (self.0 != 0).then_some(self)
    }

    pub const fn cast<U>(self) -> UserPtr<U> {
        UserPtr::new(self.0)
    }

    /// The `index`-th element of an array that starts here.
    pub const fn at(self, index: usize) -> Self {
        UserPtr::new(self.0.wrapping_add((index * size_of::<T>()) as u64))
    }

    pub const fn byte_add(self, bytes: u64) -> Self {
        UserPtr::new(self.0.wrapping_add(bytes))
    }
}

impl<T: FromBytes> UserPtr<T> {
    /// Reads without faulting pages in.
    #[inline]
    pub fn try_read(self) -> Result<T, UserFault> {
        if size_of::<T>() == 8 && self.0.is_multiple_of(8) {
            let bytes = arch::user::load_u64(self.0)?.to_ne_bytes();
            // As long as `T`: always Ok.
            if let Ok(value) = T::read_from_bytes(&bytes) {
                return Ok(value);
            }
        }
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: `value` is kernel memory of that size.
        unsafe { arch::user::copy_from(value.as_mut_ptr().cast(), self.0, size_of::<T>()) }
            .map_err(|(_, fault)| fault)?;
        // SAFETY: the copy was complete, and every bit pattern is a `T` (FromBytes).
        Ok(unsafe { value.assume_init() })
    }

    pub async fn read(self, mm: &AddressSpace) -> Result<T> {
        loop {
            match self.try_read() {
                Ok(value) => return Ok(value),
                Err(fault) => mm.fault_in(fault).await?,
            }
        }
    }

    /// Reads `count` elements; refuses (EINVAL) more than `max`, which bounds the allocation.
    pub async fn read_slice(self, mm: &AddressSpace, count: usize, max: usize) -> Result<Vec<T>> {
        if count > max {
            return Err(Errno::EINVAL);
        }
        let mut values = Vec::<T>::new();
        values.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
        let len = count.checked_mul(size_of::<T>()).ok_or(Errno::EINVAL)?;
        let mut done = 0;
        while done < len {
            // SAFETY: `values` has room for `len` bytes, of which `done` were written.
            let result = unsafe {
                arch::user::copy_from(
                    values.as_mut_ptr().cast::<u8>().add(done),
                    self.0.wrapping_add(done as u64),
                    len - done,
                )
            };
            match result {
                Ok(()) => break,
                Err((copied, fault)) => {
                    done += copied;
                    mm.fault_in(fault).await?;
                }
            }
        }
        // SAFETY: `count` elements were written, and every bit pattern is a `T`.
        unsafe { values.set_len(count) };
        Ok(values)
    }
}

impl<T: IntoBytes + Immutable> UserPtr<T> {
    /// Writes without faulting pages in.
    #[inline]
    pub fn try_write(self, value: &T) -> Result<(), UserFault> {
        let bytes = value.as_bytes();
        if size_of::<T>() == 8
            && self.0.is_multiple_of(8)
            && let Some(word) = bytes.first_chunk()
        {
            return arch::user::store_u64(self.0, u64::from_ne_bytes(*word));
        }
        // SAFETY: `bytes` is kernel memory.
        unsafe { arch::user::copy_to(self.0, bytes.as_ptr(), bytes.len()) }.map_err(|(_, fault)| fault)
    }

    pub async fn write(self, mm: &AddressSpace, value: T) -> Result<()> {
        self.cast::<u8>().write_bytes(mm, value.as_bytes()).await
    }

    pub async fn write_slice(self, mm: &AddressSpace, values: &[T]) -> Result<()> {
        self.cast::<u8>().write_bytes(mm, values.as_bytes()).await
    }
}

impl UserPtr<u8> {
    /// Fills the buffer without faulting pages in.
    pub fn try_read_bytes(self, bytes: &mut [u8]) -> Result<(), UserFault> {
        // SAFETY: `bytes` is kernel memory.
        unsafe { arch::user::copy_from(bytes.as_mut_ptr(), self.0, bytes.len()) }.map_err(|(_, fault)| fault)
    }

    /// Writes without faulting pages in.
    pub fn try_write_bytes(self, bytes: &[u8]) -> Result<(), UserFault> {
        // SAFETY: `bytes` is kernel memory.
        unsafe { arch::user::copy_to(self.0, bytes.as_ptr(), bytes.len()) }.map_err(|(_, fault)| fault)
    }

    pub async fn write_bytes(self, mm: &AddressSpace, bytes: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &bytes[done..];
            // SAFETY: `rest` is kernel memory.
            match unsafe { arch::user::copy_to(self.0.wrapping_add(done as u64), rest.as_ptr(), rest.len()) } {
                Ok(()) => break,
                Err((copied, fault)) => {
                    done += copied;
                    mm.fault_in(fault).await?;
                }
            }
        }
        Ok(())
    }

    pub async fn read_bytes(self, mm: &AddressSpace, bytes: &mut [u8]) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let rest = &mut bytes[done..];
            // SAFETY: `rest` is kernel memory.
            match unsafe { arch::user::copy_from(rest.as_mut_ptr(), self.0.wrapping_add(done as u64), rest.len()) } {
                Ok(()) => break,
                Err((copied, fault)) => {
                    done += copied;
                    mm.fault_in(fault).await?;
                }
            }
        }
        Ok(())
    }

    /// Fills `len` bytes with zeros.
    pub async fn clear(self, mm: &AddressSpace, len: usize) -> Result<()> {
        let mut done = 0;
        while done < len {
            match arch::user::zero(self.0.wrapping_add(done as u64), len - done) {
                Ok(()) => break,
                Err((cleared, fault)) => {
                    done += cleared;
                    mm.fault_in(fault).await?;
                }
            }
        }
        Ok(())
    }
}

/// Reads a NUL-terminated string of at most `max` bytes with its NUL (PATH_MAX counts it too); ENAMETOOLONG if it is
/// longer.
pub async fn read_cstr(mm: &AddressSpace, addr: u64, max: usize) -> Result<UserStr> {
    if let Some(short) = read_short_cstr(addr, max) {
        return Ok(short);
    }
    let mut string = UserStr::new();
    loop {
        let done = string.len();
        let chunk = (string.capacity().max(done * 2) - done).min(max - done);
        string.try_reserve(chunk).map_err(|_| Errno::ENOMEM)?;
        string.resize(done + chunk, 0);
        match copy_string(&mut string[done..], addr.wrapping_add(done as u64)) {
            Ok(n) => {
                string.truncate(done + n);
                if n < chunk {
                    return Ok(string);
                }
                if done + n >= max {
                    return Err(Errno::ENAMETOOLONG);
                }
            }
            Err((n, fault)) => {
                string.truncate(done + n);
                mm.fault_in(fault).await?;
            }
        }
    }
}

/// A string that needs no memory, if it is present.
#[inline]
fn read_short_cstr(addr: u64, max: usize) -> Option<UserStr> {
    let mut buf = [MaybeUninit::uninit(); SHORT];
    let string = try_read_cstr(addr, &mut buf)?;
    (string.len() < max).then(|| UserStr::from_slice(string))
}

/// A string that fits into `buf` with its NUL. None: it does not, or a page is missing.
pub fn try_read_cstr(addr: u64, buf: &mut [MaybeUninit<u8>]) -> Option<&[u8]> {
    let len = arch::user::copy_string(buf, addr).ok()?;
    let string = buf.get(..len).filter(|string| string.len() < buf.len())?;
    // SAFETY: `copy_string` has set so many bytes.
    Some(unsafe { string.assume_init_ref() })
}

/// [`arch::user::copy_string`] to where there is something already.
pub fn copy_string(dst: &mut [u8], src: u64) -> core::result::Result<usize, (usize, UserFault)> {
    // SAFETY: the same memory; nothing in it is made uninitialised, as only bytes are written.
    let dst = unsafe { &mut *(ptr::from_mut(dst) as *mut [MaybeUninit<u8>]) };
    arch::user::copy_string(dst, src)
}

impl UserFault {
    pub const fn read(addr: u64) -> Self {
        UserFault { addr, access: Access::Read }
    }

    pub const fn write(addr: u64) -> Self {
        UserFault { addr, access: Access::Write }
    }
}
