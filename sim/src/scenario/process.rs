//! Processes come and go: fork, vfork, threads, execve, exit, kill and wait race with each other.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::Setup;
use crate::rng::Rng;
use crate::user::sync::Style;
use crate::user::{Program, U, errno, image_path, program};

const NR_EXIT_GROUP: u64 = 94;
const NR_KILL: u64 = 129;
const NR_EXECVE: u64 = 221;
const NR_WAIT4: u64 = 260;
const WNOHANG: u64 = 1;
const SIGKILL: u64 = 9;
const SIGCHLD: i32 = 17;
const EINTR: i64 = -4;
const ECHILD: i64 = -10;
/// What the executed image exits with.
const EXECUTED: i32 = 42;

impl U {
    async fn execve(self, path: &str) -> i64 {
        let path = self.place_str(path).await;
        let argv = self.place_words(&[path, 0]).await;
        self.call(NR_EXECVE, &[path, argv, 0]).await
    }
}

const STYLE: Style = Style { shared: false, timeout: 3000 };
const PATIENT: Style = Style { shared: false, timeout: 0 };

/// What a child may end with.
#[derive(Clone, Copy, Debug)]
struct Expected {
    status: u32,
    /// It was, or will perhaps be, killed.
    killed: bool,
}

type Children = Rc<RefCell<BTreeMap<i64, Expected>>>;

fn check_child(children: &Children, pid: i64, status: u32) {
    let Some(expected) = children.borrow_mut().remove(&pid) else {
        panic!("child {pid} was never made, or came twice")
    };
    let right = status == expected.status || expected.killed && status == SIGKILL as u32;
    assert!(right, "child {pid} ended with {status:#x}, expected {expected:?}");
}

/// A child, and the status word it will have.
fn child(rng: &mut Rng, depth: u64, image: &str) -> (Program, u32) {
    let code = rng.below(100) as i32;
    let mut own = rng.split();
    let image = image.to_string();
    let word = (code as u32) << 8;
    match own.below(7) {
        0 => (program(move |_| async move { code }), word),
        1 if depth > 0 => (family(own, depth - 1, image, code), word),
        2 => {
            let body = program(move |u| async move {
                u.execve(&image).await;
                1
            });
            (body, (EXECUTED as u32) << 8)
        }
        3 => (exec_from_thread(own, image), (EXECUTED as u32) << 8),
        4 => (exit_of_threads(own, code), word),
        5 => (orphan_maker(own, code), word),
        _ => {
            let body = program(move |u| async move {
                u.pause(10_000).await;
                code
            });
            (body, word)
        }
    }
}

/// Another thread than the leader executes, while others run, block, or do the same.
fn exec_from_thread(mut rng: Rng, image: String) -> Program {
    let others = rng.below(3);
    let maker = rng.one_in(2);
    program(move |u| async move {
        let page = u.map(4096, false).await;
        for index in 0..others {
            let body = program(move |u| async move {
                loop {
                    u.futex_wait(page + 2048, 0, STYLE).await;
                    if maker {
                        // The new thread must not outlive the others when the program is replaced.
                        let sleeper = program(move |u| async move {
                            loop {
                                u.futex_wait(page + 2048, 0, PATIENT).await;
                            }
                        });
                        u.thread(page + 1024, sleeper).await;
                    }
                }
            });
            u.thread(page + 4 * index, body).await;
        }
        let body = program(move |u| async move {
            u.pause(5_000).await;
            u.execve(&image).await;
            1
        });
        u.thread(page + 64, body).await;
        loop {
            u.pause(5_000).await;
        }
    })
}

