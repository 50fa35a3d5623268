//! Modes, owners, what they allow, and times that are set.

use std::ffi::CStr;

use libc::*;

use crate::file::{
    self, close, contents, create, described, fstat, link, mkdir, open, path, pipe, rmdir, stat, symlink, unlink, write,
};
use crate::process;
use crate::sys::{NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    chmod, chmod_refused, chown, chown_refused, chown_clears, write_clears, umask, setgid_needs_the_group, access,
    access_flags, access_effective, supplementary_groups, times, times_refused, times_rights, times_move, roots_rights,
    search_and_exec, file_system_ids,
}

fn mode(name: &CStr) -> String {
    stat(name).map_or_else(|error| error.to_string(), |stat| format!("{:o}", stat.st_mode))
}

fn chmod_of(name: &CStr, mode: u32) -> Ret {
    sys!(SYS_fchmodat, AT_FDCWD, name, mode)
}

fn chown_of(name: &CStr, uid: i32, gid: i32) -> Ret {
    sys!(SYS_fchownat, AT_FDCWD, name, uid, gid, 0)
}

fn chmod() {
    let fd = create(c"f", "");
    mkdir(c"d");
    symlink(c"f", c"l");
    for bits in [0, 0o777, 0o7777, 0o177777, 0o10644, 0o644] {
        say!("{bits:o}: {} {}", chmod_of(c"f", bits), mode(c"f"));
    }
    say!("a directory: {} {}", chmod_of(c"d", 0o1770), mode(c"d"));
    say!("through a link: {} {} {}", chmod_of(c"l", 0o600), mode(c"f"), mode(c"l"));
    say!("fchmod: {} {}", sys!(SYS_fchmod, fd, 0o4711), mode(c"f"));
    say!("fchmod of a reader: {} {}", sys!(SYS_fchmod, open(c"f", O_RDONLY).fd(), 0o640), mode(c"f"));
    unlink(c"f");
    say!("fchmod of what has no name: {} {}", sys!(SYS_fchmod, fd, 0o611), described(fstat(fd)));
    say!("relative: {} {}", sys!(SYS_fchmodat, open(c"d", O_RDONLY).fd(), c".", 0o700), mode(c"d"));
    let [reader, _] = pipe();
    say!("a pipe: {} {:o}", sys!(SYS_fchmod, reader, 0o666), fstat(reader).map_or(0, |stat| stat.st_mode));
}

fn chmod_refused() {
    close(create(c"f", ""));
    symlink(c"nothing", c"dangling");
    say!("missing: {}", chmod_of(c"missing", 0o644));
    say!("dangling: {}", chmod_of(c"dangling", 0o644));
    say!("empty: {}", chmod_of(c"", 0o644));
    say!("under a file: {}", chmod_of(c"f/x", 0o644));
    say!("file with a slash: {}", chmod_of(c"f/", 0o644));
    say!("no path: {}", sys!(SYS_fchmodat, AT_FDCWD, NOWHERE, 0o644));
    say!("closed: {} {}", sys!(SYS_fchmod, 60, 0o644), sys!(SYS_fchmodat, 60, c"f", 0o644));
    say!("O_PATH: {}", sys!(SYS_fchmod, open(c"f", O_PATH).fd(), 0o644));
    say!("in /proc: {}", chmod_of(c"/proc/self/stat", 0o600));
    process::as_plain_user(|| {
        say!("another's: {}", chmod_of(c"f", 0o777));
        say!("with no change: {}", chmod_of(c"f", 0o644));
        say!("by descriptor: {}", sys!(SYS_fchmod, open(c"f", O_RDONLY).fd(), 0o644));
        close(create(c"own", ""));
        say!("own: {} {}", chmod_of(c"own", 0o4755), mode(c"own"));
    });
}

