//! RTM_GETRULE: which tables are asked for a route, and in which order. There are those that Linux begins with, and no others.

use linux_raw_sys::netlink as raw;

use super::{Cursor, INET, INET6, List, NEW_RULE};
use crate::errno::{Errno, Result};
use crate::net::netlink::message::Request;

/// sizeof(struct fib_rule_hdr).
const HEAD: usize = 12;
/// FR_ACT_TO_TBL, RTPROT_KERNEL.
const TO_TABLE: u8 = 1;
const BY_KERNEL: u8 = 2;
/// Priorities and tables: local, main, default, which IPv6 has not.
const RULES: [(u32, u8); 3] = [(0, 255), (32_766, 254), (32_767, 253)];

pub fn list(request: &Request<'_>, family: u8) -> Result<List> {
    if !matches!(family, 0 | INET | INET6) {
        return Err(Errno::EAFNOSUPPORT);
    }
    let wrong = request.body.len() != HEAD || request.body.iter().skip(1).any(|byte| *byte != 0);
    if request.strict && wrong { Err(Errno::EINVAL) } else { Ok(List::new(fill, family)) }
}

fn fill(list: &List, cursor: &mut Cursor<'_>) {
    for family in [INET, INET6].into_iter().filter(|family| list.wants(*family)) {
        let count = if family == INET { 3 } else { 2 };
        for (priority, table) in RULES.into_iter().take(count) {
            if !cursor.next() {
                continue;
            }
            let head = [family, 0, 0, 0, table, 0, 0, TO_TABLE, 0, 0, 0, 0];
            cursor.out.begin(NEW_RULE, list.flags, &head);
            cursor.out.number(raw::FRA_TABLE as u32, table.into());
            cursor.out.number(raw::FRA_SUPPRESS_PREFIXLEN as u32, u32::MAX);
            cursor.out.byte(raw::FRA_PROTOCOL as u32, BY_KERNEL);
            if priority != 0 {
                cursor.out.number(raw::FRA_PRIORITY as u32, priority);
            }
            cursor.end();
        }
    }
}
