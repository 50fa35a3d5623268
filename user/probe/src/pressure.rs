//! More than memory holds: a file that is used through mappings, and what is in pipes.

use std::fs::{self, OpenOptions};
use std::io::{Error, Result, Write};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

const PAGE: usize = 4096;

/// Maps all of it, shared and once more privately; writes every page through the first, every eighth through the second,
/// and reads everything back. Answers how many pages were wrong.
pub fn run(megabytes: usize) -> Result<usize> {
    let path = "/root/probe.pressure";
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
    file.set_len((megabytes << 20) as u64)?;
    let pages = (megabytes << 20) / PAGE;
    let map = |flags| -> Result<*mut u64> {
        // SAFETY: a new mapping, checked before use.
        let at = unsafe {
            libc::mmap(null_mut(), pages * PAGE, libc::PROT_READ | libc::PROT_WRITE, flags, file.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED { Err(Error::last_os_error()) } else { Ok(at.cast()) }
    };
    let (shared, private) = (map(libc::MAP_SHARED)?, map(libc::MAP_PRIVATE | libc::MAP_NORESERVE)?);
    let word = |base: *mut u64, page: usize| base.wrapping_add(page * (PAGE / 8));
    let mut wrong = 0;
    // SAFETY: all words are in the mappings.
    unsafe {
        for page in 0..pages {
            word(shared, page).write_volatile(page as u64 + 1);
            if page % 8 == 0 {
                word(private, page).write_volatile(!(page as u64));
            }
        }
        for page in 0..pages {
            let kept = if page % 8 == 0 { !(page as u64) } else { page as u64 + 1 };
            wrong += usize::from(word(private, page).read_volatile() != kept);
            wrong += usize::from(word(shared, page).read_volatile() != page as u64 + 1);
        }
    }
    fs::remove_file(path)?;
    Ok(wrong)
}

/// Fills pipes and sockets until the kernel has no memory for more, and then one pipe again; the errors and the count.
pub fn pipes() -> Result<String> {
    // SAFETY: a live structure.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &libc::rlimit { rlim_cur: 16_384, rlim_max: 16_384 }) };
    let block = [7; 65_536];
    let mut held = Vec::new();
    let full = loop {
        let (reader, mut writer) = std::io::pipe()?;
        let result = writer.write(&block);
        held.push((reader, writer));
        if !matches!(result, Ok(65_536)) {
            break result;
        }
    };
    let (a, _b) = std::os::unix::net::UnixDatagram::pair()?;
    let datagram = a.send(&block).err().and_then(|error| error.raw_os_error());
    drop(held);
    let (_reader, mut writer) = std::io::pipe()?;
    let errno = match full {
        Ok(short) if short < block.len() => 12,
        other => other.err().and_then(|error| error.raw_os_error()).unwrap_or(0),
    };
    Ok(format!("{errno} {datagram:?} {}", writer.write(&block)?))
}
