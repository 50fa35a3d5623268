//! A card's task against another stack, over a wire that loses, repeats and swaps frames.

mod fair;
mod held;
mod hostile;
mod lasting;
mod memberships;
mod memberships_asked;
mod numbers;
mod offloads;
mod past;
mod recovery;
mod wire;

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};
use core::sync::atomic::Ordering;
use core::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::{tcp, udp};
use smoltcp::wire::IpEndpoint;

use self::wire::{Faults, Net};
use crate::errno::Errno;
use crate::fs::{Events, FileOps, TryError};
use crate::mm::IoBuf;
use crate::net::inet::ip::{IpSocket, Kind};
use crate::net::inet::tcp::TcpSocket;
use crate::net::inet::udp::UdpSocket;
use crate::net::inet::{AF_INET, Endpoint};
use crate::net::interface;
use crate::net::link::{LinkSocket, Name};
use crate::net::socket::{Outgoing, Receive, Socket, Target, Type};

const FAULTS: Faults = Faults { lost: 8, repeated: 5, swapped: 10, silent: false };

fn ready(socket: &dyn FileOps) -> Events {
    socket.ready()
}

fn send(socket: &dyn Socket, bytes: &[u8]) -> usize {
    match socket.try_send(&mut IoBuf::kernel(bytes), &mut Outgoing::plain()) {
        Ok(len) => len,
        Err(TryError::WouldBlock) => 0,
        Err(_) => panic!("cannot send"),
    }
}

/// None: nothing is there. Some of nothing: the end.
fn receive(socket: &dyn Socket) -> Result<Option<Vec<u8>>, Errno> {
    let mut bytes = vec![0; 9000];
    let how = Receive { nonblock: true, ..Receive::default() };
    match socket.try_receive(&mut IoBuf::kernel_mut(&mut bytes), how) {
        Ok(received) => {
            bytes.truncate(received.len);
            Ok(Some(bytes))
        }
        Err(TryError::WouldBlock) => Ok(None),
        Err(TryError::Failed(errno)) => Err(errno),
        Err(_) => panic!("a fault in the kernel"),
    }
}

