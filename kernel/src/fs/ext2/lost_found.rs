//! Names in lost+found for inodes that would have none while a write-back is going on ([`super::order`]): they are on the disk
//! only, between the first of its flushes and the last, and in the memory never.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::dirent;
use super::layout::{ROOT_INO, inode_flags};
use super::node::Node;
use super::volume::Volume;
use crate::errno::{Errno, Result};
use crate::exec;

const NAME: &[u8] = b"lost+found";

impl Volume {
    /// Looks whether there is that directory, and keeps it in memory from then on.
    pub async fn find_lost_found(self: &Arc<Self>) {
        let find = async || -> Result<Arc<Node>> {
            let root = self.inode(ROOT_INO).await?;
            let found = root.node.find_name(NAME).await?.ok_or(Errno::ENOENT)?;
            let inode = self.inode(found.ino).await?;
            inode.node.load_dir().await?;
            Ok(inode.node.clone())
        };
        let found = find().await.ok();
        *self.lost_found.lock() = found;
    }

    pub fn forget_lost_found(&self) {
        let old = self.lost_found.lock().take();
        drop(old);
    }

    /// Names these inodes there, of these types in entries, as far as there is room. Answers the blocks that have to be on the
    /// disk before other directories. For a write-back that copies.
    pub async fn name_in_lost_found(&self, inodes: &BTreeMap<u32, u8>) -> Vec<u32> {
        let mut blocks = Vec::new();
        let Some(node) = self.lost_found.lock().clone().filter(|_| !inodes.is_empty()) else { return blocks };
        let (there, linear) = {
            let state = node.state.lock();
            (state.nlink > 0, state.flags & inode_flags::INDEX == 0)
        };
        if !there || !linear || !self.order.is_known(node.ino) {
            return blocks;
        }
        let mut left = inodes.iter();
        let mut next = left.next();
        for block in node.dir_blocks() {
            if next.is_none() {
                break;
            }
            exec::budget().await;
            let Ok(Some(buffer)) = self.buffers.read_sealed(block, node.dir_seal()).await else { continue };
            let area = self.layout.dir_area();
            buffer.modify_before(|data| {
                while let Some((&ino, &kind)) = next {
                    // What an earlier power cut has left may have the name.
                    if dirent::put_new(&mut data[..area], ino, &format!("#{ino}").into_bytes(), kind).is_none()
                        && dirent::put_new(&mut data[..area], ino, &format!("#{ino}+").into_bytes(), kind).is_none()
                    {
                        break;
                    }
                    next = left.next();
                }
            });
            blocks.push(block);
        }
        blocks
    }
}
