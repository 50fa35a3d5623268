//! NETLINK_SOCK_DIAG: the sockets of the machine, sock_diag(7).

mod filter;
mod inet;
mod unix;

use linux_raw_sys::netlink as raw;

use self::filter::Filter;
use super::message::{LONGEST, Request, Writer};
use super::work::{Answer, What};
use crate::errno::{Errno, Result};
use crate::net::inet::{AF_INET, AF_INET6};
use crate::net::unix::AF_UNIX;

/// SOCK_DIAG_BY_FAMILY, and SOCK_DESTROY, which ends connections.
const BY_FAMILY: u32 = 20;
/// TCPDIAG_GETSOCK.
const OLD: u32 = 18;
const DESTROY: u32 = 21;
/// AF_MAX of Linux 6.1.
const FAMILIES: u8 = 46;
/// INET_DIAG_NOCOOKIE: the request is about any socket that fits.
const NO_COOKIE: [u32; 2] = [u32::MAX; 2];

/// `progress`: how far the request has come, if it was begun before.
pub fn handle(request: &Request<'_>, port: u32, progress: &mut usize) -> Result<Answer> {
    match u32::from(request.header.kind) {
        BY_FAMILY => {}
        // As from a kernel without them. The others are requests of old programs about TCP only.
        OLD..BY_FAMILY | DESTROY => return Err(Errno::EOPNOTSUPP),
        _ => return Err(Errno::EINVAL),
    }
    // struct sock_diag_req: family, protocol.
    let family = request.head::<[u8; 2]>()?[0];
    let many = request.has(raw::NLM_F_DUMP);
    if family >= FAMILIES {
        return Err(Errno::EINVAL);
    }
    match u16::from(family) {
        AF_INET | AF_INET6 if many => Ok(Answer::Many(What::Sockets(inet::list(request)?))),
        AF_UNIX if many => Ok(Answer::Many(What::Sockets(unix::list(request)?))),
        AF_INET | AF_INET6 | AF_UNIX => {
            let mut out = Writer::new(LONGEST, request.header.seq, port)?;
            if u16::from(family) == AF_UNIX {
                unix::answer(request, &mut out)?;
            } else if !inet::answer(request, progress, &mut out)? {
                return Ok(Answer::Later);
            }
            Ok(Answer::One(out))
        }
        // As from a kernel without what shows them.
        _ => Err(Errno::ENOENT),
    }
}

/// A list of sockets.
pub enum List {
    Inet(inet::Wanted, Filter),
    Unix(unix::Wanted),
}

impl List {
    /// Why there is nothing: this is told at the end.
    pub fn errno(&self) -> Option<Errno> {
        if let List::Inet(wanted, _) = self { wanted.table().err() } else { None }
    }

    /// `at`: the part of the table, and which of it are done. False: there is more to look at, in another turn.
    pub fn fill(&self, at: &mut (usize, usize), out: &mut Writer) -> bool {
        match self {
            List::Inet(wanted, filter) => inet::fill(wanted, filter, at, out),
            List::Unix(wanted) => unix::fill(wanted, at, out),
        }
    }
}

/// The number of its inode is what tells a socket from all others.
fn cookie(inode: u64) -> [u32; 2] {
    [inode as u32, (inode >> 32) as u32]
}

/// ESTALE: the socket that was meant is not there any more, this is another one.
fn check_cookie(wanted: [u32; 2], inode: u64) -> Result<()> {
    if wanted == NO_COOKIE || wanted == cookie(inode) { Ok(()) } else { Err(Errno::ESTALE) }
}
