//! Names of Unix sockets: unix(7), "Address format".

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use alloc::vec::Vec;

use super::UnixSocket;
use crate::errno::{Errno, Result};
use crate::fs::perm::{self, Want};
use crate::fs::{AT_FDCWD, Ctx, FileType, Flags, NewNode, Path, change, lookup};
use crate::net::address;
use crate::net::socket::{Address, Type};
use crate::process::Thread;
use crate::sync::SpinLock;

pub const AF_UNIX: u16 = 1;
/// Bytes of `sun_path`.
const PATH_MAX: usize = 108;

/// What a socket is bound to.
pub enum Name {
    /// As it was given, and the inode that stands for it.
    Path { bytes: Vec<u8>, place: Path },
    /// Bytes after the leading NUL.
    Abstract { bytes: Vec<u8>, kind: Type },
}

/// An address as it was given.
pub enum Given<'a> {
    /// Family only.
    Unnamed,
    Path(&'a [u8]),
    Abstract(&'a [u8]),
}

/// The sockets with abstract names. Names of different types of socket are apart.
static ABSTRACT: SpinLock<AbstractNames> = SpinLock::new(AbstractNames::new());

type AbstractNames = BTreeMap<(Type, Vec<u8>), Weak<UnixSocket>>;

/// Reads an address of the family; EINVAL for anything else.
pub fn parse(bytes: &[u8]) -> Result<Given<'_>> {
    if bytes.len() > 2 + PATH_MAX || address::family(bytes)? != AF_UNIX {
        return Err(Errno::EINVAL);
    }
    Ok(match bytes.get(2..).unwrap_or(&[]) {
        [] => Given::Unnamed,
        [0, name @ ..] => Given::Abstract(name),
        path => Given::Path(path.split(|&byte| byte == 0).next().unwrap_or(path)),
    })
}

/// `struct sockaddr_un` of a name, or of none.
pub fn to_address(name: Option<&Name>) -> Address {
    let mut out = Address::from_slice(&AF_UNIX.to_ne_bytes());
    match name {
        None => {}
        Some(Name::Path { bytes, .. }) => {
            out.extend_from_slice(bytes);
            out.push(0);
        }
        Some(Name::Abstract { bytes, .. }) => {
            out.push(0);
            out.extend_from_slice(bytes);
        }
    }
    out
}

/// Makes the inode of a socket that is being bound.
pub async fn create(t: &Thread, path: &[u8]) -> Result<Name> {
    match change::create(Ctx::of(t), AT_FDCWD, path, NewNode::Socket, 0o777).await {
        Ok(place) => Ok(Name::Path { bytes: path.to_vec(), place }),
        Err(Errno::EEXIST) => Err(Errno::EADDRINUSE),
        Err(errno) => Err(errno),
    }
}

/// Takes an abstract name; EADDRINUSE if it is somebody's.
pub fn claim(socket: &Arc<UnixSocket>, kind: Type, bytes: &[u8]) -> Result<Name> {
    let mut table = ABSTRACT.lock();
    let key = (kind, bytes.to_vec());
    if table.get(&key).is_some_and(|there| there.strong_count() > 0) {
        return Err(Errno::EADDRINUSE);
    }
    table.insert(key, Arc::downgrade(socket));
    Ok(Name::Abstract { bytes: bytes.to_vec(), kind })
}

/// Takes some free abstract name of five hexadecimal digits (autobind).
pub fn claim_any(socket: &Arc<UnixSocket>, kind: Type) -> Result<Name> {
    let mut seed = [0; 4];
    crate::drivers::random::fill(&mut seed);
    let start = u32::from_ne_bytes(seed);
    for offset in 0..=0xf_ffff {
        let text = format!("{:05x}", start.wrapping_add(offset) & 0xf_ffff);
        match claim(socket, kind, text.as_bytes()) {
            Err(Errno::EADDRINUSE) => {}
            result => return result,
        }
    }
    Err(Errno::ENOSPC)
}

/// The socket with this name is gone.
pub fn release(name: &Name, socket: *const UnixSocket) {
    if let Name::Abstract { bytes, kind } = name {
        let mut table = ABSTRACT.lock();
        let key = (*kind, bytes.clone());
        if table.get(&key).is_some_and(|there| core::ptr::eq(there.as_ptr(), socket)) {
            table.remove(&key);
        }
    }
}

/// The socket that an address leads to. ECONNREFUSED: nobody is bound to it; EPROTOTYPE: not a socket of this type.
pub async fn find(t: &Thread, given: Given<'_>, kind: Type) -> Result<Arc<UnixSocket>> {
    match given {
        Given::Unnamed => Err(Errno::EINVAL),
        Given::Abstract(bytes) => {
            let socket = ABSTRACT.lock().get(&(kind, bytes.to_vec())).and_then(Weak::upgrade);
            socket.filter(|socket| !socket.is_closed()).ok_or(Errno::ECONNREFUSED)
        }
        Given::Path(path) => {
            let place = lookup(Ctx::of(t), AT_FDCWD, path, Flags::FOLLOW).await?;
            perm::check(t.creds(), &**place.inode(), Want::WRITE)?;
            if place.dentry.kind() != FileType::Socket {
                return Err(Errno::ECONNREFUSED);
            }
            let socket = place.inode().state().socket().filter(|socket| !socket.is_closed());
            let socket = socket.ok_or(Errno::ECONNREFUSED)?;
            if socket.kind() == kind { Ok(socket) } else { Err(Errno::EPROTOTYPE) }
        }
    }
}
