//! Multicast of IPv4 on the loopback: ip(7).

use libc::*;

use super::link_sockets::make;
use super::socket_filters::{attach, one};
use crate::file::close;
use crate::inet::{ANY, HERE, address, bind, events, option, port, receive, set_option, socket};
use crate::message::received;
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    values, interfaces, interface_forms, join_errors, joined_twice, left, left_errors, many, delivered, to_all_who_bind, to_a_crowd,
    not_joined, all_or_own, bound_to_group, without_loop, hops, told, from_which, no_way, gone_with_the_socket, to_everybody,
    from_elsewhere, by_any_address, connected_to_everybody, long_ones,
}

const GROUP: u32 = u32::from_be_bytes([239, 1, 2, 3]);

/// `struct ip_mreqn`.
fn request(group: u32, own: u32, index: i32) -> [u32; 3] {
    [group.to_be(), own.to_be(), index as u32]
}

fn change(fd: i32, name: i32, group: u32, own: u32, index: i32) -> Ret {
    sys!(SYS_setsockopt, fd, IPPROTO_IP, name, &request(group, own, index), 12)
}

fn join(fd: i32, group: u32, own: u32) -> Ret {
    change(fd, IP_ADD_MEMBERSHIP, group, own, 0)
}

fn leave(fd: i32, group: u32, own: u32) -> Ret {
    change(fd, IP_DROP_MEMBERSHIP, group, own, 0)
}

fn through_loopback(fd: i32) {
    change(fd, IP_MULTICAST_IF, 0, HERE, 0).need();
}

fn sender() -> i32 {
    let fd = socket(SOCK_DGRAM);
    through_loopback(fd);
    fd
}

fn send(fd: i32, text: &str, group: u32, port: u16) -> Ret {
    sys!(SYS_sendto, fd, text, text.len(), 0, &address(group, port), 16)
}

/// A socket at any address, which shares its port.
fn listening(number: u16) -> i32 {
    let fd = socket(SOCK_DGRAM);
    set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1).need();
    bind(fd, ANY, number).need();
    fd
}

fn heard(fd: i32) -> String {
    crate::inet::events_in(fd, POLLIN, 20);
    receive(fd, 50, MSG_DONTWAIT)
}

fn values() {
    let fd = socket(SOCK_DGRAM);
    for name in [IP_MULTICAST_TTL, IP_MULTICAST_LOOP, IP_MULTICAST_ALL] {
        let get = || option(fd, IPPROTO_IP, name);
        say!("{name} first: {}", get());
        for value in [0, 1, 2, 255, 256, -1, -2] {
            say!("{value}: {} {}", set_option(fd, IPPROTO_IP, name, value), get());
        }
        let set = |size: i32| sys!(SYS_setsockopt, fd, IPPROTO_IP, name, &1i32, size);
        say!("a byte: {} {} nothing: {} {}", set(1), get(), set(0), get());
    }
    say!("own: {}", option(fd, IPPROTO_IP, IP_TTL));
}

fn interface(fd: i32) -> String {
    let (mut own, mut length) = ([9u8; 4], 4i32);
    let ret = sys!(SYS_getsockopt, fd, IPPROTO_IP, IP_MULTICAST_IF, &mut own, &mut length);
    format!("{ret} {} {length}", std::net::Ipv4Addr::from(own))
}

fn interfaces() {
    let fd = socket(SOCK_DGRAM);
    say!("first: {}", interface(fd));
    for (own, index) in [(HERE, 0), (HERE + 1, 0), (0, 1), (HERE, 1), (0x0808_0808, 0), (0, 99), (0, 0)] {
        say!("{own:x} {index}: {} {}", change(fd, IP_MULTICAST_IF, 0, own, index), interface(fd));
    }
}

