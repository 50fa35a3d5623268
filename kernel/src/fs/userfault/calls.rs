//! The ioctls of userfaultfd(2), with the checks of Linux 6.1 in their order (ioctl_userfaultfd(2)).

use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering;

use linux_raw_sys::general as raw;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{API, BEGUN, FEATURES, UserFault};
use crate::errno::{Errno, Result};
use crate::exec;
use crate::mm::space::VmaFlags;
use crate::mm::{AddressSpace, Fill, PAGE_SIZE, USER_END, UserPtr};
use crate::process::Thread;
use crate::signal;

const PAGE: u64 = PAGE_SIZE as u64;
/// No mapping is below this address (vm.mmap_min_addr).
const LOWEST: u64 = crate::mm::space::MMAP_MIN_ADDR;

const UFFDIO_API: u32 = 0xc018_aa3f;
const UFFDIO_REGISTER: u32 = 0xc020_aa00;
const UFFDIO_UNREGISTER: u32 = 0x8010_aa01;
const UFFDIO_WAKE: u32 = 0x8010_aa02;
const UFFDIO_COPY: u32 = 0xc028_aa03;
const UFFDIO_ZEROPAGE: u32 = 0xc020_aa04;
const UFFDIO_CONTINUE: u32 = 0xc020_aa07;

const fn bit(number: u32) -> u64 {
    1 << number
}

/// The calls that are there before a range is registered, and those for ranges.
pub const API_IOCTLS: u64 = bit(raw::_UFFDIO_REGISTER) | bit(raw::_UFFDIO_UNREGISTER) | bit(raw::_UFFDIO_API);
pub const RANGE_IOCTLS: u64 =
    bit(raw::_UFFDIO_WAKE) | bit(raw::_UFFDIO_COPY) | bit(raw::_UFFDIO_ZEROPAGE) | bit(raw::_UFFDIO_CONTINUE);

const MODE_MISSING: u64 = 1;
const MODE_MINOR: u64 = 4;
/// UFFDIO_COPY_MODE_DONTWAKE, and the same bit of the other calls.
const DONTWAKE: u64 = 1;
/// UFFDIO_COPY_MODE_WP: the page is to be write-protected, for which no range can be registered.
const PROTECTED: u64 = 2;

#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct ApiArgs {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct RangeArgs {
    start: u64,
    len: u64,
}

/// UFFDIO_REGISTER, UFFDIO_ZEROPAGE, UFFDIO_CONTINUE: the last word, which is the answer, is not read.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct ModeArgs {
    range: RangeArgs,
    mode: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
struct CopyArgs {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
}

impl RangeArgs {
    /// Whole pages of user memory, and not none.
    fn check(self) -> Result<Range<u64>> {
        let RangeArgs { start, len } = self;
        let aligned = (start | len) & (PAGE - 1) == 0;
        if !aligned || len == 0 || !(LOWEST..USER_END).contains(&start) || len > USER_END - start {
            return Err(Errno::EINVAL);
        }
        Ok(start..start + len)
    }
}

/// Where the page of an address comes from.
enum Source<'a> {
    /// The caller's memory, at this distance.
    Memory(&'a AddressSpace, u64),
    Zero,
    Cached,
}

impl UserFault {
    pub(super) async fn call(&self, t: &Thread, cmd: u32, arg: u64) -> Result<u64> {
        if cmd == UFFDIO_API {
            return self.begin(t, arg).await;
        }
        if !self.begun() {
            return Err(Errno::EINVAL);
        }
        match cmd {
            UFFDIO_REGISTER => self.register(t, arg).await,
            UFFDIO_UNREGISTER => {
                let range = UserPtr::<RangeArgs>::new(arg).read(t.mm()).await?.check()?;
                self.space.upgrade().ok_or(Errno::ENOMEM)?.unwatch_faults(range)?;
                Ok(0)
            }
            UFFDIO_WAKE => {
                let range = UserPtr::<RangeArgs>::new(arg).read(t.mm()).await?.check()?;
                self.answer(range);
                Ok(0)
            }
            UFFDIO_COPY => self.copy(t, arg).await,
            UFFDIO_ZEROPAGE => self.provide(t, arg, Source::Zero).await,
            UFFDIO_CONTINUE => self.provide(t, arg, Source::Cached).await,
            _ => Err(Errno::EINVAL),
        }
    }

