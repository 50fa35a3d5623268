//! Terminals and those who use them: sessions, job control, hang-ups, and the files of ptys.

mod masters;

use libc::*;

use self::masters::{
    dev_tty, device_files, exclusive, hangup_of_a_session, leader_exits, locked, master_closes, packet_mode,
    slave_closes,
};
use crate::file::{self, open, read, write};
use crate::process::{self, Gate};
use crate::sys::{NOWHERE, sys};
use crate::terminal::{eventually, get, name_of, own_group, pty, session, set, typed, waiting_pty};
use crate::{say, signal, tests};

tests! { signals, signals_keep_input, window_size, controlling, not_a_leader, groups, background_reads, background_writes, background_changes, master_closes, slave_closes, hangup_of_a_session, leader_exits, locked, packet_mode, exclusive, device_files, dev_tty, stop_by_key }

/// A background group of a session: a child whose parent stays in the foreground.
fn background(body: impl FnOnce()) -> i32 {
    let ready = Gate::new();
    let child = process::child(|| {
        ready.pass();
        body();
        0
    });
    sys!(SYS_setpgid, child, child);
    ready.open();
    child
}

fn signals() {
    let (master, slave) = pty();
    for (key, number) in [("\x03", SIGINT), ("\x1c", SIGQUIT), ("\x1a", SIGTSTP)] {
        session(slave, || {
            signal::handle(number, signal::count, 0);
            write(master, "lost");
            signal::block(number);
            write(master, key);
            let (taken, info) = signal::take(signal::bit(number), 5000);
            say!("{}: {}, code {}", signal::name(number), taken.0 == i64::from(number), info.si_code);
            typed(master, slave, "kept\n", 5);
            say!("input before it is gone: {}", read(slave, 20));
        });
    }
    session(slave, || {
        let [reader, writer] = file::pipe();
        let other = process::child(|| {
            sys!(SYS_setpgid, 0, 0);
            signal::block(SIGINT);
            sys!(SYS_write, writer, "x", 1);
            let (taken, _) = signal::take(signal::bit(SIGINT), 5000);
            i32::from(taken.0 == i64::from(SIGINT))
        });
        read(reader, 1);
        signal::block(SIGTTOU);
        signal::block(SIGINT);
        say!("to the foreground: {}", sys!(SYS_ioctl, slave, TIOCSPGRP, &other));
        write(master, "\x03");
        say!("it got it: {}", process::wait(other));
        say!("the background did not: {}", signal::names(signal::pending()));
    });
    set(slave, |termios| termios.local &= !ISIG);
    typed(master, slave, "\x03\n", 2);
    say!("without ISIG: {}", read(slave, 20));
}

fn signals_keep_input() {
    let (master, slave) = pty();
    set(slave, |termios| termios.local |= NOFLSH);
    session(slave, || {
        signal::block(SIGINT);
        write(master, "kept ");
        write(master, "\x03");
        signal::take(signal::bit(SIGINT), 5000);
        typed(master, slave, "all\n", 9);
        say!("NOFLSH: {}", read(slave, 20));
    });
    eventually(master);
    session(slave, || {
        let child = process::child(|| {
            signal::handle(SIGINT, signal::count, 0);
            sys!(SYS_fcntl, slave, F_SETFL, O_RDWR);
            let text = read(slave, 10);
            say!("a read is interrupted: {text}, caught {}", signal::caught());
            0
        });
        signal::ignore(SIGINT);
        process::until_asleep(child);
        write(master, "\x03");
        process::wait(child);
    });
}

fn window_size() {
    let (master, slave) = pty();
    session(slave, || {
        signal::block(SIGWINCH);
        let size = [24u16, 80, 0, 0];
        say!("set by the slave: {}", sys!(SYS_ioctl, slave, TIOCSWINSZ, &size));
        say!("signal: {}", signal::names(signal::pending()));
        signal::take(signal::bit(SIGWINCH), 0);
        let mut seen = [0u16; 4];
        say!("seen by the master: {} {seen:?}", sys!(SYS_ioctl, master, TIOCGWINSZ, &mut seen));
        say!("{seen:?}");
        say!("the same again: {} {}", sys!(SYS_ioctl, master, TIOCSWINSZ, &size), signal::names(signal::pending()));
        let size = [50u16, 132, 7, 8];
        say!("by the master: {} {}", sys!(SYS_ioctl, master, TIOCSWINSZ, &size), signal::names(signal::pending()));
        sys!(SYS_ioctl, slave, TIOCGWINSZ, &mut seen);
        say!("seen by the slave: {seen:?}");
        say!("bad pointer: {} {}", sys!(SYS_ioctl, slave, TIOCSWINSZ, NOWHERE), {
            sys!(SYS_ioctl, slave, TIOCGWINSZ, NOWHERE)
        });
    });
    say!("of a pipe: {}", sys!(SYS_ioctl, file::pipe()[0], TIOCGWINSZ, &mut [0u16; 4]));
    say!("of a file: {}", sys!(SYS_ioctl, file::create(c"f", ""), TIOCGWINSZ, &mut [0u16; 4]));
    say!("of /dev/null: {}", sys!(SYS_ioctl, 0, TIOCGWINSZ, &mut [0u16; 4]));
}

