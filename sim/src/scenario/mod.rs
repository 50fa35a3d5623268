//! Programs that check what they see.

mod ext2;
mod futex;
mod groups;
mod ipc;
mod kernel;
mod memory;
mod mqueue;
mod notify;
mod pi;
mod pipe;
mod poll;
mod process;
mod rights;
mod sched;
mod signals;
mod slow_disk;
mod sockets;
mod time;
mod uring;
mod userfault;

use pollux_kernel::mm::frames;

use crate::disk::{self, Habits};
use crate::machine::{self, Config};
use crate::rng::Rng;
use crate::user::{self, Program, U, program};

/// One scenario.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    /// Makes what all seeds share, before the first one runs.
    pub prepare: fn(),
    /// Makes the program; its exit status must be 0.
    pub make: fn(&mut Setup) -> Program,
}

const fn scenario(name: &'static str, make: fn(&mut Setup) -> Program, about: &'static str) -> Scenario {
    Scenario { name, about, prepare: || {}, make }
}

const fn on_disk(name: &'static str, make: fn(&mut Setup) -> Program, about: &'static str) -> Scenario {
    Scenario { name, about, prepare: ext2::prepare, make }
}

/// What a scenario may arrange before the machine runs.
pub struct Setup {
    pub rng: Rng,
    pub config: Config,
    /// The disk /dev/vda.
    pub disk: Option<(&'static [u8], Habits)>,
    /// Page frames that may be in use at the end and were not at the beginning: tables and pages of init, files.
    pub may_lose: i64,
    /// Looks at what is left when the machine has ended: by itself (true), or by [`machine::stop`].
    pub afterwards: Option<Box<dyn FnOnce(bool)>>,
}

pub const ALL: &[Scenario] = &[
    scenario("mutex", futex::mutex, "threads and processes share a mutex, disturbed by signals"),
    scenario("futex-count", futex::count, "each wake that was sent is seen once, whatever else ends the wait"),
    scenario("futex-pi", pi::locks, "locks that lend priority, in any order, with limits, signals and owners that end"),
    scenario("futex-requeue", pi::requeue, "a bounded buffer whose waiters are requeued to such a lock, or give up"),
    scenario("robust", pi::robust, "processes that are killed as owners of robust locks"),
    scenario("condvar", futex::condvar, "a bounded buffer with condition variables"),
    scenario("barrier", futex::barrier, "threads meet at a barrier, again and again"),
    scenario("moves", sched::moves, "threads that change their CPUs, and wake each other all at once"),
    scenario("pipe", pipe::stream, "a writer and a reader of a pipe; each byte is checked"),
    scenario("pipe-records", pipe::records, "many writers of atomic records, many readers"),
    scenario("pipe-splice", pipe::spliced, "several splice a pipe's bytes into another or a socket, and are killed"),
    scenario("rights", rights::rights, "sockets in messages to each other end when nobody can reach them"),
    scenario("connections", sockets::unix, "connections of Unix sockets are accepted once, with a small backlog"),
    scenario("tcp-connections", sockets::tcp, "the same of TCP sockets on the loopback"),
    scenario("semaphores", ipc::semaphores, "processes take from semaphores, with undo, timeouts, signals and removal"),
    scenario(
        "messages",
        ipc::messages,
        "each message of a small queue comes once and in order, with signals and removal",
    ),
    scenario(
        "mqueue",
        mqueue::mqueue,
        "each message of a POSIX queue comes once and in order, with deadlines and signals",
    ),
    scenario("wait-queue", kernel::wait_queue, "kernel tasks wait for goods, and give up at any time"),
    scenario("locks", kernel::locks, "kernel tasks take sleeping locks, and give up at any time"),
    scenario("processes", process::processes, "fork, vfork, threads, execve, exit, kill and wait"),
    scenario("signals", signals::signals, "signals, stops and SIGKILL against every call that blocks"),
    scenario("groups", groups::leavers, "who leaves a process group that is being signalled has the signal before"),
    scenario("epoll", poll::epoll, "epoll in all modes, against close"),
    scenario("poll", poll::poll, "poll on pipes whose writers come and go"),
    scenario("inotify", notify::events, "events of names in order, against watches that come and go"),
    scenario("packets", notify::packets, "packets of a pipe come whole, with signals about it"),
    scenario("timers", time::timers, "sleeps, timerfds, interval and POSIX timers"),
    scenario("io-uring-cancel", uring::cancel, "requests of rings, cancelled, closed and killed at any moment"),
    scenario(
        "io-uring-link",
        uring::link,
        "an entry is cancelled while it ends, and the one that is linked to it begins",
    ),
    scenario("memory", memory::pressure, "copy-on-write and unmapping with little memory"),
    scenario("blocks", memory::blocks, "the same with huge pages, which are cut up and moved"),
    scenario("slow-disk", slow_disk::killed, "who is killed while a page is read from a slow disk ends at once"),
    scenario("userfault", userfault::faults, "pages that a program brings, against signals, wakes, close and kill"),
    on_disk("ext2", ext2::power_cut, "writers and a power cut: what was synced is there"),
    on_disk("ext4", ext2::power_cut_on_ext4, "the same on extents and checksums, without a journal"),
    on_disk("ext2-errors", ext2::errors, "writers on a disk that fails: errors, and nothing worse"),
];

pub fn find(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

/// Runs a scenario once, in this process, which must not have run a machine before.
pub fn run(scenario: &Scenario, config: Config) -> machine::Outcome {
    let rng = Rng::new(config.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x7363_656e);
    let mut setup = Setup { rng, config, disk: None, may_lose: MAY_LOSE, afterwards: None };
    let main = (scenario.make)(&mut setup);
    let may_lose = setup.may_lose;
    let attach = move || {
        if let Some((image, habits)) = setup.disk {
            disk::attach(image, habits);
        }
    };
    let outcome = machine::run(&setup.config, attach, program(move |u| init(u, main, may_lose)));
    if let Some(check) = setup.afterwards {
        check(!outcome.stopped);
    }
    outcome
}

const NR_WAIT4: u64 = 260;
/// See [`Setup::may_lose`].
const MAY_LOSE: i64 = 12;

/// Process 1: runs the scenario, and reaps whoever is orphaned until nobody is left.
async fn init(u: U, main: Program, may_lose: i64) -> i32 {
    let before = frames::free_frames();
    let main = u.fork(main).await;
    assert!(main > 0, "the first fork: {main}");
    let status = u.scratch(4);
    loop {
        let pid = u.call(NR_WAIT4, &[u64::MAX, status, 0, 0]).await;
        match pid {
            -10 => break,
            pid if pid == main => {
                let status = u.load(status).await;
                assert!(status == 0, "the scenario ended with status {status:#x}");
            }
            pid => assert!(pid > 0, "wait4: {}", user::errno(pid)),
        }
    }
    let left = pollux_kernel::process::process_count();
    assert!(left == 1, "{left} processes are left");
    let lost = before as i64 - frames::free_frames() as i64;
    assert!(lost <= may_lose, "{lost} page frames are lost");
    machine::finish();
    loop {
        u.call(124, &[]).await;
    }
}

/// Sends `signals` signals to random threads at random times.
async fn disturb(u: U, pid: i64, tids: Vec<i64>, signal: u64, signals: u64) {
    const NR_TGKILL: u64 = 131;
    for _ in 0..signals {
        u.pause(30_000).await;
        let tid = tids[u.random(tids.len() as u64) as usize];
        u.call(NR_TGKILL, &[pid as u64, tid as u64, signal]).await;
    }
}

impl U {
    /// Lets a random time up to `most` ns pass, in one of several ways.
    pub async fn pause(self, most: u64) {
        const NR_NANOSLEEP: u64 = 101;
        const NR_SCHED_YIELD: u64 = 124;
        match self.random(4) {
            0 => {}
            1 => self.work(self.random(most)).await,
            2 => {
                self.call(NR_SCHED_YIELD, &[]).await;
            }
            _ => {
                let time = self.place_words(&[0, self.random(most)]).await;
                self.call(NR_NANOSLEEP, &[time, 0]).await;
            }
        }
    }

    pub async fn gettid(self) -> i64 {
        self.call(178, &[]).await
    }

    pub async fn getpid(self) -> i64 {
        self.call(172, &[]).await
    }
}
