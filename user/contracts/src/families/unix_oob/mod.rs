//! Urgent data of Unix stream sockets: MSG_OOB, SIOCATMARK, SIGURG, SO_OOBINLINE, POLLPRI.

mod along;
mod told;

use libc::*;

use self::along::{credentials, descriptors, message_flags};
use self::told::{epoll_waits, no_owner, queued_signals, ready, select_waits, signals};
use crate::file::{close, read, shown, write};
use crate::sys::{NOWHERE, sys, zeroed};
use crate::urgent::{self as both, SIOCATMARK, at_mark, now, set_inline, urge, urgent};
use crate::{process, say, signal, tests};

tests! {
    one_byte, text_with_urgent_end, marks, at_the_mark, skipped, in_line, replaced, taken_twice, behind_the_taken, peeked,
    peeked_around, bytes_inside, ready, select_waits, epoll_waits, signals, queued_signals, no_owner, lengths, other_kinds,
    not_connected, closed, closed_with_urgent, shut, full, whole_reads, message_flags, descriptors, credentials, bad_memory,
    vectors, nonblocking, switched_in_line, taken_in_line,
}

fn sockets() -> [i32; 2] {
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &mut pair).need();
    pair
}

fn receive(fd: i32, length: usize, flags: i32) -> String {
    let mut buffer = vec![0u8; length];
    let ret = sys!(SYS_recvfrom, fd, &mut buffer[..], length, flags, 0, 0);
    shown(ret, &buffer)
}

fn inside(fd: i32) -> i32 {
    let mut count = -1i32;
    sys!(SYS_ioctl, fd, FIONREAD, &mut count);
    count
}

fn events(fd: i32) -> String {
    let mut entry = pollfd { fd, events: POLLIN | POLLPRI | POLLOUT | POLLRDBAND, revents: 0 };
    let now = timespec { tv_sec: 0, tv_nsec: 0 };
    sys!(SYS_ppoll, &mut entry, 1, &now, 0, 8);
    format!("{:#x}", entry.revents)
}

fn one_byte() {
    let [a, b] = sockets();
    say!("nothing urgent: {}", urgent(b));
    say!("sent: {}", urge(a, "x"));
    say!("received: {}", urgent(b));
    say!("again: {}", urgent(b));
    say!("in line: {}", now(b));
}

fn text_with_urgent_end() {
    both::text_with_urgent_end(sockets());
}

fn marks() {
    both::marks(sockets());
}

fn at_the_mark() {
    let [a, b] = sockets();
    say!("empty: {}", at_mark(b));
    write(a, "ab");
    say!("bytes: {}", at_mark(b));
    urge(a, "!");
    write(a, "cd");
    say!("the mark is ahead: {}", at_mark(b));
    say!("{} and at it: {}", read(b, 1), at_mark(b));
    say!("{} and at it: {}", read(b, 10), at_mark(b));
    say!("urgent: {} and at it: {}", urgent(b), at_mark(b));
    say!("{} and at it: {}", now(b), at_mark(b));
    say!("of the sender: {}", at_mark(a));
    say!("bad pointer: {}", sys!(SYS_ioctl, b, SIOCATMARK, NOWHERE));
}

fn skipped() {
    both::skipped(sockets());
}

fn in_line() {
    let [a, b] = sockets();
    say!("in line: {}", set_inline(b, true));
    write(a, "before");
    urge(a, "!");
    write(a, "after");
    say!("urgent: {}", urgent(b));
    say!("up to the mark: {} {}", now(b), at_mark(b));
    say!("from it: {}", now(b));
    urge(a, "?");
    say!("alone: {} {}", now(b), at_mark(b));
}

fn replaced() {
    let [a, b] = sockets();
    urge(a, "1");
    write(a, "text");
    urge(a, "2");
    write(a, "more");
    say!("the newer one: {}", urgent(b));
    say!("none: {}", urgent(b));
    say!("in line: {}", now(b));
    say!("then: {}", now(b));
    say!("then: {}", now(b));
}

