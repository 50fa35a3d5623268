//! Pipes and FIFOs.

mod fifos;
mod sizes;

use libc::*;

use self::fifos::{fifo_ends, fifo_opens, fifo_waits, through_proc};
use self::sizes::{atomic_writes, bytes_in_it, capacity, full, packets};
use crate::file::{close, create, open, pipe, pipe_with, read, read_at, write};
use crate::process::{self, Gate};
use crate::sys::{NOWHERE, sys};
use crate::{memory, say, signal, tests};

tests! {
    transfer, flags, nobody_reads, nobody_writes, full, atomic_writes, large_writes, capacity, packets, bytes_in_it,
    waiting, interrupted, fifo_opens, fifo_waits, fifo_ends, through_proc, vmsplice_moves, seeks_and_syncs, two_readers,
    readiness,
}

fn fill(writer: i32) -> i64 {
    sys!(SYS_fcntl, writer, F_SETFL, O_NONBLOCK);
    let bytes = vec![b'f'; 4096];
    let mut total = 0;
    loop {
        let ret = sys!(SYS_write, writer, &bytes[..], 4096);
        if !ret.ok() {
            break;
        }
        total += ret.0;
    }
    total
}

fn inside(fd: i32) -> i32 {
    let mut count = -1i32;
    sys!(SYS_ioctl, fd, FIONREAD, &mut count);
    count
}

fn poll_of(fd: i32) -> i16 {
    let mut entry = pollfd { fd, events: POLLIN | POLLOUT, revents: 0 };
    let now = timespec { tv_sec: 0, tv_nsec: 0 };
    sys!(SYS_ppoll, &mut entry, 1, &now, 0, 8);
    entry.revents
}

fn transfer() {
    let [reader, writer] = pipe();
    say!("ends: {reader} {writer}");
    say!("write: {} {}", write(writer, "hello "), write(writer, "world"));
    say!("read less: {}", read(reader, 3));
    say!("read more: {}", read(reader, 100));
    say!("write of nothing: {}", write(writer, ""));
    say!("read of nothing: {}", read(reader, 0));
    say!("wrong ends: {} {}", read(writer, 1), write(reader, "x"));
    write(writer, "inherited");
    process::in_child(|| {
        say!("a child reads: {}", read(reader, 5));
        write(writer, "!");
        0
    });
    say!("the parent has the rest: {}", read(reader, 100));
    let mut same = [0i32; 2];
    say!("bad pointer: {}", sys!(SYS_pipe2, NOWHERE, 0));
    say!("nothing was left open: {} {:?}", sys!(SYS_pipe2, &mut same, 0), same);
}

fn flags() {
    let [reader, writer] = pipe_with(O_NONBLOCK | O_CLOEXEC);
    let get = |fd: i32, command: i32| sys!(SYS_fcntl, fd, command, 0).0;
    say!("status: {:o} {:o}", get(reader, F_GETFL), get(writer, F_GETFL));
    say!("descriptor: {} {}", get(reader, F_GETFD), get(writer, F_GETFD));
    let [reader, writer] = pipe();
    say!("plain: {:o} {:o}", get(reader, F_GETFL), get(writer, F_GETFL));
    say!("descriptor: {} {}", get(reader, F_GETFD), get(writer, F_GETFD));
    let mut ends = [0i32; 2];
    for flags in [O_APPEND, O_RDWR, O_CREAT, 1 << 30, O_SYNC] {
        say!("flag {flags:o}: {}", sys!(SYS_pipe2, &mut ends, flags));
    }
    say!("one end's O_NONBLOCK: {}", sys!(SYS_fcntl, reader, F_SETFL, O_NONBLOCK));
    say!("is not the other's: {:o} {:o}", get(reader, F_GETFL), get(writer, F_GETFL));
    say!("the limit of descriptors: {}", {
        let limit = [16u64, 16];
        sys!(SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, 0);
        while pipe_or_error().ok() {}
        pipe_or_error()
    });
    say!("half of it was not left: {}", sys!(SYS_dup, 0).ok_or_error());
}

