//! Sockets that send and receive packets themselves: icmp(7), raw(7).
//!
//! * [`Kind::Echo`]: `SOCK_DGRAM` with IPPROTO_ICMP or IPPROTO_ICMPV6. It may ask for echoes and hears the answers to its own
//!   questions, which it tells by their identifier: that is its port. Who may have one says [`mod@group_range`].
//! * [`Kind::Raw`]: `SOCK_RAW`, for CAP_NET_RAW: all packets of a protocol.
//!
//! [`names`]: bind(2) and connect(2). [`send`] makes packets, [`mod@arrive`] gives them to those who want them; [`table`]: who that
//! is. Within the machine a packet is at its receivers when the call returns, and a question has its answer. [`packet`]: headers and
//! checksums.

mod arrive;
mod failed;
mod group_range;
mod names;
mod options;
pub mod packet;
mod send;
mod table;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::any::Any;
use core::net::IpAddr;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use self::options::RawOptions;
use super::endpoint::{self, AF_UNSPEC};
use super::failures::ErrorQueue;
use super::groups::Groups;
use super::options::IpOptions;
use super::shared::Shared;
use super::told::About;
use super::{AF_INET, AF_INET6, Endpoint, IPPROTO_ICMP, IPPROTO_ICMPV6, Row};
use linux_raw_sys::ioctl::{FIONREAD, TIOCOUTQ};

use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::fs::writing::Sigpipe;
use crate::fs::{Events, FileOps, Op, OpenFile, TryError, sigio};
use crate::mm::IoBuf;
use crate::net::interface;
use crate::net::packet::copy_out;
use crate::net::socket::{Address, Common, Outgoing, Receive, Received, Socket, Switches, Target, Type, tell_ioctl};
use crate::process::Thread;
use crate::sync::SpinLock;
use crate::syscalls::SysResult;

pub use arrive::{arrive, came_by_loopback};
pub use failed::{failed_echo, failed_raw};
pub use group_range::{group_range, may_ask, set_group_range};
pub use packet::Arrived;
pub use table::is_empty;

/// What a packet takes up in the receive buffer besides its bytes, about as on Linux.
const OVERHEAD: usize = 768;

const READABLE: Events = Events::IN.union(Events::RDNORM);
const WRITABLE: Events = Events::OUT.union(Events::WRNORM).union(Events::WRBAND);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Echo,
    Raw,
}

pub struct IpSocket {
    this: Weak<IpSocket>,
    kind: Kind,
    common: Common,
    state: SpinLock<State>,
    queue: WaitQueue,
    ip: Shared,
    failures: ErrorQueue,
    raw_options: SpinLock<RawOptions>,
    groups: SpinLock<Groups>,
    /// What the card has not sent yet takes up this much.
    on_its_way: AtomicUsize,
    /// Its last descriptor is closed.
    closed: AtomicBool,
}

struct State {
    /// The port is the identifier (0: none yet), or the protocol.
    local: Endpoint,
    /// The program chose the address, the identifier.
    address_given: bool,
    port_given: bool,
    remote: Option<Endpoint>,
    inbox: VecDeque<Packet>,
    /// What these take up.
    charge: usize,
    receive_shut: bool,
    send_shut: bool,
    /// A raw socket that hears something: after connect(2) to AF_UNSPEC it does not any more, as on Linux.
    hears: bool,
}

/// A packet that waits to be read.
struct Packet {
    from: IpAddr,
    about: About,
    data: Box<[u8]>,
}

