//! What has been sent to a socket and not been received yet.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Weak;
use core::ops::Range;

use smallvec::SmallVec;

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

/// What a marked part of a stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Bytes,
    /// The byte that was sent with MSG_OOB last, and is waiting to be taken with MSG_OOB.
    Urgent,
    /// It was taken. The place stays, and ends reads that come to it, as on Linux 6.1.
    Taken,
}

/// A part of a stream that something came along with.
pub struct Mark {
    /// Positions of its first byte and of the byte after it, counted from the first byte that was ever sent.
    start: u64,
    end: u64,
    part: Part,
    rights: Option<Rights>,
    creds: Option<Ucred>,
}

/// Most of them in a stream: they take up memory, too.
const MAX_MARKS: usize = 1024;

/// Bytes in order.
pub struct Stream {
    ring: Ring,
    marks: VecDeque<Mark>,
    /// Position of the next byte to be read.
    head: u64,
    /// Position of the byte that is [`Part::Urgent`].
    urgent: Option<u64>,
    /// How many bytes are [`Part::Taken`].
    taken: usize,
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

    /// There is something that nobody has received.
    pub fn has_unread(&self) -> bool {
        match self {
            Inbox::Stream(_) => self.available() > 0,
            Inbox::Packets(packets) => !packets.is_empty(),
        }
    }

    /// There is an urgent byte.
    pub fn is_urgent(&self) -> bool {
        matches!(self, Inbox::Stream(stream) if stream.urgent.is_some())
    }

    /// SIOCATMARK: it is the next one to be read.
    pub fn at_mark(&self) -> Option<bool> {
        match self {
            Inbox::Stream(stream) => Some(stream.urgent == Some(stream.head)),
            Inbox::Packets(_) => None,
        }
    }

    /// SIOCINQ: bytes of a stream, or of the next message.
    pub fn available(&self) -> usize {
        match self {
            Inbox::Stream(stream) => stream.ring.len() - stream.taken,
            Inbox::Packets(packets) => packets.front().map_or(0, |packet| packet.data.len()),
        }
    }
}

impl Stream {
    pub fn new() -> Self {
        Stream { ring: Ring::new(STREAM_CAPACITY), marks: VecDeque::new(), head: 0, urgent: None, taken: 0 }
    }

    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Bytes that can be sent.
    pub fn room(&self) -> usize {
        if self.marks.len() < MAX_MARKS { self.ring.room() } else { 0 }
    }

    /// Half of the buffer is kept for small writes, as Linux does: a poller is told when a quarter is used at most.
    pub fn has_room(&self) -> bool {
        Stream::has_bytes_room(self.ring.len()) && self.marks.len() * 4 <= MAX_MARKS
    }

