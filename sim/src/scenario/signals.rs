//! Signals against every call that can block: it ends as it should, restarted or told EINTR, and nothing is lost; and SIGKILL
//! ends it at any point.

use super::Setup;
use crate::user::sync::Style;
use crate::user::{Program, Sys, U, errno, program};

const SIGKILL: u64 = 9;
const SIGUSR1: u64 = 10;
const SIGUSR2: u64 = 12;
const SIGCONT: u64 = 18;
const SIGSTOP: u64 = 19;
const SA_RESTART: u64 = 0x1000_0000;
const EINTR: Sys = -4;
const EAGAIN: Sys = -11;
const AT_FDCWD: u64 = -100i64 as u64;
const BIT_USR2: u64 = 1 << (SIGUSR2 - 1);
const STYLE: Style = Style { shared: false, timeout: 0 };

/// A call that blocks until it is released.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Block {
    ReadPipe,
    WritePipe,
    Futex,
    Sleep,
    Poll,
    Epoll,
    Wait,
    Suspend,
    TimedWait,
    Flock,
    RecordLock,
    Eventfd,
    Timerfd,
    Signalfd,
    OpenFifo,
    Splice,
}

const ALL: [Block; 16] = [
    Block::ReadPipe,
    Block::WritePipe,
    Block::Futex,
    Block::Sleep,
    Block::Poll,
    Block::Epoll,
    Block::Wait,
    Block::Suspend,
    Block::TimedWait,
    Block::Flock,
    Block::RecordLock,
    Block::Eventfd,
    Block::Timerfd,
    Block::Signalfd,
    Block::OpenFifo,
    Block::Splice,
];

/// signal(7), "Interruption of system calls": these end with EINTR even if the handler has SA_RESTART.
const NEVER_RESTARTED: [Block; 5] = [Block::Sleep, Block::Poll, Block::Epoll, Block::Suspend, Block::TimedWait];

/// Page of words that the threads of a process share.
const TID: u64 = 0;
const WORD: u64 = 64;
const FLAG: u64 = 128;

/// What the blocking thread and the one that releases it share.
#[derive(Clone, Copy)]
struct Place {
    block: Block,
    page: u64,
    /// Descriptors; their use depends on the call.
    a: u64,
    b: u64,
    c: u64,
    /// The thread that blocks, and its process.
    pid: u64,
    tid: u64,
}

impl U {
    async fn fd(self, number: u64, args: &[u64]) -> u64 {
        let fd = self.call(number, args).await;
        assert!(fd >= 0, "no descriptor: {}", errno(fd));
        fd as u64
    }

    async fn open_file(self, path: &str, flags: u64) -> Sys {
        let path = self.place_str(path).await;
        self.call(56, &[AT_FDCWD, path, flags, 0o644]).await
    }

    async fn set_mask(self, mask: u64) {
        let words = self.place_words(&[mask]).await;
        assert_eq!(self.call(135, &[2, words, 0, 8]).await, 0);
    }
}

/// struct flock for the whole file.
async fn flock_words(u: U, kind: u64) -> u64 {
    u.place_words(&[kind, 0, 0, 0]).await
}

