//! Loop devices in use, loop(4): how they go, what is seen on both sides, and what else tells of them.

use std::ffi::CString;

use libc::*;

use super::loops::{
    ADD, AUTOCLEAR, BLKFLSBUF, BLKGETSIZE, BLKGETSIZE64, BLKROGET, BLKSSZGET, CHANGE_FD, CLR_FD, NODE, NUMBER, REMOVE,
    SET_BLOCK_SIZE, SET_CAPACITY, SET_FD, control, device, end, file, get, put, set, shown, start,
};
use super::mount_sync::image;
use crate::file::{close, contents, create, mkdir, open, path, read_at, stat, unlink};
use crate::memory::{PAGE, map, peek, poke, try_peek, try_poke};
use crate::process::{self, as_plain_user};
use crate::sys::{NOWHERE, sys};
use crate::{say, tests};

const RW: i32 = PROT_READ | PROT_WRITE;

tests! {
    clear, clear_of_a_busy_one, autoclear, change_file, both_ways, cut_short, sysfs, partitions, statistics, not_permitted, common_ioctls, unknown_ioctls, flush, full, pread_and_seek, appended, mapped, mapped_read_only, exclusive, exclusive_of_mounted,
}

fn clear() {
    let backing = file(c"f", 8192);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    say!("write: {} {}", put(fd, "last words", 0), sys!(SYS_fsync, fd));
    say!("clear: {}", sys!(SYS_ioctl, fd, CLR_FD, 0));
    close(fd);
    say!("what was written: {}", start(backing, 0));
    let fd = open(NODE, O_RDWR).fd();
    say!("size: {} {}", get(fd, BLKGETSIZE64), shown(fd));
    say!("bind anew: {} {}", sys!(SYS_ioctl, fd, SET_FD, backing), start(fd, 0));
    end(fd);
}

fn clear_of_a_busy_one() {
    let backing = file(c"f", 8192);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    let other = open(NODE, O_RDWR).fd();
    say!("clear: {}", sys!(SYS_ioctl, fd, CLR_FD, 0));
    say!("{}", shown(fd));
    say!("it still works: {} {}", start(fd, 512), put(other, "busy", 0));
    close(fd);
    say!("one is left: {}", shown(other));
    close(other);
    let fd = open(NODE, O_RDWR).fd();
    say!("none was: {}", shown(fd));
    say!("what was written: {}", start(backing, 0));
    end(fd);
}

fn autoclear() {
    let backing = file(c"f", 8192);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    say!("set: {} {}", set(fd, |info| info.flags = AUTOCLEAR), shown(fd));
    say!("and not: {} {}", set(fd, |info| info.flags = 0), shown(fd));
    say!("set: {} {}", set(fd, |info| info.flags = AUTOCLEAR), put(fd, "auto", 0));
    let copy = sys!(SYS_dup, fd).fd();
    close(fd);
    say!("a copy is left: {}", shown(copy));
    close(copy);
    say!("remove: {}", control(REMOVE, NUMBER));
    say!("what was written: {}", start(backing, 0));
}

fn change_file() {
    let first = file(c"f", 8192);
    let second = create(c"g", "");
    sys!(SYS_ftruncate, second, 8192);
    put(second, "the second", 0);
    let small = file(c"s", 512);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, first);
    say!("writable: {}", sys!(SYS_ioctl, fd, CHANGE_FD, second));
    sys!(SYS_ioctl, fd, CLR_FD, 0);
    close(fd);
    let fd = device(O_RDONLY);
    say!("bind: {} {}", sys!(SYS_ioctl, fd, SET_FD, first), start(fd, 0));
    say!("another size: {}", sys!(SYS_ioctl, fd, CHANGE_FD, small));
    say!("no file: {}", sys!(SYS_ioctl, fd, CHANGE_FD, -1));
    say!("change: {} {}", sys!(SYS_ioctl, fd, CHANGE_FD, second), start(fd, 0));
    end(fd);
}

