//! What becomes of packets that do not arrive: icmp(7), and IP_RECVERR of ip(7).
//!
//! * [`mod@message`]: what ICMP says, out of a packet that has come ([`Failure`]), and such packets from this machine.
//! * [`ErrorQueue`]: what a socket keeps of it for recvmsg(2) with MSG_ERRQUEUE.
//!
//! [`arrive`] finds out whose packet it was: that of raw sockets of its protocol, and of one for datagrams or echoes. TCP is told by the
//! task of its card.

mod message;
mod queue;
#[cfg(test)]
mod tests;

use core::net::IpAddr;

use super::ip::{self, Arrived};
use super::options::IpOptions;
use super::{IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_UDP, IPPROTO_UDPLITE, udp};
use crate::errno::Errno;

pub use message::{datagram_refused, errno_of, packet_refused};
pub use queue::ErrorQueue;

/// A packet that has not arrived, and what somebody says of it.
pub struct Failure<'a> {
    /// The message.
    pub by: Arrived<'a>,
    pub kind: u8,
    pub code: u8,
    /// ee_info: the size that would have been right, where a header is wrong.
    pub info: u32,
    pub errno: Errno,
    /// Another attempt would fail as well.
    pub lasts: bool,
    /// It was too large.
    pub is_size: bool,
    /// The packet: as much of it as is quoted, and what follows its header, which is 8 bytes or more.
    pub from: IpAddr,
    pub to: IpAddr,
    pub protocol: u8,
    pub quoted: &'a [u8],
    pub body: &'a [u8],
}

/// What a socket does about a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    Nothing,
    /// The next call is told.
    Error,
    /// That, and the program reads the whole story.
    Story,
}

impl Failure<'_> {
    /// What a socket for datagrams or echoes does (__udp4_lib_err, __udp6_lib_err and ping_err of Linux).
    pub fn reaction(&self, options: &IpOptions, asked: bool, connected: bool) -> Reaction {
        let v4 = self.to.is_ipv4();
        if self.is_size && v4 && !options.discovers(v4) {
            return Reaction::Nothing;
        }
        let lasts = self.lasts || self.is_size && options.discovers(v4);
        match (asked, lasts && connected) {
            (true, _) => Reaction::Story,
            (false, true) => Reaction::Error,
            (false, false) => Reaction::Nothing,
        }
    }

    /// The ports that the packet had.
    pub fn ports(&self) -> (u16, u16) {
        let at = |at: usize| {
            let bytes = self.body.get(at..).and_then(|rest| rest.first_chunk());
            bytes.map_or(0, |bytes| u16::from_be_bytes(*bytes))
        };
        (at(0), at(2))
    }
}

/// A message of ICMP for this machine: who sent what it is about is told.
pub fn arrive(packet: &Arrived<'_>) {
    let Some(failure) = Failure::parse(packet) else { return };
    ip::failed_raw(&failure);
    match failure.protocol {
        IPPROTO_UDP | IPPROTO_UDPLITE => udp::failed(&failure),
        IPPROTO_ICMP | IPPROTO_ICMPV6 => ip::failed_echo(&failure),
        _ => {}
    }
}
