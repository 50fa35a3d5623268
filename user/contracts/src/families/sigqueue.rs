//! What comes with a signal: siginfo_t of each kind, queues of real-time signals, sigqueue(3), signalfd(2).

use libc::*;

use crate::file::read;
use crate::process::{self, child, in_child, kill, pid, until_asleep, wait};
use crate::signal::{self, bit, kill_self};
use crate::sys::{KERNEL, NOWHERE, Ret, sys, zeroed};
use crate::{say, tests};

tests! {
    sent_by_kill, sent_by_tgkill, queued, forged, forged_to_others, order_of_queues, limit, limit_of_timers, of_timers,
    of_children, of_stopped_children, of_a_pipe, of_an_alarm, errors, received_by_signalfd, signalfd_errors,
    signalfd_masks, children_without_stops, forgotten_information,
}

/// A record as 32-bit words: signal, errno, code, and from the fifth on what the kind has.
type Words = [u32; 32];

fn words(info: &siginfo_t) -> Words {
    // SAFETY: as large as the record, of integers.
    unsafe { std::ptr::from_ref(info).cast::<Words>().read() }
}

fn queue(target: i32, signal: i32, code: i32, value: u64) -> Ret {
    let mut record: Words = [0; 32];
    record[0] = 77;
    record[1] = 5;
    record[2] = code as u32;
    record[4] = 123;
    record[5] = 456;
    record[6] = value as u32;
    record[7] = (value >> 32) as u32;
    sys!(SYS_rt_sigqueueinfo, target, signal, &record)
}

/// Takes a signal and shows what came with it; process ids as whose they are.
fn taken(signal: i32) -> String {
    let (ret, info) = signal::take(bit(signal), 10_000);
    let w = words(&info);
    let sender = if w[4] == pid() as u32 { "this process".into() } else { w[4].to_string() };
    format!("{ret}: {} {} {}, from {sender} {}, {:#x} {:#x}", w[0], w[1], w[2] as i32, w[5], w[6], w[7])
}

fn sent_by_kill() {
    signal::block(SIGUSR1);
    signal::block(40);
    kill(pid(), SIGUSR1);
    say!("{}", taken(SIGUSR1));
    kill(pid(), 40);
    say!("{}", taken(40));
    let parent = pid();
    let sender = child(|| {
        process::become_user(1234);
        0
    });
    wait(sender);
    let sender = child(|| {
        sys!(SYS_setresuid, 1234, 0, 0);
        kill(parent, SIGUSR1);
        0
    });
    let (_, info) = signal::take(bit(SIGUSR1), 10_000);
    let w = words(&info);
    say!("the sender: {}, its real user: {}", w[4] == sender as u32, w[5]);
    wait(sender);
}

fn sent_by_tgkill() {
    signal::block(SIGUSR1);
    kill_self(SIGUSR1);
    say!("{}", taken(SIGUSR1));
    sys!(SYS_tkill, sys!(SYS_gettid).0, SIGUSR1);
    say!("{}", taken(SIGUSR1));
}

fn queued() {
    signal::block(SIGUSR1);
    signal::block(40);
    for signal in [SIGUSR1, 40] {
        say!("{}", queue(pid(), signal, SI_QUEUE, 0x1122_3344_5566_7788));
        say!("{}", taken(signal));
    }
    say!("signal 0: {}", queue(pid(), 0, SI_QUEUE, 0));
    let thread = sys!(SYS_gettid).0;
    let mut record: Words = [9; 32];
    record[2] = SI_MESGQ as u32;
    say!("to a thread: {}", sys!(SYS_rt_tgsigqueueinfo, pid(), thread, 40, &record));
    say!("{}", taken(40));
}

fn forged() {
    signal::block(SIGUSR1);
    for code in
        [SI_USER, SI_KERNEL, SI_QUEUE, SI_TIMER, SI_MESGQ, SI_ASYNCIO, SI_SIGIO, SI_TKILL, 1, 5, i32::MAX, i32::MIN]
    {
        say!("code {code} to oneself: {}, {}", queue(pid(), SIGUSR1, code, 7), taken(SIGUSR1));
    }
}

