//! What others on the wire can send.

use core::net::{IpAddr, Ipv4Addr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame,
    EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
    UdpPacket, UdpRepr,
};

use super::super::configure::Method;
use super::wire::{Faults, Net};
use super::*;
use crate::net::interface;

pub(super) const THEIR_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 77]);

fn frame(net: &Net, ethertype: EthernetProtocol, len: usize, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let header = EthernetRepr { src_addr: THEIR_MAC, dst_addr: EthernetAddress(net.mac()), ethertype };
    let mut bytes = vec![0; 14 + len];
    header.emit(&mut EthernetFrame::new_unchecked(&mut bytes));
    fill(&mut bytes[14..]);
    bytes
}

pub(super) fn packet(
    net: &Net,
    from: Ipv4Addr,
    to: Ipv4Addr,
    next_header: IpProtocol,
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    let ip = Ipv4Repr { src_addr: from, dst_addr: to, next_header, payload_len: len, hop_limit: 64 };
    frame(net, EthernetProtocol::Ipv4, 20 + len, |room| {
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut *room), &ChecksumCapabilities::default());
        fill(&mut room[20..]);
    })
}

pub(super) fn datagram(net: &Net, (from, to): (Ipv4Addr, Ipv4Addr), ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let udp = UdpRepr { src_port: ports.0, dst_port: ports.1 };
    packet(net, from, to, IpProtocol::Udp, 8 + data.len(), |room| {
        let fill = |room: &mut [u8]| room.copy_from_slice(data);
        let mut packet = UdpPacket::new_unchecked(room);
        udp.emit(&mut packet, &from.into(), &to.into(), data.len(), fill, &ChecksumCapabilities::default());
    })
}

/// A segment of a machine that has sent 1000 bytes before: without an acknowledgement a SYN.
pub(super) fn segment(
    net: &Net,
    (from, to): (Ipv4Addr, Ipv4Addr),
    ports: (u16, u16),
    ack: Option<TcpSeqNumber>,
    window_len: u16,
) -> Vec<u8> {
    segment_with(net, (from, to), ports, ack, window_len, 0, &[])
}

/// One with data, from this byte on.
pub(super) fn segment_with(
    net: &Net,
    (from, to): (Ipv4Addr, Ipv4Addr),
    ports: (u16, u16),
    ack: Option<TcpSeqNumber>,
    window_len: u16,
    first: usize,
    payload: &[u8],
) -> Vec<u8> {
    let segment = TcpRepr {
        src_port: ports.0,
        dst_port: ports.1,
        control: if ack.is_none() { TcpControl::Syn } else { TcpControl::None },
        seq_number: TcpSeqNumber(1000) + usize::from(ack.is_some()) + first,
        ack_number: ack,
        window_len,
        window_scale: None,
        max_seg_size: ack.is_none().then_some(1460),
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload,
    };
    packet(net, from, to, IpProtocol::Tcp, segment.buffer_len(), |room| {
        let mut packet = TcpPacket::new_unchecked(room);
        segment.emit(&mut packet, &from.into(), &to.into(), &ChecksumCapabilities::default());
    })
}

/// A segment between these machines, in another way, with a good checksum.
pub(super) fn changed(
    (from, to): (Ipv4Addr, Ipv4Addr),
    mut frame: Vec<u8>,
    change: impl FnOnce(&mut TcpPacket<&mut [u8]>),
) -> Vec<u8> {
    let mut segment = TcpPacket::new_unchecked(&mut frame[34..]);
    change(&mut segment);
    segment.fill_checksum(&from.into(), &to.into());
    frame
}

/// A SYN.
fn begin(net: &Net, from: Ipv4Addr, to: Ipv4Addr, ports: (u16, u16)) -> Vec<u8> {
    segment(net, (from, to), ports, None, 1000)
}

