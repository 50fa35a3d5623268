//! Internet sockets: addresses and ports, bind, listen and accept.

use libc::*;

use crate::file::{close, read, write};
use crate::inet::{
    ANY, HERE, accept, address, bind, connect, connection, events, listen, listener, option, or_signal, own_name,
    peer_name, port, receive, send, set_option, socket, tcp_state, waiting_bytes,
};
use crate::process;
use crate::sys::{NOWHERE, sys, zeroed};
use crate::{say, tests};

tests! {
    kinds, bind_errors, bind_names, bind_twice, reuse_address, reuse_port, any_and_one, privileged_ports,
    ephemeral_ports, listen_errors, listen_unbound, listen_twice, both_listen, accept_names, accept_errors,
    accept_flags, in_time_wait, reuse_in_time_wait, child_keeps_port,
}

fn kinds() {
    for family in [AF_INET, AF_INET6] {
        for (name, kind) in
            [("stream", SOCK_STREAM), ("dgram", SOCK_DGRAM), ("seqpacket", SOCK_SEQPACKET), ("rdm", SOCK_RDM)]
        {
            for protocol in [0, IPPROTO_TCP, IPPROTO_UDP, 200, 300, -1] {
                say!("{family} {name} {protocol}: {}", sys!(SYS_socket, family, kind, protocol).ok_or_error());
            }
        }
    }
    say!("unknown kind: {}", sys!(SYS_socket, AF_INET, 12, 0));
    say!("unknown flag: {}", sys!(SYS_socket, AF_INET, SOCK_STREAM | 0x100, 0));
    let mut pair = [0i32; 2];
    say!("pair: {}", sys!(SYS_socketpair, AF_INET, SOCK_STREAM, 0, &mut pair));
    process::as_plain_user(|| say!("raw: {}", sys!(SYS_socket, AF_INET, SOCK_RAW, IPPROTO_UDP)));
}

fn bind_errors() {
    let fd = socket(SOCK_STREAM);
    let mut good = address(HERE, 0);
    say!("short: {}", sys!(SYS_bind, fd, &good, 15));
    say!("very short: {}", sys!(SYS_bind, fd, &good, 1));
    say!("long: {}", sys!(SYS_bind, fd, &good, 200));
    say!("nowhere: {}", sys!(SYS_bind, fd, NOWHERE, 16));
    good.sin_family = AF_UNIX as u16;
    say!("family: {}", sys!(SYS_bind, fd, &good, 16));
    good.sin_family = 0;
    say!("no family: {}", sys!(SYS_bind, fd, &good, 16));
    say!("not ours: {}", bind(fd, 0x0808_0808, 0));
    say!("another loopback: {}", bind(fd, HERE + 5, 0));
    say!("again: {}", bind(fd, HERE, 0));
    let fd = socket(SOCK_STREAM);
    let any: sockaddr_in = zeroed();
    say!("nothing at all: {}", sys!(SYS_bind, fd, &any, 16));
    say!("no socket: {}", sys!(SYS_bind, 0, &any, 16).ok());
}

fn bind_names() {
    let fd = socket(SOCK_STREAM);
    say!("fresh: {} {}", own_name(fd), peer_name(fd));
    bind(fd, ANY, 0);
    say!("any: {} {}", own_name(fd), peer_name(fd));
    let fd = socket(SOCK_STREAM);
    bind(fd, HERE + 1, 0);
    say!("one: {} {}", own_name(fd), peer_name(fd));
    let (mut short, mut length) = ([0u8; 4], 4i32);
    say!("little room: {} {length}", sys!(SYS_getsockname, fd, &mut short, &mut length));
    say!("the true length: {length}");
    length = -1;
    say!("negative: {}", sys!(SYS_getsockname, fd, &mut short, &mut length));
}

fn bind_twice() {
    let (_first, number) = listener(1);
    let second = socket(SOCK_STREAM);
    say!("the same: {}", bind(second, HERE, number));
    say!("any: {}", bind(second, ANY, number));
    say!("another: {}", bind(second, HERE + 1, number));
    let third = socket(SOCK_STREAM);
    bind(third, HERE, 0);
    let number = port(third);
    say!("not listening: {}", bind(socket(SOCK_STREAM), HERE, number));
    close(third);
    say!("closed: {}", bind(socket(SOCK_STREAM), HERE, number));
}

