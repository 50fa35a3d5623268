//! inotify: instances and watches. What events come is in `inotify_events`.

use libc::*;

use crate::file::{close, create, mkdir, open, path, pipe, read, symlink, unlink, write};
use crate::process;
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, signal, tests};

tests! {
    instances, watch_numbers, masks, same_file_again, mask_add_and_create, only_directories, links, permission,
    bad_arguments, remove_watch, small_buffers, several_at_once, reads_that_wait, nonblocking, how_much, polled,
    through_epoll, equal_neighbours, one_shot, told_by_signal, file_operations,
}

pub fn instance() -> i32 {
    sys!(SYS_inotify_init1, IN_NONBLOCK).fd()
}

pub fn watch(fd: i32, name: &std::ffi::CStr, mask: u32) -> Ret {
    sys!(SYS_inotify_add_watch, fd, name, mask)
}

const NAMES: [(u32, &str); 17] = [
    (IN_ACCESS, "ACCESS"),
    (IN_MODIFY, "MODIFY"),
    (IN_ATTRIB, "ATTRIB"),
    (IN_CLOSE_WRITE, "CLOSE_WRITE"),
    (IN_CLOSE_NOWRITE, "CLOSE_NOWRITE"),
    (IN_OPEN, "OPEN"),
    (IN_MOVED_FROM, "MOVED_FROM"),
    (IN_MOVED_TO, "MOVED_TO"),
    (IN_CREATE, "CREATE"),
    (IN_DELETE, "DELETE"),
    (IN_DELETE_SELF, "DELETE_SELF"),
    (IN_MOVE_SELF, "MOVE_SELF"),
    (IN_UNMOUNT, "UNMOUNT"),
    (IN_Q_OVERFLOW, "Q_OVERFLOW"),
    (IN_IGNORED, "IGNORED"),
    (IN_ISDIR, "ISDIR"),
    (IN_ONESHOT, "ONESHOT"),
];

/// Events as text. Cookies are counted from the first that there is.
pub fn shown(bytes: &[u8]) -> String {
    let mut all = Vec::new();
    let mut cookies: Vec<u32> = Vec::new();
    let mut rest = bytes;
    while rest.len() >= 16 {
        let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap_or_default());
        let (wd, mask, cookie, len) = (word(0) as i32, word(4), word(8), word(12) as usize);
        let names: Vec<&str> = NAMES.iter().filter(|(bit, _)| mask & bit != 0).map(|(_, name)| *name).collect();
        let mut text = format!("{wd} {}", names.join("|"));
        if cookie != 0 {
            let at = cookies.iter().position(|known| *known == cookie).unwrap_or(cookies.len());
            if at == cookies.len() {
                cookies.push(cookie);
            }
            text += &format!(" cookie {at}");
        }
        if len > 0 {
            let name = &rest[16..16 + len];
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(len);
            text += &format!(" {}", String::from_utf8_lossy(&name[..end]));
        }
        all.push(text);
        rest = &rest[16 + len..];
    }
    format!("[{}]", all.join(", "))
}

/// The events that there are.
pub fn events(fd: i32) -> String {
    let mut buffer = vec![0u8; 1 << 16];
    match sys!(SYS_read, fd, &mut buffer[..], buffer.len()) {
        Ret(length @ 0..) => shown(&buffer[..length as usize]),
        error => error.to_string(),
    }
}

fn waiting(fd: i32) -> i32 {
    let mut count = -1i32;
    sys!(SYS_ioctl, fd, FIONREAD, &mut count);
    count
}

fn instances() {
    let fd = sys!(SYS_inotify_init1, 0).fd();
    let other = sys!(SYS_inotify_init1, IN_NONBLOCK | IN_CLOEXEC).fd();
    let get = |fd: i32, command: i32| sys!(SYS_fcntl, fd, command, 0).0;
    say!("plain: {:o} {}", get(fd, F_GETFL), get(fd, F_GETFD));
    say!("both flags: {:o} {}", get(other, F_GETFL), get(other, F_GETFD));
    for flags in [1, O_RDWR, O_APPEND, -1] {
        say!("flags {flags:o}: {}", sys!(SYS_inotify_init1, flags));
    }
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default();
    say!("named: {}", link.display());
}

fn watch_numbers() {
    let fd = instance();
    for name in [c"a", c"b", c"c"] {
        create(name, "");
        say!("{}", watch(fd, name, IN_OPEN));
    }
    say!("removed: {}", sys!(SYS_inotify_rm_watch, fd, 2));
    say!("the next one: {}", watch(fd, c"b", IN_OPEN));
    let other = instance();
    say!("of another: {}", watch(other, c"a", IN_OPEN));
}

