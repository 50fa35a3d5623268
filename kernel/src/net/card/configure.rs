//! How a card gets its addresses.
//!
//! Unless the command line says otherwise (`ip=`, as Linux's Documentation/admin-guide/nfs/nfsroot.rst), by DHCP (RFC 2131); an
//! IPv6 address of the link, and one for each prefix that a router advertises (RFC 4862). The boot does not wait for any of it.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use smoltcp::iface::{Route, SocketHandle, SocketSet};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::socket::dhcpv4;
use smoltcp::socket::raw::{PacketBuffer, PacketMetadata, Socket as RawSocket};
use smoltcp::wire::{
    EthernetAddress, Icmpv6Packet, Icmpv6Repr, IpAddress, IpCidr, IpProtocol, IpVersion, Ipv6Packet, Ipv6Repr,
    NdiscPrefixInfoFlags, NdiscRepr,
};

use super::frame::Pair;
use super::wire::Wire;
use super::{Buffer, Cidr, ETHERNET_HEADER, Frame, Settings, datagram, frame};
use crate::boot::cmdline;
use crate::exec::Instant;

/// How long programs that want an address wait for the first one.
const PATIENCE: Duration = Duration::from_secs(2);
/// RTR_SOLICITATION_INTERVAL and MAX_RTR_SOLICITATIONS of RFC 4861.
const SOLICIT_INTERVAL: Duration = Duration::from_secs(4);
const MOST_SOLICITS: u32 = 3;
const LINK_LOCAL_PREFIX: u8 = 64;
/// More would not fit into the stack.
pub const MOST_ADDRESSES: usize = 8;
/// Routes of programs, besides those to everywhere that others have told.
pub const MOST_ROUTES: usize = 6;
const DHCP_CLIENT_PORT: u16 = 68;
/// Room for what the stack puts together from fragments.
const REASSEMBLED: usize = 65_600;
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Method {
    Dhcp,
    Static(Settings),
    Off,
}

impl Method {
    pub fn of_cmdline() -> Self {
        cmdline::value("ip").map_or(Method::Dhcp, parse_method)
    }
}

pub struct Configure {
    method: Method,
    /// IFF_UP, as far as the stack knows.
    on: bool,
    /// What DHCP has given.
    leased: Option<Cidr>,
    sockets: SocketSet<'static>,
    dhcp: Option<SocketHandle>,
    /// What comes in fragments, by protocol; and what is sent to routers.
    datagrams: SocketHandle,
    segments: SocketHandle,
    messages: SocketHandle,
    solicitor: SocketHandle,
    solicits: u32,
    next_solicit: Option<Instant>,
    /// When nobody waits for an address any more.
    patience: Option<Instant>,
    due: Option<Instant>,
}

/// Can this be the address of a machine on a network? A server may say anything, and the stack believes it.
fn is_host(ip: Ipv4Addr) -> bool {
    !(ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast() || ip.is_loopback())
}

/// Can a router give addresses out of this network?
fn is_prefix(prefix: Ipv6Addr) -> bool {
    !(prefix.is_unicast_link_local() || prefix.is_multicast() || prefix.segments()[..4] == [0; 4])
}

/// `ip=ADDRESS:SERVER:GATEWAY:MASK:HOST:DEVICE:HOW:DNS:DNS`, or one word for HOW.
fn parse_method(text: &str) -> Method {
    if !text.contains(':') && text.parse::<Ipv4Addr>().is_err() {
        return if matches!(text, "off" | "none") { Method::Off } else { Method::Dhcp };
    }
    let fields: Vec<&str> = text.split(':').collect();
    let field = |index: usize| fields.get(index).copied().unwrap_or("");
    let address = |index: usize| field(index).parse::<Ipv4Addr>().ok().filter(|ip| !ip.is_unspecified());
    let host = |index: usize| address(index).filter(|ip| is_host(*ip));
    let Some(ip) = host(0) else {
        return if matches!(field(6), "off" | "none") { Method::Off } else { Method::Dhcp };
    };
    let mask = address(3).unwrap_or_else(|| classful_mask(ip));
    let own = Cidr { ip: IpAddr::V4(ip), prefix: mask.to_bits().leading_ones() as u8 };
    let servers = [address(7), address(8)].into_iter().flatten().collect();
    Method::Static(Settings { addresses: vec![own], gateway: host(2), servers, ..Settings::default() })
}

fn classful_mask(ip: Ipv4Addr) -> Ipv4Addr {
    match ip.octets()[0] {
        0..128 => Ipv4Addr::new(255, 0, 0, 0),
        128..192 => Ipv4Addr::new(255, 255, 0, 0),
        _ => Ipv4Addr::new(255, 255, 255, 0),
    }
}

