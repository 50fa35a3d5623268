//! What control messages of sendmsg(2) say of a packet: ip(7), ipv6(7).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use linux_raw_sys::net as raw;
use zerocopy::FromBytes;

use super::options::{SOL_IP, SOL_IPV6};
use crate::errno::{Errno, Result};
use crate::net::interface;

/// What is not said is as the socket's options have it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Sending {
    pub source: Option<IpAddr>,
    /// The interface; 0: any.
    pub index: i32,
    pub hops: Option<u8>,
    /// Type of service, traffic class.
    pub class: Option<u8>,
}

fn int(data: &[u8]) -> Result<i32> {
    i32::read_from_bytes(data).map_err(|_| Errno::EINVAL)
}

/// A byte; -1 stands for what the socket has.
fn byte6(data: &[u8]) -> Result<Option<u8>> {
    match int(data)? {
        -1 => Ok(None),
        value => Ok(Some(u8::try_from(value).map_err(|_| Errno::EINVAL)?)),
    }
}

/// `struct in6_pktinfo`, behind which there may be more.
fn info6(data: &[u8]) -> Result<(Ipv6Addr, i32)> {
    let (ip, rest) = <[u8; 16]>::read_from_prefix(data).map_err(|_| Errno::EINVAL)?;
    let (index, _) = i32::read_from_prefix(rest).map_err(|_| Errno::EINVAL)?;
    Ok((Ipv6Addr::from(ip), index))
}

impl Sending {
    /// Takes in a message for a packet of IPv4 (ip_cmsg_send of Linux), which a socket of AF_INET6 may send, too (`mapped`).
    pub fn add4(&mut self, level: u32, kind: u32, data: &[u8], mapped: bool) -> Result<()> {
        if mapped && (level, kind) == (SOL_IPV6, raw::IPV6_PKTINFO) {
            let (ip, index) = info6(data)?;
            let ip = ip.to_ipv4_mapped().ok_or(Errno::EINVAL)?;
            self.set_source4(ip, index);
            return Ok(());
        }
        if level != SOL_IP {
            return Ok(());
        }
        match kind {
            raw::IP_PKTINFO => {
                let [index, ip, _] = <[[u8; 4]; 3]>::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
                self.set_source4(Ipv4Addr::from(ip), i32::from_ne_bytes(index));
            }
            raw::IP_TTL => {
                let hops = u8::try_from(int(data)?).map_err(|_| Errno::EINVAL)?;
                self.hops = Some(if hops == 0 { Err(Errno::EINVAL) } else { Ok(hops) }?);
            }
            raw::IP_TOS => {
                let class = if let [class] = data { i32::from(*class) } else { int(data)? };
                self.class = Some(u8::try_from(class).map_err(|_| Errno::EINVAL)?);
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    fn set_source4(&mut self, ip: Ipv4Addr, index: i32) {
        if index != 0 {
            self.index = index;
        }
        self.source = (!ip.is_unspecified()).then_some(IpAddr::V4(ip));
    }

    /// The same for IPv6 (ip6_datagram_send_ctl of Linux).
    pub fn add6(&mut self, level: u32, kind: u32, data: &[u8]) -> Result<()> {
        if level != SOL_IPV6 {
            return Ok(());
        }
        match kind {
            raw::IPV6_PKTINFO => {
                let (ip, index) = info6(data)?;
                if index != 0 {
                    if self.index != 0 && self.index != index {
                        return Err(Errno::EINVAL);
                    }
                    self.index = index;
                }
                if self.index != 0 {
                    check_interface(self.index)?;
                } else if ip.is_unicast_link_local() {
                    return Err(Errno::EINVAL);
                }
                if !ip.is_unspecified() {
                    if !interface::is_local(IpAddr::V6(ip)) {
                        return Err(Errno::EINVAL);
                    }
                    self.source = Some(IpAddr::V6(ip));
                }
            }
            raw::IPV6_HOPLIMIT => self.hops = byte6(data)?,
            raw::IPV6_TCLASS => self.class = byte6(data)?,
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    /// Whether a packet can go to `to` as it is said here.
    #[inline]
    pub fn check(&self, to: IpAddr) -> Result<()> {
        if self.source.is_none() && self.index == 0 { Ok(()) } else { self.check_way(to) }
    }

    #[cold]
    fn check_way(&self, to: IpAddr) -> Result<()> {
        if let Some(source) = self.source {
            if interface::is_group(source) {
                return Err(Errno::EINVAL);
            }
            if !interface::is_local(source) || source.is_ipv4() != to.is_ipv4() {
                return Err(Errno::ENETUNREACH);
            }
            if !interface::leads(source, to) {
                return Err(Errno::EINVAL);
            }
        }
        if self.index == 0 {
            return Ok(());
        }
        check_interface(self.index)?;
        interface::port_through(to, self.index).map(drop)
    }
}

/// ENODEV: there is none with that index.
#[inline]
fn check_interface(index: i32) -> Result<()> {
    let found = interface::devices().iter().any(|device| device.index == index);
    if found { Ok(()) } else { Err(Errno::ENODEV) }
}
