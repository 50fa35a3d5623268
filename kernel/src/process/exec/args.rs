//! Argument and environment strings, copied out of the old image.

use alloc::vec::Vec;

use super::TOO_BIG;
use crate::errno::{Errno, Result};
use crate::mm::{AddressSpace, UserPtr, copy_string};

/// MAX_ARG_STRLEN: the longest single string, with its NUL, in bytes.
const MAX_STRING: usize = 131_072;
/// Upper bound of all strings together (three quarters of _STK_LIM), in bytes.
const MAX_TOTAL: usize = 6 << 20;

/// A list of NUL-terminated strings, stored one after the other.
#[derive(Clone, Default)]
pub struct Strings {
    bytes: Vec<u8>,
    count: usize,
}

impl Strings {
    pub fn from_slices(strings: &[&[u8]]) -> Strings {
        let mut list = Strings::default();
        for string in strings {
            list.bytes.extend_from_slice(string);
            list.bytes.push(0);
            list.count += 1;
        }
        list
    }

    /// Bytes that all strings of a program may take, with 8 for the pointer to each (execve(2), "Limits on size").
    pub fn budget(stack_limit: u64) -> usize {
        usize::try_from(stack_limit / 4).unwrap_or(usize::MAX).clamp(MAX_STRING, MAX_TOTAL)
    }

    /// What these take of it.
    pub fn cost(&self) -> usize {
        self.bytes.len() + 8 * self.count
    }

    /// Copies a NULL-terminated array of string pointers; a null array is an empty list, as on Linux. E2BIG for more than
    /// `budget`.
    pub async fn copy_from_user(mm: &AddressSpace, array: UserPtr<u64>, budget: usize) -> Result<Strings> {
        let mut list = Strings::default();
        if array.addr() == 0 {
            return Ok(list);
        }
        loop {
            let slot = array.addr().checked_add(8 * list.count as u64).ok_or(Errno::EFAULT)?;
            let string = UserPtr::<u64>::new(slot).read(mm).await?;
            if string == 0 {
                return Ok(list);
            }
            let room = budget.checked_sub(list.cost() + 8).ok_or(TOO_BIG)?;
            list.append_from_user(mm, string, room.min(MAX_STRING)).await?;
            crate::exec::budget().await;
        }
    }

    async fn append_from_user(&mut self, mm: &AddressSpace, mut addr: u64, mut room: usize) -> Result<()> {
        let mut chunk = [0; 256];
        loop {
            let want = chunk.len().min(room);
            if want == 0 {
                return Err(TOO_BIG);
            }
            let (len, fault) = match copy_string(&mut chunk[..want], addr) {
                Ok(len) => (len, None),
                Err((len, fault)) => (len, Some(fault)),
            };
            self.bytes.try_reserve(len + 1).map_err(|_| Errno::ENOMEM)?;
            self.bytes.extend_from_slice(&chunk[..len]);
            match fault {
                Some(fault) => mm.fault_in(fault).await?,
                None if len < want => {
                    self.bytes.push(0);
                    self.count += 1;
                    return Ok(());
                }
                None => {}
            }
            addr += len as u64;
            room -= len;
        }
    }

    /// Replaces the first string (if any) by these, as a `#!` line asks.
    pub fn replace_first(&mut self, strings: &[&[u8]]) {
        let rest = match self.bytes.iter().position(|byte| *byte == 0) {
            Some(end) if self.count > 0 => &self.bytes[end + 1..],
            _ => &[],
        };
        let mut list = Strings::from_slices(strings);
        list.bytes.extend_from_slice(rest);
        list.count += self.count.saturating_sub(1);
        *self = list;
    }

    pub fn count(&self) -> usize {
        self.count
    }

    /// All strings with their NULs.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Offsets of the strings in `bytes`.
    pub fn offsets(&self) -> impl Iterator<Item = usize> + '_ {
        let ends = self.bytes.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at + 1);
        core::iter::once(0).chain(ends).take(self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_name_each_string() {
        let list = Strings::from_slices(&[b"ls", b"", b"-l"]);
        assert_eq!(list.offsets().collect::<Vec<_>>(), [0, 3, 4]);
        assert_eq!(Strings::default().offsets().count(), 0);
    }

    #[test]
    fn script_arguments_replace_the_first_string() {
        let mut list = Strings::from_slices(&[b"script", b"x", b"y"]);
        list.replace_first(&[b"/bin/sh", b"-e", b"/tmp/script"]);
        assert_eq!(list.bytes(), b"/bin/sh\0-e\0/tmp/script\0x\0y\0");
        assert_eq!(list.count(), 5);
        let mut empty = Strings::default();
        empty.replace_first(&[b"/bin/sh", b"s"]);
        assert_eq!(empty.count(), 2);
    }
}
