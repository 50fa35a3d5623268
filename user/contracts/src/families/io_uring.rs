//! io_uring: rings, submission, completion.

use libc::*;

use crate::file::{close, create, pipe, read, write};
use crate::process::{self, Gate};
use crate::ring::*;
use crate::sys::{NOWHERE, sys};
use crate::{memory, say, signal, tests};

tests! {
    setup_answers, setup_errors, sizes, mappings, mapping_errors, descriptor, nops, wrong_entries, submit_all,
    bad_index, enter_errors, too_many, overflow, poll_of_ring, waits_with_timeout, interrupted_wait, disabled_ring,
    single_issuer, deferred_work, large_entries, short_forms_of_flags, after_close, across_fork,
}

fn setup_answers() {
    let mut params = Params::default();
    let fd = setup(5, &mut params).fd();
    say!("fd: {fd}");
    say!("entries: {} {}", params.sq_entries, params.cq_entries);
    say!("submission offsets: {:?}", params.sq_off);
    say!("completion offsets: {:?}", params.cq_off);
    // Tags of resources, and entries of a polling thread for plain files, may be missing.
    say!("features: {:#x}", params.features & !(1 << 10 | 1 << 7));
    say!("close-on-exec: {}", sys!(SYS_fcntl, fd, F_GETFD, 0));
    say!("flags: {:o}", sys!(SYS_fcntl, fd, F_GETFL, 0).0);
    let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).map(|path| path.display().to_string());
    say!("link: {}", link.unwrap_or_default());
}

fn setup_errors() {
    let try_it = |entries: u32, params: Params| {
        let mut params = params;
        let ret = setup(entries, &mut params);
        if ret.ok() {
            close(ret.fd());
        }
        ret.ok_or_error()
    };
    let with = |flags: u32| Params { flags, ..Params::default() };
    say!("no entries: {}", try_it(0, with(0)));
    say!("too many: {}", try_it(32_769, with(0)));
    say!("clamped: {}", try_it(40_000, with(SETUP_CLAMP)));
    say!("unknown flag: {}", try_it(1, with(1 << 30)));
    say!("reserved: {}", try_it(1, Params { resv: [0, 1, 0], ..Params::default() }));
    say!("bad pointer: {}", sys!(SYS_io_uring_setup, 1, NOWHERE));
    say!("no completions: {}", try_it(4, with(SETUP_CQSIZE)));
    say!("fewer completions than entries: {}", try_it(4, Params { cq_entries: 2, ..with(SETUP_CQSIZE) }));
    say!("too many completions: {}", try_it(4, Params { cq_entries: 65_537, ..with(SETUP_CQSIZE) }));
    say!("flag without notice: {}", try_it(4, with(SETUP_TASKRUN_FLAG)));
    say!("flag with it: {}", try_it(4, with(SETUP_TASKRUN_FLAG | SETUP_COOP_TASKRUN)));
    say!("deferred for many: {}", try_it(4, with(SETUP_DEFER_TASKRUN)));
    say!("deferred for one: {}", try_it(4, with(SETUP_DEFER_TASKRUN | SETUP_SINGLE_ISSUER)));
    say!("affinity of no thread: {}", try_it(4, with(4)));
    say!("workers of nobody: {}", try_it(4, Params { wq_fd: 99, ..with(32) }));
    say!("workers of a file: {}", try_it(4, Params { wq_fd: create(c"f", "") as u32, ..with(32) }));
}

fn sizes() {
    for (entries, cq_entries, flags) in [
        (1, 0, 0),
        (3, 0, 0),
        (4096, 0, 0),
        (8, 9, SETUP_CQSIZE),
        (40_000, 0, SETUP_CLAMP),
        (8, 99_999, SETUP_CQSIZE | SETUP_CLAMP),
    ] {
        let mut params = Params { flags, cq_entries, ..Params::default() };
        let fd = setup(entries, &mut params).fd();
        say!("{entries}, {cq_entries}: {} {} {:#x}", params.sq_entries, params.cq_entries, params.sq_off[6]);
        close(fd);
    }
}

