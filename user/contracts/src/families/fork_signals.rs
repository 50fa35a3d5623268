//! fork(2) while signals come: for its maker, for another thread, for a group, for everybody.

use std::sync::atomic::Ordering::SeqCst;

use libc::*;

use crate::file::{close, pipe};
use crate::memory::shared_words;
use crate::process::{Gate, Status, as_user, become_user, clone_here, exit, kill, sleep_ms, wait};
use crate::signal;
use crate::sys::{Ret, sys};
use crate::{say, tests};

tests! {
    meant_for_another_thread, under_a_stream_of_alarms, under_a_stream_for_the_group, blocked_for_the_group,
    a_group_that_forks, everybody_that_forks,
}

fn meant_for_another_thread() {
    let words = shared_words();
    let (ready, end) = (Gate::new(), Gate::new());
    let maker = child(|| {
        signal::handle(SIGUSR1, signal::count, SA_RESTART);
        let second = std::thread::spawn(move || {
            words[2].store(1, SeqCst);
            while words[0].load(SeqCst) == 0 {
                sleep_ms(1);
            }
            words[1].store(signal::CAUGHT.load(SeqCst) as u32, SeqCst);
            let status = in_child(|| signal::CAUGHT.load(SeqCst));
            say!("a child of the other thread has seen it handled: {status}");
            end.open();
        });
        while words[2].load(SeqCst) == 0 {
            sleep_ms(1);
        }
        // The first thread waits for its child, where it takes no signal.
        let waits = clone_here(CLONE_VFORK | SIGCHLD, std::ptr::null_mut(), std::ptr::null_mut());
        if waits.0 == 0 {
            signal::block(SIGUSR1);
            ready.open();
            end.pass();
            exit(0);
        }
        let _ = second.join();
        wait(waits.0 as i32);
        0
    });
    ready.pass();
    say!("sent: {}", kill(maker, SIGUSR1));
    words[0].store(1, SeqCst);
    say!("{}", wait(maker));
    say!("handled before it made one: {}", words[1].load(SeqCst));
}

/// A child by the call itself: the C library blocks signals around it.
fn child(body: impl FnOnce() -> i32) -> i32 {
    let made = clone_here(SIGCHLD, std::ptr::null_mut(), std::ptr::null_mut()).0;
    if made == 0 {
        exit(body());
    }
    made as i32
}

fn in_child(body: impl FnOnce() -> i32) -> Status {
    wait(child(body))
}

fn interval(microseconds: i64) -> Ret {
    let time = timeval { tv_sec: 0, tv_usec: microseconds };
    sys!(SYS_setitimer, ITIMER_REAL, &itimerval { it_interval: time, it_value: time }, 0)
}

/// Makes children until that many have come and gone well.
fn make(count: usize) -> usize {
    let well = Status::from_wait(0).to_string();
    (0..count).filter(|_| in_child(|| 0).to_string() == well).count()
}

fn under_a_stream_of_alarms() {
    let status = in_child(|| {
        signal::handle(SIGALRM, signal::count, SA_RESTART);
        interval(300);
        let made = make(30);
        interval(0);
        say!("children made: {made}, alarms came: {}", signal::caught() > 0);
        0
    });
    say!("{status}");
}

fn under_a_stream_for_the_group() {
    let status = in_child(|| {
        sys!(SYS_setpgid, 0, 0);
        signal::handle(SIGUSR1, signal::count, SA_RESTART);
        let words = shared_words();
        let sender = child(|| {
            signal::ignore(SIGUSR1);
            while words[0].load(SeqCst) == 0 {
                kill(0, SIGUSR1);
                sleep_ms(1);
            }
            0
        });
        let made = make(30);
        words[0].store(1, SeqCst);
        say!("children made: {made}");
        wait(sender);
        0
    });
    say!("{status}");
}

/// A signal that is blocked does not hold up a fork, and is in no child that comes after it.
fn blocked_for_the_group() {
    let status = in_child(|| {
        sys!(SYS_setpgid, 0, 0);
        signal::block(SIGUSR1);
        say!("sent: {}", kill(0, SIGUSR1));
        say!("pending: {}", signal::names(signal::pending()));
        in_child(|| {
            say!("in the child: {}", signal::names(signal::pending()));
            0
        });
        0
    });
    say!("{status}");
}

/// Makes children that make children, until it is killed.
fn breed(generations: u32) -> ! {
    loop {
        let pid = child(|| if generations > 0 { breed(generations - 1) } else { 0 });
        sys!(SYS_wait4, if generations > 0 { -1 } else { pid }, 0, if generations > 0 { WNOHANG } else { 0 }, 0);
        if generations > 0 {
            sleep_ms(3);
        }
    }
}

/// Has all ends of the pipe that breeders have gone within ten seconds?
fn gone(reader: i32) -> bool {
    let mut poll = pollfd { fd: reader, events: POLLIN, revents: 0 };
    let time = timespec { tv_sec: 10, tv_nsec: 0 };
    sys!(SYS_ppoll, &mut poll, 1, &time, 0, 0).0 == 1
}

fn a_group_that_forks() {
    let mut all = 0;
    for _ in 0..10 {
        let [reader, writer] = pipe();
        let leader = child(|| {
            sys!(SYS_setpgid, 0, 0);
            breed(1)
        });
        close(writer);
        sys!(SYS_setpgid, leader, leader);
        sleep_ms(15);
        kill(-leader, SIGKILL);
        all += i32::from(gone(reader));
        wait(leader);
        close(reader);
    }
    say!("killed with all that they had made: {all}");
}

fn everybody_that_forks() {
    let mut all = 0;
    for _ in 0..10 {
        let [reader, writer] = pipe();
        let ready = Gate::new();
        let first = child(|| {
            become_user(54_330);
            ready.open();
            breed(1)
        });
        close(writer);
        ready.pass();
        sleep_ms(15);
        as_user(54_330, || {
            kill(-1, SIGKILL);
            0
        });
        all += i32::from(gone(reader));
        wait(first);
        close(reader);
    }
    say!("killed with all that they had made: {all}");
}
