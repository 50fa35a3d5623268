use alloc::sync::Arc;
use alloc::vec::Vec;

use super::*;
use crate::exec::spawn;
use crate::exec::test_util::run_until_idle;
use crate::fs::open_file::{READ_EVENTS, WRITE_EVENTS, settled};
use crate::net::rights::Rights;

fn pair(kind: Type) -> (Arc<UnixSocket>, Arc<UnixSocket>) {
    let (a, b) = (UnixSocket::new(kind), UnixSocket::new(kind));
    for (socket, peer) in [(&a, &b), (&b, &a)] {
        let mut state = socket.state.lock();
        state.phase = Phase::Connected;
        state.peer = Some(Arc::downgrade(peer));
    }
    (a, b)
}

fn file(socket: Arc<UnixSocket>) -> Arc<OpenFile> {
    OpenFile::new_socket(socket, 2)
}

fn send(socket: &UnixSocket, bytes: &[u8], files: &[&Arc<OpenFile>]) -> Result<usize, TryError> {
    send_as(0, socket, bytes, files)
}

fn send_as(uid: u32, socket: &UnixSocket, bytes: &[u8], files: &[&Arc<OpenFile>]) -> Result<usize, TryError> {
    let mut message = Outgoing::plain();
    if !files.is_empty() {
        message.rights = Some(Rights::for_test(files.iter().map(|file| (*file).clone()).collect(), uid));
    }
    socket.try_send(&mut IoBuf::kernel(bytes), &mut message)
}

fn receive(socket: &UnixSocket, len: usize, peek: bool) -> Result<(Vec<u8>, Received), TryError> {
    let mut bytes = vec![0; len];
    let received = socket
        .try_receive(&mut IoBuf::kernel_mut(&mut bytes), Receive { peek, nonblock: true, ..Receive::default() })?;
    bytes.truncate(received.len);
    Ok((bytes, received))
}

#[test]
fn a_stream_is_read_up_to_the_end_of_a_message_with_descriptors() {
    let (a, b) = pair(Type::Stream);
    let passed = crate::fs::anon::test_file();
    send(&a, b"one.", &[]).unwrap();
    send(&a, b"2", &[&passed]).unwrap();
    send(&a, b"three", &[]).unwrap();
    let (bytes, received) = receive(&b, 20, true).unwrap();
    assert_eq!((&bytes[..], received.rights.map(|files| files.len())), (&b"one.2"[..], Some(1)));
    let (bytes, received) = receive(&b, 20, false).unwrap();
    assert_eq!(&bytes, b"one.2");
    assert!(received.barrier && Arc::ptr_eq(&received.rights.unwrap()[0], &passed));
    assert_eq!(receive(&b, 20, false).unwrap().0, b"three");
    assert_eq!(receive(&b, 20, false).err(), Some(TryError::WouldBlock));
    assert_eq!(Arc::strong_count(&passed), 1);
}

#[test]
fn descriptors_come_with_the_first_byte_of_their_message() {
    let (a, b) = pair(Type::Stream);
    let passed = crate::fs::anon::test_file();
    send(&a, b"hello", &[&passed]).unwrap();
    assert!(receive(&b, 2, false).unwrap().1.rights.is_some());
    let (bytes, received) = receive(&b, 9, false).unwrap();
    assert_eq!((&bytes[..], received.rights.is_none()), (&b"llo"[..], true));
}

#[test]
fn packets_keep_their_boundaries() {
    let (a, b) = pair(Type::SeqPacket);
    send(&a, b"first", &[]).unwrap();
    send(&a, b"", &[]).unwrap();
    send(&a, b"third", &[]).unwrap();
    let (bytes, received) = receive(&b, 3, false).unwrap();
    assert_eq!((&bytes[..], received.full), (&b"fir"[..], 5));
    assert_eq!(receive(&b, 9, false).unwrap().0, b"");
    assert_eq!(receive(&b, 9, false).unwrap().0, b"third");
}

