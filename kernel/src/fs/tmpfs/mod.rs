//! tmpfs: a file system that lives in the page cache and the heap (tmpfs(5)).
//!
//! [`TmpFs`] is the instance with its size limit, [`TmpInode`] an object in it. A directory keeps its entries by the hash of
//! their names, which gives each a place that is the cookie of `read_dir`: so reading goes on correctly whatever is removed,
//! added or renamed (which is both) meanwhile. Spinlocks only; the lock of a directory before that of its entries.

mod inode;

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

pub use self::inode::TmpInode;
use super::handle::{Handle, INO_GENERATION};
use super::inode::{DeviceId, FileSystem, Inode, NewAttr, NewNode, StatFs};
use super::op::Op;
use crate::errno::{Errno, Result};
use crate::exec::Mutex;
use crate::mm::PAGE_SIZE;
use crate::sync::{Lazy, Once, SpinLock};

/// TMPFS_MAGIC of linux/magic.h.
const MAGIC: u64 = 0x0102_1994;

/// An instance.
pub struct TmpFs {
    type_name: &'static str,
    source: Vec<u8>,
    device: DeviceId,
    root: Once<Arc<TmpInode>>,
    next_ino: AtomicU64,
    /// Pages that files may use, and do use.
    limit: AtomicU64,
    used: AtomicU64,
    inodes: AtomicU64,
    /// Those without a name.
    nameless: AtomicU64,
    inode_limit: AtomicU64,
    read_only: AtomicBool,
    /// Inodes that somebody has a handle of, by number.
    handed_out: SpinLock<BTreeMap<u64, Weak<TmpInode>>>,
    rename_lock: Mutex<()>,
}

/// Stands in for an instance, of any file system, whose last mount is gone.
pub fn gone() -> Arc<TmpFs> {
    static GONE: Lazy<Arc<TmpFs>> = Lazy::new(|| TmpFs::new("tmpfs", b"none", Options::default()));
    GONE.clone()
}

/// Minor numbers of file systems without a device; major 0. The first ones belong to the fixed instances.
static NEXT_MINOR: AtomicU32 = AtomicU32::new(20);

/// A device number for a file system that has no device.
pub fn anonymous_device() -> DeviceId {
    DeviceId::new(0, NEXT_MINOR.fetch_add(1, Ordering::Relaxed))
}

/// What the options of mount(2) can say.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes; None: half of memory.
    pub size: Option<u64>,
    pub inodes: Option<u64>,
    pub root: NewAttr,
}

impl Default for Options {
    fn default() -> Self {
        Options { size: None, inodes: None, root: NewAttr { perm: 0o1777, uid: 0, gid: 0 } }
    }
}

impl TmpFs {
    pub fn new(type_name: &'static str, source: &[u8], options: Options) -> Arc<TmpFs> {
        let pages = crate::mm::frames::total_frames() as u64;
        let fs = Arc::new(TmpFs {
            type_name,
            source: source.into(),
            device: anonymous_device(),
            root: Once::new(),
            next_ino: AtomicU64::new(1),
            limit: AtomicU64::new(options.size.map_or(pages / 2, |size| size.div_ceil(PAGE_SIZE as u64))),
            used: AtomicU64::new(0),
            // The root directory.
            inodes: AtomicU64::new(1),
            nameless: AtomicU64::new(0),
            inode_limit: AtomicU64::new(options.inodes.unwrap_or(pages.max(1024) / 2)),
            read_only: AtomicBool::new(false),
            handed_out: SpinLock::default(),
            rename_lock: Mutex::new(()),
        });
        let root = TmpInode::make(&fs, NewNode::Directory, options.root);
        fs.root.call_once(|| root);
        fs
    }

    pub fn root_inode(&self) -> Option<&Arc<TmpInode>> {
        self.root.get()
    }

