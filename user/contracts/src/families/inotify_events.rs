//! inotify: which events come of what is done with files. What is done with names is in `inotify_names`.

use libc::*;

use super::inotify::{events, instance, shown, watch};
use crate::file::{close, create, mkdir, open, path, read, unlink, write};
use crate::process;
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    opening, creating, reading_and_writing, reads_of_nothing, positions_and_vectors, truncating, attributes, set_id_bits, times,
    extended_attributes, of_a_directory, in_a_directory, programs, pipes_with_names, devices, unmounting,
    memory_files, o_path, copies, proc_files, listing,
}

/// An instance that watches the directory `d`, and one that watches `d/f`, which there is.
pub fn both() -> (i32, i32) {
    mkdir(c"d");
    close(create(c"d/f", "contents"));
    let (directory, file) = (instance(), instance());
    watch(directory, c"d", IN_ALL_EVENTS).need();
    watch(file, c"d/f", IN_ALL_EVENTS).need();
    (directory, file)
}

fn opening() {
    let (directory, file) = both();
    for flags in [O_RDONLY, O_WRONLY, O_RDWR] {
        let fd = open(c"d/f", flags).fd();
        say!("{flags}: {} {}", events(directory), events(file));
        let copy = sys!(SYS_dup, fd).fd();
        close(fd);
        say!("one of two closed: {}", events(file));
        close(copy);
        say!("both: {} {}", events(directory), events(file));
    }
    say!("not there: {} {}", open(c"d/nothing", O_RDONLY), events(directory));
    say!("truncated: {} {} {}", open(c"d/f", O_WRONLY | O_TRUNC).ok_or_error(), events(directory), events(file));
}

fn creating() {
    let (directory, _) = both();
    close(open(c"d/new", O_CREAT | O_WRONLY).fd());
    say!("new: {}", events(directory));
    close(open(c"d/new", O_CREAT | O_WRONLY).fd());
    say!("there already: {}", events(directory));
    say!("exclusively: {} {}", open(c"d/new", O_CREAT | O_EXCL), events(directory));
    close(open(c"d/second", O_CREAT | O_TRUNC | O_RDWR).fd());
    say!("new, to be truncated: {}", events(directory));
}

fn reading_and_writing() {
    let (directory, file) = both();
    let fd = open(c"d/f", O_RDWR).fd();
    events(directory);
    events(file);
    read(fd, 4);
    say!("read: {} {}", events(directory), events(file));
    write(fd, "x");
    say!("write: {} {}", events(directory), events(file));
    sys!(SYS_lseek, fd, 0, SEEK_SET);
    sys!(SYS_fsync, fd);
    say!("lseek and fsync: {}", events(file));
    let memory = crate::memory::map(4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0).need() as *mut u8;
    crate::memory::poke(memory, 1);
    sys!(SYS_msync, memory, 4096, MS_SYNC);
    say!("through memory: {}", events(file));
    say!("fallocate: {} {}", sys!(SYS_fallocate, fd, 0, 0, 4096), events(file));
}

fn reads_of_nothing() {
    let (_, file) = both();
    let fd = open(c"d/f", O_RDWR).fd();
    events(file);
    read(fd, 0);
    read(fd, 100);
    say!("once there was something: {}", events(file));
    read(fd, 100);
    say!("at the end: {}", events(file));
    write(fd, "");
    say!("a write of nothing: {}", events(file));
    sys!(SYS_read, fd, 8, 10);
    say!("bad pointer: {}", events(file));
}

fn positions_and_vectors() {
    let (_, file) = both();
    let fd = open(c"d/f", O_RDWR).fd();
    events(file);
    let mut buffer = [0u8; 8];
    let pieces = [buffer.as_mut_ptr() as usize, 4];
    sys!(SYS_pread64, fd, &mut buffer, 4, 0);
    say!("pread: {}", events(file));
    sys!(SYS_pwrite64, fd, &buffer, 4, 0);
    say!("pwrite: {}", events(file));
    sys!(SYS_readv, fd, &pieces, 1);
    say!("readv: {}", events(file));
    sys!(SYS_writev, fd, &pieces, 1);
    say!("writev: {}", events(file));
    sys!(SYS_preadv, fd, &pieces, 1, 0, 0);
    sys!(SYS_pwritev, fd, &pieces, 1, 0, 0);
    say!("preadv and pwritev: {}", events(file));
}

