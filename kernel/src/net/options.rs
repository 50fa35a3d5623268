//! Socket options of the level SOL_SOCKET: socket(7).

use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;

use linux_raw_sys::net as raw;
use zerocopy::{FromBytes, IntoBytes};

use super::device;
use super::limits::{self, MIN_RECEIVE, MIN_SEND};
use super::socket::{Common, Socket, Switches};
use crate::errno::{Errno, Result};
use crate::fs::open_file::WRITE_EVENTS;
use crate::process::{Caps, Thread};
use crate::time::UserTimeval;

/// The options that are the same in both of their forms on 64-bit machines.
const TIMEOUTS: [(u32, bool); 4] = [(20, true), (21, false), (66, true), (67, false)];

/// Twice as much fits an int.
const MOST_FORCED: u32 = i32::MAX as u32 / 2;

fn switch_of(option: u32) -> Option<Switches> {
    let bit = 1u32.checked_shl(option)?;
    Switches::from_bits(bit)
}

fn timeout_of(option: u32, common: &Common) -> Option<&core::sync::atomic::AtomicU64> {
    let (_, receive) = TIMEOUTS.iter().find(|(number, _)| *number == option)?;
    Some(if *receive { &common.receive_timeout } else { &common.send_timeout })
}

/// Is it one of those that ask for the time at which something came? Each of them turns off the others.
fn is_times(option: u32, socket: &dyn Socket) -> bool {
    const TIMES: [u32; 4] =
        [raw::SO_TIMESTAMP_OLD, raw::SO_TIMESTAMPNS_OLD, raw::SO_TIMESTAMP_NEW, raw::SO_TIMESTAMPNS_NEW];
    TIMES.contains(&option) && socket.has_times()
}

/// The value of an option, in full; the caller cuts it to the room that the program has.
pub fn get(socket: &dyn Socket, option: u32) -> Result<Vec<u8>> {
    let common = socket.common();
    if is_times(option, socket) {
        return Ok(i32::from(common.times.load(Ordering::Relaxed) == option).as_bytes().to_vec());
    }
    if let Some(switch) = switch_of(option) {
        return Ok(i32::from(common.is_on(switch)).as_bytes().to_vec());
    }
    if let Some(timeout) = timeout_of(option, common) {
        return Ok(UserTimeval::from_nanos(timeout.load(Ordering::Relaxed)).as_bytes().to_vec());
    }
    let int = match option {
        raw::SO_DEBUG => 0,
        raw::SO_TYPE => common.kind.raw(),
        raw::SO_DOMAIN => common.family.into(),
        raw::SO_PROTOCOL => common.protocol.into(),
        raw::SO_ERROR => common.take_error().map_or(0, |errno| errno.get() as u32),
        raw::SO_SNDBUF => common.send_buffer.load(Ordering::Relaxed),
        raw::SO_RCVBUF => common.receive_buffer.load(Ordering::Relaxed),
        raw::SO_RCVLOWAT => common.receive_low.load(Ordering::Relaxed),
        raw::SO_SNDLOWAT => 1,
        raw::SO_PRIORITY => common.priority.load(Ordering::Relaxed),
        raw::SO_MARK => common.mark.load(Ordering::Relaxed),
        raw::SO_LOCK_FILTER if socket.takes_filters() => common.filter.is_locked().into(),
        raw::SO_ACCEPTCONN => socket.is_listening().into(),
        raw::SO_LINGER => {
            let (on, seconds) = *common.linger.lock();
            return Ok([i32::from(on), seconds].as_bytes().to_vec());
        }
        raw::SO_BINDTODEVICE => return device::name(common),
        raw::SO_BINDTOIFINDEX => common.device() as u32,
        raw::SO_PEERCRED => return Ok(socket.peer_creds().as_bytes().to_vec()),
        raw::SO_PEERGROUPS => {
            let groups = socket.peer_groups().ok_or(Errno::ENODATA)?;
            return Ok(groups.as_bytes().to_vec());
        }
        _ => return Err(Errno::ENOPROTOOPT),
    };
    Ok(int.as_bytes().to_vec())
}

/// Negative sizes are huge ones, which the limit cuts.
fn buffer_size(wanted: i32, least: u32, most: u32) -> u32 {
    (wanted as u32).min(most).min(MOST_FORCED).saturating_mul(2).max(least)
}

