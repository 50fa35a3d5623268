//! inotify: what happens to a name is told once and in order, while watches, files and instances come and go. And packets in
//! pipes, whose writers want signals.

use std::collections::BTreeMap;

use super::Setup;
use crate::user::{Program, Sys, U, errno, program};

const NR_INIT: u64 = 26;
const NR_ADD_WATCH: u64 = 27;
const NR_RM_WATCH: u64 = 28;
const NR_FCNTL: u64 = 25;
const NR_MKDIRAT: u64 = 34;
const NR_UNLINKAT: u64 = 35;
const NR_RENAMEAT: u64 = 38;
const NR_OPENAT: u64 = 56;
const NR_CLOSE: u64 = 57;
const NR_PIPE2: u64 = 59;
const NR_READ: u64 = 63;
const NR_WRITE: u64 = 64;
const NR_GETPID: u64 = 172;
const AT_FDCWD: u64 = -100i64 as u64;
const O_CREAT_RDWR: u64 = 0o102;
/// In the ABI of the host, for which the simulated kernel is built.
const O_DIRECT: u64 = if cfg!(target_arch = "x86_64") { 0o40000 } else { 0o200000 };
const F_SETFL: u64 = 4;
const F_SETOWN: u64 = 8;
const O_ASYNC: u64 = 0o20000;
const SIGIO: i32 = 29;
const EINTR: Sys = -4;
const EINVAL: Sys = -22;
const ENOENT: Sys = -2;

const ALL_EVENTS: u64 = 0xfff;
const MOVED_FROM: u32 = 0x40;
const MOVED_TO: u32 = 0x80;
const CREATE: u32 = 0x100;
const DELETE: u32 = 0x200;
const IGNORED: u32 = 0x8000;
const ONE_SHOT: u64 = 1 << 31;
const NONBLOCK: u64 = 0o4000;

impl U {
    async fn at(self, number: u64, path: &str, rest: &[u64]) -> Sys {
        let path = self.place_str(path).await;
        self.call(number, &[&[AT_FDCWD, path], rest].concat()).await
    }

    async fn watch(self, fd: u64, path: &str, mask: u64) -> Sys {
        let path = self.place_str(path).await;
        self.call(NR_ADD_WATCH, &[fd, path, mask]).await
    }

    /// Events as (mask, cookie, name).
    async fn events(self, fd: u64) -> Vec<(u32, u32, String)> {
        let buffer = self.scratch(512);
        let length = loop {
            match self.call(NR_READ, &[fd, buffer, 512]).await {
                EINTR => {}
                length => break length,
            }
        };
        assert!(length > 0, "read of events: {}", errno(length));
        let bytes = self.read_bytes(buffer, length as usize).await;
        let (mut rest, mut events) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let name: Vec<u8> =
                rest[16..16 + word(12) as usize].iter().copied().take_while(|byte| *byte != 0).collect();
            events.push((word(4), word(8), String::from_utf8(name).unwrap()));
            rest = &rest[16 + word(12) as usize..];
        }
        events
    }
}

/// What the names of one worker's file go through, in this order.
const LIFE: [(u32, &str); 4] = [(CREATE, "new"), (MOVED_FROM, "new"), (MOVED_TO, "old"), (DELETE, "old")];

/// Workers make, rename and remove files in a watched directory; others watch those files and stop to do so.
pub fn events(setup: &mut Setup) -> Program {
    let (workers, files, churns) = (setup.rng.range(1, 4), setup.rng.range(1, 15), setup.rng.below(40));
    program(move |u| async move {
        let page = u.map(4096, false).await;
        assert_eq!(u.at(NR_MKDIRAT, "/watched", &[0o755]).await, 0);
        let fd = u.call(NR_INIT, &[0]).await as u64;
        let wanted = u64::from(CREATE | DELETE | MOVED_FROM | MOVED_TO);
        assert_eq!(u.watch(fd, "/watched", wanted).await, 1);
        for worker in 0..workers {
            let body = program(move |u| async move {
                for _ in 0..files {
                    let (new, old) = (format!("/watched/new{worker}"), format!("/watched/old{worker}"));
                    let file = u.at(NR_OPENAT, &new, &[O_CREAT_RDWR, 0o644]).await;
                    assert!(file >= 0, "open: {}", errno(file));
                    let to = u.place_str(&old).await;
                    assert_eq!(u.at(NR_RENAMEAT, &new, &[AT_FDCWD, to]).await, 0);
                    assert_eq!(u.at(NR_UNLINKAT, &old, &[0]).await, 0);
                    assert_eq!(u.call(NR_CLOSE, &[file as u64]).await, 0);
                    u.pause(5_000).await;
                }
                0
            });
            assert!(u.thread(page + 4 * worker, body).await > 0);
        }
        let churner = program(move |u| churn(u, workers, churns));
        assert!(u.thread(page + 4 * workers, churner).await > 0);
        let mut steps: BTreeMap<u64, (usize, u32)> = BTreeMap::new();
        let total = (files as usize) * LIFE.len();
        while (0..workers).any(|worker| steps.get(&worker).is_none_or(|(step, _)| *step < total)) {
            for (mask, cookie, name) in u.events(fd).await {
                let worker: u64 = name[3..].parse().unwrap();
                let (step, last) = steps.entry(worker).or_default();
                let expected = LIFE[*step % LIFE.len()];
                assert_eq!((mask, &name[..3]), expected, "event {step} of worker {worker}");
                assert!(mask != MOVED_TO || cookie == *last, "the cookies of a rename: {last} {cookie}");
                (*step, *last) = (*step + 1, cookie);
            }
        }
        for word in 0..=workers {
            u.join(page + 4 * word).await;
        }
        assert_eq!(u.call(NR_RM_WATCH, &[fd, 1]).await, 0);
        let last = u.events(fd).await;
        assert_eq!(last, [(IGNORED, 0, String::new())]);
        assert_eq!(u.call(NR_CLOSE, &[fd]).await, 0);
        assert_eq!(u.at(NR_UNLINKAT, "/watched", &[0x200]).await, 0);
        0
    })
}

