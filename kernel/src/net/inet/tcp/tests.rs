use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;

use super::*;
use crate::errno::Errno;
use crate::exec::test_util::{advance, run_until_idle};
use crate::fs::{FileOps, TryError};
use crate::mm::IoBuf;
use crate::net::socket::Receive;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A connection, who has begun it first.
fn pair() -> (Arc<TcpSocket>, Arc<dyn FileOps>) {
    let listener = TcpSocket::new(AF_INET);
    listener.bind_as(0, Endpoint { ip: HERE, port: 0 }).unwrap();
    listener.start_listening(0, 1).unwrap();
    let local = listener.state.lock().local;
    let socket = TcpSocket::new(AF_INET);
    socket.begin_as(0, HERE, local).unwrap();
    (socket, listener.take_connection().unwrap().0)
}

fn tcp(ops: &Arc<dyn FileOps>) -> &TcpSocket {
    ops.as_any().downcast_ref().unwrap()
}

fn set(socket: &TcpSocket, option: u32, value: i32) {
    socket.set_tcp_option(option, &value.to_ne_bytes()).unwrap();
}

fn send(socket: &TcpSocket, bytes: &[u8], more: bool, urgent: bool) -> Result<usize, TryError> {
    socket.send_bytes(&mut IoBuf::kernel(bytes), more, urgent)
}

fn receive(socket: &TcpSocket, len: usize, how: Receive) -> Result<Vec<u8>, TryError> {
    let mut bytes = vec![0; len];
    let len = socket.receive_bytes(&mut IoBuf::kernel_mut(&mut bytes), how)?;
    bytes.truncate(len);
    Ok(bytes)
}

fn now(socket: &TcpSocket) -> Result<Vec<u8>, TryError> {
    receive(socket, 100, Receive::default())
}

/// How much can be sent to somebody who does not read.
fn room(socket: &TcpSocket) -> usize {
    let mut sum = 0;
    while let Ok(len) = send(socket, &[7; 2048], false, false) {
        sum += len;
    }
    sum
}

#[test]
fn what_is_held_back_comes_when_the_time_is_over() {
    let (here, there) = pair();
    let there = tcp(&there);
    send(&here, b"text", true, false).unwrap();
    assert_eq!(now(there), Err(TryError::WouldBlock));
    assert!(!there.ready().contains(Events::IN));
    advance(Duration::from_millis(300));
    assert_eq!(now(there).unwrap(), b"text");
    // The task for it is gone; another one comes.
    send(&here, b"more", true, false).unwrap();
    advance(Duration::from_millis(300));
    assert_eq!(now(there).unwrap(), b"more");
}

#[test]
fn a_reader_that_goes_leaves_nobody_who_waits_for_what_is_held_back() {
    let (here, there) = pair();
    send(&here, b"text", true, false).unwrap();
    there.released();
    let weak = Arc::downgrade(&there);
    drop(there);
    assert_eq!(weak.strong_count(), 0);
    run_until_idle();
    assert_eq!(send(&here, b"x", false, false), Err(Errno::ECONNRESET.into()));
}

#[test]
fn a_full_connection_holds_nothing_back() {
    let (here, there) = pair();
    set(&here, raw::TCP_CORK, 1);
    let sent = room(&here);
    let mut sum = 0;
    while let Ok(bytes) = receive(tcp(&there), 4096, Receive::default()) {
        sum += bytes.len();
    }
    assert_eq!(sum, sent);
}

#[test]
fn bounds_of_either_side_make_for_less_on_its_way_and_a_writer_is_told_of_room() {
    let (here, _there) = pair();
    here.common.send_buffer.store(40_000, Ordering::Relaxed);
    let free = room(&here);
    let (here, _there) = pair();
    here.common.send_buffer.store(40_000, Ordering::Relaxed);
    set(tcp(&_there), raw::TCP_WINDOW_CLAMP, 4000);
    assert!(room(&here) * 2 < free);
    let (here, _there) = pair();
    set(tcp(&_there), raw::TCP_WINDOW_CLAMP, 40_000);
    set(&here, raw::TCP_NOTSENT_LOWAT, 1);
    assert!(room(&here) * 2 < free && !here.ready().contains(Events::OUT));
    // As many as fit into the window have been sent.
    while tcp(&_there).state.lock().inbox.len() > 40_000 {
        receive(tcp(&_there), 1000, Receive::default()).unwrap();
    }
    assert!(here.ready().contains(Events::OUT));
}

