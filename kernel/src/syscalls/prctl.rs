//! prctl(2).

use core::sync::atomic::Ordering::Relaxed;

use crate::errno::{Errno, Result};
use crate::mm::UserPtr;
use crate::process::{Caps, Thread};

const SET_PDEATHSIG: i32 = 1;
const GET_PDEATHSIG: i32 = 2;
const GET_DUMPABLE: i32 = 3;
const SET_DUMPABLE: i32 = 4;
const GET_KEEPCAPS: i32 = 7;
const SET_KEEPCAPS: i32 = 8;
const GET_TIMING: i32 = 13;
const SET_TIMING: i32 = 14;
const SET_NAME: i32 = 15;
const GET_NAME: i32 = 16;
const GET_SECCOMP: i32 = 21;
const CAPBSET_READ: i32 = 23;
const CAPBSET_DROP: i32 = 24;
const GET_SECUREBITS: i32 = 27;
const SET_SECUREBITS: i32 = 28;
const SET_TIMERSLACK: i32 = 29;
const GET_TIMERSLACK: i32 = 30;
const TASK_PERF_EVENTS_DISABLE: i32 = 31;
const TASK_PERF_EVENTS_ENABLE: i32 = 32;
const SET_CHILD_SUBREAPER: i32 = 36;
const GET_CHILD_SUBREAPER: i32 = 37;
const SET_NO_NEW_PRIVS: i32 = 38;
const GET_NO_NEW_PRIVS: i32 = 39;
const GET_TID_ADDRESS: i32 = 40;
const SET_THP_DISABLE: i32 = 41;
const GET_THP_DISABLE: i32 = 42;
const CAP_AMBIENT: i32 = 47;

const SECBIT_KEEP_CAPS: u32 = 1 << 4;
/// Bits of SECBIT_* and their locks.
const SECUREBITS_ALL: u32 = 0xff;

pub async fn prctl(t: &mut Thread, option: i32, a2: u64, a3: u64, a4: u64, a5: u64) -> Result<u64> {
    let process = t.process().clone();
    match option {
        SET_PDEATHSIG if a2 > 64 => Err(Errno::EINVAL),
        SET_PDEATHSIG => {
            t.parent_death_signal.store(a2 as u32, Relaxed);
            Ok(0)
        }
        GET_PDEATHSIG => store(t, a2, t.parent_death_signal.load(Relaxed)).await,
        GET_DUMPABLE => Ok(process.dumpable.load(Relaxed) as u64),
        SET_DUMPABLE if a2 > 1 => Err(Errno::EINVAL),
        SET_DUMPABLE => {
            process.dumpable.store(a2 as u32, Relaxed);
            Ok(0)
        }
        GET_TIMING => Ok(0),
        SET_TIMING if a2 == 0 => Ok(0),
        SET_NAME => set_name(t, a2).await,
        GET_NAME => UserPtr::<u8>::new(a2).write_bytes(t.mm(), &t.comm()).await.map(|()| 0),
        GET_SECCOMP => Ok(0),
        SET_CHILD_SUBREAPER => {
            process.child_subreaper.store(a2 != 0, Relaxed);
            Ok(0)
        }
        GET_CHILD_SUBREAPER => store(t, a2, process.child_subreaper.load(Relaxed) as u32).await,
        GET_TID_ADDRESS => {
            let address = t.clear_child_tid.load(Relaxed);
            UserPtr::<u64>::new(a2).write(t.mm(), address).await.map(|()| 0)
        }
        GET_TIMERSLACK => Ok(t.timer_slack.load(Relaxed)),
        SET_TIMERSLACK => {
            let slack = if (a2 as i64) <= 0 { t.default_timer_slack.load(Relaxed) } else { a2 };
            t.timer_slack.store(slack, Relaxed);
            Ok(0)
        }
        GET_THP_DISABLE if a2 | a3 | a4 | a5 == 0 => Ok(t.mm().limits.no_blocks.load(Relaxed).into()),
        SET_THP_DISABLE if a3 | a4 | a5 == 0 => {
            t.mm().limits.no_blocks.store(a2 != 0, Relaxed);
            Ok(0)
        }
        SET_THP_DISABLE | GET_THP_DISABLE => Err(Errno::EINVAL),
        // There are no performance events to switch.
        TASK_PERF_EVENTS_DISABLE | TASK_PERF_EVENTS_ENABLE => Ok(0),
        GET_KEEPCAPS | SET_KEEPCAPS | CAPBSET_READ | CAPBSET_DROP | GET_SECUREBITS | SET_SECUREBITS
        | SET_NO_NEW_PRIVS | GET_NO_NEW_PRIVS | CAP_AMBIENT => credentials(t, option, [a2, a3, a4, a5]),
        _ => Err(Errno::EINVAL),
    }
}

