//! Rules of files that are easily got wrong (one line each, the same on Linux): ends of the range of offsets, rights of
//! others, and what is left of a file without a name.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Error, Read, Result, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::null_mut;
use std::thread;

type Rule = (&'static str, fn() -> Result<String>);

/// A user that nobody else is.
const USER: libc::uid_t = 12346;

const RULES: &[Rule] = &[
    ("offsets beyond the end of all files", far_offsets),
    ("seeking beyond the end of all files", far_seeks),
    ("sizes beyond the end of all files", far_sizes),
    ("copies beyond the end of all files", far_copies),
    ("copies within a file", overlapping_copies),
    ("owner of signals", signal_owner),
    ("an owner that stays keeps the set-id bits of others", foreign_chown),
    ("a new name for a file without one", revive),
    ("a hole that is read", hole),
    ("a pipe is spliced", splice_errors),
    ("memory is spliced", memory_splices),
    ("locks beyond the end of all files", far_locks),
    ("attributes of users in a tmpfs", user_attributes),
    ("a directory deeper than a path is long", deep_directory),
    ("a seal and who writes through a mapping", seals),
    ("what others may know of a process", strangers),
    ("a process of many mappings", many_mappings),
    ("who owns pipes and sockets", owners),
    ("links that others laid", foreign_links),
];

pub fn all() {
    for (name, rule) in RULES {
        println!("{name}: {}", rule().unwrap_or_else(|error| format!("failed: {error}")));
    }
}

/// What a system call answers: its result or minus the error.
fn outcome(result: i64) -> i64 {
    if result == -1 { -i64::from(Error::last_os_error().raw_os_error().unwrap_or(0)) } else { result }
}

macro_rules! call {
    ($name:ident($($argument:expr),*)) => {
        // SAFETY: pointers among the arguments are to live memory of the right size, or null.
        outcome(i64::from(unsafe { libc::$name($($argument),*) } as i64))
    };
}

fn fresh(name: &str, content: &[u8]) -> Result<File> {
    let _ = fs::remove_file(name);
    let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(name)?;
    file.write_all(content)?;
    Ok(file)
}

/// The same rule in a tmpfs and on the disk.
fn both(rule: fn(&str) -> Result<String>) -> Result<String> {
    let (memory, disk) = (rule("/tmp/probe.file")?, rule("/probe.file")?);
    Ok(if memory == disk { memory } else { format!("{memory}, on disk {disk}") })
}

const FAR: i64 = i64::MAX;

fn far_offsets() -> Result<String> {
    both(|name| {
        let file = fresh(name, b"content")?;
        let (fd, mut byte) = (file.as_raw_fd(), [0u8; 2]);
        let data = byte.as_mut_ptr().cast();
        let reads = [FAR, FAR - 1, FAR - 2, -1].map(|at| call!(pread(fd, data, 2, at)));
        let writes = [FAR, FAR - 1, FAR - 2, -1].map(|at| call!(pwrite(fd, data, 2, at)));
        fs::remove_file(name)?;
        Ok(format!("{reads:?} {writes:?}"))
    })
}

fn far_seeks() -> Result<String> {
    let name = "/tmp/probe.file";
    let file = fresh(name, b"content")?;
    let fd = file.as_raw_fd();
    let to = |at, whence| call!(lseek(fd, at, whence));
    let results = [
        to(FAR, libc::SEEK_SET),
        to(1, libc::SEEK_CUR),
        to(FAR, libc::SEEK_END),
        to(i64::MIN, libc::SEEK_CUR),
        to(-8, libc::SEEK_END),
        to(-7, libc::SEEK_END),
        to(7, libc::SEEK_DATA),
        to(-1, libc::SEEK_HOLE),
        to(0, 99),
    ];
    fs::remove_file(name)?;
    Ok(format!("{results:?}"))
}

fn far_sizes() -> Result<String> {
    both(|name| {
        let file = fresh(name, b"content")?;
        let fd = file.as_raw_fd();
        let results = [
            call!(ftruncate(fd, -1)),
            call!(fallocate(fd, 0, FAR, 1)),
            call!(fallocate(fd, 0, FAR, FAR)),
            call!(fallocate(fd, 0, 0, 0)),
            call!(fallocate(fd, 0, -1, 1)),
        ];
        let size = file.metadata()?.len();
        fs::remove_file(name)?;
        Ok(format!("{results:?} {size}"))
    })
}

fn copy(input: RawFd, from: i64, output: RawFd, to: i64, len: usize) -> i64 {
    let (mut from, mut to) = (from, to);
    call!(copy_file_range(input, &mut from, output, &mut to, len, 0))
}

fn far_copies() -> Result<String> {
    let (one, two) = ("/tmp/probe.file", "/tmp/probe.other");
    let (input, output) = (fresh(one, b"content")?, fresh(two, b"")?);
    let (from, to) = (input.as_raw_fd(), output.as_raw_fd());
    let (mut negative, mut far) = (-1, FAR);
    let results = [
        copy(from, FAR, to, 0, 2),
        copy(from, 0, to, FAR, 2),
        copy(from, -100, to, 0, 2),
        copy(from, 100, to, 0, 2),
        copy(from, 2, to, 0, 100),
        call!(sendfile(to, from, &mut negative, 2)),
        call!(sendfile(to, from, &mut far, 2)),
        call!(sendfile(to, from, null_mut(), 2)),
    ];
    let size = output.metadata()?.len();
    fs::remove_file(one)?;
    fs::remove_file(two)?;
    Ok(format!("{results:?} {size}"))
}

fn overlapping_copies() -> Result<String> {
    both(|name| {
        let file = fresh(name, b"0123456789")?;
        let fd = file.as_raw_fd();
        let results = [copy(fd, 0, fd, 5, 6), copy(fd, 8, fd, 10, 100), copy(fd, 0, fd, 6, 4), copy(fd, 0, fd, 0, 0)];
        let text = fs::read_to_string(name)?;
        fs::remove_file(name)?;
        Ok(format!("{results:?} {text}"))
    })
}

fn signal_owner() -> Result<String> {
    let (reader, _writer) = std::io::pipe()?;
    let fd = reader.as_raw_fd();
    let mut owner = [0i32; 2];
    // F_SETOWN_EX and F_GETOWN_EX with F_OWNER_PGRP.
    let set = |pid: i32| call!(fcntl(fd, 15, &[2, pid]));
    let results = [set(i32::MIN), call!(fcntl(fd, libc::F_SETOWN, i32::MIN)), call!(fcntl(fd, 16, &mut owner))];
    Ok(format!("{results:?}"))
}

/// Runs `work` in a thread without rights.
fn as_user<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: no memory involved. The system call, unlike the C library's function, is about this thread only.
            unsafe { libc::syscall(libc::SYS_setresuid, USER, USER, USER) };
            work()
        });
        thread.join().ok()
    })
}