fn controlling() {
    let (master, slave) = pty();
    let name = name_of(master);
    say!("no terminal: {}", open(c"/dev/tty", O_RDWR));
    say!("TIOCNOTTY without one: {}", sys!(SYS_ioctl, slave, TIOCNOTTY, 0));
    process::in_child(|| {
        sys!(SYS_setsid);
        let mut group = 0i32;
        say!("TIOCGPGRP before: {}", sys!(SYS_ioctl, slave, TIOCGPGRP, &mut group));
        say!("opened with O_NOCTTY: {}", open(&name, O_RDWR | O_NOCTTY).ok_or_error());
        say!("/dev/tty: {}", open(c"/dev/tty", O_RDWR));
        say!("opened without: {}", open(&name, O_RDWR).ok_or_error());
        say!("/dev/tty: {}", open(c"/dev/tty", O_RDWR).ok_or_error());
        say!("TIOCGPGRP: {} own {}", sys!(SYS_ioctl, slave, TIOCGPGRP, &mut group), group == own_group());
        let mut sid = 0i32;
        say!("TIOCGSID: {} own {}", sys!(SYS_ioctl, slave, TIOCGSID, &mut sid), sid == sys!(SYS_getpid).0 as i32);
        say!("TIOCSCTTY again: {}", sys!(SYS_ioctl, slave, TIOCSCTTY, 0));
        let (_, other) = pty();
        say!("a second one: {}", sys!(SYS_ioctl, other, TIOCSCTTY, 0));
        signal::ignore(SIGHUP);
        say!("TIOCNOTTY: {}", sys!(SYS_ioctl, slave, TIOCNOTTY, 0));
        say!("/dev/tty: {}", open(c"/dev/tty", O_RDWR));
        say!("another then: {}", sys!(SYS_ioctl, other, TIOCSCTTY, 0));
        0
    });
    say!("of a file: {}", sys!(SYS_ioctl, 0, TIOCSCTTY, 0));
}

fn not_a_leader() {
    let (_master, slave) = pty();
    let (ready, go) = (Gate::new(), Gate::new());
    process::in_child(|| {
        say!("not a leader: {}", sys!(SYS_ioctl, slave, TIOCSCTTY, 0));
        0
    });
    let holder = process::child(|| {
        sys!(SYS_setsid);
        sys!(SYS_ioctl, slave, TIOCSCTTY, 0);
        ready.open();
        go.pass();
        0
    });
    ready.pass();
    process::in_child(|| {
        sys!(SYS_setsid);
        say!("another's terminal: {}", sys!(SYS_ioctl, slave, TIOCSCTTY, 0));
        let mut value = 0i32;
        say!("TIOCGPGRP of another's: {}", sys!(SYS_ioctl, slave, TIOCGPGRP, &mut value));
        say!("TIOCGSID of another's: {}", sys!(SYS_ioctl, slave, TIOCGSID, &mut value));
        say!("TIOCSPGRP of another's: {}", sys!(SYS_ioctl, slave, TIOCSPGRP, &own_group()));
        say!("stolen by root: {}", sys!(SYS_ioctl, slave, TIOCSCTTY, 1));
        0
    });
    go.open();
    process::wait(holder);
    process::in_child(|| {
        sys!(SYS_setsid);
        process::become_user(1000);
        say!("a user steals nothing: {}", sys!(SYS_ioctl, slave, TIOCSCTTY, 1).ok_or_error());
        0
    });
}

fn groups() {
    let (master, slave) = pty();
    session(slave, || {
        let set_group = |group: i32| sys!(SYS_ioctl, slave, TIOCSPGRP, &group);
        signal::ignore(SIGTTOU);
        let (ready, go) = (Gate::new(), Gate::new());
        let child = process::child(|| {
            sys!(SYS_setpgid, 0, 0);
            ready.open();
            go.pass();
            0
        });
        ready.pass();
        say!("a child's: {}", set_group(child));
        let mut group = 0i32;
        sys!(SYS_ioctl, slave, TIOCGPGRP, &mut group);
        say!("it is: {}", group == child);
        sys!(SYS_ioctl, master, TIOCGPGRP, &mut group);
        say!("as the master says: {}", group == child);
        say!("back: {}", set_group(own_group()));
        say!("one that is not there: {}", set_group(4_000_000));
        say!("negative: {}", set_group(-5));
        say!("another session's: {}", set_group(sys!(SYS_getppid).0 as i32));
        say!("bad pointer: {}", sys!(SYS_ioctl, slave, TIOCSPGRP, NOWHERE));
        say!("by the master: {}", sys!(SYS_ioctl, master, TIOCSPGRP, &own_group()));
        go.open();
        process::wait(child);
    });
}

