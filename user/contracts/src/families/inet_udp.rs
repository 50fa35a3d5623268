//! UDP sockets.

use libc::*;

use crate::file::{close, read, write};
use crate::inet::{
    ANY, HERE, accept, address, bind, connect, datagrams, disconnect, events, events_in, listen, option, or_signal,
    own_name, peer_name, pending_error, port, receive, send, send_to, set_option, shutdown, socket, waiting_bytes,
};
use crate::process;
use crate::sys::{NOWHERE, sys, zeroed};
use crate::{say, tests};

tests! {
    datagrams_keep_borders, sent_from, without_destination, destinations, connected, connected_hears_one, nobody_there,
    nobody_told, undone, bound_by_sending, sizes, empty_ones, peeked, cut, messages, many_messages, wrong_memory, shut, shut_unconnected,
    ready, full, timeouts, waits, same_port, reuse, any_address, listen_and_accept, urgent, to_itself, after_the_end, wait_for_one,
}

fn from(fd: i32, length: usize) -> String {
    let (mut buffer, mut name, mut size) = (vec![0u8; length], address(1, 1), 16i32);
    let ret = sys!(SYS_recvfrom, fd, &mut buffer[..], length, MSG_DONTWAIT, &mut name, &mut size);
    let text = crate::file::shown(ret, &buffer);
    format!("{text} from {} size {size}", std::net::Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)))
}

fn datagrams_keep_borders() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    say!("{} {} {}", send_to(a, "one", there), send_to(a, "", there), send_to(a, "three", there));
    say!("next: {}", waiting_bytes(b));
    say!("{} {} {}", read(b, 20), read(b, 20), read(b, 20));
    say!("none: {} {}", receive(b, 5, MSG_DONTWAIT), waiting_bytes(b));
}

fn sent_from() {
    let ((a, here), (b, there)) = (datagrams(), datagrams());
    send_to(a, "x", there);
    let (mut byte, mut name, mut size) = ([0u8; 1], address(1, 1), 16i32);
    sys!(SYS_recvfrom, b, &mut byte, 1, 0, &mut name, &mut size);
    say!("size {size} family {} the port: {}", name.sin_family, u16::from_be(name.sin_port) == here);
    send_to(a, "x", there);
    size = 6;
    say!("little room: {} {size}", sys!(SYS_recvfrom, b, &mut byte, 1, 0, &mut name, &mut size));
    let any = socket(SOCK_DGRAM);
    bind(any, ANY, 0);
    send_to(any, "x", there);
    say!("of any address: {} {}", from(b, 5), own_name(any));
}

fn without_destination() {
    let fd = socket(SOCK_DGRAM);
    say!("send: {} write: {}", send(fd, "x", 0), write(fd, "x"));
    say!("too long: {}", sys!(SYS_sendto, fd, &vec![0u8; 70_000][..], 70_000, 0, 0, 0));
    say!("name: {} {}", own_name(fd), peer_name(fd));
    say!("receive: {}", receive(fd, 1, MSG_DONTWAIT));
}

fn destinations() {
    let fd = socket(SOCK_DGRAM);
    let send = |to: &sockaddr_in, size: i32| sys!(SYS_sendto, fd, "x", 1, 0, to, size);
    let mut to = address(HERE, 0);
    say!("port 0: {}", send(&to, 16));
    to = address(HERE, 9);
    say!("short: {} very short: {}", send(&to, 15), send(&to, 1));
    to.sin_family = AF_INET6 as u16;
    say!("family: {}", send(&to, 16));
    to.sin_family = 0;
    say!("no family: {}", send(&to, 16));
    say!("nowhere: {}", sys!(SYS_sendto, fd, "x", 1, 0, NOWHERE, 16));
    say!("any: {}", send(&address(ANY, 9), 16));
}

fn connected() {
    let ((a, here), (b, there)) = (datagrams(), datagrams());
    say!("connect: {} {}", connect(a, HERE, there), peer_name(a));
    say!("{} {}", write(a, "x"), from(b, 5));
    send_to(b, "back", here);
    say!("{}", read(a, 9));
    let (_c, third) = datagrams();
    say!("elsewhere: {} {}", send_to(a, "y", third), receive(b, 5, MSG_DONTWAIT));
    say!("another: {} {}", connect(a, HERE, third), write(a, "z"));
    say!("state: {}", option(a, SOL_SOCKET, SO_ERROR));
}

