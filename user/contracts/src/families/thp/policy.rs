//! When there are huge pages.

use libc::*;

use super::*;
use crate::file::{contents, create, open, stat};
use crate::process::{as_plain_user, in_child, prctl_of};
use crate::say;

const NR_HUGEPAGES: &CStr = c"/proc/sys/vm/nr_hugepages";

pub(super) fn settings() {
    let _policy = policy_is("never");
    say!("size: {}", contents(c"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"));
    for value in ["always", "madvise\n", "never"] {
        say!("{value:?}: {} {}", set(ENABLED, value), contents(ENABLED));
    }
    for value in ["sometimes", "alway", "always ", " always", "always\n\n"] {
        say!("{value:?}: {} {}", set(ENABLED, value), contents(ENABLED));
    }
    for value in ["always", "defer", "defer+madvise", "never", "seldom", "madvise"] {
        say!("{value:?}: {} {}", set(DEFRAG, value), contents(DEFRAG));
    }
}

pub(super) fn settings_are_roots() {
    for path in [ENABLED, DEFRAG, c"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"] {
        say!("{:o}", stat(path).map_or(0, |stat| stat.st_mode));
    }
    as_plain_user(|| {
        say!("another user: {}", open(ENABLED, O_WRONLY));
        say!("reads: {}", open(ENABLED, O_RDONLY).ok());
    });
}

pub(super) fn first_touch() {
    let _policy = policy_is("madvise");
    let at = huge(2);
    say!("untouched: {} {}", usage(at), flag(at));
    poke(page(at, 5), 1);
    let mut vector = vec![0u8; 1024];
    sys!(SYS_mincore, at, 2 * BLOCK, vector.as_mut_slice());
    say!("touched: {}, {} in core", usage(at), vector.iter().filter(|byte| **byte & 1 != 0).count());
    say!("not zero: {}", (0..512).filter(|index| peek(page(at, *index)) != 0).count());
    touch_all(at, 2 * BLOCK);
    say!("all: {}, {} wrong, eligible {}", usage(at), wrong(at, 2 * BLOCK), smaps(at, "THPeligible"));
}

pub(super) fn too_small() {
    let _policy = policy_is("always");
    let at = aligned(2);
    unmap(at, PAGE);
    unmap(page(at, 1023), PAGE);
    touch_all(page(at, 1), 2 * BLOCK - 2 * PAGE);
    say!("{} eligible {}", usage(page(at, 1)), smaps(page(at, 1), "THPeligible"));
}

pub(super) fn policy() {
    for value in ["always", "madvise", "never"] {
        let _policy = policy_is(value);
        for advice in [MADV_NORMAL, MADV_HUGEPAGE, MADV_NOHUGEPAGE] {
            let at = aligned(1);
            advise(at, BLOCK, advice).need();
            poke(at, 1);
            say!("{value}, advice {advice}: {} {} eligible {}", usage(at), flag(at), smaps(at, "THPeligible"));
        }
    }
}

pub(super) fn advice_on_the_way() {
    let _policy = policy_is("madvise");
    let at = huge(2);
    poke(at, 1);
    say!("not any more: {}", advise(at, 2 * BLOCK, MADV_NOHUGEPAGE));
    poke(page(at, 512), 1);
    say!("{} {}", usage(at), flag(at));
    say!("again: {} {}", advise(at, 2 * BLOCK, MADV_HUGEPAGE), flag(at));
    let hole = aligned(1);
    unmap(hole, BLOCK);
    say!("nothing there: {}", advise(hole, BLOCK, MADV_HUGEPAGE));
    say!("not aligned: {}", advise(at.wrapping_add(8), PAGE, MADV_HUGEPAGE));
    let file = create(c"file", &"x".repeat(PAGE));
    let mapped = map(PAGE, PROT_READ, MAP_PRIVATE, file, 0).need() as *mut u8;
    say!("of a file: {} {}", advise(mapped, PAGE, MADV_HUGEPAGE), flag(mapped));
}

fn thp_enabled() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|line| line.starts_with("THP_enabled")).unwrap_or("none").replace('\t', " ")
}

