//! Sending and receiving.

use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use super::inbox::{Inbox, Packet, Stream, Taken};
use super::{ARRIVED, Phase, UnixSocket, name, release, unblock};
use crate::errno::{Errno, Result};
use crate::fs::pipe::PIPE_BUF;
use crate::fs::{Events, TryError, sigio};
use crate::mm::IoBuf;
use crate::net::packet::{copy_in, copy_out};
use crate::net::rights::{self, Rights};
use crate::net::socket::{Outgoing, Receive, Received, Switches, Target, Type, Ucred};

/// What a message takes up in the send buffer besides its bytes, about as on Linux.
const OVERHEAD: usize = 576;

impl UnixSocket {
    fn wants_creds(&self) -> bool {
        self.common.is_on(Switches::PASSCRED)
    }

    /// The sender's ids, if they were given or somebody asks for them.
    fn message_creds(&self, peer: &UnixSocket, message: &Outgoing) -> Option<Ucred> {
        message.creds.or_else(|| (self.wants_creds() || peer.wants_creds()).then(Ucred::current))
    }

    pub(super) fn send_bytes(&self, buf: &mut IoBuf<'_>, message: &mut Outgoing) -> Result<usize, TryError> {
        let state = self.state.lock();
        if state.phase != Phase::Connected {
            return Err(Errno::ENOTCONN.into());
        }
        if state.send_shut {
            return Err(Errno::EPIPE.into());
        }
        let peer = state.peer.as_ref().and_then(Weak::upgrade);
        drop(state);
        let peer = peer.ok_or(Errno::EPIPE)?;
        if buf.is_empty() {
            return Ok(0);
        }
        let creds = self.message_creds(&peer, message);
        let mut in_flight = message.rights.as_ref().filter(|rights| rights.has_sockets()).map(|_| rights::lock());
        let mut state = peer.state.lock();
        if state.receive_shut {
            return Err(Errno::EPIPE.into());
        }
        let Inbox::Stream(stream) = &mut state.inbox else { return Err(Errno::EINVAL.into()) };
        // As on Linux, what is small goes as a whole.
        if stream.room() < buf.remaining().min(PIPE_BUF) {
            self.lacked_room.store(true, Ordering::Relaxed);
            return Err(TryError::WouldBlock);
        }
        if let (Some(in_flight), Some(rights)) = (&mut in_flight, &message.rights) {
            rights.take_off(in_flight, &peer);
        }
        // Of a message with an urgent byte the others go first, and it goes alone.
        let alone = message.urgent && buf.remaining() == 1;
        let cut = if message.urgent && !alone { buf.limit(buf.remaining() - 1) } else { 0 };
        let result = if alone {
            stream.write_urgent(buf, &mut message.rights, creds)
        } else {
            stream.write(buf, &mut message.rights, creds)
        };
        buf.extend(cut);
        if let (Some(in_flight), Some(rights)) = (&mut in_flight, &message.rights) {
            // It stayed here.
            rights.land(in_flight);
        }
        drop(state);
        drop(in_flight);
        let len = result?;
        if alone && len > 0 {
            peer.urge();
        } else if !peer.queue.is_empty() {
            peer.queue.wake(usize::MAX, ARRIVED);
        }
        Ok(len)
    }

    /// An urgent byte has come: tells the owner of the file (fcntl(2), F_SETOWN), and who waits.
    fn urge(&self) {
        let owner = self.owner_of_file.get().and_then(Weak::upgrade);
        let told = owner.is_some_and(|owner| owner.urge());
        let news = if told { sigio::URG } else { 0 };
        self.queue.wake(usize::MAX, ARRIVED | (Events::PRI | Events::RDBAND).bits() | news);
    }

    pub(super) fn receive_urgent(&self, peek: bool) -> Result<u8> {
        if self.common.is_on(Switches::OOBINLINE) {
            return Err(Errno::EINVAL);
        }
        let mut in_flight = rights::lock();
        let mut state = self.state.lock();
        let Inbox::Stream(stream) = &mut state.inbox else { return Err(Errno::EOPNOTSUPP) };
        let had_room = stream.has_room();
        let (byte, rights) = stream.take_urgent(peek).ok_or(Errno::EINVAL)?;
        // Marks that were two may be one now.
        let writer = if !had_room && stream.has_room() { state.peer.as_ref().and_then(Weak::upgrade) } else { None };
        drop(state);
        if let Some(rights) = &rights {
            rights.land(&mut in_flight);
        }
        drop(in_flight);
        drop(rights);
        if let Some(writer) = writer {
            writer.wake_sender();
        }
        Ok(byte)
    }

