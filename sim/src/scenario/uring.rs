//! io_uring: requests that wait are cancelled, their rings closed, their processes killed, at any moment. Each completes
//! exactly once, and lets go of what it holds.

use std::collections::BTreeSet;

use super::Setup;
use crate::user::{Program, U, errno, program};

const NR_CLOSE: u64 = 57;
const NR_WRITE: u64 = 64;
const NR_KILL: u64 = 129;
const NR_MMAP: u64 = 222;
const NR_SETUP: u64 = 425;
const NR_ENTER: u64 = 426;
const NR_REGISTER: u64 = 427;
const SYNC_CANCEL: u64 = 24;
/// Flags of cancelling.
const ALL: u64 = 1;
const ANY: u64 = 4;
const EINTR: i64 = -4;
const ENOENT: i32 = -2;
const EALREADY: i32 = -114;
const ECANCELED: i32 = -125;
const ETIME: i64 = -62;
const EPIPE: i64 = -32;
const SIGKILL: u64 = 9;
const SIGPIPE: i32 = 13;
const SIGUSR1: u64 = 10;

const GETEVENTS: u64 = 1;
const EXT_ARG: u64 = 8;
const NOP: u8 = 0;
const POLL_ADD: u8 = 6;
const TIMEOUT: u8 = 11;
const ASYNC_CANCEL: u8 = 14;
const LINK_TIMEOUT: u8 = 15;
const READ: u8 = 22;
const WRITE: u8 = 23;
const IO_DRAIN: u8 = 2;
const IO_LINK: u8 = 4;
const ASYNC: u8 = 16;

const ENTRIES: u64 = 16;

/// A ring in the program's memory.
#[derive(Clone, Copy)]
struct Ring {
    fd: u64,
    rings: u64,
    sqes: u64,
    sq_array: u64,
}

/// Members of an entry that are not 0.
#[derive(Clone, Copy, Default)]
struct Entry {
    opcode: u8,
    flags: u8,
    fd: u64,
    off: u64,
    addr: u64,
    len: u32,
    op_flags: u32,
    name: u64,
}

impl U {
    async fn ring(self, flags: u32) -> Ring {
        let mut params = vec![0u8; 120];
        params[8..12].copy_from_slice(&flags.to_le_bytes());
        let at = self.place(&params).await;
        let fd = self.call(NR_SETUP, &[ENTRIES, at]).await;
        assert!(fd >= 0, "io_uring_setup: {}", errno(fd));
        let sq_array = u64::from(self.load(at + 40 + 24).await);
        let mut places = [0; 2];
        for (place, offset) in places.iter_mut().zip([0, 0x1000_0000]) {
            let addr = self.call(NR_MMAP, &[0, 4096, 3, 1, fd as u64, offset]).await;
            assert!(addr > 0, "mmap of a ring: {}", errno(addr));
            *place = addr as u64;
        }
        let [rings, sqes] = places;
        Ring { fd: fd as u64, rings, sqes, sq_array }
    }
}

impl Ring {
    async fn push(self, u: U, entry: Entry) {
        let tail = u.load(self.rings + 64).await;
        let slot = u64::from(tail) % ENTRIES;
        let mut bytes = [0u8; 64];
        bytes[0] = entry.opcode;
        bytes[1] = entry.flags;
        bytes[4..8].copy_from_slice(&(entry.fd as u32).to_le_bytes());
        bytes[8..16].copy_from_slice(&entry.off.to_le_bytes());
        bytes[16..24].copy_from_slice(&entry.addr.to_le_bytes());
        bytes[24..28].copy_from_slice(&entry.len.to_le_bytes());
        bytes[28..32].copy_from_slice(&entry.op_flags.to_le_bytes());
        bytes[32..40].copy_from_slice(&entry.name.to_le_bytes());
        u.write_bytes(self.sqes + 64 * slot, &bytes).await;
        u.store(self.rings + self.sq_array + 4 * slot, slot as u32).await;
        u.store(self.rings + 64, tail.wrapping_add(1)).await;
    }

    /// Submits all of it, whatever interrupts; waits for `least` completions, or less if a signal or a timeout comes: it may
    /// be that nothing completes any more.
    async fn enter(self, u: U, mut submit: u64, least: u64) {
        let time = u.place_words(&[0, 50_000]).await;
        let arg = u.place_words(&[0, 0, time]).await;
        loop {
            match u.call(NR_ENTER, &[self.fd, submit, least, GETEVENTS | EXT_ARG, arg, 24]).await {
                EINTR | ETIME => return,
                n if n >= 0 && n as u64 == submit => return,
                n if n >= 0 => submit -= n as u64,
                other => panic!("io_uring_enter: {}", errno(other)),
            }
        }
    }

