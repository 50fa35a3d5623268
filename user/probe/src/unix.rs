//! Rules of Unix sockets (unix(7)): one line each, the same on Linux.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::ptr::null_mut;
use std::thread;
use std::time::Duration;

type Rule = (&'static str, fn() -> std::io::Result<String>);

const RULES: &[Rule] = &[
    ("a stream by name", stream_by_name),
    ("a name can be taken once", name_taken),
    ("nobody listens", nobody_listens),
    ("datagrams keep their bounds", datagram_bounds),
    ("end of file after shutdown", end_of_file),
    ("nobody reads any more", broken_pipe),
    ("a read that is not to wait", nonblocking),
    ("a read with a timeout", timeout),
    ("readiness", readiness),
    ("a descriptor in a message", descriptor),
    ("who is at the other end", peer_credentials),
    ("another family", other_family),
    ("a megabyte between threads", megabyte),
    ("a listener closes while others connect", listener_closes),
    ("no descriptor for a connection", no_descriptor),
    ("a receiver closes while another sends", receiver_closes),
    ("least lengths of reads", least_lengths),
    ("kinds of sockets", kinds),
    ("addresses of those without names", unnamed),
];

pub fn all() {
    for (name, rule) in RULES {
        println!("{name}: {}", rule().unwrap_or_else(|error| format!("failed: {error}")));
    }
}

/// The errno of an operation that must fail.
fn errno_of<T>(result: std::io::Result<T>) -> i32 {
    result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

fn stream_by_name() -> std::io::Result<String> {
    let path = "/tmp/probe.stream";
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    let client = thread::spawn(move || -> std::io::Result<String> {
        let mut stream = UnixStream::connect(path)?;
        stream.write_all(b"question")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let peer = stream.peer_addr()?;
        Ok(format!("{answer} from {}", peer.as_pathname().map_or("?", |path| path.to_str().unwrap_or("?"))))
    });
    let (mut stream, address) = listener.accept()?;
    let mut question = String::new();
    stream.read_to_string(&mut question)?;
    stream.write_all(b"answer")?;
    drop(stream);
    let answer = client.join().unwrap_or_else(|_| Ok("panicked".into()))?;
    fs::remove_file(path)?;
    Ok(format!("{question} from unnamed {}, {answer}", address.is_unnamed()))
}

fn name_taken() -> std::io::Result<String> {
    let path = "/tmp/probe.taken";
    let _ = fs::remove_file(path);
    let first = UnixDatagram::bind(path)?;
    let second = errno_of(UnixDatagram::bind(path));
    drop(first);
    let third = errno_of(UnixDatagram::bind(path));
    fs::remove_file(path)?;
    Ok(format!("{second} {third}"))
}

fn nobody_listens() -> std::io::Result<String> {
    let path = "/tmp/probe.nobody";
    let _ = fs::remove_file(path);
    let missing = errno_of(UnixStream::connect(path));
    drop(UnixListener::bind(path)?);
    let closed = errno_of(UnixStream::connect(path));
    let datagram = UnixDatagram::unbound()?;
    let unconnected = errno_of(datagram.send(b"x"));
    fs::remove_file(path)?;
    fs::write(path, b"")?;
    let no_socket = errno_of(UnixStream::connect(path));
    fs::remove_file(path)?;
    Ok(format!("{missing} {closed} {unconnected} {no_socket}"))
}

fn datagram_bounds() -> std::io::Result<String> {
    let (a, b) = UnixDatagram::pair()?;
    a.send(b"four")?;
    a.send(b"")?;
    a.send(b"seven..")?;
    let mut buffer = [0; 5];
    Ok(format!("{} {} {}", b.recv(&mut buffer)?, b.recv(&mut buffer)?, b.recv(&mut buffer)?))
}

fn end_of_file() -> std::io::Result<String> {
    let (mut a, mut b) = UnixStream::pair()?;
    a.write_all(b"rest")?;
    a.shutdown(std::net::Shutdown::Write)?;
    let mut text = String::new();
    b.read_to_string(&mut text)?;
    let write = errno_of(a.write(b"x"));
    b.write_all(b"other way")?;
    let mut buffer = [0; 16];
    Ok(format!("{text} {write} {}", a.read(&mut buffer)?))
}

fn broken_pipe() -> std::io::Result<String> {
    let (mut a, b) = UnixStream::pair()?;
    drop(b);
    // Rust ignores SIGPIPE, so the error is what there is to see.
    let write = errno_of(a.write(b"x"));
    let (mut c, mut d) = UnixStream::pair()?;
    d.write_all(b"unread")?;
    c.write_all(b"unread too")?;
    drop(c);
    let mut buffer = [0; 16];
    Ok(format!("{write} {}", errno_of(d.read(&mut buffer).and_then(|_| d.read(&mut buffer)))))
}

fn nonblocking() -> std::io::Result<String> {
    let (mut a, mut b) = UnixStream::pair()?;
    a.set_nonblocking(true)?;
    let read = errno_of(a.read(&mut [0; 4]));
    let block = [0; 4096];
    let full = loop {
        if let Err(error) = a.write(&block) {
            break error.raw_os_error().unwrap_or(0);
        }
    };
    let mut drained = vec![0; 1 << 20];
    let mut sum = 0;
    b.set_nonblocking(true)?;
    while let Ok(count) = b.read(&mut drained) {
        sum += count;
    }
    Ok(format!("{read} {full} at least 64 KiB: {}", sum >= 65_536))
}

fn timeout() -> std::io::Result<String> {
    let (mut a, _b) = UnixStream::pair()?;
    a.set_read_timeout(Some(Duration::from_millis(30)))?;
    let result = a.read(&mut [0; 4]);
    Ok(format!("{} {:?}", errno_of(result), a.read_timeout()?.map(|time| time.as_millis() >= 30)))
}

fn poll(fd: RawFd) -> i16 {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP, revents: 0 };
    // SAFETY: one live entry.
    unsafe { libc::poll(&mut entry, 1, 0) };
    entry.revents
}

fn readiness() -> std::io::Result<String> {
    let (a, mut b) = UnixStream::pair()?;
    let fresh = poll(a.as_raw_fd());
    b.write_all(b"x")?;
    let readable = poll(a.as_raw_fd());
    b.shutdown(std::net::Shutdown::Write)?;
    let half = poll(a.as_raw_fd());
    drop(b);
    Ok(format!("{fresh:#x} {readable:#x} {half:#x} {:#x}", poll(a.as_raw_fd())))
}

/// Room for one descriptor in a control message, aligned like its header.
#[repr(align(8))]
struct Control([u8; 24]);

fn send_descriptor(socket: RawFd, fd: RawFd) -> isize {
    let mut control = Control([0; 24]);
    let mut byte = *b"d";
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: a header of zeros is an empty message; all that it points to lives until the call is over, and the
    // control buffer has room for one descriptor.
    unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(size_of::<RawFd>() as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as _;
        libc::CMSG_DATA(header).cast::<RawFd>().write_unaligned(fd);
        libc::sendmsg(socket, &message, 0)
    }
}

fn receive_descriptor(socket: RawFd) -> Option<OwnedFd> {
    let mut control = Control([0; 24]);
    let mut byte = [0];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    // SAFETY: as in `send_descriptor`; a descriptor that was received is nobody else's.
    unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len() as _;
        if libc::recvmsg(socket, &mut message, libc::MSG_CMSG_CLOEXEC) != 1 {
            return None;
        }
        let header = libc::CMSG_FIRSTHDR(&message);
        if header.is_null() || (*header).cmsg_type != libc::SCM_RIGHTS {
            return None;
        }
        Some(OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().read_unaligned()))
    }
}

