//! Sockets: socket(2) and its relatives.

use alloc::sync::Arc;
use core::sync::atomic::Ordering;

use linux_raw_sys::net as raw;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::SysResult;
use crate::errno::{Errno, Result};
use crate::exec::{Interrupted, interruptible, timeout};
use crate::fs::open_file::settled;
use crate::fs::{FileOps, OpenFile, TryError};
use crate::mm::{IoBuf, UserPtr, import_iovec};
use crate::net::inet::{self, AF_INET, AF_INET6};
use crate::net::link::{self, AF_PACKET};
use crate::net::netlink::{self, AF_NETLINK};
use crate::net::socket::{Common, Outgoing, Received, Socket, Type, of_file};
use crate::net::unix::{self, AF_UNIX, UnixSocket};
use crate::net::{address, control, options, transfer};
use crate::net::{device, filter};
use crate::process::Thread;
use crate::time::UserTimespec;

const O_NONBLOCK: u32 = linux_raw_sys::general::O_NONBLOCK;
const SOCK_CLOEXEC: u32 = linux_raw_sys::general::O_CLOEXEC;
const TYPE_MASK: u32 = 0xf;

/// `struct msghdr`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MsgHdr {
    name: u64,
    name_len: i32,
    _pad: u32,
    iov: u64,
    iov_len: u64,
    control: u64,
    control_len: u64,
    flags: u32,
    _pad2: u32,
}

impl MsgHdr {
    /// How long the name is, or may become: 0 if there is none, and not more than any name (__copy_msghdr of Linux).
    fn name_room(&self) -> Result<i32> {
        match self.name_len {
            _ if self.name == 0 => Ok(0),
            len if len < 0 => Err(Errno::EINVAL),
            len => Ok(len.min(address::MAX as i32)),
        }
    }
}

/// `struct mmsghdr`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct MMsgHdr {
    header: MsgHdr,
    len: u32,
    _pad: u32,
}

/// Type and flags of socket(2) and socketpair(2).
fn decode(kind: u32) -> Result<(u32, u32)> {
    let flags = kind & !TYPE_MASK;
    if flags & !(SOCK_CLOEXEC | O_NONBLOCK) != 0 { Err(Errno::EINVAL) } else { Ok((kind & TYPE_MASK, flags)) }
}

pub(crate) fn install(t: &Thread, socket: Arc<dyn FileOps>, flags: u32) -> Result<i32> {
    t.files().install(open_socket(socket, flags), flags & SOCK_CLOEXEC != 0)
}

pub(crate) fn open_socket(socket: Arc<dyn FileOps>, flags: u32) -> Arc<OpenFile> {
    let file = OpenFile::new_socket(socket, linux_raw_sys::general::O_RDWR | flags & O_NONBLOCK);
    if let Ok(socket) = of_file(&file) {
        let inode = file.inode().metadata();
        socket.common().inode.store(inode.ino, Ordering::Relaxed);
        socket.common().uid.store(inode.uid, Ordering::Relaxed);
        socket.opened();
    }
    file
}

/// socket(2) without a descriptor; with the flags that it asks for.
pub(crate) fn make(t: &Thread, family: u32, kind: u32, protocol: i32) -> Result<(Arc<dyn FileOps>, u32)> {
    let (kind, flags) = decode(kind)?;
    let socket: Arc<dyn FileOps> = match u16::try_from(family) {
        Ok(AF_UNIX) => UnixSocket::new(unix::kind(kind, protocol)?),
        Ok(family @ (AF_INET | AF_INET6)) => inet::make(t, family, kind, protocol)?,
        Ok(AF_NETLINK) => netlink::make(t, kind, protocol)?,
        Ok(AF_PACKET) => link::make(t, kind, protocol)?,
        _ => return Err(Errno::EAFNOSUPPORT),
    };
    Ok((socket, flags))
}

pub fn socket(t: &Thread, family: u32, kind: u32, protocol: i32) -> Result<i32> {
    let (socket, flags) = make(t, family, kind, protocol)?;
    install(t, socket, flags)
}

