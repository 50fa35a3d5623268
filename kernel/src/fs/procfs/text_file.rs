//! An open file of procfs: text that is made when it is read from its start.

use alloc::string::String;
use alloc::sync::Arc;
use core::any::Any;
use core::sync::atomic::{AtomicUsize, Ordering};

use super::fds;
use super::memory::{self, Memory};
use super::subject::Subject;
use super::text::Text;
use crate::errno::{Errno, Result};
use crate::fs::file::FileOps;
use crate::fs::op::Op;
use crate::fs::open_file::OpenFile;
use crate::mm::{AddressSpace, IoBuf};
use crate::process::Credentials;
use crate::sync::SpinLock;

pub type SubjectText = fn(&Subject, &mut Text) -> Result<()>;
pub type DiscreetText = fn(&Subject, bool, &mut Text) -> Result<()>;
pub type SubjectStore = fn(&Subject, &[u8], &Credentials) -> Result<()>;

/// Makes a text that takes a while.
pub type LongText = for<'a> fn(&'a mut Text) -> Op<'a, ()>;

/// The same of a process.
pub type LongSubjectText = for<'a> fn(&'a Subject, &'a mut Text) -> Op<'a, Result<()>>;

/// Where the text comes from.
pub enum Source {
    System(fn(&mut Text)),
    Long(LongText),
    Setting(fn(&mut Text), fn(&[u8], &Credentials) -> Result<()>),
    Subject(Subject, SubjectText),
    LongSubject(Subject, LongSubjectText),
    /// For those only who may look into the process when they read it.
    Private(Subject, SubjectText),
    /// With whether the reader may look into the process.
    Discreet(Subject, DiscreetText, bool),
    SubjectSetting(Subject, SubjectText, SubjectStore),
    /// What is in another process's memory.
    Memory(Subject, Option<Arc<AddressSpace>>, Memory),
    FdInfo(Subject, i32),
    /// An attribute of sysfs, and of which object.
    Attribute(fn(&str, &mut Text), String),
}

pub struct TextFile {
    source: Source,
    /// Who opened it: whose rights count for writes.
    creds: Arc<Credentials>,
    /// The text of the last read at position 0.
    text: SpinLock<Option<Arc<Kept>>>,
}

/// A text that is kept for the next read, unless all files together keep too much: then it is made anew for each.
struct Kept {
    text: Text,
    counted: bool,
}

/// Bytes that are kept, and the most that may be.
static KEPT: AtomicUsize = AtomicUsize::new(0);
const MAX_KEPT: usize = 16 << 20;

impl Kept {
    fn new(text: Text) -> Arc<Kept> {
        let add = |kept: usize| kept.checked_add(text.size()).filter(|sum| *sum <= MAX_KEPT);
        let counted = KEPT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok();
        Arc::new(Kept { text, counted })
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if self.counted {
            KEPT.fetch_sub(self.text.size(), Ordering::Relaxed);
        }
    }
}

/// The longest setting that can be written.
const MAX_WRITE: usize = 4096;

impl TextFile {
    pub fn new(source: Source, creds: Arc<Credentials>) -> Self {
        TextFile { source, creds, text: SpinLock::new(None) }
    }

    async fn make(&self) -> Result<Text> {
        let mut out = Text::default();
        match &self.source {
            Source::System(text) | Source::Setting(text, _) => text(&mut out),
            Source::Long(text) => text(&mut out).await,
            Source::Subject(subject, text) | Source::SubjectSetting(subject, text, _) => {
                subject.check_exists()?;
                text(subject, &mut out)?;
            }
            Source::LongSubject(subject, text) => {
                subject.check_exists()?;
                text(subject, &mut out).await?;
            }
            Source::Private(subject, text) => {
                subject.check_exists()?;
                subject.check_current().map_err(|_| Errno::EPERM)?;
                text(subject, &mut out)?;
            }
            Source::Discreet(subject, text, may_look) => {
                subject.check_exists()?;
                text(subject, *may_look && subject.check_current().is_ok(), &mut out)?;
            }
            Source::Memory(subject, opened, what) => {
                out.bytes(&memory::read(subject, opened, *what).await?);
            }
            Source::FdInfo(subject, fd) => fds::info(subject, *fd, &mut out)?,
            Source::Attribute(text, about) => text(about, &mut out),
        }
        out.check()?;
        Ok(out)
    }

    async fn read_at(&self, buf: &mut IoBuf<'_>, pos: u64) -> Result<usize> {
        let kept = self.text.lock().clone();
        let text = match kept {
            Some(text) if pos > 0 => text,
            _ => {
                let text = Kept::new(self.make().await?);
                let old = core::mem::replace(&mut *self.text.lock(), text.counted.then(|| text.clone()));
                drop(old);
                text
            }
        };
        let mut total = 0;
        for piece in text.text.pieces(usize::try_from(pos).unwrap_or(usize::MAX)) {
            match buf.copy_all_to(piece).await {
                Ok(moved) => total += moved,
                Err(_) if total > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(total)
    }

    async fn store(&self, buf: &mut IoBuf<'_>) -> Result<usize> {
        let len = buf.remaining();
        if len > MAX_WRITE {
            return Err(Errno::EINVAL);
        }
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            match buf.copy_from(&mut bytes[done..]) {
                Ok(copied) => done += copied,
                Err(fault) => buf.fault_in(&fault).await?,
            }
        }
        match &self.source {
            // A write of nothing sets nothing.
            Source::Setting(..) if bytes.is_empty() => {}
            Source::Setting(_, store) => store(&bytes, &self.creds)?,
            Source::SubjectSetting(subject, _, store) => {
                subject.check_exists()?;
                store(subject, &bytes, &self.creds)?;
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(len)
    }
}

impl FileOps for TextFile {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn read<'a>(&'a self, _file: &'a OpenFile, buf: &'a mut IoBuf<'_>, pos: u64) -> Option<Op<'a, Result<usize>>> {
        Some(Op::boxed(self.read_at(buf, pos)))
    }

    fn write<'a>(&'a self, _file: &'a OpenFile, buf: &'a mut IoBuf<'_>, _pos: u64) -> Option<Op<'a, Result<usize>>> {
        Some(Op::boxed(self.store(buf)))
    }

    fn seekable(&self) -> bool {
        true
    }
}

/// A decimal number that was written to a setting, blanks around it.
pub fn parse(bytes: &[u8]) -> Result<i64> {
    let text = core::str::from_utf8(bytes).map_err(|_| Errno::EINVAL)?;
    text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0').parse().map_err(|_| Errno::EINVAL)
}
