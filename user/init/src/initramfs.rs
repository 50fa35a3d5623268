//! `/init` of the initramfs that `--kernel linux` boots with: loads the modules that Debian's
//! kernel needs to reach its disk, mounts the root that the command line names, and becomes its
//! init. Pollux needs none of this.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

fn main() {
    // For measurements: how much of the boot is Linux, and how much is this program.
    // SAFETY: there is one thread.
    unsafe { std::env::set_var("INITRAMFS_STARTED", counter().to_string()) };
    if let Err(error) = boot() {
        eprintln!("initramfs: {error}");
        // The kernel's panic message ends the run; an init that ends is how to ask for it.
        std::process::exit(1);
    }
}

fn boot() -> io::Result<()> {
    mount("devtmpfs", "/dev", "devtmpfs")?;
    mount("proc", "/proc", "proc")?;
    for name in fs::read_to_string("/modules/order")?.lines() {
        insert_module(name).map_err(|error| context(error, name))?;
    }
    let command_line = fs::read_to_string("/proc/cmdline")?;
    let option = |name: &str| {
        command_line
            .split_whitespace()
            .take_while(|word| *word != "--")
            .filter_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .last()
    };
    let root = option("root").unwrap_or("/dev/vda");
    wait_for(root)?;
    let kinds = ["ext2", "ext4"];
    kinds
        .iter()
        .find(|kind| mount(root, "/newroot", kind).is_ok())
        .ok_or_else(|| io::Error::other(format!("cannot mount {root}")))?;
    std::env::set_current_dir("/newroot")?;
    // SAFETY: live C strings.
    unsafe {
        check(libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH))?;
        check(libc::mount(c".".as_ptr(), c"/".as_ptr(), std::ptr::null(), libc::MS_MOVE, std::ptr::null()))?;
        check(libc::chroot(c".".as_ptr()))?;
    }
    std::env::set_current_dir("/")?;
    let candidates =
        option("init").map_or_else(|| vec!["/sbin/init", "/etc/init", "/bin/init", "/bin/sh"], |path| vec![path]);
    for path in &candidates {
        execute(path);
    }
    Err(io::Error::other(format!("none of {candidates:?} can be run")))
}

fn mount(source: &str, target: &str, kind: &str) -> io::Result<()> {
    fs::create_dir_all(target)?;
    let [source, target, kind] = [source, target, kind].map(|text| CString::new(text).unwrap());
    // SAFETY: live C strings.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) })
        .map_err(|error| context(error, &target.to_string_lossy()))
}

fn insert_module(name: &str) -> io::Result<()> {
    let file = fs::File::open(format!("/modules/{name}"))?;
    // SAFETY: a descriptor and a live C string.
    let result = check(unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) as i32 });
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

/// The driver finds its device in its own time.
fn wait_for(path: &str) -> io::Result<()> {
    for _ in 0..1000 {
        if Path::new(path).exists() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(io::Error::other(format!("{path} does not appear")))
}

/// Becomes the program, with the arguments that this one was given. Returns if it cannot.
fn execute(path: &str) {
    let path = CString::new(path).unwrap_or_default();
    let arguments: Vec<CString> = std::env::args().skip(1).map(|arg| CString::new(arg).unwrap_or_default()).collect();
    let argv: Vec<_> = [path.as_c_str()]
        .into_iter()
        .chain(arguments.iter().map(|arg| arg.as_c_str()))
        .map(CStr::as_ptr)
        .chain([std::ptr::null()])
        .collect();
    // SAFETY: `argv` ends with a null pointer and its strings are alive.
    unsafe { libc::execv(path.as_ptr(), argv.as_ptr()) };
}

/// Nanoseconds since the machine was switched on.
fn counter() -> u64 {
    #[cfg(target_arch = "aarch64")]
    {
        let (count, frequency): (u64, u64);
        // SAFETY: Linux lets every program read both registers.
        unsafe {
            std::arch::asm!("mrs {}, cntvct_el0", out(reg) count);
            std::arch::asm!("mrs {}, cntfrq_el0", out(reg) frequency);
        }
        (u128::from(count) * 1_000_000_000 / u128::from(frequency.max(1))) as u64
    }
    #[cfg(not(target_arch = "aarch64"))]
    0
}

fn check(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn context(error: io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}
