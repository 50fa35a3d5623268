//! Asks the kernel, inside a guest, what the tests want to know.
//!
//! * `probe spin PROCESSES ROUNDS`: so many processes count in parallel; prints for each how long that took and how much processor
//!   time it had, in milliseconds.
//! * `probe cpus PROCESSES SECONDS`: the processors on which getcpu(2) found them.
//! * `probe rules`: rules of processes and signals, a line each.
//! * `probe unix`: rules of Unix sockets, a line each.
//! * `probe files`: rules of files, a line each.
//! * `probe pipes`: fills pipes until memory is full; prints what that answers.
//! * `probe hogs`, `probe mappings PROCESSES`: take more memory than there is.
//! * `probe pressure MEGABYTES`: uses a file of this size through mappings; prints how many pages were wrong.
//! * `probe edges`: more of them, at the edges: ends of ranges, rights of others, files without names.
//! * `probe sleepers COUNT`: what so many waiting threads cost.
//! * `probe allocations`: how often calls that should not do so use the kernel's heap.
//! * `probe pairs MILLISECONDS`: which spinlocks are contended while each processor has a conversation of its own, and while all share one pipe.
//! * `probe waits`: what the kernel tells about threads that wait.
//! * `probe net TCP UDP NOBODY`: talks to echo servers at these ports of the host, and to a port where nobody is.
//! * `probe serve PORT CLIENTS`: is an echo server for so many clients.
//! * `probe boot`: as the first program: the machine's counter at its start, then power off.

mod allocations;
mod edges;
mod files;
mod net;
mod pairs;
mod pressure;
mod rules;
mod shortage;
mod sleepers;
mod unix;
mod waits;

use std::collections::BTreeSet;
use std::io::Read;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

fn main() -> ExitCode {
    let started = counter();
    if std::env::args().next().as_deref() == Some("seven") {
        return ExitCode::from(7);
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize| arguments.get(index).and_then(|text| text.parse::<u64>().ok());
    match (arguments.first().map(String::as_str), number(1), number(2)) {
        (Some("spin"), Some(processes), Some(rounds)) => {
            print!("{}", in_parallel(processes, &["count", &rounds.to_string()]));
        }
        (Some("count"), Some(rounds), _) => {
            let (start, processor) = (Instant::now(), processor_time());
            count(rounds);
            println!("{} {}", start.elapsed().as_millis(), (processor_time() - processor).as_millis());
        }
        (Some("cpus"), Some(processes), Some(seconds)) => {
            let text = in_parallel(processes, &["where", &seconds.to_string()]);
            let cpus: BTreeSet<&str> = text.split_whitespace().collect();
            println!("{}", cpus.into_iter().collect::<Vec<_>>().join(" "));
        }
        (Some("where"), Some(seconds), _) => {
            let end = Instant::now() + Duration::from_secs(seconds);
            let mut seen = BTreeSet::new();
            while Instant::now() < end {
                seen.insert(current_cpu());
            }
            seen.iter().for_each(|cpu| println!("{cpu}"));
        }
        (Some("rules"), ..) => rules::all(),
        (Some("unix"), ..) => unix::all(),
        (Some("files"), ..) => files::all(),
        (Some("pipes"), ..) => println!("{}", pressure::pipes().unwrap_or_else(|error| format!("failed: {error}"))),
        (Some("hogs"), ..) => println!("{}", shortage::hogs()),
        (Some("mappings"), Some(processes), _) => println!("{}", shortage::mappings(processes as usize)),
        (Some("pressure"), Some(megabytes), _) => match pressure::run(megabytes as usize) {
            Ok(wrong) => println!("{wrong} wrong"),
            Err(error) => println!("failed: {error}"),
        },
        (Some("sleepers"), Some(count), _) => sleepers::run(count),
        (Some("pairs"), Some(milliseconds), _) => pairs::run(milliseconds),
        (Some("allocations"), ..) => allocations::all(),
        (Some("net"), Some(tcp), Some(udp)) => net::client(tcp, udp, number(3).unwrap_or(1)),
        (Some("serve"), Some(port), Some(clients)) => net::server(port, clients),
        (Some("waits"), ..) => waits::all(),
        (Some("edges"), ..) => edges::all(),
        (Some("owners"), ..) => edges::owners_as_user(),
        // What a rule runs to have a program that runs, or has run.
        (Some("wait"), ..) => drop(std::io::stdin().read_to_end(&mut Vec::new())),
        (Some("true"), ..) => {}
        _ if arguments.iter().any(|argument| argument == "boot") => boot(started),
        _ => {
            eprintln!(
                "usage: probe spin N ROUNDS | cpus N SECONDS | rules | unix | files | edges | waits | allocations | pairs MILLISECONDS | sleepers COUNT | pipes | pressure MEGABYTES | hogs | mappings N | boot"
            );
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Runs this program so many times at once and returns what they print.
fn in_parallel(processes: u64, arguments: &[&str]) -> String {
    let mut children: Vec<_> = (0..processes)
        .filter_map(|_| Command::new("probe").args(arguments).stdout(Stdio::piped()).spawn().ok())
        .collect();
    let mut text = String::new();
    for child in &mut children {
        if let Some(stdout) = &mut child.stdout {
            let _ = stdout.read_to_string(&mut text);
        }
        let _ = child.wait();
    }
    text
}

fn count(rounds: u64) {
    let mut value = 1u64;
    for round in 0..rounds {
        value = std::hint::black_box(value.wrapping_mul(6_364_136_223_846_793_005) ^ round);
    }
}

/// What this process has had (CLOCK_PROCESS_CPUTIME_ID of clock_gettime(2)).
fn processor_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a live timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn current_cpu() -> u32 {
    let mut cpu = 0u32;
    // SAFETY: a live integer; the other two pointers may be null.
    unsafe {
        let null = std::ptr::null_mut::<u8>();
        libc::syscall(libc::SYS_getcpu, &mut cpu, null, null);
    }
    cpu
}

/// Nanoseconds since the machine was switched on.
fn counter() -> u64 {
    #[cfg(target_arch = "aarch64")]
    {
        let (count, frequency): (u64, u64);
        // SAFETY: both registers may be read by any program on Linux.
        unsafe {
            std::arch::asm!("mrs {}, cntvct_el0", out(reg) count);
            std::arch::asm!("mrs {}, cntfrq_el0", out(reg) frequency);
        }
        (u128::from(count) * 1_000_000_000 / u128::from(frequency.max(1))) as u64
    }
    #[cfg(not(target_arch = "aarch64"))]
    0
}

fn boot(started: u64) {
    // The initramfs of the comparison tells when it began.
    let first = std::env::var("INITRAMFS_STARTED").unwrap_or_default();
    println!("boot {started} {first}");
    // SAFETY: no memory involved.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
}