fn connected_hears_one() {
    let ((a, here), (_b, there)) = (datagrams(), datagrams());
    let (c, _) = datagrams();
    send_to(c, "early", here);
    connect(a, HERE, there);
    say!("a stranger: {} {}", send_to(c, "x", here), receive(a, 9, MSG_DONTWAIT));
    say!("then: {}", receive(a, 9, MSG_DONTWAIT));
}

fn nobody_there() {
    let (gone, there) = datagrams();
    let fd = socket(SOCK_DGRAM);
    connect(fd, HERE, there);
    close(gone);
    say!("first: {} {}", send(fd, "x", 0), events(fd));
    say!("second: {} third: {}", send(fd, "x", 0), send(fd, "x", 0));
    say!("receive: {} {}", receive(fd, 1, MSG_DONTWAIT), receive(fd, 1, MSG_DONTWAIT));
    send(fd, "x", 0);
    say!("error: {} {}", pending_error(fd), pending_error(fd));
    send(fd, "x", 0);
    say!("waiting: {}", read(fd, 1));
}

fn nobody_told() {
    let (gone, there) = datagrams();
    let fd = socket(SOCK_DGRAM);
    close(gone);
    say!("{} {} {}", send_to(fd, "x", there), send_to(fd, "x", there), events(fd));
    say!("receive: {} error {}", receive(fd, 1, MSG_DONTWAIT), pending_error(fd));
}

fn undone() {
    let ((a, _), (_b, there)) = (datagrams(), datagrams());
    connect(a, HERE, there);
    say!("{} {} {}", disconnect(a), own_name(a), peer_name(a));
    say!("send: {}", send(a, "x", 0));
    let fd = socket(SOCK_DGRAM);
    connect(fd, HERE, there);
    say!("connected: {}", own_name(fd));
    say!("undone: {} {}", disconnect(fd), own_name(fd));
}

fn bound_by_sending() {
    let (b, there) = datagrams();
    let fd = socket(SOCK_DGRAM);
    say!("before: {}", own_name(fd));
    send_to(fd, "x", there);
    say!("after: {}", own_name(fd));
    say!("bind: {}", bind(fd, HERE, 0));
    let (mut byte, mut name, mut size) = ([0u8; 1], address(1, 1), 16i32);
    sys!(SYS_recvfrom, b, &mut byte, 1, 0, &mut name, &mut size);
    say!("answer: {} {}", send_to(b, "y", u16::from_be(name.sin_port)), read(fd, 5));
}

fn sizes() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    let data = vec![b'd'; 70_000];
    for size in [1usize, 1500, 9000, 65_507, 65_508, 65_535, 65_536, 70_000] {
        let to = address(HERE, there);
        let sent = sys!(SYS_sendto, a, &data[..], size, 0, &to, 16);
        let mut buffer = vec![0u8; 70_000];
        let got = sys!(SYS_recvfrom, b, &mut buffer[..], 70_000, MSG_DONTWAIT, 0, 0);
        say!("{size}: {sent} {got}");
    }
}

fn empty_ones() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    connect(a, HERE, there);
    say!("send: {} write: {}", send(a, "", 0), write(a, ""));
    say!("{} {} {}", events(b), receive(b, 5, MSG_DONTWAIT), receive(b, 5, MSG_DONTWAIT));
    send(a, "x", 0);
    say!("read of nothing: {} {}", read(b, 0), waiting_bytes(b));
    say!("receive of nothing: {} {}", receive(b, 0, 0), waiting_bytes(b));
}

fn peeked() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    send_to(a, "first", there);
    send_to(a, "second", there);
    say!("{} {}", receive(b, 3, MSG_PEEK), receive(b, 20, MSG_PEEK));
    say!("{} {}", receive(b, 20, 0), receive(b, 20, 0));
}

fn cut() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    send_to(a, "a long one", there);
    send_to(a, "another", there);
    say!("cut: {} {}", receive(b, 3, 0), receive(b, 3, MSG_TRUNC | MSG_PEEK));
    say!("trunc: {} {}", receive(b, 3, MSG_TRUNC), receive(b, 3, MSG_DONTWAIT));
}