fn mappings() {
    let ring = Ring::new(4, 0);
    let size = ring.params.sq_off[6] as usize + 16;
    let second = memory::map(size, PROT_READ, MAP_SHARED, ring.fd, 0x800_0000).need() as *const u32;
    let word = |offset: u32| ring.word(offset).load(std::sync::atomic::Ordering::Relaxed);
    let [head, tail, mask, entries, flags, dropped, ..] = ring.params.sq_off;
    say!("{:?}", [head, tail, mask, entries, flags, dropped].map(word));
    let [head, tail, mask, entries, overflow, _, flags, ..] = ring.params.cq_off;
    say!("{:?}", [head, tail, mask, entries, overflow, flags].map(word));
    ring.submit(&[entry(op::NOP, 1)], 1);
    say!("the tail: {}", word(tail));
    // SAFETY: within the second mapping.
    say!("the same pages: {}", unsafe { second.add(tail as usize / 4).read_volatile() });
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let lines = maps.lines().filter_map(|line| line.find("io_uring").map(|_| line));
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        say!("{} {}", words[1], words[words.len() - 1]);
    }
}

fn mapping_errors() {
    let mut params = Params::default();
    let fd = setup(4, &mut params).fd();
    let map =
        |size: usize, offset: i64| memory::map(size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset).ok_or_error();
    say!("the rings: {}", map(4096, 0));
    say!("too long: {}", map(3 * 4096, 0));
    say!("entries: {}", map(4096, 0x1000_0000));
    say!("too many of them: {}", map(2 * 4096, 0x1000_0000));
    say!("elsewhere: {} {}", map(4096, 4096), map(4096, 0x1800_0000));
    say!("read: {}", read(fd, 8));
    say!("write: {}", write(fd, "12345678"));
}

fn descriptor() {
    let file = create(c"f", "");
    say!("enter of a file: {}", sys!(SYS_io_uring_enter, file, 0, 0, 0, 0, 0));
    say!("of nothing: {}", sys!(SYS_io_uring_enter, 99, 0, 0, 0, 0, 0));
    say!("register: {} {}", sys!(SYS_io_uring_register, file, 8, 0, 0), sys!(SYS_io_uring_register, 99, 8, 0, 0));
    let ring = Ring::new(4, 0);
    let copy = sys!(SYS_dup, ring.fd).fd();
    ring.push(entry(op::NOP, 5));
    say!("by a copy: {}", sys!(SYS_io_uring_enter, copy, 1, 1, GETEVENTS, 0, 0));
    say!("{}", ring.shown());
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", ring.fd)).unwrap_or_default();
    for line in info.lines().filter(|line| line.starts_with("Sq") || line.starts_with("Cq") || line.starts_with("User"))
    {
        say!("{line}");
    }
}

fn nops() {
    let ring = Ring::new(4, 0);
    say!("one: {}", ring.run(&[entry(op::NOP, 7)]));
    let four: Vec<Sqe> = (1..=4).map(|number| entry(op::NOP, number)).collect();
    say!("four: {}", ring.run(&four));
    say!("with a file that is none: {}", ring.run(&[Sqe { fd: 1000, len: 5, ..entry(op::NOP, 1) }]));
    ring.push(entry(op::NOP, 8));
    ring.push(entry(op::NOP, 9));
    say!("one of two: {}", ring.enter(1, 0, 0));
    say!("{}", ring.shown());
    say!("more than there are: {}", ring.enter(9, 0, 0));
    say!("{}", ring.shown());
    say!("none: {}", ring.enter(3, 0, 0));
    say!("with IOSQE_ASYNC: {}", ring.run(&[entry(op::NOP, 10).with(ASYNC)]));
    say!("silent: {} {}", ring.submit(&[entry(op::NOP, 11).with(CQE_SKIP)], 0), ring.shown());
}

