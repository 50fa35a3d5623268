//! Runs the entries of a workload in guests. A script in the guest (`guest.sh`) runs them one after another; lines of its
//! output that begin with `@@` say where one begins and ends.

use std::cell::RefCell;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use pollux_wire::Request;

use super::list::{Entry, Workload};
use super::verdict;
use crate::machine::Machine;
use crate::refusal::PortTaken;
use crate::session::{Input, Outcome, Session};
use crate::ui;

const SCRIPT: &str = include_str!("guest.sh");
/// What a busy host may take on top of an entry's own limit before the machine counts as hanging.
const GRACE: Duration = Duration::from_secs(60);
/// Only warnings, and what is worse, come to the console.
const LOG_LEVEL: u8 = 5;
/// The same for a machine that counts instructions: seconds of the host for one of the guest, 10^9 instructions.
const SLOWER: u32 = 40;
/// So much of an output is kept.
const LONGEST: usize = 1 << 20;

/// What was seen of an entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub end: End,
    /// By the guest's clock.
    pub seconds: f64,
    /// How much of that all processors were idle, in sum.
    pub idle: f64,
    /// The clock counts instructions: 10^9 a second.
    pub counted: bool,
    /// Free memory before and after, in KiB.
    pub memory: Option<(u64, u64)>,
    pub output: String,
    /// What the kernel said meanwhile, in lines.
    pub log: Vec<String>,
}

impl Seen {
    /// Seconds in which a processor was at work.
    pub fn busy(&self) -> f64 {
        self.seconds - self.idle
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum End {
    Status(i32),
    /// It was ended because it took too long.
    Late,
    /// Nothing was heard of the machine any more; why.
    Machine(String),
}

impl Default for End {
    fn default() -> End {
        End::Machine("it did not run".into())
    }
}

/// Runs all entries, one boot for as many as possible.
pub fn run(machine: &Machine, workload: &Workload, step: &ui::Step) -> Result<Vec<Seen>> {
    let entries = &workload.entries;
    let mut seen = Vec::new();
    while let Some(next) = entries.get(seen.len()) {
        let rest = &entries[seen.len()..];
        let together = if next.fresh { 1 } else { rest.iter().take_while(|entry| !entry.fresh).count() };
        let before = seen.len();
        let progress = |index: usize, seen: Option<&Seen>| {
            let (number, entry) = (before + index + 1, &rest[index]);
            let name = workload.full_name(entry);
            match seen {
                None => step.detail(format!("{name} ({number} of {})", entries.len())),
                Some(seen) => {
                    let problems = verdict::problems(entry, seen);
                    let end = if problems.is_empty() { "ok".into() } else { verdict::shown(&problems) };
                    step.say(format!("{name:32} {:7.1} s  {end}", seen.seconds));
                }
            }
        };
        seen.extend(boot(machine, &workload.env, &rest[..together], &progress)?);
    }
    Ok(seen)
}

/// Gets the index of an entry that begins, and once more with what was seen of it.
type Progress<'a> = &'a dyn Fn(usize, Option<&Seen>);

/// Boots once, and tells what was seen of the first entries: at least of one, or it is an error.
fn boot(machine: &Machine, env: &[(String, String)], entries: &[Entry], progress: Progress) -> Result<Vec<Seen>> {
    let cpus = machine.processors();
    let longest = entries.iter().map(Entry::limit).max().unwrap_or_default();
    let total: u64 = entries.iter().map(|entry| u64::from(entry.limit())).sum();
    let graces = GRACE * entries.len() as u32;
    let slower = if machine.counts_instructions() { SLOWER } else { 1 };
    let listener = Listener { counted: machine.counts_instructions(), ..Listener::new(entries, progress) };
    let listener = RefCell::new(listener);
    let mut stderr = Vec::new();
    let outcome = Session {
        request: Request {
            env: env.iter().map(|(name, value)| (name.clone().into(), value.clone().into())).collect(),
            argv: ["sh", "-s", "--", &cpus.to_string()].map(|word| word.as_bytes().to_vec()).into(),
            ..Request::default()
        },
        input: Input::Bytes(script(entries).into_bytes()),
        stdout: &mut Output(&listener),
        stderr: &mut stderr,
        trace: &mut io::sink(),
        log: &mut Log(&listener),
        timeout: Some((Duration::from_secs(total) + graces + Duration::from_secs(180)) * slower),
        silence: Some((Duration::from_secs(longest.into()) + GRACE) * slower),
        plug: None,
        log_level: LOG_LEVEL,
    }
    .run(machine)?;
    let mut listener = listener.into_inner();
    if listener.running.is_some() {
        listener.end(End::Machine(match &outcome {
            Outcome::Exit(_) => "the shell that runs the entries has ended".into(),
            Outcome::TimedOut => "the machine hangs".into(),
            Outcome::Died(why) => why.clone(),
        }));
    }
    if listener.seen.is_empty() {
        let reason = outcome.reason();
        ensure!(!PortTaken::is(&reason), PortTaken);
        bail!(
            "nothing runs: {reason}\n{}\nkernel's log:\n{}",
            String::from_utf8_lossy(&stderr),
            listener.log.join("\n")
        );
    }
    Ok(listener.seen)
}

/// The guest's script: what runs an entry, and a line for each.
fn script(entries: &[Entry]) -> String {
    let lines = entries
        .iter()
        .map(|entry| format!("run {} {} {} {}\n", entry.name, entry.seconds, entry.limit(), quoted(&entry.command)));
    SCRIPT.to_string() + &lines.collect::<String>() + "echo @@ over\n"
}

/// One word for a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Hears what comes out of the machine.
struct Listener<'a> {
    entries: &'a [Entry],
    progress: Progress<'a>,
    seen: Vec<Seen>,
    running: Option<Seen>,
    /// When that began, by the guest's clock, and how long its processors had been idle.
    start: f64,
    idle: f64,
    line: Vec<u8>,
    log_line: Vec<u8>,
    /// What the kernel said before the first entry, and when all of them were over.
    log: Vec<String>,
    over: bool,
    counted: bool,
}

impl<'a> Listener<'a> {
    fn new(entries: &'a [Entry], progress: Progress<'a>) -> Listener<'a> {
        Listener {
            entries,
            progress,
            seen: Vec::new(),
            running: None,
            start: 0.0,
            idle: 0.0,
            line: Vec::new(),
            log_line: Vec::new(),
            log: Vec::new(),
            over: false,
            counted: false,
        }
    }