fn messages() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    let mut to = address(HERE, there);
    let (one, two) = ("one", "two");
    let mut pieces = [[one.as_ptr() as usize, 3], [two.as_ptr() as usize, 3]];
    let mut header: msghdr = zeroed();
    header.msg_name = (&raw mut to).cast();
    header.msg_namelen = 16;
    header.msg_iov = pieces.as_mut_ptr().cast();
    header.msg_iovlen = 2;
    say!("sendmsg: {}", sys!(SYS_sendmsg, a, &header, 0));
    let (mut buffer, mut name) = ([0u8; 20], address(1, 1));
    let mut into = [[buffer.as_mut_ptr() as usize, 4]];
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = 100;
    header.msg_iov = into.as_mut_ptr().cast();
    header.msg_iovlen = 1;
    let ret = sys!(SYS_recvmsg, b, &mut header, 0);
    say!("recvmsg: {ret} {:?} name {} flags {:x}", &buffer[..5], header.msg_namelen, header.msg_flags);
    send_to(a, "four", there);
    let ret = sys!(SYS_recvmsg, b, &mut header, MSG_TRUNC);
    say!("all of it: {ret} name {} flags {:x}", header.msg_namelen, header.msg_flags);
}

fn many_messages() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    connect(a, HERE, there);
    let texts = ["one", "two", "three"];
    let mut pieces = texts.map(|text| [text.as_ptr() as usize, text.len()]);
    let mut headers: [mmsghdr; 3] = zeroed();
    for (header, piece) in headers.iter_mut().zip(&mut pieces) {
        header.msg_hdr.msg_iov = (&raw mut *piece).cast();
        header.msg_hdr.msg_iovlen = 1;
    }
    say!("sendmmsg: {} {:?}", sys!(SYS_sendmmsg, a, &mut headers, 3, 0), headers.map(|header| header.msg_len));
    let mut buffers = [[0u8; 8]; 4];
    let mut pieces: Vec<[usize; 2]> = buffers.iter_mut().map(|buffer| [buffer.as_mut_ptr() as usize, 8]).collect();
    let mut headers: [mmsghdr; 4] = zeroed();
    for (header, piece) in headers.iter_mut().zip(&mut pieces) {
        header.msg_hdr.msg_iov = (&raw mut *piece).cast();
        header.msg_hdr.msg_iovlen = 1;
    }
    let ret = sys!(SYS_recvmmsg, b, &mut headers, 4, MSG_DONTWAIT, 0);
    say!("recvmmsg: {ret} {:?}", headers.map(|header| header.msg_len));
    say!("none: {}", sys!(SYS_recvmmsg, b, &mut headers, 4, MSG_DONTWAIT, 0));
}

fn wait_for_one() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    send_to(a, "x", there);
    let mut buffer = [0u8; 8];
    let mut piece = [buffer.as_mut_ptr() as usize, 8];
    let mut headers: [mmsghdr; 3] = zeroed();
    for header in &mut headers {
        header.msg_hdr.msg_iov = (&raw mut piece).cast();
        header.msg_hdr.msg_iovlen = 1;
    }
    say!("{}", sys!(SYS_recvmmsg, b, &mut headers, 3, MSG_WAITFORONE, 0));
}

fn wrong_memory() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    connect(a, HERE, there);
    say!("send: {}", sys!(SYS_sendto, a, NOWHERE, 5, 0, 0, 0));
    say!("nothing came: {}", receive(b, 5, MSG_DONTWAIT));
    send(a, "x", 0);
    let mut size = 16i32;
    let mut byte = [0u8; 4];
    say!("name: {}", sys!(SYS_recvfrom, b, &mut byte, 4, 0, NOWHERE, &mut size));
}

fn shut() {
    let ((a, here), (b, there)) = (datagrams(), datagrams());
    connect(a, HERE, there);
    say!("send side: {} {} {}", shutdown(a, SHUT_WR), or_signal(|| send(a, "x", 0)), events(a));
    say!("receive side: {} {}", shutdown(a, SHUT_RD), events(a));
    say!("read: {} now: {}", read(a, 5), receive(a, 5, MSG_DONTWAIT));
    say!("what comes: {} {}", send_to(b, "y", here), receive(a, 5, MSG_DONTWAIT));
}

