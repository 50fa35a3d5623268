//! io_uring: what is ready and yet refuses, what an entry keeps of the time at which it was submitted, rings that watch rings.

use libc::*;

use crate::file::{close, path, pipe, read, write};
use crate::process::{in_child, sleep_ms};
use crate::ring::*;
use crate::sys::{Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    full_queue, full_queue_is_cancelled, receive_after_shutdown, read_after_shutdown, accept_after_shutdown,
    ring_in_a_message, whose_files, credentials_are_kept, vectors_are_kept, times_are_kept, rings_watch_rings,
    many_ready_at_once, bad_addresses,
}

fn pair(kind: i32) -> [i32; 2] {
    let mut ends = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, kind, 0, &mut ends).need();
    ends
}

/// An address in the abstract name space.
fn address(name: &str) -> sockaddr_un {
    let mut address: sockaddr_un = zeroed();
    address.sun_family = AF_UNIX as sa_family_t;
    let own = format!("{name}-{}", std::process::id());
    for (place, byte) in address.sun_path[1..].iter_mut().zip(own.bytes()) {
        *place = byte as c_char;
    }
    address
}

/// A message for an address.
struct Letter {
    to: sockaddr_un,
    text: [u8; 4],
    vector: iovec,
    header: msghdr,
}

impl Letter {
    fn new(to: sockaddr_un) -> Box<Letter> {
        let vector = iovec { iov_base: std::ptr::null_mut(), iov_len: 4 };
        let mut letter = Box::new(Letter { to, text: *b"note", vector, header: zeroed() });
        letter.vector.iov_base = letter.text.as_mut_ptr().cast();
        letter.header.msg_name = (&raw mut letter.to).cast();
        letter.header.msg_namelen = size_of::<sockaddr_un>() as u32;
        letter.header.msg_iov = &raw mut letter.vector;
        letter.header.msg_iovlen = 1;
        letter
    }

    fn sqe(&self, fd: i32, user_data: u64) -> Sqe {
        Sqe { fd, addr: (&raw const self.header) as u64, len: 1, ..entry(op::SENDMSG, user_data) }
    }
}

/// A bound datagram socket whose queue is full, a socket that is not connected to it, and a message from that.
fn full() -> (i32, i32, Box<Letter>) {
    let receiver = sys!(SYS_socket, AF_UNIX, SOCK_DGRAM, 0).fd();
    let to = address("full");
    sys!(SYS_bind, receiver, &to, size_of::<sockaddr_un>()).need();
    let sender = sys!(SYS_socket, AF_UNIX, SOCK_DGRAM, 0).fd();
    let letter = Letter::new(to);
    while sys!(SYS_sendmsg, sender, &raw const letter.header, MSG_DONTWAIT).ok() {}
    (receiver, sender, letter)
}

fn full_queue() {
    let ring = Ring::new(8, 0);
    let (receiver, sender, letter) = full();
    let mut poll = pollfd { fd: sender, events: POLLOUT, revents: 0 };
    say!("the sender can send: {}", sys!(SYS_ppoll, &mut poll, 1, 0, 0, 0));
    ring.submit(&[letter.sqe(sender, 1)], 0);
    sleep_ms(20);
    ring.enter(0, 0, GETEVENTS);
    say!("full: {}", ring.shown());
    read(receiver, 4);
    say!("room: {}", ring.wait(1));
    // Linux forgets the text: it has read it at each attempt.
    say!("sent: {}", ring.all().iter().all(|cqe| cqe.user_data == 1 && cqe.res >= 0));
    let at_once = Sqe { op_flags: MSG_DONTWAIT as u32, ..letter.sqe(sender, 2) };
    say!("not to wait: {}", ring.run(&[at_once]));
}

fn full_queue_is_cancelled() {
    let ring = Ring::new(8, 0);
    let (_receiver, sender, letter) = full();
    ring.submit(&[letter.sqe(sender, 1)], 0);
    sleep_ms(20);
    ring.enter(0, 0, GETEVENTS);
    let cancelled = ring.register(24, (&raw const SYNC_CANCEL_ONE) as usize, 1);
    ring.enter(0, 1, GETEVENTS);
    let ended = ring.all().first().map(|cqe| cqe.res < 0);
    say!("cancelled: {cancelled}, an error: {ended:?}");
    let status = in_child(|| {
        let ring = Ring::new(8, 0);
        let (_receiver, sender, letter) = full();
        ring.submit(&[letter.sqe(sender, 1)], 0);
        0
    });
    say!("its process ends: {status}");
}