fn error(socket: &dyn Socket) -> Option<Errno> {
    socket.common().take_error()
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// Sends `data` through a connection to somebody who sends it back, then its end, and checks what comes until the end.
fn exchange(net: &mut Net, socket: &dyn Socket, there: SocketHandle, data: &[u8]) {
    let (mut sent, mut back, mut ended) = (0, Vec::new(), false);
    net.until("all is back", |net| {
        net.echo(there);
        if sent < data.len() {
            sent += send(socket, &data[sent..data.len().min(sent + 5000)]);
            if sent == data.len() {
                socket.shutdown(false, true).unwrap();
            }
        }
        while let Some(bytes) = receive(socket).unwrap() {
            ended = bytes.is_empty();
            if ended {
                break;
            }
            back.extend(bytes);
        }
        ended
    });
    assert!(back == data, "{} of {} bytes", back.len(), data.len());
}

#[test]
fn a_connection_carries_everything_in_both_directions_whatever_the_wire_does() {
    for seed in 0..6 {
        let faults = if seed == 0 { Faults::default() } else { FAULTS };
        let mut net = Net::new(seed, faults);
        let there = net.add_tcp();
        net.tcp(there).listen(80).unwrap();
        let socket = TcpSocket::new(AF_INET);
        socket.begin_as(0, net.own, net.at(80)).unwrap();
        assert!(socket.is_connecting());
        net.until("it is connected", |_| !socket.is_connecting());
        assert_eq!(error(&*socket), None);
        exchange(&mut net, &*socket, there, &pattern(150_000));
        socket.released();
        net.until("nothing is left of it", |net| net.engine.connections().is_idle());
    }
}

#[test]
fn a_listener_has_connections_from_other_machines() {
    for seed in 10..14 {
        let mut net = Net::new(seed, if seed == 10 { Faults::default() } else { FAULTS });
        let listener = TcpSocket::new(AF_INET);
        listener.bind_as(0, Endpoint::any(AF_INET)).unwrap();
        listener.start_listening(0, 5).unwrap();
        let address = listener.local_address();
        let port = u16::from_be_bytes([address[2], address[3]]);
        let there = net.add_tcp();
        let to = IpEndpoint::new(net.own.into(), port);
        net.sockets.get_mut::<tcp::Socket>(there).connect(net.there.context(), to, 999).unwrap();
        net.until("it arrives", |_| !ready(&*listener).is_empty());
        let (accepted, from) = listener.take_connection().unwrap();
        assert_eq!(from[2..4], 999u16.to_be_bytes());
        exchange(&mut net, accepted.as_socket().unwrap(), there, &pattern(100_000));
        accepted.released();
        listener.released();
        net.until("nothing is left of it", |net| net.engine.connections().is_idle());
    }
}

#[test]
fn those_who_do_not_answer_are_told_from_those_who_refuse() {
    let mut net = Net::new(1, Faults::default());
    let refused = TcpSocket::new(AF_INET);
    refused.begin_as(0, net.own, net.at(81)).unwrap();
    net.until("it is refused", |_| !refused.is_connecting());
    assert_eq!(error(&*refused), Some(Errno::ECONNREFUSED));

    let begun = net.now;
    let nobody = TcpSocket::new(AF_INET);
    let IpAddr::V4(other) = net.other else { panic!() };
    let absent = Ipv4Addr::from_bits(other.to_bits() + 5).into();
    nobody.begin_as(0, net.own, Endpoint { ip: absent, port: 80 }).unwrap();
    net.until("nobody is there", |_| !nobody.is_connecting());
    assert_eq!(error(&*nobody), Some(Errno::EHOSTUNREACH));
    assert!((3..5).contains(&net.now.saturating_since(begun).as_secs()));

    let begun = net.now;
    let silent = TcpSocket::new(AF_INET);
    silent.begin_as(0, net.own, net.at(80)).unwrap();
    net.faults.silent = true;
    net.until("it has waited", |_| !silent.is_connecting());
    assert_eq!(error(&*silent), Some(Errno::ETIMEDOUT));
    assert!((127..130).contains(&net.now.saturating_since(begun).as_secs()));
    net.until("nothing is left of it", |net| net.engine.connections().is_idle());
}

#[test]
fn what_was_sent_before_close_arrives_and_a_reset_is_told_once() {
    let mut net = Net::new(2, FAULTS);
    let connect = |net: &mut Net| {
        let there = net.add_tcp();
        net.tcp(there).listen(80).unwrap();
        let socket = TcpSocket::new(AF_INET);
        socket.begin_as(0, net.own, net.at(80)).unwrap();
        net.until("it is connected", |net| {
            !socket.is_connecting() && net.tcp(there).state() == tcp::State::Established
        });
        (socket, there)
    };
    // Closed at once, with all of it still here.
    let (socket, there) = connect(&mut net);
    let data = pattern(50_000);
    assert_eq!(send(&*socket, &data), data.len());
    socket.released();
    drop(socket);
    let mut got = Vec::new();
    net.until("all is there", |net| {
        let socket = net.tcp(there);
        let mut bytes = vec![0; socket.recv_queue()];
        if socket.can_recv() {
            socket.recv_slice(&mut bytes).unwrap();
            got.extend(bytes);
        }
        socket.state() == tcp::State::CloseWait && !socket.can_recv()
    });
    assert!(got == data);
    net.tcp(there).close();

    let (socket, there) = connect(&mut net);
    net.tcp(there).abort();
    net.faults = Faults::default();
    net.until("it is reset", |_| ready(&*socket).contains(Events::ERR));
    assert_eq!(receive(&*socket), Err(Errno::ECONNRESET));
    assert_eq!(receive(&*socket), Ok(Some(vec![])));

    let (socket, there) = connect(&mut net);
    *socket.common().linger.lock() = (true, 0);
    socket.released();
    net.until("the other one is reset", |net| net.tcp(there).state() == tcp::State::Closed);
    // What comes for a program that has gone is answered with a reset.
    let (socket, there) = connect(&mut net);
    socket.released();
    net.until("it ends", |net| net.tcp(there).state() == tcp::State::CloseWait);
    net.tcp(there).send_slice(b"too late").unwrap();
    net.until("it is reset", |net| net.tcp(there).state() == tcp::State::Closed);
    net.until("nothing is left of them", |net| net.engine.connections().is_idle());
}

#[test]
fn a_program_that_does_not_read_stops_the_sender_and_goes_on_later() {
    let mut net = Net::new(3, Faults::default());
    let there = net.add_tcp();
    net.tcp(there).listen(80).unwrap();
    let socket = TcpSocket::new(AF_INET);
    socket.common().receive_buffer.store(8192, Ordering::Relaxed);
    socket.begin_as(0, net.own, net.at(80)).unwrap();
    net.until("it is connected", |_| !socket.is_connecting());
    let data = pattern(600_000);
    let (mut sent, mut quiet) = (0, 0);
    let mut pour = |net: &mut Net| {
        let before = sent;
        while sent < data.len() && net.tcp(there).can_send() {
            sent += net.tcp(there).send_slice(&data[sent..]).unwrap();
        }
        quiet = if sent == before { quiet + 1 } else { 0 };
        quiet
    };
    net.until("the sender is stopped", |net| pour(net) > 200);
    let mut got = Vec::new();
    net.until("all has come", |net| {
        pour(net);
        if let Some(bytes) = receive(&*socket).unwrap() {
            got.extend(bytes);
        }
        got.len() == data.len()
    });
    assert!(got == data);
}

#[test]
fn datagrams_go_out_in_fragments_too_and_one_for_nobody_holds_up_no_other() {
    let mut net = Net::new(4, Faults::default());
    let room = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 60_000]);
    let there = net.sockets.add(udp::Socket::new(room(), room()));
    net.sockets.get_mut::<udp::Socket>(there).bind(53).unwrap();
    let socket = UdpSocket::new(AF_INET);
    socket.bind_as(0, Endpoint::any(AF_INET)).unwrap();
    let IpAddr::V4(other) = net.other else { panic!() };
    let absent = Ipv4Addr::from_bits(other.to_bits() + 5).into();
    let send_to = |to: Endpoint, bytes: &[u8]| {
        let mut message = Outgoing { target: Target::Inet(to), ..Outgoing::plain() };
        socket.try_send(&mut IoBuf::kernel(bytes), &mut message).map_err(|_| ()).unwrap()
    };
    send_to(Endpoint { ip: absent, port: 53 }, b"is anybody there?");
    for len in [1, 1472, 1473, 20_000] {
        let data = pattern(len);
        send_to(net.at(53), &data);
        let mut back = None;
        net.until("it comes back", |net| {
            let far = net.sockets.get_mut::<udp::Socket>(there);
            if let Ok((bytes, from)) = far.recv() {
                assert!(bytes == data);
                // The other stack sends no fragments.
                let answer = bytes[..len.min(1000)].to_vec();
                far.send_slice(&answer, from).unwrap();
            }
            back = back.take().or(receive(&*socket).unwrap());
            back.is_some()
        });
        assert!(back.unwrap() == data[..len.min(1000)]);
    }
    // All that was charged to the socket is given back, for the one that got lost, too.
    net.until("nothing is on its way", |_| ready(&*socket).contains(Events::OUT) && socket.on_its_way() == 0);
    assert!(
        socket
            .try_send(
                &mut IoBuf::kernel(&[0; 40_000]),
                &mut Outgoing { target: Target::Inet(net.at(53)), ..Outgoing::plain() }
            )
            .is_err()
    );
}

