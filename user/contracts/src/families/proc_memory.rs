//! /proc/PID/mem and /proc/PID/io.

use libc::*;

use crate::file::{close, create, open, path, pipe, read, read_at, stat, write};
use crate::memory;
use crate::process;
use crate::sys::{NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    own_memory, positions, edges, bad_memory, of_a_child, of_another_user, of_who_hides, of_a_zombie, of_another_program,
    counts, counts_of_children, counts_of_threads, who_may_see_counts,
}

fn open_mem(pid: i32, flags: i32) -> Ret {
    open(&path(format!("/proc/{pid}/mem")), flags)
}

fn put(fd: i32, text: &str, at: usize) -> Ret {
    sys!(SYS_pwrite64, fd, text, text.len(), at)
}

fn own_memory() {
    let page = memory::pages(1);
    let fd = open(c"/proc/self/mem", O_RDWR).fd();
    let mode = stat(c"/proc/self/mem").map_or(0, |stat| stat.st_mode);
    say!("mode: {mode:o}");
    say!("written: {}", put(fd, "text", page as usize + 100));
    say!("there: {} {}", memory::peek(page.wrapping_add(100)), memory::peek(page.wrapping_add(103)));
    memory::poke(page.wrapping_add(101), b'a');
    say!("read: {}", read_at(fd, 4, page as i64 + 100));
    say!("from the thread's: {}", {
        let fd = open(c"/proc/thread-self/mem", O_RDONLY).fd();
        read_at(fd, 4, page as i64 + 100)
    });
}

fn positions() {
    let page = memory::pages(1);
    let fd = open(c"/proc/self/mem", O_RDWR).fd();
    say!("seek: {}", sys!(SYS_lseek, fd, page as usize + 8, SEEK_SET).0 == page as i64 + 8);
    say!("write: {}", write(fd, "text"));
    say!("the position: {}", sys!(SYS_lseek, fd, 0, SEEK_CUR).0 == page as i64 + 12);
    say!("back: {}", sys!(SYS_lseek, fd, -4, SEEK_CUR).0 == page as i64 + 8);
    say!("read: {}", read(fd, 4));
    say!("the end: {}", sys!(SYS_lseek, fd, 0, SEEK_END));
}

fn edges() {
    let pages = memory::pages(3);
    let size = memory::PAGE;
    sys!(SYS_munmap, pages as usize + 2 * size, size);
    let fd = open(c"/proc/self/mem", O_RDWR).fd();
    say!("nothing there: {} {}", read_at(fd, 4, pages as i64 + 2 * size as i64), read_at(fd, 4, 0));
    say!("up to the end: {}", read_at(fd, 100, pages as i64 + 2 * size as i64 - 10).matches("\\0").count());
    let text = "t".repeat(100);
    say!("write up to the end: {}", put(fd, &text, pages as usize + 2 * size - 10));
    say!("write beyond: {}", put(fd, &text, pages as usize + 2 * size));
    say!("across pages: {}", put(fd, &text, pages as usize + size - 50));
    say!("no bytes: {} {}", read_at(fd, 0, 0), put(fd, "", 0));
    say!("the kernel's: {}", sys!(SYS_pread64, fd, &mut [0u8; 4], 4, 1i64 << 50));
}

fn bad_memory() {
    let page = memory::pages(1);
    let fd = open(c"/proc/self/mem", O_RDWR).fd();
    say!("read: {}", sys!(SYS_pread64, fd, NOWHERE, 4, page));
    say!("write: {}", sys!(SYS_pwrite64, fd, NOWHERE, 4, page));
    say!("read only: {}", put(open(c"/proc/self/mem", O_RDONLY).fd(), "x", page as usize));
    say!("write only: {}", read_at(open(c"/proc/self/mem", O_WRONLY).fd(), 1, page as i64));
}

fn of_a_child() {
    let page = memory::pages(1);
    let [reader, writer] = pipe();
    let child = process::child(|| {
        memory::poke(page, b'c');
        read(reader, 1);
        i32::from(memory::peek(page))
    });
    process::until_asleep(child);
    let fd = open_mem(child, O_RDWR).fd();
    say!("the child's: {} mine: {}", read_at(fd, 1, page as i64), memory::peek(page));
    say!("changed: {} mine: {}", put(fd, "n", page as usize), memory::peek(page));
    write(writer, "x");
    say!("the child saw: {}", process::wait(child));
    say!("it has gone: {} {}", read_at(fd, 1, page as i64), put(fd, "n", page as usize));
}

fn of_another_user() {
    let sleeper = process::sleeper();
    process::as_plain_user(|| {
        say!("a user: {}", open_mem(sleeper, O_RDONLY));
        let own = process::sleeper();
        say!("another process of the user: {}", open_mem(own, O_RDWR).ok_or_error());
        process::kill(own, SIGKILL);
    });
    process::kill(sleeper, SIGKILL);
    process::wait(sleeper);
}