pub async fn socketpair(t: &Thread, family: u32, kind: u32, protocol: i32, fds: UserPtr<[i32; 2]>) -> Result<()> {
    if family != u32::from(AF_UNIX) {
        make(t, family, kind, protocol)?;
        return Err(Errno::EOPNOTSUPP);
    }
    let (kind, flags) = decode(kind)?;
    let (a, b) = unix::pair(t, unix::kind(kind, protocol)?);
    let first = install(t, a, flags)?;
    let close = |fd| {
        let _ = t.files().close(fd);
    };
    let second = install(t, b, flags).inspect_err(|_| close(first))?;
    fds.write(t.mm(), [first, second]).await.inspect_err(|_| {
        close(first);
        close(second);
    })
}

pub async fn bind(t: &Thread, fd: i32, name: UserPtr<u8>, len: i32) -> Result<()> {
    let file = t.files().get_io(fd)?;
    let socket = of_file(&file)?;
    socket.bind(t, &address::import(t, name, len).await?).await
}

pub fn listen(t: &Thread, fd: i32, backlog: u32) -> Result<()> {
    let file = t.files().get_io(fd)?;
    of_file(&file)?.listen(t, backlog)
}

pub async fn accept(t: &Thread, fd: i32, name: UserPtr<u8>, len: UserPtr<i32>) -> SysResult<i32> {
    accept4(t, fd, name, len, 0).await
}

pub async fn accept4(t: &Thread, fd: i32, name: UserPtr<u8>, len: UserPtr<i32>, flags: u32) -> SysResult<i32> {
    if flags & !(SOCK_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let file = t.files().get_io(fd)?;
    let socket = of_file(&file)?;
    // Before a connection is taken, which would be lost.
    if !t.files().has_room() {
        return Err(Errno::EMFILE.into());
    }
    let result = if file.is_nonblock() {
        socket.try_accept()
    } else {
        let deadline = socket.common().receive_deadline();
        let attempt = || settled(socket.try_accept());
        // Each connection is for one of those who wait here.
        let wait = socket.queue().wait_for_exclusive(attempt);
        match interruptible(t, timeout(deadline, wait)).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(TryError::WouldBlock),
            Err(Interrupted) if deadline.is_some() => return Err(Errno::EINTR.into()),
            Err(interrupted) => return Err(interrupted.into()),
        }
    };
    let (connection, peer) = match result {
        Ok(connection) => connection,
        Err(TryError::Failed(errno)) => return Err(errno.into()),
        Err(_) => return Err(Errno::EAGAIN.into()),
    };
    let new = install(t, connection, flags)?;
    if !name.is_null()
        && let Err(errno) = address::export(t, &peer, name, len).await
    {
        let _ = t.files().close(new);
        return Err(errno.into());
    }
    Ok(new)
}

pub async fn connect(t: &Thread, fd: i32, name: UserPtr<u8>, len: i32) -> SysResult<()> {
    let file = t.files().get_io(fd)?;
    connect_file(t, &file, name, len, file.is_nonblock()).await
}

pub(crate) async fn connect_file(
    t: &Thread,
    file: &OpenFile,
    name: UserPtr<u8>,
    len: i32,
    nonblock: bool,
) -> SysResult<()> {
    let socket = of_file(file)?;
    let address = address::import(t, name, len).await?;
    socket.connect(t, &address, nonblock).await
}

pub async fn getsockname(t: &Thread, fd: i32, name: UserPtr<u8>, len: UserPtr<i32>) -> Result<()> {
    let file = t.files().get_io(fd)?;
    let address = of_file(&file)?.local_address();
    address::export(t, &address, name, len).await
}

pub async fn getpeername(t: &Thread, fd: i32, name: UserPtr<u8>, len: UserPtr<i32>) -> Result<()> {
    let file = t.files().get_io(fd)?;
    let address = of_file(&file)?.peer_address()?;
    address::export(t, &address, name, len).await
}

pub fn shutdown(t: &Thread, fd: i32, how: i32) -> Result<()> {
    shut(&*t.files().get_io(fd)?, how)
}

pub(crate) fn shut(file: &OpenFile, how: i32) -> Result<()> {
    let socket = of_file(file)?;
    match how {
        0 => socket.shutdown(true, false),
        1 => socket.shutdown(false, true),
        2 => socket.shutdown(true, true),
        _ => Err(Errno::EINVAL),
    }
}

