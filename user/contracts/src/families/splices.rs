//! splice, tee and vmsplice with packets; sizes of pipes.

use libc::*;

use crate::file::{close, create, pipe, pipe_with, read, write};
use crate::process;
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    packets_to_a_pipe, part_of_a_packet, packets_to_a_file, packets_to_a_socket, packets_by_tee, bytes_to_a_packet_pipe,
    bytes_and_packets, file_to_a_packet_pipe, memory_to_a_packet_pipe, memory_from_packets, packets_and_room, many_packets,
    sizes, sizes_with_content, sizes_with_packets, socket_to_a_pipe, file_to_a_full_pipe,
}

fn splice(from: i32, to: i32, length: usize) -> Ret {
    sys!(SYS_splice, from, 0, to, 0, length, SPLICE_F_NONBLOCK)
}

fn tee(from: i32, to: i32, length: usize) -> Ret {
    sys!(SYS_tee, from, to, length, SPLICE_F_NONBLOCK)
}

fn inside(fd: i32) -> i32 {
    let mut count = -1i32;
    sys!(SYS_ioctl, fd, FIONREAD, &mut count);
    count
}

/// Reads of up to 100 bytes until nothing is left.
fn all(fd: i32) -> String {
    let mut pieces = Vec::new();
    while inside(fd) > 0 {
        pieces.push(read(fd, 100));
    }
    format!("{pieces:?}").replace("\\\"", "")
}

fn three_packets() -> [i32; 2] {
    let [reader, writer] = pipe_with(O_DIRECT | O_NONBLOCK);
    for text in ["one", "two", "three"] {
        write(writer, text);
    }
    [reader, writer]
}

fn packets_to_a_pipe() {
    let [from, _writer] = three_packets();
    let [reader, to] = pipe_with(O_NONBLOCK);
    say!("all: {} {}", splice(from, to, 1000), all(reader));
    let [from, _writer] = three_packets();
    say!("one and a half: {} {}", splice(from, to, 5), all(reader));
    say!("what stays: {}", all(from));
    write(to, "bytes");
    let [from, _writer] = three_packets();
    say!("behind bytes: {}", splice(from, to, 1000));
    write(to, "more");
    write(to, " bytes");
    say!("and before: {}", all(reader));
}

fn part_of_a_packet() {
    let [from, writer] = pipe_with(O_DIRECT | O_NONBLOCK);
    let [reader, to] = pipe_with(O_NONBLOCK);
    write(writer, "packet");
    say!("a part: {} {}", splice(from, to, 2), read(reader, 1));
    say!("its rest there: {} {}", inside(reader), read(reader, 10));
    say!("its rest here: {}", read(from, 2));
    say!("then: {}", read(from, 10));
}

fn packets_to_a_file() {
    let [from, _writer] = three_packets();
    let file = create(c"f", "");
    say!("all: {}", splice(from, file, 1000));
    sys!(SYS_lseek, file, 0, SEEK_SET);
    say!("read: {}", read(file, 100));
    let [from, _writer] = three_packets();
    say!("a part: {} {}", splice(from, file, 5), all(from));
}

fn packets_to_a_socket() {
    let [from, _writer] = three_packets();
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &mut pair).need();
    say!("all: {} {}", splice(from, pair[0], 1000), read(pair[1], 100));
}

fn packets_by_tee() {
    let [from, _writer] = three_packets();
    let [reader, to] = pipe_with(O_NONBLOCK);
    say!("all: {} {}", tee(from, to, 1000), all(reader));
    say!("a part: {} {}", tee(from, to, 5), all(reader));
    say!("they stay: {}", all(from));
}

fn bytes_to_a_packet_pipe() {
    let [from, writer] = pipe_with(O_NONBLOCK);
    let [reader, to] = pipe_with(O_DIRECT | O_NONBLOCK);
    write(writer, "some");
    say!("bytes: {}", splice(from, to, 1000));
    write(writer, " bytes");
    say!("bytes: {}", splice(from, to, 1000));
    write(to, "packet");
    say!("come as: {}", all(reader));
}

fn bytes_and_packets() {
    let [from, writer] = pipe_with(O_NONBLOCK);
    let [reader, to] = pipe_with(O_NONBLOCK);
    write(writer, &"p".repeat(4096));
    sys!(SYS_fcntl, writer, F_SETFL, O_DIRECT | O_NONBLOCK);
    write(writer, "packet");
    sys!(SYS_fcntl, writer, F_SETFL, O_NONBLOCK);
    write(writer, "bytes");
    say!("moved: {}", splice(from, to, 10_000));
    say!("bytes: {}", read(reader, 4096).len() - 2);
    say!("then: {}", all(reader));
}

fn file_to_a_packet_pipe() {
    let file = create(c"f", "contents of the file");
    let [reader, to] = pipe_with(O_DIRECT | O_NONBLOCK);
    say!("moved: {}", splice(file, to, 8));
    say!("moved: {}", splice(file, to, 100));
    say!("in parts: {} {}", read(reader, 5), read(reader, 100));
}

