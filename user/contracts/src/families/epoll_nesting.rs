//! Epolls that watch epolls: how long chains may be, how many ways an event may have up, and how much a user may watch.

use libc::*;

use crate::file::{close, open, pipe, write};
use crate::process;
use crate::sys::{Ret, sys, zeroed};
use crate::{say, tests};

tests! { chains_from_below, chains_from_above, chains_with_a_file, a_file_comes_last, joined_chains, ways_up, watches_of_a_user }

const IN: u32 = EPOLLIN as u32;

fn epoll() -> i32 {
    sys!(SYS_epoll_create1, 0).fd()
}

fn add(epoll: i32, fd: i32) -> Ret {
    let event = epoll_event { events: IN, u64: fd as u64 };
    sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &event)
}

fn count(epoll: i32) -> Ret {
    let mut events = [zeroed::<epoll_event>(); 8];
    sys!(SYS_epoll_pwait, epoll, &mut events, 8, 0, 0, 8)
}

/// Makes a chain longer and longer, which `join` does; answers the last epoll.
fn chain(mut last: i32, join: fn(i32, i32) -> Ret) -> i32 {
    for length in 2..8 {
        let next = epoll();
        let ret = join(last, next);
        say!("{length} epolls: {ret}");
        if !ret.ok() {
            break;
        }
        last = next;
    }
    last
}

fn chains_from_below() {
    chain(epoll(), |last, next| add(next, last));
}

fn chains_from_above() {
    chain(epoll(), add);
}

fn chains_with_a_file() {
    let [reader, writer] = pipe();
    let first = epoll();
    add(first, reader).need();
    let last = chain(first, |last, next| add(next, last));
    write(writer, "x");
    say!("an event at the top: {}", count(last));
}

fn a_file_comes_last() {
    let [reader, writer] = pipe();
    let epolls: Vec<i32> = (0..5).map(|_| epoll()).collect();
    for pair in epolls.windows(2) {
        say!("chain: {}", add(pair[0], pair[1]));
    }
    say!("the file: {}", add(epolls[4], reader));
    write(writer, "x");
    for epoll in &epolls {
        say!("events: {}", count(*epoll));
    }
}

fn joined_chains() {
    let chain = |length: usize| {
        let epolls: Vec<i32> = (0..length).map(|_| epoll()).collect();
        epolls.windows(2).for_each(|pair| _ = add(pair[0], pair[1]).need());
        (epolls[0], epolls[length - 1])
    };
    for (above, below) in [(1, 4), (2, 3), (3, 2), (4, 1), (2, 4), (3, 3), (4, 2), (5, 1), (1, 5)] {
        say!("{above} above {below}: {}", add(chain(above).1, chain(below).0));
    }
}

/// Epolls in so many layers; each watches all of the layer below, and those of the lowest one a file.
fn layers(each: usize, layers: usize) -> String {
    let [reader, writer] = pipe();
    let mut below = vec![reader];
    for layer in 0..layers {
        let this: Vec<i32> = (0..each).map(|_| epoll()).collect();
        for (index, upper) in this.iter().enumerate() {
            for lower in &below {
                let ret = add(*upper, *lower);
                if !ret.ok() {
                    return format!("{ret} in layer {layer} at {index}");
                }
            }
        }
        below = this;
    }
    write(writer, "x");
    format!("all, and an event at the top: {}", count(below[0]))
}

fn ways_up() {
    let [reader, writer] = pipe();
    let top = epoll();
    let mut ways = 0;
    let ret = loop {
        let middle = epoll();
        let ret = add(middle, reader);
        let ret = if ret.ok() { add(top, middle) } else { ret };
        if !ret.ok() || ways == 600 {
            break ret;
        }
        ways += 1;
    };
    say!("through one epoll more: {ways}, then {ret}");
    write(writer, "x");
    say!("they work: {}", count(top));
    for (each, number) in [(22, 2), (23, 2), (4, 3), (5, 3), (6, 3), (2, 4), (3, 4), (1, 5), (2, 5)] {
        process::in_child(|| {
            say!("{number} layers of {each}: {}", layers(each, number));
            0
        });
    }
}

fn watches_of_a_user() {
    const LIMIT: &str = "/proc/sys/fs/epoll/max_user_watches";
    let before = std::fs::read_to_string(LIMIT).unwrap_or_default();
    say!("there is a limit: {}", before.trim().parse::<usize>().is_ok_and(|limit| limit > 10_000));
    say!("set: {}", std::fs::write(LIMIT, "3").is_ok());
    process::as_plain_user(|| {
        let (one, other) = (epoll(), epoll());
        let [reader, writer] = pipe();
        say!("watches: {} {} {}", add(one, reader), add(one, writer), add(other, reader));
        say!("too many: {} {}", add(other, writer), add(one, reader));
        say!("one less: {}", sys!(SYS_epoll_ctl, one, EPOLL_CTL_DEL, reader, 0));
        say!("again: {} {}", add(other, writer), add(one, reader));
        close(other);
        say!("an epoll less: {}", add(one, reader));
        close(reader);
        let another = pipe();
        say!("a file less: {} {}", add(one, another[0]), add(one, another[1]));
        say!("may a user set it: {}", open(c"/proc/sys/fs/epoll/max_user_watches", O_WRONLY));
    });
    say!("set back: {}", std::fs::write(LIMIT, before.trim()).is_ok());
}
