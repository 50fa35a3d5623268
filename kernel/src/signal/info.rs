//! `siginfo_t` (sigaction(2)) as the kernel keeps it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::job::ticks;
use super::set::{self, SigSet};
use crate::process::{ExitStatus, Usage};

pub const SI_USER: i32 = 0;
pub const SI_KERNEL: i32 = 0x80;
pub const SI_QUEUE: i32 = -1;
pub const SI_TIMER: i32 = -2;
pub const SI_MESGQ: i32 = -3;
pub const SI_SIGIO: i32 = -5;
pub const SI_TKILL: i32 = -6;

pub const CLD_EXITED: i32 = 1;
pub const CLD_KILLED: i32 = 2;
pub const CLD_DUMPED: i32 = 3;
pub const CLD_TRAPPED: i32 = 4;
pub const CLD_STOPPED: i32 = 5;
pub const CLD_CONTINUED: i32 = 6;

pub const SEGV_MAPERR: i32 = 1;
pub const SEGV_ACCERR: i32 = 2;

/// Size of `siginfo_t` in user memory. The kernel keeps the first 48 bytes; the rest is zero.
pub const SIGINFO_SIZE: usize = 128;

/// A signal and what is known about it. The union of the C type is `fields`: see the constructors for what it holds.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SigInfo {
    pub signo: i32,
    pub errno: i32,
    pub code: i32,
    /// In memory that its sender keeps for it (a POSIX timer): not counted against a limit. User space sees padding here.
    pub(super) prepaid: u32,
    pub fields: [u64; 4],
}

/// POLL_* codes that there are, which most signals may have.
const NSIGPOLL: i32 = 6;

/// Positive codes of this signal do not mean POLL_*.
const fn has_own_codes(signo: u8) -> bool {
    SigSet::SYNCHRONOUS.contains(signo) || signo == set::SIGCHLD
}

const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

impl SigInfo {
    const fn new(signo: u8, code: i32, fields: [u64; 4]) -> Self {
        SigInfo { signo: signo as i32, errno: 0, code, prepaid: 0, fields }
    }

    /// Sent by the kernel itself (terminal keys, SIGPIPE, …).
    pub const fn kernel(signo: u8) -> Self {
        SigInfo::new(signo, SI_KERNEL, [0; 4])
    }

    /// kill(2) by this process and real user.
    pub const fn user(signo: u8, pid: u32, uid: u32) -> Self {
        SigInfo::new(signo, SI_USER, [pair(pid, uid), 0, 0, 0])
    }

    /// tkill(2), tgkill(2).
    pub const fn tkill(signo: u8, pid: u32, uid: u32) -> Self {
        SigInfo::new(signo, SI_TKILL, [pair(pid, uid), 0, 0, 0])
    }

    /// An exception of the thread's own making at `addr`.
    pub const fn fault(signo: u8, code: i32, addr: u64) -> Self {
        SigInfo::new(signo, code, [addr, 0, 0, 0])
    }

    /// SIGCHLD (or the clone signal): `code` is CLD_*, `status` the exit code or signal, times in clock ticks.
    pub const fn child(signo: u8, code: i32, pid: u32, uid: u32, status: i32, utime: u64, stime: u64) -> Self {
        SigInfo::new(signo, code, [pair(pid, uid), status as u32 as u64, utime, stime])
    }

    /// Expiry of POSIX timer `id`; `value` is its sigev_value.
    pub const fn timer(signo: u8, id: i32, overrun: i32, value: u64) -> Self {
        let info = SigInfo::new(signo, SI_TIMER, [pair(id as u32, overrun as u32), value, 0, 0]);
        SigInfo { prepaid: 1, ..info }
    }

    /// News of descriptor `fd` (fcntl(2), F_SETSIG): `code` is POLL_*, `band` the events of poll. Signals that have codes of
    /// their own get SI_SIGIO instead.
    pub fn io(signo: u8, code: i32, band: u32, fd: i32) -> Self {
        let code = if has_own_codes(signo) { SI_SIGIO } else { code };
        SigInfo::new(signo, code, [band as u64, fd as u32 as u64, 0, 0])
    }

    /// The first message of a queue has come, from this process and real user; `value` is what mq_notify(3) was given.
    pub const fn message(signo: u8, pid: u32, uid: u32, value: u64) -> Self {
        SigInfo::new(signo, SI_MESGQ, [pair(pid, uid), value, 0, 0])
    }

