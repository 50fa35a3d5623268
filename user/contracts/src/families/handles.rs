//! name_to_handle_at(2), open_by_handle_at(2).

use std::ffi::CStr;

use libc::*;

use crate::file::{close, create, link, mkdir, open, path, read, rename, rmdir, symlink, unlink};
use crate::process;
use crate::sys::{NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    of_tmpfs, of_a_disk, room, flags, mount_ids, none, not_permitted, refused, opened_how, reused, of_a_bind, unnamed, forged
}

/// `struct file_handle` with as many bytes as there may be.
#[repr(C)]
#[derive(Clone, Copy)]
struct Handle {
    bytes: u32,
    kind: i32,
    handle: [u8; 128],
}

impl Handle {
    fn new(bytes: u32) -> Handle {
        Handle { bytes, kind: -1, handle: [0; 128] }
    }

    fn at(directory: i32, path: &CStr, flags: i32) -> (Ret, Handle, i32) {
        let (mut handle, mut mount) = (Handle::new(128), -1);
        let said = sys!(SYS_name_to_handle_at, directory, path, &raw mut handle, &raw mut mount, flags);
        (said, handle, mount)
    }

    #[track_caller]
    fn of(path: &CStr) -> Handle {
        let (said, handle, _) = Handle::at(AT_FDCWD, path, 0);
        said.need();
        handle
    }

    fn open(&self, mount: i32, flags: i32) -> Ret {
        sys!(SYS_open_by_handle_at, mount, &raw const *self, flags)
    }
}

/// What the descriptor leads to, from the last `name` on.
fn place(fd: i32, name: &str) -> String {
    let text = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default().to_string_lossy().into_owned();
    text.rfind(name).map_or("elsewhere".into(), |at| text[at..].to_string())
}

fn shown(opened: Ret, length: usize) -> String {
    if !opened.ok() {
        return opened.to_string();
    }
    let text = read(opened.fd(), length);
    close(opened.fd());
    text
}

fn of_tmpfs() {
    mkdir(c"m");
    say!("mount: {}", sys!(SYS_mount, c"none", c"m", c"tmpfs", 0, c""));
    life("m");
    let fd = open(c"m", O_RDONLY).fd();
    say!("the root: {}", place(Handle::of(c"m").open(fd, O_RDONLY).fd(), "/m"));
    say!("unmount: {}", sys!(SYS_umount2, c"m", MNT_DETACH));
}

fn of_a_disk() {
    mkdir(c"/root/m");
    life("/root/m");
    let root = Handle::of(c"/");
    let fd = open(c"/root/m", O_RDONLY).fd();
    say!("the root: {}", place(root.open(fd, O_RDONLY | O_DIRECTORY).fd(), "/"));
    rmdir(c"/root/m");
}

/// Files and directories in `top` that are renamed, and then removed.
fn life(top: &str) {
    let at = |name: &str| path(format!("{top}/{name}"));
    let base = open(&path(top), O_RDONLY).fd();
    mkdir(&at("d"));
    mkdir(&at("d/e"));
    close(create(&at("d/file"), "text"));
    let (file, directory) = (Handle::of(&at("d/file")), Handle::of(&at("d/e")));
    say!("bytes: {} {}, kind: {} {}", file.bytes, directory.bytes, file.kind, directory.kind);
    say!("the same again: {}", Handle::of(&at("d/file")).handle == file.handle);
    say!("another: {}", directory.handle != file.handle);
    say!("file: {}", shown(file.open(base, O_RDONLY), 10));
    let fd = file.open(base, O_RDONLY).fd();
    say!("it is at {}", place(fd, "/d"));
    close(fd);
    say!("rename: {} {}", rename(&at("d/file"), &at("d/e/other"), 0), rename(&at("d"), &at("n"), 0));
    say!("file: {}", shown(file.open(base, O_RDONLY), 10));
    let fd = file.open(base, O_RDONLY).fd();
    say!("it is at {}", place(fd, "/n"));
    let inside = directory.open(base, O_RDONLY | O_DIRECTORY).fd();
    say!("the directory is at {}", place(inside, "/n"));
    say!("from there: {}", shown(sys!(SYS_openat, inside, c"../e/other", O_RDONLY), 10));
    say!("link: {}", link(&at("n/e/other"), &at("n/second")));
    say!("the same: {}", Handle::of(&at("n/second")).handle == file.handle);
    say!("unlink: {} {}", unlink(&at("n/e/other")), unlink(&at("n/second")));
    say!("open, without a name: {}", shown(file.open(base, O_RDONLY), 10));
    close(fd);
    say!("gone: {}", file.open(base, O_RDONLY));
    close(inside);
    say!("rmdir: {}", rmdir(&at("n/e")));
    say!("gone: {}", directory.open(base, O_RDONLY));
    say!("rmdir: {}", rmdir(&at("n")));
    close(base);
}

