//! Who has which port of a protocol.
//!
//! A table is split by port into shards with a lock each, which is a leaf: nothing is called, and no last reference to a
//! socket goes, under it. What is asked of sockets at other times (SO_REUSEADDR, who listens) is noted here.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU32, Ordering};
use core::time::Duration;

use smallvec::SmallVec;

use super::Endpoint;
use super::keyed::{self, Purpose};
use crate::drivers::random;
use crate::errno::{Errno, Result};
use crate::exec::Instant;
use crate::sync::SpinLock;

/// net.ipv4.ip_local_port_range.
const FIRST: u32 = 32_768;
const LAST: u32 = 60_999;
const COUNT: u32 = LAST - FIRST + 1;
/// TCP_TIMEWAIT_LEN of Linux.
pub const TIME_WAIT: Duration = Duration::from_secs(60);
/// net.ipv4.tcp_tw_reuse = 2: within the machine a new connection may follow an old one after this long.
const TIME_WAIT_REUSE: Duration = Duration::from_secs(1);
/// The most connections that are kept in TIME_WAIT (net.ipv4.tcp_max_tw_buckets): who looks at a port goes through those
/// of it.
const MAX_TIME_WAITS: u32 = 1024;

/// A place in a shard is a port, and behind it so many bits that say which of those that have it.
const PLACE_SHIFT: u32 = 32;

/// How many searches for ports of connections there are.
const DESTINATIONS: usize = 256;

/// Into how many parts a table is split.
pub const SHARDS: usize = 64;

/// How a port is held.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub local: Endpoint,
    pub remote: Option<Endpoint>,
    /// IPV6_V6ONLY.
    pub only_v6: bool,
    /// SO_REUSEADDR.
    pub reuse: bool,
    /// SO_REUSEPORT, by this user.
    pub shared_by: Option<u32>,
    pub listening: bool,
    /// SO_BINDTODEVICE; 0: none.
    pub device: i32,
}

enum Holder<S> {
    Socket(Weak<S>),
    /// A connection that has ended not long ago (TIME_WAIT of RFC 9293).
    Past {
        end: Instant,
    },
}

struct Entry<S> {
    holder: Holder<S>,
    claim: Claim,
}

/// A socket that has a port, or what is left of a connection (None), and how it has it.
pub type Holding<S> = (Option<Arc<S>>, Claim);

type Entries<S> = SmallVec<[Entry<S>; 2]>;
type Shard<S> = SpinLock<BTreeMap<u16, Entries<S>>>;

/// The ports of a protocol.
pub struct Ports<S> {
    shards: [Shard<S>; SHARDS],
    /// Where the search for a free port goes on: for bind(2) and datagrams, and for connections to others by where they lead.
    next: AtomicU32,
    next_to: [AtomicU32; DESTINATIONS],
    past: AtomicU32,
    /// Where it is looked next for connections that are over.
    swept: AtomicU32,
}

/// Where a port is.
pub fn shard_of(port: u16) -> usize {
    usize::from(port) % SHARDS
}

impl Claim {
    pub fn new(local: Endpoint) -> Self {
        Claim { local, remote: None, only_v6: false, reuse: false, shared_by: None, listening: false, device: 0 }
    }

    /// Is `ip` one of its addresses?
    fn covers(&self, ip: IpAddr) -> bool {
        match self.local.ip {
            own if own == ip => true,
            own if !own.is_unspecified() => false,
            IpAddr::V4(_) => ip.is_ipv4(),
            IpAddr::V6(_) => ip.is_ipv6() || !self.only_v6,
        }
    }

    /// May it have what comes through this interface?
    #[inline(always)]
    pub fn hears(&self, index: i32) -> bool {
        self.device == 0 || self.device == index
    }

    fn overlaps(&self, other: &Claim) -> bool {
        self.covers(other.local.ip) || other.covers(self.local.ip)
    }

    /// Can both have the port? As Linux decides it for bind(2) and listen(2).
    fn agrees(&self, other: &Claim) -> bool {
        let apart = self.device != 0 && other.device != 0 && self.device != other.device;
        let both_reuse = self.reuse && other.reuse && !other.listening;
        let both_share = self.shared_by.is_some() && self.shared_by == other.shared_by;
        apart || both_reuse || both_share || !self.overlaps(other)
    }
}

impl<S> Entry<S> {
    fn is(&self, socket: *const S) -> bool {
        matches!(&self.holder, Holder::Socket(holder) if core::ptr::eq(holder.as_ptr(), socket))
    }

    /// What is left of this connection.
    fn was(&self, local: Endpoint, remote: Endpoint) -> bool {
        let past = matches!(self.holder, Holder::Past { .. });
        past && self.claim.remote == Some(remote) && self.claim.local.ip == local.ip
    }

