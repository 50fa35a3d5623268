//! [`IoBuf`]: the memory end of every read and write, in user space or in the kernel.

use core::marker::PhantomData;
use core::ops::Deref;

use smallvec::SmallVec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::addr::{MAX_RW_COUNT, access_ok};
use super::space::AddressSpace;
use super::uaccess::UserPtr;
use crate::arch::{self, UserFault};
use crate::errno::{Errno, Result};

/// `struct iovec`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IoVec {
    pub base: u64,
    pub len: u64,
}

/// The segments of a vectored transfer; a few need no allocation.
pub type IoVecs = SmallVec<[IoVec; 4]>;

const UIO_MAXIOV: u64 = 1024;

/// A cursor over memory that data is copied into (`read`) or out of (`write`).
///
/// A copy that meets an absent user page answers what it moved so far; if that is nothing, it answers the fault, which
/// the caller resolves with [`IoBuf::fault_in`] outside of its locks before it tries again.
pub struct IoBuf<'a> {
    target: Target<'a>,
    /// Bytes left, over all segments.
    remaining: usize,
    /// Bytes moved since the start.
    done: usize,
    /// The fault that cut the last copy short.
    cut_by: Option<UserFault>,
}

enum Target<'a> {
    /// Kernel memory: start of the whole buffer.
    Kernel { start: *mut u8, _life: PhantomData<&'a mut [u8]> },
    /// One user segment: address of the next byte.
    User { mm: &'a AddressSpace, next: u64 },
    /// Several: index of the current segment and the offset in it.
    UserVec { mm: &'a AddressSpace, segments: Segments<'a>, index: usize, offset: u64 },
}

/// The segments of a transfer, or somebody else's who will need them again.
pub enum Segments<'a> {
    Own(IoVecs),
    Lent(&'a [IoVec]),
}

impl From<IoVecs> for Segments<'_> {
    fn from(segments: IoVecs) -> Self {
        Segments::Own(segments)
    }
}

impl<'a> From<&'a [IoVec]> for Segments<'a> {
    fn from(segments: &'a [IoVec]) -> Self {
        Segments::Lent(segments)
    }
}

impl Deref for Segments<'_> {
    type Target = [IoVec];

    #[inline]
    fn deref(&self) -> &[IoVec] {
        match self {
            Segments::Own(segments) => segments,
            Segments::Lent(segments) => segments,
        }
    }
}

// SAFETY: the kernel pointer stands for a `&mut [u8]` or `&[u8]` of lifetime 'a, both Send; access is through `&mut self`.
unsafe impl Send for IoBuf<'_> {}
// SAFETY: nothing is reached through `&self`.
unsafe impl Sync for IoBuf<'_> {}

impl<'a> IoBuf<'a> {
    /// One user buffer; EFAULT if it leaves the user half. Longer than MAX_RW_COUNT is cut.
    pub fn user(mm: &'a AddressSpace, addr: u64, len: u64) -> Result<Self> {
        if !access_ok(addr, len) {
            return Err(Errno::EFAULT);
        }
        let remaining = len.min(MAX_RW_COUNT as u64) as usize;
        Ok(IoBuf { target: Target::User { mm, next: addr }, remaining, done: 0, cut_by: None })
    }

    /// Segments as [`import_iovec`] answers them.
    pub fn user_iovec(mm: &'a AddressSpace, segments: impl Into<Segments<'a>>) -> Self {
        let segments = segments.into();
        let remaining = segments.iter().map(|segment| segment.len as usize).sum();
        IoBuf { target: Target::UserVec { mm, segments, index: 0, offset: 0 }, remaining, done: 0, cut_by: None }
    }

    /// A kernel buffer to be filled.
    pub fn kernel_mut(buffer: &'a mut [u8]) -> Self {
        let target = Target::Kernel { start: buffer.as_mut_ptr(), _life: PhantomData };
        IoBuf { target, remaining: buffer.len(), done: 0, cut_by: None }
    }

