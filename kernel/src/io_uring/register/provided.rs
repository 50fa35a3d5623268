//! Provided buffers: groups from which an entry with IOSQE_BUFFER_SELECT takes one when there is something to receive.
//!
//! A group is either a queue that entries fill (PROVIDE_BUFFERS), or a ring in the program's memory
//! (IORING_REGISTER_PBUF_RING), which the program fills by moving the tail, and the kernel empties.

use alloc::collections::VecDeque;

use linux_raw_sys::io_uring as raw;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Registered;
use crate::errno::{Errno, Result};
use crate::mm::{PAGE_SIZE, UserPtr, frames};
use crate::process::Thread;

/// A buffer of a queue.
#[derive(Clone, Copy, Debug)]
pub struct Provided {
    pub addr: u64,
    pub len: u32,
    pub id: u16,
}

/// One that was taken.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    group: u16,
    pub addr: u64,
    pub len: u32,
    id: u16,
    /// Its whole length, and its place in a ring, for putting it back.
    whole: u32,
    place: Option<u16>,
}

/// `struct io_uring_buf`. In the first of a ring, `resv` is the tail.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct UserBuf {
    addr: u64,
    len: u32,
    bid: u16,
    resv: u16,
}

pub enum Group {
    Queue(VecDeque<Provided>),
    /// Address, entries, the head, and what was put back after later ones had been taken.
    Ring {
        addr: u64,
        entries: u16,
        head: u16,
        returned: VecDeque<Provided>,
    },
}

/// `struct io_uring_buf_reg`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct BufReg {
    addr: u64,
    entries: u32,
    bgid: u16,
    pad: u16,
    resv: [u64; 3],
}

const MAX_ENTRIES: u32 = 1 << 15;
/// Groups below this are there, empty, once there is any (BGID_ARRAY of Linux).
const EARLY: u16 = 64;

impl Registered {
    /// PROVIDE_BUFFERS: `count` buffers, one behind the other in memory.
    pub fn provide_buffers(&self, group: u16, first: Provided, count: u32) -> Result<()> {
        if !frames::has_spare() {
            return Err(Errno::ENOMEM);
        }
        let mut groups = self.groups.lock();
        let Group::Queue(queue) = groups.entry(group).or_insert_with(|| Group::Queue(VecDeque::new())) else {
            return Err(Errno::EINVAL);
        };
        queue.try_reserve(count as usize).map_err(|_| Errno::ENOMEM)?;
        // As many as ids go round.
        if queue.len() + count as usize > usize::from(u16::MAX) * 16 {
            return Err(Errno::ENOMEM);
        }
        for index in 0..count {
            let addr = first.addr.wrapping_add(u64::from(index) * u64::from(first.len));
            queue.push_back(Provided { addr, len: first.len, id: first.id.wrapping_add(index as u16) });
        }
        Ok(())
    }

    /// REMOVE_BUFFERS; answers how many there were.
    pub fn remove_buffers(&self, group: u16, count: u32) -> Result<u32> {
        let mut groups = self.groups.lock();
        let early = group < EARLY && !groups.is_empty();
        match groups.get_mut(&group) {
            None if early => Ok(0),
            None => Err(Errno::ENOENT),
            Some(Group::Ring { .. }) => Err(Errno::EINVAL),
            Some(Group::Queue(queue)) => {
                let removed = (count as usize).min(queue.len());
                queue.drain(..removed);
                Ok(removed as u32)
            }
        }
    }