fn taken_twice() {
    both::taken_twice(sockets());
}

fn behind_the_taken() {
    let [a, b] = sockets();
    write(a, "a");
    urge(a, "1");
    urgent(b);
    write(a, "b");
    urge(a, "2");
    write(a, "c");
    say!("a mark that is taken, and one that is not: {}", now(b));
    say!("then: {} {}", at_mark(b), now(b));
    say!("then: {} {}", at_mark(b), now(b));
}

fn peeked() {
    let [a, b] = sockets();
    write(a, "ab");
    urge(a, "!");
    say!("urgent: {}", receive(b, 10, MSG_OOB | MSG_PEEK));
    say!("again: {} {}", receive(b, 10, MSG_OOB | MSG_PEEK), events(b));
    say!("taken: {} {}", urgent(b), events(b));
    say!("gone: {}", receive(b, 10, MSG_OOB | MSG_PEEK));
}

fn peeked_around() {
    let [a, b] = sockets();
    write(a, "before");
    urge(a, "!");
    write(a, "after");
    say!("up to the mark: {}", receive(b, 100, MSG_PEEK | MSG_DONTWAIT));
    say!("the same: {}", receive(b, 100, MSG_PEEK | MSG_DONTWAIT));
    read(b, 6);
    say!("at the mark: {}", receive(b, 100, MSG_PEEK | MSG_DONTWAIT));
    say!("still urgent: {} {}", at_mark(b), receive(b, 10, MSG_OOB | MSG_PEEK));
    urgent(b);
    say!("taken: {}", receive(b, 100, MSG_PEEK | MSG_DONTWAIT));
    say!("read: {}", now(b));
    set_inline(b, true);
    write(a, "before");
    urge(a, "!");
    write(a, "after");
    say!("in line: {}", receive(b, 100, MSG_PEEK | MSG_DONTWAIT));
    read(b, 6);
    say!("in line, at the mark: {}", receive(b, 100, MSG_PEEK | MSG_DONTWAIT));
    set_inline(b, false);
    let [a, b] = sockets();
    urge(a, "!");
    say!("nothing else: {}", receive(b, 100, MSG_PEEK | MSG_DONTWAIT));
    say!("still there: {}", urgent(b));
}

fn bytes_inside() {
    let [a, b] = sockets();
    write(a, "ab");
    urge(a, "!");
    write(a, "cd");
    let mut waiting = -1i32;
    sys!(SYS_ioctl, a, TIOCOUTQ, &mut waiting);
    say!("inside: {}, out: {}", inside(b), waiting > 0);
    urgent(b);
    say!("without the urgent one: {}", inside(b));
    read(b, 10);
    say!("after a read: {}", inside(b));
    read(b, 10);
    say!("after another: {}", inside(b));
}

fn lengths() {
    let [a, b] = sockets();
    say!("nothing: {}", urge(a, ""));
    say!("much: {}", urge(a, &"m".repeat(5000)));
    say!("comes as {} and {}", now(b).len() - 2, urgent(b));
    while inside(b) > 0 {
        read(b, 10_000);
    }
    urge(a, "!");
    say!("no room: {}", sys!(SYS_recvfrom, b, &mut [0u8; 1], 0, MSG_OOB, 0, 0));
    say!("after that: {}", urgent(b));
}

fn other_kinds() {
    for (name, kind) in [("datagrams", SOCK_DGRAM), ("packets", SOCK_SEQPACKET)] {
        let mut pair = [0i32; 2];
        sys!(SYS_socketpair, AF_UNIX, kind, 0, &mut pair).need();
        let [a, b] = pair;
        say!("{name}: {} {} {}", urge(a, "x"), urgent(b), at_mark(b));
        write(a, "");
        say!("an empty one: {}", at_mark(b));
    }
}

