//! The network, as far as the kernel leaves it to programs.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::symlink;

use crate::sys::check;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What the kernel was told by DHCP, or by its command line: also name servers, in the form of resolv.conf.
const TOLD: &str = "/proc/net/pnp";

/// Brings the loopback up, and the card if the kernel has not done it. The kernel may not know name servers yet, and does not
/// have to: the file with them is its own.
pub fn bring_up(static_card: Option<&str>) {
    let _ = set_up("lo", |_, _| Ok(()));
    if let Some(settings) = static_card {
        match configure(settings) {
            Ok(server) => write_servers(&format!("nameserver {server}\n")),
            Err(error) => eprintln!("init: the network card: {error}"),
        }
    } else if fs::metadata(TOLD).is_ok() && fs::metadata(RESOLV_CONF).map_or(true, |file| file.len() == 0) {
        let _ = fs::remove_file(RESOLV_CONF);
        // On a root that is read-only it stays as it is.
        let _ = symlink(TOLD, RESOLV_CONF);
    }
}

fn write_servers(text: &str) {
    let _ = fs::remove_file(RESOLV_CONF);
    let _ = fs::write(RESOLV_CONF, text);
}

fn request(name: &str) -> libc::ifreq {
    // SAFETY: zeros are a valid request.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from as _);
    request
}

fn address(ip: Ipv4Addr) -> libc::sockaddr {
    let inet = libc::sockaddr_in {
        sin_family: libc::AF_INET as _,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(ip).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: both have the same size, and any bytes will do.
    unsafe { std::mem::transmute(inet) }
}

/// Sets IFF_UP of an interface, and then does `more` with it. A kernel without a network refuses, which is fine.
fn set_up(name: &str, more: impl FnOnce(&OwnedFd, &str) -> io::Result<()>) -> io::Result<()> {
    // SAFETY: the requests are initialised, and the ioctls read and write nothing beyond them.
    unsafe {
        let socket = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0))?;
        let socket = OwnedFd::from_raw_fd(socket);
        let mut request = request(name);
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request))?;
        more(&socket, name)
    }
}

/// `10.0.2.15/24,10.0.2.2,10.0.2.3` for eth0. Answers the name server.
fn configure(settings: &str) -> io::Result<Ipv4Addr> {
    let wrong = || io::Error::other(format!("{settings:?} is not ADDRESS/PREFIX,GATEWAY,DNS"));
    let fields: Vec<&str> = settings.split(['/', ',']).collect();
    let &[own, prefix, gateway, server] = fields.as_slice() else { return Err(wrong()) };
    let ip = |text: &str| text.parse::<Ipv4Addr>().map_err(|_| wrong());
    let prefix: u32 = prefix.parse().map_err(|_| wrong())?;
    let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - prefix).unwrap_or(0));
    let (own, gateway, server) = (ip(own)?, ip(gateway)?, ip(server)?);
    set_up("eth0", |socket, name| {
        let mut own_request = request(name);
        own_request.ifr_ifru.ifru_addr = address(own);
        let mut mask_request = request(name);
        mask_request.ifr_ifru.ifru_netmask = address(mask);
        // SAFETY: zeros are a valid route; the requests live until the calls are over.
        unsafe {
            check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFADDR as _, &own_request))?;
            check(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFNETMASK as _, &mask_request))?;
            let mut route: libc::rtentry = std::mem::zeroed();
            route.rt_dst = address(Ipv4Addr::UNSPECIFIED);
            route.rt_genmask = address(Ipv4Addr::UNSPECIFIED);
            route.rt_gateway = address(gateway);
            route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
            check(libc::ioctl(socket.as_raw_fd(), libc::SIOCADDRT as _, &route))?;
        }
        Ok(())
    })?;
    Ok(server)
}
