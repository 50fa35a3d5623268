//! Clocks, sleeping and timers: clock_gettime(2), nanosleep(2), setitimer(2), timer_create(2) and their kin.

use alloc::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::SysResult;
use crate::errno::{Errno, Result};
use crate::mm::UserPtr;
use crate::process::{Caps, Task, Thread, table};
use crate::signal::{self, SIGALRM};
use crate::time::{
    self, ClockId, Itimer, Setting, SigEvent, Timespec, UserItimerspec, UserItimerval, UserTimespec, UserTimeval,
};

const TIMER_ABSTIME: u32 = 1;
/// USER_HZ, the ticks of times(2).
const TICK: u64 = 10_000_000;

pub async fn clock_gettime(t: &Thread, clock: i32, time: UserPtr<UserTimespec>) -> Result<()> {
    let now = ClockId::from_raw(t, clock)?.now();
    time.write(t.mm(), UserTimespec::from_nanos(now)).await
}

pub fn clock_gettime_now(t: &Thread, clock: i32, time: UserPtr<UserTimespec>) -> Option<Result<()>> {
    let now = ClockId::from_raw(t, clock).ok()?.now();
    time.try_write(&UserTimespec::from_nanos(now)).ok().map(Ok)
}

pub async fn clock_settime(t: &Thread, clock: i32, time: UserPtr<UserTimespec>) -> Result<()> {
    const CLOCK_REALTIME: i32 = 0;
    ClockId::from_raw(t, clock)?;
    if clock != CLOCK_REALTIME {
        return Err(Errno::EINVAL);
    }
    let time = time.read(t.mm()).await?.validate()?;
    set_wall_clock(t, time)
}

fn set_wall_clock(t: &Thread, time: Timespec) -> Result<()> {
    if !t.creds().capable(Caps::SYS_TIME) {
        return Err(Errno::EPERM);
    }
    time::set_realtime(time)
}

pub async fn clock_getres(t: &Thread, clock: i32, resolution: UserPtr<UserTimespec>) -> Result<()> {
    let clock = ClockId::from_raw(t, clock)?;
    match resolution.non_null() {
        Some(resolution) => resolution.write(t.mm(), UserTimespec::from_nanos(clock.resolution())).await,
        None => Ok(()),
    }
}

pub async fn gettimeofday(t: &Thread, time: UserPtr<UserTimeval>, zone: UserPtr<u64>) -> Result<()> {
    if let Some(time) = time.non_null() {
        time.write(t.mm(), UserTimeval::from_nanos(ClockId::Realtime.now())).await?;
    }
    match zone.non_null() {
        // The kernel keeps UTC: minutes west and DST are 0.
        Some(zone) => zone.write(t.mm(), 0).await,
        None => Ok(()),
    }
}

pub async fn settimeofday(t: &Thread, time: UserPtr<UserTimeval>, zone: UserPtr<u64>) -> Result<()> {
    let time = match time.non_null() {
        Some(time) => Some(time.read(t.mm()).await?.validate()?),
        None => None,
    };
    if let Some(zone) = zone.non_null() {
        let minutes_west = zone.read(t.mm()).await? as i32;
        if !(-15 * 60..=15 * 60).contains(&minutes_west) {
            return Err(Errno::EINVAL);
        }
    }
    if !t.creds().capable(Caps::SYS_TIME) {
        return Err(Errno::EPERM);
    }
    time.map_or(Ok(()), |time| set_wall_clock(t, time))
}

pub async fn nanosleep(t: &Thread, time: UserPtr<UserTimespec>, rest: UserPtr<UserTimespec>) -> SysResult<()> {
    let time = time.read(t.mm()).await?.validate()?;
    time::nanosleep(t, ClockId::Monotonic, false, time, rest).await
}

