//! memfd_create(2): a file of an internal tmpfs, without a name.

use alloc::sync::Arc;

use linux_raw_sys::general as raw;

use super::dentry::Dentry;
use super::inode::{FileSystem, Inode, NewAttr};
use super::mount::Mount;
use super::open_file::{OpenFile, plain_kind};
use super::path::Path;
use super::state::{Hold, Seals};
use super::tmpfs::{Options, TmpFs};
use crate::errno::{Errno, Result};
use crate::process::Credentials;
use crate::sync::Lazy;

struct Home {
    fs: Arc<TmpFs>,
    mount: Arc<Mount>,
}

static HOME: Lazy<Home> = Lazy::new(|| {
    let fs = TmpFs::new("tmpfs", b"tmpfs", Options { size: Some(0), inodes: Some(0), ..Options::default() });
    let root = Dentry::new_root(fs.root());
    Home { mount: Mount::new_internal(fs.clone(), root), fs }
});

/// A new file; without `sealing` it is sealed against seals.
pub fn create(creds: &Credentials, name: &[u8], perm: u16, sealing: bool) -> Result<Arc<OpenFile>> {
    let inode: Arc<dyn Inode> = HOME.fs.new_file(NewAttr { perm, uid: creds.fsuid, gid: creds.fsgid })?;
    inode.state().make_sealable(if sealing { Seals::empty() } else { Seals::SEAL });
    let kind = plain_kind(&inode).ok_or(Errno::ENOMEM)?;
    let label = [b"/memfd:", name, b" (deleted)"].concat();
    let dentry = Dentry::new(None, &label, inode);
    let path = Path { mount: HOME.mount.clone(), dentry };
    // Not counted as a writer, as on Linux: a memfd is written and then run while its descriptor is open.
    Ok(OpenFile::new(path, kind, raw::O_RDWR | raw::O_LARGEFILE, Hold::None))
}
