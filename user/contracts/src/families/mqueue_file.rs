//! What POSIX message queues are besides queues: files, with owners and limits, that are polled and tell of messages.

use std::ffi::CStr;
use std::ptr::null;

use libc::*;

use super::mqueue::{Attr, NAME, attr, close, mq_open, mq_unlink, new, receive, send, waiting};
use crate::file;
use crate::process::{self, as_plain_user, child, in_child, wait};
use crate::signal;
use crate::sys::{NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    poll, notify_by_signal, notify_by_nothing, notify_refused, notify_and_receiver, notify_ends, notify_after_exec, permissions, limit_of_bytes, limit_of_queues, file_system, status_file, descriptor, after_unlink, of_a_child, settings,
}

fn notify(fd: i32, how: i32, signal: i32, value: usize) -> Ret {
    let mut event: sigevent = zeroed();
    event.sigev_notify = how;
    event.sigev_signo = signal;
    event.sigev_value = sigval { sival_ptr: value as *mut c_void };
    sys!(SYS_mq_notify, fd, &event)
}

fn forget(fd: i32) -> Ret {
    sys!(SYS_mq_notify, fd, 0)
}

fn status(fd: i32) -> String {
    let text = file::read_at(fd, 200, 0);
    let own = format!("NOTIFY_PID:{:<6}", process::pid());
    text.replace(&own, "NOTIFY_PID:own   ")
}

fn poll() {
    let fd = new(2, 8);
    let ready = || {
        let mut entry = pollfd { fd, events: POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM, revents: 0 };
        sys!(SYS_ppoll, &mut entry, 1, &timespec { tv_sec: 0, tv_nsec: 0 }, 0, 8);
        format!("{:#x}", entry.revents)
    };
    say!("empty: {}", ready());
    send(fd, "a", 0);
    say!("one: {}", ready());
    send(fd, "b", 0);
    say!("full: {}", ready());
    let wait_for = |events: i16| {
        waiting(move || {
            let mut entry = pollfd { fd, events, revents: 0 };
            let ret = sys!(SYS_ppoll, &mut entry, 1, 0, 0, 8);
            format!("{ret} {:#x}", entry.revents)
        })
    };
    let pid = wait_for(POLLOUT);
    receive(fd);
    say!("{}", wait(pid));
    receive(fd);
    let pid = wait_for(POLLIN);
    send(fd, "c", 0);
    say!("{}", wait(pid));
    let epoll = sys!(SYS_epoll_create1, 0).fd();
    let mut event = epoll_event { events: (EPOLLIN | EPOLLET) as u32, u64: 7 };
    say!("epoll: {}", sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &mut event));
    for text in ["first", "nothing new", "after one more"] {
        if text == "after one more" {
            send(fd, "d", 0);
        }
        say!("{text}: {}", sys!(SYS_epoll_pwait, epoll, &mut event, 1, 0, 0, 8));
    }
    mq_unlink(NAME);
}

fn notify_by_signal() {
    let fd = new(4, 8);
    signal::block(SIGUSR1);
    say!("register: {}", notify(fd, SIGEV_SIGNAL, SIGUSR1, 77));
    say!("{}", status(fd));
    let sender = child(|| send(fd, "a", 0).errno());
    say!("{}", wait(sender));
    let (taken, info) = signal::take(signal::bit(SIGUSR1), 1000);
    // SAFETY: a signal of this kind has these.
    let (pid, uid, value) = unsafe { (info.si_pid(), info.si_uid(), info.si_value().sival_ptr as usize) };
    say!("signal {taken}, code {}, from the child {}, {uid}, value {value}", info.si_code, pid == sender);
    say!("{}", status(fd));
    send(fd, "b", 0);
    say!("only once: {}", signal::names(signal::pending()));
    say!("register: {}", notify(fd, SIGEV_SIGNAL, SIGUSR1, 78));
    send(fd, "c", 0);
    say!("not empty before: {}", signal::names(signal::pending()));
    (0..3).for_each(|_| _ = receive(fd));
    send(fd, "d", 0);
    say!("empty before: {}", signal::names(signal::pending()));
    mq_unlink(NAME);
}

