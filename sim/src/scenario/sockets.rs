//! Stream sockets: every connection is accepted once.

use super::Setup;
use crate::user::{Program, U, errno, program};

const NR_READ: u64 = 63;
const NR_KILL: u64 = 129;
const NR_SOCKET: u64 = 198;
const NR_BIND: u64 = 200;
const NR_LISTEN: u64 = 201;
const NR_ACCEPT: u64 = 202;
const NR_CONNECT: u64 = 203;
const NR_SETSOCKOPT: u64 = 208;
const SOL_SOCKET: u64 = 1;
const SO_REUSEADDR: u64 = 2;
const SOCK_STREAM: u64 = 1;
const EINTR: i64 = -4;
const SIGUSR1: u64 = 10;
/// What a connection says that ends who accepts it.
const STOP: u32 = u32::MAX;

/// Where the listener is: `struct sockaddr_un` with an abstract name, `struct sockaddr_in` on the loopback.
const UNIX: &[u8] = b"\x01\0\0name";
const TCP: &[u8] = b"\x02\0\x13\x88\x7f\0\0\x01\0\0\0\0\0\0\0\0";

impl U {
    /// A socket of the family of this address.
    async fn stream_socket(self, name: &[u8]) -> u64 {
        let fd = self.call(NR_SOCKET, &[name[0].into(), SOCK_STREAM, 0]).await;
        assert!(fd >= 0, "socket: {}", errno(fd));
        fd as u64
    }

    /// Calls until no signal interrupts.
    async fn insist(self, number: u64, args: &[u64]) -> i64 {
        loop {
            match self.call(number, args).await {
                EINTR => {}
                answer => return answer,
            }
        }
    }

    /// Connects to the listener of this name and says a number.
    async fn say_number(self, name: &[u8], number: u32) {
        let fd = self.stream_socket(name).await;
        let at = self.place(name).await;
        let answer = self.insist(NR_CONNECT, &[fd, at, name.len() as u64]).await;
        assert!(answer == 0, "connect: {}", errno(answer));
        let word = self.place(&number.to_le_bytes()).await;
        self.write_all(fd, word, 4).await;
        self.close(fd).await;
    }
}

pub fn unix(setup: &mut Setup) -> Program {
    connections(setup, UNIX)
}

pub fn tcp(setup: &mut Setup) -> Program {
    pollux_kernel::net::interface::set_loopback(true);
    connections(setup, TCP)
}

/// Several accept, and more connect than the backlog has room for; signals interrupt all of them.
fn connections(setup: &mut Setup, name: &'static [u8]) -> Program {
    let (acceptors, connectors) = (setup.rng.range(1, 5), setup.rng.range(1, 5));
    let each = setup.rng.range(1, 12);
    let backlog = setup.rng.range(0, 4);
    let signals = *setup.rng.pick(&[0, 10, 60]);
    let restart = if setup.rng.one_in(2) { 0x1000_0000 } else { 0 };
    program(move |u| async move {
        u.handle(SIGUSR1 as i32, restart, |u, _| async move { u.pause(2000).await }).await;
        let seen = u.map(connectors * each * 4, true).await;
        let listener = u.stream_socket(name).await;
        let one = u.place(&1u32.to_le_bytes()).await;
        assert_eq!(u.call(NR_SETSOCKOPT, &[listener, SOL_SOCKET, SO_REUSEADDR, one, 4]).await, 0, "setsockopt");
        let at = u.place(name).await;
        assert_eq!(u.call(NR_BIND, &[listener, at, name.len() as u64]).await, 0, "bind");
        assert_eq!(u.call(NR_LISTEN, &[listener, backlog]).await, 0, "listen");
        let mut accepting = Vec::new();
        for _ in 0..acceptors {
            accepting.push(u.fork(program(move |u| accept_until_told(u, listener, seen))).await);
        }
        let mut connecting = Vec::new();
        for connector in 0..connectors {
            let body = program(move |u| async move {
                for number in 0..each {
                    u.say_number(name, (connector * each + number) as u32).await;
                    u.pause(5000).await;
                }
                0
            });
            connecting.push(u.fork(body).await);
        }
        let all: Vec<i64> = accepting.iter().chain(&connecting).copied().collect();
        for _ in 0..signals {
            u.pause(20_000).await;
            // Nobody has been waited for, so none of the numbers has another owner.
            u.call(NR_KILL, &[all[u.random(all.len() as u64) as usize] as u64, SIGUSR1]).await;
        }
        for child in connecting {
            assert_eq!(u.wait_for(child).await, 0);
        }
        for _ in 0..acceptors {
            u.say_number(name, STOP).await;
        }
        for child in accepting {
            assert_eq!(u.wait_for(child).await, 0);
        }
        for number in 0..connectors * each {
            assert_eq!(u.load(seen + 4 * number).await, 1, "times that connection {number} was accepted");
        }
        0
    })
}

async fn accept_until_told(u: U, listener: u64, seen: u64) -> i32 {
    let word = u.scratch(4);
    loop {
        let fd = u.insist(NR_ACCEPT, &[listener, 0, 0]).await;
        assert!(fd >= 0, "accept: {}", errno(fd));
        assert_eq!(u.insist(NR_READ, &[fd as u64, word, 4]).await, 4, "bytes of a connection");
        let number = u.load(word).await;
        u.close(fd as u64).await;
        if number == STOP {
            return 0;
        }
        u.add(seen + 4 * u64::from(number), 1).await;
        u.pause(5000).await;
    }
}
