//! File systems that are made or changed step by step: the files of fsopen(2) and fspick(2).
//!
//! A [`Configuration`] collects options, makes the instance, hands it out to be mounted once, and serves to change it
//! afterwards. What went wrong can be read from it, a message at a time.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::any::Any;

use super::file::{Events, FileOps, TryError};
use super::inode::FileSystem;
use super::mount::{self, Instance};
use super::{Ctx, DeviceId, FsType, MountRequest, OpenFile};
use crate::errno::{Errno, Result};
use crate::exec::Mutex;
use crate::mm::IoBuf;
use crate::sync::SpinLock;

/// Bytes of options at most, as mount(2) takes them.
const OPTIONS_MAX: usize = crate::mm::PAGE_SIZE;
/// Messages that are kept; older ones go first.
const MESSAGES_MAX: usize = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Options of a new instance.
    New,
    /// It is there and waits for its mount.
    Made,
    /// It has been mounted, or picked: options that change it.
    Change,
    Failed,
}

struct State {
    phase: Phase,
    source: Option<Vec<u8>>,
    /// The options so far, with commas between.
    options: Vec<u8>,
    read_only: Option<bool>,
    instance: Option<Arc<Instance>>,
}

pub struct Configuration {
    fs_type: FsType,
    state: Mutex<State>,
    messages: SpinLock<VecDeque<Vec<u8>>>,
}

impl Configuration {
    /// For a new instance; ENODEV if there is no such type.
    pub fn create(type_name: &[u8]) -> Result<Arc<Configuration>> {
        let fs_type = super::find_type(type_name).ok_or(Errno::ENODEV)?;
        Ok(Configuration::with(fs_type, Phase::New, None))
    }

    /// To change an instance that there is.
    pub fn pick(instance: Arc<Instance>) -> Result<Arc<Configuration>> {
        let fs_type = super::find_type(instance.fs().type_name().as_bytes()).ok_or(Errno::EOPNOTSUPP)?;
        Ok(Configuration::with(fs_type, Phase::Change, Some(instance)))
    }

    fn with(fs_type: FsType, phase: Phase, instance: Option<Arc<Instance>>) -> Arc<Configuration> {
        let state = State { phase, source: None, options: Vec::new(), read_only: None, instance };
        Arc::new(Configuration { fs_type, state: Mutex::new(state), messages: SpinLock::new(VecDeque::new()) })
    }

    fn say(&self, parts: &[&[u8]]) {
        let mut messages = self.messages.lock();
        if messages.len() == MESSAGES_MAX {
            messages.pop_front();
        }
        messages.push_back(parts.concat());
    }

    fn complain(&self, parts: &[&[u8]]) {
        let name = self.fs_type.name.as_bytes();
        self.say(&[&[b"e ", name, b": "], parts, &[b"\n"]].concat());
    }

    /// An option, perhaps with a value.
    pub async fn set(&self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let mut state = self.state.lock().await;
        if !matches!(state.phase, Phase::New | Phase::Change) {
            return Err(Errno::EBUSY);
        }
        self.set_in(&mut state, key, value)
    }

    fn set_in(&self, state: &mut State, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        match (key, value) {
            (b"ro", _) => state.read_only = Some(true),
            (b"rw", _) => state.read_only = Some(false),
            // What is the case anyway; where nothing is stored, everything is synchronous.
            (b"lazytime" | b"nolazytime", _) => {}
            (b"async" | b"sync" | b"dirsync", _) if !self.fs_type.needs_device => {}
            (b"async" | b"sync" | b"dirsync", _) => self.add_option(state, key, None)?,
            (b"source", Some(value)) if state.source.is_none() => state.source = Some(value.into()),
            (b"source", Some(_)) => {
                self.complain(&[b"Multiple sources"]);
                return Err(Errno::EINVAL);
            }
            (b"source", None) => {
                self.complain(&[b"Non-string source"]);
                return Err(Errno::EINVAL);
            }
            _ => self.add_option(state, key, value)?,
        }
        Ok(())
    }

    fn add_option(&self, state: &mut State, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let mut option = key.to_vec();
        if let Some(value) = value {
            option.push(b'=');
            option.extend_from_slice(value);
        }
        let known = !key.is_empty() && !option.contains(&b',') && (self.fs_type.check)(&option).is_ok();
        if !known {
            self.complain(&[b"Unknown parameter '", key, b"'"]);
            return Err(Errno::EINVAL);
        }
        if state.options.len() + option.len() + 1 > OPTIONS_MAX {
            return Err(Errno::ENOMEM);
        }
        if !state.options.is_empty() {
            state.options.push(b',');
        }
        state.options.extend_from_slice(&option);
        Ok(())
    }