    async fn begin(&self, t: &Thread, arg: u64) -> Result<u64> {
        let pointer = UserPtr::<ApiArgs>::new(arg);
        let asked = pointer.read(t.mm()).await?;
        let known = asked.api == API && asked.features & !FEATURES == 0;
        if known {
            let offer = ApiArgs { api: API, features: FEATURES, ioctls: API_IOCTLS };
            pointer.write(t.mm(), offer).await?;
            let begun = asked.features | BEGUN;
            if self.features.compare_exchange(0, begun, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Ok(0);
            }
        }
        pointer.write(t.mm(), ApiArgs::default()).await?;
        Err(Errno::EINVAL)
    }

    async fn register(&self, t: &Thread, arg: u64) -> Result<u64> {
        let ModeArgs { range, mode } = UserPtr::<ModeArgs>::new(arg).read(t.mm()).await?;
        if mode == 0 || mode & !(MODE_MISSING | MODE_MINOR) != 0 {
            return Err(Errno::EINVAL);
        }
        let range = range.check()?;
        let mut modes = VmaFlags::empty();
        modes.set(VmaFlags::WATCH_MISSING, mode & MODE_MISSING != 0);
        modes.set(VmaFlags::WATCH_MINOR, mode & MODE_MINOR != 0);
        self.space.upgrade().ok_or(Errno::ENOMEM)?.watch_faults(range, modes, &self.watcher)?;
        let without = if mode & MODE_MINOR == 0 { bit(raw::_UFFDIO_CONTINUE) } else { 0 };
        UserPtr::<u64>::new(arg + size_of::<ModeArgs>() as u64).write(t.mm(), RANGE_IOCTLS & !without).await?;
        Ok(0)
    }

    async fn copy(&self, t: &Thread, arg: u64) -> Result<u64> {
        let CopyArgs { dst, src, len, mode } = UserPtr::<CopyArgs>::new(arg).read(t.mm()).await?;
        let range = RangeArgs { start: dst, len }.check()?;
        let ends = src.checked_add(len).is_some_and(|end| end > src);
        if !ends || mode & !(DONTWAKE | PROTECTED) != 0 {
            return Err(Errno::EINVAL);
        }
        let answer = arg + size_of::<CopyArgs>() as u64;
        self.fill(t, range, Source::Memory(t.mm(), src.wrapping_sub(dst)), mode, answer).await
    }

    async fn provide(&self, t: &Thread, arg: u64, source: Source<'_>) -> Result<u64> {
        let ModeArgs { range, mode } = UserPtr::<ModeArgs>::new(arg).read(t.mm()).await?;
        let range = range.check()?;
        if mode & !DONTWAKE != 0 {
            return Err(Errno::EINVAL);
        }
        self.fill(t, range, source, mode, arg + size_of::<ModeArgs>() as u64).await
    }

    /// Fills a range from its start on, as far as it goes; how far, or the error, goes to `answer` as well.
    async fn fill(&self, t: &Thread, range: Range<u64>, source: Source<'_>, mode: u64, answer: u64) -> Result<u64> {
        let space = self.space.upgrade().ok_or(Errno::ESRCH)?;
        let wanted = range.end - range.start;
        let mut done = 0;
        let mut result = space.check_watched(&range);
        if result == Err(Errno::ESRCH) {
            return Err(Errno::ESRCH);
        }
        if mode & PROTECTED != 0 && result.is_ok() {
            result = Err(Errno::EINVAL);
        }
        let mut bytes = Vec::new();
        if matches!(source, Source::Memory(..)) {
            bytes.try_reserve_exact(PAGE_SIZE).map_err(|_| Errno::ENOMEM)?;
            bytes.resize(PAGE_SIZE, 0);
        }
        while result.is_ok() && done < wanted {
            result = fill_page(&space, range.start + done, &source, &mut bytes).await;
            if result.is_ok() {
                done += PAGE;
            }
            exec::budget().await;
            if signal::fatal_pending(t.task()) {
                result = Err(Errno::EINTR);
            }
        }
        let told = match result {
            Err(errno) if done == 0 => -i64::from(errno.get()),
            _ => done as i64,
        };
        UserPtr::<i64>::new(answer).write(t.mm(), told).await?;
        if done == 0 {
            result?;
        }
        if mode & DONTWAKE == 0 {
            self.answer(range.start..range.start + done);
        }
        if done == wanted { Ok(0) } else { Err(Errno::EAGAIN) }
    }
}

async fn fill_page(space: &AddressSpace, addr: u64, source: &Source<'_>, bytes: &mut [u8]) -> Result<()> {
    let fill = match source {
        Source::Memory(mm, distance) => {
            UserPtr::<u8>::new(addr.wrapping_add(*distance)).read_bytes(mm, bytes).await?;
            Fill::Bytes(bytes)
        }
        Source::Zero => Fill::Zero,
        Source::Cached => Fill::Cached,
    };
    space.fill_page(addr, fill).await
}