fn foreign_chown() -> Result<String> {
    both(|name| {
        let file = fresh(name, b"program")?;
        file.set_permissions(fs::Permissions::from_mode(0o6755))?;
        let path = CString::new(name)?;
        let foreign = as_user(|| call!(chown(path.as_ptr(), u32::MAX, u32::MAX)));
        let kept = file.metadata()?.mode();
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        let plain = as_user(|| call!(chown(path.as_ptr(), u32::MAX, u32::MAX)));
        fs::remove_file(name)?;
        Ok(format!("{foreign:?} {kept:o} {plain:?}"))
    })
}

fn link_descriptor(fd: RawFd, name: &str) -> Result<i64> {
    let (from, to) = (CString::new(format!("/proc/self/fd/{fd}"))?, CString::new(name)?);
    Ok(call!(linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::AT_SYMLINK_FOLLOW)))
}

fn revive() -> Result<String> {
    both(|name| {
        let file = fresh(name, b"text")?;
        fs::remove_file(name)?;
        let removed = link_descriptor(file.as_raw_fd(), name)?;
        let _ = fs::remove_file(name);
        let dir = CString::new(name.rsplit_once('/').map_or("/", |(dir, _)| if dir.is_empty() { "/" } else { dir }))?;
        let unnamed = |flags: i32| {
            // SAFETY: the path is alive; a descriptor that was opened is nobody else's.
            unsafe {
                let fd = libc::open(dir.as_ptr(), libc::O_TMPFILE | libc::O_RDWR | flags, 0o600);
                if fd < 0 { Err(Error::last_os_error()) } else { Ok(File::from_raw_fd(fd)) }
            }
        };
        let exclusive = link_descriptor(unnamed(libc::O_EXCL)?.as_raw_fd(), name)?;
        let _ = fs::remove_file(name);
        let linked = link_descriptor(unnamed(0)?.as_raw_fd(), name)?;
        let links = fs::metadata(name).map_or(0, |meta| meta.nlink());
        let _ = fs::remove_file(name);
        Ok(format!("{removed} {exclusive} {linked} {links}"))
    })
}

