//! Messages as they are in datagrams: `struct nlmsghdr` and `struct nlattr` of netlink(7).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::IpAddr;

use linux_raw_sys::netlink as raw;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::errno::{Errno, Result};
use crate::net::packet::boxed;

/// sizeof(struct nlmsghdr).
pub const HEADER: usize = 16;
/// sizeof(struct nlattr).
const ATTRIBUTE: usize = 4;
/// The longest message that is written here, bytes.
pub const LONGEST: usize = 2048;
/// NLA_TYPE_MASK: the upper bits say how the rest is written.
const TYPE_MASK: u16 = 0x3fff;

/// `struct nlmsghdr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// Bytes, with the header.
    pub len: u32,
    pub kind: u16,
    /// NLM_F_*.
    pub flags: u16,
    pub seq: u32,
    /// Who sent the request, as a port.
    pub port: u32,
}

/// A message of a program.
pub struct Request<'a> {
    pub header: Header,
    /// What follows the header, as it came.
    pub body: &'a [u8],
    /// The socket wants requests looked at in every detail (NETLINK_GET_STRICT_CHK).
    pub strict: bool,
    /// Who sends it, and who made the socket, may change the network (CAP_NET_ADMIN).
    pub admin: bool,
}

impl<'a> Request<'a> {
    pub fn has(&self, flags: u32) -> bool {
        u32::from(self.header.flags) & flags != 0
    }

    /// What every message of a type begins with; EINVAL if it is not there in full.
    pub fn head<T: FromBytes>(&self) -> Result<T> {
        T::read_from_prefix(self.body).map(|(head, _)| head).map_err(|_| Errno::EINVAL)
    }

    /// The attributes behind a head of this size.
    pub fn attributes(&self, head: usize) -> Attributes<'a> {
        Attributes(self.body.get(head.next_multiple_of(4)..).unwrap_or(&[]))
    }
}

/// Attributes one after the other. One that says that it is longer than what is left, or shorter than its own header, is the end.
#[derive(Clone, Copy)]
pub struct Attributes<'a>(&'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let ([len, kind], _) = <[u16; 2]>::read_from_prefix(self.0).ok()?;
        let data = self.0.get(ATTRIBUTE..usize::from(len))?;
        self.0 = self.0.get(usize::from(len).next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind & TYPE_MASK, data))
    }
}

impl<'a> Attributes<'a> {
    /// The last attribute of this type, which is the one that counts.
    pub fn find(self, wanted: u16) -> Option<&'a [u8]> {
        self.filter(|(kind, _)| *kind == wanted).last().map(|(_, data)| data)
    }

    /// A number of four bytes; ERANGE if it has fewer.
    pub fn number(self, wanted: u16) -> Result<Option<u32>> {
        self.find(wanted).map(to_number).transpose()
    }

    /// An address of this family.
    pub fn address(self, wanted: u16, family: u8) -> Result<Option<IpAddr>> {
        self.find(wanted).map(|data| to_ip(data, family)).transpose()
    }
}

/// A number of four bytes; ERANGE if it has fewer.
pub fn to_number(data: &[u8]) -> Result<u32> {
    u32::read_from_prefix(data).map(|(value, _)| value).map_err(|_| Errno::ERANGE)
}

/// The address of a family in network byte order; ERANGE if there are too few bytes.
pub fn to_ip(data: &[u8], family: u8) -> Result<IpAddr> {
    match u16::from(family) {
        crate::net::inet::AF_INET => data.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        _ => data.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
    }
    .ok_or(Errno::ERANGE)
}

/// Messages of one datagram that are being written.
pub struct Writer {
    bytes: Vec<u8>,
    /// No message goes beyond it.
    limit: usize,
    /// What goes into the headers.
    seq: u32,
    port: u32,
    /// Where the message begins that is being written.
    start: usize,
}