fn wrong_entries() {
    let ring = Ring::new(8, 0);
    let cases = [
        ("operation", entry(200, 1)),
        ("flag", entry(op::NOP, 2).with(128)),
        ("priority", Sqe { ioprio: 1, ..entry(op::NOP, 3) }),
        ("personality", Sqe { personality: 3, ..entry(op::NOP, 4) }),
        ("buffers", entry(op::NOP, 5).with(BUFFER_SELECT)),
        ("fsync with a buffer", Sqe { fd: 0, buf_index: 1, ..entry(op::FSYNC, 6) }),
        ("fsync flags", Sqe { fd: 0, op_flags: 8, ..entry(op::FSYNC, 7) }),
        ("close with an offset", Sqe { fd: 0, off: 1, ..entry(op::CLOSE, 8) }),
        ("poll with an address", Sqe { fd: 0, addr: 1, ..entry(op::POLL_ADD, 9) }),
        ("cancel with a length", Sqe { len: 1, ..entry(op::ASYNC_CANCEL, 10) }),
        ("timeout without a time", Sqe { len: 1, ..entry(op::TIMEOUT, 11) }),
        ("two timeouts", Sqe { len: 2, ..entry(op::TIMEOUT, 12) }),
        ("link timeout of nothing", timeout(&span(1), 0, 0, 13)),
        ("unlink flags", Sqe { fd: AT_FDCWD, op_flags: 1, ..entry(op::UNLINKAT, 14) }),
        ("accept with a length", Sqe { fd: 0, len: 1, ..entry(op::ACCEPT, 15) }),
        ("no buffers", Sqe { fd: 0, ..entry(op::PROVIDE_BUFFERS, 16) }),
        ("openat of a fixed file", entry(op::OPENAT, 17).with(FIXED_FILE)),
    ];
    for (what, mut sqe) in cases {
        if what.starts_with("link") {
            sqe.opcode = op::LINK_TIMEOUT;
        }
        // The second is not begun.
        let ret = ring.submit(&[sqe, entry(op::NOP, 99)], 0);
        say!("{what}: {ret} {}", ring.shown());
        say!("  then {} {}", ring.enter(1, 1, GETEVENTS), ring.shown());
    }
    say!("a file that is not open: {}", ring.run(&[read_into(99, &mut [0; 4], 1), entry(op::NOP, 2)]));
}

fn submit_all() {
    let ring = Ring::new(8, SETUP_SUBMIT_ALL);
    let ret = ring.submit(&[entry(op::NOP, 1), entry(200, 2), entry(op::NOP, 3)], 0);
    say!("{ret} {}", ring.sorted());
}

fn bad_index() {
    let ring = Ring::new(4, 0);
    ring.push(entry(op::NOP, 1));
    ring.push(entry(op::NOP, 2));
    ring.word(ring.params.sq_off[6]).store(77, std::sync::atomic::Ordering::Relaxed);
    say!("{}", ring.enter(2, 0, 0));
    say!("dropped: {}", ring.word(ring.params.sq_off[5]).load(std::sync::atomic::Ordering::Relaxed));
    say!("{} {}", ring.enter(1, 0, 0), ring.shown());
}

fn enter_errors() {
    let ring = Ring::new(4, 0);
    say!("flags: {}", ring.enter(0, 0, 1 << 20));
    say!("a mask of another size: {}", sys!(SYS_io_uring_enter, ring.fd, 0, 1, GETEVENTS, &0u64, 4));
    say!("a bad mask: {}", sys!(SYS_io_uring_enter, ring.fd, 0, 1, GETEVENTS, NOWHERE, 8));
    let arg = [0u64; 3];
    say!("arguments of another size: {}", sys!(SYS_io_uring_enter, ring.fd, 0, 1, GETEVENTS | EXT_ARG, &arg, 16));
    say!("bad ones: {}", sys!(SYS_io_uring_enter, ring.fd, 0, 1, GETEVENTS | EXT_ARG, NOWHERE, 24));
    let bad_time = [0u64, 0, 8];
    say!("a bad time: {}", sys!(SYS_io_uring_enter, ring.fd, 0, 1, GETEVENTS | EXT_ARG, &bad_time, 24));
    let size = [&raw const arg as u64, 4, 0];
    say!("a mask of another size: {}", sys!(SYS_io_uring_enter, ring.fd, 0, 1, GETEVENTS | EXT_ARG, &size, 24));
    say!("nothing asked for: {}", sys!(SYS_io_uring_enter, ring.fd, 0, 0, GETEVENTS | EXT_ARG, &size, 24));
    ring.push(entry(op::NOP, 1));
    say!("submission wins: {}", sys!(SYS_io_uring_enter, ring.fd, 1, 2, GETEVENTS | EXT_ARG, &arg, 16));
    say!("{}", ring.shown());
    say!(
        "registered ring: {} {}",
        ring.enter(0, 0, REGISTERED_RING),
        sys!(SYS_io_uring_enter, 16, 0, 0, REGISTERED_RING, 0, 0)
    );
}

