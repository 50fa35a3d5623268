//! What a TCP socket answers as a file and as a socket.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::Ordering;

use linux_raw_sys::ioctl::{FIONREAD, TIOCOUTQ};
use linux_raw_sys::net as raw;
use zerocopy::IntoBytes;

use super::options::SOL_TCP;
use super::{MAX_LOW, PORTS, Phase, READABLE, RECEIVE_BUFFER, TcpSocket, WRITABLE};
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::fs::writing::Sigpipe;
use crate::fs::{Events, FileOps, Op, OpenFile, TryError, sigio};
use crate::mm::IoBuf;
use crate::net::inet::groups;
use crate::net::interface;
use crate::net::socket::{Address, Common, Outgoing, Receive, Received, Socket, Target, tell_ioctl};
use crate::process::Thread;
use crate::syscalls::SysResult;

impl FileOps for TcpSocket {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_socket(&self) -> Option<&dyn Socket> {
        Some(self)
    }

    fn try_read(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        if buf.is_empty() { Ok(0) } else { self.receive_bytes(buf, Receive::default()) }
    }

    fn try_write(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        self.send_bytes(buf, false, false)
    }

    fn answers_at_once(&self) -> bool {
        !self.has_limits()
    }

    fn has_limits(&self) -> bool {
        self.common.has_limits()
    }

    fn sigpipe(&self) -> Sigpipe {
        Sigpipe::IfNothingWritten
    }

    fn released(&self) {
        self.close();
    }

    fn lingers(&self) -> bool {
        self.linger_time().is_some()
    }

    fn linger<'a>(&'a self, thread: &'a Thread) -> Op<'a, ()> {
        self.linger_now(thread)
    }

    /// As Linux's tcp_poll has it.
    fn ready(&self) -> Events {
        let state = self.state.lock();
        let mut events = Events::empty();
        if self.common.has_error() {
            events |= Events::ERR;
        }
        if state.phase == Phase::Listening {
            return if state.waiting.is_empty() { events } else { events | READABLE };
        }
        if state.receive_shut && state.send_shut || state.phase == Phase::Closed {
            events |= Events::HUP;
        }
        if state.receive_shut {
            events |= READABLE | Events::RDHUP;
        }
        if state.phase == Phase::Connecting {
            return events;
        }
        let low = self.common.receive_low.load(Ordering::Relaxed) as usize;
        let skip = usize::from(state.is_at_mark() && !self.is_in_line());
        let (all, len) = (state.inbox.len(), state.come().saturating_sub(skip));
        let (shut, peer) = (state.send_shut, state.peer());
        if state.is_urgent() {
            events |= Events::PRI;
        }
        drop(state);
        // Of what no more can come there is enough.
        if len > 0 && (len >= low || !self.can_come(all, peer.as_deref())) {
            events |= READABLE;
        }
        if shut || self.can_send(peer) {
            events |= WRITABLE;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn news(&self) -> u32 {
        sigio::IN | sigio::OUT | sigio::ERR | sigio::HUP | sigio::URG
    }

    fn owned(&self, owner: &Arc<sigio::Owner>) {
        self.owner_of_file.call_once(|| Arc::downgrade(owner));
    }

    fn told(&self) {
        self.lacked_room.store(false, Ordering::Relaxed);
    }

    fn ioctl<'a>(&'a self, _file: &'a OpenFile, thread: &'a Thread, cmd: u32, arg: u64) -> Op<'a, Result<u64>> {
        const SIOCATMARK: u32 = 0x8905;
        const SIOCOUTQNSD: u32 = 0x894b;
        let value = match cmd {
            FIONREAD | TIOCOUTQ | SIOCOUTQNSD if self.is_listening() => return Op::ready(Err(Errno::EINVAL)),
            FIONREAD => self.state.lock().readable(self.is_in_line()),
            TIOCOUTQ => self.not_acknowledged(),
            SIOCOUTQNSD => self.on_its_way().0,
            SIOCATMARK => self.state.lock().is_at_mark().into(),
            _ => return interface::ioctl_of(self.common.family, thread, cmd, arg),
        };
        tell_ioctl(thread, arg, value)
    }
}

