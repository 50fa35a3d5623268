//! Options of internet sockets, and the loopback interface.

use libc::*;

use crate::inet::{listener, option, set_option, socket, tcp_state};
use crate::process;
use crate::sys::{NOWHERE, sys, zeroed};
use crate::{say, tests};

tests! {
    of_sockets, of_tcp, of_ip, of_ip6, switches, keepalive, tcp_ranges, ip_ranges, congestion, short_values, unknown, levels,
    buffers, info, linger_value, loopback_flags, loopback_addresses, interface_list, interface_errors, interface_privilege,
}

fn of_sockets() {
    for (name, kind) in [("tcp", SOCK_STREAM), ("udp", SOCK_DGRAM)] {
        let fd = socket(kind);
        for (what, number) in [
            ("type", SO_TYPE),
            ("domain", SO_DOMAIN),
            ("protocol", SO_PROTOCOL),
            ("reuseaddr", SO_REUSEADDR),
            ("reuseport", SO_REUSEPORT),
            ("keepalive", SO_KEEPALIVE),
            ("broadcast", SO_BROADCAST),
            ("oobinline", SO_OOBINLINE),
            ("rcvlowat", SO_RCVLOWAT),
            ("sndlowat", SO_SNDLOWAT),
            ("acceptconn", SO_ACCEPTCONN),
            ("error", SO_ERROR),
            ("priority", SO_PRIORITY),
            ("sndbuf", SO_SNDBUF),
            ("rcvbuf", SO_RCVBUF),
        ] {
            say!("{name} {what}: {}", option(fd, SOL_SOCKET, number));
        }
    }
}

fn of_tcp() {
    let fd = socket(SOCK_STREAM);
    for (what, number) in [
        ("nodelay", TCP_NODELAY),
        ("cork", TCP_CORK),
        ("keepidle", TCP_KEEPIDLE),
        ("keepintvl", TCP_KEEPINTVL),
        ("keepcnt", TCP_KEEPCNT),
        ("syncnt", TCP_SYNCNT),
        ("user timeout", TCP_USER_TIMEOUT),
    ] {
        say!("{what}: {}", option(fd, IPPROTO_TCP, number));
    }
}

fn of_ip() {
    for kind in [SOCK_STREAM, SOCK_DGRAM] {
        let fd = socket(kind);
        for (what, number) in [("tos", IP_TOS), ("ttl", IP_TTL), ("mtu discover", IP_MTU_DISCOVER)] {
            say!("{what}: {}", option(fd, IPPROTO_IP, number));
        }
    }
}

fn of_ip6() {
    for kind in [SOCK_STREAM, SOCK_DGRAM] {
        let fd = sys!(SYS_socket, AF_INET6, kind, 0).fd();
        for (what, number) in [
            ("v6only", IPV6_V6ONLY),
            ("hops", IPV6_UNICAST_HOPS),
            ("class", IPV6_TCLASS),
            ("mtu discover", IPV6_MTU_DISCOVER),
        ] {
            say!("{what}: {}", option(fd, IPPROTO_IPV6, number));
        }
        say!("ttl: {}", option(fd, IPPROTO_IP, IP_TTL));
        say!("set: {} {}", set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 7), option(fd, IPPROTO_IPV6, IPV6_V6ONLY));
    }
    let fd = socket(SOCK_STREAM);
    say!("of AF_INET: {}", set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1));
}

fn switches() {
    let fd = socket(SOCK_STREAM);
    for number in [TCP_NODELAY, TCP_CORK] {
        say!("{} {}", set_option(fd, IPPROTO_TCP, number, 5), option(fd, IPPROTO_TCP, number));
        say!("{} {}", set_option(fd, IPPROTO_TCP, number, 0), option(fd, IPPROTO_TCP, number));
    }
    for number in [SO_REUSEADDR, SO_REUSEPORT, SO_KEEPALIVE, SO_BROADCAST, SO_OOBINLINE] {
        say!("{} {}", set_option(fd, SOL_SOCKET, number, 5), option(fd, SOL_SOCKET, number));
    }
}

fn keepalive() {
    let fd = socket(SOCK_STREAM);
    for (number, value) in [(TCP_KEEPIDLE, 10), (TCP_KEEPINTVL, 5), (TCP_KEEPCNT, 3), (TCP_USER_TIMEOUT, 1000)] {
        say!("{} {}", set_option(fd, IPPROTO_TCP, number, value), option(fd, IPPROTO_TCP, number));
    }
}