    fn is_over(&self, now: Instant) -> bool {
        matches!(self.holder, Holder::Past { end } if end <= now)
    }

    /// May a connection from its port to `remote` begin?
    fn lets_connect(&self, local: IpAddr, remote: Endpoint, now: Instant) -> bool {
        let Some(theirs) = self.claim.remote else { return false };
        match self.holder {
            _ if theirs != remote || self.claim.local.ip != local => true,
            Holder::Past { end } => end.as_nanos() <= now.saturating_add(TIME_WAIT - TIME_WAIT_REUSE).as_nanos(),
            Holder::Socket(_) => false,
        }
    }
}

impl<S> Ports<S> {
    pub const fn new() -> Self {
        let shards = [const { SpinLock::new(BTreeMap::new()) }; SHARDS];
        let next_to = [const { AtomicU32::new(0) }; DESTINATIONS];
        Ports { shards, next: AtomicU32::new(0), next_to, past: AtomicU32::new(0), swept: AtomicU32::new(0) }
    }

    fn shard(&self, port: u16) -> &Shard<S> {
        &self.shards[shard_of(port)]
    }

    /// Gives `socket` the port that the claim names if everybody who has it agrees.
    pub fn claim(&self, socket: &Weak<S>, claim: Claim) -> Result<()> {
        let mut shard = self.shard(claim.local.port).lock();
        let entries = Self::entries(&mut shard, claim.local.port, &self.past);
        if !entries.iter().all(|entry| claim.agrees(&entry.claim)) {
            return Err(Errno::EADDRINUSE);
        }
        entries.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        entries.push(Entry { holder: Holder::Socket(socket.clone()), claim });
        Ok(())
    }

    /// The port that bind(2) names, or a free one for port 0.
    pub fn claim_given(&self, socket: &Weak<S>, claim: Claim) -> Result<u16> {
        match claim.local.port {
            0 => self.claim_any(socket, claim),
            port => self.claim(socket, claim).map(|()| port),
        }
    }

    /// A free port for bind(2) to port 0, and for datagrams.
    pub fn claim_any(&self, socket: &Weak<S>, claim: Claim) -> Result<u16> {
        if self.next.load(Ordering::Relaxed) == 0 {
            self.next.store(random::u64() as u32 % COUNT + 1, Ordering::Relaxed);
        }
        self.search(&self.next, 0, |port| self.claim_free(socket, claim, port)).ok_or(Errno::EADDRINUSE)
    }

    fn claim_free(&self, socket: &Weak<S>, mut claim: Claim, port: u16) -> Option<u16> {
        let mut shard = self.shard(port).lock();
        let entries = Self::entries(&mut shard, port, &self.past);
        if !entries.is_empty() {
            return None;
        }
        claim.local.port = port;
        entries.push(Entry { holder: Holder::Socket(socket.clone()), claim });
        Some(port)
    }

    /// A port for a connection: if none is free, one that others connect from to somebody else. Those to one other end get one after
    /// the other, and begin somewhere that others cannot know (RFC 6056, 3.3.4): so ports come again only after many
    /// connections to him, however many there are to others.
    pub fn claim_for_connection(&self, socket: &Weak<S>, claim: Claim, remote: Endpoint) -> Result<u16> {
        let own = keyed::hash(Purpose::Port, Endpoint { port: 0, ..claim.local }, remote);
        let next = &self.next_to[own as usize % DESTINATIONS];
        let first = (own >> 32) as u32 % COUNT;
        if let Some(port) = self.search(next, first, |port| self.claim_free(socket, claim, port)) {
            return Ok(port);
        }
        self.search(next, first, |port| {
            let now = Instant::now();
            let mut shard = self.shard(port).lock();
            let entries = shard.get_mut(&port)?;
            if !entries.iter().all(|entry| entry.lets_connect(claim.local.ip, remote, now)) {
                return None;
            }
            if entries.try_reserve(1).is_err() {
                return Some(Err(Errno::ENOMEM));
            }
            let mut claim = claim;
            claim.local.port = port;
            entries.push(Entry { holder: Holder::Socket(socket.clone()), claim });
            Some(Ok(port))
        })
        .unwrap_or(Err(Errno::EADDRNOTAVAIL))
    }

    /// Asks about each port of the range, from some place on.
    fn search<T>(&self, next: &AtomicU32, first: u32, mut ask: impl FnMut(u16) -> Option<T>) -> Option<T> {
        (0..COUNT).find_map(|_| {
            let step = next.fetch_add(1, Ordering::Relaxed) % COUNT;
            ask((FIRST + (first + step) % COUNT) as u16)
        })
    }

