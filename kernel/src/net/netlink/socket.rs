//! What system calls do with a netlink socket.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::Ordering;

use linux_raw_sys::netlink as raw;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::work::Requests;
use super::{AF_NETLINK, Datagram, NetlinkSocket, READABLE, table};
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::fs::writing::Sigpipe;
use crate::fs::{Events, FileOps, Op, OpenFile, TryError, sigio};
use crate::mm::IoBuf;
use crate::net::packet::{copy_in, copy_out};
use crate::net::socket::{Address, Common, Outgoing, Receive, Received, Socket, Target};
use crate::net::{address, interface};
use crate::process::{self, Thread};
use crate::syscalls::SysResult;

const WRITABLE: Events = Events::OUT.union(Events::WRNORM).union(Events::WRBAND);
const SOL_NETLINK: u32 = 270;
/// Of the send buffer Linux keeps so much for itself.
const SEND_OVERHEAD: usize = 32;
/// NETLINK_BROADCAST_ERROR, NETLINK_NO_ENOBUFS, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK.
const SWITCHES: [u32; 5] = [
    raw::NETLINK_BROADCAST_ERROR,
    raw::NETLINK_NO_ENOBUFS,
    raw::NETLINK_CAP_ACK,
    raw::NETLINK_EXT_ACK,
    raw::NETLINK_GET_STRICT_CHK,
];

/// `struct sockaddr_nl`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct Name {
    family: u16,
    pad: u16,
    port: u32,
    /// As bits: the lowest is group 1.
    groups: u32,
}

impl Name {
    fn of(port: u32, groups: u32) -> Address {
        Address::from_slice(Name { family: AF_NETLINK, pad: 0, port, groups }.as_bytes())
    }

    fn parse(address: &[u8]) -> Result<Name> {
        let (name, _) = Name::read_from_prefix(address).map_err(|_| Errno::EINVAL)?;
        if name.family == AF_NETLINK { Ok(name) } else { Err(Errno::EINVAL) }
    }
}

/// The bit of a group in `sockaddr_nl`, which has those of the first 32.
fn mask(group: u32) -> u32 {
    1u32.checked_shl(group.wrapping_sub(1)).unwrap_or(0)
}

impl NetlinkSocket {
    fn bind_to(&self, t: &Thread, address: &[u8]) -> Result<()> {
        let name = Name::parse(address)?;
        let own = self.port();
        if own != 0 && own != name.port {
            return Err(Errno::EINVAL);
        }
        match name.port {
            0 => self.autobind(t.process().pid)?,
            port => table::claim(self, port)?,
        }
        if name.groups != 0 || self.groups.load(Ordering::Relaxed) as u32 != 0 {
            table::listen(self, |groups| groups & !u64::from(u32::MAX) | u64::from(name.groups));
        }
        Ok(())
    }

    /// A socket that has no port gets one.
    fn autobind(&self, pid: u32) -> Result<()> {
        if self.port() == 0 { table::claim_any(self, pid) } else { Ok(()) }
    }

    fn connect_to(&self, t: &Thread, given: &[u8]) -> Result<()> {
        if address::family(given)? == linux_raw_sys::net::AF_UNSPEC as u16 {
            self.state.lock().peer = (0, 0);
            return Ok(());
        }
        let name = Name::parse(given)?;
        if (name.port != 0 || name.groups != 0) && !self.is_admin() {
            return Err(Errno::EPERM);
        }
        self.autobind(t.process().pid)?;
        self.state.lock().peer = (name.port, name.groups);
        Ok(())
    }

    fn send_datagram(&self, buf: &mut IoBuf<'_>, message: &Outgoing) -> Result<usize, TryError> {
        let len = buf.remaining();
        let room = self.common.send_buffer.load(Ordering::Relaxed) as usize;
        if len == 0 {
            return Err(Errno::ENODATA.into());
        }
        let (port, groups) = match message.target {
            Target::Netlink { port, groups } => (port, groups),
            _ => self.state.lock().peer,
        };
        self.autobind(process::with_current(|task| task.map_or(0, |task| task.process().pid)))?;
        if len > room - SEND_OVERHEAD.min(room) {
            return Err(Errno::EMSGSIZE.into());
        }
        if port == 0 && !self.is_free() {
            return Err(TryError::WouldBlock);
        }
        let data = copy_in(buf)?;
        let from = self.port();
        // Of several groups it is the first.
        let group = if groups == 0 { 0 } else { groups.trailing_zeros() + 1 };
        if port == 0 && group == 0 {
            self.take_up(Requests::new(data, self))?;
            return Ok(len);
        }
        let data = Arc::new(data);
        if group != 0 {
            for listener in table::listeners(self.protocol(), group) {
                if !core::ptr::eq(&*listener, self) {
                    listener.deliver(Datagram { data: data.clone(), from, group });
                }
            }
        }
        if port == 0 {
            self.take_up(Requests::new(Arc::unwrap_or_clone(data), self))?;
        } else {
            let there = table::find(self.protocol(), port).ok_or(Errno::ECONNREFUSED)?;
            if !there.deliver(Datagram { data, from, group: 0 }) {
                return Err(Errno::EAGAIN.into());
            }
        }
        Ok(len)
    }