fn room() {
    close(create(c"f", "text"));
    for (bytes, kind) in [(0, -1), (4, 7)] {
        let (mut handle, mut mount) = (Handle { kind, ..Handle::new(bytes) }, -1);
        say!("{bytes} bytes: {}", sys!(SYS_name_to_handle_at, AT_FDCWD, c"f", &raw mut handle, &raw mut mount, 0));
        say!("wants {}, kind {}, a mount: {}", handle.bytes, handle.kind, mount > 0);
        say!("nothing else is written: {}", handle.handle == [0; 128]);
        let (mut again, mut mount) = (Handle::new(handle.bytes), -1);
        say!("that: {}", sys!(SYS_name_to_handle_at, AT_FDCWD, c"f", &raw mut again, &raw mut mount, 0));
    }
    let mut handle = Handle::new(129);
    say!("129 bytes: {}", sys!(SYS_name_to_handle_at, AT_FDCWD, c"f", &raw mut handle, &raw mut handle, 0));
    let mut mount = 0;
    say!("nowhere: {}", sys!(SYS_name_to_handle_at, AT_FDCWD, c"f", NOWHERE, &raw mut mount, 0));
    let mut handle = Handle::new(128);
    say!("no mount: {}", sys!(SYS_name_to_handle_at, AT_FDCWD, c"f", &raw mut handle, NOWHERE, 0));
    say!("missing: {}", Handle::at(AT_FDCWD, c"missing", 0).0);
}

fn flags() {
    close(create(c"f", "text"));
    symlink(c"f", c"l");
    let (file, symlink) = (Handle::of(c"f"), Handle::of(c"l"));
    say!("a link is a file of its own: {}", file.handle != symlink.handle);
    let (said, followed, _) = Handle::at(AT_FDCWD, c"l", AT_SYMLINK_FOLLOW);
    say!("followed: {said} {}", followed.handle == file.handle);
    let fd = open(c"f", O_RDONLY).fd();
    say!("empty: {}", Handle::at(fd, c"", 0).0);
    let (said, empty, _) = Handle::at(fd, c"", AT_EMPTY_PATH);
    say!("with the flag: {said} {}", empty.handle == file.handle);
    for flag in [AT_SYMLINK_NOFOLLOW, AT_NO_AUTOMOUNT, 0x200, 1 << 20] {
        say!("{flag:#x}: {}", Handle::at(AT_FDCWD, c"f", flag).0);
    }
    say!("open the link: {}", symlink.open(AT_FDCWD, O_RDONLY));
    let opened = symlink.open(AT_FDCWD, O_PATH);
    let mut text = [0u8; 8];
    say!("as a place: {} {}", opened.ok_or_error(), sys!(SYS_readlinkat, opened.fd(), c"", &raw mut text, 8));
}

/// The mount's number is that of mountinfo.
fn mount_ids() {
    mkdir(c"m");
    sys!(SYS_mount, c"none", c"m", c"tmpfs", 0, c"").need();
    let (said, _, id) = Handle::at(AT_FDCWD, c"m", 0);
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.split(' ').nth(4).is_some_and(|at| at.ends_with("/m")));
    let number = line.and_then(|line| line.split(' ').next()?.parse::<i32>().ok());
    say!("{said} {}", number == Some(id));
    say!("another one: {}", Handle::at(AT_FDCWD, c".", 0).2 != id);
    say!("unmount: {}", sys!(SYS_umount2, c"m", 0));
}

