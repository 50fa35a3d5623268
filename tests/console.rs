//! A person at the guest's console, played by a program.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use expectrl::process::unix::WaitStatus;
use expectrl::session::OsSession;
use expectrl::{ControlCode, Eof, Expect, Regex, Session};

use crate::lab;
use xtask::machine::KernelKind;

/// What our images' shells print when they wait: a path and `#`.
const PROMPT: &str = r"root@pollux:\S*# ";
/// Slow enough for a machine that does other things as well.
const PATIENCE: Duration = Duration::from_secs(40);

/// `cargo xtask qemu` on a terminal of 80 by 24.
pub struct Console {
    session: OsSession,
}

impl Console {
    /// Boots an image file to its shell. What the guest writes is kept.
    pub fn boot(image: &Path, arguments: &[&str]) -> Result<Console> {
        let kernel = match lab::kernel() {
            KernelKind::Pollux => "pollux",
            KernelKind::Linux => "linux",
        };
        let mut command = match std::env::var_os("POLLUX_XTASK") {
            Some(xtask) => Command::new(xtask),
            None => {
                let mut cargo = Command::new("cargo");
                cargo.args(["run", "--quiet", "--package", "xtask", "--"]);
                cargo
            }
        };
        command.args(["qemu", "--kernel", kernel, "--image"]).arg(image).args(arguments);
        command.env("TERM", "vt100");
        let mut session = Session::spawn(command).context("cannot start xtask")?;
        session.get_process_mut().set_window_size(80, 24)?;
        session.set_expect_timeout(Some(PATIENCE));
        let mut console = Console { session };
        console.prompt()?;
        Ok(console)
    }

    /// Waits for the shell; returns what was shown before its prompt.
    pub fn prompt(&mut self) -> Result<String> {
        self.wait_for(PROMPT).map(|(before, _)| before)
    }

    /// Waits for a regular expression; returns what was shown before it, and the match.
    pub fn wait_for(&mut self, regex: &str) -> Result<(String, String)> {
        let captures = self
            .session
            .expect(Regex(regex))
            .with_context(|| format!("waiting for {regex:?}; on the screen: {:?}", self.seen()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((text(captures.before()), captures.get(0).map(text).unwrap_or_default()))
    }

    /// What has come and was not waited for.
    fn seen(&mut self) -> String {
        let mut buffer = vec![0; 4096];
        let length = self.session.try_read(&mut buffer).unwrap_or(0);
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Types as it is.
    pub fn type_in(&mut self, keys: &str) -> Result<()> {
        Ok(self.session.send(keys)?)
    }

    /// Types one control key.
    pub fn control(&mut self, key: ControlCode) -> Result<()> {
        Ok(self.session.send(key)?)
    }

    /// Types a command and returns what it shows, without the echo of the command.
    pub fn command(&mut self, line: &str) -> Result<String> {
        self.type_in(&format!("{line}\r"))?;
        let shown = self.prompt()?;
        let shown = shown.replace("\u{1b}[6n", "").replace('\r', "");
        Ok(shown.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_string()))
    }

    /// A command that must show this somewhere.
    pub fn expect(&mut self, line: &str, part: &str) -> Result<String> {
        let shown = self.command(line)?;
        ensure!(shown.contains(part), "{line:?} shows {shown:?}, not {part:?}");
        Ok(shown)
    }

    /// Waits for xtask to end and returns its status.
    pub fn end(mut self) -> Result<i32> {
        self.session.expect(Eof).context("the machine does not switch off")?;
        match self.session.get_process().wait()? {
            WaitStatus::Exited(_, status) => Ok(status),
            other => bail!("xtask ended with {other:?}"),
        }
    }
}
