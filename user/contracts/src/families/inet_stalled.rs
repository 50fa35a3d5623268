//! TCP sockets: how long a sender waits for a reader who reads nothing (TCP_USER_TIMEOUT).

use std::time::Instant;

use libc::*;

use crate::file::close;
use crate::inet::{
    connection, events, events_in, fill, full, or_signal, pending_error, receive, send, set_option, shutdown, tcp_state,
};
use crate::sys::sys;
use crate::{process, say, tests};

tests! {
    given_up, option_first, what_is_told, longer, slow_reader, all_has_come, nothing_sent, taken_back, reader_is_not_told, reader_reads,
    reader_writes, reader_ends, closed_meanwhile, sender_waits, sender_reads,
}

fn patience(fd: i32, ms: i32) {
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, ms).need();
}

/// What poll(2) says when the sender has given up, or after a long time.
fn given_up_in(fd: i32, ms: i64) -> String {
    events_in(fd, 0, ms)
}

/// Reads until nothing more comes. Has something come, and how it ends.
fn rest(fd: i32) -> (bool, String) {
    let mut buffer = vec![0u8; 1 << 16];
    let mut came = false;
    loop {
        let ret = sys!(SYS_recvfrom, fd, &mut buffer[..], buffer.len(), 0, 0, 0);
        if ret.0 <= 0 {
            return (came, ret.to_string());
        }
        came = true;
    }
}

fn given_up() {
    let ([here, _there], _) = full();
    patience(here, 300);
    let start = Instant::now();
    say!("{}", given_up_in(here, 10_000));
    say!("in time: {}", (200..4000).contains(&start.elapsed().as_millis()));
    say!("{}", events(here));
}

fn option_first() {
    let [here, _there] = connection();
    patience(here, 300);
    fill(here);
    say!("{}", given_up_in(here, 10_000));
}

fn what_is_told() {
    let ([here, _there], _) = full();
    patience(here, 300);
    given_up_in(here, 10_000);
    say!("state {}", tcp_state(here));
    say!("{}", or_signal(|| send(here, "more", 0)));
    say!("{}", or_signal(|| send(here, "more", 0)));
    say!("{:?} {}", receive(here, 10, 0), pending_error(here));
    say!("{}", shutdown(here, SHUT_WR));
}

fn longer() {
    let ([here, _there], _) = full();
    patience(here, 60_000);
    say!("{}", given_up_in(here, 1500));
}

fn slow_reader() {
    let ([here, there], _) = full();
    patience(here, 900);
    for _ in 0..5 {
        process::sleep_ms(400);
        // All that has come.
        let mut buffer = vec![0u8; 1 << 20];
        while sys!(SYS_recvfrom, there, &mut buffer[..], buffer.len(), MSG_DONTWAIT, 0, 0).ok() {}
        fill(here);
    }
    say!("{}", given_up_in(here, 0));
    say!("{}", given_up_in(here, 10_000));
}

fn all_has_come() {
    let [here, there] = connection();
    patience(here, 100);
    send(here, "text", 0).need();
    say!("{}", given_up_in(here, 1000));
    say!("{}", receive(there, 10, 0));
}

fn nothing_sent() {
    let [here, there] = connection();
    patience(here, 100);
    say!("{}", given_up_in(here, 1000));
    send(here, "text", 0).need();
    say!("{}", receive(there, 10, 0));
}

fn taken_back() {
    let ([here, _there], _) = full();
    patience(here, 600);
    process::sleep_ms(100);
    patience(here, 0);
    say!("{}", given_up_in(here, 2000));
}

fn reader_is_not_told() {
    let ([here, there], _) = full();
    patience(here, 300);
    given_up_in(here, 10_000);
    process::sleep_ms(100);
    say!("{} state {}", events(there), tcp_state(there));
}

fn reader_reads() {
    let ([here, there], _) = full();
    patience(here, 300);
    given_up_in(here, 10_000);
    say!("{:?}", rest(there));
    say!("{:?}", rest(there));
}

fn reader_writes() {
    let ([here, there], _) = full();
    patience(here, 300);
    given_up_in(here, 10_000);
    say!("{}", or_signal(|| send(there, "text", 0)));
    say!("{}", events(there));
    say!("{}", or_signal(|| send(there, "text", 0)));
    say!("{}", or_signal(|| send(there, "text", 0)));
}

fn reader_ends() {
    let ([here, there], _) = full();
    patience(here, 300);
    given_up_in(here, 10_000);
    say!("{}", shutdown(there, SHUT_WR));
    say!("{}", events(there));
    say!("{}", pending_error(there));
}

fn closed_meanwhile() {
    let ([here, there], _) = full();
    patience(here, 300);
    given_up_in(here, 10_000);
    say!("{}", close(here));
    say!("{:?}", rest(there));
}

fn sender_waits() {
    let ([here, _there], _) = full();
    patience(here, 300);
    let text = vec![b't'; 1 << 20];
    let ret = or_signal(|| sys!(SYS_sendto, here, &text[..], text.len(), 0, 0, 0));
    say!("{ret}");
}

fn sender_reads() {
    let ([here, there], _) = full();
    patience(here, 300);
    send(there, "text", 0).need();
    given_up_in(here, 10_000);
    say!("{} {} {}", receive(here, 10, 0), receive(here, 10, 0), receive(here, 10, 0));
}