/// Watches files that may vanish at any time, and gives up in all ways that there are.
async fn churn(u: U, workers: u64, rounds: u64) -> i32 {
    for _ in 0..rounds {
        let fd = u.call(NR_INIT, &[NONBLOCK]).await as u64;
        for _ in 0..1 + u.random(3) {
            let name = ["new", "old"][u.random(2) as usize];
            let path = format!("/watched/{name}{}", u.random(workers));
            let once = if u.random(2) == 0 { ONE_SHOT } else { 0 };
            let wd = u.watch(fd, &path, ALL_EVENTS | once).await;
            assert!(wd > 0 || wd == ENOENT, "inotify_add_watch: {}", errno(wd));
            if wd > 0 && u.random(2) == 0 {
                // The file may be gone by now, and the watch with it.
                let removed = u.call(NR_RM_WATCH, &[fd, wd as u64]).await;
                assert!(removed == 0 || removed == EINVAL, "inotify_rm_watch: {}", errno(removed));
            }
            u.pause(3_000).await;
        }
        assert_eq!(u.call(NR_CLOSE, &[fd]).await, 0);
    }
    0
}

/// Writers of packets and a reader, both of whom signals about the pipe disturb; each packet comes whole.
pub fn packets(setup: &mut Setup) -> Program {
    const LONGEST: u64 = 600;
    let (writers, count) = (setup.rng.range(1, 4), setup.rng.range(1, 40));
    let told = setup.rng.one_in(2);
    program(move |u| async move {
        u.handle(SIGIO, 0x1000_0000, |_, _| async move {}).await;
        let fds = u.scratch(8);
        assert_eq!(u.call(NR_PIPE2, &[fds, O_DIRECT]).await, 0);
        let (reader, writer) = (u64::from(u.load(fds).await), u64::from(u.load(fds + 4).await));
        let pid = u.call(NR_GETPID, &[]).await as u64;
        for (fd, flags) in [(reader, 0), (writer, O_DIRECT)].into_iter().filter(|_| told) {
            assert_eq!(u.call(NR_FCNTL, &[fd, F_SETOWN, pid]).await, 0);
            assert_eq!(u.call(NR_FCNTL, &[fd, F_SETFL, flags | O_ASYNC]).await, 0);
        }
        let page = u.map(4096, false).await;
        for number in 0..writers {
            let body = program(move |u| async move {
                let buffer = u.map(4096, false).await;
                for _ in 0..count {
                    let length = 1 + u.random(LONGEST);
                    u.write_bytes(buffer, &vec![number as u8 + 1; length as usize]).await;
                    assert_eq!(u.call(NR_WRITE, &[writer, buffer, length]).await, length as Sys);
                }
                0
            });
            assert!(u.thread(page + 4 * number, body).await > 0);
        }
        let buffer = u.map(4096, false).await;
        for _ in 0..writers * count {
            let room = 1 + u.random(LONGEST);
            let length = u.call(NR_READ, &[reader, buffer, room]).await;
            assert!(length > 0 && length as u64 <= room, "read: {}", errno(length));
            let bytes = u.read_bytes(buffer, length as usize).await;
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "two packets in one");
        }
        for number in 0..writers {
            u.join(page + 4 * number).await;
        }
        u.close(writer).await;
        assert_eq!(u.call(NR_READ, &[reader, buffer, 1]).await, 0, "something is left");
        u.close(reader).await;
        0
    })
}
