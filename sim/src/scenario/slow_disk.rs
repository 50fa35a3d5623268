//! A disk that takes seconds for everything. Who maps it and is killed while a page is being read ends at once, and who is not
//! killed sees what is on the disk, whoever else has given up reading the same pages.

use super::Setup;
use crate::disk::Habits;
use crate::user::{Program, U, errno, program};

const NR_MKDIRAT: u64 = 34;
const NR_MOUNT: u64 = 40;
const NR_OPENAT: u64 = 56;
const NR_KILL: u64 = 129;
const NR_MMAP: u64 = 222;
const NR_WAIT4: u64 = 260;
const AT_FDCWD: u64 = -100i64 as u64;
const MAP_SHARED: u64 = 1;
const MAP_PRIVATE: u64 = 2;
const SIGKILL: u32 = 9;
const PAGE: u64 = 4096;
const PAGES: u64 = 256;
/// What a request may take, and a killed process until it has ended (ns).
const SLOW: u64 = 1_000_000_000;
const SOON: u64 = 50_000_000;

fn mark(page: u64) -> u32 {
    0x7000_0000 + page as u32
}

impl U {
    async fn map_disk(self, flags: u64) -> u64 {
        let path = self.place_str("/dev/vda").await;
        let fd = self.call(NR_OPENAT, &[AT_FDCWD, path, 0]).await;
        assert!(fd >= 0, "open: {}", errno(fd));
        let addr = self.call(NR_MMAP, &[0, PAGES * PAGE, 1, flags, fd as u64, 0]).await;
        assert!(addr > 0, "mmap: {}", errno(addr));
        addr as u64
    }

    async fn read_some(self, addr: u64, times: u64) {
        for _ in 0..times {
            let page = self.random(PAGES);
            assert_eq!(self.load(addr + page * PAGE).await, mark(page), "page {page}");
        }
    }
}

fn reader(flags: u64, times: u64) -> Program {
    program(move |u| async move {
        let addr = u.map_disk(flags).await;
        u.read_some(addr, times).await;
        0
    })
}

pub fn killed(setup: &mut Setup) -> Program {
    let mut image = vec![0; (PAGES * PAGE) as usize];
    for page in 0..PAGES {
        image[(page * PAGE) as usize..][..4].copy_from_slice(&mark(page).to_le_bytes());
    }
    setup.disk = Some((image.leak(), Habits { delay: SLOW, fail_one_in: 0, unit: 1 }));
    // Requests that nobody waits for have pages, and the disk's cache what others have read.
    setup.may_lose = i64::MAX;
    let rounds = setup.rng.range(3, 10);
    program(move |u| async move {
        let dev = u.place_str("/dev").await;
        assert_eq!(u.call(NR_MKDIRAT, &[AT_FDCWD, dev, 0o755]).await, 0);
        let devtmpfs = u.place_str("devtmpfs").await;
        assert_eq!(u.call(NR_MOUNT, &[devtmpfs, dev, devtmpfs, 0, 0]).await, 0);
        let patient = u.fork(reader(MAP_SHARED, 4)).await;
        for _ in 0..rounds {
            let flags = if u.random(2) == 0 { MAP_SHARED } else { MAP_PRIVATE };
            let child = u.fork(reader(flags, u64::MAX)).await;
            assert!(child > 0, "fork: {}", errno(child));
            u.pause(SLOW / 4).await;
            assert_eq!(u.call(NR_KILL, &[child as u64, SIGKILL.into()]).await, 0);
            let killed = u.now();
            assert_eq!(u.ended(child).await, SIGKILL);
            let took = u.now() - killed;
            assert!(took < SOON, "it took {took} ns to end");
        }
        assert_eq!(u.ended(patient).await, 0);
        0
    })
}

impl U {
    async fn ended(self, pid: i64) -> u32 {
        let status = self.scratch(4);
        let waited = self.call(NR_WAIT4, &[pid as u64, status, 0, 0]).await;
        assert_eq!(waited, pid, "wait4: {}", errno(waited));
        self.load(status).await
    }
}
