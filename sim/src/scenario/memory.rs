//! Little memory: calls may fail and processes may be killed, but what is read is what was written. In pages, and in blocks
//! of 2 MiB that are cut up.

use pollux_kernel::mm::huge;

use super::Setup;
use crate::rng::Rng;
use crate::user::{Program, U, errno, program};

const NR_MUNMAP: u64 = 215;
const NR_MMAP: u64 = 222;
const NR_MADVISE: u64 = 233;
const NR_MREMAP: u64 = 216;
const NR_MPROTECT: u64 = 226;
const DONTNEED: u64 = 4;
const HUGEPAGE: u64 = 14;
const MAYMOVE: u64 = 1;
const ENOMEM: i64 = -12;
const EAGAIN: i64 = -11;
const SIGKILL: u32 = 9;
const PAGE: u64 = 4096;

/// Mapped memory, and the word that each page has.
struct Area {
    addr: u64,
    words: Vec<u32>,
}

struct Process {
    u: U,
    rng: Rng,
    areas: Vec<Area>,
    /// Areas are large, huge pages wanted, and changed in part.
    blocks: bool,
}

impl Process {
    async fn step(&mut self, depth: u64) {
        match self.rng.below(8) {
            0 | 1 => self.map().await,
            2..=4 => self.write().await,
            5 => self.check().await,
            6 if self.blocks && self.rng.one_in(2) => self.change_part().await,
            6 => self.forget().await,
            _ if depth > 0 => self.fork(depth - 1).await,
            _ => {}
        }
    }

    async fn map(&mut self) {
        let pages = if self.blocks { self.rng.range(500, 1500) } else { self.rng.range(1, 200) };
        let addr = self.u.call(NR_MMAP, &[0, pages * PAGE, 3, 0x22, u64::MAX, 0]).await;
        assert!(addr > 0 || addr == ENOMEM, "mmap: {}", errno(addr));
        if addr > 0 && self.blocks {
            assert_eq!(self.u.call(NR_MADVISE, &[addr as u64, pages * PAGE, HUGEPAGE]).await, 0);
        }
        if addr > 0 {
            self.areas.push(Area { addr: addr as u64, words: vec![0; pages as usize] });
        }
    }

    async fn write(&mut self) {
        let Self { u, rng, areas, blocks } = self;
        if areas.is_empty() {
            return;
        }
        let index = rng.below(areas.len() as u64) as usize;
        let area = &mut areas[index];
        for (page, word) in area.words.iter_mut().enumerate() {
            if rng.one_in(if *blocks { 32 } else { 2 }) {
                let value = rng.next() as u32;
                u.store(area.addr + page as u64 * PAGE + 64, value).await;
                *word = value;
            }
        }
    }

    async fn check(&mut self) {
        for area in &self.areas {
            for (page, word) in area.words.iter().enumerate() {
                let found = self.u.load(area.addr + page as u64 * PAGE + 64).await;
                assert!(found == *word, "page {page} of {:#x} holds {found:#x} instead of {word:#x}", area.addr);
            }
        }
    }

    /// A few pages go back, or lose the right to be written for a while, or the whole area moves.
    async fn change_part(&mut self) {
        let Self { u, rng, areas, .. } = self;
        let Some(area) = areas.last_mut() else { return };
        let count = area.words.len() as u64;
        let first = rng.below(count);
        let pages = rng.range(1, (count - first).min(600));
        let (addr, len) = (area.addr + first * PAGE, pages * PAGE);
        match rng.below(3) {
            0 => {
                let result = u.call(NR_MADVISE, &[addr, len, DONTNEED]).await;
                assert!(result == 0, "madvise: {}", errno(result));
                area.words[first as usize..(first + pages) as usize].fill(0);
            }
            1 => {
                for rights in [1, 3] {
                    let result = u.call(NR_MPROTECT, &[addr, len, rights]).await;
                    assert!(result == 0 || result == ENOMEM, "mprotect: {}", errno(result));
                }
            }
            _ => {
                let len = count * PAGE;
                let moved = u.call(NR_MREMAP, &[area.addr, len, len + 8 * PAGE, MAYMOVE]).await;
                assert!(moved > 0 || moved == ENOMEM, "mremap: {}", errno(moved));
                if moved > 0 {
                    area.addr = moved as u64;
                    area.words.resize(count as usize + 8, 0);
                }
            }
        }
    }

    /// Pages go back, or the whole area.
    async fn forget(&mut self) {
        if self.areas.is_empty() {
            return;
        }
        let index = self.rng.below(self.areas.len() as u64) as usize;
        let (addr, len) = (self.areas[index].addr, self.areas[index].words.len() as u64 * PAGE);
        if self.rng.one_in(2) {
            assert_eq!(self.u.call(NR_MADVISE, &[addr, len, DONTNEED]).await, 0);
            self.areas[index].words.fill(0);
        } else {
            assert_eq!(self.u.call(NR_MUNMAP, &[addr, len]).await, 0);
            self.areas.remove(index);
        }
    }

    /// The child has a copy of everything; what either writes the other does not see.
    async fn fork(&mut self, depth: u64) {
        let areas = self.areas.iter().map(|area| Area { addr: area.addr, words: area.words.clone() }).collect();
        let child = Process { u: self.u, rng: self.rng.split(), areas, blocks: self.blocks };
        let steps = self.rng.range(1, 8);
        let pid = self.u.fork(program(move |_| live(child, steps, depth))).await;
        assert!(pid > 0 || pid == ENOMEM || pid == EAGAIN, "fork: {}", errno(pid));
        if pid > 0 {
            for _ in 0..self.rng.below(3) {
                self.write().await;
            }
            let status = self.u.wait_for(pid).await;
            assert!(status == 0 || status == SIGKILL, "a child ended with {status:#x}");
        }
    }
}

async fn live(mut process: Process, steps: u64, depth: u64) -> i32 {
    for _ in 0..steps {
        Box::pin(process.step(depth)).await;
    }
    process.check().await;
    0
}

pub fn pressure(setup: &mut Setup) -> Program {
    setup.config.memory = setup.rng.range(4, 16);
    processes(setup, false)
}

pub fn blocks(setup: &mut Setup) -> Program {
    setup.config.memory = setup.rng.range(16, 64);
    let policy = if setup.rng.one_in(2) { "madvise" } else { "always" };
    huge::ENABLED.set(policy.as_bytes()).expect("a known policy");
    processes(setup, true)
}

fn processes(setup: &mut Setup, blocks: bool) -> Program {
    let mut rng = setup.rng.split();
    let processes = rng.range(1, 4);
    let steps = rng.range(5, 30);
    program(move |u| async move {
        let mut children = Vec::new();
        for _ in 0..processes {
            let process = Process { u, rng: rng.split(), areas: Vec::new(), blocks };
            let pid = u.fork(program(move |_| live(process, steps, 2))).await;
            assert!(pid > 0 || pid == ENOMEM, "fork: {}", errno(pid));
            if pid > 0 {
                children.push(pid);
            }
        }
        for pid in children {
            let status = u.wait_for(pid).await;
            assert!(status == 0 || status == SIGKILL, "a process ended with {status:#x}");
        }
        0
    })
}
