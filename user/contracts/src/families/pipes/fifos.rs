//! Pipes with names, fifo(7).

use libc::*;

use super::poll_of;
use crate::file::{close, open, pipe, read, write};
use crate::sys::sys;
use crate::{process, say, signal};

pub(super) fn fifo_opens() {
    sys!(SYS_mknodat, AT_FDCWD, c"p", S_IFIFO | 0o644, 0);
    say!("to write, nobody reads: {}", open(c"p", O_WRONLY | O_NONBLOCK));
    let reader = open(c"p", O_RDONLY | O_NONBLOCK);
    say!("to read, nobody writes: {}", reader.ok_or_error());
    say!("read: {} ready {:#x}", read(reader.fd(), 1), poll_of(reader.fd()));
    let writer = open(c"p", O_WRONLY | O_NONBLOCK).fd();
    say!("read: {} ready {:#x}", read(reader.fd(), 1), poll_of(reader.fd()));
    write(writer, "abc");
    close(writer);
    say!("left behind: {} ready {:#x}", read(reader.fd(), 10), poll_of(reader.fd()));
    say!("then: {}", read(reader.fd(), 1));
    let writer = open(c"p", O_WRONLY).fd();
    say!("a new writer: ready {:#x}", poll_of(reader.fd()));
    close(reader.fd());
    signal::ignore(SIGPIPE);
    say!("the reader has gone: {} ready {:#x}", write(writer, "x"), poll_of(writer));
    let both = open(c"p", O_RDWR).fd();
    say!("both ways: {} {}", write(both, "self"), read(both, 10));
    say!("ready: {:#x}", poll_of(both));
    say!("O_TRUNC and O_APPEND: {}", open(c"p", O_RDWR | O_TRUNC | O_APPEND).ok_or_error());
    say!("O_DIRECTORY: {}", open(c"p", O_RDONLY | O_DIRECTORY | O_NONBLOCK));
    say!("O_DIRECT: {}", open(c"p", O_RDWR | O_DIRECT));
    say!("size: {}", crate::file::described(crate::file::stat(c"p")));
}

pub(super) fn fifo_waits() {
    sys!(SYS_mknodat, AT_FDCWD, c"p", S_IFIFO | 0o644, 0);
    let child = process::child(|| {
        let fd = open(c"p", O_RDONLY).fd();
        say!("the reader got: {}", read(fd, 100));
        0
    });
    process::until_asleep(child);
    let writer = open(c"p", O_WRONLY).fd();
    write(writer, "met");
    say!("the child: {}", process::wait(child));
    close(writer);
    let child = process::child(|| {
        let fd = open(c"p", O_WRONLY).fd();
        write(fd, "the other way");
        0
    });
    process::until_asleep(child);
    let reader = open(c"p", O_RDONLY).fd();
    say!("read: {}", read(reader, 100));
    say!("the child: {}", process::wait(child));
    close(reader);
    let child = process::child(|| {
        signal::handle(SIGUSR1, signal::count, 0);
        say!("interrupted: {}", open(c"p", O_RDONLY));
        0
    });
    process::until_asleep(child);
    process::kill(child, SIGUSR1);
    process::wait(child);
    // A writer that comes and goes lets the reader's open return.
    let child = process::child(|| {
        let fd = open(c"p", O_RDONLY);
        say!("somebody was there: {} {}", fd.ok_or_error(), read(fd.fd(), 10));
        0
    });
    process::until_asleep(child);
    close(open(c"p", O_WRONLY | O_NONBLOCK).fd());
    process::wait(child);
}

pub(super) fn fifo_ends() {
    sys!(SYS_mknodat, AT_FDCWD, c"p", S_IFIFO | 0o644, 0);
    let both = open(c"p", O_RDWR).fd();
    let writer = open(c"p", O_WRONLY).fd();
    let reader = open(c"p", O_RDONLY).fd();
    write(writer, "kept");
    close(reader);
    say!("another reader: {}", read(open(c"p", O_RDONLY).fd(), 2));
    crate::file::unlink(c"p");
    say!("unlinked: {} {}", write(writer, "!"), read(both, 10));
    sys!(SYS_mknodat, AT_FDCWD, c"p", S_IFIFO | 0o644, 0);
    let new = open(c"p", O_RDWR | O_NONBLOCK).fd();
    write(writer, "old");
    say!("a new one of that name: {}", read(new, 10));
    close(new);
    let again = open(c"p", O_RDWR | O_NONBLOCK).fd();
    write(again, "gone with the last descriptor");
    close(again);
    say!("empty again: {}", read(open(c"p", O_RDWR | O_NONBLOCK).fd(), 10));
    crate::file::link(c"p", c"q");
    let one = open(c"p", O_RDWR | O_NONBLOCK).fd();
    let two = open(c"q", O_RDWR | O_NONBLOCK).fd();
    write(one, "two names");
    say!("one fifo: {}", read(two, 20));
}

pub(super) fn through_proc() {
    let [reader, writer] = pipe();
    let name = |fd: i32| crate::file::path(format!("/proc/self/fd/{fd}"));
    let again = open(&name(writer), O_RDONLY | O_NONBLOCK).fd();
    write(writer, "opened again");
    say!("a reader of the writer's: {}", read(again, 6));
    let second = open(&name(reader), O_WRONLY).fd();
    say!("a writer of the reader's: {}", write(second, "!"));
    say!("all: {}", read(reader, 20));
    close(writer);
    say!("still a writer: {:#x}", poll_of(reader));
    close(second);
    say!("none: {:#x}", poll_of(reader));
    let link = std::fs::read_link(format!("/proc/self/fd/{reader}")).unwrap_or_default();
    say!("link: {}", link.to_string_lossy().starts_with("pipe:["));
    say!("an O_DIRECTORY: {}", open(&name(reader), O_RDONLY | O_DIRECTORY));
}
