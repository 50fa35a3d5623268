//! Loop devices, loop(4).

use std::ffi::CStr;

use libc::*;

use crate::file::{close, create, mkdir, open, path, read_at, stat, unlink};
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    control_refused, add_and_remove, get_free, nodes, unbound, bind_refused, bind, read_only_file, read_only_open, status, status_refused, old_status, offset_and_limit, capacity, block_size, direct_io, configure, configure_refused,
}

pub(super) const ADD: u32 = 0x4c80;
pub(super) const REMOVE: u32 = 0x4c81;
pub(super) const GET_FREE: u32 = 0x4c82;
pub(super) const SET_FD: u32 = 0x4c00;
pub(super) const CLR_FD: u32 = 0x4c01;
pub(super) const SET_STATUS: u32 = 0x4c02;
pub(super) const GET_STATUS: u32 = 0x4c03;
pub(super) const SET_STATUS64: u32 = 0x4c04;
pub(super) const GET_STATUS64: u32 = 0x4c05;
pub(super) const CHANGE_FD: u32 = 0x4c06;
pub(super) const SET_CAPACITY: u32 = 0x4c07;
pub(super) const SET_DIRECT_IO: u32 = 0x4c08;
pub(super) const SET_BLOCK_SIZE: u32 = 0x4c09;
pub(super) const CONFIGURE: u32 = 0x4c0a;

pub(super) const BLKROGET: u32 = 0x125e;
pub(super) const BLKGETSIZE: u32 = 0x1260;
pub(super) const BLKFLSBUF: u32 = 0x1261;
pub(super) const BLKSSZGET: u32 = 0x1268;
pub(super) const BLKPBSZGET: u32 = 0x127b;
pub(super) const BLKGETSIZE64: u32 = 0x8008_1272;

pub(super) const READ_ONLY: u32 = 1;
pub(super) const AUTOCLEAR: u32 = 4;

/// No test of another family goes there.
pub(super) const NUMBER: i32 = 40;
pub(super) const NODE: &CStr = c"/dev/loop40";

#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Info64 {
    pub device: u64,
    pub inode: u64,
    pub rdevice: u64,
    pub offset: u64,
    pub size_limit: u64,
    pub number: u32,
    pub encrypt_type: u32,
    pub encrypt_key_size: u32,
    pub flags: u32,
    pub file_name: [u8; 64],
    pub crypt_name: [u8; 64],
    pub encrypt_key: [u8; 32],
    pub init: [u64; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info64,
    reserved: [u64; 8],
}

pub(super) fn control(cmd: u32, arg: i32) -> Ret {
    let fd = open(c"/dev/loop-control", O_RDWR).fd();
    let ret = sys!(SYS_ioctl, fd, cmd, arg);
    close(fd);
    ret
}

/// A device of the test's own, open.
pub(super) fn device(flags: i32) -> i32 {
    control(ADD, NUMBER);
    open(NODE, flags).fd()
}

/// The device and the file go.
pub(super) fn end(fd: i32) {
    sys!(SYS_ioctl, fd, CLR_FD, 0);
    close(fd);
    control(REMOVE, NUMBER);
}

/// A file of so many bytes, each sector of which says its number.
pub(super) fn file(name: &CStr, size: usize) -> i32 {
    let fd = create(name, "");
    let mut text = String::new();
    for sector in 0..size.div_ceil(512) {
        text.push_str(&format!("{:<512}", format!("sector {sector}")));
    }
    text.truncate(size);
    sys!(SYS_pwrite64, fd, text.as_str(), text.len(), 0);
    fd
}

pub(super) fn get(fd: i32, cmd: u32) -> String {
    let mut value = 0u64;
    match sys!(SYS_ioctl, fd, cmd, &mut value) {
        ret if ret.ok() => value.to_string(),
        error => error.to_string(),
    }
}

pub(super) fn info(fd: i32) -> Result<Info64, Ret> {
    let mut info: Info64 = zeroed();
    match sys!(SYS_ioctl, fd, GET_STATUS64, &mut info) {
        ret if ret.ok() => Ok(info),
        error => Err(error),
    }
}