pub(super) fn arp(net: &Net, operation: ArpOperation, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: THEIR_MAC,
        source_protocol_addr: from,
        target_hardware_addr: EthernetAddress(net.mac()),
        target_protocol_addr: to,
    };
    frame(net, EthernetProtocol::Arp, arp.buffer_len(), |room| arp.emit(&mut ArpPacket::new_unchecked(room)))
}

/// A frame with a packet as two, with fragments of it, the first of which has `first` bytes.
fn in_fragments(frame: &[u8], first: usize) -> [Vec<u8>; 2] {
    let cut = |from: usize, to: usize, more: bool| {
        let mut bytes = [&frame[..34], &frame[34 + from..34 + to]].concat();
        let mut ip = Ipv4Packet::new_unchecked(&mut bytes[14..]);
        ip.set_total_len((20 + to - from) as u16);
        ip.set_ident(4711);
        ip.set_dont_frag(false);
        ip.set_more_frags(more);
        ip.set_frag_offset(from as u16);
        ip.fill_checksum();
        bytes
    };
    [cut(0, first, true), cut(first, frame.len() - 34, false)]
}

/// The segments among what the machine has sent: to which port, and their flags.
fn segments(net: &mut Net) -> Vec<(u16, u8)> {
    let kept = net.kept.replace(vec![]).unwrap_or_default();
    let segments = kept.iter().filter(|frame| frame[12..14] == [8, 0] && frame[23] == 6);
    segments.map(|frame| (u16::from_be_bytes([frame[36], frame[37]]), frame[47])).collect()
}

pub(super) fn listener() -> (alloc::sync::Arc<TcpSocket>, u16) {
    let listener = TcpSocket::new(AF_INET);
    listener.bind_as(0, Endpoint::any(AF_INET)).unwrap();
    listener.start_listening(0, 5).unwrap();
    let address = listener.local_address();
    (listener, u16::from_be_bytes([address[2], address[3]]))
}

/// What the last request of DHCP was, and its number.
fn last_request(net: &mut Net) -> Option<(DhcpMessageType, u32)> {
    let kept = net.kept.as_ref()?;
    let asked = kept.iter().rev().find(|frame| frame.len() > 42 && frame[23] == 17 && frame[36..38] == [0, 67])?;
    let packet = DhcpPacket::new_checked(&asked[42..]).ok()?;
    let repr = DhcpRepr::parse(&packet).ok()?;
    Some((repr.message_type, repr.transaction_id))
}

/// Answers from a server at `server` that gives `router`.
fn answer(net: &mut Net, kind: DhcpMessageType, server: Ipv4Addr, router: Ipv4Addr) {
    let (_, transaction_id) = last_request(net).unwrap();
    let own = net.machine(1);
    let repr = DhcpRepr {
        message_type: kind,
        transaction_id,
        secs: 0,
        client_hardware_address: EthernetAddress(net.mac()),
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: own,
        server_ip: server,
        router: Some(router),
        subnet_mask: Some(Ipv4Addr::new(255, 255, 255, 0)),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(net.machine(2)),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: Some(2),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).unwrap();
    let frame = datagram(net, (server, Ipv4Addr::BROADCAST), (67, 68), &bytes);
    net.arrive(frame);
}

fn wait_for_request(net: &mut Net, kind: DhcpMessageType) {
    net.until("it is asked for", |net| last_request(net).is_some_and(|(asked, _)| asked == kind));
}

