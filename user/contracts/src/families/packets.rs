//! Packets in pipes, and reads into memory that is not all there.

use libc::*;

use crate::file::{close, open, pipe_with, read, shown, write};
use crate::memory;
use crate::process;
use crate::sys::{Ret, sys};
use crate::{say, signal, tests};

tests! {
    flags, short_reads, long_writes, one_write_is_one, mixed_with_bytes, full, full_waits, capacity, at_the_end, bad_memory,
    bytes_and_bad_memory, pages_and_bad_memory, several_pieces_of_memory, of_two_writers, fifo,
}

fn flags_of(fd: i32) -> i64 {
    sys!(SYS_fcntl, fd, F_GETFL, 0).0
}

fn set(fd: i32, flags: i32) -> Ret {
    sys!(SYS_fcntl, fd, F_SETFL, flags)
}

fn ready(fd: i32) -> i16 {
    let mut entry = pollfd { fd, events: POLLIN | POLLOUT, revents: 0 };
    let now = timespec { tv_sec: 0, tv_nsec: 0 };
    sys!(SYS_ppoll, &mut entry, 1, &now, 0, 8);
    entry.revents
}

fn inside(fd: i32) -> i32 {
    let mut count = -1i32;
    sys!(SYS_ioctl, fd, FIONREAD, &mut count);
    count
}

/// The last bytes before memory that is not there.
fn edge(bytes: usize) -> (usize, usize) {
    let start = memory::pages(2) as usize;
    sys!(SYS_munmap, start + memory::PAGE, memory::PAGE);
    (start + memory::PAGE - bytes, bytes)
}

fn flags() {
    let [reader, writer] = pipe_with(O_DIRECT | O_NONBLOCK);
    say!("ends: {:o} {:o}", flags_of(reader), flags_of(writer));
    say!("off: {} {:o}", set(writer, 0), flags_of(writer));
    say!("of the reader: {} {:o}", set(reader, O_DIRECT | O_NONBLOCK), flags_of(reader));
    write(writer, "a");
    write(writer, "b");
    say!("means nothing: {}", read(reader, 10));
    say!("on: {} {:o}", set(writer, O_DIRECT), flags_of(writer));
    write(writer, "a");
    write(writer, "b");
    say!("then: {} {} {}", read(reader, 10), read(reader, 10), read(reader, 10));
}

fn short_reads() {
    let [reader, writer] = pipe_with(O_DIRECT);
    for text in ["first", "second", "third"] {
        write(writer, text);
    }
    say!("inside: {}", inside(reader));
    say!("less: {} inside {}", read(reader, 2), inside(reader));
    say!("all: {} inside {}", read(reader, 6), inside(reader));
    say!("nothing asked: {} inside {}", read(reader, 0), inside(reader));
    let (mut one, mut other) = ([b'.'; 3], [b'.'; 10]);
    let pieces = [one.as_mut_ptr() as usize, 3, other.as_mut_ptr() as usize, 10];
    say!("in two places: {}", sys!(SYS_readv, reader, &pieces, 2));
    say!("{} {}", String::from_utf8_lossy(&one), String::from_utf8_lossy(&other));
}

fn long_writes() {
    let [reader, writer] = pipe_with(O_DIRECT);
    for length in [4096, 4097, 8192, 10_000] {
        let text = "l".repeat(length);
        let written = write(writer, &text);
        let mut parts = Vec::new();
        while inside(reader) > 0 {
            parts.push(read(reader, 20_000).len() - 2);
        }
        say!("{written} bytes come as {parts:?}");
    }
}

fn one_write_is_one() {
    let [reader, writer] = pipe_with(O_DIRECT);
    let pieces = ["one", "two", "three"].map(|text| [text.as_ptr() as usize, text.len()]);
    say!("writev: {} {}", sys!(SYS_writev, writer, &pieces, 3), read(reader, 100));
    say!("of nothing: {} inside {}", write(writer, ""), inside(reader));
    let nothing = [[0usize, 0]; 2];
    say!("writev of nothing: {} inside {}", sys!(SYS_writev, writer, &nothing, 2), inside(reader));
}

fn mixed_with_bytes() {
    let [reader, writer] = pipe_with(O_NONBLOCK);
    let packet = |text: &str| {
        set(writer, O_DIRECT | O_NONBLOCK);
        write(writer, text);
        set(writer, O_NONBLOCK);
    };
    write(writer, "plain ");
    packet("packet ");
    packet("another ");
    write(writer, "more");
    say!("what fits a page of bytes joins them: {}", read(reader, 100));
    packet("packet");
    write(writer, "more ");
    write(writer, "bytes");
    say!("bytes do not join a packet: {} {}", read(reader, 100), read(reader, 100));
    write(writer, &"p".repeat(4090));
    packet("packet");
    packet("another");
    write(writer, "bytes");
    say!("a page is full: {}", read(reader, 4094).len() - 2);
    say!("then: {} {} {}", read(reader, 100), read(reader, 100), read(reader, 100));
    write(writer, "bytes ");
    packet(&"l".repeat(4100));
    let lengths = [(); 3].map(|()| read(reader, 5000).len() - 2);
    say!("the odd part of a long one joins bytes: {lengths:?}");
}

