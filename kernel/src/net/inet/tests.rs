use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ports::{Claim, Ports};
use super::*;
use crate::exec::spawn;
use crate::exec::test_util::run_until_idle;
use crate::fs::open_file::{WRITE_EVENTS, settled};
use crate::fs::{Events, TryError};
use crate::mm::IoBuf;
use crate::net::socket::{Outgoing, Receive, Socket};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn at(ip: IpAddr, port: u16) -> Endpoint {
    Endpoint { ip, port }
}

fn port(socket: &TcpSocket) -> u16 {
    let address = socket.local_address();
    u16::from_be_bytes([address[2], address[3]])
}

fn listener(backlog: u32) -> (Arc<TcpSocket>, Endpoint) {
    let socket = TcpSocket::new(AF_INET);
    socket.bind_as(0, at(HERE, 0)).unwrap();
    socket.start_listening(0, backlog).unwrap();
    let name = at(HERE, port(&socket));
    (socket, name)
}

fn client(to: Endpoint) -> Arc<TcpSocket> {
    let socket = TcpSocket::new(AF_INET);
    socket.begin_as(0, HERE, to).unwrap();
    socket
}

fn accepted(listener: &TcpSocket) -> Arc<dyn FileOps> {
    listener.take_connection().map(|(socket, _)| socket).unwrap()
}

fn send(socket: &dyn Socket, bytes: &[u8]) -> Result<usize, TryError> {
    socket.try_send(&mut IoBuf::kernel(bytes), &mut Outgoing::plain())
}

fn receive(socket: &dyn Socket, len: usize) -> Result<Vec<u8>, TryError> {
    let mut bytes = vec![0; len];
    let how = Receive { nonblock: true, ..Receive::default() };
    let received = socket.try_receive(&mut IoBuf::kernel_mut(&mut bytes), how)?;
    bytes.truncate(received.len);
    Ok(bytes)
}

fn bind_again(name: Endpoint) -> Result<()> {
    TcpSocket::new(AF_INET).bind_as(0, name)
}

#[test]
fn a_connection_that_finds_no_room_is_made_when_there_is_some() {
    let (listener, name) = listener(0);
    let (first, second) = (client(name), client(name));
    assert!(!first.is_connecting() && second.is_connecting());
    let there = accepted(&listener);
    assert!(!second.is_connecting());
    drop((first, there));
    let there = accepted(&listener);
    send(&*second, b"x").unwrap();
    assert_eq!(receive(there.as_socket().unwrap(), 5).unwrap(), b"x");
}

#[test]
fn those_who_wait_for_a_listener_that_goes_are_refused_and_those_it_made_reset() {
    let (listener, name) = listener(0);
    let (made, waiting) = (client(name), client(name));
    listener.released();
    assert_eq!(waiting.common().take_error(), Some(Errno::ECONNREFUSED));
    assert_eq!(made.common().take_error(), Some(Errno::ECONNRESET));
    let late = client(name);
    assert_eq!(late.common().take_error(), Some(Errno::ECONNREFUSED));
}

#[test]
fn who_gives_up_waits_for_no_listener_any_more() {
    let (listener, name) = listener(0);
    let (_made, waiting) = (client(name), client(name));
    let weak = Arc::downgrade(&waiting);
    drop(waiting);
    assert_eq!(weak.strong_count(), 0);
    accepted(&listener);
    assert_eq!(listener.take_connection().err(), Some(TryError::WouldBlock));
}

#[test]
fn who_ends_first_keeps_the_port_unless_it_is_reset() {
    let (listener, name) = listener(1);
    let here = client(name);
    let own = at(HERE, port(&here));
    let there = accepted(&listener);
    here.released();
    assert_eq!(bind_again(own), Err(Errno::EADDRINUSE));
    // The other side's bytes are answered by a reset.
    send(there.as_socket().unwrap(), b"x").unwrap();
    assert_eq!(there.as_socket().unwrap().common().take_error(), Some(Errno::EPIPE));
    assert_eq!(bind_again(own), Ok(()));
}

#[test]
fn a_writer_waits_until_a_third_of_the_room_is_free() {
    let (listener, name) = listener(1);
    let here = client(name);
    let there = accepted(&listener);
    let there = there.as_socket().unwrap();
    let block = vec![7; 1 << 16];
    let mut sent = 0;
    while let Ok(n) = send(&*here, &block) {
        sent += n;
    }
    assert!(sent >= 2 << 20 && !here.ready().contains(Events::OUT));
    let writer = here.clone();
    spawn("writer", async move {
        let attempt = || settled(send(&*writer, b"more"));
        writer.queue().wait_for_mask(WRITE_EVENTS.bits(), attempt).await.unwrap();
    });
    run_until_idle();
    let mut got = 0;
    while got <= sent / 3 {
        got += receive(there, 1 << 16).unwrap().len();
    }
    assert!(here.ready().contains(Events::OUT));
    run_until_idle();
    while let Ok(bytes) = receive(there, 1 << 16) {
        got += bytes.len();
    }
    assert_eq!(got, sent + 4);
}

