//! Unix sockets: `struct unix_diag_req` and `struct unix_diag_msg` of linux/unix_diag.h.

use linux_raw_sys::netlink as raw;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{BY_FAMILY, List, check_cookie, cookie};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::net::netlink::message::{Request, Writer};
use crate::net::unix::{self, AF_UNIX, Row, SHARDS};

/// UDIAG_SHOW_*.
const SHOW_NAME: u32 = 1;
const SHOW_PEER: u32 = 4;
const SHOW_CLIENTS: u32 = 8;
const SHOW_QUEUES: u32 = 0x10;
const SHOW_UID: u32 = 0x40;
/// UNIX_DIAG_*.
const NAME: u32 = 0;
const PEER: u32 = 2;
const CLIENTS: u32 = 3;
const QUEUES: u32 = 4;
const SHUTDOWN: u32 = 6;
const UID: u32 = 7;
/// How many sockets are looked at before the budget is.
const SOME: usize = 32;

/// `struct unix_diag_req`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Wanted {
    family: u8,
    protocol: u8,
    pad: u16,
    /// TCP_* as bits.
    states: u32,
    inode: u32,
    show: u32,
    cookie: [u32; 2],
}

pub fn list(request: &Request<'_>) -> Result<List> {
    Ok(List::Unix(request.head::<Wanted>()?))
}

/// `at`: the part of the table, and the last inode that is done. False: the budget is used, and neither the datagram full nor the
/// table at its end.
pub fn fill(wanted: &Wanted, at: &mut (usize, usize), out: &mut Writer) -> bool {
    while at.0 < SHARDS {
        let sockets = unix::part(at.0, at.1 as u64, SOME);
        if sockets.is_empty() {
            *at = (at.0 + 1, 0);
            continue;
        }
        for socket in sockets {
            let row = socket.row();
            if wanted.states & 1 << row.state != 0 && !write(&row, wanted.show, raw::NLM_F_MULTI, out) {
                return true;
            }
            at.1 = row.inode as usize;
        }
        if exec::is_budget_used() {
            return false;
        }
    }
    true
}

pub fn answer(request: &Request<'_>, out: &mut Writer) -> Result<()> {
    let wanted = request.head::<Wanted>()?;
    if wanted.inode == 0 {
        return Err(Errno::EINVAL);
    }
    let row = unix::find(wanted.inode.into()).ok_or(Errno::ENOENT)?.row();
    check_cookie(wanted.cookie, row.inode)?;
    write(&row, wanted.show, 0, out);
    Ok(())
}

fn write(row: &Row, show: u32, flags: u32, out: &mut Writer) -> bool {
    let [low, high] = cookie(row.inode);
    let first = u32::from_ne_bytes([AF_UNIX as u8, row.kind.raw() as u8, row.state, 0]);
    out.begin(BY_FAMILY, flags, [first, row.inode as u32, low, high].as_bytes());
    if show & SHOW_NAME != 0 && !row.name.is_empty() {
        out.attribute(NAME, &row.name);
    }
    if let Some(peer) = row.peer.filter(|_| show & SHOW_PEER != 0) {
        out.number(PEER, peer as u32);
    }
    if show & SHOW_CLIENTS != 0 && row.state == unix::LISTEN {
        out.attribute(CLIENTS, row.clients.as_bytes());
    }
    if show & SHOW_QUEUES != 0 {
        out.attribute(QUEUES, [row.receiving as u32, row.sending as u32].as_bytes());
    }
    if show & SHOW_UID != 0 {
        out.number(UID, row.uid);
    }
    out.byte(SHUTDOWN, row.shut);
    out.end()
}