    fn output(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.line);
                self.line(&String::from_utf8_lossy(&line));
            } else if self.line.len() < LONGEST {
                self.line.push(*byte);
            }
        }
    }

    fn line(&mut self, line: &str) {
        let entry = self.entries.get(self.seen.len());
        let words: Vec<&str> = line.split(' ').collect();
        match (&words[..], &mut self.running) {
            (["@@", "begin", name, start, idle], None) if entry.is_some_and(|entry| entry.name == *name) => {
                (self.progress)(self.seen.len(), None);
                self.begin(start.parse().unwrap_or_default());
                self.idle = idle.parse().unwrap_or_default();
            }
            (["@@", "end", name, rest @ ..], Some(running)) if entry.is_some_and(|entry| entry.name == *name) => {
                let number =
                    |index: usize| rest.get(index).and_then(|word| word.parse::<f64>().ok()).unwrap_or_default();
                running.seconds = number(1) - self.start;
                running.idle = number(2) - self.idle;
                running.counted = self.counted;
                running.memory = Some((number(3) as u64, number(4) as u64));
                let late = entry.is_some_and(|entry| running.seconds + 0.5 >= f64::from(entry.limit()));
                self.end(match number(0) as i32 {
                    124 | 137 | 143 if late => End::Late,
                    status => End::Status(status),
                });
            }
            (["@@", "over"], None) => self.over = true,
            (_, Some(running)) if running.output.len() < LONGEST => {
                running.output.push_str(line.trim_end_matches('\r'));
                running.output.push('\n');
            }
            _ => {}
        }
    }

    /// What the kernel has said since then may have come here sooner.
    fn begin(&mut self, start: f64) {
        self.start = start;
        let before = self.seen.last_mut().map_or(&mut self.log, |seen| &mut seen.log);
        let since = before.iter().position(|line| time_of(line).is_some_and(|time| time >= start));
        let log = since.map(|since| before.split_off(since)).unwrap_or_default();
        self.running = Some(Seen { log, ..Seen::default() });
    }

    fn end(&mut self, end: End) {
        if let Some(mut running) = self.running.take() {
            running.end = end;
            let length = running.output.trim_end().len();
            running.output.truncate(length);
            (self.progress)(self.seen.len(), Some(&running));
            self.seen.push(running);
        }
    }

    fn log(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                b'\r' => {}
                b'\n' => {
                    let line = std::mem::take(&mut self.log_line);
                    let seen = self.running.as_mut().or(self.seen.last_mut()).filter(|_| !self.over);
                    let log = seen.map_or(&mut self.log, |seen| &mut seen.log);
                    log.push(String::from_utf8_lossy(&line).into_owned());
                }
                byte => self.log_line.push(*byte),
            }
        }
    }
}