#[test]
fn a_connected_datagram_socket_is_told_that_nobody_is_there() {
    let mut net = Net::new(5, Faults::default());
    let socket = UdpSocket::new(AF_INET);
    socket.connect_as(net.at(99)).unwrap();
    send(&*socket, b"hello?");
    net.until("it is told", |_| ready(&*socket).contains(Events::ERR));
    assert_eq!(receive(&*socket), Err(Errno::ECONNREFUSED));
    assert_eq!(receive(&*socket), Ok(None));
}

#[test]
fn other_machines_answer_questions_and_raw_sockets_hear_it() {
    let mut net = Net::new(6, Faults::default());
    let (asks, hears) = (IpSocket::new(AF_INET, Kind::Echo, 1), IpSocket::new(AF_INET, Kind::Raw, 1));
    let there = Endpoint { port: 0, ..net.at(0) };
    let ask = |len: usize| {
        let bytes = [&[8, 0, 0, 0, 0, 0, 0, 5][..], &pattern(len)].concat();
        let mut message = Outgoing { target: Target::Inet(there), ..Outgoing::plain() };
        asks.try_send(&mut IoBuf::kernel(&bytes), &mut message)
    };
    for len in [0, 56, 1400] {
        assert!(matches!(ask(len), Ok(sent) if sent == len + 8));
        let mut answer = None;
        net.until("there is an answer", |_| {
            answer = answer.take().or(receive(&*asks).unwrap());
            answer.is_some()
        });
        let answer = answer.unwrap();
        assert!(answer[0] == 0 && answer[6..8] == [0, 5] && answer[8..] == pattern(len));
        // Other tests ask, too.
        let own = |packet: &Vec<u8>| packet[16..20] == octets(net.own) && packet[20] == 0;
        let heard: Vec<_> = core::iter::from_fn(|| receive(&*hears).unwrap()).filter(own).collect();
        assert_eq!(heard.len(), 1);
        assert!(heard[0][12..16] == octets(there.ip) && heard[0][28..] == pattern(len));
    }
    assert!(matches!(ask(40_000), Err(TryError::Failed(Errno::EMSGSIZE))));
    net.until("nothing is on its way", |_| asks.on_its_way() == 0);
}

