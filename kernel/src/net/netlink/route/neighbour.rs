//! RTM_GETNEIGH: who is on the wires.

use linux_raw_sys::netlink as raw;
use zerocopy::IntoBytes;

use super::address::family_of;
use super::{Cursor, INET, INET6, List, NEW_NEIGHBOUR, NeighbourHead, must_be_zero};
use crate::errno::{Errno, Result};
use crate::exec::Instant;
use crate::net::card::{Neighbour, Port};
use crate::net::interface;
use crate::net::netlink::message::{Request, Writer};

const HEAD: usize = size_of::<NeighbourHead>();
/// NUD_REACHABLE, NTF_PROXY, RTN_UNICAST.
const REACHABLE: u16 = raw::NUD_REACHABLE as u16;
const PROXY: u8 = raw::NTF_PROXY as u8;
const UNICAST: u8 = raw::RTN_UNICAST as u8;

pub fn list(request: &Request<'_>, family: u8) -> Result<List> {
    let mut list = List::new(fill, family);
    let Ok(head) = request.head::<NeighbourHead>() else {
        return if request.strict { Err(Errno::EINVAL) } else { Ok(list) };
    };
    if head.flags == PROXY {
        // Of those there are none.
        list.family = super::BRIDGE;
    }
    let [a, b, c] = head.pad;
    must_be_zero(request, &[(a | b | c).into(), head.state.into(), (head.flags & !PROXY).into(), head.kind.into()])?;
    must_be_zero(request, &[head.index])?;
    for (kind, data) in request.attributes(HEAD) {
        let number = data.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)).ok_or(Errno::ERANGE);
        match u32::from(kind) {
            kind if kind == raw::NDA_IFINDEX as u32 => {
                list.index = number?;
                list.flags |= super::FILTERED;
            }
            // No interface is part of another one.
            kind if kind == raw::NDA_MASTER as u32 => list.family = super::BRIDGE,
            _ if request.strict => return Err(Errno::EINVAL),
            _ => {}
        }
    }
    Ok(list)
}

fn fill(list: &List, cursor: &mut Cursor<'_>) {
    let now = Instant::now();
    for port in interface::cards() {
        if list.index != 0 && list.index != port.index() as u32 {
            continue;
        }
        for known in port.neighbours(now) {
            let family = family_of(known.ip);
            if (list.family == 0 || list.family == family) && cursor.next() {
                write(cursor.out, list.flags, &port, known);
                cursor.end();
            }
        }
    }
}

pub fn answer(request: &Request<'_>, family: u8, out: &mut Writer) -> Result<()> {
    let head = request.head::<NeighbourHead>()?;
    let wanted = match family {
        INET | INET6 => request.attributes(HEAD).address(raw::NDA_DST as u16, family)?.ok_or(Errno::EINVAL)?,
        _ => return Err(Errno::EINVAL),
    };
    super::find(head.index)?;
    let port = interface::cards().into_iter().find(|port| port.index() as u32 == head.index).ok_or(Errno::ENOENT)?;
    let known = port.neighbours(Instant::now()).into_iter().find(|known| known.ip == wanted);
    write(out, 0, &port, known.ok_or(Errno::ENOENT)?);
    out.end();
    Ok(())
}

fn write(out: &mut Writer, flags: u32, port: &Port, known: Neighbour) {
    let (family, index) = (family_of(known.ip), port.index() as u32);
    let head = NeighbourHead { family, pad: [0; 3], index, state: REACHABLE, flags: 0, kind: UNICAST };
    out.begin(NEW_NEIGHBOUR, flags, head.as_bytes());
    out.ip(raw::NDA_DST as u32, known.ip);
    out.attribute(raw::NDA_LLADDR as u32, &known.mac);
}
