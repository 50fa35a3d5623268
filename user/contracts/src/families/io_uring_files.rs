//! io_uring: reading, writing, and what else is done to files.

use libc::*;

use crate::file::{close, contents, create, open, pipe, pipe_with, read, write};
use crate::ring::*;
use crate::sys::{NOWHERE, sys};
use crate::{memory, say, signal, tests};

tests! {
    reads_and_writes, offsets, vectors, wrong_transfers, nonblocking_pipe, pipe_waits, splices, file_operations,
    names,
}

fn reads_and_writes() {
    let ring = Ring::new(4, 0);
    let fd = create(c"f", "0123456789");
    let mut buffer = [0; 4];
    for _ in 0..4 {
        ring.submit(&[read_into(fd, &mut buffer, 1)], 1);
        say!("read: {}", ring.take_text(&buffer));
    }
    say!("write: {}", ring.run(&[write_from(fd, "end", 2)]));
    say!("{}", contents(c"f"));
    let [reader, writer] = pipe();
    say!("to a pipe: {}", ring.run(&[write_from(writer, "through", 3)]));
    ring.submit(&[read_into(reader, &mut buffer, 4)], 1);
    say!("from it: {}", ring.take_text(&buffer));
    let null = open(c"/dev/null", O_RDWR).fd();
    say!("null: {} {}", ring.run(&[write_from(null, "x", 5)]), ring.run(&[read_into(null, &mut buffer, 6)]));
    let zero = open(c"/dev/zero", O_RDWR).fd();
    say!("zero: {}", ring.run(&[read_into(zero, &mut buffer, 7)]));
    say!("a directory: {}", ring.run(&[read_into(open(c".", O_RDONLY).fd(), &mut buffer, 8)]));
}

fn offsets() {
    let ring = Ring::new(4, 0);
    let fd = create(c"f", "0123456789");
    let mut buffer = [0; 4];
    ring.submit(&[Sqe { off: 3, ..read_into(fd, &mut buffer, 1) }], 1);
    say!("at 3: {}", ring.take_text(&buffer));
    say!("the position: {}", sys!(SYS_lseek, fd, 0, SEEK_CUR));
    say!("write at 8: {}", ring.run(&[Sqe { off: 8, ..write_from(fd, "abcd", 2) }]));
    say!("{}", contents(c"f"));
    say!("beyond: {}", ring.run(&[Sqe { off: 100, ..read_into(fd, &mut buffer, 3) }]));
    say!("negative: {}", ring.run(&[Sqe { off: -2i64 as u64, ..read_into(fd, &mut buffer, 4) }]));
    let [reader, writer] = pipe();
    write(writer, "pipe");
    ring.submit(&[Sqe { off: 50, ..read_into(reader, &mut buffer, 5) }], 1);
    say!("of a pipe: {}", ring.take_text(&buffer));
    let append = open(c"f", O_WRONLY | O_APPEND).fd();
    say!("with O_APPEND: {}", ring.run(&[Sqe { off: 0, ..write_from(append, "!", 6) }]));
    say!("{}", contents(c"f"));
    say!("RWF_APPEND: {}", ring.run(&[Sqe { off: 0, op_flags: 16, ..write_from(fd, "?", 7) }]));
    say!("{}", contents(c"f"));
    say!("unknown RWF: {}", ring.run(&[Sqe { op_flags: 1 << 20, ..write_from(fd, "?", 8) }]));
    say!("RWF_SYNC: {}", ring.run(&[Sqe { op_flags: 4, off: 0, ..write_from(fd, "s", 9) }]));
}

fn vectors() {
    let ring = Ring::new(4, 0);
    let fd = create(c"f", "0123456789");
    let mut buffers = [[0u8; 3]; 3];
    let iov: Vec<iovec> = buffers.iter_mut().map(|b| iovec { iov_base: b.as_mut_ptr().cast(), iov_len: 3 }).collect();
    let readv = Sqe { fd, addr: iov.as_ptr() as u64, len: 3, off: 0, ..entry(op::READV, 1) };
    say!("readv: {} {buffers:?}", ring.run(&[readv]));
    let writev = Sqe { opcode: op::WRITEV, off: 5, user_data: 2, ..readv };
    say!("writev: {}", ring.run(&[writev]));
    say!("{}", contents(c"f"));
    say!("too many: {}", ring.run(&[Sqe { len: 1025, ..readv }]));
    say!("a bad list: {}", ring.run(&[Sqe { addr: NOWHERE as u64, ..readv }]));
    say!("none: {}", ring.run(&[Sqe { len: 0, ..readv }]));
}

