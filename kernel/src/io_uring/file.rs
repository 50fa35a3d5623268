//! The descriptor of a ring: poll(2), mmap(2), /proc/PID/fdinfo.

use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::fmt::Write;
use core::sync::atomic::Ordering::Relaxed;

use linux_raw_sys::io_uring as raw;

use super::abi::at;
use super::ring::Ring;
use crate::errno::{Errno, Result};
use crate::exec::WaitQueue;
use crate::fs::{Events, FileOps, OpenFile};
use crate::mm::Special;

/// How much of each kind /proc/PID/fdinfo tells of: a program could have millions.
const LISTED: usize = 256;

/// What stands behind the descriptor.
pub struct RingFile {
    pub ring: Arc<Ring>,
}

impl FileOps for RingFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn can_read(&self) -> bool {
        false
    }

    fn ignores_seek(&self) -> bool {
        true
    }

    fn splices_from(&self) -> bool {
        false
    }

    fn splices_to(&self) -> bool {
        false
    }

    fn ready(&self) -> Events {
        let ring = &self.ring;
        let mut events = Events::empty();
        if ring.pending_entries() < ring.sq_entries {
            events |= Events::OUT | Events::WRNORM;
        }
        let overflow = ring.rings.load(at::SQ_FLAGS, Relaxed) & raw::IORING_SQ_CQ_OVERFLOW != 0;
        if ring.waiting_completions() > 0 || overflow || ring.is_deferring() {
            events |= Events::IN | Events::RDNORM;
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.ring.queue)
    }

    fn shared_pages(&self, file: &Arc<OpenFile>, offset: u64) -> Option<Result<Arc<Special>>> {
        const SQ: u64 = raw::IORING_OFF_SQ_RING as u64;
        const CQ: u64 = raw::IORING_OFF_CQ_RING as u64;
        const SQES: u64 = raw::IORING_OFF_SQES as u64;
        let pages = match offset {
            SQ | CQ => &self.ring.rings,
            SQES => &self.ring.sqes,
            _ => return Some(Err(Errno::ENOMEM)),
        };
        Some(Ok(pages.mapping("anon_inode:[io_uring]".into(), file.clone())))
    }

    fn released(&self) {
        self.ring.close();
    }

    fn info(&self) -> String {
        let ring = &self.ring;
        let mut text = String::new();
        let word = |offset| ring.rings.load(offset, Relaxed);
        let (sq_head, sq_tail) = (word(at::SQ_HEAD), word(at::SQ_TAIL));
        let (cq_head, cq_tail) = (word(at::CQ_HEAD), word(at::CQ_TAIL));
        let _ = write!(
            text,
            "SqMask:\t{:#x}\nSqHead:\t{sq_head}\nSqTail:\t{sq_tail}\nCachedSqHead:\t{sq_head}\nCqMask:\t{:#x}\nCqHead:\t{cq_head}\n\
             CqTail:\t{cq_tail}\nCachedCqTail:\t{}\nSQEs:\t{}\nCQEs:\t{}\nSqThread:\t-1\nSqThreadCpu:\t-1\n",
            ring.sq_entries - 1,
            ring.cq_entries - 1,
            ring.cached_tail(),
            sq_tail.wrapping_sub(sq_head),
            cq_tail.wrapping_sub(cq_head),
        );
        let (count, files) = ring.registered.first_files(LISTED);
        let _ = writeln!(text, "UserFiles:\t{count}");
        for (index, file) in files.iter().enumerate() {
            let name = file.as_ref().map(|file| file.path().display(None));
            let name = name.as_deref().map(String::from_utf8_lossy).unwrap_or("<none>".into());
            let _ = writeln!(text, "{index:5}: {name}");
        }
        let buffers = ring.registered.all_buffers();
        let _ = writeln!(text, "UserBufs:\t{}", buffers.len());
        for (index, buffer) in buffers.iter().enumerate().take(LISTED) {
            let _ = writeln!(text, "{index:5}: {:#x}/{}", buffer.addr, buffer.len);
        }
        let personalities = ring.registered.personalities();
        if !personalities.is_empty() {
            text.push_str("Personalities:\n");
            for (id, creds) in personalities.into_iter().take(LISTED) {
                let _ = writeln!(
                    text,
                    "{id:5}\n\tUid:\t{}\t\t{}\t\t{}\t\t{}",
                    creds.uid, creds.euid, creds.suid, creds.fsuid
                );
            }
        }
        text.push_str("PollList:\nCqOverflowList:\n");
        for cqe in ring.backlog(LISTED) {
            let _ = writeln!(text, "  user_data={}, res={}, flags={:x}", cqe.user_data, cqe.res, cqe.flags);
        }
        text
    }
}