fn truncating() {
    let (directory, file) = both();
    say!("truncate: {} {} {}", sys!(SYS_truncate, c"d/f", 3), events(directory), events(file));
    let fd = open(c"d/f", O_RDWR).fd();
    events(directory);
    events(file);
    say!("ftruncate: {} {} {}", sys!(SYS_ftruncate, fd, 10), events(directory), events(file));
    say!("to what it is: {} {}", sys!(SYS_ftruncate, fd, 10), events(file));
}

fn attributes() {
    let (directory, file) = both();
    let fd = open(c"d/f", O_RDWR).fd();
    events(directory);
    events(file);
    sys!(SYS_fchmodat, AT_FDCWD, c"d/f", 0o600);
    say!("chmod: {} {}", events(directory), events(file));
    sys!(SYS_fchmod, fd, 0o644);
    say!("fchmod: {} {}", events(directory), events(file));
    sys!(SYS_fchownat, AT_FDCWD, c"d/f", 1, 2, 0);
    say!("chown: {} {}", events(directory), events(file));
    sys!(SYS_fchown, fd, 0, -1);
    say!("fchown: {} {}", events(directory), events(file));
    sys!(SYS_fchown, fd, -1, -1);
    say!("of nothing: {}", events(file));
    process::as_plain_user(|| {
        sys!(SYS_fchmod, fd, 0o777);
    });
    say!("refused: {}", events(file));
    sys!(SYS_fchmodat, AT_FDCWD, c"d", 0o700);
    say!("of the directory: {}", events(directory));
}

fn set_id_bits() {
    let (directory, file) = both();
    let set = || {
        sys!(SYS_fchmodat, AT_FDCWD, c"d/f", 0o6777);
        events(directory);
        events(file);
    };
    let fd = open(c"d/f", O_RDWR).fd();
    set();
    write(fd, "x");
    say!("root writes: {} {}", events(directory), events(file));
    process::as_plain_user(|| {
        set();
        write(fd, "x");
    });
    say!("a user writes: {} {}", events(directory), events(file));
    process::as_plain_user(|| {
        write(fd, "x");
    });
    say!("again: {} {}", events(directory), events(file));
    set();
    process::as_plain_user(|| {
        sys!(SYS_ftruncate, fd, 3);
    });
    say!("a user truncates: {} {}", events(directory), events(file));
    set();
    process::as_plain_user(|| {
        open(c"d/f", O_WRONLY | O_TRUNC);
    });
    say!("by an open: {} {}", events(directory), events(file));
}

fn times() {
    let (directory, file) = both();
    let now = timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let omit = timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let set = |times: &[timespec; 2]| sys!(SYS_utimensat, AT_FDCWD, c"d/f", times, 0);
    say!("both: {} {} {}", set(&[now, now]), events(directory), events(file));
    say!("the access: {} {} {}", set(&[now, omit]), events(directory), events(file));
    say!("the change: {} {} {}", set(&[omit, now]), events(directory), events(file));
    say!("none: {} {}", set(&[omit, omit]), events(file));
}

fn extended_attributes() {
    // On a file system that has them on both kernels.
    mkdir(c"m");
    sys!(SYS_mount, c"none", c"m", c"tmpfs", 0, 0).need();
    close(create(c"m/f", ""));
    let fd = instance();
    watch(fd, c"m/f", IN_ALL_EVENTS);
    let name = c"trusted.name";
    say!("set: {} {}", sys!(SYS_setxattr, c"m/f", name, c"value", 5, 0), events(fd));
    say!("asked: {} {}", sys!(SYS_getxattr, c"m/f", name, 0, 0), events(fd));
    say!("removed: {} {}", sys!(SYS_removexattr, c"m/f", name), events(fd));
    say!("again: {} {}", sys!(SYS_removexattr, c"m/f", name), events(fd));
    sys!(SYS_umount2, c"m", MNT_DETACH);
}

