//! `struct sockaddr_ll`: packet(7).

use linux_raw_sys::if_packet as raw;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::AF_PACKET;
use super::frame::Mac;
use crate::errno::{Errno, Result};
use crate::net::interface::Device;
use crate::net::socket::Address;

/// Bytes before the address.
const HEAD: usize = 12;
const ROOM: usize = 8;
/// How long an address of Ethernet is, and the loopback's.
pub const ADDRESS: usize = size_of::<Mac>();

/// Where a frame comes from or goes to.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Name {
    family: u16,
    /// ETH_P_*, big-endian.
    protocol: [u8; 2],
    pub index: i32,
    /// ARPHRD_*.
    pub hardware: u16,
    /// PACKET_*.
    pub kind: u8,
    len: u8,
    address: [u8; ROOM],
}

impl Name {
    pub fn new(protocol: u16, index: i32) -> Name {
        let family = AF_PACKET;
        Name { family, protocol: protocol.to_be_bytes(), index, hardware: 0, kind: 0, len: 0, address: [0; ROOM] }
    }

    pub fn with_address(mut self, hardware: u16, mac: Mac) -> Name {
        self.hardware = hardware;
        self.len = ADDRESS as u8;
        self.address.iter_mut().zip(mac).for_each(|(to, from)| *to = from);
        self
    }

    /// An interface, or none, and what is listened to there: getsockname(2).
    pub fn own(protocol: u16, index: i32, device: Option<&Device>) -> Address {
        let name = Name::new(protocol, index);
        let name = device.map_or(name, |device| name.with_address(device.kind, device.mac));
        Address::from_slice(name.as_bytes().get(..HEAD + usize::from(name.len)).unwrap_or(&[]))
    }

    /// What a program gave to bind(2).
    pub fn parse(address: &[u8]) -> Result<Name> {
        let (name, _) = Name::read_from_prefix(address).map_err(|_| Errno::EINVAL)?;
        if name.family == AF_PACKET { Ok(name) } else { Err(Errno::EINVAL) }
    }

    /// What a program gave to sendto(2): the family is not looked at, as on Linux.
    pub fn parse_target(address: &[u8]) -> Result<Name> {
        let (name, _) = Name::read_from_prefix(address).map_err(|_| Errno::EINVAL)?;
        if address.len() < HEAD + usize::from(name.len) { Err(Errno::EINVAL) } else { Ok(name) }
    }

    pub fn protocol(&self) -> u16 {
        u16::from_be_bytes(self.protocol)
    }

    pub fn mac(&self) -> Mac {
        self.address.first_chunk().copied().unwrap_or_default()
    }

    pub fn to_address(self) -> Address {
        Address::from_slice(self.as_bytes())
    }
}

const _: () = assert!(size_of::<Name>() == size_of::<raw::sockaddr_ll>());