fn pipe_or_error() -> crate::sys::Ret {
    let mut ends = [0i32; 2];
    sys!(SYS_pipe2, &mut ends, 0)
}

fn nobody_reads() {
    let [reader, writer] = pipe();
    signal::handle(SIGPIPE, signal::count, 0);
    write(writer, "lost");
    close(reader);
    say!("write: {}, signals {}", write(writer, "x"), signal::caught());
    say!("code: {}", signal::LAST_CODE.load(std::sync::atomic::Ordering::SeqCst));
    say!("write of nothing: {}, signals {}", write(writer, ""), signal::caught());
    say!("ready: {:#x}", poll_of(writer));
    signal::ignore(SIGPIPE);
    say!("ignored: {}", write(writer, "x"));
    signal::block(SIGPIPE);
    say!("blocked: {}, pending {}", write(writer, "x"), signal::names(signal::pending()));
    signal::default(SIGPIPE);
    say!("blocked, by default: {}, pending {}", write(writer, "x"), signal::names(signal::pending()));
    signal::take(signal::bit(SIGPIPE), 0);
    signal::unblock(SIGPIPE);
    say!("by default: {}", process::in_child(|| write(writer, "x").errno()));
    let [reader, writer] = pipe_with(O_NONBLOCK);
    fill(writer);
    close(reader);
    signal::ignore(SIGPIPE);
    say!("full and nobody reads: {}", write(writer, "x"));
}

fn nobody_writes() {
    let [reader, writer] = pipe();
    write(writer, "last words");
    say!("ready: {:#x}", poll_of(reader));
    close(writer);
    say!("closed: {:#x}", poll_of(reader));
    say!("read: {}", read(reader, 4));
    say!("read: {}", read(reader, 100));
    say!("at the end: {} {}", read(reader, 100), read(reader, 100));
    say!("ready: {:#x}", poll_of(reader));
    let [reader, writer] = pipe_with(O_NONBLOCK);
    say!("empty: {}", read(reader, 1));
    say!("empty, nothing asked: {}", read(reader, 0));
    close(writer);
    say!("empty and closed: {}", read(reader, 1));
}

fn large_writes() {
    let [reader, writer] = pipe();
    let child = process::child(|| {
        let data: Vec<u8> = (0..300_000u32).map(|index| index as u8).collect();
        let ret = sys!(SYS_write, writer, &data[..], data.len());
        say!("all was written: {ret}");
        0
    });
    close(writer);
    let mut buffer = vec![0u8; 7777];
    let (mut total, mut right) = (0u32, true);
    loop {
        let ret = sys!(SYS_read, reader, &mut buffer[..], 7777);
        if ret.0 <= 0 {
            break;
        }
        right &= buffer[..ret.0 as usize].iter().zip(total..).all(|(byte, index)| *byte == index as u8);
        total += ret.0 as u32;
    }
    process::wait(child);
    say!("read: {total}, in order: {right}");
    let [reader, writer] = pipe();
    let child = process::child(|| {
        signal::handle(SIGPIPE, signal::count, 0);
        close(reader);
        let data = vec![0u8; 200_000];
        let ret = sys!(SYS_write, writer, &data[..], data.len());
        say!("the reader left: {ret}, signals {}", signal::caught());
        0
    });
    close(writer);
    let mut page = vec![0u8; 4096];
    for _ in 0..3 {
        sys!(SYS_read, reader, &mut page[..], 4096);
    }
    while inside(reader) < 65536 {
        process::sleep_ms(2);
    }
    process::until_asleep(child);
    close(reader);
    process::wait(child);
}

