//! What all sockets have in common.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering};
use core::time::Duration;

use linux_raw_sys::net as raw;
use smallvec::SmallVec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::counted::{self, Counted};
use super::filter::Attached;
use super::inet::{Endpoint, Sending};
use super::rights::Rights;
use super::unix::UnixSocket;
use super::{interface, limits, link};
use crate::errno::{Errno, Result};
use crate::exec::{Instant, WaitQueue};
use crate::fs::{FileOps, Op, OpenFile, TryError};
use crate::mm::{IoBuf, UserPtr};
use crate::process::{self, Thread};
use crate::sync::SpinLock;
use crate::syscalls::SysResult;

/// The bytes of a `struct sockaddr`.
pub type Address = SmallVec<[u8; 32]>;

/// SOCK_*, the kinds that socket(2) knows here.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Type {
    Stream,
    Datagram,
    SeqPacket,
    Raw,
}

impl Type {
    pub const fn raw(self) -> u32 {
        match self {
            Type::Stream => raw::SOCK_STREAM,
            Type::Datagram => raw::SOCK_DGRAM,
            Type::SeqPacket => raw::SOCK_SEQPACKET,
            Type::Raw => raw::SOCK_RAW,
        }
    }

    /// Connected before anything is sent.
    pub const fn connects(self) -> bool {
        !matches!(self, Type::Datagram | Type::Raw)
    }
}

/// `struct ucred`: who is at the other end.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Ucred {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

impl Ucred {
    /// Nobody that is known: SO_PEERCRED of an unconnected socket.
    pub const NOBODY: Ucred = Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };

    /// With the effective ids, as connect(2) and listen(2) note them.
    pub fn effective(t: &Thread) -> Self {
        Ucred { pid: t.process().pid, uid: t.creds().euid, gid: t.creds().egid }
    }

    /// Of the thread that runs, with the real ids, as messages carry them.
    #[inline]
    pub fn current() -> Self {
        process::with_current(|task| {
            let Some(task) = task else { return Ucred::NOBODY };
            let creds = task.shared_creds();
            Ucred { pid: task.process().pid, uid: creds.uid, gid: creds.gid }
        })
    }
}

bitflags::bitflags! {
    /// Options that are on or off.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Switches: u32 {
        const REUSEADDR = 1 << raw::SO_REUSEADDR;
        const DONTROUTE = 1 << raw::SO_DONTROUTE;
        const BROADCAST = 1 << raw::SO_BROADCAST;
        const KEEPALIVE = 1 << raw::SO_KEEPALIVE;
        const OOBINLINE = 1 << raw::SO_OOBINLINE;
        const NO_CHECK = 1 << raw::SO_NO_CHECK;
        const REUSEPORT = 1 << raw::SO_REUSEPORT;
        const PASSCRED = 1 << raw::SO_PASSCRED;
    }
}

/// Options and state that do not depend on the family.
pub struct Common {
    pub family: u16,
    pub kind: Type,
    /// SO_PROTOCOL: IPPROTO_*, 0 for families that have one only.
    pub protocol: u8,
    switches: AtomicU32,
    /// Number and owner of its inode, for /proc/net; 0 until it has one.
    pub inode: AtomicU64,
    pub uid: AtomicU32,
    /// SO_SNDBUF and SO_RCVBUF as getsockopt answers them: twice what was asked for.
    pub send_buffer: AtomicU32,
    pub receive_buffer: AtomicU32,
    pub receive_low: AtomicU32,
    /// SO_RCVTIMEO and SO_SNDTIMEO, nanoseconds; 0 = for ever.
    pub receive_timeout: AtomicU64,
    pub send_timeout: AtomicU64,
    pub priority: AtomicU32,
    pub mark: AtomicU32,
    /// Which of SO_TIMESTAMP, SO_TIMESTAMPNS and their newer forms is on; 0: none.
    pub times: AtomicU32,
    /// SO_BINDTODEVICE: the index of the only interface that is used; 0: all are.
    device: AtomicI32,
    /// SO_ATTACH_FILTER.
    pub filter: Attached,
    /// SO_LINGER: on, seconds.
    pub linger: SpinLock<(bool, i32)>,
    /// The error that the next call reports.
    error: AtomicU32,
    /// Of a socket that programs have.
    pub counted: Option<Counted>,
}

