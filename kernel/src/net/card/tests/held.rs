//! What is held back, what is waited for, and for how long, of connections with another machine.

use linux_raw_sys::net as raw;

use super::lasting::{assert_ends, connect};
use super::*;
use core::time::Duration;

fn set(socket: &TcpSocket, option: u32, value: i32) {
    socket.set_tcp_option(option, &value.to_ne_bytes()).unwrap();
}

#[test]
fn what_is_held_back_does_not_go_to_the_other_machine() {
    let mut net = Net::new(60, Faults::default());
    let (socket, there) = connect(&mut net);
    set(&socket, raw::TCP_CORK, 1);
    assert_eq!(send(&*socket, &pattern(100)), 100);
    net.pass(Duration::from_secs(1));
    assert_eq!(net.tcp(there).recv_queue(), 0);
    // More than a segment: what fills one goes.
    assert_eq!(send(&*socket, &pattern(1500)), 1500);
    net.until("a segment is there", |net| net.tcp(there).recv_queue() > 1000);
    net.pass(Duration::from_secs(1));
    assert!(net.tcp(there).recv_queue() < 1600);
    set(&socket, raw::TCP_CORK, 0);
    net.until("all is there", |net| net.tcp(there).recv_queue() == 1600);
}

#[test]
fn the_other_end_is_waited_for_as_long_as_the_program_has_said() {
    let mut net = Net::new(61, Faults::default());
    let (socket, there) = connect(&mut net);
    set(&socket, raw::TCP_LINGER2, 20);
    socket.released();
    drop(socket);
    net.until("it has come", |net| net.tcp(there).state() == tcp::State::CloseWait);
    assert_ends(&mut net, Duration::from_secs(20));
}

#[test]
fn a_closed_window_is_waited_for_as_long_as_the_program_has_said() {
    let mut net = Net::new(63, Faults::default());
    let (socket, there) = connect(&mut net);
    set(&socket, raw::TCP_USER_TIMEOUT, 20_000);
    // The other one has room for 20,000.
    assert_eq!(send(&*socket, &pattern(100_000)), 100_000);
    let mut bytes = [0; 5000];
    for _ in 0..10 {
        net.pass(Duration::from_secs(15));
        assert!(!ready(&*socket).contains(Events::ERR));
        net.tcp(there).recv_slice(&mut bytes).unwrap();
    }
    net.pass(Duration::from_secs(15));
    assert!(!ready(&*socket).contains(Events::ERR));
    net.pass(Duration::from_secs(10));
    assert_eq!(receive(&*socket), Err(Errno::ETIMEDOUT));
    // With nothing on its way there is nothing to wait for.
    let (socket, there) = connect(&mut net);
    set(&socket, raw::TCP_USER_TIMEOUT, 20_000);
    assert_eq!(send(&*socket, &pattern(10_000)), 10_000);
    net.pass(Duration::from_secs(100));
    assert!(net.tcp(there).recv_queue() == 10_000 && !ready(&*socket).contains(Events::ERR));
}

#[test]
fn a_closed_socket_knows_when_everything_is_acknowledged() {
    let mut net = Net::new(62, Faults::default());
    let (socket, there) = connect(&mut net);
    // The other one has room for 20,000, and reads nothing.
    assert_eq!(send(&*socket, &pattern(100_000)), 100_000);
    socket.released();
    net.pass(Duration::from_secs(5));
    assert!(socket.is_unfinished());
    let mut bytes = [0; 5000];
    net.until("the end is acknowledged", |net| {
        let _ = net.tcp(there).recv_slice(&mut bytes);
        !socket.is_unfinished()
    });
    // So it is when nothing ever comes back.
    let (socket, _) = connect(&mut net);
    net.faults.lost = 100;
    send(&*socket, b"lost");
    socket.released();
    net.pass(Duration::from_secs(50));
    assert!(socket.is_unfinished());
    net.pass(Duration::from_secs(100));
    assert!(!socket.is_unfinished());
}