fn reuse_address() {
    let pair = [socket(SOCK_STREAM), socket(SOCK_STREAM), socket(SOCK_STREAM)];
    bind(pair[0], HERE, 0);
    let number = port(pair[0]);
    set_option(pair[1], SOL_SOCKET, SO_REUSEADDR, 1);
    say!("one of them: {}", bind(pair[1], HERE, number));
    close(pair[0]);
    say!("alone: {}", bind(pair[1], HERE, number));
    set_option(pair[2], SOL_SOCKET, SO_REUSEADDR, 1);
    say!("both: {}", bind(pair[2], HERE, number));
    say!("one listens: {}", listen(pair[1], 1));
    say!("the other: {}", listen(pair[2], 1));
    let late = socket(SOCK_STREAM);
    set_option(late, SOL_SOCKET, SO_REUSEADDR, 1);
    say!("late: {}", bind(late, HERE, number));
}

fn reuse_port() {
    let pair = [socket(SOCK_STREAM), socket(SOCK_STREAM)];
    for fd in pair {
        set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    }
    bind(pair[0], HERE, 0);
    let number = port(pair[0]);
    say!("both: {} {}", bind(pair[1], HERE, number), listen(pair[0], 1));
    say!("both listen: {}", listen(pair[1], 1));
    say!("who does not share: {}", bind(socket(SOCK_STREAM), HERE, number));
    process::as_plain_user(|| {
        let other = socket(SOCK_STREAM);
        set_option(other, SOL_SOCKET, SO_REUSEPORT, 1);
        say!("another user: {}", bind(other, HERE, number));
    });
}

fn any_and_one() {
    let any = socket(SOCK_STREAM);
    bind(any, ANY, 0);
    listen(any, 1);
    let number = port(any);
    let client = socket(SOCK_STREAM);
    say!("through 127.0.0.9: {}", connect(client, HERE + 8, number));
    let there = accept(any).fd();
    say!("client: {}, {}", own_name(client), peer_name(client));
    say!("server: {}, {}", own_name(there), peer_name(there));
    let client = socket(SOCK_STREAM);
    say!("through 0.0.0.0: {} {}", connect(client, ANY, number), peer_name(client));
    let one = socket(SOCK_STREAM);
    bind(one, HERE, 0);
    listen(one, 1);
    say!("one address only: {}", connect(socket(SOCK_STREAM), HERE + 1, port(one)));
}

fn privileged_ports() {
    process::as_plain_user(|| {
        for number in [1, 1023] {
            say!("{number}: {}", bind(socket(SOCK_STREAM), HERE, number));
        }
        say!("not ours: {}", bind(socket(SOCK_STREAM), 0x0808_0808, 80));
    });
    say!("root: {}", bind(socket(SOCK_STREAM), HERE, 81));
}

