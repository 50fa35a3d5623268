//! Sockets, within the machine.

use std::mem::zeroed;

use super::messages::{Ends, ping_pong, throughput};
use super::{Row, row};
use crate::measure::{Bench, Result};
use crate::peer::Kind;
use crate::sys;

pub const ROWS: &[Row] = &[
    row("unix_socketpair_create_close", create_close),
    row("unix_stream_pingpong_processes", |bench| unix(bench, libc::SOCK_STREAM, Kind::Process)),
    row("unix_stream_pingpong_threads", |bench| unix(bench, libc::SOCK_STREAM, Kind::Thread)),
    row("unix_dgram_pingpong_processes", |bench| unix(bench, libc::SOCK_DGRAM, Kind::Process)),
    row("unix_stream_throughput_64k", unix_throughput),
    row("tcp_pingpong_processes", tcp_ping_pong),
    row("tcp_throughput_64k", tcp_throughput),
    row("tcp_connect_close", tcp_connect_close),
    row("udp_pingpong_processes", udp_ping_pong),
];

fn socketpair(kind: i32) -> Result<(Ends, Ends)> {
    let mut ends = [0i32; 2];
    let arguments = [libc::AF_UNIX as usize, kind as usize, 0, ends.as_mut_ptr() as usize];
    sys::call("socketpair", libc::SYS_socketpair, arguments)?;
    Ok((Ends { from: ends[0], to: ends[0] }, Ends { from: ends[1], to: ends[1] }))
}

fn create_close(bench: &Bench) -> Result<f64> {
    bench.per_operation(2_000, || {
        let (here, there) = socketpair(libc::SOCK_STREAM)?;
        sys::close(here.from);
        sys::close(there.from);
        Ok(())
    })
}

fn unix(bench: &Bench, socket: i32, kind: Kind) -> Result<f64> {
    let (here, there) = socketpair(socket)?;
    ping_pong::<1>(bench, kind, here, there)
}

fn unix_throughput(bench: &Bench) -> Result<f64> {
    let (here, there) = socketpair(libc::SOCK_STREAM)?;
    throughput(bench, Kind::Process, here, there)
}

/// A socket of the internet family, bound to a port of the loopback that the kernel chooses.
fn bound(kind: i32) -> Result<(i32, libc::sockaddr_in)> {
    let socket = sys::call("socket", libc::SYS_socket, [libc::AF_INET as usize, kind as usize, 0])? as i32;
    // SAFETY: all fields are integers.
    let mut address: libc::sockaddr_in = unsafe { zeroed() };
    address.sin_family = libc::AF_INET as u16;
    address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    let mut length = size_of_val(&address);
    sys::call("bind", libc::SYS_bind, [socket as usize, &raw const address as usize, length])?;
    let arguments = [socket as usize, &raw mut address as usize, &raw mut length as usize];
    sys::call("getsockname", libc::SYS_getsockname, arguments)?;
    Ok((socket, address))
}

fn connect(socket: i32, address: &libc::sockaddr_in) -> Result {
    let arguments = [socket as usize, &raw const *address as usize, size_of_val(address)];
    sys::call("connect", libc::SYS_connect, arguments).map(drop)
}

fn listener() -> Result<(i32, libc::sockaddr_in)> {
    let (listener, address) = bound(libc::SOCK_STREAM)?;
    sys::call("listen", libc::SYS_listen, [listener as usize, 8])?;
    Ok((listener, address))
}

/// Two ends of one connection.
fn connection(listener: i32, address: &libc::sockaddr_in) -> Result<(Ends, Ends)> {
    let kind = libc::SOCK_STREAM as usize;
    let here = sys::call("socket", libc::SYS_socket, [libc::AF_INET as usize, kind, 0])? as i32;
    connect(here, address)?;
    let there = sys::call("accept4", libc::SYS_accept4, [listener as usize, 0, 0, 0])? as i32;
    Ok((Ends { from: here, to: here }, Ends { from: there, to: there }))
}

fn without_delay(ends: Ends) -> Result {
    let one = 1i32;
    let option = [libc::IPPROTO_TCP as usize, libc::TCP_NODELAY as usize];
    let arguments = [ends.to as usize, option[0], option[1], &raw const one as usize, 4];
    sys::call("setsockopt", libc::SYS_setsockopt, arguments).map(drop)
}

fn tcp_ping_pong(bench: &Bench) -> Result<f64> {
    let (listener, address) = listener()?;
    let (here, there) = connection(listener, &address)?;
    without_delay(here)?;
    without_delay(there)?;
    ping_pong::<1>(bench, Kind::Process, here, there)
}

fn tcp_throughput(bench: &Bench) -> Result<f64> {
    let (listener, address) = listener()?;
    let (here, there) = connection(listener, &address)?;
    throughput(bench, Kind::Process, here, there)
}

fn tcp_connect_close(bench: &Bench) -> Result<f64> {
    let (listener, address) = listener()?;
    bench.per_operation(500, || {
        let (here, there) = connection(listener, &address)?;
        sys::close(here.from);
        sys::close(there.from);
        Ok(())
    })
}

fn udp_ping_pong(bench: &Bench) -> Result<f64> {
    let (here, address_here) = bound(libc::SOCK_DGRAM)?;
    let (there, address_there) = bound(libc::SOCK_DGRAM)?;
    connect(here, &address_there)?;
    connect(there, &address_here)?;
    ping_pong::<1>(bench, Kind::Process, Ends { from: here, to: here }, Ends { from: there, to: there })
}
