//! userfaultfd: whoever touches a page that is not there gets it, or goes on when there is nobody any more to bring it,
//! whatever comes in between: answers to others, signals, pages that go again, ranges that are given up, the end of the file.

use super::Setup;
use crate::user::{Program, Sys, U, errno, program};

const NR_IOCTL: u64 = 29;
const NR_CLOSE: u64 = 57;
const NR_READ: u64 = 63;
const NR_WRITE: u64 = 64;
const NR_KILL: u64 = 129;
const NR_TGKILL: u64 = 131;
const NR_GETPID: u64 = 172;
const NR_MADVISE: u64 = 233;
const NR_READV_OF: u64 = 270;
const NR_USERFAULTFD: u64 = 282;

const API: u64 = 0xc018_aa3f;
const REGISTER: u64 = 0xc020_aa00;
const UNREGISTER: u64 = 0x8010_aa01;
const WAKE: u64 = 0x8010_aa02;
const COPY: u64 = 0xc028_aa03;
const ZEROPAGE: u64 = 0xc020_aa04;
const MISSING: u64 = 1;
const DONTWAKE: u64 = 1;

const DONTNEED: u64 = 4;
const PAGE: u64 = 4096;
const SIGUSR1: i32 = 10;
const SIGKILL: u32 = 9;
const RESTART: u64 = 0x1000_0000;
const EINTR: Sys = -4;
const EAGAIN: Sys = -11;
const ENOENT: Sys = -2;
const EEXIST: Sys = -17;

/// Watched pages. The last ones are for the handlers: whoever is asked for one of them ends.
#[derive(Clone, Copy)]
struct Area {
    fd: u64,
    addr: u64,
    pages: u64,
    handlers: u64,
    /// Where handlers copy from: for each page its own.
    source: u64,
}

/// What the first word of a page is, if a handler has copied it.
fn mark(page: u64) -> u32 {
    0x5000 + page as u32
}

impl Area {
    fn page(&self, page: u64) -> u64 {
        self.addr + page * PAGE
    }

    async fn ioctl(&self, u: U, call: u64, words: &[u64]) -> Sys {
        let words = u.place_words(words).await;
        u.call(NR_IOCTL, &[self.fd, call, words]).await
    }

    async fn wake(&self, u: U, page: u64) {
        assert_eq!(self.ioctl(u, WAKE, &[self.page(page), PAGE]).await, 0);
    }

    async fn register(&self, u: U, page: u64, count: u64) {
        let answer = self.ioctl(u, REGISTER, &[self.page(page), count * PAGE, MISSING, 0]).await;
        assert!(answer == 0, "register: {}", errno(answer));
    }
}

async fn open(u: U, addr: u64, pages: u64, handlers: u64, source: u64) -> Area {
    let fd = u.call(NR_USERFAULTFD, &[0]).await;
    assert!(fd >= 0, "userfaultfd: {}", errno(fd));
    let area = Area { fd: fd as u64, addr, pages, handlers, source };
    assert_eq!(area.ioctl(u, API, &[0xaa, 0, 0]).await, 0);
    area.register(u, 0, pages + handlers).await;
    area
}

/// Reads faults and answers them, in one of many ways.
async fn handle(u: U, area: Area) -> i32 {
    loop {
        let message = u.scratch(32);
        let length = u.call(NR_READ, &[area.fd, message, 32]).await;
        assert!(length == 32, "read: {}", errno(length));
        let page = (u.load64(message + 16).await - area.addr) / PAGE;
        u.pause(3_000).await;
        if page < area.pages && u.random(6) == 0 {
            // Whoever asked asks again.
            area.wake(u, page).await;
            continue;
        }
        let mode = u.random(2) * DONTWAKE;
        let answer = match u.random(3) {
            0 => area.ioctl(u, ZEROPAGE, &[area.page(page), PAGE, mode, 0]).await,
            _ => area.ioctl(u, COPY, &[area.page(page), area.source + page * PAGE, PAGE, mode, 0]).await,
        };
        assert!(matches!(answer, 0 | EEXIST | ENOENT), "an answer: {}", errno(answer));
        // One that fails wakes nobody.
        if answer != 0 || mode == DONTWAKE {
            u.pause(1_000).await;
            area.wake(u, page).await;
        }
        if page >= area.pages {
            return 0;
        }
    }
}

/// Brings each page once without being asked, so that there is no answer but this one.
async fn push(u: U, area: Area) -> i32 {
    let turn = u.random(area.pages);
    for page in 0..area.pages {
        let page = (page + turn) % area.pages;
        u.pause(3_000).await;
        let answer = area.ioctl(u, COPY, &[area.page(page), area.source + page * PAGE, PAGE, 0, 0]).await;
        assert!(answer == 0, "a copy: {}", errno(answer));
    }
    0
}

