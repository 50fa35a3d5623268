//! overlayfs: mounting, refused and not.

use libc::*;

use super::{file, fill, mount, mount_at, places, shape, umount};
use crate::file::{close, contents, mkdir, open, path, rename, stat, symlink, unlink};
use crate::process;
use crate::sys::{NOWHERE, Ret, sys};
use crate::{say, tests};

tests! {
    missing_options, not_there, not_directories, unknown_options, same_directories, nested_directories, work_elsewhere, one_layer, many_layers,
    escapes, shown, shown_read_only, by_descriptors, descriptor_refused, not_permitted, work_directory, old_work, used_twice, layers_unmounted,
    read_only_upper, links_to_layers, remounted, remounted_upper, remounted_upper_in_use, no_data, moved_layer, volatile_work, defaults_said,
}

/// Mounts, and if it worked unmounts again.
fn attempt(data: &str) -> Ret {
    let ret = mount(data);
    if ret.ok() {
        umount(c"m").need();
    }
    ret
}

fn missing_options() {
    places();
    for data in ["", "lowerdir=l", "lowerdir=l,upperdir=u", "lowerdir=l:k,workdir=w", "upperdir=u,workdir=w"] {
        say!("{data:?}: {}", attempt(data));
    }
    for data in
        ["lowerdir=", "lowerdir,upperdir=u,workdir=w", "lowerdir=l,upperdir=,workdir=w", "lowerdir=l:k,upperdir=u"]
    {
        say!("{data:?}: {}", attempt(data));
    }
    say!("twice: {}", attempt("lowerdir=x,lowerdir=l,upperdir=x,upperdir=u,workdir=w"));
}

fn not_there() {
    places();
    say!("lower: {}", attempt("lowerdir=x,upperdir=u,workdir=w"));
    say!("second: {}", attempt("lowerdir=l:x,upperdir=u,workdir=w"));
    say!("upper: {}", attempt("lowerdir=l,upperdir=x,workdir=w"));
    say!("work: {}", attempt("lowerdir=l,upperdir=u,workdir=x"));
    say!("place: {}", mount_at(c"x", "lowerdir=l,upperdir=u,workdir=w", 0));
}

fn not_directories() {
    places();
    file(c"f", "");
    say!("lower: {}", attempt("lowerdir=f,upperdir=u,workdir=w"));
    say!("upper: {}", attempt("lowerdir=l,upperdir=f,workdir=w"));
    say!("work: {}", attempt("lowerdir=l,upperdir=u,workdir=f"));
    say!("place: {}", mount_at(c"f", "lowerdir=l,upperdir=u,workdir=w", 0));
}

fn unknown_options() {
    places();
    for option in ["nonsense", "nonsense=1", "redirect_dir=off", "index=off", "xino=off", "metacopy=off", "uuid=on"] {
        say!("{option}: {}", attempt(&format!("lowerdir=l,upperdir=u,workdir=w,{option}")));
    }
    for option in ["index=maybe", "redirect_dir=maybe", "default_permissions", "nfs_export=off", ","] {
        say!("{option}: {}", attempt(&format!("lowerdir=l,upperdir=u,workdir=w,{option}")));
    }
}

fn same_directories() {
    places();
    say!("lower and lower: {}", attempt("lowerdir=l:l,upperdir=u,workdir=w"));
    say!("lower and upper: {}", attempt("lowerdir=u,upperdir=u,workdir=w"));
    say!("lower and work: {}", attempt("lowerdir=w,upperdir=u,workdir=w"));
    say!("upper and work: {}", attempt("lowerdir=l,upperdir=u,workdir=u"));
}

fn nested_directories() {
    places();
    for name in [c"l/x", c"u/x", c"w/x"] {
        mkdir(name);
    }
    say!("lower in lower: {} {}", attempt("lowerdir=l:l/x,upperdir=u,workdir=w"), attempt("lowerdir=l/x:l"));
    say!("lower in upper: {}", attempt("lowerdir=u/x,upperdir=u,workdir=w"));
    say!("upper in lower: {}", attempt("lowerdir=u,upperdir=u/x,workdir=w"));
    say!("lower in work: {}", attempt("lowerdir=w/x,upperdir=u,workdir=w"));
    say!("work in upper: {}", attempt("lowerdir=l,upperdir=u,workdir=u/x"));
    say!("upper in work: {}", attempt("lowerdir=l,upperdir=w/x,workdir=w"));
    say!("all in lower: {}", attempt("lowerdir=.,upperdir=u,workdir=w"));
}

