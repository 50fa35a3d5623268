//! /dev/loop-control, loop(4).

use alloc::sync::Arc;
use core::any::Any;

use super::{add, free, remove};
use crate::errno::{Errno, Result};
use crate::fs::devfs;
use crate::fs::file::FileOps;
use crate::fs::inode::{DeviceId, FileType};
use crate::fs::op::Op;
use crate::fs::open_file::OpenFile;
use crate::process::Thread;

const LOOP_CTL_ADD: u32 = 0x4c80;
const LOOP_CTL_REMOVE: u32 = 0x4c81;
const LOOP_CTL_GET_FREE: u32 = 0x4c82;

/// A miscellaneous device (LOOP_CTRL_MINOR of linux/miscdevice.h).
const ID: DeviceId = DeviceId::new(10, 237);
/// As udev leaves it on Debian, like the devices.
const PERM: u16 = 0o660;

struct Control;

pub fn register() {
    devfs::register("loop-control", ID, FileType::CharDevice, PERM, devfs::shared(Arc::new(Control)));
}

impl FileOps for Control {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn ignores_seek(&self) -> bool {
        true
    }

    fn ioctl<'a>(&'a self, _file: &'a OpenFile, _thread: &'a Thread, cmd: u32, arg: u64) -> Op<'a, Result<u64>> {
        Op::boxed(async move {
            // The argument is an int.
            let number = arg as i32;
            match cmd {
                LOOP_CTL_ADD => add(u32::try_from(number).ok()).map(|device| device.number.into()),
                LOOP_CTL_REMOVE => {
                    let number = u32::try_from(number).map_err(|_| Errno::EINVAL)?;
                    remove(number).await?;
                    Ok(0)
                }
                LOOP_CTL_GET_FREE => free().await.map(u64::from),
                _ => Err(Errno::ENOSYS),
            }
        })
    }
}