/// MSG_* that attempts are told of. Without routes MSG_DONTROUTE and MSG_CONFIRM mean nothing.
const SEND_FLAGS: u32 =
    raw::MSG_DONTROUTE | raw::MSG_DONTWAIT | raw::MSG_EOR | raw::MSG_CONFIRM | raw::MSG_NOSIGNAL | raw::MSG_MORE;

async fn send(
    t: &Thread,
    file: &OpenFile,
    name: (UserPtr<u8>, i32),
    control: (UserPtr<u8>, u64),
    buf: &mut IoBuf<'_>,
    flags: u32,
) -> SysResult<usize> {
    let socket = of_file(file)?;
    let mut message = Outgoing::plain();
    // The families of the Internet look at the address first, on which it depends what control messages mean.
    let address_first = matches!(socket.common().family, AF_INET | AF_INET6);
    if control.1 > 0 && !address_first {
        control::import(t, socket, control.0, control.1, &mut message).await?;
    }
    message.urgent = flags & raw::MSG_OOB != 0;
    message.more = flags & raw::MSG_MORE != 0;
    // TCP sends nothing then, and an error is not told either. Of AF_PACKET the flag is not looked at.
    let Common { family, kind, protocol, .. } = *socket.common();
    let nothing = buf.is_empty() && protocol != inet::IPPROTO_TCP;
    if message.urgent && family != AF_PACKET && (kind != Type::Stream || nothing) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if !name.0.is_null() && name.1 != 0 {
        let address = address::import(t, name.0, name.1).await?;
        message.target = socket.resolve(t, &address).await?;
    }
    if control.1 > 0 && address_first {
        control::import(t, socket, control.0, control.1, &mut message).await?;
    }
    transfer::send(t, file, socket, buf, &mut message, flags & SEND_FLAGS).await
}

pub async fn sendto(
    t: &Thread,
    fd: i32,
    addr: u64,
    len: u64,
    flags: u32,
    name: UserPtr<u8>,
    name_len: i32,
) -> SysResult<usize> {
    let mut buf = IoBuf::user(t.mm(), addr, len)?;
    let file = t.files().get_io(fd)?;
    send_to(t, &file, &mut buf, flags, (name, name_len)).await
}

pub(crate) async fn send_to(
    t: &Thread,
    file: &OpenFile,
    buf: &mut IoBuf<'_>,
    flags: u32,
    name: (UserPtr<u8>, i32),
) -> SysResult<usize> {
    send(t, file, name, (UserPtr::new(0), 0), buf, flags).await
}

pub(crate) async fn send_header(t: &Thread, file: &OpenFile, header: &MsgHdr, flags: u32) -> SysResult<usize> {
    let name = (UserPtr::new(header.name), header.name_room()?);
    if header.iov_len > 1024 {
        return Err(Errno::EMSGSIZE.into());
    }
    let mut buf = IoBuf::user_iovec(t.mm(), import_iovec(t.mm(), header.iov, header.iov_len).await?);
    let control = (UserPtr::new(header.control), if header.control == 0 { 0 } else { header.control_len });
    send(t, file, name, control, &mut buf, flags).await
}

pub async fn sendmsg(t: &Thread, fd: i32, header: UserPtr<MsgHdr>, flags: u32) -> SysResult<usize> {
    let file = t.files().get_io(fd)?;
    of_file(&file)?;
    let header = header.read(t.mm()).await?;
    send_header(t, &file, &header, flags).await
}

pub async fn sendmmsg(t: &Thread, fd: i32, headers: UserPtr<MMsgHdr>, count: u32, flags: u32) -> SysResult<usize> {
    let file = t.files().get_io(fd)?;
    of_file(&file)?;
    let mut done = 0;
    // UIO_MAXIOV bounds one call.
    for index in 0..count.min(1024) as usize {
        let at = headers.at(index);
        let result = async {
            let mut message = at.read(t.mm()).await?;
            message.len = send_header(t, &file, &message.header, flags).await? as u32;
            at.write(t.mm(), message).await?;
            SysResult::Ok(())
        };
        match result.await {
            Ok(()) => done += 1,
            Err(_) if done > 0 => break,
            Err(error) => return Err(error),
        }
        crate::exec::budget().await;
    }
    Ok(done)
}

