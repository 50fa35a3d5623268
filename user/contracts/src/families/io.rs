//! Reading, writing, seeking and copying contents.

use std::ffi::CStr;

use libc::*;

use crate::file::{
    self, close, contents, create, fstat, mkdir, open, path, pipe, read, read_at, symlink, unlink, write,
};
use crate::memory::{self, PAGE};
use crate::process;
use crate::sys::{KERNEL, NOWHERE, Ret, sys, zeroed};
use crate::{say, signal, tests};

tests! {
    vectors, bad_vectors, bad_buffers, positions, vectors_at_positions, flags_of_vectors, file_size_limit, far_offsets,
    seek, holes, holes_in_tmpfs, truncate, truncate_refused, sparse, allocate, allocate_in_tmpfs, copy_range,
    copy_range_refused, send_file, splice_moves, splice_refused, tee_copies, sync, advice, direct, shared_offsets,
    devices, directories_and_others,
}

fn iovec_of(bytes: &mut [u8]) -> iovec {
    iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn size(fd: i32) -> i64 {
    fstat(fd).map_or(-1, |stat| stat.st_size)
}

fn vectors() {
    let fd = create(c"f", "");
    let (mut a, mut b, mut c) = (*b"one", *b"", *b"three");
    let parts = [iovec_of(&mut a), iovec_of(&mut b), iovec_of(&mut c)];
    say!("writev: {}", sys!(SYS_writev, fd, &parts, 3));
    say!("it: {}", contents(c"f"));
    sys!(SYS_lseek, fd, 0, SEEK_SET);
    let (mut a, mut b) = ([b'#'; 4], [b'#'; 8]);
    let parts = [iovec_of(&mut a), iovec_of(&mut b)];
    say!("readv: {}", sys!(SYS_readv, fd, &parts, 2));
    say!("in pieces: {} {}", String::from_utf8_lossy(&a), String::from_utf8_lossy(&b));
    say!("none: {} {}", sys!(SYS_readv, fd, &parts, 0), sys!(SYS_writev, fd, 0, 0));
    let mut byte = [b'x'];
    let many = vec![iovec_of(&mut byte); 1025];
    say!("1024 of them: {}", sys!(SYS_writev, fd, &many[..], 1024));
    say!("1025: {}", sys!(SYS_writev, fd, &many[..], 1025));
    say!("minus one: {}", sys!(SYS_writev, fd, &many[..], -1));
    say!("1025 to a closed one: {}", sys!(SYS_writev, 60, &many[..], 1025));
    say!("size: {}", size(fd));
    let null = iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    say!("nothing at null: {}", sys!(SYS_writev, fd, &[null], 1));
    let [reader, writer] = pipe();
    say!("to a pipe: {}", sys!(SYS_writev, writer, &many[..], 5));
    let parts = [iovec_of(&mut a), iovec_of(&mut b)];
    say!("from a pipe, less than asked: {}", sys!(SYS_readv, reader, &parts, 2));
}

fn bad_vectors() {
    let fd = create(c"f", "0123456789");
    let mut good = *b"good";
    let bad = iovec { iov_base: NOWHERE, iov_len: 4 };
    let kernel = iovec { iov_base: KERNEL, iov_len: 4 };
    let negative = iovec { iov_base: good.as_mut_ptr().cast(), iov_len: usize::MAX };
    say!("no vector: {}", sys!(SYS_writev, fd, NOWHERE, 1));
    say!("no vector, none asked: {}", sys!(SYS_writev, fd, NOWHERE, 0));
    say!("a negative length: {}", sys!(SYS_writev, fd, &[iovec_of(&mut good), negative], 2));
    let half = iovec { iov_base: good.as_mut_ptr().cast(), iov_len: (i64::MAX / 2 + 1) as usize };
    say!("too much together: {}", sys!(SYS_writev, 60, &[half, half], 2));
    say!("nothing was written: {} {}", sys!(SYS_lseek, fd, 0, SEEK_CUR), contents(c"f"));
    say!("bad part: {}", sys!(SYS_writev, fd, &[bad], 1));
    say!("good and bad part: {}", sys!(SYS_writev, fd, &[iovec_of(&mut good), bad], 2));
    say!("then: {}", contents(c"f"));
    say!("bad and good part: {}", sys!(SYS_writev, fd, &[bad, iovec_of(&mut good)], 2));
    say!("the kernel's: {}", sys!(SYS_writev, fd, &[iovec_of(&mut good), kernel], 2));
    sys!(SYS_lseek, fd, 0, SEEK_SET);
    say!("read into good and bad: {}", sys!(SYS_readv, fd, &[iovec_of(&mut good), bad], 2));
    say!("offset: {}", sys!(SYS_lseek, fd, 0, SEEK_CUR));
    say!("read into bad and good: {}", sys!(SYS_readv, fd, &[bad, iovec_of(&mut good)], 2));
    let [reader, writer] = pipe();
    say!("pipe, good and bad: {}", sys!(SYS_writev, writer, &[iovec_of(&mut good), bad], 2));
    say!("in it: {}", { file::read_at(reader, 1, 0) });
    let mut left = 0i32;
    sys!(SYS_ioctl, reader, FIONREAD, &mut left);
    say!("bytes: {left}");
}

fn bad_buffers() {
    let fd = create(c"f", &"x".repeat(3 * PAGE));
    let place = memory::pages(2);
    sys!(SYS_munmap, place as usize + PAGE, PAGE);
    let end = place as usize + PAGE - 100;
    say!("read: {}", sys!(SYS_read, fd, NOWHERE, 10));
    say!("read of nothing: {}", sys!(SYS_read, fd, NOWHERE, 0));
    say!("read into the kernel: {} {}", sys!(SYS_read, fd, KERNEL, 10), sys!(SYS_read, fd, KERNEL, 0));
    say!("at the end of a mapping: {}", sys!(SYS_read, fd, end, 200));
    say!("offset: {}", sys!(SYS_lseek, fd, 0, SEEK_CUR));
    say!("write: {}", sys!(SYS_write, fd, NOWHERE, 10));
    say!("write of nothing: {}", sys!(SYS_write, fd, NOWHERE, 0));
    sys!(SYS_lseek, fd, 0, SEEK_SET);
    say!("write from the end of a mapping: {}", sys!(SYS_write, fd, end, 200));
    say!("offset: {}", sys!(SYS_lseek, fd, 0, SEEK_CUR));
    say!("size: {}", size(fd));
    let [reader, writer] = pipe();
    say!("pipe: {}", sys!(SYS_write, writer, end, 200));
    let mut left = 0i32;
    sys!(SYS_ioctl, reader, FIONREAD, &mut left);
    say!("in it: {left}");
    write(writer, "left in the pipe");
    say!("read from a pipe: {}", sys!(SYS_read, reader, NOWHERE, 500));
    sys!(SYS_mprotect, place, PAGE, PROT_READ);
    say!("into a page to be read: {}", sys!(SYS_pread64, fd, place, 10, 0));
    sys!(SYS_mprotect, place, PAGE, PROT_NONE);
    say!("from a page not to be read: {}", sys!(SYS_pwrite64, fd, place, 10, 0));
    say!("more than there can be: {}", sys!(SYS_read, fd, place, -1i64));
    say!("closed: {} {}", sys!(SYS_read, 60, NOWHERE, 1), sys!(SYS_write, 60, NOWHERE, 1));
}

fn positions() {
    let fd = create(c"f", "0123456789");
    sys!(SYS_lseek, fd, 3, SEEK_SET);
    say!("pread: {}", read_at(fd, 4, 5));
    say!("pwrite: {}", sys!(SYS_pwrite64, fd, "AB", 2, 1));
    say!("offset is as before: {}", sys!(SYS_lseek, fd, 0, SEEK_CUR));
    say!("all: {}", contents(c"f"));
    say!("at the end: {}", read_at(fd, 4, 10));
    say!("over the end: {}", read_at(fd, 4, 8));
    say!("behind the end: {}", read_at(fd, 4, 1000));
    say!("negative: {} {}", read_at(fd, 4, -1), sys!(SYS_pwrite64, fd, "x", 1, -1));
    say!("negative, nothing: {}", sys!(SYS_pread64, fd, 0, 0, -1));
    say!("write behind the end: {} {}", sys!(SYS_pwrite64, fd, "!", 1, 14), contents(c"f"));
    let [reader, writer] = pipe();
    say!("pipes: {} {}", read_at(reader, 1, 0), sys!(SYS_pwrite64, writer, "x", 1, 0));
    say!("pipes, negative: {}", read_at(reader, 1, -1));
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &mut pair);
    say!("sockets: {}", read_at(pair[0], 1, 0));
    say!("closed: {} {}", read_at(60, 1, 0), read_at(60, 1, -1));
    say!("a directory: {}", read_at(open(c".", O_RDONLY).fd(), 1, 0));
    say!("/dev/null: {}", read_at(0, 1, 77));
    say!("wrong way: {}", sys!(SYS_pwrite64, open(c"f", O_RDONLY).fd(), "x", 1, 0));
}