/// Touches pages, in user code and in system calls.
async fn touch(u: U, area: Area, rounds: u64) -> i32 {
    let (reader, writer) = u.pipe().await;
    for _ in 0..rounds {
        let page = u.random(area.pages);
        let at = area.page(page);
        let found = match u.random(5) {
            0 => {
                u.store(at + 64, 1).await;
                continue;
            }
            1 => {
                let written = u.call(NR_WRITE, &[writer, at, 4]).await;
                assert!(written == 4, "write: {}", errno(written));
                let word = u.scratch(4);
                while u.call(NR_READ, &[reader, word, 4]).await == EINTR {}
                u.load(word).await
            }
            2 => {
                let word = u.scratch(4);
                let vectors = u.place_words(&[word, 4, at, 4]).await;
                let pid = u.call(NR_GETPID, &[]).await as u64;
                let read = u.call(NR_READV_OF, &[pid, vectors, 1, vectors + 16, 1, 0]).await;
                assert!(read == 4, "process_vm_readv: {}", errno(read));
                u.load(word).await
            }
            _ => u.load(at).await,
        };
        assert!(found == 0 || found == mark(page), "page {page} holds {found:#x}");
    }
    for fd in [reader, writer] {
        assert_eq!(u.call(NR_CLOSE, &[fd]).await, 0);
    }
    0
}

/// What happens to the pages and those who wait for them.
async fn disturb(u: U, area: Area, touchers: u64, words: u64, rounds: u64) -> i32 {
    let pid = u.call(NR_GETPID, &[]).await as u64;
    for _ in 0..rounds {
        let page = u.random(area.pages);
        match if area.handlers == 0 { 5 } else { u.random(8) } {
            0..=2 => {
                let answer = u.call(NR_MADVISE, &[area.page(page), PAGE, DONTNEED]).await;
                assert!(answer == 0, "madvise: {}", errno(answer));
            }
            3 => area.wake(u, page).await,
            4 => {
                let count = 1 + u.random(area.pages - page);
                assert_eq!(area.ioctl(u, UNREGISTER, &[area.page(page), count * PAGE]).await, 0);
                u.pause(2_000).await;
                area.register(u, page, count).await;
            }
            5 | 6 => {
                let tid = u.load(words + 4 * u.random(touchers)).await;
                let answer = u.call(NR_TGKILL, &[pid, tid.into(), SIGUSR1 as u64]).await;
                assert!(matches!(answer, 0 | -3 | -22), "tgkill: {}", errno(answer));
            }
            _ => other_process(u, area, page).await,
        }
        u.pause(3_000).await;
    }
    0
}

/// A copy is not watched, and may have a handler of its own, for which it waits until it is killed.
async fn other_process(u: U, area: Area, page: u64) {
    let killed = u.random(2) == 0;
    let child = u
        .fork(program(move |u| async move {
            let found = u.load(area.page(page)).await;
            assert!(found == 0 || found == mark(page), "page {page} of a copy holds {found:#x}");
            if killed {
                let own = u.map(4 * PAGE, false).await;
                let own = open(u, own, 4, 0, 0).await;
                if u.random(2) == 0 {
                    u.load(own.page(1)).await;
                } else {
                    u.call(NR_WRITE, &[own.fd, own.page(1), 4]).await;
                    let (_, writer) = u.pipe().await;
                    u.call(NR_WRITE, &[writer, own.page(1), 4]).await;
                }
            }
            0
        }))
        .await;
    if child == EAGAIN {
        return;
    }
    assert!(child > 0, "fork: {}", errno(child));
    u.pause(20_000).await;
    if killed {
        assert_eq!(u.call(NR_KILL, &[child as u64, SIGKILL.into()]).await, 0);
    }
    let status = u.wait_for(child).await;
    assert!(status == if killed { SIGKILL } else { 0 }, "a child ended with {status:#x}");
}

pub fn faults(setup: &mut Setup) -> Program {
    let (pages, handlers) = (setup.rng.range(1, 8), setup.rng.below(3));
    let (touchers, rounds) = (setup.rng.range(1, 5), setup.rng.range(5, 40));
    let disturbances = setup.rng.below(if handlers == 0 { 3 } else { 40 });
    program(move |u| async move {
        assert_eq!(u.handle(SIGUSR1, RESTART, |_, _| async {}).await, 0);
        let words = u.map(PAGE, false).await;
        let source = u.map((pages + handlers) * PAGE, false).await;
        for page in 0..pages + handlers {
            u.store(source + page * PAGE, mark(page)).await;
        }
        let addr = u.map((pages + handlers) * PAGE, false).await;
        let area = open(u, addr, pages, handlers, source).await;
        for toucher in 0..touchers {
            assert!(u.thread(words + 4 * toucher, program(move |u| touch(u, area, rounds))).await > 0);
        }
        let handler_words = words + 256;
        for handler in 0..handlers {
            assert!(u.thread(handler_words + 4 * handler, program(move |u| handle(u, area))).await > 0);
        }
        let pusher = words + 768;
        if handlers == 0 {
            assert!(u.thread(pusher, program(move |u| push(u, area))).await > 0);
        }
        let disturber = words + 512;
        let body = program(move |u| disturb(u, area, touchers, words, disturbances));
        assert!(u.thread(disturber, body).await > 0);
        // In half of all runs the handlers go first: those who wait then go on when the file is closed.
        let early = handlers > 0 && u.random(2) == 0;
        if early {
            u.pause(100_000).await;
        } else {
            for toucher in 0..touchers {
                u.join(words + 4 * toucher).await;
            }
        }
        u.join(disturber).await;
        u.join(pusher).await;
        for handler in 0..handlers {
            u.load(area.page(area.pages + handler)).await;
        }
        for handler in 0..area.handlers {
            u.join(handler_words + 4 * handler).await;
        }
        u.pause(5_000).await;
        assert_eq!(u.call(NR_CLOSE, &[area.fd]).await, 0);
        for toucher in 0..touchers {
            u.join(words + 4 * toucher).await;
        }
        0
    })
}
