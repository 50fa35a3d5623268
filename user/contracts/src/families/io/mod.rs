//! Reading, writing, seeking and copying contents.

mod copies;
mod sizes;

use std::ffi::CStr;

use libc::*;

use self::copies::{copy_range, copy_range_refused, send_file, splice_moves, splice_refused, tee_copies};
use self::sizes::{
    allocate, allocate_in_tmpfs, far_offsets, file_size_limit, holes, holes_in_tmpfs, seek, sparse, truncate,
    truncate_refused,
};
use crate::file::{self, close, contents, create, fstat, open, path, pipe, read, read_at, unlink, write};
use crate::memory::{self, PAGE};
use crate::sys::{KERNEL, NOWHERE, sys, zeroed};
use crate::{process, say, tests};

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