fn chown() {
    let fd = create(c"f", "");
    symlink(c"f", c"l");
    say!("both: {} {}", chown_of(c"f", 11, 22), described(stat(c"f")));
    say!("the group: {} {}", chown_of(c"f", -1, 33), described(stat(c"f")));
    say!("the owner: {} {}", chown_of(c"f", 44, -1), described(stat(c"f")));
    say!("neither: {} {}", chown_of(c"f", -1, -1), described(stat(c"f")));
    say!("large: {} {}", chown_of(c"f", 0x7fff_fffe, 0x7fff_fffd), described(stat(c"f")));
    say!("a link: {} {}", sys!(SYS_fchownat, AT_FDCWD, c"l", 5, 6, AT_SYMLINK_NOFOLLOW), described(stat(c"l")));
    say!("followed: {} {}", chown_of(c"l", 7, 8), described(stat(c"f")));
    say!("fchown: {} {}", sys!(SYS_fchown, fd, 9, 10), described(stat(c"f")));
    say!("AT_EMPTY_PATH: {} {}", sys!(SYS_fchownat, fd, c"", 1, 2, AT_EMPTY_PATH), described(stat(c"f")));
    let only_path = open(c"f", O_PATH).fd();
    say!("O_PATH: {} {}", sys!(SYS_fchownat, only_path, c"", 3, 4, AT_EMPTY_PATH), described(stat(c"f")));
    let [reader, _] = pipe();
    say!("a pipe: {} {}", sys!(SYS_fchown, reader, 5, 5), described(fstat(reader)));
}

fn chown_refused() {
    close(create(c"f", ""));
    say!("missing: {}", chown_of(c"missing", 1, 1));
    say!("empty: {}", chown_of(c"", 1, 1));
    say!("closed: {} {}", sys!(SYS_fchown, 60, 1, 1), sys!(SYS_fchownat, 60, c"f", 1, 1, 0));
    say!("O_PATH: {}", sys!(SYS_fchown, open(c"f", O_PATH).fd(), 1, 1));
    say!("unknown flag: {}", sys!(SYS_fchownat, AT_FDCWD, c"f", 1, 1, 1));
    say!("AT_SYMLINK_FOLLOW: {}", sys!(SYS_fchownat, AT_FDCWD, c"f", 1, 1, AT_SYMLINK_FOLLOW));
    say!("in /proc: {}", chown_of(c"/proc/self/stat", 1, 1));
    process::as_plain_user(|| {
        close(create(c"own", ""));
        say!("give away: {}", chown_of(c"own", 1001, -1));
        say!("to itself: {}", chown_of(c"own", 1000, 1000));
        say!("to a group it is not in: {}", chown_of(c"own", -1, 1001));
        say!("another's: {}", chown_of(c"f", 1000, -1));
        say!("another's, as it is: {}", chown_of(c"f", 0, 0));
        say!("another's, nothing: {}", chown_of(c"f", -1, -1));
    });
}

fn chown_clears() {
    for bits in [0o4755, 0o2755, 0o6755, 0o2745, 0o6644, 0o1755] {
        close(create(c"f", ""));
        chown_of(c"f", 1, 1);
        chmod_of(c"f", bits);
        say!("{bits:o}, as root: {} {}", chown_of(c"f", 2, 2), mode(c"f"));
        chmod_of(c"f", bits);
        say!("{bits:o}, nothing: {} {}", chown_of(c"f", -1, -1), mode(c"f"));
        unlink(c"f");
    }
    mkdir(c"d");
    chmod_of(c"d", 0o6755);
    say!("a directory: {} {}", chown_of(c"d", 2, 2), mode(c"d"));
    process::as_plain_user(|| {
        close(create(c"own", ""));
        chmod_of(c"own", 0o6777);
        say!("own to itself: {} {}", chown_of(c"own", 1000, 1000), mode(c"own"));
        mkdir(c"dir");
        chmod_of(c"dir", 0o6777);
        say!("own directory: {} {}", chown_of(c"dir", 1000, 1000), mode(c"dir"));
    });
}