#[test]
fn the_end_is_seen_after_what_was_sent_before() {
    for kind in [Type::Stream, Type::SeqPacket] {
        let (a, b) = pair(kind);
        send(&a, b"last", &[]).unwrap();
        drop(a);
        assert!(b.ready().contains(Events::HUP | Events::RDHUP | Events::IN));
        assert_eq!(receive(&b, 9, false).unwrap().0, b"last");
        assert_eq!(receive(&b, 9, false).unwrap().0, b"");
        assert_eq!(send(&b, b"x", &[]), Err(TryError::Failed(Errno::EPIPE)));
    }
}

#[test]
fn unread_bytes_reset_the_peer() {
    let (a, b) = pair(Type::Stream);
    send(&a, b"unread", &[]).unwrap();
    drop(b);
    assert_eq!(receive(&a, 9, false).err(), Some(TryError::Failed(Errno::ECONNRESET)));
    assert_eq!(receive(&a, 9, false).unwrap().0, b"");
}

#[test]
fn a_datagram_queue_is_bounded_and_its_sender_woken() {
    let (a, b) = (UnixSocket::new(Type::Datagram), UnixSocket::new(Type::Datagram));
    a.state.lock().peer = Some(Arc::downgrade(&b));
    for _ in 0..=MAX_DATAGRAMS {
        send(&a, b"x", &[]).unwrap();
    }
    assert_eq!(send(&a, b"x", &[]), Err(TryError::WouldBlock));
    assert!(!a.ready().contains(Events::OUT));
    let sender = a.clone();
    spawn("sender", async move {
        let attempt = || settled(send(&sender, b"more", &[]));
        sender.queue.wait_for_mask(WRITE_EVENTS.bits(), attempt).await.unwrap();
    });
    run_until_idle();
    receive(&b, 1, false).unwrap();
    run_until_idle();
    for _ in 0..MAX_DATAGRAMS {
        assert_eq!(receive(&b, 9, false).unwrap().0, b"x");
    }
    assert_eq!(receive(&b, 9, false).unwrap().0, b"more");
    assert_eq!(a.outstanding.load(Ordering::Relaxed), 0);
}

/// The call holds the receiver, whose end must be seen all the same.
#[test]
fn a_sender_that_waits_is_told_that_the_receiver_is_closed() {
    let (a, b) = (UnixSocket::new(Type::Datagram), UnixSocket::new(Type::Datagram));
    let b_file = file(b.clone());
    a.state.lock().peer = Some(Arc::downgrade(&b));
    while send(&a, b"x", &[]).is_ok() {}
    let result = Arc::new(SpinLock::new(None));
    let (sender, told) = (a.clone(), result.clone());
    spawn("sender", async move {
        let mut message = Outgoing { target: Target::Unix(b), ..Outgoing::plain() };
        let attempt = || settled(sender.try_send(&mut IoBuf::kernel(b"more"), &mut message));
        let end = sender.queue.wait_for_mask(WRITE_EVENTS.bits(), attempt).await;
        *told.lock() = Some(end);
    });
    run_until_idle();
    assert!(result.lock().is_none());
    drop(b_file);
    run_until_idle();
    assert_eq!(*result.lock(), Some(Err(TryError::Failed(Errno::ECONNREFUSED))));
    assert_eq!(send(&a, b"x", &[]), Err(TryError::Failed(Errno::ECONNREFUSED)));
    assert_eq!(a.outstanding.load(Ordering::Relaxed), 0);
}

/// connect(2) to another throws away what waited.
#[test]
fn a_sender_that_waits_is_told_that_the_queue_is_emptied() {
    let (a, b) = (UnixSocket::new(Type::Datagram), UnixSocket::new(Type::Datagram));
    a.state.lock().peer = Some(Arc::downgrade(&b));
    while send(&a, b"x", &[]).is_ok() {}
    let done = Arc::new(SpinLock::new(false));
    let (sender, flag) = (a.clone(), done.clone());
    spawn("sender", async move {
        let attempt = || settled(send(&sender, b"more", &[]));
        sender.queue.wait_for_mask(WRITE_EVENTS.bits(), attempt).await.unwrap();
        *flag.lock() = true;
    });
    run_until_idle();
    assert!(!*done.lock());
    // Nothing of it is charged to the sender, who would be told on that account.
    a.outstanding.store(100_000, Ordering::Relaxed);
    b.empty();
    run_until_idle();
    assert!(*done.lock());
}

