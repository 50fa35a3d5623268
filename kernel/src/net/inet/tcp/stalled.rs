//! TCP_USER_TIMEOUT of tcp(7) within the machine, where nothing is lost: how long a sender waits for a reader who reads nothing.
//!
//! What fits into the receive buffer of the reader has come to it. For what is beyond Linux asks how large its window is, the first time
//! after 200 ms, and gives up when that has been nothing for so long (tcp_probe_timer). The reader does not hear of that before it says
//! something itself: that it has room again, or its end. The answer is a reset.

use alloc::sync::Weak;
use core::sync::atomic::Ordering;
use core::time::Duration;

use super::{Phase, State, TcpSocket};
use crate::errno::Errno;
use crate::exec::{Instant, sleep_until, spawn};

/// TCP_RTO_MIN of Linux.
const FIRST_QUESTION: Duration = Duration::from_millis(200);
/// How often it is looked meanwhile whether something has been read.
const LOOKS: u32 = 4;

/// A reader does not have all that was sent.
struct Stall {
    /// How much of all that was ever sent it has read.
    position: u64,
    /// How long its sender waits for it.
    patience: Duration,
}

impl TcpSocket {
    /// Of a sender with this option that has sent something, or has found no room.
    #[cold]
    pub(super) fn watch_reader(&self) {
        if self.stall().is_some() && !self.watches.swap(true, Ordering::AcqRel) {
            spawn("tcp", watch(self.this.clone()));
        }
    }

    fn stall(&self) -> Option<Stall> {
        let patience = match self.user_timeout.load(Ordering::Relaxed) {
            0 => return None,
            time => FIRST_QUESTION + Duration::from_millis(time.into()),
        };
        let state = self.state.lock();
        let peer = state.peer().filter(|_| state.phase == Phase::Open);
        drop(state);
        // Who stands in for another machine has a clock of its own.
        let peer = peer.filter(|peer| peer.in_stack.is_none() && !peer.is_closed())?;
        let window = peer.window();
        let state = peer.state.lock();
        let waits = state.phase == Phase::Open && state.inbox.len() > window;
        waits.then_some(Stall { position: state.received - state.inbox.len() as u64, patience })
    }

    /// When to look again. None: there is nothing more to look at.
    fn look_at_reader(&self, seen: &mut Option<(u64, Instant)>) -> Option<Instant> {
        let now = Instant::now();
        let Some(Stall { position, patience }) = self.stall() else {
            *seen = None;
            self.watches.store(false, Ordering::Release);
            // Who has sent something just now has left it to this one.
            let again = self.stall().is_some() && !self.watches.swap(true, Ordering::AcqRel);
            return again.then_some(now);
        };
        let since = seen.filter(|(before, _)| *before == position).map_or(now, |(_, since)| since);
        *seen = Some((position, since));
        let end = since.saturating_add(patience);
        if now < end {
            return Some(end.min(now.saturating_add(patience / LOOKS)));
        }
        self.stop_waiting();
        self.watches.store(false, Ordering::Release);
        None
    }

    fn stop_waiting(&self) {
        let state = self.state.lock();
        let Some(peer) = state.peer().filter(|_| state.phase == Phase::Open) else { return };
        self.fail_locked(state, Errno::ETIMEDOUT);
        peer.state.lock().is_alone = true;
    }

    /// Something has been read: is there room again, of which nobody is left to be told?
    pub(super) fn tells_nobody(&self, state: &State) -> bool {
        state.is_alone && state.inbox.len() * 2 <= self.window()
    }
}

async fn watch(sender: Weak<TcpSocket>) {
    let mut seen = None;
    let mut look = || sender.upgrade()?.look_at_reader(&mut seen);
    while let Some(at) = look() {
        sleep_until(at).await;
    }
}