fn write_clears() {
    process::as_plain_user(|| {
        let fd = create(c"f", "0123456789");
        for bits in [0o4777, 0o2777, 0o6777, 0o2767, 0o4644, 0o1777] {
            chmod_of(c"f", bits);
            write(fd, "");
            let empty = mode(c"f");
            write(fd, "x");
            say!("{bits:o}: write of nothing {empty}, write {}", mode(c"f"));
        }
        for bits in [0o6777, 0o2767] {
            chmod_of(c"f", bits);
            sys!(SYS_ftruncate, fd, 5);
            say!("{bits:o}: ftruncate {}", mode(c"f"));
            chmod_of(c"f", bits);
            sys!(SYS_truncate, c"f", 4);
            say!("{bits:o}: truncate {}", mode(c"f"));
            chmod_of(c"f", bits);
            close(open(c"f", O_WRONLY | O_TRUNC).fd());
            say!("{bits:o}: O_TRUNC {}", mode(c"f"));
            chmod_of(c"f", bits);
            sys!(SYS_pwrite64, fd, "0123456789", 10, 0);
            chmod_of(c"f", bits);
            let punched = sys!(SYS_fallocate, fd, 3, 0, 4096);
            say!("{bits:o}: fallocate {punched} {}", mode(c"f"));
            chmod_of(c"f", bits);
            sys!(SYS_fallocate, fd, 0, 0, 4096);
            say!("{bits:o}: open for writing {}", { open(c"f", O_RDWR).ok_or_error() });
        }
    });
    let fd = create(c"r", "");
    chmod_of(c"r", 0o6777);
    write(fd, "x");
    say!("root's write: {}", mode(c"r"));
    sys!(SYS_ftruncate, fd, 0);
    say!("root's ftruncate: {}", mode(c"r"));
    process::as_plain_user(|| {
        let fd = sys!(SYS_openat, AT_FDCWD, c"/tmp/contract.clear", O_CREAT | O_RDWR, 0o600).fd();
        chmod_of(c"/tmp/contract.clear", 0o6777);
        write(fd, "x");
        say!("in tmpfs: {}", mode(c"/tmp/contract.clear"));
        chmod_of(c"/tmp/contract.clear", 0o6777);
        sys!(SYS_ftruncate, fd, 0);
        say!("ftruncate in tmpfs: {}", mode(c"/tmp/contract.clear"));
        unlink(c"/tmp/contract.clear");
    });
}

fn umask() {
    say!("at first: {:o}", sys!(SYS_umask, 0).0);
    say!("extra bits are dropped: {:o} {:o}", sys!(SYS_umask, 0o177777).0, sys!(SYS_umask, 0o27).0);
    close(sys!(SYS_openat, AT_FDCWD, c"f", O_CREAT, 0o7777).fd());
    say!("open: {}", mode(c"f"));
    sys!(SYS_mkdirat, AT_FDCWD, c"d", 0o7777);
    say!("mkdir: {}", mode(c"d"));
    sys!(SYS_mknodat, AT_FDCWD, c"p", S_IFIFO | 0o7777, 0);
    say!("mknod: {}", mode(c"p"));
    process::in_child(|| {
        say!("a child's: {:o}", sys!(SYS_umask, 0o7).0);
        0
    });
    say!("the parent's: {:o}", sys!(SYS_umask, 0o22).0);
    sys!(SYS_umask, 0o777);
    say!("nothing left, but open: {}", open(c"none", O_CREAT | O_RDWR).ok_or_error());
    say!("it: {}", mode(c"none"));
    say!("chmod does not care: {} {}", chmod_of(c"none", 0o644), mode(c"none"));
}

fn setgid_needs_the_group() {
    mkdir(c"shared");
    chown_of(c"shared", 0, 50);
    chmod_of(c"shared", 0o2777);
    process::as_plain_user(|| {
        close(create(c"own", ""));
        say!("own group: {} {}", chmod_of(c"own", 0o2755), mode(c"own"));
        close(create(c"shared/f", ""));
        say!("a file of another group: {}", described(stat(c"shared/f")));
        say!("setgid of it: {} {}", chmod_of(c"shared/f", 0o2755), mode(c"shared/f"));
        mkdir(c"shared/d");
        say!("a directory of it: {}", described(stat(c"shared/d")));
        say!("setgid of it: {} {}", chmod_of(c"shared/d", 0o2700), mode(c"shared/d"));
        say!("chgrp to own: {} {}", chown_of(c"shared/f", -1, 1000), described(stat(c"shared/f")));
    });
    process::in_child(|| {
        let groups = [50u32];
        sys!(SYS_setgroups, 1, &groups);
        sys!(SYS_setresgid, 1000, 1000, 1000);
        sys!(SYS_setresuid, 1000, 1000, 1000);
        close(create(c"shared/g", ""));
        say!("one who is in the group: {} {}", chmod_of(c"shared/g", 0o2755), mode(c"shared/g"));
        say!("chgrp to a group it is in: {} {}", chown_of(c"own", -1, 50), described(stat(c"own")));
        0
    });
}

