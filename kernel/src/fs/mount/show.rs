//! The mount table as text: /proc/mounts and /proc/PID/mountinfo.

use alloc::sync::Arc;
use alloc::vec::Vec;

use smallvec::SmallVec;

use super::super::inode::FileSystem;
use super::super::inode_flags::InodeFlags;
use super::super::path::{self, Path};
use super::super::procfs::text::{Text, put};
use super::propagation::{self, Propagation};
use super::table::{BATCH, NOWHERE, TABLE};
use super::{Mount, MountFlags};
use crate::exec;

/// What is escaped: mangle_path(), seq_escape().
const SPECIAL: &[u8] = b" \t\n\\";

/// What the files show of a mount. The mount itself would be in use as long as somebody looks at it.
struct Row {
    id: u64,
    parent: u64,
    fs: Arc<dyn FileSystem>,
    flags: MountFlags,
    propagation: Propagation,
    /// Of its root, in its file system.
    inside: Vec<u8>,
    /// Where it is seen from the root directory that was asked for.
    place: Vec<u8>,
}

/// What a file says of all mounts that are seen from `root`, in the order in which they came. Programs decide how many there
/// are, and how long their names.
async fn show(root: &Path, out: &mut Text, line: fn(&Row, &mut Text)) {
    let mut last = NOWHERE;
    loop {
        let mut rows: SmallVec<[Row; BATCH]> = SmallVec::new();
        let before = last;
        for (turn, mount) in TABLE.read().after(last).take(BATCH) {
            last = turn;
            rows.extend(Row::of(mount, root));
        }
        if last == before {
            return;
        }
        rows.iter().for_each(|row| line(row, out));
        exec::budget().await;
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
            propagation: mount.propagation(),
        })
    }

    /// `whole`: as far as the file system can be written, too.
    fn push_flags(&self, out: &mut Text, whole: bool) {
        let read_only = self.flags.contains(MountFlags::RDONLY) || whole && self.fs.read_only();
        out.bytes(if read_only { b"ro" } else { b"rw" });
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
                out.bytes(name);
            }
        }
    }

    fn push_syncs(&self, out: &mut Text) {
        for (flag, name) in [(InodeFlags::SYNC, &b",sync"[..]), (InodeFlags::DIRSYNC, b",dirsync")] {
            if self.fs.syncs().contains(flag) {
                out.bytes(name);
            }
        }
    }
}

/// The text of /proc/mounts as a process with this root directory sees it.
pub async fn proc_mounts(root: &Path, out: &mut Text) {
    show(root, out, |row, out| {
        out.escaped(&row.fs.source(), SPECIAL).push(b' ');
        out.escaped(&row.place, SPECIAL).push(b' ');
        out.bytes(row.fs.type_name().as_bytes()).push(b' ');
        row.push_flags(out, true);
        out.bytes(&row.fs.options()).bytes(b" 0 0\n");
    })
    .await
}

/// The text of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
pub async fn proc_mountinfo(root: &Path, out: &mut Text) {
    show(root, out, |row, out| {
        let dev = row.fs.device();
        put!(out, "{} {} {}:{} ", row.id, row.parent, dev.major, dev.minor);
        out.escaped(&row.inside, SPECIAL).push(b' ');
        out.escaped(&row.place, SPECIAL).push(b' ');
        row.push_flags(out, false);
        propagation::show(row.propagation, out);
        out.bytes(b" - ").bytes(row.fs.type_name().as_bytes()).push(b' ');
        out.escaped(&row.fs.source(), SPECIAL);
        out.bytes(if row.fs.read_only() { b" ro" } else { b" rw" });
        row.push_syncs(out);
        out.bytes(&row.fs.options()).push(b'\n');
    })
    .await
}
