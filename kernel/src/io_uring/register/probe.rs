//! IORING_REGISTER_PROBE: which operations there are.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::errno::{Errno, Result};
use crate::io_uring::ops::Op;
use crate::mm::UserPtr;
use crate::process::Thread;

const SUPPORTED: u16 = 1;

/// The head of `struct io_uring_probe`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Head {
    last_op: u8,
    ops_len: u8,
    resv: u16,
    resv2: [u32; 3],
}

/// `struct io_uring_probe_op`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Operation {
    op: u8,
    resv: u8,
    flags: u16,
    resv2: u32,
}

pub async fn probe(t: &Thread, addr: u64, count: u32) -> Result<()> {
    let count = (count as usize).min(256);
    let bytes =
        UserPtr::<u8>::new(addr).read_slice(t.mm(), size_of::<Head>() + count * size_of::<Operation>(), 4096).await?;
    if bytes.iter().any(|byte| *byte != 0) {
        return Err(Errno::EINVAL);
    }
    let count = count.min(Op::LAST.into());
    let head = Head { last_op: Op::LAST - 1, ops_len: count as u8, resv: 0, resv2: [0; 3] };
    UserPtr::new(addr).write(t.mm(), head).await?;
    let list = UserPtr::<Operation>::new(addr + size_of::<Head>() as u64);
    for op in 0..count {
        let there = Op::from_raw(op as u8).is_ok_and(Op::is_there);
        let flags = if there { SUPPORTED } else { 0 };
        list.at(op).write(t.mm(), Operation { op: op as u8, resv: 0, flags, resv2: 0 }).await?;
    }
    Ok(())
}