fn too_many() {
    let ring = Ring::new(2, 0);
    for number in 0..6 {
        ring.push(entry(op::NOP, number));
    }
    say!("{}", ring.enter(6, 0, 0));
    let count = ring.all().len();
    say!("{count} completions");
}

fn overflow() {
    let ring = Ring::new(4, 0);
    for round in 0..3u64 {
        let four: Vec<Sqe> = (1..=4).map(|number| entry(op::NOP, 10 * round + number)).collect();
        say!("{} overflow {}", ring.submit(&four, 0), ring.sq_flags() & SQ_CQ_OVERFLOW);
    }
    say!("{}", ring.shown());
    say!("still: {}", ring.sq_flags() & SQ_CQ_OVERFLOW);
    say!("{} {}", ring.wait(0), ring.shown());
    say!("then: {}", ring.sq_flags() & SQ_CQ_OVERFLOW);
    say!("lost: {}", ring.word(ring.params.cq_off[4]).load(std::sync::atomic::Ordering::Relaxed));
}

fn events(fd: i32) -> String {
    let mut polled = pollfd { fd, events: POLLIN | POLLOUT, revents: 0 };
    let now = timespec { tv_sec: 0, tv_nsec: 0 };
    let ret = sys!(SYS_ppoll, &mut polled, 1, &now, 0, 8);
    format!("{ret} {:#x}", polled.revents)
}

fn poll_of_ring() {
    let ring = Ring::new(2, 0);
    say!("empty: {}", events(ring.fd));
    ring.push(entry(op::NOP, 1));
    ring.push(entry(op::NOP, 2));
    say!("full of entries: {}", events(ring.fd));
    ring.enter(2, 0, 0);
    say!("with completions: {}", events(ring.fd));
    ring.all();
    say!("taken: {}", events(ring.fd));
    let epoll = sys!(SYS_epoll_create1, 0).fd();
    let mut event = epoll_event { events: EPOLLIN as u32, u64: 9 };
    say!("add: {}", sys!(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, ring.fd, &mut event));
    let [reader, writer] = pipe();
    let mut buffer = [0; 8];
    ring.submit(&[read_into(reader, &mut buffer, 3)], 0);
    let wait = |event: &mut epoll_event| sys!(SYS_epoll_pwait, epoll, event, 1, 0, 0, 8);
    say!("waits: {}", wait(&mut event));
    write(writer, "x");
    say!("done: {} {}", sys!(SYS_epoll_pwait, epoll, &mut event, 1, 1000, 0, 8), ring.shown());
}

fn waits_with_timeout() {
    let ring = Ring::new(4, 0);
    let limit = span(10);
    let arg = [0u64, 0, limit.as_ptr() as u64];
    let wait = |least: u32| sys!(SYS_io_uring_enter, ring.fd, 0, least, GETEVENTS | EXT_ARG, &arg, 24);
    say!("nothing comes: {}", wait(1));
    ring.submit(&[entry(op::NOP, 1)], 0);
    say!("one is there, two are wanted: {}", wait(2));
    say!("{}", ring.shown());
    say!("more than the ring holds: {}", wait(100));
}

fn interrupted_wait() {
    let ring = Ring::new(4, 0);
    signal::handle(SIGALRM, signal::count, SA_RESTART | SA_SIGINFO);
    let soon = [0i64, 0, 0, 20_000];
    sys!(SYS_setitimer, ITIMER_REAL, &soon, 0);
    say!("wait: {}", ring.wait(1));
    signal::block(SIGALRM);
    sys!(SYS_setitimer, ITIMER_REAL, &soon, 0);
    let mask = 0u64;
    say!("with a mask: {}", sys!(SYS_io_uring_enter, ring.fd, 0, 1, GETEVENTS, &mask, 8));
    say!("blocked again: {}", signal::names(signal::mask(SIG_BLOCK, 0)));
    signal::unblock(SIGALRM);
    sys!(SYS_setitimer, ITIMER_REAL, &soon, 0);
    say!("submission counts: {} {}", ring.submit(&[entry(op::NOP, 1)], 2), ring.shown());
}