fn wrong_transfers() {
    let ring = Ring::new(4, 0);
    let fd = create(c"f", "0123456789");
    let mut buffer = [0; 4];
    let only_write = open(c"f", O_WRONLY).fd();
    say!("not for reading: {}", ring.run(&[read_into(only_write, &mut buffer, 1)]));
    say!("not for writing: {}", ring.run(&[write_from(open(c"f", O_RDONLY).fd(), "x", 2)]));
    say!("bad address: {}", ring.run(&[Sqe { addr: NOWHERE as u64, ..read_into(fd, &mut buffer, 3) }]));
    say!("O_PATH: {}", ring.run(&[read_into(open(c"f", O_PATH).fd(), &mut buffer, 4)]));
    say!("a registered file: {}", ring.run(&[read_into(0, &mut buffer, 5).with(FIXED_FILE)]));
    say!("a registered buffer: {}", ring.run(&[Sqe { opcode: op::READ_FIXED, ..read_into(fd, &mut buffer, 6) }]));
    signal::ignore(SIGPIPE);
    let [reader, writer] = pipe();
    close(reader);
    say!("nobody reads: {}", ring.run(&[write_from(writer, "x", 7)]));
    let event = sys!(SYS_eventfd2, 0, 0).fd();
    say!("too short for an eventfd: {}", ring.run(&[read_into(event, &mut buffer, 8)]));
    say!("priority: {}", ring.run(&[Sqe { ioprio: 5 << 13, ..read_into(fd, &mut buffer, 9) }]));
}

fn nonblocking_pipe() {
    let ring = Ring::new(4, 0);
    let [reader, writer] = pipe_with(O_NONBLOCK);
    let mut buffer = [0; 4];
    say!("{} {}", ring.submit(&[read_into(reader, &mut buffer, 1)], 0), ring.shown());
    write(writer, "abcd");
    ring.wait(1);
    say!("waits all the same: {}", ring.take_text(&buffer));
    close(writer);
    say!("the end: {}", ring.run(&[read_into(reader, &mut buffer, 2)]));
}

fn pipe_waits() {
    let ring = Ring::new(4, 0);
    let [reader, writer] = pipe();
    let (mut first, mut second) = ([0; 4], [0; 4]);
    ring.submit(&[read_into(reader, &mut first, 1), read_into(reader, &mut second, 2)], 0);
    say!("both wait: {}", ring.shown());
    write(writer, "abcd");
    ring.wait(1);
    let done = ring.all();
    say!("one is done: {}", done.len());
    close(writer);
    ring.wait(1);
    say!("the other sees the end: {:?}", ring.all().iter().map(|cqe| cqe.res).collect::<Vec<_>>());
    let event = sys!(SYS_eventfd2, 0, 0).fd();
    let mut count = [0; 8];
    ring.submit(&[read_into(event, &mut count, 3)], 0);
    sys!(SYS_write, event, &5u64, 8);
    say!("eventfd: {} {} {count:?}", ring.wait(1), ring.shown());
}

fn splices() {
    let ring = Ring::new(4, 0);
    let [reader, writer] = pipe();
    let [second, into] = pipe();
    let fd = create(c"f", "0123456789");
    let splice = |input: i32, in_off: u64, output: i32, out_off: u64, len: u32| Sqe {
        fd: output,
        file_index: input as u32,
        addr: in_off,
        off: out_off,
        len,
        ..entry(op::SPLICE, 1)
    };
    say!("from a file: {}", ring.run(&[splice(fd, 2, writer, HERE, 5)]));
    let tee = Sqe { addr: 0, off: 0, opcode: op::TEE, ..splice(reader, 0, into, 0, 3) };
    say!("tee: {}", ring.run(&[tee]));
    say!("{} {}", read(second, 10), read(reader, 10));
    say!("files only: {}", ring.run(&[splice(fd, 0, fd, 0, 5)]));
    say!("flags: {}", ring.run(&[Sqe { op_flags: 64, ..splice(fd, 2, writer, HERE, 5) }]));
    say!("closed: {}", ring.run(&[splice(99, HERE, writer, HERE, 5)]));
    write(writer, "back");
    say!("to a file: {}", ring.run(&[splice(reader, HERE, fd, 0, 4)]));
    say!("{}", contents(c"f"));
    say!("nothing: {}", ring.run(&[splice(reader, HERE, fd, 0, 0)]));
}