async fn store(t: &Thread, to: u64, value: u32) -> Result<u64> {
    UserPtr::<u32>::new(to).write(t.mm(), value).await.map(|()| 0)
}

async fn set_name(t: &Thread, from: u64) -> Result<u64> {
    let mut name = [0; 16];
    // At most 16 bytes, and no further than the NUL: the rest of the page may not be mapped.
    for (offset, byte) in name.iter_mut().enumerate() {
        *byte = UserPtr::<u8>::new(from.wrapping_add(offset as u64)).read(t.mm()).await?;
        if *byte == 0 {
            break;
        }
    }
    let len = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    t.set_comm(&name[..len]);
    Ok(0)
}

/// What changes or asks credentials.
fn credentials(t: &mut Thread, option: i32, args: [u64; 4]) -> Result<u64> {
    let [a2, a3, a4, a5] = args;
    let mut new = (**t.creds()).clone();
    match option {
        GET_KEEPCAPS => return Ok((new.securebits & SECBIT_KEEP_CAPS != 0) as u64),
        SET_KEEPCAPS if a2 > 1 => return Err(Errno::EINVAL),
        SET_KEEPCAPS if new.securebits & (SECBIT_KEEP_CAPS << 1) != 0 => return Err(Errno::EPERM),
        SET_KEEPCAPS => {
            new.securebits &= !SECBIT_KEEP_CAPS;
            new.securebits |= if a2 == 1 { SECBIT_KEEP_CAPS } else { 0 };
        }
        CAPBSET_READ => return Ok(new.cap_bounding.contains(one_cap(a2)?) as u64),
        CAPBSET_DROP => {
            if !new.capable(Caps::SETPCAP) {
                return Err(Errno::EPERM);
            }
            new.cap_bounding.remove(one_cap(a2)?);
        }
        GET_SECUREBITS => return Ok(new.securebits as u64),
        SET_SECUREBITS => {
            // Odd bits lock the bit below them.
            let locked = new.securebits >> 1 & 0x55;
            let changed = (new.securebits ^ a2 as u32) & locked;
            let unlocks = new.securebits & 0xaa & !(a2 as u32);
            if changed != 0 || unlocks != 0 || a2 as u32 & !SECUREBITS_ALL != 0 || !new.capable(Caps::SETPCAP) {
                return Err(Errno::EPERM);
            }
            new.securebits = a2 as u32;
        }
        GET_NO_NEW_PRIVS if a2 | a3 | a4 | a5 != 0 => return Err(Errno::EINVAL),
        GET_NO_NEW_PRIVS => return Ok(new.no_new_privs as u64),
        SET_NO_NEW_PRIVS if a2 != 1 || a3 | a4 | a5 != 0 => return Err(Errno::EINVAL),
        SET_NO_NEW_PRIVS => new.no_new_privs = true,
        _ => return ambient(t, args),
    }
    t.set_creds(new);
    Ok(0)
}

fn one_cap(number: u64) -> Result<Caps> {
    1u64.checked_shl(number.min(64) as u32).and_then(Caps::from_bits).ok_or(Errno::EINVAL)
}

fn ambient(t: &mut Thread, [action, cap, a4, a5]: [u64; 4]) -> Result<u64> {
    const IS_SET: u64 = 1;
    const RAISE: u64 = 2;
    const LOWER: u64 = 3;
    const CLEAR_ALL: u64 = 4;
    const SECBIT_NO_CAP_AMBIENT_RAISE: u32 = 1 << 6;
    let mut new = (**t.creds()).clone();
    if a4 | a5 != 0 {
        return Err(Errno::EINVAL);
    }
    match action {
        CLEAR_ALL if cap != 0 => return Err(Errno::EINVAL),
        CLEAR_ALL => new.cap_ambient = Caps::empty(),
        IS_SET => return Ok(new.cap_ambient.contains(one_cap(cap)?) as u64),
        LOWER => new.cap_ambient.remove(one_cap(cap)?),
        RAISE => {
            let cap = one_cap(cap)?;
            let allowed = new.cap_permitted.contains(cap) && new.cap_inheritable.contains(cap);
            if !allowed || new.securebits & SECBIT_NO_CAP_AMBIENT_RAISE != 0 {
                return Err(Errno::EPERM);
            }
            new.cap_ambient.insert(cap);
        }
        _ => return Err(Errno::EINVAL),
    }
    t.set_creds(new);
    Ok(0)
}
