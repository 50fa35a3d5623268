//! An open file of procfs: text that is made when it is read from its start.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

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

/// Where the text comes from.
pub enum Source {
    System(fn(&mut Text)),
    Setting(fn(&mut Text), fn(&[u8], &Credentials) -> Result<()>),
    Subject(Subject, SubjectText),
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
    text: SpinLock<Option<Arc<Vec<u8>>>>,
}

/// The longest setting that can be written.
const MAX_WRITE: usize = 4096;

impl TextFile {
    pub fn new(source: Source, creds: Arc<Credentials>) -> Self {
        TextFile { source, creds, text: SpinLock::new(None) }
    }

    async fn make(&self) -> Result<Vec<u8>> {
        let mut out = Text::default();
        match &self.source {
            Source::System(text) | Source::Setting(text, _) => text(&mut out),
            Source::Subject(subject, text) | Source::SubjectSetting(subject, text, _) => {
                subject.check_exists()?;
                text(subject, &mut out)?;
            }
            Source::Discreet(subject, text, may_look) => {
                subject.check_exists()?;
                text(subject, *may_look, &mut out)?;
            }
            Source::Memory(subject, opened, what) => return memory::read(subject, opened, *what).await,
            Source::FdInfo(subject, fd) => fds::info(subject, *fd, &mut out)?,
            Source::Attribute(text, about) => text(about, &mut out),
        }
        Ok(out.0)
    }

    async fn read_at(&self, buf: &mut IoBuf<'_>, pos: u64) -> Result<usize> {
        let kept = self.text.lock().clone();
        let text = match kept {
            Some(text) if pos > 0 => text,
            _ => {
                let text = Arc::new(self.make().await?);
                *self.text.lock() = Some(text.clone());
                text
            }
        };
        let start = usize::try_from(pos).unwrap_or(usize::MAX).min(text.len());
        let mut rest = &text[start..];
        let mut total = 0;
        while !rest.is_empty() && !buf.is_empty() {
            match buf.copy_to(rest) {
                Ok(copied) => {
                    total += copied;
                    rest = &rest[copied..];
                }
                Err(_) if total > 0 => break,
                Err(fault) => buf.fault_in(&fault).await?,
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
