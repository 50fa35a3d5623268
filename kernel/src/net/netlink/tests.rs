use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use super::message::{HEADER, split};
use super::*;
use crate::fs::TryError;
use crate::mm::IoBuf;
use crate::net::inet::tcp::TcpSocket;
use crate::net::inet::udp::UdpSocket;
use crate::net::inet::{AF_INET, Endpoint};
use crate::net::socket::{Outgoing, Receive, Socket, Switches};

const DUMP: u32 = raw::NLM_F_REQUEST | raw::NLM_F_DUMP;
const BY_FAMILY: u16 = 20;

fn socket(protocol: u8) -> Arc<NetlinkSocket> {
    NetlinkSocket::new(Type::Raw, protocol, true)
}

fn message(kind: u32, flags: u32, body: &[u8]) -> Vec<u8> {
    let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend((kind as u16).to_ne_bytes());
    bytes.extend((flags as u16).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

fn begin(socket: &NetlinkSocket, bytes: &[u8]) -> Result<usize, TryError> {
    socket.try_send(&mut IoBuf::kernel(bytes), &mut Outgoing::plain())
}

fn send(socket: &NetlinkSocket, bytes: &[u8]) -> Result<usize, TryError> {
    let sent = begin(socket, bytes);
    while socket.go_on() {}
    sent
}

/// The messages of the next datagram.
fn receive(socket: &NetlinkSocket, room: usize) -> Option<Vec<(u16, Vec<u8>)>> {
    while socket.go_on() {}
    let mut bytes = vec![0; room];
    let received = socket.try_receive(&mut IoBuf::kernel_mut(&mut bytes), Receive::default()).ok()?;
    Some(split(&bytes[..received.len]).map(|(header, body)| (header.kind, body.to_vec())).collect())
}

fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

#[test]
fn nothing_that_is_sent_makes_it_fail_or_hang() {
    let kinds = [18, 22, 26, 30, 34, 20, 19, 21, 16, 24, 3];
    let mut seed = 1;
    for protocol in [ROUTE, DIAG] {
        let socket = socket(protocol);
        socket.options.store(1 << raw::NETLINK_GET_STRICT_CHK, Ordering::Relaxed);
        for round in 0..4000 {
            let len = random(&mut seed) as usize % 100;
            let body: Vec<u8> =
                (0..len).map(|_| random(&mut seed) as u8 % if round % 2 == 0 { 20 } else { 255 }).collect();
            let flags = [1, 5, 0x301][random(&mut seed) as usize % 3];
            let mut bytes = message(kinds[random(&mut seed) as usize % kinds.len()], flags, &body);
            if round % 5 == 0 {
                let at = random(&mut seed) as usize % bytes.len();
                bytes[at] = random(&mut seed) as u8;
            }
            bytes.truncate(bytes.len() - random(&mut seed) as usize % 3);
            assert_eq!(send(&socket, &bytes), Ok(bytes.len()));
            // Whatever comes, it comes to an end.
            while receive(&socket, 65_536).is_some() || socket.common.take_error().is_some() {}
        }
    }
}

#[test]
fn a_list_comes_in_parts_that_fit_and_holds_all() {
    let here = Endpoint { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 0 };
    let listeners: Vec<_> = (0..150)
        .map(|_| {
            let socket = TcpSocket::new(AF_INET);
            socket.bind_as(0, here).unwrap();
            socket.start_listening(0, 1).unwrap();
            let address = socket.local_address();
            (socket, [address[2], address[3]])
        })
        .collect();
    let mut body = vec![AF_INET as u8, 6, 0, 0, 0, 4, 0, 0];
    body.resize(56, 0);
    let asking = socket(DIAG);
    let request = message(BY_FAMILY.into(), DUMP, &body);
    send(&asking, &request).unwrap();
    assert_eq!(asking.state.lock().inbox.len(), 1, "only what the reader will see next");
    // One list at a time.
    send(&asking, &request).unwrap();
    let (mut ports, mut parts, mut refused, mut ends) = (Vec::new(), 0, 0, 0);
    while let Some(messages) = receive(&asking, 4096) {
        parts += 1;
        for (kind, body) in messages {
            match u32::from(kind) {
                raw::NLMSG_ERROR => refused += 1,
                raw::NLMSG_DONE => ends += 1,
                _ => ports.push([body[4], body[5]]),
            }
        }
    }
    assert!(listeners.iter().all(|(_, port)| ports.contains(port)));
    assert!(parts > 3 && refused == 1 && ends == 1, "{parts} {refused} {ends}");
}

#[test]
fn what_is_long_to_look_for_is_looked_for_in_steps() {
    let here = Endpoint { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 0 };
    // Shared ports, so that one part of the table is long.
    let first = UdpSocket::new(AF_INET);
    first.common().switch(Switches::REUSEADDR, true);
    first.bind_as(0, here).unwrap();
    let address = first.local_address();
    let port = u16::from_be_bytes([address[2], address[3]]);
    let sockets: Vec<_> = (0..500)
        .map(|_| {
            let socket = UdpSocket::new(AF_INET);
            socket.common().switch(Switches::REUSEADDR, true);
            socket.bind_as(0, Endpoint { port, ..here }).unwrap();
            socket
        })
        .collect();
    let mut body = vec![AF_INET as u8, 17, 0, 0, 0, 0, 0, 0];
    body.resize(56, 0);
    let none = message(BY_FAMILY.into(), DUMP, &body);
    // The last of them: none has this other end.
    body[8..10].copy_from_slice(&port.to_be_bytes());
    body[10..12].copy_from_slice(&[0, 9]);
    body[12..16].copy_from_slice(&[127, 0, 0, 1]);
    let one = message(BY_FAMILY.into(), raw::NLM_F_REQUEST, &body);
    let asking = socket(DIAG);
    begin(&asking, &[none.clone(), one, none].concat()).unwrap();
    let mut steps = 0;
    while asking.go_on() {
        assert!(asking.ready().contains(Events::IN), "who waits for the answer comes and goes on");
        steps += 1;
    }
    assert!(steps > 10 || !crate::exec::is_budget_used(), "{steps}");
    let kinds = |messages: Vec<(u16, Vec<u8>)>| messages.iter().map(|(kind, _)| u32::from(*kind)).collect::<Vec<_>>();
    let answers: Vec<_> = core::iter::from_fn(|| receive(&asking, 4096)).flat_map(kinds).collect();
    assert_eq!(answers, [raw::NLMSG_DONE, raw::NLMSG_ERROR, raw::NLMSG_DONE]);
    drop(sockets);
}

#[test]
fn who_listens_hears_and_who_does_not_any_more_does_not() {
    let hear = || core::array::from_fn::<_, 40, _>(|_| socket(ROUTE));
    let (some, others) = (hear(), hear());
    for (number, socket) in some.iter().chain(&others).enumerate() {
        table::claim(socket, 1 << 31 | number as u32).unwrap();
    }
    some.iter().for_each(|socket| table::listen(socket, |_| 1 << 30 | 1 << 35));
    others.iter().for_each(|socket| table::listen(socket, |_| 1 << 30));
    some.iter().for_each(|socket| table::listen(socket, |groups| groups & !(1 << 30)));
    assert_eq!(table::listeners(ROUTE, 31).count(), 40);
    assert_eq!(table::listeners(ROUTE, 36).count(), 40);
    notify(36, &mut |out| out.begin(20, 0, &[1; 8]));
    assert!(some.iter().all(|socket| receive(socket, 100).is_some()));
    assert!(others.iter().all(|socket| receive(socket, 100).is_none()));
    others.iter().for_each(|socket| socket.close());
    assert_eq!(table::listeners(ROUTE, 31).count(), 0);
}

#[test]
fn a_socket_that_is_closed_while_it_is_asked_lets_go_of_everything() {
    let asking = socket(ROUTE);
    send(&asking, &message(18, DUMP, &[0; 16])).unwrap();
    asking.close();
    assert!(asking.state.lock().dump.is_none() && asking.state.lock().inbox.is_empty());
    assert!(table::find(ROUTE, asking.port()).is_none_or(|there| !Arc::ptr_eq(&there, &asking)));
}

#[test]
fn what_finds_no_room_is_told_once() {
    let asking = socket(ROUTE);
    asking.common.receive_buffer.store(2304, Ordering::Relaxed);
    for _ in 0..50 {
        send(&asking, &message(18, raw::NLM_F_REQUEST, &[0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])).unwrap();
    }
    let mut empty = IoBuf::kernel_mut(&mut []);
    assert_eq!(asking.try_receive(&mut empty, Receive::default()).err(), Some(Errno::ENOBUFS.into()));
    let count = core::iter::from_fn(|| receive(&asking, 4096)).count();
    assert!((1..50).contains(&count) && !asking.common.has_error());
}
