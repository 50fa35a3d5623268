//! The memory devices, mem(4), null(4), full(4), random(4): major 1.

use alloc::sync::Arc;
use core::any::Any;

use super::{register, shared};
use crate::drivers::random;
use crate::errno::{Errno, Result};
use crate::fs::MountFlags;
use crate::fs::file::{FileOps, TryError};
use crate::fs::inode::{DeviceId, FileType};
use crate::fs::op::Op;
use crate::fs::open_file::OpenFile;
use crate::klog;
use crate::mm::shmem::{Access, SharedMemory};
use crate::mm::{IoBuf, PageSource, UserPtr};
use crate::process::Thread;

enum Mem {
    Null,
    Zero,
    Full,
    Random,
    Kmsg,
}

pub fn register_all() {
    let devices = [
        ("null", 3, 0o666, Mem::Null),
        ("zero", 5, 0o666, Mem::Zero),
        ("full", 7, 0o666, Mem::Full),
        ("random", 8, 0o666, Mem::Random),
        ("urandom", 9, 0o666, Mem::Random),
        ("kmsg", 11, 0o644, Mem::Kmsg),
    ];
    for (name, minor, perm, device) in devices {
        register(name, DeviceId::new(1, minor), FileType::CharDevice, perm, shared(Arc::new(device)));
    }
}

/// Data is made this many bytes at a time, so that no call keeps the CPU for long.
const CHUNK: usize = 256;

impl Mem {
    /// Long reads: all that was asked for, faulting pages in, while others get their turn.
    async fn read_all(&self, file: &OpenFile, buf: &mut IoBuf<'_>, pos: u64) -> Result<usize> {
        let mut done = 0;
        while !buf.is_empty() {
            let error = match self.try_read(file, buf, pos) {
                Ok(n) => {
                    done += n;
                    crate::exec::budget().await;
                    continue;
                }
                Err(TryError::Fault(fault)) => match buf.fault_in(&fault).await {
                    Ok(()) => continue,
                    Err(errno) => errno,
                },
                Err(TryError::WouldBlock) => Errno::EAGAIN,
                Err(TryError::Failed(errno)) => errno,
            };
            return if done > 0 { Ok(done) } else { Err(error) };
        }
        Ok(done)
    }

    fn read_random(buf: &mut IoBuf<'_>) -> Result<usize, TryError> {
        let mut done = 0;
        let mut bytes = [0; CHUNK];
        while !buf.is_empty() && done < 64 * 1024 {
            let chunk = bytes.get_mut(..buf.remaining().min(CHUNK)).unwrap_or(&mut []);
            random::fill(chunk);
            match buf.copy_to(chunk) {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(fault) => return Err(fault.into()),
            }
        }
        Ok(done)
    }
}

impl FileOps for Mem {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn is_plain(&self) -> bool {
        matches!(self, Mem::Null | Mem::Zero)
    }

    fn try_read(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        match self {
            Mem::Null => Ok(0),
            Mem::Zero | Mem::Full => {
                let len = buf.remaining().min(1 << 20);
                Ok(buf.zero(len)?)
            }
            Mem::Random => Mem::read_random(buf),
            Mem::Kmsg => Err(TryError::WouldBlock),
        }
    }

    fn read<'a>(&'a self, file: &'a OpenFile, buf: &'a mut IoBuf<'_>, pos: u64) -> Option<Op<'a, Result<usize>>> {
        let endless = matches!(self, Mem::Zero | Mem::Full | Mem::Random);
        (endless && buf.remaining() > CHUNK).then(|| Op::boxed(self.read_all(file, buf, pos)))
    }

    fn try_write(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        let len = buf.remaining();
        match self {
            Mem::Null | Mem::Zero => buf.advance(len),
            Mem::Full => return Err(Errno::ENOSPC.into()),
            Mem::Random => {
                let mut bytes = [0; CHUNK];
                let n = buf.copy_from(&mut bytes)?;
                random::mix(bytes.get(..n).unwrap_or(&[]));
                return Ok(n);
            }
            Mem::Kmsg => {
                let mut bytes = [0; klog::LONGEST_WRITTEN];
                if len > bytes.len() {
                    return Err(Errno::EINVAL.into());
                }
                let n = buf.copy_from(&mut bytes)?;
                let text = alloc::string::String::from_utf8_lossy(bytes.get(..n).unwrap_or(&[]));
                klog::write(&text);
                return Ok(n);
            }
        }
        Ok(len)
    }

    fn splices_from(&self) -> bool {
        matches!(self, Mem::Random)
    }

    fn seekable(&self) -> bool {
        !matches!(self, Mem::Kmsg)
    }

    fn ignores_seek(&self) -> bool {
        true
    }

    fn ioctl<'a>(&'a self, _file: &'a OpenFile, thread: &'a Thread, cmd: u32, arg: u64) -> Op<'a, Result<u64>> {
        const RNDGETENTCNT: u32 = 0x8004_5200;
        match (self, cmd) {
            (Mem::Random, RNDGETENTCNT) => Op::boxed(async move {
                UserPtr::<i32>::new(arg).write(thread.mm(), 256).await?;
                Ok(0)
            }),
            _ => Op::ready(Err(Errno::ENOTTY)),
        }
    }

    fn page_source(&self, file: &Arc<OpenFile>) -> Option<Arc<dyn PageSource>> {
        let access = Access {
            read: file.readable(),
            write: file.readable() && file.writable(),
            execute: !file.path().mount.flags().contains(MountFlags::NOEXEC),
        };
        match self {
            Mem::Zero => Some(SharedMemory::with_access(u64::MAX >> 1, access)),
            _ => None,
        }
    }
}