    /// The same for a stream of `len` bytes with nothing else.
    #[inline]
    pub fn has_bytes_room(len: usize) -> bool {
        len * 4 <= STREAM_CAPACITY
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
            Some(last)
                if rights.is_none()
                    && last.rights.is_none()
                    && last.creds == creds
                    && last.end == start
                    && last.part == Part::Bytes =>
            {
                last.end = end;
            }
            _ if rights.is_some() || creds.is_some() => {
                self.marks.push_back(Mark { start, end, part: Part::Bytes, rights: rights.take(), creds });
            }
            _ => {}
        }
        Ok(len)
    }

    /// Takes in an urgent byte. One that was there before is one like others from now on.
    pub fn write_urgent(
        &mut self,
        buf: &mut IoBuf<'_>,
        rights: &mut Option<Rights>,
        creds: Option<Ucred>,
    ) -> Result<usize, TryError> {
        let start = self.head + self.ring.len() as u64;
        self.marks.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let cut = buf.limit(1);
        let result = self.ring.write(buf, true);
        buf.extend(cut);
        if result? == 0 {
            return Ok(0);
        }
        if let Some(at) = self.urgent.replace(start)
            && let Some(index) = self.mark_at(at)
            && let Some(mark) = self.marks.get_mut(index)
        {
            mark.part = Part::Bytes;
            if mark.rights.is_none() && mark.creds.is_none() {
                self.marks.remove(index);
            }
        }
        let (end, part) = (start + 1, Part::Urgent);
        self.marks.push_back(Mark { start, end, part, rights: rights.take(), creds });
        Ok(1)
    }

    fn mark_at(&self, start: u64) -> Option<usize> {
        self.marks.binary_search_by_key(&start, |mark| mark.start).ok()
    }

    /// The urgent byte, which with `peek` stays; and descriptors that came along with it, which nobody gets.
    pub fn take_urgent(&mut self, peek: bool) -> Option<(u8, Option<Rights>)> {
        let at = self.urgent?;
        let byte = self.ring.byte((at - self.head) as usize)?;
        if peek {
            return Some((byte, None));
        }
        self.urgent = None;
        self.taken += 1;
        let index = self.mark_at(at)?;
        let mark = self.marks.get_mut(index)?;
        (mark.part, mark.creds) = (Part::Taken, None);
        let rights = mark.rights.take();
        // Taken bytes side by side are one place.
        if let Some(before) = index.checked_sub(1).and_then(|before| self.marks.get_mut(before))
            && before.part == Part::Taken
            && before.end == at
        {
            before.end += 1;
            self.marks.remove(index);
        }
        Some((byte, rights))
    }

    /// Goes past the place of a byte that was taken.
    fn pass_taken(&mut self) {
        while let Some(mark) = self.marks.front().filter(|mark| mark.start == self.head && mark.part == Part::Taken) {
            let len = (mark.end - mark.start) as usize;
            self.taken -= len;
            self.drop_bytes(len);
            self.marks.pop_front();
        }
    }

    fn drop_bytes(&mut self, len: usize) {
        self.ring.consume(len);
        self.head += len as u64;
    }

    /// Before a read: goes past an urgent byte that stands first, which nobody has taken and which is lost then, unless it is
    /// to be read like others (SO_OOBINLINE). Answers what came along with it.
    pub fn pass_urgent(&mut self, in_line: bool) -> Option<Rights> {
        self.pass_taken();
        if self.urgent != Some(self.head) {
            return None;
        }
        self.urgent = None;
        let index = self.mark_at(self.head)?;
        if in_line {
            let mark = self.marks.get_mut(index)?;
            mark.part = Part::Bytes;
            return None;
        }
        self.drop_bytes(1);
        self.marks.remove(index)?.rights
    }

    /// Does a message in it hold Unix sockets?
    pub fn has_sockets(&self) -> bool {
        self.marks.iter().filter_map(|mark| mark.rights.as_ref()).any(Rights::has_sockets)
    }

    /// How many bytes can be read before something that must not be mixed with them. `by_writer`: the receiver wants to
    /// know who wrote them, so bytes of different writers are kept apart.
    fn reach(&self, by_writer: bool) -> usize {
        let creds = self.creds_at_head();
        for mark in &self.marks {
            if mark.part != Part::Bytes {
                return (mark.start - self.head) as usize;
            }
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
        // A read that would go on has come to the place, and ends there.
        if !buf.is_empty() {
            self.pass_taken();
        }
        Ok(taken)
    }

    /// The same, and everything stays. The places of bytes that were taken are no end of it.
    pub fn peek(
        &mut self,
        buf: &mut IoBuf<'_>,
        by_writer: bool,
        in_line: bool,
    ) -> Result<(Taken, Option<&Rights>), TryError> {
        let creds = self.creds_at_head();
        let (skipped, reach) = self.peek_reach(by_writer, in_line);
        let mut len = 0;
        let mut from = 0;
        for next in skipped.into_iter().chain(core::iter::once(reach..reach)) {
            let piece = next.start.saturating_sub(from);
            match self.ring.copy(from, buf, piece) {
                Ok(n) => len += n,
                Err(fault) => {
                    buf.rewind(len);
                    return Err(fault.into());
                }
            }
            from = next.end;
            if buf.is_empty() {
                break;
            }
        }
        let end = self.head + reach as u64;
        let rights = self.marks.iter().take_while(|mark| mark.start < end).find_map(|mark| mark.rights.as_ref());
        Ok((Taken { len, creds, rights: None, barrier: true }, rights))
    }

    /// How many bytes a look goes over, and which of them it passes.
    fn peek_reach(&self, by_writer: bool, in_line: bool) -> (SmallVec<[Range<usize>; 2]>, usize) {
        let mut skipped = SmallVec::new();
        // The first mark begins before the head when a part of it has been read.
        let at = |position: u64| position.saturating_sub(self.head) as usize;
        let mut begun = false;
        for mark in &self.marks {
            begun |= at(mark.start) > skipped.last().map_or(0, |last: &Range<usize>| last.end);
            match mark.part {
                Part::Taken => skipped.push(at(mark.start)..at(mark.end)),
                Part::Urgent if begun => return (skipped, at(mark.start)),
                Part::Urgent if in_line => begun = true,
                Part::Urgent => skipped.push(at(mark.start)..at(mark.end)),
                Part::Bytes if by_writer && begun && mark.creds != self.creds_at_head() => {
                    return (skipped, at(mark.start));
                }
                Part::Bytes if mark.rights.is_some() || by_writer => return (skipped, at(mark.end)),
                Part::Bytes => begun = true,
            }
        }
        (skipped, self.ring.len())
    }
}
