//! TCP sockets: bytes.

use libc::*;

use crate::file::{close, read, write};
use crate::inet::{
    HERE, accept, address, connect, connection, events, events_in, listener, or_signal, own_name, peer_name, receive,
    send, send_to, set_option, shutdown, socket, tcp_state, waiting_bytes,
};
use crate::process;
use crate::sys::{NOWHERE, sys, zeroed};
use crate::{say, tests};

tests! {
    accept_waits, bytes, peeked_and_truncated, wait_for_all, several_pieces, to_an_address, unread_count, timeouts,
    low_mark, big_transfer, full, full_waits, messages, many_messages, wrong_memory, duplicated, spliced, sent_file,
}

fn accept_waits() {
    let (fd, number) = listener(5);
    let child = process::child(|| {
        process::sleep_ms(30);
        let client = socket(SOCK_STREAM);
        connect(client, HERE, number);
        write(client, "hello");
        0
    });
    let there = accept(fd).fd();
    say!("accepted: {} {}", read(there, 10), process::wait(child));
    say!("the end: {}", read(there, 10));
}

fn bytes() {
    let [here, there] = connection();
    say!("{} {} {}", write(here, "one"), write(here, "two"), read(there, 20));
    say!("back: {} {}", send(there, "three", 0), receive(here, 2, 0));
    say!("the rest: {}", receive(here, 20, MSG_DONTWAIT));
    say!("nothing: {}", receive(here, 20, MSG_DONTWAIT));
    say!("nothing sent: {} {}", write(here, ""), receive(there, 1, MSG_DONTWAIT));
    say!("nothing asked: {}", receive(here, 0, MSG_DONTWAIT));
    say!("names: {} {} {}", own_name(here), peer_name(here), tcp_state(here));
    say!("lseek: {}", sys!(SYS_lseek, here, 0, SEEK_CUR));
    say!("flags that mean nothing: {}", send(here, "x", MSG_MORE | MSG_EOR | MSG_CONFIRM | MSG_DONTROUTE));
}

fn peeked_and_truncated() {
    let [here, there] = connection();
    write(here, "abcdefgh");
    say!("peek: {} {}", receive(there, 4, MSG_PEEK), receive(there, 20, MSG_PEEK));
    say!("trunc: {}", receive(there, 3, MSG_TRUNC));
    say!("left: {}", receive(there, 20, MSG_PEEK));
    say!("peek and trunc: {}", receive(there, 2, MSG_PEEK | MSG_TRUNC));
    say!("left: {}", receive(there, 20, 0));
    say!("urgent: {}", receive(there, 1, MSG_OOB));
    say!("errors: {}", receive(there, 1, MSG_ERRQUEUE));
}

fn wait_for_all() {
    let [here, there] = connection();
    let child = process::child(|| {
        for text in ["ab", "cd", "ef"] {
            write(here, text);
            process::sleep_ms(10);
        }
        0
    });
    say!("all: {}", receive(there, 6, MSG_WAITALL));
    process::wait(child);
    write(here, "xy");
    shutdown(here, SHUT_WR);
    say!("what there is: {} {}", receive(there, 6, MSG_WAITALL), receive(there, 6, MSG_WAITALL));
    let [here, there] = connection();
    write(here, "xy");
    say!("at once: {}", receive(there, 6, MSG_WAITALL | MSG_DONTWAIT));
}

fn several_pieces() {
    let [here, there] = connection();
    let pieces = ["one ", "two ", "three"].map(|text| [text.as_ptr() as usize, text.len()]);
    say!("writev: {}", sys!(SYS_writev, here, &pieces, 3));
    let (mut a, mut b) = ([b'.'; 5], [b'.'; 20]);
    let into = [[a.as_mut_ptr() as usize, a.len()], [b.as_mut_ptr() as usize, b.len()]];
    say!("readv: {}", sys!(SYS_readv, there, &into, 2));
    say!("{:?} {:?}", String::from_utf8_lossy(&a), String::from_utf8_lossy(&b[..8]));
}

fn to_an_address() {
    let [here, there] = connection();
    say!("anywhere: {} {}", send_to(here, "x", 9), receive(there, 5, 0));
    let (mut from, mut length, mut byte) = (address(1, 1), 16i32, [0u8; 1]);
    send(here, "y", 0);
    say!("from: {} {length}", sys!(SYS_recvfrom, there, &mut byte, 1, 0, &mut from, &mut length));
    say!("unconnected: {}", or_signal(|| send_to(socket(SOCK_STREAM), "x", 9)));
}

fn unread_count() {
    let [here, there] = connection();
    say!("none: {}", waiting_bytes(there));
    write(here, "12345");
    say!("some: {}", waiting_bytes(there));
    let mut unsent = -1i32;
    say!("unsent: {} {unsent}", sys!(SYS_ioctl, here, TIOCOUTQ, &mut unsent));
    say!("unknown: {}", sys!(SYS_ioctl, here, 0x1234, 0));
    say!("of a fresh one: {}", waiting_bytes(socket(SOCK_STREAM)));
}

fn timeouts() {
    let [here, _there] = connection();
    let time = timeval { tv_sec: 0, tv_usec: 20_000 };
    sys!(SYS_setsockopt, here, SOL_SOCKET, SO_RCVTIMEO, &time, 16);
    say!("recv: {} read: {}", receive(here, 1, 0), read(here, 1));
    sys!(SYS_setsockopt, here, SOL_SOCKET, SO_SNDTIMEO, &time, 16);
    let text = "t".repeat(1 << 16);
    let mut last = send(here, &text, 0);
    while last.0 == 1 << 16 {
        last = send(here, &text, 0);
    }
    say!("a full one: {}", if last.ok() { send(here, &text, 0) } else { last });
}

