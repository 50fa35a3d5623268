//! Frames on their way out.

use alloc::boxed::Box;
use core::sync::atomic::Ordering;

use linux_raw_sys::if_ether as ether;

use super::frame::{self, Kind, Mac, NONE};
use super::watch::{joined, through_loopback};
use super::{LinkSocket, Name, OVERHEAD, WRITABLE, device_of};
use crate::errno::{Errno, Result};
use crate::fs::{TryError, sigio};
use crate::mm::IoBuf;
use crate::net::card::{Charge, ETHERNET_HEADER, OutgoingFrame, Sender};
use crate::net::inet::ip;
use crate::net::interface::Device;
use crate::net::packet::copy_in;
use crate::net::socket::{Outgoing, Target};

/// Bytes that a VLAN adds to a frame (IEEE 802.1Q).
const VLAN: usize = 4;
const VLAN_TYPE: u16 = ether::ETH_P_8021Q as u16;

impl LinkSocket {
    pub(super) fn send_frame(&self, buf: &mut IoBuf<'_>, message: &Outgoing) -> Result<usize, TryError> {
        let len = buf.remaining();
        let (device, protocol, to) = self.way(message)?;
        let most = device.mtu as usize + if self.has_header() { ETHERNET_HEADER } else { 0 };
        if len > most + VLAN {
            return Err(Errno::EMSGSIZE.into());
        }
        // Before anything is taken from `buf`: what waits for room begins again with all of it.
        if self.is_full() {
            return Err(TryError::WouldBlock);
        }
        let header = if self.has_header() {
            None
        } else {
            // What leaves the machine needs somebody to go to.
            let to = to.or(device.is_loopback().then_some(NONE)).ok_or(Errno::EINVAL)?;
            Some(frame::header(to, device.mac, protocol))
        };
        let data = copy_in(buf)?;
        let data = match header {
            Some(header) => joined(&header, &data).ok_or(Errno::ENOBUFS)?,
            None => data,
        };
        let Some(written) = frame::protocol(&data) else { return Err(Errno::EINVAL.into()) };
        if len > most && written != VLAN_TYPE {
            return Err(Errno::EMSGSIZE.into());
        }
        let says_nothing = matches!(u32::from(protocol), 0 | ether::ETH_P_ALL) && self.has_header();
        self.hand_over(&device, if says_nothing { written } else { protocol }, data)?;
        Ok(len)
    }

    /// The interface, ETH_P_*, and the address of the neighbour if the program says one.
    fn way(&self, message: &Outgoing) -> Result<(Device, u16, Option<Mac>)> {
        let (index, protocol, to) = match &message.target {
            Target::Link(name) => (name.index, name.protocol(), Some(Name::mac(name))),
            _ => {
                let state = self.state.lock();
                (state.index, state.protocol, None)
            }
        };
        let device = device_of(index).ok_or(Errno::ENXIO)?;
        if device.up { Ok((device, protocol, to)) } else { Err(Errno::ENETDOWN) }
    }

    fn hand_over(&self, device: &Device, protocol: u16, data: Box<[u8]>) -> Result<()> {
        let Some(port) = &device.port else {
            let came = through_loopback(&data, protocol, Some(self));
            let packet = data.get(ETHERNET_HEADER..).unwrap_or(&[]);
            // What is for others ends there.
            if came.is_some_and(|kind| kind != Kind::Other) {
                ip::came_by_loopback(packet, frame::protocol(&data).unwrap_or_default());
            }
            return Ok(());
        };
        let bytes = data.len() + OVERHEAD;
        self.on_its_way.fetch_add(bytes, Ordering::AcqRel);
        let charge = Charge::new(self.this.clone(), bytes);
        port.send_frame(OutgoingFrame { data, sender: self.this.clone(), charge })
    }

    pub(super) fn is_full(&self) -> bool {
        self.on_its_way.load(Ordering::Acquire) > self.send_limit()
    }

    fn send_limit(&self) -> usize {
        self.common.send_buffer.load(Ordering::Relaxed) as usize
    }
}

impl Sender for LinkSocket {
    fn sent(&self, bytes: usize) {
        // Exactly one of those that leave finds the sum go through the limit, in whatever order others add to it.
        let before = self.on_its_way.fetch_sub(bytes, Ordering::AcqRel);
        let limit = self.send_limit();
        if before > limit && before - bytes <= limit {
            self.queue.wake(usize::MAX, WRITABLE.bits() | sigio::OUT);
        }
    }
}
