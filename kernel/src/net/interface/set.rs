//! The ioctls that change interfaces, routes and neighbours: netdevice(7), `struct rtentry`.

use core::net::{IpAddr, Ipv4Addr};

use linux_raw_sys::{ioctl as cmds, netlink as raw};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::change::{self, Wanted};
use super::device::{self, Device};
use super::ioctl::{IfReq, QUEUE_LENGTH};
use crate::errno::{Errno, Result};
use crate::mm::{UserPtr, read_cstr};
use crate::net::card::Cidr;
use crate::net::inet::AF_INET;
use crate::process::{Caps, Thread};

/// Least of an Ethernet interface, bytes.
const LEAST_MTU: i32 = 68;
/// RTF_*.
const GATEWAY: u16 = 2;
const HOST: u16 = 4;
const REJECT: u16 = 0x200;
/// IFNAMSIZ.
const NAME: usize = 16;

/// `struct sockaddr`.
type Address = [u8; 16];

/// `struct rtentry`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Entry {
    _pad1: u64,
    to: Address,
    gateway: Address,
    mask: Address,
    flags: u16,
    _pad2: [u16; 3],
    _pad3: [u64; 2],
    /// One more than it is.
    metric: i16,
    _pad4: [u16; 3],
    device: u64,
    _mtu: u64,
    _window: u64,
    _rtt: u64,
}

pub fn is_change(cmd: u32) -> bool {
    matches!(
        cmd,
        cmds::SIOCSIFFLAGS
            | cmds::SIOCSIFADDR
            | cmds::SIOCSIFNETMASK
            | cmds::SIOCSIFBRDADDR
            | cmds::SIOCSIFDSTADDR
            | cmds::SIOCSIFMETRIC
            | cmds::SIOCSIFMTU
            | cmds::SIOCSIFHWADDR
            | cmds::SIOCSIFTXQLEN
    )
}