impl Socket for TcpSocket {
    fn common(&self) -> &Common {
        &self.common
    }

    fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    fn bind<'a>(&'a self, t: &'a Thread, address: &'a [u8]) -> Op<'a, Result<()>> {
        Op::ready(self.bind_to(t, address))
    }

    fn listen(&self, t: &Thread, backlog: u32) -> Result<()> {
        self.start_listening(t.creds().euid, backlog)
    }

    fn try_accept(&self) -> Result<(Arc<dyn FileOps>, Address), TryError> {
        self.take_connection()
    }

    fn connect<'a>(&'a self, t: &'a Thread, address: &'a [u8], nonblock: bool) -> Op<'a, SysResult<()>> {
        Op::boxed(self.connect_to(t, address, nonblock))
    }

    fn local_address(&self) -> Address {
        self.state.lock().local.to_address(self.common.family)
    }

    fn peer_address(&self) -> Result<Address> {
        let state = self.state.lock();
        let remote = state.remote.filter(|_| state.phase == Phase::Open).ok_or(Errno::ENOTCONN)?;
        Ok(remote.to_address(self.common.family))
    }

    /// An address beside the bytes is not looked at.
    fn resolve<'a>(&'a self, _t: &'a Thread, _address: &'a [u8]) -> Op<'a, Result<Target>> {
        Op::ready(Ok(Target::Connected))
    }

    fn try_send(&self, buf: &mut IoBuf<'_>, message: &mut Outgoing) -> Result<usize, TryError> {
        self.send_bytes(buf, message.more, message.urgent)
    }

    fn try_receive(&self, buf: &mut IoBuf<'_>, how: Receive) -> Result<Received, TryError> {
        let len = self.receive_bytes(buf, how)?;
        Ok(Received { len, full: len, ..Received::default() })
    }

    fn take_urgent(&self, peek: bool) -> Result<u8> {
        self.receive_urgent(peek)
    }

    fn shutdown(&self, receive: bool, send: bool) -> Result<()> {
        self.shut(receive, send)
    }

    fn is_listening(&self) -> bool {
        self.state.lock().phase == Phase::Listening
    }

    /// As tcp_set_rcvlowat of Linux: never more than half of the buffer, which grows for it unless the program has chosen its size.
    fn set_receive_low(&self, low: u32) {
        let buffer = &self.common.receive_buffer;
        let size = buffer.load(Ordering::Relaxed);
        let given = size != RECEIVE_BUFFER;
        let low = low.min(if given { size / 2 } else { MAX_LOW });
        self.common.receive_low.store(low.max(1), Ordering::Relaxed);
        if !given && low > size / 2 {
            buffer.store(2 * low, Ordering::Relaxed);
            self.receive_buffer_changed();
        }
        self.queue.wake(usize::MAX, READABLE.bits());
    }

    fn device_changed(&self) {
        let state = self.state.lock();
        if state.has_port {
            let _ = PORTS.change(self, state.local.port, false, |claim| claim.device = self.common.device());
        }
    }

    fn keep_alive_changed(&self) {
        self.tell_stand_in();
    }

    fn receive_buffer_changed(&self) {
        let peer = self.state.lock().peer();
        if let Some(peer) = peer {
            peer.wake_sender();
        }
    }

    fn get_option(&self, level: u32, option: u32) -> Result<Vec<u8>> {
        match (level, option) {
            (SOL_TCP, raw::TCP_INFO) => Ok(self.info()),
            (SOL_TCP, raw::TCP_MAXSEG) => Ok(self.segment().as_bytes().to_vec()),
            (SOL_TCP, _) => self.tcp.lock().get(option),
            _ => self.ip.lock().get(&self.common, level, option),
        }
    }

    fn set_option(&self, _t: &Thread, level: u32, option: u32, value: &[u8]) -> Result<()> {
        if level == SOL_TCP {
            return self.set_tcp_option(option, value);
        }
        match groups::refusal_of_streams(&self.common, level, option) {
            Some(errno) => Err(errno),
            None => self.set_ip_option(level, option, value),
        }
    }
}
