//! /sys/class/net (Linux's Documentation/ABI/testing/sysfs-class-net).

use super::node::{Entries, Name, Node, text};
use crate::fs::procfs::text::{Text, put};
use crate::net::interface::{self, Device};

/// IFF_RUNNING, which this file does not show.
const RUNNING: u32 = 0x40;

pub fn links() -> Entries {
    let link = |name: &str| Node::Link(format!("../../devices/virtual/net/{name}"));
    interface::devices().into_iter().map(|device| (Name::Owned(device.name.clone()), link(&device.name))).collect()
}

pub fn interfaces() -> Entries {
    interface::devices().into_iter().map(|device| (Name::Owned(device.name.clone()), Node::Net(device.name))).collect()
}

fn with(name: &str, show: impl FnOnce(&Device)) {
    if let Some(device) = interface::devices().into_iter().find(|device| device.name == name) {
        show(&device);
    }
}

fn address(name: &str, out: &mut Text) {
    with(name, |device| put!(out, "{}\n", device.mac.map(|byte| format!("{byte:02x}")).join(":")));
}

/// The state of RFC 2863: a loopback has none.
fn state(name: &str, out: &mut Text) {
    with(name, |device| {
        let state = match (device.is_loopback(), device.up && device.link) {
            (true, _) => "unknown",
            (false, true) => "up",
            (false, false) => "down",
        };
        put!(out, "{state}\n");
    });
}

pub fn attributes(name: &str) -> Entries {
    vec![
        text("addr_len", name, |_, out| put!(out, "6\n")),
        text("address", name, address),
        text("carrier", name, |name, out| with(name, |device| put!(out, "{}\n", u8::from(device.link)))),
        text("flags", name, |name, out| with(name, |d| put!(out, "{:#x}\n", d.flags() & 0xffff & !RUNNING))),
        text("ifindex", name, |name, out| with(name, |device| put!(out, "{}\n", device.index))),
        text("iflink", name, |name, out| with(name, |device| put!(out, "{}\n", device.index))),
        text("mtu", name, |name, out| with(name, |device| put!(out, "{}\n", device.mtu))),
        text("operstate", name, state),
        text("tx_queue_len", name, |_, out| put!(out, "1000\n")),
        text("type", name, |name, out| with(name, |device| put!(out, "{}\n", device.kind))),
        text("uevent", name, |name, out| {
            with(name, |device| put!(out, "INTERFACE={name}\nIFINDEX={}\n", device.index));
        }),
    ]
}