fn work_elsewhere() {
    places();
    sys!(SYS_mount, c"none", c"k", c"tmpfs", 0, 0).need();
    mkdir(c"k/w");
    say!("another file system: {}", attempt("lowerdir=l,upperdir=u,workdir=k/w"));
    mkdir(c"b");
    sys!(SYS_mount, c"w", c"b", c"", MS_BIND, 0).need();
    say!("another mount: {}", attempt("lowerdir=l,upperdir=u,workdir=b"));
}

fn one_layer() {
    places();
    fill();
    say!("one: {}", attempt("lowerdir=l"));
    say!("two: {}", attempt("lowerdir=l:k"));
    say!("an empty one: {} {} {}", attempt("lowerdir=l::k"), attempt("lowerdir=:l:k"), attempt("lowerdir=l:k:"));
}

fn many_layers() {
    places();
    let mut all = String::new();
    for index in 0..600 {
        mkdir(&path(format!("{index}")));
        if index == 500 {
            say!("500: {}", attempt(&format!("lowerdir={}", &all[1..])));
        }
        all.push_str(&format!(":{index}"));
        if index == 300 {
            file(c"300/f", "300");
        }
    }
    say!("600: {}", attempt(&format!("lowerdir={}", &all[1..])));
    let first: Vec<&str> = all[1..].split(':').take(400).collect();
    mount(&format!("lowerdir={}", first.join(":"))).need();
    say!("found: {}", contents(c"m/f"));
}

fn escapes() {
    places();
    mkdir(c"a:b");
    mkdir(c"c,d");
    mkdir(c"e\\f");
    mkdir(c"up:per");
    mkdir(c"wo,rk");
    file(c"a:b/colon", "");
    file(c"c,d/comma", "");
    file(c"e\\f/backslash", "");
    say!("colon: {}", mount(r"lowerdir=a\:b:l"));
    say!("{}", shape("m"));
    umount(c"m");
    say!("comma: {}", mount(r"lowerdir=c\,d:a\:b"));
    say!("{}", shape("m"));
    umount(c"m");
    say!("backslash: {}", mount(r"lowerdir=e\\f:l"));
    say!("{}", shape("m"));
    umount(c"m");
    say!("upper: {}", mount(r"lowerdir=l,upperdir=up:per,workdir=wo\,rk"));
    say!("{}", options());
    umount(c"m");
    say!("upper escaped: {}", mount(r"lowerdir=l,upperdir=up\:per,workdir=wo\,rk"));
    say!("{}", options());
}

/// How /proc/mounts shows the mount on `m`.
fn options() -> String {
    let all = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    all.lines().filter(|line| line.contains(" /var/contract/m ")).collect::<Vec<_>>().join(" and ")
}

fn shown() {
    places();
    mount("lowerdir=l:k,upperdir=u,workdir=w").need();
    say!("{}", options());
    umount(c"m");
    sys!(
        SYS_mount,
        c"a name",
        c"m",
        c"overlay",
        MS_NOSUID | MS_NODEV,
        c"workdir=w,upperdir=/var/contract/u,lowerdir=l"
    )
    .need();
    say!("{}", options());
    let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = all.lines().find(|line| line.contains(" /var/contract/m ")).unwrap_or_default();
    say!("mountinfo: {}", line.split(" - ").nth(1).unwrap_or_default());
}

fn shown_read_only() {
    places();
    mount("lowerdir=l:k,workdir=w").need();
    say!("{}", options());
    umount(c"m");
    mount_at(c"m", "lowerdir=l,upperdir=u,workdir=w", MS_RDONLY).need();
    say!("{}", options());
    say!("write: {}", mkdir(c"m/x"));
}

