//! FIFOs (fifo(7)): whoever opens one end meets whoever opens the other.

use libc::*;

use crate::file::{self, close, open, read, write};
use crate::process::{self, Gate};
use crate::sys::sys;
use crate::{say, signal, tests};

tests! { partners_come_and_go, open_is_interrupted, open_waits_for_the_other_side }

/// A writer that is gone before the reader has looked was there all the same.
fn partners_come_and_go() {
    const ROUNDS: usize = 3_000;
    sys!(SYS_mknodat, AT_FDCWD, c"fifo", S_IFIFO | 0o644, 0);
    let gate = Gate::new();
    let writer = process::child(|| {
        for _ in 0..ROUNDS {
            let fd = open(c"fifo", O_WRONLY).fd();
            write(fd, "x");
            close(fd);
            gate.pass();
        }
        0
    });
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let fd = open(c"fifo", O_RDONLY).fd();
        while read(fd, 1) == "\"x\"" {
            bytes += 1;
        }
        close(fd);
        gate.open();
    }
    say!("bytes: {bytes}, the writer {}", process::wait(writer));
}

fn open_is_interrupted() {
    sys!(SYS_mknodat, AT_FDCWD, c"fifo", S_IFIFO | 0o644, 0);
    for (name, flags) in [("without", 0), ("with", SA_RESTART)] {
        let pid = process::child(|| {
            signal::handle(SIGUSR1, signal::count, flags);
            let opened = open(c"fifo", O_RDONLY);
            say!("{name} SA_RESTART: {}, {} signals", opened.ok_or_error(), signal::caught());
            0
        });
        process::until_asleep(pid);
        process::kill(pid, SIGUSR1);
        if flags != 0 {
            process::until_asleep(pid);
            close(open(c"fifo", O_WRONLY).fd());
        }
        process::wait(pid);
    }
}

fn open_waits_for_the_other_side() {
    sys!(SYS_mknodat, AT_FDCWD, c"fifo", S_IFIFO | 0o644, 0);
    let gate = Gate::new();
    for (name, flags, other) in [("reader", O_RDONLY, O_WRONLY), ("writer", O_WRONLY, O_RDONLY)] {
        let pid = process::child(|| {
            let fd = open(c"fifo", flags).fd();
            gate.pass();
            close(fd);
            0
        });
        process::until_asleep(pid);
        say!("a {name} sleeps: {}", process::state(pid));
        let fd = open(c"fifo", other).fd();
        say!("its partner does not");
        gate.open();
        process::wait(pid);
        close(fd);
    }
    let both = open(c"fifo", O_RDWR).fd();
    say!("both sides at once: {}", open(c"fifo", O_WRONLY | O_NONBLOCK).ok_or_error());
    write(both, "own words");
    say!("it reads {}", file::read(both, 20));
}
