//! The tests by family.

mod bad;
mod bad_fd;
mod bad_pointer;
mod clone;
mod dirs;
pub mod exec;
mod fifo;
mod futex;
mod groups;
mod hostile;
mod ids;
mod io;
mod limits;
mod links;
mod locks;
mod memory;
mod modes;
mod open;
mod pidfd;
mod pipes;
mod poll;
mod prctl;
mod process;
mod programs;
mod rename;
mod requeue;
mod restart;
mod robust;
mod sched;
mod signals;
mod sigqueue;
mod stat;
mod threads;
mod tty;
mod wait;

use crate::Test;

pub const FAMILIES: &[(&str, &[Test])] = &[
    ("open", open::TESTS),
    ("bad_fd", bad_fd::TESTS),
    ("bad_pointer", bad_pointer::TESTS),
    ("memory", memory::TESTS),
    ("exec", exec::TESTS),
    ("process", process::TESTS),
    ("pidfd", pidfd::TESTS),
    ("clone", clone::TESTS),
    ("prctl", prctl::TESTS),
    ("wait", wait::TESTS),
    ("fifo", fifo::TESTS),
    ("groups", groups::TESTS),
    ("hostile", hostile::TESTS),
    ("programs", programs::TESTS),
    ("threads", threads::TESTS),
    ("futex", futex::TESTS),
    ("requeue", requeue::TESTS),
    ("robust", robust::TESTS),
    ("dirs", dirs::TESTS),
    ("links", links::TESTS),
    ("rename", rename::TESTS),
    ("modes", modes::TESTS),
    ("stat", stat::TESTS),
    ("io", io::TESTS),
    ("locks", locks::TESTS),
    ("pipes", pipes::TESTS),
    ("poll", poll::TESTS),
    ("tty", tty::TESTS),
    ("signals", signals::TESTS),
    ("sigqueue", sigqueue::TESTS),
    ("restart", restart::TESTS),
    ("ids", ids::TESTS),
    ("limits", limits::TESTS),
    ("sched", sched::TESTS),
];
