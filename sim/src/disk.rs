//! A disk that completes requests late and out of order, keeps writes in a volatile cache until a flush, fails now and then,
//! and can lose power: then any part of what was not flushed is there, sector by sector.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use pollux_kernel::arch::{self, sim};
use pollux_kernel::errno::Errno;
use pollux_kernel::fs::DeviceId;
use pollux_kernel::fs::block::{self, BlockDevice, Request, SECTOR_SIZE, Transfer};

use crate::machine;
use crate::rng::Rng;

const INTID: u32 = 48;

/// How a disk behaves.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Most requests take up to so many ns, and one in 16 up to 20 times that.
    pub delay: u64,
    /// So many requests are served before one fails; 0: none does.
    pub fail_one_in: u64,
    /// Sectors that arrive together or not at all when power goes.
    pub unit: usize,
}

type Sector = [u8; SECTOR_SIZE];

struct Content {
    base: &'static [u8],
    /// What reads see, where it differs.
    current: BTreeMap<u64, Sector>,
    /// What a power cut leaves for sure.
    stable: BTreeMap<u64, Sector>,
    /// Completed writes that no flush has covered, in order.
    volatile: Vec<(u64, Vec<Sector>)>,
    waiting: Vec<Waiting>,
    numbers: u64,
    rng: Rng,
}

struct Waiting {
    number: u64,
    due: u64,
    request: Request,
    /// Flushes: how many volatile writes were complete when it came.
    covers: usize,
}

pub struct Disk {
    sectors: u64,
    habits: Habits,
    content: Mutex<Content>,
}

/// There is one in a machine.
static DISK: OnceLock<Arc<Disk>> = OnceLock::new();

/// Registers /dev/vda. To be called when the machine has booted: by a scenario's first program, say.
pub fn attach(base: &'static [u8], habits: Habits) {
    let content = Content {
        base,
        current: BTreeMap::new(),
        stable: BTreeMap::new(),
        volatile: Vec::new(),
        waiting: Vec::new(),
        numbers: 0,
        rng: machine::split_rng(),
    };
    let disk = Disk { sectors: (base.len() / SECTOR_SIZE) as u64, habits, content: Mutex::new(content) };
    let disk = DISK.get_or_init(|| Arc::new(disk)).clone();
    arch::irq::register(INTID, 0, |_| interrupt(), 0);
    block::register(block::Disk { name: "vda".into(), id: DeviceId::new(254, 0), device: disk });
}

fn content<R>(access: impl FnOnce(&mut Content) -> R) -> R {
    let disk = DISK.get().expect("no disk");
    access(&mut disk.content.lock().expect("one thread"))
}

/// What the disk holds if everything written arrives.
pub fn image() -> Vec<u8> {
    content(|content| {
        let mut image = content.base.to_vec();
        content.current.iter().for_each(|(at, sector)| put(&mut image, *at, sector));
        image
    })
}

/// What a power cut leaves: everything flushed, and any part of the rest.
pub fn image_after_power_cut() -> Vec<u8> {
    let size = DISK.get().expect("no disk").habits.unit;
    content(|content| {
        let mut image = content.base.to_vec();
        content.stable.iter().for_each(|(at, sector)| put(&mut image, *at, sector));
        let mut rest = content.volatile.clone();
        rest.extend(content.waiting.iter().filter(|w| w.request.transfer == Transfer::Write).map(written));
        let arrives = *content.rng.pick(&[2, 5, 100]);
        for (first, sectors) in rest {
            // A request arrives as a whole, not at all, or torn.
            let fate = content.rng.below(3);
            for (index, unit) in sectors.chunks(size).enumerate() {
                if fate == 1 || fate == 2 && content.rng.below(arrives) > 0 {
                    let at = first + (index * size) as u64;
                    (at..).zip(unit).for_each(|(at, sector)| put(&mut image, at, sector));
                }
            }
        }
        image
    })
}

fn put(image: &mut [u8], at: u64, sector: &Sector) {
    let at = at as usize * SECTOR_SIZE;
    image[at..at + SECTOR_SIZE].copy_from_slice(sector);
}

/// The sectors that a request writes.
fn written(waiting: &Waiting) -> (u64, Vec<Sector>) {
    let mut bytes = Vec::new();
    for memory in &waiting.request.memory {
        // SAFETY: the request owns its memory; nothing else runs meanwhile.
        bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(memory.as_ptr(), memory.len()) });
    }
    (waiting.request.sector, bytes.as_chunks().0.to_vec())
}

impl BlockDevice for Disk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn max_segments(&self) -> usize {
        5
    }

    fn submit(&self, request: Request) {
        let mut content = self.content.lock().expect("one thread");
        let slow = if content.rng.one_in(16) { 20 } else { 1 };
        let delay = content.rng.below(self.habits.delay * slow);
        content.numbers += 1;
        let number = content.numbers;
        let covers = content.volatile.len();
        machine::trace(format!(
            "disk: {number} {:?} of {} bytes at {}",
            request.transfer,
            request.len(),
            request.sector
        ));
        content.waiting.push(Waiting { number, due: arch::now_ns() + delay, request, covers });
        machine::after(delay, || sim::raise(INTID));
    }
}

/// Completes what is due.
fn interrupt() {
    let now = arch::now_ns();
    loop {
        let done = content(|content| {
            let index = content.waiting.iter().position(|waiting| waiting.due <= now)?;
            let waiting = content.waiting.remove(index);
            Some((content.perform(&waiting), waiting))
        });
        let Some((result, waiting)) = done else { return };
        machine::trace(format!("disk: {} done: {result:?}", waiting.number));
        waiting.request.complete(result);
    }
}

impl Content {
    fn perform(&mut self, waiting: &Waiting) -> Result<(), Errno> {
        let habits = DISK.get().expect("a disk").habits;
        if habits.fail_one_in != 0 && self.rng.one_in(habits.fail_one_in) {
            return Err(Errno::EIO);
        }
        match waiting.request.transfer {
            Transfer::Read => self.read(&waiting.request),
            Transfer::Write => {
                let (first, sectors) = written(waiting);
                self.current.extend((first..).zip(sectors.iter().copied()));
                self.volatile.push((first, sectors));
            }
            Transfer::Flush => self.flush(waiting.covers),
        }
        Ok(())
    }

    fn read(&self, request: &Request) {
        let mut at = request.sector;
        for memory in &request.memory {
            // SAFETY: the request owns its memory; nothing else runs meanwhile.
            let to = unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), memory.len()) };
            for chunk in to.chunks_mut(SECTOR_SIZE) {
                let base = at as usize * SECTOR_SIZE;
                let found = self.current.get(&at).map_or(&self.base[base..base + SECTOR_SIZE], |sector| &sector[..]);
                chunk.copy_from_slice(&found[..chunk.len()]);
                at += 1;
            }
        }
    }

    fn flush(&mut self, covers: usize) {
        for (first, sectors) in self.volatile.drain(..covers.min(self.volatile.len())) {
            self.stable.extend((first..).zip(sectors));
        }
        // Those flushes that came while this one was under way cover what is left of theirs.
        for waiting in &mut self.waiting {
            waiting.covers = waiting.covers.saturating_sub(covers);
        }
    }
}
