//! Mappings, and the faults that fill them.

use super::{Row, row};
use crate::measure::{Bench, Result};
use crate::sys;

pub const ROWS: &[Row] = &[
    row("fault_anon_read", |bench| fault_anon(bench, read)),
    row("fault_anon_write", |bench| fault_anon(bench, write)),
    row("fault_copy_on_write", fault_copy_on_write),
    row("fault_file_read", |bench| fault_file(bench, read)),
    row("fault_file_copy", |bench| fault_file(bench, write)),
    row("mmap_munmap_64k", |bench| map_and_unmap(bench, false)),
    row("mmap_touch_munmap_64k", |bench| map_and_unmap(bench, true)),
    row("mmap_touch_munmap_16m", |bench| map_16m(bench, libc::MADV_NOHUGEPAGE)),
    row("mmap_touch_munmap_16m_huge", huge_16m),
    row("mprotect_page", mprotect),
    row("madvise_dontneed_page", dontneed),
    row("brk_grow_shrink", brk),
];

const PAGE: usize = 4096;
const PAGES: usize = 512;
const LENGTH: usize = PAGES * PAGE;

fn read(address: *mut u8) {
    // SAFETY: callers pass addresses of live mappings.
    unsafe { address.read_volatile() };
}

fn write(address: *mut u8) {
    // SAFETY: callers pass addresses of live mappings.
    unsafe { address.write_volatile(1) };
}

fn touch(memory: *mut u8, length: usize, access: fn(*mut u8)) {
    for offset in (0..length).step_by(PAGE) {
        access(memory.wrapping_add(offset));
    }
}

/// The cost of the first access to a page, one after the other.
fn fault_anon(bench: &Bench, access: fn(*mut u8)) -> Result<f64> {
    bench.per_round(64, PAGES as u64, |watch| {
        let memory = sys::map(LENGTH, libc::MAP_PRIVATE)?;
        watch.time(|| touch(memory, LENGTH, access));
        sys::unmap(memory, LENGTH)
    })
}

/// Pages that a child shares until they are written to.
fn fault_copy_on_write(bench: &Bench) -> Result<f64> {
    bench.per_round(64, PAGES as u64, |watch| {
        let memory = sys::map(LENGTH, libc::MAP_PRIVATE)?;
        touch(memory, LENGTH, write);
        let (reader, writer) = sys::pipe()?;
        let child = sys::fork()?;
        if child == 0 {
            sys::close(writer);
            sys::read_to_end(reader);
            sys::exit(0);
        }
        watch.time(|| touch(memory, LENGTH, write));
        sys::close(writer);
        sys::close(reader);
        sys::wait_well(child)?;
        sys::unmap(memory, LENGTH)
    })
}

/// A private mapping of a file that is in the cache: the cost for each page touched.
fn fault_file(bench: &Bench, access: fn(*mut u8)) -> Result<f64> {
    let path = c"/var/tmp/bench.map";
    let file = sys::open(path, libc::O_CREAT | libc::O_RDWR)?;
    sys::write_all(file, &vec![1; LENGTH])?;
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    let result = bench.per_round(64, PAGES as u64, |watch| {
        let arguments = [0, LENGTH, protection, libc::MAP_PRIVATE as usize, file as usize, 0];
        let memory = sys::call("mmap", libc::SYS_mmap, arguments)? as *mut u8;
        watch.time(|| touch(memory, LENGTH, access));
        sys::unmap(memory, LENGTH)
    });
    sys::unlink(path)?;
    result
}

fn map_and_unmap(bench: &Bench, touched: bool) -> Result<f64> {
    const LENGTH: usize = 16 * PAGE;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    bench.per_operation(1_000, || {
        let memory = sys::call("mmap", libc::SYS_mmap, [0, LENGTH, protection, flags, usize::MAX, 0])? as *mut u8;
        if touched {
            touch(memory, LENGTH, write);
        }
        sys::unmap(memory, LENGTH)
    })
}

/// A large piece of memory, each page written to once.
fn map_16m(bench: &Bench, advice: i32) -> Result<f64> {
    const LENGTH: usize = 16 << 20;
    let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    let protection = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    bench.per_operation(4, || {
        let memory = sys::call("mmap", libc::SYS_mmap, [0, LENGTH, protection, flags, usize::MAX, 0])?;
        sys::raw(libc::SYS_madvise, [memory, LENGTH, advice as usize]);
        touch(memory as *mut u8, LENGTH, write);
        sys::unmap(memory as *mut u8, LENGTH)
    })
}

/// The same in pages of 2 MiB. Guests have too little memory for Linux to give them to who does not ask.
fn huge_16m(bench: &Bench) -> Result<f64> {
    let allow = |policy: &[u8]| {
        let setting = sys::open(c"/sys/kernel/mm/transparent_hugepage/enabled", libc::O_WRONLY)?;
        sys::write_all(setting, policy)?;
        sys::close(setting);
        Ok(())
    };
    allow(b"madvise")?;
    let cost = map_16m(bench, libc::MADV_HUGEPAGE);
    allow(b"never")?;
    cost
}

/// One page of four, to and fro: the cost of one call.
fn mprotect(bench: &Bench) -> Result<f64> {
    let memory = sys::map(4 * PAGE, libc::MAP_PRIVATE)?;
    touch(memory, 4 * PAGE, write);
    let protections = [libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE];
    let cost = bench.per_operation(2_000, || {
        protections.into_iter().try_for_each(|protection| {
            let arguments = [memory as usize + PAGE, PAGE, protection as usize];
            sys::call("mprotect", libc::SYS_mprotect, arguments).map(drop)
        })
    })?;
    Ok(cost / 2.0)
}

/// Gives a page back and touches it again.
fn dontneed(bench: &Bench) -> Result<f64> {
    let memory = sys::map(PAGE, libc::MAP_PRIVATE)?;
    bench.per_operation(2_000, || {
        write(memory);
        sys::call("madvise", libc::SYS_madvise, [memory as usize, PAGE, libc::MADV_DONTNEED as usize]).map(drop)
    })
}

/// 64 KiB more, and back: the cost of both calls.
fn brk(bench: &Bench) -> Result<f64> {
    let end = sys::call("brk", libc::SYS_brk, [0])?;
    bench.per_operation(5_000, || {
        let grown = sys::call("brk", libc::SYS_brk, [end + 16 * PAGE])?;
        sys::call("brk", libc::SYS_brk, [end])?;
        sys::expect(grown == end + 16 * PAGE, "brk does not grow")
    })
}