#[test]
fn a_message_that_is_longer_than_the_room_left_is_sent_at_last() {
    let (a, b) = pair(Type::Datagram);
    let long = vec![7; 200_000];
    send(&a, &long[..40_000], &[]).unwrap();
    send(&a, &long, &[]).unwrap();
    let sender = a.clone();
    spawn("sender", async move {
        let attempt = || settled(send(&sender, &long, &[]));
        sender.queue.wait_for_mask(WRITE_EVENTS.bits(), attempt).await.unwrap();
    });
    run_until_idle();
    for len in [40_000, 200_000, 200_000] {
        assert_eq!(receive(&b, 300_000, false).unwrap().0.len(), len);
        run_until_idle();
    }
}

#[test]
fn every_byte_comes_through_in_order() {
    let (a, b) = pair(Type::Stream);
    let total = 2_000_000usize;
    spawn("writer", async move {
        let mut sent = 0;
        while sent < total {
            let len = (1 + sent * 7919 % 60_000).min(total - sent);
            let data: Vec<u8> = (sent..sent + len).map(|i| (i % 253) as u8).collect();
            let mut buf = IoBuf::kernel(&data);
            while !buf.is_empty() {
                let attempt = || settled(a.try_send(&mut buf, &mut Outgoing::plain()));
                a.queue.wait_for_mask(WRITE_EVENTS.bits(), attempt).await.unwrap();
            }
            sent += len;
        }
    });
    let got = Arc::new(SpinLock::new(Vec::new()));
    let sink = got.clone();
    spawn("reader", async move {
        loop {
            let len = 1 + sink.lock().len() * 104_729 % 50_000;
            let attempt = || settled(receive(&b, len, false));
            let (bytes, _) = b.queue.wait_for_mask(READ_EVENTS.bits(), attempt).await.unwrap();
            if bytes.is_empty() {
                break;
            }
            sink.lock().extend_from_slice(&bytes);
        }
    });
    run_until_idle();
    let got = got.lock();
    assert_eq!(got.len(), total);
    assert!(got.iter().enumerate().all(|(i, byte)| *byte == (i % 253) as u8));
}

/// Cycles of sockets in messages are freed, and what can still be received is not.
#[test]
fn sockets_that_only_lead_to_each_other_are_collected() {
    let witness = crate::fs::anon::test_file();
    let (a, b) = pair(Type::Stream);
    let (a_file, b_file) = (file(a.clone()), file(b.clone()));
    // Each waits in the other, with a witness.
    send(&a, b"x", &[&b_file, &witness]).unwrap();
    send(&b, b"x", &[&a_file, &witness]).unwrap();
    assert_eq!(Arc::strong_count(&witness), 3);
    let (c, d) = pair(Type::Stream);
    let (e, f) = pair(Type::Datagram);
    // One that can be reached: f waits in d, which is open.
    let (d_file, f_file) = (file(d.clone()), file(f));
    send(&c, b"y", &[&f_file, &witness]).unwrap();
    drop((a, b, f_file));
    rights::settle();
    assert_eq!(Arc::strong_count(&witness), 4, "the cycle is still held from outside");
    drop((a_file, b_file));
    rights::settle();
    assert_eq!(Arc::strong_count(&witness), 2);
    let (_, received) = receive(&d, 9, false).unwrap();
    let files = received.rights.unwrap();
    send(&e, b"for f", &[]).unwrap();
    let f = files[0].ops_as::<UnixSocket>().unwrap();
    assert_eq!(receive(f, 9, false).unwrap().0, b"for f");
    drop((files, d_file));
    rights::settle();
    assert_eq!(Arc::strong_count(&witness), 1);
}

/// A chain of messages in messages is as long as somebody likes; letting go of it is no recursion.
#[test]
fn a_long_chain_of_sockets_in_messages_is_freed() {
    let witness = crate::fs::anon::test_file();
    let mut inner = witness.clone();
    for _ in 0..500 {
        let (a, b) = pair(Type::Datagram);
        send(&a, b"x", &[&inner]).unwrap();
        inner = file(b);
    }
    drop(inner);
    rights::settle();
    assert_eq!(Arc::strong_count(&witness), 1);
}