    /// Takes all completions: names and results.
    async fn take(self, u: U) -> Vec<(u64, i32)> {
        let mut all = Vec::new();
        let mut head = u.load(self.rings + 128).await;
        while head != u.load(self.rings + 192).await {
            let at = self.rings + 320 + 16 * (u64::from(head) % (2 * ENTRIES));
            all.push((u.load64(at).await, u.load(at + 8).await as i32));
            head = head.wrapping_add(1);
            u.store(self.rings + 128, head).await;
        }
        all
    }
}

/// What a program asks of its ring, and has not been told the end of.
struct Client {
    ring: Ring,
    reader: u64,
    writer: u64,
    buffer: u64,
    next: u64,
    waiting: BTreeSet<u64>,
}

impl Client {
    async fn new(u: U, flags: u32) -> Client {
        let (reader, writer) = u.pipe().await;
        let (ring, buffer) = (u.ring(flags).await, u.map(4096, false).await);
        Client { ring, reader, writer, buffer, next: 0, waiting: BTreeSet::new() }
    }

    fn name(&mut self) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next);
        self.next
    }

    async fn time(&self, u: U, most: u64) -> u64 {
        u.place_words(&[0, u.random(most)]).await
    }

    /// Something that waits, most likely.
    async fn wish(&mut self, u: U) -> Entry {
        let name = self.name();
        let entry = match u.random(6) {
            0 => Entry { opcode: NOP, ..Entry::default() },
            1 => Entry { opcode: POLL_ADD, fd: self.reader, op_flags: 1, ..Entry::default() },
            2 => Entry {
                opcode: TIMEOUT,
                addr: self.time(u, 60_000).await,
                len: 1,
                off: u.random(4),
                ..Entry::default()
            },
            3 => Entry { opcode: WRITE, fd: self.writer, addr: self.buffer, len: 1, off: u64::MAX, ..Entry::default() },
            _ => Entry { opcode: READ, fd: self.reader, addr: self.buffer, len: 2, off: u64::MAX, ..Entry::default() },
        };
        let flags = match u.random(12) {
            0 => ASYNC,
            1 => IO_DRAIN,
            _ => 0,
        };
        Entry { name, flags, ..entry }
    }

    /// Submits some entries, perhaps linked, perhaps with a limit.
    async fn submit(&mut self, u: U) {
        let count = 1 + u.random(4);
        let mut pushed = 0;
        for index in 0..count {
            let mut entry = self.wish(u).await;
            let limited = u.random(5) == 0;
            if limited || index + 1 < count && u.random(3) == 0 {
                entry.flags |= IO_LINK;
            }
            self.ring.push(u, entry).await;
            pushed += 1;
            if limited {
                let name = self.name();
                let addr = self.time(u, 30_000).await;
                self.ring.push(u, Entry { opcode: LINK_TIMEOUT, addr, len: 1, name, ..Entry::default() }).await;
                pushed += 1;
            }
        }
        self.ring.enter(u, pushed, u.random(2)).await;
    }

    async fn cancel(&mut self, u: U) {
        let name = self.name();
        let target = 1 + u.random(self.next);
        let op_flags = if u.random(4) == 0 { (ANY | ALL) as u32 } else { u.random(2) as u32 };
        self.ring.push(u, Entry { opcode: ASYNC_CANCEL, addr: target, op_flags, name, ..Entry::default() }).await;
        self.ring.enter(u, 1, 0).await;
    }

    async fn take(&mut self, u: U) {
        for (name, result) in self.ring.take(u).await {
            assert!(self.waiting.remove(&name), "{name} completes again, or was never asked for");
            assert!((-132..=4096).contains(&result), "{name} ends with {result}");
        }
    }

    /// Goes on for some rounds.
    async fn play(&mut self, u: U, rounds: u64) {
        for _ in 0..rounds {
            match u.random(6) {
                0..=2 => self.submit(u).await,
                3 => self.cancel(u).await,
                4 => {
                    u.call(NR_WRITE, &[self.writer, self.buffer, 1 + u.random(3)]).await;
                }
                _ => u.pause(20_000).await,
            }
            self.take(u).await;
        }
    }
}

/// A client that comes to an end in one of several ways.
pub fn cancel(setup: &mut Setup) -> Program {
    let rounds = setup.rng.range(3, 25);
    let signals = *setup.rng.pick(&[0, 10]);
    let flags = *setup.rng.pick(&[0, 0, 0x100, 0x1000 | 0x2000]);
    let victims = setup.rng.range(0, 4);
    program(move |u| async move {
        u.handle(SIGUSR1 as i32, 0, |u, _| async move { u.pause(2000).await }).await;
        u.set_action(SIGPIPE, 1, 0).await;
        let patient = u.fork(program(move |u| patient(u, rounds, flags))).await;
        for _ in 0..victims {
            victim(u, flags).await;
        }
        for _ in 0..signals {
            u.pause(30_000).await;
            u.call(NR_KILL, &[patient as u64, SIGUSR1]).await;
        }
        assert_eq!(u.wait_for(patient).await, 0);
        0
    })
}