    /// SIGCHLD, or what clone asked for, of a child that has ended.
    pub fn child_exited(signo: u8, pid: u32, uid: u32, status: ExitStatus, usage: Usage) -> Self {
        let (code, value) = match status {
            ExitStatus::Exited(code) => (CLD_EXITED, code),
            ExitStatus::Killed { signal, core } => (if core { CLD_DUMPED } else { CLD_KILLED }, signal),
        };
        SigInfo::child(signo, code, pid, uid, value as i32, ticks(usage.utime), ticks(usage.stime))
    }

    /// Sent by a POSIX timer, not by a process that says so.
    pub const fn is_timer(&self) -> bool {
        self.prepaid != 0
    }

    /// Has si_band and si_fd.
    pub const fn is_io(&self) -> bool {
        self.code == SI_SIGIO || !has_own_codes(self.signo()) && self.code > 0 && self.code <= NSIGPOLL
    }

    /// si_band and si_fd of those.
    pub const fn band_and_fd(&self) -> (u64, i32) {
        (self.fields[0], self.fields[1] as i32)
    }

    /// The id of the POSIX timer that sent it.
    pub const fn timer_id(&self) -> i32 {
        self.fields[0] as u32 as i32
    }

    /// With si_overrun of SI_TIMER.
    pub const fn with_overrun(mut self, overrun: u32) -> Self {
        let overrun = if overrun > i32::MAX as u32 { i32::MAX as u32 } else { overrun };
        self.fields[0] = pair(self.fields[0] as u32, overrun);
        self
    }

    pub const fn signo(&self) -> u8 {
        self.signo as u8
    }

    /// The number of a signal that was checked, or that is 0 for "only check".
    pub const fn is_valid(&self) -> bool {
        set::is_valid(self.signo)
    }

    /// Comes from the kernel, not from a process that called kill or sigqueue.
    pub const fn from_kernel(&self) -> bool {
        self.code > 0
    }

    /// si_pid and si_uid of the kinds that have them.
    pub const fn sender(&self) -> (u32, u32) {
        (self.fields[0] as u32, (self.fields[0] >> 32) as u32)
    }

    /// si_value of the kinds that have it.
    pub const fn value(&self) -> u64 {
        self.fields[1]
    }

    /// The user-space form.
    pub fn to_user(&self) -> [u8; SIGINFO_SIZE] {
        let mut bytes = [0; SIGINFO_SIZE];
        bytes[..size_of::<SigInfo>()].copy_from_slice(SigInfo { prepaid: 0, ..*self }.as_bytes());
        bytes
    }

    /// From the user-space form; `None` if there is something in it that the kernel could not keep.
    pub fn from_user(bytes: &[u8; SIGINFO_SIZE]) -> Option<SigInfo> {
        let (info, rest) = SigInfo::read_from_prefix(bytes).ok()?;
        let kept = info.has_known_layout() || rest.iter().all(|byte| *byte == 0);
        kept.then_some(SigInfo { prepaid: 0, ..info })
    }

    /// Its kind is one of those of sigaction(2), none of which has more than the kernel keeps.
    pub fn has_known_layout(&self) -> bool {
        const SI_DETHREAD: i32 = -7;
        const SI_ASYNCNL: i32 = -60;
        let own = match u8::try_from(self.signo).unwrap_or(0) {
            set::SIGILL => 11,
            set::SIGFPE => 15,
            set::SIGSEGV => 9,
            set::SIGBUS => 5,
            set::SIGTRAP => 6,
            set::SIGCHLD => 6,
            set::SIGSYS => 2,
            _ => NSIGPOLL,
        };
        self.code == SI_KERNEL || self.code == SI_ASYNCNL || (SI_DETHREAD..=own).contains(&self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_that_of_the_c_type() {
        let bytes = SigInfo::child(17, CLD_STOPPED, 7, 1000, 19, 5, 6).to_user();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!([word(0), word(4), word(8)], [17, 0, 5]);
        assert_eq!([word(16), word(20), word(24)], [7, 1000, 19]);
        assert_eq!([word(32), word(40)], [5, 6]);
        assert_eq!(SigInfo::from_user(&bytes).unwrap().to_user(), bytes);
    }

    #[test]
    fn rejects_what_it_cannot_keep() {
        let mut bytes = SigInfo { code: 99, ..SigInfo::kernel(1) }.to_user();
        bytes[127] = 1;
        assert!(SigInfo::from_user(&bytes).is_none());
    }
}
