//! When memory runs out: somebody has to go.
//!
//! The kernel's heap cannot fail, so it has a reserve that pages of programs are not taken from. When the heap has eaten
//! into it, whoever comes back from a system call first makes room: gives up cached pages, else ends the process that
//! holds most, and waits for it. The same process goes when a fault finds no page.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::sync::atomic::Ordering;
use core::time::Duration;

use super::process::Process;
use super::ptrace;
use super::run;
use super::table;
use super::task::Thread;
use crate::exec::{self, Instant};
use crate::mm;
use crate::signal::{self, SIGKILL, SigInfo};

/// How often those who wait for the end of a process look again.
const INTERVAL: Duration = Duration::from_millis(2);
/// How long they wait for one that keeps its memory, before another has to go, too.
const PATIENCE: Duration = Duration::from_secs(5);
/// An oom_score_adj that no process with it is ended for.
const NEVER: i32 = -1000;

/// It goes through all address spaces: that is for one at a time.
static TURN: exec::Mutex<()> = exec::Mutex::new(());

/// Returns when there is memory for the heap again, when nothing can be done about it, or when the caller is to end itself.
pub async fn make_room(t: &Thread) {
    let Ok(_turn) = run::killable(t, TURN.lock()).await else { return };
    while mm::is_short() && !signal::fatal_pending(t.task()) {
        if !mm::page_cache::relieve().await && !end_worst().await {
            return;
        }
    }
}

/// A fault of this thread found no page, though all that can be given up was. Answers whether it is worth another try.
pub async fn make_room_for_page(t: &Thread) -> bool {
    match run::killable(t, TURN.lock()).await {
        Ok(_turn) => end_worst().await,
        // The thread ends before it can try.
        Err(_) => true,
    }
}

/// The same for a system call that found no page ([`mm::set_shortage_relief`]). It may be one of the process that is to
/// end, for which whoever has the turn waits: so it does not wait for the turn.
pub fn end_somebody() -> mm::BoxFuture<'static, bool> {
    Box::pin(async {
        if run::with_current(|task| task.is_some_and(signal::fatal_pending)) {
            return false;
        }
        match TURN.try_lock() {
            Some(_turn) => end_worst().await,
            None => {
                exec::sleep_until(Instant::now().saturating_add(INTERVAL)).await;
                true
            }
        }
    })
}

/// Ends the process that holds most because somebody asked for it.
pub async fn end_on_request() {
    let _turn = TURN.lock().await;
    if !end_worst().await {
        log::warn!("no process may be ended");
    }
}

/// Ends the process that holds most, unless memory comes back already, or one is ending, and gives it a little time. False if there is none.
async fn end_worst() -> bool {
    let ending = {
        let worst =
            || table::processes().filter_map(|process| Some((badness(&process)?, process))).max_by_key(|found| found.0);
        let mut ending = mm::page_cache::is_freeing();
        for process in table::processes().filter(|process| process.is_dying()) {
            ending |= may_be_waited_for(&process, Instant::now());
        }
        ending || worst().map(|(_, process)| end(&process)).is_some()
    };
    if ending {
        exec::sleep_until(Instant::now().saturating_add(INTERVAL)).await;
    }
    ending
}

/// Will this one, which ends, soon give up its memory? One that has none any more is not waited for, nor is one that something
/// keeps from its end: a disk that does not answer.
fn may_be_waited_for(process: &Process, now: Instant) -> bool {
    let holds_memory = process.tasks().any(|task| task.handles().mm.is_some());
    holds_memory && now.saturating_since(ptrace::hurry(process, now)) < PATIENCE
}

fn end(process: &Arc<Process>) {
    let name = process.any_thread().map(|task| task.comm()).unwrap_or_default();
    let name = alloc::string::String::from_utf8_lossy(name.split(|byte| *byte == 0).next().unwrap_or(&[])).into_owned();
    log::warn!("out of memory: ending process {} ({name})", process.pid);
    let _ = signal::send_to_process(process, SigInfo::kernel(SIGKILL));
}

/// Pages that would come back with the end of the process, weighed as it wishes (proc(5), oom_score_adj). None for those
/// that must stay.
fn badness(process: &Process) -> Option<i64> {
    let wish = process.oom_score_adj.load(Ordering::Relaxed);
    if process.pid == 1 || wish == NEVER || process.is_dying() {
        return None;
    }
    let space = process.any_thread()?.handles().mm?;
    let stats = space.stats();
    let held = stats.resident + stats.tables + stats.map_pages;
    Some(held as i64 + i64::from(wish) * mm::frames::total_frames() as i64 / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::test_util::process;

    #[test]
    fn one_that_keeps_its_memory_is_passed_over_after_a_while() {
        let (process, _task) = process(7, 0);
        let first = Instant::from_nanos(1_000_000_000);
        assert!(may_be_waited_for(&process, first));
        assert!(may_be_waited_for(&process, first.saturating_add(PATIENCE / 2)));
        assert!(!may_be_waited_for(&process, first.saturating_add(PATIENCE)));
        *process.group_exit.lock() = Some(crate::process::ExitStatus::Exited(0));
        assert_eq!(badness(&process), None);
    }

    #[test]
    fn one_without_memory_is_not_waited_for() {
        let (process, task) = process(7, 0);
        task.lock_handles().mm = None;
        assert!(!may_be_waited_for(&process, Instant::from_nanos(1)));
    }
}
