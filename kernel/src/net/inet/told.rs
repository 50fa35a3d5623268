//! What is told of a packet besides its bytes, for programs that ask: ip(7), ipv6(7), socket(7).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};
use core::sync::atomic::Ordering;

use linux_raw_sys::net as raw;
use zerocopy::{FromBytes, IntoBytes};

use super::options::{SOL_IP, SOL_IPV6};
use super::{AF_INET6, Endpoint, is_udp};
use crate::errno::{Errno, Result};
use crate::net::interface::{self, LOOPBACK_INDEX};
use crate::net::socket::{Common, Extra, Extras};
use crate::time;

/// The switches: level and option.
const TOLD: [(u32, u32); 10] = [
    (SOL_IP, raw::IP_PKTINFO),
    (SOL_IP, raw::IP_RECVTTL),
    (SOL_IP, raw::IP_RECVTOS),
    (SOL_IP, raw::IP_RECVORIGDSTADDR),
    (SOL_IP, raw::IP_RECVERR),
    (SOL_IPV6, raw::IPV6_RECVPKTINFO),
    (SOL_IPV6, raw::IPV6_RECVHOPLIMIT),
    (SOL_IPV6, raw::IPV6_RECVTCLASS),
    (SOL_IPV6, raw::IPV6_RECVORIGDSTADDR),
    (SOL_IPV6, raw::IPV6_RECVERR),
];

/// Which of [`TOLD`] are on.
#[derive(Clone, Copy, Default)]
pub struct Told(pub u32);

/// What is known of how a packet came.
#[derive(Clone, Copy)]
pub struct About {
    /// Whom it was for; the port only of datagrams.
    pub to: Endpoint,
    /// The interface.
    pub index: i32,
    pub hops: u8,
    /// Type of service, traffic class.
    pub class: u8,
    pub noted: Noted,
    /// Nanoseconds since 1970; 0: nobody has noted it.
    pub at: u64,
}

/// What IP_PKTINFO tells depends on what was on when the packet came (ipv4_pktinfo_prepare of Linux).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    Nothing,
    Interface,
    /// Also which address of the machine it was.
    All,
}

fn position(level: u32, option: u32) -> Option<usize> {
    TOLD.iter().position(|told| *told == (level, option))
}

impl Told {
    fn bit(common: &Common, level: u32, option: u32) -> Option<u32> {
        let known = match (level, option) {
            (SOL_IPV6, _) if common.family != AF_INET6 => false,
            (SOL_IP, raw::IP_RECVORIGDSTADDR) | (SOL_IPV6, raw::IPV6_RECVORIGDSTADDR) => is_udp(common.protocol),
            _ => true,
        };
        position(level, option).filter(|_| known).map(|place| 1 << place)
    }

    fn is_on(self, level: u32, option: u32) -> bool {
        position(level, option).is_some_and(|place| self.0 & 1 << place != 0)
    }

    /// IP_RECVERR or IPV6_RECVERR.
    pub fn errors(self, v4: bool) -> bool {
        if v4 { self.is_on(SOL_IP, raw::IP_RECVERR) } else { self.is_on(SOL_IPV6, raw::IPV6_RECVERR) }
    }

    /// IP_PKTINFO or IPV6_RECVPKTINFO.
    pub fn wants_interface(self) -> bool {
        const BITS: u32 = 1 | 1 << 5;
        self.0 & BITS != 0
    }

    /// None: it is none of these.
    pub fn get(self, common: &Common, level: u32, option: u32) -> Option<i32> {
        Self::bit(common, level, option).map(|bit| i32::from(self.0 & bit != 0))
    }

    pub fn set(&mut self, common: &Common, level: u32, option: u32, value: &[u8]) -> Option<Result<()>> {
        let bit = Self::bit(common, level, option)?;
        let on = match i32::read_from_prefix(value) {
            Ok((on, _)) => on,
            // A byte is enough for options of IP.
            Err(_) if level == SOL_IP => value.first().map_or(0, |byte| i32::from(*byte)),
            Err(_) => return Some(Err(Errno::EINVAL)),
        };
        self.0 = if on != 0 { self.0 | bit } else { self.0 & !bit };
        Some(Ok(()))
    }

