//! The ioctls of a loop device, loop(4).

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use super::backing::Backing;
use super::record::{Config, Info, Info64, KEY_SIZE};
use super::{Binding, Loop, LoopFlags};
use crate::errno::{Errno, Result};
use crate::fs::block::{Call, SECTOR_SIZE};
use crate::mm::{PAGE_SIZE, UserPtr};
use crate::process::Caps;

const LOOP_SET_FD: u32 = 0x4c00;
const LOOP_CLR_FD: u32 = 0x4c01;
const LOOP_SET_STATUS: u32 = 0x4c02;
const LOOP_GET_STATUS: u32 = 0x4c03;
const LOOP_SET_STATUS64: u32 = 0x4c04;
const LOOP_GET_STATUS64: u32 = 0x4c05;
const LOOP_CHANGE_FD: u32 = 0x4c06;
const LOOP_SET_CAPACITY: u32 = 0x4c07;
const LOOP_SET_DIRECT_IO: u32 = 0x4c08;
const LOOP_SET_BLOCK_SIZE: u32 = 0x4c09;
const LOOP_CONFIGURE: u32 = 0x4c0a;

/// What SET_STATUS can set; it cannot take PARTSCAN away. Partitions are not looked for, so that is never set.
const SETTABLE: LoopFlags = LoopFlags::AUTOCLEAR;

pub async fn ioctl(device: &Loop, call: Call<'_>) -> Result<u64> {
    let Call { thread, cmd, arg, .. } = call;
    match cmd {
        LOOP_SET_FD => {
            let config = Config { fd: arg as u32, ..zerocopy::FromZeros::new_zeroed() };
            configure(device, call, config).await?
        }
        LOOP_CONFIGURE => {
            let config = UserPtr::<Config>::new(arg).read(thread.mm()).await?;
            configure(device, call, config).await?
        }
        LOOP_CLR_FD => clear(device, call).await?,
        LOOP_CHANGE_FD => change_file(device, call).await?,
        LOOP_SET_STATUS => {
            may_change(call)?;
            let info = UserPtr::<Info>::new(arg).read(thread.mm()).await?;
            set_status(device, call, &info.widen()).await?
        }
        LOOP_SET_STATUS64 => {
            may_change(call)?;
            let info = UserPtr::<Info64>::new(arg).read(thread.mm()).await?;
            set_status(device, call, &info).await?
        }
        LOOP_GET_STATUS | LOOP_GET_STATUS64 => get_status(device, call).await?,
        LOOP_SET_CAPACITY => {
            may_change(call)?;
            let _changing = device.changing.lock().await;
            device.with(|binding| binding.sectors = binding.measure())?;
        }
        LOOP_SET_DIRECT_IO => {
            may_change(call)?;
            let _changing = device.changing.lock().await;
            device.with(|_| ())?;
            // The file is read and written through the page cache.
            if arg != 0 {
                return Err(Errno::EINVAL);
            }
        }
        LOOP_SET_BLOCK_SIZE => {
            may_change(call)?;
            let _changing = device.changing.lock().await;
            device.with(|_| ())?;
            let block_size = check_block_size(arg)?;
            call.disk.settle().await?;
            device.with(|binding| binding.block_size = block_size)?;
        }
        _ => return Err(Errno::EINVAL),
    }
    Ok(0)
}