fn forged_to_others() {
    let victim = child(|| {
        signal::ignore(SIGUSR1);
        loop {
            process::sleep_ms(100_000);
        }
    });
    until_asleep(victim);
    for code in [SI_USER, SI_KERNEL, SI_QUEUE, SI_TIMER, SI_TKILL, 1, i32::MIN] {
        say!("code {code}: {}", queue(victim, SIGUSR1, code, 0));
    }
    say!("forged, to nobody: {}", queue(4_000_000, SIGUSR1, SI_USER, 0));
    say!("to nobody: {}", queue(4_000_000, SIGUSR1, SI_QUEUE, 0));
    say!("bad signal: {}", queue(victim, 65, SI_QUEUE, 0));
    say!("bad signal to nobody: {}", queue(4_000_000, 65, SI_QUEUE, 0));
    say!("process 0: {}, -1: {}", queue(0, SIGUSR1, SI_QUEUE, 0), queue(-1, SIGUSR1, SI_QUEUE, 0));
    process::as_user(1000, || {
        say!("by another user: {}", queue(victim, SIGUSR1, SI_QUEUE, 0));
        0
    });
    kill(victim, SIGKILL);
    wait(victim);
}

fn order_of_queues() {
    let all = bit(SIGUSR1) | bit(35) | bit(40) | bit(64);
    signal::mask(SIG_BLOCK, all);
    for (signal, value) in [(64, 1), (40, 2), (35, 3), (40, 4), (SIGUSR1, 5), (35, 6), (SIGUSR1, 7), (64, 8)] {
        queue(pid(), signal, SI_QUEUE, value);
    }
    let mut line = String::new();
    loop {
        let (ret, info) = signal::take(all, 0);
        if !ret.ok() {
            break;
        }
        line.push_str(&format!(" {}:{}", ret.0, words(&info)[6]));
    }
    say!("lowest first, then in order; one of each below 32:{line}");
    // To the thread and to the process.
    queue(pid(), 40, SI_QUEUE, 1);
    kill_self(40);
    queue(pid(), 35, SI_QUEUE, 2);
    let mut line = String::new();
    while let (Ret(taken @ 1..), info) = signal::take(all, 0) {
        line.push_str(&format!(" {taken}:{}", words(&info)[2] as i32));
    }
    say!("the thread's before the process's:{line}");
}

fn limit() {
    in_child(|| {
        process::become_user(3001);
        signal::block(40);
        signal::block(41);
        signal::block(SIGUSR1);
        let limit = rlimit { rlim_cur: 3, rlim_max: 3 };
        sys!(SYS_setrlimit, RLIMIT_SIGPENDING, &limit);
        for index in 0..5 {
            say!("sigqueue {index}: {}", queue(pid(), 40, SI_QUEUE, index));
        }
        say!("kill: {}", kill(pid(), 40));
        say!("kill with another signal: {}", kill(pid(), 41));
        say!("tgkill: {}", kill_self(41));
        say!("sigqueue below 32: {}", queue(pid(), SIGUSR1, SI_QUEUE, 0));
        say!("kill below 32: {}", kill(pid(), SIGUSR1));
        let mut count = 0;
        while signal::take(bit(40), 0).0.ok() {
            count += 1;
        }
        say!("of the first: {count}");
        let (ret, info) = signal::take(bit(41), 0);
        let w = words(&info);
        say!("of the second: {ret}, code {}, from {} {}", w[2] as i32, w[4], w[5]);
        say!("more: {}", signal::take(bit(41), 0).0);
        say!("room again: {}", queue(pid(), 40, SI_QUEUE, 0));
        0
    });
}