    /// What goes with a packet.
    pub fn extras(self, common: &Common, about: &About) -> Option<Box<Extras>> {
        if self.0 == 0 && common.times.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut all = Vec::new();
        all.extend(moment(common, about.at));
        self.add(common, about, &mut all);
        (!all.is_empty()).then(|| Box::new(Extras(all)))
    }

    /// The same without the time.
    pub fn add(self, common: &Common, about: &About, all: &mut Vec<Extra>) {
        let mut add = |level, kind, data: &[u8]| all.push(Extra { level, kind, data: data.into() });
        let index = if about.noted == Noted::Nothing { 0 } else { about.index };
        if common.family == AF_INET6 && self.is_on(SOL_IPV6, raw::IPV6_RECVPKTINFO) {
            let (to, index) = match about.to.ip {
                IpAddr::V4(to) => (to.to_ipv6_mapped(), index),
                IpAddr::V6(to) => (to, about.index),
            };
            add(SOL_IPV6, raw::IPV6_PKTINFO, &[&to.octets()[..], &index.to_ne_bytes()].concat());
        }
        let (hops, class) = (i32::from(about.hops), i32::from(about.class));
        match about.to.ip {
            IpAddr::V4(to) => {
                if self.is_on(SOL_IP, raw::IP_PKTINFO) {
                    let own = match about.noted {
                        Noted::All if about.index == LOOPBACK_INDEX && interface::is_group(to.into()) => {
                            Ipv4Addr::LOCALHOST
                        }
                        Noted::All => to,
                        _ => Ipv4Addr::UNSPECIFIED,
                    };
                    add(SOL_IP, raw::IP_PKTINFO, [index.to_ne_bytes(), own.octets(), to.octets()].as_flattened());
                }
                if self.is_on(SOL_IP, raw::IP_RECVTTL) {
                    add(SOL_IP, raw::IP_TTL, &hops.to_ne_bytes());
                }
                if self.is_on(SOL_IP, raw::IP_RECVTOS) {
                    add(SOL_IP, raw::IP_TOS, &[about.class]);
                }
                if self.is_on(SOL_IP, raw::IP_RECVORIGDSTADDR) {
                    add(SOL_IP, raw::IP_ORIGDSTADDR, &about.to.to_address(super::AF_INET));
                }
            }
            IpAddr::V6(_) => {
                if self.is_on(SOL_IPV6, raw::IPV6_RECVHOPLIMIT) {
                    add(SOL_IPV6, raw::IPV6_HOPLIMIT, &hops.to_ne_bytes());
                }
                if self.is_on(SOL_IPV6, raw::IPV6_RECVTCLASS) {
                    add(SOL_IPV6, raw::IPV6_TCLASS, &class.to_ne_bytes());
                }
                if self.is_on(SOL_IPV6, raw::IPV6_RECVORIGDSTADDR) {
                    add(SOL_IPV6, raw::IPV6_ORIGDSTADDR, &about.to.to_address(AF_INET6));
                }
            }
        }
    }
}

/// When it came, in the form that the socket wants. As on Linux it is now if nobody has noted it.
pub fn moment(common: &Common, at: u64) -> Option<Extra> {
    let kind = common.times.load(Ordering::Relaxed);
    if kind == 0 {
        return None;
    }
    let at = if at == 0 { time::now_realtime() } else { time::Timespec::from_nanos(at) };
    let in_micros = matches!(kind, raw::SO_TIMESTAMP_OLD | raw::SO_TIMESTAMP_NEW);
    let part = if in_micros { at.nsec / 1000 } else { at.nsec };
    let data = [at.sec, i64::from(part)].as_bytes().into();
    Some(Extra { level: raw::SOL_SOCKET, kind, data })
}