fn octets(ip: IpAddr) -> [u8; 4] {
    if let IpAddr::V4(ip) = ip { ip.octets() } else { [0; 4] }
}

/// What nobody sends (local experiments, IEEE 802).
const LOCAL: u16 = 0x88b6;

#[test]
fn programs_send_and_receive_frames() {
    let mut net = Net::new(40, Faults::default());
    let devices = interface::devices();
    let index = devices.iter().find(|device| device.mac == net.mac()).unwrap().index;
    let socket = LinkSocket::new(Type::Raw, LOCAL);
    let frame = |to: [u8; 6], text: &[u8]| [&to[..], &[2, 0, 0, 0, 9, 9], &LOCAL.to_be_bytes(), text].concat();
    let others = [2, 0, 0, 0, 9, 8];
    for to in [net.mac(), [0xff; 6], [1, 0, 0x5e, 0, 0, 1], others] {
        net.arrive(frame(to, b"hello"));
    }
    net.pass(Duration::from_millis(5));
    assert_eq!(receive(&*socket), Ok(Some(frame(net.mac(), b"hello"))));
    assert_eq!(receive(&*socket), Ok(Some(frame([0xff; 6], b"hello"))));
    assert_eq!(receive(&*socket), Ok(Some(frame([1, 0, 0x5e, 0, 0, 1], b"hello"))));
    assert_eq!(receive(&*socket), Ok(None));
    // PACKET_ADD_MEMBERSHIP with PACKET_MR_PROMISC.
    let wish = [&index.to_ne_bytes()[..], &1u16.to_ne_bytes(), &[0; 10]].concat();
    socket.set(263, 1, &wish).unwrap();
    net.arrive(frame(others, b"more"));
    net.pass(Duration::from_millis(5));
    assert_eq!(receive(&*socket), Ok(Some(frame(others, b"more"))));

    net.kept = Some(Vec::new());
    // Without room in the card it waits.
    net.set_room(0);
    let mut message = Outgoing { target: Target::Link(Name::new(LOCAL, index)), ..Outgoing::plain() };
    let sent = frame(others, b"goes out");
    assert_eq!(socket.try_send(&mut IoBuf::kernel(&sent), &mut message).ok(), Some(sent.len()));
    net.pass(Duration::from_millis(5));
    assert!(net.kept.as_ref().unwrap().is_empty());
    net.set_room(16);
    net.pass(Duration::from_millis(5));
    assert_eq!(net.kept.take().unwrap(), [sent]);
    socket.released();
}
