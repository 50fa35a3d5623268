//! Which socket has which port, and who listens to groups.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::{DIAG, NetlinkSocket, ROUTE};
use crate::drivers::random;
use crate::errno::{Errno, Result};
use crate::sync::SpinLock;

struct Table {
    ports: BTreeMap<(u8, u32), Weak<NetlinkSocket>>,
    /// Sockets that listen to groups, by their addresses.
    listeners: BTreeMap<usize, Weak<NetlinkSocket>>,
}

static TABLE: SpinLock<Table> = SpinLock::new(Table { ports: BTreeMap::new(), listeners: BTreeMap::new() });

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

fn key(socket: &NetlinkSocket) -> usize {
    core::ptr::from_ref(socket).addr()
}

/// Gives the socket this port. EADDRINUSE: somebody has it; EINVAL: the socket has another.
pub fn claim(socket: &NetlinkSocket, port: u32) -> Result<()> {
    let mut table = TABLE.lock();
    let own = socket.port();
    if own != 0 {
        return if own == port { Ok(()) } else { Err(Errno::EINVAL) };
    }
    if table.ports.contains_key(&(socket.protocol(), port)) {
        return Err(Errno::EADDRINUSE);
    }
    table.ports.insert((socket.protocol(), port), socket.this.clone());
    socket.port.store(port, Ordering::Release);
    Ok(())
}

/// The number of the process if nobody has it, else some large number, as on Linux.
pub fn claim_any(socket: &NetlinkSocket, pid: u32) -> Result<()> {
    let mut port = pid.max(1);
    while socket.port() == 0 {
        match claim(socket, port) {
            Err(Errno::EADDRINUSE) => port = (random::u64() as u32 | 1 << 31) & !0xfff,
            // Another thread was faster.
            Err(Errno::EINVAL) => {}
            answer => return answer,
        }
    }
    Ok(())
}

pub fn find(protocol: u8, port: u32) -> Option<Arc<NetlinkSocket>> {
    TABLE.lock().ports.get(&(protocol, port))?.upgrade()
}

/// Changes what the socket listens to.
pub fn listen(socket: &NetlinkSocket, change: impl FnOnce(u64) -> u64) {
    let mut table = TABLE.lock();
    let groups = change(socket.groups.load(Ordering::Relaxed));
    socket.groups.store(groups, Ordering::Relaxed);
    if groups == 0 {
        table.listeners.remove(&key(socket));
    } else {
        table.listeners.insert(key(socket), socket.this.clone());
    }
}

/// Those who listen to a group. As on Linux one without a port hears nothing.
pub fn listeners(protocol: u8, group: u32) -> Vec<Arc<NetlinkSocket>> {
    let mut all = Vec::new();
    let table = TABLE.lock();
    // First, so that no last reference to a socket goes under the lock.
    if all.try_reserve_exact(table.listeners.len()).is_err() {
        return all;
    }
    let wanted = table.listeners.values().filter_map(Weak::upgrade);
    all.extend(wanted);
    drop(table);
    let bit = 1u64.checked_shl(group.wrapping_sub(1)).unwrap_or(0);
    let hears = |socket: &NetlinkSocket| socket.protocol() == protocol && socket.port() != 0;
    all.retain(|socket| hears(socket) && socket.groups.load(Ordering::Relaxed) & bit != 0);
    all
}

/// The socket is closed.
pub fn remove(socket: &NetlinkSocket) {
    let mut table = TABLE.lock();
    table.listeners.remove(&key(socket));
    let place = (socket.protocol(), socket.port());
    if table.ports.get(&place).is_some_and(|there| core::ptr::eq(there.as_ptr(), socket)) {
        table.ports.remove(&place);
    }
}

/// The sockets that have ports, and the kernel's own.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for protocol in [ROUTE, DIAG] {
        rows.push(Row { protocol, port: 0, groups: 0, receiving: 0, dumping: false, drops: 0, inode: 0 });
        let mut sockets: Vec<Arc<NetlinkSocket>> = Vec::new();
        let table = TABLE.lock();
        if sockets.try_reserve_exact(table.ports.len()).is_ok() {
            let own = table.ports.range((protocol, 0)..=(protocol, u32::MAX));
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