fn both_ways() {
    let backing = file(c"f", 8192);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    put(backing, "by the file", 4096);
    say!("not read before: {}", start(fd, 4096));
    put(fd, "by the disk", 0);
    say!("fsync: {}", sys!(SYS_fsync, fd));
    say!("in the file: {}", start(backing, 0));
    say!("its size: {}", stat(c"f").map_or(0, |stat| stat.st_size));
    end(fd);
}

fn cut_short() {
    let backing = file(c"f", 16_384);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    sys!(SYS_ftruncate, backing, 8192);
    say!("before the end: {}", start(fd, 4096));
    say!("behind it: {:?}", read_at(fd, 4, 12_288));
    say!("write: {} {}", put(fd, "grows", 12_288), sys!(SYS_fsync, fd));
    say!("the file: {} {}", stat(c"f").map_or(0, |stat| stat.st_size), read_at(backing, 5, 12_288));
    end(fd);
}

fn sysfs() {
    let of = |name: &str| contents(&path(format!("/sys/block/loop40/{name}")));
    let backing = file(c"f", 8192);
    let fd = device(O_RDWR);
    say!("unbound: {} {}", of("size"), of("loop/backing_file"));
    sys!(SYS_ioctl, fd, SET_FD, backing);
    set(fd, |info| (info.offset, info.size_limit, info.flags) = (512, 2048, AUTOCLEAR));
    for name in ["size", "ro", "loop/offset", "loop/sizelimit", "loop/autoclear", "loop/partscan", "loop/dio"] {
        say!("{name}: {}", of(name));
    }
    for name in ["dev", "removable", "queue/logical_block_size", "loop/backing_file"] {
        say!("{name}: {}", of(name));
    }
    unlink(c"f");
    say!("unlinked: {}", of("loop/backing_file"));
    let mut link = [0u8; 256];
    let ret = sys!(SYS_readlinkat, AT_FDCWD, c"/sys/block/loop40", &mut link, link.len());
    say!("link: {}", crate::file::shown(ret, &link));
    end(fd);
}

fn partitions() {
    let line = || {
        let text = contents(c"/proc/partitions");
        text.split("\\n").find(|line| line.ends_with("loop40")).unwrap_or("none").to_string()
    };
    let backing = file(c"f", 10_240);
    let fd = device(O_RDWR);
    say!("unbound: {}", line());
    sys!(SYS_ioctl, fd, SET_FD, backing);
    say!("bound: {}", line());
    end(fd);
    say!("in /proc/devices: {}", contents(c"/proc/devices").contains("  7 loop"));
}

/// Requests and sectors, not the times.
fn statistics() {
    let numbers = |text: &str| text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<u64>>();
    let of_disks = || {
        let text = contents(c"/proc/diskstats");
        let line = text.split("\\n").find(|line| line.contains(" loop40 ")).unwrap_or_default();
        say!("starts well: {}", line.starts_with("   7      40 loop40 "));
        numbers(line.split(" loop40 ").nth(1).unwrap_or_default())
    };
    let of_sysfs = || numbers(&contents(c"/sys/block/loop40/stat").replace("\\n", " "));
    let written = || {
        let text = contents(c"/proc/vmstat");
        let line = text.split("\\n").find_map(|line| line.strip_prefix("pgpgout "));
        line.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default()
    };
    let backing = file(c"f", 262_144);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    let (before, written_before) = (of_disks(), written());
    say!("fields: {} {}", before.len(), of_sysfs().len());
    say!("write: {} {}", put(fd, &"x".repeat(65_536), 65_536), sys!(SYS_fsync, fd));
    sys!(SYS_ioctl, fd, BLKFLSBUF, 0);
    say!("read: {:?}", read_at(fd, 4, 0));
    let (after, same) = (of_disks(), of_sysfs());
    let more = |index: usize| after.get(index).zip(before.get(index)).map_or(0, |(after, before)| after - before);
    say!("sectors read: {} written: {}", more(2) >= 8, more(6));
    say!("requests: {} {} flushed: {}", more(0) >= 1, (1..=16).contains(&more(4)), more(15) >= 1);
    say!("in /proc/vmstat: {}", written() >= written_before + 64);
    say!("in flight: {:?} discarded: {}", after.get(8), more(11));
    say!("the same in sysfs: {}", [0, 2, 4, 6, 8, 15].iter().all(|index| same.get(*index) == after.get(*index)));
    end(fd);
}

