//! What has to wait for the disk. Only by time: when instructions are counted, the clock jumps over
//! such a wait to the next timer, wherever that is.

use super::{Row, row};
use crate::measure::{Bench, Result};
use crate::sys;

pub const BY_TIME: &[Row] = &[row("fsync_4k_ext2", fsync), row("read_64k_disk", read_raw)];

/// Overwrites a block of a file and waits until the disk has it.
fn fsync(bench: &Bench) -> Result<f64> {
    let path = c"/var/tmp/bench.fsync";
    let file = sys::open(path, libc::O_CREAT | libc::O_RDWR)? as usize;
    let block = [1u8; 4096];
    let result = bench.per_operation(50, || {
        sys::call("pwrite64", libc::SYS_pwrite64, [file, block.as_ptr() as usize, block.len(), 0])?;
        sys::call("fsync", libc::SYS_fsync, [file]).map(drop)
    });
    sys::unlink(path)?;
    result
}

/// From the disk itself, past the cache.
fn read_raw(bench: &Bench) -> Result<f64> {
    const LENGTH: usize = 64 << 10;
    let disk = sys::open(c"/dev/vda", libc::O_RDONLY | libc::O_DIRECT)? as usize;
    let buffer = sys::map(LENGTH, libc::MAP_PRIVATE)? as usize;
    let mut offset = 0;
    bench.per_operation(200, || {
        offset = (offset + LENGTH) % (32 << 20);
        sys::call("pread64", libc::SYS_pread64, [disk, buffer, LENGTH, offset]).map(drop)
    })
}