    pub(super) fn send_packet(&self, buf: &mut IoBuf<'_>, message: &mut Outgoing) -> Result<usize, TryError> {
        if let Some(errno) = self.common.take_error() {
            return Err(errno.into());
        }
        let peer = self.destination(message)?;
        if self.wants_creds() {
            // Whoever asks for names has one (unix_dgram_sendmsg of Linux).
            self.bind_somewhere()?;
        }
        let len = buf.remaining();
        if len > self.send_buffer().saturating_sub(32) {
            return Err(Errno::EMSGSIZE.into());
        }
        let charge = len + OVERHEAD;
        // A message that fits at all may go beyond the limit, but only one: as long as less is used there is room.
        if self.outstanding.load(Ordering::Acquire) >= self.send_buffer() {
            self.lacked_room.store(true, Ordering::Relaxed);
            return Err(TryError::WouldBlock);
        }
        // The place in the queue is checked before the copy for its own sake, and after it for good.
        if !peer.admits(self) {
            return Err(TryError::WouldBlock);
        }
        let data = copy_in(buf)?;
        let creds = self.message_creds(&peer, message);
        let from = self.state.lock().name.as_deref().map(|own| name::to_address(Some(own)));
        let packet = Packet { data, from, rights: None, creds, sender: self.this.clone(), charge };
        self.put(&peer, packet, message).inspect_err(|_| buf.rewind(len))?;
        if !peer.queue.is_empty() {
            peer.queue.wake(usize::MAX, ARRIVED);
        }
        Ok(len)
    }

    /// Where a packet goes.
    fn destination(&self, message: &Outgoing) -> Result<Arc<UnixSocket>> {
        // Goes after the lock: it may be the last reference to one that is being closed.
        let peer;
        let mut state = self.state.lock();
        if self.kind() == Type::SeqPacket && state.phase != Phase::Connected {
            return Err(Errno::ENOTCONN);
        }
        peer = state.peer.as_ref().map(Weak::upgrade);
        let target = match &message.target {
            Target::Unix(target) => target.clone(),
            Target::Inet(_) | Target::Scoped(..) | Target::Netlink { .. } | Target::Link(_) => {
                return Err(Errno::EINVAL);
            }
            Target::Connected => match &peer {
                Some(Some(peer)) if !peer.is_closed() => peer.clone(),
                Some(_) if self.kind() == Type::SeqPacket => return Err(Errno::EPIPE),
                Some(_) => {
                    state.peer = None;
                    state.phase = Phase::Idle;
                    return Err(Errno::ECONNREFUSED);
                }
                None => return Err(Errno::ENOTCONN),
            },
        };
        let shut = state.send_shut;
        drop(state);
        if shut {
            return Err(Errno::EPIPE);
        }
        if self.kind() == Type::Datagram {
            if target.is_closed() {
                return Err(Errno::ECONNREFUSED);
            }
            if !target.accepts_from(self) {
                return Err(Errno::EPERM);
            }
        }
        Ok(target)
    }

    fn put(&self, peer: &Arc<UnixSocket>, mut packet: Packet, message: &mut Outgoing) -> Result<(), TryError> {
        let mut in_flight = message.rights.as_ref().filter(|rights| rights.has_sockets()).map(|_| rights::lock());
        let mut state = peer.state.lock();
        if peer.is_closed() && self.kind() == Type::Datagram {
            return Err(Errno::ECONNREFUSED.into());
        }
        if state.receive_shut {
            return Err(Errno::EPIPE.into());
        }
        if !state.admits(self.kind(), self) {
            return Err(TryError::WouldBlock);
        }
        let Inbox::Packets(packets) = &mut state.inbox else { return Err(Errno::EINVAL.into()) };
        packets.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        if let (Some(in_flight), Some(rights)) = (&mut in_flight, &message.rights) {
            rights.take_off(in_flight, peer);
        }
        packet.rights = message.rights.take();
        self.outstanding.fetch_add(packet.charge, Ordering::AcqRel);
        packets.push_back(packet);
        Ok(())
    }

    /// A read of bytes that nothing came along with. None: there is more to it.
    pub(super) fn receive_plain(&self, buf: &mut IoBuf<'_>) -> Option<Result<usize, TryError>> {
        let mut state = self.state.lock();
        let Inbox::Stream(stream) = &mut state.inbox else { return None };
        let before = stream.len();
        let result = stream.read_plain(buf)?;
        let writer = match !Stream::has_bytes_room(before) && Stream::has_bytes_room(stream.len()) {
            true => state.peer.as_ref().and_then(Weak::upgrade),
            false => None,
        };
        drop(state);
        if let Some(writer) = writer {
            writer.wake_sender();
        }
        Some(result)
    }