pub(crate) async fn receive(t: &Thread, file: &OpenFile, buf: &mut IoBuf<'_>, flags: u32) -> SysResult<Received> {
    let socket = of_file(file)?;
    // Of UDP there are no urgent bytes, and the flag is not looked at.
    if flags & raw::MSG_OOB != 0 && !inet::is_udp(socket.common().protocol) {
        return Ok(transfer::receive_urgent(socket, buf, flags).await?);
    }
    if flags & raw::MSG_ERRQUEUE != 0 {
        return Ok(transfer::receive_failure(socket, buf).await?);
    }
    transfer::receive(t, file, socket, buf, flags).await
}

/// What the call answers: the true length of a message for MSG_TRUNC, but not of ICMP sockets, as on Linux.
pub(crate) fn length(socket: &dyn Socket, received: &Received, flags: u32) -> usize {
    let told = socket.common().kind != Type::Stream && !inet::is_icmp(socket.common()) && !received.failure;
    let whole = flags & raw::MSG_TRUNC != 0 && told;
    if whole { received.full } else { received.len }
}

pub async fn recvfrom(
    t: &Thread,
    fd: i32,
    addr: u64,
    len: u64,
    flags: u32,
    name: UserPtr<u8>,
    name_len: UserPtr<i32>,
) -> SysResult<usize> {
    let mut buf = IoBuf::user(t.mm(), addr, len)?;
    let file = t.files().get_io(fd)?;
    let received = receive(t, &file, &mut buf, flags).await?;
    if !name.is_null() {
        address::export(t, received.from.as_deref().unwrap_or(&[]), name, name_len).await?;
    }
    Ok(length(of_file(&file)?, &received, flags))
}

pub(crate) async fn receive_header(t: &Thread, file: &OpenFile, at: UserPtr<MsgHdr>, flags: u32) -> SysResult<usize> {
    let mut header = at.read(t.mm()).await?;
    header.name_room()?;
    if header.iov_len > 1024 {
        return Err(Errno::EMSGSIZE.into());
    }
    let mut buf = IoBuf::user_iovec(t.mm(), import_iovec(t.mm(), header.iov, header.iov_len).await?);
    let mut received = receive(t, file, &mut buf, flags).await?;
    let socket = of_file(file)?;
    if header.name != 0 {
        let from = received.from.as_deref().unwrap_or(&[]);
        let cut = from.get(..(header.name_len as usize).min(from.len())).unwrap_or(from);
        UserPtr::<u8>::new(header.name).write_bytes(t.mm(), cut).await?;
        header.name_len = from.len() as i32;
    }
    let mut writer = control::Writer::new(UserPtr::new(header.control), header.control_len as usize);
    writer.put_all(t, socket, &mut received, flags & raw::MSG_CMSG_CLOEXEC != 0).await?;
    header.control_len = writer.used() as u64;
    header.flags = flags & raw::MSG_CMSG_CLOEXEC;
    if writer.truncated {
        header.flags |= raw::MSG_CTRUNC;
    }
    if received.full > received.len {
        header.flags |= raw::MSG_TRUNC;
    }
    if received.urgent {
        header.flags |= raw::MSG_OOB;
    }
    if received.failure {
        header.flags |= raw::MSG_ERRQUEUE;
    }
    at.write(t.mm(), header).await?;
    Ok(length(socket, &received, flags))
}

pub async fn recvmsg(t: &Thread, fd: i32, header: UserPtr<MsgHdr>, flags: u32) -> SysResult<usize> {
    let file = t.files().get_io(fd)?;
    of_file(&file)?;
    receive_header(t, &file, header, flags).await
}