fn waiting() {
    let [reader, writer] = pipe();
    let child = process::child(|| {
        say!("the reader got: {}", read(reader, 100));
        0
    });
    process::until_asleep(child);
    write(writer, "woken");
    say!("the child: {}", process::wait(child));
    let child = process::child(|| {
        close(writer);
        say!("at the end: {}", read(reader, 100));
        0
    });
    process::until_asleep(child);
    close(writer);
    say!("the child: {}", process::wait(child));
    let [reader, writer] = pipe();
    fill(writer);
    sys!(SYS_fcntl, writer, F_SETFL, 0);
    let done = Gate::new();
    let child = process::child(|| {
        let ret = write(writer, &"w".repeat(10_000));
        done.open();
        i32::from(ret.0 != 10_000)
    });
    process::until_asleep(child);
    let mut page = vec![0u8; 20_000];
    sys!(SYS_read, reader, &mut page[..], 8192);
    process::until_asleep(child);
    say!("room for a part: {}", process::try_wait(child).is_none());
    sys!(SYS_read, reader, &mut page[..], 8192);
    done.pass();
    say!("room for all: {}", process::wait(child));
}

fn interrupted() {
    let [reader, writer] = pipe();
    for (what, flags) in [("EINTR", 0), ("SA_RESTART", SA_RESTART)] {
        let child = process::child(|| {
            signal::handle(SIGUSR1, signal::count, flags);
            let text = read(reader, 10);
            say!("read, {what}: {text}, caught {}", signal::caught());
            0
        });
        process::until_asleep(child);
        process::kill(child, SIGUSR1);
        if flags != 0 {
            process::until_asleep(child);
            write(writer, "data");
        }
        process::wait(child);
    }
    fill(writer);
    sys!(SYS_fcntl, writer, F_SETFL, 0);
    let child = process::child(|| {
        signal::handle(SIGUSR1, signal::count, 0);
        let ret = write(writer, "x");
        say!("write: {ret}, caught {}", signal::caught());
        0
    });
    process::until_asleep(child);
    process::kill(child, SIGUSR1);
    process::wait(child);
    let child = process::child(|| {
        signal::handle(SIGUSR1, signal::count, 0);
        let ret = write(writer, &"x".repeat(20_000));
        say!("a part was written: {ret}, caught {}", signal::caught());
        0
    });
    process::until_asleep(child);
    let mut page = vec![0u8; 8192];
    sys!(SYS_read, reader, &mut page[..], 8192);
    while inside(reader) < 65536 {
        process::sleep_ms(2);
    }
    process::until_asleep(child);
    process::kill(child, SIGUSR1);
    process::wait(child);
}

fn vmsplice_moves() {
    let [reader, writer] = pipe();
    let page = memory::pages(1);
    for (index, byte) in b"from memory".iter().enumerate() {
        memory::poke(page.wrapping_add(index), *byte);
    }
    let part = iovec { iov_base: page.cast(), iov_len: 11 };
    say!("into a pipe: {}", sys!(SYS_vmsplice, writer, &part, 1, 0));
    say!("it: {}", read(reader, 20));
    write(writer, "to memory");
    let mut target = [0u8; 16];
    let into = iovec { iov_base: target.as_mut_ptr().cast(), iov_len: 16 };
    say!("out of a pipe: {} {:?}", sys!(SYS_vmsplice, reader, &into, 1, 0), String::from_utf8_lossy(&target[..9]));
    say!("none: {}", sys!(SYS_vmsplice, writer, &part, 0, 0));
    say!("unknown flag: {}", sys!(SYS_vmsplice, writer, &part, 1, 0x100));
    say!("a file: {}", sys!(SYS_vmsplice, create(c"f", ""), &part, 1, 0));
    say!("bad vector: {}", sys!(SYS_vmsplice, writer, NOWHERE, 1, 0));
    say!("too many: {}", sys!(SYS_vmsplice, writer, &part, 1025, 0));
    say!("empty, not to wait: {}", sys!(SYS_vmsplice, reader, &into, 1, SPLICE_F_NONBLOCK));
    fill(writer);
    sys!(SYS_fcntl, writer, F_SETFL, 0);
    say!("full, not to wait: {}", sys!(SYS_vmsplice, writer, &part, 1, SPLICE_F_NONBLOCK));
    say!("closed: {}", sys!(SYS_vmsplice, 60, &part, 1, 0));
}