pub async fn clock_nanosleep(
    t: &Thread,
    clock: i32,
    flags: u32,
    time: UserPtr<UserTimespec>,
    rest: UserPtr<UserTimespec>,
) -> SysResult<()> {
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let id = ClockId::from_raw(t, clock)?;
    let own_thread = matches!(&id, ClockId::Thread(task, _) if Arc::ptr_eq(task, t.task()));
    if clock == CLOCK_THREAD_CPUTIME_ID {
        return Err(Errno::EOPNOTSUPP.into());
    }
    if own_thread {
        return Err(Errno::EINVAL.into());
    }
    if matches!(id, ClockId::MonotonicRaw | ClockId::RealtimeCoarse | ClockId::MonotonicCoarse) {
        return Err(Errno::EOPNOTSUPP.into());
    }
    check_alarm(t, &id)?;
    let time = time.read(t.mm()).await?.validate()?;
    time::nanosleep(t, id, flags & TIMER_ABSTIME != 0, time, rest).await
}

fn check_alarm(t: &Thread, clock: &ClockId) -> Result<()> {
    if clock.is_alarm() && !t.creds().capable(Caps::WAKE_ALARM) { Err(Errno::EPERM) } else { Ok(()) }
}

/// `struct tms`.
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Tms {
    utime: u64,
    stime: u64,
    cutime: u64,
    cstime: u64,
}

pub async fn times(t: &Thread, buf: UserPtr<Tms>) -> Result<u64> {
    if let Some(buf) = buf.non_null() {
        let own = t.process().usage();
        let children = *t.process().reaped_children.lock();
        let tms = Tms {
            utime: own.utime / TICK,
            stime: own.stime / TICK,
            cutime: children.utime / TICK,
            cstime: children.stime / TICK,
        };
        buf.write(t.mm(), tms).await?;
    }
    Ok(ClockId::Monotonic.now() / TICK)
}

pub async fn getitimer(t: &Thread, which: i32, value: UserPtr<UserItimerval>) -> Result<()> {
    let setting = t.process().timers.itimer(Itimer::from_raw(which)?);
    value.write(t.mm(), itimerval(setting)).await
}

pub async fn setitimer(t: &Thread, which: i32, new: UserPtr<UserItimerval>, old: UserPtr<UserItimerval>) -> Result<()> {
    let setting = match new.non_null() {
        Some(new) => {
            let new = new.read(t.mm()).await?;
            Setting { value: new.value.validate()?.to_nanos(), interval: new.interval.validate()?.to_nanos() }
        }
        // An extension of Linux: no value disarms.
        None => Setting::default(),
    };
    let which = Itimer::from_raw(which)?;
    let previous = t.process().timers.set_itimer(t.process(), which, setting);
    match old.non_null() {
        Some(old) => old.write(t.mm(), itimerval(previous)).await,
        None => Ok(()),
    }
}

fn itimerval(setting: Setting) -> UserItimerval {
    // Rounded up: a timer that is armed never shows 0.
    let micros = |nanos: u64| UserTimeval::from_nanos(nanos.saturating_add(999));
    UserItimerval { interval: micros(setting.interval), value: micros(setting.value) }
}

fn itimerspec(setting: Setting) -> UserItimerspec {
    UserItimerspec {
        interval: UserTimespec::from_nanos(setting.interval),
        value: UserTimespec::from_nanos(setting.value),
    }
}

/// `struct sigevent`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct UserSigEvent {
    value: u64,
    signo: i32,
    notify: i32,
    tid: i32,
    pad: [u32; 11],
}

impl UserSigEvent {
    pub fn value(&self) -> u64 {
        self.value
    }

    pub fn signo(&self) -> i32 {
        self.signo
    }

    /// SIGEV_*.
    pub fn notify(&self) -> i32 {
        self.notify
    }
}

pub async fn timer_create(t: &Thread, clock: i32, event: UserPtr<UserSigEvent>, id: UserPtr<i32>) -> Result<()> {
    let clock = ClockId::from_raw(t, clock)?;
    check_alarm(t, &clock)?;
    let event = match event.non_null() {
        Some(event) => sig_event(t, event.read(t.mm()).await?)?,
        None => SigEvent::Process { signo: SIGALRM, value: None },
    };
    let timers = &t.process().timers;
    let created = timers.create(t, clock, event)?;
    if let Err(errno) = id.write(t.mm(), created).await {
        let _ = timers.delete(created);
        return Err(errno);
    }
    Ok(())
}

