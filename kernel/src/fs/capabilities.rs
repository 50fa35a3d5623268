//! Capabilities of programs (capabilities(7), "File capabilities"): the extended attribute `security.capability`.
//!
//! Its value is `struct vfs_cap_data` or `struct vfs_ns_cap_data` of linux/capability.h: a word with revision and flags, a
//! pair of words (permitted, inheritable) for each 32 capabilities, and from revision 3 on the user who is root where
//! they count. Who changes a file's content or owner takes them away.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::inode::Inode;
use crate::errno::{Errno, Result};
use crate::process::Caps;

pub const NAME: &[u8] = b"security.capability";

const REVISION_MASK: u32 = 0xff00_0000;
const REVISION_1: u32 = 0x0100_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
const EFFECTIVE: u32 = 1;
/// Bytes of a value of revision 1, 2 and 3.
const LENGTHS: [usize; 3] = [12, 20, 24];

/// What a program may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileCaps {
    pub permitted: Caps,
    pub inheritable: Caps,
    /// All that it gets is effective from the start.
    pub effective: bool,
}

fn word(value: &[u8], at: usize) -> u32 {
    value.get(4 * at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The number of the revision, from 1 on, and the user who is root where the capabilities count. EINVAL: makes no sense.
fn head(value: &[u8]) -> Result<(u32, u32)> {
    let (revision, root) = match word(value, 0) & REVISION_MASK {
        REVISION_1 => (1, 0),
        REVISION_2 => (2, 0),
        REVISION_3 => (3, word(value, 5)),
        _ => return Err(Errno::EINVAL),
    };
    if value.len() == LENGTHS[revision as usize - 1] { Ok((revision, root)) } else { Err(Errno::EINVAL) }
}

/// What a stored value gives a program. None: nothing, because it is for another user namespace.
fn decode(value: &[u8]) -> Result<Option<FileCaps>> {
    let (revision, root) = head(value)?;
    if root != 0 {
        return Ok(None);
    }
    let set = |first: usize| {
        let high = if revision == 1 { 0 } else { word(value, first + 2) };
        Caps::from_bits_truncate((u64::from(high) << 32) | u64::from(word(value, first)))
    };
    let effective = word(value, 0) & EFFECTIVE != 0;
    Ok(Some(FileCaps { permitted: set(1), inheritable: set(2), effective }))
}

/// May a program be given this value? Those of revision 1 are not made any more: EINVAL.
pub fn check_new(value: &[u8]) -> Result<()> {
    let (revision, root) = head(value)?;
    let known_flags = word(value, 0) & !(REVISION_MASK | EFFECTIVE) == 0;
    if known_flags && revision > 1 && root != u32::MAX { Ok(()) } else { Err(Errno::EINVAL) }
}

/// A stored value as getxattr(2) shows it: with a root user only where that is another.
pub fn shown(mut value: Vec<u8>) -> Result<Vec<u8>> {
    check_new(&value)?;
    if word(&value, 0) & REVISION_MASK == REVISION_3 && word(&value, 5) == 0 {
        value.truncate(LENGTHS[1]);
        let head = REVISION_2 | word(&value, 0) & EFFECTIVE;
        value[..4].copy_from_slice(&head.to_le_bytes());
    }
    Ok(value)
}

/// What the file gives a program that is run from it.
pub async fn of(inode: &Arc<dyn Inode>) -> Result<Option<FileCaps>> {
    if inode.state().has_no_capabilities() {
        return Ok(None);
    }
    let _guard = inode.state().lock.lock().await;
    match stored(inode).await? {
        Some(value) => decode(&value),
        None => Ok(None),
    }
}

/// The stored value. The file is locked; that there is none is remembered, unless it is another inode that has it.
async fn stored(inode: &Arc<dyn Inode>) -> Result<Option<Vec<u8>>> {
    match inode.get_xattr(NAME).await {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => {
            inode.state().set_no_capabilities(!inode.is_layered());
            Ok(None)
        }
        Err(errno) => Err(errno),
    }
}

/// Takes them away because the content changes. The file is locked.
pub async fn remove(inode: &Arc<dyn Inode>) -> Result<()> {
    // It is the kernel of those who share it that does this with what is written.
    if inode.state().has_no_capabilities() || inode.state().is_shared() {
        return Ok(());
    }
    Box::pin(look_and_remove(inode)).await
}

/// The same because the owner changes, of which others may know nothing.
pub async fn remove_for_chown(inode: &Arc<dyn Inode>) -> Result<()> {
    if inode.state().has_no_capabilities() {
        return Ok(());
    }
    Box::pin(look_and_remove(inode)).await
}

async fn look_and_remove(inode: &Arc<dyn Inode>) -> Result<()> {
    // What cannot be read gives no program anything.
    if !matches!(stored(inode).await, Ok(Some(_))) {
        return Ok(());
    }
    match inode.remove_xattr(NAME).await {
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn all_revisions_are_read() {
        let low = FileCaps { permitted: Caps::NET_RAW, inheritable: Caps::CHOWN, effective: true };
        assert_eq!(decode(&value(&[REVISION_1 | 1, 1 << 13, 1])), Ok(Some(low)));
        let high = FileCaps { permitted: Caps::NET_RAW | Caps::BPF, inheritable: Caps::MAC_OVERRIDE, effective: false };
        assert_eq!(decode(&value(&[REVISION_2, 1 << 13, 0, 1 << 7, 1])), Ok(Some(high)));
        assert_eq!(decode(&value(&[REVISION_3, 1 << 13, 0, 1 << 7, 1, 0])), Ok(Some(high)));
        assert_eq!(decode(&value(&[REVISION_3, 1 << 13, 0, 1 << 7, 1, 1000])), Ok(None));
        // Capabilities that there are not do not count.
        let all = FileCaps { permitted: Caps::all(), inheritable: Caps::empty(), effective: false };
        assert_eq!(decode(&value(&[REVISION_2, u32::MAX, 0, u32::MAX, 0])), Ok(Some(all)));
    }

    #[test]
    fn nonsense_is_refused() {
        let bad: [&[u32]; 6] = [
            &[],
            &[REVISION_2],
            &[REVISION_2, 0, 0],
            &[REVISION_1, 0, 0, 0, 0],
            &[0x0400_0000, 0, 0, 0, 0],
            &[REVISION_3, 0, 0, 0, 0],
        ];
        for words in bad {
            assert_eq!(decode(&value(words)), Err(Errno::EINVAL), "{words:x?}");
            assert_eq!(check_new(&value(words)), Err(Errno::EINVAL), "{words:x?}");
        }
        assert_eq!(decode(&[1]), Err(Errno::EINVAL));
        assert_eq!(check_new(&value(&[REVISION_1, 0, 0])), Err(Errno::EINVAL));
        assert_eq!(check_new(&value(&[REVISION_2 | 2, 0, 0, 0, 0])), Err(Errno::EINVAL));
    }

    #[test]
    fn another_root_is_shown() {
        let plain = value(&[REVISION_2 | 1, 5, 6, 7, 8]);
        assert_eq!(shown(plain.clone()), Ok(plain.clone()));
        assert_eq!(shown(value(&[REVISION_3 | 1, 5, 6, 7, 8, 0])), Ok(plain));
        let other = value(&[REVISION_3, 5, 6, 7, 8, 1000]);
        assert_eq!(shown(other.clone()), Ok(other));
    }
}
