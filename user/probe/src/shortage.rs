//! More than there is: programs that take all memory, for themselves or within the kernel. The machine must outlive them.

use std::ptr::null_mut;

use libc::{MAP_ANONYMOUS, MAP_FIXED_NOREPLACE, MAP_NORESERVE, MAP_PRIVATE, PROT_READ, PROT_WRITE};

const PAGE: usize = 4096;
/// Almost vm.max_map_count.
const MAPPINGS: usize = 65_000;

fn child(body: impl FnOnce()) -> libc::pid_t {
    // SAFETY: one thread; the child ends by _exit.
    unsafe {
        match libc::fork() {
            0 => {
                body();
                libc::_exit(5)
            }
            pid => pid,
        }
    }
}

fn status_of(pid: libc::pid_t) -> i32 {
    let mut status = 0;
    // SAFETY: a live integer.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    status
}

/// Three that touch more than all memory, and a bystander: how they end.
pub fn hogs() -> String {
    let map = |length: usize| {
        let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        // SAFETY: a new mapping, of which every page is in reach.
        unsafe {
            let base: *mut u8 = libc::mmap(null_mut(), length, PROT_READ | PROT_WRITE, flags, -1, 0).cast();
            (0..length).step_by(PAGE).for_each(|at| base.add(at).write_volatile(1));
        }
    };
    let bystander = child(|| {
        map(4 << 20);
        // SAFETY: no memory involved.
        unsafe { libc::sleep(2) };
    });
    let hogs: Vec<_> = (0..3).map(|_| child(|| map(1 << 30))).collect();
    let killed = hogs.into_iter().filter(|pid| status_of(*pid) == libc::SIGKILL).count();
    format!("{killed} killed, bystander {:#x}", status_of(bystander))
}

/// Processes that each have as many mappings as they may, of which the kernel has to keep account.
pub fn mappings(processes: usize) -> String {
    let children: Vec<_> = (0..processes)
        .map(|_| {
            child(|| {
                for index in 0..MAPPINGS {
                    let protection = if index % 2 == 0 { PROT_READ } else { PROT_READ | PROT_WRITE };
                    let at = (0x10_0000_0000 + index * 2 * PAGE) as *mut _;
                    // SAFETY: where nothing is mapped.
                    unsafe {
                        libc::mmap(at, PAGE, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0)
                    };
                }
                // SAFETY: no memory involved.
                unsafe { libc::pause() };
            })
        })
        .filter(|pid| *pid > 0)
        .collect();
    // SAFETY: no memory involved.
    unsafe { libc::sleep(3) };
    for &pid in &children {
        // SAFETY: no memory involved.
        unsafe { libc::kill(pid, libc::SIGTERM) };
    }
    let started = children.len();
    let ended = children.into_iter().filter(|pid| libc::WIFSIGNALED(status_of(*pid))).count();
    format!("some started: {}, all ended by a signal: {}", started > 0, ended == started)
}
