//! What system calls do with a socket for frames.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::any::Any;
use core::sync::atomic::Ordering;

use super::{LinkSocket, Name, READABLE, WRITABLE, device_of, options, watch};
use linux_raw_sys::ioctl::{FIONREAD, TIOCOUTQ};

use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::fs::writing::Sigpipe;
use crate::fs::{Events, FileOps, Op, OpenFile, TryError, sigio};
use crate::mm::IoBuf;
use crate::net::inet::told;
use crate::net::interface;
use crate::net::packet::copy_out;
use crate::net::socket::{Address, Common, Extras, Outgoing, Receive, Received, Socket, Target, tell_ioctl};
use crate::process::Thread;
use crate::syscalls::SysResult;

impl LinkSocket {
    /// Without a protocol the socket goes on with the one that it has.
    fn bind_to(&self, address: &[u8]) -> Result<()> {
        let name = Name::parse(address)?;
        let down = match name.index {
            0 => false,
            index => !device_of(index).ok_or(Errno::ENODEV)?.up,
        };
        let mut state = self.state.lock();
        let protocol = if name.protocol() == 0 { state.protocol } else { name.protocol() };
        if !self.closed.load(Ordering::Acquire) {
            watch::end(self, state.protocol);
            (state.protocol, state.index) = (protocol, name.index);
            watch::begin(self, protocol);
        }
        drop(state);
        if down {
            self.fail(Errno::ENETDOWN);
        }
        Ok(())
    }

    fn receive_frame(&self, buf: &mut IoBuf<'_>, how: Receive) -> Result<Received, TryError> {
        let mut state = self.state.lock();
        if let Some(errno) = self.common.take_error() {
            return Err(errno.into());
        }
        let frame = state.inbox.front().ok_or(TryError::WouldBlock)?;
        let len = copy_out(buf, &frame.data)?;
        let mut extras = Vec::new();
        extras.extend(told::moment(&self.common, frame.at));
        if self.tells_more.load(Ordering::Relaxed) {
            extras.push(options::more(frame));
        }
        let extras = (!extras.is_empty()).then(|| Box::new(Extras(extras)));
        let from = Some(frame.from.to_address());
        let received = Received { len, full: frame.data.len(), from, extras, ..Received::default() };
        if how.peek {
            return Ok(received);
        }
        let frame = state.inbox.pop_front();
        state.charge -= received.full + super::OVERHEAD;
        drop(state);
        drop(frame);
        Ok(received)
    }
}

impl FileOps for LinkSocket {
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
        Ok(self.receive_frame(buf, Receive { nonblock: file.is_nonblock(), ..Receive::default() })?.len)
    }

    fn try_write(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        self.send_frame(buf, &Outgoing::plain())
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
        let mut events = if self.is_full() { Events::empty() } else { WRITABLE };
        if self.common.has_error() {
            events |= Events::ERR;
        }
        if !self.state.lock().inbox.is_empty() {
            events |= READABLE;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn news(&self) -> u32 {
        sigio::IN | sigio::OUT | sigio::ERR
    }

    fn ioctl<'a>(&'a self, _file: &'a OpenFile, thread: &'a Thread, cmd: u32, arg: u64) -> Op<'a, Result<u64>> {
        let value = match cmd {
            FIONREAD => self.state.lock().inbox.front().map_or(0, |frame| frame.data.len()),
            TIOCOUTQ => self.on_its_way.load(Ordering::Relaxed),
            _ => return interface::ioctl(thread, cmd, arg),
        };
        tell_ioctl(thread, arg, value)
    }
}

impl Socket for LinkSocket {
    fn common(&self) -> &Common {
        &self.common
    }

    fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    fn bind<'a>(&'a self, _t: &'a Thread, address: &'a [u8]) -> Op<'a, Result<()>> {
        Op::ready(self.bind_to(address))
    }

    fn connect<'a>(&'a self, _t: &'a Thread, _address: &'a [u8], _nonblock: bool) -> Op<'a, SysResult<()>> {
        Op::ready(Err(Errno::EOPNOTSUPP.into()))
    }

    fn local_address(&self) -> Address {
        let state = self.state.lock();
        let (protocol, index) = (state.protocol, state.index);
        drop(state);
        Name::own(protocol, index, device_of(index).as_ref())
    }

    fn peer_address(&self) -> Result<Address> {
        Err(Errno::EOPNOTSUPP)
    }

    fn resolve<'a>(&'a self, _t: &'a Thread, address: &'a [u8]) -> Op<'a, Result<Target>> {
        Op::ready(Name::parse_target(address).map(Target::Link))
    }

    fn try_send(&self, buf: &mut IoBuf<'_>, message: &mut Outgoing) -> Result<usize, TryError> {
        self.send_frame(buf, message)
    }

    fn try_receive(&self, buf: &mut IoBuf<'_>, how: Receive) -> Result<Received, TryError> {
        self.receive_frame(buf, how)
    }

    fn take_urgent(&self, _peek: bool) -> Result<u8> {
        Err(Errno::EINVAL)
    }

    fn shutdown(&self, _receive: bool, _send: bool) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
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
        self.get(level, option)
    }

    fn set_option(&self, _t: &Thread, level: u32, option: u32, value: &[u8]) -> Result<()> {
        self.set(level, option, value)
    }
}
