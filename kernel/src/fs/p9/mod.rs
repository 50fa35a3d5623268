//! 9P2000.L: a folder of the host as a file system, over a virtio channel.
//!
//! ```text
//!   VFS ── Inode ──▶ ops ──▶ inode ──▶ calls ──▶ client ──▶ channel ──▶ drivers::virtio::p9 ──▶ server
//!   page cache ─ PageIo ─▶ content ──────┘         └─ wire
//! ```
//!
//! * [`channel`]: messages and their replies on the way, and which channels there are. `wire`: messages as bytes.
//!   `client`: a session, its tags and fids, and requests that are given up. `calls`: what can be asked of the server.
//! * `inode`: what is known of a file, and its open files at the server; one inode for a qid. `ops`: the VFS's view of it.
//!   `content`: bytes of files. `options`: mount(2)'s.
//!
//! Others change the tree, too, so nothing is believed for long ([`super::InodeState::shared`]): every walk asks for names and
//! attributes, read(2) and write(2) go to the server, and an inode lives only as long as somebody uses it. Changes run to
//! their end once they have begun, even if the task that asked for them is killed.
//!
//! Locks: `P9Inode::opening` is async and an inode's innermost. Spin: the table of inodes → place, fid, state of an inode,
//! which are leaves.

mod calls;
pub mod channel;
mod client;
mod content;
mod inode;
mod ops;
mod options;
#[cfg(test)]
mod tests;
mod wire;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use self::channel::Claim;
use self::client::Client;
use self::inode::{P9Inode, Session};
use self::options::Options;
use super::inode::{DeviceId, FileSystem, FileType, Inode, StatFs};
use super::op::Op;
use super::tmpfs;
use crate::errno::{Errno, Result};
use crate::exec;
use crate::sync::SpinLock;

/// A mounted tree of a server.
pub struct P9Fs {
    source: Vec<u8>,
    device: DeviceId,
    session: Arc<Session>,
    root: Arc<P9Inode>,
    rename_lock: exec::Mutex<()>,
    /// As of the last `refresh`.
    statfs: SpinLock<StatFs>,
}

/// Makes the type known to mount(2).
pub fn init() {
    super::register_fs_type(
        "9p",
        false,
        |option| Options::parse(option).map(drop),
        |request| {
            Op::boxed(async move {
                let options = Options::parse(request.data)?;
                let channel = Claim::of_tag(request.source)?;
                let fs = mount(channel, &options, request.source).await?;
                fs.session.read_only.store(request.read_only, Ordering::Relaxed);
                Ok(fs as Arc<dyn FileSystem>)
            })
        },
    );
}

async fn mount(channel: Claim, options: &Options, source: &[u8]) -> Result<Arc<P9Fs>> {
    let client = Client::begin(channel, options.msize).await?;
    let (fid, _) = client.attach(&options.user, &options.tree).await?;
    let session = Session::new(client);
    let root = session.inode(fid, None).await?;
    if root.kind != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    let fs = Arc::new(P9Fs {
        source: source.to_vec(),
        device: tmpfs::anonymous_device(),
        session: session.clone(),
        root,
        rename_lock: exec::Mutex::new(()),
        statfs: SpinLock::new(StatFs::default()),
    });
    *session.mounted.lock() = Arc::downgrade(&fs);
    Ok(fs)
}

impl FileSystem for P9Fs {
    fn type_name(&self) -> &'static str {
        "9p"
    }

    fn source(&self) -> Vec<u8> {
        self.source.clone()
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn device(&self) -> DeviceId {
        self.device
    }

    fn statfs(&self) -> StatFs {
        *self.statfs.lock()
    }

    fn refresh(&self) -> Op<'_, Result<()>> {
        Op::boxed(async move {
            let new = self.root.fid().statfs().await?;
            *self.statfs.lock() = new;
            Ok(())
        })
    }

    fn rename_lock(&self) -> &exec::Mutex<()> {
        &self.rename_lock
    }

    fn read_only(&self) -> bool {
        self.session.read_only.load(Ordering::Relaxed)
    }

    fn set_read_only(&self, read_only: bool) -> Op<'_, Result<()>> {
        self.session.read_only.store(read_only, Ordering::Relaxed);
        Op::ready(Ok(()))
    }

    fn reconfigure(&self, options: &[u8]) -> Result<()> {
        // What can be said is settled when the session begins; it may be said again.
        Options::parse(options).map(drop)
    }

    fn options(&self) -> Vec<u8> {
        format!(",access=client,msize={},trans=virtio", self.session.client.msize()).into_bytes()
    }
}
