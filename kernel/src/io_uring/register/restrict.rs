//! IORING_REGISTER_RESTRICTIONS: what a ring that is not enabled yet will be used for, at most.

use linux_raw_sys::io_uring as raw;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::errno::{Errno, Result};
use crate::io_uring::abi::Sqe;
use crate::io_uring::ops::Op;

/// `struct io_uring_restriction`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Restriction {
    opcode: u16,
    /// An operation of registering, or of an entry, or flags of entries.
    value: u8,
    resv: u8,
    resv2: [u32; 3],
}

#[derive(Default)]
pub struct Restrictions {
    registers: u64,
    operations: u64,
    allowed: u8,
    required: u8,
}

/// IORING_REGISTER_LAST of Linux 6.1.
pub const REGISTER_LAST: u32 = raw::io_uring_register_op::IORING_REGISTER_FILE_ALLOC_RANGE as u32 + 1;

impl Restrictions {
    pub fn from_list(list: &[Restriction]) -> Result<Restrictions> {
        use raw::io_uring_register_restriction_op as kind;
        let mut all = Restrictions::default();
        for restriction in list {
            let value = restriction.value;
            match u32::from(restriction.opcode) {
                op if op == kind::IORING_RESTRICTION_REGISTER_OP as u32 => {
                    if u32::from(value) >= REGISTER_LAST {
                        return Err(Errno::EINVAL);
                    }
                    all.registers |= 1 << value;
                }
                op if op == kind::IORING_RESTRICTION_SQE_OP as u32 => {
                    if value >= Op::LAST {
                        return Err(Errno::EINVAL);
                    }
                    all.operations |= 1 << value;
                }
                op if op == kind::IORING_RESTRICTION_SQE_FLAGS_ALLOWED as u32 => all.allowed = value,
                op if op == kind::IORING_RESTRICTION_SQE_FLAGS_REQUIRED as u32 => all.required = value,
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(all)
    }

    pub fn allow(&self, sqe: &Sqe) -> Result<()> {
        let known = self.operations >> (sqe.opcode % 64) & 1 != 0;
        let required = sqe.flags & self.required == self.required;
        let allowed = sqe.flags & !(self.allowed | self.required) == 0;
        if known && required && allowed { Ok(()) } else { Err(Errno::EACCES) }
    }

    /// EACCES for operations of io_uring_register(2).
    pub fn allow_register(&self, opcode: u32) -> Result<()> {
        if self.registers >> (opcode % 64) & 1 != 0 { Ok(()) } else { Err(Errno::EACCES) }
    }
}