fn not_permitted() {
    let backing = file(c"f", 8192);
    let fd = device(O_RDWR);
    sys!(SYS_fchmodat, AT_FDCWD, NODE, 0o666);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    let name: CString = path("/dev/loop40");
    as_plain_user(|| {
        say!("control: {}", open(c"/dev/loop-control", O_RDWR));
        let fd = open(&name, O_RDONLY).fd();
        say!("status: {} set: {}", shown(fd), set(fd, |info| info.offset = 512));
        say!("capacity: {}", sys!(SYS_ioctl, fd, SET_CAPACITY, 0));
        say!("block size: {}", sys!(SYS_ioctl, fd, SET_BLOCK_SIZE, 512));
        say!("flush: {}", sys!(SYS_ioctl, fd, BLKFLSBUF, 0));
        close(fd);
        let fd = open(&name, O_RDWR).fd();
        say!("who may write: {} {}", set(fd, |info| info.offset = 512), sys!(SYS_ioctl, fd, SET_CAPACITY, 0));
        close(fd);
    });
    end(fd);
}

fn common_ioctls() {
    let backing = file(c"f", 8192);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    say!("size: {} {}", get(fd, BLKGETSIZE64), get(fd, BLKGETSIZE));
    say!("sector: {} read-only: {}", get(fd, BLKSSZGET), get(fd, BLKROGET));
    say!("flush: {}", sys!(SYS_ioctl, fd, BLKFLSBUF, 0));
    say!("nowhere: {}", sys!(SYS_ioctl, fd, BLKGETSIZE64, NOWHERE));
    end(fd);
}

fn unknown_ioctls() {
    let fd = device(O_RDWR);
    for cmd in [0x4c0bu32, 0x4c7f, ADD, 0x5401, 0x1234] {
        say!("{cmd:#x}: {}", sys!(SYS_ioctl, fd, cmd, 0));
    }
    end(fd);
}

fn flush() {
    let backing = file(c"f", 1 << 20);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    for at in 0..64 {
        put(fd, &format!("block {at}"), at * 16_384 + 100);
    }
    say!("fsync: {} fdatasync: {} sync: {}", sys!(SYS_fsync, fd), sys!(SYS_fdatasync, fd), sys!(SYS_sync));
    let found = (0..64).filter(|at| start(backing, at * 16_384 + 100).starts_with(&format!("\"block {at}"))).count();
    say!("in the file: {found}");
    end(fd);
}

fn full() {
    mkdir(c"m");
    say!("mount: {}", sys!(SYS_mount, c"none", c"m", c"tmpfs", 0, c"size=64k"));
    let backing = create(c"m/f", "");
    say!("sparse: {}", sys!(SYS_ftruncate, backing, 1 << 20));
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    close(backing);
    let page = vec![7u8; 512 << 10];
    say!("write: {}", sys!(SYS_write, fd, &page[..], page.len()));
    say!("fsync: {}", sys!(SYS_fsync, fd));
    say!("busy: {}", sys!(SYS_umount2, c"m", 0));
    end(fd);
    say!("unmount: {}", sys!(SYS_umount2, c"m", 0));
}

