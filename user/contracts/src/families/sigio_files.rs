//! Signal-driven I/O of sockets and terminals.

use libc::*;

use super::sigio::{F_GETOWN_EX, F_SETSIG, TOLD, fcntl, listen, switch, told};
use crate::file::{close, pipe, pipe_with, read, write};
use crate::process;
use crate::sys::{NOWHERE, sys, zeroed};
use crate::terminal::{eventually, pty, raw, session, typed};
use crate::{say, signal, tests};

tests! {
    stream_socket, stream_hangs_up, stream_has_room, datagrams, listener, socket_ioctls, terminal_lines, terminal_raw,
    terminal_owner, terminal_group, master, master_hears_no_end, through_signalfd,
}

const FIOSETOWN: i32 = 0x8901;
const SIOCSPGRP: i32 = 0x8902;
const FIOGETOWN: i32 = 0x8903;
const SIOCGPGRP: i32 = 0x8904;

fn sockets(kind: i32) -> [i32; 2] {
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, kind, 0, &mut pair).need();
    pair
}

fn stream_socket() {
    let [a, b] = sockets(SOCK_STREAM);
    listen(a);
    write(b, "x");
    say!("bytes: {}", told());
    write(b, "y");
    say!("more: {}", told());
    say!("a read: {} {}", read(a, 10), told());
    say!("a write: {} {}", write(a, "z"), told());
    say!("the other reads it: {} {}", read(b, 10), told());
}

fn stream_hangs_up() {
    for (name, how) in [("SHUT_WR", SHUT_WR), ("SHUT_RD", SHUT_RD), ("SHUT_RDWR", SHUT_RDWR)] {
        let [a, b] = sockets(SOCK_STREAM);
        listen(a);
        sys!(SYS_shutdown, b, how);
        say!("{name} there: {}", told());
        let [a, _b] = sockets(SOCK_STREAM);
        listen(a);
        sys!(SYS_shutdown, a, how);
        say!("{name} here: {}", told());
    }
    for kind in [SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM] {
        let [a, b] = sockets(kind);
        listen(a);
        close(b);
        say!("closed: {}", told());
    }
}

fn stream_has_room() {
    let [a, b] = sockets(SOCK_STREAM | SOCK_NONBLOCK);
    listen(a);
    let text = "t".repeat(4096);
    write(a, &text);
    let mut buffer = vec![0u8; 1 << 20];
    sys!(SYS_read, b, &mut buffer[..], buffer.len());
    say!("it was never full: {}", told());
    while write(a, &text).ok() {}
    while sys!(SYS_read, b, &mut buffer[..], buffer.len()).ok() {}
    say!("it was full: {}", told());
    write(a, &text);
    sys!(SYS_read, b, &mut buffer[..], buffer.len());
    say!("and is not any more: {}", told());
}

fn datagrams() {
    let [a, b] = sockets(SOCK_DGRAM);
    listen(a);
    write(b, "one");
    write(b, "two");
    say!("two of them: {}", told());
    say!("read: {} {} {}", read(a, 10), read(a, 10), told());
    say!("an answer, read: {} {} {}", write(a, "x"), read(b, 10), told());
    let [a, b] = sockets(SOCK_SEQPACKET);
    listen(a);
    write(b, "packet");
    say!("a packet: {}", told());
}

fn listener() {
    let server = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    let mut address: sockaddr_un = zeroed();
    address.sun_family = AF_UNIX as u16;
    address.sun_path[0] = b's' as c_char;
    sys!(SYS_bind, server, &address, 4).need();
    sys!(SYS_listen, server, 4).need();
    listen(server);
    let client = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    say!("connect: {} {}", sys!(SYS_connect, client, &address, 4), told());
    let accepted = sys!(SYS_accept, server, 0, 0).fd();
    say!("accept: {} flags {:o}", told(), fcntl(accepted, F_GETFL, 0).0);
    write(client, "x");
    say!("the accepted one says nothing: {}", told());
}

