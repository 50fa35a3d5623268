//! Runs the suite in a guest.

use std::time::Duration;

use anyhow::{Result, ensure};
use pollux_wire::{Exit, Request};

use crate::machine::Machine;
use crate::session::{Input, Outcome, Session};
use crate::ui;

/// One boot with all rows; with the waits of a busy host.
const PATIENCE: Duration = Duration::from_secs(600);
/// What one row may take when time is measured.
const ROW_SECONDS: u32 = 60;
/// Rows that may end the machine before we give up.
const CASUALTIES: usize = 8;

/// What to run.
pub struct Suite {
    /// Parts of names; none: all rows.
    pub filter: Vec<String>,
    pub scale: u32,
    /// Instructions, and not time.
    pub counting: bool,
}

/// What one run of a row has found.
#[derive(Clone, Debug, PartialEq)]
pub enum Figure {
    /// For one operation: instructions, or nanoseconds.
    Cost(f64),
    /// The kernel has no such system call.
    Absent,
    Error(String),
}

/// Rows in their order.
pub type Rows = Vec<(String, Figure)>;

impl Suite {
    /// Boots the machine and measures. A row that takes the machine with it is an error of that
    /// row; the rest is measured in the next boot.
    pub fn run(&self, machine: &Machine, step: &ui::Step) -> Result<Rows> {
        let mut rows = Rows::new();
        for _ in 0..CASUALTIES {
            let after = rows.last().map(|(name, _)| name.clone());
            let (mut stdout, mut stderr, mut log) = (Vec::new(), ui::LastLine::new(step, "Measuring"), Vec::new());
            let outcome = Session {
                trace: &mut std::io::sink(),
                request: Request { argv: self.command(after), ..Request::default() },
                input: Input::None,
                stdout: &mut stdout,
                stderr: &mut stderr,
                log: &mut log,
                timeout: Some(PATIENCE),
                log_level: 6,
            }
            .run(machine)?;
            rows.extend(parse(&String::from_utf8_lossy(&stdout)));
            if outcome == Outcome::Exit(Exit::Code(0)) {
                return Ok(rows);
            }
            let said = stderr.text();
            let current = stderr.last().to_string();
            let known = rows.iter().any(|(name, _)| *name == current);
            ensure!(
                !current.is_empty() && !known && !current.contains(' '),
                "the suite does not run: {outcome:?}\n{said}\nkernel's log:\n{}",
                String::from_utf8_lossy(&log).replace('\r', "")
            );
            let why = match outcome {
                Outcome::TimedOut => "no end".to_string(),
                Outcome::Died(why) => why,
                Outcome::Exit(exit) => format!("{exit:?}"),
            };
            rows.push((current, Figure::Error(why)));
        }
        anyhow::bail!("{CASUALTIES} rows have ended the machine: that is enough")
    }

    fn command(&self, after: Option<String>) -> Vec<Vec<u8>> {
        let mut words = vec!["bench".to_string(), "--scale".into(), self.scale.to_string()];
        if self.counting {
            words.push("--counting".into());
        } else {
            words.extend(["--timeout".into(), ROW_SECONDS.to_string()]);
        }
        if let Some(after) = after {
            words.extend(["--after".into(), after]);
        }
        words.extend(self.filter.iter().cloned());
        words.into_iter().map(String::into_bytes).collect()
    }
}

fn parse(text: &str) -> impl Iterator<Item = (String, Figure)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once('\t')?;
        let figure = match value {
            "absent" => Figure::Absent,
            _ => match value.parse() {
                Ok(cost) => Figure::Cost(cost),
                Err(_) => Figure::Error(value.trim_start_matches("ERR ").to_string()),
            },
        };
        Some((name.to_string(), figure))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_figures() {
        let rows: Rows = parse("a\t12.5\nb\tabsent\nc\tERR no pipe\nnonsense\n").collect();
        let expected = [Figure::Cost(12.5), Figure::Absent, Figure::Error("no pipe".into())];
        assert_eq!(rows.iter().map(|(name, _)| name.as_str()).collect::<String>(), "abc");
        assert!(rows.into_iter().map(|(_, figure)| figure).eq(expected));
    }
}
