//! What the user sees of long steps. A run of one guest program must show nothing but what that
//! program prints, so it asks for silence: then only a terminal gets a spinner, wiped afterwards.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// What takes longer is named.
const LONG: Duration = Duration::from_secs(2);

static SILENT: AtomicBool = AtomicBool::new(false);

/// From now on, nothing but errors and spinners is shown.
pub fn silence() {
    SILENT.store(true, Ordering::Relaxed);
}

fn silent() -> bool {
    SILENT.load(Ordering::Relaxed)
}

/// Tells what happens.
pub fn say(text: impl AsRef<str>) {
    if !silent() {
        eprintln!("{}", text.as_ref());
    }
}

/// Of a program that SIGPIPE ends.
pub const NOBODY_READS: u8 = 128 + 13;

/// Writes what a command answers, as `print!` does, but whoever reads it may have had enough.
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::ui::write_out(format_args!($($text)*)) };
}

/// The same with the end of a line.
#[macro_export]
macro_rules! outln {
    ($($text:tt)*) => { $crate::ui::write_out(format_args!("{}\n", format_args!($($text)*))) };
}

/// For [`out!`]. If it cannot be written, the command ends: it has nobody to work for.
pub fn write_out(text: fmt::Arguments) {
    if let Err(error) = io::stdout().write_fmt(text) {
        if error.kind() == io::ErrorKind::BrokenPipe {
            process::exit(NOBODY_READS.into());
        }
        eprintln!("error: cannot write to standard output: {error}");
        process::exit(1);
    }
}

/// Shows that a step is under way until dropped.
#[must_use]
pub struct Step {
    bar: ProgressBar,
    /// Goes with it: then it has not been long.
    _under_way: Option<Sender<()>>,
}

/// Starts a step.
pub fn step(text: impl Into<String>) -> Step {
    let text = text.into();
    if !std::io::stderr().is_terminal() {
        say(format!("{text} ..."));
        return Step { bar: ProgressBar::hidden(), _under_way: None };
    }
    spinner(text)
}

/// A step that is often done already: without a terminal it is named only if it takes time.
pub fn step_if_long(text: impl Into<String>) -> Step {
    let text = text.into();
    if std::io::stderr().is_terminal() {
        return spinner(text);
    }
    let (sender, dropped) = mpsc::channel();
    thread::spawn(move || {
        if dropped.recv_timeout(LONG) == Err(RecvTimeoutError::Timeout) {
            say(format!("{text} ..."));
        }
    });
    Step { bar: ProgressBar::hidden(), _under_way: Some(sender) }
}

fn spinner(text: String) -> Step {
    let bar = ProgressBar::new_spinner().with_message(text);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    Step { bar, _under_way: None }
}

impl Step {
    /// Refines what is shown.
    pub fn detail(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// Tells of a part that is done.
    pub fn say(&self, text: impl AsRef<str>) {
        if self.bar.is_hidden() {
            say(text);
        } else {
            self.bar.println(text);
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Takes the output of a program that names what it is about to do, a line each; the step shows the last one.
pub struct LastLine<'a> {
    step: &'a Step,
    /// What it does to what is named.
    verb: &'static str,
    text: String,
}

impl<'a> LastLine<'a> {
    pub fn new(step: &'a Step, verb: &'static str) -> LastLine<'a> {
        LastLine { step, verb, text: String::new() }
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn last(&self) -> &str {
        self.text.lines().last().unwrap_or_default()
    }
}

impl Write for LastLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.push_str(&String::from_utf8_lossy(bytes));
        self.step.detail(format!("{} {}", self.verb, self.last()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a tool whose output matters only if it fails.
pub fn run_quietly(command: &mut Command) -> Result<()> {
    read(command).map(drop)
}

/// Runs a tool and returns its standard output; an error shows all that it said.
pub fn read(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {}", shown(command)))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed ({}):\n{stdout}{stderr}", shown(command), output.status);
    }
    Ok(stdout)
}

/// Runs a tool whose own progress the user may watch.
pub fn run_openly(command: &mut Command) -> Result<()> {
    if silent() {
        return run_quietly(command);
    }
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// The command as one would type it, more or less.
pub fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| {
            let word = word.to_string_lossy();
            if word.is_empty() || word.contains([' ', '"', '$', '&', ';', '|', '*']) {
                format!("'{word}'")
            } else {
                word.into_owned()
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}
