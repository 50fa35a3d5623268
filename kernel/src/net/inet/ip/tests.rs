use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::packet::{Head, checksum};
use super::*;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn question(ident: u16, text: &[u8]) -> Vec<u8> {
    let mut bytes = vec![8, 0, 0, 0];
    bytes.extend(ident.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(text);
    bytes
}

fn send(socket: &IpSocket, bytes: &[u8], to: IpAddr) -> Result<usize, TryError> {
    let mut message = Outgoing { target: Target::Inet(Endpoint { ip: to, port: 0 }), ..Outgoing::plain() };
    socket.try_send(&mut IoBuf::kernel(bytes), &mut message)
}

fn receive(socket: &IpSocket) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 70_000];
    let how = Receive { nonblock: true, ..Receive::default() };
    let received = socket.try_receive(&mut IoBuf::kernel_mut(&mut bytes), how).ok()?;
    bytes.truncate(received.len);
    Some(bytes)
}

fn asking() -> Arc<IpSocket> {
    interface::set_loopback(true);
    IpSocket::new(AF_INET, Kind::Echo, IPPROTO_ICMP)
}

fn raw(family: u16, protocol: u8) -> Arc<IpSocket> {
    interface::set_loopback(true);
    IpSocket::new(family, Kind::Raw, protocol)
}

#[test]
fn checksums_are_those_of_the_standard() {
    // RFC 1071, 3.
    assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
    assert_eq!(checksum(&[&[0x00, 0x01], &[0xf2]]), !0xf201);
    assert_eq!(checksum(&[]), 0xffff);
}

#[test]
fn what_is_written_is_read() {
    let ends = [(HERE, HERE), (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into())];
    for (from, to) in ends {
        for len in [0, 1, 8, 1000] {
            let head = Head { from, to, protocol: 200, hops: 9, class: 0xa5, ident: 1 };
            let payload = vec![7; len];
            let whole = head.before(&payload).unwrap();
            let read = Arrived::parse(&whole, 3).unwrap();
            assert_eq!(
                (read.from, read.to, read.protocol, read.hops, read.class, read.index),
                (from, to, 200, 9, 0xa5, 3)
            );
            assert!(read.payload == payload && read.whole == &*whole);
            for cut in 0..whole.len() {
                assert!(Arrived::parse(&whole[..cut], 3).is_none(), "{cut} of {len}");
            }
        }
    }
}

#[test]
fn nothing_that_comes_makes_it_fail() {
    let (listening, other) = (raw(AF_INET, IPPROTO_ICMP), raw(AF_INET6, IPPROTO_ICMPV6));
    let mut seed = 5u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    for round in 0..5000 {
        let mut bytes: Vec<u8> = (0..random() % 80).map(|_| random() as u8).collect();
        if let Some(first) = bytes.first_mut() {
            *first = [0x45, 0x60, 0x4f, 0x41][round % 4];
        }
        if let Some(Arrived { payload, .. }) = Arrived::parse(&bytes, 1).inspect(|packet| _ = arrive(packet)) {
            assert!(payload.len() <= bytes.len());
        }
        arrive::deliver_here(&bytes, 1);
    }
    drop((listening, other));
}

#[test]
fn a_question_is_answered_to_who_asked() {
    let (one, other) = (asking(), asking());
    assert!(matches!(send(&one, &question(9, b"text"), HERE), Ok(12)));
    let answer = receive(&one).unwrap();
    assert_eq!((answer[0], &answer[8..]), (0, &b"text"[..]));
    assert_eq!(answer[4..6], one.local_address()[2..4]);
    assert_eq!(checksum(&[&answer]), 0);
    assert!(receive(&one).is_none() && receive(&other).is_none());
    let ident = one.state.lock().local.port;
    one.released();
    assert!(table::asking(ident, HERE, 1).is_none());
    drop(one);
}

#[test]
fn what_is_not_read_is_bounded() {
    let socket = asking();
    for _ in 0..3000 {
        send(&socket, &question(0, &[0; 1000]), HERE).unwrap();
    }
    let state = socket.state.lock();
    assert!(state.charge < 230_000 && state.inbox.len() < 200, "{} {}", state.charge, state.inbox.len());
    drop(state);
    while receive(&socket).is_some() {}
    assert_eq!(socket.state.lock().charge, 0);
}

#[test]
fn all_identifiers_are_given_out_and_then_none() {
    let sockets: Vec<_> = core::iter::from_fn(|| {
        let socket = asking();
        let got = socket.take_ident(&mut socket.state.lock());
        got.is_ok().then_some(socket)
    })
    .take(70_000)
    .collect();
    // Those of other tests have some.
    assert!((65_000..=65_535).contains(&sockets.len()), "{}", sockets.len());
    drop(sockets);
    let socket = asking();
    assert!(socket.take_ident(&mut socket.state.lock()).is_ok());
}

#[test]
fn a_raw_socket_has_all_of_its_protocol_that_it_wants() {
    let (hears, filters, elsewhere) = (raw(AF_INET, IPPROTO_ICMP), raw(AF_INET, IPPROTO_ICMP), raw(AF_INET, 254));
    // Echo requests and answers.
    let filter = (1u32 << 8 | 1).to_ne_bytes();
    filters.raw_options.lock().set(&filters.common, 255, 1, &filter).unwrap().unwrap();
    let asks = asking();
    let ident = [0x12, 0x34];
    asks.state.lock().local.port = table::claim(&asks, 0x1234, HERE, false).unwrap();
    send(&asks, &question(0, b"unlike others"), HERE).unwrap();
    let own: Vec<_> = core::iter::from_fn(|| receive(&hears)).filter(|packet| packet[24..26] == ident).collect();
    assert_eq!(own.iter().map(|packet| packet[20]).collect::<Vec<_>>(), [8, 0]);
    assert!(receive(&filters).is_none() && receive(&elsewhere).is_none());
    send(&elsewhere, b"anything", HERE).unwrap();
    let packet = receive(&elsewhere).unwrap();
    assert_eq!((packet.len(), packet[0], packet[9], &packet[20..]), (28, 0x45, 254, &b"anything"[..]));
}

#[test]
fn the_range_of_groups_is_read_as_linux_reads_it() {
    assert_eq!(set_group_range(b"x"), Err(Errno::EINVAL));
    assert_eq!(set_group_range(b"-1 3"), Err(Errno::EINVAL));
    assert_eq!(set_group_range(b"0 4294967295"), Err(Errno::EINVAL));
    set_group_range(b"5\t7\n").unwrap();
    assert_eq!(group_range(), (5, 7));
    set_group_range(b"9 8").unwrap();
    assert_eq!(group_range(), (1, 0));
}
