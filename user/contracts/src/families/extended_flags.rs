//! FS_IOC_FSGETXATTR and FS_IOC_FSSETXATTR (ioctl_xfs_fsgetxattr(2)), as far as they are about inode flags; FS_IOC_GETVERSION.

use std::ffi::CStr;

use libc::*;

use crate::file::{close, create, mkdir, open, pipe};
use crate::memory;
use crate::process::as_plain_user;
use crate::sys::{NOWHERE, Ret, sys};
use crate::{say, tests};

tests! { set_and_get, both_kinds, on_directories, hints_and_projects, rights, elsewhere, in_tmpfs, version }

const GET_FLAGS: u32 = 0x8008_6601;
const SET_FLAGS: u32 = 0x4008_6602;
const GET: u32 = 0x801c_581f;
const SET: u32 = 0x401c_5820;
const VERSION: u32 = 0x8008_7601;
const IMMUTABLE: u32 = 0x8;
const APPEND: u32 = 0x10;
const SYNC: u32 = 0x20;
const NOATIME: u32 = 0x40;
const NODUMP: u32 = 0x80;
const EXTSIZE: u32 = 0x800;
const EXTSZINHERIT: u32 = 0x1000;
const FS_DIRSYNC: u32 = 0x1_0000;
const FS_NODUMP: u32 = 0x40;

/// Flags, size of extents, their number, project, size of extents for copies.
type Extended = [u32; 7];

fn set(fd: i32, xflags: u32) -> Ret {
    let attributes: Extended = [xflags, 0, 0, 0, 0, 0, 0];
    sys!(SYS_ioctl, fd, SET, &attributes)
}

fn get(fd: i32) -> String {
    let mut attributes: Extended = [7; 7];
    let ret = sys!(SYS_ioctl, fd, GET, &mut attributes);
    if ret.ok() { format!("{attributes:x?}") } else { ret.to_string() }
}

fn file() -> i32 {
    close(create(c"file", ""));
    open(c"file", O_RDWR).fd()
}

fn set_and_get() {
    let fd = file();
    say!("at first: {}", get(fd));
    for flags in [NODUMP, NOATIME | NODUMP, SYNC, APPEND, IMMUTABLE, APPEND | IMMUTABLE] {
        say!("{flags:x}: {}, {}", set(fd, flags), get(fd));
        say!("none: {}, {}", set(fd, 0), get(fd));
    }
    say!("nowhere: {}, {}", sys!(SYS_ioctl, fd, GET, NOWHERE), sys!(SYS_ioctl, fd, SET, NOWHERE));
    let writer = open(c"file", O_WRONLY).fd();
    set(fd, APPEND);
    say!("append-only, written to: {}", open(c"file", O_WRONLY).ok_or_error());
    say!("truncated: {}", sys!(SYS_ftruncate, writer, 0));
    set(fd, 0);
}

/// What one kind of call sets the other shows, and flags that only one knows stay.
fn both_kinds() {
    mkdir(c"dir");
    let fd = open(c"dir", O_RDONLY).fd();
    let mut own = 0u32;
    sys!(SYS_ioctl, fd, GET_FLAGS, &mut own);
    let flags = own | FS_DIRSYNC | FS_NODUMP;
    say!("FS_IOC_SETFLAGS: {}", sys!(SYS_ioctl, fd, SET_FLAGS, &flags));
    say!("seen: {}", get(fd));
    say!("set: {}, {}", set(fd, NOATIME), get(fd));
    let mut now = 0u32;
    sys!(SYS_ioctl, fd, GET_FLAGS, &mut now);
    say!("FS_IOC_GETFLAGS: {:x}", now & !own);
}

fn on_directories() {
    mkdir(c"dir");
    let fd = open(c"dir", O_RDONLY).fd();
    for flags in [NODUMP, APPEND, IMMUTABLE] {
        say!("{flags:x}: {}, {}", set(fd, flags), get(fd));
        say!("create in it: {}", open(c"dir/new", O_CREAT | O_WRONLY | O_EXCL).ok_or_error());
        say!("none: {}", set(fd, 0));
    }
}

