//! The machine's network: QEMU's user mode, in which the guest reaches what the host reaches, and the host as 10.0.2.2.

use std::fmt;
use std::net::Ipv4Addr;
use std::process::Command;
use std::str::FromStr;

use crate::machine::{Bus, KernelKind};
use crate::wire;

/// What QEMU's own DHCP server answers, for a guest that has no client: address, gateway, name server.
const ADDRESSES: &str = "10.0.2.15/24,10.0.2.2,10.0.2.3";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

/// A port of the host that leads to one of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    protocol: Protocol,
    address: Ipv4Addr,
    host: u16,
    guest: u16,
}

impl Forward {
    /// A TCP port of the host's loopback.
    pub fn tcp(host: u16, guest: u16) -> Self {
        Forward { protocol: Protocol::Tcp, address: Ipv4Addr::LOCALHOST, host, guest }
    }

    /// The same for UDP.
    pub fn udp(host: u16, guest: u16) -> Self {
        Forward { protocol: Protocol::Udp, ..Forward::tcp(host, guest) }
    }
}

fn port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port @ 1..) => Ok(port),
        _ => Err(format!("{text:?} is not a port from 1 to 65535")),
    }
}

impl FromStr for Forward {
    type Err = String;

    /// `8080:80`, `udp:5353:53`, `0.0.0.0:2222:22`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (protocol, rest) = match text.split_once(':') {
            Some(("tcp", rest)) => (Protocol::Tcp, rest),
            Some(("udp", rest)) => (Protocol::Udp, rest),
            _ => (Protocol::Tcp, text),
        };
        let fields: Vec<&str> = rest.split(':').collect();
        let (address, host, guest) = match fields[..] {
            [host, guest] => (Ipv4Addr::LOCALHOST, host, guest),
            [address, host, guest] => {
                (address.parse().map_err(|_| format!("{address:?} is not an IPv4 address"))?, host, guest)
            }
            _ => return Err("what is wanted is [tcp:|udp:][ADDRESS:]HOSTPORT:GUESTPORT".into()),
        };
        Ok(Forward { protocol, address, host: port(host)?, guest: port(guest)? })
    }
}

impl fmt::Display for Forward {
    /// As QEMU wants it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "hostfwd={protocol}:{}:{}-:{}", self.address, self.host, self.guest)
    }
}

/// Adds the card, whose other end is the network or a wire to it.
pub fn add(qemu: &mut Command, bus: Bus, forwards: &[Forward], has_wire: bool) {
    let mut network = "user,id=net".to_string();
    for forward in forwards {
        network.push_str(&format!(",{forward}"));
    }
    let peer = if has_wire { "near" } else { "net" };
    let device = match bus {
        Bus::Mmio => "virtio-net-device",
        Bus::Pci => "virtio-net-pci",
    };
    // Without the ROM for booting over it, which need not be installed.
    let rom = if bus == Bus::Pci { ",romfile=" } else { "" };
    qemu.args(["-netdev", &network, "-device", &format!("{device},id={},netdev={peer}{rom}", wire::CARD)]);
}

/// What init must know: Linux does not configure a card whose driver is a module.
pub fn init_args(kernel: KernelKind) -> Option<[String; 2]> {
    (kernel == KernelKind::Linux).then(|| ["--net".into(), ADDRESSES.into()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_ports_with_a_protocol_and_an_address() {
        let shown = |text: &str| text.parse::<Forward>().map(|forward| forward.to_string());
        assert_eq!(shown("8080:80"), Ok("hostfwd=tcp:127.0.0.1:8080-:80".into()));
        assert_eq!(shown("udp:5353:53"), Ok("hostfwd=udp:127.0.0.1:5353-:53".into()));
        assert_eq!(shown("tcp:0.0.0.0:2222:22"), Ok("hostfwd=tcp:0.0.0.0:2222-:22".into()));
        assert_eq!(shown("80"), Err("what is wanted is [tcp:|udp:][ADDRESS:]HOSTPORT:GUESTPORT".into()));
        assert_eq!(shown("0:80"), Err("\"0\" is not a port from 1 to 65535".into()));
        assert_eq!(shown("80:x"), Err("\"x\" is not a port from 1 to 65535".into()));
        assert_eq!(shown("host:1:2"), Err("\"host\" is not an IPv4 address".into()));
    }
}
