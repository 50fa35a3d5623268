//! What threads wait for, and who could end that: /proc/PID/await, wchan, stack, and the key `w` of [`crate::sysrq`].
//!
//! Nothing is written down when a thread begins to wait. What it waits for is told from the registers of the system call that
//! it is in, the files and the memory that these name, when somebody asks.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr;

use super::run::{Doing, look_at};
use super::table::{self, Pid};
use super::task::Task;
use crate::arch::UserRegs;
use crate::exec::Instant;
use crate::fs::{OpenFile, pipe};
use crate::io_uring;
use crate::syscalls;

/// A thread that waits.
pub struct Wait {
    /// The system call that it is in.
    pub call: Option<&'static str>,
    /// What it waits for, in words.
    pub what: String,
    pub since: Instant,
    /// Threads (or processes, by their first thread) that hold what it waits for.
    pub holders: Vec<Pid>,
    /// One of the holders has to act: the wait ends by nobody else.
    pub bound: bool,
}

/// Descriptors that are looked at to find the other ends of a pipe.
const MAX_FILES: usize = 1 << 16;
/// Descriptors of a poll set that are named.
const MAX_NAMED: u64 = 16;

/// IORING_ENTER_REGISTERED_RING.
const REGISTERED_RING: u64 = 16;

const FUTEX_WAITERS: u32 = 0x8000_0000;
const FUTEX_TID_MASK: u32 = 0x3fff_ffff;

/// What the thread waits for; None if it runs.
pub fn of(task: &Arc<Task>) -> Option<Wait> {
    let (call, regs) = match look_at(task) {
        Doing::Runs => return None,
        Doing::Call(regs) => (true, regs),
        Doing::Waits(_) => {
            let what = match task.trace() {
                Some(_) if task.is_trapped() => "its tracer",
                _ if task.process().sig.is_stopped() => "to be continued",
                _ => "a page",
            };
            return Some(Wait { call: None, ..plain(task, what.into()) });
        }
    };
    let wait = describe(task, &regs);
    Some(Wait { call: call.then(|| syscalls::name(regs.x[8])), ..wait })
}

fn plain(task: &Task, what: String) -> Wait {
    let since = task.entity.asleep_since().unwrap_or_else(Instant::now);
    Wait { call: None, what, since, holders: Vec::new(), bound: false }
}

/// By the number of the call (the numbers of arm64).
fn describe(task: &Arc<Task>, regs: &UserRegs) -> Wait {
    let x = &regs.x;
    let wait = |what: String| plain(task, what);
    match regs.x[8] {
        98 => futex(task, x[0], x[1], x[4]),
        449 => wait(format!("one of {} futexes", x[1])),
        63 | 65 | 67 | 69 => file(task, x[0] as i32, "input from", true),
        64 | 66 | 68 | 70 => file(task, x[0] as i32, "room in", false),
        76 | 77 => file(task, x[0] as i32, "the end of a transfer with", true),
        202 | 242 => file(task, x[0] as i32, "a connection to", true),
        203 => file(task, x[0] as i32, "to be accepted by the peer of", false),
        207 | 212 | 243 => file(task, x[0] as i32, "a message from", true),
        206 | 211 | 269 => file(task, x[0] as i32, "room in", false),
        32 => file(task, x[0] as i32, "a lock of", false),
        25 => file(task, x[0] as i32, "a lock of a part of", false),
        426 if x[3] & REGISTERED_RING == 0 => ring(task, x[0] as i32),
        426 => wait("completions of a registered ring".into()),
        22 | 441 => file(task, x[0] as i32, "events of", true),
        73 => poll_set(task, x[0], x[1]),
        72 => wait(format!("one of {} descriptors, or a time", x[0])),
        101 | 115 => wait("a time".into()),
        133 | 137 => wait("a signal".into()),
        193 | 192 => wait(format!("semaphores of set {}", x[0])),
        260 => child(task, x[0] as i32),
        95 => child(task, if x[0] == 1 { x[1] as i32 } else { -1 }),
        220 | 221 | 281 | 435 => vfork_child(task),
        number => wait(String::from(syscalls::name(number))),
    }
}

