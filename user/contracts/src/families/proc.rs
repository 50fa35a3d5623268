//! /proc: what stable programs read there, and who may.

use std::fs::read_to_string;

use libc::*;

use crate::file::{close, contents, create, mkdir, open, path, rename, stat, symlink, unlink, write};
use crate::process::{self, Gate};
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    stat_fields, status_keys, comm, command_line, own_links, descriptors, descriptor_info, maps, tasks, others,
    the_dead, limits_and_environment, system_keys, system_shapes, mounts, oom, offsets, modes,
}

fn text(name: &str) -> String {
    read_to_string(name).unwrap_or_else(|error| format!("{}", Ret(-i64::from(error.raw_os_error().unwrap_or(0)))))
}

fn line<'a>(text: &'a str, key: &str) -> &'a str {
    text.lines().find(|line| line.starts_with(key)).unwrap_or("(none)")
}

fn stat_fields() {
    let all = text("/proc/self/stat");
    let fields: Vec<&str> = all.rsplit(") ").next().unwrap_or_default().split_whitespace().collect();
    let number = |index: usize| fields.get(index - 3).and_then(|field| field.parse::<i64>().ok()).unwrap_or(-99);
    say!("fields: {}", fields.len() + 2);
    say!("name: {}", all.contains("(contracts)"));
    say!("state: {}", fields[0]);
    say!("parent: {}", number(4) == sys!(SYS_getppid).0);
    say!("group and session: {} {}", number(5) == sys!(SYS_getpgid, 0).0, number(6) == sys!(SYS_getsid, 0).0);
    say!("terminal: {} {}", number(7), number(8));
    say!("priority and nice: {} {}", number(18), number(19));
    say!("threads: {}", number(20));
    say!("start: {}", number(22) > 0);
    say!("size and pages: {} {}", number(23) > 0, number(24) > 0);
    say!("exit signal: {}", number(38));
    say!("policy: {}", number(41));
    say!("ends in a new line: {}", all.ends_with('\n'));
}

fn status_keys() {
    let all = text("/proc/self/status");
    for key in ["Name:", "Umask:", "State:", "Ngid:", "TracerPid:", "Uid:", "Gid:", "FDSize:", "Groups:", "Threads:"] {
        say!("{}", line(&all, key));
    }
    for key in ["SigPnd:", "ShdPnd:", "SigBlk:", "SigIgn:", "SigCgt:", "NoNewPrivs:", "Seccomp:"] {
        say!("{}", line(&all, key));
    }
    for key in ["Tgid:", "Pid:", "PPid:", "VmPeak:", "VmSize:", "VmRSS:", "VmData:", "VmStk:", "VmExe:", "CapEff:"] {
        say!("{key} {}", line(&all, key) != "(none)");
    }
    sys!(SYS_umask, 0o77);
    crate::signal::block(SIGUSR1);
    crate::signal::ignore(SIGUSR2);
    crate::signal::kill_self(SIGUSR1);
    let all = text("/proc/self/status");
    for key in ["Umask:", "SigPnd:", "SigBlk:", "SigIgn:"] {
        say!("{}", line(&all, key));
    }
    process::as_plain_user(|| {
        let all = text("/proc/self/status");
        for key in ["Uid:", "Gid:", "Groups:", "CapEff:", "CapPrm:"] {
            say!("{}", line(&all, key));
        }
    });
}

fn comm() {
    say!("at first: {:?}", text("/proc/self/comm"));
    let fd = open(c"/proc/self/comm", O_RDWR).fd();
    say!("written: {} {:?}", write(fd, "changed"), text("/proc/self/comm"));
    say!("too long: {} {:?}", write(fd, "a-name-that-is-too-long"), text("/proc/self/comm"));
    say!("with a new line: {} {:?}", write(fd, "line\nmore"), text("/proc/self/comm"));
    say!("nothing: {} {:?}", write(fd, ""), text("/proc/self/comm"));
    say!("in stat: {}", text("/proc/self/stat").contains("(line"));
    sys!(SYS_prctl, PR_SET_NAME, c"by prctl");
    say!("prctl: {:?}", text("/proc/self/comm"));
    let parent = path(format!("/proc/{}/comm", sys!(SYS_getpid).0));
    process::in_child(|| {
        say!("a child's: {:?}", text("/proc/self/comm"));
        say!("another's: {}", write(open(&parent, O_WRONLY).fd(), "x"));
        0
    });
    process::as_plain_user(|| {
        let fd = open(&parent, O_WRONLY);
        say!("a user, another's: {}", fd.ok_or_error());
        say!("its own: {}", open(c"/proc/self/comm", O_WRONLY).ok_or_error());
    });
}