impl Writer {
    /// For a datagram of this many bytes at most, to answer `request`. ENOBUFS if there is no memory.
    pub fn new(limit: usize, seq: u32, port: u32) -> Result<Self> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(limit + LONGEST).map_err(|_| Errno::ENOBUFS)?;
        Ok(Writer { bytes, limit, seq, port, start: 0 })
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// ENOBUFS if there is no memory.
    pub fn into_bytes(self) -> Result<Box<[u8]>> {
        boxed(self.bytes)
    }

    pub fn begin(&mut self, kind: u32, flags: u32, head: &[u8]) {
        self.start = self.bytes.len();
        let header = Header { len: 0, kind: kind as u16, flags: flags as u16, seq: self.seq, port: self.port };
        self.bytes.extend_from_slice(header.as_bytes());
        self.raw(head);
    }

    /// The end of a message. False: there was no room for it, and it is not there.
    pub fn end(&mut self) -> bool {
        let len = self.bytes.len() - self.start;
        if self.bytes.len() > self.limit {
            self.bytes.truncate(self.start);
            return false;
        }
        self.patch(self.start, &(len as u32).to_ne_bytes());
        true
    }

    /// Bytes as they are, filled up to a multiple of four.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn patch(&mut self, at: usize, bytes: &[u8]) {
        self.bytes.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
    }

    pub fn attribute(&mut self, kind: u32, data: &[u8]) {
        self.raw([(ATTRIBUTE + data.len()) as u16, kind as u16].as_bytes());
        self.raw(data);
    }

    pub fn number(&mut self, kind: u32, value: u32) {
        self.attribute(kind, &value.to_ne_bytes());
    }

    pub fn byte(&mut self, kind: u32, value: u8) {
        self.attribute(kind, &[value]);
    }

    /// With the NUL at its end.
    pub fn text(&mut self, kind: u32, text: &str) {
        let mut bytes = [0; 32];
        let len = text.len().min(bytes.len() - 1);
        bytes.iter_mut().zip(text.bytes().take(len)).for_each(|(to, from)| *to = from);
        self.attribute(kind, bytes.get(..=len).unwrap_or(&[]));
    }

    pub fn ip(&mut self, kind: u32, ip: IpAddr) {
        match ip {
            IpAddr::V4(ip) => self.attribute(kind, &ip.octets()),
            IpAddr::V6(ip) => self.attribute(kind, &ip.octets()),
        }
    }
}

/// The messages of a datagram, as far as their lengths make sense.
#[cfg(test)]
pub fn split(mut bytes: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    core::iter::from_fn(move || {
        let (header, body) = first(bytes)?;
        bytes = bytes.get(step(&header)..).unwrap_or(&[]);
        Some((header, body))
    })
}

/// The first of them.
pub fn first(bytes: &[u8]) -> Option<(Header, &[u8])> {
    let (header, _) = Header::read_from_prefix(bytes).ok()?;
    Some((header, bytes.get(HEADER..header.len as usize)?))
}

/// How far on the next one begins.
pub fn step(header: &Header) -> usize {
    (header.len as usize).next_multiple_of(4)
}

/// NLMSG_ERROR: the answer to a request that failed (`errno`), or that wants to know that it did not. A failed request is
/// shown in full unless the socket has set NETLINK_CAP_ACK.
pub fn acknowledge(request: &Request<'_>, port: u32, errno: Option<Errno>, capped: bool) -> Result<Box<[u8]>> {
    let shown = if errno.is_some() && !capped { request.body } else { &[] };
    let flags = if errno.is_some() && !capped { 0 } else { raw::NLM_F_CAPPED };
    let len = HEADER + 4 + HEADER + shown.len();
    let mut out = Writer::new(len.next_multiple_of(4), request.header.seq, port)?;
    out.begin(raw::NLMSG_ERROR, flags, &errno.map_or(0, |errno| -errno.get()).to_ne_bytes());
    out.raw(request.header.as_bytes());
    out.raw(shown);
    out.end();
    out.into_bytes()
}
