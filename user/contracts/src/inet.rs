//! Internet sockets on the loopback.

use libc::*;

use crate::sys::{Ret, sys, zeroed};

pub const ANY: u32 = 0;
pub const HERE: u32 = u32::from_be_bytes([127, 0, 0, 1]);

pub fn address(ip: u32, port: u16) -> sockaddr_in {
    let mut address: sockaddr_in = zeroed();
    address.sin_family = AF_INET as u16;
    address.sin_addr.s_addr = ip.to_be();
    address.sin_port = port.to_be();
    address
}

pub fn socket(kind: i32) -> i32 {
    sys!(SYS_socket, AF_INET, kind, 0).fd()
}

pub fn bind(fd: i32, ip: u32, port: u16) -> Ret {
    sys!(SYS_bind, fd, &address(ip, port), size_of::<sockaddr_in>())
}

pub fn connect(fd: i32, ip: u32, port: u16) -> Ret {
    sys!(SYS_connect, fd, &address(ip, port), size_of::<sockaddr_in>())
}

/// connect(2) to AF_UNSPEC.
pub fn disconnect(fd: i32) -> Ret {
    let address: sockaddr_in = zeroed();
    sys!(SYS_connect, fd, &address, size_of::<sockaddr_in>())
}

pub fn listen(fd: i32, backlog: i32) -> Ret {
    sys!(SYS_listen, fd, backlog)
}

pub fn accept(fd: i32) -> Ret {
    sys!(SYS_accept4, fd, 0, 0, 0)
}

pub fn shutdown(fd: i32, how: i32) -> Ret {
    sys!(SYS_shutdown, fd, how)
}

/// The port that a socket has.
pub fn port(fd: i32) -> u16 {
    let (mut address, mut length) = (address(0, 0), size_of::<sockaddr_in>() as i32);
    sys!(SYS_getsockname, fd, &mut address, &mut length).need();
    u16::from_be(address.sin_port)
}

fn shown(ret: Ret, address: &sockaddr_in) -> String {
    if !ret.ok() {
        return ret.to_string();
    }
    let port = if address.sin_port == 0 { "no port" } else { "a port" };
    format!("{} {} {port}", address.sin_family, std::net::Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr)))
}

/// Family, address, and whether there is a port.
pub fn own_name(fd: i32) -> String {
    let (mut address, mut length) = (address(0, 0), size_of::<sockaddr_in>() as i32);
    let ret = sys!(SYS_getsockname, fd, &mut address, &mut length);
    shown(ret, &address)
}

pub fn peer_name(fd: i32) -> String {
    let (mut address, mut length) = (address(0, 0), size_of::<sockaddr_in>() as i32);
    let ret = sys!(SYS_getpeername, fd, &mut address, &mut length);
    shown(ret, &address)
}

/// A socket that listens on 127.0.0.1, and its port.
pub fn listener(backlog: i32) -> (i32, u16) {
    let fd = socket(SOCK_STREAM);
    bind(fd, HERE, 0).need();
    listen(fd, backlog).need();
    (fd, port(fd))
}

/// A connection: who made it, and who accepted it.
pub fn connection() -> [i32; 2] {
    let (listener, port) = listener(1);
    let here = socket(SOCK_STREAM);
    connect(here, HERE, port).need();
    let there = accept(listener).fd();
    sys!(SYS_close, listener);
    [here, there]
}

/// Sends until the other end has no room for more. How much that is.
pub fn fill(fd: i32) -> usize {
    let text = "t".repeat(4096);
    let mut sent = 0;
    loop {
        let ret = send(fd, &text, MSG_DONTWAIT);
        if ret.ok() {
            sent += ret.0 as usize;
        } else if events_in(fd, POLLOUT, 50) == "-" {
            return sent;
        }
    }
}

/// A connection whose first end has sent more than the other has room for. How much that is.
pub fn full() -> ([i32; 2], usize) {
    let ends = connection();
    (ends, fill(ends[0]))
}

