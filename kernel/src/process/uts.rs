//! The names that uname(2) answers.

use crate::sync::RwSpinLock;

/// __NEW_UTS_LEN: the longest name, in bytes.
pub const MAX_NAME: usize = 64;

/// A name of at most 64 bytes.
#[derive(Clone, Copy)]
pub struct Name {
    bytes: [u8; MAX_NAME],
    len: usize,
}

impl Name {
    const fn new(text: &[u8]) -> Self {
        let mut bytes = [0; MAX_NAME];
        let mut i = 0;
        while i < text.len() {
            bytes[i] = text[i];
            i += 1;
        }
        Name { bytes, len: text.len() }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Cuts what is too long.
    pub fn set(&mut self, text: &[u8]) {
        *self = Name::new(&text[..text.len().min(MAX_NAME)]);
    }
}

pub static HOSTNAME: RwSpinLock<Name> = RwSpinLock::new(Name::new(b"(none)"));
pub static DOMAINNAME: RwSpinLock<Name> = RwSpinLock::new(Name::new(b"(none)"));

pub const SYSNAME: &str = "Linux";
/// The Linux version whose interface is followed, and whose it really is.
pub const RELEASE: &str = concat!("6.1.0-pollux-", env!("CARGO_PKG_VERSION"));
pub const VERSION: &str = "#1 SMP Pollux";
pub const MACHINE: &str = "aarch64";
