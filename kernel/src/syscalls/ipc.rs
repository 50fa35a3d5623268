//! What the calls of System V IPC share.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::ipc::ids::{Change, Perm};

pub const IPC_RMID: i32 = 0;
pub const IPC_SET: i32 = 1;
pub const IPC_STAT: i32 = 2;
pub const IPC_INFO: i32 = 3;

/// `struct ipc64_perm`.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct IpcPerm {
    key: i32,
    uid: u32,
    gid: u32,
    cuid: u32,
    cgid: u32,
    mode: u32,
    seq: u16,
    pad: [u16; 3],
    unused: [u64; 2],
}

impl From<Perm> for IpcPerm {
    fn from(perm: Perm) -> Self {
        let Perm { key, id, uid, gid, cuid, cgid, mode } = perm;
        IpcPerm { key, uid, gid, cuid, cgid, mode, seq: (id >> 15) as u16, pad: [0; 3], unused: [0; 2] }
    }
}

impl IpcPerm {
    pub fn change(&self) -> Change {
        Change { uid: self.uid, gid: self.gid, mode: self.mode }
    }
}

/// A count for a field of type int.
pub fn clamp_int(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
