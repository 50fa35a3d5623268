//! Why QEMU does not start, and what to do about it.

use std::error::Error;
use std::fmt;

use anyhow::Result;

/// What QEMU says, and what that means for who has called `cargo xtask qemu`.
const KNOWN: [(&str, &str); 3] = [
    (
        "Is another process using the image",
        "another guest uses this image: wait for its end, or run all of them with --snapshot",
    ),
    ("Could not set up host forwarding rule", PORT_TAKEN),
    ("cannot set up guest memory", "this machine does not have so much memory free: choose less with --mem"),
];

const PORT_TAKEN: &str =
    "a port of this machine that --forward names is taken: choose another one, or end the program that has it";

/// How often other ports are chosen.
pub const ATTEMPTS: usize = 5;

/// A port that is to lead to the guest belongs to somebody else: where nobody has named it another one does as well.
#[derive(Debug)]
pub struct PortTaken;

impl PortTaken {
    /// Is that why it did not start?
    pub fn is(reason: &str) -> bool {
        reason == PORT_TAKEN
    }

    /// Does something that chooses ports by itself, and again if somebody else has one of them before QEMU.
    pub fn again<T>(mut run: impl FnMut() -> Result<T>) -> Result<T> {
        for _ in 1..ATTEMPTS {
            match run() {
                Err(error) if error.is::<PortTaken>() => {}
                end => return end,
            }
        }
        run()
    }
}

impl fmt::Display for PortTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PORT_TAKEN)
    }
}

impl Error for PortTaken {}

/// What it says else.
const OTHERS: [&str; 2] = ["warning:", "terminating on signal"];

/// What QEMU has said, and whether its guest has.
#[derive(Default)]
pub struct Refusal {
    first: Option<String>,
    known: Option<&'static str>,
    guest_spoke: bool,
}

impl Refusal {
    /// From QEMU's standard error.
    pub fn hear(&mut self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        let known = || KNOWN.iter().find(|(said, _)| text.contains(said)).map(|(_, meaning)| *meaning);
        self.known = self.known.or_else(known);
        let line = || {
            text.lines().find(|line| line.contains("qemu-system") && !OTHERS.iter().any(|other| line.contains(other)))
        };
        self.first = self.first.take().or_else(|| line().map(str::to_string));
    }

    /// The guest has written something, so there is one.
    pub fn guest_spoke(&mut self) {
        self.guest_spoke = true;
    }

    /// QEMU is gone: why, if that is because it did not start.
    pub fn reason(&self) -> Option<String> {
        if self.guest_spoke {
            return None;
        }
        let other = || self.first.as_ref().map(|line| format!("QEMU did not start: {line}"));
        self.known.map(str::to_string).or_else(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_qemu_says_before_the_guest_is_why_it_did_not_start() {
        let said = |lines: &[&str]| {
            let mut refusal = Refusal::default();
            lines.iter().for_each(|line| refusal.hear(format!("{line}\n").as_bytes()));
            refusal
        };
        let taken = "qemu-system-aarch64: -netdev user,id=net: Could not set up host forwarding rule 'tcp::80-:80'";
        assert!(said(&[taken]).reason().is_some_and(|reason| reason.contains("--forward") && PortTaken::is(&reason)));
        let no_rom = "qemu-system-aarch64: failed to find romfile \"efi-virtio.rom\"";
        let warning = "qemu-system-aarch64: warning: hub 1 with no nics";
        assert_eq!(said(&[warning, no_rom]).reason(), Some(format!("QEMU did not start: {no_rom}")));
        assert_eq!(said(&[warning]).reason(), None);
        let mut late = said(&[]);
        late.guest_spoke();
        late.hear(no_rom.as_bytes());
        assert_eq!(late.reason(), None);
    }
}