/// Makes the call block, and says how.
async fn set_up(u: U, block: Block) -> Place {
    let page = u.map(4096, false).await;
    let (pid, tid) = (u.getpid().await as u64, u.gettid().await as u64);
    let mut place = Place { block, page, a: 0, b: 0, c: 0, pid, tid };
    match block {
        Block::ReadPipe | Block::Poll => (place.a, place.b) = u.pipe().await,
        Block::WritePipe => {
            const F_SETFL: u64 = 4;
            const O_NONBLOCK: u64 = 0o4000;
            (place.a, place.b) = u.pipe().await;
            u.call(25, &[place.b, F_SETFL, O_NONBLOCK]).await;
            let buffer = u.map(65_536, false).await;
            while u.call(64, &[place.b, buffer, 65_536]).await != EAGAIN {}
            u.call(25, &[place.b, F_SETFL, 0]).await;
        }
        Block::Splice => {
            (place.a, place.b) = u.pipe().await;
            place.c = u.pipe().await.1;
        }
        Block::Epoll => {
            (place.a, place.b) = u.pipe().await;
            place.c = u.fd(20, &[0]).await;
            let event = u.place_words(&[1, 7]).await;
            assert_eq!(u.call(21, &[place.c, 1, place.a, event]).await, 0);
        }
        Block::Eventfd => place.a = u.fd(19, &[0, 0]).await,
        Block::Timerfd => {
            place.a = u.fd(85, &[1, 0]).await;
            let time = u.place_words(&[0, 0, 0, 1 + u.random(60_000)]).await;
            assert_eq!(u.call(86, &[place.a, 0, time, 0]).await, 0);
        }
        Block::Signalfd => {
            u.set_mask(BIT_USR2).await;
            let mask = u.place_words(&[BIT_USR2]).await;
            place.a = u.fd(74, &[u64::MAX, mask, 8, 0]).await;
        }
        Block::TimedWait => u.set_mask(BIT_USR2).await,
        Block::Suspend => {
            u.set_mask(BIT_USR2 | 1 << (SIGUSR1 - 1)).await;
            u.handle(SIGUSR2 as i32, 0, move |u, _| async move { u.store(page + FLAG, 1).await }).await;
        }
        Block::Flock | Block::RecordLock => set_up_lock(u, &mut place).await,
        Block::OpenFifo => {
            let path = u.place_str(&format!("/fifo{pid}")).await;
            assert_eq!(u.call(33, &[AT_FDCWD, path, 0o10_644, 0]).await, 0);
        }
        Block::Wait => {
            (place.a, place.b) = u.pipe().await;
            // The child lives as long as the pipe is open for writing.
            let child = program(move |u| async move {
                u.close(place.b).await;
                let buffer = u.scratch(1);
                while u.call(63, &[place.a, buffer, 1]).await == EINTR {}
                7
            });
            place.c = u.fork(child).await as u64;
        }
        Block::Futex | Block::Sleep => {}
    }
    place
}

/// A child holds the lock until the pipe `a` is closed.
async fn set_up_lock(u: U, place: &mut Place) {
    const O_RDWR_CREAT: u64 = 0o102;
    let path = format!("/lock{}", place.pid);
    let (ready, told) = u.pipe().await;
    (place.a, place.b) = u.pipe().await;
    let Place { a, b, block, .. } = *place;
    let other = path.clone();
    let holder = program(move |u| async move {
        u.close(b).await;
        let fd = u.open_file(&other, O_RDWR_CREAT).await as u64;
        let locked = match block {
            Block::Flock => u.call(32, &[fd, 2]).await,
            _ => u.call(25, &[fd, 6, flock_words(u, 1).await]).await,
        };
        assert_eq!(locked, 0);
        let buffer = u.scratch(16);
        u.write_all(told, buffer, 1).await;
        while u.call(63, &[a, buffer, 1]).await == EINTR {}
        0
    });
    assert!(u.fork(holder).await > 0);
    let buffer = u.scratch(16);
    while u.call(63, &[ready, buffer, 1]).await == EINTR {}
    u.close(a).await;
    place.c = u.open_file(&path, O_RDWR_CREAT).await as u64;
}

/// The call itself.
async fn block(u: U, place: &Place) -> Sys {
    let Place { page, a, c, .. } = *place;
    let buffer = u.scratch(256);
    match place.block {
        Block::ReadPipe => u.call(63, &[a, buffer, 1]).await,
        Block::WritePipe => u.call(64, &[place.b, buffer, 1]).await,
        Block::Futex => u.call(98, &[page + WORD, 128, 0, 0]).await,
        Block::Sleep => {
            let time = u.place_words(&[0, 1 + u.random(50_000)]).await;
            u.call(101, &[time, 0]).await
        }
        Block::Poll => {
            let fds = u.place_words(&[1 << 32 | a]).await;
            u.call(73, &[fds, 1, 0, 0, 8]).await
        }
        Block::Epoll => u.call(22, &[c, buffer, 4, u64::MAX, 0, 8]).await,
        Block::Wait => u.call(260, &[c, buffer, 0, 0]).await,
        Block::Suspend => {
            let mask = u.place_words(&[0]).await;
            u.call(133, &[mask, 8]).await
        }
        Block::TimedWait => {
            let set = u.place_words(&[BIT_USR2]).await;
            u.call(137, &[set, 0, 0, 8]).await
        }
        Block::Flock => u.call(32, &[c, 2]).await,
        Block::RecordLock => u.call(25, &[c, 7, flock_words(u, 1).await]).await,
        Block::Eventfd | Block::Timerfd => u.call(63, &[a, buffer, 8]).await,
        Block::Signalfd => u.call(63, &[a, buffer, 128]).await,
        Block::OpenFifo => u.open_file(&format!("/fifo{}", place.pid), 0).await,
        Block::Splice => u.call(76, &[a, 0, c, 0, 1, 0]).await,
    }
}

