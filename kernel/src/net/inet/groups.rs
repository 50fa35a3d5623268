//! Multicast of IPv4 within the machine: ip(7).
//!
//! Groups are joined on the loopback only: what is sent there for a group that somebody has joined comes to all sockets that are bound to
//! its port, but for those that want nothing of groups that they have not joined themselves (IP_MULTICAST_ALL).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use linux_raw_sys::net as raw;
use smallvec::SmallVec;
use zerocopy::{FromBytes, IntoBytes};

use super::AF_INET;
use super::options::{SOL_IP, int, within};
use crate::errno::{Errno, Result};
use crate::net::interface::{self, LOOPBACK_INDEX};
use crate::sync::SpinLock;

/// net.ipv4.igmp_max_memberships.
const MOST: usize = 20;

/// How many sockets have joined a group.
static JOINED: SpinLock<BTreeMap<Ipv4Addr, usize>> = SpinLock::new(BTreeMap::new());

/// Has somebody joined this group?
pub fn is_joined(group: Ipv4Addr) -> bool {
    JOINED.lock().contains_key(&group)
}

/// `struct ip_mreqn`, of which a program may give less.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Request {
    group: [u8; 4],
    own: [u8; 4],
    index: i32,
}

impl Request {
    fn parse(value: &[u8]) -> Result<Self> {
        let (group, rest) = <[u8; 4]>::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
        let (own, rest) = <[u8; 4]>::read_from_prefix(rest).map_err(|_| Errno::EINVAL)?;
        let index = i32::read_from_prefix(rest).map_or(0, |(index, _)| index);
        Ok(Request { group, own, index })
    }

    /// `struct group_req`: an interface, and an address in room for any.
    fn parse_group(value: &[u8]) -> Result<Self> {
        const SIZE: usize = 136;
        let value = value.first_chunk::<SIZE>().ok_or(Errno::EINVAL)?;
        let (index, family, group) = (&value[..4], &value[8..10], &value[12..16]);
        if family != AF_INET.to_ne_bytes() {
            return Err(Errno::EINVAL);
        }
        let part = |bytes: &[u8]| bytes.first_chunk().copied().unwrap_or_default();
        Ok(Request { group: part(group), index: i32::from_ne_bytes(part(index)), ..Request::default() })
    }

    /// The index of the interface that it names.
    fn named(&self) -> Option<i32> {
        let own = IpAddr::from(self.own);
        let devices = interface::devices();
        let mut found = devices.iter().filter(|device| match self.index {
            0 if interface::is_of_loopback(own) => device.index == LOOPBACK_INDEX,
            0 => device.addresses.iter().any(|address| address.ip == own),
            index => device.index == index,
        });
        found.next().map(|device| device.index)
    }
}

/// What a socket has set.
pub struct Groups {
    /// IP_MULTICAST_TTL, IP_MULTICAST_LOOP, IP_MULTICAST_ALL.
    hops: u8,
    loops: bool,
    all: bool,
    /// IP_MULTICAST_IF: an interface (0: any) and an address.
    index: i32,
    own: Ipv4Addr,
    joined: SmallVec<[Request; 1]>,
}

impl Groups {
    pub fn new() -> Self {
        Groups { hops: 1, loops: true, all: true, index: 0, own: Ipv4Addr::UNSPECIFIED, joined: SmallVec::new() }
    }

    pub fn hops(&self) -> u8 {
        self.hops
    }

    /// The interface and the address that packets for groups leave from, if these are given.
    pub fn way(&self) -> (i32, Option<IpAddr>) {
        (self.index, (!self.own.is_unspecified()).then_some(IpAddr::V4(self.own)))
    }

    /// Does the socket want what comes for `group` on the loopback?
    pub fn wants(&self, group: Ipv4Addr) -> bool {
        self.all || self.joined.iter().any(|joined| joined.group == group.octets())
    }

