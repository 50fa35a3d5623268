//! What /proc says about threads that wait, and the keys of /proc/sysrq-trigger.

use libc::*;

use crate::process::{self, as_user, child, kill, sleeper, until_asleep, wait};
use crate::sys::sys;
use crate::{say, tests};

tests! {
    syscall_of_a_sleeper, syscall_of_the_reader, syscall_of_others, wchan_of_a_sleeper, stack_of_others, trigger, mask,
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| format!("error {}", error.raw_os_error().unwrap_or(0)))
}

fn syscall_of_a_sleeper() {
    let mut ends = [0i32; 2];
    sys!(SYS_pipe2, &mut ends, 0).need();
    let pid = child(|| {
        let mut byte = [0u8; 1];
        sys!(SYS_read, ends[0], &mut byte, 1);
        0
    });
    until_asleep(pid);
    let text = read(&format!("/proc/{pid}/syscall"));
    let words: Vec<&str> = text.split_whitespace().collect();
    say!("{} words: {} {} … {}", words.len(), words[0], words[1] == format!("{:#x}", ends[0]), words[3]);
    say!("of its thread, the same: {}", read(&format!("/proc/{pid}/task/{pid}/syscall")) == text);
    say!("ends with a line: {}", text.ends_with('\n'));
    kill(pid, SIGSTOP);
    process::wait_for(pid, WUNTRACED);
    kill(pid, SIGCONT);
    until_asleep(pid);
    say!("after a stop: {}", read(&format!("/proc/{pid}/syscall")).split(' ').next().unwrap_or(""));
    sys!(SYS_write, ends[1], "x", 1);
    say!("{}", wait(pid));
}

fn syscall_of_the_reader() {
    let text = read("/proc/self/syscall");
    say!("{}", text.split(' ').next().unwrap_or("").trim_end() == "running" || text.starts_with("63 "));
}

fn syscall_of_others() {
    let pid = sleeper();
    for name in ["syscall", "stack"] {
        let path = format!("/proc/{pid}/{name}\0");
        as_user(1000, || {
            say!("{name}: {}", sys!(SYS_openat, AT_FDCWD, path.as_str(), O_RDONLY, 0));
            0
        });
        let mode = std::fs::metadata(&path[..path.len() - 1]).map(|data| std::os::unix::fs::MetadataExt::mode(&data));
        say!("{name}: {:o}", mode.unwrap_or(0));
    }
    kill(pid, SIGKILL);
    wait(pid);
}

fn wchan_of_a_sleeper() {
    let pid = sleeper();
    let path = format!("/proc/{pid}/wchan");
    let text = read(&path);
    say!("says something: {}, ends with a line: {}", text != "0" && !text.is_empty(), text.ends_with('\n'));
    as_user(1000, || {
        say!("to a user: {}", read(&path));
        0
    });
    say!("of itself: {}", read("/proc/self/wchan"));
    kill(pid, SIGKILL);
    wait(pid);
}

fn stack_of_others() {
    let pid = sleeper();
    let text = read(&format!("/proc/{pid}/stack"));
    say!("frames: {}", !text.is_empty() && text.lines().all(|line| line.starts_with("[<0>] ")));
    kill(pid, SIGKILL);
    wait(pid);
}

fn trigger() {
    let path = c"/proc/sysrq-trigger";
    let mode = std::fs::metadata("/proc/sysrq-trigger").map(|data| std::os::unix::fs::MetadataExt::mode(&data));
    say!("{:o}", mode.unwrap_or(0));
    let fd = sys!(SYS_openat, AT_FDCWD, path, O_WRONLY, 0).fd();
    for key in ["h", "m", "?", "hello", "s", "w", "t"] {
        say!("{key}: {}", sys!(SYS_write, fd, key, key.len()));
    }
    say!("nothing: {}", sys!(SYS_write, fd, "", 0));
    as_user(1000, || {
        say!("a user: {}", sys!(SYS_openat, AT_FDCWD, path, O_WRONLY, 0));
        0
    });
}

fn mask() {
    let path = "/proc/sys/kernel/sysrq";
    let before = read(path);
    for value in ["0", "1", "438", " 16\n", "-1", "x", ""] {
        let written = std::fs::write(path, value).map_or_else(|error| error.raw_os_error().unwrap_or(0), |()| 0);
        say!("{value:?}: {written}, {}", read(path).trim_end());
    }
    say!("{}", std::fs::write(path, before).is_ok());
    as_user(1000, || {
        say!("a user: {:?}", std::fs::write(path, "1").map_err(|error| error.raw_os_error()));
        0
    });
}