/// `struct io_uring_sync_cancel_reg` for user data 1, however long it takes.
static SYNC_CANCEL_ONE: [i64; 8] = [1, 0, -1, -1, 0, 0, 0, 0];

fn receive(opcode: u8, fd: i32, buffer: &mut [u8], user_data: u64) -> Sqe {
    Sqe { opcode, off: if opcode == op::READ { HERE } else { 0 }, ..read_into(fd, buffer, user_data) }
}

fn receive_after_shutdown() {
    let ring = Ring::new(8, 0);
    for (name, kind) in [("stream", SOCK_STREAM), ("datagram", SOCK_DGRAM), ("packet", SOCK_SEQPACKET)] {
        let [a, b] = pair(kind);
        let mut buffer = [0; 4];
        sys!(SYS_shutdown, a, SHUT_RD).need();
        say!("{name}: {}", ring.run(&[receive(op::RECV, a, &mut buffer, 1)]));
        ring.submit(&[receive(op::RECV, b, &mut buffer, 2)], 0);
        sys!(SYS_shutdown, b, SHUT_RD).need();
        say!("{name}, while it waits: {} {}", ring.wait(1), ring.shown());
    }
}

fn read_after_shutdown() {
    let ring = Ring::new(8, 0);
    let [a, _b] = pair(SOCK_DGRAM);
    let mut buffer = [0; 4];
    sys!(SYS_shutdown, a, SHUT_RD).need();
    say!("datagram: {}", ring.run(&[receive(op::READ, a, &mut buffer, 1)]));
}

fn accept_after_shutdown() {
    let ring = Ring::new(8, 0);
    let listener = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    sys!(SYS_bind, listener, &address("listener"), size_of::<sockaddr_un>()).need();
    sys!(SYS_listen, listener, 4).need();
    ring.submit(&[Sqe { fd: listener, ..entry(op::ACCEPT, 1) }], 0);
    sys!(SYS_shutdown, listener, SHUT_RDWR).need();
    say!("while it waits: {} {}", ring.wait(1), ring.shown());
    say!("afterwards: {}", ring.run(&[Sqe { fd: listener, ..entry(op::ACCEPT, 2) }]));
}

/// Sends descriptors.
fn send_fds(socket: i32, fds: &[i32]) -> Ret {
    let mut control = [0u64; 8];
    control[0] = 16 + 4 * fds.len() as u64;
    control[1] = SOL_SOCKET as u64 | (SCM_RIGHTS as u64) << 32;
    for (index, fd) in fds.iter().enumerate() {
        control[2 + index / 2] |= u64::from(fd.cast_unsigned()) << (32 * (index % 2));
    }
    let mut vector = iovec { iov_base: control.as_mut_ptr().cast(), iov_len: 1 };
    let mut header: msghdr = zeroed();
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = (16 + (4 * fds.len()).next_multiple_of(8)) as _;
    sys!(SYS_sendmsg, socket, &raw const header, 0)
}

fn ring_in_a_message() {
    let ring = Ring::new(8, 0);
    let [a, _b] = pair(SOCK_STREAM);
    let [reader, _writer] = pipe();
    say!("a pipe: {}", send_fds(a, &[reader]));
    say!("a ring: {}", send_fds(a, &[ring.fd]));
    say!("a pipe and a ring: {}", send_fds(a, &[reader, ring.fd]));
}

const REGISTER_PERSONALITY: u32 = 9;
const UNREGISTER_PERSONALITY: u32 = 10;

/// A file that only root may open, for reading.
fn open_secret(user_data: u64) -> Sqe {
    static PATH: &std::ffi::CStr = c"secret";
    Sqe { fd: AT_FDCWD, addr: PATH.as_ptr() as u64, op_flags: O_RDONLY as u32, ..entry(op::OPENAT, user_data) }
}

