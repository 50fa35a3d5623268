//! The options of `mount -t 9p`. What would change how the file system behaves, and does not here, is EINVAL.

use alloc::string::String;
use alloc::vec::Vec;

use super::client::MSIZE_MIN;
use crate::errno::{Errno, Result};

/// What Linux has, too.
const MSIZE_DEFAULT: u32 = 128 * 1024;
/// Messages are single pieces of memory.
const MSIZE_MAX: u32 = 512 * 1024;

pub struct Options {
    pub msize: u32,
    /// The user that the server is told.
    pub user: Vec<u8>,
    /// The tree of the server, which may have several.
    pub tree: Vec<u8>,
}

impl Options {
    pub fn parse(data: &[u8]) -> Result<Options> {
        let mut options = Options { msize: MSIZE_DEFAULT, user: b"nobody".to_vec(), tree: Vec::new() };
        for option in data.split(|&byte| byte == b',').filter(|option| !option.is_empty()) {
            options.take(option).inspect_err(|_| {
                log::warn!("9p: mount option {} is not supported", String::from_utf8_lossy(option));
            })?;
        }
        Ok(options)
    }

    fn take(&mut self, option: &[u8]) -> Result<()> {
        match option {
            b"trans=virtio" | b"version=9p2000.L" => {}
            // Every name, attribute and byte is asked for anew, which is more than any of these wants.
            b"cache=none" | b"cache=mmap" | b"cache=loose" => {}
            // The server is attached to once, and the kernel checks permissions.
            b"access=client" | b"access=any" => {}
            _ => {
                let at = option.iter().position(|&byte| byte == b'=').ok_or(Errno::EINVAL)?;
                let (key, value) = (option.get(..at).unwrap_or(b""), option.get(at + 1..).unwrap_or(b""));
                match key {
                    b"msize" => self.msize = parse_size(value)?.min(MSIZE_MAX),
                    b"uname" => self.user = value.to_vec(),
                    b"aname" => self.tree = value.to_vec(),
                    _ => return Err(Errno::EINVAL),
                }
            }
        }
        Ok(())
    }
}

fn parse_size(text: &[u8]) -> Result<u32> {
    let number = core::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.filter(|size| *size >= MSIZE_MIN).ok_or(Errno::EINVAL)
}
