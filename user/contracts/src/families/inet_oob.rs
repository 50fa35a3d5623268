//! Urgent data of TCP: MSG_OOB, SIOCATMARK, SIGURG, SO_OOBINLINE, POLLPRI. (Those of Unix sockets: `unix_oob`.)

use libc::*;

use super::sigio::fcntl;
use crate::file::{close, read, write};
use crate::inet::{
    connection, datagrams, events, events_in, listener, receive, set_option, shutdown, socket, waiting_bytes,
};
use crate::sys::{NOWHERE, sys, zeroed};
use crate::urgent::{self as both, SIOCATMARK, at_mark, now, set_inline, urge, urgent};
use crate::{process, say, signal, tests};

tests! {
    one_byte, text_with_urgent_end, marks, at_the_mark, skipped, in_line, replaced, replaced_at_the_mark, taken_twice, peeked,
    peeked_around, bytes_inside, ready, epoll_waits, poll_waits, signals, group_of_owner, lengths, other_sockets, closed, sender_goes,
    reset, shut, whole_reads, one_by_one, message_flags, bad_memory, waiting_reader, low_water, switched_in_line, thrown_away,
    counts_all,
}

fn one_byte() {
    let [a, b] = connection();
    say!("nothing urgent: {}", urgent(b));
    say!("sent: {}", urge(a, "x"));
    say!("received: {}", urgent(b));
    say!("again: {}", urgent(b));
    say!("in line: {} {}", now(b), urgent(b));
}

fn text_with_urgent_end() {
    both::text_with_urgent_end(connection());
}

fn marks() {
    both::marks(connection());
}

fn at_the_mark() {
    let [a, b] = connection();
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
    say!("of a listener: {}", at_mark(listener(1).0));
}

fn skipped() {
    both::skipped(connection());
}

fn in_line() {
    let [a, b] = connection();
    say!("in line: {}", set_inline(b, true));
    write(a, "before");
    urge(a, "!");
    write(a, "after");
    say!("urgent: {} {} {}", urgent(b), events(b), waiting_bytes(b));
    say!("up to the mark: {} {} {}", now(b), at_mark(b), waiting_bytes(b));
    say!("from it: {} {}", now(b), events(b));
    urge(a, "?");
    say!("alone: {} {}", now(b), at_mark(b));
}