/// Whoever waits for room may find some now.
fn set_send_buffer(socket: &dyn Socket, size: u32) {
    socket.common().send_buffer.store(size, Ordering::Relaxed);
    socket.queue().wake(usize::MAX, WRITE_EVENTS.bits());
}

pub(super) fn set_receive_buffer(socket: &dyn Socket, size: u32) {
    socket.common().receive_buffer.store(size, Ordering::Relaxed);
    socket.receive_buffer_changed();
}

/// Sets an option from the bytes that the program gave.
pub fn set(t: &Thread, socket: &dyn Socket, option: u32, value: &[u8]) -> Result<()> {
    let common = socket.common();
    if let Some(timeout) = timeout_of(option, common) {
        let (time, _) = UserTimeval::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
        timeout.store(timeout_nanos(time)?, Ordering::Relaxed);
        return Ok(());
    }
    if option == raw::SO_BINDTODEVICE {
        return device::bind_by_name(t, socket, value);
    }
    let (int, _) = i32::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
    if is_times(option, socket) {
        common.times.store(if int != 0 { option } else { 0 }, Ordering::Relaxed);
        return Ok(());
    }
    if let Some(switch) = switch_of(option) {
        common.switch(switch, int != 0);
        if option == raw::SO_KEEPALIVE {
            socket.keep_alive_changed();
        }
        return Ok(());
    }
    let privileged = |cap| if t.creds().capable(cap) { Ok(()) } else { Err(Errno::EPERM) };
    match option {
        raw::SO_TYPE | raw::SO_DOMAIN | raw::SO_PROTOCOL | raw::SO_ERROR | raw::SO_ACCEPTCONN | raw::SO_PEERCRED => {
            return Err(Errno::ENOPROTOOPT);
        }
        raw::SO_SNDBUF => set_send_buffer(socket, buffer_size(int, MIN_SEND, limits::SEND_MAX.get())),
        raw::SO_RCVBUF => set_receive_buffer(socket, buffer_size(int, MIN_RECEIVE, limits::RECEIVE_MAX.get())),
        raw::SO_SNDBUFFORCE => {
            privileged(Caps::NET_ADMIN)?;
            set_send_buffer(socket, buffer_size(int.max(0), MIN_SEND, MOST_FORCED));
        }
        raw::SO_RCVBUFFORCE => {
            privileged(Caps::NET_ADMIN)?;
            set_receive_buffer(socket, buffer_size(int.max(0), MIN_RECEIVE, MOST_FORCED));
        }
        raw::SO_RCVLOWAT => {
            let low = if int < 0 { i32::MAX as u32 } else { int.max(1) as u32 };
            socket.set_receive_low(low);
        }
        raw::SO_PRIORITY => {
            if !(0..=6).contains(&int) {
                privileged(Caps::NET_RAW).or_else(|_| privileged(Caps::NET_ADMIN))?;
            }
            common.priority.store(int as u32, Ordering::Relaxed);
        }
        raw::SO_MARK => {
            privileged(Caps::NET_RAW).or_else(|_| privileged(Caps::NET_ADMIN))?;
            common.mark.store(int as u32, Ordering::Relaxed);
        }
        raw::SO_DETACH_FILTER if socket.takes_filters() => common.filter.detach()?,
        raw::SO_LOCK_FILTER if socket.takes_filters() => common.filter.lock(int != 0)?,
        raw::SO_BINDTOIFINDEX => device::bind(t, socket, int)?,
        raw::SO_LINGER => {
            let ([on, seconds], _) = <[i32; 2]>::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
            let mut linger = common.linger.lock();
            // The time stays when it is turned off.
            *linger = if on != 0 { (true, seconds) } else { (false, linger.1) };
        }
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(())
}

/// Nanoseconds; 0, and what is longer than a clock can count, is for ever.
fn timeout_nanos(time: UserTimeval) -> Result<u64> {
    if !(0..1_000_000).contains(&time.usec) {
        return Err(Errno::EDOM);
    }
    let Ok(sec) = u64::try_from(time.sec) else {
        // As on Linux a negative time does not wait at all.
        return Ok(1);
    };
    let nanos = Duration::from_secs(sec).saturating_add(Duration::from_micros(time.usec as u64)).as_nanos();
    Ok(u64::try_from(nanos).unwrap_or(0))
}
