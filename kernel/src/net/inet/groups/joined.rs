//! Which groups are joined on which interface, by how many sockets.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::errno::{Errno, Result};
use crate::net::interface;
use crate::process::{self, Caps};
use crate::sync::SpinLock;

/// Of which every machine is one: all hosts of a network (RFC 1112, 4), all nodes of an interface and of a network (RFC 4291, 2.7.1).
const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_NODES_HERE: Ipv6Addr = Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub const ALWAYS: [IpAddr; 3] = [IpAddr::V4(ALL_HOSTS), IpAddr::V6(ALL_NODES), IpAddr::V6(ALL_NODES_HERE)];

/// So many groups at most are joined on an interface, by all sockets: who looks at them does so in one go.
pub const MOST: usize = 4096;

#[derive(Clone, Copy)]
struct Entry {
    index: i32,
    group: IpAddr,
    /// How many sockets.
    users: u32,
    /// The user who joined first, unless he may fill the table.
    owner: Option<u32>,
}

/// By interface and group. A leaf: nothing is called under it.
static JOINED: SpinLock<Vec<Entry>> = SpinLock::new(Vec::new());

fn place(joined: &[Entry], index: i32, group: IpAddr) -> core::result::Result<usize, usize> {
    joined.binary_search_by(|entry| (entry.index, entry.group).cmp(&(index, group)))
}

/// Those of an interface.
fn part(joined: &[Entry], index: i32) -> &[Entry] {
    let first = joined.partition_point(|entry| entry.index < index);
    let rest = joined.get(first..).unwrap_or(&[]);
    rest.get(..rest.partition_point(|entry| entry.index == index)).unwrap_or(rest)
}

/// Is what comes through the interface `index` for this group for this machine?
pub fn is_joined(index: i32, group: IpAddr) -> bool {
    ALWAYS.contains(&group) || place(&JOINED.lock(), index, group).is_ok()
}

/// Those that sockets have joined on an interface, in order, and how many have.
pub fn joined_on(index: i32) -> Result<Vec<(IpAddr, u32)>> {
    let mut all = Vec::new();
    loop {
        let joined = JOINED.lock();
        let part = part(&joined, index);
        if part.len() <= all.capacity() {
            all.extend(part.iter().map(|entry| (entry.group, entry.users)));
            return Ok(all);
        }
        let count = part.len();
        drop(joined);
        all.try_reserve_exact(count).map_err(|_| Errno::ENOMEM)?;
    }
}

/// What one user may have of [`MOST`] without CAP_NET_ADMIN, so that others find room.
const MOST_OF_USER: usize = MOST / 4;

/// Who joins; none who may fill the table.
fn owner() -> Option<u32> {
    process::with_current(|task| {
        let creds = task?.shared_creds();
        (!creds.capable(Caps::NET_ADMIN)).then_some(creds.uid)
    })
}

/// One more socket has joined it. The task of a card tells the network of the first. ENOBUFS: there are too many groups, or the user
/// has joined too many of them first.
pub fn join(index: i32, group: IpAddr) -> Result<()> {
    let owner = owner();
    let mut joined = JOINED.lock();
    match place(&joined, index, group) {
        Ok(place) => {
            if let Some(entry) = joined.get_mut(place) {
                entry.users += 1;
            }
            return Ok(());
        }
        Err(place) => {
            let part = part(&joined, index);
            let own = part.iter().filter(|entry| owner.is_some() && entry.owner == owner).count();
            if part.len() >= MOST || own >= MOST_OF_USER {
                return Err(Errno::ENOBUFS);
            }
            joined.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            joined.insert(place, Entry { index, group, users: 1, owner });
        }
    }
    drop(joined);
    interface::groups_changed(index);
    Ok(())
}

/// One has left it.
pub fn leave(index: i32, group: IpAddr) {
    let mut joined = JOINED.lock();
    let Ok(place) = place(&joined, index, group) else { return };
    let Some(entry) = joined.get_mut(place) else { return };
    entry.users -= 1;
    if entry.users > 0 {
        return;
    }
    joined.remove(place);
    drop(joined);
    interface::groups_changed(index);
}
