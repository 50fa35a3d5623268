//! What has been sent to a socket and not been received yet.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Weak;

use super::UnixSocket;
use crate::errno::{Errno, Result};
use crate::fs::TryError;
use crate::fs::pipe::Ring;
use crate::mm::IoBuf;
use crate::net::rights::Rights;
use crate::net::socket::{Address, Ucred};

/// Bytes that a stream holds, about what Linux lets through with the default buffers.
pub const STREAM_CAPACITY: usize = 208 * 1024;

/// A message.
pub struct Packet {
    pub data: Box<[u8]>,
    pub from: Option<Address>,
    pub rights: Option<Rights>,
    pub creds: Option<Ucred>,
    /// Whose send buffer it takes up, and how much of it.
    pub sender: Weak<UnixSocket>,
    pub charge: usize,
}

/// Ancillary data of a part of a stream.
pub struct Mark {
    /// Positions of its first byte and of the byte after it, counted from the first byte that was ever sent.
    start: u64,
    end: u64,
    rights: Option<Rights>,
    creds: Option<Ucred>,
}

/// Bytes in order.
pub struct Stream {
    ring: Ring,
    marks: VecDeque<Mark>,
    /// Position of the next byte to be read.
    head: u64,
}

pub enum Inbox {
    Stream(Stream),
    Packets(VecDeque<Packet>),
}

/// What comes along with bytes of a stream.
#[derive(Default)]
pub struct Taken {
    pub len: usize,
    pub rights: Option<Rights>,
    pub creds: Option<Ucred>,
    /// The next bytes do not belong to the same message.
    pub barrier: bool,
}

impl Inbox {
    pub fn is_empty(&self) -> bool {
        match self {
            Inbox::Stream(stream) => stream.ring.is_empty(),
            Inbox::Packets(packets) => packets.is_empty(),
        }
    }

    pub fn for_each_right(&self, f: &mut dyn FnMut(&Rights)) {
        match self {
            Inbox::Stream(stream) => stream.marks.iter().filter_map(|mark| mark.rights.as_ref()).for_each(f),
            Inbox::Packets(packets) => packets.iter().filter_map(|packet| packet.rights.as_ref()).for_each(f),
        }
    }

    /// SIOCINQ: bytes of a stream, or of the next message.
    pub fn available(&self) -> usize {
        match self {
            Inbox::Stream(stream) => stream.ring.len(),
            Inbox::Packets(packets) => packets.front().map_or(0, |packet| packet.data.len()),
        }
    }
}

impl Stream {
    pub fn new() -> Self {
        Stream { ring: Ring::new(STREAM_CAPACITY), marks: VecDeque::new(), head: 0 }
    }

    pub fn len(&self) -> usize {
        self.ring.len()
    }

    pub fn room(&self) -> usize {
        self.ring.room()
    }

    /// Bytes without anything that came along. None: there are no bytes, or not such.
    #[inline]
    pub fn read_plain(&mut self, buf: &mut IoBuf<'_>) -> Option<Result<usize, TryError>> {
        if self.ring.is_empty() || !self.marks.is_empty() {
            return None;
        }
        let result = self.ring.read(buf);
        self.head += *result.as_ref().unwrap_or(&0) as u64;
        Some(result)
    }

    /// Takes in what fits. What comes along belongs to the first byte; it is taken out of the options if any byte is.
    pub fn write(
        &mut self,
        buf: &mut IoBuf<'_>,
        rights: &mut Option<Rights>,
        creds: Option<Ucred>,
    ) -> Result<usize, TryError> {
        let start = self.head + self.ring.len() as u64;
        if rights.is_some() || creds.is_some() {
            self.marks.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        }
        let len = self.ring.write(buf, false)?;
        if len == 0 {
            return Ok(0);
        }
        let end = start + len as u64;
        match self.marks.back_mut() {
            // The same writer goes on.
            Some(last) if rights.is_none() && last.rights.is_none() && last.creds == creds && last.end == start => {
                last.end = end;
            }
            _ if rights.is_some() || creds.is_some() => {
                self.marks.push_back(Mark { start, end, rights: rights.take(), creds });
            }
            _ => {}
        }
        Ok(len)
    }

    /// Does the message that a read would begin with, or run into, hold Unix sockets?
    pub fn next_has_sockets(&self) -> bool {
        self.marks.iter().find_map(|mark| mark.rights.as_ref()).is_some_and(Rights::has_sockets)
    }

    /// How many bytes can be read before something that must not be mixed with them. `by_writer`: the receiver wants to
    /// know who wrote them, so bytes of different writers are kept apart.
    fn reach(&self, by_writer: bool) -> usize {
        let creds = self.creds_at_head();
        for mark in &self.marks {
            let apart = by_writer && mark.start > self.head && mark.creds != creds;
            if apart {
                return (mark.start - self.head) as usize;
            }
            if mark.rights.is_some() || by_writer {
                return (mark.end - self.head) as usize;
            }
        }
        self.ring.len()
    }

    fn creds_at_head(&self) -> Option<Ucred> {
        self.marks.front().filter(|mark| mark.start <= self.head).and_then(|mark| mark.creds)
    }

    pub fn read(&mut self, buf: &mut IoBuf<'_>, by_writer: bool) -> Result<Taken, TryError> {
        let reach = self.reach(by_writer);
        let creds = self.creds_at_head();
        let cut = buf.limit(reach);
        let result = self.ring.read(buf);
        buf.extend(cut);
        let len = result?;
        self.head += len as u64;
        let mut taken = Taken { len, creds, barrier: len == reach && reach > 0 && !self.ring.is_empty(), rights: None };
        while let Some(mark) = self.marks.front_mut().filter(|mark| mark.start < self.head) {
            taken.barrier |= mark.rights.is_some();
            taken.rights = taken.rights.or_else(|| mark.rights.take());
            if mark.end > self.head {
                break;
            }
            self.marks.pop_front();
        }
        Ok(taken)
    }

    /// The same, and everything stays.
    pub fn peek(&mut self, buf: &mut IoBuf<'_>, by_writer: bool) -> Result<(Taken, Option<&Rights>), TryError> {
        let bytes = self.ring.peek(self.reach(by_writer).min(buf.remaining()))?;
        let len = buf.copy_to(&bytes)?;
        let creds = self.creds_at_head();
        let end = self.head + len as u64;
        let rights = self.marks.iter().take_while(|mark| mark.start < end).find_map(|mark| mark.rights.as_ref());
        Ok((Taken { len, creds, rights: None, barrier: true }, rights))
    }
}
