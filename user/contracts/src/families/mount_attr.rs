//! Flags of mounts, mount_setattr(2), and ways for a mount to go, umount2(2).

use std::ffi::CStr;

use libc::*;

use super::mount_fds::{mount_tmpfs, new_tmpfs, put, shown, umount};
use crate::file::{close, create, mkdir, open, stat, write};
use crate::process;
use crate::sys::{NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    set_attributes, set_attributes_refused, set_recursively, not_permitted, expire, expire_refused, detached_lives,
}

const CLONE: i32 = 1;
const RECURSIVE: i32 = 0x8000;

/// struct mount_attr.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Attr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

fn setattr(path: &CStr, flags: i32, attr: Attr) -> Ret {
    sys!(SYS_mount_setattr, AT_FDCWD, path, flags, &attr, size_of::<Attr>())
}

fn set_attributes() {
    mkdir(c"m");
    mount_tmpfs(c"m");
    let flags_of = || shown("m", 9);
    for (set, clear) in [(1, 0), (2 | 8, 1), (0, 2), (0x10, 0x70), (0, 0x70), (0x20, 0x70), (0x80, 8), (4, 4), (0, 0)] {
        let answer = setattr(c"m", 0, Attr { set, clear, ..Attr::default() });
        say!("+{set:#x} -{clear:#x}: {answer} {}", flags_of());
    }
    for propagation in [MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE, MS_PRIVATE | MS_SHARED, 1] {
        let answer = setattr(c"m", 0, Attr { propagation, ..Attr::default() });
        say!("propagation {propagation:#x}: {answer}");
    }
    setattr(c"m", 0, Attr { propagation: MS_PRIVATE, ..Attr::default() });
    let file = open(c"m/f", O_CREAT | O_RDWR).fd();
    say!("read-only with a writer: {}", setattr(c"m", 0, Attr { set: 1, ..Attr::default() }));
    close(file);
    let mount = new_tmpfs();
    let attr = Attr { set: 1, ..Attr::default() };
    say!("without a place: {}", sys!(SYS_mount_setattr, mount, c"", AT_EMPTY_PATH, &attr, 32));
    say!("{}", sys!(SYS_openat, mount, c"f", O_CREAT | O_RDWR, 0o644));
}

fn set_attributes_refused() {
    mkdir(c"d");
    let one = Attr { set: 1, ..Attr::default() };
    say!("no mount: {}", setattr(c"d", 0, one));
    say!("missing: {} {}", setattr(c"n", 0, one), setattr(c"n", 0, Attr::default()));
    say!("flags: {}", setattr(c"/tmp", 2, one));
    for size in [0usize, 8, 31, 33, 64, 4096, 4097] {
        let mut room = [0u8; 8192];
        room[0] = 0;
        say!("size {size}: {}", sys!(SYS_mount_setattr, AT_FDCWD, c"d", 0, &room[..], size));
    }
    let mut room = [0u64; 16];
    room[10] = 1;
    say!("more than is known: {}", sys!(SYS_mount_setattr, AT_FDCWD, c"d", 0, &room[..], 128));
    say!("bad pointer: {}", sys!(SYS_mount_setattr, AT_FDCWD, c"d", 0, NOWHERE, 32));
    mkdir(c"m");
    mount_tmpfs(c"m");
    for (set, clear) in [(0x10, 0), (0, 0x10), (0x30, 0x70), (0x40, 0x70), (0x100, 0), (0, 0x100), (0, 0x0010_0000)] {
        say!("+{set:#x} -{clear:#x}: {}", setattr(c"m", 0, Attr { set, clear, ..Attr::default() }));
    }
}

fn set_recursively() {
    mkdir(c"m");
    mount_tmpfs(c"m");
    mkdir(c"m/sub");
    mount_tmpfs(c"m/sub");
    let one = Attr { set: 1, ..Attr::default() };
    let file = open(c"m/sub/f", O_CREAT | O_RDWR).fd();
    say!("with a writer below: {}", setattr(c"m", RECURSIVE, one));
    say!("nothing has changed: {}", open(c"m/f", O_CREAT | O_RDWR).ok_or_error());
    close(file);
    process::sleep_ms(1);
    for fd in 3..20 {
        close(fd);
    }
    say!("without: {}", setattr(c"m", RECURSIVE, one));
    say!("{} {}", open(c"m/g", O_CREAT | O_RDWR), open(c"m/sub/g", O_CREAT | O_RDWR));
    say!("one only: {}", setattr(c"m", 0, Attr { clear: 1, ..Attr::default() }));
    say!("{} {}", open(c"m/g", O_CREAT | O_RDWR).ok_or_error(), open(c"m/sub/g", O_CREAT | O_RDWR));
}

fn not_permitted() {
    mkdir(c"m");
    mount_tmpfs(c"m");
    process::as_plain_user(|| {
        let one = Attr { set: 1, ..Attr::default() };
        say!("mount_setattr: {} {}", setattr(c"m", 0, one), setattr(c"n", 2, one));
        say!("nothing to set: {}", setattr(c"m", 0, Attr::default()));
    });
}

fn expire() {
    mkdir(c"m");
    mount_tmpfs(c"m");
    say!("first: {}", umount(c"m", MNT_EXPIRE));
    say!("second: {} {}", umount(c"m", MNT_EXPIRE), shown("m", 1));
    mount_tmpfs(c"m");
    close(create(c"m/f", ""));
    say!("first: {}", umount(c"m", MNT_EXPIRE));
    stat(c"m/f").ok();
    say!("used in between: {}", umount(c"m", MNT_EXPIRE));
    say!("then not: {}", umount(c"m", MNT_EXPIRE));
    mount_tmpfs(c"m");
    let fd = open(c"m", O_RDONLY).fd();
    say!("in use: {} {}", umount(c"m", MNT_EXPIRE), umount(c"m", MNT_EXPIRE));
    close(fd);
    say!("then not: {} {}", umount(c"m", MNT_EXPIRE), umount(c"m", MNT_EXPIRE));
}

fn expire_refused() {
    mkdir(c"d");
    say!("no mount: {}", umount(c"d", MNT_EXPIRE));
    say!("with others: {} {}", umount(c"d", MNT_EXPIRE | MNT_DETACH), umount(c"d", MNT_EXPIRE | MNT_FORCE));
    mkdir(c"m");
    mount_tmpfs(c"m");
    mkdir(c"m/sub");
    mount_tmpfs(c"m/sub");
    say!("with a mount in it: {} {}", umount(c"m", MNT_EXPIRE), umount(c"m", MNT_EXPIRE));
    process::as_plain_user(|| say!("not permitted: {}", umount(c"/var/contract/m/sub", MNT_EXPIRE)));
}

fn detached_lives() {
    mkdir(c"m");
    mount_tmpfs(c"m");
    close(create(c"m/f", "content"));
    let fd = open(c"m/f", O_RDWR).fd();
    let dir = open(c"m", O_RDONLY | O_DIRECTORY).fd();
    say!("MNT_DETACH: {}", umount(c"m", MNT_DETACH));
    say!("written: {}", write(fd, "changed"));
    say!("made: {}", sys!(SYS_openat, dir, c"g", O_CREAT | O_RDWR, 0o644).ok_or_error());
    say!("not to be moved: {}", put(dir, c"m"));
    say!("nor copied: {}", sys!(SYS_open_tree, dir, c"", CLONE | AT_EMPTY_PATH));
}
