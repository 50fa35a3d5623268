//! Which socket has which port, and who listens to groups.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::{DIAG, NetlinkSocket, ROUTE};
use crate::drivers::random;
use crate::errno::{Errno, Result};
use crate::net::listeners::Listeners;
use crate::sync::SpinLock;

/// How many random ports are tried.
const TRIES: usize = 64;

/// By protocol and port.
static TABLE: SpinLock<BTreeMap<(u8, u32), Weak<NetlinkSocket>>> = SpinLock::new(BTreeMap::new());
/// By protocol and group.
static LISTENERS: Listeners<(u8, u32), NetlinkSocket> = Listeners::new();

/// What /proc/net/netlink tells of a socket.
pub struct Row {
    pub protocol: u8,
    pub port: u32,
    pub groups: u32,
    /// Bytes that are not read.
    pub receiving: usize,
    pub dumping: bool,
    pub drops: u32,
    pub inode: u64,
}

/// Gives the socket this port. EADDRINUSE: somebody has it; EINVAL: the socket has another.
pub fn claim(socket: &NetlinkSocket, port: u32) -> Result<()> {
    let mut table = TABLE.lock();
    let own = socket.port();
    if own != 0 {
        return if own == port { Ok(()) } else { Err(Errno::EINVAL) };
    }
    if table.contains_key(&(socket.protocol(), port)) {
        return Err(Errno::EADDRINUSE);
    }
    table.insert((socket.protocol(), port), socket.this.clone());
    socket.port.store(port, Ordering::Release);
    Ok(())
}

/// The number of the process if nobody has it, else some large number, as on Linux. EADDRINUSE: those that were tried are taken.
pub fn claim_any(socket: &NetlinkSocket, pid: u32) -> Result<()> {
    let mut port = pid.max(1);
    for _ in 0..TRIES {
        match claim(socket, port) {
            Err(Errno::EADDRINUSE) => port = random::u64() as u32 | 1 << 31,
            // Another thread was faster.
            Err(Errno::EINVAL) if socket.port() != 0 => return Ok(()),
            answer => return answer,
        }
    }
    Err(Errno::EADDRINUSE)
}

pub fn find(protocol: u8, port: u32) -> Option<Arc<NetlinkSocket>> {
    TABLE.lock().get(&(protocol, port))?.upgrade()
}

/// Changes what the socket listens to.
pub fn listen(socket: &NetlinkSocket, change: impl FnOnce(u64) -> u64) {
    let _table = TABLE.lock();
    let before = socket.groups.load(Ordering::Relaxed);
    let after = change(before);
    socket.groups.store(after, Ordering::Relaxed);
    for group in groups(before ^ after) {
        if after & 1 << (group - 1) == 0 {
            LISTENERS.remove((socket.protocol(), group), socket);
        } else {
            LISTENERS.add((socket.protocol(), group), &socket.this);
        }
    }
}

/// The groups that these bits stand for.
fn groups(bits: u64) -> impl Iterator<Item = u32> {
    (1..=u64::BITS).filter(move |group| bits & 1 << (group - 1) != 0)
}

/// Those who listen to a group. As on Linux one without a port hears nothing.
pub fn listeners(protocol: u8, group: u32) -> impl Iterator<Item = Arc<NetlinkSocket>> {
    LISTENERS.each((protocol, group)).filter(|socket| socket.port() != 0)
}

/// The socket is closed.
pub fn remove(socket: &NetlinkSocket) {
    let mut table = TABLE.lock();
    for group in groups(socket.groups.swap(0, Ordering::Relaxed)) {
        LISTENERS.remove((socket.protocol(), group), socket);
    }
    let place = (socket.protocol(), socket.port());
    if table.get(&place).is_some_and(|there| core::ptr::eq(there.as_ptr(), socket)) {
        table.remove(&place);
    }
}

/// The sockets that have ports, and the kernel's own.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for protocol in [ROUTE, DIAG] {
        rows.push(Row { protocol, port: 0, groups: 0, receiving: 0, dumping: false, drops: 0, inode: 0 });
        let mut sockets: Vec<Arc<NetlinkSocket>> = Vec::new();
        let table = TABLE.lock();
        if sockets.try_reserve_exact(table.len()).is_ok() {
            let own = table.range((protocol, 0)..=(protocol, u32::MAX));
            sockets.extend(own.filter_map(|(_, socket)| socket.upgrade()));
        }
        drop(table);
        if rows.try_reserve(sockets.len() + 1).is_err() {
            return rows;
        }
        rows.extend(sockets.iter().map(|socket| {
            let state = socket.state.lock();
            Row {
                protocol,
                port: socket.port(),
                groups: socket.groups.load(Ordering::Relaxed) as u32,
                receiving: state.charge,
                dumping: state.dumping || state.dump.is_some(),
                drops: state.drops,
                inode: socket.common.inode.load(Ordering::Relaxed),
            }
        }));
    }
    rows
}