fn masks() {
    let fd = instance();
    create(c"f", "");
    for mask in [
        0,
        IN_OPEN,
        IN_ONLYDIR,
        IN_DONT_FOLLOW,
        IN_ONESHOT,
        IN_MASK_ADD,
        IN_UNMOUNT,
        IN_ISDIR,
        IN_IGNORED,
        IN_Q_OVERFLOW,
        0x1000,
        1 << 22,
        u32::MAX,
    ] {
        say!("{mask:#x}: {}", watch(fd, c"f", mask).ok_or_error());
    }
}

fn same_file_again() {
    let fd = instance();
    close(create(c"f", ""));
    crate::file::link(c"f", c"g");
    say!("twice: {} {}", watch(fd, c"f", IN_OPEN), watch(fd, c"f", IN_CLOSE_NOWRITE));
    close(open(c"f", O_RDONLY).fd());
    say!("the second mask counts: {}", events(fd));
    say!("by another name: {}", watch(fd, c"g", IN_OPEN));
    close(open(c"f", O_RDONLY).fd());
    say!("it counts: {}", events(fd));
    unlink(c"f");
    unlink(c"g");
    events(fd);
    close(create(c"f", ""));
    say!("another file of that name: {}", watch(fd, c"f", IN_OPEN));
}

fn mask_add_and_create() {
    let fd = instance();
    close(create(c"f", ""));
    say!("new: {}", watch(fd, c"f", IN_OPEN | IN_MASK_CREATE));
    say!("again: {}", watch(fd, c"f", IN_OPEN | IN_MASK_CREATE));
    say!("added: {}", watch(fd, c"f", IN_CLOSE_NOWRITE | IN_MASK_ADD));
    close(open(c"f", O_RDONLY).fd());
    say!("both: {}", events(fd));
    say!("both flags: {}", watch(fd, c"f", IN_OPEN | IN_MASK_ADD | IN_MASK_CREATE));
    close(create(c"g", ""));
    say!("added to nothing: {}", watch(fd, c"g", IN_OPEN | IN_MASK_ADD));
}

fn only_directories() {
    let fd = instance();
    create(c"f", "");
    mkdir(c"d");
    symlink(c"d", c"l");
    say!("a file: {}", watch(fd, c"f", IN_OPEN | IN_ONLYDIR));
    say!("a directory: {}", watch(fd, c"d", IN_OPEN | IN_ONLYDIR));
    say!("a link to one: {}", watch(fd, c"l", IN_OPEN | IN_ONLYDIR));
    say!("the link: {}", watch(fd, c"l", IN_OPEN | IN_ONLYDIR | IN_DONT_FOLLOW));
}

fn links() {
    let fd = instance();
    close(create(c"f", ""));
    symlink(c"f", c"l");
    symlink(c"nowhere", c"broken");
    say!("followed: {} {}", watch(fd, c"f", IN_OPEN), watch(fd, c"l", IN_OPEN));
    say!("not followed: {}", watch(fd, c"l", IN_ALL_EVENTS | IN_DONT_FOLLOW));
    say!("broken: {} {}", watch(fd, c"broken", IN_OPEN), watch(fd, c"broken", IN_DELETE_SELF | IN_DONT_FOLLOW));
    close(open(c"l", O_RDONLY).fd());
    say!("opened through the link: {}", events(fd));
    unlink(c"l");
    say!("the link is removed: {}", events(fd));
}

fn permission() {
    for (name, mode) in [(c"open", 0o644), (c"unreadable", 0o311), (c"writable", 0o222)] {
        create(name, "");
        sys!(SYS_fchmodat, AT_FDCWD, name, mode);
    }
    mkdir(c"closed");
    create(c"closed/f", "");
    sys!(SYS_fchmodat, AT_FDCWD, c"closed", 0o600);
    process::as_plain_user(|| {
        let fd = instance();
        for name in [c"open", c"unreadable", c"writable", c"closed", c"closed/f"] {
            say!("{}: {}", name.to_string_lossy(), watch(fd, name, IN_OPEN));
        }
    });
}

fn bad_arguments() {
    let fd = instance();
    create(c"f", "");
    say!("nothing there: {}", watch(fd, c"nothing", IN_OPEN));
    say!("an empty path: {}", watch(fd, c"", IN_OPEN));
    say!("a file in a file: {}", watch(fd, c"f/x", IN_OPEN));
    say!("bad pointer: {}", sys!(SYS_inotify_add_watch, fd, NOWHERE, IN_OPEN));
    say!("not open: {}", watch(99, c"f", IN_OPEN));
    say!("not an instance: {}", watch(pipe()[0], c"f", IN_OPEN));
    say!("not open, no mask: {}", watch(99, c"f", 0));
    say!("O_PATH: {}", watch(open(c"f", O_PATH).fd(), c"f", IN_OPEN));
    say!("bad pointer and both flags: {}", {
        sys!(SYS_inotify_add_watch, fd, NOWHERE, IN_OPEN | IN_MASK_ADD | IN_MASK_CREATE)
    });
}

