//! Runs the suite in a guest.

use std::time::Duration;

use anyhow::{Result, ensure};
use pollux_wire::{Exit, Request};

use crate::machine::Machine;
use crate::session::{self, Input, Outcome};
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
            let mut names = ui::LastLine::new(step, "Measuring");
            let request = Request { argv: self.command(after), ..Request::default() };
            let output = session::watch(machine, request, Input::None, PATIENCE, &mut names)?;
            rows.extend(parse(&String::from_utf8_lossy(&output.stdout)));
            if output.outcome == Outcome::Exit(Exit::Code(0)) {
                return Ok(rows);
            }
            let current = names.last().to_string();
            let known = rows.iter().any(|(name, _)| *name == current);
            ensure!(
                !current.is_empty() && !known && !current.contains(' '),
                "the suite does not run: {:?}\n{}\nkernel's log:\n{}",
                output.outcome,
                names.text(),
                String::from_utf8_lossy(&output.log).replace('\r', "")
            );
            rows.push((current, Figure::Error(output.outcome.reason())));
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
