//! The sockets that have descriptors, by the numbers of their inodes: what /proc/net/unix and sock_diag(7) tell of.
//!
//! The locks of its shards are leaves, and no last reference to a socket goes under them.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::{Phase, UnixSocket, name};
use crate::net::socket::{Address, Type};
use crate::sync::SpinLock;

/// Into how many parts the table is split.
pub const SHARDS: usize = 16;
/// TCP_ESTABLISHED, TCP_CLOSE, TCP_LISTEN.
const ESTABLISHED: u8 = 1;
const CLOSED: u8 = 7;
pub const LISTEN: u8 = 10;
/// How many clients of a listener are told.
const MOST_CLIENTS: usize = 256;

static TABLE: [SpinLock<BTreeMap<u64, Weak<UnixSocket>>>; SHARDS] = [const { SpinLock::new(BTreeMap::new()) }; SHARDS];

/// What is told of a socket.
pub struct Row {
    pub inode: u64,
    pub kind: Type,
    /// TCP_*: established, closed, listening.
    pub state: u8,
    /// sun_path as it was given, with the NUL at the end of a path.
    pub name: Address,
    /// The inode of the peer; 0: it is gone.
    pub peer: Option<u64>,
    /// Bytes that are not read, not received by others; of a listener who waits, and how many may.
    pub receiving: usize,
    pub sending: usize,
    /// Directions that are shut: 1 to receive, 2 to send.
    pub shut: u8,
    pub uid: u32,
    /// Of a listener: the inodes of some that wait.
    pub clients: Vec<u32>,
}

fn shard(inode: u64) -> &'static SpinLock<BTreeMap<u64, Weak<UnixSocket>>> {
    &TABLE[inode as usize % SHARDS]
}

pub fn add(socket: &UnixSocket) {
    let inode = socket.common.inode.load(Ordering::Relaxed);
    shard(inode).lock().insert(inode, socket.this.clone());
}

pub fn remove(socket: &UnixSocket) {
    let inode = socket.common.inode.load(Ordering::Relaxed);
    if inode != 0 {
        shard(inode).lock().remove(&inode);
    }
}

/// Those of one shard that come after an inode, so many at most, with their inodes.
pub fn part(number: usize, after: u64, most: usize) -> Vec<Arc<UnixSocket>> {
    let mut part = Vec::new();
    let Some(shard) = TABLE.get(number) else { return part };
    let shard = shard.lock();
    for socket in shard.range(after + 1..).map(|(_, socket)| socket) {
        if part.len() >= most || part.try_reserve(1).is_err() {
            break;
        }
        part.extend(socket.upgrade());
    }
    part
}

pub fn find(inode: u64) -> Option<Arc<UnixSocket>> {
    shard(inode).lock().get(&inode)?.upgrade()
}

impl UnixSocket {
    pub fn row(&self) -> Row {
        let inode = |socket: &UnixSocket| socket.common.inode.load(Ordering::Relaxed);
        let sending = self.unreceived();
        let state = self.state.lock();
        let listening = state.phase == Phase::Listening;
        let mut clients: Vec<Arc<UnixSocket>> = Vec::new();
        clients.extend(state.waiting.iter().take(MOST_CLIENTS).cloned());
        let peer = state.peer.clone();
        let mut row = Row {
            inode: inode(self),
            kind: self.kind(),
            state: match state.phase {
                Phase::Idle => CLOSED,
                Phase::Listening => LISTEN,
                Phase::Connected => ESTABLISHED,
            },
            name: name::to_address(state.name.as_deref()).get(2..).map(Address::from_slice).unwrap_or_default(),
            peer: None,
            receiving: if listening { state.waiting.len() } else { state.inbox.available() },
            sending: if listening { state.backlog } else { sending },
            shut: u8::from(state.receive_shut) | u8::from(state.send_shut) << 1,
            uid: self.common.uid.load(Ordering::Relaxed),
            clients: Vec::new(),
        };
        drop(state);
        // Without the lock: each of these may be the last reference.
        row.peer = peer.map(|peer| {
            let there = peer.upgrade().filter(|peer| !peer.is_closed());
            there.map_or(0, |peer| inode(&peer))
        });
        let theirs = clients.iter().filter_map(|client| client.state.lock().peer.clone());
        row.clients = theirs.filter_map(|client| client.upgrade()).map(|client| inode(&client) as u32).collect();
        row
    }
}
