//! System V semaphores and messages: the count is right whatever happens.

use super::Setup;
use crate::user::{Program, U, errno, program};

const NR_KILL: u64 = 129;
const NR_SEMGET: u64 = 190;
const NR_SEMCTL: u64 = 191;
const NR_SEMTIMEDOP: u64 = 192;
const EINTR: i64 = -4;
const EAGAIN: i64 = -11;
const EINVAL: i64 = -22;
const EIDRM: i64 = -43;
const SIGKILL: u64 = 9;
const SIGUSR1: u64 = 10;
const IPC_RMID: u64 = 0;
const GETVAL: u64 = 12;
const GETNCNT: u64 = 14;
const GETZCNT: u64 = 15;
const SETVAL: u64 = 16;
const UNDO: u16 = 0x1000;
const NOWAIT: u16 = 0o4000;

type Op = (u16, i16, u16);

impl U {
    /// semtimedop(2); 0 ns: without a limit.
    async fn semop(self, id: u64, ops: &[Op], limit: u64) -> i64 {
        let bytes: Vec<u8> =
            ops.iter().flat_map(|op| [op.0.to_le_bytes(), op.1.to_le_bytes(), op.2.to_le_bytes()].concat()).collect();
        let at = self.place(&bytes).await;
        let time = if limit == 0 { 0 } else { self.place_words(&[0, limit]).await };
        self.call(NR_SEMTIMEDOP, &[id, at, ops.len() as u64, time]).await
    }

    async fn semctl(self, id: u64, index: u64, command: u64, arg: u64) -> i64 {
        self.call(NR_SEMCTL, &[id, index, command, arg]).await
    }
}

/// What may happen to the workers.
#[derive(Clone, Copy)]
struct Plan {
    semaphores: u64,
    units: u64,
    rounds: u64,
    /// ns after which a wait gives up; 0: never.
    limit: u64,
    /// Some are killed, so nobody gives back what is not undone.
    kills: bool,
}

/// Takes from some semaphores, holds it, and gives it back. Answers whether the set is still there.
async fn round(u: U, id: u64, page: u64, plan: Plan) -> bool {
    let first = u.random(plan.semaphores) as u16;
    let second = u.random(plan.semaphores) as u16;
    let amount = 1 + u.random(plan.units) as i16;
    let undo = if plan.kills || u.random(2) == 0 { UNDO } else { 0 };
    let nowait = if u.random(8) == 0 { NOWAIT } else { 0 };
    let mut take = vec![(first, -amount, undo | nowait)];
    if second != first {
        take.push((second, -1, undo | nowait));
    }
    let limit = if u.random(2) == 0 { plan.limit } else { 0 };
    loop {
        match u.semop(id, &take, limit).await {
            0 => break,
            EINTR => {}
            EAGAIN => {
                assert!(limit != 0 || nowait != 0, "EAGAIN without a reason");
                return true;
            }
            EIDRM | EINVAL => return false,
            other => panic!("take: {}", errno(other)),
        }
    }
    for op in &take {
        let held = u.add(page + 4 * u64::from(op.0), u32::from(op.1.unsigned_abs())).await;
        let all = held + u32::from(op.1.unsigned_abs());
        assert!(plan.kills || u64::from(all) <= plan.units, "{all} units of semaphore {} are held", op.0);
    }
    if u.random(2) == 0 {
        u.pause(5_000).await;
    }
    for op in &take {
        u.update(page + 4 * u64::from(op.0), |held| held.wrapping_sub(u32::from(op.1.unsigned_abs()))).await;
    }
    // At the end of one who keeps what it has, that is undone.
    if undo != 0 && u.random(16) == 0 {
        u.call(94, &[0]).await;
    }
    let give: Vec<Op> = take.iter().map(|op| (op.0, -op.1, undo)).collect();
    match u.semop(id, &give, 0).await {
        0 => true,
        EIDRM | EINVAL => false,
        other => panic!("give back: {}", errno(other)),
    }
}

