//! The first program of a Pollux image.
//!
//! It prepares the machine (mounts, host name, environment), runs one thing and powers off:
//!
//! * nothing asked: root's login shell on the console, with job control;
//! * `--exec CMD ARG…`: that program on the console;
//! * `--runner NONCE`: whatever the host asks for over the [`pollux_wire`] protocol.
//!
//! Options come after `--` on the kernel's command line: `--winsize COLSxROWS`, `--term NAME`, `--share TAG[:ro]`, which
//! mounts a folder of the host on /mnt/TAG, `--status`, which also hands the exit status of the shell to the host as a
//! frame, and `--net ADDRESS/PREFIX,GATEWAY,DNS` for a kernel that does not configure its network card.

mod console;
mod network;
mod runner;
mod sys;

use std::env;
use std::fs;
use std::os::unix::fs::symlink;

use pollux_wire::{Exit, Frame};

/// What the kernel's command line asks for.
#[derive(Default)]
struct Options {
    runner: Option<String>,
    winsize: Option<(u16, u16)>,
    term: Option<String>,
    status: bool,
    shares: Vec<String>,
    net: Option<String>,
    command: Vec<String>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Options {
        let mut options = Options::default();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--runner" => options.runner = args.next(),
                "--winsize" => options.winsize = args.next().and_then(|size| parse_size(&size)),
                "--term" => options.term = args.next(),
                "--net" => options.net = args.next(),
                "--status" => options.status = true,
                "--share" => options.shares.extend(args.next()),
                "--exec" => options.command.extend(args.by_ref()),
                // Linux also hands on words of its command line that it does not know.
                _ => {}
            }
        }
        options
    }
}

fn parse_size(size: &str) -> Option<(u16, u16)> {
    let (columns, rows) = size.split_once('x')?;
    Some((columns.parse().ok()?, rows.parse().ok()?))
}

fn main() {
    let options = Options::parse(env::args().skip(1));
    if std::process::id() != 1 {
        eprintln!("init: I am not process 1, so I do nothing");
        std::process::exit(1);
    }
    sys::catch_signals();
    prepare(&options);
    if let Some(nonce) = &options.runner {
        runner::serve(nonce);
    } else {
        let exit = console::run(&options.command, options.winsize);
        if options.status {
            sys::write_console(&Frame::Exit(exit).encode());
        }
    }
    shut_down(sys::wish().unwrap_or(sys::Wish::PowerOff));
}

/// Mounts what programs expect and sets up the environment that they inherit.
fn prepare(options: &Options) {
    // What the kernel does not have yet, or has mounted already, is no reason to stop.
    for (kind, target, flags, data) in [
        ("proc", "/proc", sys::NO_SUID | sys::NO_EXEC, ""),
        ("sysfs", "/sys", sys::NO_SUID | sys::NO_EXEC, ""),
        ("devtmpfs", "/dev", sys::NO_SUID, "mode=0755"),
        ("devpts", "/dev/pts", sys::NO_SUID | sys::NO_EXEC, "gid=5,mode=620,ptmxmode=666"),
        ("tmpfs", "/dev/shm", sys::NO_SUID, "mode=1777"),
        ("tmpfs", "/tmp", sys::NO_SUID, "mode=1777"),
        ("tmpfs", "/run", sys::NO_SUID, "mode=0755"),
    ] {
        let _ = fs::create_dir(target);
        let _ = sys::mount(kind, target, kind, flags, data);
    }
    // A fresh devtmpfs lacks what is not a device.
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        let _ = symlink(target, format!("/dev/{name}"));
    }
    if let Ok(name) = fs::read_to_string("/etc/hostname") {
        sys::set_host_name(name.trim());
    }
    network::bring_up(options.net.as_deref());
    options.shares.iter().for_each(|share| mount_share(share));
    let root = console::Account::root();
    let _ = env::set_current_dir(&root.home).or_else(|_| env::set_current_dir("/"));
    // SAFETY: init has one thread.
    unsafe {
        env::set_var("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        env::set_var("HOME", &root.home);
        env::set_var("SHELL", &root.shell);
        env::set_var("USER", "root");
        env::set_var("LOGNAME", "root");
        env::set_var("TERM", options.term.as_deref().unwrap_or("linux"));
    }
}

/// Mounts a folder of the host.
fn mount_share(share: &str) {
    let (tag, flags) = match share.strip_suffix(":ro") {
        Some(tag) => (tag, sys::READ_ONLY),
        None => (share, 0),
    };
    let target = format!("/mnt/{tag}");
    let mounted = fs::create_dir_all(&target)
        .and_then(|()| sys::mount(tag, &target, "9p", flags, "trans=virtio,version=9p2000.L,msize=262144"));
    if let Err(error) = mounted {
        sys::write_console(format!("init: the share {tag} cannot be mounted: {error}\r\n").as_bytes());
    }
}

/// Ends every program, writes everything back, and leaves the machine. Does not return.
fn shut_down(wish: sys::Wish) -> ! {
    if sys::reap_all() == sys::Children::Some {
        sys::kill_all(libc::SIGTERM);
        sys::kill_all(libc::SIGCONT);
        if !sys::wait_for_all(1000) {
            sys::kill_all(libc::SIGKILL);
            sys::wait_for_all(1000);
        }
    }
    sys::sync();
    // A root that is read-only is marked clean; one that refuses has been synced at least.
    let _ = sys::mount("", "/", "", sys::REMOUNT | sys::READ_ONLY, "");
    sys::reboot(wish)
}

/// How the program ended, from a status of `waitpid`.
fn exit_of(status: i32) -> Exit {
    if libc::WIFSIGNALED(status) {
        Exit::Signal(libc::WTERMSIG(status) as u8)
    } else {
        Exit::Code(libc::WEXITSTATUS(status) as u8)
    }
}