#[test]
fn datagrams_that_find_no_room_are_lost() {
    let (a, b) = (UdpSocket::new(AF_INET), UdpSocket::new(AF_INET));
    b.bind_as(0, at(HERE, 0)).unwrap();
    let name = b.local_address();
    let to = at(HERE, u16::from_be_bytes([name[2], name[3]]));
    for _ in 0..1000 {
        let mut message = Outgoing { target: crate::net::socket::Target::Inet(to), ..Outgoing::plain() };
        crate::net::interface::set_loopback(true);
        assert_eq!(a.try_send(&mut IoBuf::kernel(&[1; 1000]), &mut message), Ok(1000));
    }
    let mut count = 0;
    while receive(&*b, 2000).is_ok() {
        count += 1;
    }
    assert!((100..200).contains(&count), "{count}");
}

fn claim(ip: IpAddr) -> Claim {
    Claim::new(at(ip, 80))
}

/// Can two sockets with these claims have the port, whoever comes first?
fn agree(a: Claim, b: Claim) -> bool {
    let both = [(a, b), (b, a)].map(|(first, second)| {
        let ports = Ports::<u32>::new();
        let sockets = [Arc::new(1), Arc::new(2)];
        ports.claim(&Arc::downgrade(&sockets[0]), first).unwrap();
        ports.claim(&Arc::downgrade(&sockets[1]), second).is_ok()
    });
    assert_eq!(both[0], both[1]);
    both[0]
}

#[test]
fn a_port_is_shared_by_different_addresses_and_by_those_who_allow_it() {
    let (any4, any6) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let (here6, other) = (IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)));
    for (a, b, expected) in [
        (HERE, HERE, false),
        (HERE, other, true),
        (HERE, any4, false),
        (any4, any4, false),
        (any4, here6, true),
        (any6, HERE, false),
        (any6, here6, false),
        (any6, any4, false),
        (HERE, here6, true),
    ] {
        assert_eq!(agree(claim(a), claim(b)), expected, "{a} {b}");
        let only = Claim { only_v6: true, ..claim(a) };
        assert_eq!(agree(only, claim(b)), expected || a == any6 && b.is_ipv4(), "{a} {b}");
        let [reusing, other] = [a, b].map(|ip| Claim { reuse: true, ..claim(ip) });
        assert!(agree(reusing, other));
        let [mine, theirs] = [(a, 1), (b, 2)].map(|(ip, user)| Claim { shared_by: Some(user), ..claim(ip) });
        assert_eq!(agree(mine, theirs), expected);
    }
}

#[test]
fn what_comes_is_for_the_socket_that_says_most_about_it() {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let (peer, stranger) = (at(HERE, 9), at(HERE, 10));
    let ports = Ports::<u32>::new();
    let sockets = [Arc::new(0), Arc::new(1), Arc::new(2)];
    let claims = [claim(any), claim(HERE), Claim { remote: Some(peer), ..claim(HERE) }];
    for (socket, claim) in sockets.iter().zip(claims) {
        ports.claim(&Arc::downgrade(socket), Claim { reuse: true, ..claim }).unwrap();
    }
    let find = |local, remote| ports.find(at(local, 80), remote, |_| true).map(|socket| *socket);
    assert_eq!(find(HERE, peer), Some(2));
    assert_eq!(find(HERE, stranger), Some(1));
    assert_eq!(find(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3)), peer), Some(0));
    assert_eq!(find(IpAddr::V6(Ipv6Addr::LOCALHOST), peer), None);
}

#[test]
fn a_search_for_a_port_ends_when_all_are_taken() {
    let ports = Ports::<u32>::new();
    let socket = Arc::new(1);
    let mut count = 0;
    while ports.claim_any(&Arc::downgrade(&socket), Claim::new(at(HERE, 0))).is_ok() {
        count += 1;
    }
    assert_eq!(count, 28_232);
    // Connections to different peers share them.
    let peer = at(HERE, 80);
    let claim = Claim { remote: Some(peer), ..Claim::new(at(HERE, 0)) };
    assert_eq!(ports.claim_for_connection(&Arc::downgrade(&socket), claim, peer), Err(Errno::EADDRNOTAVAIL));
    ports.release(Arc::as_ptr(&socket), 40_000, false);
    assert_eq!(ports.claim_for_connection(&Arc::downgrade(&socket), claim, peer), Ok(40_000));
    let other = at(HERE, 81);
    let claim = Claim { remote: Some(other), ..claim };
    assert_eq!(ports.claim_for_connection(&Arc::downgrade(&socket), claim, other), Ok(40_000));
    assert_eq!(ports.claim_for_connection(&Arc::downgrade(&socket), claim, other), Err(Errno::EADDRNOTAVAIL));
}