fn access_of(name: &CStr) -> String {
    let call = |mode: i32| sys!(SYS_faccessat, AT_FDCWD, name, mode);
    format!("F {} R {} W {} X {}", call(F_OK), call(R_OK), call(W_OK), call(X_OK))
}

fn access() {
    for (name, bits) in [(c"none", 0), (c"read", 0o444), (c"write", 0o222), (c"exec", 0o111), (c"one", 0o100)] {
        close(create(name, ""));
        chmod_of(name, bits);
    }
    mkdir(c"d");
    chmod_of(c"d", 0);
    symlink(c"nothing", c"dangling");
    for name in [c"none", c"read", c"exec", c"one", c"d", c"missing", c"dangling", c"read/x", c"", c"/proc"] {
        say!("root, {}: {}", name.to_string_lossy(), access_of(name));
    }
    process::as_plain_user(|| {
        for name in [c"none", c"read", c"write", c"exec", c"one", c"d", c"d/x", c"missing"] {
            say!("user, {}: {}", name.to_string_lossy(), access_of(name));
        }
    });
    say!("all: {}", sys!(SYS_faccessat, AT_FDCWD, c"exec", R_OK | W_OK | X_OK));
    say!("unknown mode: {}", sys!(SYS_faccessat, AT_FDCWD, c"exec", 8));
    say!("minus one: {}", sys!(SYS_faccessat, AT_FDCWD, c"missing", -1));
    say!("no path: {}", sys!(SYS_faccessat, AT_FDCWD, NOWHERE, F_OK));
    say!("closed: {} {}", sys!(SYS_faccessat, 60, c"exec", F_OK), sys!(SYS_faccessat, 60, c"/dev/null", F_OK));
}

fn access_flags() {
    close(create(c"f", ""));
    symlink(c"nothing", c"dangling");
    let call = |fd: i32, name: &CStr, mode: i32, flags: i32| sys!(SYS_faccessat2, fd, name, mode, flags);
    say!("no flags: {}", call(AT_FDCWD, c"f", R_OK, 0));
    say!("dangling: {}", call(AT_FDCWD, c"dangling", F_OK, 0));
    say!("not followed: {}", call(AT_FDCWD, c"dangling", F_OK, AT_SYMLINK_NOFOLLOW));
    say!("not followed, to be written: {}", call(AT_FDCWD, c"dangling", W_OK, AT_SYMLINK_NOFOLLOW));
    let fd = open(c"f", O_PATH).fd();
    say!("by descriptor: {}", call(fd, c"", R_OK, AT_EMPTY_PATH));
    say!("without the flag: {}", call(fd, c"", R_OK, 0));
    say!("not executable: {}", call(fd, c"", X_OK, AT_EMPTY_PATH));
    say!("current directory: {}", call(AT_FDCWD, c"", X_OK, AT_EMPTY_PATH));
    say!("unknown flag: {}", call(AT_FDCWD, c"f", R_OK, 1));
    say!("AT_SYMLINK_FOLLOW: {}", call(AT_FDCWD, c"f", R_OK, AT_SYMLINK_FOLLOW));
    say!("bad mode before a bad path: {}", call(AT_FDCWD, c"missing", 16, 0));
    say!("all known flags: {}", call(fd, c"", F_OK, AT_EMPTY_PATH | AT_EACCESS | AT_SYMLINK_NOFOLLOW));
}

fn access_effective() {
    close(create(c"roots", ""));
    chmod_of(c"roots", 0o600);
    close(create(c"users", ""));
    chown_of(c"users", 1000, 1000);
    chmod_of(c"users", 0o600);
    let both = |name: &CStr| {
        let real = sys!(SYS_faccessat2, AT_FDCWD, name, R_OK, 0);
        let effective = sys!(SYS_faccessat2, AT_FDCWD, name, R_OK, AT_EACCESS);
        format!("real {real}, effective {effective}")
    };
    process::in_child(|| {
        sys!(SYS_setresuid, 1000, 0, 0);
        say!("real user, effective root: root's file: {}", both(c"roots"));
        say!("the user's: {}", both(c"users"));
        say!("the rights of root are back: {}", open(c"roots", O_RDONLY).ok_or_error());
        0
    });
    process::in_child(|| {
        sys!(SYS_setresuid, 0, 1000, 0);
        say!("real root, effective user: root's file: {}", both(c"roots"));
        say!("the user's: {}", both(c"users"));
        0
    });
    process::in_child(|| {
        sys!(SYS_setresgid, 1000, 0, 0);
        sys!(SYS_setresuid, 2000, 2000, 2000);
        close(create(c"x", ""));
        chmod_of(c"x", 0o060);
        say!("another real group: {}", both(c"x"));
        0
    });
}