fn not_connected() {
    let fd = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    say!("send: {}, receive: {}, mark: {}", urge(fd, "x"), urgent(fd), at_mark(fd));
}

fn closed() {
    signal::handle(SIGPIPE, signal::count, 0);
    let [a, b] = sockets();
    close(b);
    say!("a byte: {}, signals {}", urge(a, "x"), signal::caught());
    say!("two: {}, signals {}", urge(a, "xy"), signal::caught());
    say!("silent: {}, signals {}", sys!(SYS_sendto, a, "xy", 2, MSG_OOB | MSG_NOSIGNAL, 0, 0), signal::caught());
}

fn closed_with_urgent() {
    let [a, b] = sockets();
    urge(a, "!");
    close(b);
    say!("not taken: {}", receive(a, 1, 0));
    let [a, b] = sockets();
    urge(a, "!");
    urgent(b);
    close(b);
    say!("taken: {}", receive(a, 1, 0));
    let [a, b] = sockets();
    write(a, "text");
    urge(a, "!");
    close(a);
    say!("the sender goes: {} {} {} {}", now(b), urgent(b), now(b), now(b));
    let [a, b] = sockets();
    urge(a, "!");
    close(a);
    say!("nothing but the urgent byte: {} {}", now(b), urgent(b));
}

fn shut() {
    signal::handle(SIGPIPE, signal::count, 0);
    let [a, b] = sockets();
    urge(a, "!");
    sys!(SYS_shutdown, b, SHUT_RD);
    say!("what is there: {} {}", urgent(b), now(b));
    say!("no more: {}, signals {}", urge(a, "?"), signal::caught());
    let [a, b] = sockets();
    sys!(SYS_shutdown, a, SHUT_WR);
    say!("of the sender: {}, signals {}", urge(a, "?"), signal::caught());
    say!("received: {} {}", urgent(b), now(b));
}

fn full() {
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, &mut pair).need();
    let [a, b] = pair;
    let page = "p".repeat(4096);
    while write(a, &page).ok() {}
    while write(a, "1").ok() {}
    say!("full: {}", urge(a, "!"));
    let mut buffer = vec![0u8; 1 << 20];
    sys!(SYS_read, b, &mut buffer[..], buffer.len());
    say!("read: {} {}", urge(a, "!"), urgent(b));
}

fn whole_reads() {
    let [a, b] = sockets();
    write(a, "ab");
    urge(a, "!");
    write(a, "cd");
    say!("MSG_WAITALL stops at the mark: {}", receive(b, 4, MSG_WAITALL));
    say!("and goes on behind it: {}", receive(b, 2, MSG_WAITALL));
}

fn bad_memory() {
    both::bad_memory(sockets());
}

fn vectors() {
    let [a, b] = sockets();
    let mut pieces =
        ["one", "", "two"].map(|text| iovec { iov_base: text.as_ptr() as *mut c_void, iov_len: text.len() });
    let mut message: msghdr = zeroed();
    (message.msg_iov, message.msg_iovlen) = (pieces.as_mut_ptr(), 3);
    say!("sent: {}", sys!(SYS_sendmsg, a, &message, MSG_OOB));
    say!("received: {} {}", now(b), urgent(b));
}

fn nonblocking() {
    let [a, b] = sockets();
    let child = process::child(|| {
        say!("it does not wait: {}", urgent(b));
        say!("bytes: {}", receive(b, 10, 0));
        0
    });
    process::sleep_ms(20);
    urge(a, "!");
    process::sleep_ms(20);
    say!("an urgent byte does not end it: {}", process::state(child));
    write(a, "x");
    process::wait(child);
}

fn switched_in_line() {
    both::switched_in_line(sockets());
}

fn taken_in_line() {
    let [a, b] = sockets();
    write(a, "ab");
    urge(a, "!");
    write(a, "cd");
    urgent(b);
    set_inline(b, true);
    say!("at first: {} {}", at_mark(b), now(b));
    say!("then: {} {}", at_mark(b), now(b));
}
