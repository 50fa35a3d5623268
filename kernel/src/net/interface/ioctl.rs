//! The ioctls about interfaces: netdevice(7).

use core::net::{IpAddr, Ipv4Addr};

use linux_raw_sys::ioctl as cmds;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::device::Device;
use super::set;
use crate::errno::{Errno, Result};
use crate::fs::Op;
use crate::mm::UserPtr;
use crate::net::inet::{AF_INET, AF_INET6, Endpoint};
use crate::process::Thread;

pub const QUEUE_LENGTH: i32 = 1000;

/// `struct ifreq`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IfReq {
    name: [u8; 16],
    pub value: [u8; 24],
}

/// `struct ifconf`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct IfConf {
    len: i32,
    _pad: u32,
    buffer: u64,
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

    pub fn flags(&self) -> i16 {
        i16::from_ne_bytes([self.value[0], self.value[1]])
    }
}

/// The ioctls about interfaces, of sockets of all families. ENOTTY for others.
pub fn ioctl<'a>(t: &'a Thread, cmd: u32, arg: u64) -> Op<'a, Result<u64>> {
    match cmd {
        cmds::SIOCGIFCONF => Op::boxed(list(t, UserPtr::new(arg))),
        cmds::SIOCADDRT | cmds::SIOCDELRT => Op::boxed(set::route(t, cmd == cmds::SIOCADDRT, UserPtr::new(arg))),
        cmds::SIOCSARP | cmds::SIOCDARP => Op::boxed(set::neighbour(t, arg)),
        cmds::SIOCGIFNAME
        | cmds::SIOCGIFFLAGS
        | cmds::SIOCSIFFLAGS
        | cmds::SIOCSIFADDR
        | cmds::SIOCSIFNETMASK
        | cmds::SIOCSIFBRDADDR
        | cmds::SIOCSIFDSTADDR
        | cmds::SIOCSIFMETRIC
        | cmds::SIOCSIFMTU
        | cmds::SIOCSIFHWADDR
        | cmds::SIOCSIFTXQLEN
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

/// The same of sockets of `family`. EOPNOTSUPP: those of IPv6 change addresses and routes with structures of their own, which are not
/// known here; EPERM: or may not.
pub fn ioctl_of(family: u16, t: &Thread, cmd: u32, arg: u64) -> Op<'_, Result<u64>> {
    match cmd {
        _ if family != AF_INET6 => ioctl(t, cmd, arg),
        cmds::SIOCADDRT | cmds::SIOCDELRT | cmds::SIOCSIFADDR | cmds::SIOCDIFADDR => {
            Op::ready(set::allowed(t).and(Err(Errno::EOPNOTSUPP)))
        }
        // Of tunnels, which are not there.
        cmds::SIOCSIFDSTADDR => Op::ready(Err(Errno::ENODEV)),
        // Only IPv4 has these.
        cmds::SIOCGIFADDR
        | cmds::SIOCGIFDSTADDR
        | cmds::SIOCGIFBRDADDR
        | cmds::SIOCSIFBRDADDR
        | cmds::SIOCGIFNETMASK
        | cmds::SIOCSIFNETMASK
        | cmds::SIOCSARP
        | cmds::SIOCDARP => Op::ready(Err(Errno::ENOTTY)),
        _ => ioctl(t, cmd, arg),
    }
}

async fn request(t: &Thread, cmd: u32, at: UserPtr<IfReq>) -> Result<u64> {
    let mut request = at.read(t.mm()).await?;
    if cmd == cmds::SIOCGIFNAME {
        let index = i32::read_from_prefix(&request.value).map_or(0, |(index, _)| index);
        let device = super::devices().into_iter().find(|device| device.index == index).ok_or(Errno::ENODEV)?;
        request.name = IfReq::named(device.name.as_bytes()).name;
    } else {
        let device = super::devices().into_iter().find(|device| device.name.as_bytes() == request.name());
        if set::is_change(cmd) {
            return set::apply(t, cmd, device, &request).map(|()| 0);
        }
        let device = device.ok_or(Errno::ENODEV)?;
        describe(&device, cmd, &mut request)?;
    }
    at.write(t.mm(), request).await?;
    Ok(0)
}

/// What is to be known about an interface.
fn describe(device: &Device, cmd: u32, request: &mut IfReq) -> Result<()> {
    let address = || device.address4().ok_or(Errno::EADDRNOTAVAIL);
    match cmd {
        cmds::SIOCGIFFLAGS => request.set(&(device.flags() as i16).to_ne_bytes()),
        cmds::SIOCGIFADDR | cmds::SIOCGIFDSTADDR => request.set_address(address()?.0),
        cmds::SIOCGIFBRDADDR => {
            request.set_address(
                address()?.1.broadcast().filter(|_| !device.is_loopback()).unwrap_or(Ipv4Addr::UNSPECIFIED),
            );
        }
        cmds::SIOCGIFNETMASK => request.set_address(address()?.1.mask()),
        cmds::SIOCGIFMETRIC => request.set(&0i32.to_ne_bytes()),
        cmds::SIOCGIFMTU => request.set(&device.mtu.to_ne_bytes()),
        cmds::SIOCGIFHWADDR => {
            request.set(&device.kind.to_ne_bytes());
            request.value[2..8].copy_from_slice(&device.mac);
        }
        cmds::SIOCGIFINDEX => request.set(&device.index.to_ne_bytes()),
        _ => request.set(&QUEUE_LENGTH.to_ne_bytes()),
    }
    Ok(())
}

/// SIOCGIFCONF: the interfaces that have IPv4 addresses, as many as there is room for. Without a buffer only the room that they
/// need.
async fn list(t: &Thread, at: UserPtr<IfConf>) -> Result<u64> {
    let mut answer = at.read(t.mm()).await?;
    let size = size_of::<IfReq>();
    let room = if answer.buffer == 0 { usize::MAX } else { answer.len.max(0) as usize / size };
    let mut count = 0;
    for device in super::devices() {
        let Some((ip, _)) = device.address4().filter(|_| count < room) else { continue };
        if answer.buffer != 0 {
            let mut request = IfReq::named(device.name.as_bytes());
            request.set_address(ip);
            UserPtr::new(answer.buffer + (count * size) as u64).write(t.mm(), request).await?;
        }
        count += 1;
    }
    answer.len = (count * size) as i32;
    at.write(t.mm(), answer).await?;
    Ok(0)
}