fn replaced() {
    let [a, b] = connection();
    write(a, "x");
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

fn replaced_at_the_mark() {
    let [a, b] = connection();
    urge(a, "1");
    urge(a, "2");
    say!("{} {} {}", waiting_bytes(b), urgent(b), now(b));
    urge(a, "1");
    write(a, "x");
    urge(a, "2");
    say!("{} {} {} {}", waiting_bytes(b), urgent(b), now(b), now(b));
    set_inline(b, true);
    urge(a, "1");
    urge(a, "2");
    say!("in line: {} {} {}", waiting_bytes(b), now(b), now(b));
}

fn taken_twice() {
    both::taken_twice(connection());
}

fn peeked() {
    let [a, b] = connection();
    write(a, "ab");
    urge(a, "!");
    say!("urgent: {}", receive(b, 10, MSG_OOB | MSG_PEEK));
    say!("again: {} {}", receive(b, 10, MSG_OOB | MSG_PEEK), events(b));
    say!("taken: {} {}", urgent(b), events(b));
    say!("gone: {}", receive(b, 10, MSG_OOB | MSG_PEEK));
}

fn peeked_around() {
    let [a, b] = connection();
    let look = || receive(b, 100, MSG_PEEK | MSG_DONTWAIT);
    write(a, "before");
    urge(a, "!");
    write(a, "after");
    say!("up to the mark: {} {}", look(), look());
    read(b, 6);
    say!("at the mark: {} {}", look(), look());
    say!("still urgent: {} {}", at_mark(b), receive(b, 10, MSG_OOB | MSG_PEEK));
    urgent(b);
    say!("taken: {}", look());
    say!("read: {}", now(b));
    set_inline(b, true);
    write(a, "before");
    urge(a, "!");
    write(a, "after");
    say!("in line: {}", look());
    read(b, 6);
    say!("in line, at the mark: {} {}", look(), at_mark(b));
    let [a, b] = connection();
    urge(a, "!");
    say!("nothing else: {}", receive(b, 100, MSG_PEEK | MSG_DONTWAIT));
    say!("still there: {}", urgent(b));
}

fn bytes_inside() {
    let [a, b] = connection();
    write(a, "ab");
    urge(a, "!");
    write(a, "cd");
    say!("inside: {}", waiting_bytes(b));
    urgent(b);
    say!("without the urgent one: {}", waiting_bytes(b));
    read(b, 10);
    say!("after a read: {}", waiting_bytes(b));
    read(b, 10);
    say!("after another: {}", waiting_bytes(b));
    urge(a, "!");
    shutdown(a, SHUT_WR);
    say!("and the end: {} {}", waiting_bytes(b), events(b));
}

fn ready() {
    let [a, b] = connection();
    say!("at first: {}", events(b));
    urge(a, "!");
    say!("urgent: {}", events(b));
    urgent(b);
    say!("taken: {}", events(b));
    say!("read: {} {}", now(b), events(b));
    write(a, "x");
    urge(a, "?");
    write(a, "y");
    say!("bytes around: {}", events(b));
    read(b, 10);
    say!("before the mark: {}", events(b));
    read(b, 10);
    say!("past it: {}", events(b));
}

fn epoll_waits() {
    both::epoll_waits(connection());
}

fn poll_waits() {
    let [a, b] = connection();
    let child = process::child(|| {
        say!("poll: {}", events_in(b, POLLPRI, 10_000));
        let mut set = zeroed::<[u64; 16]>();
        set[b as usize / 64] |= 1 << (b % 64);
        say!("select: {}", sys!(SYS_pselect6, b + 1, 0, 0, &mut set, 0, 0));
        0
    });
    process::until_asleep(child);
    write(a, "bytes");
    process::sleep_ms(20);
    say!("asleep: {}", process::state(child));
    urge(a, "!");
    process::wait(child);
}

fn wait_for_signals() -> String {
    let mut all = Vec::new();
    loop {
        let (ret, info) = signal::take(signal::bit(SIGURG) | signal::bit(SIGIO), 20);
        if !ret.ok() {
            return format!("{all:?}");
        }
        all.push(format!("{} {}", signal::name(info.si_signo), info.si_code == SI_KERNEL));
    }
}

fn signals() {
    signal::block(SIGURG);
    signal::block(SIGIO);
    let [a, b] = connection();
    urge(a, "1");
    say!("no owner: {}", wait_for_signals());
    fcntl(b, F_SETOWN, process::pid());
    urge(a, "2");
    say!("an owner: {}", wait_for_signals());
    write(a, "bytes");
    say!("bytes: {}", wait_for_signals());
    let flags = sys!(SYS_fcntl, b, F_GETFL).need();
    sys!(SYS_fcntl, b, F_SETFL, flags | i64::from(O_ASYNC));
    urge(a, "3");
    say!("asynchronous: {}", wait_for_signals());
    fcntl(b, F_SETOWN, 0);
    urge(a, "4");
    say!("nobody: {}", wait_for_signals());
}

fn group_of_owner() {
    signal::block(SIGURG);
    let [a, b] = connection();
    sys!(SYS_setpgid, 0, 0);
    fcntl(b, F_SETOWN, -process::pid());
    urge(a, "!");
    say!("{}", wait_for_signals());
}

fn lengths() {
    let [a, b] = connection();
    say!("nothing: {}", urge(a, ""));
    say!("much: {}", urge(a, &"m".repeat(5000)));
    say!("comes as {}", urgent(b));
    let mut buffer = [0u8; 10_000];
    say!("and {}", sys!(SYS_recvfrom, b, &mut buffer, 10_000, MSG_DONTWAIT, 0, 0));
    urge(a, "!");
    say!("no room: {}", sys!(SYS_recvfrom, b, &mut buffer, 0, MSG_OOB, 0, 0));
    say!("after that: {}", urgent(b));
}

fn other_sockets() {
    let fd = socket(SOCK_STREAM);
    signal::ignore(SIGPIPE);
    say!("fresh: {} {} {}", urge(fd, "x"), urgent(fd), at_mark(fd));
    let (fd, _) = listener(1);
    say!("a listener: {} {}", urge(fd, "x"), urgent(fd));
    let (fd, _) = datagrams();
    say!("datagrams: {}", urge(fd, "x"));
}

fn closed() {
    signal::handle(SIGPIPE, signal::count, 0);
    let [a, b] = connection();
    close(b);
    say!("a byte: {}, signals {}", urge(a, "x"), signal::caught());
    say!("another: {}, signals {}", urge(a, "x"), signal::caught());
    let [a, b] = connection();
    urge(a, "!");
    urgent(b);
    close(b);
    say!("taken, but not read: {}", receive(a, 1, 0));
}

fn sender_goes() {
    let [a, b] = connection();
    write(a, "text");
    urge(a, "!");
    close(a);
    say!("{} {} {} {}", events(b), now(b), urgent(b), now(b));
    let [a, b] = connection();
    urge(a, "!");
    close(a);
    say!("nothing but the urgent byte: {} {} {}", now(b), urgent(b), now(b));
    let [a, b] = connection();
    urge(a, "!");
    shutdown(b, SHUT_WR);
    close(a);
    say!("both have ended: {} {} {}", events(b), urgent(b), now(b));
}

fn reset() {
    let [a, b] = connection();
    urge(a, "!");
    sys!(SYS_setsockopt, a, SOL_SOCKET, SO_LINGER, &linger { l_onoff: 1, l_linger: 0 }, 8);
    close(a);
    say!("{} {} {}", events(b), urgent(b), now(b));
}

fn shut() {
    let [a, b] = connection();
    urge(a, "!");
    shutdown(b, SHUT_RD);
    say!("what is there: {} {}", urgent(b), now(b));
    say!("more: {} {}", urge(a, "?"), urgent(b));
}

fn whole_reads() {
    let [a, b] = connection();
    write(a, "ab");
    urge(a, "!");
    write(a, "cd");
    say!("MSG_WAITALL stops at the mark: {}", receive(b, 4, MSG_WAITALL));
    say!("and goes on behind it: {}", receive(b, 2, MSG_WAITALL));
    let child = process::child(|| {
        say!("a mark that comes later: {}", receive(b, 8, MSG_WAITALL));
        0
    });
    process::until_asleep(child);
    write(a, "ab");
    process::sleep_ms(20);
    urge(a, "!");
    write(a, "cd");
    process::wait(child);
    say!("then: {}", now(b));
}

fn one_by_one() {
    let [a, b] = connection();
    write(a, "ab");
    urge(a, "!");
    write(a, "cd");
    for _ in 0..5 {
        say!("{} {}", at_mark(b), receive(b, 1, MSG_DONTWAIT));
    }
}

fn message_flags() {
    let [a, b] = connection();
    let received = |length: usize, flags: i32| {
        let mut buffer = [0u8; 8];
        let mut piece = iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: length };
        let mut message: msghdr = zeroed();
        (message.msg_iov, message.msg_iovlen) = (&mut piece, 1);
        let ret = sys!(SYS_recvmsg, b, &mut message, flags | MSG_DONTWAIT);
        format!("{ret} {:#x} {}", message.msg_flags, buffer[0])
    };
    urge(a, "!");
    say!("urgent: {}", received(8, MSG_OOB));
    say!("none: {}", received(8, MSG_OOB));
    urge(a, "!");
    say!("no room: {}", received(0, MSG_OOB));
    set_inline(b, true);
    urge(a, "!");
    say!("in line: {}", received(8, 0));
}

