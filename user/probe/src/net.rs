//! The network behind a card, as programs use it. Whom to talk to is the test's: it has servers on the host.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::thread;
use std::time::Duration;

/// The host, in QEMU's user mode.
const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const BYTES: usize = 10 << 20;
/// In QEMU's user mode a datagram is answered or lost; nothing is lost on the way.
const SIZES: [usize; 5] = [1, 512, 1472, 1473, 8000];
const PATIENCE: Duration = Duration::from_secs(20);

/// The byte at a place of what is sent, which does not repeat with any power of two.
fn pattern(place: usize) -> u8 {
    (place.wrapping_mul(31) + place / 4093) as u8
}

fn host(port: u64) -> SocketAddr {
    SocketAddrV4::new(HOST, port as u16).into()
}

fn tell(what: &str, result: io::Result<String>) {
    match result {
        Ok(text) => println!("{what}: {text}"),
        Err(error) => println!("{what}: failed, {error}"),
    }
}

/// Talks to an echo server for TCP, one for UDP, and a TCP port where nobody is.
pub fn client(tcp: u64, udp: u64, nobody: u64) {
    tell("echo", echo(host(tcp)));
    tell("datagrams", datagrams(host(udp)));
    tell("nobody", nobody_there(host(nobody)));
    tell("nobody to send to", nobody_to_send_to(host(nobody)));
    tell("later", connect_later(host(tcp)));
    tell("reset", reset(host(tcp)));
    tell("many", many(host(tcp)));
    tell("unreachable", unreachable());
}

fn echo(server: SocketAddr) -> io::Result<String> {
    let stream = TcpStream::connect(server)?;
    let mut writer = stream.try_clone()?;
    let sender = thread::spawn(move || -> io::Result<()> {
        let mut sent = 0;
        while sent < BYTES {
            let chunk: Vec<u8> = (sent..BYTES.min(sent + 50_000)).map(pattern).collect();
            writer.write_all(&chunk)?;
            sent += chunk.len();
        }
        writer.shutdown(Shutdown::Write)
    });
    let len = check(stream)?;
    sender.join().map_err(|_| io::Error::other("the sender has panicked"))??;
    Ok(format!("{len} bytes back"))
}

/// Reads to the end; an error if something is wrong on the way.
fn check(mut stream: TcpStream) -> io::Result<usize> {
    let (mut len, mut buffer) = (0, vec![0; 60_000]);
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(len);
        }
        if let Some(wrong) = (0..count).find(|index| buffer[*index] != pattern(len + index)) {
            return Err(io::Error::other(format!("byte {} is wrong", len + wrong)));
        }
        len += count;
    }
}

fn datagrams(server: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut told = String::new();
    for size in SIZES {
        let data: Vec<u8> = (0..size).map(pattern).collect();
        socket.send_to(&data, server)?;
        let mut back = vec![0; 10_000];
        let (len, from) = socket.recv_from(&mut back)?;
        told.push_str(&format!("{size} {} {}, ", back[..len] == data[..], from == server));
    }
    Ok(told)
}

fn nobody_there(server: SocketAddr) -> io::Result<String> {
    let error = TcpStream::connect(server).err().map(|error| error.kind());
    Ok(format!("{error:?}"))
}

/// A connected UDP socket is told by the next call.
fn nobody_to_send_to(server: SocketAddr) -> io::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"hello?")?;
    let error = socket.recv(&mut [0; 10]).err().map(|error| error.kind());
    Ok(format!("{error:?}"))
}

