//! Files whose content is in the memory of the process: its arguments, environment and auxiliary vector.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::subject::Subject;
use crate::errno::{Errno, Result};
use crate::mm::{AddressSpace, Toucher};

/// What to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Memory {
    Cmdline,
    Environ,
    Auxv,
}

/// Most of it that is shown.
const LIMIT: u64 = 2 << 20;

/// The address space that a file opened now shows; None for a zombie, which has none.
pub fn space_of(subject: &Subject) -> Option<Arc<AddressSpace>> {
    subject.task().ok().and_then(|task| task.handles().mm)
}

/// `opened` is the space at the time of open(2): environment and auxiliary vector stay those of that image, and are
/// empty once nobody lives in it; arguments are those of the current one.
pub async fn read(subject: &Subject, opened: &Option<Arc<AddressSpace>>, what: Memory) -> Result<Vec<u8>> {
    let mm = if what == Memory::Cmdline { space_of(subject) } else { opened.clone() };
    let Some(mm) = mm else { return Ok(Vec::new()) };
    let range = {
        let meta = mm.meta();
        match what {
            Memory::Cmdline => (meta.arg_start, meta.arg_end),
            Memory::Environ => (meta.env_start, meta.env_end),
            Memory::Auxv => return Ok(meta.auxv.iter().flat_map(|word| word.to_le_bytes()).collect()),
        }
    };
    let mut bytes = read_range(&mm, range).await?;
    // A program that wrote its title over the arguments and beyond (setproctitle): the text goes on into the environment.
    if what == Memory::Cmdline && bytes.last().is_some_and(|&last| last != 0) {
        let (env_start, env_end) = {
            let meta = mm.meta();
            (meta.env_start, meta.env_end)
        };
        if env_start == range.1 {
            let more = read_range(&mm, (env_start, env_end)).await?;
            bytes.try_reserve_exact(more.len()).map_err(|_| Errno::ENOMEM)?;
            bytes.extend_from_slice(&more);
        }
        let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
        bytes.truncate(end);
    }
    Ok(bytes)
}

async fn read_range(mm: &AddressSpace, (start, end): (u64, u64)) -> Result<Vec<u8>> {
    let len = end.saturating_sub(start).min(LIMIT) as usize;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| Errno::ENOMEM)?;
    bytes.resize(len, 0);
    let read = mm.read_remote(start, &mut bytes, Toucher::Onlooker).await.unwrap_or(0);
    bytes.truncate(read);
    Ok(bytes)
}