#[test]
fn a_waiting_writer_is_woken_when_a_bound_lets_it() {
    use core::sync::atomic::AtomicBool;
    let (here, there) = pair();
    set(tcp(&there), raw::TCP_WINDOW_CLAMP, 2000);
    set(&here, raw::TCP_NOTSENT_LOWAT, 1);
    room(&here);
    let done = Arc::new(AtomicBool::new(false));
    let (writer, noted) = (here.clone(), done.clone());
    crate::exec::spawn("test", async move {
        let attempt = || match send(&writer, &[1; 4096], false, false) {
            Err(TryError::WouldBlock) => None,
            other => Some(other),
        };
        writer.queue.wait_for_mask(WRITABLE.bits(), attempt).await.unwrap();
        noted.store(true, Ordering::Relaxed);
    });
    run_until_idle();
    assert!(!done.load(Ordering::Relaxed));
    while receive(tcp(&there), 1000, Receive::default()).is_ok() {}
    run_until_idle();
    assert!(done.load(Ordering::Relaxed));
}

#[test]
fn a_read_that_goes_on_stops_at_the_mark() {
    let (here, there) = pair();
    let there = tcp(&there);
    send(&here, b"ab", false, false).unwrap();
    send(&here, b"!", false, true).unwrap();
    send(&here, b"cd", false, false).unwrap();
    assert_eq!(there.state.lock().readable(false), 2);
    assert_eq!(now(there).unwrap(), b"ab");
    let goes_on = Receive { goes_on: true, ..Receive::default() };
    assert_eq!(receive(there, 10, goes_on).unwrap(), b"");
    assert!(there.state.lock().is_at_mark());
    assert_eq!(receive(there, 10, Receive { peek: true, nonblock: true, ..Receive::default() }).unwrap(), b"cd");
    assert_eq!(there.receive_urgent(true).unwrap(), b'!');
    assert_eq!(now(there).unwrap(), b"cd");
    assert_eq!(there.receive_urgent(false), Err(Errno::EINVAL));
}

/// A sender looks up its peer before it locks it; connect(2) of another thread may come in between.
#[test]
fn what_was_sent_to_the_connection_before_does_not_reach_the_next_one() {
    let (before, before_there) = pair();
    let (other, other_there) = pair();
    assert_eq!(before.put_rest(&other, &mut IoBuf::kernel(b"lost")), Ok(4));
    other.receive_end(&before);
    other.reset_from(&before);
    assert_eq!(now(&other), Err(TryError::WouldBlock));
    send(tcp(&other_there), b"own", false, false).unwrap();
    assert_eq!(now(&other).unwrap(), b"own");
    // The sender has another connection, too.
    send(&before, b"whole", false, false).unwrap();
    assert_eq!(now(tcp(&before_there)).unwrap(), b"whole");
}

#[test]
fn a_listener_that_takes_up_an_attempt_given_up_does_not_meet_the_next_one() {
    use super::connect::Attempt;
    let listener = || {
        let listener = TcpSocket::new(AF_INET);
        listener.bind_as(0, Endpoint { ip: HERE, port: 0 }).unwrap();
        listener.start_listening(0, 0).unwrap();
        let local = listener.state.lock().local;
        let first = TcpSocket::new(AF_INET);
        first.begin_as(0, HERE, local).unwrap();
        (listener, local, first)
    };
    let ((one, to_one, _first), (two, to_two, _second)) = (listener(), listener());
    let socket = TcpSocket::new(AF_INET);
    socket.begin_as(0, HERE, to_one).unwrap();
    let (_, place) = socket.state.lock().listener.clone().unwrap();
    assert!(socket.give_up_connecting(None));
    socket.begin_as(0, HERE, to_two).unwrap();
    one.state.lock().waiting.clear();
    let attempt = Attempt::At(Arc::downgrade(&one), place);
    socket.meet(&one, &attempt);
    assert!(socket.is_connecting() && one.state.lock().waiting.is_empty());
    // Nor is it refused when that listener ends.
    one.stop_listening();
    socket.meet(&one, &attempt);
    assert!(socket.is_connecting() && !socket.common.has_error());
    two.take_connection().unwrap();
    assert!(!socket.is_connecting());
    two.take_connection().unwrap();
}

#[test]
fn nothing_is_held_back_in_what_has_been_closed() {
    let (here, there) = pair();
    send(&here, b"text", true, false).unwrap();
    let there = tcp(&there);
    assert_eq!(there.state.lock().come(), 0);
    there.close();
    let state = there.state.lock();
    assert_eq!((state.held.bytes, state.come()), (0, 0));
}