impl Common {
    pub fn new(family: u16, kind: Type, protocol: u8) -> Self {
        Common {
            family,
            kind,
            protocol,
            switches: AtomicU32::new(0),
            inode: AtomicU64::new(0),
            uid: AtomicU32::new(0),
            send_buffer: AtomicU32::new(limits::SEND_DEFAULT.get()),
            receive_buffer: AtomicU32::new(limits::RECEIVE_DEFAULT.get()),
            receive_low: AtomicU32::new(1),
            receive_timeout: AtomicU64::new(0),
            send_timeout: AtomicU64::new(0),
            priority: AtomicU32::new(0),
            mark: AtomicU32::new(0),
            times: AtomicU32::new(0),
            device: AtomicI32::new(0),
            filter: Attached::default(),
            linger: SpinLock::new((false, 0)),
            error: AtomicU32::new(0),
            counted: Some(Counted::new(&counted::SOCKETS)),
        }
    }

    pub fn is_on(&self, switch: Switches) -> bool {
        self.switches.load(Ordering::Relaxed) & switch.bits() != 0
    }

    pub fn switch(&self, which: Switches, on: bool) {
        if on {
            self.switches.fetch_or(which.bits(), Ordering::Relaxed);
        } else {
            self.switches.fetch_and(!which.bits(), Ordering::Relaxed);
        }
    }

    pub fn copy_switches(&self, from: &Common) {
        self.switches.store(from.switches.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// SO_BINDTODEVICE: the index of an interface, or 0.
    #[inline(always)]
    pub fn device(&self) -> i32 {
        self.device.load(Ordering::Relaxed)
    }

    /// EPERM: it has one.
    pub fn set_first_device(&self, index: i32) -> Result<()> {
        let set = self.device.compare_exchange(0, index, Ordering::Relaxed, Ordering::Relaxed);
        set.map(drop).map_err(|_| Errno::EPERM)
    }

    pub fn set_device(&self, index: i32) {
        self.device.store(index, Ordering::Relaxed);
    }

    /// Is what comes through an interface for it?
    #[inline(always)]
    pub fn hears(&self, index: i32) -> bool {
        let own = self.device();
        own == 0 || own == index
    }

    /// EACCES: it is the address of everybody on a network, for whom SO_BROADCAST allows packets.
    pub fn check_broadcast(&self, ip: IpAddr) -> Result<()> {
        let everybody = ip.is_ipv4() && !ip.is_multicast() && interface::is_group(ip);
        if everybody && !self.is_on(Switches::BROADCAST) { Err(Errno::EACCES) } else { Ok(()) }
    }

    pub fn set_error(&self, errno: Errno) {
        self.error.store(errno.get() as u32, Ordering::Relaxed);
    }

    pub fn has_error(&self) -> bool {
        self.error.load(Ordering::Relaxed) != 0
    }

    /// The pending error, which is reported once.
    pub fn take_error(&self) -> Option<Errno> {
        if !self.has_error() {
            return None;
        }
        Errno::from_raw(self.error.swap(0, Ordering::Relaxed) as i32)
    }

    /// An attempt has come to its end: a pending error goes first. In a call that `goes_on` it stays.
    pub fn stop<T: Default>(&self, goes_on: bool, answer: Result<T, TryError>) -> Result<T, TryError> {
        if goes_on {
            return if self.has_error() { Ok(T::default()) } else { answer };
        }
        match self.take_error() {
            Some(errno) => Err(errno.into()),
            None => answer,
        }
    }

    /// See [`FileOps::has_limits`].
    pub fn has_limits(&self) -> bool {
        self.receive_timeout.load(Ordering::Relaxed) | self.send_timeout.load(Ordering::Relaxed) != 0
            || self.receive_low.load(Ordering::Relaxed) > 1
    }

    fn deadline(timeout: &AtomicU64) -> Option<Instant> {
        match timeout.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Instant::now().saturating_add(Duration::from_nanos(nanos))),
        }
    }