fn futex(task: &Arc<Task>, addr: u64, op: u64, lock: u64) -> Wait {
    const PRIVATE: u64 = 128;
    let name = match op & 0x7f {
        0 | 9 => "a wake of futex",
        6 | 13 => "the lock",
        11 => "to be requeued, or the lock; futex",
        _ => "futex",
    };
    let kind = if op & PRIVATE != 0 { "private" } else { "shared" };
    let mut wait = plain(task, format!("{name} {addr:#x} ({kind})"));
    let mm = task.handles().mm;
    let peek = |addr: u64| mm.as_ref().and_then(|mm| mm.peek(addr));
    let owner = match (op & 0x7f, peek(addr)) {
        (6 | 13, Some(word)) => word & FUTEX_TID_MASK,
        // A robust lock of a C library: its word names the owner, and says that others wait.
        (0 | 9, Some(word)) if word & FUTEX_WAITERS != 0 => word & FUTEX_TID_MASK,
        (11, _) => peek(lock).unwrap_or(0) & FUTEX_TID_MASK,
        _ => 0,
    };
    wait.holders.extend(table::find_task(owner).map(|task| task.tid()));
    wait.bound = op & 0x7f != 11;
    wait
}

/// A call on a file. Of a pipe, the holders are those who have the other end.
fn file(task: &Arc<Task>, fd: i32, verb: &str, reads: bool) -> Wait {
    let Some(open) = task.handles().files.and_then(|files| files.get(fd).ok()) else {
        return plain(task, format!("{verb} descriptor {fd}"));
    };
    let mut wait = plain(task, format!("{verb} {} (descriptor {fd})", name_of(&open)));
    if let Some(pipe) = pipe::of_file(&open) {
        wait.holders = ends_of(pipe, !reads);
        wait.bound = true;
    }
    wait
}

/// Completions of a ring: of these requests.
fn ring(task: &Arc<Task>, fd: i32) -> Wait {
    let found = task.handles().files.and_then(|files| files.get(fd).ok());
    let Some((requests, count)) = found.and_then(|file| io_uring::requests_of(&file, MAX_NAMED as usize)) else {
        return plain(task, format!("completions of descriptor {fd}"));
    };
    let named: Vec<String> = requests
        .iter()
        .map(|(what, file)| match file {
            Some(file) => format!("{what} {}", name_of(file)),
            None => String::from(*what),
        })
        .collect();
    let more = if count > named.len() { ", and more" } else { "" };
    plain(task, format!("completions of a ring (descriptor {fd}): {}{more}", named.join(", ")))
}

fn name_of(file: &OpenFile) -> String {
    String::from_utf8_lossy(&file.path().display(None)).into_owned()
}

/// Processes that have the reading or the writing end of a pipe open.
fn ends_of(pipe: &Arc<pipe::Pipe>, reading: bool) -> Vec<Pid> {
    let mut looked = 0;
    let mut found = Vec::new();
    for process in table::processes() {
        let Some(files) = process.any_thread().and_then(|task| task.handles().files) else { continue };
        let mut fds = files.open_fds(0).take(MAX_FILES.saturating_sub(looked)).inspect(|_| looked += 1);
        let has = fds.any(|fd| {
            let is_end = |file: &OpenFile| {
                let right = if reading { file.readable() } else { file.writable() };
                (right && pipe::of_file(file).is_some_and(|other| ptr::eq(&**other, &**pipe))).then_some(())
            };
            files.with(fd, is_end).is_some()
        });
        if has {
            found.push(process.pid);
        }
        if looked >= MAX_FILES {
            break;
        }
    }
    found
}

