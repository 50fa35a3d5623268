//! /proc/lock_stat: spinlocks that somebody had to wait for. The name and the way to set it to zero are Linux's
//! (Documentation/locking/lockstat.rst), and so are the columns that are there; what costs something while nobody
//! waits, like the number of acquisitions, is not counted.

use super::node::{Static, StaticKind};
use super::text::{Text, put};
use crate::errno::Result;
use crate::sync::stat::{self, Contention};

pub const FILE: Static =
    Static { name: "lock_stat", perm: 0o600, kind: StaticKind::Setting(show, |bytes, _| store(bytes)) };

/// As on Linux, anything but a 0 is ignored.
fn store(bytes: &[u8]) -> Result<()> {
    if bytes.first() == Some(&b'0') {
        stat::reset();
    }
    Ok(())
}

/// A line for each class of locks, and below it one for each place at which they were waited for. Times are in µs.
fn show(out: &mut Text) {
    let (all, homeless) = stat::contentions();
    let [class, waits, longest, total, each] =
        ["class name", "contentions", "waittime-max", "waittime-total", "waittime-avg"];
    put!(out, "{class:>60} {waits:>14} {longest:>14} {total:>14} {each:>14}\n");
    for class in all.chunk_by(|a, b| a.class == b.class) {
        let waits: u64 = class.iter().map(|place| place.waits).sum();
        let total: u64 = class.iter().map(|place| place.total_ns).sum();
        let longest = class.iter().map(|place| place.longest_ns).max().unwrap_or(0);
        let name = class.first().map_or("", |place| place.class);
        put!(out, "{name:>59}: {waits:>14}");
        for ns in [longest, total, total / waits.max(1)] {
            put!(out, " {:>11}.{:02}", ns / 1000, ns % 1000 / 10);
        }
        put!(out, "\n");
        class.iter().for_each(|place| put_place(out, place));
    }
    if homeless > 0 {
        put!(out, "{:>59}: {homeless:>14}\n", "(at places for which there was no room)");
    }
}

fn put_place(out: &mut Text, contention: &Contention) {
    let place = contention.place;
    put!(out, "{:>60} {:>14} [{}:{}]\n", "", contention.waits, place.file(), place.line());
}
