//! What an interface looks like to programs.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::net::card::{self, Cidr, Port};
use crate::net::{link, netlink};

pub const LOOPBACK_INDEX: i32 = 1;
pub const LOOPBACK_MTU: i32 = 65_536;
/// The index of the first card.
pub const FIRST_CARD: i32 = 2;
pub const ARPHRD_ETHER: u16 = 1;
pub const ARPHRD_LOOPBACK: u16 = 772;
/// IFF_* of netdevice(7).
pub const IFF_UP: i16 = 1;
const IFF_BROADCAST: u32 = 2;
const IFF_LOOPBACK: u32 = 8;
const IFF_RUNNING: u32 = 0x40;
const IFF_MULTICAST: u32 = 0x1000;
/// Not in 16 bits.
const IFF_LOWER_UP: u32 = 0x1_0000;

/// Those that the loopback always has while it is up.
pub const LOOPBACK_ADDRESSES: [Cidr; 2] = [
    Cidr { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), prefix: 8 },
    Cidr { ip: IpAddr::V6(Ipv6Addr::LOCALHOST), prefix: 128 },
];

pub struct Device {
    pub name: String,
    pub index: i32,
    pub mtu: i32,
    /// ARPHRD_*.
    pub kind: u16,
    pub mac: [u8; 6],
    pub up: bool,
    /// Somebody is at the other end.
    pub link: bool,
    pub addresses: Vec<Cidr>,
    /// None: the loopback.
    pub port: Option<Arc<Port>>,
}

/// The loopback and the cards, by their indices.
pub fn devices() -> Vec<Device> {
    let mut all = vec![loopback()];
    all.extend(super::cards().into_iter().map(of_card));
    all
}

fn loopback() -> Device {
    let up = super::is_loopback_up();
    let mut addresses = Vec::new();
    if up {
        addresses.extend(LOOPBACK_ADDRESSES);
        addresses.extend(super::loopback_addresses());
    }
    Device {
        name: "lo".into(),
        index: LOOPBACK_INDEX,
        mtu: LOOPBACK_MTU,
        kind: ARPHRD_LOOPBACK,
        mac: [0; 6],
        up,
        link: up,
        addresses,
        port: None,
    }
}

fn of_card(port: Arc<Port>) -> Device {
    Device {
        name: port.name().into(),
        index: port.index(),
        mtu: card::MTU as i32,
        kind: ARPHRD_ETHER,
        mac: port.card().mac(),
        up: port.is_up(),
        link: port.card().link(),
        addresses: port.settings().addresses,
        port: Some(port),
    }
}

impl Device {
    pub fn is_loopback(&self) -> bool {
        self.port.is_none()
    }

    /// Its first IPv4 address.
    pub fn address4(&self) -> Option<(Ipv4Addr, Cidr)> {
        self.addresses.iter().find_map(|own| match own.ip {
            IpAddr::V4(ip) => Some((ip, *own)),
            IpAddr::V6(_) => None,
        })
    }

    /// As netlink shows them; ioctls have the lower half.
    pub fn flags(&self) -> u32 {
        let mut flags = if self.is_loopback() { IFF_LOOPBACK } else { IFF_BROADCAST | IFF_MULTICAST };
        if self.up {
            flags |= IFF_UP as u32;
            if self.link {
                flags |= IFF_RUNNING | IFF_LOWER_UP;
            }
        }
        flags
    }

    pub fn set_up(&self, up: bool) {
        match &self.port {
            Some(port) => port.set_up(up),
            None => super::set_loopback(up),
        }
        if !up {
            link::gone_down(self.index);
        }
        netlink::tell_link(self.index);
    }
}