fn seeks_and_syncs() {
    let [reader, writer] = pipe();
    write(writer, "x");
    say!("lseek: {} {}", sys!(SYS_lseek, reader, 0, SEEK_SET), sys!(SYS_lseek, writer, 0, SEEK_END));
    say!("pread: {}", read_at(reader, 1, 0));
    say!("fsync: {} {}", sys!(SYS_fsync, writer), sys!(SYS_fdatasync, reader));
    say!("ftruncate: {}", sys!(SYS_ftruncate, writer, 0));
    say!("mmap: {}", memory::map(4096, PROT_READ, MAP_SHARED, reader, 0));
    say!("getdents: {}", sys!(SYS_getdents64, reader, NOWHERE, 100));
    say!("fchdir: {}", sys!(SYS_fchdir, reader));
    say!("openat: {}", sys!(SYS_openat, reader, c"x", O_RDONLY, 0));
    say!("flock: {}", sys!(SYS_flock, reader, LOCK_SH));
    say!("fchmod: {}", sys!(SYS_fchmod, reader, 0o600));
    let mut time: timespec = crate::sys::zeroed();
    say!("timerfd_settime: {}", sys!(SYS_timerfd_settime, reader, 0, &[0u64; 4], &mut time));
    say!("sendto: {}", sys!(SYS_sendto, writer, "x", 1, 0, 0, 0));
}

fn two_readers() {
    let [reader, writer] = pipe();
    let [out_reader, out_writer] = pipe();
    let children: Vec<i32> = (0..2)
        .map(|_| {
            process::child(|| {
                close(writer);
                let mut byte = [0u8; 1];
                while sys!(SYS_read, reader, &mut byte, 1).0 == 1 {
                    sys!(SYS_write, out_writer, &byte, 1);
                }
                0
            })
        })
        .collect();
    close(out_writer);
    for byte in b'a'..=b'z' {
        sys!(SYS_write, writer, &[byte], 1);
    }
    close(writer);
    for child in children {
        process::wait(child);
    }
    let mut all = [0u8; 64];
    let mut count = 0;
    loop {
        let ret = sys!(SYS_read, out_reader, all[count..].as_mut_ptr(), 64 - count);
        if ret.0 <= 0 {
            break;
        }
        count += ret.0 as usize;
    }
    all[..count].sort_unstable();
    say!("each byte went to one: {}", String::from_utf8_lossy(&all[..count]));
}

fn readiness() {
    let [reader, writer] = pipe();
    say!("empty: reader {:#x}, writer {:#x}", poll_of(reader), poll_of(writer));
    write(writer, "x");
    say!("a byte: reader {:#x}, writer {:#x}", poll_of(reader), poll_of(writer));
    fill(writer);
    say!("full: reader {:#x}, writer {:#x}", poll_of(reader), poll_of(writer));
    close(writer);
    say!("no writer: {:#x}", poll_of(reader));
    let mut buffer = vec![0u8; 1 << 17];
    sys!(SYS_read, reader, &mut buffer[..], 1 << 17);
    say!("and empty: {:#x}", poll_of(reader));
    let [reader, writer] = pipe();
    close(reader);
    say!("no reader: {:#x}", poll_of(writer));
    sys!(SYS_mknodat, AT_FDCWD, c"p", S_IFIFO | 0o644, 0);
    let both = open(c"p", O_RDWR).fd();
    say!("a fifo both ways, empty: {:#x}", poll_of(both));
    write(both, "x");
    say!("with a byte: {:#x}", poll_of(both));
}
