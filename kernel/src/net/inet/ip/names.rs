//! Addresses and identifiers: bind(2), connect(2), and to whom packets may go.

use super::{IpSocket, Kind, State, table};
use crate::errno::{Errno, Result};
use crate::net::inet::Endpoint;
use crate::net::inet::endpoint::{self, AF_UNSPEC};
use crate::net::socket::Switches;
use crate::net::{address, interface};

impl IpSocket {
    pub(super) fn bind_to(&self, address: &[u8]) -> Result<()> {
        let local = endpoint::parse_own(self.common.family, address)?;
        let asks = self.kind == Kind::Echo;
        if asks && !self.is_v4() && (address.len() < endpoint::SIZE6 || local.ip.is_ipv4()) {
            return Err(Errno::EINVAL);
        }
        if local.ip.is_ipv4() != self.is_v4() || !interface::is_bindable(local.ip) {
            return Err(Errno::EADDRNOTAVAIL);
        }
        let mut state = self.state.lock();
        match self.kind {
            Kind::Echo => {
                if interface::is_group(local.ip) {
                    return Err(Errno::EADDRNOTAVAIL);
                }
                if state.local.port != 0 {
                    return Err(Errno::EINVAL);
                }
                let reuse = self.common.is_on(Switches::REUSEADDR);
                state.local.port = table::claim(self, local.port, local.ip, reuse)?;
                state.port_given = local.port != 0;
            }
            Kind::Raw if state.remote.is_some() => return Err(Errno::EINVAL),
            Kind::Raw => {}
        }
        state.local.ip = local.ip;
        state.address_given = asks && !local.is_any();
        state.remote = None;
        Ok(())
    }

    /// One that asks has an identifier.
    pub(super) fn take_ident(&self, state: &mut State) -> Result<()> {
        if state.local.port == 0 && self.kind == Kind::Echo {
            let reuse = self.common.is_on(Switches::REUSEADDR);
            state.local.port = table::claim(self, 0, state.local.ip, reuse).map_err(|_| Errno::EAGAIN)?;
        }
        Ok(())
    }

    pub(super) fn connect_to(&self, address: &[u8]) -> Result<()> {
        if address::family(address)? == AF_UNSPEC {
            self.disconnect();
            return Ok(());
        }
        let mut state = self.state.lock();
        self.take_ident(&mut state)?;
        let remote = self.parse(address)?;
        let group = remote.ip.is_multicast();
        let bound = Some(state.local.ip).filter(|ip| interface::is_local(*ip));
        let source = match group {
            true => self.groups.lock().way(remote.ip, self.common.device(), bound)?.source,
            false => interface::source_through(remote.ip, self.common.device())?,
        };
        self.common.check_broadcast(remote.ip)?;
        let ip = if state.local.is_any() { source } else { state.local.ip };
        if !group && !interface::leads(ip, remote.ip) {
            return Err(Errno::EINVAL);
        }
        state.local.ip = ip;
        state.remote = Some(remote);
        if self.kind == Kind::Echo {
            table::change(self, state.local.port, ip);
        }
        Ok(())
    }

    /// To whom something goes.
    pub(super) fn parse(&self, address: &[u8]) -> Result<Endpoint> {
        let remote = endpoint::parse_peer(self.common.family, address, false)?;
        if remote.ip.is_ipv4() == self.is_v4() { Ok(remote) } else { Err(Errno::ENETUNREACH) }
    }

    /// What Linux refuses in sendto(2) but not in connect(2).
    pub(super) fn check_destination(&self, address: &[u8], remote: Endpoint) -> Result<Endpoint> {
        let unspecified = !self.is_v4() && address.get(8..24) == Some(&[0; 16]);
        match self.kind {
            Kind::Echo if unspecified => Err(Errno::ENETUNREACH),
            // The port is a protocol there.
            Kind::Raw if !self.is_v4() && remote.port != 0 && remote.port != u16::from(self.common.protocol) => {
                Err(Errno::EINVAL)
            }
            _ => Ok(remote),
        }
    }

    /// connect(2) to AF_UNSPEC: an address or identifier that the program did not choose goes, too.
    fn disconnect(&self) {
        let mut state = self.state.lock();
        state.remote = None;
        if !state.address_given {
            state.local.ip = Endpoint::any(self.common.family).ip;
        }
        if self.kind == Kind::Raw {
            state.local.port = 0;
            if core::mem::take(&mut state.hears) {
                table::remove_raw(self);
            }
            return;
        }
        let ident = state.local.port;
        if ident != 0 && !state.port_given {
            state.local.port = 0;
            table::release(self, ident);
        } else {
            table::change(self, ident, state.local.ip);
        }
    }
}

/// Is it an IPv4 address in the form of IPv6?
pub(super) fn is_mapped(address: &[u8]) -> bool {
    address.get(8..20) == Some(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff])
}