fn hole() -> Result<String> {
    both(|name| {
        let mut file = fresh(name, b"")?;
        file.set_len(1 << 20)?;
        let mut text = vec![1; 1 << 20];
        file.read_exact(&mut text)?;
        let blocks = file.metadata()?.blocks();
        fs::remove_file(name)?;
        Ok(format!("{} {blocks}", text.iter().all(|byte| *byte == 0)))
    })
}

fn splice_errors() -> Result<String> {
    let name = "/tmp/probe.file";
    let mut file = fresh(name, b"content")?;
    let (mut reader, mut writer) = std::io::pipe()?;
    let (fd, read, write) = (file.as_raw_fd(), reader.as_raw_fd(), writer.as_raw_fd());
    let null = null_mut::<i64>;
    writer.write_all(b"from the pipe")?;
    let (mut at, mut negative) = (3, -1);
    let results = [
        call!(splice(read, &mut at, fd, null(), 4, 0)),
        call!(splice(read, null(), fd, &mut negative, 4, 0)),
        call!(splice(fd, null(), fd, null(), 4, 0)),
        call!(splice(read, null(), write, null(), 4, 0)),
        call!(splice(read, null(), fd, &mut at, 4, 0)),
        call!(splice(read, null(), fd, null(), 0, 0)),
        call!(splice(read, null(), fd, null(), 100, 0)),
        call!(splice(read, null(), fd, null(), 1, libc::SPLICE_F_NONBLOCK)),
        call!(splice(write, null(), fd, null(), 1, 0)),
        call!(splice(fd, &mut negative, write, null(), 1, 0)),
        call!(splice(fd, &mut at, write, null(), 100, 0)),
    ];
    let mut moved = [0; 16];
    let count = reader.read(&mut moved)?;
    drop(writer);
    let end = call!(splice(read, null(), fd, null(), 1, 0));
    let mut text = String::new();
    std::io::Seek::rewind(&mut file)?;
    file.read_to_string(&mut text)?;
    fs::remove_file(name)?;
    Ok(format!("{results:?} {at} {} {end} {text}", String::from_utf8_lossy(&moved[..count])))
}

fn far_locks() -> Result<String> {
    let name = "/tmp/probe.file";
    let file = fresh(name, b"content")?;
    let lock = |whence: i32, start: i64, len: i64| {
        let lock =
            libc::flock { l_type: libc::F_WRLCK as i16, l_whence: whence as i16, l_start: start, l_len: len, l_pid: 0 };
        call!(fcntl(file.as_raw_fd(), libc::F_SETLK, &lock))
    };
    let results = [
        lock(libc::SEEK_SET, FAR, 1),
        lock(libc::SEEK_SET, FAR, 2),
        lock(libc::SEEK_END, FAR, 1),
        lock(libc::SEEK_SET, 5, -5),
        lock(libc::SEEK_SET, 5, -6),
        lock(libc::SEEK_SET, 5, i64::MIN),
        lock(libc::SEEK_SET, i64::MIN, 1),
        lock(9, 0, 1),
    ];
    fs::remove_file(name)?;
    Ok(format!("{results:?}"))
}

fn user_attributes() -> Result<String> {
    let name = "/dev/shm/probe.file";
    fs::create_dir_all("/dev/shm")?;
    fresh(name, b"")?;
    let (path, key) = (CString::new(name)?, CString::new("user.key")?);
    let set = call!(setxattr(path.as_ptr(), key.as_ptr(), b"value".as_ptr().cast(), 5, 0));
    let get = call!(getxattr(path.as_ptr(), key.as_ptr(), null_mut(), 0));
    fs::remove_file(name)?;
    Ok(format!("{set} {get}"))
}

