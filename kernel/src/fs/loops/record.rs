//! The structures of the ioctls, linux/loop.h.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::errno::{Errno, Result};

pub const NAME_SIZE: usize = 64;
pub const KEY_SIZE: usize = 32;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Info64 {
    pub device: u64,
    pub inode: u64,
    pub rdevice: u64,
    pub offset: u64,
    pub size_limit: u64,
    pub number: u32,
    pub encrypt_type: u32,
    pub encrypt_key_size: u32,
    pub flags: u32,
    pub file_name: [u8; NAME_SIZE],
    pub crypt_name: [u8; NAME_SIZE],
    pub encrypt_key: [u8; KEY_SIZE],
    pub init: [u64; 2],
}

const _: () = assert!(size_of::<Info64>() == 232);

/// `struct loop_config`.
#[repr(C)]
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    pub fd: u32,
    pub block_size: u32,
    pub info: Info64,
    pub reserved: [u64; 8],
}

const _: () = assert!(size_of::<Config>() == 304);

/// `struct loop_info`, with the padding of 64-bit machines.
#[repr(C)]
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Info {
    pub number: u32,
    pub device: u32,
    pub inode: u64,
    pub rdevice: u32,
    pub offset: u32,
    pub encrypt_type: u32,
    pub encrypt_key_size: u32,
    pub flags: u32,
    pub name: [u8; NAME_SIZE],
    pub encrypt_key: [u8; KEY_SIZE],
    pub pad: u32,
    pub init: [u64; 2],
    pub reserved: [u8; 4],
    pub pad_end: u32,
}

const _: () = assert!(size_of::<Info>() == 160);

impl Default for Info64 {
    fn default() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }
}

impl Info {
    pub fn widen(&self) -> Info64 {
        Info64 {
            // An int.
            offset: self.offset as i32 as i64 as u64,
            encrypt_type: self.encrypt_type,
            encrypt_key_size: self.encrypt_key_size,
            flags: self.flags,
            file_name: self.name,
            ..Info64::default()
        }
    }

    /// EOVERFLOW if something does not fit.
    pub fn narrow(wide: &Info64) -> Result<Info> {
        let small = |value: u64| u32::try_from(value).map_err(|_| Errno::EOVERFLOW);
        let mut info: Info = zerocopy::FromZeros::new_zeroed();
        info.number = wide.number;
        info.device = small(wide.device)?;
        info.inode = wide.inode;
        info.rdevice = small(wide.rdevice)?;
        info.offset = i32::try_from(wide.offset).map_err(|_| Errno::EOVERFLOW)? as u32;
        info.encrypt_type = wide.encrypt_type;
        info.encrypt_key_size = wide.encrypt_key_size;
        info.flags = wide.flags;
        info.name = wide.file_name;
        Ok(info)
    }
}
