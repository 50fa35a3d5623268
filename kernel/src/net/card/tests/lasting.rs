//! Connections that others do not end, or end before the program has looked.

use core::net::{IpAddr, Ipv6Addr};
use core::time::Duration;

use linux_raw_sys::net as raw;
use smoltcp::wire::{IpAddress, IpCidr};

use super::super::configure::Method;
use super::super::{Cidr, Settings, Via};
use super::wire::{Faults, Net};
use super::*;
use crate::net::inet::AF_INET6;
use crate::net::interface;
use crate::net::socket::Switches;

pub(super) fn connect(net: &mut Net) -> (alloc::sync::Arc<TcpSocket>, SocketHandle) {
    let there = net.add_tcp();
    net.tcp(there).listen(80).unwrap();
    let socket = TcpSocket::new(AF_INET);
    socket.begin_as(0, net.own, net.at(80)).unwrap();
    net.until("it is connected", |net| !socket.is_connecting() && net.tcp(there).state() == tcp::State::Established);
    (socket, there)
}

pub(super) fn assert_ends(net: &mut Net, after: Duration) {
    net.pass(after - Duration::from_secs(5));
    assert_eq!(net.engine.connections().counts().0, 1, "it ends too early");
    net.pass(Duration::from_secs(15));
    assert_eq!(net.engine.connections().counts().0, 0, "it does not end");
}

#[test]
fn an_end_that_is_not_acknowledged_is_not_waited_for_for_ever() {
    let mut net = Net::new(40, Faults::default());
    let (socket, _) = connect(&mut net);
    net.faults.lost = 100;
    socket.released();
    assert_ends(&mut net, Duration::from_secs(100));
    // The program has it still: it waits longer, and is told.
    net.faults.lost = 0;
    let (socket, _) = connect(&mut net);
    net.faults.lost = 100;
    socket.shutdown(false, true).unwrap();
    assert_ends(&mut net, Duration::from_secs(924));
    assert_eq!(receive(&*socket), Err(Errno::ETIMEDOUT));
}

#[test]
fn the_other_end_is_not_waited_for_for_ever_by_nobody() {
    let mut net = Net::new(41, Faults::default());
    let (socket, there) = connect(&mut net);
    socket.shutdown(false, true).unwrap();
    net.until("it has come", |net| net.tcp(there).state() == tcp::State::CloseWait);
    net.pass(Duration::from_secs(200));
    // A program that waits for it may do so.
    assert_eq!(net.engine.connections().counts().0, 1);
    net.kept = Some(vec![]);
    socket.released();
    assert_ends(&mut net, Duration::from_secs(60));
    // As on Linux the other machine is not told.
    let resets = net.kept.take().unwrap().iter().filter(|frame| frame[23] == 6 && frame[47] & 4 != 0).count();
    assert_eq!(resets, 0);
}

#[test]
fn an_end_whose_acknowledgement_is_lost_is_acknowledged_again() {
    let mut net = Net::new(39, Faults::default());
    let (socket, there) = connect(&mut net);
    socket.released();
    drop(socket);
    net.until("it has come", |net| net.tcp(there).state() == tcp::State::CloseWait);
    net.tcp(there).close();
    net.step_there();
    net.faults.lost = 100;
    net.pass(Duration::from_millis(100));
    // Its buffers are not kept.
    assert_eq!((net.engine.connections().counts().0, net.engine.connections().past()), (0, 1));
    assert_eq!(net.tcp(there).state(), tcp::State::LastAck);
    net.faults.lost = 0;
    net.until("it is acknowledged", |net| net.tcp(there).state() == tcp::State::Closed);
    net.pass(Duration::from_secs(50));
    assert_eq!(net.engine.connections().past(), 1);
    net.pass(Duration::from_secs(15));
    assert_eq!(net.engine.connections().past(), 0);
}

#[test]
fn connections_in_time_wait_make_way() {
    let mut net = Net::new(38, Faults::default());
    let listener = TcpSocket::new(AF_INET);
    listener.bind_as(0, Endpoint::any(AF_INET)).unwrap();
    listener.start_listening(0, 5).unwrap();
    let address = listener.local_address();
    let to = IpEndpoint::new(net.own.into(), u16::from_be_bytes([address[2], address[3]]));
    for round in 0..3 {
        let there = net.add_tcp();
        net.sockets.get_mut::<tcp::Socket>(there).connect(net.there.context(), to, 999).unwrap();
        net.until("it arrives", |_| !ready(&*listener).is_empty());
        listener.take_connection().unwrap().0.released();
        net.until("it has come", |net| net.tcp(there).state() == tcp::State::CloseWait);
        net.tcp(there).close();
        net.until("it is over", |net| net.tcp(there).state() == tcp::State::Closed);
        assert_eq!(net.engine.connections().past(), 1, "{round}");
    }
}

