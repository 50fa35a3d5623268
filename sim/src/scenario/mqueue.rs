//! POSIX message queues: each message comes once and in order.

use super::Setup;
use crate::user::{Program, U, errno, program};

const NR_CLOCK_GETTIME: u64 = 113;
const NR_KILL: u64 = 129;
const NR_MQ_OPEN: u64 = 180;
const NR_MQ_UNLINK: u64 = 181;
const NR_MQ_TIMEDSEND: u64 = 182;
const NR_MQ_TIMEDRECEIVE: u64 = 183;
const EINTR: i64 = -4;
const ETIMEDOUT: i64 = -110;
const SIGUSR1: u64 = 10;
const SA_RESTART: u64 = 0x1000_0000;
const O_RDWR_CREAT: u64 = 0o102;
/// Priorities of messages are above that of those that end a receiver.
const STOP: u64 = 0;

impl U {
    /// Now and up to so many ns more by CLOCK_REALTIME, or no limit.
    async fn wall_deadline(self, most: u64) -> u64 {
        if most == 0 || self.random(2) == 0 {
            return 0;
        }
        let at = self.scratch(16);
        self.call(NR_CLOCK_GETTIME, &[0, at]).await;
        let bytes = self.read_bytes(at, 16).await;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let nanos = word(8) + self.random(most);
        self.place_words(&[word(0) + nanos / 1_000_000_000, nanos % 1_000_000_000]).await
    }

    async fn mq_send(self, queue: u64, value: u64, priority: u64, most: u64) {
        let at = self.place_words(&[value]).await;
        loop {
            let limit = self.wall_deadline(most).await;
            match self.call(NR_MQ_TIMEDSEND, &[queue, at, 8, priority, limit]).await {
                0 => return,
                EINTR => {}
                ETIMEDOUT if limit != 0 => {}
                other => panic!("mq_timedsend: {}", errno(other)),
            }
        }
    }
}

/// Senders and receivers of a small queue, with deadlines and signals on both sides.
pub fn mqueue(setup: &mut Setup) -> Program {
    let (senders, receivers) = (setup.rng.range(1, 5), setup.rng.range(1, 5));
    let count = setup.rng.range(2, 25);
    let room = setup.rng.range(1, 5);
    let priorities = setup.rng.range(1, 4);
    let most = *setup.rng.pick(&[0, 500, 5_000, 50_000]);
    let signals = *setup.rng.pick(&[0, 10, 60]);
    let restart = if setup.rng.one_in(2) { SA_RESTART } else { 0 };
    let send = move |queue: u64, sender: u64| {
        program(move |u| async move {
            for number in 0..count {
                u.mq_send(queue, sender << 32 | number, 1 + u.random(priorities), most).await;
                u.pause(3_000).await;
            }
            0
        })
    };
    let receive = move |queue: u64, seen: u64| {
        program(move |u| async move {
            let mut last = vec![None; (senders * (priorities + 1)) as usize];
            loop {
                let (buffer, priority) = (u.scratch(8), u.scratch(4));
                let limit = u.wall_deadline(most).await;
                match u.call(NR_MQ_TIMEDRECEIVE, &[queue, buffer, 8, priority, limit]).await {
                    8 => {}
                    EINTR => continue,
                    ETIMEDOUT if limit != 0 => continue,
                    other => panic!("mq_timedreceive: {}", errno(other)),
                }
                let value = u64::from_le_bytes(u.read_bytes(buffer, 8).await.try_into().expect("eight bytes"));
                let priority = u64::from(u.load(priority).await);
                if priority == STOP {
                    return 0;
                }
                let (sender, number) = (value >> 32, value & 0xffff_ffff);
                let before = last[(sender * (priorities + 1) + priority) as usize].replace(number);
                assert!(before < Some(number), "message {number} of sender {sender} after {before:?}");
                let doubled = u.add(seen + 4 * (sender * count + number), 1).await;
                assert_eq!(doubled, 0, "message {number} of sender {sender} came twice");
                u.pause(3_000).await;
            }
        })
    };
    program(move |u| async move {
        let seen = u.map(4096, true).await;
        u.handle(SIGUSR1 as i32, restart, |u, _| async move { u.pause(500).await }).await;
        let name = u.place_str("queue").await;
        let attributes = u.place_words(&[0, room, 8, 0, 0, 0, 0, 0]).await;
        let queue = u.call(NR_MQ_OPEN, &[name, O_RDWR_CREAT, 0o600, attributes]).await;
        assert!(queue >= 0, "mq_open: {}", errno(queue));
        let queue = queue as u64;
        assert_eq!(u.call(NR_MQ_UNLINK, &[name]).await, 0);
        let mut writers = Vec::new();
        let mut readers = Vec::new();
        for index in 0..senders.max(receivers) {
            if index < senders {
                writers.push(u.fork(send(queue, index)).await);
            }
            if index < receivers {
                readers.push(u.fork(receive(queue, seen)).await);
            }
        }
        let all = [writers.as_slice(), readers.as_slice()].concat();
        for _ in 0..signals {
            u.pause(30_000).await;
            u.call(NR_KILL, &[all[u.random(all.len() as u64) as usize] as u64, SIGUSR1]).await;
        }
        for pid in writers {
            assert_eq!(u.wait_for(pid).await, 0);
        }
        for _ in 0..receivers {
            u.mq_send(queue, 0, STOP, 0).await;
        }
        for pid in readers {
            assert_eq!(u.wait_for(pid).await, 0);
        }
        for index in 0..senders * count {
            assert_eq!(u.load(seen + 4 * index).await, 1, "message {} of {} is lost", index % count, index / count);
        }
        0
    })
}
