//! Messages of netlink sockets, byte by byte.

use libc::*;

use crate::say;
use crate::sys::{Ret, sys};

pub const DUMP: u16 = (NLM_F_REQUEST | NLM_F_DUMP) as u16;
pub const REQUEST: u16 = NLM_F_REQUEST as u16;
pub const ACK: u16 = (NLM_F_REQUEST | NLM_F_ACK) as u16;
pub const LO: u32 = 1;
const SEQ: u32 = 7;

pub fn make(protocol: i32) -> i32 {
    sys!(SYS_socket, AF_NETLINK, SOCK_RAW, protocol).fd()
}

pub fn route() -> i32 {
    make(NETLINK_ROUTE)
}

pub fn set(fd: i32, option: i32, value: i32) -> Ret {
    sys!(SYS_setsockopt, fd, SOL_NETLINK, option, &value, 4)
}

/// sockaddr_nl.
pub fn address(port: u32, groups: u32) -> [u32; 3] {
    [AF_NETLINK as u32, port, groups]
}

/// Port and groups of a name.
pub fn name_by(call: i64, fd: i32) -> (Ret, u32, u32) {
    let (mut name, mut length) = ([0u32; 3], 12);
    let ret = crate::sys::raw(call, &[fd as usize, (&raw mut name) as usize, (&raw mut length) as usize]);
    (ret, name[1], name[2])
}

pub fn own_port(fd: i32) -> u32 {
    name_by(SYS_getsockname, fd).1
}

pub fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(SEQ.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

pub fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + data.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// ifinfomsg.
pub fn link_head(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut head = vec![0; 4];
    [index, flags, change].iter().for_each(|word| head.extend(word.to_ne_bytes()));
    head
}

/// ifaddrmsg.
pub fn address_head(family: i32, prefix: u8, index: u32) -> Vec<u8> {
    let mut head = vec![family as u8, prefix, 0, 0];
    head.extend(index.to_ne_bytes());
    head
}

/// rtmsg.
pub fn route_head(family: i32, prefix: u8, table: u8, protocol: u8, scope: u8, kind: u8) -> Vec<u8> {
    vec![family as u8, prefix, 0, 0, table, protocol, scope, kind, 0, 0, 0, 0]
}

pub fn submit(fd: i32, bytes: &[u8]) -> Ret {
    sys!(SYS_sendto, fd, bytes, bytes.len(), 0, 0, 0)
}

pub fn send_to(fd: i32, port: u32, groups: u32, bytes: &[u8]) -> Ret {
    sys!(SYS_sendto, fd, bytes, bytes.len(), 0, &address(port, groups), 12)
}

/// A datagram, without waiting for one.
pub fn receive(fd: i32) -> Result<Vec<u8>, Ret> {
    let mut bytes = vec![0u8; 65_536];
    let ret = sys!(SYS_recvfrom, fd, bytes.as_mut_slice().as_ptr(), bytes.len(), MSG_DONTWAIT, 0, 0);
    if !ret.ok() {
        return Err(ret);
    }
    bytes.truncate(ret.0 as usize);
    Ok(bytes)
}

pub struct Message {
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    pub port: u32,
    pub body: Vec<u8>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |bytes| u32::from_ne_bytes(bytes.try_into().unwrap_or_default()))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    word(bytes, at & !3).to_ne_bytes()[at & 2..].first_chunk().map_or(0, |bytes| u16::from_ne_bytes(*bytes))
}

pub fn split(mut bytes: &[u8]) -> Vec<Message> {
    let mut all = Vec::new();
    while bytes.len() >= 16 {
        let len = word(bytes, 0) as usize;
        let Some(body) = bytes.get(16..len) else { break };
        let (kind, flags) = (half(bytes, 4), half(bytes, 6));
        all.push(Message { kind, flags, seq: word(bytes, 8), port: word(bytes, 12), body: body.to_vec() });
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or(&[]);
    }
    all
}

impl Message {
    pub fn attributes(&self, head: usize) -> Vec<(u16, Vec<u8>)> {
        let mut rest = self.body.get(head..).unwrap_or(&[]);
        let mut all = Vec::new();
        while rest.len() >= 4 {
            let len = usize::from(half(rest, 0));
            let Some(data) = rest.get(4..len) else { break };
            all.push((half(rest, 2) & 0x3fff, data.to_vec()));
            rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        }
        all
    }

    pub fn attribute(&self, head: usize, wanted: u16) -> Option<Vec<u8>> {
        self.attributes(head).into_iter().find(|(kind, _)| *kind == wanted).map(|(_, data)| data)
    }

    pub fn head(&self, len: usize) -> &[u8] {
        self.body.get(..len).unwrap_or(&self.body)
    }

    /// An error or the end of a list, and to what it is the answer.
    pub fn verdict(&self) -> String {
        let errno = word(&self.body, 0) as i32;
        let what = if errno == 0 { "done".into() } else { crate::sys::errno_name(-errno) };
        match i32::from(self.kind) {
            NLMSG_ERROR => {
                let (len, kind) = (word(&self.body, 4), half(&self.body, 8));
                let more = self.body.len() - 20;
                format!("acknowledged: {what}, of {kind} with {len}, {more} more, flags {:x}", self.flags)
            }
            NLMSG_DONE => format!("the end: {what}, flags {:x}", self.flags),
            kind => format!("a message {kind}, flags {:x}", self.flags),
        }
    }
}

/// All that comes in answer to a request, and the datagrams in which it came.
pub fn ask(fd: i32, bytes: &[u8]) -> Vec<Message> {
    let sent = submit(fd, bytes);
    if !sent.ok() {
        say!("not sent: {sent}");
    }
    all(fd)
}

pub fn all(fd: i32) -> Vec<Message> {
    let mut all = Vec::new();
    loop {
        match receive(fd) {
            Ok(bytes) => all.extend(split(&bytes)),
            Err(ret) if ret.errno() == EAGAIN => return all,
            Err(ret) => {
                say!("not received: {ret}");
                return all;
            }
        }
    }
}

/// What is said of a request.
pub fn verdict(fd: i32, bytes: &[u8]) -> String {
    let answers = ask(fd, bytes);
    if answers.is_empty() {
        return "nothing".into();
    }
    answers.iter().map(Message::verdict).collect::<Vec<_>>().join("; ")
}

/// The same of a change: "done", or the error.
pub fn outcome(fd: i32, kind: u16, flags: i32, body: &[u8]) -> String {
    let answers = ask(fd, &message(kind, ACK | flags as u16, body));
    let last = answers.iter().rfind(|answer| i32::from(answer.kind) == NLMSG_ERROR);
    last.map_or("nothing".into(), |answer| match word(&answer.body, 0) as i32 {
        0 => "done".into(),
        errno => crate::sys::errno_name(-errno),
    })
}