fn memory_to_a_packet_pipe() {
    let [reader, to] = pipe_with(O_DIRECT | O_NONBLOCK);
    let pieces = ["first", "second"].map(|text| iovec { iov_base: text.as_ptr() as *mut c_void, iov_len: text.len() });
    say!("moved: {}", sys!(SYS_vmsplice, to, &pieces, 2, SPLICE_F_NONBLOCK));
    say!("in parts: {} {}", read(reader, 3), read(reader, 100));
}

fn memory_from_packets() {
    let [from, _writer] = three_packets();
    let mut buffer = [b'.'; 8];
    let piece = iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: 8 };
    say!("moved: {}", sys!(SYS_vmsplice, from, &piece, 1, SPLICE_F_NONBLOCK));
    say!("{} and {}", String::from_utf8_lossy(&buffer), all(from));
}

fn packets_and_room() {
    let [from, writer] = pipe_with(O_DIRECT | O_NONBLOCK);
    let [reader, to] = pipe_with(O_NONBLOCK);
    sys!(SYS_fcntl, to, F_SETPIPE_SZ, 8192);
    for text in ["one", "two", "three"] {
        write(writer, text);
    }
    say!("room for two: {} {}", splice(from, to, 1000), inside(from));
    say!("for none: {}", splice(from, to, 1000));
    say!("by tee: {}", tee(from, to, 1000));
    say!("ready: {}", write(to, "x"));
    say!("read: {}", all(reader));
    say!("the last: {} {}", splice(from, to, 1000), all(reader));
}

fn many_packets() {
    let [from, writer] = pipe_with(O_DIRECT | O_NONBLOCK);
    let [reader, to] = pipe_with(O_NONBLOCK);
    let mut count = 0;
    while write(writer, "packet").ok() {
        count += 1;
    }
    say!("{count} packets: {}", splice(from, to, 100_000));
    let mut whole = 0;
    while inside(reader) > 0 {
        whole += i32::from(read(reader, 100) == "\"packet\"");
    }
    say!("come whole: {whole}");
}

fn set_size(fd: i32, bytes: i64) -> Ret {
    sys!(SYS_fcntl, fd, F_SETPIPE_SZ, bytes)
}

fn sizes() {
    let [reader, writer] = pipe();
    for bytes in [1 << 24, 1 << 28, (1 << 28) + 1, 1 << 29, 1 << 31, (1 << 31) + 1, 1 << 32, -1] {
        say!("{bytes}: {}", set_size(writer, bytes));
    }
    say!("now: {}", sys!(SYS_fcntl, reader, F_GETPIPE_SZ, 0));
    set_size(writer, 65536);
    process::as_plain_user(|| {
        let [_reader, writer] = pipe();
        for bytes in [1 << 20, (1 << 20) + 1, 1 << 24, 1 << 31, (1 << 31) + 1] {
            say!("a user, {bytes}: {}", set_size(writer, bytes));
        }
    });
}

fn sizes_with_content() {
    let [reader, writer] = pipe_with(O_NONBLOCK);
    let text: String = (0..12_000).map(|index| char::from(b'a' + (index / 7 % 26) as u8)).collect();
    let mut right = true;
    let mut position = 0;
    let mut check = |bytes: &[u8]| {
        right &= bytes == &text.as_bytes()[position..position + bytes.len()];
        position += bytes.len();
    };
    say!("written: {}", write(writer, &text));
    let mut buffer = vec![0u8; 12_000];
    let mut take = |length: usize| {
        let ret = sys!(SYS_read, reader, &mut buffer[..], length);
        check(&buffer[..ret.0.max(0) as usize]);
        ret
    };
    say!("too small: {}", set_size(writer, 8192));
    say!("small: {}", set_size(writer, 16384));
    say!("read: {}", take(5000));
    say!("smaller: {}", set_size(writer, 8192));
    say!("large: {}", set_size(writer, 1 << 20));
    say!("read: {}", take(2000));
    say!("small again: {}", set_size(writer, 8192));
    say!("the rest: {}", take(12_000));
    say!("all is right: {right}");
}

fn sizes_with_packets() {
    let [reader, writer] = three_packets();
    say!("too small: {} {}", set_size(writer, 4096), set_size(writer, 8192));
    say!("large enough: {}", set_size(writer, 12_288));
    say!("still packets: {}", all(reader));
}

fn socket_to_a_pipe() {
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, &mut pair).need();
    let [reader, to] = pipe_with(O_NONBLOCK);
    set_size(to, 4096);
    write(pair[1], "text");
    say!("moved: {} {}", splice(pair[0], to, 100), read(reader, 100));
    say!("nothing: {}", splice(pair[0], to, 100));
    write(to, &"f".repeat(4096));
    write(pair[1], "text");
    say!("full: {}", splice(pair[0], to, 100));
    say!("it stays there: {}", read(pair[0], 100));
    close(pair[1]);
    read(reader, 5000);
    say!("the end: {}", splice(pair[0], to, 100));
}

fn file_to_a_full_pipe() {
    let file = create(c"f", "contents");
    let [_reader, to] = pipe_with(O_NONBLOCK);
    set_size(to, 4096);
    write(to, &"f".repeat(4096));
    say!("full: {} {}", splice(file, to, 100), sys!(SYS_lseek, file, 0, SEEK_CUR));
}
