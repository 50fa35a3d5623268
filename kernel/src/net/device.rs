//! SO_BINDTODEVICE and SO_BINDTOIFINDEX: a socket that uses one interface only (socket(7)).

use alloc::vec::Vec;

use super::interface;
use super::socket::{Common, Socket};
use crate::errno::{Errno, Result};
use crate::process::{Caps, Thread};

/// IFNAMSIZ.
pub const NAME: usize = 16;

/// By its index; 0: all of them. Whether there is such an interface is found out when it is used. EPERM: who is bound stays so without
/// CAP_NET_RAW.
pub fn bind(t: &Thread, socket: &dyn Socket, index: i32) -> Result<()> {
    let common = socket.common();
    let may_change = t.creds().capable(Caps::NET_RAW);
    if common.device() != 0 && !may_change {
        return Err(Errno::EPERM);
    }
    if index < 0 {
        return Err(Errno::EINVAL);
    }
    match may_change {
        true => common.set_device(index),
        false => common.set_first_device(index)?,
    }
    socket.device_changed();
    Ok(())
}

/// By its name, which ends with a zero byte or `name`; an empty one stands for all.
pub fn bind_by_name(t: &Thread, socket: &dyn Socket, name: &[u8]) -> Result<()> {
    let name = name.get(..NAME - 1).unwrap_or(name).split(|byte| *byte == 0).next().unwrap_or(&[]);
    let index = match name {
        [] => 0,
        name => {
            let found = interface::devices().into_iter().find(|device| device.name.as_bytes() == name);
            found.ok_or(Errno::ENODEV)?.index
        }
    };
    bind(t, socket, index)
}

/// With its zero byte; nothing for all of them.
pub fn name(common: &Common) -> Result<Vec<u8>> {
    let index = common.device();
    if index == 0 {
        return Ok(Vec::new());
    }
    let found = interface::devices().into_iter().find(|device| device.index == index);
    let mut name = found.ok_or(Errno::ENODEV)?.name.into_bytes();
    name.push(0);
    Ok(name)
}