#[test]
fn a_server_without_an_address_gives_none_and_one_with_a_bad_router_no_router() {
    let mut net = Net::with(20, Faults::default(), |_| Method::Dhcp);
    net.kept = Some(vec![]);
    wait_for_request(&mut net, DhcpMessageType::Discover);
    let router = net.machine(2);
    answer(&mut net, DhcpMessageType::Offer, Ipv4Addr::UNSPECIFIED, router);
    net.pass(core::time::Duration::from_secs(5));
    assert_eq!(last_request(&mut net).unwrap().0, DhcpMessageType::Discover);
    for router in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, Ipv4Addr::new(224, 0, 0, 1)] {
        let server = net.machine(2);
        wait_for_request(&mut net, DhcpMessageType::Discover);
        answer(&mut net, DhcpMessageType::Offer, server, router);
        wait_for_request(&mut net, DhcpMessageType::Request);
        answer(&mut net, DhcpMessageType::Ack, server, router);
        // A lease of two seconds is renewed and over soon; meanwhile somebody far away is to be answered.
        net.kept = Some(vec![]);
        net.step();
        let far = begin(&net, Ipv4Addr::new(8, 8, 8, 8), net.machine(1), (9, 9));
        net.arrive(far);
        net.pass(core::time::Duration::from_secs(4));
    }
}

#[test]
fn neighbours_that_repeat_who_they_are_put_no_connection_into_the_queue_twice() {
    let mut net = Net::new(21, Faults::default());
    let mut all = vec![];
    for port in 100..110 {
        let there = net.add_tcp();
        net.tcp(there).listen(port).unwrap();
        let socket = TcpSocket::new(AF_INET);
        socket.begin_as(0, net.own, net.at(port)).unwrap();
        net.until("it is connected", |_| !socket.is_connecting());
        all.push(socket);
    }
    for turn in 0..20 {
        for number in 0..64 {
            let frame = arp(&net, ArpOperation::Reply, net.machine(3 + (turn * 7 + number) % 200), net.machine(1));
            net.arrive(frame);
        }
        net.engine.turn(net.now);
        let (streams, queued) = net.engine.connections().counts();
        assert!(streams == 10 && queued <= streams, "{queued} of {streams}");
    }
}

#[test]
fn datagrams_in_fragments_do_not_reach_the_loopback() {
    let mut net = Net::new(22, Faults::default());
    let bind = |ip: Ipv4Addr| {
        let socket = UdpSocket::new(AF_INET);
        interface::set_loopback(true);
        socket.bind_as(0, Endpoint { ip: ip.into(), port: 0 }).unwrap();
        let address = socket.local_address();
        (socket, u16::from_be_bytes([address[2], address[3]]))
    };
    let (local, port) = bind(Ipv4Addr::LOCALHOST);
    for from in [Ipv4Addr::LOCALHOST, net.machine(2)] {
        let whole = datagram(&net, (from, Ipv4Addr::LOCALHOST), (7, port), &[1; 100]);
        in_fragments(&whole, 64).into_iter().for_each(|frame| net.arrive(frame));
        net.arrive(whole);
    }
    net.pass(core::time::Duration::from_secs(1));
    assert_eq!(receive(&*local), Ok(None));
    let (open, port) = bind(net.machine(1));
    let whole = datagram(&net, (net.machine(2), net.machine(1)), (7, port), &[1; 100]);
    in_fragments(&whole, 64).into_iter().for_each(|frame| net.arrive(frame));
    // Nor from an address that nobody can have.
    let whole = datagram(&net, (Ipv4Addr::BROADCAST, net.machine(1)), (7, port), &[2; 100]);
    net.arrive(whole);
    net.pass(core::time::Duration::from_secs(1));
    assert_eq!(receive(&*open), Ok(Some(vec![1; 100])));
    assert_eq!(receive(&*open), Ok(None));
}

#[test]
fn a_segment_in_fragments_begins_a_connection() {
    let mut net = Net::new(23, Faults::default());
    let (_listener, port) = listener();
    net.kept = Some(vec![]);
    let whole = begin(&net, net.machine(2), net.machine(1), (77, port));
    in_fragments(&whole, 16).into_iter().for_each(|frame| net.arrive(frame));
    net.until("it is answered", |net| segments(net).contains(&(77, 0x12)));
}