/// Who may change a bound device: he has opened it for writing, or is an administrator.
fn may_change(call: Call<'_>) -> Result<()> {
    if call.file.writable() || call.thread.creds().capable(Caps::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

/// A power of two from a sector to a page.
fn check_block_size(size: u64) -> Result<u32> {
    let good = size.is_power_of_two() && (SECTOR_SIZE as u64..=PAGE_SIZE as u64).contains(&size);
    if good { Ok(size as u32) } else { Err(Errno::EINVAL) }
}

/// What of an `Info64` is refused however the device is.
fn check_info(info: &Info64) -> Result<()> {
    if info.encrypt_key_size > KEY_SIZE as u32 || info.encrypt_type != 0 {
        return Err(Errno::EINVAL);
    }
    if info.offset > i64::MAX as u64 || info.size_limit > i64::MAX as u64 {
        return Err(Errno::EOVERFLOW);
    }
    Ok(())
}

fn file_name(info: &Info64) -> [u8; super::record::NAME_SIZE] {
    let mut name = info.file_name;
    if let Some(last) = name.last_mut() {
        *last = 0;
    }
    name
}

async fn configure(device: &Loop, call: Call<'_>, config: Config) -> Result<()> {
    let file = call.thread.files().get(config.fd as i32)?;
    if file.is_path() {
        return Err(Errno::EBADF);
    }
    call.disk.check_not_held(call.opened_for)?;
    let _changing = device.changing.lock().await;
    if device.removed.load(Ordering::Relaxed) {
        return Err(Errno::ENXIO);
    }
    if device.is_bound() {
        return Err(Errno::EBUSY);
    }
    let backing = Arc::new(Backing::new(file)?);
    let mut flags = LoopFlags::from_bits(config.info.flags).ok_or(Errno::EINVAL)?;
    if flags.contains(LoopFlags::PARTSCAN) {
        // Linux would look for partitions, and their devices would be missing.
        return Err(Errno::EINVAL);
    }
    let block_size =
        if config.block_size == 0 { SECTOR_SIZE as u32 } else { check_block_size(config.block_size.into())? };
    check_info(&config.info)?;
    // It is a wish, which GET_STATUS shows to be refused.
    flags -= LoopFlags::DIRECT_IO;
    flags.set(
        LoopFlags::READ_ONLY,
        flags.contains(LoopFlags::READ_ONLY) || !backing.file.writable() || !call.file.writable(),
    );
    let mut binding = Binding {
        backing,
        flags,
        offset: config.info.offset,
        size_limit: config.info.size_limit,
        block_size,
        name: file_name(&config.info),
        sectors: 0,
    };
    binding.sectors = binding.measure();
    *device.binding.lock() = Some(binding);
    Ok(())
}

/// As long as others have it open it goes when the last of them does.
async fn clear(device: &Loop, call: Call<'_>) -> Result<()> {
    let _changing = device.changing.lock().await;
    device.with(|_| ())?;
    if call.disk.users().await > 1 {
        return device.with(|binding| binding.flags |= LoopFlags::AUTOCLEAR);
    }
    // What cannot be stored is lost, as when the disk is pulled out.
    let stored = call.disk.settle().await;
    device.unbind();
    stored
}

/// Another file of the same size, for a device that is only read.
async fn change_file(device: &Loop, call: Call<'_>) -> Result<()> {
    let file = call.thread.files().get(call.arg as i32)?;
    if file.is_path() {
        return Err(Errno::EBADF);
    }
    let _changing = device.changing.lock().await;
    let (old, offset, limit) = device.with(|b| (b.clone(), b.offset, b.size_limit))?;
    if !old.flags.contains(LoopFlags::READ_ONLY) {
        return Err(Errno::EINVAL);
    }
    let new = Binding { backing: Arc::new(Backing::new(file)?), offset, size_limit: limit, ..old.clone() };
    if new.measure() != old.measure() {
        return Err(Errno::EINVAL);
    }
    call.disk.settle().await?;
    let old = device.with(|binding| core::mem::replace(&mut binding.backing, new.backing))?;
    drop(old);
    Ok(())
}

async fn set_status(device: &Loop, call: Call<'_>, info: &Info64) -> Result<()> {
    let _changing = device.changing.lock().await;
    let (offset, limit) = device.with(|binding| (binding.offset, binding.size_limit))?;
    let moves = (offset, limit) != (info.offset, info.size_limit);
    if moves {
        call.disk.settle().await?;
    }
    check_info(info)?;
    device.with(|binding| {
        (binding.offset, binding.size_limit) = (info.offset, info.size_limit);
        binding.name = file_name(info);
        binding.flags = (binding.flags - SETTABLE) | LoopFlags::from_bits_truncate(info.flags) & SETTABLE;
        if moves {
            binding.sectors = binding.measure();
        }
    })
}

async fn get_status(device: &Loop, call: Call<'_>) -> Result<()> {
    let Call { thread, cmd, arg, .. } = call;
    if arg == 0 {
        return Err(Errno::EINVAL);
    }
    let binding = {
        let _changing = device.changing.lock().await;
        device.with(|binding| binding.clone())?
    };
    let inode = binding.backing.file.inode();
    let on = inode.fs().device().encode();
    let info = Info64 {
        device: on,
        inode: inode.metadata().ino,
        // A regular file is no device.
        rdevice: 0,
        offset: binding.offset,
        size_limit: binding.size_limit,
        number: device.number,
        flags: binding.flags.bits(),
        file_name: binding.name,
        ..Info64::default()
    };
    if cmd == LOOP_GET_STATUS64 {
        return UserPtr::<Info64>::new(arg).write(thread.mm(), info).await;
    }
    UserPtr::<Info>::new(arg).write(thread.mm(), Info::narrow(&info)?).await
}