fn supplementary_groups() {
    close(create(c"f", "group"));
    chown_of(c"f", 0, 50);
    chmod_of(c"f", 0o640);
    close(create(c"g", "others"));
    chown_of(c"g", 0, 50);
    chmod_of(c"g", 0o604);
    let show = |who: &str| say!("{who}: {} {}", contents(c"f"), contents(c"g"));
    process::as_plain_user(|| show("in no group"));
    process::in_child(|| {
        let groups = [49u32, 50, 51];
        say!("setgroups: {}", sys!(SYS_setgroups, 3, &groups));
        process::in_child(|| {
            sys!(SYS_setresgid, 1000, 1000, 1000);
            sys!(SYS_setresuid, 1000, 1000, 1000);
            show("in the group");
            let mut list = [0u32; 8];
            say!("getgroups: {} {:?}", sys!(SYS_getgroups, 8, &mut list), &list[..3]);
            say!("too short: {}", sys!(SYS_getgroups, 2, &mut list));
            say!("how many: {}", sys!(SYS_getgroups, 0, 0));
            say!("setgroups: {}", sys!(SYS_setgroups, 0, 0));
            0
        });
        0
    });
    process::in_child(|| {
        sys!(SYS_setgroups, 0, 0);
        sys!(SYS_setresgid, 1000, 50, 1000);
        sys!(SYS_setresuid, 1000, 1000, 1000);
        show("effective group");
        0
    });
}

fn utimens(name: &CStr, times: [(i64, i64); 2], flags: i32) -> Ret {
    let times = times.map(|(tv_sec, tv_nsec)| timespec { tv_sec, tv_nsec });
    sys!(SYS_utimensat, AT_FDCWD, name, &times, flags)
}

fn shown_times(name: &CStr) -> String {
    stat(name).map_or_else(
        |error| error.to_string(),
        |stat| format!("{}.{:09} {}.{:09}", stat.st_atime, stat.st_atime_nsec, stat.st_mtime, stat.st_mtime_nsec),
    )
}

fn times() {
    let fd = create(c"f", "");
    symlink(c"f", c"l");
    say!("set: {} {}", utimens(c"f", [(1, 2), (3, 4)], 0), shown_times(c"f"));
    say!("nanoseconds: {} {}", utimens(c"f", [(10, 999_999_999), (11, 123_456_789)], 0), {
        let shown = shown_times(c"f");
        shown.split(' ').map(|time| time.split('.').next().unwrap_or_default()).collect::<Vec<_>>().join(" ")
    });
    say!("omit the first: {}", utimens(c"f", [(77, UTIME_OMIT), (5, 0)], 0));
    say!("omit the second: {}", utimens(c"f", [(6, 0), (77, UTIME_OMIT)], 0));
    say!("now: {}", shown_times(c"f"));
    say!("omit both: {} {}", utimens(c"f", [(0, UTIME_OMIT), (0, UTIME_OMIT)], 0), shown_times(c"f"));
    say!("omit both of what is not there: {}", utimens(c"missing", [(0, UTIME_OMIT), (0, UTIME_OMIT)], 0));
    say!("through a link: {} {}", utimens(c"l", [(8, 0), (9, 0)], 0), shown_times(c"f"));
    say!("of a link: {} {}", utimens(c"l", [(1, 0), (2, 0)], AT_SYMLINK_NOFOLLOW), shown_times(c"l"));
    say!("UTIME_NOW: {}", utimens(c"f", [(77, UTIME_NOW), (77, UTIME_NOW)], 0));
    let after = stat(c"f").map_or(0, |stat| stat.st_mtime);
    say!("is not what was there: {}", after != 77 && after != 9);
    let two = [timespec { tv_sec: 20, tv_nsec: 0 }, timespec { tv_sec: 21, tv_nsec: 0 }];
    say!("no path: {} {}", sys!(SYS_utimensat, fd, 0, &two, 0), shown_times(c"f"));
    say!("no times: {}", sys!(SYS_utimensat, fd, 0, 0, 0));
    say!("then both are the same: {}", stat(c"f").is_ok_and(|stat| stat.st_atime == stat.st_mtime));
    mkdir(c"d");
    say!("a directory: {} {}", utimens(c"d", [(1, 0), (2, 0)], 0), shown_times(c"d"));
    say!("before 1970: {} {}", utimens(c"d", [(-5, 0), (-6, 0)], 0), shown_times(c"d"));
    close(create(c"/tmp/contract.times", ""));
    say!("in tmpfs: {} {}", utimens(c"/tmp/contract.times", [(-5, 1), (1 << 33, 999_999_999)], 0), {
        shown_times(c"/tmp/contract.times")
    });
    unlink(c"/tmp/contract.times");
}