fn of_who_hides() {
    process::as_plain_user(|| {
        let child = process::child(|| {
            sys!(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
            process::sleep_ms(10_000);
            0
        });
        process::until_asleep(child);
        say!("a user's, that hides: {}", open_mem(child, O_RDONLY));
        say!("its counts: {}", open(&path(format!("/proc/{child}/io")), O_RDONLY));
        process::kill(child, SIGKILL);
        process::wait(child);
    });
}

fn of_a_zombie() {
    let child = process::child(|| 0);
    while process::state(child) != 'Z' {
        process::sleep_ms(1);
    }
    let fd = open_mem(child, O_RDONLY);
    say!("open: {}", fd.ok_or_error());
    if fd.ok() {
        say!("read: {}", read_at(fd.fd(), 1, 0));
    }
    process::wait(child);
    if fd.ok() {
        say!("waited for: {}", read_at(fd.fd(), 1, 0));
    }
}

fn of_another_program() {
    let page = memory::pages(1);
    memory::poke(page, b'o');
    let [reader, writer] = pipe();
    let child = process::child(|| {
        read(reader, 1);
        let arguments = [c"/bin/sleep".as_ptr(), c"10".as_ptr(), std::ptr::null()];
        let ret = sys!(SYS_execve, c"/bin/sleep", &arguments, &[0usize]);
        say!("no program: {ret}");
        1
    });
    process::until_asleep(child);
    let fd = open_mem(child, O_RDONLY).fd();
    say!("before: {}", read_at(fd, 1, page as i64));
    write(writer, "x");
    while std::fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm != "sleep\n") {
        process::sleep_ms(1);
    }
    process::until_asleep(child);
    say!("after: {}", read_at(fd, 1, page as i64));
    process::kill(child, SIGKILL);
    process::wait(child);
}

/// The numbers of a file of counts, in their order, and how long its text is. It takes one call to read it.
fn numbers(file: &str) -> (Vec<i64>, i64) {
    let fd = open(&path(file), O_RDONLY).fd();
    let mut buffer = [0u8; 1024];
    let length = sys!(SYS_read, fd, &mut buffer, buffer.len()).need();
    close(fd);
    let text = String::from_utf8_lossy(&buffer[..length as usize]).into_owned();
    (text.lines().filter_map(|line| line.split(": ").nth(1)?.parse().ok()).collect(), length)
}

/// What calls add to rchar, wchar, syscr and syscw.
fn added(calls: impl FnOnce()) -> [i64; 4] {
    let (before, length) = numbers("/proc/thread-self/io");
    calls();
    let (after, _) = numbers("/proc/thread-self/io");
    let looked = [length, 0, 1, 0];
    std::array::from_fn(|index| after[index] - before[index] - looked[index])
}

fn counts() {
    let text = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let names: Vec<&str> = text.lines().filter_map(|line| line.split(':').next()).collect();
    say!("names: {names:?}");
    say!("mode: {:o}", stat(c"/proc/self/io").map_or(0, |stat| stat.st_mode));
    let [reader, writer] = pipe();
    say!("a write: {:?}", added(|| _ = write(writer, "12345")));
    say!("a read: {:?}", added(|| _ = read(reader, 3)));
    let file = create(c"f", "contents");
    say!("of a file: {:?}", added(|| _ = read(file, 100)));
    say!("its end: {:?}", added(|| _ = read(file, 100)));
    say!("at a position: {:?}", added(|| _ = read_at(file, 4, 2)));
    let pieces = [["one".as_ptr() as usize, 3], ["three".as_ptr() as usize, 5]];
    say!("writev: {:?}", added(|| _ = sys!(SYS_writev, file, &pieces, 2)));
    say!("pwrite: {:?}", added(|| _ = put(file, "text", 0)));
    say!("a bad descriptor: {:?}", added(|| _ = read(99, 1)));
    sys!(SYS_fcntl, reader, F_SETFL, O_NONBLOCK);
    read(reader, 100);
    say!("nothing there: {:?}", added(|| _ = sys!(SYS_read, reader, &mut [0u8; 4], 4)));
    say!("not for reading: {:?}", added(|| _ = sys!(SYS_read, writer, &mut [0u8; 4], 4)));
    sys!(SYS_lseek, file, 0, SEEK_SET);
    say!("sendfile: {:?}", added(|| _ = sys!(SYS_sendfile, writer, file, 0, 4)));
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &mut pair);
    say!("send: {:?}", added(|| _ = sys!(SYS_sendto, pair[0], "text", 4, 0, 0, 0)));
    say!("write to a socket: {:?}", added(|| _ = write(pair[0], "text")));
    let (all, _) = numbers("/proc/self/io");
    say!("storage: {}", all.len() == 7 && all[4..].iter().all(|count| *count >= 0 && count % 512 == 0));
}

fn counts_of_children() {
    let (before, _) = numbers("/proc/self/io");
    let child = process::child(|| {
        let [_reader, writer] = pipe();
        write(writer, &"c".repeat(50_000));
        0
    });
    while process::state(child) != 'Z' {
        process::sleep_ms(1);
    }
    let grown = || numbers("/proc/self/io").0[1] - before[1] >= 50_000;
    say!("a child's are its own: {}", !grown());
    process::wait(child);
    say!("and its parent's when it was waited for: {}", grown());
}

fn counts_of_threads() {
    let (before, _) = numbers("/proc/self/io");
    let (tid, thread) = process::sleeping_thread(|| {
        let [_reader, writer] = pipe();
        write(writer, &"t".repeat(50_000));
    });
    let _ = tid;
    thread.join().ok();
    let (after, _) = numbers("/proc/self/io");
    say!("a thread's count, when it has ended, too: {}", after[1] - before[1] >= 50_000);
    say!("not for another: {}", numbers("/proc/thread-self/io").0[1] < 50_000);
}

fn who_may_see_counts() {
    let sleeper = process::sleeper();
    let file = path(format!("/proc/{sleeper}/io"));
    say!("root: {}", open(&file, O_RDONLY).ok_or_error());
    process::as_plain_user(|| {
        say!("a user: {}", open(&file, O_RDONLY));
        say!("its own: {}", open(c"/proc/self/io", O_RDONLY).ok_or_error());
    });
    process::kill(sleeper, SIGKILL);
    process::wait(sleeper);
    close(0);
}
