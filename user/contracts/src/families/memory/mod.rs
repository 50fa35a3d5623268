//! Mappings: what they show, what they refuse, and the faults they end in.

mod changes;
mod files;
mod holes;
mod limits;
mod protection;

use libc::*;

use self::changes::{
    advise_dontfork, advise_dontneed, advise_dontneed_file, advise_free, advise_huge_pages, advise_merging,
    advise_unknown, advise_wipeonfork, remap_dontunmap, remap_fixed, remap_grow_and_move, remap_shared_duplicate,
    remap_shrink, resident_pages,
};
use self::files::{
    file_closed_after_mapping, file_end, file_grown_under_mapping, file_offset, file_private, file_shared,
    file_truncated_under_mapping, mapping_outlives_unlink, memfd_contents, memfd_seal_write, memfd_seals,
    shared_file_between_processes, sync_pages, write_through_read_only_descriptor, zero_device, zero_device_as_opened,
};
use self::holes::{advise_remove, ahead_of_holes, holes_in_sealed_files, remap_file};
use self::limits::{
    address_space_limit, break_area, break_limits, data_limit, data_limit_of_mprotect, growsdown, lock_limits,
    locked_on_fault, locked_stay_over_fork, locked_vdso, most_mappings, noreserve_is_large, stack_grows, stack_limit,
};
use self::protection::{
    barrier_commands, execute_new_code, fault_in_system_call, fault_records, misaligned_bus, none_and_back,
    not_executable, protect_over_a_hole, protect_splits, protection_faults,
};
use crate::file::create;
use crate::memory::{PAGE, map, map_at, pages, peek, poke, try_peek};
use crate::process::{self, Gate};
use crate::sys::sys;
use crate::{say, tests};

tests! {
    anonymous_is_zero, shared_over_fork, private_over_fork, fixed_replaces, fixed_noreplace, partial_unmap,
    unmap_of_nothing, protection_faults, fault_records, protect_splits, protect_over_a_hole, none_and_back,
    file_private, file_shared, file_end, file_truncated_under_mapping, file_grown_under_mapping, file_offset,
    file_closed_after_mapping, write_through_read_only_descriptor, zero_device, zero_device_as_opened, remap_grow_and_move, remap_shrink,
    remap_fixed, remap_dontunmap, remap_shared_duplicate, advise_dontneed, advise_dontneed_file, advise_free,
    advise_dontfork, advise_wipeonfork, advise_unknown, advise_huge_pages, advise_merging, resident_pages, sync_pages, break_area, break_limits,
    stack_grows, stack_limit, growsdown, lock_limits, locked_vdso, locked_stay_over_fork, locked_on_fault, memfd_contents, memfd_seals,
    memfd_seal_write, execute_new_code, not_executable, populate, noreserve_is_large, address_space_limit, data_limit, data_limit_of_mprotect,
    fault_in_system_call, copy_on_write_many_children, shared_file_between_processes, maps_of_this, misaligned_bus,
    barrier_commands, mapping_outlives_unlink, advise_remove,
    ahead_of_holes, holes_in_sealed_files, remap_file, most_mappings,
}

const RW: i32 = PROT_READ | PROT_WRITE;

const PRIVATE: i32 = MAP_PRIVATE | MAP_ANONYMOUS;

const SHARED: i32 = MAP_SHARED | MAP_ANONYMOUS;

fn shared_pages(count: usize) -> *mut u8 {
    map(count * PAGE, RW, SHARED, -1, 0).need() as *mut u8
}

fn unmap(at: *mut u8, length: usize) -> crate::sys::Ret {
    sys!(SYS_munmap, at, length)
}

fn protect(at: *mut u8, length: usize, protection: i32) -> crate::sys::Ret {
    sys!(SYS_mprotect, at, length, protection)
}

/// The page with this number.
fn page(of: *mut u8, number: usize) -> *mut u8 {
    of.wrapping_add(number * PAGE)
}

fn text(at: *const u8, length: usize) -> String {
    (0..length).map(|index| char::from(peek(at.wrapping_add(index)))).collect()
}

fn anonymous_is_zero() {
    let memory = pages(16);
    say!("sum: {}", (0..16 * PAGE).map(|at| u64::from(peek(memory.wrapping_add(at)))).sum::<u64>());
    poke(page(memory, 3), 7);
    unmap(memory, 16 * PAGE);
    let again = map_at(memory.cast(), 16 * PAGE, RW, PRIVATE | MAP_FIXED, -1, 0).need() as *mut u8;
    say!("mapped again at the same place: {}", peek(page(again, 3)));
    say!("a hint that is free is taken: {}", {
        unmap(again, 16 * PAGE);
        map_at(again.cast(), PAGE, RW, PRIVATE, -1, 0).need() as usize == again as usize
    });
}

fn shared_over_fork() {
    let memory = shared_pages(1);
    let status = process::in_child(|| {
        poke(memory, 42);
        0
    });
    say!("the child {status}; its parent sees {}", peek(memory));
}

fn private_over_fork() {
    let memory = pages(2);
    poke(memory, 1);
    let gate = Gate::new();
    let child = process::child(|| {
        gate.pass();
        say!("the child sees {} and {}", peek(memory), peek(page(memory, 1)));
        poke(memory, 3);
        0
    });
    poke(memory, 2);
    poke(page(memory, 1), 2);
    gate.open();
    process::wait(child);
    say!("its parent sees {} and {}", peek(memory), peek(page(memory, 1)));
}

