//! How much fits, and in what pieces.

use libc::*;

use super::{fill, inside, poll_of};
use crate::file::{close, create, pipe, pipe_with, read, write};
use crate::sys::{NOWHERE, sys};
use crate::{process, say};

pub(super) fn full() {
    let [reader, writer] = pipe();
    say!("holds: {}", fill(writer));
    say!("one more: {}", write(writer, "x"));
    say!("ready: {:#x}", poll_of(writer));
    let mut page = [0u8; 4096];
    say!("a page taken: {}", sys!(SYS_read, reader, &mut page, 4096));
    say!("ready: {:#x}", poll_of(writer));
    say!("then: {}", write(writer, &"y".repeat(4096)));
    say!("again: {}", write(writer, "z"));
    say!("inside: {}", inside(reader));
    let [reader, writer] = pipe();
    let mut count = 0;
    sys!(SYS_fcntl, writer, F_SETFL, O_NONBLOCK);
    while write(writer, "1").ok() {
        count += 1;
    }
    say!("single bytes: {count}");
    say!("and: {}", inside(reader));
}

pub(super) fn atomic_writes() {
    let [reader, writer] = pipe();
    fill(writer);
    let mut page = vec![0u8; 4096];
    sys!(SYS_read, reader, &mut page[..], 4096);
    say!("a page and more than PIPE_BUF: {}", write(writer, &"p".repeat(5000)));
    sys!(SYS_read, reader, &mut page[..], 4096);
    say!("PIPE_BUF into a free page: {}", write(writer, &"q".repeat(4096)));
    say!("a byte: {}", write(writer, "r"));
    // Writers of up to PIPE_BUF bytes do not mix.
    let [reader, writer] = pipe();
    let children: Vec<i32> = (0..4u8)
        .map(|index| {
            process::child(|| {
                let line = vec![b'a' + index; 1000];
                for _ in 0..50 {
                    sys!(SYS_write, writer, &line[..], 1000);
                }
                0
            })
        })
        .collect();
    close(writer);
    let mut all = Vec::new();
    let mut buffer = vec![0u8; 3000];
    loop {
        let ret = sys!(SYS_read, reader, &mut buffer[..], 3000);
        if ret.0 <= 0 {
            break;
        }
        all.extend_from_slice(&buffer[..ret.0 as usize]);
    }
    for child in children {
        process::wait(child);
    }
    let whole = all.chunks(1000).filter(|chunk| chunk.iter().all(|byte| *byte == chunk[0])).count();
    say!("bytes {}, whole lines {whole}", all.len());
}

pub(super) fn capacity() {
    let [reader, writer] = pipe();
    let size = |fd: i32| sys!(SYS_fcntl, fd, F_GETPIPE_SZ, 0);
    let set = |bytes: i64| sys!(SYS_fcntl, writer, F_SETPIPE_SZ, bytes);
    say!("at first: {} {}", size(reader), size(writer));
    for bytes in [1, 4096, 4097, 65536, 100_000, 1 << 20, (1 << 20) + 1] {
        say!("{bytes}: {} {}", set(bytes), size(reader));
    }
    say!("0: {}", set(0));
    say!("minus one: {}", set(-1));
    sys!(SYS_fcntl, writer, F_SETPIPE_SZ, 16384);
    say!("holds: {}", fill(writer));
    say!("smaller than what is inside: {}", set(4096));
    say!("larger: {} {}", set(32768), size(reader));
    say!("more goes in: {}", write(writer, "x"));
    say!("not a pipe: {} {}", size(0), sys!(SYS_fcntl, create(c"f", ""), F_SETPIPE_SZ, 4096));
    process::as_plain_user(|| {
        let [_, writer] = pipe();
        say!("a user: {} {}", sys!(SYS_fcntl, writer, F_SETPIPE_SZ, 1 << 20), {
            sys!(SYS_fcntl, writer, F_SETPIPE_SZ, 1 << 21)
        });
    });
}

pub(super) fn packets() {
    let [reader, writer] = pipe_with(O_DIRECT);
    say!("write: {} {}", write(writer, "first"), write(writer, "second"));
    say!("read more: {}", read(reader, 100));
    say!("read less: {}", read(reader, 3));
    write(writer, "third");
    say!("the rest is gone: {}", read(reader, 100));
    say!("write of nothing: {}", write(writer, ""));
    say!("a large one: {}", write(writer, &"l".repeat(6000)));
    say!("comes in: {} and {}", read(reader, 10_000).len() - 2, read(reader, 10_000).len() - 2);
    sys!(SYS_fcntl, writer, F_SETFL, 0);
    write(writer, "plain ");
    write(writer, "bytes");
    say!("turned off: {}", read(reader, 100));
    let [reader, writer] = pipe();
    say!("turned on: {}", sys!(SYS_fcntl, writer, F_SETFL, O_DIRECT));
    write(writer, "one");
    write(writer, "two");
    say!("then: {} {}", read(reader, 100), read(reader, 100));
    sys!(SYS_fcntl, writer, F_SETFL, O_DIRECT | O_NONBLOCK);
    let mut count = 0;
    while write(writer, "small").ok() {
        count += 1;
    }
    say!("packets that fit: {count}");
}

pub(super) fn bytes_in_it() {
    let [reader, writer] = pipe();
    say!("empty: {} {}", inside(reader), inside(writer));
    write(writer, "12345");
    say!("five: {} {}", inside(reader), inside(writer));
    read(reader, 2);
    say!("three: {}", inside(reader));
    say!("bad pointer: {}", sys!(SYS_ioctl, reader, FIONREAD, NOWHERE));
    say!("other ioctls: {} {}", sys!(SYS_ioctl, reader, TCGETS, NOWHERE), sys!(SYS_ioctl, reader, 0x1234, 0));
    let mut on = 1i32;
    say!("FIONBIO: {}", sys!(SYS_ioctl, reader, FIONBIO, &mut on));
    say!("status: {:o}", sys!(SYS_fcntl, reader, F_GETFL, 0).0);
    close(writer);
    say!("closed: {}", inside(reader));
}
