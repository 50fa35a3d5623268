//! inotify: how much there may be of it, and what is told of it.

use libc::*;

use super::inotify::{events, instance, shown, watch};
use crate::file::{close, contents, create, mkdir, open, path, rmdir, unlink, write};
use crate::process;
use crate::sys::sys;
use crate::{say, tests};

tests! {
    overflow, fdinfo, limits, too_many_instances, too_many_watches, limit_of_events, closed_with_watches,
    shared_by_fork,
}

fn overflow() {
    std::fs::write("/proc/sys/fs/inotify/max_queued_events", "4").ok();
    let fd = instance();
    mkdir(c"d");
    watch(fd, c"d", IN_CREATE | IN_DELETE);
    for index in 0..7 {
        mkdir(&path(format!("d/{index}")));
    }
    say!("seven of four: {}", events(fd));
    rmdir(c"d/0");
    say!("then: {}", events(fd));
    for index in 1..6 {
        rmdir(&path(format!("d/{index}")));
    }
    let mut buffer = [0u8; 32];
    let ret = sys!(SYS_read, fd, &mut buffer, 32);
    say!("one is read: {ret} {}", shown(&buffer));
    rmdir(c"d/6");
    mkdir(c"d/7");
    say!("the rest: {}", events(fd));
    std::fs::write("/proc/sys/fs/inotify/max_queued_events", "16384").ok();
}

fn fdinfo() {
    let fd = instance();
    for name in [c"a", c"b"] {
        close(create(name, ""));
    }
    watch(fd, c"a", IN_OPEN | IN_ONESHOT);
    watch(fd, c"b", IN_ALL_EVENTS | IN_EXCL_UNLINK | IN_DONT_FOLLOW);
    let text = contents(&path(format!("/proc/self/fdinfo/{fd}")));
    let text = text.replace("\\n", "\n").replace("\\t", " ");
    for line in text.lines().filter(|line| line.starts_with("inotify")) {
        let words = line.split(' ').filter(|word| !word.starts_with("ino:") && !word.starts_with("sdev:"));
        say!("{}", words.take_while(|word| !word.starts_with("fhandle")).collect::<Vec<_>>().join(" ").trim_end());
        let stat = crate::file::stat(if line.contains("wd:1 ") { c"a" } else { c"b" });
        let ino = stat.map(|stat| format!("ino:{:x}", stat.st_ino)).unwrap_or_default();
        say!("its inode: {}", line.contains(&ino));
    }
}

fn limits() {
    for name in ["max_user_instances", "max_queued_events", "max_user_watches"] {
        let file = format!("/proc/sys/fs/inotify/{name}");
        let old = std::fs::read_to_string(&file).unwrap_or_default();
        let value: i64 = old.trim().parse().unwrap_or(-1);
        say!(
            "{name}: {}",
            if name == "max_user_watches" {
                (8192..=1_048_576).contains(&value).to_string()
            } else {
                value.to_string()
            }
        );
        for new in ["100\n", " 7 ", "x", "-1", ""] {
            let fd = open(&path(file.as_str()), O_WRONLY).fd();
            let ret = write(fd, new);
            close(fd);
            let now = std::fs::read_to_string(&file).unwrap_or_default();
            say!("{new:?}: {} {}", ret.ok_or_error(), if now == old { "as before" } else { now.trim() });
        }
        std::fs::write(&file, &old).ok();
        say!("{}", crate::file::described(crate::file::stat(&path(file.as_str()))));
    }
    process::as_plain_user(|| {
        say!("a user: {}", open(c"/proc/sys/fs/inotify/max_user_watches", O_WRONLY));
    });
}

fn too_many_instances() {
    std::fs::write("/proc/sys/fs/inotify/max_user_instances", "3").ok();
    process::as_plain_user(|| {
        for _ in 0..4 {
            say!("{}", sys!(SYS_inotify_init1, 0).ok_or_error());
        }
        close(3);
        say!("one was closed: {}", sys!(SYS_inotify_init1, 0).ok_or_error());
    });
    process::as_user(1001, || {
        say!("another user: {}", sys!(SYS_inotify_init1, 0).ok_or_error());
        0
    });
    std::fs::write("/proc/sys/fs/inotify/max_user_instances", "128").ok();
}

fn too_many_watches() {
    let file = "/proc/sys/fs/inotify/max_user_watches";
    let old = std::fs::read_to_string(file).unwrap_or_default();
    for name in [c"a", c"b", c"c"] {
        create(name, "");
    }
    std::fs::write(file, "2").ok();
    process::as_plain_user(|| {
        let (one, other) = (instance(), instance());
        say!("{} {}", watch(one, c"a", IN_OPEN), watch(other, c"a", IN_OPEN));
        say!("a third: {} {}", watch(one, c"b", IN_OPEN), watch(other, c"b", IN_OPEN));
        say!("one that is there: {}", watch(one, c"a", IN_CLOSE));
        sys!(SYS_inotify_rm_watch, one, 1);
        say!("one was removed: {}", watch(one, c"b", IN_OPEN));
        close(other);
        process::sleep_ms(50);
        say!("an instance was closed: {}", watch(one, c"c", IN_OPEN));
    });
    std::fs::write(file, old).ok();
}

fn limit_of_events() {
    let (one, file) = (instance(), create(c"f", ""));
    std::fs::write("/proc/sys/fs/inotify/max_queued_events", "1").ok();
    let other = instance();
    for fd in [one, other] {
        watch(fd, c"f", IN_MODIFY | IN_ATTRIB);
    }
    write(file, "x");
    sys!(SYS_fchmod, file, 0o600);
    write(file, "x");
    say!("made before: {}", events(one));
    say!("made after: {}", events(other));
    std::fs::write("/proc/sys/fs/inotify/max_queued_events", "16384").ok();
}

fn closed_with_watches() {
    let fd = instance();
    close(create(c"f", ""));
    watch(fd, c"f", IN_ALL_EVENTS);
    let copy = sys!(SYS_dup, fd).fd();
    close(fd);
    open(c"f", O_RDONLY);
    say!("a copy is open: {}", events(copy));
    close(copy);
    say!("closed: {}", open(c"f", O_RDONLY).ok_or_error());
    say!("removed: {}", unlink(c"f"));
}

fn shared_by_fork() {
    let fd = instance();
    close(create(c"f", ""));
    watch(fd, c"f", IN_OPEN);
    process::in_child(|| {
        say!("a child's watch: {}", watch(fd, c"/", IN_DELETE));
        open(c"f", O_RDONLY);
        0
    });
    say!("events: {}", events(fd));
    say!("the watch is common: {}", sys!(SYS_inotify_rm_watch, fd, 2));
}
