//! Sizes, holes and places of files.

use libc::*;

use super::size;
use crate::file::{contents, create, fstat, mkdir, open, pipe, read, read_at, symlink, unlink, write};
use crate::memory::{self, PAGE};
use crate::sys::{NOWHERE, sys};
use crate::{process, say, signal};

pub(super) fn file_size_limit() {
    signal::handle(SIGXFSZ, signal::count, 0);
    let limit = [1000u64, 1000];
    sys!(SYS_prlimit64, 0, RLIMIT_FSIZE, &limit, 0);
    let fd = create(c"f", "");
    let text = "x".repeat(900);
    say!("below: {} signals {}", write(fd, &text), signal::caught());
    say!("across: {} signals {}", write(fd, &text), signal::caught());
    say!("at the limit: {} signals {}", write(fd, "x"), signal::caught());
    say!("nothing at the limit: {} signals {}", write(fd, ""), signal::caught());
    say!("pwrite behind it: {} signals {}", sys!(SYS_pwrite64, fd, "x", 1, 5000), signal::caught());
    say!("ftruncate behind it: {} signals {}", sys!(SYS_ftruncate, fd, 1001), signal::caught());
    say!("truncate behind it: {} signals {}", sys!(SYS_truncate, c"f", 5000), signal::caught());
    say!("ftruncate to it: {} signals {}", sys!(SYS_ftruncate, fd, 1000), signal::caught());
    say!("size: {}", size(fd));
    let [_, writer] = pipe();
    say!("pipes have none: {} signals {}", write(writer, &"x".repeat(2000)), signal::caught());
    let tmp = create(c"/tmp/contract.limit", "");
    say!(
        "tmpfs: {} {} signals {}",
        sys!(SYS_pwrite64, tmp, "xyz", 3, 999),
        { sys!(SYS_pwrite64, tmp, "xyz", 3, 1000) },
        signal::caught()
    );
    unlink(c"/tmp/contract.limit");
    signal::default(SIGXFSZ);
    say!("by default: {}", process::in_child(|| write(fd, "x").errno()));
}

pub(super) fn far_offsets() {
    let fd = create(c"f", "x");
    signal::ignore(SIGXFSZ);
    for offset in [i64::MAX, i64::MAX - 1, 1 << 50] {
        say!("pwrite at {offset}: {}", sys!(SYS_pwrite64, fd, "xy", 2, offset));
        say!("pread: {}", read_at(fd, 2, offset));
        say!("ftruncate: {}", sys!(SYS_ftruncate, fd, offset));
    }
    say!("size: {}", size(fd));
    let tmp = create(c"/tmp/contract.far", "");
    for offset in [i64::MAX, i64::MAX - 1] {
        say!("tmpfs, pwrite at {offset}: {}", sys!(SYS_pwrite64, tmp, "xy", 2, offset));
        say!("pread: {}", read_at(tmp, 2, offset));
    }
    say!("lseek: {}", sys!(SYS_lseek, tmp, i64::MAX, SEEK_SET));
    say!("one more: {}", sys!(SYS_lseek, tmp, 1, SEEK_CUR));
    say!("write there: {}", write(tmp, "x"));
    say!("read there: {}", read(tmp, 1));
    say!("sparse: {} {}", sys!(SYS_pwrite64, tmp, "end", 3, 1i64 << 40), size(tmp));
    say!("its end: {}", read_at(tmp, 10, (1 << 40) - 3));
    unlink(c"/tmp/contract.far");
}

pub(super) fn seek() {
    let fd = create(c"f", "0123456789");
    let to = |offset: i64, whence: i32| sys!(SYS_lseek, fd, offset, whence);
    say!("SEEK_SET: {}", to(4, SEEK_SET));
    say!("SEEK_CUR: {} {}", to(2, SEEK_CUR), to(-5, SEEK_CUR));
    say!("SEEK_END: {} {} {}", to(0, SEEK_END), to(-10, SEEK_END), to(5, SEEK_END));
    say!("read behind the end: {}", read(fd, 4));
    say!("before the start: {} {} {}", to(-1, SEEK_SET), to(-16, SEEK_CUR), to(-11, SEEK_END));
    say!("it did not move: {}", to(0, SEEK_CUR));
    say!("overflow: {}", to(i64::MAX, SEEK_CUR));
    say!("unknown whence: {} {}", to(0, 5), to(0, -1));
    say!("write behind the end: {} {}", write(fd, "!"), contents(c"f"));
    let [reader, _] = pipe();
    say!("a pipe: {}", sys!(SYS_lseek, reader, 0, SEEK_CUR));
    say!("a pipe, unknown whence: {}", sys!(SYS_lseek, reader, 0, 9));
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &mut pair);
    say!("a socket: {}", sys!(SYS_lseek, pair[0], 0, SEEK_CUR));
    say!("/dev/null: {} {}", sys!(SYS_lseek, 0, 55, SEEK_SET), sys!(SYS_lseek, 0, 0, SEEK_CUR));
    let zero = open(c"/dev/zero", O_RDONLY).fd();
    say!("/dev/zero: {} {}", sys!(SYS_lseek, zero, 55, SEEK_SET), sys!(SYS_lseek, zero, 0, SEEK_CUR));
    say!("an eventfd: {}", sys!(SYS_lseek, sys!(SYS_eventfd2, 0, 0).fd(), 0, SEEK_SET));
    say!("an epoll: {}", sys!(SYS_lseek, sys!(SYS_epoll_create1, 0).fd(), 7, SEEK_SET));
    let ptmx = open(c"/dev/ptmx", O_RDWR | O_NOCTTY).fd();
    say!("a terminal: {}", sys!(SYS_lseek, ptmx, 0, SEEK_CUR));
    say!("closed: {}", sys!(SYS_lseek, 60, 0, SEEK_SET));
    say!("O_PATH: {}", sys!(SYS_lseek, open(c"f", O_PATH).fd(), 0, SEEK_SET));
    let stat = open(c"/proc/self/stat", O_RDONLY).fd();
    say!("/proc: {} {}", sys!(SYS_lseek, stat, 5, SEEK_SET), sys!(SYS_lseek, stat, 0, SEEK_END));
}

