//! RTM_GETLINK: the interfaces.

use core::sync::atomic::Ordering;

use linux_raw_sys::netlink as raw;
use zerocopy::IntoBytes;

use super::{BRIDGE, Cursor, GET_LINK, LinkHead, List, NEW_LINK, find, must_be_zero};
use crate::errno::{Errno, Result};
use crate::net::interface::{self, Device, QUEUE_LENGTH};
use crate::net::netlink::message::{Request, Writer};

const HEAD: usize = size_of::<LinkHead>();
/// IF_OPER_*.
const UNKNOWN: u8 = 0;
const DOWN: u8 = 2;
const UP: u8 = 6;
/// Numbers in `struct rtnl_link_stats64` and `struct rtnl_link_stats`.
const COUNTERS: usize = 25;
const OLD_COUNTERS: usize = 24;
/// IFNAMSIZ, with the NUL.
pub const NAME_SIZE: usize = 16;

pub fn list(request: &Request<'_>, family: u8) -> Result<List> {
    let mut list = List::new(fill, family);
    // Old programs give a family only.
    let Ok(head) = request.head::<LinkHead>() else {
        return if request.strict { Err(Errno::EINVAL) } else { Ok(list) };
    };
    must_be_zero(request, &[head.pad.into(), head.kind.into(), head.flags, head.change, head.index])?;
    for (kind, _) in request.attributes(HEAD) {
        match u32::from(kind) {
            // No interface is part of another one: then there is nothing to list.
            kind if kind == raw::IFLA_MASTER as u32 => list.family = BRIDGE,
            // No interface is of a kind that has a name, as for a kernel that does not know it.
            kind if kind == raw::IFLA_EXT_MASK as u32 || kind == raw::IFLA_LINKINFO as u32 => {}
            _ if request.strict => return Err(Errno::EINVAL),
            _ => {}
        }
    }
    Ok(list)
}

fn fill(list: &List, cursor: &mut Cursor<'_>) {
    for device in interface::devices() {
        if list.family != BRIDGE && cursor.next() {
            write(cursor.out, NEW_LINK, list.flags, &device, 0);
            cursor.end();
        }
    }
}

/// The interface that a request names, by its index or its name.
pub fn named(request: &Request<'_>) -> Result<Device> {
    let head = request.head::<LinkHead>()?;
    let attributes = request.attributes(HEAD);
    // What it asks for is told anyway, or there is none of it.
    attributes.number(raw::IFLA_EXT_MASK as u16)?;
    let name = |kind| attributes.find(kind).map(|name| name.split(|byte| *byte == 0).next().unwrap_or(name));
    if (head.index as i32) > 0 {
        return find(head.index);
    }
    let name = name(raw::IFLA_IFNAME as u16).or_else(|| name(raw::IFLA_ALT_IFNAME as u16)).ok_or(Errno::EINVAL)?;
    if name.is_empty() || name.len() >= NAME_SIZE {
        return Err(Errno::ERANGE);
    }
    interface::devices().into_iter().find(|device| device.name.as_bytes() == name).ok_or(Errno::ENODEV)
}

pub fn answer(request: &Request<'_>, out: &mut Writer) -> Result<()> {
    debug_assert_eq!(u32::from(request.header.kind), GET_LINK);
    let device = named(request)?;
    write(out, NEW_LINK, 0, &device, 0);
    out.end();
    Ok(())
}

/// One interface; `change`: the flags that are not what they were.
pub fn write(out: &mut Writer, kind: u32, flags: u32, device: &Device, change: u32) {
    let head =
        LinkHead { family: 0, pad: 0, kind: device.kind, index: device.index as u32, flags: device.flags(), change };
    out.begin(kind, flags, head.as_bytes());
    out.text(raw::IFLA_IFNAME as u32, &device.name);
    out.number(raw::IFLA_TXQLEN as u32, QUEUE_LENGTH as u32);
    let state = match device.up && device.link {
        _ if device.is_loopback() && device.up => UNKNOWN,
        true => UP,
        false => DOWN,
    };
    out.byte(raw::IFLA_OPERSTATE as u32, state);
    out.byte(raw::IFLA_LINKMODE as u32, 0);
    out.number(raw::IFLA_MTU as u32, device.mtu as u32);
    out.number(raw::IFLA_GROUP as u32, 0);
    out.number(raw::IFLA_PROMISCUITY as u32, 0);
    out.number(raw::IFLA_NUM_TX_QUEUES as u32, 1);
    out.number(raw::IFLA_NUM_RX_QUEUES as u32, 1);
    out.byte(raw::IFLA_CARRIER as u32, device.link.into());
    // Nothing is queued between the sockets and the card.
    out.text(raw::IFLA_QDISC as u32, if device.up { "noqueue" } else { "noop" });
    out.attribute(raw::IFLA_ADDRESS as u32, &device.mac);
    out.attribute(raw::IFLA_BROADCAST as u32, &[if device.is_loopback() { 0 } else { 0xff }; 6]);
    let counters = counters(device);
    out.attribute(raw::IFLA_STATS64 as u32, counters.as_bytes());
    let old: [u32; OLD_COUNTERS] = core::array::from_fn(|place| counters.get(place).map_or(0, |count| *count as u32));
    out.attribute(raw::IFLA_STATS as u32, old.as_bytes());
}

/// Packets and bytes in both directions, errors, what was dropped, and others that are not counted.
fn counters(device: &Device) -> [u64; COUNTERS] {
    let mut all = [0; COUNTERS];
    if let Some(port) = &device.port {
        let counters = &port.counters;
        let known = [
            (0, &counters.received),
            (1, &counters.sent),
            (2, &counters.received_bytes),
            (3, &counters.sent_bytes),
            (7, &counters.sent_dropped),
        ];
        for (place, counter) in known {
            all[place] = counter.load(Ordering::Relaxed);
        }
    }
    all
}
