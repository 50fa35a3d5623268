//! Who is on the wire, as the frames say that pass by: for /proc/net/arp, and to tell a machine that does not answer from one
//! that is not there. (The stack has a cache of its own, which it does not show.)

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use crate::exec::Instant;

/// How long one that is not heard of is listed.
const FORGOTTEN: Duration = Duration::from_secs(300);
const MOST: usize = 128;
/// How long the stack's cache keeps one, and how many (ENTRY_LIFETIME, iface-neighbor-cache-count).
const CACHED: Duration = Duration::from_secs(60);
const MOST_CACHED: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub ip: IpAddr,
    pub mac: [u8; 6],
}

/// What is known of one.
struct Known {
    /// None: it has never answered.
    mac: Option<[u8; 6]>,
    heard: Instant,
    /// Since when it has been asked for, and has not answered.
    asked: Option<Instant>,
}

#[derive(Default)]
pub struct Neighbours {
    known: BTreeMap<IpAddr, Known>,
}

impl Neighbours {
    /// This one has said who it is. True: that is news.
    pub fn heard(&mut self, ip: IpAddr, mac: [u8; 6], now: Instant) -> bool {
        let known = self.entry(ip, now);
        let news = known.asked.is_some() || known.mac != Some(mac);
        *known = Known { mac: Some(mac), heard: now, asked: None };
        news
    }

    /// A packet of this one has come.
    pub fn refresh(&mut self, ip: IpAddr, now: Instant) {
        if let Some(known) = self.known.get_mut(&ip) {
            known.heard = now;
        }
    }

    /// The stack asks for this one.
    pub fn ask(&mut self, ip: IpAddr, now: Instant) {
        self.entry(ip, now).asked.get_or_insert(now);
    }

    /// Since when it has been asked for in vain.
    pub fn asked_since(&self, ip: IpAddr) -> Option<Instant> {
        self.known.get(&ip)?.asked
    }

    pub fn knows(&self, ip: IpAddr) -> bool {
        self.known.get(&ip).is_some_and(|known| known.mac.is_some() && known.asked.is_none())
    }

    /// The stack knows this one for sure, so it does not ask before it sends.
    pub fn is_cached(&self, ip: IpAddr, now: Instant) -> bool {
        let is_young = |known: &Known| known.mac.is_some() && now.saturating_since(known.heard) < CACHED;
        // With more than it has room for any of them may have gone.
        let heard = || self.known.values().filter(|known| now.saturating_since(known.heard) < CACHED * 2);
        self.known.get(&ip).is_some_and(|known| is_young(known) && known.asked.is_none())
            && heard().count() <= MOST_CACHED
    }

    /// Room for all of them there is not: first those go that have not answered, of these the oldest.
    fn entry(&mut self, ip: IpAddr, now: Instant) -> &mut Known {
        if self.known.len() >= MOST && !self.known.contains_key(&ip) {
            let worst = self.known.iter().min_by_key(|(_, known)| (known.mac.is_some(), known.heard));
            let worst = worst.map(|(ip, _)| *ip);
            worst.map(|ip| self.known.remove(&ip));
        }
        self.known.entry(ip).or_insert(Known { mac: None, heard: now, asked: None })
    }

    pub fn forget(&mut self) {
        self.known.clear();
    }

    pub fn list(&self, now: Instant) -> Vec<Neighbour> {
        let listed = self.known.iter().filter(|(_, known)| now.saturating_since(known.heard) < FORGOTTEN);
        listed.filter_map(|(ip, known)| Some(Neighbour { ip: *ip, mac: known.mac? })).collect()
    }
}
