//! io_uring: what is registered with a ring.

use libc::*;

use crate::file::{close, contents, create, pipe, write};
use crate::process;
use crate::ring::*;
use crate::sys::{NOWHERE, sys};
use crate::{memory, say, tests};

tests! {
    fixed_buffers, fixed_files, files_update, direct_descriptors, provided_buffers, buffer_ring, personality, probe,
    registered_ring, restrictions, eventfd_counts, eventfd_errors, epoll_and_messages,
}

fn fixed_buffers() {
    let ring = Ring::new(4, 0);
    let fd = create(c"f", "0123456789");
    let area = memory::pages(2);
    let iov = [iovec { iov_base: area.cast(), iov_len: 8192 }];
    let at = iov.as_ptr() as usize;
    say!("none: {}", ring.register(1, 0, 0));
    say!("no list: {}", ring.register(0, 0, 1));
    say!("empty list: {}", ring.register(0, at, 0));
    let wrong = [iovec { iov_base: NOWHERE, iov_len: 4096 }, iovec { iov_base: area.cast(), iov_len: 0 }];
    say!(
        "nowhere: {} empty: {}",
        ring.register(0, wrong.as_ptr() as usize, 1),
        ring.register(0, &raw const wrong[1] as usize, 1)
    );
    say!("too large: {}", {
        let huge = [iovec { iov_base: area.cast(), iov_len: (1 << 30) + 1 }];
        ring.register(0, huge.as_ptr() as usize, 1)
    });
    say!("register: {} twice: {}", ring.register(0, at, 1), ring.register(0, at, 1));
    let read = Sqe { opcode: op::READ_FIXED, fd, addr: area as u64 + 4094, len: 5, off: 2, ..entry(op::READ_FIXED, 1) };
    ring.submit(&[read], 1);
    // SAFETY: within the area.
    let seen = unsafe { std::slice::from_raw_parts(area.add(4094), 5) };
    say!("read: {}", ring.take_text(seen));
    say!("write: {}", ring.run(&[Sqe { opcode: op::WRITE_FIXED, off: 0, user_data: 2, ..read }]));
    say!("{}", contents(c"f"));
    say!("outside: {}", ring.run(&[Sqe { addr: area as u64 + 8190, ..read }]));
    say!("before: {}", ring.run(&[Sqe { addr: area as u64 - 1, ..read }]));
    say!("another index: {}", ring.run(&[Sqe { buf_index: 1, ..read }]));
    say!("unregister: {}", ring.register(1, 0, 0));
}

fn fixed_files() {
    let ring = Ring::new(8, 0);
    let fd = create(c"f", "0123456789");
    let [reader, writer] = pipe();
    let list = [fd, -1, reader];
    let at = list.as_ptr() as usize;
    say!("unregister: {}", ring.register(3, 0, 0));
    say!("none: {} no list: {}", ring.register(2, at, 0), ring.register(2, 0, 1));
    say!("closed: {}", ring.register(2, [99i32].as_ptr() as usize, 1));
    say!("a ring: {}", ring.register(2, [ring.fd].as_ptr() as usize, 1));
    say!("register: {} twice: {}", ring.register(2, at, 3), ring.register(2, at, 3));
    close(fd);
    let mut buffer = [0; 4];
    ring.submit(&[read_into(0, &mut buffer, 1).with(FIXED_FILE)], 1);
    say!("closed elsewhere: {}", ring.take_text(&buffer));
    say!("empty: {}", ring.run(&[read_into(1, &mut buffer, 2).with(FIXED_FILE)]));
    say!("beyond: {}", ring.run(&[read_into(3, &mut buffer, 3).with(FIXED_FILE)]));
    ring.submit(&[read_into(2, &mut buffer, 4).with(FIXED_FILE)], 0);
    write(writer, "pipe");
    say!("{}", ring.wait(1));
    say!("waits: {}", ring.take_text(&buffer));
    say!("sync: {}", ring.run(&[Sqe { fd: 0, ..entry(op::FSYNC, 5) }.with(FIXED_FILE)]));
    say!("unregister: {}", ring.register(3, 0, 0));
    say!("gone: {}", ring.run(&[read_into(0, &mut buffer, 6).with(FIXED_FILE)]));
    say!("too many: {}", {
        let many = vec![-1i32; 2000];
        let limit = [1024u64, 1024];
        sys!(SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, 0);
        ring.register(2, many.as_ptr() as usize, 2000)
    });
}