fn limit_of_timers() {
    in_child(|| {
        process::become_user(3002);
        let limit = rlimit { rlim_cur: 2, rlim_max: 2 };
        sys!(SYS_setrlimit, RLIMIT_SIGPENDING, &limit);
        let mut timer = 0i32;
        for index in 0..3 {
            let mut event: sigevent = zeroed();
            event.sigev_notify = SIGEV_SIGNAL;
            event.sigev_signo = 40;
            say!("timer {index}: {}", sys!(SYS_timer_create, CLOCK_MONOTONIC, &mut event, &mut timer));
        }
        signal::block(41);
        say!("a signal beside them: {}", queue(pid(), 41, SI_QUEUE, 0));
        sys!(SYS_timer_delete, 0);
        say!("with one timer less: {}", queue(pid(), 41, SI_QUEUE, 0));
        0
    });
}

fn of_timers() {
    signal::block(40);
    let mut timer = 0i32;
    let mut event: sigevent = zeroed();
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = 40;
    event.sigev_value.sival_ptr = 0x1234_5678 as *mut c_void;
    say!("create: {}", sys!(SYS_timer_create, CLOCK_MONOTONIC, &mut event, &mut timer));
    let mut setting: itimerspec = zeroed();
    setting.it_value.tv_nsec = 1_000_000;
    sys!(SYS_timer_settime, timer, 0, &setting, 0);
    let (ret, info) = signal::take(bit(40), 10_000);
    let w = words(&info);
    say!("{ret}: code {}, timer {}, overrun {}, value {:#x}", w[2] as i32, w[4] == timer as u32, w[5], w[6]);
    say!("deleted: {}", sys!(SYS_timer_delete, timer));
    say!("no event is SIGALRM: {}", sys!(SYS_timer_create, CLOCK_MONOTONIC, 0, &mut timer));
    signal::block(SIGALRM);
    sys!(SYS_timer_settime, timer, 0, &setting, 0);
    let (ret, info) = signal::take(bit(SIGALRM), 10_000);
    let w = words(&info);
    say!("{ret}: code {}, value is its id: {}", w[2] as i32, w[6] == timer as u32);
    say!("overrun: {}", sys!(SYS_timer_getoverrun, timer));
}

fn of_children() {
    signal::block(SIGCHLD);
    let show = |child: i32| {
        let (ret, info) = signal::take(bit(SIGCHLD), 10_000);
        let w = words(&info);
        format!("{ret}: code {}, from it {}, user {}, status {}", w[2] as i32, w[4] == child as u32, w[5], w[6])
    };
    let pid = child(|| 77);
    say!("exit: {}", show(pid));
    wait(pid);
    let pid = child(|| {
        process::become_user(1234);
        kill_self(SIGTERM);
        0
    });
    say!("killed: {}", show(pid));
    wait(pid);
    let pid = child(|| {
        let limit = rlimit { rlim_cur: 0, rlim_max: 0 };
        sys!(SYS_setrlimit, RLIMIT_CORE, &limit);
        kill_self(SIGQUIT);
        0
    });
    say!("SIGQUIT: {}", show(pid));
    wait(pid);
}

fn of_stopped_children() {
    signal::block(SIGCHLD);
    let pid = child(|| {
        loop {
            process::sleep_ms(100_000);
        }
    });
    until_asleep(pid);
    let show = || {
        let (ret, info) = signal::take(bit(SIGCHLD), 10_000);
        let w = words(&info);
        format!("{ret}: code {}, status {}", w[2] as i32, w[6])
    };
    kill(pid, SIGSTOP);
    say!("stopped: {}", show());
    kill(pid, SIGCONT);
    say!("continued: {}", show());
    kill(pid, SIGKILL);
    say!("killed: {}", show());
    wait(pid);
}

fn children_without_stops() {
    signal::block(SIGCHLD);
    signal::handle(SIGCHLD, signal::count, SA_NOCLDSTOP);
    let pid = child(|| {
        loop {
            process::sleep_ms(100_000);
        }
    });
    until_asleep(pid);
    kill(pid, SIGSTOP);
    say!("SA_NOCLDSTOP: {}", process::wait_for(pid, WUNTRACED));
    say!("no signal: {}", signal::names(signal::pending()));
    kill(pid, SIGCONT);
    say!("{}", process::wait_for(pid, WCONTINUED));
    say!("no signal: {}", signal::names(signal::pending()));
    kill(pid, SIGKILL);
    wait(pid);
    say!("its end: {}", signal::names(signal::pending()));
}

