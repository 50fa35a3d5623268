use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicBool, Ordering};

use super::ports::{Claim, Ports, TIME_WAIT};
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
fn a_listener_with_many_connections_and_a_crowd_at_its_door_serves_and_leaves_all() {
    let (listener, name) = listener(0);
    let mut clients: Vec<_> = (0..1000).map(|_| client(name)).collect();
    clients.drain(10..20).for_each(|socket| socket.released());
    listener.start_listening(0, 500).unwrap();
    run_until_idle();
    assert_eq!(clients.iter().position(|socket| socket.is_connecting()), Some(501));
    listener.released();
    run_until_idle();
    let (made, pending) = clients.split_at(501);
    assert!(made.iter().all(|socket| socket.common().take_error() == Some(Errno::ECONNRESET)));
    assert!(pending.iter().all(|socket| socket.common().take_error() == Some(Errno::ECONNREFUSED)));
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

/// A connection whose two directions have the least room.
fn narrow() -> (Arc<TcpSocket>, Arc<dyn FileOps>) {
    let (listener, name) = listener(1);
    let here = client(name);
    here.common().send_buffer.store(1, Ordering::Relaxed);
    let there = accepted(&listener);
    there.as_socket().unwrap().common().receive_buffer.store(1, Ordering::Relaxed);
    (here, there)
}

/// Starts who sends `bytes` and waits for room for them. Answers whether they are sent.
fn start_writer(from: &Arc<TcpSocket>, bytes: Vec<u8>) -> Arc<AtomicBool> {
    let (writer, sent) = (from.clone(), Arc::new(AtomicBool::new(false)));
    let done = sent.clone();
    spawn("writer", async move {
        let attempt = || settled(send(&*writer, &bytes));
        assert_eq!(writer.queue().wait_for_mask(WRITE_EVENTS.bits(), attempt).await, Ok(bytes.len()));
        done.store(true, Ordering::Relaxed);
    });
    run_until_idle();
    sent
}

#[test]
fn who_waits_for_room_is_woken_however_much_there_was_and_is_read() {
    for filled in (0..16_384).step_by(500) {
        for step in [1000, 16_384] {
            let (here, there) = narrow();
            send(&*here, &vec![1; filled]).unwrap();
            let sent = start_writer(&here, vec![2; 4096]);
            while receive(there.as_socket().unwrap(), step).is_ok() {}
            run_until_idle();
            assert!(sent.load(Ordering::Relaxed), "{filled} {step}");
        }
    }
}

#[test]
fn a_larger_receive_buffer_is_room_for_who_waits() {
    let (here, there) = narrow();
    while send(&*here, &[1; 1000]).is_ok() {}
    let sent = start_writer(&here, vec![2; 4096]);
    assert!(!sent.load(Ordering::Relaxed));
    let there = there.as_socket().unwrap();
    crate::net::options::set_receive_buffer(there, 400_000);
    run_until_idle();
    assert!(sent.load(Ordering::Relaxed));
}

#[test]
fn what_a_connection_left_is_not_for_the_next_one() {
    let (listener, name) = listener(1);
    let here = client(name);
    let there = accepted(&listener);
    send(there.as_socket().unwrap(), b"old").unwrap();
    *there.as_socket().unwrap().common().linger.lock() = (true, 0);
    there.released();
    // connect(2) tells of the reset, as it does of any end of a connection that it has begun.
    assert_eq!(here.settle_connection(), Err(Errno::ECONNRESET));
    here.begin_as(0, HERE, name).unwrap();
    let there = accepted(&listener);
    send(there.as_socket().unwrap(), b"new").unwrap();
    assert_eq!(receive(&*here, 10).unwrap(), b"new");
}

#[test]
fn a_call_that_has_received_bytes_leaves_the_error_for_the_next() {
    let (listener, name) = listener(1);
    let here = client(name);
    let there = accepted(&listener);
    *there.as_socket().unwrap().common().linger.lock() = (true, 0);
    there.released();
    let on = Receive { goes_on: true, ..Receive::default() };
    assert_eq!(here.try_receive(&mut IoBuf::kernel_mut(&mut [0; 4]), on).map(|received| received.len), Ok(0));
    assert_eq!(receive(&*here, 4), Err(Errno::ECONNRESET.into()));
    assert!(!here.common().has_error());
}

#[test]
fn who_closes_while_the_listener_makes_the_connection_leaves_an_end() {
    for round in 0..3000 {
        let (listener, name) = listener(0);
        let (first, second) = (client(name), client(name));
        // Ports in TIME_WAIT are few.
        for socket in [&listener, &first, &second] {
            *socket.common().linger.lock() = (true, 0);
        }
        let start = std::sync::Barrier::new(2);
        let there = std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                for _ in 0..round % 64 {
                    core::hint::spin_loop();
                }
                second.released();
            });
            start.wait();
            drop(accepted(&listener));
            listener.take_connection()
        });
        drop(first);
        if let Ok((there, _)) = there {
            assert_ne!(receive(there.as_socket().unwrap(), 1), Err(TryError::WouldBlock), "round {round}");
        }
    }
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