#[test]
fn a_flood_of_connections_that_are_not_finished_lets_others_begin() {
    let mut net = Net::new(24, Faults::default());
    net.set_room(1000);
    let (_listener, port) = listener();
    let mut broken = begin(&net, net.machine(2), net.machine(1), (999, port));
    broken[50] ^= 1;
    net.arrive(broken);
    // The neighbour is known, so that all are answered at once.
    let frame = arp(&net, ArpOperation::Request, net.machine(2), net.machine(1));
    net.arrive(frame);
    net.kept = Some(vec![]);
    net.step();
    assert_eq!(net.engine.connections().counts().0, 0);
    for number in 0..300 {
        let frame = begin(&net, net.machine(2), net.machine(1), (1000 + number, port));
        net.arrive(frame);
        net.engine.turn(net.now);
        assert!(net.engine.connections().counts().0 <= 128);
    }
    // The other machine, which knows of none of them, would reset them.
    net.faults.lost = 100;
    net.step();
    let answered = segments(&mut net);
    assert!((0..300).all(|number| answered.contains(&(1000 + number, 0x12))));
}

#[test]
fn what_is_bound_to_the_loopback_does_not_leave_the_machine() {
    let net = Net::new(27, Faults::default());
    interface::set_loopback(true);
    for (own, told) in
        [(Ipv4Addr::LOCALHOST, Some(Errno::EINVAL)), (Ipv4Addr::new(224, 0, 0, 9), None), (Ipv4Addr::BROADCAST, None)]
    {
        let socket = UdpSocket::new(AF_INET);
        socket.bind_as(0, Endpoint { ip: own.into(), port: 0 }).unwrap();
        let mut message = Outgoing { target: Target::Inet(net.at(53)), ..Outgoing::plain() };
        let answer = socket.try_send(&mut IoBuf::kernel(b"x"), &mut message);
        assert_eq!(answer.err(), told.map(TryError::Failed), "{own}");
        assert_eq!(socket.connect_as(net.at(53)).err(), told, "{own}");
    }
}

#[test]
fn packets_go_as_far_as_they_are_to() {
    const SOL_IP: u32 = 0;
    const IP_TTL: u32 = 2;
    let mut net = Net::new(28, Faults { silent: true, ..Faults::default() });
    let frame = arp(&net, ArpOperation::Request, net.machine(2), net.machine(1));
    net.arrive(frame);
    net.step();
    net.kept = Some(vec![]);
    let (stream, plain) = (TcpSocket::new(AF_INET), UdpSocket::new(AF_INET));
    stream.set_ip_option(SOL_IP, IP_TTL, &[7]).unwrap();
    plain.set_ip_option(SOL_IP, IP_TTL, &[7]).unwrap();
    stream.begin_as(0, net.own, net.at(80)).unwrap();
    let mut message = Outgoing { target: Target::Inet(net.at(9)), ..Outgoing::plain() };
    plain.try_send(&mut IoBuf::kernel(b"x"), &mut message).map_err(|_| ()).unwrap();
    net.pass(core::time::Duration::from_secs(1));
    let kept = net.kept.take().unwrap();
    let mut hops: Vec<_> =
        kept.iter().filter(|frame| frame[12..14] == [8, 0]).map(|frame| (frame[23], frame[22])).collect();
    hops.sort();
    hops.dedup();
    assert_eq!(hops, [(6, 7), (17, 7)]);
    assert_eq!(plain.hops_to(Ipv4Addr::new(224, 0, 0, 9).into()), 1);
}

#[test]
fn nobody_is_told_by_the_loopback_that_a_port_is_closed() {
    let mut net = Net::new(25, Faults { lost: 100, ..Faults::default() });
    let socket = UdpSocket::new(AF_INET);
    let frame = arp(&net, ArpOperation::Reply, net.machine(2), net.machine(1));
    net.arrive(frame);
    net.step();
    socket.connect_as(net.at(99)).unwrap();
    net.kept = Some(vec![]);
    send(&*socket, b"hello?");
    net.pass(core::time::Duration::from_secs(1));
    let sent = net.kept.take().unwrap().into_iter().find(|frame| frame[12..14] == [8, 0] && frame[23] == 17).unwrap();
    for (from, told) in [(Ipv4Addr::LOCALHOST, None), (net.machine(2), Some(Errno::ECONNREFUSED))] {
        let frame = unreachable(&net, from, 3, &sent[14..42]);
        net.arrive(frame);
        net.pass(core::time::Duration::from_secs(1));
        assert_eq!(error(&*socket), told, "{from}");
    }
}