pub(super) fn disabled() {
    let _policy = policy_is("always");
    say!("{} {}", prctl_of(PR_GET_THP_DISABLE, [0; 4]), thp_enabled());
    say!("off: {}", prctl_of(PR_SET_THP_DISABLE, [1, 0, 0, 0]));
    say!("{} {}", prctl_of(PR_GET_THP_DISABLE, [0; 4]), thp_enabled());
    let at = huge(1);
    poke(at, 1);
    say!("{} eligible {}", usage(at), smaps(at, "THPeligible"));
    say!("on: {}", prctl_of(PR_SET_THP_DISABLE, [0, 0, 0, 0]));
    let at = huge(1);
    poke(at, 1);
    say!("{} {}", usage(at), thp_enabled());
    say!("arguments: {} {}", prctl_of(PR_SET_THP_DISABLE, [1, 1, 0, 0]), prctl_of(PR_SET_THP_DISABLE, [1, 0, 0, 1]));
    say!("any: {} {}", prctl_of(PR_SET_THP_DISABLE, [77, 0, 0, 0]), prctl_of(PR_GET_THP_DISABLE, [0; 4]));
}

pub(super) fn disabled_is_inherited() {
    prctl_of(PR_SET_THP_DISABLE, [1, 0, 0, 0]);
    let status = in_child(|| {
        say!("child: {}", prctl_of(PR_GET_THP_DISABLE, [0; 4]));
        let words = [c"/bin/grep".as_ptr(), c"THP_enabled".as_ptr(), c"/proc/self/status".as_ptr(), std::ptr::null()];
        say!("{}", sys!(SYS_execve, c"/bin/grep", words.as_slice(), [0usize].as_slice()));
        1
    });
    say!("{status}");
}

pub(super) fn populated() {
    let advised = policy_is("madvise");
    let at = huge(2);
    say!("{} {}", advise(at, 2 * BLOCK, 23), usage(at));
    drop(advised);
    let _policy = policy_is("always");
    let at = aligned(2);
    map_at(at.cast(), 2 * BLOCK, RW, PRIVATE | MAP_FIXED | MAP_POPULATE, -1, 0).need();
    say!("{}", usage(at));
    let at = aligned(1);
    say!("locked: {} {}", sys!(SYS_mlock, at, BLOCK), usage(at));
}

pub(super) fn shared_memory() {
    let _policy = policy_is("always");
    let at = aligned(2);
    map_at(at.cast(), 2 * BLOCK, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0).need();
    poke(at, 1);
    say!("{}", usage(at));
    let at = aligned(1);
    let file = create(c"file", "");
    sys!(SYS_ftruncate, file, BLOCK).need();
    map_at(at.cast(), BLOCK, RW, MAP_PRIVATE | MAP_FIXED, file, 0).need();
    poke(at, 1);
    say!("a file's: {}", smaps(at, "AnonHugePages"));
}

pub(super) fn hugetlb() {
    let flags = PRIVATE | MAP_HUGETLB;
    say!("default: {}", map(BLOCK, RW, flags, -1, 0));
    say!("shared: {}", map(BLOCK, RW, MAP_SHARED | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0));
    say!("one page: {}", map(PAGE, RW, flags, -1, 0));
    for size in [12, 16, 20, 21, 25, 29, 30, 34, 63] {
        say!("2^{size}: {}", map(BLOCK, RW, flags | size << MAP_HUGE_SHIFT, -1, 0));
    }
    say!("size alone: {}", map(PAGE, RW, PRIVATE | 12 << MAP_HUGE_SHIFT, -1, 0).ok());
}

pub(super) fn hugetlb_files() {
    let file = create(c"file", &"x".repeat(PAGE));
    say!("a file: {}", map(PAGE, RW, MAP_PRIVATE | MAP_HUGETLB, file, 0));
    say!("its size: {}", map(PAGE, RW, MAP_PRIVATE | MAP_HUGETLB | 12 << MAP_HUGE_SHIFT, file, 0));
    say!("none: {}", map(PAGE, RW, MAP_PRIVATE | MAP_HUGETLB, 99, 0));
}

pub(super) fn hugetlb_counts() {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    for line in meminfo.lines().filter(|line| line.starts_with("Huge")) {
        say!("{line}");
    }
    say!("{:o} {}", stat(NR_HUGEPAGES).map_or(0, |stat| stat.st_mode), contents(NR_HUGEPAGES));
    say!("{} {} {}", set(NR_HUGEPAGES, "0"), set(NR_HUGEPAGES, "x"), contents(NR_HUGEPAGES));
}
