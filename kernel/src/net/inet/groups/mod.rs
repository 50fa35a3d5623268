//! Multicast: ip(7), ipv6(7).
//!
//! A group is joined on an interface: the loopback or a card, whose task tells the network of it. What comes through that interface for
//! the group goes to all sockets that are bound to its port, but for those that want nothing of groups that they have not joined
//! themselves (IP_MULTICAST_ALL). What goes out through a card comes back for those here who have joined (IP_MULTICAST_LOOP).
//!
//! * [`Groups`]: what a socket has set and joined. [`joined`]: who has joined what, of all sockets.
//! * [`request`]: how programs name groups and interfaces. [`Way`]: which way packets for a group take.

pub mod joined;
mod request;
mod way;

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use linux_raw_sys::net as raw;
use smallvec::SmallVec;
use zerocopy::IntoBytes;

use self::request::Request;
use super::options::{SOL_IP, SOL_IPV6, int, within};
use super::{AF_INET, AF_INET6};
use crate::errno::{Errno, Result};
use crate::net::interface;
use crate::net::socket::Common;

pub use joined::is_joined;
pub use way::Way;

/// net.ipv4.igmp_max_memberships, and as many of IPv6 as net.core.optmem_max holds on Linux.
const MOST: usize = 20;
const MOST6: usize = 365;

/// What a socket has set for one family: IP_MULTICAST_TTL, IP_MULTICAST_LOOP, IP_MULTICAST_ALL and IP_MULTICAST_IF (0: any).
#[derive(Clone, Copy)]
struct Settings {
    hops: u8,
    loops: bool,
    all: bool,
    index: i32,
}

#[derive(Clone, Copy)]
struct Joined {
    group: IpAddr,
    index: i32,
    /// As it was named, of IPv4.
    own: Ipv4Addr,
}

/// What a socket has set.
pub struct Groups {
    v4: Settings,
    v6: Settings,
    /// The address that IP_MULTICAST_IF was given.
    own: Ipv4Addr,
    joined: SmallVec<[Joined; 1]>,
}

impl Groups {
    pub const fn new() -> Self {
        let settings = Settings { hops: 1, loops: true, all: true, index: 0 };
        Groups { v4: settings, v6: settings, own: Ipv4Addr::UNSPECIFIED, joined: SmallVec::new_const() }
    }

    fn settings(&self, v4: bool) -> &Settings {
        if v4 { &self.v4 } else { &self.v6 }
    }

    /// Of packets for a group of IPv4, or of IPv6.
    pub fn hops(&self, v4: bool) -> u8 {
        self.settings(v4).hops
    }

    /// Does what the socket sends through a card come back for those here who have joined?
    pub fn loops(&self, v4: bool) -> bool {
        self.settings(v4).loops
    }

    /// The way to `group` through the interface `device` (0: as the socket has it) from `source`, if that is given.
    pub fn way(&self, group: IpAddr, device: i32, source: Option<IpAddr>) -> Result<Way> {
        let v4 = group.is_ipv4();
        let own = Some(self.own).filter(|own| v4 && !own.is_unspecified()).map(IpAddr::V4);
        let index = if device != 0 { device } else { self.settings(v4).index };
        Way::to_group(group, index, source.or(own))
    }

    /// Does the socket want what comes for `group` through the interface `index`?
    pub fn wants(&self, index: i32, group: IpAddr) -> bool {
        // Of IPv6 on whichever it is (inet6_mc_check of Linux).
        let is_it = |joined: &Joined| joined.group == group && (joined.index == index || group.is_ipv6());
        self.settings(group.is_ipv4()).all || self.joined.iter().any(is_it)
    }

    /// None: it is none of these.
    pub fn get(&self, common: &Common, level: u32, option: u32) -> Option<Vec<u8>> {
        let v4 = level == SOL_IP;
        if !(v4 || level == SOL_IPV6 && common.family == AF_INET6) {
            return None;
        }
        let settings = self.settings(v4);
        let value = match (v4, option) {
            (true, raw::IP_MULTICAST_TTL) | (false, raw::IPV6_MULTICAST_HOPS) => settings.hops.into(),
            (true, raw::IP_MULTICAST_LOOP) | (false, raw::IPV6_MULTICAST_LOOP) => settings.loops.into(),
            (true, raw::IP_MULTICAST_ALL) | (false, raw::IPV6_MULTICAST_ALL) => settings.all.into(),
            (true, raw::IP_MULTICAST_IF) => return Some(self.own.octets().to_vec()),
            (false, raw::IPV6_MULTICAST_IF) => settings.index,
            _ => return None,
        };
        Some(i32::as_bytes(&value).to_vec())
    }

    pub fn set(&mut self, common: &Common, level: u32, option: u32, value: &[u8]) -> Option<Result<()>> {
        match level {
            SOL_IP => self.set4(common, option, value),
            SOL_IPV6 if common.family == AF_INET6 => self.set6(common, option, value),
            _ => None,
        }
    }

    fn set4(&mut self, common: &Common, option: u32, value: &[u8]) -> Option<Result<()>> {
        Some(match option {
            raw::IP_MULTICAST_TTL => int(value, true).and_then(|hops| {
                self.v4.hops = if hops == -1 { 1 } else { within(hops, 0..=255)? as u8 };
                Ok(())
            }),
            raw::IP_MULTICAST_LOOP => int(value, true).map(|on| self.v4.loops = on != 0),
            raw::IP_MULTICAST_ALL => int(value, true).and_then(|on| {
                self.v4.all = within(on, 0..=1)? != 0;
                Ok(())
            }),
            raw::IP_MULTICAST_IF => self.set_interface(common, value),
            raw::IP_ADD_MEMBERSHIP => Request::parse(value).and_then(|request| self.join(request)),
            raw::MCAST_JOIN_GROUP => Request::parse_any(value, AF_INET).and_then(|request| self.join(request)),
            raw::MCAST_LEAVE_GROUP => Request::parse_any(value, AF_INET).and_then(|request| self.leave(request)),
            raw::IP_DROP_MEMBERSHIP => Request::parse(value).and_then(|request| self.leave(request)),
            _ => return None,
        })
    }

