//! What the system calls itself: uname(2), sethostname(2), /proc/sys/kernel, /proc/version.

use arrayvec::ArrayVec;

use crate::errno::{Errno, Result};
use crate::sync::SpinLock;

pub const SYSNAME: &str = "Linux";
/// Programs compare it: it names the Linux whose interface this is, then who provides it.
pub const RELEASE: &str = concat!("6.1.0-pollux-", env!("CARGO_PKG_VERSION"));
pub const VERSION: &str = "#1 SMP Pollux";
pub const MACHINE: &str = "aarch64";

/// __NEW_UTS_LEN: longest host or domain name.
pub const NAME_MAX: usize = 64;
/// `struct new_utsname`: six fields of 65 bytes.
pub const UTSNAME_SIZE: usize = 6 * (NAME_MAX + 1);

type Name = ArrayVec<u8, NAME_MAX>;

struct Names {
    host: Name,
    domain: Name,
}

static NAMES: SpinLock<Option<Names>> = SpinLock::new(None);

#[inline]
fn with<R>(f: impl FnOnce(&mut Names) -> R) -> R {
    let initial = || Names { host: b"(none)".iter().copied().collect(), domain: b"(none)".iter().copied().collect() };
    f(NAMES.lock().get_or_insert_with(initial))
}

fn name_from(bytes: &[u8]) -> Result<Name> {
    Name::try_from(bytes).map_err(|_| Errno::EINVAL)
}

#[inline]
pub fn hostname() -> ArrayVec<u8, NAME_MAX> {
    with(|names| names.host.clone())
}

#[inline]
pub fn domainname() -> ArrayVec<u8, NAME_MAX> {
    with(|names| names.domain.clone())
}

/// EINVAL if it is too long. The caller has checked CAP_SYS_ADMIN.
pub fn set_hostname(name: &[u8]) -> Result<()> {
    let name = name_from(name)?;
    with(|names| names.host = name);
    Ok(())
}

pub fn set_domainname(name: &[u8]) -> Result<()> {
    let name = name_from(name)?;
    with(|names| names.domain = name);
    Ok(())
}

/// What uname(2) copies out.
pub fn utsname() -> [u8; UTSNAME_SIZE] {
    let mut out = [0; UTSNAME_SIZE];
    let (host, domain) = (hostname(), domainname());
    let fields: [&[u8]; 6] =
        [SYSNAME.as_bytes(), &host, RELEASE.as_bytes(), VERSION.as_bytes(), MACHINE.as_bytes(), &domain];
    for (slot, field) in out.chunks_exact_mut(NAME_MAX + 1).zip(fields) {
        let len = field.len().min(NAME_MAX);
        slot[..len].copy_from_slice(&field[..len]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(set_hostname(&[b'x'; 65]), Err(Errno::EINVAL));
        set_hostname(b"host").unwrap();
        let uts = utsname();
        assert!(uts.starts_with(b"Linux\0"));
        assert!(uts[65..].starts_with(b"host\0"));
        assert!(uts[4 * 65..].starts_with(b"aarch64\0"));
        assert!(uts[5 * 65..].starts_with(b"(none)\0"));
    }
}
