//! SEM_UNDO: what a process has done to semaphores is undone when it ends (semop(2)).

use std::ptr::null;

use libc::*;

use super::sem::{Op, SETVAL, UNDO, all, ctl, new, op, remove, set_all, value, waiter};
use crate::process::{self, Gate, child, in_child, sleep_ms, tid, until_asleep, wait};
use crate::sys::sys;
use crate::{say, tests};

tests! {
    undo, undo_clamped, undo_of_threads, undo_after_exec, undo_given_up, undo_forgotten, undo_range,
}

fn undo() {
    let id = new(2);
    set_all(id, &[5, 0]);
    in_child(|| {
        op(id, &[Op(0, -2, UNDO), Op(1, 3, UNDO)]);
        op(id, &[Op(0, -1, 0), Op(1, -1, UNDO)]);
        say!("in between: {}", all(id, 2));
        0
    });
    say!("after its end: {}", all(id, 2));
    let gate = Gate::new();
    let holder = child(|| {
        op(id, &[Op(0, -4, UNDO)]);
        gate.pass();
        0
    });
    until_asleep(holder);
    let pid = waiter(id, &[Op(0, -3, 0)]);
    say!("held: {}, {}", all(id, 2), process::state(pid));
    gate.open();
    say!("{} {}, {}", wait(holder), wait(pid), all(id, 2));
    let killed = child(|| {
        op(id, &[Op(0, 7, UNDO)]);
        process::sleep_ms(100_000);
        0
    });
    until_asleep(killed);
    say!("before the kill: {}", all(id, 2));
    process::kill(killed, SIGKILL);
    say!("{}, {}", wait(killed), all(id, 2));
    in_child(|| {
        op(id, &[Op(0, 1, UNDO)]);
        in_child(|| 0);
        say!("a child's end undoes nothing of its parent's: {}", all(id, 2));
        0
    });
    say!("{}", all(id, 2));
    remove(id);
}

fn undo_clamped() {
    let id = new(2);
    in_child(|| {
        op(id, &[Op(0, 5, UNDO)]);
        op(id, &[Op(0, -3, 0)]);
        op(id, &[Op(1, 10, 0)]);
        op(id, &[Op(1, -10, UNDO)]);
        op(id, &[Op(1, 32760, 0)]);
        0
    });
    say!("{}", all(id, 2));
    remove(id);
}

fn undo_of_threads() {
    let id = new(1);
    let gate = Gate::new();
    let pid = child(|| {
        std::thread::spawn(move || op(id, &[Op(0, 4, UNDO)])).join().ok();
        say!("after the thread's end: {}", value(id, 0));
        gate.pass();
        0
    });
    until_asleep(pid);
    gate.open();
    say!("{}, {}", wait(pid), value(id, 0));
    // Without CLONE_SYSVSEM, even if all else is shared.
    let mut stack = vec![0u8; 64 << 10];
    extern "C" fn add(id: usize) -> i32 {
        op(id as i32, &[Op(0, 4, UNDO)]);
        0
    }
    for (name, flags) in [("alone", 0), ("together", CLONE_SYSVSEM)] {
        let mut word = [tid(); 1];
        let tids = [std::ptr::null_mut(), word.as_mut_ptr()];
        let flags = flags | CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_CHILD_CLEARTID;
        process::clone_on(flags, &mut stack, tids, add, id as usize).need();
        // SAFETY: the kernel clears the word.
        while unsafe { word.as_ptr().read_volatile() } != 0 {
            sleep_ms(1);
        }
        sleep_ms(20);
        say!("{name}: {}", value(id, 0));
    }
    remove(id);
}

fn undo_after_exec() {
    let id = new(1);
    let pid = child(|| {
        op(id, &[Op(0, 4, UNDO)]);
        let path = c"/proc/self/exe";
        let guise = c"--as";
        let words = [path.as_ptr(), guise.as_ptr(), c"nothing".as_ptr(), null()];
        sys!(SYS_execve, path, &words, &[0usize; 1]);
        9
    });
    say!("{}, {}", wait(pid), value(id, 0));
    remove(id);
}

fn undo_given_up() {
    let id = new(1);
    in_child(|| {
        op(id, &[Op(0, 4, UNDO)]);
        say!("unshare: {}, {}", sys!(SYS_unshare, CLONE_SYSVSEM), value(id, 0));
        op(id, &[Op(0, 2, UNDO)]);
        say!("after it: {}", value(id, 0));
        0
    });
    say!("{}", value(id, 0));
    remove(id);
}

fn undo_forgotten() {
    let id = new(2);
    in_child(|| {
        op(id, &[Op(0, 4, UNDO), Op(1, 4, UNDO)]);
        ctl(id, 0, SETVAL, 7);
        0
    });
    say!("SETVAL: {}", all(id, 2));
    in_child(|| {
        op(id, &[Op(0, 4, UNDO), Op(1, 4, UNDO)]);
        set_all(id, &[8, 9]);
        0
    });
    say!("SETALL: {}", all(id, 2));
    in_child(|| {
        op(id, &[Op(0, 4, UNDO)]);
        remove(id);
        0
    });
    say!("removed: {}", value(id, 0));
}

fn undo_range() {
    let id = new(1);
    in_child(|| {
        say!("up: {}", op(id, &[Op(0, 32767, UNDO)]));
        say!("down without: {}", op(id, &[Op(0, -32767, 0)]));
        say!("one more: {}", op(id, &[Op(0, 1, UNDO)]));
        say!("two more: {} {}", op(id, &[Op(0, 1, UNDO)]), value(id, 0));
        0
    });
    say!("{}", value(id, 0));
    remove(id);
}
