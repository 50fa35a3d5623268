//! Keys for a look at a machine that hangs, and to end it in order: a break and a letter on the serial console, or a letter
//! written to /proc/sysrq-trigger. The letters are those of Linux (`Documentation/admin-guide/sysrq.rst`).

use alloc::string::String;
use alloc::sync::Arc;
use core::sync::atomic::AtomicI32;
use core::sync::atomic::Ordering::Relaxed;

use crate::boot;
use crate::process::{Process, Task, oom, processes, run, tasks, waits};
use crate::signal::{self, SigInfo};
use crate::{arch, exec, klog, mm};

/// /proc/sys/kernel/sysrq: 1 allows all keys of the console, 0 none; else bits as below.
static MASK: AtomicI32 = AtomicI32::new(1);

const LOG_LEVEL: i32 = 2;
const KEYBOARD: i32 = 4;
const DUMP: i32 = 8;
const SYNC: i32 = 16;
const REMOUNT: i32 = 32;
const SIGNAL: i32 = 64;
const BOOT: i32 = 128;

/// A key: its letter, its name in the help, the bit that allows it, and what the log says when it is pressed.
struct Key {
    letter: u8,
    help: &'static str,
    bit: i32,
    title: &'static str,
}

const fn key(letter: u8, help: &'static str, bit: i32, title: &'static str) -> Key {
    Key { letter, help, bit, title }
}

const KEYS: &[Key] = &[
    key(b'b', "reboot(b)", BOOT, "Resetting"),
    key(b'e', "terminate-all-tasks(e)", SIGNAL, "Terminate All Tasks"),
    key(b'f', "memory-full-oom-kill(f)", SIGNAL, "Manual OOM execution"),
    key(b'i', "kill-all-tasks(i)", SIGNAL, "Kill All Tasks"),
    key(b'k', "sak(k)", KEYBOARD, "SAK"),
    key(b'l', "show-backtrace-all-active-cpus(l)", DUMP, "Show backtrace of all active CPUs"),
    key(b'm', "show-memory-usage(m)", DUMP, "Show Memory"),
    key(b'o', "poweroff(o)", BOOT, "Power Off"),
    key(b's', "sync(s)", SYNC, "Emergency Sync"),
    key(b't', "show-task-states(t)", DUMP, "Show State"),
    key(b'u', "unmount(u)", REMOUNT, "Emergency Remount R/O"),
    key(b'w', "show-blocked-tasks(w)", DUMP, "Show Blocked State"),
];

pub fn mask() -> i32 {
    MASK.load(Relaxed)
}

pub fn set_mask(mask: i32) {
    MASK.store(mask, Relaxed);
}

/// A byte that came after a break on the console, in an interrupt handler. False if keys are switched off: then it is input.
pub fn key_after_break(letter: u8) -> bool {
    let mask = mask();
    if mask == 0 {
        return false;
    }
    let bit = match letter {
        b'0'..=b'9' => LOG_LEVEL,
        _ => KEYS.iter().find(|key| key.letter == letter).map_or(0, |key| key.bit),
    };
    if mask == 1 || mask & bit == bit {
        press(letter);
    } else {
        say("This sysrq operation is disabled.".into());
    }
    true
}

/// Does what the letter stands for, in a task of its own: nothing here waits.
pub fn press(letter: u8) {
    if letter.is_ascii_digit() {
        klog::set_console_level(letter - b'0');
        return say(format!("Loglevel set to {}", letter - b'0'));
    }
    let Some(key) = KEYS.iter().find(|key| key.letter == letter) else { return help() };
    say(key.title.into());
    match letter {
        b'b' => arch::reboot(),
        b'l' => show_cpus(),
        _ => exec::spawn("sysrq", act(letter)),
    }
}

