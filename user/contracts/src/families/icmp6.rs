//! ICMP sockets of AF_INET6.

use libc::*;

use super::icmp::{self, allowed, question, told_of};
use crate::inet::{HERE, address, bind, option, set_option};
use crate::sys::{Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    echo, names, told, mapped,
}

pub const HERE6: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const ANY6: [u8; 16] = [0; 16];
const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];

fn socket() -> i32 {
    allowed(|| sys!(SYS_socket, AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6)).fd()
}

pub fn address6(ip: [u8; 16], port: u16) -> sockaddr_in6 {
    let mut address: sockaddr_in6 = zeroed();
    address.sin6_family = AF_INET6 as u16;
    address.sin6_addr.s6_addr = ip;
    address.sin6_port = port.to_be();
    address
}

fn question6(number: u16, text: &str) -> Vec<u8> {
    let mut bytes = question(0, number, text);
    bytes[0] = 128;
    bytes
}

fn ask6(fd: i32, ip: [u8; 16], bytes: &[u8]) -> Ret {
    sys!(SYS_sendto, fd, bytes, bytes.len(), 0, &address6(ip, 0), 28)
}

fn name6(number: i64, fd: i32) -> String {
    let (mut name, mut length) = (address6(ANY6, 0), 28i32);
    let ret = crate::sys::raw(number, &[fd as usize, (&raw mut name) as usize, (&raw mut length) as usize]);
    let ip = std::net::Ipv6Addr::from(name.sin6_addr.s6_addr);
    if ret.ok() { format!("{ip} {} {length}", name.sin6_port != 0) } else { ret.to_string() }
}

fn heard6(fd: i32) -> String {
    let (mut buffer, mut name, mut size) = ([0u8; 100], address6(ANY6, 1), 28i32);
    let ret = sys!(SYS_recvfrom, fd, &mut buffer, 100, MSG_DONTWAIT, &mut name, &mut size);
    if !ret.ok() {
        return ret.to_string();
    }
    let (mut own, mut length) = (address6(ANY6, 0), 28i32);
    sys!(SYS_getsockname, fd, &mut own, &mut length);
    let ident = buffer[4..6] == own.sin6_port.to_ne_bytes();
    let text = String::from_utf8_lossy(&buffer[8..ret.0 as usize]);
    let ip = std::net::Ipv6Addr::from(name.sin6_addr.s6_addr);
    format!("{ret}: {} {} own {ident} {} {text} from {ip} {} {size}", buffer[0], buffer[1], buffer[7], name.sin6_port)
}

fn echo() {
    let fd = socket();
    say!("ask: {} {}", ask6(fd, HERE6, &question6(5, "six")), heard6(fd));
    say!("any: {} {}", ask6(fd, ANY6, &question6(6, "")), heard6(fd));
    say!("of the other: {}", ask6(fd, HERE6, &question(0, 0, "x")));
    say!("short: {} nothing: {}", ask6(fd, HERE6, &question6(0, "")[..7]), ask6(fd, HERE6, &[]));
    say!("code: {}", {
        let mut bytes = question6(0, "x");
        bytes[1] = 1;
        ask6(fd, HERE6, &bytes)
    });
    let bytes = question6(0, "x");
    say!("none: {}", sys!(SYS_write, fd, &bytes[..], bytes.len()));
    say!("a short name: {}", sys!(SYS_sendto, fd, &bytes[..], bytes.len(), 0, &address6(HERE6, 0), 23));
    say!("family: {}", sys!(SYS_sendto, fd, &bytes[..], bytes.len(), 0, &address(HERE, 0), 28));
    let other = icmp::socket();
    say!("they do not hear each other: {} {}", ask6(fd, HERE6, &bytes), icmp::heard(other));
}

fn names() {
    let fd = socket();
    say!("fresh: {} {}", name6(SYS_getsockname, fd), name6(SYS_getpeername, fd));
    say!("bind: {} {}", sys!(SYS_bind, fd, &address6(HERE6, 66), 28), name6(SYS_getsockname, fd));
    say!("again: {}", sys!(SYS_bind, fd, &address6(HERE6, 66), 28));
    let other = icmp::socket();
    say!("one for both: {}", bind(other, HERE, 66));
    let fd = socket();
    say!("short: {}", sys!(SYS_bind, fd, &address6(HERE6, 0), 27));
    let mut nobody = HERE6;
    nobody[0] = 0x20;
    say!("not ours: {}", sys!(SYS_bind, fd, &address6(nobody, 0), 28));
    say!("family: {}", sys!(SYS_bind, fd, &address(HERE, 0), 28));
    say!("connect: {} {}", sys!(SYS_connect, fd, &address6(HERE6, 0), 28), name6(SYS_getsockname, fd));
    say!("peer: {}", name6(SYS_getpeername, fd));
    say!("with a port: {} {}", sys!(SYS_connect, fd, &address6(HERE6, 3), 28), name6(SYS_getpeername, fd));
    let bytes = question6(1, "x");
    say!("write: {} {}", sys!(SYS_write, fd, &bytes[..], bytes.len()), heard6(fd));
}

fn told() {
    let fd = socket();
    for name in [IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS, IPV6_RECVPKTINFO] {
        say!("{name}: {} {}", option(fd, IPPROTO_IPV6, name), set_option(fd, IPPROTO_IPV6, name, 1));
        ask6(fd, HERE6, &question6(0, "x"));
        told_of(fd, 320).iter().for_each(|line| say!("{line}"));
    }
    say!("only: {} {}", option(fd, IPPROTO_IPV6, IPV6_V6ONLY), option(fd, IPPROTO_IPV6, IPV6_UNICAST_HOPS));
}

fn mapped() {
    let fd = socket();
    say!("ask: {}", ask6(fd, MAPPED, &question6(0, "x")));
    say!("bind: {}", sys!(SYS_bind, fd, &address6(MAPPED, 0), 28));
    say!("connect: {}", sys!(SYS_connect, fd, &address6(MAPPED, 0), 28));
}