pub async fn recvmmsg(
    t: &Thread,
    fd: i32,
    headers: UserPtr<MMsgHdr>,
    count: u32,
    flags: u32,
    time: UserPtr<UserTimespec>,
) -> SysResult<usize> {
    let deadline = match time.non_null() {
        Some(time) => {
            let limit = time.read(t.mm()).await?.validate()?.to_duration();
            Some(crate::exec::Instant::now().saturating_add(limit))
        }
        None => None,
    };
    let file = t.files().get_io(fd)?;
    of_file(&file)?;
    let (mut done, mut left) = (0, None);
    for index in 0..count.min(1024) as usize {
        let at = headers.at(index);
        // MSG_WAITFORONE: only the first is waited for.
        const MSG_WAITFORONE: u32 = 0x10000;
        let wait = if done > 0 && flags & MSG_WAITFORONE != 0 { raw::MSG_DONTWAIT } else { 0 };
        let result = async {
            let len = receive_header(t, &file, at.cast(), flags & !MSG_WAITFORONE | wait).await? as u32;
            at.cast::<u8>().byte_add(size_of::<MsgHdr>() as u64).cast::<u32>().write(t.mm(), len).await?;
            SysResult::Ok(())
        };
        match result.await {
            Ok(()) => done += 1,
            Err(error) if done > 0 => {
                // It is for the next call.
                if let super::SysError::Errno(errno) = error
                    && errno != Errno::EAGAIN
                {
                    of_file(&file)?.common().set_error(errno);
                }
                break;
            }
            Err(error) => return Err(error),
        }
        // The time is looked at after each message only (recvmmsg(2), BUGS).
        left = deadline.map(|deadline| deadline.saturating_since(crate::exec::Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        crate::exec::budget().await;
    }
    if let Some(left) = left {
        time.write(t.mm(), UserTimespec::from_nanos(left.as_nanos() as u64)).await?;
    }
    Ok(done)
}

pub async fn setsockopt(t: &Thread, fd: i32, level: u32, option: u32, value: UserPtr<u8>, len: i32) -> Result<()> {
    let file = t.files().get_io(fd)?;
    let socket = of_file(&file)?;
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    if (level, option) == (raw::SOL_SOCKET, raw::SO_ATTACH_FILTER) {
        return filter::attach(t, socket, value, len).await;
    }
    // The longest value, and the longest of those that are not about groups.
    let mut bytes = [0; 136];
    let of_ip = level == raw::IPPROTO_IP as u32 || level == raw::IPPROTO_IPV6 as u32;
    let of_group = of_ip && matches!(option, raw::MCAST_JOIN_GROUP | raw::MCAST_LEAVE_GROUP);
    let most = if of_group { bytes.len() } else { 32 };
    let bytes = bytes.get_mut(..len.min(most)).ok_or(Errno::EINVAL)?;
    value.read_bytes(t.mm(), bytes).await?;
    match level {
        raw::SOL_SOCKET => options::set(t, socket, option, bytes),
        level => socket.set_option(t, level, option, bytes),
    }
}

pub async fn getsockopt(
    t: &Thread,
    fd: i32,
    level: u32,
    option: u32,
    value: UserPtr<u8>,
    len: UserPtr<i32>,
) -> Result<()> {
    let file = t.files().get_io(fd)?;
    let socket = of_file(&file)?;
    let room = usize::try_from(len.read(t.mm()).await?).map_err(|_| Errno::EINVAL)?;
    if (level, option) == (raw::SOL_SOCKET, raw::SO_GET_FILTER) {
        let count = filter::get(t, socket, value, room).await?;
        return len.write(t.mm(), count as i32).await;
    }
    let bytes = match level {
        raw::SOL_SOCKET => options::get(socket, option)?,
        level => socket.get_option(level, option)?,
    };
    if level == raw::SOL_SOCKET && option == raw::SO_PEERGROUPS && bytes.len() > room {
        len.write(t.mm(), bytes.len() as i32).await?;
        return Err(Errno::ERANGE);
    }
    // As Linux has it: for a name there must be room for the longest.
    if (level, option) == (raw::SOL_SOCKET, raw::SO_BINDTODEVICE) && !bytes.is_empty() && room < device::NAME {
        return Err(Errno::EINVAL);
    }
    let cut = bytes.get(..room.min(bytes.len())).unwrap_or(&bytes);
    value.write_bytes(t.mm(), cut).await?;
    len.write(t.mm(), cut.len() as i32).await
}
