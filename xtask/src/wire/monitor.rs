//! QEMU's monitor (qemu-qmp-ref(7)), as far as it is about the card's cable.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};

use super::CARD;

/// How long QEMU may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Monitor {
    stream: Mutex<(BufReader<UnixStream>, bool)>,
}

impl Monitor {
    pub fn new(stream: UnixStream) -> Monitor {
        Monitor { stream: Mutex::new((BufReader::new(stream), false)) }
    }

    /// Puts the cable in or takes it out.
    pub fn set_link(&self, up: bool) -> Result<()> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let (stream, greeted) = &mut *stream;
        stream.get_ref().set_read_timeout(Some(PATIENCE))?;
        if !*greeted {
            command(stream, r#"{"execute": "qmp_capabilities"}"#)?;
            *greeted = true;
        }
        command(stream, &format!(r#"{{"execute": "set_link", "arguments": {{"name": "{CARD}", "up": {up}}}}}"#))
    }
}

/// Events and the greeting come between.
fn command(stream: &mut BufReader<UnixStream>, text: &str) -> Result<()> {
    writeln!(stream.get_mut(), "{text}")?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            bail!("QEMU has gone");
        }
        if line.starts_with(r#"{"error""#) {
            bail!("QEMU says {}", line.trim());
        }
        if line.starts_with(r#"{"return""#) {
            return Ok(());
        }
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
                "{\"return\": {}}",
                "{\"event\": 1}\n{\"return\": {}}",
                "{\"error\": 1}",
            ]) {
                said.push(line.unwrap());
                writeln!(&qemu, "{answer}").unwrap();
            }
            said
        });
        let monitor = Monitor::new(ours);
        monitor.set_link(false).unwrap();
        assert_eq!(monitor.set_link(true).unwrap_err().to_string(), "QEMU says {\"error\": 1}");
        drop(monitor);
        let said = answers.join().unwrap();
        assert!(said[0].contains("qmp_capabilities") && said[1].contains("false") && said[2].contains("true"));
    }
}