    /// A kernel buffer to be read from. Copying into it is a programming error and moves nothing.
    pub fn kernel(buffer: &'a [u8]) -> IoBuf<'a> {
        // The pointer of a shared slice is never written: see `copy_to`'s contract.
        let target = Target::Kernel { start: buffer.as_ptr().cast_mut(), _life: PhantomData };
        IoBuf { target, remaining: buffer.len(), done: 0, cut_by: None }
    }

    /// Bytes that can still be moved.
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    pub fn is_empty(&self) -> bool {
        self.remaining == 0
    }

    /// Do all pieces start and end at multiples of `unit`? The kernel's always do.
    pub fn is_aligned(&self, unit: u64) -> bool {
        match &self.target {
            Target::Kernel { .. } => true,
            Target::User { next, .. } => next.is_multiple_of(unit) && (self.remaining as u64).is_multiple_of(unit),
            Target::UserVec { segments, .. } => {
                segments.iter().all(|piece| piece.base.is_multiple_of(unit) && piece.len.is_multiple_of(unit))
            }
        }
    }

    /// Bytes moved so far.
    pub fn done(&self) -> usize {
        self.done
    }

    /// A fault made the last copy move less than it could have.
    pub fn is_cut(&self) -> bool {
        self.cut_by.is_some()
    }

    /// The fault, if one made the last copy move less than it could have.
    pub fn take_fault(&mut self) -> Option<UserFault> {
        self.cut_by.take()
    }

    /// Notes that this fault made less be moved than could have been.
    pub fn cut_by(&mut self, fault: UserFault) {
        self.cut_by = Some(fault);
    }

    /// Lets at most `len` more bytes be moved. Answers what was cut off, for [`IoBuf::extend`].
    pub fn limit(&mut self, len: usize) -> usize {
        let cut = self.remaining.saturating_sub(len);
        self.remaining -= cut;
        cut
    }

    /// Gives back what [`IoBuf::limit`] cut off.
    pub fn extend(&mut self, cut: usize) {
        self.remaining += cut;
    }

    /// Copies `src` into the buffer (for read(2)).
    #[inline]
    pub fn copy_to(&mut self, src: &[u8]) -> Result<usize, UserFault> {
        match self.copy_to_now(src) {
            Some(len) => Ok(len),
            None => self.copy_to_pieces(src),
        }
    }

    /// The most common buffer, without a fault: nothing of the general case is needed. None: nothing was moved.
    #[inline]
    pub fn copy_to_now(&mut self, src: &[u8]) -> Option<usize> {
        let len = src.len().min(self.remaining);
        let Target::User { next, .. } = &mut self.target else { return None };
        // SAFETY: `src` is valid for `len` bytes.
        unsafe { arch::user::copy_to(*next, src.as_ptr(), len) }.ok()?;
        *next += len as u64;
        self.count(len);
        Some(len)
    }

    #[inline]
    fn count(&mut self, len: usize) {
        self.cut_by = None;
        self.done += len;
        self.remaining -= len;
    }

    #[inline(never)]
    fn copy_to_pieces(&mut self, src: &[u8]) -> Result<usize, UserFault> {
        self.transfer(src.len(), |segment, at, len| {
            let from = src[at..at + len].as_ptr();
            match segment {
                // SAFETY: the segment is valid for `len` bytes (see `transfer`); kernel buffers were borrowed mutably.
                Segment::Kernel(to) => unsafe {
                    core::ptr::copy(from, to, len);
                    Ok(())
                },
                // SAFETY: `from` is valid for `len` bytes.
                Segment::User(to) => unsafe { arch::user::copy_to(to, from, len) },
            }
        })
    }

    /// Copies out of the buffer into `dst` (for write(2)).
    pub fn copy_from(&mut self, dst: &mut [u8]) -> Result<usize, UserFault> {
        // SAFETY: `dst` is valid for writes of its length.
        unsafe { self.copy_from_raw(dst.as_mut_ptr(), dst.len()) }
    }

    /// The counterpart of [`IoBuf::copy_to_now`].
    #[inline]
    pub fn copy_from_now(&mut self, dst: &mut [u8]) -> Option<usize> {
        // SAFETY: `dst` is valid for writes of its length.
        unsafe { self.copy_from_raw_now(dst.as_mut_ptr(), dst.len()) }
    }

    /// Like `copy_from`, into memory that others may look at meanwhile (page-cache pages).
    ///
    /// # Safety
    /// `dst` must be valid for writes of `len` bytes.
    #[inline]
    pub unsafe fn copy_from_raw(&mut self, dst: *mut u8, len: usize) -> Result<usize, UserFault> {
        // SAFETY: as the caller says.
        match unsafe { self.copy_from_raw_now(dst, len) } {
            Some(len) => Ok(len),
            // SAFETY: as the caller says.
            None => unsafe { self.copy_from_pieces(dst, len) },
        }
    }

    /// # Safety
    /// As for [`IoBuf::copy_from_raw`].
    #[inline]
    unsafe fn copy_from_raw_now(&mut self, dst: *mut u8, len: usize) -> Option<usize> {
        let wanted = len.min(self.remaining);
        let Target::User { next, .. } = &mut self.target else { return None };
        // SAFETY: `dst` is valid for `len` bytes.
        unsafe { arch::user::copy_from(dst, *next, wanted) }.ok()?;
        *next += wanted as u64;
        self.count(wanted);
        Some(wanted)
    }

    /// # Safety
    /// As for [`IoBuf::copy_from_raw`].
    #[inline(never)]
    unsafe fn copy_from_pieces(&mut self, dst: *mut u8, len: usize) -> Result<usize, UserFault> {
        self.transfer(len, |segment, at, len| {
            // SAFETY: at + len is within `dst`.
            let to = unsafe { dst.add(at) };
            match segment {
                // SAFETY: both are valid for `len` bytes.
                Segment::Kernel(from) => unsafe {
                    core::ptr::copy(from, to, len);
                    Ok(())
                },
                // SAFETY: as above.
                Segment::User(from) => unsafe { arch::user::copy_from(to, from, len) },
            }
        })
    }

    /// Fills up to `len` bytes of the buffer with zeros.
    pub fn zero(&mut self, len: usize) -> Result<usize, UserFault> {
        self.transfer(len, |segment, _, len| match segment {
            // SAFETY: the segment is valid for `len` bytes.
            Segment::Kernel(to) => unsafe {
                core::ptr::write_bytes(to, 0, len);
                Ok(())
            },
            Segment::User(to) => arch::user::zero(to, len),
        })
    }

    /// Copies `src` and faults pages in on the way. Answers how many bytes were moved before the buffer was full or a page
    /// was not there; EFAULT only if that is none.
    pub async fn copy_all_to(&mut self, src: &[u8]) -> Result<usize> {
        let mut moved = 0;
        while let Some(rest) = src.get(moved..).filter(|rest| !rest.is_empty() && !self.is_empty()) {
            match self.copy_to(rest) {
                Ok(n) => moved += n,
                Err(fault) => match self.fault_in(&fault).await {
                    Ok(()) => {}
                    Err(_) if moved > 0 => break,
                    Err(errno) => return Err(errno),
                },
            }
        }
        Ok(moved)
    }

    /// Skips `len` bytes (at most what remains).
    pub fn advance(&mut self, len: usize) {
        let _ = self.transfer(len, |_, _, _| Ok(()));
    }

    /// Goes back by `len` bytes (at most to the start).
    pub fn rewind(&mut self, len: usize) {
        let len = len.min(self.done);
        self.done -= len;
        self.remaining += len;
        match &mut self.target {
            Target::Kernel { .. } => {}
            Target::User { next, .. } => *next -= len as u64,
            Target::UserVec { segments, index, offset, .. } => {
                let mut left = len as u64;
                while left > *offset && *index > 0 {
                    left -= *offset;
                    *index -= 1;
                    *offset = segments[*index].len;
                }
                *offset -= left.min(*offset);
            }
        }
    }

    /// Makes the page behind `fault` present; EFAULT if there is none.
    pub async fn fault_in(&self, fault: &UserFault) -> Result<()> {
        match &self.target {
            Target::Kernel { .. } => Err(Errno::EFAULT),
            Target::User { mm, .. } | Target::UserVec { mm, .. } => mm.fault_in(*fault).await,
        }
    }

    /// Calls `copy(segment, offset in the transfer, length)` for each piece.
    fn transfer(
        &mut self,
        len: usize,
        mut copy: impl FnMut(Segment, usize, usize) -> Result<(), (usize, UserFault)>,
    ) -> Result<usize, UserFault> {
        let len = len.min(self.remaining);
        let mut at = 0;
        self.cut_by = None;
        while at < len {
            let (segment, room) = match &self.target {
                // SAFETY: `done` bytes of the buffer were moved, and it has `remaining` more.
                Target::Kernel { start, .. } => (Segment::Kernel(unsafe { start.add(self.done) }), len - at),
                Target::User { next, .. } => (Segment::User(*next), len - at),
                Target::UserVec { segments, index, offset, .. } => {
                    let Some(segment) = segments.get(*index) else { break };
                    (Segment::User(segment.base + offset), (len - at).min((segment.len - offset) as usize))
                }
            };
            match if room == 0 { Ok(()) } else { copy(segment, at, room) } {
                Ok(()) => {
                    self.moved(room);
                    at += room;
                }
                Err((copied, fault)) => {
                    self.moved(copied);
                    at += copied;
                    self.cut_by = Some(fault);
                    return if at == 0 { Err(fault) } else { Ok(at) };
                }
            }
        }
        Ok(at)
    }

    fn moved(&mut self, len: usize) {
        self.done += len;
        self.remaining -= len;
        match &mut self.target {
            Target::Kernel { .. } => {}
            Target::User { next, .. } => *next += len as u64,
            Target::UserVec { segments, index, offset, .. } => {
                *offset += len as u64;
                if segments.get(*index).is_some_and(|segment| *offset >= segment.len) {
                    *index += 1;
                    *offset = 0;
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Segment {
    Kernel(*mut u8),
    User(u64),
}

async fn fetch_iovec(mm: &AddressSpace, addr: u64, count: u64) -> Result<IoVecs> {
    if count > UIO_MAXIOV {
        return Err(Errno::EINVAL);
    }
    let mut segments = IoVecs::new();
    segments.try_reserve(count as usize).map_err(|_| Errno::ENOMEM)?;
    segments.resize(count as usize, IoVec::default());
    UserPtr::<u8>::new(addr).read_bytes(mm, segments.as_mut_slice().as_mut_bytes()).await?;
    Ok(segments)
}

/// Reads an array of `count` iovecs of memory that is not the caller's: more than UIO_MAXIOV or a negative length is
/// EINVAL.
pub async fn read_iovec(mm: &AddressSpace, addr: u64, count: u64) -> Result<IoVecs> {
    let segments = fetch_iovec(mm, addr, count).await?;
    if segments.iter().any(|segment| segment.len > i64::MAX as u64) { Err(Errno::EINVAL) } else { Ok(segments) }
}

/// Reads and checks an array of `count` iovecs: more than UIO_MAXIOV or a negative length is EINVAL, a segment outside
/// the user half EFAULT; the total is cut at MAX_RW_COUNT (readv(2)).
pub async fn import_iovec(mm: &AddressSpace, addr: u64, count: u64) -> Result<IoVecs> {
    let mut segments = fetch_iovec(mm, addr, count).await?;
    let mut total = 0;
    for segment in &mut segments {
        if segment.len > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        if !access_ok(segment.base, segment.len) {
            return Err(Errno::EFAULT);
        }
        segment.len = segment.len.min(MAX_RW_COUNT as u64 - total);
        total += segment.len;
    }
    Ok(segments)
}
