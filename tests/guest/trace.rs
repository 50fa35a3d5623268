//! The kernel's records of system calls: `cargo xtask trace`.

use std::io;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use pollux_tests::lab::{self, options};
use pollux_wire::{Exit, Request};
use xtask::machine::KernelKind;
use xtask::session::{Input, Outcome, Session};

use crate::trial;

pub fn trials() -> Vec<Trial> {
    if lab::kernel() == KernelKind::Linux {
        return Vec::new();
    }
    vec![
        trial("trace::shows_arguments_and_results", arguments_and_results),
        trial("trace::follows_children_and_tells_how_long_they_wait", children),
        trial("trace::loses_nothing", loses_nothing),
        trial("trace::shows_calls_that_are_cut_short", cut_short),
    ]
}

/// The records of a shell script, each as its fields.
fn trace(script: &str) -> Result<Vec<Vec<String>>> {
    let machine = lab::machine(&options(), "test")?;
    let (mut records, mut log) = (Vec::new(), Vec::new());
    let outcome = Session {
        request: Request {
            argv: ["sh", "-c", script].map(|word| word.as_bytes().to_vec()).into(),
            trace: true,
            ..Request::default()
        },
        input: Input::None,
        stdout: &mut io::sink(),
        stderr: &mut io::sink(),
        trace: &mut records,
        log: &mut log,
        timeout: Some(Duration::from_secs(120)),
        silence: None,
        plug: None,
        log_level: 6,
    }
    .run(&machine)?;
    ensure!(outcome == Outcome::Exit(Exit::Code(0)), "{outcome:?}: {}", String::from_utf8_lossy(&log));
    let records = String::from_utf8(records)?;
    let records: Vec<_> = records.lines().map(|line| line.split('\t').map(str::to_string).collect()).collect();
    ensure!(records.iter().all(|record: &Vec<_>| record.len() == 8), "not records, or some are lost: {records:#?}");
    Ok(records)
}

fn find<'a>(records: &'a [Vec<String>], name: &str, args: &str) -> Result<&'a [String]> {
    let mut named = records.iter().filter(|record| record[2] == name && record[3].contains(args));
    named.next().map(Vec::as_slice).with_context(|| format!("no {name}({args}) in {records:#?}"))
}

fn arguments_and_results() -> Result<()> {
    let records = trace("cat /nothing/here; echo 'a\tb' > /tmp/out; true")?;
    ensure!(find(&records, "openat", "AT_FDCWD, \"/nothing/here\", O_RDONLY")?[4] == "-ENOENT", "{records:#?}");
    find(&records, "openat", "\"/tmp/out\", O_WRONLY|O_CREAT|O_TRUNC")?;
    ensure!(find(&records, "write", "1, \"a\\tb\\n\", 4")?[4] == "4", "{records:#?}");
    ensure!(find(&records, "execve", "\"/usr/bin/sh\"")?[4] == "0", "{records:#?}");
    ensure!(find(&records, "exit_group", "0")?[4] == "?", "{records:#?}");
    Ok(())
}

fn children() -> Result<()> {
    let records = trace("(sleep 0.3; exit 0) & wait")?;
    let sleep = find(&records, "clock_nanosleep", "").or_else(|_| find(&records, "nanosleep", ""))?;
    let wait = find(&records, "wait4", "")?;
    ensure!(sleep[0] != wait[0], "one thread: {records:#?}");
    let waited: u64 = sleep[7].parse()?;
    ensure!((250_000_000..30_000_000_000).contains(&waited), "{sleep:?}");
    ensure!(sleep[5].parse::<u64>()? >= 2, "{sleep:?}");
    Ok(())
}

fn loses_nothing() -> Result<()> {
    let records = trace("dd if=/dev/zero of=/dev/null bs=1 count=20000")?;
    let reads = records.iter().filter(|record| record[2] == "read" && record[4] == "1").count();
    ensure!(reads == 20_000, "{reads} reads");
    Ok(())
}

fn cut_short() -> Result<()> {
    let records = trace("sleep 1000 & sleep 0.2; kill -9 $!; wait; true")?;
    let cut = records.iter().filter(|record| record[2].contains("nanosleep") && record[4] == "?").count();
    ensure!(cut == 1, "{records:#?}");
    Ok(())
}