fn notify_by_nothing() {
    let fd = new(4, 8);
    say!("register: {}, {}", notify(fd, SIGEV_NONE, 0, 0), status(fd));
    say!("again: {}", notify(fd, SIGEV_NONE, 0, 0));
    send(fd, "abc", 0);
    say!("{}", status(fd));
    receive(fd);
    say!("signal 0: {}, {}", notify(fd, SIGEV_SIGNAL, 0, 0), status(fd));
    send(fd, "a", 0);
    say!("{}, {}", signal::names(signal::pending()), status(fd));
    mq_unlink(NAME);
}

fn notify_refused() {
    let fd = new(1, 8);
    say!("signal 65: {}, -1: {}", notify(fd, SIGEV_SIGNAL, 65, 0), notify(fd, SIGEV_SIGNAL, -1, 0));
    say!("how: {} {}", notify(fd, 3, SIGUSR1, 0), notify(fd, 4, SIGUSR1, 0));
    say!("no queue: {} {}", notify(99, SIGEV_NONE, 0, 0), notify(2, SIGEV_NONE, 0, 0));
    say!("no queue to forget: {}", forget(99));
    say!("from nowhere: {}", sys!(SYS_mq_notify, fd, NOWHERE));
    let cookie = [0u8; 32];
    let at = cookie.as_ptr() as usize;
    say!("by thread, nowhere: {}", notify(fd, SIGEV_THREAD, 99, NOWHERE as usize));
    say!("bad descriptor: {}", notify(fd, SIGEV_THREAD, 99, at));
    say!("no socket: {}", notify(fd, SIGEV_THREAD, fd, at));
    let socket = sys!(SYS_socket, AF_UNIX, SOCK_STREAM, 0).fd();
    say!("another socket: {}", notify(fd, SIGEV_THREAD, socket, at));
    say!("forget what is not: {}", forget(fd));
    mq_unlink(NAME);
}

fn notify_and_receiver() {
    let fd = new(2, 8);
    signal::block(SIGUSR1);
    notify(fd, SIGEV_SIGNAL, SIGUSR1, 0);
    let pid = waiting(|| receive(fd));
    send(fd, "a", 0);
    say!("{}, who waits comes first: {}", wait(pid), signal::names(signal::pending()));
    say!("still registered: {}", notify(fd, SIGEV_NONE, 0, 0));
    mq_unlink(NAME);
}

fn notify_ends() {
    let fd = new(2, 8);
    let again = mq_open(NAME, O_RDWR, 0, None).fd();
    notify(fd, SIGEV_NONE, 0, 0);
    say!("{}", notify(again, SIGEV_NONE, 0, 0));
    say!("a child forgets: {}", in_child(|| forget(fd).errno()));
    in_child(|| {
        close(fd);
        0
    });
    say!("a child closes: {}", notify(again, SIGEV_NONE, 0, 0));
    say!("forget: {}, {}", forget(fd), notify(again, SIGEV_NONE, 0, 0));
    close(again);
    say!("another descriptor is closed: {}", notify(fd, SIGEV_NONE, 0, 0));
    forget(fd);
    in_child(|| {
        say!("a child registers: {}", notify(fd, SIGEV_NONE, 0, 0));
        0
    });
    say!("after its end: {}", notify(fd, SIGEV_NONE, 0, 0));
    mq_unlink(NAME);
}

fn notify_after_exec() {
    let fd = new(2, 8);
    for keep in [false, true] {
        let pid = child(|| {
            signal::ignore(SIGUSR1);
            notify(fd, SIGEV_SIGNAL, SIGKILL, 0);
            if keep {
                sys!(SYS_fcntl, fd, F_SETFD, 0);
            }
            let (path, guise) = (c"/proc/self/exe", c"--as");
            let words = [path.as_ptr(), guise.as_ptr(), c"nothing".as_ptr(), null()];
            sys!(SYS_execve, path, &words, &[0usize; 1]);
            9
        });
        say!("{}, {}", wait(pid), status(fd));
    }
    mq_unlink(NAME);
}