#[test]
fn who_closes_its_window_does_not_keep_what_a_program_has_left() {
    let mut net = Net::new(42, Faults::default());
    let (socket, there) = connect(&mut net);
    // The other one has room for 20,000, and reads nothing.
    assert_eq!(send(&*socket, &pattern(300_000)), 300_000);
    net.pass(Duration::from_secs(300));
    assert!(ready(&*socket).contains(Events::OUT) && error(&*socket).is_none(), "a program may wait for ever");
    socket.released();
    assert_ends(&mut net, Duration::from_secs(100));
    assert_eq!(net.tcp(there).state(), tcp::State::Closed);
}

#[test]
fn what_a_program_has_left_is_sent_as_long_as_somebody_takes_it() {
    let mut net = Net::new(50, Faults::default());
    let (socket, there) = connect(&mut net);
    let data = pattern(600_000);
    assert_eq!(send(&*socket, &data), data.len());
    socket.released();
    drop(socket);
    let mut got = vec![];
    const PER_TRIP: usize = 2920;
    let mut bytes = [0; PER_TRIP];
    // A slow line, and long after what is left of a connection would be given up.
    let end = net.now.saturating_add(Duration::from_secs(190));
    while net.now < end {
        net.step();
        net.now = net.now.saturating_add(Duration::from_secs(2));
        let mut room = PER_TRIP;
        while room > 0 && net.tcp(there).can_recv() {
            let len = net.tcp(there).recv_slice(&mut bytes[..room]).unwrap();
            got.extend_from_slice(&bytes[..len]);
            room -= len;
        }
    }
    assert_eq!(net.tcp(there).state(), tcp::State::Established);
    net.until("all has come", |net| {
        while net.tcp(there).can_recv() {
            let len = net.tcp(there).recv_slice(&mut bytes).unwrap();
            got.extend_from_slice(&bytes[..len]);
        }
        net.tcp(there).state() == tcp::State::CloseWait
    });
    assert!(got == data, "{} of {}", got.len(), data.len());
}

#[test]
fn what_has_come_is_read_after_the_connection_is_long_over() {
    for reset in [false, true] {
        let mut net = Net::new(43, Faults::default());
        let there = net.add_tcp();
        net.tcp(there).listen(80).unwrap();
        let socket = TcpSocket::new(AF_INET);
        socket.common().receive_buffer.store(8192, Ordering::Relaxed);
        socket.begin_as(0, net.own, net.at(80)).unwrap();
        net.until("it is connected", |_| !socket.is_connecting());
        if !reset {
            socket.shutdown(false, true).unwrap();
        }
        let data = pattern(100_000);
        let mut sent = 0;
        net.until("all is sent", |net| {
            if net.tcp(there).can_send() {
                sent += net.tcp(there).send_slice(&data[sent..]).unwrap();
            }
            sent == data.len() && net.tcp(there).send_queue() == 0
        });
        if reset {
            net.tcp(there).abort();
        } else {
            net.tcp(there).close();
        }
        net.pass(Duration::from_secs(20));
        assert_eq!(net.engine.connections().counts().0, 0);
        let mut got = vec![];
        while let Ok(Some(bytes)) = receive(&*socket)
            && !bytes.is_empty()
        {
            got.extend(bytes);
        }
        assert!(got == data, "{} of {}", got.len(), data.len());
        // What ended the reads above has told it.
        assert_eq!(receive(&*socket), Ok(Some(vec![])));
    }
}

#[test]
fn a_connection_whose_other_end_is_gone_is_found_by_looking_for_it() {
    let mut net = Net::new(44, Faults::default());
    let (socket, _) = connect(&mut net);
    net.pass(Duration::from_secs(20));
    socket.common().switch(Switches::KEEPALIVE, true);
    socket.keep_alive_changed();
    // tcp_keepalive_time.
    net.pass(Duration::from_secs(7300));
    assert!(!ready(&*socket).contains(Events::ERR));
    net.faults.lost = 100;
    net.pass(Duration::from_secs(8000));
    assert_eq!(receive(&*socket), Err(Errno::ETIMEDOUT));
}

