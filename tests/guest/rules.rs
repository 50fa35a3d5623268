//! Rules of processes, signals, Unix sockets and files, asked by a program in the guest: see `probe rules`, `probe unix` and
//! `probe files`.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use pollux_tests::lab::{self, options, run, text_of};
use xtask::machine::{KernelKind, MachineOptions};

use crate::trial;

/// What Linux 6.1 answers.
const EXPECTED: &str = "\
who has waited has the signal: 0 missed
who has the signal can wait: 0 missed
si_uid is the child's user: 12345 12345
forged timer signals count: 5 queued
kill finds before it checks: [-1, -1, -1, -1] -3 -22 -3
kill everybody as nobody: 0
a zombie keeps its user: 1
huge affinity masks: -22 -22 fits
priorities of SCHED_DEADLINE: 0 0
two threads exec at once: 0 wrong
pidfd and parent_tid at one place: -22
the longest timer interval: 0 0 0
requeue onto itself: 1 1 0
process time never goes back: 0 times back
hanging up the own terminal: 111111
";

/// The same of sockets.
const UNIX: &str = "\
a stream by name: question from unnamed true, answer from /tmp/probe.stream
a name can be taken once: 98 98
nobody listens: 2 111 107 111
datagrams keep their bounds: 4 0 5
end of file after shutdown: rest 32 9
nobody reads any more: 32 104
a read that is not to wait: 11 11 at least 64 KiB: true
a read with a timeout: 11 Some(true)
readiness: 0x4 0x5 0x2005 0x2015
a descriptor in a message: 1 10 32
who is at the other end: 0 true 0 0
another family: 97 22 93 14 -1
a megabyte between threads: 1048678 true true
a listener closes while others connect: 104 111
no descriptor for a connection: 24 11
a receiver closes while another sends: 111
least lengths of reads: 6 0 3
kinds of sockets: [94, 0, 0, 0, 94, 0, 94, 94, 94, 94, 94, 22]
addresses of those without names: [0, 0] 2
";

/// The same of files.
const FILES: &str = "\
a program that runs is not written: [26, 26, 26, 0, 0]
a program that is written does not run: 26 exit status: 0
a script that is written does not run: 26 0
a memfd runs while it is open: exit status: 0 26
seeking where positions mean nothing: [Some(0), Some(0), Some(0)]
nothing is written to a broken pipe: 0
names of /proc cannot be made: [2, 2, 2, 2, 2, 2, 2, 2, 1, 13, 1, 13]
";

/// More of files, at the edges.
const EDGES: &str = "\
offsets beyond the end of all files: [-22, -22, 0, -22] [-22, -22, 2, -22], on disk [-22, -22, 0, -22] [-22, -22, -27, -22]
seeking beyond the end of all files: [9223372036854775807, -22, -22, -22, -22, 0, -6, -6, -22]
sizes beyond the end of all files: [-22, -27, -27, -22, -22] 7
copies beyond the end of all files: [0, -27, -22, 0, 5, -22, -22, 0] 5
copies within a file: [-22, 2, 4, 0] 012345012389
owner of signals: [-3, -22, 0]
an owner that stays keeps the set-id bits of others: Some(-1) 106755 Some(0)
a new name for a file without one: -2 -2 0 1
a hole that is read: true 0
a pipe is spliced: [-29, -22, -22, -22, 4, 0, 9, -11, -9, -22, 9] 16  the pipe 0 confrom the pipe
memory is spliced: [-11, 65536, -11, 65536, -9]
locks beyond the end of all files: [0, -75, -75, 0, -22, -22, -22, -22]
attributes of users in a tmpfs: -95 -95
a directory deeper than a path is long: [3835, 4036, -36] -36 true
a seal and who writes through a mapping: 0 -16 0 0 -1 -1
what others may know of a process: [0, 13, 13, 13, 0, 0, 13, 13] [13, 13, 13] [Some([\"1\", \"1\", \"0\"]), Some([\"0\", \"0\", \"0\", \"0\", \"0\", \"0\", \"0\"])] false
a process of many mappings: true true true
who owns pipes and sockets: ((12346, 12346, 384), (12346, 12346, 511), 0) (0, (12346, 12346, 256), -13) -13
links that others laid: Some([0, 0, -1, 0, -1, 0, -1]) [-13, -13, -13] 0
";

/// What `probe waits` prints; these files are Pollux's own.
const WAITS: &str = "\
an empty pipe:
waits for input from pipe:[N] (descriptor 3)
in read
since N
held by process
wchan: read
stack: [<0>] read
[<0>] life
a socket:
waits for a message from socket:[N] (descriptor 6)
in recvfrom
since N
a sleep:
waits for a time
in clock_nanosleep
since N
a child:
waits for child CHILD
in wait4
since N
held by CHILD
a ring:
waits for completions of a ring (descriptor 100): POLL_ADD pipe:[N] TIMEOUT
in io_uring_enter
since N
a lock:
waits for a wake of futex N (private)
in futex
since N
held by thread1
a lock:
waits for a wake of futex N (private)
in futex
since N
held by thread0
a lock:
waits for the lock N (private)
in futex
since N
held by process
circle: thread0 -> thread1 wait for each other
";

pub fn trials() -> Vec<Trial> {
    let rules = [2, 4]
        .map(|smp| trial(&format!("rules::are_those_of_linux::smp_{smp}"), move || compare(smp, "rules", EXPECTED)));
    let unix = [1, 2].map(|smp| {
        trial(&format!("rules::unix_sockets_are_those_of_linux::smp_{smp}"), move || compare(smp, "unix", UNIX))
    });
    let files = [trial("rules::files_are_those_of_linux", || compare(2, "files", FILES))];
    let edges = [trial("rules::edges_of_files_are_those_of_linux", || compare(2, "edges", EDGES))];
    let pollux = lab::kernel() == KernelKind::Pollux;
    let waits = pollux.then(|| trial("rules::waits_are_told", || compare(2, "waits", WAITS)));
    let heap = pollux.then(|| trial("rules::calls_of_every_day_allocate_nothing", allocations));
    rules.into_iter().chain(unix).chain(files).chain(edges).chain(waits).chain(heap).collect()
}

/// The heap's own counter around a thousand calls of each kind.
fn allocations() -> Result<()> {
    let text = text_of(run(&options(), &["probe", "allocations"])?)?;
    let mut rows = 0;
    for line in text.lines() {
        let (name, each) = line.split_once(": ").with_context(|| text.clone())?;
        ensure!(each == "0.0", "{name} allocates {each} times");
        rows += 1;
    }
    ensure!(rows == 22, "{text}");
    Ok(())
}

fn compare(smp: u8, subject: &str, expected_text: &str) -> Result<()> {
    let options = MachineOptions { smp: Some(smp), ..options() };
    let text = text_of(run(&options, &["probe", subject])?)?;
    for (line, expected) in text.lines().zip(expected_text.lines()) {
        ensure!(line == expected, "{line:?} instead of {expected:?}");
    }
    ensure!(text == expected_text, "{text:?}");
    Ok(())
}