fn permissions() {
    for mode in [0o600, 0o604, 0o602, 0o606] {
        let old = sys!(SYS_umask, 0);
        mq_open(NAME, O_CREAT | O_RDWR, mode, None).fd();
        sys!(SYS_umask, old.0);
        as_plain_user(|| {
            let with = |flags| mq_open(NAME, flags, 0, None).ok_or_error();
            say!("{mode:o}: {} {} {}, unlink {}", with(O_RDONLY), with(O_WRONLY), with(O_RDWR), mq_unlink(NAME));
        });
        mq_unlink(NAME);
    }
    as_plain_user(|| {
        mq_open(NAME, O_CREAT | O_RDWR, 0o400, None).need();
        say!("its own: {}", mq_open(NAME, O_RDWR, 0, None));
    });
    say!("root: {}, unlink {}", mq_open(NAME, O_RDWR, 0, None).ok_or_error(), mq_unlink(NAME));
}

fn limit_of_bytes() {
    as_plain_user(|| {
        let open = |name: &CStr, messages: i64| {
            let attr = Attr { messages, bytes: 100, ..Attr::default() };
            mq_open(name, O_CREAT | O_RDWR, 0o600, Some(&attr))
        };
        // Each message is counted with 96 bytes more.
        sys!(SYS_setrlimit, RLIMIT_MSGQUEUE, &rlimit { rlim_cur: 196 * 5, rlim_max: 196 * 5 });
        say!("6: {}", open(c"limit.0", 6).ok_or_error());
        let first = open(c"limit.1", 3);
        say!(
            "3: {}, 3 more: {}, 2 more: {}",
            first.ok_or_error(),
            open(c"limit.2", 3),
            open(c"limit.3", 2).ok_or_error()
        );
        say!("unlinked: {}, 1 more: {}", mq_unlink(c"limit.1"), open(c"limit.4", 1));
        close(first.fd());
        say!("closed: {}", open(c"limit.4", 1).ok_or_error());
        _ = [c"limit.3", c"limit.4"].map(mq_unlink);
    });
}

fn limit_of_queues() {
    let path = "/proc/sys/fs/mqueue/queues_max";
    let set = |text: &str| std::fs::write(path, text).is_ok();
    say!("{:?}, set: {}", std::fs::read_to_string(path).unwrap_or_default(), set("1"));
    mq_open(NAME, O_CREAT | O_RDWR, 0o600, None).need();
    say!("root: {}", mq_open(c"more.1", O_CREAT | O_RDWR, 0o600, None).ok_or_error());
    as_plain_user(|| say!("another user: {}", mq_open(c"more.2", O_CREAT | O_RDWR, 0o600, None)));
    set("256");
    _ = [NAME, c"more.1"].map(mq_unlink);
}

