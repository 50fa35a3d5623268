//! Huge pages: those that come by themselves, transparent_hugepage in Linux's admin guide, and that none are reserved.

mod pieces;
mod policy;

use std::ffi::CStr;

use libc::*;

use crate::file::{close, open, write};
use crate::memory::{PAGE, map, map_at, peek, poke};
use crate::sys::{Ret, sys};
use crate::tests;

use self::pieces::{
    a_copy_that_is_gone, copies, dropped_and_touched, dropped_in_the_middle, executable, faults_after_a_split,
    grown_and_shrunk, hole_in_the_middle, locked_in_part, moved, moved_askew, reached_from_outside,
    rights_in_the_middle, rights_of_all, split_under_threads, wiped_on_fork, written_through_proc,
};
use self::policy::{
    advice_on_the_way, disabled, disabled_is_inherited, first_touch, hugetlb, hugetlb_counts, hugetlb_files, policy,
    populated, settings, settings_are_roots, shared_memory, too_small,
};

tests! {
    settings, settings_are_roots, first_touch, too_small, policy, advice_on_the_way, disabled, disabled_is_inherited,
    copies, a_copy_that_is_gone, hole_in_the_middle, rights_in_the_middle, rights_of_all, dropped_in_the_middle,
    dropped_and_touched, moved, moved_askew, grown_and_shrunk, locked_in_part, faults_after_a_split, executable,
    reached_from_outside, written_through_proc, populated, shared_memory, wiped_on_fork, split_under_threads,
    hugetlb, hugetlb_files, hugetlb_counts,
}

const BLOCK: usize = 2 << 20;
const RW: i32 = PROT_READ | PROT_WRITE;
const PRIVATE: i32 = MAP_PRIVATE | MAP_ANONYMOUS;
const ENABLED: &CStr = c"/sys/kernel/mm/transparent_hugepage/enabled";
const DEFRAG: &CStr = c"/sys/kernel/mm/transparent_hugepage/defrag";

fn set(path: &CStr, value: &str) -> Ret {
    let fd = open(path, O_WRONLY).fd();
    let result = write(fd, value);
    close(fd);
    result
}

/// A setting until it is dropped; then there are no new huge pages, as it is at first in a guest with so little memory.
struct Policy;

fn policy_is(value: &str) -> Policy {
    set(ENABLED, value).need();
    Policy
}

impl Drop for Policy {
    fn drop(&mut self) {
        set(ENABLED, "never");
    }
}

fn advise(at: *mut u8, length: usize, advice: i32) -> Ret {
    sys!(SYS_madvise, at, length, advice)
}

fn protect(at: *mut u8, length: usize, protection: i32) -> Ret {
    sys!(SYS_mprotect, at, length, protection)
}

fn unmap(at: *mut u8, length: usize) {
    sys!(SYS_munmap, at, length).need();
}

/// So many aligned blocks, with nothing of theirs around.
fn aligned(blocks: usize) -> *mut u8 {
    let all = map((blocks + 2) * BLOCK, PROT_NONE, PRIVATE, -1, 0).need() as usize;
    let at = (all + PAGE).next_multiple_of(BLOCK) as *mut u8;
    map_at(at.cast(), blocks * BLOCK, RW, PRIVATE | MAP_FIXED, -1, 0).need();
    at
}

/// The same, for which huge pages are wanted.
fn huge(blocks: usize) -> *mut u8 {
    let at = aligned(blocks);
    advise(at, blocks * BLOCK, MADV_HUGEPAGE).need();
    at
}

/// The same, and huge they are, all written to. From then on nothing makes huge pages, nor puts one together again from what
/// a test cuts up, as khugepaged would.
fn filled(blocks: usize) -> *mut u8 {
    let _policy = policy_is("madvise");
    let at = huge(blocks);
    touch_all(at, blocks * BLOCK);
    at
}

fn page(at: *mut u8, index: usize) -> *mut u8 {
    at.wrapping_add(index * PAGE)
}

fn touch_all(at: *mut u8, length: usize) {
    for index in 0..length / PAGE {
        poke(page(at, index), (index % 251) as u8);
    }
}

/// Pages that do not hold what `touch_all` wrote.
fn wrong(at: *mut u8, length: usize) -> usize {
    (0..length / PAGE).filter(|index| peek(page(at, *index)) != (index % 251) as u8).count()
}

/// What smaps says of the mapping at an address.
fn smaps(at: *mut u8, label: &str) -> String {
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    let mut inside = false;
    for line in text.lines() {
        let word = line.split_whitespace().next().unwrap_or("");
        if let Some((start, end)) = word.split_once('-') {
            let bound = |text| usize::from_str_radix(text, 16).unwrap_or(0);
            inside = (bound(start)..bound(end)).contains(&(at as usize));
        } else if inside && word.strip_suffix(':') == Some(label) {
            return line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ");
        }
    }
    "none".into()
}

fn usage(at: *mut u8) -> String {
    format!("{} resident, {} huge", smaps(at, "Rss"), smaps(at, "AnonHugePages"))
}

fn flag(at: *mut u8) -> &'static str {
    match smaps(at, "VmFlags") {
        flags if flags.contains("hg") => "hg",
        flags if flags.contains("nh") => "nh",
        _ => "-",
    }
}