    /// IORING_REGISTER_PBUF_RING.
    pub async fn register_ring(&self, t: &Thread, reg: BufReg) -> Result<()> {
        if reg.resv != [0; 3] || reg.pad != 0 {
            return Err(Errno::EINVAL);
        }
        if reg.addr == 0 {
            return Err(Errno::EFAULT);
        }
        if !reg.addr.is_multiple_of(4096) || !reg.entries.is_power_of_two() {
            return Err(Errno::EINVAL);
        }
        if reg.entries > MAX_ENTRIES {
            return Err(Errno::EINVAL);
        }
        // Linux pins the pages.
        let len = u64::from(reg.entries) * size_of::<UserBuf>() as u64;
        for page in 0..len.div_ceil(PAGE_SIZE as u64) {
            UserPtr::<u8>::new(reg.addr + page * PAGE_SIZE as u64).read(t.mm()).await?;
        }
        let mut groups = self.groups.lock();
        match groups.get(&reg.bgid) {
            Some(Group::Queue(queue)) if queue.is_empty() => {}
            Some(_) => return Err(Errno::EEXIST),
            None => {}
        }
        let (entries, returned) = (reg.entries as u16, VecDeque::new());
        groups.insert(reg.bgid, Group::Ring { addr: reg.addr, entries, head: 0, returned });
        Ok(())
    }

    pub fn unregister_ring(&self, reg: BufReg) -> Result<()> {
        if reg.resv != [0; 3] || reg.pad != 0 {
            return Err(Errno::EINVAL);
        }
        let mut groups = self.groups.lock();
        match groups.get(&reg.bgid) {
            None if reg.bgid < EARLY && !groups.is_empty() => Err(Errno::EINVAL),
            None => Err(Errno::ENOENT),
            Some(Group::Queue(_)) => Err(Errno::EINVAL),
            Some(Group::Ring { .. }) => {
                groups.remove(&reg.bgid);
                Ok(())
            }
        }
    }

    /// Takes a buffer; at most `limit` bytes of it are to be used, or all for 0. ENOBUFS if there is none.
    pub fn take_buffer(&self, group: u16, limit: u64) -> Result<Buffer> {
        let mut groups = self.groups.lock();
        let mut place = None;
        let provided = match groups.get_mut(&group).ok_or(Errno::ENOBUFS)? {
            Group::Queue(queue) => queue.pop_front().ok_or(Errno::ENOBUFS)?,
            Group::Ring { returned, .. } if !returned.is_empty() => returned.pop_front().ok_or(Errno::ENOBUFS)?,
            Group::Ring { addr, entries, head, .. } => {
                // A page that is not there is as good as an empty ring; the program has just written it.
                let tail = UserPtr::<u16>::new(*addr + 14).try_read().map_err(|_| Errno::ENOBUFS)?;
                if tail == *head {
                    return Err(Errno::ENOBUFS);
                }
                let at = *addr + u64::from(*head & (*entries - 1)) * size_of::<UserBuf>() as u64;
                let buf = UserPtr::<UserBuf>::new(at).try_read().map_err(|_| Errno::ENOBUFS)?;
                place = Some(*head);
                *head = head.wrapping_add(1);
                Provided { addr: buf.addr, len: buf.len, id: buf.bid }
            }
        };
        let Provided { addr, len: whole, id } = provided;
        let len = if limit == 0 { whole } else { u64::from(whole).min(limit) as u32 };
        Ok(Buffer { group, addr, len, id, whole, place })
    }

    /// It was not needed.
    pub fn put_buffer_back(&self, buffer: Buffer) {
        let provided = Provided { addr: buffer.addr, len: buffer.whole, id: buffer.id };
        match self.groups.lock().get_mut(&buffer.group) {
            Some(Group::Queue(queue)) => queue.push_front(provided),
            Some(Group::Ring { head, .. }) if buffer.place == Some(head.wrapping_sub(1)) => {
                *head = head.wrapping_sub(1);
            }
            Some(Group::Ring { returned, .. }) => returned.push_back(provided),
            None => {}
        }
    }

    /// The flags of the completion that gives it to the program.
    pub fn buffer_used(&self, buffer: Buffer) -> u32 {
        raw::IORING_CQE_F_BUFFER | u32::from(buffer.id) << raw::IORING_CQE_BUFFER_SHIFT
    }
}