fn full() {
    let [reader, writer] = pipe_with(O_DIRECT | O_NONBLOCK);
    let mut count = 0;
    while write(writer, "x").ok() {
        count += 1;
    }
    say!("packets: {count} inside {} ready {:#x}", inside(reader), ready(writer));
    say!("no more: {} {}", write(writer, "x"), write(writer, &"x".repeat(5000)));
    set(writer, O_NONBLOCK);
    say!("nor bytes: {}", write(writer, "x"));
    set(writer, O_NONBLOCK | O_DIRECT);
    read(reader, 10);
    say!("one was read: ready {:#x}", ready(writer));
    say!("a part of a long one: {}", write(writer, &"y".repeat(10_000)));
    read(reader, 1);
    read(reader, 1);
    say!("two pages: {} ready {:#x}", write(writer, &"z".repeat(10_000)), ready(writer));
}

fn full_waits() {
    let [reader, writer] = pipe_with(O_DIRECT);
    let child = process::child(|| {
        for _ in 0..20 {
            write(writer, "packet");
        }
        say!("all were written");
        0
    });
    close(writer);
    process::until_asleep(child);
    say!("it waits at: {}", inside(reader));
    let mut count = 0;
    while read(reader, 100) == "\"packet\"" {
        count += 1;
    }
    process::wait(child);
    say!("read: {count}");
}

fn capacity() {
    let [reader, writer] = pipe_with(O_DIRECT | O_NONBLOCK);
    let size = |bytes: i32| sys!(SYS_fcntl, writer, F_SETPIPE_SZ, bytes);
    for _ in 0..3 {
        write(writer, "x");
    }
    say!("too small: {} enough: {}", size(8192), size(16384));
    let mut count = 0;
    while write(writer, "x").ok() {
        count += 1;
    }
    say!("one more: {count}");
    say!("larger: {} {}", size(32768), write(writer, "y"));
    let mut text = String::new();
    for _ in 0..5 {
        text += &read(reader, 10);
    }
    say!("all are there: {text}");
}

fn at_the_end() {
    let [reader, writer] = pipe_with(O_DIRECT);
    write(writer, "last");
    close(writer);
    say!("the last one: {} {} {}", read(reader, 2), read(reader, 2), read(reader, 2));
    let [reader, writer] = pipe_with(O_DIRECT);
    close(reader);
    signal::ignore(SIGPIPE);
    say!("nobody reads: {}", write(writer, "x"));
}

fn bad_memory() {
    let [reader, writer] = pipe_with(O_DIRECT | O_NONBLOCK);
    write(writer, "packet");
    let (start, length) = edge(3);
    say!("three bytes of memory: {}", sys!(SYS_read, reader, start, length + 10));
    say!("it is all there: {}", read(reader, 10));
    write(writer, "packet");
    say!("three are asked for: {}", sys!(SYS_read, reader, start, length));
    say!("it is gone: {}", read(reader, 10));
    say!("a write from there: {}", sys!(SYS_write, writer, start, length + 10));
}

fn bytes_and_bad_memory() {
    let [reader, writer] = pipe_with(O_NONBLOCK);
    write(writer, "plain bytes");
    let (start, length) = edge(5);
    say!("five bytes of memory: {}", sys!(SYS_read, reader, start, length + 10));
    say!("they are all there: {}", inside(reader));
    say!("five are asked for: {}", sys!(SYS_read, reader, start, length));
    say!("the rest: {}", read(reader, 100));
}

fn pages_and_bad_memory() {
    let [reader, writer] = pipe_with(O_NONBLOCK);
    write(writer, &"p".repeat(10_000));
    let start = memory::pages(4) as usize;
    sys!(SYS_munmap, start + 2 * memory::PAGE, 2 * memory::PAGE);
    say!("to a page and a half: {}", sys!(SYS_read, reader, start + memory::PAGE / 2, 20_000));
    say!("left: {}", inside(reader));
    // Memory that was promised only: it comes while it is read into.
    let fresh = memory::pages(4) as usize;
    say!("to pages that are not there yet: {}", sys!(SYS_read, reader, fresh + 100, 20_000));
}

fn several_pieces_of_memory() {
    let [reader, writer] = pipe_with(O_NONBLOCK);
    write(writer, "some bytes");
    let mut good = [0u8; 4];
    let pieces = [good.as_mut_ptr() as usize, 4, 8, 100];
    say!("the second is bad: {}", sys!(SYS_readv, reader, &pieces, 2));
    say!("left: {}", inside(reader));
    let mut all = [0u8; 20];
    let ret = sys!(SYS_read, reader, &mut all, 20);
    say!("then: {}", shown(ret, &all));
}

fn of_two_writers() {
    let [reader, packets] = pipe_with(O_DIRECT);
    let bytes = open(c"/proc/self/fd/4", O_WRONLY).fd();
    say!("opened again: {:o}", flags_of(bytes));
    write(packets, "one");
    write(bytes, "plain ");
    write(bytes, "bytes");
    write(packets, "two");
    say!("{} {} {}", read(reader, 100), read(reader, 6), read(reader, 100));
}

fn fifo() {
    sys!(SYS_mknodat, AT_FDCWD, c"fifo", S_IFIFO | 0o600, 0).need();
    say!("opened with O_DIRECT: {}", open(c"fifo", O_RDWR | O_DIRECT).ok_or_error());
    let fd = open(c"fifo", O_RDWR).fd();
    say!("switched: {}", set(fd, O_DIRECT));
    write(fd, "one");
    write(fd, "two");
    say!("{} {}", read(fd, 100), read(fd, 100));
}