async fn act(letter: u8) {
    match letter {
        b'e' => signal_all(signal::SIGTERM),
        b'f' => oom::end_on_request().await,
        b'i' => signal_all(signal::SIGKILL),
        b'k' => secure_attention(),
        b'm' => show_memory(),
        b'o' => boot::shutdown(boot::How::PowerOff).await,
        b's' => {
            let _ = crate::fs::mount::sync_all().await;
            say("Emergency Sync complete".into());
        }
        b't' => show_tasks(),
        b'u' => {
            boot::make_clean().await;
            say("Emergency Remount complete".into());
        }
        _ => show_waits(),
    }
}

/// Whatever the console's level is, these lines are shown: somebody has asked for them.
fn say(line: String) {
    klog::print_always(&format_args!("sysrq: {line}"));
}

fn help() {
    let mut line = String::from("HELP : loglevel(0-9)");
    for key in KEYS {
        line.push(' ');
        line.push_str(key.help);
    }
    say(line);
}

fn signal_all(signo: u8) {
    for process in processes().filter(|process| process.pid != 1) {
        let _ = signal::send_to_process(&process, SigInfo::kernel(signo));
    }
}

/// Ends whoever has the console as its terminal.
fn secure_attention() {
    let console = crate::fs::tty::console::tty();
    let uses = |process: &Process| {
        let session = process.session.read().clone();
        session.tty.lock().as_ref().is_some_and(|tty| core::ptr::addr_eq(Arc::as_ptr(tty), Arc::as_ptr(console)))
    };
    for process in processes().filter(|process| process.pid != 1 && uses(process)) {
        let _ = signal::send_to_process(&process, SigInfo::kernel(signal::SIGKILL));
    }
}

fn name(task: &Task) -> String {
    let comm = task.comm();
    String::from_utf8_lossy(comm.split(|byte| *byte == 0).next().unwrap_or(&[])).into_owned()
}

fn show_cpus() {
    for (cpu, task) in run::current_of_cpus().into_iter().enumerate() {
        match task {
            Some(task) => say(format!("CPU {cpu}: thread {} ({})", task.tid(), name(&task))),
            None => say(format!("CPU {cpu}: idle, or in the kernel's own tasks")),
        }
    }
}

fn show_memory() {
    let m = mm::meminfo();
    let kib = |bytes: u64| bytes >> 10;
    say(format!("total {} kB, free {} kB, available {} kB", kib(m.total), kib(m.free), kib(m.available)));
    say(format!("files {} kB, anonymous {} kB, kernel heap {} kB", kib(m.cached), kib(m.anon), kib(m.slab)));
}

fn show_tasks() {
    tasks().for_each(|task| show_task(&task));
}

fn show_task(task: &Arc<Task>) {
    let (tid, pid) = (task.tid(), task.process().pid);
    match waits::of(task) {
        Some(wait) => show_wait(task, &wait),
        None => say(format!("{} {tid} of {pid} runs", name(task))),
    }
}

fn show_wait(task: &Task, wait: &waits::Wait) {
    let (tid, pid) = (task.tid(), task.process().pid);
    let seconds = exec::Instant::now().saturating_since(wait.since).as_millis();
    let mut line =
        format!("{} {tid} of {pid} waits {}.{:03} s for {}", name(task), seconds / 1000, seconds % 1000, wait.what);
    if let Some(call) = wait.call {
        line += &format!(" in {call}");
    }
    if !wait.holders.is_empty() {
        let holders: alloc::vec::Vec<String> = wait.holders.iter().map(|holder| format!("{holder}")).collect();
        line += &format!(", held by {}", holders.join(" "));
    }
    say(line);
}

fn show_waits() {
    let all = waits::all();
    for (task, wait) in &all {
        show_wait(task, wait);
    }
    for circle in waits::circles(&all) {
        let members: alloc::vec::Vec<String> = circle.iter().map(|tid| format!("{tid}")).collect();
        say(format!("circle: {} wait for each other", members.join(" -> ")));
    }
}
