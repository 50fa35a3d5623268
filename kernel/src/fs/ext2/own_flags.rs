//! The flags of inodes (ioctl_iflags(2)): which of them are shown, can be changed, and are obeyed.

use super::inode::Ext2Inode;
use super::layout::inode_flags;
use crate::errno::{Errno, Result};
use crate::fs::inode::FileType;
use crate::fs::inode_flags::InodeFlags;
use crate::fs::op::Op;

impl Ext2Inode {
    /// Has its own flags obeyed, and those of the volume.
    pub fn obey(&self) {
        let state = self.node.state.lock();
        self.obey_with(state.flags);
    }

    /// With the state locked, whose flags these are.
    fn obey_with(&self, flags: u32) {
        self.vfs.set_flags(InodeFlags::from_bits_truncate(flags) | self.node.volume.syncs());
    }

    /// FS_IOC_SETFLAGS. Flags that it can't change stay as they are.
    fn change_flags(&self, new: u32) -> Result<()> {
        if new & !inode_flags::VISIBLE != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let new = new & inode_flags::TAKEN;
        if self.node.kind == FileType::Regular && new & inode_flags::NOT_FOR_FILES != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let now = self.node.volume.now();
        let mut result = Ok(());
        self.node.update(|state| {
            // What stays immutable stays as it is.
            let immutable = InodeFlags::IMMUTABLE.bits();
            if state.flags & new & immutable != 0 && (state.flags ^ new) & inode_flags::TAKEN != 0 {
                result = Err(Errno::EPERM);
                return;
            }
            let others = (state.flags ^ new) & inode_flags::TAKEN & !inode_flags::SETTABLE & !inode_flags::JOURNAL_DATA;
            if others != 0 {
                let no_extents = others == inode_flags::EXTENTS && !self.node.volume.layout.features.extents();
                result = Err(if no_extents { Errno::EINVAL } else { Errno::EOPNOTSUPP });
                return;
            }
            state.flags = state.flags & !inode_flags::SETTABLE | new & inode_flags::SETTABLE;
            state.ctime = now;
            self.obey_with(state.flags);
        });
        result
    }

    pub fn shown_flags(&self) -> Option<u32> {
        let has = matches!(self.node.kind, FileType::Regular | FileType::Directory);
        has.then(|| self.node.state.lock().flags & inode_flags::VISIBLE)
    }

    pub fn set_shown_flags(&self, flags: u32) -> Op<'_, Result<()>> {
        if self.node.volume.read_only() {
            return Op::ready(Err(Errno::EROFS));
        }
        let old = self.node.state.lock().flags;
        let result = self.change_flags(flags);
        match &self.cache {
            // Who has it mapped faults with the next write: storing makes the pages read-only.
            Some(cache) if result.is_ok() && flags & !old & InodeFlags::IMMUTABLE.bits() != 0 => {
                Op::boxed(async move {
                    let stored = cache.write_back(0..u64::MAX).await;
                    stored.inspect_err(|_| {
                        let _ = self.change_flags(old & inode_flags::VISIBLE);
                    })
                })
            }
            _ => Op::ready(result),
        }
    }
}