/// Processes take units and give them back, among timeouts, signals and SIGKILL. In the end all units are there; or the set
/// is removed at some moment, and nobody waits any more.
pub fn semaphores(setup: &mut Setup) -> Program {
    let plan = Plan {
        semaphores: setup.rng.range(1, 4),
        units: setup.rng.range(1, 4),
        rounds: setup.rng.range(2, 25),
        limit: *setup.rng.pick(&[0, 500, 5_000, 50_000]),
        kills: setup.rng.one_in(3),
    };
    let workers = setup.rng.range(2, 7);
    let signals = *setup.rng.pick(&[0, 10, 60]);
    let removed = setup.rng.one_in(4);
    program(move |u| async move {
        let page = u.map(4096, true).await;
        u.handle(SIGUSR1 as i32, 0, |u, _| async move { u.pause(500).await }).await;
        // One more, which the workers count themselves in and out of.
        let id = u.call(NR_SEMGET, &[0, plan.semaphores + 1, 0o600]).await as u64;
        for index in 0..plan.semaphores {
            assert_eq!(u.semctl(id, index, SETVAL, plan.units).await, 0);
        }
        let last = plan.semaphores as u16;
        assert_eq!(u.semctl(id, last.into(), SETVAL, workers).await, 0);
        let mut pids = Vec::new();
        for _ in 0..workers {
            let body = program(move |u| async move {
                // Given back by its end, however it ends.
                let done = u.semop(id, &[(last, -1, UNDO)], 0).await;
                let mut valid = done == 0 && u.semop(id, &[(last, 1, 0)], 0).await == 0;
                for _ in 0..plan.rounds {
                    valid = valid && round(u, id, page, plan).await;
                }
                i32::from(!valid && !removed)
            });
            pids.push(u.fork(body).await);
        }
        for _ in 0..signals {
            u.pause(30_000).await;
            let pid = pids[u.random(workers) as usize];
            u.call(NR_KILL, &[pid as u64, SIGUSR1]).await;
        }
        if plan.kills {
            for pid in pids.iter().step_by(2) {
                u.pause(30_000).await;
                u.call(NR_KILL, &[*pid as u64, SIGKILL]).await;
            }
        }
        if removed {
            u.pause(100_000).await;
            assert_eq!(u.semctl(id, 0, IPC_RMID, 0).await, 0);
        }
        for pid in pids {
            let status = u.wait_for(pid).await;
            assert!(status == 0 || plan.kills && status == SIGKILL as u32, "a worker ended with {status:#x}");
        }
        if removed {
            assert_eq!(u.semctl(id, 0, GETVAL, 0).await, EINVAL);
            return 0;
        }
        for index in 0..plan.semaphores {
            let value = u.semctl(id, index, GETVAL, 0).await;
            assert_eq!(value as u64, plan.units, "units of semaphore {index}");
            let waiting = (u.semctl(id, index, GETNCNT, 0).await, u.semctl(id, index, GETZCNT, 0).await);
            assert_eq!(waiting, (0, 0), "waiters");
        }
        assert_eq!(u.semctl(id, 0, IPC_RMID, 0).await, 0);
        0
    })
}

const NR_MSGGET: u64 = 186;
const NR_MSGCTL: u64 = 187;
const NR_MSGRCV: u64 = 188;
const NR_MSGSND: u64 = 189;
const IPC_SET: u64 = 1;
const IPC_STAT: u64 = 2;
const MSG_EXCEPT: u64 = 0o20000;
/// Of `struct msqid64_ds`.
const MSG_BYTES: u64 = 88;
/// The type of the message that ends a receiver.
const STOP: u64 = 1 << 40;

/// How receivers choose.
#[derive(Clone, Copy, PartialEq)]
enum Choice {
    /// Each the messages of one sender, which come in order.
    One,
    Any,
    Lowest,
    Except,
}

impl U {
    async fn msgsnd(self, id: u64, kind: u64, words: &[u64]) -> i64 {
        let at = self.place_words(&[&[kind], words].concat()).await;
        loop {
            match self.call(NR_MSGSND, &[id, at, 8 * words.len() as u64, 0]).await {
                EINTR => {}
                other => return other,
            }
        }
    }
}

