//! `struct sockaddr` in user memory.

use super::socket::Address;
use crate::errno::{Errno, Result};
use crate::mm::UserPtr;
use crate::process::Thread;

/// Longest address of any family: `struct sockaddr_storage`.
pub const MAX: usize = 128;

/// Reads the address that connect(2), bind(2) or sendto(2) was given.
pub async fn import(t: &Thread, address: UserPtr<u8>, len: i32) -> Result<Address> {
    let len = usize::try_from(len).ok().filter(|len| *len <= MAX).ok_or(Errno::EINVAL)?;
    let mut bytes = Address::new();
    bytes.resize(len, 0);
    address.read_bytes(t.mm(), &mut bytes).await?;
    Ok(bytes)
}

/// Writes an address to a buffer of `*len` bytes, cut if need be; `*len` becomes its true length (accept(2)).
pub async fn export(t: &Thread, address: &[u8], to: UserPtr<u8>, len: UserPtr<i32>) -> Result<()> {
    let room = usize::try_from(len.read(t.mm()).await?).map_err(|_| Errno::EINVAL)?;
    let cut = address.get(..room.min(address.len())).unwrap_or(address);
    to.write_bytes(t.mm(), cut).await?;
    len.write(t.mm(), address.len() as i32).await
}

/// sa_family; EINVAL if the address is too short to have one.
pub fn family(address: &[u8]) -> Result<u16> {
    let bytes = address.first_chunk().ok_or(Errno::EINVAL)?;
    Ok(u16::from_ne_bytes(*bytes))
}
