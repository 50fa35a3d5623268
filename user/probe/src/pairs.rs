//! Which of the kernel's spinlocks are contended while pairs of processes, one on each CPU, talk to each other and to nobody
//! else; and, to see that it is told, while all of them use one pipe: `probe pairs MILLISECONDS`.

use std::fs;
use std::ptr::null_mut;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU32, AtomicU64};

use libc::*;

const LOCK_STAT: &str = "/proc/lock_stat";
const CPUS: usize = 64;

/// What a pair shares, on cache lines of its own.
#[repr(align(128))]
struct Turns {
    there: AtomicU32,
    back: AtomicU32,
    round_trips: AtomicU64,
}

/// Memory of all processes.
struct Shared {
    stop: AtomicU32,
    pairs: [Turns; CPUS],
}

fn shared() -> &'static Shared {
    // SAFETY: fresh memory, zeroed, of the right size, never given back; zero is a value of each field.
    unsafe {
        let flags = MAP_SHARED | MAP_ANONYMOUS;
        let place = mmap(null_mut(), size_of::<Shared>(), PROT_READ | PROT_WRITE, flags, -1, 0);
        assert_ne!(place, MAP_FAILED);
        &*place.cast::<Shared>()
    }
}

/// Each of a pair has one end.
#[derive(Clone, Copy)]
struct Ends {
    read: i32,
    write: i32,
}

/// The ways of a pair: pipes, event counters, a Unix socket.
fn channels() -> ([Ends; 3], [Ends; 3]) {
    let pipe = || {
        let mut ends = [0; 2];
        // SAFETY: room for two descriptors; so below.
        assert_eq!(unsafe { pipe2(ends.as_mut_ptr(), 0) }, 0);
        ends
    };
    let ([a, b], [c, d]) = (pipe(), pipe());
    // SAFETY: no memory.
    let (e, f) = unsafe { (eventfd(0, 0), eventfd(0, 0)) };
    let mut sockets = [0; 2];
    // SAFETY: as above.
    assert_eq!(unsafe { socketpair(AF_UNIX, SOCK_STREAM, 0, sockets.as_mut_ptr()) }, 0);
    let [g, h] = sockets;
    let ends = |read, write| Ends { read, write };
    ([ends(a, d), ends(e, f), ends(g, g)], [ends(c, b), ends(f, e), ends(h, h)])
}

fn send(ends: Ends) -> bool {
    let message = 1u64;
    // SAFETY: eight bytes.
    unsafe { write(ends.write, (&raw const message).cast(), 8) == 8 }
}

fn receive(ends: Ends) -> bool {
    let mut message = 0u64;
    // SAFETY: room for eight bytes.
    unsafe { read(ends.read, (&raw mut message).cast(), 8) == 8 }
}

/// Like `receive`, but waits in poll(2).
fn poll_and_receive(ends: Ends) -> bool {
    let mut entry = pollfd { fd: ends.read, events: POLLIN, revents: 0 };
    // SAFETY: one entry.
    unsafe { poll(&mut entry, 1, -1) == 1 && receive(ends) }
}

fn futex(word: &AtomicU32, operation: i32, value: u32) {
    // SAFETY: the word is there for the call.
    unsafe { syscall(SYS_futex, word.as_ptr(), operation, value, null_mut::<timespec>()) };
}

fn pass(word: &AtomicU32) {
    word.store(1, SeqCst);
    futex(word, FUTEX_WAKE, 1);
}

fn take(word: &AtomicU32) {
    while word.swap(0, SeqCst) == 0 {
        futex(word, FUTEX_WAIT, 0);
    }
}

fn pin(cpu: usize) {
    let mask = 1u64 << cpu;
    // SAFETY: a mask of eight bytes.
    unsafe { syscall(SYS_sched_setaffinity, 0, 8, &mask) };
}

/// A process that does `work` on this CPU.
fn process(cpu: usize, work: impl FnOnce()) {
    // SAFETY: this program has one thread.
    if unsafe { fork() } == 0 {
        pin(cpu);
        work();
        std::process::exit(0);
    }
}

/// One of the pair; the other one answers until a channel ends.
fn lead(all: &Shared, turns: &Turns, cpu: usize) {
    let (mine, others) = channels();
    process(cpu, move || {
        // Else it would not see the end.
        // SAFETY: no memory.
        unsafe { close(mine[0].write) };
        while receive(others[0]) {
            send(others[0]);
            take(&turns.there);
            pass(&turns.back);
            receive(others[1]);
            send(others[1]);
            poll_and_receive(others[2]);
            send(others[2]);
        }
    });
    while all.stop.load(SeqCst) == 0 {
        send(mine[0]);
        receive(mine[0]);
        pass(&turns.there);
        take(&turns.back);
        send(mine[1]);
        receive(mine[1]);
        send(mine[2]);
        receive(mine[2]);
        turns.round_trips.fetch_add(1, SeqCst);
    }
}

/// Lets them run, and prints which locks were contended meanwhile.
fn watch(all: &Shared, cpus: usize, milliseconds: u64) {
    let nap = |milliseconds| std::thread::sleep(std::time::Duration::from_millis(milliseconds));
    let working = |least: u64| all.pairs.iter().take(cpus).all(|turns| turns.round_trips.load(SeqCst) >= least);
    while !working(10) {
        nap(10);
    }
    fs::write(LOCK_STAT, "0").expect("a file that root may write");
    all.pairs.iter().for_each(|turns| turns.round_trips.store(0, SeqCst));
    nap(milliseconds);
    let text = fs::read_to_string(LOCK_STAT).expect("a file that root may read");
    let least = all.pairs.iter().take(cpus).map(|turns| turns.round_trips.load(SeqCst)).min();
    println!("each of {cpus} has made a round trip: {}", least >= Some(10));
    text.lines().skip(1).for_each(|line| println!("{}", line.trim()));
    all.stop.store(1, SeqCst);
    // SAFETY: no status is wanted. Partners belong to their leaders.
    while unsafe { wait(null_mut()) } > 0 {}
}

pub fn run(milliseconds: u64) {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from).min(CPUS);
    println!("pairs");
    let all = shared();
    for (cpu, turns) in all.pairs.iter().enumerate().take(cpus) {
        process(cpu, move || lead(all, turns, cpu));
    }
    watch(all, cpus, milliseconds);
    println!("one pipe");
    let all = shared();
    all_in_one(all, cpus);
    watch(all, cpus, milliseconds);
}

/// Everybody writes to one pipe and reads from it.
fn all_in_one(all: &'static Shared, cpus: usize) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { pipe2(ends.as_mut_ptr(), 0) }, 0);
    let pipe = Ends { read: ends[0], write: ends[1] };
    for (cpu, turns) in all.pairs.iter().enumerate().take(cpus) {
        process(cpu, move || {
            while all.stop.load(SeqCst) == 0 {
                // Who has written can always read: there are as many messages as writers that have not read yet.
                send(pipe);
                receive(pipe);
                turns.round_trips.fetch_add(1, SeqCst);
            }
        });
    }
}
