//! ioctls that change interfaces and routes, of the loopback: netdevice(7).

use libc::*;

use crate::inet::socket;
use crate::process;
use crate::sys::{Ret, sys, zeroed};
use crate::{say, tests};

tests! { addresses, masks, others, numbers, who, routes, bad_routes, neighbours, of_ip6 }

const LO: &str = "lo";

fn request(name: &str) -> ifreq {
    let mut request: ifreq = zeroed();
    request.ifr_name.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from as _);
    request
}

fn end(ip: [u8; 4]) -> sockaddr {
    let mut address: sockaddr = zeroed();
    address.sa_family = AF_INET as u16;
    address.sa_data[2..6].iter_mut().zip(ip).for_each(|(to, from)| *to = from as _);
    address
}

fn ask(cmd: u64, request: &ifreq) -> Ret {
    let fd = socket(SOCK_DGRAM);
    let ret = sys!(SYS_ioctl, fd, cmd, request);
    crate::file::close(fd);
    ret
}

fn set(name: &str, cmd: u64, ip: [u8; 4]) -> Ret {
    let mut request = request(name);
    request.ifr_ifru.ifru_addr = end(ip);
    ask(cmd, &request)
}

fn told(cmd: u64) -> String {
    let mut request = request(LO);
    let fd = socket(SOCK_DGRAM);
    let ret = sys!(SYS_ioctl, fd, cmd, &mut request);
    crate::file::close(fd);
    // SAFETY: the kernel has written it.
    let bytes = unsafe { request.ifr_ifru.ifru_addr }.sa_data;
    if ret.ok() { format!("{:?}", &bytes[2..6]) } else { ret.to_string() }
}

fn number(cmd: u64, number: i32) -> Ret {
    let mut request = request(LO);
    request.ifr_ifru.ifru_mtu = number;
    ask(cmd, &request)
}

fn addresses() {
    say!("its own: {} {}", set(LO, SIOCSIFADDR, [127, 0, 0, 1]), told(SIOCGIFADDR));
    for ip in [[224, 0, 0, 1], [239, 1, 2, 3]] {
        say!("{ip:?}: {} {}", set(LO, SIOCSIFADDR, ip), told(SIOCGIFADDR));
    }
    say!("nowhere: {}", set("nothing", SIOCSIFADDR, [10, 0, 0, 1]));
    let mut other = request(LO);
    other.ifr_ifru.ifru_addr = end([127, 0, 0, 1]);
    other.ifr_ifru.ifru_addr = sockaddr { sa_family: AF_INET6 as u16, ..end([127, 0, 0, 1]) };
    say!("of another family: {}", ask(SIOCSIFADDR, &other));
}

fn masks() {
    say!("its own: {} {}", set(LO, SIOCSIFNETMASK, [255, 0, 0, 0]), told(SIOCGIFNETMASK));
    for mask in [[255, 0, 255, 0], [0, 0, 0, 1], [0, 255, 0, 0]] {
        say!("{mask:?}: {} {}", set(LO, SIOCSIFNETMASK, mask), told(SIOCGIFNETMASK));
    }
    say!("nowhere: {}", set("nothing", SIOCSIFNETMASK, [255, 0, 0, 0]));
}

fn others() {
    say!("broadcast: {} {}", set(LO, SIOCSIFBRDADDR, [0; 4]), told(SIOCGIFBRDADDR));
    say!("the other end: {} {}", set(LO, SIOCSIFDSTADDR, [127, 0, 0, 1]), told(SIOCGIFDSTADDR));
    say!("hardware: {}", set(LO, SIOCSIFHWADDR, [1; 4]));
}

fn numbers() {
    say!("mtu: {} {}", number(SIOCSIFMTU, 65_536), number(SIOCSIFMTU, -1));
    say!("metric: {}", number(SIOCSIFMETRIC, 1));
    say!("queue: {} {}", number(SIOCSIFTXQLEN, 1000), number(SIOCSIFTXQLEN, -1));
    for cmd in [SIOCSIFMTU, SIOCSIFMETRIC, SIOCSIFTXQLEN, SIOCSIFFLAGS] {
        say!("nowhere: {} bad: {}", ask(cmd, &request("nothing")), sys!(SYS_ioctl, socket(SOCK_DGRAM), cmd, 8));
    }
}

fn who() {
    process::as_plain_user(|| {
        for cmd in [SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFBRDADDR, SIOCSIFDSTADDR] {
            say!("{}", set(LO, cmd, [127, 0, 0, 1]));
        }
        for cmd in [SIOCSIFMTU, SIOCSIFMETRIC, SIOCSIFTXQLEN, SIOCSIFFLAGS, SIOCSIFHWADDR] {
            say!("{}", ask(cmd, &request(LO)));
        }
        let entry: rtentry = zeroed();
        say!("routes: {} {}", route(SIOCADDRT, &entry), route(SIOCDELRT, &entry));
    });
}