/// What has no handles.
fn none() {
    let [end, other] = crate::file::pipe();
    let socket = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    say!("proc: {}", Handle::at(AT_FDCWD, c"/proc/self/status", 0).0);
    say!("pipe: {}", Handle::at(end, c"", AT_EMPTY_PATH).0);
    say!("socket: {}", Handle::at(socket, c"", AT_EMPTY_PATH).0);
    close(other);
    let memory = sys!(SYS_memfd_create, c"m", 0).fd();
    say!("memory: {}", Handle::at(memory, c"", AT_EMPTY_PATH).0);
    close(create(c"f", ""));
    let handle = Handle::of(c"f");
    let proc = open(c"/proc", O_RDONLY).fd();
    say!("in proc: {}", handle.open(proc, O_RDONLY));
    let mut handle = Handle::new(128);
    handle.bytes = 1000;
    say!("before the size: {}", sys!(SYS_name_to_handle_at, AT_FDCWD, c"/proc", &raw mut handle, NOWHERE, 0));
    for name in ["lower", "upper", "work", "m"] {
        mkdir(&path(name));
    }
    sys!(SYS_mount, c"none", c"m", c"tmpfs", 0, c"").need();
    for name in ["m/upper", "m/work", "m/merged"] {
        mkdir(&path(name));
    }
    let data = c"lowerdir=lower,upperdir=m/upper,workdir=m/work";
    say!("overlay: {}", sys!(SYS_mount, c"none", c"m/merged", c"overlay", 0, data));
    say!("overlay: {}", Handle::at(AT_FDCWD, c"m/merged", 0).0);
    say!("unmount: {} {}", sys!(SYS_umount2, c"m/merged", 0), sys!(SYS_umount2, c"m", 0));
}

fn not_permitted() {
    close(create(c"f", "text"));
    let handle = Handle::of(c"f");
    process::as_plain_user(|| {
        say!("name: {}", Handle::at(AT_FDCWD, c"f", 0).0);
        say!("open: {}", handle.open(AT_FDCWD, O_RDONLY));
        say!("nowhere: {}", sys!(SYS_open_by_handle_at, AT_FDCWD, NOWHERE, O_RDONLY));
    });
}

fn refused() {
    close(create(c"f", "text"));
    let handle = Handle::of(c"f");
    let with = |bytes: u32, kind: i32| Handle { bytes, kind, ..handle }.open(AT_FDCWD, O_RDONLY);
    say!("no bytes: {}", with(0, handle.kind));
    say!("too many: {}", with(129, handle.kind));
    say!("more than it has: {}", with(128, handle.kind).ok_or_error());
    say!("too few: {} {}", with(1, handle.kind), with(4, handle.kind));
    say!("nowhere: {}", sys!(SYS_open_by_handle_at, AT_FDCWD, NOWHERE, O_RDONLY));
    say!("no descriptor: {}", handle.open(999, O_RDONLY));
    let here = open(c".", O_PATH).fd();
    say!("a place: {}", handle.open(here, O_RDONLY));
    let file = open(c"f", O_RDONLY).fd();
    say!("a file: {}", handle.open(file, O_RDONLY).ok_or_error());
    let null = open(c"/dev/null", O_RDONLY).fd();
    say!("of another file system: {}", handle.open(null, O_RDONLY).ok_or_error() != "ok");
}

fn opened_how() {
    mkdir(c"d");
    close(create(c"f", "text"));
    let (file, directory) = (Handle::of(c"f"), Handle::of(c"d"));
    let say_of = |name: &str, handle: &Handle| {
        for (flag, flags) in [
            ("write", O_WRONLY),
            ("directory", O_DIRECTORY),
            ("place", O_PATH),
            ("place of a directory", O_PATH | O_DIRECTORY),
            ("create", O_CREAT | O_RDWR),
            ("create anew", O_CREAT | O_EXCL | O_RDWR),
            ("create a directory", O_CREAT | O_DIRECTORY),
            ("without a name", O_TMPFILE | O_RDWR),
        ] {
            say!("{name}, {flag}: {}", handle.open(AT_FDCWD, flags).ok_or_error());
        }
    };
    say_of("file", &file);
    say_of("directory", &directory);
    let fd = file.open(AT_FDCWD, O_RDWR | O_TRUNC | O_CLOEXEC | O_APPEND).fd();
    let flags = sys!(SYS_fcntl, fd, F_GETFL, 0).0 as i32;
    say!("close on exec: {}, append: {}", sys!(SYS_fcntl, fd, F_GETFD, 0), flags & O_APPEND != 0);
    say!("truncated: {}", crate::file::fstat(fd).map_or(-1, |stat| stat.st_size));
}