/// Sees all of its requests end.
async fn patient(u: U, rounds: u64, flags: u32) -> i32 {
    let mut client = Client::new(u, flags).await;
    client.play(u, rounds).await;
    // Behind what drains an entry that cancels would wait, too; and that begins only when others have ended, so it may have
    // to be cancelled again.
    while !client.waiting.is_empty() {
        let any = u.place_words(&[0, (ANY | ALL) << 32, u64::MAX, u64::MAX, 0, 0, 0, 0]).await;
        let answer = u.call(NR_REGISTER, &[client.ring.fd, SYNC_CANCEL, any, 1]).await;
        assert!(answer >= 0 || answer == EINTR, "cancelling: {}", errno(answer));
        client.ring.enter(u, 0, 1).await;
        client.take(u).await;
    }
    0
}

/// Ends with requests under way: it closes its ring, exits, executes nothing, or is killed. The pipe that its requests hold is
/// free afterwards.
async fn victim(u: U, flags: u32) {
    let (reader, writer) = u.pipe().await;
    let (closes, exits) = (u.random(2) == 0, u.random(2) == 0);
    let rounds = u.random(12);
    let child = u
        .fork(program(move |u| async move {
            u.close(writer).await;
            let mut client = Client::new(u, flags).await;
            let entry =
                Entry { opcode: READ, fd: reader, addr: client.buffer, len: 1, off: u64::MAX, ..Entry::default() };
            client.ring.push(u, Entry { name: client.name(), ..entry }).await;
            client.ring.enter(u, 1, 0).await;
            client.play(u, rounds).await;
            if closes {
                u.call(NR_CLOSE, &[client.ring.fd]).await;
            }
            if exits {
                return 0;
            }
            loop {
                u.pause(10_000).await;
            }
        }))
        .await;
    u.close(reader).await;
    if !exits {
        u.pause(60_000).await;
        u.call(NR_KILL, &[child as u64, SIGKILL]).await;
    }
    let status = u.wait_for(child).await;
    assert!(status == 0 || status == SIGKILL as u32, "a victim ended with {status:#x}");
    let byte = u.place(b"x").await;
    assert_eq!(u.call(NR_WRITE, &[writer, byte, 1]).await, EPIPE, "somebody still reads");
    u.close(writer).await;
}

/// Two reads, one linked to the other; the first is cancelled as it gets its byte. The second has nothing to do with that: it
/// goes on if the first has read something.
pub fn link(setup: &mut Setup) -> Program {
    let rounds = setup.rng.range(5, 30);
    let flags = *setup.rng.pick(&[0, 0, 0x100]);
    program(move |u| async move {
        let (ring, buffer) = (u.ring(flags).await, u.map(4096, false).await);
        for _ in 0..rounds {
            let (first, second) = (u.pipe().await, u.pipe().await);
            let read = |fd: u64, flags: u8, name: u64| Entry {
                opcode: READ,
                flags,
                fd,
                addr: buffer,
                len: 1,
                off: u64::MAX,
                name,
                ..Entry::default()
            };
            ring.push(u, read(first.0, IO_LINK, 1)).await;
            ring.push(u, read(second.0, 0, 2)).await;
            ring.enter(u, 2, 0).await;
            let child = u
                .fork(program(move |u| async move {
                    u.work(u.random(3000)).await;
                    i32::from(u.call(NR_WRITE, &[first.1, buffer, 1]).await != 1)
                }))
                .await;
            u.work(u.random(3000)).await;
            ring.push(u, Entry { opcode: ASYNC_CANCEL, addr: 1, name: 3, ..Entry::default() }).await;
            ring.enter(u, 1, 0).await;
            assert_eq!(u.wait_for(child).await, 0);
            linked(u, ring, second.1, buffer).await;
            for fd in [first.0, first.1, second.0, second.1] {
                u.close(fd).await;
            }
        }
        0
    })
}

/// Collects what becomes of a round.
async fn linked(u: U, ring: Ring, writer: u64, buffer: u64) {
    let mut seen = [None; 4];
    while seen[1].is_none() || seen[3].is_none() {
        see(u, ring, &mut seen).await;
    }
    match seen {
        [_, Some(ECANCELED), _, Some(0 | EALREADY)] => {}
        [_, Some(1), None, Some(0 | ENOENT | EALREADY)] => {
            assert_eq!(u.call(NR_WRITE, &[writer, buffer, 1]).await, 1);
        }
        _ => panic!("the first, the second, and who cancels: {:?}", &seen[1..]),
    }
    let wanted = if seen[1] == Some(1) { 1 } else { ECANCELED };
    while seen[2].is_none() {
        see(u, ring, &mut seen).await;
    }
    assert_eq!(seen[2], Some(wanted), "the second after {:?}", seen[1]);
}

async fn see(u: U, ring: Ring, seen: &mut [Option<i32>; 4]) {
    ring.enter(u, 0, 1).await;
    for (name, result) in ring.take(u).await {
        assert_eq!(seen[name as usize].replace(result), None, "{name} completes again");
    }
}
