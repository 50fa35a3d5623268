//! io_uring: sockets.

use libc::*;

use crate::file::{close, read, write};
use crate::memory;
use crate::ring::*;
use crate::sys::{sys, zeroed};
use crate::{say, tests};

tests! {
    send_and_receive, waits, messages, whole_messages, wrong_sockets, connections, accept_again_and_again,
    accept_into_table, make_socket, shut, selected_buffers, receive_again_and_again, peer_is_gone, sockets_read,
}

fn pair(kind: i32) -> [i32; 2] {
    let mut ends = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, kind, 0, &mut ends).need();
    ends
}

fn send(fd: i32, text: &str, flags: i32, user_data: u64) -> Sqe {
    Sqe { opcode: op::SEND, off: 0, op_flags: flags as u32, ..write_from(fd, text, user_data) }
}

fn recv(fd: i32, buffer: &mut [u8], flags: i32, user_data: u64) -> Sqe {
    Sqe { opcode: op::RECV, off: 0, op_flags: flags as u32, ..read_into(fd, buffer, user_data) }
}

fn text(buffer: &[u8]) -> String {
    String::from_utf8_lossy(buffer).trim_end_matches('\0').to_string()
}

fn send_and_receive() {
    let ring = Ring::new(8, 0);
    let [a, b] = pair(SOCK_STREAM);
    let mut buffer = [0; 8];
    say!("send: {}", ring.run(&[send(a, "hello", 0, 1)]));
    say!("peek: {} {}", ring.run(&[recv(b, &mut buffer, MSG_PEEK, 2)]), text(&buffer));
    say!("receive: {} {}", ring.run(&[recv(b, &mut buffer, 0, 3)]), text(&buffer));
    say!("not to wait: {}", ring.run(&[recv(b, &mut buffer, MSG_DONTWAIT, 4)]));
    let [a, b] = pair(SOCK_DGRAM);
    ring.run(&[send(a, "datagram", 0, 5)]);
    let mut short = [0; 4];
    say!("cut: {} {}", ring.run(&[recv(b, &mut short, 0, 6)]), text(&short));
    ring.run(&[send(a, "datagram", 0, 7)]);
    say!("true length: {}", ring.run(&[recv(b, &mut short, MSG_TRUNC, 8)]));
    say!("out of band: {}", ring.run(&[recv(b, &mut short, MSG_ERRQUEUE | MSG_DONTWAIT, 9)]));
}

fn waits() {
    let ring = Ring::new(8, 0);
    let [a, b] = pair(SOCK_STREAM | SOCK_NONBLOCK);
    let mut buffer = [0; 8];
    say!("{} {}", ring.submit(&[recv(b, &mut buffer, 0, 1)], 0), ring.shown());
    write(a, "late");
    say!("{} {} {}", ring.wait(1), ring.shown(), text(&buffer));
    let bytes = "x".repeat(4096);
    let mut full = 0;
    while sys!(SYS_write, a, bytes.as_str(), bytes.len()).ok() {
        full += 1;
    }
    say!("full: {}", full > 10);
    say!("{} {}", ring.submit(&[send(a, &bytes, 0, 2)], 0), ring.shown());
    let mut drain = vec![0; 4096];
    while sys!(SYS_read, b, &mut drain[..], 4096).ok() {}
    say!("{} {}", ring.wait(1), ring.shown());
}

fn message(iov: &mut iovec) -> msghdr {
    let mut header: msghdr = zeroed();
    header.msg_iov = iov;
    header.msg_iovlen = 1;
    header
}