/// A number that is used again stands for another file.
fn reused() {
    for i in 0..20 {
        let name = path(format!("/root/f{i}"));
        close(create(&name, "old"));
        let handle = Handle::of(&name);
        unlink(&name);
        close(create(&name, "new"));
        let said = shown(handle.open(AT_FDCWD, O_RDONLY), 3);
        let root = open(c"/root", O_RDONLY).fd();
        let there = shown(handle.open(root, O_RDONLY), 3);
        close(root);
        if said == "new" || there != "ESTALE" {
            say!("{i}: {said} {there}");
        }
        unlink(&name);
    }
}

/// What a mount does not show can be opened through it.
fn of_a_bind() {
    mkdir(c"m");
    mkdir(c"b");
    sys!(SYS_mount, c"none", c"m", c"tmpfs", 0, c"").need();
    mkdir(c"m/d");
    mkdir(c"m/other");
    close(create(c"m/file", "text"));
    sys!(SYS_mount, c"m/d", c"b", c"", MS_BIND, 0).need();
    let (file, other) = (Handle::of(c"m/file"), Handle::of(c"m/other"));
    let bind = open(c"b", O_RDONLY).fd();
    say!("file: {}", shown(file.open(bind, O_RDONLY), 10));
    let fd = other.open(bind, O_RDONLY).fd();
    say!("it is at {}", std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default().display());
    close(fd);
    say!("read-only: {}", sys!(SYS_mount, c"none", c"b", c"", MS_REMOUNT | MS_BIND | MS_RDONLY, 0));
    say!("write: {}", file.open(bind, O_RDWR));
    close(bind);
    say!("unmount: {} {}", sys!(SYS_umount2, c"b", 0), sys!(SYS_umount2, c"m", 0));
}

/// A file that never had a name.
fn unnamed() {
    let fd = open(c".", O_TMPFILE | O_RDWR).fd();
    crate::file::write(fd, "text");
    let (said, handle, _) = Handle::at(fd, c"", AT_EMPTY_PATH);
    say!("handle: {said}");
    say!("open: {}", shown(handle.open(AT_FDCWD, O_RDONLY), 10));
    close(fd);
    say!("gone: {}", handle.open(AT_FDCWD, O_RDONLY));
}

/// Handles that nobody has got from the kernel.
fn forged() {
    let root = open(c"/", O_RDONLY).fd();
    let words = |words: [u32; 2], kind: i32| {
        let mut handle = Handle { bytes: 8, kind, handle: [0; 128] };
        for (bytes, word) in handle.handle.chunks_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        handle.open(root, O_RDONLY)
    };
    let stale =
        [(0, 0), (1, 0), (3, 0), (5, 0), (7, 0), (8, 0), (10, 0), (u32::MAX, 0), (u32::MAX, u32::MAX), (1 << 30, 1)];
    say!("{:?}", stale.map(|(ino, generation)| words([ino, generation], 1).to_string()));
    say!("the root: {} {}", words([2, 0], 1).ok_or_error(), words([2, 0], 2).ok_or_error());
    say!("another generation: {}", words([2, 12345], 1));
    say!("kinds: {:?}", [0, 3, 0x4d, 0x81, 0xfe, 0xff, -1].map(|kind| words([2, 0], kind).to_string()));
    let wrong = (11..3000).filter(|&ino| words([ino, 0xdead_beef], 1).errno() != ESTALE).count();
    say!("guessed: {wrong}");
}
