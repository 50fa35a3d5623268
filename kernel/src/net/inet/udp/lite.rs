//! UDP-Lite (RFC 3828), udplite(7): the checksum of a datagram covers as much of it as the sender wants, and who wants more covered does
//! not get it.
//!
//! Its ports are its own. It stays within the machine: the stack of a card does not know it.

use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, Ordering};

use zerocopy::FromBytes;

use super::{PORTS, UdpSocket};
use crate::errno::{Errno, Result};
use crate::net::inet::ip::packet::{self, Arrived};
use crate::net::inet::ports::Ports;
use crate::net::inet::{Endpoint, IPPROTO_UDP, IPPROTO_UDPLITE};

const UDP_HEADER: usize = 8;
/// UDPLITE_SEND_CSCOV, UDPLITE_RECV_CSCOV.
const SEND: u32 = 10;
const RECEIVE: u32 = 11;
/// Nothing was said.
const NOTHING: u32 = u32::MAX;

static LITE_PORTS: Ports<UdpSocket> = Ports::new();

/// Bytes that a checksum covers, with those of the header; 0: all.
pub(super) struct Coverage {
    send: AtomicU32,
    receive: AtomicU32,
}

impl Coverage {
    pub const fn new() -> Self {
        Coverage { send: AtomicU32::new(NOTHING), receive: AtomicU32::new(NOTHING) }
    }

    fn of(&self, option: u32) -> Option<&AtomicU32> {
        match option {
            SEND => Some(&self.send),
            RECEIVE => Some(&self.receive),
            _ => None,
        }
    }
}

/// Who has the ports of UDP, or of UDP-Lite.
#[inline(always)]
pub(super) fn ports_of(lite: bool) -> &'static Ports<UdpSocket> {
    if lite { &LITE_PORTS } else { &PORTS }
}

impl UdpSocket {
    #[inline(always)]
    pub(super) fn is_lite(&self) -> bool {
        self.common.protocol == IPPROTO_UDPLITE
    }

    #[inline(always)]
    pub(super) fn ports(&self) -> &'static Ports<UdpSocket> {
        ports_of(self.is_lite())
    }

    /// Of a datagram that it sends with so many bytes: what is covered. None: it is one of UDP.
    #[inline(always)]
    pub(super) fn covers(&self, len: usize) -> Option<u16> {
        if self.is_lite() { Some(self.part_of(len)) } else { None }
    }

    #[cold]
    fn part_of(&self, len: usize) -> u16 {
        self.coverage.send.load(Ordering::Relaxed).min((UDP_HEADER + len) as u32) as u16
    }

    /// Is enough covered of a datagram with so many bytes?
    #[cold]
    pub(super) fn trusts(&self, covered: u16, len: usize) -> bool {
        let least = self.coverage.receive.load(Ordering::Relaxed);
        let all = covered == 0 || usize::from(covered) == UDP_HEADER + len;
        all || least == NOTHING || least != 0 && u32::from(covered) >= least
    }

    /// None: it is of another level.
    pub(super) fn get_coverage(&self, level: u32, option: u32) -> Option<Result<i32>> {
        is_level(level).then(|| {
            let value = self.coverage.of(option).ok_or(Errno::ENOPROTOOPT)?.load(Ordering::Relaxed);
            Ok(if value == NOTHING { 0 } else { value as i32 })
        })
    }

    /// None: it is no option of these.
    pub(super) fn set_coverage(&self, level: u32, option: u32, value: &[u8]) -> Option<Result<()>> {
        let place = self.coverage.of(option).filter(|_| is_level(level))?;
        let Ok((value, _)) = i32::read_from_prefix(value) else { return Some(Err(Errno::EINVAL)) };
        if !self.is_lite() {
            return Some(Err(Errno::ENOPROTOOPT));
        }
        let value = if value == 0 { 0 } else { value.clamp(UDP_HEADER as i32, u16::MAX.into()) };
        place.store(value as u32, Ordering::Relaxed);
        Some(Ok(()))
    }
}

fn is_level(level: u32) -> bool {
    level == IPPROTO_UDP.into() || level == IPPROTO_UDPLITE.into()
}

/// Over so much of a datagram of this length and what stands for its addresses.
fn sum(from: IpAddr, to: IpAddr, len: usize, covered: &[u8]) -> u16 {
    let mut rest = [0; 8];
    rest[..4].copy_from_slice(&(len as u32).to_be_bytes());
    rest[7] = IPPROTO_UDPLITE;
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => packet::checksum(&[&from.octets(), &to.octets(), &rest, covered]),
        (IpAddr::V6(from), IpAddr::V6(to)) => packet::checksum(&[&from.octets(), &to.octets(), &rest, covered]),
        _ => 0,
    }
}

/// Makes a datagram of UDP, with its header, one of UDP-Lite.
pub(super) fn convert(from: IpAddr, to: IpAddr, datagram: &mut [u8], covered: u16) {
    packet::put(datagram, 4, covered);
    packet::put(datagram, 6, 0);
    let part = if covered == 0 { datagram.len() } else { usize::from(covered) };
    let sum = sum(from, to, datagram.len(), datagram.get(..part).unwrap_or(datagram));
    packet::put(datagram, 6, if sum == 0 { 0xffff } else { sum });
}

/// One that a raw socket has written. False if nobody is there to receive it.
pub fn arrive(packet: &Arrived<'_>) -> bool {
    let (payload, len) = (packet.payload, packet.payload.len());
    let Some((header, data)) = payload.split_first_chunk::<UDP_HEADER>() else { return true };
    let field = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let covered = field(4);
    let part = if covered == 0 { len } else { usize::from(covered) };
    // What is wrong is lost. A checksum there must be.
    let Some(bytes) = payload.get(..part).filter(|_| part >= UDP_HEADER) else { return true };
    if field(6) == 0 || sum(packet.from, packet.to, len, bytes) != 0 {
        return true;
    }
    let (local, remote) = (Endpoint { ip: packet.to, port: field(2) }, Endpoint { ip: packet.from, port: field(0) });
    let header = (packet.hops, packet.class);
    super::remote::hand_over(local, remote, packet.index, header, Some(covered), data)
}
