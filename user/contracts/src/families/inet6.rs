//! Sockets of AF_INET6.

use libc::*;

use crate::file::{close, read, write};
use crate::inet;
use crate::sys::{Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    names, bind_errors, connection, mapped, mapped_client, only_v6, both_families, refused, datagrams, datagrams_mapped,
    old_addresses,
}

const HERE: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const ANY: [u8; 16] = [0; 16];
const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];
const SIZE: usize = size_of::<sockaddr_in6>();

fn address(ip: [u8; 16], port: u16) -> sockaddr_in6 {
    let mut address: sockaddr_in6 = zeroed();
    address.sin6_family = AF_INET6 as u16;
    address.sin6_addr.s6_addr = ip;
    address.sin6_port = port.to_be();
    address
}

fn socket(kind: i32) -> i32 {
    sys!(SYS_socket, AF_INET6, kind, 0).fd()
}

fn bind(fd: i32, ip: [u8; 16], port: u16) -> Ret {
    sys!(SYS_bind, fd, &address(ip, port), SIZE)
}

fn connect(fd: i32, ip: [u8; 16], port: u16) -> Ret {
    sys!(SYS_connect, fd, &address(ip, port), SIZE)
}

fn name_by(number: i64, fd: i32) -> (String, u16) {
    let (mut name, mut length) = (address(ANY, 0), SIZE as i32);
    let ret = crate::sys::raw(number, &[fd as usize, (&raw mut name) as usize, (&raw mut length) as usize]);
    if !ret.ok() {
        return (ret.to_string(), 0);
    }
    let port = if name.sin6_port == 0 { "no port" } else { "a port" };
    let ip = std::net::Ipv6Addr::from(name.sin6_addr.s6_addr);
    (format!("{} {ip} {port} {length}", name.sin6_family), u16::from_be(name.sin6_port))
}

fn own_name(fd: i32) -> String {
    name_by(SYS_getsockname, fd).0
}

fn peer_name(fd: i32) -> String {
    name_by(SYS_getpeername, fd).0
}

fn port(fd: i32) -> u16 {
    name_by(SYS_getsockname, fd).1
}

fn listener(ip: [u8; 16]) -> (i32, u16) {
    let fd = socket(SOCK_STREAM);
    bind(fd, ip, 0).need();
    inet::listen(fd, 4).need();
    (fd, port(fd))
}

fn names() {
    let fd = socket(SOCK_STREAM);
    say!("fresh: {}, {}", own_name(fd), peer_name(fd));
    say!("bound: {} {}", bind(fd, HERE, 0), own_name(fd));
    let fd = socket(SOCK_DGRAM);
    say!("any: {} {}", bind(fd, ANY, 0), own_name(fd));
    let fd = socket(SOCK_DGRAM);
    say!("mapped: {} {}", bind(fd, MAPPED, 0), own_name(fd));
}

fn bind_errors() {
    let fd = socket(SOCK_STREAM);
    let good = address(HERE, 0);
    say!("short: {} old: {}", sys!(SYS_bind, fd, &good, 23), sys!(SYS_bind, fd, &good, 24));
    let fd = socket(SOCK_STREAM);
    say!("AF_INET: {} long: {}", inet::bind(fd, inet::HERE, 0), sys!(SYS_bind, fd, &inet::address(inet::HERE, 0), 28));
    let mut other = HERE;
    other[15] = 2;
    say!("not ours: {}", bind(fd, other, 0));
}

fn connection() {
    let (fd, number) = listener(HERE);
    let client = socket(SOCK_STREAM);
    say!("connect: {} {}, {}", connect(client, HERE, number), own_name(client), peer_name(client));
    let there = inet::accept(fd).fd();
    say!("there: {}, {}", own_name(there), peer_name(there));
    say!("{} {}", write(client, "x"), read(there, 5));
    close(client);
    say!("the end: {} {}", read(there, 5), inet::events(there));
    let client = socket(SOCK_STREAM);
    say!("through any: {} {}", connect(client, ANY, number), peer_name(client));
    say!("again: {}", connect(client, HERE, number));
}