fn command_line() {
    let all = text("/proc/self/cmdline");
    say!("words end in zeros: {} {}", all.starts_with("contracts\0"), all.ends_with('\0'));
    let argv = [c"sleep".as_ptr(), c"".as_ptr(), c"two words".as_ptr(), std::ptr::null()];
    let envp = [c"A=1".as_ptr(), c"B=two".as_ptr(), std::ptr::null()];
    let argv2 = [c"cat".as_ptr(), c"/proc/self/cmdline".as_ptr(), c"/proc/self/environ".as_ptr(), std::ptr::null()];
    process::in_child(|| {
        sys!(SYS_execve, c"/bin/cat", &argv2, &envp);
        1
    });
    say!("");
    let child = process::child(|| {
        sys!(SYS_execve, c"/bin/nothing", &argv, &envp);
        0
    });
    process::until_asleep(child);
    while process::state(child) != 'Z' {
        process::sleep_ms(1);
    }
    say!("a zombie's: {:?}", text(&format!("/proc/{child}/cmdline")));
    process::wait(child);
}

fn own_links() {
    let link = |name: &str| {
        std::fs::read_link(name).map_or_else(|error| format!("{:?}", error.kind()), |link| link.display().to_string())
    };
    say!("cwd: {}", link("/proc/self/cwd"));
    say!("root: {}", link("/proc/self/root"));
    say!("exe: {}", link("/proc/self/exe"));
    say!("self: {}", link("/proc/self") == sys!(SYS_getpid).0.to_string());
    say!("thread-self: {}", link("/proc/thread-self").ends_with(&format!("/task/{}", sys!(SYS_gettid).0)));
    say!("mounts: {}", link("/proc/mounts"));
    mkdir(c"d");
    sys!(SYS_chdir, c"d");
    say!("cwd: {}", link("/proc/self/cwd"));
    rename(c"../d", c"../e", 0);
    say!("renamed: {}", link("/proc/self/cwd"));
    sys!(SYS_unlinkat, AT_FDCWD, c"../e", AT_REMOVEDIR);
    say!("removed: {}", link("/proc/self/cwd"));
    process::in_child(|| {
        sys!(SYS_chroot, c"/dev");
        sys!(SYS_chdir, c"/");
        say!("without /proc: {}", stat(c"/proc").is_ok());
        0
    });
    say!("through root: {}", contents(c"/proc/self/root/proc/self/comm"));
    symlink(c"/proc/self/exe", c"/var/contract/exe");
    say!("a link to exe: {}", stat(c"/var/contract/exe").is_ok());
}

fn descriptors() {
    let fd = create(c"f", "x");
    let [reader, _writer] = crate::file::pipe();
    let event = sys!(SYS_eventfd2, 0, 0).fd();
    let link = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap_or_default().display().to_string();
    say!("file: {}", link(fd));
    say!("null: {}", link(0));
    say!("pipe: {}", link(reader).starts_with("pipe:["));
    say!("eventfd: {}", link(event));
    say!("epoll: {}", link(sys!(SYS_epoll_create1, 0).fd()));
    say!("memfd: {}", link(sys!(SYS_memfd_create, c"name", 0).fd()));
    let mut pair = [0i32; 2];
    sys!(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, &mut pair);
    say!("socket: {}", link(pair[0]).starts_with("socket:["));
    rename(c"f", c"g", 0);
    say!("renamed: {}", link(fd));
    unlink(c"g");
    say!("unlinked: {}", link(fd));
    say!("closed: {}", stat(c"/proc/self/fd/77").is_ok());
    say!("odd names: {} {}", stat(c"/proc/self/fd/x").is_ok(), stat(c"/proc/self/fd/00").is_ok());
    let mode = |fd: i32| stat(&path(format!("/proc/self/fd/{fd}"))).map_or(0, |stat| stat.st_mode);
    say!("modes: {:o} {:o} {:o}", mode(fd), mode(0), mode(reader));
    let mut names: Vec<String> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    say!("list: {}", names.join(" "));
    say!("open a socket through it: {}", open(&path(format!("/proc/self/fd/{}", pair[0])), O_RDWR));
}