pub(super) fn shown(fd: i32) -> String {
    match info(fd) {
        Ok(info) => {
            let name: Vec<u8> = info.file_name.iter().copied().take_while(|byte| *byte != 0).collect();
            format!(
                "number {} offset {} limit {} flags {:#x} encryption {} {} name {:?}",
                info.number,
                info.offset,
                info.size_limit,
                info.flags,
                info.encrypt_type,
                info.encrypt_key_size,
                String::from_utf8_lossy(&name)
            )
        }
        Err(error) => error.to_string(),
    }
}

pub(super) fn set(fd: i32, change: impl FnOnce(&mut Info64)) -> Ret {
    let mut info: Info64 = zeroed();
    change(&mut info);
    sys!(SYS_ioctl, fd, SET_STATUS64, &info)
}

pub(super) fn start(fd: i32, at: i64) -> String {
    read_at(fd, 12, at).trim_end().to_string()
}

pub(super) fn put(fd: i32, text: &str, at: i64) -> Ret {
    sys!(SYS_pwrite64, fd, text, text.len(), at)
}

fn control_refused() {
    let fd = open(c"/dev/loop-control", O_RDWR).fd();
    say!("unknown: {} {}", sys!(SYS_ioctl, fd, 0x4c83u32, 0), sys!(SYS_ioctl, fd, 0x1234u32, 0));
    say!("the ioctl of a device: {}", sys!(SYS_ioctl, fd, SET_FD, 0));
    let mut byte = [0u8; 1];
    say!("read: {} write: {}", sys!(SYS_read, fd, &mut byte, 1), sys!(SYS_write, fd, &byte, 1));
    close(fd);
    let fd = open(c"/dev/loop-control", O_RDONLY).fd();
    say!("open to be read: {}", sys!(SYS_ioctl, fd, GET_FREE, 0).ok_or_error());
    close(fd);
}

fn add_and_remove() {
    say!("remove what is not there: {}", control(REMOVE, NUMBER));
    say!("add: {}", control(ADD, NUMBER));
    say!("again: {}", control(ADD, NUMBER));
    say!("it is there: {}", stat(NODE).is_ok());
    let fd = open(NODE, O_RDONLY).fd();
    say!("remove while open: {}", control(REMOVE, NUMBER));
    close(fd);
    say!("remove: {}", control(REMOVE, NUMBER));
    say!("it is there: {}", stat(NODE).is_ok());
    say!("remove again: {}", control(REMOVE, NUMBER));
    say!("remove none: {}", control(REMOVE, -1));
}

fn get_free() {
    let first = control(GET_FREE, 0).need();
    let node = path(format!("/dev/loop{first}"));
    say!("there is a free one: {}", stat(&node).is_ok());
    say!("it stays free: {}", control(GET_FREE, 0).0 == first);
    let fd = open(&node, O_RDWR).fd();
    let backing = file(c"f", 4096);
    say!("bind: {}", sys!(SYS_ioctl, fd, SET_FD, backing));
    say!("another is free: {}", control(GET_FREE, 0).0 > first);
    say!("clear: {}", sys!(SYS_ioctl, fd, CLR_FD, 0));
    close(fd);
    say!("free again: {}", control(GET_FREE, 0).0 == first);
}

fn nodes() {
    let of = |name: &CStr| {
        stat(name).map_or_else(
            |error| error.to_string(),
            |stat| format!("{:o} {}:{}", stat.st_mode & S_IFMT, major(stat.st_rdev), minor(stat.st_rdev)),
        )
    };
    say!("control: {}", of(c"/dev/loop-control"));
    say!("first: {} last: {}", of(c"/dev/loop0"), of(c"/dev/loop7"));
    control(ADD, NUMBER);
    say!("added: {}", of(NODE));
    control(REMOVE, NUMBER);
}