/// SO_KEEPALIVE with probes after 10 s, each 5 s, of which 3 may be lost.
fn keep_alive(socket: &TcpSocket) {
    for (option, value) in [(raw::TCP_KEEPIDLE, 10i32), (raw::TCP_KEEPINTVL, 5), (raw::TCP_KEEPCNT, 3)] {
        socket.set_tcp_option(option, &value.to_ne_bytes()).unwrap();
    }
    socket.common().switch(Switches::KEEPALIVE, true);
    socket.keep_alive_changed();
}

#[test]
fn only_who_does_not_answer_probes_is_given_up() {
    let mut net = Net::new(49, Faults::default());
    let (socket, _) = connect(&mut net);
    // Silent for longer than all probes would take.
    net.pass(Duration::from_secs(60));
    net.kept = Some(vec![]);
    keep_alive(&socket);
    net.pass(Duration::from_secs(105));
    assert!(!ready(&*socket).contains(Events::ERR));
    // At once, and after each silence.
    let probes = |net: &mut Net| {
        let sent = net.kept.take().unwrap();
        sent.iter().filter(|frame| frame[12..14] == [8, 0] && frame[23] == 6).count()
    };
    assert_eq!(probes(&mut net), 11);
    // The machine has been stopped for a while.
    net.now = net.now.saturating_add(Duration::from_secs(1000));
    net.pass(Duration::from_secs(9));
    assert!(!ready(&*socket).contains(Events::ERR));
    net.kept = Some(vec![]);
    net.faults.lost = 100;
    net.pass(Duration::from_secs(14));
    assert!(!ready(&*socket).contains(Events::ERR));
    net.pass(Duration::from_secs(3));
    assert_eq!(receive(&*socket), Err(Errno::ETIMEDOUT));
    // With the reset at the end.
    assert_eq!(probes(&mut net), 4);
    // Who has not answered at all is waited for as long as others are.
    net.faults = Faults { silent: true, ..Faults::default() };
    let begins = TcpSocket::new(AF_INET);
    keep_alive(&begins);
    begins.begin_as(0, net.own, net.at(80)).unwrap();
    net.pass(Duration::from_secs(100));
    assert!(begins.is_connecting());
}

#[test]
fn connections_that_are_over_do_not_keep_new_ones_out() {
    let mut net = Net::new(45, Faults::default());
    for _ in 0..300 {
        let (socket, there) = connect(&mut net);
        socket.released();
        net.until("it ends", |net| net.tcp(there).state() == tcp::State::CloseWait);
        net.tcp(there).close();
        net.until("it is over", |net| net.tcp(there).state() == tcp::State::Closed);
        net.sockets.remove(there);
        assert!(net.engine.connections().counts().0 <= 257);
    }
    net.pass(Duration::from_secs(30));
    assert_eq!(net.engine.connections().counts().0, 0);
}

#[test]
fn who_sends_more_than_a_turn_allows_lets_others_run_and_waits_for_the_card() {
    let mut net = Net::new(46, Faults::default());
    net.set_room(1000);
    let socket = UdpSocket::new(AF_INET);
    let send = |net: &Net, count| {
        for _ in 0..count {
            let mut message = Outgoing { target: Target::Inet(net.at(53)), ..Outgoing::plain() };
            let _ = socket.try_send(&mut IoBuf::kernel(b"x"), &mut message);
        }
    };
    send(&net, 1);
    net.pass(Duration::from_secs(2));
    send(&net, 100);
    let next = net.engine.turn(net.now);
    assert!(next.more);
    net.set_room(0);
    let next = net.engine.turn(net.now);
    assert!(!next.more && next.at.is_none_or(|at| at > net.now), "it would spin");
    net.set_room(1000);
    net.until("nothing is on its way", |_| socket.on_its_way() == 0);
    // As much as Linux keeps for a card, and no more.
    net.set_room(0);
    socket.common().send_buffer.store(u32::MAX, Ordering::Relaxed);
    send(&net, 5000);
    net.engine.turn(net.now);
    send(&net, 5000);
    net.engine.turn(net.now);
    assert!(socket.on_its_way() <= 2100 * 800, "{}", socket.on_its_way());
    net.set_room(1000);
    net.until("nothing is on its way", |_| socket.on_its_way() == 0);
}