std::thread_local! {
    /// Files that this thread has let go of.
    static GONE: core::cell::Cell<usize> = const { core::cell::Cell::new(0) };
}

/// A file that notes its end, and what was on an account then.
struct Witness {
    uid: u32,
    on_account: Arc<AtomicUsize>,
}

impl FileOps for Witness {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn released(&self) {
        GONE.set(GONE.get() + 1);
        self.on_account.store(rights::on_account(self.uid), Ordering::Relaxed);
    }
}

fn witness(uid: u32) -> (Arc<OpenFile>, Arc<AtomicUsize>) {
    let on_account = Arc::new(AtomicUsize::new(0));
    let ops = Arc::new(Witness { uid, on_account: on_account.clone() });
    (OpenFile::new_anon("[witness]", ops, 2), on_account)
}

#[test]
fn whoever_closes_a_socket_does_a_part_of_what_follows_only() {
    let mut inner = crate::fs::anon::test_file();
    for _ in 0..1000 {
        let (a, b) = pair(Type::Datagram);
        send(&a, b"x", &[&inner, &witness(0).0]).unwrap();
        inner = file(b);
    }
    drop(inner);
    assert!(GONE.get() <= 100, "{}", GONE.get());
    rights::settle();
}

#[test]
fn files_are_on_the_account_until_they_have_gone() {
    let uid = 4_000_001;
    let (a, b) = pair(Type::Datagram);
    let (file, on_account) = witness(uid);
    send_as(uid, &a, b"x", &[&file]).unwrap();
    drop((file, a));
    assert_eq!(rights::on_account(uid), 1);
    drop(b);
    rights::settle();
    assert_eq!((on_account.load(Ordering::Relaxed), rights::on_account(uid)), (1, 0));
}

/// Each urgent byte that was taken is a mark, those side by side are one.
#[test]
fn a_writer_is_told_when_marks_that_join_make_room() {
    let (a, b) = pair(Type::Stream);
    let passed = crate::fs::anon::test_file();
    let urge = || a.try_send(&mut IoBuf::kernel(b"!"), &mut Outgoing { urgent: true, ..Outgoing::plain() }).unwrap();
    for _ in 0..255 {
        send(&a, b"x", &[&passed]).unwrap();
    }
    urge();
    b.receive_urgent(false).unwrap();
    urge();
    assert!(!a.ready().contains(Events::OUT));
    let told = Arc::new(AtomicBool::new(false));
    let (writer, noted) = (a.clone(), told.clone());
    spawn("writer", async move {
        let attempt = || writer.ready().contains(Events::OUT).then_some(());
        writer.queue.wait_for_mask(WRITE_EVENTS.bits(), attempt).await;
        noted.store(true, Ordering::Relaxed);
    });
    run_until_idle();
    b.receive_urgent(false).unwrap();
    run_until_idle();
    assert!(told.load(Ordering::Relaxed));
}

#[test]
fn a_look_at_the_rest_of_a_message() {
    let (a, b) = pair(Type::Stream);
    send(&a, b"hello", &[&crate::fs::anon::test_file()]).unwrap();
    assert_eq!(receive(&b, 2, false).unwrap().0, b"he");
    assert_eq!(receive(&b, 9, true).unwrap().0, b"llo");
}

#[test]
fn senders_that_are_gone_do_not_pile_up_with_a_full_receiver() {
    let receiver = UnixSocket::new(Type::Datagram);
    let sender = UnixSocket::new(Type::Datagram);
    sender.state.lock().peer = Some(Arc::downgrade(&receiver));
    while send(&sender, b"x", &[]).is_ok() {}
    for _ in 0..1000 {
        assert!(!receiver.admits(&UnixSocket::new(Type::Datagram)) && !receiver.admits(&sender));
    }
    assert!(receiver.state.lock().blocked.senders.len() <= 2 * MAX_DATAGRAMS);
}