fn descriptor_info() {
    let fd = create(c"f", "contents");
    sys!(SYS_lseek, fd, 3, SEEK_SET);
    let show = |fd: i32| {
        let all = text(&format!("/proc/self/fdinfo/{fd}"));
        say!("{} {}", line(&all, "pos:"), line(&all, "flags:"));
    };
    show(fd);
    sys!(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
    show(fd);
    sys!(SYS_fcntl, fd, F_SETFL, O_APPEND | O_NONBLOCK);
    show(fd);
    show(0);
    show(open(c".", O_PATH).fd());
    let event = sys!(SYS_eventfd2, 5, 0).fd();
    say!("{}", line(&text(&format!("/proc/self/fdinfo/{event}")), "eventfd-count:"));
    say!("closed: {}", text("/proc/self/fdinfo/77"));
}

fn maps() {
    let fd = create(c"f", &"x".repeat(8192));
    let at = crate::memory::map(8192, PROT_READ, MAP_PRIVATE, fd, 4096).need();
    let anonymous = crate::memory::pages(1) as i64;
    let all = text("/proc/self/maps");
    let find = |address: i64| all.lines().find(|line| line.starts_with(&format!("{address:08x}-"))).map(str::to_string);
    let found = find(at).unwrap_or_default();
    let words: Vec<&str> = found.split_whitespace().collect();
    say!("file: {:?}", (words.get(1), words.get(2), words.get(5)));
    say!("length: {}", found.starts_with(&format!("{at:08x}-{:08x} ", at + 8192)));
    say!("column of the name: {:?}", found.find('/'));
    say!(
        "anonymous: {}",
        all.lines().any(|line| {
            let range = line.split(' ').next().unwrap_or_default();
            let ends: Vec<i64> = range.split('-').filter_map(|end| i64::from_str_radix(end, 16).ok()).collect();
            ends.len() == 2 && ends[0] <= anonymous && anonymous < ends[1] && line.contains("rw-p")
        })
    );
    for name in ["[stack]", "[vdso]", "/usr/bin/contracts"] {
        say!("{name}: {}", all.lines().any(|line| line.ends_with(name)));
    }
    unlink(c"f");
    say!("deleted: {}", text("/proc/self/maps").contains("/var/contract/f (deleted)"));
    let sorted = all.lines().filter_map(|line| u64::from_str_radix(line.split('-').next()?, 16).ok());
    say!("ascending: {}", sorted.is_sorted());
    say!("of process 1 by a user: {}", {
        process::as_plain_user(|| say!("{}", open(c"/proc/1/maps", O_RDONLY)));
        "above"
    });
}

fn tasks() {
    let pid = sys!(SYS_getpid).0;
    let list = |name: &str| std::fs::read_dir(name).map_or(0, |entries| entries.count());
    say!("one: {}", list("/proc/self/task"));
    say!("is the process: {}", stat(&path(format!("/proc/self/task/{pid}"))).is_ok());
    let (sender, receiver) = std::sync::mpsc::channel::<i64>();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        sys!(SYS_prctl, PR_SET_NAME, c"second");
        let _ = sender.send(sys!(SYS_gettid).0);
        let _ = wait.recv();
    });
    let tid = receiver.recv().unwrap_or(0);
    say!("two: {}", list("/proc/self/task"));
    say!("its name: {:?}", text(&format!("/proc/self/task/{tid}/comm")));
    say!("the process's: {:?}", text("/proc/self/comm"));
    say!("as a process: {:?}", text(&format!("/proc/{tid}/comm")));
    say!("{}", line(&text("/proc/self/status"), "Threads:"));
    say!(
        "not listed: {}",
        std::fs::read_dir("/proc").is_ok_and(|entries| {
            entries.flatten().all(|entry| entry.file_name().to_string_lossy() != tid.to_string())
        })
    );
    say!("another's task: {}", stat(c"/proc/self/task/1").is_ok());
    let _ = done.send(());
    let _ = thread.join();
    while stat(&path(format!("/proc/self/task/{tid}"))).is_ok() {
        process::sleep_ms(1);
    }
    say!("ended: {}", list("/proc/self/task"));
}

