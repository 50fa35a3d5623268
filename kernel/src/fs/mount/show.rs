//! The mount table as text: /proc/mounts and /proc/PID/mountinfo.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::super::inode::FileSystem;
use super::super::inode_flags::InodeFlags;
use super::super::path::{self, Path};
use super::table::{BATCH, NOWHERE, TABLE};
use super::{Mount, MountFlags};

fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' => {
                out.extend_from_slice(&[b'\\', b'0' + (byte >> 6), b'0' + ((byte >> 3) & 7), b'0' + (byte & 7)]);
            }
            _ => out.push(byte),
        }
    }
}

/// What the files show of a mount. The mount itself would be in use as long as somebody looks at it.
struct Row {
    id: u64,
    parent: u64,
    fs: Arc<dyn FileSystem>,
    flags: MountFlags,
    /// Of its root, in its file system.
    inside: Vec<u8>,
    /// Where it is seen from the root directory that was asked for.
    place: Vec<u8>,
}

/// All mounts that are seen from `root`, in the order in which they came.
fn rows(root: &Path) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut last = NOWHERE;
    loop {
        let before = last;
        for (turn, mount) in TABLE.read().after(last).take(BATCH) {
            last = turn;
            rows.extend(Row::of(mount, root));
        }
        if last == before {
            return rows;
        }
    }
}

impl Row {
    /// None if the mount is not seen from `root`.
    fn of(mount: &Arc<Mount>, root: &Path) -> Option<Row> {
        let at = Path { mount: mount.clone(), dentry: mount.root.clone() };
        Some(Row {
            place: at.display_below(root)?,
            inside: path::inside(&mount.root),
            id: mount.id,
            parent: mount.place.lock().as_ref().map_or(mount.id, |place| place.mount.id),
            fs: mount.fs().clone(),
            flags: mount.flags(),
        })
    }

    /// `whole`: as far as the file system can be written, too.
    fn push_flags(&self, out: &mut Vec<u8>, whole: bool) {
        let read_only = self.flags.contains(MountFlags::RDONLY) || whole && self.fs.read_only();
        out.extend_from_slice(if read_only { b"ro" } else { b"rw" });
        if whole {
            self.push_syncs(out);
        }
        for (flag, name) in [
            (MountFlags::NOSUID, &b",nosuid"[..]),
            (MountFlags::NODEV, b",nodev"),
            (MountFlags::NOEXEC, b",noexec"),
            (MountFlags::NOATIME, b",noatime"),
            (MountFlags::NODIRATIME, b",nodiratime"),
            (MountFlags::RELATIME, b",relatime"),
            (MountFlags::NOSYMFOLLOW, b",nosymfollow"),
        ] {
            if self.flags.contains(flag) {
                out.extend_from_slice(name);
            }
        }
    }

    fn push_syncs(&self, out: &mut Vec<u8>) {
        for (flag, name) in [(InodeFlags::SYNC, &b",sync"[..]), (InodeFlags::DIRSYNC, b",dirsync")] {
            if self.fs.syncs().contains(flag) {
                out.extend_from_slice(name);
            }
        }
    }
}

/// The text of /proc/mounts as a process with this root directory sees it.
pub fn proc_mounts(root: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for row in rows(root) {
        push_escaped(&mut out, &row.fs.source());
        out.push(b' ');
        push_escaped(&mut out, &row.place);
        out.push(b' ');
        out.extend_from_slice(row.fs.type_name().as_bytes());
        out.push(b' ');
        row.push_flags(&mut out, true);
        out.extend_from_slice(&row.fs.options());
        out.extend_from_slice(b" 0 0\n");
    }
    out
}

/// The text of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
pub fn proc_mountinfo(root: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for row in rows(root) {
        let dev = row.fs.device();
        out.extend_from_slice(format!("{} {} {}:{} ", row.id, row.parent, dev.major, dev.minor).as_bytes());
        push_escaped(&mut out, &row.inside);
        out.push(b' ');
        push_escaped(&mut out, &row.place);
        out.push(b' ');
        row.push_flags(&mut out, false);
        out.extend_from_slice(b" - ");
        out.extend_from_slice(row.fs.type_name().as_bytes());
        out.push(b' ');
        push_escaped(&mut out, &row.fs.source());
        out.extend_from_slice(if row.fs.read_only() { b" ro" } else { b" rw" });
        row.push_syncs(&mut out);
        out.extend_from_slice(&row.fs.options());
        out.push(b'\n');
    }
    out
}