fn file_operations() {
    let ring = Ring::new(4, 0);
    let path = c"f".as_ptr() as u64;
    let how = (O_CREAT | O_RDWR) as u32;
    say!(
        "openat: {}",
        ring.run(&[Sqe { fd: AT_FDCWD, addr: path, len: 0o640, op_flags: how, ..entry(op::OPENAT, 1) }])
    );
    say!("nothing there: {}", ring.run(&[Sqe { fd: AT_FDCWD, addr: c"none".as_ptr() as u64, ..entry(op::OPENAT, 2) }]));
    say!("bad path: {}", ring.run(&[Sqe { fd: AT_FDCWD, addr: NOWHERE as u64, ..entry(op::OPENAT, 3) }]));
    let request = [O_RDONLY as u64, 0, 0];
    let open2 = Sqe { fd: AT_FDCWD, addr: path, off: request.as_ptr() as u64, len: 24, ..entry(op::OPENAT2, 4) };
    say!("openat2: {} too short: {}", ring.run(&[open2]), ring.run(&[Sqe { len: 8, ..open2 }]));
    let fd = open(c"f", O_RDWR).fd();
    say!("write: {}", ring.run(&[write_from(fd, "hello", 5)]));
    say!(
        "fsync: {} data: {}",
        ring.run(&[Sqe { fd, ..entry(op::FSYNC, 6) }]),
        ring.run(&[Sqe { fd, op_flags: 1, ..entry(op::FSYNC, 7) }])
    );
    say!("sync range: {}", ring.run(&[Sqe { fd, len: 5, op_flags: 2, ..entry(op::SYNC_FILE_RANGE, 8) }]));
    say!("fadvise: {}", ring.run(&[Sqe { fd, op_flags: 2, ..entry(op::FADVISE, 9) }]));
    say!("bad advice: {}", ring.run(&[Sqe { fd, op_flags: 77, ..entry(op::FADVISE, 10) }]));
    let area = memory::pages(1);
    memory::poke(area, 7);
    say!(
        "madvise: {}",
        ring.run(&[Sqe { addr: area as u64, len: 4096, op_flags: MADV_DONTNEED as u32, ..entry(op::MADVISE, 11) }])
    );
    say!("zero: {}", memory::peek(area));
    let mut status = [0u64; 32];
    let statx = Sqe { fd: AT_FDCWD, addr: path, len: 0x7ff, off: status.as_mut_ptr() as u64, ..entry(op::STATX, 12) };
    say!("statx: {} size {}", ring.run(&[statx]), status[5]);
    say!(
        "close: {} twice: {}",
        ring.run(&[Sqe { fd, ..entry(op::CLOSE, 13) }]),
        ring.run(&[Sqe { fd, ..entry(op::CLOSE, 14) }])
    );
    say!("close of the ring: {}", ring.run(&[Sqe { fd: ring.fd, ..entry(op::CLOSE, 15) }]));
    let memfd = sys!(SYS_memfd_create, c"m", 0).fd();
    say!("fallocate: {}", ring.run(&[Sqe { fd: memfd, addr: 10_000, ..entry(op::FALLOCATE, 16) }]));
    say!("its size: {}", sys!(SYS_lseek, memfd, 0, SEEK_END));
    let [reader, _] = pipe();
    say!("fsync of a pipe: {}", ring.run(&[Sqe { fd: reader, ..entry(op::FSYNC, 17) }]));
}

fn names() {
    let ring = Ring::new(4, 0);
    let [f, g, d, s, l] = [c"f", c"g", c"d", c"s", c"l"].map(|path| path.as_ptr() as u64);
    create(c"f", "content");
    let at = |opcode: u8, addr: u64| Sqe { fd: AT_FDCWD, addr, ..entry(opcode, 1) };
    say!(
        "mkdir: {} twice: {}",
        ring.run(&[Sqe { len: 0o755, ..at(op::MKDIRAT, d) }]),
        ring.run(&[Sqe { len: 0o755, ..at(op::MKDIRAT, d) }])
    );
    say!("symlink: {}", ring.run(&[Sqe { off: s, ..at(op::SYMLINKAT, f) }]));
    say!("link: {}", ring.run(&[Sqe { off: l, len: AT_FDCWD as u32, ..at(op::LINKAT, f) }]));
    say!("rename: {}", ring.run(&[Sqe { off: g, len: AT_FDCWD as u32, ..at(op::RENAMEAT, f) }]));
    say!("{} {}", contents(c"g"), contents(c"l"));
    say!("link is dangling: {}", contents(c"s"));
    say!("unlink: {} {}", ring.run(&[at(op::UNLINKAT, g)]), ring.run(&[at(op::UNLINKAT, d)]));
    say!("rmdir: {}", ring.run(&[Sqe { op_flags: AT_REMOVEDIR as u32, ..at(op::UNLINKAT, d) }]));
    let mut left: Vec<String> =
        std::fs::read_dir(".").into_iter().flatten().flatten().map(|e| e.file_name().display().to_string()).collect();
    left.sort();
    say!("left: {left:?}");
}
