//! A hash of both ends of a connection that nobody else can foresee: SipHash with a key of this boot.

use core::hash::Hasher;
use core::net::IpAddr;

use siphasher::sip::SipHasher13;

use super::Endpoint;
use crate::drivers::random;
use crate::sync::Lazy;

/// What it is for: of one hash nothing is to be learnt about another.
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Purpose {
    /// Which of those that share a port hears somebody.
    Choice,
    /// From which ports connections to somebody begin.
    Port,
    /// Where the numbers of a connection begin.
    Sequence,
}

pub fn hash(purpose: Purpose, local: Endpoint, remote: Endpoint) -> u64 {
    static KEY: Lazy<[u8; 16]> = Lazy::new(|| {
        let mut key = [0; 16];
        random::fill(&mut key);
        key
    });
    let mut hasher = SipHasher13::new_with_key(&KEY);
    hasher.write_u8(purpose as u8);
    for end in [local, remote] {
        match end.ip {
            IpAddr::V4(ip) => hasher.write_u32(ip.to_bits()),
            IpAddr::V6(ip) => hasher.write_u128(ip.to_bits()),
        }
        hasher.write_u16(end.port);
    }
    hasher.finish()
}
