//! What disks have done since they are there, as /proc/diskstats and /sys/block/NAME/stat tell it (Linux,
//! Documentation/admin-guide/iostats.rst). Nothing is merged and nothing discarded here.

use crate::arch;
use crate::fs::block::{SECTOR_SIZE, Transfer};
use crate::fs::procfs::text::{Text, put};
use crate::sync::SpinLock;

/// Counts of one disk.
#[derive(Default)]
pub struct DiskStats(SpinLock<Counts>);

#[derive(Clone, Default)]
struct Counts {
    reads: Kind,
    writes: Kind,
    flushes: Kind,
    in_flight: u64,
    /// While something was, in nanoseconds, up to `since`.
    busy: u64,
    since: u64,
}

/// Requests that were completed.
#[derive(Clone, Copy, Default)]
struct Kind {
    requests: u64,
    sectors: u64,
    /// From their begin to their end, in sum, in nanoseconds.
    waited: u64,
}

/// A request on its way.
#[derive(Clone, Copy)]
pub struct Begun {
    transfer: Transfer,
    sectors: u64,
    at: u64,
}

impl Counts {
    /// Brings `busy` up to a time.
    fn pass(&mut self, now: u64) {
        if self.in_flight > 0 {
            self.busy += now.saturating_sub(self.since);
        }
        self.since = now;
    }
}

impl DiskStats {
    pub fn begin(&self, transfer: Transfer, bytes: usize) -> Begun {
        let at = arch::now_ns();
        let mut counts = self.0.lock();
        counts.pass(at);
        counts.in_flight += 1;
        Begun { transfer, sectors: (bytes / SECTOR_SIZE) as u64, at }
    }

    pub fn end(&self, begun: Begun) {
        let now = arch::now_ns();
        let mut counts = self.0.lock();
        counts.pass(now);
        counts.in_flight -= 1;
        let kind = match begun.transfer {
            Transfer::Read => &mut counts.reads,
            Transfer::Write => &mut counts.writes,
            Transfer::Flush => &mut counts.flushes,
        };
        kind.requests += 1;
        kind.sectors += begun.sectors;
        kind.waited += now.saturating_sub(begun.at);
    }

    /// That were read, and written.
    pub fn sectors(&self) -> [u64; 2] {
        let counts = self.0.lock();
        [counts.reads.sectors, counts.writes.sectors]
    }

    /// The 17 fields, without a line's end. `wide`: in columns, as sysfs has them.
    pub fn put(&self, out: &mut Text, wide: bool) {
        let counts = {
            let mut counts = self.0.lock();
            counts.pass(arch::now_ns());
            counts.clone()
        };
        let ms = |ns: u64| ns / 1_000_000;
        let Counts { reads, writes, flushes, .. } = counts;
        let fields = [
            reads.requests,
            0,
            reads.sectors,
            ms(reads.waited),
            writes.requests,
            0,
            writes.sectors,
            ms(writes.waited),
            counts.in_flight,
            ms(counts.busy),
            ms(reads.waited + writes.waited + flushes.waited),
            0,
            0,
            0,
            0,
            flushes.requests,
            ms(flushes.waited),
        ];
        for (index, field) in fields.into_iter().enumerate() {
            match (wide, index) {
                (true, 0) => put!(out, "{field:>8}"),
                (true, _) => put!(out, " {field:>8}"),
                _ => put!(out, " {field}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::String;
    use alloc::vec::Vec;

    use super::*;

    #[test]
    fn requests_are_counted_when_they_end() {
        let stats = DiskStats::default();
        let begun = [(Transfer::Read, 4096), (Transfer::Write, 1024), (Transfer::Flush, 0)];
        let begun = begun.map(|(transfer, bytes)| stats.begin(transfer, bytes));
        let fields = || {
            let mut text = Text::default();
            stats.put(&mut text, false);
            let text = String::from_utf8(text.pieces(0).flatten().copied().collect()).unwrap();
            text.split_whitespace().map(|word| word.parse().unwrap()).collect::<Vec<u64>>()
        };
        let before = fields();
        assert_eq!((before.len(), before[0], before[4], before[8], before[15]), (17, 0, 0, 3, 0));
        begun.into_iter().for_each(|begun| stats.end(begun));
        let after = fields();
        let counts = [after[0], after[2], after[4], after[6], after[8], after[15]];
        assert_eq!(counts, [1, 8, 1, 2, 0, 1]);
    }
}
