//! What a virtio network card and its driver tell each other of a frame: `struct virtio_net_hdr` (virtio 1.1, 5.1.6).

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::net::card::{Buffer, Cut, Partial, Sum};

/// Little endian, also with legacy devices: the machine is.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    flags: u8,
    kind: u8,
    header: U16,
    size: U16,
    start: U16,
    offset: U16,
    /// That a received frame is in. Legacy devices without VIRTIO_NET_F_MRG_RXBUF have no such field.
    buffers: U16,
}

/// Bytes of it, and of that of legacy devices.
pub const LONG: usize = size_of::<Header>();
pub const SHORT: usize = LONG - 2;

/// VIRTIO_NET_HDR_F_*.
const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
/// VIRTIO_NET_HDR_GSO_TCPV4.
const TCPV4: u8 = 1;

impl Header {
    /// Of a received frame.
    pub fn read(bytes: &[u8]) -> Header {
        let mut header = Header::default();
        let len = bytes.len().min(LONG);
        header.as_mut_bytes()[..len].copy_from_slice(&bytes[..len]);
        header
    }

    pub fn buffers(&self) -> usize {
        self.buffers.get().into()
    }

    /// What it says of the checksum.
    pub fn sum(&self) -> Sum {
        if self.flags & NEEDS_CSUM != 0 {
            Sum::Partial(Partial { start: self.start.get().into(), offset: self.offset.get().into() })
        } else if self.flags & DATA_VALID != 0 {
            Sum::Good
        } else {
            Sum::Whole
        }
    }

    /// Of a frame that is sent. The number of buffers is 0 (5.1.6.2.1).
    pub fn of(buffer: &Buffer) -> Header {
        let mut header = Header::default();
        if let Sum::Partial(Partial { start, offset }) = buffer.sum {
            header.flags = NEEDS_CSUM;
            header.start = (start as u16).into();
            header.offset = (offset as u16).into();
        }
        if let Some(Cut { header: bytes, size }) = buffer.cut {
            header.kind = TCPV4;
            header.header = bytes.into();
            header.size = size.into();
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_what_is_left_to_do() {
        let mut buffer = Buffer::new();
        assert_eq!(Header::of(&buffer).as_bytes(), [0; LONG]);
        buffer.sum = Sum::Partial(Partial { start: 34, offset: 16 });
        assert_eq!(Header::of(&buffer).as_bytes(), [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
        buffer.cut = Some(Cut { header: 66, size: 1448 });
        assert_eq!(Header::of(&buffer).as_bytes(), [1, 1, 66, 0, 0xa8, 5, 34, 0, 16, 0, 0, 0]);
    }

    #[test]
    fn a_header_is_read_as_far_as_it_is_there() {
        let bytes = [1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 3, 0, 99];
        let long = Header::read(&bytes);
        assert_eq!((long.sum(), long.buffers()), (Sum::Partial(Partial { start: 34, offset: 6 }), 3));
        assert_eq!(Header::read(&bytes[..SHORT]).buffers(), 0);
        assert_eq!(Header::read(&[2]).sum(), Sum::Good);
        assert_eq!(Header::read(&[]).sum(), Sum::Whole);
    }
}