fn show_holes(fd: i32) {
    let to = |offset: i64, whence: i32| sys!(SYS_lseek, fd, offset, whence);
    say!("empty: data {}, hole {}", to(0, SEEK_DATA), to(0, SEEK_HOLE));
    sys!(SYS_pwrite64, fd, "data", 4, 8192);
    sys!(SYS_pwrite64, fd, "data", 4, 40960);
    sys!(SYS_ftruncate, fd, 100_000);
    sys!(SYS_fsync, fd);
    for offset in [0, 1, 8191, 8192, 8195, 12288, 40960, 45055, 45056, 99_999, 100_000, 200_000, -1] {
        say!("from {offset}: data {}, hole {}", to(offset, SEEK_DATA), to(offset, SEEK_HOLE));
    }
    say!("offset is as set last: {}", to(0, SEEK_CUR));
    to(8192, SEEK_DATA);
    say!("after a success: {}", to(0, SEEK_CUR));
    sys!(SYS_ftruncate, fd, 0);
    sys!(SYS_pwrite64, fd, "dense", 5, 0);
    say!("dense: data {}, hole {}, at its end {}", to(0, SEEK_DATA), to(0, SEEK_HOLE), to(5, SEEK_HOLE));
}

pub(super) fn holes() {
    show_holes(create(c"f", ""));
}

pub(super) fn holes_in_tmpfs() {
    show_holes(create(c"/tmp/contract.holes", ""));
    unlink(c"/tmp/contract.holes");
    show_holes(sys!(SYS_memfd_create, c"m", 0).fd());
    say!("of a device: {}", sys!(SYS_lseek, 0, 0, SEEK_DATA).ok_or_error());
    let [reader, _] = pipe();
    say!("of a pipe: {}", sys!(SYS_lseek, reader, 0, SEEK_HOLE));
}

pub(super) fn truncate() {
    for name in [c"f", c"/tmp/contract.truncate"] {
        let fd = create(name, "0123456789");
        say!("shorter: {} {}", sys!(SYS_ftruncate, fd, 4), contents(name));
        say!("longer: {} {}", sys!(SYS_truncate, name, 8), contents(name));
        say!("the same: {} {}", sys!(SYS_truncate, name, 8), contents(name));
        sys!(SYS_lseek, fd, 6, SEEK_SET);
        say!("nothing: {} {}", sys!(SYS_ftruncate, fd, 0), contents(name));
        say!("the offset stays: {} {} {}", sys!(SYS_lseek, fd, 0, SEEK_CUR), write(fd, "x"), contents(name));
        sys!(SYS_pwrite64, fd, "y".repeat(9000).as_str(), 9000, 0);
        sys!(SYS_ftruncate, fd, 4097);
        sys!(SYS_ftruncate, fd, 9000);
        let mut buffer = vec![b'#'; 9000];
        let ret = sys!(SYS_pread64, fd, &mut buffer[..], 9000, 0);
        let zeros = buffer.iter().filter(|byte| **byte == 0).count();
        say!("cut and grown: {ret}, {zeros} zeros, the rest is {}", buffer[..4097].iter().all(|byte| *byte == b'y'));
        let map = memory::map(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0).need() as *mut u8;
        sys!(SYS_ftruncate, fd, 10);
        memory::poke(map.wrapping_add(20), b'z');
        sys!(SYS_ftruncate, fd, 30);
        say!("what was written behind the end of a mapping: {:?}", memory::peek(map.wrapping_add(20)));
        unlink(name);
    }
}