fn descriptor() -> std::io::Result<String> {
    let (a, b) = UnixStream::pair()?;
    let (mut inner, sent) = UnixStream::pair()?;
    let count = send_descriptor(a.as_raw_fd(), sent.as_raw_fd());
    drop(sent);
    inner.write_all(b"through it")?;
    let received = receive_descriptor(b.as_raw_fd()).ok_or(ErrorKind::InvalidData)?;
    let mut buffer = [0; 16];
    let read = UnixStream::from(received).read(&mut buffer)?;
    // It was the last one.
    Ok(format!("{count} {read} {}", errno_of(inner.write(b"x"))))
}

fn peer_credentials() -> std::io::Result<String> {
    let (a, _b) = UnixStream::pair()?;
    let mut who = libc::ucred { pid: 0, uid: 1, gid: 1 };
    let mut size = size_of::<libc::ucred>() as u32;
    // SAFETY: a live structure and its size.
    let result = unsafe {
        libc::getsockopt(a.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut who).cast(), &mut size)
    };
    Ok(format!("{result} {} {} {}", who.pid as u32 == std::process::id(), who.uid, who.gid))
}

fn other_family() -> std::io::Result<String> {
    let call = |family, kind, protocol| {
        // SAFETY: no memory involved.
        match unsafe { libc::socket(family, kind, protocol) } {
            -1 => errno_of(Err::<(), _>(std::io::Error::last_os_error())),
            fd => {
                // SAFETY: the descriptor is new.
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
                0
            }
        }
    };
    let mut ends = [0; 2];
    // SAFETY: the address is one that nobody has.
    let fault = unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, null_mut()) };
    let fault = if fault == -1 { errno_of(Err::<(), _>(std::io::Error::last_os_error())) } else { 0 };
    // SAFETY: room for two.
    let pair = unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 77, ends.as_mut_ptr()) };
    Ok(format!(
        "{} {} {} {fault} {pair}",
        call(99, libc::SOCK_STREAM, 0),
        call(libc::AF_UNIX, 99, 0),
        call(libc::AF_UNIX, libc::SOCK_STREAM, 77)
    ))
}

