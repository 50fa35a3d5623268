//! /proc/net/sockstat and sockstat6: how many sockets there are; snmp and snmp6: what has happened, as far as it is counted.
//!
//! How many packets are put together from pieces the stack does not tell, so there is no line for these.

use core::sync::atomic::{AtomicUsize, Ordering};

use super::text::{Text, put};
use crate::exec::budget;
use crate::fs::op::Op;
use crate::mm::PAGE_SIZE;
use crate::net::counted::{ORPHANS, SOCKETS, TCP_SOCKETS};
use crate::net::inet::ip::{self, Kind};
use crate::net::inet::{AF_INET, AF_INET6, Part, SHARDS, events, tcp, udp};

/// TCP_* of Linux.
const ESTABLISHED: u8 = 1;
const CLOSE_WAIT: u8 = 8;

/// [`events::Datagram`].
const DATAGRAMS: [&str; 5] = ["InDatagrams", "NoPorts", "InErrors", "OutDatagrams", "RcvbufErrors"];

/// The sockets of a protocol that have ports.
#[derive(Default)]
struct Counts {
    v4: usize,
    v6: usize,
    time_wait: usize,
    /// Both can send, or one still.
    established: usize,
    /// What they have not sent and not read.
    bytes: usize,
}

impl Counts {
    async fn of(part: fn(usize, usize, usize) -> Part) -> Self {
        /// How many are looked at in a turn.
        const SOME: usize = 32;
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
                    counts.established += usize::from(matches!(row.state, ESTABLISHED | CLOSE_WAIT));
                    if row.state != tcp::LISTEN {
                        counts.bytes += row.sending + row.receiving;
                    }
                });
                drop(rows);
                budget().await;
            }
        }
        counts
    }

    fn pages(&self) -> usize {
        self.bytes.div_ceil(PAGE_SIZE)
    }
}

async fn put_all(out: &mut Text) {
    let number = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    let (tcp, udp) = (Counts::of(tcp::part).await, Counts::of(udp::part).await);
    let lite = Counts::of(udp::part_of_lite).await;
    put!(out, "sockets: used {}\n", number(&SOCKETS));
    put!(out, "TCP: inuse {} orphan {} tw {} ", tcp.v4, number(&ORPHANS), tcp.time_wait);
    put!(out, "alloc {} mem {}\n", number(&TCP_SOCKETS), tcp.pages());
    put!(out, "UDP: inuse {} mem {}\n", udp.v4, udp.pages());
    put!(out, "UDPLITE: inuse {}\n", lite.v4);
    put!(out, "RAW: inuse {}\n", ip::rows(Kind::Raw, AF_INET).len());
}

async fn put_all6(out: &mut Text) {
    put!(out, "TCP6: inuse {}\n", Counts::of(tcp::part).await.v6);
    put!(out, "UDP6: inuse {}\n", Counts::of(udp::part).await.v6);
    put!(out, "UDPLITE6: inuse {}\n", Counts::of(udp::part_of_lite).await.v6);
    put!(out, "RAW6: inuse {}\n", ip::rows(Kind::Raw, AF_INET6).len());
}

async fn put_events(out: &mut Text) {
    let established = Counts::of(tcp::part).await.established;
    put!(out, "Tcp: ActiveOpens PassiveOpens CurrEstab\nTcp:");
    events::connections().for_each(|count| put!(out, " {count}"));
    put!(out, " {established}\n");
    for (name, lite) in [("Udp", false), ("UdpLite", true)] {
        put!(out, "{name}:");
        DATAGRAMS.iter().for_each(|what| put!(out, " {what}"));
        put!(out, "\n{name}:");
        events::datagrams(true, lite).for_each(|count| put!(out, " {count}"));
        put!(out, "\n");
    }
}

pub fn events6(out: &mut Text) {
    for (name, lite) in [("Udp6", false), ("UdpLite6", true)] {
        for (what, count) in DATAGRAMS.iter().zip(events::datagrams(false, lite)) {
            let width = 32 - name.len();
            put!(out, "{name}{what:<width$}\t{count}\n");
        }
    }
}

pub fn events(out: &mut Text) -> Op<'_, ()> {
    Op::boxed(put_events(out))
}

pub fn sockets(out: &mut Text) -> Op<'_, ()> {
    Op::boxed(put_all(out))
}

pub fn sockets6(out: &mut Text) -> Op<'_, ()> {
    Op::boxed(put_all6(out))
}
