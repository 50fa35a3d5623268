//! /proc/net/sockstat and sockstat6: how many sockets there are.
//!
//! How many packets are put together from pieces the stack does not tell, so there is no line for these.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::text::{Text, put};
use crate::mm::PAGE_SIZE;
use crate::net::counted::{ORPHANS, SOCKETS, TCP_SOCKETS};
use crate::net::inet::ip::{self, Kind};
use crate::net::inet::{AF_INET, AF_INET6, Part, SHARDS, tcp, udp};

/// The sockets of a protocol that have ports.
#[derive(Default)]
struct Counts {
    v4: usize,
    v6: usize,
    time_wait: usize,
    /// What they have not sent and not read.
    bytes: usize,
}

impl Counts {
    fn of(part: fn(usize, usize, usize) -> Part) -> Self {
        /// How many are looked at in a turn.
        const SOME: usize = 256;
        let mut counts = Counts::default();
        for shard in 0..SHARDS {
            let mut place = 0;
            loop {
                let rows = part(shard, place, SOME);
                let Some((last, _)) = rows.last() else { break };
                place = *last;
                rows.iter().filter_map(|(_, row)| row.as_ref()).for_each(|row| {
                    let count = match row.family {
                        _ if row.state == tcp::TIME_WAIT => &mut counts.time_wait,
                        AF_INET => &mut counts.v4,
                        _ => &mut counts.v6,
                    };
                    *count += 1;
                    if row.state != tcp::LISTEN {
                        counts.bytes += row.sending + row.receiving;
                    }
                });
            }
        }
        counts
    }

    fn pages(&self) -> usize {
        self.bytes.div_ceil(PAGE_SIZE)
    }
}

pub fn sockets(out: &mut Text) {
    let number = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    let (tcp, udp) = (Counts::of(tcp::part), Counts::of(udp::part));
    put!(out, "sockets: used {}\n", number(&SOCKETS));
    put!(out, "TCP: inuse {} orphan {} tw {} ", tcp.v4, number(&ORPHANS), tcp.time_wait);
    put!(out, "alloc {} mem {}\n", number(&TCP_SOCKETS), tcp.pages());
    put!(out, "UDP: inuse {} mem {}\n", udp.v4, udp.pages());
    put!(out, "UDPLITE: inuse {}\n", Counts::of(udp::part_of_lite).v4);
    put!(out, "RAW: inuse {}\n", ip::rows(Kind::Raw, AF_INET).len());
}

pub fn sockets6(out: &mut Text) {
    put!(out, "TCP6: inuse {}\n", Counts::of(tcp::part).v6);
    put!(out, "UDP6: inuse {}\n", Counts::of(udp::part).v6);
    put!(out, "UDPLITE6: inuse {}\n", Counts::of(udp::part_of_lite).v6);
    put!(out, "RAW6: inuse {}\n", ip::rows(Kind::Raw, AF_INET6).len());
}