fn others() {
    let own = sys!(SYS_getpid).0;
    process::as_plain_user(|| {
        for name in
            ["stat", "status", "cmdline", "comm", "maps", "environ", "limits", "auxv", "mounts", "oom_score_adj"]
        {
            let path = path(format!("/proc/{own}/{name}"));
            let opened = open(&path, O_RDONLY);
            let read = if opened.ok() {
                let mut byte = [0u8; 1];
                let ret = sys!(SYS_read, opened.0, &mut byte, 1);
                ret.ok_or_error()
            } else {
                "-".into()
            };
            say!("{name}: open {}, read {read}", opened.ok_or_error());
        }
        for name in ["exe", "cwd", "root", "fd/0"] {
            let link = std::fs::read_link(format!("/proc/{own}/{name}"));
            say!(
                "{name}: {}",
                link.map_or_else(
                    |error| Ret(-i64::from(error.raw_os_error().unwrap_or(0))).to_string(),
                    |_| "ok".into()
                )
            );
        }
        say!("fd: {}", open(&path(format!("/proc/{own}/fd")), O_RDONLY | O_DIRECTORY));
        say!("task: {}", open(&path(format!("/proc/{own}/task")), O_RDONLY | O_DIRECTORY).ok_or_error());
        say!("owner: {:?}", stat(&path(format!("/proc/{own}"))).map(|stat| stat.st_uid).ok());
    });
}

fn the_dead() {
    let child = process::child(|| 5);
    while process::state(child) != 'Z' {
        process::sleep_ms(1);
    }
    let name = |file: &str| path(format!("/proc/{child}/{file}"));
    say!("a zombie's comm: {}", contents(&name("comm")));
    say!("{}", line(&text(&format!("/proc/{child}/status")), "State:"));
    say!("maps: {}", contents(&name("maps")));
    say!("environ: {}", contents(&name("environ")));
    say!("fd: {}", std::fs::read_dir(format!("/proc/{child}/fd")).map_or(0, |entries| entries.count()));
    say!("exe: {}", std::fs::read_link(format!("/proc/{child}/exe")).is_ok());
    say!("cwd: {}", std::fs::read_link(format!("/proc/{child}/cwd")).is_ok());
    let stat_file = open(&name("stat"), O_RDONLY).fd();
    let directory = open(&path(format!("/proc/{child}")), O_RDONLY | O_DIRECTORY).fd();
    process::wait(child);
    let mut buffer = [0u8; 100];
    say!("waited for, an open stat: {}", sys!(SYS_read, stat_file, &mut buffer, 100));
    say!("an open directory: {}", sys!(SYS_openat, directory, c"stat", O_RDONLY, 0));
    say!("its entries: {}", sys!(SYS_getdents64, directory, &mut buffer, 100));
    say!("gone: {}", open(&name("stat"), O_RDONLY));
    say!("the directory: {}", stat(&path(format!("/proc/{child}"))).is_ok());
    close(directory);
    say!("odd names: {} {} {}", stat(c"/proc/0").is_ok(), stat(c"/proc/01").is_ok(), stat(c"/proc/-1").is_ok());
}

fn limits_and_environment() {
    let limit = [123u64, 4567];
    sys!(SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, 0);
    let limit = [u64::MAX, u64::MAX];
    sys!(SYS_prlimit64, 0, RLIMIT_CORE, &limit, 0);
    let all = text("/proc/self/limits");
    for key in
        ["Limit", "Max cpu time", "Max file size", "Max core file size", "Max open files", "Max realtime timeout"]
    {
        say!("{}", line(&all, key).split_whitespace().collect::<Vec<_>>().join(" "));
    }
    say!("lines: {}", all.lines().count());
    let auxv = std::fs::read("/proc/self/auxv").unwrap_or_default();
    let pairs: Vec<(u64, u64)> = auxv
        .chunks_exact(16)
        .map(|pair| {
            let word = |at: usize| u64::from_le_bytes(pair[at..at + 8].try_into().unwrap_or_default());
            (word(0), word(8))
        })
        .collect();
    let value = |key: u64| pairs.iter().find(|(found, _)| *found == key).map(|(_, value)| *value);
    say!(
        "page size {:?}, ticks {:?}, ids {:?} {:?}, secure {:?}",
        value(6),
        value(17),
        value(11),
        value(13),
        value(23)
    );
    say!("ends in nothing: {:?}", pairs.last());
}