/// One that is told of connections when something has come.
fn deferring(backlog: u32) -> (Arc<TcpSocket>, Endpoint) {
    let (socket, name) = listener(backlog);
    socket.set_tcp_option(raw::TCP_DEFER_ACCEPT, &30i32.to_ne_bytes()).unwrap();
    (socket, name)
}

#[test]
fn a_connection_is_deferred_until_something_comes() {
    let (listener, name) = deferring(5);
    let (first, second) = (client(name), client(name));
    assert!(!first.is_connecting() && !second.is_connecting());
    assert_eq!(listener.take_connection().err(), Some(TryError::WouldBlock));
    send(&*second, b"x").unwrap();
    let there = accepted(&listener);
    assert_eq!(receive(there.as_socket().unwrap(), 5).unwrap(), b"x");
    assert_eq!(listener.take_connection().err(), Some(TryError::WouldBlock));
    first.released();
    accepted(&listener);
}

#[test]
fn deferred_connections_count_against_the_backlog_and_end_with_their_sides() {
    let (listener, name) = deferring(0);
    let (made, waiting) = (client(name), client(name));
    assert!(!made.is_connecting() && waiting.is_connecting());
    *made.common().linger.lock() = (true, 0);
    made.released();
    assert_eq!(listener.take_connection().err(), Some(TryError::WouldBlock));
    let weak = Arc::downgrade(&waiting);
    listener.released();
    assert!(waiting.common().take_error().is_some());
    drop(waiting);
    assert_eq!(weak.strong_count(), 0);
}

