//! Measures what single operations of the kernel cost: `bench [--counting] [--scale N]
//! [--timeout SECONDS] [--after ROW] [--list] [PART OF A NAME…]`.
//!
//! Prints `name<TAB>value` for each row: nanoseconds per operation by CLOCK_MONOTONIC. In a guest
//! that runs with QEMU's `-icount shift=0`, one instruction takes one nanosecond, so the value is a
//! number of instructions. In the place of a value stands `absent` when the kernel lacks the system
//! call, and `ERR reason` for whatever else goes wrong.
//!
//! * [`rows`] has the operations, one table a family. How often a row repeats its operation is
//!   written in it, never found out by time, so that each run does the same.
//! * [`measure`] is the clock and the loop; [`peer`] the second party of a conversation.
//! * [`sys`] is the door to the kernel: most calls go there without a library in between.
//!
//! Each row runs in a process of its own. There is no Rust runtime: `main` is the C library's.

#![no_main]

mod measure;
mod peer;
mod rows;
mod sys;

use std::ffi::{CStr, c_char, c_int};
use std::io::Write;

use measure::{Bench, Stop};
use rows::Row;

/// What the command line asks for.
struct Options {
    bench: Bench,
    /// Seconds that a row may take; 0: no limit. Not with `--counting`: there a wait for the disk
    /// takes the clock to the next timer at once, whenever that is.
    timeout: i32,
    list: bool,
    /// Leave out this row and all before it.
    after: Option<String>,
    names: Vec<String>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Option<Options> {
        let bench = Bench { scale: 1, counting: false };
        let mut options = Options { bench, timeout: 0, list: false, after: None, names: Vec::new() };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--counting" => options.bench.counting = true,
                "--scale" => options.bench.scale = words.next()?.parse().ok().filter(|scale| *scale > 0)?,
                "--timeout" => options.timeout = words.next()?.parse().ok()?,
                "--after" => options.after = Some(words.next()?),
                "--list" => options.list = true,
                _ if word.starts_with('-') => return None,
                _ => options.names.push(word),
            }
        }
        Some(options)
    }

    /// The rows to run.
    fn rows(&self) -> impl Iterator<Item = &'static Row> {
        let all = rows::all(self.bench.counting);
        let before =
            self.after.as_ref().and_then(|after| rows::all(self.bench.counting).position(|row| row.name == *after));
        all.skip(before.map_or(0, |index| index + 1))
            .filter(|row| self.names.is_empty() || self.names.iter().any(|name| row.name.contains(name.as_str())))
    }
}

/// What the C library's start-up code calls.
///
/// # Safety
///
/// As the C standard says: `argc` pointers to strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let words = (1..argc as usize).map(|index| {
        // SAFETY: what the caller promises.
        let word = unsafe { CStr::from_ptr(*argv.add(index)) };
        word.to_string_lossy().into_owned()
    });
    let Some(options) = Options::parse(words) else {
        eprintln!("usage: bench [--counting] [--scale N] [--timeout SECONDS] [--after ROW] [--list] [PART OF A NAME…]");
        return 2;
    };
    if !options.list {
        sys::fix_layout(argv);
    }
    for row in options.rows() {
        if options.list {
            println!("{}", row.name);
            continue;
        }
        // Whoever takes these lines does so now, and not while the next row runs.
        settle(options.bench.counting);
        eprintln!("{}", row.name);
        settle(options.bench.counting);
        println!("{}\t{}", row.name, run(row, &options));
    }
    0
}

/// Lets everybody else finish what he is at. When instructions are counted this costs no time, and
/// it ends at a whole second: what the kernel does periodically comes at the same places of a row
/// in each run.
fn settle(counting: bool) {
    if counting { sys::sleep_to_whole_second() } else { sys::sleep_ms(20) }
}

/// Runs a row in a process of its own and returns what it found.
fn run(row: &Row, options: &Options) -> String {
    let Ok((reader, writer)) = sys::pipe() else { return "ERR no pipe".into() };
    let _ = std::io::stdout().flush();
    let Ok(child) = sys::fork() else { return "ERR no process".into() };
    if child == 0 {
        sys::lead_group();
        let result = match (row.run)(&options.bench) {
            Ok(value) if value.is_finite() && value > 0.0 => format!("{value:.1}"),
            Ok(value) => format!("ERR {value} is no cost"),
            Err(Stop::Absent) => "absent".into(),
            Err(Stop::Failed(why)) => format!("ERR {why}"),
        };
        let _ = sys::write_all(writer, result.as_bytes());
        sys::exit(0);
    }
    sys::close(writer);
    let finished = sys::wait_readable(reader, if options.timeout > 0 { options.timeout * 1000 } else { -1 });
    let mut result = String::new();
    if finished {
        result = sys::read_to_end(reader);
    }
    sys::close(reader);
    // Peers that a failed row has left behind, too.
    sys::kill_group(child);
    let status = sys::wait(child);
    match status {
        _ if !finished => format!("ERR no end within {} s", options.timeout),
        _ if !result.is_empty() => result,
        Ok(status) => format!("ERR status {status:#x}"),
        Err(_) => "ERR lost".into(),
    }
}