fn fixed_replaces() {
    let memory = pages(3);
    (0..3).for_each(|number| poke(page(memory, number), 9));
    let middle = map_at(page(memory, 1).cast(), PAGE, RW, PRIVATE | MAP_FIXED, -1, 0);
    say!("at the place asked for: {}", middle.0 as usize == page(memory, 1) as usize);
    say!("{} {} {}", peek(memory), peek(page(memory, 1)), peek(page(memory, 2)));
    say!("not aligned: {}", map_at(memory.wrapping_add(1).cast(), PAGE, RW, PRIVATE | MAP_FIXED, -1, 0));
    say!("at 0: {}", map_at(std::ptr::null_mut(), PAGE, RW, PRIVATE | MAP_FIXED, -1, 0).ok_or_error());
    say!("in the kernel's half: {}", map_at(crate::sys::KERNEL, PAGE, RW, PRIVATE | MAP_FIXED, -1, 0));
    say!("beyond all addresses: {}", map_at((1usize << 48) as *mut _, PAGE, RW, PRIVATE | MAP_FIXED, -1, 0));
}

fn fixed_noreplace() {
    let memory = pages(3);
    let flags = PRIVATE | MAP_FIXED_NOREPLACE;
    say!("over a mapping: {}", map_at(page(memory, 1).cast(), PAGE, RW, flags, -1, 0));
    say!("over its end: {}", map_at(page(memory, 2).cast(), 4 * PAGE, RW, flags, -1, 0));
    unmap(page(memory, 1), PAGE);
    say!("in the hole: {}", map_at(page(memory, 1).cast(), PAGE, RW, flags, -1, 0).ok_or_error());
}

fn partial_unmap() {
    let memory = pages(5);
    (0..5).for_each(|number| poke(page(memory, number), number as u8 + 1));
    say!("the middle: {}", unmap(page(memory, 2), PAGE));
    say!("left: {}, right: {}", peek(page(memory, 1)), peek(page(memory, 3)));
    say!("the hole: {}", try_peek(page(memory, 2)));
    say!("the head with a length of one byte: {}", unmap(memory, 1));
    say!("the head: {}, the next: {}", try_peek(memory), peek(page(memory, 1)));
    say!("all of it, holes too: {}", unmap(memory, 5 * PAGE));
    say!("the tail: {}", try_peek(page(memory, 4)));
}

fn unmap_of_nothing() {
    let memory = pages(1);
    unmap(memory, PAGE);
    say!("again: {}", unmap(memory, PAGE));
    say!("length 0: {}", unmap(memory, 0));
    say!("not aligned: {}", unmap(memory.wrapping_add(8), PAGE));
    say!("too long: {}", unmap(memory, usize::MAX & !4095));
    say!("the kernel's: {}", sys!(SYS_munmap, crate::sys::KERNEL, PAGE));
}

fn remap(at: *mut u8, old: usize, new: usize, flags: i32, to: *mut u8) -> crate::sys::Ret {
    sys!(SYS_mremap, at, old, new, flags, to)
}

fn advise(at: *mut u8, length: usize, advice: i32) -> crate::sys::Ret {
    sys!(SYS_madvise, at, length, advice)
}

fn memfd(flags: u32) -> i32 {
    sys!(SYS_memfd_create, c"contract", flags).fd()
}

fn populate() {
    let memory = map(8 * PAGE, RW, PRIVATE | MAP_POPULATE, -1, 0).need() as *mut u8;
    let mut vector = [0u8; 8];
    sys!(SYS_mincore, memory, 8 * PAGE, &mut vector);
    say!("MAP_POPULATE: {vector:?}");
    let memory = pages(8);
    say!("MADV_POPULATE_WRITE: {}", advise(memory, 4 * PAGE, 23));
    sys!(SYS_mincore, memory, 8 * PAGE, &mut vector);
    say!("{vector:?}");
    protect(memory, PAGE, PROT_READ);
    say!("of read-only memory: {}", advise(memory, PAGE, 23));
    say!("MADV_POPULATE_READ of it: {}", advise(memory, PAGE, 22));
    unmap(page(memory, 2), PAGE);
    say!("over a hole: {}", advise(memory, 4 * PAGE, 22));
}

fn copy_on_write_many_children() {
    let memory = pages(32);
    (0..32).for_each(|number| poke(page(memory, number), number as u8));
    let children: Vec<i32> = (0..4u8)
        .map(|child| {
            process::child(|| {
                for number in 0..32 {
                    let at = page(memory, number);
                    if peek(at) != number as u8 {
                        return 1;
                    }
                    poke(at, 100 + child);
                }
                i32::from((0..32).any(|number| peek(page(memory, number)) != 100 + child))
            })
        })
        .collect();
    for child in children {
        say!("a child {}", process::wait(child));
    }
    say!("unchanged: {}", (0..32).all(|number| peek(page(memory, number)) == number as u8));
}

fn maps_of_this() {
    let fd = create(c"mapped", &"x".repeat(2 * PAGE));
    let base = pages(8);
    let at = |number: usize| page(base, number).cast();
    map_at(at(1), PAGE, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd, PAGE as i64);
    map_at(at(3), PAGE, RW, MAP_SHARED | MAP_FIXED, fd, 0);
    protect(page(base, 5), PAGE, PROT_NONE);
    protect(page(base, 6), PAGE, PROT_READ | PROT_EXEC);
    unmap(page(base, 7), PAGE);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let range = fields.next().and_then(|range| range.split_once('-')).unwrap_or_default();
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap_or(0).wrapping_sub(base as u64) / PAGE as u64;
        let (start, end) = (number(range.0), number(range.1));
        if start < 7 && end <= 8 {
            let (rights, offset) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
            say!("{start}-{end} {rights} {offset} {}", fields.nth(2).unwrap_or("-"));
        }
    }
}