fn files_update() {
    let ring = Ring::new(8, 0);
    let fd = create(c"f", "0123456789");
    let other = create(c"g", "abcdefghij");
    ring.register(2, [-1i32, -1, -1, -1].as_ptr() as usize, 4);
    let update = |offset: u32, fds: &[i32]| {
        let arg = [u64::from(offset), fds.as_ptr() as u64];
        ring.register(6, arg.as_ptr() as usize, fds.len() as u32)
    };
    say!("two: {}", update(1, &[fd, other]));
    say!("skip and clear: {}", update(0, &[-2, -1, -2]));
    say!("beyond: {}", update(3, &[fd, fd]));
    say!("closed: {} second: {}", update(0, &[99]), update(0, &[fd, 99]));
    let mut buffer = [0; 4];
    for index in 0..4 {
        ring.submit(&[Sqe { off: 0, ..read_into(index, &mut buffer, index as u64).with(FIXED_FILE) }], 1);
        say!("{}", ring.take_text(&buffer));
    }
    let fds = [other, other];
    let entry_of = |off: u64, len: u32| Sqe { addr: fds.as_ptr() as u64, len, off, ..entry(op::FILES_UPDATE, 9) };
    say!("by an entry: {}", ring.run(&[entry_of(2, 2)]));
    say!("beyond: {} none: {}", ring.run(&[entry_of(3, 2)]), ring.run(&[entry_of(3, 0)]));
    ring.submit(&[Sqe { off: 0, ..read_into(3, &mut buffer, 3).with(FIXED_FILE) }], 1);
    say!("{}", ring.take_text(&buffer));
}

fn direct_descriptors() {
    let ring = Ring::new(8, 0);
    create(c"f", "0123456789");
    let path = c"f".as_ptr() as u64;
    let opened = |file_index: u32| Sqe { fd: AT_FDCWD, addr: path, file_index, ..entry(op::OPENAT, 1) };
    say!("no table: {}", ring.run(&[opened(1)]));
    ring.register(2, [-1i32; 3].as_ptr() as usize, 3);
    say!("at 1: {}", ring.run(&[opened(2)]));
    say!("any: {} {}", ring.run(&[opened(u32::MAX)]), ring.run(&[opened(u32::MAX)]));
    say!("full: {}", ring.run(&[opened(u32::MAX)]));
    say!("beyond: {}", ring.run(&[opened(9)]));
    say!("close-on-exec: {}", ring.run(&[Sqe { op_flags: O_CLOEXEC as u32, ..opened(1) }]));
    let mut buffer = [0; 4];
    ring.submit(&[read_into(1, &mut buffer, 2).with(FIXED_FILE)], 1);
    say!("{}", ring.take_text(&buffer));
    let closed = |file_index: u32| Sqe { fd: 0, file_index, ..entry(op::CLOSE, 3) };
    say!("close: {} twice: {} beyond: {}", ring.run(&[closed(2)]), ring.run(&[closed(2)]), ring.run(&[closed(20)]));
    say!("gone: {}", ring.run(&[read_into(1, &mut buffer, 4).with(FIXED_FILE)]));
    let range = |off: u32, len: u32| ring.register(25, [off, len, 0, 0].as_ptr() as usize, 0);
    say!("range: {} beyond: {}", range(1, 1), range(2, 2));
    say!("in it: {} full: {}", ring.run(&[opened(u32::MAX)]), ring.run(&[opened(u32::MAX)]));
}

fn provide(addr: *mut u8, len: u32, count: i32, group: u16, first: u64) -> Sqe {
    Sqe { fd: count, addr: addr as u64, len, off: first, buf_index: group, ..entry(op::PROVIDE_BUFFERS, 50) }
}

fn select(fd: i32, len: u32, group: u16, user_data: u64) -> Sqe {
    Sqe { fd, len, off: HERE, buf_index: group, ..entry(op::READ, user_data) }.with(BUFFER_SELECT)
}