fn remove_watch() {
    let fd = instance();
    close(create(c"f", ""));
    let wd = watch(fd, c"f", IN_OPEN).0;
    close(open(c"f", O_RDONLY).fd());
    say!("removed: {}", sys!(SYS_inotify_rm_watch, fd, wd));
    close(open(c"f", O_RDONLY).fd());
    say!("events: {}", events(fd));
    say!("again: {} never: {} negative: {}", sys!(SYS_inotify_rm_watch, fd, wd), sys!(SYS_inotify_rm_watch, fd, 77), {
        sys!(SYS_inotify_rm_watch, fd, -1)
    });
    say!("not open: {} not an instance: {}", sys!(SYS_inotify_rm_watch, 99, 1), sys!(SYS_inotify_rm_watch, 0, 1));
}

fn small_buffers() {
    let fd = instance();
    mkdir(c"d");
    watch(fd, c"d", IN_CREATE | IN_OPEN);
    say!("no event, no room: {}", read(fd, 1));
    close(create(c"d/a-name", ""));
    close(open(c"d", O_RDONLY).fd());
    for room in [0, 1, 15, 16, 31] {
        say!("{room} bytes: {}", read(fd, room));
    }
    say!("32 bytes: {}", read(fd, 32).len() > 30);
    say!("left: {}", waiting(fd));
    let mut buffer = [0u8; 47];
    let ret = sys!(SYS_read, fd, &mut buffer, 47);
    say!("room for one and a half: {ret}");
    let ret = sys!(SYS_read, fd, &mut buffer, 16);
    say!("for one without a name: {ret} {}", shown(&buffer[..16]));
    for length in [15, 16, 31, 255] {
        close(create(&path(format!("d/{}", "n".repeat(length))), ""));
        say!("a name of {length}: {}", waiting(fd) / 2);
        events(fd);
    }
}

fn several_at_once() {
    let fd = instance();
    close(create(c"f", "text"));
    watch(fd, c"f", IN_ALL_EVENTS);
    let file = open(c"f", O_RDWR).fd();
    read(file, 10);
    write(file, "more");
    close(file);
    say!("bytes: {}", waiting(fd));
    say!("{}", events(fd));
    say!("then: {}", events(fd));
}

fn reads_that_wait() {
    let fd = sys!(SYS_inotify_init1, 0).fd();
    close(create(c"f", ""));
    watch(fd, c"f", IN_OPEN | IN_CLOSE);
    let child = process::child(|| {
        say!("it waited: {}", events(fd));
        0
    });
    process::until_asleep(child);
    let file = open(c"f", O_RDONLY).fd();
    process::wait(child);
    close(file);
    say!("then: {}", events(fd));
    let child = process::child(|| {
        signal::handle(SIGUSR1, signal::count, 0);
        say!("interrupted: {}", events(fd));
        signal::handle(SIGUSR1, signal::count, SA_RESTART);
        say!("restarted: {}", events(fd));
        0
    });
    process::until_asleep(child);
    process::kill(child, SIGUSR1);
    process::sleep_ms(20);
    process::until_asleep(child);
    process::kill(child, SIGUSR1);
    process::sleep_ms(20);
    process::until_asleep(child);
    open(c"f", O_RDONLY);
    process::wait(child);
}

fn nonblocking() {
    let fd = sys!(SYS_inotify_init1, 0).fd();
    sys!(SYS_fcntl, fd, F_SETFL, O_NONBLOCK);
    say!("by F_SETFL: {}", events(fd));
    sys!(SYS_ioctl, fd, FIONBIO, &0i32);
    say!("flags: {:o}", sys!(SYS_fcntl, fd, F_GETFL, 0).0);
}

fn how_much() {
    let fd = instance();
    mkdir(c"d");
    watch(fd, c"d", IN_CREATE);
    say!("nothing: {}", waiting(fd));
    mkdir(c"d/one");
    mkdir(c"d/a-name-of-sixteen");
    say!("two: {}", waiting(fd));
    say!("bad pointer: {} another: {}", sys!(SYS_ioctl, fd, FIONREAD, NOWHERE), sys!(SYS_ioctl, fd, TCGETS, NOWHERE));
}

fn ready(fd: i32, wait: i64) -> i16 {
    let mut entry = pollfd { fd, events: POLLIN | POLLOUT | POLLRDNORM, revents: 0 };
    let time = timespec { tv_sec: 0, tv_nsec: wait * 1_000_000 };
    sys!(SYS_ppoll, &mut entry, 1, &time, 0, 8);
    entry.revents
}

