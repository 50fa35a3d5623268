//! What programs write to the kernel's log.

use libc::*;

use crate::file::{open, write};
use crate::sys::sys;
use crate::{say, tests};

tests! {
    kmsg_written,
}

/// The priority of the log's line with this text, as syslog(2) shows it.
fn priority(text: &str) -> String {
    const READ_ALL: i32 = 3;
    let mut buffer = vec![0u8; 256 * 1024];
    let length = sys!(SYS_syslog, READ_ALL, buffer.as_mut_ptr(), buffer.len()).0.max(0) as usize;
    let log = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let line = log.lines().rfind(|line| line.ends_with(&format!("] {text}")));
    line.and_then(|line| Some(line.split_once('>')?.0.trim_start_matches('<').to_string())).unwrap_or("none".into())
}

fn kmsg_written() {
    let fd = open(c"/dev/kmsg", O_WRONLY).fd();
    for prefix in ["", "<3>", "<30>", "<5", "<x>"] {
        let rest = format!("contract with {prefix:?}");
        let text = format!("{prefix}{rest}");
        say!("{prefix:?}: {}, then {}, {} with it", write(fd, &format!("{text}\n")), priority(&rest), priority(&text));
    }
    say!("992 bytes: {}", write(fd, &"x".repeat(992)));
    say!("993 bytes: {}", write(fd, &"x".repeat(993)));
}