/// The registered credentials of somebody who is nobody.
fn nobody(ring: &Ring) -> u16 {
    sys!(SYS_setresuid, -1, 1000, -1).need();
    let id = ring.register(REGISTER_PERSONALITY, 0, 0).need();
    sys!(SYS_setresuid, -1, 0, -1).need();
    id as u16
}

fn secret() {
    let fd = sys!(SYS_openat, AT_FDCWD, path("secret").as_ptr(), O_CREAT | O_WRONLY, 0o600).fd();
    close(fd);
}

/// Completions of attempts to open.
fn opened(ring: &Ring) -> String {
    let mut all = ring.all();
    all.sort();
    let one = |cqe: &Cqe| if cqe.res >= 0 { format!("{}: opened", cqe.user_data) } else { cqe.to_string() };
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn whose_files() {
    secret();
    let ring = Ring::new(8, 0);
    let personality = nobody(&ring);
    let theirs = |sqe: Sqe| Sqe { personality, ..sqe };
    ring.submit(&[theirs(open_secret(1))], 1);
    say!("alone: {}", opened(&ring));
    ring.submit(
        &[theirs(open_secret(1).with(IO_HARDLINK)), open_secret(2).with(IO_HARDLINK), theirs(open_secret(3))],
        3,
    );
    say!("nobody, root, nobody: {}", opened(&ring));
    ring.submit(&[open_secret(1).with(IO_HARDLINK), theirs(open_secret(2).with(IO_HARDLINK)), open_secret(3)], 3);
    say!("root, nobody, root: {}", opened(&ring));
}

fn credentials_are_kept() {
    secret();
    let ring = Ring::new(8, 0);
    let personality = nobody(&ring);
    let [reader, writer] = pipe();
    let mut buffer = [0; 4];
    let first = read_into(reader, &mut buffer, 1).with(IO_LINK);
    let first = Sqe { len: 1, ..first };
    ring.submit(&[first, Sqe { personality, ..open_secret(2) }], 0);
    say!("forgotten: {}", ring.register(UNREGISTER_PERSONALITY, 0, personality.into()));
    write(writer, "x");
    ring.wait(2);
    say!("as submitted: {}", opened(&ring));
    say!("from now on: {}", ring.run(&[Sqe { personality, ..open_secret(3) }]));
}

/// The kernel may have kept the address.
fn overwrite<T>(place: &mut T, value: T) {
    // SAFETY: a place of the caller's.
    unsafe { std::ptr::from_mut(place).write_volatile(value) };
}

fn vectors_are_kept() {
    let ring = Ring::new(8, 0);
    let [reader, writer] = pipe();
    let [other_reader, other_writer] = pipe();
    let (good, bad) = (*b"good", *b"evil");
    let vector = |text: &[u8; 4]| iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: 4 };
    let mut vectors = [vector(&good); 2];
    let mut buffer = [0; 1];
    let write_vectors = |flags: u8, user_data: u64, vectors: &[iovec; 2]| {
        let addr = vectors.as_ptr() as u64;
        Sqe { fd: other_writer, addr, len: 2, off: HERE, ..entry(op::WRITEV, user_data) }.with(flags)
    };
    let first = read_into(reader, &mut buffer, 1).with(IO_LINK);
    ring.submit(&[first, write_vectors(0, 2, &vectors)], 0);
    overwrite(&mut vectors, [vector(&bad); 2]);
    write(writer, "x");
    say!("linked: {} {} {}", ring.wait(2), ring.sorted(), read(other_reader, 8));
    overwrite(&mut vectors, [vector(&good); 2]);
    ring.submit(&[read_into(reader, &mut buffer, 1), write_vectors(IO_DRAIN, 2, &vectors)], 0);
    overwrite(&mut vectors, [vector(&bad); 2]);
    write(writer, "x");
    say!("held back: {} {} {}", ring.wait(2), ring.sorted(), read(other_reader, 8));
    let mut ends = [0u8; 8];
    let (left, right) = ends.split_at_mut(4);
    let part = |bytes: &mut [u8]| iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 4 };
    let mut vectors = [part(left), part(right)];
    let addr = vectors.as_ptr() as u64;
    ring.submit(&[Sqe { fd: reader, addr, len: 2, off: HERE, ..entry(op::READV, 3) }], 0);
    overwrite(&mut vectors, [iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; 2]);
    write(writer, "together");
    say!("it waits: {} {} {:?}", ring.wait(1), ring.shown(), String::from_utf8_lossy(&ends));
}

