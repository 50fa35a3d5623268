//! Network interfaces: what addresses the machine has, and where packets go.
//!
//! There is the loopback, "lo", which is down until somebody brings it up, as on Linux; it has its addresses while it is up.
//! Nothing goes through it: sockets of this machine reach each other without packets (see [`super::inet`]). Cards
//! ([`super::card`]) come after it as they are found: "eth0", "eth1", … [`mod@device`] is what both look like to programs, and [`mod@route`] where
//! packets go; [`mod@ioctl`] is one way to ask, and `set` to say, [`super::netlink`] the other; [`mod@change`]: what both can.

pub mod change;
mod device;
mod ioctl;
mod route;
mod set;

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::sync::atomic::{AtomicBool, Ordering};

use super::card::{self, Card, Cidr, Port};
use crate::errno::{Errno, Result};
use crate::exec::interruptible;
use crate::process::Thread;
use crate::sync::SpinLock;
use crate::syscalls::SysResult;

pub use device::{
    ARPHRD_ETHER, ARPHRD_LOOPBACK, Device, IFF_UP, LOOPBACK_ADDRESSES, LOOPBACK_INDEX, LOOPBACK_MTU, devices,
};
pub use ioctl::{QUEUE_LENGTH, ioctl, ioctl_of};
pub use route::{Route, TABLE_LOCAL, TABLE_MAIN, of_settings, routes};

static LOOPBACK_UP: AtomicBool = AtomicBool::new(false);

/// Addresses that programs have given the loopback; there are some.
static MORE: SpinLock<Vec<Cidr>> = SpinLock::new(Vec::new());
static HAS_MORE: AtomicBool = AtomicBool::new(false);

static CARDS: SpinLock<Vec<Arc<Port>>> = SpinLock::new(Vec::new());
/// There is one: what goes on within the machine asks no further without.
static HAS_CARDS: AtomicBool = AtomicBool::new(false);

pub fn is_loopback_up() -> bool {
    LOOPBACK_UP.load(Ordering::Relaxed)
}

pub fn set_loopback(up: bool) {
    LOOPBACK_UP.store(up, Ordering::Relaxed);
}

/// What programs have added to the loopback's addresses.
pub fn loopback_addresses() -> Vec<Cidr> {
    if HAS_MORE.load(Ordering::Acquire) { MORE.lock().clone() } else { Vec::new() }
}

/// Adds an address to the loopback, or takes it away.
pub fn change_loopback(change: &mut dyn FnMut(&mut Vec<Cidr>) -> Result<()>) -> Result<()> {
    let mut more = MORE.lock();
    change(&mut more)?;
    HAS_MORE.store(!more.is_empty(), Ordering::Release);
    Ok(())
}

/// Is it an address of the loopback besides its own? Of IPv4 it has whole networks.
fn is_added(ip: IpAddr) -> bool {
    HAS_MORE.load(Ordering::Acquire) && MORE.lock().iter().any(|own| own.ip == ip || ip.is_ipv4() && own.contains(ip))
}

/// A card that a driver has found.
pub fn add(card: Arc<dyn Card>) -> Arc<Port> {
    let mut cards = CARDS.lock();
    let number = cards.len() as i32;
    let port = Port::new(format!("eth{number}"), device::FIRST_CARD + number, card);
    cards.push(port.clone());
    HAS_CARDS.store(true, Ordering::Release);
    port
}

/// ARPHRD_* of an interface.
pub fn hardware_of(index: i32) -> u16 {
    if index == LOOPBACK_INDEX { ARPHRD_LOOPBACK } else { ARPHRD_ETHER }
}

/// All of them.
pub fn cards() -> Vec<Arc<Port>> {
    if HAS_CARDS.load(Ordering::Acquire) { CARDS.lock().clone() } else { Vec::new() }
}

/// The first card of which this is true.
fn find_card(wanted: impl Fn(&Port) -> bool) -> Option<Arc<Port>> {
    if !HAS_CARDS.load(Ordering::Acquire) {
        return None;
    }
    CARDS.lock().iter().find(|port| wanted(port)).cloned()
}

/// The card that has this address.
pub fn port_of(own: IpAddr) -> Option<Arc<Port>> {
    find_card(|port| port.with_settings(|settings| settings.is_own(own)))
}

/// Somebody is the first on this interface to join a group, or was the last.
pub fn groups_changed(index: i32) {
    if let Some(port) = find_card(|port| port.index() == index) {
        port.groups_changed();
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback(),
    }
}

/// Is it one of the loopback's addresses?
pub fn is_of_loopback(ip: IpAddr) -> bool {
    is_loopback(ip) || is_added(ip)
}

/// Is it an address of this machine?
pub fn is_local(ip: IpAddr) -> bool {
    is_loopback_up() && (is_loopback(ip) || is_added(ip)) || port_of(ip).is_some()
}