/// connect(2) that does not wait, poll(2), SO_ERROR.
fn connect_later(server: SocketAddr) -> io::Result<String> {
    let SocketAddr::V4(server) = server else { return Err(ErrorKind::Unsupported.into()) };
    // SAFETY: the structures are initialised and live until the calls are over.
    unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let socket = OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, kind, 0));
        let mut address: libc::sockaddr_in = std::mem::zeroed();
        address.sin_family = libc::AF_INET as _;
        address.sin_port = server.port().to_be();
        address.sin_addr.s_addr = u32::from(*server.ip()).to_be();
        let size = size_of_val(&address) as u32;
        let begun = libc::connect(socket.as_raw_fd(), (&raw const address).cast(), size);
        let errno = io::Error::last_os_error().raw_os_error();
        let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
        let ready = libc::poll(&mut poll, 1, 20_000);
        let (mut error, mut len) = (-1_i32, 4_u32);
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut error).cast(), &mut len);
        let stream = TcpStream::from(socket);
        let own = stream.local_addr()?.ip();
        let in_progress = errno == Some(libc::EINPROGRESS);
        Ok(format!("{begun} {in_progress}, {ready} {}, {error}, {own} {}", poll.revents, stream.peer_addr()?.ip()))
    }
}

/// SO_LINGER with no time: the server is told, and the next connection is as good as any.
fn reset(server: SocketAddr) -> io::Result<String> {
    let stream = TcpStream::connect(server)?;
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: a descriptor and a structure that lives until the call is over.
    unsafe {
        let size = size_of::<libc::linger>() as u32;
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), size);
    }
    (&stream).write_all(b"not to be answered")?;
    drop(stream);
    let mut again = TcpStream::connect(server)?;
    again.write_all(b"hello")?;
    let mut back = [0; 5];
    again.read_exact(&mut back)?;
    Ok(String::from_utf8_lossy(&back).into_owned())
}

/// Connections at the same time, and one after the other.
fn many(server: SocketAddr) -> io::Result<String> {
    let talk = |stream: &mut TcpStream, number: usize| -> io::Result<bool> {
        let text = format!("{number:04}");
        stream.write_all(text.as_bytes())?;
        let mut back = [0; 4];
        stream.read_exact(&mut back)?;
        Ok(back == *text.as_bytes())
    };
    let mut streams = (0..50).map(|_| TcpStream::connect(server)).collect::<io::Result<Vec<_>>>()?;
    let mut good = 0;
    for (number, stream) in streams.iter_mut().enumerate() {
        good += usize::from(talk(stream, number)?);
    }
    drop(streams);
    for number in 0..50 {
        good += usize::from(talk(&mut TcpStream::connect(server)?, number)?);
    }
    Ok(format!("{good} good"))
}

/// On the same wire, but nobody has this address.
fn unreachable() -> io::Result<String> {
    let error = TcpStream::connect((Ipv4Addr::new(10, 0, 2, 77), 80)).err().map(|error| error.kind());
    Ok(format!("{error:?}"))
}

/// Bytes that the client has not acknowledged (SIOCOUTQ).
fn unsent(stream: &TcpStream) -> io::Result<i32> {
    let mut count = 0;
    // SAFETY: a descriptor and a number that lives until the call is over.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(count) }
}

/// Sends back what comes, to so many clients, at the same time; and datagrams as long as there are clients.
pub fn server(port: u64, clients: u64) {
    tell("server", serve(port as u16, clients));
}

fn serve(port: u16, clients: u64) -> io::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let datagrams = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port))?;
    thread::spawn(move || -> io::Result<()> {
        let mut buffer = [0; 10_000];
        loop {
            let (len, from) = datagrams.recv_from(&mut buffer)?;
            datagrams.send_to(&buffer[..len], from)?;
        }
    });
    println!("listening");
    let mut workers = Vec::new();
    for _ in 0..clients {
        let (stream, _) = listener.accept()?;
        workers.push(thread::spawn(move || {
            let len = io::copy(&mut &stream, &mut &stream)?;
            // The machine goes off after the last one.
            while unsent(&stream)? > 0 {
                thread::sleep(Duration::from_millis(1));
            }
            io::Result::Ok(len)
        }));
    }
    let mut total = 0;
    for worker in workers {
        total += worker.join().map_err(|_| io::Error::other("a worker has panicked"))??;
    }
    Ok(format!("{total} bytes"))
}
