//! Signals for process groups, whose members leave in the middle.

use super::Setup;
use crate::user::{Program, U, program};

const NR_KILL: u64 = 129;
const NR_SETPGID: u64 = 154;
const NR_SETSID: u64 = 157;
const SIGUSR1: u64 = 10;

/// Words of the page that all share: how many members are ready, and whether somebody has been signalled; then how often each
/// of them has been.
const READY: u64 = 0;
const BEGUN: u64 = 4;
const COUNTS: u64 = 64;

/// Waits until a word has this value.
async fn until(u: U, word: u64, value: u32) {
    while u.load(word).await != value {
        u.pause(300).await;
    }
}

async fn listen(u: U, page: u64, index: u64) {
    let handler = move |u: U, _| async move {
        u.add(page + COUNTS + 4 * index, 1).await;
        u.store(page + BEGUN, 1).await;
    };
    u.handle(SIGUSR1 as i32, 0, handler).await;
}

/// Leaves as soon as it hears that the group is being signalled: then it has been, or is by now.
fn leaver(page: u64, index: u64, session: bool) -> Program {
    program(move |u| async move {
        listen(u, page, index).await;
        u.add(page + READY, 1).await;
        until(u, page + BEGUN, 1).await;
        let left = if session { u.call(NR_SETSID, &[]).await } else { u.call(NR_SETPGID, &[0, 0]).await };
        assert!(left >= 0, "cannot leave: {left}");
        let count = u.load(page + COUNTS + 4 * index).await;
        assert!(count == 1, "member {index} has left after {count} signals");
        0
    })
}

pub fn leavers(setup: &mut Setup) -> Program {
    let mut rng = setup.rng.split();
    let (rounds, members) = (rng.range(1, 5), rng.range(1, 8));
    program(move |u| async move {
        for _ in 0..rounds {
            let page = u.map(4096, true).await;
            let sessions = rng.one_in(3);
            let leader = program(move |u| async move {
                u.call(NR_SETPGID, &[0, 0]).await;
                listen(u, page, 0).await;
                for index in 1..=members {
                    assert!(u.fork(leaver(page, index, sessions)).await > 0);
                }
                until(u, page + READY, members as u32).await;
                assert_eq!(u.call(NR_KILL, &[0, SIGUSR1]).await, 0);
                for _ in 0..members {
                    let status = u.scratch(4);
                    assert!(u.call(260, &[u64::MAX, status, 0, 0]).await > 0);
                    assert_eq!(u.load(status).await, 0);
                }
                0
            });
            let leader = u.fork(leader).await;
            assert_eq!(u.wait_for(leader).await, 0);
        }
        0
    })
}