#[test]
fn a_group_is_joined_as_long_as_its_sockets_are_there() {
    crate::net::interface::set_loopback(true);
    let group = Ipv4Addr::new(239, 9, 8, 7);
    let request = [group.octets(), Ipv4Addr::LOCALHOST.octets()].concat();
    let (a, b) = (UdpSocket::new(AF_INET), UdpSocket::new(AF_INET));
    b.bind_as(0, Endpoint::any(AF_INET)).unwrap();
    let name = b.local_address();
    let to = at(group.into(), u16::from_be_bytes([name[2], name[3]]));
    a.set_ip_option(0, raw::IP_MULTICAST_IF, &Ipv4Addr::LOCALHOST.octets()).unwrap();
    let send = || {
        let mut message = Outgoing { target: crate::net::socket::Target::Inet(to), ..Outgoing::plain() };
        a.try_send(&mut IoBuf::kernel(b"text"), &mut message).unwrap();
        receive(&*b, 9)
    };
    assert_eq!(send(), Err(TryError::WouldBlock));
    let other = UdpSocket::new(AF_INET);
    other.set_ip_option(0, raw::IP_ADD_MEMBERSHIP, &request).unwrap();
    assert_eq!(send().unwrap(), b"text");
    b.set_ip_option(0, raw::IP_MULTICAST_ALL, &[0]).unwrap();
    assert_eq!(send(), Err(TryError::WouldBlock));
    b.set_ip_option(0, raw::IP_ADD_MEMBERSHIP, &request).unwrap();
    assert_eq!(send().unwrap(), b"text");
    other.released();
    assert_eq!(send().unwrap(), b"text");
    b.released();
    assert!(!groups::is_joined(1, group.into()));
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
fn of_several_that_share_a_port_one_has_a_flow_or_the_last() {
    let (sharing, reusing) = (Ports::<usize>::new(), Ports::<usize>::new());
    let sockets: Vec<_> = (0..8).map(Arc::new).collect();
    for socket in &sockets {
        sharing.claim(&Arc::downgrade(socket), Claim { shared_by: Some(1), ..claim(HERE) }).unwrap();
        reusing.claim(&Arc::downgrade(socket), Claim { reuse: true, ..claim(HERE) }).unwrap();
    }
    let found = |ports: &Ports<usize>, from| ports.find(at(HERE, 80), at(HERE, from), |_| true).map(|socket| *socket);
    let mut counts = [0; 8];
    for from in 1000..1800 {
        let chosen = found(&sharing, from).unwrap();
        assert!((0..9).all(|_| found(&sharing, from) == Some(chosen)));
        counts[chosen] += 1;
        assert_eq!(found(&reusing, from), Some(7));
    }
    assert!(counts.iter().all(|count| (50..200).contains(count)), "{counts:?}");
    reusing.release(Arc::as_ptr(&sockets[7]), 80, None);
    reusing.release(Arc::as_ptr(&sockets[2]), 80, None);
    assert_eq!(found(&reusing, 1000), Some(6));
}

#[test]
fn connections_of_a_listener_are_found_by_their_ends() {
    let ports = Ports::<usize>::new();
    let listener = Arc::new(0);
    ports.claim(&Arc::downgrade(&listener), Claim { listening: true, ..claim(HERE) }).unwrap();
    let made: Vec<_> = (1..1000).map(Arc::new).collect();
    let share = |socket: &Arc<usize>, from: usize| {
        ports.share(&Arc::downgrade(socket), Arc::as_ptr(&listener), at(HERE, 80), at(HERE, from as u16)).unwrap();
    };
    made.iter().for_each(|socket| share(socket, **socket));
    let found = |from| ports.find(at(HERE, 80), at(HERE, from), |_| true).map(|socket| *socket);
    assert_eq!((found(1), found(999), found(1001)), (Some(1), Some(999), Some(0)));
    // An old connection and a new one with the same ends do not take each other's place.
    let again = Arc::new(5000);
    share(&again, 7);
    ports.release(Arc::as_ptr(&made[6]), 80, None);
    assert_eq!(found(7), Some(5000));
    assert_eq!(ports.list().len(), 1000);
    // Nobody can bind to the port as long as there are connections, unless they allow it.
    ports.release(Arc::as_ptr(&listener), 80, None);
    let late = Arc::new(9999);
    let reusing = Claim { reuse: true, ..claim(HERE) };
    assert_eq!(ports.claim(&Arc::downgrade(&late), reusing), Err(Errno::EADDRINUSE));
    for socket in &made {
        ports.release(Arc::as_ptr(socket), 80, Some(TIME_WAIT));
    }
    ports.release(Arc::as_ptr(&again), 80, None);
    assert_eq!(ports.claim(&Arc::downgrade(&late), reusing), Err(Errno::EADDRINUSE));
    made.iter().for_each(|socket| ports.forget(at(HERE, 80), at(HERE, **socket as u16)));
    assert_eq!(ports.claim(&Arc::downgrade(&late), reusing), Ok(()));
}

#[test]
fn ports_of_connections_come_again_after_many_to_the_same_end() {
    let ports = Ports::<u32>::new();
    let socket = Arc::new(1);
    let connect = |port| {
        let remote = at(HERE, port);
        let claim = Claim { remote: Some(remote), ..Claim::new(at(HERE, 0)) };
        let port = ports.claim_for_connection(&Arc::downgrade(&socket), claim, remote).unwrap();
        ports.release(Arc::as_ptr(&socket), port, None);
        port
    };
    // However many there are to others; which of them share a search depends on the key.
    let apart = (81..85).filter(|other| {
        let first = connect(80);
        (0..28_182).for_each(|_| _ = connect(*other));
        (0..100).all(|_| connect(80) != first)
    });
    assert!(apart.count() > 0);
}

#[test]
fn connections_that_are_over_do_not_keep_others_from_being_remembered() {
    let ports = Ports::<u32>::new();
    let socket = Arc::new(1);
    // Nobody looks at their ports again.
    for port in 1..3000 {
        ports
            .claim(&Arc::downgrade(&socket), Claim { remote: Some(at(HERE, 9)), ..Claim::new(at(HERE, port)) })
            .unwrap();
        ports.release(Arc::as_ptr(&socket), port, Some(core::time::Duration::ZERO));
    }
    let last = Claim { remote: Some(at(HERE, 9)), ..Claim::new(at(HERE, 4000)) };
    ports.claim(&Arc::downgrade(&socket), last).unwrap();
    ports.release(Arc::as_ptr(&socket), 4000, Some(TIME_WAIT));
    assert!(ports.list().iter().any(|(_, claim)| claim.local.port == 4000));
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
    ports.release(Arc::as_ptr(&socket), 40_000, None);
    assert_eq!(ports.claim_for_connection(&Arc::downgrade(&socket), claim, peer), Ok(40_000));
    let other = at(HERE, 81);
    let claim = Claim { remote: Some(other), ..claim };
    assert_eq!(ports.claim_for_connection(&Arc::downgrade(&socket), claim, other), Ok(40_000));
    assert_eq!(ports.claim_for_connection(&Arc::downgrade(&socket), claim, other), Err(Errno::EADDRNOTAVAIL));
}
