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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub ip: IpAddr,
    pub mac: [u8; 6],
}

#[derive(Default)]
pub struct Neighbours {
    known: BTreeMap<IpAddr, ([u8; 6], Instant)>,
}

impl Neighbours {
    /// An answer of this one was seen.
    pub fn heard(&mut self, ip: IpAddr, mac: [u8; 6], now: Instant) {
        if self.known.len() >= MOST && !self.known.contains_key(&ip) {
            let oldest = self.known.iter().min_by_key(|(_, (_, at))| *at).map(|(ip, _)| *ip);
            oldest.map(|ip| self.known.remove(&ip));
        }
        self.known.insert(ip, (mac, now));
    }

    pub fn knows(&self, ip: IpAddr) -> bool {
        self.known.contains_key(&ip)
    }

    pub fn forget(&mut self) {
        self.known.clear();
    }

    pub fn list(&mut self, now: Instant) -> Vec<Neighbour> {
        self.known.retain(|_, (_, at)| now.saturating_since(*at) < FORGOTTEN);
        self.known.iter().map(|(ip, (mac, _))| Neighbour { ip: *ip, mac: *mac }).collect()
    }
}