fn tcp_ranges() {
    let fd = socket(SOCK_STREAM);
    for number in [TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT, TCP_SYNCNT, TCP_USER_TIMEOUT] {
        let results: Vec<_> = [-1, 0, 1, 127, 128, 255, 256, 32_767, 32_768]
            .map(|value| set_option(fd, IPPROTO_TCP, number, value).to_string())
            .into();
        say!("{number}: {}", results.join(" "));
    }
}

fn ip_ranges() {
    for kind in [SOCK_STREAM, SOCK_DGRAM] {
        let fd = socket(kind);
        for number in [IP_TOS, IP_TTL, IP_MTU_DISCOVER] {
            for value in [-2, -1, 0, 1, 3, 5, 6, 255, 256] {
                let set = set_option(fd, IPPROTO_IP, number, value);
                say!("{number} {value}: {set} {}", option(fd, IPPROTO_IP, number));
            }
        }
    }
}

fn congestion() {
    let fd = socket(SOCK_STREAM);
    let get = || {
        let (mut name, mut length) = ([0u8; 16], 16i32);
        let ret = sys!(SYS_getsockopt, fd, IPPROTO_TCP, TCP_CONGESTION, &mut name, &mut length);
        format!("{ret} {length} {:?}", String::from_utf8_lossy(&name).trim_end_matches('\0'))
    };
    say!("{}", get());
    let set = |name: &str| sys!(SYS_setsockopt, fd, IPPROTO_TCP, TCP_CONGESTION, name, name.len());
    say!("reno: {} {}", set("reno"), get());
    say!("unknown: {} {}", set("no such thing"), get());
    say!("nothing: {}", set(""));
}

fn short_values() {
    let fd = socket(SOCK_STREAM);
    let set = |level: i32, number: i32, size: i32| sys!(SYS_setsockopt, fd, level, number, &1i32, size);
    say!("tcp: {} {}", set(IPPROTO_TCP, TCP_NODELAY, 3), set(IPPROTO_TCP, TCP_NODELAY, 0));
    say!("ip: {} {}", set(IPPROTO_IP, IP_TOS, 1), set(IPPROTO_IP, IP_TTL, 0));
    say!("socket: {} {}", set(SOL_SOCKET, SO_REUSEADDR, 3), set(SOL_SOCKET, SO_REUSEADDR, -1));
    let (mut value, mut length) = ([0xffu8; 4], 2i32);
    say!("get: {}", sys!(SYS_getsockopt, fd, IPPROTO_TCP, TCP_KEEPCNT, &mut value, &mut length));
    say!("{value:?} {length}");
    length = -1;
    say!("negative: {}", sys!(SYS_getsockopt, fd, IPPROTO_TCP, TCP_KEEPCNT, &mut value, &mut length));
    say!("nowhere: {}", sys!(SYS_setsockopt, fd, IPPROTO_TCP, TCP_NODELAY, NOWHERE, 4));
}

fn unknown() {
    let fd = socket(SOCK_STREAM);
    say!("tcp: {} {}", option(fd, IPPROTO_TCP, 999), set_option(fd, IPPROTO_TCP, 999, 1));
    say!("ip: {} {}", option(fd, IPPROTO_IP, 999), set_option(fd, IPPROTO_IP, 999, 1));
    say!("socket: {} {}", option(fd, SOL_SOCKET, 999), set_option(fd, SOL_SOCKET, 999, 1));
    let fd = sys!(SYS_socket, AF_INET6, SOCK_DGRAM, 0).fd();
    say!("ip6: {} {}", option(fd, IPPROTO_IPV6, 999), set_option(fd, IPPROTO_IPV6, 999, 1));
}

fn levels() {
    let udp = socket(SOCK_DGRAM);
    say!("tcp of udp: {} {}", option(udp, IPPROTO_TCP, TCP_NODELAY), set_option(udp, IPPROTO_TCP, TCP_NODELAY, 1));
    for fd in [udp, socket(SOCK_STREAM)] {
        say!("unknown: {} {}", option(fd, 999, 1), set_option(fd, 999, 1, 1));
        say!("ip6: {} {}", option(fd, IPPROTO_IPV6, IPV6_V6ONLY), set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    }
}

fn buffers() {
    let fd = socket(SOCK_STREAM);
    for number in [SO_SNDBUF, SO_RCVBUF] {
        for value in [0, 1, 10_000, 100_000, 10_000_000] {
            say!("{value}: {} {}", set_option(fd, SOL_SOCKET, number, value), option(fd, SOL_SOCKET, number));
        }
    }
}

fn info() {
    let fd = socket(SOCK_STREAM);
    let mut info = [0xffu8; 300];
    for room in [0, 1, 100, 300] {
        let mut length = room;
        let ret = sys!(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, &mut info, &mut length);
        say!("{room}: {ret} {} {}", length.min(200), info[0]);
    }
    say!("set: {}", set_option(fd, IPPROTO_TCP, TCP_INFO, 1));
    say!("listening: {}", tcp_state(listener(1).0));
}

fn linger_value() {
    let fd = socket(SOCK_STREAM);
    let (mut value, mut length) = (linger { l_onoff: 5, l_linger: 7 }, 8i32);
    say!("set: {}", sys!(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &value, 8));
    say!("get: {}", sys!(SYS_getsockopt, fd, SOL_SOCKET, SO_LINGER, &mut value, &mut length));
    say!("{} {} {length}", value.l_onoff, value.l_linger);
}

fn request(name: &str) -> ifreq {
    let mut request: ifreq = zeroed();
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as _;
    }
    request
}