fn deep_directory() -> Result<String> {
    let name = CString::new("a".repeat(200))?;
    let before = std::env::current_dir()?;
    fs::create_dir_all("/tmp/probe.deep")?;
    std::env::set_current_dir("/tmp/probe.deep")?;
    let mut lengths = Vec::new();
    for _ in 0..21 {
        call!(mkdir(name.as_ptr(), 0o755));
        call!(chdir(name.as_ptr()));
        let mut text = vec![0u8; 8192];
        // SAFETY: room for the answer.
        lengths.push(outcome(unsafe { libc::syscall(libc::SYS_getcwd, text.as_mut_ptr(), text.len()) }));
    }
    let mut text = [0u8; 4096];
    let link = call!(readlink(c"/proc/self/cwd".as_ptr(), text.as_mut_ptr().cast(), text.len()));
    for _ in 0..21 {
        call!(chdir(c"..".as_ptr()));
        call!(rmdir(name.as_ptr()));
    }
    std::env::set_current_dir(before)?;
    let gone = fs::remove_dir("/tmp/probe.deep").is_ok();
    Ok(format!("{:?} {link} {gone}", lengths.split_off(18)))
}

fn seals() -> Result<String> {
    const F_ADD_SEALS: i32 = 1033;
    const F_GET_SEALS: i32 = 1034;
    const WRITE: i32 = 8;
    let fd = call!(memfd_create(c"sealed".as_ptr(), libc::MFD_ALLOW_SEALING)) as RawFd;
    call!(ftruncate(fd, 4096));
    let map = |protection| -> (*mut libc::c_void, i64) {
        // SAFETY: a new mapping, where there is room.
        let at = unsafe { libc::mmap(null_mut(), 4096, protection, libc::MAP_SHARED, fd, 0) };
        (at, if at == libc::MAP_FAILED { outcome(-1) } else { 0 })
    };
    let (at, mapped) = map(libc::PROT_READ);
    let while_mapped = call!(fcntl(fd, F_ADD_SEALS, WRITE));
    let kept = call!(fcntl(fd, F_GET_SEALS));
    // SAFETY: nobody has a reference into the mapping.
    unsafe { libc::munmap(at, 4096) };
    let sealed = call!(fcntl(fd, F_ADD_SEALS, WRITE));
    let (_, again) = map(libc::PROT_READ | libc::PROT_WRITE);
    let write = call!(write(fd, b"x".as_ptr().cast(), 1));
    call!(close(fd));
    Ok(format!("{mapped} {while_mapped} {kept} {sealed} {again} {write}"))
}

fn strangers() -> Result<String> {
    let errno = |result: Result<()>| result.err().map_or(0, |error| error.raw_os_error().unwrap_or(-1));
    as_user(|| {
        let open = |name: &str| errno(File::open(format!("/proc/1/{name}")).map(drop));
        let opened = ["cmdline", "environ", "auxv", "maps", "status", "statm", "fdinfo/0", "fd"].map(open);
        let links = ["cwd", "root", "exe"].map(|name| errno(fs::read_link(format!("/proc/1/{name}")).map(drop)));
        let stat = fs::read_to_string("/proc/1/stat")?;
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
        // From startcode to startstack, and from start_data to env_end.
        let hidden = [fields.get(23..26), fields.get(42..49)];
        let words = fs::read("/proc/1/cmdline")?.is_empty();
        Ok(format!("{opened:?} {links:?} {hidden:?} {words}"))
    })
    .unwrap_or_else(|| Ok("panicked".into()))
}

fn many_mappings() -> Result<String> {
    const COUNT: usize = 64_000;
    const PAGE: usize = 4096;
    // SAFETY: a new mapping that nobody uses; every other page of it is protected, which divides it.
    let (start, divided) = unsafe {
        let length = COUNT * PAGE;
        let start = libc::mmap(null_mut(), length, libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        let pages = (0..COUNT).step_by(2).map(|page| start.byte_add(page * PAGE));
        (start, pages.filter(|page| libc::mprotect(*page, PAGE, libc::PROT_NONE) == 0).count())
    };
    let lines = |name: &str, with: &str| -> Result<bool> {
        let text = fs::read(name)?;
        Ok(text.split(|byte| *byte == b'\n').filter(|line| line.starts_with(with.as_bytes())).count() >= COUNT)
    };
    let (maps, sizes) = (lines("/proc/self/maps", "f")?, lines("/proc/self/smaps", "VmFlags:")?);
    // SAFETY: as above.
    unsafe { libc::munmap(start, COUNT * PAGE) };
    Ok(format!("{} {maps} {sizes}", divided == COUNT / 2))
}

fn owners() -> Result<String> {
    let output = Command::new("/proc/self/exe").uid(USER).gid(USER).arg("owners").output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_string())
}

