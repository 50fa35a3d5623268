//! Resource limits (getrlimit(2)).

use core::sync::atomic::Ordering;

use crate::sync::SpinLock;

/// RLIMIT_* numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Resource {
    Cpu = 0,
    Fsize = 1,
    Data = 2,
    Stack = 3,
    Core = 4,
    Rss = 5,
    Nproc = 6,
    Nofile = 7,
    Memlock = 8,
    As = 9,
    Locks = 10,
    Sigpending = 11,
    Msgqueue = 12,
    Nice = 13,
    Rtprio = 14,
    Rttime = 15,
}

pub const RESOURCES: usize = 16;
pub const INFINITY: u64 = u64::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    pub soft: u64,
    pub hard: u64,
}

/// The limits of a process, in the units of getrlimit(2).
pub struct Limits(SpinLock<[Limit; RESOURCES]>);

impl Limits {
    /// The values that Linux gives its first process (include/asm-generic/resource.h), with `nproc` and `sigpending`
    /// taken from the size of memory.
    pub fn initial(threads_max: u64) -> Self {
        const fn both(value: u64) -> Limit {
            Limit { soft: value, hard: value }
        }
        let mut limits = [both(INFINITY); RESOURCES];
        limits[Resource::Stack as usize] = Limit { soft: 8 << 20, hard: INFINITY };
        limits[Resource::Core as usize] = Limit { soft: 0, hard: INFINITY };
        limits[Resource::Nproc as usize] = both(threads_max / 2);
        limits[Resource::Nofile as usize] = Limit { soft: 1024, hard: 4096 };
        limits[Resource::Memlock as usize] = both(8 << 20);
        limits[Resource::Sigpending as usize] = both(threads_max / 2);
        limits[Resource::Msgqueue as usize] = both(819_200);
        limits[Resource::Nice as usize] = both(0);
        limits[Resource::Rtprio as usize] = both(0);
        Limits(SpinLock::new(limits))
    }

    pub fn get(&self, resource: Resource) -> Limit {
        self.0.lock()[resource as usize]
    }

    pub fn set(&self, resource: Resource, limit: Limit) {
        self.0.lock()[resource as usize] = limit;
    }

    /// Hands the limits on memory to an address space, which obeys its own copy.
    pub fn publish_to(&self, memory: &crate::mm::Limits) {
        let limits = *self.0.lock();
        memory.address_space.store(limits[Resource::As as usize].soft, Ordering::Relaxed);
        // Of mappings a soft limit of 0 means none (Linux since 4.7, for programs that did not know that they count).
        let data = limits[Resource::Data as usize];
        memory.data.store(if data.soft == 0 { data.hard } else { data.soft }, Ordering::Relaxed);
        memory.heap.store(data.soft, Ordering::Relaxed);
        memory.stack.store(limits[Resource::Stack as usize].soft, Ordering::Relaxed);
        memory.memlock.store(limits[Resource::Memlock as usize].soft, Ordering::Relaxed);
    }

    pub fn fork(&self) -> Self {
        Limits(SpinLock::new(*self.0.lock()))
    }
}

impl Resource {
    pub fn from_raw(raw: u32) -> Option<Resource> {
        use Resource::*;
        const ALL: [Resource; RESOURCES] = [
            Cpu, Fsize, Data, Stack, Core, Rss, Nproc, Nofile, Memlock, As, Locks, Sigpending, Msgqueue, Nice, Rtprio,
            Rttime,
        ];
        ALL.get(raw as usize).copied()
    }
}
