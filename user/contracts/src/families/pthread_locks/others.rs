//! Locks for readers and writers, barriers and semaphores.

use libc::*;

use super::{SHARED, Shared, done, elsewhere, shown, soon};
use crate::process::{self, child, sleeping_thread, until_asleep, wait};
use crate::say;
use crate::sys::zeroed;

pub fn readers_and_writers() {
    let lock = Shared::<pthread_rwlock_t>::new();
    let at = lock.at() as usize;
    // SAFETY: it is made here, and lives in memory that stays.
    unsafe {
        pthread_rwlock_init(lock.at(), std::ptr::null());
        let at = move || at as *mut pthread_rwlock_t;
        say!(
            "two readers: {} {}",
            shown(pthread_rwlock_rdlock(at())),
            shown(elsewhere(move || pthread_rwlock_tryrdlock(at())))
        );
        say!("a writer: {}", shown(elsewhere(move || pthread_rwlock_trywrlock(at()))));
        let (_, writer) = sleeping_thread(move || (pthread_rwlock_wrlock(at()), pthread_rwlock_unlock(at())));
        say!("unlock: {} {}", shown(pthread_rwlock_unlock(at())), shown(pthread_rwlock_unlock(at())));
        let (locked, unlocked) = done(writer);
        say!("the writer: {} {}", shown(locked), shown(unlocked));
        pthread_rwlock_wrlock(at());
        let readers: Vec<_> = (0..3).map(|_| sleeping_thread(move || pthread_rwlock_rdlock(at())).1).collect();
        pthread_rwlock_unlock(at());
        let all: Vec<String> = readers.into_iter().map(|reader| shown(done(reader))).collect();
        say!("readers: {all:?}, a writer: {}", shown(pthread_rwlock_trywrlock(at())));
    }
}

pub fn barrier() {
    let barrier = Shared::<pthread_barrier_t>::new();
    let at = barrier.at() as usize;
    // SAFETY: it is made here, and lives in memory that stays.
    unsafe { pthread_barrier_init(barrier.at(), std::ptr::null(), 4) };
    for round in 0..3 {
        // SAFETY: as above.
        let pass = move || unsafe { pthread_barrier_wait(at as *mut pthread_barrier_t) };
        let others: Vec<_> = (0..3).map(|_| sleeping_thread(pass).1).collect();
        let mut all = vec![pass()];
        all.extend(others.into_iter().map(done));
        let serial = all.iter().filter(|result| **result == PTHREAD_BARRIER_SERIAL_THREAD).count();
        say!("round {round}: {} came, {serial} of them is told to go on alone", all.len());
    }
}

pub fn barrier_of_processes() {
    let barrier = Shared::<pthread_barrier_t>::new();
    let mut attributes: pthread_barrierattr_t = zeroed();
    // SAFETY: it is made here, and lives in memory that stays.
    unsafe {
        pthread_barrierattr_init(&mut attributes);
        pthread_barrierattr_setpshared(&mut attributes, SHARED);
        pthread_barrier_init(barrier.at(), &attributes, 3);
    }
    // SAFETY: as above.
    let pass = || i32::from(unsafe { pthread_barrier_wait(barrier.at()) } == PTHREAD_BARRIER_SERIAL_THREAD);
    let children = [child(pass), child(pass)];
    let own = pass();
    let serial: i32 = children.map(|pid| i32::from(wait(pid) == process::Status::Exited(1))).iter().sum();
    say!("serial threads: {}", own + serial);
}

pub fn semaphore() {
    let semaphore = Shared::<sem_t>::new();
    let at = semaphore.at() as usize;
    let at = move || at as *mut sem_t;
    // SAFETY: it is made here, and lives in memory that stays.
    unsafe {
        sem_init(at(), 1, 0);
        let (_, waiter) = sleeping_thread(move || sem_wait(at()));
        say!("post: {}, {}", sem_post(at()), done(waiter));
        say!("in time: {}", sem_timedwait(at(), &soon(CLOCK_REALTIME, 5)));
        let other = child(|| sem_wait(at()));
        until_asleep(other);
        sem_post(at());
        say!("another process: {}", wait(other));
    }
}
