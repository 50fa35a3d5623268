//! Ancillary data: cmsg(3), `struct cmsghdr` in user memory.

use alloc::sync::Arc;
use alloc::vec::Vec;

use linux_raw_sys::net as raw;
use zerocopy::{FromBytes, IntoBytes};

use super::rights::{self, Rights};
use super::socket::{Extra, Outgoing, Received, Socket, Switches, Ucred};
use crate::errno::{Errno, Result};
use crate::fs::OpenFile;
use crate::io_uring;
use crate::mm::UserPtr;
use crate::net::unix::AF_UNIX;
use crate::process::{self, Caps, Thread};

/// sizeof(struct cmsghdr): length (8 bytes), level, type.
const HEADER: usize = 16;
/// net.core.optmem_max: the most that is read, bytes.
const MAX: u64 = 20_480;

fn is_unix(socket: &dyn Socket) -> bool {
    socket.common().family == AF_UNIX
}

fn align(len: usize) -> usize {
    len.next_multiple_of(8)
}

/// Reads the control messages of sendmsg(2) into `message`.
/// What belongs to Unix sockets is passed over by others.
pub async fn import(
    t: &Thread,
    socket: &dyn Socket,
    address: UserPtr<u8>,
    len: u64,
    message: &mut Outgoing,
) -> Result<()> {
    if len > MAX {
        return Err(Errno::ENOBUFS);
    }
    let bytes = address.read_slice(t.mm(), len as usize, MAX as usize).await?;
    let mut files = Vec::new();
    let mut rest = &bytes[..];
    while rest.len() >= HEADER {
        let (header, _) = rest.split_at(HEADER);
        let size = u64::from_ne_bytes(header[..8].try_into().map_err(|_| Errno::EINVAL)?);
        let level = u32::from_ne_bytes(header[8..12].try_into().map_err(|_| Errno::EINVAL)?);
        let kind = u32::from_ne_bytes(header[12..16].try_into().map_err(|_| Errno::EINVAL)?);
        let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
        let data = rest.get(HEADER..size).ok_or(Errno::EINVAL)?;
        match (level, kind) {
            (raw::SOL_SOCKET, raw::SCM_RIGHTS | raw::SCM_CREDENTIALS) if !is_unix(socket) => {}
            (raw::SOL_SOCKET, raw::SCM_RIGHTS) => import_rights(t, data, &mut files)?,
            (raw::SOL_SOCKET, raw::SCM_CREDENTIALS) => {
                let creds = Ucred::read_from_bytes(data).map_err(|_| Errno::EINVAL)?;
                check_creds(t, creds)?;
                message.creds = Some(creds);
            }
            (raw::SOL_SOCKET, _) => return Err(Errno::EINVAL),
            _ => socket.take_control(message, level, kind, data)?,
        }
        rest = rest.get(align(size)..).unwrap_or(&[]);
    }
    if !files.is_empty() {
        message.rights = Some(Rights::new(t, files)?);
    }
    Ok(())
}

fn import_rights(t: &Thread, data: &[u8], files: &mut Vec<Arc<OpenFile>>) -> Result<()> {
    let (fds, _) = data.as_chunks::<4>();
    if files.len() + fds.len() > rights::MAX {
        return Err(Errno::EINVAL);
    }
    for fd in fds {
        let file = t.files().get(i32::from_ne_bytes(*fd))?;
        // As Linux since 6.7: with a socket that is registered with it, a ring in a message could keep itself alive.
        if io_uring::is_ring(&file) {
            return Err(Errno::EINVAL);
        }
        files.push(file);
    }
    Ok(())
}

/// A thread says who it is, or is allowed to say something else (unix(7)).
fn check_creds(t: &Thread, given: Ucred) -> Result<()> {
    let creds = t.creds();
    let pid = given.pid == t.process().pid || creds.capable(Caps::SYS_ADMIN);
    let uid = [creds.uid, creds.euid, creds.suid].contains(&given.uid) || creds.capable(Caps::SETUID);
    let gid = [creds.gid, creds.egid, creds.sgid].contains(&given.gid) || creds.capable(Caps::SETGID);
    if !(pid && uid && gid) {
        return Err(Errno::EPERM);
    }
    if process::find(given.pid).is_none() { Err(Errno::ESRCH) } else { Ok(()) }
}

/// Control messages for a receiver, as far as its buffer goes.
pub struct Writer {
    to: UserPtr<u8>,
    room: usize,
    used: usize,
    /// MSG_CTRUNC.
    pub truncated: bool,
}

impl Writer {
    /// `to` may be null if `room` is 0.
    pub fn new(to: UserPtr<u8>, room: usize) -> Self {
        Writer { to, room, used: 0, truncated: false }
    }

    /// Bytes written, for msg_controllen.
    pub fn used(&self) -> usize {
        self.used
    }

    fn left(&self) -> usize {
        self.room - self.used
    }

    /// One message; what does not fit is cut off.
    async fn put(&mut self, t: &Thread, level: u32, kind: u32, data: &[u8]) -> Result<()> {
        if self.to.is_null() || self.left() < HEADER {
            self.truncated = true;
            return Ok(());
        }
        let len = (HEADER + data.len()).min(self.left());
        self.truncated |= len < HEADER + data.len();
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&(len as u64).to_ne_bytes());
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(data.get(..len - HEADER).unwrap_or(data));
        self.to.byte_add(self.used as u64).write_bytes(t.mm(), &bytes).await?;
        self.used += align(HEADER + data.len()).min(self.left());
        Ok(())
    }

    /// What came along with a message: first the sender's ids, then the files, as descriptors of the receiver.
    pub async fn put_all(
        &mut self,
        t: &Thread,
        socket: &dyn Socket,
        received: &mut Received,
        cloexec: bool,
    ) -> Result<()> {
        if is_unix(socket) && socket.common().is_on(Switches::PASSCRED) && !received.urgent {
            let creds = received.creds.unwrap_or(Ucred { pid: 0, uid: 65534, gid: 65534 });
            self.put(t, raw::SOL_SOCKET, raw::SCM_CREDENTIALS, creds.as_bytes()).await?;
        }
        if let Some(extras) = received.extras.take() {
            for Extra { level, kind, data } in extras.0 {
                self.put(t, level, kind, &data).await?;
            }
        }
        match received.rights.take() {
            Some(files) => self.put_files(t, files, cloexec).await,
            None => Ok(()),
        }
    }

    async fn put_files(&mut self, t: &Thread, files: Vec<Arc<OpenFile>>, cloexec: bool) -> Result<()> {
        let fit = if self.to.is_null() { 0 } else { self.left().saturating_sub(HEADER) / 4 };
        self.truncated |= fit < files.len();
        let mut fds = Vec::new();
        for file in files.into_iter().take(fit) {
            match t.files().install(file, cloexec) {
                Ok(fd) => fds.push(fd),
                Err(_) => {
                    self.truncated = true;
                    break;
                }
            }
        }
        if fds.is_empty() {
            return Ok(());
        }
        let result = self.put(t, raw::SOL_SOCKET, raw::SCM_RIGHTS, fds.as_bytes()).await;
        if result.is_err() {
            // Descriptors that the program was not told of.
            for fd in fds {
                let _ = t.files().close(fd);
            }
        }
        result
    }
}