    pub(super) fn receive_bytes(&self, buf: &mut IoBuf<'_>, how: Receive) -> Result<Received, TryError> {
        let by_writer = self.wants_creds();
        let mut in_flight = None;
        let mut state = loop {
            let state = self.state.lock();
            if state.phase != Phase::Connected {
                return Err(Errno::EINVAL.into());
            }
            let Inbox::Stream(stream) = &state.inbox else { return Err(Errno::EINVAL.into()) };
            if stream.len() == 0 {
                return match self.common.take_error() {
                    Some(errno) => Err(errno.into()),
                    None if state.receive_shut => Ok(Received::default()),
                    None => Err(TryError::WouldBlock),
                };
            }
            if in_flight.is_some() || !stream.has_sockets() {
                break state;
            }
            drop(state);
            in_flight = Some(rights::lock());
        };
        let Inbox::Stream(stream) = &mut state.inbox else { return Err(Errno::EINVAL.into()) };
        let in_line = self.common.is_on(Switches::OOBINLINE);
        if how.peek {
            let (taken, rights) = stream.peek(buf, by_writer, in_line)?;
            if taken.len == 0 && !buf.is_empty() {
                // There was nothing but what is passed.
                return if state.receive_shut { Ok(Received::default()) } else { Err(TryError::WouldBlock) };
            }
            let (len, creds) = (taken.len, taken.creds);
            let files = rights.map(|rights| rights.files().to_vec());
            return Ok(Received { len, full: len, rights: files, creds, barrier: true, ..Received::default() });
        }
        let had_room = stream.has_room();
        let lost = stream.pass_urgent(in_line);
        let nothing = stream.len() == 0;
        let taken = if nothing { Ok(Taken::default()) } else { stream.read(buf, by_writer) };
        let writer = if !had_room && stream.has_room() { state.peer.as_ref().and_then(Weak::upgrade) } else { None };
        let ended = state.receive_shut;
        drop(state);
        if let (Some(lost), Some(in_flight)) = (&lost, in_flight.as_deref_mut()) {
            lost.land(in_flight);
        }
        let taken = taken.map(|mut taken| {
            let files = taken.rights.take().map(|rights| received_files(rights, in_flight.as_deref_mut()));
            (taken, files)
        });
        drop(in_flight);
        drop(lost);
        if let Some(writer) = writer {
            writer.wake_sender();
        }
        let (taken, files) = taken?;
        if nothing && !ended {
            return Err(TryError::WouldBlock);
        }
        let (len, creds, barrier) = (taken.len, taken.creds, taken.barrier);
        Ok(Received { len, full: len, rights: files, creds, barrier, ..Received::default() })
    }

    pub(super) fn receive_packet(&self, buf: &mut IoBuf<'_>, how: Receive) -> Result<Received, TryError> {
        let mut in_flight = None;
        let mut state = loop {
            let state = self.state.lock();
            if self.kind() == Type::SeqPacket && state.phase != Phase::Connected {
                return Err(Errno::ENOTCONN.into());
            }
            if let Some(errno) = self.common.take_error() {
                return Err(errno.into());
            }
            let Inbox::Packets(packets) = &state.inbox else { return Err(Errno::EINVAL.into()) };
            let Some(packet) = packets.front() else {
                // A datagram socket that is shut down ends waiting only.
                let end = state.receive_shut && (self.kind() == Type::SeqPacket || !how.nonblock);
                return if end { Ok(Received::default()) } else { Err(TryError::WouldBlock) };
            };
            if in_flight.is_some() || !packet.rights.as_ref().is_some_and(Rights::has_sockets) {
                break state;
            }
            drop(state);
            in_flight = Some(rights::lock());
        };
        let Inbox::Packets(packets) = &mut state.inbox else { return Err(Errno::EINVAL.into()) };
        let Some(packet) = packets.front() else { return Err(TryError::WouldBlock) };
        let len = copy_out(buf, &packet.data)?;
        let mut received = Received { len, full: packet.data.len(), creds: packet.creds, ..Received::default() };
        if self.kind() == Type::Datagram {
            received.from = packet.from.clone();
        }
        if how.peek {
            received.rights = packet.rights.as_ref().map(|rights| rights.files().to_vec());
            return Ok(received);
        }
        let packet = packets.pop_front();
        let blocked = core::mem::take(&mut state.blocked);
        drop(state);
        if let Some(mut packet) = packet {
            received.rights = packet.rights.take().map(|rights| received_files(rights, in_flight.as_deref_mut()));
            drop(in_flight);
            release(packet);
        }
        unblock(blocked);
        Ok(received)
    }
}

/// The files of a message that was taken out of its queue.
fn received_files(rights: Rights, in_flight: Option<&mut rights::InFlight>) -> Vec<Arc<crate::fs::OpenFile>> {
    if let Some(in_flight) = in_flight {
        rights.land(in_flight);
    }
    rights.into_files()
}