/// The interface identifier of RFC 4291, appendix A, behind this prefix.
fn address_behind(prefix: Ipv6Addr, mac: [u8; 6]) -> IpAddr {
    let [a, b, c, d, e, f] = mac;
    let mut octets = prefix.octets();
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    IpAddr::V6(octets.into())
}

fn raw(version: IpVersion, protocol: IpProtocol, receive: usize, send: usize) -> RawSocket<'static> {
    let buffer = |size| PacketBuffer::new(vec![PacketMetadata::EMPTY; usize::from(size > 0) * 2], vec![0; size]);
    RawSocket::new(Some(version), Some(protocol), buffer(receive), buffer(send))
}

impl Configure {
    pub fn new(method: Method) -> Self {
        let mut sockets = SocketSet::new(vec![]);
        let datagrams = sockets.add(raw(IpVersion::Ipv4, IpProtocol::Udp, REASSEMBLED, 0));
        let segments = sockets.add(raw(IpVersion::Ipv4, IpProtocol::Tcp, REASSEMBLED, 0));
        let messages = sockets.add(raw(IpVersion::Ipv4, IpProtocol::Icmp, REASSEMBLED, 0));
        let solicitor = sockets.add(raw(IpVersion::Ipv6, IpProtocol::Icmpv6, 0, 256));
        Configure {
            method,
            on: false,
            leased: None,
            sockets,
            dhcp: None,
            datagrams,
            segments,
            messages,
            solicitor,
            solicits: 0,
            next_solicit: None,
            patience: None,
            due: None,
        }
    }