fn bad_memory() {
    both::bad_memory(connection());
}

fn waiting_reader() {
    let [a, b] = connection();
    let child = process::child(|| {
        say!("it does not wait: {}", urgent(b));
        say!("bytes: {}", receive(b, 10, 0));
        0
    });
    process::until_asleep(child);
    urge(a, "!");
    process::sleep_ms(20);
    say!("an urgent byte does not end it: {}", process::state(child));
    write(a, "x");
    process::wait(child);
}

fn low_water() {
    let [a, b] = connection();
    set_option(b, SOL_SOCKET, SO_RCVLOWAT, 3).need();
    urge(a, "!");
    write(a, "ab");
    say!("{}", events(b));
    write(a, "c");
    say!("{}", events(b));
    urgent(b);
    say!("{} {}", events(b), now(b));
}

fn switched_in_line() {
    both::switched_in_line(connection());
}

fn thrown_away() {
    let [a, b] = connection();
    write(a, "ab");
    urge(a, "!");
    write(a, "cd");
    for _ in 0..3 {
        say!("{}", sys!(SYS_recvfrom, b, 0, 10, MSG_TRUNC | MSG_DONTWAIT, 0, 0));
    }
}

fn counts_all() {
    let [a, b] = connection();
    write(a, "ab");
    urge(a, "!");
    now(b);
    let mut info = [0u64; 30];
    let mut length = 240i32;
    sys!(SYS_getsockopt, b, IPPROTO_TCP, TCP_INFO, &mut info, &mut length).need();
    say!("received: {}", info[16]);
}
