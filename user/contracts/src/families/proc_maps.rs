//! /proc/PID/maps, smaps and smaps_rollup, proc(5).

use std::collections::BTreeSet;
use std::ffi::CStr;

use libc::*;

use crate::file::{close, open};
use crate::memory::{self, PAGE};
use crate::process::in_child;
use crate::sys::sys;
use crate::{say, tests};

tests! { small_reads, positions, changes_between_reads, sizes, shares, sum, of_nothing }

/// So many mappings with gaps between them, which no other joins; answers the first.
fn mappings(count: usize) -> *mut u8 {
    let area = memory::pages(2 * count + 1);
    sys!(SYS_mprotect, area, (2 * count + 1) * PAGE, PROT_READ);
    for index in 0..=count {
        sys!(SYS_munmap, area as usize + 2 * index * PAGE, PAGE);
    }
    area.wrapping_add(PAGE)
}

/// What is read with reads of this length.
fn text(path: &CStr, length: usize) -> String {
    let fd = open(path, O_RDONLY).fd();
    let mut all = Vec::new();
    let mut buffer = vec![0u8; length];
    loop {
        let read = sys!(SYS_read, fd, &mut buffer[..], length);
        if read.0 <= 0 {
            break;
        }
        all.extend_from_slice(&buffer[..read.0 as usize]);
    }
    close(fd);
    String::from_utf8_lossy(&all).into_owned()
}

/// How many of the mappings at `area` are there.
fn found(text: &str, area: *mut u8, count: usize) -> usize {
    let starts: BTreeSet<u64> = starts(text).collect();
    (0..count).filter(|index| starts.contains(&((area as usize + 2 * index * PAGE) as u64))).count()
}

fn starts(text: &str) -> impl Iterator<Item = u64> {
    text.lines().filter_map(|line| u64::from_str_radix(line.split_once('-')?.0, 16).ok())
}

fn small_reads() {
    let area = mappings(300);
    let whole = text(c"/proc/self/maps", 1 << 20);
    say!("large reads: {}", found(&whole, area, 300));
    for length in [1000, 61, 4096, 10_000] {
        let text = text(c"/proc/self/maps", length);
        say!("reads of {length}: {}, in order: {}", found(&text, area, 300), starts(&text).is_sorted());
    }
    say!("smaps: {}", found(&text(c"/proc/self/smaps", 777), area, 300));
}

fn positions() {
    let area = mappings(300);
    let fd = open(c"/proc/self/maps", O_RDONLY).fd();
    let at = |offset: i64| {
        let mut buffer = [0u8; 50];
        let read = sys!(SYS_pread64, fd, &mut buffer[..], 50, offset);
        (read.0, buffer)
    };
    let (far, near) = (at(9000), at(20));
    say!("far: {}, near: {}, again the same: {} {}", far.0, near.0, at(9000) == far, at(20) == near);
    say!("behind the end: {}", at(10_000_000).0);
    say!("seek: {}", sys!(SYS_lseek, fd, 9000, SEEK_SET));
    let mut buffer = [0u8; 50];
    say!("read: {} {}", sys!(SYS_read, fd, &mut buffer[..], 50), buffer == far.1);
    say!("back: {}", sys!(SYS_lseek, fd, 0, SEEK_SET));
    let more = mappings(10);
    let mut large = vec![0u8; 1 << 16];
    let mut total = 0;
    while let read @ 1.. = sys!(SYS_read, fd, &mut large[total..], large.len() - total).0 {
        total += read as usize;
    }
    let text = String::from_utf8_lossy(&large[..total]).into_owned();
    say!("new ones: {}, old ones: {}", found(&text, more, 10), found(&text, area, 300));
    close(fd);
}

fn changes_between_reads() {
    let area = mappings(400);
    let fd = open(c"/proc/self/maps", O_RDONLY).fd();
    let mut buffer = vec![0u8; 4096];
    let first = sys!(SYS_read, fd, &mut buffer[..], 1000).0;
    sys!(SYS_munmap, area as usize + 399 * PAGE, 400 * PAGE);
    let mut text = buffer[..first as usize].to_vec();
    while let read @ 1.. = sys!(SYS_read, fd, &mut buffer[..], 4096).0 {
        text.extend_from_slice(&buffer[..read as usize]);
    }
    let text = String::from_utf8_lossy(&text).into_owned();
    say!("what was not changed: {}", found(&text, area, 200));
    say!("in order: {}", starts(&text).is_sorted());
    close(fd);
}

/// A number of kB that smaps tells.
fn sizes_of(text: &str, label: &str) -> u64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(label)?.strip_prefix(':')?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .sum()
}