/// As a user of its own, with the pipe of another as its output.
pub fn owners_as_user() {
    let (mut pipe, mut pair) = ([0; 2], [0; 2]);
    // SAFETY: room for two descriptors each.
    unsafe {
        libc::pipe(pipe.as_mut_ptr());
        libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr());
    }
    let seen = |fd: RawFd| {
        // SAFETY: a structure of integers, for which zeros are as good as anything.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        call!(fstat(fd, &mut stat));
        (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777)
    };
    let open = |path: &str| {
        let path = CString::new(path).unwrap_or_default();
        call!(open(path.as_ptr(), libc::O_WRONLY | libc::O_NONBLOCK)).min(0)
    };
    let own = format!("/proc/self/fd/{}", pipe[0]);
    let before = (seen(pipe[0]), seen(pair[0]), open(&own));
    let changed = (call!(fchmod(pipe[0], 0o400)), seen(pipe[1]), open(&own));
    println!("{before:?} {changed:?} {}", open("/dev/stdout"));
}

fn memory_splices() -> Result<String> {
    let (reader, writer) = std::io::pipe()?;
    let (read, write) = (reader.as_raw_fd(), writer.as_raw_fd());
    let file = File::open("/proc/self/exe")?;
    let mut bytes = vec![7u8; 110_000];
    // Whole pages, of which Linux has so many in a pipe.
    let start = bytes.as_ptr().align_offset(4096);
    let part = libc::iovec { iov_base: bytes[start..].as_mut_ptr().cast(), iov_len: 100_000 };
    let move_part = |fd, flags: u32| call!(vmsplice(fd, &part, 1, flags));
    let results = [
        move_part(read, libc::SPLICE_F_NONBLOCK),
        move_part(write, 0),
        move_part(write, libc::SPLICE_F_NONBLOCK),
        move_part(read, 0),
        move_part(file.as_raw_fd(), 0),
    ];
    Ok(format!("{results:?}"))
}

fn foreign_links() -> Result<String> {
    both(|name| {
        let path = |file: &str| format!("{name}.dir/{file}");
        let text = |file: &str| CString::new(path(file));
        let _ = fs::remove_dir_all(path(""));
        fs::create_dir(path(""))?;
        fs::set_permissions(path(""), fs::Permissions::from_mode(0o1777))?;
        for (file, mode) in [("readable", 0o644), ("writable", 0o666), ("program", 0o4777)] {
            fresh(&path(file), b"")?.set_permissions(fs::Permissions::from_mode(mode))?;
        }
        std::os::unix::fs::symlink("writable", path("of-root"))?;
        let link = text("of-user")?;
        let open = |name: &CString| call!(open(name.as_ptr(), libc::O_RDONLY)).min(0);
        let follow = text("of-user")?;
        let by_user = as_user(|| -> Result<_> {
            call!(symlink(c"writable".as_ptr(), link.as_ptr()));
            let mut answers = vec![open(&follow), open(&text("of-root")?)];
            for file in ["readable", "writable", "program", "of-user", "of-root"] {
                let old = text(file)?;
                let new = text(&format!("new-{file}"))?;
                answers.push(call!(link(old.as_ptr(), new.as_ptr())));
            }
            Ok(answers)
        });
        let create = call!(open(follow.as_ptr(), libc::O_RDWR | libc::O_CREAT, 0o600)).min(0);
        // Not on the way to something else, and not if the directory is nobody's trap.
        let by_root = [open(&follow), create, call!(access(follow.as_ptr(), 0))];
        fs::set_permissions(path(""), fs::Permissions::from_mode(0o777))?;
        let plain = open(&follow);
        fs::remove_dir_all(path(""))?;
        Ok(format!("{:?} {by_root:?} {plain}", by_user.and_then(Result::ok)))
    })
}