#[test]
fn who_calls_for_machines_that_are_not_there_keeps_nobody_from_the_gateway() {
    let mut net = Net::with(47, Faults::default(), |own| {
        let gateway = Some(own.network_of(2));
        Method::Static(Settings { addresses: vec![own.cidr()], gateway, ..Settings::default() })
    });
    let far = Ipv4Addr::new(8, 8, 4, 4);
    net.there.update_ip_addrs(|all| all.push(IpCidr::new(IpAddress::from(IpAddr::V4(far)), 32)).unwrap());
    let there = net.add_tcp();
    net.tcp(there).listen(80).unwrap();
    let socket = TcpSocket::new(AF_INET);
    socket.begin_as(0, net.own, Endpoint { ip: far.into(), port: 80 }).unwrap();
    net.until("it is connected", |_| !socket.is_connecting());
    let noise = UdpSocket::new(AF_INET);
    let mut longest = Duration::ZERO;
    let end = net.now.saturating_add(Duration::from_secs(200));
    while net.now < end {
        for last in 100..120 {
            let to = Endpoint { ip: net.machine(last).into(), port: 9 };
            let mut message = Outgoing { target: Target::Inet(to), ..Outgoing::plain() };
            let _ = noise.try_send(&mut IoBuf::kernel(b"x"), &mut message);
        }
        let begun = net.now;
        assert_eq!(send(&*socket, b"ping"), 4);
        net.until("it comes back", |net| {
            net.echo(there);
            receive(&*socket).unwrap().is_some()
        });
        longest = longest.max(net.now.saturating_since(begun));
        net.pass(Duration::from_millis(300));
    }
    assert!(longest < Duration::from_millis(1500), "{longest:?}");
}

#[test]
fn a_socket_that_is_used_again_hears_nothing_of_its_last_connection() {
    let mut net = Net::new(48, Faults { lost: 100, ..Faults::default() });
    let socket = TcpSocket::new(AF_INET);
    let first =
        TcpSocket::stand_in(net.at(80), Endpoint { ip: net.own, port: 9 }, Some(alloc::sync::Arc::downgrade(&socket)));
    socket.begin_as(0, net.own, net.at(80)).unwrap();
    first.fail_peer(Errno::ETIMEDOUT);
    assert!(!first.join_peer());
    assert!(socket.is_connecting() && error(&*socket).is_none());
    net.step();
}

#[test]
fn what_is_for_another_machine_reaches_nobody_here_when_the_way_there_is_gone() {
    // Cards of other tests lead to all of IPv4.
    let ip = |last| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 51, 0, 0, 0, 0, last));
    let mut net = Net::with(51, Faults::default(), |own| {
        Method::Static(Settings { addresses: vec![own.cidr(), Cidr { ip: ip(1), prefix: 64 }], ..Settings::default() })
    });
    let server = UdpSocket::new(AF_INET6);
    server.bind_as(0, Endpoint::any(AF_INET6)).unwrap();
    let address = server.local_address();
    let there = Endpoint { ip: ip(2), port: u16::from_be_bytes([address[2], address[3]]) };
    let socket = UdpSocket::new(AF_INET6);
    let send = |more| {
        let mut message = Outgoing { target: Target::Inet(there), more, ..Outgoing::plain() };
        socket.try_send(&mut IoBuf::kernel(b"x"), &mut message)
    };
    assert!(matches!(send(true), Ok(1)));
    let port = interface::cards().into_iter().find(|port| port.with_settings(|own| own.is_own(net.own))).unwrap();
    port.set_up(false);
    net.step();
    assert!(matches!(send(false), Err(TryError::Failed(Errno::ENETUNREACH))));
    assert_eq!(receive(&*server), Ok(None));
    assert_eq!(error(&*socket), None);
    let listener = TcpSocket::new(AF_INET6);
    listener.bind_as(0, Endpoint::any(AF_INET6)).unwrap();
    listener.start_listening(0, 5).unwrap();
    let address = listener.local_address();
    let there = Endpoint { ip: ip(2), port: u16::from_be_bytes([address[2], address[3]]) };
    assert_eq!(TcpSocket::new(AF_INET6).begin_as(0, ip(1), there), Err(Errno::ENETUNREACH));
    assert!(ready(&*listener).is_empty());
}

#[test]
fn a_card_that_was_down_begins_anew_however_soon_it_is_up_again() {
    let mut net = Net::new(59, Faults::default());
    net.step();
    let port = interface::cards().into_iter().find(|port| port.with_settings(|own| own.is_own(net.own))).unwrap();
    let added = Cidr { ip: IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 59, 0, 0, 0, 0, 1)), prefix: 64 };
    let add = |settings: &mut Settings| {
        settings.addresses.push(added);
        Ok(())
    };
    port.change_from_outside(&mut |settings| add(settings)).unwrap();
    port.set_up(false);
    assert!(!port.is_up() && port.settings() == Settings::default());
    port.set_up(true);
    net.step();
    assert!(port.with_settings(|settings| settings.is_own(net.own) && !settings.is_own(added.ip)));
    // The last word counts; what is set after it stays.
    port.set_up(true);
    port.set_up(false);
    port.change_from_outside(&mut |settings| add(settings)).unwrap();
    net.step();
    assert!(!port.is_up());
    assert_eq!(port.settings().addresses, [added]);
    port.set_up(true);
    net.step();
    assert!(port.with_settings(|settings| settings.is_own(net.own) && settings.is_own(added.ip)));
}

