//! Descriptors in messages (SCM_RIGHTS): sockets that nobody can reach any more end, and so does what is in their messages.

use super::Setup;
use crate::user::{Program, U, errno, program};

const NR_READ: u64 = 63;
const NR_SOCKETPAIR: u64 = 199;
const NR_SENDMSG: u64 = 211;
const NR_RECVMSG: u64 = 212;
const AF_UNIX: u64 = 1;
const SOL_SOCKET: u32 = 1;
const SCM_RIGHTS: u32 = 1;
const MSG_DONTWAIT: u64 = 0x40;
const MSG_CTRUNC: u32 = 8;
const EAGAIN: i64 = -11;
/// Most descriptors of a message here.
const MOST: usize = 4;
const HEAD: u64 = 16;

impl U {
    async fn pair(self, kind: u64) -> [u64; 2] {
        let fds = self.scratch(8);
        let answer = self.call(NR_SOCKETPAIR, &[AF_UNIX, kind, 0, fds]).await;
        assert!(answer == 0, "socketpair: {}", errno(answer));
        [self.load(fds).await.into(), self.load(fds + 4).await.into()]
    }

    /// `struct msghdr` with one byte and room for so many bytes of control.
    async fn message(self, control: u64, len: u64) -> u64 {
        let byte = self.scratch(1);
        let vector = self.place_words(&[byte, 1]).await;
        self.place_words(&[0, 0, vector, 1, control, len, 0]).await
    }

    /// False if there is no room.
    async fn send_fds(self, to: u64, fds: &[u64]) -> bool {
        let len = HEAD + 4 * fds.len() as u64;
        let mut control = Vec::from(len.to_le_bytes());
        for word in [SOL_SOCKET, SCM_RIGHTS].into_iter().chain(fds.iter().map(|fd| *fd as u32)) {
            control.extend(word.to_le_bytes());
        }
        let control = self.place(&control).await;
        let header = self.message(control, len).await;
        match self.call(NR_SENDMSG, &[to, header, MSG_DONTWAIT]).await {
            1 => true,
            EAGAIN => false,
            other => panic!("sendmsg: {}", errno(other)),
        }
    }

    /// The descriptors of the next message; None if there is no message.
    async fn receive_fds(self, from: u64) -> Option<Vec<u64>> {
        let room = HEAD + 4 * MOST as u64;
        let control = self.scratch(room);
        let header = self.message(control, room).await;
        match self.call(NR_RECVMSG, &[from, header, MSG_DONTWAIT]).await {
            EAGAIN | 0 => return None,
            n => assert!(n == 1, "recvmsg: {}", errno(n)),
        }
        assert_eq!(self.load(header + 48).await & MSG_CTRUNC, 0, "descriptors that do not fit");
        if self.load64(header + 40).await == 0 {
            return Some(Vec::new());
        }
        let mut fds = Vec::new();
        for index in 0..(self.load64(control).await - HEAD) / 4 {
            fds.push(self.load(control + HEAD + 4 * index).await.into());
        }
        Some(fds)
    }

    async fn close_in_any_order(self, mut fds: Vec<u64>) {
        while !fds.is_empty() {
            let fd = fds.swap_remove(self.random(fds.len() as u64) as usize);
            self.close(fd).await;
            self.pause(3000).await;
        }
    }
}

/// Processes put sockets into messages to themselves and to each other, with the end of a pipe, and let go of all: the pipe is at its
/// end then.
pub fn rights(setup: &mut Setup) -> Program {
    let (processes, rounds) = (setup.rng.range(1, 4), setup.rng.range(1, 8));
    let kinds = [0; 2].map(|_| *setup.rng.pick(&[1, 2, 5]));
    program(move |u| async move {
        let shared = u.pair(kinds[0]).await;
        let mut children = Vec::new();
        for _ in 0..processes {
            children.push(u.fork(program(move |u| circles(u, shared, kinds[1], rounds))).await);
        }
        u.close(shared[0]).await;
        u.close(shared[1]).await;
        for child in children {
            assert_eq!(u.wait_for(child).await, 0);
        }
        0
    })
}

async fn circles(u: U, shared: [u64; 2], kind: u64, rounds: u64) -> i32 {
    let mut ends = Vec::new();
    for _ in 0..rounds {
        let (reader, writer) = u.pipe().await;
        let first = u.pair(kind).await;
        let second = u.pair(kind).await;
        let all = [first, second].concat();
        for _ in 0..1 + u.random(5) {
            let mut fds = vec![all[u.random(4) as usize]];
            if u.random(2) == 0 {
                fds.push(all[u.random(4) as usize]);
            }
            if u.random(2) == 0 {
                fds.push(writer);
            }
            let to = if u.random(4) == 0 { shared[u.random(2) as usize] } else { all[u.random(4) as usize] };
            u.send_fds(to, &fds).await;
            if u.random(3) == 0 {
                let from = if u.random(2) == 0 { shared[u.random(2) as usize] } else { all[u.random(4) as usize] };
                let got = u.receive_fds(from).await.unwrap_or_default();
                u.close_in_any_order(got).await;
            }
        }
        let mut mine = all;
        mine.push(writer);
        u.close_in_any_order(mine).await;
        ends.push(reader);
    }
    u.close(shared[0]).await;
    u.close(shared[1]).await;
    let byte = u.scratch(1);
    for reader in ends {
        assert_eq!(
            u.call(NR_READ, &[reader, byte, 1]).await,
            0,
            "the end of a pipe whose other one is in messages that nobody can get"
        );
        u.close(reader).await;
    }
    0
}