    /// None: it is none of these.
    pub fn get(&self, level: u32, option: u32) -> Option<Vec<u8>> {
        let value = match (level, option) {
            (SOL_IP, raw::IP_MULTICAST_TTL) => self.hops.into(),
            (SOL_IP, raw::IP_MULTICAST_LOOP) => self.loops.into(),
            (SOL_IP, raw::IP_MULTICAST_ALL) => self.all.into(),
            (SOL_IP, raw::IP_MULTICAST_IF) => return Some(self.own.octets().to_vec()),
            _ => return None,
        };
        Some(i32::as_bytes(&value).to_vec())
    }

    pub fn set(&mut self, level: u32, option: u32, value: &[u8]) -> Option<Result<()>> {
        if level != SOL_IP {
            return None;
        }
        Some(match option {
            raw::IP_MULTICAST_TTL => int(value, true).and_then(|hops| {
                self.hops = if hops == -1 { 1 } else { within(hops, 0..=255)? as u8 };
                Ok(())
            }),
            raw::IP_MULTICAST_LOOP => int(value, true).map(|on| self.loops = on != 0),
            raw::IP_MULTICAST_ALL => int(value, true).and_then(|on| {
                self.all = within(on, 0..=1)? != 0;
                Ok(())
            }),
            raw::IP_MULTICAST_IF => self.set_interface(value),
            raw::IP_ADD_MEMBERSHIP => Request::parse(value).and_then(|request| self.join(request)),
            raw::MCAST_JOIN_GROUP => Request::parse_group(value).and_then(|request| self.join(request)),
            raw::MCAST_LEAVE_GROUP => Request::parse_group(value).and_then(|request| self.leave(request)),
            raw::IP_DROP_MEMBERSHIP => Request::parse(value).and_then(|request| self.leave(request)),
            _ => return None,
        })
    }

    /// An address alone is enough.
    fn set_interface(&mut self, value: &[u8]) -> Result<()> {
        let request = match Request::parse(value) {
            Ok(request) => request,
            Err(_) => {
                let (own, _) = <[u8; 4]>::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
                Request { own, ..Request::default() }
            }
        };
        if request == (Request { group: request.group, ..Request::default() }) {
            (self.index, self.own) = (0, Ipv4Addr::UNSPECIFIED);
            return Ok(());
        }
        self.index = request.named().ok_or(Errno::EADDRNOTAVAIL)?;
        self.own = request.own.into();
        Ok(())
    }

    fn join(&mut self, request: Request) -> Result<()> {
        let group = Ipv4Addr::from(request.group);
        if !group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        // Groups of other machines are not joined.
        let index = request.named().filter(|index| *index == LOOPBACK_INDEX).ok_or(Errno::ENODEV)?;
        if self.joined.iter().any(|joined| joined.group == request.group) {
            return Err(Errno::EADDRINUSE);
        }
        if self.joined.len() >= MOST {
            return Err(Errno::ENOBUFS);
        }
        self.joined.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        self.joined.push(Request { index, ..request });
        *JOINED.lock().entry(group).or_default() += 1;
        Ok(())
    }

    /// Of several that fit the first (ip_mc_leave_group of Linux).
    fn leave(&mut self, request: Request) -> Result<()> {
        if request.index == 0 && request.own == [0; 4] {
            // By the way to the group, which does not lead over the loopback.
            return Err(Errno::ENODEV);
        }
        let index = request.named().unwrap_or(request.index);
        let fits = |joined: &Request| {
            joined.group == request.group && if index != 0 { joined.index == index } else { joined.own == request.own }
        };
        let place = self.joined.iter().position(fits).ok_or(Errno::EADDRNOTAVAIL)?;
        forget(self.joined.remove(place));
        Ok(())
    }

    /// The socket is closed.
    pub fn leave_all(&mut self) {
        core::mem::take(&mut self.joined).into_iter().for_each(forget);
    }
}

fn forget(request: Request) {
    let mut joined = JOINED.lock();
    let group = request.group.into();
    if let Some(count) = joined.get_mut(&group) {
        *count -= 1;
        if *count == 0 {
            joined.remove(&group);
        }
    }
}