fn low_mark() {
    let [here, there] = connection();
    say!("set: {}", set_option(there, SOL_SOCKET, SO_RCVLOWAT, 4));
    write(here, "ab");
    say!("less: {}", events(there));
    write(here, "cd");
    say!("enough: {} {}", events(there), receive(there, 10, 0));
}

fn big_transfer() {
    const SIZE: usize = 8 << 20;
    let [here, there] = connection();
    let child = process::child(|| {
        close(there);
        let data: Vec<u8> = (0..SIZE).map(|index| (index * 7 % 251) as u8).collect();
        let written = sys!(SYS_write, here, &data[..], SIZE).0;
        i32::from(written != SIZE as i64)
    });
    close(here);
    let (mut buffer, mut total, mut wrong) = (vec![0u8; 100_000], 0usize, 0);
    loop {
        let count = sys!(SYS_read, there, &mut buffer[..], buffer.len()).need() as usize;
        if count == 0 {
            break;
        }
        wrong += (0..count).filter(|index| buffer[*index] != ((total + index) * 7 % 251) as u8).count();
        total += count;
    }
    say!("{total} bytes, {wrong} wrong, {}", process::wait(child));
}

fn full() {
    let [here, there] = connection();
    let text = "t".repeat(1 << 16);
    while send(here, &text, MSG_DONTWAIT).ok() {}
    say!("full: {} {}", send(here, "x", MSG_DONTWAIT), events(here));
    let mut total = 0;
    while waiting_bytes(there) != "0" {
        total += receive(there, 1 << 16, MSG_DONTWAIT).len();
    }
    say!("much: {}", total > 100_000);
    say!("empty: {} {}", events_in(here, POLLOUT, 2000), send(here, "x", MSG_DONTWAIT));
}

fn full_waits() {
    let [here, there] = connection();
    let text = "t".repeat(1 << 16);
    while send(here, &text, MSG_DONTWAIT).ok() {}
    let child = process::child(|| {
        close(there);
        i32::from(write(here, &text).0 != 1 << 16)
    });
    process::sleep_ms(30);
    close(here);
    while sys!(SYS_read, there, &mut vec![0u8; 1 << 16][..], 1 << 16).need() > 0 {}
    say!("the writer: {}", process::wait(child));
}

fn messages() {
    let [here, there] = connection();
    let (a, b) = ("one", "two");
    let mut pieces = [[a.as_ptr() as usize, 3], [b.as_ptr() as usize, 3]];
    let mut header: msghdr = zeroed();
    header.msg_iov = pieces.as_mut_ptr().cast();
    header.msg_iovlen = 2;
    say!("sendmsg: {}", sys!(SYS_sendmsg, here, &header, 0));
    let mut buffer = [0u8; 20];
    let mut into = [[buffer.as_mut_ptr() as usize, 4]];
    let mut name = address(1, 1);
    header.msg_iov = into.as_mut_ptr().cast();
    header.msg_iovlen = 1;
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = 16;
    let ret = sys!(SYS_recvmsg, there, &mut header, 0);
    say!("recvmsg: {ret} {:?} name {} flags {:x}", &buffer[..5], header.msg_namelen, header.msg_flags);
    header.msg_iovlen = 2000;
    say!("too many pieces: {}", sys!(SYS_recvmsg, there, &mut header, 0));
}

fn many_messages() {
    let [here, there] = connection();
    let texts = ["one", "two", "three"];
    let mut pieces = texts.map(|text| [text.as_ptr() as usize, text.len()]);
    let mut headers: [mmsghdr; 3] = zeroed();
    for (header, piece) in headers.iter_mut().zip(&mut pieces) {
        header.msg_hdr.msg_iov = (&raw mut *piece).cast();
        header.msg_hdr.msg_iovlen = 1;
    }
    say!("sendmmsg: {}", sys!(SYS_sendmmsg, here, &mut headers, 3, 0));
    say!("lengths: {:?}", headers.map(|header| header.msg_len));
    say!("as one: {}", receive(there, 20, 0));
}

fn wrong_memory() {
    let [here, there] = connection();
    say!("write: {}", sys!(SYS_write, here, NOWHERE, 4));
    write(here, "abcd");
    say!("read: {}", sys!(SYS_read, there, NOWHERE, 4));
    say!("still there: {}", read(there, 4));
    say!("option: {}", sys!(SYS_getsockopt, here, IPPROTO_TCP, TCP_NODELAY, NOWHERE, NOWHERE));
}

fn duplicated() {
    let [here, there] = connection();
    let copy = sys!(SYS_dup, here).fd();
    close(here);
    say!("still open: {} {}", write(copy, "x"), read(there, 5));
    close(copy);
    say!("closed: {:?}", read(there, 5));
}

fn spliced() {
    let [here, there] = connection();
    let [reader, writer] = crate::file::pipe();
    write(writer, "through a pipe");
    say!("to the socket: {}", sys!(SYS_splice, reader, 0, here, 0, 100, 0));
    say!("from it: {}", sys!(SYS_splice, there, 0, writer, 0, 100, 0));
    say!("{}", read(reader, 100));
    shutdown(here, SHUT_WR);
    say!("the end: {}", sys!(SYS_splice, there, 0, writer, 0, 100, 0));
}

fn sent_file() {
    let [here, there] = connection();
    let file = crate::file::create(c"f", &"line\n".repeat(5000));
    let mut offset = 5i64;
    say!("sendfile: {} {offset}", sys!(SYS_sendfile, here, file, &mut offset, 15));
    say!("{}", read(there, 100));
    say!("all: {}", sys!(SYS_sendfile, here, file, 0, 100_000));
}