fn unbound() {
    let fd = device(O_RDWR);
    say!("size: {} {}", get(fd, BLKGETSIZE64), get(fd, BLKGETSIZE));
    say!("read: {} write: {}", read_at(fd, 10, 0), put(fd, "x", 0));
    say!("end: {}", sys!(SYS_lseek, fd, 0, SEEK_END));
    say!("status: {} {}", shown(fd), get(fd, GET_STATUS));
    say!("set status: {}", set(fd, |_| ()));
    say!("clear: {}", sys!(SYS_ioctl, fd, CLR_FD, 0));
    say!("capacity: {}", sys!(SYS_ioctl, fd, SET_CAPACITY, 0));
    say!("direct I/O: {}", sys!(SYS_ioctl, fd, SET_DIRECT_IO, 0));
    say!("block size: {}", sys!(SYS_ioctl, fd, SET_BLOCK_SIZE, 512));
    let backing = file(c"f", 4096);
    say!("change: {}", sys!(SYS_ioctl, fd, CHANGE_FD, backing));
    say!("sync: {}", sys!(SYS_fsync, fd));
    mkdir(c"m");
    say!("mount: {}", sys!(SYS_mount, NODE, c"m", c"ext2", 0, 0));
    end(fd);
}

fn bind_refused() {
    let fd = device(O_RDWR);
    say!("no file: {} {}", sys!(SYS_ioctl, fd, SET_FD, -1), sys!(SYS_ioctl, fd, SET_FD, 999));
    mkdir(c"d");
    let directory = open(c"d", O_RDONLY | O_DIRECTORY).fd();
    say!("a directory: {}", sys!(SYS_ioctl, fd, SET_FD, directory));
    let null = open(c"/dev/null", O_RDWR).fd();
    say!("a device: {}", sys!(SYS_ioctl, fd, SET_FD, null));
    let ends = crate::file::pipe();
    say!("a pipe: {}", sys!(SYS_ioctl, fd, SET_FD, ends[0]));
    close(file(c"f", 512));
    let place = open(c"f", O_PATH).fd();
    say!("O_PATH: {}", sys!(SYS_ioctl, fd, SET_FD, place));
    say!("the device itself: {}", sys!(SYS_ioctl, fd, SET_FD, fd).ok());
    end(fd);
}

fn bind() {
    let backing = file(c"f", 10_000);
    let fd = device(O_RDWR);
    say!("bind: {}", sys!(SYS_ioctl, fd, SET_FD, backing));
    close(backing);
    say!("again: {}", sys!(SYS_ioctl, fd, SET_FD, fd));
    let other = file(c"g", 512);
    say!("another: {}", sys!(SYS_ioctl, fd, SET_FD, other));
    say!("size: {} {}", get(fd, BLKGETSIZE64), get(fd, BLKGETSIZE));
    say!("read: {} {}", start(fd, 0), start(fd, 512 * 18));
    say!("at the end: {} behind it: {}", start(fd, 512 * 19), read_at(fd, 10, 20_000));
    say!("across the end: {}", read_at(fd, 1000, 512 * 19 - 4));
    say!("write: {}", put(fd, "written", 700));
    say!("read: {}", read_at(fd, 9, 699));
    say!("write across the end: {}", put(fd, "0123456789", 512 * 19 - 4));
    say!("behind it: {}", put(fd, "x", 512 * 19));
    say!("unlinked: {}", unlink(c"f"));
    say!("still there: {}", start(fd, 512));
    end(fd);
}

fn read_only_file() {
    close(file(c"f", 4096));
    let backing = open(c"f", O_RDONLY).fd();
    let fd = device(O_RDWR);
    say!("bind: {}", sys!(SYS_ioctl, fd, SET_FD, backing));
    say!("{}", shown(fd));
    say!("read-only: {}", get(fd, BLKROGET));
    say!("read: {} write: {}", start(fd, 512), put(fd, "x", 0));
    let writer = open(NODE, O_RDWR);
    say!("open for writing: {}", writer.ok_or_error());
    if writer.ok() {
        close(writer.fd());
    }
    say!("set status: {} {}", set(fd, |info| info.offset = 512), shown(fd));
    end(fd);
}

