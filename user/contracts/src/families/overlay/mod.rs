//! overlayfs: what is made of several directories, and how to look at the layers.

pub mod changes;
pub mod copy_up;
pub mod corners;
pub mod directories;
pub mod mounting;
pub mod renames;

use std::ffi::CStr;
use std::os::unix::fs::{DirEntryExt, FileTypeExt, MetadataExt};

use crate::file::{close, create, mkdir, path, symlink};
use crate::sys::{Ret, sys};

/// Mounts an overlay on `m`.
pub fn mount(data: &str) -> Ret {
    mount_at(c"m", data, 0)
}

pub fn mount_at(at: &CStr, data: &str, flags: u64) -> Ret {
    sys!(SYS_mount, c"overlay", at, c"overlay", flags, path(data).as_c_str())
}

pub fn umount(at: &CStr) -> Ret {
    sys!(SYS_umount2, at, 0)
}

/// The directories of an overlay: `l` and `k` to be lower ones, `u` and `w` for changes, `m` for the whole.
pub fn places() {
    for name in [c"l", c"k", c"u", c"w", c"m"] {
        mkdir(name).need();
    }
}

pub fn file(at: &CStr, content: &str) {
    close(create(at, content));
}

/// What most tests start from: one lower layer with a little in it, and an empty upper one.
pub fn simple() {
    places();
    fill();
    mount("lowerdir=l,upperdir=u,workdir=w").need();
}

pub fn fill() {
    file(c"l/f", "lower");
    mkdir(c"l/d");
    file(c"l/d/a", "in d");
    file(c"l/d/b", "too");
    symlink(c"f", c"l/s");
}

/// The same with all layers on a tmpfs.
pub fn simple_on_tmpfs() {
    mkdir(c"t");
    sys!(SYS_mount, c"none", c"t", c"tmpfs", 0, 0).need();
    sys!(SYS_chdir, c"t").need();
    simple();
}

pub fn xattr(at: &str, name: &CStr) -> Option<Vec<u8>> {
    let mut buffer = [0u8; 256];
    let ret = sys!(SYS_lgetxattr, path(at).as_c_str(), name, &mut buffer[..], 256);
    ret.ok().then(|| buffer[..ret.0 as usize].to_vec())
}

/// Everything below a directory, in order of names: whiteouts, directories that hide others, files with their content.
pub fn shape(of: &str) -> String {
    let mut out = Vec::new();
    describe(of, "", &mut out);
    out.join(" ")
}

fn describe(of: &str, prefix: &str, out: &mut Vec<String>) {
    let Ok(entries) = std::fs::read_dir(of) else { return out.push("unreadable".into()) };
    let mut entries: Vec<_> = entries.flatten().collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        // Names in the work directory are numbers.
        let called = if name.starts_with('#') { "#" } else { &name };
        let (at, shown) = (format!("{of}/{name}"), format!("{prefix}{called}"));
        let Ok(meta) = std::fs::symlink_metadata(&at) else {
            out.push(format!("{shown}?"));
            continue;
        };
        let kind = meta.file_type();
        if kind.is_dir() {
            let opaque = xattr(&at, c"trusted.overlay.opaque").is_some_and(|value| value == b"y");
            out.push(format!("{shown}/{}", if opaque { "(opaque)" } else { "" }));
            describe(&at, &format!("{shown}/"), out);
        } else if kind.is_char_device() {
            out.push(if meta.rdev() == 0 { format!("{shown}(whiteout)") } else { format!("{shown}(device)") });
        } else if kind.is_symlink() {
            out.push(format!("{shown}->{}", std::fs::read_link(&at).unwrap_or_default().display()));
        } else if kind.is_file() {
            out.push(format!("{shown}={:?}", std::fs::read_to_string(&at).unwrap_or_default()));
        } else {
            out.push(format!("{shown}(special)"));
        }
    }
}

/// Names in a directory with their types, in order.
pub fn names(of: &str) -> String {
    let Ok(entries) = std::fs::read_dir(of) else { return "unreadable".into() };
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| {
            let dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            format!("{}{}", entry.file_name().to_string_lossy(), if dir { "/" } else { "" })
        })
        .collect();
    names.sort();
    names.join(" ")
}

/// Are the numbers that reading the directory shows those of stat?
pub fn numbers_agree(of: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(of) else { return false };
    entries.flatten().all(|entry| std::fs::symlink_metadata(entry.path()).is_ok_and(|meta| meta.ino() == entry.ino()))
}
