//! What the kernel tells about threads that wait: `probe waits`.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use libc::*;

/// Locks: of the circle, and one that lends priority.
static WORDS: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];
static TIDS: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];

fn gettid() -> u32 {
    // SAFETY: it has no arguments.
    unsafe { syscall(SYS_gettid) as u32 }
}

fn futex(word: &AtomicU32, operation: i32, value: u32) {
    // SAFETY: the word is static.
    unsafe { syscall(SYS_futex, word.as_ptr(), operation | FUTEX_PRIVATE_FLAG, value, 0usize) };
}

/// A thread that owns lock `mine`, as the word of a robust mutex has it, and waits for another one.
fn waits_for_lock(mine: usize, other: usize, operation: i32) {
    std::thread::spawn(move || {
        let tid = gettid();
        WORDS[mine].store(tid | FUTEX_WAITERS, SeqCst);
        TIDS[mine].store(tid, SeqCst);
        while WORDS[other].load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        futex(&WORDS[other], operation, WORDS[other].load(SeqCst));
    });
}

/// The file of a thread once that waits, with what changes from run to run replaced.
fn told(tid: u32, file: &str) -> String {
    let path = format!("/proc/self/task/{tid}/{file}");
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| format!("{error}\n"));
        // On its way it may wait for pages of its own program.
        let on_its_way = ["runs", "running", "waits for a page"].iter().any(|start| text.starts_with(start));
        if Instant::now() > end || !on_its_way && text != "0" {
            return plain(&text);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ids by name (but for descriptors), other long numbers as N.
fn plain(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_inclusive([' ', '\n', ')']) {
        let bare = word.trim_end_matches([' ', '\n', ')']);
        let end = &word[bare.len()..];
        let is_id = words.last().is_none_or(|last| last != "(descriptor ");
        let number = bare.parse::<u32>().ok().filter(|_| is_id);
        let name = match number.and_then(|number| TIDS.iter().position(|tid| tid.load(SeqCst) == number)) {
            Some(index) => format!("thread{index}"),
            None if number == Some(std::process::id()) => "process".into(),
            None if bare.starts_with("0x") || bare.contains('.') && bare.parse::<f64>().is_ok() => "N".into(),
            None if bare.starts_with("pipe:[") || bare.starts_with("socket:[") => {
                format!("{}:[N]", bare.split(':').next().unwrap_or_default())
            }
            None => bare.into(),
        };
        words.push(name + end);
    }
    words.concat()
}

/// A thread with its id in `slot`, until it waits.
fn thread(slot: usize, body: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        TIDS[slot].store(gettid(), SeqCst);
        body();
    });
    while TIDS[slot].load(SeqCst) == 0 {
        std::thread::yield_now();
    }
}

fn show(title: &str, slot: usize) {
    println!("{title}:\n{}", told(TIDS[slot].load(SeqCst), "await").trim_end());
}

pub fn all() {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    unsafe { pipe(ends.as_mut_ptr()) };
    let [reading, writing] = ends;
    thread(2, move || {
        let mut byte = [0u8; 1];
        // SAFETY: room for a byte.
        unsafe { read(reading, byte.as_mut_ptr().cast(), 1) };
    });
    show("an empty pipe", 2);
    println!("wchan: {}", told(TIDS[2].load(SeqCst), "wchan"));
    print!("stack: {}", told(TIDS[2].load(SeqCst), "stack"));
    TIDS[2].store(0, SeqCst);
    let (mut one, two) = UnixStream::pair().expect("a pair of sockets");
    thread(2, move || drop((&two).read(&mut [0u8; 1])));
    show("a socket", 2);
    drop(one.write(b"x"));
    TIDS[2].store(0, SeqCst);
    thread(2, || std::thread::sleep(Duration::from_secs(1000)));
    show("a sleep", 2);
    TIDS[2].store(0, SeqCst);
    // SAFETY: the child only waits.
    let child = unsafe { fork() };
    if child == 0 {
        loop {
            // SAFETY: it has no arguments.
            unsafe { pause() };
        }
    }
    thread(2, move || {
        // SAFETY: no room for a status is given.
        unsafe { waitpid(child, std::ptr::null_mut(), 0) };
    });
    println!("a child:\n{}", told(TIDS[2].load(SeqCst), "await").replace(&child.to_string(), "CHILD").trim_end());
    // SAFETY: the child is there.
    unsafe { kill(child, SIGKILL) };
    TIDS[2].store(0, SeqCst);
    thread(2, move || ring(reading));
    show("a ring", 2);
    circle();
    // SAFETY: closing what was opened.
    unsafe { close(writing) };
}

/// Waits for completions of a ring, of a poll and a timeout.
fn ring(polled: c_int) {
    const FD: c_int = 100;
    const GETEVENTS: c_int = 1;
    let time = [1000u64, 0];
    // `struct io_uring_sqe` in words: opcode and descriptor; offset; address; length and flags.
    let poll = [6 | (polled as u64) << 32, 0, 0, (POLLIN as u64) << 32, 0, 0, 0, 0];
    let timeout = [11, 0, time.as_ptr() as u64, 1, 0, 0, 0, 0];
    // `struct io_uring_params`: the offsets of the tail and of the array are words 11 and 16.
    let mut params = [0u32; 30];
    // SAFETY: the ring has room for two entries, in pages that it maps.
    unsafe {
        let fd = syscall(SYS_io_uring_setup, 2, params.as_mut_ptr()) as c_int;
        dup2(fd, FD);
        let map = |offset| mmap(std::ptr::null_mut(), 4096, PROT_READ | PROT_WRITE, MAP_SHARED, FD, offset);
        let (rings, entries) = (map(0).cast::<u8>(), map(0x1000_0000).cast::<[u64; 8]>());
        for (index, entry) in [poll, timeout].into_iter().enumerate() {
            entries.add(index).write_volatile(entry);
            rings.add(params[16] as usize).cast::<u32>().add(index).write_volatile(index as u32);
        }
        rings.add(params[11] as usize).cast::<u32>().write_volatile(2);
        syscall(SYS_io_uring_enter, FD, 2, 1, GETEVENTS, 0, 0);
    }
}

/// Two threads that wait for each other, a third that waits for a lock that lends priority; and what key `w` says.
fn circle() {
    TIDS.iter().for_each(|tid| tid.store(0, SeqCst));
    waits_for_lock(0, 1, FUTEX_WAIT);
    waits_for_lock(1, 0, FUTEX_WAIT);
    while TIDS[..2].iter().any(|tid| tid.load(SeqCst) == 0) {
        std::thread::yield_now();
    }
    futex(&WORDS[2], FUTEX_LOCK_PI, 0);
    thread(2, || futex(&WORDS[2], FUTEX_LOCK_PI, 0));
    (0..3).for_each(|slot| show("a lock", slot));
    fs::write("/proc/sysrq-trigger", "w").expect("the trigger");
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        let mut text = vec![0u8; 1 << 18];
        // SAFETY: room for the text.
        let length = unsafe { klogctl(3, text.as_mut_ptr().cast(), text.len() as i32) };
        let text = String::from_utf8_lossy(&text[..length.max(0) as usize]).into_owned();
        if let Some(line) = text.lines().find(|line| line.contains("circle: ")) {
            println!("{}", plain(&line[line.find("circle: ").unwrap_or(0)..]));
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("no circle was found");
}
