//! What a process does with each signal: `struct sigaction` of the kernel ABI, and the table of them.

use core::sync::atomic::{AtomicU64, Ordering};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::set::{DefaultAction, SIGCHLD, SIGMAX, SigSet, default_action};
use crate::process::Thread;
use crate::sync::SpinLock;

pub const SIG_DFL: u64 = 0;
pub const SIG_IGN: u64 = 1;

bitflags::bitflags! {
    /// SA_* of sigaction(2). Unknown bits are cleared on entry, which is how programs probe for them
    /// (SA_UNSUPPORTED).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct ActionFlags: u64 {
        const NOCLDSTOP = 0x1;
        const NOCLDWAIT = 0x2;
        const SIGINFO = 0x4;
        const EXPOSE_TAGBITS = 0x800;
        const RESTORER = 0x0400_0000;
        const ONSTACK = 0x0800_0000;
        const RESTART = 0x1000_0000;
        const NODEFER = 0x4000_0000;
        const RESETHAND = 0x8000_0000;
    }
}

/// `struct sigaction` as rt_sigaction(2) on arm64 has it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct SigAction {
    /// SIG_DFL, SIG_IGN or the address of the handler.
    pub handler: u64,
    pub flags: u64,
    /// Where the handler returns to, if flags have SA_RESTORER.
    pub restorer: u64,
    /// Blocked while the handler runs.
    pub mask: u64,
}

impl SigAction {
    pub const DEFAULT: SigAction = SigAction { handler: SIG_DFL, flags: 0, restorer: 0, mask: 0 };

    pub const fn flags(&self) -> ActionFlags {
        ActionFlags::from_bits_truncate(self.flags)
    }

    /// With unknown flags dropped and a mask that holds back only what can be.
    pub fn sanitized(mut self) -> Self {
        self.flags = self.flags().bits();
        self.mask = SigSet(self.mask).blockable().0;
        self
    }
}

/// The actions of a process; shared by clone with CLONE_SIGHAND.
pub struct SigHandlers {
    actions: SpinLock<[SigAction; SIGMAX as usize]>,
    /// Signals that are set to SIG_IGN, and to SIG_DFL: copies for senders, who take no lock for them.
    ignored: AtomicU64,
    default: AtomicU64,
}

impl SigHandlers {
    pub const fn new() -> Self {
        SigHandlers {
            actions: SpinLock::new([SigAction::DEFAULT; SIGMAX as usize]),
            ignored: AtomicU64::new(0),
            default: AtomicU64::new(!0),
        }
    }

    /// A copy for a child; with `clear` (CLONE_CLEAR_SIGHAND) handlers are reset, ignored signals stay ignored.
    pub fn fork(&self, clear: bool) -> Self {
        let mut actions = *self.actions.lock();
        if clear {
            reset_handlers(&mut actions);
        }
        SigHandlers::from_actions(actions)
    }

    /// What exec leaves: handlers reset, ignored signals still ignored (execve(2)).
    pub fn after_exec(&self) -> Self {
        self.fork(true)
    }

    fn from_actions(actions: [SigAction; SIGMAX as usize]) -> Self {
        let (mut ignored, mut default) = (SigSet::EMPTY, SigSet::EMPTY);
        for (signo, action) in (1..=SIGMAX).zip(&actions) {
            match action.handler {
                SIG_DFL => default.insert(signo),
                SIG_IGN => ignored.insert(signo),
                _ => {}
            }
        }
        SigHandlers {
            actions: SpinLock::new(actions),
            ignored: AtomicU64::new(ignored.0),
            default: AtomicU64::new(default.0),
        }
    }

    pub fn get(&self, signo: u8) -> SigAction {
        match index(signo) {
            Some(index) => self.actions.lock()[index],
            None => SigAction::DEFAULT,
        }
    }

    /// Replaces an action and answers the old one.
    #[inline]
    pub fn set(&self, signo: u8, action: SigAction) -> SigAction {
        let Some(index) = index(signo) else { return SigAction::DEFAULT };
        let mut actions = self.actions.lock();
        let old = core::mem::replace(&mut actions[index], action);
        let bit = SigSet::of(&[signo]).0;
        let update = |set: &AtomicU64, member: bool| {
            if member {
                set.fetch_or(bit, Ordering::Release)
            } else {
                set.fetch_and(!bit, Ordering::Release)
            };
        };
        update(&self.ignored, action.handler == SIG_IGN);
        update(&self.default, action.handler == SIG_DFL);
        old
    }

    /// The action for a delivery; SA_RESETHAND resets it.
    pub(super) fn take_for_delivery(&self, signo: u8) -> SigAction {
        let action = self.get(signo);
        if action.handler > SIG_IGN && action.flags().contains(ActionFlags::RESETHAND) {
            self.set(signo, SigAction { handler: SIG_DFL, ..action });
        }
        action
    }

