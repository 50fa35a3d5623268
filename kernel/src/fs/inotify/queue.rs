//! Events of an instance that were not read yet.

use alloc::collections::VecDeque;

use linux_raw_sys::general as raw;
use zerocopy::{Immutable, IntoBytes};

use crate::errno::Errno;
use crate::fs::dentry::{NAME_MAX, Name};
use crate::fs::eventfd::copy_whole;
use crate::fs::file::TryError;
use crate::mm::{IoBuf, frames};

/// `struct inotify_event` without the name behind it.
#[repr(C)]
#[derive(Clone, Copy, IntoBytes, Immutable)]
struct Header {
    wd: i32,
    mask: u32,
    cookie: u32,
    len: u32,
}

const HEADER: usize = size_of::<Header>();
/// A record with the longest name.
const LONGEST: usize = HEADER + (NAME_MAX + 1).next_multiple_of(HEADER);

#[derive(Clone, Debug)]
pub struct Event {
    wd: i32,
    mask: u32,
    /// The same in the two events of a rename; else 0.
    cookie: u32,
    /// The entry of a watched directory that it is about.
    name: Option<Name>,
}

impl Event {
    pub fn new(wd: i32, mask: u32, cookie: u32, name: Option<&[u8]>) -> Self {
        Event { wd, mask, cookie, name: name.map(Name::from_slice) }
    }

    /// Bytes of the name as it is read: it has a NUL, and is filled up so that the next record is aligned.
    fn name_len(&self) -> usize {
        self.name.as_ref().map_or(0, |name| (name.len() + 1).next_multiple_of(HEADER))
    }

    fn size(&self) -> usize {
        HEADER + self.name_len()
    }

    /// One of two like this says as much as both. Linux does not look at the cookie.
    fn repeats(&self, other: &Event) -> bool {
        other.mask & raw::IN_IGNORED == 0 && (self.wd, self.mask, &self.name) == (other.wd, other.mask, &other.name)
    }
}

pub struct Queue {
    events: VecDeque<Event>,
    /// Bytes of all of them.
    size: usize,
    limit: usize,
    /// The event that tells of lost ones is among them.
    overflowed: bool,
}

impl Queue {
    pub fn new(limit: usize) -> Self {
        Queue { events: VecDeque::new(), size: 0, limit, overflowed: false }
    }

    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// What FIONREAD answers.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Adds an event, unless it repeats the last one. When there is no room, or no memory, it is lost, and one event says
    /// so. Answers whether there is something new to read.
    pub fn push(&mut self, event: Event) -> bool {
        let full = self.events.len() >= self.limit || !frames::has_spare() || self.events.try_reserve(2).is_err();
        if !full {
            if self.events.back().is_some_and(|last| event.repeats(last)) {
                return false;
            }
            self.append(event);
            return true;
        }
        if self.overflowed || self.events.try_reserve(1).is_err() {
            return false;
        }
        self.overflowed = true;
        self.append(Event::new(-1, raw::IN_Q_OVERFLOW, 0, None));
        true
    }

    fn append(&mut self, event: Event) {
        self.size += event.size();
        self.events.push_back(event);
    }

    /// As many whole records as fit; EINVAL if the first does not.
    pub fn read(&mut self, buf: &mut IoBuf<'_>) -> Result<usize, TryError> {
        let mut done = 0;
        while let Some(event) = self.events.front() {
            let size = event.size();
            if size > buf.remaining() {
                return if done > 0 { Ok(done) } else { Err(Errno::EINVAL.into()) };
            }
            match copy_event(event, buf) {
                Ok(()) => {}
                Err(_) if done > 0 => return Ok(done),
                Err(error) => return Err(error),
            }
            done += size;
            self.size -= size;
            self.overflowed &= event.mask & raw::IN_Q_OVERFLOW == 0;
            self.events.pop_front();
        }
        if done > 0 { Ok(done) } else { Err(TryError::WouldBlock) }
    }
}

fn copy_event(event: &Event, buf: &mut IoBuf<'_>) -> Result<(), TryError> {
    let mut record = [0; LONGEST];
    let header = Header { wd: event.wd, mask: event.mask, cookie: event.cookie, len: event.name_len() as u32 };
    let name = event.name.as_deref().unwrap_or(&[]);
    record[..HEADER].copy_from_slice(header.as_bytes());
    let end = (HEADER + name.len()).min(LONGEST);
    record[HEADER..end].copy_from_slice(&name[..end - HEADER]);
    copy_whole(buf, &record[..event.size().min(LONGEST)])
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn masks(queue: &mut Queue) -> Vec<u32> {
        let mut bytes = [0; 1000];
        let n = queue.read(&mut IoBuf::kernel_mut(&mut bytes)).unwrap_or(0);
        bytes[..n]
            .chunks(HEADER)
            .map(|record| u32::from_ne_bytes([record[4], record[5], record[6], record[7]]))
            .collect()
    }

    #[test]
    fn only_neighbours_are_joined() {
        let mut queue = Queue::new(10);
        let added: Vec<bool> = [1, 1, 2, 1].map(|mask| queue.push(Event::new(1, mask, 0, None))).into();
        assert_eq!(added, [true, false, true, true]);
        assert!(queue.push(Event::new(2, 1, 0, None)), "another watch");
        assert_eq!(masks(&mut queue), [1, 2, 1, 1]);
        assert!(queue.is_empty() && queue.size() == 0);
    }

    #[test]
    fn what_is_lost_is_told_once_until_it_was_read() {
        let mut queue = Queue::new(2);
        let added: Vec<bool> = (1..=5).map(|mask| queue.push(Event::new(1, mask, 0, None))).collect();
        assert_eq!(added, [true, true, true, false, false]);
        assert_eq!(masks(&mut queue), [1, 2, raw::IN_Q_OVERFLOW]);
        for mask in 6..=9 {
            queue.push(Event::new(1, mask, 0, None));
        }
        assert_eq!(masks(&mut queue), [6, 7, raw::IN_Q_OVERFLOW]);
    }

    #[test]
    fn records_are_read_whole() {
        let mut queue = Queue::new(10);
        queue.push(Event::new(1, 1, 0, Some(&b"a name of fifteen"[..15])));
        queue.push(Event::new(1, 2, 0, Some(&[b'n'; NAME_MAX])));
        assert_eq!(queue.size(), 2 * HEADER + LONGEST);
        let mut bytes = [0; 400];
        let mut read = |room: usize| queue.read(&mut IoBuf::kernel_mut(&mut bytes[..room]));
        assert_eq!(read(31), Err(TryError::Failed(Errno::EINVAL)));
        assert_eq!(read(40), Ok(32));
        assert_eq!(read(LONGEST), Ok(LONGEST));
        assert_eq!(read(400), Err(TryError::WouldBlock));
    }
}