fn background_reads() {
    let (master, slave) = waiting_pty();
    session(slave, || {
        let child = background(|| say!("read in the end: {}", read(slave, 10)));
        say!("a read: {}", process::wait_for(child, WUNTRACED));
        signal::ignore(SIGTTOU);
        sys!(SYS_ioctl, slave, TIOCSPGRP, &child);
        process::kill(child, SIGCONT);
        write(master, "input\n");
        say!("then: {}", process::wait(child));
        sys!(SYS_ioctl, slave, TIOCSPGRP, &own_group());
        let child = background(|| {
            signal::ignore(SIGTTIN);
            say!("ignored: {}", read(slave, 10));
        });
        process::wait(child);
        let child = background(|| {
            signal::block(SIGTTIN);
            say!("blocked: {}", read(slave, 10));
        });
        process::wait(child);
        let child = background(|| {
            signal::handle(SIGTTIN, signal::count, 0);
            let text = read(slave, 10);
            say!("caught: {text} {}", signal::caught());
        });
        process::wait(child);
        let child = background(|| {
            let mut ready = 0i32;
            say!("asking is allowed: {} {}", sys!(SYS_ioctl, slave, FIONREAD, &mut ready), get(slave).line);
        });
        process::wait(child);
    });
    session(slave, || {
        let (go, done) = (Gate::new(), Gate::new());
        // A group whose members' parents are all in it or in other sessions.
        process::in_child(|| {
            background(|| {
                go.pass();
                say!("an orphan: {}", read(slave, 10));
                done.open();
            });
            0
        });
        go.open();
        done.pass();
    });
}

fn background_writes() {
    let (master, slave) = waiting_pty();
    session(slave, || {
        let child = background(|| say!("allowed without TOSTOP: {}", write(slave, "b")));
        process::wait(child);
        set(slave, |termios| termios.local |= TOSTOP);
        let child = background(|| say!("written in the end: {}", write(slave, "b")));
        say!("TOSTOP: {}", process::wait_for(child, WUNTRACED));
        signal::ignore(SIGTTOU);
        sys!(SYS_ioctl, slave, TIOCSPGRP, &child);
        process::kill(child, SIGCONT);
        say!("then: {}", process::wait(child));
        sys!(SYS_ioctl, slave, TIOCSPGRP, &own_group());
        let child = background(|| say!("ignored: {}", write(slave, "b")));
        process::wait(child);
        signal::default(SIGTTOU);
        let child = background(|| {
            signal::block(SIGTTOU);
            say!("blocked: {}", write(slave, "b"));
        });
        process::wait(child);
        let child = background(|| {
            signal::handle(SIGTTOU, signal::count, 0);
            let ret = write(slave, "b");
            say!("caught: {ret} {}", signal::caught());
        });
        process::wait(child);
        say!("the foreground: {}", write(slave, "f"));
    });
    say!("all: {}", eventually(master));
}

fn background_changes() {
    let (_master, slave) = waiting_pty();
    session(slave, || {
        for (what, command) in [("TCSETS", TCSETS), ("TCFLSH", TCFLSH), ("TIOCSPGRP", TIOCSPGRP), ("TCSBRK", TCSBRK)] {
            let child = background(|| {
                let mut termios = get(slave);
                let group = own_group();
                let ret = match command {
                    TIOCSPGRP => sys!(SYS_ioctl, slave, command, &group),
                    TCSETS => sys!(SYS_ioctl, slave, command, &mut termios),
                    TCSBRK => sys!(SYS_ioctl, slave, command, 1),
                    _ => sys!(SYS_ioctl, slave, command, 0),
                };
                say!("{what} in the end: {ret}");
            });
            say!("{what}: {}", process::wait_for(child, WUNTRACED));
            process::kill(child, SIGKILL);
            process::wait(child);
        }
        let child = background(|| {
            signal::ignore(SIGTTOU);
            let termios = get(slave);
            say!("ignored: {}", sys!(SYS_ioctl, slave, TCSETS, &termios));
        });
        process::wait(child);
        let child = background(|| {
            let size = [1u16, 2, 3, 4];
            say!("the size: {}", sys!(SYS_ioctl, slave, TIOCSWINSZ, &size));
        });
        process::wait(child);
    });
}

fn stop_by_key() {
    let (master, slave) = waiting_pty();
    session(slave, || {
        signal::ignore(SIGTTOU);
        let child = background(|| {
            say!("a line: {}", read(slave, 10));
        });
        sys!(SYS_ioctl, slave, TIOCSPGRP, &child);
        process::until_asleep(child);
        if process::state(child) == 'T' {
            // It had read before it was in the foreground.
            process::kill(child, SIGCONT);
            process::until_asleep(child);
        }
        write(master, "\x1a");
        say!("^Z: {}", process::wait_for(child, WUNTRACED));
        sys!(SYS_ioctl, slave, TIOCSPGRP, &own_group());
        process::kill(child, SIGCONT);
        say!("continued in the background: {}", process::wait_for(child, WUNTRACED));
        sys!(SYS_ioctl, slave, TIOCSPGRP, &child);
        process::kill(child, SIGCONT);
        write(master, "done\n");
        say!("in the foreground: {}", process::wait(child));
    });
}
