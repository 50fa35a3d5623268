//! A program on the console: root's login shell, or what the command line names.

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::fd::AsRawFd;

use pollux_wire::Exit;

use crate::sys;

/// What `/etc/passwd` says of root.
pub struct Account {
    pub home: String,
    pub shell: String,
}

impl Account {
    pub fn root() -> Account {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let fields = passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.len() == 7 && fields[2] == "0");
        let field = |index: usize, default: &str| {
            let value = fields.as_ref().map_or("", |fields| fields[index]);
            if value.is_empty() { default } else { value }.to_string()
        };
        Account { home: field(5, "/"), shell: field(6, "/bin/sh") }
    }
}

/// Runs it with the console as controlling terminal until it ends, or until someone asks for the
/// power to be turned off. Meanwhile orphans are reaped.
pub fn run(command: &[String], winsize: Option<(u16, u16)>) -> Exit {
    let shell = Account::root().shell;
    let (program, argv): (Option<&OsStr>, Vec<CString>) = if command.is_empty() {
        let name = shell.rsplit('/').next().unwrap_or("sh");
        // A leading dash makes it a login shell, which reads /etc/profile.
        (Some(shell.as_ref()), vec![sys::c_string(format!("-{name}").as_ref())])
    } else {
        (None, command.iter().map(|arg| sys::c_string(arg.as_ref())).collect())
    };
    let spawned = sys::open_console().and_then(|console| {
        if let Some(size) = winsize {
            sys::set_window_size(console.as_raw_fd(), size);
        }
        sys::spawn(&sys::Child {
            argv: &argv,
            program,
            stdio: [console.as_raw_fd(); 3],
            controlling_tty: true,
            env: &[],
            cwd: None,
            trace: false,
        })
    });
    match spawned {
        Ok(pid) => wait_for(pid),
        Err(error) => {
            let name = command.first().unwrap_or(&shell);
            sys::write_console(format!("init: {name}: {error}\r\n").as_bytes());
            Exit::Code(127)
        }
    }
}

fn wait_for(child: i32) -> Exit {
    loop {
        while let Ok(Some((pid, status))) = sys::reap() {
            if pid == child {
                return crate::exit_of(status);
            }
        }
        if sys::wish().is_some() {
            return Exit::Code(0);
        }
        let _ = sys::wait(&mut [], None);
    }
}