    pub fn sockets(&mut self) -> &mut SocketSet<'static> {
        &mut self.sockets
    }

    /// Does what comes to this port concern the configuration?
    pub fn wants(&self, port: u16) -> bool {
        self.dhcp.is_some() && port == DHCP_CLIENT_PORT
    }

    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    pub fn begin(&mut self, wire: &mut Wire) {
        match self.method {
            Method::Off => wire.port.settled.set(),
            _ => {
                wire.port.note_up(true);
                self.set_up(wire, true);
            }
        }
    }

    /// IFF_UP has changed.
    pub fn set_up(&mut self, wire: &mut Wire, up: bool) {
        if up == self.on {
            return;
        }
        self.on = up;
        self.leased = None;
        if let Some(dhcp) = self.dhcp.take() {
            self.sockets.remove(dhcp);
        }
        (self.solicits, self.next_solicit) = (0, None);
        if !up {
            wire.port.with_neighbours(|known| known.forget());
            // Nobody waits for an address of it.
            self.patience = None;
            wire.port.settled.set();
            // The settings went with the flag.
            return adopt(wire);
        }
        let given = match &self.method {
            Method::Static(settings) => settings.clone(),
            _ => Settings::default(),
        };
        let link = address_behind(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), wire.port.card().mac());
        let link = Cidr { ip: link, prefix: LINK_LOCAL_PREFIX };
        apply(wire, &mut |settings| {
            // What is there already has a program set while the card was not used.
            let before = core::mem::replace(settings, given.clone());
            settings.addresses.push(link);
            for own in before.addresses {
                if settings.addresses.len() < MOST_ADDRESSES && !settings.addresses.contains(&own) {
                    settings.addresses.push(own);
                }
            }
            settings.routes = before.routes;
        });
        if self.method == Method::Dhcp {
            self.dhcp = Some(self.sockets.add(dhcpv4::Socket::new()));
            self.patience = Some(wire.now.saturating_add(PATIENCE));
        } else {
            wire.port.settled.set();
        }
        self.next_solicit = Some(wire.now);
    }

    /// Sends what is to be sent, and looks whether DHCP has an answer.
    pub fn turn(&mut self, wire: &mut Wire) {
        if !wire.port.is_up() {
            self.due = None;
            return;
        }
        if self.next_solicit.is_some_and(|at| at <= wire.now) {
            self.solicit(wire);
        }
        while wire.flush(&mut self.sockets) {}
        self.ask_dhcp(wire);
        if self.patience.is_some_and(|end| end <= wire.now) {
            self.patience = None;
            wire.port.settled.set();
        }
        // The stack is not asked more often than every few milliseconds, whatever it says.
        let soonest = wire.now.saturating_add(Duration::from_millis(5));
        let stack = wire.due(&self.sockets).map(|due| due.max(soonest));
        self.due = [stack, self.next_solicit, self.patience].into_iter().flatten().min();
    }

    fn ask_dhcp(&mut self, wire: &mut Wire) {
        let Some(handle) = self.dhcp else { return };
        let socket = self.sockets.get_mut::<dhcpv4::Socket>(handle);
        let (own, gateway, servers, told_by) = match socket.poll() {
            None => return,
            Some(dhcpv4::Event::Deconfigured) => (None, None, Vec::new(), None),
            Some(dhcpv4::Event::Configured(config)) => {
                let own = Cidr { ip: config.address.address().into(), prefix: config.address.prefix_len() };
                let own = Some(own).filter(|_| is_host(config.address.address()));
                (own, config.router.filter(|ip| is_host(*ip)), config.dns_servers.to_vec(), Some(config.server.address))
            }
        };
        if let Some(own) = own {
            log::info!("{}: address {}/{} by DHCP", wire.port.name(), own.ip, own.prefix);
        }
        let before = core::mem::replace(&mut self.leased, own);
        apply(wire, &mut |settings| {
            settings.addresses.retain(|address| Some(*address) != before && Some(*address) != own);
            settings.addresses.truncate(MOST_ADDRESSES - usize::from(own.is_some()));
            settings.addresses.splice(0..0, own);
            (settings.gateway, settings.servers, settings.told_by) = (gateway, servers.clone(), told_by);
        });
        if own.is_some() {
            self.patience = None;
            wire.port.settled.set();
        }
    }

    /// Asks routers for prefixes.
    fn solicit(&mut self, wire: &Wire) {
        self.solicits += 1;
        let again = self.solicits < MOST_SOLICITS;
        self.next_solicit = again.then(|| wire.now.saturating_add(SOLICIT_INTERVAL));
        let mac = wire.port.card().mac();
        let IpAddr::V6(src_addr) = address_behind(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), mac) else { return };
        let ask = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr: Some(EthernetAddress(mac).into()) });
        let ip = Ipv6Repr {
            src_addr,
            dst_addr: ALL_ROUTERS,
            next_header: IpProtocol::Icmpv6,
            payload_len: ask.buffer_len(),
            hop_limit: 255,
        };
        let socket = self.sockets.get_mut::<RawSocket>(self.solicitor);
        if let Ok(room) = socket.send(ip.buffer_len() + ask.buffer_len()) {
            ip.emit(&mut Ipv6Packet::new_unchecked(&mut *room));
            let mut body = Icmpv6Packet::new_unchecked(&mut room[ip.buffer_len()..]);
            ask.emit(&src_addr, &ALL_ROUTERS, &mut body, &ChecksumCapabilities::default());
        }
    }

    /// A message of ICMPv6. True if a neighbour has answered.
    pub fn hear(&mut self, wire: &mut Wire, packet: Ipv6Packet<&[u8]>, mac: [u8; 6]) -> bool {
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        // Only neighbours can send these (RFC 4861, 6.1.2).
        if packet.hop_limit() != 255 {
            return false;
        }
        let checksums = ChecksumCapabilities::default();
        let Ok(message) = Icmpv6Packet::new_checked(packet.payload()) else { return false };
        match Icmpv6Repr::parse(&from, &to, &message, &checksums) {
            // The stack takes one that speaks for another machine for that of its sender.
            Ok(Icmpv6Repr::Ndisc(
                NdiscRepr::NeighborAdvert { .. } | NdiscRepr::NeighborSolicit { lladdr: Some(_), .. },
            )) if wire.settings.is_near(from.into()) => {
                wire.port.with_neighbours(|known| known.heard(from.into(), mac, wire.now))
            }
            Ok(Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert { router_lifetime, prefix_info, .. }))
                if from.is_unicast_link_local() =>
            {
                self.next_solicit = None;
                let mac = wire.port.card().mac();
                let told = prefix_info.filter(|info| {
                    let wanted = info.flags.contains(NdiscPrefixInfoFlags::ADDRCONF);
                    wanted && info.prefix_len == 64 && is_prefix(info.prefix)
                });
                apply(wire, &mut |settings| {
                    settings.gateway6 = (router_lifetime.total_micros() > 0).then_some(from);
                    let Some(info) = told else { return };
                    let own = Cidr { ip: address_behind(info.prefix, mac), prefix: 64 };
                    let valid = info.valid_lifetime.total_micros() > 0;
                    settings.addresses.retain(|address| *address != own || valid);
                    if valid && !settings.addresses.contains(&own) && settings.addresses.len() < MOST_ADDRESSES {
                        settings.addresses.push(own);
                    }
                });
                false
            }
            _ => false,
        }
    }

    /// The datagrams that the stack has put together.
    pub fn take_datagrams(&mut self, mut take: impl FnMut(Pair, (u8, u8), &[u8])) {
        let socket = self.sockets.get_mut::<RawSocket>(self.datagrams);
        while let Ok(packet) = socket.recv() {
            if let Some((pair, header, data)) = frame::reassembled(packet) {
                take(pair, header, data);
            }
        }
    }

    /// The messages of ICMP that it has put together.
    pub fn take_messages(&mut self, mut take: impl FnMut(&[u8])) {
        let socket = self.sockets.get_mut::<RawSocket>(self.messages);
        while let Ok(packet) = socket.recv() {
            take(packet);
        }
    }

    /// A segment that it has put together, as a frame.
    pub fn take_segment(&mut self, wire: &Wire) -> Option<Frame> {
        let packet = self.sockets.get_mut::<RawSocket>(self.segments).recv().ok()?;
        let mut buffer = Buffer::new();
        let whole = buffer.room(ETHERNET_HEADER + packet.len())?;
        whole[..6].copy_from_slice(&wire.port.card().mac());
        whole[12..ETHERNET_HEADER].copy_from_slice(&[8, 0]);
        whole[ETHERNET_HEADER..].copy_from_slice(packet);
        Some(Frame::new(buffer, 0, ETHERNET_HEADER + packet.len()))
    }
}