fn messages() {
    let ring = Ring::new(8, 0);
    let [a, b] = pair(SOCK_SEQPACKET);
    let mut out = *b"message";
    let mut iov = iovec { iov_base: out.as_mut_ptr().cast(), iov_len: 7 };
    let header = message(&mut iov);
    let sqe = |opcode: u8, fd: i32, header: &msghdr, user_data: u64| Sqe {
        fd,
        addr: std::ptr::from_ref(header) as u64,
        len: 1,
        ..entry(opcode, user_data)
    };
    say!("sendmsg: {}", ring.run(&[sqe(op::SENDMSG, a, &header, 1)]));
    let mut buffer = [0; 4];
    let mut iov = iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: 4 };
    let header = message(&mut iov);
    say!("recvmsg: {} {}", ring.run(&[sqe(op::RECVMSG, b, &header, 2)]), text(&buffer));
    // SAFETY: the kernel has written the header.
    let flags = unsafe { (&raw const header.msg_flags).read_volatile() };
    say!("flags: {flags:#x}");
    ring.submit(&[sqe(op::RECVMSG, b, &header, 3)], 0);
    say!("waits: {}", ring.shown());
    close(a);
    say!("the end: {} {}", ring.wait(1), ring.shown());
    say!("bad header: {}", ring.run(&[Sqe { fd: b, addr: 8, ..entry(op::RECVMSG, 4) }]));
}

fn whole_messages() {
    let ring = Ring::new(8, 0);
    let [a, b] = pair(SOCK_STREAM);
    let mut buffer = [0; 8];
    ring.submit(&[recv(b, &mut buffer, MSG_WAITALL, 1)], 0);
    write(a, "half");
    crate::process::sleep_ms(2);
    say!("half: {}", ring.shown());
    write(a, "full");
    say!("all: {} {} {}", ring.wait(1), ring.shown(), text(&buffer));
    ring.submit(&[recv(b, &mut buffer, MSG_WAITALL, 2).with(IO_LINK), entry(op::NOP, 3)], 0);
    write(a, "end");
    close(a);
    say!("less breaks a link: {} {}", ring.wait(2), ring.shown());
}

fn wrong_sockets() {
    let ring = Ring::new(8, 0);
    let [reader, writer] = crate::file::pipe();
    let mut buffer = [0; 4];
    say!("a pipe: {} {}", ring.run(&[recv(reader, &mut buffer, 0, 1)]), ring.run(&[send(writer, "x", 0, 2)]));
    say!("accept: {}", ring.run(&[Sqe { fd: reader, ..entry(op::ACCEPT, 3) }]));
    say!("shutdown: {}", ring.run(&[Sqe { fd: reader, ..entry(op::SHUTDOWN, 4) }]));
    say!("connect: {}", ring.run(&[Sqe { fd: reader, ..entry(op::CONNECT, 5) }]));
    let [a, _b] = pair(SOCK_STREAM);
    say!("accept of what does not listen: {}", ring.run(&[Sqe { fd: a, ..entry(op::ACCEPT, 6) }]));
    say!("bad accept flags: {}", ring.run(&[Sqe { fd: a, op_flags: 1, ..entry(op::ACCEPT, 7) }]));
    say!("priority: {}", ring.run(&[Sqe { ioprio: 64, ..recv(a, &mut buffer, 0, 8) }]));
    say!("file index: {}", ring.run(&[Sqe { file_index: 1, ..recv(a, &mut buffer, 0, 9) }]));
}

/// A listening socket and its address.
fn listener() -> (i32, sockaddr_un, u64) {
    let mut name: sockaddr_un = zeroed();
    name.sun_family = AF_UNIX as u16;
    name.sun_path[0] = b'l' as c_char;
    let len = 4;
    let fd = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    sys!(SYS_bind, fd, &name, len).need();
    sys!(SYS_listen, fd, 8).need();
    (fd, name, len)
}

fn connect(fd: i32, name: &sockaddr_un, len: u64, user_data: u64) -> Sqe {
    Sqe { fd, addr: std::ptr::from_ref(name) as u64, off: len, ..entry(op::CONNECT, user_data) }
}

