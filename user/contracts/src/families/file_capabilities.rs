//! Capabilities of programs, capabilities(7): the attribute security.capability, what execve(2) makes of it, and what
//! takes it away.

use std::ffi::CStr;

use libc::*;

use super::exec::{SELF, copy_of_self, ended, refused, run_as};
use crate::file::{close, create, described, link, mkdir, open, pipe, rename, stat, write};
use crate::memory::poke;
use crate::process::{Status, as_user, clone_here, in_child, wait};
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    values, bad_values, who_may_set, given, effective_only, inheritable, bounding_set, no_new_privileges, no_set_id_mounts, with_set_id,
    root_runs_it, ambient_ends, of_another_root, empty_value, taken_away, kept, taken_by_chown, by_descriptor, shared_directories,
    personality_ends,
}

const NAME: &CStr = c"security.capability";
const REVISION_1: u32 = 0x0100_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
const NET_RAW: u32 = 1 << 13;

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn set(path: &CStr, words: &[u32]) -> Ret {
    let value = bytes(words);
    sys!(SYS_setxattr, path, NAME, &value[..], value.len(), 0)
}

fn get(path: &CStr) -> String {
    let mut buffer = [0u8; 64];
    let answer = sys!(SYS_getxattr, path, NAME, &mut buffer[..], buffer.len());
    if !answer.ok() {
        return answer.to_string();
    }
    let value = &buffer[..answer.0 as usize];
    let words: Vec<String> =
        value.chunks(4).map(|word| word.iter().rev().map(|byte| format!("{byte:02x}")).collect()).collect();
    words.join(" ")
}

/// A copy of this program that may have these capabilities.
fn program(path: &CStr, words: &[u32]) {
    copy_of_self(path, (0, 0), 0o755);
    say!("set: {}", set(path, words));
}

fn by_user(path: &CStr) {
    as_user(1000, || ended(run_as(path, c"ids", &[])));
}

fn values() {
    close(create(c"f", "content"));
    say!("none: {} {}", get(c"f"), sys!(SYS_removexattr, c"f", NAME));
    say!("revision 2: {} {}", set(c"f", &[REVISION_2, 1, 2, 3, 4]), get(c"f"));
    say!("effective: {} {}", set(c"f", &[REVISION_2 | 1, 1, 2, 3, 4]), get(c"f"));
    say!("unknown capabilities: {} {}", set(c"f", &[REVISION_2, u32::MAX, 0, u32::MAX, 0]), get(c"f"));
    say!("revision 3, root: {} {}", set(c"f", &[REVISION_3 | 1, 1, 2, 3, 4, 0]), get(c"f"));
    say!("revision 3, a user: {} {}", set(c"f", &[REVISION_3 | 1, 1, 2, 3, 4, 1000]), get(c"f"));
    say!("its length: {}", sys!(SYS_getxattr, c"f", NAME, 0, 0));
    let mut small = [0u8; 4];
    say!("too small: {}", sys!(SYS_getxattr, c"f", NAME, &mut small[..], 4));
    let mut names = [0u8; 64];
    say!("listed: {}", sys!(SYS_listxattr, c"f", &mut names[..], 64));
    say!("removed: {} {}", sys!(SYS_removexattr, c"f", NAME), get(c"f"));
    mkdir(c"d");
    say!("a directory: {} {}", set(c"d", &[REVISION_2, 1, 2, 3, 4]), get(c"d"));
}

fn bad_values() {
    close(create(c"f", "content"));
    let bad: [(&str, &[u32]); 7] = [
        ("revision 0", &[0, 0, 0, 0, 0]),
        ("revision 1", &[REVISION_1, 0, 0]),
        ("revision 4", &[0x0400_0000, 0, 0, 0, 0]),
        ("short", &[REVISION_2, 0, 0]),
        ("long", &[REVISION_2, 0, 0, 0, 0, 0]),
        ("without root", &[REVISION_3, 0, 0, 0, 0]),
        ("an unknown flag", &[REVISION_2 | 2, 0, 0, 0, 0]),
    ];
    for (what, words) in bad {
        say!("{what}: {} {}", set(c"f", words), get(c"f"));
    }
    say!("root is nobody: {}", set(c"f", &[REVISION_3, 0, 0, 0, 0, u32::MAX]));
    say!("three bytes: {}", sys!(SYS_setxattr, c"f", NAME, b"\0\0\x02".as_slice(), 3, 0));
}

