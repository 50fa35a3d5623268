//! Which way packets for a group take.

use alloc::sync::Arc;
use core::net::{IpAddr, Ipv4Addr};

use crate::errno::{Errno, Result};
use crate::net::card::{self, Port};
use crate::net::interface::{self, LOOPBACK_INDEX};

pub struct Way {
    /// None: the loopback.
    pub port: Option<Arc<Port>>,
    /// Where the packets come from.
    pub source: IpAddr,
}

impl Way {
    /// Through the interface `index` (0: that of the address `own`, or else the one that leads there) and from `own`, if that is given.
    pub fn to_group(group: IpAddr, index: i32, own: Option<IpAddr>) -> Result<Way> {
        let own = own.filter(|own| own.is_ipv4() == group.is_ipv4());
        // Of IPv6 only the index chooses (ip_route_output_key_hash of Linux knows of this, rt6_lookup does not).
        let by_source = index == 0 && group.is_ipv4() && own.is_some_and(interface::is_of_loopback);
        if index == LOOPBACK_INDEX || by_source {
            return Self::through_loopback(group, own);
        }
        let port = match own.filter(|_| index == 0 && group.is_ipv4()) {
            Some(own) => interface::port_of(own),
            None => None,
        };
        let port = match port {
            Some(port) => port,
            None => interface::port_through(group, index)?.ok_or(Errno::ENETUNREACH)?,
        };
        let source = match own.filter(|own| !own.is_unspecified()) {
            Some(own) if own.is_multicast() => return Err(Errno::EINVAL),
            Some(own) if !interface::is_local(own) => return Err(Errno::ENETUNREACH),
            Some(own) => own,
            None => port.with_settings(|settings| settings.source_for(group)).ok_or(Errno::ENETUNREACH)?,
        };
        Ok(Way { port: Some(port), source })
    }

    fn through_loopback(group: IpAddr, own: Option<IpAddr>) -> Result<Way> {
        match own.unwrap_or(Ipv4Addr::LOCALHOST.into()) {
            // Of IPv6 it has no route for groups, as on Linux.
            _ if !interface::is_loopback_up() || group.is_ipv6() => Err(Errno::ENETUNREACH),
            own if own.is_multicast() => Err(Errno::EINVAL),
            own if !interface::is_local(own) => Err(Errno::ENETUNREACH),
            source => Ok(Way { port: None, source }),
        }
    }

    /// The interface.
    pub fn index(&self) -> i32 {
        self.port.as_ref().map_or(LOOPBACK_INDEX, |port| port.index())
    }

    /// Bytes of the longest packet that goes in one piece.
    pub fn mtu(&self) -> usize {
        if self.port.is_some() { card::MTU } else { interface::LOOPBACK_MTU as usize }
    }
}