fn pread_and_seek() {
    let backing = file(c"f", 8192);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    say!("seek: {} {}", sys!(SYS_lseek, fd, 0, SEEK_END), sys!(SYS_lseek, fd, -512, SEEK_END));
    say!("read: {}", crate::file::read(fd, 9));
    say!("position: {}", sys!(SYS_lseek, fd, 0, SEEK_CUR));
    process::in_child(move || {
        say!("in a child: {}", crate::file::read(fd, 3));
        0
    });
    say!("position: {}", sys!(SYS_lseek, fd, 0, SEEK_CUR));
    end(fd);
}

/// What is written through a file that appends comes to its end, wherever it was meant to be.
fn appended() {
    close(file(c"f", 8192));
    let backing = open(c"f", O_RDWR | O_APPEND).fd();
    let fd = device(O_RDWR);
    say!("bind: {}", sys!(SYS_ioctl, fd, SET_FD, backing));
    say!("write: {} {}", put(fd, "first", 0), sys!(SYS_fsync, fd));
    say!("at its place: {}", start(backing, 0));
    say!("at the end: {}", start(backing, 8192));
    say!("grown: {}", stat(c"f").map_or(0, |stat| stat.st_size) > 8192);
    say!("the device: {} {}", get(fd, BLKGETSIZE64), start(fd, 0));
    say!("no more so: {}", sys!(SYS_fcntl, backing, F_SETFL, 0));
    say!("write: {} {}", put(fd, "second", 0), sys!(SYS_fsync, fd));
    say!("at its place: {}", start(backing, 0));
    end(fd);
}

/// A disk is mapped like a file: what is shared is its page cache, which outlives the descriptor.
fn mapped() {
    let backing = file(c"f", 3 * PAGE + 1024);
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing);
    let at = |at: *mut u8, offset: usize| at.wrapping_add(offset);
    let text =
        |from: *mut u8| String::from_utf8_lossy(&[0, 1, 2, 3, 4, 5, 6, 7, 8].map(|n| peek(at(from, n)))).into_owned();
    let shared = map(5 * PAGE, RW, MAP_SHARED, fd, 0).need() as *mut u8;
    let private = map(5 * PAGE, RW, MAP_PRIVATE, fd, PAGE as i64).need() as *mut u8;
    say!("shared: {:?} {:?}", text(shared), text(at(shared, PAGE + 512)));
    say!("private: {:?}", text(at(private, 512)));
    put(fd, "by a call", PAGE as i64);
    say!("seen: {:?} {:?}", text(at(shared, PAGE)), text(private));
    poke(at(private, 0), b'P');
    poke(at(shared, PAGE + 1), b'S');
    say!("written: {} {:?}", start(fd, PAGE as i64), text(private));
    say!("msync: {} {}", sys!(SYS_msync, shared, 4 * PAGE, MS_SYNC), start(backing, PAGE as i64));
    poke(at(shared, PAGE), b'X');
    say!("again: {} {}", sys!(SYS_fsync, fd), start(backing, PAGE as i64));
    say!("behind the last byte: {}", peek(at(shared, 3 * PAGE + 1024)));
    say!("the next page: {} {}", try_peek(at(shared, 4 * PAGE)), try_poke(at(private, 3 * PAGE)));
    poke(at(shared, 2), b'Z');
    close(fd);
    say!("closed: {:?}, busy: {}", text(shared), control(REMOVE, NUMBER));
    say!("munmap: {} {}", sys!(SYS_munmap, shared, 5 * PAGE), sys!(SYS_munmap, private, 5 * PAGE));
    // Whoever opens it next finds all stored.
    let again = open(NODE, O_RDWR).fd();
    say!("stored: {}", start(backing, 0));
    end(again);
}