/// Somebody says that a packet has not arrived, with this code.
fn unreachable(net: &Net, from: Ipv4Addr, code: u8, quoted: &[u8]) -> Vec<u8> {
    packet(net, from, net.machine(1), IpProtocol::Icmp, 8 + quoted.len(), |room| {
        room[..2].copy_from_slice(&[3, code]);
        room[8..].copy_from_slice(quoted);
        let sum = !internet_sum(room);
        room[2..4].copy_from_slice(&sum.to_be_bytes());
    })
}

/// RFC 5927, 4.1.
#[test]
fn only_who_has_seen_how_a_connection_begins_says_that_nobody_is_there() {
    let mut net = Net::new(29, Faults { lost: 100, ..Faults::default() });
    let frame = arp(&net, ArpOperation::Reply, net.machine(2), net.machine(1));
    net.arrive(frame);
    net.step();
    net.kept = Some(vec![]);
    let socket = TcpSocket::new(AF_INET);
    socket.begin_as(0, net.own, net.at(80)).unwrap();
    net.pass(core::time::Duration::from_millis(10));
    let mut sent = net.kept.take().unwrap().into_iter();
    let begins = sent.find(|frame| frame[12..14] == [8, 0] && frame[23] == 6).unwrap();
    let first = u32::from_be_bytes(begins[38..42].try_into().unwrap());
    let mut tell = |number: u32, len: usize| {
        let mut quoted = begins[14..34 + len].to_vec();
        let end = quoted.len().min(28);
        quoted[24..end].copy_from_slice(&number.to_be_bytes()[..end - 24]);
        let frame = unreachable(&net, net.machine(9), 3, &quoted);
        net.arrive(frame);
        net.pass(core::time::Duration::from_millis(10));
        (socket.is_connecting(), error(&*socket))
    };
    for number in [0, first.wrapping_sub(1), first.wrapping_add(2), first.wrapping_add(1 << 31), !first] {
        assert_eq!(tell(number, 8), (true, None), "{number} for {first}");
    }
    // Less than there has to be.
    assert_eq!(tell(first, 6), (true, None));
    assert_eq!(tell(first, 8), (false, Some(Errno::ECONNREFUSED)));
}

/// RFC 1071.
fn internet_sum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    (sum & 0xffff) as u16 + (sum >> 16) as u16
}

#[test]
fn who_has_asked_for_this_machine_is_there_and_who_was_there_long_ago_is_not() {
    let mut net = Net::new(26, Faults { lost: 100, ..Faults::default() });
    let frame = arp(&net, ArpOperation::Request, net.machine(9), net.machine(1));
    net.arrive(frame);
    net.step();
    let failed = |net: &mut Net| {
        let begun = net.now;
        let socket = TcpSocket::new(AF_INET);
        let to = Endpoint { ip: IpAddr::V4(net.machine(9)), port: 80 };
        socket.begin_as(0, net.own, to).unwrap();
        net.until("it is given up", |_| !socket.is_connecting());
        (error(&*socket), net.now.saturating_since(begun).as_secs())
    };
    // While the stack knows where it is, a machine that does not answer is silent; when it is asked for anew, it is not there.
    let (errno, seconds) = failed(&mut net);
    assert_eq!(errno, Some(Errno::EHOSTUNREACH));
    assert!((60..70).contains(&seconds), "{seconds}");
    let (errno, seconds) = failed(&mut net);
    assert_eq!(errno, Some(Errno::EHOSTUNREACH));
    assert!((3..5).contains(&seconds), "{seconds}");
}