fn read_only_open() {
    let backing = file(c"f", 4096);
    let fd = device(O_RDONLY);
    say!("bind: {} {}", sys!(SYS_ioctl, fd, SET_FD, backing), shown(fd));
    say!("write: {}", put(fd, "x", 0));
    end(fd);
}

fn status() {
    let backing = file(c"f", 8192);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    say!("{}", shown(fd));
    let name = |info: &mut Info64, text: &[u8]| info.file_name[..text.len()].copy_from_slice(text);
    say!("set: {}", set(fd, |info| name(info, b"a name")));
    say!("{}", shown(fd));
    say!("a long name: {}", set(fd, |info| info.file_name.fill(b'n')));
    say!("{}", shown(fd));
    say!("all flags: {} {}", set(fd, |info| info.flags = READ_ONLY | 2 | 16 | 0x100), shown(fd));
    if let (Ok(info), Ok(stat)) = (info(fd), crate::file::fstat(backing)) {
        say!("inode: {} device: {} {}", info.inode == stat.st_ino, info.device == stat.st_dev, info.rdevice);
        say!("key: {:?} {:?}", info.crypt_name[0], info.init);
    }
    say!("nowhere: {} {}", sys!(SYS_ioctl, fd, GET_STATUS64, NOWHERE), sys!(SYS_ioctl, fd, SET_STATUS64, NOWHERE));
    say!("null: {} {}", sys!(SYS_ioctl, fd, GET_STATUS64, 0), sys!(SYS_ioctl, fd, SET_STATUS64, 0));
    end(fd);
}

fn status_refused() {
    let backing = file(c"f", 8192);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    say!("encryption: {} {}", set(fd, |info| info.encrypt_type = 1), set(fd, |info| info.encrypt_type = 18));
    say!("unknown encryption: {}", set(fd, |info| info.encrypt_type = 77));
    say!("key: {} {}", set(fd, |info| info.encrypt_key_size = 32), set(fd, |info| info.encrypt_key_size = 33));
    say!("offset: {}", set(fd, |info| info.offset = 1 << 63));
    say!("limit: {}", set(fd, |info| info.size_limit = u64::MAX));
    say!("{}", shown(fd));
    say!("behind the end: {} {}", set(fd, |info| info.offset = 1 << 40), get(fd, BLKGETSIZE64));
    say!("limit behind it: {} {}", set(fd, |info| info.size_limit = 1 << 40), get(fd, BLKGETSIZE64));
    end(fd);
}

fn old_status() {
    let backing = file(c"f", 8192);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    let word = |info: &[u8; 168], at: usize| info.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let mut old = [0u8; 168];
    old[160..].fill(0xaa);
    say!("get: {}", sys!(SYS_ioctl, fd, GET_STATUS, &mut old));
    say!("number {:?} offset {:?} flags {:?}", word(&old, 0), word(&old, 20), word(&old, 32));
    say!("its end: {:x?}", &old[156..164]);
    old[20..24].copy_from_slice(&1024u32.to_le_bytes());
    old[32..36].copy_from_slice(&AUTOCLEAR.to_le_bytes());
    old[36..40].copy_from_slice(b"old\0");
    say!("set: {} {}", sys!(SYS_ioctl, fd, SET_STATUS, &old), shown(fd));
    say!("read: {}", start(fd, 0));
    old[20..24].copy_from_slice(&(-1i32).to_le_bytes());
    say!("negative offset: {}", sys!(SYS_ioctl, fd, SET_STATUS, &old));
    set(fd, |info| info.offset = 1 << 32);
    say!("what does not fit: {}", sys!(SYS_ioctl, fd, GET_STATUS, &mut old));
    say!("null: {}", sys!(SYS_ioctl, fd, GET_STATUS, 0));
    end(fd);
}