fn provided_buffers() {
    let ring = Ring::new(8, 0);
    let area = memory::pages(1);
    let fd = create(c"f", "0123456789abcdefghij");
    say!("none: {}", ring.run(&[select(fd, 4, 7, 1)]));
    say!("three: {}", ring.run(&[provide(area, 8, 3, 7, 10)]));
    say!("first: {}", ring.run(&[select(fd, 4, 7, 2)]));
    say!("whole: {}", ring.run(&[select(fd, 0, 7, 3)]));
    say!("longer: {}", ring.run(&[select(fd, 100, 7, 4)]));
    say!("no more: {}", ring.run(&[select(fd, 4, 7, 5)]));
    // SAFETY: within the page.
    say!("{:?}", String::from_utf8_lossy(unsafe { std::slice::from_raw_parts(area, 24) }));
    ring.run(&[provide(area, 8, 2, 7, 0)]);
    let remove = |count: i32, group: u16| Sqe { fd: count, buf_index: group, ..entry(op::REMOVE_BUFFERS, 6) };
    say!(
        "remove: {} rest: {} unknown: {}",
        ring.run(&[remove(1, 7)]),
        ring.run(&[remove(9, 7)]),
        ring.run(&[remove(1, 8)])
    );
    say!("too many: {}", ring.run(&[provide(area, 8, 70_000, 7, 0)]));
    say!("ids: {}", ring.run(&[provide(area, 8, 1, 7, 70_000)]));
    let [reader, writer] = pipe();
    ring.run(&[provide(area, 8, 2, 7, 0)]);
    ring.submit(&[select(reader, 8, 7, 7)], 0);
    write(writer, "wait");
    say!("waits: {} {}", ring.wait(1), ring.shown());
}

fn buffer_ring() {
    let ring = Ring::new(8, 0);
    let area = memory::pages(2);
    let buffers = memory::pages(1);
    let fd = create(c"f", "0123456789abcdefghij");
    let reg = |addr: *mut u8, entries: u32, group: u64| [addr as u64, u64::from(entries) | group << 32, 0, 0, 0];
    let register = |reg: [u64; 5], opcode: u32| ring.register(opcode, reg.as_ptr() as usize, 1);
    say!("no power of two: {}", register(reg(area, 3, 1), 22));
    say!("not aligned: {}", register(reg(area.wrapping_add(8), 4, 1), 22));
    say!(
        "nowhere: {} null: {}",
        register(reg(0x1000 as *mut u8, 4, 1), 22),
        register(reg(std::ptr::null_mut(), 4, 1), 22)
    );
    say!("too long: {}", register(reg(area, 65_536, 1), 22));
    say!("register: {} twice: {}", register(reg(area, 4, 1), 22), register(reg(area, 4, 1), 22));
    say!("empty: {}", ring.run(&[select(fd, 4, 1, 1)]));
    let put = |slot: usize, id: u16, tail: u16| {
        let at = area.cast::<u64>();
        // SAFETY: within the area; the tail is behind the first entry's id.
        unsafe {
            at.add(2 * slot).write_volatile(buffers.add(8 * usize::from(id)) as u64);
            at.add(2 * slot + 1).cast::<u32>().write_volatile(8);
            area.add(16 * slot + 12).cast::<u16>().write_volatile(id);
            area.add(14).cast::<u16>().write_volatile(tail);
        }
    };
    put(0, 5, 1);
    put(1, 6, 2);
    say!("first: {}", ring.run(&[select(fd, 4, 1, 2)]));
    say!("second: {}", ring.run(&[select(fd, 0, 1, 3)]));
    say!("no more: {}", ring.run(&[select(fd, 4, 1, 4)]));
    say!("by an entry: {}", ring.run(&[provide(buffers, 8, 1, 1, 0)]));
    say!("unknown: {} unregister: {}", register(reg(area, 4, 2), 23), register(reg(area, 4, 1), 23));
    say!("gone: {}", ring.run(&[select(fd, 4, 1, 5)]));
}

