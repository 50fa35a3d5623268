//! exit.

/// How a process ended, in the terms of wait(2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitStatus {
    /// exit(2) with this code (low 8 bits count).
    Exited(u8),
    /// Killed by this signal; `core` if its action dumps core.
    Killed { signal: u8, core: bool },
}

impl ExitStatus {
    /// The status word of wait(2).
    pub const fn wait_status(self) -> u32 {
        match self {
            ExitStatus::Exited(code) => (code as u32) << 8,
            ExitStatus::Killed { signal, core } => signal as u32 | if core { 0x80 } else { 0 },
        }
    }
}

/// Lets a CLONE_VFORK parent wait until the child has given up the shared address space.
#[derive(Default)]
pub struct VforkDone {
    done: core::sync::atomic::AtomicBool,
    wait: crate::exec::WaitQueue,
}

impl VforkDone {
    pub fn complete(&self) {
        self.done.store(true, core::sync::atomic::Ordering::Release);
        self.wait.wake_all();
    }

    pub fn is_done(&self) -> bool {
        self.done.load(core::sync::atomic::Ordering::Acquire)
    }

    pub async fn wait(&self) {
        self.wait.wait_for(|| self.is_done().then_some(())).await
    }
}
