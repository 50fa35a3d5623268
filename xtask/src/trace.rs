//! `cargo xtask trace`: the system calls of a guest program, as the kernel records them
//! (`kernel/src/syscalls/trace.rs` has the format).

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use pollux_wire::Request;

use crate::image::Image;
use crate::machine::{KernelKind, Machine, MachineOptions};
use crate::session::{Input, Outcome, Session};
use crate::{cli, provision, ui};

#[derive(Args)]
pub struct Trace {
    #[command(flatten)]
    machine: MachineOptions,
    /// Recipe (a name), or a file with a root file system (a path)
    #[arg(long, value_name = "NAME|FILE", default_value = "busybox")]
    image: String,
    /// Give up after this time, with status 124: seconds, or with a unit (90s, 5m)
    #[arg(long, value_name = "TIME", value_parser = cli::parse_time)]
    timeout: Option<Duration>,
    /// Only count: calls, errors, polls, time in the kernel and time awaited, by system call
    #[arg(long)]
    summary: bool,
    /// Write the trace to this file instead of standard error
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The program and its arguments; its output, input and status are as with `qemu`
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

impl Trace {
    pub fn run(self) -> Result<u8> {
        ensure!(self.machine.kernel == KernelKind::Pollux, "only Pollux records system calls: leave --kernel away");
        ui::silence();
        let out: Box<dyn Write> = match &self.output {
            Some(path) => {
                let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
                Box::new(BufWriter::new(file))
            }
            None => Box::new(io::stderr()),
        };
        provision::need_for_guests()?;
        let machine = Machine::prepare(&self.machine, Image::find(&self.image)?)?;
        let unit = if self.machine.icount { "instructions" } else { "ns" };
        let mut printer = Printer::new(out, unit, self.summary);
        let mut log = Vec::new();
        let outcome = Session {
            request: Request {
                argv: self.command.into_iter().map(OsStringExt::into_vec).collect(),
                trace: true,
                ..Request::default()
            },
            input: Input::Host,
            stdout: &mut io::stdout(),
            stderr: &mut io::stderr(),
            trace: &mut printer,
            log: &mut log,
            timeout: self.timeout,
            silence: None,
            plug: None,
            log_level: 6,
        }
        .run(&machine)?;
        printer.finish()?;
        let problem = match &outcome {
            Outcome::Exit(_) => None,
            Outcome::TimedOut => Some(format!("no end within {:?}", self.timeout.unwrap_or_default())),
            Outcome::Died(why) => Some(why.clone()),
        };
        if let Some(problem) = problem {
            eprintln!("{}\nxtask: {problem}", String::from_utf8_lossy(&log).replace('\r', ""));
        }
        Ok(outcome.status() as u8)
    }
}

/// One system call.
#[derive(Debug, PartialEq)]
struct Record<'a> {
    thread: u64,
    name: &'a str,
    args: &'a str,
    result: &'a str,
    polls: u64,
    ran: u64,
    waited: u64,
}

impl Record<'_> {
    fn parse(line: &str) -> Option<Record<'_>> {
        let mut fields = line.split('\t');
        let thread = fields.next()?.parse().ok()?;
        let _start = fields.next()?;
        let (name, args, result) = (fields.next()?, fields.next()?, fields.next()?);
        let mut number = || fields.next()?.parse().ok();
        Some(Record { thread, name, args, result, polls: number()?, ran: number()?, waited: number()? })
    }
}

/// What a summary says of one system call.
#[derive(Clone, Copy, Default)]
struct Totals {
    calls: u64,
    errors: u64,
    polls: u64,
    ran: u64,
    waited: u64,
}

impl Totals {
    fn add(&mut self, other: Totals) {
        self.calls += other.calls;
        self.errors += other.errors;
        self.polls += other.polls;
        self.ran += other.ran;
        self.waited += other.waited;
    }
}

/// Shows records as they come, or sums them up.
struct Printer<W> {
    out: W,
    unit: &'static str,
    summary: Option<HashMap<String, Totals>>,
    /// The start of a line whose end has not come.
    rest: Vec<u8>,
    /// What init's child does before it becomes the program is not the program's.
    begun: bool,
    lost: u64,
}