fn interface_forms() {
    let fd = socket(SOCK_DGRAM);
    let set = |bytes: &[u32], size: usize| sys!(SYS_setsockopt, fd, IPPROTO_IP, IP_MULTICAST_IF, bytes, size);
    say!("an address: {} {}", set(&[HERE.to_be()], 4), interface(fd));
    say!("two: {} {}", set(&[0, (HERE + 1).to_be()], 8), interface(fd));
    say!("short: {} {}", set(&[0], 3), set(&[0], 0));
}

fn join_errors() {
    let fd = socket(SOCK_DGRAM);
    say!("no group: {} {}", join(fd, HERE, HERE), join(fd, 0xf000_0001, HERE));
    say!("nobody: {} {}", join(fd, 0, HERE), join(fd, u32::MAX, HERE));
    say!("not ours: {}", join(fd, GROUP, 0x0808_0808));
    say!("no interface: {}", change(fd, IP_ADD_MEMBERSHIP, GROUP, 0, 99));
    say!("by number: {}", change(fd, IP_ADD_MEMBERSHIP, GROUP, 0, 1));
    let short =
        |size: usize| sys!(SYS_setsockopt, fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request(GROUP + 1, HERE, 0), size);
    say!("short: {} {} two: {}", short(7), short(0), short(8));
    say!("get: {}", option(fd, IPPROTO_IP, IP_ADD_MEMBERSHIP));
}

fn joined_twice() {
    let fd = socket(SOCK_DGRAM);
    say!("{} {} {}", join(fd, GROUP, HERE), join(fd, GROUP, HERE), change(fd, IP_ADD_MEMBERSHIP, GROUP, 0, 1));
    say!("another: {} {}", join(fd, GROUP + 1, HERE), join(socket(SOCK_DGRAM), GROUP, HERE));
}

fn left() {
    let fd = listening(0);
    let out = sender();
    join(fd, GROUP, HERE).need();
    say!("{} {}", send(out, "one", GROUP, port(fd)), heard(fd));
    say!("leave: {} {}", leave(fd, GROUP, HERE), leave(fd, GROUP, HERE));
    say!("{} {}", send(out, "two", GROUP, port(fd)), heard(fd));
    say!("again: {} {}", join(fd, GROUP, HERE), change(fd, IP_DROP_MEMBERSHIP, GROUP, 0, 1));
}

fn left_errors() {
    let fd = socket(SOCK_DGRAM);
    say!("not joined: {} {}", leave(fd, GROUP, HERE), change(fd, IP_DROP_MEMBERSHIP, GROUP, 0, 1));
    join(fd, GROUP, HERE).need();
    say!("another: {} no group: {}", leave(fd, GROUP + 1, HERE), leave(fd, HERE, HERE));
    say!("not ours: {} {}", leave(fd, GROUP, 0x0808_0808), change(fd, IP_DROP_MEMBERSHIP, GROUP, 0, 99));
    say!("short: {}", sys!(SYS_setsockopt, fd, IPPROTO_IP, IP_DROP_MEMBERSHIP, &request(GROUP, HERE, 0), 7));
    say!("own: {}", leave(fd, GROUP, HERE));
}

fn many() {
    let fd = socket(SOCK_DGRAM);
    let results: Vec<_> = (0..22).map(|number| join(fd, GROUP + number, HERE).to_string()).collect();
    say!("{}", results.join(" "));
    say!("one less: {} {}", leave(fd, GROUP, HERE), join(fd, GROUP + 50, HERE));
}

fn delivered() {
    let fd = listening(0);
    join(fd, GROUP, HERE).need();
    let out = sender();
    say!("{} {} {}", send(out, "text", GROUP, port(fd)), heard(fd), heard(fd));
    say!("another group: {} {}", send(out, "x", GROUP + 1, port(fd)), heard(fd));
    say!("another port: {} {} {}", send(out, "x", GROUP, 9), heard(fd), events(out));
    say!("to the socket: {} {}", send(out, "y", HERE, port(fd)), heard(fd));
}