/// May a socket be bound to it? Broadcast and multicast addresses are for receiving only.
pub fn is_bindable(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) || is_local(ip)
}

/// Is it a group whose packets do not leave a machine (RFC 4291, 2.7)?
pub fn stays_here(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_multicast() && ip.segments()[0] & 0xf < 2)
}

/// Is it the address of several machines?
pub fn is_group(ip: IpAddr) -> bool {
    /// Of the loopback's network.
    const LOCAL_BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);
    match ip {
        IpAddr::V4(v4) if v4.is_loopback() => v4 == LOCAL_BROADCAST,
        _ if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) => true,
        _ => find_card(|port| port.is_broadcast(ip)).is_some(),
    }
}

/// The card through which packets for `ip` go; None for addresses of this machine.
pub fn port_for(ip: IpAddr) -> Result<Option<Arc<Port>>> {
    if is_loopback(ip) || is_local(ip) {
        return Ok(None);
    }
    let leads = |port: &Port| port.with_settings(|settings| settings.source_for(ip).is_some());
    let is_near = |port: &Port| port.with_settings(|settings| settings.is_near(ip));
    // What is in the network of a card goes there, whatever way out another one has.
    let knows = |port: &Port| port.with_settings(|settings| settings.knows_way(ip)) && leads(port);
    let port = find_card(|port| is_near(port) && leads(port)).or_else(|| find_card(knows)).or_else(|| find_card(leads));
    port.filter(|port| port.is_up()).map(Some).ok_or(Errno::ENETUNREACH)
}

/// The same through the interface `device` only; 0: any. Packets that stay in the machine come through it then.
pub fn port_through(ip: IpAddr, device: i32) -> Result<Option<Arc<Port>>> {
    if device == 0 {
        return port_for(ip);
    }
    if device == LOOPBACK_INDEX {
        return if is_loopback_up() && is_of_loopback(ip) { Ok(None) } else { Err(Errno::ENETUNREACH) };
    }
    // Of IPv6 it is a part of the address, to which there is no way then.
    let none = if ip.is_ipv4() { Errno::ENODEV } else { Errno::ENETUNREACH };
    let port = find_card(|port| port.index() == device).ok_or(none)?;
    let (own, leads) = port.with_settings(|settings| (settings.is_own(ip), settings.source_for(ip).is_some()));
    match (own, leads && !is_loopback(ip) && port.is_up()) {
        (true, _) => Ok(None),
        (_, true) => Ok(Some(port)),
        _ => Err(Errno::ENETUNREACH),
    }
}

/// Where packets come from that go to `ip` through the interface `device`; 0: any.
pub fn source_through(ip: IpAddr, device: i32) -> Result<IpAddr> {
    match port_through(ip, device)? {
        Some(port) if device != 0 => port.with_settings(|settings| settings.source_for(ip)).ok_or(Errno::ENETUNREACH),
        _ => source_for(ip),
    }
}

/// The interface through which packets of this machine to itself come, if `device` was asked for.
#[inline(always)]
pub fn came_through(device: i32) -> i32 {
    if device == 0 { LOOPBACK_INDEX } else { device }
}

/// The longest packet that can go towards `ip` in one piece, bytes.
pub fn mtu_for(ip: IpAddr) -> Result<usize> {
    Ok(if port_for(ip)?.is_some() { card::MTU } else { LOOPBACK_MTU as usize })
}

/// Where packets for `ip` come from.
pub fn source_for(ip: IpAddr) -> Result<IpAddr> {
    if is_loopback(ip) {
        return match ip {
            _ if !is_loopback_up() => Err(Errno::ENETUNREACH),
            IpAddr::V4(_) => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            IpAddr::V6(_) => Ok(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        };
    }
    if is_local(ip) {
        return if is_loopback_up() { Ok(ip) } else { Err(Errno::ENETUNREACH) };
    }
    let port = port_for(ip)?.ok_or(Errno::ENETUNREACH)?;
    port.with_settings(|settings| settings.source_for(ip)).ok_or(Errno::ENETUNREACH)
}

/// May packets for `remote` come from `source`? The loopback's addresses do not leave the machine.
pub fn leads(source: IpAddr, remote: IpAddr) -> bool {
    !is_loopback(source) || is_loopback(remote) || is_local(remote)
}

/// Is a card still asking for its first address, without which there is no way to `ip`?
pub fn is_unsettled(ip: IpAddr) -> bool {
    !is_loopback(ip) && find_card(|port| port.is_up() && !port.settled.is_set()).is_some() && source_for(ip).is_err()
}

/// Programs that start with the machine need not know that it takes a moment to have an address: they wait for the answer, or
/// for the end of the time that is given to it.
pub async fn await_route(t: &Thread, ip: IpAddr) -> SysResult<()> {
    while is_unsettled(ip) {
        let Some(port) = find_card(|port| port.is_up() && !port.settled.is_set()) else { break };
        interruptible(t, port.settled.wait()).await?;
    }
    Ok(())
}