fn route(cmd: u64, entry: &rtentry) -> Ret {
    let fd = socket(SOCK_DGRAM);
    let ret = sys!(SYS_ioctl, fd, cmd, entry);
    crate::file::close(fd);
    ret
}

fn entry(to: [u8; 4], mask: [u8; 4], gateway: [u8; 4], flags: u16) -> rtentry {
    let mut entry: rtentry = zeroed();
    (entry.rt_dst, entry.rt_genmask, entry.rt_gateway) = (end(to), end(mask), end(gateway));
    entry.rt_flags = flags;
    entry
}

fn routes() {
    let (net, mask) = ([198, 51, 100, 0], [255, 255, 255, 0]);
    say!("unreachable: {}", route(SIOCADDRT, &entry(net, mask, [203, 0, 113, 1], RTF_UP | RTF_GATEWAY)));
    say!("not there: {}", route(SIOCDELRT, &entry(net, mask, [203, 0, 113, 1], RTF_UP | RTF_GATEWAY)));
    say!("not there: {}", route(SIOCDELRT, &entry([0; 4], [0; 4], [0; 4], RTF_UP)));
    say!("no gateway: {}", route(SIOCADDRT, &entry(net, mask, [0; 4], RTF_UP | RTF_GATEWAY)));
    say!("a host: {}", route(SIOCDELRT, &entry([198, 51, 100, 7], [0; 4], [0; 4], RTF_UP | RTF_HOST)));
}

fn bad_routes() {
    let (net, mask) = ([198, 51, 100, 0], [255, 255, 255, 0]);
    say!("bad memory: {}", sys!(SYS_ioctl, socket(SOCK_DGRAM), SIOCADDRT, 8));
    for mask in [[255, 0, 255, 0], [255, 255, 0, 0], [0; 4]] {
        say!("{mask:?}: {}", route(SIOCADDRT, &entry(net, mask, [203, 0, 113, 1], RTF_UP)));
    }
    let mut other = entry(net, mask, [203, 0, 113, 1], RTF_UP);
    other.rt_dst.sa_family = AF_INET6 as u16;
    say!("of another family: {}", route(SIOCADDRT, &other));
    let mut other = entry(net, mask, [203, 0, 113, 1], RTF_UP);
    other.rt_genmask.sa_family = AF_INET6 as u16;
    say!("a mask of another family: {}", route(SIOCADDRT, &other));
    let mut other = entry(net, mask, [203, 0, 113, 1], RTF_UP | RTF_GATEWAY);
    other.rt_dev = c"nothing".as_ptr().cast_mut();
    say!("nowhere: {} {}", route(SIOCADDRT, &other), route(SIOCDELRT, &other));
    other.rt_dev = 8 as *mut c_char;
    say!("a bad name: {}", route(SIOCADDRT, &other));
}

fn neighbours() {
    let fd = socket(SOCK_DGRAM);
    let bytes = [0u8; 68];
    say!("of no family: {} {}", sys!(SYS_ioctl, fd, SIOCSARP, &bytes), sys!(SYS_ioctl, fd, SIOCDARP, &bytes));
    say!("bad memory: {}", sys!(SYS_ioctl, fd, SIOCSARP, 8));
    process::as_plain_user(|| say!("a user: {}", sys!(SYS_ioctl, fd, SIOCSARP, &bytes)));
}

/// Sockets of IPv6 have structures of their own, and nothing to say of addresses of IPv4.
fn of_ip6() {
    for kind in [SOCK_STREAM, SOCK_DGRAM] {
        let fd = sys!(SYS_socket, AF_INET6, kind, 0).fd();
        let mut asked = request(LO);
        asked.ifr_ifru.ifru_addr = end([127, 0, 0, 1]);
        for cmd in [SIOCGIFADDR, SIOCGIFNETMASK, SIOCSIFNETMASK, SIOCGIFBRDADDR, SIOCSIFBRDADDR, SIOCGIFDSTADDR] {
            say!("{cmd:#x}: {}", sys!(SYS_ioctl, fd, cmd, &asked));
        }
        say!("{} {}", sys!(SYS_ioctl, fd, SIOCGIFMTU, &asked), sys!(SYS_ioctl, fd, SIOCGIFINDEX, &asked));
        process::as_plain_user(|| {
            for cmd in [SIOCADDRT, SIOCDELRT, SIOCSIFADDR, SIOCDIFADDR, SIOCSIFDSTADDR] {
                say!("{cmd:#x}: {}", sys!(SYS_ioctl, fd, cmd, &[0u8; 128]));
            }
        });
    }
}