/// What smaps says of the mapping at `area`, up to its flags.
fn part_of(text: &str, area: *mut u8) -> &str {
    let from = text.find(&format!("{:x}-", area as usize)).unwrap_or_default();
    let until = text[from..].find("VmFlags").map_or(text.len(), |length| from + length);
    &text[from..until]
}

const SHARES: [&str; 4] = ["Shared_Clean", "Shared_Dirty", "Private_Clean", "Private_Dirty"];

fn show_shares(whose: &str, area: *mut u8, labels: &[&str]) {
    let text = text(c"/proc/self/smaps", 4096);
    let size = |label: &&str| format!("{label} {}", sizes_of(part_of(&text, area), label));
    say!("{whose}: {}", labels.iter().map(size).collect::<Vec<_>>().join(", "));
}

/// What is written to is dirty, what another process has as well is shared; of all mappings it is as much as is resident.
fn shares() {
    let area = memory::pages(64);
    // Nothing beside it can become one with it.
    sys!(SYS_mprotect, area, PAGE, PROT_READ);
    sys!(SYS_mprotect, area.wrapping_add(63 * PAGE), PAGE, PROT_READ);
    let area = area.wrapping_add(PAGE);
    for index in 0..10 {
        memory::poke(area.wrapping_add(index * PAGE), 1);
    }
    for index in 10..15 {
        memory::peek(area.wrapping_add(index * PAGE));
    }
    show_shares("alone", area, &SHARES);
    in_child(|| {
        show_shares("after fork", area, &SHARES);
        for index in 8..12 {
            memory::poke(area.wrapping_add(index * PAGE), 2);
        }
        show_shares("two written to, and two new ones", area, &SHARES);
        sys!(SYS_madvise, area, 4 * PAGE, MADV_FREE);
        memory::poke(area, 3);
        in_child(|| {
            // When the kernel takes what it may take is its own affair.
            show_shares("freed, one written to again", area, &["Shared_Dirty", "Private_Dirty"]);
            0
        });
        0
    });
    show_shares("alone again", area, &SHARES);
    let text = text(c"/proc/self/smaps_rollup", 4096);
    let all: u64 = SHARES.iter().map(|label| sizes_of(&text, label)).sum();
    say!("all of it: {}", all == sizes_of(&text, "Rss"));
}

fn sizes() {
    let area = memory::pages(64);
    for index in 0..10 {
        memory::poke(area.wrapping_add(index * PAGE), 1);
    }
    sys!(SYS_mprotect, area, 64 * PAGE, PROT_READ);
    let text = text(c"/proc/self/smaps", 4096);
    for label in ["Size", "KernelPageSize", "MMUPageSize", "Rss", "Anonymous", "AnonHugePages"] {
        say!("{label}: {}", sizes_of(part_of(&text, area), label));
    }
}

fn sum() {
    let area = memory::pages(64);
    (0..20).for_each(|index| memory::poke(area.wrapping_add(index * PAGE), 1));
    let rollup = text(c"/proc/self/smaps_rollup", 4096);
    let head = rollup.lines().next().unwrap_or_default();
    let (range, rest) = head.split_once(' ').unwrap_or_default();
    let maps = text(c"/proc/self/maps", 1 << 16);
    let ends = |text: &str| text.split_once(' ').map(|(range, _)| range.to_owned()).unwrap_or_default();
    let (first, last) = (ends(&maps), maps.lines().last().map(ends).unwrap_or_default());
    say!("its line: {:?}", rest.split_whitespace().collect::<Vec<_>>());
    say!("from the first: {}", range.split('-').next() == first.split('-').next());
    say!("to the last: {}", range.split('-').nth(1) == last.split('-').nth(1));
    let (sum, all) = (sizes_of(&rollup, "Rss"), sizes_of(&text(c"/proc/self/smaps", 1 << 16), "Rss"));
    // What the reading itself needs comes to it.
    say!("the sum of the others: {}", sum.abs_diff(all) < 400);
    say!("twice: {}", text(c"/proc/self/smaps_rollup", 10).len() == rollup.len());
}

fn of_nothing() {
    in_child(|| {
        let fds =
            [c"/proc/self/maps", c"/proc/self/smaps", c"/proc/self/smaps_rollup"].map(|path| open(path, O_RDONLY));
        say!("opened: {:?}", fds.map(|fd| fd.ok_or_error()));
        let mut byte = [0u8; 1];
        for fd in fds {
            say!(
                "a byte: {}, nothing: {}",
                sys!(SYS_read, fd.fd(), &mut byte, 1),
                sys!(SYS_read, fd.fd(), &mut byte, 0)
            );
        }
        0
    });
}