pub fn allowed(t: &Thread) -> Result<()> {
    if t.creds().capable(Caps::NET_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

fn family(address: &[u8]) -> u16 {
    address.first_chunk().map_or(0, |family| u16::from_ne_bytes(*family))
}

fn ip(address: &[u8]) -> Ipv4Addr {
    address.get(4..).and_then(|rest| rest.first_chunk::<4>()).map_or(Ipv4Addr::UNSPECIFIED, |ip| Ipv4Addr::from(*ip))
}

/// How long a mask is; None: it has holes.
fn prefix(mask: Ipv4Addr) -> Option<u8> {
    let bits = mask.to_bits();
    let len = bits.leading_ones();
    (bits.count_ones() == len).then_some(len as u8)
}

/// The network that an address had before there were masks (inet_abc_len of Linux). None: it is nobody's.
fn class(ip: Ipv4Addr) -> Option<u8> {
    match ip.octets()[0] {
        0 => Some(0),
        1..=127 => Some(8),
        128..=191 => Some(16),
        192..=223 => Some(24),
        224..=239 => None,
        _ if ip.is_broadcast() => Some(0),
        _ => Some(32),
    }
}

/// One of SIOCSIF*.
pub fn apply(t: &Thread, cmd: u32, device: Option<Device>, request: &IfReq) -> Result<()> {
    allowed(t)?;
    let number = i32::read_from_prefix(&request.value).map_or(0, |(number, _)| number);
    let of_address =
        matches!(cmd, cmds::SIOCSIFADDR | cmds::SIOCSIFNETMASK | cmds::SIOCSIFBRDADDR | cmds::SIOCSIFDSTADDR);
    if of_address && family(&request.value) != AF_INET {
        return Err(Errno::EINVAL);
    }
    let device = device.ok_or(Errno::ENODEV)?;
    match cmd {
        cmds::SIOCSIFFLAGS => {
            device.set_up(request.flags() & device::IFF_UP != 0);
            Ok(())
        }
        cmds::SIOCSIFADDR => set_address(&device, ip(&request.value)),
        _ if of_address => {
            let own = device.address4().map(|(_, own)| own).ok_or(Errno::EADDRNOTAVAIL)?;
            set_part(&device, cmd, own, ip(&request.value))
        }
        // What it is already.
        cmds::SIOCSIFMTU if number == device.mtu => Ok(()),
        cmds::SIOCSIFMTU if number < 0 || !device.is_loopback() && number < LEAST_MTU => Err(Errno::EINVAL),
        cmds::SIOCSIFHWADDR if family(&request.value) != device.kind => Err(Errno::EINVAL),
        cmds::SIOCSIFTXQLEN if number == QUEUE_LENGTH => Ok(()),
        cmds::SIOCSIFTXQLEN if number < 0 => Err(Errno::EINVAL),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// The first address becomes another one, or goes away with 0.0.0.0.
fn set_address(device: &Device, ip: Ipv4Addr) -> Result<()> {
    let prefix = class(ip).ok_or(Errno::EINVAL)?;
    let old = device.address4();
    if old.is_some_and(|(old, _)| old == ip) {
        return Ok(());
    }
    let new = (!ip.is_unspecified()).then_some(Cidr { ip: IpAddr::V4(ip), prefix });
    change::exchange_address(device, old.map(|(_, own)| own), new)
}

/// SIOCSIFNETMASK, and what follows from that.
fn set_part(device: &Device, cmd: u32, own: Cidr, given: Ipv4Addr) -> Result<()> {
    if cmd == cmds::SIOCSIFNETMASK {
        let new = Cidr { prefix: prefix(given).ok_or(Errno::EINVAL)?, ..own };
        return if new == own { Ok(()) } else { change::exchange_address(device, Some(own), Some(new)) };
    }
    let there = match cmd {
        cmds::SIOCSIFBRDADDR if device.is_loopback() => Some(Ipv4Addr::UNSPECIFIED),
        cmds::SIOCSIFBRDADDR => own.broadcast(),
        _ => device.address4().map(|(ip, _)| ip),
    };
    if there == Some(given) { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
}

/// SIOCADDRT and SIOCDELRT (rtentry_to_fib_config of Linux).
pub async fn route(t: &Thread, adds: bool, at: UserPtr<Entry>) -> Result<u64> {
    allowed(t)?;
    let entry = at.read(t.mm()).await?;
    let name = match entry.device {
        0 => None,
        at => Some(read_cstr(t.mm(), at, NAME).await?),
    };
    let (to, mask) = (ip(&entry.to), ip(&entry.mask));
    let mut len = 32;
    if family(&entry.to) != AF_INET {
        return Err(Errno::EAFNOSUPPORT);
    }
    if entry.flags & HOST == 0 {
        if family(&entry.mask) != AF_INET && (!mask.is_unspecified() || family(&entry.mask) != 0) {
            return Err(Errno::EAFNOSUPPORT);
        }
        len = prefix(mask).filter(|_| to & !mask == Ipv4Addr::UNSPECIFIED).ok_or(Errno::EINVAL)?;
    }
    if entry.flags & REJECT != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let index = match &name {
        None => 0,
        Some(name) => {
            let found = super::devices().into_iter().find(|device| device.name.as_bytes() == &name[..]);
            found.ok_or(Errno::ENODEV)?.index as u32
        }
    };
    let gateway = ip(&entry.gateway);
    let gateway = Some(gateway).filter(|ip| family(&entry.gateway) == AF_INET && !ip.is_unspecified());
    let wanted = Wanted {
        to: Cidr { ip: to.into(), prefix: len },
        gateway: gateway.map(IpAddr::V4),
        index,
        metric: (entry.metric > 0).then(|| entry.metric as u32 - 1),
        protocol: raw::RTPROT_BOOT as u8,
    };
    if !adds {
        return change::forget_route(&wanted).map(|()| 0);
    }
    if entry.flags & GATEWAY != 0 && gateway.is_none() {
        return Err(Errno::EINVAL);
    }
    // The same again is an error, another way to the same place is none.
    let same = super::routes().into_iter().any(|route| {
        (route.to, route.gateway, route.metric) == (wanted.to, wanted.gateway, wanted.metric.unwrap_or(0))
            && (index == 0 || index == route.index)
    });
    if same {
        return Err(Errno::EEXIST);
    }
    change::add_route(&wanted, |flag| flag == raw::NLM_F_CREATE).map(|()| 0)
}

/// SIOCSARP and SIOCDARP: neighbours are the stack's.
pub async fn neighbour(t: &Thread, at: u64) -> Result<u64> {
    /// sizeof(struct arpreq).
    const SIZE: usize = 68;
    allowed(t)?;
    let mut request = [0; SIZE];
    UserPtr::<u8>::new(at).read_bytes(t.mm(), &mut request).await?;
    if family(&request) != AF_INET { Err(Errno::EPFNOSUPPORT) } else { Err(Errno::EOPNOTSUPP) }
}
