//! The mount table as text: /proc/mounts and /proc/PID/mountinfo.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::super::dentry::Dentry;
use super::super::path::Path;
use super::{Mount, MountFlags, all};

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

fn push_flags(out: &mut Vec<u8>, mount: &Mount) {
    let flags = mount.flags();
    let read_only = flags.contains(MountFlags::RDONLY) || mount.fs().read_only();
    out.extend_from_slice(if read_only { b"ro" } else { b"rw" });
    for (flag, name) in [
        (MountFlags::NOSUID, &b",nosuid"[..]),
        (MountFlags::NODEV, b",nodev"),
        (MountFlags::NOEXEC, b",noexec"),
        (MountFlags::NOATIME, b",noatime"),
        (MountFlags::NODIRATIME, b",nodiratime"),
        (MountFlags::RELATIME, b",relatime"),
        (MountFlags::NOSYMFOLLOW, b",nosymfollow"),
    ] {
        if flags.contains(flag) {
            out.extend_from_slice(name);
        }
    }
}

/// The text of /proc/mounts as a process with this root directory sees it.
pub fn proc_mounts(root: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for mount in all() {
        let Some(place) = mount_path(&mount, root) else { continue };
        push_escaped(&mut out, &mount.fs().source());
        out.push(b' ');
        push_escaped(&mut out, &place);
        out.push(b' ');
        out.extend_from_slice(mount.fs().type_name().as_bytes());
        out.push(b' ');
        push_flags(&mut out, &mount);
        out.extend_from_slice(&mount.fs().options());
        out.extend_from_slice(b" 0 0\n");
    }
    out
}

/// The text of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
pub fn proc_mountinfo(root: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    for mount in all() {
        let Some(place) = mount_path(&mount, root) else { continue };
        let parent = mount.place().map_or(mount.id, |p| p.mount.id);
        let dev = mount.fs().device();
        out.extend_from_slice(format!("{} {} {}:{} ", mount.id, parent, dev.major, dev.minor).as_bytes());
        let top = Mount::of(mount.instance.clone(), fs_top(&mount.root), MountFlags::empty());
        let inside = Path { mount: top, dentry: mount.root.clone() };
        push_escaped(&mut out, &inside.display(None));
        out.push(b' ');
        push_escaped(&mut out, &place);
        out.push(b' ');
        push_flags(&mut out, &mount);
        out.extend_from_slice(b" - ");
        out.extend_from_slice(mount.fs().type_name().as_bytes());
        out.push(b' ');
        push_escaped(&mut out, &mount.fs().source());
        out.extend_from_slice(if mount.fs().read_only() { b" ro" } else { b" rw" });
        out.extend_from_slice(&mount.fs().options());
        out.push(b'\n');
    }
    out
}

fn fs_top(dentry: &Arc<Dentry>) -> Arc<Dentry> {
    let mut top = dentry.clone();
    while let Some(parent) = top.parent() {
        top = parent;
    }
    top
}

/// Where a mount is seen from `root`; None if it is not below it.
fn mount_path(mount: &Arc<Mount>, root: &Path) -> Option<Vec<u8>> {
    let at = Path { mount: mount.clone(), dentry: mount.root.clone() };
    at.display_below(root)
}