fn to_all_who_bind() {
    let one = listening(0);
    let (two, three) = (listening(port(one)), listening(port(one)));
    [one, two].iter().for_each(|fd| _ = join(*fd, GROUP, HERE).need());
    set_option(three, IPPROTO_IP, IP_MULTICAST_ALL, 0).need();
    let out = sender();
    say!("{}", send(out, "all", GROUP, port(one)));
    say!("{} {} {}", heard(one), heard(two), heard(three));
    close(two);
    say!("{} {} {}", send(out, "again", GROUP, port(one)), heard(one), heard(three));
}

/// Of a hundred, every second one wants it.
fn to_a_crowd() {
    let first = listening(0);
    let crowd: Vec<i32> = (0..100).map(|_| listening(port(first))).collect();
    for (number, fd) in crowd.iter().enumerate() {
        set_option(*fd, IPPROTO_IP, IP_MULTICAST_ALL, 0).need();
        if number % 2 == 1 {
            join(*fd, GROUP, HERE).need();
        }
        let patience = timeval { tv_sec: 5, tv_usec: 0 };
        sys!(SYS_setsockopt, *fd, SOL_SOCKET, SO_RCVTIMEO, &patience, 16).need();
    }
    let out = sender();
    for text in ["one", "two"] {
        say!("{}", send(out, text, GROUP, port(first)));
        let mut room = [0u8; 8];
        let mut got = |fd: &i32, flags: i32| sys!(SYS_recvfrom, *fd, &mut room, 8, flags, 0, 0).0 == 3;
        let wanted = crowd.iter().skip(1).step_by(2).filter(|fd| got(fd, 0)).count();
        let others = crowd.iter().step_by(2).filter(|fd| got(fd, MSG_DONTWAIT)).count();
        say!("{wanted} who want it, {others} others, {}", heard(first));
    }
}

fn not_joined() {
    let fd = listening(0);
    let out = sender();
    say!("nobody has: {} {}", send(out, "x", GROUP, port(fd)), heard(fd));
    let other = socket(SOCK_DGRAM);
    join(other, GROUP, HERE).need();
    say!("another has: {} {}", send(out, "x", GROUP, port(fd)), heard(fd));
}

fn all_or_own() {
    let fd = listening(0);
    let (other, out) = (socket(SOCK_DGRAM), sender());
    join(other, GROUP, HERE).need();
    set_option(fd, IPPROTO_IP, IP_MULTICAST_ALL, 0).need();
    say!("own ones only: {} {}", send(out, "x", GROUP, port(fd)), heard(fd));
    join(fd, GROUP + 1, HERE).need();
    say!("{} {}", send(out, "x", GROUP, port(fd)), heard(fd));
    say!("{} {}", send(out, "own", GROUP + 1, port(fd)), heard(fd));
}

fn bound_to_group() {
    let fd = socket(SOCK_DGRAM);
    say!("bind: {}", bind(fd, GROUP, 0));
    join(fd, GROUP, HERE).need();
    join(fd, GROUP + 1, HERE).need();
    let out = sender();
    say!("{} {}", send(out, "x", GROUP, port(fd)), heard(fd));
    say!("another: {} {}", send(out, "x", GROUP + 1, port(fd)), heard(fd));
    let narrow = socket(SOCK_DGRAM);
    bind(narrow, HERE, 0).need();
    join(narrow, GROUP, HERE).need();
    say!("bound to one address: {} {}", send(out, "x", GROUP, port(narrow)), heard(narrow));
    through_loopback(fd);
    say!("from the group: {} {}", send(fd, "x", GROUP, port(fd)), heard(fd));
}

/// On the loopback it makes no difference.
fn without_loop() {
    let fd = listening(0);
    join(fd, GROUP, HERE).need();
    let out = sender();
    set_option(out, IPPROTO_IP, IP_MULTICAST_LOOP, 0).need();
    say!("{} {}", send(out, "x", GROUP, port(fd)), heard(fd));
}