impl<W: Write> Printer<W> {
    fn new(out: W, unit: &'static str, summary: bool) -> Self {
        Printer { out, unit, summary: summary.then(HashMap::new), rest: Vec::new(), begun: false, lost: 0 }
    }

    fn line(&mut self, line: &str) -> io::Result<()> {
        if let Some(lost) = line.strip_prefix("lost\t") {
            let lost = lost.parse().unwrap_or(1);
            self.lost += lost;
            return writeln!(self.out, "xtask: {lost} records of system calls are missing here");
        }
        let Some(record) = Record::parse(line) else {
            return writeln!(self.out, "xtask: not a record: {line}");
        };
        self.begun |= record.name.starts_with("execve");
        if !self.begun {
            return Ok(());
        }
        let Record { thread, name, args, result, polls, ran, waited } = record;
        if let Some(summary) = &mut self.summary {
            let errors = u64::from(result.starts_with("-E"));
            let totals = Totals { calls: 1, errors, polls, ran, waited };
            summary.entry(name.to_string()).or_default().add(totals);
            return Ok(());
        }
        let mut text = format!("{thread:>5} {name}({args}) = {result} <{ran} {}", self.unit);
        if polls > 1 || waited > 0 {
            let _ = write!(text, ", {polls} polls, waited {waited} ns");
        }
        writeln!(self.out, "{text}>")
    }

    /// Shows the summary, if that is wanted.
    fn finish(&mut self) -> io::Result<()> {
        if let Some(summary) = &self.summary {
            let mut rows: Vec<_> = summary.iter().map(|(name, totals)| (name.as_str(), *totals)).collect();
            rows.sort_by(|(a, x), (b, y)| y.ran.cmp(&x.ran).then(a.cmp(b)));
            let mut all = Totals::default();
            rows.iter().for_each(|(_, totals)| all.add(*totals));
            rows.push(("total", all));
            let heads = ["calls", "errors", "polls", self.unit, "waited ns"];
            writeln!(
                self.out,
                "{:<20} {:>8} {:>8} {:>8} {:>14} {:>14}",
                "", heads[0], heads[1], heads[2], heads[3], heads[4]
            )?;
            for (name, Totals { calls, errors, polls, ran, waited }) in rows {
                writeln!(self.out, "{name:<20} {calls:>8} {errors:>8} {polls:>8} {ran:>14} {waited:>14}")?;
            }
        }
        if self.lost > 0 {
            writeln!(self.out, "xtask: {} records of system calls were lost", self.lost)?;
        }
        self.out.flush()
    }
}

impl<W: Write> Write for Printer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned();
                self.line(&line)?;
            } else {
                self.rest.push(*byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: &str = "7\t10\tclose\t3\t0\t1\t50\t0\n\
        7\t11\texecve\t\"/bin/cat\", 0x10, 0x20\t0\t2\t900\t30\n\
        7\t12\topenat\tAT_FDCWD, \"x\", O_RDONLY, 0\t-ENOENT\t1\t400\t0\n";

    fn printed(summary: bool) -> String {
        let mut out = Vec::new();
        let mut printer = Printer::new(&mut out, "ns", summary);
        // Frames end anywhere.
        RECORDS.as_bytes().chunks(5).for_each(|part| printer.write_all(part).unwrap());
        printer.write_all(b"lost\t4\n").unwrap();
        printer.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn calls_are_shown_from_the_programs_start_on() {
        assert_eq!(
            printed(false),
            "    7 execve(\"/bin/cat\", 0x10, 0x20) = 0 <900 ns, 2 polls, waited 30 ns>\n    \
             7 openat(AT_FDCWD, \"x\", O_RDONLY, 0) = -ENOENT <400 ns>\n\
             xtask: 4 records of system calls are missing here\n\
             xtask: 4 records of system calls were lost\n"
        );
    }

    #[test]
    fn summaries_count() {
        let text = printed(true);
        let rows: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(rows.contains(&vec!["openat", "1", "1", "1", "400", "0"]), "{text}");
        assert!(rows.contains(&vec!["total", "2", "1", "3", "1300", "30"]), "{text}");
        assert!(text.ends_with("xtask: 4 records of system calls were lost\n"), "{text}");
    }
}
