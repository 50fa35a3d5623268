//! Who receives what comes: raw sockets by protocol, ICMP sockets by the identifiers of their questions.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use smallvec::SmallVec;

use super::{IpSocket, Kind};
use crate::drivers::random;
use crate::errno::{Errno, Result};
use crate::net::listeners::Listeners;
use crate::sync::SpinLock;

/// By protocol, and whether it is IPv4.
static RAW: Listeners<(u8, bool), IpSocket> = Listeners::new();

/// Of those that have an identifier, by that.
static ASKING: SpinLock<BTreeMap<u16, SmallVec<[Asking; 1]>>> = SpinLock::new(BTreeMap::new());
/// Where the search for a free one goes on.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// How many sockets may share an identifier.
const MOST: usize = 64;
/// How many are looked at for a free one; the next search goes on from there.
const STEPS: usize = 4096;
/// Identifiers that are looked at in a turn.
const SOME: usize = 64;

/// How many sockets there are in both.
static COUNT: AtomicUsize = AtomicUsize::new(0);

struct Asking {
    socket: Weak<IpSocket>,
    /// Its address; an unspecified one stands for all of its family.
    local: IpAddr,
    /// SO_REUSEADDR.
    reuse: bool,
}

/// There is nobody: what comes is not looked at.
pub fn is_empty() -> bool {
    COUNT.load(Ordering::Relaxed) == 0
}

pub fn add_raw(socket: &IpSocket) {
    RAW.add((socket.common.protocol, socket.is_v4()), &socket.this);
    COUNT.fetch_add(1, Ordering::Relaxed);
}

pub fn remove_raw(socket: &IpSocket) {
    RAW.remove((socket.common.protocol, socket.is_v4()), socket);
    COUNT.fetch_sub(1, Ordering::Relaxed);
}

pub fn raw(protocol: u8, v4: bool) -> impl Iterator<Item = Arc<IpSocket>> {
    RAW.each((protocol, v4))
}

/// All of a kind. What there is no memory for is left out.
pub fn all(kind: Kind) -> Vec<Arc<IpSocket>> {
    let mut all = Vec::new();
    if kind == Kind::Raw {
        for socket in RAW.between((0, false), (u8::MAX, true)) {
            if all.try_reserve(1).is_ok() {
                all.push(socket);
            }
        }
        return all;
    }
    let mut next = Some(0);
    while let Some(first) = next.take() {
        let asking = ASKING.lock();
        for (ident, there) in asking.range(first..).take(SOME) {
            // First, so that no last reference to a socket goes under the lock.
            if all.try_reserve(there.len()).is_err() {
                return all;
            }
            all.extend(there.iter().filter_map(|entry| entry.socket.upgrade()));
            next = ident.checked_add(1);
        }
    }
    all
}

/// Gives the socket this identifier, or some free one for 0. EADDRINUSE: somebody has it, or there is none.
pub fn claim(socket: &IpSocket, ident: u16, local: IpAddr, reuse: bool) -> Result<u16> {
    let mut asking = ASKING.lock();
    let ident = match ident {
        0 => free(&asking).ok_or(Errno::EADDRINUSE)?,
        ident => ident,
    };
    let there = asking.entry(ident).or_default();
    if there.len() >= MOST || !there.iter().all(|other| other.reuse && reuse) {
        return Err(Errno::EADDRINUSE);
    }
    there.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
    there.push(Asking { socket: socket.this.clone(), local, reuse });
    COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(ident)
}

/// Some identifier that nobody has; None if none is found near.
fn free(asking: &BTreeMap<u16, SmallVec<[Asking; 1]>>) -> Option<u16> {
    if asking.len() >= usize::from(u16::MAX) {
        return None;
    }
    let mut next = NEXT.load(Ordering::Relaxed);
    if next == 0 {
        next = random::u64() as u16;
    }
    next = next.wrapping_add(1).max(1);
    for (taken, _) in asking.range(next..).chain(asking.range(..next)).take(STEPS) {
        if *taken != next {
            break;
        }
        next = next.wrapping_add(1).max(1);
    }
    NEXT.store(next, Ordering::Relaxed);
    (!asking.contains_key(&next)).then_some(next)
}

/// The socket has another address.
pub fn change(socket: &IpSocket, ident: u16, local: IpAddr) {
    let mut asking = ASKING.lock();
    let own = asking.get_mut(&ident).and_then(|there| there.iter_mut().find(|entry| entry.is(socket)));
    if let Some(own) = own {
        own.local = local;
    }
}

pub fn release(socket: &IpSocket, ident: u16) {
    let mut asking = ASKING.lock();
    let Some(there) = asking.get_mut(&ident) else { return };
    // Weak: no socket goes with it.
    if let Some(place) = there.iter().position(|entry| entry.is(socket)) {
        there.remove(place);
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
    if there.is_empty() {
        asking.remove(&ident);
    }
}

/// Whose question an answer to `to` is for: of several that share the identifier the last that asked for it.
/// It hears what comes through the interface `index`.
pub fn asking(ident: u16, to: IpAddr, index: i32) -> Option<Arc<IpSocket>> {
    let asking = ASKING.lock();
    let fits =
        |entry: &&Asking| entry.local == to || entry.local.is_unspecified() && entry.local.is_ipv4() == to.is_ipv4();
    let there = asking.get(&ident)?.iter().rev().filter(fits);
    // No last reference to a socket goes under the lock.
    let fitting: SmallVec<[_; 4]> = there.filter_map(|entry| entry.socket.upgrade()).collect();
    drop(asking);
    fitting.into_iter().find(|socket| socket.common.hears(index))
}

impl Asking {
    fn is(&self, socket: *const IpSocket) -> bool {
        core::ptr::eq(self.socket.as_ptr(), socket)
    }
}