impl IpSocket {
    pub fn new(family: u16, kind: Kind, protocol: u8) -> Arc<IpSocket> {
        let port = if kind == Kind::Raw { protocol.into() } else { 0 };
        let mut ip = IpOptions::new();
        // That of ICMPv6 never has anything to do with IPv4.
        ip.only_v6 = kind == Kind::Echo && family == AF_INET6;
        let socket = Arc::new_cyclic(|this| IpSocket {
            this: this.clone(),
            kind,
            common: Common::new(family, if kind == Kind::Raw { Type::Raw } else { Type::Datagram }, protocol),
            state: SpinLock::new(State {
                local: Endpoint { port, ..Endpoint::any(family) },
                address_given: false,
                port_given: kind == Kind::Raw,
                remote: None,
                inbox: VecDeque::new(),
                charge: 0,
                receive_shut: false,
                send_shut: false,
                hears: kind == Kind::Raw,
            }),
            queue: WaitQueue::new(),
            ip: Shared::new(ip),
            failures: ErrorQueue::new(),
            raw_options: SpinLock::new(RawOptions::new(family, protocol)),
            groups: SpinLock::new(Groups::new()),
            on_its_way: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        // As Linux has it: SO_REUSEADDR is on.
        socket.common.switch(Switches::REUSEADDR, true);
        if kind == Kind::Raw {
            table::add_raw(&socket);
        }
        socket
    }

    fn row(&self) -> Row {
        let state = self.state.lock();
        let mut remote = state.remote.unwrap_or(Endpoint::any(self.common.family));
        if self.kind == Kind::Raw {
            remote.port = 0;
        }
        Row {
            family: self.common.family,
            local: state.local,
            remote,
            state: if state.remote.is_some() { 1 } else { 7 },
            sending: self.on_its_way.load(Ordering::Relaxed),
            receiving: state.charge,
            backlog: 0,
            shut: u8::from(state.receive_shut) | u8::from(state.send_shut) << 1,
            only_v6: !self.is_v4(),
            uid: self.common.uid.load(Ordering::Relaxed),
            inode: self.common.inode.load(Ordering::Relaxed),
        }
    }

    fn is_v4(&self) -> bool {
        self.common.family == AF_INET
    }

    /// No more packets are taken.
    fn is_crowded(&self) -> bool {
        let limit = self.common.receive_buffer.load(Ordering::Relaxed) as usize;
        self.state.lock().charge > limit || self.closed.load(Ordering::Acquire)
    }

    /// What finds no room is lost; nobody is told, as on Linux.
    fn deliver(&self, packet: Packet) {
        let mut state = self.state.lock();
        let limit = self.common.receive_buffer.load(Ordering::Relaxed) as usize;
        let refused = state.charge > limit || self.closed.load(Ordering::Acquire);
        if refused || state.inbox.try_reserve(1).is_err() {
            return;
        }
        state.charge += packet.data.len() + OVERHEAD;
        state.inbox.push_back(packet);
        drop(state);
        self.queue.wake(usize::MAX, READABLE.bits() | sigio::IN);
    }

    fn receive_packet(&self, buf: &mut IoBuf<'_>, how: Receive) -> Result<Received, TryError> {
        let mut state = self.state.lock();
        if let Some(errno) = self.common.take_error() {
            return Err(errno.into());
        }
        let Some(packet) = state.inbox.front() else {
            let end = state.receive_shut && !how.nonblock;
            return if end { Ok(Received::default()) } else { Err(TryError::WouldBlock) };
        };
        let len = copy_out(buf, &packet.data)?;
        let from = Endpoint { ip: packet.from, port: 0 }.to_address_through(self.common.family, packet.about.index);
        let extras = self.ip.told().extras(&self.common, &packet.about);
        let received = Received { len, full: packet.data.len(), from: Some(from), extras, ..Received::default() };
        if how.peek {
            return Ok(received);
        }
        let packet = state.inbox.pop_front();
        state.charge -= received.full + OVERHEAD;
        drop(state);
        drop(packet);
        Ok(received)
    }

    fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = self.state.lock();
        let (inbox, ident) = (core::mem::take(&mut state.inbox), state.local.port);
        let heard = core::mem::take(&mut state.hears);
        state.charge = 0;
        drop(state);
        drop(inbox);
        self.failures.clear();
        self.groups.lock().leave_all();
        match self.kind {
            Kind::Raw if heard => table::remove_raw(self),
            Kind::Echo if ident != 0 => table::release(self, ident),
            _ => {}
        }
    }
}

impl Drop for IpSocket {
    /// For a socket that never got a descriptor.
    fn drop(&mut self) {
        self.close();
    }
}

impl FileOps for IpSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_socket(&self) -> Option<&dyn Socket> {
        Some(self)
    }

    fn try_read(&self, file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        if buf.is_empty() {
            return Ok(0);
        }
        Ok(self.receive_packet(buf, Receive { nonblock: file.is_nonblock(), ..Receive::default() })?.len)
    }

    fn try_write(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        self.send_packet(buf, &Outgoing::plain())
    }

    fn has_limits(&self) -> bool {
        self.common.has_limits()
    }

    fn sigpipe(&self) -> Sigpipe {
        Sigpipe::Never
    }

    fn released(&self) {
        self.close();
    }

    fn ready(&self) -> Events {
        let state = self.state.lock();
        let mut events = if self.is_full() { Events::empty() } else { WRITABLE };
        if self.common.has_error() || !self.failures.is_empty() {
            events |= Events::ERR;
        }
        if state.receive_shut {
            events |= READABLE | Events::RDHUP;
        }
        if state.receive_shut && state.send_shut {
            events |= Events::HUP;
        }
        if !state.inbox.is_empty() {
            events |= READABLE;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn news(&self) -> u32 {
        sigio::IN | sigio::OUT | sigio::ERR | sigio::HUP
    }

    fn ioctl<'a>(&'a self, _file: &'a OpenFile, thread: &'a Thread, cmd: u32, arg: u64) -> Op<'a, Result<u64>> {
        let value = match (cmd, self.kind) {
            (FIONREAD, Kind::Raw) => self.state.lock().inbox.front().map_or(0, |packet| packet.data.len()),
            (TIOCOUTQ, Kind::Raw) => self.on_its_way.load(Ordering::Relaxed),
            _ => return interface::ioctl_of(self.common.family, thread, cmd, arg),
        };
        tell_ioctl(thread, arg, value)
    }
}

impl Socket for IpSocket {
    fn common(&self) -> &Common {
        &self.common
    }

    fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    fn bind<'a>(&'a self, _t: &'a Thread, address: &'a [u8]) -> Op<'a, Result<()>> {
        Op::ready(self.bind_to(address))
    }

    fn connect<'a>(&'a self, t: &'a Thread, address: &'a [u8], _nonblock: bool) -> Op<'a, SysResult<()>> {
        match self.parse(address) {
            Ok(remote) if interface::is_unsettled(remote.ip) => Op::boxed(async move {
                interface::await_route(t, remote.ip).await?;
                Ok(self.connect_to(address)?)
            }),
            _ => Op::ready(self.connect_to(address).map_err(Into::into)),
        }
    }

    fn local_address(&self) -> Address {
        self.state.lock().local.to_address(self.common.family)
    }

    /// A peer without a port is none to getpeername(2), as on Linux.
    fn peer_address(&self) -> Result<Address> {
        let remote = self.state.lock().remote.filter(|remote| remote.port != 0).ok_or(Errno::ENOTCONN)?;
        Ok(remote.to_address(self.common.family))
    }

    fn resolve<'a>(&'a self, t: &'a Thread, address: &'a [u8]) -> Op<'a, Result<Target>> {
        // Old programs leave the family out (raw_sendmsg of Linux).
        let mut bytes = Address::from_slice(address);
        if self.kind == Kind::Raw && bytes.first_chunk() == Some(&AF_UNSPEC.to_ne_bytes()) && self.is_v4() {
            bytes.iter_mut().zip(AF_INET.to_ne_bytes()).for_each(|(to, from)| *to = from);
        }
        let parsed = self.parse(&bytes).and_then(|remote| self.check_destination(&bytes, remote));
        match parsed {
            Ok(remote) if interface::is_unsettled(remote.ip) => Op::boxed(async move {
                // A signal ends the wait, not the call.
                let _ = interface::await_route(t, remote.ip).await;
                Ok(endpoint::target(self.common.family, &bytes, remote))
            }),
            Err(Errno::ENETUNREACH) if self.kind == Kind::Echo && names::is_mapped(&bytes) => {
                Op::ready(Err(Errno::EINVAL))
            }
            parsed => Op::ready(parsed.map(|remote| endpoint::target(self.common.family, &bytes, remote))),
        }
    }

    fn try_send(&self, buf: &mut IoBuf<'_>, message: &mut Outgoing) -> Result<usize, TryError> {
        message.settle_scope();
        self.send_packet(buf, message)
    }

    fn try_receive(&self, buf: &mut IoBuf<'_>, how: Receive) -> Result<Received, TryError> {
        self.receive_packet(buf, how)
    }

    fn try_receive_failure(&self, buf: &mut IoBuf<'_>) -> Result<Received, TryError> {
        self.failures.take(&self.common, self.ip.told(), buf)
    }

    fn take_control(&self, message: &mut Outgoing, level: u32, kind: u32, data: &[u8]) -> Result<()> {
        match self.is_v4() {
            true => message.sending.add4(level, kind, data, false),
            false => message.sending.add6(level, kind, data),
        }
    }

    fn shutdown(&self, receive: bool, send: bool) -> Result<()> {
        let mut state = self.state.lock();
        state.receive_shut |= receive;
        state.send_shut |= send;
        let connected = state.remote.is_some();
        drop(state);
        self.queue.wake(usize::MAX, sigio::QUIET);
        if connected { Ok(()) } else { Err(Errno::ENOTCONN) }
    }

    fn is_listening(&self) -> bool {
        false
    }

    fn has_times(&self) -> bool {
        true
    }

    fn takes_filters(&self) -> bool {
        true
    }

    fn get_option(&self, level: u32, option: u32) -> Result<Vec<u8>> {
        if let Some(answer) = self.raw_options.lock().get(&self.common, level, option) {
            return answer;
        }
        if let Some(value) = self.groups.lock().get(&self.common, level, option) {
            return Ok(value);
        }
        self.ip.lock().get(&self.common, level, option)
    }

    fn set_option(&self, _t: &Thread, level: u32, option: u32, value: &[u8]) -> Result<()> {
        if let Some(answer) = self.raw_options.lock().set(&self.common, level, option, value) {
            return answer;
        }
        if let Some(answer) = self.groups.lock().set(&self.common, level, option, value) {
            return answer;
        }
        let bound = self.state.lock().local.port != 0;
        self.ip.set(&self.common, level, option, value, bound)?;
        self.failures.keep_if(self.ip.told(), level, option);
        Ok(())
    }
}

/// Those of a kind and family. Like Linux it shows connected ones as established, others as closed.
pub fn rows(kind: Kind, family: u16) -> Vec<Row> {
    let mut rows = Vec::new();
    for socket in table::all(kind).iter().filter(|socket| socket.common.family == family) {
        if rows.try_reserve(1).is_ok() {
            rows.push(socket.row());
        }
    }
    rows
}

/// The protocol of ICMP of a family.
pub fn messages_of(family: u16) -> u8 {
    if family == AF_INET6 { IPPROTO_ICMPV6 } else { IPPROTO_ICMP }
}