fn of_a_pipe() {
    signal::block(SIGPIPE);
    let [reader, writer] = crate::file::pipe();
    sys!(SYS_close, reader);
    say!("{}", crate::file::write(writer, "x"));
    say!("{}", taken(SIGPIPE));
    signal::block(SIGXFSZ);
    let limit = rlimit { rlim_cur: 10, rlim_max: RLIM_INFINITY };
    sys!(SYS_setrlimit, RLIMIT_FSIZE, &limit);
    let fd = crate::file::create(c"f", "0123456789");
    sys!(SYS_lseek, fd, 0, SEEK_END);
    say!("{}", crate::file::write(fd, "x"));
    say!("{}", taken(SIGXFSZ));
}

fn of_an_alarm() {
    signal::block(SIGALRM);
    let mut interval: itimerval = zeroed();
    interval.it_value.tv_usec = 1000;
    sys!(SYS_setitimer, ITIMER_REAL, &interval, 0);
    let (ret, info) = signal::take(bit(SIGALRM), 10_000);
    let w = words(&info);
    say!("{ret}: code {}, {} {}", w[2] as i32, w[4], w[5]);
}

fn errors() {
    let record: Words = [0; 32];
    say!("nowhere: {}", sys!(SYS_rt_sigqueueinfo, pid(), SIGUSR1, NOWHERE));
    say!("the kernel's: {}", sys!(SYS_rt_sigqueueinfo, pid(), SIGUSR1, KERNEL));
    say!("bad signal, nowhere: {}", sys!(SYS_rt_sigqueueinfo, pid(), 99, NOWHERE));
    say!(
        "bad signal: {} {}",
        sys!(SYS_rt_sigqueueinfo, pid(), 65, &record),
        sys!(SYS_rt_sigqueueinfo, pid(), -1, &record)
    );
    let page = crate::memory::pages(2);
    sys!(SYS_munmap, page.wrapping_add(4096), 4096);
    signal::block(SIGUSR1);
    say!("cut after 48 bytes: {}", sys!(SYS_rt_sigqueueinfo, pid(), SIGUSR1, page.wrapping_add(4096 - 48)));
    say!("cut after 128 bytes: {}", sys!(SYS_rt_sigqueueinfo, pid(), SIGUSR1, page.wrapping_add(4096 - 128)));
    let mut tail: Words = [0; 32];
    tail[2] = SI_QUEUE as u32;
    tail[31] = 1;
    say!("something in the unused end: {}", sys!(SYS_rt_sigqueueinfo, pid(), SIGUSR1, &tail));
    tail[2] = 99;
    say!("with an unknown code: {}", sys!(SYS_rt_sigqueueinfo, pid(), SIGUSR1, &tail));
}

