//! Names that are there when they are to be made: O_CREAT, and what others have laid (proc(5), /proc/sys/fs/protected_*).

use std::ffi::CStr;
use std::fs;

use libc::*;

use crate::file::{self, create, mkdir, open};
use crate::process::{as_user, child, kill, wait};
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    made_where_nothing_can_be, settings, regular_files, fifos, other_kinds, links_without_protection, replaced_while_read,
}

fn made_where_nothing_can_be() {
    mkdir(c"d");
    mkdir(c"d/e");
    sys!(SYS_symlinkat, c".", AT_FDCWD, c"dot");
    sys!(SYS_symlinkat, c"d/", AT_FDCWD, c"slash");
    file::close(create(c"f", ""));
    for path in
        [c".", c"..", c"/", c"d", c"d/", c"d/.", c"d/e/..", c"//", c"dot", c"dot/", c"slash", c"f/", c"f/.", c"new/"]
    {
        let shown = path.to_str().unwrap_or("");
        let made = open(path, O_CREAT).ok_or_error();
        let exclusive = open(path, O_CREAT | O_EXCL).ok_or_error();
        let writing = open(path, O_CREAT | O_WRONLY).ok_or_error();
        say!("{shown}: O_CREAT {made}, with O_EXCL {exclusive}, with O_WRONLY {writing}");
    }
}

fn setting(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/fs/protected_{name}")).unwrap_or_default().trim().to_string()
}

fn set(name: &str, value: &str) -> Ret {
    let path = file::path(format!("/proc/sys/fs/protected_{name}"));
    let fd = open(&path, O_WRONLY).fd();
    let ret = file::write(fd, value);
    file::close(fd);
    ret
}

/// Runs `body` with a setting, and puts it back.
fn with(name: &str, value: &str, body: impl FnOnce()) {
    let before = setting(name);
    set(name, value);
    body();
    set(name, &before);
}

fn settings() {
    for name in ["fifos", "hardlinks", "regular", "symlinks"] {
        let path = file::path(format!("/proc/sys/fs/protected_{name}"));
        let mode = file::stat(&path).map(|stat| stat.st_mode & 0o777).unwrap_or(0);
        let before = setting(name);
        say!("{name}: {before}, mode {mode:o}");
        for value in ["0", "1", "2", "3", "-1", "x"] {
            let ret = set(name, value);
            say!("{value}: {ret}, now {}", setting(name));
        }
        set(name, &before);
    }
    as_user(1000, || {
        say!("as a user: {}", open(c"/proc/sys/fs/protected_regular", O_RDONLY).ok_or_error());
        0
    });
}

/// Directories whose modes and owners matter, with something of the user 1001 in them.
fn directories(lay: impl Fn(&CStr)) {
    for (name, mode, owner) in [
        (c"all", 0o1777, 0),
        (c"group", 0o1770, 0),
        (c"plain", 0o777, 0),
        (c"theirs", 0o1777, 1001),
        (c"mine", 0o1777, 1000),
    ] {
        mkdir(name);
        sys!(SYS_fchmodat, AT_FDCWD, name, mode);
        sys!(SYS_fchownat, AT_FDCWD, name, owner, 1000, 0);
        let inside = file::path(format!("{}/laid", name.to_str().unwrap_or("")));
        lay(&inside);
        sys!(SYS_fchmodat, AT_FDCWD, &*inside, 0o666);
        sys!(SYS_fchownat, AT_FDCWD, &*inside, 1001, 1001, 0);
    }
    sys!(SYS_fchmodat, AT_FDCWD, c".", 0o777);
}

fn attempts(flags: i32) {
    let try_all = |who: &str| {
        for name in ["all", "group", "plain", "theirs", "mine"] {
            let path = file::path(format!("{name}/laid"));
            let made = open(&path, O_CREAT | flags).ok_or_error();
            let plain = open(&path, flags).ok_or_error();
            say!("{who}, {name}: O_CREAT {made}, without {plain}");
        }
    };
    try_all("root");
    for (id, who) in [(1000, "another"), (1001, "its owner")] {
        as_user(id, || {
            try_all(who);
            0
        });
    }
}

fn regular_files() {
    directories(|path| {
        file::close(create(path, "laid"));
    });
    for level in ["0", "1", "2"] {
        say!("protected_regular {level}");
        with("regular", level, || attempts(O_RDWR));
    }
}

fn fifos() {
    directories(|path| {
        sys!(SYS_mknodat, AT_FDCWD, path, S_IFIFO | 0o666, 0);
    });
    for level in ["0", "1", "2"] {
        say!("protected_fifos {level}");
        with("fifos", level, || attempts(O_RDWR | O_NONBLOCK));
    }
    with("regular", "2", || attempts(O_RDWR | O_NONBLOCK));
}

fn other_kinds() {
    directories(|path| {
        // /dev/null
        sys!(SYS_mknodat, AT_FDCWD, path, S_IFCHR | 0o666, 0x103);
    });
    attempts(O_RDWR);
    with("regular", "2", || attempts(O_RDWR));
}

fn links_without_protection() {
    directories(|path| {
        sys!(SYS_symlinkat, c"../target", AT_FDCWD, path);
    });
    file::close(create(c"target", "x"));
    sys!(SYS_fchmodat, AT_FDCWD, c"target", 0o644);
    for level in ["1", "0"] {
        say!("protected_symlinks {level}");
        with("symlinks", level, || {
            as_user(1000, || {
                for name in [c"all/laid", c"plain/laid", c"mine/laid"] {
                    say!("{}: {}", name.to_str().unwrap_or(""), open(name, O_RDONLY).ok_or_error());
                }
                0
            });
        });
        say!("protected_hardlinks {level}");
        with("hardlinks", level, || {
            as_user(1000, || {
                say!("of another's: {}", file::link(c"target", c"linked"));
                0
            });
        });
        file::unlink(c"linked");
    }
}

/// A name that is replaced again and again is in every listing.
fn replaced_while_read() {
    mkdir(c"/dev/contract");
    let (name, other) = (c"/dev/contract/name", c"/dev/contract/other");
    file::close(create(name, ""));
    let changer = child(|| {
        loop {
            file::close(create(other, ""));
            file::rename(other, name, 0);
        }
    });
    let listed = (0..2000).filter(|_| fs::exists("/dev/contract/name").unwrap_or(false) && is_listed()).count();
    kill(changer, SIGKILL);
    wait(changer);
    say!("listed: {listed}");
    file::unlink(other);
    file::unlink(name);
    file::rmdir(c"/dev/contract");
}

fn is_listed() -> bool {
    fs::read_dir("/dev/contract").is_ok_and(|entries| entries.flatten().any(|entry| entry.file_name() == "name"))
}