fn connections() {
    let ring = Ring::new(8, 0);
    let (listen, name, len) = listener();
    let accept = |user_data: u64| Sqe { fd: listen, ..entry(op::ACCEPT, user_data) };
    say!("{} {}", ring.submit(&[accept(1)], 0), ring.shown());
    let client = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    ring.submit(&[connect(client, &name, len, 2)], 2);
    let all = ring.all();
    let accepted = all.iter().find(|cqe| cqe.user_data == 1).map_or(-1, |cqe| cqe.res);
    say!("accepted: {} connected: {}", accepted > client, all.iter().any(|cqe| cqe.user_data == 2 && cqe.res == 0));
    write(client, "hello");
    say!("{}", read(accepted, 10));
    say!("again: {}", ring.run(&[connect(client, &name, len, 3)]));
    let mut other = name;
    other.sun_path[0] = b'x' as c_char;
    let fresh = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    say!("nobody there: {}", ring.run(&[connect(fresh, &other, len, 4)]));
    say!("bad address: {}", ring.run(&[Sqe { addr: 8, ..connect(fresh, &name, len, 5) }]));
    ring.submit(&[connect(fresh, &name, len, 6)], 1);
    say!("close-on-exec: {}", {
        ring.all();
        ring.submit(&[Sqe { op_flags: (SOCK_CLOEXEC | SOCK_NONBLOCK) as u32, ..accept(7) }], 1);
        let fd = ring.all().first().map_or(-1, |cqe| cqe.res);
        format!("{} {:o}", sys!(SYS_fcntl, fd, F_GETFD, 0), sys!(SYS_fcntl, fd, F_GETFL, 0).0)
    });
}

fn dial(name: &sockaddr_un, len: u64) -> i32 {
    let fd = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    sys!(SYS_connect, fd, name, len).need();
    fd
}

fn accept_again_and_again() {
    let ring = Ring::new(8, 0);
    let (listen, name, len) = listener();
    let accept = Sqe { fd: listen, ioprio: 1, ..entry(op::ACCEPT, 1) };
    ring.submit(&[accept], 0);
    for round in 0..3 {
        dial(&name, len);
        ring.wait(1);
        let all = ring.all();
        say!("{round}: {:?}", all.iter().map(|cqe| (cqe.res > 0, cqe.flags)).collect::<Vec<_>>());
    }
    ring.submit(&[cancel(1, 0, 2)], 2);
    say!("cancelled: {}", ring.sorted());
    say!("into one slot: {}", ring.run(&[Sqe { file_index: 1, ..accept }]));
}

fn accept_into_table() {
    let ring = Ring::new(8, 0);
    ring.register(2, [-1i32; 2].as_ptr() as usize, 2);
    let (listen, name, len) = listener();
    let clients = [dial(&name, len), dial(&name, len), dial(&name, len)];
    let accept = |file_index: u32, user_data: u64| Sqe { fd: listen, file_index, ..entry(op::ACCEPT, user_data) };
    say!("at 1: {}", ring.run(&[accept(2, 1)]));
    say!("any: {}", ring.run(&[accept(u32::MAX, 2)]));
    say!("full: {}", ring.run(&[accept(u32::MAX, 3)]));
    say!("close-on-exec: {}", ring.run(&[Sqe { op_flags: SOCK_CLOEXEC as u32, ..accept(1, 4) }]));
    say!("send: {}", ring.run(&[send(1, "hi", 0, 5).with(FIXED_FILE)]));
    say!("{}", read(clients[0], 10));
}

fn make_socket() {
    let ring = Ring::new(8, 0);
    let socket = |kind: i32, file_index: u32| Sqe { fd: AF_UNIX, off: kind as u64, file_index, ..entry(op::SOCKET, 1) };
    ring.submit(&[socket(SOCK_STREAM | SOCK_CLOEXEC, 0)], 1);
    let fd = ring.all().first().map_or(-1, |cqe| cqe.res);
    say!("{} {}", fd > 0, sys!(SYS_fcntl, fd, F_GETFD, 0));
    say!("no table: {}", ring.run(&[socket(SOCK_STREAM, 1)]));
    ring.register(2, [-1i32; 2].as_ptr() as usize, 2);
    say!("in the table: {}", ring.run(&[socket(SOCK_STREAM, 2)]));
    say!("close-on-exec there: {}", ring.run(&[socket(SOCK_STREAM | SOCK_CLOEXEC, 2)]));
    say!("unknown kind: {}", ring.run(&[socket(77, 0)]));
    say!("unknown family: {}", ring.run(&[Sqe { fd: 12_345, ..socket(SOCK_STREAM, 0) }]));
}