fn string(fd: i32, key: &std::ffi::CStr, value: &std::ffi::CStr) -> Ret {
    sys!(SYS_fsconfig, fd, 1, key, value, 0)
}

fn by_descriptors() {
    places();
    fill();
    let fd = sys!(SYS_fsopen, c"overlay", 0).fd();
    say!("{} {} {}", string(fd, c"lowerdir", c"l:k"), string(fd, c"upperdir", c"u"), string(fd, c"workdir", c"w"));
    say!("source: {}", string(fd, c"source", c"named"));
    say!("create: {}", sys!(SYS_fsconfig, fd, 6, 0, 0, 0));
    let made = sys!(SYS_fsmount, fd, 0, 0).fd();
    say!("moved: {}", sys!(SYS_move_mount, made, c"", AT_FDCWD, c"m", 4));
    file(c"m/f", "new");
    say!("{} | {}", shape("m"), shape("u"));
    say!("{}", options());
}

fn descriptor_refused() {
    places();
    let fd = sys!(SYS_fsopen, c"overlay", 0).fd();
    say!("nothing said: {}", sys!(SYS_fsconfig, fd, 6, 0, 0, 0));
    let fd = sys!(SYS_fsopen, c"overlay", 0).fd();
    say!("unknown is not seen at once: {}", string(fd, c"nonsense", c"x"));
    string(fd, c"lowerdir", c"l:k");
    say!("but later: {}", sys!(SYS_fsconfig, fd, 6, 0, 0, 0));
    let fd = sys!(SYS_fsopen, c"overlay", 0).fd();
    say!("a comma: {}", string(fd, c"lowerdir", c"l,k"));
    say!("a path: {}", sys!(SYS_fsconfig, fd, 3, c"upperdir", c"u", AT_FDCWD));
}

fn not_permitted() {
    places();
    process::as_plain_user(|| {
        say!("{}", mount("lowerdir=l,upperdir=u,workdir=w"));
    });
}

fn work_directory() {
    places();
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    say!("{:?}", stat(c"w/work").map(|stat| format!("{:o}", stat.st_mode)).ok());
    say!("in use, removed: {}", crate::file::rmdir(c"w/work"));
    say!("w itself: {:o}", stat(c"w").map_or(0, |stat| stat.st_mode));
}

fn old_work() {
    places();
    mkdir(c"w/work");
    file(c"w/work/left", "x");
    mkdir(c"w/work/dir");
    file(c"w/work/dir/deep", "x");
    file(c"w/other", "stays");
    say!("{}", mount("lowerdir=l,upperdir=u,workdir=w"));
    say!("{}", shape("w"));
    umount(c"m");
    std::fs::remove_dir_all("w/work").unwrap_or_default();
    file(c"w/work", "a file");
    say!("{} {}", mount("lowerdir=l,upperdir=u,workdir=w"), shape("w"));
}

fn used_twice() {
    places();
    mkdir(c"m2");
    mkdir(c"w2");
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    say!("upper and work: {}", mount_at(c"m2", "lowerdir=l,upperdir=u,workdir=w", 0).ok_or_error());
    sys!(SYS_umount2, c"m2", 0);
    say!("upper: {}", mount_at(c"m2", "lowerdir=l,upperdir=u,workdir=w2", 0).ok_or_error());
}

fn layers_unmounted() {
    places();
    sys!(SYS_mount, c"none", c"k", c"tmpfs", 0, 0).need();
    mkdir(c"k/d");
    file(c"k/d/f", "x");
    mkdir(c"k/u");
    mkdir(c"k/w");
    mount("lowerdir=k/d,upperdir=k/u,workdir=k/w").need();
    say!("umount of the layers' mount: {}", umount(c"k"));
    file(c"m/f", "lives on");
    say!("{}", shape("m"));
    say!("{}", umount(c"m"));
}

