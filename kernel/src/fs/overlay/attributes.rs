//! What the layers' directories and files say of themselves, by extended attributes.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::OverlayFs;
use super::inode::{Number, OverlayInode};
use crate::errno::{Errno, Result};
use crate::fs::dentry::Dentry;
use crate::fs::inode::{FileSystem, FileType};
use crate::fs::inode_flags::InodeFlags;

const TRUSTED: &[u8] = b"trusted.overlay.";
const USER: &[u8] = b"user.overlay.";

/// The directory hides those of lower layers.
const OPAQUE: &[u8] = b"opaque";
/// Something in the directory has the number of a lower one.
const IMPURE: &[u8] = b"impure";
/// What it was copied from.
const ORIGIN: &[u8] = b"origin";
/// The directory was moved, and lower ones are under another name. Not made here, and not followed.
const REDIRECT: &[u8] = b"redirect";
/// The content is still below. Not made here, and not followed.
const METACOPY: &[u8] = b"metacopy";

/// It was copied from what is append-only (`a`) or immutable (`i`).
const BOUND: &[u8] = b"protattr";
const BOUNDS: [(InodeFlags, u8); 2] = [(InodeFlags::APPEND, b'a'), (InodeFlags::IMMUTABLE, b'i')];

impl OverlayFs {
    fn prefix(&self) -> &'static [u8] {
        if self.options.user_attributes { USER } else { TRUSTED }
    }

    /// It is the overlay's own, and nobody's business.
    pub fn is_private(&self, name: &[u8]) -> bool {
        name.starts_with(self.prefix())
    }

    async fn get(&self, of: &Arc<Dentry>, name: &[u8]) -> Result<Option<Vec<u8>>> {
        match of.inode().get_xattr(&[self.prefix(), name].concat()).await {
            Ok(value) => Ok(Some(value)),
            // What has none, or cannot have any.
            Err(Errno::ENODATA | Errno::EOPNOTSUPP | Errno::EPERM) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    async fn set(&self, of: &Arc<Dentry>, name: &[u8], value: &[u8]) -> Result<()> {
        let _guard = of.inode().state().lock.lock().await;
        of.inode().set_xattr(&[self.prefix(), name].concat(), value, 0).await
    }

    pub async fn is_opaque(&self, dir: &Arc<Dentry>) -> Result<bool> {
        Ok(self.get(dir, OPAQUE).await?.is_some_and(|value| value == b"y"))
    }

    pub async fn set_opaque(&self, dir: &Arc<Dentry>) -> Result<()> {
        self.set(dir, OPAQUE, b"y").await
    }

    pub async fn is_impure(&self, dir: &Arc<Dentry>) -> Result<bool> {
        Ok(self.get(dir, IMPURE).await?.is_some_and(|value| value == b"y"))
    }

    /// The upper directory gets something with the number of a lower one.
    pub async fn make_impure(&self, dir: &OverlayInode) -> Result<()> {
        if dir.is_impure() {
            return Ok(());
        }
        match self.set(dir.upper_now()?, IMPURE, b"y").await {
            Ok(()) | Err(Errno::EOPNOTSUPP) => {
                dir.set_impure();
                Ok(())
            }
            Err(errno) => Err(errno),
        }
    }

    /// EPERM for what is elsewhere: as with `redirect_dir=nofollow` and `metacopy=off` on Linux.
    pub async fn check_whole(&self, found: &Arc<Dentry>) -> Result<()> {
        let name = match found.kind() {
            FileType::Directory => REDIRECT,
            FileType::Regular => METACOPY,
            _ => return Ok(()),
        };
        if self.get(found, name).await?.is_some() { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Of an upper one: what binds it besides its own flags.
    pub async fn bound(&self, upper: &Arc<Dentry>) -> Result<InodeFlags> {
        if !matches!(upper.kind(), FileType::Regular | FileType::Directory) {
            return Ok(InodeFlags::empty());
        }
        let value = self.get(upper, BOUND).await?.unwrap_or_default();
        Ok(BOUNDS.iter().filter(|(_, letter)| value.contains(letter)).map(|(flag, _)| *flag).collect())
    }

    pub async fn set_bound(&self, copy: &Arc<Dentry>, flags: InodeFlags) -> Result<()> {
        let value: Vec<u8> =
            BOUNDS.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, letter)| *letter).collect();
        if value.is_empty() { Ok(()) } else { self.set(copy, BOUND, &value).await }
    }

    /// Notes on a copy what it was copied from.
    pub async fn set_origin(&self, copy: &Arc<Dentry>, number: Number) -> Result<()> {
        let group = self.file_system_of(number.group).ok_or(Errno::ESTALE)?;
        match self.set(copy, ORIGIN, &encode(&id_of(&*group), number.ino)).await {
            Err(Errno::EOPNOTSUPP) => Ok(()),
            result => result,
        }
    }

    /// The number of what it was copied from, if that is known and on one of the layers' file systems.
    pub async fn origin(&self, copy: &Arc<Dentry>) -> Result<Option<Number>> {
        let Some(value) = self.get(copy, ORIGIN).await? else { return Ok(None) };
        let Some((id, ino)) = decode(&value) else { return Ok(None) };
        let lower = self.lower.iter().find(|layer| id_of(&**layer.instance.fs()) == id);
        Ok(lower.map(|layer| Number { ino, group: layer.group }))
    }

    fn file_system_of(&self, group: usize) -> Option<Arc<dyn FileSystem>> {
        self.lower.iter().find(|layer| layer.group == group).map(|layer| layer.instance.fs().clone())
    }
}

/// Tells file systems apart, over mounts where they have an identity.
type Id = [u8; 16];

fn id_of(fs: &dyn FileSystem) -> Id {
    let stat = fs.statfs();
    let words = [u64::from(stat.fsid[0]) | u64::from(stat.fsid[1]) << 32, stat.magic];
    let mut id = [0; 16];
    for (bytes, word) in id.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    id
}

/// Linux's `struct ovl_fb`: version, magic, length, flags, type of the handle, identity of the file system, handle. The type
/// is one that Linux has not, and so does not try to follow; the handle is the inode's number.
const HEAD: [u8; 5] = [0, 0xfb, 29, 0, 0xf0];

fn encode(id: &Id, ino: u64) -> Vec<u8> {
    [&HEAD[..], id, &ino.to_le_bytes()].concat()
}

fn decode(value: &[u8]) -> Option<(Id, u64)> {
    let rest = value.strip_prefix(&HEAD)?;
    let (id, ino) = rest.split_first_chunk()?;
    Some((*id, u64::from_le_bytes(ino.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_survive() {
        let value = encode(&[7; 16], 1 << 40 | 3);
        assert_eq!(value.len(), usize::from(HEAD[2]));
        assert_eq!(decode(&value), Some(([7; 16], 1 << 40 | 3)));
        // Linux's own, of a 32-bit inode number.
        assert_eq!(
            decode(&[0, 0xfb, 29, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 9, 0, 0, 0]),
            None
        );
        assert_eq!(decode(b""), None);
        assert_eq!(decode(&value[..20]), None);
    }
}
