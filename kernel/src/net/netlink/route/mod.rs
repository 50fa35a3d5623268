//! NETLINK_ROUTE: rtnetlink(7). Links, addresses, routes, neighbours and rules: what there is, and changes of it.
//!
//! Nothing here has a table of its own: links and addresses are [`interface::devices`], and routes follow from them.

mod address;
mod change;
mod link;
mod neighbour;
mod notice;
mod routes;
mod rule;

use linux_raw_sys::{net as net_raw, netlink as raw};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::message::{LONGEST, Request, Writer};
use super::work::{Answer, What};
use crate::errno::{Errno, Result};
use crate::net::inet::{AF_INET, AF_INET6};
use crate::net::interface::{self, Device};

pub use notice::{tell_address_of, tell_link, tell_settings};

/// RTM_* as they are numbered: for each thing NEW, DEL, GET and SET.
const NEW_LINK: u32 = raw::RTM_NEWLINK as u32;
const DEL_LINK: u32 = raw::RTM_DELLINK as u32;
const SET_LINK: u32 = raw::RTM_SETLINK as u32;
const GET_LINK: u32 = raw::RTM_GETLINK as u32;
const NEW_ADDRESS: u32 = raw::RTM_NEWADDR as u32;
const DEL_ADDRESS: u32 = raw::RTM_DELADDR as u32;
const GET_ADDRESS: u32 = raw::RTM_GETADDR as u32;
const NEW_ROUTE: u32 = raw::RTM_NEWROUTE as u32;
const DEL_ROUTE: u32 = raw::RTM_DELROUTE as u32;
const GET_ROUTE: u32 = raw::RTM_GETROUTE as u32;
const NEW_NEIGHBOUR: u32 = raw::RTM_NEWNEIGH as u32;
const GET_NEIGHBOUR: u32 = raw::RTM_GETNEIGH as u32;
const NEW_RULE: u32 = raw::RTM_NEWRULE as u32;
const GET_RULE: u32 = raw::RTM_GETRULE as u32;

/// RTM_MAX of Linux 6.1.
const LAST: u32 = 123;

/// The families as bytes, as they are in the heads of messages.
const INET: u8 = AF_INET as u8;
const INET6: u8 = AF_INET6 as u8;
const BRIDGE: u8 = net_raw::AF_BRIDGE as u8;
/// What was left out of a list because the request said so.
const FILTERED: u32 = raw::NLM_F_DUMP_FILTERED;
/// The request asks for many.
const DUMP: u32 = raw::NLM_F_DUMP;

/// Does a message of this type change something?
pub fn is_change(kind: u16) -> bool {
    kind & 3 != 2
}

pub fn handle(request: &Request<'_>, port: u32) -> Result<Answer> {
    let kind = u32::from(request.header.kind);
    if kind > LAST {
        return Err(Errno::EOPNOTSUPP);
    }
    // Every message has a family at least.
    let Some(family) = request.body.first().copied() else { return Ok(Answer::Done) };
    if is_change(request.header.kind) {
        return if request.admin { change::handle(request, family) } else { Err(Errno::EPERM) };
    }
    if request.has(DUMP) {
        let list = match kind {
            GET_LINK => link::list(request, family),
            GET_ADDRESS => address::list(request, family),
            GET_ROUTE => routes::list(request, family),
            GET_NEIGHBOUR => neighbour::list(request, family),
            GET_RULE => rule::list(request, family),
            _ => return Err(Errno::EOPNOTSUPP),
        };
        return Ok(Answer::Many(What::Route(list.unwrap_or_else(List::failed))));
    }
    let mut out = Writer::new(LONGEST, request.header.seq, port)?;
    match kind {
        GET_LINK => link::answer(request, &mut out)?,
        GET_ADDRESS if family == INET6 => address::answer(request, &mut out)?,
        GET_ROUTE if matches!(family, INET | INET6) => routes::answer(request, family, &mut out)?,
        GET_NEIGHBOUR => neighbour::answer(request, family, &mut out)?,
        _ => return Err(Errno::EOPNOTSUPP),
    }
    Ok(Answer::One(out))
}

/// What a list is of, and what it leaves out.
pub struct List {
    of: fn(&List, &mut Cursor<'_>),
    family: u8,
    /// An interface, a table (0: all).
    index: u32,
    table: u32,
    /// RTPROT_*, RTN_* (0: all).
    protocol: u8,
    kind: u8,
    /// NLM_F_* of each message.
    flags: u32,
    /// Why there is nothing: this is told at the end.
    errno: Option<Errno>,
}

impl List {
    fn new(of: fn(&List, &mut Cursor<'_>), family: u8) -> List {
        List { of, family, index: 0, table: 0, protocol: 0, kind: 0, flags: raw::NLM_F_MULTI, errno: None }
    }

    fn failed(errno: Errno) -> List {
        List { errno: Some(errno), ..List::new(|_, _| (), 0) }
    }

    /// Flags and error of the message at its end.
    pub fn verdict(&self) -> (u32, Option<Errno>) {
        (self.flags, self.errno)
    }

    /// Addresses of this family are wanted.
    fn wants(&self, family: u8) -> bool {
        self.family == family || !matches!(self.family, INET | INET6)
    }

    pub fn fill(&self, at: &mut (usize, usize), out: &mut Writer) {
        let mut cursor = Cursor { done: &mut at.0, number: 0, full: false, out };
        if self.errno.is_none() {
            (self.of)(self, &mut cursor);
        }
    }
}

/// Where a list goes on.
struct Cursor<'a> {
    /// So many were written in earlier parts, or are in this one.
    done: &'a mut usize,
    number: usize,
    full: bool,
    out: &'a mut Writer,
}

impl Cursor<'_> {
    /// The next one's turn. False: it was written before, or is for the next part.
    fn next(&mut self) -> bool {
        self.number += 1;
        !self.full && self.number > *self.done
    }

    /// It is written.
    fn end(&mut self) {
        self.full = !self.out.end();
        if !self.full {
            *self.done = self.number;
        }
    }
}

/// The interface with this index.
fn find(index: u32) -> Result<Device> {
    interface::devices().into_iter().find(|device| device.index as u32 == index).ok_or(Errno::ENODEV)
}

/// Does a strict request have nothing but zeros here? Else it wants something that is not done.
fn must_be_zero(request: &Request<'_>, fields: &[u32]) -> Result<()> {
    if request.strict && fields.iter().any(|field| *field != 0) { Err(Errno::EINVAL) } else { Ok(()) }
}

/// `struct ifa_cacheinfo`: for how long an address is good, when it came and was changed.
#[repr(C)]
#[derive(IntoBytes, Immutable)]
struct Lifetimes {
    preferred: u32,
    valid: u32,
    created: u32,
    updated: u32,
}

/// `struct ifinfomsg`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct LinkHead {
    family: u8,
    pad: u8,
    kind: u16,
    index: u32,
    flags: u32,
    change: u32,
}

/// `struct ifaddrmsg`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct AddressHead {
    family: u8,
    prefix: u8,
    flags: u8,
    scope: u8,
    index: u32,
}

/// `struct rtmsg`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RouteHead {
    family: u8,
    to: u8,
    from: u8,
    tos: u8,
    table: u8,
    protocol: u8,
    scope: u8,
    kind: u8,
    flags: u32,
}

/// `struct ndmsg`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct NeighbourHead {
    family: u8,
    pad: [u8; 3],
    index: u32,
    state: u16,
    flags: u8,
    kind: u8,
}
