//! A disk in memory that completes requests late and out of order, keeps writes in a volatile cache until a flush, and
//! can lose power.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::errno::Errno;
use crate::exec;
use crate::fs::block::{BlockDevice, Request, SECTOR_SIZE, Transfer};
use crate::mm::test_util::Rng;

struct Content {
    /// What reads see.
    current: Vec<u8>,
    /// What a power cut leaves for sure.
    stable: Vec<u8>,
    /// Writes since the last flush.
    volatile: Vec<(u64, Vec<u8>)>,
    /// Requests until power goes: what comes then changes only what reads see.
    left: Option<u64>,
}

pub struct TestDisk {
    content: Arc<Mutex<Content>>,
    sectors: u64,
    rng: Mutex<Rng>,
    /// Requests whose order is shuffled are delayed by up to so many polls.
    delay: u64,
    pub fail_writes: AtomicBool,
    /// Reads that begin at this sector fail.
    pub bad_sector: AtomicU64,
    pub requests: AtomicU64,
    pub flushes: AtomicU64,
}

impl TestDisk {
    pub fn new(image: Vec<u8>, seed: u64) -> Arc<TestDisk> {
        let sectors = (image.len() / SECTOR_SIZE) as u64;
        let content = Content { stable: image.clone(), current: image, volatile: Vec::new(), left: None };
        Arc::new(TestDisk {
            content: Arc::new(Mutex::new(content)),
            sectors,
            rng: Mutex::new(Rng(seed | 1)),
            delay: 6,
            fail_writes: AtomicBool::new(false),
            bad_sector: AtomicU64::new(u64::MAX),
            requests: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
        })
    }

    /// What the disk holds if everything written arrives.
    pub fn image(&self) -> Vec<u8> {
        self.content.lock().unwrap().current.clone()
    }

    /// Cuts the power so many requests from now.
    pub fn cut_after(&self, requests: u64) {
        self.content.lock().unwrap().left = Some(requests);
    }

    pub fn has_power(&self) -> bool {
        self.content.lock().unwrap().left != Some(0)
    }

    /// What a power cut leaves: everything flushed, and any part of the rest.
    pub fn image_after_power_cut(&self, rng: &mut Rng) -> Vec<u8> {
        self.image_after_cut_of(SECTOR_SIZE * 2, rng)
    }

    /// The same if so many bytes arrive together or not at all.
    pub fn image_after_cut_of(&self, atom: usize, rng: &mut Rng) -> Vec<u8> {
        let content = self.content.lock().unwrap();
        let mut image = content.stable.clone();
        for (sector, bytes) in &content.volatile {
            for (index, chunk) in bytes.chunks(atom).enumerate() {
                if rng.below(2) == 0 {
                    let at = *sector as usize * SECTOR_SIZE + index * atom;
                    image[at..at + chunk.len()].copy_from_slice(chunk);
                }
            }
        }
        image
    }
}

impl Content {
    fn perform(&mut self, request: &Request) {
        let mut at = request.sector as usize * SECTOR_SIZE;
        self.left = self.left.map(|left| left.saturating_sub(1));
        match request.transfer {
            Transfer::Flush if self.left == Some(0) => {}
            Transfer::Flush => {
                for (sector, bytes) in self.volatile.drain(..) {
                    let at = sector as usize * SECTOR_SIZE;
                    self.stable[at..at + bytes.len()].copy_from_slice(&bytes);
                }
            }
            Transfer::Read => {
                for memory in &request.memory {
                    // SAFETY: the request owns its memory, which lives as long as it does.
                    let to = unsafe { core::slice::from_raw_parts_mut(memory.as_ptr(), memory.len()) };
                    to.copy_from_slice(&self.current[at..at + memory.len()]);
                    at += memory.len();
                }
            }
            Transfer::Write => {
                let mut bytes = Vec::new();
                for memory in &request.memory {
                    // SAFETY: as above.
                    bytes.extend_from_slice(unsafe { core::slice::from_raw_parts(memory.as_ptr(), memory.len()) });
                }
                self.current[at..at + bytes.len()].copy_from_slice(&bytes);
                if self.left != Some(0) {
                    self.volatile.push((request.sector, bytes));
                }
            }
        }
    }
}

impl BlockDevice for TestDisk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn max_segments(&self) -> usize {
        5
    }

    fn submit(&self, request: Request) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.flushes.fetch_add(u64::from(request.transfer == Transfer::Flush), Ordering::Relaxed);
        let polls = self.rng.lock().unwrap().below(self.delay);
        let content = self.content.clone();
        let failed = match request.transfer {
            Transfer::Write => self.fail_writes.load(Ordering::Relaxed),
            Transfer::Read => self.bad_sector.load(Ordering::Relaxed) == request.sector,
            Transfer::Flush => false,
        };
        exec::spawn("disk", async move {
            for _ in 0..polls {
                exec::yield_now().await;
            }
            if failed {
                return request.complete(Err(Errno::EIO));
            }
            content.lock().unwrap().perform(&request);
            request.complete(Ok(()));
        });
    }
}

fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

fn temporary() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("pollux-ext2-{}-{id}.img", std::process::id()))
}

fn run(command: &mut Command) -> (i32, String) {
    let output = command.output().expect("e2fsprogs is not installed: these tests need mke2fs and e2fsck");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// A new image of `size` bytes.
pub fn mke2fs(arguments: &[&str], size: usize) -> Vec<u8> {
    let path = temporary();
    std::fs::write(&path, vec![0u8; size]).unwrap();
    let kind: &[&str] = if arguments.contains(&"-t") { &[] } else { &["-t", "ext2"] };
    let (code, text) = run(tool("mke2fs").args(["-q", "-F"]).args(kind).args(arguments).arg(&path));
    assert_eq!(code, 0, "mke2fs: {text}");
    take(&path)
}

fn take(path: &Path) -> Vec<u8> {
    let image = std::fs::read(path).unwrap();
    std::fs::remove_file(path).unwrap();
    image
}

/// Fails unless e2fsck finds nothing to complain about.
pub fn check_clean(image: &[u8], what: &str) {
    let path = temporary();
    std::fs::write(&path, image).unwrap();
    let (code, text) = run(tool("e2fsck").args(["-f", "-n"]).arg(&path));
    if code != 0 {
        panic!("{what}: e2fsck answers {code} for {}:\n{text}", path.display());
    }
    std::fs::remove_file(&path).unwrap();
}

/// Repairs an image without a question, as at boot; or says what the question would be.
pub fn preen(image: &[u8]) -> Result<Vec<u8>, String> {
    let path = temporary();
    std::fs::write(&path, image).unwrap();
    let (code, text) = run(tool("e2fsck").args(["-f", "-p"]).arg(&path));
    let image = take(&path);
    if code & !3 == 0 { Ok(image) } else { Err(text) }
}

/// Repairs what a power cut left. Questions are allowed only about directories that moved to another when power went, or gave
/// their name to another one.
pub fn repair_after_cut(image: &[u8], what: &str) -> Vec<u8> {
    let Err(text) = preen(image) else { return preen(image).unwrap() };
    let question =
        text.lines().rev().skip_while(|line| !line.contains("UNEXPECTED")).skip(1).find(|line| !line.trim().is_empty());
    let question = question.unwrap_or_default();
    let about_directories =
        ["Unconnected directory inode", "is a link to directory", "'..' in"].iter().any(|q| question.contains(q));
    assert!(about_directories, "{what}: e2fsck asks:\n{text}");
    repair(image)
}

/// Repairs an image.
pub fn repair(image: &[u8]) -> Vec<u8> {
    let path = temporary();
    std::fs::write(&path, image).unwrap();
    let (code, text) = run(tool("e2fsck").args(["-f", "-y"]).arg(&path));
    assert!(code & !3 == 0, "e2fsck cannot repair {}: {code}\n{text}", path.display());
    take(&path)
}

/// Runs commands of debugfs on an image.
pub fn debugfs(image: &[u8], commands: &[&str]) -> Vec<u8> {
    let path = temporary();
    std::fs::write(&path, image).unwrap();
    for command in commands {
        let (code, text) = run(tool("debugfs").args(["-w", "-R", command]).arg(&path));
        assert_eq!(code, 0, "debugfs {command}: {text}");
    }
    take(&path)
}

/// Runs commands of debugfs on an image, all in one session. FILE in them is a file with this content.
pub fn debugfs_session(image: &[u8], content: &[u8], commands: &[&str]) -> Vec<u8> {
    let (path, file, script) = (temporary(), temporary(), temporary());
    std::fs::write(&path, image).unwrap();
    std::fs::write(&file, content).unwrap();
    std::fs::write(&script, commands.join("\n").replace("FILE", &format!("{}", file.display()))).unwrap();
    let (code, text) = run(tool("debugfs").arg("-w").arg("-f").arg(&script).arg(&path));
    assert_eq!(code, 0, "debugfs {commands:?}: {text}");
    std::fs::remove_file(&file).unwrap();
    std::fs::remove_file(&script).unwrap();
    take(&path)
}

/// What a command of debugfs says about an image.
pub fn debugfs_output(image: &[u8], command: &str) -> String {
    let path = temporary();
    std::fs::write(&path, image).unwrap();
    let (code, text) = run(tool("debugfs").args(["-R", command]).arg(&path));
    assert_eq!(code, 0, "debugfs {command}: {text}");
    std::fs::remove_file(&path).unwrap();
    text
}

/// Gives all large directories a hash tree.
pub fn optimize_directories(image: &[u8]) -> Vec<u8> {
    let path = temporary();
    std::fs::write(&path, image).unwrap();
    let (code, text) = run(tool("e2fsck").args(["-f", "-y", "-D"]).arg(&path));
    assert!(code & !3 == 0, "e2fsck -D: {code} {text}");
    take(&path)
}
