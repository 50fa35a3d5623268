//! What a socket keeps of failures for recvmsg(2) with MSG_ERRQUEUE: `struct sock_extended_err` of ip(7).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicUsize, Ordering};

use linux_raw_sys::net as raw;

use super::Failure;
use crate::errno::Errno;
use crate::fs::TryError;
use crate::mm::{IoBuf, frames};
use crate::net::inet::options::{SOL_IP, SOL_IPV6};
use crate::net::inet::told::{About, Noted, Told, moment};
use crate::net::inet::{AF_INET6, Endpoint};
use crate::net::packet::copy_out;
use crate::net::socket::{Common, Extra, Extras, Received};
use crate::sync::SpinLock;
use crate::time;

/// SO_EE_ORIGIN_*.
const LOCAL: u8 = 1;
const ICMP: u8 = 2;
const ICMP6: u8 = 3;
/// What an entry takes up besides its bytes.
const OVERHEAD: usize = 768;

struct Entry {
    errno: Errno,
    origin: u8,
    kind: u8,
    code: u8,
    info: u32,
    /// Where the packet was to go.
    to: Endpoint,
    /// Who says so, and how that came.
    by: Option<(Endpoint, About)>,
    data: Box<[u8]>,
}

struct Entries {
    all: VecDeque<Entry>,
    /// What these take up.
    charge: usize,
}

/// Its lock is a leaf.
pub struct ErrorQueue {
    entries: SpinLock<Entries>,
    /// How many there are, for who must not wait.
    len: AtomicUsize,
}

impl Entry {
    fn is_message(&self) -> bool {
        self.origin != LOCAL
    }

    fn charge(&self) -> usize {
        self.data.len() + OVERHEAD
    }

    /// `struct sock_extended_err`, and behind it the address of who says so.
    fn to_bytes(&self, family: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((self.errno.get() as u32).to_ne_bytes());
        bytes.extend([self.origin, self.kind, self.code, 0]);
        bytes.extend(self.info.to_ne_bytes());
        bytes.extend([0; 4]);
        match self.by {
            Some((by, _)) => bytes.extend_from_slice(&by.to_address(family)),
            None => bytes.resize(bytes.len() + Endpoint::any(family).to_address(family).len(), 0),
        }
        bytes
    }

    fn extras(&self, common: &Common, told: Told) -> Vec<Extra> {
        let mut all = Vec::new();
        all.extend(moment(common, self.by.map_or(0, |(_, about)| about.at)));
        if let Some((_, about)) = &self.by {
            told.add(common, about, &mut all);
        }
        let (level, kind) =
            if common.family == AF_INET6 { (SOL_IPV6, raw::IPV6_RECVERR) } else { (SOL_IP, raw::IP_RECVERR) };
        all.push(Extra { level, kind, data: self.to_bytes(common.family).into() });
        all
    }
}

impl ErrorQueue {
    pub const fn new() -> Self {
        ErrorQueue { entries: SpinLock::new(Entries { all: VecDeque::new(), charge: 0 }), len: AtomicUsize::new(0) }
    }

    pub fn is_empty(&self) -> bool {
        self.len.load(Ordering::Relaxed) == 0
    }

    /// An option was set: without IP_RECVERR, and without IPV6_RECVERR, what is here goes.
    pub fn keep_if(&self, told: Told, level: u32, option: u32) {
        let v4 = match (level, option) {
            (SOL_IP, raw::IP_RECVERR) => true,
            (SOL_IPV6, raw::IPV6_RECVERR) => false,
            _ => return,
        };
        if !told.errors(v4) {
            self.clear();
        }
    }

    pub fn clear(&self) {
        let mut entries = self.entries.lock();
        self.len.store(0, Ordering::Relaxed);
        entries.charge = 0;
        let all = core::mem::take(&mut entries.all);
        drop(entries);
        drop(all);
    }

    /// What ICMP says of a packet to `to`, of which the program is shown this much. What finds no room is lost.
    pub fn add(&self, common: &Common, failure: &Failure<'_>, to: Endpoint, payload: &[u8]) {
        let mut data = Vec::new();
        if !frames::has_spare() || data.try_reserve_exact(payload.len()).is_err() {
            return;
        }
        data.extend_from_slice(payload);
        let by = &failure.by;
        let about = About {
            to: Endpoint { ip: by.to, port: 0 },
            index: by.index,
            hops: by.hops,
            class: by.class,
            noted: Noted::Interface,
            at: if common.times.load(Ordering::Relaxed) == 0 { 0 } else { time::now_realtime().to_nanos() },
        };
        let Failure { errno, kind, code, info, .. } = *failure;
        let origin = if by.to.is_ipv4() { ICMP } else { ICMP6 };
        let by = Some((Endpoint { ip: by.from, port: 0 }, about));
        self.push(common, Entry { errno, origin, kind, code, info, to, by, data: data.into_boxed_slice() });
    }

    /// The machine itself refuses to send a packet to `to`, because of its size: `size` would be right.
    pub fn add_local(&self, common: &Common, to: Endpoint, size: u32) {
        let entry = Entry {
            errno: Errno::EMSGSIZE,
            origin: LOCAL,
            kind: 0,
            code: 0,
            info: size,
            to,
            by: None,
            data: Box::default(),
        };
        self.push(common, entry);
    }

    fn push(&self, common: &Common, entry: Entry) {
        let limit = common.receive_buffer.load(Ordering::Relaxed) as usize;
        let mut entries = self.entries.lock();
        let charge = entries.charge + entry.charge();
        if charge >= limit || entries.all.try_reserve(1).is_err() {
            drop(entries);
            return;
        }
        entries.charge = charge;
        entries.all.push_back(entry);
        self.len.store(entries.all.len(), Ordering::Relaxed);
    }

    /// The first one. As on Linux the next call is told of the next one that ICMP has said, or of nothing any more
    /// (sock_dequeue_err_skb).
    pub fn take(&self, common: &Common, told: Told, buf: &mut IoBuf<'_>) -> Result<Received, TryError> {
        let mut entries = self.entries.lock();
        let entry = entries.all.front().ok_or(TryError::WouldBlock)?;
        let len = copy_out(buf, &entry.data)?;
        let Some(entry) = entries.all.pop_front() else { return Err(TryError::WouldBlock) };
        entries.charge -= entry.charge();
        self.len.store(entries.all.len(), Ordering::Relaxed);
        match entries.all.front().filter(|next| next.is_message()) {
            Some(next) => common.set_error(next.errno),
            None if entry.is_message() => _ = common.take_error(),
            None => {}
        }
        drop(entries);
        Ok(Received {
            len,
            full: entry.data.len(),
            from: Some(entry.to.to_address(common.family)),
            extras: Some(Box::new(Extras(entry.extras(common, told)))),
            failure: true,
            ..Received::default()
        })
    }
}
