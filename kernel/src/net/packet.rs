//! The bytes of a datagram, between user memory and the box that it waits in.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::errno::Errno;
use crate::fs::TryError;
use crate::mm::{IoBuf, PAGE_SIZE, frames};

/// The bytes of a message; nothing is taken on a fault.
pub fn copy_in(buf: &mut IoBuf<'_>) -> Result<Box<[u8]>, TryError> {
    let len = buf.remaining();
    // Those that wait are not bounded by what senders have: the heap keeps what the kernel needs itself.
    if frames::is_short() || len >= PAGE_SIZE && !frames::has_spare() {
        return Err(Errno::ENOBUFS.into());
    }
    let mut data = Vec::new();
    data.try_reserve_exact(len).map_err(|_| Errno::ENOBUFS)?;
    data.resize(len, 0);
    let done = buf.copy_from(&mut data)?;
    match buf.take_fault() {
        Some(fault) if done < len => {
            buf.rewind(done);
            Err(fault.into())
        }
        _ => Ok(data.into_boxed_slice()),
    }
}

/// The same bytes without spare room. They are copied if there is some, because to shrink a vector may be an allocation that
/// must not fail.
pub fn boxed(bytes: Vec<u8>) -> Result<Box<[u8]>, Errno> {
    if bytes.capacity() == bytes.len() {
        return Ok(bytes.into_boxed_slice());
    }
    let mut exact = Vec::new();
    exact.try_reserve_exact(bytes.len()).map_err(|_| Errno::ENOBUFS)?;
    exact.extend_from_slice(&bytes);
    Ok(exact.into_boxed_slice())
}

/// As much of a message as the receiver has room for.
pub fn copy_out(buf: &mut IoBuf<'_>, data: &[u8]) -> Result<usize, TryError> {
    let done = buf.copy_to(data)?;
    match buf.take_fault() {
        Some(fault) => {
            buf.rewind(done);
            Err(fault.into())
        }
        None => Ok(done),
    }
}