fn file_system() {
    let place = c"mq";
    file::mkdir(place);
    say!("mount: {}", sys!(SYS_mount, c"none", place, c"mqueue", 0, 0));
    let list = || {
        let mut names: Vec<String> = std::fs::read_dir("mq")
            .map(|all| all.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        names.sort();
        format!("{names:?}")
    };
    let fd = new(2, 8);
    send(fd, "abc", 0);
    say!("{}", list());
    let shown =
        |path: &CStr| file::stat(path).map(|stat| (format!("{:o}", stat.st_mode), stat.st_nlink, stat.st_size)).ok();
    say!("{:?} {:?}", shown(place), shown(c"mq/contract.mq"));
    say!("{}", file::contents(c"mq/contract.mq"));
    let opened = file::open(c"mq/contract.mq", O_RDWR).fd();
    say!("a descriptor of it is the queue: {}", receive(opened));
    say!("made by open: {}", file::open(c"mq/second", O_CREAT | O_RDWR).ok_or_error());
    say!("{}", attr(mq_open(c"second", O_RDWR, 0, None).fd()));
    say!("{}", list());
    say!("directory: {}, link: {}", file::mkdir(c"mq/dir"), file::link(c"mq/second", c"mq/third"));
    say!("rename: {}", file::rename(c"mq/second", c"mq/third", 0));
    say!("symbolic link: {}", file::symlink(c"x", c"mq/link"));
    say!("unlink: {}, {}", file::unlink(c"mq/second"), mq_open(c"second", O_RDWR, 0, None));
    say!("chmod: {}", sys!(SYS_fchmodat, AT_FDCWD, c"mq/contract.mq", 0o444));
    as_plain_user(|| {
        say!(
            "to read: {}, write: {}",
            mq_open(NAME, O_RDONLY, 0, None).ok_or_error(),
            mq_open(NAME, O_WRONLY, 0, None)
        );
    });
    let mut info: statfs = zeroed();
    sys!(SYS_statfs, place, &mut info);
    say!("magic {:#x}, {} {}", info.f_type, info.f_bsize, info.f_namelen);
    mq_unlink(NAME);
    say!("{}", list());
    say!("unmount: {}", sys!(SYS_umount2, place, 0));
}

fn status_file() {
    let fd = new(4, 16);
    say!("{}", status(fd));
    send(fd, "hello", 0);
    send(fd, "you", 3);
    say!("{}", status(fd));
    say!("in pieces: {} {}", file::read(fd, 6), file::read(fd, 5));
    say!("lseek: {}", sys!(SYS_lseek, fd, 0, SEEK_SET));
    say!("its end: {}", sys!(SYS_lseek, fd, 0, SEEK_END));
    say!("write: {}", file::write(fd, "x"));
    let writer = mq_open(NAME, O_WRONLY, 0, None).fd();
    say!("for writing: {}", file::read(writer, 9));
    mq_unlink(NAME);
}

fn descriptor() {
    let fd = new(1, 8);
    say!("close-on-exec: {}", sys!(SYS_fcntl, fd, F_GETFD, 0));
    say!("flags: {:o}", sys!(SYS_fcntl, fd, F_GETFL, 0).0);
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).map(|path| path.display().to_string());
    say!("link: {}", link.unwrap_or_default());
    let mut stat: stat = zeroed();
    sys!(SYS_fstat, fd, &mut stat);
    say!(
        "mode {:o}, links {}, size {}, owner {} {}",
        stat.st_mode,
        stat.st_nlink,
        stat.st_size,
        stat.st_uid,
        stat.st_gid
    );
    say!("dup: {}", send(sys!(SYS_dup, fd).fd(), "x", 0));
    say!("mmap: {}", sys!(SYS_mmap, 0, 4096, PROT_READ, MAP_SHARED, fd, 0));
    mq_unlink(NAME);
    sys!(SYS_fstat, fd, &mut stat);
    say!("unlinked: links {}", stat.st_nlink);
}

fn after_unlink() {
    let fd = new(2, 8);
    mq_unlink(NAME);
    say!("{} {}", send(fd, "a", 0), receive(fd));
    let other = new(2, 8);
    send(fd, "old", 0);
    send(other, "new", 0);
    say!("{} {}", receive(fd), receive(other));
    mq_unlink(NAME);
}

fn of_a_child() {
    let fd = new(2, 8);
    in_child(|| send(fd, "a", 4).errno());
    say!("{}", receive(fd));
    mq_unlink(NAME);
}

fn settings() {
    let path = |name: &str| format!("/proc/sys/fs/mqueue/{name}");
    let read = |name: &str| std::fs::read_to_string(path(name)).unwrap_or_default();
    let write = |name: &str, text: &str| std::fs::write(path(name), text).map_err(|error| error.raw_os_error()).err();
    for name in ["queues_max", "msg_max", "msgsize_max", "msg_default", "msgsize_default"] {
        say!("{name}: {:?}", read(name));
    }
    say!("defaults: {:?} {:?}", write("msg_default", "3"), write("msgsize_default", "200"));
    say!("{}", attr(mq_open(c"default.1", O_CREAT | O_RDWR, 0o600, None).fd()));
    say!("at most: {:?} {:?}", write("msg_max", "2"), write("msgsize_max", "128"));
    say!("{}", attr(mq_open(c"default.2", O_CREAT | O_RDWR, 0o600, None).fd()));
    for (name, text) in [("msg_max", "0"), ("msg_max", "65537"), ("msgsize_max", "127"), ("msgsize_max", "16777217")] {
        say!("{name} {text}: {:?}", write(name, text));
    }
    for (name, text) in [("msg_max", "10"), ("msg_default", "10"), ("msgsize_max", "8192"), ("msgsize_default", "8192")]
    {
        write(name, text);
    }
    _ = [c"default.1", c"default.2"].map(mq_unlink);
    as_plain_user(|| say!("another user: {:?}", write("msg_max", "9")));
}
