//! QEMU's monitor (qemu-qmp-ref(7)), as far as it is about the card's cable. Each command has a number, which its answer has, too:
//! one that comes after nobody waits for it any more is not taken for the next one's.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::CARD;

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Monitor {
    talk: Mutex<Talk>,
    patience: Duration,
}

struct Talk {
    stream: BufReader<UnixStream>,
    /// Of an answer, as much as has come before the patience was over.
    line: Vec<u8>,
    commands: u64,
}

impl Monitor {
    pub fn new(stream: UnixStream) -> Monitor {
        Monitor::with_patience(stream, PATIENCE)
    }

    fn with_patience(stream: UnixStream, patience: Duration) -> Monitor {
        let talk = Talk { stream: BufReader::new(stream), line: Vec::new(), commands: 0 };
        Monitor { talk: Mutex::new(talk), patience }
    }

    /// Puts the cable in or takes it out.
    pub fn set_link(&self, up: bool) -> Result<()> {
        let mut talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        let until = Instant::now() + self.patience;
        if talk.commands == 0 {
            talk.command(r#""execute": "qmp_capabilities""#, until)?;
        }
        talk.command(&format!(r#""execute": "set_link", "arguments": {{"name": "{CARD}", "up": {up}}}"#), until)
    }
}

impl Talk {
    fn command(&mut self, text: &str, until: Instant) -> Result<()> {
        self.commands += 1;
        let id = self.commands;
        writeln!(self.stream.get_mut(), r#"{{{text}, "id": {id}}}"#)?;
        // The greeting, events and what answers earlier commands come between.
        let own = format!(r#""id": {id}"#);
        loop {
            let line = self.line(until)?;
            if !line.split([',', '{', '}']).any(|word| word.trim() == own) {
                continue;
            }
            if line.contains(r#""error":"#) {
                bail!("QEMU says {}", line.trim());
            }
            return Ok(());
        }
    }

    fn line(&mut self, until: Instant) -> Result<String> {
        let left = until.saturating_duration_since(Instant::now());
        ensure!(!left.is_zero(), "QEMU does not answer");
        self.stream.get_ref().set_read_timeout(Some(left))?;
        match self.stream.read_until(b'\n', &mut self.line) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                bail!("QEMU does not answer")
            }
            read => read?,
        };
        ensure!(self.line.ends_with(b"\n"), "QEMU has gone");
        Ok(String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_link_is_set_after_the_greeting() {
        let (ours, qemu) = UnixStream::pair().unwrap();
        let answers = thread::spawn(move || {
            (&qemu).write_all(b"{\"QMP\": {}}\r\n").unwrap();
            let mut said = Vec::new();
            for (line, answer) in BufReader::new(&qemu).lines().zip([
                "{\"return\": {}, \"id\": 1}",
                "{\"event\": 1}\n{\"return\": {}, \"id\": 2}",
                "{\"id\": 3, \"error\": {\"class\": \"GenericError\"}}",
            ]) {
                said.push(line.unwrap());
                writeln!(&qemu, "{answer}").unwrap();
            }
            said
        });
        let monitor = Monitor::new(ours);
        monitor.set_link(false).unwrap();
        assert!(monitor.set_link(true).unwrap_err().to_string().contains("GenericError"));
        drop(monitor);
        let said = answers.join().unwrap();
        assert!(said[0].contains("qmp_capabilities") && said[1].contains("false") && said[2].contains("true"));
    }

    #[test]
    fn a_late_answer_is_not_the_next_ones() {
        let (ours, qemu) = UnixStream::pair().unwrap();
        let monitor = Monitor::with_patience(ours, Duration::from_millis(50));
        (&qemu).write_all(b"{\"QMP\": {}}\r\n{\"return\": {}, \"id\": 1}\n{\"ret").unwrap();
        assert_eq!(monitor.set_link(false).unwrap_err().to_string(), "QEMU does not answer");
        // The rest of it, when it is too late, and an error for the next.
        (&qemu).write_all(b"urn\": {}, \"id\": 2}\n{\"error\": {}, \"id\": 3}\n").unwrap();
        assert!(monitor.set_link(true).unwrap_err().to_string().contains("\"id\": 3"));
        drop(qemu);
        assert!(monitor.set_link(true).is_err());
    }
}