fn of_a_directory() {
    mkdir(c"d");
    mkdir(c"d/sub");
    let (outer, inner) = (instance(), instance());
    watch(outer, c"d", IN_ALL_EVENTS);
    watch(inner, c"d/sub", IN_ALL_EVENTS);
    let fd = open(c"d/sub", O_RDONLY | O_DIRECTORY).fd();
    say!("opened: {} {}", events(outer), events(inner));
    let mut buffer = [0u8; 500];
    sys!(SYS_getdents64, fd, &mut buffer, 500);
    say!("read: {} {}", events(outer), events(inner));
    close(fd);
    say!("closed: {} {}", events(outer), events(inner));
    sys!(SYS_fchmodat, AT_FDCWD, c"d/sub", 0o700);
    say!("changed: {} {}", events(outer), events(inner));
    close(create(c"d/sub/f", ""));
    say!("what is in it is its own affair: {} {}", events(outer), events(inner));
}

fn in_a_directory() {
    let directory = instance();
    mkdir(c"d");
    mkdir(c"d/sub");
    close(create(c"d/f", ""));
    let wd = watch(directory, c"d", IN_ALL_EVENTS).0;
    let own = watch(directory, c"d/f", IN_ALL_EVENTS).0;
    say!("numbers: {wd} {own}");
    let fd = open(c"d/f", O_RDWR).fd();
    write(fd, "x");
    close(fd);
    say!("both watched: {}", events(directory));
    watch(directory, c"d", IN_CREATE);
    close(open(c"d/f", O_RDONLY).fd());
    say!("only what is wanted: {}", events(directory));
}

fn programs() {
    mkdir(c"d");
    std::fs::copy("/proc/self/exe", "d/program").ok();
    sys!(SYS_fchmodat, AT_FDCWD, c"d/program", 0o755);
    let fd = instance();
    watch(fd, c"d", IN_ALL_EVENTS);
    let status = process::in_child(|| {
        let words = [c"d/program".as_ptr(), c"--list".as_ptr(), c"no-such-test".as_ptr(), std::ptr::null()];
        sys!(SYS_execve, c"d/program", &words, 0).errno()
    });
    say!("it ran: {status}");
    // How often the program was looked at differs; that it was does not.
    let text = events(fd);
    let kinds: Vec<&str> = ["OPEN", "ACCESS", "CLOSE_NOWRITE"].into_iter().filter(|kind| text.contains(kind)).collect();
    say!("{kinds:?}");
}

fn pipes_with_names() {
    mkdir(c"d");
    sys!(SYS_mknodat, AT_FDCWD, c"d/fifo", S_IFIFO | 0o600, 0);
    let (directory, own) = (instance(), instance());
    watch(directory, c"d", IN_ALL_EVENTS);
    watch(own, c"d/fifo", IN_ALL_EVENTS);
    let fd = open(c"d/fifo", O_RDWR).fd();
    say!("opened: {} {}", events(directory), events(own));
    write(fd, "text");
    say!("written: {} {}", events(directory), events(own));
    read(fd, 10);
    say!("read: {} {}", events(directory), events(own));
    let child = process::child(|| {
        read(fd, 10);
        0
    });
    process::until_asleep(child);
    write(fd, "x");
    process::wait(child);
    // The writer wakes the reader before it reports: on two CPUs either may be first.
    let seen = events(own);
    let both = seen.contains("1 MODIFY") && seen.contains("1 ACCESS") && seen.matches(',').count() == 1;
    say!("a read that waited: {}", if both { "one of each" } else { &seen });
    close(fd);
    say!("closed: {} {}", events(directory), events(own));
}