fn times_refused() {
    let fd = create(c"f", "");
    let fine = [(1, 0), (2, 0)];
    say!("missing: {}", utimens(c"missing", fine, 0));
    say!("empty: {}", utimens(c"", fine, 0));
    say!("a billion nanoseconds: {}", utimens(c"f", [(1, 1_000_000_000), (2, 0)], 0));
    say!("minus one: {}", utimens(c"f", [(1, 0), (2, -1)], 0));
    say!("unknown flag: {}", utimens(c"f", fine, 1));
    say!("AT_EMPTY_PATH without a path: {}", utimens(c"", fine, AT_EMPTY_PATH));
    let times = [timespec { tv_sec: 1, tv_nsec: 0 }; 2];
    say!("AT_EMPTY_PATH: {}", sys!(SYS_utimensat, fd, c"", &times, AT_EMPTY_PATH));
    say!("no path with flags: {}", sys!(SYS_utimensat, fd, 0, &times, AT_SYMLINK_NOFOLLOW));
    say!("no path of AT_FDCWD: {}", sys!(SYS_utimensat, AT_FDCWD, 0, &times, 0));
    say!("closed: {}", sys!(SYS_utimensat, 60, 0, &times, 0));
    say!("bad times: {}", sys!(SYS_utimensat, AT_FDCWD, c"f", NOWHERE, 0));
    say!("bad path: {}", sys!(SYS_utimensat, AT_FDCWD, NOWHERE, &times, 0));
    say!("O_PATH: {}", sys!(SYS_utimensat, open(c"f", O_PATH).fd(), 0, &times, 0));
    say!("bad times of what is not there: {}", utimens(c"missing", [(1, -5), (2, 0)], 0));
    let [reader, _] = pipe();
    say!("a pipe: {}", sys!(SYS_utimensat, reader, 0, &times, 0));
}

fn times_rights() {
    close(create(c"roots", ""));
    close(create(c"open", ""));
    chmod_of(c"open", 0o666);
    process::as_plain_user(|| {
        close(create(c"own", ""));
        chmod_of(c"own", 0o444);
        let (fine, now) = ([(1, 0), (2, 0)], [(0, UTIME_NOW), (0, UTIME_NOW)]);
        for (what, name) in [("not to be written", c"roots"), ("to be written", c"open"), ("own", c"own")] {
            say!("{what}: set {}", utimens(name, fine, 0));
            say!("{what}: now {}", utimens(name, now, 0));
            say!("{what}: no times {}", sys!(SYS_utimensat, AT_FDCWD, name, 0, 0));
            say!("{what}: one now, one omitted {}", utimens(name, [(0, UTIME_NOW), (0, UTIME_OMIT)], 0));
            say!("{what}: both omitted {}", utimens(name, [(0, UTIME_OMIT), (0, UTIME_OMIT)], 0));
        }
    });
}