fn offset_and_limit() {
    let backing = file(c"f", 64 * 512);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    say!("read: {}", start(fd, 0));
    say!("offset: {} {}", set(fd, |info| info.offset = 5 * 512), get(fd, BLKGETSIZE));
    say!("read: {} {}", start(fd, 0), start(fd, 512 * 58));
    say!("limit: {} {}", set(fd, |info| (info.offset, info.size_limit) = (512, 2048)), get(fd, BLKGETSIZE));
    say!("read: {} {} {}", start(fd, 0), start(fd, 512 * 3), start(fd, 512 * 4));
    say!("write: {} {}", put(fd, "through", 512), start(backing, 1024));
    sys!(SYS_fsync, fd);
    say!("after fsync: {}", start(backing, 1024));
    say!("odd: {} {}", set(fd, |info| (info.offset, info.size_limit) = (100, 1300)), get(fd, BLKGETSIZE64));
    say!("read: {}", start(fd, 412));
    end(fd);
}

fn capacity() {
    let backing = file(c"f", 4096);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    sys!(SYS_ftruncate, backing, 16_384);
    say!("grown: {}", get(fd, BLKGETSIZE64));
    say!("set: {} {}", sys!(SYS_ioctl, fd, SET_CAPACITY, 0), get(fd, BLKGETSIZE64));
    sys!(SYS_ftruncate, backing, 1000);
    say!("cut: {}", get(fd, BLKGETSIZE64));
    say!("set: {} {}", sys!(SYS_ioctl, fd, SET_CAPACITY, 0), get(fd, BLKGETSIZE64));
    end(fd);
}

fn block_size() {
    let backing = file(c"f", 8192);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    say!("{} {}", get(fd, BLKSSZGET), get(fd, BLKPBSZGET));
    for size in [0, 1, 256, 513, 1024, 4096, 8192] {
        say!("{size}: {} {}", sys!(SYS_ioctl, fd, SET_BLOCK_SIZE, size), get(fd, BLKSSZGET));
    }
    say!("read: {}", start(fd, 512));
    end(fd);
}

fn direct_io() {
    let backing = file(c"f", 8192);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    say!("off: {} {}", sys!(SYS_ioctl, fd, SET_DIRECT_IO, 0), shown(fd));
    end(fd);
}

fn configuration(fd: i32) -> Config {
    let mut config: Config = zeroed();
    config.fd = fd as u32;
    config
}

fn configure() {
    let backing = file(c"f", 8192);
    let fd = device(O_RDWR);
    let mut config = configuration(backing);
    config.block_size = 1024;
    config.info.offset = 512;
    config.info.size_limit = 4096;
    config.info.flags = READ_ONLY;
    config.info.file_name[..5].copy_from_slice(b"named");
    say!("configure: {}", sys!(SYS_ioctl, fd, CONFIGURE, &config));
    say!("{}", shown(fd));
    say!("size: {} block: {} read-only: {}", get(fd, BLKGETSIZE64), get(fd, BLKSSZGET), get(fd, BLKROGET));
    say!("read: {} write: {}", start(fd, 0), put(fd, "x", 0));
    say!("again: {}", sys!(SYS_ioctl, fd, CONFIGURE, &config));
    end(fd);
}

fn configure_refused() {
    let backing = file(c"f", 8192);
    let fd = device(O_RDWR);
    let with = |change: &dyn Fn(&mut Config)| {
        let mut config = configuration(backing);
        change(&mut config);
        sys!(SYS_ioctl, fd, CONFIGURE, &config)
    };
    say!("no file: {}", with(&|config| config.fd = 999));
    say!("flags: {} {}", with(&|config| config.info.flags = 2), with(&|config| config.info.flags = 0x100));
    say!("block size: {} {}", with(&|config| config.block_size = 100), with(&|config| config.block_size = 1 << 20));
    say!("offset: {}", with(&|config| config.info.offset = u64::MAX));
    say!("encryption: {}", with(&|config| config.info.encrypt_type = 1));
    say!("nowhere: {}", sys!(SYS_ioctl, fd, CONFIGURE, NOWHERE));
    say!("{}", shown(fd));
    end(fd);
}
