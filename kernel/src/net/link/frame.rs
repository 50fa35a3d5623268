//! Frames of Ethernet, whose form the loopback's have, too.

use linux_raw_sys::if_ether as ether;
use linux_raw_sys::if_packet as raw;

use super::LinkSocket;
use crate::net::card::ETHERNET_HEADER;

/// An address of Ethernet.
pub type Mac = [u8; 6];

pub const BROADCAST: Mac = [0xff; 6];
/// The loopback's address, which stands for everybody there, too.
pub const NONE: Mac = [0; 6];
/// Smaller types are lengths (IEEE 802.3).
const FIRST_TYPE: u16 = ether::ETH_P_802_3_MIN as u16;

/// PACKET_*: for whom a frame is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Host = raw::PACKET_HOST as isize,
    Broadcast = raw::PACKET_BROADCAST as isize,
    Multicast = raw::PACKET_MULTICAST as isize,
    Other = raw::PACKET_OTHERHOST as isize,
    Outgoing = raw::PACKET_OUTGOING as isize,
}

impl Kind {
    /// Of a frame that came to an interface with the address `own`, where `all` stands for everybody.
    pub fn of(to: Mac, own: Mac, all: Mac) -> Kind {
        match to {
            to if to == own => Kind::Host,
            to if to == all => Kind::Broadcast,
            to if to[0] & 1 != 0 => Kind::Multicast,
            _ => Kind::Other,
        }
    }
}

/// A frame that goes by an interface.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// With the header of Ethernet.
    pub bytes: &'a [u8],
    pub index: i32,
    /// ARPHRD_*.
    pub hardware: u16,
    pub kind: Kind,
    /// ETH_P_*.
    pub protocol: u16,
    /// Who has sent it does not see it go.
    pub sender: Option<*const LinkSocket>,
}

pub fn target(frame: &[u8]) -> Option<Mac> {
    frame.first_chunk().copied()
}

pub fn source(frame: &[u8]) -> Option<Mac> {
    frame.get(6..).and_then(|rest| rest.first_chunk()).copied()
}

/// ETH_P_* of a frame (eth_type_trans of Linux). None: it has no whole header.
pub fn protocol(frame: &[u8]) -> Option<u16> {
    let (header, rest) = frame.split_at_checked(ETHERNET_HEADER)?;
    let kind = u16::from_be_bytes([*header.get(12)?, *header.get(13)?]);
    Some(match kind {
        FIRST_TYPE.. => kind,
        // Old Netware begins like that.
        _ if rest.starts_with(&[0xff; 2]) => ether::ETH_P_802_3 as u16,
        _ => ether::ETH_P_802_2 as u16,
    })
}

pub fn header(to: Mac, from: Mac, protocol: u16) -> [u8; ETHERNET_HEADER] {
    let mut header = [0; ETHERNET_HEADER];
    header.iter_mut().zip(to.into_iter().chain(from).chain(protocol.to_be_bytes())).for_each(|(to, from)| *to = from);
    header
}
