//! The stack with its device: what of both everybody uses, whose turn it is.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::net::IpAddr;
use core::time::Duration;

use smoltcp::iface::{Config, Interface, PollResult, SocketSet};
use smoltcp::time::{Duration as StackDuration, Instant as StackInstant};
use smoltcp::wire::{EthernetAddress, HardwareAddress};

use super::phy::Phy;
use super::port::Settings;
use super::{Frame, Port, frame};
use crate::drivers::random;
use crate::exec::Instant;
use crate::net::inet::{Endpoint, failures, groups, ip, udp};

/// How often the gateway is asked for its address: while it is known (ENTRY_LIFETIME of the stack's cache is 60 s), and else.
const GATEWAY_TIME: Duration = Duration::from_secs(20);
const NEIGHBOUR_INTERVAL: Duration = Duration::from_secs(1);
/// The stack puts few packets together at a time, so one of which a fragment is lost must not stay for long.
const REASSEMBLY_TIME: StackDuration = StackDuration::from_secs(5);

/// The stack with its device, which every connection is lent.
pub struct Wire {
    pub port: Arc<Port>,
    pub iface: Box<Interface>,
    pub phy: Phy,
    pub now: Instant,
    /// What the port has, as the stack knows it.
    pub settings: Settings,
    /// How often the port had been taken down when it was last brought up.
    pub downs: u32,
    /// Something goes through the gateway.
    pub routed: bool,
    /// How many acknowledgements of single bytes may be told in this turn.
    pub singles: usize,
    /// When the gateway was asked for its address.
    asked_gateway: Option<Instant>,
}

impl Wire {
    pub fn new(port: Arc<Port>, now: Instant) -> Wire {
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(port.card().mac())));
        config.random_seed = random::u64();
        let mut phy = Phy::new(port.clone());
        // Large: it has a buffer for fragments.
        let mut iface = Box::new(Interface::new(config, &mut phy, StackInstant::from_micros(0)));
        iface.set_reassembly_timeout(REASSEMBLY_TIME);
        let settings = Settings::default();
        Wire { port, iface, phy, now, settings, downs: 0, routed: false, singles: 0, asked_gateway: None }
    }

    pub fn stack_now(&self) -> StackInstant {
        StackInstant::from_micros((self.now.as_nanos() / 1000) as i64)
    }

    /// Hands a frame to the stack, for these sockets.
    pub fn feed(&mut self, frame: Frame, sockets: &mut SocketSet<'static>) {
        let now = self.stack_now();
        self.phy.pending = Some(frame);
        self.iface.poll_ingress_single(now, &mut self.phy, sockets);
    }

    /// Lets the sockets send. True if something went out.
    pub fn flush(&mut self, sockets: &mut SocketSet<'static>) -> bool {
        let now = self.stack_now();
        self.phy.reserve() && self.iface.poll_egress(now, &mut self.phy, sockets) == PollResult::SocketStateChanged
    }

    /// A packet that is for a machine of another network does not tell the stack that the gateway is still there, and the stack asks
    /// for one neighbour a second, whoever that is: so the gateway is asked for before the stack forgets it.
    pub fn refresh_gateway(&mut self) {
        let Some(gateway) = self.settings.main_gateway().filter(|_| core::mem::take(&mut self.routed)) else { return };
        let known = self.port.with_neighbours(|known| known.knows(gateway.into()));
        let time = if known { GATEWAY_TIME } else { NEIGHBOUR_INTERVAL };
        if self.asked_gateway.is_some_and(|at| self.now.saturating_since(at) < time) {
            return;
        }
        if let Some(IpAddr::V4(own)) = self.settings.source_for(gateway.into()) {
            self.asked_gateway = Some(self.now);
            self.phy.ask_for(own, gateway, self.stack_now());
        }
    }

    /// A packet of IP in one piece, for sockets that want packets. True: one has it.
    pub fn hand_out(&self, packet: &[u8]) -> bool {
        if ip::is_empty() {
            return false;
        }
        let Some(packet) = ip::Arrived::parse(packet, self.port.index()) else { return false };
        (self.settings.is_addressed(packet.to) || self.is_member(packet.to)) && ip::arrive(&packet)
    }

    /// Is this machine in that group, on this network?
    fn is_member(&self, group: IpAddr) -> bool {
        group.is_multicast() && (groups::is_joined(self.port.index(), group) || self.settings.is_solicited(group))
    }

    /// A datagram that has come. False if nobody is there to receive it.
    pub fn hand_datagram(&self, local: Endpoint, remote: Endpoint, header: (u8, u8), data: &[u8]) -> bool {
        let index = self.port.index();
        if self.settings.is_own(local.ip) {
            return udp::arrive(local, remote, index, header, data);
        }
        let for_many = self.settings.is_broadcast(local.ip) || self.is_member(local.ip);
        for_many && udp::deliver_to_all(remote, local, header, None, index, data)
    }

    /// A message of ICMP, perhaps about what this machine has sent.
    pub fn tell_failure(&self, frame: &[u8]) {
        let packet = frame::packet(frame).and_then(|packet| ip::Arrived::parse(packet, self.port.index()));
        if let Some(packet) = packet.filter(|packet| self.settings.is_own(packet.to)) {
            failures::arrive(&packet);
        }
    }

    /// When the sockets want to be looked at again.
    pub fn due(&mut self, sockets: &SocketSet<'static>) -> Option<Instant> {
        let now = self.stack_now();
        let at = self.iface.poll_at(now, sockets)?;
        Some(Instant::from_nanos(at.total_micros().max(0) as u64 * 1000))
    }
}