fn hints_and_projects() {
    let fd = file();
    mkdir(c"dir");
    let dir = open(c"dir", O_RDONLY).fd();
    for (name, attributes) in [
        ("extent size", [EXTSIZE, 65_536, 0, 0, 0, 0, 0]),
        ("its inheritance", [EXTSZINHERIT, 65_536, 0, 0, 0, 0, 0]),
        ("number of extents", [0, 0, 7, 0, 0, 0, 0]),
        ("project", [0, 0, 0, 5, 0, 0, 0]),
        ("no project", [0, 0, 0, u32::MAX, 0, 0, 0]),
        ("padding", [0, 0, 0, 0, 0, 9, 9]),
        ("unknown flag", [0x4000_0000, 0, 0, 0, 0, 0, 0]),
    ] {
        let attributes: Extended = attributes;
        say!(
            "{name}: file {}, directory {}",
            sys!(SYS_ioctl, fd, SET, &attributes),
            sys!(SYS_ioctl, dir, SET, &attributes)
        );
    }
    say!("then: {}, {}", get(fd), get(dir));
}

fn rights() {
    let fd = file();
    as_plain_user(|| {
        say!("another's: {}, {}", set(fd, NODUMP), set(fd, IMMUTABLE));
        say!("with a project: {}", sys!(SYS_ioctl, fd, SET, &[0u32, 0, 0, u32::MAX, 0, 0, 0]));
    });
    sys!(SYS_fchown, fd, 1000, 1000);
    as_plain_user(|| {
        say!("its own: {}", set(fd, NODUMP));
        for flags in [APPEND, IMMUTABLE] {
            say!("{flags:x}: {}", set(fd, flags));
        }
        say!("seen: {}", get(fd));
    });
    let reader = open(c"file", O_RDONLY).fd();
    say!("open for reading: {}", set(reader, 0));
    let path = open(c"file", O_PATH).fd();
    say!("O_PATH: {}, {}", get(path), set(path, 0));
}

fn elsewhere() {
    let [pipe, _] = pipe();
    say!("a pipe: {}, {}", get(pipe), set(pipe, 0));
    let proc = open(c"/proc/self/status", O_RDONLY).fd();
    say!("/proc: {}", get(proc));
    let null = open(c"/dev/null", O_RDONLY).fd();
    say!("/dev/null: {}, {}", get(null), set(null, 0));
    say!("the address counts first: {}", sys!(SYS_ioctl, pipe, SET, NOWHERE));
}

fn in_tmpfs() {
    mkdir(c"tmpfs");
    sys!(SYS_mount, c"none", c"tmpfs", c"tmpfs", 0, 0).need();
    close(create(c"tmpfs/file", ""));
    let fd = open(c"tmpfs/file", O_RDWR).fd();
    say!("at first: {}", get(fd));
    for flags in [NODUMP, APPEND, IMMUTABLE, SYNC] {
        say!("{flags:x}: {}, {}", set(fd, flags), get(fd));
    }
    say!("none: {}", set(fd, 0));
    let project: Extended = [0, 0, 0, 5, 0, 0, 0];
    say!("project: {}", sys!(SYS_ioctl, fd, SET, &project));
    say!("version: {}", version_of(c"tmpfs/file").map_or_else(|error| error, |_| "there".into()));
    close(fd);
}

fn version_of(path: &CStr) -> Result<u32, String> {
    let fd = open(path, O_RDONLY | O_NONBLOCK).fd();
    // Only an int is written.
    let mut words = [0u32, 77];
    let ret = sys!(SYS_ioctl, fd, VERSION, &mut words);
    close(fd);
    match ret.ok() {
        true if words[1] == 77 => Ok(words[0]),
        true => Err("more than an int".into()),
        false => Err(ret.to_string()),
    }
}

fn version() {
    close(create(c"file", ""));
    mkdir(c"dir");
    for path in [c"file", c"dir"] {
        let version = version_of(path);
        say!("{path:?} has one: {}", version.is_ok());
        say!("it stays: {}", version == version_of(path));
        // struct file_handle: its size, its type, and here the inode and its version.
        let mut handle = [32u32, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut mount = 0i32;
        say!("handle: {}", sys!(SYS_name_to_handle_at, AT_FDCWD, path, &mut handle, &mut mount, 0));
        say!("which knows it: {}", version == Ok(handle[3]));
    }
    say!("a device: {}", version_of(c"/dev/null").map_or_else(|error| error, |_| "there".into()));
    let fd = open(c"file", O_RDONLY).fd();
    say!("nowhere: {}", sys!(SYS_ioctl, fd, VERSION, NOWHERE));
    let page = memory::pages(1);
    say!("anywhere: {}", sys!(SYS_ioctl, fd, VERSION, page));
}
