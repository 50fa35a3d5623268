//! The servers of a workload: a Python script beside it, which listens on the host's loopback, tells where in one line of
//! `NAME=VALUE` words, and ends with its standard input.

use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{paths, provision};

/// Ports on the host's loopback that nobody uses now, for ports of the guest: pairs of the guest's and the host's.
pub fn ports_for(guest: &[u16]) -> Result<Vec<(u16, u16)>> {
    let bind = |_: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    // All of them at the same time, so that no two are the same.
    let listeners = guest.iter().map(bind).collect::<io::Result<Vec<_>>>()?;
    let host = listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect::<io::Result<Vec<_>>>()?;
    Ok(guest.iter().copied().zip(host).collect())
}

pub struct Server {
    child: Child,
    /// What it has told.
    pub told: Vec<(String, String)>,
}

impl Server {
    /// Its arguments are the guest's ports that it reaches, and through which of the host's: `GUEST=HOST`.
    pub fn start(script: &str, ports: &[(u16, u16)]) -> Result<Server> {
        provision::need(&[provision::PYTHON, provision::GIT, provision::OPENSSL])?;
        let file = paths::root().join("workloads").join(script);
        let mut command = provision::PYTHON.command()?;
        command
            .arg(&file)
            .args(ports.iter().map(|(guest, host)| format!("{guest}={host}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{} does not start", file.display()))?;
        let output = child.stdout.take().context("it has an output")?;
        let mut server = Server { child, told: Vec::new() };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let pairs = line.split_whitespace().filter_map(|word| word.split_once('='));
        server.told = pairs.map(|(name, value)| (name.into(), value.into())).collect();
        ensure!(!server.told.is_empty(), "{} says {line:?}, not where it listens", file.display());
        Ok(server)
    }
}

impl Drop for Server {
    /// The end of its input is its own.
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