fn received_by_signalfd() {
    let set = bit(SIGUSR1) | bit(40);
    signal::mask(SIG_BLOCK, set);
    let fd = sys!(SYS_signalfd4, -1, &set, 8, O_NONBLOCK).fd();
    let mut entry = [0u8; 128 * 3];
    say!("empty: {}", sys!(SYS_read, fd, &mut entry[..], 128));
    queue(pid(), 40, SI_QUEUE, 0x1_0000_0002);
    kill(pid(), SIGUSR1);
    queue(pid(), 40, SI_QUEUE, 3);
    let mut poll = pollfd { fd, events: POLLIN, revents: 0 };
    let now: timespec = zeroed();
    sys!(SYS_ppoll, &mut poll, 1, &now, 0, 8);
    say!("poll: {:#x}", poll.revents);
    say!("too short: {}", sys!(SYS_read, fd, &mut entry[..], 127));
    say!("two: {}", sys!(SYS_read, fd, &mut entry[..], 300));
    let word = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap_or_default());
    for start in [0, 128] {
        say!(
            "signal {}, errno {}, code {}, own {}, value {} {:#x}",
            word(start),
            word(start + 4),
            word(start + 8) as i32,
            word(start + 12) == pid() as u32,
            word(start + 44),
            word(start + 48)
        );
    }
    say!("one: {}", sys!(SYS_read, fd, &mut entry[..], 384));
    say!("pending: {}", signal::names(signal::pending()));
    say!("write: {}", crate::file::write(fd, "x"));
    say!("lseek: {}", sys!(SYS_lseek, fd, 0, SEEK_SET));
    kill(pid(), SIGUSR1);
    let blocked = signal::mask(SIG_BLOCK, 0);
    say!("a child reads its own: {}", {
        let mut text = String::new();
        in_child(|| {
            let mut entry = [0u8; 128];
            say!("in a child: {}", sys!(SYS_read, fd, &mut entry, 128));
            0
        });
        text.push_str(&signal::names(blocked));
        text
    });
    say!("to nowhere: {}", sys!(SYS_read, fd, NOWHERE, 128));
}

fn signalfd_errors() {
    let set = bit(SIGUSR1);
    for size in [0, 4, 16] {
        say!("size {size}: {}", sys!(SYS_signalfd4, -1, &set, size, 0));
    }
    say!("flags: {}", sys!(SYS_signalfd4, -1, &set, 8, 1));
    say!("nowhere: {}", sys!(SYS_signalfd4, -1, NOWHERE, 8, 0));
    say!("closed: {}", sys!(SYS_signalfd4, 99, &set, 8, 0));
    say!("no signalfd: {}", sys!(SYS_signalfd4, 0, &set, 8, 0));
    say!("-2: {}", sys!(SYS_signalfd4, -2, &set, 8, 0));
    let fd = sys!(SYS_signalfd4, -1, &set, 8, O_CLOEXEC | O_NONBLOCK).fd();
    say!("flags: {} {:o}", sys!(SYS_fcntl, fd, F_GETFD, 0), sys!(SYS_fcntl, fd, F_GETFL, 0).0);
    say!("changed: {}", sys!(SYS_signalfd4, fd, &set, 8, 0).0 == i64::from(fd));
    say!("changed, with flags: {}", sys!(SYS_signalfd4, fd, &set, 8, O_CLOEXEC).0 == i64::from(fd));
}

fn signalfd_masks() {
    let all = u64::MAX;
    signal::mask(SIG_BLOCK, bit(SIGUSR1) | bit(SIGUSR2));
    let fd = sys!(SYS_signalfd4, -1, &bit(SIGUSR1), 8, O_NONBLOCK).fd();
    kill(pid(), SIGUSR2);
    say!("not in the set: {}", read(fd, 128));
    sys!(SYS_signalfd4, fd, &all, 8, 0);
    let mut entry = [0u8; 128];
    say!("with a larger set: {}, signal {}", sys!(SYS_read, fd, &mut entry, 128), entry[0]);
    let parent = pid();
    let helper = child(|| {
        until_asleep(parent);
        kill(parent, SIGUSR1);
        0
    });
    sys!(SYS_fcntl, fd, F_SETFL, 0);
    say!("waited for: {}, signal {}", sys!(SYS_read, fd, &mut entry, 128), entry[0]);
    wait(helper);
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).map(|path| path.display().to_string());
    say!("{}", link.unwrap_or_default());
}

fn forgotten_information() {
    signal::block(SIGUSR1);
    queue(pid(), SIGUSR1, SI_QUEUE, 1);
    kill(pid(), SIGUSR1);
    queue(pid(), SIGUSR1, SI_QUEUE, 2);
    say!("the first is kept: {}", taken(SIGUSR1));
    say!("no more: {}", signal::take(bit(SIGUSR1), 0).0);
}
