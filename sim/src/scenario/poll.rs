//! epoll and poll: whoever waits learns of everything, and of nothing that is closed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use super::Setup;
use crate::user::{Program, Sys, U, errno, program};

const NR_EPOLL_CTL: u64 = 21;
const NR_EPOLL_PWAIT: u64 = 22;
const NR_PPOLL: u64 = 73;
const NR_READ: u64 = 63;
const NR_WRITE: u64 = 64;
const NR_PIPE2: u64 = 59;
const O_NONBLOCK: u64 = 0o4000;
const ADD: u64 = 1;
const DEL: u64 = 2;
const MOD: u64 = 3;
const IN: u64 = 1;
const ONESHOT: u64 = 1 << 30;
const EDGE: u64 = 1 << 31;
const EAGAIN: Sys = -11;
const EINTR: Sys = -4;
/// The tag of the end.
const QUIT: u64 = 1_000_000;

/// Page of words.
const TIDS: u64 = 0;
const READ: u64 = 512;
const ACTIVE: u64 = 576;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Level,
    Edge,
    OneShot,
}

impl Mode {
    fn bits(self) -> u64 {
        match self {
            Mode::Level => IN,
            Mode::Edge => IN | EDGE,
            Mode::OneShot => IN | ONESHOT,
        }
    }
}

impl U {
    async fn epoll_ctl(self, epoll: u64, op: u64, fd: u64, events: u64, tag: u64) -> Sys {
        // struct epoll_event of arm64: not packed.
        let event = self.place_words(&[events, tag]).await;
        self.call(NR_EPOLL_CTL, &[epoll, op, fd, event]).await
    }

    async fn nonblocking_pipe(self) -> (u64, u64) {
        let fds = self.scratch(8);
        let made = self.call(NR_PIPE2, &[fds, O_NONBLOCK]).await;
        assert!(made == 0, "pipe: {}", errno(made));
        (self.load(fds).await.into(), self.load(fds + 4).await.into())
    }

    /// Events as (events, tag).
    async fn epoll_wait(self, epoll: u64, timeout: i64) -> Vec<(u32, u64)> {
        const MOST: u64 = 4;
        let events = self.scratch(16 * MOST);
        let count = self.call(NR_EPOLL_PWAIT, &[epoll, events, MOST, timeout as u64, 0, 8]).await;
        assert!(count >= 0 || count == EINTR, "epoll_pwait: {}", errno(count));
        let mut found = Vec::new();
        for index in 0..count.max(0) as u64 {
            found.push((self.load(events + 16 * index).await, self.load64(events + 16 * index + 8).await));
        }
        found
    }
}

/// Writers fill pipes, consumers empty them as epoll tells; a third party opens, watches and closes pipes all the time.
pub fn epoll(setup: &mut Setup) -> Program {
    let mode = *setup.rng.pick(&[Mode::Level, Mode::Edge, Mode::OneShot]);
    let (pipes, consumers) = (setup.rng.range(1, 4), setup.rng.range(1, 4));
    let writes = setup.rng.range(1, 20);
    let rounds = setup.rng.below(15);
    let timeouts = setup.rng.one_in(3);
    program(move |u| async move {
        let page = u.map(4096, false).await;
        let epoll = u.call(20, &[0]).await as u64;
        let closed: Rc<RefCell<BTreeSet<u64>>> = Rc::default();
        let mut readers = Vec::new();
        let mut next = TIDS;
        for tag in 0..pipes {
            let (reader, writer) = u.nonblocking_pipe().await;
            assert_eq!(u.epoll_ctl(epoll, ADD, reader, mode.bits(), tag).await, 0);
            readers.push(reader);
            let body = program(move |u| async move {
                let buffer = u.scratch(64);
                for _ in 0..writes {
                    assert_eq!(u.call(NR_WRITE, &[writer, buffer, 10]).await, 10);
                    u.pause(5_000).await;
                }
                0
            });
            assert!(u.thread(page + next, body).await > 0);
            next += 4;
        }
        let (_, quit) = {
            let (reader, writer) = u.nonblocking_pipe().await;
            assert_eq!(u.epoll_ctl(epoll, ADD, reader, IN, QUIT).await, 0);
            (reader, writer)
        };
        let first_consumer = next;
        for _ in 0..consumers {
            let (readers, closed) = (readers.clone(), closed.clone());
            let consumer = Consumer { page, epoll, mode, readers, closed, timeouts, alone: consumers == 1 };
            let body = program(move |u| consume(u, consumer));
            assert!(u.thread(page + next, body).await > 0);
            next += 4;
        }
        let tags = closed.clone();
        let closer = program(move |u| open_and_close(u, epoll, rounds, tags));
        let last = next;
        assert!(u.thread(page + last, closer).await > 0);
        for word in (TIDS..first_consumer).step_by(4) {
            u.join(page + word).await;
        }
        u.join(page + last).await;
        // All that was written must be read without further help.
        let end = u.now() + 1_000_000_000;
        while u64::from(u.load(page + READ).await) < pipes * writes * 10 {
            assert!(
                u.now() < end,
                "deadlock: {} of {} bytes were read",
                u.load(page + READ).await,
                pipes * writes * 10
            );
            u.pause(50_000).await;
        }
        let byte = u.scratch(1);
        assert_eq!(u.call(NR_WRITE, &[quit, byte, 1]).await, 1);
        for word in (first_consumer..last).step_by(4) {
            u.join(page + word).await;
        }
        0
    })
}

/// What a consumer knows.
struct Consumer {
    page: u64,
    epoll: u64,
    mode: Mode,
    readers: Vec<u64>,
    closed: Rc<RefCell<BTreeSet<u64>>>,
    timeouts: bool,
    /// There is no other.
    alone: bool,
}