fn shut() {
    let ring = Ring::new(8, 0);
    let [a, b] = pair(SOCK_STREAM);
    let shut = |fd: i32, how: u32| Sqe { fd, len: how, ..entry(op::SHUTDOWN, 1) };
    let mut buffer = [0; 4];
    ring.submit(&[recv(b, &mut buffer, 0, 2)], 0);
    ring.submit(&[shut(a, 1)], 2);
    say!("{}", ring.sorted());
    say!("send: {}", ring.run(&[send(a, "x", 0, 3)]));
    say!("bad: {} with a flag: {}", ring.run(&[shut(a, 9)]), ring.run(&[Sqe { op_flags: 1, ..shut(a, 1) }]));
}

fn provide(addr: *mut u8, len: u32, count: i32, group: u16) -> Sqe {
    Sqe { fd: count, addr: addr as u64, len, buf_index: group, ..entry(op::PROVIDE_BUFFERS, 50) }
}

fn selected_buffers() {
    let ring = Ring::new(8, 0);
    let [a, b] = pair(SOCK_STREAM);
    let area = memory::pages(1);
    let select = |user_data: u64| Sqe { fd: b, buf_index: 3, ..entry(op::RECV, user_data) }.with(BUFFER_SELECT);
    ring.run(&[provide(area, 16, 2, 3)]);
    write(a, "first");
    say!("{}", ring.run(&[select(1)]));
    ring.submit(&[select(2)], 0);
    write(a, "second");
    say!("{} {}", ring.wait(1), ring.shown());
    // SAFETY: within the page.
    say!("{:?}", text(unsafe { std::slice::from_raw_parts(area, 32) }).replace('\0', "."));
    write(a, "third");
    say!("none: {}", ring.run(&[select(3)]));
    say!("not for sending: {}", ring.run(&[Sqe { opcode: op::SEND, ..select(4) }]));
}

fn receive_again_and_again() {
    let ring = Ring::new(8, 0);
    let [a, b] = pair(SOCK_STREAM);
    let area = memory::pages(1);
    ring.run(&[provide(area, 16, 3, 3)]);
    let multi = Sqe { fd: b, buf_index: 3, ioprio: 2, ..entry(op::RECV, 1) }.with(BUFFER_SELECT);
    ring.submit(&[multi], 0);
    for word in ["one", "two", "three"] {
        write(a, word);
        say!("{} {}", ring.wait(1), ring.shown());
    }
    say!("without buffers: {}", ring.run(&[Sqe { flags: 0, ..multi }]));
    ring.run(&[provide(area, 16, 3, 3)]);
    ring.submit(&[multi], 1);
    say!("{}", ring.shown());
    close(a);
    say!("the end: {} {}", ring.wait(1), ring.shown());
}

fn peer_is_gone() {
    let ring = Ring::new(8, 0);
    let [a, b] = pair(SOCK_STREAM);
    let mut buffer = [0; 4];
    ring.submit(&[recv(b, &mut buffer, 0, 1), poll_add(b, POLLIN, 0, 2)], 0);
    close(a);
    say!("{} {}", ring.wait(2), ring.sorted());
    // Without SIGPIPE.
    say!("send: {}", ring.run(&[send(b, "x", 0, 3)]));
}

fn sockets_read() {
    let ring = Ring::new(8, 0);
    let [a, b] = pair(SOCK_STREAM);
    let mut buffer = [0; 8];
    ring.submit(&[read_into(b, &mut buffer, 1)], 0);
    ring.submit(&[write_from(a, "by write", 2)], 2);
    say!("{} {}", ring.sorted(), text(&buffer));
}