fn polled() {
    let fd = instance();
    close(create(c"f", ""));
    watch(fd, c"f", IN_OPEN);
    say!("nothing: {:#x}", ready(fd, 0));
    let child = process::child(|| {
        let mut entry = pollfd { fd, events: POLLIN, revents: 0 };
        say!("it waited: {} {:#x}", sys!(SYS_ppoll, &mut entry, 1, 0, 0, 8), entry.revents);
        0
    });
    process::until_asleep(child);
    open(c"f", O_RDONLY);
    process::wait(child);
    say!("an event: {:#x}", ready(fd, 0));
    events(fd);
    say!("read: {:#x}", ready(fd, 0));
}

fn through_epoll() {
    let fd = instance();
    close(create(c"f", ""));
    watch(fd, c"f", IN_OPEN);
    let epoll = sys!(SYS_epoll_create1, 0).fd();
    let mut event = epoll_event { events: (EPOLLIN | EPOLLET) as u32, u64: 7 };
    say!("added: {}", sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &mut event));
    let wait = || {
        let mut event: epoll_event = zeroed();
        let ret = sys!(SYS_epoll_pwait, epoll, &mut event, 1, 20, 0, 8);
        format!("{ret} {:#x}", { event.events })
    };
    say!("nothing: {}", wait());
    open(c"f", O_RDONLY);
    say!("an event: {}", wait());
    say!("an edge once: {}", wait());
    sys!(SYS_inotify_rm_watch, fd, 1);
    say!("another: {}", wait());
}

fn equal_neighbours() {
    let fd = instance();
    let file = create(c"f", "");
    watch(fd, c"f", IN_MODIFY | IN_ATTRIB);
    for _ in 0..3 {
        write(file, "x");
    }
    say!("three writes: {}", events(fd));
    write(file, "x");
    sys!(SYS_fchmod, file, 0o600);
    write(file, "x");
    write(file, "x");
    say!("others between them: {}", events(fd));
    mkdir(c"d");
    watch(fd, c"d", IN_MODIFY);
    let (a, b) = (create(c"d/a", ""), create(c"d/b", ""));
    for file in [a, a, b, a] {
        write(file, "x");
    }
    say!("names count: {}", events(fd));
    write(a, "x");
    say!("one: {} bytes", waiting(fd));
    events(fd);
    write(a, "x");
    say!("what was read is not joined: {}", events(fd));
}

fn one_shot() {
    let fd = instance();
    close(create(c"f", ""));
    say!("added: {}", watch(fd, c"f", IN_OPEN | IN_CLOSE | IN_ONESHOT));
    close(open(c"f", O_RDONLY).fd());
    say!("one and no more: {}", events(fd));
    say!("it is removed: {}", sys!(SYS_inotify_rm_watch, fd, 1));
    say!("again: {}", watch(fd, c"f", IN_OPEN | IN_CLOSE));
    say!("made so later: {}", watch(fd, c"f", IN_ONESHOT | IN_MASK_ADD));
    close(open(c"f", O_RDONLY).fd());
    say!("{}", events(fd));
}

fn told_by_signal() {
    let fd = instance();
    close(create(c"f", ""));
    watch(fd, c"f", IN_OPEN | IN_CLOSE);
    super::sigio::listen(fd);
    close(open(c"f", O_RDONLY).fd());
    say!("two events: {}", super::sigio::told());
    say!("{}", events(fd));
    super::sigio::switch(fd, false);
    close(open(c"f", O_RDONLY).fd());
    say!("off: {}", super::sigio::told());
}

fn file_operations() {
    let fd = instance();
    create(c"f", "");
    watch(fd, c"f", IN_OPEN);
    say!("write: {}", write(fd, "x"));
    say!("lseek: {} {}", sys!(SYS_lseek, fd, 5, SEEK_SET), sys!(SYS_lseek, fd, 0, SEEK_CUR));
    say!("pread: {}", crate::file::read_at(fd, 100, 0));
    say!("mmap: {}", crate::memory::map(4096, PROT_READ, MAP_SHARED, fd, 0));
    say!("ftruncate: {} fsync: {}", sys!(SYS_ftruncate, fd, 0), sys!(SYS_fsync, fd));
    let opened = open(&path(format!("/proc/self/fd/{fd}")), O_RDONLY);
    say!("opened again: {}", opened.ok_or_error());
    open(c"f", O_RDONLY);
    let [_, writer] = pipe();
    say!("splice: {}", sys!(SYS_splice, fd, 0, writer, 0, 100, 0));
}