/// What lets the call end.
async fn release(u: U, place: &Place) {
    let Place { page, a, b, .. } = *place;
    match place.block {
        Block::ReadPipe | Block::Poll | Block::Epoll | Block::Splice => {
            let buffer = u.scratch(1);
            u.write_all(b, buffer, 1).await;
        }
        Block::WritePipe => {
            let buffer = u.map(8192, false).await;
            while u.call(63, &[a, buffer, 8192]).await == EINTR {}
        }
        Block::Futex => {
            u.store(page + WORD, 1).await;
            u.futex_wake(page + WORD, 1, STYLE).await;
        }
        Block::Wait | Block::Flock | Block::RecordLock => u.close(b).await,
        Block::Suspend | Block::TimedWait | Block::Signalfd => {
            assert_eq!(u.call(131, &[place.pid, place.tid, SIGUSR2]).await, 0);
        }
        Block::Eventfd => {
            let one = u.place_words(&[1]).await;
            assert_eq!(u.call(64, &[a, one, 8]).await, 8);
        }
        Block::OpenFifo => while u.open_file(&format!("/fifo{}", place.pid), 1).await == EINTR {},
        Block::Sleep | Block::Timerfd => {}
    }
}

/// Whether an answer is right; None: the call was interrupted, and is to be made again.
async fn judge(u: U, place: &Place, answer: Sys, restart: bool) -> Option<bool> {
    if answer == EINTR {
        if place.block == Block::Suspend {
            return (u.load(place.page + FLAG).await == 1).then_some(true);
        }
        assert!(!restart || NEVER_RESTARTED.contains(&place.block), "{:?} was not restarted", place.block);
        return None;
    }
    Some(match place.block {
        // A restarted wait may find the word changed.
        Block::Futex => answer == 0 || answer == EAGAIN,
        Block::Sleep | Block::Flock | Block::RecordLock => answer == 0,
        Block::Wait => answer as u64 == place.c,
        Block::TimedWait => answer as u64 == SIGUSR2,
        Block::Eventfd | Block::Timerfd => answer == 8,
        Block::Signalfd => answer == 128,
        Block::OpenFifo => answer >= 0,
        Block::Suspend => false,
        _ => answer == 1,
    })
}

/// One process: a thread that blocks, and one that releases it.
fn blocker(what: Block, restart: bool, most: u64) -> Program {
    program(move |u| async move {
        let place = set_up(u, what).await;
        let releaser = program(move |u| async move {
            // Signals for the process are for the other thread.
            u.set_mask(BIT_USR2 | if u.random(2) == 0 { 1 << (SIGUSR1 - 1) } else { 0 }).await;
            u.pause(most).await;
            release(u, &place).await;
            0
        });
        assert!(u.thread(place.page + TID, releaser).await > 0);
        loop {
            let answer = block(u, &place).await;
            match judge(u, &place, answer, restart).await {
                Some(right) => {
                    assert!(right, "{what:?} answered {}", errno(answer));
                    break;
                }
                None => u.pause(500).await,
            }
        }
        u.join(place.page + TID).await;
        // Holders and children are init's now.
        0
    })
}

pub fn signals(setup: &mut Setup) -> Program {
    let mut rng = setup.rng.split();
    let rounds = rng.range(1, 6);
    let restart = rng.one_in(2);
    program(move |u| async move {
        let flags = if restart { SA_RESTART } else { 0 };
        u.handle(SIGUSR1 as i32, flags, |u, _| async move { u.pause(500).await }).await;
        for _ in 0..rounds {
            let what = *rng.pick(&ALL);
            let most = *rng.pick(&[500, 10_000, 60_000]);
            let (signals, stops, kill) = (rng.below(12), rng.one_in(3), rng.one_in(3));
            let child = u.fork(blocker(what, restart, most)).await;
            assert!(child > 0);
            for _ in 0..signals {
                u.pause(most).await;
                u.call(129, &[child as u64, SIGUSR1]).await;
                if stops {
                    u.call(129, &[child as u64, SIGSTOP]).await;
                    u.pause(most).await;
                    u.call(129, &[child as u64, SIGCONT]).await;
                }
            }
            if kill {
                u.pause(most).await;
                u.call(129, &[child as u64, SIGKILL]).await;
            }
            let status = u.wait_for(child).await;
            assert!(status == 0 || kill && status == SIGKILL as u32, "{what:?} ended with status {status:#x}");
        }
        0
    })
}