fn who_may_set() {
    close(create(c"f", "content"));
    sys!(SYS_fchownat, AT_FDCWD, c"f", 1000, 1000, 0);
    as_user(1000, || {
        say!("the owner: {}", set(c"f", &[REVISION_2, NET_RAW, 0, 0, 0]));
        say!("nonsense: {}", set(c"f", &[1]));
        0
    });
    in_child(|| {
        let header = [0x2008_0522u32, 0];
        say!("capset: {}", sys!(SYS_capset, &header, &[!(1 << 31), !(1 << 31), 0, 0x1ff, 0x1ff, 0u32]));
        say!("without CAP_SETFCAP: {}", set(c"f", &[REVISION_2, NET_RAW, 0, 0, 0]));
        0
    });
    say!("set: {}", set(c"f", &[REVISION_2, NET_RAW, 0, 0, 0]));
    as_user(2000, || {
        say!("everybody may look: {}", get(c"f"));
        0
    });
}

fn given() {
    program(c"p", &[REVISION_2 | 1, NET_RAW, 0, 0, 0]);
    by_user(c"./p");
    say!("not effective:");
    program(c"q", &[REVISION_2, NET_RAW | 1, 0, 1 << 7, 0]);
    by_user(c"./q");
}

fn effective_only() {
    program(c"p", &[REVISION_2 | 1, 0, 0, 0, 0]);
    by_user(c"./p");
}

fn inheritable() {
    program(c"p", &[REVISION_2 | 1, 0, NET_RAW | 1, 0, 0]);
    let header = [0x2008_0522u32, 0];
    in_child(|| {
        sys!(SYS_prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0);
        sys!(SYS_setresuid, 1000, 1000, 1000);
        let all = u32::MAX;
        say!("capset: {}", sys!(SYS_capset, &header, &[0, all, NET_RAW | 2, 0, 0x1ff, 0u32]));
        ended(run_as(c"./p", c"ids", &[]))
    });
}

fn bounding_set() {
    program(c"p", &[REVISION_2 | 1, NET_RAW, 0, 0, 0]);
    program(c"q", &[REVISION_2, NET_RAW, 0, 0, 0]);
    in_child(|| {
        say!("drop: {}", sys!(SYS_prctl, PR_CAPBSET_DROP, 13, 0, 0, 0));
        as_user(1000, || {
            say!("effective: {}", refused(c"./p"));
            ended(run_as(c"./q", c"ids", &[]))
        });
        say!("root: {}", refused(c"./p"));
        0
    });
}

