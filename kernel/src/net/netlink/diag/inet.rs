//! TCP and UDP sockets: `struct inet_diag_req_v2` and `struct inet_diag_msg` of linux/inet_diag.h.

use core::net::IpAddr;

use linux_raw_sys::netlink as raw;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::filter::Filter;
use super::{BY_FAMILY, List, check_cookie, cookie};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::net::inet::{AF_INET, AF_INET6, Endpoint, IPPROTO_TCP, IPPROTO_UDP, Part, Row, SHARDS, shard_of, tcp, udp};
use crate::net::netlink::message::{Request, Writer};

/// INET_DIAG_*.
const BYTECODE: u16 = 1;
const SHUTDOWN: u32 = 8;
const ONLY_V6: u32 = 11;
/// TCP_CLOSE.
const CLOSED: u8 = 7;
/// How many sockets are looked at before the budget is.
const SOME: usize = 32;

/// `struct inet_diag_sockid`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Id {
    /// Ports and addresses in network byte order.
    from_port: [u8; 2],
    to_port: [u8; 2],
    from: [u8; 16],
    to: [u8; 16],
    index: u32,
    cookie: [u32; 2],
}

/// `struct inet_diag_req_v2`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Wanted {
    family: u8,
    protocol: u8,
    extensions: u8,
    pad: u8,
    /// TCP_* as bits.
    states: u32,
    id: Id,
}

/// `struct inet_diag_msg`.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct Shown {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: Id,
    expires: u32,
    receiving: u32,
    sending: u32,
    uid: u32,
    inode: u32,
}

/// A part of a protocol's sockets: see `tcp::part`.
type Table = fn(usize, usize, usize) -> Part;

impl Wanted {
    /// ENOENT: there is no such protocol.
    pub fn table(&self) -> Result<Table> {
        match self.protocol {
            IPPROTO_TCP => Ok(tcp::part),
            IPPROTO_UDP => Ok(udp::part),
            _ => Err(Errno::ENOENT),
        }
    }
}

pub fn list(request: &Request<'_>) -> Result<List> {
    let wanted = request.head::<Wanted>()?;
    let filter = request.attributes(size_of::<Wanted>()).find(BYTECODE).map_or(Ok(Filter::default()), Filter::parse);
    Ok(List::Inet(wanted, filter?))
}

/// False: the budget is used, and neither the datagram full nor the table at its end.
pub fn fill(wanted: &Wanted, filter: &Filter, at: &mut (usize, usize), out: &mut Writer) -> bool {
    let Ok(table) = wanted.table() else { return true };
    while at.0 < SHARDS {
        let rows = table(at.0, at.1, SOME);
        if rows.is_empty() {
            *at = (at.0 + 1, 0);
            continue;
        }
        for (place, row) in rows {
            if let Some(row) = row.filter(|row| fits(wanted, row) && filter.admits(row))
                && !write(&row, raw::NLM_F_MULTI, out)
            {
                return true;
            }
            at.1 = place;
        }
        if exec::is_budget_used() {
            return false;
        }
    }
    true
}

fn fits(wanted: &Wanted, row: &Row) -> bool {
    let port = |given: [u8; 2], own: u16| given == [0; 2] || given == own.to_be_bytes();
    row.family == u16::from(wanted.family)
        && 1u32.checked_shl(row.state.into()).is_some_and(|bit| wanted.states & bit != 0)
        && port(wanted.id.from_port, row.local.port)
        && port(wanted.id.to_port, row.remote.port)
}

/// The address of a socket of this family.
fn octets(family: u16, end: Endpoint) -> [u8; 16] {
    let mut out = [0; 16];
    match end.ip {
        IpAddr::V4(ip) if family == AF_INET => out[..4].copy_from_slice(&ip.octets()),
        IpAddr::V4(ip) => out = ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => out = ip.octets(),
    }
    out
}

/// The socket with both these ends. `place`: how far it was looked for; false: the budget is used, and it was not found yet.
pub fn answer(request: &Request<'_>, place: &mut usize, out: &mut Writer) -> Result<bool> {
    let wanted = request.head::<Wanted>()?;
    let table = wanted.table()?;
    let port = u16::from_be_bytes(wanted.id.from_port);
    let is_it = |row: &Row| {
        let width = if row.family == AF_INET { 4 } else { 16 };
        let same = |end: Endpoint, given: [u8; 16]| octets(row.family, end)[..width] == given[..width];
        row.family == u16::from(wanted.family)
            && row.local.port == port
            && row.remote.port.to_be_bytes() == wanted.id.to_port
            && (same(row.local, wanted.id.from) || row.local.is_any())
            && (same(row.remote, wanted.id.to) || row.remote.is_any())
    };
    loop {
        let rows = table(shard_of(port), *place, SOME);
        let Some((last, _)) = rows.last() else { return Err(Errno::ENOENT) };
        *place = *last;
        if let Some(row) = rows.into_iter().filter_map(|(_, row)| row).find(is_it) {
            check_cookie(wanted.id.cookie, row.inode).map_err(|_| Errno::ENOENT)?;
            write(&row, 0, out);
            return Ok(true);
        }
        if exec::is_budget_used() {
            return Ok(false);
        }
    }
}

fn write(row: &Row, flags: u32, out: &mut Writer) -> bool {
    let id = Id {
        from_port: row.local.port.to_be_bytes(),
        to_port: row.remote.port.to_be_bytes(),
        from: octets(row.family, row.local),
        to: octets(row.family, row.remote),
        index: 0,
        cookie: cookie(row.inode),
    };
    let shown = Shown {
        family: row.family as u8,
        state: row.state,
        timer: 0,
        retransmits: 0,
        id,
        expires: 0,
        receiving: row.receiving as u32,
        sending: if row.state == tcp::LISTEN { row.backlog } else { row.sending } as u32,
        uid: row.uid,
        inode: row.inode as u32,
    };
    out.begin(BY_FAMILY, flags, shown.as_bytes());
    if row.state != tcp::TIME_WAIT {
        out.byte(SHUTDOWN, row.shut);
        if row.family == AF_INET6 && matches!(row.state, tcp::LISTEN | CLOSED) {
            out.byte(ONLY_V6, row.only_v6.into());
        }
    }
    out.end()
}

const _: () = assert!(size_of::<Wanted>() == 56 && size_of::<Shown>() == 72);