fn system_keys() {
    let all = text("/proc/meminfo");
    for key in ["MemTotal:", "MemFree:", "MemAvailable:", "Buffers:", "Cached:", "SwapTotal:", "SwapFree:", "Dirty:"] {
        let found = line(&all, key);
        say!("{key} {}", found.ends_with(" kB") && found.split_whitespace().count() == 3);
    }
    for key in ["Shmem:", "Slab:", "AnonPages:", "Active:", "Inactive:", "SReclaimable:"] {
        say!("{key} {}", line(&all, key) != "(none)");
    }
    let all = text("/proc/stat");
    let words = |key: &str| line(&all, key).split_whitespace().count();
    say!("cpu {} cpu0 {}", words("cpu "), words("cpu0 "));
    for key in ["intr ", "ctxt ", "btime ", "processes ", "procs_running ", "procs_blocked "] {
        say!("{key} {}", words(key) > 1);
    }
    let all = text("/proc/cpuinfo");
    for key in ["processor", "BogoMIPS", "Features", "CPU implementer", "CPU architecture", "CPU part", "CPU revision"]
    {
        say!("{key} {}", line(&all, key).contains(": "));
    }
}

fn system_shapes() {
    let words = |name: &str| text(name).split_whitespace().map(str::to_string).collect::<Vec<_>>();
    let numbers = |words: &[String]| words.iter().filter(|word| word.parse::<f64>().is_ok()).count();
    let uptime = words("/proc/uptime");
    say!("uptime: {} words, {} numbers", uptime.len(), numbers(&uptime));
    say!("two digits: {}", uptime.iter().all(|word| word.split('.').nth(1).is_some_and(|rest| rest.len() == 2)));
    let load = words("/proc/loadavg");
    say!(
        "loadavg: {} words, {} numbers, {}",
        load.len(),
        numbers(&load),
        load.get(3).is_some_and(|word| word.contains('/'))
    );
    say!("version: {}", text("/proc/version").starts_with("Linux version "));
    let all = text("/proc/filesystems");
    for name in ["nodev\tproc", "nodev\ttmpfs", "nodev\tdevpts", "nodev\tsysfs", "nodev\tdevtmpfs", "\text2"] {
        say!("{name:?}: {}", all.lines().any(|line| line == name));
    }
    say!("hostname: {}", text("/proc/sys/kernel/hostname").ends_with('\n'));
    say!("ostype: {:?}", text("/proc/sys/kernel/ostype"));
    say!("pid_max: {}", text("/proc/sys/kernel/pid_max").trim().parse::<u32>().is_ok());
    say!("boot_id: {}", text("/proc/sys/kernel/random/boot_id").trim().len());
    say!("uuid differs: {}", text("/proc/sys/kernel/random/uuid") != text("/proc/sys/kernel/random/uuid"));
    say!("cmdline: {}", text("/proc/cmdline").ends_with('\n'));
    say!("partitions: {}", text("/proc/partitions").starts_with("major minor  #blocks  name\n\n"));
    say!("swaps: {:?}", text("/proc/swaps").split_whitespace().next());
    say!("a directory that is not there: {}", text("/proc/nothing"));
}

