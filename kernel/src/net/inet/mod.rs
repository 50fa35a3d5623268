//! Internet sockets: ip(7), ipv6(7), tcp(7), udp(7).
//!
//! Two sockets of this machine need no packets: a sender puts its bytes straight into the receiver's queue, as Unix sockets
//! do, and what would be a SYN, a FIN or an RST is a call of the other one's. There are no checksums, windows or timers, so the
//! loopback is as fast as memory. What goes to other machines is [`super::card`]'s.
//!
//! * [`Endpoint`]: address and port, and the two forms of `struct sockaddr`.
//! * [`ports`]: who has which port; also how a connection finds its listener and a datagram its receiver.
//! * [`tcp`], [`udp`]: the sockets; [`ip`]: those for ICMP and for packets as they are. [`options`]: what IPPROTO_IP and IPPROTO_IPV6 know.
//! * [`told`], [`sending`]: what control messages say of packets that come and go; [`failures`]: those that do not arrive.
//! * [`events`]: what is counted. [`groups`]: multicast.
//!
//! Locks: the state of a TCP socket, of two the one at the lower address first → a shard of ports → leaves.

mod endpoint;
pub mod events;
pub(super) mod failures;
pub(crate) mod groups;
pub mod ip;
pub(super) mod keyed;
mod options;
pub(super) mod ports;
mod sending;
mod shared;
pub mod tcp;
#[cfg(test)]
mod tests;
pub(super) mod told;
pub mod udp;

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::net as raw;

use self::ip::{IpSocket, Kind};
use self::options::HOPS;
use self::tcp::TcpSocket;
use self::udp::UdpSocket;
use super::interface;
use super::socket::{Common, Switches, Type};
use crate::errno::{Errno, Result};
use crate::fs::FileOps;
use crate::process::{Caps, Thread};

pub use endpoint::{AF_INET, AF_INET6, Endpoint};
pub use ports::{SHARDS, shard_of};
pub use sending::Sending;

pub const IPPROTO_ICMP: u8 = raw::IPPROTO_ICMP as u8;
pub const IPPROTO_TCP: u8 = raw::IPPROTO_TCP as u8;
pub const IPPROTO_UDP: u8 = raw::IPPROTO_UDP as u8;
pub const IPPROTO_UDPLITE: u8 = raw::IPPROTO_UDPLITE as u8;
pub const IPPROTO_ICMPV6: u8 = raw::IPPROTO_ICMPV6 as u8;
/// One more than the largest protocol number of Linux (IPPROTO_MPTCP is the last).
const IPPROTO_MAX: i32 = 263;
/// net.ipv4.ip_unprivileged_port_start.
const PRIVILEGED: u16 = 1024;

/// What /proc/net and sock_diag(7) tell of a socket.
pub struct Row {
    pub family: u16,
    pub local: Endpoint,
    pub remote: Endpoint,
    /// TCP_* of Linux.
    pub state: u8,
    /// Bytes that were not sent, not read; of a listener connections that wait.
    pub sending: usize,
    pub receiving: usize,
    /// Of a listener: how many may wait.
    pub backlog: usize,
    /// Directions that are shut: 1 to receive, 2 to send.
    pub shut: u8,
    /// IPV6_V6ONLY.
    pub only_v6: bool,
    pub uid: u32,
    pub inode: u64,
}

/// A part of a protocol's sockets, each with the place behind it: see [`ports::Ports::part`].
pub type Part = Vec<(usize, Option<Row>)>;

/// What is told of a part of the holders of ports; nothing if there is no memory for it.
fn told_of<S>(part: Vec<(usize, Option<ports::Holding<S>>)>, row: fn(ports::Holding<S>) -> Option<Row>) -> Part {
    let mut rows = Vec::new();
    if rows.try_reserve_exact(part.len()).is_ok() {
        rows.extend(part.into_iter().map(|(place, holding)| (place, holding.and_then(row))));
    }
    rows
}

/// Is it a protocol of datagrams with ports?
pub fn is_udp(protocol: u8) -> bool {
    matches!(protocol, IPPROTO_UDP | IPPROTO_UDPLITE)
}

/// Is it an ICMP socket?
pub fn is_icmp(common: &Common) -> bool {
    common.kind == Type::Datagram && matches!(common.protocol, IPPROTO_ICMP | IPPROTO_ICMPV6)
}

/// A socket of AF_INET or AF_INET6 of the SOCK_* `kind`.
pub fn make(t: &Thread, family: u16, kind: u32, protocol: i32) -> Result<Arc<dyn FileOps>> {
    if !(0..IPPROTO_MAX).contains(&protocol) {
        return Err(Errno::EINVAL);
    }
    let protocol = u8::try_from(protocol).ok();
    match (kind, protocol) {
        (raw::SOCK_STREAM, Some(0 | IPPROTO_TCP)) => Ok(TcpSocket::new(family)),
        (raw::SOCK_DGRAM, Some(0 | IPPROTO_UDP)) => Ok(UdpSocket::new(family)),
        (raw::SOCK_DGRAM, Some(IPPROTO_UDPLITE)) => Ok(UdpSocket::with(family, IPPROTO_UDPLITE)),
        (raw::SOCK_DGRAM, Some(protocol)) if protocol == ip::messages_of(family) => {
            if ip::may_ask(t.creds()) {
                Ok(IpSocket::new(family, Kind::Echo, protocol))
            } else {
                Err(Errno::EACCES)
            }
        }
        (raw::SOCK_RAW, protocol) if protocol != Some(0) && !t.creds().capable(Caps::NET_RAW) => Err(Errno::EPERM),
        (raw::SOCK_RAW, Some(protocol @ 1..)) => Ok(IpSocket::new(family, Kind::Raw, protocol)),
        (raw::SOCK_STREAM | raw::SOCK_DGRAM | raw::SOCK_RAW, _) => Err(Errno::EPROTONOSUPPORT),
        // SOCK_MAX.
        (11.., _) => Err(Errno::EINVAL),
        _ => Err(Errno::ESOCKTNOSUPPORT),
    }
}

/// Whether `t` may bind a socket to `local`.
fn check_bindable(t: &Thread, local: Endpoint) -> Result<()> {
    if !interface::is_bindable(local.ip) {
        return Err(Errno::EADDRNOTAVAIL);
    }
    if local.port != 0 && local.port < PRIVILEGED && !t.creds().capable(Caps::NET_BIND_SERVICE) {
        return Err(Errno::EACCES);
    }
    Ok(())
}

/// What a socket with these options says of a port that it wants.
fn claim(common: &Common, local: Endpoint, only_v6: bool, user: u32) -> ports::Claim {
    let mut claim = ports::Claim::new(local);
    claim.only_v6 = only_v6;
    claim.reuse = common.is_on(Switches::REUSEADDR);
    claim.device = common.device();
    claim.shared_by = common.is_on(Switches::REUSEPORT).then_some(user);
    claim
}