fn read_only_upper() {
    places();
    sys!(SYS_mount, c"none", c"k", c"tmpfs", 0, 0).need();
    mkdir(c"k/u");
    mkdir(c"k/w");
    sys!(SYS_mount, c"none", c"k", c"tmpfs", MS_REMOUNT | MS_RDONLY, 0).need();
    say!("file system: {}", attempt("lowerdir=l,upperdir=k/u,workdir=k/w"));
    sys!(SYS_mount, c"none", c"k", c"tmpfs", MS_REMOUNT, 0).need();
    mkdir(c"b");
    sys!(SYS_mount, c"k", c"b", c"", MS_BIND, 0).need();
    sys!(SYS_mount, c"none", c"b", c"", MS_REMOUNT | MS_BIND | MS_RDONLY, 0).need();
    say!("mount: {}", attempt("lowerdir=l,upperdir=b/u,workdir=b/w"));
}

fn links_to_layers() {
    places();
    fill();
    symlink(c"l", c"link");
    symlink(c"u", c"upper");
    say!("{} {}", mount("lowerdir=link,upperdir=upper,workdir=w"), contents(c"m/f"));
    say!("{}", options());
}

fn remounted() {
    places();
    fill();
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    let fd = open(c"m/f", O_RDWR).fd();
    say!("read-only with a writer: {}", mount_at(c"m", "", MS_REMOUNT | MS_RDONLY));
    close(fd);
    say!("without: {} {}", mount_at(c"m", "", MS_REMOUNT | MS_RDONLY), mkdir(c"m/x"));
    say!("writable: {} {}", mount_at(c"m", "", MS_REMOUNT), mkdir(c"m/x"));
    say!("{}", options());
}

/// An overlay whose upper layer is on a file system of its own.
fn upper_elsewhere() {
    mkdir(c"t");
    sys!(SYS_mount, c"none", c"t", c"tmpfs", 0, 0).need();
    for name in [c"t/u", c"t/w", c"m", c"l"] {
        mkdir(name);
    }
    file(c"l/f", "lower");
    file(c"t/u/own", "upper");
    mount("lowerdir=l,upperdir=t/u,workdir=t/w").need();
}

fn remounted_upper() {
    upper_elsewhere();
    let lower = open(c"m/f", O_RDONLY).fd();
    say!("with a reader: {} {}", mount_at(c"t", "", MS_REMOUNT | MS_RDONLY), mkdir(c"m/x"));
    say!("a writer: {}, a name: {}", open(c"m/own", O_RDWR).ok_or_error(), unlink(c"m/own"));
    say!("writable: {} {}", mount_at(c"t", "", MS_REMOUNT), mkdir(c"m/x"));
    close(lower);
}

/// What is written through the overlay is written to the file system of the upper layer.
fn remounted_upper_in_use() {
    upper_elsewhere();
    for name in [c"m/f", c"m/own", c"m/new"] {
        let fd = open(name, O_RDWR | O_CREAT);
        say!("with a writer: {}", mount_at(c"t", "", MS_REMOUNT | MS_RDONLY));
        say!("writable: {}", mount_at(c"t", "", MS_REMOUNT));
        close(fd.0 as i32);
    }
    say!("without: {}", mount_at(c"t", "", MS_REMOUNT | MS_RDONLY));
}

fn no_data() {
    places();
    say!("null: {}", sys!(SYS_mount, c"overlay", c"m", c"overlay", 0, 0));
    say!("bad pointer: {}", sys!(SYS_mount, c"overlay", c"m", c"overlay", 0, NOWHERE));
}

fn moved_layer() {
    places();
    fill();
    mount("lowerdir=l,upperdir=u,workdir=w").need();
    say!("moved: {} {}", rename(c"l", c"l2", 0), contents(c"m/f"));
    say!("{}", rename(c"u", c"u2", 0));
    file(c"m/new", "x");
    say!("{}", shape("u2"));
}

fn volatile_work() {
    places();
    for name in [c"w/work", c"w/work/incompat", c"w/work/incompat/volatile"] {
        mkdir(name);
    }
    say!("after an unclean end: {}", attempt("lowerdir=l,upperdir=u,workdir=w"));
}

fn defaults_said() {
    places();
    mount("lowerdir=l,upperdir=u,workdir=w,xino=off,index=off,metacopy=off,redirect_dir=off,nfs_export=off").need();
    say!("{}", options());
}