fn mapped() {
    let (fd, number) = listener(ANY);
    let client = inet::socket(SOCK_STREAM);
    say!("connect: {}", inet::connect(client, inet::HERE, number));
    let there = inet::accept(fd).fd();
    say!("there: {}, {}", own_name(there), peer_name(there));
    say!("{} {}", write(there, "x"), read(client, 5));
}

fn mapped_client() {
    let (fd, number) = inet::listener(1);
    let client = socket(SOCK_STREAM);
    say!("connect: {} {}, {}", connect(client, MAPPED, number), own_name(client), peer_name(client));
    say!("there: {}", inet::peer_name(inet::accept(fd).fd()));
    say!("a v4 listener: {}", connect(socket(SOCK_STREAM), HERE, number));
}

fn only_v6() {
    let fd = socket(SOCK_STREAM);
    inet::set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    bind(fd, ANY, 0);
    inet::listen(fd, 1);
    let number = port(fd);
    say!("v4: {}", inet::connect(inet::socket(SOCK_STREAM), inet::HERE, number));
    say!("v6: {}", connect(socket(SOCK_STREAM), HERE, number));
    say!("too late: {}", inet::set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0));
    let client = socket(SOCK_STREAM);
    inet::set_option(client, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    say!("mapped: {} {}", connect(client, MAPPED, number), bind(client, MAPPED, 0));
}

fn both_families() {
    let (_fd, number) = listener(ANY);
    say!("v4 too: {}", inet::bind(inet::socket(SOCK_STREAM), inet::ANY, number));
    say!("one of v4: {}", inet::bind(inet::socket(SOCK_STREAM), inet::HERE, number));
    let only = socket(SOCK_STREAM);
    inet::set_option(only, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    bind(only, ANY, 0);
    say!("beside v6 only: {}", inet::bind(inet::socket(SOCK_STREAM), inet::ANY, port(only)));
}

fn refused() {
    let fd = socket(SOCK_STREAM);
    bind(fd, HERE, 0);
    let number = port(fd);
    close(fd);
    say!("{}", connect(socket(SOCK_STREAM), HERE, number));
}

fn from(fd: i32) -> String {
    let (mut buffer, mut name, mut length) = ([0u8; 20], address(ANY, 0), SIZE as i32);
    let ret = sys!(SYS_recvfrom, fd, &mut buffer, 20, MSG_DONTWAIT, &mut name, &mut length);
    let ip = std::net::Ipv6Addr::from(name.sin6_addr.s6_addr);
    format!("{} from {ip} {length}", crate::file::shown(ret, &buffer))
}

fn datagrams() {
    let (a, b) = (socket(SOCK_DGRAM), socket(SOCK_DGRAM));
    bind(b, HERE, 0);
    let to = address(HERE, port(b));
    say!("{} {}", sys!(SYS_sendto, a, "x", 1, 0, &to, SIZE), from(b));
    say!("{} {}", connect(a, HERE, port(b)), peer_name(a));
    say!("{} {} {}", write(a, "y"), from(b), own_name(a));
    close(b);
    say!("gone: {} {}", write(a, "z"), write(a, "z"));
}

fn datagrams_mapped() {
    let any = socket(SOCK_DGRAM);
    bind(any, ANY, 0);
    let fd = inet::socket(SOCK_DGRAM);
    say!("{} {}", inet::send_to(fd, "x", port(any)), from(any));
    let (four, number) = inet::datagrams();
    let fd = socket(SOCK_DGRAM);
    say!("{}", sys!(SYS_sendto, fd, "y", 1, 0, &address(MAPPED, number), SIZE));
    say!("as v4: {}", sys!(SYS_sendto, fd, "z", 1, 0, &inet::address(inet::HERE, number), 16));
    say!("{} {}", read(four, 5), read(four, 5));
}

fn old_addresses() {
    let (_fd, number) = listener(HERE);
    let to = address(HERE, number);
    say!("24 bytes: {}", sys!(SYS_connect, socket(SOCK_STREAM), &to, 24));
    say!("23 bytes: {}", sys!(SYS_connect, socket(SOCK_STREAM), &to, 23));
    let four = inet::address(inet::HERE, number);
    say!(
        "AF_INET: {} {}",
        sys!(SYS_connect, socket(SOCK_STREAM), &four, 16),
        sys!(SYS_connect, socket(SOCK_STREAM), &four, 28)
    );
}