fn times_move() {
    let fd = create(c"f", "contents");
    let set = || utimens(c"f", [(1, 0), (2, 0)], 0);
    let show = |what: &str| {
        let moved = stat(c"f").map_or((false, false), |stat| (stat.st_atime != 1, stat.st_mtime != 2));
        say!("{what}: accessed {}, modified {}", moved.0, moved.1);
        set();
    };
    set();
    file::read_at(fd, 4, 0);
    show("read");
    file::read_at(fd, 4, 100);
    show("read at the end");
    sys!(SYS_pread64, fd, &mut [0u8; 1], 0, 0);
    show("read of nothing");
    write(fd, "x");
    show("write");
    write(fd, "");
    show("write of nothing");
    sys!(SYS_ftruncate, fd, 8);
    show("ftruncate to the same size");
    sys!(SYS_truncate, c"f", 8);
    show("truncate to the same size");
    close(open(c"f", O_RDONLY).fd());
    show("open and close");
    chmod_of(c"f", 0o600);
    show("chmod");
    link(c"f", c"g");
    show("link");
    let map = crate::memory::map(4096, PROT_READ, MAP_SHARED, fd, 0).need() as *const u8;
    crate::memory::peek(map);
    show("mapped and read");
    let quiet = open(c"f", O_RDONLY | O_NOATIME).fd();
    file::read(quiet, 4);
    show("read with O_NOATIME");
    close(open(c"f", O_WRONLY | O_TRUNC).fd());
    show("O_TRUNC");
    close(open(c"f", O_WRONLY | O_TRUNC).fd());
    show("O_TRUNC of an empty file");
}

fn roots_rights() {
    close(create(c"none", "secret"));
    chmod_of(c"none", 0);
    say!("read: {}", contents(c"none"));
    say!("write: {}", open(c"none", O_WRONLY).ok_or_error());
    mkdir(c"d");
    chmod_of(c"d", 0);
    say!("create in a directory of mode 0: {}", open(c"d/f", O_CREAT | O_WRONLY).ok_or_error());
    say!("list: {}", open(c"d", O_RDONLY).ok_or_error());
    say!("remove: {} {}", unlink(c"d/f"), rmdir(c"d"));
    let argv = [c"none".as_ptr(), std::ptr::null()];
    say!("execute: {}", sys!(SYS_execve, c"none", &argv, 0));
    chmod_of(c"none", 0o010);
    say!("execute what has one bit: {}", sys!(SYS_faccessat, AT_FDCWD, c"none", X_OK));
    process::in_child(|| {
        sys!(SYS_setfsuid, 1000);
        say!("with another file system user: {}", contents(c"none"));
        0
    });
}

fn search_and_exec() {
    for (name, bits) in [(c"a", 0o711), (c"a/b", 0o700), (c"a/c", 0o755), (c"a/d", 0o644)] {
        mkdir(name);
        chmod_of(name, bits);
    }
    for name in ["a/f", "a/b/f", "a/c/f", "a/d/f"] {
        close(create(&path(name), name));
    }
    process::as_plain_user(|| {
        for name in [c"a/f", c"a/b/f", c"a/c/f", c"a/d/f", c"a/b/missing", c"a/d/missing", c"a/c/missing", c"a/b/../f"]
        {
            say!("{}: {}", name.to_string_lossy(), contents(name));
        }
        let argv = [c"x".as_ptr(), std::ptr::null()];
        say!("execute a directory: {}", sys!(SYS_execve, c"a/c", &argv, 0));
        say!("execute a file without the right: {}", sys!(SYS_execve, c"a/c/f", &argv, 0));
        say!("execute what is hidden: {}", sys!(SYS_execve, c"a/b/f", &argv, 0));
        say!("execute what is missing: {}", sys!(SYS_execve, c"a/c/missing", &argv, 0));
    });
}

fn file_system_ids() {
    close(create(c"roots", ""));
    chmod_of(c"roots", 0o600);
    say!("setfsuid returns the old one: {} {}", sys!(SYS_setfsuid, 1000), sys!(SYS_setfsuid, -1));
    say!("setfsgid: {} {}", sys!(SYS_setfsgid, 1000), sys!(SYS_setfsgid, -1));
    say!("root's file: {}", open(c"roots", O_RDONLY));
    close(create(c"new", ""));
    say!("a new file: {}", described(stat(c"new")));
    say!("the effective user is as before: {}", sys!(SYS_geteuid));
    say!("back: {}", sys!(SYS_setfsuid, 0));
    say!("root's file: {}", open(c"roots", O_RDONLY).ok_or_error());
    process::as_plain_user(|| {
        say!("a user to another: {} {}", sys!(SYS_setfsuid, 5), sys!(SYS_setfsuid, -1));
        say!("a user to its own: {} {}", sys!(SYS_setfsuid, 1000), sys!(SYS_setfsuid, -1));
    });
}
