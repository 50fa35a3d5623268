//! Moving data between files inside the kernel.

use libc::*;

use super::size;
use crate::file::{close, contents, create, open, pipe, read, unlink, write};
use crate::sys::{NOWHERE, Ret, sys};
use crate::{say, signal};

fn range(in_fd: i32, in_at: Option<&mut i64>, out_fd: i32, out_at: Option<&mut i64>, length: usize) -> Ret {
    let pointer = |at: Option<&mut i64>| at.map_or(std::ptr::null_mut(), std::ptr::from_mut);
    sys!(SYS_copy_file_range, in_fd, pointer(in_at), out_fd, pointer(out_at), length, 0)
}

pub(super) fn copy_range() {
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

pub(super) fn copy_range_refused() {
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

pub(super) fn send_file() {
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

pub(super) fn splice_moves() {
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

pub(super) fn splice_refused() {
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

pub(super) fn tee_copies() {
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