fn times_are_kept() {
    let ring = Ring::new(8, 0);
    let [reader, writer] = pipe();
    let mut buffer = [0; 1];
    let mut time = span(5);
    let first = read_into(reader, &mut buffer, 1).with(IO_LINK);
    ring.submit(&[first, timeout(&time, 0, 0, 2)], 0);
    overwrite(&mut time, [-1, -1]);
    write(writer, "x");
    say!("a linked timeout: {} {}", ring.wait(2), ring.sorted());
    let limit = |time: &[i64; 2]| Sqe { opcode: op::LINK_TIMEOUT, ..timeout(time, 0, 0, 3) };
    overwrite(&mut time, span(5));
    let [a, b] = pair(SOCK_STREAM);
    let first = receive(op::RECV, a, &mut buffer, 1).with(IO_LINK);
    let second = receive(op::RECV, a, &mut buffer, 2).with(IO_LINK);
    ring.submit(&[first, second, limit(&time)], 0);
    overwrite(&mut time, [-1, -1]);
    write(b, "x");
    say!("a limit: {} {}", ring.wait(3), ring.sorted());
}

fn rings_watch_rings() {
    const DEPTH: usize = 24;
    for (name, flags) in [("deferring", SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN), ("plain", 0)] {
        let [reader, writer] = pipe();
        let mut rings: Vec<Ring> = Vec::new();
        for _ in 0..DEPTH {
            let watched = rings.last().map_or(reader, |ring| ring.fd);
            let ring = Ring::new(1, flags);
            ring.submit(&[poll_add(watched, POLLIN, 0, 1)], 0);
            rings.push(ring);
        }
        write(writer, "x");
        // The last one first: a ring is ready as long as its completion is not taken.
        let all: Vec<String> = rings.iter().rev().map(|ring| format!("{} {}", ring.wait(1), ring.shown())).collect();
        say!("{name}: {}, all alike: {}", all[0], all.iter().all(|one| *one == all[0]));
        rings.iter().for_each(|ring| _ = close(ring.fd));
    }
}

fn many_ready_at_once() {
    const COUNT: u32 = 2000;
    let ring = Ring::new(COUNT, 0);
    let [reader, writer] = pipe();
    let polls: Vec<Sqe> = (0..COUNT).map(|index| poll_add(reader, POLLIN, 0, index.into())).collect();
    say!("submitted: {}", ring.submit(&polls, 0));
    write(writer, "x");
    say!("wait: {}", ring.wait(COUNT));
    let mut all = ring.all();
    all.sort();
    let right =
        all.iter().enumerate().all(|(index, cqe)| cqe.user_data == index as u64 && cqe.res == i32::from(POLLIN));
    say!("completions: {}, each once: {right}", all.len());
}

fn bad_addresses() {
    let ring = Ring::new(8, SETUP_SUBMIT_ALL);
    let [a, _b] = pair(SOCK_STREAM);
    for addr in [8, u64::MAX - 7, u64::MAX] {
        let message = Sqe { fd: a, addr, len: 1, buf_index: 1, ..entry(op::RECVMSG, 1) };
        say!("receive: {}", ring.run(&[message.with(BUFFER_SELECT)]));
        let vector = Sqe { fd: a, addr, len: 1, off: HERE, ..entry(op::WRITEV, 2) };
        say!("linked vector: {}", ring.run(&[entry(op::NOP, 1).with(IO_LINK), vector]));
        let later = vector.with(ASYNC);
        say!("vector: {}", ring.run(&[later]));
        let time = Sqe { addr, len: 1, ..entry(op::TIMEOUT, 3) };
        say!("linked time: {}", ring.run(&[entry(op::NOP, 1).with(IO_LINK), time]));
    }
}