    pub fn receive_deadline(&self) -> Option<Instant> {
        Self::deadline(&self.receive_timeout)
    }

    pub fn send_deadline(&self) -> Option<Instant> {
        Self::deadline(&self.send_timeout)
    }
}

/// Where a message goes, found out before the attempts to send it.
pub enum Target {
    /// The peer.
    Connected,
    Unix(Arc<UnixSocket>),
    Inet(Endpoint),
    /// The same through an interface: what is of one network only says of which.
    Scoped(Endpoint, i32),
    /// sockaddr_nl: a port (0: the kernel), and groups as bits.
    Netlink {
        port: u32,
        groups: u32,
    },
    Link(link::Name),
}

/// A message to be sent. What an attempt sends off is taken out.
pub struct Outgoing {
    pub target: Target,
    pub rights: Option<Rights>,
    /// Given by the sender (SCM_CREDENTIALS).
    pub creds: Option<Ucred>,
    /// The last byte is urgent (MSG_OOB).
    pub urgent: bool,
    /// MSG_MORE.
    pub more: bool,
    /// What else is said of an IP packet.
    pub sending: Sending,
}

impl Outgoing {
    /// An interface that the address names counts like one that a message names, if there is none.
    #[inline(always)]
    pub fn settle_scope(&mut self) {
        if let Target::Scoped(to, index) = self.target {
            self.target = Target::Inet(to);
            if self.sending.index == 0 {
                self.sending.index = index;
            }
        }
    }

    /// Nothing but bytes, to the peer.
    pub fn plain() -> Self {
        Outgoing {
            target: Target::Connected,
            rights: None,
            creds: None,
            urgent: false,
            more: false,
            sending: Sending::default(),
        }
    }
}

/// How to receive.
#[derive(Clone, Copy, Default)]
pub struct Receive {
    /// Leave it there (MSG_PEEK).
    pub peek: bool,
    pub nonblock: bool,
    /// MSG_TRUNC: bytes of a TCP stream are thrown away instead of copied (tcp(7)).
    pub discard: bool,
    /// With `peek` a TCP socket waits for so many bytes (MSG_WAITALL, SO_RCVLOWAT), unless `nonblock`.
    pub least: usize,
    /// The call has received something: a pending error is left for the next call, and the attempt receives nothing.
    pub goes_on: bool,
}

/// What was received besides the bytes.
#[derive(Default)]
pub struct Received {
    /// Bytes copied.
    pub len: usize,
    /// Bytes that the message had; the rest is lost.
    pub full: usize,
    pub from: Option<Address>,
    pub rights: Option<Vec<Arc<OpenFile>>>,
    pub creds: Option<Ucred>,
    /// A stream goes on with something that must not be mixed with this.
    pub barrier: bool,
    /// The urgent byte, which comes without anything else.
    pub urgent: bool,
    /// What else is told of it.
    pub extras: Option<Box<Extras>>,
    /// It is an error, from the queue of those (MSG_ERRQUEUE).
    pub failure: bool,
}

/// A control message for the receiver.
pub struct Extra {
    pub level: u32,
    pub kind: u32,
    pub data: SmallVec<[u8; 24]>,
}

/// Several of those.
pub struct Extras(pub Vec<Extra>);

/// Answers an ioctl that tells a number.
pub fn tell_ioctl(t: &Thread, arg: u64, value: usize) -> Op<'_, Result<u64>> {
    Op::boxed(async move {
        UserPtr::<i32>::new(arg).write(t.mm(), value as i32).await?;
        Ok(0)
    })
}

/// A socket of some family. The `try_` calls never wait; see [`super::transfer`].
pub trait Socket: FileOps {
    fn common(&self) -> &Common;
    /// The same as [`FileOps::wait_queue`].
    fn queue(&self) -> &WaitQueue;