fn sig_event(t: &Thread, event: UserSigEvent) -> Result<SigEvent> {
    const SIGEV_SIGNAL: i32 = 0;
    const SIGEV_NONE: i32 = 1;
    const SIGEV_THREAD: i32 = 2;
    const SIGEV_THREAD_ID: i32 = 4;
    let signo = || if signal::is_valid(event.signo) { Ok(event.signo as u8) } else { Err(Errno::EINVAL) };
    Ok(match event.notify {
        SIGEV_NONE => SigEvent::None,
        SIGEV_SIGNAL | SIGEV_THREAD => SigEvent::Process { signo: signo()?, value: Some(event.value) },
        SIGEV_THREAD_ID => {
            let task: Option<Arc<Task>> = table::find_task(event.tid as u32);
            let task = task.filter(|task| task.process().pid == t.process().pid).ok_or(Errno::EINVAL)?;
            SigEvent::Thread { signo: signo()?, value: event.value, task }
        }
        _ => return Err(Errno::EINVAL),
    })
}

pub async fn timer_settime(
    t: &Thread,
    id: i32,
    flags: u32,
    new: UserPtr<UserItimerspec>,
    old: UserPtr<UserItimerspec>,
) -> Result<()> {
    if new.is_null() {
        return Err(Errno::EINVAL);
    }
    let new = new.read(t.mm()).await?;
    let setting = Setting { value: new.value.validate()?.to_nanos(), interval: new.interval.validate()?.to_nanos() };
    let previous = t.process().timers.settime(id, setting, flags & TIMER_ABSTIME != 0)?;
    match old.non_null() {
        Some(old) => old.write(t.mm(), itimerspec(previous)).await,
        None => Ok(()),
    }
}

pub async fn timer_gettime(t: &Thread, id: i32, value: UserPtr<UserItimerspec>) -> Result<()> {
    let setting = t.process().timers.gettime(id)?;
    value.write(t.mm(), itimerspec(setting)).await
}

pub fn timer_getoverrun(t: &mut Thread, id: i32) -> Result<u32> {
    t.process().timers.getoverrun(id)
}

pub fn timer_delete(t: &mut Thread, id: i32) -> Result<()> {
    t.process().timers.delete(id)
}

/// `struct timex` of adjtimex(2).
#[repr(C)]
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Timex {
    modes: u32,
    pad0: u32,
    offset: i64,
    freq: i64,
    maxerror: i64,
    esterror: i64,
    status: i32,
    pad1: u32,
    constant: i64,
    precision: i64,
    tolerance: i64,
    time: UserTimeval,
    tick: i64,
    ppsfreq: i64,
    jitter: i64,
    shift: i32,
    pad2: u32,
    stabil: i64,
    jitcnt: i64,
    calcnt: i64,
    errcnt: i64,
    stbcnt: i64,
    tai: i32,
    pad3: [u32; 11],
}

const _: () = assert!(size_of::<Timex>() == 208);

const STA_UNSYNC: i32 = 0x40;
/// The clock is not synchronised.
const TIME_ERROR: i32 = 5;

/// Reads the state of the clock; nothing disciplines it, so nothing can be adjusted.
pub async fn adjtimex(t: &Thread, timex: UserPtr<Timex>) -> Result<i32> {
    let request = timex.read(t.mm()).await?;
    if request.modes != 0 {
        return Err(if t.creds().capable(Caps::SYS_TIME) { Errno::EOPNOTSUPP } else { Errno::EPERM });
    }
    let state = Timex {
        maxerror: 16_000_000,
        esterror: 16_000_000,
        status: STA_UNSYNC,
        constant: 2,
        precision: 1,
        tolerance: 32_768_000,
        time: UserTimeval::from_nanos(ClockId::Realtime.now()),
        tick: 10_000,
        ..Timex::default()
    };
    timex.write(t.mm(), state).await?;
    Ok(TIME_ERROR)
}

pub async fn clock_adjtime(t: &Thread, clock: i32, timex: UserPtr<Timex>) -> Result<i32> {
    match ClockId::from_raw(t, clock)? {
        ClockId::Realtime => adjtimex(t, timex).await,
        _ => Err(Errno::EOPNOTSUPP),
    }
}