async fn consume(u: U, consumer: Consumer) -> i32 {
    let Consumer { page, epoll, mode, readers, closed, timeouts, alone } = consumer;
    let buffer = u.map(4096, false).await;
    loop {
        let gone = closed.borrow().clone();
        let timeout = if timeouts && u.random(2) == 0 { u.random(2) as i64 } else { -1 };
        for (events, tag) in u.epoll_wait(epoll, timeout).await {
            if tag == QUIT {
                return 0;
            }
            // Another consumer that looks at the file in the moment of the close keeps it a little longer.
            assert!(!alone || !gone.contains(&tag), "event {events:#x} of descriptor {tag}, closed before the wait");
            if tag >= readers.len() as u64 {
                // Nobody reads it: leave the CPU to whoever will close it.
                u.pause(20_000).await;
                continue;
            }
            assert!(u64::from(events) & IN != 0, "events {events:#x}");
            let reader = readers[tag as usize];
            loop {
                let n = u.call(NR_READ, &[reader, buffer, 1 + u.random(40)]).await;
                assert!(n > 0 || n == EAGAIN, "read: {}", errno(n));
                if n == EAGAIN {
                    break;
                }
                u.add(page + READ, n as u32).await;
                if mode != Mode::Edge && u.random(2) == 0 {
                    break;
                }
            }
            if mode == Mode::OneShot {
                assert_eq!(u.epoll_ctl(epoll, MOD, reader, mode.bits(), tag).await, 0);
            }
        }
    }
}

/// Pipes that are watched, become ready, and go, by close or by EPOLL_CTL_DEL.
async fn open_and_close(u: U, epoll: u64, rounds: u64, closed: Rc<RefCell<BTreeSet<u64>>>) -> i32 {
    for round in 0..rounds {
        let tag = 1000 + round;
        let (reader, writer) = u.nonblocking_pipe().await;
        assert_eq!(u.epoll_ctl(epoll, ADD, reader, IN | EDGE, tag).await, 0);
        u.pause(2_000).await;
        let byte = u.scratch(1);
        assert_eq!(u.call(NR_WRITE, &[writer, byte, 1]).await, 1);
        u.pause(2_000).await;
        match u.random(3) {
            0 => assert_eq!(u.epoll_ctl(epoll, DEL, reader, 0, 0).await, 0),
            1 => assert_eq!(u.epoll_ctl(epoll, MOD, reader, IN, tag).await, 0),
            _ => {}
        }
        u.close(reader).await;
        closed.borrow_mut().insert(tag);
        u.close(writer).await;
    }
    0
}

/// poll(2) on pipes whose writers write and go: POLLIN, then POLLHUP, and a wait never misses them.
pub fn poll(setup: &mut Setup) -> Program {
    const HUP: u32 = 16;
    let pipes = setup.rng.range(1, 5);
    let writes = setup.rng.range(0, 10);
    let waiters = setup.rng.range(1, 3);
    program(move |u| async move {
        let page = u.map(4096, true).await;
        u.store(page + ACTIVE, pipes as u32).await;
        let mut fds = Vec::new();
        for _ in 0..pipes {
            fds.push(u.nonblocking_pipe().await);
        }
        let mut children = Vec::new();
        for index in 0..pipes as usize {
            let all = fds.clone();
            let body = program(move |u| async move {
                for (at, (reader, writer)) in all.iter().enumerate() {
                    u.close(*reader).await;
                    if at != index {
                        u.close(*writer).await;
                    }
                }
                let buffer = u.scratch(16);
                for _ in 0..writes {
                    assert_eq!(u.call(NR_WRITE, &[all[index].1, buffer, 3]).await, 3);
                    u.pause(10_000).await;
                }
                0
            });
            children.push(u.fork(body).await);
        }
        for _ in 0..waiters {
            let all = fds.clone();
            let body = program(move |u| async move {
                let mut open: Vec<u64> = Vec::new();
                for (reader, writer) in all {
                    u.close(writer).await;
                    open.push(reader);
                }
                while !open.is_empty() {
                    let words: Vec<u64> = open.iter().map(|fd| IN << 32 | fd).collect();
                    let fds = u.place_words(&words).await;
                    let ready = u.call(NR_PPOLL, &[fds, open.len() as u64, 0, 0, 8]).await;
                    assert!(ready > 0, "ppoll: {}", errno(ready));
                    let mut left = Vec::new();
                    for (index, fd) in open.iter().enumerate() {
                        let events = u.load(fds + 8 * index as u64 + 4).await >> 16;
                        let buffer = u.scratch(16);
                        let n = if events == 0 { 1 } else { u.call(NR_READ, &[*fd, buffer, 2]).await };
                        // Another may have taken the bytes that poll told of, and then the writer has gone.
                        assert!(
                            n >= 0 || n == EAGAIN && (waiters > 1 || events & IN as u32 == 0),
                            "read: {}",
                            errno(n)
                        );
                        assert!(n == 0 || events & HUP == 0 || events & IN as u32 != 0 || waiters > 1);
                        if n > 0 && events != 0 {
                            u.add(page + READ, n as u32).await;
                        }
                        if n != 0 {
                            left.push(*fd);
                        }
                    }
                    open = left;
                }
                0
            });
            children.push(u.fork(body).await);
        }
        for (reader, writer) in fds {
            u.close(reader).await;
            u.close(writer).await;
        }
        for child in children {
            assert_eq!(u.wait_for(child).await, 0);
        }
        assert_eq!(u64::from(u.load(page + READ).await), pipes * writes * 3, "bytes read");
        0
    })
}
