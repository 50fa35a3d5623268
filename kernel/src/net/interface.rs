//! Network interfaces: netdevice(7).
//!
//! There is the loopback, "lo", which is down until somebody brings it up, as on Linux; it has its addresses while it is up.
//! Nothing goes through it: sockets of this machine reach each other without packets (see [`super::inet`]).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicBool, Ordering};

use linux_raw_sys::ioctl as cmds;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::inet::{AF_INET, Endpoint};
use crate::errno::{Errno, Result};
use crate::fs::Op;
use crate::mm::UserPtr;
use crate::process::{Caps, Thread};

const LOOPBACK: &[u8] = b"lo";
const LOOPBACK_INDEX: i32 = 1;
const LOOPBACK_MTU: i32 = 65_536;
const QUEUE_LENGTH: i32 = 1000;
const ARPHRD_LOOPBACK: u16 = 772;
/// IFF_* of netdevice(7).
const IFF_UP: i16 = 1;
const IFF_LOOPBACK: i16 = 8;
const IFF_RUNNING: i16 = 0x40;

static LOOPBACK_UP: AtomicBool = AtomicBool::new(false);

/// `struct ifreq`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct IfReq {
    name: [u8; 16],
    value: [u8; 24],
}

/// `struct ifconf`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct IfConf {
    len: i32,
    _pad: u32,
    buffer: u64,
}

pub fn is_loopback_up() -> bool {
    LOOPBACK_UP.load(Ordering::Relaxed)
}

pub fn set_loopback(up: bool) {
    LOOPBACK_UP.store(up, Ordering::Relaxed);
}

/// Is it an address of this machine?
pub fn is_local(ip: IpAddr) -> bool {
    is_loopback_up()
        && match ip {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        }
}

/// May a socket be bound to it? Broadcast and multicast addresses are for receiving only.
pub fn is_bindable(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) || is_local(ip)
}

/// Where packets for `ip` come from.
pub fn source_for(ip: IpAddr) -> Result<IpAddr> {
    match ip {
        _ if !is_local(ip) => Err(Errno::ENETUNREACH),
        IpAddr::V4(_) => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        IpAddr::V6(_) => Ok(IpAddr::V6(Ipv6Addr::LOCALHOST)),
    }
}

impl IfReq {
    fn named(name: &[u8]) -> Self {
        let mut request = IfReq { name: [0; 16], value: [0; 24] };
        request.name.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
        request
    }

    fn name(&self) -> &[u8] {
        self.name.split(|byte| *byte == 0).next().unwrap_or(&self.name)
    }

    fn set(&mut self, bytes: &[u8]) {
        self.value.fill(0);
        self.value.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    }

    fn set_address(&mut self, ip: Ipv4Addr) {
        self.set(&Endpoint { ip: IpAddr::V4(ip), port: 0 }.to_address(AF_INET));
    }

    fn flags(&self) -> i16 {
        i16::from_ne_bytes([self.value[0], self.value[1]])
    }
}

/// The ioctls about interfaces, of sockets of all families. ENOTTY for others.
pub fn ioctl<'a>(t: &'a Thread, cmd: u32, arg: u64) -> Op<'a, Result<u64>> {
    match cmd {
        cmds::SIOCGIFCONF => Op::boxed(list(t, UserPtr::new(arg))),
        cmds::SIOCGIFNAME
        | cmds::SIOCGIFFLAGS
        | cmds::SIOCSIFFLAGS
        | cmds::SIOCGIFADDR
        | cmds::SIOCGIFDSTADDR
        | cmds::SIOCGIFBRDADDR
        | cmds::SIOCGIFNETMASK
        | cmds::SIOCGIFMETRIC
        | cmds::SIOCGIFMTU
        | cmds::SIOCGIFHWADDR
        | cmds::SIOCGIFINDEX
        | cmds::SIOCGIFTXQLEN => Op::boxed(request(t, cmd, UserPtr::new(arg))),
        _ => Op::ready(Err(Errno::ENOTTY)),
    }
}

async fn request(t: &Thread, cmd: u32, at: UserPtr<IfReq>) -> Result<u64> {
    let mut request = at.read(t.mm()).await?;
    if cmd == cmds::SIOCGIFNAME {
        let index = i32::read_from_prefix(&request.value).map_or(0, |(index, _)| index);
        if index != LOOPBACK_INDEX {
            return Err(Errno::ENODEV);
        }
        request.name = IfReq::named(LOOPBACK).name;
    } else if request.name() != LOOPBACK {
        return Err(Errno::ENODEV);
    } else if cmd == cmds::SIOCSIFFLAGS {
        if !t.creds().capable(Caps::NET_ADMIN) {
            return Err(Errno::EPERM);
        }
        set_loopback(request.flags() & IFF_UP != 0);
        return Ok(0);
    } else {
        describe(cmd, &mut request)?;
    }
    at.write(t.mm(), request).await?;
    Ok(0)
}

/// What is to be known about the loopback.
fn describe(cmd: u32, request: &mut IfReq) -> Result<()> {
    let up = is_loopback_up();
    let address = |ip| if up { Ok(ip) } else { Err(Errno::EADDRNOTAVAIL) };
    match cmd {
        cmds::SIOCGIFFLAGS => {
            let flags = IFF_LOOPBACK | if up { IFF_UP | IFF_RUNNING } else { 0 };
            request.set(&flags.to_ne_bytes());
        }
        cmds::SIOCGIFADDR | cmds::SIOCGIFDSTADDR => request.set_address(address(Ipv4Addr::LOCALHOST)?),
        cmds::SIOCGIFBRDADDR => request.set_address(address(Ipv4Addr::UNSPECIFIED)?),
        cmds::SIOCGIFNETMASK => request.set_address(address(Ipv4Addr::new(255, 0, 0, 0))?),
        cmds::SIOCGIFMETRIC => request.set(&0i32.to_ne_bytes()),
        cmds::SIOCGIFMTU => request.set(&LOOPBACK_MTU.to_ne_bytes()),
        cmds::SIOCGIFHWADDR => request.set(&ARPHRD_LOOPBACK.to_ne_bytes()),
        cmds::SIOCGIFINDEX => request.set(&LOOPBACK_INDEX.to_ne_bytes()),
        _ => request.set(&QUEUE_LENGTH.to_ne_bytes()),
    }
    Ok(())
}

/// SIOCGIFCONF: the interfaces that have IPv4 addresses. Without a buffer only the room that they need.
async fn list(t: &Thread, at: UserPtr<IfConf>) -> Result<u64> {
    let mut answer = at.read(t.mm()).await?;
    let mut request = IfReq::named(LOOPBACK);
    request.set_address(Ipv4Addr::LOCALHOST);
    let size = size_of::<IfReq>() as i32;
    let fits = answer.buffer == 0 || answer.len >= size;
    let count = i32::from(is_loopback_up() && fits);
    if answer.buffer != 0 && count > 0 {
        UserPtr::new(answer.buffer).write(t.mm(), request).await?;
    }
    answer.len = count * size;
    at.write(t.mm(), answer).await?;
    Ok(0)
}