    pub fn is_default(&self, signo: u8) -> bool {
        SigSet(self.default.load(Ordering::Acquire)).contains(signo)
    }

    /// Set to SIG_IGN.
    pub fn is_set_to_ignore(&self, signo: u8) -> bool {
        SigSet(self.ignored.load(Ordering::Acquire)).contains(signo)
    }

    /// Delivery would do nothing: SIG_IGN, or SIG_DFL of a signal that is ignored by default.
    pub fn ignores(&self, signo: u8) -> bool {
        self.is_set_to_ignore(signo)
            || self.is_default(signo)
                && matches!(default_action(signo), DefaultAction::Ignore | DefaultAction::Continue)
    }

    /// Children of this process do not become zombies (SIG_IGN or SA_NOCLDWAIT for SIGCHLD; wait(2), NOTES).
    pub fn ignores_children(&self) -> bool {
        self.is_set_to_ignore(SIGCHLD) || self.get(SIGCHLD).flags().contains(ActionFlags::NOCLDWAIT)
    }

    /// The sets of ignored and of caught signals, for /proc/PID/status.
    pub fn ignored_and_caught(&self) -> (SigSet, SigSet) {
        let ignored = SigSet(self.ignored.load(Ordering::Acquire));
        let default = SigSet(self.default.load(Ordering::Acquire));
        (ignored, !(ignored | default))
    }
}

/// rt_sigaction(2): replaces an action. What is pending and would be ignored from now on is forgotten (POSIX 2.4.3).
pub fn set_action(t: &Thread, signo: u8, action: SigAction) -> SigAction {
    let process = t.process();
    let handlers = process.handlers.read().clone();
    let old = handlers.set(signo, action);
    if handlers.ignores(signo) {
        let gone = SigSet::of(&[signo]);
        let threads = process.threads.lock();
        let mut shared = process.sig.lock();
        shared.pending.flush(gone);
        process.sig.publish(&shared);
        for task in threads.iter() {
            task.sig.lock().pending.flush(gone);
        }
    }
    old
}

impl Default for SigHandlers {
    fn default() -> Self {
        SigHandlers::new()
    }
}

fn index(signo: u8) -> Option<usize> {
    (1..=SIGMAX).contains(&signo).then(|| signo as usize - 1)
}

fn reset_handlers(actions: &mut [SigAction]) {
    for action in actions {
        let handler = if action.handler == SIG_IGN { SIG_IGN } else { SIG_DFL };
        *action = SigAction { handler, ..SigAction::DEFAULT };
    }
}

#[cfg(test)]
mod tests {
    use super::super::set::*;
    use super::*;

    fn handler(flags: ActionFlags) -> SigAction {
        SigAction { handler: 0x1000, flags: flags.bits(), restorer: 0, mask: 0 }
    }

    #[test]
    fn exec_resets_handlers_and_keeps_ignored() {
        let handlers = SigHandlers::new();
        handlers.set(SIGUSR1, handler(ActionFlags::empty()));
        handlers.set(SIGUSR2, SigAction { handler: SIG_IGN, ..SigAction::DEFAULT });
        let after = handlers.after_exec();
        assert!(after.is_default(SIGUSR1));
        assert!(after.is_set_to_ignore(SIGUSR2));
        assert_eq!(handlers.ignored_and_caught(), (SigSet::of(&[SIGUSR2]), SigSet::of(&[SIGUSR1])));
    }

    #[test]
    fn resethand_works_once() {
        let handlers = SigHandlers::new();
        handlers.set(SIGINT, handler(ActionFlags::RESETHAND));
        assert_eq!(handlers.take_for_delivery(SIGINT).handler, 0x1000);
        assert!(handlers.is_default(SIGINT));
    }

    #[test]
    fn default_ignored_signals_are_ignored() {
        let handlers = SigHandlers::new();
        assert!(handlers.ignores(SIGCHLD) && handlers.ignores(SIGCONT) && !handlers.ignores(SIGTERM));
        assert!(!handlers.ignores_children());
        handlers
            .set(SIGCHLD, SigAction { handler: SIG_DFL, flags: ActionFlags::NOCLDWAIT.bits(), ..SigAction::DEFAULT });
        assert!(handlers.ignores_children());
    }

    #[test]
    fn unknown_flags_and_unblockable_mask_bits_are_dropped() {
        let action = SigAction { handler: 0x1000, flags: !0, restorer: 0, mask: !0 }.sanitized();
        assert_eq!(action.flags & 0x400, 0);
        assert!(!SigSet(action.mask).contains(SIGKILL));
    }
}