/// The time that a line of the log begins with: `[   12.345678] `.
fn time_of(line: &str) -> Option<f64> {
    line.strip_prefix('[')?.split_once(']')?.0.trim().parse().ok()
}

struct Output<'a, 'b>(&'a RefCell<Listener<'b>>);

impl Write for Output<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().output(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Log<'a, 'b>(&'a RefCell<Listener<'b>>);

impl Write for Log<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().log(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Entry {
        Entry { name: name.into(), seconds: 3, slack: 7, ..Entry::default() }
    }

    #[test]
    fn commands_are_one_word_for_the_shell() {
        let entry = Entry { command: "echo 'a b' $x".into(), ..entry("one") };
        assert!(script(&[entry]).ends_with("\nrun one 3 10 'echo '\\''a b'\\'' $x'\necho @@ over\n"));
    }

    #[test]
    fn the_stream_becomes_what_was_seen() {
        let entries = [entry("one"), entry("two"), entry("three")];
        let mut listener = Listener::new(&entries, &|_, _| {});
        listener.log(b"booting\r\n");
        listener.output(b"@@ begin one 10.25 7.50\nhello\n@@ end two 0 0 0 0\n");
        listener.log(b"oh no\r\n[   13.000000] between\n[   13.500001] soon\n");
        listener.output(b"no newline\n@@ end one 3 12.75 8.00 1000 990\n@@ begin two 13.50 8\n\n@@ end tw");
        listener.log(b"late\n");
        listener.output(b"o 124 23.40 8 1 2\n@@ begin three 24.00 8\nstill\n");
        listener.end(End::Machine("gone".into()));
        assert_eq!(listener.log, ["booting"]);
        let [one, two, three] = &listener.seen[..] else { panic!() };
        let output = "hello\n@@ end two 0 0 0 0\nno newline";
        let expected = Seen {
            end: End::Status(3),
            seconds: 2.5,
            idle: 0.5,
            memory: Some((1000, 990)),
            output: output.into(),
            log: ["oh no", "[   13.000000] between"].map(String::from).into(),
            ..Seen::default()
        };
        assert_eq!(*one, expected);
        assert_eq!((&two.end, &two.log[..]), (&End::Late, &["[   13.500001] soon", "late"].map(String::from)[..]));
        assert_eq!((&three.end, three.output.as_str()), (&End::Machine("gone".into()), "still"));
    }

    #[test]
    fn what_the_kernel_says_of_the_end_is_nobodys_fault() {
        let entries = [entry("one")];
        let mut listener = Listener::new(&entries, &|_, _| {});
        listener.output(b"@@ begin one 1.0 0.5\n\n@@ end one 0 2.0 0.5 5 5\n");
        listener.log(b"oh no\n");
        listener.output(b"@@ over\n");
        listener.log(b"Power down\n");
        assert_eq!((&listener.seen[0].log[..], &listener.log[..]), (&["oh no".into()][..], &["Power down".into()][..]));
    }

    #[test]
    fn a_status_of_124_in_good_time_is_the_programs_own() {
        let entries = [entry("one")];
        let mut listener = Listener::new(&entries, &|_, _| {});
        listener.output(b"@@ begin one 1.0 0.5\n\n@@ end one 124 2.0 0.5 5 5\n");
        assert_eq!(listener.seen[0].end, End::Status(124));
    }
}
