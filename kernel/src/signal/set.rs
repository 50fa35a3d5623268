//! Signal numbers, sets of them, and what a signal does by default (signal(7)).

use core::ops::{BitAnd, BitOr, Not};

pub const SIGHUP: u8 = 1;
pub const SIGINT: u8 = 2;
pub const SIGQUIT: u8 = 3;
pub const SIGILL: u8 = 4;
pub const SIGTRAP: u8 = 5;
pub const SIGABRT: u8 = 6;
pub const SIGBUS: u8 = 7;
pub const SIGFPE: u8 = 8;
pub const SIGKILL: u8 = 9;
pub const SIGUSR1: u8 = 10;
pub const SIGSEGV: u8 = 11;
pub const SIGUSR2: u8 = 12;
pub const SIGPIPE: u8 = 13;
pub const SIGALRM: u8 = 14;
pub const SIGTERM: u8 = 15;
pub const SIGSTKFLT: u8 = 16;
pub const SIGCHLD: u8 = 17;
pub const SIGCONT: u8 = 18;
pub const SIGSTOP: u8 = 19;
pub const SIGTSTP: u8 = 20;
pub const SIGTTIN: u8 = 21;
pub const SIGTTOU: u8 = 22;
pub const SIGURG: u8 = 23;
pub const SIGXCPU: u8 = 24;
pub const SIGXFSZ: u8 = 25;
pub const SIGVTALRM: u8 = 26;
pub const SIGPROF: u8 = 27;
pub const SIGWINCH: u8 = 28;
pub const SIGIO: u8 = 29;
pub const SIGPWR: u8 = 30;
pub const SIGSYS: u8 = 31;
/// The first real-time signal: from here on every instance is queued.
pub const SIGRTMIN: u8 = 32;
/// The last signal.
pub const SIGMAX: u8 = 64;

/// A set of signals as the kernel ABI has it: bit n − 1 stands for signal n.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SigSet(pub u64);

impl SigSet {
    pub const EMPTY: SigSet = SigSet(0);
    pub const ALL: SigSet = SigSet(!0);
    /// What no mask can hold back.
    pub const UNBLOCKABLE: SigSet = SigSet::of(&[SIGKILL, SIGSTOP]);
    pub const STOPS: SigSet = SigSet::of(&[SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU]);
    pub const CONT: SigSet = SigSet::of(&[SIGCONT]);
    /// Raised by the thread's own instructions; delivered before all others.
    pub const SYNCHRONOUS: SigSet = SigSet::of(&[SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS]);

    pub const fn of(signals: &[u8]) -> SigSet {
        let mut bits = 0;
        let mut i = 0;
        while i < signals.len() {
            bits |= SigSet::bit(signals[i]);
            i += 1;
        }
        SigSet(bits)
    }

    /// The bit of a signal; 0 for numbers that are none.
    const fn bit(signo: u8) -> u64 {
        if signo >= 1 && signo <= SIGMAX { 1 << (signo - 1) } else { 0 }
    }

    #[inline]
    pub const fn contains(self, signo: u8) -> bool {
        self.0 & SigSet::bit(signo) != 0
    }

    pub fn insert(&mut self, signo: u8) {
        self.0 |= SigSet::bit(signo);
    }

    pub fn remove(&mut self, signo: u8) {
        self.0 &= !SigSet::bit(signo);
    }

    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub const fn without(self, other: SigSet) -> SigSet {
        SigSet(self.0 & !other.0)
    }

    /// What a program may choose as its mask.
    pub const fn blockable(self) -> SigSet {
        self.without(SigSet::UNBLOCKABLE)
    }

    /// The signal to deliver first: synchronous ones, then the lowest number.
    pub const fn first(self) -> Option<u8> {
        let synchronous = self.0 & SigSet::SYNCHRONOUS.0;
        let bits = if synchronous != 0 { synchronous } else { self.0 };
        if bits == 0 { None } else { Some(bits.trailing_zeros() as u8 + 1) }
    }
}

impl BitAnd for SigSet {
    type Output = SigSet;
    fn bitand(self, other: SigSet) -> SigSet {
        SigSet(self.0 & other.0)
    }
}

impl BitOr for SigSet {
    type Output = SigSet;
    fn bitor(self, other: SigSet) -> SigSet {
        SigSet(self.0 | other.0)
    }
}

impl Not for SigSet {
    type Output = SigSet;
    fn not(self) -> SigSet {
        SigSet(!self.0)
    }
}

/// What happens on delivery when there is no handler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DefaultAction {
    Terminate,
    /// Terminate, and the status says that core was dumped.
    Core,
    Ignore,
    Stop,
    /// Going on happens when the signal is sent; nothing is left for delivery.
    Continue,
}

pub const fn default_action(signo: u8) -> DefaultAction {
    match signo {
        SIGCHLD | SIGURG | SIGWINCH => DefaultAction::Ignore,
        SIGCONT => DefaultAction::Continue,
        SIGSTOP | SIGTSTP | SIGTTIN | SIGTTOU => DefaultAction::Stop,
        SIGQUIT | SIGILL | SIGTRAP | SIGABRT | SIGBUS | SIGFPE | SIGSEGV | SIGXCPU | SIGXFSZ | SIGSYS => {
            DefaultAction::Core
        }
        _ => DefaultAction::Terminate,
    }
}

/// Checks a signal number from user space; 0 stands for "only check".
pub const fn is_valid(signo: i32) -> bool {
    signo >= 1 && signo <= SIGMAX as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synchronous_signals_go_first() {
        assert_eq!(SigSet::of(&[SIGHUP, SIGSEGV, SIGBUS]).first(), Some(SIGBUS));
        assert_eq!(SigSet::of(&[SIGTERM, SIGUSR1]).first(), Some(SIGUSR1));
        assert_eq!(SigSet::of(&[SIGMAX]).first(), Some(SIGMAX));
        assert_eq!(SigSet::EMPTY.first(), None);
    }

    #[test]
    fn kill_and_stop_cannot_be_blocked() {
        assert_eq!(SigSet::ALL.blockable().0, !(1 << 8 | 1 << 18));
        assert!(!SigSet::ALL.contains(0));
        assert!(!SigSet::ALL.contains(65));
    }
}