fn devices() {
    let fd = instance();
    watch(fd, c"/dev/null", IN_ALL_EVENTS).need();
    let null = open(c"/dev/null", O_RDWR).fd();
    write(null, "x");
    read(null, 1);
    close(null);
    say!("/dev/null: {}", events(fd));
    sys!(SYS_inotify_rm_watch, fd, 1);
    events(fd);
    watch(fd, c"/dev", IN_CREATE | IN_DELETE | IN_OPEN);
    sys!(SYS_mknodat, AT_FDCWD, c"/dev/contract", S_IFCHR | 0o600, 0x103);
    close(open(c"/dev/contract", O_RDONLY).fd());
    unlink(c"/dev/contract");
    say!("/dev: {}", events(fd));
}

fn unmounting() {
    mkdir(c"m");
    sys!(SYS_mount, c"none", c"m", c"tmpfs", 0, 0).need();
    close(create(c"m/f", ""));
    let fd = instance();
    say!("{} {} {}", watch(fd, c"m", IN_OPEN), watch(fd, c"m/f", IN_OPEN), watch(fd, c".", IN_ALL_EVENTS));
    say!("a watch holds nothing: {}", sys!(SYS_umount2, c"m", 0));
    let mut text = events(fd);
    // The order of inodes is that of a table.
    let mut words: Vec<&str> = text[1..text.len() - 1].split(", ").collect();
    words.sort_unstable();
    text = words.join(", ");
    say!("{text}");
    say!("none is left: {} {}", sys!(SYS_inotify_rm_watch, fd, 1), sys!(SYS_inotify_rm_watch, fd, 2));
    sys!(SYS_mount, c"none", c"m", c"tmpfs", 0, 0).need();
    mkdir(c"n");
    sys!(SYS_mount, c"m", c"n", 0, MS_BIND, 0).need();
    watch(fd, c"m", IN_CREATE);
    sys!(SYS_umount2, c"m", 0);
    say!("mounted elsewhere, too: {}", events(fd));
    mkdir(c"n/x");
    say!("it is watched still: {}", events(fd));
    sys!(SYS_umount2, c"n", 0);
    say!("the last one: {}", events(fd));
}

fn memory_files() {
    let file = sys!(SYS_memfd_create, c"memory", 0).fd();
    let fd = instance();
    say!("{}", watch(fd, &path(format!("/proc/self/fd/{file}")), IN_ALL_EVENTS).ok_or_error());
}

fn o_path() {
    let (directory, file) = both();
    let fd = open(c"d/f", O_PATH).fd();
    close(fd);
    say!("{} {}", events(directory), events(file));
}

fn copies() {
    let (directory, file) = both();
    let out = create(c"d/out", "");
    let input = open(c"d/f", O_RDONLY).fd();
    events(directory);
    events(file);
    // In which order, and how often, is not the same for all file systems.
    let seen = |text: String| (text.contains("ACCESS f"), text.contains("MODIFY out"));
    say!("sendfile: {} {:?} {}", sys!(SYS_sendfile, out, input, 0, 4), seen(events(directory)), events(file));
    let (from, to) = (0i64, 0i64);
    let ret = sys!(SYS_copy_file_range, input, &from, out, &to, 4, 0);
    say!("copy_file_range: {ret} {:?} {}", seen(events(directory)), events(file));
}

fn proc_files() {
    let fd = instance();
    watch(fd, c"/proc/version", IN_OPEN | IN_ACCESS | IN_CLOSE).need();
    let file = open(c"/proc/version", O_RDONLY).fd();
    read(file, 10);
    close(file);
    say!("{}", events(fd));
}

fn listing() {
    let (directory, _) = both();
    let names = std::fs::read_dir("d").map_or(0, |entries| entries.count());
    let mut buffer = [0u8; 400];
    match sys!(SYS_read, directory, &mut buffer, 400) {
        Ret(length @ 1..) => say!("{names} entries: {}", shown(&buffer[..length as usize])),
        error => say!("{error}"),
    }
}
