//! Messages with a name and control messages: sendmsg(2) and recvmsg(2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libc::*;

use crate::sys::{Ret, sys};

/// `struct sockaddr_in` and `struct sockaddr_in6` by their family; all zero is "-".
pub fn address_of(bytes: &[u8]) -> String {
    let family = bytes.first_chunk().map_or(0, |family| u16::from_ne_bytes(*family));
    let port = bytes.get(2..4).and_then(|port| port.first_chunk()).map_or(0, |port| u16::from_be_bytes(*port));
    let ip: IpAddr = match i32::from(family) {
        AF_INET => Ipv4Addr::from(*bytes[4..].first_chunk::<4>().unwrap_or(&[0; 4])).into(),
        AF_INET6 => Ipv6Addr::from(*bytes[8..].first_chunk::<16>().unwrap_or(&[0; 16])).into(),
        _ if bytes.iter().all(|byte| *byte == 0) => return format!("- {}", bytes.len()),
        _ => return format!("{bytes:?}"),
    };
    format!("{family} {ip} {port} {}", bytes.len())
}

/// `struct sock_extended_err` and who says so.
fn extended_error(data: &[u8]) -> String {
    let word =
        |at: usize| data.get(at..).and_then(|word| word.first_chunk()).map_or(0, |word| u32::from_ne_bytes(*word));
    let Some((head, offender)) = data.split_at_checked(16) else { return format!("{data:?}") };
    format!(
        "{} origin {} type {} code {} pad {} info {} data {} by {}",
        Ret(-i64::from(word(0))),
        head[4],
        head[5],
        head[6],
        head[7],
        word(8),
        word(12),
        address_of(offender)
    )
}

fn control_message(level: i32, kind: i32, data: &[u8]) -> String {
    match (level, kind) {
        (IPPROTO_IP, IP_RECVERR) | (IPPROTO_IPV6, IPV6_RECVERR) => extended_error(data),
        // The time differs from run to run.
        (SOL_SOCKET, _) => format!("{} bytes", data.len()),
        (IPPROTO_IP, IP_ORIGDSTADDR) | (IPPROTO_IPV6, IPV6_ORIGDSTADDR) => {
            format!("{} bytes of {:?}", data.len(), &data[..2])
        }
        _ => format!("{data:?}"),
    }
}

/// What recvmsg(2) answers: lengths and flags, the name, the text, and a line for each control message.
pub fn received(fd: i32, size: usize, room: usize, flags: i32) -> Vec<String> {
    let (mut buffer, mut control, mut name) = (vec![0u8; size.max(1)], [0u64; 64], [0u8; 64]);
    let mut piece = iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: size };
    let mut header =
        [name.as_mut_ptr() as usize, 64, (&raw mut piece) as usize, 1, control.as_mut_ptr() as usize, room, 0];
    let ret = sys!(SYS_recvmsg, fd, &mut header, flags);
    if !ret.ok() {
        return vec![ret.to_string()];
    }
    let text = &buffer[..(ret.0 as usize).min(size)];
    let text = if text.len() > 40 { "long".into() } else { String::from_utf8_lossy(text).escape_default().to_string() };
    let from = match header[1] as u32 {
        64 => "unchanged".into(),
        length => address_of(&name[..length as usize]),
    };
    let mut all = vec![format!("{ret} {text:?} flags {:x} name {from} control {}", header[6] as u32, header[5])];
    let bytes: Vec<u8> = control.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let mut rest = &bytes[..header[5]];
    while rest.len() >= 16 {
        let word = |at: usize| u32::from_ne_bytes(rest[at..at + 4].try_into().unwrap_or_default());
        let (len, level, kind) = (word(0) as usize, word(8) as i32, word(12) as i32);
        let data = &rest[16..len.clamp(16, rest.len())];
        all.push(format!("  {level} {kind}: {}", control_message(level, kind, data)));
        rest = rest.get(len.next_multiple_of(8).max(16)..).unwrap_or(&[]);
    }
    all
}

/// A control message for [`send`].
pub fn control(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
    let mut bytes = (16 + data.len()).to_ne_bytes().to_vec();
    bytes.extend(level.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

/// sendmsg(2) of a text, to the address if there is one, with these control messages.
pub fn send<T>(fd: i32, text: &str, to: Option<&T>, control: &[u8]) -> Ret {
    let piece = iovec { iov_base: text.as_ptr().cast_mut().cast(), iov_len: text.len() };
    let (name, size) = to.map_or((0, 0), |to| (std::ptr::from_ref(to) as usize, size_of::<T>()));
    let header = [name, size, (&raw const piece) as usize, 1, control.as_ptr() as usize, control.len(), 0];
    sys!(SYS_sendmsg, fd, &header, 0)
}