    /// What became of an option that is a blob, a path or a descriptor, as none of any file system is: Linux's overlayfs
    /// takes text only, and has another error for that.
    pub fn refuse_other(&self) -> Errno {
        if self.fs_type.name == super::overlay::NAME { Errno::EOPNOTSUPP } else { Errno::EINVAL }
    }

    /// Makes the instance, for `ctx`. `device_of` finds the device that the source names.
    pub async fn make(
        &self,
        ctx: Ctx<'_>,
        device_of: impl AsyncFnOnce(&[u8]) -> Result<Option<DeviceId>>,
    ) -> Result<()> {
        let mut state = self.state.lock().await;
        if state.phase != Phase::New {
            return Err(Errno::EBUSY);
        }
        // Whatever ends it early leaves it failed.
        state.phase = Phase::Failed;
        let source = state.source.clone();
        if self.fs_type.needs_device && source.is_none() {
            self.say(&[b"e No source specified\n"]);
            return Err(Errno::EINVAL);
        }
        let source = source.unwrap_or_else(|| b"none".to_vec());
        let device = if self.fs_type.needs_device { device_of(&source).await? } else { None };
        let read_only = state.read_only == Some(true);
        let request = MountRequest { source: &source, device, read_only, data: &state.options, ctx };
        let fs = super::instance_of_type(self.fs_type, request).await?;
        let instance = mount::take_up(fs, read_only).await?;
        if read_only && !instance.fs().read_only() {
            instance.fs().set_read_only(true).await?;
        }
        state.instance = Some(instance);
        state.phase = Phase::Made;
        Ok(())
    }

    /// Hands the instance out for its mount: EINVAL if there is none yet, EBUSY if it has been handed out.
    pub async fn take(&self) -> Result<Arc<Instance>> {
        let mut state = self.state.lock().await;
        let instance = state.instance.clone().ok_or(Errno::EINVAL)?;
        if state.phase != Phase::Made {
            return Err(Errno::EBUSY);
        }
        state.phase = Phase::Change;
        (state.source, state.read_only) = (None, None);
        state.options.clear();
        Ok(instance)
    }

    /// Changes the instance as the options say.
    pub async fn change(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        let Some(instance) = state.instance.clone().filter(|_| state.phase == Phase::Change) else {
            return Err(Errno::EBUSY);
        };
        state.phase = Phase::Failed;
        let options = core::mem::take(&mut state.options);
        let read_only = state.read_only.take();
        reconfigure(&instance, read_only, &options, async || ()).await?;
        state.phase = Phase::Change;
        Ok(())
    }
}

/// Changes a whole file system (a remount). What may be wrong with the options is seen before anything is changed. EBUSY if
/// it is to become read-only and has writers, or a file that was removed and is in use; nobody can become a writer from then
/// on. `then` is called before anybody can write again.
pub async fn reconfigure(
    instance: &Instance,
    read_only: Option<bool>,
    options: &[u8],
    then: impl AsyncFnOnce(),
) -> Result<()> {
    let _turn = instance.lock().await;
    let fs = instance.fs();
    check_options(&**fs, options)?;
    let ends_writing = read_only == Some(true) && !fs.read_only();
    let _held = ends_writing.then(|| instance.writers().hold()).transpose()?;
    if ends_writing && fs.has_removed().await {
        return Err(Errno::EBUSY);
    }
    fs.reconfigure(options)?;
    if ends_writing {
        // As in Linux, files that cannot be stored tell it themselves.
        let _ = crate::mm::page_cache::sync_device(fs.stored_on().encode()).await;
    }
    if let Some(read_only) = read_only {
        fs.set_read_only(read_only).await?;
    }
    then().await;
    Ok(())
}

/// EINVAL for an option that the type of the file system does not know.
fn check_options(fs: &dyn FileSystem, options: &[u8]) -> Result<()> {
    let Some(fs_type) = super::find_type(fs.type_name().as_bytes()) else { return Ok(()) };
    let mut options = options.split(|byte| *byte == b',').filter(|option| !option.is_empty());
    options.try_for_each(fs_type.check)
}

impl FileOps for Configuration {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn try_read(&self, _file: &OpenFile, buf: &mut IoBuf<'_>, _pos: u64) -> Result<usize, TryError> {
        let mut messages = self.messages.lock();
        let Some(message) = messages.front() else { return Err(Errno::ENODATA.into()) };
        if message.len() > buf.remaining() {
            return Err(Errno::EMSGSIZE.into());
        }
        let moved = buf.copy_to(message)?;
        messages.pop_front();
        Ok(moved)
    }

    fn ready(&self) -> Events {
        Events::IN | Events::OUT | Events::RDNORM | Events::WRNORM
    }
}