fn personality() {
    let ring = Ring::new(4, 0);
    create(c"secret", "x");
    sys!(SYS_fchmodat, AT_FDCWD, c"secret", 0o600);
    say!("register: {}", ring.register(9, 0, 0));
    process::as_user(1000, || {
        let path = c"secret".as_ptr() as u64;
        let opened = Sqe { fd: AT_FDCWD, addr: path, op_flags: O_RDONLY as u32, ..entry(op::OPENAT, 1) };
        say!("as a user: {}", ring.run(&[opened]));
        ring.submit(&[Sqe { personality: 1, ..opened }], 1);
        say!("as it was registered: {}", ring.all().first().is_some_and(|cqe| cqe.res > 0));
        0
    });
    say!("argument: {}", ring.register(9, 1, 0));
    say!("unregister: {} twice: {} 0: {}", ring.register(10, 0, 1), ring.register(10, 0, 1), ring.register(10, 0, 0));
    say!("gone: {}", ring.run(&[Sqe { personality: 1, ..entry(op::NOP, 2) }]));
}

fn probe() {
    let ring = Ring::new(4, 0);
    let mut bytes = [0u8; 16 + 256 * 8];
    say!("probe: {}", ring.register(8, bytes.as_mut_ptr() as usize, 256));
    say!("last: {} count: {}", bytes[0], bytes[1]);
    let there: Vec<u8> = (0..46).filter(|op| bytes[16 + 8 * op + 2] & 1 != 0).map(|op| bytes[16 + 8 * op]).collect();
    say!("there: {there:?}");
    say!("not zero: {}", ring.register(8, bytes.as_mut_ptr() as usize, 256));
    bytes.fill(0);
    say!("few: {} {}", ring.register(8, bytes.as_mut_ptr() as usize, 3), bytes[1]);
    say!("too many: {} nowhere: {}", ring.register(8, bytes.as_mut_ptr() as usize, 257), ring.register(8, 0, 1));
}

fn registered_ring() {
    let ring = Ring::new(4, 0);
    let mut list = [[u32::MAX, 0, ring.fd as u32, 0], [5, 0, ring.fd as u32, 0]];
    say!("register: {}", ring.register(20, list.as_mut_ptr() as usize, 2));
    say!("at {} {}", list[0][0], list[1][0]);
    ring.push(entry(op::NOP, 1));
    say!("enter: {}", sys!(SYS_io_uring_enter, 5, 1, 1, GETEVENTS | REGISTERED_RING, 0, 0));
    say!("{}", ring.shown());
    say!("free: {}", sys!(SYS_io_uring_enter, 3, 0, 0, REGISTERED_RING, 0, 0));
    let again = [[5, 0, ring.fd as u32, 0]];
    say!("again: {}", ring.register(20, again.as_ptr() as usize, 1));
    let wrong = [[16, 0, ring.fd as u32, 0], [0, 1, 0, 0]];
    say!(
        "wrong: {} {}",
        ring.register(20, wrong.as_ptr() as usize, 1),
        ring.register(20, &raw const wrong[1] as usize, 1)
    );
    say!(
        "too many: {} none: {}",
        ring.register(20, list.as_ptr() as usize, 17),
        ring.register(20, list.as_ptr() as usize, 0)
    );
    let mut free = [[5, 0, 0, 0]];
    say!("unregister: {}", ring.register(21, free.as_mut_ptr() as usize, 1));
    say!("gone: {}", sys!(SYS_io_uring_enter, 5, 0, 0, REGISTERED_RING, 0, 0));
    let other = std::thread::spawn(|| sys!(SYS_io_uring_enter, 0, 0, 0, REGISTERED_RING, 0, 0));
    if let Ok(ret) = other.join() {
        say!("another thread's: {ret}");
    }
}

fn restrictions() {
    let ring = Ring::new(4, SETUP_R_DISABLED);
    // Operation 1 of entries: NOP; flags allowed: IO_LINK; operation of registering: ENABLE_RINGS.
    let list: [[u8; 16]; 3] = [[1, 0], [2, 0], [0, 0]].map(|kind: [u8; 2]| {
        let mut record = [0u8; 16];
        record[..2].copy_from_slice(&kind);
        record[2] = match kind[0] {
            1 => op::NOP,
            2 => IO_LINK,
            _ => 12,
        };
        record
    });
    say!("restrict: {}", ring.register(11, list.as_ptr() as usize, 3));
    say!("twice: {}", ring.register(11, list.as_ptr() as usize, 3));
    say!("enable: {}", ring.register(12, 0, 0));
    say!("allowed: {}", ring.run(&[entry(op::NOP, 1)]));
    say!("another operation: {}", ring.run(&[poll_add(0, POLLIN, 0, 2)]));
    say!("another flag: {}", ring.run(&[entry(op::NOP, 3).with(ASYNC)]));
    say!("register: {}", ring.register(8, 0, 0));
}

