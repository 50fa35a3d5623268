//! What reads and writes of Unix sockets answer when the other end has gone.

use libc::*;

use crate::file::{close, write};
use crate::process;
use crate::sys::{Ret, sys};
use crate::{say, signal, tests};

tests! {
    unread_data, unread_data_and_recv, unread_data_and_vectors, a_waiting_reader, writing_first, packets_unread, gone_receiver, gone_receiver_told_once,
}

fn pair(kind: i32) -> [i32; 2] {
    let mut fds = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, kind, 0, &mut fds[..]).need();
    fds
}

fn read(fd: i32) -> Ret {
    let mut buffer = [0u8; 100];
    sys!(SYS_read, fd, &mut buffer[..], buffer.len())
}

/// An end whose other one was closed with something in it.
fn torn(kind: i32) -> i32 {
    let [end, other] = pair(kind);
    write(end, "unread");
    close(other);
    end
}

fn unread_data() {
    let end = torn(SOCK_STREAM);
    say!("{} {}", read(end), read(end));
}

fn unread_data_and_recv() {
    let end = torn(SOCK_STREAM);
    let mut buffer = [0u8; 100];
    let mut receive = || sys!(SYS_recvfrom, end, &mut buffer[..], 100, 0, 0, 0);
    say!("{} {}", receive(), receive());
}

fn unread_data_and_vectors() {
    let end = torn(SOCK_STREAM);
    let mut buffer = [0u8; 100];
    let vector = [iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: 100 }];
    let receive = || sys!(SYS_readv, end, &vector[..], 1);
    say!("{} {}", receive(), receive());
}

fn a_waiting_reader() {
    let [end, other] = pair(SOCK_STREAM);
    write(end, "unread");
    let child = process::child(|| {
        close(other);
        say!("{} {}", read(end), read(end));
        0
    });
    process::until_asleep(child);
    close(other);
    process::wait(child);
}

fn writing_first() {
    signal::ignore(SIGPIPE);
    let end = torn(SOCK_STREAM);
    say!("{} {} {}", write(end, "x"), write(end, "x"), read(end));
}

fn packets_unread() {
    let end = torn(SOCK_SEQPACKET);
    say!("{} {}", read(end), read(end));
}

fn gone_receiver() {
    let [end, other] = pair(SOCK_DGRAM);
    close(other);
    say!("{} {}", write(end, "x"), write(end, "x"));
}

fn gone_receiver_told_once() {
    let end = torn(SOCK_DGRAM);
    say!("{} {}", write(end, "x"), write(end, "x"));
}