fn ephemeral_ports() {
    let mut ports: Vec<u16> = (0..50).map(|_| listener(1).1).collect();
    let inside = ports.iter().all(|port| (32_768..=60_999).contains(port));
    ports.sort_unstable();
    ports.dedup();
    say!("in the range: {inside}, different: {}", ports.len());
    let (_listener, number) = listener(60);
    let mut ports: Vec<u16> = (0..50)
        .map(|_| {
            let fd = socket(SOCK_STREAM);
            connect(fd, HERE, number);
            port(fd)
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    say!("of connections: {}", ports.len());
}

fn listen_errors() {
    say!("datagrams: {}", listen(socket(SOCK_DGRAM), 1));
    let [here, there] = connection();
    say!("connected: {} {}", listen(here, 1), listen(there, 1));
    say!("not a socket: {}", listen(0, 1).ok());
    let (fd, number) = listener(1);
    say!("connect: {}", connect(fd, HERE, number));
    say!("send, receive: {} {}", or_signal(|| send(fd, "x", 0)), receive(fd, 1, 0));
    say!("events: {} {}", events(fd), waiting_bytes(fd));
    say!("is listening: {} {}", option(fd, SOL_SOCKET, SO_ACCEPTCONN), option(here, SOL_SOCKET, SO_ACCEPTCONN));
    say!("state: {}", tcp_state(fd));
    say!("name: {} {}", own_name(fd), peer_name(fd));
}

fn listen_unbound() {
    let fd = socket(SOCK_STREAM);
    say!("listen: {} {}", listen(fd, 1), own_name(fd));
    say!("connect: {}", connect(socket(SOCK_STREAM), HERE, port(fd)));
}

fn listen_twice() {
    let (fd, number) = listener(0);
    say!("again: {}", listen(fd, 5));
    for _ in 0..4 {
        say!("connect: {}", connect(socket(SOCK_STREAM), HERE, number));
    }
    say!("a negative backlog: {}", listen(fd, -1));
}

fn both_listen() {
    let pair = [socket(SOCK_STREAM), socket(SOCK_STREAM)];
    bind(pair[0], HERE, 0);
    listen(pair[0], 2);
    say!("at another address: {} {}", bind(pair[1], HERE + 1, port(pair[0])), listen(pair[1], 2));
    for (index, ip) in [HERE, HERE + 1].into_iter().enumerate() {
        let client = socket(SOCK_STREAM);
        connect(client, ip, port(pair[0]));
        write(client, "x");
        let there = accept(pair[index]).fd();
        say!("{index}: {}", own_name(there));
    }
}

fn accept_names() {
    let (fd, number) = listener(2);
    let client = socket(SOCK_STREAM);
    connect(client, HERE, number);
    let (mut from, mut length) = (address(0, 0), 16i32);
    let there = sys!(SYS_accept, fd, &mut from, &mut length).fd();
    say!("{length} {} {}", from.sin_family, u16::from_be(from.sin_port) == port(client));
    say!("names: {}, {}, {}, {}", own_name(there), peer_name(there), own_name(client), peer_name(client));
    say!("the listener's port: {}", port(there) == number);
    let client = socket(SOCK_STREAM);
    connect(client, HERE, number);
    length = 4;
    say!("little room: {} {length}", sys!(SYS_accept, fd, &mut from, &mut length).ok_or_error());
    connect(socket(SOCK_STREAM), HERE, number);
    say!("nowhere: {}", sys!(SYS_accept, fd, NOWHERE, &mut length));
}

fn accept_errors() {
    say!("fresh: {}", accept(socket(SOCK_STREAM)));
    say!("datagrams: {}", accept(socket(SOCK_DGRAM)));
    let [here, _there] = connection();
    say!("connected: {}", accept(here));
    let (fd, _) = listener(1);
    say!("flags: {}", sys!(SYS_accept4, fd, 0, 0, 1));
    sys!(SYS_fcntl, fd, F_SETFL, O_NONBLOCK);
    say!("nobody: {}", accept(fd));
    let time = timeval { tv_sec: 0, tv_usec: 20_000 };
    sys!(SYS_fcntl, fd, F_SETFL, 0);
    sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_RCVTIMEO, &time, 16);
    say!("nobody in time: {}", accept(fd));
}

fn accept_flags() {
    let (fd, number) = listener(5);
    sys!(SYS_fcntl, fd, F_SETFL, O_NONBLOCK);
    for flags in [0, SOCK_NONBLOCK, SOCK_CLOEXEC] {
        connect(socket(SOCK_STREAM), HERE, number);
        let there = sys!(SYS_accept4, fd, 0, 0, flags).fd();
        let status = sys!(SYS_fcntl, there, F_GETFL, 0).0;
        say!("{flags:o}: {} {}", status & i64::from(O_NONBLOCK), sys!(SYS_fcntl, there, F_GETFD, 0));
    }
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    connect(socket(SOCK_STREAM), HERE, number);
    let there = accept(fd).fd();
    say!("inherited: {} {}", option(there, IPPROTO_TCP, TCP_NODELAY), option(there, SOL_SOCKET, SO_KEEPALIVE));
}

fn in_time_wait() {
    let (fd, number) = listener(1);
    let client = socket(SOCK_STREAM);
    connect(client, HERE, number);
    let there = accept(fd).fd();
    close(there);
    close(client);
    close(fd);
    say!("the server closed first: {}", bind(socket(SOCK_STREAM), HERE, number));
    let reusing = socket(SOCK_STREAM);
    set_option(reusing, SOL_SOCKET, SO_REUSEADDR, 1);
    say!("SO_REUSEADDR alone: {}", bind(reusing, HERE, number));
    let (fd, number) = listener(1);
    let client = socket(SOCK_STREAM);
    connect(client, HERE, number);
    let there = accept(fd).fd();
    close(client);
    close(there);
    close(fd);
    say!("the client closed first: {}", bind(socket(SOCK_STREAM), HERE, number));
}

fn reuse_in_time_wait() {
    let fd = socket(SOCK_STREAM);
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    bind(fd, HERE, 0);
    listen(fd, 1);
    let number = port(fd);
    let client = socket(SOCK_STREAM);
    connect(client, HERE, number);
    let there = accept(fd).fd();
    close(there);
    close(client);
    close(fd);
    say!("without: {}", bind(socket(SOCK_STREAM), HERE, number));
    let again = socket(SOCK_STREAM);
    set_option(again, SOL_SOCKET, SO_REUSEADDR, 1);
    say!("with: {} {}", bind(again, HERE, number), listen(again, 1));
}

fn child_keeps_port() {
    let (fd, number) = listener(1);
    let client = socket(SOCK_STREAM);
    connect(client, HERE, number);
    let there = accept(fd).fd();
    close(fd);
    say!("a connection is left: {}", bind(socket(SOCK_STREAM), HERE, number));
    say!("it works: {} {}", write(client, "x"), read(there, 5));
    say!("nobody listens: {}", connect(socket(SOCK_STREAM), HERE, number));
}