fn poll_set(task: &Arc<Task>, at: u64, count: u64) -> Wait {
    let handles = task.handles();
    let mut names = Vec::new();
    for index in 0..count.min(MAX_NAMED) {
        // struct pollfd has 8 bytes, the descriptor first.
        let fd = handles.mm.as_ref().and_then(|mm| mm.peek(at.wrapping_add(8 * index)));
        let Some(fd) = fd.map(u32::cast_signed).filter(|fd| *fd >= 0) else { continue };
        let file = handles.files.as_ref().and_then(|files| files.get(fd).ok());
        names.push(file.map_or_else(|| format!("{fd}"), |file| format!("{} ({fd})", name_of(&file))));
    }
    let more = if count > MAX_NAMED { ", and more" } else { "" };
    let what = if names.is_empty() { "a time, or a signal".into() } else { names.join(", ") };
    plain(task, format!("events of {what}{more}"))
}

/// A child to end or stop: a certain one, one of a group, or any.
fn child(task: &Arc<Task>, pid: i32) -> Wait {
    let what = match pid {
        1.. => format!("child {pid}"),
        0 => "a child of its group".into(),
        -1 => "any child".into(),
        _ => format!("a child of group {}", pid.unsigned_abs()),
    };
    let mut wait = plain(task, what);
    let parent = task.process().pid;
    let fits = |child: Pid| pid <= 0 || child == pid.unsigned_abs();
    wait.holders = table::lock().children(parent).map(|child| child.pid).filter(|child| fits(*child)).collect();
    wait.bound = true;
    wait
}

/// The child of vfork(2) to call execve or to end.
fn vfork_child(task: &Arc<Task>) -> Wait {
    let mut wait = plain(task, "the child of vfork".into());
    let children: Vec<_> = table::lock().children(task.process().pid).cloned().collect();
    let in_between = |child: &Arc<super::Process>| child.tasks().any(|task| task.vfork.lock().is_some());
    wait.holders = children.iter().filter(|child| in_between(child)).map(|child| child.pid).collect();
    wait.bound = true;
    wait
}

/// All threads that wait, by id, as far as there is memory for them.
pub fn all() -> Vec<(Arc<Task>, Wait)> {
    let mut all = Vec::new();
    for task in table::tasks() {
        if all.try_reserve(1).is_err() {
            break;
        }
        all.extend(of(&task).map(|wait| (task, wait)));
    }
    all.sort_unstable_by_key(|(task, _)| task.tid());
    all
}

/// Circles of threads each of which waits for the next, and for nobody else. Those who wait for a process wait for its one
/// thread.
pub fn circles(all: &[(Arc<Task>, Wait)]) -> Vec<Vec<Pid>> {
    let at = |tid: Pid| all.binary_search_by_key(&tid, |(task, _)| task.tid()).ok();
    let next = |index: usize| {
        let wait = &all.get(index)?.1;
        match wait.holders[..] {
            [holder] if wait.bound && is_alone(holder, wait) => at(holder),
            _ => None,
        }
    };
    // 0: not looked at; else the walk that came by.
    let mut seen = Vec::new();
    let mut circles = Vec::new();
    if seen.try_reserve_exact(all.len()).is_err() {
        return circles;
    }
    seen.resize(all.len(), 0);
    for start in 0..all.len() {
        let mut cursor = Some(start);
        while let Some(index) = cursor.filter(|index| seen[*index] == 0) {
            seen[index] = start + 1;
            cursor = next(index);
        }
        let Some(first) = cursor.filter(|index| seen[*index] == start + 1) else { continue };
        let mut circle = vec![all[first].0.tid()];
        let mut index = next(first);
        while let Some(member) = index.filter(|member| *member != first) {
            circle.push(all[member].0.tid());
            index = next(member);
        }
        circles.push(circle);
    }
    circles
}

/// A lock's owner is a thread; other holders are processes, of which any thread may act.
fn is_alone(holder: Pid, wait: &Wait) -> bool {
    wait.call == Some("futex") || table::find(holder).is_some_and(|process| process.thread_count() == 1)
}
