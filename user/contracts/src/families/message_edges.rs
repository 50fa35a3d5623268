//! Edges of messages: names that are none, too long or negative, times that are left, names for who asks for them, and
//! options for who may send raw packets.

use libc::*;

use crate::file::{close, write};
use crate::sys::{Ret, sys};
use crate::{process, say, tests};

tests! {
    no_name_and_its_length, a_name_that_is_too_long, the_time_that_is_left, no_time_is_left_of_none, the_time_cannot_be_told,
    no_message_no_time, senders_that_ask_for_names_have_one, marks_and_priorities,
}

fn pair(kind: i32) -> [i32; 2] {
    let mut fds = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, kind, 0, &mut fds[..]).need();
    fds
}

/// recvmsg(2) or sendmsg(2) of five bytes with this name and its length.
fn message(number: c_long, fd: i32, name: usize, length: i32) -> String {
    let mut bytes = *b"hello";
    let piece = iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 5 };
    let mut header = [name, length as u32 as usize, (&raw const piece) as usize, 1, 0, 0, 0];
    let ret = crate::sys::raw(number, &[fd as usize, (&raw mut header) as usize, MSG_DONTWAIT as usize]);
    format!("{ret} {}", header[1] as u32 as i32)
}

fn no_name_and_its_length() {
    let [a, b] = pair(SOCK_DGRAM);
    let mut name = [0u8; 200];
    for place in [0, name.as_mut_ptr() as usize] {
        for length in [-1, i32::MIN, 0, 110, 129, i32::MAX] {
            let sent = message(SYS_sendmsg, a, 0, length);
            let got = message(SYS_recvmsg, b, place, length);
            say!("{} {length}: {sent}, {got}", place != 0);
            message(SYS_recvmsg, b, 0, 0);
        }
    }
}

/// An address of the loopback interface at the beginning of much more.
fn a_name_that_is_too_long() {
    let receiver = sys!(SYS_socket, AF_INET, SOCK_DGRAM, 0).fd();
    let mut name = [0u8; 200];
    name[..8].copy_from_slice(&[2, 0, 0, 0, 127, 0, 0, 1]);
    sys!(SYS_bind, receiver, &name[..], 16).need();
    let mut length = 200i32;
    sys!(SYS_getsockname, receiver, &mut name[..], &mut length).need();
    let sender = sys!(SYS_socket, AF_INET, SOCK_DGRAM, 0).fd();
    for length in [16, 127, 128, 129, 200, i32::MAX, -1] {
        say!("{length}: {}", message(SYS_sendmsg, sender, name.as_ptr() as usize, length));
        say!("sendto: {}", sys!(SYS_sendto, sender, "hello", 5, 0, &name[..], length));
    }
}

/// recvmmsg(2) of up to so many messages of five bytes.
fn several(fd: i32, count: usize, flags: i32, time: usize) -> Ret {
    let mut bytes = [0u8; 5];
    let piece = iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 5 };
    let header = [0, 0, (&raw const piece) as usize, 1, 0, 0, 0, 0];
    let mut headers = [header; 4];
    crate::sys::raw(SYS_recvmmsg, &[fd as usize, (&raw mut headers) as usize, count, flags as usize, time])
}

/// Seconds, a bit less than before; or what there is.
fn told(time: &[i64; 2]) -> String {
    if time[1] == 0 { format!("{time:?}") } else { format!("{} and some", time[0]) }
}

fn the_time_that_is_left() {
    let [a, b] = pair(SOCK_DGRAM);
    for messages in 1..=2 {
        for _ in 0..messages {
            write(a, "hello");
        }
        let mut time = [100i64, 0];
        let ret = several(b, 4, MSG_DONTWAIT, (&raw mut time) as usize);
        say!("{ret} {}", told(&time));
    }
    write(a, "hello");
    let mut time = [i64::MAX, 0];
    let ret = several(b, 1, 0, (&raw mut time) as usize);
    say!("{ret} {}", time[0] > 1_000_000);
}

fn no_time_is_left_of_none() {
    let [a, b] = pair(SOCK_DGRAM);
    for time in [[0i64, 0], [0, 1]] {
        let mut time = time;
        write(a, "hello");
        write(a, "hello");
        let ret = several(b, 2, 0, (&raw mut time) as usize);
        say!("{ret} {time:?}");
        several(b, 4, MSG_DONTWAIT, 0);
    }
}

fn the_time_cannot_be_told() {
    let [a, b] = pair(SOCK_DGRAM);
    let page = sys!(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0).need();
    let time = page as usize;
    sys!(SYS_mprotect, page, 4096, PROT_READ).need();
    write(a, "hello");
    say!("{}", several(b, 1, 0, time));
    say!("{}", several(b, 1, MSG_DONTWAIT, time));
}

fn no_message_no_time() {
    let [_a, b] = pair(SOCK_DGRAM);
    let mut time = [100i64, 5];
    let ret = several(b, 2, MSG_DONTWAIT, (&raw mut time) as usize);
    say!("{ret} {time:?}");
    let ret = several(b, 0, 0, (&raw mut time) as usize);
    say!("{ret} {time:?}");
}

fn named(fd: i32) -> bool {
    let mut name = [0u8; 110];
    let mut length = 110i32;
    sys!(SYS_getsockname, fd, &mut name[..], &mut length).need();
    length > 2
}

fn senders_that_ask_for_names_have_one() {
    for kind in [SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM] {
        let [a, b] = pair(kind);
        sys!(SYS_setsockopt, a, SOL_SOCKET, SO_PASSCRED, &1i32, 4).need();
        let before = named(a);
        write(b, "hello");
        let asked = named(a);
        say!("{kind}: {before} {asked} {} {} {}", write(a, "hello"), named(a), named(b));
        close(a);
        close(b);
    }
    // Not who sends to nobody.
    let alone = sys!(SYS_socket, AF_UNIX, SOCK_DGRAM, 0).fd();
    sys!(SYS_setsockopt, alone, SOL_SOCKET, SO_PASSCRED, &1i32, 4).need();
    say!("{} {}", write(alone, "hello"), named(alone));
}

fn marks_and_priorities() {
    const ADMIN: u32 = 1 << 12;
    const RAW: u32 = 1 << 13;
    for (what, given) in [("none", 0), ("admin", ADMIN), ("raw", RAW), ("both", ADMIN | RAW)] {
        let child = process::child(|| {
            let socket = sys!(SYS_socket, AF_INET, SOCK_DGRAM, 0).fd();
            sys!(SYS_capset, &[0x2008_0522u32, 0], &[given, given, 0, 0, 0, 0]).need();
            for option in [SO_MARK, SO_PRIORITY] {
                let set = |value: i32| sys!(SYS_setsockopt, socket, SOL_SOCKET, option, &value, 4);
                say!("{what} {option}: {} {} {} {}", set(0), set(6), set(7), set(-1));
            }
            0
        });
        process::wait(child);
    }
}