    /// Who has the port, without those that had it long ago.
    fn entries<'a>(shard: &'a mut BTreeMap<u16, Entries<S>>, port: u16, past: &AtomicU32) -> &'a mut Entries<S> {
        let entries = shard.entry(port).or_default();
        let now = Instant::now();
        let before = entries.len();
        entries.retain(|entry| !entry.is_over(now));
        past.fetch_sub((before - entries.len()) as u32, Ordering::Relaxed);
        entries
    }

    /// A socket that `listener` makes has its port, too, whoever else has it.
    pub fn share(&self, socket: &Weak<S>, listener: *const S, local: Endpoint, remote: Endpoint) -> Result<()> {
        let mut shard = self.shard(local.port).lock();
        let entries = Self::entries(&mut shard, local.port, &self.past);
        let theirs = entries.iter().find(|entry| entry.is(listener)).ok_or(Errno::ECONNREFUSED)?;
        let claim = Claim { local, remote: Some(remote), listening: false, ..theirs.claim };
        entries.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        entries.push(Entry { holder: Holder::Socket(socket.clone()), claim });
        Ok(())
    }

    /// Changes what is noted of a socket. Nothing changes if somebody does not agree: EADDRINUSE if it is to listen,
    /// EADDRNOTAVAIL if it connects (`alone`) to a peer that another connection from the port has.
    pub fn change(&self, socket: *const S, port: u16, alone: bool, change: impl FnOnce(&mut Claim)) -> Result<()> {
        let mut shard = self.shard(port).lock();
        let Some(entries) = shard.get_mut(&port) else { return Ok(()) };
        let Some(index) = entries.iter().position(|entry| entry.is(socket)) else { return Ok(()) };
        let Some(mut claim) = entries.get(index).map(|entry| entry.claim) else { return Ok(()) };
        change(&mut claim);
        let others = || entries.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, entry)| entry);
        if claim.listening && !others().all(|entry| claim.agrees(&entry.claim)) {
            return Err(Errno::EADDRINUSE);
        }
        let now = Instant::now();
        if let Some(remote) = claim.remote.filter(|_| alone)
            && others().any(|entry| entry.claim.remote.is_some() && !entry.lets_connect(claim.local.ip, remote, now))
        {
            return Err(Errno::EADDRNOTAVAIL);
        }
        if let Some(entry) = entries.get_mut(index) {
            entry.claim = claim;
        }
        Ok(())
    }

    /// The socket gives its port back. Its connection has perhaps ended in an order in which it is kept for this long: in TIME_WAIT,
    /// or for the other side's end.
    pub fn release(&self, socket: *const S, port: u16, wait: Option<Duration>) {
        if wait.is_some() && self.past.load(Ordering::Relaxed) >= MAX_TIME_WAITS {
            self.sweep();
        }
        let mut shard = self.shard(port).lock();
        let Some(entries) = shard.get_mut(&port) else { return };
        if let Some(index) = entries.iter().position(|entry| entry.is(socket)) {
            // Weak: no socket goes with it.
            // The order stays: see `find`.
            let entry = entries.remove(index);
            if let Some(time) = wait.filter(|_| self.past.load(Ordering::Relaxed) < MAX_TIME_WAITS) {
                let end = Instant::now().saturating_add(time);
                self.past.fetch_add(1, Ordering::Relaxed);
                entries.push(Entry { holder: Holder::Past { end }, claim: entry.claim });
            }
        }
        if entries.is_empty() {
            shard.remove(&port);
        }
    }

    /// Forgets connections that are over in the next shard: ports at which nobody looks.
    fn sweep(&self) {
        let next = self.swept.fetch_add(1, Ordering::Relaxed) as usize % SHARDS;
        let now = Instant::now();
        self.shards[next].lock().retain(|_, entries| {
            let before = entries.len();
            entries.retain(|entry| !entry.is_over(now));
            self.past.fetch_sub((before - entries.len()) as u32, Ordering::Relaxed);
            !entries.is_empty()
        });
    }

    /// The other side has ended, too, what is kept of a connection from `local` to `remote`: now it is in TIME_WAIT.
    pub fn renew(&self, local: Endpoint, remote: Endpoint) {
        let mut shard = self.shard(local.port).lock();
        let entry = shard.get_mut(&local.port).and_then(|entries| entries.iter_mut().find(|e| e.was(local, remote)));
        let now = Instant::now();
        if let Some(entry) = entry.filter(|entry| !entry.is_over(now)) {
            entry.holder = Holder::Past { end: now.saturating_add(TIME_WAIT) };
        }
    }

    /// A connection was reset after all: nothing of it is left to wait for.
    pub fn forget(&self, local: Endpoint, remote: Endpoint) {
        let mut shard = self.shard(local.port).lock();
        let Some(entries) = shard.get_mut(&local.port) else { return };
        let found = entries.iter().position(|entry| entry.was(local, remote));
        if let Some(index) = found {
            entries.remove(index);
            self.past.fetch_sub(1, Ordering::Relaxed);
        }
        if entries.is_empty() {
            shard.remove(&local.port);
        }
    }

    /// Who has ports: sockets, or what is left of connections (None), by port.
    pub fn list(&self) -> Vec<Holding<S>> {
        let mut all = Vec::new();
        for shard in 0..SHARDS {
            let part = self.part(shard, 0, usize::MAX);
            if all.try_reserve(part.len()).is_err() {
                break;
            }
            all.extend(part.into_iter().filter_map(|(_, holding)| holding));
        }
        // Without memory of its own, of which there may be none.
        all.sort_unstable_by_key(|(_, claim)| claim.local.port);
        all
    }

    /// A part of that: of one shard, from a place on (0: the first), so many at most, each with the place behind it. None: nothing
    /// is left of it.
    pub fn part(&self, shard: usize, place: usize, most: usize) -> Vec<(usize, Option<Holding<S>>)> {
        let now = Instant::now();
        let mut part = Vec::new();
        let Some(shard) = self.shards.get(shard) else { return part };
        // A port, and how many of those that have it.
        let (first, skip) = (place >> PLACE_SHIFT, place & ((1 << PLACE_SHIFT) - 1));
        let Ok(first) = u16::try_from(first) else { return part };
        let shard = shard.lock();
        for (port, entries) in shard.range(first..) {
            let skip = if *port == first { skip } else { 0 };
            for (index, entry) in entries.iter().enumerate().skip(skip) {
                // First, so that no last reference to a socket goes under the lock.
                if part.len() >= most || part.try_reserve(1).is_err() {
                    return part;
                }
                let holding = match &entry.holder {
                    _ if entry.is_over(now) => None,
                    Holder::Socket(socket) => socket.upgrade().map(|socket| (Some(socket), entry.claim)),
                    Holder::Past { .. } => Some((None, entry.claim)),
                };
                part.push(((usize::from(*port) << PLACE_SHIFT) + index + 1, holding));
            }
        }
        part
    }

    /// Everybody who may have what comes from `remote` to `local`, which is for many. What there is no memory for is left out.
    pub fn find_all(&self, local: Endpoint, remote: Endpoint, wanted: impl Fn(&Claim) -> bool) -> Vec<Arc<S>> {
        let mut all = Vec::new();
        let shard = self.shard(local.port).lock();
        for entry in shard.get(&local.port).into_iter().flatten() {
            let Entry { holder: Holder::Socket(socket), claim } = entry else { continue };
            let fits = wanted(claim) && claim.covers(local.ip) && claim.remote.is_none_or(|theirs| theirs == remote);
            if fits && all.try_reserve(1).is_ok() {
                all.extend(socket.upgrade());
            }
        }
        all
    }

    /// Who is meant by what comes from `remote` to `local`: the one whose claim says most. Of several that share the port with
    /// SO_REUSEPORT it is always the same for these two, else the one that came last.
    pub fn find(&self, local: Endpoint, remote: Endpoint, wanted: impl Fn(&Claim) -> bool) -> Option<Arc<S>> {
        let shard = self.shard(local.port).lock();
        let entries = shard.get(&local.port)?;
        let score = |entry: &Entry<S>| {
            let claim = &entry.claim;
            let fits = wanted(claim) && claim.covers(local.ip) && claim.remote.is_none_or(|theirs| theirs == remote);
            let (connected, own) = (claim.remote.is_some(), !claim.local.is_any());
            fits.then(|| 4 * u32::from(connected) + 2 * u32::from(own) + u32::from(claim.device != 0))
        };
        let (mut best, mut count, mut chosen) = (0, 0, None);
        for entry in entries {
            match score(entry) {
                Some(score) if chosen.is_none() || score > best => (best, count, chosen) = (score, 1, Some(entry)),
                Some(score) if score == best => (count, chosen) = (count + 1, Some(entry)),
                _ => {}
            }
        }
        if count > 1 && chosen.is_some_and(|entry| entry.claim.shared_by.is_some()) {
            let mut fitting = entries.iter().filter(|entry| score(entry) == Some(best));
            let choice = keyed::hash(Purpose::Choice, local, remote);
            chosen = fitting.nth((choice % count as u64) as usize);
        }
        match &chosen?.holder {
            Holder::Socket(socket) => socket.upgrade(),
            Holder::Past { .. } => None,
        }
    }
}