/// Senders and receivers of a message queue that is small: each message comes once, and those of a sender in their order, as
/// long as the queue is there.
pub fn messages(setup: &mut Setup) -> Program {
    let senders = setup.rng.range(1, 5);
    let count = setup.rng.range(2, 25);
    let choice = *setup.rng.pick(&[Choice::One, Choice::Any, Choice::Lowest, Choice::Except]);
    let receivers = if choice == Choice::One { senders } else { setup.rng.range(1, 5) };
    let room = *setup.rng.pick(&[24, 64, 200, 16384]);
    let signals = *setup.rng.pick(&[0, 10, 60]);
    let removed = setup.rng.one_in(4);
    let send = move |id: u64, sender: u64| {
        program(move |u| async move {
            for number in 0..count {
                // Longer ones wait longer.
                let mut words = vec![number; 1 + u.random(3) as usize];
                words[0] = sender << 32 | number;
                match u.msgsnd(id, sender + 1, &words).await {
                    0 => {}
                    EIDRM | EINVAL if removed => return 0,
                    other => panic!("send: {}", errno(other)),
                }
                u.pause(3_000).await;
            }
            0
        })
    };
    let receive = move |id: u64, seen: u64, receiver: u64| {
        program(move |u| async move {
            let (kind, flags) = match choice {
                Choice::One => (receiver + 1, 0),
                Choice::Any => (0, 0),
                Choice::Lowest => (STOP.wrapping_neg(), 0),
                Choice::Except => (STOP + 1, MSG_EXCEPT),
            };
            let mut last = vec![None; senders as usize];
            let mut left = count;
            while choice != Choice::One || left > 0 {
                let buffer = u.scratch(64);
                match u.call(NR_MSGRCV, &[id, buffer, 56, kind, flags]).await {
                    EINTR => continue,
                    EIDRM | EINVAL if removed => return 0,
                    len if len > 0 => {}
                    other => panic!("receive: {}", errno(other)),
                }
                let bytes = u.read_bytes(buffer, 16).await;
                let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
                if word(0) == STOP {
                    break;
                }
                let (sender, number) = (word(8) >> 32, word(8) & 0xffff_ffff);
                assert_eq!(word(0), sender + 1, "the type of a message");
                assert!(choice != Choice::One || sender == receiver);
                let before = last[sender as usize].replace(number);
                assert!(before < Some(number), "message {number} of sender {sender} after {before:?}");
                let doubled = u.add(seen + 4 * (sender * count + number), 1).await;
                assert_eq!(doubled, 0, "message {number} of sender {sender} came twice");
                left = left.saturating_sub(1);
                u.pause(3_000).await;
            }
            0
        })
    };
    program(move |u| async move {
        let seen = u.map(4096, true).await;
        u.handle(SIGUSR1 as i32, 0, |u, _| async move { u.pause(500).await }).await;
        let id = u.call(NR_MSGGET, &[0, 0o600]).await as u64;
        let status = u.scratch(120);
        assert_eq!(u.call(NR_MSGCTL, &[id, IPC_STAT, status]).await, 0);
        u.store(status + MSG_BYTES, room).await;
        assert_eq!(u.call(NR_MSGCTL, &[id, IPC_SET, status]).await, 0);
        let (mut writers, mut readers) = (Vec::new(), Vec::new());
        for index in 0..senders.max(receivers) {
            if index < senders {
                writers.push(u.fork(send(id, index)).await);
            }
            if index < receivers {
                readers.push(u.fork(receive(id, seen, index)).await);
            }
        }
        let all = [writers.as_slice(), readers.as_slice()].concat();
        for _ in 0..signals {
            u.pause(30_000).await;
            u.call(NR_KILL, &[all[u.random(all.len() as u64) as usize] as u64, SIGUSR1]).await;
        }
        if removed {
            u.pause(60_000).await;
            assert_eq!(u.call(NR_MSGCTL, &[id, IPC_RMID, 0]).await, 0);
        }
        for pid in writers {
            assert_eq!(u.wait_for(pid).await, 0);
        }
        if !removed && choice != Choice::One {
            for _ in 0..receivers {
                assert_eq!(u.msgsnd(id, STOP, &[0]).await, 0);
            }
        }
        for pid in readers {
            assert_eq!(u.wait_for(pid).await, 0);
        }
        if removed {
            return 0;
        }
        for index in 0..senders * count {
            assert_eq!(u.load(seen + 4 * index).await, 1, "message {} of {} is lost", index % count, index / count);
        }
        assert_eq!(u.call(NR_MSGCTL, &[id, IPC_RMID, 0]).await, 0);
        0
    })
}
