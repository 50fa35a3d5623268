//! The operations. A row's name stays what it is: figures of different days are compared by it.

mod across;
mod disk;
mod files;
mod futex;
mod ipc;
mod memory;
mod messages;
mod processes;
mod ready;
mod scheduling;
mod signals;
mod sockets;
mod syscalls;
mod time;
mod uring;

use crate::measure::{Bench, Result};

/// One operation.
pub struct Row {
    pub name: &'static str,
    /// Measures it: nanoseconds for one.
    pub run: fn(&Bench) -> Result<f64>,
}

const fn row(name: &'static str, run: fn(&Bench) -> Result<f64>) -> Row {
    Row { name, run }
}

/// All rows that can be measured this way, in the order of the tables that people read.
pub fn all(counting: bool) -> impl Iterator<Item = &'static Row> {
    let by_time = if counting { [&[] as &[Row]; 2] } else { [across::BY_TIME, disk::BY_TIME] };
    [
        syscalls::ROWS,
        futex::ROWS,
        messages::ROWS,
        ipc::ROWS,
        sockets::ROWS,
        scheduling::ROWS,
        signals::ROWS,
        processes::ROWS,
        memory::ROWS,
        ready::ROWS,
        files::ROWS,
        time::ROWS,
        uring::ROWS,
    ]
    .into_iter()
    .chain(by_time)
    .flatten()
}