    fn set6(&mut self, common: &Common, option: u32, value: &[u8]) -> Option<Result<()>> {
        Some(match option {
            raw::IPV6_MULTICAST_HOPS => int(value, false).and_then(|hops| {
                self.v6.hops = if hops == -1 { 1 } else { within(hops, 0..=255)? as u8 };
                Ok(())
            }),
            raw::IPV6_MULTICAST_LOOP => int(value, false).and_then(|on| {
                self.v6.loops = within(on, 0..=1)? != 0;
                Ok(())
            }),
            raw::IPV6_MULTICAST_ALL => int(value, false).map(|on| self.v6.all = on != 0),
            raw::IPV6_MULTICAST_IF => self.set_interface6(common, value),
            raw::IPV6_ADD_MEMBERSHIP => Request::parse6(value).and_then(|request| self.join(request)),
            raw::IPV6_DROP_MEMBERSHIP => Request::parse6(value).and_then(|request| self.leave(request)),
            raw::MCAST_JOIN_GROUP => Request::parse_any(value, AF_INET6).and_then(|request| self.join(request)),
            raw::MCAST_LEAVE_GROUP => Request::parse_any(value, AF_INET6).and_then(|request| self.leave(request)),
            _ => return None,
        })
    }

    fn set_interface(&mut self, common: &Common, value: &[u8]) -> Result<()> {
        let request = Request::parse_interface(value)?;
        if request.names_none() {
            (self.v4.index, self.own) = (0, Ipv4Addr::UNSPECIFIED);
            return Ok(());
        }
        let index = request.interface().ok_or(Errno::EADDRNOTAVAIL)?;
        if !common.hears(index) {
            return Err(Errno::EINVAL);
        }
        (self.v4.index, self.own) = (index, request.own);
        Ok(())
    }

    fn set_interface6(&mut self, common: &Common, value: &[u8]) -> Result<()> {
        let index = int(value, false)?;
        if index != 0 && !interface::devices().iter().any(|device| device.index == index) {
            return Err(Errno::ENODEV);
        }
        if index != 0 && !common.hears(index) {
            return Err(Errno::EINVAL);
        }
        self.v6.index = index;
        Ok(())
    }

    fn join(&mut self, request: Request) -> Result<()> {
        let v4 = request.group.is_ipv4();
        if !request.group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        // On any interface, where none is named (ipv6_sock_mc_join of Linux).
        let anywhere = !v4 && request.index == 0;
        let is_there =
            |index: i32| move |joined: &Joined| joined.group == request.group && (anywhere || joined.index == index);
        if !v4 && self.joined.iter().any(is_there(request.index)) {
            return Err(Errno::EADDRINUSE);
        }
        let index = request.interface().ok_or(Errno::ENODEV)?;
        if self.joined.iter().any(is_there(index)) {
            return Err(Errno::EADDRINUSE);
        }
        let count = self.joined.iter().filter(|joined| joined.group.is_ipv4() == v4).count();
        match v4 {
            true if count >= MOST => return Err(Errno::ENOBUFS),
            false if count >= MOST6 => return Err(Errno::ENOMEM),
            _ => {}
        }
        self.joined.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        joined::join(index, request.group)?;
        self.joined.push(Joined { group: request.group, index, own: request.own });
        Ok(())
    }

    /// Of several that fit the first (ip_mc_leave_group and ipv6_sock_mc_drop of Linux).
    fn leave(&mut self, request: Request) -> Result<()> {
        let v4 = request.group.is_ipv4();
        if !v4 && !request.group.is_multicast() {
            return Err(Errno::EINVAL);
        }
        let index = match request.interface() {
            Some(index) if v4 => index,
            None if v4 && request.names_none() => return Err(Errno::ENODEV),
            _ => request.index,
        };
        let fits = |joined: &Joined| {
            joined.group == request.group
                && match index {
                    0 => !v4 || joined.own == request.own,
                    index => joined.index == index,
                }
        };
        let place = self.joined.iter().position(fits).ok_or(Errno::EADDRNOTAVAIL)?;
        let gone = self.joined.remove(place);
        joined::leave(gone.index, gone.group);
        Ok(())
    }

    /// The socket is closed.
    pub fn leave_all(&mut self) {
        core::mem::take(&mut self.joined).into_iter().for_each(|gone| joined::leave(gone.index, gone.group));
    }
}

/// What a stream answers to one who sets an option of these: it goes to one other end.
pub fn refusal_of_streams(common: &Common, level: u32, option: u32) -> Option<Errno> {
    Some(match (level, option) {
        (SOL_IP, raw::IP_MULTICAST_TTL | raw::IP_MULTICAST_IF) => Errno::EINVAL,
        (SOL_IP, raw::IP_ADD_MEMBERSHIP | raw::IP_DROP_MEMBERSHIP) => Errno::EPROTO,
        (SOL_IPV6, raw::IPV6_ADD_MEMBERSHIP | raw::IPV6_DROP_MEMBERSHIP) if common.family == AF_INET6 => Errno::EPROTO,
        _ => return None,
    })
}