fn hops() {
    let fd = listening(0);
    join(fd, GROUP, HERE).need();
    set_option(fd, IPPROTO_IP, IP_RECVTTL, 1).need();
    let out = sender();
    set_option(out, IPPROTO_IP, IP_TTL, 77).need();
    for value in [1, 0, 9, -1] {
        set_option(out, IPPROTO_IP, IP_MULTICAST_TTL, value).need();
        say!("{value}: {}", send(out, "x", GROUP, port(fd)));
        received(fd, 9, 512, MSG_DONTWAIT).iter().skip(1).for_each(|line| say!("{line}"));
    }
}

fn told() {
    let fd = listening(0);
    join(fd, GROUP, HERE).need();
    set_option(fd, IPPROTO_IP, IP_PKTINFO, 1).need();
    send(sender(), "x", GROUP, port(fd)).need();
    received(fd, 9, 512, MSG_DONTWAIT).iter().skip(1).for_each(|line| say!("{line}"));
}

fn came_from(fd: i32) -> String {
    let (mut buffer, mut name, mut size) = ([0u8; 9], address(1, 1), 16i32);
    let ret = sys!(SYS_recvfrom, fd, &mut buffer, 9, MSG_DONTWAIT, &mut name, &mut size);
    format!("{ret} {}", std::net::Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)))
}

fn from_which() {
    let fd = listening(0);
    join(fd, GROUP, HERE).need();
    let out = socket(SOCK_DGRAM);
    for own in [HERE, HERE + 7] {
        change(out, IP_MULTICAST_IF, 0, own, 0).need();
        say!("{} {}", send(out, "x", GROUP, port(fd)), came_from(fd));
    }
    let bound = socket(SOCK_DGRAM);
    bind(bound, HERE + 3, 0).need();
    say!("bound: {} {}", send(bound, "x", GROUP, port(fd)), came_from(fd));
    say!("connect: {}", crate::inet::connect(bound, GROUP, port(fd)));
    say!("write: {} {}", crate::file::write(bound, "y"), came_from(fd));
}

fn no_way() {
    let fd = socket(SOCK_DGRAM);
    say!("send: {} connect: {}", send(fd, "x", GROUP, 9).0 < 0, crate::inet::connect(fd, GROUP, 9).0 < 0);
}

fn gone_with_the_socket() {
    let fd = listening(0);
    let other = socket(SOCK_DGRAM);
    join(other, GROUP, HERE).need();
    close(other);
    say!("{} {}", send(sender(), "x", GROUP, port(fd)), heard(fd));
}

/// A broadcast reaches all who are bound to the port.
fn to_everybody() {
    let one = listening(0);
    let two = listening(port(one));
    let out = socket(SOCK_DGRAM);
    let all = u32::from_be_bytes([127, 255, 255, 255]);
    let watching = make(SOCK_DGRAM, ETH_P_IP as u16);
    say!("not allowed: {} seen: {}", send(out, "x", all, port(one)), heard(watching));
    close(watching);
    set_option(out, SOL_SOCKET, SO_BROADCAST, 1).need();
    say!("{} {} {}", send(out, "x", all, port(one)), heard(one), heard(two));
}

/// An address of another machine is none to send from.
fn from_elsewhere() {
    let receiver = listening(4242);
    join(receiver, GROUP, HERE).need();
    for own in [0x0808_0808, GROUP] {
        let fd = socket(SOCK_DGRAM);
        say!("{own:x}: {}", change(fd, IP_MULTICAST_IF, 0, own, 1));
        say!("send: {}", send(fd, "forged", GROUP, 4242));
        say!("heard: {}", heard(receiver));
        say!("connect: {}", sys!(SYS_connect, fd, &address(GROUP, 4242), 16));
        say!("here: {}", send(fd, "here", HERE, 4242));
        say!("heard: {}", heard(receiver));
        close(fd);
    }
}