/// A listener that lets one connection wait.
fn short_listener(path: &str) -> std::io::Result<UnixListener> {
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    // SAFETY: no memory involved.
    unsafe { libc::listen(listener.as_raw_fd(), 0) };
    Ok(listener)
}

fn listener_closes() -> std::io::Result<String> {
    let path = "/tmp/probe.closes";
    let listener = short_listener(path)?;
    let mut first = UnixStream::connect(path)?;
    let second = thread::spawn(move || errno_of(UnixStream::connect(path)));
    thread::sleep(Duration::from_millis(100));
    drop(listener);
    let second = second.join().unwrap_or(-1);
    fs::remove_file(path)?;
    Ok(format!("{} {second}", errno_of(first.read(&mut [0; 4]))))
}

fn no_descriptor() -> std::io::Result<String> {
    let path = "/tmp/probe.none";
    let listener = short_listener(path)?;
    let mut client = UnixStream::connect(path)?;
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a live structure, and a copy of it.
    let accepted = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        libc::setrlimit(libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur: 3, ..limit });
        let accepted = errno_of(listener.accept());
        libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        accepted
    };
    let (mut server, _) = listener.accept()?;
    server.write_all(b"still there")?;
    fs::remove_file(path)?;
    Ok(format!("{accepted} {}", client.read(&mut [0; 16])?))
}

fn receiver_closes() -> std::io::Result<String> {
    let path = "/tmp/probe.receiver";
    let _ = fs::remove_file(path);
    let receiver = UnixDatagram::bind(path)?;
    let sender = thread::spawn(move || -> std::io::Result<i32> {
        let socket = UnixDatagram::unbound()?;
        // More than wait in the queue.
        Ok((0..100).map(|_| errno_of(socket.send_to(b"x", path))).find(|errno| *errno != 0).unwrap_or(0))
    });
    thread::sleep(Duration::from_millis(100));
    drop(receiver);
    let errno = sender.join().unwrap_or(Ok(-1))?;
    fs::remove_file(path)?;
    Ok(errno.to_string())
}

fn megabyte() -> std::io::Result<String> {
    let (mut a, mut b) = UnixStream::pair()?;
    let sender = thread::spawn(move || {
        let block: Vec<u8> = (0..=250).collect();
        (0..4_178).all(|_| a.write_all(&block).is_ok())
    });
    let mut all = Vec::new();
    b.read_to_end(&mut all)?;
    let right = all.iter().enumerate().all(|(index, byte)| index % 251 == usize::from(*byte));
    Ok(format!("{} {right} {}", all.len(), sender.join().unwrap_or(false)))
}

fn set_option(fd: RawFd, option: i32, value: i32) {
    // SAFETY: a live integer and its size.
    unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const value).cast(), 4) };
}

fn least_lengths() -> std::io::Result<String> {
    let (mut a, mut b) = UnixStream::pair()?;
    set_option(a.as_raw_fd(), libc::SO_RCVLOWAT, 5);
    let writer = thread::spawn(move || {
        for _ in 0..3 {
            let _ = b.write_all(b"two");
            thread::sleep(Duration::from_millis(100));
        }
    });
    let read = a.read(&mut [0; 16])?;
    let _ = writer.join();
    a.set_read_timeout(Some(Duration::from_secs(1)))?;
    // Nothing is waited for.
    let nothing = a.read(&mut [])?;
    Ok(format!("{read} {nothing} {}", a.read(&mut [0; 16])?))
}

fn kinds() -> std::io::Result<String> {
    let answers: Vec<i32> = (0..12)
        // SAFETY: no memory involved; a descriptor that is new is nobody else's.
        .map(|kind| match unsafe { libc::socket(libc::AF_UNIX, kind, 0) } {
            -1 => errno_of(Err::<(), _>(std::io::Error::last_os_error())),
            fd => {
                drop(unsafe { OwnedFd::from_raw_fd(fd) });
                0
            }
        })
        .collect();
    Ok(format!("{answers:?}"))
}

fn unnamed() -> std::io::Result<String> {
    let (a, b) = UnixDatagram::pair()?;
    let (mut c, d) = UnixStream::pair()?;
    a.send(b"x")?;
    c.write_all(b"y")?;
    let lengths = [b.as_raw_fd(), d.as_raw_fd()].map(|fd| {
        let (mut byte, mut address, mut length) = ([0u8], [0u8; 128], 128u32);
        // SAFETY: all of it is alive and as long as it says.
        unsafe {
            libc::recvfrom(fd, byte.as_mut_ptr().cast(), 1, 0, address.as_mut_ptr().cast(), &mut length);
        }
        length
    });
    let mut length = 128u32;
    let mut address = [0u8; 128];
    // SAFETY: as above.
    unsafe { libc::getpeername(b.as_raw_fd(), address.as_mut_ptr().cast(), &mut length) };
    Ok(format!("{lengths:?} {length}"))
}
