//! Asking many descriptors at once.

use super::{Row, row};
use crate::measure::{Bench, Result};
use crate::sys;

pub const ROWS: &[Row] = &[
    row("poll_1", |bench| poll(bench, 1)),
    row("poll_100", |bench| poll(bench, 100)),
    row("select_1", |bench| select(bench, 1)),
    row("select_100", |bench| select(bench, 100)),
    row("epoll_wait_1", |bench| epoll_wait(bench, 1)),
    row("epoll_wait_100", |bench| epoll_wait(bench, 100)),
    row("epoll_ctl_mod", epoll_ctl_mod),
    row("epoll_ctl_add_del", epoll_ctl_add_del),
];

/// The reading ends of so many pipes, of which the last has something to read.
fn pipes(count: usize) -> Result<Vec<i32>> {
    let mut readers = Vec::new();
    for index in 0..count {
        let (reader, writer) = sys::pipe()?;
        if index + 1 == count {
            sys::write_all(writer, b"x")?;
        }
        readers.push(reader);
    }
    Ok(readers)
}

fn repetitions(count: usize) -> u64 {
    if count > 1 { 500 } else { 5_000 }
}

fn poll(bench: &Bench, count: usize) -> Result<f64> {
    let readers = pipes(count)?.into_iter();
    let mut entries: Vec<_> = readers.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    let at_once = [0u64; 2];
    let arguments = [entries.as_mut_ptr() as usize, count, at_once.as_ptr() as usize, 0, 0];
    bench.per_operation(repetitions(count), || {
        sys::expect(sys::call("ppoll", libc::SYS_ppoll, arguments)? == 1, "not one is ready")
    })
}

fn select(bench: &Bench, count: usize) -> Result<f64> {
    let mut set = [0u64; 16];
    let readers = pipes(count)?;
    for fd in &readers {
        set[*fd as usize / 64] |= 1 << (fd % 64);
    }
    let highest = readers.iter().max().map_or(0, |fd| *fd as usize + 1);
    bench.per_operation(repetitions(count), || {
        let mut asked = set;
        let at_once = [0u64; 2];
        let arguments = [highest, asked.as_mut_ptr() as usize, 0, 0, at_once.as_ptr() as usize, 0];
        sys::expect(sys::call("pselect6", libc::SYS_pselect6, arguments)? == 1, "not one is ready")
    })
}

fn epoll_create() -> Result<usize> {
    sys::call("epoll_create1", libc::SYS_epoll_create1, [0])
}

fn epoll_ctl(epoll: usize, operation: i32, fd: i32) -> Result {
    let event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: fd as u64 };
    let arguments = [epoll, operation as usize, fd as usize, &raw const event as usize];
    sys::call("epoll_ctl", libc::SYS_epoll_ctl, arguments).map(drop)
}

fn epoll_wait(bench: &Bench, count: usize) -> Result<f64> {
    let epoll = epoll_create()?;
    for fd in pipes(count)? {
        epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd)?;
    }
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 16];
    let arguments = [epoll, events.as_mut_ptr() as usize, events.len(), 0, 0, 8];
    bench.per_operation(5_000, || {
        sys::expect(sys::call("epoll_pwait", libc::SYS_epoll_pwait, arguments)? == 1, "not one is ready")
    })
}

fn epoll_ctl_mod(bench: &Bench) -> Result<f64> {
    let epoll = epoll_create()?;
    let fd = pipes(1)?[0];
    epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd)?;
    bench.per_operation(5_000, || epoll_ctl(epoll, libc::EPOLL_CTL_MOD, fd))
}

fn epoll_ctl_add_del(bench: &Bench) -> Result<f64> {
    let epoll = epoll_create()?;
    let fd = pipes(1)?[0];
    bench.per_operation(5_000, || {
        epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd)?;
        epoll_ctl(epoll, libc::EPOLL_CTL_DEL, fd)
    })
}