fn mapped_read_only() {
    let backing = file(c"f", 2 * PAGE);
    let writes = device(O_RDWR);
    sys!(SYS_ioctl, writes, SET_FD, backing);
    let reads = open(NODE, O_RDONLY).fd();
    say!("shared, to write: {}", map(PAGE, RW, MAP_SHARED, reads, 0));
    let shared = map(PAGE, PROT_READ, MAP_SHARED, reads, 0).need() as *mut u8;
    let private = map(PAGE, RW, MAP_PRIVATE, reads, 0).need() as *mut u8;
    say!("mprotect: {}", sys!(SYS_mprotect, shared, PAGE, RW));
    poke(private, b'P');
    say!("{} {} {}", peek(shared), peek(private), try_poke(shared));
    let only = open(NODE, O_WRONLY).fd();
    say!("not readable: {}", map(PAGE, PROT_READ, MAP_PRIVATE, only, 0));
    say!("not aligned: {}", map(PAGE, PROT_READ, MAP_PRIVATE, reads, 512));
    say!("behind the end: {}", map(PAGE, PROT_READ, MAP_PRIVATE, reads, 64 * PAGE as i64).ok_or_error());
    close(reads);
    close(only);
    end(writes);
}

/// O_EXCL keeps out those who ask for the same, and file systems.
fn exclusive() {
    let backing = file(c"f", 8192);
    let fd = device(O_RDWR);
    let mine = open(NODE, O_RDONLY | O_EXCL).fd();
    say!("bind: {}", sys!(SYS_ioctl, fd, SET_FD, backing));
    say!("bind by who has it: {}", sys!(SYS_ioctl, mine, SET_FD, backing));
    say!("again: {} {}", open(NODE, O_RDWR | O_EXCL), open(NODE, O_RDONLY | O_EXCL));
    say!("made: {} {}", open(NODE, O_RDWR | O_CREAT | O_EXCL), open(NODE, O_RDWR | O_CREAT).ok());
    mkdir(c"m");
    say!("mount: {}", sys!(SYS_mount, NODE, c"m", c"ext2", MS_RDONLY, 0));
    let copy = sys!(SYS_dup, mine).fd();
    close(mine);
    say!("a copy is left: {}", open(NODE, O_RDONLY | O_EXCL));
    let writer = open(NODE, O_RDWR).fd();
    say!("write: {}", put(writer, "written", 0));
    close(copy);
    let mine = open(NODE, O_PATH | O_EXCL).fd();
    let mine_too = open(NODE, O_RDWR | O_EXCL);
    say!("none is left: {} {}", mine_too.ok(), open(NODE, O_RDONLY | O_EXCL));
    say!("what was written: {}", start(mine_too.fd(), 0));
    for fd in [mine, mine_too.fd(), writer] {
        close(fd);
    }
    end(fd);
}

fn exclusive_of_mounted() {
    for name in [c"a", c"b"] {
        mkdir(name);
    }
    let backing = create(c"f", "");
    let image = image();
    sys!(SYS_write, backing, &image[..], image.len()).need();
    let fd = device(O_RDWR);
    sys!(SYS_ioctl, fd, SET_FD, backing).need();
    let mount = |place| sys!(SYS_mount, NODE, place, c"ext2", 0, 0);
    let exclusively = || {
        let ret = open(NODE, O_RDONLY | O_EXCL);
        if ret.ok() {
            close(ret.fd());
        }
        ret.ok()
    };
    say!("before: {}", exclusively());
    say!("mounted: {} {} {}", mount(c"a"), exclusively(), open(NODE, O_RDWR | O_EXCL));
    say!("twice: {} {}", mount(c"b"), exclusively());
    say!("once: {} {}", sys!(SYS_umount2, c"a", 0), exclusively());
    close(create(c"b/file", "content"));
    say!("not at all: {} {}", sys!(SYS_umount2, c"b", 0), exclusively());
    let mine = open(NODE, O_RDONLY | O_EXCL).fd();
    say!("mount: {}", mount(c"a"));
    close(mine);
    say!("mount: {} {}", mount(c"a"), contents(c"a/file"));
    let held = open(c"a/file", O_RDONLY).fd();
    say!("lazily: {} {}", sys!(SYS_umount2, c"a", MNT_DETACH), exclusively());
    close(held);
    end(fd);
}
