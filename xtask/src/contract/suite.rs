//! Runs the tests in a guest.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use pollux_wire::{Exit, Request};

use super::transcripts::{self, Transcripts};
use crate::machine::Machine;
use crate::session::{self, Input, Outcome};
use crate::ui;

/// One boot with all tests; with the waits of a busy host.
const PATIENCE: Duration = Duration::from_secs(900);
/// What one test may take.
const TEST_SECONDS: u32 = 30;
/// Tests that may end the machine before we give up.
const CASUALTIES: usize = 8;

/// Boots the machine and runs the tests. One that takes the machine with it says so in its transcript; the rest runs in
/// the next boot.
pub fn run(machine: &Machine, filter: &[String], step: &ui::Step) -> Result<Transcripts> {
    let mut found = Transcripts::new();
    let mut after = None;
    for _ in 0..CASUALTIES {
        let mut names = ui::LastLine::new(step, "Testing");
        let request = Request { argv: command(filter, after.as_deref()), ..Request::default() };
        let output = session::watch(machine, request, Input::None, PATIENCE, &mut names)?;
        found.extend(transcripts::parse(&String::from_utf8_lossy(&output.stdout)));
        if output.outcome == Outcome::Exit(Exit::Code(0)) {
            return Ok(found);
        }
        let current = names.last().to_string();
        let log = String::from_utf8_lossy(&output.log).replace('\r', "");
        ensure!(
            current.contains('.') && !current.contains(' ') && after.as_ref() != Some(&current),
            "the tests do not run: {:?}\n{}\nkernel's log:\n{log}",
            output.outcome,
            names.text()
        );
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(30)..].join("\n");
        found.insert(current.clone(), format!("-- the machine did not survive: {}\n{end}\n", output.outcome.reason()));
        after = Some(current);
    }
    bail!("{CASUALTIES} tests have ended the machine: that is enough")
}

fn command(filter: &[String], after: Option<&str>) -> Vec<Vec<u8>> {
    let limit = TEST_SECONDS.to_string();
    let mut words = vec!["contracts", "--timeout", &limit];
    if let Some(after) = after {
        words.extend(["--after", after]);
    }
    words.extend(filter.iter().map(String::as_str));
    words.into_iter().map(|word| word.as_bytes().to_vec()).collect()
}
