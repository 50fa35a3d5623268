//! Which groups are joined on which interface, by how many sockets.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::errno::{Errno, Result};
use crate::net::interface;
use crate::sync::SpinLock;

/// Of which every machine is one: all hosts of a network (RFC 1112, 4), all nodes of an interface and of a network (RFC 4291, 2.7.1).
const ALL_HOSTS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_NODES_HERE: Ipv6Addr = Ipv6Addr::new(0xff01, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
pub const ALWAYS: [IpAddr; 3] = [IpAddr::V4(ALL_HOSTS), IpAddr::V6(ALL_NODES), IpAddr::V6(ALL_NODES_HERE)];

/// By interface and group. A leaf: nothing is called under it.
static JOINED: SpinLock<BTreeMap<(i32, IpAddr), u32>> = SpinLock::new(BTreeMap::new());

/// Is what comes through the interface `index` for this group for this machine?
pub fn is_joined(index: i32, group: IpAddr) -> bool {
    ALWAYS.contains(&group) || JOINED.lock().contains_key(&(index, group))
}

/// Those that sockets have joined on an interface, and how many have.
pub fn joined_on(index: i32) -> Result<Vec<(IpAddr, u32)>> {
    const FIRST: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let mut all = Vec::new();
    let joined = JOINED.lock();
    for ((_, group), users) in joined.range((index, FIRST)..).take_while(|((at, _), _)| *at == index) {
        all.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        all.push((*group, *users));
    }
    Ok(all)
}

/// One more socket has joined it. The task of a card tells the network of the first.
pub fn join(index: i32, group: IpAddr) {
    let mut joined = JOINED.lock();
    let users = joined.entry((index, group)).or_default();
    *users += 1;
    let first = *users == 1;
    drop(joined);
    if first {
        interface::groups_changed(index);
    }
}

/// One has left it.
pub fn leave(index: i32, group: IpAddr) {
    let mut joined = JOINED.lock();
    let Some(users) = joined.get_mut(&(index, group)) else { return };
    *users -= 1;
    let last = *users == 0;
    if last {
        joined.remove(&(index, group));
    }
    drop(joined);
    if last {
        interface::groups_changed(index);
    }
}