fn mounts() {
    let all = text("/proc/self/mounts");
    say!("as /proc/mounts: {}", all == text("/proc/mounts"));
    for place in ["/", "/proc", "/tmp", "/dev/pts"] {
        let found = all.lines().rev().find(|line| line.split(' ').nth(1) == Some(place)).unwrap_or_default();
        let words: Vec<&str> = found.split(' ').collect();
        say!("{place}: {} words, type {:?}, last {:?} {:?}", words.len(), words.get(2), words.get(4), words.get(5));
        say!("rw first: {}", words.get(3).is_some_and(|options| options.starts_with("rw")));
    }
    let all = text("/proc/self/mountinfo");
    let found = all.lines().find(|line| line.split(' ').nth(4) == Some("/tmp")).unwrap_or_default();
    let halves: Vec<&str> = found.split(" - ").collect();
    say!("mountinfo: {} words before the hyphen, {} after", halves[0].split(' ').count() >= 6, {
        halves.get(1).map_or(0, |half| half.split(' ').count())
    });
    say!("root in it: {:?}", halves[0].split(' ').nth(3));
    say!("device: {}", {
        let device = stat(c"/tmp").map_or(0, |stat| stat.st_dev);
        halves[0].split(' ').nth(2) == Some(&format!("{}:{}", libc::major(device), libc::minor(device)))
    });
    say!("a line for each: {}", all.lines().count() == text("/proc/mounts").lines().count());
}

fn oom() {
    say!("at first: {:?}", text("/proc/self/oom_score_adj"));
    let put = |value: &str| {
        let ret = write(open(c"/proc/self/oom_score_adj", O_WRONLY).fd(), value);
        format!("{ret} {:?}", text("/proc/self/oom_score_adj"))
    };
    say!("500: {}", put("500"));
    say!("with a new line: {}", put("-17\n"));
    say!("1000: {}", put("1000"));
    say!("1001: {}", put("1001"));
    say!("-1001: {}", put("-1001"));
    say!("no number: {}", put("x"));
    put("100");
    process::as_plain_user(|| {
        say!("inherited: {:?}", text("/proc/self/oom_score_adj"));
        let fd = open(c"/proc/self/oom_score_adj", O_WRONLY);
        say!("a user's own: {}", fd.ok_or_error());
    });
    say!("oom_score: {}", text("/proc/self/oom_score").trim().parse::<i32>().is_ok());
}

fn offsets() {
    let fd = open(c"/proc/self/comm", O_RDONLY).fd();
    say!("in pieces: {} {} {} {}", crate::file::read(fd, 3), crate::file::read(fd, 3), crate::file::read(fd, 10), {
        crate::file::read(fd, 10)
    });
    say!("pread: {}", crate::file::read_at(fd, 4, 2));
    say!("rewound: {} {}", sys!(SYS_lseek, fd, 0, SEEK_SET), crate::file::read(fd, 20));
    say!("behind the end: {} {}", sys!(SYS_lseek, fd, 1000, SEEK_SET), crate::file::read(fd, 20));
    say!("write to a reader: {}", write(fd, "x"));
    say!("to what is only read: {}", open(c"/proc/self/stat", O_WRONLY).ok_or_error());
    say!("O_TRUNC: {}", open(c"/proc/self/comm", O_WRONLY | O_TRUNC).ok_or_error());
    say!("size: {:?}", stat(c"/proc/self/stat").map(|stat| stat.st_size).ok());
    let gate = Gate::new();
    let fd = open(c"/proc/self/stat", O_RDONLY).fd();
    let own = sys!(SYS_getpid).0.to_string();
    process::in_child(|| {
        let found = crate::file::read(fd, 20);
        say!("opened by the parent, read by a child: {}", found.contains(&format!("\"{own} ")));
        gate.open();
        0
    });
    gate.pass();
}

fn modes() {
    let show = |name: &str| {
        let stat = stat(&path(name));
        say!("{name}: {:o}", stat.map_or(0, |stat| stat.st_mode));
    };
    for name in ["/proc", "/proc/self", "/proc/meminfo", "/proc/sys", "/proc/sys/kernel/hostname", "/proc/version"] {
        show(name);
    }
    for name in ["stat", "status", "cmdline", "comm", "maps", "environ", "fd", "fdinfo", "task", "limits", "auxv"] {
        let stat = stat(&path(format!("/proc/{}/{name}", sys!(SYS_getpid).0)));
        say!("{name}: {:o}", stat.map_or(0, |stat| stat.st_mode));
    }
    for name in ["exe", "cwd", "root", "mounts", "mountinfo", "oom_score_adj", "oom_score", "statm"] {
        let stat = stat(&path(format!("/proc/{}/{name}", sys!(SYS_getpid).0)));
        say!("{name}: {:o}", stat.map_or(0, |stat| stat.st_mode));
    }
}