pub(super) fn truncate_refused() {
    let fd = create(c"f", "contents");
    mkdir(c"d");
    symlink(c"f", c"l");
    sys!(SYS_mknodat, AT_FDCWD, c"fifo", S_IFIFO | 0o644, 0);
    say!("negative: {} {}", sys!(SYS_truncate, c"f", -1), sys!(SYS_ftruncate, fd, -1));
    say!("negative of nothing: {} {}", sys!(SYS_truncate, c"missing", -1), sys!(SYS_ftruncate, 60, -1));
    say!("missing: {}", sys!(SYS_truncate, c"missing", 0));
    say!("a directory: {}", sys!(SYS_truncate, c"d", 0));
    say!("a fifo: {}", sys!(SYS_truncate, c"fifo", 0));
    say!("a device: {}", sys!(SYS_truncate, c"/dev/null", 0));
    say!("closed: {}", sys!(SYS_ftruncate, 60, 0));
    say!("a reader: {}", sys!(SYS_ftruncate, open(c"f", O_RDONLY).fd(), 0));
    say!("a pipe: {}", sys!(SYS_ftruncate, pipe()[1], 0));
    say!("no path: {}", sys!(SYS_truncate, NOWHERE, 0));
    say!("in /proc: {}", sys!(SYS_truncate, c"/proc/self/stat", 0));
    say!("through a link: {} {}", sys!(SYS_truncate, c"l", 3), contents(c"f"));
    process::as_plain_user(|| {
        say!("another's: {}", sys!(SYS_truncate, c"f", 0));
        say!("another's directory: {}", sys!(SYS_truncate, c"d", 0));
    });
}

pub(super) fn sparse() {
    for name in [c"f", c"/tmp/contract.sparse"] {
        let fd = create(name, "start");
        say!("write far behind: {}", sys!(SYS_pwrite64, fd, "end", 3, 20_000));
        let mut buffer = vec![b'#'; 30_000];
        let ret = sys!(SYS_pread64, fd, &mut buffer[..], 30_000, 0);
        let zeros = buffer[..20_003].iter().filter(|byte| **byte == 0).count();
        say!("read: {ret}, {zeros} zeros");
        say!("across: {}", read_at(fd, 5, 19_998));
        let map = memory::map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0).need() as *mut u8;
        memory::poke(map.wrapping_add(9000), b'm');
        say!("written by a mapping: {}", read_at(fd, 3, 8999));
        say!("in the rest of the last page: {}", memory::peek(map.wrapping_add(20_100)));
        say!("behind it: {}", memory::try_peek(map.wrapping_add(7 * PAGE)));
        sys!(SYS_munmap, map, 8 * PAGE);
        unlink(name);
    }
}

fn show_allocate(fd: i32) {
    let call = |mode: i32, offset: i64, length: i64| {
        let ret = sys!(SYS_fallocate, fd, mode, offset, length);
        format!("{ret}, {} bytes", size(fd))
    };
    say!("plain: {}", call(0, 0, 10_000));
    say!("keep size: {}", call(FALLOC_FL_KEEP_SIZE, 0, 50_000));
    sys!(SYS_ftruncate, fd, 0);
    sys!(SYS_pwrite64, fd, "x".repeat(12_288).as_str(), 12_288, 0);
    say!("hole: {}", call(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 8000));
    let mut buffer = vec![b'#'; 12_288];
    sys!(SYS_pread64, fd, &mut buffer[..], 12_288, 0);
    say!("zeros: {}", buffer.iter().filter(|byte| **byte == 0).count());
    say!("hole that may change the size: {}", call(FALLOC_FL_PUNCH_HOLE, 0, 100));
    say!("hole behind the end: {}", call(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100_000, 8000));
    say!("zero: {}", call(FALLOC_FL_ZERO_RANGE, 0, 100));
    say!("collapse: {}", call(FALLOC_FL_COLLAPSE_RANGE, 0, 4096));
    say!("insert: {}", call(FALLOC_FL_INSERT_RANGE, 0, 4096));
    say!("collapse and insert: {}", call(FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE, 0, 4096));
    say!("unknown: {}", call(0x100, 0, 100));
    say!("nothing: {}", call(0, 0, 0));
    say!("negative: {} {}", call(0, -1, 10), call(0, 0, -10));
    say!("too far: {}", call(0, i64::MAX, 10));
}

pub(super) fn allocate() {
    show_allocate(create(c"f", ""));
    let reader = open(c"f", O_RDONLY).fd();
    say!("a reader: {}", sys!(SYS_fallocate, reader, 0, 0, 10));
    say!("a directory: {}", sys!(SYS_fallocate, open(c".", O_RDONLY).fd(), 0, 0, 10));
    say!("a pipe: {} {}", sys!(SYS_fallocate, pipe()[1], 0, 0, 10), sys!(SYS_fallocate, pipe()[0], 0, 0, 10));
    say!("a device: {}", sys!(SYS_fallocate, open(c"/dev/null", O_WRONLY).fd(), 0, 0, 10));
    say!("closed: {} {}", sys!(SYS_fallocate, 60, 0, 0, 10), sys!(SYS_fallocate, 60, 0x100, -1, 10));
}

pub(super) fn allocate_in_tmpfs() {
    let fd = create(c"/tmp/contract.allocate", "");
    show_allocate(fd);
    sys!(SYS_ftruncate, fd, 0);
    sys!(SYS_fallocate, fd, 0, 0, 16_384);
    say!("blocks: {}", fstat(fd).map_or(0, |stat| stat.st_blocks));
    sys!(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 8192);
    say!("with a hole: {}", fstat(fd).map_or(0, |stat| stat.st_blocks));
    unlink(c"/tmp/contract.allocate");
}
