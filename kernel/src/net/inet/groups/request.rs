//! What setsockopt(2) is given to join a group, or to choose an interface.

use core::net::{IpAddr, Ipv4Addr};

use zerocopy::FromBytes;

use super::super::{AF_INET, AF_INET6};
use crate::errno::{Errno, Result};
use crate::net::interface::{self, LOOPBACK_INDEX};

/// sizeof(struct group_req), and where its address is: a family, for AF_INET6 its bytes behind a port and a label of flows.
const GROUP_REQUEST: usize = 136;
const FAMILY: usize = 8;
const ADDRESS: usize = 12;
const ADDRESS6: usize = 16;

/// A group, and the interface that is meant: its index (0: any) or, of IPv4, an address that it has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Request {
    pub group: IpAddr,
    pub own: Ipv4Addr,
    pub index: i32,
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N]> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(Errno::EINVAL)
}

impl Request {
    /// `struct ip_mreqn`, of which a program may leave out the index.
    pub fn parse(value: &[u8]) -> Result<Self> {
        let group = IpAddr::from(part::<4>(value, 0)?);
        let own = Ipv4Addr::from(part::<4>(value, 4)?);
        let index = part(value, 8).map_or(0, i32::from_ne_bytes);
        Ok(Request { group, own, index })
    }

    /// The same for IP_MULTICAST_IF, where an address alone is enough.
    pub fn parse_interface(value: &[u8]) -> Result<Self> {
        let alone = || Ok(Request { group: Ipv4Addr::UNSPECIFIED.into(), own: part::<4>(value, 0)?.into(), index: 0 });
        Self::parse(value).or_else(|_| alone())
    }

    /// `struct ipv6_mreq`.
    pub fn parse6(value: &[u8]) -> Result<Self> {
        let (group, rest) = <[u8; 16]>::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
        Ok(Request { group: group.into(), own: Ipv4Addr::UNSPECIFIED, index: i32::from_ne_bytes(part(rest, 0)?) })
    }

    /// `struct group_req` at the level of `family`: an interface, and an address in room for any.
    pub fn parse_any(value: &[u8], family: u16) -> Result<Self> {
        let value = value.first_chunk::<GROUP_REQUEST>().ok_or(Errno::EINVAL)?;
        let own = Ipv4Addr::UNSPECIFIED;
        let index = i32::from_ne_bytes(part(value, 0)?);
        let given = u16::from_ne_bytes(part(value, FAMILY)?);
        match family {
            AF_INET if given == AF_INET => Ok(Request { group: part::<4>(value, ADDRESS)?.into(), own, index }),
            AF_INET6 if given == AF_INET6 => Ok(Request { group: part::<16>(value, ADDRESS6)?.into(), own, index }),
            AF_INET6 => Err(Errno::EADDRNOTAVAIL),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Does it leave the interface to the kernel?
    pub fn names_none(&self) -> bool {
        self.index == 0 && self.own.is_unspecified()
    }

    /// The index of the interface that it names, else that of the way to the group.
    pub fn interface(&self) -> Option<i32> {
        if self.names_none() {
            return interface::port_for(self.group).ok().flatten().map(|port| port.index());
        }
        let own = IpAddr::V4(self.own);
        let devices = interface::devices();
        let mut found = devices.iter().filter(|device| match self.index {
            0 if interface::is_of_loopback(own) => device.index == LOOPBACK_INDEX,
            0 => device.addresses.iter().any(|address| address.ip == own),
            index => device.index == index,
        });
        found.next().map(|device| device.index)
    }
}
