//! Packets in a pipe: what is written with O_DIRECT is read write by write (pipe(2)).
//!
//! The bytes are in the ring like any others; this is where they are cut. As on Linux a packet takes up a page of the
//! pipe's capacity however short it is, and a longer write becomes several.

use alloc::collections::VecDeque;

use smallvec::SmallVec;

use super::ring::Ring;
use crate::errno::{Errno, Result};
use crate::fs::file::TryError;
use crate::mm::{IoBuf, PAGE_SIZE};

struct Segment {
    /// Bytes left of it; not 0.
    len: usize,
    /// Read alone, and what a reader has no room for is lost. Else bytes that others may follow.
    packet: bool,
    /// Of bytes: how full their last page is, as Linux fills it.
    fill: usize,
}

impl Segment {
    #[inline]
    fn pages(&self) -> usize {
        if self.packet { 1 } else { self.len.div_ceil(PAGE_SIZE) }
    }

    /// Bytes that are less than a page go into a page with others, if it has room for all of them.
    fn joins(&self, odd: usize) -> bool {
        !self.packet && odd > 0 && self.fill + odd <= PAGE_SIZE
    }

    fn append(&mut self, len: usize) {
        self.len += len;
        self.fill = match len % PAGE_SIZE {
            0 => PAGE_SIZE,
            odd if self.joins(odd) => self.fill + odd,
            odd => odd,
        };
    }
}

/// A part of a pipe's content on its way to another pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub len: usize,
    pub packet: bool,
}

pub type Cuts = SmallVec<[Cut; 2]>;

/// Where the content of a ring is cut.
pub struct Packets(VecDeque<Segment>);

impl Packets {
    /// For a ring with so many bytes in it.
    pub fn new(len: usize) -> Self {
        let mut segments = VecDeque::new();
        if len > 0 {
            let fill = if len.is_multiple_of(PAGE_SIZE) { PAGE_SIZE } else { len % PAGE_SIZE };
            segments.push_back(Segment { len, packet: false, fill });
        }
        Packets(segments)
    }

    /// Pages of the capacity that are taken up.
    #[inline]
    pub fn pages(&self) -> usize {
        self.0.iter().map(Segment::pages).sum()
    }

    #[inline]
    fn free(&self, ring: &Ring) -> usize {
        (ring.capacity() / PAGE_SIZE).saturating_sub(self.pages())
    }

    /// Bytes that can be written without O_DIRECT.
    pub fn room(&self, ring: &Ring) -> usize {
        let last =
            self.0.back().filter(|last| !last.packet).map_or(0, |last| last.len.next_multiple_of(PAGE_SIZE) - last.len);
        self.free(ring) * PAGE_SIZE + last
    }

    /// A page is free: what pollers want to know.
    #[inline]
    pub fn writable(&self, ring: &Ring) -> bool {
        self.free(ring) > 0
    }

    /// Where the first bytes are cut.
    pub fn cuts(&self, mut len: usize) -> Cuts {
        let mut cuts = Cuts::new();
        for segment in &self.0 {
            if len == 0 {
                break;
            }
            let part = segment.len.min(len);
            cuts.push(Cut { len: part, packet: segment.packet });
            len -= part;
        }
        cuts
    }

    /// Takes in a part of another pipe: a packet as a whole, of bytes what there is room for.
    pub fn put(&mut self, ring: &mut Ring, buf: &mut IoBuf<'_>, cut: Cut) -> Result<usize, TryError> {
        let rest = buf.limit(cut.len);
        let result = match cut.packet {
            true if self.writable(ring) => self.write_one(ring, buf),
            true => Err(TryError::WouldBlock),
            false => self.write_plain(ring, buf, false),
        };
        buf.extend(rest);
        result
    }

    /// So many bytes were taken off the ring's head.
    pub fn consumed(&mut self, mut n: usize) {
        while n > 0
            && let Some(first) = self.0.front_mut()
        {
            let step = n.min(first.len);
            first.len -= step;
            n -= step;
            if first.len == 0 {
                self.0.pop_front();
            }
        }
    }

    /// Reads up to the end of the first packet.
    pub fn read(&mut self, ring: &mut Ring, buf: &mut IoBuf<'_>) -> Result<usize, TryError> {
        let mut done = 0;
        while !buf.is_empty()
            && let Some(first) = self.0.front()
        {
            let (len, packet) = (first.len, first.packet);
            let moved = if packet { ring.copy(0, buf, len).map_err(TryError::from) } else { read_some(ring, buf, len) };
            let n = match moved {
                Ok(n) => n,
                Err(TryError::Fault(fault)) if done > 0 => {
                    buf.cut_by(fault);
                    break;
                }
                Err(error) => return Err(error),
            };
            done += n;
            if packet {
                ring.consume(len);
                self.consumed(len);
                break;
            }
            self.consumed(n);
            if n < len {
                break;
            }
        }
        Ok(done)
    }

    /// Writes as one packet, or as several of a page each: as many as there is room for. Behind bytes, what is less than
    /// a page joins them, packet or not: so it is on Linux.
    pub fn write(&mut self, ring: &mut Ring, buf: &mut IoBuf<'_>) -> Result<usize, TryError> {
        let mut done = 0;
        let odd = buf.remaining() % PAGE_SIZE;
        if self.0.back().is_some_and(|last| last.joins(odd)) {
            let cut = buf.limit(odd);
            let result = self.write_plain(ring, buf, true);
            buf.extend(cut);
            done = result?;
        }
        while !buf.is_empty() {
            let attempt = if self.writable(ring) { self.write_one(ring, buf) } else { Err(TryError::WouldBlock) };
            match attempt {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_one(&mut self, ring: &mut Ring, buf: &mut IoBuf<'_>) -> Result<usize, TryError> {
        self.0.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let cut = buf.limit(PAGE_SIZE);
        let result = ring.write(buf, true);
        buf.extend(cut);
        let len = result?;
        self.0.push_back(Segment { len, packet: true, fill: PAGE_SIZE });
        Ok(len)
    }

    /// Writes bytes that are no packet; all of them, if `atomic`.
    pub fn write_plain(&mut self, ring: &mut Ring, buf: &mut IoBuf<'_>, atomic: bool) -> Result<usize, TryError> {
        let room = self.room(ring);
        if room == 0 || atomic && room < buf.remaining() {
            return Err(TryError::WouldBlock);
        }
        self.0.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let cut = buf.limit(room);
        let result = ring.write(buf, atomic);
        buf.extend(cut);
        let len = result?;
        match self.0.back_mut().filter(|last| !last.packet) {
            Some(last) => last.append(len),
            None => {
                let mut segment = Segment { len: 0, packet: false, fill: PAGE_SIZE };
                segment.append(len);
                self.0.push_back(segment);
            }
        }
        Ok(len)
    }
}

fn read_some(ring: &mut Ring, buf: &mut IoBuf<'_>, len: usize) -> Result<usize, TryError> {
    let cut = buf.limit(len);
    let result = ring.read(buf);
    buf.extend(cut);
    result
}
