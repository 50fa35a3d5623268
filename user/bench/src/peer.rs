//! The second party of a conversation: a process or a thread.

use std::ffi::c_void;
use std::ptr;

use crate::measure::Result;
use crate::sys;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Process,
    Thread,
}

/// A second party that runs until its work is done.
pub enum Peer {
    Process(i32),
    Thread(libc::pthread_t),
}

type Work = Box<dyn FnOnce() -> Result + Send>;

impl Peer {
    /// Starts it. What it works with must be shared with it: descriptors, or memory from
    /// [`Shared`].
    pub fn start(kind: Kind, work: impl FnOnce() -> Result + Send + 'static) -> Result<Peer> {
        match kind {
            Kind::Process => match sys::fork()? {
                0 => sys::exit(i32::from(work().is_err())),
                child => Ok(Peer::Process(child)),
            },
            Kind::Thread => {
                let work: Box<Work> = Box::new(Box::new(work));
                let mut thread = thread_zero();
                // SAFETY: `run` takes the work over and frees it.
                let code = unsafe {
                    libc::pthread_create(&mut thread, ptr::null(), run, Box::into_raw(work).cast::<c_void>())
                };
                sys::check_code("pthread_create", code)?;
                Ok(Peer::Thread(thread))
            }
        }
    }

    /// Waits until it has finished, which it must do well.
    pub fn join(self) -> Result {
        match self {
            Peer::Process(child) => sys::wait_well(child),
            Peer::Thread(thread) => {
                let mut failed = ptr::null_mut();
                // SAFETY: a thread that nobody else has joined.
                sys::check_code("pthread_join", unsafe { libc::pthread_join(thread, &mut failed) })?;
                sys::expect(failed.is_null(), "the other thread failed")
            }
        }
    }
}

fn thread_zero() -> libc::pthread_t {
    // SAFETY: an integer or a pointer: zero is a value of both.
    unsafe { std::mem::zeroed() }
}

extern "C" fn run(work: *mut c_void) -> *mut c_void {
    // SAFETY: made by `Peer::start`, which hands it over.
    let work = unsafe { Box::from_raw(work.cast::<Work>()) };
    ptr::without_provenance_mut(usize::from(work().is_err()))
}

/// One value in memory that processes share, too. Lives as long as the process.
pub struct Shared<T: Sync + 'static>(pub &'static T);

impl<T: Sync> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Sync> Copy for Shared<T> {}

impl<T: Sync> Shared<T> {
    pub fn new(value: T) -> Result<Shared<T>> {
        let place = sys::map(size_of::<T>().next_multiple_of(4096), libc::MAP_SHARED)?.cast::<T>();
        // SAFETY: fresh memory, big enough, aligned to a page, and never given back.
        unsafe {
            place.write(value);
            Ok(Shared(&*place))
        }
    }
}