fn socket_ioctls() {
    let [a, _b] = sockets(SOCK_STREAM);
    let own = process::pid();
    let get = |command: i32| {
        let mut id = -1i32;
        format!("{} {}", sys!(SYS_ioctl, a, command, &mut id), if id == own { "this".into() } else { id.to_string() })
    };
    say!("at first: {} {}", get(FIOGETOWN), get(SIOCGPGRP));
    say!("FIOSETOWN: {} {}", sys!(SYS_ioctl, a, FIOSETOWN, &own), get(FIOGETOWN));
    say!("SIOCSPGRP: {} {}", sys!(SYS_ioctl, a, SIOCSPGRP, &0i32), get(SIOCGPGRP));
    say!("not there: {}", sys!(SYS_ioctl, a, SIOCSPGRP, &4_000_000i32));
    say!("bad pointers: {} {}", sys!(SYS_ioctl, a, FIOSETOWN, NOWHERE), sys!(SYS_ioctl, a, FIOGETOWN, NOWHERE));
    say!("of a pipe: {}", sys!(SYS_ioctl, pipe()[0], FIOGETOWN, &mut 0i32));
}

fn terminal_lines() {
    let (master, slave) = pty();
    listen(slave);
    typed(master, slave, "no end", 0);
    say!("no line: {}", told());
    typed(master, slave, " yet\n", 11);
    say!("a line: {}", told());
    typed(master, slave, "one\ntwo\n", 19);
    say!("two lines: {}", told());
    say!("a read: {} {}", read(slave, 100), told());
    write(slave, "out");
    say!("a write: {}", told());
    say!("the master reads: {} {}", eventually(master), told());
}

fn terminal_raw() {
    let (master, slave) = pty();
    raw(slave, 5, 0);
    listen(slave);
    typed(master, slave, "ab", 2);
    say!("less than VMIN: {}", told());
    typed(master, slave, "cdefg", 7);
    say!("more: {}", told());
    sys!(SYS_ioctl, slave, TCFLSH, TCIFLUSH);
    say!("flushed: {}", told());
    close(master);
    say!("the master went: {}", told());
    say!("and then: {} {}", switch(slave, false), sys!(SYS_ioctl, slave, FIOASYNC, &mut 1i32));
}

fn terminal_owner() {
    let (_master, slave) = pty();
    signal::block(SIGIO);
    switch(slave, true);
    say!("without a session: {}", fcntl(slave, F_GETOWN, 0).0 == i64::from(process::pid()));
    let (_master, slave) = pty();
    fcntl(slave, F_SETOWN, 1);
    switch(slave, true);
    say!("one that was named before: {}", fcntl(slave, F_GETOWN, 0));
    let [reader, _writer] = pipe();
    switch(reader, true);
    say!("of a pipe: {}", fcntl(reader, F_GETOWN, 0));
}

fn terminal_group() {
    let (master, slave) = pty();
    session(slave, || {
        signal::block(SIGIO);
        switch(slave, true);
        let mut owner = [-1i32; 2];
        sys!(SYS_fcntl, slave, F_GETOWN_EX, &mut owner);
        say!("the foreground: kind {} own {}", owner[0], owner[1] == process::pid());
        typed(master, slave, "line\n", 5);
        say!("{}", told());
    });
}

fn master() {
    let (master, slave) = pty();
    listen(master);
    write(slave, "out");
    say!("output: {}", told());
    say!("read: {} {}", eventually(master), told());
    write(master, "in\n");
    say!("its own echo: {}", told());
}

fn master_hears_no_end() {
    let (master, slave) = pty();
    listen(master);
    close(slave);
    say!("the slave was closed: {}", told());
    let [reader, writer] = pipe_with(O_NONBLOCK);
    listen(writer);
    say!("an empty pipe is read: {}", read(reader, 10));
    say!("of which nobody need hear: {}", told().len() < 60);
}

fn through_signalfd() {
    let [reader, writer] = pipe();
    listen(reader);
    let fd = sys!(SYS_signalfd4, -1, &signal::bit(TOLD), 8, SFD_NONBLOCK).fd();
    write(writer, "x");
    let mut record: signalfd_siginfo = zeroed();
    sys!(SYS_read, fd, &mut record, 128).need();
    let said = (record.ssi_signo, record.ssi_code, record.ssi_band, record.ssi_fd, record.ssi_pid, record.ssi_uid);
    say!("signal, code, band, descriptor, process, user: {said:?}");
    signal::block(SIGIO);
    fcntl(reader, F_SETSIG, 0);
    write(writer, "x");
    let fd = sys!(SYS_signalfd4, -1, &signal::bit(SIGIO), 8, SFD_NONBLOCK).fd();
    sys!(SYS_read, fd, &mut record, 128).need();
    say!("a plain one: {} {} {} {}", record.ssi_signo, record.ssi_code, record.ssi_band, record.ssi_fd);
}
