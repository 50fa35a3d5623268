//! Addresses and ports: `struct sockaddr_in` (ip(7)) and `struct sockaddr_in6` (ipv6(7)).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use linux_raw_sys::net as raw;

use crate::errno::{Errno, Result};
use crate::net::address;
use crate::net::socket::{Address, Target};

pub const AF_UNSPEC: u16 = raw::AF_UNSPEC as u16;
pub const AF_INET: u16 = raw::AF_INET as u16;
pub const AF_INET6: u16 = raw::AF_INET6 as u16;

/// sizeof(struct sockaddr_in).
const SIZE: usize = 16;
/// sizeof(struct sockaddr_in6), and that of RFC 2133, without a scope, which is taken, too.
pub const SIZE6: usize = 28;
const OLD_SIZE6: usize = 24;

/// Who is at one end. An IPv4 address is one, even in a socket of AF_INET6, whose programs see it mapped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Endpoint {
    pub ip: IpAddr,
    pub port: u16,
}

impl Endpoint {
    pub const fn any(family: u16) -> Self {
        let ip = if family == AF_INET6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        Endpoint { ip, port: 0 }
    }

    /// As programs see it through a socket of `family`.
    pub fn to_address(self, family: u16) -> Address {
        let mut out = Address::new();
        out.extend_from_slice(&family.to_ne_bytes());
        out.extend_from_slice(&self.port.to_be_bytes());
        match (family, self.ip) {
            (AF_INET6, ip) => {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                out.resize(8, 0);
                out.extend_from_slice(&ip.octets());
                out.resize(SIZE6, 0);
            }
            (_, ip) => {
                let ip = if let IpAddr::V4(ip) = ip { ip } else { Ipv4Addr::UNSPECIFIED };
                out.extend_from_slice(&ip.octets());
                out.resize(SIZE, 0);
            }
        }
        out
    }

    /// The same of one that something has come from, through the interface `index`: of what is of one network only it says of which.
    pub fn to_address_through(self, family: u16, index: i32) -> Address {
        let mut out = self.to_address(family);
        if needs_scope(self.ip)
            && let Some(scope) = out.get_mut(OLD_SIZE6..SIZE6)
        {
            scope.copy_from_slice(&index.to_ne_bytes());
        }
        out
    }

    /// Does it stand for every address of the machine?
    pub fn is_any(self) -> bool {
        self.ip.is_unspecified()
    }
}

fn port(bytes: &[u8]) -> u16 {
    bytes.get(2..4).and_then(|port| port.first_chunk()).map_or(0, |port| u16::from_be_bytes(*port))
}

fn parse4(bytes: &[u8]) -> Result<Endpoint> {
    if bytes.len() < SIZE {
        return Err(Errno::EINVAL);
    }
    let octets: [u8; 4] = *bytes.get(4..).and_then(|rest| rest.first_chunk()).ok_or(Errno::EINVAL)?;
    Ok(Endpoint { ip: IpAddr::V4(Ipv4Addr::from(octets)), port: port(bytes) })
}

fn parse6(bytes: &[u8]) -> Result<Endpoint> {
    if bytes.len() < OLD_SIZE6 {
        return Err(Errno::EINVAL);
    }
    let octets: [u8; 16] = *bytes.get(8..).and_then(|rest| rest.first_chunk()).ok_or(Errno::EINVAL)?;
    let ip = Ipv6Addr::from(octets);
    let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
    Ok(Endpoint { ip, port: port(bytes) })
}

/// Is it one that each network has of its own (__ipv6_addr_needs_scope_id of Linux)?
fn needs_scope(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V6(ip) => ip.is_unicast_link_local() || ip.is_multicast() && matches!(ip.segments()[0] & 0xf, 1 | 2),
        IpAddr::V4(_) => false,
    }
}

/// The interface that `struct sockaddr_in6` names, where the address needs one. 0: none.
fn scope(family: u16, bytes: &[u8], ip: IpAddr) -> i32 {
    let needs = family == AF_INET6 && needs_scope(ip);
    let scope = bytes.get(OLD_SIZE6..).and_then(|rest| rest.first_chunk()).filter(|_| needs);
    scope.map_or(0, |scope| i32::from_ne_bytes(*scope))
}

/// Where a datagram goes to.
pub fn target(family: u16, bytes: &[u8], remote: Endpoint) -> Target {
    match scope(family, bytes, remote.ip) {
        0 => Target::Inet(remote),
        index => Target::Scoped(remote, index),
    }
}

/// The address that bind(2) was given.
pub fn parse_own(family: u16, bytes: &[u8]) -> Result<Endpoint> {
    if family == AF_INET6 {
        if bytes.len() < OLD_SIZE6 {
            return Err(Errno::EINVAL);
        }
        return if address::family(bytes)? == AF_INET6 { parse6(bytes) } else { Err(Errno::EAFNOSUPPORT) };
    }
    let endpoint = parse4(bytes)?;
    match address::family(bytes)? {
        AF_INET => Ok(endpoint),
        // Old programs leave the family out.
        AF_UNSPEC if endpoint.is_any() => Ok(endpoint),
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

/// The address that connect(2) or sendto(2) was given. The unspecified one means this machine.
pub fn parse_peer(family: u16, bytes: &[u8], v4_too: bool) -> Result<Endpoint> {
    let mut endpoint = match (family, address::family(bytes)?) {
        (AF_INET, _) if bytes.len() < SIZE => return Err(Errno::EINVAL),
        (AF_INET, AF_INET) => parse4(bytes)?,
        (AF_INET6, AF_INET) if v4_too => parse4(bytes)?,
        (AF_INET6, _) if bytes.len() < OLD_SIZE6 => return Err(Errno::EINVAL),
        (AF_INET6, AF_INET6) => parse6(bytes)?,
        _ => return Err(Errno::EAFNOSUPPORT),
    };
    endpoint.ip = match endpoint.ip {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    Ok(endpoint)
}