fn disabled_ring() {
    let ring = Ring::new(4, SETUP_R_DISABLED);
    ring.push(entry(op::NOP, 1));
    say!("enter: {}", ring.enter(1, 1, GETEVENTS));
    say!("enable: {}", ring.register(12, 0, 0));
    say!("again: {}", ring.register(12, 0, 0));
    say!("enter: {} {}", ring.enter(1, 1, GETEVENTS), ring.shown());
    say!("restrict: {}", ring.register(11, 0, 0));
}

fn single_issuer() {
    let ring = Ring::new(4, SETUP_SINGLE_ISSUER);
    say!("mine: {}", ring.run(&[entry(op::NOP, 1)]));
    let (fd, at) = (ring.fd, &raw const ring as usize);
    let other = std::thread::spawn(move || {
        // SAFETY: the ring lives until the thread is joined.
        unsafe { &*(at as *const Ring) }.push(entry(op::NOP, 2));
        (sys!(SYS_io_uring_enter, fd, 1, 0, 0, 0, 0), sys!(SYS_io_uring_register, fd, 9, 0, 0))
    });
    if let Ok((enter, register)) = other.join() {
        say!("another thread's: {enter} {register}");
    }
    say!("mine: {} {}", ring.enter(1, 1, GETEVENTS), ring.shown());
}

fn deferred_work() {
    let ring = Ring::new(4, SETUP_SINGLE_ISSUER | SETUP_DEFER_TASKRUN);
    let event = sys!(SYS_eventfd2, 0, 0).fd();
    ring.submit(&[poll_add(event, POLLIN, 0, 1)], 0);
    sys!(SYS_write, event, &1u64, 8);
    process::sleep_ms(5);
    say!("before it is asked for: {}", ring.shown());
    say!("{} {}", ring.wait(1), ring.shown());
    ring.submit(&[poll_add(event, POLLOUT, 0, 2)], 0);
    say!("at once: {}", ring.shown());
}

fn large_entries() {
    let ring = Ring::new(4, SETUP_SQE128 | SETUP_CQE32);
    let three: Vec<Sqe> = (1..=3).map(|number| entry(op::NOP, number)).collect();
    say!("{} {}", ring.params.sq_off[6], ring.run(&three));
    say!("{}", ring.run(&three));
}

fn short_forms_of_flags() {
    let ring = Ring::new(8, 0);
    let fd = create(c"f", "0123456789");
    let mut buffer = [0; 4];
    say!("drain alone: {}", ring.run(&[entry(op::NOP, 1).with(IO_DRAIN)]));
    say!("async read: {}", ring.run(&[read_into(fd, &mut buffer, 2).with(ASYNC)]));
    ring.submit(&[read_into(99, &mut buffer, 3).with(CQE_SKIP)], 1);
    say!("a silent one that fails: {}", ring.shown());
    say!("drain after a silent one: {}", ring.run(&[entry(op::NOP, 4).with(IO_DRAIN)]));
}

fn after_close() {
    let [reader, writer] = pipe();
    let ring = Ring::new(4, 0);
    let mut buffer = [0; 4];
    ring.submit(&[read_into(reader, &mut buffer, 1)], 0);
    say!("close: {}", close(ring.fd));
    write(writer, "abcd");
    process::sleep_ms(10);
    say!("the mappings keep it: {}", ring.take_text(&buffer));
    close(reader);
    close(writer);
    let [reader, writer] = pipe();
    process::in_child(|| {
        let ring = Ring::new(4, 0);
        ring.submit(&[read_into(reader, &mut [0; 4], 1)], 0);
        0
    });
    close(reader);
    signal::ignore(SIGPIPE);
    say!("the end of the process drops what it read: {}", write(writer, "x"));
}

fn across_fork() {
    let ring = Ring::new(4, 0);
    let gate = Gate::new();
    let status = process::in_child(|| {
        say!("in the child: {}", ring.run(&[entry(op::NOP, 1)]));
        ring.push(entry(op::NOP, 2));
        gate.open();
        0
    });
    say!("{status}");
    gate.pass();
    say!("what it left: {} {}", ring.enter(1, 1, GETEVENTS), ring.shown());
}