    fn bind<'a>(&'a self, t: &'a Thread, address: &'a [u8]) -> Op<'a, Result<()>>;
    fn listen(&self, _t: &Thread, _backlog: u32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// The next connection, and who made it.
    fn try_accept(&self) -> Result<(Arc<dyn FileOps>, Address), TryError> {
        Err(Errno::EOPNOTSUPP.into())
    }
    fn connect<'a>(&'a self, t: &'a Thread, address: &'a [u8], nonblock: bool) -> Op<'a, SysResult<()>>;
    fn local_address(&self) -> Address;
    fn peer_address(&self) -> Result<Address>;

    /// Finds out where a message for `address` goes. `creds`: the sender's.
    fn resolve<'a>(&'a self, t: &'a Thread, address: &'a [u8]) -> Op<'a, Result<Target>>;
    fn try_send(&self, buf: &mut IoBuf<'_>, message: &mut Outgoing) -> Result<usize, TryError>;
    fn try_receive(&self, buf: &mut IoBuf<'_>, how: Receive) -> Result<Received, TryError>;
    /// What has not arrived, and why (MSG_ERRQUEUE).
    fn try_receive_failure(&self, _buf: &mut IoBuf<'_>) -> Result<Received, TryError> {
        Err(TryError::WouldBlock)
    }
    /// What is to be sent cannot be read (EFAULT): what earlier calls have left of the same message goes with it.
    fn lose_unfinished(&self) {}
    /// Takes a control message of a level that only this family knows into a message to be sent.
    fn take_control(&self, _message: &mut Outgoing, _level: u32, _kind: u32, _data: &[u8]) -> Result<()> {
        Ok(())
    }
    /// The urgent byte, which with `peek` stays (MSG_OOB). EINVAL if there is none, EOPNOTSUPP if there can't be any.
    fn take_urgent(&self, _peek: bool) -> Result<u8> {
        Err(Errno::EOPNOTSUPP)
    }
    /// SHUT_RD, SHUT_WR: which directions end.
    fn shutdown(&self, receive: bool, send: bool) -> Result<()>;

    /// Goes on with what an attempt has left because it takes long. True: there is still more, when others have had their turn.
    fn go_on(&self) -> bool {
        false
    }

    /// It has an inode now, as `common` says.
    fn opened(&self) {}

    /// SO_RCVBUF has another value: who sends to this socket may find room now.
    fn receive_buffer_changed(&self) {}

    /// SO_BINDTODEVICE has another value.
    fn device_changed(&self) {}

    /// SO_KEEPALIVE has another value.
    fn keep_alive_changed(&self) {}

    /// SO_RCVLOWAT.
    fn set_receive_low(&self, low: u32) {
        self.common().receive_low.store(low, Ordering::Relaxed);
    }

    /// Does it know when messages came (SO_TIMESTAMP)?
    fn has_times(&self) -> bool {
        false
    }

    /// Does it ask its filter about what it receives (SO_ATTACH_FILTER)?
    fn takes_filters(&self) -> bool {
        false
    }

    /// SO_ACCEPTCONN.
    fn is_listening(&self) -> bool;
    /// SO_PEERCRED.
    fn peer_creds(&self) -> Ucred {
        Ucred::NOBODY
    }
    /// SO_PEERGROUPS: the supplementary groups of the peer.
    fn peer_groups(&self) -> Option<Arc<[u32]>> {
        None
    }

    /// The value of an option of another level than SOL_SOCKET, in full.
    fn get_option(&self, _level: u32, _option: u32) -> Result<Vec<u8>> {
        Err(Errno::EOPNOTSUPP)
    }
    fn set_option(&self, _t: &Thread, _level: u32, _option: u32, _value: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
}

/// The socket behind an open file; ENOTSOCK if it is none.
pub fn of_file(file: &OpenFile) -> Result<&dyn Socket> {
    file.ops().and_then(|ops| ops.as_socket()).ok_or(Errno::ENOTSOCK)
}
