//! Names in lost+found for inodes that would have none while a write-back is going on ([`super::order`]): they are on the disk
//! only, between the first of its flushes and the last, and in the memory never.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::dirent::{self, room_of, space_for};
use super::layout::{ROOT_INO, inode_flags};
use super::node::Node;
use super::order::Turns;
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
        let mut slot = self.lost_found.lock();
        // The last mount may be gone by now; nobody would let go of it.
        if !self.ended.load(Ordering::Acquire) {
            *slot = found;
        }
    }

    pub fn forget_lost_found(&self) {
        let old = self.lost_found.lock().take();
        drop(old);
    }

    /// Names these inodes there, of these types in entries, as far as there is room. Answers the blocks that have to be on the
    /// disk before other directories. For a write-back that copies.
    pub async fn name_in_lost_found(&self, turns: &Turns) -> Vec<u32> {
        let inodes = &turns.replaced;
        let mut blocks = Vec::new();
        let Some(node) = self.lost_found.lock().clone().filter(|_| !inodes.is_empty()) else { return blocks };
        let (there, linear) = {
            let state = node.state.lock();
            (state.nlink > 0, state.flags & inode_flags::INDEX == 0)
        };
        if !there || !linear || !self.order.is_known(node.ino) || turns.grown.contains(&node.ino) {
            return blocks;
        }
        let mut names = Vec::new();
        for (&ino, &kind) in inodes {
            // What an earlier power cut has left may have the name.
            let either = [format!("#{ino}"), format!("#{ino}+")].map(String::into_bytes);
            names.extend(either.into_iter().find(|name| !node.may_have(name)).map(|name| (ino, kind, name)));
            exec::budget().await;
        }
        let mut left = names.into_iter().peekable();
        for block in node.dir_blocks() {
            if left.peek().is_none() {
                break;
            }
            exec::budget().await;
            let Ok(Some(buffer)) = self.buffers.read_sealed(block, node.dir_seal()).await else { continue };
            let area = self.layout.dir_area();
            let need = left.peek().map_or(0, |(.., name)| space_for(name.len()));
            if buffer.with(|data| usize::from(room_of(&data[..area])) < need) {
                continue;
            }
            buffer.modify_before(|data| {
                while let Some((ino, kind, name)) = left.peek()
                    && dirent::insert(&mut data[..area], *ino, name, *kind).0.is_some()
                {
                    left.next();
                }
            });
            blocks.push(block);
        }
        blocks
    }
}
