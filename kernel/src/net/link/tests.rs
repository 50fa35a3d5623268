use alloc::vec;
use alloc::vec::Vec;

use super::frame::{self, Seen};
use super::*;
use crate::fs::TryError;
use crate::mm::IoBuf;
use crate::net::socket::{Outgoing, Receive, Socket, Target};

/// What nobody else in these tests sends (local experiments, IEEE 802).
const LOCAL: u16 = 0x88b5;

fn socket(kind: Type, protocol: u16) -> Arc<LinkSocket> {
    interface::set_loopback(true);
    LinkSocket::new(kind, protocol)
}

fn send(socket: &LinkSocket, bytes: &[u8], name: Name) -> Result<usize, TryError> {
    let mut message = Outgoing { target: Target::Link(name), ..Outgoing::plain() };
    socket.try_send(&mut IoBuf::kernel(bytes), &mut message)
}

fn receive(socket: &LinkSocket) -> Option<(Vec<u8>, Name)> {
    let mut bytes = vec![0; 2000];
    let how = Receive { nonblock: true, ..Receive::default() };
    let received = socket.try_receive(&mut IoBuf::kernel_mut(&mut bytes), how).ok()?;
    bytes.truncate(received.len);
    Some((bytes, Name::parse_target(&received.from?).unwrap()))
}

#[test]
fn a_frame_on_the_loopback_comes_back_to_who_sent_it() {
    let (raw, cooked) = (socket(Type::Raw, LOCAL), socket(Type::Datagram, LOCAL));
    let name = Name::new(LOCAL, 1);
    assert_eq!(send(&cooked, b"hello", name), Ok(5));
    let (bytes, from) = receive(&cooked).unwrap();
    assert_eq!((&bytes[..], from.kind, from.protocol(), from.index), (&b"hello"[..], Kind::Host as u8, LOCAL, 1));
    let (bytes, _) = receive(&raw).unwrap();
    assert_eq!(bytes, [&frame::header([0; 6], [0; 6], LOCAL)[..], b"hello"].concat());
    assert!(receive(&raw).is_none() && receive(&cooked).is_none());
    assert_eq!(send(&raw, &bytes[..13], name), Err(Errno::EINVAL.into()));
    raw.released();
    assert_eq!(send(&cooked, b"", name), Ok(0));
    assert!(receive(&raw).is_none());
}

#[test]
fn what_finds_no_room_is_counted() {
    let own = LOCAL + 1;
    let socket = socket(Type::Datagram, own);
    socket.common().receive_buffer.store(2000, Ordering::Relaxed);
    for _ in 0..5 {
        assert_eq!(send(&socket, b"hello", Name::new(own, 1)), Ok(5));
    }
    let counts = socket.get_option(options::SOL_PACKET, 6).unwrap();
    assert_eq!(counts, [5u32, 2].map(u32::to_ne_bytes).concat());
    assert_eq!(socket.get_option(options::SOL_PACKET, 6).unwrap(), [0; 8]);
    assert_eq!((0..4).filter(|_| receive(&socket).is_some()).count(), 3);
}

#[test]
fn frames_that_are_cut_short_are_no_danger() {
    let _watcher = socket(Type::Datagram, 3);
    for len in 0..40 {
        let _ = watch::through_loopback(&vec![0xff; len], LOCAL, None);
        watch::passes_loopback(&vec![0x45; len]);
    }
    assert_eq!(frame::protocol(&[0; 13]), None);
    assert_eq!(frame::protocol(&[0; 14]), Some(4));
    let seen = Seen { bytes: &[0; 5], index: 1, hardware: 772, kind: Kind::Host, protocol: 3, sender: None };
    assert_eq!(frame::target(seen.bytes), None);
}