fn shut_unconnected() {
    let (fd, _) = datagrams();
    say!("{} {}", shutdown(fd, SHUT_RD), events(fd));
    say!("read: {}", read(fd, 5));
    say!("how: {}", shutdown(fd, 9));
}

fn ready() {
    say!("fresh: {}", events(socket(SOCK_DGRAM)));
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    say!("bound: {}", events(b));
    send_to(a, "x", there);
    say!("something: {} {}", events(b), events_in(b, POLLIN, 100));
}

fn full() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    set_option(b, SOL_SOCKET, SO_RCVBUF, 5000);
    let text = "t".repeat(1000);
    say!("all are sent: {}", (0..100).all(|_| send_to(a, &text, there).ok()));
    let mut count = 0;
    while receive(b, 2000, MSG_DONTWAIT).len() > 1000 {
        count += 1;
    }
    say!("some come: {} {}", count > 1, count < 100);
    say!("then again: {} {}", send_to(a, "x", there), receive(b, 5, MSG_DONTWAIT));
}

fn timeouts() {
    let (fd, _) = datagrams();
    let time = timeval { tv_sec: 0, tv_usec: 20_000 };
    sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_RCVTIMEO, &time, 16);
    say!("{} {}", receive(fd, 1, 0), read(fd, 1));
}

fn waits() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    let child = process::child(|| {
        process::sleep_ms(20);
        send_to(a, "late", there);
        0
    });
    say!("{} {}", receive(b, 9, 0), process::wait(child));
}

fn same_port() {
    let (_a, number) = datagrams();
    say!("taken: {}", bind(socket(SOCK_DGRAM), HERE, number));
    say!("any: {}", bind(socket(SOCK_DGRAM), ANY, number));
    say!("another address: {}", bind(socket(SOCK_DGRAM), HERE + 1, number));
    say!("another protocol: {}", bind(socket(SOCK_STREAM), HERE, number));
    process::as_plain_user(|| say!("privileged: {}", bind(socket(SOCK_DGRAM), HERE, 53)));
}

fn reuse() {
    let pair = [socket(SOCK_DGRAM), socket(SOCK_DGRAM)];
    for fd in pair {
        set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    }
    bind(pair[0], HERE, 0);
    say!("both: {}", bind(pair[1], HERE, port(pair[0])));
    say!("one alone: {}", bind(socket(SOCK_DGRAM), HERE, port(pair[0])));
}

fn any_address() {
    let any = socket(SOCK_DGRAM);
    bind(any, ANY, 0);
    let number = port(any);
    let fd = socket(SOCK_DGRAM);
    let send = |ip| sys!(SYS_sendto, fd, "x", 1, 0, &address(ip, number), 16);
    say!("{} {} {}", send(HERE), send(HERE + 7), send(ANY));
    say!("{} {} {}", from(any, 5), from(any, 5), from(any, 5));
    say!("not ours: {}", bind(socket(SOCK_DGRAM), 0x0808_0808, 0));
    say!("broadcast: {}", bind(socket(SOCK_DGRAM), u32::MAX, 0));
}

fn listen_and_accept() {
    let (fd, _) = datagrams();
    say!("{} {}", listen(fd, 1), accept(fd));
    say!("listening: {}", option(fd, SOL_SOCKET, SO_ACCEPTCONN));
}

fn urgent() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    connect(a, HERE, there);
    say!("send: {}", send(a, "x", MSG_OOB));
    say!("receive: {}", receive(b, 5, MSG_OOB | MSG_DONTWAIT));
}

fn to_itself() {
    let (fd, number) = datagrams();
    say!("{} {}", send_to(fd, "x", number), read(fd, 5));
    say!("connected: {} {} {}", connect(fd, HERE, number), write(fd, "y"), read(fd, 5));
}

fn after_the_end() {
    let ((a, _), (b, there)) = (datagrams(), datagrams());
    send_to(a, "left behind", there);
    close(a);
    say!("{}", read(b, 20));
    close(b);
    let again = socket(SOCK_DGRAM);
    say!("the port is free: {}", bind(again, HERE, there));
    say!("nothing is left: {}", receive(again, 20, MSG_DONTWAIT));
}
