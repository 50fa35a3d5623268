//! What splice(2) holds of a pipe while it moves bytes: the first of them, or room for some.

use alloc::vec::Vec;

use super::packets::Cuts;
use super::{Cut, Odd, Pipe, State, WRITABLE};
use crate::errno::Errno;
use crate::fs::file::TryError;
use crate::fs::sigio;
use crate::mm::IoBuf;

/// The first bytes of a pipe while they are moved elsewhere. Readers wait for the end of it, which takes what was moved
/// out of the pipe and leaves the rest.
pub struct Loan<'a> {
    pub(super) pipe: &'a Pipe,
    pub(super) bytes: Vec<u8>,
    pub(super) cuts: Cuts,
    pub(super) taken: usize,
}

impl Loan<'_> {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// So many of them have been moved.
    pub fn settle(mut self, taken: usize) {
        self.taken = taken;
    }
}

impl Drop for Loan<'_> {
    #[inline]
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        let taken = self.taken.min(self.bytes.len());
        state.ring.consume(taken);
        if let Some(packets) = &mut state.packets {
            packets.consumed(taken);
        }
        state.odd -= Odd::LENT;
        drop(state);
        self.pipe.queue.wake(usize::MAX, sigio::QUIET | if taken > 0 { sigio::OUT } else { 0 });
    }
}

/// Room in a pipe for something that is being fetched: so nothing is fetched in vain.
pub struct Claim<'a> {
    pub(super) pipe: &'a Pipe,
    pub(super) room: usize,
}

impl Claim<'_> {
    pub fn room(&self) -> usize {
        self.room
    }

    /// Writes it, as bytes.
    pub fn write(self, bytes: &[u8]) -> Result<usize, TryError> {
        let mut state = self.pipe.state.lock();
        if state.readers == 0 {
            return Err(Errno::EPIPE.into());
        }
        let State { ring, packets, .. } = &mut *state;
        let mut buf = IoBuf::kernel(bytes);
        let n = match packets {
            Some(packets) => packets.write_plain(ring, &mut buf, false)?,
            None => ring.write(&mut buf, false)?,
        };
        drop(state);
        self.pipe.written();
        Ok(n)
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut state = self.pipe.state.lock();
        state.claimed = 0;
        state.count_readers();
        drop(state);
        self.pipe.queue.wake(usize::MAX, WRITABLE);
    }
}