fn no_new_privileges() {
    program(c"p", &[REVISION_2 | 1, NET_RAW, 0, 0, 0]);
    as_user(1000, || {
        sys!(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        ended(run_as(c"./p", c"ids", &[]))
    });
}

fn no_set_id_mounts() {
    mkdir(c"m");
    say!("MS_NOSUID: {}", sys!(SYS_mount, c"tmpfs", c"m", c"tmpfs", MS_NOSUID, 0));
    program(c"m/p", &[REVISION_2 | 1, NET_RAW, 0, 0, 0]);
    by_user(c"m/p");
    say!("without: {}", sys!(SYS_mount, c"tmpfs", c"m", c"tmpfs", MS_REMOUNT, 0));
    by_user(c"m/p");
    say!("umount: {}", sys!(SYS_umount2, c"m", 0));
}

fn with_set_id() {
    copy_of_self(c"p", (0, 0), 0o4755);
    say!("set: {}", set(c"p", &[REVISION_2 | 1, NET_RAW, 0, 0, 0]));
    by_user(c"./p");
    copy_of_self(c"q", (2000, 0), 0o4755);
    say!("set: {}", set(c"q", &[REVISION_2 | 1, NET_RAW, 0, 0, 0]));
    by_user(c"./q");
}

fn root_runs_it() {
    program(c"p", &[REVISION_2 | 1, NET_RAW, 0, 0, 0]);
    run_as(c"./p", c"ids", &[]);
    say!("SECBIT_NOROOT:");
    in_child(|| {
        sys!(SYS_prctl, PR_SET_SECUREBITS, 1, 0, 0, 0);
        ended(run_as(c"./p", c"ids", &[]))
    });
    say!("the real user is root:");
    in_child(|| {
        sys!(SYS_setresuid, 0, 1000, 1000);
        ended(run_as(c"./p", c"ids", &[]))
    });
}

fn ambient_ends() {
    program(c"p", &[REVISION_2, NET_RAW, 0, 0, 0]);
    let header = [0x2008_0522u32, 0];
    in_child(|| {
        sys!(SYS_capset, &header, &[u32::MAX, u32::MAX, 1 << 10, 0x1ff, 0x1ff, 0u32]);
        sys!(SYS_prctl, PR_SET_SECUREBITS, 1 << 4, 0, 0, 0);
        sys!(SYS_setresuid, 1000, 1000, 1000);
        say!("raise: {}", sys!(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 10, 0, 0));
        ended(run_as(c"./p", c"ids", &[]))
    });
}

fn of_another_root() {
    program(c"p", &[REVISION_3 | 1, NET_RAW, 0, 0, 0, 1000]);
    by_user(c"./p");
    program(c"q", &[REVISION_3 | 1, NET_RAW, 0, 0, 0, 0]);
    by_user(c"./q");
}

fn empty_value() {
    copy_of_self(c"p", (0, 0), 0o755);
    say!("set: {} {}", sys!(SYS_setxattr, c"p", NAME, b"".as_slice(), 0, 0), get(c"p"));
    say!("run: {}", refused(c"./p"));
    as_user(1000, || {
        say!("by a user: {}", refused(c"./p"));
        0
    });
    say!("removed: {}", sys!(SYS_removexattr, c"p", NAME));
    say!("run: {}", run_as(c"./p", c"ids", &[]));
}

fn marked() {
    sys!(SYS_unlinkat, AT_FDCWD, c"f", 0);
    close(create(c"f", "some content"));
    set(c"f", &[REVISION_2, NET_RAW, 0, 0, 0]).need();
}

fn with<T>(flags: i32, body: impl FnOnce(i32) -> T) -> String {
    marked();
    let fd = open(c"f", flags).fd();
    body(fd);
    close(fd);
    get(c"f")
}

fn taken_away() {
    say!("write: {}", with(O_WRONLY, |fd| write(fd, "x")));
    say!("append: {}", with(O_WRONLY | O_APPEND, |fd| write(fd, "x")));
    say!(
        "pwritev: {}",
        with(O_WRONLY, |fd| {
            let vector = [c"abc".as_ptr() as usize, 3];
            sys!(SYS_pwritev, fd, &vector, 1, 2, 0);
        })
    );
    say!("O_TRUNC: {}", with(O_WRONLY | O_TRUNC, |_| ()));
    say!("ftruncate: {}", with(O_WRONLY, |fd| sys!(SYS_ftruncate, fd, 3)));
    say!("truncate: {}", with(O_RDONLY, |_| sys!(SYS_truncate, c"f", 100)));
    close(create(c"other", "other content"));
    say!(
        "sendfile: {}",
        with(O_WRONLY, |fd| {
            let from = open(c"other", O_RDONLY).fd();
            sys!(SYS_sendfile, fd, from, 0, 5);
            close(from);
        })
    );
    say!(
        "copy_file_range: {}",
        with(O_WRONLY, |fd| {
            let from = open(c"other", O_RDONLY).fd();
            sys!(SYS_copy_file_range, from, 0, fd, 0, 5, 0);
            close(from);
        })
    );
    say!(
        "splice: {}",
        with(O_WRONLY, |fd| {
            let ends = pipe();
            write(ends[1], "spliced");
            sys!(SYS_splice, ends[0], 0, fd, 0, 7, 0);
            ends.into_iter().for_each(|end| {
                close(end);
            });
        })
    );
    say!("fallocate: {}", with(O_WRONLY, |fd| sys!(SYS_fallocate, fd, 3, 0, 4)));
    say!(
        "write again: {}",
        with(O_RDWR, |fd| {
            write(fd, "x");
            set(c"f", &[REVISION_2, 1, 0, 0, 0]).need();
            write(fd, "y");
        })
    );
    in_child(|| {
        marked();
        let fd = open(c"f", O_WRONLY).fd();
        sys!(SYS_fchmod, fd, 0o666);
        crate::process::become_user(1000);
        say!("a user writes: {} {}", write(fd, "x"), get(c"f"));
        0
    });
}

fn kept() {
    say!("read: {}", with(O_RDONLY, |fd| crate::file::read(fd, 4)));
    say!("write of nothing: {}", with(O_WRONLY, |fd| write(fd, "")));
    say!("chmod: {}", with(O_RDONLY, |fd| sys!(SYS_fchmod, fd, 0o777)));
    say!("times: {}", with(O_RDONLY, |fd| sys!(SYS_utimensat, fd, 0, 0, 0)));
    say!("a bad pointer: {}", with(O_WRONLY, |fd| sys!(SYS_write, fd, crate::sys::NOWHERE, 5)));
    say!(
        "mapped: {}",
        with(O_RDWR, |fd| {
            let at = sys!(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0).need();
            poke(at as *mut u8, b'x');
            sys!(SYS_msync, at, 4096, MS_SYNC);
            sys!(SYS_munmap, at, 4096);
        })
    );
    marked();
    say!("link: {} {}", link(c"f", c"g"), get(c"g"));
    say!("rename: {} {}", rename(c"g", c"h", 0), get(c"h"));
}

fn taken_by_chown() {
    marked();
    say!("chown: {} {}", sys!(SYS_fchownat, AT_FDCWD, c"f", 0, 0, 0), get(c"f"));
    marked();
    say!("chown to another: {} {}", sys!(SYS_fchownat, AT_FDCWD, c"f", 1000, 1000, 0), get(c"f"));
    marked();
    say!("of nothing: {} {}", sys!(SYS_fchownat, AT_FDCWD, c"f", -1, -1, 0), get(c"f"));
    marked();
    as_user(1000, || {
        say!("not allowed: {} {}", sys!(SYS_fchownat, AT_FDCWD, c"f", 1000, 1000, 0), get(c"f"));
        0
    });
    mkdir(c"d");
    set(c"d", &[REVISION_2, NET_RAW, 0, 0, 0]);
    say!("a directory: {} {}", sys!(SYS_fchownat, AT_FDCWD, c"d", 1000, 1000, 0), get(c"d"));
    say!(
        "the file: {}",
        described(stat(c"d").map(|mut stat| {
            stat.st_size = 0;
            stat
        }))
    );
}

fn by_descriptor() {
    copy_of_self(c"p", (0, 0), 0o755);
    let fd = open(c"p", O_RDONLY).fd();
    let value = bytes(&[REVISION_2 | 1, NET_RAW, 0, 0, 0]);
    say!("fsetxattr: {} {}", sys!(SYS_fsetxattr, fd, NAME, &value[..], value.len(), 0), get(c"p"));
    close(fd);
    by_user(c"./p");
    let fd = open(c"p", O_RDONLY).fd();
    say!("fremovexattr: {} {}", sys!(SYS_fremovexattr, fd, NAME), get(c"p"));
    close(fd);
    by_user(c"./p");
}

/// Another process could move the working directory under the program.
fn shared_directories() {
    copy_of_self(c"set_id", (0, 0), 0o4755);
    program(c"p", &[REVISION_2 | 1, NET_RAW, 0, 0, 0]);
    for name in [c"./set_id", c"./p"] {
        as_user(1000, || {
            let child = clone_here(CLONE_FS | SIGCHLD, std::ptr::null_mut(), std::ptr::null_mut());
            if child.0 == 0 {
                // The program itself, not a child of this one, which would have directories of its own.
                let words = [c"contracts", c"--as", c"ids"];
                std::process::exit(super::exec::exec_with(name, &words, &[]).errno());
            }
            ended(wait(child.0 as i32))
        });
    }
    say!("alone: {}", as_user(1000, || ended(run_as(c"./set_id", c"ids", &[]))) == Status::Exited(0));
}

fn personality_ends() {
    copy_of_self(c"set_id", (0, 0), 0o4755);
    program(c"p", &[REVISION_2 | 1, NET_RAW, 0, 0, 0]);
    for name in [SELF, c"./set_id", c"./p"] {
        as_user(1000, || {
            sys!(SYS_personality, 0x0044_0000);
            ended(run_as(name, c"personality", &[]))
        });
    }
}
