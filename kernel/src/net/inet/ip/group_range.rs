//! net.ipv4.ping_group_range: which groups may have ICMP sockets.

use crate::errno::{Errno, Result};
use crate::process::Credentials;
use crate::sync::SpinLock;

/// The first group and the last: at first none.
static RANGE: SpinLock<(u32, u32)> = SpinLock::new(NOBODY);
const NOBODY: (u32, u32) = (1, 0);
/// The largest group there can be.
const LAST: u32 = u32::MAX - 1;

pub fn group_range() -> (u32, u32) {
    *RANGE.lock()
}

/// As text: one number or two. A range that ends before it begins is that of nobody.
pub fn set_group_range(bytes: &[u8]) -> Result<()> {
    let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    let mut numbers = text.split(|c: char| c.is_ascii_whitespace() || c == '\0').filter(|word| !word.is_empty());
    let (mut first, mut last) = group_range();
    for place in [&mut first, &mut last] {
        let Some(word) = numbers.next() else { break };
        *place = word.parse().ok().filter(|number| *number <= LAST).ok_or(Errno::EINVAL)?;
    }
    *RANGE.lock() = if last < first { NOBODY } else { (first, last) };
    Ok(())
}

/// May who has these credentials have an ICMP socket?
pub fn may_ask(creds: &Credentials) -> bool {
    let (first, last) = group_range();
    let within = |group: &u32| (first..=last).contains(group);
    within(&creds.egid) || creds.groups.iter().any(within)
}