/// A socket for datagrams on 127.0.0.1, and its port.
pub fn datagrams() -> (i32, u16) {
    let fd = socket(SOCK_DGRAM);
    bind(fd, HERE, 0).need();
    (fd, port(fd))
}

pub fn send(fd: i32, text: &str, flags: i32) -> Ret {
    sys!(SYS_sendto, fd, text, text.len(), flags, 0, 0)
}

pub fn send_to(fd: i32, text: &str, port: u16) -> Ret {
    sys!(SYS_sendto, fd, text, text.len(), 0, &address(HERE, port), size_of::<sockaddr_in>())
}

pub fn receive(fd: i32, length: usize, flags: i32) -> String {
    let mut buffer = vec![0u8; length];
    let ret = sys!(SYS_recvfrom, fd, &mut buffer[..], length, flags, 0, 0);
    if ret.ok() && ret.0 as usize > length {
        return format!("{ret} {:?}", String::from_utf8_lossy(&buffer));
    }
    crate::file::shown(ret, &buffer)
}

pub fn option(fd: i32, level: i32, option: i32) -> String {
    let (mut value, mut length) = (0i32, 4i32);
    let ret = sys!(SYS_getsockopt, fd, level, option, &mut value, &mut length);
    if ret.ok() { value.to_string() } else { ret.to_string() }
}

pub fn set_option(fd: i32, level: i32, option: i32, value: i32) -> Ret {
    sys!(SYS_setsockopt, fd, level, option, &value, 4)
}

/// SO_ERROR, by name.
pub fn pending_error(fd: i32) -> String {
    let value: i64 = option(fd, SOL_SOCKET, SO_ERROR).parse().unwrap_or(0);
    Ret(-value).to_string()
}

/// What poll(2) says now, if it is asked for everything; after `ms` milliseconds at most if there is nothing.
pub fn events_in(fd: i32, wanted: i16, ms: i64) -> String {
    let mut entry = pollfd { fd, events: wanted, revents: 0 };
    let time = timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 };
    sys!(SYS_ppoll, &mut entry, 1, &time, 0, 8);
    let names = [
        (POLLIN, "IN"),
        (POLLPRI, "PRI"),
        (POLLOUT, "OUT"),
        (POLLERR, "ERR"),
        (POLLHUP, "HUP"),
        (POLLRDHUP, "RDHUP"),
        (POLLRDNORM, "RDNORM"),
        (POLLWRNORM, "WRNORM"),
        (POLLWRBAND, "WRBAND"),
    ];
    let held: Vec<_> = names.iter().filter(|(bit, _)| entry.revents & bit != 0).map(|(_, name)| *name).collect();
    if held.is_empty() { "-".into() } else { held.join("+") }
}

const ALL: i16 = POLLIN | POLLPRI | POLLOUT | POLLRDHUP | POLLRDNORM | POLLWRNORM | POLLWRBAND;

pub fn events(fd: i32) -> String {
    events_in(fd, ALL, 0)
}

/// The state of a TCP connection, by its number.
pub fn tcp_state(fd: i32) -> String {
    let (mut info, mut length) = ([0u8; 240], 240i32);
    let ret = sys!(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, &mut info, &mut length);
    if ret.ok() { info[0].to_string() } else { ret.to_string() }
}

pub fn waiting_bytes(fd: i32) -> String {
    let mut count = -1i32;
    let ret = sys!(SYS_ioctl, fd, FIONREAD, &mut count);
    if ret.ok() { count.to_string() } else { ret.to_string() }
}

/// How a call that may raise SIGPIPE ends.
pub fn or_signal(body: impl FnOnce() -> Ret) -> String {
    static RAISED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
    extern "C" fn note(_: i32) {
        RAISED.store(true, std::sync::atomic::Ordering::Relaxed);
    }
    // SAFETY: the handler only stores to an atomic.
    unsafe { libc::signal(SIGPIPE, note as *const () as usize) };
    RAISED.store(false, std::sync::atomic::Ordering::Relaxed);
    let ret = body();
    let raised = RAISED.load(std::sync::atomic::Ordering::Relaxed);
    format!("{ret}{}", if raised { " and SIGPIPE" } else { "" })
}
