//! Who wants what comes under a key.

use alloc::collections::BTreeMap;
use alloc::sync::{Arc, Weak};
use core::ops::Bound;

use smallvec::SmallVec;

use crate::sync::SpinLock;

/// How many are looked for at a time.
const SOME: usize = 32;

/// Sockets by keys; its lock is a leaf, under which no last reference to a socket goes.
pub struct Listeners<K, S> {
    all: SpinLock<BTreeMap<(K, usize), Weak<S>>>,
}

impl<K: Ord + Copy, S> Listeners<K, S> {
    pub const fn new() -> Self {
        Listeners { all: SpinLock::new(BTreeMap::new()) }
    }

    pub fn add(&self, key: K, socket: &Weak<S>) {
        self.all.lock().insert((key, socket.as_ptr().addr()), socket.clone());
    }

    pub fn remove(&self, key: K, socket: *const S) {
        self.all.lock().remove(&(key, socket.addr()));
    }

    /// Those under a key. Who begins or ends meanwhile may be missed.
    pub fn each(&self, key: K) -> impl Iterator<Item = Arc<S>> {
        self.between(key, key)
    }

    /// Those under the keys from `first` to `end`, in their order.
    pub fn between(&self, first: K, last: K) -> impl Iterator<Item = Arc<S>> {
        let mut from = Bound::Included((first, 0));
        let mut some = SmallVec::<[Arc<S>; SOME]>::new().into_iter();
        core::iter::from_fn(move || {
            loop {
                if let Some(socket) = some.next() {
                    return Some(socket);
                }
                let mut next = SmallVec::<[_; SOME]>::new();
                let mut end = true;
                let all = self.all.lock();
                for (place, socket) in all.range((from, Bound::Included((last, usize::MAX)))).take(SOME) {
                    end = false;
                    from = Bound::Excluded(*place);
                    next.extend(socket.upgrade());
                }
                drop(all);
                if end {
                    return None;
                }
                some = next.into_iter();
            }
        })
    }
}
