//! /proc/PID/smaps and smaps_rollup: what of a mapping is in memory, and with how many others it shares that.

use libc::*;

use crate::file::{close, create, open, unlink};
use crate::memory::{PAGE, map, peek, poke};
use crate::process;
use crate::sys::sys;
use crate::{say, tests};

tests! { anonymous, copied, of_a_file, of_memory, locked, rollup, rollup_of_a_zombie }

const LABELS: [&str; 10] = [
    "Rss",
    "Pss",
    "Pss_Dirty",
    "Shared_Clean",
    "Shared_Dirty",
    "Private_Clean",
    "Private_Dirty",
    "Anonymous",
    "Locked",
    "Swap",
];

/// The lines of each mapping: its address, and the numbers by their labels.
fn mappings(pid: u32) -> Vec<(usize, Vec<(String, u64)>)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let mut found: Vec<(usize, Vec<(String, u64)>)> = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        if let Some(label) = first.strip_suffix(':') {
            let number = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            if let Some((_, lines)) = found.last_mut() {
                lines.push((label.into(), number));
            }
        } else if let Some((start, _)) = first.split_once('-') {
            found.push((usize::from_str_radix(start, 16).unwrap_or(0), Vec::new()));
        }
    }
    found
}

/// What there is of the mapping that begins here, in KiB.
fn usage(at: *mut u8) -> String {
    let all = mappings(std::process::id());
    let Some((_, lines)) = all.into_iter().find(|(start, _)| *start == at as usize) else { return "nothing".into() };
    let number = |label: &&str| lines.iter().find(|(found, _)| found == label).map_or(0, |(_, number)| *number);
    let shown = LABELS.iter().filter(|label| number(label) > 0).map(|label| format!("{label} {}", number(label)));
    shown.collect::<Vec<_>>().join(", ")
}

fn touch(at: *mut u8, count: usize) {
    for index in 0..count {
        poke(at.wrapping_add(index * PAGE), 1);
    }
}

fn look(at: *mut u8, count: usize) {
    for index in 0..count {
        peek(at.wrapping_add(index * PAGE));
    }
}

/// Pages between two that nobody may touch: a mapping of its own.
fn apart(count: usize) -> *mut u8 {
    let all = map((count + 2) * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0).need() as usize + PAGE;
    sys!(SYS_mprotect, all, count * PAGE, PROT_READ | PROT_WRITE).need();
    all as *mut u8
}

fn anonymous() {
    let at = apart(16);
    say!("untouched: {}", usage(at));
    look(at, 16);
    say!("read: {}", usage(at));
    touch(at, 4);
    say!("four written: {}", usage(at));
    touch(at, 16);
    say!("all: {}", usage(at));
    sys!(SYS_madvise, at, 8 * PAGE, MADV_DONTNEED);
    say!("half given up: {}", usage(at));
}

/// What processes share after a fork.
fn copied() {
    let at = apart(16);
    touch(at, 16);
    process::in_child(|| {
        say!("child: {}", usage(at));
        touch(at, 4);
        say!("four written: {}", usage(at));
        process::in_child(|| {
            say!("grandchild: {}", usage(at));
            0
        });
        say!("without it: {}", usage(at));
        0
    });
    say!("alone: {}", usage(at));
}

fn of_a_file() {
    let fd = create(c"/root/file", &"x".repeat(8 * PAGE));
    sys!(SYS_fsync, fd).need();
    let first = map(8 * PAGE, PROT_READ, MAP_SHARED, fd, 0).need() as *mut u8;
    say!("untouched: {}", usage(first));
    look(first, 8);
    say!("one mapping: {}", usage(first));
    let second = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0).need() as *mut u8;
    look(second, 8);
    say!("two: {} and {}", usage(first), usage(second));
    touch(second, 2);
    say!("two pages of one's own: {} and {}", usage(first), usage(second));
    close(fd);
    unlink(c"/root/file");
}

fn of_memory() {
    let at = map(8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0).need() as *mut u8;
    touch(at, 8);
    say!("alone: {}", usage(at));
    process::in_child(|| {
        // Whether it has them before it looks is the kernel's own affair.
        look(at, 8);
        say!("looked at: {}", usage(at));
        0
    });
}

fn locked() {
    let at = apart(8);
    sys!(SYS_mlock, at, 8 * PAGE).need();
    say!("{}", usage(at));
    process::in_child(|| {
        say!("child: {}", usage(at));
        0
    });
}

/// The sums of a process that does nothing.
fn rollup() {
    let pid = process::sleeper();
    process::until_asleep(pid);
    let read =
        || (std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default(), mappings(pid as u32));
    // What this needs, this process shares with the other until it has written to it.
    (0..2).for_each(|_| drop(read()));
    let (text, all) = read();
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    say!("head: {:?}", head.split_whitespace().skip(1).collect::<Vec<_>>());
    say!("start: {}", all.first().is_some_and(|(start, _)| head.starts_with(&format!("{start:08x}-"))));
    for line in lines {
        let mut words = line.split_whitespace();
        let (label, number) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let label = label.trim_end_matches(':');
        let sum: u64 = all.iter().flat_map(|(_, lines)| lines).filter(|(l, _)| l == label).map(|(_, n)| n).sum();
        let number: u64 = number.parse().unwrap_or(0);
        // Each mapping is rounded down to whole KiB.
        let fits = (sum..=sum + all.len() as u64).contains(&number);
        let parts = ["Pss_Anon", "Pss_File", "Pss_Shmem"].contains(&label);
        // Linux 6.1 sums up something else for Pss_Dirty.
        if !["Referenced", "Pss_Dirty"].contains(&label) {
            say!(
                "{label}: {}",
                if parts {
                    "a part"
                } else if fits {
                    "the sum"
                } else {
                    "another"
                }
            );
        }
    }
    process::kill(pid, SIGKILL);
    process::wait(pid);
}

fn rollup_of_a_zombie() {
    let pid = process::child(|| 0);
    while process::state(pid) != 'Z' {
        process::sleep_ms(1);
    }
    let fd = open(&crate::file::path(format!("/proc/{pid}/smaps_rollup")), O_RDONLY);
    say!("open: {}", fd.ok_or_error());
    if fd.ok() {
        say!("read: {}", crate::file::read(fd.fd(), 100));
    }
    process::wait(pid);
}
