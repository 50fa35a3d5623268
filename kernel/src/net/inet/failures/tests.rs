use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::errno::Result;
use crate::fs::{FileOps, TryError};
use crate::mm::IoBuf;
use crate::net::inet::udp::UdpSocket;
use crate::net::inet::{AF_INET, AF_INET6, Endpoint};
use crate::net::interface::{self, LOOPBACK_INDEX};
use crate::net::socket::{Outgoing, Received, Socket, Target};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const HERE6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
const SOL_IP: u32 = 0;
const IP_RECVERR: u32 = 11;

/// A port that nobody has: it was one's that is gone.
fn nobody(ip: IpAddr) -> Endpoint {
    let family = if ip.is_ipv4() { AF_INET } else { AF_INET6 };
    let socket = UdpSocket::new(family);
    socket.bind_as(0, Endpoint { ip, port: 0 }).unwrap();
    let address = socket.local_address();
    Endpoint { ip, port: u16::from_be_bytes([address[2], address[3]]) }
}

fn asking() -> alloc::sync::Arc<UdpSocket> {
    interface::set_loopback(true);
    let socket = UdpSocket::new(AF_INET);
    socket.set_ip_option(SOL_IP, IP_RECVERR, &[1]).unwrap();
    socket
}

fn send(socket: &UdpSocket, text: &[u8], to: Endpoint) -> Result<usize, TryError> {
    let mut message = Outgoing { target: Target::Inet(to), ..Outgoing::plain() };
    socket.try_send(&mut IoBuf::kernel(text), &mut message)
}

fn failure(socket: &UdpSocket) -> Result<(Vec<u8>, Received), TryError> {
    let mut bytes = vec![0; 2000];
    let received = socket.try_receive_failure(&mut IoBuf::kernel_mut(&mut bytes))?;
    bytes.truncate(received.len);
    Ok((bytes, received))
}

#[test]
fn what_is_lost_comes_back_once() {
    let socket = asking();
    let there = nobody(HERE);
    send(&socket, b"lost", there).unwrap();
    assert!(socket.ready().contains(crate::fs::Events::ERR));
    let (bytes, received) = failure(&socket).unwrap();
    assert_eq!(bytes, b"lost");
    assert_eq!(received.from.as_deref(), Some(&*there.to_address(AF_INET)));
    let extras = received.extras.unwrap().0;
    let data = &extras.last().unwrap().data;
    assert_eq!(data[..8], [111, 0, 0, 0, 2, 3, 3, 0]);
    assert!(failure(&socket).is_err() && !socket.common().has_error());
}

#[test]
fn what_nobody_reads_is_bounded_and_goes_with_the_socket() {
    let socket = asking();
    let there = nobody(HERE);
    for _ in 0..1000 {
        let _ = send(&socket, &[7; 500], there);
        let _ = socket.common().take_error();
    }
    let count = core::iter::from_fn(|| failure(&socket).ok()).count();
    assert!((100..=212_992 / 1268).contains(&count), "{count}");
    let _ = send(&socket, b"x", there);
    let _ = socket.common().take_error();
    socket.set_ip_option(SOL_IP, IP_RECVERR, &[0]).unwrap();
    assert!(failure(&socket).is_err() && !socket.ready().contains(crate::fs::Events::ERR));
}

/// A message about a datagram, as the machine makes it itself.
fn message(ip: IpAddr) -> Vec<u8> {
    use crate::net::inet::ip::packet::{Head, checksum, pseudo_checksum, put};
    let (protocol, kind, code) = if ip.is_ipv4() { (IPPROTO_ICMP, 3, 3) } else { (IPPROTO_ICMPV6, 1, 4) };
    let head = |protocol| Head { from: ip, to: ip, protocol, hops: 9, class: 0, ident: 0 };
    let quoted = head(IPPROTO_UDP).before(&[0, 5, 0, 6, 0, 12, 0, 0, 1, 2, 3, 4]).unwrap();
    let mut message = vec![kind, code, 0, 0, 0, 0, 0, 0];
    message.extend(&quoted);
    let sum = if ip.is_ipv4() { checksum(&[&message]) } else { pseudo_checksum(ip, ip, protocol, &message) };
    put(&mut message, 2, sum);
    head(protocol).before(&message).unwrap().into_vec()
}

#[test]
fn a_message_says_whose_packet_it_was() {
    for ip in [HERE, HERE6] {
        let bytes = message(ip);
        let packet = Arrived::parse(&bytes, LOOPBACK_INDEX).unwrap();
        let failure = Failure::parse(&packet).unwrap();
        assert_eq!((failure.errno, failure.lasts, failure.protocol), (Errno::ECONNREFUSED, true, IPPROTO_UDP));
        assert_eq!((failure.from, failure.to, failure.ports()), (ip, ip, (5, 6)));
        assert_eq!(failure.body[8..], [1, 2, 3, 4]);
    }
}

#[test]
fn nothing_that_comes_makes_it_fail() {
    let mut seed = 7u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize
    };
    for round in 0..5000 {
        let v4 = round % 2 == 0;
        let mut payload: Vec<u8> = message(if v4 { HERE } else { HERE6 }).split_off(if v4 { 20 } else { 40 });
        for _ in 0..random() % 4 {
            let at = random() % payload.len();
            payload[at] = random() as u8;
        }
        payload.truncate(random() % (payload.len() + 1));
        let (protocol, ip) = if v4 { (IPPROTO_ICMP, HERE) } else { (IPPROTO_ICMPV6, HERE6) };
        if payload.len() >= 4 {
            crate::net::inet::ip::packet::put(&mut payload, 2, 0);
            let sum = match v4 {
                true => crate::net::inet::ip::packet::checksum(&[&payload]),
                false => crate::net::inet::ip::packet::pseudo_checksum(ip, ip, protocol, &payload),
            };
            crate::net::inet::ip::packet::put(&mut payload, 2, sum);
        }
        let by = Arrived { whole: &[], payload: &payload, from: ip, to: ip, protocol, hops: 1, class: 0, index: 1 };
        if let Some(failure) = Failure::parse(&by) {
            assert!(failure.body.len() >= 8);
            arrive(&by);
        }
    }
}
