//! INET_DIAG_REQ_BYTECODE: a small program that says which sockets are wanted, `struct inet_diag_bc_op` of linux/inet_diag.h.
//!
//! Each operation looks at something and goes on some bytes ahead: `yes` if it is so, `no` if not. At the end of the program
//! the socket is wanted; beyond it, it is not.

use alloc::vec::Vec;
use core::net::IpAddr;

use zerocopy::FromBytes;

use crate::errno::{Errno, Result};
use crate::net::card::Cidr;
use crate::net::inet::{AF_INET, AF_INET6, Endpoint, Row};
use crate::net::netlink::message::to_ip;

/// Bytes of an operation, and of the longest program.
const OPERATION: usize = 4;
const LONGEST: usize = 4096;
/// INET_DIAG_BC_*.
const NOP: u8 = 0;
const JUMP: u8 = 1;
const FROM_PORT_AT_LEAST: u8 = 2;
const FROM_PORT_AT_MOST: u8 = 3;
const TO_PORT_AT_LEAST: u8 = 4;
const TO_PORT_AT_MOST: u8 = 5;
const FROM_IS: u8 = 7;
const TO_IS: u8 = 8;
const FROM_PORT_IS: u8 = 11;
const TO_PORT_IS: u8 = 12;

#[derive(Default)]
pub struct Filter(Vec<u8>);

/// `struct inet_diag_bc_op`.
#[derive(Clone, Copy)]
struct Operation {
    code: u8,
    yes: usize,
    no: usize,
}

fn operation(bytes: &[u8]) -> Option<Operation> {
    let [code, yes, no @ ..] = *bytes.first_chunk::<OPERATION>()?;
    Some(Operation { code, yes: yes.into(), no: u16::from_ne_bytes(no).into() })
}

impl Filter {
    /// EINVAL: it does not end, or wants to know something else.
    pub fn parse(program: &[u8]) -> Result<Filter> {
        if program.len() > LONGEST {
            return Err(Errno::EINVAL);
        }
        let mut rest = program;
        while !rest.is_empty() {
            let Operation { code, yes, no } = operation(rest).ok_or(Errno::EINVAL)?;
            let least = match code {
                NOP | JUMP => OPERATION,
                FROM_PORT_AT_LEAST..=TO_PORT_AT_MOST | FROM_PORT_IS | TO_PORT_IS => 2 * OPERATION,
                FROM_IS | TO_IS => OPERATION + condition_size(rest)?,
                _ => return Err(Errno::EINVAL),
            };
            let good = |step: usize| step >= least && step.is_multiple_of(OPERATION) && step <= rest.len() + OPERATION;
            if !good(yes) || code != NOP && !good(no) {
                return Err(Errno::EINVAL);
            }
            rest = rest.get(yes..).ok_or(Errno::EINVAL)?;
        }
        Ok(Filter(program.to_vec()))
    }

    pub fn admits(&self, row: &Row) -> bool {
        let mut rest = &self.0[..];
        while let Some(Operation { code, yes, no }) = operation(rest) {
            let port = rest.get(6..8).and_then(|port| port.first_chunk()).map_or(0, |port| u16::from_ne_bytes(*port));
            let holds = match code {
                NOP => true,
                JUMP => false,
                FROM_PORT_AT_LEAST => row.local.port >= port,
                FROM_PORT_AT_MOST => row.local.port <= port,
                TO_PORT_AT_LEAST => row.remote.port >= port,
                TO_PORT_AT_MOST => row.remote.port <= port,
                FROM_PORT_IS => row.local.port == port,
                TO_PORT_IS => row.remote.port == port,
                FROM_IS => is(rest, row.local),
                _ => is(rest, row.remote),
            };
            // At least one operation ahead, so it comes to an end.
            let step = if holds { yes } else { no }.max(OPERATION);
            match rest.get(step..) {
                Some(ahead) => rest = ahead,
                None => return false,
            }
        }
        rest.is_empty()
    }
}

/// Bytes of the `struct inet_diag_hostcond` behind an operation: family, length of the prefix, port, address.
fn condition_size(rest: &[u8]) -> Result<usize> {
    let (family, prefix) = (rest.get(4).copied().ok_or(Errno::EINVAL)?, rest.get(5).copied().unwrap_or(0));
    let size: usize = match u16::from(family) {
        0 => 0,
        AF_INET => 4,
        AF_INET6 => 16,
        _ => return Err(Errno::EINVAL),
    };
    if usize::from(prefix) > 8 * size || rest.len() < OPERATION + 8 + size { Err(Errno::EINVAL) } else { Ok(8 + size) }
}

fn is(rest: &[u8], end: Endpoint) -> bool {
    let [family, prefix] = [4, 5].map(|at| rest.get(at).copied().unwrap_or(0));
    let port = rest.get(8..).and_then(|port| i32::read_from_prefix(port).ok()).map_or(-1, |(port, _)| port);
    if port != -1 && port != i32::from(end.port) {
        return false;
    }
    let own = match (u16::from(family), end.ip) {
        (AF_INET6, IpAddr::V4(ip)) => IpAddr::V6(ip.to_ipv6_mapped()),
        (_, ip) => ip,
    };
    prefix == 0 || to_ip(rest.get(12..).unwrap_or(&[]), family).is_ok_and(|ip| Cidr { ip, prefix }.contains(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(local: u16) -> Row {
        let end = |port| Endpoint { ip: IpAddr::from([127, 0, 0, 1]), port };
        Row {
            family: AF_INET,
            local: end(local),
            remote: end(9),
            state: 1,
            sending: 0,
            receiving: 0,
            backlog: 0,
            shut: 0,
            only_v6: false,
            uid: 0,
            inode: 0,
        }
    }

    #[test]
    fn ports_and_addresses_are_compared() {
        let program = [FROM_PORT_IS, 8, 12, 0, 0, 0, 80, 0];
        let filter = Filter::parse(&program).unwrap();
        assert!(filter.admits(&row(80)) && !filter.admits(&row(81)));
        let address = |last| [FROM_IS, 16, 20, 0, AF_INET as u8, 32, 0, 0, 255, 255, 255, 255, 127, 0, 0, last];
        assert!(Filter::parse(&address(1)).unwrap().admits(&row(80)));
        assert!(!Filter::parse(&address(2)).unwrap().admits(&row(80)));
    }

    #[test]
    fn what_would_not_end_or_leads_out_is_refused() {
        for program in [
            &[NOP, 0, 0, 0][..],
            &[JUMP, 4, 0, 0],
            &[NOP, 3, 0, 0],
            &[NOP, 8, 0, 0],
            &[NOP, 4, 0],
            &[FROM_PORT_IS, 4, 4, 0],
            &[FROM_IS, 16, 16, 0, 2, 33, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[200, 4, 4, 0],
        ] {
            assert!(Filter::parse(program).is_err(), "{program:?}");
        }
        assert!(Filter::parse(&[]).unwrap().admits(&row(1)));
    }
}