fn vectors_at_positions() {
    let fd = create(c"f", "0123456789");
    let (mut a, mut b) = (*b"AB", *b"CD");
    let parts = [iovec_of(&mut a), iovec_of(&mut b)];
    say!("pwritev: {}", sys!(SYS_pwritev, fd, &parts, 2, 4, 0));
    say!("all: {}", contents(c"f"));
    say!("preadv: {}", sys!(SYS_preadv, fd, &parts, 2, 0, 0));
    say!("read: {} {}", String::from_utf8_lossy(&a), String::from_utf8_lossy(&b));
    say!("offset: {}", sys!(SYS_lseek, fd, 0, SEEK_CUR));
    say!("minus one: {} {}", sys!(SYS_preadv, fd, &parts, 2, -1i64, 0), sys!(SYS_pwritev, fd, &parts, 2, -1i64, 0));
    say!("minus two: {}", sys!(SYS_preadv, fd, &parts, 2, -2i64, 0));
    say!("preadv2 at minus one reads on: {}", sys!(SYS_preadv2, fd, &parts, 2, -1i64, 0, 0));
    say!("offset: {}", sys!(SYS_lseek, fd, 0, SEEK_CUR));
    say!("pwritev2 at minus one: {}", sys!(SYS_pwritev2, fd, &parts, 1, -1i64, 0, 0));
    say!("all: {}", contents(c"f"));
    say!("preadv2 at minus two: {}", sys!(SYS_preadv2, fd, &parts, 2, -2i64, 0, 0));
    let [reader, writer] = pipe();
    say!("pipe: {}", sys!(SYS_preadv, reader, &parts, 2, 0, 0));
    write(writer, "pipe");
    say!("pipe at minus one: {}", sys!(SYS_preadv2, reader, &parts, 2, -1i64, 0, 0));
    say!("pwritev2 to a pipe: {}", sys!(SYS_pwritev2, writer, &parts, 2, 5, 0, 0));
}