    /// A nameless file (memfd_create, O_TMPFILE).
    pub fn new_file(self: &Arc<Self>, attr: NewAttr) -> Result<Arc<TmpInode>> {
        let inode = self.new_inode(NewNode::Regular, attr)?;
        inode.set_nameless();
        Ok(inode)
    }

    fn new_inode(self: &Arc<Self>, node: NewNode<'_>, attr: NewAttr) -> Result<Arc<TmpInode>> {
        self.take_inode()?;
        if let NewNode::Symlink(text) = node
            && inode::is_long_link(text)
            && let Err(errno) = self.charge(1)
        {
            self.free_inode();
            return Err(errno);
        }
        Ok(TmpInode::make(self, node, attr))
    }

    /// One inode more, or one name more of an inode that has one: names are memory that nothing else bounds (shmem_link of Linux).
    fn take_inode(&self) -> Result<()> {
        let old = self.inodes.fetch_add(1, Ordering::Relaxed);
        let limit = self.inode_limit.load(Ordering::Relaxed);
        if limit != 0 && old >= limit {
            self.free_inode();
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    fn free_inode(&self) {
        self.inodes.fetch_sub(1, Ordering::Relaxed);
    }

    fn number(&self) -> u64 {
        self.next_ino.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes room for `pages` more pages.
    fn charge(&self, pages: u64) -> Result<()> {
        let limit = self.limit.load(Ordering::Relaxed);
        let add = |used: u64| used.checked_add(pages).filter(|new| limit == 0 || *new <= limit);
        match self.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, add) {
            Ok(_) => Ok(()),
            Err(_) => Err(Errno::ENOSPC),
        }
    }

    fn release(&self, pages: u64) {
        let sub = |used: u64| Some(used.saturating_sub(pages));
        let _ = self.used.fetch_update(Ordering::AcqRel, Ordering::Relaxed, sub);
    }

    fn inode_gone(&self, nameless: bool) {
        self.free_inode();
        if nameless {
            self.nameless.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Numbers are not used again, so the generation only tells one instance from another.
    fn generation(&self) -> u32 {
        self.device.minor
    }

    /// As Linux has it: generation, number, upper half of the number.
    fn hand_out(&self, inode: &TmpInode) -> Handle {
        self.handed_out.lock().insert(inode.ino(), inode.weak());
        let words = [self.generation(), inode.ino() as u32, (inode.ino() >> 32) as u32];
        Handle { kind: INO_GENERATION, words: words.into_iter().collect() }
    }

    fn of_handle(&self, handle: &Handle) -> Option<Arc<TmpInode>> {
        let &[generation, low, high, ..] = &handle.words[..] else { return None };
        let ino = u64::from(high) << 32 | u64::from(low);
        let found = self.handed_out.lock().get(&ino).and_then(Weak::upgrade);
        found.filter(|_| generation == self.generation())
    }
}

impl FileSystem for TmpFs {
    fn type_name(&self) -> &'static str {
        self.type_name
    }

    fn source(&self) -> Vec<u8> {
        self.source.clone()
    }

    fn rename_lock(&self) -> &Mutex<()> {
        &self.rename_lock
    }

    fn root(&self) -> Arc<dyn Inode> {
        // Set by `new` before anybody has the instance.
        self.root.wait().clone()
    }

    fn device(&self) -> DeviceId {
        self.device
    }

    fn statfs(&self) -> StatFs {
        let (limit, used) = (self.limit.load(Ordering::Relaxed), self.used.load(Ordering::Relaxed));
        let inodes = self.inodes.load(Ordering::Relaxed);
        let inode_limit = self.inode_limit.load(Ordering::Relaxed);
        StatFs {
            magic: MAGIC,
            block_size: PAGE_SIZE as u64,
            blocks: limit,
            free: limit.saturating_sub(used),
            available: limit.saturating_sub(used),
            files: inode_limit,
            files_free: inode_limit.saturating_sub(inodes),
            name_max: 255,
            fsid: [self.device.minor, 0],
        }
    }

    fn read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    fn inode_of<'a>(&'a self, handle: &'a Handle) -> Op<'a, Result<Arc<dyn Inode>>> {
        Op::ready(self.of_handle(handle).map(|inode| inode as Arc<dyn Inode>).ok_or(Errno::ESTALE))
    }

    fn changes_at_once(&self) -> bool {
        true
    }

    fn set_read_only(&self, read_only: bool) -> Op<'_, Result<()>> {
        self.read_only.store(read_only, Ordering::Relaxed);
        Op::ready(Ok(()))
    }

    fn has_removed(&self) -> Op<'_, bool> {
        Op::ready(self.nameless.load(Ordering::Relaxed) != 0)
    }

    /// Limits can be moved, but not below what is in use, nor set where there were none.
    fn reconfigure(&self, options: &[u8]) -> Result<()> {
        let options = parse_options(options)?;
        let pages = options.size.map(|size| size.div_ceil(PAGE_SIZE as u64));
        let moves = |limit: &AtomicU64, used: &AtomicU64, new: Option<u64>| {
            let (old, used) = (limit.load(Ordering::Relaxed), used.load(Ordering::Relaxed));
            new.is_none_or(|new| new == 0 || old != 0 && new >= used)
        };
        if !moves(&self.limit, &self.used, pages) || !moves(&self.inode_limit, &self.inodes, options.inodes) {
            return Err(Errno::EINVAL);
        }
        for (limit, new) in [(&self.limit, pages), (&self.inode_limit, options.inodes)] {
            if let Some(new) = new {
                limit.store(new, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    fn options(&self) -> Vec<u8> {
        if self.type_name == "tmpfs" {
            format!(",size={}k", self.limit.load(Ordering::Relaxed) * 4).into_bytes()
        } else {
            Vec::new()
        }
    }
}

/// A number with the suffixes of tmpfs(5): k, m, g; % of memory.
fn parse_size(text: &[u8]) -> Result<u64> {
    let text = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| Errno::EINVAL)?;
    let shift = match text.get(digits.len()..).unwrap_or("") {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "%" => {
            let bytes = crate::mm::frames::total_frames() as u64 * PAGE_SIZE as u64;
            return number.checked_mul(bytes / 100).ok_or(Errno::EINVAL);
        }
        _ => return Err(Errno::EINVAL),
    };
    number.checked_mul(1 << shift).ok_or(Errno::EINVAL)
}

fn parse_number(text: &[u8], radix: u32) -> Result<u32> {
    let text = core::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
    u32::from_str_radix(text, radix).map_err(|_| Errno::EINVAL)
}

/// Options of mount(2): size, nr_blocks, nr_inodes, mode, uid, gid.
pub fn parse_options(data: &[u8]) -> Result<Options> {
    let mut options = Options::default();
    for option in data.split(|byte| *byte == b',').filter(|option| !option.is_empty()) {
        let at = option.iter().position(|byte| *byte == b'=');
        let (key, value) = match at {
            Some(at) => (option.get(..at).unwrap_or(&[]), option.get(at + 1..).unwrap_or(&[])),
            None => (option, &[][..]),
        };
        match key {
            b"size" => options.size = Some(parse_size(value)?),
            b"nr_blocks" => options.size = Some(parse_size(value)?.saturating_mul(PAGE_SIZE as u64)),
            b"nr_inodes" => options.inodes = Some(parse_size(value)?),
            b"mode" => options.root.perm = (parse_number(value, 8)? & 0o7777) as u16,
            b"uid" => options.root.uid = parse_number(value, 10)?,
            b"gid" => options.root.gid = parse_number(value, 10)?,
            // Without effect here, as on a machine without swap, huge pages or several nodes.
            b"huge" | b"mpol" | b"noswap" | b"inode32" | b"inode64" => {}
            _ => return Err(Errno::EINVAL),
        }
    }
    Ok(options)
}
