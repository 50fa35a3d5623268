//! What a UDP socket answers as a file and as a socket.

use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::Ordering;

use zerocopy::IntoBytes;

use super::{READABLE, UdpSocket, WRITABLE};
use linux_raw_sys::ioctl::{FIONREAD, TIOCOUTQ};

use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::fs::writing::Sigpipe;
use crate::fs::{Events, FileOps, Op, OpenFile, TryError, sigio};
use crate::mm::IoBuf;
use crate::net::inet::AF_INET;
use crate::net::inet::endpoint::{self, AF_UNSPEC};
use crate::net::interface;
use crate::net::socket::{Address, Common, Outgoing, Receive, Received, Socket, Target, tell_ioctl};
use crate::process::Thread;
use crate::syscalls::SysResult;

impl FileOps for UdpSocket {
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

    fn answers_at_once(&self) -> bool {
        !self.has_limits()
    }

    /// What is sent in pieces needs [`Socket::lose_unfinished`], which write(2) alone does not know of.
    fn has_limits(&self) -> bool {
        self.common.has_limits() || self.is_corked.load(Ordering::Relaxed)
    }

    fn sigpipe(&self) -> Sigpipe {
        Sigpipe::Never
    }

    fn released(&self) {
        self.close();
    }

    fn ready(&self) -> Events {
        let state = self.state.lock();
        // What is sent within the machine is at its receiver at once.
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
        let value = match cmd {
            FIONREAD => self.state.lock().inbox.front().map_or(0, |datagram| datagram.data.len()),
            TIOCOUTQ => self.on_its_way.load(Ordering::Relaxed),
            _ => return interface::ioctl_of(self.common.family, thread, cmd, arg),
        };
        tell_ioctl(thread, arg, value)
    }
}

impl Socket for UdpSocket {
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
        match endpoint::parse_peer(self.common.family, address, true) {
            Ok(remote) if interface::is_unsettled(remote.ip) => Op::boxed(async move {
                interface::await_route(t, remote.ip).await?;
                Ok(self.set_destination(address)?)
            }),
            _ => Op::ready(self.set_destination(address).map_err(Into::into)),
        }
    }

    fn local_address(&self) -> Address {
        self.state.lock().local.to_address(self.common.family)
    }

    fn peer_address(&self) -> Result<Address> {
        let remote = self.state.lock().remote.ok_or(Errno::ENOTCONN)?;
        Ok(remote.to_address(self.common.family))
    }

    fn resolve<'a>(&'a self, t: &'a Thread, address: &'a [u8]) -> Op<'a, Result<Target>> {
        // Old programs leave the family out (udp_sendmsg of Linux).
        let mut bytes = Address::from_slice(address);
        if bytes.first_chunk() == Some(&AF_UNSPEC.to_ne_bytes()) && self.common.family == AF_INET {
            bytes.iter_mut().zip(AF_INET.to_ne_bytes()).for_each(|(to, from)| *to = from);
        }
        match endpoint::parse_peer(self.common.family, &bytes, true) {
            Ok(remote) if interface::is_unsettled(remote.ip) => Op::boxed(async move {
                // A signal ends the wait, not the call.
                let _ = interface::await_route(t, remote.ip).await;
                Ok(endpoint::target(self.common.family, &bytes, remote))
            }),
            parsed => Op::ready(parsed.map(|remote| endpoint::target(self.common.family, &bytes, remote))),
        }
    }

    fn try_send(&self, buf: &mut IoBuf<'_>, message: &mut Outgoing) -> Result<usize, TryError> {
        message.settle_scope();
        self.send_datagram(buf, message)
    }

    fn try_receive(&self, buf: &mut IoBuf<'_>, how: Receive) -> Result<Received, TryError> {
        self.receive_datagram(buf, how)
    }

    fn try_receive_failure(&self, buf: &mut IoBuf<'_>) -> Result<Received, TryError> {
        self.failures.take(&self.common, self.ip.told(), buf)
    }

    fn take_control(&self, message: &mut Outgoing, level: u32, kind: u32, data: &[u8]) -> Result<()> {
        self.take_control(message, level, kind, data)
    }

    fn lose_unfinished(&self) {
        self.lose_cork();
    }

    fn has_times(&self) -> bool {
        true
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

    fn device_changed(&self) {
        let state = self.state.lock();
        let _ = self.ports().change(self, state.local.port, false, |claim| claim.device = self.common.device());
    }

    fn takes_filters(&self) -> bool {
        true
    }

    fn is_listening(&self) -> bool {
        false
    }

    fn get_option(&self, level: u32, option: u32) -> Result<Vec<u8>> {
        if let Some(value) = self.groups.lock().get(&self.common, level, option) {
            return Ok(value);
        }
        if let Some(value) = self.get_coverage(level, option) {
            return Ok(value?.as_bytes().to_vec());
        }
        self.ip.lock().get(&self.common, level, option)
    }

    fn set_option(&self, _t: &Thread, level: u32, option: u32, value: &[u8]) -> Result<()> {
        self.set_ip_option(level, option, value)
    }
}