/// `struct group_req`.
fn any_request(fd: i32, name: i32, index: u32, family: i32, group: u32, size: usize) -> Ret {
    let mut bytes = [0u8; 136];
    bytes[..4].copy_from_slice(&index.to_ne_bytes());
    bytes[8..10].copy_from_slice(&(family as u16).to_ne_bytes());
    bytes[12..16].copy_from_slice(&group.to_be_bytes());
    sys!(SYS_setsockopt, fd, IPPROTO_IP, name, &bytes, size)
}

fn by_any_address() {
    const JOIN: i32 = 42;
    const LEAVE: i32 = 45;
    let fd = listening(0);
    let out = sender();
    let any = |name, index, group| any_request(fd, name, index, AF_INET, group, 136);
    say!("{} {}", any_request(fd, JOIN, 1, AF_INET6, GROUP, 136), any_request(fd, JOIN, 1, AF_INET, GROUP, 135));
    say!("{} {} {}", any(JOIN, 0, GROUP), any(JOIN, 99, GROUP), any(JOIN, 1, HERE));
    say!("{} {}", any(JOIN, 1, GROUP), any(JOIN, 1, GROUP));
    say!("{} {}", send(out, "x", GROUP, port(fd)), heard(fd));
    say!("{} {} {}", any(LEAVE, 0, GROUP), any(LEAVE, 99, GROUP), any(LEAVE, 1, GROUP + 1));
    say!("{} {}", any(LEAVE, 1, GROUP), any(LEAVE, 1, GROUP));
    say!("{} {}", any(JOIN, 1, GROUP), leave(fd, GROUP, HERE));
}

fn connected_to_everybody() {
    let everybody = u32::from_be_bytes([127, 255, 255, 255]);
    for fd in [socket(SOCK_DGRAM), crate::sys::sys!(SYS_socket, AF_INET, SOCK_RAW, 200).fd()] {
        say!("{}", crate::inet::connect(fd, everybody, 9));
        set_option(fd, SOL_SOCKET, SO_BROADCAST, 1).need();
        say!("{} {}", crate::inet::connect(fd, everybody, 9), crate::inet::peer_name(fd));
        set_option(fd, SOL_SOCKET, SO_BROADCAST, 0).need();
        say!("{} {}", crate::file::write(fd, "x"), send(fd, "x", everybody, 9));
    }
}

/// As long as a packet can be, and longer: with a filter and without, and while somebody watches.
fn long_ones() {
    for protocol in [IPPROTO_UDP, IPPROTO_UDPLITE] {
        let fd = sys!(SYS_socket, AF_INET, SOCK_DGRAM, protocol).fd();
        bind(fd, ANY, 0).need();
        join(fd, GROUP, HERE).need();
        let out = sys!(SYS_socket, AF_INET, SOCK_DGRAM, protocol).fd();
        bind(out, HERE, 0).need();
        through_loopback(out);
        set_option(out, IPPROTO_IP, IP_RECVERR, 1).need();
        long_from(out, fd);
        attach(fd, &[one(6, u32::MAX)]).need();
        long_from(out, fd);
        let watching = make(SOCK_RAW, ETH_P_ALL as u16);
        long_from(out, fd);
        close(watching);
        set_option(out, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO).need();
        long_from(out, fd);
    }
}

fn long_from(out: i32, fd: i32) {
    let bytes = vec![7u8; 65_536];
    for len in [65_507, 65_508, 65_527, 65_528, 65_530, 65_535, 65_536] {
        let sent = sys!(SYS_sendto, out, &bytes[..], len, 0, &address(GROUP, port(fd)), 16);
        let got = sys!(SYS_recvfrom, fd, 0, 0, MSG_DONTWAIT | MSG_TRUNC, 0, 0);
        say!("{len}: {sent} {got}");
        received(out, 0, 512, MSG_ERRQUEUE | MSG_DONTWAIT).iter().for_each(|line| say!("{line}"));
    }
}