fn flags_of_vectors() {
    let fd = create(c"f", "0123456789");
    let mut a = *b"AB";
    let part = [iovec_of(&mut a)];
    let put = |flags: i32, offset: i64| sys!(SYS_pwritev2, fd, &part, 1, offset, 0, flags);
    say!("RWF_DSYNC: {}", put(RWF_DSYNC, 0));
    say!("RWF_SYNC: {}", put(RWF_SYNC, 2));
    say!("RWF_HIPRI: {}", put(RWF_HIPRI, 4));
    say!("RWF_APPEND: {}", put(RWF_APPEND, 0));
    say!("all: {}", contents(c"f"));
    say!("offset: {}", sys!(SYS_lseek, fd, 0, SEEK_CUR));
    say!("RWF_APPEND at minus one: {}", put(RWF_APPEND, -1));
    say!("all: {}", contents(c"f"));
    say!("offset: {}", sys!(SYS_lseek, fd, 0, SEEK_CUR));
    say!("unknown: {}", put(0x40, 0));
    say!("unknown on read: {}", sys!(SYS_preadv2, fd, &part, 1, 0, 0, 0x100));
    say!("RWF_DSYNC on read: {}", sys!(SYS_preadv2, fd, &part, 1, 0, 0, RWF_DSYNC));
    let append = open(c"f", O_WRONLY | O_APPEND).fd();
    say!("O_APPEND and a position: {}", sys!(SYS_pwritev2, append, &part, 1, 0, 0, 0));
    say!("all: {}", contents(c"f"));
    let [reader, writer] = pipe();
    say!("RWF_NOWAIT, empty pipe: {}", sys!(SYS_preadv2, reader, &part, 1, -1i64, 0, RWF_NOWAIT));
    write(writer, "xy");
    say!("RWF_NOWAIT, full: {}", sys!(SYS_preadv2, reader, &part, 1, -1i64, 0, RWF_NOWAIT));
}