fn value<const N: usize>(request: &ifreq) -> [u8; N] {
    let mut bytes = [0; N];
    // SAFETY: the union is 24 bytes that are all set, and N is not more.
    unsafe { std::ptr::copy_nonoverlapping((&raw const request.ifr_ifru).cast(), bytes.as_mut_ptr(), N) };
    bytes
}

fn loopback_flags() {
    let fd = socket(SOCK_DGRAM);
    let mut request = request("lo");
    let ret = sys!(SYS_ioctl, fd, SIOCGIFFLAGS, &mut request);
    say!("flags: {ret} {:x}", u16::from_ne_bytes(value(&request)));
    say!("index: {} {}", sys!(SYS_ioctl, fd, SIOCGIFINDEX, &mut request), i32::from_ne_bytes(value(&request)));
    say!("mtu: {} {}", sys!(SYS_ioctl, fd, SIOCGIFMTU, &mut request), i32::from_ne_bytes(value(&request)));
    say!("metric: {} {}", sys!(SYS_ioctl, fd, SIOCGIFMETRIC, &mut request), i32::from_ne_bytes(value(&request)));
    say!("hardware: {} {:?}", sys!(SYS_ioctl, fd, SIOCGIFHWADDR, &mut request), value::<8>(&request));
    say!("queue: {} {}", sys!(SYS_ioctl, fd, SIOCGIFTXQLEN, &mut request), i32::from_ne_bytes(value(&request)));
}

fn loopback_addresses() {
    let fd = socket(SOCK_DGRAM);
    for (name, cmd) in [
        ("address", SIOCGIFADDR),
        ("destination", SIOCGIFDSTADDR),
        ("broadcast", SIOCGIFBRDADDR),
        ("mask", SIOCGIFNETMASK),
    ] {
        let mut request = request("lo");
        say!("{name}: {} {:?}", sys!(SYS_ioctl, fd, cmd, &mut request), value::<8>(&request));
    }
}

fn interface_list() {
    let fd = socket(SOCK_STREAM);
    let mut buffer = [0u8; 400];
    let mut list = (400i32, 0u32, buffer.as_mut_ptr() as usize);
    let ret = sys!(SYS_ioctl, fd, SIOCGIFCONF, &mut list);
    say!("{ret} {} {:?}", list.0, &buffer[..24]);
    list = (39, 0, buffer.as_mut_ptr() as usize);
    say!("little room: {} {}", sys!(SYS_ioctl, fd, SIOCGIFCONF, &mut list), list.0);
    let mut name = request("");
    name.ifr_ifru.ifru_ifindex = 1;
    let ret = sys!(SYS_ioctl, fd, 0x8910, &mut name);
    say!("name of 1: {ret} {:?}", &name.ifr_name[..3]);
}

fn interface_errors() {
    let fd = socket(SOCK_DGRAM);
    let mut unknown = request("nosuch0");
    for cmd in [SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCGIFINDEX, SIOCGIFADDR, SIOCGIFMTU] {
        say!("unknown: {}", sys!(SYS_ioctl, fd, cmd, &mut unknown));
    }
    unknown.ifr_ifru.ifru_ifindex = 77;
    say!("index: {}", sys!(SYS_ioctl, fd, 0x8910, &mut unknown));
    say!("nowhere: {}", sys!(SYS_ioctl, fd, SIOCGIFFLAGS, NOWHERE));
}

fn interface_privilege() {
    process::as_plain_user(|| {
        let fd = socket(SOCK_DGRAM);
        let mut request = request("lo");
        say!("look: {}", sys!(SYS_ioctl, fd, SIOCGIFFLAGS, &mut request));
        say!("change: {}", sys!(SYS_ioctl, fd, SIOCSIFFLAGS, &mut request));
    });
}