/// Changes the settings by what the task has found out, unless the card was taken down meanwhile.
fn apply(wire: &mut Wire, change: &mut dyn FnMut(&mut Settings)) {
    let (port, downs) = (&wire.port, wire.downs);
    let changed = port.change(&mut |settings| {
        if port.downs() == downs && port.is_up() {
            change(settings);
        }
        Ok(())
    });
    if let Ok(settings) = changed {
        tell_stack(wire, settings);
    }
}

/// The settings were changed by others.
pub fn adopt(wire: &mut Wire) {
    let settings = wire.port.settings();
    tell_stack(wire, settings);
}

/// Tells the stack what the settings are now.
fn tell_stack(wire: &mut Wire, settings: Settings) {
    if wire.settings == settings {
        return;
    }
    let stack = |own: &Cidr| IpCidr::new(IpAddress::from(own.ip), own.prefix);
    wire.iface.update_ip_addrs(|addresses| {
        addresses.clear();
        for own in &settings.addresses {
            let _ = addresses.push(stack(own));
        }
    });
    let everywhere = |gateway: IpAddr| {
        let ip: IpAddr = if gateway.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        (Cidr { ip, prefix: 0 }, gateway)
    };
    let gateways = [settings.gateway.map(IpAddr::V4), settings.gateway6.map(IpAddr::V6)];
    let routes = settings.routes.iter().map(|route| (route.to, route.gateway));
    wire.iface.routes_mut().update(|table| {
        table.clear();
        // Of two to the same place the stack takes the last.
        for (to, gateway) in gateways.into_iter().flatten().map(everywhere).chain(routes) {
            let via_router = IpAddress::from(gateway);
            let _ = table.push(Route { cidr: stack(&to), via_router, preferred_until: None, expires_at: None });
        }
    });
    wire.settings = settings;
}

const _: () = assert!(datagram::LARGEST < REASSEMBLED);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_gives_a_static_address_or_a_method() {
        let Method::Static(settings) = parse_method("10.1.2.3::10.1.0.1:255.255.0.0::eth0:off:8.8.8.8") else {
            panic!("not static");
        };
        assert_eq!(settings.addresses, [Cidr { ip: IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3)), prefix: 16 }]);
        assert_eq!(settings.gateway, Some(Ipv4Addr::new(10, 1, 0, 1)));
        assert_eq!(settings.servers, [Ipv4Addr::new(8, 8, 8, 8)]);
        assert_eq!(parse_method("off"), Method::Off);
        assert_eq!(parse_method("dhcp"), Method::Dhcp);
        assert_eq!(parse_method(":::::eth0:dhcp"), Method::Dhcp);
        assert_eq!(parse_method("::::::off"), Method::Off);
        let Method::Static(settings) = parse_method("192.168.7.9") else { panic!("not static") };
        assert_eq!(settings.addresses[0].prefix, 24);
    }

    #[test]
    fn an_interface_identifier_is_made_of_the_cards_address() {
        let mac = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
        let ip = address_behind(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), mac);
        assert_eq!(ip, "fe80::5054:ff:fe12:3456".parse::<IpAddr>().unwrap());
    }
}
