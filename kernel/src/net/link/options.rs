//! The options of SOL_PACKET: packet(7). What belongs to rings and to groups of sockets (PACKET_FANOUT) is not there.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use linux_raw_sys::if_packet as raw;
use smallvec::SmallVec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::name::ADDRESS;
use super::{Frame, LinkSocket, device_of};
use crate::errno::{Errno, Result};
use crate::net::interface;
use crate::net::socket::Extra;

pub const SOL_PACKET: u32 = 263;
/// It is the program's. Nobody has looked at checksums for it.
const STATUS: u32 = raw::TP_STATUS_USER;
/// How many memberships a socket has at most.
const MOST: usize = 4096;

/// `struct packet_mreq`: what an interface is to let through, for as long as the socket lives.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Wish {
    index: i32,
    /// PACKET_MR_*.
    kind: u16,
    len: u16,
    address: [u8; 8],
}

pub struct Membership {
    wish: Wish,
    count: u32,
}

/// `struct tpacket_auxdata`.
#[repr(C)]
#[derive(Clone, Copy, IntoBytes, Immutable)]
struct More {
    status: u32,
    len: u32,
    kept: u32,
    link: u16,
    network: u16,
    vlan: u16,
    vlan_kind: u16,
}

/// PACKET_AUXDATA: what is told of a frame.
pub fn more(frame: &Frame) -> Extra {
    let more = More {
        status: STATUS,
        len: frame.full as u32,
        kept: frame.data.len() as u32,
        link: 0,
        network: frame.network as u16,
        vlan: 0,
        vlan_kind: 0,
    };
    Extra { level: SOL_PACKET, kind: raw::PACKET_AUXDATA, data: SmallVec::from_slice(more.as_bytes()) }
}

impl Wish {
    /// EINVAL: it is cut short. What is behind the address does not count.
    fn parse(value: &[u8]) -> Result<Wish> {
        let (mut wish, _) = Wish::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
        let len = usize::from(wish.len);
        wish.address.iter_mut().skip(len).for_each(|byte| *byte = 0);
        if value.len() < 8 + len { Err(Errno::EINVAL) } else { Ok(wish) }
    }

    /// Frames for everybody come to a card that somebody looks at like that. Those for groups come to it anyway.
    fn opens_card(&self) -> bool {
        matches!(u32::from(self.kind), raw::PACKET_MR_PROMISC | raw::PACKET_MR_UNICAST)
    }

    fn take_effect(&self, on: bool) {
        let port = interface::cards().into_iter().find(|port| port.index() == self.index);
        if let Some(port) = port.filter(|_| self.opens_card()) {
            port.be_promiscuous(on);
        }
    }
}

impl LinkSocket {
    fn join(&self, value: &[u8]) -> Result<()> {
        let wish = Wish::parse(value)?;
        if device_of(wish.index).is_none() {
            return Err(Errno::ENODEV);
        }
        let len = usize::from(wish.len);
        let with_address = matches!(u32::from(wish.kind), raw::PACKET_MR_MULTICAST | raw::PACKET_MR_UNICAST);
        if len > ADDRESS || with_address && len != ADDRESS {
            return Err(Errno::EINVAL);
        }
        let mut all = self.memberships.lock();
        if let Some(there) = all.iter_mut().find(|there| there.wish == wish) {
            there.count = there.count.saturating_add(1);
            return Ok(());
        }
        if all.len() >= MOST || all.try_reserve(1).is_err() {
            return Err(Errno::ENOBUFS);
        }
        all.push(Membership { wish, count: 1 });
        // Under the lock: who leaves comes after it.
        wish.take_effect(true);
        Ok(())
    }

    /// What is not there is left without a word, as on Linux.
    fn leave(&self, value: &[u8]) -> Result<()> {
        let wish = Wish::parse(value)?;
        let mut all = self.memberships.lock();
        let Some(place) = all.iter().position(|there| there.wish == wish) else { return Ok(()) };
        if let Some(there) = all.get_mut(place) {
            there.count -= 1;
            if there.count == 0 {
                all.remove(place);
                wish.take_effect(false);
            }
        }
        Ok(())
    }

    pub(super) fn leave_all(&self) {
        let all = core::mem::take(&mut *self.memberships.lock());
        all.iter().for_each(|membership| membership.wish.take_effect(false));
    }

    pub(super) fn get(&self, level: u32, option: u32) -> Result<Vec<u8>> {
        let value = match option {
            _ if level != SOL_PACKET => return Err(Errno::ENOPROTOOPT),
            raw::PACKET_STATISTICS => {
                let mut state = self.state.lock();
                let counts = [core::mem::take(&mut state.seen), core::mem::take(&mut state.lost)];
                return Ok(counts.as_bytes().to_vec());
            }
            raw::PACKET_AUXDATA => self.tells_more.load(Ordering::Relaxed),
            raw::PACKET_IGNORE_OUTGOING => self.ignores_outgoing.load(Ordering::Relaxed),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(i32::from(value).as_bytes().to_vec())
    }

    pub(in crate::net) fn set(&self, level: u32, option: u32, value: &[u8]) -> Result<()> {
        let int = || i32::read_from_prefix(value).map(|(int, _)| int).map_err(|_| Errno::EINVAL);
        match option {
            _ if level != SOL_PACKET => return Err(Errno::ENOPROTOOPT),
            raw::PACKET_ADD_MEMBERSHIP => return self.join(value),
            raw::PACKET_DROP_MEMBERSHIP => return self.leave(value),
            raw::PACKET_AUXDATA => self.tells_more.store(int()? != 0, Ordering::Relaxed),
            raw::PACKET_IGNORE_OUTGOING => match int()? {
                on @ 0..=1 => self.ignores_outgoing.store(on == 1, Ordering::Relaxed),
                _ => return Err(Errno::EINVAL),
            },
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }
}
