//! Addresses and ports: `struct sockaddr_in` (ip(7)) and `struct sockaddr_in6` (ipv6(7)).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use linux_raw_sys::net as raw;

use crate::errno::{Errno, Result};
use crate::net::address;
use crate::net::socket::Address;

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