    fn receive_datagram(&self, buf: &mut IoBuf<'_>, how: Receive) -> Result<Received, TryError> {
        let room = buf.remaining();
        let mut state = self.state.lock();
        if let Some(errno) = self.common.take_error() {
            return Err(errno.into());
        }
        let Some(datagram) = state.inbox.front() else {
            let unfinished = state.is_unfinished();
            drop(state);
            if unfinished && self.go_on() {
                // So this one comes again, when others have run.
                self.wake_reader();
            }
            return Err(TryError::WouldBlock);
        };
        let len = copy_out(buf, &datagram.data)?;
        let from = Some(Name::of(datagram.from, mask(datagram.group)));
        let received = Received { len, full: datagram.data.len(), from, ..Received::default() };
        state.reader = state.reader.max(room);
        if how.peek {
            return Ok(received);
        }
        let datagram = state.inbox.pop_front();
        state.charge = state.charge.saturating_sub(received.full + super::OVERHEAD);
        state.congested &= !state.inbox.is_empty();
        let more = (state.dump.is_some() || state.dumping) && state.charge <= self.receive_buffer() / 2;
        drop(state);
        drop(datagram);
        if more {
            self.advance();
        }
        Ok(received)
    }

    fn set_membership(&self, group: u32, on: bool) -> Result<()> {
        if group == 0 || group > self.group_count() {
            return Err(Errno::EINVAL);
        }
        let bit = 1u64 << (group - 1);
        table::listen(self, |groups| if on { groups | bit } else { groups & !bit });
        Ok(())
    }
}

impl FileOps for NetlinkSocket {
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
        Ok(self.receive_datagram(buf, Receive { nonblock: file.is_nonblock(), ..Receive::default() })?.len)
    }

    fn try_write(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        self.send_datagram(buf, &Outgoing::plain())
    }

    /// Calls go on with what their attempts leave: see [`Socket::go_on`].
    fn has_limits(&self) -> bool {
        true
    }

    fn sigpipe(&self) -> Sigpipe {
        Sigpipe::Never
    }

    fn released(&self) {
        self.close();
    }

    fn ready(&self) -> Events {
        let state = self.state.lock();
        let mut events = WRITABLE;
        if self.common.has_error() {
            events |= Events::ERR;
        }
        // Whoever comes for what is not finished finishes it.
        if !state.inbox.is_empty() || state.is_unfinished() {
            events |= READABLE;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn news(&self) -> u32 {
        sigio::IN | sigio::ERR
    }

    fn ioctl<'a>(&'a self, _file: &'a OpenFile, thread: &'a Thread, cmd: u32, arg: u64) -> Op<'a, Result<u64>> {
        interface::ioctl(thread, cmd, arg)
    }
}

impl Socket for NetlinkSocket {
    fn common(&self) -> &Common {
        &self.common
    }

    fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    fn bind<'a>(&'a self, t: &'a Thread, address: &'a [u8]) -> Op<'a, Result<()>> {
        Op::ready(self.bind_to(t, address))
    }

    fn connect<'a>(&'a self, t: &'a Thread, address: &'a [u8], _nonblock: bool) -> Op<'a, SysResult<()>> {
        Op::ready(self.connect_to(t, address).map_err(Into::into))
    }

    fn local_address(&self) -> Address {
        Name::of(self.port(), self.groups.load(Ordering::Relaxed) as u32)
    }

    fn peer_address(&self) -> Result<Address> {
        let (port, groups) = self.state.lock().peer;
        Ok(Name::of(port, groups & groups.wrapping_neg()))
    }

    fn resolve<'a>(&'a self, _t: &'a Thread, address: &'a [u8]) -> Op<'a, Result<Target>> {
        Op::ready(Name::parse(address).and_then(|name| match (name.port, name.groups) {
            (port, groups) if (port != 0 || groups != 0) && !self.is_admin() => Err(Errno::EPERM),
            (port, groups) => Ok(Target::Netlink { port, groups }),
        }))
    }

    fn try_send(&self, buf: &mut IoBuf<'_>, message: &mut Outgoing) -> Result<usize, TryError> {
        self.send_datagram(buf, message)
    }

    fn try_receive(&self, buf: &mut IoBuf<'_>, how: Receive) -> Result<Received, TryError> {
        self.receive_datagram(buf, how)
    }

    fn go_on(&self) -> bool {
        self.work()
    }

    fn shutdown(&self, _receive: bool, _send: bool) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    fn is_listening(&self) -> bool {
        false
    }

    fn get_option(&self, level: u32, option: u32) -> Result<Vec<u8>> {
        if level != SOL_NETLINK {
            return Err(Errno::ENOPROTOOPT);
        }
        if option == raw::NETLINK_LIST_MEMBERSHIPS {
            return Ok(self.groups.load(Ordering::Relaxed).as_bytes().to_vec());
        }
        let known = SWITCHES.contains(&option);
        if known { Ok(i32::from(self.is_on(option)).as_bytes().to_vec()) } else { Err(Errno::ENOPROTOOPT) }
    }

    fn set_option(&self, _t: &Thread, level: u32, option: u32, value: &[u8]) -> Result<()> {
        let value = u32::read_from_prefix(value).map_or(0, |(value, _)| value);
        match option {
            _ if level != SOL_NETLINK => Err(Errno::ENOPROTOOPT),
            raw::NETLINK_ADD_MEMBERSHIP => self.set_membership(value, true),
            raw::NETLINK_DROP_MEMBERSHIP => self.set_membership(value, false),
            option if SWITCHES.contains(&option) => {
                let bit = 1 << option;
                if value != 0 {
                    self.options.fetch_or(bit, Ordering::Relaxed);
                } else {
                    self.options.fetch_and(!bit, Ordering::Relaxed);
                }
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
}