fn file_size_limit() {
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

fn far_offsets() {
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

fn seek() {
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

fn holes() {
    show_holes(create(c"f", ""));
}

fn holes_in_tmpfs() {
    show_holes(create(c"/tmp/contract.holes", ""));
    unlink(c"/tmp/contract.holes");
    show_holes(sys!(SYS_memfd_create, c"m", 0).fd());
    say!("of a device: {}", sys!(SYS_lseek, 0, 0, SEEK_DATA).ok_or_error());
    let [reader, _] = pipe();
    say!("of a pipe: {}", sys!(SYS_lseek, reader, 0, SEEK_HOLE));
}

fn truncate() {
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

fn truncate_refused() {
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

fn sparse() {
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

fn allocate() {
    show_allocate(create(c"f", ""));
    let reader = open(c"f", O_RDONLY).fd();
    say!("a reader: {}", sys!(SYS_fallocate, reader, 0, 0, 10));
    say!("a directory: {}", sys!(SYS_fallocate, open(c".", O_RDONLY).fd(), 0, 0, 10));
    say!("a pipe: {} {}", sys!(SYS_fallocate, pipe()[1], 0, 0, 10), sys!(SYS_fallocate, pipe()[0], 0, 0, 10));
    say!("a device: {}", sys!(SYS_fallocate, open(c"/dev/null", O_WRONLY).fd(), 0, 0, 10));
    say!("closed: {} {}", sys!(SYS_fallocate, 60, 0, 0, 10), sys!(SYS_fallocate, 60, 0x100, -1, 10));
}

fn allocate_in_tmpfs() {
    let fd = create(c"/tmp/contract.allocate", "");
    show_allocate(fd);
    sys!(SYS_ftruncate, fd, 0);
    sys!(SYS_fallocate, fd, 0, 0, 16_384);
    say!("blocks: {}", fstat(fd).map_or(0, |stat| stat.st_blocks));
    sys!(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 8192);
    say!("with a hole: {}", fstat(fd).map_or(0, |stat| stat.st_blocks));
    unlink(c"/tmp/contract.allocate");
}

fn range(in_fd: i32, in_at: Option<&mut i64>, out_fd: i32, out_at: Option<&mut i64>, length: usize) -> Ret {
    let pointer = |at: Option<&mut i64>| at.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    sys!(SYS_copy_file_range, in_fd, pointer(in_at), out_fd, pointer(out_at), length, 0)
}

fn copy_range() {
    let from = create(c"from", "0123456789");
    let to = create(c"to", "");
    say!("all: {} {}", range(from, None, to, None, 10), contents(c"to"));
    say!("offsets: {} {}", sys!(SYS_lseek, from, 0, SEEK_CUR), sys!(SYS_lseek, to, 0, SEEK_CUR));
    say!("at the end: {}", range(from, None, to, None, 10));
    let (mut a, mut b) = (2, 20);
    say!("with offsets: {}", range(from, Some(&mut a), to, Some(&mut b), 5));
    say!("they move: {a} {b}, the file's do not: {}", sys!(SYS_lseek, from, 0, SEEK_CUR));
    say!("all: {}", contents(c"to"));
    let mut a = 8;
    say!("less than asked: {} {a}", range(from, Some(&mut a), to, None, 100));
    let mut a = 100;
    say!("behind the end: {} {a}", range(from, Some(&mut a), to, None, 100));
    say!("nothing: {}", range(from, None, to, None, 0));
    let (mut a, mut b) = (0, 5);
    say!("within one file: {}", range(from, Some(&mut a), from, Some(&mut b), 5));
    say!("it: {}", contents(c"from"));
    let (mut a, mut b) = (0, 3);
    say!("overlapping: {}", range(from, Some(&mut a), from, Some(&mut b), 5));
    let big = create(c"big", &"b".repeat(100_000));
    let copy = create(c"copy", "");
    say!("big: {} {}", range(big, None, copy, None, 200_000), size(copy));
    say!("in tmpfs: {}", {
        let (from, to) = (create(c"/tmp/contract.from", "tmpfs"), create(c"/tmp/contract.to", ""));
        format!("{} {}", range(from, None, to, None, 10), contents(c"/tmp/contract.to"))
    });
    unlink(c"/tmp/contract.from");
    unlink(c"/tmp/contract.to");
}

fn copy_range_refused() {
    let from = create(c"from", "0123456789");
    let to = create(c"to", "");
    let reader = open(c"to", O_RDONLY).fd();
    let writer = open(c"from", O_WRONLY).fd();
    let append = open(c"to", O_WRONLY | O_APPEND).fd();
    let directory = open(c".", O_RDONLY).fd();
    let [pipe_reader, pipe_writer] = pipe();
    say!("from a writer: {}", range(writer, None, to, None, 5));
    say!("to a reader: {}", range(from, None, reader, None, 5));
    say!("to O_APPEND: {}", range(from, None, append, None, 5));
    say!("from a directory: {}", range(directory, None, to, None, 5));
    say!("from a pipe: {}", range(pipe_reader, None, to, None, 5));
    say!("to a pipe: {}", range(from, None, pipe_writer, None, 5));
    say!("from /dev/zero: {}", range(open(c"/dev/zero", O_RDONLY).fd(), None, to, None, 5));
    say!("closed: {} {}", range(60, None, to, None, 5), range(from, None, 60, None, 5));
    say!("flags: {}", sys!(SYS_copy_file_range, from, 0, to, 0, 5, 1));
    let mut negative = -1;
    say!("negative: {}", range(from, Some(&mut negative), to, None, 5));
    say!("bad pointer: {}", sys!(SYS_copy_file_range, from, NOWHERE, to, 0, 5, 0));
    say!("bad pointer of closed ones: {}", sys!(SYS_copy_file_range, 60, NOWHERE, 61, 0, 5, 0));
    let other = create(c"/tmp/contract.other", "");
    say!("to another file system: {}", range(from, None, other, None, 5));
    unlink(c"/tmp/contract.other");
}

fn send_file() {
    let from = create(c"from", "0123456789");
    let to = create(c"to", "");
    let [reader, writer] = pipe();
    say!("to a pipe: {} {}", sys!(SYS_sendfile, writer, from, 0, 4), read(reader, 10));
    say!("offset: {}", sys!(SYS_lseek, from, 0, SEEK_CUR));
    let mut at = 7i64;
    say!("from an offset: {} {at} {}", sys!(SYS_sendfile, to, from, &mut at, 100), contents(c"to"));
    say!("offset: {}", sys!(SYS_lseek, from, 0, SEEK_CUR));
    say!("at the end: {}", sys!(SYS_sendfile, to, from, &mut at, 100));
    say!("nothing: {}", sys!(SYS_sendfile, to, from, 0, 0));
    let mut at = -1i64;
    say!("negative: {}", sys!(SYS_sendfile, to, from, &mut at, 4));
    say!("bad pointer: {}", sys!(SYS_sendfile, to, from, NOWHERE, 4));
    say!("from a pipe: {}", sys!(SYS_sendfile, to, reader, 0, 4));
    let mut at = 0i64;
    say!("from a pipe with an offset: {}", sys!(SYS_sendfile, to, reader, &mut at, 4));
    say!("to O_APPEND: {}", sys!(SYS_sendfile, open(c"to", O_WRONLY | O_APPEND).fd(), from, 0, 4));
    say!("to a reader: {}", sys!(SYS_sendfile, open(c"to", O_RDONLY).fd(), from, 0, 4));
    say!("from a writer: {}", sys!(SYS_sendfile, to, open(c"from", O_WRONLY).fd(), 0, 4));
    say!("closed: {} {}", sys!(SYS_sendfile, 60, from, 0, 4), sys!(SYS_sendfile, to, 60, 0, 4));
    say!("from a directory: {}", sys!(SYS_sendfile, to, open(c".", O_RDONLY).fd(), 0, 4));
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &mut pair);
    let mut at = 0i64;
    say!("to a socket: {} {}", sys!(SYS_sendfile, pair[0], from, &mut at, 10), read(pair[1], 20));
}

fn splice(in_fd: i32, in_at: *mut i64, out_fd: i32, out_at: *mut i64, length: usize, flags: u32) -> Ret {
    sys!(SYS_splice, in_fd, in_at, out_fd, out_at, length, flags)
}

fn splice_moves() {
    let none = std::ptr::null_mut();
    let from = create(c"from", "0123456789");
    let to = create(c"to", "");
    let [reader, writer] = pipe();
    say!("file to pipe: {}", splice(from, none, writer, none, 4, 0));
    say!("offset: {}", sys!(SYS_lseek, from, 0, SEEK_CUR));
    say!("pipe to file: {} {}", splice(reader, none, to, none, 100, 0), contents(c"to"));
    let mut at = 8i64;
    say!("from an offset: {} {at}", splice(from, &mut at, writer, none, 100, 0));
    let mut at = 6i64;
    say!("to an offset: {} {at}", splice(reader, none, to, &mut at, 100, 0));
    say!("it: {}", contents(c"to"));
    say!("at the end of the file: {}", splice(from, std::ptr::from_mut(&mut 10i64), writer, none, 5, 0));
    let [reader2, writer2] = pipe();
    write(writer, "through");
    say!("pipe to pipe: {} {}", splice(reader, none, writer2, none, 4, 0), read(reader2, 10));
    say!("left: {}", read(reader, 10));
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &mut pair);
    write(writer, "socket");
    say!("pipe to socket: {} {}", splice(reader, none, pair[0], none, 6, 0), read(pair[1], 10));
    write(pair[1], "back");
    say!("socket to pipe: {} {}", splice(pair[0], none, writer, none, 10, 0), read(reader, 10));
    write(writer, "null");
    let null = open(c"/dev/null", O_WRONLY).fd();
    say!("pipe to /dev/null: {}", splice(reader, none, null, none, 10, 0));
    close(writer);
    say!("at the end of the pipe: {}", splice(reader, none, to, none, 10, 0));
    close(reader2);
    signal::handle(SIGPIPE, signal::count, 0);
    say!("to a pipe that nobody reads: {} signals {}", splice(from, none, writer2, none, 4, 0), signal::caught());
}

fn splice_refused() {
    let none = std::ptr::null_mut();
    let file = create(c"f", "0123456789");
    let [reader, writer] = pipe();
    let mut at = 0i64;
    write(writer, "contents");
    say!("file to file: {}", splice(file, none, create(c"g", ""), none, 4, 0));
    say!(
        "offset of a pipe: {} {}",
        splice(reader, &mut at, file, none, 4, 0),
        splice(file, none, writer, &mut at, 4, 0)
    );
    say!("a pipe to itself: {}", splice(reader, none, writer, none, 4, 0));
    say!("unknown flag: {}", splice(reader, none, file, none, 4, 0x100));
    say!("nothing: {}", splice(60, none, 61, none, 0, 0));
    say!("closed: {} {}", splice(60, none, writer, none, 4, 0), splice(reader, none, 60, none, 4, 0));
    say!("wrong ends: {} {}", splice(writer, none, file, none, 4, 0), splice(file, none, reader, none, 4, 0));
    say!("to O_APPEND: {}", splice(reader, none, open(c"f", O_WRONLY | O_APPEND).fd(), none, 4, 0));
    say!("to a reader: {}", splice(reader, none, open(c"f", O_RDONLY).fd(), none, 4, 0));
    say!("bad pointer: {}", splice(file, NOWHERE.cast(), writer, none, 4, 0));
    let mut at = -5i64;
    say!("negative: {}", splice(file, &mut at, writer, none, 4, 0));
    let [empty, _keep] = pipe();
    say!("empty, not to wait: {}", splice(empty, none, file, none, 4, SPLICE_F_NONBLOCK));
    sys!(SYS_fcntl, empty, F_SETFL, O_NONBLOCK);
    say!("empty, O_NONBLOCK: {}", splice(empty, none, file, none, 4, 0));
    say!("a directory: {}", splice(open(c".", O_RDONLY).fd(), none, writer, none, 4, 0));
    let mut at = 0i64;
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &mut pair);
    say!("offset of a socket: {}", splice(reader, none, pair[0], &mut at, 4, 0));
}

fn tee_copies() {
    let [reader, writer] = pipe();
    let [reader2, writer2] = pipe();
    write(writer, "doubled");
    say!("tee: {}", sys!(SYS_tee, reader, writer2, 4, 0));
    say!("copy: {}", read(reader2, 10));
    say!("more than there is: {} {}", sys!(SYS_tee, reader, writer2, 100, 0), read(reader2, 10));
    say!("the first still has it: {}", read(reader, 10));
    say!("empty, not to wait: {}", sys!(SYS_tee, reader, writer2, 4, SPLICE_F_NONBLOCK));
    say!("nothing: {}", sys!(SYS_tee, reader, writer2, 0, 0));
    say!("itself: {}", sys!(SYS_tee, reader, writer, 4, 0));
    say!("a file: {}", sys!(SYS_tee, create(c"f", "x"), writer2, 4, 0));
    say!("wrong ends: {}", sys!(SYS_tee, writer, reader2, 4, 0));
    say!("unknown flag: {}", sys!(SYS_tee, reader, writer2, 4, 0x100));
    say!("closed: {}", sys!(SYS_tee, 60, writer2, 4, 0));
    close(writer);
    say!("at the end: {}", sys!(SYS_tee, reader, writer2, 4, 0));
}

fn sync() {
    let fd = create(c"f", "x");
    let [reader, writer] = pipe();
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &mut pair);
    let directory = open(c".", O_RDONLY).fd();
    let memory = sys!(SYS_memfd_create, c"m", 0).fd();
    for (what, fd) in [
        ("file", fd),
        ("reader", open(c"f", O_RDONLY).fd()),
        ("directory", directory),
        ("pipe", writer),
        ("socket", pair[0]),
        ("memfd", memory),
        ("/dev/null", 0),
        ("/proc", open(c"/proc/self/stat", O_RDONLY).fd()),
        ("eventfd", sys!(SYS_eventfd2, 0, 0).fd()),
        ("closed", 60),
    ] {
        say!("{what}: fsync {}, fdatasync {}, syncfs {}", sys!(SYS_fsync, fd), sys!(SYS_fdatasync, fd), {
            sys!(SYS_syncfs, fd)
        });
    }
    let part = |fd: i32, offset: i64, length: i64, flags: u32| sys!(SYS_sync_file_range, fd, offset, length, flags);
    say!("sync_file_range: {} {} {}", part(fd, 0, 0, 0), part(fd, 0, 1, 2), part(fd, 0, 0, 7));
    say!("unknown flag: {}", part(fd, 0, 1, 8));
    say!("negative: {} {}", part(fd, -1, 1, 2), part(fd, 0, -1, 2));
    say!("overflow: {}", part(fd, i64::MAX, i64::MAX, 2));
    say!("a pipe: {}", part(reader, 0, 1, 2));
    say!("a directory: {}", part(directory, 0, 1, 2));
    say!("closed: {}", part(60, 0, 1, 2));
    say!("a reader: {}", part(open(c"f", O_RDONLY).fd(), 0, 1, 2));
    say!("sync: {}", sys!(SYS_sync));
}

fn advice() {
    let fd = create(c"f", "x");
    let call = |fd: i32, offset: i64, length: i64, advice: i32| sys!(SYS_fadvise64, fd, offset, length, advice);
    for advice in 0..=5 {
        say!("advice {advice}: {}", call(fd, 0, 0, advice));
    }
    say!("unknown: {} {}", call(fd, 0, 0, 6), call(fd, 0, 0, -1));
    say!("negative length: {}", call(fd, 0, -1, 0));
    say!("negative offset: {}", call(fd, -1, 1, 0));
    say!("a pipe: {}", call(pipe()[0], 0, 0, 0));
    say!("a pipe, unknown: {}", call(pipe()[0], 0, 0, 9));
    say!("/dev/null: {}", call(0, 0, 0, 0));
    say!("a directory: {}", call(open(c".", O_RDONLY).fd(), 0, 0, 0));
    say!("a memfd: {}", call(sys!(SYS_memfd_create, c"m", 0).fd(), 0, 0, 0));
    say!("closed: {}", call(60, 0, 0, 0));
    say!("readahead: {}", sys!(SYS_readahead, fd, 0, 4096));
    say!("of a pipe: {}", sys!(SYS_readahead, pipe()[0], 0, 4096));
    say!("of a writer: {}", sys!(SYS_readahead, open(c"f", O_WRONLY).fd(), 0, 4096));
    say!("of a directory: {}", sys!(SYS_readahead, open(c".", O_RDONLY).fd(), 0, 4096));
    say!("closed: {}", sys!(SYS_readahead, 60, 0, 4096));
}

fn direct() {
    close(create(c"f", &"d".repeat(8192)));
    let opened = open(c"f", O_RDWR | O_DIRECT);
    say!("open: {}", opened.ok_or_error());
    let fd = opened.fd();
    say!("flags: {}", sys!(SYS_fcntl, fd, F_GETFL, 0).0 & i64::from(O_DIRECT) != 0);
    let page = memory::pages(2);
    say!("aligned read: {}", sys!(SYS_pread64, fd, page, 4096, 0));
    say!("content: {}", memory::peek(page));
    say!("aligned write: {}", sys!(SYS_pwrite64, fd, page, 4096, 4096));
    say!("512: {}", sys!(SYS_pread64, fd, page, 512, 512));
    say!("read over the end: {}", sys!(SYS_pread64, fd, page, 8192, 4096));
    say!("read at the end: {}", sys!(SYS_pread64, fd, page, 4096, 8192));
    say!("odd offset: {}", sys!(SYS_pread64, fd, page, 4096, 1));
    say!("odd length: {}", sys!(SYS_pread64, fd, page, 100, 0));
    say!("odd address: {}", sys!(SYS_pread64, fd, page as usize + 1, 512, 0));
    say!("odd write: {}", sys!(SYS_pwrite64, fd, page, 100, 0));
    say!("seen by others: {}", contents(c"f").len());
    close(create(c"/tmp/contract.direct", ""));
    say!("tmpfs: {}", open(c"/tmp/contract.direct", O_RDWR | O_DIRECT));
    let tmp = open(c"/tmp/contract.direct", O_RDWR).fd();
    say!("F_SETFL there: {}", sys!(SYS_fcntl, tmp, F_SETFL, O_DIRECT));
    unlink(c"/tmp/contract.direct");
    say!("/dev/null: {}", open(c"/dev/null", O_RDWR | O_DIRECT));
    say!("a directory: {}", open(c".", O_RDONLY | O_DIRECT));
}

fn shared_offsets() {
    let fd = create(c"f", "0123456789");
    let twin = sys!(SYS_dup, fd).fd();
    say!("read, and read by its dup: {} {}", read(fd, 2), read(twin, 2));
    process::in_child(|| {
        read(fd, 2);
        0
    });
    say!("after a child has read: {}", read(fd, 2));
    let other = open(c"f", O_RDONLY).fd();
    say!("another opening: {}", read(other, 2));
    let again = open(&path(format!("/proc/self/fd/{fd}")), O_RDONLY).fd();
    say!("opened through /proc: {}", read(again, 2));
    close(twin);
    say!("after the dup is closed: {}", read(fd, 9));
    let writer = open(c"f", O_WRONLY | O_APPEND).fd();
    say!("append: {} {}", write(writer, "a"), sys!(SYS_lseek, writer, 0, SEEK_CUR));
    say!("append of another: {}", write(open(c"f", O_WRONLY | O_APPEND).fd(), "b"));
    say!("append again: {} {}", write(writer, "c"), sys!(SYS_lseek, writer, 0, SEEK_CUR));
    say!("all: {}", contents(c"f"));
}

fn devices() {
    let full = open(c"/dev/full", O_RDWR).fd();
    say!("/dev/full: write {}, of nothing {}, read {}", write(full, "x"), write(full, ""), read(full, 2));
    let zero = open(c"/dev/zero", O_RDWR).fd();
    say!("/dev/zero: write {}, read {}", write(zero, "abc"), read(zero, 3));
    let null = open(c"/dev/null", O_RDWR).fd();
    say!("/dev/null: write {}, read {}", write(null, "abc"), read(null, 3));
    say!("bad buffers: {} {}", sys!(SYS_write, null, NOWHERE, 5), sys!(SYS_write, zero, NOWHERE, 5));
    say!("bad buffers: {} {}", sys!(SYS_read, zero, NOWHERE, 5), sys!(SYS_write, full, NOWHERE, 5));
    let map = memory::map(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, zero, 0).need() as *mut u8;
    memory::poke(map, 1);
    say!("/dev/zero mapped: {} {}", memory::peek(map), memory::peek(map.wrapping_add(1)));
    let shared = memory::map(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, zero, 0).need() as *mut u8;
    process::in_child(|| {
        memory::poke(shared, 7);
        0
    });
    say!("/dev/zero mapped and shared: {}", memory::peek(shared));
    say!("/dev/null mapped: {}", memory::map(PAGE, PROT_READ, MAP_PRIVATE, null, 0).ok_or_error());
    let random = open(c"/dev/urandom", O_RDWR).fd();
    say!("/dev/urandom: read {}, write {}", sys!(SYS_read, random, map, 100), write(random, "seed"));
    say!("ioctls: {} {}", sys!(SYS_ioctl, null, TCGETS, map), sys!(SYS_ioctl, zero, FIONREAD, map));
    say!("of a file: {}", sys!(SYS_ioctl, create(c"f", ""), TCGETS, map));
}

fn directories_and_others() {
    let directory = open(c".", O_RDONLY).fd();
    let only_path = open(c".", O_PATH).fd();
    let mut byte = [0u8; 8];
    let part = [iovec_of(&mut byte)];
    say!("directory: read {}, readv {}", sys!(SYS_read, directory, &mut [0u8; 1], 1), {
        sys!(SYS_readv, directory, &part, 1)
    });
    say!("directory: read of nothing {}", sys!(SYS_read, directory, NOWHERE, 0));
    say!("directory: write {}", write(directory, "x"));
    say!("O_PATH: read {}, seek {}", read(only_path, 1), sys!(SYS_lseek, only_path, 0, SEEK_SET));
    let epoll = sys!(SYS_epoll_create1, 0).fd();
    say!("epoll: read {}, write {}", read(epoll, 1), write(epoll, "x"));
    let timer = sys!(SYS_timerfd_create, CLOCK_MONOTONIC, 0).fd();
    say!("timerfd: write {}, short read {}", write(timer, "12345678"), read(timer, 4));
    let event = sys!(SYS_eventfd2, 0, EFD_NONBLOCK).fd();
    say!("eventfd: short write {}, short read {}, empty {}", write(event, "1234567"), read(event, 7), read(event, 8));
    let mut socket = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_DGRAM, 0, &mut socket);
    say!("datagrams: {} {} {}", write(socket[0], "first"), write(socket[0], "second"), read(socket[1], 3));
    say!("the rest is gone: {}", read(socket[1], 10));
    let stat: libc::stat = zeroed();
    let name: &CStr = c"/proc/self/comm";
    let fd = open(name, O_RDWR).fd();
    say!("/proc/self/comm: {} {}", write(fd, "renamed"), contents(name).trim());
    say!("size: {}", fstat(fd).unwrap_or(stat).st_size);
}
