//! /proc/sys/net.

use std::fs::read_to_string;

use libc::*;

use crate::inet::{HERE, connect, events_in, listener, option, set_option, socket};
use crate::process;
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! { buffer_limits, backlog_limit, end_time, bad_numbers }

const SYS: &str = "/proc/sys/net";

fn setting(name: &str) -> String {
    read_to_string(format!("{SYS}/{name}")).unwrap_or_else(|error| error.to_string()).trim_end().to_string()
}

fn set(name: &str, value: &str) -> Ret {
    match std::fs::write(format!("{SYS}/{name}"), value) {
        Ok(()) => Ret(0),
        Err(error) => Ret(-i64::from(error.raw_os_error().unwrap_or(0))),
    }
}

fn buffer_limits() {
    for name in ["core/rmem_max", "core/wmem_max", "core/rmem_default", "core/wmem_default"] {
        say!("{name}: {}", setting(name));
    }
    let size = |fd, wanted| option(fd, SOL_SOCKET, wanted);
    let fd = socket(SOCK_DGRAM);
    for (name, which) in [("core/rmem_max", SO_RCVBUF), ("core/wmem_max", SO_SNDBUF)] {
        say!("{}", set(name, "300000"));
        set_option(fd, SOL_SOCKET, which, 1 << 20).need();
        say!("{name}: {} {}", setting(name), size(fd, which));
        set(name, "212992");
        say!("stays: {}", size(fd, which));
    }
    say!("{} {}", set("core/rmem_default", "100000"), set("core/wmem_default", "50000"));
    let new = socket(SOCK_DGRAM);
    let stream = socket(SOCK_STREAM);
    for fd in [new, stream] {
        say!("new: {} {}", size(fd, SO_RCVBUF), size(fd, SO_SNDBUF));
    }
    say!("old: {}", size(fd, SO_RCVBUF));
    set("core/rmem_default", "212992");
    set("core/wmem_default", "212992");
}

/// How many connections there is room for.
fn backlog_limit() {
    say!("{} {}", setting("core/somaxconn"), set("core/somaxconn", "1"));
    let (_fd, number) = listener(100);
    set("core/somaxconn", "4096");
    for _ in 0..4 {
        let fd = sys!(SYS_socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0).fd();
        connect(fd, HERE, number);
        say!("{}", events_in(fd, POLLOUT, 200));
    }
}

fn end_time() {
    say!("{} {}", setting("ipv4/tcp_fin_timeout"), set("ipv4/tcp_fin_timeout", "30"));
    let fd = socket(SOCK_STREAM);
    say!("{}", option(fd, IPPROTO_TCP, TCP_LINGER2));
    set("ipv4/tcp_fin_timeout", "60");
    say!("{}", option(fd, IPPROTO_TCP, TCP_LINGER2));
}

fn bad_numbers() {
    for name in ["core/rmem_max", "core/wmem_max", "core/rmem_default", "core/wmem_default", "core/somaxconn"] {
        let before = setting(name);
        for value in ["-1", "1", "2303", "2304", "4607", "4608", "2147483647", "2147483648", "x"] {
            say!("{name} {value}: {}", if set(name, value).0 == 0 { setting(name) } else { "refused".to_string() });
        }
        say!("{}", set(name, &before));
    }
    process::as_plain_user(|| say!("{} {}", set("core/somaxconn", "1"), setting("core/somaxconn")));
}