#[test]
fn what_a_program_sets_holds_at_once_and_stays_beside_what_others_say() {
    // Cards of other tests lead to all of IPv4.
    let ip = |net, last| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 58, net, 0, 0, 0, last));
    let own = Cidr { ip: ip(1, 1), prefix: 64 };
    let mut net = Net::new(58, Faults::default());
    let port = interface::cards().into_iter().find(|port| port.with_settings(|own| own.is_own(net.own))).unwrap();
    let via = Via { to: Cidr { ip: ip(2, 0), prefix: 64 }, gateway: ip(1, 9), protocol: 4, metric: 0 };
    let set = port.change_from_outside(&mut |settings| {
        settings.addresses.push(own);
        settings.routes.push(via);
        Ok(())
    });
    set.unwrap();
    let source = |to| interface::source_for(to);
    assert_eq!((source(ip(1, 2)), source(ip(2, 2))), (Ok(own.ip), Ok(own.ip)));
    assert_eq!(port.with_settings(|settings| settings.next_hop(ip(2, 2))), Some(via.gateway));
    net.step();
    assert!(port.settings().addresses.contains(&own) && port.settings().routes == [via]);
    // The route goes with the address through which its gateway was reached.
    let gone = port.change_from_outside(&mut |settings| {
        settings.addresses.retain(|there| *there != own);
        settings.forget_lost();
        Ok(())
    });
    gone.unwrap();
    net.step();
    assert!(port.settings().routes.is_empty() && port.with_settings(|settings| settings.is_own(net.own)));
    assert_eq!(source(ip(2, 2)), Err(Errno::ENETUNREACH));
}

#[test]
fn a_connection_that_a_program_has_reset_makes_way_for_the_next_one() {
    let mut net = Net::new(52, Faults::default());
    let (first, second) = (net.add_tcp(), net.add_tcp());
    net.tcp(first).listen(80).unwrap();
    let own = Endpoint { ip: net.own, port: 34_567 };
    let begin = |net: &Net| {
        let socket = TcpSocket::new(AF_INET);
        socket.bind_as(0, own).unwrap();
        socket.begin_as(0, net.own, net.at(80)).unwrap();
        socket
    };
    let old = begin(&net);
    net.until("it is connected", |net| !old.is_connecting() && net.tcp(first).state() == tcp::State::Established);
    net.tcp(second).listen(80).unwrap();
    *old.common().linger.lock() = (true, 0);
    old.released();
    drop(old);
    let new = begin(&net);
    net.until("it is connected", |_| !new.is_connecting());
    assert_eq!(error(&*new), None);
    assert_eq!(net.tcp(first).state(), tcp::State::Closed);
    exchange(&mut net, &*new, second, &pattern(1000));
}

#[test]
fn a_connection_is_accepted_though_bytes_and_a_reset_come_in_the_same_turn() {
    let mut net = Net::new(53, Faults::default());
    let listener = TcpSocket::new(AF_INET);
    listener.bind_as(0, Endpoint::any(AF_INET)).unwrap();
    listener.start_listening(0, 5).unwrap();
    let address = listener.local_address();
    let to = IpEndpoint::new(net.own.into(), u16::from_be_bytes([address[2], address[3]]));
    let there = net.add_tcp();
    net.sockets.get_mut::<tcp::Socket>(there).connect(net.there.context(), to, 999).unwrap();
    net.until("it begins", |net| net.tcp(there).state() == tcp::State::Established);
    assert!(ready(&*listener).is_empty());
    net.tcp(there).send_slice(b"bye").unwrap();
    assert!(net.step_there());
    net.tcp(there).abort();
    assert!(net.step_there());
    net.step();
    let (accepted, _) = listener.take_connection().map_err(|_| ()).unwrap();
    let socket = accepted.as_socket().unwrap();
    assert_eq!(receive(socket), Ok(Some(b"bye".to_vec())));
    assert_eq!(receive(socket), Err(Errno::ECONNRESET));
    assert_eq!(net.engine.connections().counts().0, 0);
}
