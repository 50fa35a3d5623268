//! What is left when a thread is cancelled: pthread_cancel(3).

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};

use libc::*;

use super::{BOTH, Condition, LENDING, Mutex, ROBUST_ONE, Shared, shown};
use crate::file::{pipe, write};
use crate::process::{self, child, kill, sleep_ms, tid, until_asleep, wait};
use crate::say;

unsafe extern "C" {
    fn pthread_setcancelstate(state: i32, old: *mut i32) -> i32;
    fn pthread_testcancel();
}

/// A thread of the C library, which can be cancelled.
struct Raw(pthread_t);

static TID: AtomicI32 = AtomicI32::new(0);
static CLEANED: AtomicI32 = AtomicI32::new(0);

impl Raw {
    /// Begins a thread, and waits until it sleeps.
    fn asleep(body: extern "C" fn(*mut c_void) -> *mut c_void, argument: usize) -> Raw {
        TID.store(0, SeqCst);
        let mut thread = MaybeUninit::uninit();
        // SAFETY: the function takes what it is given.
        unsafe { pthread_create(thread.as_mut_ptr(), std::ptr::null(), body, argument as *mut c_void) };
        while TID.load(SeqCst) == 0 {
            sleep_ms(1);
        }
        until_asleep(TID.load(SeqCst));
        // SAFETY: it was made.
        Raw(unsafe { thread.assume_init() })
    }

    fn cancel(self) -> &'static str {
        // SAFETY: a thread that was not joined.
        unsafe {
            pthread_cancel(self.0);
        }
        self.end()
    }

    fn end(self) -> &'static str {
        let mut value = std::ptr::null_mut();
        // SAFETY: as above.
        unsafe { pthread_join(self.0, &mut value) };
        match value as isize {
            -1 => "cancelled",
            0 => "at its end",
            _ => "something else",
        }
    }
}

fn begin() {
    TID.store(tid(), SeqCst);
}

extern "C" fn reads(fd: *mut c_void) -> *mut c_void {
    let mut byte = 0u8;
    begin();
    // SAFETY: a byte of its own.
    unsafe { read(fd as i32, (&raw mut byte).cast(), 1) };
    std::ptr::null_mut()
}

extern "C" fn sleeps(_: *mut c_void) -> *mut c_void {
    begin();
    // SAFETY: without arguments.
    unsafe { sleep(1000) };
    std::ptr::null_mut()
}

extern "C" fn polls(fd: *mut c_void) -> *mut c_void {
    let mut set = pollfd { fd: fd as i32, events: POLLIN, revents: 0 };
    begin();
    // SAFETY: one entry.
    unsafe { poll(&mut set, 1, -1) };
    std::ptr::null_mut()
}

extern "C" fn waits_for_semaphore(at: *mut c_void) -> *mut c_void {
    begin();
    // SAFETY: it was made.
    unsafe { sem_wait(at.cast()) };
    std::ptr::null_mut()
}

extern "C" fn waits_for_child(_: *mut c_void) -> *mut c_void {
    begin();
    // SAFETY: nothing is written.
    unsafe { waitpid(-1, std::ptr::null_mut(), 0) };
    std::ptr::null_mut()
}

pub fn cancel_while_blocked() {
    let [reader, _writer] = pipe();
    say!("read: {}", Raw::asleep(reads, reader as usize).cancel());
    say!("sleep: {}", Raw::asleep(sleeps, 0).cancel());
    say!("poll: {}", Raw::asleep(polls, reader as usize).cancel());
    let semaphore = Shared::<sem_t>::new();
    // SAFETY: it is made here.
    unsafe { sem_init(semaphore.at(), 0, 0) };
    say!("semaphore: {}", Raw::asleep(waits_for_semaphore, semaphore.at() as usize).cancel());
    let sleeper = child(|| {
        sleep_ms(100_000);
        0
    });
    say!("wait: {}", Raw::asleep(waits_for_child, 0).cancel());
    kill(sleeper, SIGKILL);
    wait(sleeper);
}

/// A mutex and a condition.
static PLACES: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

struct Both {
    mutex: &'static Mutex,
    condition: &'static Condition,
}

extern "C" fn waits_for_condition(both: *mut c_void) -> *mut c_void {
    // SAFETY: the test's, which waits for this thread.
    let both = unsafe { &*both.cast::<Both>() };
    both.mutex.lock();
    begin();
    PLACES[0].fetch_add(1, SeqCst);
    both.condition.wait(both.mutex);
    PLACES[1].fetch_add(1, SeqCst);
    both.mutex.unlock();
    std::ptr::null_mut()
}

/// A thread that is cancelled in a condition has its lock again when it ends: a robust one tells.
pub fn cancel_in_a_condition() {
    for (name, like) in [("robust", ROBUST_ONE), ("both", BOTH)] {
        let both = Both { mutex: like.mutex(), condition: Condition::with(CLOCK_MONOTONIC) };
        let thread = Raw::asleep(waits_for_condition, &raw const both as usize);
        say!("{name}: {}", thread.cancel());
        say!("the lock: {}", shown(both.mutex.lock()));
        say!("mended: {} {}", shown(both.mutex.consistent()), shown(both.mutex.unlock()));
    }
    say!("waited: {}, went on: {}", PLACES[0].load(SeqCst), PLACES[1].load(SeqCst));
}

extern "C" fn reads_without_cancelling(fd: *mut c_void) -> *mut c_void {
    let mut byte = 0u8;
    // SAFETY: a byte of its own; no old state is wanted.
    unsafe {
        pthread_setcancelstate(1, std::ptr::null_mut());
        begin();
        read(fd as i32, (&raw mut byte).cast(), 1);
        CLEANED.store(byte.into(), SeqCst);
        pthread_setcancelstate(0, std::ptr::null_mut());
        pthread_testcancel();
    }
    std::ptr::null_mut()
}

pub fn cancel_is_held_off() {
    let [reader, writer] = pipe();
    let thread = Raw::asleep(reads_without_cancelling, reader as usize);
    // SAFETY: a thread that was not joined.
    unsafe { pthread_cancel(thread.0) };
    sleep_ms(20);
    say!("it reads on: {}", CLEANED.load(SeqCst) == 0);
    write(writer, "x");
    say!("it has read: {}, {}", thread.end(), CLEANED.load(SeqCst) == i32::from(b'x'));
}

extern "C" fn locks(mutex: *mut c_void) -> *mut c_void {
    // SAFETY: a mutex that stays.
    let mutex = unsafe { &*mutex.cast::<Mutex>() };
    begin();
    mutex.lock();
    mutex.unlock();
    // SAFETY: a point at which it may be cancelled.
    unsafe { pthread_testcancel() };
    std::ptr::null_mut()
}

/// pthread_mutex_lock is no point of cancelling.
pub fn no_cancel_in_a_lock() {
    for (name, like) in [("robust", ROBUST_ONE), ("lending", LENDING)] {
        let mutex = like.mutex();
        mutex.lock();
        let thread = Raw::asleep(locks, std::ptr::from_ref(mutex) as usize);
        // SAFETY: a thread that was not joined.
        unsafe { pthread_cancel(thread.0) };
        sleep_ms(20);
        say!("{name}, it waits on: {}", process::state(TID.load(SeqCst)));
        mutex.unlock();
        say!("then: {}, the lock: {}", thread.end(), shown(mutex.try_lock()));
    }
}