/// exit_group with threads in all states; or the leader ends first.
fn exit_of_threads(mut rng: Rng, code: i32) -> Program {
    let threads = rng.range(1, 4);
    let leader_first = rng.one_in(2);
    program(move |u| async move {
        let page = u.map(4096, false).await;
        for index in 0..threads {
            let body = program(move |u| async move {
                u.pause(10_000).await;
                if index == 0 {
                    u.call(NR_EXIT_GROUP, &[code as u64]).await;
                }
                loop {
                    u.pause(5_000).await;
                    u.call(98, &[page + 2048, 128, 0, 0]).await;
                }
            });
            assert!(u.thread(page + 4 * index, body).await > 0);
        }
        if leader_first {
            u.call(93, &[9]).await;
        }
        loop {
            u.call(98, &[page + 2048, 128, 0, 0]).await;
        }
    })
}

/// Its child outlives it.
fn orphan_maker(mut rng: Rng, code: i32) -> Program {
    let delay = rng.below(20_000);
    program(move |u| async move {
        let orphan = program(move |u| async move {
            u.pause(delay).await;
            3
        });
        assert!(u.fork(orphan).await > 0);
        code
    })
}

/// A process that makes children, kills some, and waits for all.
fn family(mut rng: Rng, depth: u64, image: String, code: i32) -> Program {
    program(move |u| async move {
        let children = Children::default();
        let count = rng.range(1, 6);
        for _ in 0..count {
            if rng.one_in(4) {
                vfork(u, &mut rng, &image, &children).await;
                continue;
            }
            let (body, status) = child(&mut rng, depth, &image);
            let pid = u.fork(body).await;
            assert!(pid > 0, "fork: {}", errno(pid));
            let killed = rng.one_in(4);
            children.borrow_mut().insert(pid, Expected { status, killed });
            if killed {
                u.pause(8_000).await;
                assert_eq!(u.call(NR_KILL, &[pid as u64, SIGKILL]).await, 0, "kill of a child not waited for");
            }
        }
        reap(u, &mut rng, &children).await;
        assert!(children.borrow().is_empty(), "children are missing: {children:?}");
        code
    })
}

/// The child uses the parent's memory until it executes or exits; so long the parent stands still.
async fn vfork(u: U, rng: &mut Rng, image: &str, children: &Children) {
    let page = u.map(4096, false).await;
    let (execute, image) = (rng.one_in(2), image.to_string());
    let body = program(move |u| async move {
        u.store(page, 1).await;
        u.pause(5_000).await;
        u.store(page, 2).await;
        if execute {
            u.execve(&image).await;
        }
        5
    });
    let pid = u.vfork(body).await;
    assert!(pid > 0, "vfork: {}", errno(pid));
    assert_eq!(u.load(page).await, 2, "the parent ran before the child let go");
    let status = if execute { EXECUTED as u32 } else { 5 } << 8;
    children.borrow_mut().insert(pid, Expected { status, killed: false });
}

async fn reap(u: U, rng: &mut Rng, children: &Children) {
    loop {
        let status = u.scratch(4);
        let some = children.borrow().keys().next().copied();
        let who = if rng.one_in(2) { some.unwrap_or(-1) } else { -1 };
        let options = if rng.one_in(3) { WNOHANG } else { 0 };
        match u.call(NR_WAIT4, &[who as u64, status, options, 0]).await {
            ECHILD => return,
            EINTR => {}
            0 => {
                assert_eq!(options, WNOHANG);
                u.pause(5_000).await;
            }
            pid => {
                assert!(pid > 0 && (who == -1 || who == pid), "wait4({who}): {}", errno(pid));
                let status = u.load(status).await;
                check_child(children, pid, status);
            }
        }
    }
}

pub fn processes(setup: &mut Setup) -> Program {
    let image = image_path(|| {
        program(|u| async move {
            u.pause(2_000).await;
            EXECUTED
        })
    });
    let depth = setup.rng.below(3);
    let rng = setup.rng.split();
    let handler = setup.rng.one_in(2);
    let family = family(rng, depth, image, 0);
    program(move |u| async move {
        if handler {
            u.handle(SIGCHLD, 0, |u, _| async move { u.pause(500).await }).await;
        }
        family(u).await
    })
}