fn eventfd_counts() {
    let ring = Ring::new(8, 0);
    let event = sys!(SYS_eventfd2, 0, O_NONBLOCK).fd();
    let count = || {
        let mut value = 0u64;
        let ret = sys!(SYS_read, event, &mut value, 8);
        if ret.ok() { value.to_string() } else { ret.to_string() }
    };
    say!("register: {}", ring.register(4, &event as *const i32 as usize, 1));
    say!("nothing: {}", count());
    ring.submit(&[entry(op::NOP, 1)], 1);
    say!("one: {}", count());
    ring.submit(&[entry(op::NOP, 1), entry(op::NOP, 2), entry(op::NOP, 3)], 3);
    say!("three at once: {}", count());
    ring.all();
    ring.word(ring.params.cq_off[6]).store(1, std::sync::atomic::Ordering::SeqCst);
    ring.submit(&[entry(op::NOP, 1)], 1);
    say!("switched off: {}", count());
    ring.word(ring.params.cq_off[6]).store(0, std::sync::atomic::Ordering::SeqCst);
    say!("unregister: {} {}", ring.register(5, 0, 0), ring.register(5, 0, 0));
    say!("for later ones: {}", ring.register(7, &event as *const i32 as usize, 1));
    ring.submit(&[entry(op::NOP, 1)], 1);
    say!("one at once: {}", count());
}

fn eventfd_errors() {
    let ring = Ring::new(2, 0);
    let file = create(c"f", "");
    let event = sys!(SYS_eventfd2, 0, 0).fd();
    let at = |fd: &i32| std::ptr::from_ref(fd) as usize;
    say!("a file: {}", ring.register(4, at(&file), 1));
    say!("closed: {}", ring.register(4, at(&99), 1));
    say!("two: {}", ring.register(4, at(&event), 2));
    say!("bad pointer: {}", ring.register(4, NOWHERE as usize, 1));
    say!("none to unregister: {}", ring.register(5, 0, 0));
    say!("once: {} twice: {}", ring.register(4, at(&event), 1), ring.register(4, at(&event), 1));
    say!("unregister with an argument: {}", ring.register(5, 1, 0));
    say!("unknown: {}", ring.register(99, 0, 0));
}

fn epoll_and_messages() {
    let ring = Ring::new(4, 0);
    let other = Ring::new(4, 0);
    let epoll = sys!(SYS_epoll_create1, 0).fd();
    let [reader, writer] = pipe();
    let event = epoll_event { events: EPOLLIN as u32, u64: 77 };
    let ctl = Sqe {
        fd: epoll,
        off: reader as u64,
        len: EPOLL_CTL_ADD as u32,
        addr: &raw const event as u64,
        ..entry(op::EPOLL_CTL, 1)
    };
    say!("epoll_ctl: {} twice: {}", ring.run(&[ctl]), ring.run(&[ctl]));
    write(writer, "x");
    let mut got: epoll_event = crate::sys::zeroed();
    say!("{} {}", sys!(SYS_epoll_pwait, epoll, &mut got, 1, 0, 0, 8), { got.u64 });
    let message = |fd: i32| Sqe { fd, len: 42, off: 1234, ..entry(op::MSG_RING, 2) };
    say!("message: {} there: {}", ring.run(&[message(other.fd)]), other.shown());
    ring.submit(&[message(ring.fd)], 2);
    say!("to itself: {}", ring.sorted());
    say!("to a pipe: {}", ring.run(&[message(reader)]));
    say!("unknown: {}", ring.run(&[Sqe { addr: 9, ..message(other.fd) }]));
    say!("nobody waits: {}", other.enter(0, 0, GETEVENTS));
}
